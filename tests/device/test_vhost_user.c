/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A shared folder's device against a back end that gives everything back: what passes, and what happens when it goes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "device/classes.h"
#include "fake_vhost.h"
#include "util/log.h"
#include "virtio_driver.h"

#define WRITTEN 5

static struct fake_machine *f;
static struct drv d;
static struct drv_queue q[2];
static struct device *fs;
static int ours;

static int setup(void **state)
{
	struct err err = ERR_INIT;
	char fd[16];

	log_set_level(LOG_ERROR);
	f = fake_machine_new();
	fake_device(f, "mch", NULL);
	fs = device_new(f->m, device_class_find("vhost-user-fs-pci"), "fs", &err);
	ours = fake_vhost_new(WRITTEN);
	snprintf(fd, sizeof(fd), "%d", ours);
	assert_int_equal(device_set(fs, "fd", fd, &err), 0);
	assert_int_equal(device_set(fs, "tag", "work", &err), 0);
	if (device_realize(fs, &err))
		fail_msg("%s", err_msg(&err));
	drv_init(&d, f, fs);
	machine_resume(f->m);
	return 0;
}

static int teardown(void **state)
{
	machine_pause(f->m);
	fake_machine_free(f);
	return 0;
}

static void start(unsigned kind)
{
	d.heap = 1 << 20;
	assert_true(drv_negotiate(&d, drv_kind_features(kind), true));
	drv_queue(&d, 0, &q[0], 0);
	drv_queue(&d, 1, &q[1], 0);
	drv_ok(&d);
}

static void test_config(void **state)
{
	char tag[37] = "";

	for (unsigned i = 0; i < 36; i++)
		tag[i] = fake_read(f, d.config + i, 1);
	assert_string_equal(tag, "work");
	assert_int_equal(fake_read(f, d.config + 36, 4), 1);
	assert_int_equal(drv_read(&d, DRV_NUM_QUEUES, 2), 2);
}

/* Any kind of ring on the guest's side; more requests than descriptors on the other. */
static void test_passes(void **state)
{
	struct drv_buf b[3] = { { 0x2000, 64, false }, { 0x3000, 128, true }, { 0x4000, 4, true } };

	for (unsigned kind = 0; kind < DRV_KINDS; kind++) {
		start(kind);
		for (unsigned i = 0; i < 600; i++)
			assert_int_equal(drv_request(&d, 1, &q[1], b, 3), WRITTEN);
		/* No more than the buffers have room for is believed. */
		assert_int_equal(drv_request(&d, 0, &q[0], b, 1), 0);
		assert_int_equal(drv_request(&d, 1, &q[1], b + 2, 1), 4);
	}
}

static void test_many_at_once(void **state)
{
	struct drv_buf b[60];
	uint32_t len;

	start(4); /* indirect: a ring entry each */
	for (unsigned i = 0; i < 60; i++)
		b[i] = (struct drv_buf){ 0x10000 + i * 64, 64, i >= 10 };
	for (unsigned round = 0; round < 5; round++) {
		for (unsigned i = 0; i < 100; i++) /* 6,000 descriptors for a ring of 1,024 */
			assert_true(drv_add(&q[1], b, 60, b));
		drv_notify(&d, 1);
		for (unsigned i = 0; i < 100; i++)
			assert_ptr_equal(drv_wait(&d, &q[1], &len), b);
	}
}

static void test_pause_and_reset(void **state)
{
	struct drv_buf b[2] = { { 0x2000, 64, false }, { 0x3000, 128, true } };
	uint32_t len;

	start(0);
	for (unsigned round = 0; round < 20; round++) {
		assert_true(drv_add(&q[1], b, 2, b));
		drv_notify(&d, 1);
		machine_pause(f->m); /* nothing is in flight behind this */
		machine_resume(f->m);
		assert_ptr_equal(drv_wait(&d, &q[1], &len), b);
		assert_true(drv_add(&q[1], b, 2, b));
		drv_notify(&d, 1);
		drv_write(&d, DRV_STATUS, 0, 1);
		start(round % DRV_KINDS);
		assert_int_equal(drv_request(&d, 1, &q[1], b, 2), WRITTEN);
	}
}

static void test_server_goes(void **state)
{
	struct timespec moment = { 0, 1000000 };

	start(0);
	shutdown(ours, SHUT_RDWR);
	for (unsigned i = 0; i < 5000 && !(drv_status(&d) & 64); i++)
		nanosleep(&moment, NULL); /* a thread has to notice */
	assert_int_equal(drv_status(&d), 15 | 64);
	/* A reset does not bring it back. */
	drv_write(&d, DRV_STATUS, 0, 1);
	start(0);
	assert_int_equal(drv_status(&d), 15 | 64);
}

static void fails(const char *prop, const char *value, const char *word)
{
	struct err err = ERR_INIT;
	struct device *dev = device_new(f->m, device_class_find("vhost-user-fs-pci"), NULL, &err);
	int ret = prop ? device_set(dev, prop, value, &err) : 0;

	if (!ret && (!prop || strcmp(prop, "tag")))
		device_set(dev, "tag", "t", NULL);
	ret = device_realize(dev, &err);
	assert_true(ret < 0);
	if (!strstr(err.msg, word))
		fail_msg("'%s' does not say '%s'", err.msg, word);
}

static void test_refusals(void **state)
{
	int pair[2];
	char fd[16];

	fails(NULL, NULL, "socket and fd");
	fails("tag", "", "tag");
	fails("socket", "/nowhere/at/all", "/nowhere/at/all");
	/* Somebody who hangs up, and somebody who talks nonsense. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	close(pair[1]);
	snprintf(fd, sizeof(fd), "%d", pair[0]);
	fails("fd", fd, "gone");
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(send(pair[1], "HTTP/1.1 200 OK\r\n\r\n\r\n\r\n", 24, 0), 24);
	snprintf(fd, sizeof(fd), "%d", pair[0]);
	fails("fd", fd, "answered");
	close(pair[1]);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_config), TEST(test_passes), TEST(test_many_at_once), TEST(test_pause_and_reset), TEST(test_server_goes),
		TEST(test_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
