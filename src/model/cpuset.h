/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sets of CPUs or NUMA nodes as libvirt writes them: "0-3,8,^2". */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "util/err.h"

#define CPUSET_MAX 4096 /* one more than the highest number */

struct cpuset {
	uint64_t bits[CPUSET_MAX / 64];
};

/* 0, or -ENOENT and libvirt's sentence. An empty set is refused. */
int cpuset_parse(const char *text, struct cpuset *set, struct err *err);
char *cpuset_format(const struct cpuset *set); /* "0-3,8", malloced; NULL without memory */
/* Bring the text of a definition into this form. */
int cpuset_normalize(char **text, struct err *err);

static inline bool cpuset_has(const struct cpuset *set, unsigned cpu)
{
	return cpu < CPUSET_MAX && set->bits[cpu / 64] >> cpu % 64 & 1;
}
