/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What probe.c and its guest code agree on. */
#pragma once
#define PROBE_PORT 0xf4
