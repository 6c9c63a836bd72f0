/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptor checks, vector and error code, from the pseudo code of SDM vol. 2 (MOV, LDS, LLDT, LTR, LAR ...) and vol. 3 chapter 5. */
#include "sys_stubs.h"

/* MOV Sreg, AX */
static struct outcome mov_sreg(unsigned seg, uint16_t selector)
{
	v->gpr[R_AX] = 0xabcd0000 | selector;
	return RUN(0x8e, 0xc0 | seg << 3);
}

static void test_load_checks(void **state)
{
	static const struct { enum mode mode; uint8_t cpl, seg; uint16_t selector; int vector; uint32_t error; } cases[] = {
		/* Null selectors */
		{ PROT, 0, SEG_DS, 0, -1, 0 }, { PROT, 0, SEG_DS, 3, -1, 0 }, { PROT, 0, SEG_SS, 0, EXC_GP, 0 },
		{ PROT, 3, SEG_SS, 3, EXC_GP, 0 }, { COMPAT, 0, SEG_SS, 0, EXC_GP, 0 }, { LONG, 0, SEG_SS, 0, -1, 0 },
		{ LONG, 0, SEG_SS, 3, EXC_GP, 0 }, { LONG, 3, SEG_SS, 3, EXC_GP, 0 }, { LONG, 3, SEG_FS, 3, -1, 0 },
		/* Outside the table */
		{ PROT, 0, SEG_DS, GDT_END, EXC_GP, GDT_END }, { PROT, 0, SEG_SS, GDT_END, EXC_GP, GDT_END },
		{ PROT, 0, SEG_ES, 0xfff8, EXC_GP, 0xfff8 }, { PROT, 3, SEG_DS, 0x24 | 3, EXC_GP, 0x24 },
		{ PROT, 3, SEG_DS, 0x0c | 3, -1, 0 }, { PROT, 3, SEG_SS, 0x0c | 3, -1, 0 },
		/* Type */
		{ PROT, 0, SEG_DS, CODE32, -1, 0 }, { PROT, 0, SEG_DS, XONLY, EXC_GP, XONLY }, { PROT, 0, SEG_DS, RODATA, -1, 0 },
		{ PROT, 0, SEG_SS, RODATA, EXC_GP, RODATA }, { PROT, 0, SEG_SS, CODE32, EXC_GP, CODE32 },
		{ PROT, 0, SEG_DS, TSSSEL, EXC_GP, TSSSEL }, { PROT, 0, SEG_SS, LDTSEL, EXC_GP, LDTSEL },
		{ PROT, 0, SEG_DS, GATE, EXC_GP, GATE }, { PROT, 0, SEG_DS, DOWN, -1, 0 }, { PROT, 0, SEG_SS, DOWN, -1, 0 },
		/* Privilege: data and non-conforming code need CPL and RPL <= DPL */
		{ PROT, 3, SEG_DS, DATA32 | 3, EXC_GP, DATA32 }, { PROT, 3, SEG_DS, DATA32, EXC_GP, DATA32 },
		{ PROT, 0, SEG_DS, DATA32 | 1, EXC_GP, DATA32 }, { PROT, 0, SEG_DS, UDATA32, -1, 0 },
		{ PROT, 0, SEG_DS, UDATA32 | 3, -1, 0 }, { PROT, 3, SEG_DS, CODE32 | 3, EXC_GP, CODE32 },
		{ PROT, 3, SEG_DS, CONF | 3, -1, 0 }, { PROT, 3, SEG_DS, UDATA32, -1, 0 }, { PROT, 1, SEG_DS, DATA32, EXC_GP, DATA32 },
		{ PROT, 1, SEG_DS, DATA1 | 2, EXC_GP, DATA1 }, { PROT, 1, SEG_DS, DATA1, -1, 0 },
		/* SS: RPL = CPL = DPL */
		{ PROT, 0, SEG_SS, DATA32 | 3, EXC_GP, DATA32 }, { PROT, 0, SEG_SS, UDATA32, EXC_GP, UDATA32 },
		{ PROT, 0, SEG_SS, UDATA32 | 3, EXC_GP, UDATA32 }, { PROT, 3, SEG_SS, UDATA32, EXC_GP, UDATA32 },
		{ PROT, 3, SEG_SS, UDATA32 | 3, -1, 0 }, { PROT, 3, SEG_SS, DATA32 | 3, EXC_GP, DATA32 },
		/* Not present: #NP, but #SS for SS */
		{ PROT, 0, SEG_DS, ABSENT, EXC_NP, ABSENT }, { PROT, 0, SEG_SS, ABSENT, EXC_SS, ABSENT },
		{ PROT, 3, SEG_GS, UABSENT | 3, EXC_NP, UABSENT }, { PROT, 3, SEG_SS, UABSENT | 3, EXC_SS, UABSENT },
		{ LONG, 0, SEG_FS, ABSENT, EXC_NP, ABSENT }, { LONG, 3, SEG_DS, DATA32 | 3, EXC_GP, DATA32 },
		{ PROT, 3, SEG_DS, ABSENT | 3, EXC_GP, ABSENT },
	};

	for (unsigned n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
		struct cpu_segment before;
		struct outcome o;

		cpu(cases[n].mode, cases[n].cpl);
		before = v->seg[cases[n].seg];
		o = mov_sreg(cases[n].seg, cases[n].selector);
		if (o.vector != cases[n].vector || o.error != cases[n].error)
			fail_msg("case %u: mode %d CPL %u Sreg %u selector %04x: vector %d(%04x), expected %d(%04x)", n, cases[n].mode,
				 cases[n].cpl, cases[n].seg, cases[n].selector, o.vector, o.error, cases[n].vector,
				 cases[n].error);
		if (o.vector < 0)
			assert_int_equal(v->seg[cases[n].seg].selector, cases[n].selector);
		else
			assert_memory_equal(&before, &v->seg[cases[n].seg], sizeof(before));
	}
}

static void test_load_values(void **state)
{
	cpu(PROT, 0);
	assert_done(mov_sreg(SEG_FS, FRESH));
	assert_int_equal(v->seg[SEG_FS].base, 0x5000);
	assert_int_equal(v->seg[SEG_FS].limit, 0xfff);
	assert_int_equal(v->seg[SEG_FS].attr, 0x4093); /* accessed is set in the register ... */
	assert_int_equal(peek(GDT + FRESH + 5, 1), 0x93); /* ... and in the table */
	assert_int_equal(v->seg_flat & 1 << SEG_FS, 0);
	assert_done(mov_sreg(SEG_FS, UDATA32));
	assert_int_equal(v->seg_flat & 1 << SEG_FS, 1 << SEG_FS);
	assert_int_equal(v->seg[SEG_FS].limit, UINT32_MAX);
	assert_done(mov_sreg(SEG_FS, RODATA));
	assert_int_equal(v->seg_flat & 1 << SEG_FS, 0);
	assert_done(mov_sreg(SEG_DS, 0));
	assert_false(segment_usable(&v->seg[SEG_DS]));
	assert_int_equal(v->seg_flat & 1 << SEG_DS, 0);
	/* A fault writing the accessed bit leaves the register. */
	cpu(PROT, 3);
	readonly_at = GDT;
	readonly_size = 0x1000;
	assert_fault(mov_sreg(SEG_DS, UFRESH | 3), EXC_PF, 3);
	assert_int_equal(v->seg[SEG_DS].selector, UDATA32 | 3);
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->tlb_view, TLB_USER);
	/* The table is read as supervisor even at CPL 3. */
	cpu(PROT, 3);
	kernel_at = GDT;
	kernel_size = 0x1000;
	assert_done(mov_sreg(SEG_DS, UFRESH | 3));
	assert_int_equal(peek(GDT + UFRESH + 5, 1), 0xf3);
	/* LDT */
	cpu(PROT, 3);
	assert_done(mov_sreg(SEG_GS, 0x14 | 3));
	assert_int_equal(v->seg[SEG_GS].base, 0x7000);
	v->ldtr = segment_null(0, 0);
	assert_fault(mov_sreg(SEG_GS, 0x14 | 3), EXC_GP, 0x14);
	/* CS and registers 6, 7 can't be loaded. */
	assert_fault(mov_sreg(1, UCODE32 | 3), EXC_UD, 0);
	assert_fault(mov_sreg(6, UDATA32 | 3), EXC_UD, 0);
}

static void test_paragraphs(void **state)
{
	cpu(REAL, 0);
	v->seg[SEG_DS].limit = UINT32_MAX; /* "unreal": the limit stays */
	assert_done(mov_sreg(SEG_DS, 0x1234));
	assert_int_equal(v->seg[SEG_DS].base, 0x12340);
	assert_int_equal(v->seg[SEG_DS].limit, UINT32_MAX);
	v->seg[SEG_ES] = segment_null(0, 0);
	assert_done(mov_sreg(SEG_ES, 0xffff));
	assert_int_equal(v->seg[SEG_ES].base, 0xffff0);
	assert_int_equal(v->seg[SEG_ES].limit, 0xffff);
	assert_true(segment_usable(&v->seg[SEG_ES]));
	cpu(VM86, 3);
	assert_done(mov_sreg(SEG_SS, 0));
	assert_int_equal(v->seg[SEG_SS].attr, 0xf3);
	assert_int_equal(v->cpl, 3);
}

static void test_shadow(void **state)
{
	cpu(PROT, 0);
	assert_done(mov_sreg(SEG_SS, DATA32));
	assert_int_equal(v->shadow, 2);
	assert_true(insn_ends_block(&insn));
	assert_done(mov_sreg(SEG_DS, DATA32));
	assert_int_equal(v->shadow, 0);
	assert_done(mov_sreg(SEG_SS, DATA16));
	assert_int_equal(v->stack_size, 2);
	poke(STACK, DATA32, 4);
	assert_done(RUN(0x17)); /* POP SS */
	assert_int_equal(v->shadow, 2);
	assert_int_equal(v->stack_size, 4);
	assert_int_equal(v->gpr[R_SP], STACK + 4);
	poke(STACK, 0x5678, 4);
	poke(STACK + 4, DATA32, 2);
	v->gpr[R_BX] = STACK;
	assert_done(RUN(0x0f, 0xb2, 0x03)); /* LSS EAX, [EBX] */
	assert_int_equal(v->gpr[R_AX], 0x5678);
	assert_int_equal(v->shadow, 0);
}

static void test_push_pop(void **state)
{
	cpu(PROT, 0);
	poke(STACK - 4, 0xffffffff, 4);
	assert_done(RUN(0x06)); /* PUSH ES: Intel writes two bytes */
	assert_int_equal(v->gpr[R_SP], STACK - 4);
	assert_int_equal(peek(STACK - 4, 4), 0xffff0000 | DATA32);
	amd = true;
	v->gpr[R_SP] = STACK;
	assert_done(RUN(0x1e));
	assert_int_equal(peek(STACK - 4, 4), DATA32);
	assert_done(RUN(0x66, 0x0e)); /* PUSH CS, 16 bits */
	assert_int_equal(v->gpr[R_SP], STACK - 6);
	assert_int_equal(peek(STACK - 6, 2), CODE32);
	/* A faulting POP leaves ESP. */
	poke(STACK, ABSENT, 4);
	v->gpr[R_SP] = STACK;
	assert_fault(RUN(0x1f), EXC_NP, ABSENT);
	assert_int_equal(v->gpr[R_SP], STACK);
	cpu(LONG, 0);
	assert_done(RUN(0x0f, 0xa0));
	assert_int_equal(v->gpr[R_SP], STACK - 8);
	assert_int_equal(peek(STACK - 8, 8), DATA32);
	assert_done(RUN(0x66, 0x0f, 0xa9));
	assert_int_equal(v->gpr[R_SP], STACK - 6);
	assert_fault(RUN(0x06), EXC_UD, 0);
	/* 16-bit stack: SP wraps, the upper half stays */
	cpu(PROT, 0);
	assert_done(mov_sreg(SEG_SS, DATA16));
	v->gpr[R_SP] = 0x12340002;
	poke(0xfffe, 0, 2);
	poke(2, 0, 4);
	assert_done(RUN(0x66, 0x06));
	assert_done(RUN(0x66, 0x06));
	assert_int_equal(v->gpr[R_SP], 0x1234fffe);
	assert_int_equal(peek(0xfffe, 2), DATA32);
}

static void test_far_pointers(void **state)
{
	cpu(PROT, 0);
	v->gpr[R_BX] = 0x6000;
	poke(0x6000, 0x11223344, 4);
	poke(0x6004, FRESH, 2);
	assert_done(RUN(0xc4, 0x03)); /* LES EAX, [EBX] */
	assert_int_equal(v->gpr[R_AX], 0x11223344);
	assert_int_equal(v->seg[SEG_ES].selector, FRESH);
	poke(0x6002, UDATA32, 2);
	v->gpr[R_AX] = 0xffffffff;
	assert_done(RUN(0x66, 0xc5, 0x03)); /* LDS AX, [EBX] */
	assert_int_equal(v->gpr[R_AX], 0xffff3344);
	assert_int_equal(v->seg[SEG_DS].selector, UDATA32);
	poke(0x6002, 0, 4);
	poke(0x6004, XONLY, 2);
	assert_fault(RUN(0x0f, 0xb4, 0x03), EXC_GP, XONLY);
	assert_int_equal(v->gpr[R_AX], 0xffff3344);
	assert_fault(RUN(0x0f, 0xb4, 0xc3), EXC_UD, 0); /* register form */
	/* REX.W: 10 bytes on Intel, 6 on AMD */
	cpu(LONG, 0);
	v->gpr[R_BX] = 0x6000;
	poke(0x6000, 0x1122334400001234, 8);
	poke(0x6004, 0, 2);
	poke(0x6008, FRESH, 2);
	assert_done(RUN(0x48, 0x0f, 0xb5, 0x03));
	assert_int_equal(v->gpr[R_AX], 0x1122000000001234);
	assert_int_equal(v->seg[SEG_GS].selector, FRESH);
	amd = true;
	assert_done(RUN(0x48, 0x0f, 0xb5, 0x03));
	assert_int_equal(v->gpr[R_AX], 0x1234);
	assert_int_equal(v->seg[SEG_GS].selector, 0);
}

static void test_mov_from(void **state)
{
	cpu(LONG, 3);
	v->gpr[R_BX] = 0x6000;
	v->gpr[R_AX] = UINT64_MAX;
	assert_done(RUN(0x8c, 0xc8)); /* MOV EAX, CS: zero-extended */
	assert_int_equal(v->gpr[R_AX], UCODE64 | 3);
	v->gpr[R_AX] = UINT64_MAX;
	assert_done(RUN(0x66, 0x8c, 0xc8));
	assert_int_equal(v->gpr[R_AX], 0xffffffffffff0000 | UCODE64 | 3);
	poke(0x6000, UINT64_MAX, 8);
	assert_done(RUN(0x48, 0x8c, 0x0b)); /* memory is always two bytes */
	assert_int_equal(peek(0x6000, 8), 0xffffffffffff0000 | UCODE64 | 3);
	assert_fault(RUN(0xf0, 0x8c, 0x0b), EXC_UD, 0); /* LOCK */
	assert_fault(RUN(0x8c, 0xf0), EXC_UD, 0);
}

static struct outcome check_selector(uint8_t op, uint8_t modrm, uint16_t selector)
{
	v->gpr[R_AX] = 0xdeadbeefcafef00d;
	v->gpr[R_CX] = selector;
	v->rflags ^= FL_ZF;
	return RUN(0x0f, op, modrm);
}

static void test_lar_lsl_verr_verw(void **state)
{
	enum { LAR = 1, LSL = 2, VERR = 4, VERW = 8 };
	static const struct { enum mode mode; uint8_t cpl; uint16_t selector; uint8_t allowed; uint32_t ar, limit; } cases[] = {
		{ PROT, 0, 0, 0, 0, 0 }, { PROT, 0, GDT_END, 0, 0, 0 },
		{ PROT, 0, CODE32, LAR | LSL | VERR, 0xcf9b00, UINT32_MAX },
		{ PROT, 0, XONLY, LAR | LSL, 0xcf9900, UINT32_MAX },
		{ PROT, 0, DATA32, LAR | LSL | VERR | VERW, 0xcf9300, UINT32_MAX },
		{ PROT, 0, DATA32 | 3, 0, 0, 0 }, /* RPL > DPL */
		{ PROT, 3, DATA32, 0, 0, 0 },     /* CPL > DPL */
		{ PROT, 3, CONF | 3, LAR | LSL | VERR, 0xcf9f00, UINT32_MAX },
		{ PROT, 3, UDATA32 | 3, LAR | LSL | VERR | VERW, 0xcff300, UINT32_MAX },
		{ PROT, 0, RODATA, LAR | LSL | VERR, 0xcf9100, UINT32_MAX },
		{ PROT, 0, ABSENT, LAR | LSL | VERR | VERW, 0xcf1300, UINT32_MAX }, /* P is not looked at */
		{ PROT, 0, FRESH, LAR | LSL | VERR | VERW, 0x409200, 0xfff },
		{ PROT, 0, TSSSEL, LAR | LSL, 0x008900, 0x1fff },
		{ PROT, 0, LDTSEL, LAR | LSL, 0x008200, 0x1f },
		{ PROT, 0, TASKGATE, LAR, 0x00e500, 0 },
		{ PROT, 0, TSS286, LAR | LSL, 0x008100, 0x67 },
		{ PROT, 0, GATE, LAR, 0x008c00, 0 },
		{ PROT, 0, GATE + 8, 0, 0, 0 }, /* an interrupt gate, put there below */
		{ LONG, 0, TSSSEL, LAR | LSL, 0x008900, 0x1fff },
		{ LONG, 0, TASKGATE, 0, 0, 0 }, { LONG, 0, TSS286, 0, 0, 0 },
		{ LONG, 0, GATE, LAR, 0x008c00, 0 },
		{ LONG, 0, LDTSEL, LAR | LSL, 0x008200, 0x1f },
		{ COMPAT, 0, TSS286, 0, 0, 0 },
		{ LONG, 3, UCODE64 | 3, LAR | LSL | VERR, 0xaffb00, UINT32_MAX },
	};

	for (unsigned n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
		unsigned got = 0;

		cpu(cases[n].mode, cases[n].cpl);
		poke(GDT + GATE, make_gate(CODE32, 0, 0x8c, 0), 8);
		poke(GDT + GATE + 8, make_gate(CODE32, 0, 0x8e, 0), 8);
		assert_done(check_selector(0x02, 0xc1, cases[n].selector));
		if (v->rflags & FL_ZF)
			got |= LAR;
		assert_int_equal(v->gpr[R_AX], v->rflags & FL_ZF ? cases[n].ar : 0xdeadbeefcafef00d);
		assert_done(check_selector(0x03, 0xc1, cases[n].selector));
		if (v->rflags & FL_ZF)
			got |= LSL;
		assert_int_equal(v->gpr[R_AX], v->rflags & FL_ZF ? cases[n].limit : 0xdeadbeefcafef00d);
		assert_done(check_selector(0x00, 0xe1, cases[n].selector));
		got |= v->rflags & FL_ZF ? VERR : 0;
		assert_done(check_selector(0x00, 0xe9, cases[n].selector));
		got |= v->rflags & FL_ZF ? VERW : 0;
		if (got != cases[n].allowed)
			fail_msg("case %u selector %04x: allowed %x, expected %x", n, cases[n].selector, got, cases[n].allowed);
	}
	cpu(REAL, 0);
	assert_fault(check_selector(0x02, 0xc1, CODE32), EXC_UD, 0);
	assert_fault(check_selector(0x00, 0xe1, CODE32), EXC_UD, 0);
	cpu(VM86, 3);
	assert_fault(check_selector(0x03, 0xc1, CODE32), EXC_UD, 0);
}

static void test_arpl(void **state)
{
	cpu(PROT, 0);
	v->gpr[R_AX] = 0x10;
	v->gpr[R_CX] = 0x23;
	assert_done(RUN(0x63, 0xc8)); /* ARPL AX, CX */
	assert_int_equal(v->gpr[R_AX], 0x13);
	assert_true(v->rflags & FL_ZF);
	v->gpr[R_CX] = 1;
	assert_done(RUN(0x63, 0xc8));
	assert_int_equal(v->gpr[R_AX], 0x13);
	assert_false(v->rflags & FL_ZF);
	cpu(REAL, 0);
	assert_fault(RUN(0x63, 0xc8), EXC_UD, 0);
}

static void test_lldt_ltr(void **state)
{
	static const struct { enum mode mode; uint8_t cpl, ext; uint16_t selector; int vector; uint32_t error; } cases[] = {
		{ PROT, 0, 2, 0, -1, 0 }, { PROT, 0, 2, LDTSEL, -1, 0 }, { PROT, 0, 2, LDTSEL | 4, EXC_GP, LDTSEL | 4 },
		{ PROT, 0, 2, GDT_END, EXC_GP, GDT_END }, { PROT, 0, 2, TSSSEL, EXC_GP, TSSSEL },
		{ PROT, 0, 2, DATA32, EXC_GP, DATA32 }, { PROT, 3, 2, LDTSEL, EXC_GP, 0 }, { LONG, 0, 2, LDTSEL, -1, 0 },
		{ PROT, 0, 3, 0, EXC_GP, 0 }, { PROT, 0, 3, TSSSEL, -1, 0 }, { PROT, 0, 3, BUSYTSS, EXC_GP, BUSYTSS },
		{ PROT, 0, 3, LDTSEL, EXC_GP, LDTSEL }, { PROT, 0, 3, TSSSEL | 4, EXC_GP, TSSSEL | 4 },
		{ PROT, 0, 3, TSS286, -1, 0 }, { LONG, 0, 3, TSS286, EXC_GP, TSS286 }, { COMPAT, 0, 3, TSS286, EXC_GP, TSS286 },
		{ PROT, 3, 3, TSSSEL, EXC_GP, 0 }, { PROT, 0, 3, CODE32, EXC_GP, CODE32 }, { LONG, 0, 3, TSSSEL, -1, 0 },
		{ LONG, 0, 3, GDT_END - 8, EXC_GP, GDT_END - 8 }, /* the upper half lies outside */
	};

	for (unsigned n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
		struct outcome o;

		cpu(cases[n].mode, cases[n].cpl);
		if (n == sizeof(cases) / sizeof(cases[0]) - 1)
			poke(GDT + GDT_END - 8, make_desc(TSS, 0x67, 0x89, 0), 8);
		v->gpr[R_AX] = cases[n].selector;
		o = RUN(0x0f, 0x00, 0xc0 | cases[n].ext << 3);
		if (o.vector != cases[n].vector || o.error != cases[n].error)
			fail_msg("case %u: vector %d(%04x)", n, o.vector, o.error);
	}
	cpu(LONG, 0);
	poke(GDT + LDTSEL + 8, 0xffff8000, 8);
	v->gpr[R_AX] = LDTSEL;
	assert_done(RUN(0x0f, 0x00, 0xd0));
	assert_int_equal(v->ldtr.base, 0xffff800000000000 | LDT);
	poke(GDT + LDTSEL + 8, 0x00008000, 8); /* not canonical */
	assert_fault(RUN(0x0f, 0x00, 0xd0), EXC_GP, LDTSEL);
	poke(GDT + LDTSEL + 8, 0x1f0000000000, 8); /* type bits of the upper half */
	assert_fault(RUN(0x0f, 0x00, 0xd0), EXC_GP, LDTSEL);
	v->gpr[R_AX] = TSSSEL;
	assert_done(RUN(0x0f, 0x00, 0xd8));
	assert_int_equal(peek(GDT + TSSSEL + 5, 1), 0x8b); /* busy */
	assert_int_equal(v->tr.attr & 0xf, SYS_TSS_BUSY);
	assert_fault(RUN(0x0f, 0x00, 0xd8), EXC_GP, TSSSEL);
	poke(GDT + TSSSEL + 5, 0x09, 1);
	assert_fault(RUN(0x0f, 0x00, 0xd8), EXC_NP, TSSSEL);
	cpu(VM86, 3);
	assert_fault(RUN(0x0f, 0x00, 0xd8), EXC_UD, 0);
	/* SLDT, STR and UMIP */
	cpu(LONG, 3);
	v->gpr[R_AX] = UINT64_MAX;
	assert_done(RUN(0x0f, 0x00, 0xc8));
	assert_int_equal(v->gpr[R_AX], TSSSEL);
	v->cr4 |= CR4_UMIP;
	assert_fault(RUN(0x0f, 0x00, 0xc0), EXC_GP, 0);
	cpu(REAL, 0);
	assert_fault(RUN(0x0f, 0x00, 0xc0), EXC_UD, 0);
}

static void test_tables(void **state)
{
	cpu(LONG, 0);
	v->gpr[R_BX] = 0x6000;
	poke(0x6000, 0x1234, 2);
	poke(0x6002, 0xffff800011112222, 8);
	assert_done(RUN(0x0f, 0x01, 0x13)); /* LGDT */
	assert_int_equal(v->gdtr.base, 0xffff800011112222);
	assert_int_equal(v->gdtr.limit, 0x1234);
	poke(0x6002, 0x0000800011112222, 8);
	assert_fault(RUN(0x0f, 0x01, 0x1b), EXC_GP, 0); /* LIDT, not canonical */
	assert_int_equal(v->idtr.base, IDT);
	assert_done(RUN(0x0f, 0x01, 0x03)); /* SGDT */
	assert_int_equal(peek(0x6002, 8), 0xffff800011112222);
	cpu(LONG, 3);
	v->gpr[R_BX] = 0x6000;
	assert_fault(RUN(0x0f, 0x01, 0x13), EXC_GP, 0);
	assert_done(RUN(0x0f, 0x01, 0x0b)); /* SIDT */
	assert_int_equal(peek(0x6000, 2), 0xfff);
	v->cr4 |= CR4_UMIP;
	assert_fault(RUN(0x0f, 0x01, 0x0b), EXC_GP, 0);
	cpu(REAL, 0);
	v->gpr[R_BX] = 0x600;
	poke(0x600, 0x3ff, 2);
	poke(0x602, 0xff123456, 4);
	assert_done(RUN(0x0f, 0x01, 0x1f)); /* LIDT [BX], 24 bits of base */
	assert_int_equal(v->idtr.base, 0x123456);
	assert_done(RUN(0x66, 0x0f, 0x01, 0x1f));
	assert_int_equal(v->idtr.base, 0xff123456);
	cpu(PROT, 0);
	v->gpr[R_BX] = 0x6000;
	poke(0x6000, UINT64_MAX, 8);
	assert_done(RUN(0x0f, 0x01, 0x03));
	assert_int_equal(peek(0x6000, 8), 0xffff000000000000 | (uint64_t)GDT << 16 | (GDT_END - 1));
}

static struct outcome access_fault;
static __attribute__((noinline)) bool try_linear(unsigned seg, uint64_t off, unsigned size, enum mmu_access acc, uint64_t *out)
{
	if (__builtin_setjmp(v->fault_jmp)) {
		access_fault = (struct outcome){ v->event.vector, v->event.kind, v->event.has_error, v->event.error };
		v->event.active = 0;
		return false;
	}
	*out = seg_linear_slow(v, seg, off, size, acc);
	return true;
}

static void test_linear(void **state)
{
	static const struct { uint16_t selector; uint64_t off; uint8_t size; enum mmu_access acc; int64_t linear; } cases[] = {
		{ FRESH, 0, 4, ACC_WRITE, 0x5000 }, { FRESH, 0xffc, 4, ACC_READ, 0x5ffc }, { FRESH, 0xffd, 4, ACC_READ, -1 },
		{ FRESH, 0xfff, 1, ACC_READ, 0x5fff }, { FRESH, 0x1000, 1, ACC_READ, -1 }, { FRESH, 0xffffffff, 2, ACC_READ, -1 },
		{ DOWN, 0xfff, 1, ACC_READ, -1 }, { DOWN, 0x1000, 1, ACC_READ, 0x1000 }, { DOWN, 0xffc, 8, ACC_READ, -1 },
		{ DOWN, 0xffffffff, 1, ACC_READ, 0xffffffff }, { DOWN, 0xffffffff, 2, ACC_READ, -1 },
		{ RODATA, 4, 4, ACC_READ, 4 }, { RODATA, 4, 4, ACC_WRITE, -1 }, { RODATA, 4, 4, ACC_RMW, -1 },
		{ CODE32, 4, 4, ACC_READ, 4 }, { CODE32, 4, 4, ACC_WRITE, -1 }, { CODE32, 4, 4, ACC_FETCH, 4 },
		{ 0, 0, 1, ACC_READ, -1 }, { DATA32, 0xffffffff, 1, ACC_WRITE, 0xffffffff },
		{ DATA32, 0xffffffff, 2, ACC_WRITE, -1 },
	};

	for (unsigned n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
		uint64_t linear = 0;
		bool ok;

		cpu(PROT, 0);
		assert_done(mov_sreg(SEG_FS, cases[n].selector));
		ok = try_linear(SEG_FS, cases[n].off, cases[n].size, cases[n].acc, &linear);
		if (ok != (cases[n].linear >= 0) || (ok && linear != (uint64_t)cases[n].linear))
			fail_msg("case %u: %d %lx", n, ok, (long)linear);
		if (!ok)
			assert_fault(access_fault, EXC_GP, 0);
	}
	cpu(PROT, 0);
	assert_done(mov_sreg(SEG_SS, FRESH));
	assert_false(try_linear(SEG_SS, 0x1000, 1, ACC_READ, &(uint64_t){ 0 }));
	assert_fault(access_fault, EXC_SS, 0);
	/* Real mode: type is not looked at, the limit is. */
	cpu(REAL, 0);
	assert_true(try_linear(SEG_CS, 0x10, 2, ACC_WRITE, &(uint64_t){ 0 }));
	assert_false(try_linear(SEG_DS, 0xffff, 2, ACC_READ, &(uint64_t){ 0 }));
	assert_fault(access_fault, EXC_GP, 0);
	/* 16-bit expand-down ends at 64 KiB. */
	cpu(PROT, 0);
	poke(GDT + DOWN, make_desc(0, 0xfff, 0x97, 0), 8);
	assert_done(mov_sreg(SEG_FS, DOWN));
	assert_true(try_linear(SEG_FS, 0xfffe, 2, ACC_READ, &(uint64_t){ 0 }));
	assert_false(try_linear(SEG_FS, 0xffff, 2, ACC_READ, &(uint64_t){ 0 }));
}

static void test_modes(void **state)
{
	cpu(LONG, 3);
	assert_int_equal(v->mode, MODE_64);
	assert_int_equal(v->stack_size, 8);
	assert_int_equal(v->tlb_view, TLB_USER);
	v->cr0 |= CR0_AM;
	v->rflags |= FL_AC;
	soft_update_mode(v);
	assert_int_equal(v->ac_check, 1);
	assert_int_equal(v->tlb_view, TLB_SLOW);
	assert_ptr_equal(v->tlb_now, v->tlb[TLB_SLOW]);
	cpu(LONG, 0);
	assert_int_equal(v->tlb_view, TLB_KERNEL);
	v->rflags |= FL_AC;
	soft_update_mode(v);
	assert_int_equal(v->tlb_view, TLB_KERNEL); /* no SMAP */
	v->cr4 |= CR4_SMAP;
	soft_update_mode(v);
	assert_int_equal(v->tlb_view, TLB_KERNEL_AC);
	v->dr[7] |= 2; /* a code breakpoint does not make data slow */
	soft_update_mode(v);
	assert_int_equal(v->tlb_view, TLB_KERNEL_AC);
	v->dr[7] |= 1 << 16; /* data writes */
	soft_update_mode(v);
	assert_int_equal(v->tlb_view, TLB_SLOW);
	cpu(COMPAT, 3);
	assert_int_equal(v->mode, MODE_32);
	assert_int_equal(v->stack_size, 4);
	assert_int_equal(v->long_mode, 1);
	cpu(REAL, 0);
	assert_int_equal(v->mode, MODE_16);
	assert_int_equal(v->stack_size, 2);
	cpu(VM86, 3);
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->mode, MODE_16);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_load_checks), cmocka_unit_test(test_load_values), cmocka_unit_test(test_paragraphs),
		cmocka_unit_test(test_shadow),	    cmocka_unit_test(test_push_pop),	cmocka_unit_test(test_far_pointers),
		cmocka_unit_test(test_mov_from),    cmocka_unit_test(test_lar_lsl_verr_verw), cmocka_unit_test(test_arpl),
		cmocka_unit_test(test_lldt_ltr),    cmocka_unit_test(test_tables),	cmocka_unit_test(test_linear),
		cmocka_unit_test(test_modes),
	};

	return cmocka_run_group_tests(tests, stub_setup, stub_teardown);
}
