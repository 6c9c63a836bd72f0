/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which vector instructions exist (SDM vol. 2 chapters 3 to 5): for each
 * opcode and mandatory prefix the features of its legacy, VEX.128 and VEX.256
 * forms, the size of its memory operand and what is peculiar about it.
 */
#include "engine/soft/vec.h"

#define NDS ROW_NDS
#define RW ROW_RW
#define FP ROW_FP
#define UNAL ROW_UNALIGNED
#define VAL ROW_ALIGNED
#define W0 ROW_W0
#define W1 ROW_W1
#define W ROW_W
#define WGPR (ROW_W | ROW_WGPR)
#define LIG ROW_LIG
#define IMM ROW_IMM
#define MEM ROW_MEM
#define REG ROW_REG
#define MMX ROW_MMX
#define RMGPR ROW_RMGPR

#define ROW(map_, op, pp_, shape_, need, need128, need256, mem_, flags_) \
	{ .map = MAP_##map_, .opcode = op, .pp = pp_, .shape = SHAPE_##shape_, .legacy = NEED_##need, \
	  .v128 = NEED_##need128, .v256 = NEED_##need256, .mem = MEM_##mem_, .flags = flags_ }
#define GRP(op, pp_, reg, need, need128, need256, flags_) \
	{ .map = MAP_0F, .opcode = op, .pp = pp_, .ext = (reg) + 1, .shape = SHAPE_SHIFT, .legacy = NEED_##need, \
	  .v128 = NEED_##need128, .v256 = NEED_##need256, .mem = MEM_16, .flags = IMM | REG | NDS | (flags_) }

/* Integer operations with an MMX twin: MMX, SSE2, AVX, AVX2. */
#define INT(op) \
	ROW(0F, op, 0, RM, BASE, NONE, NONE, VL, MMX), \
	ROW(0F, op, 1, RM, BASE, AVX, AVX2, VL, NDS)
/* Shifts by a register's low half: the count is always 128 bits wide. */
#define SHIFT(op) \
	ROW(0F, op, 0, RM, BASE, NONE, NONE, VL, MMX), \
	ROW(0F, op, 1, RM, BASE, AVX, AVX2, 16, NDS)
/* MMX reads only half of these operands. */
#define UNPACK_LOW(op) \
	ROW(0F, op, 0, RM, BASE, NONE, NONE, MMX4, MMX), \
	ROW(0F, op, 1, RM, BASE, AVX, AVX2, VL, NDS)
#define INT_SSSE3(op, flags) \
	ROW(0F38, op, 0, RM, SSSE3, NONE, NONE, VL, MMX), \
	ROW(0F38, op, 1, RM, SSSE3, AVX, AVX2, VL, flags)
#define INT_SSE41(op) ROW(0F38, op, 1, RM, SSE41, AVX, AVX2, VL, NDS)
#define EXTEND(op, mem) ROW(0F38, op, 1, RM, SSE41, AVX, AVX2, mem, 0)

/* Floating point: packed single and double, then scalar. */
#define PACKED(op, flags) \
	ROW(0F, op, 0, RM, BASE, AVX, AVX, VL, flags), \
	ROW(0F, op, 1, RM, BASE, AVX, AVX, VL, flags)
#define SCALAR(op, flags) \
	ROW(0F, op, 2, RM, BASE, AVX, AVX, 4, (flags) | LIG), \
	ROW(0F, op, 3, RM, BASE, AVX, AVX, 8, (flags) | LIG)
#define ARITH(op) PACKED(op, NDS | FP), SCALAR(op, NDS | FP)

/* FMA: the packed and the scalar member of a family, single or double by VEX.W. */
#define FMA_PACKED(op) ROW(0F38, op, 1, RM, NONE, FMA, FMA, VL, NDS | RW | FP | W)
#define FMA_SCALAR(op) ROW(0F38, op, 1, RM, NONE, FMA, FMA, W, NDS | RW | FP | W | LIG)
#define FMA_FORM(x) \
	FMA_PACKED(x + 6), FMA_PACKED(x + 7), FMA_PACKED(x + 8), FMA_SCALAR(x + 9), \
	FMA_PACKED(x + 10), FMA_SCALAR(x + 11), FMA_PACKED(x + 12), FMA_SCALAR(x + 13), \
	FMA_PACKED(x + 14), FMA_SCALAR(x + 15)

const struct vec_row vec_rows[] = {
	/* Moves */
	ROW(0F, 0x10, 0, LOAD, BASE, AVX, AVX, VL, UNAL),
	ROW(0F, 0x10, 1, LOAD, BASE, AVX, AVX, VL, UNAL),
	ROW(0F, 0x10, 2, LOAD_SCALAR, BASE, AVX, AVX, 4, LIG | NDS),
	ROW(0F, 0x10, 3, LOAD_SCALAR, BASE, AVX, AVX, 8, LIG | NDS),
	ROW(0F, 0x11, 0, STORE, BASE, AVX, AVX, VL, UNAL),
	ROW(0F, 0x11, 1, STORE, BASE, AVX, AVX, VL, UNAL),
	ROW(0F, 0x11, 2, STORE_SCALAR, BASE, AVX, AVX, 4, LIG | NDS),
	ROW(0F, 0x11, 3, STORE_SCALAR, BASE, AVX, AVX, 8, LIG | NDS),
	ROW(0F, 0x12, 0, LOAD_LOW, BASE, AVX, NONE, 8, NDS),
	ROW(0F, 0x12, 1, LOAD_LOW, BASE, AVX, NONE, 8, NDS | MEM),
	ROW(0F, 0x12, 2, RM, SSE3, AVX, AVX, VL, 0),
	ROW(0F, 0x12, 3, RM, SSE3, AVX, AVX, DUP, 0),
	ROW(0F, 0x13, 0, STORE_LOW, BASE, AVX, NONE, 8, MEM),
	ROW(0F, 0x13, 1, STORE_LOW, BASE, AVX, NONE, 8, MEM),
	ROW(0F, 0x16, 0, LOAD_HIGH, BASE, AVX, NONE, 8, NDS),
	ROW(0F, 0x16, 1, LOAD_HIGH, BASE, AVX, NONE, 8, NDS | MEM),
	ROW(0F, 0x16, 2, RM, SSE3, AVX, AVX, VL, 0),
	ROW(0F, 0x17, 0, STORE_HIGH, BASE, AVX, NONE, 8, MEM),
	ROW(0F, 0x17, 1, STORE_HIGH, BASE, AVX, NONE, 8, MEM),
	ROW(0F, 0x28, 0, LOAD, BASE, AVX, AVX, VL, VAL),
	ROW(0F, 0x28, 1, LOAD, BASE, AVX, AVX, VL, VAL),
	ROW(0F, 0x29, 0, STORE, BASE, AVX, AVX, VL, VAL),
	ROW(0F, 0x29, 1, STORE, BASE, AVX, AVX, VL, VAL),
	ROW(0F, 0x2b, 0, STORE, BASE, AVX, AVX, VL, VAL | MEM),
	ROW(0F, 0x2b, 1, STORE, BASE, AVX, AVX, VL, VAL | MEM),
	ROW(0F, 0x50, 0, GPR, BASE, AVX, AVX, VL, REG),
	ROW(0F, 0x50, 1, GPR, BASE, AVX, AVX, VL, REG),
	ROW(0F, 0x6e, 0, LOAD_G, BASE, NONE, NONE, W, MMX | RMGPR | WGPR),
	ROW(0F, 0x6e, 1, LOAD_G, BASE, AVX, NONE, W, RMGPR | WGPR),
	ROW(0F, 0x6f, 0, LOAD, BASE, NONE, NONE, VL, MMX),
	ROW(0F, 0x6f, 1, LOAD, BASE, AVX, AVX, VL, VAL),
	ROW(0F, 0x6f, 2, LOAD, BASE, AVX, AVX, VL, UNAL),
	ROW(0F, 0x7e, 0, STORE_G, BASE, NONE, NONE, W, MMX | RMGPR | WGPR),
	ROW(0F, 0x7e, 1, STORE_G, BASE, AVX, NONE, W, RMGPR | WGPR),
	ROW(0F, 0x7e, 2, LOAD_Q, BASE, AVX, NONE, 8, 0),
	ROW(0F, 0x7f, 0, STORE, BASE, NONE, NONE, VL, MMX),
	ROW(0F, 0x7f, 1, STORE, BASE, AVX, AVX, VL, VAL),
	ROW(0F, 0x7f, 2, STORE, BASE, AVX, AVX, VL, UNAL),
	ROW(0F, 0xd6, 1, STORE_Q, BASE, AVX, NONE, 8, 0),
	ROW(0F, 0xd6, 2, M_TO_X, BASE, NONE, NONE, 8, MMX | REG),
	ROW(0F, 0xd6, 3, X_TO_M, BASE, NONE, NONE, 8, MMX | REG),
	ROW(0F, 0xd7, 0, GPR, BASE, NONE, NONE, VL, MMX | REG),
	ROW(0F, 0xd7, 1, GPR, BASE, AVX, AVX2, VL, REG),
	ROW(0F, 0xe7, 0, STORE, BASE, NONE, NONE, VL, MMX | MEM),
	ROW(0F, 0xe7, 1, STORE, BASE, AVX, AVX, VL, VAL | MEM),
	ROW(0F, 0xf0, 3, LOAD, SSE3, AVX, AVX, VL, UNAL | MEM),
	ROW(0F, 0xf7, 0, MASKED_BYTES, BASE, NONE, NONE, VL, MMX | REG),
	ROW(0F, 0xf7, 1, MASKED_BYTES, BASE, AVX, NONE, VL, REG),
	ROW(0F, 0x77, 0, EMPTY, BASE, AVX, AVX, 8, 0),

	/* Floating point */
	ROW(0F, 0x14, 0, RM, BASE, AVX, AVX, VL, NDS), ROW(0F, 0x14, 1, RM, BASE, AVX, AVX, VL, NDS),
	ROW(0F, 0x15, 0, RM, BASE, AVX, AVX, VL, NDS), ROW(0F, 0x15, 1, RM, BASE, AVX, AVX, VL, NDS),
	PACKED(0x51, FP), SCALAR(0x51, NDS | FP),
	ROW(0F, 0x52, 0, RM, BASE, AVX, AVX, VL, 0), ROW(0F, 0x52, 2, RM, BASE, AVX, AVX, 4, NDS | LIG),
	ROW(0F, 0x53, 0, RM, BASE, AVX, AVX, VL, 0), ROW(0F, 0x53, 2, RM, BASE, AVX, AVX, 4, NDS | LIG),
	PACKED(0x54, NDS), PACKED(0x55, NDS), PACKED(0x56, NDS), PACKED(0x57, NDS),
	ARITH(0x58), ARITH(0x59), ARITH(0x5c), ARITH(0x5d), ARITH(0x5e), ARITH(0x5f),
	ROW(0F, 0x7c, 1, RM, SSE3, AVX, AVX, VL, NDS | FP), ROW(0F, 0x7c, 3, RM, SSE3, AVX, AVX, VL, NDS | FP),
	ROW(0F, 0x7d, 1, RM, SSE3, AVX, AVX, VL, NDS | FP), ROW(0F, 0x7d, 3, RM, SSE3, AVX, AVX, VL, NDS | FP),
	PACKED(0xc2, NDS | FP | IMM), SCALAR(0xc2, NDS | FP | IMM),
	PACKED(0xc6, NDS | IMM),
	ROW(0F, 0xd0, 1, RM, SSE3, AVX, AVX, VL, NDS | FP), ROW(0F, 0xd0, 3, RM, SSE3, AVX, AVX, VL, NDS | FP),
	ROW(0F, 0x2e, 0, FLAGS, BASE, AVX, AVX, 4, FP | LIG), ROW(0F, 0x2e, 1, FLAGS, BASE, AVX, AVX, 8, FP | LIG),
	ROW(0F, 0x2f, 0, FLAGS, BASE, AVX, AVX, 4, FP | LIG), ROW(0F, 0x2f, 1, FLAGS, BASE, AVX, AVX, 8, FP | LIG),

	/* Conversions */
	ROW(0F, 0x2a, 0, CVT_M, BASE, NONE, NONE, 8, FP),
	ROW(0F, 0x2a, 1, CVT_M, BASE, NONE, NONE, 8, FP),
	ROW(0F, 0x2a, 2, RM, BASE, AVX, AVX, W, NDS | FP | RMGPR | WGPR | LIG),
	ROW(0F, 0x2a, 3, RM, BASE, AVX, AVX, W, NDS | FP | RMGPR | WGPR | LIG),
	ROW(0F, 0x2c, 0, CVT_TO_M, BASE, NONE, NONE, 8, FP | MMX),
	ROW(0F, 0x2c, 1, CVT_TO_M, BASE, NONE, NONE, 16, FP | MMX),
	ROW(0F, 0x2c, 2, GPR, BASE, AVX, AVX, 4, FP | WGPR | LIG),
	ROW(0F, 0x2c, 3, GPR, BASE, AVX, AVX, 8, FP | WGPR | LIG),
	ROW(0F, 0x2d, 0, CVT_TO_M, BASE, NONE, NONE, 8, FP | MMX),
	ROW(0F, 0x2d, 1, CVT_TO_M, BASE, NONE, NONE, 16, FP | MMX),
	ROW(0F, 0x2d, 2, GPR, BASE, AVX, AVX, 4, FP | WGPR | LIG),
	ROW(0F, 0x2d, 3, GPR, BASE, AVX, AVX, 8, FP | WGPR | LIG),
	ROW(0F, 0x5a, 0, RM, BASE, AVX, AVX, VL2, FP), ROW(0F, 0x5a, 1, RM, BASE, AVX, AVX, VL, FP),
	ROW(0F, 0x5a, 2, RM, BASE, AVX, AVX, 4, NDS | FP | LIG),
	ROW(0F, 0x5a, 3, RM, BASE, AVX, AVX, 8, NDS | FP | LIG),
	ROW(0F, 0x5b, 0, RM, BASE, AVX, AVX, VL, FP), ROW(0F, 0x5b, 1, RM, BASE, AVX, AVX, VL, FP),
	ROW(0F, 0x5b, 2, RM, BASE, AVX, AVX, VL, FP),
	ROW(0F, 0xe6, 1, RM, BASE, AVX, AVX, VL, FP), ROW(0F, 0xe6, 2, RM, BASE, AVX, AVX, VL2, FP),
	ROW(0F, 0xe6, 3, RM, BASE, AVX, AVX, VL, FP),
	ROW(0F38, 0x13, 1, RM, NONE, F16C, F16C, VL2, FP | W0),
	ROW(0F3A, 0x1d, 1, HALF, NONE, F16C, F16C, VL2, FP | W0 | IMM),

	/* Integer */
	UNPACK_LOW(0x60), UNPACK_LOW(0x61), UNPACK_LOW(0x62),
	INT(0x63), INT(0x64), INT(0x65), INT(0x66), INT(0x67), INT(0x68), INT(0x69), INT(0x6a), INT(0x6b),
	ROW(0F, 0x6c, 1, RM, BASE, AVX, AVX2, VL, NDS), ROW(0F, 0x6d, 1, RM, BASE, AVX, AVX2, VL, NDS),
	ROW(0F, 0x70, 0, RM, BASE, NONE, NONE, VL, MMX | IMM), ROW(0F, 0x70, 1, RM, BASE, AVX, AVX2, VL, IMM),
	ROW(0F, 0x70, 2, RM, BASE, AVX, AVX2, VL, IMM), ROW(0F, 0x70, 3, RM, BASE, AVX, AVX2, VL, IMM),
	INT(0x74), INT(0x75), INT(0x76),
	ROW(0F, 0xc4, 0, RM, BASE, NONE, NONE, 2, MMX | RMGPR | IMM),
	ROW(0F, 0xc4, 1, RM, BASE, AVX, NONE, 2, NDS | RMGPR | IMM),
	ROW(0F, 0xc5, 0, GPR, BASE, NONE, NONE, VL, MMX | REG | IMM),
	ROW(0F, 0xc5, 1, GPR, BASE, AVX, NONE, VL, REG | IMM),
	SHIFT(0xd1), SHIFT(0xd2), SHIFT(0xd3), INT(0xd4), INT(0xd5),
	INT(0xd8), INT(0xd9), INT(0xda), INT(0xdb), INT(0xdc), INT(0xdd), INT(0xde), INT(0xdf),
	INT(0xe0), SHIFT(0xe1), SHIFT(0xe2), INT(0xe3), INT(0xe4), INT(0xe5),
	INT(0xe8), INT(0xe9), INT(0xea), INT(0xeb), INT(0xec), INT(0xed), INT(0xee), INT(0xef),
	SHIFT(0xf1), SHIFT(0xf2), SHIFT(0xf3), INT(0xf4), INT(0xf5), INT(0xf6),
	INT(0xf8), INT(0xf9), INT(0xfa), INT(0xfb), INT(0xfc), INT(0xfd), INT(0xfe),
#define SHIFT_IMM(op, reg) GRP(op, 0, reg, BASE, NONE, NONE, MMX), GRP(op, 1, reg, BASE, AVX, AVX2, 0)
	SHIFT_IMM(0x71, 2), SHIFT_IMM(0x71, 4), SHIFT_IMM(0x71, 6),
	SHIFT_IMM(0x72, 2), SHIFT_IMM(0x72, 4), SHIFT_IMM(0x72, 6),
	SHIFT_IMM(0x73, 2), SHIFT_IMM(0x73, 6),
	GRP(0x73, 1, 3, BASE, AVX, AVX2, 0), GRP(0x73, 1, 7, BASE, AVX, AVX2, 0),

	/* SSSE3 */
	INT_SSSE3(0x00, NDS), INT_SSSE3(0x01, NDS), INT_SSSE3(0x02, NDS), INT_SSSE3(0x03, NDS), INT_SSSE3(0x04, NDS),
	INT_SSSE3(0x05, NDS), INT_SSSE3(0x06, NDS), INT_SSSE3(0x07, NDS), INT_SSSE3(0x08, NDS), INT_SSSE3(0x09, NDS),
	INT_SSSE3(0x0a, NDS), INT_SSSE3(0x0b, NDS), INT_SSSE3(0x1c, 0), INT_SSSE3(0x1d, 0), INT_SSSE3(0x1e, 0),
	ROW(0F3A, 0x0f, 0, RM, SSSE3, NONE, NONE, VL, MMX | IMM),
	ROW(0F3A, 0x0f, 1, RM, SSSE3, AVX, AVX2, VL, NDS | IMM),

	/* SSE4.1, SSE4.2 */
	ROW(0F38, 0x10, 1, RM, SSE41, NONE, NONE, VL, ROW_XMM0),
	ROW(0F38, 0x14, 1, RM, SSE41, NONE, NONE, VL, ROW_XMM0),
	ROW(0F38, 0x15, 1, RM, SSE41, NONE, NONE, VL, ROW_XMM0),
	ROW(0F38, 0x17, 1, FLAGS, SSE41, AVX, AVX, VL, 0),
	EXTEND(0x20, VL2), EXTEND(0x21, VL4), EXTEND(0x22, VL8),
	EXTEND(0x23, VL2), EXTEND(0x24, VL4), EXTEND(0x25, VL2),
	EXTEND(0x30, VL2), EXTEND(0x31, VL4), EXTEND(0x32, VL8),
	EXTEND(0x33, VL2), EXTEND(0x34, VL4), EXTEND(0x35, VL2),
	INT_SSE41(0x28), INT_SSE41(0x29), INT_SSE41(0x2b), INT_SSE41(0x38), INT_SSE41(0x39), INT_SSE41(0x3a),
	INT_SSE41(0x3b), INT_SSE41(0x3c), INT_SSE41(0x3d), INT_SSE41(0x3e), INT_SSE41(0x3f), INT_SSE41(0x40),
	ROW(0F38, 0x2a, 1, LOAD, SSE41, AVX, AVX2, VL, VAL | MEM),
	ROW(0F38, 0x37, 1, RM, SSE42, AVX, AVX2, VL, NDS),
	ROW(0F38, 0x41, 1, RM, SSE41, AVX, NONE, VL, 0),
	ROW(0F3A, 0x08, 1, RM, SSE41, AVX, AVX, VL, FP | IMM), ROW(0F3A, 0x09, 1, RM, SSE41, AVX, AVX, VL, FP | IMM),
	ROW(0F3A, 0x0a, 1, RM, SSE41, AVX, AVX, 4, NDS | FP | IMM | LIG),
	ROW(0F3A, 0x0b, 1, RM, SSE41, AVX, AVX, 8, NDS | FP | IMM | LIG),
	ROW(0F3A, 0x0c, 1, RM, SSE41, AVX, AVX, VL, NDS | IMM), ROW(0F3A, 0x0d, 1, RM, SSE41, AVX, AVX, VL, NDS | IMM),
	ROW(0F3A, 0x0e, 1, RM, SSE41, AVX, AVX2, VL, NDS | IMM),
	ROW(0F3A, 0x14, 1, EXTRACT, SSE41, AVX, NONE, 1, RMGPR | IMM),
	ROW(0F3A, 0x15, 1, EXTRACT, SSE41, AVX, NONE, 2, RMGPR | IMM),
	ROW(0F3A, 0x16, 1, EXTRACT, SSE41, AVX, NONE, W, RMGPR | IMM | WGPR),
	ROW(0F3A, 0x17, 1, EXTRACT, SSE41, AVX, NONE, 4, RMGPR | IMM),
	ROW(0F3A, 0x20, 1, RM, SSE41, AVX, NONE, 1, NDS | RMGPR | IMM),
	ROW(0F3A, 0x21, 1, RM, SSE41, AVX, NONE, 4, NDS | IMM | ROW_REGFORM),
	ROW(0F3A, 0x22, 1, RM, SSE41, AVX, NONE, W, NDS | RMGPR | IMM | WGPR),
	ROW(0F3A, 0x40, 1, RM, SSE41, AVX, AVX, VL, NDS | FP | IMM),
	ROW(0F3A, 0x41, 1, RM, SSE41, AVX, NONE, VL, NDS | FP | IMM),
	ROW(0F3A, 0x42, 1, RM, SSE41, AVX, AVX2, VL, NDS | IMM),
	ROW(0F3A, 0x60, 1, STRING, SSE42, AVX, NONE, VL, UNAL | IMM | WGPR),
	ROW(0F3A, 0x61, 1, STRING, SSE42, AVX, NONE, VL, UNAL | IMM | WGPR),
	ROW(0F3A, 0x62, 1, STRING, SSE42, AVX, NONE, VL, UNAL | IMM),
	ROW(0F3A, 0x63, 1, STRING, SSE42, AVX, NONE, VL, UNAL | IMM),

	/* AES, PCLMULQDQ, SHA */
	ROW(0F38, 0xdb, 1, RM, AES, AES, NONE, VL, 0), ROW(0F38, 0xdc, 1, RM, AES, AES, NONE, VL, NDS),
	ROW(0F38, 0xdd, 1, RM, AES, AES, NONE, VL, NDS), ROW(0F38, 0xde, 1, RM, AES, AES, NONE, VL, NDS),
	ROW(0F38, 0xdf, 1, RM, AES, AES, NONE, VL, NDS), ROW(0F3A, 0xdf, 1, RM, AES, AES, NONE, VL, IMM),
	ROW(0F3A, 0x44, 1, RM, PCLMUL, PCLMUL, NONE, VL, NDS | IMM),
	/* SHA takes any address on AMD's CPUs; the SDM has #GP. */
	ROW(0F38, 0xc8, 0, RM, SHA, NONE, NONE, VL, UNAL), ROW(0F38, 0xc9, 0, RM, SHA, NONE, NONE, VL, UNAL),
	ROW(0F38, 0xca, 0, RM, SHA, NONE, NONE, VL, UNAL), ROW(0F38, 0xcb, 0, RM, SHA, NONE, NONE, VL, UNAL | ROW_XMM0),
	ROW(0F38, 0xcc, 0, RM, SHA, NONE, NONE, VL, UNAL), ROW(0F38, 0xcd, 0, RM, SHA, NONE, NONE, VL, UNAL),
	ROW(0F3A, 0xcc, 0, RM, SHA, NONE, NONE, VL, UNAL | IMM),

	/* AVX, AVX2 */
	ROW(0F38, 0x0c, 1, RM, NONE, AVX, AVX, VL, NDS | W0), ROW(0F38, 0x0d, 1, RM, NONE, AVX, AVX, VL, NDS | W0),
	ROW(0F38, 0x0e, 1, FLAGS, NONE, AVX, AVX, VL, W0), ROW(0F38, 0x0f, 1, FLAGS, NONE, AVX, AVX, VL, W0),
	ROW(0F38, 0x16, 1, RM, NONE, NONE, AVX2, VL, NDS | W0), ROW(0F38, 0x36, 1, RM, NONE, NONE, AVX2, VL, NDS | W0),
	ROW(0F38, 0x18, 1, RM, NONE, AVX, AVX, 4, W0), ROW(0F38, 0x19, 1, RM, NONE, NONE, AVX, 8, W0),
	ROW(0F38, 0x1a, 1, RM, NONE, NONE, AVX, 16, W0 | MEM), ROW(0F38, 0x5a, 1, RM, NONE, NONE, AVX2, 16, W0 | MEM),
	ROW(0F38, 0x58, 1, RM, NONE, AVX2, AVX2, 4, W0), ROW(0F38, 0x59, 1, RM, NONE, AVX2, AVX2, 8, W0),
	ROW(0F38, 0x78, 1, RM, NONE, AVX2, AVX2, 1, W0), ROW(0F38, 0x79, 1, RM, NONE, AVX2, AVX2, 2, W0),
	ROW(0F38, 0x45, 1, RM, NONE, AVX2, AVX2, VL, NDS | W), ROW(0F38, 0x46, 1, RM, NONE, AVX2, AVX2, VL, NDS | W0),
	ROW(0F38, 0x47, 1, RM, NONE, AVX2, AVX2, VL, NDS | W),
	ROW(0F38, 0x2c, 1, MASKED_LOAD, NONE, AVX, AVX, VL, NDS | W0 | MEM),
	ROW(0F38, 0x2d, 1, MASKED_LOAD, NONE, AVX, AVX, VL, NDS | W0 | MEM),
	ROW(0F38, 0x2e, 1, MASKED_STORE, NONE, AVX, AVX, VL, NDS | W0 | MEM),
	ROW(0F38, 0x2f, 1, MASKED_STORE, NONE, AVX, AVX, VL, NDS | W0 | MEM),
	ROW(0F38, 0x8c, 1, MASKED_LOAD, NONE, AVX2, AVX2, VL, NDS | W | MEM),
	ROW(0F38, 0x8e, 1, MASKED_STORE, NONE, AVX2, AVX2, VL, NDS | W | MEM),
	ROW(0F38, 0x90, 1, GATHER, NONE, AVX2, AVX2, W, NDS | W | MEM),
	ROW(0F38, 0x91, 1, GATHER, NONE, AVX2, AVX2, W, NDS | W | MEM),
	ROW(0F38, 0x92, 1, GATHER, NONE, AVX2, AVX2, W, NDS | W | MEM),
	ROW(0F38, 0x93, 1, GATHER, NONE, AVX2, AVX2, W, NDS | W | MEM),
	ROW(0F3A, 0x00, 1, RM, NONE, NONE, AVX2, VL, IMM | W1), ROW(0F3A, 0x01, 1, RM, NONE, NONE, AVX2, VL, IMM | W1),
	ROW(0F3A, 0x02, 1, RM, NONE, AVX2, AVX2, VL, NDS | IMM | W0),
	ROW(0F3A, 0x04, 1, RM, NONE, AVX, AVX, VL, IMM | W0), ROW(0F3A, 0x05, 1, RM, NONE, AVX, AVX, VL, IMM | W0),
	ROW(0F3A, 0x06, 1, RM, NONE, NONE, AVX, VL, NDS | IMM | W0),
	ROW(0F3A, 0x46, 1, RM, NONE, NONE, AVX2, VL, NDS | IMM | W0),
	ROW(0F3A, 0x18, 1, RM, NONE, NONE, AVX, 16, NDS | IMM | W0),
	ROW(0F3A, 0x38, 1, RM, NONE, NONE, AVX2, 16, NDS | IMM | W0),
	ROW(0F3A, 0x19, 1, EXTRACT_128, NONE, NONE, AVX, 16, IMM | W0),
	ROW(0F3A, 0x39, 1, EXTRACT_128, NONE, NONE, AVX2, 16, IMM | W0),
	ROW(0F3A, 0x4a, 1, RM, NONE, AVX, AVX, VL, NDS | W0 | ROW_IS4),
	ROW(0F3A, 0x4b, 1, RM, NONE, AVX, AVX, VL, NDS | W0 | ROW_IS4),
	ROW(0F3A, 0x4c, 1, RM, NONE, AVX, AVX2, VL, NDS | W0 | ROW_IS4),

	FMA_FORM(0x90), FMA_FORM(0xa0), FMA_FORM(0xb0),
};
const unsigned vec_rows_count = sizeof(vec_rows) / sizeof(vec_rows[0]);

/* First row of each map, opcode and prefix plus one; groups follow each other there. */
static uint16_t row_index[MAP_COUNT][256][4];

__attribute__((constructor)) static void rows_index(void)
{
	for (unsigned n = vec_rows_count; n-- > 0;)
		row_index[vec_rows[n].map][vec_rows[n].opcode][vec_rows[n].pp] = (uint16_t)(n + 1);
}

const struct vec_row *vec_row_find(unsigned map, unsigned opcode, unsigned pp, unsigned modrm_reg)
{
	unsigned n = row_index[map][opcode][pp];

	if (n == 0)
		return NULL;
	for (const struct vec_row *r = &vec_rows[n - 1]; r < vec_rows + vec_rows_count; r++) {
		if (r->map != map || r->opcode != opcode)
			return NULL;
		if (r->pp == pp && (r->ext == 0 || r->ext == (modrm_reg & 7) + 1))
			return r;
	}
	return NULL;
}

bool vec_need_offered(enum vec_need need)
{
	if (need == NEED_NONE)
		return false;
	return need == NEED_BASE || vec_offers((enum vec_feature)(need - NEED_SSE3));
}

_Static_assert((int)NEED_AVX2 - NEED_SSE3 == VEC_AVX2, "enum vec_need follows enum vec_feature");

unsigned vec_row_mem(const struct vec_row *r, unsigned vl, bool w)
{
	switch ((enum vec_mem)r->mem) {
	case MEM_1: return 1;
	case MEM_2: return 2;
	case MEM_4: return 4;
	case MEM_8: return 8;
	case MEM_16: return 16;
	case MEM_VL: return vl;
	case MEM_VL2: return vl / 2;
	case MEM_VL4: return vl / 4;
	case MEM_VL8: return vl / 8;
	case MEM_W: return w ? 8 : 4;
	case MEM_DUP: return vl == 32 ? 32 : 8;
	case MEM_MMX4: return 4;
	}
	return 0;
}
