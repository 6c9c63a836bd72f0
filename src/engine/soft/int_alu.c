/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST, INC, DEC, NOT, NEG, ADCX, ADOX; with LOCK where it is allowed. */
#include "engine/soft/int.h"

/* `d` is a variable ("+r") or guest memory ("+m"). */
#define ALU_ASM(size, before, op, constraint, d, s, flags) \
	__asm__ volatile(before op SFX##size " " MOD##size "[src], " MOD##size "[dst]" FLAGS_OUT \
			 : [dst] constraint(d), "=&a"(flags) \
			 : [src] "r"(s), [f] "m"(v->rflags) \
			 : "cc")

#define ALU_REG(size, name, before, op, suffix, dst, source) \
	HANDLER(name##_##suffix##size) \
	{ \
		val##size d = REG##size(dst); \
		uint16_t flags; \
		ALU_ASM(size, before, op, "+r", d, (val##size)(source), flags); \
		PUT##size(dst, d); \
		flags_put(v, flags); \
	}

#define ALU_LOAD_WORK(size, before, op) \
	{ \
		val##size d = REG##size(i->reg); \
		uint16_t flags; \
		ALU_ASM(size, before, op, "+r", d, s, flags); \
		PUT##size(i->reg, d); \
		flags_put(v, flags); \
	}
#define ALU_STORE_WORK(size, before, op, source) ALU_ASM(size, before, op, "+m", *p, (val##size)(source), flags)

#define ALU_FAMILY(size, name, before, op) \
	ALU_REG(size, name, before, op, rr, i->rm, REG##size(i->reg)) \
	ALU_REG(size, name, before, op, rr_rev, i->reg, REG##size(i->rm)) \
	ALU_REG(size, name, before, op, ri, i->rm, i->imm) \
	LOAD_HANDLER(name##_rm##size, size, ALU_LOAD_WORK(size, before, op)) \
	RMW_HANDLER(name##_mr##size, size, uint16_t flags, ALU_STORE_WORK(size, before, op, REG##size(i->reg)), \
		    flags_put(v, flags)) \
	RMW_HANDLER(name##_mi##size, size, uint16_t flags, ALU_STORE_WORK(size, before, op, i->imm), \
		    flags_put(v, flags)) \
	RMW_HANDLER_GENERAL(name##_lock_mr##size, size, true, uint16_t flags, \
			    ALU_STORE_WORK(size, before, "lock " op, REG##size(i->reg)), flags_put(v, flags)) \
	RMW_HANDLER_GENERAL(name##_lock_mi##size, size, true, uint16_t flags, \
			    ALU_STORE_WORK(size, before, "lock " op, i->imm), flags_put(v, flags))

FOR_SIZES(ALU_FAMILY, add, NO_FLAGS_IN, "add")
FOR_SIZES(ALU_FAMILY, or, NO_FLAGS_IN, "or")
FOR_SIZES(ALU_FAMILY, adc, CARRY_IN, "adc")
FOR_SIZES(ALU_FAMILY, sbb, CARRY_IN, "sbb")
FOR_SIZES(ALU_FAMILY, and, NO_FLAGS_IN, "and")
FOR_SIZES(ALU_FAMILY, sub, NO_FLAGS_IN, "sub")
FOR_SIZES(ALU_FAMILY, xor, NO_FLAGS_IN, "xor")

/* CMP and TEST write only flags. */
#define COMPARE_ASM(size, op, d, s, flags) \
	__asm__ volatile(op SFX##size " " MOD##size "[src], " MOD##size "[dst]" FLAGS_OUT \
			 : "=&a"(flags) \
			 : [dst] "r"((val##size)(d)), [src] "r"((val##size)(s)) \
			 : "cc")

#define COMPARE_REG(size, name, op, suffix, first, second) \
	HANDLER(name##_##suffix##size) \
	{ \
		uint16_t flags; \
		COMPARE_ASM(size, op, first, second, flags); \
		flags_put(v, flags); \
	}

#define COMPARE_MEM(size, name, op, suffix, first, second) \
	LOAD_HANDLER(name##_##suffix##size, size, { \
		uint16_t flags; \
		COMPARE_ASM(size, op, first, second, flags); \
		flags_put(v, flags); \
	})

#define COMPARE_FAMILY(size, name, op) \
	COMPARE_REG(size, name, op, rr, REG##size(i->rm), REG##size(i->reg)) \
	COMPARE_REG(size, name, op, rr_rev, REG##size(i->reg), REG##size(i->rm)) \
	COMPARE_REG(size, name, op, ri, REG##size(i->rm), i->imm) \
	COMPARE_MEM(size, name, op, rm, REG##size(i->reg), s) \
	COMPARE_MEM(size, name, op, mr, s, REG##size(i->reg)) \
	COMPARE_MEM(size, name, op, mi, s, i->imm)

FOR_SIZES(COMPARE_FAMILY, cmp, "cmp")
FOR_SIZES(COMPARE_FAMILY, test, "test")

enum { FORM_RR, FORM_RR_REV, FORM_RI, FORM_RM, FORM_MR, FORM_MI, FORM_LOCK_MR, FORM_LOCK_MI, FORMS };
#define ALU_FORMS(op) \
	{ \
		[FORM_RR] = TABLE4(op##_rr), [FORM_RR_REV] = TABLE4(op##_rr_rev), [FORM_RI] = TABLE4(op##_ri), \
		[FORM_RM] = TABLE4(op##_rm), [FORM_MR] = TABLE4(op##_mr), [FORM_MI] = TABLE4(op##_mi), \
		[FORM_LOCK_MR] = TABLE4(op##_lock_mr), [FORM_LOCK_MI] = TABLE4(op##_lock_mi), \
	}
#define COMPARE_FORMS(op) \
	{ \
		[FORM_RR] = TABLE4(op##_rr), [FORM_RR_REV] = TABLE4(op##_rr_rev), [FORM_RI] = TABLE4(op##_ri), \
		[FORM_RM] = TABLE4(op##_rm), [FORM_MR] = TABLE4(op##_mr), [FORM_MI] = TABLE4(op##_mi), \
	}
static insn_fn *const alu[8][FORMS][4] = {
	ALU_FORMS(add), ALU_FORMS(or), ALU_FORMS(adc), ALU_FORMS(sbb),
	ALU_FORMS(and), ALU_FORMS(sub), ALU_FORMS(xor), COMPARE_FORMS(cmp),
};
static insn_fn *const test[FORMS][4] = COMPARE_FORMS(test);

static bool set_handler(struct insn *i, insn_fn *const table[FORMS][4], unsigned form, unsigned size)
{
	if (i->prefixes & PFX_LOCK)
		form = form == FORM_MR ? FORM_LOCK_MR : FORM_LOCK_MI;
	i->fn = table[form][size_log2(size)];
	return true;
}

/* 00..3d: r/m,r  r,r/m  acc,imm. The accumulator is rm 0 there. */
bool int_bind_alu(struct insn *i)
{
	unsigned form;

	switch (i->opcode & 6) {
	case 0: form = i->is_mem ? FORM_MR : FORM_RR; break;
	case 2: form = i->is_mem ? FORM_RM : FORM_RR_REV; break;
	default: form = FORM_RI; break;
	}
	return set_handler(i, alu[i->opcode >> 3], form, insn_width(i));
}

/* 80..83 */
bool int_bind_group1(struct insn *i)
{
	return set_handler(i, alu[(i->modrm >> 3) & 7], i->is_mem ? FORM_MI : FORM_RI, insn_width(i));
}

/* 84, 85, a8, a9 */
bool int_bind_test(struct insn *i)
{
	unsigned form = i->opcode >= 0xa8 ? FORM_RI : i->is_mem ? FORM_MR : FORM_RR;

	return set_handler(i, test, form, insn_width(i));
}

/* INC, DEC (which keep CF), NEG, NOT. */
#define UNARY_ASM(size, before, op, constraint, d, flags) \
	__asm__ volatile(before op SFX##size " " MOD##size "[dst]" FLAGS_OUT \
			 : [dst] constraint(d), "=&a"(flags) \
			 : [f] "m"(v->rflags) \
			 : "cc")

#define UNARY_REG(size, name, before, op) \
	HANDLER(name##_r##size) \
	{ \
		val##size d = REG##size(i->rm); \
		uint16_t flags; \
		UNARY_ASM(size, before, op, "+r", d, flags); \
		PUT##size(i->rm, d); \
		flags_put(v, flags); \
	}

#define UNARY_FAMILY(size, name, before, op) \
	UNARY_REG(size, name, before, op) \
	RMW_HANDLER(name##_m##size, size, uint16_t flags, UNARY_ASM(size, before, op, "+m", *p, flags), \
		    flags_put(v, flags)) \
	RMW_HANDLER_GENERAL(name##_lock_m##size, size, true, uint16_t flags, \
			    UNARY_ASM(size, before, "lock " op, "+m", *p, flags), flags_put(v, flags))

FOR_SIZES(UNARY_FAMILY, inc, CARRY_IN, "inc")
FOR_SIZES(UNARY_FAMILY, dec, CARRY_IN, "dec")
FOR_SIZES(UNARY_FAMILY, neg, NO_FLAGS_IN, "neg")

#define NOT_MEM_ASM(size, op) __asm__ volatile(op SFX##size " " MOD##size "0" : "+m"(*p))
#define NOT_FAMILY(size) \
	HANDLER(not_r##size) \
	{ \
		val##size d = REG##size(i->rm); \
		__asm__("not" SFX##size " " MOD##size "0" : "+r"(d)); \
		PUT##size(i->rm, d); \
	} \
	RMW_HANDLER_GENERAL(not_m##size, size, false, (void)0, NOT_MEM_ASM(size, "not"), (void)0) \
	RMW_HANDLER_GENERAL(not_lock_m##size, size, true, (void)0, NOT_MEM_ASM(size, "lock not"), (void)0)
FOR_SIZES(NOT_FAMILY)

enum { UN_R, UN_M, UN_LOCK_M };
#define UNARY_FORMS(op) {TABLE4(op##_r), TABLE4(op##_m), TABLE4(op##_lock_m)}
enum { UN_INC, UN_DEC, UN_NOT, UN_NEG };
static insn_fn *const unary[4][3][4] = {
	[UN_INC] = UNARY_FORMS(inc), [UN_DEC] = UNARY_FORMS(dec), [UN_NOT] = UNARY_FORMS(not), [UN_NEG] = UNARY_FORMS(neg),
};

static bool bind_unary(struct insn *i, unsigned op, unsigned size)
{
	unsigned form = !i->is_mem ? UN_R : i->prefixes & PFX_LOCK ? UN_LOCK_M : UN_M;

	i->fn = unary[op][form][size_log2(size)];
	return true;
}

/* f6, f7 */
bool int_bind_group3(struct insn *i)
{
	unsigned op = (i->modrm >> 3) & 7;

	switch (op) {
	case 0: case 1: return set_handler(i, test, i->is_mem ? FORM_MI : FORM_RI, insn_width(i));
	case 2: return bind_unary(i, UN_NOT, insn_width(i));
	case 3: return bind_unary(i, UN_NEG, insn_width(i));
	default: return int_bind_muldiv(i, op);
	}
}

/* 40..4f outside 64-bit mode; fe; ff /0, /1 */
bool int_bind_incdec(struct insn *i)
{
	if (i->opcode < 0x50)
		return bind_unary(i, i->opcode & 8 ? UN_DEC : UN_INC, i->opsize);
	if ((i->modrm >> 3 & 7) > 1)
		return false;
	return bind_unary(i, i->modrm & 8 ? UN_DEC : UN_INC, insn_width(i));
}

/* ADCX touches only CF, ADOX only OF. */
#define ADX(size, op) \
	HANDLER(op##_handler##size) \
	{ \
		uint64_t s = i->is_mem ? load_operand(v, i, size) : v->gpr[i->rm]; \
		uint64_t d = v->gpr[i->reg]; \
		uint16_t flags; \
		__asm__ volatile(FLAGS_IN #op SFX##size " " MOD##size "[src], " MOD##size "[dst]" FLAGS_OUT \
				 : [dst] "+r"(d), "=&a"(flags) \
				 : [src] "r"(s), [f] "m"(v->rflags) \
				 : "cc"); \
		v->gpr[i->reg] = d; \
		flags_put(v, flags); \
	}
ADX(4, adcx) ADX(8, adcx) ADX(4, adox) ADX(8, adox)

/* 66, f3 0f 38 f6 */
bool int_bind_adx(struct insn *i)
{
	bool wide = i->rex & 8;

	if (!int_host()->adx || i->prefixes & PFX_VEX)
		return false;
	if (i->prefixes & PFX_F3)
		i->fn = wide ? adox_handler8 : adox_handler4;
	else if (i->prefixes & PFX_66 && !(i->prefixes & PFX_F2))
		i->fn = wide ? adcx_handler8 : adcx_handler4;
	else
		return false;
	return true;
}
