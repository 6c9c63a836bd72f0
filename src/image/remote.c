/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "image/remote_int.h"

static const struct remote_ops *const kinds[] = { &remote_nbd, &remote_iscsi, &remote_rbd };
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static const struct remote_ops *find(const char *path)
{
	for (unsigned i = 0; i < N_KINDS; i++)
		for (const char *const *s = kinds[i]->schemes; *s; s++)
			if (!strncmp(path, *s, strlen(*s)))
				return kinds[i];
	return NULL;
}

bool remote_is_uri(const char *path)
{
	return find(path);
}

struct remote *remote_open(const char *uri, bool readonly, unsigned connections, struct err *err)
{
	return find(uri)->open(uri, readonly, connections, err);
}

int remote_create(const char *uri, uint64_t size, struct err *err)
{
	const struct remote_ops *ops = find(uri);

	return ops->create ? ops->create(uri, size, err)
			   : err_set(err, ENOTSUP, "%s has a disk already: write into it with -n", uri);
}

void remote_close(struct remote *r)
{
	if (r)
		r->ops->close(r);
}

uint64_t remote_size(const struct remote *r)
{
	return __atomic_load_n(&r->size, __ATOMIC_RELAXED);
}

int remote_read(struct remote *r, uint64_t offset, void *buf, size_t len, struct err *err)
{
	return r->ops->read(r, offset, buf, len, err);
}

int remote_write(struct remote *r, uint64_t offset, const void *buf, size_t len, bool fua, struct err *err)
{
	return r->ops->write(r, offset, buf, len, fua, err);
}

int remote_zero(struct remote *r, uint64_t offset, uint64_t len, bool unmap, struct err *err)
{
	return r->ops->zero(r, offset, len, unmap, err);
}

int remote_discard(struct remote *r, uint64_t offset, uint64_t len, struct err *err)
{
	return r->ops->discard ? r->ops->discard(r, offset, len, err) : 0;
}

int remote_flush(struct remote *r, struct err *err)
{
	return r->ops->flush ? r->ops->flush(r, err) : 0;
}

int remote_map(struct remote *r, uint64_t offset, uint64_t len, bool *data, bool *zero, uint64_t *same, struct err *err)
{
	*data = true;
	*zero = false;
	*same = len;
	return r->ops->map ? r->ops->map(r, offset, len, data, zero, same, err) : 0;
}

bool remote_can_resize(const struct remote *r)
{
	return r->ops->resize;
}

int remote_resize(struct remote *r, uint64_t size, struct err *err)
{
	int ret;

	if (!r->ops->resize)
		return err_set(err, ENOTSUP, "%s has the size that its server gives it", r->uri);
	ret = r->ops->resize(r, size, err);
	if (!ret)
		__atomic_store_n(&r->size, size, __ATOMIC_RELAXED);
	return ret;
}

int remote_refresh(struct remote *r, struct err *err)
{
	uint64_t size;
	int ret;

	if (!r->ops->refresh)
		return 0;
	ret = r->ops->refresh(r, &size, err);
	if (!ret)
		__atomic_store_n(&r->size, size, __ATOMIC_RELAXED);
	return ret;
}
