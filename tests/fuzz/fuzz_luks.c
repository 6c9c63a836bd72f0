/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A small LUKS disk with the input's changes in its header and first stripes (pairs of 16-bit offset, length, bytes),
 * opened without its key and with it, read, written and given another passphrase.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/luks.h"
#include "image/remote.h"
#include "util/secret.h"

#define DISK 65536u

static uint8_t *good;
static size_t good_len;

static void make_good(void)
{
	struct luks_options o = { .key_secret = "key", .bits = 128, .mode = LUKS_CBC_ESSIV, .iter_ms = 1 };
	int fd = memfd_create("good", 0);
	struct stat st;

	if (secret_add("key", "abc", 3, false, NULL) || luks_disk_create(fd, "good", &o, DISK, NULL))
		abort();
	fstat(fd, &st);
	good_len = st.st_size;
	good = malloc(good_len);
	if (!good || pread(fd, good, good_len, 0) != (ssize_t)good_len)
		abort();
	close(fd);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
}

/* Large counts take long; that they are bounded is test_luks.c's to see. */
static bool quick(const uint8_t *p)
{
	bool few = get32(p + 164) < 5000;

	for (unsigned i = 0; i < LUKS_SLOTS; i++)
		few &= get32(p + 208 + i * 48 + 4) < 5000;
	return few;
}

static void use(int fd, const char *secret)
{
	static uint8_t buf[DISK];
	struct remote *r = luks_disk_open(fd, "image", NULL, secret, NULL);
	struct luks_info info;
	uint64_t n;

	if (!r)
		return;
	luks_get_info(luks_disk_luks(r), &info);
	n = remote_size(r) < DISK ? remote_size(r) : DISK;
	if (n > 2000) {
		remote_write(r, 700, buf, 1200, true, NULL);
		remote_read(r, 1, buf, n - 1, NULL);
		remote_zero(r, 0, n, true, NULL);
	}
	luks_slot_erase(luks_disk_luks(r), 0, NULL, true, NULL);
	remote_close(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static uint8_t head[592];
	int fd;

	if (!good)
		make_good();
	fd = memfd_create("image", 0);
	if (fd < 0 || pwrite(fd, good, good_len, 0) != (ssize_t)good_len)
		abort();
	while (len >= 4) {
		size_t at = (data[0] | data[1] << 8) % 700, n = data[2] % 16;

		data += 3;
		len -= 3;
		n = n < len ? n : len;
		if (pwrite(fd, data, n, at) != (ssize_t)n)
			abort();
		data += n;
		len -= n;
	}
	if (len && ftruncate(fd, data[0] * 4096ull))
		abort();
	use(fd, NULL);
	if (pread(fd, head, sizeof(head), 0) == (ssize_t)sizeof(head) && quick(head))
		use(fd, "key");
	close(fd);
	return 0;
}
