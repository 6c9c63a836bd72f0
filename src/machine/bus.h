/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An address space of device registers: the ports or the memory-mapped side.
 *
 * Ranges belong to their devices and must stay valid until bus_del() has
 * returned and every vCPU has left the bus (machine_pause(), or the device's
 * lifetime). Dispatch takes no lock of the bus: readers follow a sequence
 * counter. Where `lock` is set the bus holds it around the callbacks: that is
 * the usual way for a device to serialize its registers.
 */
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/err.h"

struct io_ops {
	/* `offset` is relative to the range; size is min..max below. Either may be NULL: reads all ones, writes ignored. */
	uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
	void (*write)(void *opaque, uint64_t offset, uint64_t value, unsigned size);
	/*
	 * Access sizes the callbacks take (powers of two, 0 means 1 and 8). The
	 * bus splits larger accesses, low address first, and widens smaller
	 * ones: reads are cut from an aligned min-sized read, writes are dropped.
	 */
	uint8_t min, max;
};

struct io_range {
	const char *name;
	uint64_t base, size;
	const struct io_ops *ops;
	void *opaque;
	pthread_mutex_t *lock; /* or NULL */
	int priority;          /* where ranges overlap the higher wins; equal ones: -EEXIST */
};

struct bus;
struct bus *bus_new(const char *name);
void bus_free(struct bus *bus);

/* Add or remove a range. The caller owns the struct and must not change base or size while it is in. Any thread. -EEXIST, -ENOSPC. */
int bus_add(struct bus *bus, struct io_range *range, struct err *err);
void bus_del(struct bus *bus, struct io_range *range); /* no-op for a range that is not in */

/* Dispatch. size 1, 2, 4 or 8. Unclaimed addresses read all ones. Any thread. */
uint64_t bus_read(struct bus *bus, uint64_t addr, unsigned size);
void bus_write(struct bus *bus, uint64_t addr, uint64_t value, unsigned size);
