/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory, vCPUs, words and actions of a definition, and of the running guest where that can follow. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/guest.h"
#include "daemon/guest_agent.h"
#include "daemon/proc_stat.h"

enum { MEMORY_MAXIMUM = 4 };		  /* virDomainMemoryModFlags */
enum { VCPU_MAXIMUM = 4, VCPU_GUEST = 8 }; /* virDomainVcpuFlags */

#define MAX_VCPUS 255u

/* ---- Memory ---------------------------------------------------------------- */

static int change_config_memory(struct rpc_call *call, struct guest *g, uint64_t kib, bool maximum)
{
	struct domain *before = domain_copy(g->config), *def = g->config;

	if (!before)
		return call_fail_memory(call);
	if (!def->current_memory) {
		def->current_memory = calloc(1, sizeof(*def->current_memory));
		if (!def->current_memory) {
			domain_free(before);
			return call_fail_memory(call);
		}
		def->current_memory->kib = def->memory->kib;
	}
	if (maximum) {
		def->memory->kib = kib;
		if (def->current_memory->kib > kib)
			def->current_memory->kib = kib;
	} else {
		def->current_memory->kib = kib;
	}
	return guest_config_commit(call, g, before);
}

static bool has_balloon(const struct domain *def)
{
	const struct dom_memballoon *b = def->devices->memballoon;

	return b && b->model && strcmp(b->model, "none");
}

static int set_memory(struct rpc_call *call, struct guest *g, uint64_t kib, uint32_t flags)
{
	bool live, config, maximum = flags & MEMORY_MAXIMUM;

	if (call_check_flags(call, flags, AFFECT_LIVE | AFFECT_CONFIG | MEMORY_MAXIMUM) || call_affect(call, g, flags, &live, &config))
		return -1;
	if (kib > UINT64_MAX / 1024)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OVERFLOW, "input too large: %llu", (unsigned long long)kib);
	if (!kib)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "memory in virDomainSetMemory must not be zero");
	if (maximum && live)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "cannot resize the maximum memory on an active domain");
	if (!maximum && ((live && kib > g->live->memory->kib) || (config && kib > g->config->memory->kib)))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "cannot set memory higher than max memory");
	if (live && !has_balloon(g->live))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID,
				     "Unable to change memory of active domain without the balloon device and guest OS balloon driver");
	if (config && change_config_memory(call, g, kib, maximum))
		return -1;
	return live ? guest_qmp(call, g, "balloon", json_pack("{s:I}", "value", (json_int_t)(kib * 1024)), NULL) : 0;
}

static int set_memory_plain(struct rpc_call *call, struct guest *g)
{
	return set_memory(call, g, ((struct remote_domain_set_memory_args *)call->args)->memory, AFFECT_LIVE);
}

static int set_memory_flags(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_set_memory_flags_args *args = call->args;

	return set_memory(call, g, args->memory, args->flags);
}

static int set_max_memory(struct rpc_call *call, struct guest *g)
{
	return set_memory(call, g, ((struct remote_domain_set_max_memory_args *)call->args)->memory, MEMORY_MAXIMUM);
}

/* virDomainMemoryStatTags */
enum { STAT_SWAP_IN, STAT_SWAP_OUT, STAT_MAJOR_FAULT, STAT_MINOR_FAULT, STAT_UNUSED, STAT_AVAILABLE, STAT_ACTUAL_BALLOON,
       STAT_RSS, STAT_USABLE };

static int have_balloon(struct rpc_call *call, struct guest *g, json_t *value)
{
	const struct remote_domain_memory_stats_args *args = call->args;
	struct remote_domain_memory_stats_ret *ret = call->ret;
	struct proc_stat s;

	call->error = (struct rpc_error){ 0 }; /* a guest without a balloon has the other figure */
	if (!g->run)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_FAILED, "domain is no longer running");
	ret->stats = arena_alloc(&call->arena, 2 * sizeof(*ret->stats));
	if (!ret->stats)
		return call_fail_memory(call);
	if (value && args->maxStats > ret->stats_len)
		ret->stats[ret->stats_len++] = (struct remote_domain_memory_stat){
			.tag = STAT_ACTUAL_BALLOON,
			.val = (uint64_t)json_integer_value(json_object_get(value, "actual")) / 1024,
		};
	if (proc_stat_read(guest_pid(g), 0, &s) && args->maxStats > ret->stats_len)
		ret->stats[ret->stats_len++] = (struct remote_domain_memory_stat){ .tag = STAT_RSS, .val = s.rss_kib };
	return 0;
}

static int memory_stats(struct rpc_call *call, struct guest *g)
{
	if (call_check_flags(call, ((struct remote_domain_memory_stats_args *)call->args)->flags, 0))
		return -1;
	return guest_qmp_try(call, g, "query-balloon", NULL, have_balloon);
}

/* ---- vCPUs ----------------------------------------------------------------- */

static int get_max_vcpus(struct rpc_call *call, struct guest *g)
{
	((struct remote_domain_get_max_vcpus_ret *)call->ret)->num = (int32_t)guest_def(g)->vcpu->max;
	return 0;
}

static int get_vcpus_flags(struct rpc_call *call, struct guest *g)
{
	uint32_t flags = ((struct remote_domain_get_vcpus_flags_args *)call->args)->flags;
	const struct domain *def;

	if (call_check_flags(call, flags, AFFECT_LIVE | AFFECT_CONFIG | VCPU_MAXIMUM | VCPU_GUEST))
		return -1;
	if (flags & VCPU_GUEST)
		return agent_get_vcpus(call, g);
	def = call_affect_one(call, g, flags);
	if (!def)
		return -1;
	((struct remote_domain_get_vcpus_flags_ret *)call->ret)->num =
		(int32_t)(flags & VCPU_MAXIMUM ? def->vcpu->max : domain_vcpus_current(def));
	return 0;
}

static int change_config_vcpus(struct rpc_call *call, struct guest *g, unsigned n, bool maximum)
{
	struct err err = ERR_INIT;
	struct domain *before = domain_copy(g->config), *def = g->config;

	if (!before)
		return call_fail_memory(call);
	if (maximum) {
		def->vcpu->max = n;
		if (def->vcpu->current.set && def->vcpu->current.value >= n)
			def->vcpu->current.set = false;
	} else {
		def->vcpu->current = (struct opt32){ .value = n, .set = n != def->vcpu->max };
	}
	if (domain_check(def, &g->daemon->caps, &err)) {
		g->config = before;
		domain_free(def);
		return call_fail_model(call, &err);
	}
	return guest_config_commit(call, g, before);
}

static int set_vcpus(struct rpc_call *call, struct guest *g, unsigned n, uint32_t flags)
{
	bool live, config, maximum = flags & VCPU_MAXIMUM;
	const struct dom_topology *t;

	if (call_check_flags(call, flags, AFFECT_LIVE | AFFECT_CONFIG | VCPU_MAXIMUM | VCPU_GUEST))
		return -1;
	if (flags & VCPU_GUEST)
		return agent_set_vcpus(call, g, n);
	if (call_affect(call, g, flags, &live, &config))
		return -1;
	if (!n || n > MAX_VCPUS)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "%u vCPUs are not possible: 1 to %u are", n, MAX_VCPUS);
	if (maximum && live)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "maximum vcpu count of a live domain can't be modified");
	if (live && n > g->live->vcpu->max)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "requested vcpus is greater than max allowable vcpus for the live domain: %u > %u",
				     n, g->live->vcpu->max);
	if (live && n != domain_vcpus_current(g->live))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_UNSUPPORTED,
				     "the number of vCPUs of a running guest cannot be changed; use --config and start it anew");
	if (config && !maximum && n > g->config->vcpu->max)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "requested vcpus is greater than max allowable vcpus for the persistent domain: %u > %u",
				     n, g->config->vcpu->max);
	t = config && g->config->cpu ? g->config->cpu->topology : NULL;
	if (maximum && t && t->sockets * (t->dies ? t->dies : 1) * t->cores * t->threads != n)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "CPU topology doesn't match the desired vcpu count");
	return config ? change_config_vcpus(call, g, n, maximum) : 0;
}

static int set_vcpus_plain(struct rpc_call *call, struct guest *g)
{
	return set_vcpus(call, g, ((struct remote_domain_set_vcpus_args *)call->args)->nvcpus, AFFECT_LIVE);
}

static int set_vcpus_flags(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_set_vcpus_flags_args *args = call->args;

	return set_vcpus(call, g, args->nvcpus, args->flags);
}

/* ---- Title, description, metadata ------------------------------------------ */

enum { METADATA_DESCRIPTION, METADATA_TITLE, METADATA_ELEMENT }; /* virDomainMetadataType */

static int get_metadata(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_get_metadata_args *args = call->args;
	struct remote_domain_get_metadata_ret *ret = call->ret;
	struct err err = ERR_INIT;
	const struct domain *def;
	char *text = NULL;

	if (call_check_flags(call, args->flags, AFFECT_LIVE | AFFECT_CONFIG))
		return -1;
	if (args->type < METADATA_DESCRIPTION || args->type > METADATA_ELEMENT)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "unknown metadata type %d", args->type);
	def = call_affect_one(call, g, args->flags);
	if (!def)
		return -1;
	if (args->type == METADATA_DESCRIPTION)
		ret->metadata = def->description ? arena_strdup(&call->arena, def->description) : NULL;
	else if (args->type == METADATA_TITLE)
		ret->metadata = def->title ? arena_strdup(&call->arena, def->title) : NULL;
	else if ((text = args->uri ? domain_metadata_get(def, args->uri, &err) : NULL))
		ret->metadata = arena_strdup(&call->arena, text);
	free(text);
	if (!ret->metadata)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_NO_DOMAIN_METADATA, "Requested metadata element is not present");
	return 0;
}

static int put_text(char **to, const char *text)
{
	char *copy = text && *text ? strdup(text) : NULL;

	if (text && *text && !copy)
		return -1;
	free(*to);
	*to = copy;
	return 0;
}

static int put_metadata(struct domain *def, const struct remote_domain_set_metadata_args *args, struct err *err)
{
	switch (args->type) {
	case METADATA_DESCRIPTION:
		return put_text(&def->description, args->metadata) ? err_set(err, ENOMEM, "no memory") : 0;
	case METADATA_TITLE:
		return put_text(&def->title, args->metadata) ? err_set(err, ENOMEM, "no memory") : 0;
	default:
		return domain_metadata_set(def, args->metadata, args->key, args->uri, err);
	}
}

static int set_metadata(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_set_metadata_args *args = call->args;
	struct err err = ERR_INIT;
	struct domain *before;
	bool live, config;

	if (call_check_flags(call, args->flags, AFFECT_LIVE | AFFECT_CONFIG) || call_affect(call, g, args->flags, &live, &config))
		return -1;
	if (args->type < METADATA_DESCRIPTION || args->type > METADATA_ELEMENT)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "unknown metadata type %d", args->type);
	if (args->type == METADATA_ELEMENT && (!args->uri || (args->metadata && !args->key)))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "a metadata element needs a key and a namespace");
	if (live) {
		if (put_metadata(g->live, args, &err))
			return call_fail_model(call, &err);
		store_save_live(g);
	}
	if (config) {
		before = domain_copy(g->config);
		if (!before)
			return call_fail_memory(call);
		if (put_metadata(g->config, args, &err)) {
			domain_free(before);
			return call_fail_model(call, &err);
		}
		if (guest_config_commit(call, g, before))
			return -1;
	}
	event_metadata_change(g, args->type, args->uri);
	return 0;
}

/* ---- What follows a power-off, reboot or crash ------------------------------ */

enum { LIFECYCLE_POWEROFF, LIFECYCLE_REBOOT, LIFECYCLE_CRASH };
/* virDomainLifecycleAction and the model's enum are the same list. */
enum { ACTION_DESTROY, ACTION_RESTART, ACTION_RENAME_RESTART, ACTION_PRESERVE, ACTION_COREDUMP_DESTROY, ACTION_COREDUMP_RESTART };

static void put_action(struct domain *def, unsigned type, enum dom_action action)
{
	*(type == LIFECYCLE_POWEROFF ? &def->on_poweroff : type == LIFECYCLE_REBOOT ? &def->on_reboot : &def->on_crash) = action;
}

static int set_lifecycle_action(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_set_lifecycle_action_args *args = call->args;
	struct domain *before;
	bool live, config;

	if (call_check_flags(call, args->flags, AFFECT_LIVE | AFFECT_CONFIG) || call_affect(call, g, args->flags, &live, &config))
		return -1;
	if (args->type > LIFECYCLE_CRASH || args->action > ACTION_COREDUMP_RESTART ||
	    (args->action >= ACTION_COREDUMP_DESTROY && args->type != LIFECYCLE_CRASH))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "Lifecycle type %u and action %u do not go together",
				     args->type, args->action);
	if (live && args->type == LIFECYCLE_REBOOT)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_UNSUPPORTED,
				     "cannot change on_reboot of a running guest; use --config");
	if (live) {
		put_action(g->live, args->type, args->action + 1);
		store_save_live(g);
	}
	if (!config)
		return 0;
	before = domain_copy(g->config);
	if (!before)
		return call_fail_memory(call);
	put_action(g->config, args->type, args->action + 1);
	return guest_config_commit(call, g, before);
}

const struct guest_binding config_bindings[] = {
	{ NULL, REMOTE_PROC_DOMAIN_SET_MEMORY, set_memory_plain, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_SET_MEMORY_FLAGS, set_memory_flags, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_SET_MAX_MEMORY, set_max_memory, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_MEMORY_STATS, memory_stats, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_GET_MAX_VCPUS, get_max_vcpus, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_GET_VCPUS_FLAGS, get_vcpus_flags, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_SET_VCPUS, set_vcpus_plain, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_SET_VCPUS_FLAGS, set_vcpus_flags, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_GET_METADATA, get_metadata, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_SET_METADATA, set_metadata, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_SET_LIFECYCLE_ACTION, set_lifecycle_action, GUEST_JOB },
	{ 0 },
};
