/* SPDX-License-Identifier: GPL-2.0-or-later */
/* keel image bench: requests as a disk's device would send them, as qemu-img bench has it. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/image.h"
#include "image/block.h"
#include "util/loop.h"

struct bench {
	struct block *b;
	struct block_queue *q;
	struct loop *loop;
	uint64_t count, sent, ended, offset, step, size, seed; /* size: of a request */
	unsigned depth, flush_every, since_flush;
	bool write, random, drain;
	bool flushing; /* a flush is on its way */
	int failed;
	struct bench_slot *slots, *idle;
};

struct bench_slot {
	struct bench *bench;
	struct block_request r;
	struct iovec iov;
	struct bench_slot *next;
};

static uint64_t next_offset(struct bench *b)
{
	uint64_t at = b->offset, places = block_size(b->b) / b->size;

	if (b->random) {
		b->seed = b->seed * 6364136223846793005ull + 1442695040888963407ull;
		return (b->seed >> 20) % places * b->size;
	}
	b->offset = (b->offset + b->step) % block_size(b->b);
	return at + b->size > block_size(b->b) ? 0 : at;
}

static void send_requests(struct bench *b);

static void bench_done(struct block_request *r, int ret)
{
	struct bench_slot *s = r->opaque;
	struct bench *b = s->bench;

	if (r->op == BLOCK_FLUSH)
		b->flushing = false;
	else
		b->ended++;
	if (ret && !b->failed) {
		b->failed = ret;
		b->count = b->sent; /* no more */
	}
	s->next = b->idle;
	b->idle = s;
	if (b->sent < b->count || b->flush_every)
		send_requests(b);
	if (b->ended == b->sent && b->sent == b->count && !b->flushing)
		loop_quit(b->loop, 0);
}

static void send_flush(struct bench *b, struct bench_slot *s)
{
	s->r = (struct block_request){ .op = BLOCK_FLUSH, .done = bench_done, .opaque = s };
	b->flushing = true;
	b->since_flush = 0;
	block_submit(b->q, &s->r);
}

static void send_requests(struct bench *b)
{
	while (b->idle) {
		struct bench_slot *s = b->idle;
		bool due = b->flush_every && b->since_flush == b->flush_every;

		/* Unless told otherwise, a flush waits for what was sent before it, and holds up what comes after. */
		if (b->drain && (b->flushing || (due && b->ended != b->sent)))
			break;
		if (!due && b->sent == b->count)
			break;
		b->idle = s->next;
		if (due) {
			send_flush(b, s);
			continue;
		}
		s->r = (struct block_request){
			.op = b->write ? BLOCK_WRITE : BLOCK_READ,
			.offset = next_offset(b),
			.len = b->size,
			.iov = &s->iov,
			.niov = 1,
			.done = bench_done,
			.opaque = s,
		};
		b->sent++;
		b->since_flush++;
		block_submit(b->q, &s->r);
	}
	block_kick(b->q);
}

static void start(void *opaque)
{
	send_requests(opaque);
}

static int make_slots(struct bench *b, int pattern, struct err *err)
{
	b->slots = calloc(b->depth, sizeof(*b->slots));
	for (unsigned i = 0; b->slots && i < b->depth; i++) {
		struct bench_slot *s = &b->slots[i];

		s->bench = b;
		s->iov.iov_len = b->size;
		if (posix_memalign(&s->iov.iov_base, 4096, b->size))
			return err_set(err, ENOMEM, "no memory for %u requests", b->depth);
		memset(s->iov.iov_base, pattern, b->size);
		s->next = b->idle;
		b->idle = s;
	}
	return b->slots ? 0 : err_set(err, ENOMEM, "no memory for %u requests", b->depth);
}

static int run_bench(struct bench *b, int pattern, bool quiet, struct err *err)
{
	uint64_t begin;
	int ret;

	if (b->size > block_size(b->b) || b->offset > block_size(b->b) - b->size)
		return err_set(err, EINVAL, "%s is too small for that", block_path(b->b));
	b->loop = loop_new(err);
	if (!b->loop)
		return -ENOMEM;
	b->q = block_queue_new(b->b, b->loop, b->depth, err);
	ret = b->q ? make_slots(b, pattern, err) : -ENOMEM;
	if (!ret) {
		if (!quiet)
			printf("Sending %llu %s requests, %llu bytes each, %u in parallel (%s)\n",
			       (unsigned long long)b->count, b->write ? "write" : "read", (unsigned long long)b->size,
			       b->depth, b->random ? "at random offsets" : "in order");
		fflush(stdout);
		begin = monotonic_ns();
		ret = b->count ? loop_post(b->loop, start, b) : 0;
		if (!ret && b->count)
			loop_run(b->loop);
		if (b->failed)
			ret = err_set_errno(err, -b->failed, "%s: a request failed", block_path(b->b));
		else if (!ret)
			printf("Run completed in %.3f seconds.\n", (monotonic_ns() - begin) / 1e9);
	}
	block_queue_free(b->q);
	for (unsigned i = 0; b->slots && i < b->depth; i++)
		free(b->slots[i].iov.iov_base);
	free(b->slots);
	loop_free(b->loop);
	return ret;
}

static bool parse_cache(const char *text, enum block_cache *cache)
{
	static const char *const names[] = { [BLOCK_CACHE_WRITEBACK] = "writeback",
					     [BLOCK_CACHE_NONE] = "none",
					     [BLOCK_CACHE_WRITETHROUGH] = "writethrough",
					     [BLOCK_CACHE_DIRECTSYNC] = "directsync",
					     [BLOCK_CACHE_UNSAFE] = "unsafe" };

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(names[i], text))
			continue;
		*cache = i;
		return true;
	}
	return false;
}

static bool number(const char *text, uint64_t low, uint64_t high, uint64_t *n)
{
	return image_parse_size(text, n) && *n >= low && *n <= high;
}

int image_cmd_bench(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "flush-interval", required_argument, NULL, 'F' },
		{ "pattern", required_argument, NULL, 'P' },
		{ "no-drain", no_argument, NULL, 'D' },
		{ "random", no_argument, NULL, 'R' },
		{ 0 },
	};
	struct bench b = { .count = 75000, .depth = 64, .size = 4096, .drain = true, .seed = 1 };
	struct block_options o = { .fd = -1, .cache = BLOCK_CACHE_WRITEBACK };
	struct image_name name;
	struct err err = ERR_INIT;
	uint64_t n, pattern = 0;
	bool quiet = false, good = true;
	int opt, ret;

	optind = 1;
	while (good && (opt = getopt_long(argc, argv, "c:d:f:i:no:qs:S:t:wU", longs, NULL)) != -1) {
		switch (opt) {
		case 'c':
			good = number(optarg, 0, UINT64_MAX, &b.count);
			break;
		case 'd':
			good = number(optarg, 1, 4096, &n);
			b.depth = n;
			break;
		case 'f':
			o.format = optarg;
			break;
		case 'o':
			good = number(optarg, 0, INT64_MAX, &b.offset) && !(b.offset % 512);
			break;
		case 's':
			good = number(optarg, 512, 64 << 20, &b.size) && !(b.size % 512);
			break;
		case 'S':
			good = number(optarg, 512, INT64_MAX, &b.step) && !(b.step % 512);
			break;
		case 't':
			good = parse_cache(optarg, &o.cache);
			break;
		case 'F':
			good = number(optarg, 0, UINT32_MAX, &n);
			b.flush_every = n;
			break;
		case 'P':
			good = number(optarg, 0, 255, &pattern);
			break;
		case 'w':
			b.write = true;
			break;
		case 'q':
			quiet = true;
			break;
		case 'D':
			b.drain = false;
			break;
		case 'R':
			b.random = true;
			break;
		case 'i': /* there is one way, the fast one */
		case 'n':
		case 'U':
			break;
		default:
			return 1;
		}
	}
	if (!good)
		return image_fail(1, "-%c cannot be '%s'", opt, optarg);
	if (argc - optind != 1)
		return image_fail(1, "bench needs one file");
	if (b.flush_every && !b.write)
		return image_fail(1, "--flush-interval is for writes: give -w, too");
	if (image_name_parse(&name, argv[optind], o.format, &err))
		return image_fail(1, "%s", err_msg(&err));
	o.path = name.path;
	o.format = name.format;
	o.key_secret = name.key_secret;
	o.readonly = !b.write;
	b.step = b.step ? b.step : b.size;
	if (!o.format) { /* as the other verbs do */
		struct image *img = image_open(o.path, NULL, IMAGE_NO_BACKING | IMAGE_LOCKED, &err);

		if (!img)
			return image_fail(1, "%s", err_msg(&err));
		o.format = image_format(img);
		image_close(img, NULL);
	}
	b.b = block_open(&o, &err);
	image_name_free(&name);
	if (!b.b)
		return image_fail(1, "%s", err_msg(&err));
	ret = run_bench(&b, pattern, quiet, &err);
	block_close(b.b);
	return ret ? image_fail(1, "%s", err_msg(&err)) : 0;
}
