/* SPDX-License-Identifier: LGPL-2.1-or-later */
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

/* Reads of one client before others have their turn. */
#define READS_IN_A_ROW 4

const struct rpc_limits rpc_limits_default = {
	.clients = 5000,
	.logins = 64,
	.login_seconds = 30,
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

static bool listener_is_full(const struct listener *l)
{
	const struct rpc_server *s = l->server;

	/* Strangers that never log in must not keep those out who are known. */
	return s->nclients >= s->limits.clients || (l->transport != RPC_UNIX && s->nlogins >= s->limits.logins);
}

void server_accept_more(struct rpc_server *s)
{
	for (struct listener *l = s->listeners; l; l = l->next) {
		if (l->full == listener_is_full(l))
			continue;
		l->full = !l->full;
		loop_fd_events(l->watch, l->full ? 0 : EPOLLIN);
	}
}

static void client_put(struct rpc_client *c)
{
	if (--c->refs)
		return;
	free(c->groups);
	free(c->sasl_name);
	free(c->dn);
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
	if (c->logging_in)
		s->nlogins--;
	server_accept_more(s);
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

	if (c->broken || c->handshaking)
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
	if (c->conn.out || (rpc_conn_has_more(&c->conn) && !c->paused))
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

static struct rpc_who who_is(const struct rpc_client *c)
{
	return (struct rpc_who){
		.transport = c->transport,
		.uid = c->uid,
		.gid = c->gid,
		.groups = c->groups,
		.ngroups = c->ngroups,
		.dn = c->dn,
		.sasl = c->sasl_name,
	};
}

bool rpc_call_shows(const struct rpc_call *call, const char *name)
{
	const struct rpc_client *c = call->client;
	const struct rpc_proc *proc = call->proc;
	struct rpc_who who = who_is(c);

	if (c->broken || !c->server->access || !proc->filter_object)
		return true;
	return rpc_access_may(c->server->access, &who, proc->filter_object, proc->filter_permission, name);
}

void rpc_client_event(struct rpc_client *c, const struct rpc_proc *proc, const void *msg)
{
	struct rpc_who who = who_is(c);
	struct rpc_header h = {
		.program = proc->program->number,
		.version = proc->program->version,
		.procedure = proc->number,
		.type = RPC_MESSAGE,
	};

	if (c->broken || (c->server->access && !rpc_access_event(c->server->access, &who, proc, msg)))
		return;
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
		struct rpc_who who = who_is(c);

		if (!call->error.code && c->server->access)
			rpc_access_check_result(c->server->access, &who, call);
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
	if (s->access) {
		struct rpc_who who = who_is(c);

		if (rpc_access_check(s->access, &who, s->access_names, call))
			return -1;
	}
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
	if (c->handshaking)
		ret = login_handshake(c);
	if (c->handshaking) {
		if (ret < 0)
			client_break(c);
		client_put(c);
		return;
	}
	if (!ret && events & EPOLLOUT) {
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

/* The groups besides the first, of who made the connection. */
static void read_groups(struct rpc_client *c)
{
	socklen_t len = 0;

	if (!getsockopt(c->conn.fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &len) || errno != ERANGE || !len)
		return;
	c->groups = malloc(len);
	if (c->groups && !getsockopt(c->conn.fd, SOL_SOCKET, SO_PEERGROUPS, c->groups, &len))
		c->ngroups = len / sizeof(gid_t);
}

/* A client of no listener's yet. Takes the descriptor, also on failure. */
static struct rpc_client *client_new(struct rpc_server *s, int fd, struct err *err)
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
	c->pid = cred.pid;
	c->uid = cred.uid;
	c->gid = cred.gid;
	if (cred.uid != (uid_t)-1)
		read_groups(c);
	return c;
}

static void client_add(struct rpc_client *c)
{
	struct rpc_server *s = c->server;

	c->next = s->clients;
	c->prev = &s->clients;
	if (c->next)
		c->next->prev = &c->next;
	s->clients = c;
	s->nclients++;
	if (s->ops->opened)
		s->ops->opened(c);
	server_accept_more(s);
}

struct rpc_client *rpc_server_add(struct rpc_server *s, int fd, bool readonly, struct err *err)
{
	struct rpc_client *c = client_new(s, fd, err);

	if (!c)
		return NULL;
	c->readonly = readonly;
	client_add(c);
	return c;
}

static struct rpc_client *add_remote(struct listener *l, int fd, struct err *err)
{
	struct rpc_client *c = client_new(l->server, fd, err);

	if (!c)
		return NULL;
	c->transport = l->transport;
	if (login_begin(c, l->tls, err)) {
		loop_fd_del(c->watch);
		rpc_conn_close(&c->conn);
		free(c);
		return NULL;
	}
	client_add(c);
	return c;
}

static void on_listener(void *opaque, uint32_t events)
{
	struct listener *l = opaque;
	int fd;

	(void)events;
	while (!listener_is_full(l) && (fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
		struct err err = ERR_INIT;

		if (l->transport == RPC_UNIX ? !rpc_server_add(l->server, fd, l->readonly, &err) : !add_remote(l, fd, &err))
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
	timer_free(s->login_timer);
	rpc_access_free(s->access);
	for (unsigned n = 0; n < PROGRAMS_MAX; n++)
		free(s->handlers[n]);
	free(s);
}

void *rpc_server_opaque(const struct rpc_server *s)
{
	return s->opaque;
}

static int listen_any(struct rpc_server *s, int fd, const struct listener *kind, struct err *err)
{
	struct listener *l = malloc(sizeof(*l));

	if (!l) {
		close(fd);
		return err_set(err, ENOMEM, "no memory for a listening socket");
	}
	*l = *kind;
	l->server = s;
	l->fd = fd;
	l->full = listener_is_full(l);
	l->watch = loop_fd_add(s->loop, fd, l->full ? 0 : EPOLLIN, on_listener, l, err);
	if (!l->watch) {
		close(fd);
		free(l);
		return err ? -err->code : -ENOMEM;
	}
	l->next = s->listeners;
	s->listeners = l;
	return 0;
}

int rpc_server_listen(struct rpc_server *s, int fd, bool readonly, struct err *err)
{
	return listen_any(s, fd, &(struct listener){ .transport = RPC_UNIX, .readonly = readonly }, err);
}

int rpc_server_listen_remote(struct rpc_server *s, int fd, struct rpc_tls *tls, struct err *err)
{
	return listen_any(s, fd, &(struct listener){ .transport = tls ? RPC_TLS : RPC_TCP, .tls = tls }, err);
}

void rpc_server_set_access(struct rpc_server *s, struct rpc_access *rules, const struct rpc_access_names *names)
{
	rpc_access_free(s->access);
	s->access = rules;
	s->access_names = names;
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

enum rpc_transport rpc_client_transport(const struct rpc_client *c)
{
	return c->transport;
}

const char *rpc_client_dn(const struct rpc_client *c)
{
	return c->dn;
}

const char *rpc_client_sasl_name(const struct rpc_client *c)
{
	return c->sasl_name;
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
