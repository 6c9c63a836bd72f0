/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Debug exit: writing a number to the port ends the machine with it. */
#include "machine/machine.h"

struct debug_exit {
	struct device dev;
	uint32_t iobase;
	struct io_range range;
};

static uint64_t debug_exit_read(void *opaque, uint64_t offset, unsigned size)
{
	return 0;
}

static void debug_exit_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct debug_exit *e = opaque;

	machine_signal(e->dev.machine, MACHINE_DEBUG_EXIT, value);
}

static void debug_exit_unrealize(struct device *d)
{
	struct debug_exit *e = (struct debug_exit *)d;

	bus_del(d->machine->pio, &e->range);
}

static int debug_exit_realize(struct device *d, struct err *err)
{
	static const struct io_ops ops = { debug_exit_read, debug_exit_write, 1, 4 };
	struct debug_exit *e = (struct debug_exit *)d;

	e->range = (struct io_range){ d->id, e->iobase, 4, &ops, e, NULL, 0 };
	return bus_add(d->machine->pio, &e->range, err);
}

static const struct property debug_exit_props[] = {
	PROP_DEF_U32(struct debug_exit, iobase, "iobase", "0xf4", 0, 0xfffc, "first of its four ports"),
	{ 0 }
};

const struct device_class debug_exit_class = {
	.name = "isa-debug-exit",
	.description = "port that ends the machine",
	.size = sizeof(struct debug_exit),
	.props = debug_exit_props,
	.realize = debug_exit_realize,
	.unrealize = debug_exit_unrealize,
	/* It keeps nothing. */
};
