/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * XDR (RFC 4506) primitives.
 *
 * Reading is from hostile bytes: a read past the end or a malformed item makes
 * the reader fail, which is sticky; every later read then gives zero, so a
 * caller may read a whole record and look at `failed` once.
 * Writing grows a buffer up to a limit; failure is sticky as well.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xdr_reader {
	const uint8_t *p, *end;
	bool failed;
};

static inline struct xdr_reader xdr_reader(const void *data, size_t len)
{
	return (struct xdr_reader){ .p = data, .end = (const uint8_t *)data + len };
}

static inline size_t xdr_left(const struct xdr_reader *r)
{
	return (size_t)(r->end - r->p);
}

uint32_t xdr_get_u32(struct xdr_reader *r);
uint64_t xdr_get_u64(struct xdr_reader *r);
/* 0 or 1; anything else fails. */
bool xdr_get_bool(struct xdr_reader *r);
/* `len` bytes and their padding, which must be zero; NULL on failure. They point into the reader's data. */
const uint8_t *xdr_get_fixed(struct xdr_reader *r, size_t len);
/* A length of at most `max`, that many bytes and padding; NULL on failure. */
const uint8_t *xdr_get_opaque(struct xdr_reader *r, size_t max, size_t *len);

struct xdr_writer {
	uint8_t *data;
	size_t len, cap, max;
	bool failed;
};

/* `max` bounds the whole buffer. Freed by xdr_writer_free(), or its data by whoever takes it, with free(). */
static inline struct xdr_writer xdr_writer(size_t max)
{
	return (struct xdr_writer){ .max = max };
}

void xdr_writer_free(struct xdr_writer *w);
/* Room for `len` raw bytes, or NULL. */
uint8_t *xdr_put_room(struct xdr_writer *w, size_t len);
void xdr_put_u32(struct xdr_writer *w, uint32_t v);
void xdr_put_u64(struct xdr_writer *w, uint64_t v);
void xdr_put_fixed(struct xdr_writer *w, const void *p, size_t len);
void xdr_put_opaque(struct xdr_writer *w, const void *p, size_t len);

static inline uint32_t be32_load(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void be32_store(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}
