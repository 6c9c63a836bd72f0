/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * I/O APIC (Intel 82093AA data sheet; ICH9 data sheet §13.5): 24 pins, version
 * 0x20, that is with an EOI register.
 *
 * Input lines are logical: true means that the device asks for attention, and
 * whether that is a high or a low voltage exists nowhere in this machine. The
 * polarity bit of an entry is therefore kept and read back, but inverts nothing,
 * so that a guest which believes its tables and one that believes its habits
 * see the same interrupts.
 */
#include <errno.h>
#include <string.h>

#include "machine/machine.h"

#define VERSION 0x20u
#define PINS Q35_GSIS

#define ENTRY_VECTOR 0xffull
#define ENTRY_MODE 0x700ull /* delivery mode */
#define ENTRY_LOGICAL 0x800ull
#define ENTRY_STATUS 0x1000ull /* delivery status: always idle, read-only */
#define ENTRY_REMOTE_IRR 0x4000ull /* read-only */
#define ENTRY_LEVEL 0x8000ull
#define ENTRY_MASKED 0x10000ull
#define ENTRY_WRITABLE 0xff0000000001afffull

enum { REG_SELECT = 0x00, REG_WINDOW = 0x10, REG_EOI = 0x40 };
enum { INDEX_ID, INDEX_VERSION, INDEX_ARB, INDEX_ENTRIES = 0x10 };

struct ioapic {
	struct device dev;
	uint8_t id, select;
	uint32_t level; /* inputs as they are driven, a bit a pin */
	uint64_t entry[PINS];
	struct engine_route route[PINS]; /* as the engine knows them */
	struct io_range range;
};

static struct engine_route message(uint64_t entry)
{
	struct engine_route r;

	r.address = 0xfee00000u | (entry >> 56) << 12 | (entry & ENTRY_LOGICAL ? 1 << 2 : 0);
	/* SDM vol. 3 §10.11.2: vector, delivery mode, level assert, trigger mode. */
	r.data = (entry & (ENTRY_VECTOR | ENTRY_MODE | ENTRY_LEVEL)) | 1 << 14;
	return r;
}

/*
 * A masked pin whose interrupt is still in service keeps its route: the EOI
 * that ends it must come back.
 */
static void update_routes(struct ioapic *a, bool always)
{
	struct engine_route route[PINS];

	for (unsigned i = 0; i < PINS; i++) {
		uint64_t e = a->entry[i];

		route[i] = e & ENTRY_MASKED && !(e & ENTRY_REMOTE_IRR) ? (struct engine_route){ 0 } : message(e);
	}
	for (unsigned i = 0; i < PINS; i++)
		always |= route[i].address != a->route[i].address || route[i].data != a->route[i].data;
	if (!always)
		return;
	for (unsigned i = 0; i < PINS; i++)
		a->route[i] = route[i];
	engine_ioapic_routes(a->dev.machine->engine, a->route, PINS);
}

static void deliver(struct ioapic *a, unsigned pin)
{
	struct engine_route r = message(a->entry[pin]);

	engine_msi(a->dev.machine->engine, r.address, r.data);
}

/* A level-triggered pin that is asserted, unmasked and not in service interrupts. */
static void service_level(struct ioapic *a, unsigned pin)
{
	uint64_t *e = &a->entry[pin];

	if (!(*e & ENTRY_LEVEL) || *e & (ENTRY_MASKED | ENTRY_REMOTE_IRR) || !(a->level >> pin & 1))
		return;
	*e |= ENTRY_REMOTE_IRR;
	deliver(a, pin);
}

static void ioapic_set_irq(void *opaque, unsigned pin, bool level)
{
	struct ioapic *a = opaque;
	bool was;

	pthread_mutex_lock(&a->dev.lock);
	was = a->level >> pin & 1;
	a->level = (a->level & ~(1u << pin)) | (uint32_t)level << pin;
	if (a->entry[pin] & ENTRY_LEVEL)
		service_level(a, pin);
	else if (level && !was && !(a->entry[pin] & ENTRY_MASKED)) /* masked edges are lost: 82093AA §3.2.4 */
		deliver(a, pin);
	pthread_mutex_unlock(&a->dev.lock);
}

static void end_of_interrupt(struct ioapic *a, uint8_t vector)
{
	for (unsigned i = 0; i < PINS; i++) {
		uint64_t *e = &a->entry[i];

		if (!(*e & ENTRY_REMOTE_IRR) || (*e & ENTRY_VECTOR) != vector)
			continue;
		*e &= ~ENTRY_REMOTE_IRR;
		service_level(a, i);
	}
}

static void ioapic_eoi(void *opaque, uint8_t vector)
{
	struct ioapic *a = opaque;

	pthread_mutex_lock(&a->dev.lock);
	end_of_interrupt(a, vector);
	pthread_mutex_unlock(&a->dev.lock);
}

static void write_entry(struct ioapic *a, unsigned pin, uint64_t value, uint64_t mask)
{
	uint64_t *e = &a->entry[pin];

	mask &= ENTRY_WRITABLE;
	*e = (*e & ~mask) | (value & mask);
	/* Switching a pin to edge and back is how old kernels clear a stuck remote IRR. */
	if (!(*e & ENTRY_LEVEL))
		*e &= ~ENTRY_REMOTE_IRR;
	/* The engine must know the route before an interrupt on it can end. */
	update_routes(a, false);
	service_level(a, pin);
}

static void window_write(struct ioapic *a, uint32_t value)
{
	unsigned pin = (a->select - INDEX_ENTRIES) / 2;

	if (a->select == INDEX_ID)
		a->id = value >> 24 & 0x0f;
	else if (a->select >= INDEX_ENTRIES && pin < PINS && a->select & 1)
		write_entry(a, pin, (uint64_t)value << 32, 0xffffffffull << 32);
	else if (a->select >= INDEX_ENTRIES && pin < PINS)
		write_entry(a, pin, value, 0xffffffffull);
}

static uint32_t window_read(const struct ioapic *a)
{
	unsigned pin = (a->select - INDEX_ENTRIES) / 2;

	switch (a->select) {
	case INDEX_ID:
	case INDEX_ARB:
		return (uint32_t)a->id << 24;
	case INDEX_VERSION:
		return VERSION | (PINS - 1) << 16;
	default:
		if (a->select < INDEX_ENTRIES || pin >= PINS)
			return 0;
		return a->entry[pin] >> (a->select & 1 ? 32 : 0);
	}
}

static uint64_t ioapic_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ioapic *a = opaque;

	switch (offset) {
	case REG_SELECT:
		return a->select;
	case REG_WINDOW:
		return window_read(a);
	default:
		return 0;
	}
}

static void ioapic_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ioapic *a = opaque;

	switch (offset) {
	case REG_SELECT:
		a->select = value;
		break;
	case REG_WINDOW:
		if (size == 4)
			window_write(a, value);
		break;
	case REG_EOI:
		end_of_interrupt(a, value);
		break;
	}
}

/* ---- Device -------------------------------------------------------------- */

static void ioapic_reset(struct device *d)
{
	struct ioapic *a = (struct ioapic *)d;

	pthread_mutex_lock(&d->lock);
	a->id = a->select = 0;
	a->level = 0;
	for (unsigned i = 0; i < PINS; i++)
		a->entry[i] = ENTRY_MASKED;
	update_routes(a, false);
	pthread_mutex_unlock(&d->lock);
}

static void ioapic_unrealize(struct device *d)
{
	struct ioapic *a = (struct ioapic *)d;
	struct machine *m = d->machine;

	bus_del(m->mmio, &a->range);
	m->ioapic_eoi = NULL;
	for (unsigned i = 0; i < PINS; i++)
		m->ioapic_in[i] = (struct irq){ 0 };
}

static int ioapic_realize(struct device *d, struct err *err)
{
	static const struct io_ops ops = { ioapic_read, ioapic_write, 1, 4 };
	struct ioapic *a = (struct ioapic *)d;
	struct machine *m = d->machine;
	int ret;

	a->range = (struct io_range){ "ioapic", Q35_IOAPIC_BASE, 0x1000, &ops, a, &d->lock, 0 };
	ret = bus_add(m->mmio, &a->range, err);
	if (ret)
		return ret;
	for (unsigned i = 0; i < PINS; i++)
		m->ioapic_in[i] = (struct irq){ ioapic_set_irq, a, i };
	m->ioapic_opaque = a;
	m->ioapic_eoi = ioapic_eoi;
	return 0;
}

static int ioapic_post_load(void *obj, struct err *err)
{
	struct ioapic *a = obj;

	if (a->level >> PINS)
		return err_set(err, EINVAL, "pins above %u are driven", PINS - 1);
	for (unsigned i = 0; i < PINS; i++) {
		uint64_t e = a->entry[i];

		if (e & ~(ENTRY_WRITABLE | ENTRY_REMOTE_IRR) || (e & ENTRY_REMOTE_IRR && !(e & ENTRY_LEVEL)))
			return err_set(err, EINVAL, "redirection entry %u is impossible", i);
	}
	update_routes(a, true);
	return 0;
}

static const struct state_field ioapic_fields[] = {
	STATE_FIELD_LIMITED(STATE_U8, struct ioapic, id, 15),
	STATE_FIELD_U8(struct ioapic, select),
	STATE_FIELD_U32(struct ioapic, level),
	STATE_ARRAY_U64(struct ioapic, entry),
	STATE_END,
};
static const struct state_desc ioapic_state = {
	.name = "ioapic", .version = 1, .fields = ioapic_fields, .post_load = ioapic_post_load
};

const struct device_class ioapic_class = {
	.name = "ioapic",
	.description = "I/O APIC with 24 pins",
	.size = sizeof(struct ioapic),
	.realize = ioapic_realize,
	.unrealize = ioapic_unrealize,
	.reset = ioapic_reset,
	.state = &ioapic_state,
};
