/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/node_remote.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS 12


static void plain(FILE *f, const char *s)
{
	fputs(s, f);
}

/* RFC 3986 section 2.1 */
static void percent(FILE *f, const char *s, const char *also)
{
	for (; *s; s++)
		if (isalnum((unsigned char)*s) || strchr("-._~", *s) || strchr(also, *s))
			fputc(*s, f);
		else
			fprintf(f, "%%%02X", (unsigned char)*s);
}

/* In an rbd: name, ':', '@', '/' and '\' of a part are escaped by '\'. */
static void escaped(FILE *f, const char *s)
{
	for (; *s; s++)
		fprintf(f, strchr(":@/\\", *s) ? "\\%c" : "%c", *s);
}

static const char *text_of(json_t *args, const char *key)
{
	return json_string_value(json_object_get(args, key));
}

static int need(json_t *args, const char *key, const char **value, struct err *err)
{
	*value = text_of(args, key);
	return *value && **value ? 0 : err_set(err, EINVAL, "Parameter '%s' is missing", key);
}

/* ---- nbd ------------------------------------------------------------------------- */

static int nbd_name(FILE *f, json_t *args, struct err *err)
{
	json_t *server = json_object_get(args, "server");
	const char *type = text_of(server, "type"), *export = text_of(args, "export"), *tls = text_of(args, "tls-creds");
	const char *path, *host, *port;

	if (!type)
		return err_set(err, EINVAL, "Parameter 'server.type' is missing");
	if (tls)
		return err_set(err, ENOTSUP,
			       "Parameter 'tls-creds' is not supported: give the node a filename nbds://...?tls-certificates=DIR");
	if (!strcmp(type, "unix")) {
		if (need(server, "path", &path, err))
			return -EINVAL;
		plain(f, "nbd+unix:///");
		percent(f, export ? export : "", "");
		plain(f, "?socket=");
		percent(f, path, "/");
		return 0;
	}
	if (strcmp(type, "inet"))
		return err_set(err, ENOTSUP, "Parameter 'server.type' does not accept value '%.40s': Keel knows: inet unix", type);
	if (need(server, "host", &host, err) || need(server, "port", &port, err))
		return -EINVAL;
	fprintf(f, strchr(host, ':') ? "nbd://[%s]:%s/" : "nbd://%s:%s/", host, port);
	percent(f, export ? export : "", "");
	return 0;
}

/* ---- iscsi ----------------------------------------------------------------------- */

static int iscsi_name(FILE *f, json_t *args, struct err *err)
{
	const char *portal, *target, *user = text_of(args, "user"), *secret = text_of(args, "password-secret"),
		   *initiator = text_of(args, "initiator-name"), *transport = text_of(args, "transport");
	const char *digest = text_of(args, "header-digest");
	char mark = '?';

	if (need(args, "portal", &portal, err) || need(args, "target", &target, err))
		return -EINVAL;
	if (transport && strcmp(transport, "tcp"))
		return err_set(err, ENOTSUP, "Parameter 'transport' does not accept value '%.40s': Keel knows: tcp", transport);
	plain(f, "iscsi://");
	if (user) {
		percent(f, user, "");
		plain(f, "@");
	}
	percent(f, portal, ":[]");
	plain(f, "/");
	percent(f, target, ":");
	fprintf(f, "/%lld", (long long)json_integer_value(json_object_get(args, "lun")));
	if (secret) {
		fprintf(f, "%cpassword-secret=", mark);
		percent(f, secret, "");
		mark = '&';
	}
	if (initiator) {
		fprintf(f, "%cinitiator-name=", mark);
		percent(f, initiator, ":");
		mark = '&';
	}
	if (digest) {
		fprintf(f, "%cheader-digest=", mark);
		percent(f, digest, "");
	}
	return 0;
}

/* ---- rbd -------------------------------------------------------------------------- */

static int rbd_name(FILE *f, json_t *args, struct err *err)
{
	static const char *const settings[][2] = { { "user", "id" }, { "conf", "conf" }, { "key-secret", "key-secret" } };
	const char *pool, *image, *space = text_of(args, "namespace"), *snapshot = text_of(args, "snapshot");
	json_t *servers = json_object_get(args, "server"), *server;
	size_t i;

	if (need(args, "pool", &pool, err) || need(args, "image", &image, err))
		return -EINVAL;
	plain(f, "rbd:");
	escaped(f, pool);
	if (space) {
		plain(f, "/");
		escaped(f, space);
	}
	plain(f, "/");
	escaped(f, image);
	if (snapshot) {
		plain(f, "@");
		escaped(f, snapshot);
	}
	for (unsigned n = 0; n < sizeof(settings) / sizeof(settings[0]); n++) {
		const char *value = text_of(args, settings[n][0]);

		if (!value)
			continue;
		fprintf(f, ":%s=", settings[n][1]);
		escaped(f, value);
	}
	json_array_foreach(servers, i, server) {
		const char *host, *port;

		if (need(server, "host", &host, err) || need(server, "port", &port, err))
			return -EINVAL;
		plain(f, i ? "," : ":mon_host=");
		if (strchr(host, ':'))
			plain(f, "[");
		escaped(f, host);
		fprintf(f, strchr(host, ':') ? "]\\:%s" : "\\:%s", port);
	}
	return 0;
}

/* ---- All of them ------------------------------------------------------------------- */

static const struct {
	const char *driver, *keys[KEYS];
	int (*name)(FILE *f, json_t *args, struct err *err);
} drivers[] = {
	{ "nbd", { "server", "export", "tls-creds", "filename" }, nbd_name },
	{ "iscsi",
	  { "transport", "portal", "target", "lun", "user", "password-secret", "initiator-name", "header-digest", "filename" },
	  iscsi_name },
	{ "rbd", { "pool", "namespace", "image", "snapshot", "user", "conf", "key-secret", "server", "filename" }, rbd_name },
};
#define N_DRIVERS (sizeof(drivers) / sizeof(drivers[0]))

static unsigned find(const char *driver)
{
	unsigned i = 0;

	while (i < N_DRIVERS && strcmp(drivers[i].driver, driver))
		i++;
	return i;
}

bool node_remote_driver(const char *driver)
{
	return find(driver) < N_DRIVERS;
}

bool node_remote_option(const char *driver, const char *key)
{
	unsigned d = find(driver);

	for (unsigned i = 0; d < N_DRIVERS && i < KEYS && drivers[d].keys[i]; i++)
		if (!strcmp(drivers[d].keys[i], key))
			return true;
	return false;
}

char *node_remote_name(const char *driver, json_t *args, struct err *err)
{
	const char *filename = text_of(args, "filename");
	char *name = NULL;
	size_t len;
	FILE *f;
	int ret;

	if (filename)
		name = strdup(filename);
	f = filename ? NULL : open_memstream(&name, &len);
	if (!filename && !f) {
		err_set(err, ENOMEM, "no memory for a block node");
		return NULL;
	}
	if (filename)
		return name;
	ret = drivers[find(driver)].name(f, args, err);
	if (fclose(f) && !ret)
		ret = err_set(err, ENOMEM, "no memory for a block node");
	if (!ret)
		return name;
	free(name);
	return NULL;
}
