/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <time.h>

#include "machine/clock.h"

struct env {
	struct loop *loop;
	struct vclock *clock;
	int fired;
};

static void nap(unsigned ms)
{
	nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000l }, NULL);
}

static void count(void *opaque)
{
	struct env *e = opaque;

	e->fired++;
	loop_quit(e->loop, 0);
}

static void end(void *opaque)
{
	loop_quit(opaque, 1);
}

static void test_stands_still_until_started(void **state)
{
	struct env e = { .loop = loop_new(NULL) };
	uint64_t before;

	e.clock = vclock_new(e.loop);
	nap(2);
	assert_int_equal(vclock_now(e.clock), 0);
	vclock_set(e.clock, 5000);
	assert_int_equal(vclock_now(e.clock), 5000);
	vclock_start(e.clock);
	nap(2);
	assert_true(vclock_now(e.clock) >= 2005000);
	vclock_stop(e.clock);
	before = vclock_now(e.clock);
	nap(2);
	assert_int_equal(vclock_now(e.clock), before);
	vclock_free(e.clock);
	loop_free(e.loop);
}

static void test_timers_follow_the_clock(void **state)
{
	struct env e = { .loop = loop_new(NULL) };
	struct timer *limit = timer_new(e.loop, end, e.loop);
	struct vtimer *t;

	e.clock = vclock_new(e.loop);
	t = vtimer_new(e.clock, count, &e);
	assert_int_equal(vtimer_deadline(t), VTIMER_NEVER);
	vtimer_arm(t, 3000000);
	assert_int_equal(vtimer_deadline(t), 3000000);
	/* Stopped: nothing comes. */
	timer_arm(limit, monotonic_ns() + 10000000);
	assert_int_equal(loop_run(e.loop), 1);
	assert_int_equal(e.fired, 0);
	/* Started: it comes, not before its time, and once. */
	vclock_start(e.clock);
	timer_arm(limit, monotonic_ns() + 2000000000);
	assert_int_equal(loop_run(e.loop), 0);
	assert_int_equal(e.fired, 1);
	assert_true(vclock_now(e.clock) >= 3000000);
	assert_int_equal(vtimer_deadline(t), VTIMER_NEVER);
	/* Cancelled: it doesn't. */
	vtimer_arm(t, vclock_now(e.clock) + 2000000);
	vtimer_cancel(t);
	timer_arm(limit, monotonic_ns() + 10000000);
	assert_int_equal(loop_run(e.loop), 1);
	assert_int_equal(e.fired, 1);
	vtimer_free(t);
	vclock_free(e.clock);
	loop_free(e.loop);
}

static void test_muldiv(void **state)
{
	assert_int_equal(muldiv64(UINT64_MAX, 3579545, 3579545), UINT64_MAX);
	assert_int_equal(muldiv64(1000000000, 1193182, 1000000000), 1193182);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stands_still_until_started), cmocka_unit_test(test_timers_follow_the_clock),
		cmocka_unit_test(test_muldiv),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
