/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory slots and the dirty log.
 *
 * The log that callers see is a bitmap of ours for each slot. Writes by vCPUs
 * come into it from the kernel's dirty rings, one for each vCPU, or where the
 * kernel has none from its bitmap; writes by devices from kvm_written().
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

int kvm_memory_init(struct kvm_engine *e)
{
	pthread_rwlock_init(&e->slots_lock, NULL);
	pthread_mutex_init(&e->dirty_lock, NULL);
	return 0;
}

void kvm_memory_free(struct kvm_engine *e)
{
	for (unsigned i = 0; i < e->nslots; i++)
		free((void *)e->slots[i].dirty);
	free(e->slots);
	pthread_rwlock_destroy(&e->slots_lock);
	pthread_mutex_destroy(&e->dirty_lock);
}

static size_t bitmap_words(uint64_t size)
{
	return (size / KVM_PAGE + 63) / 64;
}

/* Tell the kernel what the slot is now. */
static int slot_commit(struct kvm_engine *e, const struct kvm_slot *slot, bool log)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot - e->slots,
		.flags = (slot->readonly ? KVM_MEM_READONLY : 0) | (log ? KVM_MEM_LOG_DIRTY_PAGES : 0),
		.guest_phys_addr = slot->gpa,
		.memory_size = slot->size,
		.userspace_addr = (uintptr_t)slot->hva,
	};

	return kvm_ioctl(e->vm, KVM_SET_USER_MEMORY_REGION, &region);
}

/* The slot that holds the page, or NULL. With slots_lock. */
static struct kvm_slot *slot_find(struct kvm_engine *e, uint64_t gpa)
{
	for (unsigned i = 0; i < e->nslots; i++)
		if (gpa - e->slots[i].gpa < e->slots[i].size)
			return &e->slots[i];
	return NULL;
}

static int slot_overlaps(struct kvm_engine *e, uint64_t gpa, uint64_t size)
{
	for (unsigned i = 0; i < e->nslots; i++)
		if (e->slots[i].size && gpa < e->slots[i].gpa + e->slots[i].size && e->slots[i].gpa < gpa + size)
			return 1;
	return 0;
}

static struct kvm_slot *slot_new(struct kvm_engine *e, struct err *err)
{
	struct kvm_slot *slots;

	for (unsigned i = 0; i < e->nslots; i++)
		if (!e->slots[i].size)
			return &e->slots[i];
	if (e->nslots >= e->caps.max_slots) {
		err_set(err, ENOSPC, "no memory slot is left: this host's KVM has %u", e->caps.max_slots);
		return NULL;
	}
	slots = reallocarray(e->slots, e->nslots + 1, sizeof(*slots));
	if (!slots) {
		err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	e->slots = slots;
	slots[e->nslots] = (struct kvm_slot){ 0 };
	return &slots[e->nslots++];
}

int kvm_map(struct engine *engine, uint64_t gpa, uint64_t size, void *hva, bool readonly, struct err *err)
{
	struct kvm_engine *e = kvm_engine(engine);
	struct kvm_slot *slot;
	int r;

	pthread_rwlock_wrlock(&e->slots_lock);
	if (gpa + size < gpa || slot_overlaps(e, gpa, size)) {
		r = err_set(err, EEXIST, "memory at 0x%llx: another slot lies there", (unsigned long long)gpa);
		goto out;
	}
	slot = slot_new(e, err);
	if (!slot) {
		r = err && err->code == ENOSPC ? -ENOSPC : -ENOMEM;
		goto out;
	}
	*slot = (struct kvm_slot){ .gpa = gpa, .size = size, .hva = hva, .readonly = readonly };
	if (e->logging) {
		slot->dirty = calloc(bitmap_words(size), sizeof(*slot->dirty));
		if (!slot->dirty) {
			slot->size = 0;
			r = err_set(err, ENOMEM, "out of memory");
			goto out;
		}
	}
	r = slot_commit(e, slot, e->logging && !readonly);
	if (r < 0) {
		free((void *)slot->dirty);
		*slot = (struct kvm_slot){ 0 };
		err_set_errno(err, -r, "KVM takes no memory at 0x%llx", (unsigned long long)gpa);
		goto out;
	}
	kvm_handover_map(e, gpa, size, hva, readonly, true);
out:
	pthread_rwlock_unlock(&e->slots_lock);
	return r;
}

int kvm_unmap(struct engine *engine, uint64_t gpa, uint64_t size, struct err *err)
{
	struct kvm_engine *e = kvm_engine(engine);
	struct kvm_slot *slot;
	int r = 0;

	pthread_rwlock_wrlock(&e->slots_lock);
	slot = slot_find(e, gpa);
	if (!slot || slot->gpa != gpa || slot->size != size) {
		r = err_set(err, ENOENT, "no memory slot lies at 0x%llx", (unsigned long long)gpa);
	} else {
		slot->size = 0;
		slot_commit(e, slot, false);
		free((void *)slot->dirty);
		*slot = (struct kvm_slot){ 0 };
		kvm_handover_map(e, gpa, size, NULL, false, false);
	}
	pthread_rwlock_unlock(&e->slots_lock);
	return r;
}

/* ---- Dirty log ----------------------------------------------------------- */

static void mark(struct kvm_slot *slot, uint64_t page)
{
	if (slot->dirty && page < slot->size / KVM_PAGE)
		atomic_fetch_or_explicit(&slot->dirty[page / 64], 1ull << (page % 64), memory_order_relaxed);
}

/* Each entry goes dirty -> reset by us -> free by KVM_RESET_DIRTY_RINGS (Linux, virt/kvm/api.rst §8.29). */
static unsigned ring_drain(struct kvm_engine *e, struct kvm_vcpu *v)
{
	unsigned n = 0;

	for (;; n++, v->ring_next++) {
		struct kvm_dirty_gfn *gfn = &v->ring[v->ring_next & (e->caps.ring_entries - 1)];

		if (!(__atomic_load_n(&gfn->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
			return n;
		if ((gfn->slot & 0xffff) < e->nslots)
			mark(&e->slots[gfn->slot & 0xffff], gfn->offset);
		__atomic_store_n(&gfn->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
	}
}

/* With slots_lock, shared. */
static void rings_drain(struct kvm_engine *e)
{
	unsigned n = 0;

	pthread_mutex_lock(&e->dirty_lock);
	for (unsigned i = 0; i < e->engine.config.cpus; i++) {
		struct kvm_vcpu *v = e->vcpus[i];

		if (v && v->ring)
			n += ring_drain(e, v);
	}
	if (n)
		kvm_ioctl(e->vm, KVM_RESET_DIRTY_RINGS, NULL);
	pthread_mutex_unlock(&e->dirty_lock);
}

void kvm_dirty_harvest(struct kvm_engine *e)
{
	pthread_rwlock_rdlock(&e->slots_lock);
	rings_drain(e);
	pthread_rwlock_unlock(&e->slots_lock);
}

/* Take the kernel's bitmap of a slot, which clears it there. */
static int bitmap_drain(struct kvm_engine *e, struct kvm_slot *slot, struct err *err)
{
	size_t words = bitmap_words(slot->size);
	uint64_t *bits;
	int r;

	if (slot->readonly)
		return 0;
	bits = calloc(words, sizeof(*bits));
	if (!bits)
		return err_set(err, ENOMEM, "out of memory");
	r = kvm_ioctl(e->vm, KVM_GET_DIRTY_LOG,
		      &(struct kvm_dirty_log){ .slot = slot - e->slots, .dirty_bitmap = bits });
	if (r < 0)
		err_set_errno(err, -r, "KVM gives no dirty log");
	else
		for (size_t i = 0; i < words; i++)
			if (bits[i])
				atomic_fetch_or_explicit(&slot->dirty[i], bits[i], memory_order_relaxed);
	free(bits);
	return r;
}

static int log_set(struct kvm_engine *e, bool on, struct err *err)
{
	for (unsigned i = 0; i < e->nslots; i++) {
		struct kvm_slot *slot = &e->slots[i];
		int r;

		if (!slot->size)
			continue;
		free((void *)slot->dirty);
		slot->dirty = on ? calloc(bitmap_words(slot->size), sizeof(*slot->dirty)) : NULL;
		if (on && !slot->dirty)
			return err_set(err, ENOMEM, "out of memory");
		if (slot->readonly)
			continue;
		r = slot_commit(e, slot, on);
		if (r < 0)
			return err_set_errno(err, -r, "KVM logs no writes to the memory at 0x%llx",
					     (unsigned long long)slot->gpa);
	}
	return 0;
}

int kvm_dirty_start(struct engine *engine, struct err *err)
{
	struct kvm_engine *e = kvm_engine(engine);
	struct engine *soft;
	int r = 0;

	pthread_rwlock_wrlock(&e->slots_lock);
	if (!e->logging) {
		rings_drain(e); /* nothing of an earlier log may show up */
		r = log_set(e, true, err);
		if (r < 0)
			log_set(e, false, NULL);
		else
			e->logging = true;
		soft = e->soft;
		if (!r && soft)
			r = soft->ops->dirty_start(soft, err);
	}
	pthread_rwlock_unlock(&e->slots_lock);
	return r;
}

int kvm_dirty_stop(struct engine *engine, struct err *err)
{
	struct kvm_engine *e = kvm_engine(engine);
	struct engine *soft;
	int r = 0;

	pthread_rwlock_wrlock(&e->slots_lock);
	if (e->logging) {
		e->logging = false;
		r = log_set(e, false, err);
		rings_drain(e);
		soft = e->soft;
		if (soft)
			soft->ops->dirty_stop(soft, NULL);
	}
	pthread_rwlock_unlock(&e->slots_lock);
	return r;
}

/* Move bits [first, first + pages) of the slot's bitmap to `out`. */
static void take_bits(struct kvm_slot *slot, uint64_t first, uint64_t pages, uint8_t *out)
{
	memset(out, 0, bitmap_words(pages * KVM_PAGE) * 8);
	for (uint64_t page = 0; page < pages;) {
		uint64_t at = first + page;
		unsigned shift = at % 64;
		uint64_t n = 64 - shift < pages - page ? 64 - shift : pages - page;
		uint64_t mask = (n == 64 ? ~0ull : (1ull << n) - 1) << shift;
		uint64_t bits = 0;

		if (atomic_load_explicit(&slot->dirty[at / 64], memory_order_relaxed) & mask)
			bits = atomic_fetch_and_explicit(&slot->dirty[at / 64], ~mask, memory_order_relaxed) & mask;
		bits >>= shift;
		for (uint64_t b = 0; bits; b++, bits >>= 1)
			if (bits & 1)
				out[(page + b) / 8] |= 1u << ((page + b) % 8);
		page += n;
	}
}

/* What instructions that were handed over wrote. */
static int merge_soft(struct engine *soft, uint64_t gpa, uint64_t size, uint8_t *bitmap, struct err *err)
{
	size_t bytes = bitmap_words(size) * 8;
	uint8_t *more = malloc(bytes);
	int r;

	if (!more)
		return err_set(err, ENOMEM, "out of memory");
	r = soft->ops->dirty_fetch(soft, gpa, size, more, err);
	for (size_t i = 0; !r && i < bytes; i++)
		bitmap[i] |= more[i];
	free(more);
	return r;
}

int kvm_dirty_fetch(struct engine *engine, uint64_t gpa, uint64_t size, uint8_t *bitmap, struct err *err)
{
	struct kvm_engine *e = kvm_engine(engine);
	struct kvm_slot *slot;
	struct engine *soft;
	int r = 0;

	pthread_rwlock_rdlock(&e->slots_lock);
	slot = slot_find(e, gpa);
	if (!slot || !slot->dirty || size > slot->size - (gpa - slot->gpa)) {
		r = err_set(err, ENOENT, "no dirty log runs for the memory at 0x%llx", (unsigned long long)gpa);
		goto out;
	}
	if (e->caps.ring_entries)
		rings_drain(e);
	else
		r = bitmap_drain(e, slot, err);
	if (r < 0)
		goto out;
	take_bits(slot, (gpa - slot->gpa) / KVM_PAGE, size / KVM_PAGE, bitmap);
	soft = e->soft;
	if (soft)
		r = merge_soft(soft, gpa, size, bitmap, err);
out:
	pthread_rwlock_unlock(&e->slots_lock);
	return r;
}

void kvm_written(struct engine *engine, uint64_t gpa, uint64_t len)
{
	struct kvm_engine *e = kvm_engine(engine);
	uint64_t last = gpa + len - 1;

	if (!e->logging || last < gpa)
		return;
	pthread_rwlock_rdlock(&e->slots_lock);
	for (uint64_t page = gpa & ~(uint64_t)(KVM_PAGE - 1); page <= last; page += KVM_PAGE) {
		struct kvm_slot *slot = slot_find(e, page);

		if (slot)
			mark(slot, (page - slot->gpa) / KVM_PAGE);
		if (page > UINT64_MAX - KVM_PAGE)
			break;
	}
	pthread_rwlock_unlock(&e->slots_lock);
}
