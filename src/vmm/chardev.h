/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Character back ends by text: stdio, null, file:PATH, unix:PATH (a listening socket, one client at a time),
   pty:MASTER:INOTIFY (descriptors; see open_pty()). */
#pragma once
#include "machine/backend.h"
#include "util/loop.h"

/*
 * `option` is for messages. `quit` (may be NULL) is called in the loop's thread
 * when somebody at a terminal types Ctrl-]. NULL and err on failure; freed
 * with chardev_free(). stdio can be had once. Main thread only.
 */
struct chardev *chardev_open(struct loop *loop, const char *option, const char *text, void (*quit)(void *opaque),
			     void *opaque, struct err *err);
/* Sends what is still buffered, for up to two seconds, then closes. NULL is allowed. */
void chardev_free(struct chardev *c);
