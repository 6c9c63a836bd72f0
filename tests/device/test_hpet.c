/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test.h"

#define BASE Q35_HPET_BASE
#define CFG(n) (0x100 + 0x20 * (n))
#define CMP(n) (0x108 + 0x20 * (n))
#define FSB(n) (0x110 + 0x20 * (n))
#define LEVEL 0x2u
#define ENABLE 0x4u
#define PERIODIC 0x8u
#define SET_VALUE 0x40u
#define MODE32 0x100u
#define FSB_EN 0x4000u
#define ROUTE(n) ((n) << 9)

static uint64_t rd(struct fake_machine *f, unsigned reg)
{
	return fake_read(f, BASE + reg, 8);
}

static void wr(struct fake_machine *f, unsigned reg, uint64_t value)
{
	fake_write(f, BASE + reg, value, 8);
}

/* Pin n of the I/O APIC: vector 0x30 + n, edge or level. */
static void pin(struct fake_machine *f, unsigned n, bool level)
{
	fake_write(f, Q35_IOAPIC_BASE, 0x10 + 2 * n, 4);
	fake_write(f, Q35_IOAPIC_BASE + 0x10, (level ? 0x8000 : 0) | (0x30 + n), 4);
	fake_msi_clear(f);
}

static struct fake_machine *start(void)
{
	struct fake_machine *f = fake_machine_new();

	fake_device(f, "i8259", NULL);
	fake_device(f, "ioapic", NULL);
	fake_device(f, "hpet", NULL);
	return f;
}

static unsigned vector(struct fake_machine *f)
{
	struct fake_msi msi;

	return fake_msi_take(f, &msi) ? msi.data & 0xff : 0;
}

static void test_capabilities(void **state)
{
	struct fake_machine *f = start();

	/* 10 ns, Intel, legacy routes, 64 bits, three timers: what the ACPI table says too. */
	assert_int_equal(rd(f, 0), 10000000ull << 32 | 0x8086a201);
	assert_int_equal(fake_read(f, BASE + 4, 4), 10000000);
	assert_int_equal(rd(f, CFG(1)), 0x00ff0104ull << 32 | 0x8030);
	wr(f, CFG(1), ROUTE(3));
	assert_int_equal(rd(f, CFG(1)) & ROUTE(31), 0); /* 3 cannot be had */
	wr(f, CFG(1), ROUTE(19));
	assert_int_equal(rd(f, CFG(1)) & ROUTE(31), ROUTE(19));
	assert_int_equal(rd(f, CFG(3)), 0);
	fake_machine_free(f);
}

static void test_counter(void **state)
{
	struct fake_machine *f = start();

	fake_machine_advance(f, SEC);
	assert_int_equal(rd(f, 0xf0), 0);
	wr(f, 0xf0, 0x123456789aull);
	assert_int_equal(rd(f, 0xf0), 0x123456789aull);
	wr(f, 0x10, 1);
	fake_machine_advance(f, SEC);
	assert_int_equal(rd(f, 0xf0), 0x123456789aull + 100000000);
	assert_int_equal(fake_read(f, BASE + 0xf4, 4), (0x123456789aull + 100000000) >> 32);
	wr(f, 0xf0, 5); /* not while it runs */
	assert_int_equal(rd(f, 0xf0), 0x123456789aull + 100000000);
	wr(f, 0x10, 0);
	fake_machine_advance(f, SEC);
	assert_int_equal(rd(f, 0xf0), 0x123456789aull + 100000000);
	fake_machine_free(f);
}

static void test_one_shot(void **state)
{
	struct fake_machine *f = start();

	pin(f, 16, false);
	wr(f, 0x10, 1);
	wr(f, CFG(2), ENABLE | ROUTE(16));
	wr(f, CMP(2), rd(f, 0xf0) + 100000);
	fake_machine_advance(f, 999 * US);
	assert_int_equal(fake_msis(f), 0);
	fake_machine_advance(f, 2 * US);
	assert_int_equal(fake_msis(f), 1);
	fake_machine_advance(f, 1000 * SEC);
	assert_int_equal(fake_msis(f), 0);
	/* A little too late, as a held-up vCPU is: at once. */
	wr(f, CMP(2), rd(f, 0xf0) - 10);
	fake_machine_advance(f, 20 * US);
	assert_int_equal(fake_msis(f), 1);
	/* Long gone: not. */
	wr(f, CMP(2), rd(f, 0xf0) - 50000000);
	fake_machine_advance(f, 1000 * SEC);
	assert_int_equal(fake_msis(f), 0);
	fake_machine_free(f);
}

static void test_32_bits_wrap(void **state)
{
	struct fake_machine *f = start();

	pin(f, 16, false);
	wr(f, CFG(0), ENABLE | MODE32 | ROUTE(16));
	wr(f, CMP(0), 0xffffffff00001000ull);
	assert_int_equal(rd(f, CMP(0)), 0x1000);
	wr(f, 0x10, 1);
	fake_machine_advance(f, 100 * US);
	assert_int_equal(fake_msis(f), 1);
	fake_machine_advance(f, 42 * SEC);
	assert_int_equal(fake_msis(f), 0);
	fake_machine_advance(f, 1 * SEC);
	assert_int_equal(fake_msis(f), 1);
	fake_machine_free(f);
}

/* As Linux does it: set the accumulator, then the period. */
static void test_periodic(void **state)
{
	struct fake_machine *f = start();
	uint64_t base;

	pin(f, 2, false);
	wr(f, 0x10, 3); /* legacy replacement */
	base = rd(f, 0xf0);
	wr(f, CFG(0), ENABLE | PERIODIC | SET_VALUE | MODE32);
	wr(f, CMP(0), base + 400000);
	assert_int_equal(rd(f, CFG(0)) & SET_VALUE, 0);
	wr(f, CMP(0), 400000); /* 250 Hz */
	assert_int_equal(rd(f, CMP(0)), base + 400000);
	fake_machine_advance(f, 10 * SEC + 100 * US);
	assert_int_equal(fake_msis(f), 2500);
	/* The comparator moves on by itself, and no match is lost while the machine does not look. */
	assert_int_equal(rd(f, CMP(0)), base + 2501 * 400000ull);
	wr(f, CFG(0), PERIODIC | MODE32);
	fake_machine_advance(f, SEC);
	assert_int_equal(fake_msis(f), 0);
	assert_int_equal(rd(f, CMP(0)), base + 2751 * 400000ull);
	fake_machine_free(f);
}

static void test_period_alone(void **state)
{
	struct fake_machine *f = start();

	pin(f, 20, false);
	wr(f, CFG(1), ENABLE | PERIODIC | SET_VALUE | ROUTE(20));
	wr(f, CMP(1), 1000000); /* accumulator and period at once */
	wr(f, 0x10, 1);
	fake_machine_advance(f, 100 * MS + US);
	assert_int_equal(fake_msis(f), 10);
	fake_machine_free(f);
}

static void test_level(void **state)
{
	struct fake_machine *f = start();

	pin(f, 18, true);
	wr(f, CFG(0), ENABLE | LEVEL | ROUTE(18));
	wr(f, CMP(0), 1000);
	wr(f, 0x10, 1);
	fake_machine_advance(f, 20 * US);
	assert_int_equal(rd(f, 0x20), 1);
	assert_int_equal(fake_msis(f), 1);
	f->m->ioapic_eoi(f->m->ioapic_opaque, 0x42);
	assert_int_equal(fake_msis(f), 1); /* still asserted */
	/* Another device on the pin keeps it asserted. */
	set_line(f, 18, true);
	wr(f, 0x20, 1);
	assert_int_equal(rd(f, 0x20), 0);
	f->m->ioapic_eoi(f->m->ioapic_opaque, 0x42);
	assert_int_equal(fake_msis(f), 1);
	set_line(f, 18, false);
	f->m->ioapic_eoi(f->m->ioapic_opaque, 0x42);
	assert_int_equal(fake_msis(f), 0);
	fake_machine_free(f);
}

static void test_message(void **state)
{
	struct fake_machine *f = start();
	struct fake_msi msi;

	wr(f, FSB(1), 0xfee0100cull << 32 | 0x4055);
	wr(f, CFG(1), ENABLE | FSB_EN);
	wr(f, CMP(1), 1000);
	wr(f, 0x10, 1);
	fake_machine_advance(f, 20 * US);
	assert_true(fake_msi_take(f, &msi));
	assert_int_equal(msi.address, 0xfee0100c);
	assert_int_equal(msi.data, 0x4055);
	/* Memory is not written. */
	wr(f, FSB(1), 0x00001000ull << 32 | 0x4055);
	wr(f, CMP(1), rd(f, 0xf0) + 100);
	fake_machine_advance(f, 20 * US);
	assert_int_equal(fake_msis(f), 0);
	fake_machine_free(f);
}

static void test_legacy_replacement(void **state)
{
	struct fake_machine *f = start();

	pin(f, 2, false);
	pin(f, 8, false);
	set_line(f, 0, true);
	assert_int_equal(vector(f), 0x32);
	set_line(f, 8, true);
	assert_int_equal(vector(f), 0x38);
	set_line(f, 0, false);
	set_line(f, 8, false);
	/* The 8259s forget those edges when they are set up. */
	for (unsigned port = 0x20; port <= 0xa0; port += 0x80) {
		fake_out(f, port, 0x11, 1);
		fake_out(f, port + 1, 0x20, 1);
		fake_out(f, port + 1, 0x04, 1);
		fake_out(f, port + 1, 0x01, 1);
	}
	assert_false(f->engine->extint);
	/* Now the lines are the timers', in the 8259s too. */
	wr(f, 0x10, 3);
	fake_msi_clear(f);
	set_line(f, 0, true);
	set_line(f, 8, true);
	assert_int_equal(fake_msis(f), 0);
	assert_false(f->engine->extint);
	wr(f, CFG(1), ENABLE);
	wr(f, CMP(1), rd(f, 0xf0) + 100);
	fake_machine_advance(f, 20 * US);
	assert_int_equal(vector(f), 0x38);
	assert_true(f->engine->extint);
	/* And back: a line that is high now rises. */
	wr(f, 0x10, 0);
	assert_int_equal(fake_msis(f), 2);
	fake_machine_free(f);
}

static void test_cost(void **state)
{
	struct fake_machine *f = start();

	wr(f, CFG(0), PERIODIC | SET_VALUE);
	wr(f, CMP(0), 1);
	wr(f, 0x10, 1);
	fake_clock_fired = 0;
	fake_machine_advance(f, 3600 * SEC);
	assert_int_equal(fake_clock_fired, 0); /* nobody is told */
	assert_int_equal(rd(f, CMP(0)), rd(f, 0xf0) + 1);
	wr(f, CFG(0), PERIODIC | ENABLE | ROUTE(16));
	pin(f, 16, false);
	fake_machine_advance(f, 10 * MS);
	assert_in_range(fake_msis(f), 500, 1001);
	fake_machine_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_capabilities), cmocka_unit_test(test_counter), cmocka_unit_test(test_one_shot),
		cmocka_unit_test(test_32_bits_wrap), cmocka_unit_test(test_periodic),
		cmocka_unit_test(test_period_alone),
		cmocka_unit_test(test_level), cmocka_unit_test(test_message), cmocka_unit_test(test_legacy_replacement),
		cmocka_unit_test(test_cost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
