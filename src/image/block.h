/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disks as devices see them: an open image and asynchronous requests.
 *
 * A struct block is an image (shared by queues, thread-safe); a struct
 * block_queue is one thread's way to it (an io_uring in that thread's loop).
 * Requests complete in the queue's thread. Offsets and lengths are bytes and
 * must be multiples of 512; a range past the end gives -EINVAL and touches nothing.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "image/throttle.h"
#include "util/err.h"
#include "util/loop.h"

struct block;
struct block_queue;

enum block_cache { BLOCK_CACHE_WRITEBACK, BLOCK_CACHE_NONE, BLOCK_CACHE_WRITETHROUGH, BLOCK_CACHE_DIRECTSYNC, BLOCK_CACHE_UNSAFE };

struct block_options {
	const char *path;    /* what messages call it; opened unless fd >= 0 */
	int fd;              /* -1, or an open descriptor that block_open() takes over */
	const char *key_secret; /* NULL, or the name of the secret with the passphrase of what is encrypted */
	const char *format;  /* "raw", "qcow2", "luks"; NULL: probed (raw is only taken for what looks like no other format) */
	bool readonly;
	bool no_backing;     /* qcow2: open no backing file; the caller attaches one (qcow2_swap_backing()) */
	enum block_cache cache;
};

struct block *block_open(const struct block_options *o, struct err *err); /* locks the file against other writers (OFD lock) */
void block_close(struct block *b); /* all queues freed before; NULL is allowed */
uint64_t block_size(const struct block *b); /* bytes, multiple of 512 */
bool block_readonly(const struct block *b);
const char *block_path(const struct block *b);
const char *block_format(const struct block *b);

struct block_stats {
	uint64_t rd_ops, wr_ops, flush_ops, discard_ops, rd_bytes, wr_bytes, rd_ns, wr_ns, flush_ns, failed;
};
/* Another size, while queues work: -EACCES, -EINVAL, or what the file system says. Main loop's thread. */
int block_resize(struct block *b, uint64_t size, struct err *err);
uint64_t block_allocated(const struct block *b); /* bytes of the host's storage it takes */
void block_get_stats(struct block *b, struct block_stats *s);

/*
 * Limit its speed. NULL: no limits. group: share them, and all later changes, with every block that is given that
 * name; NULL: keep the group it is in. Requests that wait then are judged anew. Any thread.
 */
int block_set_throttle(struct block *b, const char *group, const struct throttle_limits *l, struct err *err);
/* False: there are none. *group, which may be NULL, stays the block's. */
bool block_get_throttle(struct block *b, struct throttle_limits *l, const char **group);

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_WRITE_ZEROES };
struct block_request {
	enum block_op op;
	uint64_t offset, len;
	const struct iovec *iov; /* READ, WRITE: sums up to len; valid until done */
	int niov;
	bool fua;    /* WRITE: on stable storage before done */
	bool unmap;  /* WRITE_ZEROES: space may be given back */
	void (*done)(struct block_request *r, int ret); /* 0 or negative errno */
	void *opaque;
	/* block.c's own */
	struct block_request *next;
	uint64_t started;
	uint64_t progress;
	struct iovec rest[2];
};

struct block_queue *block_queue_new(struct block *b, struct loop *loop, unsigned depth, struct err *err);
void block_queue_free(struct block_queue *q); /* drains; in the loop's thread or while it does not run */
/* Queue a request; done() comes later, never from inside. The loop's thread only. block_kick() sends what was queued. */
void block_submit(struct block_queue *q, struct block_request *r);
void block_kick(struct block_queue *q);
/* Wait until nothing is in flight. The loop's thread or while it does not run. */
void block_drain(struct block_queue *q);
