/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The connection itself: authentication, opening, features, versions and names. */
#include <string.h>
#include <unistd.h>

#include "daemon/daemon.h"

/* virDrvFeature: what a client library asks about before it uses it. */
enum feature {
	FEATURE_FD_PASSING = 8,
	FEATURE_TYPED_PARAM_STRING = 9,
	FEATURE_PROGRAM_KEEPALIVE = 10,
	FEATURE_REMOTE_EVENT_CALLBACK = 14,
	FEATURE_REMOTE_CLOSE_CALLBACK = 15,
};

/* virConnectFlags */
#define CONNECT_RO 1u
#define CONNECT_NO_ALIASES 2u
#define CONNECT_AUTOSTART 4u /* a client's note to itself that it may start a session's daemon; it comes along */

static int not_open(struct rpc_call *call)
{
	return rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_INTERNAL_ERROR, "connection not open");
}

int connect_admit(struct rpc_call *call)
{
	const struct session *s = rpc_client_data(call->client);

	if (!s)
		return rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_NO_MEMORY, "a connection");
	if (s->open)
		return 0;
	if (!s->authenticated) {
		if (call->proc->program == &remote_program && call->proc->number >= REMOTE_PROC_AUTH_LIST &&
		    call->proc->number <= REMOTE_PROC_AUTH_SASL_STEP)
			return 0;
		return rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_RPC, "authentication required");
	}
	if (call->proc->program == &remote_program)
		switch (call->proc->number) {
		case REMOTE_PROC_AUTH_LIST:
		case REMOTE_PROC_AUTH_SASL_INIT: /* refused by itself: there is nothing left to prove */
		case REMOTE_PROC_AUTH_SASL_START:
		case REMOTE_PROC_AUTH_SASL_STEP:
		case REMOTE_PROC_CONNECT_OPEN:
		case REMOTE_PROC_CONNECT_CLOSE:
		case REMOTE_PROC_CONNECT_SUPPORTS_FEATURE: /* keepalive comes before the opening */
			return 0;
		}
	return not_open(call);
}

static const char *daemon_uri(const struct daemon *d)
{
	return d->privileged ? "qemu:///system" : "qemu:///session";
}

static int connect_open(struct rpc_call *call)
{
	const struct remote_connect_open_args *args = call->args;
	const struct daemon *d = call_daemon(call);
	struct session *s = rpc_client_data(call->client);
	const char *name = args->name && *args->name ? args->name : daemon_uri(d);

	if (s->open)
		return rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_INTERNAL_ERROR, "connection already open");
	if (call_check_flags(call, args->flags, CONNECT_RO | CONNECT_NO_ALIASES | CONNECT_AUTOSTART))
		return -1;
	if (strncmp(name, "qemu:///", 8))
		return rpc_call_fail(call, VIR_FROM_NONE, VIR_ERR_NO_CONNECT, "%s", name);
	if (strcmp(name, daemon_uri(d)))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INTERNAL_ERROR,
				     "unexpected QEMU URI path '%s', try %s", name + 7, daemon_uri(d));
	if (args->flags & CONNECT_RO)
		rpc_client_set_readonly(call->client);
	s->open = true;
	return 0;
}

static int connect_close(struct rpc_call *call)
{
	rpc_client_close(call->client);
	return 0;
}

static int supports_feature(struct rpc_call *call)
{
	const struct remote_connect_supports_feature_args *args = call->args;
	struct remote_connect_supports_feature_ret *ret = call->ret;
	const struct session *s = rpc_client_data(call->client);

	if (args->feature == FEATURE_PROGRAM_KEEPALIVE) {
		rpc_client_keepalive(call->client);
		ret->supported = 1;
		return 0;
	}
	if (!s->open)
		return not_open(call);
	switch (args->feature) {
	case FEATURE_FD_PASSING:
		ret->supported = rpc_client_transport(call->client) == RPC_UNIX;
		return 0;
	case FEATURE_TYPED_PARAM_STRING:
	case FEATURE_REMOTE_EVENT_CALLBACK:
	case FEATURE_REMOTE_CLOSE_CALLBACK:
		ret->supported = 1;
	}
	return 0;
}

/* The daemon never closes a connection for a reason of its own, so there is nothing to call back about. */
static int register_close_callback(struct rpc_call *call)
{
	struct session *s = rpc_client_data(call->client);

	if (s->close_callback)
		return rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_OPERATION_INVALID,
				     "A close callback is already registered");
	s->close_callback = true;
	return 0;
}

static int unregister_close_callback(struct rpc_call *call)
{
	struct session *s = rpc_client_data(call->client);

	if (!s->close_callback)
		return rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_OPERATION_INVALID,
				     "A close callback is not registered");
	s->close_callback = false;
	return 0;
}

static int get_type(struct rpc_call *call)
{
	((struct remote_connect_get_type_ret *)call->ret)->type = "QEMU";
	return 0;
}

static int get_version(struct rpc_call *call)
{
	((struct remote_connect_get_version_ret *)call->ret)->hv_ver = DAEMON_HV_VERSION;
	return 0;
}

static int get_lib_version(struct rpc_call *call)
{
	((struct remote_connect_get_lib_version_ret *)call->ret)->lib_ver = DAEMON_LIB_VERSION;
	return 0;
}

static int get_hostname(struct rpc_call *call)
{
	struct remote_connect_get_hostname_ret *ret = call->ret;
	char name[256] = "";

	if (gethostname(name, sizeof(name) - 1))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INTERNAL_ERROR, "failed to determine host name");
	ret->hostname = arena_strdup(&call->arena, name);
	return ret->hostname ? 0 : rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_NO_MEMORY, "a host name");
}

static int get_uri(struct rpc_call *call)
{
	((struct remote_connect_get_uri_ret *)call->ret)->uri = (char *)daemon_uri(call_daemon(call));
	return 0;
}

/* Nobody reads along on a unix socket, nor through TLS. Over TCP, SASL's protection is not counted: libvirt doesn't, either. */
static int is_secure(struct rpc_call *call)
{
	((struct remote_connect_is_secure_ret *)call->ret)->secure = rpc_client_transport(call->client) != RPC_TCP;
	return 0;
}

const struct binding connect_bindings[] = {
	{ REMOTE_PROC_CONNECT_OPEN, connect_open },
	{ REMOTE_PROC_CONNECT_CLOSE, connect_close },
	{ REMOTE_PROC_CONNECT_SUPPORTS_FEATURE, supports_feature },
	{ REMOTE_PROC_CONNECT_REGISTER_CLOSE_CALLBACK, register_close_callback },
	{ REMOTE_PROC_CONNECT_UNREGISTER_CLOSE_CALLBACK, unregister_close_callback },
	{ REMOTE_PROC_CONNECT_GET_TYPE, get_type },
	{ REMOTE_PROC_CONNECT_GET_VERSION, get_version },
	{ REMOTE_PROC_CONNECT_GET_LIB_VERSION, get_lib_version },
	{ REMOTE_PROC_CONNECT_GET_HOSTNAME, get_hostname },
	{ REMOTE_PROC_CONNECT_GET_URI, get_uri },
	{ REMOTE_PROC_CONNECT_IS_SECURE, is_secure },
	{ 0 },
};
