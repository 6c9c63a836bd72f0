/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libvirt's hook scripts (https://libvirt.org/hooks.html), in DIR/etc/hooks: programs of the administrator's own. */
#pragma once
#include "daemon/guest.h"

/* How it went: err is NULL if there is no script or its exit status is 0. The guest is not looked at. */
typedef void (*hook_done)(struct guest *g, void *opaque, const struct err *err);

/*
 * hooks/qemu NAME OPERATION SUB - with the definition at its standard input.
 * Those of one guest run one after the other. `done`, which may be NULL (then
 * failure is logged), is called exactly once, perhaps before this returns.
 */
void hook_guest(struct guest *g, const struct domain *def, const char *operation, const char *sub, hook_done done, void *opaque);
/* hooks/daemon - OPERATION SUB EXTRA; `wait`: return when it has ended. */
void hook_daemon(struct daemon *d, const char *operation, const char *sub, const char *extra, bool wait);
/* Forget those that run; they go on. */
void hooks_forget(struct daemon *d);
