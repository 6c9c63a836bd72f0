/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Shorter chains: stream brings data up into the image that is written, commit takes it down between images below. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/block_int.h"
#include "image/image_int.h"
#include "image/job_int.h"
#include "image/qcow2.h"

#define STRETCH (4u << 20)
#define PIECE (1u << 20)

/* ---- The chain ------------------------------------------------------------------------------ */

static size_t dir_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash - path + 1 : 0;
}

/* What the image at `of` should call the file that the one at `parent` calls `name`. malloc'd. */
static char *name_from(const char *of, const char *parent, const char *name, struct err *err)
{
	size_t n = dir_of(of);
	char *path, *full;

	if (n == dir_of(parent) && !strncmp(of, parent, n))
		path = strdup(name);
	else
		path = image_backing_path(parent, name, err);
	if (path && strcmp(path, name) && path[0] != '/' && (full = realpath(path, NULL))) {
		free(path);
		path = full;
	}
	if (!path)
		err_set(err, ENOMEM, "%s: no memory", of);
	return path;
}

/* The image at depth `above` names the one at `base` as its backing file, and reads from it; what lay between is
 * dropped. base 0: nothing is below it any more. While the block is paused. */
static int cut(struct job *j, unsigned above, unsigned base, struct err *err)
{
	struct block *b = j->o.block;
	struct image *upper = above ? block_backing(b, above) : NULL, *lower = base ? block_backing(b, base) : NULL;
	struct image *parent = base > above + 1 ? block_backing(b, base - 1) : NULL;
	struct qcow2 *q = upper ? image_qcow2(upper) : block_qcow2(b);
	const char *name = j->backing_name, *format = j->backing_format;
	struct qcow2_info info = { 0 };
	bool opened = false;
	char *path = NULL, *as = NULL;
	int ret = 0;

	if (lower && parent && !name) {
		qcow2_get_info(image_qcow2(parent), &info);
		path = name_from(upper ? image_path(upper) : block_path(b), image_path(parent),
				 info.backing ? info.backing : image_path(lower), err);
		as = info.backing_format ? strdup(info.backing_format) : NULL;
		if (!path)
			return -EINVAL;
		name = path;
		format = as;
	}
	if (upper && !(upper->flags & IMAGE_RDWR)) {
		ret = image_set_writable(upper, true, err);
		opened = !ret;
	}
	if (!ret)
		ret = qcow2_set_backing(q, lower ? name : NULL,
					format	? format
					: lower ? image_format(lower)
						: NULL,
					err);
	if (!ret) {
		if (parent)
			(void)qcow2_swap_backing(image_qcow2(parent), NULL);
		j->dropped = qcow2_swap_backing(q, lower);
		if (j->dropped == lower)
			j->dropped = NULL;
	}
	if (opened)
		(void)image_set_writable(upper, false, NULL);
	free(path);
	free(as);
	return ret;
}

/* ---- Stream ------------------------------------------------------------------------------------ */

static int stream_open(struct job *j, struct err *err)
{
	struct block *b = j->o.block;

	if (!block_qcow2(b) || !block_depth(b))
		return err_set(err, EINVAL, "%s has no backing file to pull from", block_path(b));
	if (block_readonly(b))
		return err_set(err, EACCES, "%s is read-only: nothing can be pulled into it", block_path(b));
	if (j->o.base > block_depth(b))
		return err_set(err, EINVAL, "%s has no image %u levels below it", block_path(b), j->o.base);
	return 0;
}

static int stream_run(struct job *j, struct err *err)
{
	struct qcow2 *q = block_qcow2(j->o.block);
	unsigned levels = j->o.base ? j->o.base - 1 : UINT32_MAX;
	uint64_t size = qcow2_size(q), copied, n;
	int ret = 0;

	job_progress(j, 0, size);
	for (uint64_t at = 0; !ret && at < size && levels; at += n) {
		n = job_slice(j, STRETCH);
		n = n < 65536 ? 65536 : n;
		n = n < size - at ? n : size - at;
		ret = qcow2_pull(q, levels, at, n, &copied, err);
		if (ret) {
			ret = job_error(j, false, ret, err);
			if (!ret) { /* once more */
				n = 0;
				continue;
			}
			/* What is left below must stay reachable. */
			if (ret > 0)
				ret = err_set(err, EIO, "%s: not all of its backing file could be read",
					      block_path(j->o.block));
			break;
		}
		job_progress(j, n, size - at - n);
		if (!job_breathe(j, copied))
			ret = err_set(err, ECANCELED, "the job was cancelled");
	}
	return ret ? ret : block_sync(j->o.block, err);
}

static int stream_settle(struct job *j, struct err *err)
{
	int ret = 0;

	block_pause(j->o.block);
	if (j->o.base != 1)
		ret = cut(j, 0, j->o.base, err);
	block_resume(j->o.block);
	return ret;
}

static void nothing(struct job *j)
{
}

const struct job_ops job_stream_ops = {
	.open = stream_open, .run = stream_run, .settle = stream_settle, .abort = nothing
};

/* ---- Commit between images below -------------------------------------------------------------------- */

static int commit_open(struct job *j, struct err *err)
{
	struct block *b = j->o.block;
	struct image *top = block_backing(b, j->o.top), *base = block_backing(b, j->o.base);
	int ret;

	if (!top || !base || j->o.base <= j->o.top)
		return err_set(err, EINVAL, "%s has no images %u and %u levels below it, the second below the first",
			       block_path(b), j->o.top, j->o.base);
	ret = image_set_writable(base, true, err);
	if (!ret && image_size(base) < image_size(top))
		ret = image_resize(base, image_size(top), err);
	return ret;
}

static int commit_piece(struct job *j, struct image *top, struct image *base, uint64_t at, uint64_t *n, uint8_t *buf,
			bool *write, uint64_t *copied, struct err *err)
{
	struct image_extent e;
	int ret = image_map_above(top, j->o.base - j->o.top, at, *n, &e, err);

	*write = false;
	if (ret)
		return ret;
	*n = e.len;
	if (!e.present)
		return 0;
	if (e.zero) {
		*write = true;
		return image_zero(base, at, e.len, true, err);
	}
	*n = e.len < PIECE ? e.len : PIECE;
	ret = image_read(top, at, buf, *n, err);
	*write = !ret;
	if (!ret)
		ret = image_write(base, at, buf, *n, err);
	*copied += *n;
	return ret;
}

static int commit_run(struct job *j, struct err *err)
{
	struct image *top = block_backing(j->o.block, j->o.top), *base = block_backing(j->o.block, j->o.base);
	uint64_t size = image_size(top), n;
	uint8_t *buf = malloc(PIECE);
	int ret = buf ? 0 : err_set(err, ENOMEM, "no memory to copy");

	job_progress(j, 0, size);
	for (uint64_t at = 0; !ret && at < size; at += n) {
		uint64_t copied = 0;
		bool write;

		n = size - at;
		ret = commit_piece(j, top, base, at, &n, buf, &write, &copied, err);
		if (ret) {
			ret = job_error(j, write, ret, err);
			if (ret > 0)
				ret = err_set(err, EIO, "%s: not all of it could be committed", image_path(top));
			n = 0;
			continue;
		}
		job_progress(j, n, size - at - n);
		if (!job_breathe(j, copied))
			ret = err_set(err, ECANCELED, "the job was cancelled");
	}
	free(buf);
	return ret ? ret : image_flush(base, err);
}

static void commit_abort(struct job *j)
{
	struct image *base = block_backing(j->o.block, j->cut ? j->o.top : j->o.base);

	if (base && base->flags & IMAGE_RDWR)
		(void)image_set_writable(base, false, NULL);
}

static int commit_settle(struct job *j, struct err *err)
{
	int ret;

	block_pause(j->o.block);
	ret = cut(j, j->o.top - 1, j->o.base, err);
	block_resume(j->o.block);
	j->cut = !ret;
	if (!ret)
		commit_abort(j);
	return ret;
}

const struct job_ops job_commit_ops = {
	.open = commit_open, .run = commit_run, .settle = commit_settle, .abort = commit_abort
};
