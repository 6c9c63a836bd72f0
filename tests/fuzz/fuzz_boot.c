/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Kernel images of any content: an error or a loaded image, nothing outside guest memory. */
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../device/fake_machine.h"
#include "machine/boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct fake_machine *f;
	struct boot_spec s = { .firmware.fd = -1, .append = "fuzz" };
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	struct err err = ERR_INIT;

	if (!f)
		f = fake_machine_new();
	if (fd < 0 || write(fd, data, len) != (ssize_t)len)
		__builtin_trap();
	s.kernel = (struct boot_file){ .option = "--kernel", .path = "fuzz", .fd = fd, .size = len };
	if (boot_setup(f->m, &s, &err)) {
		if (!err.code || !*err.msg)
			__builtin_trap();
		close(fd);
		return 0;
	}
	f->m->boot.load(f->m->boot.opaque, f->m, &err);
	f->m->boot.free(f->m->boot.opaque);
	memset(&f->m->boot, 0, sizeof(f->m->boot));
	return 0;
}
