/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qcow2 against a model in memory, over the shapes that images can have; and images that lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image/block_int.h"
#include "image/qcow2.h"

static char dir[64], path[128], base[128];

static int setup(void **state)
{
	strcpy(dir, "/tmp/keel-qcow2-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/disk.qcow2", dir);
	snprintf(base, sizeof(base), "%s/base", dir);
	return 0;
}

static int teardown(void **state)
{
	char cmd[256];

	snprintf(cmd, sizeof(cmd), "umount -q %s/small 2>/dev/null; rm -rf %s", dir, dir);
	return system(cmd);
}

static uint64_t seed;
static uint32_t rnd(uint32_t n)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(seed >> 33) % n;
}

static void make(const char *file, const struct qcow2_create_options *o)
{
	struct err err = ERR_INIT;
	int fd;

	unlink(file); /* a test that failed may have it open, and locked */
	fd = open(file, O_RDWR | O_CREAT | O_EXCL, 0600);
	assert_true(fd >= 0);
	if (qcow2_create(fd, file, o, &err))
		fail_msg("%s", err_msg(&err));
	close(fd);
}

static struct image *must_open(const char *file, const char *format, unsigned flags)
{
	struct err err = ERR_INIT;
	struct image *img = image_open(file, format, flags | IMAGE_UNSAFE, &err);

	if (!img)
		fail_msg("%s", err_msg(&err));
	return img;
}

static void good(int ret, const struct err *err)
{
	if (ret)
		fail_msg("%d: %s", ret, err_msg(err));
}

static void say(void *opaque, bool corruption, const char *text)
{
	print_message("%s\n", text);
}

static void must_be_clean(const char *file)
{
	struct image *img = must_open(file, "qcow2", IMAGE_CHECK | IMAGE_NO_BACKING);
	struct qcow2_check c = { .report = say };
	struct err err = ERR_INIT;

	good(qcow2_check(image_qcow2(img), QCOW2_FIX_NONE, &c, &err), &err);
	assert_int_equal(c.corruptions, 0);
	assert_int_equal(c.leaks, 0);
	image_close(img, NULL);
}

/* ---- Model ----------------------------------------------------------------------- */

#define MAX_SIZE (8u << 20)

static void fill(uint8_t *p, size_t len)
{
	uint32_t kind = rnd(3), word = rnd(1u << 30);

	if (kind == 0)
		memset(p, word, len);
	else
		for (size_t i = 0; i < len; i++)
			p[i] = kind == 1 ? rnd(256) : (word >> (i % 24)) & 3;
}

static void compare_all(struct image *img, const uint8_t *model, uint64_t size)
{
	uint8_t *buf = malloc(size);
	struct err err = ERR_INIT;

	good(image_read(img, 0, buf, size, &err), &err);
	for (uint64_t i = 0; i < size; i++)
		if (buf[i] != model[i])
			fail_msg("byte %#llx is %#x, not %#x", (unsigned long long)i, buf[i], model[i]);
	free(buf);
}

/* A length that is a handful of bytes, or clusters, or more. */
static uint64_t some_len(uint64_t cluster, uint64_t rest)
{
	uint64_t n = rnd(3) == 0 ? 1 + rnd(600) : rnd(2) ? 1 + rnd(3 * cluster) : 512 * (1 + rnd(200));

	return n < rest ? n : rest;
}

static void random_ops(struct image *img, uint8_t *model, uint64_t *size, uint64_t cluster, unsigned ops, bool packs)
{
	struct qcow2 *q = image_qcow2(img);
	struct err err = ERR_INIT;
	uint8_t *buf = malloc(MAX_SIZE);

	for (unsigned i = 0; i < ops; i++) {
		uint64_t at = rnd(*size), len = some_len(cluster, *size - at), end = at + len, next;
		uint64_t first = (at + cluster - 1) / cluster * cluster,
			 last = end == *size ? end : end / cluster * cluster;

		if (rnd(2))
			at = at / cluster * cluster, len = some_len(cluster, *size - at);
		switch (rnd(12)) {
		case 0:
			good(qcow2_zero(q, at, len, rnd(2), &err), &err);
			memset(model + at, 0, len);
			break;
		case 1:
			end = at + len;
			first = (at + cluster - 1) / cluster * cluster;
			last = end == *size ? end : end / cluster * cluster;
			good(qcow2_discard(q, at, len, &err), &err);
			if (last > first)
				memset(model + first, 0, last - first);
			break;
		case 2:
			good(qcow2_flush(q, &err), &err);
			break;
		case 3:
			if (!packs)
				break;
			at = at / cluster * cluster;
			len = *size - at < cluster ? *size - at : cluster;
			fill(buf, len);
			good(qcow2_write_compressed(q, at, buf, len, &err), &err);
			memcpy(model + at, buf, len);
			break;
		case 4:
			if (rnd(8))
				break;
			next = 512 * (1 + rnd(MAX_SIZE / 512));
			good(qcow2_resize(q, next, &err), &err);
			if (next < *size)
				memset(model + next, 0, MAX_SIZE - next);
			*size = next;
			assert_int_equal(image_size(img), next);
			break;
		case 5:
		case 6:
			good(qcow2_read(q, at, buf, len, &err), &err);
			assert_memory_equal(buf, model + at, len);
			break;
		default:
			fill(buf, len);
			good(qcow2_write(q, at, buf, len, &err), &err);
			memcpy(model + at, buf, len);
		}
	}
	free(buf);
}

static void against_model(const struct qcow2_create_options *o, bool backed)
{
	uint64_t size = o->size, cluster = 1ull << o->cluster_bits;
	uint8_t *model = calloc(1, MAX_SIZE);
	struct err err = ERR_INIT;

	if (backed) {
		uint64_t have = size / 2 + 512; /* shorter than the image */
		int fd = open(base, O_RDWR | O_CREAT | O_TRUNC, 0600);

		fill(model, have);
		assert_int_equal(pwrite(fd, model, have, 0), have);
		close(fd);
	}
	make(path, o);
	for (unsigned round = 0; round < 4; round++) {
		struct image *img = must_open(path, "qcow2", IMAGE_RDWR);

		compare_all(img, model, size);
		random_ops(img, model, &size, cluster, 60, true);
		compare_all(img, model, size);
		good(image_close(img, &err), &err);
		must_be_clean(path);
	}
	free(model);
}

static void test_matrix(void **state)
{
	static const unsigned bits[] = { 9, 10, 12, 16, 18, 21 };

	for (unsigned i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
		for (unsigned order = 0; order <= 6; order++) {
			struct qcow2_create_options o = {
				.size = 512 * (1 + rnd(MAX_SIZE / 512)),
				.cluster_bits = bits[i],
				.refcount_bits = 1u << order,
				.lazy_refcounts = rnd(2),
				.compression = rnd(2),
				.extended_l2 = bits[i] >= 14 && rnd(2),
			};

			if (order & 1) {
				o.backing = "base";
				o.backing_format = "raw";
			}
			seed = i * 100 + order;
			print_message("cluster_bits %u, refcount_bits %u\n", bits[i], o.refcount_bits);
			against_model(&o, order & 1);
		}
	}
}

static void test_version_2(void **state)
{
	struct qcow2_create_options o = {
		.size = 3u << 20, .version = 2, .cluster_bits = 12, .backing = "base", .backing_format = "raw"
	};

	seed = 7;
	against_model(&o, true);
	o.backing = o.backing_format = NULL;
	o.cluster_bits = 9;
	against_model(&o, false);
}

/* ---- Growth, chains ---------------------------------------------------------------- */

/* Many tables: the refcount table itself has to grow and to move, the L1 table as well. */
static void test_tables_grow(void **state)
{
	struct qcow2_create_options o = { .size = 1u << 20, .cluster_bits = 9, .refcount_bits = 64 };
	struct err err = ERR_INIT;
	uint8_t buf[512], got[512];
	struct image *img;

	make(path, &o);
	img = must_open(path, "qcow2", IMAGE_RDWR);
	good(qcow2_resize(image_qcow2(img), 4ull << 30, &err), &err);
	for (unsigned i = 0; i < 20000; i++) {
		memset(buf, i * 7 + 1, sizeof(buf));
		good(image_write(img, (uint64_t)i * 150016, buf, sizeof(buf), &err), &err);
	}
	good(image_close(img, &err), &err);
	must_be_clean(path);
	img = must_open(path, "qcow2", 0);
	for (unsigned i = 0; i < 20000; i += 7) {
		memset(buf, i * 7 + 1, sizeof(buf));
		good(image_read(img, (uint64_t)i * 150016, got, sizeof(got), &err), &err);
		assert_memory_equal(buf, got, sizeof(buf));
	}
	image_close(img, NULL);
}

static void open_fails(const char *file, unsigned flags, const char *text)
{
	struct err err = ERR_INIT;
	struct image *img = image_open(file, "qcow2", flags, &err);

	assert_null(img);
	if (!strstr(err.msg, text))
		fail_msg("'%s' lacks '%s'", err.msg, text);
}

static void test_chains(void **state)
{
	struct qcow2_create_options o = { .size = 1u << 20, .backing = "disk.qcow2", .backing_format = "qcow2" };
	char third[128];
	int fd;

	make(path, &o);
	open_fails(path, 0, "is its own backing file");
	o.backing = "nbd:localhost:10809";
	make(path, &o);
	open_fails(path, 0, "neither a plain file name");
	/* Guessed formats lead no further. */
	snprintf(third, sizeof(third), "%s/third", dir);
	fd = open(third, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	close(fd);
	o.backing = "third";
	o.backing_format = "raw";
	make(base, &o);
	o.backing = "base";
	o.backing_format = NULL;
	make(path, &o);
	open_fails(path, 0, "was only guessed to be a qcow2 image");
	o.backing_format = "qcow2";
	make(path, &o);
	image_close(must_open(path, "qcow2", IMAGE_RDWR), NULL);
}

static void test_discard_gives_space_back(void **state)
{
	struct qcow2_create_options o = { .size = 32u << 20 };
	struct err err = ERR_INIT;
	uint8_t *buf = malloc(16u << 20);
	struct image *img;
	struct stat before, after;

	memset(buf, 0x5a, 16u << 20);
	make(path, &o);
	img = must_open(path, "qcow2", IMAGE_RDWR);
	good(image_write(img, 0, buf, 16u << 20, &err), &err);
	good(image_flush(img, &err), &err);
	assert_int_equal(stat(path, &before), 0);
	good(qcow2_discard(image_qcow2(img), 0, 16u << 20, &err), &err);
	good(image_flush(img, &err), &err);
	assert_int_equal(stat(path, &after), 0);
	assert_true(after.st_blocks * 512 + (15 << 20) < before.st_blocks * 512);
	/* And the file does not grow when the space is wanted again. */
	good(image_write(img, 16u << 20, buf, 16u << 20, &err), &err);
	good(image_close(img, &err), &err);
	assert_int_equal(stat(path, &after), 0);
	assert_true(after.st_size <= before.st_size + 65536);
	free(buf);
	must_be_clean(path);
}

/* ---- Repair -------------------------------------------------------------------------- */

static void patch(uint64_t at, const void *bytes, size_t len)
{
	int fd = open(path, O_RDWR);

	assert_int_equal(pwrite(fd, bytes, len, at), len);
	close(fd);
}

static void some_image(struct qcow2_create_options o, uint8_t *data, size_t len)
{
	struct err err = ERR_INIT;
	struct image *img;

	make(path, &o);
	img = must_open(path, "qcow2", IMAGE_RDWR);
	seed = 5;
	fill(data, len);
	good(image_write(img, 0, data, len, &err), &err);
	good(image_close(img, &err), &err);
}

static void test_repair(void **state)
{
	struct qcow2_create_options o = { .size = 4u << 20, .cluster_bits = 12, .lazy_refcounts = true };
	static uint8_t data[1 << 20], zero[4096];
	struct qcow2_check c = { 0 };
	struct err err = ERR_INIT;
	struct image *img;

	/* All refcounts lost: new, image, header, refcount block 2 of the file's layout: L1 at 1, block at 2. */
	some_image(o, data, sizeof(data));
	patch(2 * 4096, zero, sizeof(zero));
	img = must_open(path, "qcow2", IMAGE_CHECK);
	good(qcow2_check(image_qcow2(img), QCOW2_FIX_NONE, &c, &err), &err);
	assert_true(c.corruptions > 200);
	assert_int_equal(qcow2_check(image_qcow2(img), QCOW2_FIX_ALL, &c, NULL), -EROFS);
	image_close(img, NULL);
	img = must_open(path, "qcow2", IMAGE_CHECK | IMAGE_RDWR);
	good(qcow2_check(image_qcow2(img), QCOW2_FIX_ALL, &c, &err), &err);
	assert_int_equal(c.corruptions, 0);
	assert_true(c.corruptions_fixed > 200);
	image_close(img, NULL);
	must_be_clean(path);
	img = must_open(path, "qcow2", 0);
	compare_all(img, data, sizeof(data));
	image_close(img, NULL);

	/* The same with the dirty bit: repaired by itself, but only by who may write. */
	some_image(o, data, sizeof(data));
	patch(2 * 4096, zero, sizeof(zero));
	patch(72, "\0\0\0\0\0\0\0\1", 8);
	image_close(must_open(path, "qcow2", 0), NULL);
	img = must_open(path, "qcow2", IMAGE_CHECK);
	good(qcow2_check(image_qcow2(img), QCOW2_FIX_NONE, &c, &err), &err);
	assert_true(c.corruptions > 200);
	image_close(img, NULL);
	image_close(must_open(path, "qcow2", IMAGE_RDWR), NULL);
	must_be_clean(path);
}

static void test_leaks(void **state)
{
	struct qcow2_create_options o = { .size = 4u << 20, .cluster_bits = 12 };
	static uint8_t data[65536];
	struct qcow2_check c = { 0 };
	struct err err = ERR_INIT;
	struct image *img;

	some_image(o, data, sizeof(data));
	patch(2 * 4096 + 2 * 500, "\0\3\0\1", 4);
	img = must_open(path, "qcow2", IMAGE_CHECK | IMAGE_RDWR);
	assert_int_equal(image_close(img, NULL), 0);
	/* Beyond the file's end there is nothing to leak. */
	assert_int_equal(truncate(path, 4096 * 600), 0);
	img = must_open(path, "qcow2", IMAGE_CHECK | IMAGE_RDWR);
	good(qcow2_check(image_qcow2(img), QCOW2_FIX_NONE, &c, &err), &err);
	assert_int_equal(c.leaks, 2);
	assert_int_equal(c.corruptions, 0);
	good(qcow2_check(image_qcow2(img), QCOW2_FIX_LEAKS, &c, &err), &err);
	assert_int_equal(c.leaks_fixed, 2);
	image_close(img, NULL);
	must_be_clean(path);
}

/* ---- Full disks ------------------------------------------------------------------------- */

static void fill_disk(unsigned bits, bool lazy)
{
	struct qcow2_create_options o = { .size = 64u << 20, .cluster_bits = bits, .lazy_refcounts = lazy };
	static uint8_t block[65536], got[65536];
	struct err err = ERR_INIT;
	struct image *img;
	uint64_t at = 0;
	int ret;

	make(path, &o);
	img = must_open(path, "qcow2", IMAGE_RDWR);
	for (;; at += 3 * sizeof(block)) {
		memset(block, at / sizeof(block) + 1, sizeof(block));
		ret = image_write(img, at, block, sizeof(block), &err);
		if (ret)
			break;
	}
	print_message("full after %llu bytes\n", (unsigned long long)at);
	assert_int_equal(ret, -ENOSPC);
	assert_true(at > 1u << 20);
	/* What was acknowledged can be made to stay, and the guest can make room itself. */
	err = ERR_INIT;
	good(image_flush(img, &err), &err);
	good(qcow2_discard(image_qcow2(img), 0, 3 * 65536, &err), &err);
	good(image_flush(img, &err), &err);
	good(image_write(img, 65536, block, 512, &err), &err);
	good(image_close(img, &err), &err);
	must_be_clean(path);
	img = must_open(path, "qcow2", 0);
	for (uint64_t i = 3 * sizeof(block); i < at; i += 3 * sizeof(block)) {
		memset(block, i / sizeof(block) + 1, sizeof(block));
		good(image_read(img, i, got, sizeof(got), &err), &err);
		assert_memory_equal(got, block, sizeof(block));
	}
	image_close(img, NULL);
}

static void test_full_disk(void **state)
{
	char outside[sizeof(path)], small[96];

	snprintf(small, sizeof(small), "%s/small", dir);
	assert_int_equal(mkdir(small, 0700), 0);
	if (mount("none", small, "tmpfs", 0, "size=3m")) {
		print_message("SKIP: no rights to mount a small file system\n");
		skip();
	}
	memcpy(outside, path, sizeof(path));
	snprintf(path, sizeof(path), "%s/disk.qcow2", small);
	fill_disk(16, false);
	fill_disk(9, false);
	fill_disk(12, true);
	memcpy(path, outside, sizeof(path));
	assert_int_equal(umount(small), 0);
}

/* ---- kill -9 ---------------------------------------------------------------------------- */

#define BLOCKS 512u /* of 4 KiB */
#define KILLS 30u   /* a shape; KEEL_KILLS changes it */

struct shared {
	uint32_t flushed[BLOCKS], begun[BLOCKS];
};

/* Block i holds its last number; a discarded one zeroes. */
static void write_for_ever(struct shared *s, unsigned round)
{
	static uint32_t block[1024];
	struct image *img = image_open(path, "qcow2", IMAGE_RDWR, NULL);

	seed = round;
	for (uint32_t n = round << 20 | 1; img; n++) {
		uint32_t i = rnd(BLOCKS);

		s->begun[i] = n;
		for (unsigned j = 0; j < 1024; j++)
			block[j] = n;
		if (rnd(6) == 0 && (qcow2_discard(image_qcow2(img), i * 4096ull, 4096, NULL) ||
				    qcow2_write(image_qcow2(img), i * 4096ull, block, 4096, NULL)))
			break;
		else if (qcow2_write(image_qcow2(img), i * 4096ull, block, 4096, NULL))
			break;
		if (rnd(40) == 0) {
			if (qcow2_flush(image_qcow2(img), NULL))
				break;
			/* Others may be half written since an earlier kill. */
			for (unsigned j = 0; j < BLOCKS; j++)
				if (s->begun[j] >> 20 == round)
					s->flushed[j] = s->begun[j];
		}
	}
	_exit(1);
}

static void verify_killed(struct shared *s)
{
	static uint32_t block[1024];
	struct image *img = must_open(path, "qcow2", IMAGE_RDWR);
	struct err err = ERR_INIT;

	for (unsigned i = 0; i < BLOCKS; i++) {
		uint32_t low = UINT32_MAX, high = 0;

		good(image_read(img, i * 4096ull, block, 4096, &err), &err);
		/* A write that was under way may have come as far as some sectors. */
		for (unsigned j = 0; j < 1024; j++) {
			assert_int_equal(block[j], block[j & ~127u]);
			/* What was flushed, or something later that was begun; zeroes where a discard was on its way.
			 */
			if (block[j] || s->begun[i] == s->flushed[i])
				assert_in_range(block[j], s->flushed[i], s->begun[i]);
			low = block[j] < low ? block[j] : low;
			high = block[j] > high ? block[j] : high;
		}
		s->flushed[i] = low;
		s->begun[i] = high;
	}
	good(image_close(img, &err), &err);
}

static void assert_was_busy(const struct shared *s)
{
	unsigned used = 0;

	for (unsigned i = 0; i < BLOCKS; i++)
		used += s->flushed[i] != 0;
	assert_true(used > BLOCKS / 4);
}

static void kill_loop(bool lazy, unsigned bits)
{
	struct qcow2_create_options o = { .size = BLOCKS * 4096, .cluster_bits = bits, .lazy_refcounts = lazy };
	struct shared *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	bool qemu = !system("qemu-img --version >/dev/null 2>&1");
	const char *wanted = getenv("KEEL_KILLS");
	unsigned kills = wanted ? strtoul(wanted, NULL, 10) : KILLS;

	make(path, &o);
	fflush(NULL);
	for (unsigned round = 1; round <= kills; round++) {
		struct qcow2_check c = { .report = say };
		struct err err = ERR_INIT;
		struct image *img;
		char cmd[200];
		int status;
		pid_t pid = fork();

		if (!pid)
			write_for_ever(s, round);
		seed = round + 1000;
		usleep(rnd(40000));
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		assert_true(WIFSIGNALED(status));
		img = must_open(path, "qcow2", IMAGE_CHECK);
		c.report = NULL;
		good(qcow2_check(image_qcow2(img), QCOW2_FIX_NONE, &c, &err), &err);
		if (!lazy)
			assert_int_equal(c.corruptions, 0);
		image_close(img, NULL);
		verify_killed(s);
		/* Opening repaired what lazy refcounts had left; leaks stay, and QEMU must agree. */
		snprintf(cmd, sizeof(cmd), "qemu-img check -q -f qcow2 %s >/dev/null 2>&1", path);
		status = qemu ? WEXITSTATUS(system(cmd)) : 0;
		assert_true(status == 0 || (status == 3 && !lazy));
	}
	/* Or nothing was tried. */
	assert_was_busy(s);
	munmap(s, sizeof(*s));
}

static void test_kill(void **state)
{
	kill_loop(false, 12);
	kill_loop(false, 9);
	kill_loop(true, 16);
}

/* ---- Lies ------------------------------------------------------------------------------ */

static void test_header_lies(void **state)
{
	static const struct {
		unsigned at, len;
		const char *bytes, *text;
	} lies[] = {
		{ 0, 4, "QFI\xfc", "is not a qcow2 image" },
		{ 4, 4, "\0\0\0\4", "version" },
		{ 20, 4, "\0\0\0\10", "cluster_bits" },
		{ 20, 4, "\0\0\0\26", "cluster_bits" },
		{ 24, 8, "\1\0\0\0\0\0\0\0", "l1_size" },
		{ 24, 8, "\xff\0\0\0\0\0\0\0", "size" },
		{ 32, 4, "\0\0\0\2", "crypt_method" },
		{ 36, 4, "\xff\xff\xff\xff", "l1_size" },
		{ 40, 8, "\0\0\0\0\0\0\1\0", "l1_table_offset" },
		{ 40, 8, "\0\xff\0\0\0\0\0\0", "l1_table_offset" },
		{ 48, 8, "\xff\xff\xff\xff\xff\xff\0\0", "refcount_table_offset" },
		{ 56, 4, "\0\0\0\0", "refcount_table_clusters" },
		{ 56, 4, "\xff\xff\xff\xff", "refcount_table_clusters" },
		{ 60, 4, "\xff\xff\xff\xff", "nb_snapshots" },
		{ 60, 12, "\0\0\0\3\0\xff\0\0\0\0\0\0", "snapshots_offset" },
		{ 72, 8, "\0\0\0\0\0\0\0\4", "does not say which" },
		{ 72, 8, "\1\0\0\0\0\0\0\0", "incompatible feature bit 56" },
		{ 96, 4, "\0\0\0\7", "refcount_order" },
		{ 100, 4, "\0\0\0\140", "header_length" },
		{ 104, 1, "\2", "compression_type" },
		{ 8, 12, "\0\0\0\0\0\1\0\0\0\0\0\12", "backing_file_offset" },
		{ 8, 12, "\0\0\0\0\0\0\20\0\0\0\10\0", "backing_file_size" },
	};
	struct qcow2_create_options o = { .size = 4u << 20 };

	for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		make(path, &o);
		patch(lies[i].at, lies[i].bytes, lies[i].len);
		open_fails(path, 0, lies[i].text);
		open_fails(path, IMAGE_RDWR, path);
	}
	/* Tables on each other are met when somebody wants to write. */
	make(path, &o);
	patch(40, "\0\0\0\0\0\2\0\0", 8);
	open_fails(path, IMAGE_RDWR, "lies on other metadata");
	/* Marked corrupt: to be read, not written. */
	make(path, &o);
	patch(72, "\0\0\0\0\0\0\0\2", 8);
	image_close(must_open(path, "qcow2", 0), NULL);
	open_fails(path, IMAGE_RDWR, "marked corrupt");
}

/* An L2 entry that points at the L1 table: the guest's write must not get there. */
static void test_entry_over_metadata(void **state)
{
	struct qcow2_create_options o = { .size = 4u << 20, .cluster_bits = 12 };
	static uint8_t data[65536];
	struct err err = ERR_INIT;
	struct image *img;
	uint64_t l1, entry = htobe64(1ull << 63 | 4096);
	int fd;

	some_image(o, data, sizeof(data));
	fd = open(path, O_RDONLY);
	assert_int_equal(pread(fd, &l1, 8, 4096), 8);
	close(fd);
	patch(be64toh(l1) & 0x00fffffffffffe00ull, &entry, 8);
	img = must_open(path, "qcow2", IMAGE_RDWR);
	assert_int_equal(image_write(img, 0, data, 512, &err), -EIO);
	assert_non_null(strstr(err.msg, "where metadata lies"));
	assert_int_equal(image_write(img, 8192, data, 512, NULL), -EIO); /* not any more */
	image_close(img, NULL);
	open_fails(path, IMAGE_RDWR, "marked corrupt");
}

static uint64_t sum(const char *file)
{
	static uint8_t buf[1 << 20];
	uint64_t h = 1469598103934665603ull;
	int fd = open(file, O_RDONLY);
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		for (ssize_t i = 0; i < n; i++)
			h = (h ^ buf[i]) * 1099511628211ull;
	close(fd);
	return h;
}

/* A thousand images with a few wrong bytes in their tables: nothing falls over, and who only reads writes nothing. */
static void test_mutations(void **state)
{
	struct qcow2_create_options o = { .size = 1u << 20, .cluster_bits = 9, .compression = QCOW2_ZLIB };
	static uint8_t data[20000], good_image[200000], buf[65536];
	struct qcow2_check c = { 0 };
	ssize_t len;
	int fd;

	some_image(o, data, sizeof(data));
	fd = open(path, O_RDONLY);
	len = read(fd, good_image, sizeof(good_image));
	close(fd);
	assert_true(len > 20000);
	for (unsigned i = 0; i < 1000; i++) {
		struct image *img;
		uint64_t before;

		seed = i;
		fd = open(path, O_RDWR | O_TRUNC);
		assert_int_equal(write(fd, good_image, len), len);
		for (unsigned n = 1 + rnd(4); n; n--) {
			uint8_t byte = rnd(2) ? rnd(256) : rnd(2) ? 0xff : 0;

			assert_int_equal(pwrite(fd, &byte, 1, rnd(2) ? rnd(112) : rnd(3000)), 1);
		}
		if (rnd(10) == 0)
			assert_int_equal(ftruncate(fd, rnd(len)), 0);
		close(fd);
		before = sum(path);
		img = image_open(path, "qcow2", 0, NULL);
		if (img)
			for (uint64_t at = 0; at < image_size(img) && at < 1u << 20; at += sizeof(buf))
				image_read(img, at, buf, sizeof(buf), NULL);
		image_close(img, NULL);
		img = image_open(path, "qcow2", IMAGE_CHECK, NULL);
		if (img)
			qcow2_check(image_qcow2(img), QCOW2_FIX_NONE, &c, NULL);
		image_close(img, NULL);
		assert_true(before == sum(path));
		img = image_open(path, "qcow2", IMAGE_RDWR | IMAGE_UNSAFE, NULL);
		if (img) {
			image_write(img, 1000, buf, 3000, NULL);
			image_zero(img, 10000, 3000, true, NULL);
			image_write(img, 500000, buf, 3000, NULL);
		}
		image_close(img, NULL);
		img = image_open(path, "qcow2", IMAGE_CHECK | IMAGE_RDWR | IMAGE_UNSAFE, NULL);
		if (img)
			qcow2_check(image_qcow2(img), QCOW2_FIX_ALL, &c, NULL);
		image_close(img, NULL);
	}
}

/* ---- Through block.h -------------------------------------------------------------------- */

static int results[64];
static unsigned left;

static void done(struct block_request *r, int ret)
{
	results[(intptr_t)r->opaque] = ret;
	left--;
}

static void test_block(void **state)
{
	struct qcow2_create_options o = { .size = 4u << 20 };
	struct block_options bo = { .path = path, .fd = -1, .format = "qcow2" };
	struct block_request r[64] = { 0 };
	struct iovec iov[64][2];
	static uint8_t data[64][8192], got[8192];
	struct err err = ERR_INIT;
	struct loop *loop = loop_new(&err);
	struct block_queue *q;
	struct block *b;

	make(path, &o);
	b = block_open(&bo, &err);
	if (!b)
		fail_msg("%s", err_msg(&err));
	assert_int_equal(block_size(b), 4u << 20);
	assert_string_equal(block_format(b), "qcow2");
	q = block_queue_new(b, loop, 16, &err);
	assert_non_null(q);
	for (unsigned i = 0; i < 64; i++) {
		fill(data[i], sizeof(data[i]));
		iov[i][0] = (struct iovec){ data[i], 1000 };
		iov[i][1] = (struct iovec){ data[i] + 1000, 8192 - 1000 };
		r[i] = (struct block_request){ .op = BLOCK_WRITE,
					       .offset = i * 60416,
					       .len = 8192,
					       .iov = iov[i],
					       .niov = 2,
					       .done = done,
					       .opaque = (void *)(intptr_t)i,
					       .fua = i == 5 };
		block_submit(q, &r[i]);
	}
	left = 64;
	block_kick(q);
	block_drain(q);
	assert_int_equal(left, 0);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(results[i], 0);
	/* Out of range, a flush, zeroes, a read. */
	left = 4;
	r[0].offset = 4u << 20;
	r[1] = (struct block_request){ .op = BLOCK_FLUSH, .done = done, .opaque = (void *)1 };
	r[2] = (struct block_request){ .op = BLOCK_WRITE_ZEROES,
				       .unmap = true,
				       .offset = 2 * 60416,
				       .len = 512,
				       .done = done,
				       .opaque = (void *)2 };
	iov[3][0] = (struct iovec){ got, 8192 };
	r[3] = (struct block_request){ .op = BLOCK_READ,
				       .offset = 3 * 60416,
				       .len = 8192,
				       .iov = iov[3],
				       .niov = 1,
				       .done = done,
				       .opaque = (void *)3 };
	for (unsigned i = 0; i < 4; i++)
		block_submit(q, &r[i]);
	block_kick(q);
	block_drain(q);
	assert_int_equal(results[0], -EINVAL);
	assert_int_equal(results[1], 0);
	assert_int_equal(results[2], 0);
	assert_int_equal(results[3], 0);
	assert_memory_equal(got, data[3], 8192);
	block_queue_free(q);
	block_close(b);
	loop_free(loop);
	must_be_clean(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_matrix),
		cmocka_unit_test(test_version_2),
		cmocka_unit_test(test_tables_grow),
		cmocka_unit_test(test_chains),
		cmocka_unit_test(test_discard_gives_space_back),
		cmocka_unit_test(test_repair),
		cmocka_unit_test(test_leaks),
		cmocka_unit_test(test_full_disk),
		cmocka_unit_test(test_kill),
		cmocka_unit_test(test_header_lies),
		cmocka_unit_test(test_entry_over_metadata),
		cmocka_unit_test(test_mutations),
		cmocka_unit_test(test_block),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
