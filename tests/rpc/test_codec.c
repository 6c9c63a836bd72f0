/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rpc/access.h"
#include "rpc/error.h"
#include "wire_random.h"

#define ROUNDS 30

/* Random record, encoded, decoded: equal; encoded again: the same bytes; one byte short or too many: refused. */
static void every_type_goes_round(void **state)
{
	for (unsigned t = 0; wire_types[t]; t++) {
		const struct wire_type *type = wire_types[t];

		for (unsigned round = 0; round < ROUNDS; round++) {
			struct arena arena = { 0 };
			struct xdr_writer w = xdr_writer(1u << 20), again = xdr_writer(1u << 20);
			struct xdr_reader r;
			uint8_t *copy;
			void *a = arena_alloc(&arena, type->size), *b = arena_alloc(&arena, type->size);

			wire_randomize(type, a, &arena, round ? 4 : 0);
			if (!wire_encode(type, &w, a))
				fail_msg("%s cannot be encoded", type->name);
			if (w.len < type->wire_min)
				fail_msg("%s has %zu bytes, fewer than its least", type->name, w.len);
			r = xdr_reader(w.data, w.len);
			if (!wire_decode(type, &r, b, &arena) || !wire_equal(type, a, b))
				fail_msg("%s does not come back", type->name);
			assert_true(wire_encode(type, &again, b));
			assert_int_equal(again.len, w.len);
			assert_memory_equal(again.data, w.data, w.len);
			/* Exact heap copies: a sanitizer sees a read too far. */
			for (size_t len = 0; len < w.len; len++) {
				copy = malloc(len ? len : 1);
				memcpy(copy, w.data, len);
				r = xdr_reader(copy, len);
				memset(b, 0, type->size);
				if (wire_decode(type, &r, b, &arena))
					fail_msg("%s decodes from %zu of %zu bytes", type->name, len, w.len);
				free(copy);
			}
			xdr_put_u32(&w, 0);
			r = xdr_reader(w.data, w.len);
			memset(b, 0, type->size);
			assert_false(wire_decode(type, &r, b, &arena));
			xdr_writer_free(&w);
			xdr_writer_free(&again);
			arena_free(&arena);
		}
	}
}

static void the_table_is_whole(void **state)
{
	unsigned calls = 0, events = 0;

	for (unsigned p = 0; rpc_programs[p]; p++)
		for (uint32_t n = 0; n < rpc_programs[p]->nprocs; n++) {
			const struct rpc_proc *proc = rpc_proc_find(rpc_programs[p], n);

			if (!proc)
				continue;
			assert_int_equal(proc->number, n);
			assert_ptr_equal(proc->program, rpc_programs[p]);
			if (proc->is_event)
				events++;
			else
				calls++;
		}
	/* As counted in the reference table: 451 in all. */
	assert_int_equal(calls, 399);
	assert_int_equal(events, 52);
	assert_null(rpc_proc_find(&remote_program, 0));
	assert_null(rpc_proc_find(&remote_program, 444));
	assert_null(rpc_proc_find(&remote_program, UINT32_MAX));
	assert_null(rpc_program_find(0x20008085));
	assert_ptr_equal(rpc_program_find(0x20008087), &qemu_program);
}

static void names_of_functions(void **state)
{
	static const struct {
		uint32_t number;
		const char *name;
	} known[] = {
		{ REMOTE_PROC_DOMAIN_GET_XML_DESC, "virDomainGetXMLDesc" },
		{ REMOTE_PROC_DOMAIN_SET_VCPUS_FLAGS, "virDomainSetVcpusFlags" },
		{ REMOTE_PROC_NODE_GET_CPU_STATS, "virNodeGetCPUStats" },
		{ REMOTE_PROC_DOMAIN_INJECT_NMI, "virDomainInjectNMI" },
		{ REMOTE_PROC_DOMAIN_GET_OS_TYPE, "virDomainGetOSType" },
		{ REMOTE_PROC_NETWORK_GET_DHCP_LEASES, "virNetworkGetDHCPLeases" },
		{ REMOTE_PROC_NWFILTER_DEFINE_XML, "virNWFilterDefineXML" },
		{ REMOTE_PROC_DOMAIN_FSTRIM, "virDomainFSTrim" },
	};

	for (unsigned n = 0; n < sizeof(known) / sizeof(known[0]); n++)
		assert_string_equal(rpc_proc_find(&remote_program, known[n].number)->function, known[n].name);
}

/* DOMAIN_LOOKUP_BY_NAME's argument, and a domain as it comes back. */
static void layout_of_a_domain(void **state)
{
	static const uint8_t bytes[] = {
		0, 0, 0, 4,  't', 'e', 's', 't', 1,  2,	 3,    4,    5,	   6,
		7, 8, 9, 10, 11,  12,  13,  14,	 15, 16, 0xff, 0xff, 0xff, 0xff,
	};
	struct remote_domain d = { .name = "test",
				   .uuid = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 },
				   .id = -1 };
	struct xdr_writer w = xdr_writer(100);

	assert_true(wire_encode(&wire_remote_domain, &w, &d));
	assert_int_equal(w.len, sizeof(bytes));
	assert_memory_equal(w.data, bytes, sizeof(bytes));
	xdr_writer_free(&w);
}

static void layout_of_a_typed_parameter(void **state)
{
	static const uint8_t bytes[] = { 0, 0, 0, 2, 'o', 'n', 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 1, 0 };
	struct remote_typed_param p = { .field = "on", .value = { .type = 4, .u.ul = 256 } };
	struct xdr_writer w = xdr_writer(100);

	assert_true(wire_encode(&wire_remote_typed_param, &w, &p));
	assert_int_equal(w.len, sizeof(bytes));
	assert_memory_equal(w.data, bytes, sizeof(bytes));
	w.data[11] = 8; /* no such type of value */
	struct xdr_reader r = xdr_reader(w.data, w.len);
	struct arena arena = { 0 };
	struct remote_typed_param out = { 0 };

	assert_false(wire_decode(&wire_remote_typed_param, &r, &out, &arena));
	arena_free(&arena);
	xdr_writer_free(&w);
}

/* A char is a word of its own on the wire: NODE_GET_INFO's char[32] has 128 bytes. */
static void layout_of_node_info(void **state)
{
	struct remote_node_get_info_ret info = { .model = "x86_64", .memory = 1, .threads = 2 };
	struct xdr_writer w = xdr_writer(1000);

	assert_true(wire_encode(&wire_remote_node_get_info_ret, &w, &info));
	assert_int_equal(w.len, 128 + 8 + 6 * 4);
	assert_memory_equal(w.data,
			    "\0\0\0x\0\0\0"
			    "8\0\0\0"
			    "6\0\0\0_",
			    16);
	xdr_writer_free(&w);
}

static void refuses(const struct wire_type *type, const void *data, size_t len)
{
	struct arena arena = { .max = 1u << 20 };
	uint8_t *copy = malloc(len);
	void *obj = calloc(1, type->size);
	struct xdr_reader r;

	memcpy(copy, data, len);
	r = xdr_reader(copy, len);
	assert_false(wire_decode(type, &r, obj, &arena));
	assert_true(arena.used <= 4096); /* nothing for what isn't there */
	arena_free(&arena);
	free(obj);
	free(copy);
}

static void bounds(void **state)
{
	uint8_t data[64] = { 0 };
	struct remote_domain_pin_vcpu_args pin = { .dom = { .name = "a" }, .cpumap_len = 2049 };
	struct remote_connect_open_args open = { 0 };
	struct xdr_writer w = xdr_writer(1u << 24);
	uint8_t map[2049] = { 0 };
	char *big;

	/* A promise of 16,384 names in 60 bytes, one of more than the bound, and one of 2^32 - 1. */
	be32_store(data, 16384);
	refuses(&wire_remote_connect_list_networks_ret, data, sizeof(data));
	be32_store(data, 16385);
	refuses(&wire_remote_connect_list_networks_ret, data, sizeof(data));
	be32_store(data, UINT32_MAX);
	refuses(&wire_remote_connect_list_networks_ret, data, sizeof(data));
	/* A string with a NUL inside; a flag that is neither 0 nor 1. */
	refuses(&wire_remote_domain_lookup_by_name_args, "\0\0\0\4a\0b", 8);
	refuses(&wire_remote_connect_open_args, "\0\0\0\2\0\0\0\0", 8);
	/* A ushort of 65536. */
	memset(data, 0, sizeof(data));
	data[20 + 1] = 1;
	refuses(&wire_remote_domain_get_info_ret, data, 32);
	/* What is too long is not sent either. */
	pin.cpumap = map;
	assert_false(wire_encode(&wire_remote_domain_pin_vcpu_args, &w, &pin));
	xdr_writer_free(&w);
	big = malloc(WIRE_STRING_MAX + 2);
	memset(big, 'x', WIRE_STRING_MAX + 1);
	big[WIRE_STRING_MAX + 1] = 0;
	open.name = big;
	w = xdr_writer(1u << 24);
	assert_false(wire_encode(&wire_remote_connect_open_args, &w, &open));
	xdr_writer_free(&w);
	big[WIRE_STRING_MAX] = 0;
	w = xdr_writer(1u << 24);
	assert_true(wire_encode(&wire_remote_connect_open_args, &w, &open));
	free(big);
	/* Four bytes more than it may have, all of them there. */
	be32_store(w.data + 4, WIRE_STRING_MAX + 4);
	refuses(&wire_remote_connect_open_args, w.data, w.len);
	xdr_writer_free(&w);
	/* A string that must be there is not. */
	w = xdr_writer(100);
	assert_false(wire_encode(&wire_remote_domain_lookup_by_name_args, &w,
				 &(struct remote_domain_lookup_by_name_args){ 0 }));
	xdr_writer_free(&w);
}

static void memory_limit(void **state)
{
	struct arena arena = { .max = 4096 };
	uint8_t data[4 + 4 * 1000] = { 0 };
	struct remote_connect_list_networks_ret out = { 0 };
	struct xdr_reader r = xdr_reader(data, sizeof(data));

	be32_store(data, 1000); /* a thousand empty strings want more than the limit */
	assert_false(wire_decode(&wire_remote_connect_list_networks_ret, &r, &out, &arena));
	assert_true(arena.used <= 4096);
	arena_free(&arena);
}

static void errors_in_libvirts_layout(void **state)
{
	struct rpc_error e = { 0 }, back = { 0 };
	struct remote_error w;

	assert_int_equal(rpc_error_set(&e, VIR_FROM_REMOTE, VIR_ERR_NO_SUPPORT, "%s", "virDomainReset"), -1);
	w = rpc_error_to_wire(&e);
	assert_int_equal(w.code, 3);
	assert_int_equal(w.domain, 13);
	assert_int_equal(w.level, 2);
	assert_string_equal(w.message, "this function is not supported by the connection driver: virDomainReset");
	assert_string_equal(w.str1, "this function is not supported by the connection driver: %s");
	assert_string_equal(w.str2, "virDomainReset");
	assert_null(w.str3);
	rpc_error_from_wire(&back, &w);
	assert_string_equal(back.message, e.message);
	assert_int_equal(back.code, 3);
}

static bool readonly(uint32_t number, const void *args)
{
	return rpc_access_readonly(rpc_proc_find(&remote_program, number), args);
}

static void read_only_may_look_but_not_touch(void **state)
{
	struct remote_domain_get_xml_desc_args xml = { .flags = 0 };
	struct remote_domain_interface_addresses_args addresses = { .source = 0 };

	assert_true(readonly(REMOTE_PROC_CONNECT_GET_VERSION, NULL));
	assert_true(
		readonly(REMOTE_PROC_CONNECT_LIST_ALL_DOMAINS, &(struct remote_connect_list_all_domains_args){ 0 }));
	assert_false(readonly(REMOTE_PROC_DOMAIN_DESTROY, &(struct remote_domain_destroy_args){ 0 }));
	assert_false(readonly(REMOTE_PROC_DOMAIN_SET_SCHEDULER_PARAMETERS,
			      &(struct remote_domain_set_scheduler_parameters_args){ 0 }));
	assert_false(readonly(REMOTE_PROC_DOMAIN_OPEN_CONSOLE, &(struct remote_domain_open_console_args){ 0 }));
	assert_true(readonly(REMOTE_PROC_DOMAIN_GET_XML_DESC, &xml));
	xml.flags = 1; /* VIR_DOMAIN_XML_SECURE: passwords */
	assert_false(readonly(REMOTE_PROC_DOMAIN_GET_XML_DESC, &xml));
	assert_true(readonly(REMOTE_PROC_DOMAIN_INTERFACE_ADDRESSES, &addresses));
	addresses.source = 1; /* the guest agent */
	assert_false(readonly(REMOTE_PROC_DOMAIN_INTERFACE_ADDRESSES, &addresses));
	addresses.source = 2;
	assert_true(readonly(REMOTE_PROC_DOMAIN_INTERFACE_ADDRESSES, &addresses));
}

/* No procedure that is refused hangs on such a rule alone, so here is one that does. */
static void rules_with_conditions(void **state)
{
	static struct rpc_rule rule = {
		.object = "domain", .permission = "save", .when = RPC_WHEN_NONE, .offset = 4, .value = 3
	};
	static const struct rpc_proc proc = { .name = "X", .program = &remote_program, .rules = &rule, .nrules = 1 };
	uint32_t args[2] = { 0, 0 };

	assert_false(rpc_access_readonly(&proc, args));
	args[1] = 4;
	assert_false(rpc_access_readonly(&proc, args));
	args[1] = 6;
	assert_true(rpc_access_readonly(&proc, args));
	rule.when = RPC_WHEN_ANY;
	assert_false(rpc_access_readonly(&proc, args));
	args[1] = 4;
	assert_true(rpc_access_readonly(&proc, args));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_type_goes_round),
		cmocka_unit_test(the_table_is_whole),
		cmocka_unit_test(names_of_functions),
		cmocka_unit_test(layout_of_a_domain),
		cmocka_unit_test(layout_of_a_typed_parameter),
		cmocka_unit_test(layout_of_node_info),
		cmocka_unit_test(bounds),
		cmocka_unit_test(memory_limit),
		cmocka_unit_test(errors_in_libvirts_layout),
		cmocka_unit_test(read_only_may_look_but_not_touch),
		cmocka_unit_test(rules_with_conditions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
