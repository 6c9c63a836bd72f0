/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/frame.h"

/* What stock virsh 9.0.0 sends first: AUTH_LIST (procedure 66 of program 0x20008086), serial 0, no payload. */
static const uint8_t auth_list[28] = {
	0, 0, 0, 28, 0x20, 0, 0x80, 0x86, 0, 0, 0, 1, 0, 0, 0, 66, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
};

static void put(uint8_t *p, unsigned word, uint32_t v)
{
	be32_store(p + 4 * word, v);
}

static void one_packet(void **state)
{
	struct rpc_frame f = { 0 };
	size_t used;

	assert_int_equal(rpc_frame_feed(&f, auth_list, 28, &used), RPC_FRAME_PACKET);
	assert_int_equal(used, 28);
	assert_true(f.header.program == 0x20008086);
	assert_int_equal(f.header.version, 1);
	assert_int_equal(f.header.procedure, 66);
	assert_int_equal(f.header.type, RPC_CALL);
	assert_int_equal(f.header.serial, 0);
	assert_int_equal(f.header.status, RPC_OK);
	assert_int_equal(f.payload_len, 0);
	rpc_frame_free(&f);
}

static void writes_the_same_bytes(void **state)
{
	struct rpc_header h = { .program = 0x20008086, .version = 1, .procedure = 66 };
	struct xdr_writer w = rpc_frame_writer();

	rpc_frame_begin(&w, &h, 0);
	assert_true(rpc_frame_end(&w));
	assert_int_equal(w.len, 28);
	assert_memory_equal(w.data, auth_list, 28);
	xdr_writer_free(&w);
}

static void byte_by_byte_and_run_together(void **state)
{
	uint8_t data[28 + 36 + 28];
	struct rpc_frame f = { 0 };
	unsigned packets = 0;
	size_t used, at;

	memcpy(data, auth_list, 28);
	memcpy(data + 28, auth_list, 28);
	put(data + 28, 0, 36);
	memcpy(data + 56, "PAYLOAD!", 8);
	memcpy(data + 64, auth_list, 28);
	for (at = 0; at < sizeof(data); at++) {
		enum rpc_frame_result r = rpc_frame_feed(&f, data + at, 1, &used);

		assert_int_equal(used, 1);
		assert_int_equal(r, at == 27 || at == 63 || at == 91 ? RPC_FRAME_PACKET : RPC_FRAME_MORE);
		if (at == 63) {
			assert_int_equal(f.payload_len, 8);
			assert_memory_equal(f.payload, "PAYLOAD!", 8);
		}
		if (r == RPC_FRAME_PACKET)
			rpc_frame_next(&f);
	}
	for (at = 0; at < sizeof(data); at += used) {
		assert_int_equal(rpc_frame_feed(&f, data + at, sizeof(data) - at, &used), RPC_FRAME_PACKET);
		packets++;
		rpc_frame_next(&f);
	}
	assert_int_equal(packets, 3);
	rpc_frame_free(&f);
}

static void bad_lengths(void **state)
{
	static const uint32_t bad[] = { 0, 1, 4, 27, 4 + (32u << 20) + 1, 0x7fffffff, 0x80000000, 0xffffffff };
	uint8_t data[4];
	size_t used;

	for (unsigned n = 0; n < sizeof(bad) / sizeof(bad[0]); n++) {
		struct rpc_frame f = { 0 };

		put(data, 0, bad[n]);
		assert_int_equal(rpc_frame_feed(&f, data, 4, &used), RPC_FRAME_BAD);
		rpc_frame_free(&f);
	}
}

static void bad_headers(void **state)
{
	uint8_t data[28];
	struct rpc_frame f = { 0 };
	size_t used;

	memcpy(data, auth_list, 28);
	put(data, 4, 7); /* no such type */
	assert_int_equal(rpc_frame_feed(&f, data, 28, &used), RPC_FRAME_BAD);
	rpc_frame_free(&f);
	put(data, 4, 0);
	put(data, 6, 3); /* no such status */
	assert_int_equal(rpc_frame_feed(&f, data, 28, &used), RPC_FRAME_BAD);
	rpc_frame_free(&f);
	put(data, 6, 0);
	put(data, 4, RPC_CALL_WITH_FDS); /* without their number */
	assert_int_equal(rpc_frame_feed(&f, data, 28, &used), RPC_FRAME_BAD);
	rpc_frame_free(&f);
}

static void a_giant_promise_takes_no_memory(void **state)
{
	uint8_t data[28];
	struct rpc_frame f = { 0 };
	size_t used;

	memcpy(data, auth_list, 28);
	put(data, 0, 4 + (32u << 20));
	assert_int_equal(rpc_frame_feed(&f, data, 28, &used), RPC_FRAME_MORE);
	assert_true(f.cap <= 4096);
	rpc_frame_free(&f);
}

static void the_largest_packet(void **state)
{
	size_t len = 4 + (32u << 20), used;
	uint8_t *data = calloc(1, len + 1);
	struct rpc_frame f = { 0 };

	assert_non_null(data);
	memcpy(data, auth_list, 28);
	put(data, 0, (uint32_t)len);
	data[len - 1] = 0x5a;
	assert_int_equal(rpc_frame_feed(&f, data, len + 1, &used), RPC_FRAME_PACKET);
	assert_int_equal(used, len);
	assert_int_equal(f.payload_len, (32u << 20) - 24);
	assert_int_equal(f.payload[f.payload_len - 1], 0x5a);
	rpc_frame_next(&f);
	assert_true(f.cap <= 4096); /* not kept */
	rpc_frame_free(&f);
	free(data);
}

static void writer_keeps_to_the_limit(void **state)
{
	struct rpc_header h = { .program = 0x20008086, .version = 1, .procedure = 66 };
	struct xdr_writer w = rpc_frame_writer();

	rpc_frame_begin(&w, &h, 0);
	assert_non_null(xdr_put_room(&w, (32u << 20) - 24));
	assert_true(rpc_frame_end(&w));
	xdr_put_u32(&w, 0);
	assert_false(rpc_frame_end(&w));
	xdr_writer_free(&w);
}

static void descriptors_have_bytes_of_their_own(void **state)
{
	uint8_t data[28 + 4 + 4 + 3];
	struct rpc_frame f = { 0 };
	size_t used;

	memset(data, 0, sizeof(data));
	memcpy(data, auth_list, 28);
	put(data, 0, 36);
	put(data, 4, RPC_CALL_WITH_FDS);
	put(data, 7, 3);
	memcpy(data + 32, "abcd", 4);
	assert_int_equal(rpc_frame_feed(&f, data, 36, &used), RPC_FRAME_MORE);
	assert_int_equal(used, 36);
	assert_true(rpc_frame_wants_fds(&f));
	assert_int_equal(rpc_frame_feed(&f, data + 36, 2, &used), RPC_FRAME_MORE);
	assert_int_equal(rpc_frame_feed(&f, data + 38, 1, &used), RPC_FRAME_PACKET);
	assert_int_equal(f.nfds, 3);
	assert_int_equal(f.payload_len, 4);
	assert_memory_equal(f.payload, "abcd", 4);
	rpc_frame_next(&f);
	put(data, 7, 33); /* too many */
	assert_int_equal(rpc_frame_feed(&f, data, 36, &used), RPC_FRAME_BAD);
	rpc_frame_free(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_packet),
		cmocka_unit_test(writes_the_same_bytes),
		cmocka_unit_test(byte_by_byte_and_run_together),
		cmocka_unit_test(bad_lengths),
		cmocka_unit_test(bad_headers),
		cmocka_unit_test(a_giant_promise_takes_no_memory),
		cmocka_unit_test(the_largest_packet),
		cmocka_unit_test(writer_keeps_to_the_limit),
		cmocka_unit_test(descriptors_have_bytes_of_their_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
