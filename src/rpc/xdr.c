/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/xdr.h"

#include <stdlib.h>
#include <string.h>

static const uint8_t *take(struct xdr_reader *r, size_t len)
{
	const uint8_t *p = r->p;

	if (r->failed || xdr_left(r) < len) {
		r->failed = true;
		return NULL;
	}
	r->p += len;
	return p;
}

uint32_t xdr_get_u32(struct xdr_reader *r)
{
	const uint8_t *p = take(r, 4);

	return p ? be32_load(p) : 0;
}

uint64_t xdr_get_u64(struct xdr_reader *r)
{
	const uint8_t *p = take(r, 8);

	return p ? (uint64_t)be32_load(p) << 32 | be32_load(p + 4) : 0;
}

bool xdr_get_bool(struct xdr_reader *r)
{
	uint32_t v = xdr_get_u32(r);

	if (v > 1)
		r->failed = true;
	return v == 1 && !r->failed;
}

const uint8_t *xdr_get_fixed(struct xdr_reader *r, size_t len)
{
	static const uint8_t zero[4];
	size_t pad = -len & 3;
	const uint8_t *p, *padding;

	p = take(r, len);
	padding = take(r, pad);
	if (!p || !padding || memcmp(padding, zero, pad)) {
		r->failed = true;
		return NULL;
	}
	return p;
}

const uint8_t *xdr_get_opaque(struct xdr_reader *r, size_t max, size_t *len)
{
	const uint8_t *p = NULL;

	*len = xdr_get_u32(r);
	if (*len > max)
		r->failed = true;
	if (!r->failed)
		p = xdr_get_fixed(r, *len);
	if (!p)
		*len = 0;
	return p;
}

void xdr_writer_free(struct xdr_writer *w)
{
	free(w->data);
	w->data = NULL;
	w->len = w->cap = 0;
}

uint8_t *xdr_put_room(struct xdr_writer *w, size_t len)
{
	uint8_t *p;

	if (w->failed || len > w->max - w->len) {
		w->failed = true;
		return NULL;
	}
	if (len > w->cap - w->len) {
		size_t cap = w->cap ? w->cap : 128;

		while (cap - w->len < len)
			cap *= 2;
		p = realloc(w->data, cap);
		if (!p) {
			w->failed = true;
			return NULL;
		}
		w->data = p;
		w->cap = cap;
	}
	p = w->data + w->len;
	w->len += len;
	return p;
}

void xdr_put_u32(struct xdr_writer *w, uint32_t v)
{
	uint8_t *p = xdr_put_room(w, 4);

	if (p)
		be32_store(p, v);
}

void xdr_put_u64(struct xdr_writer *w, uint64_t v)
{
	uint8_t *p = xdr_put_room(w, 8);

	if (p) {
		be32_store(p, (uint32_t)(v >> 32));
		be32_store(p + 4, (uint32_t)v);
	}
}

void xdr_put_fixed(struct xdr_writer *w, const void *data, size_t len)
{
	size_t pad = -len & 3;
	uint8_t *p = xdr_put_room(w, len + pad);

	if (!p)
		return;
	if (len)
		memcpy(p, data, len);
	memset(p + len, 0, pad);
}

void xdr_put_opaque(struct xdr_writer *w, const void *p, size_t len)
{
	if (len > UINT32_MAX) {
		w->failed = true;
		return;
	}
	xdr_put_u32(w, (uint32_t)len);
	xdr_put_fixed(w, p, len);
}
