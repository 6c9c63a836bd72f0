/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/virtio.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "util/log.h"
#include "util/threads.h"

/* ---- Kicks --------------------------------------------------------------- */

bool virtio_may_run(const struct virtio_device *v)
{
	uint8_t status = __atomic_load_n(&v->status, __ATOMIC_ACQUIRE);

	return (status & (VIRTIO_DRIVER_OK | VIRTIO_NEEDS_RESET)) == VIRTIO_DRIVER_OK &&
	       !__atomic_load_n(&v->stopped, __ATOMIC_ACQUIRE) && v->transport->may_dma((struct virtio_device *)v);
}

void virtio_kick_here(struct virtio_device *v, struct virtqueue *vq)
{
	if (v->ops->own_lock) {
		v->ops->kick(v, vq);
		return;
	}
	pthread_mutex_lock(&v->dev->lock);
	if (vq->enabled && virtio_may_run(v))
		v->ops->kick(v, vq);
	pthread_mutex_unlock(&v->dev->lock);
}

static void kick_event(void *opaque, uint32_t events)
{
	struct virtio_kick *k = opaque;
	uint64_t count;

	if (read(k->fd, &count, sizeof(count)) == sizeof(count))
		virtio_kick_here(k->v, k->vq);
}

/* In the thread of the queue's loop. */
static void watch_kick(void *arg)
{
	struct virtio_kick *k = arg;

	k->watch = loop_fd_add(k->v->loops ? k->v->loops[k->vq->index] : k->v->loop, k->fd, EPOLLIN, kick_event, k, k->err);
}

static void unwatch_kick(void *arg)
{
	loop_fd_del(((struct virtio_kick *)arg)->watch);
}

void virtio_kick(struct virtio_device *v, struct virtqueue *vq)
{
	uint64_t one = 1;

	/* A counter that is full is signalled all the same. */
	if (write(v->kick[vq->index].fd, &one, sizeof(one)) < 0)
		return;
}

void virtio_kick_all(struct virtio_device *v)
{
	for (unsigned i = 0; i < v->nvq; i++)
		if (v->vq[i].enabled)
			virtio_kick(v, &v->vq[i]);
}

/* ---- Interrupts and errors ----------------------------------------------- */

void virtio_notify(struct virtio_device *v, struct virtqueue *vq)
{
	if (virtq_should_interrupt(vq))
		v->transport->interrupt(v, vq);
}

void virtio_config_changed(struct virtio_device *v)
{
	__atomic_add_fetch(&v->generation, 1, __ATOMIC_RELEASE);
	if (__atomic_load_n(&v->status, __ATOMIC_ACQUIRE) & VIRTIO_DRIVER_OK)
		v->transport->config_interrupt(v);
}

void virtio_error(struct virtio_device *v, const char *fmt, ...)
{
	char text[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_guest(v->dev->id, "%s; the device waits for a reset", text);
	__atomic_or_fetch(&v->status, VIRTIO_NEEDS_RESET, __ATOMIC_RELEASE);
	virtio_config_changed(v); /* §2.1.2 */
}

static void queue_broken(struct virtqueue *vq, const char *why)
{
	virtio_error(vq->opaque, "queue %u: %s", vq->index, why);
}

/* ---- Life ---------------------------------------------------------------- */

int virtio_init(struct virtio_device *v, const struct virtio_ops *ops, struct device *dev, struct virtqueue *vq,
		unsigned nvq, struct loop *loop, struct err *err)
{
	v->ops = ops;
	v->dev = dev;
	v->vq = vq;
	v->loop = loop;
	v->stopped = dev->machine->state != MACHINE_RUNNING;
	v->kick = calloc(nvq, sizeof(v->kick[0]));
	if (!v->kick)
		return err_set(err, ENOMEM, "no memory for queues");
	v->nvq = nvq;
	for (unsigned i = 0; i < nvq; i++)
		v->kick[i].fd = -1;
	for (unsigned i = 0; i < nvq; i++) {
		struct virtio_kick *k = &v->kick[i];

		vq[i].mem = &dev->machine->mem;
		vq[i].broken_fn = queue_broken;
		vq[i].opaque = v;
		vq[i].index = i;
		virtq_reset(&vq[i]);
		k->v = v;
		k->vq = &vq[i];
		k->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (k->fd < 0) {
			int ret = err_set_errno(err, errno, "cannot make an event for a queue");

			virtio_exit(v);
			return ret;
		}
		k->err = err;
		loop_call(v->loops ? v->loops[i] : loop, watch_kick, k);
		if (!k->watch) {
			virtio_exit(v);
			return -ENOMEM;
		}
	}
	v->offered = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_RING_PACKED |
		     VIRTIO_F_RING_RESET | (ops->features ? ops->features(v) : 0);
	return 0;
}

void virtio_exit(struct virtio_device *v)
{
	for (unsigned i = 0; i < v->nvq; i++) {
		if (v->kick[i].watch)
			loop_call(v->loops ? v->loops[i] : v->loop, unwatch_kick, &v->kick[i]);
		if (v->kick[i].fd >= 0)
			close(v->kick[i].fd);
	}
	free(v->kick);
	v->kick = NULL;
	v->nvq = 0;
}

static void *device_thread(void *arg)
{
	struct virtio_device *v = arg;

	thread_begin(THREAD_IO);
	loop_run(v->loop);
	return NULL;
}

int virtio_thread_start(struct virtio_device *v, const char *kind, pthread_t *thread, struct err *err)
{
	int ret = pthread_create(thread, NULL, device_thread, v);
	char name[16];

	if (ret)
		return err_set_errno(err, ret, "cannot make a thread for its I/O");
	snprintf(name, sizeof(name), "%.3s:%.11s", kind, v->dev->id);
	pthread_setname_np(*thread, name);
	return 0;
}

void virtio_thread_end(struct virtio_device *v, pthread_t thread)
{
	loop_quit(v->loop, 0);
	pthread_join(thread, NULL);
}

/* Another thread may be looking at the queue. */
static pthread_mutex_t *lock_of(const struct virtio_device *v, const struct virtqueue *vq)
{
	return v->queue_locks ? v->queue_locks[vq->index] : v->queue_lock;
}

static void queue_lock(struct virtio_device *v, struct virtqueue *vq)
{
	if (lock_of(v, vq))
		pthread_mutex_lock(lock_of(v, vq));
}

static void queue_unlock(struct virtio_device *v, struct virtqueue *vq)
{
	if (lock_of(v, vq))
		pthread_mutex_unlock(lock_of(v, vq));
}

void virtio_queue_reset(struct virtio_device *v, struct virtqueue *vq)
{
	if (vq->enabled) {
		v->transport->doorbell(v, vq, false);
		if (v->ops->queue_off)
			v->ops->queue_off(v, vq);
	}
	queue_lock(v, vq);
	virtq_reset(vq);
	queue_unlock(v, vq);
}

void virtio_reset(struct virtio_device *v)
{
	/* First: nobody starts anything new. */
	__atomic_store_n(&v->status, 0, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < v->nvq; i++)
		virtio_queue_reset(v, &v->vq[i]);
	if (v->ops->reset)
		v->ops->reset(v);
	v->features = 0;
	/* An error of a thread that was still at it is over with the reset. */
	__atomic_store_n(&v->status, 0, __ATOMIC_RELEASE);
}

void virtio_set_stopped(struct virtio_device *v, bool stopped)
{
	__atomic_store_n(&v->stopped, stopped, __ATOMIC_RELEASE);
	if (v->ops->stopped)
		v->ops->stopped(v, stopped);
	/* Doorbells that rang while it stood still, and those from before a state was loaded. */
	if (!stopped)
		virtio_kick_all(v);
}

/* ---- What the driver does ------------------------------------------------ */

static bool features_ok(struct virtio_device *v)
{
	return !(v->features & ~v->offered) && virtio_has(v, VIRTIO_F_VERSION_1) &&
	       (!v->ops->accept || v->ops->accept(v));
}

void virtio_set_status(struct virtio_device *v, uint8_t status)
{
	uint8_t old = __atomic_load_n(&v->status, __ATOMIC_ACQUIRE), new;

	if (!status) {
		virtio_reset(v);
		return;
	}
	/* The driver must not clear bits (§2.1.1); one that does gets what it set. NEEDS_RESET is not its to change. */
	new = (status & ~VIRTIO_NEEDS_RESET) & ~old;
	if (new & VIRTIO_FEATURES_OK && !features_ok(v)) {
		log_guest(v->dev->id, "the driver's features 0x%llx are refused", (unsigned long long)v->features);
		new &= ~VIRTIO_FEATURES_OK;
	}
	if (new & VIRTIO_DRIVER_OK && !((old | new) & VIRTIO_FEATURES_OK))
		new &= ~VIRTIO_DRIVER_OK;
	__atomic_or_fetch(&v->status, new, __ATOMIC_RELEASE);
	if (new & VIRTIO_DRIVER_OK) {
		if (v->ops->ready)
			v->ops->ready(v);
		virtio_kick_all(v);
	}
}

void virtio_set_features(struct virtio_device *v, unsigned half, uint32_t value)
{
	if (half > 1 || v->status & VIRTIO_FEATURES_OK)
		return;
	v->features &= ~(0xffffffffull << (32 * half));
	v->features |= (uint64_t)value << (32 * half);
}

void virtio_queue_set_size(struct virtio_device *v, struct virtqueue *vq, uint16_t size)
{
	if (vq->enabled || !size || size > vq->max)
		return;
	vq->size = size;
}

bool virtio_queue_enable(struct virtio_device *v, struct virtqueue *vq)
{
	int ret;

	if (vq->enabled || !(v->status & VIRTIO_FEATURES_OK))
		return vq->enabled;
	queue_lock(v, vq);
	vq->features = v->features & (VIRTIO_F_RING_PACKED | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC);
	ret = virtq_enable(vq);
	queue_unlock(v, vq);
	if (ret) {
		virtio_error(v, "queue %u: %s", vq->index,
			     ret == -EINVAL ? "impossible size" : "its ring lies outside of memory or is not aligned");
		return false;
	}
	v->transport->doorbell(v, vq, true);
	if (v->status & VIRTIO_DRIVER_OK) /* back after a reset of this queue */
		virtio_kick(v, vq);
	return true;
}

/* ---- State --------------------------------------------------------------- */

int virtio_loaded(struct virtio_device *v, struct err *err)
{
	int ret = 0;

	/* Before FEATURES_OK they are merely what the driver wrote. */
	if (v->status & VIRTIO_FEATURES_OK && v->features & ~v->offered)
		ret = err_set(err, EINVAL, "it uses features 0x%llx that this device does not offer",
			      (unsigned long long)(v->features & ~v->offered));
	for (unsigned i = 0; i < v->nvq; i++) {
		struct virtqueue *vq = &v->vq[i];

		vq->features = v->features & (VIRTIO_F_RING_PACKED | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC);
		if (ret)
			vq->enabled = false;
		else
			ret = virtq_resume(vq, err);
		v->transport->doorbell(v, vq, vq->enabled);
	}
	return ret;
}

static const struct state_field virtio_fields[] = {
	STATE_FIELD_U64(struct virtio_device, features),
	STATE_FIELD_U8(struct virtio_device, status),
	STATE_FIELD_U8(struct virtio_device, generation),
	STATE_END,
};
const struct state_desc virtio_device_state = { .name = "virtio", .version = 1, .fields = virtio_fields };
