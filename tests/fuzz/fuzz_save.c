/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The head of a saved guest's file, as restore and save-image-dumpxml read it. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/guest_save.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int file = memfd_create("save", MFD_CLOEXEC), fd;
	struct err err = ERR_INIT;
	char path[40], *xml = NULL;
	bool running;

	if (file < 0 || write(file, data, size) != (ssize_t)size)
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	/* Most random beginnings are refused at once: the magic is a gift. */
	if (size > 16 && data[0] & 1 && pwrite(file, "LibvirtQemudSave", 16, 0) != 16)
		abort();
	fd = save_open(path, &xml, &running, &err);
	if ((fd < 0) != !xml || (fd < 0 && !err.code))
		abort();
	if (fd >= 0) {
		if (lseek(fd, 0, SEEK_CUR) < (off_t)strlen(xml))
			abort();
		close(fd);
	}
	free(xml);
	save_redefine(path, "<domain/>", 1, &err);
	close(file);
	return 0;
}
