/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest's control groups: which they are, and what its definition says of them. */
#pragma once
#include "daemon/cgroup.h"
#include "daemon/guest.h"

/* The name of its groups; valid until the next call. */
const char *confine_cgroup_leaf(const struct guest *g);
/* Made, with the limits that every guest has; what its process is to write "0" to. How many of these. */
unsigned confine_cgroup_make(const struct guest *g, unsigned vcpus, int joins[CG_CONTROLLERS]);
void confine_cgroup_remove(const struct guest *g);
/* What g->live asks for, of its threads that are there. 0 or -errno; -ENODEV: there is no such controller. */
int confine_cgroup_cpu(const struct guest *g);
int confine_cgroup_memory(const struct guest *g);
int confine_cgroup_io(const struct guest *g);
int confine_cgroup_numa(const struct guest *g);
/* All of it. What fails is logged. */
void confine_cgroup_apply(const struct guest *g);
