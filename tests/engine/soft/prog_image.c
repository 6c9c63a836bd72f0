/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "engine/soft/sys.h"
#include "prog.h"

#define PTE_NX (1ull << 63)
#define STR_(x) #x
#define STR(x) STR_(x)

/* The names of prog.h are enumerators: here as text. */
#define A_FUEL 0x9000
#define A_LOG 0x9008
#define A_FLAGS_MASK 0x9010
#define A_RECOVERY_AT 0x9018
#define A_USER_RSP 0x9020
#define A_RECOVERY 0x9800
_Static_assert(A_FUEL == VAR_FUEL && A_LOG == VAR_LOG && A_FLAGS_MASK == VAR_FLAGS_MASK && A_USER_RSP == VAR_USER_RSP &&
	       A_RECOVERY_AT == VAR_RECOVERY_AT && A_RECOVERY == VAR_RECOVERY, "");

/*
 * Exceptions, on a stack of their own with the vector and the error code
 * pushed: log the registers and the frame, go on at the next place of the
 * table.
 */
asm(".pushsection .rodata\n"
    "prog_exception:\n"
    "push %rax; push %rcx; push %rdx; push %rbx; push %rbp; push %rsi; push %rdi; push %r8; push %r9; push %r10;"
    "push %r11; push %r12; push %r13; push %r14; push %r15\n"
    "cld\n"
    "mov " STR(A_FLAGS_MASK) ", %rax\n"
    "and %rax, 152(%rsp)\n"
    "mov " STR(A_LOG) ", %rdi\n"
    "mov %rsp, %rsi\n"
    "mov $22, %ecx\n"
    "rep movsq\n"
    "mov %cr2, %rax\n"
    "stosq\n"
    "add $8, %rdi\n"
    "cmp $0xef00, %rdi\n"
    "jb 1f\n"
    "mov $0xb000, %edi\n"
    "1: mov %rdi, " STR(A_LOG) "\n"
    "decq " STR(A_FUEL) "\n"
    "jle 2f\n"
    "mov " STR(A_RECOVERY_AT) ", %rax\n"
    "lea 1(%rax), %rcx\n"
    "and $31, %ecx\n"
    "mov %rcx, " STR(A_RECOVERY_AT) "\n"
    "shl $5, %eax\n"
    "mov " STR(A_RECOVERY) "(%rax), %rcx\n"
    "mov %rcx, 136(%rsp)\n"
    "mov " STR(A_RECOVERY) "+8(%rax), %ecx\n"
    "mov %rcx, 144(%rsp)\n"
    "mov " STR(A_RECOVERY) "+12(%rax), %ecx\n"
    "mov %rcx, 168(%rsp)\n"
    "mov " STR(A_RECOVERY) "+16(%rax), %rcx\n"
    "mov %rcx, 152(%rsp)\n"
    "mov " STR(A_RECOVERY) "+24(%rax), %rcx\n"
    "mov %rcx, 160(%rsp)\n"
    "pop %r15; pop %r14; pop %r13; pop %r12; pop %r11; pop %r10; pop %r9; pop %r8; pop %rdi; pop %rsi; pop %rbp;"
    "pop %rbx; pop %rdx; pop %rcx; pop %rax\n"
    "add $16, %rsp\n"
    "iretq\n"
    "2: out %al, $0xf4\n"
    "3: jmp 3b\n"
    "prog_exception_end:\n"
    "prog_int_nop: decq " STR(A_FUEL) "; jle 2b; iretq\n"
    "prog_int_ring:\n" /* ring 3 becomes ring 0, on its stack, and the other way round */
    "decq " STR(A_FUEL) "; jle 2b\n"
    "xorq $0x3b, 8(%rsp)\n" /* 08h, 33h */
    "xorq $0x3b, 32(%rsp)\n" /* 10h, 2bh */
    "xorq $0x8000, 24(%rsp)\n" /* the stacks' addresses differ by this */
    "andq $~0x100, 16(%rsp)\n"
    "iretq\n"
    "prog_syscall:\n"
    "mov %rsp, " STR(A_USER_RSP) "\n"
    "mov $0x3a000, %esp\n"
    "push %rcx; push %r11\n"
    "decq " STR(A_FUEL) "\n"
    "jle 2b\n"
    "lea 5(%rax), %rax\n"
    "call 4f\n"
    "pop %r11; pop %rcx\n"
    "mov " STR(A_USER_RSP) ", %rsp\n"
    "sysretq\n"
    "4: ret\n"
    "prog_handlers_end:\n"
    ".popsection\n");
extern const uint8_t prog_exception[], prog_int_nop[], prog_int_ring[], prog_syscall[], prog_handlers_end[];

static void put(struct prog *p, uint64_t at, uint64_t value)
{
	memcpy(p->image + at, &value, 8);
}

/* Vectors of the stubs: 16 bytes each, before the common code. */
#define STUBS PROG_HANDLERS
#define COMMON (PROG_HANDLERS + 0x800)

static uint64_t common(const uint8_t *label)
{
	return COMMON + (uint64_t)(label - prog_exception);
}

static void gate(struct prog *p, unsigned vector, uint64_t to, unsigned dpl, unsigned ist)
{
	put(p, PROG_IDT + 16 * vector, (to & 0xffff) | SEL_KERNEL << 16 | (uint64_t)ist << 32 |
	    (0x8e00ull | dpl << 13) << 32 | (to >> 16 & 0xffff) << 48);
	put(p, PROG_IDT + 16 * vector + 8, to >> 32);
}

static void handlers(struct prog *p)
{
	memcpy(p->image + COMMON, prog_exception, (size_t)(prog_handlers_end - prog_exception));
	for (unsigned v = 0; v < 32; v++) {
		uint8_t *s = p->image + STUBS + 16 * v;
		bool error = v == 8 || (v >= 10 && v <= 14) || v == 17 || v == 21;
		uint64_t from;
		int32_t rel;

		if (!error) {
			*s++ = 0x6a; /* push $0 */
			*s++ = 0;
		}
		*s++ = 0x6a;
		*s++ = (uint8_t)v;
		*s++ = 0xe9;
		from = (uint64_t)(s - p->image) + 4;
		rel = (int32_t)(COMMON - from);
		memcpy(s, &rel, 4);
		gate(p, v, STUBS + 16 * v, v == EXC_BP || v == EXC_OF ? 3 : 0, 1);
	}
	gate(p, PROG_INT_NOP, common(prog_int_nop), 3, 0);
	gate(p, PROG_INT_RING, common(prog_int_ring), 3, 1);
	gate(p, PROG_INT_END, STUBS + 16 * 32, 3, 1);
	memcpy(p->image + STUBS + 16 * 32, "\xe6\xf4\xeb\xfe", 4); /* out %al, $0xf4; jmp . */
}

/* Rights of data pages: what goes wrong with each. */
static uint64_t data_page(unsigned n)
{
	uint64_t self = PROG_DATA + n * 4096ull;

	switch (n) {
	case 4: return self | 5;
	case 5: return self | 6;
	case 8: return self | 3;
	case 9: return self | 7 | PTE_NX;
	case 10: return PROG_DEVICE | 7;
	case 11: return PROG_ROM | 7;
	default: return self | 7;
	}
}

static bool within(uint64_t at, uint64_t from, uint64_t to)
{
	return at >= from && at < to;
}

/*
 * Without exact flags nothing but code is executable: what a wild jump runs
 * writes itself.
 */
static uint64_t page_entry(const struct prog *p, uint64_t at)
{
	uint64_t nx = p->exact ? 0 : PTE_NX;

	if (at == PROG_HANDLERS)
		return at | 3;
	if (within(at, 4096, PROG_VARS) || within(at, PROG_VARS + 4096, PROG_LOG_END))
		return at | 3 | nx;
	if (at == PROG_VARS || within(at, PROG_USER_STACK, PROG_USER_STACK_END))
		return at | 7 | nx;
	if (within(at, PROG_CODE, PROG_CODE_END))
		return at | 7;
	if (within(at, PROG_DATA, PROG_DATA + PROG_DATA_PAGES * 4096))
		return data_page((unsigned)(at - PROG_DATA) / 4096) | nx;
	if (within(at, PROG_KERNEL_STACK, PROG_KERNEL_STACK_END))
		return at | 3 | nx;
	return 0;
}

static void tables(struct prog *p)
{
	put(p, PROG_PML4, PROG_PDPT | 7);
	put(p, PROG_PML4 + 8 * 256, PROG_PDPT | 7);
	put(p, PROG_PDPT, PROG_PD | 7);
	put(p, PROG_PD, PROG_PT | 7);
	for (unsigned n = 0; n < PROG_RAM / 4096; n++) {
		put(p, PROG_PT + 8 * n, page_entry(p, n * 4096ull));
		put(p, PROG_PT + 8 * (n + PROG_ALIAS / 4096), page_entry(p, n * 4096ull));
	}
}

static struct cpu_segment segment(uint16_t selector, uint32_t attr)
{
	return (struct cpu_segment){ .limit = UINT32_MAX, .attr = attr, .selector = selector };
}

static void state(struct prog *p)
{
	struct cpu_state *s = p->state;
	struct rng *r = &p->rng;

	cpu_state_reset(s, 0);
	for (unsigned n = 0; n < 16; n++)
		s->gpr[n] = chance(r, 40) ? prog_address(p) : gen_value(r, true);
	s->gpr[R_SP] = (p->user ? PROG_USER_STACK_END : PROG_KERNEL_STACK_END) - 0x800;
	s->rip = PROG_CODE;
	s->rflags = 2 | (rnd(r) & FLAGS_ARITH);
	s->cr0 = 0x80050033 & ~(chance(r, 90) ? 0x40000u : 0); /* AM mostly off */
	s->cr3 = PROG_PML4;
	s->cr4 = 0x50668; /* DE, PAE, MCE, OSFXSR, OSXMMEXCPT, FSGSBASE, OSXSAVE */
	s->xcr0 = vec_xcr0_mask();
	s->efer = 0xd01;
	s->gdtr = (struct cpu_table){ .base = PROG_GDT, .limit = 0x4f };
	s->idtr = (struct cpu_table){ .base = PROG_IDT, .limit = 0xfff };
	s->tr = (struct cpu_segment){ .base = PROG_TSS, .limit = 0x67, .attr = 0x8b, .selector = 0x40 };
	s->ldtr = (struct cpu_segment){ .attr = SEG_ATTR_UNUSABLE };
	for (unsigned n = 0; n < SEG_COUNT; n++)
		s->seg[n] = p->user ? segment(SEL_USER_DATA, 0xc0f3) : segment(SEL_KERNEL_DATA, 0xc093);
	s->seg[SEG_CS] = p->user ? segment(SEL_USER, 0xa0fb) : segment(SEL_KERNEL, 0xa09b);
	s->seg[SEG_FS].base = below(r, 0x40);
	s->seg[SEG_GS].base = chance(r, 50) ? 0x1000 : 0;
	s->kernel_gs_base = 0x20;
	s->star = (uint64_t)SEL_KERNEL << 32 | (uint64_t)SEL_COMPAT << 48;
	s->lstar = common(prog_syscall);
	s->sfmask = chance(r, 50) ? 0x47700 : 0;
	gen_lanes(r, s->xsave + 160, 256);
	gen_lanes(r, s->xsave + 576, 256);
	s->xsave[512] = 7;
	if (chance(r, 20))
		for (unsigned n = 0; n < 8; n++)
			gen_float80(r, s->xsave + 32 + 16 * n);
}

void prog_image(struct prog *p)
{
	static const uint64_t gdt[] = { 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff, 0x00cffb000000ffff,
					0x00cff3000000ffff, 0x00affb000000ffff };
	struct rng *r = &p->rng;

	memset(p->image, 0, PROG_RAM);
	memset(p->image + PROG_CODE, 0x90, PROG_CODE_END - PROG_CODE);
	for (uint64_t at = PROG_DATA; at < PROG_DATA + PROG_DATA_PAGES * 4096; at += 64)
		gen_lanes(r, p->image + at, 64);
	memcpy(p->image + PROG_GDT, gdt, sizeof(gdt));
	put(p, PROG_GDT + 0x40, 0x67 | (uint64_t)(PROG_TSS & 0xffffff) << 16 | 0x8bull << 40);
	put(p, PROG_TSS + 4, PROG_KERNEL_STACK_END);
	put(p, PROG_TSS + 0x24, PROG_IST);
	handlers(p);
	tables(p);
	put(p, VAR_FUEL, 60 + below(r, 60));
	put(p, VAR_LOG, PROG_LOG);
	put(p, VAR_FLAGS_MASK, p->exact ? UINT64_MAX : ~(uint64_t)FLAGS_ARITH);
	state(p);
}
