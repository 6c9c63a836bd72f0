/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading the rules: "allow|deny WHO OBJECT:PERMISSION[,...] [NAME]", one a line; quotes hold blanks together. */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/access.h"
#include "rpc/access_int.h"
#include "rpc/wire.h"

#define FILE_MAX (1u << 20)
enum { WORDS = 5 };

struct place {
	const char *path;
	unsigned line;
	struct err *err;
};

#define BAD(p, ...) \
	(err_set((p)->err, EINVAL, __VA_ARGS__), err_prefix((p)->err, "%s line %u", (p)->path, (p)->line), -EINVAL)

static char *read_all(const char *path, struct err *err)
{
	FILE *f = fopen(path, "re");
	char *text = f ? malloc(FILE_MAX + 1) : NULL;
	size_t n;

	if (!f || !text) {
		err_set_errno(err, errno, "cannot read the access rules %s", path);
		if (f)
			fclose(f);
		return NULL;
	}
	n = fread(text, 1, FILE_MAX + 1, f);
	fclose(f);
	if (n > FILE_MAX || memchr(text, 0, n)) {
		err_set(err, EINVAL, "the access rules %s are no text of at most 1 MiB", path);
		free(text);
		return NULL;
	}
	text[n] = 0;
	return text;
}

/* Split a line in place. The number of words, at most WORDS; -EINVAL for a quote that does not end. */
static int split(char *s, char *words[WORDS])
{
	int n = 0;

	while (n < WORDS) {
		char *to;

		s += strspn(s, " \t\r");
		if (!*s || *s == '#')
			break;
		words[n++] = to = s;
		while (*s && !strchr(" \t\r", *s)) {
			if (*s != '"') {
				*to++ = *s++;
				continue;
			}
			for (s++; *s && *s != '"';)
				*to++ = *s++;
			if (!*s++)
				return -EINVAL;
		}
		if (*s)
			s++;
		*to = 0;
	}
	return n;
}

static int parse_id(const char *text, unsigned *id)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || v >= UINT32_MAX)
		return -EINVAL;
	*id = (unsigned)v;
	return 0;
}

static int parse_user(struct access_line *l, const char *value, const struct place *at)
{
	struct passwd *pw = getpwnam(value);

	if (!pw)
		return BAD(at, "there is no user '%s'", value);
	l->who = ACCESS_UID;
	l->id = pw->pw_uid;
	return 0;
}

static int parse_group(struct access_line *l, const char *value, const struct place *at)
{
	struct group *gr = getgrnam(value);

	if (!gr)
		return BAD(at, "there is no group '%s'", value);
	l->who = ACCESS_GID;
	l->id = gr->gr_gid;
	return 0;
}

static int parse_who(struct access_line *l, char *word, const struct place *at)
{
	static const struct {
		const char *word;
		enum access_who who;
		unsigned id;
	} plain[] = { { "*", ACCESS_ANYBODY, 0 }, { "unix", ACCESS_TRANSPORT, RPC_UNIX }, { "tls", ACCESS_TRANSPORT, RPC_TLS },
		      { "tcp", ACCESS_TRANSPORT, RPC_TCP } };
	char *value = strchr(word, ':');

	for (unsigned n = 0; n < sizeof(plain) / sizeof(plain[0]); n++)
		if (!strcmp(word, plain[n].word)) {
			l->who = plain[n].who;
			l->id = plain[n].id;
			return 0;
		}
	if (value) {
		*value++ = 0;
		l->pattern = value;
		if (!strcmp(word, "user"))
			return parse_user(l, value, at);
		if (!strcmp(word, "group"))
			return parse_group(l, value, at);
		if (!strcmp(word, "uid") || !strcmp(word, "gid")) {
			l->who = *word == 'u' ? ACCESS_UID : ACCESS_GID;
			return parse_id(value, &l->id) ? BAD(at, "%s:%s is no number", word, value) : 0;
		}
		if (!strcmp(word, "sasl") || !strcmp(word, "dn")) {
			l->who = *word == 's' ? ACCESS_SASL : ACCESS_DN;
			return 0;
		}
	}
	return BAD(at, "'%s' is nobody: say *, user:, uid:, group:, gid:, sasl:, dn:, unix, tls or tcp", word);
}

/* Does any procedure ask for it? A word that none knows would be a rule that never works. */
static bool is_known(const char *object, const char *permission)
{
	bool any_object = !strcmp(object, "*"), any_permission = !strcmp(permission, "*");

	if (any_object && any_permission)
		return true;
	for (unsigned n = 0; rpc_programs[n]; n++)
		for (unsigned i = 0; i < rpc_programs[n]->nprocs; i++) {
			const struct rpc_proc *p = &rpc_programs[n]->procs[i];

			for (unsigned r = 0; r < p->nrules; r++)
				if ((any_object || !strcmp(p->rules[r].object, object)) &&
				    (any_permission || !strcmp(p->rules[r].permission, permission)))
					return true;
			if (p->filter_object && (any_object || !strcmp(p->filter_object, object)) &&
			    (any_permission || !strcmp(p->filter_permission, permission)))
				return true;
		}
	return false;
}

static int parse_what(struct access_line *l, char *word, const struct place *at)
{
	for (char *part = strtok_r(word, ",", &word); part; part = strtok_r(NULL, ",", &word)) {
		struct access_permission *what = realloc(l->what, (l->nwhat + 1) * sizeof(*what));
		char *colon = strchr(part, ':');

		if (!what)
			return err_set(at->err, ENOMEM, "no memory for access rules");
		l->what = what;
		if (!colon)
			return BAD(at, "'%s' is no OBJECT:PERMISSION", part);
		*colon = 0;
		if (!is_known(part, colon + 1))
			return BAD(at, "there is no permission '%s:%s'", part, colon + 1);
		l->what[l->nwhat++] = (struct access_permission){ .object = part, .permission = colon + 1 };
	}
	return l->nwhat ? 0 : BAD(at, "no permission is named");
}

static int parse_line(struct rpc_access *a, char *text, const struct place *at)
{
	char *words[WORDS];
	int n = split(text, words), ret;
	struct access_line *lines, *l;

	if (n < 0)
		return BAD(at, "a quote has no end");
	if (!n)
		return 0;
	lines = realloc(a->lines, (a->nlines + 1) * sizeof(*lines));
	if (!lines)
		return err_set(at->err, ENOMEM, "no memory for access rules");
	a->lines = lines;
	l = &lines[a->nlines++];
	*l = (struct access_line){ .allow = !strcmp(words[0], "allow") };
	if (!l->allow && strcmp(words[0], "deny"))
		return BAD(at, "'%s' is neither allow nor deny", words[0]);
	if (n < 3 || n > 4)
		return BAD(at, "a rule is: allow|deny WHO OBJECT:PERMISSION[,...] [NAME]");
	ret = parse_who(l, words[1], at);
	if (!ret)
		ret = parse_what(l, words[2], at);
	l->name = n == 4 ? words[3] : NULL;
	return ret;
}

struct rpc_access *rpc_access_load(const char *path, struct err *err)
{
	struct rpc_access *a = calloc(1, sizeof(*a));
	struct place at = { .path = path, .err = err };
	char *next;

	if (!a) {
		err_set(err, ENOMEM, "no memory for access rules");
		return NULL;
	}
	a->text = read_all(path, err);
	for (char *line = a->text; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		at.line++;
		if (parse_line(a, line, &at)) {
			rpc_access_free(a);
			return NULL;
		}
	}
	if (!a->text) {
		rpc_access_free(a);
		return NULL;
	}
	return a;
}

void rpc_access_free(struct rpc_access *a)
{
	if (!a)
		return;
	for (unsigned n = 0; n < a->nlines; n++)
		free(a->lines[n].what);
	free(a->lines);
	free(a->text);
	free(a);
}
