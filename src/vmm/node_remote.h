/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Block nodes on servers: the drivers nbd, iscsi and rbd of blockdev-add, as names that image/remote.h understands. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

#include "util/err.h"

bool node_remote_driver(const char *driver);
/* Is this an option of that driver's own? node_remote_name() has looked at it. */
bool node_remote_option(const char *driver, const char *key);
/* The name that blockdev-add's arguments stand for, malloced; NULL and err. */
char *node_remote_name(const char *driver, json_t *args, struct err *err);
