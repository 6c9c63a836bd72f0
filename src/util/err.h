/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Errors for people.
 *
 * A function that can fail for a reason somebody should read takes a
 * `struct err *` last and returns 0 or a negative errno. The caller owns the
 * object (usually on its stack, ERR_INIT) and may pass NULL when it does not
 * care. Nothing is allocated; the text is truncated at sizeof(msg) - 1 bytes.
 *
 * Thread safety: an object belongs to one thread at a time.
 */
#pragma once
#include <stdarg.h>

struct err {
	int code;      /* positive errno, 0 while unset */
	char msg[508]; /* one sentence without a full stop or newline */
};

#define ERR_INIT ((struct err){0})

/*
 * Record a failure unless one is recorded already (the first cause wins).
 * `code` is a positive errno. Returns -code, so that
 * `return err_set(err, EINVAL, "...")` is the usual form.
 */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* As err_set(), followed by ": " and strerror(code). */
int err_set_errno(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Put "PREFIX: " before the recorded message. Returns -err->code (0 if none; NULL gives 0). */
int err_prefix(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The message, or "unknown error" for an unset or NULL object. Never NULL. */
const char *err_msg(const struct err *err);
