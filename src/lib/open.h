/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From a URI to a connected session: which socket, which certificates. */
#pragma once
#include "lib/uri.h"
#include "rpc/client.h"

/* Static, or of the environment. */
const char *open_default_uri(void);
/* NULL on failure. */
struct rpc_session *open_session(const struct uri *u, unsigned flags, const struct rpc_session_ops *ops, void *opaque,
				 struct err *err);
