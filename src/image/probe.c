/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "image/block_int.h"

/* Signatures of the formats in use, from their specifications. Offset -512: the last sector. */
static const struct {
	const char *format;
	int offset;
	uint8_t len;
	const char *bytes;
} magics[] = {
	{ "qcow2", 0, 4, "QFI\xfb" },
	{ "qed", 0, 4, "QED\0" },
	{ "vmdk", 0, 4, "KDMV" },
	{ "vmdk", 0, 4, "COWD" },
	{ "vmdk", 0, 21, "# Disk DescriptorFile" },
	{ "vdi", 0x40, 4, "\x7f\x10\xda\xbe" },
	{ "vhdx", 0, 8, "vhdxfile" },
	{ "vpc", 0, 8, "conectix" },
	{ "vpc", -512, 8, "conectix" },
	{ "luks", 0, 6, "LUKS\xba\xbe" },
	{ "parallels", 0, 16, "WithoutFreeSpace" },
	{ "parallels", 0, 16, "WithouFreSpacExt" },
	{ "bochs", 0, 19, "Bochs Virtual HD Im" },
	{ "dmg", -512, 4, "koly" },
};

static int read_sector(int fd, uint64_t offset, uint8_t *buf)
{
	size_t done = 0;

	memset(buf, 0, 4096);
	while (done < 4096) {
		ssize_t n = pread(fd, buf + done, 4096 - done, offset + done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && done == 0)
			return -errno;
		if (n <= 0)
			break; /* the end, or as far as direct I/O goes */
		done += n;
	}
	return 0;
}

int probe_format(int fd, uint64_t size, const char **format)
{
	/* Aligned, as the descriptor may be open for direct I/O. */
	_Alignas(4096) uint8_t head[4096], tail[4096];
	uint64_t tail_at = size > 512 ? (size - 512) & ~4095ull : 0;
	int ret = read_sector(fd, 0, head);

	*format = NULL;
	if (!ret)
		ret = read_sector(fd, tail_at, tail);
	for (unsigned i = 0; !ret && i < sizeof(magics) / sizeof(magics[0]); i++) {
		const uint8_t *at = magics[i].offset >= 0 ? head + magics[i].offset : tail + (size - 512 - tail_at);

		if ((magics[i].offset < 0 && size < 512) || memcmp(at, magics[i].bytes, magics[i].len))
			continue;
		*format = magics[i].format;
		break;
	}
	return ret;
}
