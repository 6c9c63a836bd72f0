/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A network card's limits, as libvirt's <bandwidth> has them: a token bucket for
 * each direction, between the card and whatever back end it has, shared by the
 * card's queues.
 */
#pragma once
#include <stdint.h>

#include "machine/backend.h"
#include "util/err.h"

enum net_direction { NET_INBOUND, NET_OUTBOUND }; /* as the guest sees it */

/* Bytes a second, and bytes; 0: none. burst: what may go at `peak` (without one, at any speed) before `average` counts. */
struct net_limit {
	uint64_t average, peak, burst;
};

/* "AVERAGE[:PEAK[:BURST]]" in kilobytes of 1024 bytes, libvirt's units. */
int net_limit_parse(const char *text, struct net_limit *l, struct err *err);
int net_limit_check(const struct net_limit *l, struct err *err);

/* In front of nd, which it takes over (in failure, too) and whose callbacks come in `loop` where it has none of its own. */
struct netdev *net_limit_new(struct netdev *nd, struct loop *loop, const struct net_limit limits[2], struct err *err);
/* Other limits from now on. Any thread. */
void net_limit_set(struct netdev *nd, enum net_direction d, const struct net_limit *l);
