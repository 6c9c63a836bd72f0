/* SPDX-License-Identifier: GPL-2.0-or-later */
/* keel image snapshot, commit, rebase: verbs that move data between an image, its snapshots and its backing files. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/image.h"

#define CHUNK (2u << 20) /* a multiple of every cluster size */

/* ---- snapshot -------------------------------------------------------------------- */

static int change_snapshot(struct image *img, int what, const char *name, struct err *err)
{
	struct qcow2 *q = image_qcow2(img);
	unsigned i;
	int ret;

	if (!q)
		return err_set(err, ENOTSUP, "%s is a %s image, which has no snapshots", image_path(img),
			       image_format(img));
	if (what == 'c')
		return qcow2_snapshot_create(q, name, err);
	ret = qcow2_snapshot_find(q, name, &i, err);
	if (ret)
		return ret;
	return what == 'a' ? qcow2_snapshot_apply(q, i, err) : qcow2_snapshot_delete(q, i, err);
}

int image_cmd_snapshot(int argc, char **argv)
{
	const char *format = NULL, *name = NULL;
	unsigned flags = IMAGE_NO_BACKING;
	struct err err = ERR_INIT;
	struct image *img;
	int opt, what = 'l', verbs = 0, ret = 0;

	optind = 1;
	while ((opt = getopt(argc, argv, "qf:Ulc:a:d:")) != -1) {
		switch (opt) {
		case 'q':
			break;
		case 'f':
			format = optarg;
			break;
		case 'U':
			flags |= IMAGE_NO_LOCK;
			break;
		case 'l':
		case 'c':
		case 'a':
		case 'd':
			what = opt;
			name = optarg;
			verbs++;
			break;
		default:
			return 1;
		}
	}
	if (argc - optind != 1 || verbs > 1)
		return image_fail(1, "snapshot needs one of -l, -c, -a and -d, and one file");
	img = image_open_named(argv[optind], format, flags | IMAGE_LOCKED | (what == 'l' ? IMAGE_CHECK : IMAGE_RDWR), &err);
	if (!img)
		return image_fail(1, "%s", err_msg(&err));
	if (what != 'l')
		ret = change_snapshot(img, what, name, &err);
	else if (image_qcow2(img))
		image_list_snapshots(image_qcow2(img));
	if (image_close(img, &err) || ret)
		return image_fail(1, "%s", err_msg(&err));
	return 0;
}

/* ---- commit ------------------------------------------------------------------------ */

struct base_args {
	const char *format, *base, *base_format, *file;
	bool progress, quiet, keep, unsafe;
	unsigned flags;
};

static int parse_base(int argc, char **argv, const char *accept, struct base_args *a)
{
	int opt;

	*a = (struct base_args){ 0 };
	optind = 1;
	while ((opt = getopt(argc, argv, accept)) != -1) {
		switch (opt) {
		case 'f':
			a->format = optarg;
			break;
		case 'F':
			a->base_format = optarg;
			break;
		case 'b':
			a->base = optarg;
			break;
		case 'd':
			a->keep = true;
			break;
		case 'u':
			a->unsafe = true;
			break;
		case 'U':
			a->flags |= IMAGE_NO_LOCK;
			break;
		case 'p':
			a->progress = true;
			break;
		case 'q':
			a->quiet = true;
			break;
		case 't':
		case 'T': /* cache modes: all is written back before the end anyway */
			break;
		default:
			return 1;
		}
	}
	if (argc - optind != 1)
		return image_fail(1, "%s needs one file", argv[0]);
	a->file = argv[optind];
	return 0;
}

/* How many images lie above the base; it is in *base. */
static int find_base(struct image *top, const char *name, struct image **base, struct err *err)
{
	int levels = 1;

	for (*base = image_backing(top); *base && name; *base = image_backing(*base), levels++) {
		char *full = image_backing_path(image_path(top), name, NULL);
		bool found = !strcmp(image_path(*base), name) || (full && !strcmp(image_path(*base), full));

		free(full);
		if (found)
			break;
	}
	if (*base)
		return levels;
	return name ? err_set(err, ENOENT, "%s is not among the backing files of %s", name, image_path(top))
		    : err_set(err, ENOTSUP, "%s has no backing file to commit to", image_path(top));
}

static int write_down(struct image *top, unsigned levels, struct image *base, bool progress, struct err *err)
{
	uint64_t size = image_size(top);
	uint8_t *buf = malloc(CHUNK);
	int ret = buf ? 0 : err_set(err, ENOMEM, "no memory"), shown = 0;

	if (!ret && size > image_size(base))
		ret = image_resize(base, size, err);
	for (uint64_t at = 0; !ret && at < size;) {
		struct image_extent e;

		ret = image_map_above(top, levels, at, size - at, &e, err);
		if (ret)
			break;
		if (e.present && e.zero)
			ret = image_zero(base, at, e.len, true, err);
		for (uint64_t done = 0, n; !ret && e.present && !e.zero && done < e.len; done += n) {
			n = e.len - done < CHUNK ? e.len - done : CHUNK;
			ret = image_read(top, at + done, buf, n, err);
			if (!ret)
				ret = image_write(base, at + done, buf, n, err);
		}
		at += e.len;
		image_progress(progress, at, size, &shown);
	}
	free(buf);
	return ret ? ret : image_flush(base, err);
}

static int commit(const struct base_args *a, struct err *err)
{
	struct image *top, *found, *base;
	bool empty = !a->keep && !a->base;
	int levels, ret;

	/* The base is locked once, for writing; what is read lies above it. */
	top = image_open_named(a->file, a->format, (empty ? IMAGE_RDWR : 0) | IMAGE_BACKING_NO_LOCK, err);
	if (!top)
		return -EIO;
	ret = levels = find_base(top, a->base, &found, err);
	if (ret > 0) {
		base = image_open(image_path(found), image_format(found), IMAGE_RDWR, err);
		ret = base ? write_down(top, levels, base, a->progress, err) : -EIO;
		if (image_close(base, err) && !ret)
			ret = -EIO;
	}
	if (!ret && empty)
		ret = qcow2_empty(image_qcow2(top), err);
	if (image_close(top, err) && !ret)
		ret = -EIO;
	return ret;
}

int image_cmd_commit(int argc, char **argv)
{
	struct err err = ERR_INIT;
	struct base_args a;

	if (parse_base(argc, argv, "f:b:dpqt:", &a))
		return 1;
	if (commit(&a, &err))
		return image_fail(1, "%s", err_msg(&err));
	if (!a.quiet)
		printf("Image committed.\n");
	return 0;
}

/* ---- rebase ------------------------------------------------------------------------- */

/* What is equal in both stays in neither. */
static int write_difference(struct image *top, uint64_t at, uint64_t len, uint64_t cluster, const uint8_t *old,
			    const uint8_t *new, struct err *err)
{
	int ret = 0;

	for (uint64_t i = 0, n; !ret && i < len; i += n) {
		n = cluster - (at + i) % cluster;
		n = n < len - i ? n : len - i;
		if (!memcmp(old + i, new + i, n))
			continue;
		ret = image_all_zero(old + i, n) ? image_zero(top, at + i, n, false, err)
						 : image_write(top, at + i, old + i, n, err);
	}
	return ret;
}

static int keep_contents(struct image *top, struct image *new, bool progress, struct err *err)
{
	uint64_t size = image_size(top);
	struct qcow2_info info;
	uint8_t *buf = malloc(2 * (size_t)CHUNK);
	int ret = buf ? 0 : err_set(err, ENOMEM, "no memory"), shown = 0;

	qcow2_get_info(image_qcow2(top), &info);
	for (uint64_t at = 0, n; !ret && at < size; at += n) {
		struct image_extent e;

		ret = image_map_above(top, 1, at, size - at, &e, err);
		if (ret)
			break;
		n = e.len;
		if (!e.present) {
			n = n < CHUNK ? n : CHUNK;
			ret = image_read(top, at, buf, n, err);
			if (!ret && new)
				ret = image_read(new, at, buf + CHUNK, n, err);
			else
				memset(buf + CHUNK, 0, n);
			if (!ret)
				ret = write_difference(top, at, n, info.cluster_size, buf, buf + CHUNK, err);
		}
		image_progress(progress, at + n, size, &shown);
	}
	free(buf);
	return ret ? ret : image_flush(top, err);
}

static int rebase(const struct base_args *a, struct err *err)
{
	struct image *top, *new = NULL;
	char *path = NULL;
	int ret = 0;

	top = image_open_named(a->file, a->format, IMAGE_RDWR | IMAGE_KEEP_ZEROES | (a->unsafe ? IMAGE_NO_BACKING : 0), err);
	if (!top)
		return -EIO;
	if (!image_qcow2(top))
		ret = err_set(err, ENOTSUP, "%s is a %s image, which has no backing file", a->file,
			      image_format(top));
	if (!ret && a->base[0]) {
		path = image_backing_path(a->file, a->base, err);
		ret = path ? 0 : -EINVAL;
	}
	if (!ret && path && !a->unsafe) {
		new = image_open(path, a->base_format, a->flags, err);
		ret = new ? 0 : -EIO;
	}
	if (!ret && !a->unsafe)
		ret = keep_contents(top, new, a->progress, err);
	if (!ret)
		ret = qcow2_set_backing(image_qcow2(top), path ? a->base : NULL, path ? a->base_format : NULL, err);
	free(path);
	image_close(new, NULL);
	if (image_close(top, err) && !ret)
		ret = -EIO;
	return ret;
}

int image_cmd_rebase(int argc, char **argv)
{
	struct err err = ERR_INIT;
	struct base_args a;

	if (parse_base(argc, argv, "f:F:b:upqUt:T:", &a))
		return 1;
	if (!a.base)
		return image_fail(1, "rebase needs -b BACKING, or -b '' for none");
	if (a.base[0] && !a.base_format)
		return image_fail(1, "the backing file's format is missing: give it with -F");
	return rebase(&a, &err) ? image_fail(1, "%s", err_msg(&err)) : 0;
}
