/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two threads copy. The job's own goes through what is dirty; a second one, the
 * guard, serves guests' writes that wait, so that the first may itself wait for
 * a pause. A part that is being copied is `busy`: the other keeps off it.
 *
 * Offsets in flight. A bit is cleared before its part is read. A write that
 * ends meanwhile sets it again, so what is read may be old, but never counts as
 * the last word.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/block_int.h"
#include "image/job_int.h"

#define PIECES 8u
#define PIECE (512u << 10)
#define ZERO_PIECE (64u << 20)

struct piece {
	struct hand *hand;
	uint64_t offset, len;
	bool zero;
	uint8_t *buf;
	struct iovec iov;
	struct block_request r;
	int ret;
};

/* One thread's way to both sides. */
struct hand {
	struct loop *loop; /* never run: its thread waits for all it asked for */
	struct block_queue *from, *to;
	struct piece piece[PIECES];
	unsigned n;
};

struct kept {
	uint64_t offset, len;
	struct step *step;
	struct kept *next;
};

struct copy {
	struct block_watch watch; /* first: it is found by it */
	struct job *j;
	enum copy_mode mode;
	struct block *from, *to;
	struct image *to_image;
	uint64_t size; /* of what is copied */
	bool watching, guarded;
	struct hand job, guard;
	uint64_t charge; /* bytes that took time, since copy_charge() */
	pthread_t thread;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t changed;
	struct dirty todo;
	struct kept *kept, **kept_end;
	bool touched; /* the guard wrote to the target */
	bool off;     /* nothing is copied for writes any more */
	bool quit;
	struct err failed;
};

/* ---- What is busy --------------------------------------------------------------------- */

static bool in_hand(const struct hand *h, uint64_t offset, uint64_t len)
{
	for (unsigned i = 0; i < h->n; i++)
		if (offset < h->piece[i].offset + h->piece[i].len && h->piece[i].offset < offset + len)
			return true;
	return false;
}

static void widen(const struct copy *c, uint64_t *offset, uint64_t *len)
{
	uint64_t mask = (1ull << c->todo.shift) - 1, end = (*offset + *len + mask) & ~mask;

	*offset &= ~mask;
	*len = (end < c->size ? end : c->size) - *offset;
}

/* ---- Pieces ---------------------------------------------------------------------------- */

static void ended(struct block_request *r, int ret)
{
	struct piece *p = r->opaque;

	p->ret = ret;
}

static void submit(struct block_queue *q, struct piece *p, enum block_op op)
{
	p->iov = (struct iovec){ p->buf, p->len };
	p->r = (struct block_request){ .op = op, .offset = p->offset, .len = p->len, .done = ended, .opaque = p };
	if (op != BLOCK_WRITE_ZEROES) {
		p->r.iov = &p->iov;
		p->r.niov = 1;
	}
	p->r.unmap = true;
	block_submit(q, &p->r);
}

static bool is_zero(const uint8_t *p, uint64_t len)
{
	return !p[0] && !memcmp(p, p + 1, len - 1);
}

static int write_image(struct copy *c, struct piece *p, struct err *err)
{
	uint64_t size = image_size(c->to_image), len = p->offset < size ? size - p->offset : 0;

	len = len < p->len ? len : p->len;
	if (!len)
		return 0;
	return p->zero ? image_zero(c->to_image, p->offset, len, true, err)
		       : image_write(c->to_image, p->offset, p->buf, len, err);
}

static int first_error(const struct hand *h)
{
	for (unsigned i = 0; i < h->n; i++)
		if (h->piece[i].ret)
			return h->piece[i].ret;
	return 0;
}

static int read_pieces(struct copy *c, struct hand *h, struct err *err)
{
	int ret;

	for (unsigned i = 0; i < h->n; i++) {
		h->piece[i].ret = 0;
		if (!h->piece[i].zero)
			submit(h->from, &h->piece[i], BLOCK_READ);
	}
	block_kick(h->from);
	block_drain(h->from);
	ret = first_error(h);
	for (unsigned i = 0; !ret && i < h->n; i++)
		h->piece[i].zero = h->piece[i].zero || is_zero(h->piece[i].buf, h->piece[i].len);
	return ret ? err_set_errno(err, -ret, "%s: reading", block_path(c->from)) : 0;
}

static int write_pieces(struct copy *c, struct hand *h, bool zeroed, struct err *err)
{
	int ret = 0;

	for (unsigned i = 0; i < h->n; i++) {
		struct piece *p = &h->piece[i];

		p->ret = 0;
		if (!p->zero)
			__atomic_add_fetch(&c->charge, p->len, __ATOMIC_RELAXED);
		else if (zeroed)
			continue;
		if (c->to_image)
			p->ret = write_image(c, p, err);
		else
			submit(h->to, p, p->zero ? BLOCK_WRITE_ZEROES : BLOCK_WRITE);
	}
	if (h->to) {
		block_kick(h->to);
		block_drain(h->to);
	}
	ret = first_error(h);
	return ret ? err_set_errno(err, -ret, "%s: writing", c->to ? block_path(c->to) : image_path(c->to_image)) : 0;
}

/* Copy what is in the hand; on failure it is dirty again. */
static int copy_hand(struct copy *c, struct hand *h, bool zeroed, bool *write, struct err *err)
{
	int ret = read_pieces(c, h, err);

	pthread_mutex_lock(&c->lock);
	zeroed &= !c->touched;
	pthread_mutex_unlock(&c->lock);
	*write = !ret;
	if (!ret)
		ret = write_pieces(c, h, zeroed, err);
	pthread_mutex_lock(&c->lock);
	for (unsigned i = 0; ret && i < h->n; i++)
		dirty_set(&c->todo, h->piece[i].offset, h->piece[i].len);
	h->n = 0;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	return ret;
}

static struct piece *take(struct copy *c, struct hand *h, uint64_t offset, uint64_t len)
{
	struct piece *p = &h->piece[h->n++];

	p->offset = offset;
	p->len = len;
	p->zero = false;
	dirty_clear(&c->todo, offset, len);
	return p;
}

/* ---- The guard -------------------------------------------------------------------------- */

static void fail(struct copy *c, const struct err *err)
{
	pthread_mutex_lock(&c->lock);
	if (!c->failed.code)
		c->failed = *err;
	c->off = true;
	pthread_mutex_unlock(&c->lock);
	job_wake(c->j);
}

/* With the lock held. False: nothing is left to do for this write. */
static bool take_for(struct copy *c, const struct kept *k)
{
	struct hand *h = &c->guard;
	uint64_t at = k->offset, len = k->len, n, end;

	if (c->off)
		return false;
	c->touched = true;
	if (c->mode == COPY_BLOCKING) {
		/* A part that became dirty meanwhile will be copied anyway. */
		while (in_hand(&c->job, at, len))
			pthread_cond_wait(&c->changed, &c->lock);
		for (end = at + len; at < end && h->n < PIECES; at += n) {
			n = end - at < PIECE ? end - at : PIECE;
			h->piece[h->n].offset = at;
			h->piece[h->n].len = n;
			h->piece[h->n++].zero = false;
		}
		if (at < end)
			dirty_set(&c->todo, at, end - at);
		return true;
	}
	widen(c, &at, &len);
	while (in_hand(&c->job, at, len) && !c->off)
		pthread_cond_wait(&c->changed, &c->lock);
	for (end = at + len; h->n < PIECES && at < end && dirty_next(&c->todo, &at, &n, PIECE) && at < end; at += n) {
		n = end - at < n ? end - at : n;
		take(c, h, at, n);
	}
	return h->n;
}

static void serve(struct copy *c, const struct kept *k)
{
	struct err err = ERR_INIT;
	bool more = true, write;
	int ret = 0;

	while (more && !ret) {
		pthread_mutex_lock(&c->lock);
		more = take_for(c, k);
		pthread_mutex_unlock(&c->lock);
		if (!more)
			break;
		ret = copy_hand(c, &c->guard, false, &write, &err);
		more = c->mode == COPY_BEFORE;
	}
	if (ret && c->mode == COPY_BEFORE)
		fail(c, &err); /* the guest comes first */
	else if (ret)
		job_wake(c->j); /* it is dirty now */
}

static void *guard(void *opaque)
{
	struct copy *c = opaque;

	pthread_mutex_lock(&c->lock);
	while (!c->quit || c->kept) {
		struct kept *k = c->kept;

		if (!k) {
			pthread_cond_wait(&c->changed, &c->lock);
			continue;
		}
		c->kept = k->next;
		if (!c->kept)
			c->kept_end = &c->kept;
		pthread_mutex_unlock(&c->lock);
		serve(c, k);
		block_release(k->step);
		free(k);
		pthread_mutex_lock(&c->lock);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* With the lock held. False: there is no memory to remember it. */
static bool keep(struct copy *c, const struct block_request *r, struct step *step)
{
	struct kept *k = malloc(sizeof(*k));

	if (!k)
		return false;
	*k = (struct kept){ .offset = r->offset, .len = r->len, .step = step };
	*c->kept_end = k;
	c->kept_end = &k->next;
	pthread_cond_broadcast(&c->changed);
	return true;
}

static bool before(struct block_watch *w, const struct block_request *r, struct step *step)
{
	struct copy *c = (struct copy *)w;
	uint64_t offset = r->offset, len = r->len;
	struct err err = ERR_INIT;
	bool kept = false, lost = false;

	pthread_mutex_lock(&c->lock);
	widen(c, &offset, &len);
	if (!c->off &&
	    (dirty_any(&c->todo, offset, len) || in_hand(&c->job, offset, len) || in_hand(&c->guard, offset, len))) {
		kept = keep(c, r, step);
		lost = !kept;
	}
	pthread_mutex_unlock(&c->lock);
	if (lost) {
		err_set(&err, ENOMEM, "no memory to keep a guest's write back");
		fail(c, &err);
	}
	return kept;
}

static bool after(struct block_watch *w, const struct block_request *r, int ret, struct step *step)
{
	struct copy *c = (struct copy *)w;
	bool kept = false, first = false;

	pthread_mutex_lock(&c->lock);
	if (c->mode == COPY_BLOCKING && !dirty_any(&c->todo, r->offset, r->len))
		kept = keep(c, r, step);
	if (!kept) {
		first = !c->todo.count;
		dirty_set(&c->todo, r->offset, r->len);
	}
	pthread_mutex_unlock(&c->lock);
	if (first)
		job_wake(c->j);
	return kept;
}

/* ---- Life ----------------------------------------------------------------------------------- */

static void hand_free(struct hand *h)
{
	block_queue_free(h->from);
	block_queue_free(h->to);
	loop_free(h->loop);
	for (unsigned i = 0; i < PIECES; i++)
		free(h->piece[i].buf);
}

static int hand_init(struct copy *c, struct hand *h, struct err *err)
{
	h->loop = loop_new(err);
	if (h->loop)
		h->from = block_queue_new_internal(c->from, h->loop, PIECES, err);
	if (h->from && c->to)
		h->to = block_queue_new_internal(c->to, h->loop, PIECES, err);
	if (!h->from || (c->to && !h->to))
		return -ENOMEM;
	for (unsigned i = 0; i < PIECES; i++) {
		void *buf;

		if (posix_memalign(&buf, 4096, PIECE))
			return err_set(err, ENOMEM, "no memory to copy");
		h->piece[i].hand = h;
		h->piece[i].buf = buf;
	}
	return 0;
}

struct copy *copy_new(struct job *j, enum copy_mode mode, struct block *from, struct block *to, struct image *to_image,
		      unsigned granularity, struct err *err)
{
	struct copy *c = calloc(1, sizeof(*c));
	int ret;

	if (!c) {
		err_set(err, ENOMEM, "no memory to copy");
		return NULL;
	}
	c->j = j;
	c->mode = mode;
	c->from = from;
	c->to = to;
	c->to_image = to_image;
	c->size = block_size(from);
	c->kept_end = &c->kept;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	ret = dirty_init(&c->todo, c->size, granularity, err);
	if (!ret)
		ret = hand_init(c, &c->job, err);
	if (!ret && mode != COPY_AFTER)
		ret = hand_init(c, &c->guard, err);
	if (!ret && mode != COPY_AFTER) {
		ret = -pthread_create(&c->thread, NULL, guard, c);
		c->guarded = !ret;
		if (ret)
			err_set_errno(err, -ret, "cannot make a thread to copy");
	}
	if (ret) {
		copy_free(c);
		return NULL;
	}
	if (mode == COPY_BEFORE)
		c->watch.before = before;
	else
		c->watch.after = after;
	block_watch_add(from, &c->watch);
	c->watching = true;
	return c;
}

static void unwatch(struct copy *c)
{
	if (c->watching)
		block_watch_del(c->from, &c->watch);
	c->watching = false;
}

void copy_free(struct copy *c)
{
	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	c->off = true;
	pthread_mutex_unlock(&c->lock);
	if (c->watching) {
		block_pause(c->from);
		unwatch(c);
		block_resume(c->from);
	}
	pthread_mutex_lock(&c->lock);
	c->quit = true;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	if (c->guarded)
		pthread_join(c->thread, NULL);
	hand_free(&c->job);
	hand_free(&c->guard);
	dirty_free(&c->todo);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

/* ---- For jobs --------------------------------------------------------------------------------- */

void copy_mark(struct copy *c, uint64_t offset, uint64_t len)
{
	pthread_mutex_lock(&c->lock);
	dirty_set(&c->todo, offset, len);
	pthread_mutex_unlock(&c->lock);
}

void copy_unmark(struct copy *c, uint64_t offset, uint64_t len)
{
	uint64_t mask = (1ull << c->todo.shift) - 1, end = offset + len;

	offset = (offset + mask) & ~mask;
	end = end >= c->size ? c->size : end & ~mask;
	if (offset >= end)
		return;
	pthread_mutex_lock(&c->lock);
	dirty_clear(&c->todo, offset, end - offset);
	pthread_mutex_unlock(&c->lock);
}

int copy_mark_allocated(struct copy *c, unsigned levels, struct err *err)
{
	struct image_extent e;
	int ret = 0;

	for (uint64_t at = 0; !ret && at < c->size && !job_cancelled(c->j); at += e.len) {
		ret = block_map(c->from, levels, at, c->size - at, &e, err);
		if (!ret && e.present && e.depth < levels)
			copy_mark(c, at, e.len);
	}
	return ret;
}

uint64_t copy_charge(struct copy *c)
{
	uint64_t n = __atomic_exchange_n(&c->charge, 0, __ATOMIC_RELAXED);

	return n;
}

uint64_t copy_left(struct copy *c)
{
	uint64_t n;

	pthread_mutex_lock(&c->lock);
	n = c->todo.count << c->todo.shift;
	pthread_mutex_unlock(&c->lock);
	return n;
}

/* Take what lies from *at on into the hand: pieces of data, and of zeroes as large as they come. */
static int take_some(struct copy *c, uint64_t *at, uint64_t most, uint64_t *n, struct err *err)
{
	struct hand *h = &c->job;
	uint64_t len, unit = 1ull << c->todo.shift;
	int ret = 0;

	*n = 0;
	while (h->n < PIECES && *n < most) {
		struct image_extent e = { 0 };
		struct piece *p = NULL;

		pthread_mutex_lock(&c->lock);
		if (dirty_next(&c->todo, at, &len, ZERO_PIECE)) {
			if (in_hand(&c->guard, *at, len))
				len = unit;
			while (in_hand(&c->guard, *at, len))
				pthread_cond_wait(&c->changed, &c->lock);
			p = take(c, h, *at, len);
		} else {
			*at = c->size;
		}
		pthread_mutex_unlock(&c->lock);
		if (!p)
			break;
		ret = block_map(c->from, UINT32_MAX, *at, len, &e, err);
		p->zero = !ret && e.zero && (e.len >= unit || e.len == len);
		len = p->zero ? (e.len == len ? len : e.len & ~(unit - 1)) : len < PIECE ? len : PIECE;
		if (!p->zero && len > unit && len > most)
			len = most < unit ? unit : most & ~(unit - 1);
		pthread_mutex_lock(&c->lock);
		if (len < p->len) {
			dirty_set(&c->todo, *at + len, p->len - len);
			p->len = len;
			pthread_cond_broadcast(&c->changed);
		}
		if (ret) {
			dirty_set(&c->todo, *at, len);
			h->n--;
		}
		pthread_mutex_unlock(&c->lock);
		if (ret)
			break;
		*at += len;
		*n += len;
	}
	return ret;
}

static int copy_once(struct copy *c, uint64_t *at, bool first, uint64_t most, uint64_t *n, bool *write, struct err *err)
{
	uint64_t begin = *at;
	int ret = take_some(c, at, most, n, err), copied = 0;

	*write = false;
	if (c->job.n)
		copied = copy_hand(c, &c->job, first, write, err);
	if (copied || ret)
		*at = begin;
	if (copied)
		*n = 0;
	return copied ? copied : ret;
}

int copy_some(struct copy *c, uint64_t *at, bool first, uint64_t *n, struct err *err)
{
	uint64_t begin = *at;
	bool write;
	int ret = copy_once(c, at, first, job_slice(c->j, (uint64_t)PIECES * PIECE), n, &write, err);

	if (!ret)
		return 0;
	ret = job_error(c->j, write, ret, err);
	if (ret <= 0)
		return ret;
	/* Go on behind it; a mirror comes back to it, a backup does without. */
	pthread_mutex_lock(&c->lock);
	*at = begin + (1ull << c->todo.shift);
	if (c->mode == COPY_BEFORE)
		dirty_clear(&c->todo, begin, 1);
	pthread_mutex_unlock(&c->lock);
	return 0;
}

int copy_finish(struct copy *c, bool rest, struct err *err)
{
	uint64_t at = 0, n;
	bool write;
	int ret = 0;

	while (rest && !ret && copy_left(c)) {
		ret = copy_once(c, &at, false, (uint64_t)PIECES * PIECE, &n, &write, err);
		if (at >= c->size)
			at = 0;
	}
	if (!ret)
		ret = copy_failed(c, err);
	if (!ret)
		ret = c->to ? block_sync(c->to, err) : image_flush(c->to_image, err);
	if (!ret)
		unwatch(c);
	return ret;
}

int copy_failed(struct copy *c, struct err *err)
{
	int ret = 0;

	pthread_mutex_lock(&c->lock);
	if (c->failed.code) {
		if (err)
			*err = c->failed;
		ret = -c->failed.code;
	}
	pthread_mutex_unlock(&c->lock);
	return ret;
}

const struct dirty *copy_dirty(const struct copy *c)
{
	return &c->todo;
}
