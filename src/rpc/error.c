/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* libvirt's words for its codes; clients show and match them. A NULL form is the bare text. */
static const struct {
	int32_t code;
	const char *form;
} forms[] = {
	{ VIR_ERR_INTERNAL_ERROR, "internal error: %s" },
	{ VIR_ERR_NO_MEMORY, "out of memory: %s" },
	{ VIR_ERR_NO_SUPPORT, "this function is not supported by the connection driver: %s" },
	{ VIR_ERR_NO_CONNECT, "no connection driver available for %s" },
	{ VIR_ERR_INVALID_ARG, "invalid argument: %s" },
	{ VIR_ERR_OPERATION_FAILED, "operation failed: %s" },
	{ VIR_ERR_XML_ERROR, "XML error: %s" },
	{ VIR_ERR_DOM_EXIST, "domain %s exists already" },
	{ VIR_ERR_OPERATION_DENIED, "operation forbidden: %s" },
	{ VIR_ERR_XML_DETAIL, "%s" },
	{ VIR_ERR_SYSTEM_ERROR, "%s" },
	{ VIR_ERR_RPC, "%s" },
	{ VIR_ERR_NO_DOMAIN, "Domain not found: %s" },
	{ VIR_ERR_NO_NETWORK, "Network not found: %s" },
	{ VIR_ERR_NO_STORAGE_POOL, "Storage pool not found: %s" },
	{ VIR_ERR_NO_STORAGE_VOL, "Storage volume not found: %s" },
	{ VIR_ERR_NO_NODE_DEVICE, "Node device not found: %s" },
	{ VIR_ERR_NO_INTERFACE, "Interface not found: %s" },
	{ VIR_ERR_NO_NWFILTER, "Network filter not found: %s" },
	{ VIR_ERR_NO_SECRET, "Secret not found: %s" },
	{ VIR_ERR_CONFIG_UNSUPPORTED, "unsupported configuration: %s" },
	{ VIR_ERR_OPERATION_TIMEOUT, "Timed out during operation: %s" },
	{ VIR_ERR_HOOK_SCRIPT_FAILED, "Hook script execution failed: %s" },
	{ VIR_ERR_NO_DOMAIN_SNAPSHOT, "Domain snapshot not found: %s" },
	{ VIR_ERR_ARGUMENT_UNSUPPORTED, "argument unsupported: %s" },
	{ VIR_ERR_OPERATION_ABORTED, "operation aborted: %s" },
	{ VIR_ERR_NO_DOMAIN_METADATA, "metadata not found: %s" },
	{ VIR_ERR_OVERFLOW, "numerical overflow: %s" },
	{ VIR_ERR_OPERATION_UNSUPPORTED, "Operation not supported: %s" },
	{ VIR_ERR_AGENT_UNRESPONSIVE, "Guest agent is not responding: %s" },
	{ VIR_ERR_RESOURCE_BUSY, "resource busy: %s" },
	{ VIR_ERR_AUTH_FAILED, "authentication failed: %s" },
	{ VIR_ERR_ACCESS_DENIED, "access denied: %s" },
	{ VIR_ERR_CPU_INCOMPATIBLE, "the CPU is incompatible with host CPU: %s" },
	{ VIR_ERR_XML_INVALID_SCHEMA, "XML document failed to validate against schema: %s" },
	{ VIR_ERR_DEVICE_MISSING, "device not found: %s" },
	{ VIR_ERR_NO_DOMAIN_CHECKPOINT, "Domain checkpoint not found: %s" },
	{ VIR_ERR_OPERATION_INVALID, "Requested operation is not valid: %s" },
};

static const char *form_of(int32_t code)
{
	for (unsigned n = 0; n < sizeof(forms) / sizeof(forms[0]); n++)
		if (forms[n].code == code)
			return forms[n].form;
	return "%s";
}

int rpc_error_set(struct rpc_error *e, enum vir_domain domain, enum vir_code code, const char *fmt, ...)
{
	const char *form = form_of((int32_t)code), *at = strstr(form, "%s");
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(e->detail, sizeof(e->detail), fmt, ap);
	va_end(ap);
	snprintf(e->message, sizeof(e->message), "%.*s%s%s", (int)(at - form), form, e->detail, at + 2);
	e->code = (int32_t)code;
	e->domain = (int32_t)domain;
	return -1;
}

/* As libvirt reports: str1 is the form, str2 the text put into it. */
struct remote_error rpc_error_to_wire(const struct rpc_error *e)
{
	return (struct remote_error){
		.code = e->code,
		.domain = e->domain,
		.message = (char *)e->message,
		.level = VIR_LEVEL_ERROR,
		.str1 = (char *)form_of(e->code),
		.str2 = (char *)e->detail,
		.int1 = -1,
		.int2 = -1,
	};
}

void rpc_error_from_wire(struct rpc_error *e, const struct remote_error *w)
{
	e->code = w->code;
	e->domain = w->domain;
	snprintf(e->message, sizeof(e->message), "%s", w->message ? w->message : "unknown error");
	snprintf(e->detail, sizeof(e->detail), "%s", w->str2 ? w->str2 : "");
}
