/* SPDX-License-Identifier: GPL-2.0-or-later */
/* iscsi.c says what such a name looks like. */
#pragma once
#include "util/err.h"

struct iscsi_name {
	char *portal, *target;		   /* HOST:PORT */
	char *user, *secret, *digest;	   /* or NULL */
	char *initiator;
	int lun;
};

/* 0; or -EINVAL, and nothing is to be freed. */
int iscsi_name_parse(struct iscsi_name *n, const char *uri, struct err *err);
void iscsi_name_free(struct iscsi_name *n);
