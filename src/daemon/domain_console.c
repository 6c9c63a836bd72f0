/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Consoles as streams: the bytes of a guest's terminal go to one client, who
 * may be pushed out by another that says FORCE (or SAFE is refused).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "daemon/guest.h"

enum { CONSOLE_FORCE = 1, CONSOLE_SAFE = 2 }; /* virDomainConsoleFlags */

struct console {
	struct daemon *daemon;
	char *path;
	int fd;
	struct loop_fd *watch;
	struct rpc_stream *stream;
	uint32_t events;
	uint8_t held[4096]; /* read, but not taken by the stream yet */
	size_t held_at, held_len;
	struct console *next;
};

static struct console *consoles;

static void watch_for(struct console *c, uint32_t events)
{
	if (c->watch && c->events != events)
		loop_fd_events(c->watch, c->events = events);
}

/* Send what is held. True if all went. */
static bool pass_on(struct console *c)
{
	c->held_at += rpc_stream_send(c->stream, c->held + c->held_at, c->held_len - c->held_at);
	return c->held_at == c->held_len;
}

static void tty_ready(void *opaque, uint32_t events)
{
	struct console *c = opaque;
	ssize_t n;

	if (events & EPOLLOUT) {
		watch_for(c, c->events & ~(uint32_t)EPOLLOUT);
		rpc_stream_resume(c->stream);
	}
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	n = read(c->fd, c->held, sizeof(c->held));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) { /* the guest has ended, and with it the terminal */
		loop_fd_del(c->watch);
		c->watch = NULL;
		rpc_stream_end(c->stream);
		return;
	}
	c->held_at = 0;
	c->held_len = (size_t)n;
	if (!pass_on(c))
		watch_for(c, c->events & ~(uint32_t)EPOLLIN);
}

static void stream_ready(struct rpc_stream *st)
{
	struct console *c = rpc_stream_opaque(st);

	if (pass_on(c))
		watch_for(c, c->events | EPOLLIN);
}

static size_t stream_data(struct rpc_stream *st, const void *data, size_t len)
{
	struct console *c = rpc_stream_opaque(st);
	ssize_t n = c->watch ? write(c->fd, data, len) : (ssize_t)len;

	if (n < 0 && errno != EAGAIN && errno != EINTR)
		n = (ssize_t)len; /* nobody is there any more; reading tells */
	if (n < 0)
		n = 0;
	if ((size_t)n < len)
		watch_for(c, c->events | EPOLLOUT);
	return (size_t)n;
}

static void console_free(struct console *c)
{
	struct console **p = &consoles;

	while (*p && *p != c)
		p = &(*p)->next;
	if (*p)
		*p = c->next;
	if (c->watch)
		loop_fd_del(c->watch);
	if (c->fd >= 0)
		close(c->fd);
	free(c->path);
	free(c);
}

static void stream_closed(struct rpc_stream *st)
{
	console_free(rpc_stream_opaque(st));
}

static const struct rpc_stream_ops ops = { .data = stream_data, .ready = stream_ready, .closed = stream_closed };

/* The terminal of the device of that alias; the first console or serial port for NULL. */
static const struct dom_chr *find_chr(const struct domain *def, const char *alias)
{
	const struct dom_devices *dev = def->devices;

	for (unsigned n = 0; n < dev->console.n; n++)
		if (!alias || (dev->console.v[n]->info.alias && !strcmp(dev->console.v[n]->info.alias, alias)))
			return dev->console.v[n];
	for (unsigned n = 0; n < dev->serial.n; n++)
		if (!alias || (dev->serial.v[n]->info.alias && !strcmp(dev->serial.v[n]->info.alias, alias)))
			return dev->serial.v[n];
	return NULL;
}

static int claim(struct rpc_call *call, const char *path, uint32_t flags)
{
	struct rpc_error error = { 0 };
	struct console *c = consoles;

	while (c && strcmp(c->path, path))
		c = c->next;
	if (!c)
		return 0;
	if (!(flags & CONSOLE_FORCE))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_FAILED, "Active console session exists for this domain");
	rpc_error_set(&error, VIR_FROM_STREAMS, VIR_ERR_OPERATION_ABORTED, "another client has taken the console");
	rpc_stream_fail(c->stream, &error);
	return 0;
}

static int open_console(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_open_console_args *args = call->args;
	const struct dom_chr *chr = find_chr(g->live, args->dev_name);
	const char *path = chr ? chr->tty ? chr->tty : chr->source.n ? chr->source.v[0]->path : NULL : NULL;
	struct console *c;

	if (call_check_flags(call, args->flags, CONSOLE_FORCE | CONSOLE_SAFE))
		return -1;
	if (!chr)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INTERNAL_ERROR, "cannot find character device %s",
				     args->dev_name ? args->dev_name : "(null)");
	/* A console that stands for a serial port has no type of its own that says otherwise. */
	if (chr->type != DOM_CHR_PTY || !path)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INTERNAL_ERROR, "character device %s is not using a PTY",
				     chr->info.alias ? chr->info.alias : "console");
	if (claim(call, path, args->flags))
		return -1;
	c = calloc(1, sizeof(*c));
	if (!c)
		return call_fail_memory(call);
	c->daemon = g->daemon;
	c->path = strdup(path);
	c->fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (c->fd < 0 || !c->path) {
		rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_SYSTEM_ERROR, "unable to open tty %s: %s", path, strerror(errno));
		console_free(c);
		return -1;
	}
	c->events = EPOLLIN;
	c->watch = loop_fd_add(g->daemon->loop, c->fd, EPOLLIN, tty_ready, c, NULL);
	c->stream = c->watch ? rpc_stream_new(call, &ops, c) : NULL;
	if (!c->stream) {
		if (!c->watch)
			call_fail_memory(call);
		console_free(c);
		return -1;
	}
	c->next = consoles;
	consoles = c;
	return 0;
}

const struct guest_binding console_bindings[] = {
	{ NULL, REMOTE_PROC_DOMAIN_OPEN_CONSOLE, open_console, GUEST_ACTIVE },
	{ 0 },
};
