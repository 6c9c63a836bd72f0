/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * 1,000 qcow2 images with lies in their headers and tables, of known fields and of any byte: each is opened for reading
 * and looked at from end to end. It is refused with a sentence that names it, or read; either way not a byte of it
 * changes. 250 of them are then opened for writing and repaired as well, which must end and not crash.
 * KEEL_IMAGES=N takes another number.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "image/qcow2.h"

#define SIZE 300000u

static uint64_t state = 88172645463325252ull;

static uint64_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static uint8_t *good[3];
static size_t good_len[3];

static void make_good(unsigned kind)
{
	const struct qcow2_create_options o[] = {
		{ .size = SIZE, .cluster_bits = 9 },
		{ .size = SIZE, .cluster_bits = 14, .extended_l2 = true, .refcount_bits = 1 },
		{ .size = SIZE, .version = 2, .cluster_bits = 12 },
	};
	static uint8_t data[60000];
	int fd = memfd_create("good", 0);
	struct qcow2 *q;
	struct stat st;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = i / 50;
	assert_int_equal(qcow2_create(fd, "good", &o[kind], NULL), 0);
	q = qcow2_open(dup(fd), "good", IMAGE_RDWR | IMAGE_UNSAFE, NULL, NULL);
	assert_non_null(q);
	assert_int_equal(qcow2_write(q, 3000, data, sizeof(data), NULL), 0);
	assert_int_equal(qcow2_write_compressed(q, 131072, data, 1 << o[kind].cluster_bits, NULL), 0);
	if (kind != 1)
		assert_int_equal(qcow2_snapshot_create(q, "one", NULL), 0);
	if (kind != 2)
		assert_int_equal(qcow2_bitmap_add(q, "bits", 512, true, NULL), 0);
	assert_int_equal(qcow2_write(q, 200000, data, 20000, NULL), 0);
	assert_int_equal(qcow2_zero(q, 10000, 9000, true, NULL), 0);
	assert_int_equal(qcow2_close(q, NULL), 0);
	fstat(fd, &st);
	good_len[kind] = st.st_size;
	good[kind] = malloc(st.st_size);
	assert_int_equal(pread(fd, good[kind], st.st_size, 0), st.st_size);
	close(fd);
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < 8; i++)
		v = v << 8 | p[i];
	return v;
}

static void put(uint8_t *p, unsigned bytes, uint64_t v)
{
	for (unsigned i = 0; i < bytes; i++)
		p[i] = v >> 8 * (bytes - 1 - i);
}

/* Values that have been trouble to somebody: limits, ends, other things' places. */
static uint64_t bad_value(uint64_t was, size_t len)
{
	const uint64_t some[] = { 0, 1, was + 1, was - 1, was << 1, was ^ 1ull << rnd() % 64, ~0ull, 1ull << 63, 1ull << 56, 0x7fffffff,
				  0xffffffff, len, len - 1, len & ~511ull, 512, 1536, rnd() % len & ~511ull, rnd() };

	return some[rnd() % (sizeof(some) / sizeof(some[0]))];
}

/* One lie: in a field of the header, in an entry of a table, or anywhere. */
static void lie(uint8_t *p, size_t len)
{
	static const struct {
		uint8_t at, bytes;
	} fields[] = { { 0, 4 }, { 4, 4 }, { 8, 8 }, { 16, 4 }, { 20, 4 }, { 24, 8 }, { 32, 4 }, { 36, 4 }, { 40, 8 }, { 48, 8 },
		       { 56, 4 }, { 60, 4 }, { 64, 8 }, { 72, 8 }, { 80, 8 }, { 88, 8 }, { 96, 4 }, { 100, 4 }, { 104, 1 },
		       { 112, 4 }, { 116, 4 } };
	static const uint8_t tables[] = { 40, 48, 64 }; /* L1, refcount, snapshots: where they are */
	unsigned what = rnd() % 10, f = rnd() % (sizeof(fields) / sizeof(fields[0]));
	uint64_t at;

	if (what < 4) {
		uint64_t was = get64(p + fields[f].at) >> 8 * (8 - fields[f].bytes);

		put(p + fields[f].at, fields[f].bytes, bad_value(was, len));
		return;
	}
	at = get64(p + tables[rnd() % 3]) + rnd() % 32 * 8;
	if (what < 7 && at + 8 <= len) {
		/* Or an entry of the table that it names. */
		uint64_t next = get64(p + at) & 0x00fffffffffffe00ull;

		if (rnd() % 2 && next && next + 512 <= len)
			at = next + rnd() % 64 * 8;
		put(p + at, 8, bad_value(get64(p + at), len));
		return;
	}
	p[rnd() % len] = rnd();
}

static void look(struct qcow2 *q)
{
	static uint8_t buf[50000];
	uint64_t size = qcow2_size(q) < 2 * SIZE ? qcow2_size(q) : 2 * SIZE;
	struct qcow2_info info;
	struct image_extent e;

	qcow2_get_info(q, &info);
	for (uint64_t at = 0; at < size; at += sizeof(buf))
		qcow2_read(q, at, buf, size - at < sizeof(buf) ? size - at : sizeof(buf), NULL);
	for (uint64_t at = 0; at < size; at += e.len)
		if (qcow2_map(q, at, size - at, &e, NULL))
			break;
}

static void test_lies(void **state_)
{
	const char *n = getenv("KEEL_IMAGES");
	unsigned images = n ? atoi(n) : 1000, refused = 0, opened = 0, repaired = 0;

	for (unsigned i = 0; i < images; i++) {
		unsigned kind = i % 3, lies = 1 + rnd() % 3;
		size_t len = good_len[kind];
		uint8_t *before = malloc(len), *after = malloc(len);
		int fd = memfd_create("image", 0);
		struct qcow2_check c = { 0 };
		struct err err = ERR_INIT;
		struct qcow2 *q;

		memcpy(before, good[kind], len);
		while (lies--)
			lie(before, len);
		assert_int_equal(pwrite(fd, before, len, 0), len);
		/* Cut short, now and then. */
		if (i % 10 == 9) {
			len = rnd() % len;
			assert_int_equal(ftruncate(fd, len), 0);
		}
		q = qcow2_open(dup(fd), "the-image", IMAGE_NO_BACKING, NULL, &err);
		if (q) {
			opened++;
			look(q);
			qcow2_close(q, NULL);
		} else {
			refused++;
			if (!strstr(err_msg(&err), "the-image") || strlen(err_msg(&err)) < 20)
				fail_msg("image %u: '%s'", i, err_msg(&err));
		}
		assert_int_equal(lseek(fd, 0, SEEK_END), len);
		assert_int_equal(pread(fd, after, len, 0), len);
		assert_memory_equal(before, after, len);
		q = i % 4 ? NULL : qcow2_open(dup(fd), "the-image", IMAGE_NO_BACKING | IMAGE_CHECK | IMAGE_RDWR | IMAGE_UNSAFE, NULL, NULL);
		if (q) {
			repaired += !qcow2_check(q, QCOW2_FIX_ALL, &c, NULL);
			qcow2_close(q, NULL);
		}
		close(fd);
		free(before);
		free(after);
	}
	print_message("%u images: %u refused, %u read, %u repaired\n", images, refused, opened, repaired);
	/* Lies that nobody sees, or that let nothing open, would prove nothing. */
	assert_true(refused > images / 5 && opened > images / 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_lies) };

	for (unsigned kind = 0; kind < 3; kind++)
		make_good(kind);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
