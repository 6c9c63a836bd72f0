/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * APIC timers against the wall. The host is shared, so lateness is bounded
 * loosely; earliness not at all.
 */
#include <semaphore.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "apic_stubs.h"

#define BASE 0xfee00000ull
#define MS 1000000ull

static void wr(unsigned n, unsigned off, uint32_t value)
{
	lapic_mmio_write(cpus[n], BASE + off, value, 4);
}

static uint32_t rd(unsigned n, unsigned off)
{
	return lapic_mmio_read(cpus[n], BASE + off, 4);
}

static bool irr(unsigned n, unsigned vector)
{
	return atomic_load(&cpus[n]->lapic->irr[vector / 32]) >> (vector % 32) & 1;
}

/* When vCPU `n` was woken with `vector`, or 0 if not within `limit`. */
static uint64_t wait_irq(unsigned n, unsigned vector, uint64_t limit)
{
	uint64_t end = soft_now() + limit;

	do {
		if (irr(n, vector))
			return soft_now();
		usleep(50);
	} while (soft_now() < end);
	return 0;
}

static uint32_t host_tsc_khz(void)
{
	static uint32_t khz;

	if (!khz) {
		uint64_t t0 = soft_now(), c0 = __rdtsc();

		usleep(50000);
		khz = (uint32_t)((__rdtsc() - c0) * 1000000 / (soft_now() - t0));
	}
	return khz;
}

static int setup(void **state)
{
	stub_setup(false);
	host_khz = host_tsc_khz();
	for (unsigned n = 0; n < STUB_CPUS; n++)
		wr(n, 0xf0, 0x1ff);
	return 0;
}

static void one_shot(void **state)
{
	uint64_t t0, t1;
	uint32_t a, b;

	wr(0, 0x3e0, 0xb); /* divide by 1 */
	wr(0, 0x320, 0x30);
	t0 = soft_now();
	wr(0, 0x380, 20 * MS);
	a = rd(0, 0x390);
	b = rd(0, 0x390);
	assert_true(a <= 20 * MS && a > 10 * MS && b <= a);
	t1 = wait_irq(0, 0x30, 2000 * MS);
	assert_true(t1 >= t0 + 20 * MS && t1 < t0 + 500 * MS);
	assert_int_equal(rd(0, 0x390), 0);
	assert_int_equal(rd(0, 0x380), 20 * MS);
	assert_int_equal(wakes[0], 1);
	assert_int_equal(lapic_ack(cpus[0]), 0x30);
	assert_int_equal(wait_irq(0, 0x30, 60 * MS), 0); /* once */
}

static void divide(void **state)
{
	static const uint8_t config[] = { 0, 1, 2, 3, 8, 9, 10, 11 };
	static const unsigned divisor[] = { 2, 4, 8, 16, 32, 64, 128, 1 };

	wr(0, 0x320, 0x10030);
	for (unsigned n = 0; n < 8; n++) {
		uint64_t t0, t1, t2, t3;
		uint32_t a, b;

		wr(0, 0x3e0, config[n]);
		assert_int_equal(rd(0, 0x3e0), config[n]);
		wr(0, 0x380, 4000000000u);
		t0 = soft_now();
		a = rd(0, 0x390);
		t1 = soft_now();
		usleep(2000);
		t2 = soft_now();
		b = rd(0, 0x390);
		t3 = soft_now();
		/* The ticks counted lie between the shortest and the longest time it can have been. */
		assert_in_range(a - b, (t2 - t1) / divisor[n] - 1, (t3 - t0) / divisor[n] + 1);
	}
	/* A change in mid-count keeps the count. */
	wr(0, 0x3e0, 0xb);
	wr(0, 0x380, 4000000000u);
	usleep(1000);
	uint32_t before = rd(0, 0x390);
	wr(0, 0x3e0, 0xa);
	uint32_t after = rd(0, 0x390);
	assert_true(after <= before && before - after < 100 * MS);
}

static void periodic(void **state)
{
	uint64_t t0, t = 0;

	wr(1, 0x3e0, 0xb);
	wr(1, 0x320, 0x20031);
	t0 = soft_now();
	wr(1, 0x380, 10 * MS);
	for (unsigned n = 1; n <= 5; n++) {
		t = wait_irq(1, 0x31, 1000 * MS);
		assert_true(t >= t0 + n * 10 * MS);
		assert_int_equal(lapic_ack(cpus[1]), 0x31);
		wr(1, 0xb0, 0);
	}
	assert_true(t < t0 + 1000 * MS);
	assert_true(rd(1, 0x390) <= 10 * MS);
	/* Nobody takes them: the thread stops ticking after the second, and goes on in phase when it is taken. */
	usleep(50000);
	assert_int_equal(atomic_load(&cpus[1]->lapic->timer.deadline), APIC_TIMER_NEVER);
	assert_int_equal(lapic_ack(cpus[1]), 0x31);
	wr(1, 0xb0, 0);
	t = wait_irq(1, 0x31, 1000 * MS);
	assert_true(t != 0);
	assert_true((t - t0) % (10 * MS) < 9 * MS);
	wr(1, 0x380, 0);
	lapic_ack(cpus[1]);
	wr(1, 0xb0, 0);
	assert_int_equal(wait_irq(1, 0x31, 30 * MS), 0);
	assert_int_equal(rd(1, 0x390), 0);
}

static void masked(void **state)
{
	wr(0, 0x3e0, 0xb);
	wr(0, 0x320, 0x10030);
	wr(0, 0x380, 5 * MS);
	assert_int_equal(wait_irq(0, 0x30, 30 * MS), 0);
	assert_int_equal(rd(0, 0x390), 0);
	wr(0, 0x320, 0x30); /* it is over: unmasking brings nothing */
	assert_int_equal(wait_irq(0, 0x30, 20 * MS), 0);
	wr(0, 0x320, 0x30030);
	wr(0, 0x380, 5 * MS);
	assert_int_equal(wait_irq(0, 0x30, 20 * MS), 0);
	wr(0, 0x320, 0x20030);
	assert_true(wait_irq(0, 0x30, 1000 * MS) != 0);
}

static void tsc_deadline(void **state)
{
	struct soft_vcpu *v = cpus[2];
	struct lapic *l = v->lapic;
	uint64_t deadline;

	v->tsc_offset = 12345678901ull;
	apic_timer_set_tsc_deadline(l, soft_tsc(v) + 1000); /* not in this mode */
	assert_int_equal(apic_timer_tsc_deadline(l), 0);
	wr(2, 0x320, 0x40032);
	deadline = soft_tsc(v) + 20ull * host_khz;
	apic_timer_set_tsc_deadline(l, deadline);
	assert_int_equal(apic_timer_tsc_deadline(l), deadline);
	assert_true(wait_irq(2, 0x32, 2000 * MS) != 0);
	assert_true(soft_tsc(v) >= deadline);
	assert_int_equal(apic_timer_tsc_deadline(l), 0);
	assert_int_equal(lapic_ack(v), 0x32);
	wr(2, 0xb0, 0);
	/* In the past: at once, without the thread. */
	apic_timer_set_tsc_deadline(l, soft_tsc(v) - 1);
	assert_true(irr(2, 0x32));
	assert_int_equal(apic_timer_tsc_deadline(l), 0);
	lapic_ack(v);
	wr(2, 0xb0, 0);
	/* Zero disarms. */
	apic_timer_set_tsc_deadline(l, soft_tsc(v) + 10ull * host_khz);
	apic_timer_set_tsc_deadline(l, 0);
	assert_int_equal(wait_irq(2, 0x32, 30 * MS), 0);
	/* So does leaving the mode. */
	apic_timer_set_tsc_deadline(l, soft_tsc(v) + 10ull * host_khz);
	wr(2, 0x320, 0x32);
	assert_int_equal(wait_irq(2, 0x32, 30 * MS), 0);
	/* The TSC jumps past it. */
	wr(2, 0x320, 0x40032);
	apic_timer_set_tsc_deadline(l, soft_tsc(v) + 3600000ull * host_khz);
	soft_tsc_moved(v, v->tsc_offset + 3600000ull * host_khz);
	assert_true(irr(2, 0x32));
	lapic_ack(v);
	wr(2, 0xb0, 0);
	/* Farther than the clock reaches: simply pending. */
	apic_timer_set_tsc_deadline(l, UINT64_MAX);
	assert_int_equal(wait_irq(2, 0x32, 20 * MS), 0);
	assert_true(apic_timer_tsc_deadline(l) == UINT64_MAX);
}

/* Many timers with one thread: each on time, in any order of arming. */
static void several(void **state)
{
	uint64_t t0 = soft_now();

	for (unsigned n = 0; n < STUB_CPUS; n++) {
		wr(n, 0x3e0, 0xb);
		wr(n, 0x320, 0x40 + n);
	}
	for (unsigned round = 0; round < 5; round++) {
		t0 = soft_now();
		for (unsigned n = 0; n < STUB_CPUS; n++)
			wr(n, 0x380, (STUB_CPUS - n) * 4 * MS);
		for (int n = STUB_CPUS - 1; n >= 0; n--) {
			uint64_t t = wait_irq(n, 0x40 + n, 1000 * MS);

			assert_true(t >= t0 + (STUB_CPUS - n) * 4 * MS);
			assert_int_equal(lapic_ack(cpus[n]), 0x40 + n);
			wr(n, 0xb0, 0);
		}
	}
}

static void restore(void **state)
{
	struct cpu_state *s = aligned_alloc(64, sizeof(*s));
	uint64_t t0;

	memset(s, 0, sizeof(*s));
	wr(0, 0x3e0, 0xb);
	wr(0, 0x320, 0x30);
	wr(0, 0x380, 200 * MS);
	usleep(20000);
	lapic_get(cpus[0], s);
	lapic_init_signal(cpus[0]);
	assert_int_equal(rd(0, 0x390), 0);
	usleep(250000); /* stopped: the count waits */
	assert_false(irr(0, 0x30));
	t0 = soft_now();
	lapic_set(cpus[0], s);
	assert_true(rd(0, 0x390) > 50 * MS);
	assert_true(wait_irq(0, 0x30, 2000 * MS) >= t0 + 50 * MS);
	free(s);
}

/* A disarmed or distant timer costs nothing; a periodic one that nobody takes neither. */
static void idle(void **state)
{
	struct rusage a, b;

	wr(0, 0x3e0, 0xb);
	wr(0, 0x320, 0x20030);
	wr(0, 0x380, 1); /* a hostile period */
	wr(1, 0x320, 0x30);
	wr(1, 0x380, UINT32_MAX);
	usleep(10000);
	getrusage(RUSAGE_SELF, &a);
	usleep(200000);
	getrusage(RUSAGE_SELF, &b);
	assert_true((b.ru_utime.tv_sec - a.ru_utime.tv_sec + b.ru_stime.tv_sec - a.ru_stime.tv_sec) * 1000000 +
			    (b.ru_utime.tv_usec - a.ru_utime.tv_usec) + (b.ru_stime.tv_usec - a.ru_stime.tv_usec) <
		    10000);
	assert_true(b.ru_nvcsw - a.ru_nvcsw < 10);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, stub_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(one_shot),	    TEST(divide),  TEST(periodic), TEST(masked),
		TEST(tsc_deadline), TEST(several), TEST(restore),  TEST(idle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
