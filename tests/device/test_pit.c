/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test.h"

#define HZ 1193182ull

/* IRQ 0 as the I/O APIC sees it: pin 2, edges, vector 0x30. */
static struct fake_machine *start(void)
{
	struct fake_machine *f = fake_machine_new();

	fake_device(f, "ioapic", NULL);
	fake_device(f, "i8254", NULL);
	fake_write(f, Q35_IOAPIC_BASE, 0x14, 4);
	fake_write(f, Q35_IOAPIC_BASE + 0x10, 0x30, 4);
	fake_msi_clear(f);
	return f;
}

static void ticks(struct fake_machine *f, uint64_t n)
{
	fake_machine_advance(f, (n * SEC + HZ - 1) / HZ);
}

/* Control word, then the count low and high byte. */
static void program(struct fake_machine *f, unsigned n, unsigned mode, bool bcd, uint16_t count)
{
	fake_out(f, 0x43, n << 6 | 0x30 | mode << 1 | bcd, 1);
	fake_out(f, 0x40 + n, count & 0xff, 1);
	fake_out(f, 0x40 + n, count >> 8, 1);
}

static unsigned count(struct fake_machine *f, unsigned n)
{
	unsigned low;

	fake_out(f, 0x43, n << 6, 1);
	low = fake_in(f, 0x40 + n, 1);
	return low | fake_in(f, 0x40 + n, 1) << 8;
}

static unsigned status(struct fake_machine *f, unsigned n)
{
	fake_out(f, 0x43, 0xe0 | 2 << n, 1);
	return fake_in(f, 0x40 + n, 1);
}

static bool out2(struct fake_machine *f)
{
	return fake_in(f, 0x61, 1) & 0x20;
}

static void test_terminal_count(void **state)
{
	struct fake_machine *f = start();

	program(f, 0, 0, false, 1000);
	assert_int_equal(status(f, 0), 0x70); /* low, null count */
	ticks(f, 1);
	assert_int_equal(status(f, 0), 0x30);
	assert_int_equal(count(f, 0), 1000);
	ticks(f, 400);
	assert_int_equal(count(f, 0), 600);
	assert_int_equal(fake_msis(f), 0);
	ticks(f, 602);
	assert_int_equal(fake_msis(f), 1);
	assert_int_equal(status(f, 0), 0xb0);
	assert_in_range(count(f, 0), 0xfff0, 0xffff); /* goes on from the top */
	ticks(f, 1000000);
	assert_int_equal(fake_msis(f), 0); /* once */
	/* The first byte of a new count takes the output down and stops it. */
	fake_out(f, 0x40, 100, 1);
	assert_int_equal(status(f, 0) & 0x80, 0);
	ticks(f, 500);
	assert_int_equal(fake_msis(f), 0);
	fake_out(f, 0x40, 0, 1);
	ticks(f, 102);
	assert_int_equal(fake_msis(f), 1);
	fake_machine_free(f);
}

static void test_rate_generator(void **state)
{
	struct fake_machine *f = start();

	program(f, 0, 2, false, 11932); /* 100 Hz */
	fake_machine_advance(f, SEC);
	assert_in_range(fake_msis(f), 99, 101);
	assert_int_equal(status(f, 0) & 0xbf, 0xb4);
	/* A new count takes over at the end of the cycle. */
	program(f, 0, 2, false, 1000);
	fake_msi_clear(f);
	ticks(f, 501);
	fake_out(f, 0x40, 2000 & 0xff, 1);
	fake_out(f, 0x40, 2000 >> 8, 1);
	assert_int_equal(status(f, 0) & 0x40, 0x40);
	assert_int_equal(count(f, 0), 500);
	ticks(f, 501);
	assert_int_equal(fake_msis(f), 1);
	assert_in_range(count(f, 0), 1990, 2000);
	ticks(f, 1990);
	assert_int_equal(fake_msis(f), 0);
	ticks(f, 10);
	assert_int_equal(fake_msis(f), 1);
	fake_machine_free(f);
}

static void test_count_of_zero(void **state)
{
	struct fake_machine *f = start();

	program(f, 0, 2, false, 0); /* 18.2 Hz, as every BIOS sets it */
	fake_machine_advance(f, 10 * SEC);
	assert_in_range(fake_msis(f), 181, 183);
	program(f, 0, 2, true, 0); /* 10,000 in BCD */
	fake_msi_clear(f);
	fake_machine_advance(f, SEC);
	assert_in_range(fake_msis(f), 118, 120);
	fake_machine_free(f);
}

static void test_square_wave(void **state)
{
	struct fake_machine *f = start();
	unsigned high = 0, n = 0;

	fake_out(f, 0x61, 1, 1);
	program(f, 2, 3, false, 100);
	ticks(f, 1);
	for (unsigned i = 0; i < 1000; i++) {
		high += out2(f);
		ticks(f, 1);
	}
	assert_in_range(high, 480, 520);
	/* It counts by two. */
	program(f, 2, 3, false, 1000);
	ticks(f, 1);
	for (unsigned i = 0; i < 50; i++) {
		n |= count(f, 2) & 1;
		ticks(f, 7);
	}
	assert_int_equal(n, 0);
	program(f, 0, 3, false, 1193);
	fake_msi_clear(f);
	fake_machine_advance(f, SEC);
	assert_in_range(fake_msis(f), 999, 1001);
	fake_machine_free(f);
}

/* How Linux calibrates the TSC. */
static void test_gate_and_speaker(void **state)
{
	struct fake_machine *f = start();

	fake_out(f, 0x61, 0, 1);
	program(f, 2, 0, false, 5966); /* 5 ms */
	fake_machine_advance(f, 20 * MS);
	assert_false(out2(f)); /* the gate holds it */
	fake_out(f, 0x61, 1, 1);
	assert_int_equal(fake_in(f, 0x61, 1) & 0x0f, 1);
	fake_machine_advance(f, 2 * MS);
	assert_false(out2(f));
	fake_out(f, 0x61, 0, 1);
	fake_machine_advance(f, 20 * MS);
	fake_out(f, 0x61, 3, 1);
	fake_machine_advance(f, 2900 * US);
	assert_false(out2(f));
	fake_machine_advance(f, 200 * US);
	assert_true(out2(f));
	fake_machine_free(f);
}

static void test_one_shot(void **state)
{
	struct fake_machine *f = start();

	program(f, 2, 1, false, 1000);
	ticks(f, 5000);
	assert_true(out2(f)); /* waits for the trigger */
	assert_int_equal(status(f, 2) & 0x40, 0x40);
	fake_out(f, 0x61, 1, 1);
	ticks(f, 2);
	assert_false(out2(f));
	ticks(f, 500);
	fake_out(f, 0x61, 0, 1); /* falling does nothing */
	assert_false(out2(f));
	fake_out(f, 0x61, 1, 1); /* again */
	ticks(f, 900);
	assert_false(out2(f));
	ticks(f, 110);
	assert_true(out2(f));
	fake_machine_free(f);
}

static void test_strobe(void **state)
{
	struct fake_machine *f = start();

	program(f, 0, 4, false, 1000);
	assert_int_equal(status(f, 0) & 0x80, 0x80);
	fake_msi_clear(f);
	ticks(f, 900);
	assert_int_equal(fake_msis(f), 0);
	ticks(f, 110);
	assert_int_equal(fake_msis(f), 1);
	ticks(f, 1000000);
	assert_int_equal(fake_msis(f), 0);
	program(f, 2, 5, false, 50);
	fake_out(f, 0x61, 1, 1);
	ticks(f, 1);
	for (unsigned i = 0; i < 50; i++) {
		assert_true(out2(f));
		ticks(f, 1);
	}
	assert_false(out2(f)); /* one clock */
	ticks(f, 1);
	assert_true(out2(f));
	fake_machine_free(f);
}

static void test_latches(void **state)
{
	struct fake_machine *f = start();
	unsigned low;

	program(f, 0, 2, false, 50000);
	ticks(f, 101);
	fake_out(f, 0x43, 0xc2, 1); /* read-back: count and status of 0 */
	ticks(f, 1000);
	fake_out(f, 0x43, 0xc2, 1); /* latched already: ignored */
	assert_int_equal(fake_in(f, 0x40, 1), 0xb4); /* status first */
	low = fake_in(f, 0x40, 1);
	assert_int_equal(low | fake_in(f, 0x40, 1) << 8, 49900);
	/* Then it is live again; only the low byte, then only the high one. */
	fake_out(f, 0x43, 0x14, 1);
	fake_out(f, 0x40, 200, 1);
	ticks(f, 51);
	assert_int_equal(fake_in(f, 0x40, 1), 150);
	assert_int_equal(fake_in(f, 0x40, 1), 150);
	fake_out(f, 0x43, 0x24, 1);
	fake_out(f, 0x40, 2, 1);
	ticks(f, 257);
	assert_int_equal(fake_in(f, 0x40, 1), 1);
	fake_machine_free(f);
}

static void test_bcd(void **state)
{
	struct fake_machine *f = start();

	program(f, 0, 2, true, 0x1234);
	ticks(f, 36);
	assert_int_equal(count(f, 0), 0x1199);
	fake_machine_free(f);
}

static void test_refresh_toggles(void **state)
{
	struct fake_machine *f = start();
	unsigned changes = 0, last = fake_in(f, 0x61, 1) & 0x10;

	for (unsigned i = 0; i < 1000; i++) {
		unsigned now;

		fake_machine_advance(f, 5 * US);
		now = fake_in(f, 0x61, 1) & 0x10;
		changes += now != last;
		last = now;
	}
	assert_in_range(changes, 325, 337);
	fake_machine_free(f);
}

/* Nothing to do: no timer. And a guest that wants too much gets it merged. */
static void test_cost(void **state)
{
	struct fake_machine *f = start();

	fake_machine_advance(f, 3600 * SEC);
	assert_int_equal(fake_msis(f), 0);
	program(f, 0, 2, false, 2);
	fake_machine_advance(f, 10 * MS);
	assert_in_range(fake_msis(f), 500, 1001);
	program(f, 0, 0, false, 0); /* how Linux stops it */
	fake_msi_clear(f);
	fake_clock_fired = 0;
	fake_machine_advance(f, 3600 * SEC);
	assert_int_equal(fake_msis(f), 1);
	assert_int_equal(fake_clock_fired, 1);
	fake_machine_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_terminal_count), cmocka_unit_test(test_rate_generator),
		cmocka_unit_test(test_count_of_zero), cmocka_unit_test(test_square_wave),
		cmocka_unit_test(test_gate_and_speaker), cmocka_unit_test(test_one_shot), cmocka_unit_test(test_strobe),
		cmocka_unit_test(test_latches), cmocka_unit_test(test_bcd), cmocka_unit_test(test_refresh_toggles),
		cmocka_unit_test(test_cost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
