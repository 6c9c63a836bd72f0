/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Until told to stop, the target follows the disk; then it takes its place. Commit of the active image is the same
 * with an image of its own chain as the target. */
#include <errno.h>

#include "image/block_int.h"
#include "image/image_int.h"
#include "image/job_int.h"
#include "image/qcow2.h"

#define GATHER 50000000ull /* ns: once ready, writes are collected for so long */

/* ---- Following --------------------------------------------------------------------------- */

static int mark_first(struct job *j, struct err *err)
{
	struct copy *c = j->copy;

	if (j->type == JOB_COMMIT)
		return copy_mark_allocated(c, j->o.base, err);
	switch (j->o.sync) {
	case JOB_SYNC_TOP:
		return copy_mark_allocated(c, 1, err);
	case JOB_SYNC_NONE:
		return 0;
	default:
		copy_mark(c, 0, block_size(j->o.block));
		return 0;
	}
}

static int flush_target(struct job *j, struct err *err)
{
	struct image *base = j->type == JOB_COMMIT ? block_backing(j->o.block, j->o.base) : NULL;

	return base ? image_flush(base, err) : block_sync(j->o.target, err);
}

/* All is copied for now. 0: go on; 1: the end. */
static int be_ready(struct job *j, struct err *err)
{
	struct job_info info;
	int ret;

	job_get(j, &info);
	if (!info.ready) {
		ret = flush_target(j, err);
		if (ret)
			return job_error(j, true, ret, err) < 0 ? ret : 0;
		job_set_ready(j);
	}
	if (job_wants_end(j))
		return 1;
	job_wait(j, 0);
	if (!job_wants_end(j) && copy_left(j->copy))
		job_wait(j, j->o.write_blocking ? 0 : GATHER);
	return 0;
}

static int mirror_run(struct job *j, struct err *err)
{
	bool first = j->o.target_zeroed && j->o.sync == JOB_SYNC_FULL;
	uint64_t at = 0, n, size = block_size(j->o.block);
	int ret = mark_first(j, err);

	while (!ret) {
		uint64_t left = copy_left(j->copy);

		job_progress(j, 0, left);
		if (!left) {
			first = false;
			ret = be_ready(j, err);
			if (!ret && !job_breathe(j, 0))
				ret = -ECANCELED;
			continue;
		}
		ret = copy_some(j->copy, &at, first, &n, err);
		if (ret)
			break;
		first &= n > 0;
		if (at >= size) {
			at = 0;
			first = false;
		}
		job_progress(j, n, copy_left(j->copy));
		if (!job_breathe(j, copy_charge(j->copy)))
			ret = -ECANCELED;
	}
	if (ret == -ECANCELED)
		return err_set(err, ECANCELED, "the job was cancelled");
	return ret < 0 ? ret : 0;
}

static void mirror_abort(struct job *j)
{
	copy_free(j->copy);
	j->copy = NULL;
}

/* ---- Mirror ------------------------------------------------------------------------------- */

static int mirror_open(struct job *j, struct err *err)
{
	struct block *b = j->o.block, *t = j->o.target;

	if (block_readonly(t))
		return err_set(err, EACCES, "%s is read-only: it cannot be a target", block_path(t));
	if (block_size(t) != block_size(b))
		return err_set(err, EINVAL, "%s has %llu bytes, and the target %s has %llu: they must be of one size",
			       block_path(b), (unsigned long long)block_size(b), block_path(t),
			       (unsigned long long)block_size(t));
	block_pause(b);
	j->copy = copy_new(j, j->o.write_blocking ? COPY_BLOCKING : COPY_AFTER, b, t, NULL, j->o.granularity, err);
	block_resume(b);
	return j->copy ? 0 : -ENOMEM;
}

static bool is_told(struct job *j)
{
	bool yes;

	pthread_mutex_lock(&j->lock);
	yes = j->complete;
	pthread_mutex_unlock(&j->lock);
	return yes;
}

static int mirror_settle(struct job *j, struct err *err)
{
	struct block *b = j->o.block;
	int ret;

	block_pause(b);
	ret = copy_finish(j->copy, true, err);
	if (!ret && is_told(j)) {
		block_swap(b, j->o.target);
		j->pivoted = true;
	}
	block_resume(b);
	if (!ret)
		mirror_abort(j);
	return ret;
}

const struct job_ops job_mirror_ops = {
	.open = mirror_open,
	.run = mirror_run,
	.settle = mirror_settle,
	.abort = mirror_abort,
	.completes = true,
};

/* ---- Commit of what is written -------------------------------------------------------------- */

static int commit_open(struct job *j, struct err *err)
{
	struct block *b = j->o.block;
	struct image *base = block_backing(b, j->o.base);
	int ret;

	if (!base)
		return err_set(err, EINVAL, "%s has no image %u levels below it to commit to", block_path(b),
			       j->o.base);
	ret = image_set_writable(base, true, err);
	if (!ret && image_size(base) < block_size(b))
		ret = image_resize(base, block_size(b), err);
	if (ret)
		return ret;
	block_pause(b);
	j->copy = copy_new(j, COPY_AFTER, b, NULL, base, j->o.granularity, err);
	block_resume(b);
	return j->copy ? 0 : -ENOMEM;
}

static void commit_abort(struct job *j)
{
	struct image *base = j->pivoted ? NULL : block_backing(j->o.block, j->o.base);

	mirror_abort(j);
	if (base)
		(void)image_set_writable(base, false, NULL);
}

/* Unlink the base from the image above it: it becomes the disk, and that what is left. */
static int pivot(struct job *j, struct err *err)
{
	struct block *b = j->o.block, *new;
	struct image *base = block_backing(b, j->o.base),
		     *above = j->o.base > 1 ? block_backing(b, j->o.base - 1) : NULL;
	struct qcow2 *q = above ? image_qcow2(above) : block_qcow2(b);

	(void)qcow2_swap_backing(q, NULL);
	new = block_from_image(base, err);
	if (!new) {
		(void)qcow2_swap_backing(q, base);
		return -ENOMEM;
	}
	/* Of a file system without direct I/O: cached is better than not at all. */
	(void)block_adopt_cache(new, b, NULL);
	block_swap(b, new);
	j->left = new;
	j->pivoted = true;
	return 0;
}

static int commit_settle(struct job *j, struct err *err)
{
	struct block *b = j->o.block;
	int ret;

	block_pause(b);
	ret = copy_finish(j->copy, true, err);
	if (!ret && is_told(j))
		ret = pivot(j, err);
	block_resume(b);
	if (!ret)
		commit_abort(j);
	return ret;
}

const struct job_ops job_commit_active_ops = {
	.open = commit_open,
	.run = mirror_run,
	.settle = commit_settle,
	.abort = commit_abort,
	.completes = true,
};
