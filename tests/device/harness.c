/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "harness.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fake_vhost.h"
#include "image/block.h"
#include "machine/pci.h"

#define RANGES 1024

static struct {
	struct bus *bus;
	struct io_range *range;
} live[RANGES];
static unsigned lives;
static pthread_mutex_t lives_lock = PTHREAD_MUTEX_INITIALIZER;

int __real_bus_add(struct bus *bus, struct io_range *range, struct err *err);
int __wrap_bus_add(struct bus *bus, struct io_range *range, struct err *err);
void __real_bus_del(struct bus *bus, struct io_range *range);
void __wrap_bus_del(struct bus *bus, struct io_range *range);

int __wrap_bus_add(struct bus *bus, struct io_range *range, struct err *err)
{
	int ret = __real_bus_add(bus, range, err);

	pthread_mutex_lock(&lives_lock);
	if (!ret) {
		assert(lives < RANGES);
		live[lives].bus = bus;
		live[lives++].range = range;
	}
	pthread_mutex_unlock(&lives_lock);
	return ret;
}

void __wrap_bus_del(struct bus *bus, struct io_range *range)
{
	pthread_mutex_lock(&lives_lock);
	for (unsigned i = 0; i < lives; i++) {
		if (live[i].bus == bus && live[i].range == range) {
			memmove(&live[i], &live[i + 1], (lives - i - 1) * sizeof(live[0]));
			lives--;
			break;
		}
	}
	pthread_mutex_unlock(&lives_lock);
	__real_bus_del(bus, range);
}

/* By bus and address: the same for machines in the same state, whatever their past. */
static int compare_ranges(const void *a, const void *b)
{
	const struct harness_range *x = a, *y = b;

	if (x->mmio != y->mmio)
		return x->mmio - y->mmio;
	if (x->base != y->base)
		return x->base < y->base ? -1 : 1;
	return strcmp(x->name, y->name);
}

unsigned harness_ranges(struct fake_machine *f, struct harness_range *out, unsigned max)
{
	unsigned n = 0;

	pthread_mutex_lock(&lives_lock);
	for (unsigned i = 0; i < lives && n < max; i++)
		if (live[i].bus == f->m->pio || live[i].bus == f->m->mmio)
			out[n++] = (struct harness_range){ live[i].bus, live[i].bus == f->m->mmio, live[i].range->base,
							   live[i].range->size, live[i].range->name };
	pthread_mutex_unlock(&lives_lock);
	qsort(out, n, sizeof(*out), compare_ranges);
	return n;
}

/* ---- Back ends ----------------------------------------------------------- */

#define STREAMS 8
struct backends {
	struct fake_chardev stream[STREAMS];
	unsigned streams;
	struct block *block;
	struct netdev netdev[2], *queues[2]; /* takes every frame, brings none */
};

static bool netdev_send(struct netdev *n, const struct iovec *iov, int cnt, size_t len)
{
	return true;
}

static void netdev_nothing(struct netdev *n)
{
}

static void netdev_offload(struct netdev *n, unsigned offload)
{
}

static void netdev_set_queues(struct netdev *n, unsigned pairs)
{
}

static const struct netdev_ops netdev_ops = {
	.set_queues = netdev_set_queues, .send = netdev_send, .rx_ready = netdev_nothing, .set_offload = netdev_offload, .free = netdev_nothing
};

const struct device_class harness_board = { .name = "q35 board" };

static void backends_free(void *opaque)
{
	struct backends *b = opaque;

	block_close(b->block);
	free(b);
}

static struct chardev *new_stream(struct backends *b)
{
	if (b->streams == STREAMS)
		return NULL;
	fake_chardev_init(&b->stream[b->streams]);
	return &b->stream[b->streams++].chardev;
}

static struct block *new_block(struct err *err)
{
	struct block_options o = { .path = "harness", .format = "raw" };

	o.fd = memfd_create("harness", MFD_CLOEXEC);
	if (o.fd < 0 || ftruncate(o.fd, 1 << 20))
		abort();
	return block_open(&o, err);
}

static int add_device(struct fake_machine *f, struct backends *b, const struct device_class *cls, struct err *err)
{
	struct device *d;

	/* Disks on a bus, and the bus. */
	if (!strncmp(cls->name, "scsi-", 5))
		fake_device(f, "virtio-scsi-pci", NULL);
	d = device_new(f->m, cls, "dut", err);

	if (!d)
		return -err->code;
	if (!strncmp(cls->name, "vhost-user-", 11)) {
		char fd[16];

		snprintf(fd, sizeof(fd), "%d", fake_vhost_new(1));
		device_set(d, "fd", fd, err);
		if (!strcmp(cls->name, "vhost-user-fs-pci"))
			device_set(d, "tag", "harness", err);
	}
	if (!strcmp(cls->name, "virtio-vsock-pci")) {
		static unsigned n;
		char path[64];

		snprintf(path, sizeof(path), "/tmp/keel-vsock-%d-%u", (int)getpid(), n++);
		device_set(d, "guest-cid", "3", err);
		device_set(d, "socket", path, err);
	}
	for (const struct property *p = cls->props; p && p->name; p++) {
		if (p->type == PROP_PTR && !strcmp(p->name, "drive"))
			device_set_ptr(d, p->name, b->block = new_block(err));
		else if (p->type == PROP_PTR && !strcmp(p->name, "chardev"))
			device_set_ptr(d, p->name, new_stream(b));
		else if (p->type == PROP_PTR && !strcmp(p->name, "netdev"))
			device_set_ptr(d, p->name, &b->netdev[0]);
	}
	return device_realize(d, err);
}

static int add_board(struct fake_machine *f, struct backends *b, struct err *err)
{
	struct q35_options o = { .debugcon = true, .debug_exit = true, .pvpanic = true, .root_ports = 2 };

	for (unsigned i = 0; i < 4; i++)
		o.serial[i] = new_stream(b);
	o.debug_out = new_stream(b);
	return q35_init(f->m, &o, err);
}

void harness_peers(struct fake_machine *f, uint64_t random)
{
	struct backends *b = f->user;
	struct fake_chardev *c;

	if (!b->streams)
		return;
	c = &b->stream[random % b->streams];
	switch (random >> 8 & 3) {
	case 0:
		c->room = random >> 16 & 255;
		break;
	case 1:
		c->room = SIZE_MAX;
		if (c->chardev.front && c->chardev.front->writable)
			c->chardev.front->writable(c->chardev.front_opaque);
		break;
	default:
		if (c->chardev.front)
			fake_chardev_type(c, &random, random >> 16 & 7);
	}
}

struct fake_machine *harness_new(const struct device_class *cls, struct err *err)
{
	struct fake_machine *f = fake_machine_new();
	struct backends *b = calloc(1, sizeof(*b));
	int ret;

	if (!b)
		abort();
	for (unsigned i = 0; i < 2; i++) {
		b->netdev[i] = (struct netdev){ .ops = &netdev_ops, .up = true };
		b->queues[i] = &b->netdev[i];
	}
	b->netdev[0].queue = b->queues;
	b->netdev[0].queues = 2;
	f->user = b;
	f->user_free = backends_free;
	if (cls != &harness_board && strcmp(cls->name, "mch"))
		fake_device(f, "mch", NULL);
	ret = cls == &harness_board ? add_board(f, b, err) : add_device(f, b, cls, err);
	if (ret) {
		fake_machine_free(f);
		return NULL;
	}
	harness_firmware(f);
	machine_resume(f->m);
	return f;
}

struct device *harness_device(struct fake_machine *f)
{
	return machine_find(f->m, "dut");
}

static void enable(struct pci_device *pdev, unsigned bus_nr, void *opaque)
{
	struct fake_machine *f = opaque;

	fake_write(f, Q35_ECAM_BASE + (bus_nr << 20 | pdev->devfn << 12) + 4, 0x0007, 2);
}

void harness_firmware(struct fake_machine *f)
{
	pci_assign_resources(f->m);
	pci_for_each(f->m, enable, f);
}

struct nth {
	unsigned wanted, seen;
	uint32_t address;
};

static void nth_function(struct pci_device *pdev, unsigned bus_nr, void *opaque)
{
	struct nth *n = opaque;

	if (n->seen++ == n->wanted || n->seen == 1)
		n->address = bus_nr << 20 | pdev->devfn << 12;
}

/* Inside ECAM: mostly the first 256 bytes of a function that there is. */
static uint64_t ecam_offset(struct fake_machine *f, uint64_t r, uint64_t where)
{
	struct nth n = { .wanted = r % 3 };

	if ((r >> 8) % 16 == 0)
		return where;
	pci_for_each(f->m, nth_function, &n);
	return n.address + ((r >> 12) % 4 ? where % 256 : where % 4096);
}

/* Values that registers find interesting, or any. */
static uint64_t pick_value(uint64_t r)
{
	static const uint64_t values[] = { 0, 1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0xff, 0x8000, 0xffff,
					   0x80000000, 0xffffffff, 0x100000000, UINT64_MAX };

	switch (r & 3) {
	case 0:
		return values[r >> 2 & 15];
	case 1:
		return r >> 8 & 0xff;
	default:
		return r >> 2;
	}
}

uint64_t harness_access(struct fake_machine *f, uint64_t (*random)(void *opaque), void *opaque)
{
	struct harness_range ranges[256];
	unsigned n = harness_ranges(f, ranges, 256), size;
	uint64_t r = random(opaque), where = random(opaque), offset, base = 0;
	struct bus *bus;

	if (!n || r % 64 == 0) { /* anywhere: most of it is nobody's */
		bus = r & 64 ? f->m->pio : f->m->mmio;
		offset = bus == f->m->pio ? where & 0xffff : where;
	} else {
		const struct harness_range *range = &ranges[(r >> 8) % n];

		/* Half of the accesses to the bridge's own registers go elsewhere. */
		if (r >> 7 & 1 && (!strcmp(range->name, "ECAM") || !strcmp(range->name, "PCI config")))
			range = &ranges[where % n];
		bus = range->bus;
		base = range->base;
		if (!strcmp(range->name, "ECAM"))
			offset = ecam_offset(f, r >> 24, where % range->size);
		else
			offset = (r >> 24) % 4 ? where % range->size : where % (range->size < 64 ? range->size : 64);
	}
	size = 1u << (r >> 40) % (bus == f->m->pio ? 3 : 4);
	if ((r >> 44) % 8)
		offset &= ~(uint64_t)(size - 1);
	if (r >> 48 & 1)
		return bus_read(bus, base + offset, size);
	bus_write(bus, base + offset, pick_value(random(opaque)), size);
	return 0;
}

void harness_describe(const struct state_buf *a, const struct state_buf *b)
{
	struct state_reader ra = { .data = a->data, .len = a->len }, rb = { .data = b->data, .len = b->len };

	while (state_next(&ra, NULL) > 0 && state_next(&rb, NULL) > 0) {
		size_t n = ra.body_len < rb.body_len ? ra.body_len : rb.body_len, i = 0;

		while (i < n && ra.body[i] == rb.body[i])
			i++;
		if (i < n || ra.body_len != rb.body_len)
			fprintf(stderr, "section %s (%s): byte %zu was %02x, is %02x; lengths %zu, %zu\n", ra.id, ra.name,
				i, i < ra.body_len ? ra.body[i] : 0, i < rb.body_len ? rb.body[i] : 0, ra.body_len,
				rb.body_len);
	}
}
