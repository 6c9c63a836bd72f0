/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside LUKS; luks.h tells which file does what. */
#pragma once
#include <pthread.h>

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

#include "image/luks.h"

#define LUKS_HEADER 592u
#define LUKS_SALT 32u
#define LUKS_DIGEST 20u
#define LUKS_STRIPES 4000u
#define LUKS_KEY_MAX 64u /* bytes of the key of the largest cipher we have */
#define LUKS_ALIGN 4096u
#define LUKS_ITERATIONS_MIN 1000u
#define LUKS_ITERATIONS_MAX 100000000u /* more would take minutes: somebody's joke */
#define LUKS_LANES 8u

struct luks_slot {
	bool active;
	uint32_t iterations, offset /* sectors */, stripes;
	uint8_t salt[LUKS_SALT];
};

/* Host byte order. */
struct luks_header {
	char cipher[33], mode[33], hash[33], uuid[41];
	uint32_t payload; /* sectors */
	uint32_t key_bytes;
	uint8_t digest[LUKS_DIGEST], salt[LUKS_SALT];
	uint32_t iterations;
	struct luks_slot slot[LUKS_SLOTS];
};

/* What the names in the header mean to us. */
struct luks_suite {
	enum luks_mode mode;
	gnutls_cipher_algorithm_t cipher;
	gnutls_mac_algorithm_t hash, essiv_hash;
};

/* luks_header.c */
int luks_header_read(struct luks_header *h, const uint8_t *p, const char *path, struct err *err);
void luks_header_write(const struct luks_header *h, uint8_t *p);
int luks_suite_find(const struct luks_header *h, struct luks_suite *s, const char *path, struct err *err);
int luks_header_new(struct luks_header *h, const struct luks_options *o, const char *path, struct err *err);
uint64_t luks_slot_bytes(const struct luks_header *h, unsigned i); /* of stripes, in whole sectors */

/* luks_cipher.c */
/* A key in use: as many requests at the same time as there are lanes. */
struct luks_cipher {
	struct luks_suite suite;
	unsigned next; /* atomic */
	struct luks_lane {
		pthread_mutex_t lock;
		gnutls_cipher_hd_t data, essiv; /* essiv: or NULL */
	} lane[LUKS_LANES];
	unsigned lanes;
};
int luks_cipher_init(struct luks_cipher *c, const struct luks_suite *s, const uint8_t *key, size_t len, unsigned lanes);
void luks_cipher_free(struct luks_cipher *c);
int luks_cipher_run(struct luks_cipher *c, bool encrypt, uint64_t sector, const void *in, void *out, size_t len);
int luks_kdf(gnutls_mac_algorithm_t hash, const void *pass, size_t pass_len, const uint8_t *salt, uint32_t iterations,
	     uint8_t *out, size_t len);
/* Specification section 2.4: one key becomes many stripes, all of which are needed to have it back. */
int luks_split(gnutls_mac_algorithm_t hash, const uint8_t *key, uint8_t *stripes, size_t len, uint32_t n);
int luks_merge(gnutls_mac_algorithm_t hash, const uint8_t *stripes, uint8_t *key, size_t len, uint32_t n);
