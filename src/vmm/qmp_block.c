/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: block nodes, what is known of disks, and their size. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "device/disk.h"
#include "image/dirty.h"
#include "vmm/vmm.h"

static json_t *cmd_add(struct vmm *v, json_t *args, struct err *err)
{
	return qmp_done(vmm_node_add(v, args, err));
}

static json_t *cmd_del(struct vmm *v, json_t *args, struct err *err)
{
	const char *name = qmp_need_text(args, "node-name", err);

	return name ? qmp_done(vmm_node_del(v, name, err)) : NULL;
}

/* ---- Queries -------------------------------------------------------------------- */

static json_t *image_info(const struct vmm_node *n)
{
	return json_pack("{s:s,s:s,s:I,s:I,s:b}", "filename", n->path, "format", n->block ? block_format(n->block) : n->driver,
			 "virtual-size", (json_int_t)(n->block ? block_size(n->block) : 0), "actual-size",
			 (json_int_t)(n->block ? block_allocated(n->block) : 0), "dirty-flag", 0);
}

/* ---- Limits ------------------------------------------------------------------------ */

static const char *const limit_names[THROTTLE_KINDS] = {
	[BPS_TOTAL] = "bps", [BPS_READ] = "bps_rd", [BPS_WRITE] = "bps_wr", [IOPS_TOTAL] = "iops", [IOPS_READ] = "iops_rd",
	[IOPS_WRITE] = "iops_wr",
};

static void add_limits(const struct vmm_node *n, json_t *info)
{
	struct throttle_limits l = { 0 };
	const char *group = NULL;
	bool any = n->block && block_get_throttle(n->block, &l, &group);
	char name[32];

	for (unsigned i = 0; i < THROTTLE_KINDS; i++) {
		json_object_set_new(info, limit_names[i], json_integer(l.kind[i].avg));
		if (!any || !l.kind[i].max)
			continue;
		snprintf(name, sizeof(name), "%s_max", limit_names[i]);
		json_object_set_new(info, name, json_integer(l.kind[i].max));
		snprintf(name, sizeof(name), "%s_max_length", limit_names[i]);
		json_object_set_new(info, name, json_integer(l.kind[i].length ? l.kind[i].length : 1));
	}
	if (l.iops_size)
		json_object_set_new(info, "iops_size", json_integer(l.iops_size));
	if (any && group)
		json_object_set_new(info, "group", json_string(group));
}

static int take_limit(json_t *args, const char *name, bool needed, uint64_t *value, struct err *err)
{
	json_t *v = json_object_get(args, name);

	*value = 0;
	if (!v && !needed)
		return 0;
	if (!json_is_integer(v) || json_integer_value(v) < 0)
		return err_set(err, EINVAL, "Parameter '%s' is missing or no number from 0 on", name);
	*value = json_integer_value(v);
	return 0;
}

static int take_limits(json_t *args, struct throttle_limits *l, bool *any, struct err *err)
{
	char name[32];
	int ret = take_limit(args, "iops_size", false, &l->iops_size, err);

	*any = false;
	for (unsigned i = 0; i < THROTTLE_KINDS && !ret; i++) {
		ret = take_limit(args, limit_names[i], true, &l->kind[i].avg, err);
		snprintf(name, sizeof(name), "%s_max", limit_names[i]);
		if (!ret)
			ret = take_limit(args, name, false, &l->kind[i].max, err);
		snprintf(name, sizeof(name), "%s_max_length", limit_names[i]);
		if (!ret)
			ret = take_limit(args, name, false, &l->kind[i].length, err);
		*any |= l->kind[i].avg || l->kind[i].max;
	}
	return ret;
}

/* BlockDirtyInfo, of those that are in order. */
static void add_bitmaps(const struct vmm_node *n, json_t *info)
{
	struct block_bitmap_info i;
	json_t *list;

	if (!n->block || !block_bitmap_get(n->block, 0, &i))
		return;
	list = json_array();
	for (unsigned k = 0; block_bitmap_get(n->block, k, &i); k++) {
		json_t *one = json_pack("{s:s,s:I,s:I,s:b,s:b,s:b}", "name", i.name, "count", (json_int_t)i.count, "granularity",
					(json_int_t)i.granularity, "recording", i.enabled, "busy", 0, "persistent", i.persistent);

		if (one && i.in_use)
			json_object_set_new(one, "inconsistent", json_true());
		json_array_append_new(list, one);
	}
	json_object_set_new(info, "dirty-bitmaps", list);
}

/* BlockDeviceInfo. */
static json_t *node_info(const struct vmm_node *n)
{
	json_t *info = json_pack("{s:s,s:s,s:b,s:b,s:i,s:s,s:b,s:{s:b,s:b,s:b},s:o}", "file", n->path, "drv",
				 n->file || !n->block || strcmp(n->driver, "raw") ? n->driver : block_format(n->block), "ro",
				 n->block ? block_readonly(n->block) : n->readonly, "encrypted", 0, "backing_file_depth", 0,
				 "detect_zeroes", "off", "active", 1, "cache", "writeback", 1, "direct", n->direct, "no-flush",
				 n->no_flush, "image", image_info(n));

	add_limits(n, info);
	add_bitmaps(n, info);
	if (n->block && block_backing(n->block, 1)) {
		json_object_set_new(info, "backing_file", json_string(image_path(block_backing(n->block, 1))));
		json_object_set_new(info, "backing_file_depth", json_integer(block_depth(n->block)));
	}
	json_object_set_new(info, "write_threshold", json_integer(0));
	if (n->name)
		json_object_set_new(info, "node-name", json_string(n->name));
	return info;
}

static json_t *cmd_nodes(struct vmm *v, json_t *args, struct err *err)
{
	json_t *list = json_array();

	for (struct vmm_node *n = v->nodes; n; n = n->next)
		if (n->name)
			json_array_append_new(list, node_info(n));
	return list;
}

/* "device" is the name of a drive that the command line made; drives of blockdev-add have none. */
static const char *drive_name(const struct vmm_plug *p)
{
	return p->node->own ? p->node->name : "";
}

static json_t *cmd_block(struct vmm *v, json_t *args, struct err *err)
{
	json_t *list = json_array();

	for (struct vmm_plug *p = v->plugs; p; p = p->next) {
		json_t *one;

		if (!p->node && !disk_removable(p->dev))
			continue;
		one = json_pack("{s:s,s:s,s:b,s:b,s:s,s:s}", "device", p->node ? drive_name(p) : "", "qdev", p->dev->id, "locked",
				disk_locked(p->dev), "removable", disk_removable(p->dev), "type", "unknown", "io-status",
				disk_io_status(p->dev));
		if (disk_removable(p->dev))
			json_object_set_new(one, "tray_open", json_boolean(disk_tray_open(p->dev)));
		if (p->node)
			json_object_set_new(one, "inserted", node_info(p->node));
		json_array_append_new(list, one);
	}
	return list;
}

static json_t *stats_of(const struct vmm_node *n, const char *device, const char *qdev)
{
	struct block_stats s = { 0 };
	json_t *stats, *one;

	if (n->block)
		block_get_stats(n->block, &s);
	stats = json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "rd_bytes", (json_int_t)s.rd_bytes, "wr_bytes",
			  (json_int_t)s.wr_bytes, "rd_operations", (json_int_t)s.rd_ops, "wr_operations", (json_int_t)s.wr_ops,
			  "flush_operations", (json_int_t)s.flush_ops, "rd_total_time_ns", (json_int_t)s.rd_ns,
			  "wr_total_time_ns", (json_int_t)s.wr_ns, "flush_total_time_ns", (json_int_t)s.flush_ns);
	json_object_set_new(stats, "unmap_operations", json_integer(s.discard_ops));
	/* Keel's own: all kinds together. */
	json_object_set_new(stats, "failed_operations", json_integer(s.failed));
	one = json_pack("{s:o}", "stats", stats);
	if (device)
		json_object_set_new(one, "device", json_string(device));
	if (qdev)
		json_object_set_new(one, "qdev", json_string(qdev));
	if (n->name)
		json_object_set_new(one, "node-name", json_string(n->name));
	return one;
}

static json_t *cmd_blockstats(struct vmm *v, json_t *args, struct err *err)
{
	json_t *list = json_array();

	if (json_is_true(json_object_get(args, "query-nodes"))) {
		for (struct vmm_node *n = v->nodes; n; n = n->next)
			if (n->name)
				json_array_append_new(list, stats_of(n, NULL, NULL));
		return list;
	}
	for (struct vmm_plug *p = v->plugs; p; p = p->next)
		if (p->node)
			json_array_append_new(list, stats_of(p->node, drive_name(p), p->dev->id));
	return list;
}

/* ---- block_resize ---------------------------------------------------------------- */

/* The node that "device" (a drive's or a device's name) or "node-name" means. */
static struct vmm_node *target(struct vmm *v, json_t *args, struct err *err)
{
	const char *device = json_string_value(json_object_get(args, "device"));
	const char *name = json_string_value(json_object_get(args, "node-name"));
	struct vmm_plug *p = device ? vmm_plug_find(v, device) : NULL;
	struct vmm_node *n = p ? p->node : vmm_node_find(v, device ? device : name ? name : "");

	if (!n)
		err_set(err, ENXIO, "Cannot find device='%.80s' nor node-name='%.80s'", device ? device : "", name ? name : "");
	return n;
}

static struct vmm_plug *user_of(struct vmm *v, const struct vmm_node *n)
{
	struct vmm_plug *p = v->plugs;

	while (p && p->node != n)
		p = p->next;
	return p;
}

static json_t *cmd_resize(struct vmm *v, json_t *args, struct err *err)
{
	struct vmm_node *n = target(v, args, err);
	json_int_t size = json_integer_value(json_object_get(args, "size"));
	struct vmm_plug *p;
	int ret;

	if (!n)
		return NULL;
	if (!json_is_integer(json_object_get(args, "size")) || size <= 0 || size % 512) {
		err_set(err, EINVAL, "Parameter 'size' expects a number of bytes above 0 that is a multiple of 512");
		return NULL;
	}
	if (!n->block) {
		err_set(err, EBUSY, "Node '%s' is not open: resize the node that lies over it", n->name);
		return NULL;
	}
	p = user_of(v, n);
	ret = p ? disk_resize(p->dev, size, err) : block_resize(n->block, size, err);
	return qmp_done(ret);
}

static json_t *cmd_throttle(struct vmm *v, json_t *args, struct err *err)
{
	const char *id = json_string_value(json_object_get(args, "id"));
	const char *group = json_string_value(json_object_get(args, "group"));
	struct throttle_limits l;
	struct vmm_plug *p;
	bool any;

	if (!id)
		id = json_string_value(json_object_get(args, "device"));
	p = id ? vmm_plug_find(v, id) : NULL;
	if (!p || !p->node) {
		err_set(err, ENXIO, "Device '%.80s' not found, or it has no medium", id ? id : "");
		return NULL;
	}
	if (take_limits(args, &l, &any, err))
		return NULL;
	/* QEMU's default: the device is its group's only member. */
	return qmp_done(block_set_throttle(p->node->block, any ? group ? group : id : NULL, any ? &l : NULL, err));
}

const struct qmp_command qmp_block_commands[] = {
	{ "block_set_io_throttle",
	  "id device group bps bps_rd bps_wr iops iops_rd iops_wr bps_max bps_rd_max bps_wr_max iops_max iops_rd_max iops_wr_max "
	  "bps_max_length bps_rd_max_length bps_wr_max_length iops_max_length iops_rd_max_length iops_wr_max_length iops_size",
	  cmd_throttle },
	{ "block_resize", "device node-name size", cmd_resize },
	{ "blockdev-add", "*", cmd_add },
	{ "blockdev-del", "node-name", cmd_del },
	{ "query-block", "", cmd_block },
	{ "query-blockstats", "query-nodes", cmd_blockstats },
	{ "query-named-block-nodes", "flat", cmd_nodes },
	{ NULL, NULL, NULL },
};
