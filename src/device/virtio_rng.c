/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-rng (Virtio 1.2 §5.4): one queue of buffers that the device fills
 * with random bytes. The shortest device there is, and the one to copy:
 *
 *  - the object: transport first, then the device's own;
 *  - a property table, a virtio_ops record, a state table, a class record;
 *  - kick() empties the queue as far as the device can go now, and asks for
 *    notifications before it decides that there is nothing left.
 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "device/virtio_pci.h"
#include "machine/clock.h"

/* A getrandom() call of at most this many bytes can't be interrupted by a signal once the pool is seeded
 * (getrandom(2)). */
#define CHUNK 256

struct virtio_rng {
	struct virtio_device v;
	struct virtqueue vq[1];
	struct virtq_elem elem;

	/* Properties: at most max_bytes in period milliseconds. The pool needs no protection; the host's CPU does. */
	uint64_t max_bytes;
	uint32_t period;

	uint64_t quota;        /* bytes left in this period */
	struct vtimer *refill; /* armed while the quota is not full */
};

struct virtio_rng_pci {
	struct virtio_pci proxy; /* begins with struct device */
	struct virtio_rng rng;
};

static struct virtio_rng *rng_of(struct virtio_device *v)
{
	return (struct virtio_rng *)v; /* v is the first member */
}

/* Fill the writable part of the buffer with up to `len` bytes; how many it got. */
static size_t fill(struct virtq_elem *e, size_t len)
{
	size_t done = 0;

	while (done < len) {
		uint8_t bytes[CHUNK];
		size_t want = len - done < sizeof(bytes) ? len - done : sizeof(bytes), put;

		/* It blocks only before the host's pool is seeded, at its boot: then an empty answer is better than a
		 * hang. */
		if (getrandom(bytes, want, GRND_NONBLOCK) != (ssize_t)want)
			break;
		/* Through a buffer of ours: the guest must not be able to swap pages below a system call. */
		put = iov_write(e->iov + e->nout, e->nin, done, bytes, want);
		done += put;
		if (put < want)
			break;
	}
	return done;
}

/*
 * Lock held; called only while the device may run. Buffers stay in the ring
 * while there is no quota for them, so that nothing is ever in flight: saving
 * and resetting need no thought.
 */
static void rng_kick(struct virtio_device *v, struct virtqueue *vq)
{
	struct virtio_rng *s = rng_of(v);

	do {
		virtq_ignore(vq);
		while (s->quota && virtq_pop(vq, &s->elem) > 0) {
			/* A buffer may be larger than what is left: a short answer is allowed (§5.4.6.2). */
			size_t len = s->elem.in_len < s->quota ? s->elem.in_len : s->quota;

			len = fill(&s->elem, len);
			virtq_push(vq, &s->elem, len);
			s->quota -= len;
			/* A buffer without writable bytes costs something, too: it may not hold the thread for ever. */
			if (!len)
				s->quota--;
		}
		if (!s->quota)
			break; /* the timer goes on */
		/* Asking for notifications and looking once more: a buffer that came in between rings no bell. */
	} while (virtq_wait(vq));
	virtio_notify(v, vq);
	if (s->quota < s->max_bytes && vtimer_deadline(s->refill) == VTIMER_NEVER)
		vtimer_arm(s->refill, vclock_now(v->dev->machine->clock) + s->period * 1000000ull);
}

/* Main loop's thread, without the lock. */
static void rng_refill(void *opaque)
{
	struct virtio_rng *s = opaque;
	struct device *d = s->v.dev;

	pthread_mutex_lock(&d->lock);
	s->quota = s->max_bytes;
	if (s->vq[0].enabled && virtio_may_run(&s->v))
		rng_kick(&s->v, &s->vq[0]);
	pthread_mutex_unlock(&d->lock);
}

/* The quota is the host's, not the guest's: a reset does not refill it. */
static const struct virtio_ops rng_ops = {
	.name = "virtio-rng",
	.id = VIRTIO_ID_RNG,
	.direct = true, /* a few microseconds of getrandom() */
	.kick = rng_kick,
};

static void rng_unrealize(struct device *d)
{
	struct virtio_rng *s = &((struct virtio_rng_pci *)d)->rng;

	virtio_pci_unrealize(d);
	virtio_exit(&s->v);
	virtq_elem_free(&s->elem);
	vtimer_free(s->refill);
}

static int rng_realize(struct device *d, struct err *err)
{
	struct virtio_rng_pci *o = (struct virtio_rng_pci *)d;
	struct virtio_rng *s = &o->rng;
	int ret;

	s->quota = s->max_bytes;
	s->vq[0].max = 64;
	s->refill = vtimer_new(d->machine->clock, rng_refill, s);
	if (!s->refill)
		return err_set(err, ENOMEM, "no memory for a timer");
	ret = virtio_init(&s->v, &rng_ops, d, s->vq, 1, d->machine->loop, err);
	if (!ret) {
		ret = virtio_pci_realize(&o->proxy, &s->v, 0x00ff00, err);
		if (ret)
			virtio_exit(&s->v);
	}
	/* A realize that fails leaves nothing behind: nobody calls unrealize. */
	if (ret)
		vtimer_free(s->refill);
	return ret;
}

static int rng_loaded(void *obj, struct err *err)
{
	struct virtio_rng *s = &((struct virtio_rng_pci *)obj)->rng;

	/* The other side may have been more generous. */
	if (s->quota > s->max_bytes)
		s->quota = s->max_bytes;
	return virtio_loaded(&s->v, err);
}

static const struct property rng_props[] = {
	VIRTIO_PCI_PROPS(struct virtio_rng_pci),
	PROP_DEF_U64(struct virtio_rng_pci, rng.max_bytes, "max-bytes", "64M", 1, 1ull << 40,
		     "bytes that the guest gets in a period"),
	PROP_DEF_U32(struct virtio_rng_pci, rng.period, "period", "1000", 1, 3600000, "the period in milliseconds"),
	{ 0 },
};

/* Everything the guest can change, or that changes with time. Properties are the owner's to set again. */
static const struct state_field rng_fields[] = {
	STATE_FIELD_STRUCT(struct virtio_rng_pci, proxy, &virtio_pci_state),
	STATE_FIELD_STRUCT(struct virtio_rng_pci, rng.v, &virtio_device_state),
	STATE_ARRAY_STRUCT(struct virtio_rng_pci, rng.vq, &virtq_state),
	STATE_FIELD_U64(struct virtio_rng_pci, rng.quota),
	STATE_FIELD_TIMER(struct virtio_rng_pci, rng.refill),
	STATE_END,
};
static const struct state_desc rng_state = {
	.name = "virtio-rng-pci", .version = 1, .fields = rng_fields, .post_load = rng_loaded,
};

const struct device_class virtio_rng_class = {
	.name = "virtio-rng-pci",
	.description = "random number generator (virtio)",
	.size = sizeof(struct virtio_rng_pci),
	.props = rng_props,
	.realize = rng_realize,
	.unrealize = rng_unrealize,
	.reset = virtio_pci_reset,
	.state = &rng_state,
	.stopped = virtio_pci_stopped,
};
