/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test.h"

#define BASE Q35_IOAPIC_BASE
#define MASKED 0x10000u
#define LEVEL 0x8000u
#define REMOTE_IRR 0x4000u
#define LOW 0x2000u

static struct fake_machine *start(void)
{
	struct fake_machine *f = fake_machine_new();

	fake_device(f, "ioapic", NULL);
	return f;
}

static uint32_t reg(struct fake_machine *f, unsigned index)
{
	fake_write(f, BASE, index, 4);
	return fake_read(f, BASE + 0x10, 4);
}

static void set_reg(struct fake_machine *f, unsigned index, uint32_t value)
{
	fake_write(f, BASE, index, 4);
	fake_write(f, BASE + 0x10, value, 4);
}

static void set_entry(struct fake_machine *f, unsigned pin, uint32_t high, uint32_t low)
{
	set_reg(f, 0x11 + 2 * pin, high);
	set_reg(f, 0x10 + 2 * pin, low);
}

static uint32_t entry(struct fake_machine *f, unsigned pin)
{
	return reg(f, 0x10 + 2 * pin);
}

static void expect_msi(struct fake_machine *f, uint64_t address, uint32_t data)
{
	struct fake_msi msi;

	assert_true(fake_msi_take(f, &msi));
	assert_int_equal(msi.address, address);
	assert_int_equal(msi.data, data);
	assert_false(fake_msi_take(f, &msi));
}

static void eoi(struct fake_machine *f, uint8_t vector)
{
	f->m->ioapic_eoi(f->m->ioapic_opaque, vector);
}

static void test_registers(void **state)
{
	struct fake_machine *f = start();

	assert_int_equal(reg(f, 1), 0x00170020);
	set_reg(f, 0, 0xffffffff);
	assert_int_equal(reg(f, 0), 0x0f000000);
	assert_int_equal(reg(f, 2), 0x0f000000);
	for (unsigned pin = 0; pin < 24; pin++)
		assert_int_equal(entry(f, pin), MASKED);
	set_entry(f, 23, 0xffffffff, 0xffffffff);
	/* Delivery status and remote IRR are the chip's. */
	assert_int_equal(entry(f, 23), 0x0001afff);
	assert_int_equal(reg(f, 0x11 + 46), 0xff000000);
	assert_int_equal(reg(f, 0x40), 0);
	fake_write(f, BASE, 0x01, 1);
	assert_int_equal(fake_read(f, BASE + 0x10, 4), 0x00170020);
	fake_machine_free(f);
}

static void test_edge(void **state)
{
	struct fake_machine *f = start();

	set_line(f, 4, true); /* masked: lost */
	set_entry(f, 4, 0x03000000, 0x34);
	assert_int_equal(fake_msis(f), 0);
	set_line(f, 4, true); /* no edge */
	assert_int_equal(fake_msis(f), 0);
	set_line(f, 4, false);
	set_line(f, 4, true);
	expect_msi(f, 0xfee03000, 0x4034);
	assert_int_equal(entry(f, 4), 0x34);
	/* Edges need no EOI. */
	set_line(f, 4, false);
	set_line(f, 4, true);
	assert_int_equal(fake_msis(f), 1);
	/* Logical destination, lowest priority; the timer is on pin 2. */
	set_entry(f, 2, 0xff000000, 0x0930);
	set_line(f, 0, true);
	expect_msi(f, 0xfeeff004, 0x4130);
	fake_machine_free(f);
}

static void test_level(void **state)
{
	struct fake_machine *f = start();

	set_entry(f, 17, 0x01000000, LEVEL | LOW | 0x61);
	assert_int_equal(fake_msis(f), 0);
	set_line(f, 17, true);
	expect_msi(f, 0xfee01000, 0xc061);
	assert_int_equal(entry(f, 17), LEVEL | LOW | REMOTE_IRR | 0x61);
	set_line(f, 17, false);
	set_line(f, 17, true);
	assert_int_equal(fake_msis(f), 0); /* in service */
	eoi(f, 0x62);
	assert_int_equal(fake_msis(f), 0);
	eoi(f, 0x61); /* still asserted: again */
	expect_msi(f, 0xfee01000, 0xc061);
	set_line(f, 17, false);
	eoi(f, 0x61);
	assert_int_equal(fake_msis(f), 0);
	assert_int_equal(entry(f, 17), LEVEL | LOW | 0x61);
	fake_machine_free(f);
}

static void test_eoi_register(void **state)
{
	struct fake_machine *f = start();

	set_entry(f, 20, 0, LEVEL | 0x70);
	set_entry(f, 21, 0, LEVEL | 0x70);
	set_line(f, 20, true);
	set_line(f, 21, true);
	assert_int_equal(fake_msis(f), 2);
	set_line(f, 21, false);
	fake_write(f, BASE + 0x40, 0x70, 4);
	assert_int_equal(fake_msis(f), 1);
	assert_int_equal(entry(f, 20) & REMOTE_IRR, REMOTE_IRR);
	assert_int_equal(entry(f, 21) & REMOTE_IRR, 0);
	fake_machine_free(f);
}

static void test_masked_level(void **state)
{
	struct fake_machine *f = start();

	set_line(f, 9, true);
	set_entry(f, 9, 0, MASKED | LEVEL | 0x50);
	assert_int_equal(fake_msis(f), 0);
	set_entry(f, 9, 0, LEVEL | 0x50); /* unmasked while asserted */
	assert_int_equal(fake_msis(f), 1);
	/* Masked in service, ended, unmasked: how threaded handlers go. */
	set_entry(f, 9, 0, MASKED | LEVEL | 0x50);
	assert_int_equal(entry(f, 9) & REMOTE_IRR, REMOTE_IRR);
	eoi(f, 0x50);
	assert_int_equal(fake_msis(f), 0);
	set_entry(f, 9, 0, LEVEL | 0x50);
	assert_int_equal(fake_msis(f), 1);
	/* A stuck remote IRR is cleared by switching to edge and back. */
	set_entry(f, 9, 0, MASKED | 0x50);
	assert_int_equal(entry(f, 9) & REMOTE_IRR, 0);
	set_entry(f, 9, 0, LEVEL | 0x50);
	assert_int_equal(fake_msis(f), 1);
	fake_machine_free(f);
}

static void test_routes(void **state)
{
	struct fake_machine *f = start();
	unsigned calls;

	set_entry(f, 10, 0x02000000, LEVEL | 0x44);
	assert_int_equal(f->engine->routes, 24);
	assert_int_equal(f->engine->route[10].address, 0xfee02000);
	assert_int_equal(f->engine->route[10].data, 0xc044);
	assert_int_equal(f->engine->route[11].address, 0);
	/* No change, no call. */
	calls = f->engine->route_calls;
	set_entry(f, 10, 0x02000000, LEVEL | 0x44);
	assert_int_equal(f->engine->route_calls, calls);
	/* In service: the EOI must come back although the pin is masked now. */
	set_line(f, 10, true);
	set_entry(f, 10, 0x02000000, MASKED | LEVEL | 0x44);
	assert_int_equal(f->engine->route[10].data, 0xc044);
	eoi(f, 0x44);
	set_line(f, 10, false);
	set_entry(f, 10, 0x02000000, MASKED | LEVEL | 0x45);
	assert_int_equal(f->engine->route[10].address, 0);
	fake_machine_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registers), cmocka_unit_test(test_edge), cmocka_unit_test(test_level),
		cmocka_unit_test(test_eoi_register), cmocka_unit_test(test_masked_level), cmocka_unit_test(test_routes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
