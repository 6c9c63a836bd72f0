/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Firmware: a read-only image that ends at 4 GiB, its last 128 KiB shadowed below 1 MiB. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "machine/boot.h"

#define ROM_MAX (16u << 20)
#define SHADOW (128u << 10)

static int firmware_load(struct boot *b, struct err *err)
{
	uint64_t n = b->firmware.size < SHADOW ? b->firmware.size : SHADOW;

	if (mem_write(&b->machine->mem, 0x100000 - n, b->rom + b->firmware.size - n, n))
		return err_set(err, EFAULT, "%s %s: no guest memory below 1 MiB", b->firmware.option, b->firmware.path);
	b->machine->boot.set = false;
	return 0;
}

int boot_firmware_setup(struct boot *b, struct err *err)
{
	struct boot_file *f = &b->firmware;
	struct guest_region r = { .gpa = (4ull << 30) - f->size, .size = f->size, .fd = -1, .readonly = true };
	int ret;

	if (b->modules)
		return err_set(err, EINVAL, "%s: goes with --kernel, not with %s", b->module[0].option, f->option);
	if (!f->size || f->size > ROM_MAX || f->size & 4095)
		return err_set(err, EINVAL, "%s %s: a firmware image has 4 KiB to %u MiB, a multiple of 4 KiB, not %llu bytes",
			       f->option, f->path, ROM_MAX >> 20, (unsigned long long)f->size);
	b->rom = aligned_alloc(4096, f->size);
	if (!b->rom)
		return err_set(err, ENOMEM, "no memory for the firmware");
	ret = boot_read(f, 0, b->rom, f->size, err);
	if (ret)
		return ret;
	r.hva = b->rom;
	ret = mem_add(&b->machine->mem, &r, err);
	if (!ret)
		ret = engine_map(b->machine->engine, r.gpa, r.size, r.hva, true, err);
	b->load = firmware_load;
	return ret;
}
