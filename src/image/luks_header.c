/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Specification section 3.1: all numbers are big-endian, texts end with a zero byte. */
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "image/luks_int.h"

#define SLOT_ON 0x00ac71f3u
#define SLOT_OFF 0x0000deadu

static const uint8_t magic[6] = "LUKS\xba\xbe";

static const struct {
	const char *name;
	gnutls_mac_algorithm_t mac;
} hashes[] = {
	[LUKS_SHA256] = { "sha256", GNUTLS_MAC_SHA256 }, [LUKS_SHA1] = { "sha1", GNUTLS_MAC_SHA1 },
	[LUKS_SHA224] = { "sha224", GNUTLS_MAC_SHA224 }, [LUKS_SHA384] = { "sha384", GNUTLS_MAC_SHA384 },
	[LUKS_SHA512] = { "sha512", GNUTLS_MAC_SHA512 },
};
#define N_HASHES (sizeof(hashes) / sizeof(hashes[0]))

/* A mode "cbc-essiv" is followed by a hash. */
static const struct {
	const char *name;
	bool xts;
} modes[] = {
	[LUKS_XTS_PLAIN64] = { "xts-plain64", true },  [LUKS_XTS_PLAIN] = { "xts-plain", true },
	[LUKS_CBC_ESSIV] = { "cbc-essiv:", false },    [LUKS_CBC_PLAIN64] = { "cbc-plain64", false },
	[LUKS_CBC_PLAIN] = { "cbc-plain", false },
};
#define N_MODES (sizeof(modes) / sizeof(modes[0]))

static const struct {
	unsigned key_bytes;
	bool xts;
	gnutls_cipher_algorithm_t cipher;
} ciphers[] = {
	{ 32, true, GNUTLS_CIPHER_AES_128_XTS },  { 64, true, GNUTLS_CIPHER_AES_256_XTS },
	{ 16, false, GNUTLS_CIPHER_AES_128_CBC }, { 24, false, GNUTLS_CIPHER_AES_192_CBC },
	{ 32, false, GNUTLS_CIPHER_AES_256_CBC },
};
#define N_CIPHERS (sizeof(ciphers) / sizeof(ciphers[0]))

static uint16_t get16(const uint8_t *p)
{
	return p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return be32toh(v);
}

static void put32(uint8_t *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, 4);
}

/* It goes into messages. */
static void get_text(char *to, const uint8_t *from, size_t len)
{
	memcpy(to, from, len);
	to[len] = 0;
	for (; *to; to++)
		if (*to < ' ' || *to > '~')
			*to = '?';
}

uint64_t luks_slot_bytes(const struct luks_header *h, unsigned i)
{
	uint64_t bytes = (uint64_t)h->key_bytes * h->slot[i].stripes;

	return (bytes + LUKS_SECTOR - 1) / LUKS_SECTOR * LUKS_SECTOR;
}

static int bad(const char *path, struct err *err, const char *field, unsigned long long value, const char *why)
{
	return err_set(err, EINVAL, "%s: %s in the LUKS header is %llu: %s", path, field, value, why);
}

static int check_slots(const struct luks_header *h, const char *path, struct err *err)
{
	for (unsigned i = 0; i < LUKS_SLOTS; i++) {
		const struct luks_slot *s = &h->slot[i];
		uint64_t end = s->offset + luks_slot_bytes(h, i) / LUKS_SECTOR;

		if (s->stripes != LUKS_STRIPES)
			return bad(path, err, "a key slot's stripes", s->stripes, "it must be 4000");
		if (s->offset < (LUKS_HEADER + LUKS_SECTOR - 1) / LUKS_SECTOR)
			return bad(path, err, "a key slot's key-material-offset", s->offset, "that is in the header itself");
		if (h->payload && end > h->payload)
			return bad(path, err, "a key slot's key-material-offset", s->offset, "that is in the payload");
		if (s->active && (!s->iterations || s->iterations > LUKS_ITERATIONS_MAX))
			return bad(path, err, "a key slot's iterations", s->iterations,
				   "it must be from 1 to 100 million, for more take minutes");
		for (unsigned j = 0; j < i; j++)
			if (s->offset < h->slot[j].offset + luks_slot_bytes(h, j) / LUKS_SECTOR &&
			    h->slot[j].offset < end)
				return bad(path, err, "a key slot's key-material-offset", s->offset,
					   "another slot is there");
	}
	return 0;
}

int luks_header_read(struct luks_header *h, const uint8_t *p, const char *path, struct err *err)
{
	if (memcmp(p, magic, sizeof(magic)))
		return err_set(err, EINVAL, "%s has no LUKS header", path);
	if (get16(p + 6) == 2)
		return err_set(err, ENOTSUP, "%s is LUKS version 2, and only version 1 is supported", path);
	if (get16(p + 6) != 1)
		return bad(path, err, "version", get16(p + 6), "only 1 is supported");
	get_text(h->cipher, p + 8, 32);
	get_text(h->mode, p + 40, 32);
	get_text(h->hash, p + 72, 32);
	h->payload = get32(p + 104);
	h->key_bytes = get32(p + 108);
	memcpy(h->digest, p + 112, LUKS_DIGEST);
	memcpy(h->salt, p + 132, LUKS_SALT);
	h->iterations = get32(p + 164);
	get_text(h->uuid, p + 168, 40);
	for (unsigned i = 0; i < LUKS_SLOTS; i++) {
		const uint8_t *s = p + 208 + i * 48;
		uint32_t active = get32(s);

		if (active != SLOT_ON && active != SLOT_OFF)
			return bad(path, err, "a key slot's state", active, "it is neither enabled nor disabled");
		h->slot[i].active = active == SLOT_ON;
		h->slot[i].iterations = get32(s + 4);
		memcpy(h->slot[i].salt, s + 8, LUKS_SALT);
		h->slot[i].offset = get32(s + 40);
		h->slot[i].stripes = get32(s + 44);
	}
	if (!h->key_bytes || h->key_bytes > LUKS_KEY_MAX)
		return bad(path, err, "key-bytes", h->key_bytes, "it must be from 1 to 64");
	if (!h->iterations || h->iterations > LUKS_ITERATIONS_MAX)
		return bad(path, err, "mk-digest-iterations", h->iterations,
			   "it must be from 1 to 100 million, for more take minutes");
	return check_slots(h, path, err);
}

void luks_header_write(const struct luks_header *h, uint8_t *p)
{
	memset(p, 0, LUKS_HEADER);
	memcpy(p, magic, sizeof(magic));
	p[7] = 1;
	memcpy(p + 8, h->cipher, strnlen(h->cipher, 31));
	memcpy(p + 40, h->mode, strnlen(h->mode, 31));
	memcpy(p + 72, h->hash, strnlen(h->hash, 31));
	put32(p + 104, h->payload);
	put32(p + 108, h->key_bytes);
	memcpy(p + 112, h->digest, LUKS_DIGEST);
	memcpy(p + 132, h->salt, LUKS_SALT);
	put32(p + 164, h->iterations);
	memcpy(p + 168, h->uuid, strnlen(h->uuid, 39));
	for (unsigned i = 0; i < LUKS_SLOTS; i++) {
		uint8_t *s = p + 208 + i * 48;

		put32(s, h->slot[i].active ? SLOT_ON : SLOT_OFF);
		put32(s + 4, h->slot[i].iterations);
		memcpy(s + 8, h->slot[i].salt, LUKS_SALT);
		put32(s + 40, h->slot[i].offset);
		put32(s + 44, h->slot[i].stripes);
	}
}

static int find_hash(const char *name, gnutls_mac_algorithm_t *mac)
{
	for (unsigned i = 0; i < N_HASHES; i++) {
		if (strcasecmp(hashes[i].name, name))
			continue;
		*mac = hashes[i].mac;
		return 0;
	}
	return -ENOTSUP;
}

int luks_suite_find(const struct luks_header *h, struct luks_suite *s, const char *path, struct err *err)
{
	size_t len;
	unsigned m;

	*s = (struct luks_suite){ 0 };
	if (strcmp(h->cipher, "aes"))
		return err_set(err, ENOTSUP, "%s is ciphered with '%s', and only aes is supported", path, h->cipher);
	for (m = 0; m < N_MODES; m++) {
		len = strlen(modes[m].name);
		if (m == LUKS_CBC_ESSIV ? !strncmp(h->mode, modes[m].name, len) : !strcmp(h->mode, modes[m].name))
			break;
	}
	if (m == N_MODES || (m == LUKS_CBC_ESSIV && find_hash(h->mode + len, &s->essiv_hash)))
		return err_set(err, ENOTSUP,
			       "%s is ciphered in mode '%s', which is not supported: xts-plain64, xts-plain, cbc-essiv:HASH, "
			       "cbc-plain64 and cbc-plain are",
			       path, h->mode);
	s->mode = m;
	if (find_hash(h->hash, &s->hash))
		return err_set(err, ENOTSUP,
			       "%s derives its keys with '%s', which is not supported: sha1, sha224, sha256, sha384 and sha512 are",
			       path, h->hash);
	for (unsigned i = 0; i < N_CIPHERS; i++)
		if (ciphers[i].xts == modes[m].xts && ciphers[i].key_bytes == h->key_bytes)
			s->cipher = ciphers[i].cipher;
	if (!s->cipher)
		return bad(path, err, "key-bytes", h->key_bytes, "there is no AES with such a key in that mode");
	return 0;
}

static int make_uuid(char *to)
{
	uint8_t r[16];

	if (gnutls_rnd(GNUTLS_RND_NONCE, r, sizeof(r)) < 0)
		return -EIO;
	r[6] = (r[6] & 15) | 0x40; /* RFC 4122 section 4.4 */
	r[8] = (r[8] & 63) | 0x80;
	for (unsigned i = 0; i < 16; i++)
		to += sprintf(to, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", r[i]);
	return 0;
}

int luks_header_new(struct luks_header *h, const struct luks_options *o, const char *path, struct err *err)
{
	unsigned bits = o->bits ? o->bits : 256, at = LUKS_ALIGN / LUKS_SECTOR;
	struct luks_suite suite;

	*h = (struct luks_header){ .cipher = "aes", .key_bytes = bits / 8 * (modes[o->mode].xts ? 2 : 1) };
	snprintf(h->mode, sizeof(h->mode), "%s%s", modes[o->mode].name,
		 o->mode == LUKS_CBC_ESSIV ? hashes[o->essiv_hash].name : "");
	snprintf(h->hash, sizeof(h->hash), "%s", hashes[o->hash].name);
	if (luks_suite_find(h, &suite, path, NULL))
		return err_set(err, EINVAL, "%s: there is no aes-%u in mode %s", path, bits, h->mode);
	/* Each slot, and the payload, where direct I/O can reach it. */
	for (unsigned i = 0; i < LUKS_SLOTS; i++) {
		h->slot[i].stripes = LUKS_STRIPES;
		h->slot[i].offset = at;
		at += (luks_slot_bytes(h, i) + LUKS_ALIGN - 1) / LUKS_ALIGN * (LUKS_ALIGN / LUKS_SECTOR);
	}
	h->payload = at;
	return make_uuid(h->uuid) ? err_set(err, EIO, "%s: there is no randomness to be had", path) : 0;
}
