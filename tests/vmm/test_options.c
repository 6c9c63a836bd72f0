/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/options.h"

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		bool mib;
		int ret;
		uint64_t bytes;
	} cases[] = {
		{ "512", true, 0, 512ull << 20 }, { "512", false, 0, 512 },      { "512M", true, 0, 512ull << 20 },
		{ "2g", true, 0, 2ull << 30 },    { "1T", false, 0, 1ull << 40 }, { "16KiB", true, 0, 16 << 10 },
		{ "1GB", true, 0, 1ull << 30 },   { "", true, -EINVAL, 0 },      { "-1", true, -EINVAL, 0 },
		{ "1X", true, -EINVAL, 0 },       { "1Mx", true, -EINVAL, 0 },   { "17592186044416M", true, -ERANGE, 0 },
		{ "99999999999999999999", false, -ERANGE, 0 },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t bytes = 0;

		assert_int_equal(options_size(cases[i].text, cases[i].mib, &bytes), cases[i].ret);
		if (!cases[i].ret)
			assert_int_equal(bytes, cases[i].bytes);
	}
}

static void test_split(void **state)
{
	struct option_pair p[4];
	struct err err = ERR_INIT;
	int n = options_split("--disk", "/a,,b=c.raw,format=raw,flag", NULL, p, 4, NULL);

	assert_int_equal(n, 3); /* without a first key "a,b=c.raw" is a setting */
	options_split_free(p, n);
	n = options_split("--disk", "/tmp/x,,y,format=raw,readonly", "file", p, 4, &err);
	assert_int_equal(n, 3);
	assert_string_equal(p[0].key, "file");
	assert_string_equal(p[0].value, "/tmp/x,y");
	assert_string_equal(p[1].key, "format");
	assert_string_equal(p[1].value, "raw");
	assert_string_equal(p[2].key, "readonly");
	assert_string_equal(p[2].value, "on");
	options_split_free(p, n);
	assert_int_equal(options_split("--disk", "a,b,c,d,e", "file", p, 4, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "--disk"));
	assert_int_equal(options_split("--disk", "", "file", p, 4, NULL), -EINVAL);
	assert_int_equal(options_split("--disk", "a,=b", "file", p, 4, NULL), -EINVAL);
}

static int parse(struct vmm_options *o, struct err *err, char *line)
{
	char *argv[32] = { "keel-vmm" }, *save;
	int argc = 1;

	for (char *w = strtok_r(line, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	return options_parse(o, argc, argv, err);
}

static void test_parse(void **state)
{
	char line[] = "--kernel k --cpus 4 --memory 2G --engine soft,translate=off --disk a --disk b --net none --serial null "
		      "--qmp unix:/q --no-reboot --uuid 01234567-89ab-cdef-0123-456789ABCDEF",
	     twice[] = "--kernel a --kernel b", nothing[] = "--cpus 1", again[] = "--kernel k";
	struct vmm_options o;
	struct err err = ERR_INIT;

	assert_int_equal(parse(&o, &err, line), 0);
	assert_string_equal(o.kernel, "k");
	assert_int_equal(o.cpus, 4);
	assert_int_equal(o.memory, 2ull << 30);
	assert_int_equal(o.engine, ENGINE_SOFT);
	assert_true(o.no_translate);
	assert_false(options_native(&o));
	assert_int_equal(o.disks, 2);
	assert_string_equal(o.disk[1], "b");
	assert_true(o.no_reboot);
	assert_int_equal(o.uuid[0], 1);
	assert_int_equal(o.uuid[15], 0xef);
	options_free(&o);
	assert_int_equal(parse(&o, &err, twice), -EINVAL);
	assert_non_null(strstr(err.msg, "--kernel"));
	err = ERR_INIT;
	assert_int_equal(parse(&o, &err, nothing), -EINVAL);
	/* A parse leaves nothing behind for the next one. */
	assert_int_equal(parse(&o, &err, again), 0);
	assert_int_equal(o.cpus, 1);
	assert_int_equal(o.engine, ENGINE_AUTO);
	assert_false(o.no_translate);
	assert_true(options_native(&o));
	options_free(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_sizes), cmocka_unit_test(test_split), cmocka_unit_test(test_parse) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
