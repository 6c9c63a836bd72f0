/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The client's end of QMP, on an event loop: commands whose answers come to a
 * callback, in the order they were sent, and events. What the other end says is
 * hostile: it speaks for a guest. Loop's thread only.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/err.h"
#include "util/loop.h"

struct qmp;

/*
 * The answer. `ret` is the value of "return" (a reference that ends with the
 * call), or NULL: then `error` is what the other end said, or why there is none.
 */
typedef void (*qmp_done)(void *opaque, json_t *ret, const char *error);

struct qmp_ops {
	/* The greeting came and is answered: commands may follow. */
	void (*ready)(void *opaque);
	/* `data` is an object or NULL. */
	void (*event)(void *opaque, const char *name, json_t *data, int64_t seconds, uint32_t micros);
	/* The connection has ended, or what came was no QMP; `why` says so. qmp_free() may be called from here. */
	void (*closed)(void *opaque, const char *why);
};

/* Over a connected socket, which is taken, also on failure. NULL on failure. */
struct qmp *qmp_new_client(struct loop *loop, int fd, const struct qmp_ops *ops, void *opaque, struct err *err);
/* Commands that are still unanswered get an error. NULL is allowed. */
void qmp_free_client(struct qmp *q);

/* Handle what has come already: of a process that has ended, its last words. */
void qmp_drain(struct qmp *q);

/*
 * Send a command; takes `args` (NULL: none). With a descriptor (-1: none) it
 * goes along as SCM_RIGHTS. False if there is no memory or no connection;
 * `done`, which may be NULL, is not called then.
 */
bool qmp_send(struct qmp *q, const char *command, json_t *args, qmp_done done, void *opaque);
bool qmp_send_fd(struct qmp *q, const char *command, json_t *args, int fd, qmp_done done, void *opaque);
/* A whole command as its user wrote it; the answer is the whole message. */
bool qmp_send_raw(struct qmp *q, json_t *message, qmp_done done, void *opaque);
