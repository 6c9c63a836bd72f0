/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/block_int.h"
#include "image/image_int.h"
#include "image/qcow2_int.h"
#include "util/files.h"

/* ---- The file ------------------------------------------------------------- */

static int hooked(struct qcow2 *q, enum qcow2_op op, uint64_t offset, const void *buf, size_t *len)
{
	return q->hook ? q->hook(q->hook_opaque, op, offset, buf, len) : 0;
}

void qcow2_set_hook(struct qcow2 *q, qcow2_hook hook, void *opaque)
{
	q->hook = hook;
	q->hook_opaque = opaque;
}

static int read_some(struct qcow2 *q, int fd, uint64_t offset, uint8_t *buf, size_t len, size_t *done, struct err *err)
{
	for (*done = 0; *done < len;) {
		size_t want = len - *done;
		int ret = hooked(q, QCOW2_OP_READ, offset + *done, NULL, &want);
		ssize_t n = ret ? ret : pread(fd, buf + *done, want, offset + *done);

		if (n < 0 && !ret)
			ret = -errno;
		if (ret == -EINTR)
			continue;
		if (ret)
			return err_set_errno(err, -ret, "%s: reading at byte %llu", q->path,
					     (unsigned long long)offset);
		if (!n)
			break;
		*done += n;
	}
	return 0;
}

int qcow2_file_read(struct qcow2 *q, uint64_t offset, void *buf, size_t len, const char *what, struct err *err)
{
	size_t done;
	int ret = read_some(q, q->fd, offset, buf, len, &done, err);

	if (!ret && done < len)
		ret = err_set(err, EIO, "%s: the %s at byte %llu reaches past the end of the file", q->path, what,
			      (unsigned long long)offset);
	return ret;
}

static int read_zeroed(struct qcow2 *q, int fd, uint64_t offset, void *buf, size_t len, struct err *err)
{
	size_t done;
	int ret = read_some(q, fd, offset, buf, len, &done, err);

	if (!ret)
		memset((uint8_t *)buf + done, 0, len - done);
	return ret;
}

int qcow2_file_read_data(struct qcow2 *q, uint64_t offset, void *buf, size_t len, struct err *err)
{
	return read_zeroed(q, q->fd, offset, buf, len, err);
}

static int write_all(struct qcow2 *q, int fd, uint64_t offset, const void *buf, size_t len, struct err *err)
{
	const uint8_t *p = buf;

	for (size_t done = 0; done < len;) {
		size_t want = len - done;
		int ret = hooked(q, QCOW2_OP_WRITE, offset + done, p + done, &want);
		ssize_t n = ret ? ret : pwrite(fd, p + done, want, offset + done);

		if (n < 0 && !ret)
			ret = -errno;
		if (ret == -EINTR)
			continue;
		if (n <= 0)
			return err_set_errno(err, n ? -ret : ENOSPC, "%s: writing at byte %llu", q->path,
					     (unsigned long long)offset);
		done += n;
	}
	return 0;
}

int qcow2_file_write(struct qcow2 *q, uint64_t offset, const void *buf, size_t len, struct err *err)
{
	int ret = write_all(q, q->fd, offset, buf, len, err);

	if (!ret && offset + len > q->file_end)
		q->file_end = offset + len;
	return ret;
}

int qcow2_sync(struct qcow2 *q, struct err *err)
{
	int ret = hooked(q, QCOW2_OP_SYNC, 0, NULL, NULL);

	if (!ret && q->flags & IMAGE_UNSAFE)
		return 0;
	if (!ret && (fdatasync(q->fd) || (q->data_fd != q->fd && fdatasync(q->data_fd))))
		ret = -errno;
	return ret ? err_set_errno(err, -ret, "%s: waiting for the disk", q->path) : 0;
}

void qcow2_punch(struct qcow2 *q, int fd, uint64_t offset, uint64_t len)
{
	size_t n = len;

	if (!len || q->no_punch || hooked(q, QCOW2_OP_PUNCH, offset, NULL, &n))
		return;
	/* A favour to the file system: what fails leaves the bytes there. */
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len) && errno != EINTR)
		q->no_punch = true;
}

/* ---- Guest data, without the lock -------------------------------------------- */

static bool counted(const unsigned *n)
{
	return __atomic_load_n(n, __ATOMIC_SEQ_CST);
}

bool qcow2_unlock_for_data(struct qcow2 *q)
{
	/* Somebody who waits for the last user should not wait for ever. */
	if (q->exclusive || counted(&q->draining))
		return false;
	__atomic_add_fetch(&q->users, 1, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&q->lock);
	return true;
}

void qcow2_lock_after_data(struct qcow2 *q, bool unlocked)
{
	if (!unlocked)
		return;
	pthread_mutex_lock(&q->lock);
	if (!__atomic_sub_fetch(&q->users, 1, __ATOMIC_SEQ_CST) && counted(&q->draining))
		pthread_cond_broadcast(&q->idle);
}

static int fd_for(const struct qcow2 *q, uint64_t host, const void *buf, size_t len)
{
	bool aligned = !((host | len | (uintptr_t)buf) & 4095);

	return q->direct_fd >= 0 && aligned ? q->direct_fd : q->data_fd;
}

int qcow2_host_read(struct qcow2 *q, uint64_t host, void *buf, size_t len, struct err *err)
{
	return read_zeroed(q, fd_for(q, host, buf, len), host, buf, len, err);
}

int qcow2_host_write(struct qcow2 *q, uint64_t host, const void *buf, size_t len, struct err *err)
{
	return write_all(q, fd_for(q, host, buf, len), host, buf, len, err);
}

int qcow2_data_read(struct qcow2 *q, uint64_t host, void *buf, size_t len, struct err *err)
{
	bool unlocked = qcow2_unlock_for_data(q);
	int ret = q->luks ? qcow2_crypto_read(q, host, buf, len, err) : qcow2_host_read(q, host, buf, len, err);

	qcow2_lock_after_data(q, unlocked);
	return ret;
}

int qcow2_data_write(struct qcow2 *q, uint64_t host, const void *buf, size_t len, struct err *err)
{
	bool unlocked = qcow2_unlock_for_data(q);
	int ret = q->luks ? qcow2_crypto_write(q, host, buf, len, err) : qcow2_host_write(q, host, buf, len, err);

	qcow2_lock_after_data(q, unlocked);
	if (!ret && q->data_fd == q->fd && host + len > q->file_end)
		q->file_end = host + len;
	return ret;
}

void qcow2_drain(struct qcow2 *q)
{
	__atomic_add_fetch(&q->draining, 1, __ATOMIC_SEQ_CST);
	while (counted(&q->users))
		pthread_cond_wait(&q->idle, &q->lock);
}

void qcow2_undrain(struct qcow2 *q)
{
	__atomic_sub_fetch(&q->draining, 1, __ATOMIC_SEQ_CST);
}

static bool taken(const struct qcow2 *q, uint64_t first, uint64_t last)
{
	for (const struct qcow2_range *r = q->busy; r; r = r->next)
		if (first <= r->last && last >= r->first)
			return true;
	return false;
}

void qcow2_range_lock(struct qcow2 *q, struct qcow2_range *r, uint64_t offset, uint64_t len)
{
	r->first = offset >> q->h.cluster_bits;
	r->last = (offset + (len ? len - 1 : 0)) >> q->h.cluster_bits;
	while (q->excluding || taken(q, r->first, r->last))
		pthread_cond_wait(&q->idle, &q->lock);
	r->next = q->busy;
	q->busy = r;
}

void qcow2_range_unlock(struct qcow2 *q, struct qcow2_range *r)
{
	struct qcow2_range **at = &q->busy;

	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	pthread_cond_broadcast(&q->idle);
}

void qcow2_exclusive_begin(struct qcow2 *q)
{
	pthread_mutex_lock(&q->lock);
	q->excluding++;
	__atomic_add_fetch(&q->draining, 1, __ATOMIC_SEQ_CST);
	while (q->busy || counted(&q->users))
		pthread_cond_wait(&q->idle, &q->lock);
	q->exclusive = true;
}

void qcow2_exclusive_end(struct qcow2 *q)
{
	q->exclusive = false;
	__atomic_sub_fetch(&q->draining, 1, __ATOMIC_SEQ_CST);
	q->excluding--;
	pthread_cond_broadcast(&q->idle);
	pthread_mutex_unlock(&q->lock);
}

/* ---- The short way ------------------------------------------------------------ */

static bool lie_together(struct qcow2 *q, uint64_t offset, uint64_t len, bool write, uint64_t *host)
{
	for (uint64_t done = 0; done < len;) {
		uint64_t at = offset + done, in = q_in_cluster(q, at), unit = 1ull << q->unit_bits;
		enum qcow2_kind kind;
		struct qcow2_entry e;

		if (!qcow2_lookup_cached(q, at, &e) || qcow2_kind_at(q, &e, in, &kind, NULL) || kind != Q_NORMAL)
			return false;
		if (write && (!e.private || (!DATA_FILE(q) && qcow2_meta_has(q, e.host))))
			return false;
		if (!done)
			*host = e.host + in;
		else if (e.host + in != *host + done)
			return false;
		done += unit - (at & (unit - 1));
	}
	return true;
}

bool qcow2_pin(struct qcow2 *q, uint64_t offset, uint64_t len, bool write, bool sync, uint64_t *host)
{
	bool good = false;

	if (q->hook || q->luks || pthread_mutex_trylock(&q->lock))
		return false;
	if (counted(&q->draining) || q->broken || offset > q->h.size || len > q->h.size - offset)
		goto out;
	if (write && (!q->touched || taken(q, offset >> q->h.cluster_bits, (offset + len - 1) >> q->h.cluster_bits)))
		goto out;
	if (sync && (q->l2.ndirty || q->l1_dirty_to || q->refs.ndirty))
		goto out;
	good = lie_together(q, offset, len, write, host);
	if (good && write)
		qcow2_bitmaps_mark(q, offset, len);
	if (good)
		__atomic_add_fetch(&q->users, 1, __ATOMIC_SEQ_CST);
out:
	pthread_mutex_unlock(&q->lock);
	return good;
}

void qcow2_unpin(struct qcow2 *q)
{
	if (__atomic_sub_fetch(&q->users, 1, __ATOMIC_SEQ_CST) || !counted(&q->draining))
		return;
	/* Whoever drains counts with the lock held, and is waiting by the time that it is ours. */
	pthread_mutex_lock(&q->lock);
	pthread_cond_broadcast(&q->idle);
	pthread_mutex_unlock(&q->lock);
}

int qcow2_data_fd(const struct qcow2 *q)
{
	return q->data_fd;
}

const char *qcow2_data_path(const struct qcow2 *q)
{
	return q->data_path ? q->data_path : q->path;
}

void qcow2_set_direct(struct qcow2 *q, int fd)
{
	q->direct_fd = fd;
}

int qcow2_corrupt(struct qcow2 *q, struct err *err, const char *fmt, ...)
{
	char text[300];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* Only an image that is already being written gets the mark. */
	if (q->writable && q->touched && !q->broken && q->h.version >= 3) {
		q->h.incompat |= Q_INCOMPAT_CORRUPT;
		(void)qcow2_header_write(q, NULL);
	}
	if (q->writable)
		q->broken = true;
	return err_set(err, EIO, "%s is corrupt: %s; 'keel image check' tells more", q->path, text);
}

int qcow2_bound(struct qcow2 *q, uint64_t offset, uint64_t bytes, const char *what, struct err *err)
{
	if (q_in_cluster(q, offset))
		return err_set(err, EINVAL, "%s: %s %#llx is no multiple of the cluster size", q->path, what,
			       (unsigned long long)offset);
	if (offset > q->file_end || bytes > q->file_end - offset)
		return err_set(err, EINVAL, "%s: %s %#llx, %llu bytes long, reaches past the end of the file", q->path,
			       what, (unsigned long long)offset, (unsigned long long)bytes);
	return 0;
}

/* ---- Clusters of metadata -------------------------------------------------- */

static size_t meta_slot(const struct qcow2 *q, uint64_t key)
{
	size_t i = (key * 0x9e3779b97f4a7c15ull >> 20) & (q->meta_room - 1);

	while (q->meta[i] && q->meta[i] != key)
		i = (i + 1) & (q->meta_room - 1);
	return i;
}

static int meta_grow(struct qcow2 *q, struct err *err)
{
	uint64_t *old = q->meta;
	size_t n = q->meta_room, room = n ? n * 2 : 256;
	uint64_t *new = calloc(room, sizeof(*new));

	if (!new)
		return err_set(err, ENOMEM, "%s: no memory for the list of metadata", q->path);
	q->meta = new;
	q->meta_room = room;
	for (size_t i = 0; i < n; i++)
		if (old[i])
			q->meta[meta_slot(q, old[i])] = old[i];
	free(old);
	return 0;
}

int qcow2_meta_add(struct qcow2 *q, uint64_t offset, uint64_t bytes, bool shared, const char *what, struct err *err)
{
	uint64_t first = offset >> q->h.cluster_bits, n = q_clusters(q, bytes);

	for (uint64_t c = first; c < first + n; c++) {
		size_t i;

		if (q->meta_used * 2 >= q->meta_room && meta_grow(q, err))
			return -ENOMEM;
		i = meta_slot(q, c + 1);
		if (q->meta[i] && !shared)
			return qcow2_corrupt(q, err, "%s at byte %#llx lies on other metadata", what,
					     (unsigned long long)offset);
		q->meta_used += !q->meta[i];
		q->meta[i] = c + 1;
	}
	return 0;
}

void qcow2_meta_del(struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
	uint64_t first = offset >> q->h.cluster_bits, n = q_clusters(q, bytes);

	for (uint64_t c = first; q->meta_room && c < first + n; c++) {
		size_t i = meta_slot(q, c + 1);

		if (!q->meta[i])
			continue;
		q->meta[i] = 0;
		q->meta_used--;
		/* What came to rest behind it moves up. */
		for (i = (i + 1) & (q->meta_room - 1); q->meta[i]; i = (i + 1) & (q->meta_room - 1)) {
			uint64_t key = q->meta[i];

			q->meta[i] = 0;
			q->meta[meta_slot(q, key)] = key;
		}
	}
}

bool qcow2_meta_has(const struct qcow2 *q, uint64_t offset)
{
	return q->meta_room && q->meta[meta_slot(q, (offset >> q->h.cluster_bits) + 1)];
}

static int meta_table(struct qcow2 *q, uint64_t offset, bool shared, const char *what, struct err *err)
{
	if (!offset)
		return 0;
	if (qcow2_bound(q, offset, q->cluster_size, what, err))
		return -EINVAL;
	return qcow2_meta_add(q, offset, q->cluster_size, shared, what, err);
}

static int meta_snapshots(struct qcow2 *q, struct err *err)
{
	int ret = 0;

	for (unsigned i = 0; !ret && i < q->h.nb_snapshots; i++) {
		const struct qcow2_snapshot *s = &q->snapshots[i];
		uint64_t *l1 = malloc(s->l1_size * 8 + 1);

		if (!l1)
			return err_set(err, ENOMEM, "%s: no memory for a snapshot's L1 table", q->path);
		ret = qcow2_meta_add(q, s->l1_offset, s->l1_size * 8, false, "a snapshot's L1 table", err);
		if (!ret)
			ret = qcow2_file_read(q, s->l1_offset, l1, s->l1_size * 8, "snapshot's L1 table", err);
		for (uint64_t j = 0; !ret && j < s->l1_size; j++)
			ret = meta_table(q, be64toh(l1[j]) & Q_OFFSET, true, "an L2 table's offset in a snapshot", err);
		free(l1);
	}
	return ret;
}

static int meta_bitmap(void *opaque, uint64_t offset, uint64_t bytes, const char *what, struct err *err)
{
	struct qcow2 *q = opaque;

	if (qcow2_bound(q, offset, bytes, what, err))
		return -EINVAL;
	return qcow2_meta_add(q, offset, bytes, false, what, err);
}

/* All that must never be overwritten. Tables that lie on each other are found here. */
static int meta_collect(struct qcow2 *q, struct err *err)
{
	int ret = qcow2_meta_add(q, 0, q->cluster_size, false, "the header", err);

	if (!ret)
		ret = qcow2_meta_add(q, q->h.l1_offset, (uint64_t)q->h.l1_size * 8, false, "l1_table_offset", err);
	if (!ret)
		ret = qcow2_meta_add(q, q->h.reftable_offset, (uint64_t)q->h.reftable_clusters << q->h.cluster_bits,
				     false, "refcount_table_offset", err);
	if (!ret && q->crypto_length)
		ret = qcow2_meta_add(q, q->crypto_offset, q->crypto_length, false, "the LUKS header", err);
	if (!ret && q->snapshots_bytes)
		ret = qcow2_meta_add(q, q->h.snapshots_offset, q->snapshots_bytes, false, "snapshots_offset", err);
	for (uint64_t i = 0; !ret && i < q->reftable_len; i++)
		ret = meta_table(q, q->reftable[i], false, "a refcount block's offset", err);
	for (uint32_t i = 0; !ret && i < q->h.l1_size; i++)
		ret = meta_table(q, q->l1[i] & Q_OFFSET, false, "an L2 table's offset", err);
	if (!ret)
		ret = meta_snapshots(q, err);
	if (!ret)
		ret = qcow2_bitmaps_each(q, meta_bitmap, q, err);
	return ret;
}

/* ---- Opening --------------------------------------------------------------- */

static int read_tables(struct qcow2 *q, struct err *err)
{
	size_t l1 = (size_t)q->h.l1_size * 8, table = (size_t)q->h.reftable_clusters << q->h.cluster_bits;
	int ret;

	q->l1 = malloc(l1 + 8);
	q->reftable = malloc(table + 8);
	if (!q->l1 || !q->reftable)
		return err_set(err, ENOMEM, "%s: no memory for its tables", q->path);
	ret = qcow2_file_read(q, q->h.l1_offset, q->l1, l1, "L1 table", err);
	if (!ret)
		ret = qcow2_file_read(q, q->h.reftable_offset, q->reftable, table, "refcount table", err);
	if (ret)
		return ret;
	for (size_t i = 0; i < l1 / 8; i++)
		q->l1[i] = be64toh(q->l1[i]);
	q->reftable_len = table / 8;
	for (size_t i = 0; i < q->reftable_len; i++)
		q->reftable[i] = be64toh(q->reftable[i]) & ~511ull;
	return 0;
}

static int make_caches(struct qcow2 *q, struct err *err)
{
	uint64_t l2 = q->h.l1_size, max = QCOW2_L2_CACHE >> q->h.cluster_bits,
		 refs = QCOW2_REF_CACHE >> q->h.cluster_bits;

	if (l2 > max)
		l2 = max;
	if (qcow2_cache_init(&q->l2, "L2 table", l2 < 8 ? 8 : l2) ||
	    qcow2_cache_init(&q->refs, "refcount block", refs < 8 ? 8 : refs))
		return err_set(err, ENOMEM, "%s: no memory for its tables", q->path);
	q->unzip = malloc(q->cluster_size);
	return q->unzip ? 0 : err_set(err, ENOMEM, "%s: no memory for a cluster", q->path);
}

static int open_backing(struct qcow2 *q, const struct image_chain *up, struct err *err)
{
	unsigned flags = 0;
	char *path;

	if (!q->backing_name || q->flags & IMAGE_NO_BACKING)
		return 0;
	if (up && up->probed)
		return err_set(err, EINVAL,
			       "%s was only guessed to be a qcow2 image, so its backing file %s is not opened: "
			       "name the format",
			       q->path, q->backing_name);
	path = image_backing_path(q->path, q->backing_name, err);
	if (!path)
		return -EINVAL;
	if (q->flags & (IMAGE_NO_LOCK | IMAGE_BACKING_NO_LOCK))
		flags = IMAGE_NO_LOCK;
	q->backing = image_open_chain(path, q->backing_format, flags, up, err);
	free(path);
	if (!q->backing)
		err_prefix(err, "%s: backing file", q->path);
	return q->backing ? 0 : -EINVAL;
}

static int open_data_file(struct qcow2 *q, const struct image_chain *up, struct err *err)
{
	bool write = q->flags & IMAGE_RDWR;
	struct stat st;

	q->data_fd = q->fd;
	if (!DATA_FILE(q))
		return 0;
	if (!q->data_name)
		return err_set(err, EINVAL, "%s has its data in another file and does not say which", q->path);
	if (up && up->probed)
		return err_set(err, EINVAL,
			       "%s was only guessed to be a qcow2 image, so its data file %s is not opened: name the "
			       "format",
			       q->path, q->data_name);
	q->data_path = image_backing_path(q->path, q->data_name, err);
	if (!q->data_path)
		return -EINVAL;
	q->data_fd = file_open(q->data_path, (write ? O_RDWR : O_RDONLY) | O_NONBLOCK);
	if (q->data_fd < 0)
		return err_set_errno(err, errno, "%s: cannot open its data file %s", q->path, q->data_path);
	if (fstat(q->data_fd, &st) || !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
		return err_set(err, EINVAL, "%s: its data file %s is neither a file nor a block device", q->path,
			       q->data_path);
	return q->flags & IMAGE_NO_LOCK ? 0 : lock_image(q->data_fd, q->data_path, write, err);
}

/* What stands against writing. */
static int make_writable(struct qcow2 *q, struct err *err)
{
	struct qcow2_check c = { 0 };
	int ret;

	if (q->h.incompat & Q_INCOMPAT_CORRUPT)
		return err_set(err, EROFS,
			       "%s is marked corrupt: repair it with 'keel image check -r all' or open it read-only",
			       q->path);
	q->writable = true;
	if (q->h.incompat & Q_INCOMPAT_DIRTY) {
		q->repairing = true;
		ret = qcow2_do_check(q, QCOW2_FIX_ALL, &c, err);
		q->repairing = false;
		if (ret)
			return ret;
		if (c.corruptions || c.errors)
			return err_set(err, EIO,
				       "%s was not closed and cannot be repaired: 'keel image check' tells why",
				       q->path);
		q->h.incompat &= ~Q_INCOMPAT_DIRTY;
		ret = qcow2_header_write(q, err);
		if (ret)
			return ret;
	}
	return meta_collect(q, err);
}

struct qcow2 *qcow2_open(int fd, const char *path, unsigned flags, const struct image_chain *up, struct err *err)
{
	struct qcow2 *q = calloc(1, sizeof(*q));
	struct stat st;
	int ret;

	if (!q || !(q->path = strdup(path))) {
		free(q);
		close(fd);
		err_set(err, ENOMEM, "no memory to open %s", path);
		return NULL;
	}
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->idle, NULL);
	q->fd = q->data_fd = fd;
	q->direct_fd = -1;
	q->flags = flags;
	q->l1_dirty_from = UINT32_MAX;
	ret = fstat(fd, &st) ? err_set_errno(err, errno, "cannot stat %s", path) : 0;
	if (!ret) {
		off_t end = S_ISREG(st.st_mode) ? st.st_size : lseek(fd, 0, SEEK_END);

		q->file_end = end < 0 ? 0 : end;
		ret = qcow2_header_read(q, err);
	}
	if (!ret)
		ret = read_tables(q, err);
	if (!ret)
		ret = qcow2_snapshots_read(q, err);
	if (!ret)
		ret = qcow2_bitmaps_read(q, err);
	if (!ret)
		ret = make_caches(q, err);
	if (!ret)
		ret = open_data_file(q, up, err);
	if (!ret)
		ret = qcow2_crypto_open(q, up ? up->key_secret : NULL, err);
	if (!ret)
		ret = open_backing(q, up, err);
	if (!ret && flags & IMAGE_RDWR && !(flags & IMAGE_CHECK))
		ret = make_writable(q, err);
	if (ret) {
		q->writable = q->touched = false;
		qcow2_close(q, NULL);
		return NULL;
	}
	return q;
}

/* All that was written is on the disk, and nothing there says that more will come. */
static int settle(struct qcow2 *q, struct err *err)
{
	int ret = 0;

	if (q->writable && q->touched && !q->broken) {
		ret = qcow2_bitmaps_end(q, err);
		if (!ret)
			ret = qcow2_do_flush(q, err);
		else
			(void)qcow2_do_flush(q, NULL);
		if (!ret && q->h.incompat & Q_INCOMPAT_DIRTY) {
			q->h.incompat &= ~Q_INCOMPAT_DIRTY;
			ret = qcow2_header_write(q, err);
		}
	}
	return ret;
}

static int reopen(struct qcow2 *q, bool write, struct err *err)
{
	int ret = image_reopen_fd(q->fd, q->path, write, err);

	return ret || q->data_fd == q->fd ? ret : image_reopen_fd(q->data_fd, q->data_path, write, err);
}

int qcow2_set_writable(struct qcow2 *q, bool on, struct err *err)
{
	int ret = 0;

	if (on == q->writable)
		return 0;
	qcow2_exclusive_begin(q);
	if (on) {
		ret = reopen(q, true, err);
		if (!ret)
			ret = make_writable(q, err);
	} else {
		ret = settle(q, err);
	}
	if (!ret)
		q->flags = on ? q->flags | IMAGE_RDWR : q->flags & ~IMAGE_RDWR;
	if (ret ? on : !on) {
		q->writable = q->touched = false;
		free(q->meta);
		q->meta = NULL;
		q->meta_used = q->meta_room = 0;
		(void)reopen(q, false, NULL);
	}
	qcow2_exclusive_end(q);
	return ret;
}

int qcow2_fd(const struct qcow2 *q)
{
	return q->fd;
}

struct image *qcow2_swap_backing(struct qcow2 *q, struct image *img)
{
	struct image *old;

	qcow2_exclusive_begin(q);
	old = q->backing;
	q->backing = img;
	qcow2_exclusive_end(q);
	return old;
}

int qcow2_close(struct qcow2 *q, struct err *err)
{
	int ret = 0;

	if (!q)
		return 0;
	ret = settle(q, err);
	if (image_close(q->backing, NULL) && !ret)
		ret = -EIO;
	if (q->direct_fd >= 0)
		close(q->direct_fd);
	if (q->data_fd >= 0 && q->data_fd != q->fd) {
		unlock_image(q->data_fd);
		close(q->data_fd);
	}
	unlock_image(q->fd);
	close(q->fd);
	luks_close(q->luks);
	free(q->data_name);
	free(q->data_path);
	qcow2_cache_free(&q->l2);
	qcow2_cache_free(&q->refs);
	qcow2_snapshots_free(q);
	qcow2_bitmaps_free(q);
	for (unsigned i = 0; i < 64; i++)
		free(q->feature_names[i]);
	free(q->backing_name);
	free(q->backing_format);
	free(q->l1);
	free(q->reftable);
	free(q->frees);
	free(q->meta);
	free(q->unzip);
	free(q->path);
	pthread_cond_destroy(&q->idle);
	pthread_mutex_destroy(&q->lock);
	free(q);
	return ret;
}

uint64_t qcow2_size(struct qcow2 *q)
{
	return __atomic_load_n(&q->h.size, __ATOMIC_RELAXED);
}

struct image *qcow2_backing(struct qcow2 *q)
{
	return q->backing;
}

void qcow2_get_info(struct qcow2 *q, struct qcow2_info *info)
{
	*info = (struct qcow2_info){
		.version = q->h.version,
		.cluster_size = q->cluster_size,
		.refcount_bits = 1u << q->h.refcount_order,
		.lazy_refcounts = LAZY(q),
		.dirty = q->h.incompat & Q_INCOMPAT_DIRTY,
		.corrupt = q->h.incompat & Q_INCOMPAT_CORRUPT,
		.extended_l2 = EXTENDED(q),
		.bitmaps = q->h.autoclear & Q_AUTOCLEAR_BITMAPS,
		.compression = q->h.compression,
		.backing = q->backing_name,
		.backing_format = q->backing_format,
		.data_file = q->data_name,
		.data_file_raw = DATA_RAW(q),
		.snapshots = q->h.nb_snapshots,
	};
}
