/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/sockets.h"

/* libvirt's defaults: five pings of five seconds each. */
#define KEEPALIVE_SECONDS 5
#define KEEPALIVE_COUNT 5

static void client_opened(struct rpc_client *c)
{
	/* Without memory connect_admit() refuses all calls. */
	rpc_client_set_data(c, calloc(1, sizeof(struct session)));
}

static void client_closed(struct rpc_client *c)
{
	free(rpc_client_data(c));
	rpc_client_set_data(c, NULL);
}

static const struct rpc_server_ops ops = {
	.opened = client_opened,
	.closed = client_closed,
	.admit = connect_admit,
};

int call_check_flags(struct rpc_call *call, uint32_t flags, uint32_t known)
{
	if (!(flags & ~known))
		return 0;
	return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "unsupported flags (0x%x) in function %s",
			     flags & ~known, call->proc->function);
}

static int make_dir(const char *path, struct err *err)
{
	if (mkdir(path, 0755) && errno != EEXIST)
		return err_set_errno(err, errno, "cannot make the directory %s", path);
	return 0;
}

/* Two daemons on one directory would undo each other's work. The lock ends with the process, however it ends. */
static int take_lock(struct daemon *d, const char *run, struct err *err)
{
	char path[PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s/keeld.lock", run);
	d->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (d->lock_fd < 0)
		return err_set_errno(err, errno, "cannot open %s", path);
	if (!flock(d->lock_fd, LOCK_EX | LOCK_NB))
		return 0;
	if (errno == EWOULDBLOCK)
		return err_set(err, EBUSY, "another keeld serves this directory: %s is locked", path);
	return err_set_errno(err, errno, "cannot lock %s", path);
}

static int listen_on(struct daemon *d, const char *run, const char *name, bool readonly, struct err *err)
{
	char path[PATH_MAX + 32];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", run, name);
	fd = unix_listen(path, "keeld", err);
	if (fd < 0)
		return fd;
	/* Everybody may look. */
	if (readonly && chmod(path, 0777)) {
		close(fd);
		return err_set_errno(err, errno, "cannot change the mode of %s", path);
	}
	if (listen(fd, SOMAXCONN)) {
		close(fd);
		return err_set_errno(err, errno, "cannot listen on %s", path);
	}
	return rpc_server_listen(d->server, fd, readonly, err);
}

static void bind_all(struct rpc_server *s, const struct binding *b)
{
	for (; b->fn; b++)
		rpc_server_handle(s, &remote_program, b->number, b->fn);
}

int daemon_start(struct daemon *d, const char *root, struct err *err)
{
	char run[PATH_MAX];
	int ret;

	*d = (struct daemon){ .lock_fd = -1, .privileged = !geteuid() };
	if (snprintf(run, sizeof(run), "%s/run", root) >= (int)sizeof(run))
		return err_set(err, ENAMETOOLONG, "the path --root %s is too long", root);
	ret = make_dir(root, err);
	if (!ret)
		ret = make_dir(run, err);
	if (!ret)
		ret = take_lock(d, run, err);
	if (ret)
		return ret;
	d->loop = loop_new(err);
	if (!d->loop)
		return -err->code;
	d->server = rpc_server_new(d->loop, &ops, d, NULL, err);
	if (!d->server)
		return -err->code;
	bind_all(d->server, connect_bindings);
	bind_all(d->server, domain_bindings);
	if (rpc_server_set_keepalive(d->server, KEEPALIVE_SECONDS, KEEPALIVE_COUNT))
		return err_set(err, ENOMEM, "no memory for a timer");
	ret = listen_on(d, run, "libvirt-sock", false, err);
	if (!ret)
		ret = listen_on(d, run, "libvirt-sock-ro", true, err);
	return ret;
}

void daemon_free(struct daemon *d)
{
	rpc_server_free(d->server);
	loop_free(d->loop);
	if (d->lock_fd >= 0)
		close(d->lock_fd);
}
