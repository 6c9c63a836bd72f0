/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "image/block_int.h"
#include "image/qcow2.h"

#define ROUNDS 64 /* before others in the loop have their turn */

struct uring {
	struct block_queue *q;
	struct io_uring ring;
	bool ring_made;
	int event;             /* signalled at each completion */
	struct loop_fd *watch;
	unsigned unsent, busy; /* steps that the kernel hasn't, and has or hasn't, seen */
	struct step *held, **held_end; /* ended, not completed */
	unsigned nheld;
};

/* The next step that ended, or NULL. */
static struct step *next_ended(struct uring *u)
{
	struct io_uring_cqe *cqe;
	struct step *s;

	if (io_uring_peek_cqe(&u->ring, &cqe))
		return NULL;
	s = io_uring_cqe_get_data(cqe);
	if (s->kind != STEP_NOP)
		s->result = cqe->res;
	io_uring_cqe_seen(&u->ring, cqe);
	return s;
}

static bool reap(struct uring *u)
{
	struct step *s, *held = u->held;
	bool any = held;

	u->q->reaping = true;
	u->held = NULL;
	u->held_end = &u->held;
	u->nheld = 0;
	while ((s = held)) {
		held = s->next;
		u->busy--;
		queue_complete(s);
	}
	while ((s = next_ended(u))) {
		any = true;
		u->busy--;
		queue_complete(s);
	}
	queue_reaped(u->q);
	return any;
}

void uring_hold(struct uring *u)
{
	uint64_t one = 1;

	uring_send(u);
	while (u->busy > u->unsent + u->nheld) {
		struct io_uring_cqe *cqe;
		struct step *s;

		if (io_uring_wait_cqe(&u->ring, &cqe) == -EINTR)
			continue;
		while ((s = next_ended(u))) {
			if (s->pinned) {
				s->pinned = false;
				qcow2_unpin(u->q->b->qcow2);
			}
			s->next = NULL;
			*u->held_end = s;
			u->held_end = &s->next;
			u->nheld++;
		}
	}
	if (u->held && write(u->event, &one, sizeof(one)) < 0)
		return; /* full: signalled anyway */
}

static void event_ready(void *opaque, uint32_t events)
{
	struct uring *u = opaque;
	uint64_t count;

	if (read(u->event, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return;
	/* What was in the page cache has ended by the time it was sent. */
	for (unsigned i = 0; i < ROUNDS && reap(u); i++)
		;
}

struct uring *uring_new(struct block_queue *q, struct err *err)
{
	struct uring *u = calloc(1, sizeof(*u));
	int fds[2] = { queue_fd(q->b, false), queue_fd(q->b, true) }, ret;

	if (!u) {
		err_set(err, ENOMEM, "no memory for an io_uring");
		return NULL;
	}
	u->q = q;
	u->event = -1;
	u->held_end = &u->held;
	/* One entry for each step: there is always one to be had. */
	ret = io_uring_queue_init(q->depth, &u->ring, IORING_SETUP_CLAMP);
	if (!ret) {
		u->ring_made = true;
		ret = io_uring_register_files(&u->ring, fds, 2);
	}
	if (!ret && u->ring.sq.ring_entries < q->depth)
		ret = -EINVAL;
	if (!ret) {
		u->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		ret = u->event < 0 ? -errno : io_uring_register_eventfd(&u->ring, u->event);
	}
	if (ret) {
		err_set_errno(err, -ret, "cannot make an io_uring");
		uring_free(u);
		return NULL;
	}
	u->watch = loop_fd_add(q->loop, u->event, EPOLLIN, event_ready, u, err);
	if (!u->watch) {
		uring_free(u);
		return NULL;
	}
	return u;
}

void uring_refile(struct uring *u)
{
	int fds[2] = { queue_fd(u->q->b, false), queue_fd(u->q->b, true) };

	/* It fails only where registering failed before. */
	(void)io_uring_register_files_update(&u->ring, 0, fds, 2);
}

void uring_free(struct uring *u)
{
	if (!u)
		return;
	if (u->watch)
		loop_fd_del(u->watch);
	/* The kernel takes a ring apart in its own time; the files are wanted back now. */
	if (u->ring_made) {
		io_uring_unregister_files(&u->ring);
		io_uring_queue_exit(&u->ring);
	}
	if (u->event >= 0)
		close(u->event);
	free(u);
}

void uring_add(struct uring *u, struct step *s)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
	int file = s->plain;

	switch (s->kind) {
	case STEP_READ:
		if (s->niov == 1)
			io_uring_prep_read(sqe, file, s->iov->iov_base, s->iov->iov_len, s->offset);
		else
			io_uring_prep_readv(sqe, file, s->iov, s->niov, s->offset);
		break;
	case STEP_WRITE:
		if (s->niov == 1)
			io_uring_prep_write(sqe, file, s->iov->iov_base, s->iov->iov_len, s->offset);
		else
			io_uring_prep_writev(sqe, file, s->iov, s->niov, s->offset);
		sqe->rw_flags = s->flags;
		break;
	case STEP_SYNC:
		io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
		break;
	case STEP_FALLOCATE:
		io_uring_prep_fallocate(sqe, 0, s->mode, s->offset, s->len);
		break;
	default:
		io_uring_prep_nop(sqe);
	}
	if (s->kind != STEP_NOP && s->kind != STEP_DISCARD)
		sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(sqe, s);
	u->unsent++;
	u->busy++;
}

void uring_send(struct uring *u)
{
	while (u->unsent) {
		int n = io_uring_submit(&u->ring);
		uint64_t one = 1;

		if (n == -EINTR)
			continue;
		if (n > 0)
			u->unsent -= n;
		if (n > 0 || !u->unsent)
			continue;
		/* The kernel is out of memory for requests: again after a completion, or when the loop comes round. */
		if (u->busy == u->unsent && write(u->event, &one, sizeof(one)) < 0)
			return;
		return;
	}
}

bool uring_busy(const struct uring *u)
{
	return u->busy;
}

void uring_wait(struct uring *u)
{
	struct io_uring_cqe *cqe;

	if (!u->held && u->busy > u->unsent && io_uring_wait_cqe(&u->ring, &cqe) == -EINTR)
		return;
	reap(u);
}
