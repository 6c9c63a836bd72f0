/* SPDX-License-Identifier: GPL-2.0-or-later */
/* keel image bitmap: persistent dirty bitmaps; actions in the order they are given. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/image.h"

#define MAX_ACTIONS 32

struct action {
	int what; /* 'a'dd, 'r'emove, 'c'lear, 'e'nable, 'd'isable, 'm'erge */
	const char *source;
};

struct bitmap_args {
	const char *format, *source_file, *source_format, *file, *name;
	uint64_t granularity;
	struct action action[MAX_ACTIONS];
	unsigned n;
};

static int parse_bitmap(int argc, char **argv, struct bitmap_args *a)
{
	static const struct option longs[] = {
		{ "add", no_argument, NULL, 'a' },
		{ "remove", no_argument, NULL, 'r' },
		{ "clear", no_argument, NULL, 'c' },
		{ "enable", no_argument, NULL, 'e' },
		{ "disable", no_argument, NULL, 'd' },
		{ "merge", required_argument, NULL, 'm' },
		{ 0 },
	};
	bool add = false;
	int opt;

	*a = (struct bitmap_args){ 0 };
	optind = 1;
	while ((opt = getopt_long(argc, argv, "g:b:F:f:", longs, NULL)) != -1) {
		switch (opt) {
		case 'g':
			if (!image_parse_size(optarg, &a->granularity) || a->granularity < 512 ||
			    a->granularity > 1u << 31)
				return image_fail(1, "-g takes a size from 512 to 2G, not '%s'", optarg);
			break;
		case 'b':
			a->source_file = optarg;
			break;
		case 'F':
			a->source_format = optarg;
			break;
		case 'f':
			a->format = optarg;
			break;
		case '?':
			return 1;
		default:
			if (a->n == MAX_ACTIONS)
				return image_fail(1, "bitmap takes at most %d actions", MAX_ACTIONS);
			a->action[a->n++] = (struct action){ opt, optarg };
			add |= opt == 'a';
		}
	}
	if (!a->n || argc - optind != 2)
		return image_fail(
			1, "bitmap needs an action (--add, --remove, --clear, --enable, --disable, --merge), a file "
			   "and a bitmap's name");
	if (a->granularity && !add)
		return image_fail(1, "-g is for --add");
	a->file = argv[optind];
	a->name = argv[optind + 1];
	return 0;
}

static int act(const struct bitmap_args *a, const struct action *do_this, struct qcow2 *q, struct qcow2 *source,
	       struct err *err)
{
	switch (do_this->what) {
	case 'a':
		return qcow2_bitmap_add(q, a->name, a->granularity, true, err);
	case 'r':
		return qcow2_bitmap_remove(q, a->name, err);
	case 'c':
		return qcow2_bitmap_clear(q, a->name, err);
	case 'm':
		return qcow2_bitmap_merge(q, a->name, source, do_this->source, err);
	default:
		return qcow2_bitmap_enable(q, a->name, do_this->what == 'e', err);
	}
}

int image_cmd_bitmap(int argc, char **argv)
{
	struct image *img, *source = NULL;
	struct err err = ERR_INIT;
	struct bitmap_args a;
	int ret = 0;

	if (parse_bitmap(argc, argv, &a))
		return 1;
	img = image_open_named(a.file, a.format, IMAGE_RDWR | IMAGE_NO_BACKING, &err);
	if (img && a.source_file)
		source = image_open(a.source_file, a.source_format, IMAGE_NO_BACKING, &err);
	if (!img || (a.source_file && !source))
		ret = -EIO;
	else if (!image_qcow2(img) || (source && !image_qcow2(source)))
		ret = err_set(&err, ENOTSUP, "raw images have no bitmaps");
	for (unsigned i = 0; !ret && i < a.n; i++)
		ret = act(&a, &a.action[i], image_qcow2(img), image_qcow2(source ? source : img), &err);
	image_close(source, NULL);
	if (image_close(img, &err) && !ret)
		ret = -EIO;
	return ret ? image_fail(1, "%s", err_msg(&err)) : 0;
}
