/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Inside the server: listeners, clients, their logins and streams. */
#pragma once
#include "rpc/conn.h"
#include "rpc/server.h"

#define PROGRAMS_MAX 8

struct listener {
	struct listener *next;
	struct rpc_server *server;
	struct loop_fd *watch;
	int fd;
	enum rpc_transport transport;
	struct rpc_tls *tls;
	bool readonly;
	bool full; /* accepting nobody */
};

struct rpc_server {
	struct loop *loop;
	const struct rpc_server_ops *ops;
	void *opaque;
	struct rpc_limits limits;
	struct listener *listeners;
	struct rpc_client *clients;
	unsigned nclients, nlogins;
	rpc_handler *handlers[PROGRAMS_MAX]; /* by program's place in rpc_programs, then by number */
	struct timer *keepalive;
	unsigned keepalive_seconds, keepalive_count;
	struct timer *login_timer;
	bool login_armed; /* it is to come */
	struct rpc_access *access;
	const struct rpc_access_names *access_names;
};

struct rpc_client {
	struct rpc_server *server; /* NULL once it is cut off */
	struct rpc_client *next, **prev;
	unsigned refs; /* the server's, one a call, one while its events are handled */
	struct rpc_conn conn;
	struct loop_fd *watch;
	uint32_t events; /* watched for */
	enum rpc_transport transport;
	bool readonly, closing, paused;
	bool handshaking;     /* TLS's is under way: there are no packets yet */
	bool logging_in;      /* counted in nlogins, and ended if it takes too long */
	uint64_t login_until; /* on the monotonic clock */
	char *dn, *sasl_name; /* who it is; NULL: not said */
	gid_t *groups;
	unsigned ngroups;
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

/* Accept, or stop it, as there is room. */
void server_accept_more(struct rpc_server *s);

/* server_login.c: a client from afar begins. 0 or a negative errno. */
int login_begin(struct rpc_client *c, struct rpc_tls *tls, struct err *err);
/* Go on with its handshake. 0, or a negative errno: it has to be cut off. */
int login_handshake(struct rpc_client *c);

/* A packet of type stream or hole. 0, or a negative errno: the client has to be cut off. */
int streams_packet(struct rpc_client *c, const struct rpc_packet *p);
/* Something was written: streams that wait for room go on. */
void streams_ready(struct rpc_client *c);
/* True while data of the peer waits in a stream. */
bool streams_are_full(const struct rpc_client *c);
void streams_close_all(struct rpc_client *c);
