/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdlib.h>

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
		s->id = text(rest + extra, id);
		s->name = text(rest + extra + id, name);
		if (!s->id || !s->name)
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
	}
	free(q->snapshots);
}

const struct qcow2_snapshot *qcow2_get_snapshot(struct qcow2 *q, unsigned i)
{
	return i < q->h.nb_snapshots ? &q->snapshots[i] : NULL;
}
