/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/confine_cgroup.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "util/log.h"

#define SPARE_PIDS 1024u

const char *confine_cgroup_leaf(const struct guest *g)
{
	static char leaf[96];
	struct stat st = { 0 };
	int n;

	/* A keeld of another directory has guests of the same number and name. */
	stat(g->daemon->root, &st);
	n = snprintf(leaf, sizeof(leaf), "%d-%.40s.%llx", g->id, g->name, (unsigned long long)st.st_ino);
	for (int i = 0; i < n; i++)
		if (!isalnum((unsigned char)leaf[i]) && !strchr("-_.", leaf[i]))
			leaf[i] = '_';
	return leaf;
}

static void complain(const struct guest *g, const char *what, int ret)
{
	if (ret)
		log_line(LOG_WARN, "the guest '%s' has no limit of its %s: %s", g->name, what, strerror(-ret));
}

unsigned confine_cgroup_make(const struct guest *g, unsigned vcpus, int joins[CG_CONTROLLERS])
{
	const struct cgroups *c = &g->daemon->cgroups;
	const char *leaf = confine_cgroup_leaf(g);
	int ret = cgroup_make(c, leaf);

	if (ret) {
		complain(g, "control groups", ret);
		return 0;
	}
	if (c->dir[CG_PIDS])
		complain(g, "threads", cgroup_set_pids(c, leaf, vcpus + SPARE_PIDS));
	if (c->dir[CG_DEVICES] && !g->daemon->confine.off)
		complain(g, "devices", cgroup_forbid_devices(c, leaf));
	return cgroup_join_fds(c, leaf, joins);
}

void confine_cgroup_remove(const struct guest *g)
{
	cgroup_remove(&g->daemon->cgroups, confine_cgroup_leaf(g));
}

/* ---- What the definition asks for --------------------------------------------------- */

/* The period stays the kernel's where nothing is said; a quota of 0 is none. */
static int set_time(const struct guest *g, const char *sub, const struct opt64 *period, const struct optint *quota)
{
	if (!period->set && !quota->set)
		return 0;
	return cgroup_set_quota(&g->daemon->cgroups, confine_cgroup_leaf(g), sub, period->set ? period->value : 0,
				quota->set && quota->value > 0 ? quota->value : -1);
}

/* Threads move into groups of their own when a limit first asks for these. */
static int limit_thread(const struct guest *g, const char *sub, pid_t tid, const struct opt64 *period, const struct optint *quota)
{
	int ret;

	if (!tid || (!period->set && !quota->set))
		return 0;
	ret = set_time(g, sub, period, quota);
	return ret ? ret : cgroup_move_thread(&g->daemon->cgroups, confine_cgroup_leaf(g), sub, CG_CPU, tid);
}

int confine_cgroup_cpu(const struct guest *g)
{
	const struct dom_cputune *t = g->live->cputune;
	char sub[16];
	int ret = 0;

	if (!t)
		return 0;
	if (t->shares.set)
		ret = cgroup_set_shares(&g->daemon->cgroups, confine_cgroup_leaf(g), t->shares.value);
	if (!ret)
		ret = set_time(g, NULL, &t->global_period, &t->global_quota);
	for (unsigned n = 0; n < domain_vcpus_current(g->live) && !ret; n++) {
		snprintf(sub, sizeof(sub), "vcpu%u", n);
		ret = limit_thread(g, sub, guest_vcpu_tid(g, n), &t->period, &t->quota);
	}
	return ret ? ret : limit_thread(g, "emulator", guest_pid(g), &t->emulator_period, &t->emulator_quota);
}

static uint64_t limit(struct opt64 v)
{
	return v.set ? v.value : UINT64_MAX;
}

int confine_cgroup_memory(const struct guest *g)
{
	const struct dom_memtune *m = g->live->memtune;

	return m ? cgroup_set_memory(&g->daemon->cgroups, confine_cgroup_leaf(g), limit(m->hard_limit), limit(m->soft_limit),
				     limit(m->swap_hard_limit))
		 : 0;
}

static int set_io(const struct guest *g, const struct dom_blkio_device *d)
{
	const struct cgroups *c = &g->daemon->cgroups;
	const char *leaf = confine_cgroup_leaf(g);
	const uint64_t values[CG_IO_LIMITS] = {
		[CG_READ_BPS] = d->read_bytes_sec.value,   [CG_WRITE_BPS] = d->write_bytes_sec.value,
		[CG_READ_IOPS] = d->read_iops_sec.value, [CG_WRITE_IOPS] = d->write_iops_sec.value,
	};
	struct stat st;
	int ret = 0;

	if (!d->path || stat(d->path, &st))
		return -ENOENT;
	if (!S_ISBLK(st.st_mode))
		return -ENOTBLK;
	if (d->weight.set)
		ret = cgroup_set_device_weight(c, leaf, st.st_rdev, d->weight.value);
	for (unsigned i = 0; i < CG_IO_LIMITS && !ret; i++)
		ret = cgroup_set_io(c, leaf, st.st_rdev, i, values[i]);
	return ret;
}

int confine_cgroup_io(const struct guest *g)
{
	const struct dom_blkiotune *t = g->live->blkiotune;
	int ret = 0;

	if (t && t->weight.set)
		ret = cgroup_set_weight(&g->daemon->cgroups, confine_cgroup_leaf(g), t->weight.value);
	for (unsigned n = 0; t && n < t->devices.n && !ret; n++)
		ret = set_io(g, t->devices.v[n]);
	return ret;
}

int confine_cgroup_numa(const struct guest *g)
{
	const struct dom_numa_memory *numa = g->live->numatune ? g->live->numatune->memory : NULL;

	return numa && numa->nodeset ? cgroup_set_mems(&g->daemon->cgroups, confine_cgroup_leaf(g), numa->nodeset, guest_pid(g)) : 0;
}

void confine_cgroup_apply(const struct guest *g)
{
	complain(g, "CPU time", confine_cgroup_cpu(g));
	complain(g, "memory", confine_cgroup_memory(g));
	complain(g, "I/O", confine_cgroup_io(g));
	complain(g, "NUMA nodes", confine_cgroup_numa(g));
}
