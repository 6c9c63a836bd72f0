/* SPDX-License-Identifier: GPL-2.0-or-later */
/* machine/clock.h for tests: time passes in fake_clock_advance() only. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fake_machine.h"

#define TOO_MANY 20000000u /* firings in one advance: a timer that re-arms itself in the past */

struct vtimer {
	struct vclock *clock;
	uint64_t deadline;
	void (*fn)(void *opaque);
	void *opaque;
	struct vtimer *next;
};

struct vclock {
	pthread_mutex_t lock;
	uint64_t now;
	struct vtimer *timers;
};

uint64_t fake_realtime_ns = FAKE_EPOCH_NS;
unsigned fake_clock_fired;

int clock_gettime(clockid_t id, struct timespec *ts)
{
	uint64_t now = __atomic_load_n(&fake_realtime_ns, __ATOMIC_RELAXED);

	if (id != CLOCK_REALTIME)
		return syscall(SYS_clock_gettime, id, ts);
	ts->tv_sec = now / 1000000000u;
	ts->tv_nsec = now % 1000000000u;
	return 0;
}

struct vclock *vclock_new(struct loop *loop)
{
	struct vclock *c = calloc(1, sizeof(*c));

	if (c)
		pthread_mutex_init(&c->lock, NULL);
	return c;
}

void vclock_free(struct vclock *c)
{
	if (!c)
		return;
	while (c->timers)
		vtimer_free(c->timers);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

uint64_t vclock_now(struct vclock *c)
{
	uint64_t now;

	pthread_mutex_lock(&c->lock);
	now = c->now;
	pthread_mutex_unlock(&c->lock);
	return now;
}

void vclock_start(struct vclock *c)
{
}

void vclock_stop(struct vclock *c)
{
}

void vclock_set(struct vclock *c, uint64_t now)
{
	pthread_mutex_lock(&c->lock);
	c->now = now;
	pthread_mutex_unlock(&c->lock);
}

struct vtimer *vtimer_new(struct vclock *c, void (*fn)(void *opaque), void *opaque)
{
	struct vtimer *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	*t = (struct vtimer){ .clock = c, .deadline = VTIMER_NEVER, .fn = fn, .opaque = opaque };
	pthread_mutex_lock(&c->lock);
	t->next = c->timers;
	c->timers = t;
	pthread_mutex_unlock(&c->lock);
	return t;
}

void vtimer_free(struct vtimer *t)
{
	struct vtimer **p;

	if (!t)
		return;
	pthread_mutex_lock(&t->clock->lock);
	for (p = &t->clock->timers; *p != t; p = &(*p)->next)
		;
	*p = t->next;
	pthread_mutex_unlock(&t->clock->lock);
	free(t);
}

void vtimer_arm(struct vtimer *t, uint64_t when)
{
	pthread_mutex_lock(&t->clock->lock);
	t->deadline = when;
	pthread_mutex_unlock(&t->clock->lock);
}

void vtimer_cancel(struct vtimer *t)
{
	vtimer_arm(t, VTIMER_NEVER);
}

uint64_t vtimer_deadline(struct vtimer *t)
{
	uint64_t deadline;

	pthread_mutex_lock(&t->clock->lock);
	deadline = t->deadline;
	pthread_mutex_unlock(&t->clock->lock);
	return deadline;
}

/* Lock held: the clock moves to `when`, never back. */
static void move(struct vclock *c, uint64_t when)
{
	if (when <= c->now)
		return;
	__atomic_fetch_add(&fake_realtime_ns, when - c->now, __ATOMIC_RELAXED);
	c->now = when;
}

void fake_clock_advance(struct vclock *c, uint64_t ns)
{
	unsigned fired = 0;
	uint64_t end;

	pthread_mutex_lock(&c->lock);
	end = c->now + ns;
	for (;;) {
		struct vtimer *first = NULL;
		void (*fn)(void *);
		void *opaque;

		for (struct vtimer *t = c->timers; t; t = t->next)
			if (t->deadline <= end && t->deadline != VTIMER_NEVER &&
			    (!first || t->deadline < first->deadline))
				first = t;
		if (!first)
			break;
		if (++fired > TOO_MANY) {
			fprintf(stderr, "fake clock: %u timers fired without end\n", fired);
			abort();
		}
		move(c, first->deadline);
		first->deadline = VTIMER_NEVER;
		fake_clock_fired++;
		fn = first->fn;
		opaque = first->opaque;
		pthread_mutex_unlock(&c->lock);
		fn(opaque);
		pthread_mutex_lock(&c->lock);
	}
	move(c, end);
	pthread_mutex_unlock(&c->lock);
}
