/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The assembler: bytes into t->w. */
#pragma once
#include <stddef.h>

#include "engine/soft/trans.h"

enum { H_AX, H_CX, H_DX, H_BX, H_SP, H_BP, H_SI, H_DI, H_8, H_9, T1, T2, H_12, H_13, H_14, H_15, H_NONE = 255 };
#define H_GUEST_SP H_9
#define TMEM(field) ((int32_t)offsetof(struct soft_vcpu, field))

/* For what is as wide as an address. */
#define OP_A(t) ((t)->narrow ? 0 : OP_W)

/* Host register of guest register n, or H_NONE: it is in v->gpr[]. */
static inline unsigned host_reg(unsigned n)
{
	return n == R_SP ? H_GUEST_SP : n >= 9 && n <= 11 ? H_NONE : n;
}

static inline int32_t gpr_disp(unsigned n)
{
	return TMEM(gpr) + 8 * (int32_t)n;
}

static inline void e8(struct trans *t, unsigned b)
{
	*t->w++ = (uint8_t)b;
}

static inline void e32(struct trans *t, uint32_t x)
{
	memcpy(t->w, &x, 4);
	t->w += 4;
}

static inline void e64(struct trans *t, uint64_t x)
{
	memcpy(t->w, &x, 8);
	t->w += 8;
}

/* An instruction's opcode and what goes with it. */
#define OP_W 0x100u
#define OP_66 0x200u
#define OP_REX 0x400u /* byte registers 4..7 are SPL..DIL */
#define OP_LOCK 0x800u
#define OP_F2 0x1000u
#define OP_F3 0x2000u
#define OP_0F 0x4000u
#define OP_38 0x8000u /* beside OP_0F */

static inline void op_head(struct trans *t, unsigned op, unsigned r, unsigned x, unsigned b)
{
	unsigned rex = (op & OP_W ? 8 : 0) | (r >> 3 & 1) << 2 | (x >> 3 & 1) << 1 | (b >> 3 & 1);

	if (op & OP_LOCK)
		e8(t, 0xf0);
	if (op & OP_66)
		e8(t, 0x66);
	if (op & OP_F2)
		e8(t, 0xf2);
	if (op & OP_F3)
		e8(t, 0xf3);
	if (rex || op & OP_REX)
		e8(t, 0x40 | rex);
	if (op & OP_0F)
		e8(t, 0x0f);
	if (op & OP_38)
		e8(t, 0x38);
	e8(t, op);
}

static inline void op_rr(struct trans *t, unsigned op, unsigned reg, unsigned rm)
{
	op_head(t, op, reg, 0, rm);
	e8(t, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

/* ModRM and what follows it for [base + disp]. */
static inline void modrm_disp(struct trans *t, unsigned reg, unsigned base, int32_t disp)
{
	unsigned mod = !disp && (base & 7) != 5 ? 0 : disp == (int8_t)disp ? 1 : 2;

	e8(t, mod << 6 | (reg & 7) << 3 | (base & 7));
	if ((base & 7) == 4)
		e8(t, 0x24);
	if (mod == 1)
		e8(t, (uint8_t)disp);
	else if (mod == 2)
		e32(t, (uint32_t)disp);
}

/* [base + (index << scale) + disp]; index H_NONE: none. */
static inline void op_mem(struct trans *t, unsigned op, unsigned reg, unsigned base, unsigned index, unsigned scale,
			  int32_t disp)
{
	bool sib = index != H_NONE || (base & 7) == 4;
	unsigned mod = !disp && (base & 7) != 5 ? 0 : disp == (int8_t)disp ? 1 : 2;

	op_head(t, op, reg, index == H_NONE ? 0 : index, base);
	e8(t, mod << 6 | (reg & 7) << 3 | (sib ? 4 : base & 7));
	if (sib)
		e8(t, scale << 6 | (index == H_NONE ? 4 : index & 7) << 3 | (base & 7));
	if (mod == 1)
		e8(t, (uint8_t)disp);
	else if (mod == 2)
		e32(t, (uint32_t)disp);
}

/* A field of the vCPU. */
static inline void op_v(struct trans *t, unsigned op, unsigned reg, int32_t disp)
{
	op_mem(t, op, reg, H_SP, H_NONE, 0, disp);
}

/* jcc (0..15), jmp (16) or call (17) with a field to be filled; returns the field. */
static inline uint8_t *op_jump(struct trans *t, unsigned cc)
{
	if (cc < 16) {
		e8(t, 0x0f);
		e8(t, 0x80 | cc);
	} else {
		e8(t, cc == 16 ? 0xe9 : 0xe8);
	}
	e32(t, 0);
	return t->w - 4;
}

static inline void jump_set(uint8_t *field, const uint8_t *to)
{
	int32_t rel = (int32_t)(to - (field + 4));

	memcpy(field, &rel, 4);
}

/* Pad so that a 4-byte field `ahead` bytes from here can be rewritten in one store. */
static inline void align_field(struct trans *t, unsigned ahead)
{
	switch (-(uintptr_t)(t->w + ahead) & 3) {
	case 3:
		e8(t, 0x0f);
		e8(t, 0x1f);
		e8(t, 0x00);
		break;
	case 2:
		e8(t, 0x66);
		/* fall through */
	case 1:
		e8(t, 0x90);
		break;
	}
}

/* Addresses have 48 bits at most. */
#define TRANS_REST_SHIFT 48

static inline void mov_imm64(struct trans *t, unsigned reg, uint64_t x)
{
	if (x <= UINT32_MAX) {
		op_head(t, 0xb8 | (reg & 7), 0, 0, reg);
		e32(t, (uint32_t)x);
	} else {
		op_head(t, 0xb8 | (reg & 7) | OP_W, 0, 0, reg);
		e64(t, x);
	}
}
