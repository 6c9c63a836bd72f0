/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libvirt's connection URIs: DRIVER[+TRANSPORT]://[USER@][HOST][:PORT]/PATH[?KEY=VALUE[&...]]. */
#pragma once
#include <stdbool.h>

#include "util/err.h"

enum uri_transport { URI_UNIX, URI_TLS, URI_TCP };

struct uri {
	enum uri_transport transport;
	char *host, *user;	  /* NULL: none */
	unsigned port;		  /* 0: the transport's own */
	char *path;		  /* "system" or "session" */
	char *socket, *pkipath;	  /* NULL: not said */
	bool no_verify;
	char *remote; /* what the daemon is asked to open: qemu:///PATH */
};

/* 0 or a negative errno; uri_free() in any case. */
int uri_parse(struct uri *u, const char *text, struct err *err);
void uri_free(struct uri *u);
