/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/txbuf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define GATHER_NS 1000000u
#define ENOUGH (TXBUF_ROOM / 2) /* goes out without waiting, so that the guest need not wait either */

void txbuf_flush(struct txbuf *t)
{
	size_t n = t->len;

	if (t->out && n)
		n = t->out->ops->write(t->out, t->data, n);
	t->blocked = n < t->len;
	t->len -= n;
	memmove(t->data, t->data + n, t->len);
	t->flushed_at = vclock_now(t->owner->machine->clock);
	if (t->flush_at != VTIMER_NEVER) {
		t->flush_at = VTIMER_NEVER;
		vtimer_cancel(t->timer);
	}
}

static void gathered(void *opaque)
{
	struct txbuf *t = opaque;

	pthread_mutex_lock(&t->owner->lock);
	if (vclock_now(t->owner->machine->clock) >= t->flush_at)
		txbuf_flush(t);
	pthread_mutex_unlock(&t->owner->lock);
}

void txbuf_put(struct txbuf *t, uint8_t byte)
{
	uint64_t now;

	if (!t->out || t->len == TXBUF_ROOM)
		return;
	t->data[t->len++] = byte;
	if (t->blocked || (t->flush_at != VTIMER_NEVER && t->len < ENOUGH))
		return;
	now = vclock_now(t->owner->machine->clock);
	if (t->len >= ENOUGH || now - t->flushed_at >= GATHER_NS) {
		txbuf_flush(t);
	} else {
		t->flush_at = t->flushed_at + GATHER_NS;
		vtimer_arm(t->timer, t->flush_at);
	}
}

void txbuf_writable(struct txbuf *t)
{
	if (t->blocked)
		txbuf_flush(t);
}

int txbuf_init(struct txbuf *t, struct device *owner, struct chardev *out, struct err *err)
{
	t->owner = owner;
	t->out = out;
	t->flush_at = VTIMER_NEVER;
	t->data = malloc(TXBUF_ROOM);
	t->timer = vtimer_new(owner->machine->clock, gathered, t);
	if (t->data && t->timer)
		return 0;
	txbuf_exit(t);
	return err_set(err, ENOMEM, "no memory for its output");
}

void txbuf_exit(struct txbuf *t)
{
	if (t->data && t->timer)
		txbuf_flush(t);
	vtimer_free(t->timer);
	free(t->data);
	t->data = NULL;
	t->timer = NULL;
	t->len = 0;
}

static int txbuf_post_load(void *obj, struct err *err)
{
	struct txbuf *t = obj;

	t->blocked = false;
	t->flush_at = t->len ? vclock_now(t->owner->machine->clock) : VTIMER_NEVER;
	vtimer_arm(t->timer, t->flush_at);
	return 0;
}

static const struct state_field txbuf_fields[] = {
	{ .name = "data", .type = STATE_VAR_U8, .since = 1, .offset = offsetof(struct txbuf, data), .count = 1,
	  .size = TXBUF_ROOM, .len_offset = offsetof(struct txbuf, len) },
	STATE_END,
};
const struct state_desc txbuf_state = {
	.name = "output", .version = 1, .fields = txbuf_fields, .post_load = txbuf_post_load
};
