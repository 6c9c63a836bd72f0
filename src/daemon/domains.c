/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Finding domains. None can be defined yet, so every list is empty and every search ends without a result. */
#include "daemon/daemon.h"

/* virConnectListAllDomainsFlags: active to no checkpoint, sixteen filters without a gap. */
#define LIST_FILTERS 0xffffu

static int list_all(struct rpc_call *call)
{
	const struct remote_connect_list_all_domains_args *args = call->args;

	return call_check_flags(call, args->flags, LIST_FILTERS);
}

static int list_none(struct rpc_call *call)
{
	(void)call; /* the zeroed result: no names, no numbers */
	return 0;
}

static int lookup_by_name(struct rpc_call *call)
{
	const struct remote_domain_lookup_by_name_args *args = call->args;

	return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_NO_DOMAIN, "no domain with matching name '%s'", args->name);
}

static int lookup_by_id(struct rpc_call *call)
{
	const struct remote_domain_lookup_by_id_args *args = call->args;

	return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_NO_DOMAIN, "no domain with matching id %d", args->id);
}

static int lookup_by_uuid(struct rpc_call *call)
{
	const uint8_t *u = ((const struct remote_domain_lookup_by_uuid_args *)call->args)->uuid;

	return rpc_call_fail(
		call, VIR_FROM_QEMU, VIR_ERR_NO_DOMAIN,
		"no domain with matching uuid '%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x'",
		u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

const struct binding domain_bindings[] = {
	{ REMOTE_PROC_CONNECT_LIST_ALL_DOMAINS, list_all },
	{ REMOTE_PROC_CONNECT_NUM_OF_DOMAINS, list_none },
	{ REMOTE_PROC_CONNECT_LIST_DOMAINS, list_none },
	{ REMOTE_PROC_CONNECT_NUM_OF_DEFINED_DOMAINS, list_none },
	{ REMOTE_PROC_CONNECT_LIST_DEFINED_DOMAINS, list_none },
	{ REMOTE_PROC_DOMAIN_LOOKUP_BY_NAME, lookup_by_name },
	{ REMOTE_PROC_DOMAIN_LOOKUP_BY_ID, lookup_by_id },
	{ REMOTE_PROC_DOMAIN_LOOKUP_BY_UUID, lookup_by_uuid },
	{ 0 },
};
