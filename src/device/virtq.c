/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What both ring layouts share: set-up, buffers, indirect tables, and the dispatch between them. */
#include "device/virtq.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct virtq_layout *layout(const struct virtqueue *vq)
{
	return vq->features & VIRTIO_F_RING_PACKED ? &virtq_packed : &virtq_split;
}

/* ---- Set-up -------------------------------------------------------------- */

void virtq_reset(struct virtqueue *vq)
{
	struct virtqueue fresh = {
		.mem = vq->mem, .broken_fn = vq->broken_fn, .opaque = vq->opaque, .index = vq->index, .max = vq->max,
		.size = vq->max, .vector = VIRTQ_NO_VECTOR,
	};

	*vq = fresh;
}

/* Areas of the ring: sizes of §2.7 and §2.8.10, alignments of §2.7 (those of a packed ring are weaker or equal). */
static int map(struct virtqueue *vq)
{
	bool packed = vq->features & VIRTIO_F_RING_PACKED;
	uint64_t n = vq->size, avail = packed ? 4 : 6 + 2 * n, used = packed ? 4 : 6 + 8 * n;

	if (!n || n > vq->max || (!packed && (n & (n - 1))))
		return -EINVAL;
	if (vq->desc & 15 || vq->driver & (packed ? 3 : 1) || vq->device & 3)
		return -EFAULT;
	vq->ring = packed ? mem_ptr_w(vq->mem, vq->desc, 16 * n) : mem_ptr(vq->mem, vq->desc, 16 * n);
	vq->avail = mem_ptr(vq->mem, vq->driver, avail);
	vq->used = mem_ptr_w(vq->mem, vq->device, used);
	return vq->ring && vq->avail && vq->used ? 0 : -EFAULT;
}

int virtq_enable(struct virtqueue *vq)
{
	int ret = map(vq);

	if (ret)
		return ret;
	vq->avail_pos = vq->used_pos = vq->avail_seen = vq->since = 0;
	vq->inflight = vq->filled = vq->filled_desc = 0;
	vq->avail_wrap = vq->used_wrap = true;
	vq->broken = vq->waiting = false;
	vq->enabled = true;
	return 0;
}

int virtq_resume(struct virtqueue *vq, struct err *err)
{
	bool packed = vq->features & VIRTIO_F_RING_PACKED;

	vq->inflight = vq->filled = vq->filled_desc = 0;
	vq->waiting = false;
	vq->avail_seen = vq->avail_pos;
	if (vq->size > vq->max || !vq->size || (vq->vector != VIRTQ_NO_VECTOR && vq->vector >= 2048))
		return err_set(err, EINVAL, "queue %u has the impossible size %u", vq->index, vq->size);
	if (!vq->enabled)
		return 0;
	if (map(vq) || (packed && (vq->avail_pos >= vq->size || vq->used_pos >= vq->size))) {
		vq->enabled = false;
		return err_set(err, EINVAL,
			       "the ring of queue %u lies outside of memory or its positions outside of it", vq->index);
	}
	/* A broken queue waits for its reset and may have lost buffers. */
	if (!vq->broken && (vq->avail_pos != vq->used_pos || (packed && vq->avail_wrap != vq->used_wrap))) {
		vq->enabled = false;
		return err_set(err, EINVAL, "queue %u has buffers in flight", vq->index);
	}
	return 0;
}

void virtq_break(struct virtqueue *vq, const char *why)
{
	if (vq->broken)
		return;
	vq->broken = true;
	if (vq->broken_fn)
		vq->broken_fn(vq, why);
}

/* ---- Buffers ------------------------------------------------------------- */

struct virtq_desc virtq_load_desc(const uint8_t *p)
{
	struct virtq_desc d;

	memcpy(&d, p, sizeof(d));
	/* From here on the copy counts, whatever the driver does to the original. */
	__asm__ volatile("" : "+m"(d) : : "memory");
	return d;
}

static int grow(struct virtq_elem *e)
{
	unsigned room = e->room ? 2 * e->room : 8;
	struct iovec *iov = realloc(e->iov, room * sizeof(*iov));
	struct virtq_seg *seg;

	if (!iov)
		return -ENOMEM;
	e->iov = iov;
	seg = realloc(e->seg, room * sizeof(*seg));
	if (!seg)
		return -ENOMEM;
	e->seg = seg;
	e->room = room;
	return 0;
}

/* The region that holds `gpa`, NULL if none does or it may not be written. */
static const struct guest_region *region_at(const struct guest_mem *mem, uint64_t gpa, bool write)
{
	for (unsigned i = 0; i < mem->n; i++)
		if (gpa - mem->region[i].gpa < mem->region[i].size)
			return write && mem->region[i].readonly ? NULL : &mem->region[i];
	return NULL;
}

int virtq_add_buffer(struct virtqueue *vq, struct virtq_elem *e, uint64_t addr, uint32_t len, bool write)
{
	if (!write && e->nin) {
		virtq_break(vq, "a readable buffer after a writable one");
		return -EIO;
	}
	if (write)
		e->in_len += len;
	else
		e->out_len += len;
	/* Usually one piece; a buffer may lie across two adjacent regions. */
	while (len) {
		const struct guest_region *r = region_at(vq->mem, addr, write);
		unsigned i = e->nout + e->nin;
		uint64_t n;

		if (!r || i >= VIRTQ_MAX) {
			virtq_break(vq, r ? "too many buffers in a chain" : "a buffer outside of memory");
			return -EIO;
		}
		if (i == e->room && grow(e))
			return -ENOMEM;
		n = r->size - (addr - r->gpa);
		n = n < len ? n : len;
		e->iov[i] = (struct iovec){ r->hva + (addr - r->gpa), n };
		e->seg[i] = (struct virtq_seg){ addr, n };
		if (write)
			e->nin++;
		else
			e->nout++;
		addr += n;
		len -= n;
	}
	return 0;
}

const uint8_t *virtq_indirect_table(struct virtqueue *vq, const struct virtq_desc *d, unsigned *n)
{
	const uint8_t *table = NULL;

	if (!(vq->features & VIRTIO_F_INDIRECT_DESC))
		virtq_break(vq, "an indirect descriptor without the feature");
	else if (!d->len || d->len % sizeof(*d) || d->len / sizeof(*d) > VIRTQ_MAX)
		virtq_break(vq, "an indirect table of impossible length");
	else if (!(table = mem_ptr(vq->mem, d->addr, d->len)))
		virtq_break(vq, "an indirect table outside of memory");
	*n = d->len / sizeof(*d);
	return table;
}

int virtq_pop(struct virtqueue *vq, struct virtq_elem *e)
{
	int ret;

	if (!vq->enabled || vq->broken)
		return vq->broken ? -EIO : 0;
	e->nout = e->nin = 0;
	e->out_len = e->in_len = 0;
	/* Room from the start: iov is never NULL, even for a chain without a byte. */
	ret = e->room || !grow(e) ? layout(vq)->pop(vq, e) : -ENOMEM;
	if (ret <= 0) {
		if (ret == -ENOMEM)
			virtq_break(vq, "no memory for a buffer");
		return ret ? -EIO : 0;
	}
	/* The driver may reuse what the device returned, nothing else. Positions depend on it. */
	if (vq->inflight + e->ndesc > vq->size) {
		layout(vq)->unpop(vq, e);
		virtq_break(vq, "more buffers than the queue has room for");
		return -EIO;
	}
	vq->inflight += e->ndesc;
	return 1;
}

void virtq_unpop(struct virtqueue *vq, const struct virtq_elem *e)
{
	if (!vq->enabled || vq->broken)
		return;
	layout(vq)->unpop(vq, e);
	vq->inflight -= e->ndesc;
}

void virtq_elem_free(struct virtq_elem *e)
{
	free(e->iov);
	free(e->seg);
	*e = (struct virtq_elem){ 0 };
}

void virtq_elem_written(struct virtqueue *vq, const struct virtq_elem *e, uint64_t at, uint64_t len)
{
	const struct virtq_seg *seg = e->seg + e->nout;

	if (!vq->mem->written)
		return;
	for (unsigned i = 0; i < e->nin && len; i++) {
		uint64_t n;

		if (at >= seg[i].len) {
			at -= seg[i].len;
			continue;
		}
		n = seg[i].len - at < len ? seg[i].len - at : len;
		mem_written(vq->mem, seg[i].gpa + at, n);
		len -= n;
		at = 0;
	}
}

void virtq_fill(struct virtqueue *vq, const struct virtq_elem *e, uint32_t len)
{
	if (!vq->enabled)
		return;
	virtq_elem_written(vq, e, 0, len);
	layout(vq)->fill(vq, e, len);
	vq->inflight -= e->ndesc;
}

void virtq_flush(struct virtqueue *vq)
{
	if (!vq->enabled || !vq->filled)
		return;
	layout(vq)->flush(vq);
	vq->since = vq->since + vq->filled_desc > 0xffff ? 0xffff : vq->since + vq->filled_desc;
	vq->filled = vq->filled_desc = 0;
}

bool virtq_should_interrupt(struct virtqueue *vq)
{
	uint16_t since = vq->since;

	if (!vq->enabled || !since)
		return false;
	vq->since = 0;
	/* Full fence: used entries before the driver's wish (§2.7.7.2: it writes its wish, then looks for entries). */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return layout(vq)->should_interrupt(vq, since);
}

bool virtq_wait(struct virtqueue *vq)
{
	if (!vq->enabled || vq->broken)
		return false;
	layout(vq)->ask(vq, true);
	vq->waiting = true;
	/* Full fence: our wish before the look at the ring; the driver does it the other way round. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return !layout(vq)->empty(vq);
}

int virtq_pop_or_wait(struct virtqueue *vq, struct virtq_elem *e)
{
	int ret;

	do {
		ret = virtq_pop(vq, e);
	} while (!ret && virtq_wait(vq));
	return ret;
}

void virtq_ignore(struct virtqueue *vq)
{
	if (!vq->enabled || vq->broken || !vq->waiting)
		return;
	layout(vq)->ask(vq, false);
	vq->waiting = false;
}

bool virtq_empty(struct virtqueue *vq)
{
	return !vq->enabled || vq->broken || layout(vq)->empty(vq);
}

/* ---- Scatter and gather -------------------------------------------------- */

static size_t iov_copy(const struct iovec *iov, unsigned n, size_t at, uint8_t *data, size_t len, bool write)
{
	size_t done = 0;

	for (unsigned i = 0; i < n && done < len; i++) {
		size_t part;

		if (at >= iov[i].iov_len) {
			at -= iov[i].iov_len;
			continue;
		}
		part = iov[i].iov_len - at < len - done ? iov[i].iov_len - at : len - done;
		if (write)
			memcpy((uint8_t *)iov[i].iov_base + at, data + done, part);
		else
			memcpy(data + done, (uint8_t *)iov[i].iov_base + at, part);
		done += part;
		at = 0;
	}
	return done;
}

size_t iov_read(const struct iovec *iov, unsigned n, size_t at, void *data, size_t len)
{
	return iov_copy(iov, n, at, data, len, false);
}

size_t iov_write(const struct iovec *iov, unsigned n, size_t at, const void *data, size_t len)
{
	return iov_copy(iov, n, at, (uint8_t *)data, len, true);
}

void iov_skip(struct iovec **iov, uint16_t *n, size_t len)
{
	while (*n && len >= (*iov)->iov_len) {
		len -= (*iov)->iov_len;
		++*iov;
		--*n;
	}
	if (*n) {
		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + len;
		(*iov)->iov_len -= len;
	}
}

/* ---- State --------------------------------------------------------------- */

static const struct state_field virtq_fields[] = {
	STATE_FIELD_U16(struct virtqueue, size),
	STATE_FIELD_U16(struct virtqueue, vector),
	STATE_FIELD_BOOL(struct virtqueue, enabled),
	STATE_FIELD_BOOL(struct virtqueue, broken),
	STATE_FIELD_U64(struct virtqueue, desc),
	STATE_FIELD_U64(struct virtqueue, driver),
	STATE_FIELD_U64(struct virtqueue, device),
	STATE_FIELD_U16(struct virtqueue, avail_pos),
	STATE_FIELD_U16(struct virtqueue, used_pos),
	STATE_FIELD_BOOL(struct virtqueue, avail_wrap),
	STATE_FIELD_BOOL(struct virtqueue, used_wrap),
	STATE_FIELD_U16(struct virtqueue, since),
	STATE_END,
};
const struct state_desc virtq_state = { .name = "virtqueue", .version = 1, .fields = virtq_fields };
