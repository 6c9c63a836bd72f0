/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A block as host code: liveness of the flags, its instructions, its way out, and what lies out of line. */
#include <assert.h>

#include "engine/soft/int.h"
#include "engine/soft/trans_emit.h"

/* Arithmetic flags that are needed before each instruction; after the last one all are. */
static void liveness(const struct trans_form *f, unsigned n, uint16_t *live)
{
	live[n] = FLAGS_ARITH;
	while (n--)
		live[n] = (uint16_t)((live[n + 1] & ~f[n].kills) | f[n].reads);
}

/* Whatever may fault counts as a reader of all flags. */
static void exact_faults(struct trans_form *f, const struct insn *i, unsigned n)
{
	for (unsigned k = 0; k < n; k++)
		if (f[k].kind != K_RM ? f[k].kind >= K_VEC : i[k].is_mem)
			f[k].reads = FLAGS_ARITH;
}

static bool worth(const struct trans_form *f, unsigned n)
{
	unsigned handlers = 0;

	for (unsigned k = 0; k < n; k++)
		handlers += f[k].kind == K_HANDLER;
	return 2 * handlers <= n;
}

/* ---- Ways out ------------------------------------------------------------- */

/*
 * Jump to the linear address in T1 if the vCPU's table knows its code; flags
 * are in memory. `sp`: added to guest rsp on the way. A miss leaves through the
 * handler, which does the whole instruction, or right away.
 */
static void indirect(struct trans *t, int32_t sp, bool miss_handler)
{
	struct trans_stub *s;

	op_rr(t, 0x69, T2, T1);
	e32(t, TRANS_HASH);
	op_rr(t, 0xc1, 5, T2);
	e8(t, 32 - TRANS_JUMP_BITS);
	op_rr(t, 0xc1, 4, T2);
	e8(t, 4);
	op_mem(t, 0x3b | OP_W, T1, H_SP, T2, 0, TMEM(xl.jump) + (int32_t)offsetof(struct trans_jump, linear));
	trans_stub_add(t, miss_handler ? STUB_HANDLER : STUB_INDIRECT_MISS, op_jump(t, 5))->back = t->w;
	op_mem(t, 0x8b | OP_W, T2, H_SP, T2, 0, TMEM(xl.jump) + (int32_t)offsetof(struct trans_jump, ctx));
	op_v(t, 0x3b, T2, TMEM(xl.ctx));
	s = trans_stub_add(t, miss_handler ? STUB_INDIRECT_MISS_HANDLER : STUB_INDIRECT_GLOBAL, op_jump(t, 5));
	s->back = t->w;
	op_rr(t, 0xc1 | OP_W, 5, T2);
	e8(t, 32);
	op_v(t, 0x03 | OP_W, T2, TMEM(xl.code));
	if (sp)
		op_mem(t, 0x8d | OP_W, H_GUEST_SP, H_GUEST_SP, H_NONE, 0, sp);
	op_rr(t, 0x81 | OP_W, 4, T1);
	e32(t, (uint32_t)-4096);
	op_v(t, 0x89 | OP_W, T1, TMEM(xl.page));
	op_rr(t, 0xff, 4, T2);
}

static void flags_out(struct trans *t)
{
	if (!t->in_mem)
		trans_flags_save(t);
	t->in_host = false;
}

static void page_plus(struct trans *t, unsigned reg, int32_t off)
{
	op_v(t, 0x8b | OP_W, reg, TMEM(xl.page));
	op_mem(t, 0x8d | OP_W, reg, reg, H_NONE, 0, off);
}

/* To `target` bytes from the page's start, on condition `cc` (16: always). */
static void direct(struct trans *t, unsigned cc, int32_t target)
{
	align_field(t, cc < 16 ? 2 : 1);
	trans_stub_add(t, STUB_EXIT, op_jump(t, cc))->target = target;
}

static void push_return(struct trans *t)
{
	op_mem(t, 0x8d | OP_W, T1, H_GUEST_SP, H_NONE, 0, -8);
	trans_lookup(t, 8, true);
	op_v(t, 0x89 | OP_W, T2, TMEM(xl.tmp[1]));
	page_plus(t, T2, (int32_t)(t->off + t->insn->len));
	op_mem(t, 0x89 | OP_W, T2, T1, H_NONE, 0, 0);
	op_v(t, 0x8b | OP_W, T2, TMEM(xl.tmp[1]));
	op_mem(t, 0x8d | OP_W, H_GUEST_SP, H_GUEST_SP, H_NONE, 0, -8);
	trans_written_check(t);
}

/* The target of an indirect branch, into T1. */
static void target_in(struct trans *t)
{
	const struct insn *i = t->insn;
	unsigned h = host_reg(i->rm);

	flags_out(t);
	if (i->is_mem) {
		trans_linear(t);
		trans_lookup(t, 8, false);
		op_mem(t, 0x8b | OP_W, T1, T1, H_NONE, 0, 0);
	} else if (h == H_NONE) {
		op_v(t, 0x8b | OP_W, T1, gpr_disp(i->rm));
	} else {
		op_rr(t, 0x8b | OP_W, T1, h);
	}
}

static void branch_emit(struct trans *t, const struct trans_form *f)
{
	const struct insn *i = t->insn;
	int64_t next = t->off + i->len, target = next + (int64_t)i->imm;

	switch (f->kind) {
	case K_JCC:
		if (!t->in_host)
			trans_flags_load(t);
		direct(t, i->opcode & 15, (int32_t)target);
		direct(t, 16, (int32_t)next);
		break;
	case K_JMP:
		direct(t, 16, (int32_t)target);
		break;
	case K_CALL:
		flags_out(t);
		push_return(t);
		direct(t, 16, (int32_t)target);
		break;
	case K_RET:
		flags_out(t);
		op_rr(t, 0x8b | OP_W, T1, H_GUEST_SP);
		trans_lookup(t, 8, false);
		op_mem(t, 0x8b | OP_W, T1, T1, H_NONE, 0, 0);
		indirect(t, 8 + (int32_t)(uint16_t)i->imm, true);
		break;
	case K_JMP_IND:
		target_in(t);
		indirect(t, 0, true);
		break;
	case K_CALL_IND:
		target_in(t);
		/* A non-canonical target faults before the push. */
		op_rr(t, 0x8b | OP_W, T2, T1);
		op_rr(t, 0xc1 | OP_W, 4, T2);
		e8(t, 16);
		op_rr(t, 0xc1 | OP_W, 7, T2);
		e8(t, 16);
		op_rr(t, 0x3b | OP_W, T2, T1);
		trans_stub_add(t, STUB_HANDLER, op_jump(t, 5));
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
	mov_imm64(t, T2, (uint64_t)(uintptr_t)s->insn);
	mov_imm64(t, T1, s->off);
	jump_set(op_jump(t, 17), t->te->write + routine);
}

static void leave(struct trans *t)
{
	jump_set(op_jump(t, 16), t->te->write + t->te->leave);
}

static void exit_stub(struct trans *t, struct trans_stub *s, bool dirty)
{
	struct trans_site *site;
	uint8_t *saved;

	if (s->target < 0 || s->target >= (int32_t)PAGE_BYTES) {
		jump_set(s->from, t->w);
		if (dirty)
			trans_flags_save(t);
		page_plus(t, T1, s->target);
		indirect(t, 0, false);
		return;
	}
	while ((uintptr_t)t->w & 15)
		e8(t, 0xcc);
	site = (struct trans_site *)t->w;
	t->w += sizeof(*site);
	jump_set(s->from, t->w);
	if (dirty)
		trans_flags_save(t);
	align_field(t, 1);
	saved = op_jump(t, 16);
	jump_set(saved, t->w);
	page_plus(t, T2, s->target);
	mov_imm64(t, T1, (uint64_t)((uint8_t *)site - t->te->write));
	leave(t);
	*site = (struct trans_site){
		.direct = (uint32_t)(s->from - t->te->write), .saved = (uint32_t)(saved - t->te->write),
		.from = (uint32_t)(((uint8_t *)t->b - t->base) / 64), .target = (uint16_t)s->target,
		.view = (uint8_t)t->view, .dirty = dirty,
	};
}

static void stub_emit(struct trans *t, struct trans_stub *s, bool dirty)
{
	uint8_t *over;

	if (s->kind == STUB_EXIT) {
		exit_stub(t, s, dirty);
		return;
	}
	jump_set(s->from, t->w);
	switch (s->kind) {
	case STUB_HANDLER:
		call_common(t, s, t->te->call_handler);
		if (s->load_flags)
			trans_flags_load(t);
		if (insn_ends_block(s->insn))
			e8(t, 0xcc); /* it has left */
		else
			jump_back(t, s);
		break;
	case STUB_WRITTEN:
		op_v(t, 0x89 | OP_W, T1, TMEM(xl.tmp[2]));
		op_v(t, 0x89 | OP_W, T2, TMEM(xl.tmp[3]));
		call_common(t, s, t->te->call_written);
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
		op_rr(t, 0x33, T1, T1);
		leave(t);
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
	uint8_t *entry, *start;

	while ((uintptr_t)t->w & 31)
		e8(t, 0xcc);
	start = t->w;
	entry = start + TRANS_LEAVE;
	page_plus(t, T2, (int32_t)t->off);
	op_rr(t, 0x33, T1, T1);
	leave(t);
	assert(t->w <= entry);
	while (t->w < entry)
		e8(t, 0xcc);
	op_v(t, 0x83, 7, TMEM(request));
	e8(t, 0);
	assert(t->w - entry == 8);
	jump_set(op_jump(t, 5), start);
	op_v(t, 0x83 | OP_W, 0, TMEM(insns));
	e8(t, t->b->count);
	return entry;
}

bool trans_block_emit(struct trans *t, uint32_t *code_at)
{
	struct trans_form form[BLOCK_MAX_INSNS];
	uint16_t live[BLOCK_MAX_INSNS + 1];
	struct block *b = t->b;
	unsigned n = b->count, kind = K_HANDLER;
	uint8_t *entry;
	bool dirty;

	for (unsigned k = 0; k < n; k++)
		trans_form(&b->insn[k], &form[k]);
	if (!worth(form, n))
		return false;
	if (t->te->exact)
		exact_faults(form, b->insn, n);
	liveness(form, n, live);
	t->off = b->gpa & PAGE_MASK;
	t->in_host = false;
	t->in_mem = true;
	t->stubs = 0;
	t->vec_checked = 0;
	entry = entry_emit(t);
	for (unsigned k = 0; k < n; k++) {
		unsigned first = t->stubs;

		t->insn = &b->insn[k];
		t->live_in = live[k];
		t->live_out = live[k + 1];
		kind = form[k].kind;
		if (kind >= K_JCC)
			branch_emit(t, &form[k]);
		else
			trans_insn_emit(t, &form[k]);
		for (; first < t->stubs; first++) {
			struct trans_stub *s = &t->stub[first];

			if (s->kind != STUB_HANDLER || s->back)
				continue;
			s->back = t->w;
			s->load_flags = t->in_host && t->live_out;
		}
		t->off += t->insn->len;
	}
	if (kind < K_JCC) {
		if (insn_ends_block(t->insn) && kind == K_HANDLER && !trans_is_string(t->insn))
			e8(t, 0xcc); /* never reached: the handler's call leaves */
		else
			direct(t, 16, (int32_t)t->off);
	}
	dirty = t->in_host && !t->in_mem;
	for (unsigned k = 0; k < t->stubs; k++)
		stub_emit(t, &t->stub[k], dirty);
	b->trans_needs_flags = live[0] != 0;
	*code_at = (uint32_t)(entry - t->te->write);
	return true;
}
