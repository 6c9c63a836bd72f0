/* SPDX-License-Identifier: GPL-2.0-or-later */
/* keel image convert and compare. */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/image.h"

#define CHUNK (256u << 10) /* or a cluster, if that is more: what stays in a CPU's cache */
#define SPARSE 4096u	   /* zeroes this long become holes */
#define COMPARE (1u << 20)
#define MAX_WORKERS 16u

bool image_all_zero(const uint8_t *p, size_t len)
{
	return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

struct copy {
	struct image *from, *to;
	struct image *backing;	/* or NULL: what the target shows where nothing is written */
	uint64_t size, cluster; /* cluster: of the target */
	uint64_t chunk;
	bool compress, progress;
	bool zero_new; /* the target is new and reads as zeroes where nothing was written */
	unsigned workers;
	pthread_mutex_t lock;	    /* all below */
	uint64_t next, known, done; /* next: not yet somebody's; known: of one kind up to there */
	bool known_zero;
	int shown; /* hundredths of a per cent */
	int failed;
	struct err err;
};

void image_progress(bool wanted, uint64_t done, uint64_t all, int *shown)
{
	double part = all ? done * 100.0 / all : 100;

	if (!wanted || ((int)(part * 100) == *shown && done < all))
		return;
	*shown = part * 100;
	printf("    (%.2f/100%%)\r", part);
	if (done >= all)
		putchar('\n');
	fflush(stdout);
}

/* Only what is not zero is written. */
static int write_sparse(struct copy *c, const uint8_t *buf, uint64_t at, size_t len, struct err *err)
{
	uint64_t unit = image_qcow2(c->to) ? c->cluster : SPARSE;
	int ret = 0;

	for (size_t i = 0; i < len && !ret;) {
		size_t n = len - i < unit ? len - i : unit, run;
		bool zero = image_all_zero(buf + i, n);

		for (run = n; i + run < len; run += n) {
			n = len - i - run < unit ? len - i - run : unit;
			if (image_all_zero(buf + i + run, n) != zero)
				break;
		}
		if (!zero)
			ret = image_write(c->to, at + i, buf + i, run, err);
		else if (!c->zero_new)
			ret = image_zero(c->to, at + i, run, true, err);
		i += run;
	}
	return ret;
}

static int write_packed(struct copy *c, const uint8_t *buf, uint64_t at, size_t len, struct err *err)
{
	int ret = 0;

	for (size_t i = 0; i < len && !ret; i += c->cluster) {
		size_t n = len - i < c->cluster ? len - i : c->cluster;

		if (!image_all_zero(buf + i, n))
			ret = qcow2_write_compressed(image_qcow2(c->to), at + i, buf + i, n, err);
	}
	return ret;
}

/* Clusters that the backing file shows as they are, are left to it. */
static int write_different(struct copy *c, const uint8_t *buf, uint8_t *below, uint64_t at, size_t len, struct err *err)
{
	int ret = image_read(c->backing, at, below, len, err);

	for (size_t i = 0; i < len && !ret; i += c->cluster) {
		size_t n = len - i < c->cluster ? len - i : c->cluster;

		if (!memcmp(buf + i, below + i, n))
			continue;
		if (image_all_zero(buf + i, n))
			ret = image_zero(c->to, at + i, n, false, err);
		else if (c->compress)
			ret = qcow2_write_compressed(image_qcow2(c->to), at + i, buf + i, n, err);
		else
			ret = image_write(c->to, at + i, buf + i, n, err);
	}
	return ret;
}

/* The next piece of work; *zero: all of it reads as zeroes. With the lock. */
static int next_piece(struct copy *c, uint64_t *at, uint64_t *len, bool *zero)
{
	struct image_extent e;

	*at = c->next;
	*len = c->size - *at < c->chunk ? c->size - *at : c->chunk;
	*zero = false;
	if (*at >= c->known) {
		int ret = image_map(c->from, *at, c->size - *at, &e, &c->err);

		if (ret)
			return ret;
		c->known = *at + e.len;
		c->known_zero = e.zero;
	}
	/* In whole chunks, so that they begin where clusters do. */
	if (!c->backing && c->known_zero && c->known - *at >= *len) {
		*zero = true;
		*len = c->known == c->size ? c->known - *at : (c->known - *at) / c->chunk * c->chunk;
	}
	c->next += *len;
	return 0;
}

static void *copy_pieces(void *opaque)
{
	struct copy *c = opaque;
	uint8_t *buf = malloc(c->chunk * (c->backing ? 2 : 1));
	struct err err = ERR_INIT;
	int ret = buf ? 0 : err_set(&err, ENOMEM, "no memory");

	pthread_mutex_lock(&c->lock);
	while (!ret && !c->failed && c->next < c->size) {
		uint64_t at, len;
		bool zero;

		ret = next_piece(c, &at, &len, &zero);
		if (ret)
			break;
		pthread_mutex_unlock(&c->lock);
		if (zero)
			ret = c->zero_new ? 0 : image_zero(c->to, at, len, true, &err);
		else
			ret = image_read(c->from, at, buf, len, &err);
		if (!ret && !zero)
			ret = c->backing    ? write_different(c, buf, buf + c->chunk, at, len, &err)
			      : c->compress ? write_packed(c, buf, at, len, &err)
					    : write_sparse(c, buf, at, len, &err);
		pthread_mutex_lock(&c->lock);
		c->done += len;
		if (!ret)
			image_progress(c->progress, c->done, c->size, &c->shown);
	}
	if (ret && !c->failed) {
		c->failed = ret;
		if (err.code)
			c->err = err;
	}
	pthread_mutex_unlock(&c->lock);
	free(buf);
	return NULL;
}

static int copy_all(struct copy *c, struct err *err)
{
	pthread_t thread[MAX_WORKERS];
	unsigned n = 0;

	c->chunk = c->cluster > CHUNK ? c->cluster : CHUNK;
	pthread_mutex_init(&c->lock, NULL);
	/* This thread is one of them, and does all of it if there can be no others. */
	while (n + 1 < c->workers && c->size > c->chunk && !pthread_create(&thread[n], NULL, copy_pieces, c))
		n++;
	copy_pieces(c);
	while (n)
		pthread_join(thread[--n], NULL);
	pthread_mutex_destroy(&c->lock);
	return c->failed ? err_set(err, c->err.code ? c->err.code : EIO, "%s", err_msg(&c->err)) : 0;
}

struct convert_args {
	const char *from_format, *from, *to;
	struct image_target target;
	bool compress, progress, no_create;
	unsigned flags, workers;
};

static int parse_convert(int argc, char **argv, struct convert_args *a)
{
	char *options = NULL;
	uint64_t n;
	int opt;

	*a = (struct convert_args){ .target.format = "raw" };
	/* Some more than there are CPUs: while one waits for the disk, another works. */
	a->workers = 2 * sysconf(_SC_NPROCESSORS_ONLN);
	optind = 1;
	while ((opt = getopt(argc, argv, "cpqnUWf:O:o:B:F:m:t:T:S:")) != -1) {
		switch (opt) {
		case 'c':
			a->compress = true;
			break;
		case 'p':
			a->progress = true;
			break;
		case 'n':
			a->no_create = true;
			break;
		case 'U':
			a->flags |= IMAGE_NO_LOCK;
			break;
		case 'f':
			a->from_format = optarg;
			break;
		case 'O':
			a->target.format = optarg;
			break;
		case 'o':
			options = optarg;
			break;
		case 'B':
			a->target.qcow2.backing = optarg;
			break;
		case 'F':
			a->target.qcow2.backing_format = optarg;
			break;
		case 'm':
			if (!image_parse_size(optarg, &n) || !n || n > MAX_WORKERS)
				return image_fail(1, "-m takes a number from 1 to %u, not '%s'", MAX_WORKERS, optarg);
			a->workers = n;
			break;
		case 'q':
		case 'W': /* order is nobody's concern anyway */
			break;
		default:
			if (opt != '?')
				image_fail(1, "convert has no option -%c", opt);
			return 1;
		}
	}
	if (options && image_parse_options(&a->target, options))
		return 1;
	if (argc - optind != 2)
		return image_fail(1, "convert needs a file and the new one's name");
	a->from = argv[optind];
	a->to = argv[optind + 1];
	if (strcmp(a->target.format, "raw") && strcmp(a->target.format, "qcow2") && strcmp(a->target.format, "luks"))
		return image_fail(1, "format '%s' is not supported, only raw, qcow2 and luks are", a->target.format);
	if (a->compress && (strcmp(a->target.format, "qcow2") || a->target.qcow2.luks))
		return image_fail(1, a->target.qcow2.luks ? "encrypted images cannot be compressed" : "%s images cannot be compressed",
				  a->target.format);
	if (a->target.qcow2.backing && strcmp(a->target.format, "qcow2"))
		return image_fail(1, "%s images have no backing file", a->target.format);
	if (a->target.qcow2.backing && !a->target.qcow2.backing_format)
		return image_fail(1, "the backing file's format is missing: give it with -F");
	if (a->target.qcow2.backing && a->no_create)
		return image_fail(1,
				  "-B is for new images, -n for those that are there: only one of them can be given");
	if (a->workers > MAX_WORKERS)
		a->workers = MAX_WORKERS;
	return 0;
}

static int convert(const struct convert_args *a, struct image *from, struct err *err)
{
	struct image_target t = a->target;
	struct copy c = { .from = from,
			  .size = image_size(from),
			  .compress = a->compress,
			  .progress = a->progress,
			  .workers = a->workers,
			  .cluster = SPARSE };
	char *temp = NULL;
	int ret = 0;

	t.qcow2.size = (c.size + 511) & ~511ull;
	if (!strcmp(t.format, "raw"))
		t.qcow2.size = c.size;
	if (!a->no_create)
		ret = image_make(a->to, &t, &temp, err);
	if (ret)
		return ret;
	/* What was never written on a ciphered disk reads as noise. */
	c.zero_new = strcmp(t.format, "luks") && (temp || (!a->no_create && !strcmp(t.format, "qcow2")));
	/* What goes wrong on the way leaves no trace, so the disk is waited for once, at the end. */
	if (a->no_create)
		c.to = image_open_target(a->to, t.format, IMAGE_RDWR, err);
	else
		c.to = image_open_keyed(temp ? temp : a->to, t.format, IMAGE_RDWR | (temp ? IMAGE_UNSAFE : 0), t.luks.key_secret, err);
	if (!c.to) {
		image_abandon(temp);
		return -EIO;
	}
	if (image_qcow2(c.to)) {
		struct qcow2_info i;

		qcow2_get_info(image_qcow2(c.to), &i);
		c.cluster = i.cluster_size;
	}
	c.backing = a->no_create ? NULL : image_backing(c.to);
	if (image_size(c.to) < c.size)
		ret = err_set(err, ENOSPC, "%s is smaller than %s", a->to, a->from);
	if (!ret)
		ret = copy_all(&c, err);
	if (!ret)
		ret = image_flush(c.to, err);
	if (image_close(c.to, err) && !ret)
		ret = -EIO;
	if (!ret)
		ret = image_commit(a->to, temp, err);
	if (ret)
		image_abandon(temp);
	return ret;
}

int image_cmd_convert(int argc, char **argv)
{
	struct err err = ERR_INIT;
	struct convert_args a;
	struct image *from;
	int ret;

	if (parse_convert(argc, argv, &a))
		return 1;
	from = image_open_named(a.from, a.from_format, a.flags, &err);
	if (!from)
		return image_fail(1, "%s", err_msg(&err));
	ret = convert(&a, from, &err);
	image_close(from, NULL);
	return ret ? image_fail(1, "%s", err_msg(&err)) : 0;
}

/* ---- compare ----------------------------------------------------------------------- */

/* 0 same, 1 different, 2 failed. */
static int compare(struct image *a, struct image *b, bool quiet, bool strict, struct err *err)
{
	uint64_t sa = image_size(a), sb = image_size(b), size = sa > sb ? sa : sb;
	uint8_t *buf = malloc(2 * (size_t)COMPARE);
	int ret = 0;

	if (!buf) {
		err_set(err, ENOMEM, "no memory");
		return 2;
	}
	for (uint64_t at = 0; at < size && !ret;) {
		uint64_t len = size - at, n;
		struct image_extent ea = { .len = len, .zero = true }, eb = ea;

		if ((at < sa && image_map(a, at, sa - at, &ea, err)) ||
		    (at < sb && image_map(b, at, sb - at, &eb, err))) {
			ret = 2;
			break;
		}
		n = ea.len < eb.len ? ea.len : eb.len;
		if (strict && (ea.data != eb.data || ea.zero != eb.zero || ea.present != eb.present)) {
			if (!quiet)
				printf("Strict mode: Offset %llu block status mismatch!\n", (unsigned long long)at);
			ret = 1;
			break;
		}
		if (!ea.zero || !eb.zero) {
			n = n < COMPARE ? n : COMPARE;
			if (image_read(a, at, buf, n, err) || image_read(b, at, buf + COMPARE, n, err))
				ret = 2;
			else if (memcmp(buf, buf + COMPARE, n))
				ret = 1;
			for (uint64_t i = 0; ret == 1; i++) {
				if (buf[i] == buf[COMPARE + i])
					continue;
				if (!quiet)
					printf("Content mismatch at offset %llu!\n",
					       (unsigned long long)(at + (i & ~511ull)));
				break;
			}
		}
		at += n;
	}
	free(buf);
	return ret;
}

int image_cmd_compare(int argc, char **argv)
{
	const char *fa = NULL, *fb = NULL;
	bool quiet = false, strict = false;
	struct err err = ERR_INIT;
	struct image *a, *b = NULL;
	unsigned flags = 0;
	int opt, ret = 2;

	optind = 1;
	while ((opt = getopt(argc, argv, "qsUf:F:")) != -1) {
		switch (opt) {
		case 'q':
			quiet = true;
			break;
		case 's':
			strict = true;
			break;
		case 'U':
			flags |= IMAGE_NO_LOCK;
			break;
		case 'f':
			fa = optarg;
			break;
		case 'F':
			fb = optarg;
			break;
		default:
			return 2;
		}
	}
	if (argc - optind != 2)
		return image_fail(2, "compare needs two files");
	a = image_open_named(argv[optind], fa, flags, &err);
	if (a)
		b = image_open_named(argv[optind + 1], fb, flags, &err);
	if (b && image_size(a) != image_size(b)) {
		if (strict && !quiet)
			printf("Strict mode: Image size mismatch!\n");
		else if (!quiet)
			fprintf(stderr, "Warning: Image size mismatch!\n");
		ret = strict ? 1 : compare(a, b, quiet, strict, &err);
	} else if (b) {
		ret = compare(a, b, quiet, strict, &err);
	}
	image_close(a, NULL);
	image_close(b, NULL);
	if (ret == 2)
		return image_fail(2, "%s", err_msg(&err));
	if (!ret && !quiet)
		printf("Images are identical.\n");
	return ret;
}
