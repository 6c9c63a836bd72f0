/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * All virtio devices behind their PCI transport, in a fake machine that is made
 * once. Input: commands of 8 bytes: configuration space, common structure,
 * device configuration, doorbells, memory, time. Rings are set up in place, so
 * that short inputs reach the devices.
 */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device/classes.h"
#include "fake_machine.h"
#include "image/block.h"
#include "machine/pci.h"
#include "util/log.h"

#define DEVICES 7
#define RINGS 0x10000 /* the part of memory that commands write */

static struct fake_machine *f;
static struct pci_device *pdev[DEVICES];
static struct netdev net;
static struct fake_chardev chardev;

static bool net_send(struct netdev *n, const struct iovec *iov, int cnt, size_t len)
{
	static uint8_t frame[70000];
	size_t sum = 0;

	for (int i = 0; i < cnt && sum + iov[i].iov_len <= sizeof(frame); i++) {
		memcpy(frame + sum, iov[i].iov_base, iov[i].iov_len);
		sum += iov[i].iov_len;
	}
	return true;
}

static void net_rx_ready(struct netdev *n)
{
}

static struct device *must(struct device *d)
{
	if (!d)
		abort();
	return d;
}

static void make_scsi_disk(void)
{
	struct device *d = must(device_new(f->m, device_class_find("scsi-hd"), NULL, NULL));
	struct block_options o = { .path = "disk", .fd = memfd_create("disk", MFD_CLOEXEC), .format = "raw" };

	if (ftruncate(o.fd, 1 << 20))
		abort();
	device_set_ptr(d, "drive", block_open(&o, NULL));
	if (device_realize(d, NULL))
		abort();
}

static void make_machine(void)
{
	static const char *const classes[DEVICES] = { "virtio-rng-pci", "virtio-balloon-pci", "virtio-serial-pci",
						      "virtio-net-pci", "virtio-blk-pci", "virtio-scsi-pci",
						      "virtio-vsock-pci" };
	static const struct netdev_ops ops = { .send = net_send, .rx_ready = net_rx_ready };
	int fd = memfd_create("disk", MFD_CLOEXEC);
	struct block_options o = { .path = "disk", .fd = fd, .format = "raw" };

	log_set_level(LOG_ERROR);
	net.ops = &ops;
	net.up = true;
	fake_chardev_init(&chardev);
	if (ftruncate(fd, 1 << 20))
		abort();
	f = fake_machine_new();
	fake_device(f, "mch", NULL);
	for (unsigned i = 0; i < DEVICES; i++) {
		struct device *d = must(device_new(f->m, device_class_find(classes[i]), NULL, NULL));

		if (i == 0)
			device_set(d, "period", "1", NULL);
		if (i == 2)
			device_set_ptr(d, "chardev", &chardev.chardev);
		if (i == 3)
			device_set_ptr(d, "netdev", &net);
		if (i == 4)
			device_set_ptr(d, "drive", block_open(&o, NULL));
		if (i == 6) {
			char path[64];

			snprintf(path, sizeof(path), "/tmp/keel-fuzz-vsock-%d", (int)getpid());
			device_set(d, "guest-cid", "3", NULL);
			device_set(d, "socket", path, NULL);
			device_realize(d, NULL);
			unlink(path);
		} else if (device_realize(d, NULL)) {
			abort();
		}
		pdev[i] = (struct pci_device *)d;
	}
	make_scsi_disk();
}

static void common(const struct pci_device *p, unsigned reg, uint64_t value, unsigned size)
{
	fake_write(f, p->bar[0].range.base + reg, value, size);
}

/* A driver in a hurry: features as the device offers them (packed or not), every queue enabled over the fuzzed memory.
 */
static void set_up(const struct pci_device *p, bool packed)
{
	uint64_t base = p->bar[0].range.base;

	common(p, 20, 0, 1);
	common(p, 20, 3, 1);
	for (unsigned half = 0; half < 2; half++) {
		common(p, 0, half, 4);
		common(p, 8, half, 4);
		common(p, 12, fake_read(f, base + 4, 4) & ~(half && !packed ? 4u : 0), 4);
	}
	common(p, 20, 11, 1);
	for (unsigned i = fake_read(f, base + 18, 2); i--;) {
		common(p, 22, i, 2);
		common(p, 24, 16, 2);
		common(p, 32, i % 4 * 0x1000, 8);
		common(p, 40, i % 4 * 0x1000 + 0x400, 8);
		common(p, 48, i % 4 * 0x1000 + 0x800, 8);
		common(p, 28, 1, 2);
	}
	common(p, 20, 15, 1);
}

static void back_end(unsigned what, const uint8_t *data)
{
	struct iovec iov = { (void *)data, 8 };

	switch (what % 5) {
	case 0:
		net.front->receive(net.front_opaque, &iov, 1, 8);
		break;
	case 1:
		net.front->writable(net.front_opaque);
		net.front->link(net.front_opaque, data[1] & 1);
		break;
	case 2:
		fake_chardev_type(&chardev, data, 8);
		break;
	case 3:
		chardev.room = data[1];
		chardev.chardev.front->writable(chardev.chardev.front_opaque);
		break;
	case 4:
		chardev.chardev.up = data[1] & 1;
		chardev.chardev.front->connected(chardev.chardev.front_opaque, data[1] & 1);
		break;
	}
}

static void command(const uint8_t *c)
{
	const struct pci_device *p = pdev[c[0] / 16 % DEVICES];
	uint64_t base = p->bar[0].range.base;
	uint16_t at = c[2] | c[3] << 8;
	uint32_t value = c[4] | c[5] << 8 | c[6] << 16 | (uint32_t)c[7] << 24;
	unsigned size = 1u << c[1] % 3;

	switch (c[0] % 16) {
	case 0:
		set_up(p, c[1] & 1);
		break;
	case 1:
		common(p, at % 64, value, size);
		break;
	case 2:
		fake_read(f, base + at % 0x4000, size);
		break;
	case 3:
		fake_write(f, base + at % 0x4000, value, size);
		break;
	case 4:
		fake_write(f, base + 0x3000 + c[1] % 20 * 4, c[1] % 20, 2);
		break;
	case 5:
		fake_write(f, Q35_ECAM_BASE + (p->devfn << 12) + at % 256, value, size);
		break;
	case 6:
		fake_read(f, Q35_ECAM_BASE + (p->devfn << 12) + at % 256, size);
		break;
	case 7:
		fake_machine_loop(f);
		break;
	case 8:
		fake_machine_advance(f, at * 100); /* little: libFuzzer looks at the same clock */
		break;
	case 9:
		back_end(c[1], c);
		break;
	case 10:
		machine_pause(f->m);
		machine_resume(f->m);
		break;
	default:
		mem_write(&f->m->mem, at, c + 1, 7);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (!f)
		make_machine();
	machine_pause(f->m);
	if (machine_reset(f->m, NULL))
		abort();
	mem_set(&f->m->mem, 0, 0, RINGS);
	chardev.room = SIZE_MAX;
	pci_assign_resources(f->m);
	for (unsigned i = 0; i < DEVICES; i++)
		fake_write(f, Q35_ECAM_BASE + (pdev[i]->devfn << 12) + 4, 6, 2);
	machine_resume(f->m);
	if (len > 4096) /* enough for a driver, and a turn stays short */
		len = 4096;
	for (; len >= 8; data += 8, len -= 8)
		command(data);
	fake_machine_loop(f);
	return 0;
}
