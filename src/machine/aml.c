/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/aml.h"

#include <assert.h>
#include <string.h>

enum { /* ACPI 6.4 §20.3, table 20.2 */
	AML_ZERO = 0x00, AML_ONE = 0x01, AML_NAME = 0x08, AML_BYTE = 0x0a, AML_WORD = 0x0b, AML_DWORD = 0x0c,
	AML_STRING = 0x0d, AML_QWORD = 0x0e, AML_SCOPE = 0x10, AML_BUFFER = 0x11, AML_PACKAGE = 0x12, AML_DUAL = 0x2e, AML_MULTI = 0x2f,
	AML_EXT = 0x5b, AML_DEVICE = 0x82,
};

static void byte(struct aml *a, uint8_t value)
{
	state_buf_put(&a->buf, &value, 1);
}

static void put_name(struct aml *a, const char *name)
{
	unsigned segments = 1;

	if (*name == '\\') {
		byte(a, '\\');
		name++;
	}
	for (const char *p = name; *p; p++)
		segments += *p == '.';
	if (segments == 2) {
		byte(a, AML_DUAL);
	} else if (segments > 2) {
		byte(a, AML_MULTI);
		byte(a, segments);
	}
	while (*name) {
		char seg[4];

		for (unsigned i = 0; i < 4; i++)
			seg[i] = *name && *name != '.' ? *name++ : '_';
		state_buf_put(&a->buf, seg, 4);
		assert(!*name || *name == '.');
		name += *name == '.';
	}
}

/* Every package gets the three-byte form of its length (ACPI 6.4 §20.2.4): it is known only at the end. */
static void open_package(struct aml *a)
{
	assert(a->depth < AML_DEPTH);
	a->open[a->depth++] = a->buf.len;
	state_buf_put(&a->buf, "\0\0\0", 3);
}

void aml_open_scope(struct aml *a, const char *name)
{
	byte(a, AML_SCOPE);
	open_package(a);
	put_name(a, name);
}

void aml_open_device(struct aml *a, const char *name)
{
	byte(a, AML_EXT);
	byte(a, AML_DEVICE);
	open_package(a);
	put_name(a, name);
}

void aml_open_package(struct aml *a, uint8_t elements)
{
	byte(a, AML_PACKAGE);
	open_package(a);
	byte(a, elements);
}

void aml_open_buffer(struct aml *a, unsigned len)
{
	byte(a, AML_BUFFER);
	open_package(a);
	aml_int(a, len);
}

void aml_close(struct aml *a)
{
	size_t at, len;

	assert(a->depth);
	at = a->open[--a->depth];
	if (a->buf.failed)
		return;
	len = a->buf.len - at;
	assert(len < 1 << 20);
	a->buf.data[at] = 0x80 | (len & 15);
	a->buf.data[at + 1] = len >> 4;
	a->buf.data[at + 2] = len >> 12;
}

void aml_name(struct aml *a, const char *name)
{
	byte(a, AML_NAME);
	put_name(a, name);
}

void aml_int(struct aml *a, uint64_t value)
{
	unsigned size = value <= UINT8_MAX ? 1 : value <= UINT16_MAX ? 2 : value <= UINT32_MAX ? 4 : 8;

	if (value <= 1) {
		byte(a, value ? AML_ONE : AML_ZERO);
		return;
	}
	byte(a, size == 1 ? AML_BYTE : size == 2 ? AML_WORD : size == 4 ? AML_DWORD : AML_QWORD);
	state_buf_put(&a->buf, &value, size);
}

void aml_string(struct aml *a, const char *text)
{
	byte(a, AML_STRING);
	state_buf_put(&a->buf, text, strlen(text) + 1);
}

static unsigned hex(char c)
{
	return c <= '9' ? c - '0' : (c & ~0x20) - 'A' + 10;
}

void aml_eisaid(struct aml *a, const char *id)
{
	/* ACPI 6.4 §19.3.4: three letters of five bits and four hex digits, big-endian. */
	uint32_t v = (id[0] - 0x40u) << 26 | (id[1] - 0x40u) << 21 | (id[2] - 0x40u) << 16 | hex(id[3]) << 12 |
		     hex(id[4]) << 8 | hex(id[5]) << 4 | hex(id[6]);

	byte(a, AML_DWORD);
	v = __builtin_bswap32(v);
	state_buf_put(&a->buf, &v, 4);
}

void aml_io_irq(struct aml *a, uint16_t port, uint8_t ports, unsigned irq)
{
	/* ACPI 6.4 §6.4.2: I/O port descriptor, IRQ descriptor without flags, end tag (checksum 0: none). */
	uint8_t io[8] = { 0x47, 1, port, port >> 8, port, port >> 8, 1, ports };
	uint8_t line[3] = { 0x22, 1u << irq, (1u << irq) >> 8 };

	aml_open_buffer(a, sizeof(io) + (irq ? sizeof(line) : 0) + 2);
	state_buf_put(&a->buf, io, sizeof(io));
	if (irq)
		state_buf_put(&a->buf, line, sizeof(line));
	state_buf_put(&a->buf, "\x79\0", 2);
	aml_close(a);
}
