/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdlib.h>

#include "image/qcow2_int.h"

static void entry_load(struct qcow2 *q, struct qcow2_entry *e)
{
	const uint64_t *p = (const uint64_t *)e->table->data;
	bool ext = EXTENDED(q);

	e->entry = be64toh(p[e->index << ext]);
	e->bitmap = ext ? be64toh(p[(e->index << 1) + 1]) : 0;
	e->host = e->entry & Q_COMPRESSED ? 0 : e->entry & Q_OFFSET;
	/* In a data file of its own, guest cluster 0 lies at 0; then only the flag tells. */
	e->allocated = e->host || (DATA_FILE(q) && e->entry & Q_COPIED && !(e->entry & Q_COMPRESSED));
	e->private = e->allocated && e->entry & Q_COPIED;
}

void qcow2_entry_store(struct qcow2 *q, struct qcow2_entry *e, uint64_t entry, uint64_t bitmap)
{
	uint64_t *p = (uint64_t *)e->table->data;
	bool ext = EXTENDED(q);

	p[e->index << ext] = htobe64(entry);
	if (ext)
		p[(e->index << 1) + 1] = htobe64(bitmap);
	qcow2_cache_dirty(&q->l2, e->table);
	entry_load(q, e);
}

static int check_l2_offset(struct qcow2 *q, uint64_t index, uint64_t offset, struct err *err)
{
	if (q_in_cluster(q, offset) || offset >= q->file_end)
		return qcow2_corrupt(q, err, "entry %llu of the L1 table names an L2 table at byte %#llx",
				     (unsigned long long)index, (unsigned long long)offset);
	return 0;
}

int qcow2_lookup(struct qcow2 *q, uint64_t offset, struct qcow2_entry *e, struct err *err)
{
	uint64_t i = offset >> (q->h.cluster_bits + q->l2_bits), at;
	int ret;

	*e = (struct qcow2_entry){ .index = (offset >> q->h.cluster_bits) & ((1u << q->l2_bits) - 1) };
	at = i < q->h.l1_size ? q->l1[i] & Q_OFFSET : 0;
	if (!at)
		return 0;
	ret = check_l2_offset(q, i, at, err);
	if (!ret)
		ret = qcow2_cache_get(q, &q->l2, at, false, &e->table, err);
	if (!ret)
		entry_load(q, e);
	return ret;
}

bool qcow2_lookup_cached(struct qcow2 *q, uint64_t offset, struct qcow2_entry *e)
{
	uint64_t i = offset >> (q->h.cluster_bits + q->l2_bits), at = i < q->h.l1_size ? q->l1[i] & Q_OFFSET : 0;

	*e = (struct qcow2_entry){ .index = (offset >> q->h.cluster_bits) & ((1u << q->l2_bits) - 1) };
	e->table = at ? qcow2_cache_find(&q->l2, at) : NULL;
	if (e->table)
		entry_load(q, e);
	/* A table that is shared is not written. */
	e->private &= at && q->l1[i] & Q_COPIED;
	return e->table;
}

void qcow2_set_l1(struct qcow2 *q, uint32_t i, uint64_t entry)
{
	q->l1[i] = entry;
	if (i < q->l1_dirty_from)
		q->l1_dirty_from = i;
	if (i >= q->l1_dirty_to)
		q->l1_dirty_to = i + 1;
}

/* A table of our own for L1 entry i: empty, or a copy of the one shared with a snapshot. */
static int own_l2(struct qcow2 *q, uint64_t i, struct err *err)
{
	uint64_t old = q->l1[i] & Q_OFFSET, at;
	struct qcow2_table *t;
	uint8_t *copy = NULL;
	int ret = 0;

	if (old) {
		ret = check_l2_offset(q, i, old, err);
		if (!ret)
			ret = qcow2_cache_get(q, &q->l2, old, false, &t, err);
		copy = ret ? NULL : malloc(q->cluster_size);
		if (!ret && !copy)
			ret = err_set(err, ENOMEM, "%s: no memory for a table", q->path);
		if (!ret)
			memcpy(copy, t->data, q->cluster_size);
	}
	if (!ret)
		ret = qcow2_alloc(q, 1, &at, err);
	if (ret) {
		free(copy);
		return ret;
	}
	ret = qcow2_meta_add(q, at, q->cluster_size, false, "a new L2 table", err);
	if (!ret)
		ret = qcow2_cache_get(q, &q->l2, at, true, &t, err);
	if (!ret && copy)
		memcpy(t->data, copy, q->cluster_size);
	free(copy);
	/* Already now, so that a full disk is met before anything depends on the table. */
	if (!ret)
		ret = qcow2_file_write(q, at, t->data, q->cluster_size, err);
	if (ret) {
		(void)qcow2_free_now(q, at >> q->h.cluster_bits, 1,
				     NULL); /* and its place in the cache and among the metadata */
		return ret;
	}
	qcow2_cache_dirty(&q->l2, t);
	qcow2_set_l1(q, i, at | Q_COPIED);
	return old ? qcow2_free_later(q, old, q->cluster_size, err) : 0;
}

int qcow2_lookup_write(struct qcow2 *q, uint64_t offset, struct qcow2_entry *e, struct err *err)
{
	uint64_t i = offset >> (q->h.cluster_bits + q->l2_bits);
	int ret = 0;

	if (i >= q->h.l1_size)
		return qcow2_corrupt(q, err, "the L1 table has no entry for byte %llu", (unsigned long long)offset);
	if (!(q->l1[i] & Q_OFFSET) || !(q->l1[i] & Q_COPIED))
		ret = own_l2(q, i, err);
	if (!ret)
		ret = qcow2_lookup(q, offset, e, err);
	/* A lie here would let the guest write over metadata. */
	if (!ret && e->host && (q_in_cluster(q, e->host) || (!DATA_FILE(q) && qcow2_meta_has(q, e->host))))
		ret = qcow2_corrupt(q, err, "the L2 entry of guest byte %llu names byte %#llx, where metadata lies",
				    (unsigned long long)offset, (unsigned long long)e->host);
	return ret;
}

int qcow2_kind_at(struct qcow2 *q, const struct qcow2_entry *e, uint64_t in, enum qcow2_kind *kind, struct err *err)
{
	uint64_t bit = 1ull << (in >> q->unit_bits);
	bool alloc, zero;

	if (!e->table) {
		*kind = Q_UNALLOCATED;
		return 0;
	}
	if (e->entry & Q_COMPRESSED) {
		*kind = Q_PACKED;
		return DATA_FILE(q) ? qcow2_corrupt(q, err, "there is a compressed cluster and a data file") : 0;
	}
	if (q_in_cluster(q, e->host) || (!DATA_FILE(q) && e->host && e->host >= q->file_end))
		return qcow2_corrupt(q, err, "an L2 entry names data at byte %#llx of the file",
				     (unsigned long long)e->host);
	if (EXTENDED(q)) {
		alloc = e->bitmap & bit;
		zero = e->bitmap & bit << 32;
		if ((alloc && zero) || (alloc && !e->allocated))
			return qcow2_corrupt(q, err, "an L2 entry's bitmap is %#llx", (unsigned long long)e->bitmap);
		*kind = alloc ? Q_NORMAL : !zero ? Q_UNALLOCATED : e->allocated ? Q_ZERO_ALLOCATED : Q_ZERO_PLAIN;
		return 0;
	}
	zero = e->entry & Q_ZERO && q->h.version >= 3;
	*kind = zero ? (e->allocated ? Q_ZERO_ALLOCATED : Q_ZERO_PLAIN) : e->allocated ? Q_NORMAL : Q_UNALLOCATED;
	return 0;
}

/* The descriptor of a compressed cluster: its first byte, and how many up to the end of its last sector. */
void qcow2_packed_range(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *bytes)
{
	unsigned x = 62 - (q->h.cluster_bits - 8);

	*offset = entry & ((1ull << x) - 1);
	*bytes = (((entry & (Q_COMPRESSED - 1)) >> x) + 1) * 512 - (*offset & 511);
}

int qcow2_release(struct qcow2 *q, const struct qcow2_entry *e, struct err *err)
{
	uint64_t offset = e->host, bytes = e->host ? q->cluster_size : 0;

	if (DATA_FILE(q)) { /* nothing counts references there */
		if (e->allocated)
			qcow2_punch(q, q->data_fd, e->host, q->cluster_size);
		return 0;
	}
	if (e->entry & Q_COMPRESSED)
		qcow2_packed_range(q, e->entry, &offset, &bytes);
	if (!bytes)
		return 0;
	for (uint64_t at = offset & ~(q->cluster_size - 1); at < offset + bytes; at += q->cluster_size)
		if (qcow2_meta_has(q, at))
			return qcow2_corrupt(q, err, "an L2 entry names byte %#llx, where metadata lies",
					     (unsigned long long)at);
	return qcow2_free_later(q, offset, bytes, err);
}
