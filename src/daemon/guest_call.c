/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Calls about one guest: found first, one change at a time, answered when the machine has answered. */
#include "daemon/guest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define REMOTE_PROCS 512
#define QEMU_PROCS 16

static struct guest_binding remote_bindings[REMOTE_PROCS], qemu_bindings[QEMU_PROCS];

struct guest_waiting {
	struct rpc_call *call;
	const struct guest_binding *binding;
	struct guest_waiting *next;
};

static const struct guest_binding *binding_of(const struct rpc_call *call)
{
	return call->proc->program == &remote_program ? &remote_bindings[call->proc->number]
						      : &qemu_bindings[call->proc->number];
}

int call_fail_memory(struct rpc_call *call)
{
	return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_NO_MEMORY, "an answer");
}

int call_fail_model(struct rpc_call *call, const struct err *err)
{
	int code = model_vir_code(err);

	return rpc_call_fail(call, code == VIR_ERR_INTERNAL_ERROR || code == VIR_ERR_OPERATION_INVALID ? VIR_FROM_QEMU : VIR_FROM_DOMAIN,
			     code, "%s", err_msg(err));
}

static int refuse_inactive(struct rpc_call *call)
{
	return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "domain is not running");
}

static int run(struct rpc_call *call, struct guest *g, const struct guest_binding *b)
{
	if ((b->flags & GUEST_ACTIVE) && !guest_is_active(g))
		return refuse_inactive(call);
	if (!(b->flags & GUEST_PACKED) && guest_unpack(g))
		return call_fail_memory(call);
	return b->fn(call, g);
}

static int dispatch(struct rpc_call *call)
{
	const struct remote_domain *dom = call->args;
	const struct guest_binding *b = binding_of(call);
	struct guest *g = guest_by_uuid(call_daemon(call), dom->uuid);
	struct guest_waiting *w;
	char uuid[37];
	int ret;

	if (!g) {
		uuid_text(dom->uuid, uuid);
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_NO_DOMAIN, "no domain with matching uuid '%s' (%s)", uuid,
				     dom->name);
	}
	if (!(b->flags & GUEST_JOB) && !guest_is_there(g))
		return refuse_inactive(call);
	if (!(b->flags & GUEST_JOB))
		return run(call, g, b);
	if (g->busy) {
		w = calloc(1, sizeof(*w));
		if (!w)
			return call_fail_memory(call);
		*w = (struct guest_waiting){ .call = call, .binding = b };
		*g->waiting_end = w;
		g->waiting_end = &w->next;
		return RPC_LATER;
	}
	guest_get(g);
	g->busy = true;
	g->job = call;
	ret = run(call, g, b);
	if (ret != RPC_LATER) {
		g->job = NULL;
		guest_job_end(g);
	}
	guest_put(g);
	return ret;
}

void guest_bind(struct rpc_server *s, const struct guest_binding *b)
{
	for (; b->fn; b++) {
		const struct rpc_program *p = b->program ? b->program : &remote_program;

		*(p == &remote_program ? &remote_bindings[b->number] : &qemu_bindings[b->number]) = *b;
		rpc_server_handle(s, p, b->number, dispatch);
	}
}

void guest_job_end(struct guest *g)
{
	struct guest_waiting *w;
	struct rpc_call *call;
	int ret;

	guest_get(g);
	g->busy = false;
	g->job = NULL;
	while (!g->busy && (w = g->waiting)) {
		char uuid[37];

		g->waiting = w->next;
		if (!g->waiting)
			g->waiting_end = &g->waiting;
		call = w->call;
		g->busy = true;
		g->job = call;
		if (g->listed) {
			ret = run(call, g, w->binding);
		} else { /* gone while it waited */
			uuid_text(g->uuid, uuid);
			ret = rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_NO_DOMAIN, "no domain with matching uuid '%s' (%s)", uuid,
					    g->name);
		}
		free(w);
		if (ret != RPC_LATER) {
			g->busy = false;
			g->job = NULL;
			rpc_call_finish(call);
		}
	}
	guest_put(g);
}

void guest_finish(struct rpc_call *call, struct guest *g, int ret)
{
	bool job = g->busy && g->job == call;

	if (ret == RPC_LATER)
		return;
	rpc_call_finish(call);
	if (job)
		guest_job_end(g);
}

/* ---- QMP for a call -------------------------------------------------------- */

struct command {
	struct rpc_call *call;
	struct guest *guest;
	guest_answer fn;
	bool tried;
	char name[40];
};

static void answered(void *opaque, json_t *ret, const char *error)
{
	struct command *c = opaque;
	struct rpc_call *call = c->call;
	struct guest *g = c->guest;
	int result = 0;

	if (!ret && !g->run)
		result = rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_FAILED, "domain is no longer running");
	else if (!ret)
		result = rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INTERNAL_ERROR, "unable to execute QEMU command '%s': %s",
				       c->name, error);
	if (c->fn && (!result || c->tried))
		result = c->fn(call, g, ret);
	guest_finish(call, g, result);
	guest_put(g);
	free(c);
}

static int send_command(struct rpc_call *call, struct guest *g, const char *command, json_t *args, guest_answer fn, bool tried)
{
	struct qmp *q = guest_monitor(g);
	struct command *c = q ? calloc(1, sizeof(*c)) : NULL;

	if (!c) {
		json_decref(args);
		return q ? call_fail_memory(call) : refuse_inactive(call);
	}
	*c = (struct command){ .call = call, .guest = guest_get(g), .fn = fn, .tried = tried };
	strncpy(c->name, command, sizeof(c->name) - 1);
	if (qmp_send(q, command, args, answered, c))
		return RPC_LATER;
	guest_put(g);
	free(c);
	return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_FAILED, "domain is no longer running");
}

int guest_qmp(struct rpc_call *call, struct guest *g, const char *command, json_t *args, guest_answer fn)
{
	return send_command(call, g, command, args, fn, false);
}

int guest_qmp_try(struct rpc_call *call, struct guest *g, const char *command, json_t *args, guest_answer fn)
{
	return send_command(call, g, command, args, fn, true);
}

/* ---- Which definition ------------------------------------------------------ */

int call_affect(struct rpc_call *call, const struct guest *g, uint32_t flags, bool *live, bool *config)
{
	*live = flags & AFFECT_LIVE;
	*config = flags & AFFECT_CONFIG;
	if (!*live && !*config)
		*(guest_is_active(g) ? live : config) = true;
	if (*live && !guest_is_active(g))
		return refuse_inactive(call);
	if (*config && !guest_is_persistent(g))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "transient domains do not have any persistent config");
	return 0;
}

struct domain *call_affect_one(struct rpc_call *call, const struct guest *g, uint32_t flags)
{
	bool live, config;

	if ((flags & AFFECT_LIVE) && (flags & AFFECT_CONFIG)) {
		rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG,
			      "flags 'VIR_DOMAIN_AFFECT_LIVE' and 'VIR_DOMAIN_AFFECT_CONFIG' in function '%s' are mutually exclusive",
			      call->proc->function);
		return NULL;
	}
	if (call_affect(call, g, flags, &live, &config))
		return NULL;
	return live ? g->live : g->config;
}

int guest_config_commit(struct rpc_call *call, struct guest *g, struct domain *before)
{
	struct err err = ERR_INIT;

	if (!store_save_config(g, g->config, &err)) {
		domain_free(before);
		return 0;
	}
	domain_free(g->config);
	g->config = before;
	return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_SYSTEM_ERROR, "%s", err_msg(&err));
}

/* ---- Typed parameters ------------------------------------------------------ */

static struct remote_typed_param_value *param(struct params *p, const char *name, int type)
{
	struct remote_typed_param *list;

	if (p->n == p->room) {
		p->room = p->room ? 2 * p->room : 16;
		list = arena_alloc(p->arena, p->room * sizeof(*list));
		if (list && p->n)
			memcpy(list, p->list, p->n * sizeof(*list));
		p->list = list;
	}
	if (!p->list || !(p->list[p->n].field = arena_strdup(p->arena, name))) {
		p->failed = true;
		p->n = p->room = 0;
		p->list = NULL;
		return NULL;
	}
	p->list[p->n].value.type = type;
	return &p->list[p->n++].value;
}

#define PARAM(name, ctype, member, kind)                             \
	void params_##name(struct params *p, const char *n, ctype v) \
	{                                                            \
		struct remote_typed_param_value *to = param(p, n, kind); \
                                                                     \
		if (to)                                              \
			to->u.member = v;                            \
	}

PARAM(int, int32_t, i, PARAM_INT)
PARAM(uint, uint32_t, ui, PARAM_UINT)
PARAM(llong, int64_t, l, PARAM_LLONG)
PARAM(ullong, uint64_t, ul, PARAM_ULLONG)
PARAM(bool, bool, b, PARAM_BOOLEAN)

void params_string(struct params *p, const char *name, const char *v)
{
	char *copy = arena_strdup(p->arena, v);
	struct remote_typed_param_value *to = copy ? param(p, name, PARAM_STRING) : NULL;

	if (to)
		to->u.s = copy;
	else
		p->failed = true;
}
