/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/open.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "keel/keel.h"
#include "rpc/tcp.h"

const char *open_default_uri(void)
{
	static const char *const variables[] = { "KEEL_URI", "LIBVIRT_DEFAULT_URI" };

	for (unsigned n = 0; n < sizeof(variables) / sizeof(variables[0]); n++) {
		const char *uri = getenv(variables[n]);

		if (uri && *uri)
			return uri;
	}
	return geteuid() ? "qemu:///session" : "qemu:///system";
}

/* ---- Unix sockets ---------------------------------------------------------- */

enum { PLACES = 3 };

/* Where a daemon of this kind listens, the likeliest first. */
static unsigned places(char list[PLACES][PATH_MAX], bool session, bool readonly)
{
	const char *home = getenv("HOME"), *data = getenv("XDG_DATA_HOME"), *run = getenv("XDG_RUNTIME_DIR");
	const char *end = readonly ? "-ro" : "";
	unsigned n = 0;

	if (!session) {
		snprintf(list[n++], PATH_MAX, "/var/lib/keel/run/libvirt-sock%s", end);
		snprintf(list[n++], PATH_MAX, "/run/libvirt/virtqemud-sock%s", end);
		snprintf(list[n++], PATH_MAX, "/run/libvirt/libvirt-sock%s", end);
		return n;
	}
	if (data && *data == '/')
		snprintf(list[n++], PATH_MAX, "%s/keel/run/libvirt-sock%s", data, end);
	else if (home && *home == '/')
		snprintf(list[n++], PATH_MAX, "%s/.local/share/keel/run/libvirt-sock%s", home, end);
	if (run && *run == '/') {
		/* libvirt's own session daemons have one socket. */
		snprintf(list[n++], PATH_MAX, "%s/libvirt/virtqemud-sock", run);
		snprintf(list[n++], PATH_MAX, "%s/libvirt/libvirt-sock", run);
	}
	return n;
}

static struct rpc_session *open_unix(const struct uri *u, unsigned flags, const struct rpc_session_ops *ops, void *opaque,
				     struct err *err)
{
	const char *named = u->socket ? u->socket : getenv("KEEL_SOCKET");
	char list[PLACES][PATH_MAX];
	struct rpc_session *s;
	unsigned n;

	if (named && *named)
		return rpc_session_open(named, ops, opaque, err);
	n = places(list, !strcmp(u->path, "session"), flags & KEEL_OPEN_READONLY);
	for (unsigned i = 0; i < n; i++) {
		*err = ERR_INIT;
		s = rpc_session_open(list[i], ops, opaque, err);
		if (s || (err->code != ENOENT && err->code != ECONNREFUSED && err->code != ENOTDIR))
			return s;
	}
	*err = ERR_INIT;
	err_set(err, ENOENT, "no daemon listens at %s; start keeld, or name its socket by ?socket=PATH in the URI or in KEEL_SOCKET",
		n ? list[0] : "a socket of this user (HOME is not set)");
	return NULL;
}

/* ---- Other hosts ----------------------------------------------------------- */

/* libvirt's layout: flat in a directory that is named, else below ~/.pki/libvirt where that has a certificate, else /etc/pki. */
static struct rpc_tls *load_tls(const struct uri *u, struct err *err)
{
	char ca[PATH_MAX], crl[PATH_MAX], cert[PATH_MAX], key[PATH_MAX], own[PATH_MAX] = "";
	const struct rpc_tls_files files = { .ca = ca, .crl = crl, .cert = cert, .key = key };
	const char *dir = u->pkipath, *home = getenv("HOME");

	if (!dir && geteuid() && home && *home == '/') {
		snprintf(own, sizeof(own), "%s/.pki/libvirt", home);
		snprintf(cert, sizeof(cert), "%s/clientcert.pem", own);
		if (!access(cert, F_OK))
			dir = own;
	}
	if (dir) {
		snprintf(ca, sizeof(ca), "%s/cacert.pem", dir);
		snprintf(crl, sizeof(crl), "%s/cacrl.pem", dir);
		snprintf(cert, sizeof(cert), "%s/clientcert.pem", dir);
		snprintf(key, sizeof(key), "%s/clientkey.pem", dir);
	} else {
		strcpy(ca, "/etc/pki/CA/cacert.pem");
		strcpy(crl, "/etc/pki/CA/cacrl.pem");
		strcpy(cert, "/etc/pki/libvirt/clientcert.pem");
		strcpy(key, "/etc/pki/libvirt/private/clientkey.pem");
	}
	return rpc_tls_new(&files, u->no_verify ? RPC_TLS_NO_VERIFY : 0, err);
}

struct rpc_session *open_session(const struct uri *u, unsigned flags, const struct rpc_session_ops *ops, void *opaque,
				 struct err *err)
{
	struct rpc_tls *tls = NULL;

	if (u->transport == URI_UNIX)
		return open_unix(u, flags, ops, opaque, err);
	if (u->transport == URI_TLS) {
		tls = load_tls(u, err);
		if (!tls)
			return NULL;
	}
	return rpc_tcp_open(u->host, u->port, tls, ops, opaque, err);
}
