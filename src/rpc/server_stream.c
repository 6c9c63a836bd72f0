/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Streams of a client. Packets of a stream carry the number of the procedure
 * and the serial of the call that opened it. Status "continue" is data, empty
 * data the end of what is sent; "ok" from the peer asks for a confirmation,
 * which is "ok" as well; "error" from the peer is an abort and confirmed too.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/server_int.h"

#define PACKET_MAX 262120u	/* data in one packet: what every libvirt takes */
#define OUT_MAX (1u << 20)	/* queued to the client, above which a stream waits */
#define IN_MAX (4 * PACKET_MAX) /* queued in a stream, above which nothing is read from the client */
#define CHUNK_COST 64u		/* what an empty packet counts */

struct chunk {
	struct chunk *next;
	uint64_t hole; /* or, if 0, data */
	size_t len, done;
	uint8_t data[];
};

struct rpc_stream {
	struct rpc_client *client;
	struct rpc_stream *next, **prev; /* of the client */
	const struct rpc_stream_ops *ops;
	void *opaque;
	struct rpc_header header;
	struct chunk *in, **in_end;
	size_t in_bytes;
	unsigned busy;	/* callbacks running */
	bool finishing; /* the peer has said that it is done */
	bool wants_room, ended, dead;
};

static void drop_chunk(struct rpc_stream *st)
{
	struct chunk *k = st->in;

	st->in = k->next;
	if (!st->in)
		st->in_end = &st->in;
	st->in_bytes -= k->len + CHUNK_COST;
	free(k);
}

static void enter(struct rpc_stream *st)
{
	st->busy++;
}

static void leave(struct rpc_stream *st)
{
	if (!--st->busy && st->dead)
		free(st);
}

static void stream_close(struct rpc_stream *st)
{
	if (st->dead)
		return;
	st->dead = true;
	enter(st);
	*st->prev = st->next;
	if (st->next)
		st->next->prev = st->prev;
	st->client->nstreams--;
	while (st->in)
		drop_chunk(st);
	if (st->ops->closed)
		st->ops->closed(st);
	leave(st);
}

static void send_status(struct rpc_stream *st, enum rpc_status status)
{
	struct rpc_header h = st->header;

	h.status = status;
	client_send(st->client, &h, NULL, NULL);
}

struct rpc_stream *rpc_stream_new(struct rpc_call *call, const struct rpc_stream_ops *ops, void *opaque)
{
	struct rpc_client *c = call->client;
	struct rpc_stream *st;

	if (c->broken || c->nstreams >= rpc_server_limits(c->server)->streams) {
		rpc_call_fail(call, VIR_FROM_STREAMS, VIR_ERR_OPERATION_FAILED,
			      "too many streams are open on this connection");
		return NULL;
	}
	st = calloc(1, sizeof(*st));
	if (!st) {
		rpc_call_fail(call, VIR_FROM_STREAMS, VIR_ERR_NO_MEMORY, "a stream");
		return NULL;
	}
	st->client = c;
	st->ops = ops;
	st->opaque = opaque;
	st->in_end = &st->in;
	st->header = (struct rpc_header){
		.program = call->proc->program->number,
		.version = call->proc->program->version,
		.procedure = call->proc->number,
		.type = RPC_STREAM,
		.serial = call->serial,
	};
	st->next = c->streams;
	st->prev = &c->streams;
	if (st->next)
		st->next->prev = &st->next;
	c->streams = st;
	c->nstreams++;
	return st;
}

void *rpc_stream_opaque(const struct rpc_stream *st)
{
	return st->opaque;
}

void rpc_stream_fail(struct rpc_stream *st, const struct rpc_error *error)
{
	struct rpc_client *c = st->client;

	if (st->dead)
		return;
	client_send_error(c, &st->header, error);
	stream_close(st);
	client_touch(c);
}

static void refuse(struct rpc_stream *st, const char *why)
{
	struct rpc_error e = { 0 };

	rpc_error_set(&e, VIR_FROM_STREAMS, VIR_ERR_RPC, "%s", why);
	rpc_stream_fail(st, &e);
}

/* Hand on what has come, as far as it is taken. */
static void pump(struct rpc_stream *st)
{
	struct rpc_error e = { 0 };

	enter(st);
	while (!st->dead && st->in) {
		struct chunk *k = st->in;
		size_t left = k->len - k->done, n;

		if (k->hole) {
			st->ops->hole(st, k->hole);
		} else if (left) {
			n = st->ops->data(st, k->data + k->done, left);
			if (st->dead)
				break;
			k->done += n;
			if (n < left)
				break;
		}
		if (!st->dead)
			drop_chunk(st);
	}
	if (!st->dead && !st->in && st->finishing) {
		if (st->ops->finish && st->ops->finish(st, &e)) {
			rpc_stream_fail(st, &e);
		} else if (!st->dead) {
			send_status(st, RPC_OK);
			stream_close(st);
		}
	}
	leave(st);
}

static int enqueue(struct rpc_stream *st, uint64_t hole, const uint8_t *data, size_t len)
{
	struct chunk *k = calloc(1, sizeof(*k) + len);

	if (!k)
		return -ENOMEM;
	k->hole = hole;
	k->len = len;
	if (len)
		memcpy(k->data, data, len);
	*st->in_end = k;
	st->in_end = &k->next;
	st->in_bytes += len + CHUNK_COST;
	return 0;
}

static int on_hole(struct rpc_stream *st, const struct rpc_packet *p)
{
	struct xdr_reader r = xdr_reader(p->payload, p->payload_len);
	uint64_t length = xdr_get_u64(&r);
	uint32_t flags = xdr_get_u32(&r);
	int ret;

	if (r.failed || xdr_left(&r) || !length || length > INT64_MAX || flags) {
		refuse(st, "malformed stream hole");
		return 0;
	}
	if (!st->ops->hole) {
		refuse(st, "this stream takes no holes");
		return 0;
	}
	ret = enqueue(st, length, NULL, 0);
	if (!ret)
		pump(st);
	return ret;
}

int streams_packet(struct rpc_client *c, const struct rpc_packet *p)
{
	const struct rpc_header *h = &p->header;
	struct rpc_stream *st = c->streams;
	int ret;

	while (st && (st->header.serial != h->serial || st->header.procedure != h->procedure ||
		      st->header.program != h->program))
		st = st->next;
	/* Data may be on its way to a stream that has just ended. */
	if (!st)
		return 0;
	if (h->status == RPC_ERROR) {
		send_status(st, RPC_OK);
		stream_close(st);
		return 0;
	}
	if (st->finishing) {
		refuse(st, "stream data after its end");
		return 0;
	}
	if (h->type == RPC_STREAM_HOLE)
		return on_hole(st, p);
	if (h->status == RPC_OK) {
		st->finishing = true;
		pump(st);
		return 0;
	}
	if (!st->ops->data) {
		refuse(st, "this stream takes no data");
		return 0;
	}
	ret = enqueue(st, 0, p->payload, p->payload_len);
	if (!ret)
		pump(st);
	return ret;
}

bool streams_are_full(const struct rpc_client *c)
{
	for (const struct rpc_stream *st = c->streams; st; st = st->next)
		if (st->in_bytes > IN_MAX)
			return true;
	return false;
}

void streams_close_all(struct rpc_client *c)
{
	while (c->streams)
		stream_close(c->streams);
}

static bool has_room(const struct rpc_client *c)
{
	return c->conn.out_bytes < OUT_MAX;
}

void streams_ready(struct rpc_client *c)
{
	struct rpc_stream *st = c->streams;

	while (st && has_room(c)) {
		if (!st->wants_room) {
			st = st->next;
			continue;
		}
		st->wants_room = false;
		if (st->ops->ready)
			st->ops->ready(st);
		/* It may have ended any stream: begin again; each is woken once. */
		st = c->streams;
	}
}

static bool may_send(struct rpc_stream *st)
{
	if (st->dead || st->ended || st->client->broken)
		return false;
	st->wants_room = !has_room(st->client);
	return !st->wants_room;
}

size_t rpc_stream_send(struct rpc_stream *st, const void *data, size_t len)
{
	size_t sent = 0;

	while (sent < len && may_send(st)) {
		struct rpc_header h = st->header;
		struct xdr_writer w = rpc_frame_writer();
		size_t n = len - sent < PACKET_MAX ? len - sent : PACKET_MAX;
		uint8_t *room;

		h.status = RPC_CONTINUE;
		rpc_frame_begin(&w, &h, 0);
		room = xdr_put_room(&w, n); /* raw: stream data is not XDR */
		if (room)
			memcpy(room, (const uint8_t *)data + sent, n);
		client_send_writer(st->client, &w, NULL, 0);
		sent += n;
	}
	client_touch(st->client);
	return sent;
}

bool rpc_stream_send_hole(struct rpc_stream *st, uint64_t length)
{
	struct rpc_header h = st->header;
	struct xdr_writer w = rpc_frame_writer();

	if (!may_send(st))
		return false;
	h.type = RPC_STREAM_HOLE;
	h.status = RPC_CONTINUE;
	rpc_frame_begin(&w, &h, 0);
	xdr_put_u64(&w, length);
	xdr_put_u32(&w, 0); /* flags: none exist */
	client_send_writer(st->client, &w, NULL, 0);
	client_touch(st->client);
	return true;
}

void rpc_stream_end(struct rpc_stream *st)
{
	if (st->dead || st->ended)
		return;
	st->ended = true;
	send_status(st, RPC_CONTINUE);
	client_touch(st->client);
}

void rpc_stream_resume(struct rpc_stream *st)
{
	struct rpc_client *c = st->client;

	if (st->dead || st->busy)
		return;
	pump(st);
	client_touch(c);
}
