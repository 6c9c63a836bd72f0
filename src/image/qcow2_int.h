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
 *   qcow2_share.c      references of whole trees of tables, for snapshots
 *   qcow2_snapshot.c   internal snapshots
 *   qcow2_prealloc.c   space for all of an image at once
 *   qcow2_bitmap.c     persistent dirty bitmaps
 *   qcow2_crypto.c     encryption
 *   qcow2_check.c      consistency, repair
 *
 * Order on the disk. Data and refcount increments go before the L2 entries that
 * use them, L2 tables before the L1 entries that name them, and a cluster's
 * refcount is only taken down when nothing on the disk names it any more
 * (`frees`). So a crash leaks clusters and never shares one.
 *
 * Everything but the public functions is called with q->lock held. It is let go
 * while guest data is read or written (qcow2_data_*): the clusters in use then
 * stay allocated (`users`: frees wait for them), and the guest clusters that a
 * writer works on are its own (`busy`). What changes the image as a whole waits
 * for all of these and keeps the lock to its end (qcow2_exclusive_begin()).
 * Tables in memory may be replaced whenever the lock was let go.
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
#define Q_AUTOCLEAR_DATA_RAW 2ull

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

/* Guest clusters [first, last] that a writer works on. */
struct qcow2_range {
	uint64_t first, last;
	struct qcow2_range *next;
};

struct qcow2 {
	pthread_mutex_t lock;
	pthread_cond_t idle; /* users or busy became none, or a range free */
	unsigned users;	     /* of clusters, without the lock; atomic */
	unsigned draining;   /* somebody waits for users to end: no new ones; atomic */
	unsigned excluding;  /* … and for writers, too */
	bool exclusive;	     /* keep the lock */
	struct qcow2_range *busy;
	qcow2_hook hook;
	void *hook_opaque;

	int fd;
	int data_fd;		     /* where guest clusters are: fd or an external data file's */
	int direct_fd;		     /* or -1: data_fd's file without the page cache */
	char *data_name, *data_path; /* of the external data file, or NULL */
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

	struct luks *luks; /* or NULL */
	uint64_t crypto_offset, crypto_length; /* of the LUKS header; 0: none */

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
	struct qcow2_bitmap *bitmaps;
	unsigned nbitmaps;
	bool has_bitmaps; /* the header has the extension */
	bool tracking;
	uint64_t bitmap_dir, bitmap_dir_size;
	uint64_t hint; /* no free cluster below */
	struct qcow2_free *frees;
	size_t nfrees, frees_room;
	uint64_t comp_next; /* byte where the next compressed cluster may go; 0: none */

	/* Clusters that hold metadata, an open-addressing set of cluster number + 1: nothing else may be written there.
	 */
	uint64_t *meta;
	size_t meta_used, meta_room;
	uint8_t *unzip;	   /* a cluster */
	uint64_t unzip_of; /* entry that `unzip` holds; 0: none */
};

#define LAZY(q) ((q)->h.compat & Q_COMPAT_LAZY)
#define EXTENDED(q) ((q)->h.incompat & Q_INCOMPAT_EXTENDED_L2)
#define DATA_FILE(q) ((q)->h.incompat & Q_INCOMPAT_DATA_FILE)
#define DATA_RAW(q) (DATA_FILE(q) && (q)->h.autoclear & Q_AUTOCLEAR_DATA_RAW)

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
/* What clusters of guest data have, as it is on the disk. */
int qcow2_host_read(struct qcow2 *q, uint64_t host, void *buf, size_t len, struct err *err);
int qcow2_host_write(struct qcow2 *q, uint64_t host, const void *buf, size_t len, struct err *err);
/* Guest data in clusters at `host`; the lock is let go meanwhile. */
int qcow2_data_read(struct qcow2 *q, uint64_t host, void *buf, size_t len, struct err *err);
int qcow2_data_write(struct qcow2 *q, uint64_t host, const void *buf, size_t len, struct err *err);
void qcow2_punch(struct qcow2 *q, int fd, uint64_t offset, uint64_t len);
bool qcow2_unlock_for_data(struct qcow2 *q); /* false: the lock is kept */
void qcow2_lock_after_data(struct qcow2 *q, bool unlocked);
void qcow2_drain(struct qcow2 *q); /* no users; lets the lock go for that */
void qcow2_undrain(struct qcow2 *q);
void qcow2_range_lock(struct qcow2 *q, struct qcow2_range *r, uint64_t offset, uint64_t len);
void qcow2_range_unlock(struct qcow2 *q, struct qcow2_range *r);
void qcow2_exclusive_begin(struct qcow2 *q); /* locks */
void qcow2_exclusive_end(struct qcow2 *q);
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
/* What stands in the header's cluster behind the fixed fields. */
struct qcow2_names {
	const char *backing, *backing_format, *data_file; /* or NULL */
	uint64_t crypto_offset, crypto_length; /* of a new image's LUKS header; 0: none */
	bool set_bitmaps;
	const uint8_t *bitmaps; /* 24 bytes, or NULL: none */
};
/* Write it anew with another backing file. */
int qcow2_header_update(struct qcow2 *q, const struct qcow2_names *names, struct err *err);
size_t qcow2_header_build(const struct qcow2_header *h, const struct qcow2_names *names, uint8_t *buf, size_t room);
void qcow2_header_encode(const struct qcow2_header *h, uint8_t *buf);

/* qcow2_cache.c */
int qcow2_cache_init(struct qcow2_cache *c, const char *what, unsigned max);
void qcow2_cache_free(struct qcow2_cache *c);
int qcow2_cache_get(struct qcow2 *q, struct qcow2_cache *c, uint64_t offset, bool fresh, struct qcow2_table **out,
		    struct err *err);
struct qcow2_table *qcow2_cache_find(struct qcow2_cache *c, uint64_t offset); /* or NULL */
void qcow2_cache_drop(struct qcow2_cache *c, uint64_t offset);		      /* forget, dirty or not */
void qcow2_cache_dirty(struct qcow2_cache *c, struct qcow2_table *t);
/* Everything dirty to the file; clusters that were only waiting for that become free, for which the lock is let go. */
int qcow2_writeback(struct qcow2 *q, struct err *err);
int qcow2_writeback_tables(struct qcow2 *q, struct err *err); /* without freeing anything */

/* qcow2_refcount.c */
int qcow2_alloc_data(struct qcow2 *q, uint64_t cluster, uint64_t *host, struct err *err); /* for this guest cluster */
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
	bool allocated;		   /* there is a cluster, at … */
	uint64_t host;		   /* … this offset in the data file */
	bool private;		   /* host may be written in place */
};
int qcow2_lookup(struct qcow2 *q, uint64_t offset, struct qcow2_entry *e, struct err *err);
bool qcow2_lookup_cached(struct qcow2 *q, uint64_t offset, struct qcow2_entry *e); /* false: it would take I/O */
void qcow2_set_l1(struct qcow2 *q, uint32_t i, uint64_t entry);
int qcow2_lookup_write(struct qcow2 *q, uint64_t offset, struct qcow2_entry *e,
		       struct err *err); /* the table is ours and there */
int qcow2_kind_at(struct qcow2 *q, const struct qcow2_entry *e, uint64_t in, enum qcow2_kind *kind, struct err *err);
void qcow2_entry_store(struct qcow2 *q, struct qcow2_entry *e, uint64_t entry, uint64_t bitmap);
void qcow2_packed_range(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *bytes);
int qcow2_release(struct qcow2 *q, const struct qcow2_entry *e, struct err *err); /* what the entry used */

/* qcow2_create.c */
int qcow2_do_resize(struct qcow2 *q, uint64_t size, struct err *err);

/* qcow2_prealloc.c */
int qcow2_do_preallocate(struct qcow2 *q, uint64_t from, uint64_t *end, struct err *err);

/* qcow2_io.c */
int qcow2_begin_write(struct qcow2 *q, struct err *err);
int qcow2_do_write(struct qcow2 *q, uint64_t offset, const uint8_t *buf, size_t len, struct err *err);
int qcow2_do_zero(struct qcow2 *q, uint64_t offset, uint64_t len, bool unmap, struct err *err);
int qcow2_do_discard(struct qcow2 *q, uint64_t offset, uint64_t len, struct err *err);
int qcow2_do_flush(struct qcow2 *q, struct err *err);

/* qcow2_compress.c: len bytes at `in` in a compressed cluster */
int qcow2_unpack(struct qcow2 *q, uint64_t entry, uint64_t in, uint8_t *buf, size_t len, struct err *err);

/* qcow2_share.c */
/* One more (+1) or less (-1) reference to all that an L1 table names, in host order. +1 clears the flags "not shared"
 * in the L2 tables, and undoes itself if it fails. */
int qcow2_share(struct qcow2 *q, const uint64_t *l1, uint64_t n, int delta, struct err *err);
/* Set the flags "not shared" in the active tables as the refcounts are. */
int qcow2_set_flags(struct qcow2 *q, struct err *err);
/* A cluster-aligned copy of n entries in new clusters. */
int qcow2_write_l1(struct qcow2 *q, const uint64_t *l1, uint64_t n, uint64_t *offset, struct err *err);
int qcow2_read_l1(struct qcow2 *q, uint64_t offset, uint64_t n, uint64_t **l1, struct err *err);

/* qcow2_snapshot.c */
int qcow2_snapshots_read(struct qcow2 *q, struct err *err);
void qcow2_snapshots_free(struct qcow2 *q);
/* Snapshots get their own disk size, where they have none, before the image's changes. */
int qcow2_snapshots_keep_size(struct qcow2 *q, struct err *err);

/* qcow2_bitmap.c */
int qcow2_bitmaps_read(struct qcow2 *q, struct err *err);
void qcow2_bitmaps_free(struct qcow2 *q);
int qcow2_bitmaps_each(struct qcow2 *q,
		       int (*fn)(void *opaque, uint64_t offset, uint64_t bytes, const char *what, struct err *err),
		       void *opaque, struct err *err);
int qcow2_bitmaps_begin(struct qcow2 *q, struct err *err); /* before the first write */
void qcow2_bitmaps_mark(struct qcow2 *q, uint64_t offset, uint64_t len);
int qcow2_bitmaps_end(struct qcow2 *q, struct err *err);   /* after the last */
int qcow2_bitmaps_store(struct qcow2 *q, struct err *err); /* in between */
int qcow2_bitmaps_resize(struct qcow2 *q, uint64_t size, struct err *err);

/* qcow2_crypto.c */
int qcow2_crypto_create(struct qcow2 *q, const struct luks_options *o, struct err *err); /* at q->crypto_offset */
int qcow2_crypto_open(struct qcow2 *q, const char *key_secret, struct err *err);
int qcow2_crypto_read(struct qcow2 *q, uint64_t host, void *buf, size_t len, struct err *err);
int qcow2_crypto_write(struct qcow2 *q, uint64_t host, const void *buf, size_t len, struct err *err);

/* qcow2_check.c */
int qcow2_do_check(struct qcow2 *q, enum qcow2_fix fix, struct qcow2_check *c, struct err *err);
