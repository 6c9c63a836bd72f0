/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon (Virtio 1.2 §5.5): memory that the guest gives up goes back
 * to the host by punching holes into the memory's file, and comes back, zeroed,
 * at the next touch. Free-page reporting does the same with pages that the
 * guest merely has no use for.
 */
#include "device/balloon.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device/virtio_pci.h"
#include "machine/clock.h"

#define PAGE_SHIFT 12 /* the protocol's, whatever the host's */
#define PFN_BATCH 1024
#define BALLOON_QUEUE_SIZE 128

#define F_STATS_VQ (1ull << 1)
#define F_DEFLATE_ON_OOM (1ull << 2)
#define F_REPORTING (1ull << 5)

/*
 * The reporting queue is number 4 by the book (§5.5.2). Linux numbers the
 * queues that it uses without gaps, so that without the free-page-hint queue
 * it is number 3 there, as it is in QEMU. Both mean the same here.
 */
enum { Q_INFLATE, Q_DEFLATE, Q_STATS, Q_REPORTING_LINUX, Q_REPORTING, QUEUES };

struct balloon_config {
	uint32_t num_pages, actual, free_page_hint, poison;
};

struct __attribute__((packed)) stat_entry {
	uint16_t tag;
	uint64_t value;
};
#define STATS 10
#define STATS_BYTES (16 * sizeof(struct stat_entry)) /* room for a few more than are defined */

struct virtio_balloon {
	struct virtio_device v;
	struct virtqueue vq[QUEUES];
	struct balloon_config config;
	struct virtq_elem elem;
	bool deflate_on_oom, reporting; /* properties */

	uint32_t poll_seconds;
	struct vtimer *poll;
	uint64_t stats[STATS], stats_when;
	bool stats_held; /* the driver's buffer is read and stays in the ring until the next poll */
	uint64_t returned; /* bytes */

	void (*changed)(void *opaque, uint64_t actual);
	void *changed_opaque;
	int change_fd; /* signalled by vCPUs, heard in the main loop */
	struct loop_fd *change_watch;
};

struct virtio_balloon_pci {
	struct virtio_pci proxy;
	struct virtio_balloon balloon;
};

static struct virtio_balloon *balloon_of(struct virtio_device *v)
{
	return (struct virtio_balloon *)v;
}

/* ---- Giving memory back ---------------------------------------------------- */

/* [gpa, gpa+len), all of it in `r`, whole pages. */
static void discard(struct virtio_balloon *s, const struct guest_region *r, uint64_t gpa, uint64_t len)
{
	uint64_t off = gpa - r->gpa;
	int ret;

	/* Shared memory goes only with its blocks; private memory has none. */
	if (r->fd >= 0)
		ret = fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, r->offset + off, len);
	else
		ret = madvise(r->hva + off, len, MADV_DONTNEED);
	if (ret)
		return; /* the guest loses nothing by it */
	s->returned += len;
	mem_written(&s->v.dev->machine->mem, gpa, len);
}

static void discard_range(struct virtio_balloon *s, uint64_t gpa, uint64_t len)
{
	const struct guest_mem *mem = &s->v.dev->machine->mem;
	uint64_t end = gpa + len, mask = (1ull << PAGE_SHIFT) - 1;

	/* Only what is whole pages of ours. */
	gpa = (gpa + mask) & ~mask;
	end &= ~mask;
	for (unsigned i = 0; i < mem->n && gpa < end; i++) {
		const struct guest_region *r = &mem->region[i];
		uint64_t from = gpa > r->gpa ? gpa : r->gpa, to = end < r->gpa + r->size ? end : r->gpa + r->size;

		if (!r->readonly && from < to)
			discard(s, r, from, to - from);
	}
}

static int compare_pfn(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* The driver lists pages in the order it got them: sorted they make few, long holes. */
static void inflate(struct virtio_balloon *s, struct virtq_elem *e)
{
	uint32_t pfn[PFN_BATCH];
	size_t at = 0, got;

	while ((got = iov_read(e->iov, e->nout, at, pfn, sizeof(pfn))) >= sizeof(pfn[0])) {
		unsigned n = got / sizeof(pfn[0]), first = 0;

		at += n * sizeof(pfn[0]);
		qsort(pfn, n, sizeof(pfn[0]), compare_pfn);
		for (unsigned i = 1; i <= n; i++) {
			if (i < n && pfn[i] - pfn[i - 1] <= 1)
				continue;
			discard_range(s, (uint64_t)pfn[first] << PAGE_SHIFT,
				      (uint64_t)(pfn[i - 1] - pfn[first] + 1) << PAGE_SHIFT);
			first = i;
		}
	}
}

/* Free-page reporting (§5.5.6.7): the pages are the buffers themselves. */
static void report(struct virtio_balloon *s, struct virtq_elem *e)
{
	const struct virtq_seg *seg = e->seg + e->nout;

	for (unsigned i = 0; i < e->nin; i++)
		discard_range(s, seg[i].gpa, seg[i].len);
}

/* ---- Statistics (§5.5.6.3): the driver's buffer waits in the ring for the next question ---- */

static void read_stats(struct virtio_balloon *s)
{
	struct virtqueue *vq = &s->vq[Q_STATS];
	struct stat_entry entries[STATS_BYTES / sizeof(struct stat_entry)];
	size_t n;
	int ret;

	if (s->stats_held)
		return;
	ret = virtq_pop_or_wait(vq, &s->elem);
	if (ret <= 0)
		return;
	n = iov_read(s->elem.iov, s->elem.nout, 0, entries, sizeof(entries)) / sizeof(entries[0]);
	for (size_t i = 0; i < n; i++)
		if (entries[i].tag < STATS)
			s->stats[entries[i].tag] = entries[i].value;
	s->stats_when = vclock_now(s->v.dev->machine->clock);
	virtq_unpop(vq, &s->elem);
	s->stats_held = true;
}

static bool stats_running(struct virtio_balloon *s)
{
	return s->vq[Q_STATS].enabled && virtio_may_run(&s->v) && virtio_has(&s->v, F_STATS_VQ);
}

static void arm_poll(struct virtio_balloon *s)
{
	uint64_t now = vclock_now(s->v.dev->machine->clock);

	vtimer_arm(s->poll, s->poll_seconds ? now + s->poll_seconds * 1000000000ull : VTIMER_NEVER);
}

static void poll_due(void *opaque)
{
	struct virtio_balloon *s = opaque;
	struct virtqueue *vq = &s->vq[Q_STATS];

	pthread_mutex_lock(&s->v.dev->lock);
	/* Returning the buffer is the question; it comes back with fresh numbers. */
	if (stats_running(s) && s->stats_held && virtq_pop(vq, &s->elem) > 0) {
		s->stats_held = false;
		virtq_push(vq, &s->elem, 0);
		virtq_wait(vq);
		virtio_notify(&s->v, vq);
	}
	arm_poll(s);
	pthread_mutex_unlock(&s->v.dev->lock);
}

/* ---- Device ---------------------------------------------------------------- */

static void run_queue(struct virtio_balloon *s, struct virtqueue *vq,
		      void (*fn)(struct virtio_balloon *, struct virtq_elem *))
{
	do {
		virtq_ignore(vq);
		while (virtq_pop(vq, &s->elem) > 0) {
			if (fn)
				fn(s, &s->elem);
			virtq_push(vq, &s->elem, 0);
		}
	} while (virtq_wait(vq));
	virtio_notify(&s->v, vq);
}

/* Lock held. */
static void balloon_kick(struct virtio_device *v, struct virtqueue *vq)
{
	struct virtio_balloon *s = balloon_of(v);

	switch (vq->index) {
	case Q_INFLATE:
		run_queue(s, vq, inflate);
		break;
	case Q_DEFLATE:
		run_queue(s, vq, NULL); /* the pages come back when they are touched */
		break;
	case Q_STATS:
		if (virtio_has(v, F_STATS_VQ)) {
			read_stats(s);
			break;
		}
		/* fall through */
	default:
		if (virtio_has(v, F_REPORTING))
			run_queue(s, vq, report);
	}
}

static uint64_t memory(const struct virtio_balloon *s)
{
	return s->v.dev->machine->config.memory;
}

/* Lock held or main loop's thread. */
static uint64_t actual(struct virtio_balloon *s)
{
	uint64_t balloon = (uint64_t)__atomic_load_n(&s->config.actual, __ATOMIC_RELAXED) << PAGE_SHIFT;

	return balloon < memory(s) ? memory(s) - balloon : 0;
}

static void tell_change(void *opaque, uint32_t events)
{
	struct virtio_balloon *s = opaque;
	uint64_t count;

	if (read(s->change_fd, &count, sizeof(count)) == sizeof(count) && s->changed)
		s->changed(s->changed_opaque, actual(s));
}

static void balloon_config_write(struct virtio_device *v, unsigned offset, uint32_t value, unsigned size)
{
	struct virtio_balloon *s = balloon_of(v);
	uint64_t one = 1;

	if (offset != offsetof(struct balloon_config, actual) || size != 4)
		return;
	__atomic_store_n(&s->config.actual, value, __ATOMIC_RELAXED);
	/* However often the guest writes, one call waits at a time. */
	if (write(s->change_fd, &one, sizeof(one)) < 0)
		return;
}

static uint64_t balloon_features(struct virtio_device *v)
{
	struct virtio_balloon *s = balloon_of(v);

	return F_STATS_VQ | (s->deflate_on_oom ? F_DEFLATE_ON_OOM : 0) | (s->reporting ? F_REPORTING : 0);
}

static void forget_stats(struct virtio_balloon *s)
{
	memset(s->stats, 0xff, sizeof(s->stats));
	s->stats_when = 0;
	s->stats_held = false;
}

/* The target is the owner's and stays; the guest begins with an empty balloon. */
static void balloon_reset(struct virtio_device *v)
{
	struct virtio_balloon *s = balloon_of(v);

	__atomic_store_n(&s->config.actual, 0, __ATOMIC_RELAXED);
	forget_stats(s);
}

static void balloon_queue_off(struct virtio_device *v, struct virtqueue *vq)
{
	if (vq->index == Q_STATS)
		balloon_of(v)->stats_held = false;
}

static const struct virtio_ops balloon_ops = {
	.name = "virtio-balloon",
	.id = VIRTIO_ID_BALLOON,
	.features = balloon_features,
	.config_write = balloon_config_write,
	.kick = balloon_kick,
	.queue_off = balloon_queue_off,
	.reset = balloon_reset,
};

static void balloon_destroy(struct virtio_balloon *s)
{
	virtio_exit(&s->v);
	loop_fd_del(s->change_watch);
	if (s->change_fd >= 0)
		close(s->change_fd);
	virtq_elem_free(&s->elem);
	vtimer_free(s->poll);
}

static int balloon_realize(struct device *d, struct err *err)
{
	struct virtio_balloon_pci *o = (struct virtio_balloon_pci *)d;
	struct virtio_balloon *s = &o->balloon;
	int ret;

	for (unsigned i = 0; i < QUEUES; i++)
		s->vq[i].max = BALLOON_QUEUE_SIZE;
	s->v.config = (uint8_t *)&s->config;
	/* The last two fields belong to features that are not offered. */
	s->v.config_size = offsetof(struct balloon_config, free_page_hint);
	forget_stats(s);
	s->change_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ret = s->change_fd < 0 ? err_set_errno(err, errno, "cannot make an event for the balloon") : 0;
	s->poll = vtimer_new(d->machine->clock, poll_due, s);
	if (!ret && !s->poll)
		ret = err_set(err, ENOMEM, "no memory for a timer");
	if (!ret)
		s->change_watch = loop_fd_add(d->machine->loop, s->change_fd, EPOLLIN, tell_change, s, err);
	if (!ret && !s->change_watch)
		ret = -ENOMEM;
	if (!ret)
		ret = virtio_init(&s->v, &balloon_ops, d, s->vq, QUEUES, d->machine->loop, err);
	if (!ret)
		ret = virtio_pci_realize(&o->proxy, &s->v, 0x00ff00, err);
	if (ret)
		balloon_destroy(s);
	return ret;
}

static void balloon_unrealize(struct device *d)
{
	struct virtio_balloon *s = &((struct virtio_balloon_pci *)d)->balloon;

	virtio_pci_unrealize(d);
	balloon_destroy(s);
}

static int balloon_loaded(void *obj, struct err *err)
{
	struct virtio_balloon *s = &((struct virtio_balloon_pci *)obj)->balloon;

	/* Polling is this side's choice; the next kick reads the buffer that waits. */
	arm_poll(s);
	s->stats_held = false;
	return virtio_loaded(&s->v, err);
}

static const struct property balloon_props[] = {
	VIRTIO_PCI_PROPS(struct virtio_balloon_pci),
	PROP_DEF_BOOL(struct virtio_balloon_pci, balloon.deflate_on_oom, "deflate-on-oom", "on",
		      "the guest may take pages back when it runs out of memory"),
	PROP_DEF_BOOL(struct virtio_balloon_pci, balloon.reporting, "free-page-reporting", "on",
		      "take back pages that the guest does not use"),
	{ 0 },
};

static const struct state_field balloon_fields[] = {
	STATE_FIELD_STRUCT(struct virtio_balloon_pci, proxy, &virtio_pci_state),
	STATE_FIELD_STRUCT(struct virtio_balloon_pci, balloon.v, &virtio_device_state),
	STATE_ARRAY_STRUCT(struct virtio_balloon_pci, balloon.vq, &virtq_state),
	STATE_FIELD_U32(struct virtio_balloon_pci, balloon.config.num_pages),
	STATE_FIELD_U32(struct virtio_balloon_pci, balloon.config.actual),
	STATE_ARRAY_U64(struct virtio_balloon_pci, balloon.stats),
	STATE_FIELD_U64(struct virtio_balloon_pci, balloon.stats_when),
	STATE_END,
};
static const struct state_desc balloon_state = {
	.name = "virtio-balloon-pci", .version = 1, .fields = balloon_fields, .post_load = balloon_loaded,
};

const struct device_class virtio_balloon_class = {
	.name = "virtio-balloon-pci",
	.description = "memory balloon (virtio)",
	.size = sizeof(struct virtio_balloon_pci),
	.props = balloon_props,
	.realize = balloon_realize,
	.unrealize = balloon_unrealize,
	.reset = virtio_pci_reset,
	.state = &balloon_state,
	.stopped = virtio_pci_stopped,
};

/* ---- The owner's side ------------------------------------------------------ */

static struct virtio_balloon *balloon_of_device(struct device *d)
{
	return &((struct virtio_balloon_pci *)d)->balloon;
}

void virtio_balloon_set(struct device *d, uint64_t bytes)
{
	struct virtio_balloon *s = balloon_of_device(d);
	uint64_t give = bytes < memory(s) ? memory(s) - bytes : 0;

	pthread_mutex_lock(&d->lock);
	s->config.num_pages = give >> PAGE_SHIFT;
	virtio_config_changed(&s->v);
	pthread_mutex_unlock(&d->lock);
}

uint64_t virtio_balloon_actual(struct device *d)
{
	return actual(balloon_of_device(d));
}

void virtio_balloon_set_callback(struct device *d, void (*fn)(void *opaque, uint64_t actual), void *opaque)
{
	struct virtio_balloon *s = balloon_of_device(d);

	s->changed_opaque = opaque;
	s->changed = fn;
}

void virtio_balloon_get_stats(struct device *d, struct balloon_stats *out)
{
	struct virtio_balloon *s = balloon_of_device(d);
	uint64_t *to = (uint64_t *)out;

	pthread_mutex_lock(&d->lock);
	/* The struct is in the order of the tags. */
	for (unsigned i = 0; i < STATS; i++)
		to[i] = s->stats[i];
	out->when = s->stats_when;
	pthread_mutex_unlock(&d->lock);
}

void virtio_balloon_poll(struct device *d, unsigned seconds)
{
	struct virtio_balloon *s = balloon_of_device(d);

	pthread_mutex_lock(&d->lock);
	s->poll_seconds = seconds;
	arm_poll(s);
	pthread_mutex_unlock(&d->lock);
}

uint64_t virtio_balloon_returned(struct device *d)
{
	return balloon_of_device(d)->returned;
}
