/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * All back ends are one thing: a descriptor to read from, one to write to, and
 * a buffer. A write from a vCPU only fills the buffer; the main loop drains it,
 * so that bytes which arrive in a burst leave in one write(2).
 */
#include "vmm/chardev.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "util/files.h"
#include "util/sockets.h"

#define ROOM 65536u
#define ESCAPE 0x1d /* Ctrl-] */

struct fdchar {
	struct chardev base;
	struct loop *loop;
	int in, out, listener; /* -1: none */
	int pty, opens;	       /* a pty's master, and the inotify that tells when its other end is opened; or -1 */
	bool is_stdio, is_tty;
	char *socket_path;
	struct loop_fd *in_watch, *out_watch, *listen_watch, *opens_watch;
	void (*quit)(void *opaque);
	void *quit_opaque;

	pthread_mutex_t lock; /* what follows */
	bool posted;   /* a drain is on its way */
	bool wanted;   /* a write was cut short: tell the device when there is room */
	bool accepting; /* an accept is on its way */
	uint32_t head, used;
	uint8_t ring[ROOM];
};

static struct fdchar *fdchar(struct chardev *c)
{
	return (struct fdchar *)c;
}

/* ---- The terminal -------------------------------------------------------- */

static struct termios saved;
static bool is_raw, stdio_taken;

static void terminal_restore(void)
{
	if (is_raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &saved);
	is_raw = false;
}

static void terminal_raw(void)
{
	struct termios t;

	if (tcgetattr(STDIN_FILENO, &saved))
		return;
	t = saved;
	cfmakeraw(&t);
	t.c_oflag |= OPOST;
	if (!tcsetattr(STDIN_FILENO, TCSANOW, &t)) {
		is_raw = true;
		atexit(terminal_restore);
	}
}

/* ---- Output -------------------------------------------------------------- */

static void out_ready(void *opaque, uint32_t events);

/* Write what the descriptor takes without blocking. True if the buffer is empty then. Lock held. */
static bool drain_locked(struct fdchar *f)
{
	while (f->used) {
		uint32_t n = ROOM - f->head < f->used ? ROOM - f->head : f->used;
		struct pollfd p = { .fd = f->out, .events = POLLOUT };
		ssize_t w;

		if (f->out < 0) {
			f->used = 0;
			break;
		}
		/* Terminals and pipes may be shared with others, so O_NONBLOCK is not ours to set: poll, and stay within PIPE_BUF. */
		if (poll(&p, 1, 0) == 0)
			return false;
		w = write(f->out, f->ring + f->head, n < 4096 ? n : 4096);
		if (w < 0 && (errno == EINTR || errno == EAGAIN))
			return false;
		if (w < 0)
			w = n; /* nobody will ever read it */
		f->head = (f->head + w) % ROOM;
		f->used -= w;
	}
	return true;
}

/* In the loop's thread. */
static void drain(struct fdchar *f)
{
	bool empty, tell;

	pthread_mutex_lock(&f->lock);
	f->posted = false;
	empty = drain_locked(f);
	tell = f->wanted && f->used < ROOM;
	if (tell)
		f->wanted = false;
	pthread_mutex_unlock(&f->lock);
	if (!empty && !f->out_watch)
		f->out_watch = loop_fd_add(f->loop, f->out, EPOLLOUT, out_ready, f, NULL);
	if (empty && f->out_watch) {
		loop_fd_del(f->out_watch);
		f->out_watch = NULL;
	}
	if (tell && f->base.front && f->base.front->writable)
		f->base.front->writable(f->base.front_opaque);
}

static void drain_posted(void *arg)
{
	drain(arg);
}

static void out_ready(void *opaque, uint32_t events)
{
	drain(opaque);
}

static size_t fd_write(struct chardev *c, const uint8_t *data, size_t len)
{
	struct fdchar *f = fdchar(c);
	size_t done = 0;

	pthread_mutex_lock(&f->lock);
	if (f->out < 0) {
		pthread_mutex_unlock(&f->lock);
		return len;
	}
	while (done < len && f->used < ROOM) {
		uint32_t tail = (f->head + f->used) % ROOM, n = ROOM - f->used;

		if (n > ROOM - tail)
			n = ROOM - tail;
		if (n > len - done)
			n = len - done;
		memcpy(f->ring + tail, data + done, n);
		f->used += n;
		done += n;
	}
	if (done < len)
		f->wanted = true;
	if (f->used && !f->posted && !loop_post(f->loop, drain_posted, f))
		f->posted = true;
	pthread_mutex_unlock(&f->lock);
	return done;
}

/* ---- Input --------------------------------------------------------------- */

static void disconnect(struct fdchar *f)
{
	loop_fd_del(f->in_watch);
	f->in_watch = NULL;
	if (f->listener < 0 && f->pty < 0) {
		f->in = -1; /* end of standard input: output goes on */
		return;
	}
	if (f->out_watch)
		loop_fd_del(f->out_watch);
	f->out_watch = NULL;
	pthread_mutex_lock(&f->lock);
	if (f->out != f->in)
		close(f->out);
	if (f->pty < 0)
		close(f->in);
	f->in = f->out = -1;
	f->used = 0;
	pthread_mutex_unlock(&f->lock);
	f->base.up = false;
	if (f->base.front && f->base.front->connected)
		f->base.front->connected(f->base.front_opaque, false);
	if (f->listen_watch)
		loop_fd_events(f->listen_watch, EPOLLIN);
}

static void in_ready(void *opaque, uint32_t events)
{
	struct fdchar *f = opaque;
	const struct chardev_front *front = f->base.front;
	size_t room = front && front->can_receive ? front->can_receive(f->base.front_opaque) : 0;
	uint8_t data[4096];
	ssize_t n;

	if (!room) {
		/* accept() asks again. A hang-up is noticed then. */
		loop_fd_del(f->in_watch);
		f->in_watch = NULL;
		return;
	}
	n = read(f->in, data, room < sizeof(data) ? room : sizeof(data));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		disconnect(f);
		return;
	}
	if (f->is_tty && memchr(data, ESCAPE, n)) {
		if (f->quit)
			f->quit(f->quit_opaque);
		return;
	}
	front->receive(f->base.front_opaque, data, n);
}

static void watch_input(struct fdchar *f)
{
	/* Regular files and /dev/null cannot be watched: they are no input. */
	if (f->in >= 0 && !f->in_watch)
		f->in_watch = loop_fd_add(f->loop, f->in, EPOLLIN, in_ready, f, NULL);
}

static void accept_posted(void *arg)
{
	struct fdchar *f = arg;

	pthread_mutex_lock(&f->lock);
	f->accepting = false;
	pthread_mutex_unlock(&f->lock);
	watch_input(f);
}

static void fd_accept(struct chardev *c)
{
	struct fdchar *f = fdchar(c);

	pthread_mutex_lock(&f->lock);
	if (!f->accepting && !loop_post(f->loop, accept_posted, f))
		f->accepting = true;
	pthread_mutex_unlock(&f->lock);
}

static void connect_to(struct fdchar *f, int fd)
{
	int out = fcntl(fd, F_DUPFD_CLOEXEC, 3); /* the loop watches a descriptor for one purpose only */

	pthread_mutex_lock(&f->lock);
	f->in = fd;
	f->out = out < 0 ? fd : out;
	pthread_mutex_unlock(&f->lock);
	f->base.up = true;
	watch_input(f);
	if (f->base.front && f->base.front->connected)
		f->base.front->connected(f->base.front_opaque, true);
}

static void client_ready(void *opaque, uint32_t events)
{
	struct fdchar *f = opaque;
	int fd = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	loop_fd_events(f->listen_watch, 0); /* one at a time: the next waits in the backlog */
	connect_to(f, fd);
}

/* Without somebody at its other end a pty is hung up, and what is written is dropped. */
static void pty_opened(void *opaque, uint32_t events)
{
	struct fdchar *f = opaque;
	struct pollfd p = { .fd = f->pty, .events = POLLIN };
	char buf[4096];

	while (read(f->opens, buf, sizeof(buf)) > 0)
		;
	if (f->in < 0 && poll(&p, 1, 0) >= 0 && !(p.revents & POLLHUP))
		connect_to(f, f->pty);
}

/* ---- Life ---------------------------------------------------------------- */

static void fd_free(struct chardev *c)
{
	struct fdchar *f = fdchar(c);

	for (int tries = 0; tries < 20; tries++) {
		struct pollfd p = { .fd = f->out, .events = POLLOUT };
		bool empty;

		pthread_mutex_lock(&f->lock);
		empty = drain_locked(f);
		pthread_mutex_unlock(&f->lock);
		if (empty)
			break;
		poll(&p, 1, 100);
	}
	if (f->in_watch)
		loop_fd_del(f->in_watch);
	if (f->out_watch)
		loop_fd_del(f->out_watch);
	if (f->listen_watch)
		loop_fd_del(f->listen_watch);
	if (f->listener >= 0) {
		close(f->listener);
		unlink(f->socket_path);
	}
	if (f->is_stdio) {
		terminal_restore();
		stdio_taken = false;
	} else if (f->out >= 0 && f->out != f->pty) {
		close(f->out);
		if (f->listener >= 0 && f->in >= 0 && f->in != f->out)
			close(f->in);
	}
	if (f->pty >= 0) {
		loop_fd_del(f->opens_watch);
		close(f->pty);
		close(f->opens);
	}
	free(f->socket_path);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static const struct chardev_ops fd_ops = { .write = fd_write, .accept = fd_accept, .free = fd_free };

void chardev_free(struct chardev *c)
{
	if (c)
		c->ops->free(c);
}

static int open_stdio(struct fdchar *f, const char *option, struct err *err)
{
	if (stdio_taken)
		return err_set(err, EBUSY, "%s: standard input and output are taken by another option", option);
	stdio_taken = true;
	f->is_stdio = true;
	f->in = STDIN_FILENO;
	f->out = STDOUT_FILENO;
	f->is_tty = isatty(STDIN_FILENO);
	if (f->is_tty)
		terminal_raw();
	f->base.up = true;
	watch_input(f);
	return 0;
}

static int open_file(struct fdchar *f, const char *option, const char *path, struct err *err)
{
	f->out = file_open(path, O_WRONLY | O_CREAT | O_TRUNC);
	if (f->out < 0)
		return err_set_errno(err, errno, "%s: cannot write %s", option, path);
	f->base.up = true;
	return 0;
}

static int open_socket(struct fdchar *f, const char *option, const char *path, struct err *err)
{
	int fd = unix_listen(path, option, err);

	if (fd < 0)
		return fd;
	f->socket_path = strdup(path);
	f->listener = fd;
	f->listen_watch = loop_fd_add(f->loop, fd, EPOLLIN, client_ready, f, err);
	return f->socket_path && f->listen_watch ? 0 : err_set(err, ENOMEM, "%s: no memory", option);
}

/* MASTER:INOTIFY: descriptors of whoever started us, who made the pty and watches its other end for IN_OPEN. */
static int open_pty(struct fdchar *f, const char *option, const char *text, struct err *err)
{
	int master, opens, used = 0;

	if (sscanf(text, "%d:%d%n", &master, &opens, &used) != 2 || text[used])
		return err_set(err, EINVAL, "%s: '%s' is not of the form MASTER:INOTIFY", option, text);
	if (fcntl(master, F_SETFL, O_RDWR | O_NONBLOCK) || fcntl(opens, F_SETFL, O_NONBLOCK) ||
	    fcntl(master, F_SETFD, FD_CLOEXEC) || fcntl(opens, F_SETFD, FD_CLOEXEC))
		return err_set_errno(err, errno, "%s: cannot use the descriptors %s", option, text);
	f->pty = master;
	f->opens = opens;
	f->opens_watch = loop_fd_add(f->loop, opens, EPOLLIN, pty_opened, f, err);
	if (!f->opens_watch)
		return -err->code;
	pty_opened(f, 0);
	return 0;
}

struct chardev *chardev_open(struct loop *loop, const char *option, const char *text, void (*quit)(void *opaque),
			     void *opaque, struct err *err)
{
	struct fdchar *f = calloc(1, sizeof(*f));
	int ret = 0;

	if (!f) {
		err_set(err, ENOMEM, "%s: no memory", option);
		return NULL;
	}
	f->base.ops = &fd_ops;
	f->loop = loop;
	f->in = f->out = f->listener = f->pty = f->opens = -1;
	f->quit = quit;
	f->quit_opaque = opaque;
	pthread_mutex_init(&f->lock, NULL);
	if (!strcmp(text, "stdio"))
		ret = open_stdio(f, option, err);
	else if (!strncmp(text, "file:", 5) && text[5])
		ret = open_file(f, option, text + 5, err);
	else if (!strncmp(text, "unix:", 5) && text[5])
		ret = open_socket(f, option, text + 5, err);
	else if (!strncmp(text, "pty:", 4))
		ret = open_pty(f, option, text + 4, err);
	else if (strcmp(text, "null"))
		ret = err_set(err, EINVAL, "%s: '%s' is none of stdio, null, file:PATH, unix:PATH", option, text);
	if (ret) {
		fd_free(&f->base);
		return NULL;
	}
	return &f->base;
}
