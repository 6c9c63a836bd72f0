/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/uri.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *scheme;
	enum uri_transport transport;
	bool remote; /* only with a host */
} schemes[] = {
	{ "qemu", URI_UNIX, false },
	{ "qemu+unix", URI_UNIX, false },
	{ "qemu+tls", URI_TLS, true },
	{ "qemu+tcp", URI_TCP, true },
};

static int hex(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : isxdigit((unsigned char)c) ? tolower((unsigned char)c) - 'a' + 10 : -1;
}

/* A part with its %XX read (RFC 3986 §2.1), malloced. NULL: no memory, or malformed. */
static char *decoded(const char *s, size_t len)
{
	char *out = malloc(len + 1), *to = out;

	for (const char *end = s + len; out && s < end; s++) {
		if (*s != '%') {
			*to++ = *s;
			continue;
		}
		if (end - s < 3 || hex(s[1]) < 0 || hex(s[2]) < 0 || !(hex(s[1]) | hex(s[2]))) {
			free(out);
			return NULL;
		}
		*to++ = (char)(hex(s[1]) << 4 | hex(s[2]));
		s += 2;
	}
	if (out)
		*to = 0;
	return out;
}

static int parse_authority(struct uri *u, const char *s, size_t len, const char *text, struct err *err)
{
	const char *at = memchr(s, '@', len), *end = s + len, *colon;
	char *number;

	if (at) {
		u->user = decoded(s, (size_t)(at - s));
		s = at + 1;
		if (!u->user)
			return err_set(err, EINVAL, "the user name in the URI %s is malformed", text);
	}
	if (s < end && *s == '[') { /* an IPv6 address */
		const char *close = memchr(s, ']', (size_t)(end - s));

		if (!close || (close + 1 < end && close[1] != ':'))
			return err_set(err, EINVAL, "the address in the URI %s lacks its ]", text);
		u->host = decoded(s + 1, (size_t)(close - s - 1));
		colon = close + 1 < end ? close + 1 : NULL;
	} else {
		colon = memchr(s, ':', (size_t)(end - s));
		if ((colon ? colon : end) > s)
			u->host = decoded(s, (size_t)((colon ? colon : end) - s));
	}
	if (colon) {
		unsigned long port = isdigit((unsigned char)colon[1]) ? strtoul(colon + 1, &number, 10) : 0;

		if (!port || port > 65535 || number != end)
			return err_set(err, EINVAL, "the port in the URI %s is not a number from 1 to 65535", text);
		u->port = (unsigned)port;
	}
	return 0;
}

static int parse_query(struct uri *u, const char *s, const char *text, struct err *err)
{
	while (*s) {
		size_t len = strcspn(s, "&;"), key = strcspn(s, "=&;");
		char *value = decoded(s + (key < len ? key + 1 : len), key < len ? len - key - 1 : 0), **to = NULL;

		if (!value)
			return err_set(err, EINVAL, "a parameter of the URI %s is malformed", text);
		if (key == 6 && !memcmp(s, "socket", key))
			to = &u->socket;
		else if (key == 7 && !memcmp(s, "pkipath", key))
			to = &u->pkipath;
		else if (key == 9 && !memcmp(s, "no_verify", key))
			u->no_verify = strcmp(value, "0") && *value;
		else if (key == 4 && !memcmp(s, "mode", key) && (!strcmp(value, "auto") || !strcmp(value, "legacy")))
			; /* which of libvirt's daemons: there is one */
		else {
			err_set(err, ENOTSUP, "the URI %s has the parameter %.*s=%s; known are socket, pkipath and no_verify", text,
				(int)key, s, value);
			free(value);
			return -ENOTSUP;
		}
		if (to) {
			free(*to);
			*to = value;
		} else {
			free(value);
		}
		s += len;
		s += !!*s;
	}
	return 0;
}

int uri_parse(struct uri *u, const char *text, struct err *err)
{
	const char *colon = strstr(text, "://"), *authority = colon ? colon + 3 : NULL, *path, *query;
	bool remote = false;
	unsigned n;
	int ret;

	*u = (struct uri){ 0 };
	for (n = 0; colon && n < sizeof(schemes) / sizeof(schemes[0]); n++)
		if (strlen(schemes[n].scheme) == (size_t)(colon - text) && !strncmp(text, schemes[n].scheme, (size_t)(colon - text)))
			break;
	if (!colon || n == sizeof(schemes) / sizeof(schemes[0]))
		return err_set(err, EINVAL, "the URI %s is none of qemu:///, qemu+unix:///, qemu+tls://HOST/ and qemu+tcp://HOST/", text);
	u->transport = schemes[n].transport;
	path = authority + strcspn(authority, "/?");
	query = path + strcspn(path, "?");
	ret = parse_authority(u, authority, (size_t)(path - authority), text, err);
	if (ret)
		return ret;
	/* As libvirt: a host without a transport means TLS. */
	if (u->host && u->transport == URI_UNIX && !strncmp(text, "qemu://", 7))
		u->transport = URI_TLS;
	remote = schemes[n].remote;
	if (remote != !!u->host && u->transport != URI_TLS)
		return err_set(err, EINVAL, remote ? "the URI %s names no host" : "the URI %s names a host, but a socket has none", text);
	if (u->transport != URI_UNIX && !u->host)
		return err_set(err, EINVAL, "the URI %s names no host", text);
	u->path = decoded(path + (*path == '/'), (size_t)(query - path) - (*path == '/'));
	if (!u->path || (strcmp(u->path, "system") && strcmp(u->path, "session")))
		return err_set(err, EINVAL, "the URI %s ends neither in /system nor in /session", text);
	ret = *query ? parse_query(u, query + 1, text, err) : 0;
	if (ret)
		return ret;
	return asprintf(&u->remote, "qemu:///%s", u->path) < 0 ? err_set(err, ENOMEM, "no memory for a URI") : 0;
}

void uri_free(struct uri *u)
{
	free(u->host);
	free(u->user);
	free(u->path);
	free(u->socket);
	free(u->pkipath);
	free(u->remote);
	*u = (struct uri){ 0 };
}
