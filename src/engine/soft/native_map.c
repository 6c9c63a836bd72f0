/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a native process has mapped. Its address space is one more TLB: a page
 * is there only if a walk of the guest's tables says so, and goes when the
 * guest flushes it. Two things a TLB does not have:
 *
 * Stores are not seen by us, so a page is writable only while nothing asks to
 * see them (page_flags), and whoever begins to ask takes the right away first:
 * native_engine.writable counts, by page, who has it.
 *
 * Instructions that user code may run and that would tell of the host's CPU
 * instead of the guest's (CPUID, RDTSC, LSL, RDPID, ...) are looked for
 * before a page is executable. If there are some, a copy of the page
 * runs in which they are UD2; where it is not certain that they are instructions,
 * the page stays with the translator. This is for truth, not for safety: the
 * process is a prison in any case. (Linux can make CPUID and RDTSC trap, but then
 * each switch to the process and back writes CR4 or an MSR: in a virtual machine
 * that costs more than all the rest, 17 of 29 us here.)
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "engine/soft/native.h"

#define TABLE_MIN 512u   /* entries */
#define TABLE_KEPT 4096u /* larger ones are given back when they are emptied */
#define LEAD_IN 256u /* bytes of the page before that show where instructions begin */

/* ---- The table --------------------------------------------------------------- */

static unsigned page_slot(unsigned size, uint64_t linear)
{
	return ((linear >> 12) * 0x9e3779b97f4a7c15ull >> 32) & (size - 1);
}

static struct native_page *page_at(const struct native_space *s, uint64_t linear)
{
	linear &= ~PAGE_MASK;
	if (!s->pages_size)
		return NULL;
	for (unsigned at = page_slot(s->pages_size, linear);; at = (at + 1) & (s->pages_size - 1)) {
		struct native_page *p = &s->page[at];

		if (!p->key && !p->gpa)
			return NULL;
		if ((p->key & ~PAGE_MASK) == linear && !(p->key & NATIVE_GONE))
			return p;
	}
}

int native_map_find(const struct native_space *s, uint64_t linear)
{
	const struct native_page *p = page_at(s, linear);

	return p ? (int)(p->key & PAGE_MASK) : -1;
}

static void table_free(struct native_engine *e, struct native_space *s)
{
	atomic_fetch_sub(&e->table_bytes, s->pages_size * sizeof(*s->page));
	free(s->page);
	s->page = NULL;
	s->pages_size = s->pages_used = s->pages = 0;
}

/* Make room for `more` pages; at most half of the entries are used. False: there is no memory, or it is not allowed. */
static bool table_grow(struct soft_engine *e, struct native_space *s, unsigned more)
{
	unsigned size = TABLE_MIN, used = s->pages, old_size = s->pages_size;
	struct native_page *old = s->page, *page;
	uint64_t grown;

	while (size < 2 * (used + more))
		size *= 2;
	/* So that this does not come again at once when those gone are a few. */
	if (size < 3 * (used + more))
		size *= 2;
	grown = size * sizeof(*page);
	if (size > TABLE_MIN && atomic_load(&e->native->table_bytes) - old_size * sizeof(*page) + grown > cache_native_spaces(e))
		return false;
	page = calloc(size, sizeof(*page));
	if (!page)
		return false;
	for (unsigned i = 0; i < old_size; i++) {
		unsigned at;

		if ((!old[i].key && !old[i].gpa) || old[i].key & NATIVE_GONE)
			continue;
		for (at = page_slot(size, old[i].key); page[at].key || page[at].gpa; at = (at + 1) & (size - 1))
			;
		page[at] = old[i];
	}
	table_free(e->native, s);
	atomic_fetch_add(&e->native->table_bytes, grown);
	s->page = page;
	s->pages_size = size;
	s->pages_used = s->pages = used;
	return true;
}

/* A free entry for a page that has none; gpa is never 0 in one that is used (bit 0 is set). */
static struct native_page *page_add(struct native_space *s, uint64_t linear)
{
	unsigned at;

	if (2 * (s->pages_used + 1) > s->pages_size)
		return NULL;
	for (at = page_slot(s->pages_size, linear); s->page[at].key || s->page[at].gpa; at = (at + 1) & (s->pages_size - 1))
		;
	s->pages++;
	s->pages_used++;
	return &s->page[at];
}

/* ---- Who may write ------------------------------------------------------------ */

static _Atomic uint16_t *writers(struct soft_vcpu *v, uint64_t gpa)
{
	return &v->engine->native->writable[gpa >> 12];
}

/* Either this sees the flag, or whoever sets it sees the count. */
static bool writer_begin(struct soft_vcpu *v, uint64_t gpa)
{
	atomic_fetch_add(writers(v, gpa), 1);
	if (!__atomic_load_n(&v->page_flags[gpa >> 12], __ATOMIC_SEQ_CST))
		return true;
	atomic_fetch_sub(writers(v, gpa), 1);
	return false;
}

static void page_forget(struct soft_vcpu *v, struct native_space *s, struct native_page *p)
{
	if (p->key & NATIVE_W)
		atomic_fetch_sub(writers(v, p->gpa), 1);
	p->key |= NATIVE_GONE;
	s->pages--;
}

static void unmap(struct native_space *s, uint64_t from, uint64_t len)
{
	struct native_call *c;

	if (s->stub.calls) {
		c = &s->stub.call[s->stub.calls - 1];
		if (c->nr == SYS_munmap && c->arg[0] + c->arg[1] == from) {
			c->arg[1] += len;
			return;
		}
	}
	c = native_stub_call(&s->stub);
	if (c)
		*c = (struct native_call){ SYS_munmap, { from, len } };
	else
		s->failed = true;
}

void native_map_drop(struct soft_vcpu *v, struct native_space *s, uint64_t linear)
{
	struct native_page *p = page_at(s, linear);

	if (!p)
		return;
	page_forget(v, s, p);
	/* Only the vCPU's thread may make the process do something: if there is no room for the call, all goes later. */
	if (s->stub.calls < NATIVE_CALLS)
		unmap(s, linear & ~PAGE_MASK, PAGE_BYTES);
	else
		s->id = 0;
}

/* Of any thread while the vCPU is at the safe point: the process is emptied when its own comes to it. */
static void table_clear(struct soft_vcpu *v, struct native_space *s)
{
	for (unsigned i = 0; i < s->pages_size; i++)
		if (s->page[i].key & NATIVE_W && !(s->page[i].key & NATIVE_GONE))
			atomic_fetch_sub(writers(v, s->page[i].gpa), 1);
	if (s->pages_size > TABLE_KEPT)
		table_free(v->engine->native, s);
	else if (s->pages_used)
		memset(s->page, 0, s->pages_size * sizeof(*s->page));
	s->pages = s->pages_used = 0;
	s->id = 0;
}

void native_map_reset(struct soft_vcpu *v, struct native_space *s)
{
	bool empty = !s->pages_used && s->id && !s->stub.calls;

	table_clear(v, s);
	if (!s->stub.pid || empty)
		return;
	s->stub.calls = 0;
	unmap(s, 0, NATIVE_STUB_BASE);
	unmap(s, NATIVE_STUB_END, NATIVE_USER_END - NATIVE_STUB_END);
}

void native_map_free(struct soft_vcpu *v, struct native_space *s)
{
	table_clear(v, s);
	table_free(v->engine->native, s);
}

bool native_code_wanted(struct soft_vcpu *v, uint64_t gpa)
{
	struct soft_engine *e = v->engine;

	if (!atomic_load(&e->native->writable[gpa >> 12]))
		return false;
	soft_stop_others(e, v);
	for (unsigned i = 0; i < ENGINE_MAX_CPUS; i++) {
		struct soft_vcpu *other = e->vcpus[i];

		for (unsigned k = 0; other && other->native && k < NATIVE_SPACES; k++) {
			struct native_space *s = &other->native->space[k];
			bool found = false;

			for (unsigned n = 0; n < s->pages_size && !found; n++)
				found = s->page[n].key & NATIVE_W && !(s->page[n].key & NATIVE_GONE) &&
					(s->page[n].gpa & ~PAGE_MASK) == (gpa & ~PAGE_MASK);
			if (found)
				table_clear(other, s);
		}
	}
	soft_resume_others(e, v);
	return true;
}

/* ---- Which code may run -------------------------------------------------------- */

/* F3, REX or not, 0F C7 F8 and on; without F3 it is RDSEED. */
static bool is_rdpid(const uint8_t *at)
{
	return at[2] >= 0xf8 && (at[-1] == 0xf3 || (at[-2] == 0xf3 && (at[-1] & 0xf0) == 0x40)); /* REX */
}

/* Does the 0F at `at` belong to an instruction of those that must not run there? There are two bytes before. */
static bool is_sensitive(const uint8_t *at, unsigned left, bool rdtsc_plain)
{
	if (left < 2)
		return false;
	switch (at[1]) {
	case 0x31: /* RDTSC */
		return !rdtsc_plain;
	case 0xa2: /* CPUID */
	case 0x02: /* LAR, LSL */
	case 0x03:
	case 0x34: /* SYSENTER */
		return true;
	case 0x00: /* VERR, VERW */
		return left > 2 && (at[2] >> 3 & 7) >= 4 && (at[2] >> 3 & 7) <= 5;
	case 0x01: /* XGETBV, RDPKRU, WRPKRU, RDTSCP */
		return left > 2 && (at[2] == 0xd0 || at[2] == 0xee || at[2] == 0xef || at[2] == 0xf9);
	case 0xc7: /* RDPID; XRSTORS, XSAVEC, XSAVES */
		return left > 2 && (is_rdpid(at) || (at[2] < 0xc0 && (at[2] >> 3 & 7) >= 3 && (at[2] >> 3 & 7) <= 5));
	case 0xae: /* XSAVE, XRSTOR, XSAVEOPT: the host's layout may have more parts than the guest's CPU knows */
		return left > 2 && at[2] < 0xc0 && (at[2] >> 3 & 7) >= 4 && (at[2] >> 3 & 7) <= 6;
	}
	return false;
}

/* What compilers and assembler programmers write for user mode; random bytes decode to something else soon. */
static bool is_plausible(const struct insn *i)
{
	static const uint8_t rare_1b[] = { 0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61, 0x62,
		0x6c, 0x6d, 0x6e, 0x6f, 0x82, 0x8c, 0x8e, 0x9a, 0x9b, 0xa0, 0xa1, 0xa2, 0xa3, 0xc4, 0xc5, 0xc8, 0xca, 0xcb, 0xcd, 0xce,
		0xcf, 0xd4, 0xd5, 0xd6, 0xd7, 0xe0, 0xe1, 0xe2, 0xe4, 0xe5, 0xe6, 0xe7, 0xea, 0xec, 0xed, 0xee, 0xef, 0xf1, 0xf4,
		0xf5, 0xfa, 0xfb };
	static const uint8_t rare_0f[] = { 0x01, 0x06, 0x07, 0x08, 0x09, 0x20, 0x21, 0x22, 0x23, 0x24, 0x30, 0x32, 0x33, 0x35, 0x37,
		0x78, 0x79, 0xa0, 0xa1, 0xa8, 0xa9, 0xaa, 0xb2, 0xb4, 0xb5, 0xb9, 0xff };

	if (i->prefixes & (PFX_67 | PFX_LOCK) && !i->is_mem)
		return false;
	if (i->prefixes & PFX_67 || (i->map == MAP_1B && i->opcode >= 0xd8 && i->opcode <= 0xdf && !i->is_mem))
		return false;
	if (i->map == MAP_1B)
		return !memchr(rare_1b, i->opcode, sizeof(rare_1b));
	/* 0F 01 D0, XGETBV, is one of those that are looked for. */
	return i->map != MAP_0F || !memchr(rare_0f, i->opcode, sizeof(rare_0f)) || (i->opcode == 1 && !i->is_mem);
}

#define VOTERS 16u
#define RUN_UP 96u /* bytes: decoding from anywhere has met the real code by then */
#define RUN_ON 64u
#define PATCHES 64u /* of a page */
enum meaning { NO_OPCODE, MAYBE_OPCODE, SURE_OPCODE };

/*
 * Is byte `at` of the code the opcode of an instruction? Decoding from several
 * places before it meets real code after a few instructions, so that most agree.
 * In data they agree on something, too: sure is only what lies among plausible
 * instructions. Where three bytes are certain, data is unlikely: Linux's vDSO
 * has some of these instructions between data.
 */
static enum meaning opcode_at(const uint8_t *code, unsigned size, unsigned at)
{
	unsigned votes = 0, first = at > RUN_UP + VOTERS ? at - RUN_UP - VOTERS : 0;
	bool plausible = first > 0;

	for (unsigned from = first; from < first + VOTERS && from <= at; from++) {
		unsigned pos = from, end = from == first ? at + RUN_ON : at;
		bool met = false, good = true;

		while (pos < end && pos < size) {
			unsigned n = size - pos < 15 ? size - pos : 15;
			struct insn i;

			met |= pos == at;
			memset(&i, 0, sizeof(i));
			if (insn_decode(&i, code + pos, n, MODE_64 | insn_decode_flags()) != DECODE_OK) {
				if (n < 15)
					break; /* it goes on in the next page */
				good &= pos < first + RUN_UP / 2;
				pos++;
				continue;
			}
			met |= pos < at && pos + i.raw_opcode_at > at; /* behind prefixes: 0F, then the opcode byte */
			good &= pos < first + RUN_UP / 2 || is_plausible(&i);
			pos += i.len;
		}
		met |= pos == at;
		votes += met;
		if (from == first)
			plausible &= good && met;
	}
	if (code[at + 1] == 0x01 || (code[at + 1] == 0xc7 && code[at + 2] >= 0xf8))
		plausible = true;
	return 10 * votes >= 9 * VOTERS && plausible ? SURE_OPCODE : 3 * votes >= VOTERS ? MAYBE_OPCODE : NO_OPCODE;
}

enum fitness { UNFIT, FIT, PATCHED };

/*
 * Make the copy's instructions UD2 in code[LEAD_IN..). The guest may change the page meanwhile: the scan says what is
 * true of most moments, which is all that is needed.
 */
static enum fitness patch(struct soft_vcpu *v, uint64_t linear, const uint8_t *page, uint8_t code[LEAD_IN + PAGE_BYTES])
{
	uint8_t *p = code + LEAD_IN, *end = p + PAGE_BYTES;
	uint16_t found[PATCHES];
	const uint8_t *before = NULL;
	unsigned n = 0, from = LEAD_IN;
	uint64_t gpa;

	memset(code, 0, LEAD_IN);
	memcpy(p, page, PAGE_BYTES);
	if (mmu_peek(v, linear - LEAD_IN, &gpa))
		before = soft_gpa_ptr(v->engine, gpa, NULL);
	if (before) {
		memcpy(code, before, LEAD_IN);
		from = 0;
	}
	for (; (p = memchr(p, 0x0f, end - p)); p++) {
		enum meaning meaning;

		if (!is_sensitive(p, end - p, !atomic_load(&v->engine->native->tsc_moved)))
			continue;
		meaning = opcode_at(code + from, LEAD_IN + PAGE_BYTES - from, p - code - from);
		if (meaning == MAYBE_OPCODE || (meaning == SURE_OPCODE && n == PATCHES))
			return UNFIT;
		if (meaning == SURE_OPCODE)
			found[n++] = p - code;
	}
	for (unsigned i = 0; i < n; i++)
		code[found[i] + 1] = 0x0b;
	return n ? PATCHED : FIT;
}

/* ---- Copies ------------------------------------------------------------------------ */

static int copy_find(const struct native_engine *n, uint64_t gpa)
{
	for (unsigned i = 0; i < NATIVE_PATCHED; i++)
		if (n->patched[i].gpa == (gpa | 1))
			return i;
	return -1;
}

/* Where the copy lies in the file from now on, or -1: there is no room. */
static int64_t copy_keep(struct native_engine *n, uint64_t gpa, const uint8_t *code)
{
	int64_t off = -1;

	pthread_mutex_lock(&n->code_lock);
	for (unsigned i = 0; i < NATIVE_PATCHED && off < 0; i++) {
		if (n->patched[i].gpa)
			continue;
		/* Slots go round: who runs an old one has been told to come out long before it is taken again. */
		n->patched[i].slot = n->code_next++ % NATIVE_CODE_PAGES;
		n->patched[i].gpa = gpa | 1;
		off = (int64_t)n->patched[i].slot * PAGE_BYTES;
		memcpy(n->code + off, code, PAGE_BYTES);
	}
	pthread_mutex_unlock(&n->code_lock);
	return off;
}

/* Where the copy lies in the file, or -1. */
static int64_t copy_offset(struct native_engine *n, uint64_t gpa)
{
	int64_t off = -1;
	int at;

	pthread_mutex_lock(&n->code_lock);
	at = copy_find(n, gpa);
	if (at >= 0)
		off = (int64_t)n->patched[at].slot * PAGE_BYTES;
	pthread_mutex_unlock(&n->code_lock);
	return off;
}

bool native_code_unpatch(struct soft_engine *e, uint64_t gpa)
{
	struct native_engine *n = e->native;
	int at;

	pthread_mutex_lock(&n->code_lock);
	at = copy_find(n, gpa & ~PAGE_MASK);
	if (at >= 0)
		n->patched[at].gpa = 0;
	pthread_mutex_unlock(&n->code_lock);
	return at >= 0;
}

/* Once for each page and content. *offset: of its copy, if that is what may run. */
static enum fitness look_through(struct soft_vcpu *v, uint64_t linear, uint64_t gpa, const uint8_t *page, int64_t *offset)
{
	uint8_t *byte = &v->page_flags[gpa >> 12];
	/* From here on a store is noticed, and has the page looked at again. */
	uint8_t flags = __atomic_fetch_or(byte, PAGE_NATIVE_CODE, __ATOMIC_SEQ_CST);
	uint8_t code[LEAD_IN + PAGE_BYTES];
	enum fitness fitness;
	bool moved;

	/* Another vCPU may be at it right now: then it counts as unfit for this time. */
	if (flags & PAGE_NATIVE_CODE) {
		if (flags & PAGE_NATIVE_FIT)
			return FIT;
		*offset = copy_offset(v->engine->native, gpa);
		return *offset < 0 ? UNFIT : PATCHED;
	}
	moved = atomic_load(&v->engine->native->tsc_moved);
	fitness = patch(v, linear, page, code);
	if (fitness == FIT)
		__atomic_fetch_or(byte, PAGE_NATIVE_FIT, __ATOMIC_SEQ_CST);
	/* Who moved it meanwhile has not seen the flag. */
	if (atomic_load(&v->engine->native->tsc_moved) != moved) {
		native_code_written(v->engine, gpa);
		return UNFIT;
	}
	if (fitness == PATCHED)
		*offset = copy_keep(v->engine->native, gpa, code + LEAD_IN);
	return fitness == PATCHED && *offset < 0 ? UNFIT : fitness;
}

/* ---- Mapping -------------------------------------------------------------------- */

static void map(struct native_space *s, uint64_t linear, int prot, int fd, uint64_t off)
{
	struct native_call *c;

	if (s->stub.calls) {
		c = &s->stub.call[s->stub.calls - 1];
		if (c->nr == SYS_mmap && c->arg[0] + c->arg[1] == linear && c->arg[2] == (uint64_t)prot &&
		    c->arg[4] == (uint64_t)fd && c->arg[5] + c->arg[1] == off) {
			c->arg[1] += PAGE_BYTES;
			return;
		}
	}
	c = native_stub_call(&s->stub);
	if (!c) {
		s->failed = true;
		return;
	}
	*c = (struct native_call){ SYS_mmap, { linear, PAGE_BYTES, prot, MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd, off } };
}

/* `page`: physical address and XL_*, of an accessed translation. */
static void map_page(struct soft_vcpu *v, struct native_space *s, uint64_t linear, uint64_t page, bool exec)
{
	uint64_t gpa = page & ~PAGE_MASK;
	struct native_page *p = page_at(s, linear);
	unsigned had = p ? p->key & PAGE_MASK : 0, flags = 0;
	struct soft_slot *slot = soft_slot_find(v->engine, gpa);
	int64_t copy = -1;

	linear &= ~PAGE_MASK;
	if (!(page & XL_USER) || page & XL_GLOBAL || !slot || slot->fd < 0 || linear >= NATIVE_USER_END ||
	    (linear + PAGE_BYTES > NATIVE_STUB_BASE && linear < NATIVE_STUB_END))
		return;
	if (page & XL_NX)
		exec = false;
	if (exec) {
		flags = !atomic_load(writers(v, gpa)) &&
			look_through(v, linear, gpa, slot->hva + (gpa - slot->gpa), &copy) != UNFIT ? NATIVE_X : NATIVE_DENIED;
	} else if (had & (NATIVE_X | NATIVE_DENIED)) {
		return;
	}
	if (p && p->gpa == (gpa | 1) && (had & (NATIVE_X | NATIVE_DENIED)) == flags && (had & NATIVE_W || !(page & XL_DIRTY)))
		return;
	if (p)
		page_forget(v, s, p);
	if (!exec && page & XL_WRITE && page & XL_DIRTY && !slot->readonly && writer_begin(v, gpa))
		flags |= NATIVE_W;
	p = page_add(s, linear);
	if (!p) {
		if (flags & NATIVE_W)
			atomic_fetch_sub(writers(v, gpa), 1);
		s->failed = true;
		return;
	}
	p->key = linear | flags;
	p->gpa = gpa | 1;
	if (copy >= 0)
		map(s, linear, PROT_READ | PROT_EXEC, v->engine->native->code_fd, copy);
	else
		map(s, linear, PROT_READ | (flags & NATIVE_W ? PROT_WRITE : 0) | (flags & NATIVE_X ? PROT_EXEC : 0), slot->fd,
		    slot->file_offset + (gpa - slot->gpa));
}

static bool has_room(struct soft_vcpu *v, struct native_space *s)
{
	return s->pages + MMU_WINDOW <= v->engine->native->pages_max &&
	       (2 * (s->pages_used + MMU_WINDOW) <= s->pages_size || table_grow(v->engine, s, MMU_WINDOW));
}

/* A TLB that is full loses something: this one all at once. */
static void make_room(struct soft_vcpu *v, struct native_space *s)
{
	uint32_t id = s->id;

	if (has_room(v, s))
		return;
	native_map_reset(v, s);
	s->id = id;
	if (!has_room(v, s))
		s->failed = true;
}

void native_map_around(struct soft_vcpu *v, struct native_space *s, uint64_t linear, bool exec)
{
	uint64_t page[MMU_WINDOW], first = linear & ~(uint64_t)(MMU_WINDOW * PAGE_BYTES - 1);

	if (linear >= NATIVE_USER_END)
		return;
	make_room(v, s);
	if (s->failed)
		return;
	mmu_walk_window(v, linear, page);
	for (unsigned i = 0; i < MMU_WINDOW; i++) {
		uint64_t at = first + i * PAGE_BYTES;

		if (page[i])
			map_page(v, s, at, page[i], exec || v->page_flags[page[i] >> 12] & PAGE_HAS_CODE);
	}
}

static int by_address(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

void native_map_known(struct soft_vcpu *v, struct native_space *s)
{
	const uint64_t mask = (1ull << 36) - 1;
	struct mmu_state *m = v->mmu;
	uint64_t *window = malloc(TLB2_SETS * TLB2_WAYS * sizeof(*window));
	unsigned n = 0;

	if (!window)
		return;
	for (unsigned i = 0; i < TLB2_SETS; i++)
		for (unsigned way = 0; way < TLB2_WAYS; way++)
			if (m->set[i].key[way] >> 36 == m->id && m->set[i].page[way] & XL_USER)
				window[n++] = (m->set[i].key[way] & mask) / MMU_WINDOW * MMU_WINDOW * PAGE_BYTES;
	qsort(window, n, sizeof(*window), by_address);
	for (unsigned i = 0; i < n && has_room(v, s); i++)
		if (!i || window[i] != window[i - 1])
			native_map_around(v, s, window[i], false);
	free(window);
}
