/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Output of a device that gets it a byte at a time: bytes are collected and
 * handed to the back end in one piece. The first byte after a pause goes out at
 * once, what follows within a millisecond together, unless it becomes much; a
 * back end that takes no more is asked again when it says so.
 *
 * Every function but init and exit wants the owner's lock held.
 */
#pragma once
#include "machine/backend.h"
#include "machine/machine.h"

#define TXBUF_ROOM 1024u

struct txbuf {
	struct device *owner;
	struct chardev *out; /* NULL: everything is dropped */
	uint8_t *data;       /* TXBUF_ROOM */
	uint32_t len;
	bool blocked;        /* the back end took less than it was given */
	uint64_t flushed_at, flush_at;
	struct vtimer *timer;
};

int txbuf_init(struct txbuf *t, struct device *owner, struct chardev *out, struct err *err); /* -ENOMEM */
/* What the back end takes at once goes out, the rest is lost. A zeroed one may be passed. */
void txbuf_exit(struct txbuf *t);
void txbuf_put(struct txbuf *t, uint8_t byte); /* dropped if there is no room */
void txbuf_flush(struct txbuf *t);
/* The back end takes bytes again. */
void txbuf_writable(struct txbuf *t);
static inline unsigned txbuf_free(const struct txbuf *t)
{
	return TXBUF_ROOM - t->len;
}
extern const struct state_desc txbuf_state;
