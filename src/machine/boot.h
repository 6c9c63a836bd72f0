/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Direct boot: kernels put into guest memory without firmware, and firmware
 * images put below 4 GiB.
 *
 * Formats, told apart by content: Linux bzImage (boot protocol 2.12, 64-bit
 * entry; Linux Documentation/arch/x86/boot.rst), ELF with a PVH note (Xen
 * docs/misc/pvh.pandoc, start_info version 1), multiboot 1 (Multiboot
 * Specification 0.6.96). Files are hostile: every offset is checked, and
 * errors begin with the option that named the file.
 */
#pragma once
#include "machine/acpi.h"
#include "machine/machine.h"
#include "machine/smbios.h"

struct boot_file {
	const char *option; /* "--kernel", for messages */
	const char *path;   /* for messages */
	int fd;             /* open for reading; -1: none. Becomes the boot's on success. */
	uint64_t size;
	const char *args;   /* multiboot and PVH modules: their command line, or NULL */
};
#define BOOT_MODULES 16

struct boot_spec {
	struct boot_file kernel, firmware; /* one of them */
	struct boot_file module[BOOT_MODULES]; /* 0: the initrd */
	unsigned modules;
	const char *append; /* kernel command line, NULL: empty */
	struct acpi_options acpi;
	const uint8_t *uuid; /* 16 bytes or NULL */
};

/*
 * Check the images and set m->boot, so that each machine_reset() loads them.
 * After the devices are realized, before the first reset. The strings and
 * tables of the spec are copied.
 */
int boot_setup(struct machine *m, const struct boot_spec *spec, struct err *err);

/* ---- For the loaders (boot_*.c) ------------------------------------------ */

/* Fixed places below 1 MiB, all in RAM that no kernel is loaded to. */
enum {
	BOOT_GDT = 0x500,
	BOOT_INFO = 0x1000,      /* PVH start info or multiboot info, and their lists */
	BOOT_INFO_END = 0x6000,
	BOOT_ZERO_PAGE = 0x7000, /* struct boot_params */
	BOOT_PAGE_TABLES = 0x9000, /* PML4, PDPT, 4 page directories: 4 GiB identity */
	BOOT_CMDLINE = 0x20000,
	BOOT_CMDLINE_MAX = 0x10000,
	BOOT_EBDA = 0x9fc00,
	BOOT_ACPI = 0xe0000,
	BOOT_RSDP = 0xf0000,
	BOOT_SMBIOS = 0xf0040,
};

struct boot {
	struct machine *machine;
	struct boot_file kernel, firmware, module[BOOT_MODULES];
	unsigned modules;
	char *strings;  /* copies of option, path and args texts */
	char *cmdline;
	struct acpi_tables acpi;
	struct smbios_tables smbios;
	int (*load)(struct boot *b, struct err *err); /* the format's */
	/* What the format's check found out */
	uint64_t kernel_base, kernel_end; /* where the kernel lies, and the end of what it needs */
	uint64_t entry;
	uint64_t module_base[BOOT_MODULES];
	uint64_t file_offset, load_size; /* bzImage, multiboot a.out: the part of the file that is loaded */
	uint32_t flags;
	uint8_t *header; /* bzImage: the setup header; ELF: the program headers */
	size_t header_len;
	uint8_t *rom;    /* firmware */
};

/* Each looks at the first bytes of the kernel: 1 if it is its own and good, 0 if it is something else, negative errno. */
int boot_linux_check(struct boot *b, const uint8_t *head, size_t len, struct err *err);
int boot_multiboot_check(struct boot *b, const uint8_t *head, size_t len, struct err *err);
int boot_pvh_check(struct boot *b, const uint8_t *head, size_t len, struct err *err);
int boot_firmware_setup(struct boot *b, struct err *err);

#define BOOT_HEAD 8192 /* bytes of the file that the checks see */

/* Exactly `len` bytes at `offset` of the file. */
int boot_read(const struct boot_file *f, uint64_t offset, void *data, uint64_t len, struct err *err);
/* The same, straight into guest memory. */
int boot_read_guest(struct boot *b, const struct boot_file *f, uint64_t offset, uint64_t gpa, uint64_t len, struct err *err);
/* Choose module_base[] for all modules: as high as possible in low RAM, below `limit`, above the kernel and `floor`. */
int boot_place_modules(struct boot *b, uint64_t floor, uint64_t limit, struct err *err);
int boot_load_modules(struct boot *b, struct err *err);
/* End of RAM below 4 GiB. */
uint64_t boot_low_end(const struct machine *m);

struct boot_e820 {
	uint64_t addr, size;
	uint32_t type; /* 1 RAM, 2 reserved */
} __attribute__((packed));
#define BOOT_E820_MAX 8
unsigned boot_e820(const struct machine *m, struct boot_e820 map[BOOT_E820_MAX]);

/* ELF: boot_elf_headers() reads the program headers into b->header; boot_elf_fit() checks them and sets kernel_base and kernel_end. */
struct boot_elf {
	bool is64;
	uint64_t entry, phoff;
	unsigned phnum, phentsize;
};
struct boot_segment {
	uint32_t type;
	uint64_t offset, paddr, vaddr, filesz, memsz, align;
};
bool boot_elf_parse(const uint8_t *head, size_t len, struct boot_elf *e); /* false: not an x86 ELF executable */
int boot_elf_headers(struct boot *b, const struct boot_elf *e, struct err *err);
int boot_elf_fit(struct boot *b, struct err *err);
int boot_elf_load(struct boot *b, struct err *err);
unsigned boot_elf_segments(const struct boot *b);
const struct boot_segment *boot_elf_segment(const struct boot *b, unsigned i);

/* CPU states: flat 32-bit protected mode without paging, and 64-bit mode on the identity map (written too). */
void boot_cpu_protected(struct cpu_state *s);
int boot_cpu_long(struct boot *b, struct cpu_state *s, struct err *err);
