/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fake_vhost.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define RINGS 16
#define REGIONS 9

struct backend {
	int fd;
	uint32_t len;
	struct {
		uint64_t address, size;
		uint8_t *at;
	} region[REGIONS];
	unsigned nregions;
	struct ring {
		uint32_t size;
		uint8_t *avail, *used;
		uint16_t seen;
		int kick, call;
		bool on;
	} ring[RINGS];
};

static uint8_t *translate(struct backend *b, uint64_t address)
{
	for (unsigned i = 0; i < b->nregions; i++)
		if (address - b->region[i].address < b->region[i].size)
			return b->region[i].at + (address - b->region[i].address);
	abort();
}

static void forget_memory(struct backend *b)
{
	for (unsigned i = 0; i < b->nregions; i++)
		munmap(b->region[i].at, b->region[i].size);
	b->nregions = 0;
}

static void set_memory(struct backend *b, const uint8_t *p, const int *fds, unsigned nfds)
{
	uint32_t n;

	memcpy(&n, p, 4);
	assert(n == nfds && n <= REGIONS);
	forget_memory(b);
	for (unsigned i = 0; i < n; i++) {
		uint64_t r[4]; /* guest address, size, user address, offset */

		memcpy(r, p + 8 + 32 * i, 32);
		b->region[i].address = r[2];
		b->region[i].size = r[1];
		b->region[i].at = mmap(NULL, r[1], PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], r[3]);
		assert(b->region[i].at != MAP_FAILED);
		close(fds[i]);
	}
	b->nregions = n;
}

static void set_event(int *to, int fd)
{
	if (*to >= 0)
		close(*to);
	*to = fd;
}

static void serve(struct backend *b, struct ring *r)
{
	uint16_t *avail = (uint16_t *)r->avail, *used = (uint16_t *)r->used, idx;
	uint64_t count, one = 1;

	if (read(r->kick, &count, 8) != 8)
		return;
	while (r->seen != (idx = __atomic_load_n(&avail[1], __ATOMIC_ACQUIRE))) {
		uint32_t entry[2] = { avail[2 + r->seen % r->size], b->len };

		memcpy(r->used + 4 + 8 * (used[1] % r->size), entry, 8);
		r->seen++;
		__atomic_store_n(&used[1], used[1] + 1, __ATOMIC_RELEASE);
	}
	assert(write(r->call, &one, 8) == 8);
}

static void reply(struct backend *b, const uint32_t head[3], const void *payload, uint32_t size)
{
	uint8_t m[96];
	uint32_t h[3] = { head[0], 5, size };

	memcpy(m, h, 12);
	memcpy(m + 12, payload, size);
	assert(send(b->fd, m, 12 + size, MSG_NOSIGNAL) >= 0 || errno == EPIPE);
}

static void handle(struct backend *b, const uint32_t head[3], const uint8_t *p, const int *fds, unsigned nfds)
{
	uint64_t value;
	uint32_t state[2];
	struct ring *r;

	memcpy(&value, p, 8);
	memcpy(state, p, 8);
	r = &b->ring[state[0] % RINGS];
	switch (head[0]) {
	case 1: /* GET_FEATURES: VERSION_1, PROTOCOL_FEATURES */
		value = 1ull << 32 | 1 << 30;
		reply(b, head, &value, 8);
		break;
	case 5:
		set_memory(b, p, fds, nfds);
		break;
	case 8:
		r->size = state[1];
		break;
	case 9: {
		uint64_t a[3];

		memcpy(a, p + 8, 24);
		translate(b, a[0]);
		r->used = translate(b, a[1]);
		r->avail = translate(b, a[2]);
		break;
	}
	case 10:
		r->seen = state[1];
		break;
	case 11:
		state[1] = r->seen;
		r->on = false;
		reply(b, head, state, 8);
		break;
	case 12:
		set_event(&r->kick, fds[0]);
		break;
	case 13:
		set_event(&r->call, fds[0]);
		break;
	case 15: /* protocol features MQ and CONFIG */
		value = 1 << 0 | 1 << 9;
		reply(b, head, &value, 8);
		break;
	case 17: /* GET_QUEUE_NUM */
		value = RINGS;
		reply(b, head, &value, 8);
		break;
	case 24: { /* GET_CONFIG: a disk of 1 MiB */
		uint8_t config[72] = { 0 };
		uint16_t capacity = 2048;

		memcpy(config, p, 12);
		memcpy(config + 12, &capacity, 2);
		assert(head[2] <= sizeof(config));
		reply(b, head, config, head[2]);
		break;
	}
	case 18:
		r->on = state[1];
		break;
	}
}

/* False: the front end is gone. */
static bool take_message(struct backend *b)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(REGIONS * sizeof(int))];
	} control;
	uint32_t head[3];
	uint8_t payload[512] = { 0 };
	struct iovec iov = { head, 12 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	int fds[REGIONS];
	unsigned nfds = 0;
	struct cmsghdr *c;

	if (recvmsg(b->fd, &msg, MSG_CMSG_CLOEXEC | MSG_WAITALL) != 12)
		return false;
	c = CMSG_FIRSTHDR(&msg);
	if (c) {
		nfds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(c), nfds * sizeof(int));
	}
	assert(head[2] <= sizeof(payload));
	if (head[2] && recv(b->fd, payload, head[2], MSG_WAITALL) != (ssize_t)head[2])
		return false;
	handle(b, head, payload, fds, nfds);
	return true;
}

static void *backend_thread(void *arg)
{
	struct backend *b = arg;

	for (;;) {
		struct pollfd p[1 + RINGS] = { { .fd = b->fd, .events = POLLIN } };

		for (unsigned i = 0; i < RINGS; i++)
			p[1 + i] = (struct pollfd){ .fd = b->ring[i].on ? b->ring[i].kick : -1, .events = POLLIN };
		poll(p, 1 + RINGS, -1);
		if (p[0].revents) {
			if (!take_message(b))
				break;
			continue;
		}
		for (unsigned i = 0; i < RINGS; i++)
			if (p[1 + i].revents & POLLIN)
				serve(b, &b->ring[i]);
	}
	forget_memory(b);
	for (unsigned i = 0; i < RINGS; i++) {
		set_event(&b->ring[i].kick, -1);
		set_event(&b->ring[i].call, -1);
	}
	close(b->fd);
	free(b);
	return NULL;
}

int fake_vhost_new(uint32_t len)
{
	struct backend *b = calloc(1, sizeof(*b));
	pthread_attr_t attr;
	pthread_t thread;
	int fds[2];

	if (!b || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
		abort();
	b->fd = fds[1];
	b->len = len;
	for (unsigned i = 0; i < RINGS; i++)
		b->ring[i].kick = b->ring[i].call = -1;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &attr, backend_thread, b))
		abort();
	pthread_attr_destroy(&attr);
	return fds[0];
}
