/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdlib.h>

#include "image/qcow2_int.h"

int qcow2_cache_init(struct qcow2_cache *c, const char *what, unsigned max)
{
	c->what = what;
	c->max = max;
	for (c->buckets = 16; c->buckets < max; c->buckets *= 2)
		;
	c->bucket = calloc(c->buckets, sizeof(c->bucket[0]));
	return c->bucket ? 0 : -ENOMEM;
}

static struct qcow2_table **bucket_of(struct qcow2_cache *c, uint64_t offset)
{
	return &c->bucket[((offset >> QCOW2_MIN_BITS) * 0x9e3779b97f4a7c15ull >> 32) & (c->buckets - 1)];
}

static void unlink_table(struct qcow2_cache *c, struct qcow2_table *t)
{
	*(t->newer ? &t->newer->older : &c->newest) = t->older;
	*(t->older ? &t->older->newer : &c->oldest) = t->newer;
	t->newer = t->older = NULL;
}

static void link_newest(struct qcow2_cache *c, struct qcow2_table *t)
{
	t->older = c->newest;
	*(c->newest ? &c->newest->newer : &c->oldest) = t;
	c->newest = t;
}

struct qcow2_table *qcow2_cache_find(struct qcow2_cache *c, uint64_t offset)
{
	struct qcow2_table *t = *bucket_of(c, offset);

	while (t && t->offset != offset)
		t = t->chain;
	return t;
}

static void unhash(struct qcow2_cache *c, struct qcow2_table *t)
{
	struct qcow2_table **at = bucket_of(c, t->offset);

	while (*at != t)
		at = &(*at)->chain;
	*at = t->chain;
}

static void release(struct qcow2_cache *c, struct qcow2_table *t)
{
	unhash(c, t);
	unlink_table(c, t);
	c->count--;
	c->ndirty -= t->dirty;
	free(t->data);
	free(t);
}

void qcow2_cache_free(struct qcow2_cache *c)
{
	while (c->newest)
		release(c, c->newest);
	free(c->bucket);
}

void qcow2_cache_drop(struct qcow2_cache *c, uint64_t offset)
{
	struct qcow2_table *t = qcow2_cache_find(c, offset);

	if (t)
		release(c, t);
}

void qcow2_cache_dirty(struct qcow2_cache *c, struct qcow2_table *t)
{
	c->ndirty += !t->dirty;
	t->dirty = true;
}

static int write_table(struct qcow2 *q, struct qcow2_cache *c, struct qcow2_table *t, struct err *err)
{
	int ret = qcow2_file_write(q, t->offset, t->data, q->cluster_size, err);

	if (!ret) {
		t->dirty = false;
		c->ndirty--;
	}
	return ret;
}

static int write_all(struct qcow2 *q, struct qcow2_cache *c, struct err *err)
{
	int ret = 0;

	for (struct qcow2_table *t = c->oldest; t && c->ndirty && !ret; t = t->newer)
		if (t->dirty)
			ret = write_table(q, c, t, err);
	return ret;
}

static int write_l1(struct qcow2 *q, struct err *err)
{
	uint32_t from = q->l1_dirty_from, n = q->l1_dirty_to - from;
	uint64_t *buf = malloc((size_t)n * 8);
	int ret;

	if (!buf)
		return err_set(err, ENOMEM, "%s: no memory to write the L1 table", q->path);
	for (uint32_t i = 0; i < n; i++)
		buf[i] = htobe64(q->l1[from + i]);
	ret = qcow2_file_write(q, q->h.l1_offset + (uint64_t)from * 8, buf, (size_t)n * 8, err);
	free(buf);
	if (!ret) {
		q->l1_dirty_from = UINT32_MAX;
		q->l1_dirty_to = 0;
	}
	return ret;
}

/* Everything dirty, in the order that the head of qcow2_int.h explains. */
int qcow2_writeback_tables(struct qcow2 *q, struct err *err)
{
	bool l1 = q->l1_dirty_to > 0;
	int ret = 0;

	if (!LAZY(q) || !(q->l2.ndirty || l1))
		ret = write_all(q, &q->refs, err);
	/* Data, too, must be there before what names it. */
	if (!ret && (q->l2.ndirty || l1))
		ret = qcow2_sync(q, err);
	if (!ret)
		ret = write_all(q, &q->l2, err);
	if (!ret && l1) {
		ret = qcow2_sync(q, err);
		if (!ret)
			ret = write_l1(q, err);
	}
	return ret;
}

int qcow2_writeback(struct qcow2 *q, struct err *err)
{
	int ret = qcow2_writeback_tables(q, err);

	if (!ret && q->nfrees) {
		ret = qcow2_sync(q, err);
		if (!ret)
			ret = qcow2_apply_frees(q, err);
	}
	return ret;
}

/* Room for one more. */
static int evict(struct qcow2 *q, struct qcow2_cache *c, struct err *err)
{
	struct qcow2_table *t = c->oldest;
	int ret = 0;

	if (c->count < c->max)
		return 0;
	/* A refcount block may go out at any time: counts only go down after writeback. */
	if (t->dirty && c == &q->refs)
		ret = write_table(q, c, t, err);
	else if (t->dirty)
		ret = qcow2_writeback_tables(q, err);
	if (!ret)
		release(c, c->oldest);
	return ret;
}

int qcow2_cache_get(struct qcow2 *q, struct qcow2_cache *c, uint64_t offset, bool fresh, struct qcow2_table **out,
		    struct err *err)
{
	struct qcow2_table *t = qcow2_cache_find(c, offset);
	int ret;

	if (t) {
		unlink_table(c, t);
		link_newest(c, t);
		if (fresh)
			memset(t->data, 0, q->cluster_size);
		*out = t;
		return 0;
	}
	ret = evict(q, c, err);
	if (ret)
		return ret;
	t = calloc(1, sizeof(*t));
	if (t)
		t->data = fresh ? calloc(1, q->cluster_size) : malloc(q->cluster_size);
	if (!t || !t->data) {
		free(t);
		return err_set(err, ENOMEM, "%s: no memory for a table", q->path);
	}
	if (!fresh)
		ret = qcow2_file_read(q, offset, t->data, q->cluster_size, c->what, err);
	if (ret) {
		free(t->data);
		free(t);
		return ret;
	}
	t->offset = offset;
	t->chain = *bucket_of(c, offset);
	*bucket_of(c, offset) = t;
	link_newest(c, t);
	c->count++;
	*out = t;
	return 0;
}
