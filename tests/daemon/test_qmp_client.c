/* SPDX-License-Identifier: GPL-2.0-or-later */
/* keeld's end of QMP against a machine that says what the test wants. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/qmp_client.h"

struct peer {
	struct loop *loop;
	struct qmp *q;
	int fd; /* the machine's end */
	char log[1024];
	bool free_on_close, free_on_event, closed;
};

static void note(struct peer *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void note(struct peer *p, const char *fmt, ...)
{
	size_t n = strlen(p->log);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p->log + n, sizeof(p->log) - n, fmt, ap);
	va_end(ap);
}

static void drop(struct peer *p)
{
	qmp_free_client(p->q);
	p->q = NULL;
}

static void on_ready(void *opaque)
{
	note(opaque, "ready;");
}

static void on_event(void *opaque, const char *name, json_t *data, int64_t seconds, uint32_t micros)
{
	struct peer *p = opaque;

	note(p, "%s %lld.%u %s;", name, (long long)seconds, micros, data ? json_string_value(json_object_get(data, "x")) : "-");
	if (p->free_on_event)
		drop(p);
}

static void on_closed(void *opaque, const char *why)
{
	struct peer *p = opaque;

	p->closed = true;
	note(p, "closed: %s;", why);
	if (p->free_on_close)
		drop(p);
}

static const struct qmp_ops ops = { on_ready, on_event, on_closed };

static void on_answer(void *opaque, json_t *ret, const char *error)
{
	struct peer *p = opaque;

	if (ret)
		note(p, "answer %lld;", (long long)json_integer_value(json_object_get(ret, "n")));
	else
		note(p, "error %s;", error);
}

static int setup(void **state)
{
	struct peer *p = calloc(1, sizeof(*p));
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	p->loop = loop_new(NULL);
	p->fd = fds[1];
	p->q = qmp_new_client(p->loop, fds[0], &ops, p, NULL);
	assert_non_null(p->q);
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct peer *p = *state;

	qmp_free_client(p->q);
	loop_free(p->loop);
	if (p->fd >= 0)
		close(p->fd);
	free(p);
	return 0;
}

static void stop(void *opaque)
{
	loop_quit(opaque, 0);
}

/* Let the loop handle all that has come: two turns, since a post may be seen before a descriptor. */
static void turn(struct peer *p)
{
	struct timer *t = timer_new(p->loop, stop, p->loop);

	timer_arm(t, monotonic_ns() + 20000000);
	loop_run(p->loop);
	timer_free(t);
}

static void say(struct peer *p, const char *text)
{
	assert_int_equal(write(p->fd, text, strlen(text)), strlen(text));
	turn(p);
}

static const char *heard(struct peer *p)
{
	static char buf[4096];
	ssize_t n = read(p->fd, buf, sizeof(buf) - 1);

	buf[n > 0 ? n : 0] = 0;
	return buf;
}

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n"

static void greet(struct peer *p)
{
	say(p, GREETING "{\"return\":{}}\r\n");
	assert_string_equal(heard(p), "{\"execute\":\"qmp_capabilities\"}");
	assert_string_equal(p->log, "ready;");
	p->log[0] = 0;
}

static void answers_come_in_order(void **state)
{
	struct peer *p = *state;

	greet(p);
	assert_true(qmp_send(p->q, "a", json_pack("{s:i}", "v", 1), on_answer, p));
	assert_true(qmp_send(p->q, "b", NULL, on_answer, p));
	assert_true(qmp_send(p->q, "c", NULL, NULL, NULL));
	assert_true(qmp_send(p->q, "d", NULL, on_answer, p));
	assert_string_equal(heard(p), "{\"execute\":\"a\",\"arguments\":{\"v\":1}}{\"execute\":\"b\"}{\"execute\":\"c\"}{\"execute\":\"d\"}");
	say(p, "{\"return\":{\"n\":1}}\r\n{\"event\":\"E\",\"timestamp\":{\"seconds\":5,\"microseconds\":6},\"data\":{\"x\":\"y\"}}\r\n");
	say(p, "{\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"}}\r\n{\"return\":{}}\r\n");
	assert_string_equal(p->log, "answer 1;E 5.6 y;error no;");
	say(p, "\r\n   \r\n{\"event\":\"F\"}\r\n{\"return\":{\"n\":");
	say(p, "4}");
	assert_string_equal(p->log, "answer 1;E 5.6 y;error no;F 0.0 -;");
	say(p, "}\n");
	assert_string_equal(p->log, "answer 1;E 5.6 y;error no;F 0.0 -;answer 4;");
}

static void what_is_unanswered_fails_with_the_connection(void **state)
{
	struct peer *p = *state;

	greet(p);
	qmp_send(p->q, "a", NULL, on_answer, p);
	p->free_on_close = true;
	close(p->fd);
	p->fd = -1;
	turn(p);
	assert_string_equal(p->log, "closed: the connection is closed;error the monitor is closed;");
}

static void freed_in_an_event(void **state)
{
	struct peer *p = *state;

	greet(p);
	p->free_on_event = true;
	say(p, "{\"event\":\"E\"}\n{\"event\":\"F\"}\n");
	assert_string_equal(p->log, "E 0.0 -;");
}

static void garbage_ends_it(void **state)
{
	static const struct {
		const char *text, *why;
	} bad[] = {
		{ "nonsense\n", "closed: what came is not a JSON object;" },
		{ "[1]\n", "closed: what came is not a JSON object;" },
		{ "{\"return\":{},\"return\":{}}\n", "closed: what came is not a JSON object;" },
		{ "{\"return\":{}}\n", "closed: an answer that belongs to no command came;" },
		{ "{\"error\":7}\n", "closed: an answer that belongs to no command came;" },
		{ "{}\n", "closed: an answer that belongs to no command came;" },
	};

	for (unsigned n = 0; n < sizeof(bad) / sizeof(bad[0]); n++) {
		struct peer *p;
		void *s;

		setup(&s);
		p = s;
		greet(p);
		say(p, bad[n].text);
		assert_string_equal(p->log, bad[n].why);
		assert_false(qmp_send(p->q, "late", NULL, on_answer, p));
		teardown(&s);
	}
}

static void no_greeting_is_no_machine(void **state)
{
	struct peer *p = *state;

	say(p, "{\"return\":{}}\n");
	assert_string_equal(p->log, "closed: the greeting is missing;");
}

static void a_line_without_end_is_refused(void **state)
{
	struct peer *p = *state;
	static char block[65536];

	greet(p);
	memset(block, 'a', sizeof(block));
	for (unsigned n = 0; n < 1024 && !p->closed; n++) {
		while (write(p->fd, block, sizeof(block)) > 0)
			;
		turn(p);
	}
	assert_string_equal(p->log, "closed: a message is too long;");
}

static void a_descriptor_goes_along(void **state)
{
	struct peer *p = *state;
	char control[CMSG_SPACE(sizeof(int))], buf[64];
	struct iovec iov = { buf, sizeof(buf) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c;
	int fds[2], got;

	greet(p);
	assert_int_equal(pipe(fds), 0);
	assert_true(qmp_send_fd(p->q, "getfd", json_pack("{s:s}", "fdname", "x"), fds[1], on_answer, p));
	close(fds[1]);
	assert_true(recvmsg(p->fd, &msg, 0) > 0);
	c = CMSG_FIRSTHDR(&msg);
	assert_non_null(c);
	memcpy(&got, CMSG_DATA(c), sizeof(got));
	assert_int_equal(write(got, "!", 1), 1);
	assert_int_equal(read(fds[0], buf, 1), 1);
	close(got);
	close(fds[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(answers_come_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_unanswered_fails_with_the_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(freed_in_an_event, setup, teardown),
		cmocka_unit_test(garbage_ends_it),
		cmocka_unit_test_setup_teardown(no_greeting_is_no_machine, setup, teardown),
		cmocka_unit_test_setup_teardown(a_line_without_end_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(a_descriptor_goes_along, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
