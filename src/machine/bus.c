/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/bus.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

/*
 * Changes flatten all ranges, by priority, into a sorted array of pieces that
 * don't overlap. There are two arrays; a change fills the one that is not in
 * use and then raises `seq`, whose lowest bit names the one in use. A reader
 * that finds `seq` unchanged after its search has searched a settled array.
 */
#define BUS_RANGES 512
#define BUS_PIECES (2 * BUS_RANGES + 1)

struct piece {
	uint64_t first, last;
	uint64_t base; /* of the range, as it was then: its owner changes it only while the range is out */
	struct io_range *range;
};

struct bus {
	const char *name;
	_Atomic unsigned seq;
	unsigned n[2];
	struct piece pieces[2][BUS_PIECES];
	pthread_mutex_t lock; /* changes */
	struct io_range *ranges[BUS_RANGES];
	unsigned nranges;
};

struct bus *bus_new(const char *name)
{
	struct bus *bus = calloc(1, sizeof(*bus));

	if (bus) {
		bus->name = name;
		pthread_mutex_init(&bus->lock, NULL);
	}
	return bus;
}

void bus_free(struct bus *bus)
{
	if (bus)
		pthread_mutex_destroy(&bus->lock);
	free(bus);
}

static uint64_t range_last(const struct io_range *r)
{
	return r->base + r->size - 1;
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The range of highest priority that covers `addr`. */
static struct io_range *top_range(struct bus *bus, uint64_t addr)
{
	struct io_range *best = NULL;

	for (unsigned i = 0; i < bus->nranges; i++) {
		struct io_range *r = bus->ranges[i];

		if (addr >= r->base && addr <= range_last(r) && (!best || r->priority > best->priority))
			best = r;
	}
	return best;
}

static void flatten(struct bus *bus)
{
	unsigned seq = bus->seq, side = (seq + 1) & 1, n = 0, cuts = 0;
	uint64_t cut[2 * BUS_RANGES];
	struct piece *out = bus->pieces[side];

	for (unsigned i = 0; i < bus->nranges; i++) {
		cut[cuts++] = bus->ranges[i]->base;
		if (range_last(bus->ranges[i]) != UINT64_MAX)
			cut[cuts++] = range_last(bus->ranges[i]) + 1;
	}
	qsort(cut, cuts, sizeof(cut[0]), compare_u64);
	for (unsigned i = 0; i < cuts; i++) {
		uint64_t last = i + 1 < cuts ? cut[i + 1] - 1 : UINT64_MAX;
		struct io_range *r;

		if (last < cut[i])
			continue; /* two cuts in one place */
		r = top_range(bus, cut[i]);
		if (r && n && out[n - 1].range == r && out[n - 1].last + 1 == cut[i])
			out[n - 1].last = last;
		else if (r)
			out[n++] = (struct piece){ .first = cut[i], .last = last, .base = r->base, .range = r };
	}
	__atomic_store_n(&bus->n[side], n, __ATOMIC_RELAXED);
	atomic_store_explicit(&bus->seq, seq + 1, memory_order_release);
}

int bus_add(struct bus *bus, struct io_range *range, struct err *err)
{
	int ret = 0;

	assert(range->size && range_last(range) >= range->base);
	pthread_mutex_lock(&bus->lock);
	for (unsigned i = 0; i < bus->nranges && !ret; i++) {
		struct io_range *r = bus->ranges[i];

		assert(r != range);
		if (r->priority == range->priority && range->base <= range_last(r) && r->base <= range_last(range))
			ret = err_set(err, EEXIST, "%s: %s at 0x%llx overlaps %s at 0x%llx", bus->name, range->name,
				      (unsigned long long)range->base, r->name, (unsigned long long)r->base);
	}
	if (!ret && bus->nranges == BUS_RANGES)
		ret = err_set(err, ENOSPC, "%s: no room for %s, all %d ranges are in use", bus->name, range->name,
			      BUS_RANGES);
	if (!ret) {
		bus->ranges[bus->nranges++] = range;
		flatten(bus);
	}
	pthread_mutex_unlock(&bus->lock);
	return ret;
}

void bus_del(struct bus *bus, struct io_range *range)
{
	pthread_mutex_lock(&bus->lock);
	for (unsigned i = 0; i < bus->nranges; i++) {
		if (bus->ranges[i] == range) {
			bus->ranges[i] = bus->ranges[--bus->nranges];
			flatten(bus);
			break;
		}
	}
	pthread_mutex_unlock(&bus->lock);
}

/* The piece that holds `addr`: its range, last address and the range's base, or NULL. */
static struct io_range *lookup(struct bus *bus, uint64_t addr, uint64_t *last, uint64_t *base)
{
	for (;;) {
		unsigned seq = atomic_load_explicit(&bus->seq, memory_order_acquire);
		const struct piece *p = bus->pieces[seq & 1];
		struct io_range *found = NULL;
		unsigned lo = 0, hi = __atomic_load_n(&bus->n[seq & 1], __ATOMIC_RELAXED);

		while (lo < hi) {
			unsigned mid = lo + (hi - lo) / 2;

			if (__atomic_load_n(&p[mid].last, __ATOMIC_RELAXED) < addr)
				lo = mid + 1;
			else
				hi = mid;
		}
		if (lo < BUS_PIECES && lo < __atomic_load_n(&bus->n[seq & 1], __ATOMIC_RELAXED) &&
		    __atomic_load_n(&p[lo].first, __ATOMIC_RELAXED) <= addr) {
			found = __atomic_load_n(&p[lo].range, __ATOMIC_RELAXED);
			*last = __atomic_load_n(&p[lo].last, __ATOMIC_RELAXED);
			*base = __atomic_load_n(&p[lo].base, __ATOMIC_RELAXED);
		}
		atomic_thread_fence(memory_order_acquire);
		if (atomic_load_explicit(&bus->seq, memory_order_relaxed) == seq)
			return found;
	}
}

static uint64_t ones(unsigned size)
{
	return size == 8 ? UINT64_MAX : (1ull << (8 * size)) - 1;
}

static unsigned op_min(const struct io_range *r)
{
	return r->ops->min ? r->ops->min : 1;
}

static unsigned op_max(const struct io_range *r)
{
	return r->ops->max ? r->ops->max : 8;
}

static uint64_t range_read(struct io_range *r, uint64_t off, unsigned size)
{
	uint64_t value;
	unsigned min = op_min(r);

	if (!r->ops->read)
		return ones(size);
	if (r->lock)
		pthread_mutex_lock(r->lock);
	if (size < min)
		value = r->ops->read(r->opaque, off & ~(uint64_t)(min - 1), min) >> (8 * (off & (min - 1)));
	else
		value = r->ops->read(r->opaque, off, size);
	if (r->lock)
		pthread_mutex_unlock(r->lock);
	return value & ones(size);
}

static void range_write(struct io_range *r, uint64_t off, uint64_t value, unsigned size)
{
	if (!r->ops->write || size < op_min(r))
		return;
	if (r->lock)
		pthread_mutex_lock(r->lock);
	r->ops->write(r->opaque, off, value & ones(size), size);
	if (r->lock)
		pthread_mutex_unlock(r->lock);
}

/* The largest power of two of bytes, at most `left`, that the device takes and its piece holds from `addr` on. */
static unsigned step_size(const struct io_range *r, uint64_t addr, uint64_t last, unsigned left)
{
	unsigned step = 1;

	while (step * 2 <= left && step * 2 <= op_max(r) && step * 2 - 1 <= last - addr)
		step *= 2;
	return step;
}

uint64_t bus_read(struct bus *bus, uint64_t addr, unsigned size)
{
	uint64_t value = 0, last = UINT64_MAX, base = 0;
	unsigned done = 0;

	while (done < size) {
		struct io_range *r = lookup(bus, addr + done, &last, &base);
		unsigned step = r ? step_size(r, addr + done, last, size - done) : 1;
		uint64_t part = r ? range_read(r, addr + done - base, step) : 0xff;

		value |= part << (8 * done);
		done += step;
	}
	return value;
}

void bus_write(struct bus *bus, uint64_t addr, uint64_t value, unsigned size)
{
	uint64_t last = UINT64_MAX, base = 0;
	unsigned done = 0;

	while (done < size) {
		struct io_range *r = lookup(bus, addr + done, &last, &base);
		unsigned step = r ? step_size(r, addr + done, last, size - done) : 1;

		if (r)
			range_write(r, addr + done - base, value >> (8 * done), step);
		done += step;
	}
}
