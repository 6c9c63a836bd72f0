/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Unix sockets by path. */
#pragma once
#include "util/err.h"

/*
 * A listening, non-blocking, close-on-exec stream socket at `path`, mode 0600.
 * A dead socket in the way is replaced; a live one, or anything that is not a
 * socket, is an error. `what` begins the message ("--qmp"). The descriptor, or
 * a negative errno.
 */
int unix_listen(const char *path, const char *what, struct err *err);
