/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Questions about one guest. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/verb.h"

/* ---- Names and states ------------------------------------------------------ */

static int run_domid(struct cmd *c)
{
	struct keel_domain *dom = cmd_domain(c);

	if (!dom)
		return 1;
	if (keel_domain_id(dom) < 0)
		printf("-\n");
	else
		printf("%d\n", keel_domain_id(dom));
	keel_domain_free(dom);
	return 0;
}

static int run_domname(struct cmd *c)
{
	struct keel_domain *dom = cmd_domain(c);

	if (!dom)
		return 1;
	printf("%s\n", keel_domain_name(dom));
	keel_domain_free(dom);
	return 0;
}

static int run_domuuid(struct cmd *c)
{
	struct keel_domain *dom = cmd_domain(c);
	char uuid[37];

	if (!dom)
		return 1;
	keel_domain_uuid_text(dom, uuid);
	printf("%s\n", uuid);
	keel_domain_free(dom);
	return 0;
}

/* virDomainRunningReason and its kin, by state. */
static const char *reason_name(int state, int reason)
{
	static const char *const words[][15] = {
		[KEEL_STATE_NONE] = { "unknown" },
		[KEEL_STATE_RUNNING] = { "unknown", "booted", "migrated", "restored", "from snapshot", "unpaused", "migration canceled",
					 "save canceled", "event wakeup", "crashed", "post-copy", "post-copy failed" },
		[KEEL_STATE_BLOCKED] = { "unknown" },
		[KEEL_STATE_PAUSED] = { "unknown", "user", "migrating", "saving", "dumping", "I/O error", "watchdog", "from snapshot",
					"shutting down", "creating snapshot", "crashed", "starting up", "post-copy", "post-copy failed" },
		[KEEL_STATE_SHUTDOWN] = { "unknown", "user" },
		[KEEL_STATE_SHUTOFF] = { "unknown", "shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from snapshot",
					 "daemon" },
		[KEEL_STATE_CRASHED] = { "unknown", "panicked" },
		[KEEL_STATE_PMSUSPENDED] = { "unknown" },
	};

	if (state < 0 || state > KEEL_STATE_PMSUSPENDED || reason < 0 || reason >= 15 || !words[state][reason])
		return "unknown";
	return words[state][reason];
}

static int run_domstate(struct cmd *c)
{
	struct keel_domain *dom = cmd_domain(c);
	int reason, state, status = 0;

	if (!dom)
		return 1;
	state = keel_domain_state(dom, &reason, &c->error);
	if (state < 0)
		status = cmd_fail(c, NULL);
	else if (cmd_has(c, "reason"))
		printf("%s (%s)\n", keel_state_name(state), reason_name(state, reason));
	else
		printf("%s\n", keel_state_name(state));
	keel_domain_free(dom);
	return status;
}

static int run_domcontrol(struct cmd *c)
{
	static const char *const states[] = { "ok", "background job", "occupied", "error" };
	struct keel_domain *dom = cmd_domain(c);
	struct remote_domain_get_control_info_args args = { 0 };
	struct remote_domain_get_control_info_ret ret = { 0 };
	int status = 0;

	if (!dom)
		return 1;
	args.dom = domain_wire(dom);
	if (cmd_call(c, REMOTE_PROC_DOMAIN_GET_CONTROL_INFO, &args, &ret))
		status = cmd_fail(c, NULL);
	else if (ret.state && ret.stateTime)
		printf("%s (%0.3fs)\n", states[ret.state & 3], (double)ret.stateTime / 1000);
	else
		printf("%s\n", states[ret.state & 3]);
	keel_domain_free(dom);
	return status;
}

/* ---- dominfo --------------------------------------------------------------- */

struct info {
	struct keel_domain_info info;
	struct remote_domain_get_os_type_ret os;
	struct remote_domain_is_persistent_ret persistent;
	struct remote_domain_has_managed_save_image_ret saved;
	int autostart;
	char uuid[37];
};

static int get_info(struct cmd *c, struct keel_domain *dom, struct info *i)
{
	struct remote_domain_has_managed_save_image_args args = { .dom = domain_wire(dom) }; /* a domain comes first in all */

	*i = (struct info){ 0 };
	keel_domain_uuid_text(dom, i->uuid);
	if (keel_domain_info(dom, &i->info, &c->error) || cmd_call(c, REMOTE_PROC_DOMAIN_GET_OS_TYPE, &args, &i->os) ||
	    cmd_call(c, REMOTE_PROC_DOMAIN_IS_PERSISTENT, &args, &i->persistent))
		return -1;
	i->autostart = keel_domain_autostart(dom, &c->error);
	/* A daemon that saves no states has none. */
	cmd_call(c, REMOTE_PROC_DOMAIN_HAS_MANAGED_SAVE_IMAGE, &args, &i->saved);
	return 0;
}

static void print_info(struct keel_domain *dom, const struct info *i)
{
	if (keel_domain_id(dom) < 0)
		printf("%-15s %s\n", "Id:", "-");
	else
		printf("%-15s %d\n", "Id:", keel_domain_id(dom));
	printf("%-15s %s\n", "Name:", keel_domain_name(dom));
	printf("%-15s %s\n", "UUID:", i->uuid);
	printf("%-15s %s\n", "OS Type:", i->os.type);
	printf("%-15s %s\n", "State:", keel_state_name(i->info.state));
	printf("%-15s %u\n", "CPU(s):", i->info.vcpus);
	if (i->info.cpu_time_ns)
		printf("%-15s %.1fs\n", "CPU time:", (double)i->info.cpu_time_ns / 1e9);
	printf("%-15s %llu KiB\n", "Max memory:", (unsigned long long)i->info.max_memory_kib);
	printf("%-15s %llu KiB\n", "Used memory:", (unsigned long long)i->info.memory_kib);
	printf("%-15s %s\n", "Persistent:", i->persistent.persistent ? "yes" : "no");
	if (i->autostart >= 0)
		printf("%-15s %s\n", "Autostart:", i->autostart ? "enable" : "disable");
	printf("%-15s %s\n", "Managed save:", i->saved.result ? "yes" : "no");
}

static int run_dominfo(struct cmd *c)
{
	struct keel_domain *dom = cmd_domain(c);
	struct info i;
	int status = 0, id;

	if (!dom)
		return 1;
	id = keel_domain_id(dom);
	if (get_info(c, dom, &i))
		status = cmd_fail(c, NULL);
	else if (cmd_has(c, "json"))
		cmd_json(json_pack("{s:o,s:s,s:s,s:s,s:s,s:i,s:I,s:I,s:I,s:b,s:b,s:b}", "id", id < 0 ? json_null() : json_integer(id), "name",
				   keel_domain_name(dom), "uuid", i.uuid, "os-type", i.os.type, "state", keel_state_name(i.info.state),
				   "cpus", (int)i.info.vcpus, "cpu-time-ns", (json_int_t)i.info.cpu_time_ns, "max-memory-kib",
				   (json_int_t)i.info.max_memory_kib, "memory-kib", (json_int_t)i.info.memory_kib, "persistent",
				   i.persistent.persistent, "autostart", i.autostart > 0, "managed-save", i.saved.result));
	else
		print_info(dom, &i);
	keel_domain_free(dom);
	return status;
}

/* ---- domstats -------------------------------------------------------------- */

static const struct {
	const char *option;
	unsigned flag;
} stats_groups[] = {
	{ "state", KEEL_STATS_STATE },	     { "cpu-total", KEEL_STATS_CPU },	    { "balloon", KEEL_STATS_BALLOON },
	{ "vcpu", KEEL_STATS_VCPU },	     { "interface", KEEL_STATS_INTERFACE }, { "block", KEEL_STATS_BLOCK },
	{ "perf", KEEL_STATS_PERF },	     { "iothread", KEEL_STATS_IOTHREAD },   { "memory", KEEL_STATS_MEMORY },
	{ "dirtyrate", KEEL_STATS_DIRTYRATE }, { "vm", KEEL_STATS_VM },
};

/* virConnectGetAllDomainStatsFlags: those of lists, and above. */
static const struct {
	const char *option;
	unsigned flag;
} stats_flags[] = {
	{ "list-active", KEEL_LIST_ACTIVE },   { "list-inactive", KEEL_LIST_INACTIVE }, { "list-persistent", KEEL_LIST_PERSISTENT },
	{ "list-transient", KEEL_LIST_TRANSIENT }, { "list-running", KEEL_LIST_RUNNING }, { "list-paused", KEEL_LIST_PAUSED },
	{ "list-shutoff", KEEL_LIST_SHUTOFF }, { "list-other", KEEL_LIST_OTHER },	{ "nowait", 1u << 29 },
	{ "backing", 1u << 30 },	       { "enforce", 1u << 31 },
};

static void print_param(const struct keel_param *p)
{
	switch (p->type) {
	case KEEL_PARAM_INT:
		printf("  %s=%d\n", p->name, p->value.i);
		break;
	case KEEL_PARAM_UINT:
		printf("  %s=%u\n", p->name, p->value.u);
		break;
	case KEEL_PARAM_INT64:
		printf("  %s=%lld\n", p->name, (long long)p->value.l);
		break;
	case KEEL_PARAM_UINT64:
		printf("  %s=%llu\n", p->name, (unsigned long long)p->value.ul);
		break;
	case KEEL_PARAM_DOUBLE:
		printf("  %s=%g\n", p->name, p->value.d);
		break;
	case KEEL_PARAM_BOOL:
		printf("  %s=%s\n", p->name, p->value.b ? "yes" : "no");
		break;
	case KEEL_PARAM_STRING:
		printf("  %s=%s\n", p->name, p->value.s);
		break;
	}
}

static json_t *param_json(const struct keel_param *p)
{
	switch (p->type) {
	case KEEL_PARAM_STRING:
		return json_string(p->value.s);
	case KEEL_PARAM_BOOL:
		return json_boolean(p->value.b);
	case KEEL_PARAM_DOUBLE:
		return json_real(p->value.d);
	case KEEL_PARAM_INT64:
		return json_integer(p->value.l);
	case KEEL_PARAM_UINT64:
		return json_integer((json_int_t)p->value.ul);
	case KEEL_PARAM_UINT:
		return json_integer(p->value.u);
	default:
		return json_integer(p->value.i);
	}
}

static void print_stats(const struct keel_stats *s, json_t *list, bool *first)
{
	json_t *o = list ? json_object() : NULL;

	if (list) {
		json_object_set_new(o, "domain", json_string(keel_domain_name(s->dom)));
		for (unsigned n = 0; n < s->nparams; n++)
			json_object_set_new(o, s->params[n].name, param_json(&s->params[n]));
		json_array_append_new(list, o);
		return;
	}
	printf("%sDomain: '%s'\n", *first ? "" : "\n", keel_domain_name(s->dom));
	*first = false;
	for (unsigned n = 0; n < s->nparams; n++)
		print_param(&s->params[n]);
}

static int run_domstats(struct cmd *c)
{
	unsigned groups = 0, flags = 0;
	json_t *list = cmd_has(c, "json") ? json_array() : NULL;
	bool first = true;
	struct keel_stats *records;
	int n = 0, status = 0;

	for (unsigned i = 0; i < sizeof(stats_groups) / sizeof(stats_groups[0]); i++)
		groups |= cmd_has(c, stats_groups[i].option) ? stats_groups[i].flag : 0;
	for (unsigned i = 0; i < sizeof(stats_flags) / sizeof(stats_flags[0]); i++)
		flags |= cmd_has(c, stats_flags[i].option) ? stats_flags[i].flag : 0;
	for (unsigned i = 0; !status && i < (c->nmany ? c->nmany : 1); i++) {
		struct keel_domain *dom = NULL;

		if (c->nmany) {
			c->values[0] = c->many[i]; /* the option "domain" is the first */
			dom = cmd_domain(c);
			if (!dom)
				status = 1;
		}
		n = status ? 0 : keel_stats(c->conn, dom, groups, flags, &records, &c->error);
		if (n < 0)
			status = cmd_fail(c, NULL);
		for (int r = 0; r < n; r++)
			print_stats(&records[r], list, &first);
		if (!status)
			keel_stats_free(records, n);
		keel_domain_free(dom);
	}
	if (list && !status)
		return cmd_json(list);
	json_decref(list);
	return status;
}

/* ---- Memory ---------------------------------------------------------------- */

static int run_dommemstat(struct cmd *c)
{
	static const char *const tags[] = { "swap_in", "swap_out", "major_fault", "minor_fault", "unused", "available", "actual", "rss",
					    "usable", "last_update", "disk_caches", "hugetlb_pgalloc", "hugetlb_pgfail" };
	struct keel_domain *dom = cmd_domain(c);
	struct remote_domain_memory_stats_args args = { .maxStats = sizeof(tags) / sizeof(tags[0]) };
	struct remote_domain_memory_stats_ret ret = { 0 };
	int status = 0;

	if (!dom)
		return 1;
	args.dom = domain_wire(dom);
	if (cmd_call(c, REMOTE_PROC_DOMAIN_MEMORY_STATS, &args, &ret))
		status = cmd_fail(c, "Failed to get memory statistics for domain %s", cmd_text(c, "domain"));
	for (uint32_t n = 0; !status && n < ret.stats_len; n++)
		if (ret.stats[n].tag >= 0 && ret.stats[n].tag < (int)(sizeof(tags) / sizeof(tags[0])))
			printf("%s %llu\n", tags[ret.stats[n].tag], (unsigned long long)ret.stats[n].val);
	keel_domain_free(dom);
	return status;
}

static const struct opt domain_only[] = { OPT_THE_DOMAIN, { 0 } };

static const struct opt state_opts[] = {
	OPT_THE_DOMAIN,
	{ "reason", OPT_FLAG, 0, "tell why" },
	{ 0 },
};

static const struct opt info_opts[] = {
	OPT_THE_DOMAIN,
	{ "json", OPT_FLAG, 0, "as JSON" },
	{ 0 },
};

static const struct opt stats_opts[] = {
	{ "domain", OPT_TEXT, OPT_DATA | OPT_DOMAIN | OPT_MANY, "guests; all if none is named" },
	{ "state", OPT_FLAG, 0, "state" },
	{ "cpu-total", OPT_FLAG, 0, "CPU time" },
	{ "balloon", OPT_FLAG, 0, "memory" },
	{ "vcpu", OPT_FLAG, 0, "vCPUs" },
	{ "interface", OPT_FLAG, 0, "network interfaces" },
	{ "block", OPT_FLAG, 0, "disks" },
	{ "perf", OPT_FLAG, 0, "performance counters" },
	{ "iothread", OPT_FLAG, 0, "I/O threads" },
	{ "memory", OPT_FLAG, 0, "memory bandwidth" },
	{ "dirtyrate", OPT_FLAG, 0, "dirty page rate" },
	{ "vm", OPT_FLAG, 0, "the hypervisor's own" },
	{ "list-active", OPT_FLAG, 0, "of active guests" },
	{ "list-inactive", OPT_FLAG, 0, "of inactive guests" },
	{ "list-persistent", OPT_FLAG, 0, "of persistent guests" },
	{ "list-transient", OPT_FLAG, 0, "of transient guests" },
	{ "list-running", OPT_FLAG, 0, "of guests that run" },
	{ "list-paused", OPT_FLAG, 0, "of guests that are paused" },
	{ "list-shutoff", OPT_FLAG, 0, "of guests that are off" },
	{ "list-other", OPT_FLAG, 0, "of guests in other states" },
	{ "raw", OPT_FLAG, 0, "do not pretty-print (nothing is)" },
	{ "enforce", OPT_FLAG, 0, "fail if a group is not supported" },
	{ "backing", OPT_FLAG, 0, "with backing files" },
	{ "nowait", OPT_FLAG, 0, "only what can be had at once" },
	{ "json", OPT_FLAG, 0, "as JSON" },
	{ 0 },
};

const struct verb query_verbs[] = {
	{ "domstate", "print a guest's state", state_opts, run_domstate },
	{ "dominfo", "tell about a guest", info_opts, run_dominfo },
	{ "domid", "print a guest's number", domain_only, run_domid },
	{ "domname", "print a guest's name", domain_only, run_domname },
	{ "domuuid", "print a guest's UUID", domain_only, run_domuuid },
	{ "domcontrol", "tell whether the machine answers", domain_only, run_domcontrol },
	{ "domstats", "print statistics of guests", stats_opts, run_domstats },
	{ "dommemstat", "print a guest's memory statistics", domain_only, run_dommemstat },
	{ 0 },
};
