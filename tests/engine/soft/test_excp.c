/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Delivery through IVT and IDT, double faults (SDM vol. 3 table 6-5), IRET, priorities, debug traps. */
#include "sys_stubs.h"

#define HANDLER(vector) (0x100000u + (vector) * 16)

/* 16-byte gates; handlers in CODE64. access 0x8e: interrupt gate, 0x8f: trap gate. */
static void long_gate(unsigned vector, uint16_t selector, unsigned access, unsigned ist)
{
	poke(IDT + vector * 16, make_gate(selector, HANDLER(vector), access, ist), 8);
	poke(IDT + vector * 16 + 8, 0, 8);
}

static void gate(unsigned vector, uint16_t selector, unsigned access)
{
	poke(IDT + vector * 8, make_gate(selector, HANDLER(vector), access, 0), 8);
}

static void gates(enum mode mode)
{
	for (unsigned vector = 0; vector < 256; vector++) {
		if (mode == LONG || mode == COMPAT)
			long_gate(vector, CODE64, 0x8e, 0);
		else
			gate(vector, CODE32, 0x8e);
	}
}

static void event(unsigned kind, unsigned vector, uint32_t error, bool has_error)
{
	memset(&v->event, 0, sizeof(v->event));
	v->event.active = 1;
	v->event.kind = kind;
	v->event.vector = vector;
	v->event.error = error;
	v->event.has_error = has_error;
}

static bool exception(unsigned vector, uint32_t error)
{
	event(EVENT_EXCEPTION, vector, error, vector == 8 || (vector >= 10 && vector <= 14) || vector == 17);
	return excp_deliver(v);
}

/* Vector of the handler that v->rip is in. */
static int handler(void)
{
	return v->rip >= HANDLER(0) && v->rip < HANDLER(256) ? (int)(v->rip - HANDLER(0)) / 16 : -1;
}

/* ---- 64-bit delivery ----------------------------------------------------- */

static void test_long_same_level(void **state)
{
	for (int fill = 0; fill < 2; fill++) {
		cpu(LONG, 0);
		gates(LONG);
		fill_tlb = fill;
		v->gpr[R_SP] = 0x8fff; /* aligned down to 16 */
		v->rflags |= FL_IF | FL_TF | FL_NT | FL_CF | FL_DF;
		assert_true(exception(EXC_GP, 0x123 << 3));
		assert_int_equal(handler(), EXC_GP);
		assert_int_equal(v->next_rip, v->rip);
		assert_int_equal(v->gpr[R_SP], 0x8ff0 - 48);
		assert_int_equal(peek(0x8ff0 - 8, 8), DATA32);
		assert_int_equal(peek(0x8ff0 - 16, 8), 0x8fff);
		assert_int_equal(peek(0x8ff0 - 24, 8), 0x10000 | FL_IF | FL_TF | FL_NT | FL_CF | FL_DF | 2); /* RF: a fault */
		assert_int_equal(peek(0x8ff0 - 32, 8), CODE64);
		assert_int_equal(peek(0x8ff0 - 40, 8), CODE);
		assert_int_equal(peek(0x8ff0 - 48, 8), 0x123 << 3);
		assert_int_equal(v->rflags, FL_CF | FL_DF | 2);
		assert_int_equal(v->seg[SEG_SS].selector, DATA32);
		assert_int_equal(v->cpl, 0);
		assert_int_equal(v->event.active, 0);
		/* Again on the same page: with `fill` this goes through the TLB. */
		assert_true(exception(EXC_UD, 0));
		assert_int_equal(v->gpr[R_SP], 0x8fc0 - 40);
		assert_int_equal(peek(0x8fc0 - 40, 8), HANDLER(EXC_GP));
	}
}

static void test_long_inner(void **state)
{
	for (int fill = 0; fill < 2; fill++) {
		cpu(LONG, 3);
		gates(LONG);
		fill_tlb = fill;
		kernel_at = KSTACK - 0x1000; /* the stack and tables are the supervisor's */
		kernel_size = 0x1000;
		v->rflags |= FL_IF;
		v->event.payload = 0;
		assert_true(exception(EXC_PF, 4));
		assert_int_equal(handler(), EXC_PF);
		assert_int_equal(v->gpr[R_SP], KSTACK - 48);
		assert_int_equal(peek(KSTACK - 8, 8), UDATA32 | 3);
		assert_int_equal(peek(KSTACK - 16, 8), STACK);
		assert_int_equal(peek(KSTACK - 32, 8), UCODE64 | 3);
		assert_int_equal(v->cpl, 0);
		assert_int_equal(v->tlb_view, TLB_KERNEL);
		assert_int_equal(v->seg[SEG_SS].selector, 0);
		assert_int_equal(v->seg[SEG_CS].selector, CODE64);
		assert_int_equal(v->rflags & FL_IF, 0);
		assert_int_equal(v->rflags & FL_RF, 0);
	}
	/* From compatibility mode, through a trap gate on IST1 to level 0. */
	cpu(COMPAT, 3);
	gates(LONG);
	long_gate(0x80, CODE64, 0xef, 1);
	v->rflags |= FL_IF;
	assert_int_equal(RUN(0xcd, 0x80).kind, EVENT_INT);
	assert_true(excp_deliver(v));
	assert_int_equal(handler(), 0x80);
	assert_int_equal(v->mode, MODE_64);
	assert_int_equal(v->stack_size, 8);
	assert_int_equal(v->gpr[R_SP], ISTACK - 40);
	assert_int_equal(peek(ISTACK - 40, 8), CODE + 2);
	assert_int_equal(v->rflags & FL_IF, FL_IF);
	assert_int_equal(peek(ISTACK - 24, 8) & FL_RF, 0);
	/* IST without a change of level keeps SS. */
	cpu(LONG, 0);
	gates(LONG);
	long_gate(2, CODE64, 0x8e, 1);
	event(EVENT_NMI, 2, 0, false);
	assert_true(excp_deliver(v));
	assert_int_equal(v->gpr[R_SP], ISTACK - 40);
	assert_int_equal(v->seg[SEG_SS].selector, DATA32);
	assert_int_equal(v->nmi_masked, 1);
	/* A conforming handler runs at CPL 3, on the user's stack. */
	cpu(LONG, 3);
	gates(LONG);
	poke(GDT + CONF, make_desc(0, 0xfffff, 0x9e, 0xa), 8);
	long_gate(6, CONF, 0x8e, 0);
	assert_true(exception(EXC_UD, 0));
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->seg[SEG_CS].selector, CONF | 3);
	assert_int_equal(v->gpr[R_SP], STACK - 40);
	assert_int_equal(peek(GDT + CONF + 5, 1), 0x9f);
}

/*
 * One fault in delivery: the first event is benign, so that the fault is
 * delivered as it is, with EXT for what is not INT n, INT3, INTO.
 */
static void test_long_faults(void **state)
{
	static const struct { const char *what; int vector; uint32_t error; } cases[] = {
		{ "beyond the IDT", EXC_GP, 0x40 << 3 | 2 },	   { "not a gate", EXC_GP, 0x40 << 3 | 2 },
		{ "16-bit gate", EXC_GP, 0x40 << 3 | 2 },	   { "absent gate", EXC_NP, 0x40 << 3 | 2 },
		{ "null selector", EXC_GP, 0 },			   { "beyond the GDT", EXC_GP, GDT_END },
		{ "data segment", EXC_GP, DATA32 },		   { "32-bit code", EXC_GP, CODE32 },
		{ "L and D", EXC_GP, LD },			   { "absent code", EXC_NP, ABSENTCODE },
		{ "outer code", EXC_GP, UCODE64 },		   { "rip not canonical", EXC_GP, 0 },
		{ "TSS too short for IST", EXC_TS, TSSSEL },	   { "stack not canonical", EXC_SS, 0 },
		{ "task gate", EXC_GP, 0x40 << 3 | 2 },
	};

	for (int soft = 0; soft < 2; soft++) {
		for (unsigned n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
			unsigned ext = soft ? 0 : 1;
			uint16_t selector = CODE64;

			cpu(LONG, 0);
			gates(LONG);
			switch (n) {
			case 0: v->idtr.limit = 0x40 * 16 + 14; break;
			case 1: long_gate(0x40, CODE64, 0x8c, 0); break;
			case 2: long_gate(0x40, CODE64, 0x86, 0); break;
			case 3: long_gate(0x40, CODE64, 0x0e, 0); break;
			case 4: selector = 3; break;
			case 5: selector = GDT_END; break;
			case 6: selector = DATA32; break;
			case 7: selector = CODE32; break;
			case 8: selector = LD; break;
			case 9:
				poke(GDT + ABSENTCODE, make_desc(0, 0xfffff, 0x1b, 0xa), 8);
				selector = ABSENTCODE;
				break;
			case 10: selector = UCODE64; break;
			case 11: poke(IDT + 0x400 + 8, 0x00008000, 8); break;
			case 12: long_gate(0x40, CODE64, 0x8e, 1); v->tr.limit = 0x24 + 6; break;
			case 13: long_gate(0x40, CODE64, 0x8e, 1); poke(TSS + 0x24, 0x0000900000000000, 8); break;
			case 14: long_gate(0x40, CODE64, 0x85, 0); break;
			}
			if (selector != CODE64)
				long_gate(0x40, selector, 0x8e, 0);
			event(soft ? EVENT_INT : EVENT_EXTERNAL, 0x40, 0, false);
			v->event.insn_len = soft ? 2 : 0;
			assert_true(excp_deliver(v));
			if (handler() != cases[n].vector || peek(v->gpr[R_SP], 8) != (cases[n].error | ext))
				fail_msg("%s (%s): vector %d error %lx", cases[n].what, soft ? "INT n" : "interrupt", handler(),
					 (long)peek(v->gpr[R_SP], 8));
			/* The return address is the instruction itself, not the one behind it. */
			assert_int_equal(peek(v->gpr[R_SP] + 8, 8), CODE);
		}
	}
	/* Gate DPL counts for INT n and INT3, not for INT1 and exceptions. */
	cpu(LONG, 3);
	gates(LONG);
	assert_int_equal(RUN(0xcd, 0x40).vector, 0x40);
	assert_true(excp_deliver(v));
	assert_int_equal(handler(), EXC_GP);
	assert_int_equal(peek(v->gpr[R_SP], 8), 0x40 << 3 | 2);
	cpu(LONG, 3);
	gates(LONG);
	assert_int_equal(RUN(0xcc).vector, EXC_BP);
	assert_true(excp_deliver(v));
	assert_int_equal(handler(), EXC_GP);
	assert_int_equal(peek(v->gpr[R_SP], 8), EXC_BP << 3 | 2);
	cpu(LONG, 3);
	gates(LONG);
	assert_int_equal(RUN(0xf1).kind, EVENT_INT1);
	assert_true(excp_deliver(v));
	assert_int_equal(handler(), EXC_DB);
	assert_int_equal(peek(v->gpr[R_SP], 8), CODE + 1);
	assert_int_equal(v->dr[6], DR6_FIXED);
}

/* SDM vol. 3 table 6-5, with a first event of each class and a second of each class met in its delivery. */
static void test_double_fault(void **state)
{
	enum { BENIGN, CONTRIBUTORY, PAGE, DOUBLE };
	static const struct { uint8_t class, vector, kind; } firsts[] = {
		{ BENIGN, EXC_UD, EVENT_EXCEPTION }, { BENIGN, EXC_DB, EVENT_EXCEPTION }, { BENIGN, EXC_NMI, EVENT_NMI },
		{ BENIGN, EXC_BP, EVENT_INT3 }, { BENIGN, EXC_OF, EVENT_INT3 }, { BENIGN, EXC_BR, EVENT_EXCEPTION },
		{ BENIGN, EXC_NM, EVENT_EXCEPTION }, { BENIGN, EXC_MF, EVENT_EXCEPTION }, { BENIGN, EXC_AC, EVENT_EXCEPTION },
		{ BENIGN, EXC_MC, EVENT_EXCEPTION }, { BENIGN, EXC_XM, EVENT_EXCEPTION }, { BENIGN, 0x30, EVENT_EXTERNAL },
		{ BENIGN, 0x31, EVENT_INT }, { BENIGN, EXC_PF, EVENT_EXTERNAL }, { BENIGN, EXC_GP, EVENT_INT },
		{ CONTRIBUTORY, EXC_DE, EVENT_EXCEPTION }, { CONTRIBUTORY, EXC_TS, EVENT_EXCEPTION },
		{ CONTRIBUTORY, EXC_NP, EVENT_EXCEPTION }, { CONTRIBUTORY, EXC_SS, EVENT_EXCEPTION },
		{ CONTRIBUTORY, EXC_GP, EVENT_EXCEPTION }, { CONTRIBUTORY, EXC_CP, EVENT_EXCEPTION },
		{ PAGE, EXC_PF, EVENT_EXCEPTION }, { DOUBLE, EXC_DF, EVENT_EXCEPTION },
	};
	enum { SERIAL, COMBINE, SHUTDOWN };
	static const uint8_t expect[4][2] = { /* second: contributory, page fault */
		[BENIGN] = { SERIAL, SERIAL }, [CONTRIBUTORY] = { COMBINE, SERIAL }, [PAGE] = { COMBINE, COMBINE },
		[DOUBLE] = { SHUTDOWN, SHUTDOWN },
	};

	for (unsigned n = 0; n < sizeof(firsts) / sizeof(firsts[0]); n++) {
		for (unsigned second = 0; second < 2; second++) {
			unsigned vector = firsts[n].vector, want = expect[firsts[n].class][second];
			int second_vector = second ? EXC_PF : EXC_NP;
			bool ok;

			cpu(LONG, 0);
			gates(LONG);
			/*
			 * The first's gate lies where it can't be read, or is absent. The second's own gate must be good:
			 * where it is the same one, its stack is bad instead, on another IST.
			 */
			if (second) {
				if (vector == EXC_PF && firsts[n].class == BENIGN)
					continue;
				absent_at = IDT + vector * 16;
				absent_size = 16;
			} else {
				if (vector == EXC_NP)
					long_gate(EXC_NP, DATA32, 0x8e, 0), second_vector = EXC_GP;
				else
					long_gate(vector, CODE64, 0x0e, 0);
			}
			event(firsts[n].kind, vector, 0, false);
			v->event.payload = vector == EXC_PF ? 0x1111 : 0;
			ok = excp_deliver(v);
			if (want == SHUTDOWN) {
				if (ok)
					fail_msg("first %u, second %d: no shutdown", vector, second_vector);
				assert_int_equal(v->rip, CODE);
				assert_int_equal(v->gpr[R_SP], STACK);
				assert_int_equal(v->event.active, 0);
				continue;
			}
			assert_true(ok);
			if (handler() != (want == COMBINE ? EXC_DF : second_vector))
				fail_msg("first %u, second %d: in handler %d", vector, second_vector, handler());
			if (want == COMBINE)
				assert_int_equal(peek(v->gpr[R_SP], 8), 0);
			if (second)
				assert_int_equal(v->cr2, IDT + vector * 16);
			assert_int_equal(v->fault_depth, 0);
		}
	}
	/* #DF that can't be delivered, reached by way of two faults: triple fault. */
	cpu(LONG, 3);
	gates(LONG);
	v->idtr.limit = 0;
	assert_false(exception(EXC_GP, 0));
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->rip, CODE);
	/* A fault while pushing at the inner level gives the level back, then #DF on an IST. */
	cpu(LONG, 3);
	gates(LONG);
	long_gate(EXC_DF, CODE64, 0x8e, 1);
	absent_at = KSTACK - 0x100;
	absent_size = 0x100;
	assert_true(exception(EXC_PF, 0));
	assert_int_equal(handler(), EXC_DF);
	assert_int_equal(peek(ISTACK - 8, 8), UDATA32 | 3);
	assert_int_equal(peek(ISTACK - 40, 8), CODE);
	assert_int_equal(v->cpl, 0);
}

/* CR2 belongs to the delivery, not to the fault. */
static void test_cr2(void **state)
{
	cpu(LONG, 0);
	gates(LONG);
	v->cr2 = 1;
	absent_at = 0x7000;
	absent_size = 1;
	assert_int_equal(RUN(0x8e, 0x04, 0x25, 0x00, 0x70, 0x00, 0x00).vector, EXC_PF);
	assert_int_equal(v->cr2, 1);
	assert_int_equal(v->event.payload, 0x7000);
	assert_true(excp_deliver(v));
	assert_int_equal(v->cr2, 0x7000);
}

/* ---- Real, protected, virtual-8086 --------------------------------------- */

static void test_real(void **state)
{
	cpu(REAL, 0);
	poke(IDT + 0x21 * 4, 0x1234 << 16 | 0x5678, 4);
	v->gpr[R_SP] = 0x8000;
	v->rflags |= FL_IF | FL_TF | FL_CF | FL_AC;
	assert_int_equal(RUN(0xcd, 0x21).vector, 0x21);
	assert_true(excp_deliver(v));
	assert_int_equal(v->rip, 0x5678);
	assert_int_equal(v->seg[SEG_CS].base, 0x12340);
	assert_int_equal(v->gpr[R_SP], 0x7ffa);
	assert_int_equal(peek(0x7ffa, 2), 0x102);
	assert_int_equal(peek(0x7ffc, 2), CODE >> 4);
	assert_int_equal(peek(0x7ffe, 2), FL_IF | FL_TF | FL_CF | 2);
	assert_int_equal(v->rflags, FL_CF | 2);
	/* No error code is pushed. */
	cpu(REAL, 0);
	poke(IDT + 13 * 4, 0x1234 << 16 | 0x5678, 4);
	assert_true(exception(EXC_GP, 0));
	assert_int_equal(v->gpr[R_SP], 0x7ffa);
	/* Vector beyond the table: #GP, and with no table at all shutdown. */
	cpu(REAL, 0);
	v->idtr.limit = 13 * 4 + 3;
	poke(IDT + 13 * 4, 0x1234 << 16 | 0x5678, 4);
	event(EVENT_EXTERNAL, 14, 0, false);
	assert_true(excp_deliver(v));
	assert_int_equal(v->rip, 0x5678);
	cpu(REAL, 0);
	v->idtr.limit = 0;
	assert_false(exception(EXC_UD, 0));
	/* IRET */
	cpu(REAL, 0);
	poke(STACK, 0x4321, 2);
	poke(STACK + 2, 0x2000, 2);
	poke(STACK + 4, 0xffff, 2);
	assert_done(RUN(0xcf));
	assert_int_equal(v->rip, 0x4321);
	assert_int_equal(v->seg[SEG_CS].base, 0x20000);
	assert_int_equal(v->rflags, 0x7fd7);
	assert_int_equal(v->gpr[R_SP], STACK + 6);
	cpu(REAL, 0);
	poke(STACK, 0x10000, 4); /* IRETD beyond the limit */
	poke(STACK + 4, 0x2000, 4);
	assert_fault(RUN(0x66, 0xcf), EXC_GP, 0);
	assert_int_equal(v->gpr[R_SP], STACK);
}

static void test_protected(void **state)
{
	/* Inner level, 32-bit gate, error code */
	cpu(PROT, 3);
	gates(PROT);
	v->rflags |= FL_IF | FL_NT;
	kernel_at = KSTACK - 0x100;
	kernel_size = 0x100;
	assert_true(exception(EXC_NP, 0x48));
	assert_int_equal(handler(), EXC_NP);
	assert_int_equal(v->gpr[R_SP], KSTACK - 24);
	assert_int_equal(peek(KSTACK - 4, 4), UDATA32 | 3);
	assert_int_equal(peek(KSTACK - 8, 4), STACK);
	assert_int_equal(peek(KSTACK - 12, 4), FL_RF | FL_IF | FL_NT | 2);
	assert_int_equal(peek(KSTACK - 16, 4), UCODE32 | 3);
	assert_int_equal(peek(KSTACK - 20, 4), CODE);
	assert_int_equal(peek(KSTACK - 24, 4), 0x48);
	assert_int_equal(v->seg[SEG_SS].selector, DATA32);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->rflags, 2);
	/* To level 1 */
	cpu(PROT, 3);
	gates(PROT);
	gate(0x50, CODE1, 0xee);
	assert_int_equal(RUN(0xcd, 0x50).vector, 0x50);
	assert_true(excp_deliver(v));
	assert_int_equal(v->cpl, 1);
	assert_int_equal(v->seg[SEG_CS].selector, CODE1 | 1);
	assert_int_equal(v->seg[SEG_SS].selector, DATA1 | 1);
	assert_int_equal(v->gpr[R_SP], 0xb000 - 20);
	assert_int_equal(peek(0xb000 - 20, 4), CODE + 2);
	/* Same level, 16-bit trap gate */
	cpu(PROT, 0);
	gates(PROT);
	v->rflags |= FL_IF;
	poke(IDT + 0x50 * 8, make_gate(CODE32, 0x12345678, 0x87, 0), 8);
	event(EVENT_EXTERNAL, 0x50, 0, false);
	assert_true(excp_deliver(v));
	assert_int_equal(v->rip, 0x5678);
	assert_int_equal(v->gpr[R_SP], STACK - 6);
	assert_int_equal(v->rflags & FL_IF, FL_IF);
	/* Task gate: #GP(TSS selector), as switches are refused */
	cpu(PROT, 0);
	gates(PROT);
	poke(IDT + 0x50 * 8, make_gate(OTHERTSS, 0, 0x85, 0), 8);
	event(EVENT_INT, 0x50, 0, false);
	assert_true(excp_deliver(v));
	assert_int_equal(handler(), EXC_GP);
	assert_int_equal(peek(v->gpr[R_SP], 4), OTHERTSS);
}

static void test_protected_faults(void **state)
{
	static const struct { const char *what; uint8_t cpl; int vector; uint32_t error; } cases[] = {
		{ "beyond the IDT", 3, EXC_GP, 0x40 << 3 | 2 },	 { "call gate", 3, EXC_GP, 0x40 << 3 | 2 },
		{ "absent gate", 3, EXC_NP, 0x40 << 3 | 2 },	 { "null selector", 3, EXC_GP, 0 },
		{ "data segment", 3, EXC_GP, DATA32 },		 { "absent code", 3, EXC_NP, ABSENTCODE },
		{ "outer code", 0, EXC_GP, UCODE32 },		 { "SS null in TSS", 3, EXC_TS, 0 },
		{ "SS beyond the GDT", 3, EXC_TS, GDT_END },	 { "SS with wrong RPL", 3, EXC_TS, DATA32 },
		{ "SS with wrong DPL", 3, EXC_TS, UDATA32 },	 { "SS read-only", 3, EXC_TS, RODATA },
		{ "SS absent", 3, EXC_SS, ABSENT },		 { "TSS too short", 3, EXC_TS, TSSSEL },
		{ "EIP beyond the limit", 3, EXC_GP, 0 },	 { "no room on the inner stack", 3, EXC_SS, FRESH },
		{ "no room on the same stack", 0, EXC_SS, 0 },
	};

	for (unsigned n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
		cpu(PROT, cases[n].cpl);
		gates(PROT);
		/* Where the stack is what is wrong, #TS and #SS go to level 1, whose stack is good. */
		gate(EXC_TS, CODE1, 0x8e);
		gate(EXC_SS, CODE1, 0x8e);
		switch (n) {
		case 0: v->idtr.limit = 0x40 * 8 + 6; break;
		case 1: gate(0x40, CODE32, 0x8c); break;
		case 2: gate(0x40, CODE32, 0x0e); break;
		case 3: gate(0x40, 2, 0x8e); break;
		case 4: gate(0x40, DATA32, 0x8e); break;
		case 5: gate(0x40, ABSENTCODE, 0x8e); break;
		case 6: gate(0x40, UCODE32, 0x8e); break;
		case 7: poke(TSS + 8, 0, 4); break;
		case 8: poke(TSS + 8, GDT_END, 4); break;
		case 9: poke(TSS + 8, DATA32 | 1, 4); break;
		case 10: poke(TSS + 8, UDATA32, 4); break;
		case 11: poke(TSS + 8, RODATA, 4); break;
		case 12: poke(TSS + 8, ABSENT, 4); break;
		case 13:
			/* Long enough for level 1's?  No: so let #TS be at the same level. */
			v->tr.limit = 8;
			poke(GDT + CONF, make_desc(0, 0xfffff, 0x9f, 0xc), 8);
			gate(EXC_TS, CONF, 0x8e);
			break;
		case 14:
			poke(GDT + CODE16, make_desc(0, 0xffff, 0x9b, 0x4), 8);
			gate(0x40, CODE16, 0x8e);
			break;
		case 15: poke(TSS + 8, FRESH, 4); poke(TSS + 4, 0x2000, 4); break;
		case 16:
			/* At level 0 the limit of SS is below ESP; #SS has nowhere to go either: #DF, shutdown. */
			v->seg[SEG_SS].limit = 0xfff;
			event(EVENT_EXTERNAL, 0x40, 0, false);
			assert_false(excp_deliver(v));
			continue;
		}
		event(EVENT_EXTERNAL, 0x40, 0, false);
		assert_true(excp_deliver(v));
		if (handler() != cases[n].vector || peek(v->gpr[R_SP], 4) != (cases[n].error | 1))
			fail_msg("%s: vector %d error %lx", cases[n].what, handler(), (long)peek(v->gpr[R_SP], 4));
	}
}

static void test_vm86(void **state)
{
	static const uint16_t selectors[SEG_COUNT] = { 0x1111, 0x1000, 0x0700, 0x2222, 0x3333, 0x4444 };

	cpu(VM86, 3);
	gates(PROT);
	v->rflags |= FL_IF | 3 << 12;
	for (unsigned n = 0; n < SEG_COUNT; n++)
		seg_load_paragraph(v, n, selectors[n]);
	assert_int_equal(RUN(0xcd, 0x40).vector, 0x40);
	gate(0x40, CODE32, 0xee);
	assert_true(excp_deliver(v));
	assert_int_equal(handler(), 0x40);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->mode, MODE_32);
	assert_int_equal(v->rflags & FL_VM, 0);
	assert_int_equal(v->gpr[R_SP], KSTACK - 36);
	assert_int_equal(peek(KSTACK - 4, 4), 0x4444);
	assert_int_equal(peek(KSTACK - 8, 4), 0x3333);
	assert_int_equal(peek(KSTACK - 12, 4), 0x2222);
	assert_int_equal(peek(KSTACK - 16, 4), 0x1111);
	assert_int_equal(peek(KSTACK - 20, 4), 0x0700);
	assert_int_equal(peek(KSTACK - 24, 4), STACK);
	assert_int_equal(peek(KSTACK - 28, 4), FL_VM | FL_IF | 3 << 12 | 2);
	assert_int_equal(peek(KSTACK - 32, 4), 0x1000);
	assert_int_equal(peek(KSTACK - 36, 4), 0x102);
	assert_false(segment_usable(&v->seg[SEG_DS]));
	/* And back by IRETD */
	assert_done(RUN(0xcf));
	assert_int_equal(v->rflags, FL_VM | FL_IF | 3 << 12 | 2);
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->mode, MODE_16);
	assert_int_equal(v->rip, 0x102);
	assert_int_equal(v->gpr[R_SP], STACK);
	for (unsigned n = 0; n < SEG_COUNT; n++) {
		assert_int_equal(v->seg[n].selector, selectors[n]);
		assert_int_equal(v->seg[n].base, selectors[n] << 4);
		assert_int_equal(v->seg[n].limit, 0xffff);
		assert_int_equal(v->seg[n].attr, 0xf3);
	}
	/* Handlers must be at level 0. */
	gate(0x41, CODE1, 0xee);
	assert_int_equal(RUN(0xcd, 0x41).vector, 0x41);
	assert_true(excp_deliver(v));
	assert_int_equal(handler(), EXC_GP);
	assert_int_equal(peek(v->gpr[R_SP], 4), CODE1);
	/* IOPL below 3 */
	cpu(VM86, 3);
	gates(PROT);
	assert_fault(RUN(0xcd, 0x40), EXC_GP, 0);
	assert_fault(RUN(0xcf), EXC_GP, 0);
	assert_fault(RUN(0x9c), EXC_GP, 0);
	assert_fault(RUN(0x9d), EXC_GP, 0);
	assert_fault(RUN(0xfa), EXC_GP, 0);
	assert_fault(RUN(0xfb), EXC_GP, 0);
	assert_int_equal(RUN(0xcc).vector, EXC_BP); /* INT3 does not ask IOPL */
	/* IRET inside VM86 leaves VM and IOPL */
	cpu(VM86, 3);
	v->rflags |= 3 << 12;
	poke(STACK, 0x4321, 2);
	poke(STACK + 2, 0x2000, 2);
	poke(STACK + 4, FL_CF | FL_IF, 2);
	assert_done(RUN(0xcf));
	assert_int_equal(v->rflags, FL_VM | 3 << 12 | FL_IF | FL_CF | 2);
	assert_int_equal(v->seg[SEG_CS].base, 0x20000);
}

/* ---- IRET ---------------------------------------------------------------- */

static void iret_frame(unsigned size, uint64_t rip, uint16_t cs, uint64_t flags, uint64_t rsp, uint16_t ss)
{
	uint64_t at = v->gpr[R_SP], item[5] = { rip, cs, flags, rsp, ss };

	for (unsigned n = 0; n < 5; n++)
		poke(at + n * size, item[n], size);
}

static void test_iret_long(void **state)
{
	for (int fill = 0; fill < 2; fill++) {
		cpu(LONG, 0);
		fill_tlb = fill;
		if (fill)
			mmu_read(v, STACK, &(uint64_t){ 0 }, 8, true);
		v->seg[SEG_ES] = desc_segment(peek(GDT + DATA32, 8), DATA32);
		v->seg[SEG_GS] = segment_null(0, 0);
		v->seg[SEG_GS].base = 0x123456789abc;
		v->nmi_masked = 1;
		v->nmi_pending = 1;
		iret_frame(8, TARGET, UCODE64 | 3, 0x3c7fd7 | FL_RF | FL_VM, 0x7770, UDATA32 | 3);
		assert_done(RUN(0x48, 0xcf));
		assert_int_equal(v->rip, TARGET);
		assert_int_equal(v->cpl, 3);
		assert_int_equal(v->tlb_view, TLB_USER);
		assert_int_equal(v->gpr[R_SP], 0x7770);
		assert_int_equal(v->seg[SEG_SS].selector, UDATA32 | 3);
		assert_int_equal(v->rflags, 0x247fd7);
		/* What level 3 may not use is null; a null GS keeps its base. */
		assert_false(segment_usable(&v->seg[SEG_ES]));
		assert_int_equal(v->seg[SEG_ES].selector, 0);
		assert_int_equal(v->seg[SEG_GS].base, 0x123456789abc);
		assert_int_equal(v->nmi_masked, 0);
		assert_true(atomic_load(&v->request) & REQ_NMI);
		assert_true(atomic_load(&v->request) & REQ_TRAP); /* TF */
	}
	/* To compatibility mode */
	cpu(LONG, 0);
	iret_frame(8, TARGET, UCODE32 | 3, 2, 0x7770, UDATA32 | 3);
	assert_done(RUN(0x48, 0xcf));
	assert_int_equal(v->mode, MODE_32);
	assert_int_equal(v->stack_size, 4);
	/* Null SS to level 0 */
	cpu(LONG, 0);
	iret_frame(8, TARGET, CODE64, 2, 0x7770, 0);
	assert_done(RUN(0x48, 0xcf));
	assert_int_equal(v->seg[SEG_SS].selector, 0);
	assert_int_equal(v->cpl, 0);
	/* 32-bit operand size pops five doublewords */
	cpu(LONG, 0);
	iret_frame(4, TARGET, CODE64, FL_ID | 2, 0x7770, DATA32);
	assert_done(RUN(0xcf));
	assert_int_equal(v->rip, TARGET);
	assert_int_equal(v->gpr[R_SP], 0x7770);
	assert_int_equal(v->rflags, FL_ID | 2);
	/* At level 3 IOPL and IF stay. */
	cpu(LONG, 3);
	v->rflags |= FL_IF;
	iret_frame(8, TARGET, UCODE64 | 3, 3 << 12 | FL_CF, 0x7770, UDATA32 | 3);
	assert_done(RUN(0x48, 0xcf));
	assert_int_equal(v->rflags, FL_IF | FL_CF | 2);
	/* RF lives only while there are code breakpoints. */
	cpu(LONG, 0);
	v->dr[7] |= 2;
	iret_frame(8, TARGET, CODE64, FL_RF, 0x7770, DATA32);
	assert_done(RUN(0x48, 0xcf));
	assert_int_equal(v->rflags, FL_RF | 2);
}

static void test_iret_faults(void **state)
{
	static const struct { enum mode mode; uint8_t cpl; uint64_t rip; uint16_t cs, ss; int vector; uint32_t error; } cases[] = {
		{ LONG, 0, TARGET, 0, DATA32, EXC_GP, 0 },
		{ LONG, 0, TARGET, GDT_END, DATA32, EXC_GP, GDT_END },
		{ LONG, 0, TARGET, DATA32, DATA32, EXC_GP, DATA32 },
		{ LONG, 3, TARGET, CODE64, DATA32, EXC_GP, CODE64 },	       /* RPL < CPL */
		{ LONG, 0, TARGET, CODE64 | 3, UDATA32 | 3, EXC_GP, CODE64 },  /* DPL != RPL */
		{ LONG, 0, TARGET, UCODE64, DATA32, EXC_GP, UCODE64 },
		{ LONG, 0, TARGET, LD, DATA32, EXC_GP, LD },
		{ LONG, 0, TARGET, ABSENTCODE, DATA32, EXC_NP, ABSENTCODE },
		{ LONG, 0, 0x0000800000000000, CODE64, DATA32, EXC_GP, 0 },
		{ LONG, 0, 0x0000800000000000, UCODE64 | 3, UDATA32 | 3, EXC_GP, 0 },
		{ LONG, 0, TARGET, UCODE64 | 3, 0, EXC_GP, 0 },		       /* null SS to level 3 */
		{ LONG, 0, TARGET, CODE64, 3, EXC_GP, 0 },
		{ LONG, 0, TARGET, CODE32, 0, EXC_GP, 0 },		       /* null SS to compatibility mode */
		{ LONG, 0, TARGET, UCODE64 | 3, DATA32, EXC_GP, DATA32 },
		{ LONG, 0, TARGET, UCODE64 | 3, DATA32 | 3, EXC_GP, DATA32 },
		{ LONG, 0, TARGET, UCODE64 | 3, UCODE64 | 3, EXC_GP, UCODE64 },
		{ LONG, 0, TARGET, UCODE64 | 3, UABSENT | 3, EXC_SS, UABSENT },
		{ LONG, 0, TARGET, CODE64, RODATA, EXC_GP, RODATA },
		{ PROT, 0, TARGET, UCODE32 | 3, DATA32 | 3, EXC_GP, DATA32 },
		{ PROT, 0, TARGET, UCODE32 | 3, 0, EXC_GP, 0 },
		{ PROT, 0, 0x10000, CODE16, DATA32, EXC_GP, 0 },
		{ PROT, 3, TARGET, CODE32, DATA32, EXC_GP, CODE32 },
		{ PROT, 0, TARGET, UCODE32 | 3, UABSENT | 3, EXC_SS, UABSENT },
	};

	for (unsigned n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
		for (int fill = 0; fill < 2; fill++) {
			struct cpu_segment cs, ss;
			struct outcome o;

			cpu(cases[n].mode, cases[n].cpl);
			fill_tlb = fill;
			if (fill)
				mmu_read(v, STACK, &(uint64_t){ 0 }, 8, true);
			cs = v->seg[SEG_CS];
			ss = v->seg[SEG_SS];
			iret_frame(cases[n].mode == LONG ? 8 : 4, cases[n].rip, cases[n].cs, 0x7fd7 & ~FL_NT, 0x7770, cases[n].ss);
			o = cases[n].mode == LONG ? RUN(0x48, 0xcf) : RUN(0xcf);
			if (o.vector != cases[n].vector || o.error != cases[n].error)
				fail_msg("case %u fill %d: vector %d error %04x", n, fill, o.vector, o.error);
			assert_memory_equal(&cs, &v->seg[SEG_CS], sizeof(cs));
			assert_memory_equal(&ss, &v->seg[SEG_SS], sizeof(ss));
			assert_int_equal(v->gpr[R_SP], STACK);
			assert_int_equal(v->rflags, 2);
			assert_int_equal(v->cpl, cases[n].cpl);
		}
	}
	/* NT: #GP(0) in long mode; outside a task return, which is refused with the back link as error code. */
	cpu(LONG, 0);
	v->rflags |= FL_NT;
	assert_fault(RUN(0x48, 0xcf), EXC_GP, 0);
	cpu(PROT, 0);
	v->rflags |= FL_NT;
	poke(TSS, OTHERTSS, 2);
	assert_fault(RUN(0xcf), EXC_GP, OTHERTSS);
}

static void test_iret_protected(void **state)
{
	cpu(PROT, 0);
	iret_frame(4, TARGET, UCODE32 | 3, FL_IF | 3 << 12, 0x7770, UDATA32 | 3);
	assert_done(RUN(0xcf));
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->gpr[R_SP], 0x7770);
	assert_int_equal(v->rflags, FL_IF | 3 << 12 | 2);
	assert_int_equal(v->seg[SEG_DS].selector, 0);
	/* Same level pops three. */
	cpu(PROT, 0);
	iret_frame(4, TARGET, CODE32, 2, 0, 0);
	assert_done(RUN(0xcf));
	assert_int_equal(v->gpr[R_SP], STACK + 12);
	/* To a 16-bit stack: the upper half of ESP stays the kernel's. */
	cpu(PROT, 0);
	poke(GDT + DATA1, make_desc(0, 0xffff, 0xf3, 0), 8);
	v->gpr[R_SP] = 0x18000;
	iret_frame(4, TARGET, UCODE32 | 3, 2, 0x77770, DATA1 | 3);
	assert_done(RUN(0xcf));
	assert_int_equal(v->gpr[R_SP], 0x17770);
	/* 16-bit IRET leaves the upper half of EFLAGS. */
	cpu(PROT, 0);
	v->rflags |= FL_ID | FL_AC;
	iret_frame(2, 0x1234, CODE32, FL_CF, 0, 0);
	assert_done(RUN(0x66, 0xcf));
	assert_int_equal(v->rip, 0x1234);
	assert_int_equal(v->rflags, FL_ID | FL_AC | FL_CF | 2);
}

/* ---- Between instructions ------------------------------------------------ */

static void test_poll_interrupts(void **state)
{
	cpu(LONG, 0);
	gates(LONG);
	acked = 0;
	/* IF clear: held, asked for again when IF is set. */
	pending = 0x55;
	soft_request(v, REQ_IRQ);
	assert_false(excp_poll(v));
	assert_int_equal(atomic_load(&v->request), 0);
	assert_int_equal(acked, 0);
	assert_done(RUN(0xfb)); /* STI */
	assert_int_equal(v->shadow, 1);
	assert_true(atomic_load(&v->request) & REQ_IRQ);
	assert_false(excp_poll(v)); /* the shadow */
	assert_true(atomic_load(&v->request) & REQ_IRQ);
	v->shadow = 0;
	assert_true(excp_poll(v));
	assert_int_equal(acked, 1);
	assert_true(excp_deliver(v));
	assert_int_equal(handler(), 0x55);
	assert_int_equal(peek(v->gpr[R_SP], 8), CODE + 1);
	/* Another one waits: looked at when IRET sets IF. */
	pending = 0x44;
	assert_false(excp_poll(v));
	assert_done(RUN(0x48, 0xcf));
	assert_true(atomic_load(&v->request) & REQ_IRQ);
	assert_true(excp_poll(v));
	assert_true(excp_deliver(v));
	assert_int_equal(handler(), 0x44);
	/* A second STI gives no shadow. */
	cpu(LONG, 0);
	v->rflags |= FL_IF;
	assert_done(RUN(0xfb));
	assert_int_equal(v->shadow, 0);
	/* Through a trap gate IF stays: the next one is asked for at once. */
	cpu(LONG, 0);
	gates(LONG);
	long_gate(0x55, CODE64, 0x8f, 0);
	v->rflags |= FL_IF;
	pending = 0x55;
	soft_request(v, REQ_IRQ);
	assert_true(excp_poll(v));
	assert_true(excp_deliver(v));
	assert_true(atomic_load(&v->request) & REQ_IRQ);
	/* POPF */
	cpu(LONG, 0);
	pending = 0x55;
	soft_request(v, REQ_IRQ);
	assert_false(excp_poll(v));
	poke(STACK, FL_IF, 8);
	assert_done(RUN(0x9d));
	assert_int_equal(v->shadow, 0);
	assert_true(excp_poll(v));
}

static void test_poll_halt_nmi_init(void **state)
{
	cpu(LONG, 0);
	gates(LONG);
	v->rflags |= FL_IF;
	assert_done(RUN(0xf4));
	assert_int_equal(v->mp_state, CPU_MP_HALTED);
	assert_true(atomic_load(&v->request) & REQ_STATE);
	assert_false(excp_poll(v));
	assert_int_equal(v->mp_state, CPU_MP_HALTED);
	pending = 0x20;
	soft_request(v, REQ_IRQ);
	assert_true(excp_poll(v));
	assert_true(excp_deliver(v));
	assert_int_equal(v->mp_state, CPU_MP_RUNNABLE);
	assert_int_equal(peek(v->gpr[R_SP], 8), CODE + 1);
	/* Breakpoints do not keep a halted CPU awake, and are in force when it wakes. */
	cpu(LONG, 0);
	gates(LONG);
	v->rflags |= FL_IF;
	v->dr[7] |= 1 | 3 << 16;
	soft_update_mode(v);
	assert_true(atomic_load(&v->request) & REQ_TRAP);
	assert_done(RUN(0xf4));
	assert_false(excp_poll(v));
	assert_false(atomic_load(&v->request) & REQ_TRAP);
	pending = 0x20;
	soft_request(v, REQ_IRQ);
	assert_true(excp_poll(v));
	assert_true(excp_deliver(v));
	assert_true(atomic_load(&v->request) & REQ_TRAP);
	assert_false(excp_poll(v));
	assert_true(atomic_load(&v->request) & REQ_TRAP); /* sticks while there are breakpoints */
	/* NMI comes before interrupts, is masked until IRET. */
	cpu(LONG, 0);
	gates(LONG);
	v->rflags |= FL_IF;
	pending = 0x20;
	soft_request(v, REQ_IRQ | REQ_NMI);
	assert_true(excp_poll(v));
	assert_int_equal(v->event.kind, EVENT_NMI);
	assert_true(excp_deliver(v));
	assert_int_equal(handler(), 2);
	assert_int_equal(v->nmi_masked, 1);
	soft_request(v, REQ_NMI);
	assert_false(excp_poll(v));
	assert_int_equal(v->nmi_pending, 1);
	assert_int_equal(atomic_load(&v->request), 0);
	assert_done(RUN(0x48, 0xcf));
	assert_true(excp_poll(v));
	assert_int_equal(v->event.kind, EVENT_NMI);
	/* MOV SS holds NMI back. */
	cpu(LONG, 0);
	v->shadow = 2;
	soft_request(v, REQ_NMI);
	assert_false(excp_poll(v));
	assert_true(atomic_load(&v->request) & REQ_NMI);
	v->shadow = 0;
	assert_true(excp_poll(v));
	/* INIT, SIPI */
	cpu(LONG, 0);
	inits = 0;
	sipi = -1;
	soft_request(v, REQ_SIPI); /* ignored by a running CPU */
	assert_false(excp_poll(v));
	assert_int_equal(sipi, -1);
	atomic_store(&v->sipi_vector, 0x9a);
	soft_request(v, REQ_INIT);
	assert_false(excp_poll(v));
	assert_int_equal(inits, 1);
	soft_request(v, REQ_NMI);
	assert_false(excp_poll(v)); /* not in wait-for-SIPI */
	soft_request(v, REQ_SIPI);
	excp_poll(v);
	assert_int_equal(sipi, 0x9a);
	assert_int_equal(v->mp_state, CPU_MP_RUNNABLE);
	/* An event that came with the state is delivered first. */
	cpu(LONG, 0);
	event(EVENT_EXTERNAL, 0x77, 0, false);
	assert_true(excp_poll(v));
}

/* Poll, then one instruction: what the loop does while REQ_TRAP is set. */
static bool step_nop(void)
{
	if (excp_poll(v))
		return false;
	assert_done(RUN(0xfa)); /* CLI: one of ours that changes nothing here */
	return true;
}

static void test_single_step(void **state)
{
	cpu(LONG, 0);
	gates(LONG);
	/* POPF that sets TF: the trap comes after the next instruction. */
	poke(STACK, FL_TF, 8);
	assert_false(excp_poll(v));
	assert_done(RUN(0x9d));
	assert_true(atomic_load(&v->request) & REQ_TRAP);
	assert_true(step_nop());
	assert_true(excp_poll(v));
	assert_int_equal(v->event.vector, EXC_DB);
	assert_int_equal(v->event.payload, DR6_BS);
	assert_true(excp_deliver(v));
	assert_int_equal(handler(), EXC_DB);
	assert_int_equal(v->dr[6], DR6_FIXED | DR6_BS);
	assert_int_equal(peek(v->gpr[R_SP], 8), CODE + 2);
	assert_int_equal(peek(v->gpr[R_SP] + 16, 8), FL_TF | 2); /* TF as it was, no RF */
	assert_int_equal(v->rflags & FL_TF, 0);
	/* The handler is not stepped. */
	assert_false(excp_poll(v));
	assert_int_equal(atomic_load(&v->request) & REQ_TRAP, 0);
	/* POPF that clears TF is still trapped after. */
	cpu(LONG, 0);
	gates(LONG);
	v->rflags |= FL_TF;
	soft_request(v, REQ_TRAP);
	poke(STACK, 0, 8);
	assert_false(excp_poll(v));
	assert_done(RUN(0x9d));
	assert_true(excp_poll(v));
	/* MOV SS: its own trap is swallowed, the next instruction's is not. */
	cpu(LONG, 0);
	gates(LONG);
	v->rflags |= FL_TF;
	soft_request(v, REQ_TRAP);
	v->gpr[R_AX] = DATA32;
	assert_false(excp_poll(v));
	assert_done(RUN(0x8e, 0xd0));
	assert_false(excp_poll(v));
	assert_true(step_nop());
	assert_true(excp_poll(v));
	assert_int_equal(v->event.payload, DR6_BS);
	/* A data breakpoint met by MOV SS waits as well. */
	cpu(LONG, 0);
	v->shadow = 2;
	v->dr6_pending = 1;
	soft_request(v, REQ_TRAP);
	assert_false(excp_poll(v));
	assert_true(atomic_load(&v->request) & REQ_TRAP);
	v->shadow = 0;
	assert_true(excp_poll(v));
	assert_int_equal(v->event.payload, 1);
	/* A fault takes the place of the trap; INT n clears TF without one. */
	cpu(LONG, 0);
	gates(LONG);
	v->rflags |= FL_TF;
	soft_request(v, REQ_TRAP);
	assert_false(excp_poll(v));
	assert_int_equal(RUN(0xcd, 0x60).vector, 0x60);
	assert_true(excp_deliver(v));
	assert_false(excp_poll(v));
	assert_int_equal(handler(), 0x60);
}

static void test_code_breakpoints(void **state)
{
	cpu(LONG, 0);
	gates(LONG);
	v->gpr[R_AX] = CODE + 1;
	assert_done(RUN(0x0f, 0x23, 0xd0)); /* MOV DR2, RAX */
	v->rip = CODE;
	v->gpr[R_AX] = 1 << 4;
	assert_done(RUN(0x0f, 0x23, 0xf8)); /* MOV DR7, RAX: L2, fetch */
	assert_true(atomic_load(&v->request) & REQ_TRAP);
	v->rip = CODE;
	assert_true(step_nop());
	assert_true(excp_poll(v));
	assert_int_equal(v->event.payload, 4);
	assert_true(excp_deliver(v));
	assert_int_equal(v->dr[6], DR6_FIXED | 4);
	assert_int_equal(peek(v->gpr[R_SP], 8), CODE + 1);
	assert_int_equal(peek(v->gpr[R_SP] + 16, 8) & FL_RF, 0);
	/* The handler sets RF in the image; IRET gets past. */
	poke(v->gpr[R_SP] + 16, FL_RF | 2, 8);
	assert_done(RUN(0x48, 0xcf));
	assert_int_equal(v->rip, CODE + 1);
	assert_false(excp_poll(v));
	assert_int_equal(v->rflags & FL_RF, 0);
	/* Without RF it hits again. */
	assert_true(excp_poll(v));
	/* GD: #DB before the access, RF in the image, GD cleared. */
	cpu(LONG, 0);
	gates(LONG);
	v->dr[7] |= DR7_GD;
	assert_int_equal(RUN(0x0f, 0x21, 0xf0).vector, EXC_DB);
	assert_int_equal(v->event.payload, DR6_BD);
	assert_true(excp_deliver(v));
	assert_int_equal(v->dr[6], DR6_FIXED | DR6_BD);
	assert_int_equal(v->dr[7], DR7_FIXED);
	assert_int_equal(peek(v->gpr[R_SP], 8), CODE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_long_same_level), cmocka_unit_test(test_long_inner), cmocka_unit_test(test_long_faults),
		cmocka_unit_test(test_double_fault), cmocka_unit_test(test_cr2), cmocka_unit_test(test_real),
		cmocka_unit_test(test_protected), cmocka_unit_test(test_protected_faults), cmocka_unit_test(test_vm86),
		cmocka_unit_test(test_iret_long), cmocka_unit_test(test_iret_faults), cmocka_unit_test(test_iret_protected),
		cmocka_unit_test(test_poll_interrupts), cmocka_unit_test(test_poll_halt_nmi_init),
		cmocka_unit_test(test_single_step), cmocka_unit_test(test_code_breakpoints),
	};

	return cmocka_run_group_tests(tests, stub_setup, stub_teardown);
}
