/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The loop: real code in every mode, events between instructions, stepping, sleep, the safe point. */
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "soft_rig.h"

extern const uint8_t tour_start[], tour_end[];

static int setup(void **state)
{
	return rig_setup(state, 4);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static enum vcpu_exit run(struct rig *r, unsigned cpu)
{
	struct err err = ERR_INIT;

	return vcpu_run(r->vcpu[cpu], &err);
}

/* ---- Modes --------------------------------------------------------------- */

static void tour(void **state)
{
	struct rig *r = *state;
	struct cpu_state *s = aligned_alloc(64, sizeof(*s));

	rig_put(r, 0x8000, tour_start, tour_end - tour_start);
	rig_identity_long(r, 7);
	*rig_q(r, 0x3008) &= ~4ull; /* the second 2 MiB are the supervisor's */
	cpu_state_reset(s, 0);
	s->seg[SEG_CS].base = s->seg[SEG_CS].selector = 0;
	s->rip = 0x8000;
	assert_int_equal(vcpu_set_state(r->vcpu[0], s, NULL), 0);
	assert_int_equal(run(r, 0), VCPU_EXIT_KICK);
	assert_int_equal(*rig_q(r, 0x6000), 0x1235);
	assert_int_equal(*rig_q(r, 0x6008), 0xfeed);
	assert_int_equal(*rig_q(r, 0x6010), 3);
	assert_int_equal(*rig_q(r, 0x6018), 0x22);
	assert_int_equal(*rig_q(r, 0x6020), 0x33);
	assert_int_equal(*rig_q(r, 0x6028), 0x80000011 | 0x60000000);
	assert_int_equal(*rig_q(r, 0x6030), 0x33);
	assert_int_equal(*rig_q(r, 0x6038), 101);
	assert_int_equal(*rig_q(r, 0x6040), 202);
	assert_int_equal(*rig_q(r, 0x6048), 5);
	assert_int_equal(*rig_q(r, 0x6050), 0x200000);
	assert_int_equal(*rig_q(r, 0x6058), 0x44);
	assert_int_equal(*rig_q(r, 0x6060), 0x202);
	assert_int_equal(vcpu_get_state(r->vcpu[0], s, NULL), 0);
	assert_int_equal(s->efer & 0x500, 0x500);
	assert_int_equal(s->seg[SEG_CS].selector, 0x18);
	free(s);
}

/* The same, with every instruction by itself. */
static void tour_stepped(void **state)
{
	struct rig *r = *state;
	struct cpu_state *s = aligned_alloc(64, sizeof(*s));
	enum vcpu_exit exit;
	unsigned n = 0;

	rig_put(r, 0x8000, tour_start, tour_end - tour_start);
	rig_identity_long(r, 7);
	*rig_q(r, 0x3008) &= ~4ull;
	cpu_state_reset(s, 0);
	s->seg[SEG_CS].base = s->seg[SEG_CS].selector = 0;
	s->rip = 0x8000;
	assert_int_equal(vcpu_set_state(r->vcpu[0], s, NULL), 0);
	while (*rig_q(r, 0x6060) != 0x202 && n++ < 1000)
		assert_int_equal(vcpu_step(r->vcpu[0], 1, &exit, NULL), 0);
	assert_in_range(n, 100, 300);
	assert_int_equal(*rig_q(r, 0x6058), 0x44);
	free(s);
}

RIG_BLOB(blob_out, "out %al, $0xf4; 1: hlt; jmp 1b");

static uint8_t device_code(uint64_t gpa)
{
	static const uint8_t code[] = { 0x48, 0xff, 0xc0, 0x48, 0xff, 0xc0, 0xe6, 0xf4, 0xf4 }; /* inc rax, twice; out; hlt */

	return gpa - 0xd0000000 < sizeof(code) ? code[gpa - 0xd0000000] : 0x90;
}

/* Instructions can be fetched from device memory, too. */
static void code_in_device(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	*rig_q(r, 0x2000 + 8 * 3) = 0x7000 | 3;
	*rig_q(r, 0x7000 + 8 * (0x10000000 >> 21)) = 0xd0000000 | 0x83;
	r->mmio_byte = device_code;
	r->v->rip = r->v->next_rip = 0xd0000000;
	assert_int_equal(run(r, 0), VCPU_EXIT_KICK);
	assert_int_equal(r->v->gpr[R_AX], 2);
	assert_int_equal(r->v->rip, 0xd0000008);
}

static void triple_fault(void **state)
{
	struct rig *r = *state;
	static const uint8_t ud2[] = { 0x0f, 0x0b };

	rig_start(r, 0);
	rig_put(r, RIG_CODE, ud2, 2);
	assert_int_equal(run(r, 0), VCPU_EXIT_SHUTDOWN);
	assert_int_equal(r->v->rip, RIG_CODE);
}

/* ---- Sleep, interrupts, kicks -------------------------------------------- */

RIG_BLOB(blob_idle, "1: sti; hlt; cmpq $0, 0x300000; je 1b; out %al, $0xf4");
#define EOI "push %rdx; mov $0xfee000b0, %edx; movl $0, (%rdx); pop %rdx; "
RIG_BLOB(blob_mark, "incq 0x300000; " EOI "iretq");

struct job {
	struct rig *r;
	unsigned cpu;
	enum vcpu_exit exit;
	uint64_t ended;
};

static void *job_run(void *opaque)
{
	struct job *j = opaque;

	j->exit = run(j->r, j->cpu);
	j->ended = now_ns();
	return NULL;
}

static void apic_on(struct rig *r, unsigned cpu)
{
	lapic_mmio_write(soft_vcpu(r->vcpu[cpu]), 0xfee000f0, 0x1ff, 4);
	/* The APIC's page, uncached and mapped where it is. */
	*rig_q(r, 0x2000 + 8 * 3) = 0x7000 | 3;
	*rig_q(r, 0x7000 + 8 * (0x3ee00000 >> 21)) = 0xfee00000 | 0x83;
}

static void hlt_and_msi(void **state)
{
	struct rig *r = *state;
	struct job j = { .r = r };
	pthread_t thread;
	uint64_t sent;

	rig_start(r, 0);
	apic_on(r, 0);
	rig_load(r, RIG_CODE, blob_idle);
	rig_load(r, RIG_CODE + 0x1000, blob_mark);
	rig_gate(r, 0x51, RIG_CODE + 0x1000);
	pthread_create(&thread, NULL, job_run, &j);
	usleep(20000);
	assert_int_equal(r->v->mp_state, CPU_MP_HALTED);
	sent = now_ns();
	engine_msi(r->engine, 0xfee00000, 0x51);
	pthread_join(thread, NULL);
	assert_int_equal(j.exit, VCPU_EXIT_KICK);
	assert_int_equal(*rig_q(r, RIG_DATA), 1);
	assert_in_range(j.ended - sent, 0, 1000000000);
}

/* An IPI storm against HLT: a lost wakeup would hang. */
static void hlt_no_lost_wakeups(void **state)
{
	struct rig *r = *state;
	struct job j = { .r = r };
	pthread_t thread;

	rig_start(r, 0);
	apic_on(r, 0);
	RIG_BLOB(blob_count, "1: sti; hlt; cli; cmpq $3000, 0x300000; jb 1b; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_count);
	rig_load(r, RIG_CODE + 0x1000, blob_mark);
	rig_gate(r, 0x51, RIG_CODE + 0x1000);
	pthread_create(&thread, NULL, job_run, &j);
	for (uint64_t n = 0; n < 3000;) {
		engine_msi(r->engine, 0xfee00000, 0x51);
		n++;
		/* The next one only when this one was taken: each must wake the vCPU by itself. */
		while (__atomic_load_n(rig_q(r, RIG_DATA), __ATOMIC_ACQUIRE) < n)
			sched_yield();
	}
	pthread_join(thread, NULL);
	assert_int_equal(j.exit, VCPU_EXIT_KICK);
}

RIG_BLOB(blob_spin, "1: jmp 1b");

static void kick_out_of(struct rig *r, const char *what)
{
	struct job j = { .r = r };
	uint64_t worst = 0, kicked;
	pthread_t thread;

	for (unsigned n = 0; n < 20; n++) {
		pthread_create(&thread, NULL, job_run, &j);
		usleep(1000);
		kicked = now_ns();
		vcpu_kick(r->vcpu[0]);
		pthread_join(thread, NULL);
		assert_int_equal(j.exit, VCPU_EXIT_KICK);
		if (j.ended - kicked > worst)
			worst = j.ended - kicked;
	}
	print_message("worst of 20 kicks out of %s: %u us\n", what, (unsigned)(worst / 1000));
	assert_in_range(worst, 0, 500000000);
}

static void kicks(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	rig_load(r, RIG_CODE, blob_spin);
	kick_out_of(r, "a loop");
	RIG_BLOB(blob_hlt, "1: hlt; jmp 1b");
	rig_load(r, RIG_CODE, blob_hlt);
	r->v->rip = r->v->next_rip = RIG_CODE;
	kick_out_of(r, "HLT");
	RIG_BLOB(blob_rep, "1: mov $0x300000, %rdi; mov $0x1000000, %rcx; rep stosb; jmp 1b");
	rig_load(r, RIG_CODE, blob_rep);
	r->v->rip = r->v->next_rip = RIG_CODE;
	r->v->mp_state = CPU_MP_RUNNABLE;
	kick_out_of(r, "REP STOS");
	/* A kick that comes first ends the next run. */
	vcpu_kick(r->vcpu[0]);
	assert_int_equal(run(r, 0), VCPU_EXIT_KICK);
}

/* One that waits for a SIPI sleeps, whatever interrupt may be pending (it takes none). */
static void waiting_costs_nothing(void **state)
{
	struct rig *r = *state;
	struct job j = { .r = r, .cpu = 1 };
	struct timespec used;
	pthread_t thread;
	clockid_t clock;

	rig_start(r, 1);
	soft_vcpu(r->vcpu[1])->mp_state = CPU_MP_WAIT_SIPI;
	soft_request(soft_vcpu(r->vcpu[1]), REQ_IRQ | REQ_NMI);
	pthread_create(&thread, NULL, job_run, &j);
	usleep(200000);
	assert_int_equal(pthread_getcpuclockid(thread, &clock), 0);
	assert_int_equal(clock_gettime(clock, &used), 0);
	vcpu_kick(r->vcpu[1]);
	pthread_join(thread, NULL);
	assert_int_equal(j.exit, VCPU_EXIT_KICK);
	assert_int_equal(used.tv_sec, 0);
	assert_in_range(used.tv_nsec, 0, 20000000);
}

static void nmi(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	RIG_BLOB(blob_await, "1: cmpq $0, 0x300000; jne 2f; hlt; jmp 1b; 2: out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_await);
	RIG_BLOB(blob_nmi, "movq $7, 0x300000; iretq");
	rig_load(r, RIG_CODE + 0x1000, blob_nmi);
	rig_gate(r, 2, RIG_CODE + 0x1000);
	vcpu_nmi(r->vcpu[0]);
	assert_int_equal(run(r, 0), VCPU_EXIT_KICK);
	assert_int_equal(*rig_q(r, RIG_DATA), 7);
}

/* ---- Between instructions ------------------------------------------------ */

/* The handler keeps the return address. */
RIG_BLOB(blob_where, "push %rax; mov 8(%rsp), %rax; mov %rax, 0x300000; pop %rax; " EOI "iretq");

static void shadows(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	apic_on(r, 0);
	rig_load(r, RIG_CODE + 0x1000, blob_where);
	rig_gate(r, 0x51, RIG_CODE + 0x1000);
	RIG_BLOB(blob_sti, "sti; nop; nop; nop; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_sti);
	engine_msi(r->engine, 0xfee00000, 0x51);
	assert_int_equal(run(r, 0), VCPU_EXIT_KICK);
	assert_int_equal(*rig_q(r, RIG_DATA), RIG_CODE + 2);

	/* MOV SS holds a pending interrupt for one instruction. */
	rig_start(r, 0);
	*rig_q(r, RIG_DATA) = 0;
	RIG_BLOB(blob_movss, "mov $0x10, %eax; mov %eax, %ss; 1: nop; nop; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_movss);
	r->v->rflags |= FL_IF;
	assert_int_equal(vcpu_step(r->vcpu[0], 1, &(enum vcpu_exit){0}, NULL), 0);
	engine_msi(r->engine, 0xfee00000, 0x51);
	r->v->rflags &= ~(uint64_t)FL_IF;
	assert_int_equal(vcpu_step(r->vcpu[0], 1, &(enum vcpu_exit){0}, NULL), 0);
	assert_int_equal(r->v->shadow, 2);
	soft_set_rflags(r->v, FL_IF, FL_IF);
	assert_int_equal(run(r, 0), VCPU_EXIT_KICK);
	assert_int_equal(*rig_q(r, RIG_DATA), RIG_CODE + 8);

	/* CLI right after STI: never. */
	rig_start(r, 0);
	*rig_q(r, RIG_DATA) = 0;
	RIG_BLOB(blob_sticli, "mov $1000, %ecx; 1: sti; cli; dec %ecx; jnz 1b; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_sticli);
	engine_msi(r->engine, 0xfee00000, 0x51);
	assert_int_equal(run(r, 0), VCPU_EXIT_KICK);
	assert_int_equal(*rig_q(r, RIG_DATA), 0);
}

/* Counts, keeps DR6 and the return address. */
RIG_BLOB(blob_db, "incq 0x300000; push %rax; mov %dr6, %rax; mov %rax, 0x300008; mov 8(%rsp), %rax; mov %rax, 0x300010; "
		  "pop %rax; iretq");

/* TF: a trap after each instruction, REP iterations included; DR6.BS. */
static void single_step(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	RIG_BLOB(blob_tf, "pushf; orl $0x100, (%rsp); popf; nop; mov $3, %ecx; mov $0x310000, %edi; rep stosb; "
			  "pushf; andl $~0x100, (%rsp); popf; nop; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_tf);
	rig_load(r, RIG_CODE + 0x1000, blob_db);
	rig_gate(r, 1, RIG_CODE + 0x1000);
	assert_int_equal(run(r, 0), VCPU_EXIT_KICK);
	/* nop, mov, mov, 3 iterations, pushf, and, popf */
	assert_int_equal(*rig_q(r, RIG_DATA), 9);
	assert_int_equal(*rig_q(r, RIG_DATA + 8), 0xffff0ff0 | 0x4000);
	assert_int_equal(*rig_q(r, RIG_DATA + 0x10), RIG_CODE + (blob_tf_end - blob_tf) - 3);
}

/* A code breakpoint faults before the instruction, once: RF in the frame gets past it. */
static void breakpoint(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	RIG_BLOB(blob_bp, "mov $5, %ecx; 1: inc %rax; dec %ecx; jnz 1b; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_bp);
	/* #DB as a fault: set RF in the frame, note RAX. */
	RIG_BLOB(blob_bpdb, "incq 0x300000; mov %rax, 0x300008; orl $0x10000, 16(%rsp); iretq");
	rig_load(r, RIG_CODE + 0x1000, blob_bpdb);
	rig_gate(r, 1, RIG_CODE + 0x1000);
	r->v->dr[0] = RIG_CODE + 5;
	r->v->dr[7] = 0x402;
	soft_update_mode(r->v);
	soft_request(r->v, REQ_TRAP);
	assert_int_equal(run(r, 0), VCPU_EXIT_KICK);
	assert_int_equal(*rig_q(r, RIG_DATA), 5);
	assert_int_equal(*rig_q(r, RIG_DATA + 8), 4);
	assert_int_equal(r->v->gpr[R_AX], 5);
	assert_int_equal(r->v->dr[6] & 15, 1);
}

/* A data breakpoint traps after the instruction that stores. */
static void data_breakpoint(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	RIG_BLOB(blob_dbp, "mov $0x310000, %ebx; mov %rbx, %dr0; mov $0xd0402, %eax; mov %rax, %dr7; "
			   "movl $1, 8(%rbx); movl $1, (%rbx); 1: nop; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_dbp);
	rig_load(r, RIG_CODE + 0x1000, blob_db);
	rig_gate(r, 1, RIG_CODE + 0x1000);
	assert_int_equal(run(r, 0), VCPU_EXIT_KICK);
	assert_int_equal(*rig_q(r, RIG_DATA), 1);
	assert_int_equal(*rig_q(r, RIG_DATA + 8), 0xffff0ff1);
	assert_int_equal(*rig_q(r, RIG_DATA + 0x10), RIG_CODE + (blob_dbp_end - blob_dbp) - 3);
}

static void stepping(void **state)
{
	struct rig *r = *state;
	enum vcpu_exit exit;

	rig_start(r, 0);
	RIG_BLOB(blob_inc, "inc %rax; inc %rax; inc %rax; inc %rax; 1: inc %rbx; jmp 1b");
	rig_load(r, RIG_CODE, blob_inc);
	assert_int_equal(vcpu_step(r->vcpu[0], 3, &exit, NULL), 0);
	assert_int_equal(exit, VCPU_EXIT_KICK);
	assert_int_equal(r->v->gpr[R_AX], 3);
	assert_int_equal(r->v->rip, RIG_CODE + 9);
	assert_int_equal(vcpu_step(r->vcpu[0], 0, &exit, NULL), 0);
	assert_int_equal(r->v->rip, RIG_CODE + 9);
	assert_int_equal(vcpu_step(r->vcpu[0], 1 + 2 * 100, &exit, NULL), 0);
	assert_int_equal(r->v->gpr[R_BX], 100);
	/* A string instruction is one. */
	RIG_BLOB(blob_rep1, "rep stosb; inc %rax; 1: jmp 1b");
	rig_load(r, RIG_CODE, blob_rep1);
	r->v->rip = r->v->next_rip = RIG_CODE;
	r->v->gpr[R_CX] = 100000;
	r->v->gpr[R_DI] = RIG_DATA;
	assert_int_equal(vcpu_step(r->vcpu[0], 1, &exit, NULL), 0);
	assert_int_equal(r->v->gpr[R_CX], 0);
	assert_int_equal(r->v->rip, RIG_CODE + 2);
	/* A kick gets out of one that would never end; it stays for vcpu_run(). */
	r->v->rip = r->v->next_rip = RIG_CODE;
	r->v->gpr[R_CX] = 100000;
	vcpu_kick(r->vcpu[0]);
	assert_int_equal(vcpu_step(r->vcpu[0], 5, &exit, NULL), 0);
	assert_int_equal(exit, VCPU_EXIT_KICK);
	assert_in_range(r->v->gpr[R_CX], 1, 99999);
	assert_int_equal(r->v->rip, RIG_CODE);
	assert_int_equal(run(r, 0), VCPU_EXIT_KICK);
	/* In an engine that the kvm engine has for single instructions no kick comes: a piece of it is done at once. */
	r->e->probing = true;
	r->v->rip = r->v->next_rip = RIG_CODE;
	r->v->gpr[R_CX] = 100000;
	assert_int_equal(vcpu_step(r->vcpu[0], 1, &exit, NULL), 0);
	assert_in_range(r->v->gpr[R_CX], 1, 99999);
	assert_int_equal(r->v->rip, RIG_CODE);
	r->v->gpr[R_CX] = 1;
	assert_int_equal(vcpu_step(r->vcpu[0], 2, &exit, NULL), 0);
	assert_int_equal(r->v->rip, RIG_CODE + 5);
	r->e->probing = false;
	/* A prefix makes no string instruction of a jump to itself. */
	RIG_BLOB(blob_repjmp, "rep; 1: jmp 1b - 1");
	rig_load(r, RIG_CODE, blob_repjmp);
	r->v->rip = r->v->next_rip = RIG_CODE;
	assert_int_equal(vcpu_step(r->vcpu[0], 5, &exit, NULL), 0);
	assert_int_equal(r->v->rip, RIG_CODE);
	/* An instruction that faults is one: the next is the handler's first. */
	RIG_BLOB(blob_ud, "ud2");
	rig_load(r, RIG_CODE, blob_ud);
	rig_gate(r, 6, RIG_CODE + 0x1000);
	r->v->rip = r->v->next_rip = RIG_CODE;
	assert_int_equal(vcpu_step(r->vcpu[0], 1, &exit, NULL), 0);
	assert_int_equal(r->v->rip, RIG_CODE + 0x1000);
	/* HLT does not hold it up. */
	RIG_BLOB(blob_hlt1, "hlt");
	rig_load(r, RIG_CODE, blob_hlt1);
	r->v->rip = r->v->next_rip = RIG_CODE;
	assert_int_equal(vcpu_step(r->vcpu[0], 5, &exit, NULL), 0);
	assert_int_equal(r->v->mp_state, CPU_MP_HALTED);
}

/* The last instruction of a page, and one that CS's limit cuts off. */
static void code_limit(void **state)
{
	struct rig *r = *state;
	enum vcpu_exit exit;

	rig_start(r, 0);
	rig_mode(r->v, RIG_NONE, 0, 0, 0);
	r->v->seg[SEG_CS].limit = RIG_CODE + 0x10;
	r->v->idtr.limit = 0;
	RIG_BLOB(blob_limit, ".fill 16, 1, 0x90; nop; nop"); /* the last but one is the last within the limit */
	rig_load(r, RIG_CODE, blob_limit);
	r->v->rip = r->v->next_rip = RIG_CODE;
	assert_int_equal(vcpu_step(r->vcpu[0], 17, &exit, NULL), 0);
	assert_int_equal(exit, VCPU_EXIT_KICK);
	assert_int_equal(r->v->rip, RIG_CODE + 0x11);
	assert_int_equal(run(r, 0), VCPU_EXIT_SHUTDOWN); /* #GP without an IDT */
	/* The same decoded code under another limit. */
	r->v->seg[SEG_CS].limit = RIG_CODE + 7;
	r->v->rip = r->v->next_rip = RIG_CODE;
	assert_int_equal(run(r, 0), VCPU_EXIT_SHUTDOWN);
	assert_int_equal(r->v->rip, RIG_CODE + 8);
}

/* ---- Several vCPUs ------------------------------------------------------- */

static void run_all(struct rig *r, unsigned cpus, void (*meanwhile)(struct rig *r))
{
	pthread_t thread[4];
	struct job j[4];

	for (unsigned i = 0; i < cpus; i++) {
		j[i] = (struct job){ .r = r, .cpu = i };
		pthread_create(&thread[i], NULL, job_run, &j[i]);
	}
	if (meanwhile)
		meanwhile(r);
	for (unsigned i = 0; i < cpus; i++) {
		pthread_join(thread[i], NULL);
		assert_int_equal(j[i].exit, VCPU_EXIT_KICK);
	}
}

static void start_all(struct rig *r, unsigned cpus)
{
	for (unsigned i = 0; i < cpus; i++)
		rig_start(r, i);
}

static void atomics(void **state)
{
	struct rig *r = *state;

	start_all(r, 4);
	RIG_BLOB(blob_lock, "mov $50000, %ecx; 1: lock incq 0x300000; mov $1, %eax; lock xadd %eax, 0x300ff0; dec %ecx; jnz 1b; "
			    "out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_lock);
	run_all(r, 4, NULL);
	assert_int_equal(*rig_q(r, RIG_DATA), 200000);
	assert_int_equal(*rig_d(r, RIG_DATA + 0xff0), 200000);
}

/* Locked operations that cross a page stop the world, all vCPUs asking at once. */
static void atomics_split(void **state)
{
	struct rig *r = *state;
	uint64_t value;

	start_all(r, 4);
	RIG_BLOB(blob_split, "mov $20000, %ecx; 1: lock incq 0x300ffd; mov $2, %eax; lock xadd %eax, 0x301ffe; dec %ecx; jnz 1b; "
			     "out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_split);
	run_all(r, 4, NULL);
	memcpy(&value, r->ram + 0x300ffd, 8);
	assert_int_equal(value, 80000);
	memcpy(&value, r->ram + 0x301ffe, 4);
	assert_int_equal((uint32_t)value, 160000);
}

/* Slots come and go under running vCPUs: each store lands in the old or the new memory, none in memory that is gone. */
#define WINDOW 0x80000000ull
static void swap_slots(struct rig *r)
{
	for (unsigned n = 0; n < 200; n++) {
		uint8_t *page = mmap(NULL, 0x1000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		assert_int_equal(engine_map(r->engine, WINDOW, 0x1000, page, false, NULL), 0);
		if (n % 8 == 0)
			usleep(100);
		assert_int_equal(engine_unmap(r->engine, WINDOW, 0x1000, NULL), 0);
		munmap(page, 0x1000); /* a vCPU that still had it would crash */
	}
	__atomic_store_n(rig_q(r, RIG_DATA), 1, __ATOMIC_RELEASE);
}

static void slots_change(void **state)
{
	struct rig *r = *state;

	start_all(r, 4);
	*rig_q(r, 0x2000 + 8 * 2) = 0x7000 | 3;
	*rig_q(r, 0x7000) = WINDOW | 0x83;
	RIG_BLOB(blob_window, "mov $0x80000000, %ebx; 1: incq (%rbx); mov 0x100(%rbx), %rax; cmpq $0, 0x300000; je 1b; "
			      "out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_window);
	run_all(r, 4, swap_slots);
	assert_true(r->mmio_reads > 0);
}

/* A store is seen by the vCPU that another CPU's INVLPG and flag send to look: the walk must see new tables. */
static void ipi_wakes_ap(void **state)
{
	struct rig *r = *state;
	struct job j = { .r = r, .cpu = 1 };
	pthread_t thread;

	/* INIT, SIPI: the AP starts in real mode at page 8. */
	RIG_BLOB(blob_ap, ".code16; movw %cs, %ax; movw %ax, %ds; movw %ax, 0x100; outb %al, $0xf4; 1: hlt; jmp 1b; .code64");
	rig_load(r, 0x8000, blob_ap);
	pthread_create(&thread, NULL, job_run, &j);
	usleep(1000);
	soft_wake(soft_vcpu(r->vcpu[1]), REQ_INIT);
	usleep(1000);
	atomic_store(&soft_vcpu(r->vcpu[1])->sipi_vector, 8);
	soft_wake(soft_vcpu(r->vcpu[1]), REQ_SIPI);
	pthread_join(thread, NULL);
	assert_int_equal(*(uint16_t *)(r->ram + 0x8100), 0x800);
}

/* ---- State --------------------------------------------------------------- */

/* A machine that is switched on takes the host's TSC: its user code may then read it natively. Any other value is kept. */
static void power_on_tsc(void **state)
{
	struct rig *r = *state;
	struct cpu_state *s = aligned_alloc(64, sizeof(*s));
	uint64_t before = __builtin_ia32_rdtsc();

	cpu_state_reset(s, 0);
	assert_int_equal(s->tsc, 0);
	assert_int_equal(vcpu_set_state(r->vcpu[0], s, NULL), 0);
	assert_int_equal(vcpu_get_state(r->vcpu[0], s, NULL), 0);
	assert_in_range(s->tsc, before, __builtin_ia32_rdtsc());
	/* Neither does waiting to be started change it. */
	engine_clock(r->engine, false);
	usleep(2000);
	engine_clock(r->engine, true);
	before = __builtin_ia32_rdtsc();
	assert_int_equal(vcpu_get_state(r->vcpu[0], s, NULL), 0);
	assert_in_range(s->tsc, before, __builtin_ia32_rdtsc());
	s->tsc = 5;
	assert_int_equal(vcpu_set_state(r->vcpu[0], s, NULL), 0);
	assert_int_equal(vcpu_get_state(r->vcpu[0], s, NULL), 0);
	assert_in_range(s->tsc, 5, 20000000000ull);
	free(s);
}

static void state_round_trip(void **state)
{
	struct rig *r = *state;
	struct cpu_state *a = aligned_alloc(64, sizeof(*a)), *b = aligned_alloc(64, sizeof(*b));

	cpu_state_reset(a, 0);
	for (unsigned i = 0; i < 16; i++)
		a->gpr[i] = 0x1111111111111111ull * i;
	a->cr0 = 0x80050033;
	a->cr4 = 0x20 | 0x600 | 0x40000;
	a->efer = 0xd01;
	a->tsc = 1000;
	a->cr3 = 0x12345000;
	a->xcr0 = 7 & vec_xcr0_mask();
	a->seg[SEG_CS] = (struct cpu_segment){ .limit = UINT32_MAX, .attr = 0xa09b, .selector = 8 };
	a->rip = 0xffffffff81000000;
	a->kernel_gs_base = 0xffff888000000000;
	a->rflags = 0x246;
	a->dr[0] = 0x1234;
	a->dr[7] = 0x402;
	a->interrupt_shadow = 1;
	a->nmi_pending = 1;
	a->event_pending = 1;
	a->event_vector = 14;
	a->event_kind = 3;
	a->event_has_error = 1;
	a->event_error = 6;
	a->event_payload = 0xdead000;
	a->mtrr_phys[3][1] = 0x800;
	for (unsigned i = 0; i < 256; i++)
		a->xsave[160 + i] = i;
	assert_int_equal(vcpu_set_state(r->vcpu[0], a, NULL), 0);
	assert_int_equal(vcpu_get_state(r->vcpu[0], b, NULL), 0);
	assert_in_range(b->tsc - a->tsc, 0, 20000000000ull);
	b->tsc = a->tsc;
	assert_memory_equal(a, b, offsetof(struct cpu_state, lapic));
	assert_memory_equal(a->xsave + 160, b->xsave + 160, 256);
	free(a);
	free(b);
}

static void state_refused(void **state)
{
	struct rig *r = *state;
	struct cpu_state *s = aligned_alloc(64, sizeof(*s)), *before = aligned_alloc(64, sizeof(*s));
	struct {
		size_t offset;
		uint64_t value;
	} bad[] = {
		{ offsetof(struct cpu_state, cr0), 1ull << 32 | 0x10 }, { offsetof(struct cpu_state, cr0), 0x80000010 },
		{ offsetof(struct cpu_state, cr4), 1 << 15 }, { offsetof(struct cpu_state, cr4), 1 << 13 }, /* VMXE */
		{ offsetof(struct cpu_state, efer), 2 }, { offsetof(struct cpu_state, efer), 1 << 12 },  /* SVME */
		{ offsetof(struct cpu_state, xcr0), 6 }, { offsetof(struct cpu_state, xcr0), 0xe7 },
		{ offsetof(struct cpu_state, lstar), 1ull << 47 }, { offsetof(struct cpu_state, kernel_gs_base), 1ull << 63 },
		{ offsetof(struct cpu_state, seg[SEG_FS].base), 1ull << 50 },
	};

	vcpu_get_state(r->vcpu[0], before, NULL);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct err err = ERR_INIT;

		cpu_state_reset(s, 0);
		s->gpr[R_BX] = 0xbad;
		memcpy((uint8_t *)s + bad[i].offset, &bad[i].value, 8);
		if (vcpu_set_state(r->vcpu[0], s, &err) != -EINVAL)
			fail_msg("case %u was taken", i);
		assert_true(err.msg[0]);
	}
	vcpu_get_state(r->vcpu[0], s, NULL);
	assert_int_equal(s->gpr[R_BX], before->gpr[R_BX]);
	free(s);
	free(before);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, rig_teardown)
	const struct CMUnitTest tests[] = {
		T(tour), T(tour_stepped), T(code_in_device), T(triple_fault), T(hlt_and_msi), T(hlt_no_lost_wakeups), T(kicks), T(waiting_costs_nothing),
		T(nmi), T(shadows), T(single_step), T(breakpoint), T(data_breakpoint), T(stepping), T(code_limit), T(atomics),
		T(atomics_split), T(slots_change), T(ipi_wakes_ap), T(power_on_tsc), T(state_refused),
		T(atomics_split), T(slots_change), T(ipi_wakes_ap), T(state_round_trip), T(state_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
