/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The cache of decoded blocks: found by physical address without a lock,
 * dropped when their code is written.
 *
 * Memory comes from one arena. When it is full the cache is emptied: every
 * block dies (its handlers become "leave", so that whoever runs it comes out
 * after the instruction at work). The arena is free for use again after each
 * vCPU has passed a point where it held no block, which is soon, for dead
 * blocks don't run; until then code runs uncached. So nobody ever waits for
 * anybody.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/soft/trans.h"

#define SHARDS 64u
#define BUCKETS 512u      /* of blocks, in a shard */
#define PAGE_BUCKETS 128u /* of code pages, in a shard */
#define LINE 64u
#define ARENA_BYTES_A_PAGE 1024u /* of arena: room for one struct page_code */

/* A guest page that holds decoded code. Lives in the arena's epoch. */
struct page_code {
	uint64_t page;          /* physical address */
	_Atomic uint64_t lines; /* a bit for each 64 bytes that code may lie in */
	struct page_code *_Atomic next;
	struct block *first;    /* the rest under the shard's lock */
	uint32_t gen;           /* changes when marked lines are written */
	uint32_t builders;      /* decoding from this page now */
};

struct shard {
	pthread_mutex_t lock;
	struct block *_Atomic bucket[BUCKETS];
	struct page_code *_Atomic pages[PAGE_BUCKETS];
};

struct arena {
	uint8_t *start;
	_Atomic size_t used;
	struct page_code *pages;
	_Atomic uint32_t pages_used;
};

struct block_cache {
	uint8_t *base;
	size_t size;
	size_t arena_bytes;
	uint32_t arena_pages;
	struct arena arena;
	_Atomic uint64_t epoch; /* begins when the cache is emptied */
	_Atomic bool closed;    /* emptied, and not free yet */
	struct shard shard[SHARDS];
};

static uint64_t page_hash(uint64_t gpa)
{
	return (gpa >> 12) * 0x9e3779b97f4a7c15ull;
}

static struct shard *shard_at(struct block_cache *c, uint64_t gpa)
{
	return &c->shard[page_hash(gpa) >> 58];
}

static struct block *_Atomic *bucket_at(struct shard *s, uint64_t gpa)
{
	return &s->bucket[((page_hash(gpa) >> 40) + (gpa & PAGE_MASK)) % BUCKETS];
}

static struct page_code *page_find(struct shard *s, uint64_t gpa)
{
	struct page_code *p =
		atomic_load_explicit(&s->pages[(page_hash(gpa) >> 40) % PAGE_BUCKETS], memory_order_acquire);

	while (p && p->page != (gpa & ~PAGE_MASK))
		p = atomic_load_explicit(&p->next, memory_order_acquire);
	return p;
}

static uint64_t line_mask(unsigned off, unsigned n)
{
	unsigned first = off / LINE, last = (off + n - 1) / LINE;

	return (~0ull >> (63 - (last - first))) << first;
}

/* ---- Death --------------------------------------------------------------- */

/* Stands in for each instruction of a dead block: run nothing, look the address up again. */
void block_leave(struct soft_vcpu *v, const struct insn *i)
{
	v->next_rip = v->rip;
	v->blocks->left = true;
	__builtin_longjmp(v->fault_jmp, 1);
}

static void block_kill(struct soft_engine *e, struct block *b)
{
	atomic_store_explicit(&b->n, 0, memory_order_relaxed);
	for (unsigned i = 0; i < b->count; i++)
		__atomic_store_n(&b->insn[i].fn, block_leave, __ATOMIC_RELAXED);
	trans_kill(e, b);
}

/* The lines that the block has in common with bytes [off, off+n) of the page at `page`. */
static uint64_t block_lines(const struct block *b, uint64_t page, unsigned off, unsigned n)
{
	unsigned from = b->gpa & PAGE_MASK, to = from + b->bytes;
	uint64_t lines = 0;

	for (unsigned part = 0; part < 2; part++) {
		unsigned lo = part ? 0 : from, hi = part ? to - PAGE_BYTES : to < PAGE_BYTES ? to : PAGE_BYTES;

		if (part && to <= PAGE_BYTES)
			break;
		if ((part ? b->gpa2 : b->gpa & ~PAGE_MASK) != page)
			continue;
		lo = lo > off ? lo : off;
		hi = hi < off + n ? hi : off + n;
		if (lo < hi)
			lines |= line_mask(lo, hi - lo);
	}
	return lines;
}

static struct block **page_link(struct block *b, uint64_t page)
{
	return &b->page_next[(b->gpa & ~PAGE_MASK) != page];
}

/* Bytes [off, off+n) of the page were written. Under the shard's lock. */
static void page_invalidate(struct soft_engine *e, struct page_code *p, unsigned off, unsigned n)
{
	struct block **link = &p->first;
	uint64_t lines = 0;

	if (!(atomic_load_explicit(&p->lines, memory_order_relaxed) & line_mask(off, n)))
		return;
	p->gen++;
	while (*link) {
		struct block *b = *link;

		if (block_lines(b, p->page, off, n))
			block_kill(e, b);
		if (!atomic_load_explicit(&b->n, memory_order_relaxed)) {
			*link = *page_link(b, p->page);
			continue;
		}
		lines |= block_lines(b, p->page, 0, PAGE_BYTES);
		link = page_link(b, p->page);
	}
	if (p->builders)
		return;
	atomic_store_explicit(&p->lines, lines, memory_order_relaxed);
	if (!p->first)
		__atomic_fetch_and(&e->page_flags[p->page >> 12], (uint8_t)~PAGE_HAS_CODE, __ATOMIC_SEQ_CST);
}

static void code_written(struct soft_engine *e, uint64_t gpa, unsigned size, bool lock_first)
{
	struct shard *s = shard_at(e->blocks, gpa);
	unsigned off = gpa & PAGE_MASK;
	struct page_code *p;

	if (!lock_first) {
		/* Most stores here are to data beside code. The fence pairs with page_code_mark(). */
		atomic_thread_fence(memory_order_seq_cst);
		p = page_find(s, gpa);
		if (!p || !(atomic_load_explicit(&p->lines, memory_order_relaxed) & line_mask(off, size)))
			return;
	}
	pthread_mutex_lock(&s->lock);
	p = page_find(s, gpa);
	if (p)
		page_invalidate(e, p, off, size);
	pthread_mutex_unlock(&s->lock);
}

/* On a vCPU's thread between soft_enter() and soft_leave(): nothing that is looked at can go away. */
void page_written(struct soft_engine *e, uint64_t gpa, unsigned size)
{
	while (size) {
		unsigned room = PAGE_BYTES - (gpa & PAGE_MASK), n = size < room ? size : room;
		uint8_t flags = __atomic_load_n(&e->page_flags[gpa >> 12], __ATOMIC_RELAXED);

		if (flags & PAGE_LOG_DIRTY)
			memory_mark_dirty(e, gpa);
		if (flags & PAGE_HAS_CODE)
			code_written(e, gpa, n, false);
		if (flags & PAGE_NATIVE_CODE)
			native_code_written(e, gpa);
		gpa += n;
		size -= n;
	}
}

void block_written(struct soft_engine *e, uint64_t gpa, uint64_t len)
{
	while (len) {
		uint64_t room = PAGE_BYTES - (gpa & PAGE_MASK), n = len < room ? len : room;

		if (__atomic_load_n(&e->page_flags[gpa >> 12], __ATOMIC_RELAXED) & PAGE_HAS_CODE)
			code_written(e, gpa, n, true);
		if (__atomic_load_n(&e->page_flags[gpa >> 12], __ATOMIC_RELAXED) & PAGE_NATIVE_CODE)
			native_code_written(e, gpa);
		gpa += n;
		len -= n;
	}
}

/* ---- Building ------------------------------------------------------------ */

struct page_code *page_code_begin(struct soft_engine *e, uint64_t gpa, uint32_t *gen)
{
	struct block_cache *c = e->blocks;
	struct shard *s = shard_at(c, gpa);
	uint8_t *flags = &e->page_flags[gpa >> 12];
	struct page_code *p;

	pthread_mutex_lock(&s->lock);
	p = page_find(s, gpa);
	if (!p) {
		struct arena *a = &c->arena;
		uint32_t n = c->closed ? c->arena_pages : atomic_fetch_add(&a->pages_used, 1);
		unsigned at = (page_hash(gpa) >> 40) % PAGE_BUCKETS;

		if (n >= c->arena_pages) {
			pthread_mutex_unlock(&s->lock);
			return NULL;
		}
		p = &a->pages[n];
		memset(p, 0, sizeof(*p));
		p->page = gpa & ~PAGE_MASK;
		p->next = s->pages[at];
		atomic_store_explicit(&s->pages[at], p, memory_order_release);
	}
	p->builders++;
	*gen = p->gen;
	if (!(__atomic_load_n(flags, __ATOMIC_RELAXED) & PAGE_HAS_CODE)) {
		__atomic_fetch_or(flags, PAGE_HAS_CODE, __ATOMIC_SEQ_CST);
		/* Stores made before this are seen by the reads after it; those made after it see the flag. */
		memory_barrier_all();
	}
	pthread_mutex_unlock(&s->lock);
	return p;
}

void page_code_end(struct soft_engine *e, struct page_code *p)
{
	struct shard *s = shard_at(e->blocks, p->page);

	pthread_mutex_lock(&s->lock);
	p->builders--;
	pthread_mutex_unlock(&s->lock);
}

void page_code_mark(struct page_code *p, unsigned off, unsigned n)
{
	uint64_t mask = line_mask(off, n);

	if ((atomic_load_explicit(&p->lines, memory_order_relaxed) & mask) != mask)
		atomic_fetch_or(&p->lines, mask);
	else
		atomic_thread_fence(memory_order_acquire);
}

static struct block *bucket_find(struct shard *s, uint64_t gpa, uint64_t gpa2, unsigned key)
{
	struct block *b = atomic_load_explicit(bucket_at(s, gpa), memory_order_acquire);

	for (; b; b = atomic_load_explicit(&b->hash_next, memory_order_acquire))
		if (b->gpa == gpa && b->key == key && b->gpa2 == gpa2 &&
		    atomic_load_explicit(&b->n, memory_order_relaxed))
			return b;
	return NULL;
}

struct block *block_find(struct soft_engine *e, uint64_t gpa, uint64_t gpa2, unsigned key)
{
	return bucket_find(shard_at(e->blocks, gpa), gpa, gpa2, key);
}

static void *arena_alloc(struct block_cache *c, size_t size)
{
	struct arena *a = &c->arena;
	size_t at;

	if (c->closed)
		return NULL;
	at = atomic_fetch_add(&a->used, size);
	return at + size <= c->arena_bytes ? a->start + at : NULL;
}

/* Dead blocks leave their chain when somebody comes by with the lock. */
static void bucket_sweep(struct block *_Atomic *link)
{
	struct block *b;

	while ((b = *link)) {
		if (b->n)
			link = &b->hash_next;
		else
			*link = b->hash_next;
	}
}

enum block_publish block_publish(struct soft_vcpu *v, const struct block *b, struct page_code *p[2],
				 const uint32_t gen[2], struct block **out)
{
	struct block_cache *c = v->engine->blocks;
	struct shard *s[2] = {shard_at(c, p[0]->page), p[1] ? shard_at(c, p[1]->page) : NULL};
	size_t size = sizeof(*b) + b->count * sizeof(struct insn);
	enum block_publish result = PUBLISHED;
	struct block *_Atomic *bucket = bucket_at(s[0], b->gpa);
	struct block *mine;

	if (s[1] && s[1] < s[0])
		pthread_mutex_lock(&s[1]->lock);
	pthread_mutex_lock(&s[0]->lock);
	if (s[1] > s[0])
		pthread_mutex_lock(&s[1]->lock);

	if (p[0]->gen != gen[0] || (p[1] && p[1]->gen != gen[1])) {
		result = PUBLISH_RACED;
	} else if ((*out = bucket_find(s[0], b->gpa, b->gpa2, b->key))) {
		/* Another vCPU was here first. */
	} else if (!(mine = arena_alloc(c, size))) {
		result = PUBLISH_FULL;
	} else {
		memcpy(mine, b, size);
		for (unsigned i = 0; i < 2 && p[i]; i++) {
			mine->page_next[i] = p[i]->first;
			p[i]->first = mine;
		}
		bucket_sweep(bucket);
		mine->hash_next = *bucket;
		atomic_store_explicit(bucket, mine, memory_order_release);
		v->stats.blocks_decoded++;
		*out = mine;
	}
	for (unsigned i = 0; i < 2 && p[i]; i++)
		p[i]->builders--;

	pthread_mutex_unlock(&s[0]->lock);
	if (s[1] && s[1] != s[0])
		pthread_mutex_unlock(&s[1]->lock);
	return result;
}

/* ---- Emptying ------------------------------------------------------------ */

static void lock_all(struct block_cache *c)
{
	for (unsigned i = 0; i < SHARDS; i++)
		pthread_mutex_lock(&c->shard[i].lock);
}

static void unlock_all(struct block_cache *c)
{
	for (unsigned i = 0; i < SHARDS; i++)
		pthread_mutex_unlock(&c->shard[i].lock);
}

/* All shards are locked. */
static void kill_all(struct soft_engine *e)
{
	struct block_cache *c = e->blocks;
	struct arena *a = &c->arena;
	uint32_t pages = a->pages_used < c->arena_pages ? a->pages_used : c->arena_pages;

	for (unsigned i = 0; i < pages; i++) {
		struct page_code *p = &a->pages[i];

		/* Whoever decodes right now finds at the end that its page has changed. */
		p->gen++;
		for (struct block *b = p->first; b; b = *page_link(b, p->page))
			block_kill(e, b);
		p->first = NULL;
		__atomic_fetch_and(&e->page_flags[p->page >> 12], (uint8_t)~PAGE_HAS_CODE, __ATOMIC_SEQ_CST);
	}
	for (unsigned i = 0; i < SHARDS; i++) {
		for (unsigned k = 0; k < BUCKETS; k++)
			c->shard[i].bucket[k] = NULL;
		for (unsigned k = 0; k < PAGE_BUCKETS; k++)
			c->shard[i].pages[k] = NULL;
	}
}

/* Has every vCPU let go of what it may have held before this epoch began? */
static bool all_quiet(struct soft_engine *e)
{
	uint64_t epoch = e->blocks->epoch;

	for (unsigned i = 0; i < ENGINE_MAX_CPUS; i++) {
		struct soft_vcpu *v = __atomic_load_n(&e->vcpus[i], __ATOMIC_ACQUIRE);

		if (v && !v->blocks->quiet && v->blocks->epoch < epoch)
			return false;
	}
	return true;
}

/* All shards are locked. */
static void cache_empty(struct soft_engine *e)
{
	kill_all(e);
	e->blocks->epoch++;
	e->blocks->closed = true;
}

/* Use the arena again, if nobody can have a block of it in hand. All shards are locked. */
static bool cache_open(struct soft_engine *e)
{
	struct block_cache *c = e->blocks;

	if (!all_quiet(e))
		return false;
	c->arena.used = 0;
	c->arena.pages_used = 0;
	trans_empty(e);
	c->closed = false;
	return true;
}

/* Has there been no room for something? Who found it closed comes here, too, maybe after it was opened again. */
static bool cache_is_full(const struct soft_engine *e)
{
	const struct block_cache *c = e->blocks;

	return c->arena.used > c->arena_bytes || c->arena.pages_used > c->arena_pages || trans_full(e);
}

bool block_renew(struct soft_vcpu *v)
{
	struct soft_engine *e = v->engine;
	struct block_cache *c = e->blocks;
	bool ok = true;

	/* Asked for each instruction while somebody sits in a device for long: no locks then. */
	if (c->closed && !all_quiet(e))
		return false;
	lock_all(c);
	if (!c->closed && cache_is_full(e))
		cache_empty(e);
	block_quiesce(v);
	if (c->closed)
		ok = cache_open(e);
	unlock_all(c);
	return ok;
}

void block_flush_all(struct soft_engine *e)
{
	struct block_cache *c = e->blocks;

	lock_all(c);
	if (!c->closed)
		cache_empty(e);
	cache_open(e);
	unlock_all(c);
}

uint64_t block_cache_used(const struct soft_engine *e)
{
	const struct block_cache *c = e->blocks;
	size_t bytes = c->arena.used, pages = c->arena.pages_used;

	return sizeof(*c) + (bytes < c->arena_bytes ? bytes : c->arena_bytes) +
	       (pages < c->arena_pages ? pages : c->arena_pages) * sizeof(struct page_code);
}

uint64_t block_epoch(const struct soft_engine *e)
{
	return e->blocks->epoch;
}

void block_quiesce(struct soft_vcpu *v)
{
	uint64_t epoch = v->engine->blocks->epoch;

	if (unlikely(v->blocks->epoch != epoch)) {
		block_jump_clear(v);
		v->blocks->epoch = epoch;
	}
}

void block_set_quiet(struct soft_vcpu *v, bool quiet)
{
	v->blocks->quiet = quiet;
	if (!quiet)
		block_quiesce(v);
}

/* ---- Jump cache and links ------------------------------------------------ */

void block_jump_clear(struct soft_vcpu *v)
{
	trans_jump_clear(v);
	memset(v->blocks->jump, 0, sizeof(v->blocks->jump));
	memset(v->blocks->code_pages, 0, sizeof(v->blocks->code_pages));
}

static unsigned code_bit(uint64_t linear, unsigned shift)
{
	return ((linear >> shift) * 64 + shift) * 0x9e3779b97f4a7c15ull >> 48;
}

static void code_set(struct block_state *s, uint64_t linear, unsigned shift)
{
	unsigned bit = code_bit(linear, shift);

	s->code_pages[bit / 64] |= 1ull << bit % 64;
}

static bool code_test(const struct block_state *s, uint64_t linear, unsigned shift)
{
	unsigned bit = code_bit(linear, shift);

	return s->code_pages[bit / 64] >> bit % 64 & 1;
}

void block_remember(struct soft_vcpu *v, uint64_t linear, uint32_t ctx, const struct block *b, uint32_t rights)
{
	struct block_state *s = v->blocks;

	s->jump[jump_hash(v, linear)] = (struct jump_entry){ linear, ctx, block_number(s, b) };
	code_set(s, linear, 12);
	if (b->gpa2 != BLOCK_ONE_PAGE)
		code_set(s, linear + b->bytes - 1, 12);
	/* Flushing any address of a large page flushes this one. */
	if (rights & XL_2M)
		code_set(s, linear, 22);
	if (rights & XL_1G)
		code_set(s, linear, 30);
}

void block_flush_linear(struct soft_vcpu *v, uint64_t linear)
{
	struct block_state *s = v->blocks;
	unsigned shift = code_test(s, linear, 30) ? 30 : code_test(s, linear, 22) ? 22 : 12;
	uint64_t from = (linear >> shift << shift) - PAGE_BYTES, size = (1ull << shift) + PAGE_BYTES;

	if (shift == 12 && !code_test(s, linear, 12))
		return;
	/* The page before it, too: its last block may go on in this one. */
	for (unsigned i = 0; i < 1u << JUMP_BITS; i++)
		if (s->jump[i].linear - from < size)
			s->jump[i].ctx = 0;
	trans_forget(v, from, size);
}

void block_link(struct soft_vcpu *v, struct block *from, uint64_t start, struct block *to, uint64_t target)
{
	struct block_state *s = v->blocks;
	uint64_t delta = target - start, link;
	uint64_t at = (from->gpa & PAGE_MASK) + delta; /* in the page, if it's the same one */

	if (!from->linkable || at > PAGE_MASK || (from->gpa ^ to->gpa) & ~PAGE_MASK || to->gpa2 != BLOCK_ONE_PAGE ||
	    at != (to->gpa & PAGE_MASK))
		return;
	link = (uint64_t)block_number(s, to) << 32 | (uint32_t)delta;
	for (unsigned i = 0; i < 2; i++) {
		uint64_t old = atomic_load_explicit(&from->link[i], memory_order_relaxed);

		if (!old || (uint32_t)old == (uint32_t)delta ||
		    !atomic_load_explicit(&block_by_number(s, old >> 32)->n, memory_order_relaxed)) {
			atomic_store_explicit(&from->link[i], link, memory_order_release);
			return;
		}
	}
}

/* ---- Making and freeing -------------------------------------------------- */

/*
 * Block numbers start at 1: the first 64 bytes stay zero, a block that is dead
 * for ever, which empty entries of jump caches point to.
 */
int block_engine_init(struct soft_engine *e)
{
	size_t size, blocks, code;
	struct block_cache *c = mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *p;

	if (c == MAP_FAILED)
		return -ENOMEM;
	cache_divide(e, &blocks, &code);
	c->arena_pages = (uint32_t)(blocks / (ARENA_BYTES_A_PAGE + sizeof(struct page_code)));
	c->arena_bytes = (size_t)c->arena_pages * ARENA_BYTES_A_PAGE & ~(size_t)PAGE_MASK;
	size = PAGE_BYTES + c->arena_bytes + c->arena_pages * sizeof(struct page_code);
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED) {
		munmap(c, sizeof(*c));
		return -ENOMEM;
	}
	c->base = p;
	c->size = size;
	c->arena.start = p + PAGE_BYTES;
	c->arena.pages = (struct page_code *)(p + PAGE_BYTES + c->arena_bytes);
	for (unsigned i = 0; i < SHARDS; i++)
		pthread_mutex_init(&c->shard[i].lock, NULL);
	e->blocks = c;
	return 0;
}

void block_engine_free(struct soft_engine *e)
{
	struct block_cache *c = e->blocks;

	if (!c)
		return;
	for (unsigned i = 0; i < SHARDS; i++)
		pthread_mutex_destroy(&c->shard[i].lock);
	munmap(c->base, c->size);
	munmap(c, sizeof(*c));
	e->blocks = NULL;
}

int block_vcpu_init(struct soft_vcpu *v)
{
	struct block_state *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->build = aligned_alloc(64, sizeof(struct block) + BLOCK_MAX_INSNS * sizeof(struct insn));
	if (!s->build) {
		free(s);
		return -ENOMEM;
	}
	s->base = v->engine->blocks->base;
	s->quiet = true;
	v->blocks = s;
	return 0;
}

void block_vcpu_free(struct soft_vcpu *v)
{
	if (!v->blocks)
		return;
	free(v->blocks->build);
	free(v->blocks);
	v->blocks = NULL;
}
