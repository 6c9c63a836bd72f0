/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * golden/NAME.xml goes in, golden/NAME.out is what stock libvirtd 9.0 (Debian
 * 12, QEMU 7.2) prints for it after `virsh define`: Keel must print the same.
 * golden/README says how the files were made.
 */
#include <dirent.h>
#include <unistd.h>

#include "model_test.h"

static int is_input(const struct dirent *e)
{
	size_t n = strlen(e->d_name);

	return n > 4 && !strcmp(e->d_name + n - 4, ".xml");
}

static void show_difference(const char *name, const char *got, const char *want)
{
	unsigned line = 1;
	const char *g = got, *w = want;

	for (const char *a = got, *b = want; *a && *a == *b; a++, b++)
		if (*a == '\n') {
			line++;
			g = a + 1;
			w = b + 1;
		}
	print_error("%s.out:%u: libvirt has '%.*s', Keel '%.*s'\n", name, line, (int)strcspn(w, "\n"), w,
		    (int)strcspn(g, "\n"), g);
}

static bool has_file(const char *name)
{
	char path[1024];

	snprintf(path, sizeof(path), MODEL_DATA "/golden/%s", name);
	return !access(path, R_OK);
}

static void test_same_as_libvirt(void **state)
{
	struct dirent **files;
	int n = scandir(MODEL_DATA "/golden", &files, is_input, alphasort), bad = 0;

	(void)state;
	assert_true(n > 25);
	for (int i = 0; i < n; i++) {
		char name[300];
		char *xml = read_text(MODEL_DATA "/golden", files[i]->d_name), *want, *got, *again, *copied;
		struct domain *def = must_parse(xml, 0), *def2, *copy;

		snprintf(name, sizeof(name), "%.*s", (int)strlen(files[i]->d_name) - 4, files[i]->d_name);
		got = domain_format(def, 0);
		strcat(name, ".out");
		want = read_text(MODEL_DATA "/golden", name);
		name[strlen(name) - 4] = '\0';
		if (strcmp(got, want)) {
			show_difference(name, got, want);
			bad++;
		}
		/* what libvirt printed reads as the same thing, and its copy is that again */
		def2 = must_parse(want, DOMAIN_PARSE_VALIDATE);
		again = domain_format(def2, 0);
		strcat(name, ".again");
		if (has_file(name)) {
			free(want);
			want = read_text(MODEL_DATA "/golden", name);
		}
		name[strlen(name) - 6] = '\0';
		if (strcmp(again, want)) {
			show_difference(name, again, want);
			bad++;
		}
		copy = domain_copy(def2);
		copied = domain_format(copy, 0);
		assert_string_equal(copied, again);
		assert_int_equal(domain_abi_check(def2, copy, NULL), 0);
		free(copied);
		free(again);
		free(got);
		free(want);
		free(xml);
		domain_free(def);
		domain_free(def2);
		domain_free(copy);
		free(files[i]);
	}
	free(files);
	assert_int_equal(bad, 0);
}

/* live.status is what libvirtd prints for a running guest: it reads as it is, and its aliases are Keel's own. */
static void test_running_guest(void **state)
{
	char *want = read_text(MODEL_DATA "/golden", "live.status"), *got;
	struct domain *def = must_parse(want, DOMAIN_PARSE_STATUS | DOMAIN_PARSE_NO_FILL);

	(void)state;
	got = domain_format(def, DOMAIN_FORMAT_LIVE);
	if (strcmp(got, want))
		show_difference("live.status", got, want);
	assert_string_equal(got, want);
	free(got);
	domain_clear_aliases(def);
	assert_int_equal(domain_fill_aliases(def, NULL), 0);
	got = domain_format(def, DOMAIN_FORMAT_LIVE);
	if (strcmp(got, want))
		show_difference("live.status", got, want);
	assert_string_equal(got, want);
	free(got);
	free(want);
	domain_free(def);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_as_libvirt),
		cmocka_unit_test(test_running_guest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
