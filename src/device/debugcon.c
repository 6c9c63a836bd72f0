/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Debug console: a port that prints what is written and reads as its own number, by which firmware finds it. */
#include "device/txbuf.h"

struct debugcon {
	struct device dev;
	uint32_t iobase, readback;
	struct chardev *chardev;
	struct txbuf tx;
	struct io_range range;
};

static uint64_t debugcon_read(void *opaque, uint64_t offset, unsigned size)
{
	struct debugcon *c = opaque;

	return c->readback;
}

static void debugcon_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct debugcon *c = opaque;

	txbuf_put(&c->tx, value);
}

static void debugcon_writable(void *opaque)
{
	struct debugcon *c = opaque;

	pthread_mutex_lock(&c->dev.lock);
	txbuf_writable(&c->tx);
	pthread_mutex_unlock(&c->dev.lock);
}

static size_t debugcon_can_receive(void *opaque)
{
	return SIZE_MAX; /* there is no way in: dropped */
}

static void debugcon_receive(void *opaque, const uint8_t *data, size_t len)
{
}

static void debugcon_stopped(struct device *d, bool stopped)
{
	struct debugcon *c = (struct debugcon *)d;

	pthread_mutex_lock(&d->lock);
	if (stopped)
		txbuf_flush(&c->tx);
	pthread_mutex_unlock(&d->lock);
}

static void debugcon_unrealize(struct device *d)
{
	struct debugcon *c = (struct debugcon *)d;

	bus_del(d->machine->pio, &c->range);
	if (c->chardev && c->chardev->front_opaque == c) {
		c->chardev->front = NULL;
		c->chardev->front_opaque = NULL;
	}
	txbuf_exit(&c->tx);
}

static int debugcon_realize(struct device *d, struct err *err)
{
	static const struct io_ops ops = { debugcon_read, debugcon_write, 1, 1 };
	static const struct chardev_front front = { debugcon_can_receive, debugcon_receive, debugcon_writable, NULL };
	struct debugcon *c = (struct debugcon *)d;
	int ret = txbuf_init(&c->tx, d, c->chardev, err);

	if (ret)
		return ret;
	c->range = (struct io_range){ d->id, c->iobase, 1, &ops, c, &d->lock, 0 };
	ret = bus_add(d->machine->pio, &c->range, err);
	if (ret) {
		debugcon_unrealize(d);
		return ret;
	}
	if (c->chardev) {
		c->chardev->front_opaque = c;
		c->chardev->front = &front;
	}
	return 0;
}

static const struct state_field debugcon_fields[] = {
	STATE_FIELD_STRUCT(struct debugcon, tx, &txbuf_state),
	STATE_END,
};
static const struct state_desc debugcon_state = { .name = "debugcon", .version = 1, .fields = debugcon_fields };

static const struct property debugcon_props[] = {
	PROP_DEF_U32(struct debugcon, iobase, "iobase", "0xe9", 0, 0xffff, "its port"),
	PROP_DEF_U32(struct debugcon, readback, "readback", "0xe9", 0, 0xff, "what reading the port gives"),
	PROP_DEF_PTR(struct debugcon, chardev, "chardev", "where the text goes"),
	{ 0 }
};

const struct device_class debugcon_class = {
	.name = "isa-debugcon",
	.description = "debug console",
	.size = sizeof(struct debugcon),
	.props = debugcon_props,
	.realize = debugcon_realize,
	.unrealize = debugcon_unrealize,
	.state = &debugcon_state,
	.stopped = debugcon_stopped,
};
