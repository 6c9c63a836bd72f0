/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Saved guests as files: libvirt's header and the definition, then what the machine wrote. */
#pragma once
#include "daemon/guest.h"

/*
 * A new file of which the header says that it is not whole; the descriptor is
 * where the machine is to write. A negative errno on failure.
 */
int save_create(const char *path, const char *xml, bool running, struct err *err);
/* It's whole now, and on the disk. */
int save_complete(int fd, struct err *err);
/* What save_complete() was called for; the descriptor is where the machine is to read. *xml is malloced. -ENODATA: not whole. */
int save_open(const char *path, char **xml, bool *running, struct err *err);
/* Another definition, not longer than there is room; running: -1 as it is, 0, 1. */
int save_redefine(const char *path, const char *xml, int running, struct err *err);

/* Where the daemon keeps a guest's own: malloced. */
char *save_managed_path(const struct guest *g);
bool save_is_managed(const struct guest *g);
void save_forget_managed(const struct guest *g);
/* Start from it: as a start of domain_lifecycle.c. The descriptor is taken. */
int save_start(struct rpc_call *call, struct guest *g, struct domain *def, int fd, uint32_t flags, const char *remove,
	       struct remote_domain *out);
/* A start that finds a managed image. RPC_LATER, -1, or 0: there is none (any more), start as ever. */
int save_start_managed(struct rpc_call *call, struct guest *g, uint32_t create_flags, struct remote_domain *out);
