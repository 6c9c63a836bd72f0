/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The memory of translated code: one memfd with a writable and an executable
 * mapping, so that no page is both. The routines that all code shares come
 * first, then two halves that follow the block cache's two arenas: code lives
 * exactly as long as the block it was made of, so what keeps blocks from being
 * reused under a vCPU keeps code from it, too.
 *
 * Making and linking code take a lock; running it takes none.
 */
#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/soft/trans_emit.h"
#include "engine/soft/vec.h"

#define TRANS_BYTES (24u << 20)
#define TRANS_START 4096u
#define TRANS_ROOM (64u << 10) /* no block's code is larger */
#define TRANS_THRESHOLD 30u

/* ---- Flags in and out ----------------------------------------------------- */

static void flags_to_rflags(struct soft_vcpu *v)
{
	uint16_t f = v->xl.flags;

	v->rflags = (v->rflags & ~(uint64_t)FLAGS_ARITH) | (f >> 8 & 0xd5) | (uint64_t)(f & 1) << 11;
}

static void flags_from_rflags(struct soft_vcpu *v)
{
	v->xl.flags = (uint16_t)((v->rflags & 0xd5) << 8 | (v->rflags >> 11 & 1));
}

/* ---- What translated code calls ------------------------------------------- */

/* Run the instruction in the interpreter. True: leave after it. */
bool trans_handler_call(struct soft_vcpu *v, const struct insn *i, uint64_t rip)
{
	flags_to_rflags(v);
	v->rip = rip;
	v->next_rip = rip + i->len;
	__atomic_load_n(&i->fn, __ATOMIC_RELAXED)(v, i);
	flags_from_rflags(v);
	/* A call of the host takes MXCSR out of force; code that follows counts on it. */
	if (unlikely(v->xl.vec & XL_VEC_MXCSR && !(v->vec_live & VEC_LIVE_MXCSR)))
		vec_mxcsr_load(v);
	v->xl.vec = (uint8_t)((v->xl.vec & ~XL_VEC_MXCSR) | (v->vec_live & VEC_LIVE_MXCSR));
	if (__atomic_load_n(&i->fn, __ATOMIC_RELAXED) == block_leave)
		return true;
	return insn_ends_block(i) && !(trans_is_string(i) && v->next_rip == rip + i->len);
}

/* A store was made whose page has flags: tmp[2] is its host address, tmp[3] that of the flags. */
bool trans_written_call(struct soft_vcpu *v, const struct insn *i, uint64_t rip)
{
	uint64_t off = v->xl.tmp[2] & PAGE_MASK, gpa = (v->xl.tmp[3] - (uintptr_t)v->page_flags) << 12 | off;

	struct trans_form f;
	unsigned size;

	trans_form(i, &f);
	size = f.kind == K_RM || f.kind == K_VEC ? f.size : 8;
	page_written(v->engine, gpa, size);
	if (insn_ends_block(i) || __atomic_load_n(&i->fn, __ATOMIC_RELAXED) != block_leave)
		return false;
	v->next_rip = rip + i->len;
	return true;
}

/* ---- Common routines ------------------------------------------------------ */

static void registers(struct trans *t, bool store)
{
	for (unsigned n = 0; n < 16; n++)
		if (host_reg(n) != H_NONE)
			op_v(t, (store ? 0x89 : 0x8b) | OP_W, host_reg(n), gpr_disp(n));
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

/* Called with T1: offset of the instruction in its page, T2: the instruction. */
static void call_routine(struct trans *t, bool (*fn)(struct soft_vcpu *, const struct insn *, uint64_t))
{
	uint8_t *out;

	op_v(t, 0x8f, 0, TMEM(xl.ret)); /* pop: the stack is the vCPU */
	registers(t, true);
	op_rr(t, 0x8b | OP_W, H_DI, H_SP);
	op_rr(t, 0x8b | OP_W, H_BX, H_SP);
	op_rr(t, 0x8b | OP_W, H_SI, T2);
	op_v(t, 0x8b | OP_W, H_DX, TMEM(xl.page));
	op_rr(t, 0x03 | OP_W, H_DX, T1);
	op_v(t, 0x8b | OP_W, H_SP, TMEM(xl.host_sp));
	mov_imm64(t, H_AX, (uint64_t)(uintptr_t)fn);
	op_rr(t, 0xff, 2, H_AX);
	op_rr(t, 0x8b | OP_W, H_SP, H_BX);
	op_rr(t, 0x84, H_AX, H_AX);
	out = op_jump(t, 5);
	registers(t, false);
	op_v(t, 0xff, 6, TMEM(xl.ret)); /* push, so that calls and returns are paired */
	e8(t, 0xc3);
	jump_set(out, t->w);
	op_rr(t, 0x33, H_AX, H_AX);
	host_return(t);
}

static void routines_emit(struct trans_engine *te)
{
	struct trans t = {.te = te, .w = te->write};

	te->call_handler = (uint32_t)(t.w - te->write);
	call_routine(&t, trans_handler_call);
	te->call_written = (uint32_t)(t.w - te->write);
	call_routine(&t, trans_written_call);
	/* T1: the exit, T2: the next address */
	te->leave = (uint32_t)(t.w - te->write);
	op_v(&t, 0x89 | OP_W, T2, gpr_disp(REG_RIP));
	registers(&t, true);
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
	int fd;

	if (!te)
		return 0;
	te->size = TRANS_BYTES;
	te->start = TRANS_START;
	te->half_size = (te->size - te->start) / 2 & ~(size_t)PAGE_MASK;
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

/* One store: whoever gets here runs the old instruction or the jump out. */
static void entry_kill(struct trans_engine *te, uint32_t code)
{
	int32_t rel = -(int32_t)(TRANS_LEAVE + 5);
	uint64_t bytes = 0xccccccull << 40 | (uint64_t)(uint32_t)rel << 8 | 0xe9;

	__atomic_store_n((uint64_t *)(te->write + code), bytes, __ATOMIC_RELEASE);
}

/* Against trans_build(): the block's end and its code's place are each written before the other is read. */
void trans_kill(struct soft_engine *e, struct block *b)
{
	uint32_t code;

	atomic_thread_fence(memory_order_seq_cst);
	code = __atomic_load_n(&b->trans, __ATOMIC_SEQ_CST);
	if (code > TRANS_NEVER)
		entry_kill(e->trans, code);
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
	pthread_mutex_lock(&te->lock);
	if (b->trans || !atomic_load(&b->n))
		goto out;
	if (te->used[te->half] + TRANS_ROOM > te->half_size) {
		/* The blocks' arena gives both back when it is full, or a vCPU asks for it. */
		te->full = true;
		b->heat = 0;
		goto out;
	}
	t->e = v->engine;
	t->te = te;
	t->b = b;
	t->base = v->blocks->base;
	t->view = v->tlb_view;
	t->w = te->write + te->start + te->half * te->half_size + te->used[te->half];
	b->trans_view = v->tlb_view;
	if (trans_block_emit(t, &code))
		te->used[te->half] = (size_t)(t->w - (te->write + te->start + te->half * te->half_size));
	assert(te->used[te->half] <= te->half_size);
	__atomic_store_n(&b->trans, code, __ATOMIC_SEQ_CST);
	if (!atomic_load(&b->n) && code > TRANS_NEVER)
		entry_kill(te, code);
out:
	pthread_mutex_unlock(&te->lock);
}

void trans_switch(struct soft_engine *e, unsigned half)
{
	struct trans_engine *te = e->trans;

	if (!te)
		return;
	pthread_mutex_lock(&te->lock);
	te->half = half;
	te->used[half] = 0;
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
	uint32_t site;

	v->xl.page = v->rip & ~PAGE_MASK;
	v->xl.ctx = v->mmu->id << 2 | v->tlb_view;
	v->xl.global_ctx = v->mmu->global_id << 2 | v->tlb_view;
	v->xl.code = (uintptr_t)te->exec;
	v->xl.vec = (uint8_t)trans_vec_ready(v);
	flags_from_rflags(v);
	site = enter(v, te->exec + b->trans);
	flags_to_rflags(v);
	return site;
}

void trans_link(struct soft_vcpu *v, uint32_t site, uint64_t epoch, struct block *to)
{
	struct trans_engine *te = v->engine->trans;
	const struct trans_site *s = (const struct trans_site *)(te->write + site);
	struct block *from;
	uint32_t at;
	int32_t rel;

	pthread_mutex_lock(&te->lock);
	/* Within one epoch neither block's memory is used again. */
	if (epoch != v->blocks->epoch || epoch != block_epoch(v->engine))
		goto out;
	from = block_by_number(v->blocks, s->from);
	if (!atomic_load(&from->n) || !atomic_load(&to->n) || to->trans <= TRANS_NEVER || to->trans_view != s->view)
		goto out;
	if ((from->gpa ^ to->gpa) & ~PAGE_MASK || to->gpa2 != BLOCK_ONE_PAGE || (to->gpa & PAGE_MASK) != s->target)
		goto out;
	at = s->dirty && to->trans_needs_flags ? s->saved : s->direct;
	rel = (int32_t)(to->trans - (at + 4));
	__atomic_store_n((int32_t *)(te->write + at), rel, __ATOMIC_RELEASE);
out:
	pthread_mutex_unlock(&te->lock);
}

void trans_jump_clear(struct soft_vcpu *v)
{
	memset(v->xl.jump, 0, sizeof(v->xl.jump));
}

void trans_remember(struct soft_vcpu *v, uint64_t linear, const struct block *b, bool global)
{
	struct trans_jump *j = &v->xl.jump[(uint32_t)linear * TRANS_HASH >> (32 - TRANS_JUMP_BITS)];

	j->linear = linear;
	j->ctx = (global ? v->mmu->global_id : v->mmu->id) << 2 | v->tlb_view;
	j->code = b->trans;
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
