/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "machine/clock.h"
#include "machine/state.h"

struct inner {
	uint16_t x;
	bool on;
};
struct thing {
	uint8_t a;
	uint32_t b[3];
	uint64_t c;
	char bytes[5];
	struct inner in[2];
	struct vtimer *timer;
	uint8_t *queue;
	uint32_t queue_len;
	uint32_t derived;
	uint32_t late;
};

static const struct state_field inner_fields[] = {
	STATE_FIELD_U16(struct inner, x), STATE_FIELD_BOOL(struct inner, on), STATE_END,
};
static const struct state_desc inner_desc = { .name = "inner", .version = 1, .fields = inner_fields };

static int thing_post_load(void *obj, struct err *err)
{
	struct thing *t = obj;

	if (t->a == 99)
		return err_set(err, 22, "a must not be 99");
	t->derived = t->a * 2;
	return 0;
}

#define THING_FIELDS                                                                                                          \
	{ .name = "a", .type = STATE_U8, .since = 1, .offset = offsetof(struct thing, a), .count = 1, .size = 1, .max = 100 }, \
		STATE_ARRAY_U32(struct thing, b), STATE_FIELD_U64(struct thing, c), STATE_FIELD_BYTES(struct thing, bytes),   \
		STATE_ARRAY_STRUCT(struct thing, in, &inner_desc), STATE_FIELD_TIMER(struct thing, timer),                    \
		{ .name = "queue", .type = STATE_VAR_U8, .since = 1, .offset = offsetof(struct thing, queue), .size = 8,      \
		  .len_offset = offsetof(struct thing, queue_len) }

static const struct state_field fields1[] = { THING_FIELDS, STATE_END };
static const struct state_field fields2[] = {
	THING_FIELDS,
	{ .name = "late", .type = STATE_U32, .since = 2, .offset = offsetof(struct thing, late), .count = 1, .size = 4 },
	STATE_END,
};
static const struct state_desc desc1 = { "thing", 1, fields1, NULL, thing_post_load },
			       desc2 = { "thing", 2, fields2, NULL, thing_post_load };

static void never(void *opaque)
{
}

static void fill(struct thing *t)
{
	*t = (struct thing){ .a = 42, .b = { 1, 2, 0xfffffffe }, .c = 0x1122334455667788, .bytes = "abcd",
			     .in = { { 7, true }, { 8, false } }, .timer = t->timer, .queue = t->queue, .queue_len = 3 };
	memcpy(t->queue, "xyz", 3);
}

struct env {
	struct loop *loop;
	struct vclock *clock;
	struct thing from, to;
};

static int setup(void **state)
{
	struct env *e = calloc(1, sizeof(*e));

	e->loop = loop_new(NULL);
	e->clock = vclock_new(e->loop);
	e->from.timer = vtimer_new(e->clock, never, NULL);
	e->to.timer = vtimer_new(e->clock, never, NULL);
	e->from.queue = calloc(1, 8);
	e->to.queue = calloc(1, 8);
	fill(&e->from);
	vtimer_arm(e->from.timer, 12345);
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	free(e->from.queue);
	free(e->to.queue);
	vclock_free(e->clock);
	loop_free(e->loop);
	free(e);
	return 0;
}

static void test_round_trip(void **state)
{
	struct env *e = *state;
	struct state_buf b = { 0 };
	struct state_reader r = { 0 };

	assert_int_equal(state_save(&b, "thing0", &desc1, &e->from, NULL), 0);
	assert_int_equal(state_save(&b, "thing1", &desc1, &e->from, NULL), 0);
	r.data = b.data;
	r.len = b.len;
	assert_int_equal(state_next(&r, NULL), 1);
	assert_string_equal(r.id, "thing0");
	assert_int_equal(state_load(&r, &desc1, &e->to, NULL), 0);
	assert_int_equal(e->to.a, 42);
	assert_memory_equal(e->to.b, e->from.b, sizeof(e->to.b));
	assert_int_equal(e->to.c, 0x1122334455667788);
	assert_string_equal(e->to.bytes, "abcd");
	assert_int_equal(e->to.in[0].x, 7);
	assert_true(e->to.in[0].on);
	assert_int_equal(e->to.in[1].x, 8);
	assert_int_equal(vtimer_deadline(e->to.timer), 12345);
	assert_int_equal(e->to.queue_len, 3);
	assert_memory_equal(e->to.queue, "xyz", 3);
	assert_int_equal(e->to.derived, 84);
	assert_int_equal(state_next(&r, NULL), 1);
	assert_string_equal(r.id, "thing1");
	assert_int_equal(state_next(&r, NULL), 0);
	state_buf_free(&b);
}

static void test_versions(void **state)
{
	struct env *e = *state;
	struct state_buf b = { 0 };
	struct state_reader r = { 0 };
	struct err err = ERR_INIT;

	/* Old state into a new table: the field keeps its reset value. */
	state_save(&b, "t", &desc1, &e->from, NULL);
	r.data = b.data;
	r.len = b.len;
	state_next(&r, NULL);
	e->to.late = 77;
	assert_int_equal(state_load(&r, &desc2, &e->to, NULL), 0);
	assert_int_equal(e->to.late, 77);
	state_buf_free(&b);
	/* New state into an old table is refused. */
	state_save(&b, "t", &desc2, &e->from, NULL);
	r = (struct state_reader){ .data = b.data, .len = b.len };
	state_next(&r, NULL);
	assert_int_equal(state_load(&r, &desc1, &e->to, &err), -22);
	assert_non_null(strstr(err.msg, "version 2"));
	state_buf_free(&b);
}

/* Position of a field's value: the header has 140 bytes. */
#define HEADER 140

static void check_refused(struct env *e, struct state_buf *b, const char *word)
{
	struct state_reader r = { .data = b->data, .len = b->len };
	struct err err = ERR_INIT;
	int ret = state_next(&r, &err);

	if (ret == 1)
		ret = state_load(&r, &desc1, &e->to, &err);
	assert_int_equal(ret, -22);
	if (!strstr(err.msg, word))
		fail_msg("'%s' lacks '%s'", err.msg, word);
}

static void test_lies(void **state)
{
	struct env *e = *state;
	struct state_buf b = { 0 };
	uint32_t n;

	state_save(&b, "t", &desc1, &e->from, NULL);
	b.data[HEADER] = 101;
	check_refused(e, &b, "field a");
	b.data[HEADER] = 99;
	check_refused(e, &b, "must not be 99");
	b.data[HEADER] = 42;
	b.data[HEADER + 1 + 12 + 8 + 5 + 2] = 2; /* a bool */
	check_refused(e, &b, "field on");
	b.data[HEADER + 1 + 12 + 8 + 5 + 2] = 1;
	n = 9; /* the queue's length */
	memcpy(b.data + HEADER + 1 + 12 + 8 + 5 + 6 + 8, &n, 4);
	check_refused(e, &b, "queue");
	state_buf_free(&b);
}

static void test_every_truncation_and_flip_is_safe(void **state)
{
	struct env *e = *state;
	struct state_buf b = { 0 };

	state_save(&b, "t", &desc1, &e->from, NULL);
	for (size_t len = 0; len < b.len; len++) {
		struct state_reader r = { .data = b.data, .len = len };

		if (state_next(&r, NULL) == 1)
			assert_int_equal(state_load(&r, &desc1, &e->to, NULL), -22);
	}
	for (size_t i = 0; i < b.len * 8; i++) {
		struct state_reader r = { .data = b.data, .len = b.len };

		b.data[i / 8] ^= 1 << (i % 8);
		while (state_next(&r, NULL) == 1)
			state_load(&r, &desc1, &e->to, NULL);
		assert_true(e->to.queue_len <= 8);
		b.data[i / 8] ^= 1 << (i % 8);
	}
	state_buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_versions, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_every_truncation_and_flip_is_safe, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
