/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ACPI tables of the q35 board (ACPI 6.4 §5.2): RSDP, XSDT, FADT, FACS,
 * DSDT, SSDT, MADT, HPET, MCFG, SRAT.
 *
 * They are built once, position-independent, with a list of what must be
 * patched. Firmware gets them through fw_cfg with that list as its
 * etc/table-loader script; a direct kernel boot places them itself.
 */
#pragma once
#include "machine/machine.h"

struct acpi_options {
	bool serial[4];
	bool pvpanic;
};

struct acpi_tables {
	struct state_buf tables; /* FACS first, 64-byte aligned */
	struct state_buf loader; /* etc/table-loader */
	uint8_t rsdp[36];
};

/* 0 or -ENOMEM. Free with acpi_free(), on failure too. */
int acpi_build(const struct machine *m, const struct acpi_options *o, struct acpi_tables *t, struct err *err);
void acpi_free(struct acpi_tables *t);
/* Put tables at `gpa` (64-byte aligned) and the RSDP at `rsdp_gpa`. -EFAULT if that is not RAM. */
int acpi_place(const struct acpi_tables *t, const struct guest_mem *mem, uint64_t gpa, uint64_t rsdp_gpa, struct err *err);
