/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Headers written by hand after QEMU's docs/interop/qcow2.rst. */
#include <endian.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/image_links.h"

static uint8_t image[4096];

static void put32(size_t at, uint32_t v)
{
	v = htobe32(v);
	memcpy(image + at, &v, 4);
}

static void put64(size_t at, uint64_t v)
{
	v = htobe64(v);
	memcpy(image + at, &v, 8);
}

/* Version 3 with a backing file "base", its format and a data file "data". */
static void header(void)
{
	memset(image, 0, sizeof(image));
	put32(0, 0x514649fb);
	put32(4, 3);
	put64(8, 200); /* where the name is */
	put32(16, 4);
	put32(20, 16);
	put64(72, 4); /* incompatible: external data file */
	put32(100, 104);
	put32(104, 0xe2792aca);
	put32(108, 5);
	memcpy(image + 112, "qcow2", 5);
	put32(120, 0x44415441);
	put32(124, 4);
	memcpy(image + 128, "data", 4);
	memcpy(image + 200, "base", 4);
}

static void what_it_names(void **state)
{
	struct image_links l;

	header();
	assert_true(image_links_parse(image, sizeof(image), &l));
	assert_true(l.qcow2);
	assert_string_equal(l.backing, "base");
	assert_string_equal(l.backing_format, "qcow2");
	assert_string_equal(l.data_file, "data");
	put64(72, 0); /* a name without the feature means nothing */
	assert_true(image_links_parse(image, sizeof(image), &l));
	assert_string_equal(l.data_file, "");
	put64(8, 0);
	assert_true(image_links_parse(image, sizeof(image), &l));
	assert_string_equal(l.backing, "");
	assert_true(image_links_parse((const uint8_t *)"raw bytes", 9, &l));
	assert_false(l.qcow2);
	assert_true(image_links_parse(image, 0, &l));
	assert_false(l.qcow2);
}

static void nonsense(void **state)
{
	struct image_links l;

	header();
	for (size_t len = 4; len < 104; len++)
		assert_false(image_links_parse(image, len, &l));
	put32(4, 4); /* no such version */
	assert_false(image_links_parse(image, sizeof(image), &l));
	header();
	put64(8, 4094); /* the name ends behind the end */
	assert_false(image_links_parse(image, sizeof(image), &l));
	put64(8, UINT64_MAX);
	assert_false(image_links_parse(image, sizeof(image), &l));
	header();
	put32(16, 1024); /* longer than names are */
	assert_false(image_links_parse(image, sizeof(image), &l));
	header();
	image[201] = 0; /* a NUL in it: the kernel would see another name than we */
	assert_false(image_links_parse(image, sizeof(image), &l));
	header();
	put32(124, 0xffffffff);
	assert_false(image_links_parse(image, sizeof(image), &l));
	header();
	put32(100, 5000);
	assert_false(image_links_parse(image, sizeof(image), &l));
}

static void is_path(const char *of, const char *name, const char *want)
{
	char *got = image_links_path(of, name);

	if (want)
		assert_string_equal(got, want);
	else
		assert_null(got);
	free(got);
}

static void where_names_lead(void **state)
{
	is_path("/a/b.qcow2", "base", "/a/base");
	is_path("/a/b.qcow2", "../c/base", "/a/../c/base");
	is_path("/a/b.qcow2", "/base", "/base");
	is_path("b.qcow2", "base", "base");
	is_path("/a/b.qcow2", "file:base", "/a/base");
	is_path("/a/b.qcow2", "nbd://host/x", NULL);
	is_path("/a/b.qcow2", "json:{}", NULL);
	is_path("/a/b.qcow2", "./with:colon", "/a/./with:colon");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(what_it_names), cmocka_unit_test(nonsense), cmocka_unit_test(where_names_lead) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
