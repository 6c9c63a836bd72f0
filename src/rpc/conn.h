/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One end of a connection, server's or client's: packets in, packets out, over
 * a non-blocking stream socket. It waits for nothing; its user has a loop.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "rpc/frame.h"

struct rpc_out;

/*
 * What lies between packets and the socket: TLS, or SASL's protection. recv
 * and send wait for nothing: a count, 0 at the end of what is received, or a
 * negative errno. A send that gave -EAGAIN is repeated with the same bytes.
 */
struct rpc_layer {
	const struct rpc_layer_ops *ops;
};

struct rpc_layer_ops {
	ssize_t (*recv)(struct rpc_layer *l, void *data, size_t len);
	ssize_t (*send)(struct rpc_layer *l, const void *data, size_t len);
	/* True if recv() has bytes though the socket may have none. */
	bool (*pending)(const struct rpc_layer *l);
	void (*free)(struct rpc_layer *l);
};

struct rpc_conn {
	int fd;
	struct rpc_layer *layer, *next_layer; /* NULL: the socket itself; passes no descriptors otherwise */
	struct rpc_frame frame;
	int in_fds[RPC_FDS_MAX]; /* came, not yet claimed by a packet */
	unsigned in_nfds;
	uint8_t *held; /* bytes read while paused */
	size_t held_len;

	struct rpc_out *out, **out_end;
	size_t out_bytes;
};

struct rpc_packet {
	struct rpc_header header;
	const uint8_t *payload; /* until the callback returns */
	size_t payload_len;
	int *fds; /* closed after the callback, save those it has set to -1 */
	unsigned nfds;
};

/* Return 0 to go on, RPC_CONN_PAUSE to get no more packets from this call, or a negative errno to give up. */
#define RPC_CONN_PAUSE 1
typedef int (*rpc_packet_fn)(void *opaque, struct rpc_packet *packet);

/* Takes the descriptor. */
void rpc_conn_init(struct rpc_conn *c, int fd);
void rpc_conn_close(struct rpc_conn *c);

/* Use a layer, which is taken, for all that is sent and received once what is queued now has left. */
void rpc_conn_set_layer(struct rpc_conn *c, struct rpc_layer *layer);
/* True if packets may come of what was read already, so that the socket's being readable is not to be waited for. */
bool rpc_conn_has_more(const struct rpc_conn *c);

/*
 * Read what is there, once, and hand out its packets; held ones come first.
 * 0; RPC_CONN_PAUSE if the callback paused; -EAGAIN if there was nothing;
 * -EPIPE at the end of the connection; -EPROTO for what is no packet; or an
 * error of the socket or the callback.
 */
int rpc_conn_read(struct rpc_conn *c, rpc_packet_fn fn, void *opaque);
/* Only the held packets. */
int rpc_conn_unhold(struct rpc_conn *c, rpc_packet_fn fn, void *opaque);

/*
 * Queue a finished packet; the writer's memory is taken, the descriptors are
 * duplicated. 0 or a negative errno, and then the writer is freed as well.
 */
int rpc_conn_send(struct rpc_conn *c, struct xdr_writer *w, const int *fds, unsigned nfds);
/* A packet without payload. */
int rpc_conn_send_empty(struct rpc_conn *c, const struct rpc_header *h);
/* Write as much as goes. 0, also if something is left (c->out), or an error of the socket. */
int rpc_conn_flush(struct rpc_conn *c);
