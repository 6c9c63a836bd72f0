/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SASL by Cyrus libsasl2, both ends: an exchange, and afterwards, where TLS
 * does not protect the connection, a layer that does.
 */
#pragma once
#include <stdbool.h>

#include "rpc/conn.h"
#include "util/err.h"

struct rpc_sasl;

/* Once a process, before the first of each kind; `config` is a directory with keel.conf, or NULL for the system's. */
int rpc_sasl_server_init(const char *config, struct err *err);

enum {
	RPC_SASL_PROTECTED = 1 << 0, /* TLS protects the connection, or it does not leave the host: none of SASL's is needed */
};

/* Addresses are of the form "ADDRESS;PORT", or NULL. NULL on failure. */
struct rpc_sasl *rpc_sasl_server(const char *local, const char *remote, unsigned flags, struct err *err);

enum { SASL_ASK_USER = 1, SASL_ASK_PASSWORD = 2 };
/* A malloced answer, or NULL. */
typedef char *(*rpc_sasl_ask)(void *opaque, int what, const char *prompt);
struct rpc_sasl *rpc_sasl_client(const char *host, const char *local, const char *remote, unsigned flags, rpc_sasl_ask ask,
				 void *opaque, struct err *err);
void rpc_sasl_free(struct rpc_sasl *s); /* NULL is allowed */

/* The server's mechanisms, by commas. Static until the next call. NULL: none can be used. */
const char *rpc_sasl_mechanisms(struct rpc_sasl *s, struct err *err);

/*
 * One step. `in` may be NULL for none; *out is NULL or `out_len` bytes that
 * live until the next call. 1: complete; 0: more is to come; a negative errno.
 */
int rpc_sasl_server_start(struct rpc_sasl *s, const char *mech, const char *in, size_t len, const char **out, size_t *out_len,
			  struct err *err);
int rpc_sasl_server_step(struct rpc_sasl *s, const char *in, size_t len, const char **out, size_t *out_len, struct err *err);
int rpc_sasl_client_start(struct rpc_sasl *s, const char *mechs, const char **mech, const char **out, size_t *out_len,
			  struct err *err);
int rpc_sasl_client_step(struct rpc_sasl *s, const char *in, size_t len, const char **out, size_t *out_len, struct err *err);

/* After it is complete: is what is agreed on strong enough for where it is used? 0 or -EACCES. */
int rpc_sasl_check(struct rpc_sasl *s, struct err *err);
/* Who the client is. As long as `s`. NULL: nobody. */
const char *rpc_sasl_user(struct rpc_sasl *s);
/* The layer that was agreed on, over the socket `fd`; it takes `s`. NULL: none was, and `s` stays. */
struct rpc_layer *rpc_sasl_layer(struct rpc_sasl *s, int fd);
