/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Limits by a clock of the test's own, and on queues by the real one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/block.h"
#include "image/throttle.h"

#define SECOND 1000000000ull

/* How many requests start within so many seconds, if there is always one that waits. */
static unsigned started(struct throttle *t, bool write, uint64_t bytes, uint64_t from, unsigned seconds)
{
	uint64_t now = from;
	unsigned n = 0;

	while (now < from + seconds * SECOND) {
		uint64_t start = throttle_reserve(t, write, bytes, now);

		assert_true(start >= now);
		now = start;
		n += now < from + seconds * SECOND;
	}
	return n;
}

static void test_rates(void **state)
{
	struct throttle *t = throttle_get(NULL);
	struct throttle_limits l = { .kind[IOPS_TOTAL].avg = 100 };

	throttle_set(t, &l);
	/* A tenth of a second's worth at once, and one that starts when the bucket is just full. */
	assert_in_range(started(t, false, 4096, SECOND, 10), 1010, 1012);
	/* Reads and writes together. */
	throttle_set(t, &l);
	assert_in_range(started(t, false, 512, 20 * SECOND, 1) + started(t, true, 512, 21 * SECOND, 1), 209, 213);
	/* Bytes, of one direction only. */
	l = (struct throttle_limits){ .kind[BPS_WRITE].avg = 1 << 20 };
	throttle_set(t, &l);
	assert_in_range(started(t, true, 65536, 30 * SECOND, 8), 8 * 16 + 1, 8 * 16 + 3);
	assert_int_equal(throttle_reserve(t, false, 1 << 30, 40 * SECOND), 40 * SECOND);
	/* Large requests count as several. */
	l = (struct throttle_limits){ .kind[IOPS_READ].avg = 100, .iops_size = 4096 };
	throttle_set(t, &l);
	assert_in_range(started(t, false, 40960, 50 * SECOND, 10), 100, 102);
	assert_int_equal(throttle_reserve(t, true, 40960, 60 * SECOND), 60 * SECOND);
	/* After a rest the bucket is empty, not more. */
	assert_in_range(started(t, false, 4096, 90 * SECOND, 1), 109, 112);
	throttle_put(t);
}

static void test_bursts(void **state)
{
	struct throttle *t = throttle_get(NULL);
	struct throttle_limits l = { .kind[IOPS_TOTAL] = { .avg = 100, .max = 1000, .length = 3 } };
	unsigned first;

	throttle_set(t, &l);
	/* 1000 a second until the bucket has 3000 in it, from which 100 a second leak. */
	first = started(t, false, 512, SECOND, 3);
	assert_in_range(first, 3000, 3110);
	assert_in_range(started(t, false, 512, 4 * SECOND, 10), 1180, 1320);
	assert_in_range(started(t, false, 512, 14 * SECOND, 10), 995, 1005);
	/* A length of one: all of it at once. */
	l = (struct throttle_limits){ .kind[IOPS_TOTAL] = { .avg = 100, .max = 500 } };
	throttle_set(t, &l);
	for (unsigned i = 0; i < 500; i++)
		assert_int_equal(throttle_reserve(t, false, 512, 30 * SECOND), 30 * SECOND);
	throttle_put(t);
}

static void refused(const struct throttle_limits *l, const char *text)
{
	struct err err = ERR_INIT;

	assert_int_equal(throttle_check(l, &err), -EINVAL);
	if (!strstr(err.msg, text))
		fail_msg("'%s' lacks '%s'", err.msg, text);
}

static void test_refusals(void **state)
{
	refused(&(struct throttle_limits){ .kind[BPS_TOTAL].avg = 1, .kind[BPS_READ].avg = 1 },
		"bps-total cannot be limited together");
	refused(&(struct throttle_limits){ .kind[IOPS_TOTAL].avg = 1, .kind[IOPS_WRITE].avg = 1 }, "iops-total cannot");
	refused(&(struct throttle_limits){ .kind[BPS_READ].max = 1 }, "bps-read-max needs bps-read");
	refused(&(struct throttle_limits){ .kind[BPS_READ] = { .avg = 10, .max = 9 } }, "cannot be lower");
	refused(&(struct throttle_limits){ .kind[BPS_READ] = { .avg = 10, .length = 9 } }, "needs bps-read-max");
	refused(&(struct throttle_limits){ .kind[BPS_READ].avg = UINT64_MAX }, "at most");
	refused(&(struct throttle_limits){ .kind[BPS_READ] = { .avg = 1, .max = 1u << 31, .length = UINT64_MAX } },
		"too long");
	refused(&(struct throttle_limits){ .iops_size = 4096 }, "iops-size");
	assert_int_equal(
		throttle_check(&(struct throttle_limits){ .kind[BPS_TOTAL].avg = 1, .kind[IOPS_READ].avg = 1 }, NULL),
		0);
}

static void test_groups(void **state)
{
	struct throttle *a = throttle_get("a"), *b = throttle_get("b"), *again = throttle_get("a");

	assert_ptr_equal(a, again);
	assert_ptr_not_equal(a, b);
	assert_string_equal(throttle_name(a), "a");
	throttle_put(a);
	throttle_set(again, &(struct throttle_limits){ .kind[IOPS_TOTAL].avg = 10 });
	throttle_put(again);
	throttle_put(b);
	/* Gone with its last member. */
	a = throttle_get("a");
	assert_int_equal(throttle_reserve(a, false, 1, 5), 5);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(throttle_reserve(a, false, 1, 5), 5);
	throttle_put(a);
}

/* ---- On queues ---------------------------------------------------------------------------- */

struct disk {
	struct block *b;
	struct block_queue *q;
	struct loop *loop;
	struct block_request r[64];
	struct iovec iov;
	unsigned reads, writes, quit_at;
};

static char path[64];
static uint8_t buf[4096];

static void counted(struct block_request *r, int ret)
{
	struct disk *d = r->opaque;

	assert_int_equal(ret, 0);
	d->reads += r->op == BLOCK_READ;
	d->writes += r->op == BLOCK_WRITE;
	if (d->reads + d->writes == d->quit_at)
		loop_quit(d->loop, 0);
}

static void open_disk(struct disk *d, struct loop *loop)
{
	struct block_options o = { .path = path, .fd = -1, .format = "raw" };
	int fd;

	strcpy(path, "/tmp/keel-throttle-XXXXXX");
	fd = mkstemp(path);
	assert_false(ftruncate(fd, 1 << 20));
	close(fd);
	*d = (struct disk){ .b = block_open(&o, NULL), .loop = loop, .iov = { buf, sizeof(buf) } };
	d->q = block_queue_new(d->b, loop, 64, NULL);
	unlink(path);
}

static void close_disk(struct disk *d)
{
	block_queue_free(d->q);
	block_close(d->b);
}

static void send(struct disk *d, unsigned from, unsigned n, enum block_op op)
{
	for (unsigned i = from; i < from + n; i++) {
		d->r[i] = (struct block_request){ .op = op,
						  .offset = i * sizeof(buf),
						  .len = sizeof(buf),
						  .iov = &d->iov,
						  .niov = 1,
						  .done = counted,
						  .opaque = d };
		block_submit(d->q, &d->r[i]);
	}
	block_kick(d->q);
}

static double seconds_since(uint64_t begin)
{
	return (monotonic_ns() - begin) / 1e9;
}

static void test_queue(void **state)
{
	struct throttle_limits l = { .kind[IOPS_WRITE].avg = 100 }, got;
	struct loop *loop = loop_new(NULL);
	const char *group;
	struct disk d;
	uint64_t begin;

	open_disk(&d, loop);
	assert_false(block_get_throttle(d.b, &got, &group));
	assert_int_equal(block_set_throttle(d.b, NULL, &l, NULL), 0);
	assert_true(block_get_throttle(d.b, &got, &group));
	assert_null(group);
	assert_memory_equal(&got, &l, sizeof(l));
	/* 11 writes at once, 9 more take 0.09 s; reads wait for nobody. */
	begin = monotonic_ns();
	send(&d, 0, 20, BLOCK_WRITE);
	send(&d, 20, 30, BLOCK_READ);
	d.quit_at = 30;
	loop_run(loop);
	assert_true(d.reads >= 19);
	d.quit_at = 50;
	loop_run(loop);
	assert_true(seconds_since(begin) > 0.075);
	/* Draining is not held up. */
	l.kind[IOPS_WRITE].avg = 1;
	assert_int_equal(block_set_throttle(d.b, NULL, &l, NULL), 0);
	begin = monotonic_ns();
	d.quit_at = 0;
	send(&d, 0, 20, BLOCK_WRITE);
	block_drain(d.q);
	assert_int_equal(d.writes, 40);
	assert_true(seconds_since(begin) < 5);
	close_disk(&d);
	loop_free(loop);
}

static void lift(void *opaque)
{
	struct disk *d = opaque;

	assert_int_equal(d->writes, 1);
	assert_int_equal(block_set_throttle(d->b, NULL, NULL, NULL), 0);
}

static void test_lifted(void **state)
{
	struct throttle_limits l = { .kind[IOPS_TOTAL].avg = 1 };
	struct loop *loop = loop_new(NULL);
	struct timer *t;
	struct disk d;
	uint64_t begin = monotonic_ns();

	open_disk(&d, loop);
	assert_int_equal(block_set_throttle(d.b, NULL, &l, NULL), 0);
	send(&d, 0, 40, BLOCK_WRITE); /* 39 of them for 39 seconds */
	d.quit_at = 40;
	t = timer_new(loop, lift, &d);
	timer_arm(t, begin + SECOND / 20);
	loop_run(loop);
	assert_true(seconds_since(begin) < 20);
	timer_free(t);
	close_disk(&d);
	loop_free(loop);
}

static void test_group_on_queues(void **state)
{
	struct throttle_limits l = { .kind[IOPS_TOTAL].avg = 200 };
	struct loop *loop = loop_new(NULL);
	const char *group;
	struct disk a, b;
	uint64_t begin;

	open_disk(&a, loop);
	open_disk(&b, loop);
	assert_int_equal(block_set_throttle(a.b, "both", &l, NULL), 0);
	assert_int_equal(block_set_throttle(b.b, "both", &l, NULL), 0);
	assert_true(block_get_throttle(b.b, &l, &group));
	assert_string_equal(group, "both");
	begin = monotonic_ns();
	send(&a, 0, 40, BLOCK_WRITE);
	send(&b, 0, 40, BLOCK_WRITE);
	a.quit_at = 40;
	b.quit_at = 0;
	loop_run(loop); /* the first one's end: by then the other has come nearly as far */
	assert_true(b.writes >= 15);
	if (b.writes < 40) {
		b.quit_at = 40;
		loop_run(loop);
	}
	/* 80, of which 21 at once. */
	assert_true(seconds_since(begin) > 0.25);
	close_disk(&a);
	close_disk(&b);
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rates),		cmocka_unit_test(test_bursts), cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_groups),		cmocka_unit_test(test_queue),  cmocka_unit_test(test_lifted),
		cmocka_unit_test(test_group_on_queues),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
