/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Limits of a disk's throughput (virDomainSetBlockIoTune): in the definition, and in the machine while it runs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/guest_devices.h"

#define LIMIT(name, qmp, kind) { #name, qmp, offsetof(struct dom_iotune, name), kind }

/* Those of a group go together: where one is set, the others that are not become 0. */
static const struct limit {
	const char *name, *qmp;
	size_t offset;
	int group;
} limits[] = {
	LIMIT(total_bytes_sec, "bps", 0),
	LIMIT(read_bytes_sec, "bps_rd", 0),
	LIMIT(write_bytes_sec, "bps_wr", 0),
	LIMIT(total_iops_sec, "iops", 1),
	LIMIT(read_iops_sec, "iops_rd", 1),
	LIMIT(write_iops_sec, "iops_wr", 1),
	LIMIT(total_bytes_sec_max, "bps_max", 2),
	LIMIT(read_bytes_sec_max, "bps_rd_max", 2),
	LIMIT(write_bytes_sec_max, "bps_wr_max", 2),
	LIMIT(total_iops_sec_max, "iops_max", 3),
	LIMIT(read_iops_sec_max, "iops_rd_max", 3),
	LIMIT(write_iops_sec_max, "iops_wr_max", 3),
	LIMIT(size_iops_sec, "iops_size", 4),
	LIMIT(total_bytes_sec_max_length, "bps_max_length", 5),
	LIMIT(read_bytes_sec_max_length, "bps_rd_max_length", 5),
	LIMIT(write_bytes_sec_max_length, "bps_wr_max_length", 5),
	LIMIT(total_iops_sec_max_length, "iops_max_length", 6),
	LIMIT(read_iops_sec_max_length, "iops_rd_max_length", 6),
	LIMIT(write_iops_sec_max_length, "iops_wr_max_length", 6),
};
#define N_LIMITS (sizeof(limits) / sizeof(limits[0]))
#define N_GROUPS 7
#define NEEDED 6 /* those that the machine's command cannot do without */

static struct opt64 *member(struct dom_iotune *t, unsigned n)
{
	return (struct opt64 *)((char *)t + limits[n].offset);
}

static uint64_t value(const struct dom_iotune *t, unsigned n)
{
	const struct opt64 *v = (const struct opt64 *)((const char *)t + limits[n].offset);

	return v->set ? v->value : 0;
}

json_t *iotune_arguments(const char *alias, const struct dom_iotune *t)
{
	json_t *args = json_pack("{s:s}", "id", alias);

	for (unsigned n = 0; n < N_LIMITS; n++)
		if (n < NEEDED || value(t, n))
			json_object_set_new(args, limits[n].qmp, json_integer((json_int_t)value(t, n)));
	if (t->group_name)
		json_object_set_new(args, "group", json_string(t->group_name));
	return args;
}

/* ---- Changing -------------------------------------------------------------- */

static int find_limit(const char *name)
{
	for (unsigned n = 0; n < N_LIMITS; n++)
		if (!strcmp(limits[n].name, name))
			return (int)n;
	return -1;
}

/* The limits as they are to be, from what they are and what the call changes. */
static int merge(struct rpc_call *call, const struct dom_iotune *old, struct dom_iotune *t)
{
	static const struct {
		unsigned first;
		const char *what;
	} either[] = { { 0, "bytes_sec" }, { 3, "iops_sec" }, { 6, "bytes_sec_max" }, { 9, "iops_sec_max" } };
	const struct remote_domain_set_block_io_tune_args *args = call->args;
	bool changed[N_GROUPS] = { 0 };
	const char *group = old ? old->group_name : NULL;

	*t = (struct dom_iotune){ 0 };
	for (unsigned i = 0; i < args->params_len; i++) {
		const struct remote_typed_param *p = &args->params[i];
		int n = find_limit(p->field);

		if (!strcmp(p->field, "group_name") && p->value.type == PARAM_STRING) {
			group = p->value.u.s;
			continue;
		}
		if (n < 0)
			return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "parameter '%s' not supported", p->field);
		if (p->value.type != PARAM_ULLONG)
			return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "invalid type for parameter '%s', expected 'ullong'", p->field);
		if (p->value.u.ul > INT64_MAX / 1000)
			return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OVERFLOW, "block I/O throttle limit must be no more than %llu using QEMU",
					     (unsigned long long)INT64_MAX / 1000);
		*member(t, (unsigned)n) = (struct opt64){ .value = p->value.u.ul, .set = p->value.u.ul != 0 };
		changed[limits[n].group] = true;
	}
	for (unsigned n = 0; n < N_LIMITS && old; n++)
		if (!changed[limits[n].group] && value(old, n))
			*member(t, n) = (struct opt64){ .value = value(old, n), .set = true };
	for (unsigned i = 0; i < sizeof(either) / sizeof(either[0]); i++) {
		unsigned n = either[i].first;

		if (value(t, n) && (value(t, n + 1) || value(t, n + 2)))
			return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG,
					     "total and read/write of %s cannot be set at the same time", either[i].what);
	}
	for (unsigned n = 0; n < 6; n++) {
		if (value(t, n + 6) && !value(t, n))
			return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_ARGUMENT_UNSUPPORTED,
					     "value '%s' cannot be set if '%s' is not set", limits[n + 6].name, limits[n].name);
		if (value(t, n + 6) && value(t, n + 6) < value(t, n))
			return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_ARGUMENT_UNSUPPORTED, "value '%s' cannot be smaller than '%s'",
					     limits[n + 6].name, limits[n].name);
	}
	for (unsigned n = 13; n < N_LIMITS; n++)
		if (value(t, n) && !value(t, n - 7))
			return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_ARGUMENT_UNSUPPORTED, "value '%s' cannot be set if '%s' is not set",
					     limits[n].name, limits[n - 7].name);
	t->group_name = group && *group ? strdup(group) : NULL;
	return group && *group && !t->group_name ? call_fail_memory(call) : 0;
}

static bool any(const struct dom_iotune *t)
{
	for (unsigned n = 0; n < N_LIMITS; n++)
		if (value(t, n))
			return true;
	return false;
}

/* Copies t into the disk; no limit at all: the element goes. */
static int put(struct rpc_call *call, struct dom_disk *disk, const struct dom_iotune *t)
{
	struct dom_iotune *fresh = any(t) ? malloc(sizeof(*fresh)) : NULL;

	if (any(t) && !fresh)
		return call_fail_memory(call);
	if (fresh) {
		*fresh = *t;
		fresh->group_name = t->group_name ? strdup(t->group_name) : NULL;
	}
	if (disk->iotune)
		free(disk->iotune->group_name);
	free(disk->iotune);
	disk->iotune = fresh;
	return 0;
}

static void tell(struct rpc_call *call, struct guest *g, const char *alias, const struct dom_iotune *t)
{
	struct params p = { .arena = &call->arena };
	char name[64];

	params_string(&p, "blkdeviotune.disk", alias);
	for (unsigned n = 0; n < N_LIMITS; n++) {
		snprintf(name, sizeof(name), "blkdeviotune.%s", limits[n].name);
		if (value(t, n))
			params_ullong(&p, name, value(t, n));
	}
	if (t->group_name)
		params_string(&p, "blkdeviotune.group_name", t->group_name);
	if (!p.failed)
		event_tunable(g, p.list, p.n);
}

static int change_config(struct rpc_call *call, struct guest *g, const char *target)
{
	struct dom_disk *disk = disk_by_target(g->config, target);
	struct domain *before;
	struct dom_iotune t;
	int ret;

	if (!disk)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "missing persistent configuration for disk '%s'", target);
	if (merge(call, disk->iotune, &t))
		return -1;
	before = domain_copy(g->config);
	ret = before ? put(call, disk, &t) : call_fail_memory(call);
	free(t.group_name);
	if (!ret)
		return guest_config_commit(call, g, before);
	domain_free(before);
	return ret;
}

static int limited(struct rpc_call *call, struct guest *g, json_t *ret)
{
	const struct remote_domain_set_block_io_tune_args *args = call->args;
	struct dom_disk *disk = g->live ? disk_by_target(g->live, args->disk) : NULL;
	bool live, config;
	struct dom_iotune t;
	int result;

	(void)ret;
	if (!disk)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_FAILED, "domain is no longer running");
	if (merge(call, disk->iotune, &t))
		return -1;
	result = put(call, disk, &t);
	if (!result)
		tell(call, g, disk->info.alias, &t);
	free(t.group_name);
	store_save_live(g);
	if (result || call_affect(call, g, args->flags, &live, &config) || !config)
		return result;
	return change_config(call, g, args->disk);
}

static int set_iotune(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_set_block_io_tune_args *args = call->args;
	const struct dom_disk *disk;
	struct dom_iotune t;
	bool live, config;
	json_t *command;

	if (call_check_flags(call, args->flags, AFFECT_LIVE | AFFECT_CONFIG) || call_affect(call, g, args->flags, &live, &config))
		return -1;
	if (config && !disk_by_target(g->config, args->disk))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "missing persistent configuration for disk '%s'", args->disk);
	if (!live)
		return change_config(call, g, args->disk);
	disk = disk_by_target(g->live, args->disk);
	if (!disk)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "disk '%s' was not found in the domain config", args->disk);
	if (merge(call, disk->iotune, &t))
		return -1;
	command = iotune_arguments(disk->info.alias, &t);
	free(t.group_name);
	return guest_qmp(call, g, "block_set_io_throttle", command, limited);
}

/* ---- Asking ---------------------------------------------------------------- */

static int get_iotune(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_get_block_io_tune_args *args = call->args;
	struct remote_domain_get_block_io_tune_ret *ret = call->ret;
	const uint32_t typed_strings = 4; /* VIR_TYPED_PARAM_STRING_OKAY */
	struct params p = { .arena = &call->arena };
	static const struct dom_iotune none;
	const struct dom_iotune *t;
	const struct dom_disk *disk;
	const struct domain *def;

	if (call_check_flags(call, args->flags, AFFECT_LIVE | AFFECT_CONFIG | typed_strings))
		return -1;
	def = call_affect_one(call, g, args->flags & ~typed_strings);
	if (!def)
		return -1;
	disk = args->disk ? disk_by_target(def, args->disk) : NULL;
	if (args->disk && !disk)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "disk '%s' was not found in the domain config", args->disk);
	t = disk && disk->iotune ? disk->iotune : &none;
	for (unsigned n = 0; n < N_LIMITS; n++)
		params_ullong(&p, limits[n].name, value(t, n));
	if (args->flags & typed_strings)
		params_string(&p, "group_name", t->group_name ? t->group_name : "");
	if (p.failed)
		return call_fail_memory(call);
	ret->nparams = (int32_t)p.n;
	if (args->nparams) {
		ret->params = p.list;
		ret->params_len = p.n < (uint32_t)args->nparams ? p.n : (uint32_t)args->nparams;
	}
	return 0;
}

const struct guest_binding iotune_bindings[] = {
	{ NULL, REMOTE_PROC_DOMAIN_SET_BLOCK_IO_TUNE, set_iotune, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_GET_BLOCK_IO_TUNE, get_iotune, 0 },
	{ 0 },
};
