/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The server's end of libvirt's protocol, on an event loop.
 *
 * Everything here runs in the loop's thread. A call that takes longer is
 * answered later, from that thread as well; calls of one client overlap and
 * may be answered in any order. A client lives until its closed() callback
 * returns, and as long as a call of it is unanswered; no function here that
 * sends to it ends it before its caller is done.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "rpc/codec.h"
#include "rpc/error.h"
#include "rpc/frame.h"
#include "util/err.h"
#include "util/loop.h"

struct rpc_server;
struct rpc_client;
struct rpc_stream;
struct rpc_tls;
struct rpc_sasl;

enum rpc_transport { RPC_UNIX, RPC_TLS, RPC_TCP };

/* A call being served. Owned by the server until a handler says RPC_LATER, then by whoever answers it. */
struct rpc_call {
	struct rpc_client *client;
	const struct rpc_proc *proc;
	uint32_t serial;
	struct arena arena;	/* arguments and result live here, and what the handler adds */
	void *args, *ret;	/* records of proc's types; ret is zeroed. NULL where the type is NULL */
	struct rpc_error error; /* set by a handler that fails */
	int fds[RPC_FDS_MAX];	/* came with the call; closed with it. Take one by setting it to -1 */
	unsigned nfds;
	int reply_fds[RPC_FDS_MAX]; /* go with the answer, if any; closed with the call */
	unsigned reply_nfds;
	void *opaque; /* the handler's own */
	struct rpc_call *next, **prev; /* of its client */
};

/* Returns 0 (answer with call->ret), -1 (call->error is set) or RPC_LATER (rpc_call_finish() follows). */
#define RPC_LATER 1
typedef int (*rpc_handler)(struct rpc_call *call);

struct rpc_server_ops {
	/* A client came, or went (its data is to be freed; calls of it may still be unanswered). */
	void (*opened)(struct rpc_client *client);
	void (*closed)(struct rpc_client *client);
	/* A TLS client's certificate is of our authority: may it come in? */
	bool (*known)(struct rpc_client *client);
	/* Before a handler runs: 0, or -1 with call->error set. May be NULL, as the others. */
	int (*admit)(struct rpc_call *call);
};

struct rpc_access;
struct rpc_access_names;

/* What one client may hold at a time. */
struct rpc_limits {
	unsigned clients;   /* of the server; more wait to be accepted */
	unsigned logins;    /* of the server: from other hosts and not logged in; more of those wait to be accepted */
	unsigned login_seconds; /* for a handshake and authentication; then it is cut off */
	unsigned calls;	    /* unanswered; more are not read */
	unsigned streams;   /* open; more are refused */
	size_t call_memory; /* bytes of one call's arguments and result */
	size_t out_pause;   /* bytes queued to it, above which nothing more is read from it */
	size_t out_max;	    /* bytes queued to it, above which it is cut off */
};
extern const struct rpc_limits rpc_limits_default;

/* NULL on failure. `limits` may be NULL; `ops` and `opaque` must outlive the server. */
struct rpc_server *rpc_server_new(struct loop *loop, const struct rpc_server_ops *ops, void *opaque,
				  const struct rpc_limits *limits, struct err *err);
/* Cuts off all clients. Calls put off may be finished afterwards; that only frees them. */
void rpc_server_free(struct rpc_server *s);
void *rpc_server_opaque(const struct rpc_server *s);
/* Serve a listening socket, which is taken. Clients of a read-only one may only look. */
int rpc_server_listen(struct rpc_server *s, int fd, bool readonly, struct err *err);
/* Serve a listening TCP socket, which is taken; with TLS if `tls`, which must outlive the server, is not NULL. */
int rpc_server_listen_remote(struct rpc_server *s, int fd, struct rpc_tls *tls, struct err *err);
/* Serve one connected socket, which is taken. NULL on failure. */
struct rpc_client *rpc_server_add(struct rpc_server *s, int fd, bool readonly, struct err *err);
/* Apply these rules from now on, to open connections as well; both are taken or outlive the server. NULL rules: none. */
void rpc_server_set_access(struct rpc_server *s, struct rpc_access *rules, const struct rpc_access_names *names);
/* Answer `number` of `program` with `fn`; what has no handler is answered VIR_ERR_NO_SUPPORT. */
void rpc_server_handle(struct rpc_server *s, const struct rpc_program *program, uint32_t number, rpc_handler fn);
bool rpc_server_has(const struct rpc_server *s, const struct rpc_program *program, uint32_t number);
/* Ping those who asked for it every `seconds`; whoever is silent for `count` pings in a row is cut off. */
int rpc_server_set_keepalive(struct rpc_server *s, unsigned seconds, unsigned count);
unsigned rpc_server_clients(const struct rpc_server *s);

/* Answer a call put off: with call->ret, or with call->error if that is set. Frees it. */
void rpc_call_finish(struct rpc_call *call);
/* As rpc_error_set() on call->error. Returns -1. */
#define rpc_call_fail(call, domain, code, ...) rpc_error_set(&(call)->error, domain, code, __VA_ARGS__)

/* Lists leave out, and do not count, what this is false for: an item of the procedure's kind. */
bool rpc_call_shows(const struct rpc_call *call, const char *name);

void rpc_client_set_data(struct rpc_client *c, void *data);
void *rpc_client_data(const struct rpc_client *c);
struct rpc_server *rpc_client_server(const struct rpc_client *c);
bool rpc_client_is_readonly(const struct rpc_client *c);
void rpc_client_set_readonly(struct rpc_client *c);
/* Who is at the other end of a unix socket, when it connected. */
void rpc_client_cred(const struct rpc_client *c, pid_t *pid, uid_t *uid, gid_t *gid);
enum rpc_transport rpc_client_transport(const struct rpc_client *c);
/* The name in its certificate, and the one it has logged in with; NULL if there is none. As long as the client. */
const char *rpc_client_dn(const struct rpc_client *c);
const char *rpc_client_sasl_name(const struct rpc_client *c);
/* Its socket's addresses as "ADDRESS;PORT", "" if they are none. */
void rpc_client_addresses(const struct rpc_client *c, char local[64], char remote[64]);
/* A client from afar is let in: until then it has login_seconds. */
void rpc_client_logged_in(struct rpc_client *c);
/* After the answers queued now, SASL protects the connection, if that was agreed on. Takes `sasl`. 0 or -ENOMEM. */
int rpc_client_set_sasl(struct rpc_client *c, struct rpc_sasl *sasl);

/* The client takes part in keepalive from now on. */
void rpc_client_keepalive(struct rpc_client *c);
/* Read no more; close once all calls are answered and the answers written. */
void rpc_client_close(struct rpc_client *c);
/* Send an event of `proc`, `msg` being its record. A client that doesn't read its events is cut off in the end. */
void rpc_client_event(struct rpc_client *c, const struct rpc_proc *proc, const void *msg);

/*
 * A stream, opened by a call. The peer's end ends it by finishing or aborting;
 * ours by rpc_stream_end(), which the peer confirms, or rpc_stream_fail().
 */
struct rpc_stream_ops {
	/* Take up to `len` bytes; returns how many. Fewer: no more come until rpc_stream_resume(). NULL: refused. */
	size_t (*data)(struct rpc_stream *st, const void *data, size_t len);
	/* `length` zeroes that were not sent. NULL: refused. */
	void (*hole)(struct rpc_stream *st, uint64_t length);
	/* The peer has sent and got all. 0, or -1 with the error set. May be NULL. */
	int (*finish)(struct rpc_stream *st, struct rpc_error *error);
	/* There is room again after rpc_stream_send() took too little. May be NULL. */
	void (*ready)(struct rpc_stream *st);
	/* The stream is gone, for whatever reason; the last call. */
	void (*closed)(struct rpc_stream *st);
};

/* In a handler of a call with a stream. NULL, and call->error set, if the client has too many. */
struct rpc_stream *rpc_stream_new(struct rpc_call *call, const struct rpc_stream_ops *ops, void *opaque);
void *rpc_stream_opaque(const struct rpc_stream *st);
/* Returns how many bytes were taken; after fewer than `len`, ready() comes. */
size_t rpc_stream_send(struct rpc_stream *st, const void *data, size_t len);
/* False if there is no room; ready() comes. */
bool rpc_stream_send_hole(struct rpc_stream *st, uint64_t length);
/* No more is sent. */
void rpc_stream_end(struct rpc_stream *st);
/* End with an error; closed() is called. */
void rpc_stream_fail(struct rpc_stream *st, const struct rpc_error *error);
/* Take data again. */
void rpc_stream_resume(struct rpc_stream *st);
