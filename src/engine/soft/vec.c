/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The vector unit: what the host lets it offer, its state, MXCSR, and the
 * binder. The handlers are in vec_op.c, vec_mov.c, vec_x87.c, vec_xsave.c.
 */
#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>

#include "engine/soft/vec.h"

/* ---- Host features -------------------------------------------------------- */

static uint32_t offered;

__attribute__((constructor)) static void features_detect(void)
{
	uint32_t a, b, c = 0, d, b7 = 0, set = 0;
	bool avx = false;

	__get_cpuid(1, &a, &b, &c, &d);
	if (c & bit_OSXSAVE) {
		uint32_t lo, hi;

		asm("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
		avx = c & bit_AVX && (lo & 6) == 6;
	}
	__get_cpuid_count(7, 0, &a, &b7, &d, &d);
	set |= !!(c & bit_SSE3) << VEC_SSE3 | !!(c & bit_SSSE3) << VEC_SSSE3 | !!(c & bit_SSE4_1) << VEC_SSE41 |
	       !!(c & bit_SSE4_2) << VEC_SSE42 | !!(c & bit_AES) << VEC_AES | !!(c & bit_PCLMUL) << VEC_PCLMUL |
	       !!(b7 & bit_SHA) << VEC_SHA;
	if (avx)
		set |= 1u << VEC_AVX | !!(c & bit_F16C) << VEC_F16C | !!(c & bit_FMA) << VEC_FMA |
		       !!(b7 & bit_AVX2) << VEC_AVX2;
	offered = set | 1u << VEC_XSAVE | 1u << VEC_XSAVEOPT | 1u << VEC_XSAVEC | 1u << VEC_XGETBV1 | 1u << VEC_XSAVES;
}

bool vec_offers(enum vec_feature f)
{
	return offered >> f & 1;
}

uint64_t vec_xcr0_mask(void)
{
	return XFEATURE_X87 | XFEATURE_SSE | (vec_offers(VEC_AVX) ? XFEATURE_AVX : 0);
}

/* ---- Making and freeing --------------------------------------------------- */

int vec_engine_init(struct soft_engine *e, struct err *err)
{
	e->vec = vec_stub_new(err);
	return e->vec ? 0 : -ENOMEM;
}

void vec_engine_free(struct soft_engine *e)
{
	vec_stub_free(e->vec);
	e->vec = NULL;
}

int vec_vcpu_init(struct soft_vcpu *v)
{
	v->vec = aligned_alloc(64, sizeof(*v->vec));
	if (!v->vec)
		return -ENOMEM;
	memset(v->vec, 0, sizeof(*v->vec));
	memset(v->ymm, 0, sizeof(v->ymm));
	memset(v->fx, 0, sizeof(v->fx));
	put16(v->fx + FX_FCW, FCW_RESET);
	put32(v->fx + FX_MXCSR, MXCSR_RESET);
	v->vec_live = 0;
	return 0;
}

void vec_vcpu_free(struct soft_vcpu *v)
{
	free(v->vec);
	v->vec = NULL;
}

/* ---- Live state ----------------------------------------------------------- */

bool vec_mxcsr_load(struct soft_vcpu *v)
{
	uint32_t guest;

	vec_home(v);
	guest = get32(v->fx + FX_MXCSR);
	if ((guest & MXCSR_MASKS) != MXCSR_MASKS)
		return false;
	v->vec->host_mxcsr = host_mxcsr_get();
	host_mxcsr_set(guest);
	v->vec_live |= VEC_LIVE_MXCSR;
	return true;
}

static void mxcsr_sync(struct soft_vcpu *v)
{
	put32(v->fx + FX_MXCSR, host_mxcsr_get());
	host_mxcsr_set(v->vec->host_mxcsr);
	v->vec_live &= (uint8_t)~VEC_LIVE_MXCSR;
}

uint32_t vec_mxcsr(struct soft_vcpu *v)
{
	return v->vec_live & VEC_LIVE_MXCSR ? host_mxcsr_get() : get32(v->fx + FX_MXCSR);
}

void vec_mxcsr_write(struct soft_vcpu *v, uint32_t value)
{
	if (v->vec_live & VEC_LIVE_MXCSR)
		mxcsr_sync(v);
	put32(v->fx + FX_MXCSR, value);
}

void vec_sync_slow(struct soft_vcpu *v)
{
	if (v->vec_live & VEC_LIVE_MXCSR)
		mxcsr_sync(v);
	if (v->vec_live & VEC_LIVE_X87)
		vec_x87_sync(v);
	else if (v->vec_live & VEC_LIVE_MMX)
		asm volatile("emms");
	v->vec_live = 0;
}

/*
 * The host runs with everything masked, so what an unmasked exception would
 * have done is read off the flags (SDM vol. 1 §11.5). Two things differ from a
 * masked run: flush-to-zero is ignored with underflow unmasked, and underflow
 * is then raised by a tiny result even if it is exact. A second run with
 * flush-to-zero tells that, for it flags every tiny result.
 *
 * Known difference: PE beside an unmasked OE or UE says whether the result was
 * inexact before it was squeezed into its format; here it may be set although
 * only the squeezing made it so.
 */
static uint64_t run_with(struct vec_call *c, uint32_t mxcsr, uint32_t *flags)
{
	uint32_t host = host_mxcsr_get();
	uint64_t result;

	host_mxcsr_set(mxcsr);
	result = c->stub(c->dst, c->src, c->src2, c->extra);
	*flags = host_mxcsr_get() & MXCSR_FLAGS;
	host_mxcsr_set(host);
	return result;
}

uint32_t vec_unmasked(struct soft_vcpu *v)
{
	return ~(get32(v->fx + FX_MXCSR) >> 7) & MXCSR_FLAGS;
}

uint64_t vec_unmasked_run(struct soft_vcpu *v, struct vec_call *c, uint32_t *flags)
{
	uint32_t control = (get32(v->fx + FX_MXCSR) | MXCSR_MASKS) & ~MXCSR_FLAGS, tiny = 0;
	uint64_t result;

	memcpy(c->saved, c->dst, c->dst_size);
	if (vec_unmasked(v) & XF_UE) {
		run_with(c, control | MXCSR_FZ, &tiny);
		memcpy(c->dst, c->saved, c->dst_size);
		control &= ~MXCSR_FZ;
	}
	result = run_with(c, control, flags);
	*flags |= tiny & XF_UE;
	return result;
}

void vec_unmasked_settle(struct soft_vcpu *v, struct vec_call *c, uint32_t flags)
{
	uint32_t unmasked = vec_unmasked(v);

	/* An unmasked exception found before computing keeps those of the result from happening. */
	if (flags & unmasked & (XF_IE | XF_DE | XF_ZE))
		flags &= XF_IE | XF_DE | XF_ZE;
	put32(v->fx + FX_MXCSR, get32(v->fx + FX_MXCSR) | flags);
	if (flags & unmasked) {
		memcpy(c->dst, c->saved, c->dst_size);
		soft_raise(v, v->cr4 & CR4_OSXMMEXCPT ? EXC_XM : EXC_UD, 0);
	}
}

/* ---- Faults and slow sides ------------------------------------------------ */

void vec_deny_sse(struct soft_vcpu *v)
{
	soft_raise(v, v->cr0 & CR0_EM || !(v->cr4 & CR4_OSFXSR) ? EXC_UD : EXC_NM, 0);
}

void vec_deny_avx(struct soft_vcpu *v)
{
	bool usable = v->cr0 & CR0_PE && !(v->rflags & FL_VM) && v->cr4 & CR4_OSXSAVE && (v->xcr0 & 6) == 6;

	soft_raise(v, usable ? EXC_NM : EXC_UD, 0);
}

void vec_deny_mmx(struct soft_vcpu *v)
{
	soft_raise(v, v->cr0 & CR0_EM ? EXC_UD : EXC_NM, 0);
}

const void *vec_mem_slow(struct soft_vcpu *v, uint64_t linear, unsigned size, bool stack)
{
	if (size >= 16)
		vec_check_alignment(v, linear, 16);
	mmu_read(v, linear, v->vec->bounce, size, stack);
	return v->vec->bounce;
}

void vec_mem_store_slow(struct soft_vcpu *v, uint64_t linear, const void *data, unsigned size, bool stack)
{
	if (size >= 16)
		vec_check_alignment(v, linear, 16);
	mmu_write(v, linear, data, size, stack);
}

/* A byte is always aligned. */
void vec_read_unaligned(struct soft_vcpu *v, uint64_t linear, void *data, unsigned size, bool stack)
{
	if (likely(!v->ac_check)) {
		mmu_read(v, linear, data, size, stack);
		return;
	}
	for (unsigned n = 0; n < size; n++)
		mmu_read(v, linear + n, (uint8_t *)data + n, 1, stack);
}

void vec_write_unaligned(struct soft_vcpu *v, uint64_t linear, const void *data, unsigned size, bool stack)
{
	if (likely(!v->ac_check)) {
		mmu_write(v, linear, data, size, stack);
		return;
	}
	for (unsigned n = 0; n < size; n++)
		mmu_write(v, linear + n, (const uint8_t *)data + n, 1, stack);
}

/* ---- State in and out ----------------------------------------------------- */

static bool all_zero(const uint8_t *p, unsigned n)
{
	uint64_t any = 0;

	for (unsigned k = 0; k < n; k += 8)
		any |= get64(p + k);
	return any == 0;
}

uint64_t vec_xinuse(struct soft_vcpu *v)
{
	uint64_t use = 0, low = 0, high = 0;

	vec_home(v);
	if (v->vec_live & VEC_LIVE_X87)
		vec_x87_sync(v);
	for (unsigned n = 0; n < 16; n++) {
		low |= get64(v->ymm[n]) | get64(v->ymm[n] + 8);
		high |= get64(v->ymm[n] + 16) | get64(v->ymm[n] + 24);
	}
	if (get64(v->fx) != FCW_RESET || !all_zero(v->fx + FX_FIP, 16) || !all_zero(v->fx + FX_ST, 128))
		use |= XFEATURE_X87;
	if (low)
		use |= XFEATURE_SSE;
	if (high)
		use |= XFEATURE_AVX;
	return use;
}

void vec_get(struct soft_vcpu *v, uint8_t *xsave)
{
	vec_sync(v);
	memset(xsave, 0, CPU_XSAVE_SIZE);
	memcpy(xsave, v->fx, FX_XMM);
	put32(xsave + FX_MXCSR_MASK, MXCSR_VALID);
	for (unsigned n = 0; n < 16; n++) {
		memcpy(xsave + FX_XMM + 16 * n, v->ymm[n], 16);
		memcpy(xsave + XSAVE_AVX + 16 * n, v->ymm[n] + 16, 16);
	}
	put64(xsave + XSAVE_HEADER, XFEATURE_X87 | XFEATURE_SSE | (vec_xinuse(v) & XFEATURE_AVX));
}

void vec_set(struct soft_vcpu *v, const uint8_t *xsave)
{
	uint64_t bv = get64(xsave + XSAVE_HEADER);

	vec_sync(v);
	memset(v->fx, 0, sizeof(v->fx));
	memset(v->ymm, 0, sizeof(v->ymm));
	put16(v->fx + FX_FCW, FCW_RESET);
	if (bv & XFEATURE_X87) {
		memcpy(v->fx, xsave, FX_MXCSR);
		v->fx[FX_FTW + 1] = 0;
		for (unsigned n = 0; n < 8; n++)
			memcpy(v->fx + FX_ST + 16 * n, xsave + FX_ST + 16 * n, 10);
		vec_x87_normalize(v->fx);
	}
	/* As XRSTOR: in the standard form MXCSR is not part of what XSTATE_BV covers. */
	put32(v->fx + FX_MXCSR, get32(xsave + FX_MXCSR) & MXCSR_VALID);
	for (unsigned n = 0; n < 16; n++) {
		if (bv & XFEATURE_SSE)
			memcpy(v->ymm[n], xsave + FX_XMM + 16 * n, 16);
		if (bv & XFEATURE_AVX && vec_offers(VEC_AVX))
			memcpy(v->ymm[n] + 16, xsave + XSAVE_AVX + 16 * n, 16);
	}
}

bool vec_area_valid(const uint8_t *xsave)
{
	if (get64(xsave + XSAVE_HEADER) & ~vec_xcr0_mask())
		return false;
	return all_zero(xsave + XSAVE_HEADER + 8, 56) && !(get32(xsave + FX_MXCSR) & ~MXCSR_VALID);
}

/* ---- Binding -------------------------------------------------------------- */

static unsigned effective_prefix(const struct insn *i)
{
	if (i->prefixes & PFX_VEX)
		return i->pp;
	if (i->prefixes & PFX_F2)
		return 3;
	if (i->prefixes & PFX_F3)
		return 2;
	return i->prefixes & PFX_66 ? 1 : 0;
}

/* The rules for one form of a row, SDM vol. 2 §2.3 to 2.4 and the instruction pages. */
static bool form_legal(const struct vec_row *r, const struct insn *i)
{
	bool vex = i->prefixes & PFX_VEX;

	if (i->prefixes & PFX_LOCK)
		return false;
	if (r->flags & ROW_MEM ? !i->is_mem : r->flags & ROW_REG && i->is_mem)
		return false;
	if (!vex)
		return vec_need_offered(r->legacy);
	if (!vec_offers(VEC_AVX) || !vec_need_offered(i->vl ? r->v256 : r->v128))
		return false;
	if (!(r->flags & ROW_NDS) && !vec_vvvv_unused(i))
		return false;
	/* MOVSS and MOVSD merge only between registers. */
	if ((r->shape == SHAPE_LOAD_SCALAR || r->shape == SHAPE_STORE_SCALAR) && i->is_mem &&
	    !vec_vvvv_unused(i))
		return false;
	if (r->flags & ROW_W0)
		return !(i->rex & 8);
	return !(r->flags & ROW_W1) || i->rex & 8;
}

bool vec_bind(struct soft_engine *e, struct insn *i)
{
	const struct vec_row *r;
	bool vex = i->prefixes & PFX_VEX, w = i->rex & 8;
	unsigned vl, size;

	if (i->map == MAP_1B)
		return vec_x87_bind(e, i);
	if (i->map == MAP_0F && (i->opcode == 0xae || i->opcode == 0xc7))
		return vec_xsave_bind(e, i);
	r = vec_row_find(i->map, i->opcode, effective_prefix(i), i->reg);
	if (!r || !form_legal(r, i))
		return false;

	if (r->flags & ROW_WGPR && i->mode != MODE_64)
		w = false;
	vl = r->flags & ROW_MMX ? 8 : vex && i->vl && !(r->flags & ROW_LIG) ? 32 : 16;
	size = vec_row_mem(r, vl, w);
	if (r->shape == SHAPE_CVT_TO_M)
		vl = 16;
	i->aux = (uint8_t)__builtin_ctz(size);
	if (vex ? r->flags & ROW_ALIGNED : vl == 16 && size == 16 && !(r->flags & ROW_UNALIGNED))
		i->aux |= AUX_ALIGNED;
	if (r->shape >= SHAPE_LOAD) {
		i->fn = vec_mov_handler(r, i);
	} else {
		struct vec_form f = { .vex = vex, .l = vex && i->vl, .w = w, .mem = i->is_mem, .imm = (uint8_t)i->imm };

		i->priv = (void *)vec_stub_get(e->vec, r, &f);
		i->fn = vec_op_handler(r, i);
	}
	return i->fn != NULL;
}
