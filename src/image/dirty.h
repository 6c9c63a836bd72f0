/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which parts of a disk are dirty: a bit for so many bytes. No locks: whoever
 * shares one has one. Ranges past the end are cut.
 *
 * A struct block_bitmap is one on an open block, with a name, that gets its
 * bits by what is written (QMP's block-dirty-bitmap-add); thread-safe.
 */
#pragma once
#include "image/block_graph.h"

struct dirty {
	uint64_t size, nbits, count; /* bytes; bits; how many are set */
	unsigned shift;		     /* log2 of bytes a bit */
	uint64_t *bits;
};
int dirty_init(struct dirty *d, uint64_t size, unsigned granularity, struct err *err);
void dirty_free(struct dirty *d);
void dirty_set(struct dirty *d, uint64_t offset, uint64_t len);	  /* each bit that the range touches */
void dirty_clear(struct dirty *d, uint64_t offset, uint64_t len); /* the same */
bool dirty_any(const struct dirty *d, uint64_t offset, uint64_t len);
/* The first dirty stretch that ends after *offset, from there on and at most `most` bytes long. False: none. */
bool dirty_next(const struct dirty *d, uint64_t *offset, uint64_t *len, uint64_t most);

struct block_bitmap;
/* Of a qcow2 image's own, persistent bitmaps, too, wherever a name is given. granularity 0: the default. */
int block_bitmap_add(struct block *b, const char *name, unsigned granularity, bool persistent, bool enabled,
		     struct err *err);
int block_bitmap_remove(struct block *b, const char *name, struct err *err);
int block_bitmap_clear(struct block *b, const char *name, struct err *err);
int block_bitmap_enable(struct block *b, const char *name, bool on, struct err *err);
/* Also set what `source` of another block of that size has set. */
int block_bitmap_merge(struct block *b, const char *name, struct block *from, const char *source, struct err *err);
/* A copy of its bits, with the bitmap's own granularity unless `d` was made before. */
int block_bitmap_read(struct block *b, const char *name, struct dirty *d, struct err *err);
/* Set these bits, too. */
int block_bitmap_add_bits(struct block *b, const char *name, const struct dirty *d, struct err *err);

struct block_bitmap_info {
	char name[1024];
	unsigned granularity;
	bool enabled, persistent, in_use;
	uint64_t count; /* dirty bytes */
};
/* The i-th, or false. */
bool block_bitmap_get(struct block *b, unsigned i, struct block_bitmap_info *info);
bool block_bitmap_exists(struct block *b, const char *name);
void block_bitmaps_watch(struct block *b, bool on); /* for block_swap() */
void block_bitmaps_free(struct block *b);	    /* those that are not persistent; block_close() does it */
