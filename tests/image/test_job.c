/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Jobs while a thread writes. Each unit of 4 KiB carries its number and a
 * version; a version that was acknowledged (and flushed, where the process is
 * killed) must never be lost, one that was not sent must never be seen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image/block_graph.h"
#include "image/dirty.h"
#include "image/job.h"
#include "image/qcow2.h"

#define SIZE (8u << 20)
#define UNIT 4096u
#define UNITS (SIZE / UNIT)
#define DEPTH 8u

static char dir[64], wrong[128];

/* ---- Images ---------------------------------------------------------------------------- */

static const char *in_dir(const char *name)
{
	static char path[8][128];
	static unsigned i;

	i = (i + 1) % 8;
	snprintf(path[i], sizeof(path[i]), "%s/%s", dir, name);
	return path[i];
}

static void make_qcow2(const char *name, const char *backing, unsigned cluster_bits)
{
	struct qcow2_create_options o = { .size = SIZE,
					  .backing = backing,
					  .backing_format = backing ? "qcow2" : NULL,
					  .cluster_bits = cluster_bits };
	struct err err = ERR_INIT;
	int fd = open(in_dir(name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	if (qcow2_create(fd, in_dir(name), &o, &err))
		fail_msg("%s", err_msg(&err));
	close(fd);
}

static void make_raw(const char *name)
{
	int fd = open(in_dir(name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	close(fd);
}

static struct block *open_block(const char *name, const char *format)
{
	struct block_options o = { .path = in_dir(name), .fd = -1, .format = format };
	struct err err = ERR_INIT;
	struct block *b = block_open(&o, &err);

	if (!b)
		fail_msg("%s", err_msg(&err));
	return b;
}

/* ---- Units ------------------------------------------------------------------------------- */

struct versions {
	uint32_t sent[UNITS], acked[UNITS], flushed[UNITS];
	uint32_t moment; /* for the child that is killed: 1: pivoted */
};

static void fill(uint8_t *buf, unsigned unit, uint32_t version)
{
	uint32_t *w = (uint32_t *)buf;

	for (unsigned i = 0; i < UNIT / 4; i++)
		w[i] = version ? (i & 1 ? unit : version) : 0;
}

/* The version that a unit has; UINT32_MAX: it is torn or another's. */
static uint32_t version_of(const uint8_t *buf, unsigned unit)
{
	const uint32_t *w = (const uint32_t *)buf;

	for (unsigned i = 0; i < UNIT / 4; i++)
		if (w[i] != (w[0] ? (i & 1 ? unit : w[0]) : 0))
			return UINT32_MAX;
	return w[0];
}

static int read_unit(const char *path, unsigned unit, uint8_t *buf, struct image **img)
{
	struct err err = ERR_INIT;

	if (!*img)
		*img = image_open(path, NULL, IMAGE_NO_LOCK, &err);
	if (!*img)
		print_error("%s\n", err_msg(&err));
	return *img ? image_read(*img, (uint64_t)unit * UNIT, buf, UNIT, NULL) : -EIO;
}

/* True: each unit's version lies between these. */
static bool has(const char *name, const uint32_t *least, const uint32_t *most)
{
	uint8_t buf[UNIT] __attribute__((aligned(8)));
	struct image *img = NULL;
	bool good = true;

	for (unsigned i = 0; good && i < UNITS; i++) {
		uint32_t v = read_unit(in_dir(name), i, buf, &img) ? UINT32_MAX : version_of(buf, i);

		good = v != UINT32_MAX && v >= least[i] && v <= most[i];
		if (!good)
			snprintf(wrong, sizeof(wrong), "unit %u of %s has version %u, not from %u to %u", i, name, v,
				 least[i], most[i]);
	}
	image_close(img, NULL);
	return good;
}

/* As QEMU sees it; clusters that nobody uses (3) are what a kill may leave. */
static bool is_sound(const char *name)
{
	char command[300];
	int status;

	snprintf(command, sizeof(command), "qemu-img check -U -q -f qcow2 %s >/dev/null 2>&1", in_dir(name));
	status = system(command);
	return !status || WEXITSTATUS(status) == 3;
}

/* ---- The writer --------------------------------------------------------------------------- */

struct writer {
	struct block *b;
	struct loop *loop;
	struct block_queue *q;
	pthread_t thread;
	struct versions *v;
	uint64_t seed;
	bool stop;
	unsigned inflight, ended, pace;
	struct timer *timer;
	bool busy[UNITS];
	struct block_request flush;
	bool flushing;
	uint32_t then[UNITS]; /* acknowledged before the flush */
	struct slot {
		struct writer *w;
		struct block_request r;
		struct iovec iov;
		uint8_t *buf;
		unsigned unit;
		bool used;
	} slot[DEPTH];
};

static uint32_t rnd(uint64_t *seed, uint32_t n)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(*seed >> 33) % n;
}

static void written(struct block_request *r, int ret);

static void write_one(struct writer *w, struct slot *s)
{
	do
		s->unit = rnd(&w->seed, 4) ? rnd(&w->seed, UNITS / 8) : rnd(&w->seed, UNITS);
	while (w->busy[s->unit]);
	w->busy[s->unit] = s->used = true;
	fill(s->buf, s->unit, ++w->v->sent[s->unit]);
	s->iov = (struct iovec){ s->buf, UNIT };
	s->r = (struct block_request){ .op = BLOCK_WRITE,
				       .offset = (uint64_t)s->unit * UNIT,
				       .len = UNIT,
				       .iov = &s->iov,
				       .niov = 1,
				       .done = written,
				       .opaque = s };
	w->inflight++;
	block_submit(w->q, &s->r);
}

static void written(struct block_request *r, int ret)
{
	struct slot *s = r->opaque;
	struct writer *w = s->w;

	if (ret)
		abort(); /* nothing is injected on this side */
	__atomic_store_n(&w->v->acked[s->unit], w->v->sent[s->unit], __ATOMIC_RELEASE);
	w->busy[s->unit] = s->used = false;
	__atomic_add_fetch(&w->ended, 1, __ATOMIC_RELAXED);
	if (!--w->inflight && __atomic_load_n(&w->stop, __ATOMIC_ACQUIRE))
		loop_quit(w->loop, 0);
}

static void flushed(struct block_request *r, int ret)
{
	struct writer *w = r->opaque;

	if (ret)
		abort();
	memcpy(w->v->flushed, w->then, sizeof(w->then));
	w->flushing = false;
	if (!--w->inflight && __atomic_load_n(&w->stop, __ATOMIC_ACQUIRE))
		loop_quit(w->loop, 0);
}

static void flush(struct writer *w)
{
	w->flushing = true;
	memcpy(w->then, w->v->acked, sizeof(w->then));
	w->flush = (struct block_request){ .op = BLOCK_FLUSH, .done = flushed, .opaque = w };
	w->inflight++;
	block_submit(w->q, &w->flush);
}

static void go(void *opaque)
{
	struct writer *w = opaque;

	if (__atomic_load_n(&w->stop, __ATOMIC_ACQUIRE)) {
		if (!w->inflight)
			loop_quit(w->loop, 0);
		return;
	}
	for (unsigned i = 0; i < DEPTH; i++)
		if (!w->slot[i].used)
			write_one(w, &w->slot[i]);
	if (!w->flushing && !rnd(&w->seed, 8))
		flush(w);
	block_kick(w->q);
	timer_arm(w->timer, monotonic_ns() + w->pace * 1000ull);
}

static void *write_on(void *opaque)
{
	struct writer *w = opaque;

	timer_arm(w->timer, 0);
	loop_run(w->loop);
	return NULL;
}

static void writer_start(struct writer *w, struct block *b, struct versions *v, unsigned pace)
{
	w->b = b;
	w->v = v;
	w->seed = w->seed ? w->seed : 42;
	w->pace = pace;
	w->stop = w->flushing = false;
	memset(w->busy, 0, sizeof(w->busy));
	w->loop = loop_new(NULL);
	w->timer = timer_new(w->loop, go, w);
	w->q = block_queue_new(b, w->loop, DEPTH, NULL);
	assert_non_null(w->q);
	for (unsigned i = 0; i < DEPTH; i++) {
		w->slot[i] = (struct slot){ .w = w };
		assert_int_equal(posix_memalign((void **)&w->slot[i].buf, 4096, UNIT), 0);
	}
	assert_int_equal(pthread_create(&w->thread, NULL, write_on, w), 0);
}

static void stop_now(void *opaque)
{
	struct writer *w = opaque;

	if (!w->inflight)
		loop_quit(w->loop, 0);
}

static void writer_stop(struct writer *w)
{
	__atomic_store_n(&w->stop, true, __ATOMIC_RELEASE);
	loop_post(w->loop, stop_now, w);
	pthread_join(w->thread, NULL);
	block_queue_free(w->q);
	timer_free(w->timer);
	loop_free(w->loop);
	for (unsigned i = 0; i < DEPTH; i++)
		free(w->slot[i].buf);
}

/* Write units [first, end) once, without a thread. */
static void write_units(struct block *b, struct versions *v, unsigned first, unsigned end)
{
	struct writer w = { .b = b, .v = v };

	w.loop = loop_new(NULL);
	w.q = block_queue_new(b, w.loop, DEPTH, NULL);
	for (unsigned unit = first; unit < end; unit++) {
		struct slot *s = &w.slot[0];

		s->w = &w;
		s->unit = unit;
		s->buf = aligned_alloc(4096, UNIT);
		fill(s->buf, unit, ++v->sent[unit]);
		s->iov = (struct iovec){ s->buf, UNIT };
		s->r = (struct block_request){ .op = BLOCK_WRITE,
					       .offset = (uint64_t)unit * UNIT,
					       .len = UNIT,
					       .iov = &s->iov,
					       .niov = 1,
					       .done = written,
					       .opaque = s };
		w.inflight++;
		block_submit(w.q, &s->r);
		block_drain(w.q);
		free(s->buf);
	}
	block_queue_free(w.q);
	loop_free(w.loop);
}

/* ---- Jobs in a loop ------------------------------------------------------------------------- */

struct rig {
	struct loop *loop;
	struct job *job;
	bool complete_when_ready, ready, concluded;
	unsigned errors, stops;
	enum job_status seen[32];
	unsigned nseen;
	uint32_t *moment;
};

static void on_event(void *opaque, const struct job_event *e)
{
	struct rig *r = opaque;

	switch (e->kind) {
	case JOB_EVENT_READY:
		r->ready = true;
		if (r->complete_when_ready)
			assert_int_equal(job_complete(r->job, NULL), 0);
		else
			loop_quit(r->loop, 0);
		break;
	case JOB_EVENT_ERROR:
		r->errors++;
		r->stops += e->action == JOB_STOP;
		if (e->action == JOB_STOP)
			loop_quit(r->loop, 0);
		break;
	case JOB_EVENT_STATUS:
		if (r->nseen < 32)
			r->seen[r->nseen++] = e->status;
		if (e->status == JOB_CONCLUDED) {
			r->concluded = true;
			loop_quit(r->loop, 0);
		}
	}
}

static void start(struct rig *r, enum job_type type, struct job_options *o)
{
	struct err err = ERR_INIT;

	*r = (struct rig){ .complete_when_ready = r->complete_when_ready, .loop = loop_new(NULL), .moment = r->moment };
	o->loop = r->loop;
	o->event = on_event;
	o->opaque = r;
	r->job = job_new(type, o, &err);
	if (!r->job)
		fail_msg("%s", err_msg(&err));
	job_run(r->job);
}

static void must_end(struct rig *r, int ret)
{
	struct job_info info;

	while (!r->concluded)
		loop_run(r->loop);
	job_get(r->job, &info);
	if (info.ret != ret)
		fail_msg("%d (%s)", info.ret, info.error ? info.error : "-");
	if (!ret)
		assert_int_equal(info.offset, info.len);
}

static void finish(struct rig *r)
{
	job_free(r->job);
	loop_free(r->loop);
}

/* ---- Mirror ------------------------------------------------------------------------------------ */

static void mirror_pivots(bool blocking, const char *format)
{
	static struct versions v;
	static struct writer w;
	struct rig r = { .complete_when_ready = true };
	struct job_options o = { .write_blocking = blocking };
	unsigned before;

	memset(&v, 0, sizeof(v));
	make_qcow2("a", NULL, 16);
	if (strcmp(format, "raw"))
		make_qcow2("b", NULL, 12);
	else
		make_raw("b");
	o.block = open_block("a", "qcow2");
	o.target = open_block("b", format);
	write_units(o.block, &v, 0, UNITS / 2);
	writer_start(&w, o.block, &v, 200);
	start(&r, JOB_MIRROR, &o);
	must_end(&r, 0);
	assert_true(job_pivoted(r.job));
	assert_string_equal(block_path(o.block), in_dir("b"));
	before = __atomic_load_n(&w.ended, __ATOMIC_RELAXED);
	while (__atomic_load_n(&w.ended, __ATOMIC_RELAXED) < before + 50)
		usleep(1000);
	writer_stop(&w);
	finish(&r);
	block_close(o.block);
	block_close(o.target);
	assert_true(has("b", v.acked, v.sent));
	assert_false(has("a", v.acked, v.sent)); /* the last writes went elsewhere */
	assert_true(is_sound("a"));
	assert_true(!strcmp(format, "raw") || is_sound("b"));
}

static void test_mirror(void **state)
{
	mirror_pivots(false, "qcow2");
	mirror_pivots(true, "qcow2");
	mirror_pivots(false, "raw");
	mirror_pivots(true, "raw");
}

/* Cancelled when ready: a copy of that moment, and the source stays. */
static void test_mirror_copy(void **state)
{
	static struct versions v;
	static struct writer w;
	struct rig r = { 0 };
	struct job_options o = { .target_zeroed = true };

	make_qcow2("a", NULL, 16);
	make_qcow2("b", NULL, 16);
	o.block = open_block("a", "qcow2");
	o.target = open_block("b", "qcow2");
	write_units(o.block, &v, 100, 300);
	writer_start(&w, o.block, &v, 500);
	start(&r, JOB_MIRROR, &o);
	while (!r.ready)
		loop_run(r.loop);
	writer_stop(&w);
	assert_int_equal(job_cancel(r.job, false, NULL), 0);
	must_end(&r, 0);
	assert_false(job_pivoted(r.job));
	finish(&r);
	block_close(o.block);
	block_close(o.target);
	assert_true(has("a", v.acked, v.acked));
	assert_true(has("b", v.acked, v.acked));
}

/* ---- Backup -------------------------------------------------------------------------------------- */

static void test_backup(void **state)
{
	static struct versions v, then;
	static struct writer w;
	struct rig r = { 0 };
	struct job_options o = { .speed = 8u << 20 };
	struct dirty d = { 0 };

	make_qcow2("a", NULL, 16);
	make_qcow2("b", NULL, 16);
	o.block = open_block("a", "qcow2");
	o.target = open_block("b", "qcow2");
	write_units(o.block, &v, 0, UNITS);
	then = v;
	assert_int_equal(block_bitmap_add(o.block, "one", 4096, true, true, NULL), 0);
	assert_int_equal(block_bitmap_add(o.block, "two", 4096, false, true, NULL), 0);
	start(&r, JOB_BACKUP, &o);
	writer_start(&w, o.block, &v, 300);
	must_end(&r, 0);
	writer_stop(&w);
	finish(&r);
	block_close(o.target);
	assert_true(has("b", then.acked, then.acked));
	assert_true(is_sound("b"));
	/* Both bitmaps know all that was written since. */
	for (unsigned k = 0; k < 2; k++) {
		dirty_free(&d);
		assert_int_equal(block_bitmap_read(o.block, k ? "two" : "one", &d, NULL), 0);
		for (unsigned i = 0; i < UNITS; i++)
			if (v.sent[i] != then.sent[i])
				assert_true(dirty_any(&d, i * UNIT, UNIT));
	}
	assert_true(d.count && d.count < d.nbits);
	dirty_free(&d);
	/* What they know makes the copy a copy of now. */
	o.sync = JOB_SYNC_BITMAP;
	o.bitmap = "one";
	o.speed = 0;
	o.target = open_block("b", "qcow2");
	start(&r, JOB_BACKUP, &o);
	must_end(&r, 0);
	finish(&r);
	block_close(o.target);
	assert_true(has("b", v.acked, v.acked));
	assert_int_equal(block_bitmap_read(o.block, "one", &d, NULL), 0);
	assert_int_equal(d.count, 0);
	dirty_free(&d);
	block_close(o.block);
	assert_true(has("a", v.acked, v.acked));
	assert_true(is_sound("a"));
}

/* Of one that is cancelled the bitmap gets back what it had. */
static void test_backup_bitmap_back(void **state)
{
	static struct versions v;
	struct rig r = { 0 };
	struct job_options o = { .speed = 65536, .sync = JOB_SYNC_BITMAP, .bitmap = "one" };
	struct dirty d = { 0 };

	make_qcow2("a", NULL, 16);
	make_qcow2("b", NULL, 16);
	o.block = open_block("a", "qcow2");
	o.target = open_block("b", "qcow2");
	assert_int_equal(block_bitmap_add(o.block, "one", 65536, true, true, NULL), 0);
	write_units(o.block, &v, 64, 512);
	start(&r, JOB_BACKUP, &o);
	usleep(100000);
	write_units(o.block, &v, 0, 1);
	assert_int_equal(job_cancel(r.job, true, NULL), 0);
	must_end(&r, -ECANCELED);
	finish(&r);
	assert_int_equal(block_bitmap_read(o.block, "one", &d, NULL), 0);
	assert_int_equal(d.count, (512 - 64) / 16 + 1);
	dirty_free(&d);
	block_close(o.block);
	block_close(o.target);
}

/* ---- Chains ---------------------------------------------------------------------------------------- */

/* d over c over b over a, each with some units of its own; all in `v`. */
static void make_chain(struct versions *v)
{
	static const char *const names[] = { "a", "b", "c", "d" };

	memset(v, 0, sizeof(*v));
	for (unsigned i = 0; i < 4; i++) {
		struct block *b;

		make_qcow2(names[i], i ? names[i - 1] : NULL, 12 + i);
		b = open_block(names[i], "qcow2");
		write_units(b, v, i * 300, i * 300 + 600);
		block_close(b);
	}
	memcpy(v->flushed, v->acked, sizeof(v->flushed));
}

static void chain_job(enum job_type type, unsigned top, unsigned base, unsigned depth_after)
{
	static struct versions v;
	static struct writer w;
	struct rig r = { .complete_when_ready = true };
	struct job_options o = { .top = top, .base = base };
	bool pivots = type == JOB_COMMIT && !top;
	struct block *left;
	struct image *dropped;

	make_chain(&v);
	o.block = open_block("d", "qcow2");
	writer_start(&w, o.block, &v, 500);
	start(&r, type, &o);
	must_end(&r, 0);
	usleep(50000);
	writer_stop(&w);
	assert_int_equal(block_depth(o.block), depth_after);
	left = job_take_left(r.job);
	dropped = job_take_dropped(r.job);
	assert_int_equal(!!left, pivots);
	finish(&r);
	image_close(dropped, NULL);
	block_close(left);
	block_close(o.block);
	assert_true(has(!pivots ? "d" : base == 1 ? "c" : base == 2 ? "b" : "a", v.acked, v.sent));
	assert_true(is_sound("a") && is_sound("b") && is_sound("c") && is_sound("d"));
}

static void test_chains(void **state)
{
	chain_job(JOB_STREAM, 0, 0, 0);
	chain_job(JOB_STREAM, 0, 2, 2);
	chain_job(JOB_STREAM, 0, 3, 1);
	chain_job(JOB_COMMIT, 0, 1, 2);
	chain_job(JOB_COMMIT, 0, 3, 0);
	chain_job(JOB_COMMIT, 1, 2, 2);
	chain_job(JOB_COMMIT, 1, 3, 1);
	chain_job(JOB_COMMIT, 2, 3, 2);
}

/* ---- Life cycle --------------------------------------------------------------------------------------- */

static void test_life(void **state)
{
	static struct versions v;
	struct rig r = { 0 };
	struct job_options o = { .speed = 1u << 20, .manual_finalize = true };
	struct job_info one, two;
	enum job_status want[] = { JOB_RUNNING, JOB_PAUSED, JOB_RUNNING, JOB_WAITING, JOB_PENDING };

	make_qcow2("a", NULL, 16);
	make_qcow2("b", NULL, 16);
	o.block = open_block("a", "qcow2");
	o.target = open_block("b", "qcow2");
	write_units(o.block, &v, 0, UNITS);
	start(&r, JOB_BACKUP, &o);
	usleep(200000);
	assert_int_equal(job_complete(r.job, NULL), -EBUSY);
	assert_int_equal(job_finalize(r.job, NULL), -EBUSY);
	assert_int_equal(job_pause(r.job, NULL), 0);
	assert_int_equal(job_pause(r.job, NULL), -EBUSY);
	usleep(150000); /* a piece may be under way */
	job_get(r.job, &one);
	usleep(100000);
	job_get(r.job, &two);
	assert_true(one.offset > 0 && one.offset < SIZE / 2); /* 1 MiB a second */
	assert_int_equal(one.offset, two.offset);
	assert_int_equal(two.status, JOB_PAUSED);
	assert_int_equal(job_resume(r.job, NULL), 0);
	assert_int_equal(job_set_speed(r.job, 0, NULL), 0);
	do {
		usleep(10000);
		job_get(r.job, &two);
	} while (two.status != JOB_PENDING);
	assert_int_equal(two.offset, two.len);
	assert_int_equal(job_finalize(r.job, NULL), 0);
	must_end(&r, 0);
	assert_memory_equal(r.seen, want, sizeof(want));
	finish(&r);
	block_close(o.block);
	block_close(o.target);
	assert_true(has("b", v.acked, v.acked));
}

struct trouble {
	unsigned writes, from, left;
};

static int no_space(void *opaque, enum qcow2_op op, uint64_t offset, const void *buf, size_t *len)
{
	struct trouble *t = opaque;

	if (op != QCOW2_OP_WRITE || __atomic_add_fetch(&t->writes, 1, __ATOMIC_RELAXED) < t->from || !t->left)
		return 0;
	t->left--;
	return -ENOSPC;
}

static void test_errors(void **state)
{
	static struct versions v;
	static struct writer w;

	make_qcow2("a", NULL, 16);
	for (unsigned policy = JOB_REPORT; policy <= JOB_ENOSPC; policy++) {
		struct trouble t = { .from = 20, .left = policy == JOB_REPORT ? UINT32_MAX : 3 };
		struct job_options o = { .on_target_error = policy };
		struct rig r = { .complete_when_ready = true };

		make_qcow2("b", NULL, 16);
		o.block = open_block("a", "qcow2");
		o.target = open_block("b", "qcow2");
		if (policy == JOB_REPORT)
			write_units(o.block, &v, 0, UNITS);
		qcow2_set_hook(block_qcow2(o.target), no_space, &t);
		writer_start(&w, o.block, &v, 500);
		start(&r, JOB_MIRROR, &o);
		while (!r.concluded) {
			struct job_info info;

			loop_run(r.loop);
			job_get(r.job, &info);
			if (policy >= JOB_STOP && info.paused && info.failed_io)
				assert_int_equal(job_resume(r.job, NULL), 0);
		}
		must_end(&r, policy == JOB_REPORT ? -ENOSPC : 0);
		assert_true(r.errors > 0);
		assert_int_equal(r.stops > 0, policy >= JOB_STOP);
		writer_stop(&w);
		qcow2_set_hook(block_qcow2(job_pivoted(r.job) ? o.block : o.target), NULL, NULL);
		finish(&r);
		block_close(o.block);
		block_close(o.target);
		assert_true(has(policy == JOB_REPORT ? "a" : "b", v.acked, v.sent));
		assert_true(is_sound("a"));
		if (policy != JOB_REPORT) { /* the next begins where this one ended */
			char command[300];

			snprintf(command, sizeof(command), "mv %s %s", in_dir("b"), in_dir("a"));
			assert_int_equal(system(command), 0);
		}
	}
}

/* ---- Killed ---------------------------------------------------------------------------------------------- */

/* What a child does until it is killed. */
static void work(enum job_type type, unsigned top, unsigned base, bool blocking, struct versions *v, uint64_t seed)
{
	static struct writer w;
	struct rig r = { .complete_when_ready = true };
	struct job_options o = { .top = top, .base = base, .write_blocking = blocking };

	o.block = open_block("d", "qcow2");
	if (type == JOB_MIRROR)
		o.target = open_block("t", "qcow2");
	w.seed = seed;
	writer_start(&w, o.block, v, 100);
	start(&r, type, &o);
	while (!r.concluded)
		loop_run(r.loop);
	__atomic_store_n(&v->moment, 1, __ATOMIC_RELEASE);
	for (;;)
		pause();
}

/* io_uring lets go of a dead process' files a moment after its end: till then nobody else may open them. */
static void wait_unlocked(const char *name)
{
	int fd = open(in_dir(name), O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	for (unsigned ms = 0;; ms++) {
		struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

		assert_int_equal(fcntl(fd, F_OFD_GETLK, &l), 0);
		if (l.l_type == F_UNLCK)
			break;
		assert_true(ms < 10000);
		usleep(1000);
	}
	close(fd);
}

static void killed(enum job_type type, unsigned top, unsigned base, bool blocking, unsigned times)
{
	struct versions *v = mmap(NULL, sizeof(*v), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	bool pivots = type == JOB_MIRROR || (type == JOB_COMMIT && !top);
	const char *target = type == JOB_MIRROR ? "t" : "a";
	uint64_t seed = 7 + type * 1000 + base;

	assert_ptr_not_equal(v, MAP_FAILED);
	for (unsigned i = 0; i < times; i++) {
		pid_t pid;
		bool old, new;

		make_chain(v);
		make_qcow2("t", NULL, 16);
		pid = fork();
		if (!pid) {
			work(type, top, base, blocking, v, seed + i);
			_exit(0);
		}
		usleep(rnd(&seed, i % 2 ? 250000 : 60000));
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		for (const char *name = "abcdt"; *name; name++)
			wait_unlocked((const char[]){ *name, 0 });
		assert_true(is_sound("a") && is_sound("b") && is_sound("c") && is_sound("d"));
		assert_true(is_sound("t"));
		old = has("d", v->flushed, v->sent);
		new = pivots &&has(target, v->flushed, v->sent);
		if (!(pivots && v->moment ? new : old || new))
			fail_msg("%s %u %u, round %u, moment %u: %s", job_type_name(type), top, base, i, v->moment,
				 wrong);
	}
	munmap(v, sizeof(*v));
}

static void test_killed(void **state)
{
	const char *text = getenv("KEEL_KILLS");
	unsigned times = text ? atoi(text) : 3;

	killed(JOB_STREAM, 0, 0, false, times);
	killed(JOB_STREAM, 0, 2, false, times);
	killed(JOB_COMMIT, 0, 3, false, times);
	killed(JOB_COMMIT, 1, 3, false, times);
	killed(JOB_MIRROR, 0, 0, false, times);
	killed(JOB_MIRROR, 0, 0, true, times);
}

static int set_up(void **state)
{
	strcpy(dir, "/tmp/keel-job-XXXXXX");
	return !mkdtemp(dir);
}

static int tear_down(void **state)
{
	char command[100];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mirror), cmocka_unit_test(test_mirror_copy),
		cmocka_unit_test(test_backup), cmocka_unit_test(test_backup_bitmap_back),
		cmocka_unit_test(test_chains), cmocka_unit_test(test_life),
		cmocka_unit_test(test_errors), cmocka_unit_test(test_killed),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
