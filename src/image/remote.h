/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disks that are reached by calls instead of a file's descriptor. Those that a
 * server has, by name:
 *
 *   nbd://HOST[:PORT]/[EXPORT], nbd+unix:///[EXPORT]?socket=PATH   NBD
 *   nbds://…, nbds+unix://…[?tls-certificates=DIR]                 with TLS
 *   iscsi://[USER@]HOST[:PORT]/TARGET[/LUN][?...]                  iSCSI: iscsi.c tells
 *   rbd:POOL[/NAMESPACE]/IMAGE[@SNAPSHOT][:...]                    Ceph: rbd.c tells
 *
 * and those in a LUKS header's care (luks.h).
 *
 * Synchronous and thread-safe. Offsets and lengths are bytes within the disk.
 * Functions return 0 or a negative errno and a sentence that names the disk.
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
int remote_create(const char *uri, uint64_t size, struct err *err); /* a disk of zeroes, where Keel may make one */
void remote_close(struct remote *r); /* NULL is allowed */
uint64_t remote_size(const struct remote *r);
bool remote_can_resize(const struct remote *r);
int remote_resize(struct remote *r, uint64_t size, struct err *err); /* -ENOTSUP where others decide on it */
int remote_refresh(struct remote *r, struct err *err);		     /* look whether they did */

int remote_read(struct remote *r, uint64_t offset, void *buf, size_t len, struct err *err);
int remote_write(struct remote *r, uint64_t offset, const void *buf, size_t len, bool fua, struct err *err);
int remote_zero(struct remote *r, uint64_t offset, uint64_t len, bool unmap, struct err *err);
int remote_discard(struct remote *r, uint64_t offset, uint64_t len, struct err *err); /* a hint: may do nothing */
int remote_flush(struct remote *r, struct err *err);
/* What lies at offset, and how many of the len bytes from there are the same. Unknown: data. */
int remote_map(struct remote *r, uint64_t offset, uint64_t len, bool *data, bool *zero, uint64_t *same,
	       struct err *err);
