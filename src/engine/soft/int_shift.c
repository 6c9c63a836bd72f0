/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Shifts and rotates by 1, an immediate or CL; double shifts; BMI2's shifts without flags. */
#include "engine/soft/int.h"

/*
 * A count of zero (after masking) leaves all flags alone, so the guest's flags
 * must be in the host's before. Rotates need them anyway: they change only CF
 * and OF. A shift with a constant count has no use for them.
 */
#define SHIFT_ASM(size, before, op, constraint, d, n, flags) \
	__asm__ volatile(before op SFX##size " %%cl, " MOD##size "[dst]" FLAGS_OUT \
			 : [dst] constraint(d), "=&a"(flags) \
			 : "c"((uint8_t)(n)), [f] "m"(v->rflags) \
			 : "cc")

#define SHIFT_FORM(size, name, before, op, suffix, n) \
	HANDLER(name##_##suffix##_r##size) \
	{ \
		val##size d = REG##size(i->rm); \
		uint16_t flags; \
		SHIFT_ASM(size, before, op, "+r", d, n, flags); \
		PUT##size(i->rm, d); \
		flags_put(v, flags); \
	} \
	RMW_HANDLER_GENERAL(name##_##suffix##_m##size, size, false, uint16_t flags, \
			    SHIFT_ASM(size, before, op, "+m", *p, n, flags), \
			    flags_put(v, flags))

/* By 1: the host's own encoding for it, because OF is defined there, and the handler is a little cheaper. */
#define SHIFT_ONE_ASM(size, before, op, constraint, d, flags) \
	__asm__ volatile(before op SFX##size " $1, " MOD##size "[dst]" FLAGS_OUT \
			 : [dst] constraint(d), "=&a"(flags) \
			 : [f] "m"(v->rflags) \
			 : "cc")

#define SHIFT_ONE(size, name, before, op) \
	HANDLER(name##_one_r##size) \
	{ \
		val##size d = REG##size(i->rm); \
		uint16_t flags; \
		SHIFT_ONE_ASM(size, before, op, "+r", d, flags); \
		PUT##size(i->rm, d); \
		flags_put(v, flags); \
	} \
	RMW_HANDLER_GENERAL(name##_one_m##size, size, false, uint16_t flags, \
			    SHIFT_ONE_ASM(size, before, op, "+m", *p, flags), \
			    flags_put(v, flags))

/* `fast` is what a known nonzero count needs. */
#define SHIFT_FAMILY(size, name, fast, op) \
	SHIFT_ONE(size, name, fast, op) \
	SHIFT_FORM(size, name, fast, op, imm, i->imm) \
	SHIFT_FORM(size, name, FLAGS_IN, op, cl, v->gpr[R_CX])

FOR_SIZES(SHIFT_FAMILY, rol, FLAGS_IN, "rol")
FOR_SIZES(SHIFT_FAMILY, ror, FLAGS_IN, "ror")
FOR_SIZES(SHIFT_FAMILY, rcl, FLAGS_IN, "rcl")
FOR_SIZES(SHIFT_FAMILY, rcr, FLAGS_IN, "rcr")
FOR_SIZES(SHIFT_FAMILY, shl, NO_FLAGS_IN, "shl")
FOR_SIZES(SHIFT_FAMILY, shr, NO_FLAGS_IN, "shr")
FOR_SIZES(SHIFT_FAMILY, sar, NO_FLAGS_IN, "sar")

/* An immediate count of zero is bound to this: the form by CL with the count from the immediate. */
#define SHIFT_ZERO(size) \
	HANDLER(zero_r##size) \
	{ \
		val##size d = REG##size(i->rm); \
		uint16_t flags; \
		SHIFT_ASM(size, FLAGS_IN, "shl", "+r", d, 0, flags); \
		PUT##size(i->rm, d); \
		flags_put(v, flags); \
	} \
	RMW_HANDLER_GENERAL(zero_m##size, size, false, uint16_t flags, \
			    SHIFT_ASM(size, FLAGS_IN, "shl", "+m", *p, 0, flags), \
			    flags_put(v, flags))
FOR_SIZES(SHIFT_ZERO)

enum { BY_ONE, BY_IMM, BY_CL };
#define SHIFT_FORMS(op) \
	{ \
		[BY_ONE] = {TABLE4(op##_one_r), TABLE4(op##_one_m)}, \
		[BY_IMM] = {TABLE4(op##_imm_r), TABLE4(op##_imm_m)}, \
		[BY_CL] = {TABLE4(op##_cl_r), TABLE4(op##_cl_m)}, \
	}
static insn_fn *const shifts[8][3][2][4] = {
	SHIFT_FORMS(rol), SHIFT_FORMS(ror), SHIFT_FORMS(rcl), SHIFT_FORMS(rcr),
	SHIFT_FORMS(shl), SHIFT_FORMS(shr), SHIFT_FORMS(shl), SHIFT_FORMS(sar), /* /6 is SHL again */
};
static insn_fn *const by_zero[2][4] = {TABLE4(zero_r), TABLE4(zero_m)};

/* c0, c1, d0..d3 */
bool int_bind_shift(struct insn *i)
{
	unsigned size = insn_width(i), count = i->imm & (size == 8 ? 63 : 31);
	unsigned by = i->opcode < 0xd0 ? BY_IMM : i->opcode < 0xd2 ? BY_ONE : BY_CL;

	if (by == BY_IMM && count == 0)
		i->fn = by_zero[i->is_mem][size_log2(size)];
	else
		i->fn = shifts[(i->modrm >> 3) & 7][by][i->is_mem][size_log2(size)];
	return true;
}

#define SHIFTD_ASM(size, op, constraint, d, s, n, flags) \
	__asm__ volatile(FLAGS_IN op SFX##size " %%cl, " MOD##size "[src], " MOD##size "[dst]" FLAGS_OUT \
			 : [dst] constraint(d), "=&a"(flags) \
			 : [src] "r"(s), "c"((uint8_t)(n)), [f] "m"(v->rflags) \
			 : "cc")

#define SHIFTD(size, op, suffix, n) \
	HANDLER(op##_##suffix##_r##size) \
	{ \
		uint64_t d = v->gpr[i->rm]; \
		uint16_t flags; \
		SHIFTD_ASM(size, #op, "+r", d, v->gpr[i->reg], n, flags); \
		v->gpr[i->rm] = d; \
		flags_put(v, flags); \
	} \
	RMW_HANDLER_GENERAL(op##_##suffix##_m##size, size, false, uint16_t flags, \
			    SHIFTD_ASM(size, #op, "+m", *p, v->gpr[i->reg], n, flags), \
			    flags_put(v, flags))
#define SHIFTD_FAMILY(size, op) SHIFTD(size, op, imm, i->imm) SHIFTD(size, op, cl, v->gpr[R_CX])
FOR_WIDE_SIZES(SHIFTD_FAMILY, shld)
FOR_WIDE_SIZES(SHIFTD_FAMILY, shrd)

#define SHIFTD_FORMS(op) {{TABLE3(op##_imm_r), TABLE3(op##_imm_m)}, {TABLE3(op##_cl_r), TABLE3(op##_cl_m)}}
static insn_fn *const double_shifts[2][2][2][3] = {SHIFTD_FORMS(shld), SHIFTD_FORMS(shrd)};

/* 0f a4, a5, ac, ad */
bool int_bind_shiftd(struct insn *i)
{
	i->fn = double_shifts[i->opcode >> 3 & 1][i->opcode & 1][i->is_mem][size_log2(i->opsize) - 1];
	return true;
}

/* RORX, SARX, SHLX, SHRX: plain C says it all. */
#define SHIFTX(size, name, expression) \
	HANDLER(name##_handler##size) \
	{ \
		mem##size s = i->is_mem ? load_operand(v, i, size) : v->gpr[i->rm]; \
		unsigned n = (name##_COUNT) & (size * 8 - 1); \
		v->gpr[i->reg] = (mem##size)(expression); \
	}
#define shlx_COUNT v->gpr[i->vvvv]
#define shrx_COUNT v->gpr[i->vvvv]
#define sarx_COUNT v->gpr[i->vvvv]
#define rorx_COUNT i->imm
SHIFTX(4, shlx, s << n) SHIFTX(8, shlx, s << n)
SHIFTX(4, shrx, s >> n) SHIFTX(8, shrx, s >> n)
SHIFTX(4, sarx, (int32_t)s >> n) SHIFTX(8, sarx, (int64_t)s >> n)
SHIFTX(4, rorx, s >> n | s << (-n & 31)) SHIFTX(8, rorx, s >> n | s << (-n & 63))

/* VEX 0f 38 f7 (but for pp 0, BEXTR), 0f 3a f0 */
bool int_bind_shiftx(struct insn *i)
{
	bool wide = i->opsize == 8;

	if (!int_host()->bmi2 || i->vl)
		return false;
	if (i->map == MAP_0F3A) {
		if (i->pp != 3 || i->vvvv)
			return false;
		i->fn = wide ? rorx_handler8 : rorx_handler4;
		return true;
	}
	switch (i->pp) {
	case 1: i->fn = wide ? shlx_handler8 : shlx_handler4; return true;
	case 2: i->fn = wide ? sarx_handler8 : sarx_handler4; return true;
	case 3: i->fn = wide ? shrx_handler8 : shrx_handler4; return true;
	default: return false;
	}
}
