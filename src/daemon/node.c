/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host: its CPUs and memory, as /proc and /sys count them. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "daemon/guest.h"
#include "daemon/guest_tune.h"

#define MAX_VCPUS 255

/* The number after "NAME:" in a file such as /proc/meminfo; 0 if it isn't there. */
static uint64_t number_in(const char *path, const char *name)
{
	char line[256];
	unsigned long long v = 0;
	size_t len = strlen(name);
	FILE *f = fopen(path, "re");

	while (f && fgets(line, sizeof(line), f)) {
		char *at = strstr(line, name);

		if (!at || (at[len] != ':' && !isspace((unsigned char)at[len])))
			continue;
		at = strchr(at, ':');
		v = at ? strtoull(at + 1, NULL, 10) : 0;
		break;
	}
	if (f)
		fclose(f);
	return v;
}

/* The first line of a file, without its end. False if there is none. */
static bool first_line(const char *path, char *line, size_t size)
{
	FILE *f = fopen(path, "re");
	bool ok = f && fgets(line, (int)size, f);

	if (f)
		fclose(f);
	if (ok)
		line[strcspn(line, "\n")] = 0;
	return ok;
}

static bool cpus_in(const char *file, uint8_t *map, unsigned bytes)
{
	char path[64], line[1024];

	snprintf(path, sizeof(path), "/sys/devices/system/cpu/%s", file);
	return first_line(path, line, sizeof(line)) && cpumap_parse(line, map, bytes);
}

static unsigned cpus_online(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n > 0 ? (unsigned)n : 1;
}

static long topology(unsigned cpu, const char *what)
{
	char path[96], line[32];

	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%u/topology/%s", cpu, what);
	return first_line(path, line, sizeof(line)) ? strtol(line, NULL, 10) : -1;
}

/* Packages, and cores of the first package; 0 if the kernel doesn't say. */
static void count_topology(unsigned *sockets, unsigned *cores)
{
	long packages[64], ids[1024], package, core, first = topology(0, "physical_package_id");
	unsigned i;

	*sockets = *cores = 0;
	for (unsigned cpu = 0; cpu < host_cpus(); cpu++) {
		package = topology(cpu, "physical_package_id");
		core = topology(cpu, "core_id");
		if (package < 0 || core < 0)
			continue;
		for (i = 0; i < *sockets && packages[i] != package; i++)
			;
		if (i == *sockets && i < 64)
			packages[(*sockets)++] = package;
		for (i = 0; package == first && i < *cores && ids[i] != core; i++)
			;
		if (package == first && i == *cores && i < 1024)
			ids[(*cores)++] = core;
	}
}

void node_topology(unsigned *sockets, unsigned *cores, unsigned *threads)
{
	count_topology(sockets, cores);
	*threads = *sockets && *cores ? host_cpus() / (*sockets * *cores) : 0;
	if (!*threads || *sockets * *cores * *threads != host_cpus()) { /* not all alike: as libvirt, one socket of cores */
		*sockets = *threads = 1;
		*cores = host_cpus();
	}
}

static int get_info(struct rpc_call *call)
{
	struct remote_node_get_info_ret *ret = call->ret;
	unsigned sockets, cores, threads;
	struct utsname uts;

	if (uname(&uts))
		return rpc_call_fail(call, VIR_FROM_NONE, VIR_ERR_SYSTEM_ERROR, "uname: %s", strerror(errno));
	memcpy(ret->model, uts.machine, strnlen(uts.machine, sizeof(ret->model) - 1));
	node_topology(&sockets, &cores, &threads);
	ret->memory = number_in("/proc/meminfo", "MemTotal");
	ret->cpus = (int32_t)cpus_online();
	ret->mhz = (int32_t)number_in("/proc/cpuinfo", "cpu MHz");
	ret->nodes = 1;
	ret->sockets = (int32_t)sockets;
	ret->cores = (int32_t)cores;
	ret->threads = (int32_t)threads;
	return 0;
}

static int get_cpu_map(struct rpc_call *call)
{
	const struct remote_node_get_cpu_map_args *args = call->args;
	struct remote_node_get_cpu_map_ret *ret = call->ret;
	uint8_t *map;

	if (call_check_flags(call, args->flags, 0))
		return -1;
	map = arena_alloc(&call->arena, cpumap_bytes());
	if (!map)
		return call_fail_memory(call);
	if (!cpus_in("online", map, cpumap_bytes()))
		return rpc_call_fail(call, VIR_FROM_NONE, VIR_ERR_SYSTEM_ERROR, "cannot read /sys/devices/system/cpu/online");
	if (args->need_map) {
		ret->cpumap = map;
		ret->cpumap_len = cpumap_bytes();
	}
	ret->online = args->need_online ? cpus_online() : 0;
	ret->ret = (int32_t)host_cpus();
	return 0;
}

/* ---- Figures --------------------------------------------------------------- */

/* /proc/stat: user nice system idle iowait irq softirq (proc(5)), in ticks. */
static bool cpu_ticks(int cpu, unsigned long long t[7])
{
	char line[512], name[16];
	FILE *f = fopen("/proc/stat", "re");
	bool found = false;

	snprintf(name, sizeof(name), cpu < 0 ? "cpu" : "cpu%d", cpu);
	while (f && !found && fgets(line, sizeof(line), f)) {
		char *rest = strchr(line, ' ');

		if (!rest)
			continue;
		*rest++ = 0;
		found = !strcmp(line, name) &&
			sscanf(rest, "%llu %llu %llu %llu %llu %llu %llu", &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6]) == 7;
	}
	if (f)
		fclose(f);
	return found;
}

static int get_cpu_stats(struct rpc_call *call)
{
	const struct remote_node_get_cpu_stats_args *args = call->args;
	struct remote_node_get_cpu_stats_ret *ret = call->ret;
	static char *const names[] = { "kernel", "user", "idle", "iowait" };
	uint64_t tick = 1000000000u / (uint64_t)sysconf(_SC_CLK_TCK), v[4];
	unsigned long long t[7];

	if (call_check_flags(call, args->flags, 0))
		return -1;
	if (args->cpuNum < -1 || !cpu_ticks(args->cpuNum, t))
		return rpc_call_fail(call, VIR_FROM_NONE, VIR_ERR_INVALID_ARG, "Invalid cpuNum in virHostCPUGetStatsLinux");
	ret->nparams = 4;
	if (!args->nparams)
		return 0;
	if (args->nparams != 4)
		return rpc_call_fail(call, VIR_FROM_NONE, VIR_ERR_INVALID_ARG, "nparams in virHostCPUGetStatsLinux must be equal to 4");
	v[0] = (t[2] + t[5] + t[6]) * tick;
	v[1] = (t[0] + t[1]) * tick;
	v[2] = t[3] * tick;
	v[3] = t[4] * tick;
	ret->params = arena_alloc(&call->arena, 4 * sizeof(*ret->params));
	if (!ret->params)
		return call_fail_memory(call);
	for (unsigned n = 0; n < 4; n++)
		ret->params[n] = (struct remote_node_get_cpu_stats){ names[n], v[n] };
	ret->params_len = 4;
	return 0;
}

static int get_memory_stats(struct rpc_call *call)
{
	const struct remote_node_get_memory_stats_args *args = call->args;
	struct remote_node_get_memory_stats_ret *ret = call->ret;
	static const struct {
		char *name;
		const char *file;
	} figures[] = { { "total", "MemTotal" }, { "free", "MemFree" }, { "buffers", "Buffers" }, { "cached", "Cached" } };
	unsigned have = args->cellNum < 0 ? 4 : 2;
	char path[64] = "/proc/meminfo";

	if (call_check_flags(call, args->flags, 0))
		return -1;
	if (args->cellNum >= 0)
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", args->cellNum);
	if (args->cellNum < -1 || access(path, R_OK))
		return rpc_call_fail(call, VIR_FROM_NONE, VIR_ERR_INVALID_ARG, "cellNum in virHostMemGetStatsLinux must be less than or equal to 0");
	ret->nparams = (int32_t)have;
	if (!args->nparams)
		return 0;
	if (args->nparams != (int32_t)have)
		return rpc_call_fail(call, VIR_FROM_NONE, VIR_ERR_INVALID_ARG, "nparams in virHostMemGetStatsLinux must be %u", have);
	ret->params = arena_alloc(&call->arena, have * sizeof(*ret->params));
	if (!ret->params)
		return call_fail_memory(call);
	for (unsigned n = 0; n < have; n++)
		ret->params[n] = (struct remote_node_get_memory_stats){ figures[n].name, number_in(path, figures[n].file) };
	ret->params_len = have;
	return 0;
}

static int get_free_memory(struct rpc_call *call)
{
	((struct remote_node_get_free_memory_ret *)call->ret)->freeMem = number_in("/proc/meminfo", "MemFree") * 1024;
	return 0;
}

static int get_cells_free_memory(struct rpc_call *call)
{
	const struct remote_node_get_cells_free_memory_args *args = call->args;
	struct remote_node_get_cells_free_memory_ret *ret = call->ret;
	char path[64];

	if (args->startCell < 0 || args->maxcells < 0 || args->maxcells > 1024)
		return rpc_call_fail(call, VIR_FROM_NONE, VIR_ERR_INVALID_ARG, "cells from %d on, %d of them, are not possible",
				     args->startCell, args->maxcells);
	ret->cells = arena_alloc(&call->arena, ((unsigned)args->maxcells + 1) * sizeof(*ret->cells));
	if (!ret->cells)
		return call_fail_memory(call);
	for (int n = 0; n < args->maxcells; n++) {
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", args->startCell + n);
		if (access(path, R_OK))
			break;
		ret->cells[ret->cells_len++] = number_in(path, "MemFree") * 1024;
	}
	if (!ret->cells_len && !args->startCell) /* a kernel without NUMA */
		ret->cells[ret->cells_len++] = number_in("/proc/meminfo", "MemFree") * 1024;
	if (!ret->cells_len)
		return rpc_call_fail(call, VIR_FROM_NONE, VIR_ERR_INTERNAL_ERROR, "start cell %d out of range (0-0)", args->startCell);
	return 0;
}

/* ---- What the firmware says ------------------------------------------------ */

static const struct dmi {
	const char *block, *name, *file;
} dmi[] = {
	{ "bios", "vendor", "bios_vendor" },	   { "bios", "version", "bios_version" },
	{ "bios", "date", "bios_date" },	   { "bios", "release", "bios_release" },
	{ "system", "manufacturer", "sys_vendor" }, { "system", "product", "product_name" },
	{ "system", "version", "product_version" }, { "system", "serial", "product_serial" },
	{ "system", "uuid", "product_uuid" },	   { "system", "sku", "product_sku" },
	{ "system", "family", "product_family" },  { "baseBoard", "manufacturer", "board_vendor" },
	{ "baseBoard", "product", "board_name" },  { "baseBoard", "version", "board_version" },
	{ "baseBoard", "serial", "board_serial" },
};
#define N_DMI (sizeof(dmi) / sizeof(dmi[0]))

static void put_escaped(FILE *f, const char *text)
{
	for (; *text; text++) {
		switch (*text) {
		case '&':
			fputs("&amp;", f);
			break;
		case '<':
			fputs("&lt;", f);
			break;
		case '>':
			fputs("&gt;", f);
			break;
		default:
			if ((unsigned char)*text >= 0x20)
				fputc(*text, f);
		}
	}
}

static void put_sysinfo(FILE *f)
{
	const char *open = NULL;
	char path[64], line[256];

	fputs("<sysinfo type='smbios'>\n", f);
	for (unsigned n = 0; n < N_DMI; n++) {
		snprintf(path, sizeof(path), "/sys/class/dmi/id/%s", dmi[n].file);
		if (!first_line(path, line, sizeof(line)) || !*line)
			continue;
		if (!open || strcmp(open, dmi[n].block)) {
			if (open)
				fprintf(f, "  </%s>\n", open);
			fprintf(f, "  <%s>\n", open = dmi[n].block);
		}
		fprintf(f, "    <entry name='%s'>", dmi[n].name);
		put_escaped(f, line);
		fputs("</entry>\n", f);
	}
	if (open)
		fprintf(f, "  </%s>\n", open);
	fputs("</sysinfo>\n", f);
}

static int get_sysinfo(struct rpc_call *call)
{
	struct remote_connect_get_sysinfo_ret *ret = call->ret;
	char *text = NULL;
	size_t len;
	FILE *f;

	if (call_check_flags(call, ((struct remote_connect_get_sysinfo_args *)call->args)->flags, 0))
		return -1;
	f = open_memstream(&text, &len);
	if (!f)
		return call_fail_memory(call);
	put_sysinfo(f);
	if (!fclose(f))
		ret->sysinfo = arena_strdup(&call->arena, text);
	free(text);
	return ret->sysinfo ? 0 : call_fail_memory(call);
}

static int get_max_vcpus(struct rpc_call *call)
{
	const char *type = ((struct remote_connect_get_max_vcpus_args *)call->args)->type;

	if (type && strcasecmp(type, "qemu") && strcasecmp(type, "kvm"))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "unknown type '%s'", type);
	((struct remote_connect_get_max_vcpus_ret *)call->ret)->max_vcpus = MAX_VCPUS;
	return 0;
}

/* No security driver with labels is in use: libvirt says so with two empty strings. */
static int get_security_model(struct rpc_call *call)
{
	struct remote_node_get_security_model_ret *ret = call->ret;

	ret->model = ret->doi = "";
	ret->model_len = ret->doi_len = 1;
	return 0;
}

static int get_free_pages(struct rpc_call *call)
{
	const struct remote_node_get_free_pages_args *args = call->args;
	struct remote_node_get_free_pages_ret *ret = call->ret;
	uint64_t small = (uint64_t)sysconf(_SC_PAGESIZE) / 1024;
	char path[96], line[32];

	if (call_check_flags(call, args->flags, 0))
		return -1;
	if (args->startCell > 0 || args->startCell < -1 || args->cellCount != 1 || args->pages_len > 64)
		return rpc_call_fail(call, VIR_FROM_NONE, VIR_ERR_INTERNAL_ERROR, "start cell %d out of range (0-0)", args->startCell);
	ret->counts = arena_alloc(&call->arena, (args->pages_len + 1) * sizeof(*ret->counts));
	if (!ret->counts)
		return call_fail_memory(call);
	for (unsigned n = 0; n < args->pages_len; n++) {
		snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%ukB/free_hugepages", args->pages[n]);
		if (args->pages[n] == small)
			ret->counts[n] = number_in("/proc/meminfo", "MemFree") / small;
		else if (first_line(path, line, sizeof(line)))
			ret->counts[n] = strtoull(line, NULL, 10);
		else
			return rpc_call_fail(call, VIR_FROM_NONE, VIR_ERR_OPERATION_FAILED, "page size %u is not available on node 0",
					     args->pages[n]);
		ret->counts_len = n + 1;
	}
	return 0;
}

const struct binding node_bindings[] = {
	{ REMOTE_PROC_NODE_GET_INFO, get_info },
	{ REMOTE_PROC_NODE_GET_CPU_MAP, get_cpu_map },
	{ REMOTE_PROC_NODE_GET_CPU_STATS, get_cpu_stats },
	{ REMOTE_PROC_NODE_GET_MEMORY_STATS, get_memory_stats },
	{ REMOTE_PROC_NODE_GET_FREE_MEMORY, get_free_memory },
	{ REMOTE_PROC_NODE_GET_CELLS_FREE_MEMORY, get_cells_free_memory },
	{ REMOTE_PROC_NODE_GET_FREE_PAGES, get_free_pages },
	{ REMOTE_PROC_NODE_GET_SECURITY_MODEL, get_security_model },
	{ REMOTE_PROC_CONNECT_GET_MAX_VCPUS, get_max_vcpus },
	{ REMOTE_PROC_CONNECT_GET_SYSINFO, get_sysinfo },
	{ 0 },
};
