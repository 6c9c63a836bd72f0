/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "image/qcow2_int.h"

#define FIXED 40u

static uint64_t get(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;

	while (bytes--)
		v = v << 8 | *p++;
	return v;
}

static char *text(const uint8_t *p, size_t len)
{
	char *s = strndup((const char *)p, len);

	/* It is shown to people. */
	for (char *c = s; c && *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	return s;
}

static int bad(struct qcow2 *q, unsigned i, const char *what, struct err *err)
{
	return err_set(err, EINVAL, "%s: entry %u of the snapshot table (snapshots_offset): %s", q->path, i, what);
}

/* One entry at `at` of the table; *at moves behind it. */
static int parse(struct qcow2 *q, unsigned i, uint64_t *at, struct qcow2_snapshot *s, struct err *err)
{
	uint8_t fixed[FIXED], *rest;
	uint64_t id, name, extra, len;
	int ret = qcow2_file_read(q, *at, fixed, sizeof(fixed), "snapshot table", err);

	if (ret)
		return ret;
	id = get(fixed + 12, 2);
	name = get(fixed + 14, 2);
	extra = get(fixed + 36, 4);
	*s = (struct qcow2_snapshot){
		.l1_offset = get(fixed, 8),
		.l1_size = get(fixed + 8, 4),
		.date_sec = get(fixed + 16, 4),
		.date_nsec = get(fixed + 20, 4),
		.vm_clock_ns = get(fixed + 24, 8),
		.vm_state_size = get(fixed + 32, 4),
		.disk_size = q->h.size,
		.icount = UINT64_MAX,
	};
	if (extra > 1024)
		return bad(q, i, "too much extra data", err);
	if (s->l1_size > QCOW2_MAX_L1 / 8)
		return bad(q, i, "its L1 table is too large", err);
	if (qcow2_bound(q, s->l1_offset, s->l1_size * 8, "a snapshot's L1 table offset", err))
		return -EINVAL;
	len = extra + id + name;
	rest = malloc(len + 1);
	if (!rest)
		return err_set(err, ENOMEM, "%s: no memory for the snapshot table", q->path);
	ret = qcow2_file_read(q, *at + FIXED, rest, len, "snapshot table", err);
	if (!ret) {
		if (extra >= 8)
			s->vm_state_size = get(rest, 8);
		if (extra >= 16)
			s->disk_size = get(rest + 8, 8);
		if (extra >= 24)
			s->icount = get(rest + 16, 8);
		s->extra = extra ? malloc(extra) : NULL;
		s->extra_len = extra;
		if (s->extra)
			memcpy(s->extra, rest, extra);
		s->id = text(rest + extra, id);
		s->name = text(rest + extra + id, name);
		if (!s->id || !s->name || (extra && !s->extra))
			ret = err_set(err, ENOMEM, "%s: no memory for the snapshot table", q->path);
	}
	free(rest);
	*at += q_round_up(FIXED + len, 8);
	return ret;
}

int qcow2_snapshots_read(struct qcow2 *q, struct err *err)
{
	uint64_t at = q->h.snapshots_offset;
	int ret = 0;

	if (!q->h.nb_snapshots)
		return 0;
	if (q->h.nb_snapshots > QCOW2_MAX_SNAPSHOTS) {
		ret = err_set(err, EINVAL, "%s: nb_snapshots in the qcow2 header is %u: at most %u are possible",
			      q->path, q->h.nb_snapshots, QCOW2_MAX_SNAPSHOTS);
		q->h.nb_snapshots = 0;
		return ret;
	}
	q->snapshots = calloc(q->h.nb_snapshots, sizeof(q->snapshots[0]));
	if (!q->snapshots)
		return err_set(err, ENOMEM, "%s: no memory for the snapshot table", q->path);
	ret = qcow2_bound(q, at, (uint64_t)q->h.nb_snapshots * FIXED, "snapshots_offset", err);
	for (unsigned i = 0; !ret && i < q->h.nb_snapshots; i++) {
		ret = parse(q, i, &at, &q->snapshots[i], err);
		if (!ret && at - q->h.snapshots_offset > QCOW2_MAX_SNAPSHOT_TABLE)
			ret = bad(q, i, "the table is too long", err);
	}
	q->snapshots_bytes = at - q->h.snapshots_offset;
	return ret;
}

void qcow2_snapshots_free(struct qcow2 *q)
{
	for (unsigned i = 0; q->snapshots && i < q->h.nb_snapshots; i++) {
		free(q->snapshots[i].id);
		free(q->snapshots[i].name);
		free(q->snapshots[i].extra);
	}
	free(q->snapshots);
}

const struct qcow2_snapshot *qcow2_get_snapshot(struct qcow2 *q, unsigned i)
{
	return i < q->h.nb_snapshots ? &q->snapshots[i] : NULL;
}

int qcow2_snapshot_find(struct qcow2 *q, const char *name, unsigned *i, struct err *err)
{
	for (*i = 0; *i < q->h.nb_snapshots; ++*i)
		if (!strcmp(q->snapshots[*i].id, name))
			return 0;
	for (*i = 0; *i < q->h.nb_snapshots; ++*i)
		if (!strcmp(q->snapshots[*i].name, name))
			return 0;
	return err_set(err, ENOENT, "%s has no snapshot '%s'", q->path, name);
}

/* ---- Writing the table ---------------------------------------------------------- */

static void put(uint8_t *p, unsigned bytes, uint64_t v)
{
	for (; bytes; bytes--, v >>= 8)
		p[bytes - 1] = v;
}

#define EXTRA 24u /* state's size, disk's size, instruction count */

static size_t entry_length(const struct qcow2_snapshot *s)
{
	uint32_t extra = s->extra_len > EXTRA ? s->extra_len : EXTRA;

	return q_round_up(FIXED + extra + strlen(s->id) + strlen(s->name), 8);
}

static void encode(const struct qcow2_snapshot *s, uint8_t *p)
{
	uint32_t extra = s->extra_len > EXTRA ? s->extra_len : EXTRA;

	put(p, 8, s->l1_offset);
	put(p + 8, 4, s->l1_size);
	put(p + 12, 2, strlen(s->id));
	put(p + 14, 2, strlen(s->name));
	put(p + 16, 4, s->date_sec);
	put(p + 20, 4, s->date_nsec);
	put(p + 24, 8, s->vm_clock_ns);
	put(p + 32, 4, s->vm_state_size > UINT32_MAX ? 0 : s->vm_state_size);
	put(p + 36, 4, extra);
	if (s->extra_len)
		memcpy(p + FIXED, s->extra, s->extra_len);
	put(p + FIXED, 8, s->vm_state_size);
	put(p + FIXED + 8, 8, s->disk_size);
	put(p + FIXED + 16, 8, s->icount);
	memcpy(p + FIXED + extra, s->id, strlen(s->id));
	memcpy(p + FIXED + extra + strlen(s->id), s->name, strlen(s->name));
}

/* `n` entries become the table, in clusters of its own; the header changes at the last moment, and the old table goes.
 */
static int write_table(struct qcow2 *q, const struct qcow2_snapshot *list, unsigned n, struct err *err)
{
	uint64_t bytes = 0, at = 0, old = q->h.snapshots_offset, old_bytes = q->snapshots_bytes;
	struct qcow2_header before = q->h;
	uint8_t *buf = NULL, *p;
	int ret = 0;

	for (unsigned i = 0; i < n; i++)
		bytes += entry_length(&list[i]);
	if (bytes > QCOW2_MAX_SNAPSHOT_TABLE)
		return err_set(err, EFBIG, "%s: its snapshot table would be too long", q->path);
	if (n) {
		buf = p = calloc(1, bytes);
		if (!buf)
			return err_set(err, ENOMEM, "%s: no memory for the snapshot table", q->path);
		for (unsigned i = 0; i < n; p += entry_length(&list[i++]))
			encode(&list[i], p);
		ret = qcow2_alloc(q, q_clusters(q, bytes), &at, err);
		if (!ret)
			ret = qcow2_meta_add(q, at, bytes, false, "the new snapshot table", err);
		if (!ret)
			ret = qcow2_file_write(q, at, buf, bytes, err);
		free(buf);
	}
	if (!ret)
		ret = qcow2_writeback(q, err); /* counts of all that it names */
	if (!ret)
		ret = qcow2_sync(q, err);
	if (!ret) {
		q->h.nb_snapshots = n;
		q->h.snapshots_offset = at;
		ret = qcow2_header_write(q, err);
		if (ret)
			q->h = before;
	}
	if (ret) {
		if (at)
			(void)qcow2_free_now(q, at >> q->h.cluster_bits, q_clusters(q, bytes), NULL);
		return ret;
	}
	q->snapshots_bytes = bytes;
	return old_bytes ? qcow2_free_now(q, old >> q->h.cluster_bits, q_clusters(q, old_bytes), err) : 0;
}

int qcow2_snapshots_keep_size(struct qcow2 *q, struct err *err)
{
	bool missing = false;

	for (unsigned i = 0; i < q->h.nb_snapshots; i++)
		missing |= q->snapshots[i].extra_len < 16;
	return missing ? write_table(q, q->snapshots, q->h.nb_snapshots, err) : 0;
}

/* ---- Creation -------------------------------------------------------------------- */

static int check_possible(struct qcow2 *q, struct err *err)
{
	if (DATA_FILE(q))
		return err_set(err, ENOTSUP,
			       "%s has an external data file, where clusters cannot be shared with a snapshot",
			       q->path);
	return qcow2_begin_write(q, err);
}

static int describe(struct qcow2 *q, const char *name, struct qcow2_snapshot *s, struct err *err)
{
	unsigned long highest = 0;
	struct timespec now;
	char id[24];

	for (unsigned i = 0; i < q->h.nb_snapshots; i++) {
		unsigned long n = strtoul(q->snapshots[i].id, NULL, 10);

		highest = n > highest ? n : highest;
	}
	snprintf(id, sizeof(id), "%lu", highest + 1);
	clock_gettime(CLOCK_REALTIME, &now);
	*s = (struct qcow2_snapshot){
		.id = strdup(id),
		.name = strdup(name),
		.l1_size = q->h.l1_size,
		.disk_size = q->h.size,
		.date_sec = now.tv_sec,
		.date_nsec = now.tv_nsec,
		.icount = UINT64_MAX,
		.extra_len = EXTRA,
		.extra = calloc(1, EXTRA),
	};
	return s->id && s->name && s->extra ? 0 : err_set(err, ENOMEM, "%s: no memory for a snapshot", q->path);
}

static void forget(struct qcow2_snapshot *s)
{
	free(s->id);
	free(s->name);
	free(s->extra);
}

static int create(struct qcow2 *q, struct qcow2_snapshot *s, struct err *err)
{
	unsigned n = q->h.nb_snapshots;
	uint64_t *copy = malloc(s->l1_size * 8 + 8);
	struct qcow2_snapshot *list;
	int ret;

	if (!copy)
		return err_set(err, ENOMEM, "%s: no memory for an L1 table", q->path);
	for (uint64_t i = 0; i < s->l1_size; i++)
		copy[i] = q->l1[i] & ~Q_COPIED;
	/* Counts first: whatever happens from here on, nothing is thought free, or ours alone, that is not. */
	ret = qcow2_share(q, copy, s->l1_size, 1, err);
	if (ret) {
		free(copy);
		return ret;
	}
	for (uint64_t i = 0; i < s->l1_size; i++)
		if (q->l1[i] & Q_COPIED)
			qcow2_set_l1(q, i, copy[i]);
	ret = qcow2_write_l1(q, copy, s->l1_size, &s->l1_offset, err);
	list = ret ? NULL : realloc(q->snapshots, (n + 1) * sizeof(*list));
	if (!ret && !list)
		ret = err_set(err, ENOMEM, "%s: no memory for a snapshot", q->path);
	if (!ret) {
		q->snapshots = list;
		list[n] = *s;
		ret = write_table(q, list, n + 1, err);
	}
	if (ret && !q->broken && q->h.nb_snapshots == n) {
		if (s->l1_offset)
			(void)qcow2_free_now(q, s->l1_offset >> q->h.cluster_bits, q_clusters(q, s->l1_size * 8), NULL);
		(void)qcow2_share(q, copy, s->l1_size, -1, NULL);
		(void)qcow2_set_flags(q, NULL);
	}
	free(copy);
	return ret;
}

int qcow2_snapshot_create(struct qcow2 *q, const char *name, struct err *err)
{
	struct qcow2_snapshot s = { 0 };
	unsigned n;
	int ret;

	qcow2_exclusive_begin(q);
	n = q->h.nb_snapshots;
	ret = check_possible(q, err);
	if (!ret && strlen(name) > UINT16_MAX)
		ret = err_set(err, EINVAL, "%s: the snapshot's name is too long", q->path);
	if (!ret && n >= QCOW2_MAX_SNAPSHOTS)
		ret = err_set(err, EFBIG, "%s has %u snapshots, which is as many as can be", q->path, n);
	if (!ret)
		ret = qcow2_do_flush(q, err);
	if (!ret)
		ret = describe(q, name, &s, err);
	if (!ret)
		ret = create(q, &s, err);
	if (q->h.nb_snapshots == n)
		forget(&s);
	if (!ret)
		ret = qcow2_do_flush(q, err);
	qcow2_exclusive_end(q);
	return ret;
}

/* ---- Deletion ---------------------------------------------------------------------- */

static int delete (struct qcow2 *q, unsigned i, struct err *err)
{
	unsigned n = q->h.nb_snapshots;
	struct qcow2_snapshot s, *list = malloc(n * sizeof(*list));
	uint64_t *l1 = NULL;
	int ret;

	if (!list)
		return err_set(err, ENOMEM, "%s: no memory for the snapshot table", q->path);
	s = q->snapshots[i];
	memcpy(list, q->snapshots, i * sizeof(*list));
	memcpy(list + i, q->snapshots + i + 1, (n - i - 1) * sizeof(*list));
	ret = qcow2_read_l1(q, s.l1_offset, s.l1_size, &l1, err);
	if (!ret)
		ret = write_table(q, list, n - 1, err);
	if (q->h.nb_snapshots == n) {
		free(list);
		free(l1);
		return ret;
	}
	/* Gone. What is left are clusters that only it had, which leak if this does not come to its end. */
	free(q->snapshots);
	q->snapshots = list;
	if (!ret)
		ret = qcow2_share(q, l1, s.l1_size, -1, err);
	if (!ret)
		ret = qcow2_free_now(q, s.l1_offset >> q->h.cluster_bits, q_clusters(q, s.l1_size * 8), err);
	if (!ret)
		ret = qcow2_set_flags(q, err);
	free(l1);
	forget(&s);
	return ret;
}

/* Snapshot `i` is there, and all that is known of the image is on the disk. */
static int settle(struct qcow2 *q, unsigned i, struct err *err)
{
	int ret = check_possible(q, err);

	if (!ret && i >= q->h.nb_snapshots)
		ret = err_set(err, ENOENT, "%s has no snapshot %u", q->path, i);
	return ret ? ret : qcow2_do_flush(q, err);
}

int qcow2_snapshot_delete(struct qcow2 *q, unsigned i, struct err *err)
{
	int ret;

	qcow2_exclusive_begin(q);
	ret = settle(q, i, err);
	if (!ret)
		ret = delete (q, i, err);
	if (!ret)
		ret = qcow2_do_flush(q, err);
	qcow2_exclusive_end(q);
	return ret;
}

/* ---- Return ------------------------------------------------------------------------- */

/* The header names the L1 table at `at`; `l1` is it in memory. The old one is the caller's. */
static int switch_l1(struct qcow2 *q, uint64_t at, uint64_t *l1, uint64_t n, uint64_t size, struct err *err)
{
	struct qcow2_header before = q->h;
	int ret = qcow2_writeback(q, err);

	if (!ret)
		ret = qcow2_sync(q, err);
	if (ret)
		return ret;
	q->h.l1_offset = at;
	q->h.l1_size = n;
	q->h.size = size;
	ret = qcow2_header_write(q, err);
	if (ret) {
		q->h = before;
		return ret;
	}
	q->l1 = l1;
	q->l1_dirty_from = UINT32_MAX;
	q->l1_dirty_to = 0;
	return 0;
}

static int apply(struct qcow2 *q, const struct qcow2_snapshot *s, struct err *err)
{
	unsigned bits = q->h.cluster_bits + q->l2_bits;
	uint64_t need = (s->disk_size >> bits) + !!(s->disk_size & ((1ull << bits) - 1));
	uint64_t n = s->l1_size > need ? s->l1_size : need, at = 0, *l1 = NULL, *new = NULL, *old = q->l1;
	struct qcow2_header before = q->h;
	bool shared = false;
	int ret = 0;

	if (s->disk_size > 1ull << 62 || n > QCOW2_MAX_L1 / 8)
		return err_set(err, EINVAL, "%s: the size of snapshot '%s' is %llu bytes, which cannot be", q->path,
			       s->name, (unsigned long long)s->disk_size);
	n = n ? n : 1;
	if (s->disk_size != q->h.size && q->nbitmaps)
		ret = qcow2_bitmaps_resize(q, s->disk_size, err);
	if (ret)
		return ret;
	ret = qcow2_read_l1(q, s->l1_offset, s->l1_size, &l1, err);
	new = ret ? NULL : calloc(n, 8);
	if (!ret && !new)
		ret = err_set(err, ENOMEM, "%s: no memory for an L1 table", q->path);
	for (uint64_t i = 0; !ret && i < s->l1_size; i++)
		new[i] = l1[i] & ~Q_COPIED;
	if (!ret)
		ret = qcow2_share(q, new, n, 1, err);
	shared = !ret;
	if (!ret)
		ret = qcow2_write_l1(q, new, n, &at, err);
	if (!ret)
		ret = switch_l1(q, at, new, n, s->disk_size, err);
	free(l1);
	if (q->l1 == old) {
		if (at)
			(void)qcow2_free_now(q, at >> q->h.cluster_bits, q_clusters(q, n * 8), NULL);
		if (shared)
			(void)qcow2_share(q, new, n, -1, NULL);
		free(new);
		return ret;
	}
	qcow2_bitmaps_mark(q, 0, q->h.size);
	ret = qcow2_share(q, old, before.l1_size, -1, err);
	if (!ret)
		ret = qcow2_free_now(q, before.l1_offset >> q->h.cluster_bits,
				     q_clusters(q, (uint64_t)before.l1_size * 8), err);
	if (!ret)
		ret = qcow2_set_flags(q, err);
	free(old);
	return ret;
}

int qcow2_snapshot_apply(struct qcow2 *q, unsigned i, struct err *err)
{
	int ret;

	qcow2_exclusive_begin(q);
	ret = settle(q, i, err);
	if (!ret)
		ret = apply(q, &q->snapshots[i], err);
	if (!ret)
		ret = qcow2_bitmaps_store(q, err);
	if (!ret)
		ret = qcow2_do_flush(q, err);
	qcow2_exclusive_end(q);
	return ret;
}
