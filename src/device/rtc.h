/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a board writes into the clock's battery-backed memory. */
#pragma once
#include "machine/device.h"

/* Set CMOS cell `index` (0..255) of a device of class mc146818rtc. Main loop's thread; any time. */
void rtc_set_cell(struct device *d, unsigned index, uint8_t value);
