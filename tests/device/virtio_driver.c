/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "virtio_driver.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "machine/pci.h"

/* ---- Memory ------------------------------------------------------------------ */

static uint16_t r16(const struct drv_queue *q, uint64_t gpa)
{
	return __atomic_load_n((uint16_t *)(q->ram + gpa), __ATOMIC_ACQUIRE);
}

static void w16(const struct drv_queue *q, uint64_t gpa, uint16_t v)
{
	__atomic_store_n((uint16_t *)(q->ram + gpa), v, __ATOMIC_RELEASE);
}

static void w32(const struct drv_queue *q, uint64_t gpa, uint32_t v)
{
	memcpy(q->ram + gpa, &v, 4);
}

static uint32_t r32(const struct drv_queue *q, uint64_t gpa)
{
	uint32_t v;

	memcpy(&v, q->ram + gpa, 4);
	return v;
}

static void w64(const struct drv_queue *q, uint64_t gpa, uint64_t v)
{
	memcpy(q->ram + gpa, &v, 8);
}

/* ---- Rings -------------------------------------------------------------------- */

static uint64_t page_up(uint64_t n)
{
	return (n + 4095) & ~4095ull;
}

uint64_t drv_queue_bytes(uint16_t size)
{
	return page_up(16 * size) + page_up(6 + 2 * size) + page_up(6 + 8 * size) + page_up((uint64_t)size * DRV_TABLE);
}

void drv_queue_init(struct drv_queue *q, uint8_t *ram, uint64_t at, uint16_t size, bool packed, bool event_idx,
		    bool indirect)
{
	memset(q, 0, sizeof(*q));
	q->ram = ram;
	q->size = size;
	q->packed = packed;
	q->event_idx = event_idx;
	q->indirect = indirect;
	q->desc = at;
	q->avail = q->desc + page_up(16 * size);
	q->used = q->avail + page_up(6 + 2 * size);
	q->tables = q->used + page_up(6 + 8 * size);
	memset(ram + at, 0, drv_queue_bytes(size));
	q->nfree = size;
	q->avail_wrap = q->used_wrap = true;
	for (unsigned i = 0; i < size; i++) {
		q->next[i] = i + 1;
		q->id_stack[q->nids++] = size - 1 - i;
	}
}

static void put_desc(struct drv_queue *q, uint64_t at, const struct drv_buf *b, uint16_t flags_or_id, uint16_t last)
{
	w64(q, at, b->gpa);
	w32(q, at + 8, b->len);
	w16(q, at + 12, flags_or_id);
	w16(q, at + 14, last);
}

static bool split_add(struct drv_queue *q, const struct drv_buf *bufs, unsigned n, void *token)
{
	bool table = q->indirect && n > 1;
	unsigned need = table ? 1 : n, head = q->free_head, i = head;

	if (q->nfree < need)
		return false;
	if (table) {
		struct drv_buf t = { q->tables + (uint64_t)head * DRV_TABLE, 16 * n, false };

		for (unsigned k = 0; k < n; k++)
			put_desc(q, t.gpa + 16 * k, &bufs[k], (bufs[k].write ? 2 : 0) | (k + 1 < n ? 1 : 0), k + 1);
		put_desc(q, q->desc + 16 * head, &t, 4, 0);
		i = q->next[head];
	} else {
		for (unsigned k = 0; k < n; k++) {
			bool more = k + 1 < n;

			put_desc(q, q->desc + 16 * i, &bufs[k], (bufs[k].write ? 2 : 0) | more, more ? q->next[i] : 0);
			i = q->next[i];
		}
	}
	q->free_head = i;
	q->nfree -= need;
	q->count[head] = need;
	q->token[head] = token;
	w16(q, q->avail + 4 + 2 * (q->avail_idx % q->size), head);
	q->avail_idx++;
	w16(q, q->avail + 2, q->avail_idx);
	q->added++;
	return true;
}

static bool packed_add(struct drv_queue *q, const struct drv_buf *bufs, unsigned n, void *token)
{
	bool table = q->indirect && n > 1;
	unsigned need = table ? 1 : n, slot = q->next_avail, first = slot;
	uint16_t first_flags = 0, id;
	bool wrap = q->avail_wrap;

	if (q->nfree < need || !q->nids)
		return false;
	id = q->id_stack[--q->nids];
	for (unsigned k = 0; k < need; k++) {
		uint16_t state = wrap ? 1 << 7 : 1 << 15,
			 flags = state | (bufs[k].write ? 2 : 0) | (k + 1 < need ? 1 : 0);
		const struct drv_buf *b = &bufs[k];
		struct drv_buf t = { q->tables + (uint64_t)id * DRV_TABLE, 16 * n, false };

		if (table) {
			for (unsigned j = 0; j < n; j++)
				put_desc(q, t.gpa + 16 * j, &bufs[j], 0xdead, bufs[j].write ? 2 : 0);
			b = &t;
			flags = state | 4;
		}
		w64(q, q->desc + 16 * slot, b->gpa);
		w32(q, q->desc + 16 * slot + 8, b->len);
		/* Only the last one's id counts. */
		w16(q, q->desc + 16 * slot + 12, k + 1 == need ? id : 0xbeef);
		if (k)
			w16(q, q->desc + 16 * slot + 14, flags);
		else
			first_flags = flags;
		if (++slot == q->size) {
			slot = 0;
			wrap = !wrap;
		}
	}
	w16(q, q->desc + 16 * first + 14, first_flags);
	q->next_avail = slot;
	q->avail_wrap = wrap;
	q->nfree -= need;
	q->count[id] = need;
	q->token[id] = token;
	q->added += need;
	return true;
}

bool drv_add(struct drv_queue *q, const struct drv_buf *bufs, unsigned n, void *token)
{
	return q->packed ? packed_add(q, bufs, n, token) : split_add(q, bufs, n, token);
}

bool drv_must_notify(struct drv_queue *q)
{
	uint16_t added = q->added;

	q->added = 0;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (q->packed) {
		uint16_t off = r16(q, q->used), flags = r16(q, q->used + 2);
		int event = off & 0x7fff, now = q->next_avail;

		if (flags == 0 || flags == 1)
			return flags == 0;
		/* Number the entries of this round and the one before on one line. */
		if (off >> 15 != q->avail_wrap)
			event -= q->size;
		return event >= now - added && event < now;
	}
	if (!q->event_idx)
		return !(r16(q, q->used) & 1);
	/* avail_event lies in [idx before, idx now) */
	return (uint16_t)(r16(q, q->used + 4 + 8 * q->size) - (uint16_t)(q->avail_idx - added)) < added;
}

static void *packed_get(struct drv_queue *q, uint32_t *len)
{
	uint64_t at = q->desc + 16 * q->next_used;
	uint16_t flags = r16(q, at + 14), id;
	bool a = flags & 1 << 7, u = flags & 1 << 15;

	if (a != u || u != q->used_wrap)
		return NULL;
	id = r16(q, at + 12);
	*len = r32(q, at + 8);
	assert(id < q->size && q->count[id]);
	q->next_used += q->count[id];
	if (q->next_used >= q->size) {
		q->next_used -= q->size;
		q->used_wrap = !q->used_wrap;
	}
	q->nfree += q->count[id];
	q->count[id] = 0;
	q->id_stack[q->nids++] = id;
	return q->token[id];
}

static void *split_get(struct drv_queue *q, uint32_t *len)
{
	uint64_t at = q->used + 4 + 8 * (q->last_used % q->size);
	unsigned i, head;

	if (r16(q, q->used + 2) == q->last_used)
		return NULL;
	head = r32(q, at);
	*len = r32(q, at + 4);
	assert(head < q->size && q->count[head]);
	q->last_used++;
	for (i = head; q->count[head] > 1; q->count[head]--, q->nfree++)
		i = q->next[i];
	q->next[i] = q->free_head;
	q->free_head = head;
	q->count[head] = 0;
	q->nfree++;
	return q->token[head];
}

void *drv_get(struct drv_queue *q, uint32_t *len)
{
	return q->packed ? packed_get(q, len) : split_get(q, len);
}

static bool used_waits(struct drv_queue *q)
{
	uint16_t flags;

	if (!q->packed)
		return r16(q, q->used + 2) != q->last_used;
	flags = r16(q, q->desc + 16 * q->next_used + 14);
	return !!(flags & 1 << 7) == q->used_wrap && !!(flags & 1 << 15) == q->used_wrap;
}

bool drv_interrupts(struct drv_queue *q, bool on)
{
	if (q->packed) {
		if (on && q->event_idx)
			w16(q, q->avail, q->next_used | q->used_wrap << 15);
		w16(q, q->avail + 2, !on ? 1 : q->event_idx ? 2 : 0);
	} else if (q->event_idx) {
		/* Off: an event that lies behind. */
		w16(q, q->avail + 4 + 2 * q->size, on ? q->last_used : q->last_used - 1);
	} else {
		w16(q, q->avail, on ? 0 : 1);
	}
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return used_waits(q);
}

/* ---- PCI ----------------------------------------------------------------------- */

static uint32_t cfg(struct drv *d, unsigned reg, unsigned size)
{
	return fake_read(d->f, Q35_ECAM_BASE + (d->devfn << 12) + reg, size);
}

static void cfg_set(struct drv *d, unsigned reg, uint32_t value, unsigned size)
{
	fake_write(d->f, Q35_ECAM_BASE + (d->devfn << 12) + reg, value, size);
}

static uint64_t bar(struct drv *d, unsigned n)
{
	return cfg(d, 0x10 + 4 * n, 4) & ~15u;
}

void drv_init(struct drv *d, struct fake_machine *f, struct device *dev)
{
	unsigned at;

	memset(d, 0, sizeof(*d));
	d->f = f;
	d->devfn = ((struct pci_device *)dev)->devfn;
	d->ram = mem_ptr(&f->m->mem, 0, 1);
	d->heap = 1 << 20;
	pci_assign_resources(f->m);
	cfg_set(d, 4, 0x0006, 2);
	for (at = cfg(d, 0x34, 1); at; at = cfg(d, at + 1, 1)) {
		unsigned id = cfg(d, at, 1);
		uint64_t where = id == 9 ? bar(d, cfg(d, at + 4, 1)) + cfg(d, at + 8, 4) : 0;

		if (id == 0x11) {
			d->msix_cap = at;
			d->msix = bar(d, cfg(d, at + 4, 4) & 7) + (cfg(d, at + 4, 4) & ~7u);
		}
		if (id != 9)
			continue;
		switch (cfg(d, at + 3, 1)) {
		case 1:
			d->common = where;
			break;
		case 2:
			d->notify = where;
			d->notify_step = cfg(d, at + 16, 4);
			break;
		case 3:
			d->isr = where;
			break;
		case 4:
			d->config = where;
			d->config_len = cfg(d, at + 12, 4);
			break;
		case 5:
			d->window = at;
			break;
		}
	}
	assert(d->common && d->notify && d->isr && d->window);
}

uint64_t drv_alloc(struct drv *d, uint64_t bytes, uint64_t align)
{
	uint64_t at = (d->heap + align - 1) & ~(align - 1);

	d->heap = at + bytes;
	assert(d->heap <= FAKE_RAM);
	return at;
}

uint32_t drv_read(struct drv *d, unsigned reg, unsigned size)
{
	return fake_read(d->f, d->common + reg, size);
}

void drv_write(struct drv *d, unsigned reg, uint32_t value, unsigned size)
{
	fake_write(d->f, d->common + reg, value, size);
}

uint8_t drv_status(struct drv *d)
{
	return drv_read(d, DRV_STATUS, 1);
}

uint64_t drv_offered(struct drv *d)
{
	uint64_t f;

	drv_write(d, DRV_DEVICE_FEATURE_SELECT, 0, 4);
	f = drv_read(d, DRV_DEVICE_FEATURE, 4);
	drv_write(d, DRV_DEVICE_FEATURE_SELECT, 1, 4);
	return f | (uint64_t)drv_read(d, DRV_DEVICE_FEATURE, 4) << 32;
}

bool drv_negotiate(struct drv *d, uint64_t wanted, bool msix)
{
	drv_write(d, DRV_STATUS, 0, 1);
	assert(drv_status(d) == 0);
	drv_write(d, DRV_STATUS, 1, 1);
	drv_write(d, DRV_STATUS, 3, 1);
	d->features = drv_offered(d) & wanted;
	drv_write(d, DRV_DRIVER_FEATURE_SELECT, 0, 4);
	drv_write(d, DRV_DRIVER_FEATURE, d->features, 4);
	drv_write(d, DRV_DRIVER_FEATURE_SELECT, 1, 4);
	drv_write(d, DRV_DRIVER_FEATURE, d->features >> 32, 4);
	drv_write(d, DRV_STATUS, 11, 1);
	if (!(drv_status(d) & 8))
		return false;
	d->use_msix = msix && d->msix_cap;
	if (d->use_msix) {
		unsigned n = (cfg(d, d->msix_cap + 2, 2) & 0x7ff) + 1;

		for (unsigned i = 0; i < n; i++) {
			fake_write(d->f, d->msix + 16 * i, DRV_MSI_ADDRESS, 8);
			fake_write(d->f, d->msix + 16 * i + 8, DRV_MSI_DATA(i), 4);
			fake_write(d->f, d->msix + 16 * i + 12, 0, 4);
		}
		drv_write(d, DRV_CONFIG_VECTOR, 0, 2);
	}
	if (d->msix_cap)
		cfg_set(d, d->msix_cap + 2, d->use_msix ? 0x8000 : 0, 2);
	return true;
}

void drv_queue(struct drv *d, unsigned n, struct drv_queue *q, uint16_t size)
{
	drv_write(d, DRV_QUEUE_SELECT, n, 2);
	if (!size)
		size = drv_read(d, DRV_QUEUE_SIZE, 2);
	assert(size);
	drv_queue_init(q, d->ram, drv_alloc(d, drv_queue_bytes(size), 4096), size, d->features & DRV_F_PACKED,
		       d->features & DRV_F_EVENT_IDX, d->features & DRV_F_INDIRECT);
	drv_write(d, DRV_QUEUE_SIZE, size, 2);
	drv_write(d, DRV_QUEUE_DESC, q->desc, 4);
	drv_write(d, DRV_QUEUE_DESC + 4, q->desc >> 32, 4);
	fake_write(d->f, d->common + DRV_QUEUE_DRIVER, q->avail, 8);
	fake_write(d->f, d->common + DRV_QUEUE_DEVICE, q->used, 8);
	if (d->use_msix)
		drv_write(d, DRV_QUEUE_VECTOR, n + 1, 2);
	drv_write(d, DRV_QUEUE_ENABLE, 1, 2);
}

void drv_ok(struct drv *d)
{
	drv_write(d, DRV_STATUS, 15, 1);
}

void drv_notify(struct drv *d, unsigned n)
{
	drv_write(d, DRV_QUEUE_SELECT, n, 2);
	fake_write(d->f, d->notify + drv_read(d, DRV_QUEUE_NOTIFY_OFF, 2) * d->notify_step, n, 2);
}

unsigned drv_messages(struct drv *d, unsigned vector)
{
	struct fake_msi m;
	unsigned n = 0;

	while (fake_msi_take(d->f, &m))
		n += m.address == DRV_MSI_ADDRESS && m.data == DRV_MSI_DATA(vector);
	return n;
}

void *drv_wait(struct drv *d, struct drv_queue *q, uint32_t *len)
{
	void *token;

	/* I/O threads are real, and so is their time. */
	for (unsigned i = 0; i < 10000; i++) {
		fake_machine_loop(d->f);
		token = drv_get(q, len);
		if (token)
			return token;
		usleep(1000);
	}
	fprintf(stderr, "the device does not answer\n");
	abort();
}

uint32_t drv_request(struct drv *d, unsigned n, struct drv_queue *q, const struct drv_buf *bufs, unsigned count)
{
	uint32_t len;

	if (!drv_add(q, bufs, count, q))
		abort();
	if (drv_must_notify(q))
		drv_notify(d, n);
	if (drv_wait(d, q, &len) != q)
		abort();
	return len;
}
