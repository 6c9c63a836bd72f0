/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An NBD server (NBD doc/proto.md): fixed newstyle negotiation, structured
 * replies, base:allocation and dirty bitmaps, TLS. A thread for each client.
 *
 * Everything is called in the loop's thread; clients are accepted there.
 */
#pragma once
#include <stdbool.h>

#include "util/err.h"
#include "util/loop.h"

struct block;
struct nbd_server;

struct nbd_server_options {
	struct loop *loop;
	unsigned max_clients; /* at once; 0: any number */
	const char
		*tls; /* NULL, or a directory with ca-cert.pem, server-cert.pem, server-key.pem: TLS is needed then */
	bool tls_verify; /* clients need a certificate of that CA */
	/* After a client left. left: how many there are still. */
	void (*left)(void *opaque, unsigned left);
	void *opaque;
};
struct nbd_server *nbd_server_new(const struct nbd_server_options *o, struct err *err);
/* Accept on this listening socket, which is taken over, in failure too. */
int nbd_server_listen(struct nbd_server *s, int fd, struct err *err);
/* Stop listening: those that are connected stay. */
void nbd_server_deafen(struct nbd_server *s);
void nbd_server_free(struct nbd_server *s); /* cuts all clients off; NULL is allowed */

struct nbd_export_options {
	const char *name, *description; /* description or NULL */
	struct block *block;		/* stays open until the export is gone */
	bool writable;
	const char *const *bitmaps; /* whose bits, as they are now, clients may ask for */
	unsigned nbitmaps;
};
int nbd_export_add(struct nbd_server *s, const struct nbd_export_options *o, struct err *err);
/* -EBUSY if a client uses it, unless `hard`: then that is cut off. */
int nbd_export_del(struct nbd_server *s, const char *name, bool hard, struct err *err);
unsigned nbd_export_clients(struct nbd_server *s, const char *name);

/* A listening TCP socket. host NULL: any address. -errno and err. */
int nbd_listen_inet(const char *host, const char *port, struct err *err);

/* For the fuzzer: serve one client whose bytes these are; what is sent to it is thrown away. */
void nbd_server_feed(struct nbd_server *s, const void *data, size_t len);
