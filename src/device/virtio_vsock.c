/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-vsock (Virtio 1.2 §5.10), whose host side are Unix sockets, in
 * Firecracker's form: whoever connects to PATH and says "CONNECT PORT\n" gets
 * "OK PORT\n" and is connected to that port of the guest; a guest that connects
 * to port P of the host (CID 2) gets whoever listens at PATH_P.
 *
 * One thread serves queues and sockets. `lock` guards queues and connections;
 * that thread never takes the device's lock. Nothing stays popped between two
 * callbacks, so nothing is ever in flight.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "device/virtio_pci.h"
#include "util/log.h"
#include "util/sockets.h"

#define CONNECTIONS 256
#define BUFFER 65536u      /* what a connection takes from the guest before its socket does */
#define RESETS 64          /* that wait for a buffer of the guest's */
#define HOST_CID 2
#define FIRST_PORT 0x40000000u /* of connections from the host */

enum { Q_RX, Q_TX, Q_EVENT, QUEUES };

struct __attribute__((packed)) vsock_header {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port, len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
};
_Static_assert(sizeof(struct vsock_header) == 44, "layout of Virtio 1.2 §5.10.6");
enum { OP_REQUEST = 1, OP_RESPONSE, OP_RST, OP_SHUTDOWN, OP_RW, OP_CREDIT_UPDATE, OP_CREDIT_REQUEST };
enum { SHUT_RECEIVE = 1, SHUT_SEND = 2 };
#define TYPE_STREAM 1
#define EVENT_TRANSPORT_RESET 0u

/* What the guest must still be told of a connection, in this order. */
enum { TELL_REQUEST = 1, TELL_RESPONSE = 2, TELL_CREDIT = 4, TELL_SHUTDOWN = 8, TELL_RST = 16 };

enum conn_state { CONN_HELLO, /* its client has not said which port */ CONN_WAITS, /* for the guest's answer */ CONN_OPEN };

struct virtio_vsock;

struct conn {
	struct virtio_vsock *vsock;
	int fd;
	struct loop_fd *watch;
	uint32_t events;
	enum conn_state state;
	uint32_t epoch;                 /* of the device: another one is over */
	uint32_t host_port, guest_port;
	uint32_t peer_alloc, peer_fwd;  /* the guest's buffer */
	uint32_t sent, forwarded, told; /* bytes to the guest; to the socket; of those the guest knows */
	uint8_t tell, guest_shut, host_shut;
	bool gone;                      /* the other end of the socket is closed; what it sent may still be there */
	bool starved;                   /* there may be bytes for the guest, but no buffer or credit */
	uint32_t at, used;              /* bytes in `buffer`, a ring */
	uint8_t buffer[BUFFER];
	struct conn *next;
};

struct virtio_vsock {
	struct virtio_pci proxy; /* begins with struct device */
	struct virtio_device v;
	struct virtqueue vq[QUEUES];
	struct {
		uint64_t guest_cid;
	} config;

	/* Properties */
	uint64_t cid;
	char *path;

	struct loop *loop;
	pthread_t thread;
	int listener;
	struct loop_fd *listen_watch;

	pthread_mutex_t lock; /* the rest, and vq[] */
	struct conn *conns;
	unsigned nconns;
	struct virtq_elem elem;
	uint32_t next_port;
	uint32_t epoch;       /* raised with each reset: connections of before are over */
	struct {
		uint32_t host_port, guest_port;
	} reset[RESETS];      /* refusals of what is no connection */
	unsigned nresets;
	bool tx_waits;        /* for room in that list */
	bool event_due;       /* connections did not survive a restored state */
};

static struct virtio_vsock *vsock_of(struct virtio_device *v)
{
	return (struct virtio_vsock *)((uint8_t *)v - offsetof(struct virtio_vsock, v));
}

/* ---- To the guest; lock held ----------------------------------------------------------- */

/* One packet. False: the guest has no buffer for it now. */
static bool put_packet(struct virtio_vsock *s, const struct vsock_header *h, const void *data)
{
	struct virtqueue *vq = &s->vq[Q_RX];
	struct virtq_elem *e = &s->elem;
	size_t n;
	int ret;

	ret = virtq_pop_or_wait(vq, e);
	if (ret <= 0)
		return false;
	n = iov_write(e->iov + e->nout, e->nin, 0, h, sizeof(*h));
	n += iov_write(e->iov + e->nout, e->nin, n, data, h->len);
	virtq_push(vq, e, n);
	return true;
}

static struct vsock_header header_for(const struct virtio_vsock *s, uint32_t host_port, uint32_t guest_port, uint16_t op)
{
	return (struct vsock_header){ .src_cid = HOST_CID, .dst_cid = s->cid, .src_port = host_port, .dst_port = guest_port,
				      .type = TYPE_STREAM, .op = op };
}

static bool tell_one(struct conn *c, uint16_t op, uint32_t flags)
{
	struct vsock_header h = header_for(c->vsock, c->host_port, c->guest_port, op);

	h.flags = flags;
	h.buf_alloc = BUFFER;
	h.fwd_cnt = c->forwarded;
	if (!put_packet(c->vsock, &h, NULL))
		return false;
	c->told = c->forwarded;
	return true;
}

static void conn_free(struct conn *c)
{
	struct virtio_vsock *s = c->vsock;
	struct conn **p = &s->conns;

	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	s->nconns--;
	loop_fd_del(c->watch);
	close(c->fd);
	free(c);
}

static uint32_t credit(const struct conn *c)
{
	uint32_t out = c->sent - c->peer_fwd;

	return c->peer_alloc > out ? c->peer_alloc - out : 0;
}

/* Its bytes as far as buffers and credit go. False: no buffer. */
static bool move_data(struct conn *c)
{
	struct vsock_header h = header_for(c->vsock, c->host_port, c->guest_port, OP_RW);
	struct virtqueue *vq = &c->vsock->vq[Q_RX];
	uint8_t data[16384];

	while (!(c->host_shut & SHUT_SEND) && !(c->guest_shut & SHUT_RECEIVE)) {
		uint32_t room = credit(c), space;
		ssize_t n;
		int ret;

		c->starved = !room;
		if (!room)
			return true;
		/* How much the next buffer takes is known when it is there. */
		ret = virtq_pop_or_wait(vq, &c->vsock->elem);
		if (ret <= 0) {
			c->starved = true;
			return false;
		}
		space = c->vsock->elem.in_len > sizeof(h) ? c->vsock->elem.in_len - sizeof(h) : 0;
		virtq_unpop(vq, &c->vsock->elem);
		room = room < space ? room : space;
		n = recv(c->fd, data, room < sizeof(data) ? room : sizeof(data), MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return true;
		if (n <= 0) {
			c->host_shut |= n || c->gone ? SHUT_SEND | SHUT_RECEIVE : SHUT_SEND;
			c->tell |= TELL_SHUTDOWN;
			return true;
		}
		h.len = n;
		h.buf_alloc = BUFFER;
		h.fwd_cnt = c->forwarded;
		put_packet(c->vsock, &h, data);
		c->told = c->forwarded;
		c->sent += n;
	}
	return true;
}

/* False: the guest has no buffer. *over: the connection has ended. */
static bool tell_guest(struct conn *c, bool *over)
{
	*over = false;
	while (c->tell) {
		unsigned what = c->tell & -c->tell;
		uint16_t op = what == TELL_REQUEST ? OP_REQUEST : what == TELL_RESPONSE ? OP_RESPONSE :
			      what == TELL_CREDIT ? OP_CREDIT_UPDATE : what == TELL_SHUTDOWN ? OP_SHUTDOWN : OP_RST;

		if (!tell_one(c, op, what == TELL_SHUTDOWN ? c->host_shut : 0))
			return false;
		c->tell &= ~what;
		if (what == TELL_RST) {
			*over = true;
			return true;
		}
	}
	return true;
}

static void watch_for(struct conn *c)
{
	uint32_t want = c->used ? EPOLLOUT : 0;

	if (c->state == CONN_HELLO || (c->state == CONN_OPEN && !c->starved && !(c->host_shut & SHUT_SEND) &&
				       !(c->guest_shut & SHUT_RECEIVE)))
		want |= EPOLLIN;
	if (c->watch && want != c->events) {
		c->events = want;
		loop_fd_events(c->watch, want);
	}
}

/* Everything that waits for buffers of the guest's. */
static void run_rx(struct virtio_vsock *s)
{
	struct conn *next;
	bool room = true;

	if (!s->vq[Q_RX].enabled || !virtio_may_run(&s->v))
		return;
	virtq_ignore(&s->vq[Q_RX]);
	while (s->nresets) {
		struct vsock_header h = header_for(s, s->reset[0].host_port, s->reset[0].guest_port, OP_RST);

		if (!put_packet(s, &h, NULL))
			break;
		memmove(s->reset, s->reset + 1, --s->nresets * sizeof(s->reset[0]));
	}
	for (struct conn *c = s->conns; c && room; c = next) {
		bool over = false;

		next = c->next;
		if (c->epoch != s->epoch || c->state == CONN_HELLO)
			continue;
		room = tell_guest(c, &over);
		if (room && !over && c->state == CONN_OPEN && c->starved) {
			c->starved = false;
			room = move_data(c) && tell_guest(c, &over);
		}
		if (over)
			conn_free(c);
		else
			watch_for(c);
	}
	virtio_notify(&s->v, &s->vq[Q_RX]);
}

/* ---- To the host; lock held -------------------------------------------------------------- */

/* Bytes of the buffer to the socket. */
static void flush(struct conn *c)
{
	while (c->used) {
		uint32_t part = BUFFER - c->at < c->used ? BUFFER - c->at : c->used;
		ssize_t n = send(c->fd, c->buffer + c->at, part, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) { /* nobody takes it any more */
			n = c->used;
			c->host_shut |= SHUT_RECEIVE | SHUT_SEND;
			c->tell |= TELL_SHUTDOWN;
		}
		c->at = (c->at + n) % BUFFER;
		c->used -= n;
		c->forwarded += n;
	}
	if (c->forwarded - c->told >= BUFFER / 4)
		c->tell |= TELL_CREDIT;
	if (c->used)
		return;
	if (c->guest_shut & SHUT_SEND)
		shutdown(c->fd, SHUT_WR);
	if (c->guest_shut == (SHUT_SEND | SHUT_RECEIVE))
		c->tell |= TELL_RST; /* clean: both sides are done */
}

static struct conn *find_conn(struct virtio_vsock *s, uint32_t host_port, uint32_t guest_port)
{
	for (struct conn *c = s->conns; c; c = c->next)
		if (c->epoch == s->epoch && c->state != CONN_HELLO && c->host_port == host_port && c->guest_port == guest_port)
			return c;
	return NULL;
}

static void conn_ready(void *opaque, uint32_t events);

static struct conn *conn_new(struct virtio_vsock *s, int fd, enum conn_state state)
{
	struct conn *c = s->nconns < CONNECTIONS ? calloc(1, sizeof(*c)) : NULL;

	if (!c) {
		close(fd);
		return NULL;
	}
	c->vsock = s;
	c->fd = fd;
	c->state = state;
	c->epoch = s->epoch;
	c->events = EPOLLIN;
	c->watch = loop_fd_add(s->loop, fd, EPOLLIN, conn_ready, c, NULL);
	if (!c->watch) {
		close(fd);
		free(c);
		return NULL;
	}
	c->next = s->conns;
	s->conns = c;
	s->nconns++;
	return c;
}

static void refuse(struct virtio_vsock *s, const struct vsock_header *h)
{
	/* run_tx() leaves room. */
	s->reset[s->nresets].host_port = h->dst_port;
	s->reset[s->nresets++].guest_port = h->src_port;
}

/* The guest connects: to whoever listens at PATH_PORT. */
static void guest_connects(struct virtio_vsock *s, const struct vsock_header *h)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct conn *c = NULL;

	if (fd >= 0 && snprintf(a.sun_path, sizeof(a.sun_path), "%s_%u", s->path, h->dst_port) < (int)sizeof(a.sun_path) &&
	    !connect(fd, (struct sockaddr *)&a, sizeof(a)))
		c = conn_new(s, fd, CONN_OPEN);
	else if (fd >= 0)
		close(fd);
	if (!c) {
		refuse(s, h);
		return;
	}
	c->host_port = h->dst_port;
	c->guest_port = h->src_port;
	c->tell = TELL_RESPONSE;
}

static void guest_answers(struct conn *c)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "OK %u\n", c->host_port);

	if (c->state != CONN_WAITS)
		return;
	c->state = CONN_OPEN;
	if (send(c->fd, text, n, MSG_DONTWAIT | MSG_NOSIGNAL) != n)
		c->tell |= TELL_RST;
}

/* A packet's bytes go behind what waits. False: more than the guest was allowed. */
static bool take_data(struct conn *c, const struct virtq_elem *e, uint32_t len)
{
	uint32_t at = (c->at + c->used) % BUFFER, first;

	if (len > BUFFER - c->used)
		return false;
	first = BUFFER - at < len ? BUFFER - at : len;
	iov_read(e->iov, e->nout, sizeof(struct vsock_header), c->buffer + at, first);
	iov_read(e->iov, e->nout, sizeof(struct vsock_header) + first, c->buffer, len - first);
	c->used += len;
	return true;
}

static void handle_packet(struct virtio_vsock *s, const struct vsock_header *h, const struct virtq_elem *e)
{
	struct conn *c = find_conn(s, h->dst_port, h->src_port);

	if (h->src_cid != s->cid || h->dst_cid != HOST_CID || h->type != TYPE_STREAM || (!c && h->op != OP_REQUEST)) {
		if (h->op != OP_RST)
			refuse(s, h);
		return;
	}
	if (!c) {
		guest_connects(s, h);
		c = find_conn(s, h->dst_port, h->src_port);
		if (!c)
			return;
	} else if (h->op == OP_REQUEST) {
		c->tell |= TELL_RST;
	}
	c->peer_alloc = h->buf_alloc;
	c->peer_fwd = h->fwd_cnt;
	c->starved = true; /* there may be credit now */
	switch (h->op) {
	case OP_RESPONSE:
		guest_answers(c);
		break;
	case OP_RST:
		conn_free(c);
		return;
	case OP_SHUTDOWN:
		c->guest_shut |= h->flags & (SHUT_SEND | SHUT_RECEIVE);
		break;
	case OP_RW:
		if (h->len > e->out_len - sizeof(*h) || c->state != CONN_OPEN || !take_data(c, e, h->len))
			c->tell |= TELL_RST;
		break;
	case OP_CREDIT_REQUEST:
		c->tell |= TELL_CREDIT;
		break;
	}
	flush(c);
	watch_for(c);
}

static void run_tx(struct virtio_vsock *s)
{
	struct virtqueue *vq = &s->vq[Q_TX];
	struct virtq_elem e = { 0 };

	if (!vq->enabled || !virtio_may_run(&s->v))
		return;
	do {
		virtq_ignore(vq);
		while ((s->tx_waits = s->nresets >= RESETS - 1, !s->tx_waits) && virtq_pop(vq, &e) > 0) {
			struct vsock_header h;

			if (iov_read(e.iov, e.nout, 0, &h, sizeof(h)) == sizeof(h))
				handle_packet(s, &h, &e);
			virtq_fill(vq, &e, 0);
		}
		virtq_flush(vq);
	} while (!s->tx_waits && virtq_wait(vq));
	virtio_notify(&s->v, vq);
	virtq_elem_free(&e);
	run_rx(s);
}

static void run_event(struct virtio_vsock *s)
{
	struct virtqueue *vq = &s->vq[Q_EVENT];
	uint32_t event = EVENT_TRANSPORT_RESET;
	int ret;

	if (!s->event_due || !vq->enabled || !virtio_may_run(&s->v))
		return;
	ret = virtq_pop_or_wait(vq, &s->elem);
	if (ret <= 0)
		return;
	virtq_push(vq, &s->elem, iov_write(s->elem.iov + s->elem.nout, s->elem.nin, 0, &event, sizeof(event)));
	virtio_notify(&s->v, vq);
	s->event_due = false;
}

/* ---- Sockets; the I/O thread ------------------------------------------------------------------ */

/* "CONNECT PORT\n" and not a byte more. 1: done, 0: not all there, -1: something else. */
static int read_hello(struct conn *c)
{
	char text[32], *end;
	ssize_t n = recv(c->fd, text, sizeof(text) - 1, MSG_PEEK | MSG_DONTWAIT);
	unsigned long port;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return -1;
	text[n] = 0;
	end = strchr(text, '\n');
	if (!end)
		return n == sizeof(text) - 1 ? -1 : 0;
	if (recv(c->fd, text, end - text + 1, MSG_DONTWAIT) != end - text + 1 || strncmp(text, "CONNECT ", 8) || text[8] < '0' ||
	    text[8] > '9')
		return -1;
	port = strtoul(text + 8, &end, 10);
	if (*end != '\n' || port > UINT32_MAX - 1)
		return -1;
	c->guest_port = port;
	return 1;
}

static void greet(struct conn *c)
{
	struct virtio_vsock *s = c->vsock;
	int ret = read_hello(c);

	if (ret < 0 || (ret && !virtio_may_run(&s->v))) {
		conn_free(c); /* or nobody is there to connect to */
		return;
	}
	if (!ret)
		return;
	do {
		c->host_port = s->next_port++;
		if (s->next_port < FIRST_PORT)
			s->next_port = FIRST_PORT;
	} while (find_conn(s, c->host_port, c->guest_port));
	c->state = CONN_WAITS;
	c->tell = TELL_REQUEST;
	watch_for(c);
	run_rx(s);
}

/* Nobody takes bytes any more; what was sent before is still to be read. */
static void hung_up(struct conn *c)
{
	c->gone = c->starved = true;
	if (c->state != CONN_OPEN) {
		c->tell |= TELL_RST;
	} else if (c->host_shut & SHUT_SEND || c->guest_shut & SHUT_RECEIVE) {
		c->host_shut |= SHUT_SEND | SHUT_RECEIVE;
		c->tell |= TELL_SHUTDOWN;
	}
}

static void conn_ready(void *opaque, uint32_t events)
{
	struct conn *c = opaque;
	struct virtio_vsock *s = c->vsock;

	pthread_mutex_lock(&s->lock);
	if (c->epoch != s->epoch) {
		conn_free(c);
	} else if (c->state == CONN_HELLO) {
		greet(c);
	} else {
		if (events & (EPOLLHUP | EPOLLERR)) {
			loop_fd_del(c->watch);
			c->watch = NULL;
			hung_up(c);
		}
		if (events & EPOLLOUT)
			flush(c);
		c->starved |= events & EPOLLIN && c->state == CONN_OPEN;
		watch_for(c);
		run_rx(s);
	}
	pthread_mutex_unlock(&s->lock);
}

static void client_comes(void *opaque, uint32_t events)
{
	struct virtio_vsock *s = opaque;
	int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	pthread_mutex_lock(&s->lock);
	conn_new(s, fd, CONN_HELLO);
	pthread_mutex_unlock(&s->lock);
}

/* After a reset: connections of before it. */
static void drop_old(void *arg)
{
	struct virtio_vsock *s = arg;
	struct conn *next;

	pthread_mutex_lock(&s->lock);
	for (struct conn *c = s->conns; c; c = next) {
		next = c->next;
		if (c->epoch != s->epoch)
			conn_free(c);
	}
	pthread_mutex_unlock(&s->lock);
}

/* ---- Device -------------------------------------------------------------------------------------- */

static void vsock_kick(struct virtio_device *v, struct virtqueue *vq)
{
	struct virtio_vsock *s = vsock_of(v);

	pthread_mutex_lock(&s->lock);
	if (vq->index == Q_RX) {
		run_rx(s);
		if (s->tx_waits)
			run_tx(s);
	} else if (vq->index == Q_TX) {
		run_tx(s);
	} else {
		run_event(s);
	}
	pthread_mutex_unlock(&s->lock);
}

static void vsock_queue_off(struct virtio_device *v, struct virtqueue *vq)
{
	struct virtio_vsock *s = vsock_of(v);

	pthread_mutex_lock(&s->lock);
	vq->enabled = false;
	pthread_mutex_unlock(&s->lock);
}

static void vsock_reset(struct virtio_device *v)
{
	struct virtio_vsock *s = vsock_of(v);

	pthread_mutex_lock(&s->lock);
	s->epoch++;
	s->nresets = 0;
	s->event_due = s->tx_waits = false;
	/* Without memory for the call they go when their sockets say something. */
	if (s->conns)
		loop_post(s->loop, drop_old, s);
	pthread_mutex_unlock(&s->lock);
}

static void vsock_stopped(struct virtio_device *v, bool stopped)
{
	struct virtio_vsock *s = vsock_of(v);

	/* Once around: who was inside is out, and who comes sees v->stopped. The kicks that follow find what waits. */
	pthread_mutex_lock(&s->lock);
	pthread_mutex_unlock(&s->lock);
}

static const struct virtio_ops vsock_ops = {
	.name = "virtio-vsock",
	.id = VIRTIO_ID_VSOCK,
	.own_lock = true,
	.kick = vsock_kick,
	.queue_off = vsock_queue_off,
	.reset = vsock_reset,
	.stopped = vsock_stopped,
};

static void vsock_destroy(struct virtio_vsock *s)
{
	while (s->conns)
		conn_free(s->conns);
	if (s->listener >= 0) {
		close(s->listener);
		unlink(s->path);
	}
	virtio_exit(&s->v);
	loop_free(s->loop);
	virtq_elem_free(&s->elem);
	pthread_mutex_destroy(&s->lock);
}

static int vsock_realize(struct device *d, struct err *err)
{
	struct virtio_vsock *s = (struct virtio_vsock *)d;
	int ret = 0;

	if (s->cid < 3 || s->cid >= UINT32_MAX)
		return err_set(err, EINVAL, "guest-cid must be 3 to 4294967294, not %llu", (unsigned long long)s->cid);
	if (!s->path || strlen(s->path) > 90)
		return err_set(err, EINVAL, "property socket is missing or longer than 90 characters: the path of the host's side");
	pthread_mutex_init(&s->lock, NULL);
	s->config.guest_cid = s->cid;
	s->v.config = (uint8_t *)&s->config;
	s->v.config_size = sizeof(s->config);
	s->v.queue_lock = &s->lock;
	s->next_port = FIRST_PORT;
	for (unsigned i = 0; i < QUEUES; i++)
		s->vq[i].max = i == Q_EVENT ? 16 : 128;
	s->listener = unix_listen(s->path, "socket", err);
	if (s->listener < 0)
		ret = s->listener;
	s->loop = ret ? NULL : loop_new(err);
	if (!ret)
		ret = s->loop ? virtio_init(&s->v, &vsock_ops, d, s->vq, QUEUES, s->loop, err) : -ENOMEM;
	if (!ret) {
		s->listen_watch = loop_fd_add(s->loop, s->listener, EPOLLIN, client_comes, s, err);
		ret = s->listen_watch ? virtio_pci_realize(&s->proxy, &s->v, 0x028000, err) : -ENOMEM;
	}
	if (!ret) {
		ret = virtio_thread_start(&s->v, "vs", &s->thread, err);
		if (!ret)
			return 0;
		virtio_pci_unrealize(d);
	}
	vsock_destroy(s);
	return ret;
}

static void vsock_unrealize(struct device *d)
{
	struct virtio_vsock *s = (struct virtio_vsock *)d;

	virtio_pci_unrealize(d);
	virtio_thread_end(&s->v, s->thread);
	vsock_destroy(s);
}

static int vsock_loaded(void *obj, struct err *err)
{
	struct virtio_vsock *s = obj;

	pthread_mutex_lock(&s->lock);
	s->epoch++;
	s->nresets = 0;
	s->tx_waits = false;
	s->event_due = true; /* the other side's sockets did not come along */
	pthread_mutex_unlock(&s->lock);
	return virtio_loaded(&s->v, err);
}

static const struct property vsock_props[] = {
	VIRTIO_PCI_PROPS(struct virtio_vsock),
	PROP_DEF_U64(struct virtio_vsock, cid, "guest-cid", "0", 0, 0, "the guest's address, 3 to 4294967294"),
	PROP_DEF_STRING(struct virtio_vsock, path, "socket", NULL, "path of the host's side; PATH_PORT is where guests connect to"),
	{ 0 },
};

/* Connections are the host's sockets, and stay here: the guest is told. */
static const struct state_field vsock_fields[] = {
	STATE_FIELD_STRUCT(struct virtio_vsock, proxy, &virtio_pci_state),
	STATE_FIELD_STRUCT(struct virtio_vsock, v, &virtio_device_state),
	STATE_ARRAY_STRUCT(struct virtio_vsock, vq, &virtq_state),
	STATE_END,
};
static const struct state_desc vsock_state = {
	.name = "virtio-vsock-pci", .version = 1, .fields = vsock_fields, .post_load = vsock_loaded,
};

const struct device_class virtio_vsock_class = {
	.name = "virtio-vsock-pci",
	.description = "sockets between host and guest (virtio)",
	.size = sizeof(struct virtio_vsock),
	.props = vsock_props,
	.realize = vsock_realize,
	.unrealize = vsock_unrealize,
	.reset = virtio_pci_reset,
	.state = &vsock_state,
	.stopped = virtio_pci_stopped,
};
