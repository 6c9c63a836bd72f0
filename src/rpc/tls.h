/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * TLS as libvirt's: both ends show certificates of one authority, by GnuTLS;
 * after the handshake the server sends one byte, 1, to say that it takes the
 * client's.
 */
#pragma once
#include <stdbool.h>

#include "rpc/conn.h"
#include "util/err.h"

/* Credentials, of one end. Shared by its connections, which have to go first. */
struct rpc_tls;

/* Paths of PEM files. */
struct rpc_tls_files {
	const char *ca, *cert, *key;
	const char *crl; /* NULL, or a file that does not exist: nothing is revoked */
};

enum {
	RPC_TLS_SERVER = 1 << 0,
	RPC_TLS_NO_VERIFY = 1 << 1, /* take any certificate of the peer, or none */
};

/* NULL on failure: a file that is missing, is no certificate, or is not ours. */
struct rpc_tls *rpc_tls_new(const struct rpc_tls_files *files, unsigned flags, struct err *err);
void rpc_tls_free(struct rpc_tls *tls); /* NULL is allowed */

/* Over a connected, non-blocking socket, which stays the caller's. `host` is the server's name; clients only. */
struct rpc_layer *rpc_tls_layer(struct rpc_tls *tls, int fd, const char *host, struct err *err);

enum { RPC_TLS_DONE, RPC_TLS_READ, RPC_TLS_WRITE };
/* Go on with the handshake: done, or what it waits for, or a negative errno. Ends with the check of the peer's certificate. */
int rpc_tls_handshake(struct rpc_layer *layer, struct err *err);
/* The peer's name, as "CN=...,O=...", once the handshake is done; "" if it has none. As long as the layer. */
const char *rpc_tls_peer(const struct rpc_layer *layer);
