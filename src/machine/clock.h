/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The machine's clock: nanoseconds that pass only while the machine runs, and
 * timers on it. Devices use nothing else, so that a stopped or saved machine
 * loses no time. Callbacks run in the main loop's thread, without locks: take
 * the device's lock inside (and know that a timer cancelled under that lock may
 * already be on its way: look at the deadline again).
 *
 * Thread safety: all functions may be called from any thread, vtimer_free()
 * only in the loop's thread or while the loop does not run.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "util/loop.h"

struct vclock;
struct vtimer;

#define VTIMER_NEVER UINT64_MAX

struct vclock *vclock_new(struct loop *loop); /* stopped, at 0; NULL: no memory */
void vclock_free(struct vclock *c);
uint64_t vclock_now(struct vclock *c); /* ns */
void vclock_start(struct vclock *c);
void vclock_stop(struct vclock *c);    /* timers do not fire while it is stopped */
void vclock_set(struct vclock *c, uint64_t now); /* only while stopped: loading a state */

struct vtimer *vtimer_new(struct vclock *c, void (*fn)(void *opaque), void *opaque); /* unarmed; NULL: no memory */
void vtimer_free(struct vtimer *t); /* NULL is allowed */
void vtimer_arm(struct vtimer *t, uint64_t when); /* fire once at `when`; VTIMER_NEVER cancels */
void vtimer_cancel(struct vtimer *t);
uint64_t vtimer_deadline(struct vtimer *t); /* VTIMER_NEVER while unarmed */

/* a * b / c without overflow of the product; c != 0. For converting ticks and nanoseconds. */
static inline uint64_t muldiv64(uint64_t a, uint64_t b, uint64_t c)
{
	return (unsigned __int128)a * b / c;
}
