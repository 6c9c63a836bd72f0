/* SPDX-License-Identifier: GPL-2.0-or-later */
/* PCI as a guest sees it: through ECAM, the ports 0xcf8/0xcfc, BARs, interrupts and messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "device/classes.h"
#include "device/root_port.h"
#include "fake_machine.h"
#include "machine/pci.h"
#include "util/log.h"

/* ---- A device to look at --------------------------------------------------- */

struct toy {
	struct pci_device pdev;
	uint32_t reg[16];
	unsigned moves;
};

static uint64_t toy_read(void *opaque, uint64_t off, unsigned size)
{
	struct toy *t = opaque;

	return t->reg[off / 4 % 16] + (off >= 64 ? 0x1000 : 0);
}

static void toy_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	((struct toy *)opaque)->reg[off / 4 % 16] = value;
}

static const struct io_ops toy_ops = { .read = toy_read, .write = toy_write, .min = 4, .max = 4 };

static void toy_moved(struct pci_device *pdev, unsigned n)
{
	((struct toy *)pdev)->moves++;
}

/* BAR 0: 32-bit memory; 1: MSI-X; 2/3: 64-bit prefetchable; 4: I/O; ROM. */
static int toy_realize(struct device *d, struct err *err)
{
	static const struct pci_ids ids = { 0x1234, 0x5678, 0xabcd, 0xef01, 0x0880007a };
	struct toy *t = (struct toy *)d;
	int ret = pci_device_init(&t->pdev, &ids, err);

	if (ret)
		return ret;
	t->pdev.bar[0].moved = toy_moved;
	pci_add_bar(&t->pdev, 0, 0x1000, false, false, false, &toy_ops, t, &d->lock);
	assert_int_equal(pci_msix_init(&t->pdev, 130, 1, err), 0);
	pci_add_bar(&t->pdev, 2, 1ull << 32, false, true, true, &toy_ops, t, &d->lock);
	pci_add_bar(&t->pdev, 4, 64, true, false, false, &toy_ops, t, &d->lock);
	pci_add_bar(&t->pdev, 6, 0x10000, false, false, false, &toy_ops, t, &d->lock);
	pci_add_express(&t->pdev, pci_bus_is_root(t->pdev.bus) ? 9 : 0);
	pci_add_ext_cap(&t->pdev, 0x000b, 1, 16);
	pci_add_ext_cap(&t->pdev, 0x0003, 1, 12);
	t->pdev.config[0x3d] = 1 + (t->pdev.devfn & 3);
	t->pdev.config[0x50 + 128] = 0;
	pci_device_ready(&t->pdev);
	return 0;
}

static void toy_unrealize(struct device *d)
{
	pci_device_exit(&((struct toy *)d)->pdev);
}

static void toy_reset(struct device *d)
{
	pci_device_reset(&((struct toy *)d)->pdev);
}

static const struct property toy_props[] = { PCI_PROPS(struct toy, pdev), { 0 } };
static const struct state_field toy_fields[] = { STATE_FIELD_STRUCT(struct toy, pdev, &pci_device_state), STATE_END };
static const struct state_desc toy_state = { .name = "toy", .version = 1, .fields = toy_fields };
static const struct device_class toy_class = {
	.name = "toy",
	.size = sizeof(struct toy),
	.props = toy_props,
	.realize = toy_realize,
	.unrealize = toy_unrealize,
	.reset = toy_reset,
	.state = &toy_state,
};

/* ---- Helpers ---------------------------------------------------------------- */

static struct fake_machine *f;
static uint8_t levels;       /* of GSI 16..23 */
static uint8_t routed;       /* of PIRQ A..H, as the LPC bridge hears it */
static unsigned route_calls;

static void gsi_set(void *opaque, unsigned n, bool level)
{
	levels = level ? levels | 1 << (n - 16) : levels & ~(1 << (n - 16));
}

static void hear_route(void *opaque, unsigned pirq, bool level)
{
	routed = level ? routed | 1 << pirq : routed & ~(1 << pirq);
	route_calls++;
}

static int setup(void **state)
{
	f = fake_machine_new();
	fake_device(f, "mch", NULL);
	for (unsigned i = 16; i < 24; i++)
		f->m->ioapic_in[i] = (struct irq){ gsi_set, NULL, i };
	levels = routed = 0;
	route_calls = 0;
	pci_host_set_route(f->m, hear_route, NULL);
	return 0;
}

static int teardown(void **state)
{
	fake_machine_free(f);
	return 0;
}

static struct toy *add_toy(const char *id, const char *bus, const char *addr)
{
	struct device *d = device_new(f->m, &toy_class, id, NULL);
	struct err err = ERR_INIT;

	if (bus)
		assert_int_equal(device_set(d, "bus", bus, NULL), 0);
	if (addr)
		assert_int_equal(device_set(d, "addr", addr, NULL), 0);
	if (device_realize(d, &err))
		fail_msg("%s", err_msg(&err));
	return (struct toy *)d;
}

static int toy_fails(const char *bus, const char *addr, const char *text)
{
	struct device *d = device_new(f->m, &toy_class, NULL, NULL);
	struct err err = ERR_INIT;
	int ret;

	if (bus)
		device_set(d, "bus", bus, NULL);
	if (addr)
		device_set(d, "addr", addr, NULL);
	ret = device_realize(d, &err);
	assert_non_null(strstr(err.msg, text));
	return ret;
}

static uint64_t ecam(unsigned bus, unsigned devfn, unsigned reg)
{
	return Q35_ECAM_BASE + (bus << 20 | devfn << 12 | reg);
}

static uint32_t cfg(unsigned bus, unsigned devfn, unsigned reg, unsigned size)
{
	return fake_read(f, ecam(bus, devfn, reg), size);
}

static void cfg_set(unsigned bus, unsigned devfn, unsigned reg, uint32_t value, unsigned size)
{
	fake_write(f, ecam(bus, devfn, reg), value, size);
}

static uint32_t port_cfg(unsigned bus, unsigned devfn, unsigned reg, unsigned size)
{
	fake_out(f, 0xcf8, 1u << 31 | bus << 16 | devfn << 8 | (reg & 0xfc), 4);
	return fake_in(f, 0xcfc + (reg & 3), size);
}

#define TOY (3u << 3)

/* ---- Configuration space ------------------------------------------------------ */

static void test_config_access(void **state)
{
	add_toy("t", NULL, "24");
	assert_int_equal(cfg(0, 0, 0, 4), 0x29c08086);
	assert_int_equal(cfg(0, TOY, 0, 4), 0x56781234);
	assert_int_equal(cfg(0, TOY, 2, 2), 0x5678);
	assert_int_equal(cfg(0, TOY, 3, 1), 0x56);
	assert_int_equal(cfg(0, TOY, 0x08, 4), 0x0880007a);
	assert_int_equal(cfg(0, TOY, 0x2c, 4), 0xef01abcd);
	/* Both mechanisms, every size and place. */
	for (unsigned reg = 0; reg < 256; reg++)
		for (unsigned size = 1; size <= 4; size *= 2)
			if (reg % size == 0)
				assert_int_equal(port_cfg(0, TOY, reg, size), cfg(0, TOY, reg, size));
	/* Nobody there: all ones, writes vanish. */
	assert_int_equal(cfg(0, 4 << 3, 0, 4), UINT32_MAX);
	assert_int_equal(port_cfg(7, TOY, 0, 4), UINT32_MAX);
	cfg_set(0, 4 << 3, 4, 7, 2);
	/* 8-byte accesses come as two. */
	assert_true(fake_read(f, ecam(0, TOY, 0), 8) == (0x56781234 | (uint64_t)cfg(0, TOY, 4, 4) << 32));
	/* Enable bit off. */
	fake_out(f, 0xcf8, TOY << 8, 4);
	assert_int_equal(fake_in(f, 0xcfc, 4), UINT32_MAX);
}

static uint64_t cf9_value;
static uint64_t cf9_read(void *opaque, uint64_t off, unsigned size)
{
	return 0x5a;
}
static void cf9_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	cf9_value = value;
}

static void test_config_address(void **state)
{
	static const struct io_ops cf9 = { .read = cf9_read, .write = cf9_write };

	fake_out(f, 0xcf8, 0xffffffff, 4);
	assert_int_equal(fake_in(f, 0xcf8, 4), 0x80fffffc);
	/* Linux's type 1 probe: a byte write must not change the address. */
	fake_out(f, 0xcfb, 0x01, 1);
	assert_int_equal(fake_in(f, 0xcf8, 4), 0x80fffffc);
	fake_out(f, 0xcf8, 0x1234, 2);
	assert_int_equal(fake_in(f, 0xcf8, 4), 0x80fffffc);
	pci_host_set_cf9(f->m, &cf9, NULL, NULL);
	fake_out(f, 0xcf9, 6, 1);
	assert_int_equal(cf9_value, 6);
	assert_int_equal(fake_in(f, 0xcf9, 1), 0x5a);
	fake_out(f, 0xcf8, 0x80000004, 4);
	assert_int_equal(fake_in(f, 0xcf8, 4), 0x80000004);
	assert_int_equal(cf9_value, 6);
}

static void test_write_masks(void **state)
{
	struct toy *t = add_toy("t", NULL, "24");

	cfg_set(0, TOY, 0, 0xffffffff, 4);
	cfg_set(0, TOY, 8, 0xffffffff, 4);
	assert_int_equal(cfg(0, TOY, 0, 4), 0x56781234);
	assert_int_equal(cfg(0, TOY, 8, 4), 0x0880007a);
	cfg_set(0, TOY, 0x04, 0xffff, 2);
	assert_int_equal(cfg(0, TOY, 0x04, 2), 0x0547);
	cfg_set(0, TOY, 0x3c, 0x1105, 2);
	assert_int_equal(cfg(0, TOY, 0x3c, 2), 0x0105);
	/* Write one to clear: status errors. */
	pthread_mutex_lock(&t->pdev.dev.lock);
	pci_set16(t->pdev.config + 6, 0xf910);
	pthread_mutex_unlock(&t->pdev.dev.lock);
	cfg_set(0, TOY, 0x06, 0x4000, 2);
	assert_int_equal(cfg(0, TOY, 0x06, 2), 0xb910);
	cfg_set(0, TOY, 0x06, 0xffff, 2);
	assert_int_equal(cfg(0, TOY, 0x06, 2), 0x0010);
}

static void test_capabilities(void **state)
{
	unsigned at, seen = 0, ext = 0;

	add_toy("t", NULL, "24");
	assert_true(cfg(0, TOY, 6, 2) & 0x10);
	for (at = cfg(0, TOY, 0x34, 1); at; at = cfg(0, TOY, at + 1, 1)) {
		assert_true(at >= 0x40 && at % 4 == 0);
		switch (cfg(0, TOY, at, 1)) {
		case 0x10:
			seen |= 1;
			assert_int_equal(cfg(0, TOY, at + 2, 2), 0x92); /* integrated endpoint, version 2 */
			break;
		case 0x11:
			seen |= 2;
			assert_int_equal(cfg(0, TOY, at + 2, 2), 129);
			assert_int_equal(cfg(0, TOY, at + 4, 4), 1);
			assert_int_equal(cfg(0, TOY, at + 8, 4), 0x1001);
			break;
		}
	}
	assert_int_equal(seen, 3);
	for (at = 0x100; at; at = cfg(0, TOY, at, 4) >> 20)
		ext = ext << 16 | (cfg(0, TOY, at, 4) & 0xffff);
	assert_int_equal(ext, 0x000b0003);
}

static void test_multifunction(void **state)
{
	add_toy("a", NULL, "24");
	assert_int_equal(cfg(0, 24, 0x0e, 1), 0);
	add_toy("b", NULL, "27");
	assert_int_equal(cfg(0, 24, 0x0e, 1), 0x80);
	device_reset(machine_find(f->m, "a"));
	assert_int_equal(cfg(0, 24, 0x0e, 1), 0x80);
	/* The other way round, and a free number is one with all functions free. */
	add_toy("c", NULL, "9");
	add_toy("d", NULL, "8");
	assert_int_equal(cfg(0, 8, 0x0e, 1), 0x80);
	assert_int_equal(add_toy("e", NULL, NULL)->pdev.devfn, 2 << 3);
	assert_int_equal(add_toy("f", NULL, NULL)->pdev.devfn, 4 << 3);
}

static void test_slots(void **state)
{
	add_toy("t", NULL, "24");
	assert_int_equal(toy_fails(NULL, "24", "slot 3.0 of PCI bus 0 is taken by t"), -EBUSY);
	assert_int_equal(toy_fails(NULL, "256", "has no slot 32.0"), -EINVAL);
	assert_int_equal(toy_fails("nowhere", NULL, "no root port 'nowhere'"), -ENOENT);
	for (unsigned i = 0; i < 30; i++)
		add_toy(NULL, NULL, NULL);
	assert_int_equal(toy_fails(NULL, NULL, "no free slot"), -ENOSPC);
	/* One goes, one can come. */
	device_free(machine_find(f->m, "t"));
	assert_int_equal(cfg(0, TOY, 0, 4), UINT32_MAX);
	assert_int_equal(add_toy("u", NULL, NULL)->pdev.devfn, TOY);
}

/* ---- BARs ---------------------------------------------------------------------- */

static void test_bar_sizing(void **state)
{
	static const struct {
		unsigned reg;
		uint32_t sized;
	} bars[] = {
		{ 0x10, 0xfffff000 }, { 0x14, 0xffffe000 }, { 0x18, 0x0000000c }, { 0x1c, 0xffffffff },
		{ 0x20, 0xffffffc1 }, { 0x24, 0 }, { 0x30, 0xffff0001 },
	};

	add_toy("t", NULL, "24");
	for (unsigned i = 0; i < sizeof(bars) / sizeof(bars[0]); i++) {
		cfg_set(0, TOY, bars[i].reg, 0xffffffff, 4);
		assert_int_equal(cfg(0, TOY, bars[i].reg, 4), bars[i].sized);
	}
}

static void test_bar_mapping(void **state)
{
	struct toy *t = add_toy("t", NULL, "24");

	cfg_set(0, TOY, 0x10, 0xc1000000, 4);
	cfg_set(0, TOY, 0x18, 0, 4);
	cfg_set(0, TOY, 0x1c, 0x81, 4); /* 0x8100000000 */
	cfg_set(0, TOY, 0x20, 0x2000, 4);
	cfg_set(0, TOY, 0x30, 0xc2000001, 4);
	t->reg[1] = 0x77;
	assert_int_equal(fake_read(f, 0xc1000004, 4), UINT32_MAX); /* decoding is off */
	cfg_set(0, TOY, 4, 2, 2);
	assert_int_equal(t->moves, 1);
	assert_int_equal(fake_read(f, 0xc1000004, 4), 0x77);
	assert_int_equal(fake_read(f, 0x8100000004, 4), 0x77);
	assert_int_equal(fake_read(f, 0x81fffffff4, 4), 0x1000 + t->reg[13]);
	assert_int_equal(fake_read(f, 0xc2000004, 4), 0x77);
	assert_int_equal(fake_in(f, 0x2004, 4), UINT32_MAX);
	cfg_set(0, TOY, 4, 3, 2);
	assert_int_equal(fake_in(f, 0x2004, 4), 0x77);
	fake_out(f, 0x2008, 0x1234, 4);
	assert_int_equal(t->reg[2], 0x1234);
	/* It moves: the old place is empty. One half of a 64-bit BAR is enough. */
	cfg_set(0, TOY, 0x10, 0xc3000000, 4);
	cfg_set(0, TOY, 0x1c, 0x82, 4);
	assert_int_equal(fake_read(f, 0xc1000004, 4), UINT32_MAX);
	assert_int_equal(fake_read(f, 0xc3000004, 4), 0x77);
	assert_int_equal(fake_read(f, 0x8100000004, 4), UINT32_MAX);
	assert_int_equal(fake_read(f, 0x8200000004, 4), 0x77);
	assert_int_equal(t->moves, 3);
	/* Sizing with decoding on: nothing is mapped at the end of the world, and it comes back. */
	cfg_set(0, TOY, 0x10, 0xffffffff, 4);
	assert_int_equal(fake_read(f, 0xfffff004, 4), UINT32_MAX);
	cfg_set(0, TOY, 0x10, 0, 4);
	assert_false(t->pdev.bar[0].mapped);
	cfg_set(0, TOY, 0x10, 0xc3000000, 4);
	assert_int_equal(fake_read(f, 0xc3000004, 4), 0x77);
	/* ROM's own enable bit. */
	cfg_set(0, TOY, 0x30, 0xc2000000, 4);
	assert_int_equal(fake_read(f, 0xc2000004, 4), UINT32_MAX);
	/* Reset. */
	device_reset(&t->pdev.dev);
	assert_int_equal(fake_read(f, 0xc3000004, 4), UINT32_MAX);
	assert_int_equal(cfg(0, TOY, 0x10, 4), 0);
	assert_int_equal(cfg(0, TOY, 4, 2), 0);
}

static void test_bar_clash(void **state)
{
	struct toy *a = add_toy("a", NULL, "24"), *b = add_toy("b", NULL, "32"), *c = add_toy("c", NULL, "40");

	a->reg[0] = 0xa;
	b->reg[0] = 0xb;
	c->reg[0] = 0xc;
	for (unsigned i = 24; i <= 40; i += 8) {
		cfg_set(0, i, 0x10, 0xc0000000, 4);
		cfg_set(0, i, 4, 2, 2);
	}
	assert_int_equal(fake_read(f, 0xc0000000, 4), 0xa); /* first come */
	cfg_set(0, 24, 0x10, 0xc0100000, 4);
	assert_int_equal(fake_read(f, 0xc0000000, 4), 0xb); /* it steps aside: the next */
	assert_int_equal(fake_read(f, 0xc0100000, 4), 0xa);
	device_free(&b->pdev.dev);
	assert_int_equal(fake_read(f, 0xc0000000, 4), 0xc);
	/* A BAR never hides a chip. */
	cfg_set(0, 24, 0x10, Q35_ECAM_BASE, 4);
	assert_int_equal(cfg(0, 0, 0, 4), 0x29c08086);
}

static void test_pciexbar(void **state)
{
	assert_int_equal(cfg(0, 0, 0x60, 4), Q35_ECAM_BASE | 1);
	/* OVMF moves it, through the ports, upper half first. */
	fake_out(f, 0xcf8, 0x80000064, 4);
	fake_out(f, 0xcfc, 0, 4);
	fake_out(f, 0xcf8, 0x80000060, 4);
	fake_out(f, 0xcfc, 0xe0000001, 4);
	assert_int_equal(fake_read(f, 0xe0000000, 4), 0x29c08086);
	assert_int_equal(fake_read(f, Q35_ECAM_BASE, 4), UINT32_MAX);
	/* 64 MiB: buses 0..63. */
	fake_out(f, 0xcfc, 0xe0000005, 4);
	assert_int_equal(fake_read(f, 0xe0000000, 4), 0x29c08086);
	fake_out(f, 0xcfc, 0xe0000000, 4);
	assert_int_equal(fake_read(f, 0xe0000000, 4), UINT32_MAX);
	device_reset(machine_find(f->m, "mch"));
	assert_int_equal(fake_read(f, Q35_ECAM_BASE, 4), 0x29c08086);
}

/* ---- Interrupts ----------------------------------------------------------------- */

static void test_intx(void **state)
{
	struct toy *a = add_toy("a", NULL, "24"), *b = add_toy("b", NULL, "17"); /* 3.0 pin A, 2.1 pin B: both PIRQ D */

	pci_set_intx(&a->pdev, true);
	assert_int_equal(levels, 1 << 3);
	assert_int_equal(routed, 1 << 3);
	assert_true(cfg(0, 24, 6, 2) & 8);
	assert_false(cfg(0, 17, 6, 2) & 8);
	pci_set_intx(&b->pdev, true);
	route_calls = 0;
	pci_set_intx(&a->pdev, false);
	assert_int_equal(levels, 1 << 3); /* b still holds it */
	assert_int_equal(route_calls, 0);
	/* Interrupt Disable cuts the pin, not the status. */
	cfg_set(0, 17, 4, 0x400, 2);
	assert_int_equal(levels, 0);
	assert_int_equal(routed, 0);
	assert_true(cfg(0, 17, 6, 2) & 8);
	cfg_set(0, 17, 4, 0, 2);
	assert_int_equal(levels, 1 << 3);
	device_reset(&b->pdev.dev);
	assert_int_equal(levels, 0);
	pci_set_intx(&b->pdev, true);
	device_free(&b->pdev.dev);
	assert_int_equal(levels, 0);
	/* Eight lines: device 7 pin A is PIRQ H, device 31.7 (pin D) is (31 + 3) & 7. */
	pci_set_intx(&add_toy("c", NULL, "56")->pdev, true);
	assert_int_equal(levels, 1 << 7);
	pci_set_intx(&add_toy("d", NULL, "255")->pdev, true);
	assert_int_equal(levels, 1 << 7 | 1 << 2);
}

static uint64_t msix_base;

static struct toy *msix_toy(void)
{
	struct toy *t = add_toy("t", NULL, "24");

	msix_base = 0xc4000000;
	cfg_set(0, TOY, 0x14, msix_base, 4);
	cfg_set(0, TOY, 4, 6, 2);
	return t;
}

static void set_entry(unsigned n, uint64_t addr, uint32_t data, uint32_t control)
{
	fake_write(f, msix_base + 16 * n, addr, 8);
	fake_write(f, msix_base + 16 * n + 8, data, 4);
	fake_write(f, msix_base + 16 * n + 12, control, 4);
}

static void msix_control(uint16_t value)
{
	cfg_set(0, TOY, 0x42, value, 2);
}

static bool took(uint64_t address, uint32_t data)
{
	struct fake_msi m;

	return fake_msi_take(f, &m) && m.address == address && m.data == data;
}

static void test_msix(void **state)
{
	struct toy *t = msix_toy();
	struct fake_msi m;

	assert_int_equal(cfg(0, TOY, 0x40, 1), 0x11);
	assert_int_equal(fake_read(f, msix_base + 12, 4), 1); /* masked after reset */
	assert_int_equal(fake_read(f, msix_base + 16 * 129 + 12, 4), 1);
	assert_int_equal(fake_read(f, msix_base + 16 * 130 + 12, 4), 0);
	set_entry(0, 0xfee00003, 0x4041, 0);
	set_entry(129, 0xfee01000, 0x52, 1);
	assert_true(fake_read(f, msix_base, 8) == 0xfee00000); /* low bits of the address are reserved */
	pci_msix_notify(&t->pdev, 0);
	assert_false(fake_msi_take(f, &m)); /* not enabled: no message, and none later */
	msix_control(0x8000);
	assert_true(pci_msix_enabled(&t->pdev));
	assert_false(fake_msi_take(f, &m));
	pci_msix_notify(&t->pdev, 0);
	assert_true(took(0xfee00000, 0x4041));
	/* Masked: pending, delivered once on unmask. */
	pci_msix_notify(&t->pdev, 129);
	pci_msix_notify(&t->pdev, 129);
	assert_false(fake_msi_take(f, &m));
	assert_true(fake_read(f, msix_base + 0x1000 + 16, 8) == 2);
	fake_write(f, msix_base + 0x1000 + 16, 0, 8); /* the PBA is read-only */
	set_entry(129, 0xfee02000, 0x53, 0);
	assert_true(took(0xfee02000, 0x53));
	assert_false(fake_msi_take(f, &m));
	assert_true(fake_read(f, msix_base + 0x1000 + 16, 8) == 0);
	/* Function mask. */
	msix_control(0xc000);
	pci_msix_notify(&t->pdev, 0);
	pci_msix_notify(&t->pdev, 129);
	assert_false(fake_msi_take(f, &m));
	assert_true(fake_read(f, msix_base + 0x1000, 8) == 1);
	msix_control(0x8000);
	assert_true(took(0xfee00000, 0x4041));
	assert_true(took(0xfee02000, 0x53));
	/* A function that may not master the bus writes no messages. */
	cfg_set(0, TOY, 4, 2, 2);
	pci_msix_notify(&t->pdev, 0);
	assert_false(fake_msi_take(f, &m));
	cfg_set(0, TOY, 4, 6, 2);
	assert_true(took(0xfee00000, 0x4041));
	/* Vectors that are not there, from a device's mistake. */
	pci_msix_notify(&t->pdev, 130);
	pci_msix_notify(&t->pdev, 5000);
	assert_false(fake_msi_take(f, &m));
	device_reset(&t->pdev.dev);
	assert_false(pci_msix_enabled(&t->pdev));
}

/* ---- Root ports -------------------------------------------------------------------- */

#define PORT (5u << 3)

static void add_port(const char *id, const char *addr)
{
	struct err err = ERR_INIT;

	if (!device_add(f->m, "pcie-root-port", id, &err, "addr", addr, NULL))
		fail_msg("%s", err_msg(&err));
}

static void add_port_auto(const char *id)
{
	struct err err = ERR_INIT;

	if (!device_add(f->m, "pcie-root-port", id, &err, NULL))
		fail_msg("%s", err_msg(&err));
}

static void test_bus_routing(void **state)
{
	add_port("rp", "40");
	add_toy("t", "rp", NULL);
	assert_int_equal(cfg(0, PORT, 0x0e, 1), 1);
	assert_int_equal(cfg(0, PORT, 0x08, 4) >> 8, 0x060400);
	assert_int_equal(cfg(1, 0, 0, 4), UINT32_MAX); /* not numbered yet */
	cfg_set(0, PORT, 0x18, 0x00090500, 4);
	assert_int_equal(cfg(5, 0, 0, 4), 0x56781234);
	assert_int_equal(port_cfg(5, 0, 0, 4), 0x56781234);
	assert_int_equal(cfg(6, 0, 0, 4), UINT32_MAX); /* below, but nothing is there */
	assert_int_equal(cfg(5, 8, 0, 4), UINT32_MAX); /* one device at the end of a link */
	cfg_set(0, PORT, 0x18, 0x00040500, 4);         /* subordinate < secondary: nothing is forwarded */
	assert_int_equal(cfg(5, 0, 0, 4), UINT32_MAX);
	assert_int_equal(toy_fails("rp", "8", "rp has no slot 1.0"), -EINVAL);
	assert_int_equal(toy_fails("rp", NULL, "rp has no free slot"), -ENOSPC);
}

static void test_windows(void **state)
{
	struct toy *t;

	add_port("rp", "40");
	t = add_toy("t", "rp", NULL);
	t->reg[0] = 0x99;
	cfg_set(0, PORT, 0x18, 0x00010100, 4);
	cfg_set(1, 0, 0x10, 0xc5000000, 4);
	cfg_set(1, 0, 0x20, 0x3000, 4);
	cfg_set(1, 0, 0x1c, 0x83, 4);
	cfg_set(1, 0, 4, 7, 2);
	assert_int_equal(fake_read(f, 0xc5000000, 4), UINT32_MAX); /* the bridge forwards nothing */
	cfg_set(0, PORT, 4, 7, 2);
	assert_int_equal(fake_read(f, 0xc5000000, 4), UINT32_MAX);
	cfg_set(0, PORT, 0x20, 0xc500c500, 4); /* 1 MiB at 0xc5000000 */
	assert_int_equal(fake_read(f, 0xc5000000, 4), 0x99);
	cfg_set(0, PORT, 0x24, 0xfff00000, 4);
	cfg_set(0, PORT, 0x28, 0x83, 4);
	cfg_set(0, PORT, 0x2c, 0x83, 4);
	assert_int_equal(fake_read(f, 0x8300000000, 4), 0x99);
	assert_int_equal(fake_in(f, 0x3000, 4), UINT32_MAX);
	cfg_set(0, PORT, 0x1c, 0x3030, 2);
	assert_int_equal(fake_in(f, 0x3000, 4), 0x99);
	cfg_set(0, PORT, 4, 6, 2); /* I/O off at the bridge */
	assert_int_equal(fake_in(f, 0x3000, 4), UINT32_MAX);
	assert_int_equal(fake_read(f, 0xc5000000, 4), 0x99);
	cfg_set(0, PORT, 0x20, 0xc600c600, 4);
	assert_int_equal(fake_read(f, 0xc5000000, 4), UINT32_MAX);
	/* Behind the port (device 5) the pin is swizzled by device number 0. */
	pci_set_intx(&t->pdev, true);
	assert_int_equal(levels, 1 << 5);
}

static unsigned slot_status(void)
{
	unsigned at = cfg(0, PORT, 0x34, 1);

	while (cfg(0, PORT, at, 1) != 0x10)
		at = cfg(0, PORT, at + 1, 1);
	return at + 26;
}

static void test_hotplug(void **state)
{
	struct fake_msi m;
	struct toy *t;
	unsigned sta;

	add_port("rp", "40");
	sta = slot_status();
	assert_int_equal(cfg(0, PORT, sta - 24, 2), 0x142);        /* root port with a slot */
	assert_true((cfg(0, PORT, sta - 6, 4) & 0x5b) == 0x5b);    /* slot capabilities */
	assert_int_equal(cfg(0, PORT, sta - 6, 4) >> 19, PORT + 1); /* its number */
	assert_int_equal(cfg(0, PORT, sta, 2), 0);
	/* Cold: there at power-on, and no event. */
	t = add_toy("t", "rp", NULL);
	assert_int_equal(cfg(0, PORT, sta, 2), 0x40);
	assert_true(cfg(0, PORT, sta - 8, 2) & 0x2000);
	assert_int_equal(cfg(0, PORT, sta - 2, 2) & 0x0700, 0x0100); /* powered, LED on */
	device_free(&t->pdev.dev);
	assert_int_equal(cfg(0, PORT, sta, 2), 0);

	machine_resume(f->m);
	/* Commands complete. */
	cfg_set(0, PORT, sta - 2, 0x07c0, 2);
	assert_int_equal(cfg(0, PORT, sta, 2), 0x10);
	cfg_set(0, PORT, sta, 0x10, 2);
	assert_int_equal(cfg(0, PORT, sta, 2), 0);
	/* Presence, by INTx first. */
	cfg_set(0, PORT, sta - 2, 0x07e8, 2); /* HPIE, presence changes */
	cfg_set(0, PORT, sta, 0x10, 2);
	assert_int_equal(levels, 0);
	t = add_toy("t", "rp", NULL);
	assert_int_equal(cfg(0, PORT, sta, 2), 0x148);
	assert_int_equal(levels, 1 << 5);
	cfg_set(0, PORT, sta, 0x108, 2);
	assert_int_equal(levels, 0);
	/* Then by message; the button. */
	cfg_set(0, PORT, 0x10, 0xc7000000, 4);
	cfg_set(0, PORT, 4, 6, 2);
	fake_write(f, 0xc7000000, 0xfee00000, 8);
	fake_write(f, 0xc7000008, 0x61, 8);
	for (unsigned at = cfg(0, PORT, 0x34, 1); at; at = cfg(0, PORT, at + 1, 1))
		if (cfg(0, PORT, at, 1) == 0x11)
			cfg_set(0, PORT, at + 2, 0x8000, 2);
	cfg_set(0, PORT, sta - 2, 0x07e9, 2);
	root_port_attention(machine_find(f->m, "rp"));
	assert_true(took(0xfee00000, 0x61));
	assert_true(cfg(0, PORT, sta, 2) & 1);
	root_port_attention(machine_find(f->m, "rp"));
	assert_false(fake_msi_take(f, &m)); /* one edge an event */
	cfg_set(0, PORT, sta, 0x11f, 2);
	device_free(&t->pdev.dev);
	assert_true(took(0xfee00000, 0x61));
	assert_int_equal(levels, 0);
	machine_pause(f->m);
}

static unsigned told;

static void take_news(void *opaque, struct device *port, unsigned news)
{
	assert_ptr_equal(opaque, &told);
	assert_ptr_equal(port, machine_find(f->m, "rp"));
	told |= news;
}

/* What the guest answers to the attention button (PCIe 4.0 §6.7.1.5), seen by who pressed it. */
static void test_slot_owner(void **state)
{
	struct device *port;
	unsigned ctl;

	add_port("rp", "40");
	port = machine_find(f->m, "rp");
	add_toy("t", "rp", NULL);
	ctl = slot_status() - 2;
	root_port_set_owner(port, take_news, &told);
	machine_resume(f->m);
	told = 0;
	assert_non_null(root_port_child(port));
	assert_true(root_port_powered(port));
	root_port_attention(port);
	cfg_set(0, PORT, ctl, 0x02c0, 2); /* blinks, and goes back to on */
	fake_machine_loop(f);
	assert_int_equal(told, 0);
	cfg_set(0, PORT, ctl, 0x01c0, 2);
	fake_machine_loop(f);
	assert_int_equal(told, ROOT_PORT_KEPT);
	told = 0;
	cfg_set(0, PORT, ctl, 0x02c0, 2); /* blinks; power off; light out */
	cfg_set(0, PORT, ctl, 0x06c0, 2);
	fake_machine_loop(f);
	assert_int_equal(told, 0);
	assert_true(root_port_powered(port));
	cfg_set(0, PORT, ctl, 0x07c0, 2);
	assert_int_equal(told, 0); /* in the main loop, not in the vCPU's thread */
	fake_machine_loop(f);
	assert_int_equal(told, ROOT_PORT_OFF);
	assert_false(root_port_powered(port));
	told = 0;
	cfg_set(0, PORT, ctl, 0x07c0, 2); /* no news twice */
	fake_machine_loop(f);
	assert_int_equal(told, 0);
	machine_pause(f->m);
}

/* ---- Firmware's work ------------------------------------------------------------------ */

struct span {
	uint64_t base, last;
	bool io;
};
static struct span spans[256];
static unsigned nspans;

static void check_function(struct pci_device *pdev, unsigned bus_nr, void *opaque)
{
	assert_int_equal(cfg(bus_nr, pdev->devfn, 0, 2), pci_get16(pdev->config)); /* reachable by this number */
	assert_int_equal(cfg(bus_nr, pdev->devfn, 4, 2) & 3, 3);
	for (unsigned i = 0; i < 6; i++) {
		struct pci_bar *bar = &pdev->bar[i];
		struct span s = { bar->range.base, bar->range.base + bar->size - 1, bar->io };

		if (!bar->size)
			continue;
		assert_true(bar->mapped);
		assert_int_equal(s.base & (bar->size - 1), 0);
		if (bar->io)
			assert_true(s.base >= 0x1000 && s.last <= 0xffff);
		else if (bar->mem64 && bar->prefetch)
			assert_true(s.base >= Q35_MMIO64_BASE && s.last < Q35_MMIO64_END);
		else
			assert_true(s.base >= Q35_MMIO32_BASE && s.last < Q35_MMIO32_END);
		for (unsigned k = 0; k < nspans; k++)
			assert_true(spans[k].io != s.io || s.last < spans[k].base || spans[k].last < s.base);
		spans[nspans++] = s;
	}
}

/* What a root port forwards belongs to nobody else on bus 0. */
static void check_windows(struct pci_device *pdev, unsigned bus_nr, void *opaque)
{
	const struct span *s = opaque;

	if (bus_nr)
		return;
	for (unsigned i = 0; i < 6; i++) {
		struct pci_bar *bar = &pdev->bar[i];

		if (bar->size && bar->io == s->io)
			assert_true(bar->range.base + bar->size - 1 < s->base || s->last < bar->range.base);
	}
}

static void check_port(unsigned devfn)
{
	struct span io = { (cfg(0, devfn, 0x1c, 1) & 0xf0) << 8, (cfg(0, devfn, 0x1d, 1) & 0xf0) << 8 | 0xfff, true };
	struct span mem = { (uint64_t)cfg(0, devfn, 0x20, 2) << 16, (uint64_t)cfg(0, devfn, 0x22, 2) << 16 | 0xfffff, false };
	struct span pref = { (uint64_t)(cfg(0, devfn, 0x24, 2) & 0xfff0) << 16 | (uint64_t)cfg(0, devfn, 0x28, 4) << 32,
			     (uint64_t)(cfg(0, devfn, 0x26, 2) & 0xfff0) << 16 | (uint64_t)cfg(0, devfn, 0x2c, 4) << 32 | 0xfffff,
			     false };

	if (io.base < io.last)
		pci_for_each(f->m, check_windows, &io);
	pci_for_each(f->m, check_windows, &mem);
	pci_for_each(f->m, check_windows, &pref);
}

static void test_assign(void **state)
{
	struct toy *behind;

	add_port_auto("rp0");
	add_port_auto("rp1");
	add_port_auto("rp2");
	add_toy("a", NULL, NULL);
	add_toy("b", NULL, NULL);
	behind = add_toy("c", "rp1", NULL);
	add_toy("d", "rp1", "2");
	add_toy("e", "rp2", NULL);
	/* Twice: also over what is there already. */
	for (unsigned round = 0; round < 2; round++) {
		pci_assign_resources(f->m);
		nspans = 0;
		pci_for_each(f->m, check_function, NULL);
		assert_int_equal(nspans, 5 * 4 + 3);
		for (unsigned i = 1; i < 4; i++)
			check_port(i << 3);
		/* An empty port keeps room for a device. */
		assert_true(cfg(0, 8, 0x20, 2) <= cfg(0, 8, 0x22, 2));
		assert_int_equal(cfg(0, 8, 0x20, 2) & 0xfff0, cfg(0, 8, 0x20, 2));
		/* PIRQ (2 + 0) & 7 = C: interrupt 11 as SeaBIOS has it. */
		assert_int_equal(cfg(2, 0, 0x3c, 1), 11);
	}
	/* Plugged into the empty port later it finds a place in the window: the guest's to give. */
	behind->reg[0] = 0x42;
	assert_int_equal(fake_read(f, behind->pdev.bar[0].range.base, 4), 0x42);
}

static void test_assign_many(void **state)
{
	for (unsigned i = 0; i < 4; i++) {
		char id[8];

		snprintf(id, sizeof(id), "rp%u", i);
		add_port_auto(id);
	}
	for (unsigned i = 0; i < 26; i++)
		add_toy(NULL, NULL, NULL);
	pci_assign_resources(f->m);
	nspans = 0;
	pci_for_each(f->m, check_function, NULL);
	assert_int_equal(nspans, 26 * 4 + 4);
}

static int big_realize(struct device *d, struct err *err)
{
	static const struct pci_ids ids = { 0x1234, 0x5679, 0, 0, 0x08800000 };
	struct toy *t = (struct toy *)d;

	assert_int_equal(pci_device_init(&t->pdev, &ids, err), 0);
	pci_add_bar(&t->pdev, 0, 512u << 20, false, false, false, &toy_ops, t, NULL);
	pci_add_bar(&t->pdev, 4, 64, true, false, false, &toy_ops, t, NULL);
	return 0;
}

/* What doesn't fit into its window is left to the guest; the other windows are not concerned. */
static void test_assign_too_much(void **state)
{
	static const struct device_class big = {
		.name = "big", .size = sizeof(struct toy), .props = toy_props, .realize = big_realize,
		.unrealize = toy_unrealize, .reset = toy_reset,
	};

	log_set_level(LOG_ERROR);
	for (unsigned i = 0; i < 2; i++) {
		struct device *d = device_new(f->m, &big, NULL, NULL);
		struct pci_device *pdev = (struct pci_device *)d;

		assert_int_equal(device_realize(d, NULL), 0);
		pci_assign_resources(f->m);
		assert_true(pdev->bar[0].mapped == (i == 0));
		assert_true(pdev->bar[4].mapped);
	}
	log_set_level(LOG_WARN);
}

/* ---- State ------------------------------------------------------------------------------ */

static void test_state(void **state)
{
	struct toy *t = msix_toy();
	struct state_buf b = { 0 };
	struct err err = ERR_INIT;
	struct fake_msi m;

	msix_control(0x8000);
	set_entry(7, 0xfee03000, 0x77, 1);
	pci_msix_notify(&t->pdev, 7);
	pci_set_intx(&t->pdev, true);
	cfg_set(0, TOY, 0x10, 0xc8000000, 4);
	assert_int_equal(machine_save(f->m, &b, &err), 0);

	teardown(NULL);
	setup(NULL);
	t = add_toy("t", NULL, "24");
	assert_int_equal(machine_load(f->m, b.data, b.len, &err), 0);
	t->reg[0] = 0x31;
	assert_int_equal(fake_read(f, 0xc8000000, 4), 0x31);
	assert_int_equal(levels, 1 << 3);
	assert_true(cfg(0, TOY, 6, 2) & 8);
	assert_false(fake_msi_take(f, &m));
	fake_write(f, msix_base + 16 * 7 + 12, 0, 4);
	assert_true(took(0xfee03000, 0x77)); /* what was pending then is delivered now */
	assert_int_equal(cfg(0, TOY, 0, 4), 0x56781234);

	/* Bits that are not the guest's don't come from a stream. */
	for (size_t i = 0; i + 3 < b.len; i++)
		if (!memcmp(b.data + i, "\x34\x12\x78\x56", 4)) {
			memset(b.data + i + 0x40, 0xff, 0x40);
			b.data[i + 0x34] = 0x13;
			break;
		}
	assert_int_equal(machine_load(f->m, b.data, b.len, &err), 0);
	assert_int_equal(cfg(0, TOY, 0x40, 1), 0x11);
	assert_int_not_equal(cfg(0, TOY, 0x34, 1), 0x13);
	/* Another device's state. */
	for (size_t i = 0; i + 3 < b.len; i++)
		if (!memcmp(b.data + i, "\x34\x12\x78\x56", 4)) {
			b.data[i] = 0x35;
			break;
		}
	assert_int_equal(machine_load(f->m, b.data, b.len, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "another PCI device"));
	assert_int_equal(cfg(0, TOY, 0, 4), 0x56781234);
	state_buf_free(&b);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_config_access), TEST(test_config_address), TEST(test_write_masks), TEST(test_capabilities),
		TEST(test_multifunction), TEST(test_slots), TEST(test_bar_sizing), TEST(test_bar_mapping),
		TEST(test_bar_clash), TEST(test_pciexbar), TEST(test_intx), TEST(test_msix), TEST(test_bus_routing),
		TEST(test_windows), TEST(test_hotplug), TEST(test_slot_owner), TEST(test_assign), TEST(test_assign_many),
		TEST(test_assign_too_much), TEST(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
