/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An event loop for one thread: descriptors (epoll), timers and posted calls.
 *
 * All callbacks run in the thread inside loop_run(). loop_post(), loop_quit(),
 * timer_arm() and timer_cancel() may be called from any thread; everything
 * else only from the loop's own thread or while it does not run.
 * Times are CLOCK_MONOTONIC nanoseconds.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "util/err.h"

struct loop;
struct loop_fd;
struct timer;

struct loop *loop_new(struct err *err); /* NULL on failure */
void loop_free(struct loop *loop);      /* frees its descriptors' records and timers; closes no caller's fd */

/* Run until loop_quit(). Returns the status given there. */
int loop_run(struct loop *loop);
/* Make loop_run() return `status` after the callback now running. Sticky until the next loop_run() returns. */
void loop_quit(struct loop *loop, int status);
/* Run fn(arg) in the loop's thread, in the order of the calls. Returns 0 or -ENOMEM. */
int loop_post(struct loop *loop, void (*fn)(void *arg), void *arg);
/* Run fn(arg) in the loop's thread and wait for it to end; here, if nobody runs the loop. Any thread, without locks that fn takes. */
void loop_call(struct loop *loop, void (*fn)(void *arg), void *arg);
/* Forget the calls of fn(arg) that have not begun: whoever is about to go calls it, in the loop's thread or while it does not run. */
void loop_unpost(struct loop *loop, void (*fn)(void *arg), void *arg);
/* True in the thread that runs the loop. */
bool loop_is_mine(const struct loop *loop);

/*
 * Watch `fd` for `events` (EPOLLIN and friends; 0 to watch nothing but
 * errors). The record is owned by the loop; loop_fd_del() frees it, also from
 * inside its own callback. The descriptor stays the caller's.
 */
struct loop_fd *loop_fd_add(struct loop *loop, int fd, uint32_t events,
			    void (*fn)(void *opaque, uint32_t events), void *opaque, struct err *err);
void loop_fd_events(struct loop_fd *lf, uint32_t events);
void loop_fd_del(struct loop_fd *lf);

/* A timer, unarmed. */
struct timer *timer_new(struct loop *loop, void (*fn)(void *opaque), void *opaque);
void timer_free(struct timer *t); /* NULL is allowed; only in the loop's thread or while it doesn't run */
/* Fire once at `when`, which may lie in the past; replaces an earlier arming. */
void timer_arm(struct timer *t, uint64_t when_ns);
void timer_cancel(struct timer *t);

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t monotonic_ns(void);
