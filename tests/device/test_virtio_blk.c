/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device/classes.h"
#include "image/block.h"
#include "util/log.h"
#include "virtio_driver.h"

#define DISK (8u << 20)
#define SECTORS (DISK / 512)

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
#define F_SEG_MAX (1ull << 2)
#define F_RO (1ull << 5)
#define F_BLK_SIZE (1ull << 6)
#define F_FLUSH (1ull << 9)
#define F_TOPOLOGY (1ull << 10)
#define F_WCE (1ull << 11)
#define F_MQ (1ull << 12)
#define F_DISCARD (1ull << 13)
#define F_ZEROES (1ull << 14)
#define F_ALL (F_SEG_MAX | F_RO | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY | F_WCE | F_MQ | F_DISCARD | F_ZEROES)

static struct fake_machine *f;
static struct drv d;
static struct block *disk;
static int disk_fd;
static uint8_t *model;
static bool slow; /* the disk is a file whose writes are synchronous: they take long enough to be caught in flight */

static void machine_up(bool readonly, const char *prop, const char *value)
{
	struct block_options o = { .path = "test disk", .fd = dup(disk_fd), .format = "raw", .readonly = readonly };
	char path[] = "/tmp/keel-disk-XXXXXX";
	struct err err = ERR_INIT;
	struct device *dev;

	if (slow) {
		close(o.fd);
		o.fd = mkstemp(path);
		assert_true(o.fd >= 0);
		unlink(path);
		assert_int_equal(pwrite(o.fd, model, DISK, 0), DISK);
		o.cache = BLOCK_CACHE_WRITETHROUGH;
	}
	disk = block_open(&o, &err);
	assert_non_null(disk);
	f = fake_machine_new();
	fake_device(f, "mch", NULL);
	dev = device_new(f->m, device_class_find("virtio-blk-pci"), "disk", &err);
	device_set_ptr(dev, "drive", disk);
	device_set(dev, "serial", "KEEL-0123456789abcde", NULL);
	if (prop)
		assert_int_equal(device_set(dev, prop, value, NULL), 0);
	if (device_realize(dev, &err))
		fail_msg("%s", err_msg(&err));
	drv_init(&d, f, dev);
	machine_resume(f->m);
}

static void machine_down(void)
{
	machine_pause(f->m);
	fake_machine_free(f);
	block_close(disk);
}

static int setup(void **state)
{
	log_set_level(LOG_ERROR);
	slow = false;
	disk_fd = memfd_create("disk", MFD_CLOEXEC);
	model = malloc(DISK);
	for (unsigned i = 0; i < DISK; i++)
		model[i] = i * 7 + i / 512 * 13;
	if (ftruncate(disk_fd, DISK) || pwrite(disk_fd, model, DISK, 0) != DISK)
		return -1;
	machine_up(false, NULL, NULL);
	return 0;
}

static int teardown(void **state)
{
	machine_down();
	close(disk_fd);
	free(model);
	return 0;
}

/* ---- Requests --------------------------------------------------------------- */

static void put_header(uint64_t at, uint32_t type, uint64_t sector)
{
	uint32_t h[4] = { type, 0, sector, sector >> 32 };

	memcpy(d.ram + at, h, 16);
}

/* One request with data in one piece; status, or the answer's length in *len. */
static uint8_t request(struct drv_queue *q, uint32_t type, uint64_t sector, uint64_t data, uint32_t bytes,
		       uint32_t *len)
{
	uint64_t at = drv_alloc(&d, 32, 16);
	bool write = type != T_OUT && type != T_DISCARD && type != T_WRITE_ZEROES;
	struct drv_buf b[3] = { { at, 16, false }, { data, bytes, write }, { at + 16, 1, true } };
	uint32_t got;

	if (!bytes)
		b[1] = b[2];
	put_header(at, type, sector);
	d.ram[at + 16] = 0xff;
	got = drv_request(&d, 0, q, b, bytes ? 3 : 2);
	if (len)
		*len = got;
	return d.ram[at + 16];
}

static void start(struct drv_queue *q, unsigned kind, uint64_t features)
{
	d.heap = 1 << 20;
	assert_true(drv_negotiate(&d, drv_kind_features(kind) | features, true));
	drv_queue(&d, 0, q, kind & 1 ? 61 : 64);
	drv_ok(&d);
	drv_interrupts(q, true);
}

static void test_config(void **state)
{
	uint64_t all = drv_offered(&d);

	assert_true((all & F_ALL) == (F_ALL & ~F_RO & ~F_MQ));
	assert_true(fake_read(f, d.config, 8) == SECTORS);
	assert_int_equal(fake_read(f, d.config + 12, 4), 254); /* seg_max */
	assert_int_equal(fake_read(f, d.config + 20, 4), 512);
	assert_int_equal(fake_read(f, d.config + 24, 1), 3); /* 4096 = 512 << 3 */
	assert_int_equal(fake_read(f, d.config + 32, 1), 1); /* write-back */
	assert_int_equal(fake_read(f, d.config + 34, 2), 1);
	assert_true(fake_read(f, d.config + 36, 4) > 0);
	assert_int_equal(d.config_len, 60);
	/* Read-only configuration, but for the cache. */
	fake_write(f, d.config, 1, 4);
	assert_int_equal(fake_read(f, d.config, 4), SECTORS);
	machine_down();
	machine_up(true, "num-queues", "4");
	all = drv_offered(&d);
	assert_true(all & F_RO && all & F_MQ && !(all & (F_DISCARD | F_ZEROES)));
	assert_int_equal(fake_read(f, d.config + 34, 2), 4);
	assert_int_equal(drv_read(&d, DRV_NUM_QUEUES, 2), 4);
}

static void test_refusals(void **state)
{
	struct err err = ERR_INIT;
	struct device *dev;

	assert_null(device_add(f->m, "virtio-blk-pci", NULL, &err, NULL));
	assert_non_null(strstr(err.msg, "drive is missing"));
	dev = device_new(f->m, device_class_find("virtio-blk-pci"), NULL, NULL);
	device_set_ptr(dev, "drive", disk);
	device_set(dev, "logical-block-size", "3000", NULL);
	err = ERR_INIT;
	assert_int_equal(device_realize(dev, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "powers of two"));
	dev = device_new(f->m, device_class_find("virtio-blk-pci"), NULL, NULL);
	device_set_ptr(dev, "drive", disk);
	device_set(dev, "serial", "a serial number too long", NULL);
	err = ERR_INIT;
	assert_int_equal(device_realize(dev, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "20 characters"));
}

static void test_read_write(void **state)
{
	for (unsigned kind = 0; kind < DRV_KINDS; kind++) {
		struct drv_queue q;
		uint32_t len;

		start(&q, kind, F_ALL);
		for (unsigned i = 0; i < 50; i++) {
			uint64_t sector = (i * 7919) % (SECTORS - 64), data = 0x300000 + (i % 3) * 0x10010;
			uint32_t bytes = 512 * (1 + i % 60);

			if (i & 1) {
				for (unsigned k = 0; k < bytes; k++)
					d.ram[data + k] = k * i + kind;
				memcpy(model + sector * 512, d.ram + data, bytes);
				assert_int_equal(request(&q, T_OUT, sector, data, bytes, &len), 0);
				assert_int_equal(len, 1);
			} else {
				assert_int_equal(request(&q, T_IN, sector, data, bytes, &len), 0);
				assert_int_equal(len, bytes + 1);
				assert_memory_equal(d.ram + data, model + sector * 512, bytes);
			}
		}
		assert_int_equal(request(&q, T_FLUSH, 0, 0, 0, &len), 0);
		assert_true(drv_messages(&d, 1) > 0);
	}
	/* It is in the file. */
	{
		uint8_t *got = malloc(DISK);

		assert_int_equal(pread(disk_fd, got, DISK, 0), DISK);
		assert_memory_equal(got, model, DISK);
		free(got);
	}
}

/* Any framing: header and status cut into bytes, data glued to both. */
static void test_framing(void **state)
{
	for (unsigned kind = 0; kind < DRV_KINDS; kind++) {
		struct drv_queue q;
		struct drv_buf b[24];
		unsigned n = 0;
		uint64_t at;

		start(&q, kind, 0);
		at = drv_alloc(&d, 4096, 4096);
		put_header(at, T_IN, 5);
		for (unsigned i = 0; i < 16; i++)
			b[n++] = (struct drv_buf){ at + i, 1, false };
		b[n++] = (struct drv_buf){ at + 100, 1, true };
		b[n++] = (struct drv_buf){ at + 101, 510, true };
		b[n++] = (struct drv_buf){ at + 611, 2, true }; /* the last byte of data and the status */
		assert_int_equal(drv_request(&d, 0, &q, b, n), 513);
		assert_memory_equal(d.ram + at + 100, model + 5 * 512, 512);
		assert_int_equal(d.ram[at + 612], 0);
		/* A write with its header and data in one buffer. */
		put_header(at, T_OUT, 9);
		memset(d.ram + at + 16, 0x3c, 512);
		memset(model + 9 * 512, 0x3c, 512);
		b[0] = (struct drv_buf){ at, 16 + 512, false };
		b[1] = (struct drv_buf){ at + 700, 1, true };
		assert_int_equal(drv_request(&d, 0, &q, b, 2), 1);
		assert_int_equal(d.ram[at + 700], 0);
		assert_int_equal(request(&q, T_IN, 9, at, 512, NULL), 0);
		assert_memory_equal(d.ram + at, model + 9 * 512, 512);
	}
}

static void test_get_id(void **state)
{
	struct drv_queue q;
	uint32_t len;

	start(&q, 0, 0);
	memset(d.ram + 0x300000, 0xaa, 64);
	assert_int_equal(request(&q, T_GET_ID, 0, 0x300000, 20, &len), 0);
	assert_memory_equal(d.ram + 0x300000, "KEEL-0123456789abcde", 20);
	assert_int_equal(len, 21);
	assert_int_equal(request(&q, T_GET_ID, 0, 0x300000, 8, &len), 0); /* a short buffer: as much as fits */
	assert_int_equal(len, 9);
}

static void test_errors(void **state)
{
	struct drv_queue q;
	uint32_t len;

	start(&q, 0, F_ALL);
	assert_int_equal(request(&q, T_IN, SECTORS, 0x300000, 512, &len), 1);
	assert_int_equal(len, 1);
	assert_int_equal(request(&q, T_IN, SECTORS - 1, 0x300000, 1024, NULL), 1);
	assert_int_equal(request(&q, T_OUT, UINT64_MAX, 0x300000, 512, NULL), 1);
	assert_int_equal(request(&q, T_IN, UINT64_MAX / 512, 0x300000, 512, NULL), 1);
	assert_int_equal(request(&q, T_IN, 0, 0x300000, 500, NULL), 1);
	assert_int_equal(request(&q, 99, 0, 0x300000, 512, NULL), 2);
	assert_int_equal(request(&q, T_IN, 0, 0x300000, 512, NULL), 0);
	/* The image itself fails: a read inside of it that gives nothing. */
	assert_int_equal(ftruncate(disk_fd, 4096), 0);
	assert_int_equal(request(&q, T_IN, 100, 0x300000, 512, NULL), 1);
	assert_int_equal(request(&q, T_IN, 0, 0x300000, 512, NULL), 0);
	assert_int_equal(drv_status(&d), 15);
	machine_down();
	assert_int_equal(ftruncate(disk_fd, DISK), 0);
	machine_up(true, NULL, NULL);
	start(&q, 0, F_ALL);
	assert_int_equal(request(&q, T_OUT, 0, 0x300000, 512, NULL), 1);
	assert_int_equal(request(&q, T_FLUSH, 0, 0, 0, NULL), 0);
}

static void put_range(uint64_t at, uint64_t sector, uint32_t n, uint32_t flags)
{
	memcpy(d.ram + at, &sector, 8);
	memcpy(d.ram + at + 8, &n, 4);
	memcpy(d.ram + at + 12, &flags, 4);
}

static void test_discard_and_zeroes(void **state)
{
	static const uint8_t zero[128 * 512];
	struct drv_queue q;
	struct stat before, after;

	start(&q, 7, F_ALL);
	fstat(disk_fd, &before);
	put_range(0x300000, 0, 2048, 0);
	put_range(0x300010, 4096, 2048, 0);
	assert_int_equal(request(&q, T_DISCARD, 0, 0x300000, 32, NULL), 0);
	fstat(disk_fd, &after);
	assert_true(after.st_blocks <= before.st_blocks - 4000);
	assert_int_equal(request(&q, T_IN, 2048, 0x310000, 128 * 512, NULL), 0);
	assert_memory_equal(d.ram + 0x310000, model + 2048 * 512, 128 * 512); /* between the two */
	put_range(0x300000, 3000, 64, 0);
	put_range(0x300010, 3064, 64, 1); /* unmap */
	assert_int_equal(request(&q, T_WRITE_ZEROES, 0, 0x300000, 32, NULL), 0);
	assert_int_equal(request(&q, T_IN, 3000, 0x310000, 128 * 512, NULL), 0);
	assert_memory_equal(d.ram + 0x310000, zero, 128 * 512);
	assert_int_equal(request(&q, T_IN, 3128, 0x310000, 512, NULL), 0);
	assert_memory_equal(d.ram + 0x310000, model + 3128 * 512, 512);
	/* Refusals. */
	put_range(0x300000, SECTORS - 1, 2, 0);
	assert_int_equal(request(&q, T_DISCARD, 0, 0x300000, 16, NULL), 1);
	put_range(0x300000, 0, 8, 1);
	assert_int_equal(request(&q, T_DISCARD, 0, 0x300000, 16, NULL), 2);
	put_range(0x300000, 0, 8, 2);
	assert_int_equal(request(&q, T_WRITE_ZEROES, 0, 0x300000, 16, NULL), 2);
	assert_int_equal(request(&q, T_DISCARD, 0, 0x300000, 15, NULL), 1);
	assert_int_equal(request(&q, T_DISCARD, 0, 0x300000, 33 * 16, NULL), 1);
	put_range(0x300000, 0, UINT32_MAX, 0);
	assert_int_equal(request(&q, T_WRITE_ZEROES, 0, 0x300000, 16, NULL), 1);
	start(&q, 7, 0);
	put_range(0x300000, 0, 8, 0);
	assert_int_equal(request(&q, T_DISCARD, 0, 0x300000, 16, NULL), 2); /* not negotiated */
}

static void test_write_cache(void **state)
{
	struct block_stats st;
	struct drv_queue q;

	start(&q, 0, F_FLUSH | F_WCE);
	assert_int_equal(fake_read(f, d.config + 32, 1), 1);
	fake_write(f, d.config + 32, 0, 1);
	assert_int_equal(fake_read(f, d.config + 32, 1), 0);
	assert_int_equal(request(&q, T_OUT, 0, 0x300000, 512, NULL), 0);
	fake_write(f, d.config + 32, 1, 1);
	assert_int_equal(fake_read(f, d.config + 32, 1), 1);
	/* A driver that can't flush gets a write-through disk. */
	start(&q, 0, 0);
	assert_int_equal(fake_read(f, d.config + 32, 1), 0);
	fake_write(f, d.config + 32, 1, 1);
	assert_int_equal(fake_read(f, d.config + 32, 1), 0);
	block_get_stats(disk, &st);
	assert_int_equal(st.wr_ops, 1);
}

static void test_bad_requests(void **state)
{
	struct drv_queue q;
	struct drv_buf shapes[5][3] = {
		{ { 0x300000, 15, false }, { 0x301000, 1, true }, { 0 } }, /* short header */
		{ { 0x300000, 16, false }, { 0 }, { 0 } },                 /* no status */
		{ { 0x301000, 1, true }, { 0 }, { 0 } },                   /* no header */
		{ { 0x300000, 16, false }, { 0x301000, 0, true }, { 0 } }, /* status of no bytes */
		{ { 0x300000, 16, false }, { FAKE_RAM, 512, true }, { 0x301000, 1, true } },
	};

	for (unsigned i = 0; i < 5; i++) {
		unsigned n = 0;

		start(&q, i & 1, F_ALL);
		fake_msi_clear(f);
		while (n < 3 && shapes[i][n].gpa)
			n++;
		put_header(0x300000, T_IN, 0);
		drv_add(&q, shapes[i], n, &q);
		drv_notify(&d, 0);
		for (unsigned w = 0; w < 5000 && !(drv_status(&d) & 64); w++)
			usleep(1000);
		assert_int_equal(drv_status(&d), 15 | 64);
		assert_int_equal(drv_messages(&d, 0), 1);
	}
	start(&q, 0, F_ALL);
	assert_int_equal(request(&q, T_IN, 0, 0x300000, 512, NULL), 0);
}

/* ---- Many at once, with everything that can come between ----------------------- */

#define DEPTH 48
struct slot {
	uint64_t at; /* header, status, data */
	uint64_t sector;
	bool write, busy;
};
static struct slot slots[DEPTH];

static void send(struct drv_queue *q, struct slot *s, unsigned seed)
{
	struct drv_buf b[3];

	s->write = seed & 1;
	s->sector = (s - slots) * 256 + seed % 200; /* its own part of the disk */
	b[0] = (struct drv_buf){ s->at, 16, false };
	b[1] = (struct drv_buf){ s->at + 4096, 8192, !s->write };
	b[2] = (struct drv_buf){ s->at + 16, 1, true };
	put_header(s->at, s->write ? T_OUT : T_IN, s->sector);
	d.ram[s->at + 16] = 0xff;
	if (s->write) {
		for (unsigned i = 0; i < 8192; i++)
			d.ram[s->at + 4096 + i] = seed + i;
		memcpy(model + s->sector * 512, d.ram + s->at + 4096, 8192);
	} else {
		memset(d.ram + s->at + 4096, 0, 8192);
	}
	s->busy = drv_add(q, b, 3, s);
	assert_true(s->busy);
}

static void check_done(struct slot *s)
{
	assert_int_equal(d.ram[s->at + 16], 0);
	if (!s->write)
		assert_memory_equal(d.ram + s->at + 4096, model + s->sector * 512, 8192);
	s->busy = false;
}

static void depth_setup(struct drv_queue *q, unsigned kind)
{
	d.heap = 1 << 20;
	assert_true(drv_negotiate(&d, drv_kind_features(kind) | F_ALL, true));
	drv_queue(&d, 0, q, 256);
	drv_ok(&d);
	drv_interrupts(q, true);
	for (unsigned i = 0; i < DEPTH; i++) {
		slots[i].at = drv_alloc(&d, 16384, 4096);
		slots[i].busy = false;
	}
}

static void test_depth(void **state)
{
	for (unsigned kind = 0; kind < DRV_KINDS; kind++) {
		struct drv_queue q;
		unsigned done = 0, seed = 0;
		uint32_t len;

		depth_setup(&q, kind);
		while (done < 1000) {
			for (unsigned i = 0; i < DEPTH; i++)
				if (!slots[i].busy)
					send(&q, &slots[i], seed++);
			if (drv_must_notify(&q))
				drv_notify(&d, 0);
			check_done(drv_wait(&d, &q, &len));
			done++;
			for (struct slot *s; (s = drv_get(&q, &len)); done++)
				check_done(s);
		}
	}
}

static uint64_t ended(void)
{
	struct block_stats st;

	block_get_stats(disk, &st);
	return st.rd_ops + st.wr_ops + st.failed;
}

/* Nothing ends any more: everything that was in flight has ended. */
static void expect_quiet(void)
{
	uint64_t n = ended();

	usleep(20000);
	assert_int_equal(ended(), n);
}

/* A pause or a reset comes back when the disk is still. */
static void test_waits_for_slow_disk(void **state)
{
	machine_down();
	slow = true;
	machine_up(false, NULL, NULL);
	for (unsigned round = 0; round < 3; round++) {
		struct drv_queue q;
		uint64_t before;

		depth_setup(&q, round);
		before = ended();
		for (unsigned i = 0; i < DEPTH; i++)
			send(&q, &slots[i], 2 * i + 1);
		drv_notify(&d, 0);
		while (ended() < before + 2) /* the thread is at it */
			usleep(100);
		if (round == 0) {
			machine_pause(f->m);
			expect_quiet();
			machine_resume(f->m);
		} else if (round == 1) {
			drv_write(&d, DRV_STATUS, 0, 1);
		} else {
			device_free(machine_find(f->m, "disk"));
		}
		if (round)
			expect_quiet();
	}
}

/* A pause waits for everything in flight; the state has no loose ends; a twin goes on from it. */
static void test_save_in_flight(void **state)
{
	struct drv_queue q;
	struct state_buf s = { 0 };
	struct err err = ERR_INIT;
	unsigned done = 0, before;
	uint8_t *ram;
	uint32_t len;

	for (unsigned kind = 0; kind < DRV_KINDS; kind++) {
		struct slot *slot;

		depth_setup(&q, kind);
		for (unsigned i = 0; i < DEPTH / 2; i++)
			send(&q, &slots[i], i);
		drv_notify(&d, 0);
		machine_pause(f->m); /* some are in flight, some are done, some not begun */
		for (unsigned i = DEPTH / 2; i < DEPTH; i++)
			send(&q, &slots[i], i);
		before = 0;
		done = 0;
		while ((slot = drv_get(&q, &len))) {
			check_done(slot);
			done++;
		}
		usleep(2000);
		assert_null(drv_get(&q, &len)); /* nothing arrives while it stands */
		assert_int_equal(machine_save(f->m, &s, &err), 0);
		ram = malloc(8 << 20);
		memcpy(ram, d.ram + (1 << 20), 8 << 20);
		machine_down();

		machine_up(false, NULL, NULL);
		machine_pause(f->m);
		memcpy(mem_ptr(&f->m->mem, 1 << 20, 8 << 20), ram, 8 << 20);
		free(ram);
		if (machine_load(f->m, s.data, s.len, &err))
			fail_msg("%s", err_msg(&err));
		state_buf_free(&s);
		q.ram = d.ram;
		machine_resume(f->m);
		for (; done < DEPTH; done++)
			check_done(drv_wait(&d, &q, &len));
		assert_int_equal(before, 0);
		assert_int_equal(drv_status(&d), 15);
	}
}

/* Reset, queue reset and removal with requests in flight: no answer later, no crash. */
static void test_reset_in_flight(void **state)
{
	struct drv_queue q;
	uint32_t len;

	for (unsigned round = 0; round < 30; round++) {
		depth_setup(&q, round % DRV_KINDS);
		for (unsigned i = 0; i < DEPTH; i++)
			send(&q, &slots[i], i);
		drv_notify(&d, 0);
		if (round % 3 == 0)
			drv_write(&d, DRV_STATUS, 0, 1);
		else if (round % 3 == 1)
			machine_pause(f->m), assert_int_equal(machine_reset(f->m, NULL), 0);
		else
			usleep(round * 20), drv_write(&d, DRV_STATUS, 0, 1);
		while (drv_get(&q, &len))
			;
		memset(d.ram + q.desc, 0x5a, 16 * 256); /* the memory is the driver's again */
		usleep(500);
		for (unsigned i = 0; i < 16 * 256; i++)
			assert_int_equal(d.ram[q.desc + i], 0x5a);
		if (round % 3 == 1) {
			drv_init(&d, f, machine_find(f->m, "disk"));
			machine_resume(f->m);
		}
	}
	depth_setup(&q, 3);
	for (unsigned i = 0; i < DEPTH; i++)
		send(&q, &slots[i], i);
	drv_notify(&d, 0);
	device_free(machine_find(f->m, "disk"));
}

static void test_queues(void **state)
{
	struct drv_queue q[4];
	uint64_t at;

	machine_down();
	machine_up(false, "num-queues", "4");
	d.heap = 1 << 20;
	assert_true(drv_negotiate(&d, drv_kind_features(7) | F_ALL, true));
	for (unsigned i = 0; i < 4; i++)
		drv_queue(&d, i, &q[i], 32);
	drv_ok(&d);
	at = drv_alloc(&d, 8192, 4096);
	for (unsigned i = 0; i < 40; i++) {
		struct drv_buf b[3] = { { at, 16, false }, { at + 1024, 512, true }, { at + 16, 1, true } };

		drv_interrupts(&q[i % 4], true);
		fake_msi_clear(f);
		put_header(at, T_IN, i * 11);
		assert_int_equal(drv_request(&d, i % 4, &q[i % 4], b, 3), 513);
		assert_memory_equal(d.ram + at + 1024, model + i * 11 * 512, 512);
		/* The interrupt follows the used entry; each queue has its vector. */
		for (unsigned w = 0, n = 0; !n; w++) {
			n = drv_messages(&d, 1 + i % 4);
			assert_true(w < 5000);
			usleep(n ? 0 : 1000);
		}
	}
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_config), TEST(test_refusals), TEST(test_read_write), TEST(test_framing), TEST(test_get_id),
		TEST(test_errors), TEST(test_discard_and_zeroes), TEST(test_write_cache), TEST(test_bad_requests),
		TEST(test_depth), TEST(test_waits_for_slow_disk), TEST(test_save_in_flight), TEST(test_reset_in_flight), TEST(test_queues),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
