/* SPDX-License-Identifier: GPL-2.0-or-later */
/* LUKS where qemu-img can't look: lies in headers, parts of sectors by many threads, secrets. */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include <cmocka.h>

#include "image/luks_int.h"
#include "image/remote.h"
#include "util/secret.h"

#define DISK (1u << 20)

/* Iterations are measured at each creation, so one image is made and copied. */
static int make(void)
{
	static const struct luks_options o = { .key_secret = "key", .iter_ms = 1 };
	static int first = -1;
	int fd = memfd_create("luks", 0);
	struct err err = ERR_INIT;
	off_t end, from = 0;

	if (first < 0) {
		first = memfd_create("first", 0);
		if (luks_disk_create(first, "disk", &o, DISK, &err))
			fail_msg("%s", err_msg(&err));
	}
	end = lseek(first, 0, SEEK_END);
	assert_int_equal(sendfile(fd, first, &from, end), end);
	return fd;
}

static int with_secrets(void **state)
{
	return secret_add("key", "abc", 3, false, NULL);
}

static int without_secrets(void **state)
{
	return secret_del("key", NULL);
}

static void put32(int fd, unsigned at, uint32_t value)
{
	uint8_t be[4] = { value >> 24, value >> 16, value >> 8, value };

	assert_int_equal(pwrite(fd, be, 4, at), 4);
}

/* ---- The stripes --------------------------------------------------------------- */

static void test_split(void **state)
{
	static const size_t lengths[] = { 16, 20, 32, 63, 64 };
	static const gnutls_mac_algorithm_t hashes[] = { GNUTLS_MAC_SHA1, GNUTLS_MAC_SHA256, GNUTLS_MAC_SHA512 };
	uint8_t key[64], back[64], *stripes = malloc(64 * LUKS_STRIPES);

	for (unsigned i = 0; i < 64; i++)
		key[i] = i * 7 + 1;
	for (unsigned h = 0; h < 3; h++) {
		for (unsigned l = 0; l < 5; l++) {
			size_t len = lengths[l];

			assert_int_equal(luks_split(hashes[h], key, stripes, len, LUKS_STRIPES), 0);
			assert_int_equal(luks_merge(hashes[h], stripes, back, len, LUKS_STRIPES), 0);
			assert_memory_equal(key, back, len);
			/* One bit anywhere, and nothing of the key is left. */
			stripes[len * 1234 + 3] ^= 1;
			assert_int_equal(luks_merge(hashes[h], stripes, back, len, LUKS_STRIPES), 0);
			assert_memory_not_equal(key, back, 4);
		}
	}
	free(stripes);
}

/* ---- Lies ------------------------------------------------------------------------ */

static void expect(int fd, int code, const char *word)
{
	struct err err = ERR_INIT;

	assert_null(luks_disk_open(fd, "disk", NULL, "key", &err));
	if (err.code != code || !strstr(err_msg(&err), word) || !strstr(err_msg(&err), "disk"))
		fail_msg("%d (wanted %d, '%s'): %s", err.code, code, word, err_msg(&err));
}

static void test_lies(void **state)
{
	static const struct {
		unsigned at;
		uint32_t value;
		int code;
		const char *word;
	} lies[] = {
		{ 0, 0, EINVAL, "no LUKS header" },
		{ 4, 0xbabe0002, ENOTSUP, "version 2" },
		{ 4, 0xbabe0007, EINVAL, "version" },
		{ 8, 0x74776f00, ENOTSUP, "'two'" },
		{ 40, 0x78747321, ENOTSUP, "mode 'xts!" },
		{ 72, 0x6d643500, ENOTSUP, "'md5'" },
		{ 104, 1, EINVAL, "payload" },
		{ 104, 0x7fffffff, EINVAL, "payload-offset" },
		{ 108, 0, EINVAL, "key-bytes" },
		{ 108, 65, EINVAL, "key-bytes" },
		{ 108, 48, EINVAL, "key-bytes" },
		{ 164, 0, EINVAL, "mk-digest-iterations" },
		{ 164, 0xffffffff, EINVAL, "mk-digest-iterations" },
		{ 208, 1, EINVAL, "state" },
		{ 208, 0xdead, EACCES, "not its passphrase" },
		{ 212, 0xffffffff, EINVAL, "iterations" },
		{ 248, 0, EINVAL, "key-material-offset" },
		{ 248, 0xffffffff, EINVAL, "key-material-offset" },
		{ 248, 512, EINVAL, "another slot" },
		{ 252, 1, EINVAL, "stripes" },
		{ 252, 0xffffffff, EINVAL, "stripes" },
		{ 112, 0x12345678, EACCES, "not its passphrase" },
	};

	for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		int fd = make();

		put32(fd, lies[i].at, lies[i].value);
		expect(fd, lies[i].code, lies[i].word);
		close(fd);
	}
}

static void test_short_file(void **state)
{
	static const off_t lengths[] = { 0, 100, 591, 4096, 100000 };

	for (unsigned i = 0; i < 5; i++) {
		int fd = make();

		assert_int_equal(ftruncate(fd, lengths[i]), 0);
		expect(fd, EIO, "ends at byte");
		close(fd);
	}
}

/* ---- Data -------------------------------------------------------------------------- */

struct writer {
	struct remote *r;
	unsigned n;
};

#define WRITERS 4u

/* Each writer has every fourth stretch of 100 bytes: their sectors are shared. */
static void *write_parts(void *arg)
{
	const struct writer *w = arg;
	uint8_t buf[100];

	memset(buf, 'a' + w->n, sizeof(buf));
	for (uint64_t at = w->n * 100; at + 100 <= 200000; at += WRITERS * 100)
		if (remote_write(w->r, at, buf, sizeof(buf), false, NULL))
			return arg;
	return NULL;
}

static void test_parts_of_sectors(void **state)
{
	static uint8_t all[200000], raw[512];
	struct writer w[WRITERS];
	pthread_t thread[WRITERS];
	int fd = make();
	struct remote *r = luks_disk_open(fd, "disk", NULL, "key", NULL);
	void *failed;

	assert_non_null(r);
	for (unsigned i = 0; i < WRITERS; i++) {
		w[i] = (struct writer){ r, i };
		assert_int_equal(pthread_create(&thread[i], NULL, write_parts, &w[i]), 0);
	}
	for (unsigned i = 0; i < WRITERS; i++) {
		pthread_join(thread[i], &failed);
		assert_null(failed);
	}
	assert_int_equal(remote_read(r, 0, all, sizeof(all), NULL), 0);
	for (unsigned i = 0; i < sizeof(all); i++)
		if (all[i] != 'a' + i / 100 % WRITERS)
			fail_msg("byte %u is %#x", i, all[i]);
	/* The same text in two sectors is not the same on the disk. */
	memset(raw, 'x', sizeof(raw));
	assert_int_equal(remote_write(r, 0, raw, 512, false, NULL), 0);
	assert_int_equal(remote_write(r, 512, raw, 512, false, NULL), 0);
	assert_int_equal(pread(fd, all, 1024, luks_payload(luks_disk_luks(r))), 1024);
	assert_memory_not_equal(all, all + 512, 512);
	assert_memory_not_equal(all, raw, 16);
	remote_close(r);
	close(fd);
}

static void test_locked(void **state)
{
	int fd = make();
	struct remote *r = luks_disk_open(fd, "disk", NULL, NULL, NULL);
	struct err err = ERR_INIT;
	char buf[512];

	assert_non_null(r);
	assert_int_equal(remote_size(r), DISK);
	assert_int_equal(remote_read(r, 0, buf, sizeof(buf), &err), -EACCES);
	assert_non_null(strstr(err_msg(&err), "encrypted"));
	assert_int_equal(remote_write(r, 0, buf, sizeof(buf), false, NULL), -EACCES);
	assert_int_equal(luks_slot_add(luks_disk_luks(r), 3, "key", 1, NULL), -EACCES);
	remote_close(r);
	close(fd);
}

/* ---- Secrets --------------------------------------------------------------------------- */

static void test_secrets(void **state)
{
	static const struct {
		const char *base64, *plain; /* NULL: refused */
	} cases[] = {
		/* RFC 4648 section 10 */
		{ "", "" }, { "Zg==", "f" }, { "Zm8=", "fo" }, { "Zm9v", "foo" }, { "Zm9vYg==", "foob" },
		{ "Zm9vYmE=", "fooba" }, { "Zm9v\nYmFy\n", "foobar" }, { "Zg", NULL }, { "Zg=", NULL }, { "Z===", NULL },
		{ "Zg==Zg==", NULL }, { "Zm9v!", NULL }, { "=", NULL },
	};
	struct err err = ERR_INIT;
	size_t len;
	char *copy;

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int ret = secret_add("s", cases[i].base64, strlen(cases[i].base64), true, NULL);

		assert_int_equal(ret, cases[i].plain ? 0 : -EINVAL);
		if (ret)
			continue;
		copy = secret_get("s", &len, NULL);
		assert_string_equal(copy, cases[i].plain);
		assert_int_equal(len, strlen(cases[i].plain));
		secret_wipe(copy, len);
		assert_int_equal(secret_add("s", "x", 1, false, NULL), -EEXIST);
		assert_int_equal(secret_del("s", NULL), 0);
	}
	assert_null(secret_get("s", &len, &err));
	assert_non_null(strstr(err_msg(&err), "'s'"));
	assert_int_equal(secret_del("s", NULL), -ENOENT);
	assert_int_equal(secret_add_file("s", "/nonexistent", false, NULL), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split),		cmocka_unit_test(test_lies),   cmocka_unit_test(test_short_file),
		cmocka_unit_test(test_parts_of_sectors), cmocka_unit_test(test_locked), cmocka_unit_test(test_secrets),
	};

	return cmocka_run_group_tests(tests, with_secrets, without_secrets);
}
