/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Images of any format, synchronously and with their backing chains: what
 * `keel image` works on and what a qcow2 file finds its backing file through.
 *
 * Offsets and lengths are bytes, without alignment. Functions return 0 or a
 * negative errno, with a sentence in err. An image may be used by many threads.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/err.h"

struct image;
struct luks;
struct qcow2;

enum image_flags {
	IMAGE_RDWR = 1,
	IMAGE_NO_BACKING = 2,	 /* what only the backing file has reads as zeroes */
	IMAGE_NO_LOCK = 4,	 /* for a look at what somebody else writes */
	IMAGE_CHECK = 8,	 /* take images that are marked dirty or corrupt, as they are */
	IMAGE_UNSAFE = 16,	 /* never wait for the disk */
	IMAGE_GROW = 32,	 /* raw: writes past the end extend the file */
	IMAGE_KEEP_ZEROES = 128, /* zeroes are written down even where nothing lies below: another backing file comes */
	IMAGE_LOCKED = 256, /* guest data is not looked at: encrypted images need no key */
	IMAGE_BACKING_NO_LOCK = 64, /* whoever opens it has locked its backing files, or writes them itself */
};

/* format NULL: probed. */
struct image *image_open(const char *path, const char *format, unsigned flags, struct err *err);
/* key_secret: name of the secret with the passphrase, for what is encrypted in it and its backing chain. */
struct image *image_open_keyed(const char *path, const char *format, unsigned flags, const char *key_secret,
			       struct err *err);
/* Writes back what is cached first; an error there is the result. NULL is allowed. */
int image_close(struct image *img, struct err *err);

uint64_t image_size(const struct image *img);
const char *image_path(const struct image *img);
const char *image_format(const struct image *img);
struct qcow2 *image_qcow2(const struct image *img); /* NULL: another format */
struct luks *image_luks(const struct image *img);   /* NULL: not encrypted */
int image_fd(const struct image *img);

/* Past the end there are zeroes. */
int image_read(struct image *img, uint64_t offset, void *buf, size_t len, struct err *err);
int image_write(struct image *img, uint64_t offset, const void *buf, size_t len, struct err *err);
int image_zero(struct image *img, uint64_t offset, uint64_t len, bool unmap, struct err *err);
int image_flush(struct image *img, struct err *err);

/* A stretch of equal kind. */
struct image_extent {
	uint64_t len;
	unsigned depth; /* in the backing chain */
	bool data, zero, present, compressed;
	bool has_offset;
	uint64_t offset;  /* in the file at that depth */
	const char *path; /* of that file */
};
/* The stretch at offset, at most len (not 0) bytes long. */
int image_map(struct image *img, uint64_t offset, uint64_t len, struct image_extent *e, struct err *err);
/* As if only the first `levels` images of the chain were there. */
int image_map_above(struct image *img, unsigned levels, uint64_t offset, uint64_t len, struct image_extent *e,
		    struct err *err);
struct image *image_backing(const struct image *img); /* or NULL */
/* What was opened for reading is written from now on, or the other way round. Nobody else works on it meanwhile. */
int image_set_writable(struct image *img, bool on, struct err *err);
int image_resize(struct image *img, uint64_t size, struct err *err);

/* Files on the way down a backing chain, for finding loops. */
struct image_chain {
	const struct image_chain *up;
	const char *path;
	const char *key_secret; /* or NULL */
	dev_t dev;
	ino_t ino;
	unsigned depth;
	bool probed; /* the format was guessed: such an image must not lead on to other files */
};
struct image *image_open_chain(const char *path, const char *format, unsigned flags, const struct image_chain *up,
			       struct err *err);
/* Where a backing file's name, as it stands in the image at `of`, leads. malloc'd; NULL with err set. */
char *image_backing_path(const char *of, const char *name, struct err *err);
