/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A connection that threads share. One lock guards all of it; whoever waits
 * for an answer and finds nobody reading polls the socket for everybody, with
 * the lock released.
 */
#pragma once
#include <pthread.h>
#include <stdbool.h>

#include "keel/keel.h"
#include "lib/uri.h"
#include "rpc/client.h"
#include "rpc/wire.h"

struct subscription {
	struct subscription *next;
	const struct rpc_program *program; /* numbers are the program's own */
	int number;			   /* the daemon's */
	int id;				   /* ours */
	enum keel_event_kind kind;
	keel_event_fn fn;
	void *opaque;
};

struct keel_conn {
	pthread_mutex_t lock;
	pthread_cond_t changed; /* something was handled, or nobody reads any more */
	unsigned refs;
	struct rpc_session *session;
	struct rpc_error broken; /* code 0: it is alive */
	bool reading;		 /* a thread polls the socket */
	int wake;		 /* eventfd: ends that poll */
	int notice;		 /* eventfd: there is something for callbacks */
	int epoll;		 /* what keel_fd() gives: the socket and `notice` */
	bool epoll_out;
	unsigned keepalive, keepalive_count, silent;
	uint64_t next_ping;

	struct pending_event *events, **events_end;
	struct subscription *subscriptions;
	int last_id;
	unsigned registering; /* calls under way, whose numbers are not known yet */
	struct keel_stream *streams;
	char *readonly_uri;
};

/* Another reference; conn_put() gives it back. */
struct keel_conn *conn_get(struct keel_conn *c);
void conn_put(struct keel_conn *c);

/*
 * Call and wait, as rpc_session_call(). `ret` may be NULL; parts of it go to
 * the arena. Takes the lock. 0 or -1.
 */
int conn_call(struct keel_conn *c, const struct rpc_program *program, uint32_t number, const void *args, void *ret,
	      struct arena *arena, struct keel_error *error);

/* The rest with the lock held. */
/* Until done() or `deadline` (0: none): 0, 1 at the deadline, -1 if the connection breaks. */
int conn_wait(struct keel_conn *c, bool (*done)(void *arg), void *arg, uint64_t deadline, struct rpc_error *error);
/* After something was sent. */
void conn_sent(struct keel_conn *c);
void conn_notice(struct keel_conn *c);

/* events.c */
void events_queue(struct keel_conn *c, const struct rpc_proc *proc, const void *msg);
bool events_ready(const struct keel_conn *c);
/* Run the callbacks, the lock released meanwhile. */
void events_run(struct keel_conn *c);
void events_free(struct keel_conn *c);

/* stream.c */
void streams_take(struct keel_conn *c, const struct rpc_header *h, const void *payload, size_t len);
bool streams_readable(const struct keel_conn *c);
void streams_run(struct keel_conn *c);

/* auth.c: whatever the daemon asks for before it can be opened. 0 or -1. */
int conn_authenticate(struct keel_conn *c, const struct uri *uri, keel_auth_fn fn, void *opaque, struct keel_error *error);

/* domain.c */
struct keel_domain *domain_new(struct keel_conn *c, const struct remote_domain *dom); /* NULL: no memory */
struct remote_domain domain_wire(const struct keel_domain *dom);		      /* as long as dom lives */
struct keel_conn *domain_conn(const struct keel_domain *dom);

/* params.c: into the arena; NULL: no memory. */
struct keel_param *params_copy(struct arena *arena, const struct remote_typed_param *list, unsigned n);

int error_set(struct keel_error *error, enum vir_domain domain, enum vir_code code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
int error_no_memory(struct keel_error *error);
/* From the wire's. -1. */
int error_from(struct keel_error *error, const struct rpc_error *e);
