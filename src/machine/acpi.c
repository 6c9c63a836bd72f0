/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/acpi.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dsdt.hex"
#include "machine/aml.h"

/* ---- The loader's script: what firmware does with the files (QEMU docs/specs, bios-linker-loader) --- */

enum { LOADER_ALLOCATE = 1, LOADER_ADD_POINTER = 2, LOADER_ADD_CHECKSUM = 3 };
enum { ZONE_HIGH = 1, ZONE_FSEG = 2 };
#define TABLES_FILE "etc/acpi/tables"
#define RSDP_FILE "etc/acpi/rsdp"

struct loader_entry {
	uint32_t command;
	union {
		struct {
			char file[56];
			uint32_t align;
			uint8_t zone;
		} __attribute__((packed)) allocate;
		struct {
			char dest[56], src[56];
			uint32_t offset;
			uint8_t size;
		} __attribute__((packed)) pointer;
		struct {
			char file[56];
			uint32_t offset, start, length;
		} __attribute__((packed)) checksum;
		uint8_t pad[124];
	};
} __attribute__((packed));
_Static_assert(sizeof(struct loader_entry) == 128, "an entry of the script is 128 bytes long");

static void script_allocate(struct acpi_tables *t, const char *file, uint32_t align, uint8_t zone)
{
	struct loader_entry e = { .command = LOADER_ALLOCATE, .allocate = { .align = align, .zone = zone } };

	strcpy(e.allocate.file, file);
	state_buf_put(&t->loader, &e, sizeof(e));
}

static void script_pointer(struct acpi_tables *t, const char *dest, uint32_t offset, uint8_t size)
{
	struct loader_entry e = { .command = LOADER_ADD_POINTER, .pointer = { .offset = offset, .size = size } };

	strcpy(e.pointer.dest, dest);
	strcpy(e.pointer.src, TABLES_FILE);
	state_buf_put(&t->loader, &e, sizeof(e));
}

static void script_checksum(struct acpi_tables *t, const char *file, uint32_t offset, uint32_t start, uint32_t length)
{
	struct loader_entry e = { .command = LOADER_ADD_CHECKSUM,
				  .checksum = { .offset = offset, .start = start, .length = length } };

	strcpy(e.checksum.file, file);
	state_buf_put(&t->loader, &e, sizeof(e));
}

int acpi_place(const struct acpi_tables *t, const struct guest_mem *mem, uint64_t gpa, uint64_t rsdp_gpa, struct err *err)
{
	uint8_t *tables = malloc(t->tables.len), rsdp[sizeof(t->rsdp)];
	int ret;

	if (!tables)
		return err_set(err, ENOMEM, "no memory for the ACPI tables");
	memcpy(tables, t->tables.data, t->tables.len);
	memcpy(rsdp, t->rsdp, sizeof(rsdp));
	for (size_t i = 0; i < t->loader.len; i += sizeof(struct loader_entry)) {
		const struct loader_entry *e = (const void *)(t->loader.data + i);
		uint64_t value = 0;

		if (e->command == LOADER_ADD_POINTER) {
			uint8_t *p = (strcmp(e->pointer.dest, RSDP_FILE) ? tables : rsdp) + e->pointer.offset;

			memcpy(&value, p, e->pointer.size);
			value += gpa;
			memcpy(p, &value, e->pointer.size);
		} else if (e->command == LOADER_ADD_CHECKSUM) {
			uint8_t *p = strcmp(e->checksum.file, RSDP_FILE) ? tables : rsdp;
			uint8_t sum = 0;

			for (uint32_t n = 0; n < e->checksum.length; n++)
				sum += p[e->checksum.start + n];
			p[e->checksum.offset] -= sum;
		}
	}
	ret = mem_write(mem, gpa, tables, t->tables.len);
	if (!ret)
		ret = mem_write(mem, rsdp_gpa, rsdp, sizeof(rsdp));
	free(tables);
	return ret ? err_set(err, EFAULT, "the ACPI tables do not fit into guest memory at 0x%llx", (unsigned long long)gpa)
		   : 0;
}

/* ---- Tables -------------------------------------------------------------- */

struct header { /* ACPI 6.4 §5.2.6 */
	char signature[4];
	uint32_t length;
	uint8_t revision, checksum;
	char oem[6], oem_table[8];
	uint32_t oem_revision;
	char creator[4];
	uint32_t creator_revision;
} __attribute__((packed));

static void put(struct acpi_tables *t, const void *data, size_t len)
{
	state_buf_put(&t->tables, data, len);
}

static void put8(struct acpi_tables *t, uint8_t v)
{
	put(t, &v, 1);
}

static void put16(struct acpi_tables *t, uint16_t v)
{
	put(t, &v, 2);
}

static void put32(struct acpi_tables *t, uint32_t v)
{
	put(t, &v, 4);
}

static void put64(struct acpi_tables *t, uint64_t v)
{
	put(t, &v, 8);
}

static size_t table_begin(struct acpi_tables *t, const char *signature, uint8_t revision)
{
	struct header h = { .revision = revision, .oem = "KEEL  ", .oem_table = "KEELQ35 ", .oem_revision = 1,
			    .creator = "KEEL", .creator_revision = 1 };
	size_t at;

	while (t->tables.len & 7)
		put8(t, 0);
	at = t->tables.len;
	memcpy(h.signature, signature, 4);
	put(t, &h, sizeof(h));
	return at;
}

static void table_end(struct acpi_tables *t, size_t at)
{
	struct header *h = (struct header *)(t->tables.data + at);

	if (t->tables.failed)
		return;
	h->length = t->tables.len - at;
	script_checksum(t, TABLES_FILE, at + offsetof(struct header, checksum), at, h->length);
}

/* A field that holds the address of the table at `target`. */
static void pointer(struct acpi_tables *t, size_t target, unsigned size)
{
	uint64_t v = target;

	script_pointer(t, TABLES_FILE, t->tables.len, size);
	put(t, &v, size);
}

static void gas_io(struct acpi_tables *t, uint16_t port, uint8_t bits, uint8_t access)
{
	put8(t, 1); /* system I/O */
	put8(t, bits);
	put8(t, 0);
	put8(t, access);
	put64(t, port);
}

static size_t build_facs(struct acpi_tables *t)
{
	size_t at = t->tables.len;

	assert(!(at & 63));
	put(t, "FACS", 4);
	put32(t, 64);
	for (int i = 0; i < 6; i++)
		put32(t, 0);
	put8(t, 2); /* version */
	for (int i = 0; i < 31; i++)
		put8(t, 0);
	return at;
}

static size_t build_dsdt(struct acpi_tables *t)
{
	size_t at;

	while (t->tables.len & 7)
		put8(t, 0);
	at = t->tables.len;
	put(t, dsdt_aml_code, sizeof(dsdt_aml_code));
	if (!t->tables.failed)
		((struct header *)(t->tables.data + at))->checksum = 0;
	script_checksum(t, TABLES_FILE, at + offsetof(struct header, checksum), at, sizeof(dsdt_aml_code));
	return at;
}

static void ssdt_serial(struct aml *a, unsigned n)
{
	static const struct {
		uint16_t port;
		uint8_t irq;
	} com[4] = { { 0x3f8, 4 }, { 0x2f8, 3 }, { 0x3e8, 4 }, { 0x2e8, 3 } };
	char name[] = { 'C', 'O', 'M', '1' + n, 0 };

	aml_open_device(a, name);
	aml_name(a, "_HID");
	aml_eisaid(a, "PNP0501");
	aml_name(a, "_UID");
	aml_int(a, n + 1);
	aml_name(a, "_CRS");
	aml_io_irq(a, com[n].port, 8, com[n].irq);
	aml_close(a);
}

/*
 * Pin n of device d on bus 0 is GSI 16 + ((d + n) & 7) (ACPI 6.4 §6.2.13). A
 * constant, not a method: Linux evaluates it for every device and bridge.
 */
static void ssdt_prt(struct aml *a)
{
	aml_open_scope(a, "\\_SB.PCI0");
	aml_name(a, "_PRT");
	aml_open_package(a, 128);
	for (unsigned i = 0; i < 128; i++) {
		aml_open_package(a, 4);
		aml_int(a, (i >> 2) << 16 | 0xffff);
		aml_int(a, i & 3);
		aml_int(a, 0);
		aml_int(a, 16 + (((i >> 2) + (i & 3)) & 7));
		aml_close(a);
	}
	aml_close(a);
	aml_close(a);
}

static size_t build_ssdt(struct acpi_tables *t, const struct machine *m, const struct acpi_options *o)
{
	size_t at = table_begin(t, "SSDT", 2);
	struct aml a = { 0 };

	ssdt_prt(&a);
	aml_open_scope(&a, "\\_SB.PCI0.LPC");
	for (unsigned i = 0; i < 4; i++)
		if (o->serial[i])
			ssdt_serial(&a, i);
	if (o->pvpanic) {
		aml_open_device(&a, "PEVT");
		aml_name(&a, "_HID");
		aml_string(&a, "QEMU0001");
		aml_name(&a, "_STA");
		aml_int(&a, 0x0f);
		aml_name(&a, "PEST");
		aml_int(&a, 3); /* panicked and crash loaded can be told */
		aml_name(&a, "_CRS");
		aml_io_irq(&a, 0x505, 1, 0);
		aml_close(&a);
	}
	aml_close(&a);
	aml_open_scope(&a, "\\_SB");
	for (unsigned i = 0; i < m->config.cpus; i++) {
		char name[8];

		snprintf(name, sizeof(name), "C%03X", i & 0xfff);
		aml_open_device(&a, name);
		aml_name(&a, "_HID");
		aml_string(&a, "ACPI0007");
		aml_name(&a, "_UID");
		aml_int(&a, i);
		aml_close(&a);
	}
	aml_close(&a);
	if (a.buf.failed)
		t->tables.failed = true;
	else
		put(t, a.buf.data, a.buf.len);
	state_buf_free(&a.buf);
	table_end(t, at);
	return at;
}

/* ACPI 6.4 §5.2.9. */
static size_t build_fadt(struct acpi_tables *t, size_t facs, size_t dsdt)
{
	size_t at = table_begin(t, "FACP", 6);

	pointer(t, facs, 4);
	pointer(t, dsdt, 4);
	put8(t, 0);
	put8(t, 1); /* preferred profile: desktop */
	put16(t, 9); /* SCI */
	put32(t, 0xb2); /* SMI command port; ACPI mode is on from the start, so no commands */
	put32(t, 0); /* ACPI_ENABLE, ACPI_DISABLE, S4BIOS_REQ, PSTATE_CNT */
	put32(t, Q35_PM_BASE);
	put32(t, 0);
	put32(t, Q35_PM_BASE + 4);
	put32(t, 0);
	put32(t, 0);
	put32(t, Q35_PM_BASE + 8);
	put32(t, Q35_PM_BASE + 0x20);
	put32(t, 0);
	put8(t, 4);
	put8(t, 2);
	put8(t, 0);
	put8(t, 4);
	put8(t, 16); /* GPE0 block length */
	put8(t, 0);
	put8(t, 0);
	put8(t, 0);
	put16(t, 0xfff); /* no C2, no C3 */
	put16(t, 0xfff);
	put16(t, 0);
	put16(t, 0);
	put8(t, 0);
	put8(t, 0);
	put8(t, 0);
	put8(t, 0);
	put8(t, 0x32); /* century byte of the RTC */
	put16(t, 0x0003 | 1 << 2); /* legacy devices, i8042; no VGA */
	put8(t, 0);
	/* WBINVD, C1, no fixed sleep button, no fixed RTC wake, 32-bit timer, reset register: §5.2.9 table 5.10 */
	put32(t, 1 << 0 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 10);
	gas_io(t, 0xcf9, 8, 1);
	put8(t, 0x0f);
	put16(t, 0);
	put8(t, 0); /* minor version */
	pointer(t, facs, 8);
	pointer(t, dsdt, 8);
	gas_io(t, Q35_PM_BASE, 32, 2);
	gas_io(t, 0, 0, 0);
	gas_io(t, Q35_PM_BASE + 4, 16, 2);
	gas_io(t, 0, 0, 0);
	gas_io(t, 0, 0, 0);
	gas_io(t, Q35_PM_BASE + 8, 32, 3);
	gas_io(t, Q35_PM_BASE + 0x20, 128, 1);
	gas_io(t, 0, 0, 0);
	gas_io(t, 0, 0, 0); /* sleep control */
	gas_io(t, 0, 0, 0); /* sleep status */
	put64(t, 0x4c45454b); /* hypervisor vendor "KEEL" */
	table_end(t, at);
	return at;
}

/* ACPI 6.4 §5.2.12. */
static size_t build_madt(struct acpi_tables *t, const struct machine *m)
{
	size_t at = table_begin(t, "APIC", 5);

	put32(t, 0xfee00000);
	put32(t, 1); /* PCAT_COMPAT: there are 8259s too */
	for (unsigned i = 0; i < m->config.cpus; i++) {
		put8(t, 0);
		put8(t, 8);
		put8(t, i);
		put8(t, i);
		put32(t, 1);
	}
	put8(t, 1); /* IOAPIC */
	put8(t, 12);
	put8(t, 0);
	put8(t, 0);
	put32(t, Q35_IOAPIC_BASE);
	put32(t, 0);
	put8(t, 2); /* ISA IRQ 0 is pin 2 */
	put8(t, 10);
	put8(t, 0);
	put8(t, 0);
	put32(t, 2);
	put16(t, 0);
	put8(t, 2); /* SCI: level, active high */
	put8(t, 10);
	put8(t, 0);
	put8(t, 9);
	put32(t, 9);
	put16(t, 0x0d);
	put8(t, 4); /* NMI on LINT1 of all */
	put8(t, 6);
	put8(t, 0xff);
	put16(t, 0);
	put8(t, 1);
	table_end(t, at);
	return at;
}

static size_t build_hpet(struct acpi_tables *t)
{
	size_t at = table_begin(t, "HPET", 1);

	put32(t, 0x8086a201); /* as the capabilities register: 3 timers, 64 bits, legacy routes */
	put8(t, 0); /* system memory */
	put8(t, 64);
	put8(t, 0);
	put8(t, 0);
	put64(t, Q35_HPET_BASE);
	put8(t, 0);
	put16(t, 100);
	put8(t, 0);
	table_end(t, at);
	return at;
}

/* PCI Firmware Specification 3.2 §4.1.2. */
static size_t build_mcfg(struct acpi_tables *t)
{
	size_t at = table_begin(t, "MCFG", 1);

	put64(t, 0);
	put64(t, Q35_ECAM_BASE);
	put16(t, 0);
	put8(t, 0);
	put8(t, 255);
	put32(t, 0);
	table_end(t, at);
	return at;
}

static void srat_memory(struct acpi_tables *t, uint64_t base, uint64_t size)
{
	put8(t, 1);
	put8(t, 40);
	put32(t, 0); /* domain */
	put16(t, 0);
	put64(t, base);
	put64(t, size);
	put32(t, 0);
	put32(t, 1); /* enabled */
	put64(t, 0);
}

/* ACPI 6.4 §5.2.16: one domain. */
static size_t build_srat(struct acpi_tables *t, const struct machine *m)
{
	uint64_t low = m->config.memory < Q35_LOW_MAX ? m->config.memory : Q35_LOW_MAX;
	size_t at = table_begin(t, "SRAT", 3);

	put32(t, 1);
	put64(t, 0);
	for (unsigned i = 0; i < m->config.cpus; i++) {
		put8(t, 0);
		put8(t, 16);
		put8(t, 0);
		put8(t, i);
		put32(t, 1);
		put8(t, 0);
		put8(t, 0);
		put16(t, 0);
		put32(t, 0);
	}
	srat_memory(t, 0, low);
	if (m->config.memory > low)
		srat_memory(t, 4ull << 30, m->config.memory - low);
	table_end(t, at);
	return at;
}

static size_t build_xsdt(struct acpi_tables *t, const size_t *tables, unsigned n)
{
	size_t at = table_begin(t, "XSDT", 1);

	for (unsigned i = 0; i < n; i++)
		pointer(t, tables[i], 8);
	table_end(t, at);
	return at;
}

static size_t build_rsdt(struct acpi_tables *t, const size_t *tables, unsigned n)
{
	size_t at = table_begin(t, "RSDT", 1);

	for (unsigned i = 0; i < n; i++)
		pointer(t, tables[i], 4);
	table_end(t, at);
	return at;
}

static void build_rsdp(struct acpi_tables *t, uint32_t rsdt, uint64_t xsdt)
{
	const uint32_t length = sizeof(t->rsdp);

	memcpy(t->rsdp, "RSD PTR ", 8);
	memcpy(t->rsdp + 9, "KEEL  ", 6);
	t->rsdp[15] = 2;
	memcpy(t->rsdp + 16, &rsdt, 4);
	memcpy(t->rsdp + 20, &length, 4);
	memcpy(t->rsdp + 24, &xsdt, 8);
	script_pointer(t, RSDP_FILE, 16, 4);
	script_pointer(t, RSDP_FILE, 24, 8);
	script_checksum(t, RSDP_FILE, 8, 0, 20);
	script_checksum(t, RSDP_FILE, 32, 0, sizeof(t->rsdp));
}

int acpi_build(const struct machine *m, const struct acpi_options *o, struct acpi_tables *t, struct err *err)
{
	size_t facs, dsdt, tables[6];

	memset(t, 0, sizeof(*t));
	script_allocate(t, RSDP_FILE, 16, ZONE_FSEG);
	script_allocate(t, TABLES_FILE, 64, ZONE_HIGH);
	facs = build_facs(t);
	dsdt = build_dsdt(t);
	tables[0] = build_fadt(t, facs, dsdt);
	tables[1] = build_ssdt(t, m, o);
	tables[2] = build_madt(t, m);
	tables[3] = build_hpet(t);
	tables[4] = build_mcfg(t);
	tables[5] = build_srat(t, m);
	build_rsdp(t, build_rsdt(t, tables, 6), build_xsdt(t, tables, 6));
	if (t->tables.failed || t->loader.failed)
		return err_set(err, ENOMEM, "no memory for the ACPI tables");
	return 0;
}

void acpi_free(struct acpi_tables *t)
{
	state_buf_free(&t->tables);
	state_buf_free(&t->loader);
}
