/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Handlers of instructions that run as a stub. Each checks that its unit is
 * available, finds the operands, calls the stub and writes what the stub can't
 * reach: general registers, flags, memory. The variants of one pattern (legacy
 * or VEX or MMX; where rm is; with or without MXCSR) are instances of one
 * inline function with constant arguments.
 */
#include "engine/soft/vec.h"

enum unit { SSE, AVX, MMX };
enum where { IN_X, IN_M, IN_G, IN_MEM };

soft_inline void unit_check(struct soft_vcpu *v, enum unit u)
{
	if (u == SSE)
		vec_check_sse(v);
	else if (u == AVX)
		vec_check_avx(v);
	else
		vec_mmx_check(v);
}

soft_inline void *reg_slot(struct soft_vcpu *v, const struct insn *i, enum unit u)
{
	return u == MMX ? vec_mm(v, i->reg) : v->ymm[i->reg];
}

soft_inline const void *rm_source(struct soft_vcpu *v, const struct insn *i, enum where w)
{
	switch (w) {
	case IN_X: return v->ymm[i->rm];
	case IN_M: return vec_mm(v, i->rm);
	case IN_G: return &v->gpr[i->rm];
	default: return vec_mem_aux(v, i);
	}
}

static __attribute__((noinline)) uint64_t run_unmasked(struct soft_vcpu *v, const struct insn *i, void *dst,
						       unsigned dst_size, const void *src, const void *src2,
						       void *extra)
{
	struct vec_call c = { (vec_stub_fn *)i->priv, dst, src, src2, extra, dst_size, { 0 } };
	uint32_t flags;
	uint64_t result = vec_unmasked_run(v, &c, &flags);

	vec_unmasked_settle(v, &c, flags);
	return result;
}

/* The stub leaves the host's x87 tags valid, for vec_sync() to clean up. After the last memory access: it may sync. */
soft_inline void mmx_used(struct soft_vcpu *v)
{
	v->vec_live |= VEC_LIVE_MMX;
}

soft_inline uint64_t run(struct soft_vcpu *v, const struct insn *i, bool fp, void *dst, unsigned dst_size,
			 const void *src, const void *src2, void *extra)
{
	if (fp && unlikely(!vec_fp_ready(v)))
		return run_unmasked(v, i, dst, dst_size, src, src2, extra);
	return ((vec_stub_fn *)i->priv)(dst, src, src2, extra);
}

/* Check, find rm, and be ready to run: memory comes before MMX state changes. */
soft_inline const void *operands(struct soft_vcpu *v, const struct insn *i, enum unit u, enum where w)
{
	const void *src = NULL;

	unit_check(v, u);
	if (w == IN_MEM)
		src = rm_source(v, i, w);
	if (u == MMX) {
		vec_mmx_enter(v);
		mmx_used(v);
	}
	return w == IN_MEM ? src : rm_source(v, i, w);
}

soft_inline void op_rm(struct soft_vcpu *v, const struct insn *i, enum unit u, enum where w, bool fp, bool is4)
{
	const void *src = operands(v, i, u, w);
	void *dst = reg_slot(v, i, u);

	if (u == AVX)
		run(v, i, fp, dst, 32, src, v->ymm[i->vvvv],
		    is4 ? v->ymm[(i->imm >> 4) & (i->mode == MODE_64 ? 15 : 7)] : NULL);
	else
		run(v, i, fp, dst, 16, src, NULL, v->ymm[0]);
	if (u == MMX)
		vec_mm_written(dst);
}

soft_inline void set_flags(struct soft_vcpu *v, uint64_t stub_result)
{
	v->rflags = (v->rflags & ~(uint64_t)FLAGS_ARITH) | vec_stub_flags(stub_result);
}

soft_inline void op_flags(struct soft_vcpu *v, const struct insn *i, enum unit u, enum where w, bool fp)
{
	const void *src = operands(v, i, u, w);

	set_flags(v, run(v, i, fp, v->ymm[i->reg], 0, src, NULL, NULL));
}

soft_inline void op_gpr(struct soft_vcpu *v, const struct insn *i, enum unit u, enum where w, bool fp)
{
	const void *src = operands(v, i, u, w);

	v->gpr[i->reg] = run(v, i, fp, v->ymm[0], 0, src, NULL, NULL);
}

soft_inline void op_extract(struct soft_vcpu *v, const struct insn *i, enum unit u, enum where w)
{
	uint64_t value;

	unit_check(v, u);
	if (w == IN_MEM) {
		unsigned size = 1u << (i->aux & AUX_SIZE);
		uint64_t linear = insn_linear(v, i, size, ACC_WRITE);

		value = run(v, i, false, v->ymm[i->reg], 0, NULL, NULL, NULL);
		vec_mem_store(v, linear, &value, size, i->stack);
	} else {
		v->gpr[i->rm] = run(v, i, false, v->ymm[i->reg], 0, NULL, NULL, NULL);
	}
}

/* VCVTPS2PH ignores flush-to-zero, so that exact tiny results show only as denormals. */
static __attribute__((noinline)) void half_unmasked(struct soft_vcpu *v, const struct insn *i)
{
	struct vec_call c = { (vec_stub_fn *)i->priv, v->ymm[i->reg], v->vec->result, NULL, NULL, 0, { 0 } };
	uint32_t flags;

	vec_unmasked_run(v, &c, &flags);
	for (unsigned n = 0; n < 16; n += 2) {
		uint16_t h = get16(v->vec->result + n) & 0x7fff;

		if (h && h < 0x400 && vec_unmasked(v) & XF_UE)
			flags |= XF_UE;
	}
	vec_unmasked_settle(v, &c, flags);
}

soft_inline void op_half(struct soft_vcpu *v, const struct insn *i, enum where w)
{
	uint64_t linear = 0;
	unsigned size = 1u << (i->aux & AUX_SIZE);

	vec_check_avx(v);
	if (w == IN_MEM) {
		/* A page fault comes before a floating-point exception. */
		linear = insn_linear(v, i, size, ACC_WRITE);
		if (unlikely(tlb_at(v, linear)->wtag != ((linear + size - 1) & ~0xfffull)))
			mmu_probe_write(v, linear, size, i->stack);
	}
	if (likely(vec_fp_ready(v)))
		((vec_stub_fn *)i->priv)(v->ymm[i->reg], v->vec->result, NULL, NULL);
	else
		half_unmasked(v, i);
	if (w == IN_MEM)
		vec_mem_store(v, linear, v->vec->result, size, i->stack);
	else
		memcpy(v->ymm[i->rm], v->vec->result, 32);
}

soft_inline void op_shift(struct soft_vcpu *v, const struct insn *i, enum unit u)
{
	void *dst;

	unit_check(v, u);
	if (u == MMX) {
		vec_mmx_enter(v);
		mmx_used(v);
	}
	dst = u == MMX ? (void *)vec_mm(v, i->rm) : v->ymm[u == AVX ? i->vvvv : i->rm];
	run(v, i, false, dst, 0, v->ymm[i->rm], NULL, NULL);
	if (u == MMX)
		vec_mm_written(dst);
}

soft_inline void op_string(struct soft_vcpu *v, const struct insn *i, enum unit u, enum where w)
{
	const void *src = operands(v, i, u, w);

	set_flags(v, run(v, i, false, v->ymm[i->reg], 0, src, v->gpr, v->ymm[0]));
}

/* CVTPI2PS, CVTPI2PD: the memory forms leave MMX alone. */
soft_inline void op_cvt_m(struct soft_vcpu *v, const struct insn *i, enum where w)
{
	const void *src;

	vec_check_sse(v);
	src = operands(v, i, w == IN_M ? MMX : SSE, w);
	run(v, i, true, v->ymm[i->reg], 16, src, NULL, NULL);
}

/* A floating-point exception still leaves MMX state behind. */
soft_inline void op_cvt_to_m(struct soft_vcpu *v, const struct insn *i, enum where w)
{
	const void *src;
	uint8_t *mm;

	vec_check_sse(v);
	src = operands(v, i, MMX, w);
	mm = vec_mm(v, i->reg);
	run(v, i, true, mm, 8, src, NULL, NULL);
	vec_mm_written(mm);
}

#define HANDLER(name, call) \
	static void name(struct soft_vcpu *v, const struct insn *i) \
	{ \
		call; \
	}

HANDLER(rm_sse_x, op_rm(v, i, SSE, IN_X, false, false))
HANDLER(rm_sse_g, op_rm(v, i, SSE, IN_G, false, false))
HANDLER(rm_sse_mem, op_rm(v, i, SSE, IN_MEM, false, false))
HANDLER(rm_sse_x_fp, op_rm(v, i, SSE, IN_X, true, false))
HANDLER(rm_sse_g_fp, op_rm(v, i, SSE, IN_G, true, false))
HANDLER(rm_sse_mem_fp, op_rm(v, i, SSE, IN_MEM, true, false))
HANDLER(rm_avx_x, op_rm(v, i, AVX, IN_X, false, false))
HANDLER(rm_avx_g, op_rm(v, i, AVX, IN_G, false, false))
HANDLER(rm_avx_mem, op_rm(v, i, AVX, IN_MEM, false, false))
HANDLER(rm_avx_x_fp, op_rm(v, i, AVX, IN_X, true, false))
HANDLER(rm_avx_g_fp, op_rm(v, i, AVX, IN_G, true, false))
HANDLER(rm_avx_mem_fp, op_rm(v, i, AVX, IN_MEM, true, false))
HANDLER(rm_avx_x_is4, op_rm(v, i, AVX, IN_X, false, true))
HANDLER(rm_avx_mem_is4, op_rm(v, i, AVX, IN_MEM, false, true))
HANDLER(rm_mmx_m, op_rm(v, i, MMX, IN_M, false, false))
HANDLER(rm_mmx_g, op_rm(v, i, MMX, IN_G, false, false))
HANDLER(rm_mmx_mem, op_rm(v, i, MMX, IN_MEM, false, false))
HANDLER(flags_sse_x, op_flags(v, i, SSE, IN_X, false))
HANDLER(flags_sse_mem, op_flags(v, i, SSE, IN_MEM, false))
HANDLER(flags_sse_x_fp, op_flags(v, i, SSE, IN_X, true))
HANDLER(flags_sse_mem_fp, op_flags(v, i, SSE, IN_MEM, true))
HANDLER(flags_avx_x, op_flags(v, i, AVX, IN_X, false))
HANDLER(flags_avx_mem, op_flags(v, i, AVX, IN_MEM, false))
HANDLER(flags_avx_x_fp, op_flags(v, i, AVX, IN_X, true))
HANDLER(flags_avx_mem_fp, op_flags(v, i, AVX, IN_MEM, true))
HANDLER(gpr_sse_x, op_gpr(v, i, SSE, IN_X, false))
HANDLER(gpr_sse_x_fp, op_gpr(v, i, SSE, IN_X, true))
HANDLER(gpr_sse_mem_fp, op_gpr(v, i, SSE, IN_MEM, true))
HANDLER(gpr_avx_x, op_gpr(v, i, AVX, IN_X, false))
HANDLER(gpr_avx_x_fp, op_gpr(v, i, AVX, IN_X, true))
HANDLER(gpr_avx_mem_fp, op_gpr(v, i, AVX, IN_MEM, true))
HANDLER(gpr_mmx_m, op_gpr(v, i, MMX, IN_M, false))
HANDLER(extract_sse_g, op_extract(v, i, SSE, IN_G))
HANDLER(extract_sse_mem, op_extract(v, i, SSE, IN_MEM))
HANDLER(extract_avx_g, op_extract(v, i, AVX, IN_G))
HANDLER(extract_avx_mem, op_extract(v, i, AVX, IN_MEM))
HANDLER(half_x, op_half(v, i, IN_X))
HANDLER(half_mem, op_half(v, i, IN_MEM))
HANDLER(shift_sse, op_shift(v, i, SSE))
HANDLER(shift_avx, op_shift(v, i, AVX))
HANDLER(shift_mmx, op_shift(v, i, MMX))
HANDLER(string_sse_x, op_string(v, i, SSE, IN_X))
HANDLER(string_sse_mem, op_string(v, i, SSE, IN_MEM))
HANDLER(string_avx_x, op_string(v, i, AVX, IN_X))
HANDLER(string_avx_mem, op_string(v, i, AVX, IN_MEM))
HANDLER(cvt_m_m, op_cvt_m(v, i, IN_M))
HANDLER(cvt_m_mem, op_cvt_m(v, i, IN_MEM))
HANDLER(cvt_to_m_x, op_cvt_to_m(v, i, IN_X))
HANDLER(cvt_to_m_mem, op_cvt_to_m(v, i, IN_MEM))

/* PXOR, XORPS, XORPD of a register with itself: the usual way to zero one. */
static void zero_sse(struct soft_vcpu *v, const struct insn *i)
{
	vec_check_sse(v);
	memset(v->ymm[i->reg], 0, 16);
}

static void zero_avx(struct soft_vcpu *v, const struct insn *i)
{
	vec_check_avx(v);
	memset(v->ymm[i->reg], 0, 32);
}

static bool is_zeroing(const struct vec_row *r, const struct insn *i)
{
	bool xor = r->map == MAP_0F && ((r->opcode == 0xef && r->pp == 1) || r->opcode == 0x57);

	return xor && !i->is_mem && i->rm == (i->prefixes & PFX_VEX ? i->vvvv : i->reg);
}

/* By [unit][where][fp]; NULL where no row needs it. */
static insn_fn *const rm_handlers[3][4][2] = {
	[SSE] = { [IN_X] = { rm_sse_x, rm_sse_x_fp },
		  [IN_G] = { rm_sse_g, rm_sse_g_fp },
		  [IN_MEM] = { rm_sse_mem, rm_sse_mem_fp } },
	[AVX] = { [IN_X] = { rm_avx_x, rm_avx_x_fp },
		  [IN_G] = { rm_avx_g, rm_avx_g_fp },
		  [IN_MEM] = { rm_avx_mem, rm_avx_mem_fp } },
	[MMX] = { [IN_M] = { rm_mmx_m, NULL }, [IN_G] = { rm_mmx_g, NULL }, [IN_MEM] = { rm_mmx_mem, NULL } },
};
static insn_fn *const flags_handlers[3][4][2] = {
	[SSE] = { [IN_X] = { flags_sse_x, flags_sse_x_fp }, [IN_MEM] = { flags_sse_mem, flags_sse_mem_fp } },
	[AVX] = { [IN_X] = { flags_avx_x, flags_avx_x_fp }, [IN_MEM] = { flags_avx_mem, flags_avx_mem_fp } },
};
static insn_fn *const gpr_handlers[3][4][2] = {
	[SSE] = { [IN_X] = { gpr_sse_x, gpr_sse_x_fp }, [IN_MEM] = { NULL, gpr_sse_mem_fp } },
	[AVX] = { [IN_X] = { gpr_avx_x, gpr_avx_x_fp }, [IN_MEM] = { NULL, gpr_avx_mem_fp } },
	[MMX] = { [IN_M] = { gpr_mmx_m, NULL } },
};

insn_fn *vec_op_handler(const struct vec_row *r, const struct insn *i)
{
	bool fp = r->flags & ROW_FP, vex = i->prefixes & PFX_VEX;
	enum unit u = r->flags & ROW_MMX ? MMX : vex ? AVX : SSE;
	enum where w = i->is_mem ? IN_MEM : r->flags & ROW_RMGPR ? IN_G : u == MMX ? IN_M : IN_X;

	switch ((enum vec_shape)r->shape) {
	case SHAPE_RM:
		if (is_zeroing(r, i))
			return vex ? zero_avx : zero_sse;
		if (r->flags & ROW_IS4)
			return i->is_mem ? rm_avx_mem_is4 : rm_avx_x_is4;
		return rm_handlers[u][w][fp];
	case SHAPE_FLAGS: return flags_handlers[u][w][fp];
	case SHAPE_GPR: return gpr_handlers[u][w][fp];
	case SHAPE_EXTRACT:
		return vex ? i->is_mem ? extract_avx_mem : extract_avx_g : i->is_mem ? extract_sse_mem : extract_sse_g;
	case SHAPE_HALF: return i->is_mem ? half_mem : half_x;
	case SHAPE_SHIFT: return u == MMX ? shift_mmx : vex ? shift_avx : shift_sse;
	case SHAPE_STRING:
		return vex ? i->is_mem ? string_avx_mem : string_avx_x : i->is_mem ? string_sse_mem : string_sse_x;
	case SHAPE_CVT_M: return i->is_mem ? cvt_m_mem : cvt_m_m;
	case SHAPE_CVT_TO_M: return i->is_mem ? cvt_to_m_mem : cvt_to_m_x;
	default: return NULL;
	}
}
