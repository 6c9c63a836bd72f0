/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The local APIC against SDM vol. 3 ch. 10. */
#include "apic_stubs.h"

#define BASE 0xfee00000ull
#define EN 0x800u
#define EXTD 0x400u

static void wr(unsigned n, unsigned off, uint32_t value)
{
	lapic_mmio_write(cpus[n], BASE + off, value, 4);
}

static uint32_t rd(unsigned n, unsigned off)
{
	return lapic_mmio_read(cpus[n], BASE + off, 4);
}

static void enable(unsigned n)
{
	wr(n, 0xf0, 0x1ff);
}

static void to_x2apic(unsigned n)
{
	assert_true(lapic_base_set(cpus[n], BASE | EN | EXTD));
}

static void x2_write(unsigned n, unsigned off, uint64_t value)
{
	assert_true(lapic_msr_write(cpus[n], 0x800 + off / 16, value));
}

static uint64_t x2_read(unsigned n, unsigned off)
{
	uint64_t value = ~0ull;

	assert_true(lapic_msr_read(cpus[n], 0x800 + off / 16, &value));
	return value;
}

static bool irr(unsigned n, unsigned vector)
{
	return atomic_load(&cpus[n]->lapic->irr[vector / 32]) >> (vector % 32) & 1;
}

static unsigned who_has(unsigned vector)
{
	unsigned mask = 0;

	for (unsigned n = 0; n < STUB_CPUS; n++)
		mask |= irr(n, vector) << n;
	return mask;
}

static uint32_t take_requests(unsigned n)
{
	return atomic_exchange(&cpus[n]->request, 0);
}

static int setup(void **state)
{
	stub_setup(true);
	for (unsigned n = 0; n < STUB_CPUS; n++)
		enable(n);
	return 0;
}

static void reset_values(void **state)
{
	lapic_init_signal(cpus[2]);
	assert_int_equal(rd(2, 0x20), 2u << 24);
	assert_int_equal(rd(2, 0x30), 0x00050014);
	assert_int_equal(rd(2, 0x80), 0);
	assert_int_equal(rd(2, 0xd0), 0);
	assert_int_equal(rd(2, 0xe0), 0xffffffff);
	assert_int_equal(rd(2, 0xf0), 0xff);
	for (unsigned off = 0x320; off <= 0x370; off += 0x10)
		assert_int_equal(rd(2, off), 0x10000);
	assert_int_equal(rd(2, 0x380) | rd(2, 0x390) | rd(2, 0x3e0), 0);
	assert_int_equal(lapic_base_get(cpus[0]), BASE | EN | 0x100);
	assert_int_equal(lapic_base_get(cpus[2]), BASE | EN);
	wr(2, 0x20, 7u << 24); /* the ID is fixed */
	assert_int_equal(rd(2, 0x20), 2u << 24);
}

static void priorities(void **state)
{
	for (unsigned vector = 0x31; vector <= 0x71; vector += 0x20)
		soft_msi(&engine->engine, BASE | 0 << 12, vector);
	assert_int_equal(lapic_pending(cpus[0]), 0x71);
	assert_int_equal(lapic_ack(cpus[0]), 0x71);
	assert_int_equal(rd(0, 0xa0), 0x70);
	assert_int_equal(lapic_pending(cpus[0]), -1); /* 0x51 is not above the one in service */
	soft_msi(&engine->engine, BASE, 0x7f);	      /* nor is one of the same class */
	assert_int_equal(lapic_pending(cpus[0]), -1);
	soft_msi(&engine->engine, BASE, 0x80);
	assert_int_equal(lapic_ack(cpus[0]), 0x80);
	take_requests(0);
	wr(0, 0xb0, 0);
	assert_true(take_requests(0) & REQ_IRQ);
	assert_int_equal(rd(0, 0xa0), 0x70);
	wr(0, 0xb0, 0);
	assert_int_equal(lapic_ack(cpus[0]), 0x7f);
	wr(0, 0xb0, 0);
	lapic_set_cr8(cpus[0], 5);
	assert_int_equal(rd(0, 0x80), 0x50);
	assert_int_equal(lapic_pending(cpus[0]), -1);
	take_requests(0);
	lapic_set_cr8(cpus[0], 4);
	assert_true(take_requests(0) & REQ_IRQ);
	assert_int_equal(lapic_get_cr8(cpus[0]), 4);
	assert_int_equal(lapic_ack(cpus[0]), 0x51);
	wr(0, 0xb0, 0);
	wr(0, 0x80, 0x3f); /* the sub-class does not matter for delivery but shows in PPR */
	assert_int_equal(rd(0, 0xa0), 0x3f);
	assert_int_equal(lapic_pending(cpus[0]), -1);
	wr(0, 0x80, 0x2f);
	assert_int_equal(lapic_ack(cpus[0]), 0x31);
	assert_int_equal(rd(0, 0x100 + 0x10), 1u << (0x31 - 0x20));
}

static void message_bits(void **state)
{
	soft_msi(&engine->engine, 0xfed00000, 0x40);
	assert_int_equal(who_has(0x40), 0);
	soft_msi(&engine->engine, BASE | 2 << 12, 0x40);
	assert_int_equal(who_has(0x40), 1 << 2);
	assert_int_equal(wakes[2], 1);
	soft_msi(&engine->engine, BASE | 2 << 12, 0x40); /* pending already: nobody to wake */
	assert_int_equal(wakes[2], 1);
	soft_msi(&engine->engine, BASE | 0xff << 12, 0x41);
	assert_int_equal(who_has(0x41), 0xf);
	soft_msi(&engine->engine, BASE | 9 << 12, 0x42);
	assert_int_equal(who_has(0x42), 0);
	take_requests(1);
	soft_msi(&engine->engine, BASE | 1 << 12, 0x0400);
	assert_int_equal(take_requests(1), REQ_NMI);
	soft_msi(&engine->engine, BASE | 1 << 12, 0x0500);
	assert_int_equal(take_requests(1), REQ_INIT);
	soft_msi(&engine->engine, BASE | 1 << 12, 0x0200); /* SMI: there is none */
	assert_int_equal(take_requests(1), 0);
}

static void logical_flat(void **state)
{
	for (unsigned n = 0; n < STUB_CPUS; n++)
		wr(n, 0xd0, 1u << (24 + n));
	soft_msi(&engine->engine, BASE | 0x5 << 12 | 4, 0x50);
	assert_int_equal(who_has(0x50), 0x5);
	soft_msi(&engine->engine, BASE | 0xff << 12 | 4, 0x51);
	assert_int_equal(who_has(0x51), 0xf);
}

static void logical_cluster(void **state)
{
	static const uint8_t ldr[STUB_CPUS] = { 0x11, 0x12, 0x21, 0x22 };

	for (unsigned n = 0; n < STUB_CPUS; n++) {
		wr(n, 0xe0, 0);
		assert_int_equal(rd(n, 0xe0), 0x0fffffff);
		wr(n, 0xd0, (uint32_t)ldr[n] << 24);
	}
	soft_msi(&engine->engine, BASE | 0x13 << 12 | 4, 0x50);
	assert_int_equal(who_has(0x50), 0x3);
	soft_msi(&engine->engine, BASE | 0x22 << 12 | 4, 0x51);
	assert_int_equal(who_has(0x51), 0x8);
	soft_msi(&engine->engine, BASE | 0xf1 << 12 | 4, 0x52); /* cluster 15: all clusters */
	assert_int_equal(who_has(0x52), 0x5);
}

static void logical_x2apic(void **state)
{
	for (unsigned n = 0; n < STUB_CPUS; n++)
		to_x2apic(n);
	assert_int_equal(x2_read(3, 0x20), 3);
	assert_int_equal(x2_read(3, 0xd0), 1 << 3);
	x2_write(0, 0x300, 0x0000000a00000800 | 0x60);
	assert_int_equal(who_has(0x60), 0xa);
	x2_write(0, 0x300, 0x0001000a00000800 | 0x61); /* another cluster */
	assert_int_equal(who_has(0x61), 0);
	x2_write(0, 0x300, 0xffffffff00000000 | 0x62);
	assert_int_equal(who_has(0x62), 0xf);
	x2_write(0, 0x300, 0x000000ff00000000 | 0x63); /* not a broadcast here */
	assert_int_equal(who_has(0x63), 0);
	x2_write(0, 0x300, 0x0000000200000000 | 0x64);
	assert_int_equal(who_has(0x64), 0x4);
	assert_int_equal(x2_read(0, 0x300), 0x0000000200000064);
	x2_write(1, 0x3f0, 0x65);
	assert_int_equal(who_has(0x65), 0x2);
}

static void shorthands(void **state)
{
	wr(1, 0x310, 3u << 24);
	wr(1, 0x300, 0x70);
	assert_int_equal(who_has(0x70), 0x8);
	wr(1, 0x300, 0x40071);
	assert_int_equal(who_has(0x71), 0x2);
	wr(1, 0x300, 0x80072);
	assert_int_equal(who_has(0x72), 0xf);
	wr(1, 0x300, 0xc0073);
	assert_int_equal(who_has(0x73), 0xd);
	assert_int_equal(wakes[1], 0); /* its own thread needs no waking */
	wr(1, 0x310, 0xffu << 24);
	wr(1, 0x300, 0x74);
	assert_int_equal(who_has(0x74), 0xf);
}

static void init_sipi(void **state)
{
	take_requests(3);
	wr(0, 0x310, 3u << 24);
	wr(0, 0x300, 0x4500); /* INIT, assert */
	assert_int_equal(take_requests(3), REQ_INIT);
	wr(0, 0x300, 0x8500); /* INIT, level de-assert */
	assert_int_equal(take_requests(3), 0);
	wr(0, 0x300, 0x4699);
	assert_int_equal(take_requests(3), REQ_SIPI);
	assert_int_equal(atomic_load(&cpus[3]->sipi_vector), 0x99);
	/* To all but self, also where the APICs are software-disabled. */
	wr(2, 0xf0, 0xff);
	take_requests(0), take_requests(1), take_requests(2);
	wr(0, 0x300, 0xc4500);
	assert_int_equal(take_requests(0), 0);
	assert_int_equal(take_requests(1), REQ_INIT);
	assert_int_equal(take_requests(2), REQ_INIT);
}

static void lowest_priority(void **state)
{
	for (unsigned n = 0; n < STUB_CPUS; n++)
		wr(n, 0xd0, 1u << (24 + n));
	wr(0, 0x80, 0x40);
	wr(1, 0x80, 0x30);
	wr(2, 0x80, 0x20);
	wr(3, 0x80, 0x30);
	soft_msi(&engine->engine, BASE | 0xff << 12 | 4, 0x0190);
	assert_int_equal(who_has(0x90), 0x4);
	soft_msi(&engine->engine, BASE | 0x3 << 12 | 4, 0x0191);
	assert_int_equal(who_has(0x91), 0x2);
	soft_msi(&engine->engine, BASE | 0x9 << 12 | 0xc, 0x0092); /* fixed with redirection hint */
	assert_int_equal(who_has(0x92), 0x8);
	wr(2, 0xf0, 0xff); /* not a candidate any more */
	soft_msi(&engine->engine, BASE | 0x5 << 12 | 4, 0x0193);
	assert_int_equal(who_has(0x93), 0x1);
	/* Equals share by vector. */
	wr(2, 0xf0, 0x1ff);
	for (unsigned n = 0; n < STUB_CPUS; n++)
		wr(n, 0x80, 0);
	unsigned seen = 0;
	for (unsigned vector = 0xa0; vector < 0xb0; vector++) {
		soft_msi(&engine->engine, BASE | 0xf << 12 | 4, 0x100 | vector);
		assert_int_equal(__builtin_popcount(who_has(vector)), 1);
		seen |= who_has(vector);
	}
	assert_int_equal(seen, 0xf);
}

static void level_eoi(void **state)
{
	soft_msi(&engine->engine, BASE, 0x8000 | 0x45);
	assert_int_equal(rd(0, 0x180 + 0x20), 1u << 5);
	assert_int_equal(lapic_ack(cpus[0]), 0x45);
	assert_int_equal(eoi_count, 0);
	wr(0, 0xb0, 0);
	assert_int_equal(eoi_count, 1);
	assert_int_equal(eoi_vector, 0x45);
	soft_msi(&engine->engine, BASE, 0x45); /* edge now */
	assert_int_equal(rd(0, 0x180 + 0x20), 0);
	lapic_ack(cpus[0]);
	wr(0, 0xb0, 0);
	assert_int_equal(eoi_count, 1);
	wr(0, 0xb0, 0); /* nothing in service */
	assert_int_equal(eoi_count, 1);
}

static void software_disable(void **state)
{
	soft_msi(&engine->engine, BASE, 0x55);
	wr(0, 0x350, 0x0700);
	wr(0, 0xf0, 0x0ff);
	assert_int_equal(rd(0, 0x350), 0x10700); /* masked, and stays so */
	wr(0, 0x350, 0x0700);
	assert_int_equal(rd(0, 0x350), 0x10700);
	soft_msi(&engine->engine, BASE, 0x56);
	assert_false(irr(0, 0x56));
	assert_true(irr(0, 0x55)); /* what was pending is held */
	take_requests(0);
	soft_msi(&engine->engine, BASE, 0x0400);
	assert_int_equal(take_requests(0), REQ_NMI);
	enable(0);
	soft_msi(&engine->engine, BASE, 0x56);
	assert_true(irr(0, 0x56));
}

static void errors(void **state)
{
	wr(0, 0x370, 0xfe);
	wr(0, 0x300, 0x0f);		   /* send illegal vector */
	assert_int_equal(rd(0, 0x280), 0); /* visible after a write only */
	wr(0, 0x280, 0);
	assert_int_equal(rd(0, 0x280), 0x20);
	assert_true(irr(0, 0xfe));
	soft_msi(&engine->engine, BASE, 0x0e);
	rd(0, 0x400);
	wr(0, 0x280, 0);
	assert_int_equal(rd(0, 0x280), 0xc0);
	wr(0, 0x280, 0);
	assert_int_equal(rd(0, 0x280), 0);
}

static void mmio_shape(void **state)
{
	assert_true(lapic_claims(cpus[0], BASE + 0xff0));
	assert_false(lapic_claims(cpus[0], BASE + 0x1000));
	lapic_mmio_write(cpus[0], BASE + 0x80, 0xff, 1);
	lapic_mmio_write(cpus[0], BASE + 0x84, 0xff, 4);
	assert_int_equal(rd(0, 0x80), 0);
	assert_int_equal(lapic_mmio_read(cpus[0], BASE + 0x32, 2), 0x0005);
	assert_int_equal(lapic_mmio_read(cpus[0], BASE + 0x30, 1), 0x14);
	assert_int_equal(lapic_mmio_read(cpus[0], BASE + 0x38, 4), 0);
	assert_int_equal(lapic_mmio_read(cpus[0], BASE + 0x30, 8), 0);
}

static void base_transitions(void **state)
{
	uint64_t value;

	assert_false(lapic_msr_read(cpus[1], 0x802, &value)); /* not in x2APIC mode */
	assert_false(lapic_base_set(cpus[1], BASE | EXTD));
	assert_false(lapic_base_set(cpus[1], BASE | EN | 1));
	assert_false(lapic_base_set(cpus[1], 1ull << 40 | EN));
	to_x2apic(1);
	assert_false(lapic_claims(cpus[1], BASE));
	assert_false(lapic_base_set(cpus[1], BASE | EN)); /* x2APIC -> xAPIC */
	assert_false(lapic_base_set(cpus[1], BASE | EXTD));
	assert_int_equal(lapic_base_get(cpus[1]), BASE | EN | EXTD);
	soft_msi(&engine->engine, BASE | 1 << 12, 0x44);
	assert_true(irr(1, 0x44));
	assert_true(lapic_base_set(cpus[1], BASE));
	assert_false(irr(1, 0x44));
	assert_false(lapic_base_set(cpus[1], BASE | EN | EXTD)); /* disabled -> x2APIC */
	soft_msi(&engine->engine, BASE | 1 << 12, 0x44);
	assert_int_equal(lapic_pending(cpus[1]), -1);
	assert_true(lapic_base_set(cpus[1], 0xfec10000 | EN));
	assert_true(lapic_claims(cpus[1], 0xfec10020));
	assert_int_equal(rd(1, 0xf0), 0xff); /* reset on the way */
	cpuid_1_ecx &= ~(1u << 21);
	assert_false(lapic_base_set(cpus[1], BASE | EN | EXTD));
	cpuid_1_ecx |= 1u << 21;
}

static void x2apic_faults(void **state)
{
	static const struct {
		uint16_t off;
		uint64_t value;
	} bad[] = {
		{ 0x20, 0 },	       { 0x30, 0 },	    { 0xa0, 0 },	{ 0xd0, 0 },	       { 0xe0, 0 },
		{ 0x100, 0 },	       { 0x280, 1 },	    { 0xb0, 1 },	{ 0x80, 0x100 },       { 0xf0, 0x1000 },
		{ 0x310, 0 },	       { 0x300, 0x100000 }, { 0x320, 0x80000 }, { 0x380, 1ull << 32 }, { 0x3e0, 4 },
		{ 0x3f0, 0x100 },      { 0x390, 0 },	    { 0x2f0, 0 },	{ 0x400, 0 },	       { 0x370, 0x100 },
		{ 0x350, 1ull << 40 },
	};
	static const uint16_t unreadable[] = { 0xb0, 0x3f0, 0xe0, 0x310, 0x90, 0xc0, 0x2f0, 0x3d0, 0x400, 0x000 };
	uint64_t value;

	to_x2apic(0);
	for (unsigned n = 0; n < sizeof(bad) / sizeof(bad[0]); n++)
		assert_false(lapic_msr_write(cpus[0], 0x800 + bad[n].off / 16, bad[n].value));
	for (unsigned n = 0; n < sizeof(unreadable) / 2; n++)
		assert_false(lapic_msr_read(cpus[0], 0x800 + unreadable[n] / 16, &value));
	x2_write(0, 0x370, 0x110fe & ~0x100);
	assert_int_equal(x2_read(0, 0x370), 0x100fe); /* delivery status is read-only */
	x2_write(0, 0xb0, 0);
	x2_write(0, 0x280, 0);
}

static void extint(void **state)
{
	wr(0, 0x350, 0x10700);
	pic_vector = 0x08;
	soft_set_extint(&engine->engine, true);
	assert_int_equal(lapic_pending(cpus[0]), -1); /* LINT0 is masked */
	take_requests(0);
	wr(0, 0x350, 0x0700);
	assert_true(take_requests(0) & REQ_IRQ);
	soft_msi(&engine->engine, BASE, 0xe0);
	assert_true(lapic_pending(cpus[0]) >= 0);
	assert_int_equal(lapic_pending(cpus[1]), -1);
	assert_int_equal(lapic_ack(cpus[0]), 0x08);
	assert_int_equal(rd(0, 0x100), 0); /* not in service at the APIC */
	pic_vector = -1;		   /* withdrawn: the APIC's own comes */
	assert_int_equal(lapic_ack(cpus[0]), 0xe0);
	soft_set_extint(&engine->engine, false);
	assert_int_equal(lapic_pending(cpus[0]), -1);
	/* With the APIC off the pin is the CPU's INTR. */
	assert_true(lapic_base_set(cpus[0], BASE));
	wakes[0] = 0;
	soft_set_extint(&engine->engine, true);
	assert_int_equal(wakes[0], 1);
	pic_vector = 0x70;
	assert_int_equal(lapic_ack(cpus[0]), 0x70);
}

static void lint0_fixed_level(void **state)
{
	wr(0, 0x350, 0x8000 | 0x66);
	soft_set_extint(&engine->engine, true);
	assert_int_equal(lapic_ack(cpus[0]), 0x66);
	assert_int_equal(rd(0, 0x350), 0xc066); /* remote IRR */
	wr(0, 0xb0, 0);				/* still asserted: again */
	assert_int_equal(lapic_ack(cpus[0]), 0x66);
	soft_set_extint(&engine->engine, false);
	wr(0, 0xb0, 0);
	assert_int_equal(lapic_pending(cpus[0]), -1);
	assert_int_equal(rd(0, 0x350), 0x8066);
	wr(0, 0x350, 0x0400); /* NMI */
	take_requests(0);
	soft_set_extint(&engine->engine, true);
	assert_int_equal(take_requests(0), REQ_NMI);
}

static uint32_t pv_word(void)
{
	uint32_t word;

	memcpy(&word, ram + 0x40, 4);
	return word;
}

static void pv_eoi(void **state)
{
	cpus[0]->kvm_pv_eoi = RAM_GPA + 0x40 + 1;
	soft_msi(&engine->engine, BASE, 0x51);
	assert_int_equal(lapic_ack(cpus[0]), 0x51);
	assert_int_equal(pv_word(), 1);
	/* The guest ends it without a write. */
	ram[0x40] = 0;
	soft_msi(&engine->engine, BASE, 0x50);
	assert_int_equal(lapic_ack(cpus[0]), 0x50);
	assert_int_equal(pv_word(), 1);
	assert_int_equal(cpus[0]->lapic->isr[2], 1u << 16); /* 0x51 is out of service */
	/* Another waits: the guest must write. */
	soft_msi(&engine->engine, BASE, 0x49);
	assert_int_equal(lapic_pending(cpus[0]), -1);
	assert_int_equal(pv_word(), 0);
	wr(0, 0xb0, 0);
	assert_int_equal(cpus[0]->lapic->isr[2], 0);
	assert_int_equal(lapic_ack(cpus[0]), 0x49);
	/* Written though it need not be: ended once. */
	soft_msi(&engine->engine, BASE, 0x85);
	assert_int_equal(lapic_ack(cpus[0]), 0x85);
	assert_int_equal(pv_word(), 1);
	wr(0, 0xb0, 0);
	assert_int_equal(pv_word(), 0);
	assert_int_equal(rd(0, 0x100 + 0x20), 1u << 9);
	/* Nested: the inner one by the bit, the outer one by a write. */
	soft_msi(&engine->engine, BASE, 0x95);
	assert_int_equal(lapic_ack(cpus[0]), 0x95);
	ram[0x40] = 0;
	wr(0, 0xb0, 0);
	assert_int_equal(rd(0, 0x100 + 0x20) | rd(0, 0x100 + 0x40), 0);
	/* One waits already: nothing else would ask for it when the first ends without a write. */
	soft_msi(&engine->engine, BASE, 0x61);
	soft_msi(&engine->engine, BASE, 0x51);
	assert_int_equal(lapic_ack(cpus[0]), 0x61);
	assert_int_equal(pv_word(), 0);
	take_requests(0);
	wr(0, 0xb0, 0);
	assert_true(take_requests(0) & REQ_IRQ);
	assert_int_equal(lapic_ack(cpus[0]), 0x51);
	wr(0, 0xb0, 0);
	/* A level-triggered one must reach the IOAPIC. */
	soft_msi(&engine->engine, BASE, 0x8051);
	assert_int_equal(lapic_ack(cpus[0]), 0x51);
	assert_int_equal(pv_word(), 0);
	/* Not where there is no RAM. */
	wr(0, 0xb0, 0);
	cpus[0]->kvm_pv_eoi = 0x500000 + 1;
	soft_msi(&engine->engine, BASE, 0x51);
	assert_int_equal(lapic_ack(cpus[0]), 0x51);
	wr(0, 0xb0, 0);
	assert_int_equal(rd(0, 0x100 + 0x20), 0);
}

static void state_round_trip(void **state)
{
	struct cpu_state *a = aligned_alloc(64, sizeof(*a)), *b = aligned_alloc(64, sizeof(*b));

	wr(1, 0x80, 0x25);
	wr(1, 0xd0, 0x02000000);
	wr(1, 0x350, 0x8700);
	wr(1, 0x370, 0x33);
	wr(1, 0x310, 0x07000000);
	wr(1, 0x300, 0x40088);
	soft_msi(&engine->engine, BASE | 1 << 12, 0x8099);
	assert_int_equal(lapic_ack(cpus[1]), 0x99);
	memset(a, 0, sizeof(*a));
	memset(b, 0, sizeof(*b));
	lapic_get(cpus[1], a);
	lapic_init_signal(cpus[1]);
	assert_int_equal(rd(1, 0x370), 0x10000);
	lapic_set(cpus[1], a);
	assert_true(take_requests(1) & REQ_IRQ);
	lapic_get(cpus[1], b);
	assert_memory_equal(a, b, sizeof(*a));
	assert_int_equal(rd(1, 0x370), 0x33);
	assert_int_equal(rd(1, 0x310), 0x07000000);
	assert_int_equal(lapic_pending(cpus[1]), -1);
	wr(1, 0xb0, 0);
	assert_int_equal(eoi_vector, 0x99);
	assert_int_equal(lapic_ack(cpus[1]), 0x88);
	/* PV EOI: a save takes the offer back; a loaded offer is honoured. */
	cpus[1]->kvm_pv_eoi = RAM_GPA + 0x40 + 1;
	wr(1, 0xb0, 0);
	soft_msi(&engine->engine, BASE | 1 << 12, 0x77);
	assert_int_equal(lapic_ack(cpus[1]), 0x77);
	assert_int_equal(pv_word(), 1);
	lapic_get(cpus[1], a);
	assert_int_equal(pv_word(), 0);
	ram[0x40] = 1;
	lapic_set(cpus[1], a);
	soft_msi(&engine->engine, BASE | 1 << 12, 0x30);
	lapic_pending(cpus[1]);
	assert_int_equal(pv_word(), 0);
	free(a);
	free(b);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, stub_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(reset_values),	 TEST(priorities),	 TEST(message_bits),	 TEST(logical_flat),
		TEST(logical_cluster),	 TEST(logical_x2apic),	 TEST(shorthands),	 TEST(init_sipi),
		TEST(lowest_priority),	 TEST(level_eoi),	 TEST(software_disable), TEST(errors),
		TEST(mmio_shape),	 TEST(base_transitions), TEST(x2apic_faults),	 TEST(extint),
		TEST(lint0_fixed_level), TEST(pv_eoi),		 TEST(state_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
