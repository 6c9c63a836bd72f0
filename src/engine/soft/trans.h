/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The translator: hot decoded blocks of 64-bit mode become host code.
 *
 *   trans_form.c   what a decoded instruction reads, writes and how it is re-emitted
 *   trans_emit.h   the assembler
 *   trans_insn.c   one instruction: registers, memory operands through the inline TLB
 *   trans_vec.c    vector instructions
 *   trans_block.c  one block: flags' liveness, branches, exits
 *   trans_cache.c  the code's memory, entry and exit, links, death
 *
 * While translated code runs, host rsp points to the vCPU, guest registers live
 * in the host registers of the same name, but for guest rsp, which lives in r9,
 * and guest r9..r11, which stay in v->gpr[]. Host r10 and r11 are scratch. The
 * address is v->xl.page plus a constant, so that code serves every linear
 * address that its page is mapped at.
 *
 * Between blocks the arithmetic flags are in v->xl.flags; a block that
 * overwrites all of them before it reads any may find garbage there. docs/translator.md
 */
#pragma once
#include "engine/soft/core.h"

struct trans_engine;

#define TRANS_LEAVE 32u /* bytes from a block's way out to its entry */
#define TRANS_NEVER 1u /* block.trans: not worth it. 0: not translated */

int trans_engine_init(struct soft_engine *e);
void trans_engine_free(struct soft_engine *e);
void trans_vcpu_init(struct soft_vcpu *v);
void trans_vcpu_free(struct soft_vcpu *v);
/*
 * For tests, before the first vCPU is made: executions after which a block is
 * translated, and whether faults shall see flags that nothing reads any more.
 */
void trans_set_test(struct soft_engine *e, unsigned threshold, bool exact);

/* Make host code for the block, in the current view; sets b->trans. */
void trans_build(struct soft_vcpu *v, struct block *b);
/*
 * Run translated code from the block at v->rip on. The next address is in
 * v->next_rip. Returns the number of the exit that was taken, for trans_link(),
 * or 0. May leave by longjmp.
 */
uint32_t trans_run(struct soft_vcpu *v, const struct block *b);
/* The exit goes to `to`: by itself from now on, if it may. `epoch`: v->blocks->epoch when the exit was taken. */
void trans_link(struct soft_vcpu *v, uint32_t site, uint64_t epoch, struct block *to);
/* Code under the block was written, or the cache is emptied. Any thread. */
void trans_kill(struct soft_engine *e, struct block *b);
/* The other half of the block cache is taken: so is that of the code. All vCPUs have let go of it. */
void trans_switch(struct soft_engine *e, unsigned half);
/* No room: the block cache should be emptied. */
bool trans_full(const struct soft_engine *e);
void trans_jump_clear(struct soft_vcpu *v);
/* Let the vCPU's indirect branches find `b` at `linear`; `global`: in every address space. */
void trans_remember(struct soft_vcpu *v, uint64_t linear, const struct block *b, bool global);

static inline bool trans_on(const struct soft_vcpu *v)
{
	return v->engine->trans != NULL && v->tlb_view != TLB_SLOW;
}

/* Is there code to run for `b` now? Counts. */
static inline bool trans_ready(struct soft_vcpu *v, struct block *b)
{
	uint32_t code = __atomic_load_n(&b->trans, __ATOMIC_ACQUIRE);

	if (unlikely(!code)) {
		if (likely(b->heat < v->xl.threshold)) {
			b->heat++;
			return false;
		}
		trans_build(v, b);
		code = __atomic_load_n(&b->trans, __ATOMIC_ACQUIRE);
	}
	return code > TRANS_NEVER && b->trans_view == v->tlb_view;
}

/* ---- Between the translator's files --------------------------------------- */

enum { ROLE_R = 1, ROLE_W = 2 };
enum trans_kind {
	K_HANDLER, /* the interpreter does it */
	K_NOP,
	K_RM,      /* ModRM, with registers renamed */
	K_PLAIN,   /* no explicit operand but an immediate */
	K_MOV_IMM, K_BSWAP, /* register in the opcode */
	K_XCHG_A,
	K_LEA, K_VEC, K_PUSH_REG, K_PUSH_IMM, K_POP_REG, K_LEAVE,
	K_JCC, K_JMP, K_CALL, K_RET, K_JMP_IND, K_CALL_IND,
};

struct trans_form {
	uint8_t kind;
	uint8_t reg, rm;         /* ROLE_* of the operands; reg 0: the field is part of the opcode */
	uint8_t reg_size, size;  /* bytes; size: of rm */
	uint16_t reads, kills;   /* flags read; flags overwritten whatever the operands are */
	bool sets;               /* touches the host's flags at all */
};
void trans_form(const struct insn *i, struct trans_form *f);

/* AH..BH: a register of one byte in an instruction without REX. */
static inline bool trans_high_byte(const struct insn *i, unsigned n, unsigned size)
{
	return size == 1 && !(i->prefixes & PFX_REX) && n >= 4 && n < 8;
}

/* MOVS, CMPS, STOS, LODS, SCAS: they end a block only because they may come back to themselves. */
static inline bool trans_is_string(const struct insn *i)
{
	return i->map == MAP_1B && ((i->opcode >= 0xa4 && i->opcode <= 0xa7) || (i->opcode >= 0xaa && i->opcode <= 0xaf));
}

/* State of a translation. */
struct trans_stub {
	uint8_t *from;  /* rel32 field that leads here */
	uint8_t *back;  /* where to go on */
	const struct insn *insn;
	uint8_t kind;
	bool load_flags; /* the host's flags must be the guest's at `back` */
	uint16_t off;
	int32_t target; /* exits: offset of the next instruction from the page */
};
#define TRANS_STUBS 512u
struct trans {
	struct soft_engine *e;
	struct trans_engine *te;
	struct block *b;
	const uint8_t *base;    /* of block numbers */
	uint8_t *w;             /* write position, in the writable mapping */
	unsigned view;
	bool in_host, in_mem;   /* where the flags are */
	unsigned off;           /* of the instruction at work, from the start of its page */
	const struct insn *insn;
	uint16_t live_in, live_out;
	unsigned vec_checked;   /* XL_VEC_* known to be set */
	struct trans_stub stub[TRANS_STUBS];
	unsigned stubs;
};
enum { STUB_HANDLER, STUB_WRITTEN, STUB_EXIT, STUB_INDIRECT_MISS, STUB_INDIRECT_GLOBAL, STUB_INDIRECT_MISS_HANDLER };

/* trans_insn.c */
void trans_insn_emit(struct trans *t, const struct trans_form *f);
void trans_handler_emit(struct trans *t);
void trans_flags_save(struct trans *t);
void trans_flags_load(struct trans *t);
/* T1 holds a linear address: make it a host address; the rest of the way is out of line. Clobbers the host's flags. */
void trans_lookup(struct trans *t, unsigned size, bool write);
void trans_linear(struct trans *t); /* of the memory operand, into T1 */
/* A store to [T1] was made: look at the page's flags. */
void trans_written_check(struct trans *t);
struct trans_stub *trans_stub_add(struct trans *t, unsigned kind, uint8_t *from);

/* The host's flags are about to be lost: keep what of them is needed. */
void trans_flags_keep(struct trans *t, uint16_t live);

/* trans_vec.c */
bool trans_vec_form(const struct insn *i, struct trans_form *f);
void trans_vec_emit(struct trans *t, const struct trans_form *f);
/* XL_VEC_* now. */
unsigned trans_vec_ready(struct soft_vcpu *v);

/* trans_block.c: false: nothing worth it */
bool trans_block_emit(struct trans *t, uint32_t *code_at);

/* trans_cache.c */
struct trans_site {
	uint32_t direct, saved; /* rel32 fields, offsets from the start of the memory; either may be patched */
	uint32_t from;          /* block number */
	uint16_t target;        /* offset in the page */
	uint8_t view;
	bool dirty;             /* the flags are still in the host's when `direct` is reached */
};
struct trans_engine {
	pthread_mutex_t lock;
	uint8_t *write, *exec;
	size_t size, half_size, start; /* start: of the halves */
	size_t used[2];
	unsigned half;
	bool full;
	uint32_t call_handler, call_written, leave, enter; /* the common routines, offsets */
	unsigned threshold;
	bool exact;
};
bool trans_handler_call(struct soft_vcpu *v, const struct insn *i, uint64_t rip);
bool trans_written_call(struct soft_vcpu *v, const struct insn *i, uint64_t rip);
