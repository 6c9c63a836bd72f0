/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Connections between hosts. */
#pragma once
#include "rpc/client.h"
#include "rpc/tls.h"

#define RPC_TLS_PORT 16514u
#define RPC_TCP_PORT 16509u

/*
 * A listening, non-blocking socket at `where`: "PORT", "ADDRESS:PORT",
 * "[ADDRESS]:PORT" or "ADDRESS:"; without an address, of all. `option` begins
 * messages. The descriptor, or a negative errno.
 */
int rpc_tcp_listen(const char *where, unsigned default_port, const char *option, struct err *err);

/* Connect; with TLS if `tls` is not NULL, which the session takes, also on failure. Waits for the handshake. NULL on failure. */
struct rpc_session *rpc_tcp_open(const char *host, unsigned port, struct rpc_tls *tls, const struct rpc_session_ops *ops,
				 void *opaque, struct err *err);
