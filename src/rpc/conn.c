/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_SIZE 65536u

struct rpc_out {
	struct rpc_out *next;
	uint8_t *data;
	size_t len, sent;
	unsigned nfds, fds_sent;
	int fds[];
};

void rpc_conn_init(struct rpc_conn *c, int fd)
{
	*c = (struct rpc_conn){ .fd = fd };
	c->out_end = &c->out;
}

static void change_layer(struct rpc_conn *c)
{
	if (!c->next_layer || c->out)
		return;
	if (c->layer)
		c->layer->ops->free(c->layer);
	c->layer = c->next_layer;
	c->next_layer = NULL;
}

void rpc_conn_set_layer(struct rpc_conn *c, struct rpc_layer *layer)
{
	if (c->next_layer)
		c->next_layer->ops->free(c->next_layer);
	c->next_layer = layer;
	change_layer(c);
}

bool rpc_conn_has_more(const struct rpc_conn *c)
{
	return c->held || (c->layer && c->layer->ops->pending(c->layer));
}

static void close_fds(const int *fds, unsigned n)
{
	while (n--)
		if (fds[n] >= 0)
			close(fds[n]);
}

static void drop_out(struct rpc_conn *c)
{
	struct rpc_out *o = c->out;

	c->out = o->next;
	if (!c->out)
		c->out_end = &c->out;
	c->out_bytes -= o->len;
	close_fds(o->fds, o->nfds);
	free(o->data);
	free(o);
}

void rpc_conn_close(struct rpc_conn *c)
{
	if (c->layer)
		c->layer->ops->free(c->layer);
	if (c->next_layer)
		c->next_layer->ops->free(c->next_layer);
	c->layer = c->next_layer = NULL;
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	rpc_frame_free(&c->frame);
	close_fds(c->in_fds, c->in_nfds);
	c->in_nfds = 0;
	free(c->held);
	c->held = NULL;
	c->held_len = 0;
	while (c->out)
		drop_out(c);
}

static int deliver(struct rpc_conn *c, rpc_packet_fn fn, void *opaque)
{
	struct rpc_frame *f = &c->frame;
	struct rpc_packet p = {
		.header = f->header,
		.payload = f->payload,
		.payload_len = f->payload_len,
		.fds = c->in_fds,
		.nfds = f->nfds,
	};
	int ret;

	/* The bytes were there, but not every one carried a descriptor. */
	if (c->in_nfds < f->nfds)
		return -EPROTO;
	ret = fn(opaque, &p);
	if (c->fd < 0)
		return ret < 0 ? ret : -EPIPE;
	close_fds(c->in_fds, p.nfds);
	c->in_nfds -= p.nfds;
	memmove(c->in_fds, c->in_fds + p.nfds, c->in_nfds * sizeof(int));
	rpc_frame_next(f);
	return ret;
}

static int hold(struct rpc_conn *c, const uint8_t *data, size_t len)
{
	if (!len)
		return 0;
	c->held = malloc(len);
	if (!c->held)
		return -ENOMEM;
	memcpy(c->held, data, len);
	c->held_len = len;
	return 0;
}

static int feed(struct rpc_conn *c, const uint8_t *data, size_t len, rpc_packet_fn fn, void *opaque)
{
	while (len) {
		size_t used;
		enum rpc_frame_result r = rpc_frame_feed(&c->frame, data, len, &used);
		int ret = 0;

		data += used;
		len -= used;
		if (r == RPC_FRAME_BAD)
			return -EPROTO;
		if (r == RPC_FRAME_NO_MEMORY)
			return -ENOMEM;
		if (r == RPC_FRAME_PACKET)
			ret = deliver(c, fn, opaque);
		if (ret < 0)
			return ret;
		if (ret == RPC_CONN_PAUSE) {
			ret = hold(c, data, len);
			return ret ? ret : RPC_CONN_PAUSE;
		}
	}
	/* The kernel ends a read behind a descriptor, so here only a packet that awaits more may own some. */
	if (c->in_nfds && !rpc_frame_wants_fds(&c->frame))
		return -EPROTO;
	return 0;
}

int rpc_conn_unhold(struct rpc_conn *c, rpc_packet_fn fn, void *opaque)
{
	uint8_t *data = c->held;
	int ret;

	if (!data)
		return 0;
	c->held = NULL;
	ret = feed(c, data, c->held_len, fn, opaque);
	free(data);
	return ret;
}

static int take_fds(struct rpc_conn *c, struct msghdr *m)
{
	int ret = m->msg_flags & MSG_CTRUNC ? -EPROTO : 0;

	for (struct cmsghdr *cm = CMSG_FIRSTHDR(m); cm; cm = CMSG_NXTHDR(m, cm)) {
		int fds[RPC_FDS_MAX];
		unsigned n;

		if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
			continue;
		n = (unsigned)((cm->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(cm), n * sizeof(int));
		if (ret || n > RPC_FDS_MAX - c->in_nfds) {
			close_fds(fds, n);
			ret = -EPROTO;
			continue;
		}
		memcpy(c->in_fds + c->in_nfds, fds, n * sizeof(int));
		c->in_nfds += n;
	}
	return ret;
}

static ssize_t read_socket(struct rpc_conn *c, void *data, size_t len)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(RPC_FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov = { .iov_base = data, .iov_len = len };
	struct msghdr m = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.space,
		.msg_controllen = sizeof(control.space),
	};
	ssize_t n;
	int ret;

	do
		n = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	ret = take_fds(c, &m);
	return ret ? ret : n;
}

int rpc_conn_read(struct rpc_conn *c, rpc_packet_fn fn, void *opaque)
{
	uint8_t data[READ_SIZE];
	int ret = rpc_conn_unhold(c, fn, opaque);
	ssize_t n;

	if (ret)
		return ret;
	n = c->layer ? c->layer->ops->recv(c->layer, data, sizeof(data)) : read_socket(c, data, sizeof(data));
	if (n < 0)
		return (int)n;
	if (!n)
		return -EPIPE;
	return feed(c, data, (size_t)n, fn, opaque);
}

int rpc_conn_send(struct rpc_conn *c, struct xdr_writer *w, const int *fds, unsigned nfds)
{
	struct rpc_out *o = calloc(1, sizeof(*o) + nfds * sizeof(int));
	int ret = -ENOMEM;

	if (!o)
		goto fail;
	for (; o->nfds < nfds; o->nfds++) {
		o->fds[o->nfds] = fcntl(fds[o->nfds], F_DUPFD_CLOEXEC, 0);
		if (o->fds[o->nfds] < 0) {
			ret = -errno;
			goto fail;
		}
	}
	o->data = w->data;
	o->len = w->len;
	*w = (struct xdr_writer){ 0 };
	*c->out_end = o;
	c->out_end = &o->next;
	c->out_bytes += o->len;
	return 0;
fail:
	if (o)
		close_fds(o->fds, o->nfds);
	free(o);
	xdr_writer_free(w);
	return ret;
}

int rpc_conn_send_empty(struct rpc_conn *c, const struct rpc_header *h)
{
	struct xdr_writer w = rpc_frame_writer();

	rpc_frame_begin(&w, h, 0);
	if (!rpc_frame_end(&w)) {
		xdr_writer_free(&w);
		return -ENOMEM;
	}
	return rpc_conn_send(c, &w, NULL, 0);
}

static ssize_t send_fd(int sock, int fd)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { .space = { 0 } };
	char byte = 0;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr m = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.space,
		.msg_controllen = sizeof(control.space),
	};
	struct cmsghdr *cm = CMSG_FIRSTHDR(&m);

	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cm), &fd, sizeof(int));
	return sendmsg(sock, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static ssize_t write_some(struct rpc_conn *c, const struct rpc_out *o)
{
	ssize_t n;

	if (c->layer)
		return o->sent < o->len ? c->layer->ops->send(c->layer, o->data + o->sent, o->len - o->sent) : -EPROTO;
	if (o->sent < o->len)
		n = send(c->fd, o->data + o->sent, o->len - o->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
	else
		n = send_fd(c->fd, o->fds[o->fds_sent]);
	return n < 0 ? -errno : n;
}

int rpc_conn_flush(struct rpc_conn *c)
{
	while (c->out) {
		struct rpc_out *o = c->out;
		ssize_t n;

		if (o->sent == o->len && o->fds_sent == o->nfds) {
			drop_out(c);
			continue;
		}
		n = write_some(c, o);
		if (n == -EINTR)
			continue;
		if (n < 0)
			return n == -EAGAIN ? 0 : (int)n;
		if (o->sent < o->len)
			o->sent += (size_t)n;
		else
			o->fds_sent++;
	}
	change_layer(c);
	return 0;
}
