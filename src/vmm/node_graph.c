/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What lies over what. A node that is a backing file has no block: its contents
 * are an image in the chain of the node above, and become a block again when it
 * is taken from there.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "image/block_graph.h"
#include "image/qcow2.h"
#include "vmm/vmm.h"

struct vmm_plug *vmm_node_user(struct vmm *v, const struct vmm_node *n)
{
	struct vmm_plug *p = v->plugs;

	while (p && p->node != n)
		p = p->next;
	return p;
}

struct vmm_node *vmm_node_named(struct vmm *v, const char *name, struct err *err)
{
	struct vmm_plug *p = vmm_plug_find(v, name);
	struct vmm_node *n = p ? p->node : vmm_node_find(v, name);

	if (!n)
		err_set(err, ENXIO, "Cannot find device='%.80s' nor node-name='%.80s'", name, name);
	return n;
}

void vmm_node_move_user(struct vmm *v, struct vmm_node *from, struct vmm_node *to)
{
	struct vmm_plug *p = vmm_node_user(v, from);

	if (!p)
		return;
	p->node = to;
	to->users++;
	vmm_node_put(v, from);
}

/* ---- Chains ---------------------------------------------------------------------- */

int vmm_node_attach(struct vmm *v, struct vmm_node *over, struct vmm_node *below, struct err *err)
{
	struct image *img;

	if (!below->block || below->users)
		return err_set(err, EBUSY, "Node '%s' is already in use, or no format: it cannot be a backing file",
			       below->name ? below->name : below->path);
	if (!block_qcow2(over->block))
		return err_set(err, EINVAL, "Node '%s' is no qcow2 image: it has no backing file", over->name);
	img = block_into_image(below->block, err);
	if (!img)
		return -err->code;
	below->block = NULL;
	below->users++;
	over->backing = below;
	image_close(qcow2_swap_backing(block_qcow2(over->block), img), NULL);
	return 0;
}

void vmm_node_detach(struct vmm *v, struct vmm_node *over)
{
	struct vmm_node *below = over->backing;
	struct image *img = over->block ? qcow2_swap_backing(block_qcow2(over->block), NULL) : NULL;

	over->backing = NULL;
	if (img)
		below->block = block_from_image(img, NULL);
	if (img && !below->block)
		image_close(img, NULL);
	vmm_node_put(v, below);
}

struct vmm_node *vmm_node_below(struct vmm_node *n, unsigned depth)
{
	while (n && depth--)
		n = n->backing;
	return n;
}

static bool same_file(const char *a, const char *b)
{
	char x[PATH_MAX], y[PATH_MAX];

	return !strcmp(a, b) || (realpath(a, x) && realpath(b, y) && !strcmp(x, y));
}

int vmm_node_depth(const struct vmm_node *n, const char *node, const char *file, struct err *err)
{
	struct image *img;
	unsigned depth = 0;

	for (const struct vmm_node *at = n; node && at; at = at->backing, depth++)
		if (at->name && !strcmp(at->name, node))
			return depth;
	if (node)
		return err_set(err, EINVAL, "'%.80s' is not in this backing file chain", node);
	if (same_file(block_path(n->block), file))
		return 0;
	while ((img = block_backing(n->block, ++depth)))
		if (same_file(image_path(img), file))
			return depth;
	return err_set(err, EINVAL, "Can't find '%.200s' in the backing chain", file);
}

/* ---- Snapshots ------------------------------------------------------------------------ */

static int check_overlay(struct vmm *v, const struct vmm_node *n, const struct vmm_node *overlay, struct err *err)
{
	if (!n->block || vmm_node_has_job(v, n) || vmm_node_is_exported(v, n))
		return err_set(err, EBUSY, "Node '%s' is busy: it is %s", n->name,
			       n->block ? "in use by a block job or an export" : "not the active layer");
	if (overlay->users || !overlay->block || vmm_node_has_job(v, overlay))
		return err_set(err, EBUSY, "The overlay '%s' is already in use", overlay->name);
	if (!block_qcow2(overlay->block))
		return err_set(err, EINVAL, "The overlay '%s' does not support backing images", overlay->name);
	if (overlay->backing || block_backing(overlay->block, 1))
		return err_set(err, EINVAL, "The overlay '%s' already has a backing image: add it with backing=null",
			       overlay->name);
	if (block_readonly(overlay->block))
		return err_set(err, EACCES, "The overlay '%s' is read-only", overlay->name);
	if (block_size(overlay->block) != block_size(n->block))
		return err_set(err, EINVAL, "The overlay '%s' has %llu bytes, and node '%s' %llu", overlay->name,
			       (unsigned long long)block_size(overlay->block), n->name,
			       (unsigned long long)block_size(n->block));
	return 0;
}

int vmm_node_snapshot(struct vmm *v, struct vmm_node *n, struct vmm_node *overlay, struct err *err)
{
	struct block *front = n->block, *other = overlay->block;
	struct image *img;
	int ret = check_overlay(v, n, overlay, err);

	if (ret)
		return ret;
	block_pause(front);
	block_swap(front, other);
	img = block_into_image(other, err);
	if (img)
		image_close(qcow2_swap_backing(block_qcow2(front), img), NULL);
	else
		block_swap(front, other);
	block_resume(front);
	if (!img)
		return -err->code;
	n->block = NULL;
	overlay->block = front;
	overlay->backing = n;
	n->users++;
	vmm_node_move_user(v, n, overlay);
	return 0;
}

int vmm_node_snapshot_undo(struct vmm *v, struct vmm_node *n, struct vmm_node *overlay, struct err *err)
{
	struct block *front = overlay->block, *other;
	struct image *img;
	int ret;

	block_pause(front);
	img = qcow2_swap_backing(block_qcow2(front), NULL);
	ret = n->readonly ? 0 : image_set_writable(img, true, err);
	other = ret ? NULL : block_from_image(img, err);
	if (other) {
		(void)block_adopt_cache(other, front, NULL);
		block_swap(front, other);
	} else {
		image_close(qcow2_swap_backing(block_qcow2(front), img), NULL);
	}
	block_resume(front);
	if (!other)
		return -err->code;
	n->block = front;
	overlay->block = other;
	overlay->backing = NULL;
	n->users--; /* as a backing file */
	vmm_node_move_user(v, overlay, n);
	return 0;
}
