/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random programs (prog.h), interpreted and translated: both must end with the
 * same registers, memory and accesses to devices.
 *
 *   test_programs [--programs N] [--seed S] [--random N] [--program NUMBER [--dump FILE] [--trace]] [--lockstep [--two]]
 *                 [--keep-going]
 *
 * --lockstep: each unit by itself (lockstep.h), which tells where it happens. What comes out at the end is not compared:
 * undoing may empty the TLB, and the programs change page tables at their own risk. (A program whose outcome depends on
 * what the TLB still holds is "unsteady": it does not count as a difference.)
 * --two: two vCPUs in each program, on the same code, data and page tables: nobody knows what comes out, but each unit
 * must do what the interpreter does.
 * --random N: N more with a seed from the kernel. --program: that one; --dump: its memory at the start, for objdump;
 * --trace: every instruction that the interpreter runs.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

#include "engine/soft/lockstep.h"
#include "prog.h"
#include "util/log.h"

#define INTERPRETER_MS 40
#define TRANSLATOR_MS 10000 /* on a loaded host, too */
#define TOGETHER_MS 500     /* two vCPUs may well wait for each other for ever */

struct side {
	struct engine *engine;
	struct vcpu *vcpu, *other; /* --two: the second one */
	uint8_t *ram;
	uint8_t rom[4096] __attribute__((aligned(4096)));
	uint64_t devices;   /* what happened there, in order */
	struct cpu_state after;
	enum vcpu_exit exit;
	bool too_long;
	bool stepped; /* one instruction at a time, with an empty TLB */
};

static struct side interpreter, translator;
static struct cpu_state start, start_other;
static uint8_t image[PROG_RAM];
static struct prog prog;
static const char *dump; /* file for the memory at the start */

/* ---- Somebody must end what does not end ---------------------------------- */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct side *running;
	struct timespec until;
	bool end;
} watch = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void kick(struct side *s)
{
	vcpu_kick(s->vcpu);
	if (s->other)
		vcpu_kick(s->other);
}

static void *watcher(void *arg)
{
	pthread_mutex_lock(&watch.lock);
	while (!watch.end) {
		if (!watch.running) {
			pthread_cond_wait(&watch.cond, &watch.lock);
		} else if (pthread_cond_timedwait(&watch.cond, &watch.lock, &watch.until) && watch.running) {
			watch.running->too_long = true;
			kick(watch.running);
			clock_gettime(CLOCK_MONOTONIC, &watch.until);
			watch.until.tv_sec++;
		}
	}
	pthread_mutex_unlock(&watch.lock);
	return NULL;
}

static void watch_set(struct side *s, unsigned ms)
{
	pthread_mutex_lock(&watch.lock);
	watch.running = s;
	if (s) {
		clock_gettime(CLOCK_MONOTONIC, &watch.until);
		watch.until.tv_sec += ms / 1000;
		watch.until.tv_nsec += ms % 1000 * 1000000;
		watch.until.tv_sec += watch.until.tv_nsec / 1000000000;
		watch.until.tv_nsec %= 1000000000;
		pthread_cond_signal(&watch.cond);
	}
	pthread_mutex_unlock(&watch.lock);
}

/* ---- The machine ---------------------------------------------------------- */

static void device(struct side *s, uint64_t what, uint64_t gpa, uint64_t value, unsigned size)
{
	s->devices = (s->devices ^ what ^ gpa * 4 ^ value * 0x10001 ^ size) * 0x9e3779b97f4a7c15 + 1;
}

static uint32_t pio_read(void *opaque, uint16_t port, unsigned size)
{
	device(opaque, 1ull << 60, port, 0, size);
	return 0xffffffff >> (32 - 8 * size);
}

static void pio_write(void *opaque, uint16_t port, uint32_t value, unsigned size)
{
	struct side *s = opaque;

	if (port == PROG_END_PORT)
		kick(s);
	device(s, 2ull << 60, port, value, size);
}

static uint64_t mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
	device(opaque, 3ull << 60, gpa, 0, size);
	return (gpa * 0x0123456789abcdef) >> (64 - 8 * size);
}

static void mmio_write(void *opaque, uint64_t gpa, uint64_t value, unsigned size)
{
	device(opaque, 4ull << 60, gpa, value, size);
}

static int pic_ack(void *opaque)
{
	return -1;
}

static void ioapic_eoi(void *opaque, uint8_t vector)
{
}

static bool lockstep, two;

static void side_make(struct side *s, bool translate)
{
	struct engine_config config = {
		.kind = ENGINE_SOFT,
		.cpus = translate && two ? 2 : 1,
		.no_translate = !translate,
		.lockstep = translate && lockstep,
		.host = {s, pio_read, pio_write, mmio_read, mmio_write, pic_ack, ioapic_eoi},
	};
	struct err err = ERR_INIT;

	s->ram = mmap(NULL, PROG_RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	s->engine = engine_new(&config, &err);
	if (s->ram == MAP_FAILED || !s->engine || engine_map(s->engine, 0, PROG_RAM, s->ram, false, &err) < 0 ||
	    engine_map(s->engine, PROG_ROM, 4096, s->rom, true, &err) < 0 || !(s->vcpu = vcpu_new(s->engine, 0, &err)) ||
	    (config.cpus == 2 && !(s->other = vcpu_new(s->engine, 1, &err)))) {
		fprintf(stderr, "%s\n", err_msg(&err));
		exit(1);
	}
	for (unsigned n = 0; n < 4096; n++)
		s->rom[n] = (uint8_t)(n * 7);
}

static void side_free(struct side *s)
{
	if (s->other)
		vcpu_free(s->other);
	vcpu_free(s->vcpu);
	engine_free(s->engine);
	munmap(s->ram, PROG_RAM);
}

static bool trace;

/* Step by step: for people, or with a TLB that never holds anything. */
static enum vcpu_exit run_stepped(struct side *s, bool show)
{
	enum vcpu_exit exit = VCPU_EXIT_KICK;
	struct soft_vcpu *v = soft_vcpu(s->vcpu);

	while (exit == VCPU_EXIT_KICK && !(v->request & REQ_KICK)) {
		if (show)
			printf("%" PRIx64 " flags %" PRIx64 " rsp %" PRIx64 " cpl %u\n", v->rip, v->rflags, v->gpr[R_SP], v->cpl);
		else
			mmu_flush_all(v);
		vcpu_step(s->vcpu, 1, &exit, NULL);
	}
	return exit;
}

/* Where and how the second vCPU starts: elsewhere in the same program, with a TSS and stacks of its own. */
static void make_other(void)
{
	struct cpu_state reset;
	uint64_t at;

	cpu_state_reset(&reset, 1);
	start_other = start;
	memcpy(start_other.lapic, reset.lapic, sizeof(reset.lapic));
	start_other.apic_base = reset.apic_base;
	memcpy(image + PROG_GDT + 0x800, image + PROG_GDT, 0x50);
	memcpy(image + PROG_TSS + 0x800, image + PROG_TSS, 0x68);
	at = PROG_KERNEL_STACK_END - 0x1000;
	memcpy(image + PROG_TSS + 0x804, &at, 8);
	at = PROG_IST - 0x400;
	memcpy(image + PROG_TSS + 0x824, &at, 8);
	start_other.gdtr.base += 0x800;
	start_other.tr.base += 0x800;
	image[PROG_GDT + 0x843] |= 8; /* the base: 0x7800 */
	start_other.gpr[R_SP] -= 0x400;
	memcpy(&start_other.rip, image + VAR_TARGETS + 8 * below(&prog.rng, PROG_TARGETS), 8);
	start_other.rip &= 0xfffff;
}

static void *run_other(void *arg)
{
	struct side *s = arg;
	struct err err = ERR_INIT;

	vcpu_run(s->other, &err);
	return NULL;
}

static void side_run(struct side *s, unsigned ms)
{
	struct soft_vcpu *v = soft_vcpu(s->vcpu);
	struct err err = ERR_INIT;
	pthread_t thread;

	memcpy(s->ram, image, PROG_RAM);
	engine_written(s->engine, 0, PROG_RAM);
	engine_written(s->engine, PROG_ROM, 4096); /* no code of the last program lives on: its flags may have been lazy */
	v->request &= REQ_LOCKSTEP;
	s->devices = 0;
	s->too_long = false;
	if (vcpu_set_state(s->vcpu, &start, &err) < 0) {
		fprintf(stderr, "%s\n", err_msg(&err));
		exit(1);
	}
	if (s->other) {
		soft_vcpu(s->other)->request &= REQ_LOCKSTEP;
		if (vcpu_set_state(s->other, &start_other, &err) < 0 || pthread_create(&thread, NULL, run_other, s)) {
			fprintf(stderr, "%s\n", err_msg(&err));
			exit(1);
		}
	}
	watch_set(s, ms);
	if (s->stepped || (trace && s == &interpreter))
		s->exit = run_stepped(s, !s->stepped);
	else
		s->exit = vcpu_run(s->vcpu, &err);
	watch_set(NULL, 0);
	if (s->other) {
		vcpu_kick(s->other);
		pthread_join(thread, NULL);
	}
	vcpu_get_state(s->vcpu, &s->after, NULL);
	s->after.tsc = s->after.tsc_adjust = s->after.tsc_deadline = 0;
	memset(s->after.lapic, 0, sizeof(s->after.lapic));
}

/* ---- Comparing ------------------------------------------------------------ */

static bool same(const struct side *a, const struct side *b)
{
	return a->exit == b->exit && a->devices == b->devices && !memcmp(&a->after, &b->after, sizeof(a->after)) &&
	       !memcmp(a->ram, b->ram, PROG_RAM);
}

static void tell_record(const char *who, const uint8_t *ram, unsigned at)
{
	static const char *const names[] = {"r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8", "rdi", "rsi", "rbp", "rbx",
					    "rdx", "rcx", "rax", "vector", "error", "rip", "cs", "rflags", "rsp", "ss", "cr2"};
	uint64_t q[23];

	memcpy(q, ram + at, sizeof(q));
	printf("  %s:", who);
	for (unsigned n = 0; n < 23; n++)
		printf(" %s=%" PRIx64, names[n], q[n]);
	printf("\n");
}

static void tell(void)
{
	const struct side *a = &interpreter, *b = &translator;
	const uint8_t *x = (const uint8_t *)&a->after, *y = (const uint8_t *)&b->after;
	unsigned shown = 0;

	printf("  interpreter exit %d at %" PRIx64 ", translator exit %d at %" PRIx64 "%s%s\n", a->exit, a->after.rip, b->exit,
	       b->after.rip, b->too_long ? ", endless" : "", a->devices != b->devices ? ", devices differ" : "");
	for (unsigned n = 0; n < 16; n++)
		if (a->after.gpr[n] != b->after.gpr[n])
			printf("  gpr %u: %" PRIx64 ", %" PRIx64 "\n", n, a->after.gpr[n], b->after.gpr[n]);
	if (a->after.rflags != b->after.rflags)
		printf("  rflags: %" PRIx64 ", %" PRIx64 "\n", a->after.rflags, b->after.rflags);
	for (unsigned n = 0; n < sizeof(a->after) && shown < 8; n++)
		if (x[n] != y[n] && n >= offsetof(struct cpu_state, rip)) {
			printf("  state at 0x%x (xsave 0x%x): %02x, %02x\n", n, n - (unsigned)offsetof(struct cpu_state, xsave), x[n], y[n]);
			shown++;
		}
	for (unsigned at = PROG_LOG; at < PROG_LOG_END; at += 192)
		if (memcmp(a->ram + at, b->ram + at, 192)) {
			if (at > PROG_LOG)
				tell_record("fault before", a->ram, at - 192);
			tell_record("interpreter", a->ram, at);
			tell_record("translator", b->ram, at);
			break;
		}
	shown = 0;
	for (unsigned n = 0; n < PROG_RAM && shown < 8; n++)
		if (a->ram[n] != b->ram[n] && !(n >= PROG_LOG && n < PROG_LOG_END)) {
			printf("  memory 0x%x: %02x, %02x\n", n, a->ram[n], b->ram[n]);
			shown++;
		}
}

/* A direct call to a non-canonical address faults at the target (docs/translator.md): the first fault that differs is that. */
static bool called_nowhere(void)
{
	for (unsigned at = PROG_LOG; at < PROG_LOG_END; at += 192)
		if (memcmp(interpreter.ram + at, translator.ram + at, 192)) {
			uint64_t rip;

			memcpy(&rip, translator.ram + at + 17 * 8, 8);
			return (uint64_t)((int64_t)(rip << 16) >> 16) != rip;
		}
	return false;
}

static struct {
	uint64_t programs, endless, unsteady, differ, instructions;
} count;

/* Did a vCPU of it differ since the last call? */
static bool lockstep_failed(const struct side *s)
{
	struct vcpu *const vcpu[2] = {s->vcpu, s->other};
	bool failed = false;

	for (unsigned n = 0; n < 2 && vcpu[n]; n++) {
		struct lockstep *l = soft_vcpu(vcpu[n])->lockstep;

		failed |= l->failed;
		l->failed = false;
	}
	return failed;
}

static uint64_t compared(const struct vcpu *v, uint64_t *not_compared)
{
	const struct lockstep *l = v ? soft_vcpu((struct vcpu *)v)->lockstep : NULL;

	*not_compared += l ? l->not_compared : 0;
	return l ? l->stretches - l->not_compared : 0;
}

static void write_image(void)
{
	FILE *f = fopen(dump, "w");

	if (!f || fwrite(image, PROG_RAM, 1, f) != 1 || fclose(f)) {
		perror(dump);
		exit(1);
	}
}

/* False: they differ. */
static bool run_program(uint64_t seed, uint64_t number)
{
	static struct side again;
	unsigned threshold;

	prog = (struct prog){.e = soft_engine(interpreter.engine), .image = image, .state = &start};
	prog_make(&prog, seed, number);
	threshold = below(&prog.rng, 4);
	if (two)
		make_other();
	if (dump)
		write_image();
	count.programs++;
	side_run(&interpreter, INTERPRETER_MS);
	if (interpreter.too_long) {
		count.endless++;
		return true;
	}
	trans_set_test(soft_engine(translator.engine), threshold, prog.exact);
	soft_vcpu(translator.vcpu)->xl.threshold = (uint16_t)threshold;
	if (two)
		soft_vcpu(translator.other)->xl.threshold = (uint16_t)threshold;
	side_run(&translator, two ? TOGETHER_MS : TRANSLATOR_MS);
	count.instructions = soft_vcpu(translator.vcpu)->insns + (two ? soft_vcpu(translator.other)->insns : 0);
	if (lockstep ? !lockstep_failed(&translator) : same(&interpreter, &translator) && !translator.too_long)
		return true;
	/*
	 * A program that made itself read a clock differs from itself. In lock-step, where undoing may empty the TLB, so does
	 * one that wrote to its page tables and forgot INVLPG: from itself with no TLB.
	 */
	if (!again.engine)
		side_make(&again, false);
	side_run(&again, INTERPRETER_MS);
	if (lockstep && !two && same(&interpreter, &again)) {
		again.stepped = true;
		side_run(&again, TRANSLATOR_MS);
		again.stepped = false;
	}
	if (!two && (!same(&interpreter, &again) || (!lockstep && called_nowhere()))) {
		count.unsteady++;
		return true;
	}
	count.differ++;
	printf("program %" PRIu64 " of seed %" PRIu64 " (%s flags, threshold %u, ring %d) differs\n", number, seed,
	       prog.exact ? "exact" : "lazy", threshold, prog.user ? 3 : 0);
	tell();
	return false;
}

static void run_programs(uint64_t seed, uint64_t n, bool keep_going)
{
	for (uint64_t i = 0; i < n; i++)
		if (!run_program(seed, i) && !keep_going)
			return;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"programs", required_argument, NULL, 'n'}, {"seed", required_argument, NULL, 's'},
		{"random", required_argument, NULL, 'r'}, {"program", required_argument, NULL, 'p'},
		{"keep-going", no_argument, NULL, 'k'}, {"lockstep", no_argument, NULL, 'l'}, {"two", no_argument, NULL, '2'}, {"dump", required_argument, NULL, 'd'}, {"trace", no_argument, NULL, 't'}, {NULL, 0, NULL, 0},
	};
	uint64_t programs = 1000, seed = 1, random = 0, one = UINT64_MAX;
	struct timespec from, to;
	pthread_condattr_t attr;
	bool keep_going = false;
	pthread_t thread;
	double s;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (c) {
		case 'n': programs = strtoull(optarg, NULL, 0); break;
		case 's': seed = strtoull(optarg, NULL, 0); break;
		case 'r': random = strtoull(optarg, NULL, 0); break;
		case 't': trace = true; break;
		case 'd': dump = optarg; break;
		case 'p': one = strtoull(optarg, NULL, 0); break;
		case 'k': keep_going = true; break;
		case 'l': lockstep = true; break;
		case '2': two = lockstep = true; break;
		default: return 2;
		}
	log_set_level(LOG_ERROR);
	setvbuf(stdout, NULL, _IOLBF, 0);
	side_make(&interpreter, false);
	side_make(&translator, true);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&watch.cond, &attr);
	pthread_create(&thread, NULL, watcher, NULL);
	clock_gettime(CLOCK_MONOTONIC, &from);
	if (one != UINT64_MAX) {
		run_program(seed, one);
	} else {
		run_programs(seed, programs, keep_going);
		if (random && !count.differ) {
			if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
				return 1;
			run_programs(seed, random, keep_going);
		}
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	s = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
	printf("%" PRIu64 " programs, %" PRIu64 " instructions in %.1f s; %" PRIu64 " endless, %" PRIu64
	       " unsteady, %" PRIu64 " differ\n", count.programs, count.instructions, s, count.endless, count.unsteady, count.differ);
	if (lockstep) {
		uint64_t left_out = 0, units = compared(translator.vcpu, &left_out) + compared(translator.other, &left_out);

		printf("%" PRIu64 " units of code in lock-step, %" PRIu64 " more that can't be repeated, %.0f units/s\n", units,
		       left_out, (double)(units + left_out) / s);
	}
	pthread_mutex_lock(&watch.lock);
	watch.end = true;
	pthread_cond_signal(&watch.cond);
	pthread_mutex_unlock(&watch.lock);
	pthread_join(thread, NULL);
	side_free(&translator);
	side_free(&interpreter);
	return count.differ || count.programs == 0;
}
