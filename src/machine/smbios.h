/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SMBIOS 3.0 tables (DMTF DSP0134 3.0): who made the machine, its processors and memory. */
#pragma once
#include "machine/machine.h"

struct smbios_tables {
	struct state_buf tables;
	uint8_t anchor[24]; /* "_SM3_", without address and checksum */
};

/* `uuid` NULL: none set. 0 or -ENOMEM. Free with smbios_free(), on failure too. */
int smbios_build(const struct machine *m, const uint8_t uuid[16], struct smbios_tables *t, struct err *err);
void smbios_free(struct smbios_tables *t);
/* Anchor at `gpa` (paragraph in 0xf0000..0xfffff), tables right behind it. */
int smbios_place(const struct smbios_tables *t, const struct guest_mem *mem, uint64_t gpa, struct err *err);
