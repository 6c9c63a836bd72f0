/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ELF kernels that carry a PVH entry note (Xen docs/misc/pvh.pandoc; layout: xen/include/public/arch-x86/hvm/start_info.h). */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "machine/boot.h"

#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define START_MAGIC 0x336ec578u

struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modules, cmdline, rsdp, memmap;
	uint32_t memmap_entries, reserved;
};
struct start_module {
	uint64_t paddr, size, cmdline, reserved;
};
struct start_memmap {
	uint64_t addr, size;
	uint32_t type, reserved;
};

static int pvh_load(struct boot *b, struct err *err)
{
	struct machine *m = b->machine;
	struct start_info info = { .magic = START_MAGIC, .version = 1, .nr_modules = b->modules, .cmdline = BOOT_CMDLINE,
				   .rsdp = BOOT_RSDP };
	uint64_t at = BOOT_INFO + sizeof(info);
	struct boot_e820 map[BOOT_E820_MAX];
	unsigned n = boot_e820(m, map);
	int ret = boot_elf_load(b, err);

	if (!ret)
		ret = boot_load_modules(b, err);
	if (ret)
		return ret;
	info.memmap = at;
	info.memmap_entries = n;
	for (unsigned i = 0; i < n; i++, at += sizeof(struct start_memmap)) {
		struct start_memmap e = { map[i].addr, map[i].size, map[i].type, 0 };

		mem_write(&m->mem, at, &e, sizeof(e));
	}
	info.modules = b->modules ? at : 0;
	for (unsigned i = 0; i < b->modules; i++, at += sizeof(struct start_module)) {
		struct start_module e = { .paddr = b->module_base[i], .size = b->module[i].size };

		mem_write(&m->mem, at, &e, sizeof(e));
	}
	mem_write(&m->mem, BOOT_INFO, &info, sizeof(info));
	boot_cpu_protected(&m->boot.cpu);
	m->boot.cpu.rip = b->entry;
	m->boot.cpu.gpr[R_BX] = BOOT_INFO;
	m->boot.set = true;
	return 0;
}

/* The entry point in a note segment, 0 if it has none. */
static uint32_t find_note(struct boot *b, const struct boot_segment *s)
{
	uint8_t data[4096];
	uint64_t len = s->filesz < sizeof(data) ? s->filesz : sizeof(data), at = 0;

	if (s->offset > b->kernel.size || s->filesz > b->kernel.size - s->offset ||
	    boot_read(&b->kernel, s->offset, data, len, NULL))
		return 0;
	while (len - at >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr n;
		uint64_t name, desc;

		memcpy(&n, data + at, sizeof(n));
		name = at + sizeof(n);
		desc = name + (((uint64_t)n.n_namesz + 3) & ~3ull);
		if (desc > len || n.n_descsz > len - desc)
			break;
		if (n.n_type == XEN_ELFNOTE_PHYS32_ENTRY && n.n_namesz == 4 && !memcmp(data + name, "Xen", 4) && n.n_descsz >= 4) {
			uint32_t entry;

			memcpy(&entry, data + desc, 4);
			return entry;
		}
		at = desc + (((uint64_t)n.n_descsz + 3) & ~3ull);
		if (at > len)
			break;
	}
	return 0;
}

int boot_pvh_check(struct boot *b, const uint8_t *head, size_t len, struct err *err)
{
	struct boot_elf e;
	int ret;

	if (!boot_elf_parse(head, len, &e))
		return 0;
	ret = boot_elf_headers(b, &e, err);
	if (ret)
		return ret;
	for (unsigned i = 0; i < boot_elf_segments(b) && !b->entry; i++)
		if (boot_elf_segment(b, i)->type == PT_NOTE)
			b->entry = find_note(b, boot_elf_segment(b, i));
	if (!b->entry)
		return err_set(err, EINVAL, "%s %s: this ELF file has no PVH entry note (Linux: CONFIG_PVH) and no multiboot header",
			       b->kernel.option, b->kernel.path);
	ret = boot_elf_fit(b, err);
	if (ret)
		return ret;
	if (b->entry < b->kernel_base || b->entry >= b->kernel_end)
		return err_set(err, EINVAL, "%s %s: the PVH entry point 0x%llx lies outside the image", b->kernel.option,
			       b->kernel.path, (unsigned long long)b->entry);
	b->load = pvh_load;
	return boot_place_modules(b, b->kernel_end, UINT64_MAX, err) ?: 1;
}
