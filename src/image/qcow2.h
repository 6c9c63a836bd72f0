/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qcow2 images, versions 2 and 3 (QEMU docs/interop/qcow2).
 *
 * Synchronous, thread-safe; many threads read and write at the same time.
 * Offsets and lengths are bytes without alignment; ranges past the end give
 * -EINVAL. Functions return 0 or a negative errno and a sentence that names the
 * image and the field.
 *
 * What was written is on stable storage after qcow2_flush(). A crash at any
 * moment leaves a consistent image, at most with leaked clusters, or one marked
 * dirty if it has lazy refcounts; that is repaired when it is next opened for
 * writing. A crash while a snapshot is made, applied or deleted may also leave
 * flags "not shared" behind that disagree with refcounts, on the safe side.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/image.h"
#include "image/luks.h"

struct qcow2;

enum qcow2_compression { QCOW2_ZLIB, QCOW2_ZSTD };

struct qcow2_create_options {
	uint64_t size;		/* rounded up to 512 */
	unsigned version;	/* 2 or 3; 0: 3 */
	unsigned cluster_bits;	/* 9 to 21; 0: 16 */
	unsigned refcount_bits; /* 1 to 64, a power of two; 0: 16 */
	bool lazy_refcounts, extended_l2;
	enum qcow2_compression compression;
	const char *backing, *backing_format; /* or NULL */
	const char *data_file; /* or NULL: a name, relative to the image, of an existing empty file for guest data */
	bool data_file_raw;    /* which reads as the disk by itself */
	const struct luks_options *luks; /* or NULL: not encrypted */
};

/* Make an empty image in fd, which must be empty and open for both; path is for messages. */
int qcow2_create(int fd, const char *path, const struct qcow2_create_options *o, struct err *err);
/* The bytes that the file of an image with these options has at most, with `data` of guest data allocated. 0:
 * impossible. */
uint64_t qcow2_measure(const struct qcow2_create_options *o, uint64_t data);

/* fd is taken over, in failure too. up: see image.h. */
struct qcow2 *qcow2_open(int fd, const char *path, unsigned flags, const struct image_chain *up, struct err *err);
int qcow2_close(struct qcow2 *q, struct err *err);

uint64_t qcow2_size(struct qcow2 *q);
int qcow2_read(struct qcow2 *q, uint64_t offset, void *buf, size_t len, struct err *err);
int qcow2_write(struct qcow2 *q, uint64_t offset, const void *buf, size_t len, struct err *err);
/* One cluster (or what is left of the image at its end), compressed where that is shorter. */
int qcow2_write_compressed(struct qcow2 *q, uint64_t offset, const void *buf, size_t len, struct err *err);
/* Makes zeroes; unmap gives their space back. */
int qcow2_zero(struct qcow2 *q, uint64_t offset, uint64_t len, bool unmap, struct err *err);
/* Whole clusters give their space back and read as zeroes afterwards; the rest stays as it is. */
int qcow2_discard(struct qcow2 *q, uint64_t offset, uint64_t len, struct err *err);
int qcow2_flush(struct qcow2 *q, struct err *err);
int qcow2_resize(struct qcow2 *q, uint64_t size, struct err *err);
int qcow2_map(struct qcow2 *q, uint64_t offset, uint64_t len, struct image_extent *e, struct err *err);
struct image *qcow2_backing(struct qcow2 *q); /* or NULL */
struct luks *qcow2_luks(struct qcow2 *q);     /* or NULL: not encrypted */
/* Read from another image (NULL: none) below; the header stays as it is. Returns the one before, the caller's now. */
struct image *qcow2_swap_backing(struct qcow2 *q, struct image *img);
int qcow2_set_writable(struct qcow2 *q, bool on, struct err *err);
int qcow2_fd(const struct qcow2 *q);
/* What only images below have in this range becomes the image's own; what guests see stays. */
int qcow2_pull(struct qcow2 *q, unsigned levels, uint64_t offset, uint64_t len, uint64_t *copied, struct err *err);
/* Name another backing file, NULL for none. What guests see may change with it. */
int qcow2_set_backing(struct qcow2 *q, const char *name, const char *format, struct err *err);
/* As it was when it was made: all reads come from the backing file. Snapshots stay. */
int qcow2_empty(struct qcow2 *q, struct err *err);
/* Give each guest cluster that has none a place in the file, without writing to it; *end: where the file ends then. */
int qcow2_preallocate(struct qcow2 *q, uint64_t from, uint64_t *end, struct err *err);

/*
 * The short way: where len bytes lie in the file, if they lie together and that
 * is known without I/O and without waiting. They stay there until
 * qcow2_unpin(). For writing, they may be written in place; sync: and doing so
 * is all that makes them durable. Any thread, also one that must not block.
 */
bool qcow2_pin(struct qcow2 *q, uint64_t offset, uint64_t len, bool write, bool sync, uint64_t *host);
void qcow2_unpin(struct qcow2 *q);
int qcow2_data_fd(const struct qcow2 *q); /* which file that is; it stays the image's */
const char *qcow2_data_path(const struct qcow2 *q);
/* Take guest data past the page cache by this descriptor, which is open with O_DIRECT on the image's (or its data)
 * file and is taken over. */
void qcow2_set_direct(struct qcow2 *q, int fd);

/* For tests: called before each access to the file. A negative errno fails it; *len may be made smaller. */
enum qcow2_op { QCOW2_OP_READ, QCOW2_OP_WRITE, QCOW2_OP_SYNC, QCOW2_OP_PUNCH };
typedef int (*qcow2_hook)(void *opaque, enum qcow2_op op, uint64_t offset, const void *buf, size_t *len);
void qcow2_set_hook(struct qcow2 *q, qcow2_hook hook, void *opaque);

struct qcow2_info {
	unsigned version, cluster_size, refcount_bits;
	bool lazy_refcounts, dirty, corrupt, extended_l2, bitmaps;
	enum qcow2_compression compression;
	const char *backing, *backing_format; /* or NULL; the image's */
	const char *data_file;		      /* or NULL */
	bool data_file_raw;
	unsigned snapshots;
};
void qcow2_get_info(struct qcow2 *q, struct qcow2_info *info);

struct qcow2_snapshot {
	char *id, *name;
	uint64_t l1_offset, l1_size;
	uint64_t vm_state_size, disk_size, vm_clock_ns, icount; /* icount UINT64_MAX: none */
	uint32_t date_sec, date_nsec;
	uint8_t *extra; /* as in the table */
	uint32_t extra_len;
};
/* The i-th, the image's. */
const struct qcow2_snapshot *qcow2_get_snapshot(struct qcow2 *q, unsigned i);
/* By id or, where none has that, by name; -ENOENT. */
int qcow2_snapshot_find(struct qcow2 *q, const char *name, unsigned *i, struct err *err);
int qcow2_snapshot_create(struct qcow2 *q, const char *name, struct err *err);
/* The disk becomes, and is as large as, what it was; the snapshot stays. */
int qcow2_snapshot_apply(struct qcow2 *q, unsigned i, struct err *err);
int qcow2_snapshot_delete(struct qcow2 *q, unsigned i, struct err *err);

/* Persistent dirty bitmaps. An enabled one gets its bits by whatever is written. */
struct qcow2_bitmap_info {
	const char *name;     /* the image's */
	uint32_t granularity; /* bytes a bit */
	bool enabled;
	bool in_use; /* was not closed: not complete, good for removal only */
};
unsigned qcow2_bitmap_count(struct qcow2 *q);
void qcow2_bitmap_get(struct qcow2 *q, unsigned i, struct qcow2_bitmap_info *info);
int qcow2_bitmap_add(struct qcow2 *q, const char *name, unsigned granularity /* 0: the default */, bool enabled,
		     struct err *err);
int qcow2_bitmap_remove(struct qcow2 *q, const char *name, struct err *err);
int qcow2_bitmap_clear(struct qcow2 *q, const char *name, struct err *err);
int qcow2_bitmap_enable(struct qcow2 *q, const char *name, bool on, struct err *err);
/* Set bits by hand, as a write of that range would. */
int qcow2_bitmap_set(struct qcow2 *q, const char *name, uint64_t offset, uint64_t len, struct err *err);
/* Also set what `source` in another (or the same) image has set; nobody else uses that meanwhile. */
int qcow2_bitmap_merge(struct qcow2 *q, const char *name, struct qcow2 *from, const char *source, struct err *err);
/* The next dirty stretch from *offset on; *len 0: none. */
int qcow2_bitmap_dirty(struct qcow2 *q, const char *name, uint64_t *offset, uint64_t *len, struct err *err);

enum qcow2_fix { QCOW2_FIX_NONE, QCOW2_FIX_LEAKS, QCOW2_FIX_ALL };
struct qcow2_check {
	uint64_t corruptions, leaks, corruptions_fixed, leaks_fixed, errors; /* errors: what could not be looked at */
	uint64_t end, total, allocated, fragmented, compressed;		 /* end in bytes, the others guest clusters */
	void (*report)(void *opaque, bool corruption, const char *text); /* or NULL */
	void *opaque;
};
/* Count all references. Negative: the check itself failed. The image must have been opened with IMAGE_CHECK. */
int qcow2_check(struct qcow2 *q, enum qcow2_fix fix, struct qcow2_check *c, struct err *err);
