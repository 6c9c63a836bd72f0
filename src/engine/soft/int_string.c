/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * MOVS, STOS, LODS, CMPS, SCAS. With REP the registers are brought up to date
 * after each step, so that a fault or a request between two steps leaves an
 * instruction that continues where it was (SDM vol. 2, REP). A step is one
 * element, or as many as lie in one page on either side.
 */
#include "engine/soft/int.h"

soft_inline uint64_t address_mask(const struct insn *i)
{
	return i->addrsize == 8 ? UINT64_MAX : i->addrsize == 4 ? UINT32_MAX : UINT16_MAX;
}

soft_inline unsigned destination_segment(const struct insn *i)
{
	return i->mode == MODE_64 ? SEG_NONE : SEG_ES;
}

soft_inline uint64_t source(struct soft_vcpu *v, const struct insn *i, unsigned size)
{
	uint64_t off = v->gpr[R_SI] & address_mask(i);

	return ld(v, seg_linear(v, i->seg, off, size, ACC_READ), size, false);
}

soft_inline uint64_t destination(struct soft_vcpu *v, const struct insn *i, unsigned size, enum mmu_access acc)
{
	return seg_linear(v, destination_segment(i), v->gpr[R_DI] & address_mask(i), size, acc);
}

soft_inline void advance(struct soft_vcpu *v, const struct insn *i, unsigned reg, uint64_t bytes)
{
	reg_set(v, reg, v->rflags & FL_DF ? v->gpr[reg] - bytes : v->gpr[reg] + bytes, i->addrsize);
}

/* ---- Runs within a page -------------------------------------------------- */

/*
 * The linear address of offset `off` if an access may run up to the end of its
 * page without another check, and how many bytes that is. 0: it may not.
 */
static uint64_t run_length(struct soft_vcpu *v, const struct insn *i, unsigned seg, uint64_t off, uint64_t *linear)
{
	uint64_t length;

	if (seg == SEG_NONE)
		*linear = off;
	else if (v->mode == MODE_64)
		*linear = v->seg[seg].base + off;
	else if (v->seg_flat & (1u << seg))
		*linear = (uint32_t)off;
	else
		return 0;
	length = 4096 - (*linear & 4095);
	/* The offset must not wrap at the address size either. */
	if (length - 1 > address_mask(i) - off)
		length = address_mask(i) - off + 1;
	return length;
}

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Runs go upwards, and not while every access must take the slow side or every element ends in a trap. */
static bool may_run(const struct soft_vcpu *v)
{
	return !(v->rflags & (FL_DF | FL_TF)) && v->tlb_view != TLB_SLOW;
}

/* Each returns the number of elements done, at most `count`; 0: do one by one. */
#define MOVS_RUN(size) \
	static uint64_t movs_run##size(struct soft_vcpu *v, const struct insn *i, uint64_t count) \
	{ \
		uint64_t from, to, gpa, n; \
		const uint8_t *s; \
		uint8_t *d; \
		n = run_length(v, i, i->seg, v->gpr[R_SI] & address_mask(i), &from); \
		n = min64(n, run_length(v, i, destination_segment(i), v->gpr[R_DI] & address_mask(i), &to)); \
		n = min64(n / size, count); \
		if (!n) \
			return 0; \
		s = mmu_ptr(v, from, n * size, ACC_READ, false, &gpa); \
		d = s ? mmu_ptr(v, to, n * size, ACC_WRITE, false, &gpa) : NULL; \
		if (!d) \
			return 0; \
		if (d <= s || d >= s + n * size) { \
			memmove(d, s, n * size); \
		} else { \
			/* The destination overlaps what is still to be read: the pattern repeats, as it must. */ \
			for (uint64_t k = 0; k < n; k++) \
				*(volatile mem##size *)(d + k * size) = *(const volatile mem##size *)(s + k * size); \
		} \
		mmu_written(v, gpa, n * size); \
		return n; \
	}
FOR_SIZES(MOVS_RUN)

#define STOS_RUN(size) \
	static uint64_t stos_run##size(struct soft_vcpu *v, const struct insn *i, uint64_t count) \
	{ \
		uint64_t to, gpa, n; \
		mem##size *d, value = (mem##size)v->gpr[R_AX]; \
		n = run_length(v, i, destination_segment(i), v->gpr[R_DI] & address_mask(i), &to); \
		n = min64(n / size, count); \
		d = n ? mmu_ptr(v, to, n * size, ACC_WRITE, false, &gpa) : NULL; \
		if (!d) \
			return 0; \
		for (uint64_t k = 0; k < n; k++) \
			d[k] = value; \
		mmu_written(v, gpa, n * size); \
		return n; \
	}
FOR_SIZES(STOS_RUN)

#define FLAGS_COMPARE(size, a, b) \
	{ \
		uint16_t flags; \
		__asm__("cmp" SFX##size " " MOD##size "[second], " MOD##size "[first]" FLAGS_OUT \
			: "=&a"(flags) \
			: [first] "r"((val##size)(a)), [second] "r"((val##size)(b)) \
			: "cc"); \
		flags_put(v, flags); \
	}

/* The flags are those of the last comparison made; REPE and REPNE end on it. */
#define SCAS_RUN(size) \
	static uint64_t scas_run##size(struct soft_vcpu *v, const struct insn *i, uint64_t count) \
	{ \
		uint64_t at, gpa, n, k; \
		const mem##size *p, value = (mem##size)v->gpr[R_AX]; \
		bool while_equal = i->prefixes & PFX_F3; \
		n = run_length(v, i, destination_segment(i), v->gpr[R_DI] & address_mask(i), &at); \
		n = min64(n / size, count); \
		p = n ? mmu_ptr(v, at, n * size, ACC_READ, false, &gpa) : NULL; \
		if (!p) \
			return 0; \
		for (k = 0; k < n - 1 && (p[k] == value) == while_equal; k++) \
			; \
		FLAGS_COMPARE(size, value, p[k]) \
		return k + 1; \
	}
FOR_SIZES(SCAS_RUN)

#define CMPS_RUN(size) \
	static uint64_t cmps_run##size(struct soft_vcpu *v, const struct insn *i, uint64_t count) \
	{ \
		uint64_t first, second, gpa, n, k; \
		const mem##size *a, *b; \
		bool while_equal = i->prefixes & PFX_F3; \
		n = run_length(v, i, i->seg, v->gpr[R_SI] & address_mask(i), &first); \
		n = min64(n, run_length(v, i, destination_segment(i), v->gpr[R_DI] & address_mask(i), &second)); \
		n = min64(n / size, count); \
		if (!n) \
			return 0; \
		a = mmu_ptr(v, first, n * size, ACC_READ, false, &gpa); \
		b = a ? mmu_ptr(v, second, n * size, ACC_READ, false, &gpa) : NULL; \
		if (!b) \
			return 0; \
		for (k = 0; k < n - 1 && (a[k] == b[k]) == while_equal; k++) \
			; \
		FLAGS_COMPARE(size, a[k], b[k]) \
		return k + 1; \
	}
FOR_SIZES(CMPS_RUN)

/* ---- One element --------------------------------------------------------- */

#define STRING_ONE(size) \
	HANDLER(movs##size) \
	{ \
		uint64_t value = source(v, i, size); \
		st(v, destination(v, i, size, ACC_WRITE), value, size, false); \
		advance(v, i, R_SI, size); \
		advance(v, i, R_DI, size); \
	} \
	HANDLER(stos##size) \
	{ \
		st(v, destination(v, i, size, ACC_WRITE), v->gpr[R_AX], size, false); \
		advance(v, i, R_DI, size); \
	} \
	HANDLER(lods##size) \
	{ \
		uint64_t value = source(v, i, size); \
		v->gpr[R_AX] = size == 4 || size == 8 ? value \
			: (v->gpr[R_AX] & ~(size == 1 ? 0xffull : 0xffffull)) | value; \
		advance(v, i, R_SI, size); \
	} \
	HANDLER(scas##size) \
	{ \
		uint64_t value = ld(v, destination(v, i, size, ACC_READ), size, false); \
		FLAGS_COMPARE(size, v->gpr[R_AX], value) \
		advance(v, i, R_DI, size); \
	} \
	HANDLER(cmps##size) \
	{ \
		uint64_t a = source(v, i, size), b = ld(v, destination(v, i, size, ACC_READ), size, false); \
		FLAGS_COMPARE(size, a, b) \
		advance(v, i, R_SI, size); \
		advance(v, i, R_DI, size); \
	}
FOR_SIZES(STRING_ONE)

/* ---- REP ----------------------------------------------------------------- */

/* No run for LODS: nobody repeats it. */
#define lods_run1(v, i, count) 0
#define lods_run2(v, i, count) 0
#define lods_run4(v, i, count) 0
#define lods_run8(v, i, count) 0

/*
 * `done` ends the loop before the count does. Progress is made before the
 * request is looked at: an interrupted instruction that starts again goes on.
 */
#define REP(size, name, si, di, done) \
	HANDLER(rep_##name##size) \
	{ \
		uint64_t count = v->gpr[R_CX] & address_mask(i); \
		while (count) { \
			uint64_t n = count > 1 && may_run(v) ? name##_run##size(v, i, count) : 0; \
			if (n) { \
				if (si) \
					advance(v, i, R_SI, n * size); \
				if (di) \
					advance(v, i, R_DI, n * size); \
			} else { \
				name##size(v, i); \
				n = 1; \
			} \
			count -= n; \
			reg_set(v, R_CX, count, i->addrsize); \
			if (!count || (done)) \
				return; \
			if (atomic_load_explicit(&v->request, memory_order_relaxed)) { \
				v->next_rip = v->rip; \
				return; \
			} \
		} \
	}
#define REP_FAMILY(size) \
	REP(size, movs, true, true, false) \
	REP(size, stos, false, true, false) \
	REP(size, lods, true, false, false) \
	REP(size, scas, false, true, !(v->rflags & FL_ZF) == !!(i->prefixes & PFX_F3)) \
	REP(size, cmps, true, true, !(v->rflags & FL_ZF) == !!(i->prefixes & PFX_F3))
FOR_SIZES(REP_FAMILY)

/* a4..a7, aa..af */
bool int_bind_string(struct insn *i)
{
	static insn_fn *const string[2][8][4] = {
		{
			[2] = TABLE4(movs), [3] = TABLE4(cmps), [5] = TABLE4(stos), [6] = TABLE4(lods), [7] = TABLE4(scas),
		}, {
			[2] = TABLE4(rep_movs), [3] = TABLE4(rep_cmps), [5] = TABLE4(rep_stos), [6] = TABLE4(rep_lods),
			[7] = TABLE4(rep_scas),
		},
	};
	bool rep = i->prefixes & (PFX_F2 | PFX_F3);

	i->fn = string[rep][i->opcode >> 1 & 7][size_log2(insn_width(i))];
	if (rep)
		i->aux |= INSN_ENDS_BLOCK; /* it may have to be entered again */
	return true;
}
