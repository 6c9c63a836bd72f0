/* SPDX-License-Identifier: GPL-2.0-or-later */
/* keeld: one root directory, its sockets, and the clients on them. */
#pragma once
#include <stdbool.h>

#include "rpc/server.h"
#include "rpc/wire.h"
#include "util/err.h"
#include "util/loop.h"

/* What clients are told. They switch features on by these numbers: libvirt-clients.md names the least ones. */
#define DAEMON_HV_VERSION 7002000u  /* QEMU's */
#define DAEMON_LIB_VERSION 9000000u /* libvirt's, whose behaviour this is */

struct daemon {
	struct loop *loop;
	struct rpc_server *server;
	int lock_fd;
	bool privileged; /* qemu:///system, else qemu:///session */
};

/* A client of the daemon: rpc_client_data(). */
struct session {
	bool open; /* CONNECT_OPEN was answered */
	bool close_callback;
};

/* Serve DIR/run/libvirt-sock and DIR/run/libvirt-sock-ro. 0 or a negative errno; daemon_free() in any case. */
int daemon_start(struct daemon *d, const char *root, struct err *err);
void daemon_free(struct daemon *d);

struct binding {
	uint32_t number; /* of the program remote */
	rpc_handler fn;
};
/* Each ends with a NULL handler. */
extern const struct binding connect_bindings[], domain_bindings[];
/* The server's admit callback: what a client may ask before it has opened the connection. */
int connect_admit(struct rpc_call *call);

static inline struct daemon *call_daemon(const struct rpc_call *call)
{
	return rpc_server_opaque(rpc_client_server(call->client));
}

/* Refuse flags that aren't known, in libvirt's words. 0, or -1 with the error set. */
int call_check_flags(struct rpc_call *call, uint32_t flags, uint32_t known);
