/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who a client is: by its socket, its certificate, or SASL. */
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/daemon.h"
#include "rpc/sasl.h"
#include "util/log.h"

/* remoteDriver's auth types. */
enum auth_type { AUTH_NONE, AUTH_SASL };

static bool matches_any(const struct daemon_patterns *p, const char *name)
{
	for (unsigned n = 0; n < p->n; n++)
		if (!fnmatch(p->list[n], name, 0))
			return true;
	return false;
}

static bool wants_sasl(const struct daemon *d, const struct rpc_client *c)
{
	switch (rpc_client_transport(c)) {
	case RPC_UNIX:
		break;
	case RPC_TLS:
		return d->options->tls_sasl;
	case RPC_TCP:
		return !d->options->tcp_anybody;
	}
	return false; /* the kernel has said who it is */
}

void auth_begin(struct session *s)
{
	const struct daemon *d = rpc_server_opaque(rpc_client_server(s->client));

	s->authenticated = !wants_sasl(d, s->client);
	if (s->authenticated && rpc_client_transport(s->client) == RPC_TCP)
		rpc_client_logged_in(s->client);
}

void auth_end(struct session *s)
{
	rpc_sasl_free(s->sasl);
	s->sasl = NULL;
}

bool auth_known(struct rpc_client *c)
{
	const struct daemon *d = rpc_server_opaque(rpc_client_server(c));
	const struct session *s = rpc_client_data(c);

	if (d->options->dns.n && !matches_any(&d->options->dns, rpc_client_dn(c)))
		return false;
	if (s && s->authenticated)
		rpc_client_logged_in(c);
	return true;
}

static int auth_list(struct rpc_call *call)
{
	static int32_t none = AUTH_NONE, sasl = AUTH_SASL;
	const struct session *s = rpc_client_data(call->client);
	struct remote_auth_list_ret *ret = call->ret;

	ret->types = s->authenticated ? &none : &sasl;
	ret->types_len = 1;
	return 0;
}

/* The reason goes to the log; who fails to log in is told only that. */
static int fail(struct rpc_call *call, const struct err *err)
{
	struct session *s = rpc_client_data(call->client);
	char local[64], remote[64];

	rpc_client_addresses(call->client, local, remote);
	log_line(LOG_WARN, "a client at %s fails to log in: %s", remote, err_msg(err));
	auth_end(s);
	return rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_AUTH_FAILED, "authentication failed");
}

static int sasl_init(struct rpc_call *call)
{
	struct remote_auth_sasl_init_ret *ret = call->ret;
	struct session *s = rpc_client_data(call->client);
	bool tls = rpc_client_transport(call->client) == RPC_TLS;
	char local[64], remote[64];
	struct err err = ERR_INIT;
	const char *list;

	if (s->authenticated || s->sasl) {
		err_set(&err, EPROTO, "it asks for authentication at the wrong time");
		return fail(call, &err);
	}
	rpc_client_addresses(call->client, local, remote);
	s->sasl = rpc_sasl_server(*local ? local : NULL, *remote ? remote : NULL, tls ? RPC_SASL_PROTECTED : 0, &err);
	list = s->sasl ? rpc_sasl_mechanisms(s->sasl, &err) : NULL;
	if (!list)
		return fail(call, &err);
	ret->mechlist = arena_strdup(&call->arena, list);
	return ret->mechlist ? 0 : rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_NO_MEMORY, "authentication");
}

static int let_in(struct rpc_call *call, struct err *err)
{
	const struct daemon *d = call_daemon(call);
	struct session *s = rpc_client_data(call->client);
	const char *user = rpc_sasl_user(s->sasl);

	if (rpc_sasl_check(s->sasl, err))
		return -1;
	if (!user)
		return err_set(err, EACCES, "SASL names nobody");
	if (d->options->users.n && !matches_any(&d->options->users, user))
		return err_set(err, EACCES, "the user '%s' is not allowed", user);
	return 0;
}

/* `done` and `out` as the step has left them; the two calls' results have one layout. */
static int answer_step(struct rpc_call *call, int done, const char *out, size_t len, struct err *err)
{
	struct remote_auth_sasl_start_ret *ret = call->ret;
	struct session *s = rpc_client_data(call->client);
	struct rpc_client *client = call->client;
	struct rpc_sasl *sasl = s->sasl;

	if (done < 0 || (done && let_in(call, err)))
		return fail(call, err);
	ret->complete = done;
	ret->nil = !out;
	ret->data_len = out ? (uint32_t)len : 0;
	if (len) {
		ret->data = arena_alloc(&call->arena, len);
		if (!ret->data)
			return rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_NO_MEMORY, "authentication");
		memcpy(ret->data, out, len);
	}
	if (!done)
		return 0;
	/* The answer goes unprotected, all that follows as agreed. */
	s->authenticated = true;
	s->sasl = NULL;
	rpc_call_finish(call);
	if (rpc_client_set_sasl(client, sasl))
		rpc_client_close(client);
	else
		rpc_client_logged_in(client);
	return RPC_LATER;
}

static int sasl_start(struct rpc_call *call)
{
	const struct remote_auth_sasl_start_args *args = call->args;
	const struct session *s = rpc_client_data(call->client);
	struct err err = ERR_INIT;
	const char *out = NULL;
	size_t len = 0;
	int done;

	if (!s->sasl) {
		err_set(&err, EPROTO, "it begins SASL's exchange without having asked for it");
		return fail(call, &err);
	}
	/* SASL tells empty from absent. */
	done = rpc_sasl_server_start(s->sasl, args->mech, args->nil ? NULL : args->data ? args->data : "", args->data_len, &out, &len,
				     &err);
	return answer_step(call, done, out, len, &err);
}

static int sasl_step(struct rpc_call *call)
{
	const struct remote_auth_sasl_step_args *args = call->args;
	const struct session *s = rpc_client_data(call->client);
	struct err err = ERR_INIT;
	const char *out = NULL;
	size_t len = 0;
	int done;

	if (!s->sasl) {
		err_set(&err, EPROTO, "it goes on with an exchange of SASL's that has not begun");
		return fail(call, &err);
	}
	done = rpc_sasl_server_step(s->sasl, args->nil ? NULL : args->data ? args->data : "", args->data_len, &out, &len, &err);
	return answer_step(call, done, out, len, &err);
}

const struct binding auth_bindings[] = {
	{ REMOTE_PROC_AUTH_LIST, auth_list },
	{ REMOTE_PROC_AUTH_SASL_INIT, sasl_init },
	{ REMOTE_PROC_AUTH_SASL_START, sasl_start },
	{ REMOTE_PROC_AUTH_SASL_STEP, sasl_step },
	{ 0 },
};
