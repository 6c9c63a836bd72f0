/* SPDX-License-Identifier: GPL-2.0-or-later */
/* keel list: which guests there are. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/verb.h"

static const struct {
	const char *option;
	unsigned flag;
} filters[] = {
	{ "persistent", KEEL_LIST_PERSISTENT },
	{ "transient", KEEL_LIST_TRANSIENT },
	{ "with-managed-save", KEEL_LIST_MANAGED_SAVE },
	{ "without-managed-save", KEEL_LIST_NO_MANAGED_SAVE },
	{ "autostart", KEEL_LIST_AUTOSTART },
	{ "no-autostart", KEEL_LIST_NO_AUTOSTART },
	{ "with-snapshot", KEEL_LIST_SNAPSHOT },
	{ "without-snapshot", KEEL_LIST_NO_SNAPSHOT },
	{ "with-checkpoint", KEEL_LIST_CHECKPOINT },
	{ "without-checkpoint", KEEL_LIST_NO_CHECKPOINT },
	{ "state-running", KEEL_LIST_RUNNING },
	{ "state-paused", KEEL_LIST_PAUSED },
	{ "state-shutoff", KEEL_LIST_SHUTOFF },
	{ "state-other", KEEL_LIST_OTHER },
};

static unsigned list_flags(const struct cmd *c)
{
	unsigned flags = KEEL_LIST_ACTIVE;

	if (cmd_has(c, "inactive"))
		flags = KEEL_LIST_INACTIVE;
	if (cmd_has(c, "all"))
		flags = KEEL_LIST_ACTIVE | KEEL_LIST_INACTIVE;
	for (unsigned n = 0; n < sizeof(filters) / sizeof(filters[0]); n++)
		if (cmd_has(c, filters[n].option))
			flags |= filters[n].flag;
	return flags;
}

/* Those that run first, by number; then the others by name. */
static int by_id(const void *a, const void *b)
{
	const struct keel_domain *x = *(struct keel_domain *const *)a, *y = *(struct keel_domain *const *)b;
	int i = keel_domain_id(x), j = keel_domain_id(y);

	if (i < 0 || j < 0)
		return i < 0 && j < 0 ? strcmp(keel_domain_name(x), keel_domain_name(y)) : i < 0 ? 1 : -1;
	return i < j ? -1 : i > j;
}

/* Paused guests that are being saved or the like count as paused, too; a guest that went meanwhile has no state. */
static const char *state_of(struct keel_domain *dom)
{
	return keel_state_name(keel_domain_state(dom, NULL, NULL));
}

/* Malloced, or NULL. */
static char *title_of(struct cmd *c, struct keel_domain *dom)
{
	struct remote_domain_get_metadata_args args = { .dom = domain_wire(dom), .type = 1 /* VIR_DOMAIN_METADATA_TITLE */ };
	struct remote_domain_get_metadata_ret ret = { 0 };
	struct arena arena = { 0 };
	char *title = NULL;

	if (!conn_call(c->conn, &remote_program, REMOTE_PROC_DOMAIN_GET_METADATA, &args, &ret, &arena, NULL))
		title = strdup(ret.metadata);
	arena_free(&arena);
	return title;
}

static void id_text(const struct keel_domain *dom, char text[16])
{
	snprintf(text, 16, keel_domain_id(dom) < 0 ? "-" : "%d", keel_domain_id(dom));
}

static void print_table(struct cmd *c, struct keel_domain **list, bool titles)
{
	static const char *const names[] = { "Id", "Name", "State", "Title" };
	struct table *t = table_new(titles ? 4 : 3, names);
	char id[16], *title;

	for (; *list; list++) {
		id_text(*list, id);
		title = titles ? title_of(c, *list) : NULL;
		table_row(t, (const char *const[]){ id, keel_domain_name(*list), state_of(*list), title ? title : "" });
		free(title);
	}
	table_end(t);
}

static int print_json(struct cmd *c, struct keel_domain **list, bool titles)
{
	json_t *j = json_array();
	char uuid[37], *title;

	for (; *list; list++) {
		int id = keel_domain_id(*list);
		json_t *o;

		keel_domain_uuid_text(*list, uuid);
		o = json_pack("{s:o,s:s,s:s,s:s}", "id", id < 0 ? json_null() : json_integer(id), "name", keel_domain_name(*list), "uuid",
			      uuid, "state", state_of(*list));
		title = titles ? title_of(c, *list) : NULL;
		if (title)
			json_object_set_new(o, "title", json_string(title));
		free(title);
		json_array_append_new(j, o);
	}
	return cmd_json(j);
}

/* What a line has, in virsh's order: uuid, name, id, parted by blanks. */
static void print_lines(struct cmd *c, struct keel_domain **list)
{
	bool ids = cmd_has(c, "id"), uuids = cmd_has(c, "uuid"), names = cmd_has(c, "name");
	char id[16], uuid[37];

	for (; *list; list++) {
		const char *sep = "";

		/* Nothing but numbers: those that have none are left out. */
		if (ids && !uuids && !names && keel_domain_id(*list) < 0)
			continue;
		if (ids) {
			id_text(*list, id);
			printf("%s", id);
			sep = " ";
		}
		if (uuids) {
			keel_domain_uuid_text(*list, uuid);
			printf("%s%s", sep, uuid);
			sep = " ";
		}
		if (names)
			printf("%s%s", sep, keel_domain_name(*list));
		putchar('\n');
	}
}

static int run_list(struct cmd *c)
{
	bool lines = cmd_has(c, "id") || cmd_has(c, "uuid") || cmd_has(c, "name"), json = cmd_has(c, "json");
	struct keel_domain **list = NULL;
	int n, status = 0;

	if (lines && (cmd_has(c, "table") || json)) {
		fprintf(stderr, "error: Options --table and --json exclude --id, --uuid and --name\n");
		return 1;
	}
	n = keel_domain_list(c->conn, list_flags(c), &list, &c->error);
	if (n < 0)
		return cmd_fail(c, "Failed to list domains");
	qsort(list, (size_t)n, sizeof(*list), by_id);
	if (json)
		status = print_json(c, list, cmd_has(c, "title"));
	else if (lines)
		print_lines(c, list);
	else
		print_table(c, list, cmd_has(c, "title"));
	keel_domain_list_free(list);
	return status;
}

/* ---- Pools and networks, as far as there are any ----------------------------- */

enum { LIST_INACTIVE = 1, LIST_ACTIVE = 2 }; /* virConnectListAllStoragePoolsFlags: the other way round than guests' */

static int run_pool_list(struct cmd *c)
{
	static const char *const titles[] = { "Name", "State", "Autostart" };
	struct remote_connect_list_all_storage_pools_args args = { .need_results = 1 };
	struct remote_connect_list_all_storage_pools_ret ret = { 0 };
	struct table *t;

	args.flags = cmd_has(c, "all") ? 0 : cmd_has(c, "inactive") ? LIST_INACTIVE : LIST_ACTIVE;
	if (cmd_call(c, REMOTE_PROC_CONNECT_LIST_ALL_STORAGE_POOLS, &args, &ret))
		return cmd_fail(c, "Failed to list pools");
	t = table_new(3, titles);
	for (uint32_t n = 0; n < ret.pools_len; n++) {
		struct remote_storage_pool_is_active_args one = { .pool = ret.pools[n] }; /* both calls take a pool alone */
		struct remote_storage_pool_is_active_ret active = { 0 };
		struct remote_storage_pool_get_autostart_ret autostart = { 0 };
		int no_autostart = cmd_call(c, REMOTE_PROC_STORAGE_POOL_GET_AUTOSTART, &one, &autostart);

		cmd_call(c, REMOTE_PROC_STORAGE_POOL_IS_ACTIVE, &one, &active);
		table_row(t, (const char *const[]){ ret.pools[n].name, active.active ? "active" : "inactive",
						    no_autostart ? "no autostart" : autostart.autostart ? "yes" : "no" });
	}
	if (cmd_has(c, "json"))
		return cmd_json(table_json(t));
	table_end(t);
	return 0;
}

static const struct opt list_opts[] = {
	{ "inactive", OPT_FLAG, 0, "list inactive guests" },
	{ "all", OPT_FLAG, 0, "list inactive and active guests" },
	{ "transient", OPT_FLAG, 0, "list transient guests" },
	{ "persistent", OPT_FLAG, 0, "list persistent guests" },
	{ "with-snapshot", OPT_FLAG, 0, "list guests with a snapshot" },
	{ "without-snapshot", OPT_FLAG, 0, "list guests without a snapshot" },
	{ "with-checkpoint", OPT_FLAG, 0, "list guests with a checkpoint" },
	{ "without-checkpoint", OPT_FLAG, 0, "list guests without a checkpoint" },
	{ "state-running", OPT_FLAG, 0, "list guests that run" },
	{ "state-paused", OPT_FLAG, 0, "list guests that are paused" },
	{ "state-shutoff", OPT_FLAG, 0, "list guests that are off" },
	{ "state-other", OPT_FLAG, 0, "list guests in other states" },
	{ "autostart", OPT_FLAG, 0, "list guests that start with the daemon" },
	{ "no-autostart", OPT_FLAG, 0, "list guests that do not" },
	{ "with-managed-save", OPT_FLAG, 0, "list guests with a saved state" },
	{ "without-managed-save", OPT_FLAG, 0, "list guests without one" },
	{ "uuid", OPT_FLAG, 0, "list UUIDs only" },
	{ "name", OPT_FLAG, 0, "list names only" },
	{ "id", OPT_FLAG, 0, "list numbers only" },
	{ "table", OPT_FLAG, 0, "list a table (default)" },
	{ "managed-save", OPT_FLAG, 0, "mark inactive guests with a saved state" },
	{ "title", OPT_FLAG, 0, "show titles" },
	{ "json", OPT_FLAG, 0, "as JSON" },
	{ 0 },
};

static const struct opt pool_list_opts[] = {
	{ "inactive", OPT_FLAG, 0, "list inactive pools" },
	{ "all", OPT_FLAG, 0, "list inactive and active pools" },
	{ "json", OPT_FLAG, 0, "as JSON" },
	{ 0 },
};

const struct verb list_verbs[] = {
	{ "list", "list guests", list_opts, run_list },
	{ "pool-list", "list storage pools", pool_list_opts, run_pool_list },
	{ 0 },
};
