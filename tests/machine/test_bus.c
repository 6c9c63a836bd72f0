/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "machine/bus.h"

struct dev {
	char log[256];
	uint8_t bytes[64];
};

static uint64_t dev_read(void *opaque, uint64_t off, unsigned size)
{
	struct dev *d = opaque;
	uint64_t v = 0;

	snprintf(d->log + strlen(d->log), sizeof(d->log) - strlen(d->log), "r%llu/%u ", (unsigned long long)off, size);
	memcpy(&v, d->bytes + off, size);
	return v;
}

static void dev_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct dev *d = opaque;

	snprintf(d->log + strlen(d->log), sizeof(d->log) - strlen(d->log), "w%llu/%u ", (unsigned long long)off, size);
	memcpy(d->bytes + off, &value, size);
}

static const struct io_ops any = { dev_read, dev_write, 1, 8 }, bytes = { dev_read, dev_write, 1, 1 },
			   dwords = { dev_read, dev_write, 4, 4 };

static void test_dispatch(void **state)
{
	struct bus *bus = bus_new("test");
	struct dev a = { .bytes = { 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88 } }, b = { .bytes = { 1, 2, 3, 4 } };
	struct io_range ra = { .name = "a", .base = 0x100, .size = 16, .ops = &any, .opaque = &a };
	struct io_range rb = { .name = "b", .base = 0x110, .size = 4, .ops = &bytes, .opaque = &b };

	assert_int_equal(bus_add(bus, &ra, NULL), 0);
	assert_int_equal(bus_add(bus, &rb, NULL), 0);
	assert_int_equal(bus_read(bus, 0x100, 8), 0x8877665544332211);
	assert_string_equal(a.log, "r0/8 ");
	assert_int_equal(bus_read(bus, 0x110, 4), 0x04030201);
	assert_string_equal(b.log, "r0/1 r1/1 r2/1 r3/1 ");
	/* Nobody is there. */
	assert_int_equal(bus_read(bus, 0xff, 1), 0xff);
	assert_int_equal(bus_read(bus, 0x114, 4), 0xffffffff);
	/* Half of it is. */
	assert_int_equal(bus_read(bus, 0xfe, 4), 0x2211ffff);
	assert_int_equal(bus_read(bus, 0x10e, 4) >> 16, 0x0201);
	bus_write(bus, 0x112, 0xbbaa, 4);
	assert_int_equal(b.bytes[2], 0xaa);
	assert_int_equal(b.bytes[3], 0xbb);
	/* The top of the address space neither wraps nor hangs. */
	assert_int_equal(bus_read(bus, UINT64_MAX - 1, 4), 0xffffffff);
	bus_del(bus, &ra);
	assert_int_equal(bus_read(bus, 0x100, 1), 0xff);
	bus_del(bus, &ra);
	bus_free(bus);
}

static void test_widths(void **state)
{
	struct bus *bus = bus_new("test");
	struct dev d = { .bytes = { 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88 } };
	struct io_range r = { .name = "d", .base = 0, .size = 64, .ops = &dwords, .opaque = &d };

	assert_int_equal(bus_add(bus, &r, NULL), 0);
	assert_int_equal(bus_read(bus, 5, 1), 0x66);
	assert_int_equal(bus_read(bus, 6, 2), 0x8877);
	assert_int_equal(bus_read(bus, 0, 8), 0x8877665544332211);
	assert_string_equal(d.log, "r4/4 r4/4 r0/4 r4/4 ");
	d.log[0] = 0;
	bus_write(bus, 4, 0xaa, 1); /* too narrow: dropped */
	assert_string_equal(d.log, "");
	bus_write(bus, 0, 0x1122334455667788, 8);
	assert_string_equal(d.log, "w0/4 w4/4 ");
	bus_free(bus);
}

static void test_overlap(void **state)
{
	struct bus *bus = bus_new("test");
	struct dev low = { .bytes = { 1, 1, 1, 1, 1, 1, 1, 1 } }, high = { .bytes = { 2, 2 } };
	struct io_range rl = { .name = "low", .base = 0, .size = 8, .ops = &any, .opaque = &low };
	struct io_range same = { .name = "same", .base = 7, .size = 2, .ops = &any, .opaque = &high };
	struct io_range rh = { .name = "high", .base = 3, .size = 2, .ops = &any, .opaque = &high, .priority = 1 };
	struct err err = ERR_INIT;

	assert_int_equal(bus_add(bus, &rl, NULL), 0);
	assert_int_equal(bus_add(bus, &same, &err), -17);
	assert_non_null(strstr(err.msg, "same"));
	assert_non_null(strstr(err.msg, "low"));
	assert_int_equal(bus_add(bus, &rh, NULL), 0);
	assert_int_equal(bus_read(bus, 0, 8), 0x0101010202010101);
	bus_del(bus, &rh);
	assert_int_equal(bus_read(bus, 0, 8), 0x0101010101010101);
	bus_free(bus);
}

static void test_full(void **state)
{
	static struct io_range r[513];
	struct bus *bus = bus_new("test");
	struct dev d = { .bytes = { 7 } };

	for (unsigned i = 0; i < 513; i++)
		r[i] = (struct io_range){ .name = "x", .base = i * 16, .size = 1, .ops = &any, .opaque = &d };
	for (unsigned i = 0; i < 512; i++)
		assert_int_equal(bus_add(bus, &r[i], NULL), 0);
	assert_int_equal(bus_add(bus, &r[512], NULL), -28);
	d.log[0] = 0;
	assert_int_equal(bus_read(bus, 511 * 16, 1), 7);
	bus_free(bus);
}

static uint64_t quiet_read(void *opaque, uint64_t off, unsigned size)
{
	return 0x5a;
}

struct race {
	struct bus *bus;
	_Atomic bool stop;
	_Atomic unsigned wrong;
};

static void *reader(void *arg)
{
	struct race *r = arg;

	while (!r->stop) {
		if (bus_read(r->bus, 0x1000, 1) != 0x5a)
			r->wrong++;
	}
	return NULL;
}

/* Ranges come and go; one that stays is found every time. */
static void test_changes_under_readers(void **state)
{
	static const struct io_ops quiet = { quiet_read, NULL, 1, 8 };
	struct race r = { .bus = bus_new("test") };
	struct io_range fixed = { .name = "fixed", .base = 0x1000, .size = 16, .ops = &quiet }, moving[8];
	pthread_t t;

	assert_int_equal(bus_add(r.bus, &fixed, NULL), 0);
	pthread_create(&t, NULL, reader, &r);
	for (unsigned n = 0; n < 20000; n++) {
		struct io_range *m = &moving[n % 8];

		if (n >= 8)
			bus_del(r.bus, m);
		*m = (struct io_range){ .name = "m", .base = (n * 64) % 0x800, .size = 8, .ops = &quiet };
		bus_add(r.bus, m, NULL);
	}
	r.stop = true;
	pthread_join(t, NULL);
	assert_int_equal(r.wrong, 0);
	bus_free(r.bus);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dispatch), cmocka_unit_test(test_widths), cmocka_unit_test(test_overlap),
		cmocka_unit_test(test_full), cmocka_unit_test(test_changes_under_readers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
