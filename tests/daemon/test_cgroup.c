/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Both versions' files, in a directory that stands for what the kernel mounts. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/cgroup.h"

static char top[] = "/tmp/keel-cgroup-XXXXXX";

static const char *path_of(const char *rest)
{
	static char path[512];

	snprintf(path, sizeof(path), "%s/%s", top, rest);
	return path;
}

static void put(const char *rest, const char *text)
{
	FILE *f = fopen(path_of(rest), "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void put_all(const char *dir, const char *const *files)
{
	char rest[300];

	for (; *files; files++) {
		snprintf(rest, sizeof(rest), "%s/%s", dir, *files);
		put(rest, "");
	}
}

static void has(const char *rest, const char *text)
{
	char got[128] = "";
	FILE *f = fopen(path_of(rest), "r");

	assert_non_null(f);
	if (!fgets(got, sizeof(got), f))
		got[0] = 0;
	fclose(f);
	/* The kernel takes each write as a whole; a file keeps the tail of a longer one before. */
	assert_memory_equal(got, text, strlen(text));
}

static int make_top(void **state)
{
	strcpy(top + strlen(top) - 6, "XXXXXX");
	return mkdtemp(top) ? 0 : -1;
}

static int drop(const char *path, const struct stat *st, int type, struct FTW *w)
{
	return remove(path);
}

static int remove_top(void **state)
{
	return nftw(top, drop, 16, FTW_DEPTH | FTW_PHYS);
}

static void version_1(void **state)
{
	static const char *const cpu[] = { "cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "tasks", "cgroup.procs", NULL };
	static const char *const memory[] = { "memory.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.memsw.limit_in_bytes", NULL };
	char mounts[2048];
	struct cgroups c;

	mkdir(path_of("cpu,cpuacct"), 0755);
	mkdir(path_of("memory"), 0755);
	snprintf(mounts, sizeof(mounts),
		 "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
		 "30 22 0:26 / %s/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
		 "31 22 0:27 / %s/memory rw - cgroup cgroup rw,memory\nnonsense\n32 22\n", top, top);
	cgroups_find(&c, mounts);
	assert_string_equal(c.dir[CG_CPU], path_of("cpu,cpuacct/keel"));
	assert_string_equal(c.dir[CG_CPUACCT], path_of("cpu,cpuacct/keel"));
	assert_true(c.dir[CG_MEMORY] && !c.dir[CG_BLKIO] && !c.dir[CG_PIDS] && !c.v2[CG_CPU]);
	assert_int_equal(cgroup_make(&c, "1-a"), 0);
	put_all("cpu,cpuacct/keel/1-a", cpu);
	put_all("memory/keel/1-a", memory);
	assert_int_equal(cgroup_set_shares(&c, "1-a", 300), 0);
	has("cpu,cpuacct/keel/1-a/cpu.shares", "300");
	assert_int_equal(cgroup_set_quota(&c, "1-a", NULL, 50000, 20000), 0);
	has("cpu,cpuacct/keel/1-a/cpu.cfs_quota_us", "20000");
	has("cpu,cpuacct/keel/1-a/cpu.cfs_period_us", "50000");
	assert_int_equal(cgroup_set_memory(&c, "1-a", 1024, UINT64_MAX, 2048), 0);
	has("memory/keel/1-a/memory.limit_in_bytes", "1048576");
	has("memory/keel/1-a/memory.memsw.limit_in_bytes", "2097152");
	has("memory/keel/1-a/memory.soft_limit_in_bytes", "-1");
	assert_int_equal(cgroup_set_pids(&c, "1-a", 7), -ENODEV);
	assert_int_equal(cgroup_set_shares(&c, "2-b", 300), -ENOENT);
	cgroups_free(&c);
}

static void version_2(void **state)
{
	static const char *const files[] = { "cpu.weight", "cpu.max", "memory.max", "memory.high", "memory.swap.max", "io.max", "pids.max",
					     "cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "cpuset.mems", NULL };
	static const char *const sub[] = { "cpu.max", "cgroup.type", "cgroup.threads", NULL };
	char mounts[512];
	struct cgroups c;
	int fds[CG_CONTROLLERS];

	put("cgroup.controllers", "cpuset cpu io memory hugetlb pids\n");
	put("cgroup.subtree_control", "");
	mkdir(path_of("keel"), 0755);
	put("keel/cgroup.subtree_control", "");
	snprintf(mounts, sizeof(mounts), "30 22 0:26 / %s rw,nosuid shared:9 - cgroup2 cgroup2 rw\n", top);
	cgroups_find(&c, mounts);
	assert_true(c.dir[CG_CPU] && c.v2[CG_CPU] && c.dir[CG_MEMORY] && c.dir[CG_BLKIO] && c.dir[CG_PIDS] && !c.dir[CG_DEVICES]);
	has("cgroup.subtree_control", "+cpuset"); /* the last one asked for; each is a write of its own */
	assert_int_equal(cgroup_make(&c, "1-a"), 0);
	put_all("keel/1-a", files);
	assert_int_equal(cgroup_join_fds(&c, "1-a", fds), 1); /* one group for all controllers */
	close(fds[0]);
	assert_int_equal(cgroup_set_shares(&c, "1-a", 300), 0);
	has("keel/1-a/cpu.weight", "300");
	assert_int_equal(cgroup_set_quota(&c, "1-a", NULL, 0, 20000), 0);
	has("keel/1-a/cpu.max", "20000 100000");
	mkdir(path_of("keel/1-a/vcpu0"), 0755);
	put_all("keel/1-a/vcpu0", sub);
	assert_int_equal(cgroup_set_quota(&c, "1-a", "vcpu0", 5000, -1), 0);
	has("keel/1-a/vcpu0/cgroup.type", "threaded");
	has("keel/1-a/vcpu0/cpu.max", "max 5000");
	assert_int_equal(cgroup_move_thread(&c, "1-a", "vcpu0", CG_CPU, 1234), 0);
	has("keel/1-a/vcpu0/cgroup.threads", "1234");
	assert_int_equal(cgroup_set_memory(&c, "1-a", 1024, 512, 4096), 0);
	has("keel/1-a/memory.max", "1048576");
	has("keel/1-a/memory.high", "524288");
	has("keel/1-a/memory.swap.max", "3145728"); /* swap alone: without the memory */
	assert_int_equal(cgroup_set_io(&c, "1-a", makedev(8, 16), CG_WRITE_IOPS, 50), 0);
	has("keel/1-a/io.max", "8:16 wiops=50");
	assert_int_equal(cgroup_set_mems(&c, "1-a", "0-1", 1), 0);
	has("keel/1-a/cpuset.mems", "0-1");
	assert_int_equal(cgroup_forbid_devices(&c, "1-a"), 0);
	cgroups_free(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(version_1, make_top, remove_top),
		cmocka_unit_test_setup_teardown(version_2, make_top, remove_top),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
