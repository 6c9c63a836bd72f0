/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "image/iscsi_name.h"
#include "image/rbd_name.h"
#include "image/remote.h"

static void same(const char *a, const char *b)
{
	if (!b)
		assert_null(a);
	else
		assert_string_equal(a, b);
}

static void test_iscsi(void **state)
{
	static const struct {
		const char *name, *portal, *user, *target, *secret, *initiator;
		int lun;
	} good[] = {
		{ "iscsi://h/iqn.a:b", "h:3260", NULL, "iqn.a:b", NULL, NULL, 0 },
		{ "iscsi://h:77/iqn.a:b/5", "h:77", NULL, "iqn.a:b", NULL, NULL, 5 },
		{ "iscsi://[::1]/t/16383", "[::1]:3260", NULL, "t", NULL, NULL, 16383 },
		{ "iscsi://[fe80::1]:3261/t/0", "[fe80::1]:3261", NULL, "t", NULL, NULL, 0 },
		{ "iscsi://bob@h/t/1?password-secret=s", "h:3260", "bob", "t", "s", NULL, 1 },
		{ "iscsi://b%40b@h/t%2fu/1?initiator-name=iqn.x&password-secret=s", "h:3260", "b@b", "t/u", "s", "iqn.x", 1 },
	};
	static const char *const bad[] = {
		"iscsi://", "iscsi:///t", "iscsi://h", "iscsi://h/", "iscsi://h//1", "iscsi://h/t/", "iscsi://h/t/-1",
		"iscsi://h/t/16384", "iscsi://h/t/1/2", "iscsi://h/t/1x", "iscsi://h:/t", "iscsi://h:0/t", "iscsi://h:65536/t",
		"iscsi://h:x/t", "iscsi://@h/t", "iscsi://a%b@h/t", "iscsi://h/%00", "iscsi://h/%0", "iscsi://h/t?x=1",
		"iscsi://h/t?password-secret=", "iscsi://h/t?", "iscsi://[::1/t", "iscsi://::1]/t", "iscsi://[]/t",
		"iscsi://[::1]x/t", "nbd://h/t",
	};
	struct iscsi_name n;
	struct err err;

	for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		err = ERR_INIT;
		if (iscsi_name_parse(&n, good[i].name, &err))
			fail_msg("%s", err_msg(&err));
		same(n.portal, good[i].portal);
		same(n.user, good[i].user);
		same(n.target, good[i].target);
		same(n.secret, good[i].secret);
		if (good[i].initiator)
			same(n.initiator, good[i].initiator);
		assert_int_equal(n.lun, good[i].lun);
		iscsi_name_free(&n);
	}
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		err = ERR_INIT;
		if (!iscsi_name_parse(&n, bad[i], &err))
			fail_msg("%s was taken", bad[i]);
		assert_non_null(strstr(err_msg(&err), bad[i]));
	}
}

static void test_rbd(void **state)
{
	static const struct {
		const char *name, *pool, *space, *image, *snapshot, *id, *secret, *key, *value;
	} good[] = {
		{ "rbd:p/i", "p", NULL, "i", NULL, NULL, NULL, NULL, NULL },
		{ "rbd:p/n/i@s", "p", "n", "i", "s", NULL, NULL, NULL, NULL },
		{ "rbd:p/i:id=bob:key-secret=k", "p", NULL, "i", NULL, "bob", "k", NULL, NULL },
		{ "rbd:p\\/q/i\\:\\@@s\\\\:mon_host=h\\:1,g", "p/q", NULL, "i:@", "s\\", NULL, NULL, "mon_host", "h:1,g" },
	};
	static const char *const bad[] = {
		"rbd:", "rbd:p", "rbd:/i", "rbd:p/", "rbd:p/i@", "rbd:p/i:", "rbd:p/i:id", "rbd:p/i:id=", "rbd:p/i:=x",
		"rbd:p/n/", "rbd:p:i", "rbd:p/i:key=AQ", "nbd:p/i",
	};
	struct rbd_name n;
	struct err err;

	for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		err = ERR_INIT;
		if (rbd_name_parse(&n, good[i].name, &err))
			fail_msg("%s", err_msg(&err));
		same(n.pool, good[i].pool);
		same(n.space, good[i].space);
		same(n.image, good[i].image);
		same(n.snapshot, good[i].snapshot);
		same(n.id, good[i].id);
		same(n.secret, good[i].secret);
		assert_int_equal(n.settings, good[i].key != NULL);
		if (good[i].key) {
			same(n.setting[0].key, good[i].key);
			same(n.setting[0].value, good[i].value);
		}
		rbd_name_free(&n);
	}
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (!rbd_name_parse(&n, bad[i], NULL))
			fail_msg("%s was taken", bad[i]);
}

static void test_kinds(void **state)
{
	static const char *const uris[] = { "nbd://h", "nbds+unix:///?socket=s", "iscsi://h/t", "rbd:p/i" };
	static const char *const files[] = { "/dev/sda", "disk.raw", "nbd", "rbd", "iscsi:", "file:x", "./rbd:p" };

	for (unsigned i = 0; i < 4; i++)
		assert_true(remote_is_uri(uris[i]));
	for (unsigned i = 0; i < 7; i++)
		assert_false(remote_is_uri(files[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_iscsi),
		cmocka_unit_test(test_rbd),
		cmocka_unit_test(test_kinds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
