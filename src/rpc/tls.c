/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/tls.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WARNINGS_MAX 16

struct rpc_tls {
	gnutls_certificate_credentials_t cred;
	bool server, verify;
};

struct tls_layer {
	struct rpc_layer layer;
	struct rpc_tls *tls;
	gnutls_session_t session;
	char *host;
	char peer[1024];
};

/* ---- Credentials ----------------------------------------------------------- */

static int check_readable(const char *path, const char *what, struct err *err)
{
	return access(path, R_OK) ? err_set_errno(err, errno, "TLS: cannot read the %s %s", what, path) : 0;
}

/* Ours must be of the authority, of today, and for this use: else every peer would refuse it without telling us. */
static int check_own(const struct rpc_tls_files *f, bool server, struct err *err)
{
	gnutls_x509_crt_t *cas = NULL, *chain = NULL;
	gnutls_datum_t ca = { 0 }, own = { 0 };
	unsigned ncas = 0, nchain = 0, status = 0;
	gnutls_x509_trust_list_t trust = NULL;
	gnutls_typed_vdata_st purpose = {
		.type = GNUTLS_DT_KEY_PURPOSE_OID,
		.data = (unsigned char *)(server ? GNUTLS_KP_TLS_WWW_SERVER : GNUTLS_KP_TLS_WWW_CLIENT),
	};
	gnutls_datum_t text = { 0 };
	int ret;

	ret = gnutls_load_file(f->ca, &ca);
	if (ret >= 0)
		ret = gnutls_x509_crt_list_import2(&cas, &ncas, &ca, GNUTLS_X509_FMT_PEM, 0);
	if (ret >= 0)
		ret = gnutls_load_file(f->cert, &own);
	if (ret >= 0)
		ret = gnutls_x509_crt_list_import2(&chain, &nchain, &own, GNUTLS_X509_FMT_PEM, 0);
	if (ret >= 0)
		ret = gnutls_x509_trust_list_init(&trust, 0);
	if (ret >= 0)
		ret = gnutls_x509_trust_list_add_cas(trust, cas, ncas, 0);
	if (ret >= 0)
		ret = gnutls_x509_trust_list_verify_crt2(trust, chain, nchain, &purpose, 1, 0, &status, NULL);
	if (ret < 0) {
		err_set(err, EINVAL, "TLS: cannot check the certificate %s: %s", f->cert, gnutls_strerror(ret));
	} else if (status) {
		gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0);
		err_set(err, EINVAL, "TLS: the certificate %s is not good under %s: %s", f->cert, f->ca,
			text.data ? (char *)text.data : "unknown reason");
	}
	gnutls_free(text.data);
	if (trust)
		gnutls_x509_trust_list_deinit(trust, 0);
	for (unsigned n = 0; n < nchain; n++)
		gnutls_x509_crt_deinit(chain[n]);
	for (unsigned n = 0; n < ncas; n++)
		gnutls_x509_crt_deinit(cas[n]);
	gnutls_free(cas);
	gnutls_free(chain);
	gnutls_free(ca.data);
	gnutls_free(own.data);
	return ret < 0 || status ? -EINVAL : 0;
}

static int load(struct rpc_tls *t, const struct rpc_tls_files *f, struct err *err)
{
	int ret;

	/* A client that trusts anybody may have no authority, and one without a certificate of its own can only be refused. */
	if (t->verify || !access(f->ca, F_OK)) {
		ret = check_readable(f->ca, "authority's certificate", err);
		if (ret)
			return ret;
		ret = gnutls_certificate_set_x509_trust_file(t->cred, f->ca, GNUTLS_X509_FMT_PEM);
		if (ret < 0)
			return err_set(err, EINVAL, "TLS: %s holds no certificate: %s", f->ca, gnutls_strerror(ret));
	}
	if (f->crl && !access(f->crl, F_OK)) {
		ret = gnutls_certificate_set_x509_crl_file(t->cred, f->crl, GNUTLS_X509_FMT_PEM);
		if (ret < 0)
			return err_set(err, EINVAL, "TLS: %s holds no revocation list: %s", f->crl, gnutls_strerror(ret));
	}
	if (!t->server && access(f->cert, F_OK) && access(f->key, F_OK))
		return 0;
	ret = check_readable(f->cert, "certificate", err);
	if (!ret)
		ret = check_readable(f->key, "key", err);
	if (!ret && t->verify)
		ret = check_own(f, t->server, err);
	if (ret)
		return ret;
	ret = gnutls_certificate_set_x509_key_file(t->cred, f->cert, f->key, GNUTLS_X509_FMT_PEM);
	return ret < 0 ? err_set(err, EINVAL, "TLS: cannot use %s with the key %s: %s", f->cert, f->key, gnutls_strerror(ret)) : 0;
}

struct rpc_tls *rpc_tls_new(const struct rpc_tls_files *files, unsigned flags, struct err *err)
{
	struct rpc_tls *t = calloc(1, sizeof(*t));

	if (!t || gnutls_certificate_allocate_credentials(&t->cred) < 0) {
		free(t);
		err_set(err, ENOMEM, "no memory for TLS credentials");
		return NULL;
	}
	t->server = flags & RPC_TLS_SERVER;
	t->verify = !(flags & RPC_TLS_NO_VERIFY);
	if (load(t, files, err)) {
		rpc_tls_free(t);
		return NULL;
	}
	return t;
}

void rpc_tls_free(struct rpc_tls *t)
{
	if (!t)
		return;
	gnutls_certificate_free_credentials(t->cred);
	free(t);
}

/* ---- Connections ----------------------------------------------------------- */

static struct tls_layer *tls_of(struct rpc_layer *l)
{
	return (struct tls_layer *)l;
}

static ssize_t result(ssize_t n)
{
	switch (n) {
	case GNUTLS_E_AGAIN:
	case GNUTLS_E_INTERRUPTED:
		return -EAGAIN;
	case GNUTLS_E_PREMATURE_TERMINATION:
		return 0;
	default:
		return n < 0 ? -EPROTO : n;
	}
}

static ssize_t tls_recv(struct rpc_layer *l, void *data, size_t len)
{
	return result(gnutls_record_recv(tls_of(l)->session, data, len));
}

static ssize_t tls_send(struct rpc_layer *l, const void *data, size_t len)
{
	return result(gnutls_record_send(tls_of(l)->session, data, len));
}

static bool tls_pending(const struct rpc_layer *l)
{
	return gnutls_record_check_pending(((const struct tls_layer *)l)->session);
}

static void tls_free(struct rpc_layer *l)
{
	struct tls_layer *t = tls_of(l);

	gnutls_bye(t->session, GNUTLS_SHUT_WR); /* if it fits the socket; nothing depends on it */
	gnutls_deinit(t->session);
	free(t->host);
	free(t);
}

struct rpc_layer *rpc_tls_layer(struct rpc_tls *tls, int fd, const char *host, struct err *err)
{
	static const struct rpc_layer_ops ops = { .recv = tls_recv, .send = tls_send, .pending = tls_pending, .free = tls_free };
	struct tls_layer *t = calloc(1, sizeof(*t));

	if (t && host && !(t->host = strdup(host))) {
		free(t);
		t = NULL;
	}
	if (!t || gnutls_init(&t->session, (tls->server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) < 0) {
		if (t)
			free(t->host);
		free(t);
		err_set(err, ENOMEM, "no memory for a TLS connection");
		return NULL;
	}
	t->layer.ops = &ops;
	t->tls = tls;
	gnutls_set_default_priority(t->session);
	gnutls_credentials_set(t->session, GNUTLS_CRD_CERTIFICATE, tls->cred);
	/* Not REQUIRE: the check below says which certificate was missing or wrong. */
	if (tls->server)
		gnutls_certificate_server_set_request(t->session, GNUTLS_CERT_REQUEST);
	else if (host)
		gnutls_server_name_set(t->session, GNUTLS_NAME_DNS, host, strlen(host));
	gnutls_transport_set_int(t->session, fd);
	return &t->layer;
}

static int check_peer(struct tls_layer *t, struct err *err)
{
	gnutls_typed_vdata_st data[2] = {
		{
			.type = GNUTLS_DT_KEY_PURPOSE_OID,
			.data = (unsigned char *)(t->tls->server ? GNUTLS_KP_TLS_WWW_CLIENT : GNUTLS_KP_TLS_WWW_SERVER),
		},
		{ .type = GNUTLS_DT_DNS_HOSTNAME, .data = (unsigned char *)t->host },
	};
	gnutls_datum_t text = { 0 };
	unsigned status;
	int ret = gnutls_certificate_verify_peers(t->session, data, t->host ? 2 : 1, &status);

	if (ret == GNUTLS_E_NO_CERTIFICATE_FOUND)
		return err_set(err, EACCES, "TLS: the peer shows no certificate");
	if (ret < 0)
		return err_set(err, EACCES, "TLS: cannot check the peer's certificate: %s", gnutls_strerror(ret));
	if (!status)
		return 0;
	gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0);
	err_set(err, EACCES, "TLS: the peer's certificate is refused: %s", text.data ? (char *)text.data : "unknown reason");
	gnutls_free(text.data);
	return -EACCES;
}

static int read_name(struct tls_layer *t, struct err *err)
{
	unsigned n = 0;
	const gnutls_datum_t *list = gnutls_certificate_get_peers(t->session, &n);
	size_t len = sizeof(t->peer);
	gnutls_x509_crt_t crt;
	int ret;

	if (!list || !n)
		return 0;
	ret = gnutls_x509_crt_init(&crt);
	if (ret >= 0) {
		ret = gnutls_x509_crt_import(crt, &list[0], GNUTLS_X509_FMT_DER);
		if (ret >= 0)
			ret = gnutls_x509_crt_get_dn(crt, t->peer, &len);
		gnutls_x509_crt_deinit(crt);
	}
	if (ret >= 0)
		return 0;
	t->peer[0] = 0;
	return err_set(err, EACCES, "TLS: the peer's certificate has no name that fits: %s", gnutls_strerror(ret));
}

int rpc_tls_handshake(struct rpc_layer *l, struct err *err)
{
	struct tls_layer *t = tls_of(l);
	int ret, warnings = 0;

	/* A peer that sends nothing but warnings, or what GnuTLS takes for such, does not get to keep us here. */
	do
		ret = gnutls_handshake(t->session);
	while (ret < 0 && ret != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(ret) && ++warnings < WARNINGS_MAX);
	if (ret == GNUTLS_E_AGAIN)
		return gnutls_record_get_direction(t->session) ? RPC_TLS_WRITE : RPC_TLS_READ;
	if (ret < 0)
		return err_set(err, EPROTO, "TLS: the handshake fails: %s", gnutls_strerror(ret));
	ret = t->tls->verify ? check_peer(t, err) : 0;
	if (!ret)
		ret = read_name(t, err);
	return ret ? ret : RPC_TLS_DONE;
}

const char *rpc_tls_peer(const struct rpc_layer *l)
{
	return ((const struct tls_layer *)l)->peer;
}
