/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disks in Ceph, through librbd:
 *
 *   rbd:POOL[/NAMESPACE]/IMAGE[@SNAPSHOT][:SETTING=VALUE]...
 *
 *   id=USER          without "client."; Ceph's default is admin
 *   conf=FILE        Ceph's configuration; else where Ceph looks for it
 *   key-secret=ID    the secret with USER's key, as Ceph prints it
 *   others           set in Ceph's configuration: mon_host, keyring, ...
 *
 * ':', '@', '/' and '\' in a part have a '\' before them. The library is loaded
 * when the first such name is opened: it is larger than all of Keel.
 *
 * Whoever writes an image with the exclusive lock's feature holds that lock, so
 * that no second writer gets in.
 */
#include "image/remote_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef HAVE_LIBRBD
#include <dlfcn.h>
#include <pthread.h>

#include <rbd/librbd.h>

#include "image/rbd_name.h"
#include "util/secret.h"
#endif

static const char *const schemes[] = { "rbd:", NULL };

#ifdef HAVE_LIBRBD

#define MOST (16u << 20) /* bytes a call */
#define MOST_ZEROES (1u << 30)
#define CONNECT_SECONDS "30"
#define OWNERS 8u

/* ---- The library ------------------------------------------------------------------ */

#define RADOS(X)                                                                                                       \
	X(rados_create) X(rados_conf_read_file) X(rados_conf_set) X(rados_connect) X(rados_shutdown)                   \
	X(rados_ioctx_create) X(rados_ioctx_destroy) X(rados_ioctx_set_namespace)
#define RBD(X)                                                                                                         \
	X(rbd_open) X(rbd_open_read_only) X(rbd_close) X(rbd_get_size) X(rbd_get_features) X(rbd_lock_acquire)          \
	X(rbd_lock_release) X(rbd_lock_get_owners) X(rbd_lock_get_owners_cleanup) X(rbd_read) X(rbd_write2)             \
	X(rbd_flush) X(rbd_discard) X(rbd_write_zeroes) X(rbd_resize) X(rbd_diff_iterate2) X(rbd_create)

#define POINTER(name) __typeof__(name) *name;
static struct {
	RADOS(POINTER) RBD(POINTER)
} f;

#define NAME(name) #name,
static const char *const names[] = { RADOS(NAME) RBD(NAME) };

static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;
static bool loaded;

static int load(struct err *err)
{
	void *lib = dlopen("librbd.so.1", RTLD_NOW | RTLD_LOCAL);

	/* It brings librados with it. */
	if (!lib)
		return err_set(err, ENOTSUP, "librbd, which is needed for disks in Ceph, cannot be loaded: %s", dlerror());
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		void *at = dlsym(lib, names[i]);

		if (!at) {
			dlclose(lib);
			return err_set(err, ENOTSUP, "librbd is too old for Keel: it has no %s", names[i]);
		}
		memcpy((char *)&f + i * sizeof(at), &at, sizeof(at));
	}
	loaded = true;
	return 0;
}

static int load_once(struct err *err)
{
	int ret = 0;

	pthread_mutex_lock(&loading);
	if (!loaded)
		ret = load(err);
	pthread_mutex_unlock(&loading);
	return ret;
}

/* ---- Opening ---------------------------------------------------------------------- */

struct rbd {
	struct remote base;
	struct rbd_name name;
	rados_t cluster; /* these three: or NULL */
	rados_ioctx_t pool;
	rbd_image_t image;
	bool locked;
};

static struct rbd *rbd_of(struct remote *r)
{
	return (struct rbd *)r;
}

static int set(struct rbd *d, const char *key, const char *value, struct err *err)
{
	return f.rados_conf_set(d->cluster, key, value) < 0
		       ? err_set(err, EINVAL, "%s: Ceph knows no setting '%s', or not with that value", d->base.uri, key)
		       : 0;
}

static int set_key(struct rbd *d, struct err *err)
{
	size_t len;
	char *key;
	int ret;

	if (!d->name.secret)
		return 0;
	key = secret_get(d->name.secret, &len, err);
	if (!key)
		return -ENOENT;
	while (len && key[len - 1] == '\n')
		key[--len] = 0;
	ret = set(d, "key", key, err);
	secret_wipe(key, len);
	return ret;
}

static int configure(struct rbd *d, struct err *err)
{
	int ret = f.rados_conf_read_file(d->cluster, d->name.conf);

	/* Without a file everything may come from the name. */
	if (ret < 0 && d->name.conf)
		return err_set_errno(err, -ret, "%s: cannot read Ceph's configuration %s", d->base.uri, d->name.conf);
	ret = set(d, "client_mount_timeout", CONNECT_SECONDS, err);
	if (!ret)
		ret = set_key(d, err);
	for (unsigned i = 0; !ret && i < d->name.settings; i++)
		ret = set(d, d->name.setting[i].key, d->name.setting[i].value, err);
	return ret;
}

static int connect_pool(struct rbd *d, struct err *err)
{
	int ret = f.rados_create(&d->cluster, d->name.id);

	if (ret < 0) {
		d->cluster = NULL;
		return err_set_errno(err, -ret, "%s: Ceph's library does not start", d->base.uri);
	}
	ret = configure(d, err);
	if (ret)
		return ret;
	ret = f.rados_connect(d->cluster);
	if (ret < 0)
		return err_set_errno(err, -ret, "cannot connect to the Ceph cluster of %s", d->base.uri);
	ret = f.rados_ioctx_create(d->cluster, d->name.pool, &d->pool);
	if (ret < 0) {
		d->pool = NULL;
		return err_set_errno(err, -ret, "%s: pool %s", d->base.uri, d->name.pool);
	}
	if (d->name.space)
		f.rados_ioctx_set_namespace(d->pool, d->name.space);
	return 0;
}

/* Somebody else has it: who? */
static int owned(struct rbd *d, int code, struct err *err)
{
	rbd_lock_mode_t mode;
	char *owner[OWNERS];
	size_t n = OWNERS;

	if (!f.rbd_lock_get_owners(d->image, &mode, owner, &n) && n) {
		err_set(err, EBUSY, "%s is in use by %s: two writers would destroy it", d->base.uri, owner[0]);
		f.rbd_lock_get_owners_cleanup(owner, n);
		return -EBUSY;
	}
	return err_set_errno(err, code, "%s: cannot have it exclusively", d->base.uri);
}

static int open_image(struct rbd *d, bool readonly, struct err *err)
{
	uint64_t features = 0;
	int ret;

	if (d->name.snapshot && !readonly)
		return err_set(err, EROFS, "%s is a snapshot, which never changes: open it with readonly=on", d->base.uri);
	ret = readonly ? f.rbd_open_read_only(d->pool, d->name.image, &d->image, d->name.snapshot)
		       : f.rbd_open(d->pool, d->name.image, &d->image, NULL);
	if (ret < 0) {
		d->image = NULL;
		return err_set_errno(err, -ret, "cannot open %s", d->base.uri);
	}
	if (!readonly && !f.rbd_get_features(d->image, &features) && features & RBD_FEATURE_EXCLUSIVE_LOCK) {
		ret = f.rbd_lock_acquire(d->image, RBD_LOCK_MODE_EXCLUSIVE);
		if (ret < 0)
			return owned(d, -ret, err);
		d->locked = true;
	}
	return 0;
}

static int ask_size(struct remote *r, uint64_t *size, struct err *err)
{
	int ret = f.rbd_get_size(rbd_of(r)->image, size);

	return ret < 0 ? err_set_errno(err, -ret, "%s: asking for its size", r->uri) : 0;
}

static void close_disk(struct remote *r)
{
	struct rbd *d = rbd_of(r);

	if (d->locked)
		f.rbd_lock_release(d->image);
	if (d->image)
		f.rbd_close(d->image);
	if (d->pool)
		f.rados_ioctx_destroy(d->pool);
	if (d->cluster)
		f.rados_shutdown(d->cluster);
	rbd_name_free(&d->name);
	free(d->base.uri);
	free(d);
}

static struct rbd *connect_disk(const char *uri, struct err *err)
{
	struct rbd *d;

	if (load_once(err))
		return NULL;
	d = calloc(1, sizeof(*d));
	if (!d || !(d->base.uri = strdup(uri))) {
		free(d);
		err_set(err, ENOMEM, "no memory to open %s", uri);
		return NULL;
	}
	d->base.ops = &remote_rbd;
	if (rbd_name_parse(&d->name, uri, err) || connect_pool(d, err)) {
		close_disk(&d->base);
		return NULL;
	}
	return d;
}

static struct remote *open_disk(const char *uri, bool readonly, unsigned connections, struct err *err)
{
	struct rbd *d = connect_disk(uri, err);

	if (d && (open_image(d, readonly, err) || ask_size(&d->base, &d->base.size, err))) {
		close_disk(&d->base);
		return NULL;
	}
	return d ? &d->base : NULL;
}

static int create_disk(const char *uri, uint64_t size, struct err *err)
{
	struct rbd *d = connect_disk(uri, err);
	int order = 0, ret;

	if (!d)
		return -EIO;
	ret = d->name.snapshot ? -EROFS : f.rbd_create(d->pool, d->name.image, size, &order);
	if (ret < 0)
		err_set_errno(err, -ret, "cannot make %s", uri);
	close_disk(&d->base);
	return ret;
}

/* ---- Data -------------------------------------------------------------------------- */

static int failed(struct remote *r, const char *what, uint64_t offset, ssize_t code, struct err *err)
{
	return err_set_errno(err, -code, "%s: %s at byte %llu", r->uri, what, (unsigned long long)offset);
}

static int read_disk(struct remote *r, uint64_t offset, void *buf, size_t len, struct err *err)
{
	char *p = buf;

	for (ssize_t n; len; p += n, offset += n, len -= n) {
		n = f.rbd_read(rbd_of(r)->image, offset, len < MOST ? len : MOST, p);
		if (n <= 0)
			return failed(r, "reading", offset, n ? n : -EIO, err);
	}
	return 0;
}

static int write_disk(struct remote *r, uint64_t offset, const void *buf, size_t len, bool fua, struct err *err)
{
	const char *p = buf;

	for (ssize_t n; len; p += n, offset += n, len -= n) {
		n = f.rbd_write2(rbd_of(r)->image, offset, len < MOST ? len : MOST, p, 0);
		if (n <= 0)
			return failed(r, "writing", offset, n ? n : -EIO, err);
	}
	return fua ? r->ops->flush(r, err) : 0;
}

static int flush_disk(struct remote *r, struct err *err)
{
	int ret = f.rbd_flush(rbd_of(r)->image);

	return ret < 0 ? failed(r, "flushing", 0, ret, err) : 0;
}

static int zero_disk(struct remote *r, uint64_t offset, uint64_t len, bool unmap, struct err *err)
{
	for (ssize_t n; len; offset += n, len -= n) {
		n = f.rbd_write_zeroes(rbd_of(r)->image, offset, len < MOST_ZEROES ? len : MOST_ZEROES,
				       unmap ? 0 : RBD_WRITE_ZEROES_FLAG_THICK_PROVISION, 0);
		if (n <= 0)
			return failed(r, "writing zeroes", offset, n ? n : -EIO, err);
	}
	return 0;
}

static int discard_disk(struct remote *r, uint64_t offset, uint64_t len, struct err *err)
{
	for (ssize_t n; len; offset += n, len -= n) {
		n = f.rbd_discard(rbd_of(r)->image, offset, len < MOST_ZEROES ? len : MOST_ZEROES);
		if (n <= 0)
			return failed(r, "discarding", offset, n ? n : -EIO, err);
	}
	return 0;
}

/* The first stretch that is there. */
struct stretch {
	uint64_t from, to; /* to 0: none yet */
};

#define FOUND 1 /* ends the iteration */

static int see(uint64_t offset, size_t len, int exists, void *opaque)
{
	struct stretch *s = opaque;

	if (!exists && !s->to)
		return 0;
	if (!exists || (s->to && offset != s->to))
		return FOUND;
	if (!s->to)
		s->from = offset;
	s->to = offset + len;
	return 0;
}

static int map_disk(struct remote *r, uint64_t offset, uint64_t len, bool *data, bool *zero, uint64_t *same,
		    struct err *err)
{
	struct stretch s = { 0 };
	int ret;

	len = len < MOST_ZEROES ? len : MOST_ZEROES;
	ret = f.rbd_diff_iterate2(rbd_of(r)->image, NULL, offset, len, 1, 0, see, &s);
	if (ret < 0)
		return failed(r, "asking for the allocation", offset, ret, err);
	*data = s.to && s.from <= offset;
	*zero = !*data;
	*same = *data ? s.to - offset : s.to ? s.from - offset : len;
	*same = *same < len ? *same : len;
	return 0;
}

static int resize_disk(struct remote *r, uint64_t size, struct err *err)
{
	int ret = f.rbd_resize(rbd_of(r)->image, size);

	return ret < 0 ? err_set_errno(err, -ret, "cannot resize %s", r->uri) : 0;
}

const struct remote_ops remote_rbd = {
	.schemes = schemes, .open = open_disk, .create = create_disk, .close = close_disk, .read = read_disk,
	.write = write_disk, .zero = zero_disk, .discard = discard_disk, .flush = flush_disk, .map = map_disk,
	.resize = resize_disk, .refresh = ask_size,
};

#else

static struct remote *open_disk(const char *uri, bool readonly, unsigned connections, struct err *err)
{
	err_set(err, ENOTSUP, "%s: this Keel was built without librbd", uri);
	return NULL;
}

const struct remote_ops remote_rbd = { .schemes = schemes, .open = open_disk };

#endif
