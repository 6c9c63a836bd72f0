/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of guests against a plain list, and files that are replaced as a whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <signal.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/guest.h"

#define GUESTS 300

static void key(unsigned n, char name[16], uint8_t uuid[16])
{
	snprintf(name, 16, "guest%u", n);
	memset(uuid, 0, 16);
	uuid[3] = n >> 8;
	uuid[9] = n;
}

static int count(struct guest *g, void *opaque)
{
	const char **last = opaque;

	assert_true(!*last || strcmp(*last, g->name) < 0); /* in order */
	*last = g->name;
	return 0;
}

static void table_finds_what_is_in_it(void **state)
{
	struct daemon d = { 0 };
	bool there[GUESTS] = { false };
	const char *last = NULL;
	unsigned seed = 1, n = 0;
	uint8_t uuid[16];
	char name[16];

	for (unsigned step = 0; step < 5000; step++) {
		unsigned i;
		struct guest *g;

		seed = seed * 1103515245 + 12345;
		i = seed >> 16 & 0x7fff;
		i %= GUESTS;
		key(i, name, uuid);
		g = guest_by_name(&d, name);
		assert_int_equal(g != NULL, there[i]);
		assert_ptr_equal(guest_by_uuid(&d, uuid), g);
		if (g) {
			guest_remove(g);
			n--;
		} else {
			g = guest_new(&d, "other", uuid);
			assert_int_equal(guest_add(g), 0);
			assert_int_equal(guest_set_name(g, name), 0);
			g->id = (int)i;
			guest_put(g);
			n++;
		}
		there[i] = !there[i];
		assert_int_equal(d.guests.count, n);
		assert_null(guest_by_name(&d, "other"));
	}
	for (unsigned i = 0; i < GUESTS; i++)
		assert_int_equal(guest_by_id(&d, (int)i) != NULL, there[i]);
	assert_null(guest_by_id(&d, -1));
	assert_int_equal(guest_each(&d, count, &last), 0);
	guest_table_free(&d);
}

static void filters_are_libvirts(void **state)
{
	/* Each group lets through what it names, or all if it names none. */
	struct domain live = { 0 };
	struct daemon d = { .root = "/nonexistent" }; /* a managed save would lie there */
	struct guest g = { .id = 3, .state = STATE_PAUSED, .autostart = true, .daemon = &d, .name = "g" };

	assert_false(list_matches(&g, 0)); /* its start waits for a hook */
	g.live = &live;
	assert_true(list_matches(&g, 0));
	assert_true(list_matches(&g, 1 | 8 | 32 | 1024 | 512 | 8192));
	assert_true(list_matches(&g, 1 | 2));
	assert_false(list_matches(&g, 2));
	assert_false(list_matches(&g, 4));
	assert_false(list_matches(&g, 16));
	assert_false(list_matches(&g, 64 | 128));
	assert_false(list_matches(&g, 2048));
	assert_false(list_matches(&g, 256));
	assert_false(list_matches(&g, 4096));
}

static void a_file_is_replaced_as_a_whole_or_not_at_all(void **state)
{
	char dir[] = "/tmp/keel-store-XXXXXX", text[16];
	struct rlimit old, small = { 0 };
	struct err err = ERR_INIT;
	int fd, f;

	assert_non_null(mkdtemp(dir));
	fd = open(dir, O_RDONLY | O_DIRECTORY);
	assert_int_equal(store_write_file(fd, "a.xml", "first", 5, true, NULL), 0);
	/* A full disk, as far as this process can have one. */
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	small.rlim_max = old.rlim_max;
	small.rlim_cur = 2;
	setrlimit(RLIMIT_FSIZE, &small);
	assert_true(store_write_file(fd, "a.xml", "second", 6, true, &err) < 0);
	setrlimit(RLIMIT_FSIZE, &old);
	assert_non_null(strstr(err_msg(&err), "cannot write data to file 'a.xml'"));
	f = openat(fd, "a.xml", O_RDONLY);
	assert_int_equal(read(f, text, sizeof(text)), 5);
	close(f);
	assert_memory_equal(text, "first", 5);
	assert_int_not_equal(faccessat(fd, "a.xml.new", F_OK, 0), 0);
	unlinkat(fd, "a.xml", 0);
	close(fd);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table_finds_what_is_in_it),
		cmocka_unit_test(filters_are_libvirts),
		cmocka_unit_test(a_file_is_replaced_as_a_whole_or_not_at_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
