/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Code that means harm, or that nobody writes: at page ends, in devices, under
 * changing mappings, through aliases, written by others while it runs. Whatever
 * it is, it goes as on hardware, and memory stays bounded. Each piece runs
 * often enough to be translated, linked and in every cache.
 */
#include <stdio.h>
#include <unistd.h>

#include "soft_rig.h"

/* A window of 4 KiB pages; elsewhere linear is physical in 2 MiB pages. */
#define WINDOW 0x800000ull
#define WINDOW_PT 0x6000ull
#define HANDLER (RIG_CODE + 0x4000)
#define P 1ull
#define W 2ull
#define NX (1ull << 63)
#define TIMES 200

static int setup(void **state)
{
	return rig_setup(state, 1);
}

static void start(struct rig *r, unsigned cpu)
{
	rig_start(r, cpu);
	soft_vcpu(r->vcpu[cpu])->efer |= EFER_NXE;
	*rig_q(r, 0x2000 + 8) = 0;
	*rig_q(r, 0x3000 + 8 * (WINDOW >> 21)) = WINDOW_PT | P | W;
}

static void map(struct rig *r, unsigned n, uint64_t gpa, uint64_t bits)
{
	*rig_q(r, WINDOW_PT + 8 * n) = gpa | bits;
}

/* Faults leave their error code in R12, the address of the instruction in R13, CR2 in R14 and RSP in R11, and go on at RBP. */
RIG_BLOB(blob_with_error, "mov %cr2, %r14; mov (%rsp), %r12; mov 8(%rsp), %r13; mov 32(%rsp), %r11; mov %rbp, 8(%rsp); incl 0x300000;"
			  "movq $0x20000, 32(%rsp); add $8, %rsp; iretq");
RIG_BLOB(blob_without, "mov (%rsp), %r13; mov 24(%rsp), %r11; mov %rbp, (%rsp); movq $0x20000, 24(%rsp); incl 0x300000; iretq");

static void handlers(struct rig *r)
{
	rig_load(r, HANDLER, blob_with_error);
	rig_load(r, HANDLER + 0x100, blob_without);
	rig_gate(r, EXC_PF, HANDLER);
	rig_gate(r, EXC_GP, HANDLER);
	rig_gate(r, EXC_SS, HANDLER);
	rig_gate(r, EXC_UD, HANDLER + 0x100);
	/* On a stack of their own: the one at work may be no stack. */
	for (unsigned v = EXC_UD; v <= EXC_PF; v++)
		r->ram[RIG_IDT + 16 * v + 4] = 1;
	memset(r->ram + 0x4a00, 0, 0x68);
	*rig_q(r, 0x4a00 + 0x24) = 0x28000;
	r->v->tr = (struct cpu_segment){.base = 0x4a00, .limit = 0x67, .attr = 0x8b, .selector = 0x40};
	*rig_d(r, RIG_DATA) = 0;
}

static void loop_start(struct rig *r, const uint8_t *blob, const uint8_t *end)
{
	start(r, 0);
	handlers(r);
	rig_put(r, RIG_CODE, blob, (size_t)(end - blob));
}
#define LOOP(r, blob) loop_start(r, blob, blob##_end)

/* ---- Page ends ------------------------------------------------------------ */

static void into_an_absent_page(void **state)
{
	struct rig *r = *state;

	/* To the last byte of a page and on; an instruction that crosses; a branch right into the absent page. */
	RIG_BLOB(blob_edge, "mov $200, %ecx; 1: lea 2f(%rip), %rbp; xor %ebx, %ebx; mov $0x800ff0, %eax; jmp *%rax;"
			    "2: dec %ecx; jnz 1b; out %al, $0xf4");
	static const uint8_t up_to[] = {0xff, 0xc3, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xc3, 0x90};
	static const uint8_t across[] = {0xff, 0xc3, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x81, 0xc3, 0x10, 0x20};
	static const uint8_t branch[] = {0xff, 0xc3, 0xe9, 0x20, 0x00, 0x00, 0x00};

	LOOP(r, blob_edge);
	map(r, 0, 0x500000, P | W);
	map(r, 1, 0, 0);
	rig_put(r, 0x500ff0, up_to, sizeof(up_to));
	rig_run_one(r);
	assert_int_equal(*rig_d(r, RIG_DATA), TIMES);
	assert_int_equal(r->v->gpr[R_BX], 2);
	assert_int_equal(r->v->gpr[R_13], WINDOW + 0x1000);
	assert_int_equal(r->v->gpr[R_14], WINDOW + 0x1000);
	assert_int_equal(r->v->gpr[R_12], 0x10); /* a fetch; the page is not present */

	LOOP(r, blob_edge);
	rig_put(r, 0x500ff0, across, sizeof(across));
	rig_run_one(r);
	assert_int_equal(*rig_d(r, RIG_DATA), TIMES);
	assert_int_equal(r->v->gpr[R_BX], 1);
	assert_int_equal(r->v->gpr[R_13], WINDOW + 0xffc);
	assert_int_equal(r->v->gpr[R_14], WINDOW + 0x1000);

	LOOP(r, blob_edge);
	rig_put(r, 0x500ff0, branch, sizeof(branch));
	rig_run_one(r);
	assert_int_equal(*rig_d(r, RIG_DATA), TIMES);
	assert_int_equal(r->v->gpr[R_BX], 1);
	assert_int_equal(r->v->gpr[R_13], WINDOW + 0x1017);
	assert_int_equal(r->v->gpr[R_14], WINDOW + 0x1017);
}

/* The second half of a crossing instruction is another page from time to time. */
static void crossing_into_changing_pages(void **state)
{
	struct rig *r = *state;

	RIG_BLOB(blob_swap, "mov $200, %ecx; xor %ebx, %ebx; 1: lea 2f(%rip), %rbp; mov $0x800ffe, %eax; jmp *%rax;"
			    "2: xorq $0x1000, 0x6008; invlpg 0x801000; dec %ecx; jnz 1b; out %al, $0xf4");
	LOOP(r, blob_swap);
	map(r, 0, 0x500000, P | W);
	map(r, 1, 0x502000, P | W);
	rig_put(r, 0x500ffe, "\x81\xc3", 2); /* add $imm32, %ebx; jmp *%rbp */
	rig_put(r, 0x502000, "\x01\x00\x00\x00\xff\xe5", 6);
	rig_put(r, 0x503000, "\x00\x01\x00\x00\xff\xe5", 6);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], TIMES / 2 * 0x101);
}

static void stack_ends(void **state)
{
	struct rig *r = *state;

	/* PUSH, CALL, then with a stack pointer that is no address: #SS(0). RSP stays. */
	RIG_BLOB(blob_push, "mov $200, %ecx; 1: lea 2f(%rip), %rbp; mov $0x800000, %esp; push %rcx; hlt; 2: dec %ecx; jnz 1b; out %al, $0xf4");
	RIG_BLOB(blob_call, "mov $200, %ecx; 1: lea 2f(%rip), %rbp; mov $0x800000, %esp; call 2f; 2: dec %ecx; jnz 1b; out %al, $0xf4");
	RIG_BLOB(blob_hole, "mov $200, %ecx; mov $1, %edx; shl $47, %rdx; 1: lea 2f(%rip), %rbp; lea 8(%rdx), %rsp; pop %rax; hlt; 2: dec %ecx; jnz 1b;"
			    "out %al, $0xf4");
	RIG_BLOB(blob_split, "mov $200, %ecx; 1: mov $0x801004, %esp; push %rcx; pop %rdx; call 3f; 2: dec %ecx; jnz 1b; out %al, $0xf4; 3: ret");

	LOOP(r, blob_push);
	*rig_q(r, 0x3000 + 8 * ((WINDOW >> 21) - 1)) = 0;
	rig_run_one(r);
	assert_int_equal(*rig_d(r, RIG_DATA), TIMES);
	assert_int_equal(r->v->gpr[R_12], 2);
	assert_int_equal(r->v->gpr[R_14], WINDOW - 8);
	assert_int_equal(r->v->gpr[R_11], WINDOW);

	LOOP(r, blob_call);
	*rig_q(r, 0x3000 + 8 * ((WINDOW >> 21) - 1)) = 0;
	rig_run_one(r);
	assert_int_equal(*rig_d(r, RIG_DATA), TIMES);
	assert_int_equal(r->v->gpr[R_14], WINDOW - 8);
	assert_int_equal(r->v->gpr[R_11], WINDOW);

	LOOP(r, blob_hole);
	rig_run_one(r);
	assert_int_equal(*rig_d(r, RIG_DATA), TIMES);
	assert_int_equal(r->v->gpr[R_12], 0);
	assert_int_equal(r->v->gpr[R_11], (1ull << 47) + 8);

	LOOP(r, blob_split); /* across two pages that do not lie together */
	map(r, 0, 0x500000, P | W);
	map(r, 1, 0x510000, P | W);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_DX], 1);
	assert_int_equal(r->v->gpr[R_SP], WINDOW + 0x1004);
}

/* ---- Bytes that are no code ----------------------------------------------- */

static void long_and_undefined(void **state)
{
	struct rig *r = *state;

	RIG_BLOB(blob_long, "mov $200, %ecx; 1: lea 2f(%rip), %rbp; inc %ebx; .fill 14, 1, 0x66; nop; inc %ebx; .fill 15, 1, 0x66; nop; hlt;"
			    "2: dec %ecx; jnz 1b; out %al, $0xf4");
	RIG_BLOB(blob_ud, "mov $200, %ecx; 1: lea 2f(%rip), %rbp; inc %ebx; .byte 0x0f, 0x04; hlt; 2: lea 3f(%rip), %rbp; .byte 0x06; hlt;"
			  "3: lea 4f(%rip), %rbp; lock; mov %eax, %edx; hlt; 4: lea 5f(%rip), %rbp; ud1 (%rax), %eax; hlt;"
			  "5: dec %ecx; jnz 1b; out %al, $0xf4");

	LOOP(r, blob_long);
	rig_run_one(r);
	assert_int_equal(*rig_d(r, RIG_DATA), TIMES);
	assert_int_equal(r->v->gpr[R_BX], 2 * TIMES); /* 15 bytes are an instruction, 16 are #GP(0) */
	assert_int_equal(r->v->gpr[R_12], 0);

	LOOP(r, blob_ud);
	r->v->gpr[R_BX] = 0;
	rig_run_one(r);
	assert_int_equal(*rig_d(r, RIG_DATA), 4 * TIMES);
	assert_int_equal(r->v->gpr[R_BX], TIMES);
}

/* Two instruction streams in the same bytes. */
static void into_the_middle(void **state)
{
	struct rig *r = *state;

	/* mov $0xc3ff, %eax holds "inc %ebx" */
	RIG_BLOB(blob_middle, "mov $200, %ecx; xor %ebx, %ebx; 1: lea 3f(%rip), %rax; test $1, %cl; jz 2f; add $1, %rax; 2: jmp *%rax;"
			      "3: .byte 0xb8, 0xff, 0xc3, 0x90, 0x90; dec %ecx; jnz 1b; out %al, $0xf4");
	LOOP(r, blob_middle);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], TIMES / 2);
}

/* ---- Devices and ROM ------------------------------------------------------ */

static uint8_t device_code(uint64_t gpa)
{
	static const uint8_t code[] = {0xff, 0xc3, 0xff, 0xe5}; /* inc %ebx; jmp *%rbp */

	return gpa - 0x4000000 < sizeof(code) ? code[gpa - 0x4000000] : 0x0b;
}

static void code_in_a_device(void **state)
{
	struct rig *r = *state;

	RIG_BLOB(blob_outside, "mov $200, %ecx; xor %ebx, %ebx; lea 2f(%rip), %rbp; 1: mov $0x800000, %eax; jmp *%rax; 2: dec %ecx; jnz 1b; out %al, $0xf4");
	LOOP(r, blob_outside);
	map(r, 0, 0x4000000, P | W);
	r->mmio_byte = device_code;
	r->mmio_reads = 0;
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], TIMES);
	assert_int_equal(r->mmio_reads, 4 * TIMES); /* nothing of it is kept */
	assert_null(block_find(r->e, 0x4000000, BLOCK_ONE_PAGE, MODE_64));
}

static void code_in_rom(void **state)
{
	struct rig *r = *state;
	static uint8_t rom[4096] __attribute__((aligned(4096)));
	struct err err = ERR_INIT;

	RIG_BLOB(blob_rom, "mov $200, %ecx; xor %ebx, %ebx; lea 2f(%rip), %rbp; 1: mov $0x800000, %eax; jmp *%rax; 2: movb $0xc7, 0x800001;"
			   "dec %ecx; jnz 1b; out %al, $0xf4");
	memcpy(rom, "\xff\xc3\xff\xe5", 4);
	assert_int_equal(engine_map(r->engine, 0x4000000, 4096, rom, true, &err), 0);
	LOOP(r, blob_rom);
	map(r, 0, 0x4000000, P | W);
	r->mmio_writes = 0;
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], TIMES);
	assert_int_equal(r->mmio_writes, TIMES);
	assert_int_equal(rom[1], 0xc3);
	assert_int_equal(engine_unmap(r->engine, 0x4000000, 4096, &err), 0);
}

/* ---- Mappings ------------------------------------------------------------- */

static void remapped_code(void **state)
{
	struct rig *r = *state;

	/* By INVLPG, then by CR3: another page of code at the same place each time. */
	RIG_BLOB(blob_invlpg, "mov $200, %ecx; xor %ebx, %ebx; lea 2f(%rip), %rbp; 1: mov $0x800000, %eax; call *%rax; 2: xorq $0x1000, 0x6000;"
			      "invlpg 0x800000; dec %ecx; jnz 1b; out %al, $0xf4");
	RIG_BLOB(blob_cr3, "mov $200, %ecx; xor %ebx, %ebx; 1: mov $0x800000, %eax; call *%rax; xorq $0x1000, 0x6000;"
			   "mov %cr3, %rdx; mov %rdx, %cr3; dec %ecx; jnz 1b; out %al, $0xf4");
	const uint8_t *const blobs[] = {blob_invlpg, blob_invlpg_end, blob_cr3, blob_cr3_end};

	for (unsigned n = 0; n < 4; n += 2) {
		loop_start(r, blobs[n], blobs[n + 1]);
		map(r, 0, 0x502000, P | W);
		rig_put(r, 0x502000, "\x83\xc3\x01\xc3", 4); /* add $1, %ebx; ret */
		rig_put(r, 0x503000, "\x83\xc3\x10\xc3", 4);
		rig_run_one(r);
		assert_int_equal(r->v->gpr[R_BX], TIMES / 2 * 0x11);
	}
}

static void nx_flips(void **state)
{
	struct rig *r = *state;

	RIG_BLOB(blob_nx, "mov $200, %ecx; xor %ebx, %ebx; lea 2f(%rip), %rbp; 1: mov $0x800000, %eax; jmp *%rax; 2: xorb $0x80, 0x6007;"
			  "invlpg 0x800000; dec %ecx; jnz 1b; out %al, $0xf4");
	LOOP(r, blob_nx);
	map(r, 0, 0x502000, P | W);
	rig_put(r, 0x502000, "\xff\xc3\xff\xe5", 4);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], TIMES / 2);
	assert_int_equal(*rig_d(r, RIG_DATA), TIMES / 2);
	assert_int_equal(r->v->gpr[R_12], 0x11);
	assert_int_equal(r->v->gpr[R_13], WINDOW);
}

/* The same page at two addresses: what it computes from its own address differs, and a store through one changes the other. */
static void aliases(void **state)
{
	struct rig *r = *state;

	RIG_BLOB(blob_alias, "mov $200, %ecx; xor %ebx, %ebx; xor %esi, %esi; 1: mov $0x800000, %eax; call *%rax; add %rdx, %rsi; mov $0x805000, %eax; call *%rax;"
			     "add %rdx, %rsi; incb 0x803002; dec %ecx; jnz 1b; out %al, $0xf4");
	LOOP(r, blob_alias);
	map(r, 0, 0x502000, P | W);
	map(r, 3, 0x502000, P | W);
	map(r, 5, 0x502000, P | W);
	rig_put(r, 0x502000, "\x83\xc3\x00\x48\x8d\x15\x00\x00\x00\x00\xc3", 11); /* add $0, %ebx; lea 0(%rip), %rdx; ret */
	rig_run_one(r);
	{
		uint32_t sum = 0;

		for (int n = 0; n < TIMES; n++)
			sum += 2 * (uint32_t)(int8_t)n;
		assert_int_equal((uint32_t)r->v->gpr[R_BX], sum);
	}
	assert_int_equal(r->v->gpr[R_SI], TIMES * (2 * WINDOW + 0x5000 + 2 * 10));
}

/* ---- As much as there is -------------------------------------------------- */

static size_t resident(void)
{
	unsigned long total, pages;
	FILE *f = fopen("/proc/self/statm", "r");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%lu %lu", &total, &pages), 2);
	fclose(f);
	return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* Code over code, all of it new each time: 24 MiB of it, four times rewritten by the guest itself. */
static void code_without_end(void **state)
{
	struct rig *r = *state;
	size_t before;

	/* inc %ebx; add $imm8, %eax; jmp +.. in each 16 bytes; the immediate is another in each round */
	RIG_BLOB(blob_fill, "mov $4, %r8d; 1: mov $0x400000, %edi; mov $0x04eb0000c083c3ff, %rax; mov %r8, %rdx; shl $32, %rdx; xor %rdx, %rax;"
			    "2: mov %rax, (%rdi); movl $0x90909090, 8(%rdi); movl $0x00ebc3ff, 12(%rdi); add $16, %rdi; cmp $0x1c00000, %edi; jb 2b;"
			    "movw $0xe5ff, (%rdi); lea 3f(%rip), %rbp; mov $0x400000, %esi; jmp *%rsi; 3: dec %r8d; jnz 1b; out %al, $0xf4");
	LOOP(r, blob_fill);
	/* The window's place is code here, too. */
	rig_identity_long(r, P | W);
	memset(r->ram, r->ram[0], 1);
	for (uint64_t at = 0x400000; at < RIG_RAM; at += 4096)
		r->ram[at] = 0x90;
	before = resident();
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], 4 * 2 * (0x1800000 / 16));
	if (resident() > before + (40u << 20))
		fail_msg("%zu MiB more than before", (resident() - before) >> 20);
}

/* ---- Two vCPUs ------------------------------------------------------------ */

static int setup2(void **state)
{
	return rig_setup(state, 2);
}

static void *cpu_thread(void *vcpu)
{
	return (void *)(uintptr_t)vcpu_run(vcpu, NULL);
}

static void run_both(struct rig *r)
{
	pthread_t other;
	void *exit;

	pthread_create(&other, NULL, cpu_thread, r->vcpu[1]);
	rig_run_one(r);
	pthread_join(other, &exit);
	assert_int_equal((uintptr_t)exit, VCPU_EXIT_KICK);
}

static void start_both(struct rig *r, const uint8_t *a, const uint8_t *a_end, const uint8_t *b, const uint8_t *b_end)
{
	for (unsigned cpu = 0; cpu < 2; cpu++)
		start(r, cpu);
	memset(r->ram + RIG_DATA, 0, 4096);
	rig_put(r, RIG_CODE, a, (size_t)(a_end - a));
	rig_put(r, RIG_CODE + 0x2000, b, (size_t)(b_end - b));
	soft_vcpu(r->vcpu[1])->rip = soft_vcpu(r->vcpu[1])->next_rip = RIG_CODE + 0x2000;
}
#define START_BOTH(r, a, b) start_both(r, a, a##_end, b, b##_end)

/* A vCPU calls code that the other one writes all the time: old or new, never anything else, and new in the end. */
static void written_by_another(void **state)
{
	struct rig *r = *state;
	size_t before;

	RIG_BLOB(blob_caller, "mov $300000, %ecx; mov $0x500000, %esi; xor %ebx, %ebx; 1: mov $77, %eax; call *%rsi; cmp $1, %al; ja 8f; add %eax, %ebx;"
			      "dec %ecx; jnz 1b; movl $1, 0x300000; 2: call *%rsi; cmpb $1, %al; jne 2b; out %al, $0xf4; 8: mov $-1, %ebx; jmp 9f; 9:"
			      "movl $1, 0x300000; out %al, $0xf4");
	RIG_BLOB(blob_writer, "1: xorb $1, 0x500001; pause; cmpl $0, 0x300000; je 1b; movb $1, 0x500001; out %al, $0xf4");
	START_BOTH(r, blob_caller, blob_writer);
	rig_put(r, 0x500000, "\xb8\x00\x00\x00\x00\xc3", 6); /* mov $0 or $1, %eax; ret */
	before = resident();
	run_both(r);
	assert_int_not_equal(r->v->gpr[R_BX], UINT32_MAX);
	assert_true(r->v->gpr[R_BX] <= 300000);
	if (resident() > before + (40u << 20))
		fail_msg("%zu MiB more than before", (resident() - before) >> 20);
}

/* Cross-modifying code by the book (SDM vol. 3 §8.1.3): write, tell, serialize, run: the new code at once. */
static void told_by_another(void **state)
{
	struct rig *r = *state;

	RIG_BLOB(blob_told, "mov $3000, %r8d; xor %r9d, %r9d; mov $0x500000, %esi; 1: cmpl $0, 0x300000; je 1b; xor %eax, %eax; cpuid; call *%rsi;"
			    "cmp 0x300010, %eax; je 2f; inc %r9d; 2: movl $0, 0x300000; dec %r8d; jnz 1b; out %al, $0xf4");
	RIG_BLOB(blob_tell, "mov $3000, %r8d; 1: mov %r8d, 0x500001; mov %r8d, 0x300010; movl $1, 0x300000; 2: pause; cmpl $0, 0x300000; jne 2b;"
			    "dec %r8d; jnz 1b; out %al, $0xf4");
	START_BOTH(r, blob_told, blob_tell);
	rig_put(r, 0x500000, "\xb8\x00\x00\x00\x00\xc3", 6);
	run_both(r);
	assert_int_equal(r->v->gpr[R_9], 0);
}

/* Every kind of lock counts right; every message comes whole and in order. */
static void locks_and_messages(void **state)
{
	struct rig *r = *state;

	RIG_BLOB(blob_locks,
		 "mov $30000, %ecx; xor %r9d, %r9d;"
		 "1: lock incl 0x300100; lock addq $3, 0x3001fc; mov $2, %eax; lock xadd %eax, 0x300200;" /* 3001fc crosses a line */
		 "2: mov $1, %eax; xchg %eax, 0x300300; test %eax, %eax; jz 3f; pause; jmp 2b; 3: incl 0x300340; movl $0, 0x300300;"
		 "4: mov 0x300400, %eax; lea 1(%rax), %edx; lock cmpxchg %edx, 0x300400; jne 4b;"
		 "5: lock btsl $5, 0x300500; jnc 6f; pause; jmp 5b; 6: addl $7, 0x300540; movl $0, 0x300500;"
		 "dec %ecx; jnz 1b;"
		 "lock incl 0x300600; 7: pause; cmpl $2, 0x300600; jb 7b; out %al, $0xf4");
	RIG_BLOB(blob_send, "mov $1, %ecx; 1: mov %rcx, 0x300010; mov %rcx, 0x300018; mov %rcx, 0x300080; 2: cmp %rcx, 0x3000c0; je 3f; pause; jmp 2b; 3: inc %ecx;"
			    "cmp $20000, %ecx; jb 1b; out %al, $0xf4");
	RIG_BLOB(blob_receive, "mov $1, %ecx; xor %ebx, %ebx; 1: cmp %rcx, 0x300080; je 2f; pause; jmp 1b; 2: cmp %rcx, 0x300018; je 3f; inc %ebx; 3: cmp %rcx, 0x300010;"
			       "je 4f; inc %ebx; 4: mov %rcx, 0x3000c0; inc %ecx; cmp $20000, %ecx; jb 1b; out %al, $0xf4");

	START_BOTH(r, blob_locks, blob_locks);
	run_both(r);
	assert_int_equal(*rig_d(r, 0x300100), 60000);
	assert_int_equal(*rig_q(r, 0x3001fc), 180000 + (120000ull << 32)); /* XADD's word is its upper half */
	assert_int_equal(*rig_d(r, 0x300340), 60000);
	assert_int_equal(*rig_d(r, 0x300400), 60000);
	assert_int_equal(*rig_d(r, 0x300540), 7 * 60000);

	START_BOTH(r, blob_send, blob_receive);
	run_both(r);
	assert_int_equal(soft_vcpu(r->vcpu[1])->gpr[R_BX], 0);
}

/* With MFENCE between its store and its load, at least one of two sees the other's store. */
static void store_buffers(void **state)
{
	struct rig *r = *state;

	/* Round n: own flag = n, fence, look at the other's; then meet. 300040, 300080: flags, 3000c0: arrivals, 300100: what was seen. */
	RIG_BLOB(blob_first, "mov $1, %ecx; 1: mov %ecx, 0x300040; mfence; mov 0x300080, %eax; xor %edx, %edx; cmp %ecx, %eax; sete %dl; lock xadd %edx, 0x300100;"
			     "lock incl 0x3000c0; 2: pause; mov 0x3000c0, %eax; shr $1, %eax; cmp %ecx, %eax; jb 2b; inc %ecx; cmp $20000, %ecx; jb 1b; out %al, $0xf4");
	RIG_BLOB(blob_second, "mov $1, %ecx; 1: mov %ecx, 0x300080; mfence; mov 0x300040, %eax; xor %edx, %edx; cmp %ecx, %eax; sete %dl; lock xadd %edx, 0x300100;"
			      "lock incl 0x3000c0; 2: pause; mov 0x3000c0, %eax; shr $1, %eax; cmp %ecx, %eax; jb 2b; inc %ecx; cmp $20000, %ecx; jb 1b; out %al, $0xf4");
	START_BOTH(r, blob_first, blob_second);
	run_both(r);
	assert_true(*rig_d(r, 0x300100) >= 19999);
	assert_true(*rig_d(r, 0x300100) <= 2 * 19999);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(into_an_absent_page, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(crossing_into_changing_pages, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(stack_ends, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(long_and_undefined, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(into_the_middle, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(code_in_a_device, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(code_in_rom, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(remapped_code, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(nx_flips, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(aliases, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(code_without_end, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(written_by_another, setup2, rig_teardown),
		cmocka_unit_test_setup_teardown(told_by_another, setup2, rig_teardown),
		cmocka_unit_test_setup_teardown(locks_and_messages, setup2, rig_teardown),
		cmocka_unit_test_setup_teardown(store_buffers, setup2, rig_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
