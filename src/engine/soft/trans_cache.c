/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The memory of translated code: one memfd with a writable and an executable
 * mapping, so that no page is both. The routines that all code shares come
 * first. Code lives exactly as long as the block it was made of, so what keeps
 * blocks from being reused under a vCPU keeps code from it, too.
 *
 * Making and linking code take a lock; running it takes none.
 */
#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/soft/trans_emit.h"
#include "engine/soft/vec.h"

#define TRANS_START 8192u
#define TRANS_ROOM (160u << 10) /* no unit's code is larger */
#define TRANS_THRESHOLD 30u

/* ---- Flags in and out ----------------------------------------------------- */

void trans_flags_out(struct soft_vcpu *v)
{
	uint16_t f = v->xl.flags;

	v->rflags = (v->rflags & ~(uint64_t)FLAGS_ARITH) | (f >> 8 & 0xd5) | (uint64_t)(f & 1) << 11;
}

static void flags_from_rflags(struct soft_vcpu *v)
{
	v->xl.flags = (uint16_t)((v->rflags & 0xd5) << 8 | (v->rflags >> 11 & 1));
}

/* ---- What translated code calls ------------------------------------------- */

/*
 * What a unit that is at work takes for granted, as one number: none of its
 * blocks has ended, and no memory slot has changed since it looked into the TLB.
 */
static uint64_t assumptions(const struct soft_vcpu *v)
{
	return __atomic_load_n(&v->engine->trans->kills, __ATOMIC_RELAXED) + ((uint64_t)v->mmu->global_id << 32);
}

/* Run the instruction in the interpreter. */
uintptr_t trans_handler_call(struct soft_vcpu *v, const struct insn *i, uint64_t rip, uint64_t rest)
{
	uint64_t before = assumptions(v);

	v->insns -= rest;
	trans_flags_out(v);
	v->rip = rip;
	v->next_rip = rip + i->len;
	__atomic_load_n(&i->fn, __ATOMIC_RELAXED)(v, i);
	flags_from_rflags(v);
	if (__atomic_load_n(&i->fn, __ATOMIC_RELAXED) == block_leave)
		return CALL_LEAVE;
	/* STI: the instruction in its shadow is in the same block. */
	if (v->shadow == 1 && !insn_ends_block(i))
		v->shadow = 0;
	if (insn_ends_block(i) && !(trans_is_string(i) && v->next_rip == rip + i->len))
		return trans_next(v);
	if (unlikely(assumptions(v) != before))
		return CALL_LEAVE;
	/* A segment register may have been loaded. */
	if (unlikely(i->mode != MODE_64) && !trans_flat(v))
		return CALL_LEAVE;
	v->insns += rest;
	return CALL_GO_ON;
}

/* A store was made whose page has flags: tmp[2] is its host address, tmp[3] that of the flags. */
uintptr_t trans_written_call(struct soft_vcpu *v, const struct insn *i, uint64_t rip, uint64_t rest)
{
	uint64_t off = v->xl.tmp[2] & PAGE_MASK, gpa = (v->xl.tmp[3] - (uintptr_t)v->page_flags) << 12 | off;

	uint64_t before = assumptions(v);
	struct trans_form f;
	unsigned size;

	trans_form(i, &f);
	size = f.kind == K_RM || f.kind == K_VEC || f.kind == K_MOFFS ? f.size : trans_width(i);
	page_written(v->engine, gpa, size);
	if (insn_ends_block(i) || assumptions(v) == before)
		return CALL_GO_ON;
	v->insns -= rest;
	v->next_rip = rip + i->len;
	return CALL_LEAVE;
}

/* The code goes on with vector registers: what it knows of them must still be so. */
static uintptr_t vec_again(struct soft_vcpu *v, const struct insn *i, uint64_t rip, uint64_t rest, uintptr_t result)
{
	unsigned have;

	if (result != CALL_GO_ON)
		return result;
	/* A call of the host takes MXCSR out of force. */
	if (v->xl.vec_was & XL_VEC_MXCSR)
		vec_fp_ready(v);
	have = trans_vec_ready(v);
	if (v->xl.vec_was & ~have) {
		v->insns -= rest;
		v->next_rip = rip + i->len;
		return CALL_LEAVE;
	}
	v->xl.vec = (uint8_t)have;
	return CALL_GO_ON;
}

static uintptr_t handler_vec_call(struct soft_vcpu *v, const struct insn *i, uint64_t rip, uint64_t rest)
{
	return vec_again(v, i, rip, rest, trans_handler_call(v, i, rip, rest));
}

static uintptr_t written_vec_call(struct soft_vcpu *v, const struct insn *i, uint64_t rip, uint64_t rest)
{
	return vec_again(v, i, rip, rest, trans_written_call(v, i, rip, rest));
}

/* A jump `back` bytes back. */
static void entry_end(uint8_t *at, int32_t back)
{
	uint64_t bytes = 0xccccccull << 40 | (uint64_t)(uint32_t)(-back - 5) << 8 | 0xe9;

	__atomic_store_n((uint64_t *)at, bytes, __ATOMIC_RELEASE);
}

/* One store: whoever gets here runs the old instruction or the jump out. */
static void entry_kill(struct trans_engine *te, uint32_t code)
{
	entry_end(te->write + code, (int32_t)TRANS_LEAVE);
	entry_end(te->write + code - TRANS_DIRTY, (int32_t)(TRANS_LEAVE + TRANS_SAVE - TRANS_DIRTY));
}

/* The unit's operands are not in one page now and then: only if that is seldom, looking them up together pays. */
static void unit_apart(struct soft_vcpu *v, struct block *b)
{
	struct trans_engine *te = v->engine->trans;
	uint32_t code;

	pthread_mutex_lock(&te->lock);
	if (b->trans_apart < TRANS_APART && ++b->trans_apart == TRANS_APART) {
		code = b->trans;
		if (code > TRANS_NEVER)
			entry_kill(te, code);
		__atomic_store_n(&b->trans, 0, __ATOMIC_SEQ_CST);
	}
	pthread_mutex_unlock(&te->lock);
}

/* The span that starts at xl.miss[0] was not found. Its first operand's instruction runs by itself, and what follows starts afresh. */
static uintptr_t apart_call(struct soft_vcpu *v, const struct insn *i, uint64_t rip, uint64_t rest)
{
	uint64_t linear = v->xl.miss[0];
	uintptr_t result;

	if (tlb_at(v, linear)->rtag == (linear & ~PAGE_MASK))
		unit_apart(v, block_by_number(v->blocks, v->xl.unit));
	result = trans_handler_call(v, i, rip, rest);
	if (result != CALL_GO_ON)
		return result;
	v->insns -= rest;
	return trans_next(v);
}

/* ---- Common routines ------------------------------------------------------ */

static void registers(struct trans *t, bool store)
{
	for (unsigned n = 0; n < 16; n++)
		if (host_reg(n) != H_NONE)
			op_v(t, (store ? 0x89 : 0x8b) | OP_W, host_reg(n), gpr_disp(n));
}

/* All vector registers from or to v->ymm[]. */
static void vec_registers(struct trans *t, bool store)
{
	bool avx = vec_offers(VEC_AVX);

	for (unsigned n = 0; n < 16; n++) {
		if (avx) {
			e8(t, 0xc5);
			e8(t, (n & 8 ? 0 : 0x80) | 0x7c);
		} else {
			if (n & 8)
				e8(t, 0x44);
			e8(t, 0x0f);
		}
		e8(t, store ? 0x11 : 0x10); /* (V)MOVUPS */
		e8(t, 0x80 | (n & 7) << 3 | 4);
		e8(t, 0x24);
		e32(t, (uint32_t)TMEM(ymm) + 32 * n);
	}
	if (store && avx) {
		e8(t, 0xc5); /* VZEROUPPER */
		e8(t, 0xf8);
		e8(t, 0x77);
	}
}

/* Before C runs: the guest's vector registers go home. Clobbers AX and flags. */
static void vec_spill(struct trans *t)
{
	uint8_t *over;

	op_v(t, 0xb6 | OP_0F, H_AX, TMEM(xl.vec));
	op_v(t, 0x88, H_AX, TMEM(xl.vec_was));
	op_rr(t, 0x84, H_AX, H_AX);
	over = op_jump(t, 4);
	vec_registers(t, true);
	op_v(t, 0xc6, 0, TMEM(xl.vec));
	e8(t, 0);
	jump_set(over, t->w);
}

static const uint8_t saved[6] = {H_BX, H_BP, H_12, H_13, H_14, H_15};

static void host_return(struct trans *t)
{
	op_v(t, 0x8b | OP_W, H_SP, TMEM(xl.host_sp));
	op_mem(t, 0x8d | OP_W, H_SP, H_SP, H_NONE, 0, 8);
	for (unsigned k = 6; k--;)
		op_head(t, 0x58 | (saved[k] & 7), 0, 0, saved[k]);
	e8(t, 0xc3);
}

/* AX: what a call gave back, not CALL_GO_ON. */
static void go_or_leave(struct trans *t)
{
	uint8_t *go;

	op_rr(t, 0x83 | OP_W, 7, H_AX);
	e8(t, CALL_LEAVE);
	go = op_jump(t, 5);
	op_rr(t, 0x33, H_AX, H_AX);
	host_return(t);
	jump_set(go, t->w);
	op_rr(t, 0x8b | OP_W, T1, H_AX);
	registers(t, false);
	op_rr(t, 0xff, 4, T1);
}

/* T2: the next address. */
static void look_routine(struct trans *t)
{
	op_v(t, 0x89 | OP_W, T2, gpr_disp(REG_RIP));
	registers(t, true);
	vec_spill(t);
	op_rr(t, 0x8b | OP_W, H_DI, H_SP);
	op_rr(t, 0x8b | OP_W, H_BX, H_SP);
	op_v(t, 0x8b | OP_W, H_SP, TMEM(xl.host_sp));
	mov_imm64(t, H_AX, (uint64_t)(uintptr_t)trans_next);
	op_rr(t, 0xff, 2, H_AX);
	op_rr(t, 0x8b | OP_W, H_SP, H_BX);
	go_or_leave(t);
}

/*
 * Called with T1: offset of the instruction in its page, T2: the instruction
 * and above it trans_item.rest.
 * `vec`: the code goes on with vector registers in use.
 */
static void call_routine(struct trans *t, trans_call_fn *fn, bool vec)
{
	uint8_t *out;

	op_v(t, 0x8f, 0, TMEM(xl.ret)); /* pop: the stack is the vCPU */
	registers(t, true);
	vec_spill(t);
	op_rr(t, 0x8b | OP_W, H_DI, H_SP);
	op_rr(t, 0x8b | OP_W, H_BX, H_SP);
	op_rr(t, 0x8b | OP_W, H_SI, T2);
	op_rr(t, 0xc1 | OP_W, 4, H_SI);
	e8(t, 64 - TRANS_REST_SHIFT);
	op_rr(t, 0xc1 | OP_W, 5, H_SI);
	e8(t, 64 - TRANS_REST_SHIFT);
	op_rr(t, 0x8b | OP_W, H_CX, T2);
	op_rr(t, 0xc1 | OP_W, 5, H_CX);
	e8(t, TRANS_REST_SHIFT);
	op_v(t, 0x8b | OP_W, H_DX, TMEM(xl.page));
	op_rr(t, 0x03 | OP_W, H_DX, T1);
	op_v(t, 0x8b | OP_W, H_SP, TMEM(xl.host_sp));
	mov_imm64(t, H_AX, (uint64_t)(uintptr_t)fn);
	op_rr(t, 0xff, 2, H_AX);
	op_rr(t, 0x8b | OP_W, H_SP, H_BX);
	op_rr(t, 0x85 | OP_W, H_AX, H_AX);
	out = op_jump(t, 5);
	if (vec)
		vec_registers(t, false);
	registers(t, false);
	op_v(t, 0xff, 6, TMEM(xl.ret)); /* push, so that calls and returns are paired */
	e8(t, 0xc3);
	jump_set(out, t->w);
	go_or_leave(t);
}

/*
 * Called with T1: linear address ^ tag, T2: the entry's offset in the view. All
 * registers but the flags are kept, and T1 becomes the linear address.
 */
static void miss_routine(struct trans *t, unsigned view, bool write)
{
	static const uint8_t lost[] = {H_AX, H_CX, H_DX, H_SI, H_DI, H_8, H_9};
	size_t tag = write ? offsetof(struct tlb_entry, wtag) : offsetof(struct tlb_entry, rtag);
	uint8_t *out;

	op_v(t, 0x8f, 0, TMEM(xl.ret)); /* pop: the stack is the vCPU */
	op_mem(t, 0x33 | OP_W, T1, H_SP, T2, 0, TMEM(tlb) + (int32_t)(view * TLB_SIZE * sizeof(struct tlb_entry) + tag));
	op_v(t, 0x89 | OP_W, T1, TMEM(xl.miss));
	op_v(t, 0x89 | OP_W, T2, TMEM(xl.miss) + 8);
	for (unsigned k = 0; k < sizeof(lost); k++)
		op_v(t, 0x89 | OP_W, lost[k], gpr_disp(lost[k] == H_GUEST_SP ? R_SP : lost[k]));
	op_v(t, 0x89 | OP_W, H_BX, gpr_disp(R_BX));
	op_rr(t, 0x8b | OP_W, H_BX, H_SP);
	op_rr(t, 0x8b | OP_W, H_DI, H_SP);
	op_rr(t, 0x8b | OP_W, H_SI, T1);
	mov_imm64(t, H_DX, view);
	op_v(t, 0x8b | OP_W, H_SP, TMEM(xl.host_sp));
	mov_imm64(t, H_AX, (uint64_t)(uintptr_t)(write ? tlb_refill_write : tlb_refill_read));
	op_rr(t, 0xff, 2, H_AX);
	op_rr(t, 0x8b | OP_W, H_SP, H_BX);
	op_rr(t, 0x84, H_AX, H_AX);
	out = op_jump(t, 4);
	for (unsigned filled = 1; filled < 2; filled--) {
		op_v(t, 0x8b | OP_W, T1, TMEM(xl.miss));
		op_v(t, 0x8b | OP_W, T2, TMEM(xl.miss) + 8);
		op_v(t, 0x8b | OP_W, H_BX, gpr_disp(R_BX));
		for (unsigned k = 0; k < sizeof(lost); k++)
			op_v(t, 0x8b | OP_W, lost[k], gpr_disp(lost[k] == H_GUEST_SP ? R_SP : lost[k]));
		if (!filled) {
			op_v(t, 0x83 | OP_W, 0, TMEM(xl.ret)); /* over the jump */
			e8(t, 5);
		}
		op_v(t, 0xff, 6, TMEM(xl.ret));
		e8(t, 0xc3);
		if (filled)
			jump_set(out, t->w);
	}
}

static void routines_emit(struct trans_engine *te)
{
	struct trans t = {.te = te, .w = te->write};

	te->call_handler = (uint32_t)(t.w - te->write);
	call_routine(&t, trans_handler_call, false);
	te->call_written = (uint32_t)(t.w - te->write);
	call_routine(&t, trans_written_call, false);
	te->call_handler_vec = (uint32_t)(t.w - te->write);
	call_routine(&t, handler_vec_call, true);
	te->call_written_vec = (uint32_t)(t.w - te->write);
	call_routine(&t, written_vec_call, true);
	te->call_apart = (uint32_t)(t.w - te->write);
	call_routine(&t, apart_call, false);
	te->call_vec = (uint32_t)(t.w - te->write);
	call_routine(&t, trans_vec_call, true);
	for (unsigned view = 0; view < TLB_SLOW; view++) {
		for (unsigned write = 0; write < 2; write++) {
			te->miss[view][write] = (uint32_t)(t.w - te->write);
			miss_routine(&t, view, write);
		}
	}
	te->look = (uint32_t)(t.w - te->write);
	look_routine(&t);
	/* T1: the exit, T2: the next address */
	te->leave = (uint32_t)(t.w - te->write);
	op_v(&t, 0x89 | OP_W, T2, gpr_disp(REG_RIP));
	registers(&t, true);
	vec_spill(&t);
	op_rr(&t, 0x8b, H_AX, T1);
	host_return(&t);
	/* uint32_t enter(vCPU, code) */
	te->enter = (uint32_t)(t.w - te->write);
	for (unsigned k = 0; k < 6; k++)
		op_head(&t, 0x50 | (saved[k] & 7), 0, 0, saved[k]);
	op_mem(&t, 0x8d | OP_W, H_SP, H_SP, H_NONE, 0, -8);
	op_mem(&t, 0x89 | OP_W, H_SP, H_DI, H_NONE, 0, TMEM(xl.host_sp));
	op_rr(&t, 0x8b | OP_W, H_SP, H_DI);
	op_rr(&t, 0x8b | OP_W, T1, H_SI);
	registers(&t, false);
	op_rr(&t, 0xff, 4, T1);
	assert(t.w <= te->write + TRANS_START);
}

/* ---- Making and freeing --------------------------------------------------- */

/* Without memory for it everything is interpreted. */
int trans_engine_init(struct soft_engine *e)
{
	struct trans_engine *te = calloc(1, sizeof(*te));
	size_t blocks;
	int fd;

	if (!te)
		return 0;
	cache_divide(e, &blocks, &te->size);
	te->start = TRANS_START;
	te->room = te->size - te->start;
	te->threshold = TRANS_THRESHOLD;
	te->write = te->exec = MAP_FAILED;
	pthread_mutex_init(&te->lock, NULL);
	fd = memfd_create("keel-translated-code", MFD_CLOEXEC);
	if (fd >= 0 && !ftruncate(fd, (off_t)te->size)) {
		te->write = mmap(NULL, te->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		te->exec = mmap(NULL, te->size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	}
	if (fd >= 0)
		close(fd);
	e->trans = te;
	if (te->write == MAP_FAILED || te->exec == MAP_FAILED) {
		trans_engine_free(e);
		return 0;
	}
	routines_emit(te);
	return 0;
}

void trans_engine_free(struct soft_engine *e)
{
	struct trans_engine *te = e->trans;

	if (!te)
		return;
	if (te->write != MAP_FAILED)
		munmap(te->write, te->size);
	if (te->exec != MAP_FAILED)
		munmap(te->exec, te->size);
	pthread_mutex_destroy(&te->lock);
	free(te);
	e->trans = NULL;
}

void trans_set_test(struct soft_engine *e, unsigned threshold, bool exact)
{
	if (!e->trans)
		return;
	e->trans->threshold = threshold;
	e->trans->exact = exact;
}

/* ---- Building, death ------------------------------------------------------ */

/* A block is part of the unit of another one. A list of these hangs off the block. */
struct trans_part {
	uint32_t next; /* offset in the memory; 0: none */
	uint32_t head; /* number of the block that the unit starts with */
	uint32_t code; /* the unit's entry */
};

static void units_kill(struct soft_engine *e, uint32_t at)
{
	struct trans_engine *te = e->trans;

	pthread_mutex_lock(&te->lock);
	while (at) {
		const struct trans_part *p = (const struct trans_part *)(te->write + at);
		struct block *head = (struct block *)(te->base + (uint64_t)p->head * 64);

		entry_kill(te, p->code);
		if (head->trans == p->code) {
			head->heat = 0;
			__atomic_store_n(&head->trans, 0, __ATOMIC_SEQ_CST);
		}
		at = p->next;
	}
	pthread_mutex_unlock(&te->lock);
}

/* Against trans_build(): the block's end and its code's place are each written before the other is read. */
void trans_kill(struct soft_engine *e, struct block *b)
{
	uint32_t code, units;

	if (!e->trans)
		return;
	atomic_thread_fence(memory_order_seq_cst);
	code = __atomic_load_n(&b->trans, __ATOMIC_SEQ_CST);
	units = __atomic_load_n(&b->units, __ATOMIC_SEQ_CST);
	if (code > TRANS_NEVER || units)
		__atomic_fetch_add(&e->trans->kills, 1, __ATOMIC_SEQ_CST);
	if (code > TRANS_NEVER)
		entry_kill(e->trans, code);
	if (units)
		units_kill(e, units);
}

/* Let the unit's end follow that of each of its blocks. */
static void unit_register(struct trans *t, uint32_t code)
{
	while ((uintptr_t)t->w & 3)
		e8(t, 0xcc);
	for (unsigned k = 1; k < t->blocks; k++) {
		struct trans_part *p = (struct trans_part *)t->w;

		*p = (struct trans_part){
			.next = t->block[k]->units, .head = (uint32_t)(((uint8_t *)t->b - t->base) / 64), .code = code,
		};
		__atomic_store_n(&t->block[k]->units, (uint32_t)(t->w - t->te->write), __ATOMIC_SEQ_CST);
		t->w += sizeof(*p);
	}
}

static bool unit_died(const struct trans *t)
{
	for (unsigned k = 0; k < t->blocks; k++)
		if (!atomic_load(&t->block[k]->n))
			return true;
	return false;
}

void trans_build(struct soft_vcpu *v, struct block *b)
{
	struct trans_engine *te = v->engine->trans;
	struct trans *t = v->xl.scratch;
	uint32_t code = TRANS_NEVER;

	if (v->tlb_view == TLB_SLOW)
		return;
	if (!t && !(t = v->xl.scratch = malloc(sizeof(*t))))
		return;
	/* Another vCPU is at it: this one goes on in the interpreter and comes here again, which costs less than to wait. */
	if (pthread_mutex_trylock(&te->lock))
		return;
	if (b->trans || !atomic_load(&b->n))
		goto out;
	if (te->used + TRANS_ROOM > te->room) {
		/* It is given back when the blocks' arena is full, or a vCPU asks for it. */
		te->full = true;
		b->heat = 0;
		goto out;
	}
	t->e = v->engine;
	t->te = te;
	t->b = b;
	t->base = v->blocks->base;
	t->view = v->tlb_view;
	t->w = te->write + te->start + te->used;
	b->trans_view = v->tlb_view;
	te->base = v->blocks->base;
	if (trans_block_emit(t, &code)) {
		unit_register(t, code);
		te->used = (size_t)(t->w - (te->write + te->start));
	}
	assert(te->used <= te->room);
	__atomic_store_n(&b->trans, code, __ATOMIC_SEQ_CST);
	if (unit_died(t)) {
		entry_kill(te, code);
		__atomic_store_n(&b->trans, 0, __ATOMIC_SEQ_CST);
	}
out:
	pthread_mutex_unlock(&te->lock);
}

void trans_empty(struct soft_engine *e)
{
	struct trans_engine *te = e->trans;

	if (!te)
		return;
	pthread_mutex_lock(&te->lock);
	te->used = 0;
	te->full = false;
	pthread_mutex_unlock(&te->lock);
}

bool trans_full(const struct soft_engine *e)
{
	return e->trans && __atomic_load_n(&e->trans->full, __ATOMIC_RELAXED);
}

/* ---- Running, linking ----------------------------------------------------- */

uint32_t trans_run(struct soft_vcpu *v, const struct block *b)
{
	struct trans_engine *te = v->engine->trans;
	uint32_t (*enter)(struct soft_vcpu *, void *) =
		(uint32_t (*)(struct soft_vcpu *, void *))(void *)(te->exec + te->enter);
	uint32_t site, code = __atomic_load_n(&b->trans, __ATOMIC_ACQUIRE);

	/* The unit may have ended with another block of it. */
	if (unlikely(code <= TRANS_NEVER))
		return 0;
	v->xl.page = v->rip & ~PAGE_MASK;
	trans_context(v);
	v->xl.code = (uintptr_t)te->exec;
	v->xl.vec = 0;
	flags_from_rflags(v);
	site = enter(v, te->exec + code + (v->lockstep ? TRANS_POLL : 0));
	trans_flags_out(v);
	return site;
}

void trans_link(struct soft_vcpu *v, uint32_t site, uint64_t epoch, struct block *to)
{
	struct trans_engine *te = v->engine->trans;
	const struct trans_site *s = (const struct trans_site *)(te->write + site);
	struct block *from;
	uint32_t at;
	int32_t rel;

	if (pthread_mutex_trylock(&te->lock))
		return; /* as in trans_build() */
	/* Within one epoch neither block's memory is used again. */
	if (epoch != v->blocks->epoch || epoch != block_epoch(v->engine))
		goto out;
	from = block_by_number(v->blocks, s->from);
	if (!atomic_load(&from->n) || !atomic_load(&to->n) || to->trans <= TRANS_NEVER || to->trans_view != s->view)
		goto out;
	if ((from->gpa ^ to->gpa) & ~PAGE_MASK || from->key != to->key || (to->gpa & PAGE_MASK) != s->target)
		goto out;
	if (to->gpa2 == BLOCK_ONE_PAGE) {
		at = s->dirty && to->trans_needs_flags ? s->saved : s->direct;
		rel = (int32_t)(to->trans - (at + 4));
		if (s->dirty && at == s->direct)
			rel -= (int32_t)TRANS_DIRTY;
	} else {
		/* Its second page is another one in each address space. */
		at = s->out;
		rel = (int32_t)(te->look - (at + 4));
	}
	__atomic_store_n((int32_t *)(te->write + at), rel, __ATOMIC_RELEASE);
out:
	pthread_mutex_unlock(&te->lock);
}

void trans_jump_clear(struct soft_vcpu *v)
{
	memset(v->xl.jump, 0, sizeof(v->xl.jump));
}

void trans_forget(struct soft_vcpu *v, uint64_t from, uint64_t size)
{
	for (unsigned i = 0; i < 1u << TRANS_JUMP_BITS; i++)
		if (v->xl.jump[i].linear - from < size)
			v->xl.jump[i].ctx = 0;
}

void trans_remember(struct soft_vcpu *v, uint64_t linear, const struct block *b, bool global)
{
	uint32_t code = __atomic_load_n(&b->trans, __ATOMIC_ACQUIRE);
	struct trans_jump *j;

	if (code <= TRANS_NEVER)
		return;
	v->xl.salt = jump_salt(v->mmu->id);
	j = trans_jump_at(v, linear);
	j->linear = linear;
	j->ctx = trans_ctx(v, global ? v->mmu->global_id : v->mmu->id);
	j->code = code;
}

void trans_vcpu_init(struct soft_vcpu *v)
{
	v->xl.threshold = v->engine->trans ? v->engine->trans->threshold : 0;
}

void trans_vcpu_free(struct soft_vcpu *v)
{
	free(v->xl.scratch);
	v->xl.scratch = NULL;
}
