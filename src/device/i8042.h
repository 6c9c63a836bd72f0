/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Input for the PS/2 keyboard and mouse of a device of class i8042. Any thread; what does not fit is dropped whole. */
#pragma once
#include "machine/device.h"

/* A key went down or up: its scan code of set 1 (1..0x58), with bit 7 for keys that have the prefix E0. */
void i8042_key(struct device *d, uint8_t code, bool down);
/*
 * The mouse moved right, down and its wheel towards the user by so much;
 * buttons: bit 0 left, 1 right, 2 middle, 3 and 4 the side ones.
 */
void i8042_mouse(struct device *d, int dx, int dy, int dz, unsigned buttons);
