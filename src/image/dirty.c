/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/dirty.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/block_int.h"
#include "image/qcow2.h"

#define MAX_BYTES (512u << 20) /* of bits */
#define DEFAULT_GRANULARITY 65536u
#define MIN_GRANULARITY 512u
#define MAX_GRANULARITY (1u << 31)

/* ---- Bits ----------------------------------------------------------------------- */

int dirty_init(struct dirty *d, uint64_t size, unsigned granularity, struct err *err)
{
	unsigned g = granularity ? granularity : DEFAULT_GRANULARITY;

	if (g & (g - 1) || g < MIN_GRANULARITY || g > MAX_GRANULARITY)
		return err_set(err, EINVAL, "a bitmap's granularity is a power of two from 512 to 2G");
	*d = (struct dirty){ .size = size, .shift = __builtin_ctz(g) };
	d->nbits = (size >> d->shift) + !!(size & (g - 1));
	if (d->nbits / 8 > MAX_BYTES)
		return err_set(err, EFBIG, "a bitmap with a granularity of %u bytes would be too large", g);
	d->bits = calloc(d->nbits / 64 + 1, 8);
	return d->bits ? 0 : err_set(err, ENOMEM, "no memory for a bitmap");
}

void dirty_free(struct dirty *d)
{
	free(d->bits);
	*d = (struct dirty){ 0 };
}

/* The bits [*first, *last] that a range touches. */
static bool touched(const struct dirty *d, uint64_t offset, uint64_t len, uint64_t *first, uint64_t *last)
{
	if (!len || offset >= d->size)
		return false;
	*first = offset >> d->shift;
	*last = (offset + (len < d->size - offset ? len : d->size - offset) - 1) >> d->shift;
	return true;
}

static uint64_t mask_of(uint64_t word, uint64_t first, uint64_t last)
{
	uint64_t mask = ~0ull;

	if (word == first / 64)
		mask &= ~0ull << first % 64;
	if (word == last / 64)
		mask &= ~0ull >> (63 - last % 64);
	return mask;
}

void dirty_set(struct dirty *d, uint64_t offset, uint64_t len)
{
	uint64_t first, last;

	if (!touched(d, offset, len, &first, &last))
		return;
	for (uint64_t w = first / 64; w <= last / 64; w++) {
		uint64_t mask = mask_of(w, first, last);

		d->count += __builtin_popcountll(mask & ~d->bits[w]);
		d->bits[w] |= mask;
	}
}

void dirty_clear(struct dirty *d, uint64_t offset, uint64_t len)
{
	uint64_t first, last;

	if (!touched(d, offset, len, &first, &last))
		return;
	for (uint64_t w = first / 64; w <= last / 64; w++) {
		uint64_t mask = mask_of(w, first, last);

		d->count -= __builtin_popcountll(mask & d->bits[w]);
		d->bits[w] &= ~mask;
	}
}

static uint64_t find(const struct dirty *d, uint64_t bit, bool set)
{
	while (bit < d->nbits) {
		uint64_t word = set ? d->bits[bit / 64] : ~d->bits[bit / 64];

		word &= ~0ull << bit % 64;
		if (word) {
			bit = bit / 64 * 64 + __builtin_ctzll(word);
			break;
		}
		bit = (bit / 64 + 1) * 64;
	}
	return bit < d->nbits ? bit : d->nbits;
}

bool dirty_any(const struct dirty *d, uint64_t offset, uint64_t len)
{
	uint64_t first, last;

	return touched(d, offset, len, &first, &last) && find(d, first, true) <= last;
}

bool dirty_next(const struct dirty *d, uint64_t *offset, uint64_t *len, uint64_t most)
{
	uint64_t bit = find(d, *offset >> d->shift, true), end, start;

	if (*offset >= d->size || bit == d->nbits)
		return false;
	start = bit << d->shift > *offset ? bit << d->shift : *offset;
	end = find(d, bit, false) << d->shift;
	end = end < d->size ? end : d->size;
	*offset = start;
	*len = end - start < most ? end - start : most;
	return true;
}

/* ---- Bitmaps of open blocks -------------------------------------------------------- */

struct block_bitmap {
	struct block_watch watch; /* first: it is found by it */
	struct block_bitmap *next;
	char *name;
	bool enabled;
	pthread_mutex_t lock; /* d */
	struct dirty d;
};

static bool mark(struct block_watch *w, const struct block_request *r, int ret, struct step *step)
{
	struct block_bitmap *m = (struct block_bitmap *)w;

	pthread_mutex_lock(&m->lock);
	if (m->enabled)
		dirty_set(&m->d, r->offset, r->len);
	pthread_mutex_unlock(&m->lock);
	return false;
}

static struct block_bitmap *find_own(struct block *b, const char *name)
{
	struct block_bitmap *m = b->bitmaps;

	while (m && strcmp(m->name, name))
		m = m->next;
	return m;
}

static bool is_persistent(struct block *b, const char *name, struct qcow2_bitmap_info *found)
{
	struct qcow2_bitmap_info info;

	for (unsigned i = 0; b->qcow2 && i < qcow2_bitmap_count(b->qcow2); i++) {
		qcow2_bitmap_get(b->qcow2, i, &info);
		if (!strcmp(info.name, name)) {
			if (found)
				*found = info;
			return true;
		}
	}
	return false;
}

bool block_bitmap_exists(struct block *b, const char *name)
{
	return find_own(b, name) || is_persistent(b, name, NULL);
}

static int missing(struct block *b, const char *name, struct err *err)
{
	return err_set(err, ENOENT, "Dirty bitmap '%.200s' not found in %s", name, b->path);
}

static void bitmap_free(struct block_bitmap *m)
{
	pthread_mutex_destroy(&m->lock);
	dirty_free(&m->d);
	free(m->name);
	free(m);
}

int block_bitmap_add(struct block *b, const char *name, unsigned granularity, bool persistent, bool enabled,
		     struct err *err)
{
	struct block_bitmap *m;
	int ret;

	if (!name[0] || strlen(name) > 1023)
		return err_set(err, EINVAL, "a bitmap's name has from 1 to 1023 bytes");
	if (block_bitmap_exists(b, name))
		return err_set(err, EEXIST, "Bitmap already exists: %.200s", name);
	if (persistent) {
		if (!b->qcow2)
			return err_set(err, ENOTSUP, "%s has no room for a persistent bitmap: only qcow2 has", b->path);
		queues_let_go(b);
		return qcow2_bitmap_add(b->qcow2, name, granularity, enabled, err);
	}
	m = calloc(1, sizeof(*m));
	if (!m || !(m->name = strdup(name))) {
		free(m);
		return err_set(err, ENOMEM, "%s: no memory for a bitmap", b->path);
	}
	pthread_mutex_init(&m->lock, NULL);
	ret = dirty_init(&m->d, b->size, granularity, err);
	if (ret) {
		bitmap_free(m);
		return ret;
	}
	m->enabled = enabled;
	m->watch.after = mark;
	block_pause(b);
	block_watch_add(b, &m->watch);
	m->next = b->bitmaps;
	b->bitmaps = m;
	block_resume(b);
	return 0;
}

int block_bitmap_remove(struct block *b, const char *name, struct err *err)
{
	struct block_bitmap *m = find_own(b, name), **at = &b->bitmaps;

	if (!m) {
		if (!is_persistent(b, name, NULL))
			return missing(b, name, err);
		queues_let_go(b);
		return qcow2_bitmap_remove(b->qcow2, name, err);
	}
	block_pause(b);
	block_watch_del(b, &m->watch);
	block_resume(b);
	while (*at != m)
		at = &(*at)->next;
	*at = m->next;
	bitmap_free(m);
	return 0;
}

void block_bitmaps_watch(struct block *b, bool on)
{
	for (struct block_bitmap *m = b->bitmaps; m; m = m->next) {
		if (on)
			block_watch_add(b, &m->watch);
		else
			block_watch_del(b, &m->watch);
	}
}

void block_bitmaps_free(struct block *b)
{
	while (b->bitmaps) {
		struct block_bitmap *m = b->bitmaps;

		b->bitmaps = m->next;
		bitmap_free(m);
	}
}

int block_bitmap_clear(struct block *b, const char *name, struct err *err)
{
	struct block_bitmap *m = find_own(b, name);

	if (!m) {
		if (!is_persistent(b, name, NULL))
			return missing(b, name, err);
		queues_let_go(b);
		return qcow2_bitmap_clear(b->qcow2, name, err);
	}
	pthread_mutex_lock(&m->lock);
	dirty_clear(&m->d, 0, m->d.size);
	pthread_mutex_unlock(&m->lock);
	return 0;
}

int block_bitmap_enable(struct block *b, const char *name, bool on, struct err *err)
{
	struct block_bitmap *m = find_own(b, name);

	if (!m) {
		if (!is_persistent(b, name, NULL))
			return missing(b, name, err);
		queues_let_go(b);
		return qcow2_bitmap_enable(b->qcow2, name, on, err);
	}
	pthread_mutex_lock(&m->lock);
	m->enabled = on;
	pthread_mutex_unlock(&m->lock);
	return 0;
}

static int read_persistent(struct block *b, const char *name, struct dirty *d, struct err *err)
{
	uint64_t at = 0, len;
	int ret;

	queues_let_go(b);
	do {
		ret = qcow2_bitmap_dirty(b->qcow2, name, &at, &len, err);
		if (!ret)
			dirty_set(d, at, len);
		at += len;
	} while (!ret && len && at < b->size);
	return ret;
}

int block_bitmap_read(struct block *b, const char *name, struct dirty *d, struct err *err)
{
	struct block_bitmap *m = find_own(b, name);
	struct qcow2_bitmap_info info = { 0 };
	uint64_t at = 0, len;
	int ret = 0;

	if (!m && !is_persistent(b, name, &info))
		return missing(b, name, err);
	if (!d->bits)
		ret = dirty_init(d, b->size, m ? 1u << m->d.shift : info.granularity, err);
	if (ret)
		return ret;
	if (!m)
		return read_persistent(b, name, d, err);
	pthread_mutex_lock(&m->lock);
	for (; dirty_next(&m->d, &at, &len, UINT64_MAX); at += len)
		dirty_set(d, at, len);
	pthread_mutex_unlock(&m->lock);
	return 0;
}

int block_bitmap_add_bits(struct block *b, const char *name, const struct dirty *d, struct err *err)
{
	struct block_bitmap *m = find_own(b, name);
	uint64_t at = 0, len;
	int ret = 0;

	if (!m && !is_persistent(b, name, NULL))
		return missing(b, name, err);
	for (; !ret && dirty_next(d, &at, &len, UINT64_MAX); at += len) {
		if (!m) {
			ret = qcow2_bitmap_set(b->qcow2, name, at, len, err);
			continue;
		}
		pthread_mutex_lock(&m->lock);
		dirty_set(&m->d, at, len);
		pthread_mutex_unlock(&m->lock);
	}
	return ret;
}

int block_bitmap_merge(struct block *b, const char *name, struct block *from, const char *source, struct err *err)
{
	struct dirty d = { 0 };
	int ret = block_bitmap_read(from, source, &d, err);

	if (!ret && from->size > b->size)
		ret = err_set(err, EINVAL, "%s is larger than %s: their bitmaps cannot be merged", from->path, b->path);
	if (!ret)
		ret = block_bitmap_add_bits(b, name, &d, err);
	dirty_free(&d);
	return ret;
}

bool block_bitmap_get(struct block *b, unsigned i, struct block_bitmap_info *info)
{
	struct block_bitmap *m = b->bitmaps;
	struct qcow2_bitmap_info q;
	struct dirty d = { 0 };

	for (; m && i; i--)
		m = m->next;
	*info = (struct block_bitmap_info){ 0 };
	if (m) {
		snprintf(info->name, sizeof(info->name), "%s", m->name);
		pthread_mutex_lock(&m->lock);
		info->granularity = 1u << m->d.shift;
		info->enabled = m->enabled;
		info->count = m->d.count << m->d.shift;
		pthread_mutex_unlock(&m->lock);
		return true;
	}
	if (!b->qcow2 || i >= qcow2_bitmap_count(b->qcow2))
		return false;
	qcow2_bitmap_get(b->qcow2, i, &q);
	snprintf(info->name, sizeof(info->name), "%s", q.name);
	info->granularity = q.granularity;
	info->enabled = q.enabled;
	info->persistent = true;
	info->in_use = q.in_use;
	if (!q.in_use && !block_bitmap_read(b, info->name, &d, NULL))
		info->count = d.count << d.shift;
	dirty_free(&d);
	return true;
}
