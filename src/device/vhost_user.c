/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/vhost_user.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define TIMEOUT 10 /* seconds for an answer */
#define VERSION 1u
#define FLAG_REPLY 4u
#define F_PROTOCOL (1ull << 30)
#define PROTOCOL_MQ (1ull << 0)
#define PROTOCOL_CONFIG (1ull << 9)
#define CONFIG_MAX 256u

enum {
	GET_FEATURES = 1, SET_FEATURES = 2, SET_OWNER = 3, SET_MEM_TABLE = 5, SET_VRING_NUM = 8, SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10, GET_VRING_BASE = 11, SET_VRING_KICK = 12, SET_VRING_CALL = 13, GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES = 16, GET_QUEUE_NUM = 17, SET_VRING_ENABLE = 18, GET_CONFIG = 24,
};

struct header {
	uint32_t request, flags, size;
};
struct vring_state {
	uint32_t index, num;
};
struct vring_addr {
	uint32_t index, flags;
	uint64_t desc, used, avail, log;
};
struct memory_region {
	uint64_t gpa, size, address, offset;
};
struct memory_table {
	uint32_t n, padding;
	struct memory_region region[GUEST_MEM_REGIONS + 1];
};
struct config_space {
	uint32_t offset, size, flags;
	uint8_t bytes[CONFIG_MAX];
};
struct message {
	struct header h;
	union {
		uint64_t u64;
		struct vring_state state;
		struct vring_addr addr;
		struct memory_table memory;
		struct config_space config;
	};
};
#define HEADER_BYTES 12u
_Static_assert(sizeof(struct header) == HEADER_BYTES, "layout of a message");

/* Parts of a ring's memory. */
#define AVAIL_AT (16u * VHOST_RING_SIZE)
#define USED_AT (AVAIL_AT + 4096u)
#define RING_BYTES (USED_AT + 12288u)
/* Where our rings lie for the other process: above everything a guest has. */
#define RINGS_GPA (1ull << 52)

struct vhost_user {
	int fd, ring_fd;
	const struct guest_mem *mem;
	unsigned n;
	uint64_t features, protocol; /* agreed */
	bool has_protocol;
	uint8_t *rings;
	struct vhost_ring ring[VHOST_RINGS];
};

/* ---- Messages --------------------------------------------------------------------- */

static int send_message(struct vhost_user *u, struct message *m, uint32_t request, uint32_t size, const int *fds, unsigned nfds,
			struct err *err)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE((GUEST_MEM_REGIONS + 1) * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { m, HEADER_BYTES };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	uint8_t flat[HEADER_BYTES + sizeof(*m)];
	struct cmsghdr *c;

	m->h = (struct header){ request, VERSION, size };
	/* The union may be aligned: header and payload follow each other on the wire. */
	memcpy(flat, &m->h, HEADER_BYTES);
	memcpy(flat + HEADER_BYTES, &m->u64, size);
	iov = (struct iovec){ flat, HEADER_BYTES + size };
	if (nfds) {
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	if (sendmsg(u->fd, &msg, MSG_NOSIGNAL) != (ssize_t)iov.iov_len)
		return err_set(err, EIO, "the vhost-user back end is gone");
	return 0;
}

/* The answer to a request, of `size` bytes. */
static int receive_answer(struct vhost_user *u, struct message *m, uint32_t request, uint32_t size, struct err *err)
{
	uint8_t flat[HEADER_BYTES + sizeof(*m)];
	size_t have = 0;

	while (have < HEADER_BYTES + size) {
		ssize_t n = recv(u->fd, flat + have, HEADER_BYTES + size - have, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_set(err, n ? ETIMEDOUT : EIO, n ? "the vhost-user back end does not answer" :
				       "the vhost-user back end is gone");
		have += n;
	}
	memcpy(&m->h, flat, HEADER_BYTES);
	memcpy(&m->u64, flat + HEADER_BYTES, size);
	if (m->h.request != request || !(m->h.flags & FLAG_REPLY) || m->h.size != size)
		return err_set(err, EPROTO, "the vhost-user back end answered request %u with message %u of %u bytes", request,
			       m->h.request, m->h.size);
	return 0;
}

static int get_u64(struct vhost_user *u, uint32_t request, uint64_t *value, struct err *err)
{
	struct message m;
	int ret = send_message(u, &m, request, 0, NULL, 0, err);

	if (!ret)
		ret = receive_answer(u, &m, request, 8, err);
	if (!ret)
		*value = m.u64;
	return ret;
}

static int set_u64(struct vhost_user *u, uint32_t request, uint64_t value, struct err *err)
{
	struct message m = { .u64 = value };

	return send_message(u, &m, request, 8, NULL, 0, err);
}

static int set_state(struct vhost_user *u, uint32_t request, unsigned ring, uint32_t num, struct err *err)
{
	struct message m = { .state = { ring, num } };

	return send_message(u, &m, request, sizeof(m.state), NULL, 0, err);
}

static int set_event(struct vhost_user *u, uint32_t request, unsigned ring, int fd, struct err *err)
{
	struct message m = { .u64 = ring };

	return send_message(u, &m, request, 8, &fd, 1, err);
}

static int share_memory(struct vhost_user *u, struct err *err)
{
	struct message m = { 0 };
	int fds[GUEST_MEM_REGIONS + 1];
	unsigned n = 0;

	for (unsigned i = 0; i < u->mem->n; i++) {
		const struct guest_region *g = &u->mem->region[i];

		if (g->fd < 0)
			continue; /* ROM of its own: no buffer can be there */
		fds[n] = g->fd;
		m.memory.region[n++] = (struct memory_region){ g->gpa, g->size, (uintptr_t)g->hva, g->offset };
	}
	fds[n] = u->ring_fd;
	m.memory.region[n++] = (struct memory_region){ RINGS_GPA, (uint64_t)u->n * RING_BYTES, (uintptr_t)u->rings, 0 };
	m.memory.n = n;
	return send_message(u, &m, SET_MEM_TABLE, 8 + n * sizeof(m.memory.region[0]), fds, n, err);
}

/* ---- Life ----------------------------------------------------------------------------- */

static int agree_protocol(struct vhost_user *u, const struct vhost_wish *w, struct err *err)
{
	uint64_t have = 0, most;
	int ret = get_u64(u, GET_PROTOCOL_FEATURES, &have, err);

	u->protocol = have & ((w->config ? PROTOCOL_CONFIG : 0) | (w->rings > 1 ? PROTOCOL_MQ : 0));
	if (!ret)
		ret = set_u64(u, SET_PROTOCOL_FEATURES, u->protocol, err);
	if (!ret && u->protocol & PROTOCOL_MQ) {
		ret = get_u64(u, GET_QUEUE_NUM, &most, err);
		if (!ret && most < w->rings)
			ret = err_set(err, EINVAL, "the vhost-user back end has %llu queues, and %u are wanted",
				      (unsigned long long)most, w->rings);
	}
	return ret;
}

static int agree(struct vhost_user *u, const struct vhost_wish *w, struct err *err)
{
	uint64_t have = 0;
	int ret = get_u64(u, GET_FEATURES, &have, err);

	if (!ret && !(have & VIRTIO_F_VERSION_1))
		ret = err_set(err, ENOTSUP, "the vhost-user back end does not know Virtio 1");
	u->features = have & w->features;
	u->has_protocol = have & F_PROTOCOL;
	if (!ret && u->has_protocol)
		ret = agree_protocol(u, w, err);
	if (!ret && w->config && !(u->protocol & PROTOCOL_CONFIG))
		ret = err_set(err, ENOTSUP, "the vhost-user back end does not tell what it is (protocol feature CONFIG)");
	if (!ret) {
		struct message m;

		ret = send_message(u, &m, SET_OWNER, 0, NULL, 0, err);
	}
	if (!ret)
		ret = vhost_user_set_features(u, u->features, err);
	return ret ? ret : share_memory(u, err);
}

int vhost_user_set_features(struct vhost_user *u, uint64_t features, struct err *err)
{
	return set_u64(u, SET_FEATURES, (features & u->features) | VIRTIO_F_VERSION_1 | (u->has_protocol ? F_PROTOCOL : 0), err);
}

int vhost_user_config(struct vhost_user *u, void *config, uint32_t size, struct err *err)
{
	struct message m = { .config = { .size = size } };
	uint32_t bytes = offsetof(struct config_space, bytes) + size;
	int ret = size > CONFIG_MAX ? -EINVAL : send_message(u, &m, GET_CONFIG, bytes, NULL, 0, err);

	if (!ret)
		ret = receive_answer(u, &m, GET_CONFIG, bytes, err);
	if (!ret && m.config.size != size)
		ret = err_set(err, EPROTO, "the vhost-user back end has %u bytes of configuration, not %u", m.config.size, size);
	if (!ret)
		memcpy(config, m.config.bytes, size);
	return ret;
}

static int make_rings(struct vhost_user *u, struct err *err)
{
	u->ring_fd = memfd_create("keel-vhost", MFD_CLOEXEC);
	if (u->ring_fd < 0 || ftruncate(u->ring_fd, u->n * RING_BYTES))
		return err_set_errno(err, errno, "cannot make memory for vhost-user rings");
	u->rings = mmap(NULL, u->n * RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, u->ring_fd, 0);
	if (u->rings == MAP_FAILED) {
		u->rings = NULL;
		return err_set_errno(err, errno, "cannot map memory for vhost-user rings");
	}
	for (unsigned i = 0; i < u->n; i++) {
		struct vhost_ring *r = &u->ring[i];

		r->index = i;
		r->mem = u->rings + i * RING_BYTES;
		r->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		r->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (r->kick < 0 || r->call < 0)
			return err_set_errno(err, errno, "cannot make an event for a vhost-user ring");
	}
	return 0;
}

struct vhost_user *vhost_user_new(int fd, const struct guest_mem *mem, const struct vhost_wish *w, struct err *err)
{
	struct vhost_user *u = calloc(1, sizeof(*u));
	struct timeval limit = { TIMEOUT, 0 };

	if (!u || w->rings > VHOST_RINGS) {
		free(u);
		close(fd);
		err_set(err, u ? EINVAL : ENOMEM, "no memory for a vhost-user device");
		return NULL;
	}
	u->fd = fd;
	u->ring_fd = -1;
	u->mem = mem;
	u->n = w->rings;
	for (unsigned i = 0; i < u->n; i++)
		u->ring[i].kick = u->ring[i].call = -1;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (make_rings(u, err) || agree(u, w, err)) {
		vhost_user_free(u);
		return NULL;
	}
	return u;
}

void vhost_user_free(struct vhost_user *u)
{
	if (!u)
		return;
	close(u->fd);
	for (unsigned i = 0; i < u->n; i++) {
		if (u->ring[i].kick >= 0)
			close(u->ring[i].kick);
		if (u->ring[i].call >= 0)
			close(u->ring[i].call);
	}
	if (u->rings)
		munmap(u->rings, u->n * RING_BYTES);
	if (u->ring_fd >= 0)
		close(u->ring_fd);
	free(u);
}

int vhost_user_fd(const struct vhost_user *u)
{
	return u->fd;
}

uint64_t vhost_user_features(const struct vhost_user *u)
{
	return u->features;
}

struct vhost_ring *vhost_user_ring(struct vhost_user *u, unsigned i)
{
	return &u->ring[i];
}

/* ---- Rings ------------------------------------------------------------------------------- */

static void ring_clear(struct vhost_ring *r)
{
	memset(r->mem, 0, RING_BYTES);
	memset(r->token, 0, sizeof(r->token));
	r->free_head = r->avail = r->used = 0;
	r->nfree = VHOST_RING_SIZE;
	r->inflight = 0;
	for (unsigned i = 0; i < VHOST_RING_SIZE; i++)
		r->next[i] = i + 1;
}

int vhost_user_start(struct vhost_user *u, unsigned ring, struct err *err)
{
	struct vhost_ring *r = &u->ring[ring];
	struct message m = { 0 };
	uint64_t count;
	int ret;

	ring_clear(r);
	if (read(r->call, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return err_set_errno(err, errno, "cannot read an event");
	m.addr = (struct vring_addr){ .index = ring, .desc = (uintptr_t)r->mem, .avail = (uintptr_t)r->mem + AVAIL_AT,
				      .used = (uintptr_t)r->mem + USED_AT };
	ret = set_state(u, SET_VRING_NUM, ring, VHOST_RING_SIZE, err);
	if (!ret)
		ret = set_state(u, SET_VRING_BASE, ring, 0, err);
	if (!ret)
		ret = send_message(u, &m, SET_VRING_ADDR, sizeof(m.addr), NULL, 0, err);
	if (!ret)
		ret = set_event(u, SET_VRING_CALL, ring, r->call, err);
	if (!ret)
		ret = set_event(u, SET_VRING_KICK, ring, r->kick, err);
	return ret ? ret : set_state(u, SET_VRING_ENABLE, ring, 1, err);
}

void vhost_user_stop(struct vhost_user *u, unsigned ring)
{
	struct message m = { .state = { ring, 0 } };

	/* Whoever is gone does nothing either. */
	if (!send_message(u, &m, GET_VRING_BASE, sizeof(m.state), NULL, 0, NULL))
		receive_answer(u, &m, GET_VRING_BASE, sizeof(m.state), NULL);
	ring_clear(&u->ring[ring]);
}

static struct virtq_desc *desc_at(struct vhost_ring *r, unsigned i)
{
	return (struct virtq_desc *)r->mem + i;
}

bool vhost_ring_add(struct vhost_ring *r, const struct virtq_elem *e, void *token)
{
	unsigned n = e->nout + e->nin;
	uint16_t head = r->free_head, i = head;
	uint8_t *avail = r->mem + AVAIL_AT;

	if (!n || n > r->nfree)
		return false;
	for (unsigned k = 0; k < n; k++) {
		struct virtq_desc *d = desc_at(r, i);

		d->addr = e->seg[k].gpa;
		d->len = e->seg[k].len;
		d->split.flags = (k >= e->nout ? VIRTQ_DESC_WRITE : 0) | (k + 1 < n ? VIRTQ_DESC_NEXT : 0);
		d->split.next = r->next[i];
		i = r->next[i];
	}
	r->free_head = i;
	r->nfree -= n;
	r->count[head] = n;
	r->token[head] = token;
	r->inflight++;
	virtq_store16(avail + 4 + 2 * (r->avail % VHOST_RING_SIZE), head);
	r->avail++;
	virtq_store16(avail + 2, r->avail);
	return true;
}

void vhost_ring_kick(struct vhost_ring *r)
{
	uint64_t one = 1;

	/* §2.7.10: what was made available first, then the look at whether it wants to know. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!(virtq_load16(r->mem + USED_AT) & 1) && write(r->kick, &one, sizeof(one)) < 0)
		return; /* a full counter is an event all the same */
}

void *vhost_ring_take(struct vhost_ring *r, uint32_t *len, int *ret)
{
	const uint8_t *used = r->mem + USED_AT, *entry = used + 4 + 8 * (r->used % VHOST_RING_SIZE);
	uint32_t id;
	void *token;
	uint16_t i;

	*ret = 0;
	if (virtq_load16(used + 2) == r->used)
		return NULL;
	memcpy(&id, entry, 4);
	memcpy(len, entry + 4, 4);
	token = id < VHOST_RING_SIZE ? r->token[id] : NULL;
	if (!token) {
		*ret = -EPROTO;
		return NULL;
	}
	r->used++;
	r->token[id] = NULL;
	r->inflight--;
	/* The chain goes back in front of the free ones. */
	i = id;
	for (unsigned k = 1; k < r->count[id]; k++)
		i = r->next[i];
	r->next[i] = r->free_head;
	r->free_head = id;
	r->nfree += r->count[id];
	return token;
}
