/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * LUKS version 1 (LUKS On-Disk Format Specification 1.2.3): key slots, and the
 * ciphering of sectors of 512 bytes. All ciphers, hashes and key derivations are
 * GnuTLS's.
 *
 *   luks.c         opening, key slots, new headers
 *   luks_header.c  the header, both ways
 *   luks_cipher.c  sectors, and the anti-forensic stripes
 *   luks_disk.c    a file that is a header and a ciphered disk: the format "luks"
 *
 * Functions return 0 or a negative errno and a sentence that names the image. A
 * struct luks may be used by many threads, but for luks_slot_*().
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/err.h"

#define LUKS_SECTOR 512u
#define LUKS_SLOTS 8u

struct luks;

/* Where the header is: offsets from its beginning. */
struct luks_place {
	const char *path; /* for messages; it outlives the struct luks */
	void *opaque;
	int (*read)(void *opaque, uint64_t offset, void *buf, size_t len, struct err *err);
	int (*write)(void *opaque, uint64_t offset, const void *buf, size_t len, struct err *err);
};

enum luks_mode { LUKS_XTS_PLAIN64, LUKS_XTS_PLAIN, LUKS_CBC_ESSIV, LUKS_CBC_PLAIN64, LUKS_CBC_PLAIN };
enum luks_hash { LUKS_SHA256, LUKS_SHA1, LUKS_SHA224, LUKS_SHA384, LUKS_SHA512 };

struct luks_options {
	const char *key_secret;	   /* name of the secret with the passphrase */
	unsigned bits;		   /* of AES: 128, 192 (CBC only), 256; 0: 256 */
	enum luks_mode mode;
	enum luks_hash hash;	   /* of key derivation and stripes */
	enum luks_hash essiv_hash;
	unsigned iter_ms;	   /* how long trying a passphrase takes; 0: 2000 */
};

/* How long a header with these options is, a multiple of 4096; -EINVAL if there can be none. */
int luks_measure(const struct luks_options *o, uint64_t *bytes, const char *path, struct err *err);
/* A new key, its header and a slot with it. */
int luks_create(const struct luks_place *p, const struct luks_options *o, struct err *err);

/* key_secret NULL: without the key, for a look at the header. -EACCES: the passphrase fits no slot. */
struct luks *luks_open(const struct luks_place *p, const char *key_secret, struct err *err);
void luks_close(struct luks *l); /* NULL is allowed */
bool luks_unlocked(const struct luks *l);
uint64_t luks_payload(const struct luks *l); /* bytes before the data, where header and data are one file */

/* Sector-aligned; in and out may be the same. `sector` is what goes into the IV. */
int luks_encrypt(struct luks *l, uint64_t sector, const void *in, void *out, size_t len, struct err *err);
int luks_decrypt(struct luks *l, uint64_t sector, const void *in, void *out, size_t len, struct err *err);

struct luks_info {
	const char *cipher, *mode, *ivgen, *ivgen_hash /* or NULL */, *hash, *uuid;
	uint64_t payload;
	uint32_t master_iterations;
	struct {
		bool active;
		uint32_t iterations, stripes;
		uint64_t offset;
	} slot[LUKS_SLOTS];
};
void luks_get_info(const struct luks *l, struct luks_info *info);

/* Put the key under one more passphrase; slot -1: the first that is free. The key must be there. */
int luks_slot_add(struct luks *l, int slot, const char *key_secret, unsigned iter_ms, struct err *err);
/* Wipe one slot, or (-1) all that the passphrase opens. The last one stays unless `force`. */
int luks_slot_erase(struct luks *l, int slot, const char *old_secret, bool force, struct err *err);

/* ---- The format ---------------------------------------------------------------- */

struct remote;

/*
 * The disk behind a header, for remote_read() and the like. It lies in a file (fd stays the caller's, path outlives it)
 * or on another disk (`below`, taken over in failure, too; fd is -1 then). key_secret as above.
 */
struct remote *luks_disk_open(int fd, const char *path, struct remote *below, const char *key_secret, struct err *err);
void luks_disk_set_direct(struct remote *r, int fd); /* the same file without the page cache; taken over */
struct luks *luks_disk_luks(struct remote *r);	     /* NULL: it is no such disk */
/* A header into an empty file, and room for `size` bytes behind it. */
int luks_disk_create(int fd, const char *path, const struct luks_options *o, uint64_t size, struct err *err);
