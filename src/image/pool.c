/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A few threads that make the system calls, where io_uring is not to be had (old kernels, containers). */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "image/block_int.h"
#include "image/qcow2.h"
#include "image/remote.h"
#include "util/threads.h"

#define POOL_THREADS 4

struct pool {
	struct block_queue *q;
	int event;
	struct loop_fd *watch;
	unsigned busy; /* the queue's thread only */
	unsigned nthreads;
	pthread_t thread[POOL_THREADS];
	pthread_mutex_t lock; /* everything below */
	pthread_cond_t work, ended;
	struct step *todo, **todo_end, *done, **done_end;
	bool quit;
};

static int write_qcow2(const struct block *b, const struct block_request *r)
{
	uint8_t *flat;
	uint64_t at = r->offset;
	int ret;

	if (r->niov == 1)
		return qcow2_write(b->qcow2, at, r->iov->iov_base, r->len, NULL);
	/* In one piece, lest each bit of memory is a write of its own. */
	flat = malloc(r->len);
	if (!flat)
		return -ENOMEM;
	for (uint64_t i = 0, n = 0; i < (uint64_t)r->niov; n += r->iov[i++].iov_len)
		memcpy(flat + n, r->iov[i].iov_base, r->iov[i].iov_len);
	ret = qcow2_write(b->qcow2, at, flat, r->len, NULL);
	free(flat);
	return ret;
}

static int perform_qcow2(const struct block *b, const struct block_request *r)
{
	uint64_t at = r->offset;
	bool sync = b->dsync;
	int ret = 0;

	switch (r->op) {
	case BLOCK_READ:
		for (int i = 0; !ret && i < r->niov; at += r->iov[i++].iov_len)
			ret = qcow2_read(b->qcow2, at, r->iov[i].iov_base, r->iov[i].iov_len, NULL);
		return ret;
	case BLOCK_WRITE:
		ret = write_qcow2(b, r);
		sync |= r->fua && !b->unsafe;
		break;
	case BLOCK_WRITE_ZEROES:
		ret = qcow2_zero(b->qcow2, at, r->len, r->unmap, NULL);
		break;
	case BLOCK_DISCARD:
		return qcow2_discard(b->qcow2, at, r->len, NULL);
	case BLOCK_FLUSH:
		/* Unsafe: what is in memory goes out when the image is closed. */
		sync = !b->readonly && !b->unsafe;
		break;
	}
	return ret || !sync ? ret : qcow2_flush(b->qcow2, NULL);
}

static int perform_remote(const struct block *b, const struct block_request *r)
{
	bool fua = b->dsync || (r->fua && !b->unsafe);
	uint64_t at = r->offset;
	int ret = 0;

	switch (r->op) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		for (int i = 0; !ret && i < r->niov; at += r->iov[i++].iov_len)
			ret = r->op == BLOCK_READ
				      ? remote_read(b->remote, at, r->iov[i].iov_base, r->iov[i].iov_len, NULL)
				      : remote_write(b->remote, at, r->iov[i].iov_base, r->iov[i].iov_len, fua, NULL);
		return ret;
	case BLOCK_WRITE_ZEROES:
		ret = remote_zero(b->remote, at, r->len, r->unmap, NULL);
		return ret || !b->dsync ? ret : remote_flush(b->remote, NULL);
	case BLOCK_DISCARD:
		return remote_discard(b->remote, at, r->len, NULL);
	case BLOCK_FLUSH:
		return b->readonly || b->unsafe ? 0 : remote_flush(b->remote, NULL);
	}
	return -EINVAL;
}

static int perform(const struct step *s)
{
	const struct block *b = s->q->b;
	int fd = s->plain ? b->plain_fd : b->fd;
	uint64_t range[2] = { s->offset, s->len };
	ssize_t n = 0;

	switch (s->kind) {
	case STEP_READ:
		n = preadv2(fd, s->iov, s->niov, s->offset, 0);
		break;
	case STEP_WRITE:
		n = pwritev2(fd, s->iov, s->niov, s->offset, s->flags);
		break;
	case STEP_SYNC:
		n = fdatasync(fd);
		break;
	case STEP_FALLOCATE:
		n = fallocate(fd, s->mode, s->offset, s->len);
		break;
	case STEP_DISCARD:
		n = ioctl(fd, BLKDISCARD, range);
		break;
	case STEP_QCOW2:
		return perform_qcow2(b, s->r);
	case STEP_REMOTE:
		return perform_remote(b, s->r);
	case STEP_NOP:
		return s->result;
	}
	return n < 0 ? -errno : n;
}

static void *worker(void *arg)
{
	struct pool *p = arg;
	uint64_t one = 1;

	thread_begin(THREAD_IO);
	pthread_mutex_lock(&p->lock);
	for (;;) {
		struct step *s = p->todo;

		if (!s && p->quit)
			break;
		if (!s) {
			pthread_cond_wait(&p->work, &p->lock);
			continue;
		}
		p->todo = s->next;
		if (!p->todo)
			p->todo_end = &p->todo;
		pthread_mutex_unlock(&p->lock);
		s->result = perform(s);
		pthread_mutex_lock(&p->lock);
		s->next = NULL;
		*p->done_end = s;
		p->done_end = &s->next;
		pthread_cond_signal(&p->ended);
		if (write(p->event, &one, sizeof(one)) < 0)
			continue; /* full: signalled anyway */
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static void reap(struct pool *p)
{
	struct step *s, *next;

	pthread_mutex_lock(&p->lock);
	s = p->done;
	p->done = NULL;
	p->done_end = &p->done;
	pthread_mutex_unlock(&p->lock);
	p->q->reaping = true;
	for (; s; s = next) {
		next = s->next;
		p->busy--;
		queue_complete(s);
	}
	queue_reaped(p->q);
}

static void event_ready(void *opaque, uint32_t events)
{
	struct pool *p = opaque;
	uint64_t count;

	if (read(p->event, &count, sizeof(count)) == sizeof(count))
		reap(p);
}

struct pool *pool_new(struct block_queue *q, struct err *err)
{
	struct pool *p = calloc(1, sizeof(*p));

	if (!p) {
		err_set(err, ENOMEM, "no memory for I/O threads");
		return NULL;
	}
	p->q = q;
	p->todo_end = &p->todo;
	p->done_end = &p->done;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	pthread_cond_init(&p->ended, NULL);
	p->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->event < 0) {
		err_set_errno(err, errno, "cannot make an event for I/O threads");
		goto fail;
	}
	p->watch = loop_fd_add(q->loop, p->event, EPOLLIN, event_ready, p, err);
	if (!p->watch)
		goto fail;
	for (; p->nthreads < POOL_THREADS; p->nthreads++) {
		int ret = pthread_create(&p->thread[p->nthreads], NULL, worker, p);

		if (ret && !p->nthreads) {
			err_set_errno(err, ret, "cannot make I/O threads");
			goto fail;
		}
		if (ret)
			break;
	}
	return p;
fail:
	pool_free(p);
	return NULL;
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->quit = true;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->nthreads; i++)
		pthread_join(p->thread[i], NULL);
	if (p->watch)
		loop_fd_del(p->watch);
	if (p->event >= 0)
		close(p->event);
	pthread_cond_destroy(&p->work);
	pthread_cond_destroy(&p->ended);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

void pool_add(struct pool *p, struct step *s)
{
	p->busy++;
	s->next = NULL;
	pthread_mutex_lock(&p->lock);
	*p->todo_end = s;
	p->todo_end = &s->next;
	pthread_cond_signal(&p->work);
	pthread_mutex_unlock(&p->lock);
}

bool pool_busy(const struct pool *p)
{
	return p->busy;
}

void pool_wait(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	while (!p->done)
		pthread_cond_wait(&p->ended, &p->lock);
	pthread_mutex_unlock(&p->lock);
	reap(p);
}
