/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Frames travel over a stream socket, each after its length in four bytes,
 * big-endian (QEMU's stream netdev, which passt speaks).
 */
#include "vmm/passt.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/files.h"
#include "util/log.h"

#define FRAME_MAX 65550u
#define PASST_MTU 65520 /* what it takes, and gives by DHCP too */
#define RX_ROOM (4 * (FRAME_MAX + 4))

struct passt {
	struct netdev base;
	struct loop *loop;
	int fd;
	struct loop_fd *watch;
	uint32_t events;
	bool rx_stopped; /* the guest has no buffer for the frame at rx_at */
	bool tx_stopped; /* a send() was refused */
	/* Received bytes: rx[rx_at..rx_end) */
	size_t rx_at, rx_end;
	/* Rest of a frame that the socket took only in part */
	uint8_t *tx;
	size_t tx_at, tx_len;
	uint8_t rx[RX_ROOM];
};

static struct passt *passt(struct netdev *n)
{
	return (struct passt *)n;
}

static void update_events(struct passt *p)
{
	uint32_t want = (p->rx_stopped ? 0 : EPOLLIN) | (p->tx_len || p->tx_stopped ? EPOLLOUT : 0);

	if (p->watch && want != p->events) {
		p->events = want;
		loop_fd_events(p->watch, want);
	}
}

static void gone(struct passt *p, const char *why)
{
	if (!p->watch)
		return;
	log_line(LOG_ERROR, "the user network is gone: passt %s", why);
	loop_fd_del(p->watch);
	p->watch = NULL;
	p->base.up = false;
	if (p->base.front && p->base.front->link)
		p->base.front->link(p->base.front_opaque, false);
}

/* Hand complete frames to the guest. False: it has no buffer. */
static bool deliver(struct passt *p)
{
	while (p->rx_end - p->rx_at >= 4) {
		struct iovec iov;
		uint32_t len;

		memcpy(&len, p->rx + p->rx_at, 4);
		len = ntohl(len);
		if (len > FRAME_MAX) {
			gone(p, "sent a frame that is too long");
			return true;
		}
		if (p->rx_end - p->rx_at - 4 < len)
			break;
		iov = (struct iovec){ p->rx + p->rx_at + 4, len };
		if (p->base.front && !p->base.front->receive(p->base.front_opaque, &iov, 1, len))
			return false;
		p->rx_at += 4 + len;
	}
	if (p->rx_at) {
		memmove(p->rx, p->rx + p->rx_at, p->rx_end - p->rx_at);
		p->rx_end -= p->rx_at;
		p->rx_at = 0;
	}
	return true;
}

static void receive(struct passt *p)
{
	ssize_t n;

	/* Bounded, so that a flood leaves the loop time for the rest. */
	for (int i = 0; i < 16 && p->watch; i++) {
		n = recv(p->fd, p->rx + p->rx_end, RX_ROOM - p->rx_end, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			gone(p, n ? strerror(errno) : "closed its socket");
			return;
		}
		p->rx_end += n;
		if (!deliver(p)) {
			p->rx_stopped = true;
			return;
		}
	}
}

static void flush(struct passt *p)
{
	while (p->tx_len) {
		ssize_t n = send(p->fd, p->tx + p->tx_at, p->tx_len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return; /* EPOLLOUT, or the hang-up, follows */
		p->tx_at += n;
		p->tx_len -= n;
	}
}

static void ready(void *opaque, uint32_t events)
{
	struct passt *p = opaque;

	if (events & EPOLLOUT) {
		flush(p);
		if (!p->tx_len && p->tx_stopped) {
			p->tx_stopped = false;
			if (p->base.front && p->base.front->writable)
				p->base.front->writable(p->base.front_opaque);
		}
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		receive(p);
	update_events(p);
}

static bool passt_send(struct netdev *n, const struct iovec *iov, int cnt, size_t len)
{
	struct passt *p = passt(n);
	struct iovec all[65];
	struct msghdr msg = { .msg_iov = all, .msg_iovlen = cnt + 1 };
	uint32_t head = htonl(len);
	ssize_t sent;

	if (len > FRAME_MAX || !len || !p->watch || cnt > 64)
		return true; /* dropped, as a wire would */
	if (p->tx_len)
		flush(p);
	if (p->tx_len) {
		p->tx_stopped = true;
		update_events(p);
		return false;
	}
	all[0] = (struct iovec){ &head, 4 };
	memcpy(all + 1, iov, cnt * sizeof(*iov));
	sent = sendmsg(p->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent < 0) {
		if (errno != EAGAIN && errno != EINTR)
			return true;
		p->tx_stopped = true;
		update_events(p);
		return false;
	}
	if ((size_t)sent < len + 4) {
		/* The guest's buffers go back to it now: keep a copy of the rest. */
		size_t skip = sent;

		p->tx_at = p->tx_len = 0;
		for (int i = 0; i < cnt + 1; i++) {
			size_t from = skip < all[i].iov_len ? skip : all[i].iov_len;

			memcpy(p->tx + p->tx_len, (uint8_t *)all[i].iov_base + from, all[i].iov_len - from);
			p->tx_len += all[i].iov_len - from;
			skip -= from;
		}
		update_events(p);
	}
	return true;
}

static void passt_rx_ready(struct netdev *n)
{
	struct passt *p = passt(n);

	if (!p->rx_stopped)
		return;
	p->rx_stopped = !deliver(p);
	update_events(p);
}

static void passt_free(struct netdev *n)
{
	struct passt *p = passt(n);

	if (p->watch)
		loop_fd_del(p->watch);
	if (p->fd >= 0)
		close(p->fd); /* passt runs with --one-off: this ends it */
	free(p->tx);
	free(p);
}

static const struct netdev_ops passt_ops = { .send = passt_send, .rx_ready = passt_rx_ready, .free = passt_free };

void netdev_free(struct netdev *n)
{
	if (n)
		n->ops->free(n);
}

/* ---- Starting it --------------------------------------------------------- */

/* "[tcp|udp]:[ADDR]:PORT-:PORT" to passt's option and "[ADDR/]PORT:PORT". */
static int convert_forward(const char *text, const char **option, char *spec, size_t room, struct err *err)
{
	const char *p = text, *addr, *colon;
	unsigned from, to;
	int used = 0;

	*option = "-t";
	if (!strncmp(p, "tcp:", 4)) {
		p += 4;
	} else if (!strncmp(p, "udp:", 4)) {
		*option = "-u";
		p += 4;
	} else if (*p == ':') {
		p++;
	}
	addr = p;
	colon = strchr(p, ':');
	if (!colon || sscanf(colon + 1, "%5u-:%5u%n", &from, &to, &used) != 2 || colon[1 + used] || !from || !to ||
	    from > 65535 || to > 65535 || colon - addr > 64)
		return err_set(err, EINVAL, "--net: hostfwd '%s' is not of the form [tcp|udp]:[ADDR]:PORT-:PORT", text);
	if (colon > addr)
		snprintf(spec, room, "%.*s/%u:%u", (int)(colon - addr), addr, from, to);
	else
		snprintf(spec, room, "%u:%u", from, to);
	return 0;
}

/* The last line that passt wrote is the reason of its failure. */
static void last_line(int fd, char *line, size_t room)
{
	char buf[4096];
	size_t len = 0;
	ssize_t n;

	while ((n = read(fd, buf + len, sizeof(buf) - 1 - len)) > 0) {
		len += n;
		if (len == sizeof(buf) - 1) {
			memmove(buf, buf + len / 2, len - len / 2);
			len -= len / 2;
		}
	}
	while (len && isspace((unsigned char)buf[len - 1]))
		len--;
	buf[len] = 0;
	snprintf(line, room, "%.200s", strrchr(buf, '\n') ? strrchr(buf, '\n') + 1 : buf);
}

static int run_passt(struct passt *p, char **argv, int theirs, struct err *err)
{
	char reason[256];
	int out[2], status;
	pid_t pid;

	if (pipe(out))
		return err_set_errno(err, errno, "--net: cannot start passt");
	pid = fork();
	if (pid == 0) {
		sigset_t none;

		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		if (dup2(theirs, 3) < 0 || dup2(out[1], 2) < 0)
			_exit(126);
		/* Nothing of ours is passt's: it daemonizes and would keep it open. */
		close_range(4, ~0u, 0);
		execvp(argv[0], argv);
		dprintf(2, "%s: %s\n", argv[0], strerror(errno));
		_exit(127);
	}
	close(out[1]);
	if (pid < 0) {
		close(out[0]);
		return err_set_errno(err, errno, "--net: cannot start passt");
	}
	/* In the background mode the process that we started ends when its child is ready. */
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		last_line(out[0], reason, sizeof(reason));
		close(out[0]);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
			return err_set(err, ENOENT, "--net: cannot run passt (%s); install the package passt", reason);
		return err_set(err, EIO, "--net: passt did not start: %s", *reason ? reason : "it gave no reason");
	}
	close(out[0]);
	return 0;
}

static struct passt *passt_new(struct loop *loop, struct err *err)
{
	struct passt *p = calloc(1, sizeof(*p));

	if (p)
		p->tx = malloc(FRAME_MAX + 4);
	if (!p || !p->tx) {
		free(p);
		err_set(err, ENOMEM, "no memory for a network");
		return NULL;
	}
	p->base.ops = &passt_ops;
	p->loop = loop;
	p->fd = -1;
	return p;
}

/* The socket is there: frames may come. */
static int watch_socket(struct passt *p, struct err *err)
{
	p->events = EPOLLIN;
	p->watch = loop_fd_add(p->loop, p->fd, EPOLLIN, ready, p, err);
	p->base.up = true;
	p->base.mtu = PASST_MTU;
	return p->watch ? 0 : -err->code;
}

struct netdev *stream_net_open(struct loop *loop, const char *path, int fd, struct err *err)
{
	struct passt *p = passt_new(loop, err);
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int ret = 0, type = 0;
	socklen_t len = sizeof(type);
	bool passed;

	if (!p) {
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	p->fd = fd;
	if (path && strlen(path) >= sizeof(a.sun_path)) {
		ret = err_set(err, ENAMETOOLONG, "the path of the socket %s is too long", path);
	} else if (path) {
		strcpy(a.sun_path, path);
		p->fd = file_take_socket(path);
		passed = p->fd >= 0;
		if (!passed)
			p->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (p->fd < 0 || (!passed && connect(p->fd, (struct sockaddr *)&a, sizeof(a))))
			ret = err_set_errno(err, errno, "cannot connect to the network at %s", path);
	} else if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) || type != SOCK_STREAM) {
		ret = err_set(err, EINVAL, "descriptor %d is no stream socket", fd);
	}
	if (!ret)
		ret = watch_socket(p, err);
	if (ret) {
		passt_free(&p->base);
		return NULL;
	}
	return &p->base;
}

struct netdev *passt_open(struct loop *loop, const struct passt_options *o, struct err *err)
{
	const char *program = getenv("KEEL_PASST");
	char specs[PASST_FORWARDS][96];
	char *argv[8 + 2 * PASST_FORWARDS];
	struct passt *p = passt_new(loop, err);
	int n = 0, fds[2] = { -1, -1 }, size = 4 << 20;

	if (!p)
		return NULL;
	argv[n++] = (char *)(program ? program : "passt");
	argv[n++] = "--quiet";
	argv[n++] = "--stderr";
	argv[n++] = "--one-off";
	argv[n++] = "--fd";
	argv[n++] = "3";
	for (unsigned i = 0; i < o->forwards; i++) {
		const char *option;

		if (convert_forward(o->forward[i], &option, specs[i], sizeof(specs[i]), err))
			goto fail;
		argv[n++] = (char *)option;
		argv[n++] = specs[i];
	}
	argv[n] = NULL;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds)) {
		err_set_errno(err, errno, "--net: cannot make a socket");
		goto fail;
	}
	setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	p->fd = fds[0];
	if (run_passt(p, argv, fds[1], err))
		goto fail;
	close(fds[1]);
	fds[1] = -1;
	if (watch_socket(p, err))
		goto fail;
	return &p->base;
fail:
	if (fds[1] >= 0)
		close(fds[1]);
	passt_free(&p->base);
	return NULL;
}
