/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the disk was at one moment: guests' writes wait until what they overwrite is copied. */
#include <errno.h>

#include "image/block_int.h"
#include "image/job_int.h"

static int mark(struct job *j, struct err *err)
{
	struct dirty d = { 0 };
	uint64_t at = 0, len;
	int ret;

	if (j->o.sync != JOB_SYNC_BITMAP) {
		/* SYNC_TOP takes from this what it does not need. */
		copy_mark(j->copy, 0, block_size(j->o.block));
		return 0;
	}
	ret = block_bitmap_read(j->o.block, j->bitmap, &d, err);
	for (; !ret && dirty_next(&d, &at, &len, UINT64_MAX); at += len)
		copy_mark(j->copy, at, len);
	/* From now on it tells what will be written; what it told is put back if need be. */
	if (!ret && j->o.bitmap_mode != JOB_BITMAP_NEVER)
		ret = block_bitmap_clear(j->o.block, j->bitmap, err);
	j->rest = d;
	return ret;
}

static int backup_open(struct job *j, struct err *err)
{
	struct block *b = j->o.block, *t = j->o.target;
	int ret;

	if (block_readonly(t))
		return err_set(err, EACCES, "%s is read-only: it cannot be a target", block_path(t));
	if (block_size(t) < block_size(b))
		return err_set(err, EINVAL, "the target %s is smaller than %s", block_path(t), block_path(b));
	block_pause(b);
	j->copy = copy_new(j, COPY_BEFORE, b, t, NULL, j->o.granularity, err);
	ret = j->copy ? mark(j, err) : -ENOMEM;
	block_resume(b);
	return ret;
}

/* Below the top there is nothing to copy. */
static int keep_top(struct job *j, struct err *err)
{
	uint64_t size = block_size(j->o.block);
	struct image_extent e;
	int ret = 0;

	for (uint64_t at = 0; !ret && at < size && !job_cancelled(j); at += e.len) {
		ret = block_map(j->o.block, 1, at, size - at, &e, err);
		if (!ret && !e.present)
			copy_unmark(j->copy, at, e.len);
	}
	return ret;
}

static int backup_run(struct job *j, struct err *err)
{
	uint64_t at = 0, n;
	int ret = j->o.sync == JOB_SYNC_TOP ? keep_top(j, err) : 0;

	while (!ret) {
		uint64_t left = copy_left(j->copy);

		job_progress(j, 0, left);
		ret = copy_failed(j->copy, err);
		if (ret || (!left && j->o.sync != JOB_SYNC_NONE))
			break;
		if (j->o.sync == JOB_SYNC_NONE) { /* only what guests overwrite, until it is cancelled */
			job_wait(j, 0);
			n = 0;
		} else {
			ret = copy_some(j->copy, &at, j->o.target_zeroed, &n, err);
		}
		if (at >= block_size(j->o.block))
			at = 0;
		if (!ret)
			job_progress(j, n, copy_left(j->copy));
		if (!ret && !job_breathe(j, copy_charge(j->copy)))
			ret = err_set(err, ECANCELED, "the job was cancelled");
	}
	return ret;
}

static int backup_settle(struct job *j, struct err *err)
{
	struct block *b = j->o.block;
	int ret;

	block_pause(b);
	ret = copy_finish(j->copy, false, err);
	block_resume(b);
	if (!ret) {
		copy_free(j->copy);
		j->copy = NULL;
	}
	return ret;
}

static void backup_abort(struct job *j)
{
	uint64_t at = 0, len;
	struct dirty left = { 0 };

	if (!j->copy)
		return;
	if (j->o.sync == JOB_SYNC_BITMAP && j->o.bitmap_mode != JOB_BITMAP_NEVER && j->rest.bits) {
		const struct dirty *todo = copy_dirty(j->copy);

		if (j->o.bitmap_mode == JOB_BITMAP_ON_SUCCESS)
			(void)block_bitmap_add_bits(j->o.block, j->bitmap, &j->rest, NULL);
		else if (!dirty_init(&left, j->rest.size, 1u << j->rest.shift, NULL)) {
			for (; dirty_next(todo, &at, &len, UINT64_MAX); at += len)
				dirty_set(&left, at, len);
			(void)block_bitmap_add_bits(j->o.block, j->bitmap, &left, NULL);
			dirty_free(&left);
		}
	}
	copy_free(j->copy);
	j->copy = NULL;
}

const struct job_ops job_backup_ops = {
	.open = backup_open,
	.run = backup_run,
	.settle = backup_settle,
	.abort = backup_abort,
};
