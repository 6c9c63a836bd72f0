/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vCPUs and memory: what there is, and changes. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/verb.h"

enum { AFFECT_LIVE = 1, AFFECT_CONFIG = 2, VCPU_MAXIMUM = 4, MEM_MAXIMUM = 4 };

static unsigned host_cpus(struct cmd *c)
{
	struct remote_node_get_cpu_map_args args = { 0 };
	struct remote_node_get_cpu_map_ret ret = { 0 };

	return cmd_call(c, REMOTE_PROC_NODE_GET_CPU_MAP, &args, &ret) || ret.ret <= 0 ? 0 : (unsigned)ret.ret;
}

static bool in_map(const uint8_t *map, unsigned cpu)
{
	return map[cpu / 8] & 1u << cpu % 8;
}

/* "0-3,5" of a map. */
static void range_text(const uint8_t *map, unsigned cpus, char *text, size_t len)
{
	size_t at = 0;

	*text = 0;
	for (unsigned cpu = 0; cpu < cpus; cpu++) {
		unsigned first = cpu;

		if (!in_map(map, cpu))
			continue;
		while (cpu + 1 < cpus && in_map(map, cpu + 1))
			cpu++;
		at += (size_t)snprintf(text + at, len - at, first == cpu ? "%s%u" : "%s%u-%u", at ? "," : "", first, cpu);
		if (at >= len)
			return;
	}
}

static void print_affinity(struct cmd *c, const uint8_t *map, unsigned cpus)
{
	char text[1024];

	if (cmd_has(c, "pretty")) {
		range_text(map, cpus, text, sizeof(text));
		printf("%-15s %s (out of %u)\n", "CPU Affinity:", text, cpus);
		return;
	}
	printf("%-15s ", "CPU Affinity:");
	for (unsigned cpu = 0; cpu < cpus; cpu++)
		putchar(in_map(map, cpu) ? 'y' : '-');
	putchar('\n');
}

/* What is printed of one vCPU; `info` is NULL for a guest that is off. */
static void print_vcpu(struct cmd *c, json_t *list, unsigned n, const struct remote_vcpu_info *info, const uint8_t *map, unsigned cpus)
{
	static const char *const states[] = { "offline", "running", "blocked" };
	const char *state = info && info->state >= 0 && info->state < 3 ? states[info->state] : "no state";
	char text[1024];

	if (list) {
		range_text(map, cpus, text, sizeof(text));
		json_array_append_new(list, json_pack("{s:i,s:o,s:o,s:o,s:s}", "vcpu", (int)n, "cpu",
						      info && info->cpu >= 0 ? json_integer(info->cpu) : json_null(), "state",
						      info ? json_string(state) : json_null(), "time-ns",
						      info ? json_integer((json_int_t)info->cpu_time) : json_null(), "affinity", text));
		return;
	}
	if (n)
		putchar('\n');
	printf("%-15s %u\n", "VCPU:", n);
	if (!info) {
		printf("%-15s %s\n", "CPU:", "N/A");
		printf("%-15s %s\n", "State:", "N/A");
		printf("%-15s %s\n", "CPU time", "N/A"); /* so virsh */
	} else {
		printf("%-15s %d\n", "CPU:", info->cpu);
		printf("%-15s %s\n", "State:", state);
		if (info->cpu_time)
			printf("%-15s %.1fs\n", "CPU time:", (double)info->cpu_time / 1e9);
	}
	print_affinity(c, map, cpus);
}

static int vcpus_off(struct cmd *c, struct keel_domain *dom, unsigned n, unsigned cpus, json_t *list)
{
	int maplen = (int)(cpus + 7) / 8;
	struct remote_domain_get_vcpu_pin_info_args args = { domain_wire(dom), (int)n, maplen, AFFECT_CONFIG };
	struct remote_domain_get_vcpu_pin_info_ret ret = { 0 };

	if (cmd_call(c, REMOTE_PROC_DOMAIN_GET_VCPU_PIN_INFO, &args, &ret))
		return -1;
	for (int i = 0; i < ret.num && (uint32_t)((i + 1) * maplen) <= ret.cpumaps_len; i++)
		print_vcpu(c, list, (unsigned)i, NULL, ret.cpumaps + i * maplen, cpus);
	return 0;
}

static int vcpus_on(struct cmd *c, struct keel_domain *dom, unsigned n, unsigned cpus, json_t *list)
{
	uint32_t maplen = (cpus + 7) / 8;
	struct remote_domain_get_vcpus_args args = { domain_wire(dom), (int)n, (int)maplen };
	struct remote_domain_get_vcpus_ret ret = { 0 };

	if (cmd_call(c, REMOTE_PROC_DOMAIN_GET_VCPUS, &args, &ret))
		return -1;
	for (uint32_t i = 0; i < ret.info_len && (i + 1) * maplen <= ret.cpumaps_len; i++)
		print_vcpu(c, list, i, &ret.info[i], ret.cpumaps + i * maplen, cpus);
	return 0;
}

static int run_vcpuinfo(struct cmd *c)
{
	struct keel_domain *dom = cmd_domain(c);
	json_t *list = cmd_has(c, "json") ? json_array() : NULL;
	struct keel_domain_info info;
	unsigned cpus = host_cpus(c);
	int status = 0;

	if (!dom)
		return 1;
	if (keel_domain_info(dom, &info, &c->error) ||
	    (keel_domain_id(dom) < 0 ? vcpus_off(c, dom, info.vcpus, cpus, list) : vcpus_on(c, dom, info.vcpus, cpus, list)))
		status = cmd_fail(c, NULL);
	if (list && !status)
		cmd_json(list);
	else
		json_decref(list);
	keel_domain_free(dom);
	return status;
}

static int vcpu_count(struct cmd *c, struct keel_domain *dom, unsigned flags)
{
	struct remote_domain_get_vcpus_flags_args args = { .dom = domain_wire(dom), .flags = flags };
	struct remote_domain_get_vcpus_flags_ret ret = { 0 };

	return cmd_call(c, REMOTE_PROC_DOMAIN_GET_VCPUS_FLAGS, &args, &ret) ? -1 : ret.num;
}

static int vcpu_table(struct cmd *c, struct keel_domain *dom)
{
	struct remote_domain_is_persistent_args args = { .dom = domain_wire(dom) };
	struct remote_domain_is_persistent_ret persistent = { 0 };
	static const char *const kinds[] = { "maximum", "current" };

	if (cmd_call(c, REMOTE_PROC_DOMAIN_IS_PERSISTENT, &args, &persistent))
		return -1;
	for (unsigned n = 0; n < 2; n++) {
		unsigned most = n ? 0 : VCPU_MAXIMUM;
		int count;

		if (persistent.persistent) {
			count = vcpu_count(c, dom, most | AFFECT_CONFIG);
			if (count < 0)
				return -1;
			printf("%-12s %-12s %3d\n", kinds[n], "config", count);
		}
		if (keel_domain_id(dom) >= 0) {
			count = vcpu_count(c, dom, most | AFFECT_LIVE);
			if (count < 0)
				return -1;
			printf("%-12s %-12s %3d\n", kinds[n], "live", count);
		}
	}
	return 0;
}

static int run_vcpucount(struct cmd *c)
{
	bool any = cmd_has(c, "maximum") || cmd_has(c, "active") || cmd_has(c, "live") || cmd_has(c, "config") || cmd_has(c, "current");
	struct keel_domain *dom;
	unsigned flags;
	int count, status = 0;

	if (cmd_affect(c, &flags) || !(dom = cmd_domain(c)))
		return 1;
	if (!any) {
		if (vcpu_table(c, dom))
			status = cmd_fail(c, NULL);
	} else {
		count = vcpu_count(c, dom, flags | (cmd_has(c, "maximum") ? VCPU_MAXIMUM : 0));
		if (count < 0)
			status = cmd_fail(c, NULL);
		else
			printf("%d\n", count);
	}
	keel_domain_free(dom);
	return status;
}

static int run_setvcpus(struct cmd *c)
{
	struct remote_domain_set_vcpus_flags_args args = { 0 };
	struct keel_domain *dom;
	long long count = 0;
	unsigned flags;
	int status = 0;

	if (cmd_affect(c, &flags) || cmd_number(c, "count", &count))
		return 1;
	if (count <= 0 || count > UINT16_MAX) {
		fprintf(stderr, "error: Can't set 0 processors for a VM\n");
		return 1;
	}
	dom = cmd_domain(c);
	if (!dom)
		return 1;
	args.dom = domain_wire(dom);
	args.nvcpus = (uint32_t)count;
	args.flags = flags | (cmd_has(c, "maximum") ? VCPU_MAXIMUM : 0);
	if (cmd_call(c, args.flags || cmd_has(c, "current") ? REMOTE_PROC_DOMAIN_SET_VCPUS_FLAGS : REMOTE_PROC_DOMAIN_SET_VCPUS, &args,
		     NULL))
		status = cmd_fail(c, NULL);
	keel_domain_free(dom);
	return status;
}

/* A size with libvirt's suffixes, KiB if it has none. 0, or -1 and the message is printed. */
static int parse_size(const char *text, uint64_t *kib)
{
	static const char letters[] = "bkmgtpe";
	char *end;
	unsigned long long v = strtoull(text, &end, 10);
	const char *at = strchr(letters, tolower((unsigned char)*end));
	long double bytes = (long double)v * 1024;

	if (end == text || *text == '-')
		goto bad;
	if (*end) {
		bool decimal = tolower((unsigned char)end[1]) == 'b'; /* KB, but K and KiB */
		long double unit = 1;

		if (!at || (*at == 'b' && strcmp(end, "b") && strcmp(end, "bytes")))
			goto bad;
		if (*at != 'b' && end[1] && !(decimal && !end[2]) && strcasecmp(end + 1, "ib"))
			goto bad;
		for (const char *l = letters; l < at; l++)
			unit *= decimal ? 1000 : 1024;
		bytes = (long double)v * unit;
	}
	if (bytes > 1e18L)
		goto bad;
	*kib = ((uint64_t)bytes + 1023) / 1024;
	return 0;
bad:
	fprintf(stderr, "error: Scaled numeric value '%s' for <size> option is malformed or out of range\n", text);
	if (end != text && *end)
		fprintf(stderr, "error: invalid argument: unknown suffix '%s'\n", end);
	return -1;
}

static int set_memory(struct cmd *c, unsigned extra)
{
	struct remote_domain_set_memory_flags_args args = { 0 };
	struct keel_domain *dom;
	unsigned flags;
	int status = 0;

	if (cmd_affect(c, &flags) || parse_size(cmd_text(c, "size"), &args.memory) || !(dom = cmd_domain(c)))
		return 1;
	args.dom = domain_wire(dom);
	args.flags = flags | extra;
	/* Without any flag it's the old call, which is for guests that run; its arguments are the beginning of the new one's. */
	if (cmd_call(c, flags || cmd_has(c, "current") ? REMOTE_PROC_DOMAIN_SET_MEMORY_FLAGS :
			extra			      ? REMOTE_PROC_DOMAIN_SET_MAX_MEMORY : REMOTE_PROC_DOMAIN_SET_MEMORY, &args, NULL))
		status = cmd_fail(c, extra ? "Unable to change MaxMemorySize" : NULL);
	keel_domain_free(dom);
	return status;
}

static int run_setmem(struct cmd *c)
{
	return set_memory(c, 0);
}

static int run_setmaxmem(struct cmd *c)
{
	return set_memory(c, MEM_MAXIMUM);
}

#define AFFECT_OPTS \
	{ "config", OPT_FLAG, 0, "for the next start" }, { "live", OPT_FLAG, 0, "for the guest that runs" }, \
	{ "current", OPT_FLAG, 0, "as it is now" }

static const struct opt vcpuinfo_opts[] = {
	OPT_THE_DOMAIN,
	{ "pretty", OPT_FLAG, 0, "affinity as ranges" },
	{ "json", OPT_FLAG, 0, "as JSON" },
	{ 0 },
};

static const struct opt vcpucount_opts[] = {
	OPT_THE_DOMAIN,
	{ "maximum", OPT_FLAG, 0, "how many it may have" },
	{ "active", OPT_FLAG, 0, "how many it has" },
	AFFECT_OPTS,
	{ 0 },
};

static const struct opt setvcpus_opts[] = {
	OPT_THE_DOMAIN,
	{ "count", OPT_NUMBER, OPT_DATA | OPT_REQUIRED, "how many" },
	{ "maximum", OPT_FLAG, 0, "how many it may have" },
	AFFECT_OPTS,
	{ 0 },
};

static const struct opt mem_opts[] = {
	OPT_THE_DOMAIN,
	{ "size", OPT_TEXT, OPT_DATA | OPT_REQUIRED, "memory, in KiB or with a suffix" },
	AFFECT_OPTS,
	{ 0 },
};

const struct verb vcpu_verbs[] = {
	{ "vcpuinfo", "tell about a guest's vCPUs", vcpuinfo_opts, run_vcpuinfo },
	{ "vcpucount", "count a guest's vCPUs", vcpucount_opts, run_vcpucount },
	{ "setvcpus", "change the number of vCPUs", setvcpus_opts, run_setvcpus },
	{ "setmem", "change a guest's memory", mem_opts, run_setmem },
	{ "setmaxmem", "change how much memory a guest may have", mem_opts, run_setmaxmem },
	{ 0 },
};
