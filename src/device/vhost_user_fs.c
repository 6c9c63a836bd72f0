/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A host folder for the guest: virtio-fs (Virtio 1.2 §5.11), whose file system
 * is another process (virtiofsd) behind vhost-user.
 *
 * One thread of its own passes buffers on and back. `lock` guards queues, rings
 * and requests; that thread never takes the device's lock.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "device/vhost_user.h"
#include "device/virtio_pci.h"
#include "util/log.h"

#define FS_QUEUES 8       /* request queues */
#define QUEUES (FS_QUEUES + 1) /* the first one is for what cannot wait */
#define FS_QUEUE_SIZE 128
#define NO_FD UINT32_MAX

struct __attribute__((packed)) fs_config {
	char tag[36];
	uint32_t num_queues;
};

struct vhost_fs;

struct fs_req {
	struct virtq_elem elem;
	struct fs_req *next; /* free list */
};

struct fs_ring {
	struct vhost_fs *fs;
	unsigned index;
	struct loop_fd *watch; /* of its call event */
};

struct vhost_fs {
	struct virtio_pci proxy; /* begins with struct device */
	struct virtio_device v;
	struct virtqueue vq[QUEUES];
	struct fs_config config;

	/* Properties */
	char *tag, *socket;
	uint32_t fd, num_queues;

	struct loop *loop;
	pthread_t thread;
	struct fs_ring ring[QUEUES];
	struct loop_fd *hangup;

	pthread_mutex_t lock; /* the rest, and vq[] */
	pthread_cond_t idle;
	struct vhost_user *user;
	bool gone;            /* the other process is */
	bool started[QUEUES];
	struct fs_req *free;
};

static struct vhost_fs *fs_of(struct virtio_device *v)
{
	return (struct vhost_fs *)((uint8_t *)v - offsetof(struct vhost_fs, v));
}

/* ---- Requests; lock held ------------------------------------------------------------ */

static struct fs_req *req_get(struct vhost_fs *s)
{
	struct fs_req *req = s->free;

	if (req)
		s->free = req->next;
	else
		req = calloc(1, sizeof(*req));
	return req;
}

static void req_put(struct vhost_fs *s, struct fs_req *req)
{
	req->next = s->free;
	s->free = req;
}

/* Pass on what the guest has made available. */
static void run_queue(struct vhost_fs *s, struct virtqueue *vq)
{
	struct vhost_ring *r = vhost_user_ring(s->user, vq->index);
	bool added = false, full = false;

	if (!vq->enabled || !s->started[vq->index] || !virtio_may_run(&s->v))
		return;
	do {
		struct fs_req *req;

		virtq_ignore(vq);
		while (!full && (req = req_get(s)) && virtq_pop(vq, &req->elem) > 0) {
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

/* Nobody answers what is in flight. */
static void forget(struct vhost_fs *s, unsigned queue)
{
	struct vhost_ring *r = vhost_user_ring(s->user, queue);

	for (unsigned i = 0; i < VHOST_RING_SIZE; i++) {
		if (r->token[i])
			req_put(s, r->token[i]);
		r->token[i] = NULL;
	}
	r->inflight = 0;
}

static void lose(struct vhost_fs *s, const char *why)
{
	if (s->gone)
		return;
	s->gone = true;
	log_line(LOG_ERROR, "%s: the server of the shared folder '%s' %s", s->v.dev->id, s->tag, why);
	for (unsigned i = 0; i < s->v.nvq; i++) {
		s->started[i] = false;
		forget(s, i);
	}
	pthread_cond_broadcast(&s->idle);
	virtio_error(&s->v, "its server is gone");
}

/* Back to the guest what came back. */
static void ring_called(void *opaque, uint32_t events)
{
	struct fs_ring *ring = opaque;
	struct vhost_fs *s = ring->fs;
	struct vhost_ring *r = vhost_user_ring(s->user, ring->index);
	struct virtqueue *vq = &s->vq[ring->index];
	struct fs_req *req;
	uint64_t count;
	uint32_t len;
	int ret;

	if (read(r->call, &count, sizeof(count)) != sizeof(count))
		return;
	pthread_mutex_lock(&s->lock);
	while (s->started[ring->index] && (req = vhost_ring_take(r, &len, &ret))) {
		virtq_fill(vq, &req->elem, len < req->elem.in_len ? len : req->elem.in_len);
		req_put(s, req);
	}
	virtq_flush(vq);
	virtio_notify(&s->v, vq);
	if (s->started[ring->index] && ret)
		lose(s, "returned a buffer that it did not have");
	if (s->started[ring->index])
		run_queue(s, vq);
	if (!r->inflight)
		pthread_cond_broadcast(&s->idle);
	pthread_mutex_unlock(&s->lock);
}

static void server_gone(void *opaque, uint32_t events)
{
	struct vhost_fs *s = opaque;

	if (!(events & (EPOLLHUP | EPOLLERR)))
		return;
	pthread_mutex_lock(&s->lock);
	lose(s, "is gone");
	loop_fd_del(s->hangup);
	s->hangup = NULL;
	pthread_mutex_unlock(&s->lock);
}

/* ---- Device ----------------------------------------------------------------------------- */

static void fs_kick(struct virtio_device *v, struct virtqueue *vq)
{
	struct vhost_fs *s = fs_of(v);

	pthread_mutex_lock(&s->lock);
	run_queue(s, vq);
	pthread_mutex_unlock(&s->lock);
}

/* The driver is ready: the other process may work. */
static void start_rings(struct vhost_fs *s)
{
	struct err err = ERR_INIT;

	for (unsigned i = 0; i < s->v.nvq && !s->gone; i++) {
		if (!s->vq[i].enabled || s->started[i])
			continue;
		if (vhost_user_start(s->user, i, &err)) {
			lose(s, err_msg(&err));
			return;
		}
		s->started[i] = true;
	}
}

static void fs_ready(struct virtio_device *v)
{
	struct vhost_fs *s = fs_of(v);

	pthread_mutex_lock(&s->lock);
	if (s->gone)
		virtio_error(v, "its server is gone");
	else
		start_rings(s);
	pthread_mutex_unlock(&s->lock);
}

static void fs_queue_off(struct virtio_device *v, struct virtqueue *vq)
{
	struct vhost_fs *s = fs_of(v);

	pthread_mutex_lock(&s->lock);
	vq->enabled = false;
	if (s->started[vq->index]) {
		s->started[vq->index] = false;
		forget(s, vq->index);
		vhost_user_stop(s->user, vq->index);
	}
	pthread_mutex_unlock(&s->lock);
}

static bool busy(struct vhost_fs *s)
{
	for (unsigned i = 0; i < s->v.nvq; i++)
		if (s->started[i] && vhost_user_ring(s->user, i)->inflight)
			return true;
	return false;
}

static void fs_stopped(struct virtio_device *v, bool stopped)
{
	struct vhost_fs *s = fs_of(v);

	pthread_mutex_lock(&s->lock);
	while (stopped && busy(s))
		pthread_cond_wait(&s->idle, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

static const struct virtio_ops fs_ops = {
	.name = "virtio-fs",
	.id = VIRTIO_ID_FS,
	.own_lock = true,
	.ready = fs_ready,
	.kick = fs_kick,
	.queue_off = fs_queue_off,
	.stopped = fs_stopped,
};

static int connect_to(const char *path, struct err *err)
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
		int ret = err_set_errno(err, errno, "cannot connect to the server of the folder at %s", path);

		close(fd);
		return ret;
	}
	return fd;
}

static int check_props(struct vhost_fs *s, struct err *err)
{
	if (!s->tag || !*s->tag || strlen(s->tag) >= sizeof(s->config.tag))
		return err_set(err, EINVAL, "property tag must be a name of 1 to %zu bytes", sizeof(s->config.tag) - 1);
	if (!s->socket == (s->fd == NO_FD))
		return err_set(err, EINVAL, "one of the properties socket and fd is needed: a folder needs its server");
	return 0;
}

static void fs_destroy(struct vhost_fs *s)
{
	virtio_exit(&s->v);
	loop_free(s->loop);
	if (s->user)
		for (unsigned i = 0; i <= s->num_queues; i++)
			forget(s, i);
	vhost_user_free(s->user);
	while (s->free) {
		struct fs_req *req = s->free;

		s->free = req->next;
		virtq_elem_free(&req->elem);
		free(req);
	}
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->idle);
}

static int connect_server(struct vhost_fs *s, struct err *err)
{
	int fd = s->socket ? connect_to(s->socket, err) : (int)s->fd;

	if (fd < 0)
		return fd;
	s->user = vhost_user_new(fd, &s->v.dev->machine->mem, s->num_queues + 1, 0, err);
	if (!s->user)
		return -err->code;
	for (unsigned i = 0; i <= s->num_queues; i++) {
		s->ring[i] = (struct fs_ring){ .fs = s, .index = i };
		s->ring[i].watch = loop_fd_add(s->loop, vhost_user_ring(s->user, i)->call, EPOLLIN, ring_called, &s->ring[i], err);
		if (!s->ring[i].watch)
			return -err->code;
	}
	s->hangup = loop_fd_add(s->loop, vhost_user_fd(s->user), 0, server_gone, s, err);
	return s->hangup ? 0 : -err->code;
}

static int fs_realize(struct device *d, struct err *err)
{
	struct vhost_fs *s = (struct vhost_fs *)d;
	int ret = check_props(s, err);

	if (ret)
		return ret;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->idle, NULL);
	memcpy(s->config.tag, s->tag, strlen(s->tag));
	s->config.num_queues = s->num_queues;
	s->v.config = (uint8_t *)&s->config;
	s->v.config_size = sizeof(s->config);
	s->v.queue_lock = &s->lock;
	for (unsigned i = 0; i <= s->num_queues; i++)
		s->vq[i].max = FS_QUEUE_SIZE;
	s->loop = loop_new(err);
	ret = s->loop ? virtio_init(&s->v, &fs_ops, d, s->vq, s->num_queues + 1, s->loop, err) : -ENOMEM;
	if (!ret)
		ret = connect_server(s, err);
	if (!ret)
		ret = virtio_pci_realize(&s->proxy, &s->v, 0x018000, err);
	if (!ret) {
		ret = virtio_thread_start(&s->v, "fs", &s->thread, err);
		if (!ret)
			return 0;
		virtio_pci_unrealize(d);
	}
	fs_destroy(s);
	return ret;
}

static void fs_unrealize(struct device *d)
{
	struct vhost_fs *s = (struct vhost_fs *)d;

	virtio_pci_unrealize(d);
	virtio_thread_end(&s->v, s->thread);
	fs_destroy(s);
}

/* The other process knows what the guest has open, and no stream carries that. */
static int fs_loaded(void *obj, struct err *err)
{
	struct vhost_fs *s = obj;

	int ret = virtio_loaded(&s->v, err);

	if (!ret && s->v.status & VIRTIO_DRIVER_OK)
		ret = err_set(err, ENOTSUP, "the guest uses the shared folder '%s', whose server cannot take that over: unmount it first",
			      s->tag);
	return ret;
}

static const struct property fs_props[] = {
	VIRTIO_PCI_PROPS(struct vhost_fs),
	PROP_DEF_STRING(struct vhost_fs, tag, "tag", NULL, "what the guest mounts"),
	PROP_DEF_STRING(struct vhost_fs, socket, "socket", NULL, "path where its server listens for vhost-user"),
	PROP_DEF_U32(struct vhost_fs, fd, "fd", "4294967295", 0, 0, "or the number of a connected descriptor"),
	PROP_DEF_U32(struct vhost_fs, num_queues, "num-request-queues", "1", 1, FS_QUEUES, "request queues"),
	{ 0 },
};

static const struct state_field fs_fields[] = {
	STATE_FIELD_STRUCT(struct vhost_fs, proxy, &virtio_pci_state),
	STATE_FIELD_STRUCT(struct vhost_fs, v, &virtio_device_state),
	STATE_ARRAY_STRUCT(struct vhost_fs, vq, &virtq_state),
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
