/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtio-vsock against a driver that says what it likes, and Unix sockets at the other side. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "device/classes.h"
#include "util/log.h"
#include "virtio_driver.h"

#define CID 42
#define BUFFERS 12
#define BUFFER_BYTES 512
enum { OP_REQUEST = 1, OP_RESPONSE, OP_RST, OP_SHUTDOWN, OP_RW, OP_CREDIT_UPDATE, OP_CREDIT_REQUEST };

struct __attribute__((packed)) header {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port, len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
};

static struct fake_machine *f;
static struct drv d;
static struct drv_queue rx, tx;
static struct drv_buf bufs[BUFFERS];
static char path[64];
static struct header got; /* the last packet for the guest */
static uint8_t got_data[BUFFER_BYTES];

static int setup(void **state)
{
	struct err err = ERR_INIT;
	struct device *dev;

	log_set_level(LOG_ERROR);
	snprintf(path, sizeof(path), "/tmp/keel-test-vsock-%d", (int)getpid());
	f = fake_machine_new();
	fake_device(f, "mch", NULL);
	dev = device_new(f->m, device_class_find("virtio-vsock-pci"), "vs", &err);
	device_set(dev, "guest-cid", "42", NULL);
	device_set(dev, "socket", path, NULL);
	if (device_realize(dev, &err))
		fail_msg("%s", err_msg(&err));
	drv_init(&d, f, dev);
	machine_resume(f->m);
	return 0;
}

static int teardown(void **state)
{
	machine_pause(f->m);
	fake_machine_free(f);
	assert_int_equal(access(path, F_OK), -1);
	return 0;
}

static void start(unsigned buffers)
{
	d.heap = 1 << 20;
	assert_true(drv_negotiate(&d, drv_kind_features(0), true));
	drv_queue(&d, 0, &rx, 64);
	drv_queue(&d, 1, &tx, 128);
	drv_ok(&d);
	for (unsigned i = 0; i < buffers; i++) {
		bufs[i] = (struct drv_buf){ drv_alloc(&d, BUFFER_BYTES, 64), BUFFER_BYTES, true };
		assert_true(drv_add(&rx, &bufs[i], 1, &bufs[i]));
	}
	drv_notify(&d, 0);
}

/* The next packet for the guest; its buffer goes back. */
static void receive(void)
{
	uint32_t len;
	struct drv_buf *b = drv_wait(&d, &rx, &len);

	assert_true(len >= sizeof(got));
	memcpy(&got, d.ram + b->gpa, sizeof(got));
	assert_int_equal(len, sizeof(got) + got.len);
	memcpy(got_data, d.ram + b->gpa + sizeof(got), got.len);
	assert_int_equal(got.src_cid, 2);
	assert_int_equal(got.dst_cid, CID);
	assert_true(drv_add(&rx, b, 1, b));
	drv_notify(&d, 0);
}

static void say(uint32_t guest_port, uint32_t host_port, uint16_t op, uint32_t flags, const void *data, uint32_t len)
{
	struct header h = { CID, 2, guest_port, host_port, len, 1, op, flags, 1 << 20, 0 };
	struct drv_buf b[2] = { { drv_alloc(&d, sizeof(h), 64), sizeof(h), false }, { drv_alloc(&d, len + 1, 64), len, false } };

	memcpy(d.ram + b[0].gpa, &h, sizeof(h));
	if (len)
		memcpy(d.ram + b[1].gpa, data, len);
	drv_request(&d, 1, &tx, b, len ? 2 : 1);
}

static void expect(uint16_t op, uint32_t host_port, uint32_t guest_port)
{
	receive();
	assert_int_equal(got.op, op);
	assert_int_equal(got.src_port, host_port);
	assert_int_equal(got.dst_port, guest_port);
}

static int listen_at(const char *suffix)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s%s", path, suffix);
	unlink(a.sun_path);
	assert_int_equal(bind(s, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(s, 4), 0);
	return s;
}

static int connect_host(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(a.sun_path, path);
	assert_int_equal(connect(s, (struct sockaddr *)&a, sizeof(a)), 0);
	return s;
}

/* What a socket says within ten seconds; 0: its end. */
static ssize_t hear(int s, void *data, size_t len)
{
	struct pollfd p = { .fd = s, .events = POLLIN };

	assert_int_equal(poll(&p, 1, 10000), 1);
	return recv(s, data, len, 0);
}

static void test_guest_connects(void **state)
{
	int listener = listen_at("_77"), s;
	char text[100];

	assert_int_equal(fake_read(f, d.config, 4), CID);
	start(BUFFERS);
	say(1000, 77, OP_REQUEST, 0, NULL, 0);
	expect(OP_RESPONSE, 77, 1000);
	assert_int_equal(got.buf_alloc, 65536);
	s = accept(listener, NULL, NULL);
	assert_true(s >= 0);
	say(1000, 77, OP_RW, 0, "hello", 5);
	assert_int_equal(hear(s, text, sizeof(text)), 5);
	assert_memory_equal(text, "hello", 5);
	assert_int_equal(send(s, "world!", 6, 0), 6);
	expect(OP_RW, 77, 1000);
	assert_int_equal(got.len, 6);
	assert_memory_equal(got_data, "world!", 6);
	assert_int_equal(got.fwd_cnt, 5);
	say(1000, 77, OP_CREDIT_REQUEST, 0, NULL, 0);
	expect(OP_CREDIT_UPDATE, 77, 1000);
	/* Half a close, then the whole one. */
	say(1000, 77, OP_SHUTDOWN, 2, NULL, 0);
	assert_int_equal(hear(s, text, sizeof(text)), 0);
	assert_int_equal(send(s, "more", 4, 0), 4);
	expect(OP_RW, 77, 1000);
	say(1000, 77, OP_SHUTDOWN, 3, NULL, 0);
	expect(OP_RST, 77, 1000);
	close(s);
	close(listener);
	snprintf(text, sizeof(text), "%s_77", path);
	unlink(text);
}

static void test_host_connects(void **state)
{
	int s = connect_host();
	char text[100];
	uint32_t port;

	start(BUFFERS);
	assert_int_equal(send(s, "CONNECT 55\nearly", 16, 0), 16);
	receive();
	assert_int_equal(got.op, OP_REQUEST);
	assert_int_equal(got.dst_port, 55);
	port = got.src_port;
	say(55, port, OP_RESPONSE, 0, NULL, 0);
	assert_int_equal(hear(s, text, sizeof(text)) > 3, 1);
	assert_memory_equal(text, "OK ", 3);
	expect(OP_RW, port, 55); /* what came behind the line */
	assert_int_equal(got.len, 5);
	assert_memory_equal(got_data, "early", 5);
	/* Bytes that were sent before the end arrive before it. */
	assert_int_equal(send(s, "last", 4, 0), 4);
	close(s);
	expect(OP_RW, port, 55);
	expect(OP_SHUTDOWN, port, 55);
	say(55, port, OP_RST, 0, NULL, 0);
	/* Refused by the guest. */
	s = connect_host();
	assert_int_equal(send(s, "CONNECT 56\n", 11, 0), 11);
	receive();
	say(56, got.src_port, OP_RST, 0, NULL, 0);
	assert_int_equal(hear(s, text, sizeof(text)), 0);
	close(s);
}

static void test_credit(void **state)
{
	struct header h = { CID, 2, 1000, 77, 0, 1, OP_REQUEST, 0, 100, 0 }; /* room for 100 bytes */
	struct drv_buf b;
	int listener = listen_at("_77"), s;
	char text[300];

	start(BUFFERS);
	b = (struct drv_buf){ drv_alloc(&d, sizeof(h), 64), sizeof(h), false };
	memcpy(d.ram + b.gpa, &h, sizeof(h));
	drv_request(&d, 1, &tx, &b, 1);
	expect(OP_RESPONSE, 77, 1000);
	s = accept(listener, NULL, NULL);
	memset(text, 'x', sizeof(text));
	assert_int_equal(send(s, text, 300, 0), 300);
	for (unsigned have = 0; have < 100; have += got.len) {
		expect(OP_RW, 77, 1000);
		assert_true(have + got.len <= 100);
	}
	/* 50 of them are read: so many more come. */
	h.op = OP_CREDIT_UPDATE;
	h.fwd_cnt = 50;
	memcpy(d.ram + b.gpa, &h, sizeof(h));
	drv_request(&d, 1, &tx, &b, 1);
	expect(OP_RW, 77, 1000);
	assert_int_equal(got.len, 50);
	close(s);
	close(listener);
	snprintf(text, sizeof(text), "%s_77", path);
	unlink(text);
}

/* Hostile packets. */
static void test_nonsense(void **state)
{
	static uint8_t big[40000];
	int listener = listen_at("_77"), s;
	struct header h = { 7, 2, 1, 1, 0, 1, OP_RW, 0, 0, 0 };
	struct drv_buf b;
	char text[100];

	start(BUFFERS);
	say(1, 1, OP_RW, 0, "x", 1); /* no connection */
	expect(OP_RST, 1, 1);
	say(1, 1, OP_RST, 0, NULL, 0); /* is not answered */
	say(9, 78, OP_REQUEST, 0, NULL, 0); /* nobody listens there */
	expect(OP_RST, 78, 9);
	b = (struct drv_buf){ drv_alloc(&d, sizeof(h), 64), sizeof(h), false };
	memcpy(d.ram + b.gpa, &h, sizeof(h));
	drv_request(&d, 1, &tx, &b, 1); /* somebody else's address */
	expect(OP_RST, 1, 1);
	b.len = 20;
	drv_request(&d, 1, &tx, &b, 1); /* half a header */
	/* More than it was allowed to send, to somebody who does not read. */
	say(1000, 77, OP_REQUEST, 0, NULL, 0);
	expect(OP_RESPONSE, 77, 1000);
	s = accept(listener, NULL, NULL);
	for (unsigned i = 0; i < 100; i++) {
		say(1000, 77, OP_RW, 0, big, sizeof(big));
		if (drv_get(&rx, &(uint32_t){ 0 }))
			break;
		assert_true(i < 99);
	}
	close(s);
	/* A length beyond the buffer; refusals while there is no buffer for them. */
	start(0);
	for (unsigned i = 0; i < 50; i++)
		say(i, 1, OP_RW, 0, NULL, 0);
	h = (struct header){ CID, 2, 1000, 77, 1 << 30, 1, OP_RW, 0, 0, 0 };
	memcpy(d.ram + b.gpa, &h, sizeof(h));
	b.len = sizeof(h);
	drv_request(&d, 1, &tx, &b, 1);
	close(listener);
	snprintf(text, sizeof(text), "%s_77", path);
	unlink(text);
}

static void test_bad_hellos(void **state)
{
	static const char *const hellos[] = { "\n", "CONNECT\n", "CONNECT x\n", "CONNECT 1 2\n", "CONNECT 99999999999\n",
					      "connect 1\n", "CONNECT -1\n", "CONNECT 1111111111111111111111111111111111111111" };
	char text[10];

	start(BUFFERS);
	for (unsigned i = 0; i < sizeof(hellos) / sizeof(hellos[0]); i++) {
		int s = connect_host();

		assert_true(send(s, hellos[i], strlen(hellos[i]), 0) > 0);
		assert_true(hear(s, text, sizeof(text)) <= 0);
		close(s);
	}
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_guest_connects), TEST(test_host_connects), TEST(test_credit), TEST(test_nonsense), TEST(test_bad_hellos),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
