/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The loaders over made-up images: where bytes land, what registers hold, and what broken images get. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../device/fake_machine.h"
#include "machine/boot.h"

#define MIB 0x100000u

static int file_of(const void *data, size_t len)
{
	int fd = memfd_create("image", MFD_CLOEXEC);

	assert_int_equal(write(fd, data, len), len);
	return fd;
}

struct image {
	uint8_t bytes[65536];
	size_t len;
};

static struct boot_spec spec_of(const struct image *i)
{
	struct boot_spec s = { .firmware.fd = -1, .append = "hello world" };

	s.kernel = (struct boot_file){ .option = "--kernel", .path = "image", .fd = file_of(i->bytes, i->len), .size = i->len };
	return s;
}

static void add_module(struct boot_spec *s, const char *text, const char *args)
{
	s->module[s->modules++] = (struct boot_file){ .option = "--initrd", .path = "module", .fd = file_of(text, strlen(text)),
						      .size = strlen(text), .args = args };
}

static void put16(struct image *i, size_t at, uint16_t v)
{
	memcpy(i->bytes + at, &v, 2);
}

static void put32(struct image *i, size_t at, uint32_t v)
{
	memcpy(i->bytes + at, &v, 4);
}

static void put64(struct image *i, size_t at, uint64_t v)
{
	memcpy(i->bytes + at, &v, 8);
}

/* A bzImage with two setup sectors and 4 KiB of kernel, at 2 MiB, needing 1 MiB. */
static void make_linux(struct image *i)
{
	memset(i, 0, sizeof(*i));
	i->len = 3 * 512 + 4096;
	i->bytes[0x1f1] = 2;
	put32(i, 0x1f4, 4096 / 16);
	put16(i, 0x1fe, 0xaa55);
	i->bytes[0x201] = 0x6a;
	memcpy(i->bytes + 0x202, "HdrS", 4);
	put16(i, 0x206, 0x20f);
	i->bytes[0x211] = 1;
	put32(i, 0x22c, 0x7fffffff);
	put32(i, 0x238, 2047);
	put16(i, 0x236, 1);
	put64(i, 0x258, 2 * MIB);
	put32(i, 0x260, MIB);
	for (int n = 0; n < 4096; n++)
		i->bytes[3 * 512 + n] = n * 7;
}

static uint32_t peek32(struct machine *m, uint64_t gpa)
{
	uint32_t v = 0;

	assert_int_equal(mem_read(&m->mem, gpa, &v, 4), 0);
	return v;
}

static void peek_text(struct machine *m, uint64_t gpa, const char *expected)
{
	assert_memory_equal(mem_ptr(&m->mem, gpa, strlen(expected) + 1), expected, strlen(expected) + 1);
}

static void start(struct fake_machine *f, struct boot_spec *s)
{
	struct err err = ERR_INIT;

	if (boot_setup(f->m, s, &err))
		fail_msg("%s", err.msg);
	if (f->m->boot.load(f->m->boot.opaque, f->m, &err))
		fail_msg("%s", err.msg);
}

static void test_linux(void **state)
{
	struct fake_machine *f = fake_machine_new();
	struct image i;
	struct boot_spec s;
	const struct cpu_state *c = &f->m->boot.cpu;
	uint64_t initrd;

	make_linux(&i);
	s = spec_of(&i);
	add_module(&s, "initrd contents", NULL);
	start(f, &s);
	assert_true(f->m->boot.set);
	assert_memory_equal(mem_ptr(&f->m->mem, 2 * MIB, 4096), i.bytes + 3 * 512, 4096);
	/* boot.rst, 64-bit boot protocol: long mode, flat segments 0x10 and 0x18, rsi = boot_params, interrupts off. */
	assert_int_equal(c->rip, 2 * MIB + 0x200);
	assert_int_equal(c->gpr[R_SI], BOOT_ZERO_PAGE);
	assert_int_equal(c->seg[SEG_CS].selector, 0x10);
	assert_int_equal(c->seg[SEG_DS].selector, 0x18);
	assert_true(c->seg[SEG_CS].attr & SEG_ATTR_L);
	assert_int_equal(c->rflags & 0x200, 0);
	assert_int_equal(c->efer & 0x500, 0x500);
	/* The header is copied, and filled in. */
	peek_text(f->m, BOOT_CMDLINE, "hello world");
	assert_int_equal(peek32(f->m, BOOT_ZERO_PAGE + 0x228), BOOT_CMDLINE);
	assert_int_equal(peek32(f->m, BOOT_ZERO_PAGE + 0x202), 0x53726448);
	initrd = peek32(f->m, BOOT_ZERO_PAGE + 0x218);
	assert_int_equal(peek32(f->m, BOOT_ZERO_PAGE + 0x21c), 15);
	assert_true(initrd >= 3 * MIB && initrd + 15 <= FAKE_RAM && !(initrd & 4095));
	assert_memory_equal(mem_ptr(&f->m->mem, initrd, 15), "initrd contents", 15);
	assert_int_equal(peek32(f->m, BOOT_ZERO_PAGE + 0x70), BOOT_RSDP);
	assert_memory_equal(mem_ptr(&f->m->mem, BOOT_RSDP, 8), "RSD PTR ", 8);
	fake_machine_free(f);
}

/* The page tables that the entry state points to map what the kernel needs onto itself. */
static void test_linux_page_tables(void **state)
{
	struct fake_machine *f = fake_machine_new();
	struct image i;
	struct boot_spec s;

	make_linux(&i);
	s = spec_of(&i);
	start(f, &s);
	for (uint64_t va = 0; va < 4ull << 30; va += 0x7654321) {
		uint64_t e, table = f->m->boot.cpu.cr3;

		assert_int_equal(mem_read(&f->m->mem, table + 8 * (va >> 39 & 511), &e, 8), 0);
		assert_true(e & 1);
		assert_int_equal(mem_read(&f->m->mem, (e & ~0xfffull) + 8 * (va >> 30 & 511), &e, 8), 0);
		assert_true(e & 1);
		assert_int_equal(mem_read(&f->m->mem, (e & ~0xfffull) + 8 * (va >> 21 & 511), &e, 8), 0);
		assert_int_equal(e & 0x83, 0x83);
		assert_int_equal(e & ~0x1fffffull, va & ~0x1fffffull);
	}
	fake_machine_free(f);
}

static void test_e820_covers_memory(void **state)
{
	struct machine m = { .config.memory = 6ull << 30 };
	struct boot_e820 map[BOOT_E820_MAX];
	unsigned n = boot_e820(&m, map);
	uint64_t ram = 0;

	for (unsigned i = 0; i < n; i++) {
		ram += map[i].type == 1 ? map[i].size : 0;
		for (unsigned k = 0; k < i; k++)
			assert_true(map[i].addr >= map[k].addr + map[k].size || map[k].addr >= map[i].addr + map[i].size);
	}
	/* All but the hole below 1 MiB. */
	assert_int_equal(ram, m.config.memory - (MIB - BOOT_EBDA));
}

/* A 64-bit ELF with one segment at 1 MiB (file offset 0x1000) and a note segment (offset 0x800). */
static void make_pvh(struct image *i)
{
	Elf64_Ehdr h = { .e_ident = ELFMAG "\2\1\1", .e_type = ET_EXEC, .e_machine = EM_X86_64, .e_version = 1, .e_entry = 0xffff,
			 .e_phoff = 64, .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 2 };
	Elf64_Phdr p[2] = { { .p_type = PT_LOAD, .p_offset = 0x1000, .p_paddr = MIB, .p_vaddr = 0xffffffff80000000, .p_filesz = 0x800,
			      .p_memsz = 0x2000 },
			    { .p_type = PT_NOTE, .p_offset = 0x800, .p_filesz = 20 } };
	Elf64_Nhdr n = { .n_namesz = 4, .n_descsz = 4, .n_type = 18 };

	memset(i, 0, sizeof(*i));
	i->len = 0x2000;
	memcpy(i->bytes, &h, sizeof(h));
	memcpy(i->bytes + 64, p, sizeof(p));
	memcpy(i->bytes + 0x800, &n, sizeof(n));
	memcpy(i->bytes + 0x80c, "Xen", 4);
	put32(i, 0x810, MIB + 0x40);
	memset(i->bytes + 0x1000, 0xab, 0x800);
}

static void test_pvh(void **state)
{
	struct fake_machine *f = fake_machine_new();
	struct image i;
	struct boot_spec s;
	uint32_t info;

	make_pvh(&i);
	s = spec_of(&i);
	add_module(&s, "mod", NULL);
	memset(mem_ptr_w(&f->m->mem, MIB, 0x2000), 0x55, 0x2000);
	start(f, &s);
	assert_int_equal(peek32(f->m, MIB), 0xabababab);
	assert_int_equal(peek32(f->m, MIB + 0x7fc), 0xabababab);
	assert_int_equal(peek32(f->m, MIB + 0x800), 0); /* bss */
	assert_int_equal(peek32(f->m, MIB + 0x1ffc), 0);
	assert_int_equal(f->m->boot.cpu.rip, MIB + 0x40);
	assert_int_equal(f->m->boot.cpu.cr0 & 0x80000001, 1);
	info = f->m->boot.cpu.gpr[R_BX];
	assert_int_equal(peek32(f->m, info), 0x336ec578);
	assert_int_equal(peek32(f->m, info + 12), 1);
	peek_text(f->m, peek32(f->m, info + 24), "hello world");
	assert_memory_equal(mem_ptr(&f->m->mem, peek32(f->m, peek32(f->m, info + 16)), 3), "mod", 3);
	assert_int_equal(peek32(f->m, peek32(f->m, info + 16) + 8), 3);
	assert_true(peek32(f->m, info + 48) >= 4);
	fake_machine_free(f);
}

/* Multiboot with addresses in the header, at file offset 0x20. */
static void make_multiboot(struct image *i)
{
	const uint32_t flags = 0x10003;

	memset(i, 0, sizeof(*i));
	i->len = 0x1000;
	put32(i, 0x20, 0x1badb002);
	put32(i, 0x24, flags);
	put32(i, 0x28, 0u - 0x1badb002 - flags);
	put32(i, 0x2c, MIB + 0x20); /* header_addr */
	put32(i, 0x30, MIB);        /* load_addr */
	put32(i, 0x34, 0);          /* load_end: whole file */
	put32(i, 0x38, MIB + 0x3000);
	put32(i, 0x3c, MIB + 0x80);
	memset(i->bytes + 0x80, 0xcd, 0x100);
}

static void test_multiboot(void **state)
{
	struct fake_machine *f = fake_machine_new();
	struct image i;
	struct boot_spec s;
	uint32_t info, mods;

	make_multiboot(&i);
	s = spec_of(&i);
	add_module(&s, "one", "first args");
	add_module(&s, "three", NULL);
	start(f, &s);
	assert_memory_equal(mem_ptr(&f->m->mem, MIB, 0x1000), i.bytes, 0x1000);
	assert_int_equal(f->m->boot.cpu.rip, MIB + 0x80);
	assert_int_equal(f->m->boot.cpu.gpr[R_AX], 0x2badb002);
	info = f->m->boot.cpu.gpr[R_BX];
	assert_int_equal(peek32(f->m, info) & 0x4d, 0x4d);
	assert_int_equal(peek32(f->m, info + 8), FAKE_RAM / 1024 - 1024);
	peek_text(f->m, peek32(f->m, info + 16), "hello world");
	assert_int_equal(peek32(f->m, info + 20), 2);
	mods = peek32(f->m, info + 24);
	assert_memory_equal(mem_ptr(&f->m->mem, peek32(f->m, mods), 3), "one", 3);
	assert_int_equal(peek32(f->m, mods + 4) - peek32(f->m, mods), 3);
	peek_text(f->m, peek32(f->m, mods + 8), "first args");
	assert_memory_equal(mem_ptr(&f->m->mem, peek32(f->m, mods + 16), 5), "three", 5);
	fake_machine_free(f);
}

static void check_refused(struct fake_machine *f, struct boot_spec s, const char *word)
{
	struct err err = ERR_INIT;

	assert_int_not_equal(boot_setup(f->m, &s, &err), 0);
	if (!strstr(err.msg, word) || strncmp(err.msg, "--", 2))
		fail_msg("'%s' lacks '%s'", err.msg, word);
	/* The files are still ours. */
	assert_int_equal(close(s.kernel.fd), 0);
	for (unsigned n = 0; n < s.modules; n++)
		assert_int_equal(close(s.module[n].fd), 0);
}

static void test_broken_images(void **state)
{
	struct fake_machine *f = fake_machine_new();
	struct image i;
	struct boot_spec s;
	char big[4000];

	make_linux(&i);
	put32(&i, 0x1f4, 0x100000);
	check_refused(f, spec_of(&i), "truncated");
	make_linux(&i);
	put16(&i, 0x206, 0x20a);
	check_refused(f, spec_of(&i), "64-bit");
	make_linux(&i);
	put32(&i, 0x260, 64 * MIB);
	check_refused(f, spec_of(&i), "--memory");
	make_linux(&i);
	put64(&i, 0x258, UINT64_MAX - 4095);
	check_refused(f, spec_of(&i), "--memory");
	make_linux(&i);
	s = spec_of(&i);
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	s.append = big;
	check_refused(f, s, "--append");
	make_linux(&i);
	s = spec_of(&i);
	add_module(&s, "a", NULL);
	add_module(&s, "b", NULL);
	check_refused(f, s, "one initrd");
	make_linux(&i);
	s = spec_of(&i);
	add_module(&s, "a", NULL);
	s.module[0].size = 32 * MIB;
	check_refused(f, s, "do not fit");

	make_pvh(&i);
	put64(&i, 64 + 24, 32 * MIB);
	check_refused(f, spec_of(&i), "does not fit");
	make_pvh(&i);
	put64(&i, 64 + 32, UINT64_MAX);
	check_refused(f, spec_of(&i), "truncated");
	make_pvh(&i);
	put64(&i, 64 + 24, 0x1000);
	check_refused(f, spec_of(&i), "below 1 MiB");
	make_pvh(&i);
	put64(&i, 32, UINT64_MAX - 8);
	check_refused(f, spec_of(&i), "truncated");
	make_pvh(&i);
	put32(&i, 0x810, 5);
	check_refused(f, spec_of(&i), "entry point");
	make_pvh(&i);
	i.bytes[0x80c] = 'Y';
	check_refused(f, spec_of(&i), "PVH");

	make_multiboot(&i);
	put32(&i, 0x30, MIB + 0x40);
	check_refused(f, spec_of(&i), "load address");
	make_multiboot(&i);
	put32(&i, 0x34, 64 * MIB);
	check_refused(f, spec_of(&i), "truncated");
	make_multiboot(&i);
	put32(&i, 0x38, 0xffffffff);
	check_refused(f, spec_of(&i), "guest memory");
	make_multiboot(&i);
	put32(&i, 0x24, 0x10013);
	put32(&i, 0x28, 0u - 0x1badb002 - 0x10013);
	check_refused(f, spec_of(&i), "requires");

	memset(&i, 0, sizeof(i));
	i.len = 1;
	check_refused(f, spec_of(&i), "not a kernel");
	fake_machine_free(f);
}

/* A file that shrinks between two resets. */
static void test_file_that_shrinks(void **state)
{
	struct fake_machine *f = fake_machine_new();
	struct err err = ERR_INIT;
	struct image i;
	struct boot_spec s;

	make_linux(&i);
	s = spec_of(&i);
	start(f, &s);
	assert_int_equal(ftruncate(s.kernel.fd, 2000), 0);
	assert_int_equal(f->m->boot.load(f->m->boot.opaque, f->m, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "truncated"));
	fake_machine_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_linux), cmocka_unit_test(test_linux_page_tables), cmocka_unit_test(test_e820_covers_memory),
		cmocka_unit_test(test_pvh), cmocka_unit_test(test_multiboot), cmocka_unit_test(test_broken_images),
		cmocka_unit_test(test_file_that_shrinks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
