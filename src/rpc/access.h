/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who may call what: the one place where procedures' access rules are applied.
 *
 * A procedure asks for permissions on an object, as domain:start; a file says
 * who has them (docs/access.md). Without a file everybody who is let in has
 * all.
 */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

#include "rpc/codec.h"
#include "rpc/error.h"
#include "rpc/server.h"

/*
 * May a read-only connection make this call? It may look and search; what
 * changes anything, wakes a guest's agent or shows secrets is refused. `args`
 * is the decoded record, since some rules hang on its flags.
 */
bool rpc_access_readonly(const struct rpc_proc *proc, const void *args);

struct rpc_access;

/* NULL on failure: a line that cannot be understood is named. */
struct rpc_access *rpc_access_load(const char *path, struct err *err);
void rpc_access_free(struct rpc_access *a); /* NULL is allowed */

struct rpc_who {
	enum rpc_transport transport;
	uid_t uid; /* (uid_t)-1: not known, as the groups */
	gid_t gid;
	const gid_t *groups;
	unsigned ngroups;
	const char *dn, *sasl; /* or NULL */
};

/* `name` is the object's, or NULL if it is not known: then no rule for names permits, and each of them forbids. */
bool rpc_access_may(const struct rpc_access *a, const struct rpc_who *who, const char *object, const char *permission,
		    const char *name);

/* Find the true name of what a call is about: an `object` as the arguments have it, or the XML of a new one. NULL: no such. */
struct rpc_access_names {
	const char *(*name)(struct rpc_call *call, const char *object, const void *wire);
	const char *(*xml_name)(struct rpc_call *call, const char *object, const char *xml);
};

/* Before the handler, and after it: look-ups show what they are about in their result only. 0, or -1 with the error set. */
int rpc_access_check(const struct rpc_access *a, const struct rpc_who *who, const struct rpc_access_names *names,
		     struct rpc_call *call);
int rpc_access_check_result(const struct rpc_access *a, const struct rpc_who *who, struct rpc_call *call);
/* May this event, of which `msg` is the record, be seen? */
bool rpc_access_event(const struct rpc_access *a, const struct rpc_who *who, const struct rpc_proc *proc, const void *msg);
