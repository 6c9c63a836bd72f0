/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Far transfers, fast system calls, control and debug registers, ports, flags and the rest of sys_*.c. */
#include "sys_stubs.h"

/* ---- Far JMP, CALL, RET -------------------------------------------------- */

static void call_gate(enum mode mode, uint16_t code, unsigned access, unsigned params)
{
	poke(GDT + GATE, make_gate(code, TARGET, access, params), 8);
	if (mode == LONG || mode == COMPAT)
		poke(GDT + GATE + 8, 0, 8);
}

static struct outcome far_mem(unsigned ext, uint32_t off, uint16_t selector)
{
	v->gpr[R_BX] = 0x6000;
	poke(0x6000, off, 4);
	poke(0x6004, selector, 2);
	return RUN(0xff, 0x03 | ext << 3);
}

static void test_far_code(void **state)
{
	static const struct { enum mode mode; uint8_t cpl; uint16_t selector; uint32_t off; int vector; uint32_t error; } cases[] = {
		{ PROT, 0, 0, TARGET, EXC_GP, 0 }, { PROT, 0, GDT_END, TARGET, EXC_GP, GDT_END },
		{ PROT, 0, CODE32, TARGET, -1, 0 }, { PROT, 0, DATA32, TARGET, EXC_GP, DATA32 },
		{ PROT, 0, UCODE32, TARGET, EXC_GP, UCODE32 }, { PROT, 3, CODE32, TARGET, EXC_GP, CODE32 },
		{ PROT, 0, CODE32 | 3, TARGET, EXC_GP, CODE32 }, { PROT, 3, UCODE32, TARGET, -1, 0 },
		{ PROT, 3, CONF, TARGET, -1, 0 }, { PROT, 3, CONF | 3, TARGET, -1, 0 }, { PROT, 0, UCONF, TARGET, EXC_GP, UCONF },
		{ PROT, 0, ABSENTCODE, TARGET, EXC_NP, ABSENTCODE }, { PROT, 0, CODE16, 0x10000, EXC_GP, 0 },
		{ PROT, 0, LDTSEL, TARGET, EXC_GP, LDTSEL }, { PROT, 0, BUSYTSS, TARGET, EXC_GP, BUSYTSS },
		{ PROT, 0, OTHERTSS, TARGET, EXC_GP, OTHERTSS }, /* a switch: refused */
		{ PROT, 0, TASKGATE, TARGET, EXC_GP, OTHERTSS }, /* refused, naming the task */
		{ PROT, 3, TSSSEL, TARGET, EXC_GP, TSSSEL }, { LONG, 0, TASKGATE, TARGET, EXC_GP, TASKGATE },
		{ LONG, 0, TSSSEL, TARGET, EXC_GP, TSSSEL }, { LONG, 0, CODE64, TARGET, -1, 0 }, { LONG, 0, CODE32, TARGET, -1, 0 },
		{ LONG, 0, LD, TARGET, EXC_GP, LD }, { COMPAT, 0, CODE64, TARGET, -1, 0 }, { LONG, 3, CODE64, TARGET, EXC_GP, CODE64 },
	};

	for (unsigned n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
		for (unsigned ext = 3; ext <= 5; ext += 2) {
			struct outcome o;

			cpu(cases[n].mode, cases[n].cpl);
			o = far_mem(ext, cases[n].off, cases[n].selector);
			if (o.vector != cases[n].vector || o.error != cases[n].error)
				fail_msg("case %u /%u: %d(%04x)", n, ext, o.vector, o.error);
			if (o.vector >= 0) {
				assert_int_equal(v->gpr[R_SP], STACK);
				continue;
			}
			assert_int_equal(v->rip, cases[n].off);
			assert_int_equal(v->seg[SEG_CS].selector, (cases[n].selector & ~3) | cases[n].cpl);
			assert_int_equal(v->cpl, cases[n].cpl);
			if (ext == 3) {
				assert_int_equal(v->gpr[R_SP], STACK - 8);
				assert_int_equal(peek(STACK - 8, 4), CODE + 2);
			}
		}
	}
	/* Mode follows the segment. */
	cpu(LONG, 0);
	assert_done(far_mem(5, TARGET, CODE32));
	assert_int_equal(v->mode, MODE_32);
	assert_int_equal(v->stack_size, 4);
	assert_done(RUN(0xea, 0x00, 0x00, 0x01, 0x00, CODE64, 0)); /* JMP CODE64:10000 */
	assert_int_equal(v->mode, MODE_64);
	assert_int_equal(v->rip, 0x10000);
	/* m16:64: Intel takes ten bytes, AMD six. */
	cpu(LONG, 0);
	v->gpr[R_BX] = 0x6000;
	poke(0x6000, 0xffff900000000000, 8);
	poke(0x6008, CODE64, 2);
	assert_done(RUN(0x48, 0xff, 0x2b));
	assert_int_equal(v->rip, 0xffff900000000000);
	v->rip = CODE;
	poke(0x6000, 0x0000900000000000, 8);
	assert_fault(RUN(0x48, 0xff, 0x2b), EXC_GP, 0);
	amd = true;
	poke(0x6000, TARGET, 4);
	poke(0x6004, CODE64, 2);
	assert_done(RUN(0x48, 0xff, 0x1b)); /* CALL: pushes quadwords all the same */
	assert_int_equal(v->rip, TARGET);
	assert_int_equal(v->gpr[R_SP], STACK - 16);
	/* Register forms; real mode */
	assert_fault(RUN(0xff, 0xeb), EXC_UD, 0);
	cpu(REAL, 0);
	assert_done(RUN(0x9a, 0x34, 0x12, 0x00, 0x20));
	assert_int_equal(v->seg[SEG_CS].base, 0x20000);
	assert_int_equal(v->rip, 0x1234);
	assert_int_equal(peek(STACK - 4, 2), 0x105);
	assert_int_equal(peek(STACK - 2, 2), CODE >> 4);
	assert_done(RUN(0xca, 0x06, 0x00)); /* RETF 6 */
	assert_int_equal(v->rip, 0x105);
	assert_int_equal(v->seg[SEG_CS].base, CODE);
	assert_int_equal(v->gpr[R_SP], STACK + 6);
	assert_fault(RUN(0x66, 0xea, 0x00, 0x00, 0x01, 0x00, 0x00, 0x20), EXC_GP, 0);
}

static void test_call_gates(void **state)
{
	/* Level 3 to 0 with three parameters (SDM vol. 3 figure 5-14) */
	cpu(PROT, 3);
	call_gate(PROT, CODE32, 0xec, 3);
	poke(STACK, 0x11, 4);
	poke(STACK + 4, 0x22, 4);
	poke(STACK + 8, 0x33, 4);
	kernel_at = KSTACK - 0x100;
	kernel_size = 0x100;
	assert_done(far_mem(3, 0xdead, GATE | 3));
	assert_int_equal(v->rip, TARGET);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->seg[SEG_CS].selector, CODE32);
	assert_int_equal(v->seg[SEG_SS].selector, DATA32);
	assert_int_equal(v->gpr[R_SP], KSTACK - 28);
	assert_int_equal(peek(KSTACK - 4, 4), UDATA32 | 3);
	assert_int_equal(peek(KSTACK - 8, 4), STACK);
	assert_int_equal(peek(KSTACK - 12, 4), 0x33);
	assert_int_equal(peek(KSTACK - 16, 4), 0x22);
	assert_int_equal(peek(KSTACK - 20, 4), 0x11);
	assert_int_equal(peek(KSTACK - 24, 4), UCODE32 | 3);
	assert_int_equal(peek(KSTACK - 28, 4), CODE + 2);
	/* RETF 12 releases them on both stacks. */
	v->seg[SEG_DS] = desc_segment(peek(GDT + DATA32, 8), DATA32);
	assert_done(RUN(0xca, 0x0c, 0x00));
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->rip, CODE + 2);
	assert_int_equal(v->gpr[R_SP], STACK + 12);
	assert_int_equal(v->seg[SEG_SS].selector, UDATA32 | 3);
	assert_int_equal(v->seg[SEG_DS].selector, 0);
	/* 286 gate */
	cpu(PROT, 3);
	call_gate(PROT, CODE32, 0xe4, 1);
	poke(STACK, 0x1234, 2);
	assert_done(far_mem(3, 0, GATE));
	assert_int_equal(v->rip, TARGET & 0xffff);
	assert_int_equal(v->gpr[R_SP], KSTACK - 10);
	assert_int_equal(peek(KSTACK - 6, 2), 0x1234);
	/* Same level: no switch, no parameters */
	cpu(PROT, 0);
	call_gate(PROT, CODE32, 0x8c, 3);
	assert_done(far_mem(3, 0, GATE));
	assert_int_equal(v->gpr[R_SP], STACK - 8);
	assert_int_equal(v->rip, TARGET);
	/* 64-bit gates, from compatibility mode too */
	for (enum mode mode = COMPAT; mode <= LONG; mode++) {
		cpu(mode, 3);
		call_gate(LONG, CODE64, 0xec, 7);
		poke(GDT + GATE + 8, 0xffff8000, 8);
		assert_done(far_mem(3, 0, GATE | 3));
		assert_int_equal(v->rip, 0xffff800000000000 | TARGET);
		assert_int_equal(v->mode, MODE_64);
		assert_int_equal(v->cpl, 0);
		assert_int_equal(v->seg[SEG_SS].selector, 0);
		assert_int_equal(v->gpr[R_SP], KSTACK - 32);
		assert_int_equal(peek(KSTACK - 8, 8), UDATA32 | 3);
		assert_int_equal(peek(KSTACK - 16, 8), STACK);
		assert_int_equal(peek(KSTACK - 24, 8), mode == LONG ? UCODE64 | 3 : UCODE32 | 3);
		assert_int_equal(peek(KSTACK - 32, 8), CODE + 2);
		assert_done(RUN(0x48, 0xcb));
		assert_int_equal(v->cpl, 3);
		assert_int_equal(v->gpr[R_SP], STACK);
		assert_int_equal(v->mode, mode == LONG ? MODE_64 : MODE_32);
	}
}

static void test_call_gate_faults(void **state)
{
	static const struct { enum mode mode; uint8_t cpl; uint16_t selector, code; uint8_t access, ext; int vector; uint32_t error; } cases[] = {
		{ PROT, 3, GATE | 3, CODE32, 0x8c, 3, EXC_GP, GATE }, { PROT, 0, GATE | 3, CODE32, 0xcc, 3, EXC_GP, GATE },
		{ PROT, 3, GATE | 3, CODE32, 0x6c, 3, EXC_NP, GATE }, { PROT, 3, GATE | 3, 0, 0xec, 3, EXC_GP, 0 },
		{ PROT, 3, GATE | 3, GDT_END, 0xec, 3, EXC_GP, GDT_END }, { PROT, 3, GATE | 3, DATA32, 0xec, 3, EXC_GP, DATA32 },
		{ PROT, 0, GATE, UCODE32, 0xec, 3, EXC_GP, UCODE32 }, { PROT, 3, GATE | 3, ABSENTCODE, 0xec, 3, EXC_NP, ABSENTCODE },
		{ PROT, 3, GATE | 3, CODE32, 0xec, 5, EXC_GP, CODE32 }, /* JMP does not change the level */
		{ PROT, 3, GATE | 3, CONF, 0xec, 5, -1, 0 }, { PROT, 3, GATE | 3, UCODE32, 0xec, 5, -1, 0 },
		{ LONG, 3, GATE | 3, CODE32, 0xec, 3, EXC_GP, CODE32 }, { LONG, 3, GATE | 3, LD, 0xec, 3, EXC_GP, LD },
		{ LONG, 3, GATE | 3, CODE64, 0xe4, 3, EXC_GP, GATE }, { LONG, 3, GATE | 3, CODE64, 0xec, 5, EXC_GP, CODE64 },
		{ LONG, 3, GATE | 3, UCODE64, 0xec, 5, -1, 0 },
	};

	for (unsigned n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
		struct outcome o;

		cpu(cases[n].mode, cases[n].cpl);
		call_gate(cases[n].mode, cases[n].code, cases[n].access, 0);
		o = far_mem(cases[n].ext, 0, cases[n].selector);
		if (o.vector != cases[n].vector || o.error != cases[n].error)
			fail_msg("case %u: %d(%04x)", n, o.vector, o.error);
	}
	/* Upper half: type bits must be zero, and it must lie within the table. */
	cpu(LONG, 3);
	call_gate(LONG, CODE64, 0xec, 0);
	poke(GDT + GATE + 8, 1ull << 40, 8);
	assert_fault(far_mem(3, 0, GATE | 3), EXC_GP, GATE);
	/* The inner stack: #TS and #SS with its selector */
	cpu(PROT, 3);
	call_gate(PROT, CODE32, 0xec, 0);
	poke(TSS + 8, UDATA32 | 3, 4);
	assert_fault(far_mem(3, 0, GATE), EXC_TS, UDATA32);
	poke(TSS + 8, ABSENT, 4);
	assert_fault(far_mem(3, 0, GATE), EXC_SS, ABSENT);
	poke(TSS + 8, FRESH, 4);
	poke(TSS + 4, 0x2000, 4);
	assert_fault(far_mem(3, 0, GATE), EXC_SS, FRESH);
	v->tr.limit = 8;
	assert_fault(far_mem(3, 0, GATE), EXC_TS, TSSSEL);
	/* Page fault on the inner stack is a supervisor's write; the level comes back. */
	cpu(PROT, 3);
	call_gate(PROT, CODE32, 0xec, 0);
	absent_at = KSTACK - 4;
	absent_size = 4;
	assert_fault(far_mem(3, 0, GATE), EXC_PF, 2);
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->tlb_view, TLB_USER);
	assert_int_equal(v->gpr[R_SP], STACK);
}

static void test_retf(void **state)
{
	static const struct { enum mode mode; uint8_t cpl; uint16_t cs, ss; int vector; uint32_t error; } cases[] = {
		{ PROT, 0, CODE32, 0, -1, 0 }, { PROT, 0, 0, 0, EXC_GP, 0 }, { PROT, 3, CODE32, 0, EXC_GP, CODE32 },
		{ PROT, 0, UCODE32 | 3, UDATA32 | 3, -1, 0 }, { PROT, 0, UCODE32 | 3, 0, EXC_GP, 0 },
		{ PROT, 0, UCODE32 | 3, DATA32, EXC_GP, DATA32 }, { PROT, 0, UCODE32 | 3, UABSENT | 3, EXC_SS, UABSENT },
		{ PROT, 0, UCODE32, 0, EXC_GP, UCODE32 }, { PROT, 0, CONF | 3, UDATA32 | 3, -1, 0 },
		{ PROT, 0, ABSENTCODE, 0, EXC_NP, ABSENTCODE }, { PROT, 0, DATA32, 0, EXC_GP, DATA32 },
		{ LONG, 0, UCODE64 | 3, UDATA32 | 3, -1, 0 }, { LONG, 0, UCODE64 | 3, 0, EXC_GP, 0 }, { LONG, 0, LD, 0, EXC_GP, LD },
		{ LONG, 0, CODE1 | 1, 0, EXC_GP, 0 }, /* null SS needs 64-bit code */
	};

	for (unsigned n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
		unsigned size = cases[n].mode == LONG ? 8 : 4;
		struct outcome o;

		cpu(cases[n].mode, cases[n].cpl);
		poke(STACK, TARGET, size);
		poke(STACK + size, cases[n].cs, size);
		poke(STACK + 2 * size, 0x7770, size);
		poke(STACK + 3 * size, cases[n].ss, size);
		o = size == 8 ? RUN(0x48, 0xcb) : RUN(0xcb);
		if (o.vector != cases[n].vector || o.error != cases[n].error)
			fail_msg("case %u: %d(%04x)", n, o.vector, o.error);
		if (o.vector >= 0)
			assert_int_equal(v->gpr[R_SP], STACK);
		else
			assert_int_equal(v->gpr[R_SP], cases[n].ss ? 0x7770 : STACK + 2 * size);
	}
	/* A null SS is allowed to 64-bit levels 1 and 2. */
	cpu(LONG, 0);
	poke(GDT + CODE1, make_desc(0, 0xfffff, 0xbb, 0xa), 8);
	poke(STACK, TARGET, 8);
	poke(STACK + 8, CODE1 | 1, 8);
	poke(STACK + 16, 0x7770, 8);
	poke(STACK + 24, 1, 8);
	assert_done(RUN(0x48, 0xcb));
	assert_int_equal(v->cpl, 1);
}

/* ---- SYSCALL and company ------------------------------------------------- */

#define LSTAR 0xffffffff80001000ull
static void syscall_msrs(void)
{
	v->star = (uint64_t)(UCODE32 | 3) << 48 | (uint64_t)CODE32 << 32 | 0x4000;
	v->lstar = LSTAR;
	v->cstar = 0xffffffff80002000ull;
	v->sfmask = FL_IF | FL_TF | FL_DF | FL_AC | FL_NT;
	v->sysenter_cs = CODE32;
	v->sysenter_eip = 0xffffffff80003000ull;
	v->sysenter_esp = 0xffffffff80009000ull;
}

static void test_syscall(void **state)
{
	cpu(LONG, 3);
	syscall_msrs();
	v->rflags |= FL_IF | FL_DF | FL_CF | FL_AC | FL_RF;
	v->cr0 |= CR0_AM;
	v->cr4 |= CR4_SMAP;
	soft_update_mode(v);
	assert_done(RUN(0x0f, 0x05));
	assert_int_equal(v->rip, LSTAR);
	assert_int_equal(v->gpr[R_CX], CODE + 2);
	assert_int_equal(v->gpr[R_11], FL_IF | FL_DF | FL_CF | FL_AC | 2);
	assert_int_equal(v->rflags, FL_CF | 2);
	assert_int_equal(v->seg[SEG_CS].selector, CODE32);
	assert_int_equal(v->seg[SEG_CS].attr, 0xa09b);
	assert_int_equal(v->seg[SEG_SS].selector, DATA32);
	assert_int_equal(v->seg[SEG_SS].attr, 0xc093);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->tlb_view, TLB_KERNEL);
	assert_int_equal(v->ac_check, 0);
	assert_int_equal(v->gpr[R_SP], STACK);
	/* SYSRETQ */
	v->gpr[R_11] = 0x3c7fd7 | FL_RF | FL_VM;
	assert_done(RUN(0x48, 0x0f, 0x07));
	assert_int_equal(v->rip, CODE + 2);
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->rflags, 0x247fd7);
	assert_int_equal(v->seg[SEG_CS].selector, (UCODE32 + 16) | 3);
	assert_int_equal(v->seg[SEG_CS].attr, 0xa0fb);
	assert_int_equal(v->seg[SEG_SS].selector, (UCODE32 + 8) | 3);
	assert_int_equal(v->seg[SEG_SS].attr, 0xc0f3);
	assert_int_equal(v->mode, MODE_64);
	assert_int_equal(v->ac_check, 1);
	assert_int_equal(v->tlb_view, TLB_SLOW);
	/* TF loaded by SYSRET traps at once. */
	assert_true(excp_poll(v));
	assert_int_equal(v->event.payload, DR6_BS);
	/* TF cleared by SYSCALL does not trap. */
	cpu(LONG, 3);
	syscall_msrs();
	v->rflags |= FL_TF;
	soft_request(v, REQ_TRAP);
	assert_false(excp_poll(v));
	assert_done(RUN(0x0f, 0x05));
	assert_false(excp_poll(v));
	/* ... and one left set does. */
	cpu(LONG, 3);
	syscall_msrs();
	v->sfmask = 0;
	v->rflags |= FL_TF;
	soft_request(v, REQ_TRAP);
	assert_false(excp_poll(v));
	assert_done(RUN(0x0f, 0x05));
	assert_true(excp_poll(v));
	/* SYSRETL to compatibility mode */
	cpu(LONG, 0);
	syscall_msrs();
	v->gpr[R_CX] = 0x1234500000000 | TARGET;
	v->gpr[R_11] = FL_IF;
	assert_done(RUN(0x0f, 0x07));
	assert_int_equal(v->rip, TARGET);
	assert_int_equal(v->mode, MODE_32);
	assert_int_equal(v->seg[SEG_CS].selector, UCODE32 | 3);
	assert_int_equal(v->seg[SEG_CS].attr, 0xc0fb);
	/* IF comes back: a held interrupt is asked for. */
	cpu(LONG, 0);
	syscall_msrs();
	v->irq_held = 1;
	v->gpr[R_CX] = TARGET;
	v->gpr[R_11] = FL_IF;
	assert_done(RUN(0x48, 0x0f, 0x07));
	assert_true(atomic_load(&v->request) & REQ_IRQ);
}

static void test_syscall_legality(void **state)
{
	enum { SYSCALL, SYSRET, SYSENTER, SYSEXIT };
	/* Columns: Intel, AMD. -1 works. */
	static const struct { uint8_t op; enum mode mode; uint8_t cpl; int8_t vector[2]; } cases[] = {
		{ SYSCALL, LONG, 3, { -1, -1 } },	  { SYSCALL, LONG, 0, { -1, -1 } },
		{ SYSCALL, COMPAT, 3, { EXC_UD, -1 } },	  { SYSCALL, PROT, 3, { EXC_UD, -1 } },
		{ SYSCALL, REAL, 0, { EXC_UD, EXC_UD } }, { SYSCALL, VM86, 3, { EXC_UD, EXC_UD } },
		{ SYSRET, LONG, 0, { -1, -1 } },	  { SYSRET, LONG, 3, { EXC_GP, EXC_GP } },
		{ SYSRET, COMPAT, 0, { EXC_UD, -1 } },	  { SYSRET, COMPAT, 3, { EXC_UD, EXC_GP } },
		{ SYSRET, PROT, 0, { EXC_UD, -1 } },	  { SYSRET, REAL, 0, { EXC_UD, EXC_GP } },
		{ SYSENTER, LONG, 3, { -1, EXC_UD } },	  { SYSENTER, COMPAT, 3, { -1, EXC_UD } },
		{ SYSENTER, PROT, 3, { -1, -1 } },	  { SYSENTER, REAL, 0, { EXC_GP, EXC_GP } },
		{ SYSEXIT, LONG, 0, { -1, EXC_UD } },	  { SYSEXIT, COMPAT, 0, { -1, EXC_UD } },
		{ SYSEXIT, PROT, 0, { -1, -1 } },	  { SYSEXIT, PROT, 3, { EXC_GP, EXC_GP } },
		{ SYSEXIT, REAL, 0, { EXC_GP, EXC_GP } }, { SYSEXIT, LONG, 3, { EXC_GP, EXC_UD } },
	};
	static const uint8_t opcodes[] = { 0x05, 0x07, 0x34, 0x35 };

	for (unsigned n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
		for (int vendor = 0; vendor < 2; vendor++) {
			struct outcome o;

			cpu(cases[n].mode, cases[n].cpl);
			amd = vendor;
			v->efer |= EFER_SCE;
			syscall_msrs();
			v->gpr[R_CX] = v->gpr[R_DX] = TARGET;
			o = RUN(0x0f, opcodes[cases[n].op]);
			if (o.vector != cases[n].vector[vendor] || o.error)
				fail_msg("case %u on %s: %d", n, vendor ? "AMD" : "Intel", o.vector);
		}
	}
	cpu(LONG, 3);
	v->efer &= ~(uint64_t)EFER_SCE;
	assert_fault(RUN(0x0f, 0x05), EXC_UD, 0);
	cpu(LONG, 0);
	v->efer &= ~(uint64_t)EFER_SCE;
	assert_fault(RUN(0x48, 0x0f, 0x07), EXC_UD, 0);
	/* SYSRET to an address that is not canonical */
	cpu(LONG, 0);
	syscall_msrs();
	v->gpr[R_CX] = 1ull << 47;
	assert_fault(RUN(0x48, 0x0f, 0x07), EXC_GP, 0);
	amd = true;
	assert_done(RUN(0x48, 0x0f, 0x07));
	assert_int_equal(v->rip, 1ull << 47);
	/* SYSENTER_CS null */
	cpu(PROT, 3);
	v->sysenter_cs = 3;
	assert_fault(RUN(0x0f, 0x34), EXC_GP, 0);
	/* Legacy SYSCALL on AMD: EIP from STAR, IF cleared, R11 untouched */
	cpu(PROT, 3);
	amd = true;
	syscall_msrs();
	v->efer |= EFER_SCE;
	v->rflags |= FL_IF | FL_DF;
	assert_done(RUN(0x0f, 0x05));
	assert_int_equal(v->rip, 0x4000);
	assert_int_equal(v->rflags, FL_DF | 2);
	assert_int_equal(v->gpr[R_CX], CODE + 2);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->mode, MODE_32);
	assert_done(RUN(0x0f, 0x07));
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->rflags, FL_DF | FL_IF | 2);
	/* Compatibility mode on AMD goes to CSTAR. */
	cpu(COMPAT, 3);
	amd = true;
	syscall_msrs();
	assert_done(RUN(0x0f, 0x05));
	assert_int_equal(v->rip, 0xffffffff80002000);
	assert_int_equal(v->mode, MODE_64);
}

static void test_sysenter(void **state)
{
	cpu(PROT, 3);
	syscall_msrs();
	v->rflags |= FL_IF;
	assert_done(RUN(0x0f, 0x34));
	assert_int_equal(v->rip, 0x80003000);
	assert_int_equal(v->gpr[R_SP], 0x80009000);
	assert_int_equal(v->rflags, 2);
	assert_int_equal(v->seg[SEG_CS].attr, 0xc09b);
	assert_int_equal(v->seg[SEG_SS].selector, DATA32);
	assert_int_equal(v->cpl, 0);
	v->gpr[R_CX] = 0x7000;
	v->gpr[R_DX] = TARGET;
	assert_done(RUN(0x0f, 0x35));
	assert_int_equal(v->rip, TARGET);
	assert_int_equal(v->gpr[R_SP], 0x7000);
	assert_int_equal(v->seg[SEG_CS].selector, (CODE32 + 16) | 3);
	assert_int_equal(v->seg[SEG_SS].selector, (CODE32 + 24) | 3);
	assert_int_equal(v->cpl, 3);
	cpu(LONG, 3);
	syscall_msrs();
	assert_done(RUN(0x0f, 0x34));
	assert_int_equal(v->rip, 0xffffffff80003000);
	assert_int_equal(v->gpr[R_SP], 0xffffffff80009000);
	assert_int_equal(v->mode, MODE_64);
	v->gpr[R_CX] = 0x7000;
	v->gpr[R_DX] = 1ull << 47;
	assert_fault(RUN(0x48, 0x0f, 0x35), EXC_GP, 0);
	v->gpr[R_DX] = TARGET;
	assert_done(RUN(0x48, 0x0f, 0x35));
	assert_int_equal(v->seg[SEG_CS].selector, (CODE32 + 32) | 3);
	assert_int_equal(v->mode, MODE_64);
	assert_int_equal(v->cpl, 3);
}

static void test_bases(void **state)
{
	cpu(LONG, 0);
	v->seg[SEG_GS].base = 1;
	v->kernel_gs_base = 0xffff800000000000;
	assert_done(RUN(0x0f, 0x01, 0xf8)); /* SWAPGS */
	assert_int_equal(v->seg[SEG_GS].base, 0xffff800000000000);
	assert_int_equal(v->kernel_gs_base, 1);
	v->gpr[R_AX] = 0x123456789a;
	assert_fault(RUN(0xf3, 0x48, 0x0f, 0xae, 0xd0), EXC_UD, 0); /* WRFSBASE without CR4.FSGSBASE */
	v->cr4 |= CR4_FSGSBASE;
	assert_done(RUN(0xf3, 0x48, 0x0f, 0xae, 0xd0));
	assert_int_equal(v->seg[SEG_FS].base, 0x123456789a);
	assert_done(RUN(0xf3, 0x0f, 0xae, 0xd8)); /* WRGSBASE EAX */
	assert_int_equal(v->seg[SEG_GS].base, 0x3456789a);
	assert_done(RUN(0xf3, 0x48, 0x0f, 0xae, 0xc1)); /* RDFSBASE RCX */
	assert_int_equal(v->gpr[R_CX], 0x123456789a);
	assert_done(RUN(0xf3, 0x0f, 0xae, 0xc9)); /* RDGSBASE ECX */
	assert_int_equal(v->gpr[R_CX], 0x3456789a);
	v->gpr[R_AX] = 1ull << 47;
	assert_fault(RUN(0xf3, 0x48, 0x0f, 0xae, 0xd0), EXC_GP, 0);
	cpu(LONG, 3);
	assert_fault(RUN(0x0f, 0x01, 0xf8), EXC_GP, 0);
	cpu(COMPAT, 0);
	assert_fault(RUN(0x0f, 0x01, 0xf8), EXC_UD, 0);
	v->cr4 |= CR4_FSGSBASE;
	assert_fault(RUN(0xf3, 0x0f, 0xae, 0xc1), EXC_UD, 0);
}

/* ---- Control registers --------------------------------------------------- */

static struct outcome mov_cr(unsigned cr, uint64_t value)
{
	v->gpr[R_AX] = value;
	return cr == 8 ? RUN(0x44, 0x0f, 0x22, 0xc0) : RUN(0x0f, 0x22, 0xc0 | cr << 3);
}

static struct outcome wrmsr(uint32_t index, uint64_t value)
{
	v->gpr[R_CX] = index;
	v->gpr[R_AX] = (uint32_t)value;
	v->gpr[R_DX] = value >> 32;
	return RUN(0x0f, 0x30);
}

#define EFER 0xc0000080u

static void test_cr0(void **state)
{
	cpu(PROT, 0);
	assert_fault(mov_cr(0, CR0_PG), EXC_GP, 0);
	assert_fault(mov_cr(0, CR0_PE | CR0_NW), EXC_GP, 0);
	assert_int_equal(v->cr0, CR0_PE | CR0_ET | CR0_NE);
	assert_done(mov_cr(0, CR0_PE | CR0_CD | CR0_NW | 0x1ff8ffc0));
	assert_int_equal(v->cr0, CR0_PE | CR0_ET | CR0_CD | CR0_NW);
	cpu(LONG, 0);
	assert_fault(mov_cr(0, v->cr0 | 1ull << 32), EXC_GP, 0);
	assert_fault(mov_cr(0, CR0_PE), EXC_GP, 0); /* PG off in 64-bit mode */
	mode_changes = 0;
	assert_done(mov_cr(0, v->cr0 | CR0_WP));
	assert_int_equal(mode_changes, 1);
	assert_done(mov_cr(0, v->cr0 | CR0_TS));
	assert_int_equal(mode_changes, 1); /* TS changes no translation */
	assert_done(RUN(0x0f, 0x06)); /* CLTS */
	assert_int_equal(v->cr0 & CR0_TS, 0);
	cpu(LONG, 3);
	assert_fault(mov_cr(0, v->cr0), EXC_GP, 0);
	assert_fault(RUN(0x0f, 0x06), EXC_GP, 0);
	assert_fault(RUN(0x0f, 0x20, 0xc0), EXC_GP, 0);
	assert_fault(RUN(0x0f, 0x22, 0xc8), EXC_UD, 0); /* CR1 */
	/* LMSW sets PE and does not clear it. */
	cpu(REAL, 0);
	v->gpr[R_AX] = 0xfff1;
	assert_done(RUN(0x0f, 0x01, 0xf0));
	assert_int_equal(v->cr0, CR0_ET | CR0_NE | CR0_PE);
	v->gpr[R_AX] = CR0_MP | CR0_TS;
	assert_done(RUN(0x0f, 0x01, 0xf0));
	assert_int_equal(v->cr0, CR0_ET | CR0_NE | CR0_PE | CR0_MP | CR0_TS);
	/* SMSW */
	cpu(LONG, 3);
	v->gpr[R_AX] = UINT64_MAX;
	assert_done(RUN(0x66, 0x0f, 0x01, 0xe0));
	assert_int_equal(v->gpr[R_AX], 0xffffffffffff0000 | (v->cr0 & 0xffff));
	assert_done(RUN(0x0f, 0x01, 0xe0));
	assert_int_equal(v->gpr[R_AX], v->cr0);
	v->cr4 |= CR4_UMIP;
	assert_fault(RUN(0x0f, 0x01, 0xe0), EXC_GP, 0);
}

static void test_long_mode_switch(void **state)
{
	/* On: PAE, LME, PG; off by way of compatibility mode (SDM vol. 3 §9.8.5) */
	cpu(PROT, 0);
	assert_done(wrmsr(EFER, EFER_LME));
	assert_fault(mov_cr(0, v->cr0 | CR0_PG), EXC_GP, 0); /* no PAE */
	assert_done(mov_cr(4, CR4_PAE));
	v->tr.attr = 0x83;
	assert_fault(mov_cr(0, v->cr0 | CR0_PG), EXC_GP, 0); /* 286 TSS */
	v->tr.attr = 0x8b;
	v->seg[SEG_CS].attr |= SEG_ATTR_L;
	assert_fault(mov_cr(0, v->cr0 | CR0_PG), EXC_GP, 0);
	v->seg[SEG_CS].attr &= ~SEG_ATTR_L;
	assert_done(mov_cr(0, v->cr0 | CR0_PG));
	assert_int_equal(v->efer, EFER_LME | EFER_LMA);
	assert_int_equal(v->long_mode, 1);
	assert_int_equal(v->mode, MODE_32);
	assert_fault(mov_cr(4, 0), EXC_GP, 0); /* PAE is needed */
	assert_fault(wrmsr(EFER, 0), EXC_GP, 0); /* LME while paging */
	assert_done(wrmsr(EFER, EFER_LME | EFER_SCE)); /* LMA is kept whatever is written */
	assert_int_equal(v->efer, EFER_LME | EFER_LMA | EFER_SCE);
	assert_done(RUN(0xea, 0x00, 0x00, 0x02, 0x00, CODE64, 0));
	assert_int_equal(v->mode, MODE_64);
	assert_fault(mov_cr(0, v->cr0 & ~(uint64_t)CR0_PG), EXC_GP, 0);
	assert_done(far_mem(5, TARGET, CODE32));
	assert_done(mov_cr(0, v->cr0 & ~(uint64_t)CR0_PG));
	assert_int_equal(v->efer, EFER_LME | EFER_SCE);
	assert_int_equal(v->long_mode, 0);
	assert_done(wrmsr(EFER, 0));
	assert_int_equal(v->efer, 0);
	/* PDPTEs with reserved bits: #GP(0), nothing changed */
	cpu(PROT, 0);
	bad_pdptes = true;
	assert_done(mov_cr(4, CR4_PAE));
	assert_fault(mov_cr(0, v->cr0 | CR0_PG), EXC_GP, 0);
	assert_int_equal(v->cr0 & CR0_PG, 0);
	bad_pdptes = false;
	assert_done(mov_cr(0, v->cr0 | CR0_PG));
	bad_pdptes = true;
	assert_fault(mov_cr(4, CR4_PAE | CR4_PGE), EXC_GP, 0);
	assert_int_equal(v->cr4, CR4_PAE);
	bad_pdptes = false;
}

static void test_cr4_efer(void **state)
{
	/* Each feature bit of CR4 needs its CPUID bit; VME, PVI, VMXE, PKE, LA57 never exist. */
	static const struct { uint32_t *leaf; uint8_t bit; uint32_t cr4; } features[] = {
		{ &cpuid_1[3], 4, CR4_TSD }, { &cpuid_1[3], 2, CR4_DE }, { &cpuid_1[3], 3, CR4_PSE }, { &cpuid_1[3], 6, CR4_PAE },
		{ &cpuid_1[3], 7, CR4_MCE }, { &cpuid_1[3], 13, CR4_PGE }, { &cpuid_1[3], 24, CR4_OSFXSR },
		{ &cpuid_1[3], 25, CR4_OSXMMEXCPT }, { &cpuid_1[2], 26, CR4_OSXSAVE }, { &cpuid_7[1], 0, CR4_FSGSBASE },
		{ &cpuid_7[1], 7, CR4_SMEP }, { &cpuid_7[1], 20, CR4_SMAP }, { &cpuid_7[2], 2, CR4_UMIP },
	};

	for (unsigned n = 0; n < sizeof(features) / sizeof(features[0]); n++) {
		cpu(PROT, 0);
		assert_done(mov_cr(4, features[n].cr4));
		assert_int_equal(v->cr4, features[n].cr4);
		assert_done(mov_cr(4, 0));
		*features[n].leaf &= ~(1u << features[n].bit);
		assert_fault(mov_cr(4, features[n].cr4), EXC_GP, 0);
		*features[n].leaf |= 1u << features[n].bit;
	}
	cpu(LONG, 0);
	for (unsigned bit = 0; bit < 64; bit++) {
		uint64_t known = 0x370ffc | 0x40000;

		if (1ull << bit == CR4_PCIDE || known >> bit & 1)
			continue;
		assert_fault(mov_cr(4, CR4_PAE | 1ull << bit), EXC_GP, 0);
	}
	/* PCIDE: only in long mode, with CR3[11:0] clear; then PG must stay. */
	v->cr3 = 0x1018;
	assert_fault(mov_cr(4, CR4_PAE | CR4_PCIDE), EXC_GP, 0);
	v->cr3 = 0x1000;
	assert_done(mov_cr(4, CR4_PAE | CR4_PCIDE));
	v->cr3 = 0x1001;
	assert_done(mov_cr(4, CR4_PAE | CR4_PCIDE | CR4_PGE)); /* already set: CR3 is free */
	assert_done(far_mem(5, TARGET, CODE32));
	assert_fault(mov_cr(0, CR0_PE), EXC_GP, 0);
	cpu(PROT, 0);
	assert_fault(mov_cr(4, CR4_PAE | CR4_PCIDE), EXC_GP, 0);
	/* EFER */
	cpu(LONG, 0);
	assert_fault(wrmsr(EFER, EFER_LME | 1u << 12), EXC_GP, 0);
	assert_fault(wrmsr(EFER, EFER_LME | 1ull << 40), EXC_GP, 0);
	mode_changes = 0;
	assert_done(wrmsr(EFER, EFER_LME | EFER_NXE));
	assert_int_equal(mode_changes, 1);
	/* SMAP changes the view at once. */
	v->rflags |= FL_AC;
	assert_done(mov_cr(4, v->cr4 | CR4_SMAP));
	assert_int_equal(v->tlb_view, TLB_KERNEL_AC);
	assert_done(RUN(0x0f, 0x01, 0xca)); /* CLAC */
	assert_int_equal(v->tlb_view, TLB_KERNEL);
	assert_done(RUN(0x0f, 0x01, 0xcb)); /* STAC */
	assert_int_equal(v->tlb_view, TLB_KERNEL_AC);
	cpu(LONG, 3);
	assert_fault(RUN(0x0f, 0x01, 0xcb), EXC_UD, 0);
}

static void test_other_crs(void **state)
{
	cpu(LONG, 0);
	assert_done(mov_cr(2, 0xffff800000001234));
	assert_done(RUN(0x0f, 0x20, 0xd1)); /* MOV RCX, CR2 */
	assert_int_equal(v->gpr[R_CX], 0xffff800000001234);
	assert_done(mov_cr(3, 0x5000));
	assert_int_equal(v->cr3, 0x5000);
	assert_done(mov_cr(8, 9));
	assert_int_equal(cr8, 9);
	assert_fault(mov_cr(8, 16), EXC_GP, 0);
	assert_done(RUN(0x44, 0x0f, 0x20, 0xc1));
	assert_int_equal(v->gpr[R_CX], 9);
	cpu(PROT, 0);
	v->cr0 |= CR0_PG;
	v->gpr[R_AX] = 0xffffffff00000000;
	assert_done(RUN(0x0f, 0x20, 0xc0));
	assert_int_equal(v->gpr[R_AX], v->cr0);
	/* XCR0 */
	cpu(LONG, 0);
	v->gpr[R_CX] = 0;
	v->gpr[R_AX] = 7;
	v->gpr[R_DX] = 0;
	assert_fault(RUN(0x0f, 0x01, 0xd1), EXC_UD, 0);
	v->cr4 |= CR4_OSXSAVE;
	assert_done(RUN(0x0f, 0x01, 0xd1));
	assert_int_equal(v->xcr0, 7);
	v->gpr[R_CX] = 1;
	assert_done(RUN(0x0f, 0x01, 0xd0));
	assert_int_equal(v->gpr[R_AX], 5); /* XINUSE of the stub */
	assert_fault(RUN(0x66, 0x0f, 0x01, 0xd0), EXC_UD, 0);
	assert_fault(RUN(0xf3, 0x0f, 0x01, 0xd1), EXC_UD, 0);
	assert_fault(RUN(0xf2, 0x0f, 0x01, 0xcb), EXC_UD, 0);
	for (unsigned bad = 0; bad < 4; bad++) {
		static const uint8_t values[] = { 6, 5, 0, 0xf };

		v->gpr[R_CX] = 0;
		v->gpr[R_AX] = values[bad];
		v->gpr[R_DX] = 0;
		assert_fault(RUN(0x0f, 0x01, 0xd1), EXC_GP, 0);
	}
	v->gpr[R_CX] = 2;
	assert_fault(RUN(0x0f, 0x01, 0xd0), EXC_GP, 0);
	cpu(LONG, 3);
	v->cr4 |= CR4_OSXSAVE;
	assert_fault(RUN(0x0f, 0x01, 0xd1), EXC_GP, 0);
}

static void test_drs(void **state)
{
	cpu(LONG, 0);
	v->gpr[R_AX] = 0xffffffff;
	assert_done(RUN(0x0f, 0x23, 0xf0)); /* DR6 */
	assert_int_equal(v->dr[6], 0xffffefff);
	v->gpr[R_AX] = 0;
	assert_done(RUN(0x0f, 0x23, 0xf0));
	assert_int_equal(v->dr[6], 0xffff0ff0);
	assert_done(RUN(0x0f, 0x23, 0xf8));
	assert_int_equal(v->dr[7], 0x400);
	v->gpr[R_AX] = 1ull << 32;
	assert_fault(RUN(0x0f, 0x23, 0xf0), EXC_GP, 0);
	assert_fault(RUN(0x0f, 0x23, 0xf8), EXC_GP, 0);
	assert_done(RUN(0x0f, 0x23, 0xc0));
	assert_int_equal(v->dr[0], 1ull << 32);
	assert_done(RUN(0x0f, 0x21, 0xe1)); /* DR4 is DR6 */
	assert_int_equal(v->gpr[R_CX], 0xffff0ff0);
	v->cr4 |= CR4_DE;
	assert_fault(RUN(0x0f, 0x21, 0xe1), EXC_UD, 0);
	assert_fault(RUN(0x44, 0x0f, 0x21, 0xc1), EXC_UD, 0); /* DR8 */
	cpu(LONG, 3);
	assert_fault(RUN(0x0f, 0x21, 0xc1), EXC_GP, 0);
	v->cr4 |= CR4_DE;
	assert_fault(RUN(0x0f, 0x21, 0xe1), EXC_GP, 0); /* privilege comes before DR4 */
	/* DR7 with a data breakpoint: every access goes the slow way */
	cpu(LONG, 0);
	v->gpr[R_AX] = 1 | 1 << 16;
	assert_done(RUN(0x0f, 0x23, 0xf8));
	assert_int_equal(v->tlb_view, TLB_SLOW);
	v->gpr[R_AX] = 0;
	assert_done(RUN(0x0f, 0x23, 0xf8));
	assert_int_equal(v->tlb_view, TLB_KERNEL);
}

static void test_invalidation(void **state)
{
	cpu(LONG, 0);
	v->gpr[R_BX] = 0x6000;
	flushed = 1;
	assert_done(RUN(0x0f, 0x01, 0x3b)); /* INVLPG [RBX] */
	assert_int_equal(flushed, 0x6000);
	v->gpr[R_BX] = 1ull << 47;
	assert_done(RUN(0x0f, 0x01, 0x3b)); /* no fault, no effect */
	assert_int_equal(flushed, 0x6000);
	v->gpr[R_BX] = 0x6000;
	poke(0x6000, 0, 8);
	poke(0x6008, 0x123000, 8);
	v->gpr[R_AX] = 2;
	assert_done(RUN(0x66, 0x0f, 0x38, 0x82, 0x03));
	assert_int_equal(invpcid_type, 2);
	v->gpr[R_AX] = 4;
	assert_fault(RUN(0x66, 0x0f, 0x38, 0x82, 0x03), EXC_GP, 0);
	v->gpr[R_AX] = 0;
	poke(0x6000, 5, 8); /* a PCID without CR4.PCIDE */
	assert_fault(RUN(0x66, 0x0f, 0x38, 0x82, 0x03), EXC_GP, 0);
	v->cr4 |= CR4_PCIDE;
	assert_done(RUN(0x66, 0x0f, 0x38, 0x82, 0x03));
	poke(0x6000, 0x1005, 8);
	assert_fault(RUN(0x66, 0x0f, 0x38, 0x82, 0x03), EXC_GP, 0);
	poke(0x6000, 5, 8);
	poke(0x6008, 1ull << 47, 8);
	assert_fault(RUN(0x66, 0x0f, 0x38, 0x82, 0x03), EXC_GP, 0);
	v->gpr[R_AX] = 1; /* the address does not matter */
	assert_done(RUN(0x66, 0x0f, 0x38, 0x82, 0x03));
	assert_fault(RUN(0x0f, 0x38, 0x82, 0x03), EXC_UD, 0); /* without 66 */
	cpuid_7[1] &= ~(1u << 10);
	assert_fault(RUN(0x66, 0x0f, 0x38, 0x82, 0x03), EXC_UD, 0);
	cpuid_7[1] |= 1u << 10;
	assert_done(RUN(0x0f, 0x09));
	cpu(LONG, 3);
	assert_fault(RUN(0x66, 0x0f, 0x38, 0x82, 0x03), EXC_GP, 0);
	assert_fault(RUN(0x0f, 0x01, 0x3b), EXC_GP, 0);
	assert_fault(RUN(0x0f, 0x09), EXC_GP, 0);
	assert_fault(RUN(0x0f, 0x08), EXC_GP, 0);
}

/* ---- Ports --------------------------------------------------------------- */

static void test_ports(void **state)
{
	cpu(LONG, 0);
	port_next = 0x11223344;
	v->gpr[R_AX] = UINT64_MAX;
	v->gpr[R_DX] = 0xabcd03f8;
	assert_done(RUN(0xec));
	assert_int_equal(v->gpr[R_AX], 0xffffffffffffff44);
	assert_int_equal(port_log[0].port, 0x3f8);
	assert_done(RUN(0x66, 0xed));
	assert_int_equal(v->gpr[R_AX], 0xffffffffffff3345);
	assert_done(RUN(0xed));
	assert_int_equal(v->gpr[R_AX], 0x11223346);
	assert_done(RUN(0xe4, 0x80));
	assert_int_equal(port_log[3].port, 0x80);
	v->gpr[R_AX] = 0x8877665544332211;
	assert_done(RUN(0x48, 0xef)); /* REX.W: four bytes all the same */
	assert_int_equal(port_log[4].value, 0x44332211);
	assert_int_equal(port_log[4].size, 4);
	assert_done(RUN(0xe6, 0xff));
	assert_int_equal(port_log[5].port, 0xff);
	assert_int_equal(port_log[5].value, 0x11);
	assert_true(insn_ends_block(&insn));
}

static void test_port_bitmap(void **state)
{
	cpu(LONG, 3);
	v->gpr[R_DX] = 0x3f8;
	assert_fault(RUN(0xec), EXC_GP, 0);
	ram[TSS + 0x200 + 0x3f8 / 8] = 0xfe;
	assert_done(RUN(0xec));
	assert_fault(RUN(0x66, 0xed), EXC_GP, 0); /* two ports, one allowed */
	ram[TSS + 0x200 + 0x3f8 / 8] = 0xf0;
	assert_done(RUN(0xed));
	v->gpr[R_DX] = 0x3fe; /* across a byte of the map */
	ram[TSS + 0x200 + 0x3f8 / 8] = 0x3f;
	assert_fault(RUN(0xed), EXC_GP, 0);
	ram[TSS + 0x200 + 0x400 / 8] = 0xfc;
	assert_done(RUN(0xed));
	/* Both bytes of the word must lie within the limit. */
	v->tr.limit = 0x200 + 0x400 / 8;
	assert_done(RUN(0xed));
	v->tr.limit = 0x200 + 0x400 / 8 - 1;
	assert_fault(RUN(0xed), EXC_GP, 0);
	v->tr.limit = 102;
	assert_fault(RUN(0xec), EXC_GP, 0);
	cpu(LONG, 3);
	v->tr.attr = 0x83; /* 286 TSS: no map */
	memset(ram + TSS, 0, 0x2000);
	assert_fault(RUN(0xec), EXC_GP, 0);
	/* IOPL */
	cpu(LONG, 3);
	v->rflags |= 3 << 12;
	assert_done(RUN(0xec));
	cpu(VM86, 3);
	v->rflags |= 3 << 12; /* VM86 looks at the map whatever IOPL is */
	assert_fault(RUN(0xec), EXC_GP, 0);
	ram[TSS + 0x200] = 0;
	assert_done(RUN(0xec));
	assert_int_equal(port_count, 1);
}

static void test_string_ports(void **state)
{
	cpu(LONG, 0);
	v->gpr[R_DX] = 0x1f0;
	v->gpr[R_CX] = 3;
	v->gpr[R_DI] = 0x6000;
	port_next = 0x1110;
	assert_done(RUN(0xf3, 0x66, 0x6d)); /* REP INSW */
	assert_int_equal(peek(0x6000, 8), 0x0000111211111110);
	assert_int_equal(v->gpr[R_DI], 0x6006);
	assert_int_equal(v->gpr[R_CX], 0);
	assert_done(RUN(0xf3, 0x66, 0x6d)); /* RCX = 0: nothing */
	assert_int_equal(port_count, 3);
	/* A fault in the middle: the port is not read, the elements before are done. */
	cpu(LONG, 0);
	v->gpr[R_DX] = 0x1f0;
	v->gpr[R_CX] = 3;
	v->gpr[R_DI] = 0x6ffe;
	absent_at = 0x7000;
	absent_size = 0x1000;
	assert_fault(RUN(0xf3, 0x66, 0x6d), EXC_PF, 2);
	assert_int_equal(port_count, 1);
	assert_int_equal(v->gpr[R_CX], 2);
	assert_int_equal(v->gpr[R_DI], 0x7000);
	assert_int_equal(v->rip, CODE);
	/* A request ends it after an element; it goes on where it was. */
	cpu(LONG, 0);
	v->gpr[R_DX] = 0x3f8;
	v->gpr[R_CX] = 3;
	v->gpr[R_SI] = 0x6002;
	poke(0x6000, 0x636261, 3);
	v->rflags |= FL_DF;
	soft_request(v, REQ_IRQ);
	assert_done(RUN(0xf3, 0x6e)); /* REP OUTSB, downwards */
	assert_int_equal(v->rip, CODE);
	assert_int_equal(v->gpr[R_CX], 2);
	atomic_store(&v->request, 0);
	assert_done(RUN(0xf3, 0x6e));
	assert_int_equal(v->rip, CODE + 2);
	assert_int_equal(port_log[0].value, 0x63);
	assert_int_equal(port_log[2].value, 0x61);
	/* Segments: INS is always ES, OUTS takes an override; 16-bit registers wrap. */
	cpu(REAL, 0);
	seg_load_paragraph(v, SEG_ES, 0x600);
	seg_load_paragraph(v, SEG_FS, 0x700);
	v->gpr[R_DX] = 1;
	v->gpr[R_DI] = 0xabcd0010;
	port_next = 0x77;
	assert_done(RUN(0x64, 0x6c));
	assert_int_equal(ram[0x6010], 0x77);
	assert_int_equal(v->gpr[R_DI], 0xabcd0011);
	v->gpr[R_SI] = 0x1234ffff;
	ram[0x7000 + 0xffff] = 0x99;
	assert_done(RUN(0x64, 0x6e));
	assert_int_equal(port_log[1].value, 0x99);
	assert_int_equal(v->gpr[R_SI], 0x12340000);
	/* I/O breakpoints (CR4.DE) trap after the access. */
	cpu(LONG, 0);
	v->cr4 |= CR4_DE;
	v->dr[1] = 0x3f8;
	v->dr[7] |= 1 << 2 | 2 << 20 | 1 << 22; /* two bytes */
	v->gpr[R_DX] = 0x3f9;
	assert_done(RUN(0xec));
	assert_int_equal(v->dr6_pending, 2);
	assert_true(excp_poll(v));
	v->event.active = 0;
	v->gpr[R_DX] = 0x3fa;
	assert_done(RUN(0xec));
	assert_int_equal(v->dr6_pending, 0);
}

/* ---- Flags --------------------------------------------------------------- */

static void test_flags(void **state)
{
	static const struct { enum mode mode; uint8_t cpl, iopl; uint64_t changed; } popf[] = {
		{ LONG, 0, 0, 0x247fd5 }, { LONG, 3, 0, 0x244dd5 }, { LONG, 3, 3, 0x244fd5 }, { PROT, 1, 1, 0x244fd5 },
		{ REAL, 0, 0, 0x247fd5 }, { VM86, 3, 3, 0x244fd5 },
	};

	for (unsigned n = 0; n < sizeof(popf) / sizeof(popf[0]); n++) {
		uint64_t before;

		cpu(popf[n].mode, popf[n].cpl);
		v->rflags |= popf[n].iopl << 12;
		before = v->rflags;
		poke(STACK, ~before, 8);
		assert_done(popf[n].mode == LONG ? RUN(0x9d) : popf[n].mode == PROT ? RUN(0x9d) : RUN(0x66, 0x9d));
		assert_int_equal(v->rflags ^ before, popf[n].changed);
	}
	cpu(LONG, 0);
	v->rflags |= FL_RF | FL_ID | FL_CF;
	assert_done(RUN(0x9c));
	assert_int_equal(peek(STACK - 8, 8), FL_ID | FL_CF | 2);
	v->rflags = 2 | FL_ID;
	poke(v->gpr[R_SP], FL_CF, 2);
	assert_done(RUN(0x66, 0x9d)); /* 16 bits: ID stays */
	assert_int_equal(v->rflags, FL_ID | FL_CF | 2);
	assert_int_equal(v->gpr[R_SP], STACK - 6);
	cpu(LONG, 3);
	assert_fault(RUN(0xfa), EXC_GP, 0);
	assert_fault(RUN(0xfb), EXC_GP, 0);
	v->rflags |= 3 << 12 | FL_IF;
	assert_done(RUN(0xfa));
	assert_int_equal(v->rflags & FL_IF, 0);
	/* AC through POPF changes checks at once. */
	cpu(LONG, 3);
	v->cr0 |= CR0_AM;
	poke(STACK, FL_AC, 8);
	assert_done(RUN(0x9d));
	assert_int_equal(v->ac_check, 1);
	assert_int_equal(v->tlb_view, TLB_SLOW);
	/* INTO */
	cpu(PROT, 0);
	assert_done(RUN(0xce));
	v->rflags |= FL_OF;
	assert_int_equal(RUN(0xce).vector, EXC_OF);
	cpu(LONG, 0);
	assert_fault(RUN(0xce), EXC_UD, 0);
}

/* ---- The rest ------------------------------------------------------------ */

static void test_misc(void **state)
{
	struct soft_vcpu *other;

	cpu(LONG, 3);
	v->gpr[R_AX] = 0xffffffff00001234;
	v->gpr[R_CX] = 0xffffffff00000077;
	assert_done(RUN(0x0f, 0xa2));
	assert_int_equal(v->gpr[R_AX], 0x1234);
	assert_int_equal(v->gpr[R_BX], 0x77);
	assert_int_equal(v->gpr[R_CX], 3);
	assert_int_equal(v->gpr[R_DX], 4);
	assert_done(RUN(0x0f, 0x31));
	assert_int_equal(v->gpr[R_AX], 0x55667788);
	assert_int_equal(v->gpr[R_DX], 0x11223344);
	v->tsc_aux = 0x12345;
	assert_done(RUN(0x0f, 0x01, 0xf9));
	assert_int_equal(v->gpr[R_CX], 0x12345);
	assert_done(RUN(0xf3, 0x0f, 0xc7, 0xfb)); /* RDPID RBX */
	assert_int_equal(v->gpr[R_BX], 0x12345);
	v->cr4 |= CR4_TSD;
	assert_fault(RUN(0x0f, 0x31), EXC_GP, 0);
	assert_fault(RUN(0x0f, 0x01, 0xf9), EXC_GP, 0);
	assert_fault(RUN(0x0f, 0x33), EXC_GP, 0);
	assert_fault(RUN(0xf4), EXC_GP, 0);
	assert_fault(RUN(0x0f, 0x30), EXC_GP, 0);
	assert_fault(RUN(0x0f, 0x32), EXC_GP, 0);
	cpu(LONG, 0);
	v->cr4 |= CR4_TSD;
	assert_done(RUN(0x0f, 0x31));
	v->gpr[R_CX] = 0xffffffff00000010;
	msr_value = 0x1122334455667788;
	assert_done(RUN(0x0f, 0x32));
	assert_int_equal(msr_last, 0x10);
	assert_int_equal(v->gpr[R_AX], 0x55667788);
	assert_int_equal(v->gpr[R_DX], 0x11223344);
	assert_done(wrmsr(0x123, 0x99aabbccddeeff00));
	assert_int_equal(msr_value, 0x99aabbccddeeff00);
	msr_ok = false;
	assert_fault(wrmsr(0x123, 1), EXC_GP, 0);
	assert_fault(RUN(0x0f, 0x32), EXC_GP, 0);
	msr_ok = true;
	/* RDRAND: CF set and the others clear; 32 bits zero-extend. */
	v->rflags |= FLAGS_ARITH;
	v->gpr[R_SI] = UINT64_MAX;
	assert_done(RUN(0x0f, 0xc7, 0xf6));
	assert_int_equal(v->rflags & FLAGS_ARITH, FL_CF);
	assert_int_equal(v->gpr[R_SI] >> 32, 0);
	cpuid_1[2] &= ~(1u << 30);
	assert_fault(RUN(0x0f, 0xc7, 0xf6), EXC_UD, 0);
	cpuid_1[2] |= 1u << 30;
	/* Not offered, or no instruction at all */
	assert_fault(RUN(0x0f, 0x01, 0xc8), EXC_UD, 0); /* MONITOR */
	assert_fault(RUN(0x0f, 0x01, 0xc9), EXC_UD, 0); /* MWAIT */
	assert_fault(RUN(0x0f, 0x01, 0xd8), EXC_UD, 0); /* VMRUN */
	assert_fault(RUN(0x0f, 0x01, 0xc2), EXC_UD, 0); /* VMLAUNCH */
	assert_fault(RUN(0x0f, 0x01, 0xfc), EXC_UD, 0); /* CLZERO */
	assert_fault(RUN(0x0f, 0x01, 0xee), EXC_UD, 0); /* RDPKRU */
	assert_fault(RUN(0x0f, 0x0b), EXC_UD, 0);
	assert_fault(RUN(0x0f, 0xaa), EXC_UD, 0); /* RSM */
	/* Hypercalls */
	v->gpr[R_AX] = 99;
	assert_done(RUN(0x0f, 0x01, 0xc1));
	assert_int_equal((int64_t)v->gpr[R_AX], -1000);
	v->gpr[R_AX] = 1;
	assert_done(RUN(0x0f, 0x01, 0xd9));
	assert_int_equal(v->gpr[R_AX], 0);
	other = v;
	engine.vcpus[7] = other;
	woken = NULL;
	v->gpr[R_AX] = 5;
	v->gpr[R_CX] = 7;
	assert_done(RUN(0x0f, 0x01, 0xc1));
	assert_ptr_equal(woken, other);
	assert_done(RUN(0xf4)); /* the kick that came before HLT is not lost */
	assert_int_equal(v->mp_state, CPU_MP_RUNNABLE);
	assert_done(RUN(0xf4));
	assert_int_equal(v->mp_state, CPU_MP_HALTED);
	v->unhalted = 1;
	excp_poll(v);
	assert_int_equal(v->mp_state, CPU_MP_RUNNABLE);
	v->gpr[R_AX] = 5;
	v->gpr[R_CX] = 1ull << 40; /* no such CPU */
	assert_done(RUN(0x0f, 0x01, 0xc1));
	engine.vcpus[7] = NULL;
	cpu(LONG, 3);
	v->gpr[R_AX] = 1;
	assert_done(RUN(0x0f, 0x01, 0xc1));
	assert_int_equal((int64_t)v->gpr[R_AX], -1);
}

/* Instructions of others are left to others. */
static void test_bind(void **state)
{
	static const struct { uint8_t n, bytes[6]; } foreign[] = {
		{ 1, { 0x90 } }, { 2, { 0x01, 0xc0 } }, { 2, { 0xff, 0xd0 } }, { 2, { 0xff, 0x23 } }, { 2, { 0xff, 0x33 } },
		{ 3, { 0x0f, 0xae, 0xe8 } }, { 3, { 0x0f, 0xae, 0x03 } }, { 4, { 0xf3, 0x0f, 0xae, 0xe8 } }, { 3, { 0x0f, 0xc7, 0x0b } },
		{ 3, { 0x0f, 0xc7, 0x23 } }, { 2, { 0x0f, 0x0d } }, { 3, { 0x0f, 0xa3, 0xc0 } }, { 2, { 0x0f, 0xc8 } },
		{ 3, { 0x0f, 0x38, 0x00 } }, { 2, { 0x63, 0xc0 } }, { 5, { 0xe8, 0, 0, 0, 0 } }, { 1, { 0xc3 } }, { 1, { 0xf5 } },
		{ 1, { 0xfc } }, { 1, { 0x9f } }, { 4, { 0xc5, 0xf8, 0x05, 0xc0 } }, { 3, { 0xc5, 0xf8, 0x77 } },
	};

	cpu(LONG, 0);
	for (unsigned n = 0; n < sizeof(foreign) / sizeof(foreign[0]); n++) {
		struct insn i;

		insn_decode(&i, foreign[n].bytes, 6, MODE_64);
		if (sys_bind(&engine, &i))
			fail_msg("instruction %u was bound", n);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_far_code), cmocka_unit_test(test_call_gates), cmocka_unit_test(test_call_gate_faults),
		cmocka_unit_test(test_retf), cmocka_unit_test(test_syscall), cmocka_unit_test(test_syscall_legality),
		cmocka_unit_test(test_sysenter), cmocka_unit_test(test_bases), cmocka_unit_test(test_cr0),
		cmocka_unit_test(test_long_mode_switch), cmocka_unit_test(test_cr4_efer), cmocka_unit_test(test_other_crs),
		cmocka_unit_test(test_drs), cmocka_unit_test(test_invalidation), cmocka_unit_test(test_ports),
		cmocka_unit_test(test_port_bitmap), cmocka_unit_test(test_string_ports), cmocka_unit_test(test_flags),
		cmocka_unit_test(test_misc), cmocka_unit_test(test_bind),
	};

	return cmocka_run_group_tests(tests, stub_setup, stub_teardown);
}
