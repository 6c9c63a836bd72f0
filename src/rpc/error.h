/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Errors as the peer sees them: libvirt's codes, domains and layout (remote_error). */
#pragma once
#include <stdint.h>

#include "rpc/wire.h"

/* virErrorNumber, as far as used. */
enum vir_code {
	VIR_ERR_OK = 0,
	VIR_ERR_INTERNAL_ERROR = 1,
	VIR_ERR_NO_MEMORY = 2,
	VIR_ERR_NO_SUPPORT = 3,
	VIR_ERR_NO_CONNECT = 5,
	VIR_ERR_INVALID_ARG = 8,
	VIR_ERR_OPERATION_FAILED = 9,
	VIR_ERR_XML_ERROR = 27,
	VIR_ERR_DOM_EXIST = 28,
	VIR_ERR_OPERATION_DENIED = 29,
	VIR_ERR_XML_DETAIL = 35,
	VIR_ERR_SYSTEM_ERROR = 38,
	VIR_ERR_RPC = 39,
	VIR_ERR_NO_DOMAIN = 42,
	VIR_ERR_NO_NETWORK = 43,
	VIR_ERR_AUTH_FAILED = 45,
	VIR_ERR_NO_STORAGE_POOL = 49,
	VIR_ERR_NO_STORAGE_VOL = 50,
	VIR_ERR_NO_NODE_DEVICE = 53,
	VIR_ERR_OPERATION_INVALID = 55,
	VIR_ERR_NO_INTERFACE = 57,
	VIR_ERR_NO_NWFILTER = 62,
	VIR_ERR_NO_SECRET = 66,
	VIR_ERR_CONFIG_UNSUPPORTED = 67,
	VIR_ERR_OPERATION_TIMEOUT = 68,
	VIR_ERR_HOOK_SCRIPT_FAILED = 70,
	VIR_ERR_NO_DOMAIN_SNAPSHOT = 72,
	VIR_ERR_ARGUMENT_UNSUPPORTED = 74,
	VIR_ERR_OPERATION_ABORTED = 78,
	VIR_ERR_NO_DOMAIN_METADATA = 80,
	VIR_ERR_OVERFLOW = 82,
	VIR_ERR_BLOCK_COPY_ACTIVE = 83,
	VIR_ERR_OPERATION_UNSUPPORTED = 84,
	VIR_ERR_AGENT_UNRESPONSIVE = 86,
	VIR_ERR_RESOURCE_BUSY = 87,
	VIR_ERR_ACCESS_DENIED = 88,
	VIR_ERR_CPU_INCOMPATIBLE = 91,
	VIR_ERR_XML_INVALID_SCHEMA = 92,
	VIR_ERR_DEVICE_MISSING = 99,
	VIR_ERR_NO_DOMAIN_CHECKPOINT = 103,
};

/* virErrorDomain: who says so. */
enum vir_domain {
	VIR_FROM_NONE = 0,
	VIR_FROM_XML = 5,
	VIR_FROM_RPC = 7,
	VIR_FROM_QEMU = 10,
	VIR_FROM_REMOTE = 13,
	VIR_FROM_STORAGE = 18,
	VIR_FROM_NETWORK = 19,
	VIR_FROM_DOMAIN = 20,
	VIR_FROM_NODEDEV = 22,
	VIR_FROM_INTERFACE = 26,
	VIR_FROM_SECRET = 30,
	VIR_FROM_CPU = 31,
	VIR_FROM_NWFILTER = 33,
	VIR_FROM_HOOK = 34,
	VIR_FROM_DOMAIN_SNAPSHOT = 35,
	VIR_FROM_STREAMS = 38,
	VIR_FROM_AUTH = 46,
	VIR_FROM_ACCESS = 55,
};

#define VIR_LEVEL_ERROR 2 /* virErrorLevel VIR_ERR_ERROR */

struct rpc_error {
	int32_t code; /* enum vir_code; 0: no error */
	int32_t domain;
	char message[1152]; /* complete, as people read it */
	char detail[1024];  /* the message without the code's own words */
};

/* Record a failure. The code's own words, "operation failed: " and so on, are put in front of the text. Returns -1. */
int rpc_error_set(struct rpc_error *e, enum vir_domain domain, enum vir_code code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* The error as it goes on the wire; its strings point into `e` and constants. */
struct remote_error rpc_error_to_wire(const struct rpc_error *e);
void rpc_error_from_wire(struct rpc_error *e, const struct remote_error *w);
