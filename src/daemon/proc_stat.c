/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/proc_stat.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIELD_UTIME = 14, FIELD_STIME = 15, FIELD_RSS = 24, FIELD_PROCESSOR = 39 };

bool proc_stat_read(pid_t pid, pid_t tid, struct proc_stat *s)
{
	uint64_t tick = 1000000000u / (uint64_t)sysconf(_SC_CLK_TCK);
	char path[64], text[1024], *p;
	ssize_t n;
	int fd;

	if (tid)
		snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
	else
		snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return false;
	text[n] = 0;
	*s = (struct proc_stat){ 0 };
	p = strrchr(text, ')'); /* the name before it may have blanks */
	for (int field = 2; p && field < FIELD_PROCESSOR; field++) {
		p = strchr(p + 1, ' ');
		if (!p)
			return false;
		switch (field + 1) {
		case FIELD_UTIME:
			s->user_ns = strtoull(p, NULL, 10) * tick;
			break;
		case FIELD_STIME:
			s->system_ns = strtoull(p, NULL, 10) * tick;
			break;
		case FIELD_RSS:
			s->rss_kib = strtoull(p, NULL, 10) * ((uint64_t)sysconf(_SC_PAGESIZE) / 1024);
			break;
		case FIELD_PROCESSOR:
			s->cpu = atoi(p);
			break;
		}
	}
	return p;
}
