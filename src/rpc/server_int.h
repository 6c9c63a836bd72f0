/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside the server: clients and their streams. */
#pragma once
#include "rpc/conn.h"
#include "rpc/server.h"

struct rpc_client {
	struct rpc_server *server; /* NULL once it is cut off */
	struct rpc_client *next, **prev;
	unsigned refs; /* the server's, one a call, one while its events are handled */
	struct rpc_conn conn;
	struct loop_fd *watch;
	uint32_t events; /* watched for */
	bool readonly, closing, paused;
	bool doomed; /* to be cut off at the next event, which is on its way */
	bool broken; /* cut off */
	bool keepalive;
	unsigned silent; /* pings without a sign of life */
	pid_t pid;
	uid_t uid;
	gid_t gid;
	void *data;

	struct rpc_call *calls;
	unsigned ncalls;
	struct rpc_stream *streams;
	unsigned nstreams;
};

const struct rpc_limits *rpc_server_limits(const struct rpc_server *s);

/*
 * Send a packet whose payload `type` encodes. These never cut the client off
 * at once, whoever calls them may go on using it: a failure dooms it.
 */
void client_send(struct rpc_client *c, const struct rpc_header *h, const struct wire_type *type, const void *obj);
void client_send_error(struct rpc_client *c, const struct rpc_header *h, const struct rpc_error *error);
void client_send_writer(struct rpc_client *c, struct xdr_writer *w, const int *fds, unsigned nfds);
/* Write what is queued, watch what has to be watched. To be called after anything that sends or ends a pause. */
void client_touch(struct rpc_client *c);

/* A packet of type stream or hole. 0, or a negative errno: the client has to be cut off. */
int streams_packet(struct rpc_client *c, const struct rpc_packet *p);
/* Something was written: streams that wait for room go on. */
void streams_ready(struct rpc_client *c);
/* True while data of the peer waits in a stream. */
bool streams_are_full(const struct rpc_client *c);
void streams_close_all(struct rpc_client *c);
