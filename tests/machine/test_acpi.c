/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The ACPI and SMBIOS tables as a guest finds them: checksums, addresses, counts; and iasl reads the AML. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine/acpi.h"
#include "machine/boot.h"
#include "machine/smbios.h"

struct env {
	struct machine m;
	uint8_t *ram;
};

static int setup_cpus(void **state, unsigned cpus)
{
	struct env *e = calloc(1, sizeof(*e));
	struct guest_region r = { .size = 2 << 20 };

	e->ram = r.hva = calloc(1, r.size);
	e->m.config.cpus = cpus;
	e->m.config.memory = 3ull << 30;
	mem_add(&e->m.mem, &r, NULL);
	*state = e;
	return 0;
}

static int setup(void **state)
{
	return setup_cpus(state, 3);
}

static int setup_most(void **state)
{
	return setup_cpus(state, ENGINE_MAX_CPUS);
}

static int teardown(void **state)
{
	struct env *e = *state;

	free(e->ram);
	free(e);
	return 0;
}

static uint8_t sum(const uint8_t *p, size_t n)
{
	uint8_t s = 0;

	while (n--)
		s += *p++;
	return s;
}

static uint64_t get(const uint8_t *p, unsigned size)
{
	uint64_t v = 0;

	memcpy(&v, p, size);
	return v;
}

/* The table of that signature through RSDP and XSDT, checked. */
static const uint8_t *find_table(struct env *e, const char *signature)
{
	const uint8_t *rsdp = e->ram + BOOT_RSDP, *xsdt = e->ram + get(rsdp + 24, 8);
	unsigned n = (get(xsdt + 4, 4) - 36) / 8;

	assert_memory_equal(xsdt, "XSDT", 4);
	for (unsigned i = 0; i < n; i++) {
		const uint8_t *t = e->ram + get(xsdt + 36 + 8 * i, 8);

		assert_int_equal(sum(t, get(t + 4, 4)), 0);
		if (!memcmp(t, signature, 4))
			return t;
	}
	fail_msg("no table %s", signature);
	return NULL;
}

static void place(struct env *e)
{
	struct acpi_options o = { .serial = { true, true }, .pvpanic = true };
	struct acpi_tables t;

	assert_int_equal(acpi_build(&e->m, &o, &t, NULL), 0);
	assert_true(t.tables.len <= BOOT_RSDP - BOOT_ACPI);
	assert_int_equal(acpi_place(&t, &e->m.mem, BOOT_ACPI, BOOT_RSDP, NULL), 0);
	acpi_free(&t);
}

static void test_tables(void **state)
{
	struct env *e = *state;
	const uint8_t *rsdp = e->ram + BOOT_RSDP, *fadt, *madt, *t;
	unsigned cpus = 0, ioapics = 0;

	place(e);
	assert_memory_equal(rsdp, "RSD PTR ", 8);
	assert_int_equal(sum(rsdp, 20), 0);
	assert_int_equal(sum(rsdp, 36), 0);
	assert_memory_equal(e->ram + get(rsdp + 16, 4), "RSDT", 4);
	fadt = find_table(e, "FACP");
	assert_int_equal(get(fadt + 4, 4), 276);
	assert_int_equal(fadt[8], 6);
	assert_memory_equal(e->ram + get(fadt + 36, 4), "FACS", 4);
	assert_int_equal(get(fadt + 36, 4) & 63, 0);
	assert_memory_equal(e->ram + get(fadt + 40, 4), "DSDT", 4);
	assert_int_equal(get(fadt + 140, 8), get(fadt + 40, 4));
	assert_int_equal(sum(e->ram + get(fadt + 40, 4), get(e->ram + get(fadt + 40, 4) + 4, 4)), 0);
	assert_int_equal(get(fadt + 56, 4), Q35_PM_BASE);
	assert_int_equal(get(fadt + 76, 4), Q35_PM_BASE + 8);
	assert_int_equal(get(fadt + 46, 2), 9);
	/* RESET_REG: port 0xcf9, 8 bits */
	assert_int_equal(fadt[116], 1);
	assert_int_equal(get(fadt + 120, 8), 0xcf9);
	madt = find_table(e, "APIC");
	for (t = madt + 44; t < madt + get(madt + 4, 4); t += t[1]) {
		assert_true(t[1] >= 6);
		cpus += t[0] == 0 && t[4] & 1;
		ioapics += t[0] == 1 && get(t + 4, 4) == Q35_IOAPIC_BASE;
	}
	assert_int_equal(cpus, e->m.config.cpus);
	assert_int_equal(ioapics, 1);
	t = find_table(e, "MCFG");
	assert_int_equal(get(t + 44, 8), Q35_ECAM_BASE);
	t = find_table(e, "HPET");
	assert_int_equal(get(t + 44, 8), Q35_HPET_BASE);
	find_table(e, "SRAT");
	find_table(e, "SSDT");
}

/* A second opinion on the AML: ACPICA's disassembler accepts both tables and finds what should be in them. */
static void disassemble(const uint8_t *table, const char *dir, const char *name, const char *word)
{
	char path[256], command[800], line[512];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s.aml", dir, name);
	f = fopen(path, "wb");
	assert_int_equal(fwrite(table, 1, get(table + 4, 4), f), get(table + 4, 4));
	fclose(f);
	snprintf(command, sizeof(command), "iasl -d %s >/dev/null 2>%s/errors && ! grep -q 'Error' %s/errors", path, dir, dir);
	assert_int_equal(system(command), 0);
	snprintf(path, sizeof(path), "%s/%s.dsl", dir, name);
	f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		found |= !!strstr(line, word);
	fclose(f);
	assert_true(found);
}

static void test_aml_disassembles(void **state)
{
	struct env *e = *state;
	char dir[] = "/tmp/keel-acpi-XXXXXX", command[64];

	place(e);
	assert_non_null(mkdtemp(dir));
	disassemble(e->ram + get(find_table(e, "FACP") + 40, 4), dir, "dsdt", "PNP0A08");
	disassemble(find_table(e, "SSDT"), dir, "ssdt", "PNP0501");
	disassemble(find_table(e, "SSDT"), dir, "ssdt2", "QEMU0001");
	disassemble(find_table(e, "SSDT"), dir, "ssdt3", "C002");
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	assert_int_equal(system(command), 0);
}

static void test_smbios(void **state)
{
	struct env *e = *state;
	static const uint8_t uuid[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
	struct smbios_tables t;
	const uint8_t *a = e->ram + BOOT_SMBIOS, *p, *end;
	unsigned cpus = 0, types[128] = { 0 };

	assert_int_equal(smbios_build(&e->m, uuid, &t, NULL), 0);
	assert_int_equal(smbios_place(&t, &e->m.mem, BOOT_SMBIOS, NULL), 0);
	assert_memory_equal(a, "_SM3_", 5);
	assert_int_equal(sum(a, a[6]), 0);
	p = e->ram + get(a + 16, 8);
	end = p + get(a + 12, 4);
	assert_true(end <= e->ram + 0x100000);
	/* Walk: formatted part, then strings up to two zero bytes (DSP0134 §6.1.3). */
	while (p < end) {
		types[p[0] & 127]++;
		cpus += p[0] == 4;
		if (p[0] == 1)
			assert_memory_equal(p + 8, ((uint8_t[]){ 4, 3, 2, 1, 6, 5, 8, 7, 9 }), 9);
		if (p[0] == 127)
			break;
		for (p += p[1]; p[0] || p[1]; p++)
			assert_true(p < end);
		p += 2;
	}
	assert_int_equal(p[0], 127);
	assert_int_equal(cpus, e->m.config.cpus);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(types[((unsigned[]){ 0, 1, 3, 16, 17 })[i]], 1);
	smbios_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_tables, setup, teardown),
		cmocka_unit_test_setup_teardown(test_aml_disassembles, setup, teardown),
		cmocka_unit_test_setup_teardown(test_smbios, setup, teardown),
		{ "test_tables_255", test_tables, setup_most, teardown, NULL },
		{ "test_smbios_255", test_smbios, setup_most, teardown, NULL },
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
