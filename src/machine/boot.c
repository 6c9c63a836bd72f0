/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/boot.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "machine/pci.h"

int boot_read(const struct boot_file *f, uint64_t offset, void *data, uint64_t len, struct err *err)
{
	uint8_t *p = data;

	while (len) {
		ssize_t n = pread(f->fd, p, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set_errno(err, errno, "%s %s: cannot read", f->option, f->path);
		if (n == 0)
			return err_set(err, EINVAL, "%s %s: the file is truncated: %llu bytes are missing at offset %llu",
				       f->option, f->path, (unsigned long long)len, (unsigned long long)offset);
		p += n;
		offset += n;
		len -= n;
	}
	return 0;
}

int boot_read_guest(struct boot *b, const struct boot_file *f, uint64_t offset, uint64_t gpa, uint64_t len, struct err *err)
{
	void *p = mem_ptr_w(&b->machine->mem, gpa, len);
	int ret;

	if (!len)
		return 0;
	if (!p)
		return err_set(err, ENOMEM, "%s %s: 0x%llx..0x%llx is not in guest memory (%llu MiB)", f->option, f->path,
			       (unsigned long long)gpa, (unsigned long long)(gpa + len),
			       (unsigned long long)(b->machine->config.memory >> 20));
	ret = boot_read(f, offset, p, len, err);
	mem_written(&b->machine->mem, gpa, len);
	return ret;
}

uint64_t boot_low_end(const struct machine *m)
{
	return m->config.memory < Q35_LOW_MAX ? m->config.memory : Q35_LOW_MAX;
}

unsigned boot_e820(const struct machine *m, struct boot_e820 map[BOOT_E820_MAX])
{
	uint64_t low = boot_low_end(m);
	unsigned n = 0;

	map[n++] = (struct boot_e820){ 0, BOOT_EBDA, 1 };
	map[n++] = (struct boot_e820){ BOOT_EBDA, 0xa0000 - BOOT_EBDA, 2 };
	map[n++] = (struct boot_e820){ BOOT_ACPI, 0x100000 - BOOT_ACPI, 2 };
	map[n++] = (struct boot_e820){ 0x100000, low - 0x100000, 1 };
	map[n++] = (struct boot_e820){ Q35_ECAM_BASE, Q35_ECAM_SIZE, 2 };
	if (m->config.memory > low)
		map[n++] = (struct boot_e820){ 4ull << 30, m->config.memory - low, 1 };
	return n;
}

int boot_place_modules(struct boot *b, uint64_t floor, uint64_t limit, struct err *err)
{
	uint64_t top = boot_low_end(b->machine);

	if (limit < top)
		top = limit;
	for (unsigned i = b->modules; i-- > 0;) {
		struct boot_file *f = &b->module[i];
		uint64_t need = (f->size + 4095) & ~4095ull;

		if (need < f->size || floor > top || need > top - floor)
			return err_set(err, ENOMEM,
				       "%s %s: its %llu MiB do not fit beside the kernel into %llu MiB of guest memory; raise --memory",
				       f->option, f->path, (unsigned long long)((f->size + 0xfffff) >> 20),
				       (unsigned long long)(b->machine->config.memory >> 20));
		top = (top - need) & ~4095ull;
		b->module_base[i] = top;
	}
	return 0;
}

int boot_load_modules(struct boot *b, struct err *err)
{
	int ret = 0;

	for (unsigned i = 0; i < b->modules && !ret; i++)
		ret = boot_read_guest(b, &b->module[i], 0, b->module_base[i], b->module[i].size, err);
	return ret;
}

/* ---- CPU states ---------------------------------------------------------- */

static void flat_segments(struct cpu_state *s, uint32_t code_attr)
{
	for (int i = 0; i < SEG_COUNT; i++)
		s->seg[i] = (struct cpu_segment){ .limit = UINT32_MAX, .attr = 0xc093, .selector = 0x18 };
	s->seg[SEG_CS].attr = code_attr;
	s->seg[SEG_CS].selector = 0x10;
	s->tr = (struct cpu_segment){ .limit = 0x67, .attr = 0x8b };
	s->ldtr = (struct cpu_segment){ .attr = SEG_ATTR_UNUSABLE };
	s->gdtr = (struct cpu_table){ .base = BOOT_GDT, .limit = 4 * 8 - 1 };
	s->idtr = (struct cpu_table){ 0 };
}

static void set_lapic(struct cpu_state *s, unsigned offset, uint32_t value)
{
	memcpy(s->lapic + offset, &value, sizeof(value));
}

/* Firmware leaves the boot processor in virtual wire mode: the PIC comes through LINT0 (MultiProcessor Specification 1.4 §3.6.2.2). */
static void virtual_wire(struct cpu_state *s)
{
	set_lapic(s, 0xf0, 0x1ff); /* SVR: enabled */
	set_lapic(s, 0x350, 0x700); /* LVT LINT0: ExtINT */
	set_lapic(s, 0x360, 0x400); /* LVT LINT1: NMI */
}

void boot_cpu_protected(struct cpu_state *s)
{
	cpu_state_reset(s, 0);
	virtual_wire(s);
	flat_segments(s, 0xc09b);
	s->cr0 = 0x11; /* PE, ET */
}

int boot_cpu_long(struct boot *b, struct cpu_state *s, struct err *err)
{
	const uint64_t gdt[4] = { 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff };
	uint64_t tables[6 * 512] = { 0 };

	/* Identity map of 4 GiB in 2 MiB pages: present, writable. */
	tables[0] = (BOOT_PAGE_TABLES + 0x1000) | 3;
	for (unsigned i = 0; i < 4; i++)
		tables[512 + i] = (BOOT_PAGE_TABLES + 0x2000 + 0x1000 * i) | 3;
	for (uint64_t i = 0; i < 2048; i++)
		tables[1024 + i] = i << 21 | 0x83;
	if (mem_write(&b->machine->mem, BOOT_PAGE_TABLES, tables, sizeof(tables)) ||
	    mem_write(&b->machine->mem, BOOT_GDT, gdt, sizeof(gdt)))
		return err_set(err, EFAULT, "no guest memory below 640 KiB");
	cpu_state_reset(s, 0);
	virtual_wire(s);
	flat_segments(s, 0xa09b);
	s->cr0 = 0x80000011; /* PG, ET, PE */
	s->cr3 = BOOT_PAGE_TABLES;
	s->cr4 = 0x20;  /* PAE */
	s->efer = 0x500; /* LMA, LME */
	return 0;
}

/* ---- Setup --------------------------------------------------------------- */

static int boot_load(void *opaque, struct machine *m, struct err *err)
{
	struct boot *b = opaque;
	int ret;

	if (b->firmware.fd >= 0)
		return b->load(b, err);
	pci_assign_resources(m);
	ret = acpi_place(&b->acpi, &m->mem, BOOT_ACPI, BOOT_RSDP, err);
	if (!ret)
		ret = smbios_place(&b->smbios, &m->mem, BOOT_SMBIOS, err);
	if (!ret)
		ret = mem_write(&m->mem, BOOT_CMDLINE, b->cmdline, strlen(b->cmdline) + 1);
	return ret ? ret : b->load(b, err);
}

static void close_file(struct boot_file *f)
{
	if (f->fd >= 0)
		close(f->fd);
}

static void boot_free(void *opaque)
{
	struct boot *b = opaque;

	close_file(&b->kernel);
	close_file(&b->firmware);
	for (unsigned i = 0; i < b->modules; i++)
		close_file(&b->module[i]);
	acpi_free(&b->acpi);
	smbios_free(&b->smbios);
	free(b->strings);
	free(b->cmdline);
	free(b->header);
	free(b->rom);
	free(b);
}

static int check_kernel(struct boot *b, struct err *err)
{
	static int (*const checks[])(struct boot *, const uint8_t *, size_t, struct err *) = {
		boot_linux_check, boot_multiboot_check, boot_pvh_check,
	};
	size_t len = b->kernel.size < BOOT_HEAD ? b->kernel.size : BOOT_HEAD;
	uint8_t *head = calloc(1, BOOT_HEAD);
	int ret;

	if (!head)
		return err_set(err, ENOMEM, "no memory to look at the kernel");
	ret = boot_read(&b->kernel, 0, head, len, err);
	for (unsigned i = 0; i < sizeof(checks) / sizeof(checks[0]) && !ret; i++)
		ret = checks[i](b, head, len, err);
	free(head);
	if (ret == 0)
		return err_set(err, EINVAL, "%s %s: not a kernel: neither a Linux bzImage, nor an ELF image with a PVH note, nor multiboot",
			       b->kernel.option, b->kernel.path);
	return ret < 0 ? ret : 0;
}

static size_t text_len(const char *s)
{
	return s ? strlen(s) + 1 : 0;
}

/* Copy a text into b->strings at *at. */
static const char *keep(char **at, const char *s)
{
	char *to = *at;

	if (!s)
		return NULL;
	strcpy(to, s);
	*at += strlen(s) + 1;
	return to;
}

static int keep_strings(struct boot *b)
{
	struct boot_file *files[BOOT_MODULES + 2] = { &b->kernel, &b->firmware };
	unsigned n = 2;
	size_t len = 1;
	char *at;

	for (unsigned i = 0; i < b->modules; i++)
		files[n++] = &b->module[i];
	for (unsigned i = 0; i < n; i++)
		len += text_len(files[i]->option) + text_len(files[i]->path) + text_len(files[i]->args);
	at = b->strings = malloc(len);
	if (!at)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++) {
		files[i]->option = keep(&at, files[i]->option);
		files[i]->path = keep(&at, files[i]->path);
		files[i]->args = keep(&at, files[i]->args);
	}
	return 0;
}

int boot_setup(struct machine *m, const struct boot_spec *spec, struct err *err)
{
	struct boot *b = calloc(1, sizeof(*b));
	int ret;

	assert((spec->kernel.fd >= 0) != (spec->firmware.fd >= 0) && spec->modules <= BOOT_MODULES);
	if (!b)
		return err_set(err, ENOMEM, "no memory for the boot image");
	b->machine = m;
	b->kernel = spec->kernel;
	b->firmware = spec->firmware;
	memcpy(b->module, spec->module, sizeof(b->module));
	b->modules = spec->modules;
	b->cmdline = strdup(spec->append ? spec->append : "");
	if (!b->cmdline || keep_strings(b))
		ret = err_set(err, ENOMEM, "no memory for the boot image");
	else if (strlen(b->cmdline) >= BOOT_CMDLINE_MAX)
		ret = err_set(err, E2BIG, "--append: the command line has %zu bytes, at most %d are allowed", strlen(b->cmdline),
			      BOOT_CMDLINE_MAX - 1);
	else
		ret = acpi_build(m, &spec->acpi, &b->acpi, err);
	if (!ret)
		ret = smbios_build(m, spec->uuid, &b->smbios, err);
	if (!ret)
		ret = b->kernel.fd >= 0 ? check_kernel(b, err) : boot_firmware_setup(b, err);
	if (ret) {
		b->kernel.fd = b->firmware.fd = -1; /* still the caller's */
		b->modules = 0;
		boot_free(b);
		return ret;
	}
	m->boot.load = boot_load;
	m->boot.free = boot_free;
	m->boot.opaque = b;
	return 0;
}
