/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "image/nbd_server_int.h"

#define HANDSHAKE_MS 10000

struct tls {
	gnutls_certificate_credentials_t credentials;
	bool verify;
};

struct tls_session {
	gnutls_session_t session;
};

static int load(struct tls *t, const char *dir, struct err *err)
{
	char ca[PATH_MAX], cert[PATH_MAX], key[PATH_MAX];
	int ret;

	snprintf(ca, sizeof(ca), "%s/ca-cert.pem", dir);
	snprintf(cert, sizeof(cert), "%s/server-cert.pem", dir);
	snprintf(key, sizeof(key), "%s/server-key.pem", dir);
	ret = gnutls_certificate_set_x509_trust_file(t->credentials, ca, GNUTLS_X509_FMT_PEM);
	if (ret <= 0)
		return err_set(err, EINVAL, "cannot load the certificate authority %s: %s", ca,
			       ret ? gnutls_strerror(ret) : "there is none in it");
	ret = gnutls_certificate_set_x509_key_file(t->credentials, cert, key, GNUTLS_X509_FMT_PEM);
	if (ret < 0)
		return err_set(err, EINVAL, "cannot load the certificate %s and its key %s: %s", cert, key,
			       gnutls_strerror(ret));
	return 0;
}

struct tls *tls_new(const char *dir, bool verify, struct err *err)
{
	struct tls *t = calloc(1, sizeof(*t));

	if (!t || gnutls_certificate_allocate_credentials(&t->credentials) < 0) {
		free(t);
		err_set(err, ENOMEM, "no memory for TLS");
		return NULL;
	}
	t->verify = verify;
	if (load(t, dir, err)) {
		tls_free(t);
		return NULL;
	}
	return t;
}

void tls_free(struct tls *t)
{
	if (!t)
		return;
	gnutls_certificate_free_credentials(t->credentials);
	free(t);
}

static int handshake(gnutls_session_t s)
{
	int ret;

	do
		ret = gnutls_handshake(s);
	while (ret == GNUTLS_E_INTERRUPTED || ret == GNUTLS_E_AGAIN || ret == GNUTLS_E_WARNING_ALERT_RECEIVED);
	return ret;
}

struct tls_session *tls_accept(struct tls *t, int fd)
{
	struct tls_session *s = calloc(1, sizeof(*s));
	int ret = s ? gnutls_init(&s->session, GNUTLS_SERVER) : GNUTLS_E_MEMORY_ERROR;

	if (ret < 0) {
		free(s);
		return NULL;
	}
	ret = gnutls_set_default_priority(s->session);
	if (!ret)
		ret = gnutls_credentials_set(s->session, GNUTLS_CRD_CERTIFICATE, t->credentials);
	if (t->verify) {
		gnutls_certificate_server_set_request(s->session, GNUTLS_CERT_REQUIRE);
		gnutls_session_set_verify_cert(s->session, NULL, 0);
	}
	gnutls_transport_set_int(s->session, fd);
	gnutls_handshake_set_timeout(s->session, HANDSHAKE_MS);
	if (!ret)
		ret = handshake(s->session);
	if (!ret)
		return s;
	gnutls_deinit(s->session);
	free(s);
	return NULL;
}

void tls_end(struct tls_session *s)
{
	if (!s)
		return;
	gnutls_bye(s->session, GNUTLS_SHUT_WR);
	gnutls_deinit(s->session);
	free(s);
}

static ssize_t result(ssize_t n)
{
	if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
		errno = EINTR;
	else if (n < 0)
		errno = EIO;
	return n < 0 ? -1 : n;
}

ssize_t tls_read(struct tls_session *s, void *buf, size_t len)
{
	return result(gnutls_record_recv(s->session, buf, len));
}

ssize_t tls_write(struct tls_session *s, const void *buf, size_t len)
{
	return result(gnutls_record_send(s->session, buf, len));
}
