/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/luks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "image/luks_int.h"
#include "util/secret.h"

#define PROBE_NS 20000000ull /* long enough to tell a CPU's speed */
#define DEFAULT_MS 2000u
#define WIPES 3u /* over a slot's stripes */

struct luks {
	struct luks_place p;
	struct luks_header h;
	struct luks_suite suite;
	struct luks_cipher cipher; /* lanes 0: locked */
	uint8_t key[LUKS_KEY_MAX];
};

static int failed(const struct luks_place *p, const char *what, struct err *err)
{
	return err_set(err, EIO, "%s: GnuTLS failed in %s", p->path, what);
}

/* ---- Iterations --------------------------------------------------------------- */

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

/* How many take `ms` here. */
static uint32_t measure(const struct luks_suite *s, size_t key_bytes, unsigned ms)
{
	static const uint8_t salt[LUKS_SALT];
	uint8_t out[LUKS_KEY_MAX];
	uint64_t n = 1 << 12, ns, all;

	for (;; n *= 2) {
		uint64_t start = cpu_ns();

		if (luks_kdf(s->hash, "passphrase", 10, salt, n, out, key_bytes))
			return LUKS_ITERATIONS_MIN;
		ns = cpu_ns() - start;
		if (ns >= PROBE_NS || n >= LUKS_ITERATIONS_MAX / 2)
			break;
	}
	all = (uint64_t)((double)n * ms * 1e6 / (ns ? ns : 1));
	return all < LUKS_ITERATIONS_MIN ? LUKS_ITERATIONS_MIN : all > LUKS_ITERATIONS_MAX ? LUKS_ITERATIONS_MAX : all;
}

/* ---- Slots -------------------------------------------------------------------- */

static int write_header(const struct luks_place *p, const struct luks_header *h, struct err *err)
{
	uint8_t buf[LUKS_HEADER];

	luks_header_write(h, buf);
	return p->write(p->opaque, 0, buf, sizeof(buf), err);
}

/* The key from a slot's passphrase ciphers its stripes; sectors count from 0 there. */
static int slot_cipher(struct luks_cipher *c, const struct luks_header *h, const struct luks_suite *s, unsigned i,
		       const void *pass, size_t len)
{
	uint8_t key[LUKS_KEY_MAX];
	int ret = luks_kdf(s->hash, pass, len, h->slot[i].salt, h->slot[i].iterations, key, h->key_bytes);

	if (!ret)
		ret = luks_cipher_init(c, s, key, h->key_bytes, 1);
	gnutls_memset(key, 0, sizeof(key));
	return ret;
}

/* 0: the slot gave the key; 1: it did not. */
static int try_slot(const struct luks *l, unsigned i, const void *pass, size_t len, uint8_t *key, struct err *err)
{
	uint64_t bytes = luks_slot_bytes(&l->h, i);
	uint8_t *stripes = malloc(bytes), digest[LUKS_DIGEST];
	struct luks_cipher c = { 0 };
	int ret = stripes ? 0 : err_set(err, ENOMEM, "%s: no memory for a key slot", l->p.path);

	if (!ret)
		ret = l->p.read(l->p.opaque, (uint64_t)l->h.slot[i].offset * LUKS_SECTOR, stripes, bytes, err);
	if (!ret && (slot_cipher(&c, &l->h, &l->suite, i, pass, len) ||
		     luks_cipher_run(&c, false, 0, stripes, stripes, bytes) ||
		     luks_merge(l->suite.hash, stripes, key, l->h.key_bytes, l->h.slot[i].stripes) ||
		     luks_kdf(l->suite.hash, key, l->h.key_bytes, l->h.salt, l->h.iterations, digest, sizeof(digest))))
		ret = failed(&l->p, "trying a passphrase", err);
	luks_cipher_free(&c);
	secret_wipe(stripes, stripes ? bytes : 0);
	if (!ret && gnutls_memcmp(digest, l->h.digest, sizeof(digest)))
		ret = 1;
	return ret;
}

static int try_slots(const struct luks *l, const char *secret, uint8_t *key, int *slot, struct err *err)
{
	size_t len;
	void *pass = secret_get(secret, &len, err);
	int ret = pass ? 1 : -ENOENT;

	for (*slot = -1; ret == 1 && ++*slot < (int)LUKS_SLOTS;)
		if (l->h.slot[*slot].active)
			ret = try_slot(l, *slot, pass, len, key, err);
	secret_wipe(pass, pass ? len : 0);
	if (ret == 1)
		ret = err_set(err, EACCES, "%s: secret '%s' is not its passphrase", l->p.path, secret);
	return ret;
}

/* Stripes of the key into slot i, and the header that says so after them. */
static int fill_slot(const struct luks_place *p, struct luks_header *h, const struct luks_suite *s, unsigned i,
		     const uint8_t *key, const char *secret, unsigned ms, struct err *err)
{
	uint64_t bytes = luks_slot_bytes(h, i);
	uint8_t *stripes = calloc(1, bytes);
	struct luks_cipher c = { 0 };
	size_t len = 0;
	void *pass = secret_get(secret, &len, err);
	int ret = !pass ? -ENOENT : stripes ? 0 : err_set(err, ENOMEM, "%s: no memory for a key slot", p->path);

	h->slot[i].iterations = measure(s, h->key_bytes, ms ? ms : DEFAULT_MS);
	if (!ret && (gnutls_rnd(GNUTLS_RND_RANDOM, h->slot[i].salt, LUKS_SALT) < 0 ||
		     luks_split(s->hash, key, stripes, h->key_bytes, h->slot[i].stripes) ||
		     slot_cipher(&c, h, s, i, pass, len) || luks_cipher_run(&c, true, 0, stripes, stripes, bytes)))
		ret = failed(p, "making a key slot", err);
	luks_cipher_free(&c);
	if (!ret)
		ret = p->write(p->opaque, (uint64_t)h->slot[i].offset * LUKS_SECTOR, stripes, bytes, err);
	secret_wipe(stripes, stripes ? bytes : 0);
	secret_wipe(pass, len);
	if (!ret) {
		h->slot[i].active = true;
		ret = write_header(p, h, err);
	}
	return ret;
}

int luks_slot_add(struct luks *l, int slot, const char *key_secret, unsigned iter_ms, struct err *err)
{
	if (!luks_unlocked(l))
		return err_set(err, EACCES, "%s: a passphrase can only be added with one that is there", l->p.path);
	for (unsigned i = 0; slot < 0 && i < LUKS_SLOTS; i++)
		if (!l->h.slot[i].active)
			slot = i;
	if (slot < 0)
		return err_set(err, ENOSPC, "%s: all %u key slots are in use", l->p.path, LUKS_SLOTS);
	if (slot >= (int)LUKS_SLOTS || l->h.slot[slot].active)
		return err_set(err, EINVAL, "%s: key slot %d is %s", l->p.path, slot,
			       slot < (int)LUKS_SLOTS ? "in use" : "none: there are 0 to 7");
	return fill_slot(&l->p, &l->h, &l->suite, slot, l->key, key_secret, iter_ms, err);
}

static int erase(struct luks *l, unsigned i, struct err *err)
{
	uint64_t bytes = luks_slot_bytes(&l->h, i);
	uint8_t *junk = malloc(bytes);
	int ret = junk ? 0 : err_set(err, ENOMEM, "%s: no memory for a key slot", l->p.path);

	/* The header first: a slot that is half gone opens nothing. */
	l->h.slot[i].active = false;
	memset(l->h.slot[i].salt, 0, LUKS_SALT);
	l->h.slot[i].iterations = 0;
	if (!ret)
		ret = write_header(&l->p, &l->h, err);
	for (unsigned n = 0; !ret && n < WIPES; n++) {
		if (gnutls_rnd(GNUTLS_RND_NONCE, junk, bytes) < 0)
			ret = failed(&l->p, "wiping a key slot", err);
		else
			ret = l->p.write(l->p.opaque, (uint64_t)l->h.slot[i].offset * LUKS_SECTOR, junk, bytes, err);
	}
	free(junk);
	return ret;
}

static unsigned count_active(const struct luks *l)
{
	unsigned n = 0;

	for (unsigned i = 0; i < LUKS_SLOTS; i++)
		n += l->h.slot[i].active;
	return n;
}

int luks_slot_erase(struct luks *l, int slot, const char *old_secret, bool force, struct err *err)
{
	bool doomed[LUKS_SLOTS] = { 0 };
	uint8_t key[LUKS_KEY_MAX];
	unsigned n = 0;
	int ret = 0;

	if (slot >= (int)LUKS_SLOTS || (slot >= 0 && !l->h.slot[slot].active))
		return err_set(err, EINVAL, "%s: key slot %d is not in use", l->p.path, slot);
	if (slot >= 0) {
		doomed[slot] = true;
		n = 1;
	} else {
		size_t len;
		void *pass = secret_get(old_secret, &len, err);

		ret = pass ? 0 : -ENOENT;
		for (unsigned i = 0; ret >= 0 && i < LUKS_SLOTS; i++) {
			ret = l->h.slot[i].active ? try_slot(l, i, pass, len, key, err) : 1;
			doomed[i] = !ret;
			n += !ret;
		}
		secret_wipe(pass, pass ? len : 0);
		gnutls_memset(key, 0, sizeof(key));
	}
	if (ret < 0)
		return ret;
	if (!n)
		return err_set(err, EACCES, "%s: secret '%s' opens no key slot", l->p.path, old_secret);
	if (n == count_active(l) && !force)
		return err_set(err, EINVAL, "%s: without its last key slot nobody could read it any more", l->p.path);
	ret = 0;
	for (unsigned i = 0; !ret && i < LUKS_SLOTS; i++)
		if (doomed[i])
			ret = erase(l, i, err);
	return ret;
}

/* ---- New headers --------------------------------------------------------------- */

int luks_measure(const struct luks_options *o, uint64_t *bytes, const char *path, struct err *err)
{
	struct luks_header h;
	int ret = luks_header_new(&h, o, path, err);

	*bytes = (uint64_t)h.payload * LUKS_SECTOR;
	return ret;
}

int luks_create(const struct luks_place *p, const struct luks_options *o, struct err *err)
{
	unsigned ms = o->iter_ms ? o->iter_ms : DEFAULT_MS;
	uint8_t key[LUKS_KEY_MAX];
	struct luks_suite suite;
	struct luks_header h;
	int ret;

	if (!o->key_secret)
		return err_set(err, EINVAL,
			       "%s: a LUKS image needs a passphrase: name a secret with key-secret=ID (encrypt.key-secret=ID for "
			       "qcow2) and make it with --object secret,id=ID,file=FILE",
			       p->path);
	ret = luks_header_new(&h, o, p->path, err);
	if (!ret)
		ret = luks_suite_find(&h, &suite, p->path, err);
	if (ret)
		return ret;
	h.iterations = measure(&suite, LUKS_DIGEST, ms / 8);
	if (gnutls_rnd(GNUTLS_RND_KEY, key, h.key_bytes) < 0 || gnutls_rnd(GNUTLS_RND_RANDOM, h.salt, LUKS_SALT) < 0 ||
	    luks_kdf(suite.hash, key, h.key_bytes, h.salt, h.iterations, h.digest, LUKS_DIGEST))
		ret = failed(p, "making a key", err);
	if (!ret)
		ret = fill_slot(p, &h, &suite, 0, key, o->key_secret, ms, err);
	gnutls_memset(key, 0, sizeof(key));
	return ret;
}

/* ---- Opening ------------------------------------------------------------------- */

struct luks *luks_open(const struct luks_place *p, const char *key_secret, struct err *err)
{
	struct luks *l = calloc(1, sizeof(*l));
	uint8_t buf[LUKS_HEADER];
	int ret, slot;

	if (!l) {
		err_set(err, ENOMEM, "%s: no memory for the LUKS header", p->path);
		return NULL;
	}
	l->p = *p;
	ret = p->read(p->opaque, 0, buf, sizeof(buf), err);
	if (!ret)
		ret = luks_header_read(&l->h, buf, p->path, err);
	if (!ret && key_secret)
		ret = luks_suite_find(&l->h, &l->suite, p->path, err);
	if (!ret && key_secret)
		ret = try_slots(l, key_secret, l->key, &slot, err);
	if (!ret && key_secret && luks_cipher_init(&l->cipher, &l->suite, l->key, l->h.key_bytes, LUKS_LANES))
		ret = failed(p, "setting up the cipher", err);
	if (ret) {
		luks_close(l);
		return NULL;
	}
	return l;
}

void luks_close(struct luks *l)
{
	if (!l)
		return;
	luks_cipher_free(&l->cipher);
	secret_wipe(l, sizeof(*l));
}

bool luks_unlocked(const struct luks *l)
{
	return l->cipher.lanes;
}

uint64_t luks_payload(const struct luks *l)
{
	return (uint64_t)l->h.payload * LUKS_SECTOR;
}

static int run(struct luks *l, bool encrypt, uint64_t sector, const void *in, void *out, size_t len, struct err *err)
{
	if (!luks_unlocked(l))
		return err_set(err, EACCES, "%s is encrypted: name the secret with its passphrase", l->p.path);
	return luks_cipher_run(&l->cipher, encrypt, sector, in, out, len) ? failed(&l->p, "ciphering", err) : 0;
}

int luks_encrypt(struct luks *l, uint64_t sector, const void *in, void *out, size_t len, struct err *err)
{
	return run(l, true, sector, in, out, len, err);
}

int luks_decrypt(struct luks *l, uint64_t sector, const void *in, void *out, size_t len, struct err *err)
{
	return run(l, false, sector, in, out, len, err);
}

/* The mode's parts, as QEMU names them. */
void luks_get_info(const struct luks *l, struct luks_info *info)
{
	const char *dash = strchr(l->h.mode, '-'), *colon = strchr(l->h.mode, ':');
	bool xts = !strncmp(l->h.mode, "xts", 3);
	unsigned bits = l->h.key_bytes * (xts ? 4 : 8);

	*info = (struct luks_info){
		.cipher = strcmp(l->h.cipher, "aes") ? l->h.cipher
			  : bits == 128		     ? "aes-128"
			  : bits == 192		     ? "aes-192"
						     : "aes-256",
		.mode = xts ? "xts" : !strncmp(l->h.mode, "cbc", 3) ? "cbc" : l->h.mode,
		.ivgen = !dash			      ? ""
			 : !strncmp(dash, "-essiv", 6) ? "essiv"
						       : dash + 1,
		.ivgen_hash = colon ? colon + 1 : NULL,
		.hash = l->h.hash,
		.uuid = l->h.uuid,
		.payload = luks_payload(l),
		.master_iterations = l->h.iterations,
	};
	for (unsigned i = 0; i < LUKS_SLOTS; i++) {
		info->slot[i].active = l->h.slot[i].active;
		info->slot[i].iterations = l->h.slot[i].iterations;
		info->slot[i].stripes = l->h.slot[i].stripes;
		info->slot[i].offset = (uint64_t)l->h.slot[i].offset * LUKS_SECTOR;
	}
}
