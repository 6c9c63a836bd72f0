/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A host folder for the guest: virtio-fs (Virtio 1.2 §5.11), whose file system
 * is another process (virtiofsd) behind vhost-user.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "device/vhost_user_dev.h"

#define FS_QUEUES 8 /* request queues; one more is for what cannot wait */
#define FS_QUEUE_SIZE 128

struct __attribute__((packed)) fs_config {
	char tag[36];
	uint32_t num_queues;
};

struct vhost_fs {
	struct virtio_pci proxy; /* begins with struct device */
	struct vhost_dev s;
	struct fs_config config;

	/* Properties */
	char *tag;
	uint32_t num_queues;
};

static const struct virtio_ops fs_ops = {
	.name = "virtio-fs",
	.id = VIRTIO_ID_FS,
	.own_lock = true,
	.ready = vhost_dev_ready,
	.kick = vhost_dev_kick,
	.queue_off = vhost_dev_queue_off,
	.stopped = vhost_dev_stopped,
};

static int fs_realize(struct device *d, struct err *err)
{
	struct vhost_fs *o = (struct vhost_fs *)d;
	struct vhost_dev *s = &o->s;

	if (!o->tag || !*o->tag || strlen(o->tag) >= sizeof(o->config.tag))
		return err_set(err, EINVAL, "property tag must be a name of 1 to %zu bytes", sizeof(o->config.tag) - 1);
	snprintf(s->what, sizeof(s->what), "the server of the shared folder '%s'", o->tag);
	memcpy(o->config.tag, o->tag, strlen(o->tag));
	o->config.num_queues = o->num_queues;
	s->v.config = (uint8_t *)&o->config;
	s->v.config_size = sizeof(o->config);
	s->wish = (struct vhost_wish){ .rings = o->num_queues + 1 };
	s->queue_size = FS_QUEUE_SIZE;
	return vhost_dev_realize(s, &o->proxy, &fs_ops, 0x018000, err);
}

static void fs_unrealize(struct device *d)
{
	vhost_dev_unrealize(&((struct vhost_fs *)d)->s, (struct virtio_pci *)d);
}

/* The other process knows what the guest has open, and no stream carries that. */
static int fs_loaded(void *obj, struct err *err)
{
	struct vhost_fs *o = obj;
	int ret = virtio_loaded(&o->s.v, err);

	if (!ret && o->s.v.status & VIRTIO_DRIVER_OK)
		ret = err_set(err, ENOTSUP, "the guest uses the shared folder '%s', whose server cannot take that over: unmount it first",
			      o->tag);
	return ret;
}

static const struct property fs_props[] = {
	VIRTIO_PCI_PROPS(struct vhost_fs),
	PROP_DEF_STRING(struct vhost_fs, tag, "tag", NULL, "what the guest mounts"),
	VHOST_DEV_PROPS(struct vhost_fs, s),
	PROP_DEF_U32(struct vhost_fs, num_queues, "num-request-queues", "1", 1, FS_QUEUES, "request queues"),
	{ 0 },
};

static const struct state_field fs_fields[] = {
	STATE_FIELD_STRUCT(struct vhost_fs, proxy, &virtio_pci_state),
	STATE_FIELD_STRUCT(struct vhost_fs, s.v, &virtio_device_state),
	STATE_ARRAY_STRUCT(struct vhost_fs, s.vq, &virtq_state),
	STATE_END,
};
static const struct state_desc fs_state = {
	.name = "vhost-user-fs-pci", .version = 1, .fields = fs_fields, .post_load = fs_loaded,
};

const struct device_class vhost_user_fs_class = {
	.name = "vhost-user-fs-pci",
	.description = "shared folder of a server behind vhost-user",
	.size = sizeof(struct vhost_fs),
	.props = fs_props,
	.realize = fs_realize,
	.unrealize = fs_unrealize,
	.reset = virtio_pci_reset,
	.state = &fs_state,
	.stopped = virtio_pci_stopped,
};
