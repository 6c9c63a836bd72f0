/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Passwords and keys by name, as QEMU's "secret" objects are: one table a
 * process. They come from files, descriptors or a control socket, never from a
 * command line, and their memory is wiped when they go. Any thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "util/err.h"

#define SECRET_MAX 65536u /* bytes */

/* The bytes as they are, or what they say in base64. -EEXIST, -EINVAL. */
int secret_add(const char *id, const void *data, size_t len, bool base64, struct err *err);
/* The file's bytes, also a trailing newline. */
int secret_add_file(const char *id, const char *path, bool base64, struct err *err);
int secret_add_fd(const char *id, int fd, const char *name, bool base64, struct err *err); /* fd stays the caller's */
int secret_del(const char *id, struct err *err); /* -ENOENT; copies that were given out stay */
/* A copy with a zero byte behind it, for secret_wipe(); NULL and err. */
void *secret_get(const char *id, size_t *len, struct err *err);
void secret_wipe(void *data, size_t len); /* and free; NULL is allowed */
