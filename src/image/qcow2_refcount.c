/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdlib.h>

#include "image/qcow2_int.h"

/* Entries narrower than a byte start at its lowest bits, wider ones are big endian. */
uint64_t qcow2_ref_entry(const struct qcow2 *q, const uint8_t *block, uint64_t i)
{
	unsigned order = q->h.refcount_order, bits = 1u << order;
	uint64_t v = 0;

	if (order < 3)
		return block[i >> (3 - order)] >> ((i & ((8 / bits) - 1)) * bits) & ((1u << bits) - 1);
	for (unsigned b = 0; b < bits / 8; b++)
		v = v << 8 | block[i * (bits / 8) + b];
	return v;
}

void qcow2_ref_set_entry(const struct qcow2 *q, uint8_t *block, uint64_t i, uint64_t value)
{
	unsigned order = q->h.refcount_order, bits = 1u << order;

	if (order < 3) {
		unsigned shift = (i & ((8 / bits) - 1)) * bits, mask = ((1u << bits) - 1) << shift;
		uint8_t *p = &block[i >> (3 - order)];

		*p = (*p & ~mask) | (value << shift & mask);
		return;
	}
	for (unsigned b = bits / 8; b; b--, value >>= 8)
		block[i * (bits / 8) + b - 1] = value;
}

uint64_t qcow2_ref_max(const struct qcow2 *q)
{
	unsigned bits = 1u << q->h.refcount_order;

	return bits == 64 ? UINT64_MAX : (1ull << bits) - 1;
}

static uint64_t in_block(const struct qcow2 *q, uint64_t cluster)
{
	return cluster & ((1ull << q->ref_bits) - 1);
}

/* The block with a cluster's count; NULL: there is none, the count is 0. */
static int get_block(struct qcow2 *q, uint64_t cluster, struct qcow2_table **t, struct err *err)
{
	uint64_t i = cluster >> q->ref_bits, at = i < q->reftable_len ? q->reftable[i] : 0;

	*t = NULL;
	if (!at)
		return 0;
	if (q_in_cluster(q, at) || at >= q->file_end)
		return qcow2_corrupt(q, err, "entry %llu of the refcount table names a block at byte %#llx",
				     (unsigned long long)i, (unsigned long long)at);
	return qcow2_cache_get(q, &q->refs, at, false, t, err);
}

int qcow2_ref_get(struct qcow2 *q, uint64_t cluster, uint64_t *count, struct err *err)
{
	struct qcow2_table *t;
	int ret = get_block(q, cluster, &t, err);

	*count = !ret && t ? qcow2_ref_entry(q, t->data, in_block(q, cluster)) : 0;
	return ret;
}

int qcow2_ref_set(struct qcow2 *q, uint64_t cluster, uint64_t count, struct err *err)
{
	struct qcow2_table *t;
	int ret = get_block(q, cluster, &t, err);

	if (!ret && !t)
		ret = qcow2_corrupt(q, err, "the refcount of the cluster at byte %#llx is 0",
				    (unsigned long long)cluster << q->h.cluster_bits);
	if (ret)
		return ret;
	qcow2_ref_set_entry(q, t->data, in_block(q, cluster), count);
	qcow2_cache_dirty(&q->refs, t);
	return 0;
}

/* ---- Growth ---------------------------------------------------------------- */

/*
 * Clusters from `first`, where no block is yet, on: `n` of something, the
 * blocks that describe all of them, and if a table of `have` entries is too
 * short for that, a new table.
 */
void qcow2_ref_layout(unsigned cluster_bits, unsigned ref_bits, uint64_t first, uint64_t n, uint64_t have,
		      uint64_t *blocks, uint64_t *table)
{
	uint64_t per = 1ull << ref_bits, entries = 1ull << (cluster_bits - 3);

	for (*table = 0;;) {
		uint64_t end, need;

		*blocks = (n + *table + per - 2) / (per - 1);
		end = (first + n + *table + *blocks + per - 1) >> ref_bits;
		if (end <= have)
			return;
		/* Half as much again, lest it grows each time. */
		need = ((have ? end + end / 2 : end) + entries - 1) / entries;
		if (need <= *table)
			return;
		*table = need;
	}
}

/* Entries [from, to) of the refcount table go to the disk. */
static int write_reftable(struct qcow2 *q, uint64_t offset, const uint64_t *table, uint64_t from, uint64_t to,
			  struct err *err)
{
	uint64_t *buf = malloc((to - from) * 8);
	int ret;

	if (!buf)
		return err_set(err, ENOMEM, "%s: no memory for the refcount table", q->path);
	for (uint64_t i = from; i < to; i++)
		buf[i - from] = htobe64(table[i]);
	ret = qcow2_file_write(q, offset + from * 8, buf, (to - from) * 8, err);
	free(buf);
	return ret;
}

static int move_reftable(struct qcow2 *q, uint64_t *table, uint64_t offset, uint64_t clusters, struct err *err)
{
	uint64_t old = q->h.reftable_offset >> q->h.cluster_bits, n = q->h.reftable_clusters;
	int ret = write_reftable(q, offset, table, 0, clusters << (q->h.cluster_bits - 3), err);
	struct qcow2_header before = q->h;

	if (!ret)
		ret = qcow2_sync(q, err);
	if (ret)
		return ret;
	q->h.reftable_offset = offset;
	q->h.reftable_clusters = clusters;
	ret = qcow2_header_write(q, err);
	if (ret) {
		q->h = before;
		return ret;
	}
	free(q->reftable);
	q->reftable = table;
	q->reftable_len = clusters << (q->h.cluster_bits - 3);
	qcow2_meta_del(q, old << q->h.cluster_bits, n << q->h.cluster_bits);
	ret = qcow2_meta_add(q, offset, clusters << q->h.cluster_bits, false, "the new refcount table", err);
	return ret ? ret : qcow2_free_now(q, old, n, err);
}

static void forget_blocks(struct qcow2 *q, uint64_t at, uint64_t n)
{
	for (; n; n--, at += q->cluster_size) {
		qcow2_meta_del(q, at, q->cluster_size);
		qcow2_cache_drop(&q->refs, at);
	}
}

/* New blocks, behind all that exists, with `n` clusters allocated in them. */
static int extend(struct qcow2 *q, uint64_t n, uint64_t *offset, struct err *err)
{
	uint64_t per = 1ull << q->ref_bits, first, blocks, clusters, total, last = 0, *table = NULL, len;
	int ret = 0;

	for (uint64_t i = 0; i < q->reftable_len; i++)
		if (q->reftable[i])
			last = i + 1;
	first = q_round_up(q_clusters(q, q->file_end), per);
	if (first < last << q->ref_bits)
		first = last << q->ref_bits;
	qcow2_ref_layout(q->h.cluster_bits, q->ref_bits, first, n, q->reftable_len, &blocks, &clusters);
	total = n + blocks + clusters;
	if (clusters << q->h.cluster_bits > QCOW2_MAX_REFTABLE || (first + total) << q->h.cluster_bits > Q_OFFSET)
		return err_set(err, EFBIG,
			       "%s: the file is as large as the format lets it become with this cluster size", q->path);
	len = clusters ? clusters << (q->h.cluster_bits - 3) : q->reftable_len;
	table = calloc(len, 8);
	if (!table)
		return err_set(err, ENOMEM, "%s: no memory for the refcount table", q->path);
	memcpy(table, q->reftable, q->reftable_len * 8);
	for (uint64_t b = 0; !ret && b < blocks; b++) {
		uint64_t at = (first + n + b) << q->h.cluster_bits;
		struct qcow2_table *t;

		ret = qcow2_meta_add(q, at, q->cluster_size, false, "a new refcount block", err);
		if (!ret)
			ret = qcow2_cache_get(q, &q->refs, at, true, &t, err);
		if (ret)
			break;
		for (uint64_t i = 0; i < per && b * per + i < total; i++)
			qcow2_ref_set_entry(q, t->data, i, 1);
		ret = qcow2_file_write(q, at, t->data, q->cluster_size, err);
		table[(first >> q->ref_bits) + b] = at;
	}
	if (!ret)
		ret = qcow2_sync(q, err);
	if (!ret && clusters) {
		ret = move_reftable(q, table, (first + n + blocks) << q->h.cluster_bits, clusters, err);
	} else if (!ret) {
		ret = write_reftable(q, q->h.reftable_offset, table, first >> q->ref_bits,
				     (first >> q->ref_bits) + blocks, err);
		if (!ret)
			memcpy(q->reftable, table, q->reftable_len * 8);
	}
	if (q->reftable == table)
		table = NULL; /* in use, whatever failed after that */
	else if (ret)
		forget_blocks(q, (first + n) << q->h.cluster_bits, blocks);
	free(table);
	*offset = first << q->h.cluster_bits;
	return ret;
}

/* A block for the range of `cluster`, in that cluster. */
static int new_block(struct qcow2 *q, uint64_t cluster, struct err *err)
{
	uint64_t at = cluster << q->h.cluster_bits, i = cluster >> q->ref_bits;
	struct qcow2_table *t;
	int ret = qcow2_meta_add(q, at, q->cluster_size, false, "a new refcount block", err);

	if (ret)
		return ret;
	ret = qcow2_cache_get(q, &q->refs, at, true, &t, err);
	if (!ret) {
		qcow2_ref_set_entry(q, t->data, in_block(q, cluster), 1);
		ret = qcow2_file_write(q, at, t->data, q->cluster_size, err);
	}
	if (!ret)
		ret = qcow2_sync(q, err);
	if (!ret) {
		q->reftable[i] = at;
		ret = write_reftable(q, q->h.reftable_offset, q->reftable, i, i + 1, err);
	}
	if (ret) {
		q->reftable[i] = 0;
		qcow2_meta_del(q, at, q->cluster_size);
		qcow2_cache_drop(&q->refs, at);
	}
	return ret;
}

/* ---- Allocation ------------------------------------------------------------- */

static int take(struct qcow2 *q, uint64_t first, uint64_t n, struct err *err)
{
	int ret = 0;

	for (uint64_t c = first; !ret && c < first + n; c++) {
		if (qcow2_meta_has(q, c << q->h.cluster_bits))
			return qcow2_corrupt(q, err, "the metadata at byte %#llx has refcount 0",
					     (unsigned long long)c << q->h.cluster_bits);
		ret = qcow2_ref_set(q, c, 1, err);
	}
	return ret;
}

int qcow2_alloc(struct qcow2 *q, uint64_t n, uint64_t *offset, struct err *err)
{
	uint64_t run = 0, c = q->hint;
	int ret = 0;

	if (n > 1 && n > 1ull << (q->ref_bits - 1))
		return extend(q, n, offset, err);
	for (;; c++) {
		struct qcow2_table *t;

		if (c >> q->ref_bits >= q->reftable_len)
			return extend(q, n, offset, err);
		if (c << q->h.cluster_bits > Q_OFFSET)
			return err_set(err, EFBIG, "%s: the file is as large as the format lets it become", q->path);
		ret = get_block(q, c, &t, err);
		if (!ret && !t) {
			ret = new_block(q, c, err);
			run = 0;
		} else if (!ret) {
			run = qcow2_ref_entry(q, t->data, in_block(q, c)) ? 0 : run + 1;
		}
		if (ret)
			return ret;
		if (run == n)
			break;
	}
	ret = take(q, c + 1 - n, n, err);
	if (!ret && n == 1)
		q->hint = c + 1;
	*offset = (c + 1 - n) << q->h.cluster_bits;
	return ret;
}

int qcow2_alloc_data(struct qcow2 *q, uint64_t cluster, uint64_t *host, struct err *err)
{
	if (!DATA_FILE(q))
		return qcow2_alloc(q, 1, host, err);
	*host = cluster;
	return 0;
}

static void punch(struct qcow2 *q, uint64_t cluster, uint64_t n)
{
	qcow2_punch(q, q->fd, cluster << q->h.cluster_bits, n << q->h.cluster_bits);
}

int qcow2_free_now(struct qcow2 *q, uint64_t cluster, uint64_t n, struct err *err)
{
	uint64_t empty = 0, c;
	int ret = 0;

	for (c = cluster; !ret && c < cluster + n; c++) {
		uint64_t count;

		ret = qcow2_ref_get(q, c, &count, err);
		if (!ret && !count)
			ret = qcow2_corrupt(q, err, "the cluster at byte %#llx is in use and has refcount 0",
					    (unsigned long long)c << q->h.cluster_bits);
		if (!ret)
			ret = qcow2_ref_set(q, c, count - 1, err);
		if (ret)
			break;
		if (count > 1) {
			punch(q, c - empty, empty);
			empty = 0;
			continue;
		}
		empty++;
		if (c < q->hint)
			q->hint = c;
		qcow2_cache_drop(&q->l2, c << q->h.cluster_bits);
		qcow2_meta_del(q, c << q->h.cluster_bits, 1);
		if (q->comp_next >> q->h.cluster_bits == c)
			q->comp_next = 0;
	}
	punch(q, c - empty, empty);
	q->unzip_of = 0;
	return ret;
}

int qcow2_free_later(struct qcow2 *q, uint64_t offset, uint64_t bytes, struct err *err)
{
	uint64_t first = offset >> q->h.cluster_bits, last = (offset + bytes - 1) >> q->h.cluster_bits;
	struct qcow2_free *f = q->nfrees ? &q->frees[q->nfrees - 1] : NULL;

	if (f && f->cluster + f->count == first) {
		f->count += last - first + 1;
		return 0;
	}
	if (q->nfrees == q->frees_room) {
		size_t room = q->frees_room ? 2 * q->frees_room : 64;
		struct qcow2_free *new = realloc(q->frees, room * sizeof(*new));

		if (!new)
			return err_set(err, ENOMEM, "%s: no memory for a list of free clusters", q->path);
		q->frees = new;
		q->frees_room = room;
	}
	q->frees[q->nfrees++] = (struct qcow2_free){ first, last - first + 1 };
	return 0;
}

int qcow2_apply_frees(struct qcow2 *q, struct err *err)
{
	struct qcow2_free *list = q->frees;
	size_t n = q->nfrees;
	int ret = 0;

	/* While the users of these clusters are waited for, others may put more on a list of their own. */
	q->frees = NULL;
	q->nfrees = q->frees_room = 0;
	qcow2_drain(q);
	for (size_t i = 0; i < n && !ret; i++)
		ret = qcow2_free_now(q, list[i].cluster, list[i].count, err);
	qcow2_undrain(q);
	free(list);
	return ret;
}
