/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Far JMP, CALL and RET with code segments and call gates (SDM vol. 3 §5.8; vol. 2, the instructions' pages). */
#include "engine/soft/sys.h"

/* The target of a transfer into code segment `d`: canonical for 64-bit code, else within the limit. */
static void check_target(struct soft_vcpu *v, uint64_t d, uint64_t rip)
{
	if (v->long_mode && desc_l(d) ? !canonical(rip) : rip > desc_limit(d))
		soft_raise(v, EXC_GP, 0);
}

/* Commit CS:RIP; `cpl` becomes the RPL. */
static void enter_code(struct soft_vcpu *v, uint64_t d, uint16_t selector, unsigned cpl, uint64_t rip)
{
	v->seg[SEG_CS] = desc_segment(d | DESC_ACCESSED, (selector & ~3) | cpl);
	v->next_rip = rip;
	soft_update_mode(v);
}

static void push_return(struct soft_vcpu *v, struct sys_stack *stack, unsigned size)
{
	sys_push(v, stack, v->seg[SEG_CS].selector, size);
	sys_push(v, stack, v->next_rip, size);
}

static void far_paragraph(struct soft_vcpu *v, uint16_t selector, uint64_t off, unsigned size, bool call)
{
	struct sys_stack stack = sys_stack_current(v);

	if (off > v->seg[SEG_CS].limit)
		soft_raise(v, EXC_GP, 0);
	if (call)
		push_return(v, &stack, size);
	v->gpr[R_SP] = stack.sp;
	seg_load_paragraph(v, SEG_CS, selector);
	v->next_rip = off;
}

static void far_code(struct soft_vcpu *v, uint16_t selector, uint64_t d, uint64_t at, uint64_t off, unsigned size,
		     bool call)
{
	uint32_t error = selector_error(selector);
	struct sys_stack stack = sys_stack_current(v);

	if (desc_is_conforming(d) ? desc_dpl(d) > v->cpl : (selector & 3u) > v->cpl || desc_dpl(d) != v->cpl)
		soft_raise(v, EXC_GP, error);
	if (v->long_mode && desc_l(d) && desc_db(d))
		soft_raise(v, EXC_GP, error);
	if (!desc_p(d))
		soft_raise(v, EXC_NP, error);
	check_target(v, d, off);
	if (call)
		push_return(v, &stack, size);
	desc_set_accessed(v, at, d);
	v->gpr[R_SP] = stack.sp;
	enter_code(v, d, selector, v->cpl, off);
}

struct call_gate {
	uint64_t code, code_at, rip;
	uint16_t selector;
	uint8_t size;   /* bytes of each pushed item */
	uint8_t params; /* items to copy */
};

/* Read gate and code segment with all checks but those of a stack switch. */
static struct call_gate read_gate(struct soft_vcpu *v, uint16_t selector, uint64_t d, bool call)
{
	struct call_gate g = { .selector = gate_selector(d), .rip = gate_offset(d), .size = desc_type(d) & 8 ? 4 : 2 };
	uint32_t error = selector_error(selector), code_error = selector_error(g.selector);
	uint64_t linear;

	if (desc_dpl(d) < v->cpl || desc_dpl(d) < (selector & 3u))
		soft_raise(v, EXC_GP, error);
	if (!desc_p(d))
		soft_raise(v, EXC_NP, error);
	if (v->long_mode) {
		uint64_t high;

		if (!desc_find(v, selector, 16, &linear))
			soft_raise(v, EXC_GP, error);
		high = sys_ld(v, linear + 8, 8);
		if (high >> 40 & 0x1f)
			soft_raise(v, EXC_GP, error);
		g.rip |= high << 32;
		g.size = 8;
	} else {
		g.params = d >> 32 & 0x1f;
		if (g.size == 2)
			g.rip &= 0xffff;
	}
	if (selector_null(g.selector))
		soft_raise(v, EXC_GP, 0);
	g.code = desc_load(v, g.selector, EXC_GP, &g.code_at);
	if (!desc_is_code(g.code) || desc_dpl(g.code) > v->cpl)
		soft_raise(v, EXC_GP, code_error);
	if (v->long_mode && (!desc_l(g.code) || desc_db(g.code)))
		soft_raise(v, EXC_GP, code_error);
	if (!call && !desc_is_conforming(g.code) && desc_dpl(g.code) != v->cpl)
		soft_raise(v, EXC_GP, code_error);
	if (!desc_p(g.code))
		soft_raise(v, EXC_NP, code_error);
	return g;
}

/* CALL through a gate to an inner level: stack from the TSS, parameters copied (SDM vol. 3 §5.8.5). */
static void call_inner(struct soft_vcpu *v, const struct call_gate *g)
{
	unsigned cpl = desc_dpl(g->code);
	struct cpu_segment ss;
	struct sys_stack stack = { .seg = &ss, .width = 8 }, from = sys_stack_current(v);
	uint64_t stack_at = 0, stack_desc = 0, params[31];

	if (v->long_mode) {
		ss = segment_null(cpl, cpl);
		stack.sp = tss_stack64(v, cpl);
		if (!canonical(stack.sp))
			soft_raise(v, EXC_SS, 0);
	} else {
		uint16_t ss_selector;

		tss_stack(v, cpl, &ss_selector, &stack.sp);
		stack_desc = seg_check_stack(v, ss_selector, cpl, EXC_TS, &stack_at);
		ss = desc_segment(stack_desc | DESC_ACCESSED, ss_selector);
		stack.width = segment_width(&ss);
		stack.error = selector_error(ss_selector);
		for (unsigned n = 0; n < g->params; n++)
			params[n] = sys_pop(v, &from, g->size);
	}
	check_target(v, g->code, g->rip);

	soft_borrow_cpl(v, cpl);
	sys_push(v, &stack, v->seg[SEG_SS].selector, g->size);
	sys_push(v, &stack, v->gpr[R_SP], g->size);
	for (unsigned n = g->params; n-- > 0;)
		sys_push(v, &stack, params[n], g->size);
	push_return(v, &stack, g->size);
	desc_set_accessed(v, g->code_at, g->code);
	if (!v->long_mode)
		desc_set_accessed(v, stack_at, stack_desc);
	v->seg[SEG_SS] = ss;
	v->gpr[R_SP] = stack.sp;
	enter_code(v, g->code, g->selector, cpl, g->rip);
}

static void far_gate(struct soft_vcpu *v, uint16_t selector, uint64_t d, bool call)
{
	struct call_gate g = read_gate(v, selector, d, call);
	struct sys_stack stack = sys_stack_current(v);

	if (call && !desc_is_conforming(g.code) && desc_dpl(g.code) < v->cpl) {
		call_inner(v, &g);
		return;
	}
	check_target(v, g.code, g.rip);
	if (v->long_mode)
		stack.width = 8;
	if (call)
		push_return(v, &stack, g.size);
	desc_set_accessed(v, g.code_at, g.code);
	v->gpr[R_SP] = stack.sp;
	enter_code(v, g.code, g.selector, v->cpl, g.rip);
}

/* TSS or task gate: everything a CPU checks before it switches, then refuse. */
static _Noreturn void far_task(struct soft_vcpu *v, uint16_t selector, uint64_t d)
{
	uint32_t error = selector_error(selector);

	if (desc_dpl(d) < v->cpl || desc_dpl(d) < (selector & 3u))
		soft_raise(v, EXC_GP, error);
	if (!desc_p(d))
		soft_raise(v, EXC_NP, error);
	sys_refuse_task(v, desc_type(d) == SYS_TASK ? gate_selector(d) : selector, "a far transfer");
}

static void far_transfer(struct soft_vcpu *v, uint16_t selector, uint64_t off, unsigned size, bool call)
{
	uint64_t d, at;

	if (in_paragraphs(v)) {
		far_paragraph(v, selector, off, size, call);
		return;
	}
	if (selector_null(selector))
		soft_raise(v, EXC_GP, 0);
	d = desc_load(v, selector, EXC_GP, &at);
	if (desc_is_code(d)) {
		far_code(v, selector, d, at, off, size, call);
		return;
	}
	switch (desc_s(d) ? 0 : desc_type(d)) {
	case SYS_CALL16:
		if (v->long_mode)
			break;
		/* fall through */
	case SYS_CALL:
		far_gate(v, selector, d, call);
		return;
	case SYS_TASK:
	case SYS_TSS16:
	case SYS_TSS:
		if (!v->long_mode)
			far_task(v, selector, d);
		break;
	}
	soft_raise(v, EXC_GP, selector_error(selector));
}

static void sys_jmp_ptr(struct soft_vcpu *v, const struct insn *i)
{
	far_transfer(v, i->imm2, i->opsize == 2 ? (uint16_t)i->imm : (uint32_t)i->imm, i->opsize, false);
}

static void sys_call_ptr(struct soft_vcpu *v, const struct insn *i)
{
	far_transfer(v, i->imm2, i->opsize == 2 ? (uint16_t)i->imm : (uint32_t)i->imm, i->opsize, true);
}

static void far_mem(struct soft_vcpu *v, const struct insn *i, bool call)
{
	/* AMD's CPUs have no m16:64. */
	unsigned size = i->opsize == 8 && sys_is_amd() ? 4 : i->opsize;
	uint8_t pointer[10];
	uint64_t off = 0;

	mmu_read(v, insn_linear(v, i, size + 2, ACC_READ), pointer, size + 2, i->stack);
	memcpy(&off, pointer, size);
	far_transfer(v, pointer[size] | pointer[size + 1] << 8, off, i->opsize, call);
}

static void sys_jmp_mem(struct soft_vcpu *v, const struct insn *i) { far_mem(v, i, false); }
static void sys_call_mem(struct soft_vcpu *v, const struct insn *i) { far_mem(v, i, true); }

static void ret_outer(struct soft_vcpu *v, struct sys_stack *stack, uint64_t code, uint64_t code_at, uint16_t selector,
		      uint64_t rip, unsigned size, unsigned skip)
{
	unsigned cpl = selector & 3;
	uint64_t sp, stack_at = 0, stack_desc = 0;
	uint16_t ss_selector;
	struct cpu_segment ss;

	sys_stack_skip(stack, skip);
	sp = sys_pop(v, stack, size);
	ss_selector = sys_pop(v, stack, size);
	if (selector_null(ss_selector) && v->long_mode && desc_l(code) && cpl < 3) {
		if ((ss_selector & 3u) != cpl)
			soft_raise(v, EXC_GP, 0);
		ss = segment_null(ss_selector, cpl);
	} else {
		stack_desc = seg_check_stack(v, ss_selector, cpl, EXC_GP, &stack_at);
		ss = desc_segment(stack_desc | DESC_ACCESSED, ss_selector);
	}
	check_target(v, code, rip);
	desc_set_accessed(v, code_at, code);
	if (segment_usable(&ss))
		desc_set_accessed(v, stack_at, stack_desc);
	v->seg[SEG_SS] = ss;
	enter_code(v, code, selector, cpl, rip);
	set_sp(v, sp + skip);
	seg_drop_inner(v);
}

static void sys_retf(struct soft_vcpu *v, const struct insn *i)
{
	struct sys_stack stack = sys_stack_current(v);
	unsigned size = i->opsize, skip = i->opcode == 0xca ? (uint16_t)i->imm : 0;
	uint64_t rip = sys_pop(v, &stack, size), d, at;
	uint16_t selector = sys_pop(v, &stack, size);
	uint32_t error = selector_error(selector);

	if (in_paragraphs(v)) {
		if (rip > v->seg[SEG_CS].limit)
			soft_raise(v, EXC_GP, 0);
		sys_stack_skip(&stack, skip);
		v->gpr[R_SP] = stack.sp;
		seg_load_paragraph(v, SEG_CS, selector);
		v->next_rip = rip;
		return;
	}
	if (selector_null(selector))
		soft_raise(v, EXC_GP, 0);
	d = desc_load(v, selector, EXC_GP, &at);
	if (!desc_is_code(d) || (selector & 3u) < v->cpl ||
	    (desc_is_conforming(d) ? desc_dpl(d) > (selector & 3u) : desc_dpl(d) != (selector & 3u)) ||
	    (v->long_mode && desc_l(d) && desc_db(d)))
		soft_raise(v, EXC_GP, error);
	if (!desc_p(d))
		soft_raise(v, EXC_NP, error);
	if ((selector & 3u) > v->cpl) {
		ret_outer(v, &stack, d, at, selector, rip, size, skip);
		return;
	}
	check_target(v, d, rip);
	desc_set_accessed(v, at, d);
	sys_stack_skip(&stack, skip);
	v->gpr[R_SP] = stack.sp;
	enter_code(v, d, selector, v->cpl, rip);
}

insn_fn *sys_far_bind(const struct insn *i, bool *ends)
{
	if (i->map != MAP_1B)
		return NULL;
	*ends = true;
	switch (i->opcode) {
	case 0x9a:
		return i->mode == MODE_64 ? sys_undefined : sys_call_ptr;
	case 0xea:
		return i->mode == MODE_64 ? sys_undefined : sys_jmp_ptr;
	case 0xca:
	case 0xcb:
		return sys_retf;
	case 0xff:
		if (modrm_reg(i) == 3)
			return i->is_mem ? sys_call_mem : sys_undefined;
		if (modrm_reg(i) == 5)
			return i->is_mem ? sys_jmp_mem : sys_undefined;
	}
	*ends = false;
	return NULL;
}
