/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tap and macvtap interfaces of the host, opened. Thread safety: any thread. */
#pragma once
#include "util/err.h"

#define TAP_HOST_QUEUES 16

struct tap_host {
	const char *what;   /* begins messages: an option, a device */
	const char *ifname; /* NULL: the kernel chooses one */
	const char *bridge; /* it is put into this one, or NULL */
	unsigned queues;    /* 0: 1 */
	int fd[TAP_HOST_QUEUES]; /* filled in; the caller's */
};
/* Make the interface, or use one that is there. 0, or a negative errno and nothing is open. */
int tap_host_open(struct tap_host *o, struct err *err);
/* Of an interface of the host, or a negative errno. */
int tap_host_mtu(const char *name);
