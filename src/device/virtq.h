/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A virtqueue from the device's side (Virtio 1.2 §2.6-2.8), split or packed.
 *
 * It knows guest memory and nothing else of a machine. The driver is hostile:
 * every field is read once, a chain is bounded by the queue size (an indirect
 * table by VIRTQ_MAX), and what makes no sense breaks the queue: broken() is
 * called once and every later pop gives -EIO until virtq_reset().
 *
 * Thread safety: one thread at a time.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "machine/memory.h"
#include "machine/state.h"

#define VIRTQ_MAX 1024 /* largest queue, longest indirect table */
#define VIRTQ_NO_VECTOR 0xffff

#define VIRTIO_F_INDIRECT_DESC (1ull << 28)
#define VIRTIO_F_EVENT_IDX (1ull << 29)
#define VIRTIO_F_VERSION_1 (1ull << 32)
#define VIRTIO_F_RING_PACKED (1ull << 34)
#define VIRTIO_F_RING_RESET (1ull << 40)

/* As it lies in memory: split §2.7.5, packed §2.8.13. */
struct virtq_desc {
	uint64_t addr;
	uint32_t len;
	union {
		struct {
			uint16_t flags, next;
		} split;
		struct {
			uint16_t id, flags;
		} packed;
	};
};
enum {
	VIRTQ_DESC_NEXT = 1,
	VIRTQ_DESC_WRITE = 2,
	VIRTQ_DESC_INDIRECT = 4,
	VIRTQ_DESC_AVAIL = 1 << 7,
	VIRTQ_DESC_USED = 1 << 15
};

/* A buffer that the driver made available. Zero-initialize once; reusable; virtq_elem_free() releases. */
struct virtq_elem {
	uint16_t id;     /* split: head; packed: buffer id */
	uint16_t ndesc;  /* ring entries it takes: split 1 */
	uint16_t nout, nin;       /* iov[0..nout) to read, iov[nout..nout+nin) to write */
	uint64_t out_len, in_len; /* bytes of them */
	struct iovec *iov;        /* the device may change it */
	struct virtq_seg {
		uint64_t gpa, len;
	} *seg;                   /* guest addresses of iov as they were popped */
	unsigned room;
};

struct virtqueue {
	/* The owner's, set once */
	const struct guest_mem *mem;
	void (*broken_fn)(struct virtqueue *vq, const char *why);
	void *opaque;
	uint16_t index, max; /* largest size that the driver may choose */

	/* What the driver configured */
	uint64_t features; /* of VIRTIO_F_* above */
	uint16_t size, vector;
	bool enabled;
	uint64_t desc, driver, device; /* guest addresses of the three areas */

	/* Positions: what a saved queue goes on from */
	uint16_t avail_pos, used_pos; /* split: free-running; packed: ring entry */
	bool avail_wrap, used_wrap;   /* packed */
	uint16_t since;               /* entries used since the last decision about an interrupt */

	/* Derived */
	bool broken;
	bool waiting;                 /* the driver is asked to notify */
	uint8_t *ring, *avail, *used; /* host pointers of the areas */
	uint16_t avail_seen;          /* split: avail idx as last read */
	uint16_t inflight;            /* ring entries popped and not filled; 0 whenever a state is saved */
	uint16_t filled, filled_desc; /* elements and entries filled but not flushed */
	uint16_t first_flags;         /* packed: of the first one filled */
};

extern const struct state_desc virtq_state; /* configuration and positions; nothing may be in flight */

/* Settings the driver made are gone; size is max again. */
void virtq_reset(struct virtqueue *vq);
/* Map the areas for size and features as chosen, start from the beginning: 0, -EINVAL (size), -EFAULT (addresses). */
int virtq_enable(struct virtqueue *vq);
/* The same from the positions that are there, after loading a state. */
int virtq_resume(struct virtqueue *vq, struct err *err);

/* Next buffer: 1, 0 if there is none, -EIO if the queue is (now) broken. */
int virtq_pop(struct virtqueue *vq, struct virtq_elem *e);
/* Give back the buffer popped last, which is then popped again; repeatable, newest first. */
void virtq_unpop(struct virtqueue *vq, const struct virtq_elem *e);
void virtq_elem_free(struct virtq_elem *e);

/* Return a buffer with the first `len` bytes of its writable part written. Visible to the driver after virtq_flush(),
 * all at once. */
void virtq_fill(struct virtqueue *vq, const struct virtq_elem *e, uint32_t len);
void virtq_flush(struct virtqueue *vq);
static inline void virtq_push(struct virtqueue *vq, const struct virtq_elem *e, uint32_t len)
{
	virtq_fill(vq, e, len);
	virtq_flush(vq);
}
/* Does the driver want an interrupt for what was flushed since the last call? */
bool virtq_should_interrupt(struct virtqueue *vq);

/* Ask for notifications. True: something is there already, and may come without one: pop again. */
bool virtq_wait(struct virtqueue *vq);
/* The next buffer as of virtq_pop(); if there is none, a notification follows when there is. */
int virtq_pop_or_wait(struct virtqueue *vq, struct virtq_elem *e);
/* No notifications, please, while the device is at it anyway. */
void virtq_ignore(struct virtqueue *vq);
/* Nothing to pop. True for a broken queue. */
bool virtq_empty(struct virtqueue *vq);

/* The device wrote bytes [at, at+len) of the writable part of `e` beyond what virtq_fill() is told. */
void virtq_elem_written(struct virtqueue *vq, const struct virtq_elem *e, uint64_t at, uint64_t len);

/* Scatter and gather helpers: copy between `data` and iov from byte `at` on; returns the bytes copied. */
size_t iov_read(const struct iovec *iov, unsigned n, size_t at, void *data, size_t len);
size_t iov_write(const struct iovec *iov, unsigned n, size_t at, const void *data, size_t len);
/* Drop `len` bytes from the front; *iov and *n move on. */
void iov_skip(struct iovec **iov, uint16_t *n, size_t len);

/* For the two ring layouts' files. */
void virtq_break(struct virtqueue *vq, const char *why);
int virtq_add_buffer(struct virtqueue *vq, struct virtq_elem *e, uint64_t addr, uint32_t len, bool write);
const uint8_t *virtq_indirect_table(struct virtqueue *vq, const struct virtq_desc *d, unsigned *n);
struct virtq_desc virtq_load_desc(const uint8_t *p);
static inline uint16_t virtq_load16(const uint8_t *p)
{
	return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE);
}
static inline void virtq_store16(uint8_t *p, uint16_t v)
{
	__atomic_store_n((uint16_t *)p, v, __ATOMIC_RELEASE);
}
/* §2.7.10: does the step from `old` to `new` pass `event`? */
static inline bool virtq_passed(uint16_t event, uint16_t new, uint16_t old)
{
	return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}
struct virtq_layout {
	int (*pop)(struct virtqueue *vq, struct virtq_elem *e);
	void (*unpop)(struct virtqueue *vq, const struct virtq_elem *e);
	void (*fill)(struct virtqueue *vq, const struct virtq_elem *e, uint32_t len);
	void (*flush)(struct virtqueue *vq);
	bool (*should_interrupt)(struct virtqueue *vq, uint16_t since);
	void (*ask)(struct virtqueue *vq, bool on);
	bool (*empty)(struct virtqueue *vq);
};
extern const struct virtq_layout virtq_split, virtq_packed;
