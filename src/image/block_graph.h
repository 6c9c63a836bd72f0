/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is done to open blocks while devices use them: pauses, watches on what
 * is written, other contents. Devices keep their struct block and their queues
 * for as long as they live; what lies behind may be replaced.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "image/block.h"
#include "image/image.h"

/*
 * Nothing starts any more, and nothing is in flight when it returns; jobs' own
 * queues go on. Pauses nest. Any thread, but for one that a watch waits for.
 */
void block_pause(struct block *b);
void block_resume(struct block *b);

/*
 * Told of each WRITE, WRITE_ZEROES and DISCARD in the queue's thread: before it
 * starts and after it ended, well or not. True: it waits until
 * block_release(step), from any thread. Comes and goes while the block is paused.
 */
struct step;
struct block_watch {
	bool (*before)(struct block_watch *w, const struct block_request *r, struct step *step);	 /* or NULL */
	bool (*after)(struct block_watch *w, const struct block_request *r, int ret, struct step *step); /* or NULL */
	struct block_watch *next;
};
void block_watch_add(struct block *b, struct block_watch *w);
void block_watch_del(struct block *b, struct block_watch *w);
void block_release(struct step *step);

/* As block_queue_new(), for a job: it works while the block is paused and is not watched, limited or counted. */
struct block_queue *block_queue_new_internal(struct block *b, struct loop *loop, unsigned depth, struct err *err);

/* Exchange what two blocks of the same size contain. Both are paused, or used by nobody. */
void block_swap(struct block *a, struct block *b);

/* What lies at offset, as image_map_above(): depth 0 is the image that is written. */
int block_map(struct block *b, unsigned levels, uint64_t offset, uint64_t len, struct image_extent *e, struct err *err);
/* Caching is done as with this other block from now on: for contents that take its place. Nobody uses b. */
int block_adopt_cache(struct block *b, const struct block *like, struct err *err);
struct qcow2 *block_qcow2(const struct block *b); /* or NULL */
/* Everything that was written is on stable storage. */
int block_sync(struct block *b, struct err *err);

/* The image below it in its backing chain at this depth (1: the next), or NULL. It stays the chain's. */
struct image *block_backing(const struct block *b, unsigned depth);
unsigned block_depth(const struct block *b); /* how many are below */

/* A block that nothing uses becomes an image, as one that backs others, for reading; and back. NULL: as it was, and
 * err. */
struct image *block_into_image(struct block *b, struct err *err);
struct block *block_from_image(struct image *img, struct err *err);
