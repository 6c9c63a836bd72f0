/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A thread with an event loop, which disks may share. Main loop's thread. */
#pragma once
#include "util/err.h"

struct loop;
struct vmm_iothread;

struct vmm_iothread *iothread_new(const char *id, struct err *err); /* NULL on failure */
void iothread_free(struct vmm_iothread *t);			     /* nobody uses its loop any more; NULL is allowed */
struct loop *iothread_loop(struct vmm_iothread *t);
int iothread_tid(const struct vmm_iothread *t);
