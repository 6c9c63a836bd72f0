/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What devices behind vhost-user have in common: queues whose buffers are passed
 * on to another process and back. A device is one of these, its configuration
 * space and its properties; vhost_user_fs.c is the short one.
 *
 * One thread of its own does that. `lock` guards queues, rings and requests;
 * that thread never takes the device's lock.
 *
 * When the other process goes, the device waits for a reset; or, with `reconnect`,
 * tries that often to reach a new one, which gets what was in flight once more.
 */
#pragma once
#include <pthread.h>

#include "device/vhost_user.h"
#include "device/virtio_pci.h"

#define VHOST_NO_FD UINT32_MAX

struct vhost_req {
	struct virtq_elem elem;
	struct virtqueue *vq;
	struct vhost_req *next; /* in a list */
};

struct vhost_dev_ring {
	struct vhost_dev *dev;
	unsigned index;
	struct loop_fd *watch; /* of its call event */
};

struct vhost_dev {
	struct virtio_device v;
	struct virtqueue vq[VHOST_RINGS];

	/* Properties */
	char *socket;
	uint32_t fd, reconnect; /* reconnect: seconds, 0: never */

	/* The device's, before vhost_dev_init() */
	char what[80]; /* "the server of ..." for messages */
	struct vhost_wish wish;
	unsigned queue_size;
	uint8_t *config; /* where the other process' configuration space goes; wish.config bytes */

	struct loop *loop;
	pthread_t thread;
	struct vhost_dev_ring ring[VHOST_RINGS];
	struct loop_fd *hangup;
	struct timer *again;
	uint8_t found[256]; /* what a new one tells */

	pthread_mutex_t lock; /* the rest, and vq[] */
	pthread_cond_t idle;
	struct vhost_user *user; /* NULL: it is gone, and awaited */
	bool gone;               /* for good */
	bool started[VHOST_RINGS];
	struct vhost_req *free, *waiting; /* waiting: for a new process */
};

#define VHOST_DEV_PROPS(T, D)                                                                                          \
	PROP_DEF_STRING(T, D.socket, "socket", NULL, "path where its server listens for vhost-user"),                  \
		PROP_DEF_U32(T, D.fd, "fd", "4294967295", 0, 0, "or the number of a connected descriptor")

/* virtio_ops' part. */
void vhost_dev_ready(struct virtio_device *v);
void vhost_dev_kick(struct virtio_device *v, struct virtqueue *vq);
void vhost_dev_queue_off(struct virtio_device *v, struct virtqueue *vq);
void vhost_dev_stopped(struct virtio_device *v, bool stopped);

/* In realize: connect, agree, and start the thread as the last step. It undoes itself on failure. */
int vhost_dev_realize(struct vhost_dev *s, struct virtio_pci *proxy, const struct virtio_ops *ops, uint32_t pci_class,
		      struct err *err);
void vhost_dev_unrealize(struct vhost_dev *s, struct virtio_pci *proxy);
