/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Multiboot 1 images, ELF or with addresses in the header, and their modules (Multiboot Specification 0.6.96 §3). */
#include <errno.h>
#include <string.h>

#include "machine/boot.h"

enum {
	HEADER_MAGIC = 0x1badb002, LOADED_MAGIC = 0x2badb002,
	FLAG_VIDEO = 1 << 2, FLAG_ADDRESSES = 1 << 16, FLAGS_REQUIRED = 0xffff, FLAGS_KNOWN = 7,
	INFO_MEMORY = 1 << 0, INFO_CMDLINE = 1 << 2, INFO_MODULES = 1 << 3, INFO_MAP = 1 << 6, INFO_LOADER = 1 << 9,
};

struct header {
	uint32_t magic, flags, checksum, header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};
struct info {
	uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4], mmap_length, mmap_addr,
		drives_length, drives_addr, config_table, boot_loader_name, apm_table;
};
struct map_entry {
	uint32_t size; /* of the rest */
	struct boot_e820 e;
} __attribute__((packed));
struct module {
	uint32_t start, end, string, reserved;
};

/* Texts and lists go behind the info structure, as long as there is room. */
static uint32_t append(struct boot *b, uint64_t *at, const void *data, size_t len)
{
	uint64_t here = *at;

	if (here + len > BOOT_INFO_END || mem_write(&b->machine->mem, here, data, len))
		return 0;
	*at = (here + len + 7) & ~7ull;
	return here;
}

static int load_image(struct boot *b, struct err *err)
{
	int ret;

	if (!(b->flags & FLAG_ADDRESSES))
		return boot_elf_load(b, err);
	ret = boot_read_guest(b, &b->kernel, b->file_offset, b->kernel_base, b->load_size, err);
	if (!ret)
		ret = mem_set(&b->machine->mem, b->kernel_base + b->load_size, 0, b->kernel_end - b->kernel_base - b->load_size);
	return ret;
}

static int multiboot_load(struct boot *b, struct err *err)
{
	struct machine *m = b->machine;
	uint64_t at = (BOOT_INFO + sizeof(struct info) + 7) & ~7ull;
	struct boot_e820 map[BOOT_E820_MAX];
	struct map_entry entries[BOOT_E820_MAX];
	struct module mods[BOOT_MODULES] = { 0 };
	struct info info = { .flags = INFO_MEMORY | INFO_CMDLINE | INFO_MODULES | INFO_MAP | INFO_LOADER };
	unsigned n = boot_e820(m, map);
	int ret = load_image(b, err);

	if (!ret)
		ret = boot_load_modules(b, err);
	if (ret)
		return ret;
	info.mem_lower = BOOT_EBDA >> 10;
	info.mem_upper = (boot_low_end(m) - 0x100000) >> 10;
	info.cmdline = BOOT_CMDLINE;
	for (unsigned i = 0; i < n; i++)
		entries[i] = (struct map_entry){ sizeof(map[i]), map[i] };
	info.mmap_length = n * sizeof(entries[0]);
	info.mmap_addr = append(b, &at, entries, info.mmap_length);
	info.boot_loader_name = append(b, &at, "Keel", 5);
	for (unsigned i = 0; i < b->modules; i++) {
		const char *args = b->module[i].args ? b->module[i].args : "";

		mods[i].start = b->module_base[i];
		mods[i].end = b->module_base[i] + b->module[i].size;
		mods[i].string = append(b, &at, args, strlen(args) + 1);
		if (!mods[i].string)
			return err_set(err, E2BIG, "%s %s: the modules' command lines are longer than %d bytes together",
				       b->module[i].option, b->module[i].path, BOOT_INFO_END - BOOT_INFO);
	}
	info.mods_count = b->modules;
	info.mods_addr = append(b, &at, mods, b->modules * sizeof(mods[0]));
	mem_write(&m->mem, BOOT_INFO, &info, sizeof(info));
	boot_cpu_protected(&m->boot.cpu);
	m->boot.cpu.rip = b->entry;
	m->boot.cpu.gpr[R_AX] = LOADED_MAGIC;
	m->boot.cpu.gpr[R_BX] = BOOT_INFO;
	m->boot.set = true;
	return 0;
}

/* The image's place from the header's own addresses (§3.1.3). */
static int use_addresses(struct boot *b, const struct header *h, uint64_t header_offset, struct err *err)
{
	uint64_t low = boot_low_end(b->machine), before = (uint64_t)h->header_addr - h->load_addr, size;

	if (h->load_addr > h->header_addr || before > header_offset)
		return err_set(err, EINVAL, "%s %s: the multiboot header's load address is wrong", b->kernel.option, b->kernel.path);
	b->file_offset = header_offset - before;
	size = h->load_end_addr ? (uint64_t)h->load_end_addr - h->load_addr : b->kernel.size - b->file_offset;
	if ((h->load_end_addr && h->load_end_addr < h->load_addr) || size > b->kernel.size - b->file_offset)
		return err_set(err, EINVAL, "%s %s: the multiboot image is truncated", b->kernel.option, b->kernel.path);
	b->kernel_base = h->load_addr;
	b->load_size = size;
	b->kernel_end = b->kernel_base + size;
	if (h->bss_end_addr > b->kernel_end)
		b->kernel_end = h->bss_end_addr;
	if (b->kernel_base < 0x100000 || b->kernel_end > low)
		return err_set(err, ENOMEM, "%s %s: the image wants 0x%llx..0x%llx, guest memory below 4 GiB is 0x100000..0x%llx",
			       b->kernel.option, b->kernel.path, (unsigned long long)b->kernel_base,
			       (unsigned long long)b->kernel_end, (unsigned long long)low);
	return 0;
}

int boot_multiboot_check(struct boot *b, const uint8_t *head, size_t len, struct err *err)
{
	struct header h = { 0 };
	struct boot_elf e;
	size_t at;
	int ret;

	for (at = 0; at + 12 <= len; at += 4) {
		memcpy(&h, head + at, 12);
		if (h.magic == HEADER_MAGIC && h.magic + h.flags + h.checksum == 0)
			break;
	}
	if (at + 12 > len)
		return 0;
	if (h.flags & FLAGS_REQUIRED & ~FLAGS_KNOWN)
		return err_set(err, EINVAL, "%s %s: the multiboot header requires features 0x%x that Keel does not have",
			       b->kernel.option, b->kernel.path, h.flags & FLAGS_REQUIRED & ~FLAGS_KNOWN);
	b->flags = h.flags;
	if (h.flags & FLAG_ADDRESSES) {
		if (at + sizeof(h) > len)
			return err_set(err, EINVAL, "%s %s: the multiboot header is truncated", b->kernel.option, b->kernel.path);
		memcpy(&h, head + at, sizeof(h));
		ret = use_addresses(b, &h, at, err);
		b->entry = h.entry_addr;
	} else if (boot_elf_parse(head, len, &e)) {
		ret = boot_elf_headers(b, &e, err);
		if (!ret)
			ret = boot_elf_fit(b, err);
		b->entry = e.entry;
	} else {
		return err_set(err, EINVAL, "%s %s: this multiboot image is neither ELF nor tells its addresses", b->kernel.option,
			       b->kernel.path);
	}
	if (ret)
		return ret;
	b->load = multiboot_load;
	return boot_place_modules(b, b->kernel_end, UINT64_MAX, err) ?: 1;
}
