/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/verb.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/login.h"

static const struct {
	const char *title;
	const struct verb *verbs;
} groups[] = {
	{ "Lists", list_verbs },	{ "Life", life_verbs },	     { "Questions", query_verbs }, { "vCPUs and memory", vcpu_verbs },
	{ "Devices", device_verbs },	{ "Definitions", text_verbs }, { "Consoles", console_verbs }, { "Events and QMP", event_verbs },
	{ "Host and daemon", host_verbs }, { "Watching", top_verbs },  { "Making", create_verbs },
};
#define N_GROUPS (sizeof(groups) / sizeof(groups[0]))

static const struct verb *find_verb(const char *name)
{
	for (unsigned n = 0; n < N_GROUPS; n++)
		for (const struct verb *v = groups[n].verbs; v->name; v++)
			if (!strcmp(v->name, name))
				return v;
	return NULL;
}

bool verbs_know(const char *name)
{
	return find_verb(name);
}

/* ---- Help ------------------------------------------------------------------ */

void verbs_help(FILE *f)
{
	for (unsigned n = 0; n < N_GROUPS; n++) {
		fprintf(f, "\n%s:\n", groups[n].title);
		for (const struct verb *v = groups[n].verbs; v->name; v++)
			fprintf(f, "  %-20s %s\n", v->name, v->help);
	}
}

void verbs_names(FILE *f)
{
	for (unsigned n = 0; n < N_GROUPS; n++)
		for (const struct verb *v = groups[n].verbs; v->name; v++)
			fprintf(f, "%s\n", v->name);
}

bool verbs_help_one(const char *name, FILE *f)
{
	const struct verb *v = find_verb(name);

	if (!v)
		return false;
	fprintf(f, "Usage: keel [-c URI] [-r] [-q] %s", v->name);
	for (const struct opt *o = v->opts; o && o->name; o++) {
		if (o->kind == OPT_FLAG)
			fprintf(f, " [--%s]", o->name);
		else if (o->flags & OPT_DATA)
			fprintf(f, o->flags & OPT_REQUIRED ? " <%s>" : " [<%s>]", o->name);
		else
			fprintf(f, " [--%s <%s>]", o->name, o->kind == OPT_NUMBER ? "number" : "string");
		if (o->flags & OPT_MANY)
			fprintf(f, "...");
	}
	fprintf(f, "\n%c%s.\n", toupper((unsigned char)v->help[0]), v->help + 1);
	if (v->opts)
		fputc('\n', f);
	for (const struct opt *o = v->opts; o && o->name; o++) {
		char left[64];

		snprintf(left, sizeof(left), "--%s%s", o->name, o->kind == OPT_NUMBER ? " <number>" : o->kind == OPT_TEXT ? " <string>" : "");
		fprintf(f, "  %-26s %s\n", left, o->help);
	}
	return true;
}

/* ---- Parsing --------------------------------------------------------------- */

static const struct opt *find_opt(const struct verb *v, const char *name, size_t len, unsigned *index)
{
	for (const struct opt *o = v->opts; o && o->name; o++)
		if (strlen(o->name) == len && !memcmp(o->name, name, len)) {
			*index = (unsigned)(o - v->opts);
			return o;
		}
	return NULL;
}

/* The next option that a word without a name is for. */
static const struct opt *next_data(const struct cmd *c, unsigned *index)
{
	for (const struct opt *o = c->verb->opts; o && o->name; o++) {
		*index = (unsigned)(o - c->verb->opts);
		if ((o->flags & OPT_DATA) && (!c->values[*index] || o->flags & OPT_MANY))
			return o;
	}
	return NULL;
}

/* Options that every verb has. */
static const char **common(struct cmd *c, const char *name, size_t len, const char **socket)
{
	if (len == 6 && !memcmp(name, "socket", len))
		return socket;
	if (len == 7 && !memcmp(name, "connect", len))
		return &c->uri;
	return NULL;
}

static int parse(struct cmd *c, int argc, char **argv, const char **socket)
{
	bool only_data = false;
	const char **many = calloc((size_t)argc, sizeof(*many));

	c->many = many;
	for (int n = 1; n < argc; n++) {
		const char *word = argv[n], *value = NULL, **to;
		const struct opt *o;
		unsigned index;
		size_t len;

		if (!only_data && !strcmp(word, "--")) {
			only_data = true;
			continue;
		}
		if (only_data || strncmp(word, "--", 2)) {
			o = next_data(c, &index);
			if (!o) {
				fprintf(stderr, "error: unexpected data '%s'\n", word);
				return 1;
			}
			c->values[index] = word;
			if (o->flags & OPT_MANY)
				many[c->nmany++] = word;
			continue;
		}
		word += 2;
		len = strcspn(word, "=");
		if (word[len] == '=')
			value = word + len + 1;
		o = find_opt(c->verb, word, len, &index);
		to = o ? &c->values[index] : common(c, word, len, socket);
		if (!to) {
			fprintf(stderr, "error: command '%s' doesn't support option --%.*s\n", c->verb->name, (int)len, word);
			return 1;
		}
		if (o && o->kind == OPT_FLAG) {
			if (value) {
				fprintf(stderr, "error: invalid '=' after option --%s\n", o->name);
				return 1;
			}
			*to = "";
			continue;
		}
		if (!value && ++n == argc) {
			fprintf(stderr, "error: expected syntax: --%.*s <%s>\n", (int)len, word, o && o->kind == OPT_NUMBER ? "number" : "string");
			return 1;
		}
		*to = value ? value : argv[n];
		if (o && o->flags & OPT_MANY)
			many[c->nmany++] = *to;
	}
	for (const struct opt *o = c->verb->opts; o && o->name; o++)
		if ((o->flags & OPT_REQUIRED) && !c->values[o - c->verb->opts]) {
			fprintf(stderr, "error: command '%s' requires <%s> option\n", c->verb->name, o->name);
			return 1;
		}
	return 0;
}

static unsigned index_of(const struct cmd *c, const char *option)
{
	unsigned index = 0;

	if (!find_opt(c->verb, option, strlen(option), &index))
		abort(); /* a verb asks for an option that its table lacks */
	return index;
}

const char *cmd_text(const struct cmd *c, const char *option)
{
	return c->values[index_of(c, option)];
}

bool cmd_has(const struct cmd *c, const char *option)
{
	return cmd_text(c, option);
}

int cmd_number(const struct cmd *c, const char *option, long long *value)
{
	const char *text = cmd_text(c, option);
	char *end;
	long long v;

	if (!text)
		return 0;
	errno = 0;
	v = strtoll(text, &end, 0);
	if (errno || end == text || *end) {
		fprintf(stderr, "error: Numeric value '%s' for <%s> option is malformed or out of range\n", text, option);
		return -1;
	}
	*value = v;
	return 0;
}

/* ---- Running --------------------------------------------------------------- */

int cmd_fail(struct cmd *c, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	if (fmt) {
		fputs("error: ", stderr);
		va_start(ap, fmt);
		vfprintf(stderr, fmt, ap);
		va_end(ap);
		fputc('\n', stderr);
	}
	if (c->error.code)
		fprintf(stderr, "error: %s\n", c->error.message);
	return 1;
}

int cmd_connect(struct cmd *c)
{
	if (c->conn)
		return 0;
	c->conn = keel_open_auth(c->uri, c->readonly ? KEEL_OPEN_READONLY : 0, login_ask, NULL, &c->error);
	return c->conn ? 0 : cmd_fail(c, "failed to connect to the hypervisor");
}

int cmd_call(struct cmd *c, uint32_t number, const void *args, void *ret)
{
	return conn_call(c->conn, &remote_program, number, args, ret, &c->arena, &c->error);
}

static bool parse_uuid(const char *text, unsigned char uuid[16])
{
	unsigned n = 0;

	for (; n < 16; n++) {
		unsigned v;

		text += *text == '-';
		if (!isxdigit((unsigned char)text[0]) || !isxdigit((unsigned char)text[1]) || sscanf(text, "%2x", &v) != 1)
			return false;
		uuid[n] = (unsigned char)v;
		text += 2;
	}
	return !*text;
}

struct keel_domain *cmd_domain_of(struct cmd *c, const char *option)
{
	const char *name = cmd_text(c, option);
	struct keel_domain *dom = NULL;
	unsigned char uuid[16];
	char *end;
	long id = strtol(name, &end, 10);

	if (isdigit((unsigned char)*name) && !*end && id >= 0 && id <= INT_MAX)
		dom = keel_domain_by_id(c->conn, (int)id, NULL);
	if (!dom && strlen(name) == 36 && parse_uuid(name, uuid))
		dom = keel_domain_by_uuid(c->conn, uuid, NULL);
	if (!dom)
		dom = keel_domain_by_name(c->conn, name, &c->error);
	if (dom)
		return dom;
	fflush(stdout);
	fprintf(stderr, "error: failed to get domain '%s'\n", name);
	if (c->error.code != KEEL_ERR_NO_DOMAIN && !keel_is_alive(c->conn))
		fprintf(stderr, "error: %s\n", c->error.message);
	return NULL;
}

int cmd_affect(const struct cmd *c, unsigned *flags)
{
	bool live = cmd_has(c, "live"), config = cmd_has(c, "config"), current = cmd_has(c, "current");

	if (current && (live || config)) {
		fprintf(stderr, "error: Options --current and --%s are mutually exclusive\n", live ? "live" : "config");
		return -1;
	}
	*flags = (live ? KEEL_AFFECT_LIVE : 0u) | (config ? KEEL_AFFECT_CONFIG : 0u);
	return 0;
}

char *cmd_read_file(const char *path)
{
	FILE *f = fopen(path, "re"), *to;
	char *text = NULL, buf[8192];
	size_t len, n;

	if (!f) {
		fflush(stdout);
		fprintf(stderr, "error: Failed to open file '%s': %s\n", path, strerror(errno));
		return NULL;
	}
	to = open_memstream(&text, &len);
	while (to && (n = fread(buf, 1, sizeof(buf), f)))
		fwrite(buf, 1, n, to);
	if (to)
		fclose(to);
	fclose(f);
	return text;
}

int cmd_json(json_t *j)
{
	json_dumpf(j, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(j);
	return 0;
}

int verbs_run(int argc, char **argv, const char *uri, bool readonly, bool quiet)
{
	struct cmd c = { .verb = find_verb(argv[0]), .uri = uri, .readonly = readonly, .quiet = quiet };
	char *made = NULL;
	const char *socket = NULL;
	int status;

	if (!c.verb)
		return -1;
	for (int n = 1; n < argc && strcmp(argv[n], "--"); n++)
		if (!strcmp(argv[n], "--help"))
			return !verbs_help_one(argv[0], stdout);
	status = parse(&c, argc, argv, &socket);
	if (!status && socket && !c.uri) {
		if (asprintf(&made, "qemu:///%s?socket=%s", geteuid() ? "session" : "system", socket) < 0)
			return 1;
		c.uri = made;
	}
	if (!status && !c.verb->offline)
		status = cmd_connect(&c);
	if (!status) {
		status = c.verb->run(&c);
		/* virsh's blank line after each command. */
		if (!quiet && !c.no_blank)
			putchar('\n');
	}
	fflush(stdout);
	keel_close(c.conn);
	arena_free(&c.arena);
	free((void *)c.many);
	free(made);
	return status;
}

/* ---- Completion ------------------------------------------------------------ */

static void complete_domains(const char *uri)
{
	struct keel_conn *conn = keel_open(uri, KEEL_OPEN_READONLY, NULL);
	struct keel_domain **list = NULL;

	if (conn && keel_domain_list(conn, 0, &list, NULL) > 0)
		for (struct keel_domain **p = list; *p; p++)
			printf("%s\n", keel_domain_name(*p));
	keel_domain_list_free(list);
	keel_close(conn);
}

int verbs_complete(int argc, char **argv)
{
	const char *uri = NULL, *last = argc ? argv[argc - 1] : "";
	const struct verb *v = NULL;
	const struct opt *o;
	struct cmd c = { 0 };
	unsigned index;
	int n = 0;

	for (; n < argc && !v; n++) {
		if ((!strcmp(argv[n], "-c") || !strcmp(argv[n], "--connect")) && n + 1 < argc)
			uri = argv[++n];
		else if (n < argc - 1)
			v = find_verb(argv[n]);
	}
	if (!v)
		return 0;
	c.verb = v;
	/* The words before the one that is being typed. */
	for (; n < argc - 1; n++) {
		if (strncmp(argv[n], "--", 2)) {
			if (next_data(&c, &index))
				c.values[index] = argv[n];
			continue;
		}
		o = find_opt(v, argv[n] + 2, strlen(argv[n] + 2), &index);
		if (!o)
			continue;
		c.values[index] = "";
		if (o->kind != OPT_FLAG && n + 1 == argc - 1) {
			if (o->flags & OPT_DOMAIN)
				complete_domains(uri);
			return 0;
		}
		if (o->kind != OPT_FLAG)
			n++;
	}
	if (*last == '-') {
		for (o = v->opts; o && o->name; o++)
			if (!c.values[o - v->opts])
				printf("--%s\n", o->name);
		return 0;
	}
	o = next_data(&c, &index);
	if (o && o->flags & OPT_DOMAIN)
		complete_domains(uri);
	return 0;
}
