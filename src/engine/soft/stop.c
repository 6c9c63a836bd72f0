/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The safe point and sleep. A vCPU counts as stopped while it is outside
 * soft_enter()..soft_leave(): asleep, in a callback of the host, outside
 * vcpu_run(), or waiting for somebody else's stop to end.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "engine/soft/lockstep.h"

__thread struct soft_vcpu *soft_current;

static void wait_for_change(struct soft_stop *s)
{
	pthread_cond_wait(&s->cond, &s->lock);
}

/* In lock-step no other vCPU may see what will be undone, nor write to what will be compared. */
static void turn_begin(struct soft_stop *s)
{
	uint64_t ticket;

	pthread_mutex_lock(&s->lock);
	ticket = s->turns++;
	while (s->turn != ticket)
		pthread_cond_wait(&s->turn_cond, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

static void turn_end(struct soft_stop *s)
{
	pthread_mutex_lock(&s->lock);
	s->turn++;
	pthread_cond_broadcast(&s->turn_cond);
	pthread_mutex_unlock(&s->lock);
}

bool soft_turn_wanted(struct soft_engine *e)
{
	struct soft_stop *s = e->stop;

	return __atomic_load_n(&s->turns, __ATOMIC_RELAXED) - __atomic_load_n(&s->turn, __ATOMIC_RELAXED) > 1;
}

/* Slots may have changed while this vCPU counted as stopped. */
static void catch_up(struct soft_vcpu *v)
{
	if (unlikely(atomic_load_explicit(&v->request, memory_order_relaxed) & REQ_TLB_FLUSH)) {
		atomic_fetch_and(&v->request, ~(uint32_t)REQ_TLB_FLUSH);
		mmu_flush_all(v);
	}
}

void soft_leave(struct soft_vcpu *v)
{
	struct soft_stop *s = v->engine->stop;

	vec_home(v);
	vec_sync(v);
	v->lockstep_touched = true;
	if (!v->park->in_guest) {
		/* State is being saved or loaded while the vCPU does not run. */
		v->park->outside++;
		return;
	}
	if (unlikely(v->park->slow_locked))
		soft_unlock_slow(v);
	atomic_store(&v->park->in_guest, false);
	if (unlikely(atomic_load(&s->active))) {
		pthread_mutex_lock(&s->lock);
		pthread_cond_broadcast(&s->cond);
		pthread_mutex_unlock(&s->lock);
	}
	if (unlikely(v->lockstep != NULL))
		turn_end(s);
}

void soft_enter(struct soft_vcpu *v)
{
	struct soft_stop *s = v->engine->stop;

	if (v->park->outside) {
		v->park->outside--;
		return;
	}
	if (unlikely(v->lockstep != NULL))
		turn_begin(s);
	/* Either this sees the stop, or the stopper sees that the vCPU is in. */
	atomic_store(&v->park->in_guest, true);
	if (unlikely(atomic_load(&s->active))) {
		pthread_mutex_lock(&s->lock);
		while (s->active) {
			atomic_store(&v->park->in_guest, false);
			pthread_cond_broadcast(&s->cond);
			wait_for_change(s);
		}
		atomic_store(&v->park->in_guest, true);
		pthread_mutex_unlock(&s->lock);
	}
	catch_up(v);
}

static bool others_stopped(struct soft_engine *e, struct soft_vcpu *self)
{
	for (unsigned i = 0; i < ENGINE_MAX_CPUS; i++) {
		struct soft_vcpu *v = e->vcpus[i];

		if (v && v != self && atomic_load(&v->park->in_guest))
			return false;
	}
	return true;
}

void soft_stop_others(struct soft_engine *e, struct soft_vcpu *self)
{
	struct soft_stop *s = e->stop;
	bool in_guest = self && self->park->in_guest;

	pthread_mutex_lock(&s->lock);
	while (s->active) {
		if (in_guest)
			atomic_store(&self->park->in_guest, false);
		pthread_cond_broadcast(&s->cond);
		wait_for_change(s);
	}
	s->owner = self;
	atomic_store(&s->active, true);
	if (in_guest)
		atomic_store(&self->park->in_guest, true);
	for (unsigned i = 0; i < ENGINE_MAX_CPUS; i++) {
		struct soft_vcpu *v = e->vcpus[i];

		if (v && v != self && atomic_load(&v->park->in_guest))
			soft_request(v, REQ_STOP);
	}
	while (!others_stopped(e, self))
		wait_for_change(s);
	pthread_mutex_unlock(&s->lock);
	if (in_guest)
		catch_up(self);
}

void soft_resume_others(struct soft_engine *e, struct soft_vcpu *self)
{
	struct soft_stop *s = e->stop;

	pthread_mutex_lock(&s->lock);
	assert(s->active && s->owner == self);
	atomic_store(&s->active, false);
	s->owner = NULL;
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

void soft_lock_slow(struct soft_vcpu *v)
{
	soft_stop_others(v->engine, v);
	v->park->slow_locked = true;
}

void soft_unlock_slow(struct soft_vcpu *v)
{
	if (!v->park->slow_locked)
		return;
	v->park->slow_locked = false;
	soft_resume_others(v->engine, v);
}

/* ---- Sleep --------------------------------------------------------------- */

/* What ends a sleep; the rest is caught up with after it. One that waits for a SIPI takes no events. */
#define REQ_WAKES_WAITING (REQ_KICK | REQ_INIT | REQ_SIPI | REQ_STATE)
#define REQ_WAKES (REQ_WAKES_WAITING | REQ_IRQ | REQ_NMI | REQ_TRAP)

void soft_sleep(struct soft_vcpu *v)
{
	const uint32_t wakes = v->mp_state == CPU_MP_HALTED ? REQ_WAKES : REQ_WAKES_WAITING;

	soft_leave(v);
	pthread_mutex_lock(&v->sleep_lock);
	/* Either this sees the request, or soft_wake() sees the sleeper. */
	atomic_store(&v->park->sleeping, true);
	while (!(atomic_load(&v->request) & wakes))
		pthread_cond_wait(&v->sleep_cond, &v->sleep_lock);
	atomic_store(&v->park->sleeping, false);
	pthread_mutex_unlock(&v->sleep_lock);
	soft_enter(v);
}

void soft_wake(struct soft_vcpu *v, uint32_t bits)
{
	soft_request(v, bits);
	if (atomic_load(&v->park->sleeping)) {
		pthread_mutex_lock(&v->sleep_lock);
		pthread_cond_signal(&v->sleep_cond);
		pthread_mutex_unlock(&v->sleep_lock);
	}
}

/* ---- Making and freeing -------------------------------------------------- */

int stop_engine_init(struct soft_engine *e)
{
	struct soft_stop *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->cond, NULL);
	pthread_cond_init(&s->turn_cond, NULL);
	e->stop = s;
	return 0;
}

void stop_engine_free(struct soft_engine *e)
{
	if (!e->stop)
		return;
	pthread_mutex_destroy(&e->stop->lock);
	pthread_cond_destroy(&e->stop->cond);
	pthread_cond_destroy(&e->stop->turn_cond);
	free(e->stop);
	e->stop = NULL;
}

int stop_vcpu_init(struct soft_vcpu *v)
{
	pthread_condattr_t attr;

	/* Other threads look at it on every instruction boundary of theirs: a cache line of its own. */
	v->park = aligned_alloc(64, 64);
	if (!v->park)
		return -ENOMEM;
	memset(v->park, 0, 64);
	pthread_mutex_init(&v->sleep_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&v->sleep_cond, &attr);
	pthread_condattr_destroy(&attr);
	return 0;
}

void stop_vcpu_free(struct soft_vcpu *v)
{
	if (!v->park)
		return;
	pthread_mutex_destroy(&v->sleep_lock);
	pthread_cond_destroy(&v->sleep_cond);
	free(v->park);
	v->park = NULL;
}
