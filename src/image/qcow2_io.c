/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdlib.h>

#include "image/qcow2_int.h"

#define ZEROES 65536u
#define MANY_FREES 1024u

static int check_range(struct qcow2 *q, uint64_t offset, uint64_t len, struct err *err)
{
	uint64_t end = q_round_up(q->h.size, 512);

	if (offset > end || len > end - offset)
		return err_set(err, EINVAL, "%s: bytes %llu to %llu are not within the image", q->path,
			       (unsigned long long)offset, (unsigned long long)(offset + len));
	return 0;
}

int qcow2_begin_write(struct qcow2 *q, struct err *err)
{
	const uint64_t keep = Q_AUTOCLEAR_DATA_RAW | (q->nbitmaps ? Q_AUTOCLEAR_BITMAPS : 0);
	int ret;

	if (!q->writable)
		return err_set(err, EROFS, "%s is open for reading only", q->path);
	if (q->broken)
		return err_set(err, EIO, "%s was found corrupt and is not written any more", q->path);
	if (q->touched)
		return 0;
	/* Others' features that need each writer's care are void from now on; lazy refcounts may be behind. */
	if (q->h.autoclear & ~keep || LAZY(q)) {
		struct qcow2_header before = q->h;

		q->h.autoclear &= keep;
		if (LAZY(q))
			q->h.incompat |= Q_INCOMPAT_DIRTY;
		ret = qcow2_header_write(q, err);
		if (ret) {
			q->h = before;
			return ret;
		}
	}
	q->touched = true;
	ret = qcow2_bitmaps_begin(q, err);
	if (ret)
		q->touched = false;
	return ret;
}

/* Lock, and have these clusters to ourselves. */
static int range_begin(struct qcow2 *q, struct qcow2_range *r, uint64_t offset, uint64_t len, struct err *err)
{
	int ret;

	pthread_mutex_lock(&q->lock);
	qcow2_range_lock(q, r, offset, len);
	ret = check_range(q, offset, len, err); /* only now: it may have been resized */
	if (!ret)
		ret = qcow2_begin_write(q, err);
	if (!ret)
		qcow2_bitmaps_mark(q, offset, len);
	return ret;
}

static void range_end(struct qcow2 *q, struct qcow2_range *r)
{
	qcow2_range_unlock(q, r);
	pthread_mutex_unlock(&q->lock);
}

/* ---- Reading ---------------------------------------------------------------- */

static int read_backing(struct qcow2 *q, uint64_t offset, uint8_t *buf, size_t len, struct err *err)
{
	uint64_t size = q->backing ? image_size(q->backing) : 0, n = offset < size ? size - offset : 0;
	bool unlocked;
	int ret;

	if (n > len)
		n = len;
	memset(buf + n, 0, len - n);
	if (!n)
		return 0;
	unlocked = qcow2_unlock_for_data(q);
	ret = image_read(q->backing, offset, buf, n, err);
	qcow2_lock_after_data(q, unlocked);
	return ret;
}

/* len bytes in one unit. */
static int read_unit(struct qcow2 *q, uint64_t offset, uint8_t *buf, size_t len, struct err *err)
{
	uint64_t in = q_in_cluster(q, offset);
	struct qcow2_entry e;
	enum qcow2_kind kind;
	int ret = qcow2_lookup(q, offset, &e, err);

	if (!ret)
		ret = qcow2_kind_at(q, &e, in, &kind, err);
	if (ret)
		return ret;
	switch (kind) {
	case Q_UNALLOCATED:
		return read_backing(q, offset, buf, len, err);
	case Q_NORMAL:
		return qcow2_data_read(q, e.host + in, buf, len, err);
	case Q_PACKED:
		return qcow2_unpack(q, e.entry, in, buf, len, err);
	default:
		memset(buf, 0, len);
		return 0;
	}
}

static uint64_t rest_of(uint64_t offset, uint64_t len, unsigned bits)
{
	uint64_t rest = (1ull << bits) - (offset & ((1ull << bits) - 1));

	return rest < len ? rest : len;
}

/* Where stretches lie together they are read together. */
static int do_read(struct qcow2 *q, uint64_t offset, uint8_t *buf, size_t len, struct err *err)
{
	uint64_t host = 0, run = 0;
	int ret = 0;

	while (len && !ret) {
		uint64_t n = rest_of(offset + run, len - run, q->unit_bits), in = q_in_cluster(q, offset + run);
		enum qcow2_kind kind = Q_UNALLOCATED;
		struct qcow2_entry e;

		if (n) {
			ret = qcow2_lookup(q, offset + run, &e, err);
			if (!ret)
				ret = qcow2_kind_at(q, &e, in, &kind, err);
			if (ret)
				break;
		}
		if (n && kind == Q_NORMAL && (!run || e.host + in == host + run)) {
			if (!run)
				host = e.host + in;
			run += n;
			continue;
		}
		if (run) {
			ret = qcow2_data_read(q, host, buf, run, err);
			n = run;
			run = 0;
		} else {
			ret = read_unit(q, offset, buf, n, err);
		}
		offset += n;
		buf += n;
		len -= n;
	}
	return ret;
}

int qcow2_read(struct qcow2 *q, uint64_t offset, void *buf, size_t len, struct err *err)
{
	int ret;

	pthread_mutex_lock(&q->lock);
	ret = check_range(q, offset, len, err);
	if (!ret)
		ret = do_read(q, offset, buf, len, err);
	pthread_mutex_unlock(&q->lock);
	return ret;
}

/* ---- Writing ---------------------------------------------------------------- */

/* Bits of an extended entry's bitmap for the bytes [from, to) of a cluster, whole units. */
static uint64_t bits_of(const struct qcow2 *q, uint64_t from, uint64_t to)
{
	unsigned first = from >> q->unit_bits, end = to >> q->unit_bits;

	return ((1ull << end) - 1) & ~((1ull << first) - 1);
}

/* Write [from, to) of a cluster at `host`: the bytes of buf, around them what the guest sees there now. */
static int write_around(struct qcow2 *q, uint64_t host, uint64_t cluster, uint64_t from, uint64_t to, uint64_t in,
			const uint8_t *buf, size_t len, struct err *err)
{
	uint64_t head = in - from, tail = to - (in + len);
	uint8_t *around;
	int ret = 0;

	if (!head && !tail)
		return qcow2_data_write(q, host + in, buf, len, err);
	around = malloc(to - from);
	if (!around)
		return err_set(err, ENOMEM, "%s: no memory to write a cluster", q->path);
	if (head)
		ret = do_read(q, cluster + from, around, head, err);
	if (!ret && tail)
		ret = do_read(q, cluster + in + len, around + head + len, tail, err);
	if (!ret) {
		memcpy(around + head, buf, len);
		ret = qcow2_data_write(q, host + from, around, to - from, err);
	}
	free(around);
	return ret;
}

/* Are all units of [from, to) data already? */
static int all_normal(struct qcow2 *q, const struct qcow2_entry *e, uint64_t from, uint64_t to, bool *all,
		      struct err *err)
{
	enum qcow2_kind kind = Q_NORMAL;
	int ret = 0;

	for (uint64_t at = from; !ret && at < to && kind == Q_NORMAL; at += 1ull << q->unit_bits)
		ret = qcow2_kind_at(q, e, at, &kind, err);
	*all = kind == Q_NORMAL;
	return ret;
}

static int write_private(struct qcow2 *q, struct qcow2_entry *e, uint64_t cluster, uint64_t in, const uint8_t *buf,
			 size_t len, struct err *err)
{
	uint64_t unit = 1ull << q->unit_bits, from = in & ~(unit - 1), to = q_round_up(in + len, unit), bits;
	bool all;
	int ret = all_normal(q, e, from, to, &all, err);

	if (ret)
		return ret;
	if (all)
		return qcow2_data_write(q, e->host + in, buf, len, err);
	ret = write_around(q, e->host, cluster, from, to, in, buf, len, err);
	/* Tables may have moved. */
	if (!ret)
		ret = qcow2_lookup(q, cluster, e, err);
	if (ret)
		return ret;
	bits = EXTENDED(q) ? bits_of(q, from, to) : 0;
	qcow2_entry_store(q, e, e->entry & ~Q_ZERO, (e->bitmap | bits) & ~(bits << 32));
	return 0;
}

static int write_new(struct qcow2 *q, struct qcow2_entry *e, uint64_t cluster, uint64_t in, const uint8_t *buf,
		     size_t len, struct err *err)
{
	uint64_t unit = 1ull << q->unit_bits, from = 0, to = q->cluster_size, host, bitmap = 0;
	struct qcow2_entry old;
	int ret;

	if (EXTENDED(q) && !e->allocated && !(e->entry & Q_COMPRESSED)) {
		from = in & ~(unit - 1);
		to = q_round_up(in + len, unit);
		bitmap = e->bitmap;
	}
	ret = qcow2_alloc_data(q, cluster, &host, err);
	if (ret)
		return ret;
	ret = write_around(q, host, cluster, from, to, in, buf, len, err);
	if (!ret)
		ret = qcow2_lookup(q, cluster, e, err);
	old = *e;
	if (!ret)
		ret = qcow2_release(q, &old, err);
	if (ret) {
		if (!DATA_FILE(q))
			(void)qcow2_free_now(q, host >> q->h.cluster_bits, 1, NULL);
		return ret;
	}
	if (EXTENDED(q)) {
		uint64_t bits = bits_of(q, from, to);

		bitmap = (bitmap | bits) & ~(bits << 32);
	}
	qcow2_entry_store(q, e, host | Q_COPIED, bitmap);
	return 0;
}

/* Whole clusters that are not ours yet, as many as find place together: one write. *n: how many there are, and were
 * written; 0 if there are none. */
static int write_run(struct qcow2 *q, uint64_t cluster, const uint8_t *buf, uint64_t *n, struct err *err)
{
	uint64_t most = *n, start = 0, host;
	struct qcow2_entry e, old;
	int ret = 0;

	for (*n = 0; *n < most; ++*n) {
		ret = qcow2_lookup_write(q, cluster + (*n << q->h.cluster_bits), &e, err);
		if (ret || e.private)
			break;
		ret = qcow2_alloc_data(q, cluster + (*n << q->h.cluster_bits), &host, err);
		if (ret)
			break;
		if (*n && host != start + (*n << q->h.cluster_bits)) {
			if (!DATA_FILE(q))
				ret = qcow2_free_now(q, host >> q->h.cluster_bits, 1, err);
			break;
		}
		start = *n ? start : host;
	}
	most = *n;
	/* What was allocated before something failed is written before that is told. */
	if (most && !q->broken && !qcow2_data_write(q, start, buf, most << q->h.cluster_bits, err))
		for (*n = 0; *n < most; ++*n) {
			int stored = qcow2_lookup_write(q, cluster + (*n << q->h.cluster_bits), &e, err);

			old = e;
			if (!stored)
				stored = qcow2_release(q, &old, err);
			if (stored)
				break;
			qcow2_entry_store(q, &e, (start + (*n << q->h.cluster_bits)) | Q_COPIED,
					  EXTENDED(q) ? 0xffffffff : 0);
		}
	else
		*n = 0;
	if (*n == most)
		return ret;
	if (!DATA_FILE(q) && !q->broken)
		(void)qcow2_free_now(q, (start >> q->h.cluster_bits) + *n, most - *n, NULL);
	return err && err->code ? -err->code : -EIO;
}

int qcow2_do_write(struct qcow2 *q, uint64_t offset, const uint8_t *buf, size_t len, struct err *err)
{
	int ret = 0;

	while (len && !ret) {
		uint64_t n = rest_of(offset, len, q->h.cluster_bits), in = q_in_cluster(q, offset);
		struct qcow2_entry e;

		if (!in && len >= 2 * q->cluster_size) {
			uint64_t run = len >> q->h.cluster_bits;

			ret = write_run(q, offset, buf, &run, err);
			if (ret)
				break;
			offset += run << q->h.cluster_bits;
			buf += run << q->h.cluster_bits;
			len -= run << q->h.cluster_bits;
			if (run)
				continue;
		}
		ret = qcow2_lookup_write(q, offset, &e, err);
		if (ret)
			break;
		ret = e.private ? write_private(q, &e, offset - in, in, buf, n, err)
				: write_new(q, &e, offset - in, in, buf, n, err);
		offset += n;
		buf += n;
		len -= n;
	}
	if (!ret && q->nfrees > MANY_FREES)
		ret = qcow2_writeback(q, err);
	return ret;
}

int qcow2_write(struct qcow2 *q, uint64_t offset, const void *buf, size_t len, struct err *err)
{
	struct qcow2_range range;
	int ret;

	ret = range_begin(q, &range, offset, len, err);
	if (!ret)
		ret = qcow2_do_write(q, offset, buf, len, err);
	range_end(q, &range);
	return ret;
}

/* ---- Zeroes ----------------------------------------------------------------- */

static bool backed(struct qcow2 *q, uint64_t cluster)
{
	return q->flags & IMAGE_KEEP_ZEROES || (q->backing ? cluster < image_size(q->backing) : q->backing_name != NULL);
}

/* Parts of a cluster: written, unless they read as zeroes anyway. */
static int zero_part(struct qcow2 *q, uint64_t offset, uint64_t len, struct err *err)
{
	static const uint8_t zeroes[ZEROES];
	int ret = 0;

	while (len && !ret) {
		uint64_t n = rest_of(offset, len < ZEROES ? len : ZEROES, q->unit_bits);
		enum qcow2_kind kind;
		struct qcow2_entry e;

		ret = qcow2_lookup(q, offset, &e, err);
		if (!ret)
			ret = qcow2_kind_at(q, &e, q_in_cluster(q, offset), &kind, err);
		if (!ret && kind != Q_ZERO_PLAIN && kind != Q_ZERO_ALLOCATED &&
		    (kind != Q_UNALLOCATED || backed(q, offset)))
			ret = qcow2_do_write(q, offset, zeroes, n, err);
		offset += n;
		len -= n;
	}
	return ret;
}

static int zero_raw(struct qcow2 *q, uint64_t offset, struct err *err)
{
	static const uint8_t zeroes[ZEROES];
	uint64_t end = offset + q->cluster_size < q->h.size ? offset + q->cluster_size : q->h.size;
	int ret = 0;

	qcow2_punch(q, q->data_fd, offset, end - offset);
	for (uint64_t n; q->no_punch && !ret && offset < end; offset += n) {
		n = end - offset < ZEROES ? end - offset : ZEROES;
		ret = qcow2_data_write(q, offset, zeroes, n, err);
	}
	return ret;
}

/* A whole cluster becomes zeroes; drop: and its space free. */
static int zero_cluster(struct qcow2 *q, uint64_t offset, bool drop, struct err *err)
{
	struct qcow2_entry e, old;
	uint64_t zero;
	int ret = qcow2_lookup(q, offset, &e, err);

	if (ret)
		return ret;
	if (!(e.entry | e.bitmap) && !backed(q, offset) && !DATA_RAW(q))
		return 0;
	/* Version 2 has no zero clusters: what is not there reads as zeroes only without a backing file. */
	if (q->h.version < 3 && (backed(q, offset) || !drop))
		return zero_part(q, offset, q->cluster_size, err);
	ret = qcow2_lookup_write(q, offset, &e, err);
	if (ret)
		return ret;
	zero = q->h.version < 3 ? 0 : EXTENDED(q) ? 0 : Q_ZERO;
	if (DATA_RAW(q)) { /* where the other file must say so, too */
		drop = false;
		ret = zero_raw(q, offset, err);
		if (ret)
			return ret;
	}
	if (e.private && !drop) {
		qcow2_entry_store(q, &e, e.entry | zero, EXTENDED(q) ? 0xffffffffull << 32 : 0);
		return 0;
	}
	old = e;
	ret = qcow2_release(q, &old, err);
	if (!ret && (backed(q, offset) || !drop))
		qcow2_entry_store(q, &e, zero, EXTENDED(q) ? 0xffffffffull << 32 : 0);
	else if (!ret)
		qcow2_entry_store(q, &e, 0, 0);
	return ret;
}

/* Is there nothing in the L2 table that covers offset, or none at all? */
static bool no_table(struct qcow2 *q, uint64_t offset)
{
	uint64_t i = offset >> (q->h.cluster_bits + q->l2_bits);

	return i >= q->h.l1_size || !(q->l1[i] & Q_OFFSET);
}

static int each_cluster(struct qcow2 *q, uint64_t offset, uint64_t len, bool drop, struct err *err)
{
	int ret = 0;

	while (len && !ret) {
		uint64_t n = q->cluster_size;

		if (no_table(q, offset) && !backed(q, offset))
			n = rest_of(offset, len, q->h.cluster_bits + q->l2_bits);
		else
			ret = zero_cluster(q, offset, drop, err);
		if (!ret && q->nfrees > MANY_FREES)
			ret = qcow2_writeback(q, err);
		offset += n;
		len -= n;
	}
	return ret;
}

int qcow2_do_zero(struct qcow2 *q, uint64_t offset, uint64_t len, bool unmap, struct err *err)
{
	uint64_t end = offset + len, first = q_round_up(offset, q->cluster_size), last = end & ~(q->cluster_size - 1);
	int ret;

	/* The last cluster of the image counts as whole. */
	if (end >= q->h.size)
		last = q_round_up(end, q->cluster_size);
	if (first >= last)
		return zero_part(q, offset, len, err);
	ret = zero_part(q, offset, first - offset, err);
	if (!ret)
		ret = each_cluster(q, first, last - first, unmap, err);
	if (!ret && end > last)
		ret = zero_part(q, last, end - last, err);
	return ret;
}

int qcow2_zero(struct qcow2 *q, uint64_t offset, uint64_t len, bool unmap, struct err *err)
{
	struct qcow2_range range;
	int ret;

	ret = range_begin(q, &range, offset, len, err);
	if (!ret && len)
		ret = qcow2_do_zero(q, offset, len, unmap, err);
	range_end(q, &range);
	return ret;
}

int qcow2_do_discard(struct qcow2 *q, uint64_t offset, uint64_t len, struct err *err)
{
	uint64_t end = offset + len, first = q_round_up(offset, q->cluster_size), last = end & ~(q->cluster_size - 1);

	if (end >= q->h.size)
		last = q_round_up(end, q->cluster_size);
	if (first >= last)
		return 0;
	return each_cluster(q, first, last - first, true, err);
}

int qcow2_discard(struct qcow2 *q, uint64_t offset, uint64_t len, struct err *err)
{
	struct qcow2_range range;
	int ret;

	ret = range_begin(q, &range, offset, len, err);
	if (!ret)
		ret = qcow2_do_discard(q, offset, len, err);
	range_end(q, &range);
	return ret;
}

static int flush_tables(struct qcow2 *q, struct err *err)
{
	int ret = 0;

	if (!q->writable || !q->touched || q->broken)
		return q->broken ? err_set(err, EIO, "%s was found corrupt and is not written any more", q->path) : 0;
	ret = qcow2_writeback(q, err);
	/* Once more for refcounts: those that came down, and lazy ones. */
	if (!ret && q->refs.ndirty)
		ret = qcow2_writeback(q, err);
	return ret;
}

int qcow2_do_flush(struct qcow2 *q, struct err *err)
{
	int ret = flush_tables(q, err);

	return ret || !q->touched ? ret : qcow2_sync(q, err);
}

int qcow2_flush(struct qcow2 *q, struct err *err)
{
	int ret;

	bool touched;

	pthread_mutex_lock(&q->lock);
	ret = flush_tables(q, err);
	touched = q->touched;
	pthread_mutex_unlock(&q->lock);
	/* The disk may take its time; others need not wait. */
	return ret || !touched ? ret : qcow2_sync(q, err);
}

/* ---- Map -------------------------------------------------------------------- */

static int kind_of(struct qcow2 *q, uint64_t offset, struct image_extent *e, struct err *err)
{
	uint64_t in = q_in_cluster(q, offset);
	struct qcow2_entry entry;
	enum qcow2_kind kind;
	int ret = qcow2_lookup(q, offset, &entry, err);

	if (!ret)
		ret = qcow2_kind_at(q, &entry, in, &kind, err);
	if (ret)
		return ret;
	*e = (struct image_extent){
		.data = kind == Q_NORMAL || kind == Q_PACKED,
		.zero = kind == Q_ZERO_PLAIN || kind == Q_ZERO_ALLOCATED,
		.present = kind != Q_UNALLOCATED,
		.compressed = kind == Q_PACKED,
		.has_offset = !q->luks && (kind == Q_NORMAL || kind == Q_ZERO_ALLOCATED),
		.offset = entry.host + in,
		.path = q->data_path ? q->data_path : q->path,
	};
	return 0;
}

static bool goes_on(const struct image_extent *a, const struct image_extent *b, uint64_t after)
{
	return a->data == b->data && a->zero == b->zero && a->present == b->present && a->compressed == b->compressed &&
	       a->has_offset == b->has_offset && (!a->has_offset || a->offset + after == b->offset);
}

int qcow2_map(struct qcow2 *q, uint64_t offset, uint64_t len, struct image_extent *e, struct err *err)
{
	struct image_extent next;
	uint64_t n = 0;
	int ret;

	pthread_mutex_lock(&q->lock);
	ret = kind_of(q, offset, e, err);
	while (!ret && n < len) {
		if (no_table(q, offset + n))
			n += rest_of(offset + n, len - n, q->h.cluster_bits + q->l2_bits);
		else
			n += rest_of(offset + n, len - n, q->unit_bits);
		if (n < len) {
			ret = kind_of(q, offset + n, &next, err);
			if (!ret && !goes_on(e, &next, n))
				break;
		}
	}
	e->len = n;
	pthread_mutex_unlock(&q->lock);
	return ret;
}
