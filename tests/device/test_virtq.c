/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Both ring layouts against a driver of their own, and against drivers that lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/virtq.h"
#include "virtio_driver.h"

#define RAM (8u << 20)
#define RING_AT 0x10000
#define DATA_AT 0x400000

static uint8_t *ram;
static struct guest_mem mem;
static unsigned breaks;
static char break_reason[128];
static uint64_t dirty;

static void on_break(struct virtqueue *vq, const char *why)
{
	breaks++;
	strcpy(break_reason, why);
}

static void on_written(void *opaque, uint64_t gpa, uint64_t len)
{
	assert_true(gpa + len <= RAM);
	dirty += len;
}

static int setup(void **state)
{
	struct guest_region lo = { .gpa = 0, .size = RAM / 2, .fd = -1 },
			    hi = { .gpa = RAM / 2, .size = RAM / 2, .fd = -1 };

	ram = calloc(1, RAM);
	memset(&mem, 0, sizeof(mem));
	/* Two regions side by side: buffers may lie across. */
	lo.hva = ram;
	hi.hva = ram + RAM / 2;
	mem.written = on_written;
	breaks = 0;
	dirty = 0;
	return mem_add(&mem, &lo, NULL) || mem_add(&mem, &hi, NULL);
}

static int teardown(void **state)
{
	free(ram);
	return 0;
}

static uint64_t features(const struct drv_queue *q)
{
	return (q->packed ? VIRTIO_F_RING_PACKED : 0) | (q->event_idx ? VIRTIO_F_EVENT_IDX : 0) |
	       (q->indirect ? VIRTIO_F_INDIRECT_DESC : 0);
}

static void make_queues(struct virtqueue *vq, struct drv_queue *q, unsigned kind, uint16_t size)
{
	drv_queue_init(q, ram, RING_AT, size, kind & 1, kind & 2, kind & 4);
	memset(vq, 0, sizeof(*vq));
	vq->mem = &mem;
	vq->broken_fn = on_break;
	vq->max = 1024;
	virtq_reset(vq);
	vq->size = size;
	vq->features = features(q);
	vq->desc = q->desc;
	vq->driver = q->avail;
	vq->device = q->used;
	assert_int_equal(virtq_enable(vq), 0);
}

static uint64_t rnd_state;
static unsigned rnd(unsigned n)
{
	rnd_state = rnd_state * 6364136223846793005ull + 1442695040888963407ull;
	return (rnd_state >> 33) % n;
}

/* ---- Honest traffic ----------------------------------------------------------- */

#define JOBS 64
struct job {
	bool busy;
	struct drv_buf buf[12];
	unsigned n;
	uint32_t out_len, in_len, expect;
	uint64_t base;
};

static struct job jobs[JOBS];

static void make_job(struct job *j, unsigned index)
{
	unsigned outs = rnd(5), ins = rnd(5);
	uint64_t at;

	/* The middle job's buffers lie across the border of the regions. */
	j->base = at = DATA_AT - (JOBS / 2) * 0x4000 + index * 0x4000 - 0x800;
	j->n = j->out_len = j->in_len = 0;
	if (outs + ins == 0)
		outs = 1;
	for (unsigned i = 0; i < outs + ins; i++) {
		uint32_t len = 1 + rnd(rnd(8) ? 100 : 1300);

		j->buf[j->n++] = (struct drv_buf){ at, len, i >= outs };
		if (i < outs) {
			for (unsigned k = 0; k < len; k++)
				ram[at + k] = index * 31 + j->out_len + k;
			j->out_len += len;
		} else {
			memset(ram + at, 0xee, len);
			j->in_len += len;
		}
		at += len + rnd(3);
	}
}

/* What the device makes of it: checks the readable part, writes some of the other. */
static uint32_t device_work(struct virtq_elem *e, unsigned index)
{
	static uint8_t data[65536];
	struct job *j = &jobs[index];
	uint32_t len = j->in_len ? rnd(j->in_len + 1) : 0;

	assert_int_equal(e->out_len, j->out_len);
	assert_int_equal(e->in_len, j->in_len);
	assert_int_equal(iov_read(e->iov, e->nout, 0, data, sizeof(data)), j->out_len);
	for (unsigned k = 0; k < j->out_len; k++)
		assert_int_equal(data[k], (uint8_t)(index * 31 + k));
	for (unsigned k = 0; k < len; k++)
		data[k] = index * 17 + k;
	assert_int_equal(iov_write(e->iov + e->nout, e->nin, 0, data, len), len);
	j->expect = len;
	return len;
}

static void driver_check(struct job *j, uint32_t len)
{
	uint32_t k = 0;

	assert_true(j->busy);
	assert_int_equal(len, j->expect);
	for (unsigned i = 0; i < j->n; i++) {
		if (!j->buf[i].write)
			continue;
		for (uint32_t b = 0; b < j->buf[i].len; b++, k++)
			assert_int_equal(ram[j->buf[i].gpa + b], k < len ? (uint8_t)((j - jobs) * 17 + k) : 0xee);
	}
	j->busy = false;
}

/* Which job an element is: by the address of its first buffer. */
static unsigned job_of(const struct virtq_elem *e)
{
	uint64_t at = e->seg[0].gpa;

	for (unsigned i = 0; i < JOBS; i++)
		if (jobs[i].busy && jobs[i].base == at)
			return i;
	fail_msg("an element that nobody sent");
	return 0;
}

static void save_load(struct virtqueue *vq)
{
	struct state_buf b = { 0 };
	struct state_reader r;
	struct virtqueue fresh = { .mem = vq->mem, .broken_fn = vq->broken_fn, .max = vq->max, .index = vq->index };
	struct err err = ERR_INIT;

	assert_int_equal(state_save(&b, "q", &virtq_state, vq, NULL), 0);
	virtq_reset(&fresh);
	r = (struct state_reader){ .data = b.data, .len = b.len };
	assert_int_equal(state_next(&r, NULL), 1);
	assert_int_equal(state_load(&r, &virtq_state, &fresh, &err), 0);
	fresh.features = vq->features;
	if (virtq_resume(&fresh, &err))
		fail_msg("%s", err_msg(&err));
	*vq = fresh;
	state_buf_free(&b);
}

static void traffic(unsigned kind, uint16_t size)
{
	struct virtqueue vq;
	struct drv_queue q;
	struct virtq_elem elem[JOBS] = { 0 };
	bool have[JOBS] = { 0 }, device_sleeps = false, driver_sleeps = false, kicked = false, irq = false;
	unsigned done = 0, holding = 0;
	uint64_t filled = 0;

	make_queues(&vq, &q, kind, size);
	memset(jobs, 0, sizeof(jobs));
	rnd_state = kind * 1000 + size;
	while (done < 20000) {
		/* Driver: add a few, notify if asked. */
		for (unsigned n = rnd(6); n; n--) {
			unsigned i = rnd(JOBS);

			if (jobs[i].busy)
				continue;
			make_job(&jobs[i], i);
			if (!drv_add(&q, jobs[i].buf, jobs[i].n, &jobs[i]))
				continue;
			jobs[i].busy = true;
			if (rnd(3))
				kicked |= drv_must_notify(&q);
		}
		if (q.added)
			kicked |= drv_must_notify(&q);
		/* Device: asleep until the bell rings, or at work for a while. */
		if (kicked)
			device_sleeps = false;
		kicked = false;
		if (!device_sleeps) {
			unsigned budget = rnd(12);

			if (rnd(2))
				virtq_ignore(&vq);
			while (holding < JOBS && budget) {
				unsigned slot = 0;
				int ret;

				while (have[slot])
					slot++;
				ret = virtq_pop(&vq, &elem[slot]);
				assert_true(ret >= 0);
				if (!ret)
					break;
				if (!rnd(10)) { /* second thoughts */
					virtq_unpop(&vq, &elem[slot]);
					continue;
				}
				have[slot] = true;
				holding++;
				budget--;
			}
			/* Complete in any order, alone or several together. */
			for (unsigned n = holding ? rnd(holding + 1) : 0; n; n--) {
				unsigned slot = rnd(JOBS);

				while (!have[slot])
					slot = (slot + 1) % JOBS;
				filled = device_work(&elem[slot], job_of(&elem[slot]));
				virtq_fill(&vq, &elem[slot], filled);
				have[slot] = false;
				holding--;
				if (rnd(2))
					virtq_flush(&vq);
			}
			virtq_flush(&vq);
			irq |= virtq_should_interrupt(&vq);
			if (budget && !virtq_wait(&vq) && !holding)
				device_sleeps = true;
			if (!holding && !rnd(20))
				save_load(&vq);
		}
		/* Driver: asleep until the interrupt. */
		if (irq)
			driver_sleeps = false;
		irq = false;
		if (!driver_sleeps) {
			void *token;
			uint32_t len;

			if (rnd(2))
				drv_interrupts(&q, false);
			while (rnd(8) && (token = drv_get(&q, &len))) {
				driver_check(token, len);
				done++;
			}
			if (rnd(2) && !drv_interrupts(&q, true))
				driver_sleeps = true;
		}
		/* Both asleep with work to do: somebody lost a wake-up. */
		if (device_sleeps && driver_sleeps)
			for (unsigned i = 0; i < JOBS; i++)
				if (jobs[i].busy)
					fail_msg("kind %u: a job is lost after %u", kind, done);
	}
	assert_int_equal(breaks, 0);
	assert_true(dirty > 0);
	for (unsigned i = 0; i < JOBS; i++)
		virtq_elem_free(&elem[i]);
}

static void test_traffic(void **state)
{
	for (unsigned kind = 0; kind < DRV_KINDS; kind++) {
		traffic(kind, 64);
		traffic(kind, 16);
		traffic(kind, 256);
		if (kind & 1) {
			traffic(kind, 37); /* a packed ring may have any size */
			traffic(kind, 9);
		}
	}
}

/* Interrupts are not sent where the driver said it wants none. */
static void test_suppression(void **state)
{
	for (unsigned kind = 0; kind < DRV_KINDS; kind++) {
		struct virtqueue vq;
		struct drv_queue q;
		struct virtq_elem e = { 0 };
		struct drv_buf b = { DATA_AT, 64, true };
		unsigned irqs = 0;
		uint32_t len;

		make_queues(&vq, &q, kind, 8);
		for (unsigned i = 0; i < 100; i++) {
			bool on = i & 1;

			drv_interrupts(&q, on);
			assert_true(drv_add(&q, &b, 1, &b));
			assert_int_equal(virtq_pop(&vq, &e), 1);
			virtq_push(&vq, &e, 10);
			if (virtq_should_interrupt(&vq))
				irqs += on ? 1 : 1000;
			assert_false(virtq_should_interrupt(&vq)); /* asked and answered */
			assert_ptr_equal(drv_get(&q, &len), &b);
			assert_int_equal(len, 10);
		}
		assert_int_equal(irqs, 50);
		/* The device is at it: no bells. */
		virtq_wait(&vq);
		virtq_ignore(&vq);
		drv_add(&q, &b, 1, &b);
		if (kind != 2 && kind != 6) /* split with event indices has no "off" */
			assert_false(drv_must_notify(&q));
		virtq_elem_free(&e);
	}
}

/* ---- Lies ----------------------------------------------------------------------- */

static void put(uint64_t at, uint64_t addr, uint32_t len, uint16_t a, uint16_t b)
{
	memcpy(ram + at, &addr, 8);
	memcpy(ram + at + 8, &len, 4);
	memcpy(ram + at + 12, &a, 2);
	memcpy(ram + at + 14, &b, 2);
}

static void put16(uint64_t at, uint16_t v)
{
	memcpy(ram + at, &v, 2);
}

static void expect_break(struct virtqueue *vq, const char *why)
{
	struct virtq_elem e = { 0 };

	breaks = 0;
	assert_int_equal(virtq_pop(vq, &e), -EIO);
	assert_int_equal(breaks, 1);
	if (!strstr(break_reason, why))
		fail_msg("'%s' is not '%s'", break_reason, why);
	/* And so it stays, without a second complaint. */
	assert_int_equal(virtq_pop(vq, &e), -EIO);
	assert_int_equal(breaks, 1);
	assert_false(virtq_wait(vq));
	assert_true(virtq_empty(vq));
	virtq_elem_free(&e);
}

#define NEXT 1
#define WRITE 2
#define INDIRECT 4
#define TABLE 0x200000

/* Descriptor 0 is written by the case; it is made available. */
static void split_case(void (*fill)(void), const char *why)
{
	struct virtqueue vq;
	struct drv_queue q;

	make_queues(&vq, &q, 4, 8);
	fill();
	put16(q.avail + 4, 0);
	put16(q.avail + 2, 1);
	expect_break(&vq, why);
}

static void s_loop(void) { put(RING_AT, DATA_AT, 16, NEXT, 0); }
static void s_loop2(void)
{
	put(RING_AT, DATA_AT, 16, NEXT, 3);
	put(RING_AT + 48, DATA_AT, 16, NEXT, 5);
	put(RING_AT + 80, DATA_AT, 16, NEXT, 3);
}
static void s_next(void) { put(RING_AT, DATA_AT, 16, NEXT, 8); }
static void s_outside(void) { put(RING_AT, RAM, 16, 0, 0); }
static void s_over_end(void) { put(RING_AT, RAM - 8, 16, WRITE, 0); }
static void s_wrap(void) { put(RING_AT, UINT64_MAX - 7, 16, 0, 0); }
static void s_huge(void) { put(RING_AT, 0, UINT32_MAX, 0, 0); }
static void s_order(void)
{
	put(RING_AT, DATA_AT, 16, WRITE | NEXT, 1);
	put(RING_AT + 16, DATA_AT, 16, 0, 0);
}
static void s_indirect_next(void) { put(RING_AT, TABLE, 16, INDIRECT | NEXT, 1); }
static void s_indirect_len(void) { put(RING_AT, TABLE, 24, INDIRECT, 0); }
static void s_indirect_zero(void) { put(RING_AT, TABLE, 0, INDIRECT, 0); }
static void s_indirect_huge(void) { put(RING_AT, TABLE, 16 * 1025, INDIRECT, 0); }
static void s_indirect_outside(void) { put(RING_AT, RAM - 16, 64, INDIRECT, 0); }
static void s_indirect_nested(void)
{
	put(RING_AT, TABLE, 16, INDIRECT, 0);
	put(TABLE, TABLE, 16, INDIRECT, 0);
}
static void s_indirect_loop(void)
{
	put(RING_AT, TABLE, 32, INDIRECT, 0);
	put(TABLE, DATA_AT, 1, NEXT, 1);
	put(TABLE + 16, DATA_AT, 1, NEXT, 0);
}
static void s_indirect_leave(void)
{
	put(RING_AT, TABLE, 32, INDIRECT, 0);
	put(TABLE, DATA_AT, 1, NEXT, 2);
}

static void test_bad_split(void **state)
{
	struct virtqueue vq;
	struct drv_queue q;

	split_case(s_loop, "a loop of descriptors");
	split_case(s_loop2, "a loop of descriptors");
	split_case(s_next, "beyond the queue");
	split_case(s_outside, "outside of memory");
	split_case(s_over_end, "outside of memory");
	split_case(s_wrap, "outside of memory");
	split_case(s_huge, "outside of memory");
	split_case(s_order, "readable buffer after a writable");
	split_case(s_indirect_next, "not the last");
	split_case(s_indirect_len, "impossible length");
	split_case(s_indirect_zero, "impossible length");
	split_case(s_indirect_huge, "impossible length");
	split_case(s_indirect_outside, "outside of memory");
	split_case(s_indirect_nested, "in an indirect table");
	split_case(s_indirect_loop, "a loop in an indirect table");
	split_case(s_indirect_leave, "leaves its table");
	/* A head that is none. */
	make_queues(&vq, &q, 0, 8);
	put16(q.avail + 4, 8);
	put16(q.avail + 2, 1);
	expect_break(&vq, "beyond the queue");
	/* An index that jumps. */
	make_queues(&vq, &q, 0, 8);
	put16(q.avail + 2, 9);
	expect_break(&vq, "more buffers available");
	/* Indirect without the feature. */
	make_queues(&vq, &q, 0, 8);
	put(RING_AT, TABLE, 16, INDIRECT, 0);
	put16(q.avail + 2, 1);
	expect_break(&vq, "without the feature");
}

/* The same buffer again and again, without waiting for it: no more than the queue holds. */
static void test_overcommit(void **state)
{
	for (unsigned kind = 0; kind < 2; kind++) {
		struct virtqueue vq;
		struct drv_queue q;
		struct virtq_elem e = { 0 };
		unsigned n = 0;

		make_queues(&vq, &q, kind, 8);
		breaks = 0;
		for (unsigned i = 0; i < 100; i++) {
			if (kind) {
				bool wrap = !(i / 8 & 1);

				put(RING_AT + 16 * (i % 8), DATA_AT, 16, 0, wrap ? 1 << 7 : 1 << 15);
			} else {
				put(RING_AT, DATA_AT, 16, 0, 0);
				put16(q.avail + 2, i + 1);
			}
			n += virtq_pop(&vq, &e) > 0;
		}
		assert_int_equal(n, 8);
		assert_int_equal(breaks, 1);
		virtq_elem_free(&e);
	}
}

static void packed_case(const char *why, const struct virtq_desc *d, unsigned n, uint64_t feature)
{
	struct virtqueue vq;
	struct drv_queue q;

	make_queues(&vq, &q, 1 | 4, 8);
	vq.features = VIRTIO_F_RING_PACKED | feature;
	for (unsigned i = 0; i < n; i++)
		put(RING_AT + 16 * i, d[i].addr, d[i].len, d[i].packed.id, d[i].packed.flags);
	expect_break(&vq, why);
}

#define AVAIL (1 << 7)
static void test_bad_packed(void **state)
{
	const uint64_t ind = VIRTIO_F_INDIRECT_DESC;
	struct virtq_desc d[16] = { 0 };

	/* More than the queue: every entry says "next". */
	for (unsigned i = 0; i < 8; i++)
		d[i] = (struct virtq_desc){ .addr = DATA_AT, .len = 1, .packed = { 0, AVAIL | NEXT } };
	packed_case("longer than the queue", d, 8, ind);
	d[1].packed.flags = 0;
	packed_case("not available", d, 2, ind);
	d[0] = (struct virtq_desc){ .addr = RAM - 1, .len = 2, .packed = { 0, AVAIL } };
	packed_case("outside of memory", d, 1, ind);
	d[0] = (struct virtq_desc){ .addr = DATA_AT, .len = 2, .packed = { 0, AVAIL | WRITE | NEXT } };
	d[1] = (struct virtq_desc){ .addr = DATA_AT, .len = 2, .packed = { 0, AVAIL } };
	packed_case("readable buffer after", d, 2, ind);
	d[0] = (struct virtq_desc){ .addr = TABLE, .len = 16, .packed = { 0, AVAIL | INDIRECT | NEXT } };
	packed_case("indirect descriptor in a chain", d, 2, ind);
	d[0] = (struct virtq_desc){ .addr = DATA_AT, .len = 16, .packed = { 0, AVAIL | NEXT } };
	d[1] = (struct virtq_desc){ .addr = TABLE, .len = 16, .packed = { 0, AVAIL | INDIRECT } };
	packed_case("indirect descriptor in a chain", d, 2, ind);
	d[0] = (struct virtq_desc){ .addr = TABLE, .len = 17, .packed = { 0, AVAIL | INDIRECT } };
	packed_case("impossible length", d, 1, ind);
	d[0].len = 1025 * 16;
	packed_case("impossible length", d, 1, ind);
	d[0].len = 16;
	d[0].addr = RAM - 8;
	packed_case("outside of memory", d, 1, ind);
	d[0].addr = TABLE;
	packed_case("without the feature", d, 1, 0);
}

/* A chain of the queue's full length and the longest table are fine. */
static void test_longest(void **state)
{
	struct virtqueue vq;
	struct drv_queue q;
	struct virtq_elem e = { 0 };

	make_queues(&vq, &q, 4, 8);
	for (unsigned i = 0; i < 8; i++)
		put(RING_AT + 16 * i, DATA_AT, 3, i < 7 ? NEXT : 0, i + 1);
	put16(q.avail + 2, 1);
	assert_int_equal(virtq_pop(&vq, &e), 1);
	assert_int_equal(e.nout, 8);
	assert_int_equal(e.out_len, 24);
	make_queues(&vq, &q, 4, 8);
	for (unsigned i = 0; i < 1024; i++)
		put(TABLE + 16 * i, DATA_AT + i, 2, i < 1023 ? NEXT | (i ? WRITE : 0) : WRITE, i + 1);
	put(RING_AT, TABLE, 16 * 1024, INDIRECT, 0);
	put16(q.avail + 2, 1);
	assert_int_equal(virtq_pop(&vq, &e), 1);
	assert_int_equal(e.nout, 1);
	assert_int_equal(e.nin, 1023);
	assert_int_equal(breaks, 0);
	virtq_elem_free(&e);
}

static void test_enable(void **state)
{
	struct virtqueue vq;
	struct drv_queue q;

	make_queues(&vq, &q, 0, 8);
	vq.size = 12;
	assert_int_equal(virtq_enable(&vq), -EINVAL); /* a split ring: a power of two */
	vq.features = VIRTIO_F_RING_PACKED;
	assert_int_equal(virtq_enable(&vq), 0);
	vq.size = 0;
	assert_int_equal(virtq_enable(&vq), -EINVAL);
	vq.size = 2048;
	assert_int_equal(virtq_enable(&vq), -EINVAL);
	vq.size = 8;
	vq.desc = RING_AT + 8;
	assert_int_equal(virtq_enable(&vq), -EFAULT);
	vq.desc = RAM - 64;
	assert_int_equal(virtq_enable(&vq), -EFAULT);
	vq.desc = RAM / 2 - 64; /* a ring in two regions */
	assert_int_equal(virtq_enable(&vq), -EFAULT);
	vq.desc = q.desc;
	vq.device = UINT64_MAX - 3;
	assert_int_equal(virtq_enable(&vq), -EFAULT);
	mem.region[1].readonly = true;
	vq.device = RAM / 2;
	assert_int_equal(virtq_enable(&vq), -EFAULT); /* ROM */
	mem.region[1].readonly = false;
	assert_int_equal(virtq_enable(&vq), 0);
}

/* Buffers in ROM may be read, not written. */
static void test_rom(void **state)
{
	struct virtqueue vq;
	struct drv_queue q;
	struct virtq_elem e = { 0 };
	struct drv_buf b = { DATA_AT, 64, false };

	mem.region[1].readonly = true;
	make_queues(&vq, &q, 0, 8);
	drv_add(&q, &b, 1, &b);
	assert_int_equal(virtq_pop(&vq, &e), 1);
	b.write = true;
	drv_add(&q, &b, 1, &b);
	expect_break(&vq, "outside of memory");
	virtq_elem_free(&e);
}

/* States that lie. */
static void test_bad_resume(void **state)
{
	struct virtqueue vq;
	struct drv_queue q;
	struct err err = ERR_INIT;

	make_queues(&vq, &q, 1, 8);
	vq.avail_pos = vq.used_pos = 8;
	assert_int_equal(virtq_resume(&vq, &err), -EINVAL);
	assert_false(vq.enabled);
	make_queues(&vq, &q, 0, 8);
	vq.avail_pos = 3;
	err = ERR_INIT;
	assert_int_equal(virtq_resume(&vq, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "in flight"));
	make_queues(&vq, &q, 0, 8);
	vq.desc = RAM;
	assert_int_equal(virtq_resume(&vq, NULL), -EINVAL);
	make_queues(&vq, &q, 0, 8);
	vq.size = 2000;
	assert_int_equal(virtq_resume(&vq, NULL), -EINVAL);
	make_queues(&vq, &q, 0, 8);
	vq.avail_pos = vq.used_pos = 65535;
	assert_int_equal(virtq_resume(&vq, NULL), 0);
}

static void test_iov(void **state)
{
	uint8_t a[4] = "abcd", b[1] = "e", c[5] = "fghij", out[16];
	struct iovec iov[4] = { { a, 4 }, { b, 0 }, { b, 1 }, { c, 5 } }, *p = iov;
	uint16_t n = 4;

	assert_int_equal(iov_read(iov, 4, 2, out, 6), 6);
	assert_memory_equal(out, "cdefgh", 6);
	assert_int_equal(iov_read(iov, 4, 8, out, 6), 2);
	assert_int_equal(iov_read(iov, 4, 10, out, 6), 0);
	assert_int_equal(iov_write(iov, 4, 3, "XYZ", 3), 3);
	assert_memory_equal(a, "abcX", 4);
	assert_memory_equal(b, "Y", 1);
	assert_memory_equal(c, "Zghij", 5);
	iov_skip(&p, &n, 6);
	assert_int_equal(n, 1);
	assert_memory_equal(p->iov_base, "ghij", 4);
	assert_int_equal(p->iov_len, 4);
	iov_skip(&p, &n, 100);
	assert_int_equal(n, 0);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_traffic),    TEST(test_suppression), TEST(test_bad_split), TEST(test_bad_packed),
		TEST(test_overcommit), TEST(test_longest),     TEST(test_enable),    TEST(test_rom),
		TEST(test_bad_resume), TEST(test_iov),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
