/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/net_limit.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "util/loop.h"
#include "vmm/passt.h"
#include "vmm/tap.h"

#define SECOND 1000000000ull
#define LEAST_BURST (64u << 10) /* a frame as large as segmentation makes them */
#define KIB 1024u
#define MOST (1ull << 40)

/* When the debt of what was sent is paid; a frame may go while that is no more than `depth` away. */
struct bucket {
	uint64_t rate; /* 0: none */
	uint64_t depth, paid; /* ns */
};

struct shaper {
	pthread_mutex_t lock;
	unsigned users; /* queues */
	struct bucket average[2], peak[2];
};

struct limited {
	struct netdev base;
	struct netdev *inner;
	struct shaper *shaper;
	struct netdev *all[TAP_QUEUES]; /* of the first queue: base.queue */
	struct timer *timer[2];
	bool waits[2]; /* somebody was told to come back; the loop's thread */
};

static struct limited *limited_of(struct netdev *n)
{
	return (struct limited *)n;
}

/* ---- Buckets ------------------------------------------------------------------------ */

static uint64_t time_of(uint64_t bytes, uint64_t rate)
{
	return (uint64_t)((double)bytes * SECOND / rate);
}

static void bucket_set(struct bucket *b, uint64_t rate, uint64_t burst)
{
	b->rate = rate;
	b->depth = rate ? time_of(burst < LEAST_BURST ? LEAST_BURST : burst, rate) : 0;
	b->paid = 0;
}

/* 0: now; else when. */
static uint64_t bucket_when(const struct bucket *b, uint64_t now)
{
	return !b->rate || b->paid <= now + b->depth ? 0 : b->paid - b->depth;
}

static void bucket_take(struct bucket *b, uint64_t bytes, uint64_t now)
{
	if (b->rate)
		b->paid = (b->paid > now ? b->paid : now) + time_of(bytes, b->rate);
}

/* 0, and the frame is counted; or when it may come again. */
static uint64_t pass(struct shaper *s, enum net_direction d, uint64_t bytes)
{
	uint64_t now = monotonic_ns(), a, p;

	pthread_mutex_lock(&s->lock);
	a = bucket_when(&s->average[d], now);
	p = bucket_when(&s->peak[d], now);
	if (!a && !p) {
		bucket_take(&s->average[d], bytes, now);
		bucket_take(&s->peak[d], bytes, now);
	}
	pthread_mutex_unlock(&s->lock);
	return a > p ? a : p;
}

/* The back end did not take it after all. */
static void give_back(struct shaper *s, enum net_direction d, uint64_t bytes)
{
	struct bucket *both[] = { &s->average[d], &s->peak[d] };

	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < 2; i++)
		if (both[i]->rate)
			both[i]->paid -= time_of(bytes, both[i]->rate) < both[i]->paid ? time_of(bytes, both[i]->rate) : both[i]->paid;
	pthread_mutex_unlock(&s->lock);
}

static void shaper_set(struct shaper *s, enum net_direction d, const struct net_limit *l)
{
	pthread_mutex_lock(&s->lock);
	/* Without a burst, a tenth of a second's worth. */
	bucket_set(&s->average[d], l->average, l->burst ? l->burst : l->average / 10);
	bucket_set(&s->peak[d], l->peak, l->peak / 100);
	pthread_mutex_unlock(&s->lock);
}

/* ---- To the back end ------------------------------------------------------------------- */

static bool limited_send(struct netdev *n, const struct iovec *iov, int cnt, size_t len)
{
	struct limited *l = limited_of(n);
	uint64_t when = pass(l->shaper, NET_OUTBOUND, len);

	if (when) {
		l->waits[NET_OUTBOUND] = true;
		timer_arm(l->timer[NET_OUTBOUND], when);
		return false;
	}
	if (l->inner->ops->send(l->inner, iov, cnt, len))
		return true;
	give_back(l->shaper, NET_OUTBOUND, len);
	return false;
}

static void send_due(void *opaque)
{
	struct limited *l = opaque;

	if (!l->waits[NET_OUTBOUND])
		return;
	l->waits[NET_OUTBOUND] = false;
	if (l->base.front && l->base.front->writable)
		l->base.front->writable(l->base.front_opaque);
}

static void limited_rx_ready(struct netdev *n)
{
	struct limited *l = limited_of(n);

	/* While its turn has not come the guest's buffers are no help. */
	if (!l->waits[NET_INBOUND])
		l->inner->ops->rx_ready(l->inner);
}

static void limited_set_offload(struct netdev *n, unsigned flags)
{
	struct netdev *inner = limited_of(n)->inner;

	if (inner->ops->set_offload)
		inner->ops->set_offload(inner, flags);
}

static void limited_set_queues(struct netdev *n, unsigned pairs)
{
	struct netdev *inner = limited_of(n)->inner;

	if (inner->ops->set_queues)
		inner->ops->set_queues(inner, pairs);
}

/* ---- To the card ---------------------------------------------------------------------- */

static bool limited_receive(void *opaque, const struct iovec *iov, int n, size_t len)
{
	struct limited *l = opaque;
	uint64_t when;

	if (!l->base.front)
		return true; /* nobody there: dropped */
	when = pass(l->shaper, NET_INBOUND, len);
	if (when) {
		l->waits[NET_INBOUND] = true;
		timer_arm(l->timer[NET_INBOUND], when);
		return false;
	}
	if (l->base.front->receive(l->base.front_opaque, iov, n, len))
		return true;
	give_back(l->shaper, NET_INBOUND, len);
	return false;
}

static void receive_due(void *opaque)
{
	struct limited *l = opaque;

	if (!l->waits[NET_INBOUND])
		return;
	l->waits[NET_INBOUND] = false;
	l->inner->ops->rx_ready(l->inner);
}

static void limited_writable(void *opaque)
{
	struct limited *l = opaque;

	if (l->base.front && l->base.front->writable)
		l->base.front->writable(l->base.front_opaque);
}

static void limited_link(void *opaque, bool up)
{
	struct limited *l = opaque;

	l->base.up = up;
	if (l->base.front && l->base.front->link)
		l->base.front->link(l->base.front_opaque, up);
}

static const struct netdev_front limited_front = {
	.receive = limited_receive, .writable = limited_writable, .link = limited_link,
};

/* ---- Life ------------------------------------------------------------------------------- */

static unsigned queues_of(const struct netdev *n)
{
	return n->queues ? n->queues : 1;
}

static int make_timers(struct limited *l, struct loop *loop, struct err *err)
{
	l->timer[NET_OUTBOUND] = timer_new(loop, send_due, l);
	l->timer[NET_INBOUND] = timer_new(loop, receive_due, l);
	return l->timer[0] && l->timer[1] ? 0 : err_set(err, ENOMEM, "no memory for a network's limits");
}

static void free_timers(struct limited *l)
{
	timer_free(l->timer[0]);
	timer_free(l->timer[1]);
	l->timer[0] = l->timer[1] = NULL;
	l->waits[0] = l->waits[1] = false;
}

static void limited_detach(struct netdev *n)
{
	struct limited *l = limited_of(n);

	l->inner->ops->detach(l->inner);
	for (unsigned i = 0; i < queues_of(n); i++)
		free_timers(limited_of(l->all[i]));
}

static int limited_attach(struct netdev *n, struct loop *loop, struct err *err)
{
	struct limited *l = limited_of(n);
	int ret = l->inner->ops->attach(l->inner, loop, err);

	for (unsigned i = 0; !ret && i < queues_of(n); i++) {
		ret = make_timers(limited_of(l->all[i]), loop, err);
		if (ret)
			limited_detach(n);
	}
	return ret;
}

static void limited_free(struct netdev *n)
{
	struct limited *l = limited_of(n);
	unsigned count = queues_of(n);

	netdev_free(l->inner);
	pthread_mutex_destroy(&l->shaper->lock);
	free(l->shaper);
	/* This one, which lists the others, last. */
	while (count--) {
		struct limited *q = limited_of(l->all[count]);

		free_timers(q);
		free(q);
	}
}

static const struct netdev_ops limited_ops = {
	.send = limited_send, .rx_ready = limited_rx_ready, .set_offload = limited_set_offload,
	.set_queues = limited_set_queues, .free = limited_free,
};
static const struct netdev_ops limited_ops_attached = {
	.send = limited_send, .rx_ready = limited_rx_ready, .set_offload = limited_set_offload,
	.set_queues = limited_set_queues, .attach = limited_attach, .detach = limited_detach, .free = limited_free,
};

static struct limited *wrap(struct netdev *inner, struct shaper *s)
{
	struct limited *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->base = *inner; /* what it can and is */
	l->base.ops = inner->ops->attach ? &limited_ops_attached : &limited_ops;
	l->base.front = NULL;
	l->base.queue = NULL;
	l->inner = inner;
	l->shaper = s;
	return l;
}

struct netdev *net_limit_new(struct netdev *nd, struct loop *loop, const struct net_limit limits[2], struct err *err)
{
	struct shaper *s = calloc(1, sizeof(*s));
	struct limited *first = s ? wrap(nd, s) : NULL;
	unsigned n = queues_of(nd), made = 1;
	int ret = first && n <= TAP_QUEUES ? 0 : err_set(err, ENOMEM, "no memory for a network's limits");

	for (; !ret && made < n; made++)
		if (!(first->all[made] = (struct netdev *)wrap(nd->queue[made], s)))
			ret = err_set(err, ENOMEM, "no memory for a network's limits");
	if (!ret) {
		first->all[0] = &first->base;
		first->base.queue = nd->queues ? first->all : NULL;
		pthread_mutex_init(&s->lock, NULL);
		shaper_set(s, NET_INBOUND, &limits[NET_INBOUND]);
		shaper_set(s, NET_OUTBOUND, &limits[NET_OUTBOUND]);
	}
	for (unsigned i = 0; !ret && !nd->ops->attach && i < n; i++)
		ret = make_timers(limited_of(first->all[i]), nd->loop ? nd->loop : loop, err);
	if (ret) {
		for (unsigned i = 0; first && i < made; i++) {
			if (first->all[i])
				free_timers(limited_of(first->all[i]));
			if (i)
				free(first->all[i]);
		}
		free(first);
		free(s);
		netdev_free(nd);
		return NULL;
	}
	for (unsigned i = 0; i < n; i++) {
		struct netdev *inner = limited_of(first->all[i])->inner;

		inner->front_opaque = first->all[i];
		inner->front = &limited_front;
	}
	return &first->base;
}

void net_limit_set(struct netdev *nd, enum net_direction d, const struct net_limit *l)
{
	struct limited *first = limited_of(nd);

	shaper_set(first->shaper, d, l);
	for (unsigned i = 0; i < queues_of(nd); i++)
		if (limited_of(first->all[i])->timer[d])
			timer_arm(limited_of(first->all[i])->timer[d], 0);
}

/* ---- Texts --------------------------------------------------------------------------------- */

int net_limit_check(const struct net_limit *l, struct err *err)
{
	if (!l->average && (l->peak || l->burst))
		return err_set(err, EINVAL, "a limit needs an average before it can have a peak or a burst");
	if (l->peak && l->peak < l->average)
		return err_set(err, EINVAL, "a limit's peak must not be below its average");
	if (l->average > MOST || l->peak > MOST || l->burst > MOST)
		return err_set(err, EINVAL, "a limit is at most a TiB a second");
	return 0;
}

int net_limit_parse(const char *text, struct net_limit *l, struct err *err)
{
	uint64_t value[3] = { 0 };
	const char *at = text;
	char *end;

	for (unsigned i = 0; i < 3; i++) {
		errno = 0;
		value[i] = strtoull(at, &end, 10);
		if (!isdigit((unsigned char)*at) || errno || value[i] > MOST / KIB || (*end && (*end != ':' || i == 2)))
			return err_set(err, EINVAL, "'%.40s' is not of the form AVERAGE[:PEAK[:BURST]] in kilobytes", text);
		if (!*end)
			break;
		at = end + 1;
	}
	*l = (struct net_limit){ value[0] * KIB, value[1] * KIB, value[2] * KIB };
	return net_limit_check(l, err);
}
