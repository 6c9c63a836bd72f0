/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside the block layer:
 *
 *   block.c   opening, options, stats
 *   block_graph.c  what is done to open blocks: pauses, watches, other contents
 *   probe.c   what an image looks like
 *   lock.c    one writer a file
 *   throttle.c  when requests may start
 *   nbd.c     disks that servers have
 *   queue.c   requests: split into steps, bounce, continue, complete
 *   uring.c   steps through io_uring
 *   pool.c    steps through a few threads, where io_uring is refused, and qcow2's
 *             where its tables must be read or written
 *   image.c   images of any format, synchronously, and their backing chains
 *   qcow2*.c  qcow2_int.h tells
 */
#pragma once
#include <pthread.h>

#include "image/block.h"
#include "image/block_graph.h"

#define BLOCK_SECTOR 512u
#define BLOCK_BOUNCE (1u << 20) /* largest step through a bounce buffer */

struct qcow2;
struct remote;

struct block {
	/* The front, which stays when contents are exchanged (block_swap()) */
	pthread_mutex_t lock;
	struct block_queue *queues; /* under lock */
	struct throttle *throttle;  /* or NULL; changed under lock */
	unsigned paused;            /* nothing starts; changed under lock, read atomically */
	pthread_cond_t woken;       /* with lock: a queue became idle, a pause ended, a request may go on */
	struct block_watch *watches; /* changed while paused */
	struct block_stats stats; /* atomic */
	/* The contents: fd and all that follows */
	int fd;             /* -1: qcow2 has it */
	struct block_bitmap *bitmaps; /* not persistent ones; the main loop's */
	struct qcow2 *qcow2; /* or NULL: raw */
	struct remote *remote; /* or NULL */
	int plain_fd;       /* or -1; without O_DIRECT, for requests smaller than the sectors of direct I/O */
	char *path;
	bool readonly, no_backing, device, direct, dsync, unsafe;
	uint64_t size;      /* rounded up to sectors */
	uint64_t real_size; /* beyond it reads give zeroes */
	unsigned mem_align, off_align; /* direct I/O */
	int data_fd[2];     /* qcow2's file with guest data, as steps use it and without O_DIRECT; qcow2 owns them */
	bool no_punch, no_zero; /* the file system said so; atomic */
};

enum step_kind {
	STEP_NOP,   /* completes with `result` */
	STEP_READ, STEP_WRITE, STEP_SYNC,
	STEP_FALLOCATE, /* `mode` */
	STEP_DISCARD,   /* BLKDISCARD */
	STEP_QCOW2,     /* the whole request */
	STEP_REMOTE,    /* the same */
};

/* One system call in flight for a request. */
struct step {
	struct block_queue *q;
	struct block_request *r;
	enum step_kind kind;
	bool plain;  /* plain_fd */
	int mode, flags; /* fallocate mode; RWF_* */
	uint64_t offset, len;
	bool pinned;   /* in a qcow2 file, from `host` on */
	uint64_t host;
	const struct iovec *iov;
	int niov;
	void *bounce;
	bool synced; /* the sync that follows a zeroing under write-through was sent */
	bool ended;  /* with `ret`: only watches are left to be told */
	int ret;
	struct block_watch *watch; /* the next to be asked */
	int result;
	struct step *next;
};

struct pool;
struct uring;

struct block_queue {
	struct block *b;
	struct block_queue *next; /* of the block's */
	struct loop *loop;
	struct step *steps, *free;
	unsigned depth, inflight; /* inflight: atomic */
	struct block_request *pending, **pending_end;
	bool reaping; /* inside completions: kicks wait */
	bool unlimited; /* drained: nothing waits for its turn */
	bool internal;  /* of a job: not paused, watched, counted or limited */
	struct step *released; /* under the block's lock: their watches let them go on */
	struct timer *turn; /* made when first needed */
	struct { /* what reads, and what writes: the first that waits, and until when */
		const struct block_request *r;
		struct throttle *throttle;
		unsigned generation;
		uint64_t start;
	} waiting[2];
	struct uring *uring; /* or NULL */
	struct pool *pool;   /* made when first needed */
	uint8_t *zeroes;     /* BLOCK_ZEROES bytes, made when first needed */
	struct iovec zero_iov[16];
};
#define BLOCK_ZEROES 65536u

enum queue_backend { QUEUE_AUTO, QUEUE_URING, QUEUE_POOL };
/* As block_queue_new(), with a say in the back end, for tests. */
struct block_queue *queue_new(struct block *b, struct loop *loop, unsigned depth, enum queue_backend backend,
			      struct err *err);

/* A step ended with step->result. The queue's thread. */
void queue_complete(struct step *s);
/* Have the queue's thread look at what may go on. With the block's lock held. */
void queue_wake(struct block_queue *q);
/* After a batch of queue_complete(): start what waits. */
void queue_reaped(struct block_queue *q);

/* The block has other contents now; nothing is in flight. Any thread. */
void uring_refile(struct uring *u);
struct uring *uring_new(struct block_queue *q, struct err *err);
void uring_free(struct uring *u);
void uring_add(struct uring *u, struct step *s); /* goes out with uring_send() */
void uring_send(struct uring *u);
bool uring_busy(const struct uring *u);
void uring_wait(struct uring *u); /* for at least one completion */
/* Wait for what is on its way without completing it: that comes in the loop. Nothing is pinned then. */
void uring_hold(struct uring *u);
/* Before an image changes as a whole, in whatever thread: the queues of this thread pin nothing. */
void queues_let_go(struct block *b);
int queue_fd(const struct block *b, bool plain);

struct pool *pool_new(struct block_queue *q, struct err *err);
void pool_free(struct pool *p);
void pool_add(struct pool *p, struct step *s);
bool pool_busy(const struct pool *p);
void pool_wait(struct pool *p);

/* Name of the format that the image's first and last bytes show, or NULL. -errno on a read error. */
int probe_format(int fd, uint64_t size, const char **format);

/* Share the file with readers and writers as one of either should. -EBUSY and a sentence if somebody is in the way. */
int lock_image(int fd, const char *path, bool write, struct err *err);
/* Before closing: an io_uring that held the file keeps it, and its locks, for a while after that. */
void unlock_image(int fd);
