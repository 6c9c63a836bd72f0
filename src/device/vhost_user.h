/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The front end of vhost-user (QEMU docs/interop/vhost-user): a device whose
 * queues another process works on.
 *
 * That process does not see the guest's rings. Each of its rings is one of ours
 * (struct vhost_ring) that buffers are passed on to, and comes back from: so
 * the guest's may be of any kind, what was written is known (translated code
 * must go), and nothing is in flight when a state is saved. Buffers themselves
 * are guest memory, which it maps.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "device/virtq.h"
#include "util/err.h"

#define VHOST_RINGS 16
#define VHOST_RING_SIZE 1024 /* descriptors */

struct vhost_user;

/* A split ring (Virtio 1.2 §2.7) with the driver's side here. One thread at a time. */
struct vhost_ring {
	unsigned index;
	int kick, call;  /* events: ours to it, its to us */
	uint8_t *mem;
	uint16_t free_head, nfree, avail, used;
	uint16_t next[VHOST_RING_SIZE], count[VHOST_RING_SIZE]; /* of a chain, by its head */
	void *token[VHOST_RING_SIZE];
	unsigned inflight;
};

struct vhost_wish {
	unsigned rings;
	uint64_t features;   /* of the device type, that we can pass on */
	uint32_t config;     /* bytes of configuration space that it must have; 0: we make it ourselves */
};
/* Take over a connected socket and agree on features. NULL and err on failure. Blocks for up to ten seconds. */
struct vhost_user *vhost_user_new(int fd, const struct guest_mem *mem, const struct vhost_wish *w, struct err *err);
/* Its configuration space. */
int vhost_user_config(struct vhost_user *u, void *config, uint32_t size, struct err *err);
/* What the driver accepted, before rings are started. */
int vhost_user_set_features(struct vhost_user *u, uint64_t features, struct err *err);
void vhost_user_free(struct vhost_user *u); /* NULL is allowed */
int vhost_user_fd(const struct vhost_user *u); /* to be watched for a hang-up */
uint64_t vhost_user_features(const struct vhost_user *u); /* agreed: of those wanted */
struct vhost_ring *vhost_user_ring(struct vhost_user *u, unsigned i);
/* Let it work on a ring, from its beginning; -errno and err if it is gone or refuses. */
int vhost_user_start(struct vhost_user *u, unsigned ring, struct err *err);
/* It works on it no more when this returns; what is in flight is forgotten. */
void vhost_user_stop(struct vhost_user *u, unsigned ring);

/* Pass on a buffer as popped. False: no room now, or never (an empty ring has none: then it is too long). */
bool vhost_ring_add(struct vhost_ring *r, const struct virtq_elem *e, void *token);
void vhost_ring_kick(struct vhost_ring *r);
/* The token of a buffer that came back, NULL: none is there. -EPROTO in *ret: it says nonsense. */
void *vhost_ring_take(struct vhost_ring *r, uint32_t *len, int *ret);
