/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The firmware configuration device (QEMU docs/specs/fw_cfg): key-value items that firmware and loaders read. */
#pragma once
#include "machine/machine.h"

struct fw_cfg;

/* Add an item before the machine starts; the bytes are copied. -EEXIST, -ENOSPC, -ENOMEM. A file name has at most 55 characters. */
int fw_cfg_add(struct fw_cfg *f, uint16_t key, const void *data, size_t len, struct err *err);
int fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, size_t len, struct err *err);
/* Contents of a file, for loaders and tests; NULL if there is none. */
const void *fw_cfg_file(const struct fw_cfg *f, const char *name, size_t *len);
