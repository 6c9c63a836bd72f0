/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The virtio core (Virtio 1.2 §2, §3): what every device has, whatever carries
 * it. A device is struct virtio_ops and an object that holds a struct
 * virtio_device and its queues; a transport (virtio_pci.h) brings it to the
 * guest. virtio_rng.c is the one to copy.
 *
 * Locks: registers, status and features are under the device's lock
 * (dev->lock). kick() is called under it too, unless `own_lock` is set: then
 * the device serializes its queues itself, and queue_off(), reset() and
 * stopped() wait for its threads, which must never take dev->lock.
 */
#pragma once
#include "device/virtq.h"
#include "machine/machine.h"

/* Device status (§2.1). */
enum { VIRTIO_ACKNOWLEDGE = 1, VIRTIO_DRIVER = 2, VIRTIO_DRIVER_OK = 4, VIRTIO_FEATURES_OK = 8, VIRTIO_NEEDS_RESET = 64,
       VIRTIO_FAILED = 128 };
#define VIRTIO_ID_NET 1
#define VIRTIO_ID_BLOCK 2
#define VIRTIO_ID_CONSOLE 3
#define VIRTIO_ID_RNG 4
#define VIRTIO_ID_BALLOON 5
#define VIRTIO_ID_SCSI 8
#define VIRTIO_ID_VSOCK 19
#define VIRTIO_ID_FS 26

struct virtio_device;

struct virtio_ops {
	const char *name; /* in messages */
	uint16_t id;
	bool own_lock; /* see above */
	bool direct;   /* a kick costs less than a thread switch: without ioeventfd it runs in the vCPU thread */

	/* Features of the device type that are offered, after realize; NULL: none. */
	uint64_t (*features)(struct virtio_device *v);
	/* The driver sets FEATURES_OK with v->features: false refuses. May be NULL. */
	bool (*accept)(struct virtio_device *v);
	/* DRIVER_OK was set. May be NULL. */
	void (*ready)(struct virtio_device *v);
	/* The driver wrote configuration space: 1, 2 or 4 bytes, inside of it. NULL: read-only. */
	void (*config_write)(struct virtio_device *v, unsigned offset, uint32_t value, unsigned size);
	/* Buffers may be there. Only while the device may run. */
	void (*kick)(struct virtio_device *v, struct virtqueue *vq);
	/*
	 * The queue is about to be reset, alone or with the device: forget or
	 * return what is in flight. With own_lock: clear vq->enabled under that
	 * lock, then wait for the requests. May be NULL.
	 */
	void (*queue_off)(struct virtio_device *v, struct virtqueue *vq);
	/* Back to what it was after realize; queues are off. May be NULL. */
	void (*reset)(struct virtio_device *v);
	/* true: finish or give back what is in flight, touch no guest memory afterwards; v->stopped is set already. May
	 * be NULL. */
	void (*stopped)(struct virtio_device *v, bool stopped);
};

struct virtio_transport {
	void (*interrupt)(struct virtio_device *v, struct virtqueue *vq); /* any thread */
	void (*config_interrupt)(struct virtio_device *v);                /* any thread */
	bool (*may_dma)(struct virtio_device *v);                         /* any thread */
	/* A queue's doorbell is wanted, or no longer. Idempotent. Lock held. */
	void (*doorbell)(struct virtio_device *v, struct virtqueue *vq, bool on);
};

/* Extra per queue: the event that a doorbell signals. */
struct virtio_kick {
	struct virtio_device *v;
	struct virtqueue *vq;
	int fd;
	struct loop_fd *watch;
	struct err *err; /* of the watch's making */
};

struct virtio_device {
	const struct virtio_ops *ops;
	const struct virtio_transport *transport;
	struct device *dev;     /* the object in the machine */
	struct loop *loop;      /* where kicks are handled */
	pthread_mutex_t *queue_lock; /* own_lock: the lock of the queues, set before virtio_init(); inside dev->lock */
	pthread_mutex_t **queue_locks; /* or one for each queue */
	struct loop **loops;    /* or NULL: where each queue's kicks are handled, instead of `loop`; before virtio_init() */
	struct virtqueue *vq;   /* nvq of them, in the device's object */
	struct virtio_kick *kick;
	unsigned nvq;
	uint64_t offered;       /* features */
	uint8_t *config;        /* configuration space, read by the driver as it is; the device's, under dev->lock */
	unsigned config_size;

	uint64_t features;      /* accepted by the driver */
	uint8_t status;         /* atomic: NEEDS_RESET comes from any thread */
	uint8_t generation;     /* of configuration space, atomic */
	bool stopped;           /* the machine does not run; atomic */
};

/*
 * In realize: `vq` has nvq queues whose `max` is set, `loop` is where kicks
 * go (the main loop, or one that does not run yet). 0 or -errno; virtio_exit() undoes it.
 */
int virtio_init(struct virtio_device *v, const struct virtio_ops *ops, struct device *dev, struct virtqueue *vq,
		unsigned nvq, struct loop *loop, struct err *err);
void virtio_exit(struct virtio_device *v);
/*
 * A thread for v->loop, a loop of the device's own, as the last step of realize and the first but the transport's of
 * unrealize. `kind` is the beginning of its name, at most three letters.
 */
int virtio_thread_start(struct virtio_device *v, const char *kind, pthread_t *thread, struct err *err);
void virtio_thread_end(struct virtio_device *v, pthread_t thread);

/* For devices. ------------------------------------------------------------- */

static inline bool virtio_has(const struct virtio_device *v, uint64_t feature)
{
	return v->features & feature;
}
/* Running: DRIVER_OK, no error, machine not stopped, DMA allowed. Any thread. */
bool virtio_may_run(const struct virtio_device *v);
/* Interrupt the driver if it wants one for what was flushed to this queue. The thread that works on the queue. */
void virtio_notify(struct virtio_device *v, struct virtqueue *vq);
/* The device changed its configuration space (under dev->lock): generation and interrupt. Any thread. */
void virtio_config_changed(struct virtio_device *v);
/* The driver broke the protocol: DEVICE_NEEDS_RESET. Any thread. */
void virtio_error(struct virtio_device *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* For transports; lock held. ----------------------------------------------- */

void virtio_set_status(struct virtio_device *v, uint8_t status);
void virtio_set_features(struct virtio_device *v, unsigned half, uint32_t value);
bool virtio_queue_enable(struct virtio_device *v, struct virtqueue *vq);
void virtio_queue_reset(struct virtio_device *v, struct virtqueue *vq);
void virtio_queue_set_size(struct virtio_device *v, struct virtqueue *vq, uint16_t size);
void virtio_reset(struct virtio_device *v);
void virtio_set_stopped(struct virtio_device *v, bool stopped);
/* Signal the queue's handler. Any thread, no lock needed. */
void virtio_kick(struct virtio_device *v, struct virtqueue *vq);
/* Run the handler here and now; without the lock. */
void virtio_kick_here(struct virtio_device *v, struct virtqueue *vq);
void virtio_kick_all(struct virtio_device *v);

/* State of the core; the device's table lists it, its queues (STATE_ARRAY_STRUCT of virtq_state) and calls
 * virtio_loaded() in post_load. */
extern const struct state_desc virtio_device_state;
int virtio_loaded(struct virtio_device *v, struct err *err);
