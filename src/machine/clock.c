/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/clock.h"

#include <pthread.h>
#include <stdlib.h>

struct vtimer {
	struct vclock *clock;
	struct timer *timer;
	uint64_t deadline;
	void (*fn)(void *opaque);
	void *opaque;
	struct vtimer *next;
};

struct vclock {
	struct loop *loop;
	pthread_mutex_t lock;
	bool running;
	uint64_t offset; /* running: now = monotonic_ns() - offset; stopped: now itself */
	struct vtimer *timers;
};

struct vclock *vclock_new(struct loop *loop)
{
	struct vclock *c = calloc(1, sizeof(*c));

	if (c) {
		c->loop = loop;
		pthread_mutex_init(&c->lock, NULL);
	}
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

static uint64_t now_locked(struct vclock *c)
{
	return c->running ? monotonic_ns() - c->offset : c->offset;
}

uint64_t vclock_now(struct vclock *c)
{
	uint64_t now;

	pthread_mutex_lock(&c->lock);
	now = now_locked(c);
	pthread_mutex_unlock(&c->lock);
	return now;
}

/* Lock held. */
static void program(struct vtimer *t)
{
	struct vclock *c = t->clock;

	if (!c->running || t->deadline == VTIMER_NEVER)
		timer_cancel(t->timer);
	else if (t->deadline > UINT64_MAX - c->offset)
		timer_arm(t->timer, UINT64_MAX);
	else
		timer_arm(t->timer, t->deadline + c->offset);
}

void vclock_start(struct vclock *c)
{
	pthread_mutex_lock(&c->lock);
	if (!c->running) {
		c->offset = monotonic_ns() - c->offset;
		c->running = true;
		for (struct vtimer *t = c->timers; t; t = t->next)
			program(t);
	}
	pthread_mutex_unlock(&c->lock);
}

void vclock_stop(struct vclock *c)
{
	pthread_mutex_lock(&c->lock);
	if (c->running) {
		c->offset = monotonic_ns() - c->offset;
		c->running = false;
		for (struct vtimer *t = c->timers; t; t = t->next)
			timer_cancel(t->timer);
	}
	pthread_mutex_unlock(&c->lock);
}

void vclock_set(struct vclock *c, uint64_t now)
{
	pthread_mutex_lock(&c->lock);
	if (!c->running)
		c->offset = now;
	pthread_mutex_unlock(&c->lock);
}

static void fire(void *opaque)
{
	struct vtimer *t = opaque;
	struct vclock *c = t->clock;
	bool due;

	pthread_mutex_lock(&c->lock);
	due = c->running && t->deadline != VTIMER_NEVER && now_locked(c) >= t->deadline;
	if (due)
		t->deadline = VTIMER_NEVER;
	else
		program(t); /* re-armed or stopped since the expiry */
	pthread_mutex_unlock(&c->lock);
	if (due)
		t->fn(t->opaque);
}

struct vtimer *vtimer_new(struct vclock *c, void (*fn)(void *opaque), void *opaque)
{
	struct vtimer *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->timer = timer_new(c->loop, fire, t);
	if (!t->timer) {
		free(t);
		return NULL;
	}
	t->clock = c;
	t->fn = fn;
	t->opaque = opaque;
	t->deadline = VTIMER_NEVER;
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
	timer_free(t->timer);
	free(t);
}

void vtimer_arm(struct vtimer *t, uint64_t when)
{
	pthread_mutex_lock(&t->clock->lock);
	t->deadline = when;
	program(t);
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
