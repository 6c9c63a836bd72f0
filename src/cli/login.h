/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A name and password for SASL: of libvirt's file of credentials, else asked for on the terminal. */
#pragma once
#include "keel/keel.h"

/* A keel_auth_fn. */
char *login_ask(void *opaque, enum keel_credential what, const char *prompt);
