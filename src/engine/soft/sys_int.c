/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Software interrupts, IRET, and the flags: PUSHF, POPF, CLI, STI (SDM vol. 2; vol. 3 §6.12, §20.2). */
#include "engine/soft/sys.h"

#define FLAGS_WORD (FLAGS_ARITH | FL_TF | FL_DF | FL_NT)

static void sys_int_n(struct soft_vcpu *v, const struct insn *i)
{
	if (in_vm86(v) && iopl(v) < 3)
		soft_raise(v, EXC_GP, 0);
	soft_raise_int(v, EVENT_INT, (uint8_t)i->imm);
}

static void sys_int3(struct soft_vcpu *v, const struct insn *i)
{
	soft_raise_int(v, EVENT_INT3, EXC_BP);
}

static void sys_int1(struct soft_vcpu *v, const struct insn *i)
{
	soft_raise_int(v, EVENT_INT1, EXC_DB);
}

static void sys_into(struct soft_vcpu *v, const struct insn *i)
{
	if (v->rflags & FL_OF)
		soft_raise_int(v, EVENT_INT3, EXC_OF);
}

/* ---- Flags --------------------------------------------------------------- */

/* What POPF and IRET may change at the current level; `size` 2, 4 or 8. IOPL: never outside CPL 0, IF: if CPL <= IOPL. */
static uint64_t flags_mask(const struct soft_vcpu *v, unsigned size)
{
	uint64_t mask = FLAGS_WORD;

	if (size > 2)
		mask |= FL_AC | FL_ID;
	if (v->cpl <= iopl(v))
		mask |= FL_IF;
	if (v->cpl == 0)
		mask |= FL_IOPL;
	return mask;
}

static void sys_pushf(struct soft_vcpu *v, const struct insn *i)
{
	if (in_vm86(v) && iopl(v) < 3)
		soft_raise(v, EXC_GP, 0);
	push(v, v->rflags & ~(uint64_t)(FL_RF | FL_VM), opsize_default64(i));
}

static void sys_popf(struct soft_vcpu *v, const struct insn *i)
{
	unsigned size = opsize_default64(i);

	if (in_vm86(v) && iopl(v) < 3)
		soft_raise(v, EXC_GP, 0);
	soft_set_rflags(v, pop(v, size), flags_mask(v, size) | FL_RF);
	v->rflags &= ~(uint64_t)FL_RF;
}

static void sys_cli(struct soft_vcpu *v, const struct insn *i)
{
	if (v->cpl > iopl(v))
		soft_raise(v, EXC_GP, 0);
	v->rflags &= ~(uint64_t)FL_IF;
}

static void sys_sti(struct soft_vcpu *v, const struct insn *i)
{
	if (v->cpl > iopl(v))
		soft_raise(v, EXC_GP, 0);
	if (v->rflags & FL_IF)
		return;
	v->shadow = 1;
	soft_set_rflags(v, FL_IF, FL_IF);
}

/* ---- IRET ---------------------------------------------------------------- */

/* NMIs are let through again (SDM vol. 3 §6.7.1). */
static void unmask_nmi(struct soft_vcpu *v)
{
	if (likely(!v->nmi_masked))
		return;
	v->nmi_masked = 0;
	if (v->nmi_pending)
		soft_request(v, REQ_NMI);
}

/* Commit RFLAGS. RF counts only while there are code breakpoints; else nothing would clear it. */
static void iret_flags(struct soft_vcpu *v, uint64_t flags, uint64_t mask)
{
	soft_set_rflags(v, flags, mask);
	if (unlikely(v->rflags & FL_RF) && !dr7_has_code(v))
		v->rflags &= ~(uint64_t)FL_RF;
}

static void iret_paragraph(struct soft_vcpu *v, unsigned size)
{
	struct sys_stack stack = sys_stack_current(v);
	uint64_t rip, flags, mask = FLAGS_WORD | FL_IF | FL_RF;
	uint16_t cs;

	if (in_vm86(v)) {
		if (iopl(v) < 3)
			soft_raise(v, EXC_GP, 0);
	} else {
		mask |= FL_IOPL;
	}
	rip = sys_pop(v, &stack, size);
	cs = sys_pop(v, &stack, size);
	flags = sys_pop(v, &stack, size);
	if (rip > v->seg[SEG_CS].limit)
		soft_raise(v, EXC_GP, 0);
	if (size > 2)
		mask |= FL_AC | FL_ID;
	v->gpr[R_SP] = stack.sp;
	seg_load_paragraph(v, SEG_CS, cs);
	v->next_rip = rip;
	iret_flags(v, flags, mask);
	unmask_nmi(v);
}

static void iret_to_vm86(struct soft_vcpu *v, struct sys_stack *stack, uint64_t ip, uint16_t cs, uint64_t flags)
{
	static const uint8_t order[] = { SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	uint32_t esp = sys_pop(v, stack, 4);
	uint16_t selectors[5];

	for (unsigned n = 0; n < 5; n++)
		selectors[n] = sys_pop(v, stack, 4);
	if (ip > 0xffff)
		soft_raise(v, EXC_GP, 0);
	iret_flags(v, flags, FLAGS_WORD | FL_IF | FL_IOPL | FL_RF | FL_VM | FL_AC | FL_ID);
	for (unsigned n = 0; n < 5; n++)
		seg_load_paragraph(v, order[n], selectors[n]);
	seg_load_paragraph(v, SEG_CS, cs);
	v->gpr[R_SP] = esp;
	v->next_rip = ip;
	soft_update_mode(v);
	unmask_nmi(v);
}

static uint64_t iret_code(struct soft_vcpu *v, uint16_t selector, uint64_t *at)
{
	uint32_t error = selector_error(selector);
	unsigned rpl = selector & 3;
	uint64_t d;

	if (selector_null(selector))
		soft_raise(v, EXC_GP, 0);
	d = desc_load(v, selector, EXC_GP, at);
	if (unlikely(!desc_is_code(d) || rpl < v->cpl ||
		     (desc_is_conforming(d) ? desc_dpl(d) > rpl : desc_dpl(d) != rpl) ||
		     (v->long_mode && desc_l(d) && desc_db(d))))
		soft_raise(v, EXC_GP, error);
	if (unlikely(!desc_p(d)))
		soft_raise(v, EXC_NP, error);
	return d;
}

/* Five items, in 64-bit mode; three or five, in protected and compatibility mode. */
static void iret_protected(struct soft_vcpu *v, unsigned size)
{
	struct sys_stack stack = sys_stack_current(v);
	uint64_t rip = sys_pop(v, &stack, size), flags, code, code_at, sp = 0, stack_at = 0, stack_desc = 0, mask;
	uint16_t cs = sys_pop(v, &stack, size), ss_selector = 0;
	bool with_stack = v->mode == MODE_64;
	struct cpu_segment ss;
	unsigned cpl;

	flags = sys_pop(v, &stack, size);
	if (!v->long_mode && size == 4 && flags & FL_VM && v->cpl == 0) {
		iret_to_vm86(v, &stack, rip, cs, flags);
		return;
	}
	code = iret_code(v, cs, &code_at);
	cpl = cs & 3;
	if (cpl != v->cpl)
		with_stack = true;
	if (with_stack) {
		sp = sys_pop(v, &stack, size);
		ss_selector = sys_pop(v, &stack, size);
		if (selector_null(ss_selector) && v->long_mode && desc_l(code) && cpl < 3) {
			if ((ss_selector & 3u) != cpl)
				soft_raise(v, EXC_GP, 0);
			ss = segment_null(ss_selector, cpl);
		} else {
			stack_desc = seg_check_stack(v, ss_selector, cpl, EXC_GP, &stack_at);
			ss = desc_segment(stack_desc | DESC_ACCESSED, ss_selector);
		}
	}
	if (unlikely(v->long_mode && desc_l(code) ? !canonical(rip) : rip > desc_limit(code)))
		soft_raise(v, EXC_GP, 0);
	desc_set_accessed(v, code_at, code);
	if (stack_desc)
		desc_set_accessed(v, stack_at, stack_desc);

	mask = flags_mask(v, size) | (size > 2 ? FL_RF : 0);
	v->seg[SEG_CS] = desc_segment(code | DESC_ACCESSED, cs);
	v->next_rip = rip;
	if (with_stack) {
		bool outer = cpl != v->cpl;

		v->seg[SEG_SS] = ss;
		soft_update_mode(v);
		set_sp(v, sp);
		if (outer)
			seg_drop_inner(v);
	} else {
		v->gpr[R_SP] = stack.sp;
		soft_update_mode(v);
	}
	iret_flags(v, flags, mask);
	unmask_nmi(v);
}

static void sys_iret(struct soft_vcpu *v, const struct insn *i)
{
	if (in_paragraphs(v)) {
		iret_paragraph(v, i->opsize);
		return;
	}
	if (v->rflags & FL_NT) {
		if (v->long_mode)
			soft_raise(v, EXC_GP, 0);
		sys_refuse_task(v, sys_ld(v, (uint32_t)v->tr.base, 2), "IRET with EFLAGS.NT");
	}
	iret_protected(v, i->opsize);
}

/*
 * IRETQ from 64-bit to 64-bit mode, the return of every system: one look at the
 * stack, then the same checks. Anything unusual goes the long way.
 */
static void sys_iretq(struct soft_vcpu *v, const struct insn *i)
{
	uint64_t rsp = v->gpr[R_SP], frame[5], code, code_at, stack_at, stack_desc = 0;
	struct tlb_entry *t = tlb_at(v, rsp);
	unsigned cpl, old = v->cpl;

	if (unlikely(v->rflags & FL_NT || t->rtag != ((rsp + 39) & ~0xfffull))) {
		sys_iret(v, i);
		return;
	}
	/* By quadwords, as they were pushed: a wider load would stall on the stores. */
	for (unsigned n = 0; n < 5; n++)
		frame[n] = ((const volatile any_u64 *)(rsp + t->addend))[n];
	code = iret_code(v, frame[1], &code_at);
	if (unlikely(!desc_l(code) || !canonical(frame[0]) || !(code & DESC_ACCESSED))) {
		sys_iret(v, i);
		return;
	}
	cpl = frame[1] & 3;
	if (selector_null(frame[4])) {
		if (cpl == 3 || (frame[4] & 3) != cpl)
			soft_raise(v, EXC_GP, 0);
		segment_set_null(&v->seg[SEG_SS], frame[4], cpl);
	} else {
		stack_desc = seg_check_stack(v, frame[4], cpl, EXC_GP, &stack_at);
		desc_set_accessed(v, stack_at, stack_desc);
		segment_load(&v->seg[SEG_SS], stack_desc | DESC_ACCESSED, frame[4]);
	}
	segment_load(&v->seg[SEG_CS], code, frame[1]);
	iret_flags(v, frame[2], flags_mask(v, 8) | FL_RF);
	v->gpr[R_SP] = frame[3];
	v->next_rip = frame[0];
	if (cpl != old) {
		soft_set_cpl64(v, cpl);
		seg_drop_inner(v);
	}
	unmask_nmi(v);
}

insn_fn *sys_int_bind(const struct insn *i, bool *ends)
{
	if (i->map != MAP_1B)
		return NULL;
	*ends = true;
	switch (i->opcode) {
	case 0x9c:
		*ends = false;
		return sys_pushf;
	case 0x9d:
		return sys_popf;
	case 0xcc:
		return sys_int3;
	case 0xcd:
		return sys_int_n;
	case 0xce:
		return i->mode == MODE_64 ? sys_undefined : sys_into;
	case 0xcf:
		return i->mode == MODE_64 && i->opsize == 8 ? sys_iretq : sys_iret;
	case 0xf1:
		return sys_int1;
	case 0xfa:
		*ends = false;
		return sys_cli;
	case 0xfb:
		return sys_sti;
	}
	*ends = false;
	return NULL;
}
