/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/tcp.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/loop.h"

#define HANDSHAKE_SECONDS 30

/* ---- Listening ------------------------------------------------------------- */

/* "[A]:P", "A:P" or "P" into two strings. */
static int split(const char *where, char *host, size_t host_len, char *port, size_t port_len)
{
	const char *colon = strrchr(where, ':'), *end = colon;

	host[0] = 0;
	if (!colon) {
		snprintf(port, port_len, "%s", where);
		return 0;
	}
	if (*where == '[') {
		where++;
		if (colon[-1] != ']')
			return -EINVAL;
		end--;
	}
	if ((size_t)(end - where) >= host_len)
		return -EINVAL;
	memcpy(host, where, (size_t)(end - where));
	host[end - where] = 0;
	snprintf(port, port_len, "%s", colon + 1);
	return 0;
}

static int listen_at(const struct addrinfo *a)
{
	int one = 1, zero = 0, fd, ret;

	fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	/* The address of all is of both families. */
	if (a->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (!bind(fd, a->ai_addr, a->ai_addrlen) && !listen(fd, SOMAXCONN))
		return fd;
	ret = -errno;
	close(fd);
	return ret;
}

int rpc_tcp_listen(const char *where, unsigned default_port, const char *option, struct err *err)
{
	const struct addrinfo hints = { .ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM };
	struct addrinfo *list = NULL;
	char host[256], port[16];
	int ret = split(where, host, sizeof(host), port, sizeof(port)), fd = -EADDRNOTAVAIL;

	if (ret)
		return err_set(err, EINVAL, "%s %s: give PORT, ADDRESS:PORT or [ADDRESS]:PORT", option, where);
	if (!*port)
		snprintf(port, sizeof(port), "%u", default_port);
	ret = getaddrinfo(*host ? host : NULL, port, &hints, &list);
	if (ret)
		return err_set(err, EINVAL, "%s %s: %s", option, where, gai_strerror(ret));
	/* IPv6's wildcard takes IPv4 as well, so it is tried first. */
	for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
		if (*host || a->ai_family == AF_INET6)
			fd = listen_at(a);
	for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
		fd = listen_at(a);
	freeaddrinfo(list);
	return fd < 0 ? err_set_errno(err, -fd, "%s: cannot listen at %s", option, where) : fd;
}

/* ---- Connecting ------------------------------------------------------------ */

static int connect_to(const char *host, unsigned port, struct err *err)
{
	const struct addrinfo hints = { .ai_flags = AI_NUMERICSERV, .ai_socktype = SOCK_STREAM };
	struct addrinfo *list = NULL;
	int ret, fd = -1, code = 0, one = 1;
	char text[16];

	snprintf(text, sizeof(text), "%u", port);
	ret = getaddrinfo(host, text, &hints, &list);
	if (ret)
		return err_set(err, EHOSTUNREACH, "cannot find the host %s: %s", host, gai_strerror(ret));
	for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
		fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd >= 0 && !connect(fd, a->ai_addr, a->ai_addrlen))
			break;
		code = errno;
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	freeaddrinfo(list);
	if (fd < 0)
		return err_set_errno(err, code, "cannot connect to %s port %u", host, port);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static int await(int fd, short events, uint64_t deadline, const char *host, struct err *err)
{
	struct pollfd pfd = { .fd = fd, .events = events };

	for (;;) {
		uint64_t now = monotonic_ns();
		int ret = now < deadline ? poll(&pfd, 1, (int)((deadline - now) / 1000000) + 1) : 0;

		if (ret > 0)
			return 0;
		if (!ret)
			return err_set(err, ETIMEDOUT, "%s does not answer TLS's handshake", host);
		if (errno != EINTR)
			return err_set_errno(err, errno, "cannot wait for %s", host);
	}
}

static int shake_hands(struct rpc_layer *layer, int fd, const char *host, struct err *err)
{
	uint64_t deadline = monotonic_ns() + HANDSHAKE_SECONDS * UINT64_C(1000000000);
	ssize_t n = -EAGAIN;
	char taken = 0;
	int ret;

	while ((ret = rpc_tls_handshake(layer, err)) > 0) {
		ret = await(fd, ret == RPC_TLS_READ ? POLLIN : POLLOUT, deadline, host, err);
		if (ret)
			return ret;
	}
	while (!ret && n == -EAGAIN) {
		n = layer->ops->recv(layer, &taken, 1);
		if (n == -EAGAIN)
			ret = await(fd, POLLIN, deadline, host, err);
	}
	if (ret)
		return ret;
	return n == 1 && taken == 1 ? 0 : err_set(err, EACCES, "%s does not take our certificate", host);
}

struct rpc_session *rpc_tcp_open(const char *host, unsigned port, struct rpc_tls *tls, const struct rpc_session_ops *ops,
				 void *opaque, struct err *err)
{
	int fd = connect_to(host, port ? port : tls ? RPC_TLS_PORT : RPC_TCP_PORT, err);
	struct rpc_layer *layer = NULL;
	struct rpc_session *s = NULL;

	if (fd < 0)
		goto fail;
	if (tls) {
		layer = rpc_tls_layer(tls, fd, host, err);
		if (!layer || shake_hands(layer, fd, host, err))
			goto fail;
	}
	s = rpc_session_new(fd, ops, opaque, err);
	fd = -1; /* taken in any case */
	if (!s)
		goto fail;
	rpc_session_set_layer(s, layer, tls);
	return s;
fail:
	if (layer)
		layer->ops->free(layer);
	if (fd >= 0)
		close(fd);
	rpc_tls_free(tls);
	return NULL;
}
