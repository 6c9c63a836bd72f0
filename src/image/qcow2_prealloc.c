/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "image/qcow2_int.h"

/* The file's bytes from old_end on are holes. Lower ones, and those that were given back meanwhile, may be anything. */
static int allocate(struct qcow2 *q, uint64_t cluster, uint64_t old_end, const uint8_t *zeroes, uint64_t *end,
		    struct err *err)
{
	struct qcow2_entry e;
	uint64_t host;
	int ret = qcow2_lookup_write(q, cluster, &e, err);

	if (ret || e.allocated || e.entry & (Q_COMPRESSED | Q_ZERO) || e.bitmap)
		return ret;
	ret = qcow2_alloc_data(q, cluster, &host, err);
	if (!ret)
		ret = qcow2_lookup_write(q, cluster, &e, err);
	if (ret)
		return ret;
	/* Ciphered, a hole is noise: the entry says that they are zeroes. */
	if (!DATA_FILE(q) && !q->luks && (host < old_end || (host < q->file_end && q->no_punch))) {
		ret = qcow2_data_write(q, host, zeroes, q->cluster_size, err);
		if (ret)
			return ret;
	}
	if (q->luks)
		qcow2_entry_store(q, &e, host | Q_COPIED | (EXTENDED(q) ? 0 : Q_ZERO),
				  EXTENDED(q) ? 0xffffffffull << 32 : 0);
	else
		qcow2_entry_store(q, &e, host | Q_COPIED, EXTENDED(q) ? 0xffffffffull : 0);
	if (host + q->cluster_size > *end)
		*end = host + q->cluster_size;
	return 0;
}

int qcow2_do_preallocate(struct qcow2 *q, uint64_t from, uint64_t *end, struct err *err)
{
	uint64_t last = 0, old_end = q->file_end;
	uint8_t *zeroes = calloc(1, q->cluster_size);
	int ret = zeroes ? 0 : err_set(err, ENOMEM, "%s: no memory for a cluster", q->path);

	for (uint64_t at = from & ~(q->cluster_size - 1); !ret && at < q->h.size; at += q->cluster_size)
		ret = allocate(q, at, old_end, zeroes, &last, err);
	free(zeroes);
	if (!ret && !DATA_FILE(q) && last > old_end) {
		if (last > q->file_end && ftruncate(q->fd, last))
			ret = err_set_errno(err, errno, "cannot make %s longer", q->path);
		else if (last > q->file_end)
			q->file_end = last;
	}
	if (end)
		*end = q->file_end;
	return ret;
}

int qcow2_preallocate(struct qcow2 *q, uint64_t from, uint64_t *end, struct err *err)
{
	int ret;

	qcow2_exclusive_begin(q);
	ret = qcow2_begin_write(q, err);
	if (!ret && q->backing_name)
		ret = err_set(err, ENOTSUP, "%s has a backing file, which preallocation would hide", q->path);
	if (!ret && q->luks && q->h.version < 3)
		ret = err_set(err, ENOTSUP, "%s: preallocation with encryption needs compat=1.1", q->path);
	if (!ret)
		ret = qcow2_do_preallocate(q, from, end, err);
	if (!ret)
		ret = qcow2_do_flush(q, err);
	qcow2_exclusive_end(q);
	return ret;
}
