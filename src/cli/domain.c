/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guests of a keeld, in virsh's verbs, words and exit statuses: keel list, keel start NAME, ... */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "rpc/client.h"

enum { DOMAIN_STATES = 8 };
static const char *const states[DOMAIN_STATES] = { "no state", "running",  "idle",    "paused",
						   "in shutdown", "shut off", "crashed", "pmsuspended" };

struct daemon_conn {
	struct rpc_session *session;
	struct arena arena; /* what answers brought */
	struct rpc_error error;
};

static int call(struct daemon_conn *c, uint32_t number, const void *args, void *ret)
{
	return rpc_session_call(c->session, rpc_proc_find(&remote_program, number), args, ret, &c->arena, &c->error);
}

static int fail(const struct daemon_conn *c, const char *what, const char *name)
{
	if (what)
		fprintf(stderr, "error: Failed to %s domain '%s'\n", what, name);
	fprintf(stderr, "error: %s\n", c->error.message);
	return 1;
}

static int connect_daemon(struct daemon_conn *c, const char *path)
{
	struct remote_connect_open_args args = { 0 };
	struct err err = ERR_INIT;

	*c = (struct daemon_conn){ 0 };
	if (!path)
		path = getenv("KEEL_SOCKET");
	if (!path) {
		fprintf(stderr, "error: no keeld is named: give --socket PATH or set KEEL_SOCKET, such as DIR/run/libvirt-sock of keeld --root DIR\n");
		return 1;
	}
	c->session = rpc_session_open(path, NULL, NULL, &err);
	if (!c->session) {
		fprintf(stderr, "error: failed to connect to the hypervisor\nerror: %s\n", err_msg(&err));
		return 1;
	}
	return call(c, REMOTE_PROC_CONNECT_OPEN, &args, NULL) ? fail(c, NULL, NULL) : 0;
}

static void disconnect(struct daemon_conn *c)
{
	rpc_session_free(c->session);
	arena_free(&c->arena);
}

/* By name, or by number as virsh. 0, or 1 and the message is printed. */
static int lookup(struct daemon_conn *c, const char *name, struct remote_domain *dom)
{
	struct remote_domain_lookup_by_name_args by_name = { .name = (char *)name };
	struct remote_domain_lookup_by_name_ret found = { 0 };
	struct remote_domain_lookup_by_id_args by_id = { 0 };
	struct remote_domain_lookup_by_id_ret found_id = { 0 };
	char *end;
	long id = strtol(name, &end, 10);

	if (*name && !*end && id >= 0 && id <= INT32_MAX) {
		by_id.id = (int32_t)id;
		if (!call(c, REMOTE_PROC_DOMAIN_LOOKUP_BY_ID, &by_id, &found_id)) {
			*dom = found_id.dom;
			return 0;
		}
	}
	if (!call(c, REMOTE_PROC_DOMAIN_LOOKUP_BY_NAME, &by_name, &found)) {
		*dom = found.dom;
		return 0;
	}
	fprintf(stderr, "error: failed to get domain '%s'\n", name);
	return c->error.code == VIR_ERR_NO_DOMAIN ? 1 : fail(c, NULL, NULL); /* it would say the same again */
}

/* ---- list ------------------------------------------------------------------ */

static const char *state_of(struct daemon_conn *c, const struct remote_domain *dom)
{
	struct remote_domain_get_state_args args = { .dom = *dom };
	struct remote_domain_get_state_ret ret = { 0 };

	if (call(c, REMOTE_PROC_DOMAIN_GET_STATE, &args, &ret) || ret.state < 0 || ret.state >= DOMAIN_STATES)
		return states[0];
	return states[ret.state];
}

/* Those that run first, by number; then the others by name, as the daemon lists them. */
static int by_id(const void *a, const void *b)
{
	const struct remote_domain *x = a, *y = b;

	if (x->id < 0 || y->id < 0)
		return x->id < 0 && y->id < 0 ? strcmp(x->name, y->name) : x->id < 0 ? 1 : -1;
	return x->id < y->id ? -1 : x->id > y->id;
}

static void print_table(struct daemon_conn *c, const struct remote_domain *doms, unsigned n)
{
	size_t id_width = 2, name_width = 4, state_width = 5;
	const char **state = calloc(n + 1, sizeof(*state));
	char id[16];

	for (unsigned i = 0; state && i < n; i++) {
		int len = snprintf(id, sizeof(id), "%d", doms[i].id);

		state[i] = state_of(c, &doms[i]);
		if (doms[i].id >= 0 && (size_t)len > id_width)
			id_width = (size_t)len;
		if (strlen(doms[i].name) > name_width)
			name_width = strlen(doms[i].name);
		if (strlen(state[i]) > state_width)
			state_width = strlen(state[i]);
	}
	printf(" %-*s   %-*s   %s\n", (int)id_width, "Id", (int)name_width, "Name", "State");
	for (size_t i = 0; i < id_width + name_width + state_width + 9; i++)
		putchar('-');
	putchar('\n');
	for (unsigned i = 0; state && i < n; i++) {
		snprintf(id, sizeof(id), doms[i].id < 0 ? "-" : "%d", doms[i].id);
		printf(" %-*s   %-*s   %s\n", (int)id_width, id, (int)name_width, doms[i].name, state[i]);
	}
	putchar('\n');
	free(state);
}

static void print_json(struct daemon_conn *c, const struct remote_domain *doms, unsigned n)
{
	json_t *list = json_array();
	char uuid[37];

	for (unsigned i = 0; i < n; i++) {
		const uint8_t *u = doms[i].uuid;

		snprintf(uuid, sizeof(uuid), "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2],
			 u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
		json_array_append_new(list, json_pack("{s:o,s:s,s:s,s:s}", "id", doms[i].id < 0 ? json_null() : json_integer(doms[i].id),
						      "name", doms[i].name, "uuid", uuid, "state", state_of(c, &doms[i])));
	}
	json_dumpf(list, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(list);
}

enum { LIST_ACTIVE = 1, LIST_INACTIVE = 2 };

static int list(const char *socket, bool all, bool inactive, bool json, bool names)
{
	struct remote_connect_list_all_domains_args args = { .need_results = 1 };
	struct remote_connect_list_all_domains_ret ret = { 0 };
	struct daemon_conn c;
	int status = connect_daemon(&c, socket);

	args.flags = all ? 0 : inactive ? LIST_INACTIVE : LIST_ACTIVE;
	if (!status && call(&c, REMOTE_PROC_CONNECT_LIST_ALL_DOMAINS, &args, &ret))
		status = fail(&c, NULL, NULL);
	if (!status) {
		if (ret.domains_len)
			qsort(ret.domains, ret.domains_len, sizeof(*ret.domains), by_id);
		if (json)
			print_json(&c, ret.domains, ret.domains_len);
		else if (!names)
			print_table(&c, ret.domains, ret.domains_len);
		for (unsigned n = 0; names && !json && n < ret.domains_len; n++)
			printf("%s\n", ret.domains[n].name);
	}
	disconnect(&c);
	return status;
}

/* ---- The others ------------------------------------------------------------ */

/* Verbs that are one call about one guest and say one line. */
static const struct verb {
	const char *name, *what, *done; /* "Failed to WHAT domain", "Domain 'x' DONE" */
	uint32_t number;
} verbs[] = {
	{ "start", "start", "started", REMOTE_PROC_DOMAIN_CREATE },
	{ "destroy", "destroy", "destroyed", REMOTE_PROC_DOMAIN_DESTROY },
	{ "shutdown", "shutdown", "is being shutdown", REMOTE_PROC_DOMAIN_SHUTDOWN },
	{ "suspend", "suspend", "suspended", REMOTE_PROC_DOMAIN_SUSPEND },
	{ "resume", "resume", "resumed", REMOTE_PROC_DOMAIN_RESUME },
	{ "undefine", "undefine", "has been undefined", REMOTE_PROC_DOMAIN_UNDEFINE },
};

static int simple(struct daemon_conn *c, const struct verb *v, const struct remote_domain *dom)
{
	struct remote_domain_create_args args = { .dom = *dom }; /* all of them take a domain and nothing else */

	if (call(c, v->number, &args, NULL))
		return fail(c, v->what, dom->name);
	printf("Domain '%s' %s\n\n", dom->name, v->done);
	return 0;
}

static int dumpxml(struct daemon_conn *c, const struct remote_domain *dom)
{
	struct remote_domain_get_xml_desc_args args = { .dom = *dom };
	struct remote_domain_get_xml_desc_ret ret = { 0 };

	if (call(c, REMOTE_PROC_DOMAIN_GET_XML_DESC, &args, &ret))
		return fail(c, NULL, NULL);
	printf("%s\n", ret.xml);
	return 0;
}

/* A whole file, malloced. */
static char *read_text(const char *path)
{
	FILE *f = fopen(path, "re"), *to;
	char *text = NULL, buf[8192];
	size_t len, n;

	to = f ? open_memstream(&text, &len) : NULL;
	while (to && (n = fread(buf, 1, sizeof(buf), f)))
		fwrite(buf, 1, n, to);
	if (to)
		fclose(to);
	if (f)
		fclose(f);
	return text;
}

static int define(struct daemon_conn *c, const char *path)
{
	struct remote_domain_define_xml_args args = { .xml = read_text(path) };
	struct remote_domain_define_xml_ret ret = { 0 };
	int status = 0;

	if (!args.xml) {
		fprintf(stderr, "error: Failed to open file '%s': %s\n", path, strerror(errno));
		return 1;
	}
	if (call(c, REMOTE_PROC_DOMAIN_DEFINE_XML, &args, &ret)) {
		fprintf(stderr, "error: Failed to define domain from %s\n", path);
		status = fail(c, NULL, NULL);
	} else {
		printf("Domain '%s' defined from %s\n\n", ret.dom.name, path);
	}
	free(args.xml);
	return status;
}

static int about_one(struct daemon_conn *c, const char *verb, const char *name)
{
	struct remote_domain dom;

	if (!strcmp(verb, "define"))
		return define(c, name);
	if (lookup(c, name, &dom))
		return 1;
	if (!strcmp(verb, "dumpxml"))
		return dumpxml(c, &dom);
	if (!strcmp(verb, "domstate")) {
		printf("%s\n\n", state_of(c, &dom));
		return 0;
	}
	for (unsigned n = 0; n < sizeof(verbs) / sizeof(verbs[0]); n++)
		if (!strcmp(verb, verbs[n].name))
			return simple(c, &verbs[n], &dom);
	return 2;
}

int builtin_domain(int argc, char **argv)
{
	static const struct option options[] = {
		{ "socket", required_argument, NULL, 's' }, { "all", no_argument, NULL, 'a' }, { "inactive", no_argument, NULL, 'i' },
		{ "json", no_argument, NULL, 'j' },	    { "name", no_argument, NULL, 'n' }, { 0 },
	};
	bool is_list = !strcmp(argv[0], "list"), all = false, inactive = false, json = false, names = false;
	const char *socket = NULL;
	struct daemon_conn c;
	int opt, status;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 's':
			socket = optarg;
			break;
		case 'a':
			all = true;
			break;
		case 'i':
			inactive = true;
			break;
		case 'j':
			json = true;
			break;
		case 'n':
			names = true;
			break;
		default:
			return 2;
		}
	}
	if (!is_list && (all || inactive || json || names)) {
		fprintf(stderr, "keel %s: --all, --inactive, --json and --name belong to keel list\n", argv[0]);
		return 2;
	}
	if (argc - optind != !is_list) {
		fprintf(stderr, "keel %s: %s\n", argv[0], is_list ? "no names are taken" : "give one domain (or, for define, one file)");
		return 2;
	}
	if (is_list)
		return list(socket, all, inactive, json, names);
	status = connect_daemon(&c, socket);
	if (!status)
		status = about_one(&c, argv[0], argv[optind]);
	disconnect(&c);
	return status;
}
