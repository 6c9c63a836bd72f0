/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What every device class must stand: garbage in all of its registers, resets
 * and time at any moment, save and load in mid-operation, states that lie,
 * removal with work under way, two vCPUs at once. KEEL_SEED=n repeats a run,
 * KEEL_CLASS=name restricts it, KEEL_ACCESSES=n sets its length.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "harness.h"
#include "util/log.h"

static uint64_t seed = 1;
static unsigned accesses = 100000;

static uint64_t next_random(void *opaque)
{
	uint64_t *s = opaque, x;

	/* SplitMix64 */
	x = *s += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static uint64_t seed_of(const struct device_class *cls, unsigned salt)
{
	uint64_t s = seed * 1000003 + salt;

	for (const char *p = cls->name; *p; p++)
		s = s * 31 + (uint8_t)*p;
	return s;
}

static void some_time(struct fake_machine *f, uint64_t r)
{
	static const uint64_t step[8] = { 0, 100, 1000, 10000, 100000, 1000000, 20000000, 1500000000 };

	/* Long pauses are rare: a fast timer fires thousands of times in them. */
	if (r % 4 == 0)
		fake_machine_advance(f, step[(r >> 8) % ((r >> 16) % 64 ? 6 : 8)] + (r >> 32) % 997);
}

static void wiggle(struct fake_machine *f, uint64_t *s, unsigned n)
{
	while (n--) {
		harness_access(f, next_random, s);
		if (next_random(s) % 16 == 0)
			harness_peers(f, next_random(s));
		some_time(f, next_random(s));
	}
	fake_machine_loop(f);
	machine_pause(f->m); /* in case that the guest ended it */
	if (f->m->state == MACHINE_ENDED)
		assert_int_equal(machine_reset(f->m, NULL), 0);
	machine_resume(f->m);
}

static struct fake_machine *new_machine(const struct device_class *cls)
{
	struct err err = ERR_INIT;
	struct fake_machine *f = harness_new(cls, &err);

	if (!f)
		fail_msg("%s", err_msg(&err));
	/* Rings and requests that registers point at by chance are full of garbage too. */
	for (uint64_t i = 0, s = seed_of(cls, 8); i < 0x20000; i += 8)
		memcpy(f->m->ram + i, &(uint64_t){ next_random(&s) & (i & 64 ? 0x1ffff : UINT64_MAX) }, 8);
	return f;
}

/* ---- Realize, reset, remove ---------------------------------------------- */

static void check_garbage(const struct device_class *cls)
{
	struct fake_machine *f = new_machine(cls);
	uint64_t s = seed_of(cls, 1);

	for (unsigned i = 0; i < accesses; i += 100) {
		wiggle(f, &s, 100);
		if (next_random(&s) % 8)
			continue;
		machine_pause(f->m);
		if (next_random(&s) % 2 && harness_device(f))
			device_reset(harness_device(f));
		else
			assert_int_equal(machine_reset(f->m, NULL), 0);
		harness_firmware(f);
		machine_resume(f->m);
	}
	fake_machine_free(f);
}

static void check_removal(const struct device_class *cls)
{
	uint64_t s = seed_of(cls, 2);

	for (unsigned i = 0; i < 100 && cls != &harness_board; i++) {
		struct fake_machine *f = new_machine(cls);
		struct harness_range before[64], after[64];
		unsigned n, m;

		wiggle(f, &s, next_random(&s) % 200);
		device_free(harness_device(f));
		assert_null(harness_device(f));
		n = harness_ranges(f, before, 64);
		wiggle(f, &s, 100);
		m = harness_ranges(f, after, 64);
		/* What is left is the bridge's. */
		assert_true(n <= 4 && m <= 4);
		assert_int_equal(fake_in(f, 0x9f0, 1), 0xff);
		fake_machine_free(f);
	}
}

/* ---- State --------------------------------------------------------------- */

static void save(struct fake_machine *f, struct state_buf *b)
{
	struct err err = ERR_INIT;

	memset(b, 0, sizeof(*b));
	machine_pause(f->m);
	if (machine_save(f->m, b, &err))
		fail_msg("%s", err_msg(&err));
}

/* Most of the RAM was never touched. */
static void copy_ram(struct machine *from, struct machine *to)
{
	off_t at = 0, end;

	while ((at = lseek(from->ram_fd, at, SEEK_DATA)) >= 0) {
		end = lseek(from->ram_fd, at, SEEK_HOLE);
		memcpy(to->ram + at, from->ram + at, end - at);
		at = end;
	}
}

/* Another machine with the same RAM, at the same time of day. */
static struct fake_machine *twin_of(struct fake_machine *f, const struct device_class *cls)
{
	uint64_t real = fake_realtime_ns;
	struct fake_machine *g = new_machine(cls);

	fake_realtime_ns = real;
	copy_ram(f->m, g->m);
	return g;
}

/* Devices whose registers depend on nothing but what the guest did and when. */
static bool deterministic(const struct device_class *cls)
{
	/* These have threads of their own. */
	return strncmp(cls->name, "virtio", 6) && strncmp(cls->name, "vhost", 5) && strncmp(cls->name, "scsi", 4);
}

/* The same accesses at the same times read the same. */
static void compare_future(struct fake_machine *f, struct fake_machine *g, uint64_t s)
{
	uint64_t t = s, real;

	for (unsigned i = 0; i < 50; i++) {
		uint64_t a = harness_access(f, next_random, &s), b = harness_access(g, next_random, &t);

		if (a != b)
			fail_msg("read %u after the load gives 0x%llx instead of 0x%llx", i, (unsigned long long)b,
				 (unsigned long long)a);
		real = fake_realtime_ns;
		some_time(f, next_random(&s));
		fake_realtime_ns = real;
		some_time(g, next_random(&t));
	}
	assert_int_equal(f->engine->extint, g->engine->extint);
}

static void check_state(const struct device_class *cls)
{
	struct fake_machine *f = new_machine(cls);
	uint64_t s = seed_of(cls, 3);

	for (unsigned i = 0; i < 200; i++) {
		struct state_buf a, b;
		struct fake_machine *g;
		struct err err = ERR_INIT;

		wiggle(f, &s, next_random(&s) % 400);
		save(f, &a);
		g = twin_of(f, cls);
		machine_pause(g->m);
		if (machine_load(g->m, a.data, a.len, &err))
			fail_msg("%s", err_msg(&err));
		save(g, &b);
		if (a.len != b.len || memcmp(a.data, b.data, a.len)) {
			harness_describe(&a, &b);
			fail_msg("%s: a loaded device saves something else (round %u)", cls->name, i);
		}
		machine_resume(f->m);
		machine_resume(g->m);
		if (deterministic(cls))
			compare_future(f, g, next_random(&s));
		/* Loading over a device that was in use is the same as into a fresh one. */
		if (i % 4 == 0) {
			wiggle(g, &s, 100);
			state_buf_free(&b);
			machine_pause(g->m);
			assert_int_equal(machine_reset(g->m, NULL), 0);
			assert_int_equal(machine_load(g->m, a.data, a.len, NULL), 0);
			save(g, &b);
			if (a.len != b.len || memcmp(a.data, b.data, a.len)) {
				harness_describe(&a, &b);
				fail_msg("%s: a load over a used device saves something else (round %u)", cls->name, i);
			}
		}
		fake_machine_free(g);
		state_buf_free(&a);
		state_buf_free(&b);
	}
	fake_machine_free(f);
}

static void mutate(struct state_buf *b, uint64_t *s)
{
	unsigned n = 1 + next_random(s) % 8;
	uint64_t r;

	while (n--) {
		r = next_random(s);
		if (r % 8 == 0)
			b->data[(r >> 8) % b->len] ^= 1 << (r >> 4 & 7);
		else if (r % 8 < 4)
			b->data[(r >> 8) % b->len] = r >> 40;
		else
			memset(b->data + (r >> 8) % b->len, r & 16 ? 0xff : 0,
			       1 + (r >> 40) % (b->len - (r >> 8) % b->len < 8 ? b->len - (r >> 8) % b->len : 8));
	}
}

static void check_bad_state(const struct device_class *cls)
{
	struct fake_machine *f = new_machine(cls);
	uint64_t s = seed_of(cls, 4);

	for (unsigned i = 0; i < 300; i++) {
		struct fake_machine *g;
		struct err err = ERR_INIT;
		struct state_buf a, b;
		int ret;

		if (i % 10 == 0)
			wiggle(f, &s, 200);
		save(f, &a);
		machine_resume(f->m);
		g = twin_of(f, cls);
		machine_pause(g->m);
		if (i % 4 == 0)
			a.len = next_random(&s) % a.len;
		else
			mutate(&a, &s);
		ret = machine_load(g->m, a.data, a.len, &err);
		if (ret)
			assert_true(*err.msg);
		/* Whatever it is now, it is safe. The clock may be anywhere: don't let it run over. */
		vclock_set(g->m->clock, vclock_now(g->m->clock) >> 2);
		machine_resume(g->m);
		wiggle(g, &s, 100);
		save(g, &b);
		assert_int_equal(machine_reset(g->m, NULL), 0);
		machine_resume(g->m);
		wiggle(g, &s, 50);
		fake_machine_free(g);
		state_buf_free(&a);
		state_buf_free(&b);
	}
	fake_machine_free(f);
}

/* ---- Two vCPUs ----------------------------------------------------------- */

struct hammer {
	struct fake_machine *f;
	uint64_t seed;
	unsigned n;
};

static void *hammer(void *opaque)
{
	struct hammer *h = opaque;

	for (unsigned i = 0; i < h->n; i++)
		harness_access(h->f, next_random, &h->seed);
	return NULL;
}

static void check_threads(const struct device_class *cls)
{
	struct fake_machine *f = new_machine(cls);
	struct hammer h[2] = { { f, seed_of(cls, 5), accesses / 10 }, { f, seed_of(cls, 6), accesses / 10 } };
	pthread_t thread[2];
	uint64_t s = seed_of(cls, 7);

	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, hammer, &h[i]), 0);
	for (unsigned i = 0; i < 100; i++) {
		fake_machine_loop(f);
		harness_peers(f, next_random(&s));
		fake_machine_advance(f, next_random(&s) % 1000000);
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	fake_machine_free(f);
}

/* ---- All classes --------------------------------------------------------- */

struct check {
	const char *name;
	void (*run)(const struct device_class *cls);
};
static const struct check checks[] = {
	{ "garbage", check_garbage }, { "removal", check_removal }, { "state", check_state },
	{ "bad state", check_bad_state }, { "threads", check_threads },
};
#define CHECKS (sizeof(checks) / sizeof(checks[0]))

struct one {
	const struct device_class *cls;
	const struct check *check;
};

static void run_one(void **state)
{
	struct one *o = *state;

	o->check->run(o->cls);
}

/* A device that keeps nothing says so, one that keeps something has a table. */
static void test_records(void **state)
{
	const struct device_class *cls;

	for (unsigned i = 0; (cls = device_class_at(i)); i++) {
		assert_ptr_equal(device_class_find(cls->name), cls);
		assert_true(cls->description && *cls->description);
		assert_true(cls->size >= sizeof(struct device));
		assert_non_null(cls->unrealize);
		if (cls->state)
			assert_true(cls->state->version >= 1);
	}
	assert_null(device_class_find("no such class"));
}

int main(void)
{
	const char *only = getenv("KEEL_CLASS");
	static struct one ones[128 * CHECKS];
	static struct CMUnitTest tests[128 * CHECKS + 1];
	static char names[128 * CHECKS][64];
	unsigned n = 0;
	const struct device_class *cls;

	if (getenv("KEEL_SEED"))
		seed = strtoull(getenv("KEEL_SEED"), NULL, 0);
	if (getenv("KEEL_ACCESSES"))
		accesses = strtoul(getenv("KEEL_ACCESSES"), NULL, 0);
	log_set_level(LOG_ERROR); /* guests do wrong all the time here */
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_records);
	for (unsigned i = 0; (cls = i ? device_class_at(i - 1) : &harness_board); i++) {
		if (only && strcmp(only, cls->name))
			continue;
		for (unsigned c = 0; c < CHECKS; c++) {
			snprintf(names[n], sizeof(names[n]), "%s: %s", cls->name, checks[c].name);
			ones[n] = (struct one){ cls, &checks[c] };
			tests[n] = (struct CMUnitTest){ .name = names[n], .test_func = run_one,
							.initial_state = &ones[n] };
			n++;
		}
	}
	return _cmocka_run_group_tests("conformance", tests, n, NULL, NULL);
}
