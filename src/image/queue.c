/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests become steps, one system call each; a step that fell short is followed by another. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "image/block_int.h"
#include "image/qcow2.h"

/* ---- Making steps -------------------------------------------------------- */

static void nop(struct step *s, int result)
{
	s->kind = STEP_NOP;
	s->result = result;
}

static uint64_t iov_bytes(const struct iovec *iov, int n)
{
	uint64_t sum = 0;

	for (int i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

static bool aligned(const struct block *b, const struct iovec *iov, int n)
{
	uintptr_t bits = 0;

	for (int i = 0; i < n; i++)
		bits |= (uintptr_t)iov[i].iov_base | iov[i].iov_len;
	return !(bits & (b->mem_align - 1));
}

/* Point the step at what is left of the request's buffers. */
static void rest_of_iov(struct step *s)
{
	struct block_request *r = s->r;
	uint64_t skip = r->progress;
	int i = 0;

	while (skip && skip >= r->iov[i].iov_len)
		skip -= r->iov[i++].iov_len;
	if (skip) {
		r->rest[0].iov_base = (uint8_t *)r->iov[i].iov_base + skip;
		r->rest[0].iov_len = r->iov[i].iov_len - skip;
		s->iov = &r->rest[0];
		s->niov = 1;
	} else {
		s->iov = r->iov + i;
		s->niov = r->niov - i < IOV_MAX ? r->niov - i : IOV_MAX;
	}
	s->len = iov_bytes(s->iov, s->niov);
}

/* Copy between the bounce buffer and the request's memory at `progress`. */
static void bounce_copy(struct step *s, uint64_t len, bool to_request)
{
	uint64_t skip = s->r->progress;
	uint8_t *p = s->bounce;

	for (int i = 0; i < s->r->niov && len; i++) {
		const struct iovec *v = &s->r->iov[i];
		uint64_t n;

		if (skip >= v->iov_len) {
			skip -= v->iov_len;
			continue;
		}
		n = v->iov_len - skip < len ? v->iov_len - skip : len;
		if (to_request)
			memcpy((uint8_t *)v->iov_base + skip, p, n);
		else
			memcpy(p, (uint8_t *)v->iov_base + skip, n);
		p += n;
		len -= n;
		skip = 0;
	}
}

static void make_bounce(struct step *s)
{
	struct block_request *r = s->r;
	uint64_t left = r->len - r->progress;
	size_t align = s->q->b->mem_align > 4096 ? s->q->b->mem_align : 4096;

	s->len = left < BLOCK_BOUNCE ? left : BLOCK_BOUNCE;
	if (posix_memalign(&s->bounce, align, s->len)) {
		s->bounce = NULL;
		nop(s, -ENOMEM);
		return;
	}
	if (r->op == BLOCK_WRITE)
		bounce_copy(s, s->len, false);
	r->rest[1] = (struct iovec){ s->bounce, s->len };
	s->iov = &r->rest[1];
	s->niov = 1;
}

static void make_transfer(struct step *s)
{
	struct block *b = s->q->b;
	struct block_request *r = s->r;

	s->kind = r->op == BLOCK_READ ? STEP_READ : STEP_WRITE;
	s->flags = s->kind == STEP_WRITE && (b->dsync || (r->fua && !b->unsafe)) ? RWF_DSYNC : 0;
	s->offset = (s->pinned ? s->host : r->offset) + r->progress;
	rest_of_iov(s);
	if (!b->direct)
		return;
	if ((s->offset | (r->len - r->progress)) & (b->off_align - 1))
		s->plain = true;
	else if (!aligned(b, s->iov, s->niov) || s->len & (b->off_align - 1))
		make_bounce(s);
}

static void make_zero_write(struct step *s)
{
	struct block_queue *q = s->q;
	struct block_request *r = s->r;
	uint64_t left = r->len - r->progress;

	if (!q->zeroes) {
		void *p;

		if (posix_memalign(&p, 4096, BLOCK_ZEROES)) {
			nop(s, -ENOMEM);
			return;
		}
		q->zeroes = memset(p, 0, BLOCK_ZEROES);
		for (unsigned i = 0; i < 16; i++)
			q->zero_iov[i] = (struct iovec){ q->zeroes, BLOCK_ZEROES };
	}
	s->kind = STEP_WRITE;
	s->flags = q->b->dsync ? RWF_DSYNC : 0;
	s->offset = r->offset + r->progress;
	s->plain = q->b->direct && (s->offset | left) & (q->b->off_align - 1);
	if (left < BLOCK_ZEROES) {
		r->rest[0] = (struct iovec){ q->zeroes, left };
		s->iov = &r->rest[0];
		s->niov = 1;
		s->len = left;
	} else {
		s->iov = q->zero_iov;
		s->niov = left / BLOCK_ZEROES < 16 ? left / BLOCK_ZEROES : 16;
		s->len = (uint64_t)s->niov * BLOCK_ZEROES;
	}
}

static bool flag(const bool *b)
{
	return __atomic_load_n(b, __ATOMIC_RELAXED);
}

static void make_zero(struct step *s)
{
	struct block *b = s->q->b;
	struct block_request *r = s->r;

	s->kind = STEP_FALLOCATE;
	s->offset = r->offset;
	s->len = r->len;
	if (r->op == BLOCK_DISCARD && b->device)
		s->kind = STEP_DISCARD;
	else if ((r->unmap || r->op == BLOCK_DISCARD) && !flag(&b->no_punch))
		s->mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	else if (r->op == BLOCK_DISCARD)
		nop(s, 0); /* a hint that nobody takes */
	else if (!flag(&b->no_zero) && !r->progress)
		s->mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
	else
		make_zero_write(s);
}

/* The short way, if it is known where all of it lies; else a thread takes the long one. */
static void make_qcow2(struct step *s)
{
	struct block *b = s->q->b;
	struct block_request *r = s->r;
	bool write = r->op == BLOCK_WRITE, sync = write && (b->dsync || (r->fua && !b->unsafe));

	s->kind = STEP_QCOW2;
	if (!s->q->uring || (!write && r->op != BLOCK_READ))
		return;
	/* What an earlier step did is done again, should the data have moved since. */
	if (!s->pinned)
		r->progress = 0;
	if (s->pinned || (s->pinned = qcow2_pin(b->qcow2, r->offset, r->len, write, sync, &s->host)))
		make_transfer(s);
}

static void make_step(struct step *s)
{
	struct block *b = s->q->b;
	struct block_request *r = s->r;

	s->plain = false;
	s->flags = s->mode = 0;
	if (b->remote) {
		s->kind = STEP_REMOTE;
		return;
	}
	if (b->qcow2) {
		make_qcow2(s);
		return;
	}
	switch (r->op) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		make_transfer(s);
		break;
	case BLOCK_FLUSH:
		s->kind = STEP_SYNC;
		if (b->unsafe || b->readonly)
			nop(s, 0);
		break;
	default:
		make_zero(s);
	}
}

static int check(const struct block *b, const struct block_request *r)
{
	if (r->op == BLOCK_FLUSH)
		return 0;
	if (r->op != BLOCK_READ && b->readonly)
		return -EROFS;
	if ((r->offset | r->len) & (BLOCK_SECTOR - 1) || r->offset > b->size || r->len > b->size - r->offset)
		return -EINVAL;
	if ((r->op == BLOCK_READ || r->op == BLOCK_WRITE) && iov_bytes(r->iov, r->niov) != r->len)
		return -EINVAL;
	return 0;
}

static void send_step(struct block_queue *q, struct step *s)
{
	if (q->uring && s->kind != STEP_DISCARD && s->kind != STEP_QCOW2 && s->kind != STEP_REMOTE) {
		uring_add(q->uring, s);
		return;
	}
	if (!q->pool)
		q->pool = pool_new(q, NULL);
	if (q->pool) {
		pool_add(q->pool, s);
	} else { /* only with io_uring: the pool is made at once without it */
		nop(s, -ENOMEM);
		uring_add(q->uring, s);
	}
}

/* ---- Limits ---------------------------------------------------------------- */

static bool is_due(struct block_queue *q, const struct block_request *r, uint64_t now)
{
	bool write = r->op != BLOCK_READ;
	struct throttle *t;

	pthread_mutex_lock(&q->b->lock);
	t = q->b->throttle;
	if (t && (q->waiting[write].r != r || q->waiting[write].throttle != t ||
		  q->waiting[write].generation != throttle_generation(t))) {
		q->waiting[write].generation = throttle_generation(t);
		q->waiting[write].start = throttle_reserve(t, write, r->len, now);
		q->waiting[write].throttle = t;
		q->waiting[write].r = r;
	}
	pthread_mutex_unlock(&q->b->lock);
	if (t && q->waiting[write].start > now)
		return false;
	q->waiting[write].r = NULL;
	return true;
}

static void turn_came(void *opaque)
{
	block_kick(opaque);
}

/* The first request that may start. A reader does not wait for writers, nor they for readers. */
static struct block_request *take_pending(struct block_queue *q)
{
	struct block_request **at = &q->pending, *r;
	bool waits[2] = { false, false };

	if (__atomic_load_n(&q->b->throttle, __ATOMIC_RELAXED) && !q->unlimited && !q->internal) {
		uint64_t now = monotonic_ns(), next = UINT64_MAX;

		for (; (r = *at); at = &r->next) {
			bool write = r->op != BLOCK_READ;

			if (r->op == BLOCK_FLUSH || (!waits[write] && is_due(q, r, now)))
				break;
			waits[write] = true;
		}
		for (unsigned i = 0; i < 2; i++)
			if (waits[i] && q->waiting[i].start < next)
				next = q->waiting[i].start;
		if (!r && next != UINT64_MAX) {
			if (!q->turn)
				__atomic_store_n(&q->turn, timer_new(q->loop, turn_came, q), __ATOMIC_RELEASE);
			if (q->turn)
				timer_arm(q->turn, next);
			else /* better too early than never */
				r = *(at = &q->pending);
		}
	}
	r = *at;
	if (!r)
		return NULL;
	*at = r->next;
	if (q->pending_end == &r->next)
		q->pending_end = at;
	return r;
}

/* One less in flight; whoever pauses the block counts them. */
static void leave(struct block_queue *q)
{
	if (__atomic_sub_fetch(&q->inflight, 1, __ATOMIC_SEQ_CST) ||
	    !__atomic_load_n(&q->b->paused, __ATOMIC_SEQ_CST))
		return;
	pthread_mutex_lock(&q->b->lock);
	pthread_cond_broadcast(&q->b->woken);
	pthread_mutex_unlock(&q->b->lock);
}

/* Either a pause sees this request in flight, or it sees the pause. */
static bool enter(struct block_queue *q)
{
	__atomic_add_fetch(&q->inflight, 1, __ATOMIC_SEQ_CST);
	if (q->internal || !__atomic_load_n(&q->b->paused, __ATOMIC_SEQ_CST))
		return true;
	leave(q);
	return false;
}

/* True: a watch keeps it for now. */
static bool is_kept(struct step *s)
{
	while (s->watch) {
		struct block_watch *w = s->watch;

		s->watch = w->next;
		if (s->ended ? w->after && w->after(w, s->r, s->ret, s) : w->before && w->before(w, s->r, s))
			return true;
	}
	return false;
}

static bool is_watched(const struct block_queue *q, const struct block_request *r)
{
	return q->b->watches && !q->internal && r->op != BLOCK_READ && r->op != BLOCK_FLUSH;
}

static void start_pending(struct block_queue *q)
{
	while (q->free && q->pending && enter(q)) {
		struct block_request *r = take_pending(q);
		struct step *s = q->free;
		int ret;

		if (!r) {
			leave(q);
			break;
		}
		q->free = s->next;
		s->r = r;
		s->synced = s->pinned = s->ended = false;
		s->watch = NULL;
		ret = check(q->b, r);
		if (ret || (r->op != BLOCK_FLUSH && !r->len)) {
			s->ended = true; /* nothing for watches to see */
			nop(s, ret);
		} else {
			s->watch = is_watched(q, r) ? q->b->watches : NULL;
			if (is_kept(s))
				continue;
			make_step(s);
		}
		send_step(q, s);
	}
}

/* ---- Ends ---------------------------------------------------------------- */

static void add(uint64_t *counter, uint64_t n)
{
	__atomic_add_fetch(counter, n, __ATOMIC_RELAXED);
}

static void account(struct block *b, const struct block_request *r, int ret)
{
	struct block_stats *st = &b->stats;
	uint64_t ns = monotonic_ns() - r->started;

	if (ret) {
		add(&st->failed, 1);
		return;
	}
	switch (r->op) {
	case BLOCK_READ:
		add(&st->rd_ops, 1);
		add(&st->rd_bytes, r->len);
		add(&st->rd_ns, ns);
		break;
	case BLOCK_WRITE:
	case BLOCK_WRITE_ZEROES:
		add(&st->wr_ops, 1);
		add(&st->wr_bytes, r->op == BLOCK_WRITE ? r->len : 0);
		add(&st->wr_ns, ns);
		break;
	case BLOCK_FLUSH:
		add(&st->flush_ops, 1);
		add(&st->flush_ns, ns);
		break;
	case BLOCK_DISCARD:
		add(&st->discard_ops, 1);
		break;
	}
}

static void finish(struct step *s, int ret)
{
	struct block_queue *q = s->q;
	struct block_request *r = s->r;

	if (s->pinned)
		qcow2_unpin(q->b->qcow2);
	s->pinned = false;
	if (!s->ended && is_watched(q, r)) {
		s->ended = true;
		s->ret = ret;
		s->watch = q->b->watches;
	}
	if (is_kept(s))
		return;
	s->r = NULL;
	s->next = q->free;
	q->free = s;
	if (!q->internal)
		account(q->b, r, ret);
	leave(q);
	r->done(r, ret);
}

/* ---- Requests that watches kept ------------------------------------------------ */

static void go_on(struct block_queue *q)
{
	struct step *s, *next;

	pthread_mutex_lock(&q->b->lock);
	s = q->released;
	__atomic_store_n(&q->released, NULL, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&q->b->lock);
	q->reaping = true;
	for (; s; s = next) {
		next = s->next;
		if (s->ended) {
			finish(s, s->ret);
		} else if (!is_kept(s)) {
			make_step(s);
			send_step(q, s);
		}
	}
	queue_reaped(q);
}

static void woken(void *opaque)
{
	go_on(opaque);
}

void queue_wake(struct block_queue *q)
{
	/* Without memory for a call the next kick does it. */
	(void)loop_post(q->loop, woken, q);
}

void block_release(struct step *s)
{
	struct block_queue *q = s->q;
	struct block *b = q->b;

	pthread_mutex_lock(&b->lock);
	s->next = q->released;
	__atomic_store_n(&q->released, s, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&b->woken);
	queue_wake(q);
	pthread_mutex_unlock(&b->lock);
}

/* Nothing moves here until somebody else does something. */
static void wait_woken(struct block_queue *q)
{
	struct block *b = q->b;

	pthread_mutex_lock(&b->lock);
	while (!q->released && (q->inflight || b->paused))
		pthread_cond_wait(&b->woken, &b->lock);
	pthread_mutex_unlock(&b->lock);
	go_on(q);
}

/* Zeroes into what is left of a read. */
static void zero_rest(struct block_request *r)
{
	uint64_t skip = r->progress;

	for (int i = 0; i < r->niov; i++) {
		if (skip >= r->iov[i].iov_len) {
			skip -= r->iov[i].iov_len;
			continue;
		}
		memset((uint8_t *)r->iov[i].iov_base + skip, 0, r->iov[i].iov_len - skip);
		skip = 0;
	}
}

/* True: the request needs another step. */
static bool transferred(struct step *s, int *ret)
{
	struct block *b = s->q->b;
	struct block_request *r = s->r;
	uint64_t n = s->result;

	if (s->bounce && s->kind == STEP_READ)
		bounce_copy(s, n, true);
	if (s->kind == STEP_WRITE && n < s->len && b->direct && !s->plain)
		n &= ~(uint64_t)(b->off_align - 1); /* go on from where direct I/O can */
	r->progress += n;
	if (r->progress >= r->len)
		return false;
	if (s->kind == STEP_READ && (b->qcow2 ? !n : r->offset + r->progress >= b->real_size)) {
		zero_rest(r); /* the rest of the last sector, or of a cluster that was never written */
		return false;
	}
	if (!n) /* a read inside the image that gives nothing: somebody truncated the file */
		*ret = s->kind == STEP_READ ? -EIO : -ENOSPC;
	return n;
}

/* The file system can't do it this way: remember and try the next one. */
static bool try_otherwise(struct step *s)
{
	struct block *b = s->q->b;

	if (s->result != -EOPNOTSUPP && s->result != -EINVAL && s->result != -ENODEV)
		return false;
	__atomic_store_n(s->mode & FALLOC_FL_PUNCH_HOLE ? &b->no_punch : &b->no_zero, true, __ATOMIC_RELAXED);
	return true;
}

void queue_complete(struct step *s)
{
	struct block_request *r = s->r;
	int ret = s->result < 0 ? s->result : 0;
	bool more = false;

	switch (s->kind) {
	case STEP_READ:
	case STEP_WRITE:
		if (s->result == -EINTR || s->result == -EAGAIN) {
			more = true;
			ret = 0;
		} else if (!ret) {
			more = transferred(s, &ret);
		}
		break;
	case STEP_FALLOCATE:
		more = ret && try_otherwise(s);
		break;
	case STEP_DISCARD:
		if (ret == -EOPNOTSUPP || ret == -EINVAL || ret == -ENOTTY)
			ret = 0;
		break;
	case STEP_NOP:
	case STEP_SYNC:
	case STEP_QCOW2:
	case STEP_REMOTE:
		break;
	}
	free(s->bounce);
	s->bounce = NULL;
	if (more) {
		make_step(s);
		send_step(s->q, s);
	} else if (!ret && s->kind == STEP_FALLOCATE && r->op == BLOCK_WRITE_ZEROES && s->q->b->dsync && !s->synced) {
		s->synced = true;
		s->kind = STEP_SYNC;
		send_step(s->q, s);
	} else {
		finish(s, ret);
	}
}

void queue_reaped(struct block_queue *q)
{
	q->reaping = false;
	block_kick(q);
}

/* ---- The interface ------------------------------------------------------- */

int queue_fd(const struct block *b, bool plain)
{
	return b->qcow2 ? b->data_fd[plain] : plain ? b->plain_fd : b->fd;
}

void queues_let_go(struct block *b)
{
	pthread_mutex_lock(&b->lock);
	for (struct block_queue *q = b->queues; q; q = q->next)
		if (q->uring && loop_is_mine(q->loop))
			uring_hold(q->uring);
	pthread_mutex_unlock(&b->lock);
}

static void link_queue(struct block_queue *q)
{
	pthread_mutex_lock(&q->b->lock);
	q->next = q->b->queues;
	q->b->queues = q;
	pthread_mutex_unlock(&q->b->lock);
}

static void unlink_queue(struct block_queue *q)
{
	struct block_queue **at;

	pthread_mutex_lock(&q->b->lock);
	for (at = &q->b->queues; *at != q; at = &(*at)->next)
		;
	*at = q->next;
	pthread_mutex_unlock(&q->b->lock);
}

struct block_queue *queue_new(struct block *b, struct loop *loop, unsigned depth, enum queue_backend backend,
			      struct err *err)
{
	struct block_queue *q = calloc(1, sizeof(*q));

	assert(depth);
	if (q)
		q->steps = calloc(depth, sizeof(q->steps[0]));
	if (!q || !q->steps) {
		free(q);
		err_set(err, ENOMEM, "%s: no memory for a request queue", b->path);
		return NULL;
	}
	q->b = b;
	link_queue(q);
	q->loop = loop;
	q->depth = depth;
	q->pending_end = &q->pending;
	for (unsigned i = 0; i < depth; i++) {
		q->steps[i].q = q;
		q->steps[i].next = q->free;
		q->free = &q->steps[i];
	}
	if (b->remote)
		backend = QUEUE_POOL;
	if (backend != QUEUE_POOL)
		q->uring = uring_new(q, backend == QUEUE_URING ? err : NULL);
	if (!q->uring && backend != QUEUE_URING)
		q->pool = pool_new(q, err);
	if (!q->uring && !q->pool) {
		block_queue_free(q);
		return NULL;
	}
	return q;
}

struct block_queue *block_queue_new(struct block *b, struct loop *loop, unsigned depth, struct err *err)
{
	return queue_new(b, loop, depth, QUEUE_AUTO, err);
}

struct block_queue *block_queue_new_internal(struct block *b, struct loop *loop, unsigned depth, struct err *err)
{
	struct block_queue *q = queue_new(b, loop, depth, QUEUE_AUTO, err);

	if (q)
		q->internal = true;
	return q;
}

void block_queue_free(struct block_queue *q)
{
	if (!q)
		return;
	block_drain(q);
	unlink_queue(q);
	loop_unpost(q->loop, woken, q);
	timer_free(q->turn);
	uring_free(q->uring);
	pool_free(q->pool);
	free(q->zeroes);
	free(q->steps);
	free(q);
}

void block_submit(struct block_queue *q, struct block_request *r)
{
	r->next = NULL;
	r->progress = 0;
	r->started = monotonic_ns();
	*q->pending_end = r;
	q->pending_end = &r->next;
}

void block_kick(struct block_queue *q)
{
	if (q->reaping)
		return; /* queue_reaped() will */
	if (__atomic_load_n(&q->released, __ATOMIC_RELAXED)) {
		go_on(q);
		return;
	}
	start_pending(q);
	if (q->uring)
		uring_send(q->uring);
}

void block_drain(struct block_queue *q)
{
	q->unlimited = true;
	while (q->inflight || q->pending) {
		block_kick(q);
		if (q->uring && uring_busy(q->uring))
			uring_wait(q->uring);
		else if (q->pool && pool_busy(q->pool))
			pool_wait(q->pool);
		else if (q->inflight || q->pending)
			wait_woken(q);
	}
	q->unlimited = false;
}

/* ---- Throttles --------------------------------------------------------------- */

/* Queues of other blocks in the group find out when their turn comes. */
static void judge_anew(struct block *b)
{
	for (struct block_queue *q = b->queues; q; q = q->next) {
		struct timer *turn = __atomic_load_n(&q->turn, __ATOMIC_ACQUIRE);

		if (turn)
			timer_arm(turn, 0); /* from any thread */
	}
}

int block_set_throttle(struct block *b, const char *group, const struct throttle_limits *l, struct err *err)
{
	static const struct throttle_limits none;
	struct throttle *t = NULL, *old = NULL;
	int ret = l ? throttle_check(l, err) : 0;

	if (ret)
		return ret;
	pthread_mutex_lock(&b->lock);
	if (group || !b->throttle) {
		t = throttle_get(group);
		if (!t) {
			pthread_mutex_unlock(&b->lock);
			return err_set(err, ENOMEM, "%s: no memory for its limits", b->path);
		}
		old = b->throttle;
		__atomic_store_n(&b->throttle, t, __ATOMIC_RELAXED);
	}
	throttle_set(b->throttle, l ? l : &none);
	judge_anew(b);
	pthread_mutex_unlock(&b->lock);
	throttle_put(old);
	return 0;
}

bool block_get_throttle(struct block *b, struct throttle_limits *l, const char **group)
{
	bool any = false;

	pthread_mutex_lock(&b->lock);
	if (b->throttle) {
		throttle_limits(b->throttle, l);
		*group = throttle_name(b->throttle);
	}
	for (unsigned i = 0; b->throttle && i < THROTTLE_KINDS; i++)
		any |= l->kind[i].avg;
	pthread_mutex_unlock(&b->lock);
	return any;
}
