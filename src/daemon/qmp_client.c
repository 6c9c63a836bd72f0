/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A message is a line: JSON has no raw line feeds (QEMU docs/interop/qmp-spec §2.1).
 * Answers come in the order of the commands, so no identifiers are needed.
 */
#include "daemon/qmp_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINE_MAX_BYTES (16u << 20)

struct pending {
	qmp_done done;
	void *opaque;
	bool raw;
	struct pending *next;
};

/* What waits to be written. A descriptor goes with the first byte of its command. */
struct outgoing {
	char *text;
	size_t len, at;
	int fd; /* or -1 */
	struct outgoing *next;
};

struct qmp {
	struct loop *loop;
	int fd;
	struct loop_fd *watch;
	const struct qmp_ops *ops;
	void *opaque;
	bool greeted, closed;
	bool *freed; /* set by qmp_free_client() while callbacks run */
	char *line;
	size_t len, room, scanned;
	struct pending *pending, **pending_end;
	struct outgoing *out, **out_end;
};

static void fail_pending(struct qmp *q, const char *why)
{
	while (q->pending) {
		struct pending *p = q->pending;

		q->pending = p->next;
		if (!q->pending)
			q->pending_end = &q->pending;
		if (p->done)
			p->done(p->opaque, NULL, why);
		free(p);
	}
}

static void out_free(struct qmp *q)
{
	struct outgoing *o = q->out;

	q->out = o->next;
	if (!q->out)
		q->out_end = &q->out;
	if (o->fd >= 0)
		close(o->fd);
	free(o->text);
	free(o);
}

/* The last callback of this connection. */
static void close_now(struct qmp *q, const char *why)
{
	if (q->closed)
		return;
	q->closed = true;
	loop_fd_del(q->watch);
	q->watch = NULL;
	q->ops->closed(q->opaque, why);
}

static ssize_t send_some(struct qmp *q, struct outgoing *o)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { o->text + o->at, o->len - o->at };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (o->fd >= 0) {
		struct cmsghdr *c;

		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &o->fd, sizeof(int));
	}
	return sendmsg(q->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* A broken connection is noticed, and told, where it is read. */
static void flush(struct qmp *q)
{
	while (q->out) {
		struct outgoing *o = q->out;
		ssize_t n = send_some(q, o);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		if (o->fd >= 0)
			close(o->fd);
		o->fd = -1;
		o->at += n;
		if (o->at == o->len)
			out_free(q);
	}
	if (q->watch)
		loop_fd_events(q->watch, EPOLLIN | (q->out ? EPOLLOUT : 0));
}

static void handle_event(struct qmp *q, const char *name, json_t *message)
{
	json_t *time = json_object_get(message, "timestamp"), *data = json_object_get(message, "data");

	q->ops->event(q->opaque, name, json_is_object(data) ? data : NULL,
		      json_integer_value(json_object_get(time, "seconds")),
		      (uint32_t)json_integer_value(json_object_get(time, "microseconds")));
}

static void handle_answer(struct qmp *q, json_t *message)
{
	json_t *ret = json_object_get(message, "return"), *error = json_object_get(message, "error");
	const char *desc = json_string_value(json_object_get(error, "desc"));
	struct pending *p = q->pending;

	if (!p || (!ret && !json_is_object(error))) {
		close_now(q, "an answer that belongs to no command came");
		return;
	}
	q->pending = p->next;
	if (!q->pending)
		q->pending_end = &q->pending;
	if (p->done) {
		if (p->raw)
			p->done(p->opaque, message, NULL);
		else
			p->done(p->opaque, ret, ret ? NULL : desc ? desc : "unknown error");
	}
	free(p);
}

static void handle_line(struct qmp *q, const char *text, size_t len)
{
	json_error_t why;
	json_t *message = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
	const char *event;

	if (!json_is_object(message)) {
		close_now(q, "what came is not a JSON object");
	} else if (!q->greeted) {
		q->greeted = json_is_object(json_object_get(message, "QMP"));
		if (!q->greeted || !qmp_send(q, "qmp_capabilities", NULL, NULL, NULL))
			close_now(q, "the greeting is missing");
		else if (q->ops->ready)
			q->ops->ready(q->opaque);
	} else {
		event = json_string_value(json_object_get(message, "event"));
		if (event)
			handle_event(q, event, message);
		else
			handle_answer(q, message);
	}
	json_decref(message);
}

/* Handle the complete lines. False if a callback has ended the connection. */
static bool handle_lines(struct qmp *q)
{
	size_t start = 0;
	bool freed = false;
	char *end;

	q->freed = &freed;
	while ((end = memchr(q->line + start + q->scanned, '\n', q->len - start - q->scanned))) {
		size_t len = end - (q->line + start), at = start;

		q->scanned = 0;
		start += len + 1;
		if (len && strspn(q->line + at, " \t\r") < len)
			handle_line(q, q->line + at, len);
		if (freed)
			return false;
		if (q->closed)
			break;
	}
	q->freed = NULL;
	memmove(q->line, q->line + start, q->len - start);
	q->len -= start;
	q->scanned = q->len;
	return !q->closed;
}

static bool make_room(struct qmp *q)
{
	size_t room = q->room ? 2 * q->room : 4096;
	char *p;

	if (q->room - q->len >= 2048)
		return true;
	p = room <= LINE_MAX_BYTES ? realloc(q->line, room) : NULL;
	if (!p)
		return false;
	q->line = p;
	q->room = room;
	return true;
}

/* True if something came and there may be more. */
static bool read_some(struct qmp *q)
{
	ssize_t n;

	if (!make_room(q)) {
		close_now(q, "a message is too long");
		return false;
	}
	n = recv(q->fd, q->line + q->len, q->room - q->len, MSG_DONTWAIT);
	if (n > 0) {
		q->len += n;
		return handle_lines(q);
	}
	if (n == 0 || (errno != EAGAIN && errno != EINTR))
		close_now(q, "the connection is closed");
	return false;
}

static void ready(void *opaque, uint32_t events)
{
	struct qmp *q = opaque;

	if (events & EPOLLOUT)
		flush(q);
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	read_some(q);
}

void qmp_drain(struct qmp *q)
{
	while (!q->closed && read_some(q))
		;
}

struct qmp *qmp_new_client(struct loop *loop, int fd, const struct qmp_ops *ops, void *opaque, struct err *err)
{
	struct qmp *q = calloc(1, sizeof(*q));

	if (q) {
		*q = (struct qmp){ .loop = loop, .fd = fd, .ops = ops, .opaque = opaque, .pending_end = &q->pending,
				   .out_end = &q->out };
		q->watch = loop_fd_add(loop, fd, EPOLLIN, ready, q, err);
	}
	if (!q || !q->watch) {
		err_set(err, ENOMEM, "no memory for a monitor");
		close(fd);
		free(q);
		return NULL;
	}
	return q;
}

void qmp_free_client(struct qmp *q)
{
	if (!q)
		return;
	if (q->freed)
		*q->freed = true;
	q->closed = true;
	if (q->watch)
		loop_fd_del(q->watch);
	fail_pending(q, "the monitor is closed");
	while (q->out)
		out_free(q);
	close(q->fd);
	free(q->line);
	free(q);
}

/* Takes the text and duplicates the descriptor. */
static bool queue(struct qmp *q, char *text, int fd, const struct pending *what)
{
	struct outgoing *o = text ? calloc(1, sizeof(*o)) : NULL;
	struct pending *p = o ? calloc(1, sizeof(*p)) : NULL;
	int copy = fd >= 0 && p ? dup(fd) : -1;

	if (!p || q->closed || (fd >= 0 && copy < 0)) {
		if (copy >= 0)
			close(copy);
		free(p);
		free(o);
		free(text);
		return false;
	}
	*p = *what;
	*o = (struct outgoing){ .text = text, .len = strlen(text), .fd = copy };
	*q->pending_end = p;
	q->pending_end = &p->next;
	*q->out_end = o;
	q->out_end = &o->next;
	flush(q);
	return true;
}

bool qmp_send_fd(struct qmp *q, const char *command, json_t *args, int fd, qmp_done done, void *opaque)
{
	json_t *message = json_pack("{s:s}", "execute", command);
	bool ok;

	if (args)
		json_object_set_new(message, "arguments", args);
	ok = queue(q, message ? json_dumps(message, JSON_COMPACT) : NULL, fd,
		   &(struct pending){ .done = done, .opaque = opaque });
	json_decref(message);
	return ok;
}

bool qmp_send(struct qmp *q, const char *command, json_t *args, qmp_done done, void *opaque)
{
	return qmp_send_fd(q, command, args, -1, done, opaque);
}

bool qmp_send_raw(struct qmp *q, json_t *message, qmp_done done, void *opaque)
{
	return queue(q, json_dumps(message, JSON_COMPACT), -1,
		     &(struct pending){ .done = done, .opaque = opaque, .raw = true });
}
