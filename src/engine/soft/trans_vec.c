/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Vector instructions, re-emitted as they stand: from the first one on the
 * guest's registers live in the host's, until C is called or the code is left.
 * v->xl.vec says whether they do and which units may be used; it is looked at
 * once in a row of such instructions. What is not simple (no unit, unmasked
 * exceptions, MMX) the interpreter does.
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

/* What an instruction does beside vector registers. */
enum { KNOWN = 1, STORES = 2, SETS_FLAGS = 4, GPR_REG = 8, GPR_RM = 16, GPR_RM_OUT = 32, BARE = 64 };

static unsigned plan(const struct vec_row *r, const struct insn *i)
{
	unsigned rm = !i->is_mem && r->flags & ROW_RMGPR ? GPR_RM : 0;

	if (r->flags & ROW_MMX)
		return 0;
	switch ((enum vec_shape)r->shape) {
	case SHAPE_RM:
		/* Whether SHA faults on any address is the host's choice. */
		return i->is_mem && r->flags & ROW_UNALIGNED ? 0 : KNOWN | rm;
	case SHAPE_FLAGS: case SHAPE_STRING: return KNOWN | SETS_FLAGS;
	case SHAPE_GPR: return KNOWN | GPR_REG;
	case SHAPE_SHIFT: case SHAPE_LOAD: case SHAPE_LOAD_Q: case SHAPE_LOAD_SCALAR: case SHAPE_LOAD_LOW:
	case SHAPE_LOAD_HIGH: case SHAPE_LOAD_G:
		return KNOWN | rm;
	case SHAPE_STORE: case SHAPE_STORE_SCALAR: case SHAPE_STORE_Q: case SHAPE_STORE_LOW: case SHAPE_STORE_HIGH:
	case SHAPE_HALF: case SHAPE_EXTRACT_128:
		return KNOWN | (i->is_mem ? STORES : 0);
	case SHAPE_STORE_G: case SHAPE_EXTRACT:
		return KNOWN | (i->is_mem ? STORES : GPR_RM_OUT);
	case SHAPE_EMPTY: return i->prefixes & PFX_VEX ? KNOWN | BARE : 0;
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
	f->rm = p & STORES ? ROLE_W : ROLE_R;
	f->size = (uint8_t)(1u << (i->aux & AUX_SIZE));
	f->sets = p & SETS_FLAGS;
	f->kills = f->sets ? FLAGS_ARITH : 0;
	return true;
}

unsigned trans_vec_writes(const struct insn *i)
{
	const struct vec_row *r = row_of(i);
	unsigned p = plan(r, i);

	if (r->shape == SHAPE_STRING)
		return 1u << R_CX;
	return (p & GPR_REG ? 1u << i->reg : 0) | (p & GPR_RM_OUT ? 1u << i->rm : 0);
}

/* The instruction with `reg` and `rm` in those fields; rm H_NONE: memory at [T1 + disp]. */
static void emit(struct trans *t, const struct vec_row *r, unsigned reg, unsigned rm, int32_t disp)
{
	static const uint8_t prefix[4] = {0, 0x66, 0xf3, 0xf2};
	const struct insn *i = t->insn;
	unsigned b = rm == H_NONE ? T1 : rm;

	if (i->prefixes & PFX_VEX) {
		e8(t, 0xc4);
		e8(t, (reg & 8 ? 0 : 0x80) | 0x40 | (b & 8 ? 0 : 0x20) | i->map);
		e8(t, (i->rex & 8) << 4 | (~i->vvvv & 15) << 3 | i->vl << 2 | i->pp);
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
	if (r->shape == SHAPE_EMPTY)
		return;
	if (rm != H_NONE)
		e8(t, 0xc0 | (reg & 7) << 3 | (b & 7));
	else
		modrm_disp(t, reg, b, disp);
	for (unsigned n = 0; n < i->has_imm; n++)
		e8(t, i->bytes[i->len - i->has_imm + n]);
}

static unsigned needs(const struct vec_row *r, const struct insn *i)
{
	return (i->prefixes & PFX_VEX ? XL_VEC_AVX : XL_VEC_SSE) | (r->flags & ROW_FP ? XL_VEC_MXCSR : 0);
}

/* The registers must be live and the units usable. Each bit by itself: all of them must be set. */
static void check(struct trans *t, unsigned need)
{
	struct trans_stub *s;

	for (unsigned bit = 1; bit <= XL_VEC_AVX; bit <<= 1) {
		if (!(need & ~t->vec_checked & bit))
			continue;
		trans_flags_keep(t, t->live_in);
		op_v(t, 0xf6, 0, TMEM(xl.vec));
		e8(t, bit);
		s = trans_stub_add(t, STUB_VEC, op_jump(t, 4));
		s->back = t->w;
		t->in_t1 = t->in_t2 = 0;
		t->vec_checked |= bit;
	}
}

void trans_vec_emit(struct trans *t, const struct trans_form *f)
{
	const struct insn *i = t->insn;
	const struct vec_row *r = row_of(i);
	unsigned p = plan(r, i), reg = i->reg, rm = i->rm;
	int32_t disp = 0;

	check(t, needs(r, i));
	if (i->is_mem) {
		disp = trans_operand(t, f->size, p & STORES, i->aux & AUX_ALIGNED ? f->size : 1);
		rm = H_NONE;
	} else if (p & (GPR_RM | GPR_RM_OUT)) {
		rm = host_reg(i->rm);
		if (rm == H_NONE) {
			rm = T1;
			t->in_t1 = 0;
			if (p & GPR_RM)
				op_v(t, 0x8b | OP_W, T1, gpr_disp(i->rm));
		}
	}
	if (p & GPR_REG) {
		reg = host_reg(i->reg);
		if (reg == H_NONE) {
			reg = T2;
			t->in_t2 = 0;
		}
	} else if (r->shape == SHAPE_SHIFT) {
		reg = i->modrm >> 3 & 7;
	}
	emit(t, r, reg, rm, disp);
	if (p & SETS_FLAGS) {
		t->in_host = true;
		t->in_mem = false;
	}
	if (p & GPR_REG && host_reg(i->reg) == H_NONE)
		op_v(t, 0x89 | OP_W, T2, gpr_disp(i->reg));
	if (p & GPR_RM_OUT && host_reg(i->rm) == H_NONE)
		op_v(t, 0x89 | OP_W, T1, gpr_disp(i->rm));
	if (p & STORES)
		trans_written_check(t, disp);
}

uintptr_t trans_vec_call(struct soft_vcpu *v, const struct insn *i, uint64_t rip, uint64_t rest)
{
	unsigned need = needs(row_of(i), i), have;

	if (need & XL_VEC_MXCSR)
		vec_fp_ready(v);
	have = trans_vec_ready(v);
	if ((have & need) == need) {
		v->xl.vec = (uint8_t)have;
		return CALL_GO_ON;
	}
	if (trans_handler_call(v, i, rip, rest) == CALL_GO_ON)
		v->insns -= rest;
	return CALL_LEAVE;
}

unsigned trans_vec_ready(struct soft_vcpu *v)
{
	bool sse, avx;

	vec_home(v);
	sse = !(v->cr0 & (CR0_EM | CR0_TS)) && v->cr4 & CR4_OSFXSR;
	avx = (v->cr0 & (CR0_TS | CR0_PE)) == CR0_PE && v->cr4 & CR4_OSXSAVE && (v->xcr0 & 6) == 6;

	return (sse ? XL_VEC_SSE : 0) | (avx ? XL_VEC_AVX : 0) | (v->vec_live & VEC_LIVE_MXCSR ? XL_VEC_MXCSR : 0);
}
