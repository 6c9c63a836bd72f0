/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The block layer against a model in memory, on both back ends and in all cache modes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image/block_int.h"

static char dir[64];
static char path[128];

static int setup(void **state)
{
	strcpy(dir, "/tmp/keel-block-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/disk.raw", dir);
	return 0;
}

static int teardown(void **state)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

static void make_file(uint64_t size, const void *head, size_t len)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	if (len)
		assert_int_equal(pwrite(fd, head, len, 0), len);
	close(fd);
}

static struct block *must_open(enum block_cache cache, bool readonly)
{
	struct block_options o = { .path = path, .fd = -1, .format = "raw", .cache = cache, .readonly = readonly };
	struct err err = ERR_INIT;
	struct block *b = block_open(&o, &err);

	if (!b)
		fail_msg("%s", err_msg(&err));
	return b;
}

static int open_fails(const struct block_options *o, const char *text)
{
	struct err err = ERR_INIT;
	struct block *b = block_open(o, &err);

	assert_null(b);
	if (!strstr(err.msg, text))
		fail_msg("'%s' lacks '%s'", err.msg, text);
	return err.code;
}

/* ---- One request at a time ------------------------------------------------ */

struct waiter {
	struct loop *loop;
	int ret;
	unsigned left;
};

static void wait_done(struct block_request *r, int ret)
{
	struct waiter *w = r->opaque;

	w->ret = ret;
	if (!--w->left)
		loop_quit(w->loop, 0);
}

static int run(struct block_queue *q, struct block_request *r)
{
	struct waiter w = { .loop = q->loop, .left = 1, .ret = 1 };

	r->done = wait_done;
	r->opaque = &w;
	block_submit(q, r);
	block_kick(q);
	assert_int_equal(w.left, 1); /* never from inside */
	loop_run(q->loop);
	return w.ret;
}

static int io(struct block_queue *q, enum block_op op, uint64_t off, void *data, uint64_t len)
{
	struct iovec iov = { data, len };
	struct block_request r = { .op = op, .offset = off, .len = len, .iov = &iov, .niov = 1 };

	return run(q, &r);
}

/* ---- Model ---------------------------------------------------------------- */

#define DISK (4u << 20)
#define PARALLEL 16
#define OPS 1500

struct job {
	struct block_request r;
	struct iovec iov[8];
	uint8_t *mem, *expect;
	bool busy;
	int ret;
};

static unsigned rnd_state;
static unsigned rnd(unsigned n)
{
	rnd_state = rnd_state * 1664525u + 1013904223u;
	return (rnd_state >> 8) % n;
}

static bool overlaps(const struct job *jobs, uint64_t off, uint64_t len)
{
	for (unsigned i = 0; i < PARALLEL; i++)
		if (jobs[i].busy && off < jobs[i].r.offset + jobs[i].r.len && jobs[i].r.offset < off + len)
			return true;
	return false;
}

/* Cut the job's memory at random places, misaligned on purpose now and then. */
static void scatter(struct job *j, uint64_t len, bool misalign)
{
	uint8_t *p = j->mem + (misalign ? 1 + rnd(100) : 0);
	unsigned n = 1 + rnd(8);
	uint64_t left = len;

	j->r.niov = 0;
	for (unsigned i = 0; i < n && left; i++) {
		uint64_t part = i == n - 1 ? left : misalign ? 1 + rnd(left) : 512 * (1 + rnd(left / 512));

		j->iov[j->r.niov++] = (struct iovec){ p, part };
		p += part;
		left -= part;
	}
	if (left)
		j->iov[j->r.niov - 1].iov_len += left;
	j->r.iov = j->iov;
}

static void gather(const struct job *j, uint8_t *to)
{
	for (int i = 0; i < j->r.niov; i++) {
		memcpy(to, j->iov[i].iov_base, j->iov[i].iov_len);
		to += j->iov[i].iov_len;
	}
}

static void check_job(struct job *j, const uint8_t *model)
{
	static uint8_t got[DISK];

	assert_int_equal(j->ret, 0);
	if (j->r.op != BLOCK_READ)
		return;
	gather(j, got);
	if (memcmp(got, model + j->r.offset, j->r.len))
		fail_msg("read of %llu bytes at %llu differs", (unsigned long long)j->r.len,
			 (unsigned long long)j->r.offset);
}

/* At once: the next write there changes the model. */
static const uint8_t *the_model;
static void job_done(struct block_request *r, int ret)
{
	struct job *j = r->opaque;

	j->busy = false;
	j->ret = ret;
	check_job(j, the_model);
}

static void random_ops(enum block_cache cache, enum queue_backend backend, uint64_t file_size)
{
	static uint8_t model[DISK], whole[DISK];
	struct job *jobs = calloc(PARALLEL, sizeof(*jobs));
	struct loop *loop = loop_new(NULL);
	struct err err = ERR_INIT;
	struct block_stats st;
	struct block_queue *q;
	struct block *b;
	unsigned started = 0;
	int fd;

	make_file(file_size, NULL, 0);
	memset(model, 0, sizeof(model));
	the_model = model;
	b = must_open(cache, false);
	assert_int_equal(block_size(b), (file_size + 511) / 512 * 512);
	/* Fewer slots than requests: the internal queue is used, too. */
	q = queue_new(b, loop, 6, backend, &err);
	if (!q)
		fail_msg("%s", err_msg(&err));
	rnd_state = cache * 7 + backend;
	for (unsigned i = 0; i < PARALLEL; i++) {
		assert_int_equal(posix_memalign((void **)&jobs[i].mem, 4096, DISK + 4096), 0);
		jobs[i].r.opaque = &jobs[i];
		jobs[i].r.done = job_done;
	}
	while (started < OPS) {
		for (unsigned i = 0; i < PARALLEL && started < OPS; i++) {
			struct job *j = &jobs[i];
			uint64_t len = 512 * (1 + (rnd(10) ? rnd(64) : rnd(3000))),
				 off = 512 * rnd(block_size(b) / 512);
			bool misalign = !rnd(3);

			if (j->busy)
				continue;
			if (off + len > block_size(b))
				len = block_size(b) - off;
			if (overlaps(jobs, off, len))
				continue;
			j->r.offset = off;
			j->r.len = len;
			j->r.fua = !rnd(4);
			j->r.unmap = rnd(2);
			j->r.op = rnd(8)   ? (rnd(2) ? BLOCK_READ : BLOCK_WRITE)
				  : rnd(2) ? BLOCK_WRITE_ZEROES
					   : BLOCK_FLUSH;
			scatter(j, len, misalign);
			if (j->r.op == BLOCK_WRITE) {
				for (int k = 0; k < j->r.niov; k++)
					for (size_t n = 0; n < j->iov[k].iov_len; n++)
						((uint8_t *)j->iov[k].iov_base)[n] = rnd(256);
				gather(j, model + off);
			} else if (j->r.op == BLOCK_WRITE_ZEROES) {
				memset(model + off, 0, len);
			}
			j->busy = true;
			block_submit(q, &j->r);
			started++;
		}
		block_kick(q);
		/* One turn of the loop, or all that is in flight. */
		if (rnd(4)) {
			loop_quit(loop, 0);
			loop_run(loop);
		} else {
			block_drain(q);
		}
	}
	block_drain(q);
	for (unsigned i = 0; i < PARALLEL; i++) {
		assert_false(jobs[i].busy);
		free(jobs[i].mem);
	}
	block_get_stats(b, &st);
	assert_int_equal(st.failed, 0);
	assert_int_equal(st.rd_ops + st.wr_ops + st.flush_ops, OPS);
	assert_true(st.rd_bytes && st.wr_bytes && st.rd_ns && st.wr_ns);
	assert_int_equal(io(q, BLOCK_READ, 0, whole, block_size(b)), 0);
	assert_memory_equal(whole, model, block_size(b));
	block_queue_free(q);
	block_close(b);
	/* And as anybody else sees the file. */
	fd = open(path, O_RDONLY);
	memset(whole, 0, sizeof(whole));
	assert_true(pread(fd, whole, sizeof(whole), 0) >= (ssize_t)file_size);
	assert_memory_equal(whole, model, DISK);
	close(fd);
	loop_free(loop);
	free(jobs);
}

static bool direct_works(void)
{
	int fd = open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static void all_modes(enum queue_backend backend)
{
	random_ops(BLOCK_CACHE_WRITEBACK, backend, DISK);
	random_ops(BLOCK_CACHE_WRITETHROUGH, backend, DISK / 8);
	random_ops(BLOCK_CACHE_UNSAFE, backend, DISK);
	if (direct_works()) {
		random_ops(BLOCK_CACHE_NONE, backend, DISK);
		random_ops(BLOCK_CACHE_DIRECTSYNC, backend, DISK / 8);
		/* The last sector is half there. */
		random_ops(BLOCK_CACHE_NONE, backend, DISK / 4 - 200);
	}
	random_ops(BLOCK_CACHE_WRITEBACK, backend, DISK / 4 - 200);
}

static bool uring_works(void)
{
	struct loop *loop = loop_new(NULL);
	struct block *b;
	struct block_queue *q;

	make_file(4096, NULL, 0);
	b = must_open(BLOCK_CACHE_WRITEBACK, false);
	q = queue_new(b, loop, 1, QUEUE_URING, NULL);
	block_queue_free(q);
	block_close(b);
	loop_free(loop);
	return q;
}

static void test_random_uring(void **state)
{
	if (!uring_works()) {
		print_message("SKIP: io_uring is refused here\n");
		skip();
	}
	all_modes(QUEUE_URING);
}

static void test_random_pool(void **state)
{
	all_modes(QUEUE_POOL);
}

/* Sectors larger than the guest's: small requests go through the page cache, and both views agree. */
static void test_big_sectors(void **state)
{
	struct loop *loop = loop_new(NULL);
	uint8_t data[8192], got[8192];
	struct block_queue *q;
	struct block *b;

	make_file(1 << 20, NULL, 0);
	if (!direct_works()) {
		print_message("SKIP: no direct I/O in /tmp\n");
		skip();
	}
	b = must_open(BLOCK_CACHE_NONE, false);
	b->off_align = b->mem_align = 4096;
	if (b->plain_fd < 0)
		b->plain_fd = open(path, O_RDWR);
	q = block_queue_new(b, loop, 4, NULL);
	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = i * 7 + i / 256;
	assert_int_equal(io(q, BLOCK_WRITE, 0, data, 8192), 0);
	assert_int_equal(io(q, BLOCK_WRITE, 512, data, 1024), 0);
	assert_int_equal(io(q, BLOCK_READ, 0, got, 8192), 0);
	assert_memory_equal(got, data, 512);
	assert_memory_equal(got + 512, data, 1024);
	assert_memory_equal(got + 1536, data + 1536, 8192 - 1536);
	assert_int_equal(io(q, BLOCK_READ, 1024, got, 512), 0);
	assert_memory_equal(got, data + 512, 512);
	block_queue_free(q);
	block_close(b);
	loop_free(loop);
}

/* ---- Edges ---------------------------------------------------------------- */

static void test_ranges(void **state)
{
	struct loop *loop = loop_new(NULL);
	uint8_t data[2048] = { 0 };
	struct block_request r = { 0 };
	struct iovec iov = { data, 1024 };
	struct block_stats st;
	struct block_queue *q;
	struct block *b;

	make_file(64 * 512, NULL, 0);
	b = must_open(BLOCK_CACHE_WRITEBACK, false);
	q = block_queue_new(b, loop, 2, NULL);
	assert_int_equal(io(q, BLOCK_READ, 63 * 512, data, 1024), -EINVAL);
	assert_int_equal(io(q, BLOCK_WRITE, 64 * 512, data, 512), -EINVAL);
	assert_int_equal(io(q, BLOCK_WRITE, UINT64_MAX - 511, data, 512), -EINVAL);
	assert_int_equal(io(q, BLOCK_WRITE_ZEROES, UINT64_MAX - 511, NULL, 1024), -EINVAL);
	assert_int_equal(io(q, BLOCK_READ, 100, data, 512), -EINVAL);
	assert_int_equal(io(q, BLOCK_READ, 0, data, 100), -EINVAL);
	assert_int_equal(io(q, BLOCK_READ, 64 * 512, data, 0), 0);
	/* Buffers that do not make up the length. */
	r = (struct block_request){ .op = BLOCK_READ, .len = 2048, .iov = &iov, .niov = 1 };
	assert_int_equal(run(q, &r), -EINVAL);
	block_get_stats(b, &st);
	assert_int_equal(st.failed, 7);
	block_queue_free(q);
	block_close(b);

	b = must_open(BLOCK_CACHE_WRITEBACK, true);
	assert_true(block_readonly(b));
	q = block_queue_new(b, loop, 2, NULL);
	assert_int_equal(io(q, BLOCK_WRITE, 0, data, 512), -EROFS);
	assert_int_equal(io(q, BLOCK_DISCARD, 0, NULL, 512), -EROFS);
	assert_int_equal(io(q, BLOCK_READ, 0, data, 512), 0);
	assert_int_equal(io(q, BLOCK_FLUSH, 0, NULL, 0), 0);
	block_queue_free(q);
	block_close(b);
	loop_free(loop);
}

static void test_truncated_below(void **state)
{
	struct loop *loop = loop_new(NULL);
	uint8_t data[4096];
	struct block_queue *q;
	struct block *b;

	make_file(1 << 20, NULL, 0);
	b = must_open(BLOCK_CACHE_WRITEBACK, false);
	q = block_queue_new(b, loop, 2, NULL);
	assert_int_equal(truncate(path, 4096), 0);
	assert_int_equal(io(q, BLOCK_READ, 65536, data, 4096), -EIO);
	assert_int_equal(io(q, BLOCK_READ, 0, data, 4096), 0);
	block_queue_free(q);
	block_close(b);
	loop_free(loop);
}

static void test_discard_is_sparse(void **state)
{
	for (unsigned backend = QUEUE_AUTO; backend <= QUEUE_POOL; backend += 2) {
		struct loop *loop = loop_new(NULL);
		uint8_t *data = malloc(1 << 20), *zero = calloc(1, 1 << 20);
		struct stat before, after;
		struct block_queue *q;
		struct block *b;

		memset(data, 0xaa, 1 << 20);
		make_file(1 << 20, data, 1 << 20);
		b = must_open(BLOCK_CACHE_WRITEBACK, false);
		q = queue_new(b, loop, 2, backend, NULL);
		assert_int_equal(io(q, BLOCK_FLUSH, 0, NULL, 0), 0);
		stat(path, &before);
		assert_int_equal(io(q, BLOCK_DISCARD, 0, NULL, 1 << 19), 0);
		stat(path, &after);
		assert_int_equal(after.st_size, before.st_size);
		if (b->no_punch)
			print_message("the file system has no holes\n");
		else
			assert_true(after.st_blocks <= before.st_blocks - 1000);
		assert_int_equal(io(q, BLOCK_READ, 0, data, 1 << 19), 0);
		assert_memory_equal(data, zero, 1 << 19);
		block_queue_free(q);
		block_close(b);
		loop_free(loop);
		free(data);
		free(zero);
	}
}

/* Where the file system knows neither holes nor zero ranges, zeroes are written. */
static void test_zeroes_by_writing(void **state)
{
	struct loop *loop = loop_new(NULL);
	uint8_t *data = malloc(4 << 20), *zero = calloc(1, 4 << 20);
	struct block_queue *q;
	struct block *b;

	memset(data, 0x55, 4 << 20);
	make_file(4 << 20, data, 4 << 20);
	b = must_open(BLOCK_CACHE_WRITETHROUGH, false);
	b->no_punch = b->no_zero = true;
	q = block_queue_new(b, loop, 2, NULL);
	assert_int_equal(io(q, BLOCK_WRITE_ZEROES, 512, NULL, (3 << 20) + 1536), 0);
	assert_int_equal(io(q, BLOCK_READ, 0, data, 4 << 20), 0);
	assert_int_equal(data[511], 0x55);
	assert_memory_equal(data + 512, zero, (3 << 20) + 1536);
	assert_int_equal(data[512 + (3 << 20) + 1536], 0x55);
	block_queue_free(q);
	block_close(b);
	loop_free(loop);
	free(data);
	free(zero);
}

/* ENOSPC: a file system of one megabyte, in a mount namespace of a child. */
static int no_space(void)
{
	struct loop *loop = loop_new(NULL);
	struct block_options o = { .path = path, .fd = -1, .format = "raw" };
	uint8_t *data = malloc(2 << 20);
	struct block_queue *q;
	struct block *b;
	int ret;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("keel-test", dir, "tmpfs", 0, "size=1m"))
		return 77;
	memset(data, 1, 2 << 20);
	if (truncate(path, 0) && errno != ENOENT)
		return 1;
	close(open(path, O_RDWR | O_CREAT, 0600));
	if (truncate(path, 2 << 20))
		return 2;
	b = block_open(&o, NULL);
	q = b ? block_queue_new(b, loop, 2, NULL) : NULL;
	if (!q)
		return 3;
	ret = io(q, BLOCK_WRITE, 0, data, 2 << 20);
	if (ret != -ENOSPC)
		return 4;
	/* What fits still works afterwards. */
	if (io(q, BLOCK_DISCARD, 0, NULL, 2 << 20) || io(q, BLOCK_WRITE, 0, data, 65536))
		return 5;
	return 0;
}

static void test_no_space(void **state)
{
	pid_t pid;
	int status;

	fflush(NULL);
	pid = fork();
	if (!pid)
		_exit(no_space());
	waitpid(pid, &status, 0);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77) {
		print_message("SKIP: mounting a small file system needs root\n");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* A memfd sealed against writing gives EPERM: errors reach the request and the statistics. */
static void test_write_error(void **state)
{
	struct loop *loop = loop_new(NULL);
	uint8_t data[512] = { 0 };
	int fd = memfd_create("keel-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct block_options o = { .path = "sealed", .fd = fd, .format = "raw" };
	struct block_stats st;
	struct block_queue *q;
	struct block *b;

	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
	b = block_open(&o, NULL);
	assert_non_null(b);
	q = block_queue_new(b, loop, 2, NULL);
	assert_int_equal(io(q, BLOCK_WRITE, 0, data, 512), -EPERM);
	assert_int_equal(io(q, BLOCK_READ, 0, data, 512), 0);
	block_get_stats(b, &st);
	assert_int_equal(st.failed, 1);
	assert_int_equal(st.rd_ops, 1);
	block_queue_free(q);
	block_close(b);
	loop_free(loop);
}

/* ---- Opening -------------------------------------------------------------- */

static void test_formats(void **state)
{
	static const struct {
		const char *name;
		unsigned at, len;
		const char *bytes;
	} images[] = {
		{ "qcow2", 0, 8, "QFI\xfb\0\0\0\3" },
		{ "vmdk", 0, 4, "KDMV" },
		{ "vdi", 0x40, 4, "\x7f\x10\xda\xbe" },
		{ "vhdx", 0, 8, "vhdxfile" },
		{ "vpc", 65536 - 512, 8, "conectix" },
		{ "luks", 0, 6, "LUKS\xba\xbe" },
	};
	struct block_options o = { .path = path, .fd = -1 };
	struct block *b;

	for (unsigned i = 0; i < sizeof(images) / sizeof(images[0]); i++) {
		char text[64];
		int fd;

		make_file(65536, NULL, 0);
		fd = open(path, O_RDWR);
		assert_int_equal(pwrite(fd, images[i].bytes, images[i].len, images[i].at), images[i].len);
		close(fd);
		/* Those that Keel knows can be named, too. */
		snprintf(text, sizeof(text), !strcmp(images[i].name, "qcow2") || !strcmp(images[i].name, "luks") ?
			 "is a %1$s image: give format=%1$s, or format=raw" : "is a %s image: give format=raw", images[i].name);
		assert_int_equal(open_fails(&o, text), ENOTSUP);
		/* Whoever says raw gets raw. */
		block_close(must_open(BLOCK_CACHE_WRITEBACK, false));
	}
	make_file(65536, "\xeb\x63\x90", 3);
	b = block_open(&o, NULL);
	assert_non_null(b);
	assert_string_equal(block_format(b), "raw");
	assert_string_equal(block_path(b), path);
	block_close(b);
	make_file(100, "abc", 3); /* smaller than a sector */
	b = block_open(&o, NULL);
	assert_non_null(b);
	assert_int_equal(block_size(b), 512);
	block_close(b);
	o.format = "qcow2";
	assert_int_equal(open_fails(&o, "is not a qcow2 image"), EINVAL);
	o.format = "vmdk";
	assert_int_equal(open_fails(&o, "'vmdk' is not supported"), ENOTSUP);
}

static void test_refusals(void **state)
{
	struct block_options o = { .path = path, .fd = -1 };
	int fd;

	unlink(path);
	assert_int_equal(open_fails(&o, "cannot open disk image"), ENOENT);
	make_file(0, NULL, 0);
	assert_int_equal(open_fails(&o, "is empty"), EINVAL);
	o.path = "/dev/zero";
	assert_int_equal(open_fails(&o, "character device"), EINVAL);
	o.path = dir;
	o.readonly = true;
	assert_int_equal(open_fails(&o, "directory"), EINVAL);
	make_file(4096, NULL, 0);
	o = (struct block_options){ .path = path, .fd = open(path, O_RDONLY) };
	fd = o.fd;
	assert_int_equal(open_fails(&o, "not open for writing"), EACCES);
	assert_int_equal(fcntl(fd, F_GETFD), -1); /* taken over, in failure too */
}

static void test_locks(void **state)
{
	struct block_options o = { .path = path, .fd = -1, .format = "raw" };
	struct block *a, *b;
	int status;
	pid_t pid;

	make_file(4096, NULL, 0);
	a = must_open(BLOCK_CACHE_WRITEBACK, false);
	assert_int_equal(open_fails(&o, "is being written by another"), EBUSY);
	o.readonly = true;
	assert_int_equal(open_fails(&o, "is being written by another"), EBUSY);
	/* Another process is no different. */
	fflush(NULL);
	pid = fork();
	if (!pid)
		_exit(block_open(&o, NULL) ? 1 : 0);
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
	block_close(a);

	a = must_open(BLOCK_CACHE_WRITEBACK, true);
	b = must_open(BLOCK_CACHE_WRITEBACK, true); /* readers share */
	o.readonly = false;
	assert_int_equal(open_fails(&o, "readonly=on"), EBUSY);
	block_close(a);
	block_close(b);
	block_close(must_open(BLOCK_CACHE_WRITEBACK, false));
}

/* QEMU must see our lock and we its. */
static void test_locks_qemu(void **state)
{
	struct block *a;
	char cmd[400];

	if (system("qemu-system-x86_64 --version >/dev/null 2>&1")) {
		print_message("SKIP: no qemu-system-x86_64\n");
		skip();
	}
	make_file(65536, NULL, 0);
	snprintf(cmd, sizeof(cmd),
		 "echo quit | timeout 30 qemu-system-x86_64 -machine q35,accel=tcg -m 16 -nodefaults -display none "
		 "-S -monitor stdio -drive file=%s,format=raw,if=virtio >/dev/null 2>&1",
		 path);
	assert_int_equal(system(cmd), 0);
	a = must_open(BLOCK_CACHE_WRITEBACK, false);
	assert_int_not_equal(system(cmd), 0);
	block_close(a);
	assert_int_equal(system(cmd), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_uring),
		cmocka_unit_test(test_random_pool),
		cmocka_unit_test(test_big_sectors),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_truncated_below),
		cmocka_unit_test(test_discard_is_sparse),
		cmocka_unit_test(test_zeroes_by_writing),
		cmocka_unit_test(test_no_space),
		cmocka_unit_test(test_write_error),
		cmocka_unit_test(test_formats),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_locks),
		cmocka_unit_test(test_locks_qemu),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
