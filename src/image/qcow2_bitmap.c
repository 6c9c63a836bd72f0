/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Persistent dirty bitmaps: which parts of the disk were written since some
 * moment. Those that are enabled are in memory while the image is written; on
 * the disk they carry "in use" for that time, so that after a crash nobody
 * takes them for complete.
 */
#include <errno.h>
#include <stdlib.h>

#include "image/qcow2_int.h"

#define ENTRY 24u /* bytes of a directory entry before extra data and name */
#define FLAG_IN_USE 1u
#define FLAG_AUTO 2u
#define FLAG_EXTRA_COMPATIBLE 4u
#define TYPE_DIRTY 1u
#define MAX_BITMAPS 65535u
#define MAX_DIRECTORY (16u << 20)
#define MAX_BYTES (512u << 20)
#define MIN_GRANULARITY 9u
#define MAX_GRANULARITY 31u
#define ALL_ONES 1ull /* a table entry without a cluster */

struct qcow2_bitmap {
	char *name;
	unsigned granularity; /* log2 of bytes a bit */
	uint32_t flags;
	uint64_t table_offset, table_size; /* on the disk; entries */
	uint64_t entry_at;		   /* its entry in the directory, byte in the file */
	uint8_t *bits;			   /* or NULL: not in memory */
	bool changed;			   /* bits or flags are not what the disk has */
};

static uint64_t get(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;

	while (bytes--)
		v = v << 8 | *p++;
	return v;
}

static void put(uint8_t *p, unsigned bytes, uint64_t v)
{
	for (; bytes; bytes--, v >>= 8)
		p[bytes - 1] = v;
}

static uint64_t count_bits(uint64_t size, unsigned granularity)
{
	return (size >> granularity) + !!(size & ((1ull << granularity) - 1));
}

static uint64_t byte_count(uint64_t size, unsigned granularity)
{
	return (count_bits(size, granularity) + 7) / 8;
}

/* ---- Reading ------------------------------------------------------------------------ */

static int bad(struct qcow2 *q, unsigned i, const char *what, struct err *err)
{
	return err_set(err, EINVAL, "%s: entry %u of the bitmap directory: %s", q->path, i, what);
}

static int parse(struct qcow2 *q, unsigned i, const uint8_t *p, uint64_t left, uint64_t at, uint64_t *used,
		 struct err *err)
{
	struct qcow2_bitmap *b = &q->bitmaps[i];
	uint64_t name, extra;

	if (left < ENTRY)
		return bad(q, i, "it reaches past the directory's end", err);
	*b = (struct qcow2_bitmap){
		.table_offset = get(p, 8),
		.table_size = get(p + 8, 4),
		.flags = get(p + 12, 4),
		.granularity = p[17],
		.entry_at = at,
	};
	name = get(p + 18, 2);
	extra = get(p + 20, 4);
	*used = q_round_up(ENTRY + extra + name, 8);
	if (*used > left)
		return bad(q, i, "it reaches past the directory's end", err);
	if (p[16] != TYPE_DIRTY)
		return bad(q, i, "its type is unknown", err);
	if (!name || name > 1023 || memchr(p + ENTRY + extra, 0, name))
		return bad(q, i, "its name is none", err);
	if (b->granularity < MIN_GRANULARITY || b->granularity > MAX_GRANULARITY)
		return bad(q, i, "its granularity must be from 512 bytes to 2 GiB", err);
	if (extra && !(b->flags & FLAG_EXTRA_COMPATIBLE))
		return bad(q, i, "it has extra data that only its writer understands", err);
	if (b->table_size > MAX_BYTES / 512 ||
	    qcow2_bound(q, b->table_offset, b->table_size * 8, "a bitmap's table", err))
		return bad(q, i, "its table is too large", err);
	b->name = strndup((const char *)p + ENTRY + extra, name);
	if (!b->name)
		return err_set(err, ENOMEM, "%s: no memory for its bitmaps", q->path);
	/* It is shown to people. */
	for (char *c = b->name; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	return 0;
}

int qcow2_bitmaps_read(struct qcow2 *q, struct err *err)
{
	uint64_t at = 0, used = 0;
	uint8_t *dir;
	int ret;

	/* Without the bit, somebody wrote who did not know of them. */
	if (!q->has_bitmaps || !(q->h.autoclear & Q_AUTOCLEAR_BITMAPS)) {
		/* What it wrote may have taken their clusters. */
		q->nbitmaps = 0;
		q->bitmap_dir_size = 0;
		return 0;
	}
	if (!q->nbitmaps || q->nbitmaps > MAX_BITMAPS || q->bitmap_dir_size > MAX_DIRECTORY ||
	    q->bitmap_dir_size < (uint64_t)q->nbitmaps * ENTRY) {
		ret = err_set(err, EINVAL, "%s: the header's bitmaps extension has %u bitmaps in %llu bytes", q->path,
			      q->nbitmaps, (unsigned long long)q->bitmap_dir_size);
		q->nbitmaps = 0;
		return ret;
	}
	dir = malloc(q->bitmap_dir_size);
	q->bitmaps = calloc(q->nbitmaps, sizeof(q->bitmaps[0]));
	ret = dir && q->bitmaps ? qcow2_bound(q, q->bitmap_dir, q->bitmap_dir_size, "bitmap_directory_offset", err)
				: err_set(err, ENOMEM, "%s: no memory for its bitmaps", q->path);
	if (!q->bitmaps)
		q->nbitmaps = 0;
	if (!ret)
		ret = qcow2_file_read(q, q->bitmap_dir, dir, q->bitmap_dir_size, "bitmap directory", err);
	for (unsigned i = 0; !ret && i < q->nbitmaps; i++, at += used)
		ret = parse(q, i, dir + at, q->bitmap_dir_size - at, q->bitmap_dir + at, &used, err);
	free(dir);
	return ret;
}

static void forget(struct qcow2_bitmap *b)
{
	free(b->name);
	free(b->bits);
}

void qcow2_bitmaps_free(struct qcow2 *q)
{
	for (unsigned i = 0; q->bitmaps && i < q->nbitmaps; i++)
		forget(&q->bitmaps[i]);
	free(q->bitmaps);
}

static int read_table(struct qcow2 *q, const struct qcow2_bitmap *b, uint64_t **table, struct err *err)
{
	return qcow2_read_l1(q, b->table_offset, b->table_size, table,
			     err); /* the same on the disk: 64 bits, big endian */
}

/* Each cluster that belongs to the bitmaps: the directory's, tables and bits. */
int qcow2_bitmaps_each(struct qcow2 *q,
		       int (*fn)(void *opaque, uint64_t offset, uint64_t bytes, const char *what, struct err *err),
		       void *opaque, struct err *err)
{
	int ret = q->nbitmaps ? fn(opaque, q->bitmap_dir, q->bitmap_dir_size, "bitmap directory", err) : 0;

	for (unsigned i = 0; !ret && i < q->nbitmaps; i++) {
		struct qcow2_bitmap *b = &q->bitmaps[i];
		uint64_t *table;

		ret = fn(opaque, b->table_offset, b->table_size * 8, "bitmap table", err);
		if (!ret)
			ret = read_table(q, b, &table, err);
		if (ret)
			break;
		for (uint64_t j = 0; !ret && j < b->table_size; j++)
			if (table[j] & Q_OFFSET)
				ret = fn(opaque, table[j] & Q_OFFSET, q->cluster_size, "bitmap data", err);
		free(table);
	}
	return ret;
}

/* Its bits into memory. */
static int load(struct qcow2 *q, struct qcow2_bitmap *b, struct err *err)
{
	uint64_t bytes = byte_count(q->h.size, b->granularity), clusters = q_clusters(q, bytes), *table = NULL;
	int ret = 0;

	if (b->bits)
		return 0;
	if (b->flags & FLAG_IN_USE)
		return err_set(err, EINVAL,
			       "%s: bitmap '%s' was not closed and is not complete: it can only be removed", q->path,
			       b->name);
	if (bytes > MAX_BYTES || b->table_size != clusters)
		return err_set(err, EINVAL, "%s: bitmap '%s' has a table of %llu entries, and the disk needs %llu",
			       q->path, b->name, (unsigned long long)b->table_size, (unsigned long long)clusters);
	b->bits = calloc(1, clusters << q->h.cluster_bits ? clusters << q->h.cluster_bits : 1);
	ret = b->bits ? read_table(q, b, &table, err) : err_set(err, ENOMEM, "%s: no memory for a bitmap", q->path);
	for (uint64_t i = 0; !ret && i < clusters; i++) {
		uint8_t *to = b->bits + (i << q->h.cluster_bits);

		if (table[i] & Q_OFFSET)
			ret = qcow2_file_read(q, table[i] & Q_OFFSET, to, q->cluster_size, "bitmap", err);
		else if (table[i] & ALL_ONES)
			memset(to, 0xff, q->cluster_size);
	}
	free(table);
	if (ret) {
		free(b->bits);
		b->bits = NULL;
	}
	return ret;
}

/* ---- Writing ------------------------------------------------------------------------- */

/* Clusters that are to be freed once the new directory is in force. */
struct old {
	struct qcow2 *q;
	uint64_t *at; /* offset, bytes */
	size_t n, room;
};

static int remember(void *opaque, uint64_t offset, uint64_t bytes, const char *what, struct err *err)
{
	struct old *o = opaque;

	if (!bytes)
		return 0;
	if (o->n == o->room) {
		uint64_t *new = realloc(o->at, (o->room ? 2 * o->room : 64) * 2 * sizeof(*new));

		if (!new)
			return err_set(err, ENOMEM, "%s: no memory for its bitmaps", o->q->path);
		o->room = o->room ? 2 * o->room : 64;
		o->at = new;
	}
	o->at[2 * o->n] = offset;
	o->at[2 * o->n++ + 1] = bytes;
	return 0;
}

static int write_new(struct qcow2 *q, const void *buf, uint64_t bytes, uint64_t *at, struct err *err)
{
	uint64_t n = bytes ? q_clusters(q, bytes) : 1;
	int ret = qcow2_alloc(q, n, at, err);

	if (!ret)
		ret = qcow2_meta_add(q, *at, n << q->h.cluster_bits, false, "a bitmap", err);
	return ret || !bytes ? ret : qcow2_file_write(q, *at, buf, bytes, err);
}

static bool all_are(const uint8_t *p, uint64_t len, uint8_t what)
{
	return p[0] == what && !memcmp(p, p + 1, len - 1);
}

static int write_bits(struct qcow2 *q, struct qcow2_bitmap *b, struct err *err)
{
	uint64_t clusters = q_clusters(q, byte_count(q->h.size, b->granularity)), *table = calloc(clusters + 1, 8), at;
	int ret = table ? 0 : err_set(err, ENOMEM, "%s: no memory for a bitmap", q->path);

	for (uint64_t i = 0; !ret && i < clusters; i++) {
		const uint8_t *p = b->bits + (i << q->h.cluster_bits);

		if (all_are(p, q->cluster_size, 0))
			continue;
		if (all_are(p, q->cluster_size, 0xff)) {
			table[i] = htobe64(ALL_ONES);
			continue;
		}
		ret = write_new(q, p, q->cluster_size, &at, err);
		table[i] = htobe64(at);
	}
	if (!ret)
		ret = write_new(q, table, clusters * 8, &at, err);
	if (!ret) {
		b->table_offset = at;
		b->table_size = clusters;
	}
	free(table);
	return ret;
}

/* The directory anew, and the header's extension to it. */
static int write_directory(struct qcow2 *q, struct err *err)
{
	struct qcow2_names names = { .backing = q->backing_name,
				     .backing_format = q->backing_format,
				     .set_bitmaps = true };
	uint64_t bytes = 0, at = 0, in = 0;
	uint8_t *dir, ext[24] = { 0 };
	int ret;

	for (unsigned i = 0; i < q->nbitmaps; i++)
		bytes += q_round_up(ENTRY + strlen(q->bitmaps[i].name), 8);
	dir = calloc(1, bytes + 1);
	if (!dir)
		return err_set(err, ENOMEM, "%s: no memory for the bitmap directory", q->path);
	for (unsigned i = 0; i < q->nbitmaps; i++) {
		const struct qcow2_bitmap *b = &q->bitmaps[i];
		uint8_t *p = dir + in;

		put(p, 8, b->table_offset);
		put(p + 8, 4, b->table_size);
		put(p + 12, 4, b->flags & ~FLAG_EXTRA_COMPATIBLE);
		p[16] = TYPE_DIRTY;
		p[17] = b->granularity;
		put(p + 18, 2, strlen(b->name));
		memcpy(p + ENTRY, b->name, strlen(b->name));
		in += q_round_up(ENTRY + strlen(b->name), 8);
	}
	ret = bytes ? write_new(q, dir, bytes, &at, err) : 0;
	free(dir);
	if (!ret)
		ret = qcow2_writeback(q, err);
	if (!ret)
		ret = qcow2_sync(q, err);
	if (ret)
		return ret;
	put(ext, 4, q->nbitmaps);
	put(ext + 8, 8, bytes);
	put(ext + 16, 8, at);
	names.bitmaps = q->nbitmaps ? ext : NULL;
	q->h.autoclear = (q->h.autoclear & ~Q_AUTOCLEAR_BITMAPS) | (q->nbitmaps ? Q_AUTOCLEAR_BITMAPS : 0);
	ret = qcow2_header_update(q, &names, err);
	if (ret)
		return ret;
	q->has_bitmaps = q->nbitmaps;
	q->bitmap_dir = at;
	q->bitmap_dir_size = bytes;
	for (unsigned i = 0; i < q->nbitmaps; i++) {
		q->bitmaps[i].entry_at = at;
		at += q_round_up(ENTRY + strlen(q->bitmaps[i].name), 8);
		q->bitmaps[i].flags &= ~FLAG_EXTRA_COMPATIBLE;
	}
	return 0;
}

/* The bitmap's table and bits as they lie on the disk now. */
static int remember_data(struct qcow2 *q, struct qcow2_bitmap *b, struct old *old, struct err *err)
{
	uint64_t *table = NULL;
	int ret;

	if (!b->table_offset)
		return 0;
	ret = remember(old, b->table_offset, b->table_size * 8, NULL, err);
	if (!ret)
		ret = read_table(q, b, &table, err);
	for (uint64_t i = 0; !ret && i < b->table_size; i++)
		if (table[i] & Q_OFFSET)
			ret = remember(old, table[i] & Q_OFFSET, q->cluster_size, NULL, err);
	free(table);
	return ret;
}

/* All that changed goes to the disk; what `old` lists, and what those had, becomes free. */
static int store(struct qcow2 *q, struct old *old, struct err *err)
{
	int ret = 0;

	if (q->has_bitmaps && q->bitmap_dir_size)
		ret = remember(old, q->bitmap_dir, q->bitmap_dir_size, NULL, err);
	for (unsigned i = 0; !ret && i < q->nbitmaps; i++) {
		struct qcow2_bitmap *b = &q->bitmaps[i];

		b->flags &= ~(b->changed && b->bits ? FLAG_IN_USE : 0);
		if (!b->changed || !b->bits)
			continue;
		ret = remember_data(q, b, old, err);
		if (!ret)
			ret = write_bits(q, b, err);
	}
	if (!ret)
		ret = write_directory(q, err);
	for (size_t i = 0; !ret && i < old->n; i++)
		ret = qcow2_free_now(q, old->at[2 * i] >> q->h.cluster_bits, q_clusters(q, old->at[2 * i + 1]), err);
	for (unsigned i = 0; !ret && i < q->nbitmaps; i++)
		q->bitmaps[i].changed = false;
	free(old->at);
	return ret;
}

/* ---- While the disk is written --------------------------------------------------------- */

int qcow2_bitmaps_begin(struct qcow2 *q, struct err *err)
{
	bool any = false;
	int ret = 0;

	for (unsigned i = 0; !ret && i < q->nbitmaps; i++) {
		struct qcow2_bitmap *b = &q->bitmaps[i];
		uint8_t flags[4];

		if (!(b->flags & FLAG_AUTO) || b->flags & FLAG_IN_USE)
			continue;
		ret = load(q, b, err);
		if (ret)
			break;
		b->changed = any = q->tracking = true;
		b->flags |= FLAG_IN_USE;
		put(flags, 4, b->flags);
		ret = qcow2_file_write(q, b->entry_at + 12, flags, 4, err);
	}
	return ret || !any ? ret : qcow2_sync(q, err);
}

void qcow2_bitmaps_mark(struct qcow2 *q, uint64_t offset, uint64_t len)
{
	for (unsigned i = 0; q->tracking && len && i < q->nbitmaps; i++) {
		struct qcow2_bitmap *b = &q->bitmaps[i];

		if (!b->bits || !(b->flags & FLAG_AUTO))
			continue;
		for (uint64_t bit = offset >> b->granularity; bit <= (offset + len - 1) >> b->granularity; bit++)
			if (bit < count_bits(q->h.size, b->granularity))
				b->bits[bit / 8] |= 1u << bit % 8;
	}
}

int qcow2_bitmaps_end(struct qcow2 *q, struct err *err)
{
	struct old old = { .q = q };
	bool any = false;

	for (unsigned i = 0; i < q->nbitmaps; i++)
		any |= q->bitmaps[i].changed;
	q->tracking = false;
	return any ? store(q, &old, err) : 0;
}

int qcow2_bitmaps_store(struct qcow2 *q, struct err *err)
{
	int ret = qcow2_bitmaps_end(q, err);

	return ret ? ret : qcow2_bitmaps_begin(q, err);
}

/* Before the disk gets another size; all bits are in memory then, as long as they are for the larger of both. */
int qcow2_bitmaps_resize(struct qcow2 *q, uint64_t size, struct err *err)
{
	for (unsigned i = 0; i < q->nbitmaps; i++) {
		struct qcow2_bitmap *b = &q->bitmaps[i];
		uint64_t old = q_round_up(byte_count(q->h.size, b->granularity), q->cluster_size),
			 n = count_bits(size, b->granularity),
			 new = q_round_up(byte_count(size, b->granularity), q->cluster_size);
		uint8_t *bits;
		int ret = load(q, b, err);

		if (!ret && new > MAX_BYTES)
			ret = err_set(err, EFBIG, "%s: bitmap '%s' would be too large", q->path, b->name);
		if (ret)
			return ret;
		bits = calloc(1, (old > new ? old : new) + 1);
		if (!bits)
			return err_set(err, ENOMEM, "%s: no memory for a bitmap", q->path);
		memcpy(bits, b->bits, old);
		for (uint64_t bit = n; bit < old * 8 && size < q->h.size; bit++)
			bits[bit / 8] &= ~(1u << bit % 8);
		free(b->bits);
		b->bits = bits;
		b->changed = true;
	}
	return 0;
}

/* ---- For users ---------------------------------------------------------------------------- */

unsigned qcow2_bitmap_count(struct qcow2 *q)
{
	return q->nbitmaps;
}

void qcow2_bitmap_get(struct qcow2 *q, unsigned i, struct qcow2_bitmap_info *info)
{
	const struct qcow2_bitmap *b = &q->bitmaps[i];

	*info = (struct qcow2_bitmap_info){
		.name = b->name,
		.granularity = 1u << b->granularity,
		.enabled = b->flags & FLAG_AUTO,
		/* In our own memory it is whole. */
		.in_use = b->flags & FLAG_IN_USE && !b->bits,
	};
}

static struct qcow2_bitmap *find(struct qcow2 *q, const char *name, struct err *err)
{
	for (unsigned i = 0; i < q->nbitmaps; i++)
		if (!strcmp(q->bitmaps[i].name, name))
			return &q->bitmaps[i];
	err_set(err, ENOENT, "%s has no bitmap '%s'", q->path, name);
	return NULL;
}

static int add(struct qcow2 *q, const char *name, unsigned granularity, bool enabled, struct err *err)
{
	uint64_t bytes;
	struct qcow2_bitmap *list;

	if (!granularity) /* as QEMU has it */
		granularity = q->cluster_size < 4096 ? 4096 : q->cluster_size > 65536 ? 65536 : q->cluster_size;
	if (granularity & (granularity - 1) || granularity < 1u << MIN_GRANULARITY ||
	    granularity > 1u << MAX_GRANULARITY)
		return err_set(err, EINVAL, "a bitmap's granularity is a power of two from 512 to 2G");
	if (!name[0] || strlen(name) > 1023)
		return err_set(err, EINVAL, "a bitmap's name has from 1 to 1023 bytes");
	if (q->h.version < 3)
		return err_set(err, ENOTSUP, "%s has no bitmaps, which need compat=1.1", q->path);
	if (find(q, name, NULL))
		return err_set(err, EEXIST, "%s has a bitmap '%s' already", q->path, name);
	if (q->nbitmaps == MAX_BITMAPS)
		return err_set(err, EFBIG, "%s has as many bitmaps as can be", q->path);
	bytes = q_round_up(byte_count(q->h.size, __builtin_ctz(granularity)), q->cluster_size);
	if (bytes > MAX_BYTES)
		return err_set(err, EFBIG, "%s: a bitmap with that granularity would be too large", q->path);
	list = realloc(q->bitmaps, (q->nbitmaps + 1) * sizeof(*list));
	if (!list)
		return err_set(err, ENOMEM, "%s: no memory for a bitmap", q->path);
	q->bitmaps = list;
	list[q->nbitmaps] = (struct qcow2_bitmap){
		.name = strdup(name),
		.granularity = __builtin_ctz(granularity),
		.flags = enabled ? FLAG_AUTO : 0,
		.bits = calloc(1, bytes + 1),
		.changed = true,
	};
	if (!list[q->nbitmaps].name || !list[q->nbitmaps].bits) {
		forget(&list[q->nbitmaps]);
		return err_set(err, ENOMEM, "%s: no memory for a bitmap", q->path);
	}
	q->nbitmaps++;
	q->has_bitmaps = true;
	q->tracking |= enabled;
	return 0;
}

static int locked_begin(struct qcow2 *q, struct err *err)
{
	qcow2_exclusive_begin(q);
	return qcow2_begin_write(q, err);
}

/* What changed is on the disk at once, and in use there as long as the image is written. */
static int locked_end(struct qcow2 *q, struct old *old, int ret, struct err *err)
{
	if (!ret)
		ret = store(q, old, err);
	else
		free(old->at);
	if (!ret)
		ret = qcow2_bitmaps_begin(q, err);
	if (!ret)
		ret = qcow2_do_flush(q, err);
	qcow2_exclusive_end(q);
	return ret;
}

int qcow2_bitmap_add(struct qcow2 *q, const char *name, unsigned granularity, bool enabled, struct err *err)
{
	struct old old = { .q = q };
	int ret = locked_begin(q, err);
	bool added;

	if (!ret)
		ret = add(q, name, granularity, enabled, err);
	added = !ret;
	if (!ret)
		ret = store(q, &old, err);
	if (ret && added) /* not in the directory: there is none */
		forget(&q->bitmaps[--q->nbitmaps]);
	if (!ret)
		ret = qcow2_bitmaps_begin(q, err);
	if (!ret)
		ret = qcow2_do_flush(q, err);
	qcow2_exclusive_end(q);
	return ret;
}

static int drop(struct qcow2 *q, struct qcow2_bitmap *b, struct old *old, struct err *err)
{
	int ret = remember_data(q, b, old, err);

	if (ret)
		return ret;
	forget(b);
	memmove(b, b + 1, (q->bitmaps + q->nbitmaps - b - 1) * sizeof(*b));
	q->nbitmaps--;
	return 0;
}

int qcow2_bitmap_remove(struct qcow2 *q, const char *name, struct err *err)
{
	struct old old = { .q = q };
	int ret = locked_begin(q, err);
	struct qcow2_bitmap *b = ret ? NULL : find(q, name, err);

	ret = ret ? ret : !b ? -ENOENT : drop(q, b, &old, err);
	return locked_end(q, &old, ret, err);
}

int qcow2_bitmap_clear(struct qcow2 *q, const char *name, struct err *err)
{
	struct old old = { .q = q };
	int ret = locked_begin(q, err);
	struct qcow2_bitmap *b = ret ? NULL : find(q, name, err);

	ret = ret ? ret : !b ? -ENOENT : load(q, b, err);
	if (!ret) {
		memset(b->bits, 0, q_round_up(byte_count(q->h.size, b->granularity), q->cluster_size));
		b->changed = true;
	}
	return locked_end(q, &old, ret, err);
}

int qcow2_bitmap_enable(struct qcow2 *q, const char *name, bool on, struct err *err)
{
	struct old old = { .q = q };
	int ret = locked_begin(q, err);
	struct qcow2_bitmap *b = ret ? NULL : find(q, name, err);

	ret = ret ? ret : !b ? -ENOENT : load(q, b, err);
	if (!ret) {
		b->flags = (b->flags & ~FLAG_AUTO) | (on ? FLAG_AUTO : 0);
		b->changed = true;
	}
	return locked_end(q, &old, ret, err);
}

int qcow2_bitmap_set(struct qcow2 *q, const char *name, uint64_t offset, uint64_t len, struct err *err)
{
	struct qcow2_bitmap *b;
	int ret;

	pthread_mutex_lock(&q->lock);
	b = find(q, name, err);
	ret = b ? load(q, b, err) : -ENOENT;
	for (uint64_t bit = offset >> (ret ? 0 : b->granularity);
	     !ret && len && bit <= (offset + len - 1) >> b->granularity; bit++)
		if (bit < count_bits(q->h.size, b->granularity))
			b->bits[bit / 8] |= 1u << bit % 8;
	if (!ret)
		b->changed = true;
	pthread_mutex_unlock(&q->lock);
	return ret;
}

static bool next_dirty(const struct qcow2_bitmap *b, uint64_t n, uint64_t *bit)
{
	for (; *bit < n; ++*bit) {
		if (!(*bit % 8) && !b->bits[*bit / 8])
			*bit += 7;
		else if (b->bits[*bit / 8] & 1u << *bit % 8)
			return true;
	}
	return false;
}

static int merge_bits(struct qcow2 *q, struct qcow2_bitmap *to, struct qcow2 *from, const char *source, struct err *err)
{
	struct qcow2_bitmap *b = find(from, source, err);
	int ret = b ? load(from, b, err) : -ENOENT;
	uint64_t n, bit = 0;

	if (!ret && from->h.size > q->h.size)
		ret = err_set(err, EINVAL, "%s is larger than %s: their bitmaps cannot be merged", from->path, q->path);
	if (ret)
		return ret;
	n = count_bits(from->h.size, b->granularity);
	for (; next_dirty(b, n, &bit); bit++) {
		uint64_t first = bit << b->granularity, last = first + (1ull << b->granularity) - 1;

		last = last < q->h.size ? last : q->h.size - 1;
		for (uint64_t t = first >> to->granularity; t <= last >> to->granularity; t++)
			to->bits[t / 8] |= 1u << t % 8;
	}
	to->changed = true;
	return 0;
}

int qcow2_bitmap_merge(struct qcow2 *q, const char *name, struct qcow2 *from, const char *source, struct err *err)
{
	struct old old = { .q = q };
	struct qcow2_bitmap *to;
	int ret = locked_begin(q, err);

	to = ret ? NULL : find(q, name, err);
	ret = ret ? ret : !to ? -ENOENT : load(q, to, err);
	if (!ret)
		ret = merge_bits(q, to, from, source, err);
	return locked_end(q, &old, ret, err);
}

int qcow2_bitmap_dirty(struct qcow2 *q, const char *name, uint64_t *offset, uint64_t *len, struct err *err)
{
	struct qcow2_bitmap *b;
	uint64_t bit, end, n;
	int ret;

	qcow2_exclusive_begin(q);
	b = find(q, name, err);
	ret = b ? load(q, b, err) : -ENOENT;
	*len = 0;
	if (!ret) {
		bit = *offset >> b->granularity;
		n = count_bits(q->h.size, b->granularity);
		if (next_dirty(b, n, &bit)) {
			for (end = bit; end < n && b->bits[end / 8] & 1u << end % 8; end++)
				;
			*offset = bit << b->granularity > *offset ? bit << b->granularity : *offset;
			end <<= b->granularity;
			*len = (end < q->h.size ? end : q->h.size) - *offset;
		}
	}
	qcow2_exclusive_end(q);
	return ret;
}
