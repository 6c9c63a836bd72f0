/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/frame.h"

#include <stdlib.h>
#include <string.h>

#define PREFIX (RPC_LENGTH_BYTES + RPC_HEADER_BYTES)
/* A reader keeps so much between packets; more is given back. */
#define KEEP 4096u

static bool has_fds(uint32_t type)
{
	return type == RPC_CALL_WITH_FDS || type == RPC_REPLY_WITH_FDS;
}

struct xdr_writer rpc_frame_writer(void)
{
	return xdr_writer(RPC_LENGTH_BYTES + RPC_MESSAGE_MAX);
}

void rpc_frame_begin(struct xdr_writer *w, const struct rpc_header *h, unsigned nfds)
{
	xdr_put_u32(w, 0);
	xdr_put_u32(w, h->program);
	xdr_put_u32(w, h->version);
	xdr_put_u32(w, h->procedure);
	xdr_put_u32(w, h->type);
	xdr_put_u32(w, h->serial);
	xdr_put_u32(w, h->status);
	if (has_fds(h->type))
		xdr_put_u32(w, nfds);
}

bool rpc_frame_end(struct xdr_writer *w)
{
	if (w->failed)
		return false;
	be32_store(w->data, (uint32_t)w->len);
	return true;
}

static bool reserve(struct rpc_frame *f, size_t cap)
{
	uint8_t *p;

	if (cap <= f->cap)
		return true;
	if (cap < 2 * f->cap)
		cap = 2 * f->cap;
	if (cap < 256)
		cap = 256;
	p = realloc(f->data, cap);
	if (!p)
		return false;
	f->data = p;
	f->cap = cap;
	return true;
}

/* The bytes there have to be before anything more is known. */
static size_t goal(const struct rpc_frame *f)
{
	if (f->len < RPC_LENGTH_BYTES)
		return RPC_LENGTH_BYTES;
	if (!f->headed)
		return PREFIX;
	return be32_load(f->data);
}

static bool read_header(struct rpc_frame *f)
{
	const uint8_t *p = f->data + RPC_LENGTH_BYTES;

	f->header = (struct rpc_header){
		.program = be32_load(p),
		.version = be32_load(p + 4),
		.procedure = be32_load(p + 8),
		.type = be32_load(p + 12),
		.serial = be32_load(p + 16),
		.status = be32_load(p + 20),
	};
	f->headed = true;
	return f->header.type <= RPC_STREAM_HOLE && f->header.status <= RPC_CONTINUE;
}

static bool read_body(struct rpc_frame *f)
{
	struct xdr_reader r = xdr_reader(f->data + PREFIX, f->len - PREFIX);

	f->nfds = has_fds(f->header.type) ? xdr_get_u32(&r) : 0;
	if (r.failed || f->nfds > RPC_FDS_MAX)
		return false;
	f->fd_bytes = f->nfds;
	f->payload = r.p;
	f->payload_len = xdr_left(&r);
	return true;
}

static bool length_is_sound(const struct rpc_frame *f)
{
	uint32_t len = be32_load(f->data);

	return len >= PREFIX && len <= RPC_LENGTH_BYTES + RPC_MESSAGE_MAX;
}

enum rpc_frame_result rpc_frame_feed(struct rpc_frame *f, const uint8_t *data, size_t len, size_t *used)
{
	*used = 0;
	for (;;) {
		size_t n;

		if (f->payload) {
			n = f->fd_bytes < len ? f->fd_bytes : len;
			f->fd_bytes -= (uint32_t)n;
			*used += n;
			return f->fd_bytes ? RPC_FRAME_MORE : RPC_FRAME_PACKET;
		}
		if (!len)
			return RPC_FRAME_MORE;
		n = goal(f) - f->len;
		if (n > len)
			n = len;
		if (!reserve(f, f->len + n))
			return RPC_FRAME_NO_MEMORY;
		memcpy(f->data + f->len, data, n);
		f->len += n;
		data += n;
		len -= n;
		*used += n;
		if (f->len == RPC_LENGTH_BYTES && !length_is_sound(f))
			return RPC_FRAME_BAD;
		if (f->len == PREFIX && !f->headed && !read_header(f))
			return RPC_FRAME_BAD;
		if (f->headed && f->len == be32_load(f->data) && !read_body(f))
			return RPC_FRAME_BAD;
	}
}

void rpc_frame_next(struct rpc_frame *f)
{
	uint8_t *data = f->data;
	size_t cap = f->cap;

	if (cap > KEEP) {
		free(data);
		data = NULL;
		cap = 0;
	}
	*f = (struct rpc_frame){ .data = data, .cap = cap };
}

bool rpc_frame_wants_fds(const struct rpc_frame *f)
{
	return f->payload && f->fd_bytes;
}

void rpc_frame_free(struct rpc_frame *f)
{
	free(f->data);
	*f = (struct rpc_frame){ 0 };
}
