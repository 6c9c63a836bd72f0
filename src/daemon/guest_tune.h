/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which host CPUs a guest's threads run on. */
#pragma once
#include "daemon/guest.h"

/* Pin the threads of a guest that has just started, as its definition says. Failures are logged. */
void tune_apply(struct guest *g);

/* The host's possible CPUs. */
unsigned host_cpus(void);
/* Bytes of a bitmap of them. */
static inline unsigned cpumap_bytes(void)
{
	return (host_cpus() + 7) / 8;
}

/* "0-3,^2" as a bitmap. False: malformed, or no CPU of the host. */
bool cpumap_parse(const char *text, uint8_t *map, unsigned bytes);
