/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tap and macvtap interfaces of the host: frames with virtio headers, so that
 * checksums and segmentation are the kernel's, and up to TAP_QUEUES queues.
 */
#pragma once
#include "machine/backend.h"
#include "util/loop.h"

#define TAP_QUEUES 16

struct tap_options {
	const char *option;      /* begins messages; NULL: nothing does */
	const char *ifname;      /* of an interface, which is made unless it is there; NULL: the kernel chooses */
	const char *bridge;      /* put a new interface there, or NULL */
	int fd[TAP_QUEUES];      /* instead of all that: queues that somebody else opened; tap_open() takes them over */
	unsigned fds;
	unsigned queues;         /* without fds; 0: 1 */
};

/* NULL and err on failure, descriptors closed. */
struct netdev *tap_open(struct loop *loop, struct tap_options *o, struct err *err);
void tap_options_close(struct tap_options *o); /* what tap_open() would have taken over */
