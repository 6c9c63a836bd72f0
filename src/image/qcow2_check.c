/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Count what names each cluster and compare it with the refcounts; set them right if asked to. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "image/qcow2_int.h"

#define PAGE 4096u /* clusters */
#define MAX_PAGES (1ull << 24)

struct counts {
	uint32_t **page;
	uint64_t pages;
	uint64_t clusters; /* of the file */
};

struct checking {
	struct qcow2 *q;
	struct qcow2_check *c;
	struct counts n;
	bool quiet, rebuild; /* rebuild: the refcount structure itself is wrong */
	uint64_t too_low;    /* refcounts */
	uint64_t previous;   /* host offset of the last data cluster, for fragmentation */
};

static void report(struct checking *k, bool corruption, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void report(struct checking *k, bool corruption, const char *fmt, ...)
{
	char text[300];
	va_list ap;

	if (corruption)
		k->c->corruptions++;
	else
		k->c->leaks++;
	if (k->quiet || !k->c->report)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	k->c->report(k->c->opaque, corruption, text);
}

/* ---- Counts ------------------------------------------------------------------- */

static void counts_free(struct counts *n)
{
	for (uint64_t i = 0; n->page && i < n->pages; i++)
		free(n->page[i]);
	free(n->page);
	*n = (struct counts){ 0 };
}

static int counts_init(struct checking *k, struct err *err)
{
	struct counts *n = &k->n;

	n->clusters = q_clusters(k->q, k->q->file_end);
	n->pages = n->clusters / PAGE + 1;
	if (n->pages <= MAX_PAGES)
		n->page = calloc(n->pages, sizeof(n->page[0]));
	return n->page ? 0
		       : err_set(err, ENOMEM, "%s: no memory to count the references to %llu clusters", k->q->path,
				 (unsigned long long)n->clusters);
}

static uint32_t count_of(const struct counts *n, uint64_t cluster)
{
	const uint32_t *p = cluster / PAGE < n->pages ? n->page[cluster / PAGE] : NULL;

	return p ? p[cluster % PAGE] : 0;
}

/* Something names these bytes of the file. */
static int count(struct checking *k, uint64_t offset, uint64_t bytes, const char *what, struct err *err)
{
	unsigned bits = k->q->h.cluster_bits;

	for (uint64_t c = offset >> bits; bytes && c <= (offset + bytes - 1) >> bits; c++) {
		uint32_t **p;

		if (c >= k->n.clusters) {
			report(k, true, "ERROR %s at offset %#llx lies past the end of the file", what,
			       (unsigned long long)offset);
			return 0;
		}
		p = &k->n.page[c / PAGE];
		if (!*p)
			*p = calloc(PAGE, sizeof(**p));
		if (!*p)
			return err_set(err, ENOMEM, "%s: no memory to count references", k->q->path);
		if ((*p)[c % PAGE] < UINT32_MAX)
			(*p)[c % PAGE]++;
	}
	return 0;
}

static bool table_ok(struct checking *k, uint64_t offset, const char *what)
{
	if (!q_in_cluster(k->q, offset) && offset >> k->q->h.cluster_bits < k->n.clusters)
		return true;
	report(k, true, "ERROR %s offset %#llx is %s", what, (unsigned long long)offset,
	       q_in_cluster(k->q, offset) ? "not aligned to a cluster" : "past the end of the file");
	return false;
}

static void account(struct checking *k, uint64_t host)
{
	k->c->allocated++;
	if (k->previous && k->previous + k->q->cluster_size != host)
		k->c->fragmented++;
	k->previous = host;
}

static int count_l2(struct checking *k, const uint64_t *table, bool active, struct err *err)
{
	struct qcow2 *q = k->q;
	bool ext = EXTENDED(q);
	int ret = 0;

	for (uint32_t i = 0; !ret && i < 1u << q->l2_bits; i++) {
		uint64_t e = be64toh(table[i << ext]), bitmap = ext ? be64toh(table[(i << 1) + 1]) : 0, offset, bytes;

		if (e & Q_COMPRESSED) {
			qcow2_packed_range(q, e, &offset, &bytes);
			if (e & Q_COPIED)
				report(k, true, "ERROR: the compressed cluster at %#llx is marked as not shared",
				       (unsigned long long)offset);
			ret = count(k, offset, bytes, "compressed cluster", err);
			k->c->allocated += active;
			k->c->compressed += active;
			k->c->fragmented += active; /* as QEMU has it */
			continue;
		}
		offset = e & Q_OFFSET;
		if (DATA_FILE(q)) {
			k->c->allocated += active && (offset || e & Q_COPIED);
			continue; /* in a file where nothing is counted */
		}
		if (bitmap & bitmap >> 32 & 0xffffffffu)
			report(k, true, "ERROR: an L2 entry's bitmap %#llx says both data and zeroes",
			       (unsigned long long)bitmap);
		if (!offset && (uint32_t)bitmap)
			report(k, true, "ERROR: an L2 entry's bitmap %#llx says data where there is no cluster",
			       (unsigned long long)bitmap);
		if (!offset || !table_ok(k, offset, "data cluster"))
			continue;
		ret = count(k, offset, q->cluster_size, "data cluster", err);
		if (active)
			account(k, offset);
	}
	return ret;
}

static int count_l1(struct checking *k, const uint64_t *l1, uint64_t n, bool active, struct err *err)
{
	struct qcow2 *q = k->q;
	uint64_t *table = malloc(q->cluster_size);
	int ret = table ? 0 : err_set(err, ENOMEM, "%s: no memory for a table", q->path);

	for (uint64_t i = 0; !ret && i < n; i++) {
		uint64_t at = l1[i] & Q_OFFSET;

		if (!at || !table_ok(k, at, "L2 table"))
			continue;
		ret = count(k, at, q->cluster_size, "L2 table", err);
		if (!ret)
			ret = qcow2_file_read_data(q, at, table, q->cluster_size, err);
		if (!ret)
			ret = count_l2(k, table, active, err);
	}
	free(table);
	return ret;
}

static int count_snapshot(struct checking *k, const struct qcow2_snapshot *s, struct err *err)
{
	uint64_t *l1 = malloc(s->l1_size * 8 + 8);
	int ret = l1 ? 0 : err_set(err, ENOMEM, "%s: no memory for a snapshot's L1 table", k->q->path);

	if (!ret)
		ret = count(k, s->l1_offset, s->l1_size * 8, "snapshot L1 table", err);
	if (!ret)
		ret = qcow2_file_read(k->q, s->l1_offset, l1, s->l1_size * 8, "snapshot's L1 table", err);
	for (uint64_t i = 0; !ret && i < s->l1_size; i++)
		l1[i] = be64toh(l1[i]);
	if (!ret)
		ret = count_l1(k, l1, s->l1_size, false, err);
	free(l1);
	return ret;
}

static int count_bitmap(void *opaque, uint64_t offset, uint64_t bytes, const char *what, struct err *err)
{
	struct checking *k = opaque;

	return table_ok(k, offset, what) ? count(k, offset, bytes, what, err) : 0;
}

static int count_guest(struct checking *k, struct err *err)
{
	struct qcow2 *q = k->q;
	int ret = count(k, 0, q->cluster_size, "header", err);

	if (!ret)
		ret = count(k, q->h.l1_offset, (uint64_t)q->h.l1_size * 8, "L1 table", err);
	if (!ret)
		ret = count_l1(k, q->l1, q->h.l1_size, true, err);
	if (!ret && q->crypto_length)
		ret = count(k, q->crypto_offset, q->crypto_length, "LUKS header", err);
	if (!ret && q->snapshots_bytes)
		ret = count(k, q->h.snapshots_offset, q->snapshots_bytes, "snapshot table", err);
	for (unsigned i = 0; !ret && i < q->h.nb_snapshots; i++)
		ret = count_snapshot(k, &q->snapshots[i], err);
	return ret ? ret : qcow2_bitmaps_each(q, count_bitmap, k, err);
}

static int count_refs(struct checking *k, struct err *err)
{
	struct qcow2 *q = k->q;
	int ret = count(k, q->h.reftable_offset, (uint64_t)q->h.reftable_clusters << q->h.cluster_bits,
			"refcount table", err);

	for (uint64_t i = 0; !ret && i < q->reftable_len; i++) {
		if (!q->reftable[i])
			continue;
		if (!table_ok(k, q->reftable[i], "refcount block")) {
			k->rebuild = true;
			continue;
		}
		ret = count(k, q->reftable[i], q->cluster_size, "refcount block", err);
		/* A block on other metadata can't be right whatever it says. */
		if (!ret && count_of(&k->n, q->reftable[i] >> q->h.cluster_bits) > 1) {
			report(k, true, "ERROR refcount block %llu lies on something else", (unsigned long long)i);
			k->rebuild = true;
		}
	}
	return ret;
}

/* ---- Comparison ---------------------------------------------------------------- */

/* The stored count; blocks that are nowhere count as none. */
static int stored(struct checking *k, uint64_t cluster, uint64_t *refs, struct err *err)
{
	uint64_t i = cluster >> k->q->ref_bits, at = i < k->q->reftable_len ? k->q->reftable[i] : 0;

	*refs = 0;
	if (!at || q_in_cluster(k->q, at) || at + k->q->cluster_size > k->q->file_end)
		return 0;
	return qcow2_ref_get(k->q, cluster, refs, err);
}

/* Nothing to compare in these clusters? */
static bool blank(const struct checking *k, uint64_t cluster)
{
	uint64_t i = cluster >> k->q->ref_bits;

	return !k->n.page[cluster / PAGE] && (i >= k->q->reftable_len || !k->q->reftable[i]);
}

static int compare(struct checking *k, bool fix_leaks, struct err *err)
{
	struct qcow2 *q = k->q;
	uint64_t step = 1ull << q->ref_bits < PAGE ? 1ull << q->ref_bits : PAGE;
	int ret = 0;

	k->c->end = 0;
	for (uint64_t c = 0; !ret && c < k->n.clusters; c++) {
		uint64_t refs, want = count_of(&k->n, c);

		if (!(c & (step - 1)) && blank(k, c)) {
			c += step - 1;
			continue;
		}
		ret = stored(k, c, &refs, err);
		if (ret)
			break;
		if (want || refs)
			k->c->end = (c + 1) << q->h.cluster_bits;
		if (refs == want)
			continue;
		report(k, refs < want, "%s cluster %llu refcount=%llu reference=%llu", refs < want ? "ERROR" : "Leaked",
		       (unsigned long long)c, (unsigned long long)refs, (unsigned long long)want);
		k->too_low += refs < want;
		if (refs > want && fix_leaks) {
			ret = qcow2_ref_set(q, c, want, err);
			k->c->leaks_fixed++;
		}
	}
	return ret;
}

/* ---- Repair --------------------------------------------------------------------- */

static bool range_used(const struct counts *n, uint64_t from, uint64_t len)
{
	for (uint64_t c = from; c < from + len && c < n->clusters; c++) {
		if (!n->page[c / PAGE])
			c |= PAGE - 1;
		else if (n->page[c / PAGE][c % PAGE])
			return true;
	}
	return false;
}

static int write_block(struct checking *k, uint8_t *block, uint64_t at, struct err *err)
{
	return qcow2_file_write(k->q, at, block, k->q->cluster_size, err);
}

/* A new refcount table and blocks at the end of the file, from the counts of all else. */
static int rebuild(struct checking *k, struct err *err)
{
	struct qcow2 *q = k->q;
	uint64_t per = 1ull << q->ref_bits, first = q_round_up(k->n.clusters, per), needed = 0, own, clusters, at, len;
	uint8_t *block = malloc(q->cluster_size);
	uint64_t *table = NULL;
	int ret = block ? 0 : err_set(err, ENOMEM, "%s: no memory to repair it", q->path);

	for (uint64_t i = 0; i < first / per; i++)
		needed += range_used(&k->n, i * per, per);
	qcow2_ref_layout(q->h.cluster_bits, q->ref_bits, first, needed, 0, &own, &clusters);
	if (!ret && clusters << q->h.cluster_bits > QCOW2_MAX_REFTABLE)
		ret = err_set(err, EFBIG, "%s: its refcount table would be too large", q->path);
	len = clusters << (q->h.cluster_bits - 3);
	if (!ret && !(table = calloc(len, 8)))
		ret = err_set(err, ENOMEM, "%s: no memory to repair it", q->path);
	at = first << q->h.cluster_bits;
	for (uint64_t i = 0; !ret && i < first / per; i++) {
		if (!range_used(&k->n, i * per, per))
			continue;
		memset(block, 0, q->cluster_size);
		for (uint64_t c = 0; c < per; c++) {
			uint64_t n = count_of(&k->n, i * per + c);

			if (n > qcow2_ref_max(q))
				ret = err_set(err, EOVERFLOW,
					      "%s: a cluster has more references than refcounts of %u bits can hold",
					      q->path, 1u << q->h.refcount_order);
			qcow2_ref_set_entry(q, block, c, n);
		}
		if (!ret)
			ret = write_block(k, block, at, err);
		table[i] = htobe64(at);
		at += q->cluster_size;
	}
	for (uint64_t b = 0; !ret && b < own; b++, at += q->cluster_size) {
		memset(block, 0, q->cluster_size);
		for (uint64_t c = 0; c < per && b * per + c < needed + own + clusters; c++)
			qcow2_ref_set_entry(q, block, c, 1);
		ret = write_block(k, block, at, err);
		table[first / per + b] = htobe64(at);
	}
	if (!ret)
		ret = qcow2_file_write(q, at, table, len * 8, err);
	if (!ret)
		ret = qcow2_sync(q, err);
	if (!ret) {
		struct qcow2_header before = q->h;

		q->h.reftable_offset = at;
		q->h.reftable_clusters = clusters;
		ret = qcow2_header_write(q, err);
		if (ret)
			q->h = before;
	}
	free(block);
	if (ret) {
		free(table);
		return ret;
	}
	for (uint64_t i = 0; i < len; i++)
		table[i] = be64toh(table[i]);
	while (q->refs.newest)
		qcow2_cache_drop(&q->refs, q->refs.newest->offset);
	free(q->reftable);
	q->reftable = table;
	q->reftable_len = len;
	return 0;
}

/* ---- The "not shared" flags ------------------------------------------------------ */

static int check_flag(struct checking *k, uint64_t *entry, const char *what, bool fix, bool *changed, struct err *err)
{
	uint64_t refs, offset = *entry & Q_OFFSET;
	bool set = *entry & Q_COPIED;
	int ret;

	if (!offset || q_in_cluster(k->q, offset) || offset >> k->q->h.cluster_bits >= k->n.clusters)
		return 0;
	ret = stored(k, offset >> k->q->h.cluster_bits, &refs, err);
	if (ret || set == (refs == 1))
		return ret;
	report(k, true, "ERROR OFLAG_COPIED %s: entry=%#llx refcount=%llu", what, (unsigned long long)*entry,
	       (unsigned long long)refs);
	if (fix) {
		*entry ^= Q_COPIED;
		*changed = true;
		k->c->corruptions_fixed++;
	}
	return 0;
}

static int check_flags(struct checking *k, bool fix, struct err *err)
{
	struct qcow2 *q = k->q;
	bool ext = EXTENDED(q), l1_changed = false;
	uint64_t *table = malloc(q->cluster_size);
	int ret = table ? 0 : err_set(err, ENOMEM, "%s: no memory for a table", q->path);

	for (uint32_t i = 0; !ret && i < q->h.l1_size; i++) {
		uint64_t at = q->l1[i] & Q_OFFSET;
		bool changed = false, one = false;

		if (!at || q_in_cluster(q, at) || at >> q->h.cluster_bits >= k->n.clusters)
			continue;
		ret = check_flag(k, &q->l1[i], "L2 table", fix, &one, err);
		if (one) {
			q->l1_dirty_from = i < q->l1_dirty_from ? i : q->l1_dirty_from;
			q->l1_dirty_to = i + 1;
			l1_changed = true;
		}
		if (!ret)
			ret = qcow2_file_read_data(q, at, table, q->cluster_size, err);
		for (uint32_t j = 0; !ret && j < 1u << q->l2_bits; j++) {
			uint64_t e = be64toh(table[j << ext]);

			if (e & Q_COMPRESSED || DATA_FILE(q))
				continue;
			ret = check_flag(k, &e, "data cluster", fix, &changed, err);
			table[j << ext] = htobe64(e);
		}
		if (!ret && changed) {
			qcow2_cache_drop(&q->l2, at);
			ret = qcow2_file_write(q, at, table, q->cluster_size, err);
		}
	}
	free(table);
	return ret || !l1_changed ? ret : qcow2_writeback(q, err);
}

/* ---- All of it --------------------------------------------------------------------- */

static int look(struct checking *k, bool fix_leaks, struct err *err)
{
	int ret;

	k->too_low = 0;
	k->rebuild = false;
	k->previous = 0;
	k->c->allocated = k->c->fragmented = k->c->compressed = 0;
	ret = counts_init(k, err);
	if (!ret)
		ret = count_guest(k, err);
	if (!ret)
		ret = count_refs(k, err);
	return ret ? ret : compare(k, fix_leaks, err);
}

/* Refcounts that are too low would let data be shared by mistake: all are made new. */
static int repair_refs(struct checking *k, struct err *err)
{
	uint64_t before = k->c->corruptions, leaks = k->c->leaks;
	int ret;

	counts_free(&k->n);
	k->quiet = true;
	ret = counts_init(k, err);
	if (!ret)
		ret = count_guest(k, err);
	if (!ret)
		ret = rebuild(k, err);
	counts_free(&k->n);
	k->c->corruptions = k->c->leaks = 0;
	if (!ret)
		ret = look(k, true, err);
	k->c->corruptions_fixed = before > k->c->corruptions ? before - k->c->corruptions : 0;
	k->c->leaks_fixed = leaks;
	k->c->corruptions = before;
	k->c->leaks = leaks;
	k->quiet = false;
	return ret;
}

int qcow2_do_check(struct qcow2 *q, enum qcow2_fix fix, struct qcow2_check *c, struct err *err)
{
	struct checking k = { .q = q, .c = c };
	int ret = 0;

	c->corruptions = c->leaks = c->corruptions_fixed = c->leaks_fixed = c->errors = 0;
	c->total = q_clusters(q, q->h.size);
	ret = look(&k, fix != QCOW2_FIX_NONE, err);
	if (!ret && fix == QCOW2_FIX_ALL && (k.too_low || k.rebuild))
		ret = repair_refs(&k, err);
	if (!ret && fix != QCOW2_FIX_NONE)
		ret = qcow2_writeback(q, err);
	if (!ret)
		ret = check_flags(&k, fix == QCOW2_FIX_ALL, err);
	counts_free(&k.n);
	c->corruptions -= c->corruptions_fixed;
	c->leaks -= c->leaks_fixed;
	if (!ret && fix == QCOW2_FIX_ALL && !c->corruptions &&
	    q->h.incompat & (Q_INCOMPAT_CORRUPT | Q_INCOMPAT_DIRTY)) {
		q->h.incompat &= ~(Q_INCOMPAT_CORRUPT | Q_INCOMPAT_DIRTY);
		ret = qcow2_header_write(q, err);
	}
	return ret || fix == QCOW2_FIX_NONE ? ret : qcow2_sync(q, err);
}

int qcow2_check(struct qcow2 *q, enum qcow2_fix fix, struct qcow2_check *c, struct err *err)
{
	int ret;

	qcow2_exclusive_begin(q);
	if (fix != QCOW2_FIX_NONE && !(q->flags & IMAGE_RDWR))
		ret = err_set(err, EROFS, "%s is open for reading only", q->path);
	else
		ret = qcow2_do_check(q, fix, c, err);
	qcow2_exclusive_end(q);
	return ret;
}
