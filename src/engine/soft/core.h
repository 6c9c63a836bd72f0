/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the soft engine's core know of each other and of nobody
 * else: walk.c, tlb.c, mmu.c (memory), block.c, build.c (decoded code), run.c,
 * stop.c (the loop and the safe point), memory.c, state.c, soft.c.
 */
#pragma once
#include "engine/soft/access.h"
#include "engine/soft/sys.h"

#define PAGE_MASK 0xfffull
#define PAGE_BYTES 4096u

/* ---- Walks (walk.c) ------------------------------------------------------ */

/* Who accesses: what the permission check depends on besides the access. */
enum mmu_priv { PRIV_USER, PRIV_KERNEL, PRIV_KERNEL_AC }; /* as TLB_USER.. */

/* A translation: rights of the whole walk combined. Kept in the low bits beside the page's address. */
#define XL_WRITE 0x01u
#define XL_USER 0x02u
#define XL_NX 0x04u
#define XL_DIRTY 0x08u
#define XL_GLOBAL 0x10u
#define XL_2M 0x20u      /* cut from a page of 2 or 4 MiB */
#define XL_1G 0x40u
#define XL_READONLY 0x80u /* the slot is read-only: writes go to the device */

#define PF_P 1u
#define PF_W 2u
#define PF_U 4u
#define PF_RSVD 8u
#define PF_ID 16u

/* Would this access be allowed by a translation of these rights? */
bool mmu_allowed(const struct soft_vcpu *v, unsigned rights, enum mmu_access acc, enum mmu_priv priv);
/*
 * Walk the tables for `linear` (canonical already). On success *out is the
 * 4 KiB page's physical address with XL_* rights and the accessed and dirty
 * bits are set as `acc` needs. Otherwise false and the #PF error code.
 */
bool mmu_walk(struct soft_vcpu *v, uint64_t linear, enum mmu_access acc, enum mmu_priv priv, uint64_t *out,
	      uint32_t *error);
/* The tables' content alone: no permissions, no accessed bits. */
bool mmu_walk_peek(struct soft_vcpu *v, uint64_t linear, uint64_t *gpa);
/*
 * The MMU_WINDOW pages around `linear`, in 4-level paging: physical address and XL_* of each that the guest's tables
 * have as accessed already, 0 for the others. Changes nothing.
 */
#define MMU_WINDOW 32u
void mmu_walk_window(struct soft_vcpu *v, uint64_t linear, uint64_t page[MMU_WINDOW]);
/* Load the four PDPTEs from CR3; false if one has reserved bits (nothing is loaded then). */
bool mmu_load_pdptes(struct soft_vcpu *v, uint64_t cr3, uint64_t pdpte[4]);

static inline bool mmu_is_pae(const struct soft_vcpu *v)
{
	return v->cr0 & CR0_PG && v->cr4 & CR4_PAE && !(v->efer & EFER_LMA);
}

/* ---- TLB (tlb.c) --------------------------------------------------------- */

/*
 * Behind the direct-mapped first level (soft.h) lies a second one that holds
 * walks, not views: four ways, tagged by an address-space id. An id stands for
 * one PCID since its last flush; flushing a PCID gives it a new id, so that
 * switching CR3 costs the first level only. Global pages have an id of their
 * own.
 */
#define TLB2_SETS 1024u
#define TLB2_WAYS 4u
struct tlb2_set {
	uint64_t key[TLB2_WAYS]; /* id << 36 | linear page number; 0: empty */
	uint64_t page[TLB2_WAYS]; /* physical page | XL_* */
	uint8_t *host[TLB2_WAYS];
};

#define TLB_ID_BITS 28
#define LARGE_BITS 4096u
#define TLB_LOCAL 128u
struct mmu_state {
	struct tlb2_set set[TLB2_SETS];
	uint32_t id, global_id, id_next; /* the current PCID's, the global pages', the next to give */
	uint32_t way;                    /* round robin */
	uint64_t cr0, cr4, efer;         /* as of the last mmu_mode_changed() */
	uint64_t pdpte[4];
	bool pdpte_valid;                /* else they are loaded at the next walk (state was set from outside) */
	bool view_used[TLB_VIEWS];
	/* First-level entries filled with pages that are not global since the last wipe; over TLB_LOCAL: unknown. */
	uint16_t local[TLB_VIEWS][TLB_LOCAL], locals[TLB_VIEWS];
	/*
	 * Which regions may have pages cut from large ones in the TLB: INVLPG must
	 * drop them all. 4 MiB, as of 32-bit paging, stand for 2 MiB, too.
	 */
	uint64_t large4m[LARGE_BITS / 64], large1g[LARGE_BITS / 64];
	uint32_t pcid_id[4096]; /* 0: none */
};

struct mmu_xlat {
	uint64_t gpa;   /* of the byte asked for */
	uint8_t *host;  /* NULL: device memory (or a write to a read-only slot) */
	uint32_t rights;
};

/* Translate one page's access, faults included. `linear` must be canonical. */
void mmu_translate(struct soft_vcpu *v, uint64_t linear, enum mmu_access acc, enum mmu_priv priv, struct mmu_xlat *x);
/* Put a translation into the view's first level. */
void tlb_fill(struct soft_vcpu *v, unsigned view, uint64_t linear, const struct mmu_xlat *x);
/*
 * For translated code whose look into the view's first level missed: fill the
 * entry from the second level. False: only the slow side can tell. No vector
 * register is touched: code has the guest's in them.
 */
#define general_regs_only __attribute__((target("general-regs-only")))
general_regs_only bool tlb_refill_read(struct soft_vcpu *v, uint64_t linear, unsigned view);
general_regs_only bool tlb_refill_write(struct soft_vcpu *v, uint64_t linear, unsigned view);
/* As mmu_fetch_ptr(); *rights tells whether the page is global. */
uint8_t *mmu_fetch(struct soft_vcpu *v, uint64_t linear, uint64_t *gpa, uint32_t *rights);
/* State came from outside: forget everything, take CR0, CR4 and EFER as they are. */
void mmu_state_loaded(struct soft_vcpu *v);

static inline enum mmu_priv mmu_priv_now(const struct soft_vcpu *v)
{
	if (v->cpl == 3)
		return PRIV_USER;
	return v->cr4 & CR4_SMAP && v->rflags & FL_AC ? PRIV_KERNEL_AC : PRIV_KERNEL;
}

/* ---- Decoded code (block.c, build.c) ------------------------------------- */

#define BLOCK_MAX_INSNS 64u
#define BLOCK_ONE_PAGE UINT64_MAX
#define BLOCK_KEY_SINGLE 4u /* beside MODE_*: one instruction only, for stepping */

/*
 * A run of instructions. Immutable once published, but for `n` and the
 * handlers, which turn into "leave" when the code under it is written, and the
 * links. Memory comes back only when no vCPU can have the block in hand.
 */
struct block {
	_Atomic uint16_t n; /* instructions; 0: dead */
	uint16_t count;     /* instructions, dead or not */
	uint16_t bytes;
	uint8_t key;        /* MODE_* | BLOCK_KEY_SINGLE */
	/*
	 * It ends in nothing but a direct near branch, a string loop or the limit
	 * of length: not in an instruction that may change a translation, which is
	 * why links within a page need no check of it.
	 */
	bool linkable;
	uint64_t gpa;       /* of the first byte */
	uint64_t gpa2;      /* page of the rest of an instruction that crosses, or BLOCK_ONE_PAGE */
	struct block *_Atomic hash_next;
	struct block *page_next[2];
	uint32_t trans;         /* its host code (trans.h) */
	uint16_t heat;          /* times interpreted */
	uint8_t trans_view;     /* TLB_* that the code is for */
	bool trans_needs_flags; /* it reads flags of its predecessor */
	uint8_t trans_apart;    /* times that operands which are looked up together lay in two pages */
	bool ends_shadow;       /* STI comes right before its last instruction */
	uint32_t units;         /* those of other blocks that it is part of (trans_cache.c) */
	_Atomic uint64_t link[2]; /* block number << 32 | target - start of this block; successors in the same page only */
	struct insn insn[];
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct block) == 128, "a block's head is two cache lines");

#define JUMP_BITS 13
struct jump_entry {
	uint64_t linear;
	uint32_t ctx;   /* address-space id << 3 | CPL is 3 << 2 | MODE_* */
	uint32_t block; /* number */
};

#define CODE_PAGE_BITS 65536u
struct block_state {
	struct jump_entry jump[1u << JUMP_BITS];
	uint64_t code_pages[CODE_PAGE_BITS / 64]; /* pages, large ones too, that jump[] may hold code of; hashed */
	uint8_t *base;           /* block number n is at base + 64 n */
	_Atomic uint64_t epoch;  /* of the cache, when this vCPU last held no block */
	_Atomic bool quiet;      /* holds no block: asleep or outside vcpu_run() */
	struct block *build;     /* scratch: a block being decoded, BLOCK_MAX_INSNS long */
	/* The loop's own (run.c); here because they survive a longjmp */
	uint64_t steps_left;
	bool stepping;
	bool left; /* no instruction ran: its block had died */
	bool once; /* the next instruction must run by itself */
	uint32_t site; /* exit of translated code that was taken last, or 0 */
	uint64_t site_epoch;
};

static inline struct block *block_by_number(const struct block_state *s, uint32_t n)
{
	return (struct block *)(s->base + (uint64_t)n * 64);
}
static inline uint32_t block_number(const struct block_state *s, const struct block *b)
{
	return ((const uint8_t *)b - s->base) / 64;
}
/* The half of a jump cache entry that says when it holds; `id` of the address space or of global pages. */
static inline uint32_t jump_ctx(const struct soft_vcpu *v, uint32_t id)
{
	return id << 3 | (v->cpl == 3) << 2 | v->mode;
}
/*
 * The block at `linear` (CS base added), decoded now if need be, and put into
 * the jump cache. NULL: this code can't be cached, use block_uncached(). Raises
 * fetch faults.
 */
struct block *block_get(struct soft_vcpu *v, uint64_t linear, unsigned key);
/* One instruction into v->blocks->build, not cached. */
struct block *block_uncached(struct soft_vcpu *v, uint64_t linear);
/* Remember that `from`, entered with rIP `start`, went to `to` at rIP `target`. */
void block_link(struct soft_vcpu *v, struct block *from, uint64_t start, struct block *to, uint64_t target);
/* This vCPU holds no block now. Drops its jump cache if the cache was emptied. */
void block_quiesce(struct soft_vcpu *v);
void block_set_quiet(struct soft_vcpu *v, bool quiet);
/* INVLPG of this page. */
void block_flush_linear(struct soft_vcpu *v, uint64_t linear);
void block_jump_clear(struct soft_vcpu *v);
/* Code in [gpa, gpa+len) was written by somebody who may be no vCPU. */
void block_written(struct soft_engine *e, uint64_t gpa, uint64_t len);

/* User code of different address spaces lies at the same addresses: let it be apart in the caches. */
static inline uint32_t jump_salt(uint32_t id)
{
	return id * 0x85ebca6bu;
}

static inline unsigned jump_hash(const struct soft_vcpu *v, uint64_t linear)
{
	uint64_t n = v->cpl == 3 ? linear ^ jump_salt(v->mmu->id) >> (32 - JUMP_BITS) : linear;

	return (n ^ n >> JUMP_BITS) & ((1u << JUMP_BITS) - 1);
}

/* The block that the jump cache has for `linear`, or NULL. */
soft_inline struct block *jump_find(const struct soft_vcpu *v, uint64_t linear)
{
	const struct block_state *s = v->blocks;
	const struct jump_entry *j = &s->jump[jump_hash(v, linear)];
	struct block *b = block_by_number(s, j->block);

	if (unlikely(j->linear != linear))
		return NULL;
	if (j->ctx != jump_ctx(v, v->mmu->global_id) && j->ctx != jump_ctx(v, v->mmu->id))
		return NULL;
	return likely(atomic_load_explicit(&b->n, memory_order_relaxed)) ? b : NULL;
}

/* Is the jump cache's entry for `linear`, if it is one, of a global page? */
static inline bool jump_is_global(const struct soft_vcpu *v, uint64_t linear)
{
	const struct jump_entry *j = &v->blocks->jump[jump_hash(v, linear)];

	return j->linear == linear && j->ctx == jump_ctx(v, v->mmu->global_id);
}

/* ---- The caches' sizes (cache.c) ------------------------------------------ */

/* Bytes for decoded blocks and for code in all, so that the whole engine stays within engine_config.cache. */
void cache_divide(const struct soft_engine *e, size_t *blocks, size_t *code);
uint64_t cache_limit(const struct soft_engine *e);
/* What all native_space.page may take together. */
uint64_t cache_native_spaces(const struct soft_engine *e);
uint64_t cache_used(const struct soft_engine *e); /* about */
uint64_t block_cache_used(const struct soft_engine *e);

/* block.c's side of build.c. */
struct page_code;
/* From here on stores into the page's marked lines are noticed. NULL: no room. */
struct page_code *page_code_begin(struct soft_engine *e, uint64_t gpa, uint32_t *gen);
void page_code_end(struct soft_engine *e, struct page_code *p);
/* Announce that [off, off+n) of the page is about to be read. */
void page_code_mark(struct page_code *p, unsigned off, unsigned n);
enum block_publish { PUBLISHED, PUBLISH_RACED, PUBLISH_FULL };
/*
 * Publish a copy of `b`, read from the pages of p[] at generations gen[] (p[1]
 * NULL if it lies in one page). Ends both. RACED: the code was written
 * meanwhile; FULL: no room. *out is the block that others find.
 */
enum block_publish block_publish(struct soft_vcpu *v, const struct block *b, struct page_code *p[2],
				 const uint32_t gen[2], struct block **out);
/* The published block at `gpa`, or NULL. */
struct block *block_find(struct soft_engine *e, uint64_t gpa, uint64_t gpa2, unsigned key);
/* `rights` of the first page or, in a block that crosses, of both. */
void block_remember(struct soft_vcpu *v, uint64_t linear, uint32_t ctx, const struct block *b, uint32_t rights);
/*
 * Empty the cache if nobody has since this vCPU last looked. False: others
 * still hold blocks of the memory that it would use.
 */
bool block_renew(struct soft_vcpu *v);
insn_fn block_leave;
insn_fn insn_undefined, insn_protection; /* for bytes that are no instruction */
uint64_t block_epoch(const struct soft_engine *e);

/* ---- Safe point (stop.c) ------------------------------------------------- */

struct soft_stop {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	_Atomic bool active;
	struct soft_vcpu *owner;
	/* Lock-step: one vCPU is in the guest at a time, in the order in which they came. */
	pthread_cond_t turn_cond;
	uint64_t turn, turns; /* whose it is, tickets given out */
};

struct soft_park {
	_Atomic bool in_guest; /* may touch guest memory, slots and TLB */
	_Atomic bool sleeping;
	bool slow_locked;      /* soft_lock_slow() is held */
	unsigned outside;      /* calls of soft_leave() while it was out already */
};

int stop_engine_init(struct soft_engine *e);
void stop_engine_free(struct soft_engine *e);
int stop_vcpu_init(struct soft_vcpu *v);
void stop_vcpu_free(struct soft_vcpu *v);
/* Does another vCPU wait for its turn? */
bool soft_turn_wanted(struct soft_engine *e);
/* The vCPU whose soft_run() this thread is in, or NULL. */
extern __thread struct soft_vcpu *soft_current;

/* ---- Memory slots, dirty log (memory.c) ---------------------------------- */

int memory_map(struct engine *e, uint64_t gpa, uint64_t size, void *hva, bool readonly, struct err *err);
int memory_map_file(struct engine *e, uint64_t gpa, int fd, uint64_t offset, struct err *err);
int memory_unmap(struct engine *e, uint64_t gpa, uint64_t size, struct err *err);
int memory_dirty_start(struct engine *e, struct err *err);
int memory_dirty_stop(struct engine *e, struct err *err);
int memory_dirty_fetch(struct engine *e, uint64_t gpa, uint64_t size, uint8_t *bitmap, struct err *err);
void memory_written(struct engine *e, uint64_t gpa, uint64_t len);
int memory_engine_init(struct soft_engine *e, struct err *err);
void memory_engine_free(struct soft_engine *e);
/* The page's PAGE_LOG_DIRTY flag was seen by a store: record it. Slots must not change meanwhile. */
void memory_mark_dirty(struct soft_engine *e, uint64_t gpa);
/* Every CPU of the process has executed a full barrier when it returns. */
void memory_barrier_all(void);

/* ---- State in and out (state.c) ------------------------------------------ */

int state_get(struct vcpu *v, struct cpu_state *s, struct err *err);
int state_set(struct vcpu *v, const struct cpu_state *s, struct err *err);

