/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Encrypted images: crypt_method 2, a LUKS header in clusters of the file. Guest
 * data is ciphered in sectors, numbered by where they lie in the file. Tables and
 * compressed clusters are not ciphered; the latter are refused.
 */
#include <errno.h>
#include <stdlib.h>

#include "image/qcow2_int.h"

#define CHUNK (256u << 10)

/* ---- The header's place ------------------------------------------------------- */

static int in_place(const struct qcow2 *q, uint64_t offset, size_t len, struct err *err)
{
	if (offset > q->crypto_length || len > q->crypto_length - offset)
		return err_set(err, EINVAL, "%s: the LUKS header needs more than the %llu bytes that the image has for it",
			       q->path, (unsigned long long)q->crypto_length);
	return 0;
}

static int read_header(void *opaque, uint64_t offset, void *buf, size_t len, struct err *err)
{
	struct qcow2 *q = opaque;
	int ret = in_place(q, offset, len, err);

	return ret ? ret : qcow2_file_read(q, q->crypto_offset + offset, buf, len, "LUKS header", err);
}

static int write_header(void *opaque, uint64_t offset, const void *buf, size_t len, struct err *err)
{
	struct qcow2 *q = opaque;
	int ret = in_place(q, offset, len, err);

	if (!ret && q->flags && !(q->flags & IMAGE_RDWR))
		ret = err_set(err, EROFS, "%s is open for reading only", q->path);
	if (!ret)
		ret = qcow2_file_write(q, q->crypto_offset + offset, buf, len, err);
	return ret ? ret : qcow2_sync(q, err);
}

static struct luks_place place_of(struct qcow2 *q)
{
	return (struct luks_place){ .path = q->path, .opaque = q, .read = read_header, .write = write_header };
}

int qcow2_crypto_create(struct qcow2 *q, const struct luks_options *o, struct err *err)
{
	struct luks_place p = place_of(q);

	return luks_create(&p, o, err);
}

int qcow2_crypto_open(struct qcow2 *q, const char *key_secret, struct err *err)
{
	struct luks_place p = place_of(q);
	int ret;

	if (!q->h.crypt_method && !q->crypto_length)
		return 0;
	if (q->h.crypt_method == 1)
		return err_set(err, ENOTSUP,
			       "%s is encrypted the old way (crypt_method 1), which is not safe and not supported: convert it "
			       "with qemu-img to encrypt.format=luks",
			       q->path);
	if (q->h.crypt_method != 2)
		return err_set(err, EINVAL, "%s: crypt_method in the qcow2 header is %u: only 0 and 2 (LUKS) are supported",
			       q->path, q->h.crypt_method);
	if (!q->crypto_length)
		return err_set(err, EINVAL, "%s: crypt_method is 2 and the extension that says where the LUKS header is is missing",
			       q->path);
	if (DATA_FILE(q))
		return err_set(err, ENOTSUP, "%s is encrypted and has its data in another file, which is not supported together",
			       q->path);
	ret = qcow2_bound(q, q->crypto_offset, q->crypto_length, "the LUKS header's offset", err);
	if (!ret && !q->crypto_offset)
		ret = err_set(err, EINVAL, "%s: the LUKS header's offset is 0: that is the qcow2 header's place", q->path);
	if (!ret && !key_secret && !(q->flags & (IMAGE_LOCKED | IMAGE_CHECK)))
		ret = err_set(err, EACCES,
			      "%s is encrypted: name the secret with its passphrase, encrypt.key-secret=ID, and make it with "
			      "--object secret,id=ID,file=FILE",
			      q->path);
	if (ret)
		return ret;
	q->luks = luks_open(&p, key_secret, err);
	return q->luks ? 0 : -EACCES;
}

/* ---- Guest data ----------------------------------------------------------------- */

static void *bounce(const struct qcow2 *q, size_t len, struct err *err)
{
	void *p = NULL;

	if (posix_memalign(&p, 4096, len)) {
		err_set(err, ENOMEM, "%s: no memory for a request", q->path);
		return NULL;
	}
	return p;
}

/* The sectors around [host, host + len), deciphered. */
static int read_around(struct qcow2 *q, uint64_t from, uint8_t *clear, uint8_t *tmp, size_t len, struct err *err)
{
	int ret = qcow2_host_read(q, from, tmp, len, err);

	return ret ? ret : luks_decrypt(q->luks, from / LUKS_SECTOR, tmp, clear, len, err);
}

int qcow2_crypto_read(struct qcow2 *q, uint64_t host, void *buf, size_t len, struct err *err)
{
	uint8_t *tmp = bounce(q, len < CHUNK ? len + 2 * LUKS_SECTOR : CHUNK, err), *to = buf;
	int ret = tmp ? 0 : -ENOMEM;

	for (size_t n; !ret && len; host += n, to += n, len -= n) {
		uint64_t in = host % LUKS_SECTOR;
		uint8_t part[LUKS_SECTOR];

		if (!in && len >= LUKS_SECTOR) {
			n = len < CHUNK ? len & ~(size_t)(LUKS_SECTOR - 1) : CHUNK;
			ret = read_around(q, host, to, tmp, n, err);
			continue;
		}
		n = LUKS_SECTOR - in < len ? LUKS_SECTOR - in : len;
		ret = read_around(q, host - in, part, tmp, LUKS_SECTOR, err);
		if (!ret)
			memcpy(to, part + in, n);
	}
	free(tmp);
	return ret;
}

/* Its guest clusters are the writer's own, so nobody else changes another part of a sector meanwhile. */
int qcow2_crypto_write(struct qcow2 *q, uint64_t host, const void *buf, size_t len, struct err *err)
{
	uint8_t *tmp = bounce(q, len < CHUNK ? len + 2 * LUKS_SECTOR : CHUNK, err);
	const uint8_t *from = buf;
	int ret = tmp ? 0 : -ENOMEM;

	for (size_t n; !ret && len; host += n, from += n, len -= n) {
		uint64_t in = host % LUKS_SECTOR;
		uint8_t part[LUKS_SECTOR];

		n = LUKS_SECTOR - in < len ? LUKS_SECTOR - in : len;
		if (in || n < LUKS_SECTOR) {
			ret = read_around(q, host - in, part, tmp, LUKS_SECTOR, err);
			if (!ret)
				memcpy(part + in, from, n);
			if (!ret)
				ret = luks_encrypt(q->luks, host / LUKS_SECTOR, part, tmp, LUKS_SECTOR, err);
			if (!ret)
				ret = qcow2_host_write(q, host - in, tmp, LUKS_SECTOR, err);
			continue;
		}
		n = len < CHUNK ? len & ~(size_t)(LUKS_SECTOR - 1) : CHUNK;
		ret = luks_encrypt(q->luks, host / LUKS_SECTOR, from, tmp, n, err);
		if (!ret)
			ret = qcow2_host_write(q, host, tmp, n, err);
	}
	free(tmp);
	return ret;
}

struct luks *qcow2_luks(struct qcow2 *q)
{
	return q->luks;
}
