/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What /proc says about a process or one of its threads (proc(5)). */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct proc_stat {
	uint64_t user_ns, system_ns;
	uint64_t rss_kib;
	int cpu; /* on which it ran last */
};

/* `tid` 0: the whole process. False if it's gone. */
bool proc_stat_read(pid_t pid, pid_t tid, struct proc_stat *s);
