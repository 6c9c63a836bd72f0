/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test.h"

#include "device/classes.h"
#include "device/rtc.h"

#define SET 0x80
#define PIE 0x40
#define AIE 0x20
#define UIE 0x10
#define BINARY 0x04
#define H24 0x02

/* IRQ 8 is vector 0x38. */
static struct fake_machine *start_at(const char *base)
{
	struct fake_machine *f = fake_machine_new();
	struct err err = ERR_INIT;

	fake_device(f, "ioapic", NULL);
	if (!device_add(f->m, "mc146818rtc", NULL, &err, "base", base, NULL))
		fail_msg("%s", err_msg(&err));
	fake_write(f, Q35_IOAPIC_BASE, 0x20, 4);
	fake_write(f, Q35_IOAPIC_BASE + 0x10, 0x38, 4);
	return f;
}

static struct fake_machine *start(void)
{
	return start_at("utc");
}

static uint8_t rd(struct fake_machine *f, uint8_t reg)
{
	fake_out(f, 0x70, reg, 1);
	return fake_in(f, 0x71, 1);
}

static void wr(struct fake_machine *f, uint8_t reg, uint8_t value)
{
	fake_out(f, 0x70, reg, 1);
	fake_out(f, 0x71, value, 1);
}

/* Century, year, month, day, weekday, hours, minutes, seconds. */
static void expect_time(struct fake_machine *f, const char *text)
{
	char now[64];

	snprintf(now, sizeof(now), "%02x%02x-%02x-%02x %x %02x:%02x:%02x", rd(f, 0x32), rd(f, 9), rd(f, 8), rd(f, 7),
		 rd(f, 6), rd(f, 4), rd(f, 2), rd(f, 0));
	assert_string_equal(now, text);
}

static void test_time(void **state)
{
	struct fake_machine *f = start();

	assert_int_equal(rd(f, 0x0d), 0x80);
	expect_time(f, "2026-01-01 5 00:00:00"); /* a Thursday */
	fake_machine_advance(f, 86400 * SEC + 3661 * SEC);
	expect_time(f, "2026-01-02 6 01:01:01");
	wr(f, 0x0b, H24 | BINARY);
	fake_machine_advance(f, 14 * 3600 * SEC + 58 * SEC);
	expect_time(f, "141a-01-02 6 0f:01:3b"); /* 20, 26; 15:01:59 */
	wr(f, 0x0b, 0);
	expect_time(f, "2026-01-02 6 83:01:59"); /* 3 PM */
	fake_machine_advance(f, 9 * 3600 * SEC);
	expect_time(f, "2026-01-03 7 12:01:59"); /* midnight is 12 AM */
	fake_machine_free(f);
}

static void test_leap_years(void **state)
{
	static const struct {
		const char *base, *after;
	} days[] = {
		{ "2024-02-28T23:59:59", "2024-02-29 5 00:00:00" }, { "2026-02-28T23:59:59", "2026-03-01 1 00:00:00" },
		{ "2000-02-28T23:59:59", "2000-02-29 3 00:00:00" }, { "2100-02-28T23:59:59", "2100-03-01 2 00:00:00" },
		{ "1999-12-31T23:59:59", "2000-01-01 7 00:00:00" }, { "1969-12-31T23:59:59", "1970-01-01 5 00:00:00" },
	};

	for (unsigned i = 0; i < sizeof(days) / sizeof(days[0]); i++) {
		struct fake_machine *f = start_at(days[i].base);

		fake_machine_advance(f, SEC);
		expect_time(f, days[i].after);
		fake_machine_free(f);
	}
}

static void test_bad_base(void **state)
{
	struct fake_machine *f = fake_machine_new();
	struct err err = ERR_INIT;

	assert_null(device_add(f->m, "mc146818rtc", NULL, &err, "base", "2026-13-01T00:00:00", NULL));
	assert_non_null(strstr(err.msg, "base"));
	fake_machine_free(f);
}

/* As Linux does it: SET, divider reset, the values, both back. */
static void test_set_time(void **state)
{
	struct fake_machine *f = start();

	wr(f, 0x0b, SET | H24);
	wr(f, 0x0a, 0x76);
	fake_machine_advance(f, 10 * SEC);
	expect_time(f, "2026-01-01 5 00:00:00"); /* it stands */
	wr(f, 0x32, 0x19);
	wr(f, 9, 0x87);
	wr(f, 8, 0x06);
	wr(f, 7, 0x05);
	wr(f, 6, 0x06);
	wr(f, 4, 0x04);
	wr(f, 2, 0x03);
	wr(f, 0, 0x02);
	wr(f, 0x0b, H24);
	wr(f, 0x0a, 0x26);
	/* The first update comes half a second after the divider is released. */
	fake_machine_advance(f, 499 * MS);
	expect_time(f, "1987-06-05 6 04:03:02");
	fake_machine_advance(f, 2 * MS);
	expect_time(f, "1987-06-05 6 04:03:03");
	/* A running clock takes single values too. */
	wr(f, 4, 0x23);
	fake_machine_advance(f, SEC);
	expect_time(f, "1987-06-05 6 23:03:04");
	/* The weekday is only counted. */
	wr(f, 6, 0x01);
	fake_machine_advance(f, 86400 * SEC);
	expect_time(f, "1987-06-06 2 23:03:04");
	/* The battery keeps it over a reset. */
	assert_int_equal(machine_reset(f->m, NULL), 0);
	expect_time(f, "1987-06-06 2 23:03:04");
	fake_machine_free(f);
}

static void test_nonsense_is_survived(void **state)
{
	struct fake_machine *f = start();

	wr(f, 0x0b, SET | H24);
	for (unsigned i = 0; i < 10; i++)
		wr(f, i, 0xff);
	assert_int_equal(rd(f, 8), 0xff);
	wr(f, 0x32, 0xff);
	wr(f, 0x0b, H24);
	expect_time(f, "9999-12-31 7 23:59:59");
	fake_machine_advance(f, SEC);
	assert_int_equal(rd(f, 8), 0x01);
	fake_machine_free(f);
}

static void test_uip(void **state)
{
	struct fake_machine *f = start();

	assert_int_equal(rd(f, 0x0a), 0x26);
	fake_machine_advance(f, SEC - 300 * US);
	assert_int_equal(rd(f, 0x0a), 0x26);
	fake_machine_advance(f, 100 * US);
	assert_int_equal(rd(f, 0x0a), 0xa6);
	wr(f, 0x0b, SET | H24);
	assert_int_equal(rd(f, 0x0a), 0x26);
	wr(f, 0x0b, H24);
	fake_machine_advance(f, 200 * US);
	assert_int_equal(rd(f, 0x0a), 0x26);
	fake_machine_free(f);
}

static void test_update_ended(void **state)
{
	struct fake_machine *f = start();

	fake_clock_fired = 0;
	fake_machine_advance(f, 5 * SEC);
	assert_int_equal(fake_clock_fired, 0);
	assert_int_equal(fake_msis(f), 0);
	assert_int_equal(rd(f, 0x0c) & 0x90, 0x10); /* the flag comes without the interrupt */
	assert_int_equal(rd(f, 0x0c), 0);
	wr(f, 0x0b, H24 | UIE);
	fake_machine_advance(f, 999 * MS);
	assert_int_equal(fake_msis(f), 0);
	fake_machine_advance(f, 2 * MS);
	assert_int_equal(fake_msis(f), 1);
	fake_machine_advance(f, 10 * SEC); /* not read, not repeated */
	assert_int_equal(fake_msis(f), 0);
	assert_int_equal(rd(f, 0x0c) & 0x90, 0x90);
	fake_machine_advance(f, 1 * SEC);
	assert_int_equal(fake_msis(f), 1);
	/* SET takes the enable away. */
	wr(f, 0x0b, H24 | UIE | SET);
	assert_int_equal(rd(f, 0x0b), H24 | SET);
	fake_machine_free(f);
}

static void test_alarm(void **state)
{
	struct fake_machine *f = start();

	wr(f, 1, 0x30);
	wr(f, 3, 0x02);
	wr(f, 5, 0x01);
	rd(f, 0x0c);
	wr(f, 0x0b, H24 | AIE);
	fake_machine_advance(f, 3600 * SEC + 149 * SEC + 999 * MS);
	assert_int_equal(fake_msis(f), 0);
	fake_machine_advance(f, 2 * MS);
	assert_int_equal(fake_msis(f), 1);
	assert_int_equal(rd(f, 0x0c) & 0xa0, 0xa0);
	fake_machine_advance(f, 86399 * SEC);
	assert_int_equal(fake_msis(f), 0);
	fake_machine_advance(f, SEC); /* the next day */
	assert_int_equal(fake_msis(f), 1);
	rd(f, 0x0c);
	/* Any hour, any minute, second 5. */
	wr(f, 5, 0xff);
	wr(f, 3, 0xc0);
	wr(f, 1, 0x05);
	for (unsigned i = 0; i < 60; i++) {
		fake_machine_advance(f, SEC);
		if (fake_msis(f)) {
			assert_int_equal(rd(f, 0), 0x05);
			rd(f, 0x0c);
			i |= 0x100;
		}
		assert_int_not_equal(i, 59);
	}
	/* The flag is seen without the interrupt. */
	wr(f, 0x0b, H24);
	rd(f, 0x0c);
	fake_machine_advance(f, 61 * SEC);
	assert_int_equal(fake_msis(f), 0);
	assert_int_equal(rd(f, 0x0c) & 0xa0, 0x20);
	/* No such time: never. */
	wr(f, 1, 0x75);
	wr(f, 0x0b, H24 | AIE);
	fake_machine_advance(f, 3 * 86400 * SEC);
	assert_int_equal(fake_msis(f), 0);
	fake_machine_free(f);
}

static void test_periodic(void **state)
{
	static const struct {
		uint8_t rate;
		unsigned hz;
	} rates[] = { { 3, 8192 }, { 6, 1024 }, { 15, 2 }, { 1, 256 }, { 2, 128 } };
	struct fake_machine *f = start();

	for (unsigned i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
		unsigned n = 0;

		wr(f, 0x0a, 0x20 | rates[i].rate);
		rd(f, 0x0c);
		wr(f, 0x0b, H24 | PIE);
		for (unsigned step = 0; step < 20000; step++) {
			fake_machine_advance(f, 50 * US);
			if (fake_msis(f)) {
				n++;
				rd(f, 0x0c);
			}
		}
		assert_in_range(n, rates[i].hz - 1, rates[i].hz + 1);
		/* Not read: one, and no timer runs for nothing. */
		fake_clock_fired = 0;
		fake_machine_advance(f, 10 * SEC);
		assert_int_equal(fake_msis(f), 1);
		assert_int_equal(fake_clock_fired, 1);
		wr(f, 0x0b, H24);
	}
	wr(f, 0x0a, 0x20);
	rd(f, 0x0c);
	wr(f, 0x0b, H24 | PIE);
	fake_machine_advance(f, 10 * SEC);
	assert_int_equal(fake_msis(f), 0);
	fake_machine_free(f);
}

/* Enabling an interrupt whose flag is set interrupts at once. */
static void test_enable_late(void **state)
{
	struct fake_machine *f = start();

	fake_machine_advance(f, SEC + MS);
	rd(f, 0x0c);
	fake_machine_advance(f, SEC);
	assert_int_equal(fake_msis(f), 0);
	wr(f, 0x0b, H24 | UIE);
	assert_int_equal(fake_msis(f), 1);
	fake_machine_free(f);
}

static void test_memory(void **state)
{
	struct fake_machine *f = start();

	wr(f, 0x80 | 0x40, 0x5a); /* NMI masked on the way */
	assert_int_equal(rd(f, 0x40), 0x5a);
	fake_out(f, 0x72, 0x40, 1);
	fake_out(f, 0x73, 0xa5, 1);
	assert_int_equal(rd(f, 0x40), 0x5a);
	assert_int_equal(fake_in(f, 0x73, 1), 0xa5);
	rtc_set_cell(machine_find(f->m, "mc146818rtc"), 0x15, 0x80);
	assert_int_equal(rd(f, 0x15), 0x80);
	/* Index and value in one access. */
	fake_out(f, 0x70, 0x7741, 2);
	assert_int_equal(rd(f, 0x41), 0x77);
	assert_int_equal(machine_reset(f->m, NULL), 0);
	assert_int_equal(rd(f, 0x40), 0x5a);
	fake_machine_free(f);
}

/* The host's clock is set back: no flags, no storm, the time follows. */
static void test_host_clock_jumps(void **state)
{
	struct fake_machine *f = start();

	wr(f, 0x0b, H24 | UIE);
	rd(f, 0x0c);
	fake_realtime_ns -= 3600 * SEC;
	fake_machine_advance(f, 1500 * MS);
	assert_in_range(fake_msis(f), 0, 1);
	rd(f, 0x0c);
	fake_machine_advance(f, SEC);
	assert_int_equal(fake_msis(f), 1);
	expect_time(f, "2025-12-31 4 23:00:02");
	fake_machine_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_time), cmocka_unit_test(test_leap_years), cmocka_unit_test(test_bad_base),
		cmocka_unit_test(test_set_time), cmocka_unit_test(test_nonsense_is_survived),
		cmocka_unit_test(test_uip),
		cmocka_unit_test(test_update_ended), cmocka_unit_test(test_alarm), cmocka_unit_test(test_periodic),
		cmocka_unit_test(test_enable_late), cmocka_unit_test(test_memory),
		cmocka_unit_test(test_host_clock_jumps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
