/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ACPI power management registers of the ICH9 (ICH9 data sheet §13.8.3;
 * ACPI 6.4 §4.8): a block of 128 ports inside the LPC bridge. The functions
 * want the owner's lock held, but for pm_init(), pm_exit() and pm_button().
 */
#pragma once
#include "machine/machine.h"

struct pm {
	struct device *owner;
	void (*set_sci)(struct device *owner, bool level);
	uint16_t pm1_sts, pm1_en, pm1_cnt;
	uint64_t gpe_sts, gpe_en;
	uint32_t smi_en, smi_sts;
	uint64_t halves;      /* how often the timer's highest bit had changed when TMR_STS was last looked at */
	uint64_t overflow_at; /* ns for which `timer` is armed */
	struct vtimer *timer;
	struct io_range range;
	bool mapped;
};

int pm_init(struct pm *pm, struct device *owner, void (*set_sci)(struct device *owner, bool level), struct err *err);
void pm_exit(struct pm *pm);
void pm_reset(struct pm *pm);
/* Put the block at `base` (128 ports), or nowhere. */
void pm_map(struct pm *pm, uint16_t base, bool enable);
/* The power button was pressed. Any thread. */
void pm_button(struct pm *pm);
/* ACPI_ENABLE and ACPI_DISABLE of old firmware: SCI_EN. */
void pm_acpi_mode(struct pm *pm, bool on);
/* After a state was loaded: rebuild what is derived. Returns the level of the SCI, which is not driven. */
bool pm_loaded(struct pm *pm);
extern const struct state_desc pm_state;
