/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A disk of another process (qemu-storage-daemon, SPDK) behind vhost-user:
 * virtio-blk (Virtio 1.2 §5.2) as that process says that it is.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "device/vhost_user_dev.h"

#define BLK_QUEUES VHOST_RINGS
#define BLK_QUEUE_SIZE 128
#define CONFIG_BYTES 60u /* §5.2.4, to write_zeroes_may_unmap and its padding */
#define NUM_QUEUES_AT 34u
#define WCE_AT 32u

/* §5.2.3: SIZE_MAX SEG_MAX GEOMETRY RO BLK_SIZE FLUSH TOPOLOGY CONFIG_WCE MQ DISCARD WRITE_ZEROES. CONFIG_WCE is not
 * passed on: it would need writes of the configuration. */
#define BLK_FEATURES (1ull << 1 | 1ull << 2 | 1ull << 4 | 1ull << 5 | 1ull << 6 | 1ull << 9 | 1ull << 10 | 1ull << 12 | 1ull << 13 | 1ull << 14)
#define BLK_F_MQ (1ull << 12)

struct vhost_blk {
	struct virtio_pci proxy; /* begins with struct device */
	struct vhost_dev s;
	uint8_t config[CONFIG_BYTES], shown[CONFIG_BYTES]; /* its, and what the guest sees of it */
	uint32_t num_queues;
};

static struct vhost_blk *blk_of(struct virtio_device *v)
{
	return (struct vhost_blk *)((uint8_t *)v - offsetof(struct vhost_blk, s.v));
}

/* Asked for when the other process is there. */
static uint64_t blk_features(struct virtio_device *v)
{
	struct vhost_blk *o = blk_of(v);
	uint64_t f = vhost_user_features(o->s.user);

	memcpy(o->shown, o->config, CONFIG_BYTES);
	o->shown[NUM_QUEUES_AT] = o->num_queues;
	o->shown[NUM_QUEUES_AT + 1] = 0;
	o->shown[WCE_AT] = 1;
	return o->num_queues > 1 ? f | BLK_F_MQ : f & ~BLK_F_MQ;
}

static const struct virtio_ops blk_ops = {
	.name = "virtio-blk",
	.id = VIRTIO_ID_BLOCK,
	.own_lock = true,
	.features = blk_features,
	.ready = vhost_dev_ready,
	.kick = vhost_dev_kick,
	.queue_off = vhost_dev_queue_off,
	.stopped = vhost_dev_stopped,
};

static int blk_realize(struct device *d, struct err *err)
{
	struct vhost_blk *o = (struct vhost_blk *)d;
	struct vhost_dev *s = &o->s;

	snprintf(s->what, sizeof(s->what), "the server of the disk");
	s->v.config = o->shown;
	s->v.config_size = CONFIG_BYTES;
	s->config = o->config;
	s->wish = (struct vhost_wish){ .rings = o->num_queues, .features = BLK_FEATURES, .config = CONFIG_BYTES };
	s->queue_size = BLK_QUEUE_SIZE;
	return vhost_dev_realize(s, &o->proxy, &blk_ops, 0x010000, err);
}

static void blk_unrealize(struct device *d)
{
	vhost_dev_unrealize(&((struct vhost_blk *)d)->s, (struct virtio_pci *)d);
}

static int blk_loaded(void *obj, struct err *err)
{
	return virtio_loaded(&((struct vhost_blk *)obj)->s.v, err);
}

static const struct property blk_props[] = {
	VIRTIO_PCI_PROPS(struct vhost_blk),
	VHOST_DEV_PROPS(struct vhost_blk, s),
	PROP_DEF_U32(struct vhost_blk, s.reconnect, "reconnect", "0", 0, 3600, "seconds between attempts to reach a server that went; 0: none"),
	PROP_DEF_U32(struct vhost_blk, num_queues, "num-queues", "1", 1, BLK_QUEUES, "request queues"),
	{ 0 },
};

/* Nothing is in flight while the machine is stopped, but for what waits for a new server. */
static const struct state_field blk_fields[] = {
	STATE_FIELD_STRUCT(struct vhost_blk, proxy, &virtio_pci_state),
	STATE_FIELD_STRUCT(struct vhost_blk, s.v, &virtio_device_state),
	STATE_ARRAY_STRUCT(struct vhost_blk, s.vq, &virtq_state),
	STATE_END,
};
static const struct state_desc blk_state = {
	.name = "vhost-user-blk-pci", .version = 1, .fields = blk_fields, .post_load = blk_loaded,
};

const struct device_class vhost_user_blk_class = {
	.name = "vhost-user-blk-pci",
	.description = "disk of a server behind vhost-user",
	.size = sizeof(struct vhost_blk),
	.props = blk_props,
	.realize = blk_realize,
	.unrealize = blk_unrealize,
	.reset = virtio_pci_reset,
	.state = &blk_state,
	.stopped = virtio_pci_stopped,
};
