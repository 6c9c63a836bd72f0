/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/remote_int.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#ifdef HAVE_LIBNBD
#include <libnbd.h>
#endif

static const char *const schemes[] = { "nbd://", "nbds://", "nbd+unix://", "nbds+unix://", NULL };

#ifdef HAVE_LIBNBD

#define MOST (16u << 20) /* bytes a request: what servers take */
#define MOST_ZEROES (1u << 30)
#define MAX_CONNECTIONS 8u
#define ZEROES 65536u

struct nbd {
	struct remote base;
	bool can_zero, can_trim, can_flush, can_fua, knows_map;
	unsigned n, next; /* next: atomic */
	struct connection {
		struct nbd_handle *h;
		pthread_mutex_t lock;
	} c[MAX_CONNECTIONS];
};

static int failed(const struct nbd *r, const char *what, uint64_t offset, struct err *err)
{
	int code = nbd_get_errno() ? nbd_get_errno() : EIO;

	return err_set(err, code, "%s: %s at byte %llu: %s", r->base.uri, what, (unsigned long long)offset,
		       nbd_get_error() ? nbd_get_error() : "the connection broke");
}

static int connect_one(struct nbd *r, struct err *err)
{
	struct connection *c = &r->c[r->n];

	c->h = nbd_create();
	if (!c->h)
		return err_set(err, ENOMEM, "%s: no memory for a connection", r->base.uri);
	/* Whoever names the server may name the certificates for it. */
	if (nbd_set_uri_allow_local_file(c->h, true) || nbd_add_meta_context(c->h, LIBNBD_CONTEXT_BASE_ALLOCATION) ||
	    nbd_connect_uri(c->h, r->base.uri)) {
		int code = nbd_get_errno() ? nbd_get_errno() : ECONNREFUSED;

		err_set(err, code, "cannot connect to %s: %s", r->base.uri, nbd_get_error());
		nbd_close(c->h);
		return -code;
	}
	pthread_mutex_init(&c->lock, NULL);
	r->n++;
	return 0;
}

static int look(struct nbd *r, bool readonly, struct err *err)
{
	struct nbd_handle *h = r->c[0].h;
	int64_t size = nbd_get_size(h);

	if (size <= 0)
		return err_set(err, EINVAL, "%s: its size is not known, or 0", r->base.uri);
	if (!readonly && nbd_is_read_only(h) > 0)
		return err_set(err, EROFS, "%s is read-only at the server: open it with readonly=on", r->base.uri);
	r->base.size = size;
	r->can_zero = nbd_can_zero(h) > 0;
	r->can_trim = nbd_can_trim(h) > 0;
	r->can_flush = nbd_can_flush(h) > 0;
	r->can_fua = nbd_can_fua(h) > 0;
	r->knows_map = nbd_can_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
	return 0;
}

static void close_nbd(struct remote *base)
{
	struct nbd *r = (struct nbd *)base;

	for (unsigned i = 0; i < r->n; i++) {
		nbd_shutdown(r->c[i].h, 0);
		nbd_close(r->c[i].h);
		pthread_mutex_destroy(&r->c[i].lock);
	}
	free(r->base.uri);
	free(r);
}

static struct remote *open_nbd(const char *uri, bool readonly, unsigned connections, struct err *err)
{
	struct nbd *r = calloc(1, sizeof(*r));
	int ret;

	if (!r || !(r->base.uri = strdup(uri))) {
		free(r);
		err_set(err, ENOMEM, "no memory to open %s", uri);
		return NULL;
	}
	ret = connect_one(r, err);
	if (!ret)
		ret = look(r, readonly, err);
	if (ret) {
		close_nbd(&r->base);
		return NULL;
	}
	/* More of them only where a flush on one is a flush of all. */
	while (r->n < connections && r->n < MAX_CONNECTIONS && nbd_can_multi_conn(r->c[0].h) > 0)
		if (connect_one(r, NULL))
			break;
	r->base.ops = &remote_nbd;
	return &r->base;
}

static struct connection *take(struct nbd *r)
{
	unsigned first = __atomic_fetch_add(&r->next, 1, __ATOMIC_RELAXED);

	for (unsigned i = 0; i < r->n; i++)
		if (!pthread_mutex_trylock(&r->c[(first + i) % r->n].lock))
			return &r->c[(first + i) % r->n];
	pthread_mutex_lock(&r->c[first % r->n].lock);
	return &r->c[first % r->n];
}

static void give(struct connection *c)
{
	pthread_mutex_unlock(&c->lock);
}

static int read_nbd(struct remote *base, uint64_t offset, void *buf, size_t len, struct err *err)
{
	struct nbd *r = (struct nbd *)base;
	struct connection *c = take(r);
	uint8_t *p = buf;
	int ret = 0;

	for (size_t n; len && !ret; p += n, offset += n, len -= n) {
		n = len < MOST ? len : MOST;
		if (nbd_pread(c->h, p, n, offset, 0))
			ret = failed(r, "reading", offset, err);
	}
	give(c);
	return ret;
}

static int flush(struct nbd *r, struct connection *c, struct err *err)
{
	return r->can_flush && nbd_flush(c->h, 0) ? failed(r, "flushing", 0, err) : 0;
}

static int write_nbd(struct remote *base, uint64_t offset, const void *buf, size_t len, bool fua, struct err *err)
{
	struct nbd *r = (struct nbd *)base;
	struct connection *c = take(r);
	uint32_t flags = fua && r->can_fua ? LIBNBD_CMD_FLAG_FUA : 0;
	const uint8_t *p = buf;
	int ret = 0;

	for (size_t n; len && !ret; p += n, offset += n, len -= n) {
		n = len < MOST ? len : MOST;
		if (nbd_pwrite(c->h, p, n, offset, flags))
			ret = failed(r, "writing", offset, err);
	}
	if (!ret && fua && !r->can_fua)
		ret = flush(r, c, err);
	give(c);
	return ret;
}

static int zero_nbd(struct remote *base, uint64_t offset, uint64_t len, bool unmap, struct err *err)
{
	static const uint8_t zeroes[ZEROES];
	struct nbd *r = (struct nbd *)base;
	struct connection *c = take(r);
	int ret = 0;

	for (uint64_t n; len && !ret; offset += n, len -= n) {
		uint64_t most = r->can_zero ? MOST_ZEROES : ZEROES;

		n = len < most ? len : most;
		if (r->can_zero ? nbd_zero(c->h, n, offset, unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE)
				: nbd_pwrite(c->h, zeroes, n, offset, 0))
			ret = failed(r, "writing zeroes", offset, err);
	}
	give(c);
	return ret;
}

static int discard_nbd(struct remote *base, uint64_t offset, uint64_t len, struct err *err)
{
	struct nbd *r = (struct nbd *)base;
	struct connection *c = take(r);
	int ret = 0;

	for (uint64_t n; r->can_trim && len && !ret; offset += n, len -= n) {
		n = len < MOST_ZEROES ? len : MOST_ZEROES;
		if (nbd_trim(c->h, n, offset, 0))
			ret = failed(r, "discarding", offset, err);
	}
	give(c);
	return ret;
}

static int flush_nbd(struct remote *base, struct err *err)
{
	struct nbd *r = (struct nbd *)base;
	struct connection *c = take(r);
	int ret = flush(r, c, err);

	give(c);
	return ret;
}

struct found {
	uint64_t len;
	uint32_t flags;
};

/* The first stretches of one kind. */
static int extents(void *opaque, const char *context, uint64_t offset, uint32_t *entries, size_t n, int *error)
{
	struct found *f = opaque;

	if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) || f->len)
		return 0;
	for (size_t i = 0; i + 1 < n && (!i || (entries[i + 1] & 3) == f->flags); i += 2) {
		f->len += entries[i];
		f->flags = entries[i + 1] & 3;
	}
	return 0;
}

static int map_nbd(struct remote *base, uint64_t offset, uint64_t len, bool *data, bool *zero, uint64_t *same, struct err *err)
{
	struct nbd *r = (struct nbd *)base;
	struct found f = { 0 };
	struct connection *c;
	int ret = 0;

	if (!r->knows_map)
		return 0;
	len = len < MOST_ZEROES ? len : MOST_ZEROES;
	c = take(r);
	if (nbd_block_status(c->h, len, offset, (nbd_extent_callback){ .callback = extents, .user_data = &f }, 0))
		ret = failed(r, "asking for the allocation", offset, err);
	give(c);
	if (!ret && f.len) {
		*same = f.len < len ? f.len : len;
		*data = !(f.flags & LIBNBD_STATE_HOLE);
		*zero = f.flags & LIBNBD_STATE_ZERO;
	}
	return ret;
}

const struct remote_ops remote_nbd = {
	.schemes = schemes, .open = open_nbd, .close = close_nbd, .read = read_nbd, .write = write_nbd, .zero = zero_nbd,
	.discard = discard_nbd, .flush = flush_nbd, .map = map_nbd,
};

#else

static struct remote *open_nbd(const char *uri, bool readonly, unsigned connections, struct err *err)
{
	err_set(err, ENOTSUP, "%s: this Keel was built without libnbd", uri);
	return NULL;
}

const struct remote_ops remote_nbd = { .schemes = schemes, .open = open_nbd };

#endif
