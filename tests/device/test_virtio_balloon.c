/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device/balloon.h"
#include "device/classes.h"
#include "util/log.h"
#include "virtio_driver.h"

#define F_TELL (1ull << 0)
#define F_STATS (1ull << 1)
#define F_OOM (1ull << 2)
#define F_HINT (1ull << 3)
#define F_REPORTING (1ull << 5)

static struct fake_machine *f;
static struct drv d;
static struct device *dev;
static uint64_t told;
static unsigned tells;

static void changed(void *opaque, uint64_t actual)
{
	told = actual;
	tells++;
}

static int setup(void **state)
{
	log_set_level(LOG_ERROR);
	f = fake_machine_new();
	fake_device(f, "mch", NULL);
	dev = fake_device(f, "virtio-balloon-pci", "balloon");
	virtio_balloon_set_callback(dev, changed, NULL);
	tells = 0;
	drv_init(&d, f, dev);
	machine_resume(f->m);
	return 0;
}

static int teardown(void **state)
{
	machine_pause(f->m);
	fake_machine_free(f);
	return 0;
}

static void start(struct drv_queue q[5], unsigned kind, uint64_t features)
{
	d.heap = 1 << 20;
	assert_true(drv_negotiate(&d, drv_kind_features(kind) | features, true));
	for (unsigned i = 0; i < 5; i++)
		drv_queue(&d, i, &q[i], 16);
	drv_ok(&d);
	fake_machine_loop(f);
	fake_msi_clear(f);
}

/* Is there memory behind the page, as the file knows it? */
static bool present(uint64_t gpa)
{
	uint64_t off = gpa - 0xc0000 + 0xc0000; /* both regions of low memory lie at their own offset */

	return lseek(f->m->ram_fd, off, SEEK_DATA) == (off_t)off;
}

static void touch(uint64_t gpa, unsigned pages)
{
	for (unsigned i = 0; i < pages; i++)
		memset(d.ram + gpa + 4096 * i, 0x77, 4096);
}

static void list(struct drv_queue *q, unsigned n, const uint32_t *pfn, unsigned count)
{
	uint64_t at = drv_alloc(&d, 4 * count, 64);
	struct drv_buf b = { at, 4 * count, false };

	memcpy(d.ram + at, pfn, 4 * count);
	assert_int_equal(drv_request(&d, n, &q[n], &b, 1), 0);
}

static void test_target(void **state)
{
	struct drv_queue q[5];

	assert_true((drv_offered(&d) & 0x3f) == (F_STATS | F_OOM | F_REPORTING));
	assert_int_equal(fake_read(f, d.config, 4), 0);
	start(q, 0, F_STATS);
	virtio_balloon_set(dev, FAKE_RAM - (4 << 20));
	assert_int_equal(fake_read(f, d.config, 4), 1024);
	assert_int_equal(drv_messages(&d, 0), 1);
	assert_true(virtio_balloon_actual(dev) == FAKE_RAM);
	virtio_balloon_set(dev, UINT64_MAX);
	assert_int_equal(fake_read(f, d.config, 4), 0);
	virtio_balloon_set(dev, 0);
	assert_int_equal(fake_read(f, d.config, 4), FAKE_RAM / 4096);
	/* The guest reports; however often, the owner hears of it once a turn. */
	for (unsigned i = 1; i <= 100; i++)
		fake_write(f, d.config + 4, i, 4);
	assert_int_equal(tells, 0);
	fake_machine_loop(f);
	assert_int_equal(tells, 1);
	assert_true(told == FAKE_RAM - 100 * 4096);
	assert_true(virtio_balloon_actual(dev) == told);
	fake_write(f, d.config + 4, UINT32_MAX, 4);
	assert_true(virtio_balloon_actual(dev) == 0);
	fake_write(f, d.config, 5, 4); /* not the guest's */
	assert_int_equal(fake_read(f, d.config, 4), FAKE_RAM / 4096);
	/* Reset: empty again, the target stays. */
	drv_write(&d, DRV_STATUS, 0, 1);
	assert_true(virtio_balloon_actual(dev) == FAKE_RAM);
	assert_int_equal(fake_read(f, d.config, 4), FAKE_RAM / 4096);
}

static void test_inflate(void **state)
{
	for (unsigned kind = 0; kind < DRV_KINDS; kind++) {
		struct drv_queue q[5];
		uint32_t pfn[300];
		uint64_t before;

		start(q, kind, F_OOM);
		touch(0x800000, 300);
		before = virtio_balloon_returned(dev);
		/* Every page but each tenth, backwards. */
		for (unsigned i = 0; i < 300; i++)
			pfn[i] = (0x800000 >> 12) + (299 - i);
		for (unsigned i = 0; i < 300; i += 10)
			pfn[i] = pfn[i ? i - 1 : 1];
		list(q, 0, pfn, 300);
		for (unsigned i = 0; i < 300; i++)
			assert_int_equal(present(0x800000 + 4096 * i), (299 - i) % 10 == 0);
		assert_true(virtio_balloon_returned(dev) - before == 270 * 4096);
		assert_int_equal(d.ram[0x801000], 0); /* back, and zero */
		assert_int_equal(d.ram[0x800000 + 4096 * 299], 0x77);
		list(q, 1, pfn, 300); /* deflate: nothing to do */
		/* Pages that aren't: the last one, none, ROM's. */
		pfn[0] = UINT32_MAX;
		pfn[1] = FAKE_RAM >> 12;
		pfn[2] = 0xa0;
		list(q, 0, pfn, 3);
		assert_int_equal(drv_status(&d), 15);
	}
}

static void test_reporting(void **state)
{
	/* Number 4 by the book, 3 as Linux counts, 2 without statistics. */
	static const struct {
		unsigned queue;
		uint64_t features;
	} ways[] = { { 4, F_STATS | F_REPORTING }, { 3, F_STATS | F_REPORTING }, { 2, F_REPORTING } };

	for (unsigned i = 0; i < 3; i++) {
		struct drv_queue q[5];
		struct drv_buf b[3] = { { 0x900000, 0x10000, true },
					{ 0xa00000, 0x8000, true },
					{ 0xb00800, 0x1000, true } };

		start(q, 4 + i, ways[i].features);
		touch(0x900000, 0x10);
		touch(0xa00000, 0x10);
		touch(0xb00000, 2);
		assert_int_equal(drv_request(&d, ways[i].queue, &q[ways[i].queue], b, 3), 0);
		for (unsigned k = 0; k < 0x10; k++) {
			assert_false(present(0x900000 + 4096 * k));
			assert_int_equal(present(0xa00000 + 4096 * k), k >= 8);
		}
		/* Half pages stay. */
		assert_true(present(0xb00000) && present(0xb01000));
		assert_int_equal(d.ram[0xb00800], 0x77);
	}
	/* Not negotiated: the queue is dead. */
	{
		struct drv_queue q[5];
		struct drv_buf b = { 0x900000, 0x1000, true };
		uint32_t len;

		start(q, 0, F_STATS);
		touch(0x900000, 1);
		drv_add(&q[4], &b, 1, &b);
		drv_notify(&d, 4);
		fake_machine_loop(f);
		assert_null(drv_get(&q[4], &len));
		assert_true(present(0x900000));
	}
}

static void put_stats(uint64_t at, uint64_t base)
{
	for (unsigned i = 0; i < 10; i++) {
		uint16_t tag = 9 - i;
		uint64_t value = base + tag;

		memcpy(d.ram + at + 10 * i, &tag, 2);
		memcpy(d.ram + at + 10 * i + 2, &value, 8);
	}
	memcpy(d.ram + at + 100, "\xff\x7f\1\2\3\4\5\6\7\x8", 10); /* a tag of the future */
}

static void test_stats(void **state)
{
	for (unsigned kind = 0; kind < DRV_KINDS; kind++) {
		struct drv_queue q[5];
		struct drv_buf b = { 0x300000, 110, false };
		struct balloon_stats st;
		uint32_t len;

		start(q, kind, F_STATS);
		virtio_balloon_get_stats(dev, &st);
		assert_true(st.when == 0 && st.free == UINT64_MAX);
		fake_machine_advance(f, 1000);
		put_stats(b.gpa, 100);
		drv_add(&q[2], &b, 1, &b);
		drv_notify(&d, 2);
		fake_machine_loop(f);
		virtio_balloon_get_stats(dev, &st);
		assert_true(st.swap_in == 100 && st.free == 104 && st.total == 105 && st.available == 106 &&
			    st.hugetlb_fail == 109);
		assert_true(st.when != 0);
		assert_null(drv_get(&q[2], &len)); /* kept for the next question */
		virtio_balloon_poll(dev, 2);
		fake_machine_advance(f, 1999999999);
		assert_null(drv_get(&q[2], &len));
		fake_machine_advance(f, 1);
		assert_ptr_equal(drv_get(&q[2], &len), &b);
		put_stats(b.gpa, 200);
		drv_add(&q[2], &b, 1, &b);
		if (drv_must_notify(&q[2]))
			drv_notify(&d, 2);
		fake_machine_loop(f);
		virtio_balloon_get_stats(dev, &st);
		assert_true(st.free == 204);
		/* A guest that does not answer is asked once. */
		fake_machine_advance(f, 2000000000);
		assert_non_null(drv_get(&q[2], &len));
		fake_machine_advance(f, 10000000000);
		assert_null(drv_get(&q[2], &len));
		virtio_balloon_poll(dev, 0);
	}
}

static void test_save_load(void **state)
{
	for (unsigned kind = 0; kind < DRV_KINDS; kind++) {
		struct drv_queue q[5];
		struct drv_buf b = { 0x300000, 110, false };
		struct state_buf s = { 0 };
		struct balloon_stats st;
		struct err err = ERR_INIT;
		uint8_t *ram = malloc(8 << 20);
		uint32_t len;

		start(q, kind, F_STATS | F_REPORTING);
		virtio_balloon_set(dev, FAKE_RAM / 2);
		fake_write(f, d.config + 4, 77, 4);
		put_stats(b.gpa, 300);
		drv_add(&q[2], &b, 1, &b);
		drv_notify(&d, 2);
		fake_machine_loop(f);
		machine_pause(f->m);
		assert_int_equal(machine_save(f->m, &s, &err), 0);
		memcpy(ram, d.ram + (1 << 20), 8 << 20);
		teardown(NULL);
		setup(NULL);
		machine_pause(f->m);
		memcpy(mem_ptr(&f->m->mem, 1 << 20, 8 << 20), ram, 8 << 20);
		free(ram);
		if (machine_load(f->m, s.data, s.len, &err))
			fail_msg("%s", err_msg(&err));
		state_buf_free(&s);
		machine_resume(f->m);
		fake_machine_loop(f);
		assert_true(virtio_balloon_actual(dev) == FAKE_RAM - 77 * 4096);
		assert_int_equal(fake_read(f, d.config, 4), FAKE_RAM / 2 / 4096);
		virtio_balloon_get_stats(dev, &st);
		assert_true(st.free == 304);
		virtio_balloon_poll(dev, 1);
		fake_machine_advance(f, 1000000000);
		q[2].ram = d.ram;
		assert_ptr_equal(drv_get(&q[2], &len), &b);
	}
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_target), TEST(test_inflate), TEST(test_reporting), TEST(test_stats), TEST(test_save_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
