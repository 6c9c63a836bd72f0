/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The loop: take requests and events, look up a block, run it.
 *
 * soft_run() lands faults (run_landing); between requests run_blocks() goes
 * from block to block and looks at nothing but v->request and v->shadow at
 * their ends. While something must be looked at after each instruction
 * (single-step, breakpoints, interrupt shadow, the end of CS, vcpu_step())
 * step_one() runs them one by one.
 */
#include <errno.h>

#include "engine/soft/lockstep.h"

/* Linear address of rIP `rip`. */
soft_inline uint64_t code_linear(const struct soft_vcpu *v, uint64_t rip, bool wide)
{
	return wide ? rip : (uint32_t)(v->seg[SEG_CS].base + rip);
}

/* The successor that `b`, which ended `delta` bytes from its start, is linked to. */
soft_inline struct block *link_find(const struct soft_vcpu *v, struct block *b, uint32_t delta)
{
	const struct block_state *s = v->blocks;
	struct block *next;

	for (unsigned i = 0; i < 2; i++) {
		uint64_t link = atomic_load_explicit(&b->link[i], memory_order_acquire);

		if ((uint32_t)link == delta) {
			next = block_by_number(s, link >> 32);
			return likely(atomic_load_explicit(&next->n, memory_order_relaxed)) ? next : NULL;
		}
	}
	return NULL;
}

/* A block that no cache has. NULL: the instruction must run by itself. */
static __attribute__((noinline)) struct block *find_slow(struct soft_vcpu *v, uint64_t linear, struct block *from,
							  uint64_t start, uint64_t rip)
{
	uint64_t epoch = v->blocks->epoch;
	struct block *b = block_get(v, linear, v->mode);

	/* If the cache was emptied, `from` is no block any more. */
	if (b && from && epoch == v->blocks->epoch)
		block_link(v, from, start, b, rip);
	return b;
}

/*
 * Translated code from `b` on, which is at v->rip, for as long as it goes; the
 * exit that it took is remembered and linked when its other end has code too.
 */
static __attribute__((noinline)) uint64_t run_translated(struct soft_vcpu *v, struct block *b)
{
	struct block_state *s = v->blocks;

	if (s->site) {
		trans_link(v, s->site, s->site_epoch, b);
		s->site = 0;
	}
	trans_remember(v, v->rip, b, jump_is_global(v, v->rip));
	s->site = unlikely(v->lockstep != NULL) ? lockstep_run(v, b) : trans_run(v, b);
	s->site_epoch = s->epoch;
	if (v->mode != MODE_64)
		v->next_rip = (uint32_t)v->next_rip;
	v->rip = v->next_rip;
	return v->rip;
}

/*
 * Run from v->rip until a request or shadow wants attention, the code turns
 * from 64-bit (`wide`) to other or back, or an instruction must run by itself
 * (v->blocks->once). Leaves by longjmp, too.
 */
soft_inline void run_blocks(struct soft_vcpu *v, bool wide)
{
	const bool translate = trans_on(v);
	uint64_t rip = v->rip, start = 0;
	struct block *b = NULL, *next;

	for (;;) {
		const struct insn *i, *end;
		uint64_t linear;

		if (unlikely((v->mode == MODE_64) != wide))
			return;
		linear = code_linear(v, rip, wide);
		next = jump_find(v, linear);
		if (unlikely(!next)) {
			next = find_slow(v, linear, b, start, rip);
			if (!next)
				break;
		}
linked:
		b = next;
		start = rip;
		if (translate && (wide || trans_flat(v)) && trans_ready(v, b)) {
			rip = run_translated(v, b);
			b = NULL;
			if (unlikely(atomic_load_explicit(&v->request, memory_order_relaxed) | v->shadow))
				return;
			continue;
		}
		if (!wide && unlikely(rip + b->bytes - 1 > v->seg[SEG_CS].limit))
			break;
		i = b->insn;
		end = i + b->count;
		v->insns += b->count;
		do {
			v->rip = rip;
			rip += i->len;
			v->next_rip = rip;
			__atomic_load_n(&i->fn, __ATOMIC_RELAXED)(v, i);
		} while (++i != end);
		if (unlikely(v->shadow == 1) && b->ends_shadow)
			v->shadow = 0;
		/* The last instruction may have entered 64-bit mode. */
		rip = wide || v->mode == MODE_64 ? v->next_rip : (uint32_t)v->next_rip;
		v->rip = rip;
		if (!wide)
			v->next_rip = rip;
		if (unlikely(atomic_load_explicit(&v->request, memory_order_relaxed) | v->shadow))
			return;
		next = link_find(v, b, rip - start);
		if (likely(next))
			goto linked;
	}
	v->blocks->once = true;
}

static __attribute__((noinline)) void run_wide(struct soft_vcpu *v)
{
	run_blocks(v, true);
}

static __attribute__((noinline)) void run_narrow(struct soft_vcpu *v)
{
	run_blocks(v, false);
}

static bool is_repeated_string(const struct insn *i)
{
	unsigned op = i->opcode;

	return i->map == MAP_1B && i->prefixes & (PFX_F2 | PFX_F3) &&
	       ((op >= 0x6c && op <= 0x6f) || (op >= 0xa4 && op <= 0xa7) || (op >= 0xaa && op <= 0xaf));
}

/* Exactly one instruction (of a string instruction: as many iterations as its handler makes). */
static void step_one(struct soft_vcpu *v)
{
	bool wide = v->mode == MODE_64;
	uint64_t linear = code_linear(v, v->rip, wide);
	struct block *b = block_get(v, linear, v->mode | BLOCK_KEY_SINGLE);
	const struct insn *i;

	if (!b)
		b = block_uncached(v, linear);
	i = &b->insn[0];
	if (!wide && v->rip + i->len - 1 > v->seg[SEG_CS].limit)
		soft_raise(v, EXC_GP, 0);
	/* Between the engines no kick arrives here: an endless string instruction goes back after a piece of it. */
	if (v->engine->probing && is_repeated_string(i))
		soft_request(v, REQ_STATE);
	v->shadow = 0;
	v->next_rip = v->rip + i->len;
	v->insns++;
	__atomic_load_n(&i->fn, __ATOMIC_RELAXED)(v, i);
	if (v->mode != MODE_64)
		v->next_rip = (uint32_t)v->next_rip;
	/* A string instruction between two elements is not complete: it neither counts nor meets its breakpoint again. */
	if (v->next_rip == v->rip && is_repeated_string(i)) {
		if (v->blocks->stepping && (v->request & REQ_KICK || v->engine->probing))
			v->blocks->steps_left = 0; /* the count in rCX may be endless */
		else if (!v->step)
			v->blocks->steps_left++;
		if (dr7_has_code(v))
			v->rflags |= FL_RF;
	}
	v->rip = v->next_rip;
}

/* A debug trap of the instruction that ended. */
static bool trap_due(const struct soft_vcpu *v)
{
	return (v->step || v->dr6_pending) && v->shadow != 2;
}

/* False: leave with VCPU_EXIT_KICK. */
static bool take_requests(struct soft_vcpu *v)
{
	uint32_t req = atomic_load(&v->request);

	if (req & REQ_STOP) {
		atomic_fetch_and(&v->request, ~(uint32_t)REQ_STOP);
		soft_leave(v);
		soft_enter(v);
	}
	if (req & (REQ_STATE | REQ_TLB_FLUSH)) {
		atomic_fetch_and(&v->request, ~(uint32_t)(REQ_STATE | REQ_TLB_FLUSH));
		if (req & REQ_TLB_FLUSH)
			mmu_flush_all(v);
	}
	if (req & REQ_KICK && !v->blocks->stepping && !trap_due(v) && !(req & (REQ_INIT | REQ_SIPI))) {
		atomic_fetch_and(&v->request, ~(uint32_t)REQ_KICK);
		return false;
	}
	return true;
}

static void sleep_quietly(struct soft_vcpu *v)
{
	block_set_quiet(v, true);
	native_unpin(v);
	soft_sleep(v);
	block_set_quiet(v, false);
}

static enum vcpu_exit run_events(struct soft_vcpu *v)
{
	struct block_state *s = v->blocks;
	enum native_result native;

	for (;;) {
		if (unlikely(v->lockstep != NULL) && soft_turn_wanted(v->engine) && ++v->lockstep->turns % LOCKSTEP_TURN == 0) {
			soft_leave(v);
			soft_enter(v);
		}
		if (v->event.active) {
			if (!excp_deliver(v))
				return VCPU_EXIT_SHUTDOWN;
			v->rip = v->next_rip;
		}
		if (unlikely(v->request) && !take_requests(v))
			return VCPU_EXIT_KICK;
		if (s->stepping && !s->steps_left && !trap_due(v))
			return VCPU_EXIT_KICK;
		if (excp_poll(v))
			continue;
		v->rip = v->next_rip; /* INIT and SIPI move it */
		if (unlikely(v->mp_state != CPU_MP_RUNNABLE)) {
			if (s->stepping)
				return VCPU_EXIT_KICK;
			sleep_quietly(v);
			continue;
		}
		if (unlikely(s->stepping || s->once || v->shadow || v->request & REQ_TRAP || v->dr[7] & 0xff)) {
			s->once = false;
			s->steps_left -= s->stepping;
			step_one(v);
		} else if (unlikely(v->native_wanted) && v->cpl == 3 && (native = native_try(v)) != NATIVE_NOT_HERE) {
			if (native == NATIVE_LOST)
				return VCPU_EXIT_ERROR;
		} else if (v->mode == MODE_64) {
			run_wide(v);
		} else {
			run_narrow(v);
		}
	}
}

/* A fault or a dead block came here by longjmp. */
static void landed(struct soft_vcpu *v)
{
	struct block_state *s = v->blocks;

	if (v->park->slow_locked)
		soft_unlock_slow(v);
	if (s->left) {
		s->left = false;
		s->steps_left += s->stepping;
		v->rip = v->next_rip;
	} else {
		/* STI's shadow lies over one instruction, and that has faulted. */
		v->shadow = 0;
	}
}

/* In a function of its own: nothing it needs lives in registers when it is landed in. */
static __attribute__((noinline)) enum vcpu_exit run_landing(struct soft_vcpu *v)
{
	enum vcpu_exit exit;

	if (__builtin_setjmp(v->fault_jmp))
		landed(v);
	exit = run_events(v);
	asm volatile("" : : : "memory"); /* not a tail call: the frame must stay */
	return exit;
}

static enum vcpu_exit run(struct soft_vcpu *v)
{
	struct soft_vcpu *outer = soft_current;
	enum vcpu_exit exit;

	if (unlikely(v->engine->tsc_fresh))
		atomic_store(&v->engine->tsc_fresh, false);
	soft_current = v;
	soft_enter(v);
	block_set_quiet(v, false);
	exit = run_landing(v);
	block_set_quiet(v, true);
	native_unpin(v);
	soft_leave(v);
	soft_current = outer;
	v->stats.exits++;
	if (unlikely(v->lockstep && v->lockstep->failed))
		return VCPU_EXIT_ERROR;
	return exit;
}

enum vcpu_exit soft_run(struct soft_vcpu *v, struct err *err)
{
	enum vcpu_exit exit;

	v->blocks->stepping = false;
	exit = run(v);
	if (exit == VCPU_EXIT_ERROR && v->lockstep)
		err_set(err, EIO, "vCPU %u: lock-step: translated code differs from the interpreter: %s", v->vcpu.index,
			v->lockstep->difference);
	else if (exit == VCPU_EXIT_ERROR)
		err_set(err, EIO, "vCPU %u: the process that ran guest user code was killed", v->vcpu.index);
	return exit;
}

int soft_step(struct soft_vcpu *v, unsigned n, enum vcpu_exit *exit, struct err *err)
{
	v->blocks->stepping = true;
	v->blocks->steps_left = n;
	*exit = run(v);
	v->blocks->stepping = false;
	return 0;
}
