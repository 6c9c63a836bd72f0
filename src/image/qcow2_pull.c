/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Data of backing files into the image, while guests write it. */
#include <errno.h>
#include <stdlib.h>

#include "image/qcow2_int.h"

#define PIECE (1u << 20) /* bytes that are worked on, and kept from others, at once */

/* A stretch that the image has nothing for. With its clusters to ourselves. */
static int pull_stretch(struct qcow2 *q, unsigned levels, uint64_t offset, uint64_t len, uint8_t *buf, uint64_t *copied,
			struct err *err)
{
	uint64_t most = image_size(q->backing), end = offset + len;
	int ret = 0;

	end = end < most ? end : most;
	while (!ret && offset < end) {
		struct image_extent below;
		bool unlocked = qcow2_unlock_for_data(q);

		ret = image_map_above(q->backing, levels, offset, end - offset, &below, err);
		if (!ret && below.present && !below.zero)
			ret = image_read(q->backing, offset, buf, below.len, err);
		qcow2_lock_after_data(q, unlocked);
		if (!ret && below.present && below.zero)
			ret = qcow2_do_zero(q, offset, below.len, true, err);
		else if (!ret && below.present)
			ret = qcow2_do_write(q, offset, buf, below.len, err);
		if (!ret && below.present)
			*copied += below.len;
		offset += ret ? 0 : below.len;
	}
	return ret;
}

/* As qcow2_map(), with the lock held: what is the image's own, in units. */
static int is_own(struct qcow2 *q, uint64_t offset, bool *own, struct err *err)
{
	enum qcow2_kind kind;
	struct qcow2_entry e;
	int ret = qcow2_lookup(q, offset, &e, err);

	if (!ret)
		ret = qcow2_kind_at(q, &e, q_in_cluster(q, offset), &kind, err);
	*own = !ret && kind != Q_UNALLOCATED;
	return ret;
}

static int pull_piece(struct qcow2 *q, unsigned levels, uint64_t offset, uint64_t len, uint8_t *buf, uint64_t *copied,
		      struct err *err)
{
	struct qcow2_range range;
	uint64_t unit = 1ull << q->unit_bits, end = offset + len, from = offset;
	int ret = 0;

	pthread_mutex_lock(&q->lock);
	qcow2_range_lock(q, &range, offset, len);
	end = end < q->h.size ? end : q->h.size;
	ret = qcow2_begin_write(q, err);
	for (uint64_t at = offset; !ret && q->backing && at < end;) {
		bool own;

		ret = is_own(q, at, &own, err);
		at = (at & ~(unit - 1)) + unit;
		at = at < end ? at : end;
		if (ret || (!own && at < end))
			continue;
		/* [from, last) is below */
		uint64_t last = own ? (at - 1) & ~(unit - 1) : at;

		if (last > from)
			ret = pull_stretch(q, levels, from, last - from, buf, copied, err);
		from = at;
	}
	qcow2_range_unlock(q, &range);
	pthread_mutex_unlock(&q->lock);
	return ret;
}

int qcow2_pull(struct qcow2 *q, unsigned levels, uint64_t offset, uint64_t len, uint64_t *copied, struct err *err)
{
	uint8_t *buf = malloc(PIECE);
	int ret = buf ? 0 : err_set(err, ENOMEM, "%s: no memory to copy", q->path);

	*copied = 0;
	for (uint64_t n; !ret && len; offset += n, len -= n) {
		n = len < PIECE ? len : PIECE;
		ret = pull_piece(q, levels, offset, n, buf, copied, err);
	}
	free(buf);
	return ret;
}
