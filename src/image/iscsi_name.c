/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/iscsi_name.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LUN_MAX 16383 /* SAM-5 §4.7.5: what fits into the first level of a LUN */
#define TEXT_MAX 223  /* RFC 7143 section 4.2.7.1: bytes of a name */
#define DEFAULT_PORT ":3260"
#define DEFAULT_INITIATOR "iqn.2008-11.org.linux-kvm:keel"

void iscsi_name_free(struct iscsi_name *n)
{
	free(n->portal);
	free(n->target);
	free(n->user);
	free(n->secret);
	free(n->digest);
	free(n->initiator);
	*n = (struct iscsi_name){ 0 };
}

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* A part of the name with its %XX undone. NULL: too long, or what comes out is no text. */
static char *decode(const char *p, size_t len)
{
	char *out = malloc(len + 1);
	size_t n = 0;

	for (size_t i = 0; out && i < len; i++) {
		int c = (unsigned char)p[i];

		if (c == '%') {
			c = i + 2 < len && hex(p[i + 1]) >= 0 && hex(p[i + 2]) >= 0 ? hex(p[i + 1]) << 4 | hex(p[i + 2]) : -1;
			i += 2;
		}
		if (c < ' ' || c == 0x7f || n == TEXT_MAX) {
			free(out);
			return NULL;
		}
		out[n++] = c;
	}
	if (out)
		out[n] = 0;
	return out;
}

static bool take(char **to, const char *p, size_t len)
{
	free(*to);
	*to = decode(p, len);
	return *to && **to;
}

static bool setting(struct iscsi_name *n, const char *p, size_t len)
{
	static const struct {
		const char *key;
		size_t offset;
	} keys[] = {
		{ "password-secret=", offsetof(struct iscsi_name, secret) },
		{ "initiator-name=", offsetof(struct iscsi_name, initiator) },
		{ "header-digest=", offsetof(struct iscsi_name, digest) },
	};

	for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		size_t k = strlen(keys[i].key);

		if (len > k && !strncmp(p, keys[i].key, k))
			return take((char **)((char *)n + keys[i].offset), p + k, len - k);
	}
	return false;
}

/* HOST, HOST:PORT or [HOST]:PORT */
static bool portal(struct iscsi_name *n, const char *p, size_t len)
{
	const char *end = memchr(p, ']', len), *colon = memchr(end ? end : p, ':', len - (end ? end - p : 0));
	char *out;

	if (!len || *p == ':' || (*p == '[') != (end != NULL) || (end && end == p + 1))
		return false;
	for (const char *d = colon ? colon + 1 : p + len; d < p + len; d++)
		if (!isdigit((unsigned char)*d))
			return false;
	if (colon && (colon + 1 == p + len || p + len - colon > 6 || atoi(colon + 1) > 65535 || !atoi(colon + 1)))
		return false;
	if (end && end + 1 != p + len && end + 1 != colon)
		return false;
	if (!take(&n->portal, p, len) || colon)
		return n->portal;
	out = malloc(strlen(n->portal) + sizeof(DEFAULT_PORT));
	if (!out)
		return false;
	strcpy(out, n->portal);
	strcat(out, DEFAULT_PORT);
	free(n->portal);
	n->portal = out;
	return true;
}

static const char *parse(struct iscsi_name *n, const char *p)
{
	const char *query = strchr(p, '?'), *end = query ? query : p + strlen(p), *slash = memchr(p, '/', end - p), *at, *lun;

	if (!slash)
		return "the target's name is missing";
	at = memchr(p, '@', slash - p);
	/* USER%PASSWORD, which libiscsi knows: a '%' that begins no %XX. */
	for (const char *c = p; at && c < at; c++)
		if (*c == '%' && (at - c < 3 || hex(c[1]) < 0 || hex(c[2]) < 0))
			return "a password does not belong in a name that everybody can read: use ?password-secret=ID";
	if (at && !take(&n->user, p, at - p))
		return "the user's name makes no sense";
	if (!portal(n, at ? at + 1 : p, slash - (at ? at + 1 : p)))
		return "the portal is not of the form HOST[:PORT]";
	lun = memchr(slash + 1, '/', end - slash - 1);
	if (!take(&n->target, slash + 1, (lun ? lun : end) - slash - 1))
		return "the target's name is missing or makes no sense";
	if (lun) {
		char *after;
		long number = strtol(lun + 1, &after, 10);

		if (!isdigit((unsigned char)lun[1]) || after != end || number > LUN_MAX)
			return "the LUN is not a number from 0 to 16383";
		n->lun = number;
	}
	while (query && *query) {
		const char *s = query + 1;
		size_t len = strcspn(s, "&");

		if (!setting(n, s, len))
			return "its settings are password-secret, initiator-name and header-digest";
		query = s + len;
	}
	if (n->digest && strcmp(n->digest, "none") && strcmp(n->digest, "crc32c") && strcmp(n->digest, "none-crc32c") &&
	    strcmp(n->digest, "crc32c-none"))
		return "header-digest is none, crc32c, none-crc32c or crc32c-none";
	if (!n->initiator && !(n->initiator = strdup(DEFAULT_INITIATOR)))
		return "there is no memory for it";
	return NULL;
}

int iscsi_name_parse(struct iscsi_name *n, const char *uri, struct err *err)
{
	const char *wrong;

	*n = (struct iscsi_name){ 0 };
	wrong = strncmp(uri, "iscsi://", 8) ? "it does not begin with iscsi://" : parse(n, uri + 8);
	if (!wrong)
		return 0;
	iscsi_name_free(n);
	return err_set(err, EINVAL, "%.200s: %s", uri, wrong);
}
