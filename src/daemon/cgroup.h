/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Control groups, version 1 and 2: one a guest, MOUNT/keel/LEAF, with one below
 * it for each of its vCPUs, and one for its other threads, where a limit asks
 * for that. The files' names and units here are version 1's; version 2's are
 * translated. Loop's thread only.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/err.h"

enum cgroup_controller { CG_CPU, CG_CPUACCT, CG_MEMORY, CG_BLKIO, CG_PIDS, CG_DEVICES, CG_CPUSET, CG_CONTROLLERS };

struct cgroups {
	char *dir[CG_CONTROLLERS]; /* ".../keel"; NULL: no such controller, or it is not ours to use */
	bool v2[CG_CONTROLLERS];
};
/* Look at /proc/self/mountinfo's text. What cannot be used is left out. */
void cgroups_find(struct cgroups *c, const char *mountinfo);
void cgroups_free(struct cgroups *c);

/* Make the groups of a guest. 0 or -errno; what is there already is fine. */
int cgroup_make(const struct cgroups *c, const char *leaf);
/* Descriptors that a process writes "0" to, to be in them; at most CG_CONTROLLERS. How many. */
unsigned cgroup_join_fds(const struct cgroups *c, const char *leaf, int fds[CG_CONTROLLERS]);
void cgroup_remove(const struct cgroups *c, const char *leaf);

/* `sub` NULL: the guest's own; "vcpu0", "emulator": below it, made if need be. 0 or -errno; -ENODEV: no such controller. */
int cgroup_move_thread(const struct cgroups *c, const char *leaf, const char *sub, enum cgroup_controller k, pid_t tid);
int cgroup_set_shares(const struct cgroups *c, const char *leaf, uint64_t shares);
/* Microseconds; quota < 0: none. A period of 0 stays as it is. */
int cgroup_set_quota(const struct cgroups *c, const char *leaf, const char *sub, uint64_t period, int64_t quota);
/* KiB; UINT64_MAX: none. */
int cgroup_set_memory(const struct cgroups *c, const char *leaf, uint64_t hard, uint64_t soft, uint64_t swap_hard);
int cgroup_set_pids(const struct cgroups *c, const char *leaf, unsigned max);
int cgroup_forbid_devices(const struct cgroups *c, const char *leaf);
int cgroup_set_weight(const struct cgroups *c, const char *leaf, unsigned weight);
enum cgroup_io { CG_READ_BPS, CG_WRITE_BPS, CG_READ_IOPS, CG_WRITE_IOPS, CG_IO_LIMITS };
/* 0: no limit. */
int cgroup_set_io(const struct cgroups *c, const char *leaf, dev_t dev, enum cgroup_io what, uint64_t value);
int cgroup_set_device_weight(const struct cgroups *c, const char *leaf, dev_t dev, unsigned weight);
int cgroup_set_mems(const struct cgroups *c, const char *leaf, const char *nodes, pid_t pid);
