/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The QMP server: sockets, greeting, negotiation, replies and events (QEMU docs/interop/qmp-spec). */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "util/log.h"
#include "util/sockets.h"
#include "vmm/qmp_frame.h"
#include "vmm/vmm.h"

#define LISTENERS 4
#define CLIENTS 16
#define PENDING_MAX (4u << 20) /* bytes that a client may leave unread before it is dropped */

struct client {
	struct qmp_server *server;
	int fd;
	struct loop_fd *watch;
	bool negotiated, closing;
	struct qmp_frame frame;
	char *out;
	size_t out_len, out_room;
	int passed; /* descriptor that came with the latest bytes, or -1 */
	struct client *next;
};

struct qmp_server {
	struct vmm *vmm;
	struct {
		int fd;
		char *path;
		struct loop_fd *watch;
	} listener[LISTENERS];
	unsigned listeners, nclients;
	struct client *clients;
	struct client *speaker; /* whose command is running */
};

static void client_free(struct client *c)
{
	struct client **p = &c->server->clients;

	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	c->server->nclients--;
	loop_fd_del(c->watch);
	close(c->fd);
	if (c->passed >= 0)
		close(c->passed);
	qmp_frame_free(&c->frame);
	free(c->out);
	free(c);
}

/* Send what the socket takes. */
static void flush(struct client *c)
{
	size_t at = 0;

	while (at < c->out_len) {
		ssize_t n = send(c->fd, c->out + at, c->out_len - at, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			c->closing = true;
		if (n <= 0)
			break;
		at += n;
	}
	memmove(c->out, c->out + at, c->out_len - at);
	c->out_len -= at;
	loop_fd_events(c->watch, EPOLLIN | (c->out_len ? EPOLLOUT : 0));
}

/* Queue a value and its line end. Takes it. A client that is closing is freed by whoever handles its events. */
static void say(struct client *c, json_t *value)
{
	char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
	size_t len = text ? strlen(text) : 0;

	json_decref(value);
	if (!text || c->out_len + len + 2 > PENDING_MAX) {
		/* It reads nothing: the hang-up that follows frees it. */
		c->closing = true;
		c->out_len = 0;
		shutdown(c->fd, SHUT_RDWR);
		free(text);
		return;
	}
	if (c->out_room < c->out_len + len + 2) {
		size_t room = 2 * (c->out_len + len + 2);
		char *p = realloc(c->out, room);

		if (!p) {
			c->closing = true;
			free(text);
			return;
		}
		c->out = p;
		c->out_room = room;
	}
	memcpy(c->out + c->out_len, text, len);
	memcpy(c->out + c->out_len + len, "\r\n", 2);
	c->out_len += len + 2;
	free(text);
	flush(c);
}

static json_t *error_value(const char *class, const char *desc)
{
	json_t *e = json_pack("{s:{s:s,s:s}}", "error", "class", class, "desc", desc);

	return e ? e : json_pack("{s:{s:s,s:s}}", "error", "class", class, "desc", "the text of the error is not UTF-8");
}

/* ---- Commands ------------------------------------------------------------ */

static bool word_in(const char *list, const char *word)
{
	size_t len = strlen(word);

	if (!strcmp(list, "*"))
		return true;
	for (const char *p = list; *p; p += strcspn(p, " "), p += strspn(p, " "))
		if (strcspn(p, " ") == len && !strncmp(p, word, len))
			return true;
	return false;
}

static json_t *run_command(struct client *c, const char *name, json_t *args)
{
	const struct qmp_command *cmd = qmp_command_find(name);
	bool negotiate = !strcmp(name, "qmp_capabilities");
	struct err err = ERR_INIT;
	char desc[256];
	json_t *value;
	const char *key;

	if (!c->negotiated && !negotiate)
		return error_value("CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'");
	if (!cmd || (c->negotiated && negotiate)) {
		snprintf(desc, sizeof(desc), "The command %.200s has not been found", name);
		return error_value("CommandNotFound", desc);
	}
	json_object_foreach(args, key, value) {
		if (!word_in(cmd->args_known, key)) {
			snprintf(desc, sizeof(desc), "Parameter '%.200s' is unexpected", key);
			return error_value("GenericError", desc);
		}
	}
	c->server->speaker = c;
	value = cmd->run(c->server->vmm, args, &err);
	c->server->speaker = NULL;
	/* ENXIO is how a command says that there is no such device. */
	if (!value)
		return error_value(err.code == ENXIO ? "DeviceNotFound" : "GenericError", err_msg(&err));
	if (negotiate)
		c->negotiated = true;
	return json_pack("{s:o}", "return", value);
}

static json_t *handle_value(struct client *c, json_t *request)
{
	json_t *execute = json_object_get(request, "execute"), *args = json_object_get(request, "arguments");
	json_t *empty = NULL, *reply;
	const char *key;
	json_t *value;
	char desc[256];

	json_object_foreach(request, key, value) {
		if (strcmp(key, "execute") && strcmp(key, "arguments") && strcmp(key, "id")) {
			snprintf(desc, sizeof(desc), "QMP input member '%.200s' is unexpected", key);
			return error_value("GenericError", desc);
		}
	}
	if (!execute)
		return error_value("GenericError", "QMP input lacks member 'execute'");
	if (!json_is_string(execute))
		return error_value("GenericError", "QMP input member 'execute' must be a string");
	if (args && !json_is_object(args))
		return error_value("GenericError", "QMP input member 'arguments' must be an object");
	if (!args)
		args = empty = json_object();
	reply = run_command(c, json_string_value(execute), args);
	json_decref(empty);
	return reply;
}

static void handle(struct client *c)
{
	json_error_t why;
	json_t *request = json_loadb(c->frame.data, c->frame.len, JSON_REJECT_DUPLICATES, &why), *reply, *id;
	char desc[256];

	if (!request) {
		snprintf(desc, sizeof(desc), "Invalid JSON syntax: %.180s", why.text);
		say(c, error_value("GenericError", desc));
		return;
	}
	reply = handle_value(c, request);
	id = json_object_get(request, "id");
	if (id && reply)
		json_object_set(reply, "id", id);
	json_decref(request);
	say(c, reply);
}

static void feed(struct client *c, const char *data, size_t len)
{
	while (len && !c->closing) {
		size_t used = 0;

		switch (qmp_frame_feed(&c->frame, data, len, &used)) {
		case QMP_FRAME_MORE:
			break;
		case QMP_FRAME_VALUE:
			handle(c);
			qmp_frame_reset(&c->frame);
			break;
		case QMP_FRAME_GARBAGE:
			say(c, error_value("GenericError", "QMP input must be a JSON object"));
			qmp_frame_reset(&c->frame);
			break;
		case QMP_FRAME_TOO_BIG:
			say(c, error_value("GenericError", "JSON message is too large: at most 1 MiB and 64 levels are allowed"));
			c->closing = true;
			return;
		}
		data += used;
		len -= used;
	}
}

int qmp_take_fd(struct qmp_server *s)
{
	int fd = s->speaker ? s->speaker->passed : -1;

	if (s->speaker)
		s->speaker->passed = -1;
	return fd;
}

/* The newest descriptor counts; nobody may leave them with us without end. */
static void take_passed(struct client *c, struct msghdr *msg)
{
	for (struct cmsghdr *h = CMSG_FIRSTHDR(msg); h; h = CMSG_NXTHDR(msg, h)) {
		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = 0; at + sizeof(int) <= h->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
			if (c->passed >= 0)
				close(c->passed);
			memcpy(&c->passed, CMSG_DATA(h) + at, sizeof(int));
		}
	}
}

static ssize_t receive(struct client *c, char *buf, size_t len)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(16 * sizeof(int))];
	} control;
	struct iovec iov = { buf, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(c->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n > 0)
		take_passed(c, &msg);
	return n;
}

static void client_ready(void *opaque, uint32_t events)
{
	struct client *c = opaque;
	char buf[16384];
	ssize_t n;

	if (events & EPOLLOUT)
		flush(c);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		n = receive(c, buf, sizeof(buf));
		if (n > 0)
			feed(c, buf, n);
		else if (n == 0 || (errno != EAGAIN && errno != EINTR))
			c->closing = true;
	}
	if (c->closing)
		client_free(c);
}

static json_t *greeting(void)
{
	return json_pack("{s:{s:{s:{s:i,s:i,s:i},s:s},s:[]}}", "QMP", "version", "qemu", "micro", 0, "minor", 2, "major", 7,
			 "package", "keel-" KEEL_VERSION, "capabilities");
}

static void listener_ready(void *opaque, uint32_t events)
{
	struct qmp_server *s = opaque;

	for (unsigned i = 0; i < s->listeners; i++) {
		int fd = accept4(s->listener[i].fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		struct client *c;

		if (fd < 0)
			continue;
		c = s->nclients < CLIENTS ? calloc(1, sizeof(*c)) : NULL;
		if (c)
			c->watch = loop_fd_add(s->vmm->loop, fd, EPOLLIN, client_ready, c, NULL);
		if (!c || !c->watch) {
			free(c);
			close(fd);
			continue;
		}
		c->server = s;
		c->fd = fd;
		c->passed = -1;
		c->next = s->clients;
		s->clients = c;
		s->nclients++;
		say(c, greeting());
	}
}

/* ---- Life ---------------------------------------------------------------- */

struct qmp_server *qmp_new(struct vmm *v, struct err *err)
{
	struct qmp_server *s = calloc(1, sizeof(*s));

	if (!s)
		err_set(err, ENOMEM, "no memory for QMP");
	else
		s->vmm = v;
	return s;
}

/* A listening socket of whoever started us. */
static int passed_listener(const char *number, struct err *err)
{
	int fd, used = 0, listens = 0;
	socklen_t len = sizeof(listens);

	if (sscanf(number, "%d%n", &fd, &used) != 1 || number[used])
		return err_set(err, EINVAL, "--qmp: '%s' is not the number of a descriptor", number);
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) || !listens)
		return err_set(err, EINVAL, "--qmp: the descriptor %d is no listening socket", fd);
	if (fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) || fcntl(fd, F_SETFD, FD_CLOEXEC))
		return err_set_errno(err, errno, "--qmp: cannot use the descriptor %d", fd);
	return fd;
}

int qmp_listen(struct qmp_server *s, const char *text, struct err *err)
{
	unsigned n = s->listeners;
	bool passed = !strncmp(text, "fd:", 3);
	const char *path = text + 5;
	int fd;

	if (!passed && (strncmp(text, "unix:", 5) || !*path))
		return err_set(err, EINVAL, "--qmp: '%s' is neither unix:PATH nor fd:N", text);
	if (n == LISTENERS)
		return err_set(err, EINVAL, "--qmp: at most %d sockets are possible", LISTENERS);
	fd = passed ? passed_listener(text + 3, err) : unix_listen(path, "--qmp", err);
	if (fd < 0)
		return fd;
	s->listener[n].fd = fd;
	s->listener[n].path = passed ? NULL : strdup(path);
	s->listener[n].watch = loop_fd_add(s->vmm->loop, fd, EPOLLIN, listener_ready, s, err);
	s->listeners++;
	return s->listener[n].watch && (passed || s->listener[n].path) ? 0 : err_set(err, ENOMEM, "--qmp: no memory");
}

void qmp_free(struct qmp_server *s)
{
	if (!s)
		return;
	while (s->clients) {
		struct client *c = s->clients;
		struct pollfd p = { .fd = c->fd, .events = POLLOUT };

		for (int tries = 0; c->out_len && !c->closing && tries < 10; tries++) {
			poll(&p, 1, 100);
			flush(c);
		}
		client_free(c);
	}
	for (unsigned i = 0; i < s->listeners; i++) {
		loop_fd_del(s->listener[i].watch);
		close(s->listener[i].fd);
		if (s->listener[i].path)
			unlink(s->listener[i].path);
		free(s->listener[i].path);
	}
	free(s);
}

void qmp_event(struct qmp_server *s, const char *name, json_t *data)
{
	struct timeval now;
	json_t *event;

	gettimeofday(&now, NULL);
	event = json_pack("{s:s,s:{s:I,s:I}}", "event", name, "timestamp", "seconds", (json_int_t)now.tv_sec, "microseconds",
			  (json_int_t)now.tv_usec);
	if (event && data)
		json_object_set(event, "data", data);
	json_decref(data);
	for (struct client *c = s ? s->clients : NULL; c && event; c = c->next)
		if (c->negotiated && !c->closing)
			say(c, json_incref(event));
	json_decref(event);
}
