/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtio-net with several queues: what goes where, receive-side scaling, and offloads that are switched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/classes.h"
#include "device/net_rss.h"
#include "device/virtio_net.h"
#include "util/log.h"
#include "virtio_driver.h"

#define F_CSUM (1ull << 0)
#define F_GUEST_CSUM (1ull << 1)
#define F_CTRL_GUEST_OFFLOADS (1ull << 2)
#define F_GUEST_TSO4 (1ull << 7)
#define F_GUEST_ECN (1ull << 9)
#define F_GUEST_UFO (1ull << 10)
#define F_HOST_UFO (1ull << 14)
#define F_STATUS (1ull << 16)
#define F_CTRL_VQ (1ull << 17)
#define F_MQ (1ull << 22)
#define F_RSS (1ull << 60)
#define HDR 12
#define PAIRS 4

static struct wire {
	struct netdev netdev[PAIRS], *list[PAIRS];
	unsigned sent[PAIRS], told; /* frames by queue; pairs in use as told last */
	unsigned offload;
	struct loop *attached;
} w;
static struct fake_machine *f;
static struct drv d;
static struct drv_queue q[2 * PAIRS + 1];
static struct device *card;

static bool wire_send(struct netdev *n, const struct iovec *iov, int cnt, size_t len)
{
	__atomic_add_fetch(&w.sent[n - w.netdev], 1, __ATOMIC_SEQ_CST);
	return true;
}

static void wire_nothing(struct netdev *n)
{
}

static void wire_offload(struct netdev *n, unsigned flags)
{
	w.offload = flags;
}

static void wire_queues(struct netdev *n, unsigned pairs)
{
	assert_ptr_equal(n, &w.netdev[0]);
	w.told = pairs;
}

static int wire_attach(struct netdev *n, struct loop *loop, struct err *err)
{
	w.attached = loop;
	return 0;
}

static void wire_detach(struct netdev *n)
{
	w.attached = NULL;
}

static const struct netdev_ops wire_ops = {
	.send = wire_send, .rx_ready = wire_nothing, .set_offload = wire_offload, .set_queues = wire_queues,
};
static const struct netdev_ops moving_ops = {
	.send = wire_send, .rx_ready = wire_nothing, .set_offload = wire_offload, .attach = wire_attach, .detach = wire_detach,
};

static void machine_up(unsigned queues, const struct netdev_ops *ops)
{
	struct err err = ERR_INIT;

	memset(&w, 0, sizeof(w));
	for (unsigned i = 0; i < PAIRS; i++) {
		w.netdev[i] = (struct netdev){ .ops = ops, .up = true, .vnet_hdr = true, .ufo = true };
		w.list[i] = &w.netdev[i];
	}
	w.netdev[0].queue = w.list;
	w.netdev[0].queues = queues;
	f = fake_machine_new();
	fake_device(f, "mch", NULL);
	card = device_new(f->m, device_class_find("virtio-net-pci"), "net", &err);
	device_set_ptr(card, "netdev", &w.netdev[0]);
	if (device_realize(card, &err))
		fail_msg("%s", err_msg(&err));
	drv_init(&d, f, card);
	machine_resume(f->m);
}

static int setup(void **state)
{
	log_set_level(LOG_ERROR);
	machine_up(PAIRS, &wire_ops);
	return 0;
}

static int teardown(void **state)
{
	machine_pause(f->m);
	fake_machine_free(f);
	return 0;
}

static unsigned ctrl;

static void start(uint64_t features)
{
	d.heap = 1 << 20;
	assert_true(drv_negotiate(&d, DRV_F_VERSION_1 | F_CTRL_VQ | features, true));
	ctrl = d.features & (F_MQ | F_RSS) ? 2 * PAIRS : 2;
	for (unsigned i = 0; i < ctrl; i++)
		drv_queue(&d, i, &q[i], 16);
	drv_queue(&d, ctrl, &q[ctrl], 16);
	drv_ok(&d);
	fake_machine_loop(f);
}

/* The device's answer to a control command: 0 is OK. */
static int command(uint8_t class, uint8_t cmd, const void *data, uint32_t len)
{
	struct drv_buf b[3] = { { drv_alloc(&d, 2, 1), 2, false }, { drv_alloc(&d, len + 1, 1), len, false },
				{ drv_alloc(&d, 1, 1), 1, true } };

	d.ram[b[0].gpa] = class;
	d.ram[b[0].gpa + 1] = cmd;
	memcpy(d.ram + b[1].gpa, data, len);
	d.ram[b[2].gpa] = 0xee;
	assert_int_equal(drv_request(&d, ctrl, &q[ctrl], b, 3), 1);
	fake_machine_loop(f);
	return d.ram[b[2].gpa];
}

static int pairs(uint16_t n)
{
	return command(4, 0, &n, 2);
}

/* Which receive queue gets a frame that came from queue `from`; -1: none. */
static int arrives(unsigned from, const uint8_t *frame, size_t len)
{
	static struct drv_buf bufs[PAIRS];
	uint8_t with[HDR + 256] = { 0 };
	struct iovec iov = { with, HDR + len };
	int where = -1;
	uint32_t got;

	memcpy(with + HDR, frame, len);
	for (unsigned i = 0; i < PAIRS; i++) {
		bufs[i] = (struct drv_buf){ drv_alloc(&d, 512, 64), 512, true };
		assert_true(drv_add(&q[2 * i], &bufs[i], 1, &bufs[i]));
		drv_notify(&d, 2 * i);
	}
	fake_machine_loop(f);
	assert_true(w.netdev[from].front->receive(w.netdev[from].front_opaque, &iov, 1, HDR + len));
	for (unsigned i = 0; i < PAIRS; i++) {
		if (!drv_get(&q[2 * i], &got))
			continue;
		assert_int_equal(where, -1);
		assert_int_equal(got, HDR + len);
		where = i;
	}
	return where;
}

static void test_pairs(void **state)
{
	uint8_t frame[60];

	memset(frame, 0xff, sizeof(frame));
	assert_int_equal(fake_read(f, d.config + 8, 2), PAIRS);
	assert_int_equal(drv_read(&d, DRV_NUM_QUEUES, 2), 2 * PAIRS + 1);
	start(F_MQ);
	assert_int_equal(w.told, 1);
	/* Before the driver asks for more everything goes through the first pair. */
	assert_int_equal(arrives(3, frame, sizeof(frame)), 0);
	assert_int_equal(pairs(3), 0);
	assert_int_equal(w.told, 3);
	assert_int_equal(arrives(2, frame, sizeof(frame)), 2);
	assert_int_equal(arrives(3, frame, sizeof(frame)), 0); /* one that was on its way already */
	assert_int_equal(pairs(0), 1);
	assert_int_equal(pairs(PAIRS + 1), 1);
	assert_int_equal(w.told, 3);
	for (unsigned i = 0; i < PAIRS; i++) {
		struct drv_buf out = { drv_alloc(&d, 100, 64), 100, false };

		memset(d.ram + out.gpa, 0, 100);
		assert_true(drv_add(&q[2 * i + 1], &out, 1, &out));
		drv_notify(&d, 2 * i + 1);
		fake_machine_loop(f);
		assert_int_equal(w.sent[i], 1);
	}
	/* A reset goes back to one. */
	drv_write(&d, DRV_STATUS, 0, 1);
	fake_machine_loop(f);
	assert_int_equal(w.told, 1);
}

/* Without the feature the control queue is number 2, and there is one pair. */
static void test_without_mq(void **state)
{
	start(0);
	assert_int_equal(pairs(2), 1);
	assert_int_equal(w.told, 1);
	assert_false(drv_negotiate(&d, DRV_F_VERSION_1 | F_MQ, false));
}

/* Known answers that Microsoft published for this key ("Verifying the RSS hash calculation"). */
static const uint8_t key[RSS_KEY] = {
	0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
	0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
};

static size_t ipv4_frame(uint8_t *p, uint8_t protocol)
{
	static const uint8_t addresses[8] = { 66, 9, 149, 187, 161, 142, 100, 80 };

	memset(p, 0, 60);
	memset(p, 0xff, 6);
	p[12] = 0x08;
	p[14] = 0x45;
	p[23] = protocol;
	memcpy(p + 26, addresses, 8);
	p[34] = 2794 >> 8;
	p[35] = 2794 & 0xff;
	p[36] = 1766 >> 8;
	p[37] = 1766 & 0xff;
	return 60;
}

static size_t ipv6_frame(uint8_t *p, uint8_t protocol)
{
	static const uint8_t from[16] = { 0x3f, 0xfe, 0x25, 0x01, 0x02, 0x00, 0x1f, 0xff, [15] = 7 };
	static const uint8_t to[16] = { 0x3f, 0xfe, 0x25, 0x01, 0x02, 0x00, 0x00, 0x03, [15] = 1 };

	memset(p, 0, 80);
	memset(p, 0xff, 6);
	p[12] = 0x86;
	p[13] = 0xdd;
	p[14] = 0x60;
	p[20] = protocol;
	memcpy(p + 22, from, 16);
	memcpy(p + 38, to, 16);
	p[54] = 2794 >> 8;
	p[55] = 2794 & 0xff;
	p[56] = 1766 >> 8;
	p[57] = 1766 & 0xff;
	return 80;
}

static void test_hash(void **state)
{
	uint8_t p[100], tagged[100];
	uint32_t h;
	size_t n = ipv4_frame(p, 6);

	assert_true(rss_hash(key, RSS_TYPES, p, n, &h));
	assert_int_equal(h, 0x51ccc178);
	assert_true(rss_hash(key, RSS_IPV4, p, n, &h));
	assert_int_equal(h, 0x323e8fc2);
	assert_false(rss_hash(key, RSS_TCPV6 | RSS_UDPV4, p, n, &h));
	memcpy(tagged, p, 12);
	memcpy(tagged + 12, "\x81\x00\x00\x05", 4);
	memcpy(tagged + 16, p + 12, n - 12);
	assert_true(rss_hash(key, RSS_TYPES, tagged, n + 4, &h));
	assert_int_equal(h, 0x51ccc178);
	p[20] = 0x20; /* more fragments: addresses only */
	assert_true(rss_hash(key, RSS_TYPES, p, n, &h));
	assert_int_equal(h, 0x323e8fc2);
	n = ipv6_frame(p, 17);
	assert_true(rss_hash(key, RSS_TYPES, p, n, &h));
	assert_int_equal(h, 0x40207d3d);
	assert_true(rss_hash(key, RSS_TYPES & ~RSS_UDPV6, p, n, &h));
	assert_int_equal(h, 0x2cc18cd5);
	/* Cut off anywhere: no harm. */
	for (size_t i = 0; i < n; i++) {
		uint8_t *exact = malloc(i + !i);

		memcpy(exact, p, i);
		rss_hash(key, RSS_TYPES, exact, i, &h);
		free(exact);
	}
}

/* Bytes of struct virtio_net_rss_config; its length. */
static uint32_t rss_config(uint8_t *p, uint32_t types, unsigned entries, uint16_t other, uint16_t in_use, uint8_t key_len)
{
	uint32_t at = 8;

	memcpy(p, &types, 4);
	p[4] = (entries - 1) & 0xff;
	p[5] = (entries - 1) >> 8;
	p[6] = other;
	p[7] = other >> 8;
	for (unsigned i = 0; i < entries; i++, at += 2) {
		p[at] = i % PAIRS;
		p[at + 1] = 0;
	}
	p[at++] = in_use;
	p[at++] = in_use >> 8;
	p[at++] = key_len;
	memcpy(p + at, key, key_len);
	return at + key_len;
}

static void test_rss(void **state)
{
	uint8_t c[600], p[100];
	uint32_t len = rss_config(c, RSS_TYPES, 8, 1, PAIRS, RSS_KEY);

	start(F_MQ | F_RSS);
	assert_int_equal(fake_read(f, d.config + 17, 1), RSS_KEY);
	assert_int_equal(fake_read(f, d.config + 18, 2), RSS_TABLE);
	assert_int_equal(command(4, 1, c, len), 0);
	assert_int_equal(w.told, PAIRS);
	/* 0x51ccc178 & 7 is 0, 0x40207d3d & 7 is 5: queue 1; ARP has no hash. */
	assert_int_equal(arrives(2, p, ipv4_frame(p, 6)), 0);
	assert_int_equal(arrives(2, p, ipv6_frame(p, 17)), 1);
	ipv4_frame(p, 6);
	p[13] = 0x06;
	assert_int_equal(arrives(2, p, 60), 1);
	/* What makes no sense is refused and changes nothing. */
	assert_int_equal(command(4, 1, c, len - 1), 1);
	assert_int_equal(command(4, 1, c, rss_config(c, RSS_TYPES | 64, 8, 1, PAIRS, RSS_KEY)), 1);
	assert_int_equal(command(4, 1, c, rss_config(c, RSS_TYPES, 7, 1, PAIRS, RSS_KEY)), 1);
	assert_int_equal(command(4, 1, c, rss_config(c, RSS_TYPES, 256, 1, PAIRS, RSS_KEY)), 1);
	assert_int_equal(command(4, 1, c, rss_config(c, RSS_TYPES, 8, PAIRS, PAIRS, RSS_KEY)), 1);
	assert_int_equal(command(4, 1, c, rss_config(c, RSS_TYPES, 8, 1, PAIRS + 1, RSS_KEY)), 1);
	assert_int_equal(command(4, 1, c, rss_config(c, RSS_TYPES, 8, 1, 0, RSS_KEY)), 1);
	rss_config(c, RSS_TYPES, 8, 1, PAIRS, RSS_KEY);
	c[8] = PAIRS;
	assert_int_equal(command(4, 1, c, len), 1);
	assert_int_equal(arrives(2, p, ipv6_frame(p, 17)), 1);
	/* Plain pairs take over from it. */
	assert_int_equal(pairs(PAIRS), 0);
	assert_int_equal(arrives(2, p, ipv6_frame(p, 17)), 2);
}

static void test_offloads(void **state)
{
	uint64_t all = F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_ECN | F_GUEST_UFO, some = F_GUEST_CSUM, foreign = F_STATUS;

	assert_false(drv_negotiate(&d, DRV_F_VERSION_1 | F_GUEST_UFO, false)); /* needs checksums */
	assert_false(drv_negotiate(&d, DRV_F_VERSION_1 | F_GUEST_CSUM | F_GUEST_ECN, false));
	start(F_CTRL_GUEST_OFFLOADS | F_CSUM | F_HOST_UFO | all);
	assert_int_equal(w.offload, NETDEV_CSUM | NETDEV_TSO4 | NETDEV_ECN | NETDEV_UFO);
	assert_int_equal(command(5, 0, &some, 8), 0);
	assert_int_equal(w.offload, NETDEV_CSUM);
	assert_int_equal(command(5, 0, &foreign, 8), 1);
	assert_int_equal(command(5, 0, &all, 7), 1);
	assert_int_equal(w.offload, NETDEV_CSUM);
	assert_int_equal(command(5, 0, &all, 8), 0);
	assert_int_equal(w.offload, NETDEV_CSUM | NETDEV_TSO4 | NETDEV_ECN | NETDEV_UFO);
	drv_write(&d, DRV_STATUS, 0, 1);
	assert_int_equal(w.offload, 0);
}

static void test_cable(void **state)
{
	struct drv_buf out = { 0x2000, 100, false };
	uint8_t frame[60];

	memset(frame, 0xff, sizeof(frame));
	start(F_STATUS | F_MQ);
	assert_int_equal(fake_read(f, d.config + 6, 2), 1);
	drv_messages(&d, 0);
	virtio_net_set_link(card, false);
	assert_int_equal(fake_read(f, d.config + 6, 2), 0);
	assert_int_equal(drv_messages(&d, 0), 1);
	virtio_net_set_link(card, false);
	assert_int_equal(drv_messages(&d, 0), 0);
	/* Nothing passes in either direction. */
	assert_int_equal(arrives(0, frame, sizeof(frame)), -1);
	assert_true(drv_add(&q[1], &out, 1, &out));
	drv_notify(&d, 1);
	fake_machine_loop(f);
	assert_int_equal(w.sent[0], 0);
	virtio_net_set_link(card, true);
	assert_int_equal(fake_read(f, d.config + 6, 2), 1);
	assert_int_equal(drv_messages(&d, 0), 1);
}

static void test_save_load(void **state)
{
	uint8_t c[600];
	struct state_buf b = { 0 };
	struct err err = ERR_INIT;

	start(F_MQ | F_RSS);
	assert_int_equal(command(4, 1, c, rss_config(c, RSS_TYPES, 8, 1, 3, RSS_KEY)), 0);
	machine_pause(f->m);
	assert_int_equal(machine_save(f->m, &b, &err), 0);
	teardown(NULL);
	machine_up(PAIRS, &wire_ops);
	machine_pause(f->m);
	if (machine_load(f->m, b.data, b.len, &err))
		fail_msg("%s", err_msg(&err));
	fake_machine_loop(f);
	assert_int_equal(w.told, 3);
	teardown(NULL);
	/* Two queues are too few for it. */
	machine_up(2, &wire_ops);
	machine_pause(f->m);
	assert_true(machine_load(f->m, b.data, b.len, &err));
	state_buf_free(&b);
}

/* A back end that goes along: its callbacks come in a thread of the card's. */
static void test_own_thread(void **state)
{
	struct drv_buf out = { 0x2000, 100, false };

	teardown(NULL);
	machine_up(PAIRS, &moving_ops);
	assert_non_null(w.attached);
	start(F_MQ);
	for (unsigned i = 0; i < 50; i++)
		drv_request(&d, 2 * (i % PAIRS) + 1, &q[2 * (i % PAIRS) + 1], &out, 1);
	assert_int_equal(w.sent[0] + w.sent[1] + w.sent[2] + w.sent[3], 50);
	machine_pause(f->m);
	device_free(card);
	assert_null(w.attached);
	assert_null(w.netdev[1].front);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_pairs), TEST(test_without_mq), cmocka_unit_test(test_hash), TEST(test_rss),
		TEST(test_offloads), TEST(test_cable), TEST(test_save_load), TEST(test_own_thread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
