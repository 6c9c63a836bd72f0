/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "rpc/conn.h"
#include "rpc/tls.h"
#include "util/loop.h"

/* An answer that came before somebody waited for it. */
struct answer {
	struct answer *next;
	struct rpc_header header;
	int fds[RPC_FDS_MAX];
	unsigned nfds;
	size_t len;
	uint8_t data[];
};

struct rpc_session {
	struct rpc_conn conn;
	const struct rpc_session_ops *ops;
	void *opaque;
	uint32_t serial;
	unsigned timeout_ms;
	unsigned packets; /* handled so far */
	struct answer *answers;
	struct rpc_tls *tls;
};

struct rpc_session *rpc_session_new(int fd, const struct rpc_session_ops *ops, void *opaque, struct err *err)
{
	static const struct rpc_session_ops none;
	struct rpc_session *s = calloc(1, sizeof(*s));

	if (!s) {
		err_set(err, ENOMEM, "no memory for a connection");
		close(fd);
		return NULL;
	}
	rpc_conn_init(&s->conn, fd);
	s->ops = ops ? ops : &none;
	s->opaque = opaque;
	s->timeout_ms = 30000;
	return s;
}

struct rpc_session *rpc_session_open(const char *path, const struct rpc_session_ops *ops, void *opaque, struct err *err)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(a.sun_path)) {
		err_set(err, ENAMETOOLONG, "the socket path %s is longer than %zu bytes", path, sizeof(a.sun_path) - 1);
		return NULL;
	}
	strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&a, sizeof(a))) {
		err_set_errno(err, errno, "cannot connect to %s", path);
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	return rpc_session_new(fd, ops, opaque, err);
}

static void answer_free(struct answer *a)
{
	for (unsigned n = 0; n < a->nfds; n++)
		if (a->fds[n] >= 0)
			close(a->fds[n]);
	free(a);
}

void rpc_session_free(struct rpc_session *s)
{
	if (!s)
		return;
	while (s->answers) {
		struct answer *a = s->answers;

		s->answers = a->next;
		answer_free(a);
	}
	rpc_conn_close(&s->conn);
	rpc_tls_free(s->tls);
	free(s);
}

void rpc_session_set_layer(struct rpc_session *s, struct rpc_layer *layer, struct rpc_tls *tls)
{
	if (layer)
		rpc_conn_set_layer(&s->conn, layer);
	if (tls)
		s->tls = tls;
}

void rpc_session_set_timeout(struct rpc_session *s, unsigned ms)
{
	s->timeout_ms = ms;
}

static int keep_answer(struct rpc_session *s, struct rpc_packet *p)
{
	struct answer *a = malloc(sizeof(*a) + p->payload_len), **end = &s->answers;

	if (!a)
		return -ENOMEM;
	a->next = NULL;
	a->header = p->header;
	a->nfds = p->nfds;
	a->len = p->payload_len;
	memcpy(a->data, p->payload, p->payload_len);
	for (unsigned n = 0; n < p->nfds; n++) {
		a->fds[n] = p->fds[n];
		p->fds[n] = -1;
	}
	while (*end)
		end = &(*end)->next;
	*end = a;
	return 0;
}

static int on_event(struct rpc_session *s, const struct rpc_packet *p)
{
	const struct rpc_program *program = rpc_program_find(p->header.program);
	const struct rpc_proc *proc = program ? rpc_proc_find(program, p->header.procedure) : NULL;
	struct xdr_reader r = xdr_reader(p->payload, p->payload_len);
	struct arena arena = { 0 };
	void *msg = NULL;
	int ret = 0;

	/* A newer server may know events that we don't. */
	if (!proc || !proc->is_event || !s->ops->event)
		return 0;
	if (proc->args)
		msg = arena_alloc(&arena, proc->args->size);
	if (proc->args && !msg)
		ret = -ENOMEM;
	else if (!wire_decode(proc->args, &r, msg, &arena))
		ret = -EPROTO;
	else
		s->ops->event(s->opaque, proc, msg);
	arena_free(&arena);
	return ret;
}

static int on_packet(void *opaque, struct rpc_packet *p)
{
	struct rpc_session *s = opaque;
	struct rpc_header h = p->header;
	int ret = 0;

	s->packets++;
	if (h.program == KEEPALIVE_PROGRAM) {
		if (h.procedure != KEEPALIVE_PING)
			return RPC_CONN_PAUSE;
		h.procedure = KEEPALIVE_PONG;
		ret = rpc_conn_send_empty(&s->conn, &h);
		if (!ret)
			ret = rpc_conn_flush(&s->conn);
		return ret ? ret : RPC_CONN_PAUSE;
	}
	switch (h.type) {
	case RPC_REPLY:
	case RPC_REPLY_WITH_FDS:
		ret = keep_answer(s, p);
		break;
	case RPC_MESSAGE:
		ret = on_event(s, p);
		break;
	case RPC_STREAM:
	case RPC_STREAM_HOLE:
		if (s->ops->stream)
			s->ops->stream(s->opaque, &p->header, p->payload, p->payload_len);
		break;
	default:
		return -EPROTO;
	}
	/* One packet a step, so that a wait ends with its answer. */
	return ret ? ret : RPC_CONN_PAUSE;
}

static int lost(struct rpc_error *e, int ret)
{
	return rpc_error_set(e, VIR_FROM_RPC, VIR_ERR_INTERNAL_ERROR, "client socket is closed: %s",
			     ret == -EPROTO ? "the server sent something that is no packet" : strerror(-ret));
}

/* Until the socket is readable; writes what is queued meanwhile. 0, or a negative errno. */
static int wait_readable(struct rpc_session *s, uint64_t deadline)
{
	for (;;) {
		struct pollfd pfd = { .fd = s->conn.fd, .events = POLLIN };
		int ret = rpc_conn_flush(&s->conn), ms = -1;

		if (ret)
			return ret;
		if (rpc_conn_has_more(&s->conn))
			return 0;
		if (s->conn.out)
			pfd.events |= POLLOUT;
		if (deadline) {
			uint64_t now = monotonic_ns();

			if (now >= deadline)
				return -ETIMEDOUT;
			ms = (int)((deadline - now) / 1000000) + 1;
		}
		ret = poll(&pfd, 1, ms);
		if (ret < 0 && errno != EINTR)
			return -errno;
		if (ret > 0 && pfd.revents & (POLLIN | POLLHUP | POLLERR))
			return 0;
	}
}

static uint64_t deadline_of(const struct rpc_session *s)
{
	return s->timeout_ms ? monotonic_ns() + s->timeout_ms * UINT64_C(1000000) : 0;
}

static int step(struct rpc_session *s, uint64_t deadline, struct rpc_error *e)
{
	unsigned before = s->packets;
	int ret = rpc_conn_unhold(&s->conn, on_packet, s);

	while (ret >= 0 && s->packets == before) {
		ret = wait_readable(s, deadline);
		if (!ret)
			ret = rpc_conn_read(&s->conn, on_packet, s);
		if (ret == -EAGAIN)
			ret = 0;
	}
	return ret < 0 ? lost(e, ret) : 0;
}

int rpc_session_step(struct rpc_session *s, struct rpc_error *e)
{
	return step(s, deadline_of(s), e);
}

int rpc_session_fd(const struct rpc_session *s)
{
	return s->conn.fd;
}

bool rpc_session_wants_write(const struct rpc_session *s)
{
	return s->conn.out;
}

int rpc_session_pump(struct rpc_session *s, struct rpc_error *e)
{
	unsigned before = s->packets;
	int ret = rpc_conn_flush(&s->conn);

	while (!ret || ret == RPC_CONN_PAUSE)
		ret = rpc_conn_read(&s->conn, on_packet, s);
	return ret == -EAGAIN ? (int)(s->packets - before) : lost(e, ret);
}

bool rpc_session_answered(const struct rpc_session *s, uint32_t serial)
{
	const struct answer *a = s->answers;

	while (a && a->header.serial != serial)
		a = a->next;
	return a;
}

int rpc_session_ping(struct rpc_session *s, struct rpc_error *e)
{
	static const struct rpc_header ping = {
		.program = KEEPALIVE_PROGRAM,
		.version = KEEPALIVE_VERSION,
		.procedure = KEEPALIVE_PING,
		.type = RPC_MESSAGE,
	};
	int ret = rpc_conn_send_empty(&s->conn, &ping);

	if (!ret)
		ret = rpc_conn_flush(&s->conn);
	return ret ? lost(e, ret) : 0;
}

static struct rpc_header header_of(const struct rpc_proc *proc, enum rpc_type type, uint32_t serial)
{
	return (struct rpc_header){
		.program = proc->program->number,
		.version = proc->program->version,
		.procedure = proc->number,
		.type = type,
		.serial = serial,
	};
}

static int finish(struct rpc_session *s, struct xdr_writer *w, const int *fds, unsigned nfds, struct rpc_error *e)
{
	int ret;

	if (!rpc_frame_end(w)) {
		xdr_writer_free(w);
		return rpc_error_set(e, VIR_FROM_RPC, VIR_ERR_RPC, "Unable to encode message payload");
	}
	ret = rpc_conn_send(&s->conn, w, fds, nfds);
	if (!ret)
		ret = rpc_conn_flush(&s->conn);
	return ret ? lost(e, ret) : 0;
}

uint32_t rpc_session_send(struct rpc_session *s, const struct rpc_proc *proc, const void *args, const int *fds,
			  unsigned nfds, struct rpc_error *e)
{
	struct xdr_writer w = rpc_frame_writer();
	uint32_t serial = ++s->serial ? s->serial : ++s->serial;
	struct rpc_header h = header_of(proc, nfds ? RPC_CALL_WITH_FDS : RPC_CALL, serial);

	rpc_frame_begin(&w, &h, nfds);
	wire_encode(proc->args, &w, args);
	return finish(s, &w, fds, nfds, e) ? 0 : serial;
}

static struct answer *take_answer(struct rpc_session *s, uint32_t serial)
{
	for (struct answer **p = &s->answers; *p; p = &(*p)->next) {
		struct answer *a = *p;

		if (a->header.serial == serial) {
			*p = a->next;
			return a;
		}
	}
	return NULL;
}

static int read_error(const struct answer *a, struct rpc_error *e)
{
	struct xdr_reader r = xdr_reader(a->data, a->len);
	struct remote_error w = { 0 };
	struct arena arena = { .max = 32u << 20 };

	if (wire_decode(&wire_remote_error, &r, &w, &arena))
		rpc_error_from_wire(e, &w);
	else
		rpc_error_set(e, VIR_FROM_RPC, VIR_ERR_RPC, "Unable to decode message payload");
	arena_free(&arena);
	return -1;
}

static int read_answer(const struct answer *a, const struct rpc_proc *proc, void *ret, struct arena *arena,
		       struct rpc_error *e)
{
	struct xdr_reader r = xdr_reader(a->data, a->len);

	if (a->header.program != proc->program->number || a->header.procedure != proc->number)
		return rpc_error_set(e, VIR_FROM_RPC, VIR_ERR_RPC, "the answer is of procedure %u, not %u",
				     a->header.procedure, proc->number);
	if (a->header.status != RPC_OK)
		return read_error(a, e);
	if (ret && !wire_decode(proc->ret, &r, ret, arena))
		return rpc_error_set(e, VIR_FROM_RPC, VIR_ERR_RPC, "Unable to decode message payload");
	return 0;
}

int rpc_session_wait(struct rpc_session *s, uint32_t serial, const struct rpc_proc *proc, void *ret,
		     struct arena *arena, int *fds, unsigned *nfds, struct rpc_error *e)
{
	uint64_t deadline = deadline_of(s);
	struct answer *a;
	int status;

	while (!(a = take_answer(s, serial)))
		if (step(s, deadline, e))
			return -1;
	status = read_answer(a, proc, ret, arena, e);
	if (fds && !status) {
		memcpy(fds, a->fds, a->nfds * sizeof(int));
		*nfds = a->nfds;
		a->nfds = 0;
	}
	answer_free(a);
	return status;
}

int rpc_session_call(struct rpc_session *s, const struct rpc_proc *proc, const void *args, void *ret,
		     struct arena *arena, struct rpc_error *e)
{
	uint32_t serial = rpc_session_send(s, proc, args, NULL, 0, e);

	return serial ? rpc_session_wait(s, serial, proc, ret, arena, NULL, NULL, e) : -1;
}

int rpc_session_stream_send(struct rpc_session *s, const struct rpc_proc *proc, uint32_t serial, enum rpc_status status,
			    const void *data, size_t len, struct rpc_error *e)
{
	struct xdr_writer w = rpc_frame_writer();
	struct rpc_header h = header_of(proc, RPC_STREAM, serial);
	uint8_t *room;

	h.status = status;
	rpc_frame_begin(&w, &h, 0);
	room = xdr_put_room(&w, len);
	if (room && len)
		memcpy(room, data, len);
	return finish(s, &w, NULL, 0, e);
}

int rpc_session_stream_hole(struct rpc_session *s, const struct rpc_proc *proc, uint32_t serial, uint64_t length,
			    struct rpc_error *e)
{
	struct xdr_writer w = rpc_frame_writer();
	struct rpc_header h = header_of(proc, RPC_STREAM_HOLE, serial);

	h.status = RPC_CONTINUE;
	rpc_frame_begin(&w, &h, 0);
	xdr_put_u64(&w, length);
	xdr_put_u32(&w, 0);
	return finish(s, &w, NULL, 0, e);
}
