/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The PCI transport and the life of a virtio device, through its simplest member, virtio-rng. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/classes.h"
#include "device/virtio_pci.h"
#include "util/log.h"
#include "virtio_driver.h"

static struct fake_machine *f;
static struct drv d;
static uint8_t levels;

static void gsi_set(void *opaque, unsigned n, bool level)
{
	levels = level ? levels | 1 << (n - 16) : levels & ~(1 << (n - 16));
}

static struct device *rng_new(const char *prop, const char *value)
{
	struct err err = ERR_INIT;
	struct device *dev = device_add(f->m, "virtio-rng-pci", "rng", &err, prop, value, NULL);

	if (!dev)
		fail_msg("%s", err_msg(&err));
	return dev;
}

static void machine_up(const char *prop, const char *value)
{
	f = fake_machine_new();
	fake_device(f, "mch", NULL);
	for (unsigned i = 16; i < 24; i++)
		f->m->ioapic_in[i] = (struct irq){ gsi_set, NULL, i };
	levels = 0;
	drv_init(&d, f, rng_new(prop, value));
	machine_resume(f->m);
}

static int setup(void **state)
{
	log_set_level(LOG_ERROR);
	machine_up(NULL, NULL);
	return 0;
}

static int teardown(void **state)
{
	machine_pause(f->m);
	fake_machine_free(f);
	return 0;
}

static uint32_t cfg(unsigned reg, unsigned size)
{
	return fake_read(f, Q35_ECAM_BASE + (d.devfn << 12) + reg, size);
}

static void cfg_set(unsigned reg, uint32_t value, unsigned size)
{
	fake_write(f, Q35_ECAM_BASE + (d.devfn << 12) + reg, value, size);
}

/* A buffer is filled and it is not all the same. */
static void ask_random(struct drv_queue *q)
{
	struct drv_buf b = { drv_alloc(&d, 64, 64), 64, true };
	static const uint8_t zero[64];

	assert_int_equal(drv_request(&d, 0, q, &b, 1), 64);
	assert_memory_not_equal(d.ram + b.gpa, zero, 64);
}

static void test_identity(void **state)
{
	assert_int_equal(cfg(0, 4), 0x10441af4);
	assert_int_equal(cfg(8, 4), 0x00ff0001);
	assert_true(d.config == 0); /* rng has no configuration space */
	assert_int_equal(drv_read(&d, DRV_NUM_QUEUES, 2), 1);
	assert_true(drv_offered(&d) ==
		    (DRV_F_VERSION_1 | DRV_F_PACKED | DRV_F_EVENT_IDX | DRV_F_INDIRECT | DRV_F_RESET));
	teardown(NULL);
	machine_up("packed", "off");
	assert_false(drv_offered(&d) & DRV_F_PACKED);
}

static void test_all_rings(void **state)
{
	for (unsigned kind = 0; kind < DRV_KINDS; kind++) {
		for (unsigned msix = 0; msix < 2; msix++) {
			struct drv_queue q;

			d.heap = 1 << 20;
			assert_true(drv_negotiate(&d, drv_kind_features(kind), msix));
			drv_queue(&d, 0, &q, kind & 1 ? 5 : 4);
			drv_ok(&d);
			drv_interrupts(&q, true);
			fake_msi_clear(f);
			for (unsigned i = 0; i < 20; i++)
				ask_random(&q);
			assert_int_equal(drv_status(&d), 15);
			if (msix)
				assert_true(drv_messages(&d, 1) > 0);
			else
				assert_true(levels != 0);
			if (!msix) {
				assert_int_equal(fake_read(f, d.isr, 1), 1);
				assert_int_equal(levels, 0);
				assert_int_equal(fake_read(f, d.isr, 1), 0);
			}
		}
	}
}

static void test_registers(void **state)
{
	struct drv_queue q;

	assert_int_equal(drv_read(&d, DRV_CONFIG_VECTOR, 2), 0xffff);
	drv_write(&d, DRV_CONFIG_VECTOR, 1, 2);
	assert_int_equal(drv_read(&d, DRV_CONFIG_VECTOR, 2), 1);
	drv_write(&d, DRV_CONFIG_VECTOR, 2, 2); /* there are two vectors */
	assert_int_equal(drv_read(&d, DRV_CONFIG_VECTOR, 2), 0xffff);
	/* Selecting more than there is. */
	drv_write(&d, DRV_QUEUE_SELECT, 1, 2);
	assert_int_equal(drv_read(&d, DRV_QUEUE_SIZE, 2), 0);
	drv_write(&d, DRV_QUEUE_SIZE, 4, 2);
	drv_write(&d, DRV_QUEUE_ENABLE, 1, 2);
	assert_int_equal(drv_read(&d, DRV_QUEUE_ENABLE, 2), 0);
	drv_write(&d, DRV_DEVICE_FEATURE_SELECT, 2, 4);
	assert_int_equal(drv_read(&d, DRV_DEVICE_FEATURE, 4), 0);
	/* Halves of 64-bit fields, read back whole. */
	drv_write(&d, DRV_QUEUE_SELECT, 0, 2);
	drv_write(&d, DRV_QUEUE_DESC, 0x11223344, 4);
	drv_write(&d, DRV_QUEUE_DESC + 4, 0x55667788, 4);
	assert_true(fake_read(f, d.common + DRV_QUEUE_DESC, 8) == 0x5566778811223344);
	/* The wrong width changes nothing. */
	drv_write(&d, DRV_QUEUE_SIZE, 2, 4);
	assert_int_equal(drv_read(&d, DRV_QUEUE_SIZE, 2), 64);
	drv_write(&d, DRV_QUEUE_SIZE, 65, 2);
	assert_int_equal(drv_read(&d, DRV_QUEUE_SIZE, 2), 64);
	/* No queue before FEATURES_OK; an enabled one is fixed. */
	drv_write(&d, DRV_QUEUE_ENABLE, 1, 2);
	assert_int_equal(drv_read(&d, DRV_QUEUE_ENABLE, 2), 0);
	assert_true(drv_negotiate(&d, ~0ull, true));
	drv_queue(&d, 0, &q, 8);
	assert_int_equal(drv_read(&d, DRV_QUEUE_ENABLE, 2), 1);
	drv_write(&d, DRV_QUEUE_SIZE, 4, 2);
	drv_write(&d, DRV_QUEUE_DESC, 0, 4);
	drv_write(&d, DRV_QUEUE_ENABLE, 0, 2);
	assert_int_equal(drv_read(&d, DRV_QUEUE_SIZE, 2), 8);
	assert_int_equal(drv_read(&d, DRV_QUEUE_DESC, 4), q.desc);
	assert_int_equal(drv_read(&d, DRV_QUEUE_ENABLE, 2), 1);
	/* A reset forgets it all. */
	drv_write(&d, DRV_STATUS, 0, 1);
	assert_int_equal(drv_read(&d, DRV_QUEUE_SIZE, 2), 64);
	assert_int_equal(drv_read(&d, DRV_QUEUE_DESC, 4), 0);
	assert_int_equal(drv_read(&d, DRV_QUEUE_ENABLE, 2), 0);
	assert_int_equal(drv_read(&d, DRV_QUEUE_VECTOR, 2), 0xffff);
}

static void test_status(void **state)
{
	/* Without VERSION_1, or with what was not offered, FEATURES_OK doesn't stick. */
	assert_false(drv_negotiate(&d, DRV_F_INDIRECT, false));
	drv_write(&d, DRV_STATUS, 0, 1);
	drv_write(&d, DRV_DRIVER_FEATURE_SELECT, 0, 4);
	drv_write(&d, DRV_DRIVER_FEATURE, 1, 4);
	drv_write(&d, DRV_DRIVER_FEATURE_SELECT, 1, 4);
	drv_write(&d, DRV_DRIVER_FEATURE, 1, 4);
	drv_write(&d, DRV_STATUS, 11, 1);
	assert_int_equal(drv_status(&d), 3);
	drv_write(&d, DRV_STATUS, 15, 1);
	assert_int_equal(drv_status(&d), 3); /* nor DRIVER_OK */
	assert_true(drv_negotiate(&d, DRV_F_VERSION_1, false));
	drv_write(&d, DRV_DRIVER_FEATURE, 5, 4); /* too late */
	assert_int_equal(drv_read(&d, DRV_DRIVER_FEATURE, 4), 1);
	drv_ok(&d);
	drv_write(&d, DRV_STATUS, 1, 1); /* bits don't go but by reset */
	assert_int_equal(drv_status(&d), 15);
	drv_write(&d, DRV_STATUS, 0x8f, 1);
	assert_int_equal(drv_status(&d), 0x8f);
	drv_write(&d, DRV_STATUS, 0, 1);
	assert_int_equal(drv_status(&d), 0);
}

/* Before DRIVER_OK, without bus mastering and while the machine stands nothing is consumed; afterwards nothing is
 * forgotten. */
static void test_when_it_may_run(void **state)
{
	struct drv_queue q;
	struct drv_buf b = { 0x200000, 16, true };
	uint32_t len;

	assert_true(drv_negotiate(&d, drv_kind_features(0), true));
	drv_queue(&d, 0, &q, 8);
	drv_add(&q, &b, 1, &b);
	drv_notify(&d, 0);
	fake_machine_loop(f);
	assert_null(drv_get(&q, &len));
	drv_ok(&d);
	fake_machine_loop(f);
	assert_non_null(drv_get(&q, &len));

	cfg_set(4, 2, 2); /* kexec does this */
	drv_add(&q, &b, 1, &b);
	drv_notify(&d, 0);
	fake_machine_loop(f);
	assert_null(drv_get(&q, &len));
	cfg_set(4, 6, 2);
	fake_machine_loop(f);
	assert_non_null(drv_get(&q, &len));

	machine_pause(f->m);
	drv_add(&q, &b, 1, &b);
	drv_notify(&d, 0);
	fake_machine_loop(f);
	assert_null(drv_get(&q, &len));
	machine_resume(f->m);
	fake_machine_loop(f);
	assert_non_null(drv_get(&q, &len));
}

static void check_needs_reset(void)
{
	fake_machine_loop(f);
	assert_int_equal(drv_status(&d), 15 | 64);
	assert_int_equal(drv_messages(&d, 0), 1); /* a configuration change */
	assert_int_equal(fake_read(f, d.isr, 1), 2);
	drv_write(&d, DRV_STATUS, 0x80 | 15, 1); /* not the driver's to clear */
	assert_int_equal(drv_status(&d), 0x80 | 15 | 64);
}

static void test_needs_reset(void **state)
{
	struct drv_queue q;
	struct drv_buf bad = { FAKE_RAM - 8, 16, true };

	for (unsigned kind = 0; kind < 2; kind++) {
		assert_true(drv_negotiate(&d, drv_kind_features(kind), true));
		drv_queue(&d, 0, &q, 8);
		drv_ok(&d);
		fake_msi_clear(f);
		drv_add(&q, &bad, 1, &bad);
		drv_notify(&d, 0);
		check_needs_reset();
		drv_notify(&d, 0);
		/* A ring that lies nowhere. */
		assert_true(drv_negotiate(&d, drv_kind_features(kind), true));
		drv_ok(&d);
		fake_msi_clear(f);
		drv_write(&d, DRV_QUEUE_SELECT, 0, 2);
		drv_write(&d, DRV_QUEUE_DESC, 0xfffffff0, 4);
		drv_write(&d, DRV_QUEUE_ENABLE, 1, 2);
		assert_int_equal(drv_read(&d, DRV_QUEUE_ENABLE, 2), 0);
		check_needs_reset();
		/* And then it works again. */
		assert_true(drv_negotiate(&d, drv_kind_features(kind), true));
		drv_queue(&d, 0, &q, 8);
		drv_ok(&d);
		ask_random(&q);
	}
}

static void test_queue_reset(void **state)
{
	struct drv_queue q, r;
	struct drv_buf b = { 0x200000, 16, true };
	uint32_t len;

	assert_true(drv_negotiate(&d, drv_kind_features(7) | DRV_F_RESET, true));
	drv_queue(&d, 0, &q, 8);
	drv_ok(&d);
	ask_random(&q);
	drv_write(&d, DRV_QUEUE_RESET, 1, 2);
	assert_int_equal(drv_read(&d, DRV_QUEUE_RESET, 2), 0); /* done */
	assert_int_equal(drv_read(&d, DRV_QUEUE_ENABLE, 2), 0);
	drv_add(&q, &b, 1, &b);
	drv_notify(&d, 0);
	fake_machine_loop(f);
	assert_null(drv_get(&q, &len));
	drv_queue(&d, 0, &r, 4); /* anew, of another size, while the device runs */
	ask_random(&r);
	assert_int_equal(drv_status(&d), 15);
	/* Not without the feature. */
	assert_true(drv_negotiate(&d, drv_kind_features(7), true));
	drv_queue(&d, 0, &q, 8);
	drv_write(&d, DRV_QUEUE_RESET, 1, 2);
	assert_int_equal(drv_read(&d, DRV_QUEUE_ENABLE, 2), 1);
}

static uint32_t window_read(uint32_t off, uint32_t size)
{
	cfg_set(d.window + 4, 0, 1);
	cfg_set(d.window + 8, off, 4);
	cfg_set(d.window + 12, size, 4);
	return cfg(d.window + 16, size);
}

static void window_write(uint32_t off, uint32_t value, uint32_t size)
{
	cfg_set(d.window + 4, 0, 1);
	cfg_set(d.window + 8, off, 4);
	cfg_set(d.window + 12, size, 4);
	cfg_set(d.window + 16, value, size);
}

/* What firmware uses before BARs are mapped. */
static void test_config_window(void **state)
{
	uint64_t base = cfg(0x10, 4);
	uint32_t common = d.common - base, notify = d.notify - base;
	struct drv_queue q;
	struct drv_buf b = { 0x200000, 16, true };
	uint32_t len;

	window_write(common + DRV_DEVICE_FEATURE_SELECT, 1, 4);
	assert_int_equal(window_read(common + DRV_DEVICE_FEATURE, 4), drv_offered(&d) >> 32);
	window_write(common + DRV_STATUS, 1, 1);
	assert_int_equal(drv_status(&d), 1);
	assert_int_equal(window_read(common + DRV_STATUS, 1), 1);
	/* Nonsense in it does nothing. */
	window_write(0x7ffffffc, 1, 4);
	window_read(0xfffffffc, 4);
	window_write(common + DRV_STATUS, 0, 3);
	window_write(common + 1, 0, 4);
	cfg_set(d.window + 4, 5, 1);
	cfg_set(d.window + 16, 0, 1);
	assert_int_equal(drv_status(&d), 1);
	/* A doorbell through it. */
	assert_true(drv_negotiate(&d, drv_kind_features(0), false));
	drv_queue(&d, 0, &q, 8);
	drv_ok(&d);
	fake_machine_loop(f);
	drv_add(&q, &b, 1, &b);
	window_write(notify, 0, 2);
	fake_machine_loop(f);
	assert_non_null(drv_get(&q, &len));
}

static void test_intx_and_msix(void **state)
{
	struct drv_queue q;

	assert_true(drv_negotiate(&d, drv_kind_features(0), false));
	drv_queue(&d, 0, &q, 8);
	drv_ok(&d);
	ask_random(&q);
	assert_int_not_equal(levels, 0);
	assert_true(cfg(6, 2) & 8);
	cfg_set(d.msix_cap + 2, 0x8000, 2); /* MSI-X on: the pin is out of use (§6.8.3.3) */
	assert_int_equal(levels, 0);
	fake_msi_clear(f);
	ask_random(&q); /* the queue has no vector: no message */
	assert_int_equal(drv_messages(&d, 0) + levels, 0);
	drv_write(&d, DRV_STATUS, 0, 1);
	cfg_set(d.msix_cap + 2, 0, 2);
	assert_int_equal(levels, 0); /* reset cleared the cause */

	teardown(NULL);
	machine_up("vectors", "0");
	assert_int_equal(d.msix_cap, 0);
	assert_true(drv_negotiate(&d, drv_kind_features(7), true));
	drv_queue(&d, 0, &q, 8);
	drv_ok(&d);
	drv_interrupts(&q, true);
	ask_random(&q);
	assert_int_not_equal(levels, 0);
}

/* Engines with ioeventfd are told where the doorbells are; a reset takes them back. */
static void test_fast_doorbells(void **state)
{
	struct drv_queue q;

	f->engine->fast_doorbells = true;
	assert_true(drv_negotiate(&d, drv_kind_features(0), false));
	drv_queue(&d, 0, &q, 8);
	drv_ok(&d);
	assert_true(((struct virtio_pci *)machine_find(f->m, "rng"))->bell[0] == d.notify);
	ask_random(&q);
	cfg_set(0x10, 0xc8000000, 4); /* the BAR moves */
	assert_true(((struct virtio_pci *)machine_find(f->m, "rng"))->bell[0] == 0xc8000000 + (d.notify & 0xffff));
	cfg_set(4, 0, 2);
	assert_true(((struct virtio_pci *)machine_find(f->m, "rng"))->bell[0] == 0);
}

static void test_save_load(void **state)
{
	for (unsigned kind = 0; kind < DRV_KINDS; kind++) {
		struct drv_queue q;
		struct drv_buf b = { 0x200000, 16, true };
		struct state_buf s = { 0 };
		struct err err = ERR_INIT;
		struct fake_machine *old = f;
		uint32_t len;

		d.heap = 1 << 20;
		assert_true(drv_negotiate(&d, drv_kind_features(kind), true));
		drv_queue(&d, 0, &q, 8);
		drv_ok(&d);
		drv_interrupts(&q, true);
		for (unsigned i = 0; i < 11; i++)
			ask_random(&q);
		drv_interrupts(&q, true);
		machine_pause(f->m);
		drv_add(&q, &b, 1, &b); /* added, not noticed */
		assert_int_equal(machine_save(f->m, &s, &err), 0);

		machine_up(NULL, NULL);
		machine_pause(f->m);
		memcpy(d.ram, mem_ptr(&old->m->mem, 0, 1), 0xa0000);
		memcpy(d.ram + (1 << 20), mem_ptr(&old->m->mem, 1 << 20, 1), 4 << 20);
		if (machine_load(f->m, s.data, s.len, &err))
			fail_msg("%s", err_msg(&err));
		q.ram = d.ram;
		d.features = drv_kind_features(kind);
		fake_msi_clear(f);
		machine_resume(f->m);
		assert_ptr_equal(drv_wait(&d, &q, &len), &b);
		assert_int_equal(len, 16);
		assert_int_equal(drv_messages(&d, 1), 1);
		d.heap = 3 << 20;
		for (unsigned i = 0; i < 11; i++)
			ask_random(&q);
		assert_int_equal(drv_status(&d), 15);
		state_buf_free(&s);
		fake_machine_free(old);
	}
}

static void test_unplug_under_load(void **state)
{
	struct drv_queue q;
	struct drv_buf b = { 0x200000, 16, true };

	assert_true(drv_negotiate(&d, drv_kind_features(0), true));
	drv_queue(&d, 0, &q, 8);
	drv_ok(&d);
	drv_add(&q, &b, 1, &b);
	f->engine->fast_doorbells = true;
	device_free(machine_find(f->m, "rng"));
	fake_machine_loop(f);
	drv_notify(&d, 0);
	assert_int_equal(cfg(0, 4), UINT32_MAX);
	drv_init(&d, f, rng_new(NULL, NULL));
	assert_true(drv_negotiate(&d, drv_kind_features(0), true));
	drv_queue(&d, 0, &q, 8);
	drv_ok(&d);
	ask_random(&q);
}

/* ---- virtio-rng itself --------------------------------------------------------- */

static void test_rng_rate(void **state)
{
	struct drv_queue q;
	struct drv_buf b = { 0x200000, 1000, true };
	uint32_t len, sum = 0;

	teardown(NULL);
	f = fake_machine_new();
	fake_device(f, "mch", NULL);
	drv_init(&d, f, device_add(f->m, "virtio-rng-pci", "rng", NULL, "max-bytes", "1500", "period", "200", NULL));
	machine_resume(f->m);
	assert_true(drv_negotiate(&d, drv_kind_features(0), true));
	drv_queue(&d, 0, &q, 8);
	drv_ok(&d);
	for (unsigned i = 0; i < 4; i++)
		drv_add(&q, &b, 1, &b);
	drv_notify(&d, 0);
	fake_machine_loop(f);
	while (drv_get(&q, &len))
		sum += len;
	assert_int_equal(sum, 1500);
	fake_machine_advance(f, 199999999);
	assert_null(drv_get(&q, &len));
	fake_machine_advance(f, 1);
	while (drv_get(&q, &len))
		sum += len;
	assert_int_equal(sum, 3000);
	/* A driver's reset is no way around it. */
	drv_negotiate(&d, drv_kind_features(0), true);
	drv_queue(&d, 0, &q, 8);
	drv_ok(&d);
	drv_add(&q, &b, 1, &b);
	drv_notify(&d, 0);
	fake_machine_loop(f);
	assert_null(drv_get(&q, &len));
	fake_machine_advance(f, 200000000);
	assert_non_null(drv_get(&q, &len));
	assert_int_equal(len, 1000);
}

static void test_rng_buffers(void **state)
{
	struct drv_queue q;
	struct drv_buf many[6] = {
		{ 0x200000, 3, false }, { 0x200010, 1, true }, { 0x200020, 255, true }, { 0x201000, 1000, true },
		{ 0x202000, 1, true }, { 0x203000, 7, true },
	};
	unsigned zeroes = 0;

	assert_true(drv_negotiate(&d, drv_kind_features(4), true));
	drv_queue(&d, 0, &q, 16);
	drv_ok(&d);
	memcpy(d.ram + 0x200000, "abc", 3);
	assert_int_equal(drv_request(&d, 0, &q, many, 6), 1264);
	assert_memory_equal(d.ram + 0x200000, "abc", 3);
	for (unsigned i = 0; i < 1000; i++)
		zeroes += !d.ram[0x201000 + i];
	assert_true(zeroes < 40); /* 1 in 256 */
	assert_int_equal(d.ram[0x201000 + 1000], 0);
	/* Nothing to write into: an answer of no bytes, not a hang. */
	assert_int_equal(drv_request(&d, 0, &q, many, 1), 0);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_identity),	   TEST(test_all_rings),       TEST(test_registers),
		TEST(test_status),	   TEST(test_when_it_may_run), TEST(test_needs_reset),
		TEST(test_queue_reset),	   TEST(test_config_window),   TEST(test_intx_and_msix),
		TEST(test_fast_doorbells), TEST(test_save_load),       TEST(test_unplug_under_load),
		TEST(test_rng_rate),	   TEST(test_rng_buffers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
