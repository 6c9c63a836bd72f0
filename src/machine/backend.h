/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Back ends as tiny structs of callbacks: what a serial port or a network card
 * talks to. Implementations are in src/vmm (stdio, file, socket, passt); tests
 * bring their own. Disks: image/block.h.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "util/err.h"
#include "util/loop.h"

/*
 * Character stream. All calls and callbacks happen in the main loop's thread,
 * except write(), which any thread may call (it never blocks).
 */
struct chardev;
struct chardev_front {
	/* How many bytes the device can take now; then receive() with at most that many. */
	size_t (*can_receive)(void *opaque);
	void (*receive)(void *opaque, const uint8_t *data, size_t len);
	/* After a short write: there is room again. May be NULL. */
	void (*writable)(void *opaque);
	/* A peer came (true) or went. May be NULL. */
	void (*connected)(void *opaque, bool up);
};
struct chardev_ops {
	/* Bytes taken, 0..len; what nobody reads (no peer) is taken and dropped. */
	size_t (*write)(struct chardev *c, const uint8_t *data, size_t len);
	/* The front end has room again: can_receive() grew. Any thread. */
	void (*accept)(struct chardev *c);
	void (*free)(struct chardev *c);
};
struct chardev {
	const struct chardev_ops *ops;
	const struct chardev_front *front; /* set by the device in realize, NULL until then */
	void *front_opaque;
	bool up; /* a peer is connected */
};

/*
 * Ethernet frames, without FCS, with no virtio header unless `vnet_hdr` says
 * so. Calls and callbacks happen in the thread of the loop that the back end
 * was made for.
 */
struct netdev;
struct netdev_front {
	/* A frame for the guest. False: no buffer now; the back end keeps it and stops until rx_ready(). */
	bool (*receive)(void *opaque, const struct iovec *iov, int n, size_t len);
	/* After send() returned false: try again. */
	void (*writable)(void *opaque);
	void (*link)(void *opaque, bool up);
};
struct netdev_ops {
	/* Take a frame from the guest; false: busy, writable() follows. Frames of more than 65,550 bytes are dropped. */
	bool (*send)(struct netdev *n, const struct iovec *iov, int cnt, size_t len);
	void (*rx_ready)(struct netdev *n); /* the front end has buffers again */
	/* With vnet_hdr: what the guest takes, NETDEV_*; none after a reset. Any thread. May be NULL. */
	void (*set_offload)(struct netdev *n, unsigned flags);
	/* Of several queues the first `pairs` are in use. May be NULL. */
	void (*set_queues)(struct netdev *n, unsigned pairs);
	/*
	 * A back end that goes where its card goes: watch descriptors in this loop,
	 * which does not run yet, and forget it when it does no longer run. NULL:
	 * it has a loop already. All queues at once.
	 */
	int (*attach)(struct netdev *n, struct loop *loop, struct err *err);
	void (*detach)(struct netdev *n);
	void (*free)(struct netdev *n);
};
enum { NETDEV_CSUM = 1, NETDEV_TSO4 = 2, NETDEV_TSO6 = 4, NETDEV_ECN = 8, NETDEV_UFO = 16 };
struct netdev {
	const struct netdev_ops *ops;
	const struct netdev_front *front;
	void *front_opaque;
	bool up;
	unsigned mtu; /* 0: unknown */
	/* Every frame, both ways, begins with the 12 bytes of struct virtio_net_hdr_v1 (Virtio 1.2 §5.1.6); the back end does checksums and segmentation. */
	bool vnet_hdr;
	bool ufo; /* with vnet_hdr: UDP is segmented too */
	struct loop *loop; /* that callbacks come from, NULL: the main loop */
	/* Several queues, each a netdev with a front of its own: all of them, this one first. 0: just this one. Links, offloads and features are the first's. */
	struct netdev **queue;
	unsigned queues;
};
