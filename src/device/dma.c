/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two 8237 DMA controllers and their page registers, of which port 0x80 is the
 * one that firmware writes its progress to (Intel 8237A data sheet; ICH9 data
 * sheet §13.2). No device here asks for a transfer: the registers are what
 * drivers find and program.
 */
#include <string.h>

#include "machine/machine.h"

struct dma_chip {
	uint16_t address[4], base_address[4], count[4], base_count[4];
	uint8_t mode[4];
	uint8_t command, request, mask;
	bool high_next; /* the byte pointer flip-flop */
};

struct dma {
	struct device dev;
	struct dma_chip chip[2];
	uint8_t page[16];
	struct io_range range[3];
};

enum { REG_STATUS_COMMAND = 8, REG_REQUEST, REG_MASK, REG_MODE, REG_CLEAR_FLIP, REG_MASTER_CLEAR, REG_CLEAR_MASK,
       REG_ALL_MASK };

static void master_clear(struct dma_chip *c)
{
	c->command = c->request = 0;
	c->high_next = false;
	c->mask = 0x0f;
}

static void set_bit(uint8_t *reg, uint8_t value)
{
	uint8_t bit = 1 << (value & 3);

	*reg = value & 4 ? *reg | bit : *reg & ~bit;
}

static void chip_write(struct dma_chip *c, unsigned reg, uint8_t value)
{
	uint16_t *base, *current;

	if (reg < 8) {
		base = reg & 1 ? &c->base_count[reg >> 1] : &c->base_address[reg >> 1];
		current = reg & 1 ? &c->count[reg >> 1] : &c->address[reg >> 1];
		*base = c->high_next ? (*base & 0x00ff) | value << 8 : (*base & 0xff00) | value;
		*current = *base;
		c->high_next = !c->high_next;
		return;
	}
	switch (reg) {
	case REG_STATUS_COMMAND:
		c->command = value;
		break;
	case REG_REQUEST:
		set_bit(&c->request, value);
		break;
	case REG_MASK:
		set_bit(&c->mask, value);
		break;
	case REG_MODE:
		c->mode[value & 3] = value & 0xfc;
		break;
	case REG_CLEAR_FLIP:
		c->high_next = false;
		break;
	case REG_MASTER_CLEAR:
		master_clear(c);
		break;
	case REG_CLEAR_MASK:
		c->mask = 0;
		break;
	case REG_ALL_MASK:
		c->mask = value & 0x0f;
		break;
	}
}

static uint8_t chip_read(struct dma_chip *c, unsigned reg)
{
	uint16_t current;

	if (reg < 8) {
		current = reg & 1 ? c->count[reg >> 1] : c->address[reg >> 1];
		c->high_next = !c->high_next;
		return c->high_next ? current & 0xff : current >> 8;
	}
	if (reg == REG_STATUS_COMMAND)
		return c->request << 4;
	return reg == REG_ALL_MASK ? c->mask | 0xf0 : 0;
}

static uint64_t dma1_read(void *opaque, uint64_t offset, unsigned size)
{
	struct dma *d = opaque;

	return chip_read(&d->chip[0], offset);
}

static void dma1_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct dma *d = opaque;

	chip_write(&d->chip[0], offset, value);
}

/* The registers of the second are two ports apart. */
static uint64_t dma2_read(void *opaque, uint64_t offset, unsigned size)
{
	struct dma *d = opaque;

	return chip_read(&d->chip[1], offset >> 1);
}

static void dma2_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct dma *d = opaque;

	chip_write(&d->chip[1], offset >> 1, value);
}

/* Kernels write port 0x80 to waste time, from all vCPUs: no lock. */
static uint64_t page_read(void *opaque, uint64_t offset, unsigned size)
{
	struct dma *d = opaque;

	return __atomic_load_n(&d->page[offset], __ATOMIC_RELAXED);
}

static void page_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct dma *d = opaque;

	__atomic_store_n(&d->page[offset], value, __ATOMIC_RELAXED);
}

static void dma_reset(struct device *dev)
{
	struct dma *d = (struct dma *)dev;

	pthread_mutex_lock(&dev->lock);
	for (unsigned i = 0; i < 2; i++) {
		d->chip[i] = (struct dma_chip){ 0 };
		master_clear(&d->chip[i]);
	}
	memset(d->page, 0, sizeof(d->page));
	pthread_mutex_unlock(&dev->lock);
}

static void dma_unrealize(struct device *dev)
{
	struct dma *d = (struct dma *)dev;

	for (unsigned i = 0; i < 3; i++)
		bus_del(dev->machine->pio, &d->range[i]);
}

static int dma_realize(struct device *dev, struct err *err)
{
	static const struct io_ops first = { dma1_read, dma1_write, 1, 1 }, second = { dma2_read, dma2_write, 1, 1 };
	static const struct io_ops page = { page_read, page_write, 1, 1 };
	struct dma *d = (struct dma *)dev;
	int ret = 0;

	d->range[0] = (struct io_range){ "dma1", 0x00, 0x10, &first, d, &dev->lock, 0 };
	d->range[1] = (struct io_range){ "dma2", 0xc0, 0x20, &second, d, &dev->lock, 0 };
	d->range[2] = (struct io_range){ "dma pages", 0x80, 0x10, &page, d, NULL, 0 };
	for (unsigned i = 0; i < 3 && !ret; i++)
		ret = bus_add(dev->machine->pio, &d->range[i], err);
	if (ret)
		dma_unrealize(dev);
	return ret;
}

static const struct state_field chip_fields[] = {
	STATE_ARRAY_U16(struct dma_chip, address),
	STATE_ARRAY_U16(struct dma_chip, base_address),
	STATE_ARRAY_U16(struct dma_chip, count),
	STATE_ARRAY_U16(struct dma_chip, base_count),
	STATE_ARRAY_U8(struct dma_chip, mode),
	STATE_FIELD_U8(struct dma_chip, command),
	STATE_FIELD_U8(struct dma_chip, request),
	STATE_FIELD_U8(struct dma_chip, mask),
	STATE_FIELD_BOOL(struct dma_chip, high_next),
	STATE_END,
};
static const struct state_desc chip_state = { .name = "i8237", .version = 1, .fields = chip_fields };

static const struct state_field dma_fields[] = {
	STATE_ARRAY_STRUCT(struct dma, chip, &chip_state),
	STATE_FIELD_BYTES(struct dma, page),
	STATE_END,
};
static const struct state_desc dma_state = { .name = "i8257", .version = 1, .fields = dma_fields };

const struct device_class dma_class = {
	.name = "i8257",
	.description = "two 8237 DMA controllers and the POST port",
	.size = sizeof(struct dma),
	.realize = dma_realize,
	.unrealize = dma_unrealize,
	.reset = dma_reset,
	.state = &dma_state,
};
