/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a qcow2 file is worth at any moment. A recorder takes down every access
 * to the file; a crash is then any beginning of that record, of which what came
 * after the last wait for the disk arrived in part, in sectors. And accesses
 * fail, one after the other.
 *
 * KEEL_OPS: operations of the long run (1000); KEEL_CRASHES: crashes a shape (40); KEEL_FAULTS: rounds of failures (4).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/qcow2.h"

#define SIZE 163840u /* of the disk */
#define SECTORS (SIZE / 512)
#define SNAPSHOTS 4u

static uint64_t seed;
static uint32_t rnd(uint32_t n)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(seed >> 33) % n;
}

static unsigned from_env(const char *name, unsigned otherwise)
{
	const char *text = getenv(name);

	return text ? strtoul(text, NULL, 10) : otherwise;
}

static void good(int ret, const struct err *err)
{
	if (ret)
		fail_msg("%d: %s", ret, err_msg(err));
}

/* ---- The record ------------------------------------------------------------------- */

struct access {
	enum qcow2_op op;
	uint64_t offset, len;
	uint8_t *data;
};

struct record {
	int fd;
	struct access *list;
	unsigned n, room;
};

/* In whole sectors, with what the file has around the bytes: nothing smaller reaches a disk. */
static void widen(struct access *a, int fd, const void *buf)
{
	uint64_t from = a->offset & ~511ull, to = (a->offset + a->len + 511) & ~511ull;

	a->data = calloc(1, to - from);
	if (pread(fd, a->data, to - from, from) < 0)
		abort();
	memcpy(a->data + (a->offset - from), buf, a->len);
	a->offset = from;
	a->len = to - from;
}

static int take_down(void *opaque, enum qcow2_op op, uint64_t offset, const void *buf, size_t *len)
{
	struct record *r = opaque;
	struct access a = { op, offset, len ? *len : 0, NULL };

	if (op == QCOW2_OP_READ)
		return 0;
	if (op == QCOW2_OP_WRITE)
		widen(&a, r->fd, buf);
	if (r->n == r->room) {
		r->room = r->room ? 2 * r->room : 256;
		r->list = realloc(r->list, r->room * sizeof(a));
	}
	r->list[r->n++] = a;
	return 0;
}

static void forget(struct record *r)
{
	for (unsigned i = 0; i < r->n; i++)
		free(r->list[i].data);
	free(r->list);
	*r = (struct record){ 0 };
}

static void play(uint8_t *file, uint64_t size, const struct access *a, bool partly)
{
	if (a->op == QCOW2_OP_SYNC)
		return;
	for (uint64_t done = 0, n; done < a->len; done += n) {
		n = 512 - ((a->offset + done) & 511);
		n = n < a->len - done ? n : a->len - done;
		/* A hole may be made where the file has ended already. */
		if ((partly && rnd(2)) || a->offset + done + n > size)
			continue;
		if (a->op == QCOW2_OP_PUNCH)
			memset(file + a->offset + done, 0, n);
		else
			memcpy(file + a->offset + done, a->data + done, n);
	}
}

/* ---- What guests see --------------------------------------------------------------- */

struct model {
	uint8_t disk[SIZE], snapshot[SNAPSHOTS][SIZE];
	unsigned snapshots;
};

static void fill(uint8_t *p, size_t len)
{
	uint32_t kind = rnd(2), word = rnd(1u << 30);

	for (size_t i = 0; i < len; i++)
		p[i] = kind ? word >> (i % 4 * 8) : (word >> i % 24) & 3;
}

/* One random operation on both; 1: it was a flush. The model changes even where the image refuses. */
static int one_op(struct qcow2 *q, struct model *m, uint64_t cluster, bool snapshots, int *ret, struct err *err)
{
	static uint8_t buf[SIZE];
	uint64_t at = rnd(SECTORS) * 512ull, most = SIZE - at, len = 512ull * (1 + rnd(rnd(3) ? 8 : 60)), first, last;
	unsigned what = rnd(snapshots ? 24 : 20);

	len = len < most ? len : most;
	if (rnd(3) == 0) {
		at += rnd(512);
		len = len > 600 ? len - 600 : 1;
	}
	switch (what) {
	case 0:
	case 1:
		*ret = qcow2_zero(q, at, len, rnd(2), err);
		memset(m->disk + at, 0, len);
		return 0;
	case 2:
	case 3:
	case 4:
		first = (at + cluster - 1) / cluster * cluster;
		last = at + len == SIZE ? SIZE : (at + len) / cluster * cluster;
		*ret = qcow2_discard(q, at, len, err);
		if (last > first)
			memset(m->disk + first, 0, last - first);
		return 0;
	case 5:
	case 6:
		*ret = qcow2_flush(q, err);
		return 1;
	case 7:
		at = at / cluster * cluster;
		len = SIZE - at < cluster ? SIZE - at : cluster;
		fill(buf, len);
		*ret = qcow2_write_compressed(q, at, buf, len, err);
		memcpy(m->disk + at, buf, len);
		return 0;
	case 20:
	case 21:
		if (m->snapshots == SNAPSHOTS)
			return 0;
		*ret = qcow2_snapshot_create(q, "s", err);
		memcpy(m->snapshot[m->snapshots++], m->disk, SIZE);
		return 0;
	case 22:
		if (!m->snapshots)
			return 0;
		at = rnd(m->snapshots);
		*ret = qcow2_snapshot_apply(q, at, err);
		memcpy(m->disk, m->snapshot[at], SIZE);
		return 0;
	case 23:
		if (!m->snapshots)
			return 0;
		at = rnd(m->snapshots);
		*ret = qcow2_snapshot_delete(q, at, err);
		m->snapshots--;
		memmove(m->snapshot[at], m->snapshot[at + 1], (m->snapshots - at) * SIZE);
		return 0;
	default:
		fill(buf, len);
		*ret = qcow2_write(q, at, buf, len, err);
		memcpy(m->disk + at, buf, len);
		return 0;
	}
}

static int new_file(const struct qcow2_create_options *o)
{
	struct err err = ERR_INIT;
	int fd = memfd_create("disk", MFD_CLOEXEC);

	good(qcow2_create(fd, "disk", o, &err), &err);
	return fd;
}

static struct qcow2 *reopen(int fd, unsigned flags)
{
	struct err err = ERR_INIT;
	struct qcow2 *q = qcow2_open(dup(fd), "disk", flags | IMAGE_UNSAFE, NULL, &err);

	if (!q)
		fail_msg("%s", err_msg(&err));
	return q;
}

/* ---- Crashes ------------------------------------------------------------------------ */

#define OPS 160u

struct history {
	struct record r;
	struct model *after; /* after so many operations */
	unsigned ends[OPS];  /* of an operation, in the record */
	bool flush[OPS];
};

struct findings {
	unsigned flags, others;
	char last[300];
};

static void found(void *opaque, bool corruption, const char *text)
{
	struct findings *f = opaque;

	if (!corruption)
		return;
	if (strstr(text, "OFLAG_COPIED"))
		f->flags++;
	else
		f->others++;
	snprintf(f->last, sizeof(f->last), "%s", text);
}

/* Is each sector what was flushed last, or something written after that? */
static void compare_sectors(const uint8_t *got, const struct history *h, unsigned from, unsigned to)
{
	for (unsigned s = 0; s < SECTORS; s++) {
		bool known = false;

		for (unsigned i = from; i <= to && !known; i++)
			known = !memcmp(got + s * 512, h->after[i].disk + s * 512, 512);
		if (!known)
			fail_msg("sector %u is nothing that was there between operations %u and %u", s, from, to);
	}
}

static void crash_at(const uint8_t *start, uint64_t file_size, const struct history *h, unsigned at, bool lazy,
		     bool snapshots)
{
	uint8_t *file = calloc(1, file_size), *got = malloc(SIZE), *again = malloc(SIZE);
	unsigned op = 0, flushed = 0, synced = 0;
	struct findings f = { 0 };
	struct qcow2_check c = { .report = found, .opaque = &f };
	struct err err = ERR_INIT;
	int fd = memfd_create("crashed", MFD_CLOEXEC);
	struct qcow2 *q;

	memcpy(file, start, file_size);
	for (unsigned i = 0; i < at; i++)
		if (h->r.list[i].op == QCOW2_OP_SYNC)
			synced = i;
	for (unsigned i = 0; i < at; i++) {
		if (i < synced || rnd(2))
			play(file, file_size, &h->r.list[i], i >= synced && rnd(3) == 0);
	}
	for (; op < OPS && h->ends[op] <= at; op++)
		if (h->flush[op])
			flushed = op + 1;
	assert_int_equal(pwrite(fd, file, file_size, 0), file_size);
	if (!lazy) {
		q = reopen(fd, IMAGE_CHECK);
		good(qcow2_check(q, QCOW2_FIX_NONE, &c, &err), &err);
		if (f.others || (f.flags && !snapshots))
			fail_msg("crash at access %u, in operation %u: %s", at, op, f.last);
		qcow2_close(q, NULL);
	}
	q = reopen(fd, IMAGE_RDWR); /* repairs where refcounts are lazy */
	good(qcow2_read(q, 0, got, SIZE, &err), &err);
	compare_sectors(got, h, flushed, op < OPS ? op + 1 : OPS);
	/* And it goes on from there. */
	fill(got + 5000, 40000);
	good(qcow2_write(q, 5000, got + 5000, 40000, &err), &err);
	good(qcow2_close(q, &err), &err);
	q = reopen(fd, IMAGE_CHECK | IMAGE_RDWR);
	f = (struct findings){ 0 };
	good(qcow2_check(q, QCOW2_FIX_ALL, &c, &err), &err);
	assert_int_equal(f.others, 0);
	assert_int_equal(c.corruptions, 0);
	good(qcow2_read(q, 0, again, SIZE, &err), &err);
	assert_memory_equal(again, got, SIZE);
	qcow2_close(q, NULL);
	close(fd);
	free(file);
	free(got);
	free(again);
}

static void crash_shape(const struct qcow2_create_options *o, bool snapshots)
{
	struct history h = { .after = calloc(OPS + 1, sizeof(struct model)) };
	uint64_t cluster = 1ull << o->cluster_bits;
	unsigned crashes = from_env("KEEL_CRASHES", 40);
	struct err err = ERR_INIT;
	int fd = new_file(o), ret;
	struct qcow2 *q = reopen(fd, IMAGE_RDWR);
	struct stat st;
	uint8_t *start;

	assert_non_null(h.after);
	/* Some of it is there before the record begins. */
	for (unsigned i = 0; i < 30; i++) {
		ret = 0;
		one_op(q, &h.after[0], cluster, snapshots, &ret, &err);
		good(ret, &err);
	}
	good(qcow2_close(q, &err), &err);
	fstat(fd, &st);
	start = calloc(1, 64u << 20);
	assert_int_equal(pread(fd, start, st.st_size, 0), st.st_size);
	q = reopen(fd, IMAGE_RDWR);
	h.r.fd = fd;
	qcow2_set_hook(q, take_down, &h.r);
	for (unsigned i = 0; i < OPS; i++) {
		memcpy(&h.after[i + 1], &h.after[i], sizeof(h.after[i]));
		ret = 0;
		h.flush[i] = one_op(q, &h.after[i + 1], cluster, snapshots, &ret, &err);
		good(ret, &err);
		h.ends[i] = h.r.n;
	}
	qcow2_set_hook(q, NULL, NULL);
	good(qcow2_close(q, &err), &err);
	fstat(fd, &st);
	st.st_size = (st.st_size + 511) & ~511ull;
	for (unsigned i = 0; i < crashes; i++)
		crash_at(start, st.st_size, &h, rnd(h.r.n + 1), o->lazy_refcounts, snapshots);
	forget(&h.r);
	free(h.after);
	free(start);
	close(fd);
}

static const struct qcow2_create_options shapes[] = {
	{ .size = SIZE, .cluster_bits = 9 },
	{ .size = SIZE, .cluster_bits = 12 },
	{ .size = SIZE, .cluster_bits = 9, .refcount_bits = 64 },
	{ .size = SIZE, .cluster_bits = 10, .lazy_refcounts = true },
	{ .size = SIZE, .cluster_bits = 14, .extended_l2 = true },
	{ .size = SIZE, .cluster_bits = 9, .version = 2 },
};
#define N_SHAPES (sizeof(shapes) / sizeof(shapes[0]))

static void test_crash(void **state)
{
	for (unsigned i = 0; i < N_SHAPES; i++) {
		seed = 100 + i;
		crash_shape(&shapes[i], false);
	}
}

static void test_crash_with_snapshots(void **state)
{
	for (unsigned i = 0; i < N_SHAPES; i++) {
		seed = 200 + i;
		crash_shape(&shapes[i], true);
	}
}

/* ---- Failures -------------------------------------------------------------------------- */

struct faults {
	unsigned countdown; /* until one fails */
	int code;	    /* negative errno; 1: only a part is done */
	bool sticky;
	unsigned failed;
};

static int fail_sometimes(void *opaque, enum qcow2_op op, uint64_t offset, const void *buf, size_t *len)
{
	struct faults *f = opaque;

	if (op == QCOW2_OP_PUNCH || !f->countdown || --f->countdown)
		return 0;
	f->countdown = f->sticky ? 1 : 0;
	if (f->code == 1) {
		if (len && *len > 1)
			*len = 1 + rnd(*len - 1);
		return 0;
	}
	/* A full disk is met by writers only. */
	if (f->code == -ENOSPC && op != QCOW2_OP_WRITE)
		return 0;
	f->failed++;
	return f->code;
}

/* Bytes that a failed operation may have changed or not are free to be either. */
static void compare_loosely(struct qcow2 *q, const struct model *m, const uint8_t *unsure)
{
	static uint8_t got[SIZE];
	struct err err = ERR_INIT;

	good(qcow2_read(q, 0, got, SIZE, &err), &err);
	for (unsigned i = 0; i < SIZE; i++)
		if (got[i] != m->disk[i] && !unsure[i])
			fail_msg("byte %u is %#x, not %#x", i, got[i], m->disk[i]);
}

static unsigned fail_shape(const struct qcow2_create_options *o, int code, bool sticky)
{
	static struct model m, before;
	static uint8_t unsure[SIZE];
	uint64_t cluster = 1ull << o->cluster_bits;
	struct faults f = { .code = code, .sticky = sticky };
	struct findings found_there = { 0 };
	struct qcow2_check c = { .report = found, .opaque = &found_there };
	struct err err = ERR_INIT;
	int fd = new_file(o), ret;
	struct qcow2 *q = reopen(fd, IMAGE_RDWR);

	memset(&m, 0, sizeof(m));
	memset(unsure, 0, sizeof(unsure));
	qcow2_set_hook(q, fail_sometimes, &f);
	for (unsigned i = 0; i < 150; i++) {
		unsigned failed = f.failed;

		if (!f.countdown && rnd(2))
			f.countdown = 1 + rnd(40);
		else if (sticky && rnd(8) == 0)
			f.countdown = 0;
		err = ERR_INIT;
		before = m;
		ret = 0;
		one_op(q, &m, cluster, false, &ret, &err);
		if (ret && f.failed == failed)
			fail_msg("it failed by itself: %s", err_msg(&err));
		for (unsigned s = 0; s < SIZE; s++)
			if (m.disk[s] != before.disk[s])
				unsure[s] = ret != 0;
	}
	f.countdown = 0;
	compare_loosely(q, &m, unsure);
	err = ERR_INIT;
	good(qcow2_flush(q, &err), &err);
	good(qcow2_close(q, &err), &err);
	q = reopen(fd, IMAGE_RDWR);
	compare_loosely(q, &m, unsure);
	good(qcow2_close(q, &err), &err);
	q = reopen(fd, IMAGE_CHECK);
	good(qcow2_check(q, QCOW2_FIX_NONE, &c, &err), &err);
	if (c.corruptions)
		fail_msg("%s", found_there.last);
	qcow2_close(q, NULL);
	close(fd);
	return f.failed;
}

static void test_faults(void **state)
{
	static const int codes[] = { -EIO, -ENOSPC, 1 };
	unsigned failed = 0;

	for (unsigned round = 0; round < from_env("KEEL_FAULTS", 4); round++)
		for (unsigned i = 0; i < N_SHAPES; i++)
			for (unsigned c = 0; c < 3; c++) {
				seed = 1000 * round + 10 * i + c;
				failed += fail_shape(&shapes[i], codes[c], false);
				failed += fail_shape(&shapes[i], codes[c], codes[c] != 1);
			}
	assert_true(failed > 100);
}

/* ---- The long run ------------------------------------------------------------------------ */

static void test_random_operations(void **state)
{
	unsigned ops = from_env("KEEL_OPS", 1000);
	static struct model m;
	struct err err = ERR_INIT;

	for (unsigned i = 0; i < N_SHAPES; i++) {
		static uint8_t got[SIZE];
		int fd = new_file(&shapes[i]), ret;
		struct qcow2 *q = reopen(fd, IMAGE_RDWR);

		memset(&m, 0, sizeof(m));
		seed = 300 + i;
		for (unsigned n = 0; n < ops; n++) {
			ret = 0;
			one_op(q, &m, 1ull << shapes[i].cluster_bits, true, &ret, &err);
			good(ret, &err);
			if (rnd(10) == 0) {
				good(qcow2_read(q, 0, got, SIZE, &err), &err);
				assert_memory_equal(got, m.disk, SIZE);
			}
			if (rnd(30) == 0) {
				struct findings f = { 0 };
				struct qcow2_check c = { .report = found, .opaque = &f };

				good(qcow2_close(q, &err), &err);
				q = reopen(fd, IMAGE_CHECK);
				good(qcow2_check(q, QCOW2_FIX_NONE, &c, &err), &err);
				if (c.corruptions || c.leaks)
					fail_msg("after %u operations: %u leaks; %s", n, (unsigned)c.leaks, f.last);
				qcow2_close(q, NULL);
				q = reopen(fd, IMAGE_RDWR);
			}
		}
		for (unsigned s = 0; s < m.snapshots; s++) {
			good(qcow2_snapshot_apply(q, s, &err), &err);
			good(qcow2_read(q, 0, got, SIZE, &err), &err);
			assert_memory_equal(got, m.snapshot[s], SIZE);
		}
		good(qcow2_close(q, &err), &err);
		close(fd);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crash),
		cmocka_unit_test(test_crash_with_snapshots),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_random_operations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
