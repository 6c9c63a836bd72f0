/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/conn.h"

int error_from(struct keel_error *error, const struct rpc_error *e)
{
	if (!error)
		return -1;
	error->code = e->code;
	error->domain = e->domain;
	snprintf(error->message, sizeof(error->message), "%s", e->message);
	return -1;
}

int error_set(struct keel_error *error, enum vir_domain domain, enum vir_code code, const char *fmt, ...)
{
	struct rpc_error e = { 0 };
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	rpc_error_set(&e, domain, code, "%s", text);
	return error_from(error, &e);
}

int error_no_memory(struct keel_error *error)
{
	return error_set(error, VIR_FROM_NONE, VIR_ERR_NO_MEMORY, "libkeel");
}

void keel_free(void *p)
{
	free(p);
}

const char *keel_version(void)
{
	return KEEL_VERSION;
}
