/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test.h"

#include <errno.h>

#include "device/fw_cfg.h"

static struct fake_machine *start(void)
{
	struct fake_machine *f = fake_machine_new();

	fake_device(f, "fw_cfg", NULL);
	assert_non_null(f->m->fw_cfg);
	return f;
}

static void select_key(struct fake_machine *f, uint16_t key)
{
	fake_out(f, 0x510, key, 2);
}

/* Little-endian number through the data port. */
static uint64_t number(struct fake_machine *f, uint16_t key, unsigned size)
{
	uint64_t value = 0;

	select_key(f, key);
	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)fake_in(f, 0x511, 1) << 8 * i;
	return value;
}

static uint32_t big(struct fake_machine *f, unsigned size)
{
	uint32_t value = 0;

	while (size--)
		value = value << 8 | fake_in(f, 0x511, 1);
	return value;
}

static void test_standard_items(void **state)
{
	struct fake_machine *f = start();

	assert_int_equal(number(f, 0, 4), 0x554d4551); /* "QEMU" */
	assert_int_equal(fake_in(f, 0x511, 1), 0);     /* past the end */
	assert_int_equal(number(f, 1, 4), 3);
	assert_int_equal(number(f, 3, 8), FAKE_RAM);
	assert_int_equal(number(f, 5, 2), 1);
	assert_int_equal(number(f, 0x0f, 2), 1);
	assert_int_equal(number(f, 0x7777, 4), 0);
	fake_machine_free(f);
}

static void test_files(void **state)
{
	struct fake_machine *f = start();
	struct err err = ERR_INIT;
	char name[57];
	size_t len;
	unsigned key;

	assert_int_equal(fw_cfg_add_file(f->m->fw_cfg, "etc/a", "hello", 5, &err), 0);
	assert_int_equal(fw_cfg_add_file(f->m->fw_cfg, "etc/b", "", 0, &err), 0);
	assert_int_equal(fw_cfg_add_file(f->m->fw_cfg, "etc/a", "x", 1, &err), -EEXIST);
	memset(name, 'n', 56);
	name[56] = 0;
	err = ERR_INIT;
	assert_int_equal(fw_cfg_add_file(f->m->fw_cfg, name, "x", 1, &err), -EINVAL);
	name[55] = 0;
	assert_int_equal(fw_cfg_add_file(f->m->fw_cfg, name, "x", 1, NULL), 0);
	assert_int_equal(fw_cfg_add(f->m->fw_cfg, 3, "x", 1, NULL), -EEXIST);
	assert_int_equal(fw_cfg_add(f->m->fw_cfg, 0x8005, "xy", 2, NULL), 0);
	assert_int_equal(number(f, 0x8005, 2), 'x' | 'y' << 8);

	select_key(f, 0x19);
	assert_int_equal(big(f, 4), 3);
	assert_int_equal(big(f, 4), 5);
	key = big(f, 2);
	assert_true(key >= 0x20);
	big(f, 2);
	for (unsigned i = 0; i < 56; i++)
		name[i] = fake_in(f, 0x511, 1);
	assert_string_equal(name, "etc/a");
	select_key(f, key);
	assert_int_equal(big(f, 4), 0x68656c6c);
	assert_int_equal(big(f, 4), 0x6f000000);
	assert_memory_equal(fw_cfg_file(f->m->fw_cfg, "etc/a", &len), "hello", 5);
	assert_int_equal(len, 5);
	assert_null(fw_cfg_file(f->m->fw_cfg, "etc/c", &len));
	fake_machine_free(f);
}

static void test_full(void **state)
{
	struct fake_machine *f = start();
	char name[16];
	int ret = 0;
	unsigned n;

	for (n = 0; n < 1000 && !ret; n++) {
		snprintf(name, sizeof(name), "f%u", n);
		ret = fw_cfg_add_file(f->m->fw_cfg, name, "x", 1, NULL);
	}
	assert_int_equal(ret, -ENOSPC);
	assert_true(n > 100);
	fake_machine_free(f);
}

/* A request at 0x1000 of guest memory. */
static uint32_t dma(struct fake_machine *f, uint32_t control, uint32_t len, uint64_t address)
{
	struct {
		uint32_t control, len;
		uint64_t address;
	} d = { __builtin_bswap32(control), __builtin_bswap32(len), __builtin_bswap64(address) };

	memcpy(f->m->ram + 0x1000, &d, sizeof(d));
	fake_out(f, 0x514, 0, 4);
	fake_out(f, 0x518, __builtin_bswap32(0x1000), 4);
	memcpy(&d, f->m->ram + 0x1000, sizeof(d));
	return __builtin_bswap32(d.control);
}

static void test_dma(void **state)
{
	struct fake_machine *f = start();
	uint8_t *ram = f->m->ram;

	assert_int_equal(fake_in(f, 0x514, 4), 0x554d4551); /* "QEMU CFG", big-endian */
	assert_int_equal(fake_in(f, 0x518, 4), 0x47464320);
	assert_int_equal(fw_cfg_add(f->m->fw_cfg, 0x30, "0123456789", 10, NULL), 0);
	memset(ram + 0x2000, 0xee, 64);
	assert_int_equal(dma(f, 0x30 << 16 | 0x08 | 0x02, 4, 0x2000), 0);
	assert_memory_equal(ram + 0x2000, "0123\xee", 5);
	assert_true(f->engine->written_bytes >= 4);
	assert_int_equal(dma(f, 0x04, 2, 0), 0); /* skip */
	assert_int_equal(dma(f, 0x02, 8, 0x2010), 0);
	assert_memory_equal(ram + 0x2010, "6789\0\0\0\0\xee", 9);
	assert_int_equal(dma(f, 0x04, 0xffffffff, 0), 0);
	assert_int_equal(fake_in(f, 0x511, 1), 0);
	/* The two ways share the position. */
	assert_int_equal(dma(f, 0x30 << 16 | 0x08, 0, 0), 0);
	assert_int_equal(fake_in(f, 0x511, 1), '0');
	assert_int_equal(dma(f, 0x02, 1, 0x2020), 0);
	assert_int_equal(ram[0x2020], '1');
	fake_machine_free(f);
}

static void test_dma_refusals(void **state)
{
	struct fake_machine *f = start();
	uint8_t before[64];

	/* Writing. */
	assert_int_equal(dma(f, 0x00 << 16 | 0x08 | 0x10, 4, 0x2000), 1);
	assert_int_equal(number(f, 0, 4), 0x554d4551);
	/* Outside of RAM, over its end, around the end of the world. */
	assert_int_equal(dma(f, 0x08 | 0x02, 4, FAKE_RAM), 1);
	assert_int_equal(dma(f, 0x08 | 0x02, 16, FAKE_RAM - 8), 1);
	assert_int_equal(dma(f, 0x08 | 0x02, 16, UINT64_MAX - 3), 1);
	assert_int_equal(dma(f, 0x08 | 0x02, 0xffffffff, 0x2000), 1);
	/* An item that does not exist reads zeros. */
	memset(f->m->ram + 0x2000, 0xee, 8);
	assert_int_equal(dma(f, 0x3fffu << 16 | 0x08 | 0x02, 4, 0x2000), 0);
	assert_memory_equal(f->m->ram + 0x2000, "\0\0\0\0\xee", 5);
	/* A request that is nowhere. */
	memcpy(before, f->m->ram, sizeof(before));
	fake_out(f, 0x514, 0xffffffff, 4);
	fake_out(f, 0x518, 0xfcffffff, 4);
	fake_out(f, 0x514, 0, 2);
	assert_memory_equal(f->m->ram, before, sizeof(before));
	fake_machine_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_standard_items), cmocka_unit_test(test_files), cmocka_unit_test(test_full),
		cmocka_unit_test(test_dma), cmocka_unit_test(test_dma_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
