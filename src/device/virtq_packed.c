/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The packed virtqueue (Virtio 1.2 §2.8). */
#include <errno.h>

#include "device/virtq.h"

/* Descriptor: address, length, id, flags. Event suppression: offset and wrap counter, flags (§2.8.14). */
enum { DESC_ID = 12, DESC_FLAGS = 14, EVENT_OFFSET = 0, EVENT_FLAGS = 2 };
enum { EVENT_ENABLE = 0, EVENT_DISABLE = 1, EVENT_DESC = 2 };

static bool available(uint16_t flags, bool wrap)
{
	return !!(flags & VIRTQ_DESC_AVAIL) == wrap && !!(flags & VIRTQ_DESC_USED) != wrap;
}

static bool packed_empty(struct virtqueue *vq)
{
	return !available(virtq_load16(vq->ring + 16 * vq->avail_pos + DESC_FLAGS), vq->avail_wrap);
}

static int walk_table(struct virtqueue *vq, struct virtq_elem *e, const struct virtq_desc *d)
{
	unsigned n;
	const uint8_t *table = virtq_indirect_table(vq, d, &n);

	if (!table)
		return -EIO;
	/* Entries follow each other; only WRITE means something (§2.8.7). */
	for (unsigned i = 0; i < n; i++) {
		struct virtq_desc in = virtq_load_desc(table + 16 * i);
		int ret = virtq_add_buffer(vq, e, in.addr, in.len, in.packed.flags & VIRTQ_DESC_WRITE);

		if (ret)
			return ret;
	}
	return 0;
}

static void advance(const struct virtqueue *vq, uint16_t *pos, bool *wrap, unsigned by)
{
	unsigned next = *pos + by;

	if (next >= vq->size) {
		next -= vq->size;
		*wrap = !*wrap;
	}
	*pos = next;
}

static int packed_pop(struct virtqueue *vq, struct virtq_elem *e)
{
	uint16_t pos = vq->avail_pos;
	bool wrap = vq->avail_wrap;
	struct virtq_desc d;

	/* Acquire: the flags before the rest of the descriptor. The driver writes the first one's flags last. */
	if (packed_empty(vq))
		return 0;
	e->ndesc = 0;
	do {
		int ret;

		if (e->ndesc == vq->size) {
			virtq_break(vq, "a chain longer than the queue");
			return -EIO;
		}
		d = virtq_load_desc(vq->ring + 16 * pos);
		if (!available(d.packed.flags, wrap)) {
			virtq_break(vq, "a chain with a descriptor that is not available");
			return -EIO;
		}
		if ((d.packed.flags & (VIRTQ_DESC_INDIRECT | VIRTQ_DESC_NEXT)) ==
			    (VIRTQ_DESC_INDIRECT | VIRTQ_DESC_NEXT) ||
		    (d.packed.flags & VIRTQ_DESC_INDIRECT && e->ndesc)) {
			virtq_break(vq, "an indirect descriptor in a chain");
			return -EIO;
		}
		ret = d.packed.flags & VIRTQ_DESC_INDIRECT ?
			      walk_table(vq, e, &d) :
			      virtq_add_buffer(vq, e, d.addr, d.len, d.packed.flags & VIRTQ_DESC_WRITE);
		if (ret)
			return ret;
		e->ndesc++;
		advance(vq, &pos, &wrap, 1);
	} while (d.packed.flags & VIRTQ_DESC_NEXT);
	e->id = d.packed.id; /* the last one's counts (§2.8.6) */
	vq->avail_pos = pos;
	vq->avail_wrap = wrap;
	return 1;
}

static void packed_unpop(struct virtqueue *vq, const struct virtq_elem *e)
{
	if (vq->avail_pos < e->ndesc) {
		vq->avail_pos += vq->size;
		vq->avail_wrap = !vq->avail_wrap;
	}
	vq->avail_pos -= e->ndesc;
}

static void packed_fill(struct virtqueue *vq, const struct virtq_elem *e, uint32_t len)
{
	uint16_t pos = vq->used_pos, flags;
	bool wrap = vq->used_wrap;
	uint8_t *d;

	advance(vq, &pos, &wrap, vq->filled_desc);
	d = vq->ring + 16 * pos;
	flags = (len ? VIRTQ_DESC_WRITE : 0) | (wrap ? VIRTQ_DESC_AVAIL | VIRTQ_DESC_USED : 0);
	__builtin_memcpy(d + 8, &len, sizeof(len));
	__builtin_memcpy(d + DESC_ID, &e->id, sizeof(e->id));
	/* The driver reads in ring order: all is visible when the first one's flags are. */
	if (vq->filled)
		virtq_store16(d + DESC_FLAGS, flags);
	else
		vq->first_flags = flags;
	mem_written(vq->mem, vq->desc + 16 * pos, 16);
	vq->filled++;
	vq->filled_desc += e->ndesc;
}

static void packed_flush(struct virtqueue *vq)
{
	virtq_store16(vq->ring + 16 * vq->used_pos + DESC_FLAGS, vq->first_flags);
	mem_written(vq->mem, vq->desc + 16 * vq->used_pos, 16);
	advance(vq, &vq->used_pos, &vq->used_wrap, vq->filled_desc);
}

static bool packed_should_interrupt(struct virtqueue *vq, uint16_t since)
{
	uint32_t event = __atomic_load_n((const uint32_t *)vq->avail, __ATOMIC_ACQUIRE);
	uint16_t offset = event & 0x7fff, flags = event >> 16 & 3;
	bool wrap = event >> 15 & 1;

	if (flags != EVENT_DESC || !(vq->features & VIRTIO_F_EVENT_IDX))
		return flags != EVENT_DISABLE;
	if (since >= vq->size)
		return true;
	/* An event of the round before lies one ring length back. */
	if (wrap != vq->used_wrap)
		offset -= vq->size;
	return virtq_passed(offset, vq->used_pos, vq->used_pos - since);
}

static void packed_ask(struct virtqueue *vq, bool on)
{
	uint16_t flags = on ? EVENT_ENABLE : EVENT_DISABLE;

	if (on && vq->features & VIRTIO_F_EVENT_IDX) {
		virtq_store16(vq->used + EVENT_OFFSET, vq->avail_pos | vq->avail_wrap << 15);
		flags = EVENT_DESC;
	}
	virtq_store16(vq->used + EVENT_FLAGS, flags);
	mem_written(vq->mem, vq->device, 4);
}

const struct virtq_layout virtq_packed = {
	.pop = packed_pop,
	.unpop = packed_unpop,
	.fill = packed_fill,
	.flush = packed_flush,
	.should_interrupt = packed_should_interrupt,
	.ask = packed_ask,
	.empty = packed_empty,
};
