/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define GUEST_LINES_A_SECOND 5

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static enum log_level max_level = LOG_WARN;
static int log_fd = STDERR_FILENO;
static const char *log_name = "keel";

void log_set_level(enum log_level level)
{
	pthread_mutex_lock(&lock);
	max_level = level;
	pthread_mutex_unlock(&lock);
}

void log_to_fd(int fd)
{
	pthread_mutex_lock(&lock);
	log_fd = fd;
	pthread_mutex_unlock(&lock);
}

void log_set_name(const char *name)
{
	pthread_mutex_lock(&lock);
	log_name = name;
	pthread_mutex_unlock(&lock);
}

static void emit(enum log_level level, const char *who, const char *fmt, va_list ap)
{
	static const char *const names[] = { "error", "warning", "info", "debug" };
	char line[1024];
	int n, m;

	n = snprintf(line, sizeof(line) - 1, "%s: %s: %s%s", log_name, names[level], who ? who : "", who ? ": " : "");
	if (n < 0 || n >= (int)sizeof(line) - 1)
		return;
	m = vsnprintf(line + n, sizeof(line) - 1 - n, fmt, ap);
	if (m < 0)
		return;
	n += m;
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	if (write(log_fd, line, n) < 0) {
		/* There is nowhere left to complain to. */
	}
}

void log_line(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&lock);
	if (level <= max_level) {
		va_start(ap, fmt);
		emit(level, NULL, fmt, ap);
		va_end(ap);
	}
	pthread_mutex_unlock(&lock);
}

static void emit_args(enum log_level level, const char *who, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void emit_args(enum log_level level, const char *who, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	emit(level, who, fmt, ap);
	va_end(ap);
}

void log_guest(const char *device, const char *fmt, ...)
{
	static time_t second;
	static unsigned lines, dropped;
	struct timespec now;
	va_list ap;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	pthread_mutex_lock(&lock);
	if (now.tv_sec != second) {
		if (dropped && max_level >= LOG_WARN)
			emit_args(LOG_WARN, "guest", "%u more lines like these were dropped", dropped);
		second = now.tv_sec;
		lines = dropped = 0;
	}
	if (lines >= GUEST_LINES_A_SECOND) {
		dropped++;
	} else if (max_level >= LOG_WARN) {
		lines++;
		va_start(ap, fmt);
		emit(LOG_WARN, device, fmt, ap);
		va_end(ap);
	}
	pthread_mutex_unlock(&lock);
}
