/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/remote.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#ifdef HAVE_LIBNBD
#include <libnbd.h>
#endif

bool remote_is_uri(const char *path)
{
	static const char *const schemes[] = { "nbd://", "nbds://", "nbd+unix://", "nbds+unix://" };

	for (unsigned i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
		if (!strncmp(path, schemes[i], strlen(schemes[i])))
			return true;
	return false;
}

#ifdef HAVE_LIBNBD

#define MOST (16u << 20) /* bytes a request: what servers take */
#define MOST_ZEROES (1u << 30)
#define MAX_CONNECTIONS 8u
#define ZEROES 65536u

struct remote {
	char *uri;
	uint64_t size;
	bool can_zero, can_trim, can_flush, can_fua, knows_map;
	unsigned n, next; /* next: atomic */
	struct connection {
		struct nbd_handle *h;
		pthread_mutex_t lock;
	} c[MAX_CONNECTIONS];
};

static int failed(const struct remote *r, const char *what, uint64_t offset, struct err *err)
{
	int code = nbd_get_errno() ? nbd_get_errno() : EIO;

	return err_set(err, code, "%s: %s at byte %llu: %s", r->uri, what, (unsigned long long)offset,
		       nbd_get_error() ? nbd_get_error() : "the connection broke");
}

static int connect_one(struct remote *r, struct err *err)
{
	struct connection *c = &r->c[r->n];

	c->h = nbd_create();
	if (!c->h)
		return err_set(err, ENOMEM, "%s: no memory for a connection", r->uri);
	/* Whoever names the server may name the certificates for it. */
	if (nbd_set_uri_allow_local_file(c->h, true) || nbd_add_meta_context(c->h, LIBNBD_CONTEXT_BASE_ALLOCATION) ||
	    nbd_connect_uri(c->h, r->uri)) {
		int code = nbd_get_errno() ? nbd_get_errno() : ECONNREFUSED;

		err_set(err, code, "cannot connect to %s: %s", r->uri, nbd_get_error());
		nbd_close(c->h);
		return -code;
	}
	pthread_mutex_init(&c->lock, NULL);
	r->n++;
	return 0;
}

static int look(struct remote *r, bool readonly, struct err *err)
{
	struct nbd_handle *h = r->c[0].h;
	int64_t size = nbd_get_size(h);

	if (size <= 0)
		return err_set(err, EINVAL, "%s: its size is not known, or 0", r->uri);
	if (!readonly && nbd_is_read_only(h) > 0)
		return err_set(err, EROFS, "%s is read-only at the server: open it with readonly=on", r->uri);
	r->size = size;
	r->can_zero = nbd_can_zero(h) > 0;
	r->can_trim = nbd_can_trim(h) > 0;
	r->can_flush = nbd_can_flush(h) > 0;
	r->can_fua = nbd_can_fua(h) > 0;
	r->knows_map = nbd_can_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
	return 0;
}

struct remote *remote_open(const char *uri, bool readonly, unsigned connections, struct err *err)
{
	struct remote *r = calloc(1, sizeof(*r));
	int ret;

	if (!r || !(r->uri = strdup(uri))) {
		free(r);
		err_set(err, ENOMEM, "no memory to open %s", uri);
		return NULL;
	}
	ret = connect_one(r, err);
	if (!ret)
		ret = look(r, readonly, err);
	if (ret) {
		remote_close(r);
		return NULL;
	}
	/* More of them only where a flush on one is a flush of all. */
	while (r->n < connections && r->n < MAX_CONNECTIONS && nbd_can_multi_conn(r->c[0].h) > 0)
		if (connect_one(r, NULL))
			break;
	return r;
}

void remote_close(struct remote *r)
{
	if (!r)
		return;
	for (unsigned i = 0; i < r->n; i++) {
		nbd_shutdown(r->c[i].h, 0);
		nbd_close(r->c[i].h);
		pthread_mutex_destroy(&r->c[i].lock);
	}
	free(r->uri);
	free(r);
}

uint64_t remote_size(const struct remote *r)
{
	return r->size;
}

static struct connection *take(struct remote *r)
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

int remote_read(struct remote *r, uint64_t offset, void *buf, size_t len, struct err *err)
{
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

static int flush(struct remote *r, struct connection *c, struct err *err)
{
	return r->can_flush && nbd_flush(c->h, 0) ? failed(r, "flushing", 0, err) : 0;
}

int remote_write(struct remote *r, uint64_t offset, const void *buf, size_t len, bool fua, struct err *err)
{
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

int remote_zero(struct remote *r, uint64_t offset, uint64_t len, bool unmap, struct err *err)
{
	static const uint8_t zeroes[ZEROES];
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

int remote_discard(struct remote *r, uint64_t offset, uint64_t len, struct err *err)
{
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

int remote_flush(struct remote *r, struct err *err)
{
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

int remote_map(struct remote *r, uint64_t offset, uint64_t len, bool *data, bool *zero, uint64_t *same, struct err *err)
{
	struct found f = { 0 };
	struct connection *c;
	int ret = 0;

	*data = true;
	*zero = false;
	*same = len;
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

#else

struct remote *remote_open(const char *uri, bool readonly, unsigned connections, struct err *err)
{
	err_set(err, ENOTSUP, "%s: this Keel was built without libnbd", uri);
	return NULL;
}

void remote_close(struct remote *r)
{
}

uint64_t remote_size(const struct remote *r)
{
	return 0;
}

int remote_read(struct remote *r, uint64_t offset, void *buf, size_t len, struct err *err)
{
	return -ENOTSUP;
}

int remote_write(struct remote *r, uint64_t offset, const void *buf, size_t len, bool fua, struct err *err)
{
	return -ENOTSUP;
}

int remote_zero(struct remote *r, uint64_t offset, uint64_t len, bool unmap, struct err *err)
{
	return -ENOTSUP;
}

int remote_discard(struct remote *r, uint64_t offset, uint64_t len, struct err *err)
{
	return -ENOTSUP;
}

int remote_flush(struct remote *r, struct err *err)
{
	return -ENOTSUP;
}

int remote_map(struct remote *r, uint64_t offset, uint64_t len, bool *data, bool *zero, uint64_t *same, struct err *err)
{
	return -ENOTSUP;
}

#endif
