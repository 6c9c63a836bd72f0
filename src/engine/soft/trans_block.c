/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A unit as host code: its instructions, its ways out, and what lies out of line. */
#include <assert.h>

#include "engine/soft/int.h"
#include "engine/soft/trans_emit.h"

/* ---- Ways out ------------------------------------------------------------- */

/*
 * Jump to the linear address in T1 if the vCPU's table knows its code; flags
 * are in memory. `sp`: added to guest rsp on the way. A miss leaves through the
 * handler, which does the whole instruction, or right away.
 */
static void indirect(struct trans *t, int32_t sp, bool miss_handler)
{
	struct trans_stub *s;

	if (t->view == TLB_USER) {
		op_v(t, 0x8b, T2, TMEM(xl.salt));
		op_rr(t, 0x33, T2, T1);
		op_rr(t, 0x69, T2, T2);
	} else {
		op_rr(t, 0x69, T2, T1);
	}
	e32(t, TRANS_HASH);
	op_rr(t, 0xc1, 5, T2);
	e8(t, 32 - TRANS_JUMP_BITS);
	op_rr(t, 0xc1, 4, T2);
	e8(t, 4);
	op_mem(t, 0x3b | OP_W, T1, H_SP, T2, 0, TMEM(xl.jump) + (int32_t)offsetof(struct trans_jump, linear));
	s = trans_stub_add(t, miss_handler ? STUB_HANDLER : STUB_INDIRECT_MISS, op_jump(t, 5));
	s->back = t->w;
	op_mem(t, 0x8b | OP_W, T2, H_SP, T2, 0, TMEM(xl.jump) + (int32_t)offsetof(struct trans_jump, ctx));
	op_v(t, 0x3b, T2, TMEM(xl.ctx));
	s = trans_stub_add(t, miss_handler ? STUB_INDIRECT_MISS_HANDLER : STUB_INDIRECT_GLOBAL, op_jump(t, 5));
	s->back = t->w;
	op_rr(t, 0xc1 | OP_W, 5, T2);
	e8(t, 32);
	op_v(t, 0x03 | OP_W, T2, TMEM(xl.code));
	if (sp)
		op_mem(t, 0x8d | OP_A(t), H_GUEST_SP, H_GUEST_SP, H_NONE, 0, sp);
	op_rr(t, 0x81 | OP_W, 4, T1);
	e32(t, (uint32_t)-4096);
	op_v(t, 0x89 | OP_W, T1, TMEM(xl.page));
	op_rr(t, 0xff, 4, T2);
}

static void flags_out(struct trans *t)
{
	trans_flags_keep(t, FLAGS_ARITH);
}

static void page_plus(struct trans *t, unsigned reg, int32_t off)
{
	op_v(t, 0x8b | OP_W, reg, TMEM(xl.page));
	op_mem(t, 0x8d | OP_A(t), reg, reg, H_NONE, 0, off);
}

/* To `target` bytes from the page's start, on condition `cc` (16: always). */
static void direct(struct trans *t, unsigned cc, int32_t target)
{
	struct trans_stub *s;

	align_field(t, cc < 16 ? 2 : 1);
	s = trans_stub_add(t, STUB_EXIT, op_jump(t, cc));
	s->target = target;
	s->dirty = t->in_host && !t->in_mem;
}

static void push_return(struct trans *t)
{
	unsigned width = trans_width(t->insn);
	int32_t disp = trans_access(t, H_GUEST_SP, -(int32_t)width, width, true);
	bool alone = !t->now->group;

	if (alone)
		op_v(t, 0x89 | OP_W, T2, TMEM(xl.tmp[1]));
	page_plus(t, T2, (int32_t)(t->off + t->insn->len));
	op_mem(t, 0x89 | OP_A(t), T2, T1, H_NONE, 0, disp);
	if (alone)
		op_v(t, 0x8b | OP_W, T2, TMEM(xl.tmp[1]));
	else
		t->in_t2 = 0;
	op_mem(t, 0x8d | OP_A(t), H_GUEST_SP, H_GUEST_SP, H_NONE, 0, -(int32_t)width);
	trans_written_check(t, disp);
}

/* The target of an indirect branch, into T1. */
static void target_in(struct trans *t)
{
	const struct insn *i = t->insn;
	unsigned h = host_reg(i->rm);

	flags_out(t);
	if (i->is_mem) {
		int32_t disp = trans_operand(t, trans_width(i), false, 1);

		op_mem(t, 0x8b | OP_A(t), T1, T1, H_NONE, 0, disp);
	} else if (h == H_NONE) {
		op_v(t, 0x8b | OP_A(t), T1, gpr_disp(i->rm));
	} else {
		op_rr(t, 0x8b | OP_A(t), T1, h);
	}
}

/* The unit goes on in the function; the store of the return address may have changed that. */
static void return_pushed(struct trans_stub *s, int32_t target)
{
	s->leaves = true;
	s->target = target;
}

static void branch_emit(struct trans *t, const struct trans_form *f)
{
	const struct insn *i = t->insn;
	int64_t next = t->off + i->len, target = next + (int64_t)i->imm;
	int32_t disp;

	switch (f->kind) {
	case K_JCC:
		if (!t->in_host)
			trans_flags_load(t);
		if (t->now->go == GO_TAKEN) {
			direct(t, (i->opcode & 15) ^ 1, (int32_t)next);
			break;
		}
		direct(t, i->opcode & 15, (int32_t)target);
		if (t->now->go == GO_END)
			direct(t, 16, (int32_t)next);
		break;
	case K_JMP:
		if (t->now->go == GO_END)
			direct(t, 16, (int32_t)target);
		break;
	case K_CALL:
		if (t->now->go == GO_END)
			flags_out(t);
		push_return(t);
		if (t->now->go == GO_END)
			direct(t, 16, (int32_t)target);
		else
			return_pushed(&t->stub[t->stubs - 1], (int32_t)target);
		break;
	case K_RET:
		flags_out(t);
		disp = trans_access(t, H_GUEST_SP, 0, trans_width(i), false);
		op_mem(t, 0x8b | OP_A(t), T1, T1, H_NONE, 0, disp);
		indirect(t, (int32_t)trans_width(i) + (uint16_t)i->imm, true);
		break;
	case K_JMP_IND:
		target_in(t);
		indirect(t, 0, true);
		break;
	case K_CALL_IND:
		target_in(t);
		/* A non-canonical target faults before the push. */
		if (!t->narrow)
			trans_canonical(t);
		op_v(t, 0x89 | OP_W, T1, TMEM(xl.tmp[0]));
		push_return(t);
		op_v(t, 0x8b | OP_W, T1, TMEM(xl.tmp[0]));
		indirect(t, 0, false);
		break;
	}
}

/* ---- Out of line ---------------------------------------------------------- */

static void jump_back(struct trans *t, const struct trans_stub *s)
{
	jump_set(op_jump(t, 16), s->back);
}

static void call_common(struct trans *t, const struct trans_stub *s, uint32_t routine)
{
	mov_imm64(t, T2, (uint64_t)(uintptr_t)s->insn | (uint64_t)s->rest << TRANS_REST_SHIFT);
	mov_imm64(t, T1, s->off);
	jump_set(op_jump(t, 17), t->te->write + routine);
}

static void leave(struct trans *t)
{
	jump_set(op_jump(t, 16), t->te->write + t->te->leave);
}

/* Fewer instructions ran than the entry counted. Leaves flags alone. */
static void uncount(struct trans *t, unsigned rest)
{
	if (!rest)
		return;
	op_v(t, 0x8b | OP_W, T1, TMEM(insns));
	op_mem(t, 0x8d | OP_W, T1, T1, H_NONE, 0, -(int32_t)rest);
	op_v(t, 0x89 | OP_W, T1, TMEM(insns));
}

static bool is_jump(const struct insn *i)
{
	return i->map == MAP_1B ? i->opcode == 0xe9 || i->opcode == 0xeb || i->opcode >> 4 == 7
				: i->map == MAP_0F && i->opcode >> 4 == 8;
}

/* Out of the page, to the address in T1. A jump that misses the table is done by the handler: its target may be non-canonical. */
static void exit_far(struct trans *t, const struct trans_stub *s)
{
	unsigned first = t->stubs;

	indirect(t, 0, is_jump(s->insn));
	for (; first < t->stubs; first++) {
		t->stub[first].insn = s->insn;
		t->stub[first].off = s->off;
		t->stub[first].rest = 0;
	}
}

static void exit_stub(struct trans *t, struct trans_stub *s)
{
	struct trans_site *site;
	uint8_t *saved;

	if (s->target < 0 || s->target >= (int32_t)PAGE_BYTES) {
		jump_set(s->from, t->w);
		uncount(t, s->rest);
		t->in_mem = !s->dirty;
		trans_flags_keep(t, FLAGS_ARITH);
		page_plus(t, T1, s->target);
		exit_far(t, s);
		return;
	}
	while ((uintptr_t)t->w & 3)
		e8(t, 0xcc);
	site = (struct trans_site *)t->w;
	t->w += sizeof(*site);
	jump_set(s->from, t->w);
	if (s->rest) {
		uncount(t, s->rest);
		align_field(t, 1);
		s->from = op_jump(t, 16);
		jump_set(s->from, t->w);
	}
	t->in_mem = !s->dirty;
	trans_flags_keep(t, FLAGS_ARITH);
	align_field(t, 1);
	saved = op_jump(t, 16);
	jump_set(saved, t->w);
	page_plus(t, T2, s->target);
	mov_imm64(t, T1, (uint64_t)((uint8_t *)site - t->te->write));
	align_field(t, 1);
	leave(t);
	*site = (struct trans_site){
		.direct = (uint32_t)(s->from - t->te->write), .saved = (uint32_t)(saved - t->te->write),
		.out = (uint32_t)(t->w - 4 - t->te->write),
		.from = (uint32_t)(((uint8_t *)t->b - t->base) / 64), .target = (uint16_t)s->target,
		.view = s->view, .dirty = s->dirty,
	};
}

/* [T1 + disp] was stored to, T2 has the address of its page's flags. */
static void written_stub(struct trans *t, const struct trans_stub *s)
{
	if (s->disp)
		op_mem(t, 0x8d | OP_W, T1, T1, H_NONE, 0, s->disp);
	op_v(t, 0x89 | OP_W, T1, TMEM(xl.tmp[2]));
	op_v(t, 0x89 | OP_W, T2, TMEM(xl.tmp[3]));
	call_common(t, s, s->vec ? t->te->call_written_vec : t->te->call_written);
	if (s->leaves) {
		/* What the unit goes on with may be what was written. */
		uncount(t, s->rest);
		page_plus(t, T2, s->target);
		op_rr(t, 0x33, T1, T1);
		leave(t);
		return;
	}
	if (s->group) {
		op_v(t, 0x8b | OP_W, T1, TMEM(xl.span[0].host) + (int32_t)(s->group * sizeof(((struct soft_vcpu *)0)->xl.span[0])));
		op_v(t, 0x8b | OP_W, T2, TMEM(xl.span[0].flags) + (int32_t)(s->group * sizeof(((struct soft_vcpu *)0)->xl.span[0])));
	}
	jump_back(t, s);
}

static void stub_emit(struct trans *t, struct trans_stub *s)
{
	uint8_t *over;

	if (s->kind == STUB_EXIT) {
		exit_stub(t, s);
		return;
	}
	jump_set(s->from, t->w);
	switch (s->kind) {
	case STUB_MISS:
		/* It comes back here if the entry is the page's now, else behind the jump. */
		jump_set(op_jump(t, 17), t->te->write + t->te->miss[s->view][s->write]);
		jump_set(op_jump(t, 16), s->retry);
		if (s->apart) {
			op_v(t, 0xc7, 0, TMEM(xl.unit));
			e32(t, (uint32_t)(((uint8_t *)t->b - t->base) / 64));
			call_common(t, s, t->te->call_apart);
			e8(t, 0xcc);
			break;
		}
		/* fall through */
	case STUB_HANDLER:
		call_common(t, s, s->vec ? t->te->call_handler_vec : t->te->call_handler);
		if (s->load_flags)
			trans_flags_load(t);
		if (insn_ends_block(s->insn))
			e8(t, 0xcc); /* it has left */
		else
			jump_back(t, s);
		break;
	case STUB_WRITTEN:
		written_stub(t, s);
		break;
	case STUB_VEC:
		call_common(t, s, t->te->call_vec);
		jump_back(t, s);
		break;
	case STUB_INDIRECT_GLOBAL:
	case STUB_INDIRECT_MISS_HANDLER:
		op_v(t, 0x3b, T2, TMEM(xl.global_ctx));
		over = op_jump(t, 4);
		jump_set(over, s->back);
		if (s->kind == STUB_INDIRECT_MISS_HANDLER) {
			call_common(t, s, t->te->call_handler);
			e8(t, 0xcc);
			break;
		}
		/* fall through */
	case STUB_INDIRECT_MISS:
		op_rr(t, 0x8b | OP_W, T2, T1);
		jump_set(op_jump(t, 16), t->te->write + t->te->look);
		break;
	}
}

/*
 * Before the entry lies the way out at the block's start, TRANS_LEAVE bytes
 * long: taken when a request waits, and by trans_kill(), which puts a jump to it
 * over the entry's first instruction.
 */
static uint8_t *entry_emit(struct trans *t)
{
	static const uint8_t nop8[TRANS_DIRTY] = {0x0f, 0x1f, 0x84};
	uint8_t *entry, *start, *save;

	while ((uintptr_t)t->w & 31)
		e8(t, 0xcc);
	start = t->w + TRANS_LEAVE;
	entry = start + TRANS_LEAVE;
	/* Flags that are in the host's only must not get lost with the block that would have overwritten them. */
	while (t->w < start - TRANS_SAVE)
		e8(t, 0xcc);
	save = t->w;
	t->in_mem = false;
	trans_flags_keep(t, FLAGS_ARITH);
	assert(t->w == save + TRANS_SAVE && t->w == start);
	page_plus(t, T2, (int32_t)t->off);
	op_rr(t, 0x33, T1, T1);
	leave(t);
	assert(t->w <= entry - TRANS_DIRTY);
	while (t->w < entry - TRANS_DIRTY)
		e8(t, 0xcc);
	for (unsigned k = 0; k < TRANS_DIRTY; k++)
		e8(t, nop8[k]);
	op_v(t, 0x83, 7, TMEM(request));
	e8(t, 0);
	assert(t->w - entry == 8);
	jump_set(op_jump(t, 5), start);
	assert(t->w - entry == TRANS_POLL);
	op_v(t, 0x83 | OP_W, 0, TMEM(insns));
	e8(t, t->items);
	return entry;
}

static void items_emit(struct trans *t)
{
	struct trans_item *it = NULL;

	for (unsigned k = 0; k < t->items; k++) {
		unsigned first = t->stubs;

		it = &t->item[k];
		t->now = it;
		t->insn = it->insn;
		t->off = it->off;
		t->live_in = it->live_in;
		t->live_out = it->live_out;
		if (it->f.kind >= K_JCC)
			branch_emit(t, &it->f);
		else
			trans_insn_emit(t, &it->f);
		for (; first < t->stubs; first++) {
			struct trans_stub *s = &t->stub[first];

			s->vec = t->vec_checked;
			if (s->kind > STUB_MISS || s->back)
				continue;
			s->back = t->w;
			s->load_flags = t->in_host && t->live_out;
		}
	}
	if (it->f.kind >= K_JCC)
		return;
	if (insn_ends_block(it->insn) && it->f.kind == K_HANDLER && !trans_is_string(it->insn))
		e8(t, 0xcc); /* never reached: the handler's call leaves */
	else
		direct(t, 16, (int32_t)(it->off + it->insn->len));
}

bool trans_block_emit(struct trans *t, uint32_t *code_at)
{
	uint8_t *entry;

	trans_unit(t);
	t->off = t->b->gpa & PAGE_MASK;
	t->narrow = t->b->key == MODE_32;
	t->in_host = false;
	t->in_mem = true;
	t->stubs = 0;
	t->vec_checked = 0;
	t->in_t1 = t->in_t2 = 0;
	entry = entry_emit(t);
	items_emit(t);
	for (unsigned k = 0; k < t->stubs; k++)
		stub_emit(t, &t->stub[k]);
	t->b->trans_needs_flags = t->item[0].live_in != 0;
	*code_at = (uint32_t)(entry - t->te->write);
	return true;
}
