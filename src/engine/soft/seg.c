/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Segment registers: checked loads, the slow side of address formation, and
 * what follows from segments and control registers for every access (mode,
 * privilege, TLB view). SDM vol. 3 §3.4, chapter 5.
 */
#include "engine/soft/sys.h"

#include "util/log.h"

/* ---- What derives from CS, SS, CR0, CR4, EFER, EFLAGS -------------------- */

/* DR7: enable bits in pairs from bit 0, R/W and LEN in fours from bit 16. R/W 0 is a fetch, 2 a port. */
static bool dr7_has(const struct soft_vcpu *v, unsigned kinds)
{
	uint64_t dr7 = v->dr[7];

	for (unsigned n = 0; n < 4; n++)
		if (dr7 >> (2 * n) & 3 && kinds >> (dr7 >> (16 + 4 * n) & 3) & 1)
			return true;
	return false;
}

bool dr7_has_data(const struct soft_vcpu *v)
{
	return v->dr[7] & 0xff && dr7_has(v, 1 << 1 | 1 << 3);
}

bool dr7_has_code(const struct soft_vcpu *v)
{
	return v->dr[7] & 0xff && dr7_has(v, 1 << 0);
}

unsigned soft_view(const struct soft_vcpu *v, unsigned cpl)
{
	if (unlikely(v->dr[7] & 0xff) && dr7_has_data(v))
		return TLB_SLOW;
	if (cpl == 3)
		return v->cr0 & CR0_AM && v->rflags & FL_AC ? TLB_SLOW : TLB_USER;
	return v->cr4 & CR4_SMAP && v->rflags & FL_AC ? TLB_KERNEL_AC : TLB_KERNEL;
}

void seg_update_flat(struct soft_vcpu *v, unsigned seg)
{
	const struct cpu_segment *s = &v->seg[seg];
	bool flat = !s->base && s->limit == UINT32_MAX;

	/* Writable, expand-up data: any access is right. CS is not, as writes through it must fail. */
	if (seg == SEG_CS)
		flat = v->mode == MODE_64;
	else if (in_paragraphs(v))
		flat = flat && segment_usable(s);
	else
		flat = flat && (s->attr & (SEG_ATTR_UNUSABLE | SEG_ATTR_S | 0xe)) == (SEG_ATTR_S | 2);
	v->seg_flat = (v->seg_flat & ~(1u << seg)) | flat << seg;
}

void soft_update_mode(struct soft_vcpu *v)
{
	const struct cpu_segment *cs = &v->seg[SEG_CS], *ss = &v->seg[SEG_SS];

	v->borrowed = 0;
	v->long_mode = !!(v->efer & EFER_LMA);
	v->mode = v->long_mode && cs->attr & SEG_ATTR_L ? MODE_64 : cs->attr & SEG_ATTR_DB ? MODE_32 : MODE_16;
	v->stack_size = v->mode == MODE_64 ? 8 : segment_width(ss);
	/* The privilege level is SS's DPL at all times (SDM vol. 3 §25.3.1.5 requires the same of a VM entry). */
	v->cpl = !in_protected(v) ? 0 : in_vm86(v) ? 3 : segment_dpl(ss);
	v->ac_check = v->cpl == 3 && v->cr0 & CR0_AM && v->rflags & FL_AC;
	soft_use_view(v, soft_view(v, v->cpl));
	for (unsigned seg = 0; seg < SEG_COUNT; seg++)
		seg_update_flat(v, seg);
	if (unlikely(v->dr[7] & 0xff))
		soft_request(v, REQ_TRAP); /* breakpoints: instructions are stepped singly */
	if (unlikely(v->native_wanted) && v->cpl == 3)
		soft_request(v, REQ_STATE); /* the loop decides how it goes on */
}

/* ---- Address formation --------------------------------------------------- */

bool segment_holds(const struct cpu_segment *s, uint64_t off, unsigned size)
{
	uint64_t last = off + size - 1;

	if (!segment_usable(s))
		return false;
	if ((s->attr & 0x1c) == 0x14) /* data, expand-down: SDM vol. 3 §5.3 */
		return off > s->limit && last <= (s->attr & SEG_ATTR_DB ? UINT32_MAX : UINT16_MAX);
	return last <= s->limit;
}

uint64_t seg_linear_slow(struct soft_vcpu *v, unsigned seg, uint64_t off, unsigned size, enum mmu_access acc)
{
	const struct cpu_segment *s = &v->seg[seg];
	bool ok = true;

	if (v->mode == MODE_64)
		return seg == SEG_FS || seg == SEG_GS ? s->base + off : off;
	if (!in_paragraphs(v)) {
		bool code = s->attr & 8, rw = s->attr & 2;

		if (acc == ACC_FETCH)
			ok = code;
		else if (acc == ACC_READ)
			ok = !code || rw;
		else
			ok = !code && rw;
	}
	if (!ok || !segment_holds(s, off, size))
		soft_raise(v, seg == SEG_SS ? EXC_SS : EXC_GP, 0);
	return (uint32_t)(s->base + off);
}

/* ---- Descriptor tables and the TSS --------------------------------------- */

void sys_or8(struct soft_vcpu *v, uint64_t linear, uint8_t bits)
{
	uint8_t borrowed = v->borrowed, cpl = v->cpl, view = v->tlb_view, *p;
	uint64_t gpa;

	v->borrowed = 1;
	v->cpl = 0;
	soft_use_view(v, soft_view(v, 0)); /* SMAP was checked by the load of the same descriptor */
	p = mmu_ptr(v, linear, 1, ACC_RMW, false, &gpa);
	if (likely(p)) {
		__atomic_fetch_or(p, bits, __ATOMIC_SEQ_CST);
		mmu_written(v, gpa, 1);
	} else {
		uint8_t byte;

		mmu_read_sys(v, linear, &byte, 1);
		byte |= bits;
		mmu_write_sys(v, linear, &byte, 1);
	}
	v->borrowed = borrowed;
	v->cpl = cpl;
	soft_use_view(v, view);
}

void tss_stack(struct soft_vcpu *v, unsigned cpl, uint16_t *ss, uint64_t *sp)
{
	bool is32 = v->tr.attr & 8;
	unsigned size = is32 ? 4 : 2, at = is32 ? 4 + 8 * cpl : 2 + 4 * cpl;

	if (!segment_usable(&v->tr) || at + size + 1 > v->tr.limit)
		soft_raise(v, EXC_TS, selector_error(v->tr.selector));
	*sp = sys_ld(v, (uint32_t)(v->tr.base + at), size);
	*ss = sys_ld(v, (uint32_t)(v->tr.base + at + size), 2);
}

uint64_t tss_stack64(struct soft_vcpu *v, unsigned n)
{
	unsigned at = 4 + 8 * n;

	if (unlikely(!segment_usable(&v->tr) || at + 7 > v->tr.limit))
		soft_raise(v, EXC_TS, selector_error(v->tr.selector));
	return sys_ld(v, v->tr.base + at, 8);
}

_Noreturn void sys_refuse_task(struct soft_vcpu *v, uint16_t selector, const char *what)
{
	log_guest("cpu", "vCPU %u: %s wants a switch to task %04x; hardware task switching is not supported", v->vcpu.index,
		  what, selector);
	soft_raise(v, EXC_GP, selector_error(selector));
}

/* ---- Stacks -------------------------------------------------------------- */

static uint64_t sys_stack_linear(struct soft_vcpu *v, const struct sys_stack *s, uint64_t sp, unsigned size)
{
	if (s->width == 8)
		return sp;
	if (!segment_holds(s->seg, sp, size))
		soft_raise(v, EXC_SS, s->error);
	return (uint32_t)(s->seg->base + sp);
}

static uint64_t sys_stack_mask(const struct sys_stack *s)
{
	return s->width == 8 ? UINT64_MAX : s->width == 4 ? UINT32_MAX : UINT16_MAX;
}

void sys_stack_skip(struct sys_stack *s, uint64_t bytes)
{
	uint64_t keep = s->width == 2 ? s->sp & ~0xffffull : 0;

	s->sp = keep | ((s->sp + bytes) & sys_stack_mask(s));
}

void sys_push(struct soft_vcpu *v, struct sys_stack *s, uint64_t value, unsigned size)
{
	uint64_t sp = (s->sp - size) & sys_stack_mask(s);

	st(v, sys_stack_linear(v, s, sp, size), value, size, true);
	sys_stack_skip(s, -(uint64_t)size);
}

uint64_t sys_pop(struct soft_vcpu *v, struct sys_stack *s, unsigned size)
{
	uint64_t value = ld(v, sys_stack_linear(v, s, s->sp & sys_stack_mask(s), size), size, true);

	sys_stack_skip(s, size);
	return value;
}

/* ---- Loads --------------------------------------------------------------- */

void seg_load_paragraph(struct soft_vcpu *v, unsigned seg, uint16_t selector)
{
	struct cpu_segment *s = &v->seg[seg];

	if (in_vm86(v)) {
		*s = (struct cpu_segment){ .limit = 0xffff, .attr = 0xf3 };
	} else if (seg != SEG_CS) {
		/* Real-address mode keeps limit and size; only a null segment of protected mode becomes usable again. */
		if (!segment_usable(s))
			s->limit = 0xffff;
		s->attr = (s->attr & (SEG_ATTR_DB | SEG_ATTR_G | SEG_ATTR_AVL)) | 0x93;
	}
	s->selector = selector;
	s->base = (uint32_t)selector << 4;
	seg_update_flat(v, seg);
}

uint64_t seg_check_stack(struct soft_vcpu *v, uint16_t selector, unsigned cpl, int vector, uint64_t *linear)
{
	uint32_t error = selector_error(selector);
	uint64_t d;

	if (selector_null(selector))
		soft_raise(v, vector, 0);
	d = desc_load(v, selector, vector, linear);
	if ((selector & 3u) != cpl || desc_dpl(d) != cpl || !desc_is_writable_data(d))
		soft_raise(v, vector, error);
	if (!desc_p(d))
		soft_raise(v, EXC_SS, error);
	return d;
}

static void seg_load_ss(struct soft_vcpu *v, uint16_t selector)
{
	uint64_t linear, d;

	if (selector_null(selector)) {
		if (v->mode != MODE_64 || v->cpl == 3 || (selector & 3u) != v->cpl)
			soft_raise(v, EXC_GP, 0);
		v->seg[SEG_SS] = segment_null(selector, v->cpl);
	} else {
		d = seg_check_stack(v, selector, v->cpl, EXC_GP, &linear);
		desc_set_accessed(v, linear, d);
		v->seg[SEG_SS] = desc_segment(d | DESC_ACCESSED, selector);
	}
	v->stack_size = v->mode == MODE_64 ? 8 : segment_width(&v->seg[SEG_SS]);
	seg_update_flat(v, SEG_SS);
}

void seg_load(struct soft_vcpu *v, unsigned seg, uint16_t selector)
{
	uint32_t error = selector_error(selector);
	uint64_t linear, d;

	if (in_paragraphs(v)) {
		seg_load_paragraph(v, seg, selector);
		return;
	}
	if (seg == SEG_SS) {
		seg_load_ss(v, selector);
		return;
	}
	if (selector_null(selector)) {
		v->seg[seg] = segment_null(selector, 0);
		seg_update_flat(v, seg);
		return;
	}
	d = desc_load(v, selector, EXC_GP, &linear);
	if (!desc_is_readable(d) ||
	    (!desc_is_conforming(d) && (desc_dpl(d) < (selector & 3u) || desc_dpl(d) < v->cpl)))
		soft_raise(v, EXC_GP, error);
	if (!desc_p(d))
		soft_raise(v, EXC_NP, error);
	desc_set_accessed(v, linear, d);
	v->seg[seg] = desc_segment(d | DESC_ACCESSED, selector);
	seg_update_flat(v, seg);
}

void seg_drop_inner(struct soft_vcpu *v)
{
	static const uint8_t segs[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };

	for (unsigned n = 0; n < 4; n++) {
		struct cpu_segment *s = &v->seg[segs[n]];

		if (segment_usable(s) && segment_dpl(s) < v->cpl && (s->attr & 0xc) != 0xc) {
			*s = segment_null(0, 0);
			seg_update_flat(v, segs[n]);
		}
	}
}
