/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/vhost_user_dev.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "util/log.h"

static struct vhost_dev *dev_of(struct virtio_device *v)
{
	return (struct vhost_dev *)((uint8_t *)v - offsetof(struct vhost_dev, v));
}

/* ---- Requests; lock held ------------------------------------------------------------ */

static struct vhost_req *req_get(struct vhost_dev *s)
{
	struct vhost_req *req = s->free;

	if (req)
		s->free = req->next;
	else
		req = calloc(1, sizeof(*req));
	return req;
}

static void req_put(struct vhost_dev *s, struct vhost_req *req)
{
	req->next = s->free;
	s->free = req;
}

/* Pass on what the guest has made available. */
static void run_queue(struct vhost_dev *s, struct virtqueue *vq)
{
	struct vhost_ring *r;
	bool added = false, full = false;

	if (!vq->enabled || !s->started[vq->index] || !virtio_may_run(&s->v))
		return;
	r = vhost_user_ring(s->user, vq->index);
	do {
		struct vhost_req *req;

		virtq_ignore(vq);
		while (!full && (req = req_get(s)) && virtq_pop(vq, &req->elem) > 0) {
			req->vq = vq;
			full = !vhost_ring_add(r, &req->elem, req);
			if (full)
				break;
			added = true;
			req = NULL;
		}
		/* What comes back makes room; with nothing on its way this one never fits. */
		if (full && r->inflight)
			virtq_unpop(vq, &req->elem);
		else if (full)
			virtio_error(&s->v, "a request of %u buffers, more than can be passed on", req->elem.nout + req->elem.nin);
		if (req)
			req_put(s, req);
	} while (!full && virtq_wait(vq));
	if (added)
		vhost_ring_kick(r);
}

/* Nobody answers what is in flight: it is forgotten, or kept for somebody else. */
static void forget(struct vhost_dev *s, unsigned queue, bool keep)
{
	struct vhost_ring *r = vhost_user_ring(s->user, queue);

	for (unsigned i = 0; i < VHOST_RING_SIZE; i++) {
		struct vhost_req *req = r->token[i];

		r->token[i] = NULL;
		if (!req)
			continue;
		if (keep) {
			req->next = s->waiting;
			s->waiting = req;
		} else {
			req_put(s, req);
		}
	}
	r->inflight = 0;
}

static void forget_waiting(struct vhost_dev *s, const struct virtqueue *vq)
{
	struct vhost_req **p = &s->waiting, *req;

	while ((req = *p)) {
		if (vq && req->vq != vq) {
			p = &req->next;
			continue;
		}
		*p = req->next;
		req_put(s, req);
	}
}

/* The thread: `user` is looked at no more. */
static void unwatch(struct vhost_dev *s)
{
	for (unsigned i = 0; i < s->v.nvq; i++) {
		loop_fd_del(s->ring[i].watch);
		s->ring[i].watch = NULL;
	}
	loop_fd_del(s->hangup);
	s->hangup = NULL;
}

/* Whatever it told that was wrong is told by a new one, too: only one that went is awaited. */
static void lose(struct vhost_dev *s, bool went, const char *why)
{
	bool await = went && s->reconnect && s->socket;

	if (s->gone || !s->user)
		return;
	log_line(LOG_ERROR, "%s: %s %s%s", s->v.dev->id, s->what, why, await ? "; a new one is awaited" : "");
	for (unsigned i = 0; i < s->v.nvq; i++) {
		s->started[i] = false;
		forget(s, i, await);
	}
	pthread_cond_broadcast(&s->idle);
	if (!await) {
		s->gone = true;
		virtio_error(&s->v, "its server is gone");
	}
}

/* Back to the guest what came back. */
static void ring_called(void *opaque, uint32_t events)
{
	struct vhost_dev_ring *ring = opaque;
	struct vhost_dev *s = ring->dev;
	struct virtqueue *vq = &s->vq[ring->index];
	struct vhost_ring *r;
	struct vhost_req *req;
	uint64_t count;
	uint32_t len;
	int ret = 0;

	pthread_mutex_lock(&s->lock);
	r = s->user ? vhost_user_ring(s->user, ring->index) : NULL;
	if (!r || read(r->call, &count, sizeof(count)) != sizeof(count)) {
		pthread_mutex_unlock(&s->lock);
		return;
	}
	while (s->started[ring->index] && (req = vhost_ring_take(r, &len, &ret))) {
		virtq_fill(vq, &req->elem, len < req->elem.in_len ? len : req->elem.in_len);
		req_put(s, req);
	}
	virtq_flush(vq);
	virtio_notify(&s->v, vq);
	if (s->started[ring->index] && ret)
		lose(s, false, "returned a buffer that it did not have");
	if (s->started[ring->index])
		run_queue(s, vq);
	if (!r->inflight)
		pthread_cond_broadcast(&s->idle);
	pthread_mutex_unlock(&s->lock);
}

static void try_later(struct vhost_dev *s)
{
	timer_arm(s->again, monotonic_ns() + s->reconnect * 1000000000ull);
}

static void server_gone(void *opaque, uint32_t events)
{
	struct vhost_dev *s = opaque;
	struct vhost_user *old;

	if (!(events & (EPOLLHUP | EPOLLERR)))
		return;
	pthread_mutex_lock(&s->lock);
	lose(s, true, "is gone");
	unwatch(s);
	/* Rings of a device that is not used any more are still asked for. */
	old = s->gone ? NULL : s->user;
	if (old)
		s->user = NULL;
	pthread_mutex_unlock(&s->lock);
	vhost_user_free(old);
	if (old)
		try_later(s);
}

/* ---- Connections ----------------------------------------------------------------------- */

/* The driver is ready: the other process may work. Lock held. */
static void start_rings(struct vhost_dev *s)
{
	struct err err = ERR_INIT;

	for (unsigned i = 0; i < s->v.nvq && s->user && !s->gone; i++) {
		if (!s->vq[i].enabled || s->started[i])
			continue;
		if (vhost_user_start(s->user, i, &err)) {
			lose(s, true, err_msg(&err));
			return;
		}
		s->started[i] = true;
	}
}

static int watch(struct vhost_dev *s, struct err *err)
{
	for (unsigned i = 0; i < s->wish.rings; i++) {
		s->ring[i] = (struct vhost_dev_ring){ .dev = s, .index = i };
		s->ring[i].watch = loop_fd_add(s->loop, vhost_user_ring(s->user, i)->call, EPOLLIN, ring_called, &s->ring[i], err);
		if (!s->ring[i].watch)
			return -err->code;
	}
	s->hangup = loop_fd_add(s->loop, vhost_user_fd(s->user), 0, server_gone, s, err);
	return s->hangup ? 0 : -err->code;
}

static int connect_to(const char *path, const char *what, struct err *err)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(a.sun_path))
		return err_set(err, ENAMETOOLONG, "the path of the socket %s is too long", path);
	strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set_errno(err, errno, "cannot make a socket");
	if (connect(fd, (struct sockaddr *)&a, sizeof(a))) {
		int ret = err_set_errno(err, errno, "cannot connect to %s at %s", what, path);

		close(fd);
		return ret;
	}
	return fd;
}

static struct vhost_user *reach(struct vhost_dev *s, void *config, struct err *err)
{
	int fd = s->socket ? connect_to(s->socket, s->what, err) : (int)s->fd;
	struct vhost_user *u;

	if (fd < 0)
		return NULL;
	u = vhost_user_new(fd, &s->v.dev->machine->mem, &s->wish, err);
	if (u && s->wish.config && vhost_user_config(u, config, s->wish.config, err)) {
		vhost_user_free(u);
		return NULL;
	}
	return u;
}

/* What was in flight, to the new process. Lock held. */
static void send_again(struct vhost_dev *s)
{
	struct vhost_req *list = s->waiting, *req;

	s->waiting = NULL;
	while ((req = list)) {
		list = req->next;
		if (!s->started[req->vq->index] || !vhost_ring_add(vhost_user_ring(s->user, req->vq->index), &req->elem, req))
			req_put(s, req);
	}
	for (unsigned i = 0; i < s->v.nvq; i++) {
		if (!s->started[i])
			continue;
		vhost_ring_kick(vhost_user_ring(s->user, i));
		run_queue(s, &s->vq[i]);
	}
}

static void try_again(void *opaque)
{
	struct vhost_dev *s = opaque;
	struct err err = ERR_INIT;
	struct vhost_user *u;

	if (__atomic_load_n(&s->v.stopped, __ATOMIC_ACQUIRE)) {
		try_later(s);
		return;
	}
	u = reach(s, s->found, &err);
	if (!u) {
		try_later(s);
		return;
	}
	if (s->v.features & s->wish.features & ~vhost_user_features(u))
		err_set(&err, ENOTSUP, "lacks features that the guest uses");
	else if (s->wish.config && memcmp(s->found, s->config, s->wish.config))
		err_set(&err, ENOTSUP, "has another configuration than the one before");
	pthread_mutex_lock(&s->lock);
	s->user = u;
	if (!err.code && watch(s, &err) == 0 && s->v.status & VIRTIO_DRIVER_OK)
		(void)vhost_user_set_features(u, s->v.features, &err);
	if (err.code) {
		lose(s, false, err_msg(&err));
	} else {
		log_line(LOG_WARN, "%s: %s is back", s->v.dev->id, s->what);
		if (virtio_may_run(&s->v))
			start_rings(s);
		send_again(s);
	}
	pthread_mutex_unlock(&s->lock);
}

/* ---- Device ----------------------------------------------------------------------------- */

void vhost_dev_kick(struct virtio_device *v, struct virtqueue *vq)
{
	struct vhost_dev *s = dev_of(v);

	pthread_mutex_lock(&s->lock);
	run_queue(s, vq);
	pthread_mutex_unlock(&s->lock);
}

void vhost_dev_ready(struct virtio_device *v)
{
	struct vhost_dev *s = dev_of(v);
	struct err err = ERR_INIT;

	pthread_mutex_lock(&s->lock);
	if (s->gone)
		virtio_error(v, "its server is gone");
	else if (s->user && vhost_user_set_features(s->user, v->features, &err))
		lose(s, true, err_msg(&err));
	else
		start_rings(s);
	pthread_mutex_unlock(&s->lock);
}

void vhost_dev_queue_off(struct virtio_device *v, struct virtqueue *vq)
{
	struct vhost_dev *s = dev_of(v);

	pthread_mutex_lock(&s->lock);
	vq->enabled = false;
	if (s->started[vq->index]) {
		s->started[vq->index] = false;
		forget(s, vq->index, false);
		vhost_user_stop(s->user, vq->index);
	}
	forget_waiting(s, vq);
	pthread_mutex_unlock(&s->lock);
}

static bool busy(struct vhost_dev *s)
{
	for (unsigned i = 0; i < s->v.nvq; i++)
		if (s->started[i] && vhost_user_ring(s->user, i)->inflight)
			return true;
	return false;
}

void vhost_dev_stopped(struct virtio_device *v, bool stopped)
{
	struct vhost_dev *s = dev_of(v);

	pthread_mutex_lock(&s->lock);
	while (stopped && busy(s))
		pthread_cond_wait(&s->idle, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

static void destroy(struct vhost_dev *s)
{
	virtio_exit(&s->v);
	if (s->user)
		for (unsigned i = 0; i < s->wish.rings; i++)
			forget(s, i, false);
	forget_waiting(s, NULL);
	vhost_user_free(s->user);
	s->user = NULL;
	timer_free(s->again);
	s->again = NULL;
	loop_free(s->loop);
	s->loop = NULL;
	while (s->free) {
		struct vhost_req *req = s->free;

		s->free = req->next;
		virtq_elem_free(&req->elem);
		free(req);
	}
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->idle);
}

static int set_up(struct vhost_dev *s, const struct virtio_ops *ops, struct device *d, struct err *err)
{
	int ret;

	s->loop = loop_new(err);
	if (!s->loop)
		return -ENOMEM;
	s->again = timer_new(s->loop, try_again, s);
	if (!s->again)
		return err_set(err, ENOMEM, "no memory for a timer");
	/* What is offered depends on who is there. */
	s->v.dev = d;
	s->user = reach(s, s->config, err);
	if (!s->user)
		return -err->code;
	ret = virtio_init(&s->v, ops, d, s->vq, s->wish.rings, s->loop, err);
	return ret ? ret : watch(s, err);
}

int vhost_dev_realize(struct vhost_dev *s, struct virtio_pci *proxy, const struct virtio_ops *ops, uint32_t pci_class,
		      struct err *err)
{
	struct device *d = (struct device *)proxy;
	int ret;

	if (!s->socket == (s->fd == VHOST_NO_FD))
		return err_set(err, EINVAL, "one of the properties socket and fd is needed, for the way to %s", s->what);
	if (s->reconnect && !s->socket)
		return err_set(err, EINVAL, "property reconnect needs a socket");
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->idle, NULL);
	s->v.queue_lock = &s->lock;
	for (unsigned i = 0; i < s->wish.rings; i++)
		s->vq[i].max = s->queue_size;
	ret = set_up(s, ops, d, err);
	if (!ret)
		ret = virtio_pci_realize(proxy, &s->v, pci_class, err);
	if (!ret) {
		ret = virtio_thread_start(&s->v, "vho", &s->thread, err);
		if (!ret)
			return 0;
		virtio_pci_unrealize(d);
	}
	destroy(s);
	return ret;
}

void vhost_dev_unrealize(struct vhost_dev *s, struct virtio_pci *proxy)
{
	virtio_pci_unrealize((struct device *)proxy);
	virtio_thread_end(&s->v, s->thread);
	destroy(s);
}
