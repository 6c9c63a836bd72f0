/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/classes.h"
#include "device/net_csum.h"
#include "util/log.h"
#include "virtio_driver.h"

#define F_CSUM (1ull << 0)
#define F_GUEST_CSUM (1ull << 1)
#define F_MTU (1ull << 3)
#define F_MAC (1ull << 5)
#define F_GUEST_TSO4 (1ull << 7)
#define F_HOST_TSO4 (1ull << 11)
#define F_MRG (1ull << 15)
#define F_STATUS (1ull << 16)
#define F_CTRL_VQ (1ull << 17)
#define F_CTRL_RX (1ull << 18)
#define F_CTRL_VLAN (1ull << 19)
#define F_CTRL_RX_EXTRA (1ull << 20)
#define F_ANNOUNCE (1ull << 21)
#define F_CTRL_MAC (1ull << 23)
#define F_CTRL (F_CTRL_VQ | F_CTRL_RX | F_CTRL_RX_EXTRA | F_CTRL_MAC)
#define HDR 12

/* ---- The back end ------------------------------------------------------------ */

struct wire {
	struct netdev netdev;
	uint8_t sent[8][70000];
	size_t len[8];
	unsigned n;          /* frames sent by the guest */
	bool busy;           /* send() refuses */
	unsigned rx_readies, refused, offload;
	/* A frame the guest had no buffer for. */
	uint8_t held[70000];
	size_t held_len;
};
static struct wire w;

static bool wire_send(struct netdev *n, const struct iovec *iov, int cnt, size_t len)
{
	size_t sum = 0;

	if (w.busy) {
		w.refused++;
		return false;
	}
	for (int i = 0; i < cnt; i++) {
		assert_true(sum + iov[i].iov_len <= 70000);
		memcpy(w.sent[w.n % 8] + sum, iov[i].iov_base, iov[i].iov_len);
		sum += iov[i].iov_len;
	}
	assert_int_equal(sum, len);
	w.len[w.n++ % 8] = len;
	return true;
}

static void wire_rx_ready(struct netdev *n)
{
	struct iovec iov = { w.held, w.held_len };

	w.rx_readies++;
	if (w.held_len && w.netdev.front->receive(w.netdev.front_opaque, &iov, 1, w.held_len))
		w.held_len = 0;
}

static void wire_offload(struct netdev *n, unsigned flags)
{
	w.offload = flags;
}

/* In pieces, as back ends may. False: held. */
static bool wire_receive(const uint8_t *frame, size_t len)
{
	struct iovec iov[3] = { { (void *)frame, len / 3 }, { (void *)(frame + len / 3), 0 },
				{ (void *)(frame + len / 3), len - len / 3 } };

	if (w.netdev.front->receive(w.netdev.front_opaque, iov, 3, len))
		return true;
	memcpy(w.held, frame, len);
	w.held_len = len;
	return false;
}

static const struct netdev_ops wire_ops = { .send = wire_send, .rx_ready = wire_rx_ready, .set_offload = wire_offload };

/* ---- Machine ------------------------------------------------------------------- */

static struct fake_machine *f;
static struct drv d;
static struct drv_queue rx, tx, ctrl;

static void machine_up(const char *prop, const char *value)
{
	struct err err = ERR_INIT;
	struct device *dev;

	w.netdev.front = NULL;
	f = fake_machine_new();
	fake_device(f, "mch", NULL);
	dev = device_new(f->m, device_class_find("virtio-net-pci"), "net", &err);
	device_set_ptr(dev, "netdev", &w.netdev);
	if (prop)
		assert_int_equal(device_set(dev, prop, value, NULL), 0);
	if (device_realize(dev, &err))
		fail_msg("%s", err_msg(&err));
	drv_init(&d, f, dev);
	machine_resume(f->m);
}

static int setup(void **state)
{
	log_set_level(LOG_ERROR);
	memset(&w, 0, sizeof(w));
	w.netdev.ops = &wire_ops;
	w.netdev.up = true;
	machine_up("mac", "52:54:00:aa:bb:cc");
	return 0;
}

static int teardown(void **state)
{
	machine_pause(f->m);
	fake_machine_free(f);
	return 0;
}

static void start(unsigned kind, uint64_t features)
{
	d.heap = 1 << 20;
	assert_true(drv_negotiate(&d, drv_kind_features(kind) | features, true));
	drv_queue(&d, 0, &rx, 64);
	drv_queue(&d, 1, &tx, 64);
	if (d.features & F_CTRL_VQ)
		drv_queue(&d, 2, &ctrl, 16);
	drv_ok(&d);
	drv_interrupts(&rx, true);
	drv_interrupts(&tx, true);
	fake_machine_loop(f);
	fake_msi_clear(f);
}

static struct drv_buf rx_bufs[64];
static unsigned rx_next;

/* `n` receive buffers of `len` bytes each. */
static void post(unsigned n, uint32_t len)
{
	for (unsigned i = 0; i < n; i++) {
		struct drv_buf *b = &rx_bufs[rx_next++ % 64];

		*b = (struct drv_buf){ drv_alloc(&d, len, 64), len, true };
		memset(d.ram + b->gpa, 0xee, len);
		assert_true(drv_add(&rx, b, 1, b));
	}
	if (drv_must_notify(&rx))
		drv_notify(&d, 0);
	fake_machine_loop(f);
}

/* The next received frame, merged, into `to`; its length without header, -1: none. */
static int get_frame(uint8_t *to, uint8_t hdr[HDR])
{
	uint32_t len, have = 0;
	struct drv_buf *b = drv_get(&rx, &len);
	unsigned n;

	if (!b)
		return -1;
	memcpy(hdr, d.ram + b->gpa, HDR);
	n = hdr[10] | hdr[11] << 8;
	assert_true(n >= 1 && len >= HDR);
	memcpy(to, d.ram + b->gpa + HDR, have = len - HDR);
	while (--n) {
		b = drv_get(&rx, &len);
		assert_non_null(b); /* all at once */
		memcpy(to + have, d.ram + b->gpa, len);
		have += len;
	}
	return have;
}

static void make_frame(uint8_t *p, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		p[i] = seed + i * 11;
	memset(p, 0xff, 6); /* broadcast */
	p[12] = 0x88;
	p[13] = 0xb5;
}

static const uint8_t our_mac[6] = { 0x52, 0x54, 0x00, 0xaa, 0xbb, 0xcc };
static uint8_t frame[70000], got[70000], hdr[HDR];

/* ---- Tests ----------------------------------------------------------------------- */

static void test_config(void **state)
{
	struct err err = ERR_INIT;
	struct device *dev;

	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(fake_read(f, d.config + i, 1), our_mac[i]);
	assert_int_equal(fake_read(f, d.config + 6, 2), 1);
	assert_int_equal(fake_read(f, d.config + 8, 2), 1);
	assert_false(drv_offered(&d) & (F_MTU | F_GUEST_TSO4 | F_HOST_TSO4));
	assert_true((drv_offered(&d) & (F_MAC | F_STATUS | F_MRG | F_CTRL | F_CTRL_VLAN | F_ANNOUNCE)) ==
		    (F_MAC | F_STATUS | F_MRG | F_CTRL | F_CTRL_VLAN | F_ANNOUNCE));
	/* Dependencies. */
	assert_false(drv_negotiate(&d, DRV_F_VERSION_1 | F_CTRL_RX, false));
	/* Refusals. */
	dev = device_new(f->m, device_class_find("virtio-net-pci"), NULL, NULL);
	assert_int_equal(device_realize(dev, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "netdev is missing"));
	dev = device_new(f->m, device_class_find("virtio-net-pci"), NULL, NULL);
	device_set_ptr(dev, "netdev", &w.netdev);
	err = ERR_INIT;
	assert_int_equal(device_realize(dev, &err), -EBUSY);
	teardown(NULL);
	w.netdev.mtu = 65520;
	machine_up(NULL, NULL);
	assert_true(drv_offered(&d) & F_MTU);
	assert_int_equal(fake_read(f, d.config + 10, 2), 65520);
	/* An address of its own: local, unicast, the same every time. */
	assert_int_equal(fake_read(f, d.config, 1), 0x52);
	memset(got, 0, 12);
	for (unsigned i = 0; i < 6; i++)
		got[i] = fake_read(f, d.config + i, 1);
	teardown(NULL);
	machine_up(NULL, NULL);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(got[i], fake_read(f, d.config + i, 1));
}

static void test_mac_text(void **state)
{
	static const char *const bad[] = { "52:54:00:12:34", "52:54:00:12:34:56:78", "hello", "53:54:00:12:34:56", "" };

	teardown(NULL);
	f = fake_machine_new();
	fake_device(f, "mch", NULL);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct device *dev = device_new(f->m, device_class_find("virtio-net-pci"), NULL, NULL);
		struct err err = ERR_INIT;

		w.netdev.front = NULL;
		device_set_ptr(dev, "netdev", &w.netdev);
		device_set(dev, "mac", bad[i], NULL);
		assert_int_equal(device_realize(dev, &err), -EINVAL);
		assert_non_null(strstr(err.msg, "mac"));
	}
}

static void test_receive(void **state)
{
	static const uint16_t sizes[] = { 14, 60, 1514, 1515, 9014, 65535 };

	for (unsigned kind = 0; kind < DRV_KINDS; kind++) {
		start(kind, F_MRG | F_MAC);
		for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			make_frame(frame, sizes[i], i);
			post(sizes[i] / 1500 + 2, 1536);
			assert_true(wire_receive(frame, sizes[i]));
			assert_int_equal(get_frame(got, hdr), sizes[i]);
			assert_memory_equal(got, frame, sizes[i]);
			assert_int_equal(hdr[0] | hdr[1], 0);
			assert_true(drv_messages(&d, 1) > 0);
			drv_interrupts(&rx, true);
		}
	}
}

static void test_receive_unmerged(void **state)
{
	start(0, F_MAC);
	make_frame(frame, 1514, 1);
	post(2, 1526);
	assert_true(wire_receive(frame, 1514));
	assert_int_equal(get_frame(got, hdr), 1514);
	assert_memory_equal(got, frame, 1514);
	/* Too long for the buffers: dropped, and the buffer is still there for the next. */
	assert_true(wire_receive(frame, 1515));
	assert_int_equal(get_frame(got, hdr), -1);
	assert_true(wire_receive(frame, 100));
	assert_int_equal(get_frame(got, hdr), 100);
}

/* No buffer: the back end holds the frame until there are enough. */
static void test_receive_waits(void **state)
{
	for (unsigned kind = 0; kind < DRV_KINDS; kind++) {
		start(kind, F_MRG);
		w.rx_readies = 0;
		make_frame(frame, 5000, kind);
		assert_false(wire_receive(frame, 5000));
		post(2, 1000); /* not enough: asked, refused again */
		assert_int_equal(w.rx_readies, 1);
		assert_int_equal(w.held_len, 5000);
		assert_int_equal(get_frame(got, hdr), -1);
		post(2, 1000);
		assert_int_equal(w.held_len, 5000);
		post(4, 1000);
		assert_int_equal(w.held_len, 0);
		assert_int_equal(get_frame(got, hdr), 5000);
		assert_memory_equal(got, frame, 5000);
		assert_int_equal(hdr[10], 6);
		/* Two buffers are left over. */
		make_frame(frame, 1500, 3);
		assert_true(wire_receive(frame, 1500));
		assert_int_equal(get_frame(got, hdr), 1500);
	}
	/* Buffers so small that no number of them will do: dropped. */
	start(0, F_MRG);
	post(60, 16);
	make_frame(frame, 1500, 3);
	assert_false(wire_receive(frame, 1500)); /* 60 x 16: the driver may add some */
	w.held_len = 0;
	start(0, F_MRG);
	w.held_len = 0;
	post(63, 600);
	make_frame(frame, 60000, 3);
	assert_false(wire_receive(frame, 60000));
	w.held_len = 0;
}

static void test_not_running(void **state)
{
	make_frame(frame, 100, 1);
	assert_true(wire_receive(frame, 100)); /* no driver: nobody to wait for */
	start(0, 0);
	post(4, 1600);
	machine_pause(f->m);
	assert_false(wire_receive(frame, 100)); /* standing still: the frame waits */
	machine_resume(f->m);
	fake_machine_loop(f);
	assert_int_equal(w.held_len, 0);
	assert_int_equal(get_frame(got, hdr), 100);
}

static void send(const uint8_t *p, size_t len, const uint8_t *header, unsigned pieces)
{
	uint64_t at = drv_alloc(&d, len + HDR, 64);
	struct drv_buf b[16];
	size_t off = 0, total = len + HDR;
	unsigned n = 0;

	memset(d.ram + at, 0, HDR);
	if (header)
		memcpy(d.ram + at, header, HDR);
	memcpy(d.ram + at + HDR, p, len);
	while (n < pieces - 1 && off < total) {
		size_t part = total / pieces;

		if (!part)
			break;
		b[n++] = (struct drv_buf){ at + off, part, false };
		off += part;
	}
	b[n++] = (struct drv_buf){ at + off, total - off, false };
	assert_true(drv_add(&tx, b, n, &tx));
	if (drv_must_notify(&tx))
		drv_notify(&d, 1);
	fake_machine_loop(f);
}

static void test_send(void **state)
{
	static const uint16_t sizes[] = { 14, 60, 1514, 9014, 65535 };
	uint32_t len;

	for (unsigned kind = 0; kind < DRV_KINDS; kind++) {
		start(kind, F_MAC);
		w.n = 0;
		for (unsigned i = 0; i < 5; i++) {
			make_frame(frame, sizes[i], i + kind);
			send(frame, sizes[i], NULL, 1 + i * 3);
			assert_int_equal(w.n, i + 1);
			assert_int_equal(w.len[i], sizes[i]);
			assert_memory_equal(w.sent[i], frame, sizes[i]);
			assert_non_null(drv_get(&tx, &len));
			assert_int_equal(len, 0);
		}
		assert_true(drv_messages(&d, 2) > 0);
		/* Too short and too long: dropped, but returned. */
		w.n = 0;
		send(frame, 0, NULL, 1);
		assert_non_null(drv_get(&tx, &len));
		send(frame, 65551, NULL, 2);
		assert_non_null(drv_get(&tx, &len));
		assert_int_equal(w.n, 0);
	}
}

static void test_send_busy(void **state)
{
	for (unsigned kind = 0; kind < DRV_KINDS; kind++) {
		uint32_t len;

		start(kind, 0);
		w.n = w.refused = 0;
		w.busy = true;
		for (unsigned i = 0; i < 5; i++) {
			make_frame(frame, 100 + i, i);
			send(frame, 100 + i, NULL, 2);
		}
		assert_int_equal(w.refused, 1); /* it does not ask again and again */
		assert_null(drv_get(&tx, &len));
		w.busy = false;
		w.netdev.front->writable(w.netdev.front_opaque);
		assert_int_equal(w.n, 5);
		for (unsigned i = 0; i < 5; i++) {
			assert_int_equal(w.len[i], 100 + i); /* in order */
			assert_non_null(drv_get(&tx, &len));
		}
		/* And notifications are on again. */
		send(frame, 64, NULL, 1);
		assert_int_equal(w.n, 6);
	}
}

static void test_send_many(void **state)
{
	uint32_t len;
	unsigned n = 0;

	start(7, 0);
	w.n = 0;
	make_frame(frame, 64, 0);
	for (unsigned i = 0; i < 2000; i++) {
		d.heap = 4 << 20;
		send(frame, 64, NULL, 1);
		while (drv_get(&tx, &len))
			n++;
	}
	assert_int_equal(w.n, 2000);
	assert_int_equal(n, 2000);
}

static void test_link(void **state)
{
	uint32_t len;
	uint8_t gen;

	start(0, F_STATUS);
	gen = drv_read(&d, DRV_GENERATION, 1);
	w.netdev.up = false;
	w.netdev.front->link(w.netdev.front_opaque, false);
	assert_int_equal(fake_read(f, d.config + 6, 2), 0);
	assert_int_equal(drv_messages(&d, 0), 1);
	assert_int_not_equal(drv_read(&d, DRV_GENERATION, 1), gen);
	send(frame, 64, NULL, 1); /* nowhere to go */
	assert_int_equal(w.n, 0);
	assert_non_null(drv_get(&tx, &len));
	w.netdev.up = true;
	w.netdev.front->link(w.netdev.front_opaque, true);
	assert_int_equal(fake_read(f, d.config + 6, 2), 1);
	assert_int_equal(drv_messages(&d, 0), 1);
}

/* ---- Checksums ---------------------------------------------------------------------- */

/* As RFC 1071 says it, a byte pair at a time. */
static uint16_t slow_sum(const uint8_t *p, size_t len, uint32_t sum)
{
	for (size_t i = 0; i < len; i++)
		sum += i & 1 ? p[i] : p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static void test_csum(void **state)
{
	unsigned seed = 1;

	for (unsigned i = 0; i < 3000; i++) {
		struct iovec iov[6];
		size_t len = (seed = seed * 1103515245 + 12345) % 5000, at = len ? (seed >> 8) % len : 0, off = 0;
		unsigned n = 0;

		for (size_t k = 0; k < len; k++)
			frame[k] = i % 7 ? (seed = seed * 1103515245 + 12345) >> 16 : 0xff;
		while (n < 5 && off < len) {
			size_t part = (seed = seed * 1103515245 + 12345) % (len - off + 1);

			iov[n++] = (struct iovec){ frame + off, part };
			off += part;
		}
		iov[n++] = (struct iovec){ frame + off, len - off };
		assert_int_equal(csum_finish(csum_iov(iov, n, at, len - at)),
				 (uint16_t)~slow_sum(frame + at, len - at, 0));
	}
}

/* TCP or UDP over IPv4 or IPv6; returns the frame's length. The checksum is right. */
static size_t ip_frame(uint8_t *p, unsigned version, uint8_t proto, size_t payload, bool vlan)
{
	size_t l4_header = proto == 6 ? 20 : 8, l4_len = l4_header + payload, ip = vlan ? 18 : 14, l4, field;
	uint32_t pseudo = proto + l4_len;
	uint16_t sum;

	memset(p, 0, 100);
	memcpy(p, our_mac, 6);
	if (vlan) {
		p[12] = 0x81;
		p[15] = 5;
	}
	p[ip - 2] = version == 4 ? 0x08 : 0x86;
	p[ip - 1] = version == 4 ? 0x00 : 0xdd;
	if (version == 4) {
		p[ip] = 0x46; /* with four bytes of options */
		p[ip + 2] = (24 + l4_len) >> 8;
		p[ip + 3] = 24 + l4_len;
		p[ip + 9] = proto;
		memcpy(p + ip + 12, "\x0a\x00\x00\x01\xc0\xa8\xff\xfe", 8);
		pseudo = slow_sum(p + ip + 12, 8, pseudo);
		l4 = ip + 24;
	} else {
		p[ip] = 0x60;
		p[ip + 4] = l4_len >> 8;
		p[ip + 5] = l4_len;
		p[ip + 6] = proto;
		for (unsigned i = 8; i < 40; i++)
			p[ip + i] = i * 37;
		pseudo = slow_sum(p + ip + 8, 32, pseudo);
		l4 = ip + 40;
	}
	for (size_t i = 0; i < l4_len; i++)
		p[l4 + i] = i * 5 + payload;
	field = l4 + (proto == 6 ? 16 : 6);
	p[field] = p[field + 1] = 0;
	sum = ~slow_sum(p + l4, l4_len, pseudo);
	p[field] = sum >> 8;
	p[field + 1] = sum;
	return l4 + l4_len;
}

static void test_receive_csum(void **state)
{
	for (unsigned i = 0; i < 32; i++) {
		unsigned version = i & 1 ? 4 : 6;
		uint8_t proto = i & 2 ? 6 : 17;
		size_t len = ip_frame(frame, version, proto, i & 4 ? 1401 : 0, i & 8);
		struct iovec iov[2] = { { frame, 33 }, { frame + 33, len - 33 } };

		start(0, F_MRG | F_GUEST_CSUM);
		post(4, 1600);
		assert_true(csum_frame_valid(iov, 2, len));
		assert_true(wire_receive(frame, len));
		assert_int_equal(get_frame(got, hdr), len);
		assert_int_equal(hdr[0], 2); /* DATA_VALID */
		/* Padding behind the packet doesn't matter. */
		frame[len] = frame[len + 1] = 0x55;
		assert_true(wire_receive(frame, len + 2));
		get_frame(got, hdr);
		assert_int_equal(hdr[0], 2);
		/* One wrong bit anywhere does. */
		frame[(i & 8 ? 18 : 14) + (version == 4 ? 24 : 40) + i % 8] ^= 1 << (i / 4 & 7);
		assert_true(wire_receive(frame, len));
		get_frame(got, hdr);
		assert_int_equal(hdr[0], 0);
	}
	/* Truncated and fragmented ones are not known to be good. */
	{
		size_t len = ip_frame(frame, 4, 6, 1000, false);
		struct iovec iov = { frame, len };

		for (size_t l = 0; l < len; l++)
			assert_false(csum_frame_valid(&iov, 1, l));
		frame[14 + 6] = 0x20;
		assert_false(csum_frame_valid(&iov, 1, len));
	}
	/* Not negotiated: nothing is promised. */
	start(0, F_MRG);
	post(2, 1600);
	wire_receive(frame, ip_frame(frame, 4, 6, 10, false));
	get_frame(got, hdr);
	assert_int_equal(hdr[0], 0);
}

static void test_send_csum(void **state)
{
	start(0, F_CSUM);
	for (unsigned i = 0; i < 48; i++) {
		unsigned version = i & 1 ? 4 : 6;
		uint8_t proto = i & 2 ? 6 : 17;
		size_t ip, len = ip_frame(frame, version, proto, i & 4 ? 1401 : i & 16 ? 65000 : 2, i & 8), l4, field;
		uint8_t h[HDR] = { 1 };
		uint32_t pseudo;
		uint16_t partial;
		uint8_t right[2];

		if (len > 65535)
			continue;
		ip = i & 8 ? 18 : 14;
		l4 = ip + (version == 4 ? 24 : 40);
		field = proto == 6 ? 16 : 6;
		memcpy(right, frame + l4 + field, 2);
		/* What a kernel leaves there: the sum of the pseudo header. */
		pseudo = proto + len - l4;
		partial = version == 4 ? slow_sum(frame + ip + 12, 8, pseudo) : slow_sum(frame + ip + 8, 32, pseudo);
		frame[l4 + field] = partial >> 8;
		frame[l4 + field + 1] = partial;
		h[6] = l4;
		h[8] = field;
		w.n = 0;
		d.heap = 4 << 20;
		send(frame, len, h, 1 + i % 5);
		assert_int_equal(w.n, 1);
		assert_int_equal(w.len[0], len);
		memcpy(frame + l4 + field, right, 2);
		assert_memory_equal(w.sent[0], frame, len);
		{
			uint32_t l;

			while (drv_get(&tx, &l))
				;
		}
	}
	/* UDP: a sum of zero is written as all ones, since zero says that there is none. */
	{
		size_t len = ip_frame(frame, 4, 17, 100, false);
		uint8_t h[HDR] = { 1, 0, 0, 0, 0, 0, 38, 0, 6 };
		uint32_t pseudo = slow_sum(frame + 26, 8, 17 + len - 38);
		uint16_t rest;

		frame[44] = pseudo >> 8;
		frame[45] = pseudo;
		frame[60] = frame[61] = 0;
		rest = 0xffff - slow_sum(frame + 38, len - 38, 0);
		frame[60] = rest >> 8;
		frame[61] = rest;
		w.n = 0;
		send(frame, len, h, 2);
		assert_int_equal(w.n, 1);
		assert_int_equal(w.sent[0][44] << 8 | w.sent[0][45], 0xffff);
	}
	/* Fields that point nowhere: dropped. */
	{
		static const uint16_t bad[][2] = {
			{ 0xffff, 0xffff }, { 100, 0 }, { 0, 99 }, { 98, 1 }, { 0xffff, 1 }
		};

		for (unsigned i = 0; i < 5; i++) {
			uint8_t h[HDR] = { 1, 0, 0, 0, 0, 0, bad[i][0], bad[i][0] >> 8, bad[i][1], bad[i][1] >> 8 };

			w.n = 0;
			send(frame, 100, h, 2);
			assert_int_equal(w.n, 0);
		}
	}
}

/* A back end with headers of its own: they pass both ways, and it learns what the guest takes. */
static void test_vnet_hdr(void **state)
{
	uint8_t h[HDR] = { 1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0 };

	teardown(NULL);
	w.netdev.vnet_hdr = true;
	machine_up("mac", "52:54:00:aa:bb:cc");
	assert_true((drv_offered(&d) & (F_CSUM | F_GUEST_CSUM | F_GUEST_TSO4 | F_HOST_TSO4)) ==
		    (F_CSUM | F_GUEST_CSUM | F_GUEST_TSO4 | F_HOST_TSO4));
	assert_false(drv_negotiate(&d, DRV_F_VERSION_1 | F_GUEST_TSO4, false));
	assert_false(drv_negotiate(&d, DRV_F_VERSION_1 | F_HOST_TSO4, false));
	start(0, F_CSUM | F_GUEST_CSUM | F_GUEST_TSO4 | F_HOST_TSO4 | F_MRG);
	assert_int_equal(w.offload, NETDEV_CSUM | NETDEV_TSO4);
	make_frame(frame, 3000, 5);
	send(frame, 3000, h, 3);
	assert_int_equal(w.len[0], 3012);
	assert_memory_equal(w.sent[0], h, HDR);
	assert_memory_equal(w.sent[0] + HDR, frame, 3000);
	post(4, 1600);
	memmove(frame + HDR, frame, 3000);
	memcpy(frame, h, HDR);
	assert_true(wire_receive(frame, 3012));
	assert_int_equal(get_frame(got, hdr), 3000);
	assert_memory_equal(got, frame + HDR, 3000);
	h[10] = 2; /* buffers */
	assert_memory_equal(hdr, h, HDR);
	drv_write(&d, DRV_STATUS, 0, 1);
	assert_int_equal(w.offload, 0);
}

/* ---- Filters ------------------------------------------------------------------------ */

static uint8_t command(uint8_t class, uint8_t cmd, const void *data, uint32_t len)
{
	uint64_t at = drv_alloc(&d, len + 16, 64);
	struct drv_buf b[3] = { { at, 2, false }, { at + 3, len, false }, { at + 3 + len, 1, true } };

	d.ram[at] = class;
	d.ram[at + 1] = cmd;
	memcpy(d.ram + at + 3, data, len);
	d.ram[at + 3 + len] = 0xff;
	if (!len)
		b[1] = b[2];
	assert_int_equal(drv_request(&d, 2, &ctrl, b, len ? 3 : 2), 1);
	return d.ram[at + 3 + len];
}

static bool passes(const char *mac, int vlan)
{
	memset(frame, 0, 100);
	sscanf(mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &frame[0], &frame[1], &frame[2], &frame[3], &frame[4], &frame[5]);
	if (vlan >= 0) {
		frame[12] = 0x81;
		frame[14] = vlan >> 8 | 0x20;
		frame[15] = vlan;
	}
	post(1, 200);
	assert_true(wire_receive(frame, 100));
	return get_frame(got, hdr) == 100;
}

static void mode(uint8_t cmd, uint8_t on)
{
	assert_int_equal(command(0, cmd, &on, 1), 0);
}

static void test_filters(void **state)
{
	static const uint8_t table[] = {
		2, 0, 0, 0, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 1
	};
	static const uint8_t mac2[6] = { 2, 0, 0, 0, 0, 9 };
	uint8_t many[8 + 100 * 6];

	start(4, F_CTRL | F_CTRL_VLAN);
	assert_true(passes("02:11:11:11:11:11", -1)); /* promiscuous at first */
	mode(0, 0);
	assert_false(passes("02:11:11:11:11:11", -1));
	assert_true(passes("52:54:00:aa:bb:cc", -1));
	assert_true(passes("ff:ff:ff:ff:ff:ff", -1));
	assert_false(passes("01:00:5e:00:00:01", -1));
	assert_int_equal(command(1, 0, table, sizeof(table)), 0);
	assert_true(passes("01:00:5e:00:00:01", -1));
	assert_false(passes("01:00:5e:00:00:02", -1));
	assert_true(passes("02:00:00:00:00:02", -1));
	assert_false(passes("02:00:00:00:00:03", -1));
	mode(1, 1); /* all multicast */
	assert_true(passes("01:00:5e:00:00:02", -1));
	mode(1, 0);
	mode(2, 1); /* all unicast */
	assert_true(passes("02:00:00:00:00:03", -1));
	mode(2, 0);
	mode(3, 1); /* no multicast */
	assert_false(passes("01:00:5e:00:00:01", -1));
	mode(3, 0);
	mode(4, 1); /* no unicast */
	assert_false(passes("52:54:00:aa:bb:cc", -1));
	mode(4, 0);
	mode(5, 1); /* no broadcast */
	assert_false(passes("ff:ff:ff:ff:ff:ff", -1));
	mode(5, 0);
	assert_int_equal(command(1, 1, mac2, 6), 0);
	assert_true(passes("02:00:00:00:00:09", -1));
	assert_false(passes("52:54:00:aa:bb:cc", -1));
	/* A table that is longer than ours: everything of its kind passes. */
	memset(many, 2, sizeof(many));
	memcpy(many, "\x63\0\0\0", 4);
	memset(many + 4 + 99 * 6, 0, 4);
	assert_int_equal(command(1, 0, many, 8 + 99 * 6), 0);
	assert_true(passes("06:06:06:06:06:06", -1));
	assert_false(passes("01:00:5e:00:00:01", -1));
	/* VLANs: none until one is added. */
	mode(0, 1);
	assert_false(passes("ff:ff:ff:ff:ff:ff", 5));
	assert_int_equal(command(2, 0, "\x05\x00", 2), 0);
	assert_true(passes("ff:ff:ff:ff:ff:ff", 5));
	assert_false(passes("ff:ff:ff:ff:ff:ff", 6));
	assert_int_equal(command(2, 1, "\x05\x00", 2), 0);
	assert_false(passes("ff:ff:ff:ff:ff:ff", 5));
	/* Nonsense is refused, and answered. */
	assert_int_equal(command(2, 0, "\x00\x10", 2), 1);
	assert_int_equal(command(2, 2, "\x00\x00", 2), 1);
	assert_int_equal(command(0, 6, "\x01", 1), 1);
	assert_int_equal(command(0, 0, "", 0), 1);
	assert_int_equal(command(1, 0, "\xff\xff\xff\xff", 4), 1);
	assert_int_equal(command(1, 0, table, 10), 1);
	assert_int_equal(command(1, 1, mac2, 5), 1);
	assert_int_equal(command(9, 0, "", 0), 1);
	assert_int_equal(command(3, 0, "", 0), 1); /* not negotiated */
	assert_int_equal(drv_status(&d), 15);
	/* Reset: as at first. */
	start(0, F_CTRL);
	assert_true(passes("02:11:11:11:11:11", 77));
	mode(0, 0);
	assert_true(passes("52:54:00:aa:bb:cc", -1));
}

static void test_save_load(void **state)
{
	for (unsigned kind = 0; kind < DRV_KINDS; kind++) {
		struct state_buf s = { 0 };
		struct err err = ERR_INIT;
		uint8_t *ram = malloc(8 << 20);
		uint64_t heap;
		uint32_t len;

		start(kind, F_CTRL | F_CTRL_VLAN | F_ANNOUNCE | F_STATUS | F_MRG);
		mode(0, 0);
		assert_int_equal(command(1, 1, "\x02\x00\x00\x00\x00\x42", 6), 0);
		w.busy = true;
		make_frame(frame, 200, 9);
		send(frame, 200, NULL, 2); /* waits in the ring */
		post(3, 1600);
		machine_pause(f->m);
		assert_int_equal(machine_save(f->m, &s, &err), 0);
		memcpy(ram, d.ram + (1 << 20), 8 << 20);
		heap = d.heap;
		teardown(NULL);

		w.busy = false;
		w.n = 0;
		machine_up("mac", "52:54:00:aa:bb:cc");
		machine_pause(f->m);
		memcpy(mem_ptr(&f->m->mem, 1 << 20, 8 << 20), ram, 8 << 20);
		free(ram);
		if (machine_load(f->m, s.data, s.len, &err))
			fail_msg("%s", err_msg(&err));
		state_buf_free(&s);
		rx.ram = tx.ram = ctrl.ram = d.ram;
		d.heap = heap;
		fake_msi_clear(f);
		machine_resume(f->m);
		fake_machine_loop(f);
		assert_int_equal(w.n, 1);
		assert_memory_equal(w.sent[0], frame, 200);
		assert_non_null(drv_get(&tx, &len));
		/* The network must hear of it, the guest says when it has. */
		assert_int_equal(fake_read(f, d.config + 6, 2), 3);
		assert_true(drv_read(&d, DRV_STATUS, 1) == 15);
		assert_int_equal(command(3, 0, "", 0), 0);
		assert_int_equal(fake_read(f, d.config + 6, 2), 1);
		/* Filters came along. */
		assert_true(passes("02:00:00:00:00:42", -1));
		assert_false(passes("52:54:00:aa:bb:cc", -1));
	}
}

static void test_bad_buffers(void **state)
{
	struct drv_buf out = { FAKE_RAM - 4, 64, false }, in = { FAKE_RAM - 4, 64, true };

	start(0, 0);
	drv_add(&tx, &out, 1, &out);
	drv_notify(&d, 1);
	fake_machine_loop(f);
	assert_int_equal(drv_status(&d), 15 | 64);
	start(1, F_MRG);
	drv_add(&rx, &in, 1, &in);
	drv_notify(&d, 0);
	fake_machine_loop(f);
	make_frame(frame, 100, 0);
	assert_true(wire_receive(frame, 100));
	assert_int_equal(drv_status(&d), 15 | 64);
	assert_true(wire_receive(frame, 100));
	start(1, F_MRG);
	post(1, 200);
	assert_true(wire_receive(frame, 100));
	assert_int_equal(get_frame(got, hdr), 100);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_config),	  TEST(test_mac_text),	  TEST(test_receive), TEST(test_receive_unmerged),
		TEST(test_receive_waits), TEST(test_not_running), TEST(test_send),    TEST(test_send_busy),
		TEST(test_send_many),	  TEST(test_link),	  TEST(test_csum),    TEST(test_receive_csum),
		TEST(test_send_csum),	  TEST(test_vnet_hdr),	  TEST(test_filters), TEST(test_save_load),
		TEST(test_bad_buffers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
