/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compressed clusters: raw deflate with a window of 4 KiB, or a zstd stream. They lie anywhere, byte after byte. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "image/qcow2_int.h"

#define WINDOW_BITS -12

static bool inflate_cluster(uint8_t *out, size_t room, const uint8_t *in, size_t len)
{
	z_stream z = { .next_in = (uint8_t *)in, .avail_in = len, .next_out = out, .avail_out = room };
	int ret;

	if (inflateInit2(&z, WINDOW_BITS) != Z_OK)
		return false;
	ret = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	/* Writers may leave more after the cluster's bytes. */
	return (ret == Z_STREAM_END || ret == Z_BUF_ERROR) && !z.avail_out;
}

static bool unzstd_cluster(uint8_t *out, size_t room, const uint8_t *in, size_t len)
{
	ZSTD_DCtx *ctx = ZSTD_createDCtx();
	ZSTD_outBuffer o = { out, room, 0 };
	ZSTD_inBuffer i = { in, len, 0 };
	bool good = ctx;

	while (good && o.pos < o.size) {
		size_t in_before = i.pos, out_before = o.pos;

		good = !ZSTD_isError(ZSTD_decompressStream(ctx, &o, &i)) && (i.pos > in_before || o.pos > out_before);
	}
	ZSTD_freeDCtx(ctx);
	return good;
}

int qcow2_unpack(struct qcow2 *q, uint64_t entry, uint64_t in, uint8_t *buf, size_t len, struct err *err)
{
	uint64_t offset, bytes;
	bool good = false, unlocked;
	uint8_t *zip, *whole;
	int ret;

	if (q->unzip_of == entry) {
		memcpy(buf, q->unzip + in, len);
		return 0;
	}
	qcow2_packed_range(q, entry, &offset, &bytes);
	if (bytes > 2 * q->cluster_size + 512 || offset >= q->file_end)
		return qcow2_corrupt(q, err, "a compressed cluster is at byte %#llx of the file, %llu bytes long",
				     (unsigned long long)offset, (unsigned long long)bytes);
	zip = malloc(bytes);
	whole = len == q->cluster_size ? buf : malloc(q->cluster_size);
	if (!zip || !whole) {
		ret = err_set(err, ENOMEM, "%s: no memory to unpack a cluster", q->path);
	} else {
		unlocked = qcow2_unlock_for_data(q);
		/* The last one of a file may be cut at its last byte. */
		ret = qcow2_file_read_data(q, offset, zip, bytes, err);
		if (!ret)
			good = q->h.compression == QCOW2_ZSTD ? unzstd_cluster(whole, q->cluster_size, zip, bytes)
							      : inflate_cluster(whole, q->cluster_size, zip, bytes);
		qcow2_lock_after_data(q, unlocked);
		if (!ret && !good) /* data of the guest's, not metadata: no reason to stop writing */
			ret = err_set(err, EIO,
				      "%s: the compressed cluster at byte %#llx of the file cannot be unpacked",
				      q->path, (unsigned long long)offset);
	}
	if (!ret && whole != buf) {
		memcpy(buf, whole + in, len);
		/* Who reads a part reads the next part soon. */
		memcpy(q->unzip, whole, q->cluster_size);
		q->unzip_of = entry;
	}
	free(zip);
	if (whole != buf)
		free(whole);
	return ret;
}

/* 0: it does not become shorter. */
static size_t pack(struct qcow2 *q, uint8_t *out, size_t room, const uint8_t *in)
{
	z_stream z = { .next_in = (uint8_t *)in, .avail_in = q->cluster_size, .next_out = out, .avail_out = room };
	size_t n;
	int ret;

	if (q->h.compression == QCOW2_ZSTD) {
		n = ZSTD_compress(out, room, in, q->cluster_size, ZSTD_CLEVEL_DEFAULT);
		return ZSTD_isError(n) ? 0 : n;
	}
	if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, WINDOW_BITS, 9, Z_DEFAULT_STRATEGY) != Z_OK)
		return 0;
	ret = deflate(&z, Z_FINISH);
	n = room - z.avail_out;
	deflateEnd(&z);
	return ret == Z_STREAM_END ? n : 0;
}

/* Space for n bytes: behind the last ones, if their cluster's count allows one more, and over its end if the next is
 * free. */
static int alloc_bytes(struct qcow2 *q, size_t n, uint64_t *offset, struct err *err)
{
	uint64_t next = q->comp_next, last = next >> q->h.cluster_bits, count = 0, fresh = 0;
	uint64_t left = next ? q->cluster_size - q_in_cluster(q, next) : 0;
	int ret = 0;

	if (next)
		ret = qcow2_ref_get(q, last, &count, err);
	if (ret)
		return ret;
	if (!count || count >= qcow2_ref_max(q))
		left = 0;
	if (n > left) {
		ret = qcow2_alloc(q, 1, &fresh, err);
		/* Guests' last cluster is read whole: let the file have all of it. */
		if (!ret && q->file_end < fresh + q->cluster_size) {
			if (ftruncate(q->fd, fresh + q->cluster_size))
				ret = err_set_errno(err, errno, "%s: growing the file", q->path);
			else
				q->file_end = fresh + q->cluster_size;
		}
		if (ret)
			return ret;
		if (fresh != (last + 1) << q->h.cluster_bits)
			left = 0;
	}
	*offset = left ? next : fresh;
	if (left)
		ret = qcow2_ref_set(q, last, count + 1, err);
	q->comp_next = *offset + n;
	if (!q_in_cluster(q, q->comp_next))
		q->comp_next = 0;
	return ret;
}

static int write_packed(struct qcow2 *q, uint64_t cluster, const uint8_t *in, const uint8_t *zip, size_t n,
			struct err *err)
{
	unsigned x = 62 - (q->h.cluster_bits - 8);
	struct qcow2_entry e, old;
	uint64_t offset;
	int ret;

	if (!n)
		return qcow2_do_write(q, cluster, in, q->cluster_size, err);
	ret = alloc_bytes(q, n, &offset, err);
	if (!ret && (offset + n) >> x)
		ret = err_set(err, EFBIG, "%s: compressed clusters cannot be that far in the file", q->path);
	if (!ret)
		ret = qcow2_data_write(q, offset, zip, n, err);
	if (!ret)
		ret = qcow2_lookup_write(q, cluster, &e, err);
	if (ret)
		return ret;
	old = e;
	ret = qcow2_release(q, &old, err);
	if (ret)
		return ret;
	qcow2_entry_store(q, &e, Q_COMPRESSED | ((offset + n - 1) / 512 - offset / 512) << x | offset, 0);
	return 0;
}

int qcow2_write_compressed(struct qcow2 *q, uint64_t offset, const void *buf, size_t len, struct err *err)
{
	uint64_t size = qcow2_size(q);
	struct qcow2_range range;
	uint8_t *whole = NULL, *zip;
	size_t n = 0;
	int ret = 0;

	if (DATA_FILE(q))
		return err_set(err, ENOTSUP, "%s has an external data file, where nothing can be compressed", q->path);
	if (q->luks)
		return err_set(err, ENOTSUP, "%s is encrypted, and what is compressed would not be", q->path);
	if (q_in_cluster(q, offset) || len > q->cluster_size || offset > size || len > size - offset ||
	    (len < q->cluster_size && offset + len != size))
		return err_set(err, EINVAL, "%s: only whole clusters can be compressed", q->path);
	zip = malloc(q->cluster_size);
	if (len < q->cluster_size)
		whole = calloc(1, q->cluster_size);
	if (!zip || (len < q->cluster_size && !whole))
		ret = err_set(err, ENOMEM, "%s: no memory for a cluster", q->path);
	else if (whole)
		buf = memcpy(whole, buf, len);
	if (!ret)
		n = pack(q, zip, q->cluster_size - 1, buf); /* where many threads can at a time */
	pthread_mutex_lock(&q->lock);
	if (!ret)
		ret = qcow2_begin_write(q, err);
	if (!ret) {
		qcow2_range_lock(q, &range, offset, len);
		qcow2_bitmaps_mark(q, offset, len);
		ret = write_packed(q, offset, buf, zip, n, err);
		qcow2_range_unlock(q, &range);
	}
	pthread_mutex_unlock(&q->lock);
	free(whole);
	free(zip);
	return ret;
}
