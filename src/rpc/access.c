/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "rpc/access.h"

#include <string.h>

#include "rpc/wire.h"

static bool applies(const struct rpc_rule *r, const void *args)
{
	uint32_t v;

	if (r->when == RPC_WHEN_ALWAYS)
		return true;
	memcpy(&v, (const uint8_t *)args + r->offset, sizeof(v));
	switch (r->when) {
	case RPC_WHEN_ANY:
		return v & r->value;
	case RPC_WHEN_NONE:
		return !(v & r->value);
	default:
		return v == r->value;
	}
}

static bool only_looks(const char *permission)
{
	return !strcmp(permission, "getattr") || !strcmp(permission, "read") || !strncmp(permission, "search_", 7);
}

bool rpc_access_readonly(const struct rpc_proc *proc, const void *args)
{
	/* libvirt's rules ask only domain:read for it, but its library refuses it on a read-only connection. */
	if (proc->program == &remote_program && proc->number == REMOTE_PROC_DOMAIN_SET_SCHEDULER_PARAMETERS)
		return false;
	for (unsigned n = 0; n < proc->nrules; n++)
		if (applies(&proc->rules[n], args) && !only_looks(proc->rules[n].permission))
			return false;
	return true;
}
