/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test.h"

#include "device/i8042.h"

/* IRQ 1 and 12 are vectors 0x31 and 0x3c. */
static struct fake_machine *start(void)
{
	struct fake_machine *f = fake_machine_new();

	fake_device(f, "ioapic", NULL);
	fake_device(f, "i8042", NULL);
	for (unsigned pin = 1; pin <= 12; pin += 11) {
		fake_write(f, Q35_IOAPIC_BASE, 0x10 + 2 * pin, 4);
		fake_write(f, Q35_IOAPIC_BASE + 0x10, 0x30 + pin, 4);
	}
	machine_resume(f->m);
	return f;
}

static struct device *dev(struct fake_machine *f)
{
	return machine_find(f->m, "i8042");
}

static void command(struct fake_machine *f, uint8_t value)
{
	fake_out(f, 0x64, value, 1);
}

static void data(struct fake_machine *f, uint8_t value)
{
	fake_out(f, 0x60, value, 1);
}

static void mouse(struct fake_machine *f, uint8_t value)
{
	command(f, 0xd4);
	data(f, value);
}

/* The next bytes, all from the keyboard side or all from the mouse, and no more. */
static void expect(struct fake_machine *f, bool aux, unsigned n, ...)
{
	va_list ap;

	va_start(ap, n);
	while (n--) {
		unsigned status = fake_in(f, 0x64, 1);

		assert_int_equal(status & 0x01, 0x01);
		assert_int_equal(status >> 5 & 1, aux);
		assert_int_equal(fake_in(f, 0x60, 1), va_arg(ap, int));
	}
	va_end(ap);
	assert_int_equal(fake_in(f, 0x64, 1) & 0x01, 0);
}

static void test_controller(void **state)
{
	struct fake_machine *f = start();

	assert_int_equal(fake_in(f, 0x64, 1), 0x14);
	command(f, 0xaa);
	assert_int_equal(fake_in(f, 0x64, 1) & 0x0d, 0x0d);
	expect(f, false, 1, 0x55);
	command(f, 0xab);
	expect(f, false, 1, 0x00);
	command(f, 0xa9);
	expect(f, false, 1, 0x00);
	command(f, 0x20);
	expect(f, false, 1, 0x47);
	command(f, 0x60);
	data(f, 0x30);
	assert_int_equal(fake_in(f, 0x64, 1) & 0x0c, 0); /* system flag off; not a command */
	command(f, 0x20);
	expect(f, false, 1, 0x30);
	command(f, 0xa8);
	command(f, 0xae);
	command(f, 0x20);
	expect(f, false, 1, 0x00);
	command(f, 0xa7);
	command(f, 0xad);
	command(f, 0x20);
	expect(f, false, 1, 0x30);
	/* How Linux looks for the second port. */
	command(f, 0xd3);
	data(f, 0x5a);
	expect(f, true, 1, 0x5a);
	command(f, 0xd2);
	data(f, 0xa5);
	expect(f, false, 1, 0xa5);
	command(f, 0x77);
	data(f, 0x99);
	command(f, 0x37);
	expect(f, false, 1, 0x99);
	command(f, 0xd0);
	expect(f, false, 1, 0x03);
	command(f, 0xdd);
	command(f, 0xd0);
	expect(f, false, 1, 0x01);
	fake_machine_free(f);
}

static void expect_reset(struct fake_machine *f, bool wanted)
{
	fake_machine_loop(f);
	assert_int_equal(f->events, wanted);
	if (wanted) {
		assert_int_equal(f->event[0].what, MACHINE_RESET_GUEST);
		assert_int_equal(machine_reset(f->m, NULL), 0);
		machine_resume(f->m);
	}
	f->events = 0;
}

static void test_reset_line(void **state)
{
	struct fake_machine *f = start();

	command(f, 0xff);
	expect_reset(f, false);
	command(f, 0xfe);
	expect_reset(f, true);
	command(f, 0xd1);
	data(f, 0x03);
	expect_reset(f, false);
	command(f, 0xd1);
	data(f, 0x02);
	expect_reset(f, true);
	fake_machine_free(f);
}

static void test_keyboard_commands(void **state)
{
	struct fake_machine *f = start();

	data(f, 0xff);
	expect(f, false, 2, 0xfa, 0xaa);
	data(f, 0xf2);
	expect(f, false, 3, 0xfa, 0xab, 0x41); /* 83 through the translator */
	data(f, 0xee);
	expect(f, false, 1, 0xee);
	data(f, 0xfe);
	expect(f, false, 1, 0xee);
	data(f, 0xed);
	expect(f, false, 1, 0xfa);
	data(f, 0x07);
	expect(f, false, 1, 0xfa);
	data(f, 0xf0);
	expect(f, false, 1, 0xfa);
	data(f, 0x03);
	expect(f, false, 1, 0xfe); /* set 3 is not there */
	command(f, 0x60);
	data(f, 0x07); /* no translation */
	data(f, 0xf0);
	expect(f, false, 1, 0xfa);
	data(f, 0x00);
	expect(f, false, 2, 0xfa, 0x02);
	data(f, 0x42);
	expect(f, false, 1, 0xfe);
	/* A command in place of a parameter. */
	data(f, 0xf3);
	expect(f, false, 1, 0xfa);
	data(f, 0xf4);
	expect(f, false, 1, 0xfa);
	fake_machine_free(f);
}

static void test_keys(void **state)
{
	struct fake_machine *f = start();

	i8042_key(dev(f), 0x1e, true); /* A */
	assert_int_equal(fake_msis(f), 1);
	expect(f, false, 1, 0x1e);
	i8042_key(dev(f), 0x1e, false);
	expect(f, false, 1, 0x9e);
	i8042_key(dev(f), 0xcb, true); /* left arrow */
	i8042_key(dev(f), 0xcb, false);
	fake_msi_clear(f);
	expect(f, false, 4, 0xe0, 0x4b, 0xe0, 0xcb);
	assert_int_equal(fake_msis(f), 3); /* one edge for each further byte */
	/* All the way through the translator and back. */
	for (unsigned code = 1; code <= 0x58; code++) {
		if ((code > 0x54 && code < 0x56) || code == 0x00)
			continue;
		i8042_key(dev(f), code, true);
		expect(f, false, 1, code);
	}
	/* Raw set 2, set 1. */
	command(f, 0x60);
	data(f, 0x07);
	i8042_key(dev(f), 0x01, true);
	i8042_key(dev(f), 0x01, false);
	expect(f, false, 3, 0x76, 0xf0, 0x76);
	data(f, 0xf0);
	expect(f, false, 1, 0xfa);
	data(f, 0x01);
	expect(f, false, 1, 0xfa);
	i8042_key(dev(f), 0x01, false);
	expect(f, false, 1, 0x81);
	/* Disabled: what is typed is lost. What is disabled at the controller waits. */
	data(f, 0xf5);
	expect(f, false, 1, 0xfa);
	i8042_key(dev(f), 0x02, true);
	expect(f, false, 0);
	data(f, 0xf4);
	expect(f, false, 1, 0xfa);
	command(f, 0xad);
	i8042_key(dev(f), 0x02, true);
	expect(f, false, 0);
	command(f, 0xae);
	expect(f, false, 1, 0x16);
	fake_machine_free(f);
}

static void test_full_queue_keeps_whole_keys(void **state)
{
	struct fake_machine *f = start();
	unsigned n = 0;

	for (unsigned i = 0; i < 100; i++)
		i8042_key(dev(f), 0xcb, true);
	while (fake_in(f, 0x64, 1) & 1) {
		assert_int_equal(fake_in(f, 0x60, 1), 0xe0);
		assert_int_equal(fake_in(f, 0x60, 1), 0x4b);
		n++;
	}
	assert_in_range(n, 32, 33);
	fake_machine_free(f);
}

static void test_mouse_commands(void **state)
{
	struct fake_machine *f = start();

	mouse(f, 0xff);
	expect(f, true, 3, 0xfa, 0xaa, 0x00);
	mouse(f, 0xf2);
	expect(f, true, 2, 0xfa, 0x00);
	mouse(f, 0xe9);
	expect(f, true, 4, 0xfa, 0x00, 0x02, 100);
	for (unsigned i = 0; i < 3; i++) {
		static const uint8_t knock[3] = { 200, 100, 80 };

		mouse(f, 0xf3);
		expect(f, true, 1, 0xfa);
		mouse(f, knock[i]);
		expect(f, true, 1, 0xfa);
	}
	mouse(f, 0xf2);
	expect(f, true, 2, 0xfa, 0x03);
	mouse(f, 0xe8);
	expect(f, true, 1, 0xfa);
	mouse(f, 0x03);
	expect(f, true, 1, 0xfa);
	mouse(f, 0xf4);
	expect(f, true, 1, 0xfa);
	mouse(f, 0xe9);
	expect(f, true, 4, 0xfa, 0x20, 0x03, 80);
	mouse(f, 0xee);
	expect(f, true, 1, 0xfa);
	mouse(f, 0x55);
	expect(f, true, 1, 0x55);
	mouse(f, 0xec);
	expect(f, true, 1, 0xfa);
	mouse(f, 0x01);
	expect(f, true, 1, 0xfe);
	fake_machine_free(f);
}

static void test_mouse_moves(void **state)
{
	struct fake_machine *f = start();

	i8042_mouse(dev(f), 5, 5, 0, 1);
	expect(f, true, 0); /* not enabled */
	i8042_mouse(dev(f), 0, 0, 0, 0);
	mouse(f, 0xf4);
	expect(f, true, 1, 0xfa);
	fake_msi_clear(f);
	i8042_mouse(dev(f), 5, 3, 0, 1);
	assert_int_equal(fake_msis(f), 1);
	expect(f, true, 3, 0x29, 0x05, 0xfd); /* down is negative */
	i8042_mouse(dev(f), -300, 0, 0, 0);
	expect(f, true, 6, 0x18, 0x00, 0x00, 0x18, 0xd4, 0x00); /* -256, -44 */
	mouse(f, 0xf0);
	expect(f, true, 1, 0xfa);
	i8042_mouse(dev(f), 1, 1, 0, 0);
	expect(f, true, 0);
	mouse(f, 0xeb);
	expect(f, true, 4, 0xfa, 0x28, 0x01, 0xff);
	/* More than fits is added up. */
	mouse(f, 0xf6);
	expect(f, true, 1, 0xfa);
	mouse(f, 0xf4);
	expect(f, true, 1, 0xfa);
	int sum = 0;

	for (unsigned i = 0; i < 1000; i++)
		i8042_mouse(dev(f), 3, 0, 0, 0);
	while (fake_in(f, 0x64, 1) & 1) {
		fake_in(f, 0x60, 1);
		sum += fake_in(f, 0x60, 1);
		fake_in(f, 0x60, 1);
	}
	assert_int_equal(sum, 3000);
	fake_machine_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_controller), cmocka_unit_test(test_reset_line),
		cmocka_unit_test(test_keyboard_commands),
		cmocka_unit_test(test_keys), cmocka_unit_test(test_full_queue_keeps_whole_keys),
		cmocka_unit_test(test_mouse_commands), cmocka_unit_test(test_mouse_moves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
