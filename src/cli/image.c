/* SPDX-License-Identifier: GPL-2.0-or-later */
/* keel image: disk images, in qemu-img's habits. */
#include "cli/image.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "image/remote.h"

static const struct builtin verbs[] = {
	{ "create", "[-q] [-f FORMAT] [-b BACKING [-F FORMAT]] [-o OPTION=VALUE,...] FILE [SIZE]",
	  "make an empty image", image_cmd_create },
	{ "info", "[-f FORMAT] [-U] [--backing-chain] [--output=json] FILE", "tell about an image", image_cmd_info },
	{ "check", "[-q] [-f FORMAT] [-U] [-r leaks|all] [--output=json] FILE", "check an image, and repair it",
	  image_cmd_check },
	{ "convert",
	  "[-c] [-p] [-q] [-n] [-U] [-f FORMAT] [-O FORMAT] [-o OPTION=VALUE,...] [-B BACKING [-F FORMAT]] FILE NEW",
	  "copy an image into another format", image_cmd_convert },
	{ "resize", "[-q] [-f FORMAT] [--shrink] [--preallocation=MODE] FILE [+|-]SIZE", "change an image's size",
	  image_cmd_resize },
	{ "map", "[-f FORMAT] [-U] [--output=json] FILE", "show where data lies", image_cmd_map },
	{ "compare", "[-q] [-s] [-U] [-f FORMAT] [-F FORMAT] FILE FILE", "compare what guests see", image_cmd_compare },
	{ "snapshot", "[-q] [-f FORMAT] [-U] [-l | -c NAME | -a NAME | -d NAME] FILE",
	  "list, create, apply or delete internal snapshots", image_cmd_snapshot },
	{ "build",
	  "[--size SIZE] [--format FORMAT] [--suite SUITE] [--mirror URL] [--user NAME] [--ssh-key FILE] "
	  "[--password-file FILE] "
	  "[--hostname NAME] [--include PACKAGE,...] [--cloud-init] NEW",
	  "make a disk with a Debian system that boots", image_cmd_build },
	{ "bitmap",
	  "(--add [-g GRANULARITY] | --remove | --clear | --enable | --disable | --merge SOURCE [-b FILE [-F "
	  "FORMAT]])... "
	  "[-f FORMAT] FILE BITMAP",
	  "change persistent dirty bitmaps", image_cmd_bitmap },
	{ "commit", "[-q] [-p] [-d] [-f FORMAT] [-b BASE] FILE", "write an image's changes into its backing file",
	  image_cmd_commit },
	{ "rebase", "[-q] [-p] [-u] [-U] [-f FORMAT] [-F FORMAT] -b BACKING FILE",
	  "give an image another backing file, or none (-b '')", image_cmd_rebase },
	{ "amend", "[-q] [-f FORMAT] [--force] -o OPTION=VALUE,... FILE", "change an encrypted image's passphrases", image_cmd_amend },
	{ "bench",
	  "[-c COUNT] [-d DEPTH] [-f FORMAT] [-o OFFSET] [-q] [-s SIZE] [-S STEP | --random] [-t CACHE] [-w] "
	  "[--flush-interval=N [--no-drain]] [--pattern=N] FILE",
	  "measure how fast requests are served", image_cmd_bench },
	{ "serve",
	  "[-r] [-t] [-e CLIENTS] [-x NAME] [-D DESCRIPTION] [-B BITMAP]... [-f FORMAT] [--cache=MODE] [--pid-file=FILE] "
	  "[--tls-certificates=DIR [--tls-verify]] (-k SOCKET | [-b ADDRESS] [-p PORT]) FILE",
	  "let NBD clients use an image", image_cmd_serve },
	{ "measure", "[-f FORMAT] [-U] [-O FORMAT] [-o OPTION=VALUE,...] [--output=json] FILE | --size SIZE",
	  "tell how large a file an image would be", image_cmd_measure },
};
#define N_VERBS (sizeof(verbs) / sizeof(verbs[0]))

int image_fail(int status, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fputs("keel image: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return status;
}

bool image_parse_size(const char *text, uint64_t *size)
{
	static const char units[] = "bkmgtpe";
	char *end;
	double n;
	unsigned shift = 0;

	if (!isdigit((unsigned char)*text) || strchr(text, 'x'))
		return false;
	errno = 0;
	n = strtod(text, &end);
	if (*end) {
		const char *unit = strchr(units, tolower((unsigned char)*end));

		if (!unit || end[1])
			return false;
		shift = 10 * (unit - units);
	} else if (!strchr(text, '.')) { /* whole bytes, all 64 bits of them */
		*size = strtoull(text, &end, 10);
		return !errno && !*end && *size < 1ull << 63;
	}
	n = ldexp(n, shift);
	if (errno || !(n < 0x1p63))
		return false;
	*size = n;
	return true;
}

const char *image_human_size(uint64_t size, char *buf, unsigned room)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	unsigned u = 0;
	double n = size;

	/* qemu-img changes to the next unit a little before it is reached. */
	for (; n >= 1000 && u < 6; u++)
		n /= 1024;
	snprintf(buf, room, "%0.3g %s", n, units[u]);
	return buf;
}

/* ---- Options of new images ---------------------------------------------------- */

static bool parse_bool(const char *text, bool *on)
{
	*on = !strcmp(text, "on");
	return *on || !strcmp(text, "off");
}

static bool set_option(struct image_target *t, const char *key, const char *value)
{
	struct qcow2_create_options *o = &t->qcow2;
	uint64_t n;
	bool good = true;

	if (!strcmp(key, "size")) {
		good = image_parse_size(value, &o->size);
	} else if (!strcmp(key, "compat")) {
		o->version = !strcmp(value, "0.10") || !strcmp(value, "v2") ? 2 : 3;
		good = o->version == 2 || !strcmp(value, "1.1") || !strcmp(value, "v3");
	} else if (!strcmp(key, "cluster_size")) {
		good = image_parse_size(value, &n) && n >= 512 && n <= 2u << 20 && !(n & (n - 1));
		o->cluster_bits = good ? __builtin_ctzll(n) : 0;
	} else if (!strcmp(key, "refcount_bits")) {
		good = image_parse_size(value, &n) && n && n <= 64 && !(n & (n - 1));
		o->refcount_bits = good ? n : 0;
	} else if (!strcmp(key, "lazy_refcounts")) {
		good = parse_bool(value, &o->lazy_refcounts);
	} else if (!strcmp(key, "extended_l2")) {
		good = parse_bool(value, &o->extended_l2);
	} else if (!strcmp(key, "compression_type")) {
		o->compression = !strcmp(value, "zstd") ? QCOW2_ZSTD : QCOW2_ZLIB;
		good = o->compression || !strcmp(value, "zlib");
	} else if (!strcmp(key, "backing_file")) {
		o->backing = value;
	} else if (!strcmp(key, "backing_fmt")) {
		o->backing_format = value;
	} else if (!strcmp(key, "preallocation")) {
		good = image_parse_prealloc(value, t);
	} else if (!strcmp(key, "data_file")) {
		o->data_file = value;
	} else if (!strcmp(key, "data_file_raw")) {
		good = parse_bool(value, &o->data_file_raw);
	} else {
		good = image_luks_option(t, key, value) > 0;
	}
	return good;
}

int image_parse_options(struct image_target *t, char *text)
{
	char *save;

	for (char *key = strtok_r(text, ",", &save); key; key = strtok_r(NULL, ",", &save)) {
		char *value = strchr(key, '=');

		if (!value)
			return image_fail(1, "-o %s lacks a value", key);
		*value++ = 0;
		if (!set_option(t, key, value))
			return image_fail(1,
					  "option '%s' cannot be '%s'; the options are size, compat (0.10, 1.1), "
					  "cluster_size (512 to 2M), "
					  "refcount_bits (1 to 64), lazy_refcounts, extended_l2 (on, off), "
					  "compression_type (zlib, zstd), "
					  "data_file, data_file_raw (on, off), preallocation (off, metadata, falloc, "
					  "full), backing_file, backing_fmt; of format luks, and with 'encrypt.' before it of "
					  "qcow2: key-secret, cipher-alg (aes-128, aes-192, aes-256), cipher-mode (xts, cbc), "
					  "ivgen-alg (plain64, plain, essiv), ivgen-hash-alg, hash-alg (sha1, sha224, sha256, "
					  "sha384, sha512) and iter-time (milliseconds); encrypt.format (luks)",
					  key, value);
	}
	return image_luks_finish(t);
}

/* ---- New files ------------------------------------------------------------------ */

bool image_parse_prealloc(const char *text, struct image_target *t)
{
	static const char *const modes[] = { "off", "metadata", "falloc", "full" };

	for (unsigned i = 0; i < 4; i++) {
		if (strcmp(text, modes[i]))
			continue;
		t->prealloc = i;
		return true;
	}
	return false;
}

static int write_zeroes(struct image *img, uint64_t from, struct err *err)
{
	const uint64_t most = 1 << 20, size = image_size(img);
	uint8_t *zeroes = calloc(1, most);
	int ret = zeroes ? 0 : err_set(err, ENOMEM, "no memory");

	for (uint64_t at = from, n; !ret && at < size; at += n) {
		n = size - at < most ? size - at : most;
		ret = image_write(img, at, zeroes, n, err);
	}
	free(zeroes);
	return ret;
}

int image_preallocate(struct image *img, const struct image_target *t, uint64_t from, struct err *err)
{
	uint64_t end = image_size(img);
	int ret = 0;

	if (t->prealloc == PREALLOC_OFF)
		return 0;
	if (image_qcow2(img))
		ret = qcow2_preallocate(image_qcow2(img), from, &end, err);
	if (!ret && t->prealloc == PREALLOC_FALLOC) {
		int fd = image_qcow2(img) ? qcow2_data_fd(image_qcow2(img)) : image_fd(img);

		if (!image_qcow2(img) && image_luks(img)) {
			struct luks_info i;

			luks_get_info(image_luks(img), &i);
			end += i.payload;
		}
		ret = -posix_fallocate(fd, 0, t->qcow2.data_file ? image_size(img) : end);
		if (ret)
			err_set_errno(err, -ret, "cannot allocate the space for %s", image_path(img));
	}
	if (!ret && t->prealloc == PREALLOC_FULL)
		ret = write_zeroes(img, from, err);
	return ret ? ret : image_flush(img, err);
}

/* The file for guest data, beside the image. */
static int make_data_file(const char *path, const struct image_target *t, struct err *err)
{
	char *name = image_backing_path(path, t->qcow2.data_file, err);
	struct stat st;
	int fd, ret = 0;

	if (!name)
		return -EINVAL;
	fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0 || fstat(fd, &st))
		ret = err_set_errno(err, errno, "cannot make the data file %s", name);
	else if (S_ISREG(st.st_mode) && st.st_size)
		ret = err_set(err, EEXIST, "the data file %s exists and is not empty: remove it first", name);
	else if (S_ISREG(st.st_mode) && t->qcow2.data_file_raw && ftruncate(fd, t->qcow2.size))
		ret = err_set_errno(err, errno, "cannot give %s its size", name);
	if (fd >= 0)
		close(fd);
	free(name);
	return ret;
}

/* file: where the image is until all of it is done */
static int fill_new(int fd, const char *file, const char *path, const struct image_target *t, struct err *err)
{
	struct image_target all = *t;
	bool qcow2 = !strcmp(t->format, "qcow2"), luks = !strcmp(t->format, "luks");
	struct image *img;
	int ret = 0;

	/* A raw data file is right only where each cluster has its entry. */
	if (t->qcow2.data_file_raw && t->prealloc == PREALLOC_OFF)
		all.prealloc = PREALLOC_METADATA;
	if (qcow2 && t->prealloc && t->qcow2.backing)
		return err_set(err, EINVAL, "preallocation would hide the backing file: only one of them can be given");
	if (!qcow2 && t->prealloc == PREALLOC_METADATA)
		return err_set(err, EINVAL, "raw images have no metadata: preallocation can be off, falloc or full");
	if (qcow2 && t->qcow2.data_file)
		ret = make_data_file(path, t, err);
	if (!ret && qcow2)
		ret = qcow2_create(fd, path, &t->qcow2, err);
	else if (!ret && luks)
		ret = luks_disk_create(fd, path, &t->luks, t->qcow2.size, err);
	else if (!ret && ftruncate(fd, t->qcow2.size))
		ret = err_set_errno(err, errno, "cannot give %s its size", path);
	if (ret || !all.prealloc)
		return ret;
	img = image_open_keyed(file, t->format, IMAGE_RDWR | IMAGE_UNSAFE, t->luks.key_secret, err);
	ret = img ? image_preallocate(img, &all, 0, err) : -EIO;
	if (image_close(img, err) && !ret)
		ret = -EIO;
	return ret;
}

int image_make(const char *path, const struct image_target *t, char **temp, struct err *err)
{
	mode_t mask = umask(0);
	struct stat st;
	int fd, ret;

	umask(mask);
	*temp = NULL;
	if (!stat(path, &st) && S_ISBLK(st.st_mode)) {
		uint64_t have;

		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			return err_set_errno(err, errno, "cannot open %s", path);
		if (!strcmp(t->format, "luks"))
			ret = luks_disk_create(fd, path, &t->luks, t->qcow2.size, err);
		else if (strcmp(t->format, "raw"))
			ret = qcow2_create(fd, path, &t->qcow2, err);
		else if (ioctl(fd, BLKGETSIZE64, &have))
			ret = err_set_errno(err, errno, "cannot tell the size of %s", path);
		else
			ret = have < t->qcow2.size ? err_set(err, ENOSPC, "%s is smaller than the image", path) : 0;
		close(fd);
		return ret;
	}
	if (remote_is_uri(path) && strcmp(t->format, "raw"))
		return err_set(err, ENOTSUP, "%s: format '%s' is not supported over a server, only raw is", path, t->format);
	if (remote_is_uri(path))
		return remote_create(path, t->qcow2.size, err);
	if (!stat(path, &st) && !S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "%s is neither a file nor a block device", path);
	if (asprintf(temp, "%s.XXXXXX", path) < 0) {
		*temp = NULL;
		return err_set(err, ENOMEM, "no memory");
	}
	fd = mkostemp(*temp, O_CLOEXEC);
	if (fd < 0) {
		ret = err_set_errno(err, errno, "cannot make %s", path);
		free(*temp);
		*temp = NULL;
		return ret;
	}
	ret = fchmod(fd, 0666 & ~mask) ? err_set_errno(err, errno, "cannot make %s", path)
				       : fill_new(fd, *temp, path, t, err);
	close(fd);
	if (ret) {
		image_abandon(*temp);
		*temp = NULL;
	}
	return ret;
}

static int sync_path(const char *path, int flags, struct err *err)
{
	int fd = open(path, flags | O_RDONLY | O_CLOEXEC), ret = 0;

	if (fd < 0 || fsync(fd))
		ret = err_set_errno(err, errno, "waiting for %s to be on the disk", path);
	if (fd >= 0)
		close(fd);
	return ret;
}

int image_commit(const char *path, char *temp, struct err *err)
{
	char *real, *dir, *slash;
	int ret;

	if (!temp)
		return 0;
	ret = sync_path(temp, 0, err);
	real = ret ? NULL : realpath(path, NULL); /* through a symbolic link: what it leads to */
	if (!ret && rename(temp, real ? real : path))
		ret = err_set_errno(err, errno, "cannot put the image in place of %s", path);
	if (!ret) {
		dir = strdup(real ? real : path);
		slash = dir ? strrchr(dir, '/') : NULL;
		if (slash)
			slash[slash == dir] = 0;
		if (dir)
			ret = sync_path(slash ? dir : ".", O_DIRECTORY, err);
		free(dir);
		free(temp);
	}
	free(real);
	return ret;
}

void image_abandon(char *temp)
{
	if (temp)
		unlink(temp);
	free(temp);
}

/* ---- create, resize -------------------------------------------------------------- */

/* Does the new image's backing file open, and how large is it? */
static int size_of_backing(const char *file, const struct qcow2_create_options *o, uint64_t *size, struct err *err)
{
	char *path = image_backing_path(file, o->backing, err);
	struct image *img = path ? image_open(path, o->backing_format, IMAGE_LOCKED, err) : NULL;

	free(path);
	if (!img)
		return err_prefix(err, "backing file");
	*size = image_size(img);
	return image_close(img, NULL);
}

int image_cmd_create(int argc, char **argv)
{
	struct image_target t = { .format = "raw" };
	struct err err = ERR_INIT;
	uint64_t size = UINT64_MAX;
	bool quiet = false;
	char *temp;
	int opt;

	while ((opt = getopt(argc, argv, "qf:b:F:o:u")) != -1) {
		switch (opt) {
		case 'q':
			quiet = true;
			break;
		case 'f':
			t.format = optarg;
			break;
		case 'b':
			t.qcow2.backing = optarg;
			break;
		case 'F':
			t.qcow2.backing_format = optarg;
			break;
		case 'o':
			t.qcow2.size = UINT64_MAX;
			if (image_parse_options(&t, optarg))
				return 1;
			size = t.qcow2.size != UINT64_MAX ? t.qcow2.size : size;
			break;
		case 'u':
			break;
		default:
			return 1;
		}
	}
	if (argc - optind < 1 || argc - optind > 2)
		return image_fail(1, "create needs a file and a size");
	if (strcmp(t.format, "raw") && strcmp(t.format, "qcow2") && strcmp(t.format, "luks"))
		return image_fail(1, "format '%s' is not supported, only raw, qcow2 and luks are", t.format);
	if (argc - optind == 2 && !image_parse_size(argv[optind + 1], &size))
		return image_fail(1, "'%s' is no size: give a number with k, M, G, T, P or E after it",
				  argv[optind + 1]);
	if (t.qcow2.backing && strcmp(t.format, "qcow2"))
		return image_fail(1, "%s images have no backing file", t.format);
	if (t.qcow2.backing && !t.qcow2.backing_format)
		return image_fail(1, "the backing file's format is missing: give it with -F");
	if (t.qcow2.backing) {
		uint64_t backing = 0;

		if (size_of_backing(argv[optind], &t.qcow2, &backing, &err))
			return image_fail(1, "%s", err_msg(&err));
		size = size == UINT64_MAX ? backing : size;
	}
	if (size == UINT64_MAX)
		return image_fail(1, "%s: the size is missing", argv[optind]);
	t.qcow2.size = (size + 511) & ~511ull;
	if (image_make(argv[optind], &t, &temp, &err) || image_commit(argv[optind], temp, &err))
		return image_fail(1, "%s", err_msg(&err));
	if (!quiet)
		printf("Made '%s': %s, %llu bytes\n", argv[optind], t.format, (unsigned long long)t.qcow2.size);
	return 0;
}

static int resize_to(struct image *img, const char *text, bool shrink, const struct image_target *t, struct err *err)
{
	int ret;
	uint64_t old = image_size(img), n, size;
	const char *digits = text + (*text == '+' || *text == '-');

	if (!image_parse_size(digits, &n))
		return err_set(err, EINVAL, "'%s' is no size", text);
	if (*text == '-' && n > old)
		return err_set(err, EINVAL, "%s has only %llu bytes", image_path(img), (unsigned long long)old);
	size = *text == '+' ? old + n : *text == '-' ? old - n : n;
	size = (size + 511) & ~511ull;
	if (size < old && !shrink)
		return err_set(
			err, EINVAL,
			"%s would become shorter and lose what is beyond its new end: give --shrink if that is meant",
			image_path(img));
	if (t->prealloc && size < old)
		return err_set(err, EINVAL, "preallocation is for images that grow");
	ret = image_resize(img, size, err);
	return ret ? ret : image_preallocate(img, t, old, err);
}

int image_cmd_resize(int argc, char **argv)
{
	const char *format = NULL;
	bool shrink = false, quiet = false;
	struct image_target t = { 0 };
	struct err err = ERR_INIT;
	struct image *img;
	char *args[3] = { NULL };
	int n = 0, ret;

	/* By hand: a size may start with a minus sign. */
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-f") && i + 1 < argc)
			format = argv[++i];
		else if (!strcmp(argv[i], "--shrink"))
			shrink = true;
		else if (!strncmp(argv[i], "--preallocation=", 16)) {
			if (!image_parse_prealloc(argv[i] + 16, &t))
				return image_fail(1, "preallocation is off, metadata, falloc or full, not '%s'",
						  argv[i] + 16);
		} else if (!strcmp(argv[i], "-q"))
			quiet = true;
		else if (strcmp(argv[i], "--") && n < 3)
			args[n++] = argv[i];
	}
	if (n != 2)
		return image_fail(1, "resize needs a file and a size");
	img = image_open_named(args[0], format, IMAGE_RDWR, &err);
	if (!img)
		return image_fail(1, "%s", err_msg(&err));
	ret = resize_to(img, args[1], shrink, &t, &err);
	if (image_close(img, &err) || ret)
		return image_fail(1, "%s", err_msg(&err));
	if (!quiet)
		printf("Image resized.\n");
	return 0;
}

/* ---- Verbs ------------------------------------------------------------------------ */

static void usage(FILE *f)
{
	fprintf(f, "Usage: keel image VERB [ARGUMENT]...\n\nVerbs:\n");
	for (unsigned i = 0; i < N_VERBS; i++)
		fprintf(f, "  %s %s\n      %s\n", verbs[i].name, verbs[i].args, verbs[i].help);
	fprintf(f, "\nEach also takes --object secret,id=ID,file=FILE and --image-opts, with which files are named as\n"
		   "driver=FORMAT,file.filename=FILE[,key-secret=ID][,encrypt.key-secret=ID].\n"
		   "Formats: raw, qcow2, luks. Exit status: 0 done; 1 failed; compare: 1 different, 2 failed; check: 1 not "
		   "done,\n"
		   "2 corrupt, 3 leaks, 63 the format has no check.\n");
}

int builtin_image(int argc, char **argv)
{
	if (argc < 2) {
		usage(stderr);
		return 1;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		usage(stdout);
		return 0;
	}
	for (unsigned i = 0; i < N_VERBS; i++) {
		if (strcmp(verbs[i].name, argv[1]))
			continue;
		if (argc == 3 && !strcmp(argv[2], "--help")) {
			printf("Usage: keel image %s %s\n%c%s.\n", verbs[i].name, verbs[i].args,
			       toupper(verbs[i].help[0]), verbs[i].help + 1);
			return 0;
		}
		argc = image_take_common(argc - 1, argv + 1);
		return argc < 0 ? 1 : verbs[i].run(argc, argv + 1);
	}
	return image_fail(1, "there is no verb '%s'; see 'keel help image'", argv[1]);
}
