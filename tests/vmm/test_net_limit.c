/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Limits between a card and a back end that would both go as fast as they can. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "util/loop.h"
#include "vmm/net_limit.h"

#define FRAME 1500u
#define KIB 1024u

static struct loop *loop;
static uint64_t sent[2], received[2]; /* bytes, by queue */
static bool refuses;		      /* the back end */
static struct netdev *card, *queue[2];
static struct netdev inner[2];

/* ---- Back end and card ------------------------------------------------------------- */

static bool inner_send(struct netdev *n, const struct iovec *iov, int cnt, size_t len)
{
	if (refuses)
		return false;
	sent[n - inner] += len;
	return true;
}

/* Always has one more. */
static void inner_ready(struct netdev *n)
{
	struct iovec iov = { (char[FRAME]){ 0 }, FRAME };

	while (n->front->receive(n->front_opaque, &iov, 1, FRAME))
		;
}

static void inner_free(struct netdev *n)
{
}

static const struct netdev_ops inner_ops = { .send = inner_send, .rx_ready = inner_ready, .free = inner_free };

static bool card_receive(void *opaque, const struct iovec *iov, int n, size_t len)
{
	received[(uint64_t *)opaque - received] += len;
	return true;
}

static void card_writable(void *opaque)
{
	unsigned i = (uint64_t *)opaque - received;
	struct iovec iov = { (char[FRAME]){ 0 }, FRAME };

	while (queue[i]->ops->send(queue[i], &iov, 1, FRAME))
		;
}

static const struct netdev_front front = { .receive = card_receive, .writable = card_writable };

static void set_up(unsigned queues, const char *inbound, const char *outbound)
{
	static struct netdev *list[] = { &inner[0], &inner[1] };
	struct net_limit limits[2] = { 0 };

	loop = loop_new(NULL);
	memset(sent, 0, sizeof(sent));
	memset(received, 0, sizeof(received));
	for (unsigned i = 0; i < 2; i++)
		inner[i] = (struct netdev){ .ops = &inner_ops, .up = true };
	if (queues > 1) {
		inner[0].queue = list;
		inner[0].queues = queues;
	}
	assert_int_equal(net_limit_parse(inbound, &limits[NET_INBOUND], NULL), 0);
	assert_int_equal(net_limit_parse(outbound, &limits[NET_OUTBOUND], NULL), 0);
	card = net_limit_new(&inner[0], loop, limits, NULL);
	assert_non_null(card);
	assert_int_equal(card->queues, queues > 1 ? queues : 0);
	for (unsigned i = 0; i < queues; i++) {
		queue[i] = queues > 1 ? card->queue[i] : card;
		queue[i]->front = &front;
		queue[i]->front_opaque = &received[i];
	}
}

static void quit(void *opaque)
{
	loop_quit(loop, 0);
}

/* Both directions of all queues at full speed. */
static void run_for(unsigned queues, unsigned ms)
{
	struct timer *end = timer_new(loop, quit, NULL);

	timer_arm(end, monotonic_ns() + ms * 1000000ull);
	for (unsigned i = 0; i < queues; i++) {
		card_writable(&received[i]);
		inner_ready(&inner[i]);
	}
	loop_run(loop);
	timer_free(end);
}

static void tear_down(void)
{
	card->ops->free(card);
	loop_free(loop);
}

static void within(uint64_t value, uint64_t want)
{
	if (value < want * 85 / 100 || value > want * 115 / 100)
		fail_msg("%llu bytes, not about %llu", (unsigned long long)value, (unsigned long long)want);
}

/* ---- Tests ---------------------------------------------------------------------------- */

static void test_average(void **state)
{
	set_up(1, "2000:0:100", "1000:0:100");
	run_for(1, 600);
	within(received[0], 100 * KIB + 2000 * KIB * 6 / 10);
	within(sent[0], 100 * KIB + 1000 * KIB * 6 / 10);
	tear_down();
}

/* The burst leaves at the peak's speed, all else at the average's. */
static void test_peak(void **state)
{
	set_up(1, "1000:4000:800", "0");
	refuses = true; /* a direction without limits would not end */
	run_for(1, 200);
	within(received[0], 64 * KIB + 4000 * KIB * 2 / 10);
	run_for(1, 400);
	/* 800 KiB and what came in at 1000 KiB/s in 600 ms. */
	within(received[0], 800 * KIB + 1000 * KIB * 6 / 10);
	refuses = false;
	tear_down();
}

static void test_queues_share(void **state)
{
	set_up(2, "2000:0:64", "2000:0:64");
	run_for(2, 500);
	within(received[0] + received[1], 64 * KIB + 1000 * KIB);
	within(sent[0] + sent[1], 64 * KIB + 1000 * KIB);
	tear_down();
}

static void test_change(void **state)
{
	set_up(1, "10:0:64", "10:0:64");
	run_for(1, 100);
	assert_true(sent[0] < 80 * KIB);
	net_limit_set(card, NET_OUTBOUND, &(struct net_limit){ .average = 4000 * KIB, .burst = 64 * KIB });
	sent[0] = 0;
	run_for(1, 300);
	within(sent[0], 64 * KIB + 1200 * KIB);
	tear_down();
}

/* What a busy back end does not take costs nothing. */
static void test_refused(void **state)
{
	struct iovec iov = { (char[FRAME]){ 0 }, FRAME };

	set_up(1, "0", "10:0:64");
	refuses = true;
	for (unsigned i = 0; i < 1000; i++)
		assert_false(card->ops->send(card, &iov, 1, FRAME));
	refuses = false;
	card_writable(&received[0]);
	within(sent[0], 64 * KIB);
	tear_down();
}

static void test_texts(void **state)
{
	static const char *const bad[] = { "", "x", "1:", ":1", "1:2:3:4", "-1", "1:0:x", "0:1", "0:0:1", "2:1", "99999999999999" };
	struct net_limit l;

	assert_int_equal(net_limit_parse("1:2:3", &l, NULL), 0);
	assert_int_equal(l.average, 1024);
	assert_int_equal(l.peak, 2048);
	assert_int_equal(l.burst, 3072);
	assert_int_equal(net_limit_parse("0", &l, NULL), 0);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (net_limit_parse(bad[i], &l, NULL) != -EINVAL)
			fail_msg("'%s' was taken", bad[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_average), cmocka_unit_test(test_peak),	cmocka_unit_test(test_queues_share),
		cmocka_unit_test(test_change),	cmocka_unit_test(test_refused), cmocka_unit_test(test_texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
