/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The software TLB: two levels, address-space ids, and every way of flushing
 * them (Intel SDM vol. 3 §4.10).
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/soft/lockstep.h"

#define PAGE_NUMBER_BITS 36

static uint64_t tlb2_key(uint32_t id, uint64_t linear)
{
	return (uint64_t)id << PAGE_NUMBER_BITS | (linear >> 12 & ((1ull << PAGE_NUMBER_BITS) - 1));
}

static struct tlb2_set *tlb2_at(struct mmu_state *m, uint64_t linear)
{
	uint64_t page = linear >> 12;

	return &m->set[(page ^ page >> 10 ^ page >> 20) % TLB2_SETS];
}

static unsigned large_bit(uint64_t linear, unsigned shift)
{
	return (linear >> shift) * 0x9e3779b97f4a7c15ull >> 52;
}

static void tlb2_insert(struct mmu_state *m, uint64_t linear, uint64_t page, uint8_t *host)
{
	struct tlb2_set *s = tlb2_at(m, linear);
	uint64_t key = tlb2_key(page & XL_GLOBAL ? m->global_id : m->id, linear);
	unsigned way = TLB2_WAYS;

	for (unsigned i = 0; i < TLB2_WAYS; i++) {
		if (s->key[i] == key) {
			way = i;
			break;
		}
		if (!s->key[i])
			way = i;
	}
	if (way == TLB2_WAYS)
		way = m->way++ % TLB2_WAYS;
	s->key[way] = key;
	s->page[way] = page;
	s->host[way] = host;
	if (page & XL_2M)
		m->large4m[large_bit(linear, 22) / 64] |= 1ull << large_bit(linear, 22) % 64;
	if (page & XL_1G)
		m->large1g[large_bit(linear, 30) / 64] |= 1ull << large_bit(linear, 30) % 64;
}

/* Index of the way in *set that holds `linear` now, or -1. */
static int tlb2_find(struct mmu_state *m, uint64_t linear, struct tlb2_set **set)
{
	struct tlb2_set *s = tlb2_at(m, linear);
	uint64_t key = tlb2_key(m->id, linear), global = tlb2_key(m->global_id, linear);

	*set = s;
	for (unsigned i = 0; i < TLB2_WAYS; i++)
		if (s->key[i] == key || s->key[i] == global)
			return i;
	return -1;
}

static void tlb2_drop(struct mmu_state *m, uint32_t id, uint64_t linear)
{
	struct tlb2_set *s = tlb2_at(m, linear);
	uint64_t key = tlb2_key(id, linear);

	for (unsigned i = 0; i < TLB2_WAYS; i++)
		if (s->key[i] == key)
			s->key[i] = 0;
}

/* One page, in every view and of every id in force. */
static void tlb_drop(struct soft_vcpu *v, uint64_t linear)
{
	for (unsigned view = 0; view < TLB_SLOW; view++) {
		struct tlb_entry *t = &v->tlb[view][(linear >> 12) & (TLB_SIZE - 1)];

		if (t->rtag == linear || t->wtag == linear)
			t->rtag = t->wtag = tlb_none((linear >> 12) & (TLB_SIZE - 1));
	}
	tlb2_drop(v->mmu, v->mmu->id, linear);
	tlb2_drop(v->mmu, v->mmu->global_id, linear);
	if (unlikely(v->native != NULL))
		native_page_flushed(v, v->mmu->id, linear);
}

static bool is_write(enum mmu_access acc)
{
	return acc == ACC_WRITE || acc == ACC_RMW;
}

void mmu_translate(struct soft_vcpu *v, uint64_t linear, enum mmu_access acc, enum mmu_priv priv, struct mmu_xlat *x)
{
	struct mmu_state *m = v->mmu;
	struct soft_slot *slot;
	struct tlb2_set *set;
	uint32_t error;
	uint64_t page;
	int way = tlb2_find(m, linear, &set);

	if (way >= 0) {
		page = set->page[way];
		/* An entry of too few rights is no reason to fault: the tables may have been widened without a flush. */
		if (mmu_allowed(v, page & PAGE_MASK, acc, priv) && (!is_write(acc) || page & XL_DIRTY)) {
			x->host = set->host[way] + (linear & PAGE_MASK);
			goto found;
		}
		set->key[way] = 0;
	}
	v->stats.tlb_misses++;
	if (!mmu_walk(v, linear, acc, priv, &page, &error)) {
		/* §4.10.4.1: a fault drops what is cached of the page. */
		tlb_drop(v, linear & ~PAGE_MASK);
		soft_raise_pf(v, linear, error);
	}
	x->host = lapic_claims(v, page & ~PAGE_MASK) ? NULL : soft_gpa_ptr(v->engine, page & ~PAGE_MASK, &slot);
	if (x->host) {
		page |= slot->readonly ? XL_READONLY : 0;
		tlb2_insert(m, linear, page, x->host);
		x->host += linear & PAGE_MASK;
	}
found:
	x->gpa = (page & ~PAGE_MASK) | (linear & PAGE_MASK);
	x->rights = page & PAGE_MASK;
	if (is_write(acc) && page & XL_READONLY)
		x->host = NULL;
	if (unlikely(v->lockstep != NULL) && is_write(acc) && x->host)
		lockstep_page(v, page & ~PAGE_MASK, x->host - (linear & PAGE_MASK));
}

static inline general_regs_only void local_add(struct mmu_state *m, unsigned view, unsigned index)
{
	unsigned n = m->locals[view];

	if (n < TLB_LOCAL)
		m->local[view][n] = (uint16_t)index;
	m->locals[view] = (uint16_t)(n < TLB_LOCAL ? n + 1 : TLB_LOCAL + 1);
}

void tlb_fill(struct soft_vcpu *v, unsigned view, uint64_t linear, const struct mmu_xlat *x)
{
	uint64_t tag = linear & ~PAGE_MASK;
	struct tlb_entry *t = &v->tlb[view][(linear >> 12) & (TLB_SIZE - 1)];
	bool write;

	if (!x->host)
		return;
	write = x->rights & XL_DIRTY && !(x->rights & XL_READONLY) &&
		(x->rights & XL_WRITE || (view != TLB_USER && !(v->cr0 & CR0_WP)) || !(v->cr0 & CR0_PG));
	if (unlikely(v->lockstep != NULL) && write)
		write = lockstep_open(v, t, x->gpa);
	t->rtag = tag;
	t->wtag = write ? tag : tlb_none((linear >> 12) & (TLB_SIZE - 1));
	t->addend = (uintptr_t)x->host - linear;
	t->gpa = (x->gpa & ~PAGE_MASK) | (x->rights & XL_GLOBAL);
	v->mmu->view_used[view] = true;
	if (!(x->rights & XL_GLOBAL))
		local_add(v->mmu, view, (linear >> 12) & (TLB_SIZE - 1));
}

/* ---- Refill --------------------------------------------------------------- */

static inline general_regs_only bool refill(struct soft_vcpu *v, uint64_t linear, unsigned view, bool write)
{
	struct mmu_state *m = v->mmu;
	unsigned index = (linear >> 12) & (TLB_SIZE - 1), way;
	uint64_t page = linear >> 12, tag = linear & ~PAGE_MASK, none = index == TLB_SIZE - 1 ? TLB_NONE_LAST : TLB_NONE;
	struct tlb2_set *s = &m->set[(page ^ page >> 10 ^ page >> 20) % TLB2_SETS];
	struct tlb_entry *t = &v->tlb[view][index];
	uint64_t number = page & ((1ull << PAGE_NUMBER_BITS) - 1);
	uint64_t key = (uint64_t)m->id << PAGE_NUMBER_BITS | number;
	uint64_t global = (uint64_t)m->global_id << PAGE_NUMBER_BITS | number;
	bool write_protect = v->cr0 & CR0_WP, writable;

	/* It crosses the page's end, or is no address at all. */
	if ((write ? t->wtag : t->rtag) == tag || (uint64_t)((int64_t)(linear << 16) >> 16) != linear)
		return false;
	for (way = 0; way < TLB2_WAYS; way++)
		if (s->key[way] == key || s->key[way] == global)
			break;
	if (way == TLB2_WAYS || !(v->cr0 & CR0_PG))
		return false;
	page = s->page[way];
	if (view == TLB_USER ? !(page & XL_USER) : view == TLB_KERNEL && page & XL_USER && v->cr4 & CR4_SMAP)
		return false;
	writable = page & XL_DIRTY && !(page & XL_READONLY) &&
		   (page & XL_WRITE || (view != TLB_USER && !write_protect));
	if (write && !writable)
		return false;
	if (unlikely(v->lockstep != NULL) && writable) {
		if (write)
			lockstep_page(v, page & ~PAGE_MASK, s->host[way]);
		writable = lockstep_open(v, t, page);
		if (write && !writable)
			return false;
	}
	t->rtag = tag;
	t->wtag = writable ? tag : none;
	t->addend = (uintptr_t)s->host[way] - tag;
	t->gpa = (page & ~PAGE_MASK) | (page & XL_GLOBAL);
	m->view_used[view] = true;
	if (!(page & XL_GLOBAL))
		local_add(m, view, index);
	return true;
}

bool tlb_refill_read(struct soft_vcpu *v, uint64_t linear, unsigned view)
{
	return refill(v, linear, view, false);
}

bool tlb_refill_write(struct soft_vcpu *v, uint64_t linear, unsigned view)
{
	return refill(v, linear, view, true);
}

uint8_t *mmu_fetch(struct soft_vcpu *v, uint64_t linear, uint64_t *gpa, uint32_t *rights)
{
	struct mmu_xlat x;

	mmu_translate(v, linear, ACC_FETCH, v->cpl == 3 ? PRIV_USER : PRIV_KERNEL, &x);
	*gpa = x.gpa;
	*rights = x.rights;
	return x.host;
}

uint8_t *mmu_fetch_ptr(struct soft_vcpu *v, uint64_t linear, uint64_t *gpa)
{
	uint32_t rights;

	return mmu_fetch(v, linear, gpa, &rights);
}

bool mmu_peek(struct soft_vcpu *v, uint64_t linear, uint64_t *gpa)
{
	return mmu_walk_peek(v, linear, gpa);
}

/* ---- Flushing ------------------------------------------------------------ */

/* Only what was filled since the last time can be other than global. */
static bool wipe_local(struct mmu_state *m, struct tlb_entry *t, unsigned view)
{
	unsigned n = m->locals[view];

	m->locals[view] = 0;
	if (n > TLB_LOCAL)
		return false;
	while (n--) {
		unsigned i = m->local[view][n];

		if (!(t[i].gpa & XL_GLOBAL))
			t[i].rtag = t[i].wtag = tlb_none(i);
	}
	return true;
}

static void tlb1_wipe(struct soft_vcpu *v, bool keep_global)
{
	struct mmu_state *m = v->mmu;

	if (unlikely(v->lockstep != NULL))
		v->lockstep->flushed = true;
	for (unsigned view = 0; view < TLB_SLOW; view++) {
		struct tlb_entry *t = v->tlb[view];
		bool kept = false;

		if (!m->view_used[view] || (keep_global && wipe_local(m, t, view)))
			continue;
		m->locals[view] = 0;
		for (unsigned i = 0; i < TLB_SIZE; i++) {
			bool keep = keep_global && t[i].gpa & XL_GLOBAL;

			t[i].rtag |= keep ? 0 : TLB_NONE;
			t[i].wtag |= keep ? 0 : TLB_NONE;
			kept |= keep;
		}
		if (t[TLB_SIZE - 1].rtag == TLB_NONE)
			t[TLB_SIZE - 1].rtag = TLB_NONE_LAST;
		if (t[TLB_SIZE - 1].wtag == TLB_NONE)
			t[TLB_SIZE - 1].wtag = TLB_NONE_LAST;
		m->view_used[view] = kept;
	}
}

static uint32_t id_new(struct soft_vcpu *v)
{
	struct mmu_state *m = v->mmu;

	if (m->id_next >> TLB_ID_BITS) {
		memset(m->set, 0, sizeof(m->set));
		memset(m->pcid_id, 0, sizeof(m->pcid_id));
		block_jump_clear(v);
		if (v->native)
			native_id_flushed(v, 0);
		m->id_next = 1;
		m->global_id = m->id_next++;
	}
	return m->id_next++;
}

static unsigned pcid_now(const struct soft_vcpu *v)
{
	return v->cr4 & CR4_PCIDE ? v->cr3 & 0xfff : 0;
}

/* The current PCID starts afresh. */
static void id_renew(struct soft_vcpu *v)
{
	struct mmu_state *m = v->mmu;

	m->id = id_new(v);
	m->pcid_id[pcid_now(v)] = m->id;
}

void mmu_flush_all(struct soft_vcpu *v)
{
	struct mmu_state *m = v->mmu;

	memset(m->pcid_id, 0, sizeof(m->pcid_id));
	memset(m->large4m, 0, sizeof(m->large4m));
	memset(m->large1g, 0, sizeof(m->large1g));
	m->global_id = id_new(v);
	id_renew(v);
	tlb1_wipe(v, false);
}

void mmu_flush_nonglobal(struct soft_vcpu *v)
{
	id_renew(v);
	tlb1_wipe(v, true);
}

static bool large_set(const uint64_t *bits, unsigned bit)
{
	return bits[bit / 64] >> bit % 64 & 1;
}

/* log2 of the largest region around `linear` that may have pages cut from a large one; 12: none. */
static unsigned region_shift(const struct mmu_state *m, uint64_t linear)
{
	if (large_set(m->large1g, large_bit(linear, 30)))
		return 30;
	return large_set(m->large4m, large_bit(linear, 22)) ? 22 : 12;
}

/* All pages of the region, of the current PCID and global ones. */
static void tlb_drop_region(struct soft_vcpu *v, uint64_t linear, unsigned shift)
{
	struct mmu_state *m = v->mmu;
	uint64_t first = tlb2_key(m->id, linear) >> (shift - 12), global = tlb2_key(m->global_id, linear) >> (shift - 12);

	for (unsigned view = 0; view < TLB_SLOW; view++) {
		struct tlb_entry *t = v->tlb[view];

		for (unsigned i = 0; i < TLB_SIZE && m->view_used[view]; i++)
			if (t[i].rtag >> shift == linear >> shift)
				t[i].rtag = t[i].wtag = tlb_none(i);
	}
	for (unsigned i = 0; i < TLB2_SETS; i++) {
		uint64_t *key = m->set[i].key;

		for (unsigned way = 0; way < TLB2_WAYS; way++)
			if (key[way] >> (shift - 12) == first || key[way] >> (shift - 12) == global)
				key[way] = 0;
	}
	if (v->native)
		native_id_flushed(v, m->id);
}

/* INVLPG drops a large page as a whole, whichever address in it is named (§4.10.4.1). */
void mmu_flush_page(struct soft_vcpu *v, uint64_t linear)
{
	unsigned shift = region_shift(v->mmu, linear);

	if (unlikely(v->lockstep != NULL))
		v->lockstep->flushed = true;
	linear &= ~PAGE_MASK;
	if (shift == 12)
		tlb_drop(v, linear);
	else
		tlb_drop_region(v, linear, shift);
	block_flush_linear(v, linear);
}

/* SDM vol. 2, INVPCID */
void mmu_invpcid(struct soft_vcpu *v, unsigned type, uint64_t pcid, uint64_t linear)
{
	struct mmu_state *m = v->mmu;
	bool current = (pcid & 0xfff) == pcid_now(v);

	switch (type) {
	case 0:
		if (current) {
			mmu_flush_page(v, linear);
		} else if (m->pcid_id[pcid & 0xfff]) {
			/* Its pieces of large pages are not told apart: all of the PCID goes. */
			if (region_shift(m, linear) > 12)
				m->pcid_id[pcid & 0xfff] = 0;
			else
				tlb2_drop(m, m->pcid_id[pcid & 0xfff], linear);
			if (v->native && m->pcid_id[pcid & 0xfff])
				native_page_flushed(v, m->pcid_id[pcid & 0xfff], linear);
			/* The jump cache holds blocks of that PCID under its id too. */
			block_flush_linear(v, linear & ~PAGE_MASK);
		}
		break;
	case 1:
		if (current)
			mmu_flush_nonglobal(v);
		else
			m->pcid_id[pcid & 0xfff] = 0;
		break;
	case 2:
		mmu_flush_all(v);
		break;
	case 3:
		memset(m->pcid_id, 0, sizeof(m->pcid_id));
		mmu_flush_nonglobal(v);
		break;
	}
}

void mmu_set_cr3(struct soft_vcpu *v, uint64_t value)
{
	struct mmu_state *m = v->mmu;
	bool keep = v->cr4 & CR4_PCIDE && value >> 63;
	uint32_t id;

	if (v->cr4 & CR4_PCIDE)
		value &= ~(1ull << 63);
	if (v->efer & EFER_LMA && value >> SOFT_MAXPHYADDR)
		soft_raise(v, EXC_GP, 0);
	if (mmu_is_pae(v)) {
		if (!mmu_load_pdptes(v, value, m->pdpte))
			soft_raise(v, EXC_GP, 0);
		m->pdpte_valid = true;
	}
	v->cr3 = value;
	if (!keep) {
		mmu_flush_nonglobal(v);
		return;
	}
	id = m->pcid_id[pcid_now(v)];
	if (!id) {
		id_renew(v);
		tlb1_wipe(v, true);
	} else if (id != m->id) {
		m->id = id;
		tlb1_wipe(v, true);
	}
}

void mmu_mode_changed(struct soft_vcpu *v)
{
	struct mmu_state *m = v->mmu;
	uint64_t d0 = v->cr0 ^ m->cr0, d4 = v->cr4 ^ m->cr4, de = v->efer ^ m->efer;

	/* §4.4.1: PAE paging going on, or MOV to CR0/CR4 that changes one of these while it is. */
	if (mmu_is_pae(v) && (d0 & (CR0_PG | CR0_CD | CR0_NW) || d4 & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP))) {
		if (!mmu_load_pdptes(v, v->cr3, m->pdpte)) {
			v->cr0 = m->cr0;
			v->cr4 = m->cr4;
			v->efer = m->efer;
			soft_raise(v, EXC_GP, 0);
		}
		m->pdpte_valid = true;
	}
	m->cr0 = v->cr0;
	m->cr4 = v->cr4;
	m->efer = v->efer;
	if (d0 & CR0_PG || d4 & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_PCIDE | CR4_SMEP) || de & (EFER_NXE | EFER_LMA))
		mmu_flush_all(v);
	else if (d0 & CR0_WP || d4 & CR4_SMAP)
		tlb1_wipe(v, false);
}

void mmu_state_loaded(struct soft_vcpu *v)
{
	struct mmu_state *m = v->mmu;

	m->cr0 = v->cr0;
	m->cr4 = v->cr4;
	m->efer = v->efer;
	m->pdpte_valid = false;
	mmu_flush_all(v);
}

/* Mapped, not allocated: most of it stays untouched in a small guest. */
int mmu_vcpu_init(struct soft_vcpu *v)
{
	void *p = mmap(NULL, sizeof(struct mmu_state), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return -ENOMEM;
	v->mmu = p;
	v->mmu->id_next = 1;
	for (unsigned view = 0; view < TLB_VIEWS; view++) {
		for (unsigned i = 0; i < TLB_SIZE; i++)
			v->tlb[view][i].rtag = v->tlb[view][i].wtag = tlb_none(i);
		v->mmu->view_used[view] = false;
	}
	v->tlb_now = v->tlb[v->tlb_view];
	mmu_flush_all(v);
	return 0;
}

void mmu_vcpu_free(struct soft_vcpu *v)
{
	if (v->mmu)
		munmap(v->mmu, sizeof(struct mmu_state));
	v->mmu = NULL;
}
