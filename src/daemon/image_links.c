/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/image_links.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

/* docs/interop/qcow2.rst of QEMU: the header and its extensions. */
#define MAGIC 0x514649fbu
#define V2_LENGTH 72u
#define EXT_BACKING_FORMAT 0xe2792acau
#define EXT_DATA_FILE 0x44415441u
#define INCOMPAT_DATA_FILE 4u

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return be32toh(v);
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return be64toh(v);
}

/* A name without NULs in it. */
static bool copy(char *to, size_t room, const uint8_t *from, size_t len)
{
	if (len >= room || memchr(from, 0, len))
		return false;
	memcpy(to, from, len);
	to[len] = 0;
	return true;
}

static bool parse_extensions(const uint8_t *p, size_t at, size_t end, struct image_links *links)
{
	while (end - at >= 8) {
		uint32_t type = get32(p + at), len = get32(p + at + 4);

		at += 8;
		if (!type)
			return true;
		if (len > end - at)
			return false;
		if (type == EXT_BACKING_FORMAT && !copy(links->backing_format, sizeof(links->backing_format), p + at, len))
			return false;
		if (type == EXT_DATA_FILE && !copy(links->data_file, sizeof(links->data_file), p + at, len))
			return false;
		len = (len + 7) & ~7u;
		at = len > end - at ? end : at + len;
	}
	return true;
}

bool image_links_parse(const uint8_t *p, size_t len, struct image_links *links)
{
	uint32_t version, name_size, header = V2_LENGTH;
	uint64_t name_at, incompat = 0;
	size_t end = len;

	*links = (struct image_links){ .qcow2 = len >= 4 && get32(p) == MAGIC };
	if (!links->qcow2)
		return true;
	if (len < V2_LENGTH)
		return false;
	version = get32(p + 4);
	name_at = get64(p + 8);
	name_size = get32(p + 16);
	if (version >= 3) {
		if (len < 104)
			return false;
		incompat = get64(p + 72);
		header = get32(p + 100);
	}
	if (version < 2 || version > 3 || header < V2_LENGTH || header > len)
		return false;
	if (name_at) {
		if (name_at > len || name_size > len - name_at ||
		    !copy(links->backing, sizeof(links->backing), p + name_at, name_size))
			return false;
		if (name_at > header)
			end = name_at; /* extensions end before the name */
	}
	if (!parse_extensions(p, header, end, links))
		return false;
	if (!(incompat & INCOMPAT_DATA_FILE))
		links->data_file[0] = 0;
	return true;
}

char *image_links_path(const char *of, const char *name)
{
	const char *slash = strrchr(of, '/'), *colon;
	size_t dir = slash ? (size_t)(slash - of) + 1 : 0;
	char *path;

	if (!strncmp(name, "file:", 5))
		name += 5;
	colon = strchr(name, ':');
	if (colon && !memchr(name, '/', (size_t)(colon - name)))
		return NULL;
	if (name[0] == '/')
		dir = 0;
	path = malloc(dir + strlen(name) + 1);
	if (!path)
		return NULL;
	memcpy(path, of, dir);
	strcpy(path + dir, name);
	return path;
}
