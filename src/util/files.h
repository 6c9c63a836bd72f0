/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files that somebody else has opened for us. A process that may open nothing
 * gets descriptors together with the paths that they stand for, and whoever
 * would open a path finds its descriptor here.
 *
 * Thread safety: any thread.
 */
#pragma once
#include <stdbool.h>

/* Take in `fd`, which stands for `path` from now on. 0 or -ENOMEM, and fd is closed then. */
int file_pass(const char *path, int fd);
/* Is there a descriptor for it, of any kind? */
bool file_passed(const char *path);
/*
 * As open(path, flags | O_CLOEXEC, 0666), if no descriptor was passed for this
 * path. Of those the first with the access mode and O_DIRECT of `flags` is
 * given away: each serves once, so that nobody shares locks or an offset. A
 * character device stays and is duplicated. -1 and errno; EACCES where others
 * were passed, but none that is open this way.
 */
int file_open(const char *path, int flags);
/* A listening or connected socket passed for this path, or -1. */
int file_take_socket(const char *path);
/* Close what nobody has asked for. */
void files_forget(void);
