/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For those who serve disks by calls: one table and one struct a kind, which begins with struct remote. */
#pragma once
#include "image/remote.h"

struct remote_ops {
	const char *const *schemes; /* what names begin with; ends with NULL */
	struct remote *(*open)(const char *uri, bool readonly, unsigned connections, struct err *err);
	/* Make a disk; NULL: somebody else does */
	int (*create)(const char *uri, uint64_t size, struct err *err);
	void (*close)(struct remote *r);
	int (*read)(struct remote *r, uint64_t offset, void *buf, size_t len, struct err *err);
	int (*write)(struct remote *r, uint64_t offset, const void *buf, size_t len, bool fua, struct err *err);
	int (*zero)(struct remote *r, uint64_t offset, uint64_t len, bool unmap, struct err *err);
	/* NULL: nothing to do */
	int (*discard)(struct remote *r, uint64_t offset, uint64_t len, struct err *err);
	int (*flush)(struct remote *r, struct err *err);
	/* NULL: all is data */
	int (*map)(struct remote *r, uint64_t offset, uint64_t len, bool *data, bool *zero, uint64_t *same,
		   struct err *err);
	/* NULL: the size is not ours to change */
	int (*resize)(struct remote *r, uint64_t size, struct err *err);
	/* Ask the server for the size; NULL: it never changes */
	int (*refresh)(struct remote *r, uint64_t *size, struct err *err);
};

struct remote {
	const struct remote_ops *ops;
	char *uri;     /* the back end's to free */
	uint64_t size; /* atomic */
};

extern const struct remote_ops remote_nbd, remote_iscsi, remote_rbd;
