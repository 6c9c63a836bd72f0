/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest RAM as devices and loaders see it: physical addresses to bytes.
 *
 * Devices reach only RAM through it (no device-to-device DMA). The functions
 * check every range; a guest's lie about an address is a NULL or -EFAULT here.
 * Thread safety: the layout is fixed before the vCPUs start; afterwards every
 * function may be called from any thread. Bytes are shared with running vCPUs:
 * read a field that decides something once.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/err.h"

#define GUEST_MEM_REGIONS 8
struct guest_region {
	uint64_t gpa, size;
	uint8_t *hva;
	int fd;          /* memfd, or -1 */
	uint64_t offset; /* of the region in fd */
	bool readonly;   /* ROM: devices may not write either */
};

struct guest_mem {
	struct guest_region region[GUEST_MEM_REGIONS];
	unsigned n;
	/* Told of writes made through this interface; may be NULL. */
	void (*written)(void *opaque, uint64_t gpa, uint64_t len);
	void *opaque;
};

/* Add a region over memory that the caller owns. -ENOSPC, -EEXIST. */
int mem_add(struct guest_mem *mem, const struct guest_region *region, struct err *err);

/*
 * Host pointer for [gpa, gpa+len), or NULL unless all of it lies in one region.
 * len 0 asks for one byte's address. After writing through it call mem_written().
 */
void *mem_ptr(const struct guest_mem *mem, uint64_t gpa, uint64_t len);
/* As mem_ptr(), NULL for ROM too. */
void *mem_ptr_w(const struct guest_mem *mem, uint64_t gpa, uint64_t len);
void mem_written(const struct guest_mem *mem, uint64_t gpa, uint64_t len);

/* Copy; the range may span adjacent regions. 0 or -EFAULT (then nothing was copied). */
int mem_read(const struct guest_mem *mem, uint64_t gpa, void *data, uint64_t len);
int mem_write(const struct guest_mem *mem, uint64_t gpa, const void *data, uint64_t len);
int mem_set(const struct guest_mem *mem, uint64_t gpa, uint8_t byte, uint64_t len);
