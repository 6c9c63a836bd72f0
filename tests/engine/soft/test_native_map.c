/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which bytes of a page of code would tell of the host: what native_map.c says of
 * the C library and the dynamic linker, page by page, against objdump, which
 * decodes them from their symbols on. With arguments: of those programs and
 * libraries; data among their code may leave places in doubt.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/soft/native_map.c"

struct text {
	uint8_t *bytes;
	uint64_t size, vaddr, offset; /* of .text: in memory and in the file */
	uint8_t *is_opcode;           /* by place in .text: objdump says that the 0F of such an instruction is there */
	unsigned opcodes;
};

static void text_find(struct text *t, const char *path)
{
	char command[300], line[512];
	FILE *f;

	snprintf(command, sizeof(command), "readelf -SW %s", path);
	f = popen(command, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		char *at = strstr(line, " .text ");

		if (at && sscanf(at, " .text PROGBITS %lx %lx %lx", &t->vaddr, &t->offset, &t->size) == 3)
			break;
	}
	while (fgets(line, sizeof(line), f))
		;
	pclose(f);
	assert_true(t->size > PAGE_BYTES);
}

/* The instructions by name; the place of 0F behind the prefixes from the bytes beside it. */
static void text_disassemble(struct text *t, const char *path)
{
	static const char *const names[] = { "cpuid", "rdtsc", "rdtscp", "xgetbv", "rdpkru", "wrpkru", "lar", "lsl", "verr", "verw", "sysenter",
		"rdpid", "xsave", "xsave64", "xsavec", "xsavec64", "xsaveopt", "xsaveopt64", "xsaves", "xsaves64", "xrstor", "xrstor64",
		"xrstors", "xrstors64" };
	char command[300], line[512];
	FILE *f;

	snprintf(command, sizeof(command), "objdump -d -j .text %s", path);
	f = popen(command, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		char bytes[64], name[32];
		uint64_t at;

		if (sscanf(line, " %lx:\t%63[0-9a-f ]\t%31[a-z0-9]", &at, bytes, name) != 3)
			continue;
		for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
			char *of = strstr(bytes, "0f");

			if (strcmp(name, names[i]) || !of)
				continue;
			t->is_opcode[at - t->vaddr + (of - bytes) / 3] = 1;
			t->opcodes++;
		}
	}
	assert_int_equal(pclose(f), 0);
}

/* How many places are in doubt. */
static unsigned compare(const char *path)
{
	struct text t = { 0 };
	int fd = open(path, O_RDONLY);
	unsigned sure = 0, doubt = 0;
	struct stat st;

	assert_true(fd >= 0 && !fstat(fd, &st));
	t.bytes = malloc(st.st_size + PAGE_BYTES);
	assert_int_equal(read(fd, t.bytes, st.st_size), st.st_size);
	close(fd);
	text_find(&t, path);
	t.is_opcode = calloc(1, t.size);
	text_disassemble(&t, path);
	for (uint64_t page = (t.offset + LEAD_IN) & ~PAGE_MASK; page + PAGE_BYTES <= t.offset + t.size; page += PAGE_BYTES) {
		const uint8_t *code = t.bytes + page - LEAD_IN;

		for (unsigned at = LEAD_IN; at < LEAD_IN + PAGE_BYTES; at++) {
			bool truth;
			enum meaning m;

			if (page + at - LEAD_IN < t.offset)
				continue;
			truth = t.is_opcode[page + at - LEAD_IN - t.offset];
			if (code[at] != 0x0f || !is_sensitive(code + at, LEAD_IN + PAGE_BYTES - at, false)) {
				if (truth && at + 4 < LEAD_IN + PAGE_BYTES)
					fail_msg("%s: nothing is seen at 0x%lx", path, page + at - LEAD_IN);
				continue;
			}
			m = opcode_at(code, LEAD_IN + PAGE_BYTES, at);
			if (truth ? m == NO_OPCODE : m == SURE_OPCODE)
				fail_msg("%s: 0x%lx is %s", path, page + at - LEAD_IN, truth ? "missed" : "taken for an instruction");
			sure += truth && m == SURE_OPCODE;
			doubt += m == MAYBE_OPCODE;
		}
	}
	print_message("%s: %u instructions, %u found, %u places in doubt\n", path, t.opcodes, sure, doubt);
	assert_int_equal(t.opcodes && !sure, 0);
	free(t.bytes);
	free(t.is_opcode);
	return doubt;
}

static void test_libraries(void **state)
{
	if (system("objdump --version >/dev/null 2>&1"))
		skip();
	/* A page in doubt does not run natively: of these two none should be. */
	assert_int_equal(compare("/lib/x86_64-linux-gnu/libc.so.6"), 0);
	assert_int_equal(compare("/lib64/ld-linux-x86-64.so.2"), 0);
}

static char **programs;

static void test_programs(void **state)
{
	for (char **p = programs; *p; p++)
		compare(*p);
}

/* Between data, as in Linux's vDSO, and in the middle of an immediate. */
static void test_by_hand(void **state)
{
	uint8_t code[256];

	memset(code, 0x90, sizeof(code));
	memcpy(code + 150, (const uint8_t[]){ 0x0f, 0xa2 }, 2);
	assert_int_equal(opcode_at(code, sizeof(code), 150), SURE_OPCODE);
	memcpy(code + 148, (const uint8_t[]){ 0xb8, 0x00, 0x0f, 0xa2, 0x00 }, 5); /* mov $0xa20f00, %eax */
	assert_int_equal(opcode_at(code, sizeof(code), 150), NO_OPCODE);
	for (unsigned i = 0; i < sizeof(code); i++)
		code[i] = "altinstructions: "[i % 17];
	memcpy(code + 145, (const uint8_t[]){ 0x0f, 0xae, 0xe8, 0x0f, 0x31, 0x0f, 0x01, 0xf9, 'G', 'C', 'C', ':', ' ', '(' }, 14);
	assert_int_equal(opcode_at(code, sizeof(code), 150), SURE_OPCODE);
	/* Two bytes are too few for that. */
	memcpy(code + 150, (const uint8_t[]){ 0x0f, 0xa2, 0x06 }, 3);
	assert_int_equal(opcode_at(code, sizeof(code), 150), MAYBE_OPCODE);
	assert_true(is_sensitive((const uint8_t[]){ 0, 0xf3, 0x0f, 0xc7, 0xf8 } + 2, 3, false));
	assert_true(is_sensitive((const uint8_t[]){ 0xf3, 0x48, 0x0f, 0xc7, 0xf8 } + 2, 3, false));
	assert_false(is_sensitive((const uint8_t[]){ 0, 0x90, 0x0f, 0xc7, 0xf8 } + 2, 3, false)); /* RDSEED */
	assert_false(is_sensitive((const uint8_t[]){ 0xf3, 0x90, 0x0f, 0xc7, 0xf8 } + 2, 3, false)); /* behind PAUSE */
	assert_false(is_sensitive((const uint8_t[]){ 0, 0x90, 0x0f, 0x31 } + 2, 2, true));
	assert_true(is_sensitive((const uint8_t[]){ 0, 0x90, 0x0f, 0x31 } + 2, 2, false));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_by_hand), cmocka_unit_test(test_libraries) };
	const struct CMUnitTest given[] = { cmocka_unit_test(test_programs) };

	programs = argv + 1;
	return argc > 1 ? cmocka_run_group_tests(given, NULL, NULL) : cmocka_run_group_tests(tests, NULL, NULL);
}
