/* SPDX-License-Identifier: GPL-2.0-or-later */
/* pvpanic (QEMU docs/specs/pvpanic): a guest kernel says that it crashed, or that its crash kernel takes over. */
#include "machine/machine.h"

#define PVPANIC_PANICKED 0x01u
#define PVPANIC_CRASH_LOADED 0x02u
#define PVPANIC_EVENTS (PVPANIC_PANICKED | PVPANIC_CRASH_LOADED)

struct pvpanic {
	struct device dev;
	uint32_t iobase;
	uint8_t told; /* events since the reset: each is told once, however often the guest writes it */
	struct io_range range;
};

static uint64_t pvpanic_read(void *opaque, uint64_t offset, unsigned size)
{
	return PVPANIC_EVENTS;
}

static void pvpanic_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pvpanic *p = opaque;
	uint8_t events = value & PVPANIC_EVENTS & ~p->told;

	p->told |= events;
	if (events)
		machine_signal(p->dev.machine, MACHINE_PANICKED, events);
}

static void pvpanic_reset(struct device *d)
{
	struct pvpanic *p = (struct pvpanic *)d;

	pthread_mutex_lock(&d->lock);
	p->told = 0;
	pthread_mutex_unlock(&d->lock);
}

static void pvpanic_unrealize(struct device *d)
{
	struct pvpanic *p = (struct pvpanic *)d;

	bus_del(d->machine->pio, &p->range);
}

static int pvpanic_realize(struct device *d, struct err *err)
{
	static const struct io_ops ops = { pvpanic_read, pvpanic_write, 1, 1 };
	struct pvpanic *p = (struct pvpanic *)d;

	p->range = (struct io_range){ d->id, p->iobase, 1, &ops, p, &d->lock, 0 };
	return bus_add(d->machine->pio, &p->range, err);
}

static const struct state_field pvpanic_fields[] = {
	STATE_FIELD_LIMITED(STATE_U8, struct pvpanic, told, PVPANIC_EVENTS),
	STATE_END,
};
static const struct state_desc pvpanic_state = { .name = "pvpanic", .version = 1, .fields = pvpanic_fields };

static const struct property pvpanic_props[] = {
	PROP_DEF_U32(struct pvpanic, iobase, "iobase", "0x505", 0, 0xffff, "its port"),
	{ 0 }
};

const struct device_class pvpanic_class = {
	.name = "pvpanic",
	.description = "tells the host of guest crashes",
	.size = sizeof(struct pvpanic),
	.props = pvpanic_props,
	.realize = pvpanic_realize,
	.unrealize = pvpanic_unrealize,
	.reset = pvpanic_reset,
	.state = &pvpanic_state,
};
