/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The client's end: calls over a socket, one thread at a time (src/lib shares
 * a session among threads). Several calls may be under way at once; events and
 * stream packets that come while one waits go to the callbacks.
 */
#pragma once
#include <stddef.h>

#include "rpc/codec.h"
#include "rpc/error.h"
#include "rpc/frame.h"
#include "util/err.h"

struct rpc_session;
struct rpc_layer;
struct rpc_tls;

struct rpc_session_ops {
	/* `msg` is the record of proc's event; valid during the call. */
	void (*event)(void *opaque, const struct rpc_proc *proc, const void *msg);
	/* A packet of a stream: data, a hole, its end or its failure. */
	void (*stream)(void *opaque, const struct rpc_header *h, const void *payload, size_t len);
};

/* Connect to a path. NULL on failure. `ops` may be NULL. */
struct rpc_session *rpc_session_open(const char *path, const struct rpc_session_ops *ops, void *opaque,
				     struct err *err);
/* Over a connected socket, which is taken, also on failure. */
struct rpc_session *rpc_session_new(int fd, const struct rpc_session_ops *ops, void *opaque, struct err *err);
void rpc_session_free(struct rpc_session *s);
/* What lies between it and the socket from now on; both are taken. Either may be NULL. */
void rpc_session_set_layer(struct rpc_session *s, struct rpc_layer *layer, struct rpc_tls *tls);

/*
 * Call and wait. `ret` is a record of proc's result type, or NULL if that is
 * of no interest; its parts go to `arena`. 0 or -1 with `error` set; a dead
 * connection or a wait beyond the time limit is an error VIR_FROM_RPC.
 */
int rpc_session_call(struct rpc_session *s, const struct rpc_proc *proc, const void *args, void *ret,
		     struct arena *arena, struct rpc_error *error);

/* The same in two steps, with descriptors. Returns the serial, or 0 with the error set. */
uint32_t rpc_session_send(struct rpc_session *s, const struct rpc_proc *proc, const void *args, const int *fds,
			  unsigned nfds, struct rpc_error *error);
/* `fds` has room for RPC_FDS_MAX and gets those of the answer, which become the caller's; NULL: they are closed. */
int rpc_session_wait(struct rpc_session *s, uint32_t serial, const struct rpc_proc *proc, void *ret,
		     struct arena *arena, int *fds, unsigned *nfds, struct rpc_error *error);

/* Stream packets of an open call: status and raw data. 0 or -1. */
int rpc_session_stream_send(struct rpc_session *s, const struct rpc_proc *proc, uint32_t serial, enum rpc_status status,
			    const void *data, size_t len, struct rpc_error *error);
int rpc_session_stream_hole(struct rpc_session *s, const struct rpc_proc *proc, uint32_t serial, uint64_t length,
			    struct rpc_error *error);
/* Handle one packet, whatever it is. 0 or -1. */
int rpc_session_step(struct rpc_session *s, struct rpc_error *error);
/* For whoever waits in a way of his own: until then nothing here blocks. */
int rpc_session_fd(const struct rpc_session *s);
/* True while output waits for room in the socket. */
bool rpc_session_wants_write(const struct rpc_session *s);
/* Write what goes and handle all that has come. How many packets came, or -1: the connection is lost. */
int rpc_session_pump(struct rpc_session *s, struct rpc_error *error);
/* True if rpc_session_wait() for that call would not wait. */
bool rpc_session_answered(const struct rpc_session *s, uint32_t serial);
/* Send a sign of life and ask for one. 0 or -1. */
int rpc_session_ping(struct rpc_session *s, struct rpc_error *error);
/* No wait is longer. The default is 30 s; 0: no limit. */
void rpc_session_set_timeout(struct rpc_session *s, unsigned ms);
