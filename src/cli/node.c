/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The daemon and its host. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/verb.h"
#include "lib/open.h"

static int run_nodeinfo(struct cmd *c)
{
	struct keel_node_info i;

	if (keel_node_info(c->conn, &i, &c->error))
		return cmd_fail(c, "failed to get node information");
	if (cmd_has(c, "json"))
		return cmd_json(json_pack("{s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:I}", "model", i.model, "cpus", (int)i.cpus, "mhz", (int)i.mhz,
					  "sockets", (int)i.sockets, "cores", (int)i.cores, "threads", (int)i.threads, "numa-cells",
					  (int)i.nodes, "memory-kib", (json_int_t)i.memory_kib));
	printf("%-20s %s\n", "CPU model:", i.model);
	printf("%-20s %u\n", "CPU(s):", i.cpus);
	if (i.mhz)
		printf("%-20s %u MHz\n", "CPU frequency:", i.mhz);
	printf("%-20s %u\n", "CPU socket(s):", i.sockets);
	printf("%-20s %u\n", "Core(s) per socket:", i.cores);
	printf("%-20s %u\n", "Thread(s) per core:", i.threads);
	printf("%-20s %u\n", "NUMA cell(s):", i.nodes);
	printf("%-20s %llu KiB\n", "Memory size:", (unsigned long long)i.memory_kib);
	return 0;
}

static int run_hostname(struct cmd *c)
{
	char *name = keel_hostname(c->conn, &c->error);

	if (!name)
		return cmd_fail(c, "failed to get hostname");
	printf("%s\n", name);
	keel_free(name);
	return 0;
}

static int run_uri(struct cmd *c)
{
	printf("%s\n", c->uri ? c->uri : open_default_uri());
	return 0;
}

static int run_capabilities(struct cmd *c)
{
	char *xml = keel_capabilities(c->conn, &c->error);

	if (!xml)
		return cmd_fail(c, "failed to get capabilities");
	printf("%s\n", xml);
	keel_free(xml);
	return 0;
}

static int run_domcapabilities(struct cmd *c)
{
	struct remote_connect_get_domain_capabilities_args args = {
		.emulatorbin = (char *)cmd_text(c, "emulatorbin"),
		.arch = (char *)cmd_text(c, "arch"),
		.machine = (char *)cmd_text(c, "machine"),
		.virttype = (char *)cmd_text(c, "virttype"),
	};
	struct remote_connect_get_domain_capabilities_ret ret = { 0 };

	if (cmd_call(c, REMOTE_PROC_CONNECT_GET_DOMAIN_CAPABILITIES, &args, &ret))
		return cmd_fail(c, "failed to get emulator capabilities");
	printf("%s\n", ret.capabilities);
	return 0;
}

static int run_sysinfo(struct cmd *c)
{
	struct remote_connect_get_sysinfo_args args = { 0 };
	struct remote_connect_get_sysinfo_ret ret = { 0 };

	if (cmd_call(c, REMOTE_PROC_CONNECT_GET_SYSINFO, &args, &ret))
		return cmd_fail(c, "failed to get sysinfo");
	printf("%s", ret.sysinfo);
	return 0;
}

static int run_maxvcpus(struct cmd *c)
{
	struct remote_connect_get_max_vcpus_args args = { .type = (char *)cmd_text(c, "type") };
	struct remote_connect_get_max_vcpus_ret ret = { 0 };

	if (cmd_call(c, REMOTE_PROC_CONNECT_GET_MAX_VCPUS, &args, &ret))
		return cmd_fail(c, NULL);
	printf("%d\n", ret.max_vcpus);
	return 0;
}

static int run_nodememstats(struct cmd *c)
{
	struct remote_node_get_memory_stats_args args = { .cellNum = -1 };
	struct remote_node_get_memory_stats_ret ret = { 0 };
	json_t *j = json_object();
	long long cell = -1;

	if (cmd_number(c, "cell", &cell))
		return 1;
	args.cellNum = (int32_t)cell;
	/* First how many there are, then that many. */
	if (!cmd_call(c, REMOTE_PROC_NODE_GET_MEMORY_STATS, &args, &ret))
		args.nparams = ret.nparams;
	if (c->error.code || cmd_call(c, REMOTE_PROC_NODE_GET_MEMORY_STATS, &args, &ret)) {
		json_decref(j);
		return cmd_fail(c, args.nparams ? "Unable to get memory stats" : "Unable to get number of memory stats");
	}
	for (uint32_t n = 0; n < ret.params_len; n++)
		if (cmd_has(c, "json"))
			json_object_set_new(j, ret.params[n].field, json_integer((json_int_t)ret.params[n].value));
		else
			printf("%-7s: %20llu KiB\n", ret.params[n].field, (unsigned long long)ret.params[n].value);
	if (cmd_has(c, "json"))
		return cmd_json(j);
	json_decref(j);
	return 0;
}

static int run_nodecpumap(struct cmd *c)
{
	struct remote_node_get_cpu_map_args args = { .need_map = 1, .need_online = 1 };
	struct remote_node_get_cpu_map_ret ret = { 0 };

	if (cmd_call(c, REMOTE_PROC_NODE_GET_CPU_MAP, &args, &ret))
		return cmd_fail(c, "Unable to get cpu map");
	printf("%-15s %d\n", "CPUs present:", ret.ret);
	printf("%-15s %u\n", "CPUs online:", ret.online);
	printf("%-15s ", "CPU map:");
	for (uint32_t n = 0; n < (uint32_t)ret.ret && n / 8 < ret.cpumap_len; n++)
		putchar(ret.cpumap[n / 8] & 1u << n % 8 ? 'y' : '-');
	putchar('\n');
	return 0;
}

static const struct opt json_only[] = { { "json", OPT_FLAG, 0, "as JSON" }, { 0 } };

static const struct opt domcaps_opts[] = {
	{ "virttype", OPT_TEXT, 0, "kvm or qemu" },
	{ "emulatorbin", OPT_TEXT, 0, "path of the emulator" },
	{ "arch", OPT_TEXT, 0, "architecture" },
	{ "machine", OPT_TEXT, 0, "machine, as q35" },
	{ 0 },
};

static const struct opt maxvcpus_opts[] = { { "type", OPT_TEXT, OPT_DATA, "kvm or qemu" }, { 0 } };

static const struct opt memstats_opts[] = {
	{ "cell", OPT_NUMBER, OPT_DATA, "NUMA cell" },
	{ "json", OPT_FLAG, 0, "as JSON" },
	{ 0 },
};

const struct verb host_verbs[] = {
	{ "nodeinfo", "tell about the host's CPUs and memory", json_only, run_nodeinfo },
	{ "nodecpumap", "tell which CPUs are online", NULL, run_nodecpumap },
	{ "nodememstats", "print the host's memory statistics", memstats_opts, run_nodememstats },
	{ "maxvcpus", "print how many vCPUs a guest may have", maxvcpus_opts, run_maxvcpus },
	{ "capabilities", "print what the host can do, as XML", NULL, run_capabilities },
	{ "domcapabilities", "print what guests can have, as XML", domcaps_opts, run_domcapabilities },
	{ "sysinfo", "print the host's SMBIOS information, as XML", NULL, run_sysinfo },
	{ "hostname", "print the host's name", NULL, run_hostname },
	{ "uri", "print the URI of the connection", NULL, run_uri },
	{ 0 },
};
