/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP: snapshots, dirty bitmaps and backups, alone or several at one moment.
 * Each is an action that can be undone; a transaction pauses all disks, does
 * one after the other and, if one fails, undoes those before it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/dirty.h"
#include "vmm/vmm.h"

struct action {
	const struct action_kind *kind;
	json_t *args;
	struct vmm_node *node, *overlay;
	const char *name;
	struct dirty before; /* what the bitmap had */
	bool enabled;
	struct vmm_job *job;
};

struct action_kind {
	const char *name, *args_known;
	int (*run)(struct vmm *v, struct action *a, struct err *err);
	void (*undo)(struct vmm *v, struct action *a); /* or NULL */
	void (*done)(struct vmm *v, struct action *a); /* all succeeded; or NULL */
};

static const char *text_of(json_t *args, const char *name)
{
	return json_string_value(json_object_get(args, name));
}

static bool flag_of(json_t *args, const char *name)
{
	return json_is_true(json_object_get(args, name));
}

/* ---- Bitmaps ------------------------------------------------------------------------ */

/* "node" and "name"; a node that is no backing file. */
static int find_bitmap(struct vmm *v, struct action *a, struct err *err)
{
	const char *node = qmp_need_text(a->args, "node", err);

	a->name = node ? qmp_need_text(a->args, "name", err) : NULL;
	a->node = a->name ? vmm_node_named(v, node, err) : NULL;
	if (!a->node)
		return -err->code;
	return a->node->block ? 0 : err_set(err, EBUSY, "Node '%s' is not open, or a backing file", node);
}

static int bitmap_add(struct vmm *v, struct action *a, struct err *err)
{
	json_t *granularity = json_object_get(a->args, "granularity");
	json_int_t g = json_integer_value(granularity);
	int ret = find_bitmap(v, a, err);

	if (ret)
		return ret;
	if (granularity && (!json_is_integer(granularity) || g < 512 || g > 1ll << 31))
		return err_set(err, EINVAL, "Granularity must be power of 2 and at least 512");
	return block_bitmap_add(a->node->block, a->name, g, flag_of(a->args, "persistent"),
				!flag_of(a->args, "disabled"), err);
}

static void bitmap_add_undo(struct vmm *v, struct action *a)
{
	(void)block_bitmap_remove(a->node->block, a->name, NULL);
}

static int bitmap_remove(struct vmm *v, struct action *a, struct err *err)
{
	int ret = find_bitmap(v, a, err);

	if (!ret && vmm_node_has_job(v, a->node))
		ret = err_set(err, EBUSY, "Bitmap '%.80s' is currently in use by a job of its node", a->name);
	return ret ? ret : block_bitmap_remove(a->node->block, a->name, err);
}

static int bitmap_clear(struct vmm *v, struct action *a, struct err *err)
{
	int ret = find_bitmap(v, a, err);

	if (!ret)
		ret = block_bitmap_read(a->node->block, a->name, &a->before, err);
	return ret ? ret : block_bitmap_clear(a->node->block, a->name, err);
}

static void bitmap_restore(struct vmm *v, struct action *a)
{
	(void)block_bitmap_clear(a->node->block, a->name, NULL);
	(void)block_bitmap_add_bits(a->node->block, a->name, &a->before, NULL);
}

static int bitmap_enable(struct vmm *v, struct action *a, struct err *err)
{
	struct block_bitmap_info info;
	int ret = find_bitmap(v, a, err);

	for (unsigned i = 0; !ret && block_bitmap_get(a->node->block, i, &info); i++)
		if (!strcmp(info.name, a->name))
			a->enabled = info.enabled;
	return ret ? ret
		   : block_bitmap_enable(a->node->block, a->name, !strcmp(a->kind->name, "block-dirty-bitmap-enable"),
					 err);
}

static void bitmap_enable_undo(struct vmm *v, struct action *a)
{
	(void)block_bitmap_enable(a->node->block, a->name, a->enabled, NULL);
}

/* A name on the same node, or {node, name}. */
static int merge_one(struct vmm *v, struct action *a, json_t *from, struct err *err)
{
	const char *name = json_is_object(from) ? qmp_need_text(from, "name", err) : json_string_value(from);
	const char *node = json_is_object(from) ? qmp_need_text(from, "node", err) : NULL;
	struct vmm_node *n = json_is_object(from) ? node ? vmm_node_named(v, node, err) : NULL : a->node;

	if (!name || !n)
		return err_set(err, EINVAL, "Parameter 'bitmaps' expects names, or objects of node and name");
	if (!n->block)
		return err_set(err, EBUSY, "Node '%s' is not open, or a backing file", node);
	return block_bitmap_merge(a->node->block, a->name, n->block, name, err);
}

static int bitmap_merge(struct vmm *v, struct action *a, struct err *err)
{
	const char *node = qmp_need_text(a->args, "node", err);
	json_t *list = json_object_get(a->args, "bitmaps"), *one;
	size_t i;
	int ret;

	a->name = node ? qmp_need_text(a->args, "target", err) : NULL;
	a->node = a->name ? vmm_node_named(v, node, err) : NULL;
	if (!a->node)
		return -err->code;
	if (!json_is_array(list))
		return err_set(err, EINVAL, "Parameter 'bitmaps' is missing or no array");
	if (!a->node->block)
		return err_set(err, EBUSY, "Node '%s' is not open, or a backing file", node);
	ret = block_bitmap_read(a->node->block, a->name, &a->before, err);
	json_array_foreach(list, i, one)
	{
		if (!ret)
			ret = merge_one(v, a, one, err);
	}
	if (ret && a->before.bits)
		bitmap_restore(v, a);
	return ret;
}

/* ---- Snapshots and backups -------------------------------------------------------------- */

static int snapshot(struct vmm *v, struct action *a, struct err *err)
{
	const char *node = qmp_need_text(a->args, "node", err);
	const char *overlay = node ? qmp_need_text(a->args, "overlay", err) : NULL;

	a->node = overlay ? vmm_node_named(v, node, err) : NULL;
	a->overlay = a->node ? vmm_node_named(v, overlay, err) : NULL;
	return a->overlay ? vmm_node_snapshot(v, a->node, a->overlay, err) : -err->code;
}

static void snapshot_undo(struct vmm *v, struct action *a)
{
	(void)vmm_node_snapshot_undo(v, a->node, a->overlay, NULL);
}

static int backup(struct vmm *v, struct action *a, struct err *err)
{
	a->job = vmm_job_backup(v, a->args, err);
	return a->job ? 0 : -err->code;
}

static void backup_undo(struct vmm *v, struct action *a)
{
	vmm_job_undo(a->job);
}

static void backup_done(struct vmm *v, struct action *a)
{
	vmm_job_start(a->job);
}

static int give_up(struct vmm *v, struct action *a, struct err *err)
{
	return err_set(err, ECANCELED, "Transaction aborted using Abort action");
}

static const struct action_kind kinds[] = {
	{ "abort", "", give_up, NULL, NULL },
	{ "block-dirty-bitmap-add", "node name granularity persistent disabled", bitmap_add, bitmap_add_undo, NULL },
	{ "block-dirty-bitmap-clear", "node name", bitmap_clear, bitmap_restore, NULL },
	{ "block-dirty-bitmap-disable", "node name", bitmap_enable, bitmap_enable_undo, NULL },
	{ "block-dirty-bitmap-enable", "node name", bitmap_enable, bitmap_enable_undo, NULL },
	{ "block-dirty-bitmap-merge", "node target bitmaps", bitmap_merge, bitmap_restore, NULL },
	{ "block-dirty-bitmap-remove", "node name", bitmap_remove, NULL, NULL },
	{ "blockdev-backup",
	  "job-id device speed auto-finalize auto-dismiss target sync bitmap bitmap-mode on-source-error "
	  "on-target-error",
	  backup, backup_undo, backup_done },
	{ "blockdev-snapshot", "node overlay", snapshot, snapshot_undo, NULL },
};

static const struct action_kind *kind_of(const char *name)
{
	for (unsigned i = 0; name && i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (!strcmp(kinds[i].name, name))
			return &kinds[i];
	return NULL;
}

/* ---- Commands ------------------------------------------------------------------------------ */

static int prepare(struct action *a, json_t *action, bool several, struct err *err)
{
	const char *type = text_of(action, "type"), *key;
	json_t *value;

	a->kind = kind_of(type);
	a->args = json_object_get(action, "data");
	if (!a->kind)
		return err_set(err, ENOTSUP, "Parameter 'type' does not accept value '%.80s'", type ? type : "?");
	if (!json_is_object(a->args))
		return err_set(err, EINVAL, "Parameter 'data' is missing");
	if (several && !a->kind->undo && strcmp(type, "abort"))
		return err_set(err, ENOTSUP, "'%s' cannot be undone, so it is no part of a transaction with others",
			       type);
	json_object_foreach(a->args, key, value)
	{
		const char *at = strstr(a->kind->args_known, key);
		size_t len = strlen(key);

		/* No known name is the end of another. */
		while (at && !((at == a->kind->args_known || at[-1] == ' ') && (!at[len] || at[len] == ' ')))
			at = strstr(at + 1, key);
		if (!at || !len)
			return err_set(err, EINVAL, "Parameter '%.80s' is unexpected", key);
	}
	return 0;
}

/* Every disk stands still, for one moment that is the same for all. */
static void pause_all(struct vmm *v, bool on)
{
	for (struct vmm_plug *p = v->plugs; p; p = p->next) {
		if (p->node && p->node->block && on)
			block_pause(p->node->block);
		else if (p->node && p->node->block)
			block_resume(p->node->block);
	}
}

static int run_all(struct vmm *v, struct action *list, size_t n, struct err *err)
{
	size_t i;
	int ret = 0;

	pause_all(v, true);
	for (i = 0; !ret && i < n; i++)
		ret = list[i].kind->run(v, &list[i], err);
	if (ret)
		for (i--; i > 0; i--)
			if (list[i - 1].kind->undo)
				list[i - 1].kind->undo(v, &list[i - 1]);
	/* A device's block is the same one, whatever it contains now. */
	pause_all(v, false);
	for (i = 0; !ret && i < n; i++)
		if (list[i].kind->done)
			list[i].kind->done(v, &list[i]);
	for (i = 0; i < n; i++)
		dirty_free(&list[i].before);
	return ret;
}

static json_t *cmd_transaction(struct vmm *v, json_t *args, struct err *err)
{
	json_t *actions = json_object_get(args, "actions"), *one;
	size_t n = json_array_size(actions), i;
	struct action *list;
	int ret = 0;

	if (!json_is_array(actions)) {
		err_set(err, EINVAL, "Parameter 'actions' is missing or no array");
		return NULL;
	}
	list = calloc(n + 1, sizeof(*list));
	if (!list)
		ret = err_set(err, ENOMEM, "no memory for a transaction");
	json_array_foreach(actions, i, one)
	{
		if (!ret)
			ret = prepare(&list[i], one, n > 1, err);
	}
	if (!ret)
		ret = run_all(v, list, n, err);
	free(list);
	return qmp_done(ret);
}

/* One action, as a command of its own. */
static json_t *alone(struct vmm *v, const char *name, json_t *args, struct err *err)
{
	struct action a = { .kind = kind_of(name), .args = args };

	return qmp_done(run_all(v, &a, 1, err));
}

#define ALONE(fn, name)                                                                                                \
	static json_t *fn(struct vmm *v, json_t *args, struct err *err)                                                \
	{                                                                                                              \
		return alone(v, name, args, err);                                                                      \
	}
ALONE(cmd_bitmap_add, "block-dirty-bitmap-add")
ALONE(cmd_bitmap_clear, "block-dirty-bitmap-clear")
ALONE(cmd_bitmap_disable, "block-dirty-bitmap-disable")
ALONE(cmd_bitmap_enable, "block-dirty-bitmap-enable")
ALONE(cmd_bitmap_merge, "block-dirty-bitmap-merge")
ALONE(cmd_bitmap_remove, "block-dirty-bitmap-remove")
ALONE(cmd_snapshot, "blockdev-snapshot")

const struct qmp_command qmp_graph_commands[] = {
	{ "block-dirty-bitmap-add", "node name granularity persistent disabled", cmd_bitmap_add },
	{ "block-dirty-bitmap-clear", "node name", cmd_bitmap_clear },
	{ "block-dirty-bitmap-disable", "node name", cmd_bitmap_disable },
	{ "block-dirty-bitmap-enable", "node name", cmd_bitmap_enable },
	{ "block-dirty-bitmap-merge", "node target bitmaps", cmd_bitmap_merge },
	{ "block-dirty-bitmap-remove", "node name", cmd_bitmap_remove },
	{ "blockdev-snapshot", "node overlay", cmd_snapshot },
	{ "transaction", "actions", cmd_transaction },
	{ NULL, NULL, NULL },
};
