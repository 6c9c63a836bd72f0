/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/rbd_name.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void rbd_name_free(struct rbd_name *n)
{
	free(n->pool);
	free(n->image);
	free(n->space);
	free(n->snapshot);
	free(n->id);
	free(n->conf);
	free(n->secret);
	for (unsigned i = 0; i < n->settings; i++) {
		free(n->setting[i].key);
		free(n->setting[i].value);
	}
	*n = (struct rbd_name){ 0 };
}

/* Up to one of `ends` that no backslash stands before; *p is at it then. NULL: empty, or no memory. */
static char *part(const char **p, const char *ends)
{
	char *out = malloc(strlen(*p) + 1), *o = out;
	const char *s = *p;

	if (!out)
		return NULL;
	for (; *s && !strchr(ends, *s); s++) {
		if (*s == '\\' && s[1])
			s++;
		*o++ = *s;
	}
	*o = 0;
	*p = s;
	if (*out)
		return out;
	free(out);
	return NULL;
}

static const char *setting(struct rbd_name *n, const char **p)
{
	char *key = part(p, "=:"), *value = NULL, **to = NULL;

	if (key && **p == '=') {
		++*p;
		value = part(p, ":");
	}
	if (!key || !value) {
		free(key);
		return "a setting is not of the form KEY=VALUE";
	}
	if (!strcmp(key, "id"))
		to = &n->id;
	else if (!strcmp(key, "conf"))
		to = &n->conf;
	else if (!strcmp(key, "key-secret"))
		to = &n->secret;
	if (to) {
		free(*to);
		*to = value;
		free(key);
		return NULL;
	}
	if (n->settings == RBD_SETTINGS || !strcmp(key, "key")) {
		const char *why = n->settings == RBD_SETTINGS ? "it has too many settings"
							      : "a key does not belong in a name that everybody can read: use "
								"key-secret=ID";

		free(key);
		free(value);
		return why;
	}
	n->setting[n->settings].key = key;
	n->setting[n->settings++].value = value;
	return NULL;
}

static const char *parse(struct rbd_name *n, const char *p)
{
	const char *wrong = NULL;

	n->pool = part(&p, "/@:");
	if (!n->pool || *p != '/')
		return "it is not of the form rbd:POOL/IMAGE";
	p++;
	n->image = part(&p, "/@:");
	if (n->image && *p == '/') {
		p++;
		n->space = n->image;
		n->image = part(&p, "@:");
	}
	if (!n->image)
		return "the image's name is missing";
	if (*p == '@') {
		p++;
		n->snapshot = part(&p, ":");
		if (!n->snapshot)
			return "the snapshot's name is missing";
	}
	while (!wrong && *p == ':') {
		p++;
		wrong = setting(n, &p);
	}
	return wrong;
}

int rbd_name_parse(struct rbd_name *n, const char *name, struct err *err)
{
	const char *wrong;

	*n = (struct rbd_name){ 0 };
	wrong = strncmp(name, "rbd:", 4) ? "it does not begin with rbd:" : parse(n, name + 4);
	if (!wrong)
		return 0;
	rbd_name_free(n);
	return err_set(err, EINVAL, "%.200s: %s", name, wrong);
}
