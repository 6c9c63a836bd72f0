/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "util/log.h"
#include "util/tap_host.h"

#define HEADER 12u             /* struct virtio_net_hdr_v1 */
#define FRAME_ROOM (HEADER + 65550u)
_Static_assert(TAP_QUEUES == TAP_HOST_QUEUES, "as many as can be opened");
#define BATCH 64               /* frames that one wake-up brings at most */

struct tap;
struct tap_queue {
	struct netdev base; /* first */
	struct tap *tap;
	int fd;
	struct loop_fd *watch;
	uint32_t events;
	bool off;           /* detached: the kernel steers nothing here */
	bool tx_stopped;    /* a send() was refused */
	size_t held;        /* length of the frame in rx that the guest had no buffer for */
	uint8_t rx[FRAME_ROOM];
};

struct tap {
	unsigned n;
	unsigned offload;
	struct netdev *list[TAP_QUEUES];
	struct tap_queue *queue[TAP_QUEUES];
};

static struct tap_queue *tap_queue(struct netdev *n)
{
	return (struct tap_queue *)n;
}

static void update_events(struct tap_queue *q)
{
	uint32_t want = (q->held || q->off ? 0 : EPOLLIN) | (q->tx_stopped ? EPOLLOUT : 0);

	if (q->watch && want != q->events) {
		q->events = want;
		loop_fd_events(q->watch, want);
	}
}

static bool deliver(struct tap_queue *q)
{
	struct iovec iov = { q->rx, q->held };

	if (q->base.front && !q->base.front->receive(q->base.front_opaque, &iov, 1, q->held))
		return false;
	q->held = 0;
	return true;
}

static void receive(struct tap_queue *q)
{
	for (int i = 0; i < BATCH && !q->off; i++) {
		ssize_t n = read(q->fd, q->rx, sizeof(q->rx));

		if (n <= 0)
			return; /* nothing there, or the interface is down: its coming up wakes us */
		q->held = n;
		if (!deliver(q))
			return;
	}
}

static void ready(void *opaque, uint32_t events)
{
	struct tap_queue *q = opaque;

	if (events & EPOLLOUT && q->tx_stopped) {
		q->tx_stopped = false;
		if (q->base.front && q->base.front->writable)
			q->base.front->writable(q->base.front_opaque);
	}
	if (events & EPOLLIN)
		receive(q);
	if (events & EPOLLERR && !(events & EPOLLIN)) {
		/* The interface was deleted: nothing comes any more, and epoll would tell of it for ever. */
		log_line(LOG_ERROR, "a tap interface of the host is gone: the guest's network card has lost its link");
		loop_fd_del(q->watch);
		q->watch = NULL;
		q->base.up = false;
		if (q->base.front && q->base.front->link)
			q->base.front->link(q->base.front_opaque, false);
		return;
	}
	update_events(q);
}

/* ---- What the card asks ------------------------------------------------------ */

static bool tap_send(struct netdev *n, const struct iovec *iov, int cnt, size_t len)
{
	struct tap_queue *q = tap_queue(n);
	ssize_t sent;

	do {
		sent = writev(q->fd, iov, cnt);
	} while (sent < 0 && errno == EINTR);
	if (sent >= 0 || errno != EAGAIN)
		return true; /* what the kernel does not like is dropped, as a wire would */
	q->tx_stopped = true;
	update_events(q);
	return false;
}

static void tap_rx_ready(struct netdev *n)
{
	struct tap_queue *q = tap_queue(n);

	if (q->held)
		deliver(q);
	update_events(q);
}

static unsigned tun_flags(unsigned flags)
{
	return (flags & NETDEV_CSUM ? TUN_F_CSUM : 0) | (flags & NETDEV_TSO4 ? TUN_F_TSO4 : 0) |
	       (flags & NETDEV_TSO6 ? TUN_F_TSO6 : 0) | (flags & NETDEV_ECN ? TUN_F_TSO_ECN : 0) |
	       (flags & NETDEV_UFO ? TUN_F_UFO : 0);
}

static void tap_set_offload(struct netdev *n, unsigned flags)
{
	/* One setting for the interface. A refusal leaves frames whole, which every guest can take. */
	if (n->vnet_hdr && ioctl(tap_queue(n)->fd, TUNSETOFFLOAD, tun_flags(flags)))
		log_line(LOG_WARN, "a tap interface refuses the guest's offloads: %s", strerror(errno));
}

/* Only queues that the driver uses may get frames (Virtio 1.2 §5.1.6.5.5). */
static void tap_set_queues(struct netdev *n, unsigned pairs)
{
	struct tap *t = tap_queue(n)->tap;

	for (unsigned i = 0; i < t->n && t->n > 1; i++) {
		struct tap_queue *q = t->queue[i];
		bool off = i >= pairs;
		struct ifreq r = { .ifr_flags = off ? IFF_DETACH_QUEUE : IFF_ATTACH_QUEUE };

		if (q->off == off)
			continue;
		if (ioctl(q->fd, TUNSETQUEUE, &r))
			continue; /* macvtap has no such thing: all queues stay */
		q->off = off;
		q->held = 0;
		update_events(q);
	}
}

static int tap_attach(struct netdev *n, struct loop *loop, struct err *err)
{
	struct tap *t = tap_queue(n)->tap;

	for (unsigned i = 0; i < t->n; i++) {
		struct tap_queue *q = t->queue[i];

		q->events = q->off ? 0 : EPOLLIN;
		q->watch = loop_fd_add(loop, q->fd, q->events, ready, q, err);
		if (!q->watch)
			return -err->code;
	}
	return 0;
}

static void tap_detach(struct netdev *n)
{
	struct tap *t = tap_queue(n)->tap;

	for (unsigned i = 0; i < t->n; i++) {
		struct tap_queue *q = t->queue[i];

		if (q->watch)
			loop_fd_del(q->watch);
		q->watch = NULL;
		q->tx_stopped = false;
		q->held = 0;
	}
	tap_set_queues(n, t->n);
}

static void tap_free(struct netdev *n)
{
	struct tap *t = tap_queue(n)->tap;

	for (unsigned i = 0; i < t->n; i++) {
		close(t->queue[i]->fd);
		free(t->queue[i]);
	}
	free(t);
}

static const struct netdev_ops tap_ops = {
	.send = tap_send,
	.rx_ready = tap_rx_ready,
	.set_offload = tap_set_offload,
	.set_queues = tap_set_queues,
	.attach = tap_attach,
	.detach = tap_detach,
	.free = tap_free,
};

/* ---- Opening ------------------------------------------------------------------ */

static int open_queues(struct tap_options *o, struct err *err)
{
	struct tap_host h = { .what = o->option ? o->option : "tap", .ifname = o->ifname, .bridge = o->bridge, .queues = o->queues };
	int ret = tap_host_open(&h, err);

	if (ret)
		return ret;
	o->fds = h.queues;
	memcpy(o->fd, h.fd, o->fds * sizeof(h.fd[0]));
	return 0;
}

/* One queue; `first` has the interface's properties. */
static int check_queue(struct tap *t, struct tap_queue *q, struct err *err)
{
	int header = HEADER, mtu;
	struct ifreq r = { 0 };

	if (ioctl(q->fd, TUNGETIFF, &r) || (r.ifr_flags & IFF_TUN) || !(r.ifr_flags & IFF_NO_PI))
		return err_set(err, EINVAL, "descriptor %d is no tap interface without packet information (IFF_TAP | IFF_NO_PI)",
			       q->fd);
	if (fcntl(q->fd, F_SETFL, fcntl(q->fd, F_GETFL) | O_NONBLOCK) || fcntl(q->fd, F_SETFD, FD_CLOEXEC))
		return err_set_errno(err, errno, "cannot use descriptor %d", q->fd);
	q->base.vnet_hdr = r.ifr_flags & IFF_VNET_HDR;
	if (q->base.vnet_hdr && ioctl(q->fd, TUNSETVNETHDRSZ, &header))
		return err_set_errno(err, errno, "a tap interface without headers of %u bytes", HEADER);
	if (q->base.vnet_hdr && !ioctl(q->fd, TUNSETOFFLOAD, tun_flags(NETDEV_CSUM | NETDEV_UFO)))
		q->base.ufo = true;
	if (q->base.vnet_hdr)
		ioctl(q->fd, TUNSETOFFLOAD, 0);
	if (t->n && t->queue[0]->base.vnet_hdr != q->base.vnet_hdr)
		return err_set(err, EINVAL, "the tap queues differ in whether they have virtio headers");
	mtu = tap_host_mtu(r.ifr_name);
	if (mtu > 0)
		q->base.mtu = mtu;
	return 0;
}

static int add_queue(struct tap *t, int fd, struct err *err)
{
	struct tap_queue *q = calloc(1, sizeof(*q));
	int ret;

	if (!q)
		return err_set(err, ENOMEM, "no memory for a network");
	q->tap = t;
	q->fd = fd;
	q->base.ops = &tap_ops;
	q->base.up = true;
	ret = check_queue(t, q, err);
	if (ret) {
		free(q);
		return ret;
	}
	t->list[t->n] = &q->base;
	t->queue[t->n++] = q;
	return 0;
}

void tap_options_close(struct tap_options *o)
{
	for (unsigned i = 0; i < o->fds; i++)
		if (o->fd[i] >= 0)
			close(o->fd[i]);
	o->fds = 0;
}

struct netdev *tap_open(struct loop *loop, struct tap_options *o, struct err *err)
{
	struct tap *t = calloc(1, sizeof(*t));
	int ret = t ? 0 : err_set(err, ENOMEM, "no memory for a network");

	if (!ret && !o->fds)
		ret = open_queues(o, err);
	for (unsigned i = 0; i < o->fds && !ret; i++) {
		ret = add_queue(t, o->fd[i], err);
		if (!ret)
			o->fd[i] = -1;
	}
	tap_options_close(o);
	if (ret) {
		if (t && t->n)
			tap_free(t->list[0]);
		else
			free(t);
		return NULL;
	}
	t->queue[0]->base.queue = t->list;
	t->queue[0]->base.queues = t->n;
	return t->list[0];
}
