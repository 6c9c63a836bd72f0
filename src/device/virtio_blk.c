/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-blk (Virtio 1.2 §5.2) over an image (image/block.h).
 *
 * Queues are served by lanes: one with an I/O thread of the disk's own, or one
 * for each of the loops that the owner gives it (struct disk_loops), which other
 * disks may share. A lane's `lock` guards its queues and requests: its thread
 * takes it to pop and to complete, a vCPU that resets the device takes it to
 * wait for what is in flight. A lane's thread never takes the device's lock.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/disk.h"
#include "device/virtio_pci.h"
#include "image/block.h"

#define BLK_QUEUES DISK_QUEUES
#define BLK_QUEUE_SIZE 256
#define BLK_SEG_MAX (BLK_QUEUE_SIZE - 2)
#define SECTOR 512u
#define BLK_RANGES 32              /* of one discard or write-zeroes request */
#define BLK_RANGE_MAX (1u << 22)   /* sectors: 2 GiB */

#define VIRTIO_BLK_F_SEG_MAX (1ull << 2)
#define VIRTIO_BLK_F_RO (1ull << 5)
#define VIRTIO_BLK_F_BLK_SIZE (1ull << 6)
#define VIRTIO_BLK_F_FLUSH (1ull << 9)
#define VIRTIO_BLK_F_TOPOLOGY (1ull << 10)
#define VIRTIO_BLK_F_CONFIG_WCE (1ull << 11)
#define VIRTIO_BLK_F_MQ (1ull << 12)
#define VIRTIO_BLK_F_DISCARD (1ull << 13)
#define VIRTIO_BLK_F_WRITE_ZEROES (1ull << 14)

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };
#define ID_BYTES 20
#define RANGE_UNMAP 1u

struct blk_header {
	uint32_t type, reserved;
	uint64_t sector;
};

struct blk_range {
	uint64_t sector;
	uint32_t sectors, flags;
};

/* Configuration space (§5.2.4). */
struct __attribute__((packed)) blk_config {
	uint64_t capacity;
	uint32_t size_max, seg_max;
	struct __attribute__((packed)) {
		uint16_t cylinders;
		uint8_t heads, sectors;
	} geometry;
	uint32_t blk_size;
	uint8_t physical_exp, alignment_offset;
	uint16_t min_io;
	uint32_t opt_io;
	uint8_t wce, unused;
	uint16_t num_queues;
	uint32_t max_discard, max_discard_seg, discard_align, max_zeroes, max_zeroes_seg;
	uint8_t zeroes_may_unmap, unused1[3];
};
_Static_assert(sizeof(struct blk_config) == 60, "layout of Virtio 1.2 §5.2.4");

struct virtio_blk;

struct blk_req {
	struct virtq_elem elem;
	struct block_request r;
	struct blk_lane *lane;
	struct virtqueue *vq;
	struct iovec *in; /* writable part without the status byte */
	uint16_t nin;
	uint8_t *status;
	uint64_t status_at; /* offset of the status byte in the writable part */
	uint64_t used;      /* bytes written if it goes well, with the status */
	struct blk_range range[BLK_RANGES]; /* of a discard, and how many are left */
	unsigned nranges, at_range;
	struct blk_req *next; /* in the list of free or of failed ones */
};

struct blk_lane {
	struct virtio_blk *blk;
	struct loop *loop;
	struct block_queue *queue;
	struct err *err; /* of the queue's making */

	pthread_mutex_t lock; /* the rest, and its queues; the lane's thread or a vCPU that waits */
	pthread_cond_t idle;
	struct blk_req *free;
	struct blk_req *failed; /* wait, in no order, until the machine goes on */
	bool retrying;          /* a call that sends them again is under way */
	unsigned total;         /* in flight */
};

struct virtio_blk {
	struct virtio_device v;
	struct virtqueue vq[BLK_QUEUES];
	struct blk_config config;

	/* Properties */
	struct block *block;
	char *serial;
	uint32_t num_queues, logical, physical;
	bool discard;
	char *rerror, *werror;

	const struct disk_loops *loops; /* or NULL: a thread of its own */

	struct disk_errors errors;
	pthread_t thread; /* without loops */
	struct blk_lane lane[BLK_QUEUES];
	unsigned lanes;
	struct loop *loop_of[BLK_QUEUES];      /* a queue's */
	pthread_mutex_t *lock_of[BLK_QUEUES];
	unsigned inflight[BLK_QUEUES]; /* under the lane's lock */
	bool wce;  /* atomic: the guest flushes by itself */
};

struct virtio_blk_pci {
	struct virtio_pci proxy;
	struct virtio_blk blk;
};

static struct virtio_blk *blk_of(struct virtio_device *v)
{
	return (struct virtio_blk *)v;
}

static struct blk_lane *lane_of(struct virtio_blk *s, const struct virtqueue *vq)
{
	return &s->lane[s->loops ? s->loops->lane[vq->index] : 0];
}

/* ---- Requests; lock held, the lane's thread --------------------------------- */

static struct blk_req *req_get(struct blk_lane *l)
{
	struct blk_req *req = l->free;

	if (req)
		l->free = req->next;
	else
		req = calloc(1, sizeof(*req));
	if (req)
		req->lane = l;
	return req;
}

static void req_put(struct blk_req *req)
{
	req->next = req->lane->free;
	req->lane->free = req;
}

static void req_left(struct blk_lane *l, const struct virtqueue *vq)
{
	l->total--;
	if (!--l->blk->inflight[vq->index])
		pthread_cond_broadcast(&l->idle);
}

static void req_end(struct blk_req *req, uint8_t status)
{
	struct virtqueue *vq = req->vq;

	*req->status = status;
	/* On an error nobody knows how much data is there: only the status counts (§2.7.8.2: a lower bound). */
	virtq_elem_written(vq, &req->elem, req->status_at, 1);
	virtq_push(vq, &req->elem, status == S_OK ? req->used : 1);
	req_put(req);
}

static bool submit_range(struct blk_req *req);

/* The image failed. True: the request waits for the machine to be stopped and to go on. *ret is the driver's. */
static bool failed(struct blk_req *req, int *ret)
{
	struct blk_lane *l = req->lane;
	enum disk_action action = disk_error(&l->blk->errors, req->r.op != BLOCK_READ, -*ret);

	if (action == DISK_IGNORE)
		*ret = 0;
	if (action != DISK_STOP)
		return false;
	req->next = l->failed;
	l->failed = req;
	return true;
}

static void blk_done(struct block_request *r, int ret)
{
	struct blk_req *req = r->opaque;
	struct blk_lane *l = req->lane;
	struct virtqueue *vq = req->vq;

	pthread_mutex_lock(&l->lock);
	if (ret && ret != -EOPNOTSUPP && failed(req, &ret)) {
		req_left(l, vq);
	} else if (ret || !req->nranges || ++req->at_range == req->nranges || !submit_range(req)) {
		req_end(req, !ret ? S_OK : ret == -EOPNOTSUPP ? S_UNSUPP : S_IOERR);
		virtio_notify(&l->blk->v, vq);
		req_left(l, vq);
	}
	pthread_mutex_unlock(&l->lock);
}

static void submit(struct blk_req *req, enum block_op op, uint64_t offset, uint64_t len)
{
	struct blk_lane *l = req->lane;

	req->r.op = op;
	req->r.offset = offset;
	req->r.len = len;
	req->r.done = blk_done;
	req->r.opaque = req;
	/* Without a write-back cache on the guest's side every write is stable when it ends (§5.2.6.2). */
	req->r.fua = op == BLOCK_WRITE && !__atomic_load_n(&l->blk->wce, __ATOMIC_RELAXED);
	block_submit(l->queue, &req->r);
}

static bool submit_range(struct blk_req *req)
{
	const struct blk_range *g = &req->range[req->at_range];

	req->r.unmap = g->flags & RANGE_UNMAP;
	submit(req, req->r.op, g->sector * SECTOR, (uint64_t)g->sectors * SECTOR);
	return true;
}

/* The lane's thread, after the machine went on. */
static void retry(void *arg)
{
	struct blk_lane *l = arg;
	struct blk_req *req;

	pthread_mutex_lock(&l->lock);
	l->retrying = false;
	while (virtio_may_run(&l->blk->v) && (req = l->failed)) {
		l->failed = req->next;
		l->blk->inflight[req->vq->index]++;
		l->total++;
		submit(req, req->r.op, req->r.offset, req->r.len);
	}
	pthread_mutex_unlock(&l->lock);
	block_kick(l->queue);
}

/* Lock held: the failed requests of a queue, or of all (NULL), are never answered. */
static void forget_failed(struct blk_lane *l, const struct virtqueue *vq)
{
	struct blk_req **p = &l->failed, *req;

	while ((req = *p)) {
		if (vq && req->vq != vq) {
			p = &req->next;
			continue;
		}
		*p = req->next;
		req_put(req);
	}
}

static bool in_range(const struct virtio_blk *s, uint64_t sector, uint64_t bytes)
{
	uint64_t capacity = block_size(s->block) / SECTOR;

	return !(bytes % SECTOR) && sector <= capacity && bytes / SECTOR <= capacity - sector;
}

/* Discard and write zeroes (§5.2.6.2): -1 to go on, or a status. */
static int start_ranges(struct blk_req *req, enum block_op op, struct iovec *out, unsigned nout, uint64_t len)
{
	struct virtio_blk *s = req->lane->blk;

	if (block_readonly(s->block))
		return S_IOERR;
	if (!virtio_has(&s->v, op == BLOCK_DISCARD ? VIRTIO_BLK_F_DISCARD : VIRTIO_BLK_F_WRITE_ZEROES))
		return S_UNSUPP;
	req->nranges = len / sizeof(req->range[0]);
	if (!req->nranges || len % sizeof(req->range[0]) || req->nranges > BLK_RANGES)
		return S_IOERR;
	iov_read(out, nout, 0, req->range, len);
	for (unsigned i = 0; i < req->nranges; i++) {
		const struct blk_range *g = &req->range[i];

		/* Unmap means something for write zeroes only; a device must refuse what it doesn't know. */
		if (g->flags & ~RANGE_UNMAP || (op == BLOCK_DISCARD && g->flags))
			return S_UNSUPP;
		if (g->sectors > BLK_RANGE_MAX || !in_range(s, g->sector, (uint64_t)g->sectors * SECTOR))
			return S_IOERR;
	}
	req->at_range = 0;
	req->r.op = op;
	submit_range(req);
	return -1;
}

static int start_transfer(struct blk_req *req, bool write, uint64_t sector, struct iovec *iov, unsigned n, uint64_t len)
{
	struct virtio_blk *s = req->lane->blk;

	if (write && block_readonly(s->block))
		return S_IOERR;
	if (!in_range(s, sector, len))
		return S_IOERR;
	req->r.iov = iov;
	req->r.niov = n;
	if (!write)
		req->used = len + 1;
	submit(req, write ? BLOCK_WRITE : BLOCK_READ, sector * SECTOR, len);
	return -1;
}

static int get_id(struct blk_req *req)
{
	char id[ID_BYTES] = { 0 };

	if (req->lane->blk->serial)
		memcpy(id, req->lane->blk->serial, strnlen(req->lane->blk->serial, ID_BYTES));
	req->used = iov_write(req->in, req->nin, 0, id, sizeof(id)) + 1;
	return S_OK;
}

/* The status is the last writable byte, wherever the driver cut its buffers. */
static bool find_status(struct blk_req *req)
{
	struct virtq_elem *e = &req->elem;
	struct iovec *last;

	if (!e->in_len || !e->nin)
		return false;
	last = &e->iov[e->nout + e->nin - 1];
	req->status = (uint8_t *)last->iov_base + --last->iov_len;
	req->status_at = e->in_len - 1;
	req->in = e->iov + e->nout;
	req->nin = e->nin - !last->iov_len;
	return true;
}

/* Take a popped buffer in hand. False: it is none of a request's form. */
static bool start(struct blk_req *req)
{
	struct virtio_blk *s = req->lane->blk;
	struct virtq_elem *e = &req->elem;
	struct iovec *out = e->iov;
	uint16_t nout = e->nout;
	struct blk_header h;
	int status;

	if (iov_read(out, nout, 0, &h, sizeof(h)) != sizeof(h) || !find_status(req))
		return false;
	iov_skip(&out, &nout, sizeof(h));
	req->used = 1;
	req->nranges = 0;
	s->inflight[req->vq->index]++;
	req->lane->total++;
	switch (h.type) {
	case T_IN:
		status = start_transfer(req, false, h.sector, req->in, req->nin, e->in_len - 1);
		break;
	case T_OUT:
		status = start_transfer(req, true, h.sector, out, nout, e->out_len - sizeof(h));
		break;
	case T_FLUSH:
		submit(req, BLOCK_FLUSH, 0, 0);
		status = -1;
		break;
	case T_GET_ID:
		status = get_id(req);
		break;
	case T_DISCARD:
	case T_WRITE_ZEROES:
		status = start_ranges(req, h.type == T_DISCARD ? BLOCK_DISCARD : BLOCK_WRITE_ZEROES, out, nout,
				      e->out_len - sizeof(h));
		break;
	default:
		status = S_UNSUPP;
	}
	if (status >= 0) {
		s->inflight[req->vq->index]--;
		req->lane->total--;
		req_end(req, status);
	}
	return true;
}

static void blk_kick(struct virtio_device *v, struct virtqueue *vq)
{
	struct blk_lane *l = lane_of(blk_of(v), vq);

	pthread_mutex_lock(&l->lock);
	if (vq->enabled && virtio_may_run(v)) {
		do {
			struct blk_req *req;

			virtq_ignore(vq);
			while ((req = req_get(l)) && virtq_pop(vq, &req->elem) > 0) {
				req->vq = vq;
				if (!start(req)) {
					virtio_error(v, "a request without header or status");
					break;
				}
				req = NULL;
			}
			if (req)
				req_put(req);
			else
				virtio_error(v, "no memory for a request");
			if (__atomic_load_n(&v->status, __ATOMIC_ACQUIRE) & VIRTIO_NEEDS_RESET)
				break;
		} while (virtq_wait(vq));
		virtio_notify(v, vq);
	}
	pthread_mutex_unlock(&l->lock);
	/* Completions come later, never from inside. */
	block_kick(l->queue);
}

/* ---- Device --------------------------------------------------------------- */

static uint64_t blk_features(struct virtio_device *v)
{
	struct virtio_blk *s = blk_of(v);
	uint64_t f = VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_BLK_SIZE | VIRTIO_BLK_F_TOPOLOGY | VIRTIO_BLK_F_FLUSH |
		     VIRTIO_BLK_F_CONFIG_WCE;

	if (block_readonly(s->block))
		f |= VIRTIO_BLK_F_RO;
	else if (s->discard)
		f |= VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES;
	else
		f |= VIRTIO_BLK_F_WRITE_ZEROES;
	if (s->num_queues > 1)
		f |= VIRTIO_BLK_F_MQ;
	return f;
}

static void set_wce(struct virtio_blk *s, bool wce)
{
	s->config.wce = wce;
	__atomic_store_n(&s->wce, wce, __ATOMIC_RELAXED);
}

/* A driver that knows neither flushes nor the cache mode gets a write-through disk (§5.2.6.2). */
static bool blk_accept(struct virtio_device *v)
{
	set_wce(blk_of(v), virtio_has(v, VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_CONFIG_WCE));
	return true;
}

static void blk_config_write(struct virtio_device *v, unsigned offset, uint32_t value, unsigned size)
{
	if (offset == offsetof(struct blk_config, wce) && size == 1 && virtio_has(v, VIRTIO_BLK_F_CONFIG_WCE))
		set_wce(blk_of(v), value & 1);
}

/* Not inside a kick: the vCPU or the main loop waits for the lane's thread. */
static void blk_queue_off(struct virtio_device *v, struct virtqueue *vq)
{
	struct virtio_blk *s = blk_of(v);
	struct blk_lane *l = lane_of(s, vq);

	pthread_mutex_lock(&l->lock);
	vq->enabled = false;
	while (s->inflight[vq->index])
		pthread_cond_wait(&l->idle, &l->lock);
	forget_failed(l, vq);
	pthread_mutex_unlock(&l->lock);
}

static void blk_reset(struct virtio_device *v)
{
	set_wce(blk_of(v), true);
}

static void lane_stopped(struct blk_lane *l, bool stopped)
{
	pthread_mutex_lock(&l->lock);
	/* Kicks look at v->stopped under the lock: nothing new starts after this. */
	while (stopped && l->total)
		pthread_cond_wait(&l->idle, &l->lock);
	if (!stopped && l->failed && !l->retrying)
		l->retrying = !loop_post(l->loop, retry, l);
	pthread_mutex_unlock(&l->lock);
}

static void blk_stopped(struct virtio_device *v, bool stopped)
{
	struct virtio_blk *s = blk_of(v);

	if (!stopped)
		disk_errors_resume(&s->errors);
	for (unsigned i = 0; i < s->lanes; i++)
		lane_stopped(&s->lane[i], stopped);
}

static const struct virtio_ops blk_ops = {
	.name = "virtio-blk",
	.id = VIRTIO_ID_BLOCK,
	.own_lock = true,
	.features = blk_features,
	.accept = blk_accept,
	.config_write = blk_config_write,
	.kick = blk_kick,
	.queue_off = blk_queue_off,
	.reset = blk_reset,
	.stopped = blk_stopped,
};

static void fill_config(struct virtio_blk *s)
{
	struct blk_config *c = &s->config;

	c->capacity = block_size(s->block) / SECTOR;
	c->seg_max = BLK_SEG_MAX;
	c->blk_size = s->logical;
	c->physical_exp = __builtin_ctz(s->physical / s->logical);
	c->min_io = s->physical / s->logical;
	c->num_queues = s->num_queues;
	if (s->discard) {
		c->max_discard = BLK_RANGE_MAX;
		c->max_discard_seg = BLK_RANGES;
		c->discard_align = (s->physical > 4096 ? s->physical : 4096) / SECTOR;
	}
	c->max_zeroes = BLK_RANGE_MAX;
	c->max_zeroes_seg = BLK_RANGES;
	c->zeroes_may_unmap = s->discard;
	set_wce(s, true);
	s->v.config = (uint8_t *)c;
	s->v.config_size = sizeof(*c);
}

static int check_props(struct virtio_blk *s, struct err *err)
{
	if (!s->block)
		return err_set(err, EINVAL, "property drive is missing: a disk needs an image");
	if (s->logical < SECTOR || s->logical & (s->logical - 1) || s->physical & (s->physical - 1))
		return err_set(err, EINVAL,
			       "logical-block-size %u and physical-block-size %u must be powers of two from 512 on",
			       s->logical, s->physical);
	if (s->physical < s->logical)
		return err_set(err, EINVAL, "physical-block-size %u must not be below logical-block-size %u",
			       s->physical, s->logical);
	if (block_size(s->block) % s->logical)
		return err_set(err, EINVAL, "%s is not a multiple of logical-block-size %u", block_path(s->block),
			       s->logical);
	if (s->serial && strlen(s->serial) > ID_BYTES)
		return err_set(err, EINVAL, "serial '%.40s' has more than %d characters", s->serial, ID_BYTES);
	return 0;
}

/* ---- Lanes ------------------------------------------------------------------ */

/* In the lane's loop. */
static void lane_begin(void *arg)
{
	struct blk_lane *l = arg;

	l->queue = block_queue_new(l->blk->block, l->loop, BLK_QUEUE_SIZE / 2, l->err);
}

static void lane_end(void *arg)
{
	struct blk_lane *l = arg;

	loop_unpost(l->loop, retry, l);
	block_queue_free(l->queue);
	l->queue = NULL;
}

static int make_lanes(struct virtio_blk *s, struct err *err)
{
	unsigned n = s->loops ? s->loops->n : 1;

	for (; s->lanes < n; s->lanes++) {
		struct blk_lane *l = &s->lane[s->lanes];

		l->blk = s;
		l->loop = s->loops ? s->loops->loop[s->lanes] : loop_new(err);
		if (!l->loop)
			return -ENOMEM;
		pthread_mutex_init(&l->lock, NULL);
		pthread_cond_init(&l->idle, NULL);
		l->err = err;
		loop_call(l->loop, lane_begin, l);
		if (!l->queue) {
			s->lanes++;
			return -ENOMEM;
		}
	}
	for (unsigned i = 0; i < s->num_queues; i++) {
		s->loop_of[i] = lane_of(s, &s->vq[i])->loop;
		s->lock_of[i] = &lane_of(s, &s->vq[i])->lock;
	}
	s->v.loops = s->loop_of;
	s->v.queue_locks = s->lock_of;
	return 0;
}

static void lane_destroy(struct blk_lane *l)
{
	forget_failed(l, NULL);
	loop_call(l->loop, lane_end, l);
	while (l->free) {
		struct blk_req *req = l->free;

		l->free = req->next;
		virtq_elem_free(&req->elem);
		free(req);
	}
	pthread_mutex_destroy(&l->lock);
	pthread_cond_destroy(&l->idle);
	if (!l->blk->loops)
		loop_free(l->loop);
}

static void blk_destroy(struct virtio_blk *s)
{
	virtio_exit(&s->v);
	disk_errors_exit(&s->errors);
	while (s->lanes)
		lane_destroy(&s->lane[--s->lanes]);
}

static int blk_realize(struct device *d, struct err *err)
{
	struct virtio_blk_pci *o = (struct virtio_blk_pci *)d;
	struct virtio_blk *s = &o->blk;
	int ret = check_props(s, err);

	if (!ret)
		ret = disk_errors_init(&s->errors, d, s->rerror, s->werror, err);
	if (ret)
		return ret;
	for (unsigned i = 0; i < s->num_queues; i++) {
		s->vq[i].max = BLK_QUEUE_SIZE;
		s->vq[i].index = i;
	}
	fill_config(s);
	ret = make_lanes(s, err);
	if (!ret)
		ret = virtio_init(&s->v, &blk_ops, d, s->vq, s->num_queues, s->lane[0].loop, err);
	if (!ret)
		ret = virtio_pci_realize(&o->proxy, &s->v, 0x010000, err);
	if (!ret) {
		ret = s->loops ? 0 : virtio_thread_start(&s->v, "io", &s->thread, err);
		if (!ret)
			return 0;
		virtio_pci_unrealize(d);
	}
	blk_destroy(s);
	return ret;
}

static void blk_unrealize(struct device *d)
{
	struct virtio_blk *s = &((struct virtio_blk_pci *)d)->blk;

	virtio_pci_unrealize(d); /* waits for what is in flight */
	if (!s->loops)
		virtio_thread_end(&s->v, s->thread);
	blk_destroy(s);
}

/* ---- The owner's side; main loop's thread ----------------------------------- */

static struct block *disk_block(struct device *d)
{
	return ((struct virtio_blk_pci *)d)->blk.block;
}

static void disk_resized(struct device *d)
{
	struct virtio_blk *s = &((struct virtio_blk_pci *)d)->blk;

	pthread_mutex_lock(&d->lock);
	s->config.capacity = block_size(s->block) / SECTOR;
	virtio_config_changed(&s->v);
	pthread_mutex_unlock(&d->lock);
}

static struct disk_errors *disk_errors_of(struct device *d)
{
	return &((struct virtio_blk_pci *)d)->blk.errors;
}

const struct disk_ops virtio_blk_disk = {
	.cls = "virtio-blk-pci", .block = disk_block, .resized = disk_resized, .errors = disk_errors_of,
};

static int blk_loaded(void *obj, struct err *err)
{
	struct virtio_blk *s = &((struct virtio_blk_pci *)obj)->blk;

	set_wce(s, s->wce);
	return virtio_loaded(&s->v, err);
}

static const struct property blk_props[] = {
	VIRTIO_PCI_PROPS(struct virtio_blk_pci),
	PROP_DEF_PTR(struct virtio_blk_pci, blk.block, "drive", "the image (struct block); stays the owner's"),
	PROP_DEF_PTR(struct virtio_blk_pci, blk.loops, "loops", "threads for its queues (struct disk_loops); stay the owner's"),
	PROP_DEF_STRING(struct virtio_blk_pci, blk.serial, "serial", NULL, "serial number, at most 20 characters"),
	PROP_DEF_U32(struct virtio_blk_pci, blk.num_queues, "num-queues", "1", 1, BLK_QUEUES, "request queues"),
	PROP_DEF_U32(struct virtio_blk_pci, blk.logical, "logical-block-size", "512", 512, 32768,
		     "smallest unit of I/O"),
	PROP_DEF_U32(struct virtio_blk_pci, blk.physical, "physical-block-size", "4096", 512, 32768,
		     "unit that the host writes"),
	PROP_DEF_BOOL(struct virtio_blk_pci, blk.discard, "discard", "on", "give unused blocks back to the host"),
	DISK_ERROR_PROPS(struct virtio_blk_pci, blk.rerror, blk.werror),
	{ 0 },
};

/* Nothing is in flight while the machine is stopped, so requests are no state. */
static const struct state_field blk_fields[] = {
	STATE_FIELD_STRUCT(struct virtio_blk_pci, proxy, &virtio_pci_state),
	STATE_FIELD_STRUCT(struct virtio_blk_pci, blk.v, &virtio_device_state),
	STATE_ARRAY_STRUCT(struct virtio_blk_pci, blk.vq, &virtq_state),
	STATE_FIELD_BOOL(struct virtio_blk_pci, blk.wce),
	STATE_END,
};
static const struct state_desc blk_state = {
	.name = "virtio-blk-pci", .version = 1, .fields = blk_fields, .post_load = blk_loaded,
};

const struct device_class virtio_blk_class = {
	.name = "virtio-blk-pci",
	.description = "disk (virtio)",
	.size = sizeof(struct virtio_blk_pci),
	.props = blk_props,
	.realize = blk_realize,
	.unrealize = blk_unrealize,
	.reset = virtio_pci_reset,
	.state = &blk_state,
	.stopped = virtio_pci_stopped,
};
