/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/uri.h"

static void same(const char *a, const char *b)
{
	if (!a || !b)
		assert_true(a == b);
	else
		assert_string_equal(a, b);
}

static void test_good(void **state)
{
	static const struct {
		const char *text;
		enum uri_transport transport;
		const char *host, *user;
		unsigned port;
		const char *path, *socket, *pkipath;
		bool no_verify;
	} cases[] = {
		{ "qemu:///system", URI_UNIX, NULL, NULL, 0, "system" },
		{ "qemu:///session", URI_UNIX, NULL, NULL, 0, "session" },
		{ "qemu:///system?socket=/a%20b/c%3f", URI_UNIX, NULL, NULL, 0, "system", "/a b/c?" },
		{ "qemu+unix:///session?socket=/x&mode=legacy", URI_UNIX, NULL, NULL, 0, "session", "/x" },
		{ "qemu+tls://h.example/system", URI_TLS, "h.example", NULL, 0, "system" },
		{ "qemu://h/system", URI_TLS, "h", NULL, 0, "system" },
		{ "qemu+tls://me@h:99/system?pkipath=/p;no_verify=1", URI_TLS, "h", "me", 99, "system", NULL, "/p", true },
		{ "qemu+tcp://[::1]:65535/session", URI_TCP, "::1", NULL, 65535, "session" },
		{ "qemu+tcp://[fe80::1]/system?no_verify=0", URI_TCP, "fe80::1", NULL, 0, "system" },
	};

	for (unsigned n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
		struct err err = ERR_INIT;
		struct uri u;

		if (uri_parse(&u, cases[n].text, &err))
			fail_msg("%s: %s", cases[n].text, err_msg(&err));
		assert_int_equal(u.transport, cases[n].transport);
		same(u.host, cases[n].host);
		same(u.user, cases[n].user);
		assert_int_equal(u.port, cases[n].port);
		same(u.path, cases[n].path);
		same(u.socket, cases[n].socket);
		same(u.pkipath, cases[n].pkipath);
		assert_int_equal(u.no_verify, cases[n].no_verify);
		assert_string_equal(u.remote + 8, u.path);
		uri_free(&u);
	}
}

static void test_bad(void **state)
{
	static const char *const cases[] = {
		"", "qemu", "qemu:/system", "xen:///system", "qemu+ssh://h/system", "qemu+tls:///system", "qemu+tcp:///system",
		"qemu+unix://h/system", "qemu:///", "qemu:///other", "qemu:///system/x", "qemu+tls://h:0/system", "qemu+tls://h:65536/system",
		"qemu+tls://h:1x/system", "qemu+tls://h:/system", "qemu+tls://[::1/system", "qemu+tls://[::1]x/system",
		"qemu:///system?sock=/a", "qemu:///system?socket=%0", "qemu:///system?socket=%00", "qemu:///sys%tem", "qemu+tls://%zz@h/system",
	};

	for (unsigned n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
		struct err err = ERR_INIT;
		struct uri u;

		if (!uri_parse(&u, cases[n], &err))
			fail_msg("%s is taken", cases[n]);
		assert_int_not_equal(err.code, 0);
		uri_free(&u);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
