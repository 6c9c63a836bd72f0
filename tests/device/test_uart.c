/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test.h"

#include "device/classes.h"

enum { DATA = 0x3f8, IER, IIR, LCR, MCR, LSR, MSR, SCR };

static struct fake_chardev line;

/* IRQ 4 is vector 0x34. */
static struct fake_machine *start(void)
{
	struct fake_machine *f = fake_machine_new();
	struct device *d;

	fake_chardev_init(&line);
	fake_device(f, "ioapic", NULL);
	d = device_new(f->m, device_class_find("isa-serial"), "com1", NULL);
	device_set_ptr(d, "chardev", &line);
	assert_int_equal(device_realize(d, NULL), 0);
	fake_write(f, Q35_IOAPIC_BASE, 0x10 + 2 * 4, 4);
	fake_write(f, Q35_IOAPIC_BASE + 0x10, 0x34, 4);
	fake_machine_advance(f, SEC);
	return f;
}

static void test_registers(void **state)
{
	struct fake_machine *f = start();

	assert_int_equal(fake_in(f, LSR, 1), 0x60);
	assert_int_equal(fake_in(f, MSR, 1), 0xb0);
	assert_int_equal(fake_in(f, IIR, 1), 0x01);
	fake_out(f, SCR, 0xa5, 1);
	assert_int_equal(fake_in(f, SCR, 1), 0xa5);
	fake_out(f, LCR, 0x83, 1);
	fake_out(f, DATA, 0x34, 1);
	fake_out(f, IER, 0x12, 1);
	assert_int_equal(fake_in(f, DATA, 2), 0x1234);
	fake_out(f, LCR, 0x03, 1);
	assert_int_equal(fake_in(f, LCR, 1), 0x03);
	fake_out(f, IER, 0xff, 1);
	assert_int_equal(fake_in(f, IER, 1), 0x0f);
	fake_out(f, MCR, 0xef, 1);
	assert_int_equal(fake_in(f, MCR, 1), 0x0f);
	fake_out(f, IIR, 0x01, 1); /* how a 16550A is told from the others */
	assert_int_equal(fake_in(f, IIR, 1) & 0xc0, 0xc0);
	fake_machine_free(f);
}

/* The first byte at once, those after it together. */
static void test_transmit(void **state)
{
	struct fake_machine *f = start();
	char text[5000];

	fake_out(f, DATA, 'x', 1);
	assert_int_equal(line.len, 1);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(fake_in(f, LSR, 1), 0x60);
		fake_out(f, DATA, 'a' + i % 26, 1);
	}
	assert_int_equal(line.writes, 1);
	fake_machine_advance(f, 2 * MS);
	assert_int_equal(line.writes, 2);
	assert_int_equal(line.len, 101);
	assert_memory_equal(line.out, "xabcdefghijklmnopqrstuvwxyzab", 29);
	/* A lot: in pieces, nothing lost. */
	line.len = line.writes = 0;
	for (unsigned i = 0; i < sizeof(text); i++) {
		text[i] = i * 7;
		fake_out(f, DATA, text[i], 1);
	}
	machine_resume(f->m);
	machine_pause(f->m); /* what is left goes out */
	assert_int_equal(line.len, sizeof(text));
	assert_memory_equal(line.out, text, sizeof(text));
	assert_in_range(line.writes, 5, 12);
	fake_machine_free(f);
}

static void test_back_pressure(void **state)
{
	struct fake_machine *f = start();
	unsigned sent = 0;

	line.room = 100;
	while (fake_in(f, LSR, 1) & 0x20) {
		assert_true(sent < 10000);
		fake_out(f, DATA, sent++, 1);
	}
	assert_int_equal(fake_in(f, LSR, 1) & 0x60, 0);
	assert_true(sent > 1000);
	fake_out(f, IER, 0x02, 1);
	assert_int_equal(fake_in(f, IIR, 1) & 0x0f, 0x01);
	fake_msi_clear(f);
	line.room = SIZE_MAX;
	line.chardev.front->writable(line.chardev.front_opaque);
	assert_int_equal(fake_msis(f), 1);
	assert_int_equal(fake_in(f, IIR, 1) & 0x0f, 0x02);
	assert_int_equal(fake_in(f, LSR, 1) & 0x60, 0x60);
	assert_int_equal(line.len, sent);
	for (unsigned i = 0; i < sent; i++)
		assert_int_equal(line.out[i], i & 0xff);
	fake_machine_free(f);
}

static void test_transmit_interrupt(void **state)
{
	struct fake_machine *f = start();

	/* How Linux finds out whether enabling it interrupts. */
	fake_out(f, IER, 0x02, 1);
	assert_int_equal(fake_msis(f), 1);
	assert_int_equal(fake_in(f, IIR, 1), 0x02);
	assert_int_equal(fake_in(f, IIR, 1), 0x01);
	fake_out(f, IER, 0, 1);
	fake_out(f, IER, 0x02, 1);
	assert_int_equal(fake_in(f, IIR, 1), 0x02);
	fake_msi_clear(f);
	fake_out(f, DATA, 'a', 1);
	fake_out(f, DATA, 'b', 1);
	fake_out(f, DATA, 'c', 1);
	assert_int_equal(fake_msis(f), 1); /* not one a byte */
	assert_int_equal(fake_in(f, IIR, 1), 0x02);
	fake_machine_free(f);
}

static void test_receive(void **state)
{
	struct fake_machine *f = start();

	assert_int_equal(fake_chardev_type(&line, "hi", 2), 1); /* no FIFO */
	assert_int_equal(fake_in(f, LSR, 1) & 1, 1);
	fake_out(f, IER, 0x01, 1);
	assert_int_equal(fake_msis(f), 1);
	assert_int_equal(fake_in(f, IIR, 1), 0x04);
	assert_int_equal(fake_in(f, DATA, 1), 'h');
	assert_int_equal(line.accepts, 1);
	assert_int_equal(fake_in(f, IIR, 1), 0x01);
	assert_int_equal(fake_chardev_type(&line, "i", 1), 1);
	assert_int_equal(fake_in(f, DATA, 1), 'i');
	assert_int_equal(line.accepts, 1); /* it does not wait */
	assert_int_equal(fake_in(f, DATA, 1), 0);
	fake_machine_free(f);
}

static void test_fifo_trigger_and_timeout(void **state)
{
	struct fake_machine *f = start();

	fake_out(f, IIR, 0x81, 1); /* trigger at 8 */
	fake_out(f, LCR, 0x83, 1);
	fake_out(f, DATA, 1, 2); /* 115,200 baud */
	fake_out(f, LCR, 0x03, 1);
	fake_out(f, IER, 0x01, 1);
	fake_chardev_type(&line, "1234567", 7);
	assert_int_equal(fake_in(f, IIR, 1), 0xc1);
	fake_machine_advance(f, 340 * US); /* four characters are 347 us */
	assert_int_equal(fake_msis(f), 0);
	fake_machine_advance(f, 10 * US);
	assert_int_equal(fake_msis(f), 1);
	assert_int_equal(fake_in(f, IIR, 1), 0xcc);
	assert_int_equal(fake_in(f, DATA, 1), '1'); /* reading restarts it */
	assert_int_equal(fake_in(f, IIR, 1), 0xc1);
	fake_chardev_type(&line, "89", 2);
	assert_int_equal(fake_in(f, IIR, 1), 0xc4);
	assert_int_equal(fake_msis(f), 1);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(fake_in(f, DATA, 1), '2' + i);
	assert_int_equal(fake_in(f, IIR, 1), 0xc1);
	fake_machine_advance(f, SEC);
	assert_int_equal(fake_msis(f), 0);
	/* 16 fit, the rest waits until they are read. */
	assert_int_equal(fake_chardev_type(&line, "0123456789abcdefghij", 20), 16);
	for (unsigned i = 0; i < 15; i++) {
		fake_in(f, DATA, 1);
		assert_int_equal(line.accepts, 0);
	}
	assert_int_equal(fake_in(f, DATA, 1), 'f');
	assert_int_equal(line.accepts, 1);
	/* Cleared. */
	fake_chardev_type(&line, "xyz", 3);
	fake_out(f, IIR, 0x83, 1);
	assert_int_equal(fake_in(f, LSR, 1) & 1, 0);
	fake_machine_free(f);
}

static void test_loopback(void **state)
{
	struct fake_machine *f = start();

	fake_out(f, MCR, 0x10, 1);
	assert_int_equal(fake_in(f, MSR, 1), 0x0b); /* CTS, DSR, DCD went */
	assert_int_equal(fake_in(f, MSR, 1), 0x00);
	fake_out(f, MCR, 0x1f, 1);
	assert_int_equal(fake_in(f, MSR, 1) & 0xf0, 0xf0);
	fake_out(f, MCR, 0x1a, 1); /* as Linux tests for a UART */
	assert_int_equal(fake_in(f, MSR, 1), 0x96); /* RTS, OUT2; DSR changed, RI ended */
	fake_out(f, DATA, 0x55, 1);
	assert_int_equal(fake_in(f, LSR, 1), 0x61);
	assert_int_equal(line.len, 0);
	fake_out(f, DATA, 0x66, 1); /* overrun */
	fake_out(f, IER, 0x05, 1);
	assert_int_equal(fake_in(f, IIR, 1), 0x06); /* the line's status comes first */
	assert_int_equal(fake_in(f, LSR, 1), 0x63);
	assert_int_equal(fake_in(f, IIR, 1), 0x04);
	assert_int_equal(fake_in(f, DATA, 1), 0x55);
	fake_out(f, LCR, 0x43, 1); /* break */
	assert_int_equal(fake_in(f, LSR, 1), 0x71);
	assert_int_equal(fake_in(f, DATA, 1), 0x00);
	/* What the line brings waits. */
	assert_int_equal(fake_chardev_type(&line, "x", 1), 0);
	fake_out(f, MCR, 0x08, 1);
	assert_int_equal(line.accepts, 1);
	assert_int_equal(fake_chardev_type(&line, "x", 1), 1);
	fake_machine_free(f);
}

static void test_modem_interrupt(void **state)
{
	struct fake_machine *f = start();

	fake_out(f, IER, 0x08, 1);
	fake_out(f, MCR, 0x10, 1);
	assert_int_equal(fake_msis(f), 1);
	assert_int_equal(fake_in(f, IIR, 1), 0x00);
	fake_in(f, MSR, 1);
	assert_int_equal(fake_in(f, IIR, 1), 0x01);
	fake_machine_free(f);
}

static void test_ports(void **state)
{
	static const uint16_t base[4] = { 0x3f8, 0x2f8, 0x3e8, 0x2e8 };
	struct fake_machine *f = fake_machine_new();
	struct err err = ERR_INIT;

	for (unsigned i = 0; i < 4; i++) {
		char index[2] = { '0' + i, 0 };

		assert_non_null(device_add(f->m, "isa-serial", NULL, &err, "index", index, NULL));
		assert_int_equal(fake_in(f, base[i] + 5, 1), 0x60);
	}
	assert_null(device_add(f->m, "isa-serial", NULL, &err, "index", "2", NULL));
	assert_int_equal(err.code, 17 /* EEXIST */);
	assert_non_null(device_add(f->m, "isa-serial", NULL, NULL, "iobase", "0x200", "irq", "7", NULL));
	assert_int_equal(fake_in(f, 0x205, 1), 0x60);
	fake_machine_free(f);
}

/* Bytes that the back end has not taken yet are saved and sent by who loads them. */
static void test_saved_output(void **state)
{
	struct fake_machine *f = start();
	struct state_buf b = { 0 };

	line.room = 0;
	for (unsigned i = 0; i < 10; i++)
		fake_out(f, DATA, 'a' + i, 1);
	assert_int_equal(machine_save(f->m, &b, NULL), 0);
	fake_machine_free(f);
	f = start();
	assert_int_equal(machine_load(f->m, b.data, b.len, NULL), 0);
	fake_machine_advance(f, MS);
	assert_int_equal(line.len, 10);
	assert_memory_equal(line.out, "abcdefghij", 10);
	state_buf_free(&b);
	fake_machine_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registers), cmocka_unit_test(test_transmit), cmocka_unit_test(test_back_pressure),
		cmocka_unit_test(test_transmit_interrupt), cmocka_unit_test(test_receive),
		cmocka_unit_test(test_fifo_trigger_and_timeout), cmocka_unit_test(test_loopback),
		cmocka_unit_test(test_modem_interrupt), cmocka_unit_test(test_ports),
		cmocka_unit_test(test_saved_output),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
