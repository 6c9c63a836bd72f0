/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Devices in the fake machine, and a character back end for them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/classes.h"
#include "fake_machine.h"

struct device *fake_device(struct fake_machine *f, const char *cls, const char *id)
{
	struct err err = ERR_INIT;
	struct device *d = device_add(f->m, cls, id, &err, NULL);

	if (!d) {
		fprintf(stderr, "fake machine: %s: %s\n", cls, err_msg(&err));
		abort();
	}
	return d;
}

/* ---- The character back end ---------------------------------------------- */

static size_t chardev_write(struct chardev *chardev, const uint8_t *data, size_t len)
{
	struct fake_chardev *c = (struct fake_chardev *)chardev;

	if (len > c->room)
		len = c->room;
	if (c->room != SIZE_MAX)
		c->room -= len;
	c->writes++;
	if (c->len + len > sizeof(c->out)) /* keep the newest */
		c->len = 0;
	memcpy(c->out + c->len, data, len);
	c->len += len;
	return len;
}

static void chardev_accept(struct chardev *chardev)
{
	((struct fake_chardev *)chardev)->accepts++;
}

static void chardev_free(struct chardev *chardev)
{
}

void fake_chardev_init(struct fake_chardev *c)
{
	static const struct chardev_ops ops = { chardev_write, chardev_accept, chardev_free };

	memset(c, 0, sizeof(*c));
	c->chardev.ops = &ops;
	c->chardev.up = true;
	c->room = SIZE_MAX;
}

size_t fake_chardev_type(struct fake_chardev *c, const void *data, size_t len)
{
	size_t done = 0;

	while (done < len) {
		size_t n = c->chardev.front->can_receive(c->chardev.front_opaque);

		if (!n)
			break;
		if (n > len - done)
			n = len - done;
		c->chardev.front->receive(c->chardev.front_opaque, (const uint8_t *)data + done, n);
		done += n;
	}
	return done;
}
