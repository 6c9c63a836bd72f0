/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <unistd.h>

#include "rpc/access.h"
#include "rpc/wire.h"

#define PROC(name) rpc_proc_find(&remote_program, REMOTE_PROC_##name)

static struct rpc_access *load(const char *text, struct err *err)
{
	char path[] = "/tmp/keel-access-XXXXXX";
	int fd = mkstemp(path);
	struct rpc_access *a;

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	a = rpc_access_load(path, err);
	unlink(path);
	return a;
}

static struct rpc_access *good(const char *text)
{
	struct err err = ERR_INIT;
	struct rpc_access *a = load(text, &err);

	if (!a)
		fail_msg("%s", err_msg(&err));
	return a;
}

static const gid_t groups[] = { 7, 8 };
static const struct rpc_who root = { .transport = RPC_UNIX, .uid = 0, .gid = 0 };
static const struct rpc_who user = { .transport = RPC_UNIX, .uid = 1000, .gid = 1000, .groups = groups, .ngroups = 2 };
static const struct rpc_who tls = { .transport = RPC_TLS, .uid = (uid_t)-1, .gid = (gid_t)-1, .dn = "O=Keel Inc,CN=anna" };
static const struct rpc_who sasl = { .transport = RPC_TCP, .uid = (uid_t)-1, .gid = (gid_t)-1, .sasl = "fred" };

static void test_who(void **state)
{
	static const struct {
		const char *who;
		bool root, user, tls, sasl;
	} cases[] = {
		{ "*", true, true, true, true },
		{ "unix", true, true, false, false },
		{ "tls", false, false, true, false },
		{ "tcp", false, false, false, true },
		{ "uid:1000", false, true, false, false },
		{ "user:root", true, false, false, false },
		{ "gid:1000", false, true, false, false },
		{ "gid:8", false, true, false, false },
		{ "gid:9", false, false, false, false },
		{ "group:root", true, false, false, false },
		{ "gid:4294967294", false, false, false, false },
		{ "sasl:fr?d", false, false, false, true },
		{ "sasl:*", false, false, false, true },
		{ "\"dn:O=Keel Inc,*\"", false, false, true, false },
		{ "dn:\"O=Keel Inc,CN=anna\"", false, false, true, false },
		{ "dn:CN=anna", false, false, false, false },
	};

	for (unsigned n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
		struct rpc_access *a;
		char text[200];

		snprintf(text, sizeof(text), "allow %s domain:start\n", cases[n].who);
		a = good(text);
		assert_int_equal(rpc_access_may(a, &root, "domain", "start", "x"), cases[n].root);
		assert_int_equal(rpc_access_may(a, &user, "domain", "start", "x"), cases[n].user);
		assert_int_equal(rpc_access_may(a, &tls, "domain", "start", "x"), cases[n].tls);
		assert_int_equal(rpc_access_may(a, &sasl, "domain", "start", "x"), cases[n].sasl);
		assert_false(rpc_access_may(a, &root, "domain", "stop", "x"));
		rpc_access_free(a);
	}
}

/* The first that matches decides; names that are not known fit no permission and every prohibition. */
static void test_order_and_names(void **state)
{
	struct rpc_access *a = good("# a comment\n\n"
				    "deny * domain:stop,domain:delete prod-*\n"
				    "allow unix domain:* web-*   # another\n"
				    "allow unix domain:start,domain:stop\n"
				    "allow unix *:getattr\n");

	assert_true(rpc_access_may(a, &root, "domain", "write", "web-1"));
	assert_false(rpc_access_may(a, &root, "domain", "write", "db"));
	assert_false(rpc_access_may(a, &root, "domain", "write", NULL));
	assert_true(rpc_access_may(a, &root, "domain", "start", NULL));
	assert_true(rpc_access_may(a, &root, "domain", "stop", "db"));
	assert_false(rpc_access_may(a, &root, "domain", "stop", "prod-db"));
	assert_false(rpc_access_may(a, &root, "domain", "stop", NULL));
	assert_true(rpc_access_may(a, &root, "storage_pool", "getattr", "p"));
	assert_false(rpc_access_may(a, &tls, "storage_pool", "getattr", "p"));
	assert_true(rpc_access_may(NULL, &tls, "storage_pool", "getattr", "p"));
	rpc_access_free(a);
	a = good("");
	assert_false(rpc_access_may(a, &root, "domain", "start", "x"));
	rpc_access_free(a);
}

static void test_bad_files(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
		{ "permit * domain:start", "neither allow nor deny" },	{ "allow *", "a rule is" },
		{ "allow * domain:start x y", "a rule is" },		{ "\nallow all *:*", "line 2" },
		{ "allow uid:x *:*", "no number" },			{ "allow uid:4294967295 *:*", "no number" },
		{ "allow user:nobody-at-all *:*", "no user" },		{ "allow group:nobody-at-all *:*", "no group" },
		{ "allow * domain", "no OBJECT:PERMISSION" },		{ "allow * domain:fly", "no permission 'domain:fly'" },
		{ "allow * planet:start", "no permission" },		{ "allow \"* *:*", "quote" },
		{ "allow * ,", "no permission is named" },
	};

	for (unsigned n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
		struct err err = ERR_INIT;

		assert_null(load(cases[n].text, &err));
		if (!strstr(err_msg(&err), cases[n].message))
			fail_msg("%s: %s", cases[n].text, err_msg(&err));
	}
	assert_null(rpc_access_load("/nonexistent", NULL));
}

/* ---- Calls ------------------------------------------------------------------ */

static const char *true_name(struct rpc_call *call, const char *object, const void *wire)
{
	const struct remote_domain *dom = wire;

	return strcmp(object, "domain") || dom->uuid[0] != 1 ? NULL : "secret";
}

static const char *xml_name(struct rpc_call *call, const char *object, const char *xml)
{
	return *xml ? xml : NULL;
}

static const struct rpc_access_names names = { true_name, xml_name };

static bool may(const struct rpc_access *a, const struct rpc_proc *proc, void *args, void *ret)
{
	struct rpc_call call = { .proc = proc, .args = args, .ret = ret };

	if (rpc_access_check(a, &root, &names, &call) || rpc_access_check_result(a, &root, &call)) {
		assert_int_equal(call.error.code, VIR_ERR_ACCESS_DENIED);
		assert_int_equal(call.error.domain, VIR_FROM_ACCESS);
		return false;
	}
	return true;
}

static void test_calls(void **state)
{
	struct rpc_access *a = good("allow * connect:*\nallow * domain:getattr,domain:read,domain:start,domain:write web-*\n"
				    "allow * domain:save web-[12]\n");
	struct remote_domain_create_args create = { .dom = { .name = "web-1" } };
	struct remote_domain_lookup_by_name_args by_name = { .name = "web-9" };
	struct remote_domain_lookup_by_id_args by_id = { .id = 4 };
	struct remote_domain_lookup_by_id_ret found = { .dom = { .name = "web-4" } };
	struct remote_domain_define_xml_args define = { .xml = "web-1" };
	struct remote_domain_rename_args rename = { .dom = { .name = "web-1" }, .new_name = "web-2" };
	struct remote_domain_snapshot_get_parent_args snap = { .snap = { .name = "web-snap", .dom = { .name = "web-1" } } };
	struct remote_domain_get_xml_desc_args xml = { .dom = { .name = "web-1" } };
	struct remote_domain_event_callback_lifecycle_msg event = { .msg = { .dom = { .name = "web-1" } } };
	struct remote_connect_open_args open = { 0 };

	assert_true(may(a, PROC(CONNECT_OPEN), &open, NULL));
	assert_true(may(a, PROC(CONNECT_CLOSE), NULL, NULL)); /* asks for nothing */
	assert_true(may(a, PROC(DOMAIN_CREATE), &create, NULL));
	assert_false(may(a, PROC(DOMAIN_DESTROY), &create, NULL));
	create.dom.uuid[0] = 1; /* a claim that the server knows better */
	assert_false(may(a, PROC(DOMAIN_CREATE), &create, NULL));
	create.dom.uuid[0] = 0;
	create.dom.name = "db";
	assert_false(may(a, PROC(DOMAIN_CREATE), &create, NULL));

	assert_true(may(a, PROC(DOMAIN_LOOKUP_BY_NAME), &by_name, &found));
	by_name.name = "db";
	assert_false(may(a, PROC(DOMAIN_LOOKUP_BY_NAME), &by_name, &found));
	assert_true(may(a, PROC(DOMAIN_LOOKUP_BY_ID), &by_id, &found));
	found.dom.name = "db";
	assert_false(may(a, PROC(DOMAIN_LOOKUP_BY_ID), &by_id, &found));

	assert_true(may(a, PROC(DOMAIN_DEFINE_XML), &define, &found));
	define.xml = "web-3"; /* write, but not save */
	assert_false(may(a, PROC(DOMAIN_DEFINE_XML), &define, &found));
	define.xml = "";
	assert_false(may(a, PROC(DOMAIN_DEFINE_XML), &define, &found));

	assert_true(may(a, PROC(DOMAIN_RENAME), &rename, NULL));
	rename.new_name = "db";
	assert_false(may(a, PROC(DOMAIN_RENAME), &rename, NULL));

	assert_true(may(a, PROC(DOMAIN_SNAPSHOT_GET_PARENT), &snap, NULL));
	snap.snap.dom.name = "db";
	assert_false(may(a, PROC(DOMAIN_SNAPSHOT_GET_PARENT), &snap, NULL));

	/* A rule that hangs on a flag: secrets take more than reading. */
	assert_true(may(a, PROC(DOMAIN_GET_XML_DESC), &xml, NULL));
	xml.flags = 1;
	assert_false(may(a, PROC(DOMAIN_GET_XML_DESC), &xml, NULL));

	assert_true(rpc_access_event(a, &root, PROC(DOMAIN_EVENT_CALLBACK_LIFECYCLE), &event));
	event.msg.dom.name = "db";
	assert_false(rpc_access_event(a, &root, PROC(DOMAIN_EVENT_CALLBACK_LIFECYCLE), &event));
	rpc_access_free(a);
}

/* Every procedure that asks for a permission is refused by an empty file, whatever its arguments are like. */
static void test_every_procedure(void **state)
{
	struct rpc_access *none = good(""), *all = good("allow * *:*");
	unsigned refused = 0;

	for (unsigned n = 0; rpc_programs[n]; n++)
		for (unsigned i = 0; i < rpc_programs[n]->nprocs; i++) {
			const struct rpc_proc *proc = &rpc_programs[n]->procs[i];
			void *args, *ret;
			bool always = false;

			if (!proc->name || proc->is_event)
				continue;
			args = calloc(1, proc->args ? proc->args->size : 1);
			ret = calloc(1, proc->ret ? proc->ret->size : 1);
			for (unsigned r = 0; r < proc->nrules; r++)
				always |= proc->rules[r].when == RPC_WHEN_ALWAYS;
			assert_int_equal(may(none, proc, args, ret), !always);
			assert_true(may(all, proc, args, ret));
			refused += always;
			free(args);
			free(ret);
		}
	assert_true(refused > 300);
	rpc_access_free(none);
	rpc_access_free(all);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who),   cmocka_unit_test(test_order_and_names), cmocka_unit_test(test_bad_files),
		cmocka_unit_test(test_calls), cmocka_unit_test(test_every_procedure),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
