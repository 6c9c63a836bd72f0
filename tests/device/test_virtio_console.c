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
#include "util/log.h"
#include "virtio_driver.h"

#define F_MULTIPORT (1ull << 1)
#define F_EMERG (1ull << 2)
enum { READY, ADD, REMOVE, PORT_READY, CONSOLE, RESIZE, OPEN, NAME };

static struct fake_machine *f;
static struct drv d;
static struct fake_chardev c0, c2;
static struct drv_queue q[8];

static void machine_up(void)
{
	struct err err = ERR_INIT;
	struct device *dev;

	f = fake_machine_new();
	fake_device(f, "mch", NULL);
	dev = device_new(f->m, device_class_find("virtio-serial-pci"), "serial", &err);
	device_set_ptr(dev, "chardev", &c0.chardev);
	device_set_ptr(dev, "chardev2", &c2.chardev);
	device_set(dev, "name2", "org.keel.agent", NULL);
	if (device_realize(dev, &err))
		fail_msg("%s", err_msg(&err));
	drv_init(&d, f, dev);
	machine_resume(f->m);
}

static int setup(void **state)
{
	log_set_level(LOG_ERROR);
	fake_chardev_init(&c0);
	fake_chardev_init(&c2);
	machine_up();
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
	c0.len = c2.len = 0;
	assert_true(drv_negotiate(&d, drv_kind_features(kind) | features, true));
	for (unsigned i = 0; i < 8; i++)
		drv_queue(&d, i, &q[i], 16);
	drv_ok(&d);
	fake_machine_loop(f);
}

static struct drv_buf bufs[256];
static unsigned next;

static void post(unsigned n, unsigned count, uint32_t len)
{
	while (count--) {
		struct drv_buf *b = &bufs[next++ % 256];

		*b = (struct drv_buf){ drv_alloc(&d, len, 8), len, true };
		assert_true(drv_add(&q[n], b, 1, b));
	}
	if (drv_must_notify(&q[n]))
		drv_notify(&d, n);
	fake_machine_loop(f);
}

static void send(unsigned n, const void *data, uint32_t len)
{
	struct drv_buf *b = &bufs[next++ % 256];

	*b = (struct drv_buf){ drv_alloc(&d, len, 8), len, false };
	memcpy(d.ram + b->gpa, data, len);
	assert_true(drv_add(&q[n], b, 1, b));
	if (drv_must_notify(&q[n]))
		drv_notify(&d, n);
	fake_machine_loop(f);
}

static void control(uint32_t id, uint16_t event, uint16_t value)
{
	uint16_t m[4] = { id, id >> 16, event, value };
	uint32_t len;

	send(3, m, 8);
	assert_non_null(drv_get(&q[3], &len));
}

/* The next control message must be this one. */
static void expect(uint32_t id, uint16_t event, uint16_t value, const char *text)
{
	uint16_t m[4];
	uint32_t len;
	struct drv_buf *b = drv_get(&q[2], &len);

	assert_non_null(b);
	memcpy(m, d.ram + b->gpa, 8);
	assert_int_equal(m[0] | m[1] << 16, id);
	assert_int_equal(m[2], event);
	assert_int_equal(m[3], value);
	assert_int_equal(len, 8 + (text ? strlen(text) + 1 : 0));
	if (text)
		assert_string_equal(d.ram + b->gpa + 8, text);
}

static void expect_silence(void)
{
	uint32_t len;

	assert_null(drv_get(&q[2], &len));
}

static void test_config(void **state)
{
	struct err err = ERR_INIT;
	struct device *dev;

	assert_true((drv_offered(&d) & 7) == (F_MULTIPORT | F_EMERG));
	assert_int_equal(fake_read(f, d.config + 4, 4), 3); /* ports 0 to 2 */
	assert_int_equal(drv_read(&d, DRV_NUM_QUEUES, 2), 8);
	/* A character before anything is set up. */
	fake_write(f, d.config + 8, '!', 4);
	assert_int_equal(c0.len, 1);
	assert_int_equal(c0.out[0], '!');
	dev = device_new(f->m, device_class_find("virtio-serial-pci"), NULL, NULL);
	device_set_ptr(dev, "chardev", &c0.chardev);
	assert_int_equal(device_realize(dev, &err), -EBUSY);
	dev = device_new(f->m, device_class_find("virtio-serial-pci"), NULL, NULL);
	device_set(dev, "name3", "x", NULL);
	err = ERR_INIT;
	assert_int_equal(device_realize(dev, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "chardev3"));
}

/* Without the control queue there is one port, and it is open. */
static void test_simple(void **state)
{
	for (unsigned kind = 0; kind < DRV_KINDS; kind++) {
		struct drv_buf *b;
		uint32_t len;

		start(kind, 0);
		send(1, "hello ", 6);
		send(1, "world\n", 6);
		assert_int_equal(c0.len, 12);
		assert_memory_equal(c0.out, "hello world\n", 12);
		assert_non_null(drv_get(&q[1], &len));
		/* No buffers, no input; a buffer tells the back end. */
		assert_int_equal(fake_chardev_type(&c0, "abc", 3), 0);
		c0.accepts = 0;
		post(0, 2, 4);
		assert_true(c0.accepts > 0);
		fake_msi_clear(f);
		drv_interrupts(&q[0], true);
		assert_int_equal(fake_chardev_type(&c0, "abcdef!", 7), 7);
		assert_true(drv_messages(&d, 1) > 0);
		b = drv_get(&q[0], &len);
		assert_int_equal(len, 4);
		assert_memory_equal(d.ram + b->gpa, "abcd", 4);
		b = drv_get(&q[0], &len);
		assert_int_equal(len, 3);
		assert_memory_equal(d.ram + b->gpa, "ef!", 3);
		assert_int_equal(fake_chardev_type(&c0, "g", 1), 0);
	}
}

static void open_ports(unsigned kind)
{
	start(kind, F_MULTIPORT);
	post(2, 8, 64);
	control(0, READY, 1);
	expect(0, ADD, 1, NULL);
	expect(2, ADD, 1, NULL);
	expect_silence();
	control(0, PORT_READY, 1);
	expect(0, CONSOLE, 1, NULL);
	expect(0, OPEN, 1, NULL);
	control(2, PORT_READY, 1);
	expect(2, NAME, 1, "org.keel.agent");
	expect(2, OPEN, 1, NULL);
	expect_silence();
}

static void test_multiport(void **state)
{
	for (unsigned kind = 0; kind < DRV_KINDS; kind++) {
		uint32_t len;
		struct drv_buf *b;

		c0.chardev.up = c2.chardev.up = true;
		open_ports(kind);
		/* The guest hasn't opened port 2. */
		post(6, 1, 32);
		assert_int_equal(fake_chardev_type(&c2, "early", 5), 0);
		c2.accepts = 0;
		control(2, OPEN, 1);
		assert_int_equal(c2.accepts, 1);
		assert_int_equal(fake_chardev_type(&c2, "data", 4), 4);
		b = drv_get(&q[6], &len);
		assert_int_equal(len, 4);
		assert_memory_equal(d.ram + b->gpa, "data", 4);
		send(7, "answer", 6);
		assert_memory_equal(c2.out, "answer", 6);
		assert_int_equal(c0.len, 0);
		/* The host's end goes and comes. */
		post(2, 3, 64);
		c2.chardev.up = false;
		c2.chardev.front->connected(c2.chardev.front_opaque, false);
		expect(2, OPEN, 0, NULL);
		c2.chardev.up = true;
		c2.chardev.front->connected(c2.chardev.front_opaque, true);
		expect(2, OPEN, 1, NULL);
		/* Messages about ports that aren't, or cut short. */
		control(1, PORT_READY, 1);
		control(3, OPEN, 1);
		control(UINT32_MAX, PORT_READY, 1);
		control(0, 99, 1);
		send(3, "abc", 3);
		drv_get(&q[3], &len);
		expect_silence();
		assert_int_equal(drv_status(&d), 15);
	}
}

/* Messages wait for buffers, in order, and don't pile up. */
static void test_control_waits(void **state)
{
	start(0, F_MULTIPORT);
	control(0, READY, 1);
	expect_silence();
	for (unsigned i = 0; i < 100; i++) {
		c0.chardev.up = i & 1;
		c0.chardev.front->connected(c0.chardev.front_opaque, i & 1);
	}
	post(2, 1, 64);
	expect(0, ADD, 1, NULL);
	post(2, 4, 64);
	expect(0, OPEN, 1, NULL); /* the last news, once */
	expect(2, ADD, 1, NULL);
	expect_silence();
}

/* A back end that is slow: every byte once, in order, whatever the pieces. */
static void test_slow_output(void **state)
{
	for (unsigned kind = 0; kind < DRV_KINDS; kind++) {
		uint8_t data[300];
		unsigned n = 0;
		uint32_t len;

		start(kind, 0);
		for (unsigned i = 0; i < sizeof(data); i++)
			data[i] = i * 3;
		c0.room = 0;
		for (unsigned i = 0; i < 3; i++)
			send(1, data + 100 * i, 100);
		assert_int_equal(c0.len, 0);
		for (unsigned i = 0; c0.len < 300; i++) {
			c0.room = 1 + i % 41;
			c0.chardev.front->writable(c0.chardev.front_opaque);
			while (drv_get(&q[1], &len))
				n++;
			assert_int_equal(n, c0.len / 100);
		}
		assert_memory_equal(c0.out, data, 300);
		c0.room = SIZE_MAX;
		c0.chardev.front->writable(c0.chardev.front_opaque);
		assert_int_equal(c0.len, 300);
		send(1, "x", 1);
		assert_int_equal(c0.len, 301);
	}
}

static void test_save_load(void **state)
{
	for (unsigned kind = 0; kind < DRV_KINDS; kind++) {
		struct state_buf s = { 0 };
		struct err err = ERR_INIT;
		uint8_t *ram = malloc(4 << 20);
		uint64_t heap;
		uint32_t len;

		c0.chardev.up = c2.chardev.up = true;
		open_ports(kind);
		control(2, OPEN, 1);
		c2.room = 4;
		send(7, "0123456789", 10); /* cut in the middle */
		assert_int_equal(c2.len, 4);
		machine_pause(f->m);
		assert_int_equal(c2.chardev.front->can_receive(c2.chardev.front_opaque), 0);
		assert_int_equal(machine_save(f->m, &s, &err), 0);
		memcpy(ram, d.ram + (1 << 20), 4 << 20);
		heap = d.heap;
		teardown(NULL);

		c2.room = SIZE_MAX;
		c2.chardev.up = false;
		machine_up();
		machine_pause(f->m);
		memcpy(mem_ptr(&f->m->mem, 1 << 20, 4 << 20), ram, 4 << 20);
		free(ram);
		if (machine_load(f->m, s.data, s.len, &err))
			fail_msg("%s", err_msg(&err));
		state_buf_free(&s);
		for (unsigned i = 0; i < 8; i++)
			q[i].ram = d.ram;
		d.heap = heap;
		machine_resume(f->m);
		fake_machine_loop(f);
		assert_int_equal(c2.len, 10);
		assert_memory_equal(c2.out, "0123456789", 10); /* no byte twice */
		assert_non_null(drv_get(&q[7], &len));
		/* Where it is now nobody listens to port 2. */
		expect(0, OPEN, 1, NULL);
		expect(2, OPEN, 0, NULL);
		expect_silence();
		post(6, 1, 8);
		assert_int_equal(fake_chardev_type(&c2, "hi", 2), 2); /* still open */
	}
}

static void test_reset(void **state)
{
	open_ports(0);
	control(2, OPEN, 1);
	c0.room = 3;
	send(1, "abcdef", 6);
	start(0, F_MULTIPORT);
	post(6, 1, 8);
	assert_int_equal(fake_chardev_type(&c2, "x", 1), 0); /* closed again */
	c0.room = SIZE_MAX;
	c0.len = 0;
	c0.chardev.front->writable(c0.chardev.front_opaque);
	send(1, "new", 3);
	assert_int_equal(c0.len, 3); /* nothing of the old buffer */
	assert_memory_equal(c0.out, "new", 3);
	device_free(machine_find(f->m, "serial"));
	assert_null(c0.chardev.front);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_config),	TEST(test_simple),    TEST(test_multiport), TEST(test_control_waits),
		TEST(test_slow_output), TEST(test_save_load), TEST(test_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
