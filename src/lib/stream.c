/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/conn.h"

#define PACKET_MAX 262120u /* data in one packet: what every libvirt takes */

struct chunk {
	struct chunk *next;
	size_t len, done;
	uint8_t data[];
};

struct keel_stream {
	struct keel_stream *next; /* of the connection */
	struct keel_conn *conn;
	const struct rpc_proc *proc;
	uint32_t serial;
	struct chunk *in, **in_end;
	bool ended;	/* the daemon sends no more */
	bool confirmed; /* and knows that it's over */
	struct rpc_error error;
	void (*readable)(void *opaque, struct keel_stream *st);
	void *opaque;
};

/* ---- Coming in; the lock is held -------------------------------------------- */

static int keep(struct keel_stream *st, const void *data, size_t len)
{
	struct chunk *k = malloc(sizeof(*k) + len);

	if (!k)
		return -ENOMEM;
	*k = (struct chunk){ .len = len };
	memcpy(k->data, data, len);
	*st->in_end = k;
	st->in_end = &k->next;
	return 0;
}

static void fail(struct keel_stream *st, const void *payload, size_t len)
{
	struct xdr_reader r = xdr_reader(payload, len);
	struct remote_error w = { 0 };
	struct arena arena = { .max = RPC_MESSAGE_MAX };

	if (wire_decode(&wire_remote_error, &r, &w, &arena))
		rpc_error_from_wire(&st->error, &w);
	else
		rpc_error_set(&st->error, VIR_FROM_STREAMS, VIR_ERR_RPC, "the stream ended with an error that is malformed");
	arena_free(&arena);
	st->ended = st->confirmed = true;
}

void streams_take(struct keel_conn *c, const struct rpc_header *h, const void *payload, size_t len)
{
	struct keel_stream *st = c->streams;

	while (st && st->serial != h->serial)
		st = st->next;
	if (!st)
		return; /* it ended here while this was on its way */
	if (h->status == RPC_ERROR) {
		fail(st, payload, len);
	} else if (h->status == RPC_OK) {
		st->ended = st->confirmed = true;
	} else if (h->type == RPC_STREAM_HOLE) {
		; /* consoles and channels have none */
	} else if (!len) {
		st->ended = true;
	} else if (keep(st, payload, len)) {
		rpc_error_set(&st->error, VIR_FROM_STREAMS, VIR_ERR_NO_MEMORY, "a stream's data");
		st->ended = true;
	}
}

static bool has_news(void *arg)
{
	const struct keel_stream *st = arg;

	return st->in || st->ended;
}

bool streams_readable(const struct keel_conn *c)
{
	for (struct keel_stream *st = c->streams; st; st = st->next)
		if (st->readable && has_news(st))
			return true;
	return false;
}

void streams_run(struct keel_conn *c)
{
	struct keel_stream *st = c->streams;

	/* A callback may free its stream, so only the first one with news is served; then there is a notice for the next. */
	while (st && !(st->readable && has_news(st)))
		st = st->next;
	if (!st)
		return;
	conn_notice(c);
	/* To the end of the list, so that each has its turn. */
	for (struct keel_stream **p = &c->streams; *p; p = &(*p)->next) {
		if (*p != st)
			continue;
		*p = st->next;
		st->next = NULL;
		while (*p)
			p = &(*p)->next;
		*p = st;
		break;
	}
	pthread_mutex_unlock(&c->lock);
	st->readable(st->opaque, st);
	pthread_mutex_lock(&c->lock);
}

/* ---- Opening --------------------------------------------------------------- */

static void unlink_stream(struct keel_stream *st)
{
	struct keel_stream **p = &st->conn->streams;

	while (*p && *p != st)
		p = &(*p)->next;
	if (*p)
		*p = st->next;
}

static void stream_free(struct keel_stream *st)
{
	while (st->in) {
		struct chunk *k = st->in;

		st->in = k->next;
		free(k);
	}
	conn_put(st->conn);
	free(st);
}

static bool is_answered(void *arg)
{
	const struct keel_stream *st = arg;

	return rpc_session_answered(st->conn->session, st->serial);
}

struct keel_stream *keel_domain_console(struct keel_domain *dom, const char *device, unsigned flags,
					struct keel_error *error)
{
	struct remote_domain_open_console_args args = { .dom = domain_wire(dom), .dev_name = (char *)device, .flags = flags };
	struct keel_stream *st = calloc(1, sizeof(*st));
	struct keel_conn *c = domain_conn(dom);
	struct arena arena = { 0 };
	struct rpc_error e = { 0 };
	int ret = -1;

	if (!st) {
		error_no_memory(error);
		return NULL;
	}
	st->conn = conn_get(c);
	st->in_end = &st->in;
	st->proc = rpc_proc_find(&remote_program, REMOTE_PROC_DOMAIN_OPEN_CONSOLE);
	pthread_mutex_lock(&c->lock);
	if (c->broken.code)
		e = c->broken;
	else
		st->serial = rpc_session_send(c->session, st->proc, &args, NULL, 0, &e);
	if (st->serial) {
		/* Data may follow the answer at once. */
		st->next = c->streams;
		c->streams = st;
		conn_sent(c);
		if (!conn_wait(c, is_answered, st, 0, &e))
			ret = rpc_session_wait(c->session, st->serial, st->proc, NULL, &arena, NULL, NULL, &e);
		if (ret)
			unlink_stream(st);
	}
	pthread_mutex_unlock(&c->lock);
	if (!ret)
		return st;
	error_from(error, &e);
	stream_free(st);
	return NULL;
}

/* ---- Use ------------------------------------------------------------------- */

static size_t take(struct keel_stream *st, uint8_t *to, size_t len)
{
	size_t n = 0;

	while (st->in && n < len) {
		struct chunk *k = st->in;
		size_t part = k->len - k->done < len - n ? k->len - k->done : len - n;

		memcpy(to + n, k->data + k->done, part);
		n += part;
		k->done += part;
		if (k->done < k->len)
			break;
		st->in = k->next;
		if (!st->in)
			st->in_end = &st->in;
		free(k);
	}
	return n;
}

ssize_t keel_stream_recv(struct keel_stream *st, void *data, size_t len, unsigned flags, struct keel_error *error)
{
	struct keel_conn *c = st->conn;
	struct rpc_error e = { 0 };
	ssize_t ret = 0;

	pthread_mutex_lock(&c->lock);
	if (!has_news(st) && flags & KEEL_STREAM_NONBLOCK) {
		e = c->broken;
		ret = e.code ? -1 : -2;
	} else if (conn_wait(c, has_news, st, 0, &e)) {
		ret = -1;
	} else if (st->in) {
		ret = (ssize_t)take(st, data, len);
	} else if (st->error.code) {
		e = st->error;
		ret = -1;
	}
	pthread_mutex_unlock(&c->lock);
	if (ret == -1)
		error_from(error, &e);
	return ret;
}

static bool may_send(void *arg)
{
	const struct keel_stream *st = arg;

	return st->ended || !rpc_session_wants_write(st->conn->session);
}

/* Send one packet, once what was sent before has left. */
static int send_packet(struct keel_stream *st, enum rpc_status status, const void *data, size_t len, struct rpc_error *e)
{
	struct keel_conn *c = st->conn;
	int ret = conn_wait(c, may_send, st, 0, e);

	if (!ret && st->error.code) {
		*e = st->error;
		ret = -1;
	}
	if (!ret && st->ended && status == RPC_CONTINUE)
		ret = rpc_error_set(e, VIR_FROM_STREAMS, VIR_ERR_OPERATION_INVALID, "the stream has ended");
	if (!ret && !st->confirmed) {
		ret = rpc_session_stream_send(c->session, st->proc, st->serial, status, data, len, e);
		conn_sent(c);
	}
	return ret;
}

int keel_stream_send(struct keel_stream *st, const void *data, size_t len, struct keel_error *error)
{
	struct keel_conn *c = st->conn;
	const uint8_t *p = data;
	struct rpc_error e = { 0 };
	int ret = 0;

	pthread_mutex_lock(&c->lock);
	while (!ret && len) {
		size_t n = len < PACKET_MAX ? len : PACKET_MAX;

		ret = send_packet(st, RPC_CONTINUE, p, n, &e);
		p += n;
		len -= n;
	}
	pthread_mutex_unlock(&c->lock);
	return ret ? error_from(error, &e) : 0;
}

void keel_stream_on_readable(struct keel_stream *st, void (*fn)(void *opaque, struct keel_stream *st), void *opaque)
{
	struct keel_conn *c = st->conn;

	pthread_mutex_lock(&c->lock);
	st->readable = fn;
	st->opaque = opaque;
	if (streams_readable(c))
		conn_notice(c);
	pthread_mutex_unlock(&c->lock);
}

static bool is_confirmed(void *arg)
{
	return ((const struct keel_stream *)arg)->confirmed;
}

int keel_stream_finish(struct keel_stream *st, struct keel_error *error)
{
	struct keel_conn *c = st->conn;
	struct rpc_error e = { 0 };
	int ret = 0;

	pthread_mutex_lock(&c->lock);
	if (!st->confirmed)
		ret = send_packet(st, RPC_OK, NULL, 0, &e);
	if (!ret)
		ret = conn_wait(c, is_confirmed, st, 0, &e);
	if (!ret && st->error.code) {
		e = st->error;
		ret = -1;
	}
	pthread_mutex_unlock(&c->lock);
	return ret ? error_from(error, &e) : 0;
}

void keel_stream_free(struct keel_stream *st)
{
	struct keel_conn *c;
	struct rpc_error e = { 0 };

	if (!st)
		return;
	c = st->conn;
	pthread_mutex_lock(&c->lock);
	unlink_stream(st);
	/* Its confirmation finds no stream and is dropped. */
	if (!st->confirmed && !c->broken.code) {
		rpc_session_stream_send(c->session, st->proc, st->serial, RPC_ERROR, NULL, 0, &e);
		conn_sent(c);
	}
	pthread_mutex_unlock(&c->lock);
	stream_free(st);
}
