/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "image/nbd_server.h"

int nbd_listen_inet(const char *host, const char *port, struct err *err)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *list,
			*a;
	const char *shown = host ? host : "any address";
	int fd = -1, why = 0, one = 1, ret = getaddrinfo(host, port, &hints, &list);

	if (ret)
		return err_set(err, EINVAL, "cannot listen on %s, port %s: %s", shown, port, gai_strerror(ret));
	for (a = list; a && fd < 0; a = a->ai_next) {
		fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
		if (fd < 0) {
			why = errno;
			continue;
		}
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, 16)) {
			why = errno;
			close(fd);
			fd = -1;
		}
	}
	freeaddrinfo(list);
	return fd >= 0 ? fd : err_set_errno(err, why, "cannot listen on %s, port %s", shown, port);
}
