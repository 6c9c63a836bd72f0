/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Objects of which there are none yet: networks, interfaces, node devices, filters and secrets. */
#include "daemon/daemon.h"

/* The zeroed result: no names, no numbers. */
static int nothing(struct rpc_call *call)
{
	return 0;
}

static int no_uuid(struct rpc_call *call, enum vir_domain domain, enum vir_code code, const char *what, const uint8_t *u)
{
	return rpc_call_fail(
		call, domain, code, "no %s with matching uuid '%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x'",
		what, u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

static int no_network(struct rpc_call *call)
{
	return rpc_call_fail(call, VIR_FROM_NETWORK, VIR_ERR_NO_NETWORK, "no network with matching name '%s'",
			     ((struct remote_network_lookup_by_name_args *)call->args)->name);
}

static int no_network_uuid(struct rpc_call *call)
{
	return no_uuid(call, VIR_FROM_NETWORK, VIR_ERR_NO_NETWORK, "network",
		       ((struct remote_network_lookup_by_uuid_args *)call->args)->uuid);
}

static int no_interface(struct rpc_call *call)
{
	return rpc_call_fail(call, VIR_FROM_INTERFACE, VIR_ERR_NO_INTERFACE, "couldn't find interface named '%s'",
			     ((struct remote_interface_lookup_by_name_args *)call->args)->name);
}

static int no_node_device(struct rpc_call *call)
{
	return rpc_call_fail(call, VIR_FROM_NODEDEV, VIR_ERR_NO_NODE_DEVICE, "no node device with matching name '%s'",
			     ((struct remote_node_device_lookup_by_name_args *)call->args)->name);
}

static int no_nwfilter(struct rpc_call *call)
{
	return rpc_call_fail(call, VIR_FROM_NWFILTER, VIR_ERR_NO_NWFILTER, "no nwfilter with matching name '%s'",
			     ((struct remote_nwfilter_lookup_by_name_args *)call->args)->name);
}

static int no_nwfilter_uuid(struct rpc_call *call)
{
	return no_uuid(call, VIR_FROM_NWFILTER, VIR_ERR_NO_NWFILTER, "nwfilter",
		       ((struct remote_nwfilter_lookup_by_uuid_args *)call->args)->uuid);
}

static int no_secret(struct rpc_call *call)
{
	return no_uuid(call, VIR_FROM_SECRET, VIR_ERR_NO_SECRET, "secret",
		       ((struct remote_secret_lookup_by_uuid_args *)call->args)->uuid);
}

static int no_secret_usage(struct rpc_call *call)
{
	return rpc_call_fail(call, VIR_FROM_SECRET, VIR_ERR_NO_SECRET, "no secret with matching usage '%s'",
			     ((struct remote_secret_lookup_by_usage_args *)call->args)->usageID);
}

const struct binding empty_bindings[] = {
	{ REMOTE_PROC_CONNECT_LIST_ALL_NETWORKS, nothing },
	{ REMOTE_PROC_CONNECT_NUM_OF_NETWORKS, nothing },
	{ REMOTE_PROC_CONNECT_LIST_NETWORKS, nothing },
	{ REMOTE_PROC_CONNECT_NUM_OF_DEFINED_NETWORKS, nothing },
	{ REMOTE_PROC_CONNECT_LIST_DEFINED_NETWORKS, nothing },
	{ REMOTE_PROC_NETWORK_LOOKUP_BY_NAME, no_network },
	{ REMOTE_PROC_NETWORK_LOOKUP_BY_UUID, no_network_uuid },
	{ REMOTE_PROC_CONNECT_LIST_ALL_INTERFACES, nothing },
	{ REMOTE_PROC_CONNECT_NUM_OF_INTERFACES, nothing },
	{ REMOTE_PROC_CONNECT_LIST_INTERFACES, nothing },
	{ REMOTE_PROC_CONNECT_NUM_OF_DEFINED_INTERFACES, nothing },
	{ REMOTE_PROC_CONNECT_LIST_DEFINED_INTERFACES, nothing },
	{ REMOTE_PROC_INTERFACE_LOOKUP_BY_NAME, no_interface },
	{ REMOTE_PROC_CONNECT_LIST_ALL_NODE_DEVICES, nothing },
	{ REMOTE_PROC_NODE_NUM_OF_DEVICES, nothing },
	{ REMOTE_PROC_NODE_LIST_DEVICES, nothing },
	{ REMOTE_PROC_NODE_DEVICE_LOOKUP_BY_NAME, no_node_device },
	{ REMOTE_PROC_CONNECT_LIST_ALL_NWFILTERS, nothing },
	{ REMOTE_PROC_CONNECT_NUM_OF_NWFILTERS, nothing },
	{ REMOTE_PROC_CONNECT_LIST_NWFILTERS, nothing },
	{ REMOTE_PROC_NWFILTER_LOOKUP_BY_NAME, no_nwfilter },
	{ REMOTE_PROC_NWFILTER_LOOKUP_BY_UUID, no_nwfilter_uuid },
	{ REMOTE_PROC_CONNECT_LIST_ALL_NWFILTER_BINDINGS, nothing },
	{ REMOTE_PROC_CONNECT_LIST_ALL_SECRETS, nothing },
	{ REMOTE_PROC_CONNECT_NUM_OF_SECRETS, nothing },
	{ REMOTE_PROC_CONNECT_LIST_SECRETS, nothing },
	{ REMOTE_PROC_SECRET_LOOKUP_BY_UUID, no_secret },
	{ REMOTE_PROC_SECRET_LOOKUP_BY_USAGE, no_secret_usage },
	{ 0 },
};
