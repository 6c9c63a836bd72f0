/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/conn.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/open.h"
#include "lib/uri.h"
#include "util/loop.h"

#define FEATURE_PROGRAM_KEEPALIVE 10 /* VIR_DRV_FEATURE_PROGRAM_KEEPALIVE */

/* ---- Lives ----------------------------------------------------------------- */

struct keel_conn *conn_get(struct keel_conn *c)
{
	pthread_mutex_lock(&c->lock);
	c->refs++;
	pthread_mutex_unlock(&c->lock);
	return c;
}

static void conn_free(struct keel_conn *c)
{
	events_free(c);
	rpc_session_free(c->session);
	if (c->epoll >= 0)
		close(c->epoll);
	if (c->wake >= 0)
		close(c->wake);
	if (c->notice >= 0)
		close(c->notice);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

void conn_put(struct keel_conn *c)
{
	bool last;

	pthread_mutex_lock(&c->lock);
	last = !--c->refs;
	pthread_mutex_unlock(&c->lock);
	if (last)
		conn_free(c);
}

static struct keel_conn *conn_new(struct keel_error *error)
{
	struct keel_conn *c = calloc(1, sizeof(*c));
	pthread_condattr_t attr;

	if (!c) {
		error_no_memory(error);
		return NULL;
	}
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->changed, &attr);
	pthread_condattr_destroy(&attr);
	c->refs = 1;
	c->events_end = &c->events;
	c->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->notice = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (c->wake < 0 || c->notice < 0 || c->epoll < 0) {
		error_set(error, VIR_FROM_RPC, VIR_ERR_SYSTEM_ERROR, "cannot make a connection's descriptors: %s", strerror(errno));
		conn_free(c);
		return NULL;
	}
	return c;
}

/* ---- Waiting --------------------------------------------------------------- */

static void signal_fd(int fd)
{
	uint64_t one = 1;

	/* A full counter is signalled already. */
	if (write(fd, &one, sizeof(one)) < 0)
		return;
}

static void clear_fd(int fd)
{
	uint64_t count;

	if (read(fd, &count, sizeof(count)) < 0)
		return;
}

void conn_notice(struct keel_conn *c)
{
	signal_fd(c->notice);
}

static void watch_output(struct keel_conn *c)
{
	struct epoll_event ev = { .events = EPOLLIN };

	if (c->broken.code || rpc_session_wants_write(c->session) == c->epoll_out)
		return;
	c->epoll_out = !c->epoll_out;
	ev.events |= c->epoll_out ? EPOLLOUT : 0;
	epoll_ctl(c->epoll, EPOLL_CTL_MOD, rpc_session_fd(c->session), &ev);
}

void conn_sent(struct keel_conn *c)
{
	watch_output(c);
	if (c->epoll_out && c->reading)
		signal_fd(c->wake);
}

static void break_off(struct keel_conn *c, const struct rpc_error *e)
{
	if (c->broken.code)
		return;
	c->broken = *e;
	epoll_ctl(c->epoll, EPOLL_CTL_DEL, rpc_session_fd(c->session), NULL);
	shutdown(rpc_session_fd(c->session), SHUT_RDWR);
	conn_notice(c); /* whoever watches keel_fd() learns of it */
}

static void check_keepalive(struct keel_conn *c)
{
	struct rpc_error e = { 0 };

	if (!c->keepalive || c->broken.code || monotonic_ns() < c->next_ping)
		return;
	c->next_ping = monotonic_ns() + c->keepalive * UINT64_C(1000000000);
	if (c->silent++ >= c->keepalive_count) {
		rpc_error_set(&e, VIR_FROM_RPC, VIR_ERR_INTERNAL_ERROR, "connection closed due to keepalive timeout");
		break_off(c, &e);
	} else if (rpc_session_ping(c->session, &e)) {
		break_off(c, &e);
	}
}

/* Handle what has come, and let everybody look for his part. */
static void pump(struct keel_conn *c)
{
	struct rpc_error e = { 0 };
	int n = c->broken.code ? 0 : rpc_session_pump(c->session, &e);

	if (n < 0) {
		break_off(c, &e);
	} else if (n > 0) {
		c->silent = 0;
		if (c->keepalive)
			c->next_ping = monotonic_ns() + c->keepalive * UINT64_C(1000000000);
	}
	check_keepalive(c);
	watch_output(c);
	if (events_ready(c) || streams_readable(c))
		conn_notice(c);
	pthread_cond_broadcast(&c->changed);
}

static int milliseconds_until(uint64_t when)
{
	uint64_t now = monotonic_ns(), ms;

	if (!when)
		return -1;
	ms = when <= now ? 0 : (when - now + 999999) / 1000000;
	return ms > INT32_MAX ? INT32_MAX : (int)ms;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return !a ? b : !b || a < b ? a : b;
}

static void poll_for_all(struct keel_conn *c, uint64_t deadline)
{
	struct pollfd fds[2] = {
		{ .fd = rpc_session_fd(c->session), .events = (short)(POLLIN | (rpc_session_wants_write(c->session) ? POLLOUT : 0)) },
		{ .fd = c->wake, .events = POLLIN },
	};
	int ms = milliseconds_until(earlier(deadline, c->keepalive ? c->next_ping : 0));

	c->reading = true;
	pthread_mutex_unlock(&c->lock);
	poll(fds, 2, ms);
	pthread_mutex_lock(&c->lock);
	c->reading = false;
	clear_fd(c->wake);
	pump(c);
}

static void wait_for_others(struct keel_conn *c, uint64_t deadline)
{
	struct timespec ts = { .tv_sec = (time_t)(deadline / 1000000000), .tv_nsec = (long)(deadline % 1000000000) };

	if (deadline)
		pthread_cond_timedwait(&c->changed, &c->lock, &ts);
	else
		pthread_cond_wait(&c->changed, &c->lock);
}

int conn_wait(struct keel_conn *c, bool (*done)(void *arg), void *arg, uint64_t deadline, struct rpc_error *e)
{
	int ret = 0;

	while (!done(arg)) {
		if (c->broken.code) {
			*e = c->broken;
			ret = -1;
			break;
		}
		if (deadline && monotonic_ns() >= deadline) {
			ret = 1;
			break;
		}
		if (c->reading)
			wait_for_others(c, deadline);
		else
			poll_for_all(c, deadline);
	}
	/* If this thread was the reader, another takes over. */
	pthread_cond_broadcast(&c->changed);
	return ret;
}

/* ---- Calls ----------------------------------------------------------------- */

struct awaited {
	struct keel_conn *conn;
	uint32_t serial;
};

static bool is_answered(void *arg)
{
	const struct awaited *a = arg;

	return rpc_session_answered(a->conn->session, a->serial);
}

int conn_call(struct keel_conn *c, const struct rpc_program *program, uint32_t number, const void *args, void *ret,
	      struct arena *arena, struct keel_error *error)
{
	const struct rpc_proc *proc = rpc_proc_find(program, number);
	struct awaited a = { .conn = c };
	struct rpc_error e = { 0 };
	int status = -1;

	pthread_mutex_lock(&c->lock);
	if (c->broken.code) {
		e = c->broken;
	} else {
		a.serial = rpc_session_send(c->session, proc, args, NULL, 0, &e);
		if (!a.serial && e.code != VIR_ERR_RPC)
			break_off(c, &e);
		conn_sent(c);
	}
	if (a.serial && !conn_wait(c, is_answered, &a, 0, &e))
		status = rpc_session_wait(c->session, a.serial, proc, ret, arena, NULL, NULL, &e);
	pthread_mutex_unlock(&c->lock);
	return status ? error_from(error, &e) : 0;
}

/* ---- Opening and closing ---------------------------------------------------- */

static void on_event(void *opaque, const struct rpc_proc *proc, const void *msg)
{
	events_queue(opaque, proc, msg);
}

static void on_stream(void *opaque, const struct rpc_header *h, const void *payload, size_t len)
{
	streams_take(opaque, h, payload, len);
}

static int open_remote(struct keel_conn *c, const struct uri *uri, unsigned flags, struct keel_error *error)
{
	struct remote_connect_open_args args = { .name = uri->remote, .flags = flags & KEEL_OPEN_READONLY ? 1 : 0 };
	struct arena arena = { 0 };
	int ret = conn_call(c, &remote_program, REMOTE_PROC_CONNECT_OPEN, &args, NULL, &arena, error);

	arena_free(&arena);
	return ret;
}

struct keel_conn *keel_open_auth(const char *text, unsigned flags, keel_auth_fn fn, void *opaque, struct keel_error *error)
{
	static const struct rpc_session_ops ops = { .event = on_event, .stream = on_stream };
	struct epoll_event ev = { .events = EPOLLIN };
	struct err err = ERR_INIT;
	struct keel_conn *c;
	struct uri uri;

	if (!text)
		text = open_default_uri();
	if (uri_parse(&uri, text, &err)) {
		error_set(error, VIR_FROM_RPC, VIR_ERR_INVALID_ARG, "%s", err_msg(&err));
		uri_free(&uri);
		return NULL;
	}
	c = conn_new(error);
	if (!c) {
		uri_free(&uri);
		return NULL;
	}
	c->session = open_session(&uri, flags, &ops, c, &err);
	if (!c->session) {
		error_set(error, VIR_FROM_RPC, VIR_ERR_SYSTEM_ERROR, "%s", err_msg(&err));
		goto fail;
	}
	epoll_ctl(c->epoll, EPOLL_CTL_ADD, rpc_session_fd(c->session), &ev);
	ev.data.u32 = 1;
	epoll_ctl(c->epoll, EPOLL_CTL_ADD, c->notice, &ev);
	if (conn_authenticate(c, &uri, fn, opaque, error) || open_remote(c, &uri, flags, error))
		goto fail;
	uri_free(&uri);
	return c;
fail:
	uri_free(&uri);
	conn_put(c);
	return NULL;
}

struct keel_conn *keel_open(const char *uri, unsigned flags, struct keel_error *error)
{
	return keel_open_auth(uri, flags, NULL, NULL, error);
}

void keel_close(struct keel_conn *c)
{
	struct rpc_error e = { 0 };

	if (!c)
		return;
	rpc_error_set(&e, VIR_FROM_RPC, VIR_ERR_INTERNAL_ERROR, "the connection is closed");
	pthread_mutex_lock(&c->lock);
	break_off(c, &e);
	signal_fd(c->wake);
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	conn_put(c);
}

int keel_is_alive(struct keel_conn *c)
{
	bool alive;

	pthread_mutex_lock(&c->lock);
	alive = !c->broken.code;
	pthread_mutex_unlock(&c->lock);
	return alive;
}

/* ---- Others' loops --------------------------------------------------------- */

int keel_fd(struct keel_conn *c)
{
	return c->epoll;
}

int keel_timeout(struct keel_conn *c)
{
	int ms;

	pthread_mutex_lock(&c->lock);
	ms = c->broken.code || !c->keepalive ? -1 : milliseconds_until(c->next_ping);
	pthread_mutex_unlock(&c->lock);
	return ms;
}

int keel_dispatch(struct keel_conn *c, struct keel_error *error)
{
	struct rpc_error e;

	pthread_mutex_lock(&c->lock);
	clear_fd(c->notice);
	pump(c);
	/* What was read here may be what a polling thread waits for. */
	if (c->reading)
		signal_fd(c->wake);
	events_run(c);
	streams_run(c);
	e = c->broken;
	pthread_mutex_unlock(&c->lock);
	return e.code ? error_from(error, &e) : 0;
}

static bool has_work(void *arg)
{
	const struct keel_conn *c = arg;

	return events_ready(c) || streams_readable(c);
}

int keel_wait(struct keel_conn *c, int timeout_ms, struct keel_error *error)
{
	uint64_t deadline = timeout_ms < 0 ? 0 : monotonic_ns() + (uint64_t)timeout_ms * 1000000;
	struct rpc_error e = { 0 };

	pthread_mutex_lock(&c->lock);
	conn_wait(c, has_work, c, deadline, &e);
	pthread_mutex_unlock(&c->lock);
	return keel_dispatch(c, error);
}

int keel_set_keepalive(struct keel_conn *c, unsigned seconds, unsigned count, struct keel_error *error)
{
	struct remote_connect_supports_feature_args args = { .feature = FEATURE_PROGRAM_KEEPALIVE };
	struct remote_connect_supports_feature_ret ret = { 0 };
	struct arena arena = { 0 };
	int status = 0;

	if (seconds) {
		status = conn_call(c, &remote_program, REMOTE_PROC_CONNECT_SUPPORTS_FEATURE, &args, &ret, &arena, error);
		arena_free(&arena);
		if (status)
			return status;
		if (!ret.supported)
			return error_set(error, VIR_FROM_RPC, VIR_ERR_NO_SUPPORT, "the daemon gives no signs of life");
	}
	pthread_mutex_lock(&c->lock);
	c->keepalive = seconds;
	c->keepalive_count = count;
	c->silent = 0;
	c->next_ping = monotonic_ns() + seconds * UINT64_C(1000000000);
	if (c->reading)
		signal_fd(c->wake);
	conn_notice(c); /* keel_timeout() has changed */
	pthread_mutex_unlock(&c->lock);
	return 0;
}
