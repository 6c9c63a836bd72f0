/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a guest may have put at the beginning of its disk, as keeld reads it before it opens other files. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/image_links.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image_links l;
	char *path;

	if (!image_links_parse(data, size, &l))
		return 0;
	if (strlen(l.backing) >= sizeof(l.backing) || strlen(l.data_file) >= sizeof(l.data_file) || (!l.qcow2 && l.backing[0]))
		__builtin_trap();
	path = image_links_path("/images/top.qcow2", l.backing);
	free(path);
	return 0;
}
