/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test.h"

#include "device/classes.h"
#include "machine/pci.h"

#define PM Q35_PM_BASE
#define LPC (Q35_ECAM_BASE + (31u << 15))

static struct fake_machine *start(bool preset)
{
	struct fake_machine *f = fake_machine_new();
	struct err err = ERR_INIT;

	fake_device(f, "mch", NULL);
	fake_device(f, "i8259", NULL);
	fake_device(f, "ioapic", NULL);
	if (!device_add(f->m, "ich9-lpc", NULL, &err, "acpi-preset", preset ? "on" : "off", NULL))
		fail_msg("%s", err_msg(&err));
	/* The SCI: pin 9, level, vector 0x39. */
	fake_write(f, Q35_IOAPIC_BASE, 0x10 + 2 * 9, 4);
	fake_write(f, Q35_IOAPIC_BASE + 0x10, 0x8039, 4);
	machine_resume(f->m);
	return f;
}

/* Is the SCI asserted? Then it comes again after its EOI. */
static unsigned scis(struct fake_machine *f)
{
	fake_msi_clear(f);
	f->m->ioapic_eoi(f->m->ioapic_opaque, 0x39);
	return fake_msis(f);
}

static void expect_event(struct fake_machine *f, enum machine_stop what)
{
	fake_machine_loop(f);
	assert_int_equal(f->events, 1);
	assert_int_equal(f->event[0].what, what);
	f->events = 0;
	assert_int_equal(machine_reset(f->m, NULL), 0);
	machine_resume(f->m);
}

static void test_config(void **state)
{
	struct fake_machine *f = start(true);

	assert_int_equal(fake_read(f, LPC, 4), 0x29188086);
	assert_int_equal(fake_read(f, LPC + 8, 4) >> 8, 0x060100);
	assert_int_equal(fake_read(f, LPC + 4, 2), 0x0007);
	assert_int_equal(fake_read(f, LPC + 0x40, 4), PM | 1);
	assert_int_equal(fake_read(f, LPC + 0x60, 4), 0x80808080);
	fake_write(f, LPC + 4, 0, 2);
	assert_int_equal(fake_read(f, LPC + 4, 2) & 7, 7);
	fake_machine_free(f);
}

static void test_pmbase(void **state)
{
	struct fake_machine *f = start(false);

	assert_int_equal(fake_in(f, PM + 4, 2), 0xffff);
	fake_write(f, LPC + 0x40, 0x0b00, 4); /* what SeaBIOS and OVMF do, elsewhere */
	assert_int_equal(fake_in(f, 0xb04, 2), 0xffff);
	fake_write(f, LPC + 0x44, 0x80, 1);
	assert_int_equal(fake_in(f, 0xb04, 2), 0x0001);
	fake_write(f, LPC + 0x40, 0x0600, 4);
	assert_int_equal(fake_in(f, 0xb04, 2), 0xffff);
	assert_int_equal(fake_in(f, PM + 4, 2), 0x0001);
	/* SeaBIOS must think that SMM is done. */
	assert_int_equal(fake_in(f, PM + 0x30, 4) & 0x20, 0x20);
	fake_out(f, PM + 0x30, 0, 4);
	assert_int_equal(fake_in(f, PM + 0x30, 4) & 0x20, 0x20);
	/* Over other chips: they keep their ports. */
	fake_write(f, LPC + 0x40, 0x0000, 4);
	assert_int_equal(fake_in(f, 0x4d0, 1), 0);
	machine_pause(f->m);
	assert_int_equal(machine_reset(f->m, NULL), 0);
	assert_int_equal(fake_in(f, PM + 4, 2), 0xffff);
	fake_machine_free(f);
}

static void test_timer(void **state)
{
	struct fake_machine *f = start(true);
	uint32_t before = fake_in(f, PM + 8, 4);

	fake_machine_advance(f, SEC);
	assert_int_equal(fake_in(f, PM + 8, 4) - before, 3579545);
	/* Bit 31 changes after 2^31 ticks: 600 s. The status comes without the interrupt. */
	fake_machine_advance(f, 599 * SEC);
	assert_int_equal(fake_in(f, PM, 2) & 1, 1);
	fake_out(f, PM, 1, 2);
	assert_int_equal(fake_in(f, PM, 2) & 1, 0);
	assert_int_equal(scis(f), 0);
	fake_out(f, PM + 2, 1, 2);
	fake_machine_advance(f, 599 * SEC);
	assert_int_equal(scis(f), 0);
	fake_machine_advance(f, 2 * SEC);
	assert_int_equal(scis(f), 1);
	assert_int_equal(scis(f), 1); /* level */
	fake_out(f, PM, 1, 2);
	assert_int_equal(scis(f), 0);
	fake_machine_free(f);
}

static void test_power_button(void **state)
{
	struct fake_machine *f = start(true);

	f->m->power_button(f->m->power_opaque);
	fake_machine_loop(f);
	assert_int_equal(f->events, 1);
	assert_int_equal(f->event[0].what, MACHINE_POWERDOWN);
	assert_int_equal(f->m->state, MACHINE_RUNNING);
	assert_int_equal(scis(f), 0);
	assert_int_equal(fake_in(f, PM, 2), 0x0100);
	fake_out(f, PM + 3, 0x01, 1); /* PWRBTN_EN by its byte alone */
	assert_int_equal(scis(f), 1);
	fake_out(f, PM + 1, 0x01, 1);
	assert_int_equal(scis(f), 0);
	assert_int_equal(fake_in(f, PM, 4), 0x01000000);
	/* Without SCI_EN it would be an SMI: nothing. */
	fake_out(f, 0xb2, 3, 1);
	f->m->power_button(f->m->power_opaque);
	assert_int_equal(scis(f), 0);
	fake_out(f, 0xb2, 2, 1);
	assert_int_equal(scis(f), 1);
	/* Another SCI line: IRQ 11. */
	fake_write(f, Q35_IOAPIC_BASE, 0x10 + 2 * 11, 4);
	fake_write(f, Q35_IOAPIC_BASE + 0x10, 0x803b, 4);
	fake_write(f, LPC + 0x44, 0x82, 1);
	assert_int_equal(fake_msis(f), 1);
	assert_int_equal(scis(f), 0);
	fake_machine_free(f);
}

static void test_sleep(void **state)
{
	struct fake_machine *f = start(true);

	fake_out(f, PM + 4, 1 << 10 | 1, 2); /* a type alone */
	fake_machine_loop(f);
	assert_int_equal(f->events, 0);
	assert_int_equal(fake_in(f, PM + 4, 2), 0x0401);
	fake_out(f, PM + 4, 5 << 10 | 1 << 13, 2); /* S3 does not exist */
	fake_machine_loop(f);
	assert_int_equal(f->events, 0);
	fake_out(f, PM + 4, 0 << 10 | 1 << 13, 2);
	expect_event(f, MACHINE_SHUTDOWN_GUEST);
	fake_out(f, PM + 5, 0x20, 1);
	expect_event(f, MACHINE_SHUTDOWN_GUEST);
	fake_machine_free(f);
}

static void test_resets(void **state)
{
	struct fake_machine *f = start(true);

	fake_out(f, 0xcf9, 0x02, 1);
	fake_machine_loop(f);
	assert_int_equal(f->events, 0);
	assert_int_equal(fake_in(f, 0xcf9, 1), 0x02);
	fake_out(f, 0xcf9, 0x06, 1);
	expect_event(f, MACHINE_RESET_GUEST);
	fake_out(f, 0xcf9, 0x0f, 1); /* the FADT's */
	expect_event(f, MACHINE_RESET_GUEST);
	/* A dword there is PCI's address. */
	fake_out(f, 0xcf8, 0x8000f800, 4);
	assert_int_equal(fake_in(f, 0xcfc, 4), 0x29188086);
	fake_machine_loop(f);
	assert_int_equal(f->events, 0);
	assert_int_equal(fake_in(f, 0x92, 1), 0x02);
	fake_out(f, 0x92, 0x00, 1);
	fake_out(f, 0x92, 0x03, 1);
	expect_event(f, MACHINE_RESET_GUEST);
	fake_machine_free(f);
}

static void test_gpe(void **state)
{
	struct fake_machine *f = start(true);

	fake_out(f, PM + 0x28, 0x89abcdef, 4);
	fake_out(f, PM + 0x2c, 0x01234567, 4);
	fake_out(f, PM + 0x2d, 0xff, 1);
	assert_int_equal(fake_in(f, PM + 0x28, 4), 0x89abcdef);
	assert_int_equal(fake_in(f, PM + 0x2c, 4), 0x0123ff67);
	assert_int_equal(fake_in(f, PM + 0x2a, 4), 0xff6789ab);
	assert_int_equal(fake_in(f, PM + 0x20, 4), 0);
	fake_machine_free(f);
}

/* INTA of device 2 is PIRQC: IRQ 10 of the 8259s if the register says so, and pin 18 always. */
struct card {
	struct pci_device pdev;
};
static int card_realize(struct device *d, struct err *err)
{
	static const struct pci_ids ids = { 0x1234, 0x1111, 0, 0, 0xff000000 };
	struct card *c = (struct card *)d;
	int ret;

	c->pdev.slot = 2 << 3;
	ret = pci_device_init(&c->pdev, &ids, err);
	c->pdev.config[0x3d] = 1;
	return ret;
}
static void card_unrealize(struct device *d)
{
	pci_device_exit((struct pci_device *)d);
}
static void card_reset(struct device *d)
{
	pci_device_reset((struct pci_device *)d);
}
static const struct device_class card_class = {
	.name = "card", .size = sizeof(struct card), .realize = card_realize, .unrealize = card_unrealize,
	.reset = card_reset,
};

static void test_pirq(void **state)
{
	struct fake_machine *f = start(true);
	struct device *d = device_new(f->m, &card_class, NULL, NULL);
	struct pci_device *card = (struct pci_device *)d;

	assert_int_equal(device_realize(d, NULL), 0);
	fake_out(f, 0x4d1, 0x04, 1);
	fake_write(f, Q35_IOAPIC_BASE, 0x10 + 2 * 18, 4);
	fake_write(f, Q35_IOAPIC_BASE + 0x10, 0x8048, 4);
	pci_set_intx(card, true);
	assert_int_equal(fake_msis(f), 1);
	assert_false(f->engine->extint);
	fake_write(f, LPC + 0x62, 0x0a, 1);
	assert_true(f->engine->extint);
	assert_int_equal(fake_ack(f), 2); /* the 8259s were not set up: 0 + 10 - 8 */
	pci_set_intx(card, false);
	fake_out(f, 0xa0, 0x20, 1);
	fake_out(f, 0x20, 0x20, 1);
	assert_false(f->engine->extint);
	/* IRQ 8 and 13 are not to be had. */
	fake_write(f, LPC + 0x62, 0x08, 1);
	pci_set_intx(card, true);
	assert_false(f->engine->extint);
	fake_machine_free(f);
}

static void test_rcrb(void **state)
{
	struct fake_machine *f = start(true);

	assert_int_equal(fake_read(f, 0xfed1f410, 4), 0xffffffff);
	fake_write(f, LPC + 0xf0, 0xfed1c001, 4);
	/* No TCO watchdog: a driver that tries to clear this finds it set. */
	fake_write(f, 0xfed1f410, 0, 4);
	assert_int_equal(fake_read(f, 0xfed1f410, 4), 0x20);
	assert_int_equal(fake_read(f, 0xfed1f140, 4), 0x32103210);
	fake_write(f, 0xfed1f140, 0x7654, 2);
	assert_int_equal(fake_read(f, 0xfed1f140, 4), 0x32107654);
	fake_machine_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_config), cmocka_unit_test(test_pmbase), cmocka_unit_test(test_timer),
		cmocka_unit_test(test_power_button), cmocka_unit_test(test_sleep), cmocka_unit_test(test_resets),
		cmocka_unit_test(test_gpe), cmocka_unit_test(test_pirq), cmocka_unit_test(test_rcrb),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
