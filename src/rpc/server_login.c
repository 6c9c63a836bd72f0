/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Clients from other hosts, until they are let in: TLS's handshake, a time limit, and SASL's protection. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "rpc/sasl.h"
#include "rpc/server_int.h"
#include "rpc/tls.h"
#include "util/log.h"

static void on_login_timer(void *opaque)
{
	struct rpc_server *s = opaque;
	uint64_t now = monotonic_ns(), next = 0;

	for (struct rpc_client *c = s->clients; c; c = c->next) {
		/* Who is doomed waits for his event, which comes only if this timer is not due again at once. */
		if (!c->logging_in || c->doomed)
			continue;
		if (c->login_until <= now) {
			/* Its end comes as an event, and the handshake or the read then fails. */
			c->doomed = true;
			shutdown(c->conn.fd, SHUT_RDWR);
		} else if (!next || c->login_until < next) {
			next = c->login_until;
		}
	}
	s->login_armed = next;
	if (next)
		timer_arm(s->login_timer, next);
}

int login_begin(struct rpc_client *c, struct rpc_tls *tls, struct err *err)
{
	struct rpc_server *s = c->server;
	struct rpc_layer *layer;
	int one = 1;

	if (!s->login_timer)
		s->login_timer = timer_new(s->loop, on_login_timer, s);
	if (!s->login_timer)
		return err_set(err, ENOMEM, "no memory for a timer");
	if (tls) {
		layer = rpc_tls_layer(tls, c->conn.fd, NULL, err);
		if (!layer)
			return -ENOMEM;
		rpc_conn_set_layer(&c->conn, layer);
		c->handshaking = true;
	}
	/* Answers are small, and whoever sent the call waits. */
	setsockopt(c->conn.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->logging_in = true;
	c->login_until = monotonic_ns() + s->limits.login_seconds * UINT64_C(1000000000);
	s->nlogins++;
	/* Who comes later has a later end, so one that is armed is right. */
	if (!s->login_armed) {
		s->login_armed = true;
		timer_arm(s->login_timer, c->login_until);
	}
	return 0;
}

int login_handshake(struct rpc_client *c)
{
	static const char taken = 1;
	struct rpc_layer *layer = c->conn.layer;
	struct rpc_server *s = c->server;
	struct err err = ERR_INIT;
	char local[64], remote[64];
	int ret = rpc_tls_handshake(layer, &err);

	if (c->doomed)
		return -ETIMEDOUT;
	if (ret == RPC_TLS_READ || ret == RPC_TLS_WRITE) {
		c->events = ret == RPC_TLS_READ ? EPOLLIN : EPOLLOUT;
		loop_fd_events(c->watch, c->events);
		return 0;
	}
	if (!ret) {
		c->dn = strdup(rpc_tls_peer(layer));
		if (!c->dn)
			ret = -ENOMEM;
		else if (s->ops->known && !s->ops->known(c))
			ret = err_set(&err, EACCES, "its certificate's name '%s' is not allowed", c->dn);
		else if (layer->ops->send(layer, &taken, 1) != 1)
			ret = err_set(&err, EIO, "it reads nothing after the handshake");
	}
	if (!ret) {
		c->handshaking = false;
		return 0;
	}
	rpc_client_addresses(c, local, remote);
	log_line(LOG_WARN, "a client at %s is turned away: %s", remote, err_msg(&err));
	return ret;
}

void rpc_client_logged_in(struct rpc_client *c)
{
	if (!c->logging_in || c->broken)
		return;
	c->logging_in = false;
	c->server->nlogins--;
	server_accept_more(c->server);
}

int rpc_client_set_sasl(struct rpc_client *c, struct rpc_sasl *sasl)
{
	const char *name = rpc_sasl_user(sasl);
	struct rpc_layer *layer;

	free(c->sasl_name);
	c->sasl_name = name ? strdup(name) : NULL;
	if (c->broken || !c->sasl_name) {
		rpc_sasl_free(sasl);
		return c->sasl_name ? 0 : -ENOMEM;
	}
	layer = rpc_sasl_layer(sasl, c->conn.fd);
	if (layer)
		rpc_conn_set_layer(&c->conn, layer);
	else
		rpc_sasl_free(sasl);
	return 0;
}

static void address_text(const struct sockaddr_storage *a, char text[64])
{
	char host[INET6_ADDRSTRLEN] = "";

	text[0] = 0;
	if (a->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)a;

		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(text, 64, "%s;%u", host, ntohs(in->sin_port));
	} else if (a->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in = (const void *)a;

		inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof(host));
		snprintf(text, 64, "%s;%u", host, ntohs(in->sin6_port));
	}
}

void rpc_client_addresses(const struct rpc_client *c, char local[64], char remote[64])
{
	struct sockaddr_storage a = { 0 };
	socklen_t len = sizeof(a);

	local[0] = remote[0] = 0;
	if (!getsockname(c->conn.fd, (struct sockaddr *)&a, &len))
		address_text(&a, local);
	len = sizeof(a);
	if (!getpeername(c->conn.fd, (struct sockaddr *)&a, &len))
		address_text(&a, remote);
}
