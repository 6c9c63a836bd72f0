/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disks that a server on the network has, by its URI:
 *
 *   nbd://HOST[:PORT]/[EXPORT], nbd+unix:///[EXPORT]?socket=PATH   NBD
 *   nbds://…, nbds+unix://…[?tls-certificates=DIR]                 with TLS
 *
 * Synchronous and thread-safe. Offsets and lengths are bytes within the disk.
 * Functions return 0 or a negative errno and a sentence that names the disk.
 * After a connection broke all requests fail.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/err.h"

struct remote;

bool remote_is_uri(const char *path);
/* Up to so many connections, as far as the server takes more than one. */
struct remote *remote_open(const char *uri, bool readonly, unsigned connections, struct err *err);
void remote_close(struct remote *r); /* NULL is allowed */
uint64_t remote_size(const struct remote *r);

int remote_read(struct remote *r, uint64_t offset, void *buf, size_t len, struct err *err);
int remote_write(struct remote *r, uint64_t offset, const void *buf, size_t len, bool fua, struct err *err);
int remote_zero(struct remote *r, uint64_t offset, uint64_t len, bool unmap, struct err *err);
int remote_discard(struct remote *r, uint64_t offset, uint64_t len, struct err *err); /* a hint: may do nothing */
int remote_flush(struct remote *r, struct err *err);
/* What lies at offset, and how many of the len bytes from there are the same. Unknown: data. */
int remote_map(struct remote *r, uint64_t offset, uint64_t len, bool *data, bool *zero, uint64_t *same,
	       struct err *err);
