/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Before each command comes guest-sync-delimited (QEMU's qga/qapi-schema.json):
 * the agent may still hold, or send, what was meant for a command that nobody
 * waits for any more. Its answer begins with a byte that is no JSON, behind
 * which only ours follows.
 */
#include "daemon/guest_agent.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LINE_MAX_BYTES (10u << 20)
#define SYNC_SECONDS 5
#define DELIMITER '\xff'

struct request {
	struct rpc_call *call;
	char *text;
	char name[48];
	int seconds;
	unsigned flags;
	guest_answer fn;
	struct request *next;
};

struct agent {
	struct guest *guest;
	int fd;
	struct loop_fd *watch;
	struct timer *timer;
	char *line;
	size_t len, room, scanned;
	char *out; /* what is being sent, from out_at on */
	size_t out_len, out_at;
	struct request *queue, **queue_end;
	bool busy;   /* the queue's head is under way */
	bool synced; /* and the agent listens to it */
	json_int_t id;
};

static void kick(struct agent *a);

static void forget_output(struct agent *a)
{
	free(a->out);
	a->out = NULL;
	a->out_len = a->out_at = 0;
}

static void hang_up(struct agent *a)
{
	if (a->watch)
		loop_fd_del(a->watch);
	a->watch = NULL;
	if (a->fd >= 0)
		close(a->fd);
	a->fd = -1;
	a->len = a->scanned = 0;
	forget_output(a);
}

/* The head's end. `ret` is the answer, or NULL: call->error is set, unless the request is one that ends so. */
static void finish_head(struct agent *a, json_t *ret, bool failed)
{
	struct request *r = a->queue;
	struct guest *g = guest_get(a->guest);
	struct rpc_call *call = r->call;
	int result = failed ? -1 : 0;

	a->queue = r->next;
	if (!a->queue)
		a->queue_end = &a->queue;
	a->busy = a->synced = false;
	timer_cancel(a->timer);
	if (r->fn && (!failed || (r->flags & AGENT_TRY)))
		result = r->fn(call, g, ret);
	free(r->text);
	free(r);
	guest_finish(call, g, result);
	if (g->agent == a)
		kick(a);
	guest_put(g);
}

static void fail_head(struct agent *a, int code, const char *why)
{
	a->queue->flags &= ~(unsigned)AGENT_TRY;
	rpc_call_fail(a->queue->call, VIR_FROM_QEMU, code, "%s", why);
	finish_head(a, NULL, true);
}

static void unresponsive(void *opaque)
{
	struct agent *a = opaque;

	if (a->busy)
		fail_head(a, VIR_ERR_AGENT_UNRESPONSIVE, "Guest agent not available for now");
}

static void wait_for(struct agent *a, int seconds)
{
	if (seconds < 0)
		timer_cancel(a->timer);
	else
		timer_arm(a->timer, monotonic_ns() + (uint64_t)seconds * 1000000000);
}

static void lost(struct agent *a)
{
	hang_up(a);
	/* An agent that was told to end the guest goes before it does. */
	if (a->busy && !((a->queue->flags & AGENT_ENDS) && a->synced))
		fail_head(a, VIR_ERR_AGENT_UNRESPONSIVE, "QEMU guest agent is not connected");
}

static void flush(struct agent *a)
{
	while (a->out_at < a->out_len) {
		ssize_t n = send(a->fd, a->out + a->out_at, a->out_len - a->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		a->out_at += n;
	}
	if (a->out_at == a->out_len)
		forget_output(a);
	loop_fd_events(a->watch, EPOLLIN | (a->out ? EPOLLOUT : 0));
}

/* Takes the text. What of an earlier command is not sent yet, is not sent; the delimiter makes the agent forget its part. */
static void put(struct agent *a, char *text, size_t len)
{
	forget_output(a);
	a->out = text;
	a->out_len = len;
	flush(a);
}

/* ---- Answers --------------------------------------------------------------- */

static void answer(struct agent *a, json_t *message)
{
	struct request *r = a->queue;
	json_t *ret = json_object_get(message, "return"), *error = json_object_get(message, "error");
	const char *desc = json_string_value(json_object_get(error, "desc"));
	const char *class = json_string_value(json_object_get(error, "class"));

	if (!ret && !json_is_object(error))
		return; /* no answer */
	if (r->flags & AGENT_RAW) {
		finish_head(a, message, false);
	} else if (ret) {
		if (r->flags & AGENT_ENDS)
			return; /* it is the end that counts */
		finish_head(a, ret, false);
	} else {
		if (class && !strcmp(class, "CommandNotFound"))
			desc = "The command has not been found";
		else if (class && !strcmp(class, "CommandDisabled"))
			desc = "The command has been disabled for this instance";
		rpc_call_fail(r->call, VIR_FROM_QEMU, VIR_ERR_INTERNAL_ERROR, "unable to execute QEMU agent command '%s': %s", r->name,
			      desc ? desc : "unknown QEMU command error");
		finish_head(a, NULL, true);
	}
}

static void synced(struct agent *a)
{
	struct request *r = a->queue;
	size_t len = strlen(r->text);
	char *text = r->text;

	a->synced = true;
	r->text = NULL;
	text[len] = '\n'; /* in the end's place: there is no end any more */
	wait_for(a, r->seconds);
	put(a, text, len + 1);
}

static void handle_line(struct agent *a, const char *text, size_t len)
{
	const char *delimiter = memrchr(text, DELIMITER, len);
	json_error_t why;
	json_t *message, *ret;

	if (delimiter) {
		len -= delimiter + 1 - text;
		text = delimiter + 1;
	}
	if (!a->busy || (!a->synced && !delimiter))
		return; /* for somebody who has gone */
	message = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
	ret = json_object_get(message, "return");
	if (a->synced)
		answer(a, message);
	else if (json_is_integer(ret) && json_integer_value(ret) == a->id)
		synced(a);
	json_decref(message);
}

static void handle_lines(struct agent *a)
{
	struct guest *g = guest_get(a->guest);
	char *end;

	while (g->agent == a && (end = memchr(a->line + a->scanned, '\n', a->len - a->scanned))) {
		size_t len = end - a->line;
		char *line = strndup(a->line, len); /* what it brings about may read on */

		a->len -= len + 1;
		memmove(a->line, end + 1, a->len);
		a->scanned = 0;
		if (line)
			handle_line(a, line, strlen(line));
		free(line);
	}
	if (g->agent == a)
		a->scanned = a->len;
	guest_put(g);
}

static void ready(void *opaque, uint32_t events)
{
	struct agent *a = opaque;
	ssize_t n;

	if (events & EPOLLOUT)
		flush(a);
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	if (a->room - a->len < 4096) {
		size_t room = a->room ? 2 * a->room : 16384;
		char *p = room <= LINE_MAX_BYTES ? realloc(a->line, room) : NULL;

		if (!p) { /* no answer is that long */
			a->len = a->scanned = 0;
		} else {
			a->line = p;
			a->room = room;
		}
	}
	n = recv(a->fd, a->line + a->len, a->room - a->len, MSG_DONTWAIT);
	if (n > 0) {
		a->len += n;
		handle_lines(a);
	} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		lost(a);
	}
}

/* ---- Connecting ------------------------------------------------------------ */

static struct dom_chr *channel(const struct guest *g)
{
	const struct dom_devices *dev = g->live->devices;

	for (unsigned n = 0; n < dev->channel.n; n++) {
		const struct dom_chr_target *t = dev->channel.v[n]->target;

		if (t && t->name && !strcmp(t->name, AGENT_CHANNEL))
			return dev->channel.v[n];
	}
	return NULL;
}

/* However long the root's path is, what lies in the run directory is within reach. */
static int address_of(const struct daemon *d, const char *path, struct sockaddr_un *a)
{
	size_t len = strlen(d->root);
	int n;

	*a = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (!strncmp(path, d->root, len) && !strncmp(path + len, "/run/qemu/", 10))
		n = snprintf(a->sun_path, sizeof(a->sun_path), "/proc/self/fd/%d/%s", d->run_dir, path + len + 10);
	else
		n = snprintf(a->sun_path, sizeof(a->sun_path), "%s", path);
	return n < (int)sizeof(a->sun_path) ? 0 : -ENAMETOOLONG;
}

static int dial(struct agent *a, const struct dom_chr *chr)
{
	const char *path = chr->type == DOM_CHR_UNIX && chr->source.n ? chr->source.v[0]->path : NULL;
	struct sockaddr_un to;
	struct err err = ERR_INIT;

	if (!path || address_of(a->guest->daemon, path, &to))
		return -ENOTCONN;
	a->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (a->fd >= 0 && !connect(a->fd, (struct sockaddr *)&to, sizeof(to)))
		a->watch = loop_fd_add(a->guest->daemon->loop, a->fd, EPOLLIN, ready, a, &err);
	if (a->watch)
		return 0;
	hang_up(a);
	return -ENOTCONN;
}

static struct agent *agent_of(struct guest *g)
{
	struct agent *a = g->agent;

	if (a)
		return a;
	a = calloc(1, sizeof(*a));
	if (!a)
		return NULL;
	*a = (struct agent){ .guest = g, .fd = -1, .queue_end = &a->queue };
	a->timer = timer_new(g->daemon->loop, unresponsive, a);
	if (!a->timer) {
		free(a);
		return NULL;
	}
	return g->agent = a;
}

/* Libvirt's words for each reason why there is none. */
static int available(struct rpc_call *call, struct guest *g, struct agent **out)
{
	const struct dom_chr *chr = g->live ? channel(g) : NULL;
	struct agent *a;

	if (!g->live || g->state != STATE_RUNNING)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "domain is not running");
	if (!chr)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_ARGUMENT_UNSUPPORTED, "QEMU guest agent is not configured");
	*out = a = agent_of(g);
	if (!a)
		return call_fail_memory(call);
	if (!chr->target->state || strcmp(chr->target->state, "connected") || (a->fd < 0 && dial(a, chr)))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_AGENT_UNRESPONSIVE, "QEMU guest agent is not connected");
	return 0;
}

/* ---- Commands -------------------------------------------------------------- */

static void kick(struct agent *a)
{
	char *text;
	int len;

	if (a->busy || !a->queue)
		return;
	a->busy = true;
	if (a->fd < 0) {
		fail_head(a, VIR_ERR_AGENT_UNRESPONSIVE, "QEMU guest agent is not connected");
		return;
	}
	len = asprintf(&text, "%c{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%lld}}\n", DELIMITER, (long long)++a->id);
	if (len < 0) {
		fail_head(a, VIR_ERR_NO_MEMORY, "a message to the agent");
		return;
	}
	wait_for(a, a->guest->agent_timeout >= 0 && a->guest->agent_timeout < SYNC_SECONDS ? a->guest->agent_timeout : SYNC_SECONDS);
	put(a, text, len);
}

/* Takes the text. */
static int enqueue(struct rpc_call *call, struct guest *g, const char *name, char *text, int seconds, unsigned flags, guest_answer fn)
{
	struct request *r = text ? calloc(1, sizeof(*r)) : NULL;
	struct agent *a = NULL;

	if (!r || available(call, g, &a)) {
		free(text);
		free(r);
		return r ? -1 : call_fail_memory(call);
	}
	*r = (struct request){ .call = call, .text = text, .seconds = seconds, .flags = flags, .fn = fn };
	snprintf(r->name, sizeof(r->name), "%s", name);
	*a->queue_end = r;
	a->queue_end = &r->next;
	kick(a);
	return RPC_LATER;
}

int guest_agent(struct rpc_call *call, struct guest *g, const char *command, json_t *args, unsigned flags, guest_answer fn)
{
	json_t *message = json_pack("{s:s}", "execute", command);
	char *text;

	if (args)
		json_object_set_new(message, "arguments", args);
	text = json_dumps(message, JSON_COMPACT);
	json_decref(message);
	return enqueue(call, g, command, text, flags & AGENT_ENDS ? AGENT_SHUTDOWN_SECONDS : g->agent_timeout, flags, fn);
}

int guest_agent_text(struct rpc_call *call, struct guest *g, const char *text, int seconds, guest_answer fn)
{
	return enqueue(call, g, "", strdup(text), seconds, AGENT_RAW, fn);
}

void guest_agent_gone(struct guest *g)
{
	if (g->agent)
		lost(g->agent);
}

void guest_agent_guest_ended(struct guest *g)
{
	struct agent *a = g->agent;

	if (a && a->busy && (a->queue->flags & AGENT_ENDS))
		finish_head(a, NULL, false);
}

void guest_agent_free(struct guest *g)
{
	struct agent *a = g->agent;

	if (!a)
		return;
	hang_up(a);
	while (a->queue) {
		a->busy = true;
		fail_head(a, VIR_ERR_AGENT_UNRESPONSIVE, "the domain has ended");
	}
	g->agent = NULL;
	timer_free(a->timer);
	free(a->line);
	free(a);
}
