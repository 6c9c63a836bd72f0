/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The translator: hot decoded blocks of 64-bit mode, and of 32-bit code in flat segments, become host code.
 *
 *   trans_form.c   what a decoded instruction reads, writes and how it is re-emitted
 *   trans_emit.h   the assembler
 *   trans_insn.c   one instruction: registers, memory operands through the inline TLB
 *   trans_vec.c    vector instructions
 *   trans_unit.c   which blocks are translated together; flags' liveness, neighbouring memory operands
 *   trans_block.c  such a unit: branches, exits, what lies out of line
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

#define TRANS_DIRTY 8u /* so far before the entry is the one for who has flags in the host's only: a NOP that a block's end overwrites, too */
#define TRANS_SAVE 18u /* bytes before the way out that save them */
#define TRANS_LEAVE 32u /* bytes from a block's way out to its entry */
#define TRANS_POLL 14u /* bytes that look at v->request there */
#define TRANS_APART 16u /* block.trans_apart: from then on no groups */
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
/* The block cache is empty, and so is the code's memory. All vCPUs have let go of it. */
void trans_empty(struct soft_engine *e);
/* No room: the block cache should be emptied. */
bool trans_full(const struct soft_engine *e);
void trans_jump_clear(struct soft_vcpu *v);
/* Indirect branches to [from, from + size) look again. */
void trans_forget(struct soft_vcpu *v, uint64_t from, uint64_t size);
/* Let the vCPU's indirect branches find `b` at `linear`; `global`: in every address space. */
void trans_remember(struct soft_vcpu *v, uint64_t linear, const struct block *b, bool global);

/* The entry of the vCPU's table for `linear` in the current view. */
static inline struct trans_jump *trans_jump_at(struct soft_vcpu *v, uint64_t linear)
{
	uint32_t n = (uint32_t)linear ^ (v->tlb_view == TLB_USER ? v->xl.salt : 0);

	return &v->xl.jump[n * TRANS_HASH >> (32 - TRANS_JUMP_BITS)];
}

/* What code that is found by its linear address is for. */
static inline uint32_t trans_ctx(const struct soft_vcpu *v, uint32_t id)
{
	_Static_assert(TLB_ID_BITS <= 29 && TLB_SLOW <= 3, "address space, mode and view in 32 bits");
	return id << 3 | (v->mode == MODE_32) << 2 | v->tlb_view;
}

/* 32-bit code whose segments, but for FS and GS, are all of the address space: then there are none to think of. */
static inline bool trans_flat(const struct soft_vcpu *v)
{
	const unsigned flat = 1u << SEG_ES | 1u << SEG_SS | 1u << SEG_DS;

	return v->mode == MODE_32 && v->stack_size == 4 && (v->seg_flat & flat) == flat && !v->seg[SEG_CS].base &&
	       v->seg[SEG_CS].limit == UINT32_MAX;
}

/* Before code runs: what of it depends on the address space. */
static inline void trans_context(struct soft_vcpu *v)
{
	v->xl.ctx = trans_ctx(v, v->mmu->id);
	v->xl.global_ctx = trans_ctx(v, v->mmu->global_id);
	v->xl.salt = jump_salt(v->mmu->id);
}

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
	K_MOV_IMM, K_BSWAP, K_INC_REG, /* register in the opcode */
	K_XCHG_A,
	K_LEA,
	/* From here on they may fault whatever their operands are. */
	K_VEC, K_SYS, K_BMI, K_DIV, K_MOFFS, K_PUSH_REG, K_PUSH_IMM, K_POP_REG, K_LEAVE,
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

/* Bytes of an address, and of what near branches and most pushes move. */
static inline unsigned trans_width(const struct insn *i)
{
	return i->mode == MODE_64 ? 8 : 4;
}

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

/*
 * What code calls at an instruction, whose unit goes on with `rest` more
 * instructions after this one's block. Then it goes on, leaves, or goes to the
 * address that is returned.
 */
enum { CALL_GO_ON, CALL_LEAVE };
typedef uintptr_t trans_call_fn(struct soft_vcpu *v, const struct insn *i, uint64_t rip, uint64_t rest);

/* State of a translation. */
struct trans_stub {
	uint8_t *from;  /* rel32 field that leads here */
	uint8_t *back;  /* where to go on */
	uint8_t *retry; /* STUB_MISS: where the TLB is looked at */
	const struct insn *insn;
	uint8_t kind;
	bool load_flags; /* the host's flags must be the guest's at `back` */
	uint8_t view;
	bool write;     /* STUB_MISS */
	bool vec;       /* vector registers are in use at `back` */
	bool leaves;    /* STUB_WRITTEN: the unit does not go on after it */
	bool dirty;     /* exits: flags are in the host's only */
	uint8_t group;  /* STUB_WRITTEN: of the operand */
	uint8_t rest;   /* as trans_item.rest: what the entry counted too much if the unit is left here */
	int32_t disp;   /* STUB_WRITTEN: of the operand from T1 */
	bool apart;     /* STUB_MISS of a group: `rest` is all that comes after the instruction */
	uint16_t off;
	int32_t target; /* exits, and if it leaves: offset of the next instruction from the page */
};
/* How a unit goes on after an instruction. */
enum trans_go { GO_END, GO_NEXT, GO_TAKEN };
#define TRANS_UNIT 96u /* instructions; a single block fits in any case */
#define TRANS_UNIT_BLOCKS 16u
#define TRANS_GROUPS TRANS_SPANS
struct trans_item {
	const struct insn *insn;
	struct trans_form f;
	uint16_t off;              /* in the page */
	uint16_t live_in, live_out;
	uint8_t go;                /* enum trans_go; of a block's last instruction */
	uint8_t rest;              /* instructions of the unit after its block */
	/*
	 * Its memory operand lies `at` bytes from the start of this group's span, 0:
	 * alone. The one that leads looks the span up; where that fails, the handler
	 * does its instruction and the unit is left. A unit that this often happens
	 * to is made anew without groups.
	 */
	uint8_t group;
	bool leads;
	int32_t at;
};
#define TRANS_STUBS 2048u
struct trans {
	struct soft_engine *e;
	struct trans_engine *te;
	struct block *b;
	const uint8_t *base;    /* of block numbers */
	uint8_t *w;             /* write position, in the writable mapping */
	unsigned view;
	bool narrow;            /* 32-bit code: addresses, pushes and branches are */
	bool in_host, in_mem;   /* where the flags are */
	unsigned off;           /* of the instruction at work, from the start of its page */
	const struct insn *insn;
	struct trans_item *now; /* the same */
	uint16_t live_in, live_out;
	uint8_t in_t1, in_t2;   /* groups: T1 has the span's host address, T2 that of its page's flags; or 0 */
	struct block *block[TRANS_UNIT_BLOCKS];
	unsigned blocks;
	struct trans_item item[TRANS_UNIT + 1];
	unsigned items;
	struct { uint16_t size; bool write; } group[TRANS_GROUPS + 1];
	unsigned vec_checked;   /* XL_VEC_* known to be set; not 0: the vector registers are in use */
	struct trans_stub stub[TRANS_STUBS];
	unsigned stubs;
};
/* STUB_MISS: the first-level TLB missed; STUB_HANDLER follows if it can't be filled. */
enum { STUB_HANDLER, STUB_MISS, STUB_WRITTEN, STUB_VEC, STUB_EXIT, STUB_INDIRECT_MISS, STUB_INDIRECT_GLOBAL, STUB_INDIRECT_MISS_HANDLER };

/* trans_insn.c */
void trans_insn_emit(struct trans *t, const struct trans_form *f);
void trans_handler_emit(struct trans *t);
/* A value in T1 that is not canonical is the handler's. Clobbers T2 and the host's flags. */
void trans_canonical(struct trans *t);
void trans_flags_save(struct trans *t);
void trans_flags_load(struct trans *t);
/* T1 holds a linear address: make it a host address; the rest of the way is out of line. Clobbers the host's flags. */
void trans_lookup(struct trans *t, unsigned size, bool write);
void trans_linear(struct trans *t); /* of the memory operand, into T1 */
/* The memory operand is at [T1 + what is returned]. `align`: else the handler raises a fault. */
int32_t trans_operand(struct trans *t, unsigned size, bool write, unsigned align);
/* The same for what is at `disp` from host register `base`. */
int32_t trans_access(struct trans *t, unsigned base, int32_t disp, unsigned size, bool write);
/* A store to [T1 + disp] was made: look at the page's flags. */
void trans_written_check(struct trans *t, int32_t disp);
struct trans_stub *trans_stub_add(struct trans *t, unsigned kind, uint8_t *from);

/* The host's flags are about to be lost: keep what of them is needed. */
void trans_flags_keep(struct trans *t, uint16_t live);

/* trans_vec.c */
bool trans_vec_form(const struct insn *i, struct trans_form *f);
void trans_vec_emit(struct trans *t, const struct trans_form *f);
/* The vector registers are asked for and are not in the host's, or the unit is not ready. */
trans_call_fn trans_vec_call;
/* XL_VEC_* that could be set now. */
unsigned trans_vec_ready(struct soft_vcpu *v);

/* General registers that a vector instruction writes. */
unsigned trans_vec_writes(const struct insn *i);

/* trans_unit.c: t->b and what goes with it */
void trans_unit(struct trans *t);

/* trans_block.c */
bool trans_block_emit(struct trans *t, uint32_t *code_at);

/* trans_cache.c */
struct trans_site {
	uint32_t direct, saved; /* rel32 fields, offsets from the start of the memory; either may be patched */
	uint32_t out;           /* the rel32 that leaves: to te->look for a successor that can't be linked */
	uint32_t from;          /* block number */
	uint16_t target;        /* offset in the page */
	uint8_t view;
	bool dirty;             /* the flags are still in the host's when `direct` is reached */
};
struct trans_engine {
	pthread_mutex_t lock;
	uint8_t *write, *exec;
	const uint8_t *base;  /* of block numbers */
	uint64_t kills;       /* counts blocks with code that ended */
	size_t size, start, room; /* start: behind the common routines */
	size_t used;
	bool full;
	uint32_t call_handler, call_written, look, leave, enter; /* the common routines, offsets */
	uint32_t call_handler_vec, call_written_vec, call_vec, call_apart;
	uint32_t miss[TLB_SLOW][2]; /* by view, and whether it is a store */
	unsigned threshold;
	bool exact;
};
trans_call_fn trans_handler_call, trans_written_call;

/* trans_sys.c */
bool trans_sys_form(const struct insn *i, struct trans_form *f);
void trans_sys_emit(struct trans *t);
/* A block ended and goes on at v->next_rip: where its code is, or CALL_LEAVE. */
uintptr_t trans_next(struct soft_vcpu *v);
/* v->xl.flags to v->rflags. (trans_cache.c) */
void trans_flags_out(struct soft_vcpu *v);
