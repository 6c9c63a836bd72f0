/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "rpc/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/access.h"
#include "rpc/server_int.h"
#include "util/log.h"

#define PROGRAMS_MAX 8

/* Reads of one client before others have their turn. */
#define READS_IN_A_ROW 4

struct listener {
	struct listener *next;
	struct rpc_server *server;
	struct loop_fd *watch;
	int fd;
	bool readonly;
};

struct rpc_server {
	struct loop *loop;
	const struct rpc_server_ops *ops;
	void *opaque;
	struct rpc_limits limits;
	struct listener *listeners;
	struct rpc_client *clients;
	unsigned nclients;
	bool full;			     /* accepting nobody */
	rpc_handler *handlers[PROGRAMS_MAX]; /* by program's place in rpc_programs, then by number */
	struct timer *keepalive;
	unsigned keepalive_seconds, keepalive_count;
};

const struct rpc_limits rpc_limits_default = {
	.clients = 5000,
	.calls = 20,
	.streams = 32,
	.call_memory = 96u << 20,
	.out_pause = 4u << 20,
	.out_max = 96u << 20,
};

static unsigned program_index(const struct rpc_program *program)
{
	unsigned n = 0;

	while (rpc_programs[n] != program)
		n++;
	return n;
}

const struct rpc_limits *rpc_server_limits(const struct rpc_server *s)
{
	return &s->limits;
}

/* ---- Clients' lives ------------------------------------------------------- */

static void accept_again(struct rpc_server *s, bool on)
{
	if (s->full == !on)
		return;
	s->full = !on;
	for (struct listener *l = s->listeners; l; l = l->next)
		loop_fd_events(l->watch, on ? EPOLLIN : 0);
}

static void client_put(struct rpc_client *c)
{
	if (--c->refs)
		return;
	free(c);
}

static void client_break(struct rpc_client *c)
{
	struct rpc_server *s = c->server;

	if (c->broken)
		return;
	c->broken = true;
	loop_fd_del(c->watch);
	streams_close_all(c);
	if (s->ops->closed)
		s->ops->closed(c);
	rpc_conn_close(&c->conn);
	c->server = NULL;
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	s->nclients--;
	accept_again(s, true);
	client_put(c);
}

static bool must_pause(const struct rpc_client *c)
{
	const struct rpc_limits *l = &c->server->limits;

	return c->closing || c->ncalls >= l->calls || c->conn.out_bytes > l->out_pause || streams_are_full(c);
}

static bool is_done(const struct rpc_client *c)
{
	return c->doomed || (c->closing && !c->ncalls && !c->conn.out);
}

void client_touch(struct rpc_client *c)
{
	uint32_t events;

	if (c->broken)
		return;
	if (!c->doomed && rpc_conn_flush(&c->conn))
		c->doomed = true;
	if (!c->doomed && c->conn.out_bytes > c->server->limits.out_max) {
		log_line(LOG_WARN, "a client (process %d) does not read its answers: closing its connection",
			 (int)c->pid);
		c->doomed = true;
	}
	/* Whatever the socket's state, this makes an event in which the client ends. */
	if (is_done(c))
		shutdown(c->conn.fd, SHUT_RDWR);
	c->paused = must_pause(c);
	events = c->paused ? 0 : EPOLLIN;
	if (c->conn.out || (c->conn.held && !c->paused))
		events |= EPOLLOUT;
	if (events != c->events)
		loop_fd_events(c->watch, events);
	c->events = events;
}

/* ---- Sending -------------------------------------------------------------- */

void client_send_writer(struct rpc_client *c, struct xdr_writer *w, const int *fds, unsigned nfds)
{
	int ret = 0;

	if (c->broken) {
		xdr_writer_free(w);
		return;
	}
	if (!rpc_frame_end(w)) {
		xdr_writer_free(w);
		ret = -ENOMEM;
	} else {
		ret = rpc_conn_send(&c->conn, w, fds, nfds);
	}
	if (ret)
		c->doomed = true;
}

void client_send(struct rpc_client *c, const struct rpc_header *h, const struct wire_type *type, const void *obj)
{
	struct xdr_writer w = rpc_frame_writer();

	rpc_frame_begin(&w, h, 0);
	wire_encode(type, &w, obj);
	client_send_writer(c, &w, NULL, 0);
}

void client_send_error(struct rpc_client *c, const struct rpc_header *h, const struct rpc_error *error)
{
	struct remote_error e = rpc_error_to_wire(error);
	struct rpc_header header = *h;

	header.status = RPC_ERROR;
	client_send(c, &header, &wire_remote_error, &e);
}

void rpc_client_event(struct rpc_client *c, const struct rpc_proc *proc, const void *msg)
{
	struct rpc_header h = {
		.program = proc->program->number,
		.version = proc->program->version,
		.procedure = proc->number,
		.type = RPC_MESSAGE,
	};

	client_send(c, &h, proc->args, msg);
	client_touch(c);
}

/* ---- Calls ---------------------------------------------------------------- */

static void close_all(const int *fds, unsigned n)
{
	while (n--)
		if (fds[n] >= 0)
			close(fds[n]);
}

/* The result, or an error if it turns out not to fit a message. */
static void send_result(struct rpc_client *c, struct rpc_call *call, struct rpc_header h)
{
	struct xdr_writer w = rpc_frame_writer();

	h.type = call->reply_nfds ? RPC_REPLY_WITH_FDS : RPC_REPLY;
	rpc_frame_begin(&w, &h, call->reply_nfds);
	if (wire_encode(call->proc->ret, &w, call->ret)) {
		client_send_writer(c, &w, call->reply_fds, call->reply_nfds);
		return;
	}
	xdr_writer_free(&w);
	rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_RPC, "Unable to encode message payload");
	h.type = RPC_REPLY;
	client_send_error(c, &h, &call->error);
}

static void answer(struct rpc_call *call)
{
	struct rpc_client *c = call->client;
	struct rpc_header h = {
		.program = call->proc->program->number,
		.version = call->proc->program->version,
		.procedure = call->proc->number,
		.type = RPC_REPLY,
		.serial = call->serial,
	};

	if (call->next)
		call->next->prev = call->prev;
	*call->prev = call->next;
	c->ncalls--;
	if (!c->broken) {
		if (call->error.code)
			client_send_error(c, &h, &call->error);
		else
			send_result(c, call, h);
	}
	close_all(call->fds, call->nfds);
	close_all(call->reply_fds, call->reply_nfds);
	arena_free(&call->arena);
	free(call);
	client_put(c);
}

void rpc_call_finish(struct rpc_call *call)
{
	struct rpc_client *c = call->client;

	c->refs++;
	answer(call);
	client_touch(c);
	client_put(c);
}

static struct rpc_call *call_new(struct rpc_client *c, struct rpc_packet *p, const struct rpc_proc *proc)
{
	struct rpc_call *call = calloc(1, sizeof(*call));

	if (!call)
		return NULL;
	call->client = c;
	call->proc = proc;
	call->serial = p->header.serial;
	call->arena.max = c->server->limits.call_memory;
	call->nfds = p->nfds;
	for (unsigned n = 0; n < p->nfds; n++) {
		call->fds[n] = p->fds[n];
		p->fds[n] = -1;
	}
	call->next = c->calls;
	call->prev = &c->calls;
	if (call->next)
		call->next->prev = &call->next;
	c->calls = call;
	c->ncalls++;
	c->refs++;
	return call;
}

/* Decode, check, run. Returns what a handler returns. */
static int serve(struct rpc_call *call, const struct rpc_packet *p)
{
	struct rpc_client *c = call->client;
	struct rpc_server *s = c->server;
	const struct rpc_proc *proc = call->proc;
	struct xdr_reader r = xdr_reader(p->payload, p->payload_len);
	rpc_handler fn = s->handlers[program_index(proc->program)][proc->number];

	if (proc->args)
		call->args = arena_alloc(&call->arena, proc->args->size);
	if (proc->ret)
		call->ret = arena_alloc(&call->arena, proc->ret->size);
	if ((proc->args && !call->args) || (proc->ret && !call->ret))
		return rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_NO_MEMORY, "%s", proc->function);
	if (!wire_decode(proc->args, &r, call->args, &call->arena))
		return rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_RPC, "Unable to decode message payload");
	if (s->ops->admit && s->ops->admit(call))
		return -1;
	if (c->readonly && !rpc_access_readonly(proc, call->args))
		return rpc_call_fail(call, VIR_FROM_REMOTE, VIR_ERR_OPERATION_DENIED, "read only access prevents %s",
				     proc->function);
	if (!fn)
		return rpc_call_fail(call, VIR_FROM_REMOTE, VIR_ERR_NO_SUPPORT, "%s", proc->function);
	return fn(call);
}

static int on_call(struct rpc_client *c, struct rpc_packet *p)
{
	const struct rpc_program *program = rpc_program_find(p->header.program);
	struct rpc_header h = p->header;
	const struct rpc_proc *proc;
	struct rpc_error error = { 0 };
	struct rpc_call *call;

	h.type = RPC_REPLY;
	if (!program || program->version != h.version) {
		rpc_error_set(&error, VIR_FROM_RPC, VIR_ERR_RPC, "Cannot find program %d version %d", (int)h.program,
			      (int)h.version);
		client_send_error(c, &h, &error);
		return 0;
	}
	proc = rpc_proc_find(program, h.procedure);
	if (!proc || proc->is_event) {
		rpc_error_set(&error, VIR_FROM_RPC, VIR_ERR_RPC, "unknown procedure: %d", (int)h.procedure);
		client_send_error(c, &h, &error);
		return 0;
	}
	if (h.status != RPC_OK) {
		rpc_error_set(&error, VIR_FROM_RPC, VIR_ERR_RPC, "Unexpected message status %u", h.status);
		client_send_error(c, &h, &error);
		return 0;
	}
	call = call_new(c, p, proc);
	if (!call)
		return -ENOMEM;
	if (serve(call, p) != RPC_LATER)
		answer(call);
	return 0;
}

static int on_keepalive(struct rpc_client *c, const struct rpc_packet *p)
{
	struct rpc_header pong = p->header;

	if (p->header.version != KEEPALIVE_VERSION || p->header.type != RPC_MESSAGE || p->payload_len)
		return -EPROTO;
	if (p->header.procedure == KEEPALIVE_PONG)
		return 0;
	if (p->header.procedure != KEEPALIVE_PING)
		return -EPROTO;
	pong.procedure = KEEPALIVE_PONG;
	return rpc_conn_send_empty(&c->conn, &pong);
}

static int on_packet(void *opaque, struct rpc_packet *p)
{
	struct rpc_client *c = opaque;
	int ret;

	if (p->header.program == KEEPALIVE_PROGRAM) {
		ret = on_keepalive(c, p);
	} else {
		switch (p->header.type) {
		case RPC_CALL:
		case RPC_CALL_WITH_FDS:
			ret = on_call(c, p);
			break;
		case RPC_STREAM:
		case RPC_STREAM_HOLE:
			ret = streams_packet(c, p);
			break;
		default: /* an answer or an event: not for a server */
			ret = -EPROTO;
		}
	}
	if (c->broken || c->doomed)
		return -EPIPE;
	if (ret)
		return ret;
	return must_pause(c) ? RPC_CONN_PAUSE : 0;
}

static void on_client(void *opaque, uint32_t events)
{
	struct rpc_client *c = opaque;
	int ret = 0;

	c->refs++;
	if (events & EPOLLOUT) {
		ret = rpc_conn_flush(&c->conn);
		if (!ret)
			streams_ready(c);
	}
	for (int n = 0; !ret && !c->broken && !must_pause(c) && n < READS_IN_A_ROW; n++) {
		ret = rpc_conn_read(&c->conn, on_packet, c);
		if (!ret || ret == RPC_CONN_PAUSE)
			c->silent = 0;
	}
	/* Nobody is told when a paused client hangs up; nothing it could want is lost by ending it now. */
	if (!c->broken && (events & EPOLLERR || (events & EPOLLHUP && must_pause(c))))
		ret = -EPIPE;
	if (!c->broken && !(ret < 0 && ret != -EAGAIN))
		client_touch(c);
	if (!c->broken && ((ret < 0 && ret != -EAGAIN) || is_done(c)))
		client_break(c);
	client_put(c);
}

/* ---- The server ----------------------------------------------------------- */

struct rpc_client *rpc_server_add(struct rpc_server *s, int fd, bool readonly, struct err *err)
{
	struct rpc_client *c = calloc(1, sizeof(*c));
	struct ucred cred = { .uid = (uid_t)-1, .gid = (gid_t)-1 };
	socklen_t len = sizeof(cred);

	if (!c) {
		err_set(err, ENOMEM, "no memory for a client");
		close(fd);
		return NULL;
	}
	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
	rpc_conn_init(&c->conn, fd);
	c->watch = loop_fd_add(s->loop, fd, EPOLLIN, on_client, c, err);
	if (!c->watch) {
		rpc_conn_close(&c->conn);
		free(c);
		return NULL;
	}
	c->server = s;
	c->events = EPOLLIN;
	c->refs = 1;
	c->readonly = readonly;
	c->pid = cred.pid;
	c->uid = cred.uid;
	c->gid = cred.gid;
	c->next = s->clients;
	c->prev = &s->clients;
	if (c->next)
		c->next->prev = &c->next;
	s->clients = c;
	s->nclients++;
	if (s->nclients >= s->limits.clients)
		accept_again(s, false);
	if (s->ops->opened)
		s->ops->opened(c);
	return c;
}

static void on_listener(void *opaque, uint32_t events)
{
	struct listener *l = opaque;
	int fd;

	(void)events;
	while (!l->server->full && (fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
		struct err err = ERR_INIT;

		if (!rpc_server_add(l->server, fd, l->readonly, &err))
			log_line(LOG_WARN, "a client is turned away: %s", err_msg(&err));
	}
}

struct rpc_server *rpc_server_new(struct loop *loop, const struct rpc_server_ops *ops, void *opaque,
				  const struct rpc_limits *limits, struct err *err)
{
	static const struct rpc_server_ops none;
	struct rpc_server *s = calloc(1, sizeof(*s));

	if (!s)
		goto fail;
	s->loop = loop;
	s->ops = ops ? ops : &none;
	s->opaque = opaque;
	s->limits = limits ? *limits : rpc_limits_default;
	for (unsigned n = 0; rpc_programs[n]; n++) {
		s->handlers[n] = calloc(rpc_programs[n]->nprocs, sizeof(rpc_handler));
		if (!s->handlers[n])
			goto fail;
	}
	return s;
fail:
	err_set(err, ENOMEM, "no memory for an RPC server");
	rpc_server_free(s);
	return NULL;
}

void rpc_server_free(struct rpc_server *s)
{
	if (!s)
		return;
	while (s->listeners) {
		struct listener *l = s->listeners;

		s->listeners = l->next;
		loop_fd_del(l->watch);
		close(l->fd);
		free(l);
	}
	while (s->clients)
		client_break(s->clients);
	timer_free(s->keepalive);
	for (unsigned n = 0; n < PROGRAMS_MAX; n++)
		free(s->handlers[n]);
	free(s);
}

void *rpc_server_opaque(const struct rpc_server *s)
{
	return s->opaque;
}

int rpc_server_listen(struct rpc_server *s, int fd, bool readonly, struct err *err)
{
	struct listener *l = calloc(1, sizeof(*l));

	if (!l) {
		close(fd);
		return err_set(err, ENOMEM, "no memory for a listening socket");
	}
	*l = (struct listener){ .server = s, .fd = fd, .readonly = readonly };
	l->watch = loop_fd_add(s->loop, fd, s->full ? 0 : EPOLLIN, on_listener, l, err);
	if (!l->watch) {
		close(fd);
		free(l);
		return err ? -err->code : -ENOMEM;
	}
	l->next = s->listeners;
	s->listeners = l;
	return 0;
}

void rpc_server_handle(struct rpc_server *s, const struct rpc_program *program, uint32_t number, rpc_handler fn)
{
	if (rpc_proc_find(program, number))
		s->handlers[program_index(program)][number] = fn;
}

bool rpc_server_has(const struct rpc_server *s, const struct rpc_program *program, uint32_t number)
{
	return rpc_proc_find(program, number) && s->handlers[program_index(program)][number];
}

static void on_keepalive_timer(void *opaque)
{
	static const struct rpc_header ping = {
		.program = KEEPALIVE_PROGRAM,
		.version = KEEPALIVE_VERSION,
		.procedure = KEEPALIVE_PING,
		.type = RPC_MESSAGE,
	};
	struct rpc_server *s = opaque;

	for (struct rpc_client *c = s->clients; c; c = c->next) {
		/* Whoever isn't read from can't be heard either. */
		if (!c->keepalive || c->paused)
			continue;
		if (c->silent++ >= s->keepalive_count || rpc_conn_send_empty(&c->conn, &ping))
			c->doomed = true;
		client_touch(c);
	}
	timer_arm(s->keepalive, monotonic_ns() + s->keepalive_seconds * UINT64_C(1000000000));
}

int rpc_server_set_keepalive(struct rpc_server *s, unsigned seconds, unsigned count)
{
	if (!s->keepalive)
		s->keepalive = timer_new(s->loop, on_keepalive_timer, s);
	if (!s->keepalive)
		return -ENOMEM;
	s->keepalive_seconds = seconds;
	s->keepalive_count = count;
	if (seconds)
		timer_arm(s->keepalive, monotonic_ns() + seconds * UINT64_C(1000000000));
	else
		timer_cancel(s->keepalive);
	return 0;
}

unsigned rpc_server_clients(const struct rpc_server *s)
{
	return s->nclients;
}

void rpc_client_set_data(struct rpc_client *c, void *data)
{
	c->data = data;
}

void *rpc_client_data(const struct rpc_client *c)
{
	return c->data;
}

struct rpc_server *rpc_client_server(const struct rpc_client *c)
{
	return c->server;
}

bool rpc_client_is_readonly(const struct rpc_client *c)
{
	return c->readonly;
}

void rpc_client_set_readonly(struct rpc_client *c)
{
	c->readonly = true;
}

void rpc_client_cred(const struct rpc_client *c, pid_t *pid, uid_t *uid, gid_t *gid)
{
	*pid = c->pid;
	*uid = c->uid;
	*gid = c->gid;
}

void rpc_client_keepalive(struct rpc_client *c)
{
	c->keepalive = true;
	c->silent = 0;
}

void rpc_client_close(struct rpc_client *c)
{
	c->closing = true;
	client_touch(c);
}
