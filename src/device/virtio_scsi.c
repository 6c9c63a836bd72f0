/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-scsi (Virtio 1.2 §5.6): a controller whose disks (scsi_disk.c) come
 * and go. scsi.c knows what commands mean; here they are taken off the rings,
 * their I/O is done, and what they came to goes back.
 *
 * One I/O thread serves all queues. `lock` guards queues, requests, the bus and
 * the disks' units; the I/O thread never takes the device's lock.
 */
#include "device/virtio_scsi.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/log.h"

#define REQUEST_QUEUES 8
#define QUEUE_SIZE 256
#define SEG_MAX (QUEUE_SIZE - 2)
#define EVENTS 32
#define FILL_BYTES 65536u
#define FILL_PIECES 16

#define F_HOTPLUG (1ull << 1)
#define F_CHANGE (1ull << 2)

enum { Q_CONTROL, Q_EVENT, Q_REQUEST, QUEUES = Q_REQUEST + REQUEST_QUEUES };

struct __attribute__((packed)) scsi_config {
	uint32_t num_queues, seg_max, max_sectors, cmd_per_lun, event_info_size, sense_size, cdb_size;
	uint16_t max_channel, max_target;
	uint32_t max_lun;
};
_Static_assert(sizeof(struct scsi_config) == 36, "layout of Virtio 1.2 §5.6.4");

/* §5.6.6.1 */
struct __attribute__((packed)) command_header {
	uint8_t lun[8];
	uint64_t tag;
	uint8_t attribute, priority, crn, cdb[SCSI_CDB_MAX];
};
struct __attribute__((packed)) command_response {
	uint32_t sense_len, residual;
	uint16_t status_qualifier;
	uint8_t status, response, sense[96];
};
_Static_assert(sizeof(struct command_header) == 51 && sizeof(struct command_response) == 108, "layout of Virtio 1.2 §5.6.6.1");
enum { R_OK = 0, R_OVERRUN = 1, R_ABORTED = 2, R_BAD_TARGET = 3, R_TRANSPORT_FAILURE = 6, R_SUCCEEDED = 10, R_REJECTED = 11,
       R_INCORRECT_LUN = 12 };

/* §5.6.6.2 */
struct __attribute__((packed)) task_management {
	uint32_t type, subtype;
	uint8_t lun[8];
	uint64_t tag;
};
enum { T_TMF = 0, T_AN_QUERY = 1, T_AN_SUBSCRIBE = 2 };
enum { TMF_ABORT_TASK, TMF_ABORT_TASK_SET, TMF_CLEAR_ACA, TMF_CLEAR_TASK_SET, TMF_NEXUS_RESET, TMF_LUN_RESET, TMF_QUERY_TASK,
       TMF_QUERY_TASK_SET };

/* §5.6.6.3 */
struct scsi_event {
	uint32_t event;
	uint8_t lun[8];
	uint32_t reason;
};
enum { EVENT_TRANSPORT_RESET = 1, EVENT_PARAM_CHANGE = 3 };
#define EVENT_MISSED 0x80000000u
enum { REASON_RESCAN = 1, REASON_REMOVED = 2 };

struct virtio_scsi;

struct scsi_req {
	struct virtq_elem elem;
	struct block_request r;
	struct virtio_scsi *hba;
	struct virtqueue *vq;
	struct scsi_disk *disk;
	struct scsi_result result;
	struct iovec *data; /* the buffers of the command's data, in or out, without header and response */
	unsigned ndata, data_room;
	uint64_t in_len, out_len; /* bytes of data there is room for, and that came along */
	uint64_t tag;
	unsigned at_range;
	uint64_t done;      /* of a range that is filled */
	uint8_t *fill;
	struct scsi_req *next; /* in the list of free or of failed ones */
};

struct virtio_scsi {
	struct virtio_pci proxy; /* begins with struct device */
	struct virtio_device v;
	struct virtqueue vq[QUEUES];
	struct scsi_config config;
	uint32_t num_queues; /* property */

	struct loop *loop;
	pthread_t thread;

	pthread_mutex_t lock; /* the rest, and vq[] */
	pthread_cond_t idle;  /* some request ended, or a disk's queue was freed */
	struct scsi_disk *disk[SCSI_DISKS];
	unsigned ndisks;
	struct scsi_req *free, *failed;
	bool retrying;
	unsigned inflight[QUEUES], total;
	struct virtq_elem elem;
	struct scsi_event event[EVENTS]; /* wait for buffers of the driver's */
	uint32_t nevents;
	bool missed;
};

static struct virtio_scsi *scsi_of(struct virtio_device *v)
{
	return (struct virtio_scsi *)((uint8_t *)v - offsetof(struct virtio_scsi, v));
}

pthread_mutex_t *virtio_scsi_lock(struct virtio_scsi *s)
{
	return &s->lock;
}

/* ---- Addresses ------------------------------------------------------------------- */

/* §5.6.6.1: 1, target, and a number of the single level structure. */
static bool parse_lun(const uint8_t lun[8], unsigned *target, unsigned *number)
{
	if (lun[0] != 1 || (lun[2] && (lun[2] & 0xc0) != 0x40) || lun[4] || lun[5] || lun[6] || lun[7])
		return false;
	*target = lun[1];
	*number = (lun[2] & 0x3f) << 8 | lun[3];
	return true;
}

static void format_lun(const struct scsi_disk *d, uint8_t lun[8])
{
	memset(lun, 0, 8);
	lun[0] = 1;
	lun[1] = d->target;
	lun[2] = d->number < 256 ? 0 : 0x40 | d->number >> 8;
	lun[3] = d->number;
}

static struct scsi_disk *find_disk(struct virtio_scsi *s, unsigned target, unsigned number)
{
	for (unsigned i = 0; i < s->ndisks; i++)
		if (s->disk[i]->target == target && s->disk[i]->number == number)
			return s->disk[i];
	return NULL;
}

static int compare_numbers(const void *a, const void *b)
{
	return *(const uint16_t *)a - *(const uint16_t *)b;
}

/* Numbers of the units on a target, ascending. */
static unsigned units_of(struct virtio_scsi *s, unsigned target, uint16_t numbers[SCSI_DISKS])
{
	unsigned n = 0;

	for (unsigned i = 0; i < s->ndisks; i++)
		if (s->disk[i]->target == target)
			numbers[n++] = s->disk[i]->number;
	qsort(numbers, n, sizeof(numbers[0]), compare_numbers);
	return n;
}

/* ---- Requests; lock held, I/O thread ------------------------------------------------ */

static struct scsi_req *req_get(struct virtio_scsi *s)
{
	struct scsi_req *req = s->free;

	if (req)
		s->free = req->next;
	else
		req = calloc(1, sizeof(*req));
	if (req)
		req->hba = s;
	return req;
}

static void req_put(struct scsi_req *req)
{
	free(req->fill);
	req->fill = NULL;
	req->disk = NULL;
	req->next = req->hba->free;
	req->hba->free = req;
}

static void req_free(struct scsi_req *req)
{
	virtq_elem_free(&req->elem);
	free(req->data);
	free(req->fill);
	free(req);
}

/* Answer with `response`, what the result says, and `moved` bytes of data in either direction. */
static void req_end(struct scsi_req *req, uint8_t response, uint64_t moved)
{
	struct virtq_elem *e = &req->elem;
	uint64_t expected = req->in_len ? req->in_len : req->out_len;
	struct command_response r = { .response = response, .status = response ? 0 : req->result.status };
	uint64_t in = req->in_len ? moved : 0;

	if (!response && r.status == SCSI_CHECK_CONDITION) {
		scsi_sense(req->result.sense, r.sense);
		r.sense_len = SCSI_SENSE_LEN;
	}
	r.residual = expected > moved ? expected - moved : 0;
	iov_write(e->iov + e->nout, e->nin, 0, &r, sizeof(r));
	virtq_push(req->vq, e, sizeof(r) + in);
	req_put(req);
}

static void req_fail(struct scsi_req *req, uint32_t sense)
{
	req->result.status = SCSI_CHECK_CONDITION;
	req->result.sense = sense;
	req_end(req, R_OK, 0);
}

/* Count it among those in flight, or no longer. */
static void count(struct scsi_req *req, int by)
{
	struct virtio_scsi *s = req->hba;

	s->inflight[req->vq->index] += by;
	s->total += by;
	req->disk->inflight += by;
	if (by < 0)
		pthread_cond_broadcast(&s->idle);
}

/* `n` bytes of the buffers from byte `at` on as an array of their own. False: no memory. */
static bool take_data(struct scsi_req *req, const struct iovec *iov, unsigned n, uint64_t at, uint64_t len)
{
	if (n > req->data_room) {
		struct iovec *p = realloc(req->data, n * sizeof(*p));

		if (!p)
			return false;
		req->data = p;
		req->data_room = n;
	}
	req->ndata = 0;
	for (unsigned i = 0; i < n && len; i++) {
		uint64_t part;

		if (at >= iov[i].iov_len) {
			at -= iov[i].iov_len;
			continue;
		}
		part = iov[i].iov_len - at < len ? iov[i].iov_len - at : len;
		req->data[req->ndata++] = (struct iovec){ (uint8_t *)iov[i].iov_base + at, part };
		len -= part;
		at = 0;
	}
	return true;
}

static void io_done(struct block_request *r, int ret);

/* Send the range at hand, or the next piece of one that is filled. */
static void submit(struct scsi_req *req)
{
	struct scsi_result *x = &req->result;
	uint64_t offset = x->range[req->at_range].offset, len = x->range[req->at_range].len;

	req->r.op = x->op;
	req->r.iov = req->data;
	req->r.niov = req->ndata;
	req->r.fua = x->fua;
	req->r.unmap = x->unmap;
	req->r.done = io_done;
	req->r.opaque = req;
	if (x->fill) {
		uint64_t left = len - req->done, most = (uint64_t)FILL_BYTES * FILL_PIECES;

		offset += req->done;
		len = left < most ? left : most;
		for (req->ndata = 0, left = len; left; left -= req->data[req->ndata++].iov_len)
			req->data[req->ndata] = (struct iovec){ req->fill, left < FILL_BYTES ? left : FILL_BYTES };
		req->r.niov = req->ndata;
	}
	req->r.offset = offset;
	req->r.len = len;
	block_submit(req->disk->queue, &req->r);
}

/* One step is done. True: another one was sent. */
static bool go_on(struct scsi_req *req)
{
	struct scsi_result *x = &req->result;

	req->done += req->r.len;
	if (!x->fill || req->done == x->range[req->at_range].len) {
		req->at_range++;
		req->done = 0;
	}
	if (req->at_range == x->nranges)
		return false;
	submit(req);
	return true;
}

static void io_done(struct block_request *r, int ret)
{
	struct scsi_req *req = r->opaque;
	struct virtio_scsi *s = req->hba;
	struct scsi_result *x = &req->result;
	struct virtqueue *vq = req->vq;
	uint64_t moved = x->op == BLOCK_READ || (x->op == BLOCK_WRITE && !x->fill) ? x->range[0].len : req->out_len;
	enum disk_action action = DISK_REPORT;

	pthread_mutex_lock(&s->lock);
	/* What the image cannot do at all needs not be done: these are hints. */
	if (ret == -EOPNOTSUPP && (x->op == BLOCK_DISCARD || x->op == BLOCK_WRITE_ZEROES))
		ret = x->op == BLOCK_DISCARD ? 0 : ret;
	if (ret)
		action = disk_error(&req->disk->errors, x->op != BLOCK_READ, -ret);
	if (ret && action == DISK_STOP) {
		count(req, -1);
		req->next = s->failed;
		s->failed = req;
	} else if (ret && action == DISK_REPORT) {
		count(req, -1);
		req_fail(req, scsi_sense_of_error(-ret, x->op != BLOCK_READ));
		virtio_notify(&s->v, vq);
	} else if (!go_on(req)) {
		count(req, -1);
		req_end(req, R_OK, moved);
		virtio_notify(&s->v, vq);
	}
	pthread_mutex_unlock(&s->lock);
}

/* Data for the image's part of a command. False: the driver gave too little of it, or there is no memory. */
static bool prepare_data(struct scsi_req *req, uint8_t *response)
{
	struct virtq_elem *e = &req->elem;
	struct scsi_result *x = &req->result;
	uint64_t len = x->range[0].len;
	bool ok = true;

	*response = R_OVERRUN;
	if (x->fill) {
		uint32_t unit = req->disk->lun.block_size;

		*response = R_TRANSPORT_FAILURE;
		req->fill = malloc(FILL_BYTES);
		if (!req->fill || !take_data(req, e->iov, FILL_PIECES, 0, 0))
			return false;
		iov_read(e->iov, e->nout, sizeof(struct command_header), req->fill, unit);
		for (uint32_t at = unit; at < FILL_BYTES; at += unit)
			memcpy(req->fill + at, req->fill, unit);
	} else if (x->op == BLOCK_READ) {
		ok = len <= req->in_len && take_data(req, e->iov + e->nout, e->nin, sizeof(struct command_response), len);
	} else if (x->op == BLOCK_WRITE) {
		ok = len <= req->out_len && take_data(req, e->iov, e->nout, sizeof(struct command_header), len);
	} else {
		req->ndata = 0;
	}
	return ok;
}

static void start_io(struct scsi_req *req)
{
	struct virtio_scsi *s = req->hba;
	struct scsi_disk *d = req->disk;
	uint8_t response;

	if (!prepare_data(req, &response)) {
		req_end(req, response, 0);
		return;
	}
	if (!d->queue)
		d->queue = block_queue_new(d->lun.block, s->loop, QUEUE_SIZE / 2, NULL);
	if (!d->queue) {
		req_fail(req, SENSE_HARDWARE);
		return;
	}
	req->at_range = 0;
	req->done = 0;
	count(req, 1);
	submit(req);
}

static void run_command(struct scsi_req *req, const struct command_header *h)
{
	struct virtio_scsi *s = req->hba;
	struct virtq_elem *e = &req->elem;
	struct scsi_result *x = &req->result;
	uint16_t numbers[SCSI_DISKS];
	unsigned target, number, n;
	struct iovec *out;
	uint64_t len;

	if (!parse_lun(h->lun, &target, &number) || !(n = units_of(s, target, numbers))) {
		req_end(req, R_BAD_TARGET, 0);
		return;
	}
	req->disk = find_disk(s, target, number);
	if (!req->disk) {
		scsi_command_no_lun(h->cdb, numbers, n, x);
	} else {
		if (!take_data(req, e->iov, e->nout, sizeof(*h), req->out_len)) {
			req_end(req, R_TRANSPORT_FAILURE, 0);
			return;
		}
		out = req->data;
		scsi_command(&req->disk->lun, h->cdb, out, req->ndata, req->out_len, numbers, n, x);
	}
	if (x->io) {
		start_io(req);
		return;
	}
	if (x->ejected)
		disk_tray_moved(&req->disk->errors);
	len = x->len < req->in_len ? x->len : req->in_len;
	iov_write(e->iov + e->nout, e->nin, sizeof(struct command_response), x->data, len);
	req_end(req, R_OK, req->in_len ? len : req->out_len);
}

/* Take a popped buffer in hand. False: it is none of a request's form. */
static bool start(struct scsi_req *req)
{
	struct virtq_elem *e = &req->elem;
	struct command_header h;

	if (iov_read(e->iov, e->nout, 0, &h, sizeof(h)) != sizeof(h) || e->in_len < sizeof(struct command_response))
		return false;
	req->out_len = e->out_len - sizeof(h);
	req->in_len = e->in_len - sizeof(struct command_response);
	/* Both directions at once: offered by nobody here (VIRTIO_SCSI_F_INOUT). */
	if (req->out_len && req->in_len)
		req->in_len = 0;
	req->tag = h.tag;
	req->result.status = SCSI_GOOD;
	run_command(req, &h);
	return true;
}

static void run_requests(struct virtio_scsi *s, struct virtqueue *vq)
{
	struct virtio_device *v = &s->v;

	do {
		struct scsi_req *req;

		virtq_ignore(vq);
		while ((req = req_get(s)) && virtq_pop(vq, &req->elem) > 0) {
			req->vq = vq;
			if (!start(req)) {
				virtio_error(v, "a request without header or response");
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

/* The I/O thread, after the machine went on. */
static void retry(void *arg)
{
	struct virtio_scsi *s = arg;
	struct scsi_req *req;

	pthread_mutex_lock(&s->lock);
	s->retrying = false;
	while (virtio_may_run(&s->v) && (req = s->failed)) {
		s->failed = req->next;
		count(req, 1);
		submit(req);
	}
	for (unsigned i = 0; i < s->ndisks; i++)
		if (s->disk[i]->queue)
			block_kick(s->disk[i]->queue);
	pthread_mutex_unlock(&s->lock);
}

/* Failed requests of a queue or a disk, or all, end without an answer. */
static void forget_failed(struct virtio_scsi *s, const struct virtqueue *vq, const struct scsi_disk *d)
{
	struct scsi_req **p = &s->failed, *req;

	while ((req = *p)) {
		if ((vq && req->vq != vq) || (d && req->disk != d)) {
			p = &req->next;
			continue;
		}
		*p = req->next;
		if (d) /* the disk goes, the queue stays */
			req_end(req, R_TRANSPORT_FAILURE, 0);
		else
			req_put(req);
	}
}

/* ---- Control queue --------------------------------------------------------------------- */

/* Requests of a disk, or of all of a target's (number -1), end first. The lock is given up meanwhile. */
static void finish(struct virtio_scsi *s, unsigned target, int number)
{
	for (unsigned i = 0; i < s->ndisks; i++) {
		struct scsi_disk *d = s->disk[i];

		if (d->target != target || (number >= 0 && d->number != (unsigned)number) || !d->queue)
			continue;
		/* The disk cannot go: whoever takes it out needs this thread for it. */
		pthread_mutex_unlock(&s->lock);
		block_drain(d->queue);
		pthread_mutex_lock(&s->lock);
	}
}

static uint8_t manage_task(struct virtio_scsi *s, const struct task_management *t)
{
	uint16_t numbers[SCSI_DISKS];
	unsigned target, number;
	struct scsi_disk *d;

	if (!parse_lun(t->lun, &target, &number) || !units_of(s, target, numbers))
		return R_BAD_TARGET;
	d = find_disk(s, target, number);
	if (!d && t->subtype != TMF_NEXUS_RESET)
		return R_INCORRECT_LUN;
	switch (t->subtype) {
	case TMF_ABORT_TASK:
	case TMF_ABORT_TASK_SET:
	case TMF_CLEAR_TASK_SET:
		/* I/O that is under way cannot be called back: it ends, and then none is left. */
		finish(s, target, number);
		return R_OK;
	case TMF_LUN_RESET:
		finish(s, target, number);
		if ((d = find_disk(s, target, number)))
			scsi_lun_reset(&d->lun);
		return R_OK;
	case TMF_NEXUS_RESET:
		finish(s, target, -1);
		for (unsigned i = 0; i < s->ndisks; i++)
			if (s->disk[i]->target == target)
				scsi_lun_reset(&s->disk[i]->lun);
		return R_OK;
	case TMF_QUERY_TASK:
	case TMF_QUERY_TASK_SET:
		return d->inflight ? R_SUCCEEDED : R_OK;
	default:
		return R_REJECTED;
	}
}

static void run_control(struct virtio_scsi *s)
{
	struct virtqueue *vq = &s->vq[Q_CONTROL];
	struct virtq_elem *e = &s->elem;

	do {
		virtq_ignore(vq);
		while (virtq_pop(vq, e) > 0) {
			struct task_management t = { .type = UINT32_MAX };
			size_t n = iov_read(e->iov, e->nout, 0, &t, sizeof(t)), len = 0;
			uint8_t answer[5] = { 0 };

			/* A reset waits for it, as for requests. */
			s->inflight[Q_CONTROL]++;
			if (t.type == T_TMF && n == sizeof(t)) {
				answer[0] = manage_task(s, &t);
				len = 1;
			} else if ((t.type == T_AN_QUERY || t.type == T_AN_SUBSCRIBE) && n >= 16) {
				len = 5; /* no event of that kind is there */
			} else {
				answer[0] = answer[4] = R_REJECTED;
				len = n ? 1 : 0;
			}
			virtq_push(vq, e, iov_write(e->iov + e->nout, e->nin, 0, answer, len));
			s->inflight[Q_CONTROL]--;
			pthread_cond_broadcast(&s->idle);
		}
	} while (virtq_wait(vq));
	virtio_notify(&s->v, vq);
}

/* ---- Events; lock held, any thread --------------------------------------------------------- */

static void run_events(struct virtio_scsi *s)
{
	struct virtqueue *vq = &s->vq[Q_EVENT];
	struct virtq_elem e = { 0 };

	if (!vq->enabled || !virtio_may_run(&s->v))
		return;
	while (s->nevents || s->missed) {
		struct scsi_event ev = s->nevents ? s->event[0] : (struct scsi_event){ 0 };
		int ret;

		do {
			ret = virtq_pop(vq, &e);
		} while (!ret && virtq_wait(vq));
		if (ret <= 0)
			break;
		if (s->missed)
			ev.event |= EVENT_MISSED;
		s->missed = false;
		virtq_push(vq, &e, iov_write(e.iov + e.nout, e.nin, 0, &ev, sizeof(ev)));
		if (s->nevents)
			memmove(s->event, s->event + 1, --s->nevents * sizeof(s->event[0]));
	}
	virtio_notify(&s->v, vq);
	virtq_elem_free(&e);
}

static void add_event(struct virtio_scsi *s, const struct scsi_disk *d, uint32_t event, uint32_t reason)
{
	struct scsi_event ev = { .event = event, .reason = reason };

	if (!virtio_has(&s->v, event == EVENT_PARAM_CHANGE ? F_CHANGE : F_HOTPLUG) || !(s->v.status & VIRTIO_DRIVER_OK))
		return; /* a driver that starts later looks for itself */
	format_lun(d, ev.lun);
	if (s->nevents == EVENTS)
		s->missed = true;
	else
		s->event[s->nevents++] = ev;
	run_events(s);
}

void virtio_scsi_changed(struct scsi_disk *d, uint32_t sense)
{
	d->lun.attention = sense;
	add_event(d->hba, d, EVENT_PARAM_CHANGE, (sense >> 8 & 0xff) | (sense & 0xff) << 8);
}

/* ---- The bus; main loop's thread ------------------------------------------------------------- */

struct virtio_scsi *virtio_scsi_find(struct machine *m, const char *bus)
{
	size_t len = bus ? strcspn(bus, ".") : 0;

	for (struct device *d = m->devices; d; d = d->next) {
		if (strcmp(d->cls->name, "virtio-scsi-pci"))
			continue;
		if (!bus || (strlen(d->id) == len && !strncmp(d->id, bus, len) && (!bus[len] || !strcmp(bus + len, ".0"))))
			return (struct virtio_scsi *)d;
	}
	return NULL;
}

int virtio_scsi_attach(struct virtio_scsi *s, struct scsi_disk *d, struct err *err)
{
	uint16_t numbers[SCSI_DISKS];
	int ret = 0;

	pthread_mutex_lock(&s->lock);
	if (d->target == UINT32_MAX)
		for (d->target = 0; d->target < SCSI_TARGETS && units_of(s, d->target, numbers);)
			d->target++;
	if (d->target >= SCSI_TARGETS || s->ndisks == SCSI_DISKS)
		ret = err_set(err, ENOSPC, "the SCSI controller has no target %u: 0 to %d are possible, and %d disks", d->target,
			      SCSI_TARGETS - 1, SCSI_DISKS);
	else if (find_disk(s, d->target, d->number))
		ret = err_set(err, EBUSY, "lun %u of target %u is taken by %s", d->number, d->target,
			      find_disk(s, d->target, d->number)->dev.id);
	if (!ret) {
		d->hba = s;
		s->disk[s->ndisks++] = d;
		add_event(s, d, EVENT_TRANSPORT_RESET, REASON_RESCAN);
	}
	pthread_mutex_unlock(&s->lock);
	return ret;
}

/* The I/O thread: the disk is off the bus, or has no medium; its last requests end. */
static void close_queue(void *arg)
{
	struct scsi_disk *d = arg;
	struct virtio_scsi *s = d->hba;

	if (d->queue)
		block_drain(d->queue);
	pthread_mutex_lock(&s->lock);
	forget_failed(s, NULL, d);
	for (unsigned i = Q_REQUEST; i < s->v.nvq; i++)
		virtio_notify(&s->v, &s->vq[i]);
	pthread_mutex_unlock(&s->lock);
	block_queue_free(d->queue);
	pthread_mutex_lock(&s->lock);
	d->queue = NULL;
	d->closing = false;
	pthread_cond_broadcast(&s->idle);
	pthread_mutex_unlock(&s->lock);
}

/* Lock held: have the I/O thread do that. */
static void close_and_wait(struct scsi_disk *d)
{
	struct virtio_scsi *s = d->hba;

	d->closing = true;
	if (loop_post(s->loop, close_queue, d)) {
		log_line(LOG_ERROR, "no memory to take disk %s off its controller", d->dev.id);
		abort();
	}
	while (d->closing)
		pthread_cond_wait(&s->idle, &s->lock);
}

void virtio_scsi_detach(struct scsi_disk *d)
{
	struct virtio_scsi *s = d->hba;

	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < s->ndisks; i++) {
		if (s->disk[i] != d)
			continue;
		s->disk[i] = s->disk[--s->ndisks];
		break;
	}
	add_event(s, d, EVENT_TRANSPORT_RESET, REASON_REMOVED);
	close_and_wait(d);
	d->hba = NULL;
	pthread_mutex_unlock(&s->lock);
}

void virtio_scsi_set_medium(struct scsi_disk *d, struct block *b)
{
	struct virtio_scsi *s = d->hba;

	pthread_mutex_lock(&s->lock);
	d->lun.block = NULL; /* nothing new starts */
	close_and_wait(d);
	d->lun.block = b;
	virtio_scsi_changed(d, SENSE_MEDIUM_CHANGED);
	pthread_mutex_unlock(&s->lock);
}

/* ---- Device -------------------------------------------------------------------------------------- */

static void scsi_kick(struct virtio_device *v, struct virtqueue *vq)
{
	struct virtio_scsi *s = scsi_of(v);

	pthread_mutex_lock(&s->lock);
	if (vq->enabled && virtio_may_run(v)) {
		if (vq->index == Q_CONTROL)
			run_control(s);
		else if (vq->index == Q_EVENT)
			run_events(s);
		else
			run_requests(s, vq);
	}
	/* Completions come later, never from inside. */
	for (unsigned i = 0; i < s->ndisks; i++)
		if (s->disk[i]->queue)
			block_kick(s->disk[i]->queue);
	pthread_mutex_unlock(&s->lock);
}

static uint64_t scsi_features(struct virtio_device *v)
{
	return F_HOTPLUG | F_CHANGE;
}

/* Not inside a kick: the vCPU or the main loop waits for the I/O thread. */
static void scsi_queue_off(struct virtio_device *v, struct virtqueue *vq)
{
	struct virtio_scsi *s = scsi_of(v);

	pthread_mutex_lock(&s->lock);
	vq->enabled = false;
	while (s->inflight[vq->index])
		pthread_cond_wait(&s->idle, &s->lock);
	forget_failed(s, vq, NULL);
	pthread_mutex_unlock(&s->lock);
}

static void scsi_reset(struct virtio_device *v)
{
	struct virtio_scsi *s = scsi_of(v);

	pthread_mutex_lock(&s->lock);
	s->nevents = 0;
	s->missed = false;
	pthread_mutex_unlock(&s->lock);
}

static void scsi_stopped(struct virtio_device *v, bool stopped)
{
	struct virtio_scsi *s = scsi_of(v);

	pthread_mutex_lock(&s->lock);
	while (stopped && (s->total || s->inflight[Q_CONTROL]))
		pthread_cond_wait(&s->idle, &s->lock);
	for (unsigned i = 0; i < s->ndisks && !stopped; i++)
		disk_errors_resume(&s->disk[i]->errors);
	if (!stopped && s->failed && !s->retrying)
		s->retrying = !loop_post(s->loop, retry, s);
	pthread_mutex_unlock(&s->lock);
}

static const struct virtio_ops scsi_ops = {
	.name = "virtio-scsi",
	.id = VIRTIO_ID_SCSI,
	.own_lock = true,
	.features = scsi_features,
	.kick = scsi_kick,
	.queue_off = scsi_queue_off,
	.reset = scsi_reset,
	.stopped = scsi_stopped,
};

static void fill_config(struct virtio_scsi *s)
{
	s->config = (struct scsi_config){
		.num_queues = s->num_queues, .seg_max = SEG_MAX, .max_sectors = 65535, .cmd_per_lun = QUEUE_SIZE / 2,
		.event_info_size = sizeof(struct scsi_event), .sense_size = 96, .cdb_size = SCSI_CDB_MAX,
		.max_target = SCSI_TARGETS - 1, .max_lun = SCSI_LUNS - 1,
	};
	s->v.config = (uint8_t *)&s->config;
	s->v.config_size = sizeof(s->config);
	for (unsigned i = 0; i < Q_REQUEST + s->num_queues; i++)
		s->vq[i].max = i < Q_REQUEST ? 64 : QUEUE_SIZE;
	s->v.queue_lock = &s->lock;
}

static void scsi_destroy(struct virtio_scsi *s)
{
	virtio_exit(&s->v);
	loop_free(s->loop);
	forget_failed(s, NULL, NULL);
	while (s->free) {
		struct scsi_req *req = s->free;

		s->free = req->next;
		req_free(req);
	}
	virtq_elem_free(&s->elem);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->idle);
}

static int scsi_realize(struct device *d, struct err *err)
{
	struct virtio_scsi *s = (struct virtio_scsi *)d;
	int ret;

	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->idle, NULL);
	fill_config(s);
	s->loop = loop_new(err);
	ret = s->loop ? virtio_init(&s->v, &scsi_ops, d, s->vq, Q_REQUEST + s->num_queues, s->loop, err) : -ENOMEM;
	if (!ret)
		ret = virtio_pci_realize(&s->proxy, &s->v, 0x010000, err);
	if (!ret) {
		ret = virtio_thread_start(&s->v, "io", &s->thread, err);
		if (!ret)
			return 0;
		virtio_pci_unrealize(d);
	}
	scsi_destroy(s);
	return ret;
}

static void scsi_unrealize(struct device *d)
{
	struct virtio_scsi *s = (struct virtio_scsi *)d;

	virtio_pci_unrealize(d); /* waits for what is in flight */
	virtio_thread_end(&s->v, s->thread);
	scsi_destroy(s);
}

static int scsi_loaded(void *obj, struct err *err)
{
	struct virtio_scsi *s = obj;

	if (s->nevents > EVENTS) {
		s->nevents = 0;
		return err_set(err, EINVAL, "it has more events than there is room for");
	}
	return virtio_loaded(&s->v, err);
}

static const struct property scsi_props[] = {
	VIRTIO_PCI_PROPS(struct virtio_scsi),
	PROP_DEF_U32(struct virtio_scsi, num_queues, "num_queues", "1", 1, REQUEST_QUEUES, "request queues"),
	{ 0 },
};

static const struct state_field event_fields[] = {
	STATE_FIELD_U32(struct scsi_event, event),
	STATE_ARRAY_U8(struct scsi_event, lun),
	STATE_FIELD_U32(struct scsi_event, reason),
	STATE_END,
};
static const struct state_desc event_state = { .name = "event", .version = 1, .fields = event_fields };

/* Nothing is in flight while the machine is stopped, so requests are no state. */
static const struct state_field scsi_fields[] = {
	STATE_FIELD_STRUCT(struct virtio_scsi, proxy, &virtio_pci_state),
	STATE_FIELD_STRUCT(struct virtio_scsi, v, &virtio_device_state),
	STATE_ARRAY_STRUCT(struct virtio_scsi, vq, &virtq_state),
	STATE_ARRAY_STRUCT(struct virtio_scsi, event, &event_state),
	STATE_FIELD_U32(struct virtio_scsi, nevents),
	STATE_FIELD_BOOL(struct virtio_scsi, missed),
	STATE_END,
};
static const struct state_desc scsi_state = {
	.name = "virtio-scsi-pci", .version = 1, .fields = scsi_fields, .post_load = scsi_loaded,
};

const struct device_class virtio_scsi_class = {
	.name = "virtio-scsi-pci",
	.description = "SCSI controller (virtio)",
	.size = sizeof(struct virtio_scsi),
	.props = scsi_props,
	.realize = scsi_realize,
	.unrealize = scsi_unrealize,
	.reset = virtio_pci_reset,
	.state = &scsi_state,
	.stopped = virtio_pci_stopped,
};
