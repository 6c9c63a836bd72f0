/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/sasl.h"

#include <errno.h>
#include <pthread.h>
#include <sasl/sasl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* DIGEST-MD5's strongest has 128; 56 is what libvirt asks for. */
#define SSF_LEAST 56
#define SSF_MOST 100000
#define BUFFER_MAX 65536u

struct rpc_sasl {
	sasl_conn_t *conn;
	bool server, is_protected;
	sasl_callback_t callbacks[4];
	rpc_sasl_ask ask;
	void *opaque;
	char *answer;	       /* malloced, for the library's eyes */
	sasl_secret_t *secret; /* likewise */
};

static int fail(struct rpc_sasl *s, int code, struct err *err)
{
	return err_set(err, EACCES, "SASL: %s", s->conn ? sasl_errdetail(s->conn) : sasl_errstring(code, NULL, NULL));
}

/* ---- Beginning ------------------------------------------------------------- */

static char *config_dir;

static int get_config_path(void *context, char **path)
{
	*path = strdup(config_dir);
	return *path ? SASL_OK : SASL_NOMEM;
}

int rpc_sasl_server_init(const char *config, struct err *err)
{
	typedef int (*callback)(void);
	static sasl_callback_t callbacks[] = { { SASL_CB_GETCONFPATH, (callback)(void (*)(void))get_config_path, NULL },
					       { SASL_CB_LIST_END, NULL, NULL } };
	int ret;

	free(config_dir);
	config_dir = config ? strdup(config) : NULL;
	ret = sasl_server_init(config_dir ? callbacks : NULL, "keel");
	return ret == SASL_OK ? 0 : err_set(err, EINVAL, "SASL: cannot be used: %s", sasl_errstring(ret, NULL, NULL));
}

static int secure(struct rpc_sasl *s, unsigned flags, struct err *err)
{
	sasl_security_properties_t p = {
		.maxbufsize = BUFFER_MAX,
		.security_flags = SASL_SEC_NOANONYMOUS,
	};
	sasl_ssf_t external = 256;
	int ret = SASL_OK;

	s->is_protected = flags & RPC_SASL_PROTECTED;
	if (s->is_protected) {
		ret = sasl_setprop(s->conn, SASL_SSF_EXTERNAL, &external);
	} else {
		p.min_ssf = SSF_LEAST;
		p.max_ssf = SSF_MOST;
		p.security_flags |= SASL_SEC_NOPLAINTEXT;
	}
	if (ret == SASL_OK)
		ret = sasl_setprop(s->conn, SASL_SEC_PROPS, &p);
	return ret == SASL_OK ? 0 : fail(s, ret, err);
}

/* libvirt's name of the service: Kerberos tickets and realms hang on it. */
#define SERVICE "libvirt"

struct rpc_sasl *rpc_sasl_server(const char *local, const char *remote, unsigned flags, struct err *err)
{
	struct rpc_sasl *s = calloc(1, sizeof(*s));
	int ret;

	if (!s) {
		err_set(err, ENOMEM, "no memory for SASL");
		return NULL;
	}
	s->server = true;
	ret = sasl_server_new(SERVICE, NULL, NULL, local, remote, NULL, SASL_SUCCESS_DATA, &s->conn);
	if (ret != SASL_OK)
		fail(s, ret, err);
	if (ret != SASL_OK || secure(s, flags, err)) {
		rpc_sasl_free(s);
		return NULL;
	}
	return s;
}

static int ask_name(void *context, int id, const char **result, unsigned *len)
{
	struct rpc_sasl *s = context;

	free(s->answer);
	s->answer = s->ask ? s->ask(s->opaque, SASL_ASK_USER, "Username") : NULL;
	*result = s->answer;
	if (len)
		*len = s->answer ? (unsigned)strlen(s->answer) : 0;
	return s->answer ? SASL_OK : SASL_FAIL;
}

static void forget(struct rpc_sasl *s)
{
	if (s->secret) {
		explicit_bzero(s->secret->data, s->secret->len);
		free(s->secret);
	}
	s->secret = NULL;
}

static int ask_secret(sasl_conn_t *conn, void *context, int id, sasl_secret_t **secret)
{
	struct rpc_sasl *s = context;
	char *answer = s->ask ? s->ask(s->opaque, SASL_ASK_PASSWORD, "Password") : NULL;
	size_t len = answer ? strlen(answer) : 0;

	forget(s);
	if (answer)
		s->secret = malloc(sizeof(*s->secret) + len);
	if (s->secret) {
		s->secret->len = len;
		memcpy(s->secret->data, answer, len + 1);
	}
	if (answer)
		explicit_bzero(answer, len);
	free(answer);
	*secret = s->secret;
	return s->secret ? SASL_OK : SASL_FAIL;
}

static pthread_once_t client_once = PTHREAD_ONCE_INIT;
static int client_ret;

static void client_init(void)
{
	client_ret = sasl_client_init(NULL);
}

struct rpc_sasl *rpc_sasl_client(const char *host, const char *local, const char *remote, unsigned flags, rpc_sasl_ask ask,
				 void *opaque, struct err *err)
{
	typedef int (*callback)(void);
	struct rpc_sasl *s = calloc(1, sizeof(*s));
	int ret;

	if (!s) {
		err_set(err, ENOMEM, "no memory for SASL");
		return NULL;
	}
	s->ask = ask;
	s->opaque = opaque;
	s->callbacks[0] = (sasl_callback_t){ SASL_CB_USER, (callback)(void (*)(void))ask_name, s };
	s->callbacks[1] = (sasl_callback_t){ SASL_CB_AUTHNAME, (callback)(void (*)(void))ask_name, s };
	s->callbacks[2] = (sasl_callback_t){ SASL_CB_PASS, (callback)(void (*)(void))ask_secret, s };
	s->callbacks[3] = (sasl_callback_t){ SASL_CB_LIST_END, NULL, NULL };
	pthread_once(&client_once, client_init);
	ret = client_ret;
	if (ret == SASL_OK)
		ret = sasl_client_new(SERVICE, host, local, remote, s->callbacks, SASL_SUCCESS_DATA, &s->conn);
	if (ret != SASL_OK)
		fail(s, ret, err);
	if (ret != SASL_OK || secure(s, flags, err)) {
		rpc_sasl_free(s);
		return NULL;
	}
	return s;
}

void rpc_sasl_free(struct rpc_sasl *s)
{
	if (!s)
		return;
	if (s->conn)
		sasl_dispose(&s->conn);
	forget(s);
	free(s->answer);
	free(s);
}

/* ---- The exchange ---------------------------------------------------------- */

const char *rpc_sasl_mechanisms(struct rpc_sasl *s, struct err *err)
{
	const char *list = NULL;
	int n = 0, ret = sasl_listmech(s->conn, NULL, "", ",", "", &list, NULL, &n);

	if (ret != SASL_OK || !n) {
		err_set(err, EACCES, "SASL: no mechanism can be used here; see libsasl2-modules and mech_list");
		return NULL;
	}
	return list;
}

static int step_result(struct rpc_sasl *s, int ret, struct err *err)
{
	if (ret == SASL_OK)
		return 1;
	return ret == SASL_CONTINUE ? 0 : fail(s, ret, err);
}

int rpc_sasl_server_start(struct rpc_sasl *s, const char *mech, const char *in, size_t len, const char **out, size_t *out_len,
			  struct err *err)
{
	unsigned n = 0;
	int ret = sasl_server_start(s->conn, mech, in, (unsigned)len, out, &n);

	*out_len = n;
	return step_result(s, ret, err);
}

int rpc_sasl_server_step(struct rpc_sasl *s, const char *in, size_t len, const char **out, size_t *out_len, struct err *err)
{
	unsigned n = 0;
	int ret = sasl_server_step(s->conn, in, (unsigned)len, out, &n);

	*out_len = n;
	return step_result(s, ret, err);
}

int rpc_sasl_client_start(struct rpc_sasl *s, const char *mechs, const char **mech, const char **out, size_t *out_len,
			  struct err *err)
{
	unsigned n = 0;
	int ret = sasl_client_start(s->conn, mechs, NULL, out, &n, mech);

	*out_len = n;
	return step_result(s, ret, err);
}

int rpc_sasl_client_step(struct rpc_sasl *s, const char *in, size_t len, const char **out, size_t *out_len, struct err *err)
{
	unsigned n = 0;
	int ret = sasl_client_step(s->conn, in, (unsigned)len, NULL, out, &n);

	*out_len = n;
	return step_result(s, ret, err);
}

static unsigned strength(struct rpc_sasl *s)
{
	const void *value = NULL;

	return sasl_getprop(s->conn, SASL_SSF, &value) == SASL_OK && value ? *(const sasl_ssf_t *)value : 0;
}

int rpc_sasl_check(struct rpc_sasl *s, struct err *err)
{
	if (s->is_protected || strength(s) >= SSF_LEAST)
		return 0;
	return err_set(err, EACCES, "SASL: what is agreed on protects with %u bits only, on a connection that nothing else protects",
		       strength(s));
}

const char *rpc_sasl_user(struct rpc_sasl *s)
{
	const void *name = NULL;

	return sasl_getprop(s->conn, SASL_USERNAME, &name) == SASL_OK ? name : NULL;
}

/* ---- The layer ------------------------------------------------------------- */

struct sasl_layer {
	struct rpc_layer layer;
	struct rpc_sasl *sasl;
	int fd;
	unsigned max_out;
	const char *in; /* decoded, the library's */
	unsigned in_len;
	const char *out; /* encoded, the library's; stands for out_plain bytes */
	unsigned out_len;
	size_t out_plain;
};

static ssize_t layer_recv(struct rpc_layer *l, void *data, size_t len)
{
	struct sasl_layer *s = (struct sasl_layer *)l;
	char raw[16384];

	while (!s->in_len) {
		ssize_t n = recv(s->fd, raw, sizeof(raw), MSG_DONTWAIT);

		if (n <= 0)
			return n < 0 ? errno == EINTR ? -EAGAIN : -errno : 0;
		if (sasl_decode(s->sasl->conn, raw, (unsigned)n, &s->in, &s->in_len) != SASL_OK)
			return -EPROTO;
	}
	if (len > s->in_len)
		len = s->in_len;
	memcpy(data, s->in, len);
	s->in += len;
	s->in_len -= (unsigned)len;
	return (ssize_t)len;
}

static ssize_t layer_send(struct rpc_layer *l, const void *data, size_t len)
{
	struct sasl_layer *s = (struct sasl_layer *)l;

	if (!s->out_len) {
		s->out_plain = len < s->max_out ? len : s->max_out;
		if (sasl_encode(s->sasl->conn, data, (unsigned)s->out_plain, &s->out, &s->out_len) != SASL_OK)
			return -EPROTO;
	}
	while (s->out_len) {
		ssize_t n = send(s->fd, s->out, s->out_len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		s->out += n;
		s->out_len -= (unsigned)n;
	}
	return (ssize_t)s->out_plain;
}

static bool layer_pending(const struct rpc_layer *l)
{
	return ((const struct sasl_layer *)l)->in_len;
}

static void layer_free(struct rpc_layer *l)
{
	struct sasl_layer *s = (struct sasl_layer *)l;

	rpc_sasl_free(s->sasl);
	free(s);
}

struct rpc_layer *rpc_sasl_layer(struct rpc_sasl *sasl, int fd)
{
	static const struct rpc_layer_ops ops = {
		.recv = layer_recv, .send = layer_send, .pending = layer_pending, .free = layer_free
	};
	const void *max = NULL;
	struct sasl_layer *s;

	if (sasl->is_protected || !strength(sasl))
		return NULL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->layer.ops = &ops;
	s->sasl = sasl;
	s->fd = fd;
	s->max_out = sasl_getprop(sasl->conn, SASL_MAXOUTBUF, &max) == SASL_OK && max && *(const unsigned *)max ?
			     *(const unsigned *)max : 4096;
	return &s->layer;
}
