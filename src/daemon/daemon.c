/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/daemon.h"

#include "daemon/confine.h"
#include "daemon/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/guest_hooks.h"
#include "rpc/tls.h"

/* libvirt's defaults: five pings of five seconds each. */
#define KEEPALIVE_SECONDS 5
#define KEEPALIVE_COUNT 5

static void client_opened(struct rpc_client *c)
{
	struct daemon *d = rpc_server_opaque(rpc_client_server(c));
	struct session *s = calloc(1, sizeof(*s));

	/* Without memory connect_admit() refuses all calls. */
	rpc_client_set_data(c, s);
	if (!s)
		return;
	s->client = c;
	s->next = d->sessions;
	d->sessions = s;
	auth_begin(s);
}

static void client_closed(struct rpc_client *c)
{
	struct daemon *d = rpc_server_opaque(rpc_client_server(c));
	struct session *s = rpc_client_data(c), **p = &d->sessions;

	rpc_client_set_data(c, NULL);
	if (!s)
		return;
	while (*p != s)
		p = &(*p)->next;
	*p = s->next;
	events_forget(s);
	auth_end(s);
	free(s);
	lifecycle_client_gone(d, c);
}

static const struct rpc_server_ops ops = {
	.opened = client_opened,
	.closed = client_closed,
	.known = auth_known,
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

static void bind_all(struct rpc_server *s)
{
	static const struct binding *const tables[] = {
		auth_bindings, connect_bindings, domain_list_bindings, lifecycle_bindings, stats_bindings, event_bindings, node_bindings,
		host_bindings, save_bindings, empty_bindings,	  pool_bindings,
	};
	static const struct guest_binding *const guest_tables[] = {
		lifecycle_guest_bindings, query_bindings, config_bindings, tune_bindings, params_bindings, device_bindings, stats_guest_bindings,
		console_bindings, qemu_guest_bindings, agent_bindings, memory_bindings, iotune_bindings, save_guest_bindings, block_bindings, snapshot_bindings,
	};

	for (unsigned n = 0; n < sizeof(tables) / sizeof(tables[0]); n++)
		for (const struct binding *b = tables[n]; b->fn; b++)
			rpc_server_handle(s, &remote_program, b->number, b->fn);
	for (unsigned n = 0; n < sizeof(guest_tables) / sizeof(guest_tables[0]); n++)
		guest_bind(s, guest_tables[n]);
	events_bind(s);
}

/* A directory below the root, made if need be. The descriptor or a negative errno. */
static int open_dir(const struct daemon *d, const char *name, struct err *err)
{
	char path[PATH_MAX + 32];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", d->root, name);
	if (make_dir(path, err))
		return -err->code;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd >= 0 ? fd : err_set_errno(err, errno, "cannot open the directory %s", path);
}

static int open_dirs(struct daemon *d, struct err *err)
{
	const struct {
		const char *name;
		int *fd;
	} dirs[] = {
		{ "etc", NULL }, { "etc/qemu", &d->config_dir }, { "etc/qemu/autostart", &d->autostart_dir },
		{ "log", NULL }, { "log/qemu", &d->log_dir },	 { "run/qemu", &d->run_dir },	{ "etc/storage", &d->storage_dir },
	};

	for (unsigned n = 0; n < sizeof(dirs) / sizeof(dirs[0]); n++) {
		int fd = open_dir(d, dirs[n].name, err);

		if (fd < 0)
			return fd;
		if (dirs[n].fd)
			*dirs[n].fd = fd;
		else
			close(fd);
	}
	return 0;
}

int daemon_start(struct daemon *d, const struct daemon_options *o, struct err *err)
{
	const char *root = o->root;
	char run[PATH_MAX];
	int ret;

	*d = (struct daemon){ .options = o, .lock_fd = -1, .privileged = !geteuid(), .config_dir = -1, .autostart_dir = -1, .run_dir = -1,
			      .log_dir = -1, .storage_dir = -1 };
	if (snprintf(run, sizeof(run), "%s/run", root) >= (int)sizeof(run))
		return err_set(err, ENAMETOOLONG, "the path --root %s is too long", root);
	ret = make_dir(root, err);
	if (!ret && !(d->root = realpath(root, NULL)))
		ret = err_set_errno(err, errno, "cannot use the directory %s", root);
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
	bind_all(d->server);
	ret = open_dirs(d, err);
	if (!ret) {
		confine_init(d);
		ret = host_init(d, err);
	}
	if (!ret)
		ret = store_load(d, err);
	if (!ret)
		ret = pools_load(d, err);
	if (ret)
		return ret;
	hook_daemon(d, "start", "-", "start", false);
	lifecycle_autostart(d);
	if (rpc_server_set_keepalive(d->server, KEEPALIVE_SECONDS, KEEPALIVE_COUNT))
		return err_set(err, ENOMEM, "no memory for a timer");
	ret = access_load(d, err);
	return ret ? ret : listen_all(d, err);
}

void daemon_free(struct daemon *d)
{
	const int fds[] = { d->config_dir, d->autostart_dir, d->run_dir, d->log_dir, d->lock_fd };

	if (d->server)
		hook_daemon(d, "shutdown", "-", "shutdown", true);
	hooks_forget(d);
	guest_table_free(d); /* the guests go on; who waits for an answer of theirs gets an error */
	rpc_server_free(d->server);
	rpc_tls_free(d->tls);
	loop_free(d->loop);
	host_free(d);
	cgroups_free(&d->cgroups);
	pools_free(d);
	for (unsigned n = 0; n < sizeof(fds) / sizeof(fds[0]); n++)
		if (fds[n] >= 0)
			close(fds[n]);
	free(d->root);
}
