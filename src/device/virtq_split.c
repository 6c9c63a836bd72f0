/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The split virtqueue (Virtio 1.2 §2.7). */
#include <errno.h>

#include "device/virtq.h"

/* Available ring: flags, idx, ring[size], used_event. Used ring: flags, idx, { id, len }[size], avail_event. */
enum { RING_FLAGS = 0, RING_IDX = 2, RING_ENTRIES = 4 };
#define AVAIL_NO_INTERRUPT 1
#define USED_NO_NOTIFY 1

static uint8_t *used_event(const struct virtqueue *vq)
{
	return vq->avail + RING_ENTRIES + 2 * vq->size;
}

static unsigned avail_event_offset(const struct virtqueue *vq)
{
	return RING_ENTRIES + 8 * vq->size;
}

static int walk_table(struct virtqueue *vq, struct virtq_elem *e, const struct virtq_desc *d)
{
	unsigned n, i = 0;
	const uint8_t *table = virtq_indirect_table(vq, d, &n);

	if (!table)
		return -EIO;
	for (unsigned seen = 0;; seen++) {
		struct virtq_desc in;
		int ret;

		if (i >= n || seen >= n) {
			virtq_break(vq,
				    i >= n ? "an indirect chain that leaves its table" : "a loop in an indirect table");
			return -EIO;
		}
		in = virtq_load_desc(table + 16 * i);
		if (in.split.flags & VIRTQ_DESC_INDIRECT) {
			virtq_break(vq, "an indirect descriptor in an indirect table");
			return -EIO;
		}
		ret = virtq_add_buffer(vq, e, in.addr, in.len, in.split.flags & VIRTQ_DESC_WRITE);
		if (ret)
			return ret;
		if (!(in.split.flags & VIRTQ_DESC_NEXT))
			return 0;
		i = in.split.next;
	}
}

static int walk_chain(struct virtqueue *vq, struct virtq_elem *e, unsigned head)
{
	unsigned i = head;

	for (unsigned seen = 0;; seen++) {
		struct virtq_desc d;
		int ret;

		if (i >= vq->size || seen >= vq->size) {
			virtq_break(vq,
				    i >= vq->size ? "a descriptor index beyond the queue" : "a loop of descriptors");
			return -EIO;
		}
		d = virtq_load_desc(vq->ring + 16 * i);
		if (d.split.flags & VIRTQ_DESC_INDIRECT) {
			if (d.split.flags & VIRTQ_DESC_NEXT) {
				virtq_break(vq, "an indirect descriptor that is not the last");
				return -EIO;
			}
			return walk_table(vq, e, &d);
		}
		ret = virtq_add_buffer(vq, e, d.addr, d.len, d.split.flags & VIRTQ_DESC_WRITE);
		if (ret)
			return ret;
		if (!(d.split.flags & VIRTQ_DESC_NEXT))
			return 0;
		i = d.split.next;
	}
}

static bool split_empty(struct virtqueue *vq)
{
	/* Acquire: idx before the entries that it covers. */
	vq->avail_seen = virtq_load16(vq->avail + RING_IDX);
	return vq->avail_seen == vq->avail_pos;
}

static int split_pop(struct virtqueue *vq, struct virtq_elem *e)
{
	int ret;

	if (vq->avail_seen == vq->avail_pos && split_empty(vq))
		return 0;
	if ((uint16_t)(vq->avail_seen - vq->avail_pos) > vq->size) {
		virtq_break(vq, "more buffers available than the queue has room for");
		return -EIO;
	}
	e->id = virtq_load16(vq->avail + RING_ENTRIES + 2 * (vq->avail_pos & (vq->size - 1)));
	e->ndesc = 1;
	ret = walk_chain(vq, e, e->id);
	if (ret)
		return ret;
	vq->avail_pos++;
	return 1;
}

static void split_unpop(struct virtqueue *vq, const struct virtq_elem *e)
{
	vq->avail_pos--;
}

static void split_fill(struct virtqueue *vq, const struct virtq_elem *e, uint32_t len)
{
	unsigned at = RING_ENTRIES + 8 * ((vq->used_pos + vq->filled) & (vq->size - 1));
	uint64_t entry = e->id | (uint64_t)len << 32;

	/* 4-byte aligned only. */
	__builtin_memcpy(vq->used + at, &entry, sizeof(entry));
	mem_written(vq->mem, vq->device + at, sizeof(entry));
	vq->filled++;
	vq->filled_desc++;
}

static void split_flush(struct virtqueue *vq)
{
	vq->used_pos += vq->filled;
	virtq_store16(vq->used + RING_IDX, vq->used_pos);
	mem_written(vq->mem, vq->device + RING_IDX, 2);
}

static bool split_should_interrupt(struct virtqueue *vq, uint16_t since)
{
	if (vq->features & VIRTIO_F_EVENT_IDX)
		return virtq_passed(virtq_load16(used_event(vq)), vq->used_pos, vq->used_pos - since);
	return !(virtq_load16(vq->avail + RING_FLAGS) & AVAIL_NO_INTERRUPT);
}

static void split_ask(struct virtqueue *vq, bool on)
{
	unsigned at = vq->features & VIRTIO_F_EVENT_IDX ? avail_event_offset(vq) : RING_FLAGS;

	/* With event indices there is no "off": an event that has passed does not come again by itself. */
	if (vq->features & VIRTIO_F_EVENT_IDX && !on)
		return;
	virtq_store16(vq->used + at, vq->features & VIRTIO_F_EVENT_IDX ? vq->avail_pos : on ? 0 : USED_NO_NOTIFY);
	mem_written(vq->mem, vq->device + at, 2);
}

const struct virtq_layout virtq_split = {
	.pop = split_pop,
	.unpop = split_unpop,
	.fill = split_fill,
	.flush = split_flush,
	.should_interrupt = split_should_interrupt,
	.ask = split_ask,
	.empty = split_empty,
};
