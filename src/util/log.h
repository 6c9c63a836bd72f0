/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The log: one line an event, to standard error unless log_to_fd() says
 * otherwise. Libraries below src/vmm use it only for what a guest or a peer
 * did wrong (rate-limited), never for errors that they can return.
 *
 * Thread safety: every function may be called from any thread.
 */
#pragma once

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Lines above `level` are dropped. The default is LOG_WARN. */
void log_set_level(enum log_level level);
/* Where lines go; the descriptor stays the caller's. */
void log_to_fd(int fd);
/* Prefix of each line, such as "keel-vmm"; the string must outlive the log. */
void log_set_name(const char *name);

void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * What a guest did wrong: at most five lines a second per process, then one
 * line saying how many were dropped.
 */
void log_guest(const char *device, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
