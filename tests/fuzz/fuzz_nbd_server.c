/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A client of the NBD server: its bytes as they are or, with the first bit set,
 * records of ten bytes each of which becomes an option or a request that gets
 * past the first looks.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/block.h"
#include "image/dirty.h"
#include "image/nbd_server.h"
#include "util/loop.h"

#define SIZE (1u << 20)
#define MOST (256u << 10) /* bytes of a stream */

static struct loop *loop;
static struct block *block;
static struct nbd_server *server;

static void set_up(void)
{
	const char *const bitmaps[] = { "b" };
	struct nbd_server_options so = { 0 };
	struct nbd_export_options eo = {
		.name = "", .description = "disk", .bitmaps = bitmaps, .nbitmaps = 1, .writable = true
	};
	struct block_options bo = { .path = "disk", .fd = memfd_create("disk", 0), .format = "raw" };

	if (bo.fd < 0 || ftruncate(bo.fd, SIZE))
		abort();
	loop = loop_new(NULL);
	block = block_open(&bo, NULL);
	so.loop = loop;
	if (!block || block_bitmap_add(block, "b", 4096, false, true, NULL))
		abort();
	server = nbd_server_new(&so, NULL);
	eo.block = block;
	if (!server || nbd_export_add(server, &eo, NULL))
		abort();
	eo.name = "read-only";
	eo.writable = false;
	if (nbd_export_add(server, &eo, NULL))
		abort();
}

static uint8_t stream[MOST];
static size_t at;

static void put(uint64_t v, unsigned bytes)
{
	while (bytes-- && at < MOST)
		stream[at++] = v >> 8 * bytes;
}

static void option(uint32_t what, const void *data, uint32_t len, uint32_t said)
{
	put(0x49484156454f5054, 8);
	put(what, 4);
	put(said, 4);
	for (uint32_t i = 0; i < len; i++)
		put(((const uint8_t *)data)[i], 1);
}

static void build(const uint8_t *p, size_t len)
{
	static const uint8_t contexts[] = "\0\0\0\0\0\0\0\2\0\0\0\17base:allocation\0\0\0\23qemu:dirty-bitmap:b";
	uint8_t first = p[0];

	put(3, 4);
	if (first & 2)
		option(8, "", 0, 0);
	if (first & 4)
		option(10, contexts, sizeof(contexts) - 1, sizeof(contexts) - 1);
	for (p++, len--; len >= 10 && p[0] & 0x80; p += 10, len -= 10)
		option(p[0] & 15, p + 2, p[1] & 7, p[1] & 8 ? p[1] : p[1] & 7);
	option(first & 8 ? 1 : 7, "\0\0\0\0\0\0", first & 8 ? 0 : 6, first & 8 ? 0 : 6);
	for (; len >= 10; p += 10, len -= 10) {
		uint32_t n = p[6] << 12 | p[7] << 4 | p[8];

		put(0x25609513, 4);
		put(p[1], 2);
		put(p[0] % 9, 2);
		put(p[9], 8);
		put((uint64_t)p[2] << (p[5] & 63) | p[3] << 8 | p[4], 8);
		put(n, 4);
		for (uint32_t i = 0; p[0] % 9 == 1 && i < n && at < MOST; i++)
			put(p[9], 1);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (!server)
		set_up();
	if (!len || !(data[0] & 1)) {
		nbd_server_feed(server, len ? data + 1 : (const uint8_t *)"", len ? len - 1 : 0);
		return 0;
	}
	at = 0;
	build(data, len);
	nbd_server_feed(server, stream, at);
	return 0;
}
