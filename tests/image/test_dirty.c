/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bits of dirty parts against an array of bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "image/dirty.h"

#define MOST (1u << 20)

static uint64_t seed = 11;

static uint32_t rnd(uint32_t n)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(seed >> 33) % n;
}

static void against_bytes(uint64_t size, unsigned granularity)
{
	uint8_t *model = calloc(1, size + 1);
	struct dirty d;

	assert_non_null(model);
	assert_int_equal(dirty_init(&d, size, granularity, NULL), 0);
	for (unsigned i = 0; i < 400; i++) {
		uint64_t offset = rnd(size + 10), len = rnd(rnd(2) ? 5000 : size), from = offset / granularity * granularity;
		uint64_t to = (offset + len + granularity - 1) / granularity * granularity, at = 0, n, want = 0;
		bool set = rnd(2), any = false;

		if (set)
			dirty_set(&d, offset, len);
		else
			dirty_clear(&d, offset, len);
		if (offset < size && len)
			memset(model + from, set, (to < size ? to : size) - from);
		/* What dirty_next() walks over is what is set, in one piece or in small ones. */
		for (uint64_t most = rnd(2) ? UINT64_MAX : 3000; dirty_next(&d, &at, &n, most); at += n) {
			for (; want < at; want++)
				assert_int_equal(model[want], 0);
			for (; want < at + n; want++)
				assert_int_equal(model[want], 1);
		}
		for (; want < size; want++)
			assert_int_equal(model[want], 0);
		offset = rnd(size);
		len = rnd(4000);
		for (uint64_t k = offset / granularity * granularity; k < size && k < offset + len; k++)
			any |= model[k];
		assert_int_equal(dirty_any(&d, offset, len), any && len);
	}
	dirty_clear(&d, 0, UINT64_MAX);
	assert_int_equal(d.count, 0);
	dirty_set(&d, 0, UINT64_MAX);
	assert_int_equal(d.count, d.nbits);
	dirty_free(&d);
	free(model);
}

static void test_bits(void **state)
{
	static const uint64_t sizes[] = { 1, 511, 512, 513, 65536, 100000, 262144 + 7 };

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (unsigned g = 512; g <= 65536; g *= 4)
			against_bytes(sizes[i], g);
}

static void test_refusals(void **state)
{
	struct dirty d;

	assert_true(dirty_init(&d, MOST, 256, NULL) < 0);
	assert_true(dirty_init(&d, MOST, 1000, NULL) < 0);
	assert_true(dirty_init(&d, 1ull << 62, 512, NULL) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_bits), cmocka_unit_test(test_refusals) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
