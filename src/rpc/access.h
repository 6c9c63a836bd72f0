/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who may call what: the one place where a procedure's access rules are applied. */
#pragma once
#include <stdbool.h>

#include "rpc/codec.h"

/*
 * May a read-only connection make this call? It may look and search; what
 * changes anything, wakes a guest's agent or shows secrets is refused. `args`
 * is the decoded record, since some rules hang on its flags.
 */
bool rpc_access_readonly(const struct rpc_proc *proc, const void *args);
