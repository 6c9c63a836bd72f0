/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stand between a stock client and a stock server: every packet is decoded by our tables, encoded again, compared
 * with what came, and what we made is sent on. Each line of the log is "ok NAME KIND" or "BAD NAME KIND: why".
 *
 * usage: rpc_relay LISTEN-PATH SERVER-PATH LOG
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "rpc/conn.h"
#include "rpc/error.h"
#include "util/sockets.h"

static FILE *log_file;

struct side {
	struct rpc_conn conn;
	struct rpc_conn *to;
};

static const char *const kinds[] = { "call", "reply", "event", "stream", "call", "reply", "hole" };

/* The type of a packet's payload. False: raw bytes, or a procedure that isn't known. */
static bool payload_type(const struct rpc_header *h, const char **name, const struct wire_type **type)
{
	const struct rpc_program *program = rpc_program_find(h->program);
	const struct rpc_proc *proc = program ? rpc_proc_find(program, h->procedure) : NULL;

	*type = NULL;
	*name = "?";
	if (h->program == KEEPALIVE_PROGRAM) {
		*name = "KEEPALIVE";
		return true;
	}
	if (!proc)
		return false;
	*name = proc->name;
	if (h->status == RPC_ERROR)
		*type = &wire_remote_error;
	else if (h->type == RPC_REPLY || h->type == RPC_REPLY_WITH_FDS)
		*type = proc->ret;
	else if (h->type == RPC_STREAM || h->type == RPC_STREAM_HOLE)
		return false;
	else
		*type = proc->args;
	return true;
}

static int on_packet(void *opaque, struct rpc_packet *p)
{
	struct side *side = opaque;
	struct xdr_writer w = rpc_frame_writer();
	const struct wire_type *type;
	struct arena arena = { 0 };
	const char *name, *why = NULL;
	bool raw = !payload_type(&p->header, &name, &type);
	size_t at;
	int ret;

	rpc_frame_begin(&w, &p->header, p->nfds);
	at = w.len;
	if (raw) {
		uint8_t *room = xdr_put_room(&w, p->payload_len);

		if (room)
			memcpy(room, p->payload, p->payload_len);
		if (p->header.type != RPC_STREAM && p->header.type != RPC_STREAM_HOLE)
			why = "unknown procedure";
	} else {
		struct xdr_reader r = xdr_reader(p->payload, p->payload_len);
		void *obj = type ? arena_alloc(&arena, type->size) : NULL;

		if (!wire_decode(type, &r, obj, &arena))
			why = "not decoded";
		else if (!wire_encode(type, &w, obj))
			why = "not encoded";
		else if (w.len - at != p->payload_len || memcmp(w.data + at, p->payload, p->payload_len))
			why = "encoded differently";
	}
	fprintf(log_file, "%s %s %s%s%s%s\n", why ? "BAD" : "ok", name, kinds[p->header.type],
		p->header.status == RPC_ERROR ? " error" : "", why ? ": " : "", why ? why : "");
	fflush(log_file);
	arena_free(&arena);
	if (why || !rpc_frame_end(&w)) {
		xdr_writer_free(&w);
		return -EPROTO;
	}
	ret = rpc_conn_send(side->to, &w, p->fds, p->nfds);
	return ret ? ret : rpc_conn_flush(side->to);
}

static void relay(int client, int server)
{
	struct side a, b;
	bool open = true;

	rpc_conn_init(&a.conn, client);
	rpc_conn_init(&b.conn, server);
	a.to = &b.conn;
	b.to = &a.conn;
	while (open) {
		struct pollfd fds[2] = {
			{ .fd = client, .events = POLLIN | (a.conn.out ? POLLOUT : 0) },
			{ .fd = server, .events = POLLIN | (b.conn.out ? POLLOUT : 0) },
		};
		struct side *sides[2] = { &a, &b };

		if (poll(fds, 2, -1) < 0)
			break;
		for (int n = 0; n < 2; n++) {
			int ret = 0;

			if (fds[n].revents & POLLOUT)
				ret = rpc_conn_flush(&sides[n]->conn);
			if (!ret && fds[n].revents & ~POLLOUT)
				ret = rpc_conn_read(&sides[n]->conn, on_packet, sides[n]);
			if (ret && ret != -EAGAIN)
				open = false;
		}
	}
	rpc_conn_close(&a.conn);
	rpc_conn_close(&b.conn);
}

int main(int argc, char **argv)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	struct err err = ERR_INIT;
	struct pollfd pfd;
	int fd;

	if (argc != 4 || strlen(argv[2]) >= sizeof(to.sun_path)) {
		fprintf(stderr, "usage: rpc_relay LISTEN-PATH SERVER-PATH LOG\n");
		return 2;
	}
	log_file = fopen(argv[3], "ae");
	fd = unix_listen(argv[1], "rpc_relay", &err);
	if (fd < 0 || !log_file) {
		fprintf(stderr, "rpc_relay: %s\n", err_msg(&err));
		return 1;
	}
	strcpy(to.sun_path, argv[2]);
	signal(SIGCHLD, SIG_IGN);
	pfd = (struct pollfd){ .fd = fd, .events = POLLIN };
	while (poll(&pfd, 1, -1) >= 0 || errno == EINTR) {
		int client = accept(fd, NULL, NULL), server;

		if (client < 0)
			continue;
		if (!fork()) {
			server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
			if (server < 0 || connect(server, (struct sockaddr *)&to, sizeof(to)))
				_exit(1);
			close(fd);
			relay(client, server);
			_exit(0);
		}
		close(client);
	}
	return 0;
}
