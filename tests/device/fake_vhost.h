/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A vhost-user back end for tests: it agrees to everything, and gives every buffer back with `len` bytes "written". */
#pragma once
#include <stdint.h>

/* The front end's end of a socket; a thread serves the other one until it is closed. */
int fake_vhost_new(uint32_t len);
