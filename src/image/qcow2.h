/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qcow2 images, versions 2 and 3 (QEMU docs/interop/qcow2).
 *
 * Synchronous, thread-safe by one lock an image. Offsets and lengths are bytes
 * without alignment; ranges past the end give -EINVAL. Functions return 0 or a
 * negative errno and a sentence that names the image and the field.
 *
 * What was written is on stable storage after qcow2_flush(). A crash at any
 * moment leaves a consistent image, at most with leaked clusters, or one marked
 * dirty if it has lazy refcounts; that is repaired when it is next opened for
 * writing.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/image.h"

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

struct qcow2_info {
	unsigned version, cluster_size, refcount_bits;
	bool lazy_refcounts, dirty, corrupt, extended_l2, bitmaps;
	enum qcow2_compression compression;
	const char *backing, *backing_format; /* or NULL; the image's */
	unsigned snapshots;
};
void qcow2_get_info(struct qcow2 *q, struct qcow2_info *info);

struct qcow2_snapshot {
	char *id, *name;
	uint64_t l1_offset, l1_size;
	uint64_t vm_state_size, disk_size, vm_clock_ns, icount; /* icount UINT64_MAX: none */
	uint32_t date_sec, date_nsec;
};
/* The i-th, the image's. */
const struct qcow2_snapshot *qcow2_get_snapshot(struct qcow2 *q, unsigned i);

enum qcow2_fix { QCOW2_FIX_NONE, QCOW2_FIX_LEAKS, QCOW2_FIX_ALL };
struct qcow2_check {
	uint64_t corruptions, leaks, corruptions_fixed, leaks_fixed, errors; /* errors: what could not be looked at */
	uint64_t end, total, allocated, fragmented, compressed;		 /* end in bytes, the others guest clusters */
	void (*report)(void *opaque, bool corruption, const char *text); /* or NULL */
	void *opaque;
};
/* Count all references. Negative: the check itself failed. The image must have been opened with IMAGE_CHECK. */
int qcow2_check(struct qcow2 *q, enum qcow2_fix fix, struct qcow2_check *c, struct err *err);
