/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The soft engine against the host CPU: random instructions and states, the
 * same on both, and everything that the architecture defines must be equal.
 *
 *   test_diff --cases N --seed S [--class int,vec,x87,sys,raw] [--case NUMBER] [--keep-going N] [--random N] [--self]
 *
 * A case is a function of seed, number, class and what the engine offers; `--seed S --case N` shows one. `--random N`
 * runs N more with a seed from the kernel; `--self` compares the host with itself, to test the test.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "diff.h"
#include "util/log.h"

#define SKIP 77
#define TASK_SIZE_MAX 0x7ffffffff000ull

static uint8_t template[IMAGE_PAGES * PAGE];
static uint64_t seed;
static bool self; /* the host against itself */

/* ---- One case ------------------------------------------------------------ */

static void apply_patches(const struct diff_case *c, uint8_t *image)
{
	for (unsigned n = 0; n < c->npatches; n++)
		memcpy(image + (c->patch[n].addr - DATA_BASE), c->patch[n].data, c->patch[n].len);
}

static void restore(uint8_t *image)
{
	for (unsigned page = 0; page < IMAGE_PAGES; page++)
		if (memcmp(image + page * PAGE, template + page * PAGE, PAGE))
			memcpy(image + page * PAGE, template + page * PAGE, PAGE);
}

/* Both images back to the template; true if they were the same. */
static bool restore_both(void)
{
	bool same = !memcmp(native_image, soft_image, sizeof(template));

	for (unsigned at = 0; at < sizeof(template); at += PAGE) {
		if (same && !memcmp(native_image + at, template + at, PAGE))
			continue;
		memcpy(native_image + at, template + at, PAGE);
		memcpy(soft_image + at, template + at, PAGE);
	}
	return same;
}

/* Linux reports every address that programs can't have as if it were mapped, so that they learn nothing. */
static void hide_kernel(struct diff_result *r)
{
	if (r->vector == EXC_PF && r->cr2 >= TASK_SIZE_MAX)
		r->error |= 1;
}

static bool faulted_first(const struct diff_case *c, const struct diff_result *r)
{
	return r->vector >= 0 && r->out.rip == c->in.rip && !(c->insn[0].map == MAP_1B && diff_is_string(&c->insn[0]));
}

/* Undefined flags of the last instruction: those before it leave none. */
static uint64_t last_undefined(const struct diff_case *c)
{
	struct diff_case last = *c;

	if (c->count == 1)
		return diff_undefined_flags(c);
	/* Its shift count is not known: any that is not zero. */
	last.insn[0] = c->insn[c->count - 1];
	last.in.gpr[R_CX] = 2;
	last.in.gpr[R_CX] |= last.insn[0].opsize < 4 ? 30 : 0;
	return diff_undefined_flags(&last);
}

static void normalise(const struct diff_case *c, struct diff_result *r)
{
	uint64_t mask = c->mode == MODE_64 ? UINT64_MAX : UINT32_MAX;
	uint64_t visible = FLAGS_ARITH | FL_DF | FL_NT | FL_AC | FL_ID | FL_IOPL | FL_IF;

	if (c->valid && !faulted_first(c, r))
		visible &= ~last_undefined(c);

	hide_kernel(r);
	for (int n = 0; n < 16; n++)
		r->out.gpr[n] &= n < 8 ? mask : c->mode == MODE_64 ? UINT64_MAX : 0;
	r->out.rip &= c->mode == MODE_16 ? UINT16_MAX : mask; /* past the end of the segment is past either way */
	r->out.rflags &= visible;
	if (c->mode != MODE_64) {
		r->out.fs_base = r->out.gs_base = 0;
		memset(r->out.ymm[8], 0, 8 * 32);
	}
}

/* MXCSR_MASK of a saved image: what the CPU has, not what it did. */
static void hide_mxcsr_mask(const struct diff_case *c)
{
	const struct insn *i = &c->insn[0];
	unsigned reg = i->modrm >> 3 & 7;
	uint64_t ea;

	if (!c->valid || !diff_is_area(i) || !(i->opcode == 0xc7 || reg == 0 || reg == 4 || reg == 6))
		return;
	ea = diff_operand(c) + 28;
	ea -= ea >= STACK_BASE ? STACK_BASE - IMAGE_STACK * PAGE : DATA_BASE;
	if (ea <= sizeof(template) - 4 && soft_image[ea] == 0xff && soft_image[ea + 1] == 0xff)
		memcpy(soft_image + ea, native_image + ea, 4);
}

static void run_native(const struct diff_case *c, struct diff_result *r)
{
	apply_patches(c, native_image);
	native_case_run(c, r);
	for (unsigned n = 0; r->vector == NATIVE_BY_TIMER && n < 3; n++) { /* a busy host may spend whole ticks elsewhere */
		restore(native_image);
		apply_patches(c, native_image);
		native_case_run(c, r);
	}
}

/*
 * RET, JMP and CALL by register or memory, into its own bytes: the host would go on there, with an instruction that
 * nobody has looked at, while the engine does one. Such a case is one step on both sides.
 */
static bool branches_into_itself(const struct diff_case *c)
{
	const struct insn *i = &c->insn[0];
	unsigned reg = i->modrm >> 3 & 7;
	struct diff_result r = { 0 };
	struct diff_case probe = *c;

	if (!c->valid || c->single_step || c->count > 1 || c->room < c->len || i->map != MAP_1B ||
	    !(i->opcode == 0xc2 || i->opcode == 0xc3 || (i->opcode == 0xff && (reg == 2 || reg == 4))))
		return false;
	probe.way = DIFF_DIRECT;
	apply_patches(&probe, soft_image);
	softside_run(&probe, &r);
	restore(soft_image);
	return r.vector < 0 && r.out.rip - c->in.rip < c->len;
}

/* Something of the test program's own lies there, which the guest has not. (Below 4 GiB there is nothing of it.) */
static bool is_ours(uint64_t addr)
{
	unsigned char in_core;

	return addr >> 32 && addr < TASK_SIZE_MAX && (mincore((void *)(addr & ~(uint64_t)(PAGE - 1)), PAGE, &in_core) == 0 || errno != ENOMEM);
}

/* The host would read, write or run what is ours: by chance, or since the stack is where addresses have their edge. */
static bool meets_ours(const struct diff_result *soft)
{
	return (soft->vector == EXC_PF && is_ours(soft->cr2)) || is_ours(soft->out.rip);
}

static void run_both(const struct diff_case *c, struct diff_result *host, struct diff_result *soft)
{
	struct diff_case step;

	memset(host, 0, sizeof(*host));
	memset(soft, 0, sizeof(*soft));
	if (!self && branches_into_itself(c)) {
		step = *c;
		step.single_step = true;
		step.way = step.way == DIFF_RUN ? DIFF_STEP : step.way;
		c = &step;
	}
	if (self) {
		run_native(c, host);
		memcpy(soft_image, native_image, sizeof(template));
		restore(native_image);
		run_native(c, soft);
	} else {
		apply_patches(c, soft_image);
		softside_run(c, soft);
		if (meets_ours(soft)) {
			*host = *soft;
			memcpy(native_image, soft_image, sizeof(template));
		} else {
			run_native(c, host);
		}
	}
	normalise(c, host);
	normalise(c, soft);
	hide_mxcsr_mask(c);
}

static bool same_state(const struct diff_result *a, const struct diff_result *b)
{
	return a->vector == b->vector && a->error == b->error && a->cr2 == b->cr2 &&
	       !memcmp(&a->out, &b->out, sizeof(a->out));
}

/* Differences that say nothing against the engine. */
static bool excused(const struct diff_case *c, const struct diff_result *host, const struct diff_result *soft)
{
	struct diff_result host_one, soft_one;
	struct diff_case one;
	uint64_t first;

	if (host->vector == NATIVE_BY_TIMER) /* a jump onto itself */
		return true;
	if (c->count == 1)
		return diff_fault_excused(c, host, soft) ||
		       (soft->vector == EXC_UD && host->vector != EXC_UD && c->valid && diff_not_offered(&c->insn[0]));
	/* One of several: the rules are about the one that faulted, on either side. */
	first = host->vector < 0 || (soft->vector >= 0 && soft->out.rip < host->out.rip) ? soft->out.rip
											 : host->out.rip;
	one = *c;
	for (unsigned n = 1; n < c->count && one.in.rip != first; n++) {
		one.in.rip += one.insn[0].len;
		one.insn[0] = c->insn[n];
	}
	one.len = one.insn[0].len;
	one.count = 1;
	/* The side that went on did not fault in this one. */
	host_one = *host;
	soft_one = *soft;
	host_one.vector = host->out.rip == first ? host->vector : -1;
	soft_one.vector = soft->out.rip == first ? soft->vector : -1;
	return diff_fault_excused(&one, &host_one, &soft_one);
}

/* The images are the template's before and after. */
static bool matches(const struct diff_case *c, struct diff_result *host, struct diff_result *soft)
{
	bool same;

	run_both(c, host, soft);
	same = restore_both();
	same |= diff_memory_excused(c);
	return (same && same_state(host, soft)) || excused(c, host, soft);
}

static bool try_case(const struct diff_case *c)
{
	struct diff_result host, soft;

	return matches(c, &host, &soft);
}

/* ---- Reports ------------------------------------------------------------- */

static const char *const reg_names[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					   "r8",  "r9",	 "r10", "r11", "r12", "r13", "r14", "r15" };

static void print_hex(const uint8_t *p, unsigned n)
{
	while (n--)
		printf("%02x", p[n]);
}

static void print_outcome(const char *who, const struct diff_result *r)
{
	if (r->vector < 0)
		printf("  %s: ends at rip %#" PRIx64 "\n", who, r->out.rip);
	else
		printf("  %s: exception %d, error code %#x, CR2 %#" PRIx64 ", rip %#" PRIx64 "\n", who, r->vector,
		       r->error, r->cr2, r->out.rip);
}

static void print_memory(void)
{
	unsigned shown = 0;

	for (unsigned at = 0; at < sizeof(template) && shown < 8; at += 8) {
		unsigned page = at / PAGE;
		uint64_t base = page < DATA_RW_PAGES + 1 ? DATA_BASE + at : STACK_BASE + at % PAGE;

		if (!memcmp(native_image + at, soft_image + at, 8))
			continue;
		printf("  memory %#" PRIx64 ": before ", base);
		print_hex(template + at, 8);
		printf(" host ");
		print_hex(native_image + at, 8);
		printf(" soft ");
		print_hex(soft_image + at, 8);
		printf("\n");
		shown++;
	}
}

static void print_differences(const struct diff_case *c, const struct diff_result *h, const struct diff_result *s)
{
	const struct diff_state *a = &h->out, *b = &s->out;

	print_outcome("host", h);
	print_outcome("soft", s);
	for (int n = 0; n < 16; n++)
		if (a->gpr[n] != b->gpr[n])
			printf("  %s: before %#" PRIx64 " host %#" PRIx64 " soft %#" PRIx64 "\n", reg_names[n],
			       c->in.gpr[n], a->gpr[n], b->gpr[n]);
	if (a->rflags != b->rflags)
		printf("  rflags: before %#" PRIx64 " host %#" PRIx64 " soft %#" PRIx64 "\n", c->in.rflags, a->rflags,
		       b->rflags);
	if (a->fs_base != b->fs_base || a->gs_base != b->gs_base)
		printf("  fs, gs base: host %#" PRIx64 " %#" PRIx64 " soft %#" PRIx64 " %#" PRIx64 "\n", a->fs_base,
		       a->gs_base, b->fs_base, b->gs_base);
	for (int n = 0; n < 16; n++) {
		if (!memcmp(a->ymm[n], b->ymm[n], 32))
			continue;
		printf("  ymm%d: before ", n);
		print_hex(c->in.ymm[n], 32);
		printf("\n          host ");
		print_hex(a->ymm[n], 32);
		printf("\n          soft ");
		print_hex(b->ymm[n], 32);
		printf("\n");
	}
	if (a->mxcsr != b->mxcsr)
		printf("  mxcsr: before %#x host %#x soft %#x\n", c->in.mxcsr, a->mxcsr, b->mxcsr);
	if (a->fcw != b->fcw || a->fsw != b->fsw || a->ftw != b->ftw)
		printf("  fcw fsw ftw: before %04x %04x %02x host %04x %04x %02x soft %04x %04x %02x\n", c->in.fcw,
		       c->in.fsw, c->in.ftw, a->fcw, a->fsw, a->ftw, b->fcw, b->fsw, b->ftw);
	for (int n = 0; n < 8; n++) {
		if (!memcmp(a->st[n], b->st[n], 10))
			continue;
		printf("  st(%d): before ", n);
		print_hex(c->in.st[n], 10);
		printf(" host ");
		print_hex(a->st[n], 10);
		printf(" soft ");
		print_hex(b->st[n], 10);
		printf("\n");
	}
	print_memory();
}

static void print_inputs(const struct diff_case *c)
{
	const struct diff_state *s = &c->in;

	printf("  in:");
	for (int n = 0; n < (c->mode == MODE_64 ? 16 : 8); n++)
		printf(" %s=%" PRIx64, reg_names[n], s->gpr[n]);
	printf("\n  rip=%" PRIx64 " rflags=%" PRIx64 " fs=%" PRIx64 " gs=%" PRIx64
	       " mxcsr=%x fcw=%04x fsw=%04x ftw=%02x\n",
	       s->rip, s->rflags, s->fs_base, s->gs_base, s->mxcsr, s->fcw, s->fsw, s->ftw);
	if (c->mode != MODE_64)
		printf("  segments: es=%u cs=%u ss=%u ds=%u fs=%u gs=%u\n", c->seg[0], c->seg[1], c->seg[2], c->seg[3],
		       c->seg[4], c->seg[5]);
	for (unsigned n = 0; n < c->npatches; n++) {
		printf("  memory %#x: ", c->patch[n].addr);
		for (unsigned k = 0; k < c->patch[n].len; k++)
			printf("%02x ", c->patch[n].data[k]);
		printf("\n");
	}
}

/* With objdump, if there is one. */
static void print_disassembly(const struct diff_case *c)
{
	char path[] = "/tmp/test_diff.XXXXXX", command[256], line[256];
	int fd = mkstemp(path);
	FILE *p;

	if (fd < 0)
		return;
	if (write(fd, c->bytes, c->len) == (ssize_t)c->len) {
		snprintf(command, sizeof(command),
			 "objdump -D -b binary --insn-width=15 -m i386%s %s 2>/dev/null | sed -n '8,$p'",
			 c->mode == MODE_64   ? ":x86-64"
			 : c->mode == MODE_16 ? " -M i8086"
					      : "",
			 path);
		fflush(stdout);
		p = popen(command, "r");
		while (p && fgets(line, sizeof(line), p))
			printf("  %s", line);
		if (p)
			pclose(p);
	}
	close(fd);
	unlink(path);
}

static void report(const struct diff_case *c, const char *title)
{
	static const char *const ways[] = { "", ", by step", ", by run" };
	struct diff_result host, soft;

	printf("%s: seed %" PRIu64 " case %" PRIu64 ", %s-bit%s, map %u opcode %02x/%u%s\n  bytes:", title, seed,
	       c->number,
	       c->mode == MODE_64   ? "64"
	       : c->mode == MODE_32 ? "32"
				    : "16",
	       ways[c->way], c->insn[0].map, c->insn[0].opcode, c->insn[0].modrm >> 3 & 7,
	       c->valid ? "" : " (not an instruction)");
	for (unsigned n = 0; n < c->len; n++)
		printf(" %02x", c->bytes[n]);
	printf("\n");
	print_disassembly(c);
	run_both(c, &host, &soft);
	print_inputs(c);
	print_differences(c, &host, &soft);
	restore_both();
	fflush(stdout);
}

static void shorten(struct diff_case *c)
{
	if (c->count > 1)
		c->len -= c->insn[--c->count].len;
}

/* Make everything plain that the mismatch does not need. */
static void minimise(struct diff_case *c)
{
	struct diff_case t;

#define TRY(change)                                                                                                    \
	do {                                                                                                           \
		t = *c;                                                                                                \
		change;                                                                                                \
		if (!try_case(&t))                                                                                     \
			*c = t;                                                                                        \
	} while (0)
	for (int n = 0; n < 16; n++) {
		if (n != R_SP)
			TRY(t.in.gpr[n] = 0);
		TRY(memset(t.in.ymm[n], 0, 32));
		if (n < 8)
			TRY(memset(t.in.st[n], 0, 10));
	}
	TRY(t.in.rflags = 0x202);
	TRY(t.in.fs_base = 0);
	TRY(t.in.gs_base = 0);
	TRY(t.in.mxcsr = 0x1f80);
	TRY(t.in.fcw = 0x37f);
	TRY(t.in.fsw = 0);
	TRY(t.in.ftw = 0xff);
	TRY(t.npatches = 0);
	TRY(t.way = DIFF_DIRECT);
	TRY(shorten(&t));
	TRY(shorten(&t));
	TRY(shorten(&t));
	TRY(shorten(&t));
#undef TRY
}

/* ---- The run ------------------------------------------------------------- */

static unsigned parse_classes(const char *s)
{
	static const struct {
		const char *name;
		unsigned bit;
	} names[] = { { "int", CLASS_INT }, { "vec", CLASS_VEC }, { "x87", CLASS_X87 },
		      { "sys", CLASS_SYS }, { "raw", CLASS_RAW }, { "all", CLASS_ALL } };
	unsigned classes = 0;

	for (unsigned n = 0; n < sizeof(names) / sizeof(names[0]); n++)
		if (strstr(s, names[n].name))
			classes |= names[n].bit;
	return classes;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

struct tally {
	uint64_t ran, skipped, mismatches, faults, valid;
};

static void run(uint64_t first, uint64_t cases, unsigned classes, uint64_t keep_going, bool show, struct tally *t)
{
	struct diff_result host, soft;
	struct diff_case c;

	for (uint64_t number = first; t->ran < cases && t->mismatches <= keep_going; number++) {
		if (!diff_generate(&c, seed, number, classes)) {
			t->skipped++;
			if (show)
				break;
			continue;
		}
		t->ran++;
		t->valid += c.valid;
		if (show) {
			report(&c, "case");
			continue;
		}
		if (!matches(&c, &host, &soft)) {
			struct diff_case small = c;

			t->mismatches++;
			if (try_case(&c)) {
				printf("mismatch that does not come again, case %" PRIu64 ":\n", number);
				print_differences(&c, &host, &soft);
			}
			minimise(&small);
			report(&small, "mismatch");
			continue;
		}
		t->faults += host.vector >= 0;
	}
}

static uint64_t number_option(const char *s)
{
	return strtoull(s, NULL, 0);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "cases", required_argument, NULL, 'n' },	{ "seed", required_argument, NULL, 's' },
		{ "class", required_argument, NULL, 'c' },	{ "case", required_argument, NULL, 'o' },
		{ "keep-going", required_argument, NULL, 'k' }, { "self", no_argument, NULL, 'S' },
		{ "random", required_argument, NULL, 'r' },	{ "translate", no_argument, NULL, 't' },
		{ 0 },
	};
	uint64_t cases = 1000000, one = UINT64_MAX, keep_going = 0, random_cases = 0;
	unsigned classes = CLASS_ALL;
	struct tally t = { 0 };
	const char *why;
	double start;
	int opt;

	seed = 1;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 't':
			softside_translate = true;
			break;
		case 'n':
			cases = number_option(optarg);
			break;
		case 's':
			seed = number_option(optarg);
			break;
		case 'c':
			classes = parse_classes(optarg);
			break;
		case 'o':
			one = number_option(optarg);
			break;
		case 'k':
			keep_going = number_option(optarg);
			break;
		case 'r':
			random_cases = number_option(optarg);
			break;
		case 'S':
			self = true;
			break;
		default:
			return 2;
		}
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	log_set_level(LOG_ERROR);
	diff_rules_init();
	diff_template(1, template);
	diff_segments_usable = diff_segments_init();
	if (!native_init(template, &why)) {
		printf("SKIP: %s\n", why);
		return SKIP;
	}
	if (!softside_init(template, &why)) {
		printf("the soft engine does not start: %s\n", why);
		return 1;
	}
	if (one != UINT64_MAX) {
		run(one, 1, classes, 0, true, &t);
		return 0;
	}
	start = now();
	run(0, cases, classes, keep_going, false, &t);
	printf("seed %" PRIu64 ": %" PRIu64 " cases (%" PRIu64 " instructions, %" PRIu64 " exceptions), %" PRIu64
	       " mismatches, %.0f cases/s\n",
	       seed, t.ran, t.valid, t.faults, t.mismatches, (double)t.ran / (now() - start));
	if (random_cases && !t.mismatches) {
		struct tally u = { 0 };

		if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
			return 1;
		seed >>= 16;
		run(0, random_cases, classes, keep_going, false, &u);
		printf("seed %" PRIu64 ": %" PRIu64 " cases, %" PRIu64 " mismatches\n", seed, u.ran, u.mismatches);
		t.mismatches += u.mismatches;
	}
	return t.mismatches != 0;
}
