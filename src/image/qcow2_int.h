/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside qcow2:
 *
 *   qcow2.c            opening, closing, file access
 *   qcow2_header.c     the header and its extensions, both ways
 *   qcow2_create.c     new images, resizing
 *   qcow2_cache.c      L2 tables and refcount blocks in memory, the order they are written in
 *   qcow2_refcount.c   refcounts, allocation and release of clusters
 *   qcow2_map.c        guest offset to L2 entry
 *   qcow2_io.c         reads, writes, zeroes, discards
 *   qcow2_compress.c   compressed clusters
 *   qcow2_snapshot.c   the snapshot table
 *   qcow2_check.c      consistency, repair
 *
 * Order on the disk. Data and refcount increments go before the L2 entries that
 * use them, L2 tables before the L1 entries that name them, and a cluster's
 * refcount is only taken down when nothing on the disk names it any more
 * (`frees`). So a crash leaks clusters and never shares one.
 *
 * Everything but the public functions is called with q->lock held.
 */
#pragma once
#include <endian.h>
#include <pthread.h>
#include <string.h>

#include "image/qcow2.h"

#define QCOW2_MAGIC 0x514649fbu
#define QCOW2_MAX_L1 (32u << 20) /* bytes; the limits QEMU has, too */
#define QCOW2_MAX_REFTABLE (8u << 20)
#define QCOW2_MAX_SNAPSHOTS 65536u
#define QCOW2_MAX_SNAPSHOT_TABLE (64u << 20)
#define QCOW2_MIN_BITS 9
#define QCOW2_MAX_BITS 21
#define QCOW2_L2_CACHE (32u << 20) /* bytes: 64 KiB clusters and 256 GiB; as much of it as the disk needs */
#define QCOW2_REF_CACHE (4u << 20)

#define Q_INCOMPAT_DIRTY 1ull
#define Q_INCOMPAT_CORRUPT 2ull
#define Q_INCOMPAT_DATA_FILE 4ull
#define Q_INCOMPAT_COMPRESSION 8ull
#define Q_INCOMPAT_EXTENDED_L2 16ull
#define Q_COMPAT_LAZY 1ull
#define Q_AUTOCLEAR_BITMAPS 1ull

#define Q_OFFSET 0x00fffffffffffe00ull /* bits 9 to 55 of L1, L2 and refcount table entries */
#define Q_COPIED (1ull << 63)
#define Q_COMPRESSED (1ull << 62)
#define Q_ZERO 1ull

/* The header, host byte order. */
struct qcow2_header {
	uint32_t version, cluster_bits, crypt_method, l1_size, reftable_clusters, nb_snapshots, refcount_order,
		header_length;
	uint64_t backing_offset, size, l1_offset, reftable_offset, snapshots_offset;
	uint64_t incompat, compat, autoclear;
	uint32_t backing_size;
	uint8_t compression;
};

struct qcow2_table {
	uint64_t offset;
	uint8_t *data; /* a cluster, as on the disk */
	bool dirty;
	struct qcow2_table *chain, *newer, *older;
};

struct qcow2_cache {
	const char *what;
	unsigned max, count, buckets;
	unsigned ndirty;
	struct qcow2_table **bucket;
	struct qcow2_table *newest, *oldest;
};

struct qcow2_free {
	uint64_t cluster, count;
};

struct qcow2 {
	pthread_mutex_t lock;
	int fd;
	char *path;
	unsigned flags;
	bool writable;
	bool touched; /* the header says that we write */
	bool broken;  /* found corrupt in use: no more writes */
	bool repairing;
	bool no_punch;
	struct qcow2_header h;
	uint64_t cluster_size, file_end; /* file_end: bytes, not below the file's size */
	unsigned l2_bits;		 /* log2 of entries in an L2 table */
	unsigned unit_bits;		 /* log2 of subcluster (or cluster) size */
	unsigned ref_bits;		 /* log2 of entries in a refcount block */

	char *backing_name, *backing_format;
	char *feature_names[64]; /* of incompatible features, by bit, from the image's own table */
	struct image *backing;

	uint64_t *l1; /* host order, h.l1_size entries */
	uint32_t l1_dirty_from, l1_dirty_to;
	uint64_t *reftable; /* host order */
	uint64_t reftable_len;
	struct qcow2_snapshot *snapshots;
	uint64_t snapshots_bytes;

	struct qcow2_cache l2, refs;
	uint64_t hint; /* no free cluster below */
	struct qcow2_free *frees;
	size_t nfrees, frees_room;
	uint64_t comp_next; /* byte where the next compressed cluster may go; 0: none */

	/* Clusters that hold metadata, an open-addressing set of cluster number + 1: nothing else may be written there.
	 */
	uint64_t *meta;
	size_t meta_used, meta_room;
	uint8_t *zip, *unzip; /* a cluster and some */
	uint64_t unzip_of;    /* entry that `unzip` holds; 0: none */
};

#define LAZY(q) ((q)->h.compat & Q_COMPAT_LAZY)
#define EXTENDED(q) ((q)->h.incompat & Q_INCOMPAT_EXTENDED_L2)

static inline uint64_t q_round_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

static inline uint64_t q_in_cluster(const struct qcow2 *q, uint64_t n)
{
	return n & (q->cluster_size - 1);
}

static inline uint64_t q_clusters(const struct qcow2 *q, uint64_t bytes)
{
	return (bytes >> q->h.cluster_bits) + !!q_in_cluster(q, bytes);
}

/* qcow2.c */
int qcow2_file_read(struct qcow2 *q, uint64_t offset, void *buf, size_t len, const char *what,
		    struct err *err); /* all of it or an error */
int qcow2_file_read_data(struct qcow2 *q, uint64_t offset, void *buf, size_t len,
			 struct err *err); /* zeroes past the file's end */
int qcow2_file_write(struct qcow2 *q, uint64_t offset, const void *buf, size_t len, struct err *err);
int qcow2_sync(struct qcow2 *q, struct err *err);
/* The image is wrong: say so, mark it, and write no more. Returns -EIO. */
int qcow2_corrupt(struct qcow2 *q, struct err *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int qcow2_meta_add(struct qcow2 *q, uint64_t offset, uint64_t bytes, bool shared, const char *what, struct err *err);
void qcow2_meta_del(struct qcow2 *q, uint64_t offset, uint64_t bytes);
bool qcow2_meta_has(const struct qcow2 *q, uint64_t offset);
/* A table at offset: aligned, inside the file? */
int qcow2_bound(struct qcow2 *q, uint64_t offset, uint64_t bytes, const char *what, struct err *err);

/* qcow2_header.c */
int qcow2_header_read(struct qcow2 *q, struct err *err);
int qcow2_header_write(struct qcow2 *q, struct err *err); /* the fixed fields */
size_t qcow2_header_build(const struct qcow2_header *h, const char *backing, const char *backing_format, uint8_t *buf,
			  size_t room);
void qcow2_header_encode(const struct qcow2_header *h, uint8_t *buf);

/* qcow2_cache.c */
int qcow2_cache_init(struct qcow2_cache *c, const char *what, unsigned max);
void qcow2_cache_free(struct qcow2_cache *c);
int qcow2_cache_get(struct qcow2 *q, struct qcow2_cache *c, uint64_t offset, bool fresh, struct qcow2_table **out,
		    struct err *err);
void qcow2_cache_drop(struct qcow2_cache *c, uint64_t offset); /* forget, dirty or not */
void qcow2_cache_dirty(struct qcow2_cache *c, struct qcow2_table *t);
int qcow2_writeback(struct qcow2 *q, struct err *err);

/* qcow2_refcount.c */
uint64_t qcow2_ref_entry(const struct qcow2 *q, const uint8_t *block, uint64_t i);
void qcow2_ref_set_entry(const struct qcow2 *q, uint8_t *block, uint64_t i, uint64_t value);
int qcow2_ref_get(struct qcow2 *q, uint64_t cluster, uint64_t *count, struct err *err);
int qcow2_ref_set(struct qcow2 *q, uint64_t cluster, uint64_t count, struct err *err); /* its block exists */
uint64_t qcow2_ref_max(const struct qcow2 *q);
int qcow2_alloc(struct qcow2 *q, uint64_t clusters, uint64_t *offset, struct err *err);
/* When the metadata that named them is on the disk, these clusters lose a reference. */
int qcow2_free_later(struct qcow2 *q, uint64_t offset, uint64_t bytes, struct err *err);
int qcow2_free_now(struct qcow2 *q, uint64_t cluster, uint64_t count, struct err *err);
int qcow2_apply_frees(struct qcow2 *q, struct err *err);
/* How many clusters the blocks, and the table, take that describe `n` others and themselves. */
void qcow2_ref_layout(unsigned cluster_bits, unsigned ref_bits, uint64_t first, uint64_t n, uint64_t slack,
		      uint64_t *blocks, uint64_t *table);

/* qcow2_map.c */
enum qcow2_kind { Q_UNALLOCATED, Q_ZERO_PLAIN, Q_ZERO_ALLOCATED, Q_NORMAL, Q_PACKED };
struct qcow2_entry {
	struct qcow2_table *table; /* NULL: no L2 table there */
	unsigned index;		   /* in the table */
	uint64_t entry, bitmap;	   /* bitmap: extended L2 */
	uint64_t host;		   /* cluster's offset in the file; 0: none */
	bool private;		   /* host may be written in place */
};
int qcow2_lookup(struct qcow2 *q, uint64_t offset, struct qcow2_entry *e, struct err *err);
int qcow2_lookup_write(struct qcow2 *q, uint64_t offset, struct qcow2_entry *e,
		       struct err *err); /* the table is ours and there */
int qcow2_kind_at(struct qcow2 *q, const struct qcow2_entry *e, uint64_t in, enum qcow2_kind *kind, struct err *err);
void qcow2_entry_store(struct qcow2 *q, struct qcow2_entry *e, uint64_t entry, uint64_t bitmap);
void qcow2_packed_range(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *bytes);
int qcow2_release(struct qcow2 *q, const struct qcow2_entry *e, struct err *err); /* what the entry used */

/* qcow2_io.c */
int qcow2_begin_write(struct qcow2 *q, struct err *err);
int qcow2_do_write(struct qcow2 *q, uint64_t offset, const uint8_t *buf, size_t len, struct err *err);
int qcow2_do_zero(struct qcow2 *q, uint64_t offset, uint64_t len, bool unmap, struct err *err);
int qcow2_do_discard(struct qcow2 *q, uint64_t offset, uint64_t len, struct err *err);
int qcow2_do_flush(struct qcow2 *q, struct err *err);

/* qcow2_compress.c */
int qcow2_unpack(struct qcow2 *q, uint64_t entry, const uint8_t **data, struct err *err);

/* qcow2_snapshot.c */
int qcow2_snapshots_read(struct qcow2 *q, struct err *err);
void qcow2_snapshots_free(struct qcow2 *q);

/* qcow2_check.c */
int qcow2_do_check(struct qcow2 *q, enum qcow2_fix fix, struct qcow2_check *c, struct err *err);
