/* SPDX-License-Identifier: GPL-2.0-or-later */
/* keeld: one root directory, its sockets, and the clients on them. */
#pragma once
#include <stdbool.h>

#include "daemon/cgroup.h"
#include "model/domain.h"
#include "rpc/server.h"
#include "rpc/wire.h"
#include "util/err.h"
#include "util/loop.h"

/* What clients are told. They switch features on by these numbers: libvirt-clients.md names the least ones. */
#define DAEMON_HV_VERSION 7002000u  /* QEMU's */
#define DAEMON_LIB_VERSION 9000000u /* libvirt's, whose behaviour this is */

struct guest;
struct guest_table {
	struct guest **by_name, **by_uuid;
	unsigned buckets, count; /* a power of two */
	int last_id;
	struct guest *newest, *oldest; /* of those whose definition is not packed */
	unsigned unpacked;
};

/* Names with shell wildcards. */
struct daemon_patterns {
	const char **list;
	unsigned n; /* 0: everybody */
};

/* What the command line says; has to outlive the daemon. */
struct daemon_options {
	const char *root;
	const char *listen_tls, *listen_tcp; /* NULL: don't */
	const char *pki;		     /* NULL: ROOT/etc/pki */
	bool tls_sasl;			     /* besides the certificate */
	bool tcp_anybody;		     /* no authentication */
	struct daemon_patterns dns, users;   /* of certificates, of SASL */
	const char *access;		     /* file of rules; NULL: ROOT/etc/access.conf if it is there */
	bool sandbox_off;		     /* guests run with all of keeld's rights */
};

/* What keeld can put guests into (confine.h), found out once. */
struct confine {
	bool off;	     /* --sandbox off */
	bool namespaces;     /* mount, PID, IPC, UTS, network */
	bool user_namespace; /* these need one of those first */
	enum { LSM_NONE, LSM_SELINUX, LSM_APPARMOR } lsm;
};

struct daemon {
	const struct daemon_options *options;
	struct rpc_tls *tls;
	struct loop *loop;
	struct rpc_server *server;
	int lock_fd;
	bool privileged; /* qemu:///system, else qemu:///session */
	char *root;	 /* absolute */
	char *vmm;	 /* path of keel-vmm */
	int config_dir, autostart_dir, run_dir, log_dir, storage_dir;
	struct pool *pools;
	struct guest_table guests;
	struct hook *hooks; /* that run or wait (guest_hooks.c) */
	struct confine confine;
	struct cgroups cgroups;
	struct domain_caps caps;
	struct host_caps *host; /* or NULL: nobody has asked yet */
	struct session *sessions;
	int last_callback;
};

/* A client of the daemon: rpc_client_data(). */
struct session {
	bool authenticated;
	bool open; /* CONNECT_OPEN was answered */
	struct rpc_sasl *sasl; /* an exchange under way */
	bool close_callback;
	struct rpc_client *client;
	uint64_t events; /* those asked for by number alone, in the old way */
	struct event_callback *callbacks;
	struct session *next;
};

/* Serve ROOT/run/libvirt-sock and ROOT/run/libvirt-sock-ro, and what else is asked for. 0 or a negative errno; daemon_free() in any case. */
int daemon_start(struct daemon *d, const struct daemon_options *o, struct err *err);
void daemon_free(struct daemon *d);

struct binding {
	uint32_t number; /* of the program remote */
	rpc_handler fn;
};
/* Each ends with a NULL handler. */
extern const struct binding auth_bindings[], connect_bindings[], domain_list_bindings[], lifecycle_bindings[], stats_bindings[],
	event_bindings[], node_bindings[], host_bindings[], empty_bindings[], pool_bindings[], save_bindings[];
void events_bind(struct rpc_server *s);
/* A client's registrations go with it, and the guests that it wanted to take along. */
void events_forget(struct session *s);
void lifecycle_client_gone(struct daemon *d, struct rpc_client *client);
/* Start those that are to start with the daemon. */
void lifecycle_autostart(struct daemon *d);
/* What this host can do (host.c): fills d->caps and d->vmm. */
int host_init(struct daemon *d, struct err *err);
void host_free(struct daemon *d);
int pools_load(struct daemon *d, struct err *err);
void pools_free(struct daemon *d);
/* The name of a pool, as long as it lives. NULL: there is none. */
const char *pools_name(const struct daemon *d, const uint8_t uuid[16]);
/* As libvirt counts: packages, cores of each, threads of each. */
void node_topology(unsigned *sockets, unsigned *cores, unsigned *threads);
/* Read the access rules, or read them anew; on failure the old ones stay. 0 or a negative errno (access.c). */
int access_load(struct daemon *d, struct err *err);
/* Open all sockets (listen.c). */
int listen_all(struct daemon *d, struct err *err);
/* A client comes and goes (auth.c); and the server's known callback. */
void auth_begin(struct session *s);
void auth_end(struct session *s);
bool auth_known(struct rpc_client *c);
/* The server's admit callback: what a client may ask before it has opened the connection. */
int connect_admit(struct rpc_call *call);

static inline struct daemon *call_daemon(const struct rpc_call *call)
{
	return rpc_server_opaque(rpc_client_server(call->client));
}

/* Refuse flags that aren't known, in libvirt's words. 0, or -1 with the error set. */
int call_check_flags(struct rpc_call *call, uint32_t flags, uint32_t known);
