/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * APIC timers (SDM vol. 3 §10.5.4) and the time-stamp counter.
 *
 * One host thread serves the timers of all vCPUs. It sleeps in read() of a
 * timerfd set to the earliest deadline; who arms an earlier one moves the
 * timerfd itself, without waking the thread. A deadline that is moved back or
 * disarmed is left alone: the thread wakes once for nothing.
 *
 * The count runs at 1 GHz before the divider, as KVM's: a tick is 1 ns.
 */
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "engine/soft/lapic.h"
#include "util/threads.h"

/* A periodic timer faster than this would only keep the host busy. */
#define MIN_PERIOD_NS 50000u

struct timers {
	unsigned users;
	int fd;
	bool running;
	pthread_t thread;
	_Atomic bool stop;
	_Atomic uint64_t armed; /* what fd is set to; APIC_TIMER_NEVER while the thread looks around */
	pthread_mutex_t fd_lock;
	pthread_mutex_t apics_lock; /* the table below, and the APICs in it stay */
	struct lapic *apics[ENGINE_MAX_CPUS + 1];
	pthread_mutex_t tsc_lock;
	bool tsc_valid;
	uint64_t tsc_offset;
};

static pthread_mutex_t users_lock = PTHREAD_MUTEX_INITIALIZER; /* engine->timers comes and goes */

uint64_t soft_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

uint64_t soft_tsc(struct soft_vcpu *v)
{
	uint64_t host = v->engine->frozen ? v->engine->frozen_tsc : __rdtsc();

	return host + __atomic_load_n(&v->tsc_offset, __ATOMIC_RELAXED);
}

/* The time that the timers of this APIC count: it stands still while the machine is paused. */
static uint64_t lapic_now(const struct lapic *l)
{
	return l->v->engine->frozen ? l->v->engine->frozen_ns : soft_now();
}

/* ---- The thread ---------------------------------------------------------- */

/*
 * The caller has stored its timer's deadline. Pairs with timer_thread(), which
 * stores `armed` and reads the deadlines after: one of the two sees the other.
 */
static void arm_fd(struct timers *t, uint64_t deadline)
{
	struct itimerspec its = { 0 };

	if (deadline >= atomic_load(&t->armed) || !t->running)
		return;
	pthread_mutex_lock(&t->fd_lock);
	if (deadline < atomic_load(&t->armed)) {
		its.it_value.tv_sec = deadline / 1000000000;
		its.it_value.tv_nsec = deadline % 1000000000 + (deadline == 0);
		atomic_store(&t->armed, deadline);
		timerfd_settime(t->fd, TFD_TIMER_ABSTIME, &its, NULL);
	}
	pthread_mutex_unlock(&t->fd_lock);
}

static uint64_t timer_expire(struct lapic *l);

static uint64_t expire_all(struct timers *t)
{
	uint64_t now = soft_now(), earliest = APIC_TIMER_NEVER;

	pthread_mutex_lock(&t->apics_lock);
	for (unsigned n = 0; n < ENGINE_MAX_CPUS; n++) {
		struct lapic *l = t->apics[n];
		uint64_t deadline;

		if (!l)
			continue;
		deadline = atomic_load(&l->timer.deadline);
		if (deadline <= now)
			deadline = timer_expire(l);
		if (deadline < earliest)
			earliest = deadline;
	}
	pthread_mutex_unlock(&t->apics_lock);
	return earliest;
}

static void *timer_thread(void *opaque)
{
	struct timers *t = opaque;
	uint64_t ticks;

	thread_begin(THREAD_TIMER);
	for (;;) {
		if (read(t->fd, &ticks, sizeof(ticks)) < 0)
			assert(errno == EINTR || errno == EAGAIN);
		if (atomic_load(&t->stop))
			return NULL;
		pthread_mutex_lock(&t->fd_lock);
		atomic_store(&t->armed, APIC_TIMER_NEVER);
		pthread_mutex_unlock(&t->fd_lock);
		arm_fd(t, expire_all(t));
	}
}

static int timers_start(struct timers *t)
{
	sigset_t all, old;
	int rc;

	t->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	if (t->fd < 0)
		return -errno;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	t->running = true;
	rc = pthread_create(&t->thread, NULL, timer_thread, t);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc) {
		t->running = false;
		close(t->fd);
		return -rc;
	}
	pthread_setname_np(t->thread, "apic-timer");
	return 0;
}

static void timers_end(struct timers *t)
{
	if (t->running) {
		atomic_store(&t->stop, true);
		arm_fd(t, 0);
		pthread_join(t->thread, NULL);
		close(t->fd);
	}
	pthread_mutex_destroy(&t->fd_lock);
	pthread_mutex_destroy(&t->apics_lock);
	pthread_mutex_destroy(&t->tsc_lock);
	free(t);
}

int apic_timer_init(struct lapic *l)
{
	struct soft_engine *e = l->v->engine;
	int rc = 0;

	pthread_mutex_init(&l->timer.lock, NULL);
	atomic_store(&l->timer.deadline, APIC_TIMER_NEVER);
	pthread_mutex_lock(&users_lock);
	if (!e->timers) {
		struct timers *t = calloc(1, sizeof(*t));

		rc = -ENOMEM;
		if (t) {
			pthread_mutex_init(&t->fd_lock, NULL);
			pthread_mutex_init(&t->apics_lock, NULL);
			pthread_mutex_init(&t->tsc_lock, NULL);
			atomic_store(&t->armed, APIC_TIMER_NEVER);
			rc = e->probing ? 0 : timers_start(t);
			if (rc)
				timers_end(t);
			else
				e->timers = t;
		}
	}
	if (!rc) {
		e->timers->users++;
		pthread_mutex_lock(&e->timers->apics_lock);
		e->timers->apics[l->v->vcpu.index] = l;
		pthread_mutex_unlock(&e->timers->apics_lock);
	}
	pthread_mutex_unlock(&users_lock);
	return rc;
}

void apic_timer_destroy(struct lapic *l)
{
	struct soft_engine *e = l->v->engine;
	struct timers *t = e->timers;

	pthread_mutex_lock(&t->apics_lock);
	t->apics[l->v->vcpu.index] = NULL;
	pthread_mutex_unlock(&t->apics_lock);
	pthread_mutex_lock(&users_lock);
	if (!--t->users) {
		e->timers = NULL;
		timers_end(t);
	}
	pthread_mutex_unlock(&users_lock);
	pthread_mutex_destroy(&l->timer.lock);
}

/* ---- One timer; all under its lock --------------------------------------- */

static uint64_t period(const struct apic_timer *t)
{
	return (uint64_t)t->initial << t->shift;
}

static uint32_t lvt_mode(struct lapic *l)
{
	return atomic_load(&l->lvt[LVT_TIMER]) & LVT_TIMER_MODE;
}

/* Nanoseconds until the guest's TSC reaches `deadline`, rounded up; 0 if it has. */
static uint64_t tsc_to_ns(struct soft_vcpu *v, uint64_t deadline)
{
	uint64_t now = soft_tsc(v), khz = soft_host_tsc_khz();
	unsigned __int128 ns;

	if (deadline <= now)
		return 0;
	ns = ((unsigned __int128)(deadline - now) * 1000000 + khz - 1) / khz;
	return ns > UINT64_MAX / 4 ? UINT64_MAX / 4 : ns;
}

static uint64_t next_deadline(struct lapic *l, uint64_t now)
{
	struct apic_timer *t = &l->timer;
	uint64_t step;

	switch (lvt_mode(l)) {
	case LVT_TIMER_ONESHOT:
		return t->counting ? t->start + period(t) : APIC_TIMER_NEVER;
	case LVT_TIMER_PERIODIC:
		if (!t->counting || t->stalled || atomic_load(&l->lvt[LVT_TIMER]) & LVT_MASKED)
			return APIC_TIMER_NEVER;
		step = period(t);
		step *= step < MIN_PERIOD_NS ? (MIN_PERIOD_NS + step - 1) / step : 1;
		return t->start + ((now > t->start ? now - t->start : 0) / step + 1) * step;
	case LVT_TIMER_DEADLINE:
		return t->tsc_deadline ? now + tsc_to_ns(l->v, t->tsc_deadline) : APIC_TIMER_NEVER;
	default:
		return APIC_TIMER_NEVER;
	}
}

/* Deliver what is due at `now` and say when to look again. */
static uint64_t fire_due(struct lapic *l, uint64_t now)
{
	struct apic_timer *t = &l->timer;
	uint64_t deadline;

	if (lvt_mode(l) == LVT_TIMER_PERIODIC) {
		/* Only at a boundary that was waited for; next_deadline() gives the one after `now`. */
		if (now >= atomic_load(&t->deadline))
			t->stalled = lapic_timer_fire(l);
		return next_deadline(l, now);
	}
	deadline = next_deadline(l, now);
	if (deadline > now)
		return deadline;
	t->counting = false;
	t->tsc_deadline = 0;
	lapic_timer_fire(l);
	return APIC_TIMER_NEVER;
}

static uint64_t timer_expire(struct lapic *l)
{
	struct apic_timer *t = &l->timer;
	uint64_t now, deadline;

	pthread_mutex_lock(&t->lock);
	now = lapic_now(l);
	deadline = atomic_load(&t->deadline);
	if (deadline <= now) {
		deadline = fire_due(l, now);
		atomic_store(&t->deadline, deadline);
	}
	pthread_mutex_unlock(&t->lock);
	return deadline;
}

/* The timer's settings changed: deliver at once what is due already, wait for the rest. */
static void rearm(struct lapic *l, uint64_t now)
{
	struct apic_timer *t = &l->timer;
	uint64_t deadline;

	atomic_store(&t->deadline, APIC_TIMER_NEVER);
	deadline = l->v->engine->probing || l->v->engine->frozen ? APIC_TIMER_NEVER : fire_due(l, now);
	atomic_store(&t->deadline, deadline);
	if (deadline != APIC_TIMER_NEVER)
		arm_fd(l->v->engine->timers, deadline);
}

static uint32_t current_count(struct lapic *l, uint64_t now)
{
	struct apic_timer *t = &l->timer;
	uint64_t elapsed;

	if (!t->counting || lvt_mode(l) == LVT_TIMER_DEADLINE)
		return 0;
	elapsed = (now > t->start ? now - t->start : 0) >> t->shift;
	if (lvt_mode(l) == LVT_TIMER_PERIODIC)
		return t->initial - elapsed % t->initial;
	return elapsed >= t->initial ? 0 : t->initial - elapsed;
}

/* SDM vol. 3 figure 10-10: bits 3, 1, 0 give 2, 4 .. 128, 1. */
static unsigned divide_shift(uint32_t divide)
{
	return (((divide & 3) | (divide & 8) >> 1) + 1) & 7;
}

void apic_timer_reset(struct lapic *l)
{
	struct apic_timer *t = &l->timer;

	pthread_mutex_lock(&t->lock);
	t->initial = 0;
	t->counting = t->stalled = false;
	t->tsc_deadline = 0;
	t->shift = divide_shift(0);
	atomic_store(&t->deadline, APIC_TIMER_NEVER);
	pthread_mutex_unlock(&t->lock);
}

void apic_timer_lvt_changed(struct lapic *l, uint32_t old)
{
	struct apic_timer *t = &l->timer;
	uint32_t mode = lvt_mode(l);

	pthread_mutex_lock(&t->lock);
	t->stalled = false;
	/* Between TSC-deadline and the counting modes both sides are disarmed (SDM vol. 3 §10.5.4.1). */
	if ((mode == LVT_TIMER_DEADLINE) != ((old & LVT_TIMER_MODE) == LVT_TIMER_DEADLINE)) {
		t->tsc_deadline = 0;
		t->counting = false;
		t->initial = 0;
	}
	/* A periodic count goes on in its period; a one-shot count that ended stays ended. */
	if (mode != (old & LVT_TIMER_MODE) && t->counting && mode == LVT_TIMER_ONESHOT) {
		uint64_t now = lapic_now(l), steps = now > t->start ? (now - t->start) / period(t) : 0;

		t->start += steps * period(t);
	}
	rearm(l, lapic_now(l));
	pthread_mutex_unlock(&t->lock);
}

void apic_timer_set_initial(struct lapic *l, uint32_t count)
{
	struct apic_timer *t = &l->timer;
	uint64_t now;

	pthread_mutex_lock(&t->lock);
	if (lvt_mode(l) != LVT_TIMER_DEADLINE) {
		now = lapic_now(l);
		t->initial = count;
		t->counting = count != 0;
		t->stalled = false;
		t->start = now;
		rearm(l, now);
	}
	pthread_mutex_unlock(&t->lock);
}

uint32_t apic_timer_current(struct lapic *l)
{
	uint32_t count;

	pthread_mutex_lock(&l->timer.lock);
	count = current_count(l, lapic_now(l));
	pthread_mutex_unlock(&l->timer.lock);
	return count;
}

void apic_timer_set_divide(struct lapic *l, uint32_t divide)
{
	struct apic_timer *t = &l->timer;
	uint64_t now;
	uint32_t left;

	pthread_mutex_lock(&t->lock);
	now = lapic_now(l);
	left = current_count(l, now);
	t->shift = divide_shift(divide);
	if (left) {
		t->start = now - ((uint64_t)(t->initial - left) << t->shift);
		rearm(l, now);
	}
	pthread_mutex_unlock(&t->lock);
}

uint64_t apic_timer_tsc_deadline(struct lapic *l)
{
	struct apic_timer *t = &l->timer;
	uint64_t value;

	pthread_mutex_lock(&t->lock);
	value = t->tsc_deadline;
	pthread_mutex_unlock(&t->lock);
	return value;
}

void apic_timer_set_tsc_deadline(struct lapic *l, uint64_t value)
{
	struct apic_timer *t = &l->timer;

	pthread_mutex_lock(&t->lock);
	if (lvt_mode(l) == LVT_TIMER_DEADLINE) {
		t->tsc_deadline = value;
		rearm(l, lapic_now(l));
	}
	pthread_mutex_unlock(&t->lock);
}

void apic_timer_tsc_changed(struct lapic *l)
{
	struct apic_timer *t = &l->timer;

	pthread_mutex_lock(&t->lock);
	if (t->tsc_deadline)
		rearm(l, lapic_now(l));
	pthread_mutex_unlock(&t->lock);
}

void apic_timer_accepted(struct lapic *l)
{
	struct apic_timer *t = &l->timer;

	if (lvt_mode(l) != LVT_TIMER_PERIODIC)
		return;
	pthread_mutex_lock(&t->lock);
	if (t->stalled) {
		t->stalled = false;
		rearm(l, lapic_now(l));
	}
	pthread_mutex_unlock(&t->lock);
}

void apic_timer_restore(struct lapic *l, uint32_t initial, uint32_t current, uint32_t divide, uint64_t tsc_deadline)
{
	struct apic_timer *t = &l->timer;
	uint64_t now;

	pthread_mutex_lock(&t->lock);
	now = lapic_now(l);
	t->initial = initial;
	t->shift = divide_shift(divide);
	t->stalled = false;
	t->tsc_deadline = lvt_mode(l) == LVT_TIMER_DEADLINE ? tsc_deadline : 0;
	if (current > initial)
		current = initial;
	t->counting = lvt_mode(l) != LVT_TIMER_DEADLINE && current;
	t->start = now - ((uint64_t)(initial - current) << t->shift);
	rearm(l, now);
	pthread_mutex_unlock(&t->lock);
}

/* ---- TSC of all vCPUs ---------------------------------------------------- */

uint64_t timers_tsc_offset(struct soft_engine *e, uint64_t offset)
{
	struct timers *t = e->timers;
	const int64_t second = 1ll << 31; /* about that, at any frequency: measuring it would cost 5 ms */

	if (!t || e->probing)
		return offset;
	pthread_mutex_lock(&t->tsc_lock);
	if (!t->tsc_valid || (int64_t)(offset - t->tsc_offset) > second || (int64_t)(t->tsc_offset - offset) > second) {
		t->tsc_valid = true;
		t->tsc_offset = offset;
	}
	offset = t->tsc_offset;
	pthread_mutex_unlock(&t->tsc_lock);
	return offset;
}

/* ---- Standing still ------------------------------------------------------ */

static void rearm_all(struct timers *t)
{
	for (unsigned n = 0; n < ENGINE_MAX_CPUS; n++) {
		struct lapic *l = t->apics[n];

		if (!l)
			continue;
		pthread_mutex_lock(&l->timer.lock);
		rearm(l, lapic_now(l));
		pthread_mutex_unlock(&l->timer.lock);
	}
}

/* Move everything that counts against the host's clocks by the time that the guest did not see. */
static void skip_time(struct timers *t, uint64_t tsc, uint64_t ns)
{
	pthread_mutex_lock(&t->tsc_lock);
	t->tsc_offset -= tsc;
	pthread_mutex_unlock(&t->tsc_lock);
	for (unsigned n = 0; n < ENGINE_MAX_CPUS; n++) {
		struct lapic *l = t->apics[n];

		if (!l)
			continue;
		pthread_mutex_lock(&l->timer.lock);
		l->timer.start += ns;
		__atomic_store_n(&l->v->tsc_offset, l->v->tsc_offset - tsc, __ATOMIC_RELAXED);
		pthread_mutex_unlock(&l->timer.lock);
	}
}

/* kvmclock needs nothing: it follows the TSC, which goes on from where it was. */
void soft_clock(struct engine *engine, bool run)
{
	struct soft_engine *e = soft_engine(engine);
	struct timers *t = e->timers;
	bool fresh = atomic_load(&e->tsc_fresh);

	if (e->frozen == !run)
		return;
	if (t)
		pthread_mutex_lock(&t->apics_lock);
	if (run) {
		if (t)
			skip_time(t, fresh ? 0 : __rdtsc() - e->frozen_tsc, soft_now() - e->frozen_ns);
		if (!fresh)
			native_tsc_moved(e);
		e->frozen = false;
	} else {
		e->frozen_tsc = __rdtsc();
		e->frozen_ns = soft_now();
		e->frozen = true;
	}
	if (t) {
		rearm_all(t);
		pthread_mutex_unlock(&t->apics_lock);
	}
}
