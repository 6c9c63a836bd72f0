/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ELF executables by their program headers (System V gABI 4.1, ch. 5), for the PVH and multiboot loaders. */
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine/boot.h"

#define MAX_HEADERS 64

bool boot_elf_parse(const uint8_t *head, size_t len, struct boot_elf *e)
{
	memset(e, 0, sizeof(*e));
	if (len < sizeof(Elf64_Ehdr) || memcmp(head, ELFMAG, SELFMAG) || head[EI_DATA] != ELFDATA2LSB)
		return false;
	if (head[EI_CLASS] == ELFCLASS64) {
		Elf64_Ehdr h;

		memcpy(&h, head, sizeof(h));
		if (h.e_machine != EM_X86_64)
			return false;
		*e = (struct boot_elf){ true, h.e_entry, h.e_phoff, h.e_phnum, h.e_phentsize };
	} else if (head[EI_CLASS] == ELFCLASS32) {
		Elf32_Ehdr h;

		memcpy(&h, head, sizeof(h));
		if (h.e_machine != EM_386 && h.e_machine != EM_X86_64)
			return false;
		*e = (struct boot_elf){ false, h.e_entry, h.e_phoff, h.e_phnum, h.e_phentsize };
	} else {
		return false;
	}
	return true;
}

static int bad(const struct boot *b, struct err *err, const char *why)
{
	return err_set(err, EINVAL, "%s %s: %s", b->kernel.option, b->kernel.path, why);
}

static void convert(struct boot_segment *s, const uint8_t *raw, bool is64)
{
	if (is64) {
		Elf64_Phdr p;

		memcpy(&p, raw, sizeof(p));
		*s = (struct boot_segment){ p.p_type, p.p_offset, p.p_paddr, p.p_vaddr, p.p_filesz, p.p_memsz, p.p_align };
	} else {
		Elf32_Phdr p;

		memcpy(&p, raw, sizeof(p));
		*s = (struct boot_segment){ p.p_type, p.p_offset, p.p_paddr, p.p_vaddr, p.p_filesz, p.p_memsz, p.p_align };
	}
}

static int check_segment(struct boot *b, const struct boot_segment *s, struct err *err)
{
	uint64_t low = boot_low_end(b->machine);

	if (s->filesz > s->memsz || s->offset > b->kernel.size || s->filesz > b->kernel.size - s->offset)
		return bad(b, err, "the ELF file is truncated: a segment lies outside it");
	if (!s->memsz)
		return 0;
	if (s->paddr < 0x100000)
		return bad(b, err, "a segment of the ELF file wants to lie below 1 MiB, where Keel keeps its tables");
	if (s->paddr >= low || s->memsz > low - s->paddr)
		return err_set(err, ENOMEM, "%s %s: a segment at 0x%llx with %llu MiB does not fit into guest memory; raise --memory",
			       b->kernel.option, b->kernel.path, (unsigned long long)s->paddr,
			       (unsigned long long)((s->memsz + 0xfffff) >> 20));
	if (s->paddr < b->kernel_base)
		b->kernel_base = s->paddr;
	if (s->paddr + s->memsz > b->kernel_end)
		b->kernel_end = s->paddr + s->memsz;
	return 0;
}

int boot_elf_headers(struct boot *b, const struct boot_elf *e, struct err *err)
{
	unsigned want = e->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr), n = e->phnum;
	uint8_t raw[MAX_HEADERS * sizeof(Elf64_Phdr)];
	struct boot_segment *segments;
	int ret;

	if (!n || n > MAX_HEADERS || e->phentsize != want)
		return bad(b, err, "the ELF header is broken: no usable program headers");
	if (e->phoff > b->kernel.size || (uint64_t)n * want > b->kernel.size - e->phoff)
		return bad(b, err, "the ELF file is truncated: its program headers lie outside it");
	ret = boot_read(&b->kernel, e->phoff, raw, (uint64_t)n * want, err);
	if (ret)
		return ret;
	segments = calloc(n, sizeof(*segments));
	if (!segments)
		return err_set(err, ENOMEM, "no memory for the ELF headers");
	free(b->header);
	b->header = (uint8_t *)segments;
	b->header_len = n * sizeof(*segments);
	for (unsigned i = 0; i < n; i++)
		convert(&segments[i], raw + i * want, e->is64);
	return 0;
}

int boot_elf_fit(struct boot *b, struct err *err)
{
	int ret = 0;

	b->kernel_base = UINT64_MAX;
	b->kernel_end = 0;
	for (unsigned i = 0; i < boot_elf_segments(b) && !ret; i++)
		if (boot_elf_segment(b, i)->type == PT_LOAD)
			ret = check_segment(b, boot_elf_segment(b, i), err);
	if (!ret && !b->kernel_end)
		ret = bad(b, err, "the ELF file has nothing to load");
	return ret;
}

unsigned boot_elf_segments(const struct boot *b)
{
	return b->header_len / sizeof(struct boot_segment);
}

const struct boot_segment *boot_elf_segment(const struct boot *b, unsigned i)
{
	return (const struct boot_segment *)b->header + i;
}

int boot_elf_load(struct boot *b, struct err *err)
{
	int ret = 0;

	for (unsigned i = 0; i < boot_elf_segments(b) && !ret; i++) {
		const struct boot_segment *s = boot_elf_segment(b, i);

		if (s->type != PT_LOAD || !s->memsz)
			continue;
		ret = boot_read_guest(b, &b->kernel, s->offset, s->paddr, s->filesz, err);
		if (!ret)
			ret = mem_set(&b->machine->mem, s->paddr + s->filesz, 0, s->memsz - s->filesz);
	}
	return ret;
}
