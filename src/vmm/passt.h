/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The user-mode network: a passt process of our own behind a socket pair. */
#pragma once
#include "machine/backend.h"
#include "util/loop.h"

#define PASST_FORWARDS 16
struct passt_options {
	/* Each "[tcp|udp]:[ADDR]:PORT-:PORT", as QEMU's hostfwd. */
	const char *forward[PASST_FORWARDS];
	unsigned forwards;
};

/*
 * Start passt (found in PATH, or $KEEL_PASST) and wait until it runs. NULL and
 * err on failure. It ends when the netdev is freed or Keel dies.
 */
struct netdev *passt_open(struct loop *loop, const struct passt_options *o, struct err *err);
/* The same protocol on a socket that somebody else's passt listens at, or on a connected descriptor, which is taken over. */
struct netdev *stream_net_open(struct loop *loop, const char *path, int fd, struct err *err);
void netdev_free(struct netdev *n); /* NULL is allowed */
