/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

struct loop_fd {
	struct loop *loop;
	int fd;
	bool dead;
	void (*fn)(void *opaque, uint32_t events);
	void *opaque;
	struct loop_fd *next;
};

struct timer {
	struct loop *loop;
	uint64_t when; /* 0 while unarmed */
	void (*fn)(void *opaque);
	void *opaque;
	struct timer *next; /* all timers of the loop; a machine has a dozen, so no heap */
};

struct post {
	void (*fn)(void *arg);
	void *arg;
	uint64_t round;
	bool kept; /* its memory is the caller's */
	struct post *next;
};

struct loop {
	int epfd, wakefd, timerfd;
	pthread_t thread;
	bool running;
	struct loop_fd *fds;
	bool reap; /* some record in fds is dead */

	pthread_mutex_t lock; /* everything below */
	struct timer *timers;
	uint64_t armed; /* what timerfd is set to, 0: nothing */
	struct post *posts, **posts_end;
	uint64_t round; /* of posts: those of one are run together */
	bool quit;
	int status;
};

uint64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + ts.tv_nsec;
}

struct loop *loop_new(struct err *err)
{
	struct loop *l = calloc(1, sizeof(*l));
	struct epoll_event ev = { .events = EPOLLIN };

	if (!l) {
		err_set(err, ENOMEM, "no memory for an event loop");
		return NULL;
	}
	l->posts_end = &l->posts;
	pthread_mutex_init(&l->lock, NULL);
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	l->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	l->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (l->epfd < 0 || l->wakefd < 0 || l->timerfd < 0)
		goto fail;
	ev.data.ptr = &l->wakefd;
	if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, l->wakefd, &ev))
		goto fail;
	ev.data.ptr = &l->timerfd;
	if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, l->timerfd, &ev))
		goto fail;
	return l;
fail:
	err_set_errno(err, errno, "cannot make an event loop");
	loop_free(l);
	return NULL;
}

static void reap_fds(struct loop *l, bool all)
{
	struct loop_fd **p = &l->fds, *lf;

	while ((lf = *p)) {
		if (lf->dead || all) {
			*p = lf->next;
			free(lf);
		} else {
			p = &lf->next;
		}
	}
	l->reap = false;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	reap_fds(l, true);
	while (l->timers) {
		struct timer *t = l->timers;

		l->timers = t->next;
		free(t);
	}
	while (l->posts) {
		struct post *p = l->posts;

		l->posts = p->next;
		free(p);
	}
	if (l->epfd >= 0)
		close(l->epfd);
	if (l->wakefd >= 0)
		close(l->wakefd);
	if (l->timerfd >= 0)
		close(l->timerfd);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

bool loop_is_mine(const struct loop *l)
{
	return __atomic_load_n(&l->running, __ATOMIC_ACQUIRE) && pthread_equal(l->thread, pthread_self());
}

static void wake(struct loop *l)
{
	uint64_t one = 1;

	/* A full counter wakes the loop as well. */
	if (write(l->wakefd, &one, sizeof(one)) < 0)
		return;
}

void loop_quit(struct loop *l, int status)
{
	pthread_mutex_lock(&l->lock);
	l->quit = true;
	l->status = status;
	pthread_mutex_unlock(&l->lock);
	wake(l);
}

int loop_post(struct loop *l, void (*fn)(void *arg), void *arg)
{
	struct post *p = malloc(sizeof(*p));

	if (!p)
		return -ENOMEM;
	*p = (struct post){ .fn = fn, .arg = arg };
	pthread_mutex_lock(&l->lock);
	p->round = l->round;
	*l->posts_end = p;
	l->posts_end = &p->next;
	pthread_mutex_unlock(&l->lock);
	wake(l);
	return 0;
}

struct call {
	struct post post;
	void (*fn)(void *arg);
	void *arg;
	pthread_mutex_t lock;
	pthread_cond_t ended;
	bool done;
};

static void run_call(void *arg)
{
	struct call *c = arg;

	c->fn(c->arg);
	pthread_mutex_lock(&c->lock);
	c->done = true;
	pthread_cond_signal(&c->ended);
	pthread_mutex_unlock(&c->lock);
}

void loop_call(struct loop *l, void (*fn)(void *arg), void *arg)
{
	struct call c = { .fn = fn, .arg = arg, .lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER };

	if (!__atomic_load_n(&l->running, __ATOMIC_ACQUIRE) || loop_is_mine(l)) {
		fn(arg);
		return;
	}
	c.post = (struct post){ .fn = run_call, .arg = &c, .kept = true };
	pthread_mutex_lock(&l->lock);
	c.post.round = l->round;
	*l->posts_end = &c.post;
	l->posts_end = &c.post.next;
	pthread_mutex_unlock(&l->lock);
	wake(l);
	pthread_mutex_lock(&c.lock);
	while (!c.done)
		pthread_cond_wait(&c.ended, &c.lock);
	pthread_mutex_unlock(&c.lock);
	pthread_mutex_destroy(&c.lock);
	pthread_cond_destroy(&c.ended);
}

void loop_unpost(struct loop *l, void (*fn)(void *arg), void *arg)
{
	struct post **p = &l->posts;

	pthread_mutex_lock(&l->lock);
	while (*p) {
		struct post *post = *p;

		if (post->fn == fn && post->arg == arg) {
			*p = post->next;
			free(post);
		} else {
			p = &post->next;
		}
	}
	l->posts_end = p;
	pthread_mutex_unlock(&l->lock);
}

struct loop_fd *loop_fd_add(struct loop *l, int fd, uint32_t events, void (*fn)(void *opaque, uint32_t events),
			    void *opaque, struct err *err)
{
	struct loop_fd *lf = calloc(1, sizeof(*lf));
	struct epoll_event ev = { .events = events, .data.ptr = lf };

	if (!lf) {
		err_set(err, ENOMEM, "no memory to watch descriptor %d", fd);
		return NULL;
	}
	lf->loop = l;
	lf->fd = fd;
	lf->fn = fn;
	lf->opaque = opaque;
	if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, fd, &ev)) {
		err_set_errno(err, errno, "cannot watch descriptor %d", fd);
		free(lf);
		return NULL;
	}
	lf->next = l->fds;
	l->fds = lf;
	return lf;
}

void loop_fd_events(struct loop_fd *lf, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = lf };

	epoll_ctl(lf->loop->epfd, EPOLL_CTL_MOD, lf->fd, &ev);
}

void loop_fd_del(struct loop_fd *lf)
{
	if (!lf)
		return;
	epoll_ctl(lf->loop->epfd, EPOLL_CTL_DEL, lf->fd, NULL);
	/* An event for it may wait in the batch being handled: free it after that. */
	lf->dead = true;
	lf->loop->reap = true;
}

/* With the lock held: set timerfd to the earliest timer. */
static void rearm(struct loop *l)
{
	struct itimerspec its = { 0 };
	uint64_t first = 0;

	for (struct timer *t = l->timers; t; t = t->next)
		if (t->when && (!first || t->when < first))
			first = t->when;
	if (first == l->armed)
		return;
	l->armed = first;
	its.it_value.tv_sec = first / 1000000000u;
	its.it_value.tv_nsec = first % 1000000000u;
	timerfd_settime(l->timerfd, TFD_TIMER_ABSTIME, &its, NULL);
}

struct timer *timer_new(struct loop *l, void (*fn)(void *opaque), void *opaque)
{
	struct timer *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->loop = l;
	t->fn = fn;
	t->opaque = opaque;
	pthread_mutex_lock(&l->lock);
	t->next = l->timers;
	l->timers = t;
	pthread_mutex_unlock(&l->lock);
	return t;
}

void timer_free(struct timer *t)
{
	struct timer **p;

	if (!t)
		return;
	pthread_mutex_lock(&t->loop->lock);
	for (p = &t->loop->timers; *p != t; p = &(*p)->next)
		;
	*p = t->next;
	pthread_mutex_unlock(&t->loop->lock);
	free(t);
}

void timer_arm(struct timer *t, uint64_t when_ns)
{
	pthread_mutex_lock(&t->loop->lock);
	t->when = when_ns ? when_ns : 1;
	rearm(t->loop);
	pthread_mutex_unlock(&t->loop->lock);
}

void timer_cancel(struct timer *t)
{
	pthread_mutex_lock(&t->loop->lock);
	t->when = 0;
	rearm(t->loop);
	pthread_mutex_unlock(&t->loop->lock);
}

static void run_timers(struct loop *l)
{
	uint64_t now = monotonic_ns();
	struct timer *t;

	pthread_mutex_lock(&l->lock);
	l->armed = 0;
	for (;;) {
		struct timer *due = NULL;
		void (*fn)(void *);
		void *opaque;

		for (t = l->timers; t; t = t->next)
			if (t->when && t->when <= now && (!due || t->when < due->when))
				due = t;
		if (!due)
			break;
		due->when = 0;
		fn = due->fn;
		opaque = due->opaque;
		pthread_mutex_unlock(&l->lock);
		fn(opaque);
		pthread_mutex_lock(&l->lock);
	}
	/* timer_arm() may have set the descriptor meanwhile; force it to the truth. */
	l->armed = UINT64_MAX;
	rearm(l);
	pthread_mutex_unlock(&l->lock);
}

static void run_posts(struct loop *l)
{
	bool kept;
	struct post *p;
	uint64_t round;

	/* Those that are there now: what they post waits for the next round. */
	pthread_mutex_lock(&l->lock);
	round = ++l->round;
	while ((p = l->posts) && p->round < round) {
		l->posts = p->next;
		if (!l->posts)
			l->posts_end = &l->posts;
		pthread_mutex_unlock(&l->lock);
		kept = p->kept; /* where it is not ours, it may go while fn runs */
		p->fn(p->arg);
		if (!kept)
			free(p);
		pthread_mutex_lock(&l->lock);
	}
	pthread_mutex_unlock(&l->lock);
}

static bool quitting(struct loop *l, int *status)
{
	bool quit;

	pthread_mutex_lock(&l->lock);
	quit = l->quit;
	*status = l->status;
	l->quit = false;
	pthread_mutex_unlock(&l->lock);
	return quit;
}

int loop_run(struct loop *l)
{
	struct epoll_event evs[32];
	int status;

	l->thread = pthread_self();
	__atomic_store_n(&l->running, true, __ATOMIC_RELEASE);
	while (!quitting(l, &status)) {
		int n = epoll_wait(l->epfd, evs, 32, -1);

		for (int i = 0; i < n; i++) {
			uint64_t count;

			if (evs[i].data.ptr == &l->wakefd) {
				if (read(l->wakefd, &count, sizeof(count)) > 0)
					run_posts(l);
			} else if (evs[i].data.ptr == &l->timerfd) {
				if (read(l->timerfd, &count, sizeof(count)) > 0)
					run_timers(l);
			} else {
				struct loop_fd *lf = evs[i].data.ptr;

				if (!lf->dead)
					lf->fn(lf->opaque, evs[i].events);
			}
		}
		if (l->reap)
			reap_fds(l, false);
	}
	__atomic_store_n(&l->running, false, __ATOMIC_RELEASE);
	return status;
}
