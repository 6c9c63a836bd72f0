/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/xdr.h"

/* RFC 4506 §4.1, §4.5, §4.9: big-endian words, padded to four bytes. */
static void writes_what_the_rfc_says(void **state)
{
	static const uint8_t expected[] = {
		0xff, 0xff, 0xff, 0xfe,								/* -2 */
		0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08,					/* hyper */
		0x00, 0x00, 0x00, 0x05, 'h',  'e',  'l',  'l',	'o', 0, 0, 0, 'a', 'b', 'c', 0, /* fixed, three bytes */
		0x00, 0x00, 0x00, 0x00,
	};
	struct xdr_writer w = xdr_writer(1000);

	xdr_put_u32(&w, (uint32_t)-2);
	xdr_put_u64(&w, 0x0102030405060708);
	xdr_put_opaque(&w, "hello", 5);
	xdr_put_fixed(&w, "abc", 3);
	xdr_put_opaque(&w, NULL, 0);
	assert_false(w.failed);
	assert_int_equal(w.len, sizeof(expected));
	assert_memory_equal(w.data, expected, sizeof(expected));
	xdr_writer_free(&w);
}

static void reads_it_back(void **state)
{
	static const uint8_t data[] = {
		0x80, 0, 0, 1, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10, 0, 0,
		0,    1, 0, 0, 0,    2,	   'x',	 'y',  0,    0,	   'z',	 0,    0, 0,
	};
	struct xdr_reader r = xdr_reader(data, sizeof(data));
	size_t len;

	assert_true(xdr_get_u32(&r) == 0x80000001);
	assert_true(xdr_get_u64(&r) == 0xfedcba9876543210);
	assert_true(xdr_get_bool(&r));
	assert_memory_equal(xdr_get_opaque(&r, 2, &len), "xy", 2);
	assert_int_equal(len, 2);
	assert_memory_equal(xdr_get_fixed(&r, 1), "z", 1);
	assert_false(r.failed);
	assert_int_equal(xdr_left(&r), 0);
}

static void short_reads_fail_and_stay_failed(void **state)
{
	static const uint8_t data[8] = { 0, 0, 0, 9, 1, 2, 3, 4 };
	struct xdr_reader r;
	size_t len;

	for (size_t n = 0; n < 4; n++) {
		r = xdr_reader(data, n);
		assert_int_equal(xdr_get_u32(&r), 0);
		assert_true(r.failed);
	}
	for (size_t n = 0; n < 8; n++) {
		r = xdr_reader(data, n);
		assert_true(xdr_get_u64(&r) == 0);
		assert_true(r.failed);
	}
	r = xdr_reader(data, 8); /* nine bytes promised, four there */
	assert_null(xdr_get_opaque(&r, 100, &len));
	assert_int_equal(len, 0);
	assert_true(r.failed);
	r.p = data; /* even with bytes left */
	assert_int_equal(xdr_get_u32(&r), 0);
}

static void bad_items_fail(void **state)
{
	static const uint8_t two[4] = { 0, 0, 0, 2 }, padded[8] = { 0, 0, 0, 1, 'a', 0, 0, 7 };
	static const uint8_t huge[8] = { 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0 };
	struct xdr_reader r = xdr_reader(two, 4);
	size_t len;

	assert_false(xdr_get_bool(&r));
	assert_true(r.failed);
	r = xdr_reader(padded, 8); /* padding that is not zero */
	assert_null(xdr_get_opaque(&r, 100, &len));
	r = xdr_reader(huge, 8);
	assert_null(xdr_get_opaque(&r, SIZE_MAX, &len));
	r = xdr_reader(padded, 5); /* the padding is missing */
	assert_null(xdr_get_opaque(&r, 100, &len));
	r = xdr_reader(padded, 8); /* longer than its bound */
	assert_null(xdr_get_opaque(&r, 0, &len));
	assert_true(r.failed);
}

static void writer_keeps_its_bound(void **state)
{
	struct xdr_writer w = xdr_writer(12);

	xdr_put_opaque(&w, "12345", 5);
	assert_false(w.failed);
	assert_int_equal(w.len, 12);
	xdr_put_u32(&w, 1);
	assert_true(w.failed);
	assert_int_equal(w.len, 12);
	xdr_writer_free(&w);
	w = xdr_writer(8);
	xdr_put_fixed(&w, "123456789", 9);
	assert_true(w.failed);
	xdr_writer_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writes_what_the_rfc_says),	    cmocka_unit_test(reads_it_back),
		cmocka_unit_test(short_reads_fail_and_stay_failed), cmocka_unit_test(bad_items_fail),
		cmocka_unit_test(writer_keeps_its_bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
