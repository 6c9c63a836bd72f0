/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <dirent.h>
#include <unistd.h>

#define SWAP_OFF UINT64_MAX

static const struct {
	const char *v1, *v2; /* v2 NULL: part of the core, or nothing to it */
} names[CG_CONTROLLERS] = {
	[CG_CPU] = { "cpu", "cpu" },	   [CG_CPUACCT] = { "cpuacct", "cpu" }, [CG_MEMORY] = { "memory", "memory" },
	[CG_BLKIO] = { "blkio", "io" },   [CG_PIDS] = { "pids", "pids" },	[CG_DEVICES] = { "devices", NULL },
	[CG_CPUSET] = { "cpuset", "cpuset" },
};

/* ---- Files -------------------------------------------------------------------- */

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), ret = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

static int read_file(const char *path, char *text, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, room - 1);

	if (fd >= 0)
		close(fd);
	if (n < 0)
		return -ENOENT;
	while (n && text[n - 1] == '\n')
		n--;
	text[n] = 0;
	return 0;
}

static int make_dir(const char *path)
{
	return mkdir(path, 0755) && errno != EEXIST ? -errno : 0;
}

/* The path of a file in a guest's group, or in one below it. */
static int path_in(const struct cgroups *c, const char *leaf, const char *sub, enum cgroup_controller k, const char *file,
		   char path[PATH_MAX])
{
	if (!c->dir[k])
		return -ENODEV;
	if (snprintf(path, PATH_MAX, "%s/%s%s%s/%s", c->dir[k], leaf, sub ? "/" : "", sub ? sub : "", file) >= PATH_MAX)
		return -ENAMETOOLONG;
	return 0;
}

static int put(const struct cgroups *c, const char *leaf, const char *sub, enum cgroup_controller k, const char *v1,
	       const char *v2, const char *text)
{
	char path[PATH_MAX];
	int ret = path_in(c, leaf, sub, k, c->v2[k] ? v2 : v1, path);

	return ret ? ret : write_file(path, text);
}

static int put_number(const struct cgroups *c, const char *leaf, const char *sub, enum cgroup_controller k, const char *v1,
		      const char *v2, int64_t n)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRId64, n);
	return put(c, leaf, sub, k, v1, v2, text);
}

/* ---- Finding ------------------------------------------------------------------- */

static bool has_word(const char *list, const char *word, char separator)
{
	size_t len = strlen(word);

	for (const char *p = list; p; p = strchr(p, separator), p = p ? p + 1 : NULL)
		if (!strncmp(p, word, len) && (p[len] == separator || !p[len]))
			return true;
	return false;
}

static void use(struct cgroups *c, enum cgroup_controller k, const char *mount, bool v2)
{
	char path[PATH_MAX], file[PATH_MAX + 32], text[256];

	if (c->dir[k] || snprintf(path, sizeof(path), "%s/keel", mount) >= PATH_MAX - 64 || make_dir(path))
		return;
	if (access(path, W_OK | X_OK))
		return;
	/* A cpuset takes nobody before it has CPUs and memory. */
	for (int i = 0; k == CG_CPUSET && !v2 && i < 2; i++) {
		snprintf(file, sizeof(file), "%s/%s", mount, i ? "cpuset.mems" : "cpuset.cpus");
		if (read_file(file, text, sizeof(text)))
			return;
		snprintf(file, sizeof(file), "%s/%s", path, i ? "cpuset.mems" : "cpuset.cpus");
		if (write_file(file, text))
			return;
	}
	c->dir[k] = strdup(path);
	c->v2[k] = v2;
}

static void use_v2(struct cgroups *c, const char *mount)
{
	char path[PATH_MAX], has[256], word[16];

	if (snprintf(path, sizeof(path), "%s/cgroup.controllers", mount) >= PATH_MAX - 64 || read_file(path, has, sizeof(has)))
		return;
	for (unsigned k = 0; k < CG_CONTROLLERS; k++) {
		if (!names[k].v2 || !has_word(has, names[k].v2, ' '))
			continue;
		snprintf(word, sizeof(word), "+%s", names[k].v2);
		use(c, k, mount, true);
		snprintf(path, sizeof(path), "%s/cgroup.subtree_control", mount);
		if (c->dir[k] && c->v2[k] && !write_file(path, word)) {
			snprintf(path, sizeof(path), "%s/keel/cgroup.subtree_control", mount);
			if (!write_file(path, word))
				continue;
		}
		if (c->v2[k]) {
			free(c->dir[k]);
			c->dir[k] = NULL;
		}
	}
}

/* "36 35 98:0 ROOT MOUNT OPTIONS... - TYPE SOURCE OPTIONS": proc(5). */
static void use_mount(struct cgroups *c, char *line)
{
	char *rest = strstr(line, " - "), *mount = line, *type, *options, *save;

	for (int field = 0; mount && field < 4; field++)
		mount = strchr(mount + (field > 0), ' ');
	if (!rest || !mount || mount > rest)
		return;
	mount++;
	mount[strcspn(mount, " ")] = 0;
	type = strtok_r(rest + 3, " ", &save);
	if (type && !strcmp(type, "cgroup2")) {
		use_v2(c, mount);
		return;
	}
	if (!type || strcmp(type, "cgroup") || !strtok_r(NULL, " ", &save))
		return;
	options = strtok_r(NULL, " ", &save);
	for (unsigned k = 0; options && k < CG_CONTROLLERS; k++)
		if (has_word(options, names[k].v1, ','))
			use(c, k, mount, false);
}

void cgroups_find(struct cgroups *c, const char *mountinfo)
{
	char *copy = strdup(mountinfo), *save = NULL;

	memset(c, 0, sizeof(*c));
	for (char *line = copy ? strtok_r(copy, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save))
		use_mount(c, line);
	free(copy);
}

void cgroups_free(struct cgroups *c)
{
	for (unsigned k = 0; k < CG_CONTROLLERS; k++)
		free(c->dir[k]);
	memset(c, 0, sizeof(*c));
}

/* ---- Groups -------------------------------------------------------------------- */

/* The first controller in a directory stands for all that share it. */
static bool shares_dir(const struct cgroups *c, unsigned k)
{
	for (unsigned i = 0; i < k; i++)
		if (c->dir[i] && !strcmp(c->dir[i], c->dir[k]))
			return true;
	return false;
}

int cgroup_make(const struct cgroups *c, const char *leaf)
{
	char path[PATH_MAX];
	int ret = 0;

	for (unsigned k = 0; k < CG_CONTROLLERS && !ret; k++) {
		/* Of version 1's cpuset only those have one who ask for it. */
		if (!c->dir[k] || shares_dir(c, k) || (k == CG_CPUSET && !c->v2[k]))
			continue;
		ret = path_in(c, leaf, NULL, k, "", path);
		if (!ret)
			ret = make_dir(path);
	}
	return ret;
}

unsigned cgroup_join_fds(const struct cgroups *c, const char *leaf, int fds[CG_CONTROLLERS])
{
	char path[PATH_MAX];
	unsigned n = 0;

	for (unsigned k = 0; k < CG_CONTROLLERS; k++) {
		if (!c->dir[k] || shares_dir(c, k) || path_in(c, leaf, NULL, k, "cgroup.procs", path))
			continue;
		fds[n] = open(path, O_WRONLY | O_CLOEXEC);
		n += fds[n] >= 0;
	}
	return n;
}

/* Groups below first. A group is empty as soon as its processes are zombies. */
static void remove_tree(const char *path)
{
	DIR *dir = opendir(path);
	char below[PATH_MAX];
	struct dirent *e;

	while (dir && (e = readdir(dir)))
		if (e->d_type == DT_DIR && e->d_name[0] != '.' &&
		    snprintf(below, sizeof(below), "%s/%s", path, e->d_name) < PATH_MAX)
			rmdir(below);
	if (dir)
		closedir(dir);
	rmdir(path);
}

void cgroup_remove(const struct cgroups *c, const char *leaf)
{
	char path[PATH_MAX];

	for (unsigned k = 0; k < CG_CONTROLLERS; k++)
		if (c->dir[k] && !shares_dir(c, k) && !path_in(c, leaf, NULL, k, "", path))
			remove_tree(path);
}

static int make_sub(const struct cgroups *c, const char *leaf, const char *sub, enum cgroup_controller k)
{
	char path[PATH_MAX];
	int ret = path_in(c, leaf, sub, k, "", path);

	if (!ret)
		ret = make_dir(path);
	/* Threads of one process in several groups: cgroup-v2.rst, "Threads". */
	if (!ret && c->v2[k]) {
		path_in(c, leaf, sub, k, "cgroup.type", path);
		ret = write_file(path, "threaded");
		path_in(c, leaf, NULL, k, "cgroup.subtree_control", path);
		if (!ret)
			ret = write_file(path, k == CG_CPUSET ? "+cpuset" : "+cpu");
	}
	return ret;
}

int cgroup_move_thread(const struct cgroups *c, const char *leaf, const char *sub, enum cgroup_controller k, pid_t tid)
{
	int ret = sub ? make_sub(c, leaf, sub, k) : 0;

	return ret ? ret : put_number(c, leaf, sub, k, "tasks", "cgroup.threads", tid);
}

/* ---- Limits -------------------------------------------------------------------- */

int cgroup_set_shares(const struct cgroups *c, const char *leaf, uint64_t shares)
{
	return put_number(c, leaf, NULL, CG_CPU, "cpu.shares", "cpu.weight", (int64_t)shares);
}

int cgroup_set_quota(const struct cgroups *c, const char *leaf, const char *sub, uint64_t period, int64_t quota)
{
	char text[64];
	int ret = sub ? make_sub(c, leaf, sub, CG_CPU) : 0;

	if (ret)
		return ret;
	if (c->v2[CG_CPU]) {
		if (quota < 0)
			snprintf(text, sizeof(text), "max %" PRIu64, period ? period : 100000);
		else
			snprintf(text, sizeof(text), "%" PRId64 " %" PRIu64, quota, period ? period : 100000);
		return put(c, leaf, sub, CG_CPU, NULL, "cpu.max", text);
	}
	/* A longer period with the old quota may be too little of it, a shorter one too much: away with that first. */
	ret = put_number(c, leaf, sub, CG_CPU, "cpu.cfs_quota_us", NULL, -1);
	if (!ret && period)
		ret = put_number(c, leaf, sub, CG_CPU, "cpu.cfs_period_us", NULL, (int64_t)period);
	if (!ret && quota >= 0)
		ret = put_number(c, leaf, sub, CG_CPU, "cpu.cfs_quota_us", NULL, quota);
	return ret;
}

static int put_memory(const struct cgroups *c, const char *leaf, const char *v1, const char *v2, uint64_t kib)
{
	if (kib >= (uint64_t)INT64_MAX / 1024)
		return put(c, leaf, NULL, CG_MEMORY, v1, v2, c->v2[CG_MEMORY] ? "max" : "-1");
	return put_number(c, leaf, NULL, CG_MEMORY, v1, v2, (int64_t)(kib * 1024));
}

int cgroup_set_memory(const struct cgroups *c, const char *leaf, uint64_t hard, uint64_t soft, uint64_t swap_hard)
{
	/* Version 2 counts swap alone, version 1 memory and swap together. */
	uint64_t swap = !c->v2[CG_MEMORY] || swap_hard == SWAP_OFF ? swap_hard : swap_hard > hard ? swap_hard - hard : 0;
	int ret, also;

	/* Version 1 never lets the sum be less than its part: the order depends on which way they go. */
	also = put_memory(c, leaf, "memory.memsw.limit_in_bytes", "memory.swap.max", swap);
	ret = put_memory(c, leaf, "memory.limit_in_bytes", "memory.max", hard);
	if (also)
		also = put_memory(c, leaf, "memory.memsw.limit_in_bytes", "memory.swap.max", swap);
	/* Kernels without accounting of swap have no such file. */
	if (!ret && also && swap_hard != SWAP_OFF)
		ret = also;
	if (!ret)
		ret = put_memory(c, leaf, "memory.soft_limit_in_bytes", "memory.high", soft);
	return ret;
}

int cgroup_set_pids(const struct cgroups *c, const char *leaf, unsigned max)
{
	return put_number(c, leaf, NULL, CG_PIDS, "pids.max", "pids.max", max);
}

/* What is open stays open: nothing else will be. Version 2 has that as programs of the kernel; an empty root does as well. */
int cgroup_forbid_devices(const struct cgroups *c, const char *leaf)
{
	return !c->dir[CG_DEVICES] || c->v2[CG_DEVICES] ? 0 : put(c, leaf, NULL, CG_DEVICES, "devices.deny", NULL, "a");
}

int cgroup_set_weight(const struct cgroups *c, const char *leaf, unsigned weight)
{
	int ret = put_number(c, leaf, NULL, CG_BLKIO, "blkio.weight", "io.weight", weight);

	return ret == -ENOENT ? put_number(c, leaf, NULL, CG_BLKIO, "blkio.bfq.weight", "io.bfq.weight", weight) : ret;
}

int cgroup_set_device_weight(const struct cgroups *c, const char *leaf, dev_t dev, unsigned weight)
{
	char text[64];
	int ret;

	snprintf(text, sizeof(text), "%u:%u %u", major(dev), minor(dev), weight);
	ret = put(c, leaf, NULL, CG_BLKIO, "blkio.weight_device", "io.weight", text);
	return ret == -ENOENT ? put(c, leaf, NULL, CG_BLKIO, "blkio.bfq.weight_device", "io.bfq.weight", text) : ret;
}

int cgroup_set_io(const struct cgroups *c, const char *leaf, dev_t dev, enum cgroup_io what, uint64_t value)
{
	static const struct {
		const char *v1, *key;
	} limits[CG_IO_LIMITS] = {
		[CG_READ_BPS] = { "blkio.throttle.read_bps_device", "rbps" },
		[CG_WRITE_BPS] = { "blkio.throttle.write_bps_device", "wbps" },
		[CG_READ_IOPS] = { "blkio.throttle.read_iops_device", "riops" },
		[CG_WRITE_IOPS] = { "blkio.throttle.write_iops_device", "wiops" },
	};
	char text[96];

	if (!c->v2[CG_BLKIO])
		snprintf(text, sizeof(text), "%u:%u %" PRIu64, major(dev), minor(dev), value);
	else if (value)
		snprintf(text, sizeof(text), "%u:%u %s=%" PRIu64, major(dev), minor(dev), limits[what].key, value);
	else
		snprintf(text, sizeof(text), "%u:%u %s=max", major(dev), minor(dev), limits[what].key);
	return put(c, leaf, NULL, CG_BLKIO, limits[what].v1, "io.max", text);
}

int cgroup_set_mems(const struct cgroups *c, const char *leaf, const char *nodes, pid_t pid)
{
	char path[PATH_MAX], cpus[256];
	int ret;

	if (c->v2[CG_CPUSET])
		return put(c, leaf, NULL, CG_CPUSET, NULL, "cpuset.mems", nodes);
	ret = path_in(c, leaf, NULL, CG_CPUSET, "", path);
	if (!ret)
		ret = make_dir(path);
	if (ret)
		return ret;
	snprintf(path, sizeof(path), "%s/cpuset.cpus", c->dir[CG_CPUSET]);
	ret = read_file(path, cpus, sizeof(cpus));
	if (!ret)
		ret = put(c, leaf, NULL, CG_CPUSET, "cpuset.cpus", NULL, cpus);
	/* Pages that are somewhere else move. */
	if (!ret)
		ret = put(c, leaf, NULL, CG_CPUSET, "cpuset.memory_migrate", NULL, "1");
	if (!ret)
		ret = put(c, leaf, NULL, CG_CPUSET, "cpuset.mems", NULL, nodes);
	return ret ? ret : put_number(c, leaf, NULL, CG_CPUSET, "cgroup.procs", NULL, pid);
}
