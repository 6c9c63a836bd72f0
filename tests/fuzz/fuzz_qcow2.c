/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A small qcow2 image with the input's changes in it (pairs of 16-bit offset,
 * length, bytes), opened, read, checked, written and repaired.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/qcow2.h"

static uint8_t *good;
static size_t good_len;

static void make_good(bool extended)
{
	struct qcow2_create_options o = { .size = 200000,
					  .cluster_bits = extended ? 14 : 9,
					  .extended_l2 = extended,
					  .refcount_bits = extended ? 2 : 16 };
	int fd = memfd_create("good", 0);
	static uint8_t data[30000];
	struct qcow2 *q;
	struct stat st;

	if (qcow2_create(fd, "good", &o, NULL))
		abort();
	q = qcow2_open(dup(fd), "good", IMAGE_RDWR | IMAGE_UNSAFE, NULL, NULL);
	if (!q)
		abort();
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = i / 40;
	if (qcow2_write(q, 5000, data, sizeof(data), NULL) ||
	    qcow2_write_compressed(q, 65536, data, 1 << o.cluster_bits, NULL) ||
	    qcow2_zero(q, 100000, 20000, true, NULL) || (!extended && qcow2_snapshot_create(q, "one", NULL)) ||
	    qcow2_bitmap_add(q, "bitmap", 512, true, NULL) || qcow2_write(q, 40000, data, 3000, NULL) ||
	    qcow2_close(q, NULL))
		abort();
	fstat(fd, &st);
	free(good);
	good_len = st.st_size;
	good = malloc(good_len);
	if (!good || pread(fd, good, good_len, 0) != (ssize_t)good_len)
		abort();
	close(fd);
}

/* Most of the tables are in the first 64 KiB. */
static int changed(const uint8_t *data, size_t len)
{
	int fd = memfd_create("image", 0);

	if (fd < 0 || pwrite(fd, good, good_len, 0) != (ssize_t)good_len)
		abort();
	while (len >= 4) {
		size_t at = (data[0] | data[1] << 8) % good_len, n = data[2] % 16;

		data += 3;
		len -= 3;
		n = n < len ? n : len;
		if (pwrite(fd, data, n, at) != (ssize_t)n)
			abort();
		data += n;
		len -= n;
	}
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const unsigned flags[] = { 0, IMAGE_CHECK, IMAGE_RDWR, IMAGE_CHECK | IMAGE_RDWR };
	static bool extended = true;
	static uint8_t buf[70000];

	if (!len)
		return 0;
	if (!good || (data[0] & 1) != extended) {
		extended = data[0] & 1;
		make_good(extended);
	}
	for (unsigned i = 0; i < 4; i++) {
		struct qcow2 *q = qcow2_open(changed(data + 1, len - 1), "image",
					     flags[i] | IMAGE_NO_BACKING | IMAGE_UNSAFE, NULL, NULL);
		struct qcow2_check c = { 0 };
		struct image_extent e;

		if (!q)
			continue;
		if (flags[i] & IMAGE_CHECK) {
			qcow2_check(q, flags[i] & IMAGE_RDWR ? QCOW2_FIX_ALL : QCOW2_FIX_NONE, &c, NULL);
			qcow2_close(q, NULL);
			continue;
		}
		for (uint64_t at = 0; at < 200000 && at < qcow2_size(q); at += 50000)
			qcow2_read(q, at, buf, 50000, NULL);
		for (uint64_t at = 0; at < 200000 && at < qcow2_size(q); at += e.len)
			if (qcow2_map(q, at, qcow2_size(q) - at, &e, NULL))
				break;
		if (flags[i] & IMAGE_RDWR) {
			qcow2_write(q, 3000, buf, 40000, NULL);
			qcow2_discard(q, 20000, 80000, NULL);
			qcow2_flush(q, NULL);
			qcow2_write_compressed(q, 131072, buf, 512, NULL);
			qcow2_snapshot_apply(q, 0, NULL);
			qcow2_snapshot_create(q, "two", NULL);
			qcow2_snapshot_delete(q, 0, NULL);
			qcow2_bitmap_clear(q, "bitmap", NULL);
			qcow2_resize(q, 300032, NULL);
			qcow2_bitmap_remove(q, "bitmap", NULL);
			qcow2_write(q, 250000, buf, 40000, NULL);
		}
		qcow2_close(q, NULL);
	}
	return 0;
}
