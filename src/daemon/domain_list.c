/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Finding guests: by name, UUID and number, and lists of them. */
#include <errno.h>
#include <string.h>

#include "daemon/guest.h"
#include "daemon/guest_save.h"

/* virConnectListAllDomainsFlags. A group of which nothing is asked for lets everything through. */
enum {
	LIST_ACTIVE = 1 << 0, LIST_INACTIVE = 1 << 1,
	LIST_PERSISTENT = 1 << 2, LIST_TRANSIENT = 1 << 3,
	LIST_RUNNING = 1 << 4, LIST_PAUSED = 1 << 5, LIST_SHUTOFF = 1 << 6, LIST_OTHER = 1 << 7,
	LIST_MANAGEDSAVE = 1 << 8, LIST_NO_MANAGEDSAVE = 1 << 9,
	LIST_AUTOSTART = 1 << 10, LIST_NO_AUTOSTART = 1 << 11,
	LIST_HAS_SNAPSHOT = 1 << 12, LIST_NO_SNAPSHOT = 1 << 13,
	LIST_HAS_CHECKPOINT = 1 << 14, LIST_NO_CHECKPOINT = 1 << 15,
	LIST_ALL = (1 << 16) - 1,
};

static uint32_t state_filter(const struct guest *g)
{
	switch (g->state) {
	case STATE_RUNNING:
		return LIST_RUNNING;
	case STATE_PAUSED:
		return LIST_PAUSED;
	case STATE_SHUTOFF:
		return LIST_SHUTOFF;
	default:
		return LIST_OTHER;
	}
}

bool list_matches(const struct guest *g, uint32_t flags)
{
	const struct {
		uint32_t group, is;
	} groups[] = {
		{ LIST_ACTIVE | LIST_INACTIVE, guest_is_active(g) ? LIST_ACTIVE : LIST_INACTIVE },
		{ LIST_PERSISTENT | LIST_TRANSIENT, guest_is_persistent(g) ? LIST_PERSISTENT : LIST_TRANSIENT },
		{ LIST_RUNNING | LIST_PAUSED | LIST_SHUTOFF | LIST_OTHER, state_filter(g) },
		{ LIST_MANAGEDSAVE | LIST_NO_MANAGEDSAVE,
		  (flags & (LIST_MANAGEDSAVE | LIST_NO_MANAGEDSAVE)) && save_is_managed(g) ? LIST_MANAGEDSAVE : LIST_NO_MANAGEDSAVE },
		{ LIST_AUTOSTART | LIST_NO_AUTOSTART, g->autostart ? LIST_AUTOSTART : LIST_NO_AUTOSTART },
		{ LIST_HAS_SNAPSHOT | LIST_NO_SNAPSHOT, LIST_NO_SNAPSHOT },
		{ LIST_HAS_CHECKPOINT | LIST_NO_CHECKPOINT, LIST_NO_CHECKPOINT },
	};

	if (!guest_is_there(g))
		return false;
	for (unsigned n = 0; n < sizeof(groups) / sizeof(groups[0]); n++)
		if ((flags & groups[n].group) && !(flags & groups[n].is))
			return false;
	return true;
}

/* ---- Lists ----------------------------------------------------------------- */

struct listing {
	const struct rpc_call *call;
	uint32_t flags;
	unsigned n, max;
	struct remote_domain *domains; /* one of these, or none: then they are only counted */
	int32_t *ids;
	char **names;
};

static int list_one(struct guest *g, void *opaque)
{
	struct listing *l = opaque;

	if (!list_matches(g, l->flags) || !rpc_call_shows(l->call, g->name))
		return 0;
	if (l->n == l->max)
		return 1;
	if (l->domains)
		l->domains[l->n] = guest_wire(g);
	if (l->ids)
		l->ids[l->n] = g->id;
	if (l->names)
		l->names[l->n] = g->name;
	l->n++;
	return 0;
}

static int list(struct rpc_call *call, struct listing *l)
{
	l->call = call;
	return guest_each(call_daemon(call), list_one, l) < 0 ? call_fail_memory(call) : 0;
}

static int list_all(struct rpc_call *call)
{
	const struct remote_connect_list_all_domains_args *args = call->args;
	struct remote_connect_list_all_domains_ret *ret = call->ret;
	struct listing l = { .flags = args->flags, .max = call_daemon(call)->guests.count };

	if (call_check_flags(call, args->flags, LIST_ALL))
		return -1;
	if (args->need_results) {
		l.domains = arena_alloc(&call->arena, (l.max + 1) * sizeof(*l.domains));
		if (!l.domains)
			return call_fail_memory(call);
	}
	if (list(call, &l))
		return -1;
	ret->domains = l.domains;
	ret->domains_len = l.domains ? l.n : 0;
	ret->ret = l.n;
	return 0;
}

static int num_of(struct rpc_call *call, uint32_t flags)
{
	struct listing l = { .flags = flags, .max = call_daemon(call)->guests.count };

	if (list(call, &l))
		return -1;
	((struct remote_connect_num_of_domains_ret *)call->ret)->num = (int32_t)l.n;
	return 0;
}

static int num_of_active(struct rpc_call *call)
{
	return num_of(call, LIST_ACTIVE);
}

static int num_of_defined(struct rpc_call *call)
{
	return num_of(call, LIST_INACTIVE);
}

static unsigned at_most(int32_t asked, unsigned there)
{
	return asked < 0 ? 0 : (unsigned)asked < there ? (unsigned)asked : there;
}

static int list_ids(struct rpc_call *call)
{
	struct remote_connect_list_domains_ret *ret = call->ret;
	struct listing l = { .flags = LIST_ACTIVE };

	l.max = at_most(((struct remote_connect_list_domains_args *)call->args)->maxids, call_daemon(call)->guests.count);
	l.ids = arena_alloc(&call->arena, (l.max + 1) * sizeof(*l.ids));
	if (!l.ids || list(call, &l))
		return call_fail_memory(call);
	ret->ids = l.ids;
	ret->ids_len = l.n;
	return 0;
}

static int list_defined(struct rpc_call *call)
{
	struct remote_connect_list_defined_domains_ret *ret = call->ret;
	struct listing l = { .flags = LIST_INACTIVE };

	l.max = at_most(((struct remote_connect_list_defined_domains_args *)call->args)->maxnames, call_daemon(call)->guests.count);
	l.names = arena_alloc(&call->arena, (l.max + 1) * sizeof(*l.names));
	if (!l.names || list(call, &l))
		return call_fail_memory(call);
	ret->names = l.names;
	ret->names_len = l.n;
	return 0;
}

/* ---- One ------------------------------------------------------------------- */

static int lookup_by_name(struct rpc_call *call)
{
	const struct remote_domain_lookup_by_name_args *args = call->args;
	struct guest *g = guest_by_name(call_daemon(call), args->name);

	if (!g)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_NO_DOMAIN, "no domain with matching name '%s'", args->name);
	((struct remote_domain_lookup_by_name_ret *)call->ret)->dom = guest_wire(g);
	return 0;
}

static int lookup_by_id(struct rpc_call *call)
{
	const struct remote_domain_lookup_by_id_args *args = call->args;
	struct guest *g = guest_by_id(call_daemon(call), args->id);

	if (!g)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_NO_DOMAIN, "no domain with matching id %d", args->id);
	((struct remote_domain_lookup_by_id_ret *)call->ret)->dom = guest_wire(g);
	return 0;
}

static int lookup_by_uuid(struct rpc_call *call)
{
	const struct remote_domain_lookup_by_uuid_args *args = call->args;
	struct guest *g = guest_by_uuid(call_daemon(call), args->uuid);
	char uuid[37];

	if (!g) {
		uuid_text(args->uuid, uuid);
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_NO_DOMAIN, "no domain with matching uuid '%s'", uuid);
	}
	((struct remote_domain_lookup_by_uuid_ret *)call->ret)->dom = guest_wire(g);
	return 0;
}

const struct binding domain_list_bindings[] = {
	{ REMOTE_PROC_CONNECT_LIST_ALL_DOMAINS, list_all },
	{ REMOTE_PROC_CONNECT_NUM_OF_DOMAINS, num_of_active },
	{ REMOTE_PROC_CONNECT_LIST_DOMAINS, list_ids },
	{ REMOTE_PROC_CONNECT_NUM_OF_DEFINED_DOMAINS, num_of_defined },
	{ REMOTE_PROC_CONNECT_LIST_DEFINED_DOMAINS, list_defined },
	{ REMOTE_PROC_DOMAIN_LOOKUP_BY_NAME, lookup_by_name },
	{ REMOTE_PROC_DOMAIN_LOOKUP_BY_ID, lookup_by_id },
	{ REMOTE_PROC_DOMAIN_LOOKUP_BY_UUID, lookup_by_uuid },
	{ 0 },
};
