/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Limits on a disk's speed, or on that of a group of disks together: leaky
 * buckets, with the meaning that QEMU's and libvirt's options of these names
 * have. Thread-safe. A request reserves its share when it comes up and starts
 * when that is due, so those of a group have their turns in order.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "util/err.h"

enum throttle_kind { BPS_TOTAL, BPS_READ, BPS_WRITE, IOPS_TOTAL, IOPS_READ, IOPS_WRITE, THROTTLE_KINDS };

struct throttle_limits {
	struct {
		uint64_t avg;	 /* bytes or requests a second; 0: no limit */
		uint64_t max;	 /* during bursts; 0: none */
		uint64_t length; /* of bursts, seconds; 0: 1 */
	} kind[THROTTLE_KINDS];
	uint64_t iops_size; /* larger requests count as several; 0: each is one */
};

/* -EINVAL and a sentence, where they contradict each other. */
int throttle_check(const struct throttle_limits *l, struct err *err);

struct throttle;
/* The group of that name, made if there is none; NULL: one of its own. NULL: no memory. */
struct throttle *throttle_get(const char *group);
void throttle_put(struct throttle *t); /* NULL is allowed */
void throttle_set(struct throttle *t, const struct throttle_limits *l);
void throttle_limits(struct throttle *t, struct throttle_limits *l);
const char *throttle_name(const struct throttle *t); /* or NULL */
/* Changes whenever limits do: reservations of before are void. Never 0. */
unsigned throttle_generation(const struct throttle *t);
/* When, on monotonic_ns()'s clock, a request may start that comes up now. It is counted. */
uint64_t throttle_reserve(struct throttle *t, bool write, uint64_t bytes, uint64_t now);
