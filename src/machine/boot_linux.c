/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Linux bzImage through its 64-bit entry point (Documentation/arch/x86/boot.rst; offsets are those of struct boot_params). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine/boot.h"

enum {
	SETUP_SECTS = 0x1f1, SYSSIZE = 0x1f4, VID_MODE = 0x1fa, BOOT_FLAG = 0x1fe, JUMP_LEN = 0x201, MAGIC = 0x202,
	VERSION = 0x206, TYPE_OF_LOADER = 0x210, LOADFLAGS = 0x211, RAMDISK_IMAGE = 0x218, RAMDISK_SIZE = 0x21c,
	CMD_LINE_PTR = 0x228, INITRD_ADDR_MAX = 0x22c, KERNEL_ALIGNMENT = 0x230, RELOCATABLE = 0x234, XLOADFLAGS = 0x236,
	CMDLINE_SIZE = 0x238, PREF_ADDRESS = 0x258, INIT_SIZE = 0x260, HEADER_END = 0x290,
	/* and outside the header */
	ACPI_RSDP_ADDR = 0x070, E820_ENTRIES = 0x1e8, E820_TABLE = 0x2d0,
	XLF_KERNEL_64 = 1, LOADED_HIGH = 1,
};

static uint16_t get16(const uint8_t *p)
{
	return p[0] | p[1] << 8;
}

static uint32_t get32(const uint8_t *p)
{
	return get16(p) | (uint32_t)get16(p + 2) << 16;
}

static uint64_t get64(const uint8_t *p)
{
	return get32(p) | (uint64_t)get32(p + 4) << 32;
}

static void put32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, 4);
}

static int linux_load(struct boot *b, struct err *err)
{
	struct machine *m = b->machine;
	struct boot_e820 map[BOOT_E820_MAX];
	uint64_t rsdp = BOOT_RSDP;
	uint8_t zero[4096] = { 0 };
	unsigned n;
	int ret;

	ret = boot_read_guest(b, &b->kernel, b->file_offset, b->kernel_base, b->load_size, err);
	if (!ret)
		ret = boot_load_modules(b, err);
	if (!ret)
		ret = boot_cpu_long(b, &m->boot.cpu, err);
	if (ret)
		return ret;
	memcpy(zero + SETUP_SECTS, b->header, b->header_len);
	zero[TYPE_OF_LOADER] = 0xff;
	zero[LOADFLAGS] |= LOADED_HIGH;
	zero[VID_MODE] = zero[VID_MODE + 1] = 0xff; /* normal */
	put32(zero + CMD_LINE_PTR, BOOT_CMDLINE);
	if (b->modules) {
		put32(zero + RAMDISK_IMAGE, b->module_base[0]);
		put32(zero + RAMDISK_SIZE, b->module[0].size);
	}
	memcpy(zero + ACPI_RSDP_ADDR, &rsdp, 8);
	n = boot_e820(m, map);
	zero[E820_ENTRIES] = n;
	memcpy(zero + E820_TABLE, map, n * sizeof(map[0]));
	if (mem_write(&m->mem, BOOT_ZERO_PAGE, zero, sizeof(zero)))
		return err_set(err, EFAULT, "no guest memory at 0x%x", BOOT_ZERO_PAGE);
	m->boot.cpu.rip = b->entry;
	m->boot.cpu.gpr[R_SI] = BOOT_ZERO_PAGE;
	m->boot.cpu.gpr[R_SP] = BOOT_EBDA;
	m->boot.set = true;
	return 0;
}

static int refuse(const struct boot *b, struct err *err, const char *why)
{
	return err_set(err, EINVAL, "%s %s: %s", b->kernel.option, b->kernel.path, why);
}

int boot_linux_check(struct boot *b, const uint8_t *head, size_t len, struct err *err)
{
	uint64_t setup, rest, low = boot_low_end(b->machine), limit, pref, init_size;
	unsigned header_len;

	if (len < HEADER_END || get16(head + BOOT_FLAG) != 0xaa55 || memcmp(head + MAGIC, "HdrS", 4))
		return 0;
	if (get16(head + VERSION) < 0x20c || !(get16(head + XLOADFLAGS) & XLF_KERNEL_64))
		return refuse(b, err, "this Linux kernel has no 64-bit entry point; a 64-bit kernel of version 3.8 or newer is needed");
	setup = ((head[SETUP_SECTS] ? head[SETUP_SECTS] : 4) + 1) * 512ull;
	rest = (uint64_t)get32(head + SYSSIZE) * 16;
	if (b->kernel.size <= setup || rest > ((b->kernel.size - setup + 15) & ~15ull))
		return refuse(b, err, "the kernel is truncated: its header tells of more bytes than the file has");
	rest = b->kernel.size - setup;
	if (strlen(b->cmdline) > get32(head + CMDLINE_SIZE))
		return err_set(err, E2BIG, "--append: the command line has %zu bytes, this kernel takes %u", strlen(b->cmdline),
			       get32(head + CMDLINE_SIZE));
	if (b->modules > 1)
		return err_set(err, EINVAL, "--initrd: a Linux kernel takes one initrd, not %u", b->modules);
	pref = get64(head + PREF_ADDRESS);
	init_size = get32(head + INIT_SIZE);
	if (init_size < rest)
		init_size = rest;
	if (pref < 0x100000 || pref >= low || init_size > low - pref)
		return err_set(err, ENOMEM, "%s %s: the kernel needs %llu MiB of guest memory to unpack itself, there are %llu; raise --memory",
			       b->kernel.option, b->kernel.path, (unsigned long long)((pref + init_size + 0xfffff) >> 20),
			       (unsigned long long)(b->machine->config.memory >> 20));
	b->kernel_base = pref;
	b->kernel_end = pref + init_size;
	b->entry = pref + 0x200;
	b->file_offset = setup;
	b->load_size = rest;
	header_len = MAGIC + head[JUMP_LEN] - SETUP_SECTS;
	if (header_len > HEADER_END - SETUP_SECTS)
		header_len = HEADER_END - SETUP_SECTS;
	b->header = malloc(header_len);
	if (!b->header)
		return err_set(err, ENOMEM, "no memory for the kernel's header");
	memcpy(b->header, head + SETUP_SECTS, header_len);
	b->header_len = header_len;
	limit = (uint64_t)get32(head + INITRD_ADDR_MAX) + 1;
	b->load = linux_load;
	return boot_place_modules(b, b->kernel_end, limit, err) ?: 1;
}
