/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Transmission: NBD doc/proto.md, "Transmission phase". One request after the other, as the client sent them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/nbd_server_int.h"

#define SECTOR 512u
#define MAX_EXTENTS 4096u

enum { CHUNK_NONE, CHUNK_DATA, CHUNK_HOLE, CHUNK_STATUS = 5, CHUNK_ERROR = 0x8001 };
#define CHUNK_DONE 1

struct request {
	uint16_t flags, type;
	uint64_t handle, offset;
	uint32_t len;
};

/* ---- Answers ------------------------------------------------------------------------------ */

static uint32_t error_of(int ret)
{
	switch (-ret) {
	case 0:
	case EPERM:
	case ENOMEM:
	case EINVAL:
	case ENOSPC:
	case EOVERFLOW:
	case EOPNOTSUPP:
	case ESHUTDOWN:
		return -ret;
	case EROFS:
		return EPERM;
	case EDQUOT:
	case EFBIG:
		return ENOSPC;
	default:
		return EIO;
	}
}

static bool chunk(struct client *c, const struct request *r, unsigned flags, unsigned type, const void *head,
		  uint32_t nhead, const void *data, uint32_t ndata)
{
	uint8_t buf[20 + 12];

	put32(buf, NBD_STRUCTURED_MAGIC);
	put16(buf + 4, flags);
	put16(buf + 6, type);
	put64(buf + 8, r->handle);
	put32(buf + 16, nhead + ndata);
	memcpy(buf + 20, head, nhead);
	return client_write_both(c, buf, 20 + nhead, data, ndata);
}

static bool answer(struct client *c, const struct request *r, int ret)
{
	uint8_t buf[16];

	if (c->structured && ret) {
		put32(buf, error_of(ret));
		put16(buf + 4, 0);
		return chunk(c, r, CHUNK_DONE, CHUNK_ERROR, buf, 6, NULL, 0);
	}
	put32(buf, NBD_SIMPLE_MAGIC);
	put32(buf + 4, error_of(ret));
	put64(buf + 8, r->handle);
	return client_write(c, buf, 16);
}

/* ---- I/O ------------------------------------------------------------------------------------ */

static void ended(struct block_request *r, int ret)
{
	*(int *)r->opaque = ret;
}

static int perform(struct client *c, enum block_op op, uint64_t offset, void *buf, uint64_t len, bool fua, bool unmap)
{
	int ret = -EIO;
	struct iovec iov = { buf, len };
	struct block_request r = { .op = op,
				   .offset = offset,
				   .len = len,
				   .iov = &iov,
				   .niov = 1,
				   .fua = fua,
				   .unmap = unmap,
				   .done = ended,
				   .opaque = &ret };

	block_submit(c->q, &r);
	block_kick(c->q);
	block_drain(c->q);
	return ret;
}

static uint64_t down(uint64_t n)
{
	return n & ~(uint64_t)(SECTOR - 1);
}

static uint64_t up(uint64_t n)
{
	return down(n + SECTOR - 1);
}

/* Any bytes; *data is where they are in the client's buffer, which has room for two sectors more. */
static int read_bytes(struct client *c, uint64_t offset, uint32_t len, uint8_t **data)
{
	uint64_t from = down(offset), to = up(offset + len);
	uint8_t *buf = client_room(c, to - from);

	*data = buf + (offset - from);
	return !buf ? -ENOMEM : !len ? 0 : perform(c, BLOCK_READ, from, buf, to - from, false, false);
}

/* The part of one sector. */
static int write_part(struct client *c, uint64_t offset, const uint8_t *data, uint32_t len, bool fua)
{
	uint8_t sector[SECTOR] __attribute__((aligned(SECTOR)));
	int ret;

	pthread_mutex_lock(&c->e->edge);
	ret = perform(c, BLOCK_READ, down(offset), sector, SECTOR, false, false);
	if (!ret) {
		if (data)
			memcpy(sector + offset % SECTOR, data, len);
		else
			memset(sector + offset % SECTOR, 0, len);
		ret = perform(c, BLOCK_WRITE, down(offset), sector, SECTOR, fua, false);
	}
	pthread_mutex_unlock(&c->e->edge);
	return ret;
}

/* Whole sectors at once, the ends by themselves. data NULL: zeroes. */
static int write_bytes(struct client *c, uint64_t offset, uint8_t *data, uint64_t len, bool fua, bool unmap)
{
	int ret = 0;

	while (!ret && len) {
		uint64_t n = offset % SECTOR || len < SECTOR ? SECTOR - offset % SECTOR : down(len);

		n = n < len ? n : len;
		if (offset % SECTOR || n < SECTOR)
			ret = write_part(c, offset, data, n, fua);
		else
			ret = perform(c, data ? BLOCK_WRITE : BLOCK_WRITE_ZEROES, offset, data, n, fua, unmap);
		offset += n;
		data = data ? data + n : NULL;
		len -= n;
	}
	/* Zeroes know no FUA. */
	return !ret && fua && !data ? perform(c, BLOCK_FLUSH, 0, NULL, 0, false, false) : ret;
}

static int trim(struct client *c, const struct request *r)
{
	uint64_t from = up(r->offset), to = down(r->offset + r->len);
	int ret = from < to ? perform(c, BLOCK_DISCARD, from, NULL, to - from, false, false) : 0;

	return !ret && r->flags & NBD_CMD_FUA ? perform(c, BLOCK_FLUSH, 0, NULL, 0, false, false) : ret;
}

/* ---- Reads ------------------------------------------------------------------------------------ */

static bool read_whole(struct client *c, const struct request *r)
{
	uint8_t head[8], *data;
	int ret = read_bytes(c, r->offset, r->len, &data);

	if (ret)
		return answer(c, r, ret);
	if (!c->structured)
		return answer(c, r, 0) && client_write(c, data, r->len);
	put64(head, r->offset);
	return chunk(c, r, CHUNK_DONE, CHUNK_DATA, head, 8, data, r->len);
}

/* Zeroes are told of, not sent. */
static bool read_sparse(struct client *c, const struct request *r)
{
	uint64_t at = r->offset, end = r->offset + r->len;
	uint8_t head[12], *data;
	bool good = true;

	while (good && at < end) {
		struct image_extent e;
		int ret = block_map(c->e->block, UINT32_MAX, at, end - at, &e, NULL);
		unsigned flags;

		if (ret)
			e = (struct image_extent){ .len = end - at, .data = true };
		flags = at + e.len == end ? CHUNK_DONE : 0;
		put64(head, at);
		if (e.zero) {
			put32(head + 8, e.len);
			good = chunk(c, r, flags, CHUNK_HOLE, head, 12, NULL, 0);
		} else {
			ret = read_bytes(c, at, e.len, &data);
			if (ret)
				return answer(c, r, ret);
			good = chunk(c, r, flags, CHUNK_DATA, head, 8, data, e.len);
		}
		at += e.len;
	}
	return good;
}

/* ---- Block status -------------------------------------------------------------------------------- */

static int extent_at(struct client *c, unsigned context, uint64_t at, uint64_t len, uint64_t *same, uint32_t *flags)
{
	struct image_extent e;
	uint64_t next = at, n;
	int ret = 0;

	if (!context) {
		ret = block_map(c->e->block, UINT32_MAX, at, len, &e, NULL);
		*same = e.len;
		*flags = (e.data ? 0 : 1) | (e.zero ? 2 : 0);
		return ret;
	}
	if (!dirty_next(&c->e->bitmap[context - 1].bits, &next, &n, len) || next >= at + len) {
		*same = len;
		*flags = 0;
	} else {
		*flags = next == at;
		*same = next == at ? (n < len ? n : len) : next - at;
	}
	return 0;
}

static bool status_of(struct client *c, const struct request *r, unsigned context, bool last)
{
	unsigned most = r->flags & NBD_CMD_ONE ? 1 : MAX_EXTENTS, n = 0;
	uint64_t at = r->offset, end = r->offset + r->len;
	uint8_t *list = client_room(c, MAX_EXTENTS * 8), head[4];
	uint32_t before = UINT32_MAX;
	int ret = list ? 0 : -ENOMEM;

	while (!ret && at < end) {
		uint64_t same = 0;
		uint32_t flags = 0;

		ret = extent_at(c, context, at, end - at, &same, &flags);
		if (ret || !same)
			break;
		if (n && flags == before) {
			put32(list + 8 * (n - 1), get32(list + 8 * (n - 1)) + same);
		} else if (n < most) {
			put32(list + 8 * n, same);
			put32(list + 8 * n++ + 4, flags);
		} else {
			break;
		}
		before = flags;
		at += same;
	}
	if (ret || !n)
		return answer(c, r, ret ? ret : -EIO);
	put32(head, context);
	return chunk(c, r, last ? CHUNK_DONE : 0, CHUNK_STATUS, head, 4, list, 8 * n);
}

static bool block_status(struct client *c, const struct request *r)
{
	bool good = true;

	if (!c->structured || c->meta_of != c->e || !c->ncontexts || !r->len)
		return answer(c, r, -EINVAL);
	for (unsigned i = 0; good && i < c->ncontexts; i++)
		good = status_of(c, r, c->context[i], i + 1 == c->ncontexts);
	return good;
}

/* ---- Requests -------------------------------------------------------------------------------------- */

static const uint16_t flags_known[] = {
	[NBD_CMD_READ] = NBD_CMD_FUA | NBD_CMD_DF,
	[NBD_CMD_WRITE] = NBD_CMD_FUA,
	[NBD_CMD_DISC] = 0,
	[NBD_CMD_FLUSH] = NBD_CMD_FUA,
	[NBD_CMD_TRIM] = NBD_CMD_FUA,
	[NBD_CMD_CACHE] = NBD_CMD_FUA,
	[NBD_CMD_ZEROES] = NBD_CMD_FUA | NBD_CMD_NO_HOLE,
	[NBD_CMD_STATUS] = NBD_CMD_FUA | NBD_CMD_ONE,
};

static int check(const struct client *c, const struct request *r)
{
	uint64_t size = block_size(c->e->block);
	bool writes = r->type == NBD_CMD_WRITE || r->type == NBD_CMD_TRIM || r->type == NBD_CMD_ZEROES;

	if (r->type > NBD_CMD_STATUS || r->type == NBD_CMD_CACHE || r->flags & ~flags_known[r->type])
		return -EINVAL;
	if (writes && !c->e->writable)
		return -EPERM;
	if (r->type != NBD_CMD_FLUSH && (r->offset > size || r->len > size - r->offset))
		return writes && r->type != NBD_CMD_TRIM ? -ENOSPC : -EINVAL;
	if (r->type == NBD_CMD_READ && r->len > NBD_MAX_DATA)
		return -EOVERFLOW;
	return 0;
}

/* A write's data are in the buffer. */
static bool handle(struct client *c, const struct request *r, uint8_t *data)
{
	int ret = check(c, r);

	if (ret)
		return answer(c, r, ret);
	switch (r->type) {
	case NBD_CMD_READ:
		return c->structured && !(r->flags & NBD_CMD_DF) && r->len ? read_sparse(c, r) : read_whole(c, r);
	case NBD_CMD_WRITE:
		ret = r->len ? write_bytes(c, r->offset, data, r->len, r->flags & NBD_CMD_FUA, false) : 0;
		break;
	case NBD_CMD_FLUSH:
		ret = perform(c, BLOCK_FLUSH, 0, NULL, 0, false, false);
		break;
	case NBD_CMD_TRIM:
		ret = trim(c, r);
		break;
	case NBD_CMD_ZEROES:
		ret = write_bytes(c, r->offset, NULL, r->len, r->flags & NBD_CMD_FUA, !(r->flags & NBD_CMD_NO_HOLE));
		break;
	case NBD_CMD_STATUS:
		return block_status(c, r);
	}
	return answer(c, r, ret);
}

void client_serve(struct client *c)
{
	uint8_t head[28];
	bool good = true;

	while (good && client_read(c, head, sizeof(head)) && get32(head) == NBD_REQUEST_MAGIC) {
		struct request r = { .flags = get16(head + 4),
				     .type = get16(head + 6),
				     .handle = get64(head + 8),
				     .offset = get64(head + 16),
				     .len = get32(head + 24) };
		uint8_t *data = NULL;

		if (r.type == NBD_CMD_DISC)
			break;
		if (r.type == NBD_CMD_WRITE) {
			if (r.len > NBD_MAX_DATA)
				break; /* nobody sends that */
			data = client_room(c, r.len + 1);
			if (!data) {
				good = client_skip(c, r.len) && answer(c, &r, -ENOMEM);
				continue;
			}
			if (!client_read(c, data, r.len))
				break;
		}
		good = handle(c, &r, data);
	}
}
