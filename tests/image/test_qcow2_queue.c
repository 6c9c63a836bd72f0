/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Two queues in two threads at work on one qcow2 image, while a third makes, applies and deletes snapshots. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/block_int.h"
#include "image/qcow2.h"

#define HALF (2u << 20) /* each thread's part of the disk */
#define UNIT 4096u
#define UNITS (HALF / UNIT)
#define DEPTH 24u
#define MOST 16u /* units in a request */

static char path[64];

struct worker {
	struct block *b;
	enum queue_backend backend;
	struct loop *loop;
	struct block_queue *q;
	pthread_t thread;
	uint64_t seed, base, cluster;
	unsigned left, inflight;
	uint8_t *model;
	bool busy[UNITS];
	char wrong[200];
	struct slot {
		struct worker *w;
		struct block_request r;
		struct iovec iov[2];
		uint8_t *buf;
		unsigned first, n;
	} slot[DEPTH];
};

static uint32_t rnd(struct worker *w, uint32_t n)
{
	w->seed = w->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(w->seed >> 33) % n;
}

static void ended(struct block_request *r, int ret);

/* A request for units that no other is using. */
static bool send_one(struct worker *w, struct slot *s)
{
	unsigned what = rnd(w, 12), per = w->cluster / UNIT, split;
	size_t len;

	s->first = rnd(w, UNITS);
	s->n = 1 + rnd(w, rnd(w, 3) ? 2 : MOST);
	if (what < 2 && per > 1) { /* whole clusters */
		s->first = s->first / per * per;
		s->n = per;
	}
	if (s->first + s->n > UNITS)
		return false;
	for (unsigned i = 0; i < s->n; i++)
		if (w->busy[s->first + i])
			return false;
	for (unsigned i = 0; i < s->n; i++)
		w->busy[s->first + i] = true;
	len = (size_t)s->n * UNIT;
	s->r = (struct block_request){
		.offset = w->base + (uint64_t)s->first * UNIT, .len = len, .done = ended, .opaque = s
	};
	split = rnd(w, 4) ? len : 512 * (1 + rnd(w, len / 512 - 1));
	s->iov[0] = (struct iovec){ s->buf, split };
	s->iov[1] = (struct iovec){ s->buf + split, len - split };
	s->r.iov = s->iov;
	s->r.niov = split < len ? 2 : 1;
	if (what == 0) {
		s->r.op = BLOCK_DISCARD;
	} else if (what == 1) {
		s->r.op = BLOCK_WRITE_ZEROES;
		s->r.unmap = rnd(w, 2);
	} else if (what < 7) {
		s->r.op = BLOCK_READ;
	} else {
		s->r.op = BLOCK_WRITE;
		s->r.fua = !rnd(w, 8);
		for (size_t i = 0; i < len; i++)
			s->buf[i] = w->seed >> (i % 7 * 8) ^ i >> 9;
		memcpy(w->model + (size_t)s->first * UNIT, s->buf, len);
	}
	if (what == 1 || (what == 0 && w->cluster <= len))
		memset(w->model + (size_t)s->first * UNIT, 0, len);
	w->left--;
	w->inflight++;
	block_submit(w->q, &s->r);
	return true;
}

static void send_more(struct worker *w, struct slot *s)
{
	for (unsigned tries = 0; w->left && tries < 100; tries++)
		if (send_one(w, s))
			return;
}

static void ended(struct block_request *r, int ret)
{
	struct slot *s = r->opaque;
	struct worker *w = s->w;

	if (ret && !w->wrong[0])
		snprintf(w->wrong, sizeof(w->wrong), "operation %d at %llu: %d", r->op, (unsigned long long)r->offset,
			 ret);
	if (r->op == BLOCK_READ && memcmp(s->buf, w->model + (size_t)s->first * UNIT, r->len) && !w->wrong[0])
		snprintf(w->wrong, sizeof(w->wrong), "%llu bytes at %llu are wrong", (unsigned long long)r->len,
			 (unsigned long long)r->offset);
	for (unsigned i = 0; i < s->n; i++)
		w->busy[s->first + i] = false;
	w->inflight--;
	send_more(w, s);
	block_kick(w->q);
	if (!w->inflight)
		loop_quit(w->loop, 0);
}

static void begin(void *opaque)
{
	struct worker *w = opaque;

	w->q = queue_new(w->b, w->loop, DEPTH, w->backend, NULL);
	for (unsigned i = 0; i < DEPTH; i++)
		send_more(w, &w->slot[i]);
	block_kick(w->q);
}

static void *work(void *opaque)
{
	struct worker *w = opaque;

	loop_post(w->loop, begin, w);
	loop_run(w->loop);
	block_queue_free(w->q);
	return NULL;
}

struct snapper {
	struct block *b;
	pthread_t thread;
	unsigned made;
	bool stop;
	struct err err;
};

static void *snap(void *opaque)
{
	struct snapper *s = opaque;
	struct qcow2_info i;

	while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED) && !s->err.code) {
		qcow2_get_info(s->b->qcow2, &i);
		if (i.snapshots > 3)
			qcow2_snapshot_delete(s->b->qcow2, s->made % 3, &s->err);
		else
			qcow2_snapshot_create(s->b->qcow2, "s", &s->err);
		s->made++;
		usleep(2000);
	}
	return NULL;
}

static void must_be_clean(void)
{
	struct err err = ERR_INIT;
	struct qcow2_check c = { 0 };
	struct image *img = image_open(path, "qcow2", IMAGE_CHECK, &err);

	if (!img || qcow2_check(image_qcow2(img), QCOW2_FIX_NONE, &c, &err))
		fail_msg("%s", err_msg(&err));
	assert_int_equal(c.corruptions, 0);
	assert_int_equal(c.leaks, 0);
	image_close(img, NULL);
}

static void at_work(const struct qcow2_create_options *o, enum block_cache cache, enum queue_backend backend,
		    unsigned requests, uint64_t seed)
{
	struct block_options bo = { .path = path, .fd = -1, .format = "qcow2", .cache = cache };
	struct worker *w = calloc(2, sizeof(*w));
	struct snapper s = { 0 };
	struct err err = ERR_INIT;
	uint8_t *got = malloc(HALF);
	struct image *img;
	int fd = open(path, O_RDWR | O_TRUNC);

	assert_false(qcow2_create(fd, path, o, &err));
	close(fd);
	s.b = block_open(&bo, &err);
	if (!s.b)
		fail_msg("%s", err_msg(&err));
	for (unsigned i = 0; i < 2; i++) {
		w[i] = (struct worker){ .b = s.b,
					.backend = backend,
					.loop = loop_new(NULL),
					.seed = seed + i,
					.base = i * HALF,
					.cluster = 1ull << o->cluster_bits,
					.left = requests,
					.model = calloc(1, HALF) };
		for (unsigned j = 0; j < DEPTH; j++) {
			w[i].slot[j].w = &w[i];
			w[i].slot[j].buf = aligned_alloc(4096, MOST * UNIT > w[i].cluster ? MOST * UNIT : w[i].cluster);
		}
		pthread_create(&w[i].thread, NULL, work, &w[i]);
	}
	pthread_create(&s.thread, NULL, snap, &s);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(w[i].thread, NULL);
	__atomic_store_n(&s.stop, true, __ATOMIC_RELAXED);
	pthread_join(s.thread, NULL);
	block_close(s.b);
	if (s.err.code)
		fail_msg("%s", err_msg(&s.err));
	assert_true(s.made > 0);
	img = image_open(path, "qcow2", 0, NULL);
	for (unsigned i = 0; i < 2; i++) {
		if (w[i].wrong[0])
			fail_msg("%s", w[i].wrong);
		assert_int_equal(w[i].left, 0);
		assert_false(image_read(img, w[i].base, got, HALF, NULL));
		assert_memory_equal(got, w[i].model, HALF);
		for (unsigned j = 0; j < DEPTH; j++)
			free(w[i].slot[j].buf);
		free(w[i].model);
		loop_free(w[i].loop);
	}
	image_close(img, NULL);
	must_be_clean();
	free(got);
	free(w);
}

static void test_at_work(void **state)
{
	static const struct qcow2_create_options shapes[] = {
		{ .size = 2 * HALF, .cluster_bits = 16 },
		{ .size = 2 * HALF, .cluster_bits = 12 },
		{ .size = 2 * HALF, .cluster_bits = 17, .extended_l2 = true },
	};
	static const enum block_cache caches[] = { BLOCK_CACHE_WRITEBACK, BLOCK_CACHE_NONE, BLOCK_CACHE_UNSAFE };
	int fd;

	strcpy(path, "/tmp/keel-queue-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	for (unsigned i = 0; i < 3; i++)
		for (unsigned c = 0; c < 3; c++)
			at_work(&shapes[i], caches[c], (i + c) % 3 == 2 ? QUEUE_POOL : QUEUE_AUTO, 400, i * 10 + c + 1);
	unlink(path);
}

/* ---- Resizing in the loop where requests are on their way --------------------------------- */

static unsigned ends;

static void count_end(struct block_request *r, int ret)
{
	assert_int_equal(ret, 0);
	ends++;
}

struct resizing {
	struct block *b;
	struct block_queue *q;
	struct loop *loop;
	struct block_request r[8];
	struct iovec iov;
	int ret;
	unsigned before;
};

static void resize_now(void *opaque)
{
	struct resizing *z = opaque;

	for (unsigned i = 0; i < 8; i++) {
		z->r[i] = (struct block_request){ .op = i & 1 ? BLOCK_WRITE : BLOCK_READ,
						  .len = UNIT,
						  .iov = &z->iov,
						  .niov = 1,
						  .done = count_end };
		block_submit(z->q, &z->r[i]);
	}
	block_kick(z->q);
	z->ret = block_resize(z->b, 4 * HALF, NULL);
	z->before = ends; /* done() comes later, never from inside */
}

static void look(void *opaque)
{
	struct resizing *z = opaque;

	if (ends == 8)
		loop_quit(z->loop, 0);
	else
		loop_post(z->loop, look, z);
}

static void test_resize_under_way(void **state)
{
	struct qcow2_create_options o = { .size = 2 * HALF };
	struct block_options bo = { .path = path, .fd = -1, .format = "qcow2" };
	static uint8_t buf[UNIT];
	struct resizing z = { .loop = loop_new(NULL), .iov = { buf, UNIT }, .ret = 1 };
	struct qcow2 *q;
	int fd;

	strcpy(path, "/tmp/keel-queue-XXXXXX");
	fd = mkstemp(path);
	assert_false(qcow2_create(fd, path, &o, NULL));
	close(fd);
	z.b = block_open(&bo, NULL);
	q = z.b->qcow2;
	assert_false(qcow2_write(q, 0, buf, UNIT, NULL)); /* so that the requests take the short way */
	z.q = block_queue_new(z.b, z.loop, 8, NULL);
	loop_post(z.loop, resize_now, &z);
	loop_post(z.loop, look, &z);
	loop_run(z.loop);
	assert_int_equal(z.ret, 0);
	assert_int_equal(z.before, 0);
	assert_int_equal(block_size(z.b), 4 * HALF);
	block_queue_free(z.q);
	block_close(z.b);
	loop_free(z.loop);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_at_work),
		cmocka_unit_test(test_resize_under_way),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
