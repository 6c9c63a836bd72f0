/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A hook may take its time, and may ask this daemon: so it runs beside it, and
 * what it was called for waits. Its input and its errors are memory files.
 */
#include "daemon/guest_hooks.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/log.h"

extern char **environ;

struct hook {
	struct daemon *daemon;
	struct guest *guest; /* NULL: the daemon's own */
	char *path, *name, *operation, *sub, *extra;
	int in, errors;
	pid_t pid; /* 0: waits for an earlier one of the same guest */
	int pidfd;
	struct loop_fd *watch;
	hook_done done;
	void *opaque;
	struct hook *next;
};

static void hook_free(struct hook *h)
{
	if (h->watch)
		loop_fd_del(h->watch);
	if (h->pidfd >= 0)
		close(h->pidfd);
	if (h->in >= 0)
		close(h->in);
	if (h->errors >= 0)
		close(h->errors);
	guest_put(h->guest);
	free(h->path);
	free(h->name);
	free(h->operation);
	free(h->sub);
	free(h->extra);
	free(h);
}

/* ---- The end --------------------------------------------------------------- */

static void start_next(struct daemon *d);

/* What it wrote to standard error, on one line. */
static void read_errors(const struct hook *h, char text[200])
{
	ssize_t n = pread(h->errors, text, 199, 0);

	text[n > 0 ? n : 0] = 0;
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < ' ')
			*p = p[1] ? ' ' : 0;
}

static void finish(struct hook *h, int status)
{
	struct daemon *d = h->daemon;
	struct hook **p = &d->hooks;
	struct err err = ERR_INIT;
	char text[200];

	while (*p != h)
		p = &(*p)->next;
	*p = h->next;
	if (status) {
		read_errors(h, text);
		if (WIFSIGNALED(status))
			err_set(&err, EREMOTEIO, "internal error: Child process (%s %s %s %s %s) unexpected fatal signal %d: %s", h->path, h->name,
				h->operation, h->sub, h->extra, WTERMSIG(status), text);
		else
			err_set(&err, EREMOTEIO, "internal error: Child process (%s %s %s %s %s) unexpected exit status %d: %s", h->path, h->name,
				h->operation, h->sub, h->extra, WEXITSTATUS(status), text);
		if (!h->done)
			log_line(LOG_ERROR, "Hook script execution failed: %s", err_msg(&err));
	}
	if (h->done)
		h->done(h->guest, h->opaque, status ? &err : NULL);
	hook_free(h);
	start_next(d);
}

static void ended(void *opaque, uint32_t events)
{
	struct hook *h = opaque;
	int status = 0;

	(void)events;
	if (waitpid(h->pid, &status, WNOHANG) == h->pid)
		finish(h, status);
}

/* ---- The beginning --------------------------------------------------------- */

static int run(struct hook *h)
{
	char *argv[] = { h->path, h->name, h->operation, h->sub, h->extra, NULL };
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, all;
	int ret;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&files);
	posix_spawnattr_init(&attr);
	posix_spawn_file_actions_adddup2(&files, h->in, 0);
	posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_adddup2(&files, h->errors, 2);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	ret = posix_spawn(&h->pid, h->path, &files, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	if (ret) {
		h->pid = 0;
		dprintf(h->errors, "%s", strerror(ret));
	}
	return ret;
}

static void start(struct hook *h)
{
	struct err err = ERR_INIT;
	int status = 0;

	if (run(h)) {
		finish(h, 127 << 8);
		return;
	}
	h->pidfd = (int)syscall(SYS_pidfd_open, h->pid, 0);
	if (h->pidfd >= 0)
		h->watch = loop_fd_add(h->daemon->loop, h->pidfd, EPOLLIN, ended, h, &err);
	if (h->watch)
		return;
	waitpid(h->pid, &status, 0);
	finish(h, status);
}

static bool has_turn(const struct daemon *d, const struct hook *h)
{
	for (const struct hook *o = d->hooks; o != h; o = o->next)
		if (o->guest == h->guest)
			return false;
	return !h->pid;
}

static void start_next(struct daemon *d)
{
	for (struct hook *h = d->hooks; h; h = h->next) {
		if (has_turn(d, h)) {
			start(h);
			return; /* it may have ended already, and then this was called again */
		}
	}
}

/* A descriptor of the text, at its beginning; -1: no memory. */
static int memory_file(const char *name, const char *text)
{
	int fd = memfd_create(name, MFD_CLOEXEC);
	size_t len = strlen(text);

	if (fd >= 0 && (pwrite(fd, text, len, 0) == (ssize_t)len))
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

/* NULL: there is no script, or, with err set, no memory. */
static struct hook *hook_new(struct daemon *d, const char *script, const char *name, const char *operation, const char *sub,
			     const char *extra, const char *input, struct err *err)
{
	struct hook *h;
	char *path;

	if (asprintf(&path, "%s/etc/hooks/%s", d->root, script) < 0) {
		err_set(err, ENOMEM, "no memory for a hook");
		return NULL;
	}
	if (access(path, X_OK)) {
		free(path);
		return NULL;
	}
	h = calloc(1, sizeof(*h));
	if (!h) {
		free(path);
		err_set(err, ENOMEM, "no memory for a hook");
		return NULL;
	}
	*h = (struct hook){ .daemon = d, .path = path, .name = strdup(name), .operation = strdup(operation), .sub = strdup(sub), .extra = strdup(extra),
			    .in = memory_file("hook", input), .errors = memory_file("hook", ""), .pidfd = -1 };
	if (h->name && h->operation && h->sub && h->extra && h->in >= 0 && h->errors >= 0)
		return h;
	hook_free(h);
	err_set(err, ENOMEM, "no memory for a hook");
	return NULL;
}

static void add(struct hook *h)
{
	struct hook **end = &h->daemon->hooks;

	while (*end)
		end = &(*end)->next;
	*end = h;
	if (has_turn(h->daemon, h))
		start(h);
}

void hook_guest(struct guest *g, const struct domain *def, const char *operation, const char *sub, hook_done done, void *opaque)
{
	char *path = NULL, *xml = NULL;
	struct err err = ERR_INIT;
	struct hook *h = NULL;
	bool there = asprintf(&path, "%s/etc/hooks/qemu", g->daemon->root) < 0 || !access(path, X_OK);

	free(path);
	if (there) { /* most have none: then the definition is not even written down */
		xml = domain_format(def, DOMAIN_FORMAT_LIVE | DOMAIN_FORMAT_SECURE);
		h = xml ? hook_new(g->daemon, "qemu", g->name, operation, sub, "-", xml, &err) : NULL;
		if (!xml)
			err_set(&err, ENOMEM, "no memory for a hook");
		free(xml);
	}
	if (h) {
		h->guest = guest_get(g);
		h->done = done;
		h->opaque = opaque;
		add(h);
	} else if (done) {
		done(g, opaque, err.code ? &err : NULL);
	} else if (err.code) {
		log_line(LOG_ERROR, "%s", err_msg(&err));
	}
}

void hook_daemon(struct daemon *d, const char *operation, const char *sub, const char *extra, bool wait)
{
	struct err err = ERR_INIT;
	struct hook *h = d->root ? hook_new(d, "daemon", "-", operation, sub, extra, "", &err) : NULL;
	int status;

	if (!h)
		return;
	if (!wait) {
		add(h);
		return;
	}
	if (run(h) || waitpid(h->pid, &status, 0) < 0 || status)
		log_line(LOG_ERROR, "the hook %s %s failed", h->path, operation);
	hook_free(h);
}

void hooks_forget(struct daemon *d)
{
	while (d->hooks) {
		struct hook *h = d->hooks;
		struct err err = ERR_INIT;

		d->hooks = h->next;
		err_set(&err, ECANCELED, "keeld ends");
		if (h->done)
			h->done(h->guest, h->opaque, &err);
		hook_free(h);
	}
}
