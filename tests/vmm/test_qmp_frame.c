/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/qmp_frame.h"

/* Feed `text` in pieces of `step` bytes; collect what comes out as "V:...|G|B". */
static void run(const char *text, size_t step, char *out)
{
	struct qmp_frame f = { 0 };
	size_t len = strlen(text), at = 0;

	*out = 0;
	while (at < len) {
		size_t n = len - at < step ? len - at : step, used;

		switch (qmp_frame_feed(&f, text + at, n, &used)) {
		case QMP_FRAME_VALUE:
			strcat(out, "V:");
			strncat(out, f.data, f.len);
			strcat(out, "|");
			qmp_frame_reset(&f);
			break;
		case QMP_FRAME_GARBAGE:
			strcat(out, "G|");
			qmp_frame_reset(&f);
			break;
		case QMP_FRAME_TOO_BIG:
			strcat(out, "B|");
			qmp_frame_free(&f);
			return;
		case QMP_FRAME_MORE:
			break;
		}
		assert_true(used > 0 && used <= n);
		at += used;
	}
	qmp_frame_free(&f);
}

static void test_frames(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{ "{\"a\":1}", "V:{\"a\":1}|" },
		{ " \r\n{\"a\":[1,{}]} {\"b\":2}\n", "V:{\"a\":[1,{}]}|V:{\"b\":2}|" },
		{ "{\"a\":\"}\\\"]{\"}", "V:{\"a\":\"}\\\"]{\"}|" },
		{ "{\"a\":\"\\\\\"}{}", "V:{\"a\":\"\\\\\"}|V:{}|" },
		{ "garbage\n{}", "G|V:{}|" },
		{ "]\n{}", "G|V:{}|" },
		{ "{]", "V:{]|" }, /* not JSON, which the parser will say */
		{ "{", "" },
	};
	char out[256];

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (size_t step = 1; step < 8; step++) {
			run(cases[i].in, step, out);
			assert_string_equal(out, cases[i].out);
		}
	}
}

static void test_bounds(void **state)
{
	struct qmp_frame f = { 0 };
	size_t used, len = QMP_MESSAGE_MAX + 10;
	char *text = malloc(len);

	memset(text, '{', 200);
	assert_int_equal(qmp_frame_feed(&f, text, 200, &used), QMP_FRAME_TOO_BIG);
	qmp_frame_free(&f);
	memset(text, 'a', len);
	text[0] = '{';
	assert_int_equal(qmp_frame_feed(&f, text, len, &used), QMP_FRAME_TOO_BIG);
	assert_true(f.room <= 2 * QMP_MESSAGE_MAX);
	qmp_frame_free(&f);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_frames), cmocka_unit_test(test_bounds) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
