/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Nothing that the header says is believed before it was compared with the file. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "image/qcow2_int.h"

#define EXT_BACKING_FORMAT 0xe2792acau
#define EXT_FEATURE_NAMES 0x6803f857u
#define EXT_CRYPTO 0x0537be77u
#define EXT_DATA_FILE 0x44415441u
#define EXT_BITMAPS 0x23852875u
#define V2_LENGTH 72u
#define V3_LENGTH 104u

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return be32toh(v);
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return be64toh(v);
}

static void put32(uint8_t *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, 4);
}

static void put64(uint8_t *p, uint64_t v)
{
	v = htobe64(v);
	memcpy(p, &v, 8);
}

static void decode(struct qcow2_header *h, const uint8_t *p)
{
	*h = (struct qcow2_header){
		.version = get32(p + 4),
		.backing_offset = get64(p + 8),
		.backing_size = get32(p + 16),
		.cluster_bits = get32(p + 20),
		.size = get64(p + 24),
		.crypt_method = get32(p + 32),
		.l1_size = get32(p + 36),
		.l1_offset = get64(p + 40),
		.reftable_offset = get64(p + 48),
		.reftable_clusters = get32(p + 56),
		.nb_snapshots = get32(p + 60),
		.snapshots_offset = get64(p + 64),
		.refcount_order = 4,
		.header_length = V2_LENGTH,
	};
	if (h->version < 3)
		return;
	h->incompat = get64(p + 72);
	h->compat = get64(p + 80);
	h->autoclear = get64(p + 88);
	h->refcount_order = get32(p + 96);
	h->header_length = get32(p + 100);
	if (h->header_length > V3_LENGTH)
		h->compression = p[104];
}

void qcow2_header_encode(const struct qcow2_header *h, uint8_t *p)
{
	put32(p, QCOW2_MAGIC);
	put32(p + 4, h->version);
	put64(p + 8, h->backing_offset);
	put32(p + 16, h->backing_size);
	put32(p + 20, h->cluster_bits);
	put64(p + 24, h->size);
	put32(p + 32, h->crypt_method);
	put32(p + 36, h->l1_size);
	put64(p + 40, h->l1_offset);
	put64(p + 48, h->reftable_offset);
	put32(p + 56, h->reftable_clusters);
	put32(p + 60, h->nb_snapshots);
	put64(p + 64, h->snapshots_offset);
	if (h->version < 3)
		return;
	put64(p + 72, h->incompat);
	put64(p + 80, h->compat);
	put64(p + 88, h->autoclear);
	put32(p + 96, h->refcount_order);
	put32(p + 100, h->header_length);
	if (h->header_length > V3_LENGTH)
		p[104] = h->compression;
}

int qcow2_header_write(struct qcow2 *q, struct err *err)
{
	uint8_t buf[V3_LENGTH + 8] = { 0 };
	size_t len = q->h.version < 3 ? V2_LENGTH : q->h.header_length > V3_LENGTH ? V3_LENGTH + 1 : V3_LENGTH;
	int ret;

	qcow2_header_encode(&q->h, buf);
	ret = qcow2_file_write(q, 0, buf, len, err);
	return ret ? ret : qcow2_sync(q, err);
}

static size_t add_extension(uint8_t *buf, size_t at, size_t room, uint32_t type, const void *data, size_t len)
{
	if (at + 8 + q_round_up(len, 8) > room)
		return room + 1;
	put32(buf + at, type);
	put32(buf + at + 4, len);
	if (len)
		memcpy(buf + at + 8, data, len);
	return at + 8 + q_round_up(len, 8);
}

static const struct {
	uint8_t kind, bit; /* 0 incompatible, 1 compatible, 2 autoclear */
	const char *name;
} features[] = {
	{ 0, 0, "dirty bit" },	      { 0, 1, "corrupt bit" },	       { 0, 2, "external data file" },
	{ 0, 3, "compression type" }, { 0, 4, "extended L2 entries" }, { 1, 0, "lazy refcounts" },
	{ 2, 0, "bitmaps" },	      { 2, 1, "raw external data" },
};
#define N_FEATURES (sizeof(features) / sizeof(features[0]))

/* Put the end of the extensions and the backing file's name behind `at`. 0: they do not fit. */
static size_t finish_header(struct qcow2_header *h, const char *backing, uint8_t *buf, size_t at, size_t room)
{
	size_t len = backing ? strlen(backing) : 0;

	if (at <= room)
		at = add_extension(buf, at, room, 0, NULL, 0);
	if (at > room || len > room - at)
		return 0;
	h->backing_offset = backing ? at : 0;
	h->backing_size = len;
	if (len)
		memcpy(buf + at, backing, len);
	qcow2_header_encode(h, buf);
	return at + len;
}

/* The first cluster of a new image: header, extensions, backing file's name. 0: it does not fit. */
size_t qcow2_header_build(const struct qcow2_header *from, const struct qcow2_names *n, uint8_t *buf, size_t room)
{
	struct qcow2_header h = *from;
	uint8_t names[N_FEATURES * 48] = { 0 };
	size_t at = h.header_length, len = n->backing ? strlen(n->backing) : 0;

	memset(buf, 0, room);
	if (n->backing && n->backing_format)
		at = add_extension(buf, at, room, EXT_BACKING_FORMAT, n->backing_format, strlen(n->backing_format));
	if (n->data_file && at <= room)
		at = add_extension(buf, at, room, EXT_DATA_FILE, n->data_file, strlen(n->data_file));
	if (n->crypto_length && at <= room) {
		uint8_t crypto[16];

		put64(crypto, n->crypto_offset);
		put64(crypto + 8, n->crypto_length);
		at = add_extension(buf, at, room, EXT_CRYPTO, crypto, sizeof(crypto));
	}
	for (unsigned i = 0; i < N_FEATURES; i++) {
		names[i * 48] = features[i].kind;
		names[i * 48 + 1] = features[i].bit;
		memcpy(names + i * 48 + 2, features[i].name, strlen(features[i].name));
	}
	/* A nicety, left out where clusters are small. */
	if (h.version >= 3 && at + 8 + sizeof(names) + 8 + len <= room)
		at = add_extension(buf, at, room, EXT_FEATURE_NAMES, names, sizeof(names));
	return finish_header(&h, n->backing, buf, at, room);
}

/* The header's cluster anew: `names`, and all other extensions as they are in `old`. 0: they do not fit. */
static size_t rebuild(const struct qcow2 *q, struct qcow2_header *h, const struct qcow2_names *names,
		      const uint8_t *old, bool features, uint8_t *buf)
{
	size_t room = q->cluster_size, at = h->header_length, from = at;

	memcpy(buf, old, at); /* with fields that we do not know */
	if (names->backing && names->backing_format)
		at = add_extension(buf, at, room, EXT_BACKING_FORMAT, names->backing_format,
				   strlen(names->backing_format));
	while (from + 8 <= room && get32(old + from)) {
		uint32_t type = get32(old + from), len = get32(old + from + 4);

		if (len > room - from - 8)
			break; /* refused when it was opened */
		if (type != EXT_BACKING_FORMAT && (features || type != EXT_FEATURE_NAMES) &&
		    !(type == EXT_BITMAPS && names->set_bitmaps) && at <= room)
			at = add_extension(buf, at, room, type, old + from + 8, len);
		from += 8 + q_round_up(len, 8);
	}
	if (names->bitmaps && at <= room)
		at = add_extension(buf, at, room, EXT_BITMAPS, names->bitmaps, 24);
	return finish_header(h, names->backing, buf, at, room);
}

int qcow2_header_update(struct qcow2 *q, const struct qcow2_names *names, struct err *err)
{
	struct qcow2_header h = q->h;
	uint8_t *old = malloc(q->cluster_size), *buf = calloc(1, q->cluster_size);
	int ret = old && buf ? 0 : err_set(err, ENOMEM, "%s: no memory for the header", q->path);

	if (!ret)
		ret = qcow2_file_read_data(q, 0, old, q->cluster_size, err);
	/* The features' names are a nicety, left out where clusters are small. */
	if (!ret && !rebuild(q, &h, names, old, true, buf)) {
		memset(buf, 0, q->cluster_size);
		if (!rebuild(q, &h, names, old, false, buf))
			ret = err_set(err, ENOSPC, "%s: the names do not fit in the header's cluster of %llu bytes",
				      q->path, (unsigned long long)q->cluster_size);
	}
	if (!ret)
		ret = qcow2_file_write(q, 0, buf, q->cluster_size, err);
	if (!ret)
		ret = qcow2_sync(q, err);
	if (!ret)
		q->h = h;
	free(old);
	free(buf);
	return ret;
}

static int set_backing(struct qcow2 *q, const char *name, const char *format, struct err *err)
{
	char *n = name ? strdup(name) : NULL, *f = name && format ? strdup(format) : NULL;
	struct qcow2_names names = { .backing = n, .backing_format = f };
	int ret = 0;

	if ((name && !n) || (name && format && !f))
		ret = err_set(err, ENOMEM, "%s: no memory", q->path);
	else if (name && (!name[0] || strlen(name) > 1023))
		ret = err_set(err, EINVAL, "%s: a backing file's name has from 1 to 1023 bytes", q->path);
	else if (f && strlen(f) > 15)
		ret = err_set(err, EINVAL, "%s: there is no format '%s'", q->path, f);
	else if (name && DATA_RAW(q))
		ret = err_set(err, EINVAL, "%s: with data_file_raw there can't be a backing file", q->path);
	if (!ret)
		ret = qcow2_header_update(q, &names, err);
	if (ret) {
		free(n);
		free(f);
		return ret;
	}
	free(q->backing_name);
	free(q->backing_format);
	q->backing_name = n;
	q->backing_format = f;
	return 0;
}

int qcow2_set_backing(struct qcow2 *q, const char *name, const char *format, struct err *err)
{
	int ret;

	qcow2_exclusive_begin(q);
	ret = qcow2_begin_write(q, err);
	if (!ret)
		ret = qcow2_do_flush(q, err);
	if (!ret)
		ret = set_backing(q, name, format, err);
	qcow2_exclusive_end(q);
	return ret;
}

/* ---- Reading --------------------------------------------------------------- */

static int bad(struct qcow2 *q, struct err *err, const char *field, unsigned long long value, const char *why)
{
	return err_set(err, EINVAL, "%s: %s in the qcow2 header is %llu: %s", q->path, field, value, why);
}

static const char *feature_name(struct qcow2 *q, unsigned bit)
{
	for (unsigned i = 0; i < N_FEATURES; i++)
		if (features[i].kind == 0 && features[i].bit == bit)
			return features[i].name;
	return q->feature_names[bit] ? q->feature_names[bit] : "unknown";
}

static int check_features(struct qcow2 *q, struct err *err)
{
	const uint64_t known = Q_INCOMPAT_DIRTY | Q_INCOMPAT_CORRUPT | Q_INCOMPAT_DATA_FILE | Q_INCOMPAT_COMPRESSION |
			       Q_INCOMPAT_EXTENDED_L2;
	uint64_t unknown = q->h.incompat & ~known;

	for (unsigned bit = 0; bit < 64; bit++)
		if (unknown >> bit & 1)
			return err_set(
				err, ENOTSUP,
				"%s needs a feature that Keel does not support: %s (incompatible feature bit %u)",
				q->path, feature_name(q, bit), bit);
	return 0;
}

static int check_geometry(struct qcow2 *q, struct err *err)
{
	struct qcow2_header *h = &q->h;
	uint64_t need;

	if (h->version != 2 && h->version != 3)
		return bad(q, err, "version", h->version, "only 2 and 3 are supported");
	if (h->cluster_bits < QCOW2_MIN_BITS || h->cluster_bits > QCOW2_MAX_BITS)
		return bad(q, err, "cluster_bits", h->cluster_bits, "it must be from 9 to 21");
	q->cluster_size = 1ull << h->cluster_bits;
	if (h->version >= 3 &&
	    (h->header_length < V3_LENGTH || h->header_length > q->cluster_size || h->header_length % 8))
		return bad(q, err, "header_length", h->header_length,
			   "it must be a multiple of 8, at least 104 and within the first cluster");
	if (h->refcount_order > 6)
		return bad(q, err, "refcount_order", h->refcount_order, "it must be at most 6");
	if (h->incompat & Q_INCOMPAT_EXTENDED_L2 && h->cluster_bits < 14)
		return bad(q, err, "cluster_bits", h->cluster_bits, "it must be at least 14 with extended L2 entries");
	if (h->compression > QCOW2_ZSTD)
		return bad(q, err, "compression_type", h->compression, "only 0 (zlib) and 1 (zstd) are supported");
	if (h->compression && !(h->incompat & Q_INCOMPAT_COMPRESSION))
		return bad(q, err, "compression_type", h->compression, "the feature bit for it is not set");
	q->l2_bits = h->cluster_bits - (EXTENDED(q) ? 4 : 3);
	q->unit_bits = h->cluster_bits - (EXTENDED(q) ? 5 : 0);
	q->ref_bits = h->cluster_bits + 3 - h->refcount_order;
	if (h->size > 1ull << 62)
		return bad(q, err, "size", h->size, "it is too large");
	if (h->l1_size > QCOW2_MAX_L1 / 8)
		return bad(q, err, "l1_size", h->l1_size, "it is too large");
	need = h->size >> (h->cluster_bits + q->l2_bits);
	need += !!(h->size & ((1ull << (h->cluster_bits + q->l2_bits)) - 1));
	if (h->l1_size < need)
		return bad(q, err, "l1_size", h->l1_size, "that is too few for the image's size");
	if (!h->reftable_clusters)
		return bad(q, err, "refcount_table_clusters", 0, "there must be a refcount table");
	if (h->reftable_clusters > QCOW2_MAX_REFTABLE >> h->cluster_bits && h->reftable_clusters > 1)
		return bad(q, err, "refcount_table_clusters", h->reftable_clusters, "it is too large");
	return 0;
}

static int check_tables(struct qcow2 *q, struct err *err)
{
	int ret = qcow2_bound(q, q->h.l1_offset, (uint64_t)q->h.l1_size * 8, "l1_table_offset", err);

	if (!ret)
		ret = qcow2_bound(q, q->h.reftable_offset, (uint64_t)q->h.reftable_clusters << q->h.cluster_bits,
				  "refcount_table_offset", err);
	if (!ret && q->h.l1_size && !q->h.l1_offset)
		ret = bad(q, err, "l1_table_offset", 0, "that is the header's place");
	if (!ret && !q->h.reftable_offset)
		ret = bad(q, err, "refcount_table_offset", 0, "that is the header's place");
	return ret;
}

static void read_feature_names(struct qcow2 *q, const uint8_t *p, size_t len)
{
	for (; len >= 48; p += 48, len -= 48) {
		if (p[0] != 0 || p[1] > 63 || q->feature_names[p[1]])
			continue;
		q->feature_names[p[1]] = strndup((const char *)p + 2, 46);
		/* It goes into messages. */
		for (char *c = q->feature_names[p[1]]; c && *c; c++)
			if (*c < ' ' || *c > '~')
				*c = '?';
	}
}

static int read_extensions(struct qcow2 *q, const uint8_t *buf, size_t end, struct err *err)
{
	size_t at = q->h.header_length;

	while (at + 8 <= end) {
		uint32_t type = get32(buf + at), len = get32(buf + at + 4);

		if (!type)
			return 0;
		at += 8;
		if (len > end - at)
			return err_set(err, EINVAL,
				       "%s: header extension %#x, %u bytes long, does not fit in the header", q->path,
				       type, len);
		if (type == EXT_FEATURE_NAMES)
			read_feature_names(q, buf + at, len);
		if (type == EXT_BACKING_FORMAT && !q->backing_format) {
			if (len > 15)
				return err_set(err, EINVAL, "%s: the backing format's name is %u bytes long", q->path,
					       len);
			q->backing_format = strndup((const char *)buf + at, len);
		}
		if (type == EXT_DATA_FILE && !q->data_name) {
			if (!len || len > 1023 || memchr(buf + at, 0, len))
				return err_set(err, EINVAL, "%s: the data file's name in the header is no name",
					       q->path);
			q->data_name = strndup((const char *)buf + at, len);
		}
		if (type == EXT_BITMAPS && len >= 24) {
			q->has_bitmaps = true;
			q->nbitmaps = get32(buf + at);
			q->bitmap_dir_size = get64(buf + at + 8);
			q->bitmap_dir = get64(buf + at + 16);
		}
		if (type == EXT_CRYPTO && len != 16)
			return err_set(err, EINVAL, "%s: the encryption's header extension is %u bytes long, not 16", q->path,
				       len);
		if (type == EXT_CRYPTO) {
			q->crypto_offset = get64(buf + at);
			q->crypto_length = get64(buf + at + 8);
		}
		at += q_round_up(len, 8);
	}
	return 0;
}

static int read_backing_name(struct qcow2 *q, const uint8_t *buf, size_t have, struct err *err)
{
	if (!q->h.backing_offset)
		return 0;
	if (!q->h.backing_size || q->h.backing_size > 1023)
		return bad(q, err, "backing_file_size", q->h.backing_size, "it must be from 1 to 1023");
	if (q->h.backing_offset > have || q->h.backing_size > have - q->h.backing_offset)
		return bad(q, err, "backing_file_offset", q->h.backing_offset,
			   "the name must lie within the first cluster");
	if (memchr(buf + q->h.backing_offset, 0, q->h.backing_size))
		return bad(q, err, "backing_file_offset", q->h.backing_offset, "there is a zero byte in the name");
	q->backing_name = strndup((const char *)buf + q->h.backing_offset, q->h.backing_size);
	return q->backing_name ? 0 : err_set(err, ENOMEM, "%s: no memory", q->path);
}

int qcow2_header_read(struct qcow2 *q, struct err *err)
{
	uint8_t first[V3_LENGTH + 8] = { 0 }, *buf;
	size_t have, end;
	int ret = qcow2_file_read_data(q, 0, first, sizeof(first), err);

	if (ret)
		return ret;
	if (q->file_end < V2_LENGTH || get32(first) != QCOW2_MAGIC)
		return err_set(err, EINVAL, "%s is not a qcow2 image", q->path);
	decode(&q->h, first);
	ret = check_geometry(q, err);
	if (ret)
		return ret;
	have = q->cluster_size < q->file_end ? q->cluster_size : q->file_end;
	buf = malloc(q->cluster_size);
	if (!buf)
		return err_set(err, ENOMEM, "%s: no memory for the header", q->path);
	ret = qcow2_file_read_data(q, 0, buf, q->cluster_size, err);
	end = q->h.backing_offset && q->h.backing_offset < have ? q->h.backing_offset : have;
	if (!ret)
		ret = read_extensions(q, buf, end, err);
	if (!ret)
		ret = check_features(q, err);
	if (!ret)
		ret = check_tables(q, err);
	if (!ret)
		ret = read_backing_name(q, buf, have, err);
	free(buf);
	return ret;
}
