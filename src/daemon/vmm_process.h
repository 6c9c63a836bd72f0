/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Starting keel-vmm: everything that a new process gets is decided here. */
#pragma once
#include <stdint.h>
#include <sys/types.h>

#include "daemon/guest.h"

struct spawned {
	pid_t pid;
	int pidfd;
	uint64_t start_time;
	int monitor; /* a connected socket: QMP's greeting comes when the machine is built */
	off_t log_start; /* what the process says goes to the log from here */
};

/*
 * Start the machine of `def` for g, paused. The paths of terminals are filled
 * into def. 0, or a negative errno and nothing is left.
 */
int vmm_spawn(struct guest *g, struct domain *def, struct spawned *out, struct err *err);
/* Where the process says what goes wrong; opened for appending. A descriptor or a negative errno. */
int vmm_open_log(const struct guest *g, struct err *err);
/* A connection to the monitor of a process that runs already; a descriptor or a negative errno. */
int vmm_connect(const struct daemon *d, const char *monitor, struct err *err);
/* Is it this process still? A pidfd, or a negative errno. */
int vmm_find(pid_t pid, uint64_t start_time);
/* The end of what the process has said since, one line, without the time; malloced, or NULL if it said nothing. */
char *vmm_last_words(const struct guest *g, off_t log_start);
