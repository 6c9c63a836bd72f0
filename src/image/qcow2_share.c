/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An L1 table with all below it is what a snapshot keeps. A cluster's refcount
 * is the number of L1 tables that lead to it, counted once for each entry.
 */
#include <errno.h>
#include <stdlib.h>

#include "image/qcow2_int.h"

struct walk {
	struct qcow2 *q;
	int delta;
	uint64_t steps, most; /* references changed; stop after `most` */
};

/* One cluster's count. */
static int step(struct walk *w, uint64_t cluster, struct err *err)
{
	struct qcow2 *q = w->q;
	uint64_t count;
	int ret;

	if (w->steps == w->most)
		return 1;
	if (w->delta < 0) {
		ret = qcow2_free_now(q, cluster, 1, err);
	} else {
		ret = qcow2_ref_get(q, cluster, &count, err);
		if (!ret && !count)
			ret = qcow2_corrupt(q, err, "the cluster at byte %#llx is in use and has refcount 0",
					    (unsigned long long)cluster << q->h.cluster_bits);
		if (!ret && count == qcow2_ref_max(q))
			ret = err_set(err, EOVERFLOW,
				      "%s: refcounts of %u bits cannot count one more snapshot: make the image with "
				      "larger refcount_bits",
				      q->path, 1u << q->h.refcount_order);
		if (!ret)
			ret = qcow2_ref_set(q, cluster, count + 1, err);
	}
	w->steps += !ret;
	return ret;
}

static int share_entry(struct walk *w, uint64_t entry, struct err *err)
{
	struct qcow2 *q = w->q;
	uint64_t offset = entry & Q_OFFSET, bytes = offset ? q->cluster_size : 0;
	int ret = 0;

	if (entry & Q_COMPRESSED)
		qcow2_packed_range(q, entry, &offset, &bytes);
	else if (q_in_cluster(q, offset))
		return qcow2_corrupt(q, err, "an L2 entry names data at byte %#llx", (unsigned long long)offset);
	for (uint64_t at = offset & ~(q->cluster_size - 1); !ret && at < offset + bytes; at += q->cluster_size) {
		if (at >= q->file_end || qcow2_meta_has(q, at))
			return qcow2_corrupt(q, err, "an L2 entry names data at byte %#llx", (unsigned long long)at);
		ret = step(w, at >> q->h.cluster_bits, err);
	}
	return ret;
}

/* The entries of a table, of which `copy` is one: what it is in the cache may go while counts are read. */
static int share_l2(struct walk *w, uint64_t at, uint64_t *copy, struct err *err)
{
	struct qcow2 *q = w->q;
	bool ext = EXTENDED(q), changed = false;
	uint64_t n = 1ull << q->l2_bits;
	struct qcow2_table *t;
	int ret = qcow2_cache_get(q, &q->l2, at, false, &t, err);

	if (ret)
		return ret;
	memcpy(copy, t->data, q->cluster_size);
	for (uint64_t i = 0; !ret && i < n; i++) {
		uint64_t e = be64toh(copy[i << ext]);

		ret = share_entry(w, e, err);
		if (!ret && w->delta > 0 && e & Q_COPIED) {
			copy[i << ext] = htobe64(e & ~Q_COPIED);
			changed = true;
		}
	}
	if (ret || !changed)
		return ret;
	/* Counts are on the disk before the flags: the cache is written in that order. */
	ret = qcow2_cache_get(q, &q->l2, at, false, &t, err);
	if (!ret) {
		memcpy(t->data, copy, q->cluster_size);
		qcow2_cache_dirty(&q->l2, t);
	}
	return ret;
}

static int walk(struct walk *w, const uint64_t *l1, uint64_t n, struct err *err)
{
	struct qcow2 *q = w->q;
	uint64_t *copy = malloc(q->cluster_size);
	int ret = copy ? 0 : err_set(err, ENOMEM, "%s: no memory for a table", q->path);

	for (uint64_t i = 0; !ret && i < n; i++) {
		uint64_t at = l1[i] & Q_OFFSET;

		if (!at)
			continue;
		if (q_in_cluster(q, at) || at >= q->file_end)
			ret = qcow2_corrupt(q, err, "an L1 entry names an L2 table at byte %#llx",
					    (unsigned long long)at);
		if (!ret)
			ret = share_l2(w, at, copy, err);
		if (!ret)
			ret = step(w, at >> q->h.cluster_bits, err);
	}
	free(copy);
	return ret;
}

int qcow2_share(struct qcow2 *q, const uint64_t *l1, uint64_t n, int delta, struct err *err)
{
	struct walk w = { .q = q, .delta = delta, .most = UINT64_MAX }, back = { .q = q, .delta = -1 };
	int ret = walk(&w, l1, n, err);

	if (ret && delta > 0 && !q->broken) {
		/* Flags that were cleared stay so in the cache until qcow2_set_flags(). */
		back.most = w.steps;
		(void)walk(&back, l1, n, NULL);
		(void)qcow2_set_flags(q, NULL);
	}
	return ret;
}

/* The flag as the count wants it; true: changed. */
static int set_flag(struct qcow2 *q, uint64_t *entry, bool *changed, struct err *err)
{
	uint64_t offset = *entry & Q_OFFSET, count;
	int ret = 0;

	if (!offset)
		return 0;
	ret = qcow2_ref_get(q, offset >> q->h.cluster_bits, &count, err);
	if (!ret && !(*entry & Q_COPIED) != (count != 1)) {
		*entry ^= Q_COPIED;
		*changed = true;
	}
	return ret;
}

int qcow2_set_flags(struct qcow2 *q, struct err *err)
{
	bool ext = EXTENDED(q);
	uint64_t *copy = malloc(q->cluster_size);
	int ret = copy ? 0 : err_set(err, ENOMEM, "%s: no memory for a table", q->path);

	for (uint32_t i = 0; !ret && i < q->h.l1_size; i++) {
		uint64_t entry = q->l1[i], at = entry & Q_OFFSET;
		bool moved = false, changed = false;
		struct qcow2_table *t;

		if (!at)
			continue;
		ret = set_flag(q, &entry, &moved, err);
		if (!ret && moved)
			qcow2_set_l1(q, i, entry);
		if (!ret)
			ret = qcow2_cache_get(q, &q->l2, at, false, &t, err);
		if (ret)
			break;
		memcpy(copy, t->data, q->cluster_size);
		for (uint64_t j = 0; !ret && j < 1ull << q->l2_bits; j++) {
			uint64_t e = be64toh(copy[j << ext]);

			if (!(e & Q_COMPRESSED))
				ret = set_flag(q, &e, &changed, err);
			copy[j << ext] = htobe64(e);
		}
		if (!ret && changed)
			ret = qcow2_cache_get(q, &q->l2, at, false, &t, err);
		if (!ret && changed) {
			memcpy(t->data, copy, q->cluster_size);
			qcow2_cache_dirty(&q->l2, t);
		}
	}
	free(copy);
	return ret;
}

int qcow2_write_l1(struct qcow2 *q, const uint64_t *l1, uint64_t n, uint64_t *offset, struct err *err)
{
	uint64_t bytes = q_round_up(n ? n * 8 : 1, q->cluster_size), *disk = calloc(1, bytes);
	int ret = disk ? qcow2_alloc(q, bytes >> q->h.cluster_bits, offset, err)
		       : err_set(err, ENOMEM, "%s: no memory for an L1 table", q->path);

	for (uint64_t i = 0; !ret && i < n; i++)
		disk[i] = htobe64(l1[i]);
	if (!ret) {
		ret = qcow2_file_write(q, *offset, disk, bytes, err);
		if (!ret)
			ret = qcow2_meta_add(q, *offset, bytes, false, "a new L1 table", err);
		if (ret)
			(void)qcow2_free_now(q, *offset >> q->h.cluster_bits, bytes >> q->h.cluster_bits, NULL);
	}
	free(disk);
	return ret;
}

int qcow2_read_l1(struct qcow2 *q, uint64_t offset, uint64_t n, uint64_t **l1, struct err *err)
{
	int ret;

	*l1 = malloc(n * 8 + 8);
	ret = *l1 ? qcow2_file_read(q, offset, *l1, n * 8, "L1 table", err)
		  : err_set(err, ENOMEM, "%s: no memory for an L1 table", q->path);
	for (uint64_t i = 0; !ret && i < n; i++)
		(*l1)[i] = be64toh((*l1)[i]);
	if (ret) {
		free(*l1);
		*l1 = NULL;
	}
	return ret;
}

/* ---- All of it gone ------------------------------------------------------------ */

static int empty(struct qcow2 *q, struct err *err)
{
	uint64_t n = q->h.l1_size, *old = malloc(n * 8 + 8);
	int ret = old ? 0 : err_set(err, ENOMEM, "%s: no memory for an L1 table", q->path);

	if (!ret) {
		memcpy(old, q->l1, n * 8);
		for (uint64_t i = 0; i < n; i++)
			if (q->l1[i])
				qcow2_set_l1(q, i, 0);
		ret = qcow2_writeback(q, err);
		if (ret)
			memcpy(q->l1, old, n * 8);
	}
	if (!ret)
		ret = qcow2_sync(q, err);
	/* Nothing on the disk names them any more. */
	if (!ret)
		ret = qcow2_share(q, old, n, -1, err);
	free(old);
	return ret ? ret : qcow2_do_flush(q, err);
}

int qcow2_empty(struct qcow2 *q, struct err *err)
{
	int ret;

	qcow2_exclusive_begin(q);
	ret = qcow2_begin_write(q, err);
	if (!ret && DATA_FILE(q))
		ret = qcow2_do_discard(q, 0, q->h.size, err);
	else if (!ret)
		ret = empty(q, err);
	qcow2_exclusive_end(q);
	return ret;
}
