/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>
#include <string.h>

#include "lib/conn.h"
#include "rpc/sasl.h"

enum auth_type { AUTH_NONE, AUTH_SASL, AUTH_POLKIT };

struct login {
	struct keel_conn *conn;
	const struct uri *uri;
	keel_auth_fn fn;
	void *opaque;
	struct rpc_sasl *sasl;
};

static char *ask(void *opaque, int what, const char *prompt)
{
	const struct login *l = opaque;

	if (what == SASL_ASK_USER && l->uri->user)
		return strdup(l->uri->user);
	return l->fn ? l->fn(l->opaque, what == SASL_ASK_USER ? KEEL_CRED_USER : KEEL_CRED_PASSWORD, prompt) : NULL;
}

static int fail(struct keel_error *error, const struct err *err)
{
	return error_set(error, VIR_FROM_AUTH, VIR_ERR_AUTH_FAILED, "%s", err_msg(err));
}

/* Until both ends are content. The daemon's last word may be one that we have to check: it proves who the daemon is. */
static int exchange(struct login *l, const char *mechs, struct arena *arena, struct keel_error *error)
{
	struct remote_auth_sasl_start_args start = { 0 };
	struct remote_auth_sasl_step_args step = { 0 };
	struct remote_auth_sasl_start_ret ret = { 0 }; /* both results have this layout */
	struct err err = ERR_INIT;
	const char *mech = NULL, *out = NULL;
	size_t len = 0;
	int done = rpc_sasl_client_start(l->sasl, mechs, &mech, &out, &len, &err);

	if (done < 0)
		return fail(error, &err);
	start.mech = (char *)mech;
	start.nil = !out;
	start.data = (char *)out;
	start.data_len = (uint32_t)len;
	if (conn_call(l->conn, &remote_program, REMOTE_PROC_AUTH_SASL_START, &start, &ret, arena, error))
		return -1;
	for (;;) {
		done = rpc_sasl_client_step(l->sasl, ret.nil ? NULL : ret.data ? ret.data : "", ret.data_len, &out, &len, &err);
		if (done < 0)
			return fail(error, &err);
		if (done && ret.complete)
			break;
		step.nil = !out;
		step.data = (char *)out;
		step.data_len = (uint32_t)len;
		ret = (struct remote_auth_sasl_start_ret){ 0 };
		if (conn_call(l->conn, &remote_program, REMOTE_PROC_AUTH_SASL_STEP, &step, &ret, arena, error))
			return -1;
		if (done && ret.complete)
			break;
	}
	return rpc_sasl_check(l->sasl, &err) ? fail(error, &err) : 0;
}

static int log_in_sasl(struct login *l, struct arena *arena, struct keel_error *error)
{
	struct remote_auth_sasl_init_ret init = { 0 };
	struct err err = ERR_INIT;
	struct rpc_layer *layer;
	int ret;

	l->sasl = rpc_sasl_client(l->uri->host ? l->uri->host : "localhost", NULL, NULL,
				  l->uri->transport != URI_TCP ? RPC_SASL_PROTECTED : 0, ask, l, &err);
	if (!l->sasl)
		return fail(error, &err);
	ret = conn_call(l->conn, &remote_program, REMOTE_PROC_AUTH_SASL_INIT, NULL, &init, arena, error);
	if (!ret)
		ret = exchange(l, init.mechlist, arena, error);
	if (ret) {
		rpc_sasl_free(l->sasl);
		return ret;
	}
	layer = rpc_sasl_layer(l->sasl, rpc_session_fd(l->conn->session));
	if (layer)
		rpc_session_set_layer(l->conn->session, layer, NULL);
	else
		rpc_sasl_free(l->sasl);
	return 0;
}

int conn_authenticate(struct keel_conn *c, const struct uri *uri, keel_auth_fn fn, void *opaque, struct keel_error *error)
{
	struct login l = { .conn = c, .uri = uri, .fn = fn, .opaque = opaque };
	struct remote_auth_list_ret list = { 0 };
	struct arena arena = { 0 };
	int ret = conn_call(c, &remote_program, REMOTE_PROC_AUTH_LIST, NULL, &list, &arena, error);
	unsigned offered = 0;

	for (uint32_t n = 0; !ret && n < list.types_len; n++)
		if (list.types[n] >= AUTH_NONE && list.types[n] <= AUTH_POLKIT)
			offered |= 1u << list.types[n];
	if (!ret && !(offered & 1u << AUTH_NONE)) {
		if (offered & 1u << AUTH_SASL)
			ret = log_in_sasl(&l, &arena, error);
		else if (offered & 1u << AUTH_POLKIT) /* libvirtd's: it asks the user's agent */
			ret = conn_call(c, &remote_program, REMOTE_PROC_AUTH_POLKIT, NULL, NULL, &arena, error);
		else
			ret = error_set(error, VIR_FROM_AUTH, VIR_ERR_AUTH_FAILED, "the daemon offers no authentication that libkeel knows");
	}
	arena_free(&arena);
	return ret;
}
