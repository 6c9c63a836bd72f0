/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Parameters of a guest's control groups: scheduler, memory and block I/O, as
 * typed parameters in libvirt's names and order.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/confine_cgroup.h"
#include "daemon/guest.h"

#define QUOTA_NONE 17592186044415ll	/* what libvirt says of a quota that there is not */
#define MEMORY_NONE 9007199254740991ull /* VIR_DOMAIN_MEMORY_PARAM_UNLIMITED */

/* A change of one definition. 0, or -1 with the error set. */
typedef int (*set_fn)(struct rpc_call *call, struct domain *def, const struct remote_typed_param *p);

static int fail_type(struct rpc_call *call, const struct remote_typed_param *p)
{
	return rpc_call_fail(call, VIR_FROM_NONE, VIR_ERR_INVALID_ARG, "invalid type '%d' for parameter '%s'", p->value.type, p->field);
}

static int take_number(struct rpc_call *call, const struct remote_typed_param *p, int type, int64_t *n)
{
	*n = 0;
	if (p->value.type != type)
		return fail_type(call, p);
	*n = type == PARAM_ULLONG  ? (int64_t)(p->value.u.ul > INT64_MAX ? INT64_MAX : p->value.u.ul)
	     : type == PARAM_LLONG ? p->value.u.l
	     : type == PARAM_UINT  ? (int64_t)p->value.u.ui
				   : p->value.u.i;
	return 0;
}

static int fail_name(struct rpc_call *call, const struct remote_typed_param *p)
{
	return rpc_call_fail(call, VIR_FROM_NONE, VIR_ERR_INVALID_ARG, "parameter '%s' not supported", p->field);
}

static int no_controller(struct rpc_call *call, const char *name)
{
	const struct daemon *d = call_daemon(call);

	if (!d->privileged)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_UNSUPPORTED, "%s tuning is not available in session mode",
				     name);
	return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "cgroup %s controller is not mounted", name);
}

static int need(struct rpc_call *call, enum cgroup_controller k, const char *name)
{
	return call_daemon(call)->cgroups.dir[k] ? 0 : no_controller(call, name);
}

/*
 * Change what the flags say: the running guest first, which is put back if its
 * groups do not take it, then the configuration.
 */
static int change(struct rpc_call *call, struct guest *g, const struct remote_typed_param *list, unsigned n, uint32_t flags,
		  set_fn set, int (*apply)(struct rpc_call *call, struct guest *g))
{
	struct domain *live_new = NULL, *before = NULL;
	bool live, config;
	int ret = 0;

	if (call_check_flags(call, flags, AFFECT_LIVE | AFFECT_CONFIG) || call_affect(call, g, flags, &live, &config))
		return -1;
	if (live && !(live_new = domain_copy(g->live)))
		return call_fail_memory(call);
	for (unsigned i = 0; live && i < n && !ret; i++)
		ret = set(call, live_new, &list[i]);
	if (live && !ret) {
		before = g->live;
		g->live = live_new;
		ret = apply(call, g);
		live_new = ret ? g->live : before;
		if (ret)
			g->live = before;
		else
			store_save_live(g);
	}
	domain_free(live_new);
	if (ret || !config)
		return ret;
	before = domain_copy(g->config);
	if (!before)
		return call_fail_memory(call);
	for (unsigned i = 0; i < n && !ret; i++)
		ret = set(call, g->config, &list[i]);
	if (!ret)
		return guest_config_commit(call, g, before);
	domain_free(g->config);
	g->config = before;
	return ret;
}

static int fail_apply(struct rpc_call *call, const char *what, int ret)
{
	return rpc_call_fail(call, VIR_FROM_NONE, VIR_ERR_SYSTEM_ERROR, "Unable to write to the control group's %s: %s", what,
			     strerror(-ret));
}

/* How many there are, or as many as the caller has room for. */
static void answer(struct params *p, int32_t room, uint32_t *len, struct remote_typed_param **to, int32_t *count)
{
	if (count)
		*count = (int32_t)p->n;
	*to = p->list;
	*len = room < 0 ? 0 : (uint32_t)room < p->n ? (uint32_t)room : p->n;
	if (count && *len)
		*count = (int32_t)*len;
}

/* ---- Scheduler --------------------------------------------------------------- */

static const struct {
	const char *name;
	size_t period, quota; /* in struct dom_cputune */
} bandwidths[] = {
	{ "vcpu", offsetof(struct dom_cputune, period), offsetof(struct dom_cputune, quota) },
	{ "emulator", offsetof(struct dom_cputune, emulator_period), offsetof(struct dom_cputune, emulator_quota) },
	{ "global", offsetof(struct dom_cputune, global_period), offsetof(struct dom_cputune, global_quota) },
	{ "iothread", offsetof(struct dom_cputune, iothread_period), offsetof(struct dom_cputune, iothread_quota) },
};
#define BANDWIDTHS (sizeof(bandwidths) / sizeof(bandwidths[0]))
#define SCHEDULER_PARAMS (1 + 2 * (int)BANDWIDTHS)

static int set_scheduler(struct rpc_call *call, struct domain *def, const struct remote_typed_param *p)
{
	struct dom_cputune *t = def->cputune;
	char name[32];
	int64_t n;

	if (!t && !(t = def->cputune = calloc(1, sizeof(*t))))
		return call_fail_memory(call);
	if (!strcmp(p->field, "cpu_shares")) {
		if (take_number(call, p, PARAM_ULLONG, &n))
			return -1;
		t->shares = (struct opt64){ .value = (uint64_t)n, .set = n != 0 };
		return 0;
	}
	for (unsigned i = 0; i < BANDWIDTHS; i++) {
		struct opt64 *period = (struct opt64 *)((char *)t + bandwidths[i].period);
		struct optint *quota = (struct optint *)((char *)t + bandwidths[i].quota);

		snprintf(name, sizeof(name), "%s_period", bandwidths[i].name);
		if (!strcmp(p->field, name)) {
			if (take_number(call, p, PARAM_ULLONG, &n))
				return -1;
			if (n && (n < 1000 || n > 1000000))
				return rpc_call_fail(call, VIR_FROM_NONE, VIR_ERR_INVALID_ARG,
						     "value of '%s' is out of range [1000, 1000000]", name);
			*period = (struct opt64){ .value = (uint64_t)n, .set = n != 0 };
			return 0;
		}
		snprintf(name, sizeof(name), "%s_quota", bandwidths[i].name);
		if (!strcmp(p->field, name)) {
			if (take_number(call, p, PARAM_LLONG, &n))
				return -1;
			if ((n > 0 && n < 1000) || n > QUOTA_NONE)
				return rpc_call_fail(call, VIR_FROM_NONE, VIR_ERR_INVALID_ARG,
						     "value of '%s' is out of range [1000, %lld]", name, QUOTA_NONE);
			quota->value = n;
			quota->set = n != 0;
			return 0;
		}
	}
	return fail_name(call, p);
}

static int apply_scheduler(struct rpc_call *call, struct guest *g)
{
	const char *file = "CPU limits";
	int ret = confine_cgroup_cpu(g);

	return ret ? fail_apply(call, file, ret) : 0;
}

static int set_schedule(struct rpc_call *call, struct guest *g, const struct remote_typed_param *list, unsigned n, uint32_t flags)
{
	bool live, config;

	if (call_affect(call, g, flags, &live, &config) || (live && need(call, CG_CPU, "CPU")))
		return -1;
	if (change(call, g, list, n, flags, set_scheduler, apply_scheduler))
		return -1;
	if (live) {
		struct params p = { .arena = &call->arena };
		char name[64];

		for (unsigned i = 0; i < n; i++) {
			snprintf(name, sizeof(name), "cputune.%s", list[i].field);
			if (list[i].value.type == PARAM_LLONG)
				params_llong(&p, name, list[i].value.u.l);
			else
				params_ullong(&p, name, list[i].value.u.ul);
		}
		event_tunable(g, p.list, p.n);
	}
	return 0;
}

static int set_scheduler_flags(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_set_scheduler_parameters_flags_args *args = call->args;

	return set_schedule(call, g, args->params, args->params_len, args->flags);
}

static int set_scheduler_plain(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_set_scheduler_parameters_args *args = call->args;

	return set_schedule(call, g, args->params, args->params_len, AFFECT_CURRENT);
}

/* What the kernel starts with stands for what a running guest's definition does not say. */
static int list_scheduler(struct rpc_call *call, struct guest *g, uint32_t flags, struct params *p)
{
	static const struct dom_cputune none;
	const struct dom_cputune *t;
	struct domain *def;
	char name[32];
	bool live;

	if (call_check_flags(call, flags, AFFECT_LIVE | AFFECT_CONFIG | 4)) /* VIR_TYPED_PARAM_STRING_OKAY */
		return -1;
	def = call_affect_one(call, g, flags & 3);
	if (!def)
		return -1;
	live = def == g->live;
	if (live && need(call, CG_CPU, "CPU"))
		return -1;
	t = def->cputune ? def->cputune : &none;
	params_ullong(p, "cpu_shares", t->shares.set || !live ? t->shares.value : call_daemon(call)->cgroups.v2[CG_CPU] ? 100 : 1024);
	for (unsigned i = 0; i < BANDWIDTHS; i++) {
		const struct opt64 *period = (const struct opt64 *)((const char *)t + bandwidths[i].period);
		const struct optint *quota = (const struct optint *)((const char *)t + bandwidths[i].quota);

		snprintf(name, sizeof(name), "%s_period", bandwidths[i].name);
		params_ullong(p, name, period->set || !live ? period->value : 100000);
		snprintf(name, sizeof(name), "%s_quota", bandwidths[i].name);
		params_llong(p, name, quota->set || !live ? quota->value : QUOTA_NONE);
	}
	return p->failed ? call_fail_memory(call) : 0;
}

static int get_scheduler_type(struct rpc_call *call, struct guest *g)
{
	struct remote_domain_get_scheduler_type_ret *ret = call->ret;

	if (need(call, CG_CPU, "CPU"))
		return -1;
	ret->type = arena_strdup(&call->arena, "posix");
	ret->nparams = SCHEDULER_PARAMS;
	return ret->type ? 0 : call_fail_memory(call);
}

static int get_scheduler_flags(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_get_scheduler_parameters_flags_args *args = call->args;
	struct remote_domain_get_scheduler_parameters_flags_ret *ret = call->ret;
	struct params p = { .arena = &call->arena };

	if (list_scheduler(call, g, args->flags, &p))
		return -1;
	answer(&p, args->nparams, &ret->params_len, &ret->params, NULL);
	return 0;
}

static int get_scheduler_plain(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_get_scheduler_parameters_args *args = call->args;
	struct remote_domain_get_scheduler_parameters_ret *ret = call->ret;
	struct params p = { .arena = &call->arena };

	if (list_scheduler(call, g, AFFECT_CURRENT, &p))
		return -1;
	answer(&p, args->nparams, &ret->params_len, &ret->params, NULL);
	return 0;
}

/* ---- Memory ------------------------------------------------------------------- */

static int set_memory(struct rpc_call *call, struct domain *def, const struct remote_typed_param *p)
{
	struct dom_memtune *m = def->memtune;
	struct opt64 *to;
	int64_t n;

	if (!m && !(m = def->memtune = calloc(1, sizeof(*m))))
		return call_fail_memory(call);
	to = !strcmp(p->field, "hard_limit")	    ? &m->hard_limit
	     : !strcmp(p->field, "soft_limit")	    ? &m->soft_limit
	     : !strcmp(p->field, "swap_hard_limit") ? &m->swap_hard_limit
						    : NULL;
	if (!to)
		return fail_name(call, p);
	if (take_number(call, p, PARAM_ULLONG, &n))
		return -1;
	*to = (struct opt64){ .value = (uint64_t)n, .set = (uint64_t)n < MEMORY_NONE };
	if (m->swap_hard_limit.set && (!m->hard_limit.set || m->hard_limit.value > m->swap_hard_limit.value))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG,
				     "memory hard_limit tunable value must be lower than or equal to swap_hard_limit");
	return 0;
}

static int apply_memory(struct rpc_call *call, struct guest *g)
{
	int ret = confine_cgroup_memory(g);

	return ret ? fail_apply(call, "memory limits", ret) : 0;
}

/* hard_limit first, whatever order they come in: the sum with swap is checked against it. */
static int set_memory_parameters(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_set_memory_parameters_args *args = call->args;

	for (uint32_t i = 1; i < args->params_len; i++)
		if (!strcmp(args->params[i].field, "hard_limit")) {
			struct remote_typed_param first = args->params[0];

			args->params[0] = args->params[i];
			args->params[i] = first;
		}
	if (need(call, CG_MEMORY, "memory"))
		return -1;
	return change(call, g, args->params, args->params_len, args->flags, set_memory, apply_memory);
}

static int get_memory_parameters(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_get_memory_parameters_args *args = call->args;
	struct remote_domain_get_memory_parameters_ret *ret = call->ret;
	static const struct dom_memtune none;
	struct params p = { .arena = &call->arena };
	const struct dom_memtune *m;
	struct domain *def;

	if (call_check_flags(call, args->flags, AFFECT_LIVE | AFFECT_CONFIG | 4) || need(call, CG_MEMORY, "memory"))
		return -1;
	def = call_affect_one(call, g, args->flags & 3);
	if (!def)
		return -1;
	m = def->memtune ? def->memtune : &none;
	params_ullong(&p, "hard_limit", m->hard_limit.set ? m->hard_limit.value : MEMORY_NONE);
	params_ullong(&p, "soft_limit", m->soft_limit.set ? m->soft_limit.value : MEMORY_NONE);
	params_ullong(&p, "swap_hard_limit", m->swap_hard_limit.set ? m->swap_hard_limit.value : MEMORY_NONE);
	if (p.failed)
		return call_fail_memory(call);
	answer(&p, args->nparams, &ret->params_len, &ret->params, &ret->nparams);
	return 0;
}

/* ---- Block I/O ------------------------------------------------------------------ */

static const struct {
	const char *name;
	size_t at; /* in struct dom_blkio_device */
	bool wide; /* a struct opt64 */
} io_fields[] = {
	{ "device_weight", offsetof(struct dom_blkio_device, weight), false },
	{ "device_read_iops_sec", offsetof(struct dom_blkio_device, read_iops_sec), false },
	{ "device_write_iops_sec", offsetof(struct dom_blkio_device, write_iops_sec), false },
	{ "device_read_bytes_sec", offsetof(struct dom_blkio_device, read_bytes_sec), true },
	{ "device_write_bytes_sec", offsetof(struct dom_blkio_device, write_bytes_sec), true },
};
#define IO_FIELDS (sizeof(io_fields) / sizeof(io_fields[0]))

static uint64_t io_get(const struct dom_blkio_device *d, unsigned field)
{
	const char *at = (const char *)d + io_fields[field].at;

	return io_fields[field].wide ? ((const struct opt64 *)at)->value : ((const struct opt32 *)at)->value;
}

static struct dom_blkio_device *io_device(struct dom_blkiotune *t, const char *path)
{
	struct dom_blkio_device **v, *d;

	for (unsigned n = 0; n < t->devices.n; n++)
		if (t->devices.v[n]->path && !strcmp(t->devices.v[n]->path, path))
			return t->devices.v[n];
	v = realloc(t->devices.v, (t->devices.n + 1) * sizeof(*v));
	if (!v)
		return NULL;
	t->devices.v = v;
	d = calloc(1, sizeof(*d));
	if (d && !(d->path = strdup(path))) {
		free(d);
		d = NULL;
	}
	if (d)
		v[t->devices.n++] = d;
	return d;
}

/* "/dev/sda,500,/dev/sdb,100": pairs. */
static int set_io_pairs(struct rpc_call *call, struct dom_blkiotune *t, unsigned field, const char *text)
{
	char *copy = arena_strdup(&call->arena, text), *save = NULL;

	if (!copy)
		return call_fail_memory(call);
	for (char *path = strtok_r(copy, ",", &save); path; path = strtok_r(NULL, ",", &save)) {
		const char *number = strtok_r(NULL, ",", &save);
		struct dom_blkio_device *d;
		unsigned long long n;
		char *end, *at;

		n = number ? strtoull(number, &end, 10) : 0;
		if (!number || end == number || *end || *number == '-' || (!io_fields[field].wide && n > UINT32_MAX))
			return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "unable to parse blkio device '%s' '%s'",
					     io_fields[field].name, text);
		d = io_device(t, path);
		if (!d)
			return call_fail_memory(call);
		at = (char *)d + io_fields[field].at;
		if (io_fields[field].wide)
			*(struct opt64 *)at = (struct opt64){ .value = n, .set = n != 0 };
		else
			*(struct opt32 *)at = (struct opt32){ .value = (uint32_t)n, .set = n != 0 };
	}
	return 0;
}

static int set_io(struct rpc_call *call, struct domain *def, const struct remote_typed_param *p)
{
	struct dom_blkiotune *t = def->blkiotune;
	int64_t n;

	if (!t && !(t = def->blkiotune = calloc(1, sizeof(*t))))
		return call_fail_memory(call);
	if (!strcmp(p->field, "weight")) {
		if (take_number(call, p, PARAM_UINT, &n))
			return -1;
		if (n < 100 || n > 1000)
			return rpc_call_fail(call, VIR_FROM_NONE, VIR_ERR_INVALID_ARG, "weight %lld is out of range [100, 1000]",
					     (long long)n);
		t->weight = (struct opt32){ .value = (uint32_t)n, .set = true };
		return 0;
	}
	for (unsigned i = 0; i < IO_FIELDS; i++)
		if (!strcmp(p->field, io_fields[i].name))
			return p->value.type == PARAM_STRING && p->value.u.s ? set_io_pairs(call, t, i, p->value.u.s)
									     : fail_type(call, p);
	return fail_name(call, p);
}

static int apply_io(struct rpc_call *call, struct guest *g)
{
	int ret = confine_cgroup_io(g);

	return ret ? fail_apply(call, "I/O limits", ret) : 0;
}

static int set_blkio_parameters(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_set_blkio_parameters_args *args = call->args;

	if (need(call, CG_BLKIO, "blkio"))
		return -1;
	return change(call, g, args->params, args->params_len, args->flags, set_io, apply_io);
}

static char *io_pairs(struct rpc_call *call, const struct dom_blkiotune *t, unsigned field)
{
	size_t room = 1, at = 0;
	char *text;

	for (unsigned n = 0; n < t->devices.n; n++)
		room += (t->devices.v[n]->path ? strlen(t->devices.v[n]->path) : 0) + 24;
	text = arena_alloc(&call->arena, room);
	for (unsigned n = 0; text && n < t->devices.n; n++) {
		const struct dom_blkio_device *d = t->devices.v[n];

		if (d->path && io_get(d, field))
			at += (size_t)snprintf(text + at, room - at, "%s%s,%llu", at ? "," : "", d->path,
					       (unsigned long long)io_get(d, field));
	}
	if (text && !at)
		*text = 0;
	return text;
}

static int get_blkio_parameters(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_get_blkio_parameters_args *args = call->args;
	struct remote_domain_get_blkio_parameters_ret *ret = call->ret;
	static const struct dom_blkiotune none;
	struct params p = { .arena = &call->arena };
	const struct dom_blkiotune *t;
	struct domain *def;

	if (call_check_flags(call, args->flags, AFFECT_LIVE | AFFECT_CONFIG | 4) || need(call, CG_BLKIO, "blkio"))
		return -1;
	def = call_affect_one(call, g, args->flags & 3);
	if (!def)
		return -1;
	t = def->blkiotune ? def->blkiotune : &none;
	params_uint(&p, "weight", t->weight.value);
	for (unsigned i = 0; i < IO_FIELDS; i++) {
		const char *text = io_pairs(call, t, i);

		if (!text)
			return call_fail_memory(call);
		params_string(&p, io_fields[i].name, text);
	}
	if (p.failed)
		return call_fail_memory(call);
	answer(&p, args->nparams, &ret->params_len, &ret->params, &ret->nparams);
	return 0;
}

const struct guest_binding params_bindings[] = {
	{ NULL, REMOTE_PROC_DOMAIN_GET_SCHEDULER_TYPE, get_scheduler_type, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_GET_SCHEDULER_PARAMETERS, get_scheduler_plain, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_GET_SCHEDULER_PARAMETERS_FLAGS, get_scheduler_flags, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_SET_SCHEDULER_PARAMETERS, set_scheduler_plain, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_SET_SCHEDULER_PARAMETERS_FLAGS, set_scheduler_flags, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_GET_MEMORY_PARAMETERS, get_memory_parameters, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_SET_MEMORY_PARAMETERS, set_memory_parameters, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_GET_BLKIO_PARAMETERS, get_blkio_parameters, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_SET_BLKIO_PARAMETERS, set_blkio_parameters, GUEST_JOB },
	{ 0 },
};
