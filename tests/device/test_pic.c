/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test.h"

enum { M_CMD = 0x20, M_DATA = 0x21, S_CMD = 0xa0, S_DATA = 0xa1, NON_SPECIFIC_EOI = 0x20,
       READ_IRR = 0x0a, READ_ISR = 0x0b };

/* Both chips as every kernel sets them up, but for ICW4 of the master. */
static struct fake_machine *start(uint8_t icw4)
{
	struct fake_machine *f = fake_machine_new();

	fake_device(f, "i8259", NULL);
	fake_out(f, M_CMD, 0x11, 1);
	fake_out(f, M_DATA, 0x20, 1);
	fake_out(f, M_DATA, 0x04, 1);
	fake_out(f, M_DATA, icw4, 1);
	fake_out(f, S_CMD, 0x11, 1);
	fake_out(f, S_DATA, 0x28, 1);
	fake_out(f, S_DATA, 0x02, 1);
	fake_out(f, S_DATA, 0x01, 1);
	return f;
}

static unsigned isr(struct fake_machine *f)
{
	fake_out(f, M_CMD, READ_ISR, 1);
	fake_out(f, S_CMD, READ_ISR, 1);
	return fake_in(f, M_CMD, 1) | fake_in(f, S_CMD, 1) << 8;
}

static unsigned irr(struct fake_machine *f)
{
	fake_out(f, M_CMD, READ_IRR, 1);
	fake_out(f, S_CMD, READ_IRR, 1);
	return fake_in(f, M_CMD, 1) | fake_in(f, S_CMD, 1) << 8;
}

static void pulse(struct fake_machine *f, unsigned n)
{
	set_line(f, n, true);
	set_line(f, n, false);
}

static void test_edge(void **state)
{
	struct fake_machine *f = start(1);

	set_line(f, 1, true);
	assert_true(f->engine->extint);
	assert_int_equal(irr(f), 0x0002);
	assert_int_equal(fake_ack(f), 0x21);
	assert_false(f->engine->extint);
	assert_int_equal(isr(f), 0x0002);
	assert_int_equal(irr(f), 0);
	/* A level that stays is no second edge. */
	fake_out(f, M_CMD, NON_SPECIFIC_EOI, 1);
	assert_int_equal(isr(f), 0);
	assert_false(f->engine->extint);
	/* A new edge during service waits for the EOI. */
	set_line(f, 1, false);
	set_line(f, 1, true);
	assert_int_equal(fake_ack(f), 0x21);
	pulse(f, 1);
	set_line(f, 1, true);
	assert_false(f->engine->extint);
	fake_out(f, M_CMD, NON_SPECIFIC_EOI, 1);
	assert_true(f->engine->extint);
	fake_machine_free(f);
}

static void test_mask(void **state)
{
	struct fake_machine *f = start(1);

	fake_out(f, M_DATA, 0x10, 1);
	assert_int_equal(fake_in(f, M_DATA, 1), 0x10);
	set_line(f, 4, true);
	assert_false(f->engine->extint);
	assert_int_equal(irr(f), 0x0010);
	fake_out(f, M_DATA, 0, 1);
	assert_true(f->engine->extint);
	fake_out(f, M_DATA, 0x10, 1);
	assert_false(f->engine->extint);
	fake_machine_free(f);
}

static void test_priority(void **state)
{
	struct fake_machine *f = start(1);

	pulse(f, 4);
	assert_int_equal(fake_ack(f), 0x24);
	pulse(f, 5);
	assert_false(f->engine->extint);
	pulse(f, 0);
	assert_true(f->engine->extint);
	assert_int_equal(fake_ack(f), 0x20);
	assert_int_equal(isr(f), 0x0011);
	fake_out(f, M_CMD, NON_SPECIFIC_EOI, 1); /* ends 0, the higher */
	assert_int_equal(isr(f), 0x0010);
	fake_out(f, M_CMD, 0x64, 1); /* specific: 4 */
	assert_int_equal(isr(f), 0);
	assert_int_equal(fake_ack(f), 0x25);
	fake_machine_free(f);
}

static void test_slave(void **state)
{
	struct fake_machine *f = start(1);

	pulse(f, 12);
	assert_int_equal(irr(f), 0x1004);
	assert_int_equal(fake_ack(f), 0x2c);
	assert_int_equal(isr(f), 0x1004);
	/* Higher in the slave, but the master serves the cascade already. */
	pulse(f, 8);
	assert_false(f->engine->extint);
	/* Higher than the cascade. */
	pulse(f, 1);
	assert_int_equal(fake_ack(f), 0x21);
	fake_out(f, M_CMD, NON_SPECIFIC_EOI, 1);
	fake_out(f, M_CMD, NON_SPECIFIC_EOI, 1);
	assert_int_equal(isr(f), 0x1000);
	assert_int_equal(fake_ack(f), 0x28);
	fake_out(f, S_CMD, NON_SPECIFIC_EOI, 1);
	fake_out(f, S_CMD, NON_SPECIFIC_EOI, 1);
	fake_out(f, M_CMD, NON_SPECIFIC_EOI, 1);
	assert_int_equal(isr(f), 0);
	assert_false(f->engine->extint);
	fake_machine_free(f);
}

static void test_two_slave_requests_at_once(void **state)
{
	struct fake_machine *f = start(1);

	pulse(f, 9);
	pulse(f, 14);
	assert_int_equal(fake_ack(f), 0x29);
	fake_out(f, S_CMD, NON_SPECIFIC_EOI, 1);
	fake_out(f, M_CMD, NON_SPECIFIC_EOI, 1);
	assert_true(f->engine->extint);
	assert_int_equal(fake_ack(f), 0x2e);
	fake_machine_free(f);
}

static void test_special_fully_nested(void **state)
{
	struct fake_machine *f = start(0x11);

	pulse(f, 12);
	assert_int_equal(fake_ack(f), 0x2c);
	pulse(f, 8);
	assert_true(f->engine->extint);
	/* Lower than the cascade stays out. */
	assert_int_equal(fake_ack(f), 0x28);
	pulse(f, 3);
	assert_false(f->engine->extint);
	fake_machine_free(f);
}

static void test_level(void **state)
{
	struct fake_machine *f = start(1);

	fake_out(f, 0x4d0, 0xff, 1);
	fake_out(f, 0x4d1, 0xff, 1);
	/* Timer, keyboard, cascade, clock and FPU stay edges. */
	assert_int_equal(fake_in(f, 0x4d0, 2), 0xdef8);
	set_line(f, 11, true);
	assert_int_equal(fake_ack(f), 0x2b);
	assert_int_equal(irr(f) & 0x0800, 0x0800);
	fake_out(f, S_CMD, NON_SPECIFIC_EOI, 1);
	fake_out(f, M_CMD, NON_SPECIFIC_EOI, 1);
	assert_true(f->engine->extint); /* still asserted */
	assert_int_equal(fake_ack(f), 0x2b);
	set_line(f, 11, false);
	fake_out(f, S_CMD, NON_SPECIFIC_EOI, 1);
	fake_out(f, M_CMD, NON_SPECIFIC_EOI, 1);
	assert_false(f->engine->extint);
	assert_int_equal(irr(f), 0);
	fake_machine_free(f);
}

static void test_spurious(void **state)
{
	struct fake_machine *f = start(1);

	assert_int_equal(fake_ack(f), -1);
	fake_out(f, 0x4d0, 0x20, 1);
	set_line(f, 5, true);
	assert_true(f->engine->extint);
	set_line(f, 5, false);
	assert_false(f->engine->extint);
	/* The INTA cycle was under way. */
	assert_int_equal(fake_ack(f), 0x27);
	assert_int_equal(isr(f), 0);
	assert_int_equal(fake_ack(f), -1);
	fake_machine_free(f);
}

static void test_rotation(void **state)
{
	struct fake_machine *f = start(1);

	fake_out(f, M_CMD, 0xc4, 1); /* 4 lowest, 5 highest */
	pulse(f, 4);
	pulse(f, 0);
	pulse(f, 5);
	assert_int_equal(fake_ack(f), 0x25);
	fake_out(f, M_CMD, 0xa0, 1); /* rotate on non-specific EOI: 5 lowest */
	pulse(f, 5);
	pulse(f, 6);
	assert_int_equal(fake_ack(f), 0x26);
	fake_out(f, M_CMD, 0xe6, 1); /* rotate on specific EOI: 6 lowest */
	assert_int_equal(isr(f), 0);
	pulse(f, 6);
	assert_int_equal(fake_ack(f), 0x20);
	fake_out(f, M_CMD, 0x60, 1);
	assert_int_equal(fake_ack(f), 0x24);
	fake_out(f, M_CMD, 0x64, 1);
	assert_int_equal(fake_ack(f), 0x25);
	fake_out(f, M_CMD, 0x65, 1);
	assert_int_equal(fake_ack(f), 0x26);
	fake_machine_free(f);
}

static void test_auto_eoi(void **state)
{
	struct fake_machine *f = start(0x03);

	pulse(f, 3);
	assert_int_equal(fake_ack(f), 0x23);
	assert_int_equal(isr(f), 0);
	fake_out(f, M_CMD, 0x80, 1); /* rotate */
	pulse(f, 3);
	assert_int_equal(fake_ack(f), 0x23);
	pulse(f, 3);
	pulse(f, 7);
	assert_int_equal(fake_ack(f), 0x27);
	fake_machine_free(f);
}

static void test_special_mask(void **state)
{
	struct fake_machine *f = start(1);

	pulse(f, 4);
	assert_int_equal(fake_ack(f), 0x24);
	pulse(f, 6);
	assert_false(f->engine->extint);
	fake_out(f, M_DATA, 0x10, 1);
	fake_out(f, M_CMD, 0x68, 1); /* special mask mode */
	assert_true(f->engine->extint);
	assert_int_equal(fake_ack(f), 0x26);
	fake_out(f, M_CMD, NON_SPECIFIC_EOI, 1);
	assert_int_equal(isr(f), 0x0010);
	fake_out(f, M_CMD, NON_SPECIFIC_EOI, 1); /* what is masked is not ended */
	assert_int_equal(isr(f), 0x0010);
	fake_out(f, M_CMD, 0x48, 1);
	fake_out(f, M_CMD, NON_SPECIFIC_EOI, 1);
	assert_int_equal(isr(f), 0);
	fake_machine_free(f);
}

static void test_poll(void **state)
{
	struct fake_machine *f = start(1);

	fake_out(f, M_CMD, 0x0c, 1);
	assert_int_equal(fake_in(f, M_CMD, 1) & 0x80, 0);
	pulse(f, 5);
	fake_out(f, M_CMD, 0x0c, 1);
	assert_int_equal(fake_in(f, M_CMD, 1), 0x85);
	assert_false(f->engine->extint);
	assert_int_equal(isr(f), 0x0020);
	fake_machine_free(f);
}

static void test_icw1_forgets(void **state)
{
	struct fake_machine *f = start(1);

	fake_out(f, M_DATA, 0xff, 1);
	pulse(f, 4);
	fake_out(f, M_CMD, 0x11, 1);
	fake_out(f, M_DATA, 0x40, 1);
	fake_out(f, M_DATA, 0x04, 1);
	fake_out(f, M_DATA, 0x01, 1);
	assert_int_equal(fake_in(f, M_DATA, 1), 0);
	assert_false(f->engine->extint);
	pulse(f, 4);
	assert_int_equal(fake_ack(f), 0x44);
	fake_machine_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_edge), cmocka_unit_test(test_mask), cmocka_unit_test(test_priority),
		cmocka_unit_test(test_slave), cmocka_unit_test(test_two_slave_requests_at_once),
		cmocka_unit_test(test_special_fully_nested), cmocka_unit_test(test_level),
		cmocka_unit_test(test_spurious),
		cmocka_unit_test(test_rotation), cmocka_unit_test(test_auto_eoi), cmocka_unit_test(test_special_mask),
		cmocka_unit_test(test_poll), cmocka_unit_test(test_icw1_forgets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
