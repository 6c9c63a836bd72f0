/* SPDX-License-Identifier: GPL-2.0-or-later */
/* rbd.c says what such a name looks like. */
#pragma once
#include "util/err.h"

#define RBD_SETTINGS 32

struct rbd_name {
	char *pool, *image;
	char *space, *snapshot;			/* or NULL */
	char *id, *conf, *secret;		/* or NULL */
	struct {
		char *key, *value;
	} setting[RBD_SETTINGS]; /* of Ceph's configuration */
	unsigned settings;
};

/* 0; or -EINVAL, and nothing is to be freed. */
int rbd_name_parse(struct rbd_name *n, const char *name, struct err *err);
void rbd_name_free(struct rbd_name *n);
