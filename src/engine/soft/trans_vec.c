/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Vector instructions, re-emitted on host registers 0 (reg), 1 (rm) and 2
 * (vvvv), which are loaded from and stored to v->ymm[] around each. Whether the
 * unit may be used is one bit in v->xl.vec, looked at once in a block; what is
 * not simple (no unit, unmasked exceptions, MMX) the interpreter does.
 */
#include "engine/soft/trans_emit.h"
#include "engine/soft/vec.h"

static const struct vec_row *row_of(const struct insn *i)
{
	unsigned pp = i->prefixes & PFX_VEX ? i->pp : i->prefixes & PFX_F2 ? 3 : i->prefixes & PFX_F3 ? 2 :
		      i->prefixes & PFX_66 ? 1 : 0;

	if (i->map == MAP_1B || (i->map == MAP_0F && (i->opcode == 0xae || i->opcode == 0xc7)))
		return NULL;
	return vec_row_find(i->map, i->opcode, pp, i->reg);
}

/* What goes in and out: bits for registers 0 and 1; general registers. */
enum { IN0 = 1, IN1 = 2, OUT0 = 4, OUT1 = 8, STORES = 16, SETS_FLAGS = 32, GPR_REG = 64, GPR_RM = 128, GPR_RM_OUT = 256 };

static unsigned plan(const struct vec_row *r, const struct insn *i)
{
	bool vex = i->prefixes & PFX_VEX;
	unsigned in1 = i->is_mem ? 0 : r->flags & ROW_RMGPR ? GPR_RM : IN1;

	if (r->flags & (ROW_MMX | ROW_XMM0 | ROW_IS4))
		return 0;
	switch ((enum vec_shape)r->shape) {
	case SHAPE_RM:
		if (r->flags & ROW_UNALIGNED)
			return 0;
		return in1 | OUT0 | (!vex || r->flags & ROW_RW ? IN0 : 0);
	case SHAPE_FLAGS: return IN0 | in1 | SETS_FLAGS;
	case SHAPE_GPR: return in1 | GPR_REG;
	case SHAPE_SHIFT: return vex || i->is_mem ? 0 : IN1 | OUT1;
	case SHAPE_LOAD: case SHAPE_LOAD_Q: return in1 | OUT0;
	case SHAPE_LOAD_SCALAR:
		return i->is_mem ? OUT0 : vex ? 0 : IN0 | IN1 | OUT0;
	case SHAPE_LOAD_LOW: case SHAPE_LOAD_HIGH: return vex ? 0 : in1 | IN0 | OUT0;
	case SHAPE_STORE: case SHAPE_STORE_SCALAR: case SHAPE_STORE_Q: case SHAPE_STORE_LOW: case SHAPE_STORE_HIGH:
		return i->is_mem ? IN0 | STORES : 0;
	case SHAPE_LOAD_G: return (i->is_mem ? 0 : GPR_RM) | OUT0;
	case SHAPE_STORE_G: return IN0 | (i->is_mem ? STORES : GPR_RM_OUT);
	default: return 0;
	}
}

bool trans_vec_form(const struct insn *i, struct trans_form *f)
{
	const struct vec_row *r = row_of(i);
	unsigned p = r ? plan(r, i) : 0;

	if (!p)
		return false;
	f->kind = K_VEC;
	f->size = (uint8_t)(1u << (i->aux & AUX_SIZE));
	f->sets = p & SETS_FLAGS;
	f->kills = f->sets ? FLAGS_ARITH : 0;
	return true;
}

/* The same instruction on other registers; rm H_NONE: [T1]. */
static void emit(struct trans *t, const struct vec_row *r, unsigned reg, unsigned rm, unsigned vvvv)
{
	static const uint8_t prefix[4] = {0, 0x66, 0xf3, 0xf2};
	const struct insn *i = t->insn;
	unsigned b = rm == H_NONE ? T1 : rm;

	if (i->prefixes & PFX_VEX) {
		e8(t, 0xc4);
		e8(t, (reg & 8 ? 0 : 0x80) | 0x40 | (b & 8 ? 0 : 0x20) | i->map);
		e8(t, (i->rex & 8) << 4 | (~vvvv & 15) << 3 | i->vl << 2 | i->pp);
	} else {
		if (r->pp)
			e8(t, prefix[r->pp]);
		if (i->rex & 8 || (reg | b) & 8)
			e8(t, 0x40 | (i->rex & 8) | (reg >> 3 & 1) << 2 | (b >> 3 & 1));
		e8(t, 0x0f);
		if (i->map != MAP_0F)
			e8(t, i->map == MAP_0F38 ? 0x38 : 0x3a);
	}
	e8(t, i->opcode);
	e8(t, (rm == H_NONE ? 0 : 0xc0) | (reg & 7) << 3 | (b & 7));
	for (unsigned n = 0; n < i->has_imm; n++)
		e8(t, i->bytes[i->len - i->has_imm + n]);
}

/* Between host register n and guest register `guest`: 16 bytes, or with VEX 32 where the upper half counts. */
static void move(struct trans *t, bool store, unsigned n, unsigned guest)
{
	const struct insn *i = t->insn;
	bool vex = i->prefixes & PFX_VEX;

	if (vex) {
		e8(t, 0xc5);
		e8(t, i->vl || store ? 0xfc : 0xf8);
	} else {
		e8(t, 0x0f);
	}
	e8(t, store ? 0x29 : 0x28);
	e8(t, 0x80 | n << 3 | 4);
	e8(t, 0x24);
	e32(t, (uint32_t)TMEM(ymm) + 32 * guest);
}

void trans_vec_emit(struct trans *t, const struct trans_form *f)
{
	const struct insn *i = t->insn;
	const struct vec_row *r = row_of(i);
	unsigned p = plan(r, i), reg = 0, rm = 1;
	unsigned need = (i->prefixes & PFX_VEX ? XL_VEC_AVX : XL_VEC_SSE) | (r->flags & ROW_FP ? XL_VEC_MXCSR : 0);

	/*
	 * Each bit by itself: all of them must be set. Without its unit the
	 * instruction faults, so what comes after it need not ask again; with
	 * unmasked exceptions it may go on.
	 */
	for (unsigned bit = 1; bit <= XL_VEC_AVX; bit <<= 1) {
		if (!(need & bit) || t->vec_checked & bit)
			continue;
		trans_flags_keep(t, t->live_in);
		op_v(t, 0xf6, 0, TMEM(xl.vec));
		e8(t, bit);
		trans_stub_add(t, STUB_HANDLER, op_jump(t, 4));
		t->vec_checked |= bit & ~XL_VEC_MXCSR;
	}
	if (i->is_mem) {
		trans_flags_keep(t, t->live_in);
		trans_linear(t);
		trans_lookup(t, f->size, p & STORES);
		if (i->aux & AUX_ALIGNED) {
			op_rr(t, 0xf6, 0, T1); /* test r10b, size - 1 */
			e8(t, f->size - 1u);
			trans_stub_add(t, STUB_HANDLER, op_jump(t, 5));
		}
		rm = H_NONE;
	} else if (p & (GPR_RM | GPR_RM_OUT)) {
		rm = host_reg(i->rm);
		if (rm == H_NONE) {
			rm = T1;
			if (p & GPR_RM)
				op_v(t, 0x8b | OP_W, T1, gpr_disp(i->rm));
		}
	}
	if (p & IN0)
		move(t, false, 0, i->reg);
	if (p & IN1)
		move(t, false, 1, i->rm);
	if (i->prefixes & PFX_VEX && r->flags & ROW_NDS)
		move(t, false, 2, i->vvvv);
	if (p & GPR_REG) {
		reg = host_reg(i->reg);
		if (reg == H_NONE)
			reg = T2;
	} else if (r->shape == SHAPE_SHIFT) {
		reg = i->modrm >> 3 & 7;
	}
	emit(t, r, reg, rm, i->prefixes & PFX_VEX && r->flags & ROW_NDS ? 2 : 0);
	if (p & SETS_FLAGS) {
		t->in_host = true;
		t->in_mem = false;
	}
	if (p & OUT0)
		move(t, true, 0, i->reg);
	if (p & OUT1)
		move(t, true, 1, i->rm);
	if (i->prefixes & PFX_VEX && i->vl) {
		e8(t, 0xc5); /* vzeroupper */
		e8(t, 0xf8);
		e8(t, 0x77);
	}
	if (p & GPR_REG && host_reg(i->reg) == H_NONE)
		op_v(t, 0x89 | OP_W, T2, gpr_disp(i->reg));
	if (p & GPR_RM_OUT && host_reg(i->rm) == H_NONE)
		op_v(t, 0x89 | OP_W, T1, gpr_disp(i->rm));
	if (p & STORES)
		trans_written_check(t);
}

unsigned trans_vec_ready(struct soft_vcpu *v)
{
	bool sse = !(v->cr0 & (CR0_EM | CR0_TS)) && v->cr4 & CR4_OSFXSR;
	bool avx = (v->cr0 & (CR0_TS | CR0_PE)) == CR0_PE && v->cr4 & CR4_OSXSAVE && (v->xcr0 & 6) == 6;

	_Static_assert(XL_VEC_MXCSR == VEC_LIVE_MXCSR, "copied as it is");
	return (sse ? XL_VEC_SSE : 0) | (avx ? XL_VEC_AVX : 0) | (v->vec_live & VEC_LIVE_MXCSR);
}
