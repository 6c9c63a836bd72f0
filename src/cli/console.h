/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once
#include "cli/verb.h"

/* Connect the terminal with a guest's console until Ctrl-] or its end. The exit status. */
int console_attach(struct cmd *c, struct keel_domain *dom, const char *device, unsigned flags);
