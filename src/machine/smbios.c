/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/smbios.h"

#include <errno.h>
#include <string.h>

/* A structure is collected here: the formatted part, then its strings. */
struct record {
	struct state_buf fixed, strings;
	unsigned nstrings;
};

static void put(struct record *r, const void *data, size_t len)
{
	state_buf_put(&r->fixed, data, len);
}

static void put8(struct record *r, uint8_t v)
{
	put(r, &v, 1);
}

static void put16(struct record *r, uint16_t v)
{
	put(r, &v, 2);
}

static void put32(struct record *r, uint32_t v)
{
	put(r, &v, 4);
}

static void put64(struct record *r, uint64_t v)
{
	put(r, &v, 8);
}

/* A string's number; the text goes behind the formatted part. */
static void text(struct record *r, const char *s)
{
	if (!*s) {
		put8(r, 0);
		return;
	}
	put8(r, ++r->nstrings);
	state_buf_put(&r->strings, s, strlen(s) + 1);
}

static void begin(struct record *r, uint8_t type, uint16_t handle)
{
	memset(r, 0, sizeof(*r));
	put8(r, type);
	put8(r, 0);
	put16(r, handle);
}

static void end(struct smbios_tables *t, struct record *r)
{
	if (!r->nstrings)
		state_buf_put(&r->strings, "", 1);
	state_buf_put(&r->strings, "", 1);
	if (r->fixed.failed || r->strings.failed) {
		t->tables.failed = true;
	} else {
		r->fixed.data[1] = r->fixed.len;
		state_buf_put(&t->tables, r->fixed.data, r->fixed.len);
		state_buf_put(&t->tables, r->strings.data, r->strings.len);
	}
	state_buf_free(&r->fixed);
	state_buf_free(&r->strings);
}

static void bios(struct smbios_tables *t)
{
	struct record r;

	begin(&r, 0, 0x0000);
	text(&r, "Keel");
	text(&r, "1");
	put16(&r, 0xe000);
	text(&r, "01/01/2026");
	put8(&r, 0);
	put64(&r, 1 << 3); /* characteristics are not told */
	put8(&r, 0);
	put8(&r, 1 << 4); /* a virtual machine */
	put8(&r, 0);
	put8(&r, 1);
	put8(&r, 0xff);
	put8(&r, 0xff);
	end(t, &r);
}

static void system_info(struct smbios_tables *t, const struct machine *m, const uint8_t uuid[16])
{
	static const uint8_t none[16];
	struct record r;

	begin(&r, 1, 0x0100);
	text(&r, "Keel");
	text(&r, "q35");
	text(&r, "1");
	text(&r, "");
	if (uuid) {
		/* The first three fields are little-endian in SMBIOS (DSP0134 §7.2.1). */
		uint8_t u[16] = { uuid[3], uuid[2], uuid[1], uuid[0], uuid[5], uuid[4], uuid[7], uuid[6] };

		memcpy(u + 8, uuid + 8, 8);
		put(&r, u, 16);
	} else {
		put(&r, none, 16);
	}
	put8(&r, 6); /* woken by the power switch */
	text(&r, "");
	text(&r, "Virtual Machine");
	end(t, &r);
}

static void chassis(struct smbios_tables *t)
{
	struct record r;

	begin(&r, 3, 0x0300);
	text(&r, "Keel");
	put8(&r, 1); /* other */
	text(&r, "q35");
	text(&r, "");
	text(&r, "");
	put8(&r, 3); /* boot-up, power, thermal state: safe */
	put8(&r, 3);
	put8(&r, 3);
	put8(&r, 2);
	put32(&r, 0);
	put8(&r, 0);
	put8(&r, 0);
	put8(&r, 0);
	put8(&r, 0);
	text(&r, "");
	end(t, &r);
}

static void processor(struct smbios_tables *t, unsigned n)
{
	struct record r;

	begin(&r, 4, 0x0400 + n);
	text(&r, "CPU");
	put8(&r, 3); /* central processor */
	put8(&r, 1); /* family: other */
	text(&r, "Keel");
	put64(&r, 0);
	text(&r, "");
	put8(&r, 0);
	put16(&r, 0);
	put16(&r, 2000);
	put16(&r, 2000);
	put8(&r, 0x41); /* populated, enabled */
	put8(&r, 1);
	put16(&r, 0xffff);
	put16(&r, 0xffff);
	put16(&r, 0xffff);
	text(&r, "");
	text(&r, "");
	text(&r, "");
	put8(&r, 1);
	put8(&r, 1);
	put8(&r, 1);
	put16(&r, 1 << 2); /* 64-bit capable */
	put16(&r, 1);
	put16(&r, 1);
	put16(&r, 1);
	put16(&r, 1);
	end(t, &r);
}

static void memory(struct smbios_tables *t, const struct machine *m)
{
	uint64_t size = m->config.memory, low = size < Q35_LOW_MAX ? size : Q35_LOW_MAX, mib = size >> 20;
	struct record r;

	begin(&r, 16, 0x1000); /* array */
	put8(&r, 1);
	put8(&r, 3);
	put8(&r, 6);
	put32(&r, 0x80000000);
	put16(&r, 0xfffe);
	put16(&r, 1);
	put64(&r, size);
	end(t, &r);

	begin(&r, 17, 0x1100); /* device */
	put16(&r, 0x1000);
	put16(&r, 0xfffe);
	put16(&r, 0xffff);
	put16(&r, 0xffff);
	put16(&r, mib < 0x7fff ? mib : 0x7fff);
	put8(&r, 9); /* DIMM */
	put8(&r, 0);
	text(&r, "DIMM 0");
	text(&r, "");
	put8(&r, 7); /* RAM */
	put16(&r, 1 << 1);
	put16(&r, 0);
	text(&r, "Keel");
	text(&r, "");
	text(&r, "");
	text(&r, "");
	put8(&r, 0);
	put32(&r, mib);
	put16(&r, 0);
	put16(&r, 0);
	put16(&r, 0);
	put16(&r, 0);
	end(t, &r);

	for (unsigned i = 0; i < 1 + (size > low); i++) {
		uint64_t base = i ? 4ull << 30 : 0, len = i ? size - low : low;

		begin(&r, 19, 0x1300 + i); /* array mapped address, in KiB; beyond 4 TiB never */
		put32(&r, base >> 10);
		put32(&r, ((base + len) >> 10) - 1);
		put16(&r, 0x1000);
		put8(&r, 1);
		put64(&r, 0);
		put64(&r, 0);
		end(t, &r);
	}
}

int smbios_build(const struct machine *m, const uint8_t uuid[16], struct smbios_tables *t, struct err *err)
{
	struct record r;
	uint32_t len;

	memset(t, 0, sizeof(*t));
	bios(t);
	system_info(t, m, uuid);
	chassis(t);
	for (unsigned i = 0; i < m->config.cpus; i++)
		processor(t, i);
	memory(t, m);
	begin(&r, 32, 0x2000); /* boot information */
	put32(&r, 0);
	put16(&r, 0);
	put8(&r, 0);
	end(t, &r);
	begin(&r, 127, 0x7f00);
	end(t, &r);
	if (t->tables.failed)
		return err_set(err, ENOMEM, "no memory for the SMBIOS tables");
	memcpy(t->anchor, "_SM3_", 5);
	t->anchor[6] = sizeof(t->anchor);
	t->anchor[7] = 3;
	t->anchor[10] = 1;
	len = t->tables.len;
	memcpy(t->anchor + 12, &len, 4);
	return 0;
}

void smbios_free(struct smbios_tables *t)
{
	state_buf_free(&t->tables);
}

int smbios_place(const struct smbios_tables *t, const struct guest_mem *mem, uint64_t gpa, struct err *err)
{
	uint64_t at = gpa + 32;
	uint8_t anchor[sizeof(t->anchor)], sum = 0;

	memcpy(anchor, t->anchor, sizeof(anchor));
	memcpy(anchor + 16, &at, 8);
	for (unsigned i = 0; i < sizeof(anchor); i++)
		sum += anchor[i];
	anchor[5] = -sum;
	if (mem_write(mem, gpa, anchor, sizeof(anchor)) || mem_write(mem, at, t->tables.data, t->tables.len))
		return err_set(err, EFAULT, "the SMBIOS tables do not fit into guest memory");
	return 0;
}
