/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/qcow2_int.h"

/* ---- Creation ---------------------------------------------------------------- */

static int header_of(const struct qcow2_create_options *o, const char *path, struct qcow2_header *h, struct err *err)
{
	unsigned bits = o->refcount_bits ? o->refcount_bits : 16, ext = o->extended_l2;
	uint64_t size = q_round_up(o->size, 512), l1;

	*h = (struct qcow2_header){
		.version = o->version ? o->version : 3,
		.cluster_bits = o->cluster_bits ? o->cluster_bits : 16,
		.size = size,
		.header_length = 112,
		.compression = o->compression,
		.incompat = (o->compression ? Q_INCOMPAT_COMPRESSION : 0) | (ext ? Q_INCOMPAT_EXTENDED_L2 : 0) |
			    (o->data_file ? Q_INCOMPAT_DATA_FILE : 0),
		.autoclear = o->data_file && o->data_file_raw ? Q_AUTOCLEAR_DATA_RAW : 0,
		.compat = o->lazy_refcounts ? Q_COMPAT_LAZY : 0,
	};
	if (h->version != 2 && h->version != 3)
		return err_set(err, EINVAL, "%s: there is no qcow2 version %u: use compat=0.10 or compat=1.1", path,
			       h->version);
	if (h->cluster_bits < QCOW2_MIN_BITS || h->cluster_bits > QCOW2_MAX_BITS)
		return err_set(err, EINVAL, "%s: cluster_size must be a power of two from 512 to 2M", path);
	if (bits > 64 || bits & (bits - 1))
		return err_set(err, EINVAL, "%s: refcount_bits must be a power of two from 1 to 64", path);
	h->refcount_order = __builtin_ctz(bits);
	if (h->version == 2) {
		h->header_length = 72;
		if (bits != 16 || h->incompat || h->compat)
			return err_set(
				err, EINVAL,
				"%s: refcount_bits other than 16, lazy_refcounts, extended_l2, compression_type and "
				"data_file need compat=1.1",
				path);
	}
	if (ext && h->cluster_bits < 14)
		return err_set(err, EINVAL, "%s: extended_l2 needs a cluster_size of at least 16384", path);
	l1 = size >> (2 * h->cluster_bits - 3 - ext);
	l1 += !!(size & ((1ull << (2 * h->cluster_bits - 3 - ext)) - 1));
	if (size < o->size || size > 1ull << 62 || l1 > QCOW2_MAX_L1 / 8)
		return err_set(err, EFBIG,
			       "%s: %llu bytes are more than an image with clusters of %u bytes can have: use a larger "
			       "cluster_size",
			       path, (unsigned long long)o->size, 1u << h->cluster_bits);
	h->l1_size = l1 ? l1 : 1;
	return 0;
}

struct layout {
	uint64_t l1, crypto, blocks, table; /* clusters; they come in this order behind the header */
};

static int lay_out(const struct qcow2_header *h, const struct qcow2_create_options *o, struct layout *l, const char *path,
		   struct err *err)
{
	uint64_t bytes = 0;
	int ret = o->luks ? luks_measure(o->luks, &bytes, path, err) : 0;

	l->l1 = (((uint64_t)h->l1_size * 8 - 1) >> h->cluster_bits) + 1;
	l->crypto = (bytes + (1ull << h->cluster_bits) - 1) >> h->cluster_bits;
	qcow2_ref_layout(h->cluster_bits, h->cluster_bits + 3 - h->refcount_order, 0, 1 + l->l1 + l->crypto, 0, &l->blocks,
			 &l->table);
	return ret;
}

static int write_refs(struct qcow2 *q, const struct layout *l, struct err *err)
{
	uint64_t per = 1ull << q->ref_bits, before = 1 + l->l1 + l->crypto, total = before + l->blocks + l->table;
	uint8_t *block = malloc(q->cluster_size);
	uint64_t *table = calloc(l->table, q->cluster_size);
	int ret = block && table ? 0 : err_set(err, ENOMEM, "%s: no memory for its tables", q->path);

	for (uint64_t b = 0; !ret && b < l->blocks; b++) {
		uint64_t at = (before + b) << q->h.cluster_bits;

		memset(block, 0, q->cluster_size);
		for (uint64_t i = 0; i < per && b * per + i < total; i++)
			qcow2_ref_set_entry(q, block, i, 1);
		table[b] = htobe64(at);
		ret = qcow2_file_write(q, at, block, q->cluster_size, err);
	}
	if (!ret)
		ret = qcow2_file_write(q, q->h.reftable_offset, table, l->table << q->h.cluster_bits, err);
	free(table);
	free(block);
	return ret;
}

int qcow2_create(int fd, const char *path, const struct qcow2_create_options *o, struct err *err)
{
	struct qcow2 q = { .fd = fd, .data_fd = fd, .direct_fd = -1, .path = (char *)path };
	struct qcow2_names names = { .backing = o->backing, .backing_format = o->backing_format, .data_file = o->data_file };
	struct layout l;
	uint8_t *first = NULL;
	int ret = header_of(o, path, &q.h, err);

	if (ret)
		return ret;
	ret = lay_out(&q.h, o, &l, path, err);
	if (ret)
		return ret;
	q.cluster_size = 1ull << q.h.cluster_bits;
	q.ref_bits = q.h.cluster_bits + 3 - q.h.refcount_order;
	q.h.l1_offset = q.cluster_size;
	q.crypto_offset = names.crypto_offset = l.crypto ? (1 + l.l1) << q.h.cluster_bits : 0;
	q.crypto_length = names.crypto_length = l.crypto << q.h.cluster_bits;
	q.h.crypt_method = o->luks ? 2 : 0;
	q.h.reftable_offset = (1 + l.l1 + l.crypto + l.blocks) << q.h.cluster_bits;
	q.h.reftable_clusters = l.table;
	if (l.table << q.h.cluster_bits > QCOW2_MAX_REFTABLE)
		return err_set(err, EFBIG, "%s: its refcount table would be too large: use a larger cluster_size",
			       path);
	if (o->backing && (!o->backing[0] || strlen(o->backing) > 1023))
		return err_set(err, EINVAL, "%s: a backing file's name has from 1 to 1023 bytes", path);
	if (o->backing_format && strlen(o->backing_format) > 15)
		return err_set(err, EINVAL, "%s: there is no format '%s'", path, o->backing_format);
	if (o->data_file_raw && (o->backing || !o->data_file))
		return err_set(err, EINVAL, "%s: data_file_raw needs a data_file and no backing file", path);
	if (o->data_file && o->luks)
		return err_set(err, ENOTSUP, "%s: encryption and a data_file are not supported together", path);
	if (o->data_file && (!o->data_file[0] || strlen(o->data_file) > 1023))
		return err_set(err, EINVAL, "%s: a data file's name has from 1 to 1023 bytes", path);
	first = malloc(q.cluster_size);
	if (!first)
		return err_set(err, ENOMEM, "%s: no memory for its header", path);
	if (!qcow2_header_build(&q.h, &names, first, q.cluster_size))
		ret = err_set(err, EINVAL, "%s: the backing file's name does not fit in a cluster of %u bytes", path,
			      1u << q.h.cluster_bits);
	/* Room for the L1 table, lest a full disk is met when it has to be written. Where that can't be had it is a
	 * hole. */
	if (!ret && fallocate(fd, 0, q.h.l1_offset, l.l1 << q.h.cluster_bits) && errno == ENOSPC)
		ret = err_set_errno(err, errno, "cannot make %s", path);
	if (!ret)
		ret = write_refs(&q, &l, err);
	if (!ret && o->luks)
		ret = qcow2_crypto_create(&q, o->luks, err);
	/* The header last: before that it is no image. */
	if (!ret)
		ret = qcow2_file_write(&q, 0, first, q.cluster_size, err);
	free(first);
	return ret;
}

uint64_t qcow2_measure(const struct qcow2_create_options *o, uint64_t data)
{
	struct qcow2_header h;
	struct layout l;
	uint64_t clusters, n, first, per;

	if (header_of(o, "", &h, NULL) || lay_out(&h, o, &l, "", NULL))
		return 0;
	per = 1ull << (h.cluster_bits + 3 - h.refcount_order);
	clusters = (data + (1ull << h.cluster_bits) - 1) >> h.cluster_bits;
	first = l.table;
	/* Data may lie such that each cluster, or all of the L1 table, has an L2 table. */
	n = 1 + l.l1 + l.crypto + clusters + (clusters < h.l1_size ? clusters : h.l1_size);
	qcow2_ref_layout(h.cluster_bits, h.cluster_bits + 3 - h.refcount_order, 0, n, 0, &l.blocks, &l.table);
	/* The refcount table moves when it grows, to where a block begins. */
	if (l.table > first)
		n += 2 * per + 2 * l.table;
	return (n + l.blocks + l.table) << h.cluster_bits;
}

/* ---- Resizing ----------------------------------------------------------------- */

static int move_l1(struct qcow2 *q, uint64_t entries, struct err *err)
{
	uint64_t bytes = q_round_up(entries * 8, q->cluster_size), old = q->h.l1_offset,
		 old_bytes = (uint64_t)q->h.l1_size * 8, at;
	struct qcow2_header before = q->h;
	uint64_t *new, *disk;
	int ret = qcow2_writeback(q, err);

	if (ret)
		return ret;
	new = calloc(1, bytes);
	disk = calloc(1, bytes);
	if (!new || !disk)
		ret = err_set(err, ENOMEM, "%s: no memory for the L1 table", q->path);
	if (!ret)
		ret = qcow2_alloc(q, bytes >> q->h.cluster_bits, &at, err);
	if (!ret) {
		memcpy(new, q->l1, old_bytes);
		for (uint32_t i = 0; i < q->h.l1_size; i++)
			disk[i] = htobe64(q->l1[i]);
		ret = qcow2_file_write(q, at, disk, bytes, err);
	}
	if (!ret)
		ret = qcow2_meta_add(q, at, bytes, false, "the new L1 table", err);
	if (!ret)
		ret = qcow2_writeback(q, err); /* its refcounts */
	if (!ret)
		ret = qcow2_sync(q, err);
	if (!ret) {
		before = q->h;
		q->h.l1_offset = at;
		q->h.l1_size = entries;
		ret = qcow2_header_write(q, err);
		if (ret)
			q->h = before;
	}
	free(disk);
	if (ret) {
		free(new);
		return ret;
	}
	free(q->l1);
	q->l1 = new;
	qcow2_meta_del(q, old, old_bytes);
	return qcow2_free_now(q, old >> q->h.cluster_bits, q_clusters(q, old_bytes), err);
}

static int set_size(struct qcow2 *q, uint64_t size, struct err *err)
{
	uint64_t before = q->h.size;
	int ret;

	q->h.size = size;
	ret = qcow2_header_write(q, err);
	if (ret)
		q->h.size = before;
	return ret;
}

static int grow(struct qcow2 *q, uint64_t size, struct err *err)
{
	uint64_t old = q->h.size, entries = size >> (q->h.cluster_bits + q->l2_bits),
		 end = q_round_up(old, q->cluster_size);
	int ret = 0;

	entries += !!(size & ((1ull << (q->h.cluster_bits + q->l2_bits)) - 1));
	if (entries > QCOW2_MAX_L1 / 8)
		return err_set(err, EFBIG, "%s: %llu bytes are more than clusters of %u bytes allow", q->path,
			       (unsigned long long)size, (unsigned)q->cluster_size);
	if (entries > q->h.l1_size)
		ret = move_l1(q, entries, err);
	/* What comes in sight is zeroes: neither what an earlier shrinking left behind nor the backing file's. */
	if (!ret) {
		if (q->backing && image_size(q->backing) > end)
			end = image_size(q->backing);
		end = end > size ? size : end;
		q->h.size = size;
		if (end > old)
			ret = qcow2_do_zero(q, old, end - old, false, err);
		q->h.size = old;
	}
	if (!ret)
		ret = qcow2_writeback(q, err);
	return ret ? ret : set_size(q, size, err);
}

static int shrink(struct qcow2 *q, uint64_t size, struct err *err)
{
	uint64_t from = q_round_up(size, q->cluster_size), old = q->h.size;
	int ret = set_size(q, size, err);

	if (ret || from >= old)
		return ret;
	q->h.size = old;
	ret = qcow2_do_discard(q, from, old - from, err);
	q->h.size = size;
	return ret;
}

/* The data file has the disk's size, where it is the disk; and each of its clusters an entry. */
static int size_data_file(struct qcow2 *q, uint64_t from, uint64_t size, struct err *err)
{
	struct stat st;

	if (!DATA_RAW(q))
		return 0;
	if (fstat(q->data_fd, &st) || (S_ISREG(st.st_mode) && ftruncate(q->data_fd, size)))
		return err_set_errno(err, errno, "cannot resize %s", q->data_path);
	return size > from ? qcow2_do_preallocate(q, from, NULL, err) : 0;
}

int qcow2_do_resize(struct qcow2 *q, uint64_t size, struct err *err)
{
	uint64_t old = q->h.size;
	int ret = qcow2_begin_write(q, err);

	if (!ret && (size & 511 || size > 1ull << 62))
		ret = err_set(err, EINVAL, "%s: the new size must be a multiple of 512", q->path);
	if (!ret && size != old && q->h.nb_snapshots && q->h.version < 3)
		ret = err_set(err, ENOTSUP,
			      "%s has internal snapshots, which have no size of their own in version 2: delete them "
			      "before it is resized",
			      q->path);
	if (!ret && size != old)
		ret = qcow2_snapshots_keep_size(q, err);
	if (!ret && size != old)
		ret = qcow2_bitmaps_resize(q, size, err);
	if (!ret && size > old)
		ret = grow(q, size, err);
	else if (!ret && size < old)
		ret = shrink(q, size, err);
	if (!ret && size != old)
		ret = size_data_file(q, old, size, err);
	if (!ret && size != old)
		ret = qcow2_bitmaps_store(q, err);
	if (!ret)
		ret = qcow2_do_flush(q, err);
	return ret;
}

int qcow2_resize(struct qcow2 *q, uint64_t size, struct err *err)
{
	int ret;

	qcow2_exclusive_begin(q);
	ret = qcow2_do_resize(q, size, err);
	qcow2_exclusive_end(q);
	return ret;
}
