/* SPDX-License-Identifier: GPL-2.0-or-later */
/* MUL, IMUL, DIV, IDIV, MULX. */
#include "engine/soft/int.h"

/* One-operand forms: rDX:rAX (AX for bytes) and the source. The accumulator goes through AX after the flags. */
#define WIDE_ASM(size, op, low, high, source, flags) \
	__asm__ volatile(FLAGS_IN "movq %[acc], %%rax\n\t" op SFX##size " " MOD##size "[src]\n\t" \
			 "movq %%rax, %[acc]" FLAGS_OUT \
			 : [acc] "+&r"(low), "+&d"(high), "=&a"(flags) \
			 : [src] "r"(source), [f] "m"(v->rflags) \
			 : "cc")

#define WIDE_WORK(size, op, check) \
	{ \
		uint64_t acc = v->gpr[R_AX], dx = v->gpr[R_DX]; \
		uint16_t flags; \
		check; \
		WIDE_ASM(size, op, acc, dx, s, flags); \
		v->gpr[R_AX] = acc; \
		v->gpr[R_DX] = dx; \
		flags_put(v, flags); \
	}
#define WIDE_FAMILY(size, name, op, check) \
	HANDLER(name##_r##size) \
	{ \
		val##size s = REG##size(i->rm); \
		WIDE_WORK(size, op, check) \
	} \
	LOAD_HANDLER_GENERAL(name##_m##size, size, WIDE_WORK(size, op, check))

/* The host must not trap: #DE is found out before. The quotient fits iff the upper half is below the divisor. */
static bool div_fits1(uint64_t acc, uint64_t dx, uint64_t s) { return (uint8_t)(acc >> 8) < (uint8_t)s; }
static bool div_fits2(uint64_t acc, uint64_t dx, uint64_t s) { return (uint16_t)dx < (uint16_t)s; }
static bool div_fits4(uint64_t acc, uint64_t dx, uint64_t s) { return (uint32_t)dx < (uint32_t)s; }
static bool div_fits8(uint64_t acc, uint64_t dx, uint64_t s) { return dx < s; }

/* Signed: |dividend| < (2^(bits-1) + (1 if the quotient is negative)) * |divisor|; a zero divisor never satisfies it. */
static bool idiv_fits(int64_t dividend, int64_t divisor, unsigned bits)
{
	uint64_t n = dividend < 0 ? -(uint64_t)dividend : (uint64_t)dividend;
	uint64_t d = divisor < 0 ? -(uint64_t)divisor : (uint64_t)divisor;
	bool negative = (dividend ^ divisor) < 0;

	return n < ((1ull << (bits - 1)) + negative) * d;
}
static bool idiv_fits1(uint64_t acc, uint64_t dx, uint64_t s) { return idiv_fits((int16_t)acc, (int8_t)s, 8); }
static bool idiv_fits2(uint64_t acc, uint64_t dx, uint64_t s)
{
	return idiv_fits((int32_t)((uint32_t)dx << 16 | (uint16_t)acc), (int16_t)s, 16);
}
static bool idiv_fits4(uint64_t acc, uint64_t dx, uint64_t s)
{
	return idiv_fits((int64_t)(dx << 32 | (uint32_t)acc), (int32_t)s, 32);
}
static bool idiv_fits8(uint64_t acc, uint64_t dx, uint64_t s)
{
	unsigned __int128 n = (unsigned __int128)dx << 64 | acc;
	uint64_t d = (int64_t)s < 0 ? -s : s;
	bool negative = (int64_t)(dx ^ s) < 0;

	if ((int64_t)dx < 0)
		n = -n;
	return n < (unsigned __int128)((1ull << 63) + negative) * d;
}

#define CHECK_DIV(size, name) \
	if (unlikely(!name##_fits##size(acc, dx, s))) \
		soft_raise(v, EXC_DE, 0)
#define MUL_SIZE(size) \
	WIDE_FAMILY(size, mul, "mul", (void)0) \
	WIDE_FAMILY(size, imul, "imul", (void)0) \
	WIDE_FAMILY(size, div, "div", CHECK_DIV(size, div)) \
	WIDE_FAMILY(size, idiv, "idiv", CHECK_DIV(size, idiv))
FOR_SIZES(MUL_SIZE)

bool int_bind_muldiv(struct insn *i, unsigned op)
{
	static insn_fn *const wide[4][2][4] = {
		{TABLE4(mul_r), TABLE4(mul_m)},
		{TABLE4(imul_r), TABLE4(imul_m)},
		{TABLE4(div_r), TABLE4(div_m)},
		{TABLE4(idiv_r), TABLE4(idiv_m)},
	};

	i->fn = wide[op - 4][i->is_mem][size_log2(insn_width(i))];
	return true;
}

#define IMUL_ASM(size, d, s, flags) \
	__asm__ volatile(FLAGS_IN "imul" SFX##size " " MOD##size "[src], " MOD##size "[dst]" FLAGS_OUT \
			 : [dst] "+&r"(d), "=&a"(flags) \
			 : [src] "r"(s), [f] "m"(v->rflags) \
			 : "cc")
#define IMUL_WORK(size, first) \
	{ \
		uint64_t d = (first); \
		uint16_t flags; \
		IMUL_ASM(size, d, s, flags); \
		WRITE##size(i->reg, d); \
		flags_put(v, flags); \
	}
#define IMUL_FAMILY(size) \
	HANDLER(imul_rr##size) \
	{ \
		uint64_t s = v->gpr[i->rm]; \
		IMUL_WORK(size, v->gpr[i->reg]) \
	} \
	HANDLER(imul_rri##size) \
	{ \
		uint64_t s = v->gpr[i->rm]; \
		IMUL_WORK(size, i->imm) \
	} \
	LOAD_HANDLER(imul_rm##size, size, IMUL_WORK(size, v->gpr[i->reg])) \
	LOAD_HANDLER(imul_rmi##size, size, IMUL_WORK(size, i->imm))
FOR_WIDE_SIZES(IMUL_FAMILY)

/* 69, 6b, 0f af */
bool int_bind_imul(struct insn *i)
{
	static insn_fn *const imul[2][2][3] = {
		{TABLE3(imul_rr), TABLE3(imul_rm)},
		{TABLE3(imul_rri), TABLE3(imul_rmi)},
	};

	i->fn = imul[i->map == MAP_1B][i->is_mem][size_log2(i->opsize) - 1];
	return true;
}

/* No flags. With both destinations the same register the high half wins. */
HANDLER(mulx4)
{
	uint32_t s = i->is_mem ? load_operand(v, i, 4) : v->gpr[i->rm];
	uint64_t product = (uint64_t)s * (uint32_t)v->gpr[R_DX];

	v->gpr[i->vvvv] = (uint32_t)product;
	v->gpr[i->reg] = product >> 32;
}
HANDLER(mulx8)
{
	uint64_t s = i->is_mem ? load_operand(v, i, 8) : v->gpr[i->rm];
	unsigned __int128 product = (unsigned __int128)s * v->gpr[R_DX];

	v->gpr[i->vvvv] = (uint64_t)product;
	v->gpr[i->reg] = (uint64_t)(product >> 64);
}

/* VEX.F2 0f 38 f6 */
bool int_bind_mulx(struct insn *i)
{
	if (!int_host()->bmi2 || i->vl || i->pp != 3)
		return false;
	i->fn = i->opsize == 8 ? mulx8 : mulx4;
	return true;
}
