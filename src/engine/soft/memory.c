/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory slots and the dirty log. */
#include <errno.h>
#include <inttypes.h>
#include <linux/membarrier.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/soft/core.h"

#define FLAGS_BYTES (1ull << (SOFT_PHYS_BITS - 12))

/* ---- Finding ------------------------------------------------------------- */

/* Slots are sorted by address. */
static unsigned slot_after(const struct soft_engine *e, uint64_t gpa)
{
	unsigned lo = 0, hi = e->nslots;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (e->slots[mid].gpa <= gpa)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct soft_slot *soft_slot_find(struct soft_engine *e, uint64_t gpa)
{
	unsigned n = slot_after(e, gpa);
	struct soft_slot *s;

	if (!n)
		return NULL;
	s = &e->slots[n - 1];
	return gpa - s->gpa < s->size ? s : NULL;
}

void memory_barrier_all(void)
{
	syscall(__NR_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}

/* ---- Changing ------------------------------------------------------------ */

/* The world stands still between these two, but for threads that are no vCPUs. */
static void change_begin(struct soft_engine *e)
{
	pthread_mutex_lock(&e->slots_lock);
	soft_stop_others(e, soft_current && soft_current->engine == e ? soft_current : NULL);
}

static void change_end(struct soft_engine *e)
{
	for (unsigned i = 0; i < ENGINE_MAX_CPUS; i++)
		if (e->vcpus[i])
			soft_request(e->vcpus[i], REQ_TLB_FLUSH);
	soft_resume_others(e, soft_current && soft_current->engine == e ? soft_current : NULL);
	pthread_mutex_unlock(&e->slots_lock);
}

static void flags_or(struct soft_engine *e, const struct soft_slot *s, uint8_t bits)
{
	for (uint64_t p = s->gpa >> 12; p < (s->gpa + s->size) >> 12; p++)
		__atomic_fetch_or(&e->page_flags[p], bits, __ATOMIC_RELAXED);
}

static void flags_and(struct soft_engine *e, const struct soft_slot *s, uint8_t bits)
{
	for (uint64_t p = s->gpa >> 12; p < (s->gpa + s->size) >> 12; p++)
		if (__atomic_load_n(&e->page_flags[p], __ATOMIC_RELAXED) & ~bits)
			__atomic_fetch_and(&e->page_flags[p], bits, __ATOMIC_RELAXED);
}

static int slot_log_start(struct soft_engine *e, struct soft_slot *s, struct err *err)
{
	s->dirty = calloc(s->size >> 12, 1);
	if (!s->dirty)
		return err_set(err, ENOMEM, "no memory for the dirty log of %" PRIu64 " MiB at 0x%" PRIx64, s->size >> 20,
			       s->gpa);
	if (!s->readonly)
		flags_or(e, s, PAGE_LOG_DIRTY);
	return 0;
}

static void slot_log_stop(struct soft_engine *e, struct soft_slot *s)
{
	if (!s->dirty)
		return;
	flags_and(e, s, (uint8_t)~PAGE_LOG_DIRTY);
	free((void *)s->dirty);
	s->dirty = NULL;
}

static bool log_runs(const struct soft_engine *e)
{
	return e->nslots && e->slots[0].dirty;
}

int memory_map(struct engine *engine, uint64_t gpa, uint64_t size, void *hva, bool readonly, struct err *err)
{
	struct soft_engine *e = soft_engine(engine);
	struct soft_slot s = {.gpa = gpa, .size = size, .hva = hva, .readonly = readonly, .fd = -1};
	unsigned at;
	int ret = 0;

	if (gpa >> SOFT_PHYS_BITS || size > (1ull << SOFT_PHYS_BITS) - gpa)
		return err_set(err, EINVAL, "memory of 0x%" PRIx64 " bytes at 0x%" PRIx64 " is beyond the %u physical "
			       "address bits of engine soft", size, gpa, SOFT_PHYS_BITS);
	change_begin(e);
	at = slot_after(e, gpa);
	if ((at && e->slots[at - 1].gpa + e->slots[at - 1].size > gpa) ||
	    (at < e->nslots && e->slots[at].gpa < gpa + size))
		ret = err_set(err, EEXIST, "memory at 0x%" PRIx64 " overlaps a slot that is mapped already", gpa);
	else if (e->nslots == SOFT_MAX_SLOTS)
		ret = err_set(err, ENOSPC, "engine soft takes at most %u memory slots", SOFT_MAX_SLOTS);
	else if (log_runs(e))
		ret = slot_log_start(e, &s, err);
	if (!ret) {
		memmove(&e->slots[at + 1], &e->slots[at], (e->nslots - at) * sizeof(s));
		e->slots[at] = s;
		e->nslots++;
	}
	change_end(e);
	return ret;
}

int memory_map_file(struct engine *engine, uint64_t gpa, int fd, uint64_t offset, struct err *err)
{
	struct soft_engine *e = soft_engine(engine);
	struct soft_slot *s;
	int ret = 0;

	change_begin(e);
	s = soft_slot_find(e, gpa);
	if (!s || s->gpa != gpa) {
		ret = err_set(err, ENOENT, "no memory slot at 0x%" PRIx64, gpa);
	} else {
		s->fd = fd;
		s->file_offset = offset;
		native_slots_changed(e);
	}
	change_end(e);
	return ret;
}

int memory_unmap(struct engine *engine, uint64_t gpa, uint64_t size, struct err *err)
{
	struct soft_engine *e = soft_engine(engine);
	struct soft_slot *s;
	int ret = 0;

	change_begin(e);
	s = soft_slot_find(e, gpa);
	if (!s || s->gpa != gpa || s->size != size) {
		ret = err_set(err, ENOENT, "no memory slot of 0x%" PRIx64 " bytes at 0x%" PRIx64, size, gpa);
	} else {
		slot_log_stop(e, s);
		native_slots_changed(e);
		block_written(e, gpa, size);
		e->nslots--;
		memmove(s, s + 1, (uint8_t *)&e->slots[e->nslots] - (uint8_t *)s);
	}
	change_end(e);
	return ret;
}

/* ---- Dirty log ----------------------------------------------------------- */

int memory_dirty_start(struct engine *engine, struct err *err)
{
	struct soft_engine *e = soft_engine(engine);
	int ret = 0;

	change_begin(e);
	for (unsigned i = 0; i < e->nslots && !ret; i++)
		if (!e->slots[i].dirty)
			ret = slot_log_start(e, &e->slots[i], err);
	if (ret)
		for (unsigned i = 0; i < e->nslots; i++)
			slot_log_stop(e, &e->slots[i]);
	/* Threads that are no vCPUs write, too. */
	memory_barrier_all();
	change_end(e);
	return ret;
}

int memory_dirty_stop(struct engine *engine, struct err *err)
{
	struct soft_engine *e = soft_engine(engine);

	change_begin(e);
	for (unsigned i = 0; i < e->nslots; i++)
		slot_log_stop(e, &e->slots[i]);
	change_end(e);
	return 0;
}

/*
 * The flag goes first and the record after it. If a fetch comes in between, the
 * page counts as clean in this round and as dirty in the next, and stores that
 * found the flag gone are in that record.
 */
void memory_mark_dirty(struct soft_engine *e, uint64_t gpa)
{
	struct soft_slot *s = soft_slot_find(e, gpa);

	__atomic_fetch_and(&e->page_flags[gpa >> 12], (uint8_t)~PAGE_LOG_DIRTY, __ATOMIC_SEQ_CST);
	if (s && s->dirty)
		atomic_store(&s->dirty[(gpa - s->gpa) >> 12], 1);
}

int memory_dirty_fetch(struct engine *engine, uint64_t gpa, uint64_t size, uint8_t *bitmap, struct err *err)
{
	struct soft_engine *e = soft_engine(engine);
	uint64_t pages = size >> 12;
	struct soft_slot *s;
	int ret = 0;

	bool native = e->native;

	/* Native code that may write must lose that right together with the page's flag. */
	if (native)
		change_begin(e);
	else
		pthread_mutex_lock(&e->slots_lock);
	s = soft_slot_find(e, gpa);
	if (!s || gpa - s->gpa + size > s->size || !s->dirty) {
		ret = err_set(err, ENOENT, "no dirty log of 0x%" PRIx64 " bytes at 0x%" PRIx64, size, gpa);
	} else {
		memset(bitmap, 0, (pages + 63) / 64 * 8);
		for (uint64_t p = 0; p < pages; p++) {
			_Atomic uint8_t *dirty = &s->dirty[((gpa - s->gpa) >> 12) + p];

			if (!atomic_load_explicit(dirty, memory_order_relaxed) || !atomic_exchange(dirty, 0))
				continue;
			bitmap[p / 8] |= 1u << p % 8;
			__atomic_fetch_or(&e->page_flags[(gpa >> 12) + p], PAGE_LOG_DIRTY, __ATOMIC_SEQ_CST);
		}
		/* Stores that saw no flag are in memory now: whoever copies the pages gets them. */
		memory_barrier_all();
	}
	if (native)
		change_end(e);
	else
		pthread_mutex_unlock(&e->slots_lock);
	return ret;
}

/* Any thread, so nothing may be looked at without a lock but the flags. */
void memory_written(struct engine *engine, uint64_t gpa, uint64_t len)
{
	struct soft_engine *e = soft_engine(engine);
	uint64_t end;
	bool code = false, log = false;

	if (gpa >> SOFT_PHYS_BITS)
		return;
	end = len > (1ull << SOFT_PHYS_BITS) - gpa ? 1ull << SOFT_PHYS_BITS : gpa + len;
	for (uint64_t p = gpa >> 12; p <= (end - 1) >> 12; p++) {
		uint8_t flags = __atomic_load_n(&e->page_flags[p], __ATOMIC_RELAXED);

		code |= flags & (PAGE_HAS_CODE | PAGE_NATIVE_CODE);
		log |= flags & PAGE_LOG_DIRTY;
	}
	if (code)
		block_written(e, gpa, end - gpa);
	if (!log)
		return;
	pthread_mutex_lock(&e->slots_lock);
	for (uint64_t p = gpa >> 12; p <= (end - 1) >> 12; p++)
		if (__atomic_load_n(&e->page_flags[p], __ATOMIC_RELAXED) & PAGE_LOG_DIRTY)
			memory_mark_dirty(e, p << 12);
	pthread_mutex_unlock(&e->slots_lock);
}

/* ---- Making and freeing -------------------------------------------------- */

int memory_engine_init(struct soft_engine *e, struct err *err)
{
	if (syscall(__NR_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) < 0)
		return err_set_errno(err, errno, "engine soft needs the membarrier system call (Linux 4.14)");
	e->page_flags = mmap(NULL, FLAGS_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (e->page_flags == MAP_FAILED) {
		e->page_flags = NULL;
		return err_set_errno(err, errno, "can't reserve %llu MiB of address space for page flags", FLAGS_BYTES >> 20);
	}
	pthread_mutex_init(&e->slots_lock, NULL);
	return 0;
}

void memory_engine_free(struct soft_engine *e)
{
	if (!e->page_flags)
		return;
	for (unsigned i = 0; i < e->nslots; i++)
		free((void *)e->slots[i].dirty);
	munmap(e->page_flags, FLAGS_BYTES);
	pthread_mutex_destroy(&e->slots_lock);
	e->page_flags = NULL;
}
