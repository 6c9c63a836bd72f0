/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where keeld listens: two unix sockets, and TLS and TCP if asked. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "rpc/sasl.h"
#include "rpc/tcp.h"
#include "util/sockets.h"

static int listen_on(struct daemon *d, const char *name, bool readonly, struct err *err)
{
	char path[PATH_MAX + 32];
	int fd;

	snprintf(path, sizeof(path), "%s/run/%s", d->root, name);
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

static int listen_tls(struct daemon *d, struct err *err)
{
	const char *base = d->options->pki;
	char own[PATH_MAX], ca[PATH_MAX + 32], crl[PATH_MAX + 32], cert[PATH_MAX + 32], key[PATH_MAX + 64];
	const struct rpc_tls_files files = { .ca = ca, .crl = crl, .cert = cert, .key = key };
	int fd;

	if (!base) {
		snprintf(own, sizeof(own), "%s/etc/pki", d->root);
		base = own;
	}
	/* libvirt's names below /etc/pki. */
	snprintf(ca, sizeof(ca), "%s/CA/cacert.pem", base);
	snprintf(crl, sizeof(crl), "%s/CA/cacrl.pem", base);
	snprintf(cert, sizeof(cert), "%s/libvirt/servercert.pem", base);
	snprintf(key, sizeof(key), "%s/libvirt/private/serverkey.pem", base);
	d->tls = rpc_tls_new(&files, RPC_TLS_SERVER, err);
	if (!d->tls)
		return -err->code;
	fd = rpc_tcp_listen(d->options->listen_tls, RPC_TLS_PORT, "--listen-tls", err);
	return fd < 0 ? fd : rpc_server_listen_remote(d->server, fd, d->tls, err);
}

static int listen_tcp(struct daemon *d, struct err *err)
{
	int fd = rpc_tcp_listen(d->options->listen_tcp, RPC_TCP_PORT, "--listen-tcp", err);

	return fd < 0 ? fd : rpc_server_listen_remote(d->server, fd, NULL, err);
}

/* DIR/etc/sasl2/keel.conf if it is there, else the system's. */
static int prepare_sasl(const struct daemon *d, struct err *err)
{
	char dir[PATH_MAX], file[PATH_MAX + 16];

	snprintf(dir, sizeof(dir), "%s/etc/sasl2", d->root);
	snprintf(file, sizeof(file), "%s/keel.conf", dir);
	return rpc_sasl_server_init(access(file, R_OK) ? NULL : dir, err);
}

int listen_all(struct daemon *d, struct err *err)
{
	const struct daemon_options *o = d->options;
	int ret = 0;

	if ((o->listen_tls && o->tls_sasl) || (o->listen_tcp && !o->tcp_anybody))
		ret = prepare_sasl(d, err);
	if (!ret && o->listen_tls)
		ret = listen_tls(d, err);
	if (!ret && o->listen_tcp)
		ret = listen_tcp(d, err);
	if (!ret)
		ret = listen_on(d, "libvirt-sock", false, err);
	/* The last: who waits for it finds everything. */
	if (!ret)
		ret = listen_on(d, "libvirt-sock-ro", true, err);
	return ret;
}
