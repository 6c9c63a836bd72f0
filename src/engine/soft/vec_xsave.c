/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * FXSAVE, FXRSTOR, LDMXCSR, STMXCSR and the XSAVE family (SDM vol. 1 chapter
 * 13). With x87, SSE and AVX as the only components the AVX part lies at 576 in
 * the compacted format too. XSAVES and XRSTORS have no supervisor component:
 * they are XSAVEC and a compacted XRSTOR for CPL 0.
 */
#include "engine/soft/vec.h"

#define XCOMP_COMPACT (1ull << 63)

/* ---- Image and guest memory ----------------------------------------------- */

/* The legacy and AVX regions as they go to memory; 64-bit FIP and FDP only with REX.W. */
static void image_make(struct soft_vcpu *v, const struct insn *i, uint8_t *image)
{
	memcpy(image, v->fx, FX_XMM);
	if (!(i->rex & 8)) {
		/* FCS and FDS are deprecated: 0. */
		put32(image + FX_FIP + 4, 0);
		put32(image + FX_FDP + 4, 0);
	}
	put32(image + FX_MXCSR, vec_mxcsr(v));
	put32(image + FX_MXCSR_MASK, MXCSR_VALID);
	for (unsigned n = 0; n < 16; n++) {
		memcpy(image + FX_XMM + 16 * n, v->ymm[n], 16);
		memcpy(image + XSAVE_AVX + 16 * n, v->ymm[n] + 16, 16);
	}
}

static void x87_from_image(struct soft_vcpu *v, const struct insn *i, const uint8_t *image)
{
	uint32_t mxcsr = get32(v->fx + FX_MXCSR);

	memcpy(v->fx, image, FX_MXCSR);
	if (!(i->rex & 8)) {
		put32(v->fx + FX_FIP + 4, 0);
		put32(v->fx + FX_FDP + 4, 0);
	}
	for (unsigned n = 0; n < 8; n++)
		memcpy(v->fx + FX_ST + 16 * n, image + FX_ST + 16 * n, 10);
	put32(v->fx + FX_MXCSR, mxcsr);
	vec_x87_normalize(v->fx);
}

static void x87_init(struct soft_vcpu *v)
{
	uint32_t mxcsr = get32(v->fx + FX_MXCSR);

	memset(v->fx, 0, FX_XMM);
	put16(v->fx + FX_FCW, FCW_RESET);
	put32(v->fx + FX_MXCSR, mxcsr);
}

static unsigned reg_count(const struct insn *i)
{
	return i->mode == MODE_64 ? 16 : 8;
}

struct area {
	struct soft_vcpu *v;
	uint64_t linear;
	bool wrap, stack;
};

static struct area area_at(struct soft_vcpu *v, const struct insn *i, unsigned size, unsigned align,
			   enum mmu_access acc)
{
	struct area a = { v, insn_linear(v, i, size, acc), i->mode != MODE_64, i->stack };

	/* FXSAVE and FXRSTOR check for 4 bytes first. */
	if (align == 16)
		vec_check_alignment(v, a.linear, 4);
	if (a.linear & (align - 1))
		soft_raise(v, EXC_GP, 0);
	return a;
}

static uint64_t area_linear(const struct area *a, unsigned at)
{
	return a->wrap ? (uint32_t)(a->linear + at) : a->linear + at;
}

/* [from, to) of the image; both are multiples of 8, and a piece never crosses a page because the area is aligned. */
static void area_write(const struct area *a, const uint8_t *image, unsigned from, unsigned to)
{
	for (unsigned n; from < to; from += n) {
		uint64_t linear = area_linear(a, from);

		n = 64 - (linear & 63);
		if (n > to - from)
			n = to - from;
		vec_mem_store(a->v, linear, image + from, n, a->stack);
	}
}

static void area_read(const struct area *a, uint8_t *image, unsigned from, unsigned to)
{
	for (unsigned n; from < to; from += n) {
		uint64_t linear = area_linear(a, from);
		struct tlb_entry *t;

		n = 64 - (linear & 63);
		if (n > to - from)
			n = to - from;
		t = tlb_at(a->v, linear);
		if (likely(t->rtag == ((linear + n - 1) & ~0xfffull)))
			memcpy(image + from, (const void *)(linear + t->addend), n);
		else
			mmu_read(a->v, linear, image + from, n, a->stack);
	}
}

static void x87_settle(struct soft_vcpu *v)
{
	if (v->vec_live & VEC_LIVE_X87)
		vec_x87_sync(v);
}

/* ---- FXSAVE, FXRSTOR ------------------------------------------------------ */

static void fx_check(struct soft_vcpu *v)
{
	vec_home(v);
	if (v->cr0 & (CR0_EM | CR0_TS))
		soft_raise(v, EXC_NM, 0);
}

static void fxsave(struct soft_vcpu *v, const struct insn *i)
{
	uint8_t *image = v->vec->area;
	struct area a;

	fx_check(v);
	a = area_at(v, i, FX_SIZE, 16, ACC_WRITE);
	/* All 512 bytes must be there, though the last 96 are not touched. */
	mmu_probe_write(v, area_linear(&a, FX_SIZE - 1), 1, i->stack);
	x87_settle(v);
	image_make(v, i, image);
	/* Without CR4.OSFXSR the SSE part stays away. */
	if (v->cr4 & CR4_OSFXSR) {
		area_write(&a, image, 0, FX_XMM + 16 * reg_count(i));
	} else {
		area_write(&a, image, 0, FX_MXCSR);
		area_write(&a, image, FX_ST, FX_XMM);
	}
}

static void fxrstor(struct soft_vcpu *v, const struct insn *i)
{
	uint8_t *image = v->vec->area;
	struct area a;

	fx_check(v);
	a = area_at(v, i, FX_SIZE, 16, ACC_READ);
	mmu_probe_read(v, area_linear(&a, FX_SIZE - 1), 1, i->stack);
	area_read(&a, image, 0, FX_XMM_END);
	if (v->cr4 & CR4_OSFXSR && get32(image + FX_MXCSR) & ~MXCSR_VALID)
		soft_raise(v, EXC_GP, 0);
	x87_settle(v);
	x87_from_image(v, i, image);
	if (!(v->cr4 & CR4_OSFXSR))
		return;
	vec_mxcsr_write(v, get32(image + FX_MXCSR));
	for (unsigned n = 0; n < reg_count(i); n++)
		memcpy(v->ymm[n], image + FX_XMM + 16 * n, 16);
}

/* ---- MXCSR ---------------------------------------------------------------- */

static void mxcsr_check(struct soft_vcpu *v, const struct insn *i)
{
	if (i->prefixes & PFX_VEX)
		vec_check_avx(v);
	else
		vec_check_sse(v);
}

static void ldmxcsr(struct soft_vcpu *v, const struct insn *i)
{
	uint32_t value;

	mxcsr_check(v, i);
	value = (uint32_t)ld(v, insn_linear(v, i, 4, ACC_READ), 4, i->stack);
	if (value & ~MXCSR_VALID)
		soft_raise(v, EXC_GP, 0);
	vec_mxcsr_write(v, value);
}

static void stmxcsr(struct soft_vcpu *v, const struct insn *i)
{
	mxcsr_check(v, i);
	st(v, insn_linear(v, i, 4, ACC_WRITE), vec_mxcsr(v), 4, i->stack);
}

/* ---- XSAVE family --------------------------------------------------------- */

static void xsave_check(struct soft_vcpu *v)
{
	vec_home(v);
	if (!(v->cr4 & CR4_OSXSAVE))
		soft_raise(v, EXC_UD, 0);
	if (v->cr0 & CR0_TS)
		soft_raise(v, EXC_NM, 0);
}

/* Requested-feature bitmap: EDX:EAX and XCR0. */
static uint64_t rfbm(const struct soft_vcpu *v)
{
	return ((v->gpr[R_DX] << 32) | (uint32_t)v->gpr[R_AX]) & v->xcr0;
}

/* End of the standard area for these components. */
static unsigned area_size(uint64_t components)
{
	return components & XFEATURE_AVX ? XSAVE_END : XSAVE_AVX;
}

/* Write the components in `set`; MXCSR and its mask go by themselves. */
static void components_write(const struct area *a, const struct insn *i, const uint8_t *image, uint64_t set, bool mxcsr)
{
	if (set & XFEATURE_X87) {
		area_write(a, image, 0, FX_MXCSR);
		area_write(a, image, FX_ST, FX_XMM);
	}
	if (mxcsr)
		area_write(a, image, FX_MXCSR, FX_ST);
	if (set & XFEATURE_SSE)
		area_write(a, image, FX_XMM, FX_XMM + 16 * reg_count(i));
	if (set & XFEATURE_AVX)
		area_write(a, image, XSAVE_AVX, XSAVE_AVX + 16 * reg_count(i));
}

/* XSAVE and, with `optimize`, XSAVEOPT: what is in its initial configuration is not written (§13.9). */
soft_inline void op_xsave(struct soft_vcpu *v, const struct insn *i, bool optimize)
{
	uint8_t *image = v->vec->area;
	uint64_t want, use;
	struct area a;

	xsave_check(v);
	want = rfbm(v);
	a = area_at(v, i, area_size(want), 64, ACC_WRITE);
	x87_settle(v);
	use = vec_xinuse(v);
	image_make(v, i, image);
	area_read(&a, image, XSAVE_HEADER, XSAVE_HEADER + 8);
	put64(image + XSAVE_HEADER, (get64(image + XSAVE_HEADER) & ~want) | (use & want));
	components_write(&a, i, image, optimize ? want & use : want, want & (XFEATURE_SSE | XFEATURE_AVX));
	area_write(&a, image, XSAVE_HEADER, XSAVE_HEADER + 8);
}

static void xsave(struct soft_vcpu *v, const struct insn *i)
{
	op_xsave(v, i, false);
}

static void xsaveopt(struct soft_vcpu *v, const struct insn *i)
{
	op_xsave(v, i, true);
}

/* §13.10. MXCSR belongs to the SSE component here and keeps it in use. */
static void xsavec(struct soft_vcpu *v, const struct insn *i)
{
	uint8_t *image = v->vec->area;
	uint64_t want, set;
	struct area a;

	xsave_check(v);
	want = rfbm(v);
	a = area_at(v, i, area_size(want), 64, ACC_WRITE);
	x87_settle(v);
	set = vec_xinuse(v) & want;
	if (want & XFEATURE_SSE && vec_mxcsr(v) != MXCSR_RESET)
		set |= XFEATURE_SSE;
	image_make(v, i, image);
	put64(image + XSAVE_HEADER, set);
	put64(image + XSAVE_HEADER + 8, want | XCOMP_COMPACT);
	components_write(&a, i, image, set, set & XFEATURE_SSE);
	area_write(&a, image, XSAVE_HEADER, XSAVE_HEADER + 16);
}

static void xsaves(struct soft_vcpu *v, const struct insn *i)
{
	xsave_check(v);
	if (v->cpl)
		soft_raise(v, EXC_GP, 0);
	xsavec(v, i);
}

static bool header_legal(const struct soft_vcpu *v, const uint8_t *header, bool must_compact)
{
	uint64_t bv = get64(header), comp = get64(header + 8), rest = 0;

	for (unsigned n = 16; n < 64; n += 8)
		rest |= get64(header + n);
	if (comp & XCOMP_COMPACT)
		return !(comp & ~XCOMP_COMPACT & ~v->xcr0) && !(bv & ~comp) && !rest;
	/* The standard form defines bytes 8 to 23 only. */
	return !must_compact && !(bv & ~v->xcr0) && !comp && !get64(header + 16);
}

/* §13.8, §13.12 */
soft_inline void op_xrstor(struct soft_vcpu *v, const struct insn *i, bool must_compact)
{
	uint8_t *image = v->vec->area;
	uint64_t want, load, bv;
	bool compact, mxcsr;
	struct area a;

	want = rfbm(v);
	a = area_at(v, i, area_size(want), 64, ACC_READ);
	area_read(&a, image, XSAVE_HEADER, XSAVE_AVX);
	if (!header_legal(v, image + XSAVE_HEADER, must_compact))
		soft_raise(v, EXC_GP, 0);
	bv = get64(image + XSAVE_HEADER);
	compact = get64(image + XSAVE_HEADER + 8) & XCOMP_COMPACT;
	load = want & bv;
	/* Standard form: MXCSR is loaded whatever XSTATE_BV says. */
	mxcsr = compact ? load & XFEATURE_SSE : want & (XFEATURE_SSE | XFEATURE_AVX);

	if (load & XFEATURE_X87) {
		area_read(&a, image, 0, FX_MXCSR);
		area_read(&a, image, FX_ST, FX_XMM);
	}
	if (mxcsr) {
		area_read(&a, image, FX_MXCSR, FX_ST);
		if (get32(image + FX_MXCSR) & ~MXCSR_VALID)
			soft_raise(v, EXC_GP, 0);
	}
	if (load & XFEATURE_SSE)
		area_read(&a, image, FX_XMM, FX_XMM + 16 * reg_count(i));
	if (load & XFEATURE_AVX)
		area_read(&a, image, XSAVE_AVX, XSAVE_AVX + 16 * reg_count(i));

	/* Nothing faults from here. */
	if (want & XFEATURE_X87) {
		x87_settle(v);
		if (load & XFEATURE_X87)
			x87_from_image(v, i, image);
		else
			x87_init(v);
	}
	if (mxcsr)
		vec_mxcsr_write(v, get32(image + FX_MXCSR));
	else if (compact && want & XFEATURE_SSE)
		vec_mxcsr_write(v, MXCSR_RESET);
	for (unsigned n = 0; n < reg_count(i); n++) {
		if (load & XFEATURE_SSE)
			memcpy(v->ymm[n], image + FX_XMM + 16 * n, 16);
		else if (want & XFEATURE_SSE)
			memset(v->ymm[n], 0, 16);
		if (load & XFEATURE_AVX)
			memcpy(v->ymm[n] + 16, image + XSAVE_AVX + 16 * n, 16);
		else if (want & XFEATURE_AVX)
			memset(v->ymm[n] + 16, 0, 16);
	}
}

static void xrstor(struct soft_vcpu *v, const struct insn *i)
{
	xsave_check(v);
	op_xrstor(v, i, false);
}

static void xrstors(struct soft_vcpu *v, const struct insn *i)
{
	xsave_check(v);
	if (v->cpl)
		soft_raise(v, EXC_GP, 0);
	op_xrstor(v, i, true);
}

/* ---- Binding -------------------------------------------------------------- */

static insn_fn *group_0fae(const struct insn *i)
{
	switch (i->reg & 7) {
	case 0: return fxsave;
	case 1: return fxrstor;
	case 2: return ldmxcsr;
	case 3: return stmxcsr;
	case 4: return vec_offers(VEC_XSAVE) ? xsave : NULL;
	case 5: return vec_offers(VEC_XSAVE) ? xrstor : NULL;
	case 6: return vec_offers(VEC_XSAVEOPT) ? xsaveopt : NULL;
	default: return NULL;
	}
}

static insn_fn *group_0fc7(const struct insn *i)
{
	switch (i->reg & 7) {
	case 3: return vec_offers(VEC_XSAVES) ? xrstors : NULL;
	case 4: return vec_offers(VEC_XSAVEC) ? xsavec : NULL;
	case 5: return vec_offers(VEC_XSAVES) ? xsaves : NULL;
	default: return NULL;
	}
}

bool vec_xsave_bind(struct soft_engine *e, struct insn *i)
{
	insn_fn *fn;

	if (!i->is_mem || i->prefixes & (PFX_66 | PFX_F2 | PFX_F3 | PFX_LOCK))
		return false;
	if (i->prefixes & PFX_VEX) {
		unsigned reg = i->reg & 7;

		/* VLDMXCSR, VSTMXCSR: VEX.LZ.0F, no vvvv. */
		if (i->opcode != 0xae || (reg != 2 && reg != 3) || i->pp || i->vl || !vec_vvvv_unused(i) ||
		    !vec_offers(VEC_AVX))
			return false;
	}
	fn = i->opcode == 0xae ? group_0fae(i) : group_0fc7(i);
	if (!fn)
		return false;
	i->aux = 0;
	i->fn = fn;
	return true;
}
