/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two cascaded 8259A interrupt controllers with the edge/level registers of
 * the PC chipsets (Intel 8259A data sheet; ICH9 data sheet §5.8, §13.4).
 *
 * Requests are latched on edges and follow the input where the ELCR says
 * level. The slave's output drives input 2 of the master as a level, so that a
 * slave that is served while it wants more is not forgotten.
 */
#include <errno.h>

#include "machine/machine.h"

enum { MASTER, SLAVE };
#define CASCADE 2 /* input of the master that the slave drives */
#define SPURIOUS 7

enum init_state { INIT_DONE, INIT_ICW2, INIT_ICW3, INIT_ICW4 };

struct pic_chip {
	uint8_t irr, imr, isr;
	uint8_t level; /* inputs as they are driven */
	uint8_t elcr;  /* 1: level-triggered */
	uint8_t base;  /* vector of input 0 */
	uint8_t top;   /* input of the highest priority */
	uint8_t init;  /* enum init_state */
	bool icw4, single;
	bool read_isr, poll, special_mask, auto_eoi, rotate_on_auto_eoi, fully_nested;
};

struct pic {
	struct device dev;
	struct pic_chip chip[2];
	bool intr;    /* INTR as the engine knows it */
	bool offered; /* INTR was raised since the last INTA */
	struct io_range range[3];
};

/* Bits that the ELCR registers have: the timer, the keyboard, the cascade, the clock and the FPU are always edges. */
static const uint8_t elcr_mask[2] = { 0xf8, 0xde };

static unsigned priority(const struct pic_chip *c, unsigned n)
{
	return (n - c->top) & 7;
}

/* The set bit of `bits` with the highest priority, or -1. */
static int highest(const struct pic_chip *c, uint8_t bits)
{
	for (unsigned i = 0; i < 8; i++) {
		unsigned n = (c->top + i) & 7;

		if (bits & 1 << n)
			return n;
	}
	return -1;
}

/* The request that the chip wants to have served now, or -1. */
static int pending(const struct pic *p, unsigned which)
{
	const struct pic_chip *c = &p->chip[which];
	uint8_t served = c->isr;
	int request = highest(c, c->irr & ~c->imr), top;

	if (c->special_mask)
		served &= ~c->imr;
	top = highest(c, served);
	if (request < 0 || top < 0)
		return request;
	/* In the special fully nested mode the slave may interrupt itself. */
	if (c->fully_nested && which == MASTER && request == CASCADE && top == CASCADE)
		return request;
	return priority(c, request) < priority(c, top) ? request : -1;
}

static void chip_input(struct pic_chip *c, unsigned n, bool level, bool level_triggered)
{
	uint8_t bit = 1 << n;

	if (level_triggered)
		c->irr = level ? c->irr | bit : c->irr & ~bit;
	else if (level && !(c->level & bit))
		c->irr |= bit;
	c->level = level ? c->level | bit : c->level & ~bit;
}

static void update(struct pic *p)
{
	bool intr;

	chip_input(&p->chip[MASTER], CASCADE, pending(p, SLAVE) >= 0, true);
	intr = pending(p, MASTER) >= 0;
	if (intr)
		p->offered = true;
	if (intr != p->intr) {
		p->intr = intr;
		engine_set_extint(p->dev.machine->engine, intr);
	}
}

static void pic_set_irq(void *opaque, unsigned n, bool level)
{
	struct pic *p = opaque;
	struct pic_chip *c = &p->chip[n >> 3];

	pthread_mutex_lock(&p->dev.lock);
	chip_input(c, n & 7, level, c->elcr & 1 << (n & 7));
	update(p);
	pthread_mutex_unlock(&p->dev.lock);
}

static void end_of_interrupt(struct pic_chip *c, unsigned n, bool rotate)
{
	c->isr &= ~(1 << n);
	if (rotate)
		c->top = (n + 1) & 7;
}

/* First INTA pulse: the request goes into service. */
static void acknowledge(struct pic_chip *c, unsigned n)
{
	c->isr |= 1 << n;
	if (c->auto_eoi)
		end_of_interrupt(c, n, c->rotate_on_auto_eoi);
	/* A level stays requested for as long as it is driven. */
	if (!(c->elcr & 1 << n))
		c->irr &= ~(1 << n);
}

static int chip_ack(struct pic *p, unsigned which, int *vector)
{
	struct pic_chip *c = &p->chip[which];
	int n = pending(p, which);

	/* A request that went away is answered with input 7, which is then not in service. */
	if (n >= 0)
		acknowledge(c, n);
	*vector = c->base + (n >= 0 ? n : SPURIOUS);
	return n;
}

static int pic_ack(void *opaque)
{
	struct pic *p = opaque;
	int vector = -1;

	pthread_mutex_lock(&p->dev.lock);
	if (p->offered) {
		p->offered = false;
		if (chip_ack(p, MASTER, &vector) == CASCADE)
			chip_ack(p, SLAVE, &vector);
		update(p);
	}
	pthread_mutex_unlock(&p->dev.lock);
	return vector;
}

/* ---- Registers ----------------------------------------------------------- */

static void write_icw1(struct pic_chip *c, uint8_t value)
{
	/* Edges seen before are forgotten, levels are not. */
	c->irr &= c->elcr & c->level;
	c->imr = 0;
	c->isr = 0;
	c->top = 0;
	c->init = INIT_ICW2;
	c->icw4 = value & 0x01;
	c->single = value & 0x02;
	c->read_isr = c->poll = c->special_mask = false;
	c->auto_eoi = c->rotate_on_auto_eoi = c->fully_nested = false;
}

static void write_ocw2(struct pic_chip *c, uint8_t value)
{
	uint8_t served = c->isr;
	int n;

	/* A non-specific EOI leaves alone what the special mask mode hides. */
	if (c->special_mask)
		served &= ~c->imr;
	switch (value >> 5) {
	case 0:
	case 4:
		c->rotate_on_auto_eoi = value & 0x80;
		break;
	case 1:
	case 5:
		n = highest(c, served);
		if (n >= 0)
			end_of_interrupt(c, n, value & 0x80);
		break;
	case 3:
	case 7:
		end_of_interrupt(c, value & 7, value & 0x80);
		break;
	case 6:
		c->top = ((value & 7) + 1) & 7;
		break;
	default: /* 2: no operation */
		break;
	}
}

static void write_ocw3(struct pic_chip *c, uint8_t value)
{
	if (value & 0x40)
		c->special_mask = value & 0x20;
	if (value & 0x04)
		c->poll = true;
	else if (value & 0x02)
		c->read_isr = value & 0x01;
}

static void write_data(struct pic_chip *c, uint8_t value)
{
	switch (c->init) {
	case INIT_ICW2:
		c->base = value & 0xf8;
		c->init = !c->single ? INIT_ICW3 : c->icw4 ? INIT_ICW4 : INIT_DONE;
		break;
	case INIT_ICW3: /* the wiring is as it is */
		c->init = c->icw4 ? INIT_ICW4 : INIT_DONE;
		break;
	case INIT_ICW4:
		c->fully_nested = value & 0x10;
		c->auto_eoi = value & 0x02;
		c->init = INIT_DONE;
		break;
	default:
		c->imr = value;
	}
}

static void pic_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pic *p = opaque;
	/* The range of the slave begins at 0xa0. */
	struct pic_chip *c = &p->chip[offset >= 0x80 ? SLAVE : MASTER];

	if (offset & 1)
		write_data(c, value);
	else if (value & 0x10)
		write_icw1(c, value);
	else if (value & 0x08)
		write_ocw3(c, value);
	else
		write_ocw2(c, value);
	update(p);
}

static uint8_t read_poll(struct pic *p, unsigned which)
{
	struct pic_chip *c = &p->chip[which];
	int n = pending(p, which);

	c->poll = false;
	if (n < 0)
		return 0;
	acknowledge(c, n);
	update(p);
	return 0x80 | n;
}

static uint64_t pic_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pic *p = opaque;
	unsigned which = offset >= 0x80 ? SLAVE : MASTER;
	struct pic_chip *c = &p->chip[which];

	if (c->poll)
		return read_poll(p, which);
	if (offset & 1)
		return c->imr;
	return c->read_isr ? c->isr : c->irr;
}

static uint64_t slave_read(void *opaque, uint64_t offset, unsigned size)
{
	return pic_read(opaque, offset + 0x80, size);
}

static void slave_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	pic_write(opaque, offset + 0x80, value, size);
}

static uint64_t elcr_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pic *p = opaque;

	return p->chip[offset].elcr;
}

static void elcr_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pic *p = opaque;
	struct pic_chip *c = &p->chip[offset];
	uint8_t elcr = value & elcr_mask[offset], changed = elcr ^ c->elcr;

	c->elcr = elcr;
	/* An input that is a level now requests what it is driven to; a new edge input has seen none. */
	c->irr = (c->irr & ~changed) | (changed & elcr & c->level);
	update(p);
}

/* ---- Device -------------------------------------------------------------- */

static void pic_reset(struct device *d)
{
	struct pic *p = (struct pic *)d;

	pthread_mutex_lock(&d->lock);
	for (unsigned i = 0; i < 2; i++)
		p->chip[i] = (struct pic_chip){ 0 };
	update(p);
	p->offered = false;
	pthread_mutex_unlock(&d->lock);
}

static void pic_unrealize(struct device *d)
{
	struct pic *p = (struct pic *)d;
	struct machine *m = d->machine;

	for (unsigned i = 0; i < 3; i++)
		bus_del(m->pio, &p->range[i]);
	for (unsigned i = 0; i < 16; i++)
		m->pic_in[i] = (struct irq){ 0 };
	m->pic_ack = NULL;
	engine_set_extint(m->engine, false);
}

static int pic_realize(struct device *d, struct err *err)
{
	static const struct io_ops master = { pic_read, pic_write, 1, 1 }, slave = { slave_read, slave_write, 1, 1 };
	static const struct io_ops elcr = { elcr_read, elcr_write, 1, 1 };
	struct pic *p = (struct pic *)d;
	struct machine *m = d->machine;
	int ret = 0;

	p->range[0] = (struct io_range){ "pic", 0x20, 2, &master, p, &d->lock, 0 };
	p->range[1] = (struct io_range){ "pic-slave", 0xa0, 2, &slave, p, &d->lock, 0 };
	p->range[2] = (struct io_range){ "elcr", 0x4d0, 2, &elcr, p, &d->lock, 0 };
	for (unsigned i = 0; i < 3 && !ret; i++)
		ret = bus_add(m->pio, &p->range[i], err);
	if (ret) {
		for (unsigned i = 0; i < 3; i++)
			bus_del(m->pio, &p->range[i]);
		return ret;
	}
	for (unsigned i = 0; i < 16; i++)
		if (i != CASCADE)
			m->pic_in[i] = (struct irq){ pic_set_irq, p, i };
	m->pic_opaque = p;
	m->pic_ack = pic_ack;
	return 0;
}

static int pic_post_load(void *obj, struct err *err)
{
	struct pic *p = obj;

	for (unsigned i = 0; i < 2; i++)
		if (p->chip[i].elcr & ~elcr_mask[i] || p->chip[i].base & 7)
			return err_set(err, EINVAL, "trigger modes or vectors of an 8259 are impossible");
	engine_set_extint(p->dev.machine->engine, p->intr);
	update(p);
	return 0;
}

static const struct state_field chip_fields[] = {
	STATE_FIELD_U8(struct pic_chip, irr),
	STATE_FIELD_U8(struct pic_chip, imr),
	STATE_FIELD_U8(struct pic_chip, isr),
	STATE_FIELD_U8(struct pic_chip, level),
	STATE_FIELD_U8(struct pic_chip, elcr),
	STATE_FIELD_U8(struct pic_chip, base),
	STATE_FIELD_LIMITED(STATE_U8, struct pic_chip, top, 7),
	STATE_FIELD_LIMITED(STATE_U8, struct pic_chip, init, INIT_ICW4),
	STATE_FIELD_BOOL(struct pic_chip, icw4),
	STATE_FIELD_BOOL(struct pic_chip, single),
	STATE_FIELD_BOOL(struct pic_chip, read_isr),
	STATE_FIELD_BOOL(struct pic_chip, poll),
	STATE_FIELD_BOOL(struct pic_chip, special_mask),
	STATE_FIELD_BOOL(struct pic_chip, auto_eoi),
	STATE_FIELD_BOOL(struct pic_chip, rotate_on_auto_eoi),
	STATE_FIELD_BOOL(struct pic_chip, fully_nested),
	STATE_END,
};
static const struct state_desc chip_state = { .name = "i8259-chip", .version = 1, .fields = chip_fields };

static const struct state_field pic_fields[] = {
	STATE_ARRAY_STRUCT(struct pic, chip, &chip_state),
	STATE_FIELD_BOOL(struct pic, intr),
	STATE_FIELD_BOOL(struct pic, offered),
	STATE_END,
};
static const struct state_desc pic_state = {
	.name = "i8259", .version = 1, .fields = pic_fields, .post_load = pic_post_load
};

const struct device_class pic_class = {
	.name = "i8259",
	.description = "two 8259A interrupt controllers",
	.size = sizeof(struct pic),
	.realize = pic_realize,
	.unrealize = pic_unrealize,
	.reset = pic_reset,
	.state = &pic_state,
};
