/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Page-table walks in every paging mode (Intel SDM vol. 3 §4.3 to §4.7). */
#include "engine/soft/lockstep.h"

#define PTE_P 0x1ull
#define PTE_W 0x2ull
#define PTE_U 0x4ull
#define PTE_A 0x20ull
#define PTE_D 0x40ull
#define PTE_PS 0x80ull
#define PTE_G 0x100ull
#define PTE_NX (1ull << 63)

#define PHYS_MASK ((1ull << SOFT_MAXPHYADDR) - 1)
#define BITS(hi, lo) ((~0ull >> (63 - (hi))) & (~0ull << (lo)))

/* One table entry that the walk went through. */
struct step {
	void *host; /* NULL: not RAM */
	uint64_t gpa, value;
	bool readonly;
};

struct walk {
	struct step step[4];
	unsigned steps;
	unsigned entry_size;
	uint64_t page; /* 4 KiB page | XL_* */
};

enum walk_result { WALK_OK, WALK_NOT_PRESENT, WALK_RESERVED };

/* An entry outside RAM reads as the bus does, all ones: reserved bits. */
static uint64_t entry_load(struct soft_vcpu *v, struct walk *w, uint64_t gpa)
{
	struct step *s = &w->step[w->steps++];
	struct soft_slot *slot;

	s->gpa = gpa;
	s->host = soft_gpa_ptr(v->engine, gpa, &slot);
	if (!s->host) {
		s->value = UINT64_MAX;
	} else {
		s->readonly = slot->readonly;
		s->value = w->entry_size == 8 ? __atomic_load_n((uint64_t *)s->host, __ATOMIC_RELAXED)
					      : __atomic_load_n((uint32_t *)s->host, __ATOMIC_RELAXED);
	}
	return s->value;
}

/* 32-bit paging (§4.3): no reserved bits but in 4 MiB pages (PSE-36 sized by MAXPHYADDR). */
static enum walk_result walk_32(struct soft_vcpu *v, struct walk *w, uint64_t linear)
{
	uint64_t pde, pte, rights;

	w->entry_size = 4;
	pde = entry_load(v, w, (v->cr3 & 0xfffff000) | (linear >> 20 & 0xffc));
	if (!(pde & PTE_P))
		return WALK_NOT_PRESENT;
	if (!w->step[0].host)
		return WALK_RESERVED;
	if (pde & PTE_PS && v->cr4 & CR4_PSE) {
		if (pde & BITS(21, SOFT_MAXPHYADDR - 19))
			return WALK_RESERVED;
		w->page = (pde & 0xffc00000) | (pde & BITS(SOFT_MAXPHYADDR - 20, 13)) << 19 | (linear & 0x3ff000);
		rights = pde;
		w->page |= XL_2M | (pde & PTE_D ? XL_DIRTY : 0) | (pde & PTE_G && v->cr4 & CR4_PGE ? XL_GLOBAL : 0);
	} else {
		pte = entry_load(v, w, (pde & 0xfffff000) | (linear >> 10 & 0xffc));
		if (!(pte & PTE_P))
			return WALK_NOT_PRESENT;
		if (!w->step[1].host)
			return WALK_RESERVED;
		w->page = pte & 0xfffff000;
		rights = pde & pte;
		w->page |= (pte & PTE_D ? XL_DIRTY : 0) | (pte & PTE_G && v->cr4 & CR4_PGE ? XL_GLOBAL : 0);
	}
	w->page |= (rights & PTE_W ? XL_WRITE : 0) | (rights & PTE_U ? XL_USER : 0);
	return WALK_OK;
}

static enum walk_result walk_64(struct soft_vcpu *v, struct walk *w, uint64_t linear, bool pae)
{
	uint64_t reserved = BITS(pae ? 62 : 51, SOFT_MAXPHYADDR) | (v->efer & EFER_NXE ? 0 : PTE_NX);
	uint64_t rights = PTE_W | PTE_U, nx = 0, table, entry;
	struct mmu_state *m = v->mmu;
	int level;

	w->entry_size = 8;
	if (pae) {
		if (!m->pdpte_valid) {
			/* From a saved state, whose PDPTEs had been checked when the guest loaded them. */
			if (!mmu_load_pdptes(v, v->cr3, m->pdpte))
				memset(m->pdpte, 0, sizeof(m->pdpte));
			m->pdpte_valid = true;
		}
		entry = m->pdpte[linear >> 30 & 3];
		if (!(entry & PTE_P))
			return WALK_NOT_PRESENT;
		table = entry & PHYS_MASK & ~PAGE_MASK;
		level = 2;
	} else {
		table = v->cr3 & PHYS_MASK & ~PAGE_MASK;
		level = 4;
	}
	for (;; level--) {
		unsigned shift = 12 + 9 * (level - 1);

		entry = entry_load(v, w, table | (linear >> shift & 0x1ff) << 3);
		if (!(entry & PTE_P))
			return WALK_NOT_PRESENT;
		if (entry & reserved || (level == 4 && entry & PTE_PS))
			return WALK_RESERVED;
		rights &= entry;
		nx |= entry & PTE_NX;
		table = entry & PHYS_MASK & ~PAGE_MASK;
		if (level == 1)
			break;
		if (level < 4 && entry & PTE_PS) {
			if (entry & BITS(shift - 1, 13))
				return WALK_RESERVED;
			table = (entry & PHYS_MASK & ~((1ull << shift) - 1)) |
				(linear & ((1ull << shift) - 1) & ~PAGE_MASK);
			break;
		}
	}
	w->page = table | (rights & PTE_W ? XL_WRITE : 0) | (rights & PTE_U ? XL_USER : 0) | (nx ? XL_NX : 0) |
		  (entry & PTE_D ? XL_DIRTY : 0) | (entry & PTE_G && v->cr4 & CR4_PGE ? XL_GLOBAL : 0) |
		  (level == 2 ? XL_2M : level == 3 ? XL_1G : 0);
	return WALK_OK;
}

static enum walk_result walk(struct soft_vcpu *v, struct walk *w, uint64_t linear)
{
	w->steps = 0;
	if (!(v->cr0 & CR0_PG)) {
		w->page = ((uint32_t)linear & ~PAGE_MASK) | XL_WRITE | XL_USER | XL_DIRTY;
		return WALK_OK;
	}
	if (v->efer & EFER_LMA)
		return walk_64(v, w, linear, false);
	return v->cr4 & CR4_PAE ? walk_64(v, w, linear, true) : walk_32(v, w, linear);
}

/*
 * Set accessed in every entry and dirty in the last. The tables are shared
 * with other CPUs: compare-exchange against what the walk saw. False: an entry
 * has changed, walk again.
 */
static bool walk_mark(struct soft_vcpu *v, struct walk *w, bool dirty)
{
	for (unsigned i = 0; i < w->steps; i++) {
		struct step *s = &w->step[i];
		uint64_t value = s->value | PTE_A | (dirty && i == w->steps - 1 ? PTE_D : 0);
		uint64_t old = s->value;
		uint32_t old32 = old;
		bool done;

		if (value == old || s->readonly)
			continue;
		if (w->entry_size == 8)
			done = __atomic_compare_exchange_n((uint64_t *)s->host, &old, value, false, __ATOMIC_SEQ_CST,
							   __ATOMIC_RELAXED);
		else
			done = __atomic_compare_exchange_n((uint32_t *)s->host, &old32, (uint32_t)value, false,
							   __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
		if (!done)
			return false;
		mmu_written(v, s->gpa, w->entry_size);
		if (unlikely(v->lockstep != NULL))
			lockstep_walked(v, s->gpa);
	}
	if (dirty)
		w->page |= XL_DIRTY;
	return true;
}

/* §4.6.1 */
bool mmu_allowed(const struct soft_vcpu *v, unsigned rights, enum mmu_access acc, enum mmu_priv priv)
{
	if (!(v->cr0 & CR0_PG))
		return true;
	if (acc == ACC_FETCH && rights & XL_NX)
		return false;
	if (priv == PRIV_USER)
		return rights & XL_USER && (acc == ACC_READ || acc == ACC_FETCH || rights & XL_WRITE);
	if (rights & XL_USER) {
		if (acc == ACC_FETCH)
			return !(v->cr4 & CR4_SMEP);
		if (v->cr4 & CR4_SMAP && priv != PRIV_KERNEL_AC)
			return false;
	}
	return acc == ACC_READ || acc == ACC_FETCH || rights & XL_WRITE || !(v->cr0 & CR0_WP);
}

bool mmu_walk(struct soft_vcpu *v, uint64_t linear, enum mmu_access acc, enum mmu_priv priv, uint64_t *out,
	      uint32_t *error)
{
	bool write = acc == ACC_WRITE || acc == ACC_RMW;
	enum walk_result r;
	struct walk w;

	do {
		r = walk(v, &w, linear);
		if (r != WALK_OK || !mmu_allowed(v, w.page & PAGE_MASK, acc, priv)) {
			/* §4.7 */
			*error = (r != WALK_NOT_PRESENT ? PF_P : 0) | (r == WALK_RESERVED ? PF_RSVD : 0) |
				 (write ? PF_W : 0) | (priv == PRIV_USER ? PF_U : 0);
			if (acc == ACC_FETCH &&
			    (v->cr4 & CR4_SMEP || (v->cr4 & CR4_PAE && v->efer & EFER_NXE)))
				*error |= PF_ID;
			return false;
		}
	} while (!walk_mark(v, &w, write));
	*out = w.page;
	return true;
}

bool mmu_walk_peek(struct soft_vcpu *v, uint64_t linear, uint64_t *gpa)
{
	struct walk w;

	if (v->efer & EFER_LMA ? !canonical(linear) : linear > UINT32_MAX)
		return false;
	if (walk(v, &w, linear) != WALK_OK)
		return false;
	*gpa = (w.page & ~PAGE_MASK) | (linear & PAGE_MASK);
	return true;
}

void mmu_walk_window(struct soft_vcpu *v, uint64_t linear, uint64_t page[MMU_WINDOW])
{
	uint64_t first = linear & ~(uint64_t)(MMU_WINDOW * PAGE_BYTES - 1), rights = PTE_W | PTE_U, nx = 0, entry;
	uint64_t reserved = BITS(51, SOFT_MAXPHYADDR) | (v->efer & EFER_NXE ? 0 : PTE_NX);
	struct walk w;

	memset(page, 0, MMU_WINDOW * sizeof(*page));
	if (!(v->cr0 & CR0_PG) || !(v->efer & EFER_LMA) || !canonical(linear))
		return;
	walk(v, &w, linear);
	for (unsigned i = 0; i + 1 < w.steps; i++) {
		entry = w.step[i].value;
		if (!(entry & PTE_A))
			return;
		rights &= entry;
		nx |= entry & PTE_NX;
	}
	if (w.steps == 3 && w.step[2].host) {
		/* A page of 2 MiB, or nothing at all. */
		entry = w.step[2].value;
		if (!(entry & PTE_P) || !(entry & PTE_PS) || !(entry & PTE_A) || entry & (reserved | BITS(20, 13)))
			return;
	} else if (w.steps != 4 || !w.step[3].host) {
		return;
	}
	for (unsigned i = 0; i < MMU_WINDOW; i++) {
		uint64_t at = first + i * PAGE_BYTES, to, r;

		if (w.steps == 4) {
			const uint64_t *table = (const uint64_t *)((uintptr_t)w.step[3].host & ~(uintptr_t)PAGE_MASK);

			entry = __atomic_load_n(&table[at >> 12 & 0x1ff], __ATOMIC_RELAXED);
			if (!(entry & PTE_P) || !(entry & PTE_A) || entry & reserved)
				continue;
			to = entry & PHYS_MASK & ~PAGE_MASK;
		} else {
			to = (entry & PHYS_MASK & ~0x1fffffull) | (at & 0x1ff000);
		}
		r = rights & entry;
		page[i] = to | (r & PTE_W ? XL_WRITE : 0) | (r & PTE_U ? XL_USER : 0) | ((nx | entry) & PTE_NX ? XL_NX : 0) |
			  (entry & PTE_D ? XL_DIRTY : 0) | (entry & PTE_G && v->cr4 & CR4_PGE ? XL_GLOBAL : 0) |
			  (w.steps == 3 ? XL_2M : 0);
	}
}

/* §4.4.1 */
bool mmu_load_pdptes(struct soft_vcpu *v, uint64_t cr3, uint64_t pdpte[4])
{
	const uint8_t *host = soft_gpa_ptr(v->engine, cr3 & 0xffffffe0, NULL);
	uint64_t value[4];

	for (int i = 0; i < 4; i++) {
		value[i] = host ? __atomic_load_n((const uint64_t *)host + i, __ATOMIC_RELAXED) : UINT64_MAX;
		if (value[i] & PTE_P && value[i] & (BITS(63, SOFT_MAXPHYADDR) | BITS(8, 5) | BITS(2, 1)))
			return false;
	}
	memcpy(pdpte, value, sizeof(value));
	return true;
}
