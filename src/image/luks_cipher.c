/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "image/luks_int.h"

#define BLOCK 16u /* of AES */

static const uint8_t no_iv[BLOCK];

/* ESSIV: the IV is the sector's number, ciphered with a hash of the key. */
static int open_essiv(struct luks_lane *lane, const struct luks_suite *s, const uint8_t *key, size_t len)
{
	static const struct {
		unsigned bytes;
		gnutls_cipher_algorithm_t cipher;
	} by_size[] = {
		{ 16, GNUTLS_CIPHER_AES_128_CBC }, { 24, GNUTLS_CIPHER_AES_192_CBC }, { 32, GNUTLS_CIPHER_AES_256_CBC },
	};
	uint8_t digest[64];
	unsigned n = gnutls_hash_get_len((gnutls_digest_algorithm_t)s->essiv_hash);
	int ret = -ENOTSUP;

	if (gnutls_hash_fast((gnutls_digest_algorithm_t)s->essiv_hash, key, len, digest) < 0)
		return -EIO;
	for (unsigned i = 0; i < 3; i++) {
		gnutls_datum_t k = { digest, n }, iv = { (uint8_t *)no_iv, BLOCK };

		if (by_size[i].bytes == n)
			ret = gnutls_cipher_init(&lane->essiv, by_size[i].cipher, &k, &iv) < 0 ? -EIO : 0;
	}
	gnutls_memset(digest, 0, sizeof(digest));
	return ret;
}

int luks_cipher_init(struct luks_cipher *c, const struct luks_suite *s, const uint8_t *key, size_t len, unsigned lanes)
{
	gnutls_datum_t k = { (uint8_t *)key, len }, iv = { (uint8_t *)no_iv, BLOCK };
	int ret = 0;

	*c = (struct luks_cipher){ .suite = *s };
	for (; !ret && c->lanes < lanes; c->lanes++) {
		struct luks_lane *lane = &c->lane[c->lanes];

		if (gnutls_cipher_init(&lane->data, s->cipher, &k, &iv) < 0) {
			lane->data = NULL;
			ret = -EIO;
		} else if (s->mode == LUKS_CBC_ESSIV) {
			ret = open_essiv(lane, s, key, len);
		}
		pthread_mutex_init(&lane->lock, NULL);
	}
	if (ret)
		luks_cipher_free(c);
	return ret;
}

void luks_cipher_free(struct luks_cipher *c)
{
	for (unsigned i = 0; i < c->lanes; i++) {
		if (c->lane[i].data)
			gnutls_cipher_deinit(c->lane[i].data);
		if (c->lane[i].essiv)
			gnutls_cipher_deinit(c->lane[i].essiv);
		pthread_mutex_destroy(&c->lane[i].lock);
	}
	*c = (struct luks_cipher){ 0 };
}

static int make_iv(const struct luks_cipher *c, struct luks_lane *lane, uint64_t sector, uint8_t *iv)
{
	bool narrow = c->suite.mode == LUKS_XTS_PLAIN || c->suite.mode == LUKS_CBC_PLAIN;
	uint64_t le = htole64(narrow ? (uint32_t)sector : sector);

	memset(iv, 0, BLOCK);
	memcpy(iv, &le, sizeof(le));
	if (!lane->essiv)
		return 0;
	/* One block of CBC with an IV of zeroes is the block cipher itself. */
	gnutls_cipher_set_iv(lane->essiv, (void *)no_iv, BLOCK);
	return gnutls_cipher_encrypt(lane->essiv, iv, BLOCK) < 0 ? -EIO : 0;
}

static struct luks_lane *take(struct luks_cipher *c)
{
	unsigned first = __atomic_fetch_add(&c->next, 1, __ATOMIC_RELAXED);

	for (unsigned i = 0; i < c->lanes; i++)
		if (!pthread_mutex_trylock(&c->lane[(first + i) % c->lanes].lock))
			return &c->lane[(first + i) % c->lanes];
	pthread_mutex_lock(&c->lane[first % c->lanes].lock);
	return &c->lane[first % c->lanes];
}

int luks_cipher_run(struct luks_cipher *c, bool encrypt, uint64_t sector, const void *in, void *out, size_t len)
{
	struct luks_lane *lane = take(c);
	const uint8_t *from = in;
	uint8_t *to = out, iv[BLOCK];
	int ret = 0;

	for (; !ret && len >= LUKS_SECTOR; len -= LUKS_SECTOR, from += LUKS_SECTOR, to += LUKS_SECTOR) {
		ret = make_iv(c, lane, sector++, iv);
		gnutls_cipher_set_iv(lane->data, iv, BLOCK);
		if (!ret && (encrypt ? gnutls_cipher_encrypt2(lane->data, from, LUKS_SECTOR, to, LUKS_SECTOR)
				     : gnutls_cipher_decrypt2(lane->data, from, LUKS_SECTOR, to, LUKS_SECTOR)) < 0)
			ret = -EIO;
	}
	pthread_mutex_unlock(&lane->lock);
	return ret;
}

int luks_kdf(gnutls_mac_algorithm_t hash, const void *pass, size_t pass_len, const uint8_t *salt, uint32_t iterations,
	     uint8_t *out, size_t len)
{
	gnutls_datum_t key = { (void *)pass, pass_len }, s = { (void *)salt, LUKS_SALT };

	return gnutls_pbkdf2(hash, &key, &s, iterations, out, len) < 0 ? -EIO : 0;
}

/* Each part of a hash's length becomes the hash of its number and itself. */
static int diffuse(gnutls_mac_algorithm_t hash, uint8_t *p, size_t len)
{
	size_t size = gnutls_hash_get_len((gnutls_digest_algorithm_t)hash), n;
	uint8_t in[4 + 64], digest[64];
	uint32_t number = 0;

	for (size_t at = 0; at < len; at += n, number++) {
		uint32_t be = htobe32(number);

		n = len - at < size ? len - at : size;
		memcpy(in, &be, 4);
		memcpy(in + 4, p + at, n);
		if (gnutls_hash_fast((gnutls_digest_algorithm_t)hash, in, 4 + n, digest) < 0)
			return -EIO;
		memcpy(p + at, digest, n);
	}
	return 0;
}

/* All stripes but the last go, one after the other, into d. */
static int mix(gnutls_mac_algorithm_t hash, const uint8_t *stripes, uint8_t *d, size_t len, uint32_t n)
{
	int ret = 0;

	memset(d, 0, len);
	for (uint32_t i = 0; !ret && i + 1 < n; i++) {
		for (size_t j = 0; j < len; j++)
			d[j] ^= stripes[i * len + j];
		ret = diffuse(hash, d, len);
	}
	return ret;
}

int luks_split(gnutls_mac_algorithm_t hash, const uint8_t *key, uint8_t *stripes, size_t len, uint32_t n)
{
	uint8_t d[LUKS_KEY_MAX], *last = stripes + (n - 1) * len;
	int ret = gnutls_rnd(GNUTLS_RND_RANDOM, stripes, (n - 1) * len) < 0 ? -EIO : 0;

	if (!ret)
		ret = mix(hash, stripes, d, len, n);
	for (size_t j = 0; !ret && j < len; j++)
		last[j] = d[j] ^ key[j];
	gnutls_memset(d, 0, sizeof(d));
	return ret;
}

int luks_merge(gnutls_mac_algorithm_t hash, const uint8_t *stripes, uint8_t *key, size_t len, uint32_t n)
{
	int ret = mix(hash, stripes, key, len, n);

	for (size_t j = 0; !ret && j < len; j++)
		key[j] ^= stripes[(n - 1) * len + j];
	return ret;
}
