/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Both ring layouts from the device's side, over 64 KiB of memory that is all
 * the driver's. Input: ring kind, queue size, places of the three areas, a
 * script of what the device does, then the memory. The script also changes
 * memory between two steps, as a driver on another CPU does.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "device/virtq.h"

#define RAM 65536u
#define SCRIPT 64
#define HELD 16

static uint8_t *ram;

static void broken(struct virtqueue *vq, const char *why)
{
	assert(vq->broken && *why);
}

static void written(void *opaque, uint64_t gpa, uint64_t len)
{
	assert(gpa < RAM && len <= RAM - gpa);
}

/* Whatever the driver wrote, an element points into memory and is bounded. */
static void check(const struct virtqueue *vq, const struct virtq_elem *e)
{
	uint64_t out = 0, in = 0;

	assert(e->nout + e->nin <= VIRTQ_MAX && e->ndesc >= 1 && e->ndesc <= vq->size && vq->inflight <= vq->size);
	for (unsigned i = 0; i < e->nout + e->nin; i++) {
		uint8_t *p = e->iov[i].iov_base;

		assert(p >= ram && e->iov[i].iov_len <= RAM && p + e->iov[i].iov_len <= ram + RAM);
		*(i < e->nout ? &out : &in) += e->iov[i].iov_len;
	}
	assert(out == e->out_len && in == e->in_len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct virtq_elem elem[HELD];
	static struct guest_mem mem;
	struct virtqueue vq = { .mem = &mem, .broken_fn = broken, .max = 256 };
	const uint8_t *script;
	uint16_t where[4];
	unsigned held = 0, back = 0; /* back: how many may be given back, which is newest first */

	if (len < 9 + SCRIPT)
		return 0;
	if (!ram) {
		struct guest_region r = { .size = RAM, .fd = -1 };

		ram = aligned_alloc(4096, RAM);
		r.hva = ram;
		mem_add(&mem, &r, NULL);
		mem.written = written;
	}
	memset(ram, 0, RAM);
	memcpy(where, data + 1, 8);
	script = data + 9;
	memcpy(ram, script + SCRIPT, len - 9 - SCRIPT < RAM ? len - 9 - SCRIPT : RAM);
	virtq_reset(&vq);
	vq.features = (data[0] & 1 ? VIRTIO_F_RING_PACKED : 0) | (data[0] & 2 ? VIRTIO_F_EVENT_IDX : 0) |
		      (data[0] & 4 ? VIRTIO_F_INDIRECT_DESC : 0);
	vq.size = data[0] & 1 ? where[0] % 300 : 1u << where[0] % 9;
	vq.desc = where[1] & ~15u;
	vq.driver = where[2] & ~3u;
	vq.device = where[3] & ~3u;
	if (virtq_enable(&vq))
		return 0;
	for (unsigned i = 0; i + 3 < SCRIPT; i += 4) {
		uint16_t at = script[i + 1] | script[i + 2] << 8;

		switch (script[i] & 7) {
		case 0:
		case 1:
			if (held < HELD && virtq_pop(&vq, &elem[held]) > 0) {
				check(&vq, &elem[held++]);
				back++;
			}
			break;
		case 2:
			if (back && held) {
				virtq_unpop(&vq, &elem[--held]);
				back--;
			}
			break;
		case 3: /* in order of arrival, or not */
			if (held) {
				unsigned n = script[i + 3] % held;
				struct virtq_elem e = elem[n];

				virtq_fill(&vq, &e, at < e.in_len ? at : e.in_len);
				memmove(elem + n, elem + n + 1, (held - n - 1) * sizeof(e));
				elem[--held] = e;
				back = 0;
			}
			break;
		case 4:
			virtq_flush(&vq);
			virtq_should_interrupt(&vq);
			break;
		case 5:
			virtq_wait(&vq);
			break;
		case 6:
			virtq_ignore(&vq);
			virtq_empty(&vq);
			break;
		case 7:
			ram[at] = script[i + 3];
			break;
		}
	}
	virtq_flush(&vq);
	return 0;
}
