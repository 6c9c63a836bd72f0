/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/memory.h"

#include <errno.h>
#include <string.h>

int mem_add(struct guest_mem *mem, const struct guest_region *region, struct err *err)
{
	if (mem->n == GUEST_MEM_REGIONS)
		return err_set(err, ENOSPC, "guest memory is in more than %d pieces", GUEST_MEM_REGIONS);
	for (unsigned i = 0; i < mem->n; i++) {
		const struct guest_region *r = &mem->region[i];

		if (region->gpa < r->gpa + r->size && r->gpa < region->gpa + region->size)
			return err_set(err, EEXIST, "guest memory at 0x%llx is there already",
				       (unsigned long long)region->gpa);
	}
	mem->region[mem->n++] = *region;
	return 0;
}

static const struct guest_region *find(const struct guest_mem *mem, uint64_t gpa)
{
	for (unsigned i = 0; i < mem->n; i++)
		if (gpa - mem->region[i].gpa < mem->region[i].size)
			return &mem->region[i];
	return NULL;
}

static void *ptr(const struct guest_mem *mem, uint64_t gpa, uint64_t len, bool write)
{
	const struct guest_region *r = find(mem, gpa);

	if (!r || (write && r->readonly) || len > r->size - (gpa - r->gpa))
		return NULL;
	return r->hva + (gpa - r->gpa);
}

void *mem_ptr(const struct guest_mem *mem, uint64_t gpa, uint64_t len)
{
	return ptr(mem, gpa, len, false);
}

void *mem_ptr_w(const struct guest_mem *mem, uint64_t gpa, uint64_t len)
{
	return ptr(mem, gpa, len, true);
}

void mem_written(const struct guest_mem *mem, uint64_t gpa, uint64_t len)
{
	if (mem->written && len)
		mem->written(mem->opaque, gpa, len);
}

/* All of [gpa, gpa+len) is RAM (writable RAM)? */
static bool covered(const struct guest_mem *mem, uint64_t gpa, uint64_t len, bool write)
{
	while (len) {
		const struct guest_region *r = find(mem, gpa);
		uint64_t n;

		if (!r || (write && r->readonly))
			return false;
		n = r->size - (gpa - r->gpa);
		if (n > len)
			n = len;
		gpa += n;
		len -= n;
	}
	return true;
}

int mem_read(const struct guest_mem *mem, uint64_t gpa, void *data, uint64_t len)
{
	if (!covered(mem, gpa, len, false))
		return -EFAULT;
	while (len) {
		const struct guest_region *r = find(mem, gpa);
		uint64_t off = gpa - r->gpa, n = r->size - off < len ? r->size - off : len;

		memcpy(data, r->hva + off, n);
		data = (uint8_t *)data + n;
		gpa += n;
		len -= n;
	}
	return 0;
}

/* data NULL: fill with `byte`. */
static int put(const struct guest_mem *mem, uint64_t gpa, const void *data, uint8_t byte, uint64_t len)
{
	if (!covered(mem, gpa, len, true))
		return -EFAULT;
	while (len) {
		const struct guest_region *r = find(mem, gpa);
		uint64_t off = gpa - r->gpa, n = r->size - off < len ? r->size - off : len;

		if (data) {
			memcpy(r->hva + off, data, n);
			data = (const uint8_t *)data + n;
		} else {
			memset(r->hva + off, byte, n);
		}
		mem_written(mem, gpa, n);
		gpa += n;
		len -= n;
	}
	return 0;
}

int mem_write(const struct guest_mem *mem, uint64_t gpa, const void *data, uint64_t len)
{
	return put(mem, gpa, data, 0, len);
}

int mem_set(const struct guest_mem *mem, uint64_t gpa, uint8_t byte, uint64_t len)
{
	return put(mem, gpa, NULL, byte, len);
}
