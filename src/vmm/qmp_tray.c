/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: trays, and the media in them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "device/disk.h"
#include "vmm/vmm.h"

static const char *drive_name(const struct vmm_plug *p)
{
	return p->node && p->node->own ? p->node->name : "";
}

void vmm_tray_event(struct vmm *v, struct device *d)
{
	struct vmm_plug *p = vmm_plug_find(v, d->id);

	qmp_event(v->qmp, "DEVICE_TRAY_MOVED", json_pack("{s:s,s:s,s:b}", "device", p ? drive_name(p) : "", "id", d->id, "tray-open",
							 disk_tray_open(d)));
}

/* The drive with a tray that "id" or "device" names. */
static struct vmm_plug *drive(struct vmm *v, json_t *args, struct err *err)
{
	const char *id = json_string_value(json_object_get(args, "id"));
	struct vmm_plug *p;

	if (!id)
		id = json_string_value(json_object_get(args, "device"));
	p = id ? vmm_plug_find(v, id) : NULL;
	if (!p)
		err_set(err, ENXIO, "Device '%.80s' not found", id ? id : "");
	else if (!disk_removable(p->dev))
		err_set(err, EINVAL, "Device '%s' is not removable", id);
	else
		return p;
	return NULL;
}

static int move_tray(struct vmm *v, struct vmm_plug *p, bool open, bool force, struct err *err)
{
	bool was = disk_tray_open(p->dev);
	int ret = disk_ops_of(p->dev)->set_tray(p->dev, open, force, err);

	if (!ret && was != open)
		vmm_tray_event(v, p->dev);
	return ret;
}

static void remove_medium(struct vmm *v, struct vmm_plug *p)
{
	struct vmm_node *n = p->node;

	if (!n)
		return;
	disk_ops_of(p->dev)->set_medium(p->dev, NULL);
	p->node = NULL;
	vmm_node_put(v, n);
}

static int insert_medium(struct vmm *v, struct vmm_plug *p, struct vmm_node *n, struct err *err)
{
	int ret = vmm_node_get(v, n, err);

	if (ret)
		return ret;
	p->node = n;
	disk_ops_of(p->dev)->set_medium(p->dev, n->block);
	return 0;
}

static json_t *cmd_open(struct vmm *v, json_t *args, struct err *err)
{
	struct vmm_plug *p = drive(v, args, err);

	return p ? qmp_done(move_tray(v, p, true, json_is_true(json_object_get(args, "force")), err)) : NULL;
}

static json_t *cmd_close(struct vmm *v, json_t *args, struct err *err)
{
	struct vmm_plug *p = drive(v, args, err);

	return p ? qmp_done(move_tray(v, p, false, false, err)) : NULL;
}

static json_t *cmd_remove(struct vmm *v, json_t *args, struct err *err)
{
	struct vmm_plug *p = drive(v, args, err);

	if (!p)
		return NULL;
	if (!disk_tray_open(p->dev)) {
		err_set(err, EBUSY, "Tray of device '%s' is not open", p->dev->id);
		return NULL;
	}
	remove_medium(v, p);
	return json_object();
}

static json_t *cmd_insert(struct vmm *v, json_t *args, struct err *err)
{
	struct vmm_plug *p = drive(v, args, err);
	const char *name = json_string_value(json_object_get(args, "node-name"));
	struct vmm_node *n = name ? vmm_node_find(v, name) : NULL;

	if (!p)
		return NULL;
	if (!n) {
		err_set(err, ENOENT, "Cannot find device='' nor node-name='%.80s'", name ? name : "");
		return NULL;
	}
	if (!disk_tray_open(p->dev) || p->node) {
		err_set(err, EBUSY, p->node ? "There already is a medium in device '%s'" : "Tray of device '%s' is not open", p->dev->id);
		return NULL;
	}
	return qmp_done(insert_medium(v, p, n, err));
}

static json_t *cmd_eject(struct vmm *v, json_t *args, struct err *err)
{
	struct vmm_plug *p = drive(v, args, err);

	if (!p || move_tray(v, p, true, json_is_true(json_object_get(args, "force")), err))
		return NULL;
	remove_medium(v, p);
	return json_object();
}

/* All in one. The new image is opened first: if that fails the old one stays. */
static json_t *cmd_change(struct vmm *v, json_t *args, struct err *err)
{
	struct vmm_plug *p = drive(v, args, err);
	const char *path = json_string_value(json_object_get(args, "filename"));
	struct block_options o = { .path = path, .fd = -1, .format = json_string_value(json_object_get(args, "format")), .readonly = true };
	const char *mode = json_string_value(json_object_get(args, "read-only-mode"));
	struct vmm_node *n;
	char name[32];

	if (!p)
		return NULL;
	if (!path || (mode && !strcmp(mode, "read-write"))) {
		err_set(err, EINVAL, path ? "a CD-ROM drive does not write: 'read-only-mode' must not be read-write"
					  : "Parameter 'filename' is missing");
		return NULL;
	}
	snprintf(name, sizeof(name), "medium%u", v->media++);
	n = vmm_node_open(v, name, &o, err);
	if (!n)
		return NULL;
	n->own = true;
	if (move_tray(v, p, true, json_is_true(json_object_get(args, "force")), err)) {
		n->own = false;
		vmm_node_del(v, name, NULL);
		return NULL;
	}
	remove_medium(v, p);
	if (insert_medium(v, p, n, err))
		return NULL;
	return qmp_done(move_tray(v, p, false, false, err));
}

const struct qmp_command qmp_tray_commands[] = {
	{ "blockdev-change-medium", "id device filename format force read-only-mode", cmd_change },
	{ "blockdev-close-tray", "id device", cmd_close },
	{ "blockdev-insert-medium", "id node-name", cmd_insert },
	{ "blockdev-open-tray", "id device force", cmd_open },
	{ "blockdev-remove-medium", "id", cmd_remove },
	{ "eject", "id device force", cmd_eject },
	{ NULL, NULL, NULL },
};
