/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CMOVcc, SETcc, and the instructions that move flags about. */
#include "engine/soft/int.h"

/* A CMOV reads its operand (and may fault) whatever the condition; a 32-bit one always clears the upper half. */
#define CMOV_READ2(n) (uint16_t)v->gpr[n]
#define CMOV_READ4(n) (uint32_t)v->gpr[n]
#define CMOV_READ8(n) v->gpr[n]
#define CMOV(cc, size) \
	HANDLER(cmov##size##_r##cc) \
	{ \
		uint64_t yes = CMOV_READ##size(i->rm), no = CMOV_READ##size(i->reg); \
		WRITE##size(i->reg, condition(v, cc) ? yes : no); \
	} \
	LOAD_HANDLER(cmov##size##_m##cc, size, { \
		uint64_t no = CMOV_READ##size(i->reg); \
		WRITE##size(i->reg, condition(v, cc) ? s : no); \
	})
FOR_CONDITIONS(CMOV, 2)
FOR_CONDITIONS(CMOV, 4)
FOR_CONDITIONS(CMOV, 8)

#define SETCC(cc) \
	HANDLER(setcc_r##cc) { WRITE1(i->rm, condition(v, cc)); } \
	STORE_HANDLER(setcc_m##cc, 1, condition(v, cc))
FOR_CONDITIONS(SETCC)

/* 0f 40..4f, 90..9f */
bool int_bind_cond(struct insn *i)
{
	static insn_fn *const cmov[3][2][16] = {
		{TABLE16(cmov2_r), TABLE16(cmov2_m)},
		{TABLE16(cmov4_r), TABLE16(cmov4_m)},
		{TABLE16(cmov8_r), TABLE16(cmov8_m)},
	};
	static insn_fn *const setcc[2][16] = {TABLE16(setcc_r), TABLE16(setcc_m)};
	unsigned cc = i->opcode & 15;

	if (i->opcode < 0x90)
		i->fn = cmov[size_log2(i->opsize) - 1][i->is_mem][cc];
	else
		i->fn = setcc[i->is_mem][cc];
	return true;
}

HANDLER(cmc) { v->rflags ^= FL_CF; }
HANDLER(clc) { v->rflags &= ~(uint64_t)FL_CF; }
HANDLER(stc) { v->rflags |= FL_CF; }
HANDLER(cld) { v->rflags &= ~(uint64_t)FL_DF; }
HANDLER(std) { v->rflags |= FL_DF; }
HANDLER(sahf)
{
	uint32_t mask = FLAGS_ARITH & 0xff;

	v->rflags = (v->rflags & ~(uint64_t)mask) | (v->gpr[R_AX] >> 8 & mask);
}
HANDLER(lahf)
{
	v->gpr[R_AX] = (v->gpr[R_AX] & ~0xff00ull) | ((v->rflags & FLAGS_ARITH & 0xff) | 2) << 8;
}

/* 9e, 9f, f5, f8, f9, fc, fd */
bool int_bind_flags(struct insn *i)
{
	switch (i->opcode) {
	case 0x9e: i->fn = sahf; break;
	case 0x9f: i->fn = lahf; break;
	case 0xf5: i->fn = cmc; break;
	case 0xf8: i->fn = clc; break;
	case 0xf9: i->fn = stc; break;
	case 0xfc: i->fn = cld; break;
	default: i->fn = std; break;
	}
	return true;
}
