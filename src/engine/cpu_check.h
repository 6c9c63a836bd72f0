/* SPDX-License-Identifier: GPL-2.0-or-later */
/* States that no CPU can be in. */
#pragma once
#include "engine/cpu_state.h"
#include "util/err.h"

/*
 * 0, or -EINVAL and the first field that cannot be: reserved or contradictory
 * bits of CR0, CR4, EFER, XCR0 and MXCSR, bases that are not canonical, enums
 * out of range. Engines check besides that they implement what the bits ask for.
 */
int cpu_state_check(const struct cpu_state *s, struct err *err);
