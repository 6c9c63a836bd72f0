/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libkeel before a real keeld: usage test_keel KEELD KEEL-VMM */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keel/keel.h"
#include "keeld.h"
#include "util/loop.h"

#define LIMIT_MS 30000

static const char *keeld_path, *vmm_path;
static struct test_keeld keeld;
static struct keel_conn *conn;
static struct keel_error error;

#define OK(call)                                                                                 \
	do {                                                                                     \
		error = (struct keel_error){ 0 };                                                \
		if ((call) < 0)                                                                  \
			fail_msg("%s: %s (%d)", #call, error.message, error.code);               \
	} while (0)
#define GOT(call)                                                                                \
	({                                                                                       \
		error = (struct keel_error){ 0 };                                                \
		__typeof__(call) got_ = (call);                                                  \
		if (!got_)                                                                       \
			fail_msg("%s: %s (%d)", #call, error.message, error.code);               \
		got_;                                                                            \
	})

static int setup(void **state)
{
	test_keeld_start(&keeld, keeld_path, vmm_path);
	conn = GOT(keel_open(keeld.uri, 0, &error));
	return 0;
}

static int teardown(void **state)
{
	struct keel_domain **list;

	keel_close(conn);
	/* A test that failed may have left its guest. */
	conn = keel_open(keeld.uri, 0, NULL);
	if (conn && keel_domain_list(conn, KEEL_LIST_ACTIVE, &list, NULL) >= 0) {
		for (struct keel_domain **p = list; *p; p++)
			keel_domain_destroy(*p, 0, NULL);
		keel_domain_list_free(list);
	}
	keel_close(conn);
	test_keeld_stop(&keeld);
	return 0;
}

/*
 * A guest that gives back what its serial port hears, the case of letters
 * swapped, after a '~' that tells that it listens: a boot sector for SeaBIOS
 * to start, which talks on the same port before and would listen, too, at its
 * timer's interrupts.
 */
static char *echo_xml(const char *name)
{
	static const uint8_t code[] = {
		0xfa,		  /* cli */
		0xba, 0xf8, 0x03, /* mov dx, 0x3f8 */
		0xb0, '~',	  /* mov al, '~' */
		0xee,		  /* out dx, al */
		0xba, 0xfd, 0x03, /* mov dx, 0x3fd: line status */
		0xec,		  /* in al, dx */
		0xa8, 0x01,	  /* test al, 1: something has come */
		0x74, 0xfb,	  /* jz, back to the in */
		0xba, 0xf8, 0x03, /* mov dx, 0x3f8 */
		0xec,		  /* in al, dx */
		0x34, 0x20,	  /* xor al, 0x20 */
		0xee,		  /* out dx, al */
		0xeb, 0xef,	  /* jmp, to the line status */
	};
	uint8_t sector[512] = { 0 };
	char path[128], *xml;
	FILE *f;

	memcpy(sector, code, sizeof(code));
	sector[510] = 0x55;
	sector[511] = 0xaa;
	snprintf(path, sizeof(path), "%s/%s.img", keeld.dir, name);
	f = fopen(path, "we");
	assert_non_null(f);
	fwrite(sector, 1, sizeof(sector), f);
	assert_int_equal(ftruncate(fileno(f), 1 << 20), 0);
	fclose(f);
	assert_true(asprintf(&xml,
			     "<domain type='qemu'><name>%s</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>"
			     "<os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features><devices>"
			     "<disk type='file'><source file='%s'/><target dev='vda' bus='virtio'/></disk>"
			     "<serial type='pty'/></devices></domain>",
			     name, path) > 0);
	return xml;
}

static struct keel_domain *define(const char *name)
{
	char *xml = echo_xml(name);
	struct keel_domain *dom = GOT(keel_domain_define(conn, xml, &error));

	free(xml);
	return dom;
}

static void test_connection(void **state)
{
	struct keel_node_info info;
	uint64_t hv, protocol;
	char host[256], *text;

	OK(keel_versions(conn, &hv, &protocol, &error));
	assert_int_equal(hv, 7002000);
	assert_int_equal(protocol, 9000000);
	gethostname(host, sizeof(host));
	text = GOT(keel_hostname(conn, &error));
	assert_string_equal(text, host);
	keel_free(text);
	text = GOT(keel_uri(conn, &error));
	assert_string_equal(text, geteuid() ? "qemu:///session" : "qemu:///system");
	keel_free(text);
	text = GOT(keel_capabilities(conn, &error));
	assert_non_null(strstr(text, "<arch>x86_64</arch>"));
	keel_free(text);
	OK(keel_node_info(conn, &info, &error));
	assert_string_equal(info.model, "x86_64");
	assert_int_equal(info.cpus, sysconf(_SC_NPROCESSORS_ONLN));
	assert_true(info.memory_kib > 0);
	assert_int_equal(keel_is_alive(conn), 1);
}

static void test_open_failures(void **state)
{
	static const char *const bad[] = { "qemu:///nowhere", "xen:///system", "qemu:///system?socket=/nonexistent/sock",
					   "qemu:///system?colour=red" };
	char uri[200];

	for (unsigned n = 0; n < sizeof(bad) / sizeof(bad[0]); n++) {
		error = (struct keel_error){ 0 };
		assert_null(keel_open(bad[n], 0, &error));
		assert_int_not_equal(error.code, 0);
		assert_true(strlen(error.message) > 10);
	}
	/* The other kind of daemon. */
	snprintf(uri, sizeof(uri), "qemu:///%s?socket=%s/root/run/libvirt-sock", geteuid() ? "system" : "session", keeld.dir);
	assert_null(keel_open(uri, 0, &error));
	assert_null(keel_open(uri, 0, NULL));
}

static void test_definitions(void **state)
{
	struct keel_domain *a = define("a"), *b = define("b"), *found, **list;
	unsigned char none[16] = { 1 };
	char uuid[37], *xml;

	assert_int_equal(keel_domain_list(conn, 0, &list, &error), 2);
	assert_string_equal(keel_domain_name(list[0]), "a");
	assert_string_equal(keel_domain_name(list[1]), "b");
	assert_null(list[2]);
	keel_domain_list_free(list);
	assert_int_equal(keel_domain_list(conn, KEEL_LIST_ACTIVE, &list, &error), 0);
	keel_domain_list_free(list);
	found = GOT(keel_domain_by_uuid(conn, keel_domain_uuid(b), &error));
	assert_string_equal(keel_domain_name(found), "b");
	assert_int_equal(keel_domain_id(found), -1);
	keel_domain_free(found);
	xml = GOT(keel_domain_xml(a, KEEL_XML_INACTIVE, &error));
	keel_domain_uuid_text(a, uuid);
	assert_int_equal(strlen(uuid), 36);
	assert_non_null(strstr(xml, uuid));
	keel_free(xml);
	assert_int_equal(keel_domain_autostart(a, &error), 0);
	OK(keel_domain_set_autostart(a, 1, &error));
	assert_int_equal(keel_domain_autostart(a, &error), 1);
	OK(keel_domain_set_autostart(a, 0, &error));

	assert_null(keel_domain_by_uuid(conn, none, &error));
	assert_int_equal(error.code, KEEL_ERR_NO_DOMAIN);
	assert_null(keel_domain_by_name(conn, "nobody", &error));
	assert_int_equal(error.code, KEEL_ERR_NO_DOMAIN);
	assert_null(keel_domain_by_id(conn, 77, &error));
	assert_int_equal(error.code, KEEL_ERR_NO_DOMAIN);
	assert_null(keel_domain_define(conn, "<domain>", &error));
	assert_null(keel_domain_define(conn, "<domain type='qemu'><name>x</name></domain>", NULL));
	assert_int_equal(keel_domain_destroy(a, 0, &error), -1);
	assert_int_equal(error.code, KEEL_ERR_STATE);
	OK(keel_domain_undefine(a, 0, &error));
	OK(keel_domain_undefine(b, 0, &error));
	assert_int_equal(keel_domain_undefine(b, 0, &error), -1);
	assert_int_equal(error.code, KEEL_ERR_NO_DOMAIN);
	keel_domain_free(a);
	keel_domain_free(b);
}

static void test_readonly(void **state)
{
	struct keel_conn *ro = GOT(keel_open(keeld.uri_ro, KEEL_OPEN_READONLY, &error));
	struct keel_domain *dom = define("looked-at"), *seen = GOT(keel_domain_by_name(ro, "looked-at", &error));

	assert_int_equal(keel_domain_state(seen, NULL, &error), KEEL_STATE_SHUTOFF);
	assert_int_equal(keel_domain_start(seen, 0, &error), -1);
	assert_int_equal(error.code, KEEL_ERR_DENIED);
	assert_int_equal(keel_domain_undefine(seen, 0, &error), -1);
	keel_domain_free(seen);
	keel_close(ro);
	OK(keel_domain_undefine(dom, 0, &error));
	keel_domain_free(dom);
}

/* ---- Events and life cycle --------------------------------------------------- */

struct heard {
	unsigned n;
	int event[64];
	char name[64][16];
};

static void on_lifecycle(void *opaque, const struct keel_event *e)
{
	struct heard *h = opaque;

	assert_int_equal(e->kind, KEEL_EVENT_LIFECYCLE);
	assert_string_equal(e->params[0].name, "event");
	assert_string_equal(e->params[1].name, "detail");
	snprintf(h->name[h->n % 64], sizeof(h->name[0]), "%s", keel_domain_name(e->dom));
	h->event[h->n++ % 64] = e->params[0].value.i;
}

static void wait_heard(const struct heard *h, unsigned n)
{
	uint64_t end = monotonic_ns() + LIMIT_MS * UINT64_C(1000000);

	while (h->n < n) {
		if (monotonic_ns() > end)
			fail_msg("%u events, not %u", h->n, n);
		OK(keel_wait(conn, 1000, &error));
	}
}

static void test_life(void **state)
{
	static const int expected[] = { KEEL_LIFECYCLE_DEFINED, KEEL_LIFECYCLE_RESUMED, KEEL_LIFECYCLE_STARTED,
					KEEL_LIFECYCLE_SUSPENDED, KEEL_LIFECYCLE_RESUMED };
	struct heard all = { 0 };
	struct keel_stats *stats;
	struct keel_domain_info info;
	struct keel_domain *dom;
	int number, reason, found, stopped = 0;
	char *text;

	number = keel_event_subscribe(conn, NULL, KEEL_EVENT_LIFECYCLE, on_lifecycle, &all, &error);
	assert_true(number > 0);
	dom = define("life");
	OK(keel_domain_start(dom, 0, &error));
	assert_int_equal(keel_domain_state(dom, &reason, &error), KEEL_STATE_RUNNING);
	assert_int_equal(reason, 1); /* booted */
	OK(keel_domain_suspend(dom, &error));
	assert_int_equal(keel_domain_state(dom, NULL, &error), KEEL_STATE_PAUSED);
	assert_string_equal(keel_state_name(KEEL_STATE_PAUSED), "paused");
	text = GOT(keel_domain_qmp(dom, "{\"execute\": \"query-status\"}", &error));
	assert_non_null(strstr(text, "paused"));
	keel_free(text);
	OK(keel_domain_resume(dom, &error));
	OK(keel_domain_info(dom, &info, &error));
	assert_int_equal(info.state, KEEL_STATE_RUNNING);
	assert_int_equal(info.max_memory_kib, 65536);
	assert_int_equal(info.vcpus, 1);
	assert_int_equal(keel_stats(conn, dom, 0, 0, &stats, &error), 1);
	assert_string_equal(keel_domain_name(stats[0].dom), "life");
	assert_true(keel_param_number(stats[0].params, stats[0].nparams, "state.state", &found) == KEEL_STATE_RUNNING && found);
	assert_true(keel_param_number(stats[0].params, stats[0].nparams, "vcpu.current", &found) == 1 && found);
	keel_param_number(stats[0].params, stats[0].nparams, "no.such", &found);
	assert_false(found);
	keel_stats_free(stats, 1);
	assert_int_equal(keel_stats(conn, NULL, KEEL_STATS_STATE, KEEL_LIST_ACTIVE, &stats, &error), 1);
	keel_stats_free(stats, 1);
	OK(keel_domain_destroy(dom, 0, &error));
	assert_int_equal(keel_domain_state(dom, NULL, &error), KEEL_STATE_SHUTOFF);
	wait_heard(&all, 6);
	for (unsigned n = 0; n < 5; n++)
		assert_int_equal(all.event[n], expected[n]);
	for (unsigned n = 5; n < all.n; n++)
		stopped |= all.event[n] == KEEL_LIFECYCLE_STOPPED;
	if (!stopped)
		wait_heard(&all, 7);
	assert_string_equal(all.name[0], "life");
	OK(keel_event_unsubscribe(conn, number, &error));
	assert_int_equal(keel_event_unsubscribe(conn, number, &error), -1);
	OK(keel_domain_undefine(dom, 0, &error));
	found = (int)all.n;
	OK(keel_wait(conn, 100, &error));
	assert_int_equal(all.n, found);
	keel_domain_free(dom);
}

/* ---- Consoles ---------------------------------------------------------------- */

struct heard_bytes {
	char text[256];
	size_t len;
	bool end;
};

static void on_readable(void *opaque, struct keel_stream *st)
{
	struct heard_bytes *h = opaque;
	ssize_t n = keel_stream_recv(st, h->text + h->len, sizeof(h->text) - 1 - h->len, KEEL_STREAM_NONBLOCK, &error);

	if (n > 0)
		h->len += (size_t)n;
	else if (n != -2)
		h->end = true;
	if (h->end)
		keel_stream_on_readable(st, NULL, NULL);
}

/* Read until it is there. */
static void await_text(struct keel_stream *st, const char *what)
{
	char text[4096] = "";
	size_t len = 0;

	alarm(LIMIT_MS / 1000);
	while (!strstr(text, what)) {
		ssize_t n = keel_stream_recv(st, text + len, sizeof(text) - 1 - len, 0, &error);

		OK(n);
		assert_true(n > 0);
		for (size_t end = len + (size_t)n; len < end; len++)
			if (!text[len])
				text[len] = ' ';
	}
	alarm(0);
}

static void test_console(void **state)
{
	struct keel_domain *dom = define("talk");
	struct heard_bytes h = { 0 };
	struct keel_stream *st;
	char text[64];

	assert_null(keel_domain_console(dom, NULL, 0, &error));
	assert_int_equal(error.code, KEEL_ERR_STATE);
	OK(keel_domain_start(dom, 0, &error));
	assert_null(keel_domain_console(dom, "serial9", 0, &error));
	st = GOT(keel_domain_console(dom, NULL, 0, &error));
	assert_int_equal(keel_stream_recv(st, text, sizeof(text), KEEL_STREAM_NONBLOCK, &error), -2);
	await_text(st, "~");
	OK(keel_stream_send(st, "abcDEF", 6, &error));
	await_text(st, "ABCdef");
	keel_stream_free(st);

	/* Again, with callbacks; a second client is refused unless it insists. */
	st = GOT(keel_domain_console(dom, "serial0", KEEL_CONSOLE_FORCE, &error));
	keel_stream_on_readable(st, on_readable, &h);
	OK(keel_stream_send(st, "xyz", 3, &error));
	while (h.len < 3)
		OK(keel_wait(conn, LIMIT_MS, &error));
	assert_string_equal(h.text, "XYZ");
	OK(keel_domain_destroy(dom, 0, &error));
	while (!h.end)
		OK(keel_wait(conn, LIMIT_MS, &error));
	assert_int_equal(keel_stream_send(st, "x", 1, &error), -1);
	keel_stream_free(st);
	OK(keel_domain_undefine(dom, 0, &error));
	keel_domain_free(dom);
}

/* ---- Threads ----------------------------------------------------------------- */

enum { THREADS = 12, ROUNDS = 25 };

static void on_count(void *opaque, const struct keel_event *e)
{
	__atomic_add_fetch((unsigned *)opaque, 1, __ATOMIC_SEQ_CST);
}

static void *worker(void *arg)
{
	unsigned number = (unsigned)(uintptr_t)arg;
	char name[32], *xml;
	uintptr_t wrong = 0;

	snprintf(name, sizeof(name), "t%u", number);
	asprintf(&xml, "<domain type='qemu'><name>%s</name><memory>65536</memory><os><type>hvm</type></os></domain>", name);
	for (unsigned n = 0; n < ROUNDS; n++) {
		struct keel_domain *dom = keel_domain_define(conn, xml, NULL), **list = NULL;
		char *text = dom ? keel_domain_xml(dom, 0, NULL) : NULL;
		char named[64];

		snprintf(named, sizeof(named), "<name>%s</name>", name);
		wrong += !text || !strstr(text, named);
		wrong += keel_domain_list(conn, 0, &list, NULL) < 1;
		wrong += !dom || keel_domain_state(dom, NULL, NULL) != KEEL_STATE_SHUTOFF;
		wrong += !dom || keel_domain_undefine(dom, 0, NULL);
		keel_free(text);
		keel_domain_list_free(list);
		keel_domain_free(dom);
	}
	free(xml);
	return (void *)wrong;
}

static void test_threads(void **state)
{
	unsigned events = 0, ended = 0;
	pthread_t threads[THREADS];
	int number = keel_event_subscribe(conn, NULL, KEEL_EVENT_LIFECYCLE, on_count, &events, &error);
	uint64_t end = monotonic_ns() + LIMIT_MS * UINT64_C(1000000);

	assert_true(number > 0);
	for (uintptr_t n = 0; n < THREADS; n++)
		pthread_create(&threads[n], NULL, worker, (void *)n);
	/* This thread is somebody's event loop. Each round defines and undefines. */
	while (__atomic_load_n(&events, __ATOMIC_SEQ_CST) < THREADS * ROUNDS * 2) {
		struct pollfd pfd = { .fd = keel_fd(conn), .events = POLLIN };

		if (monotonic_ns() > end)
			fail_msg("%u events of %u", events, THREADS * ROUNDS * 2);
		poll(&pfd, 1, 1000);
		OK(keel_dispatch(conn, &error));
	}
	for (; ended < THREADS; ended++) {
		void *wrong;

		pthread_join(threads[ended], &wrong);
		assert_null(wrong);
	}
	OK(keel_event_unsubscribe(conn, number, &error));
}

/* ---- Ends -------------------------------------------------------------------- */

static void test_silent_daemon(void **state)
{
	struct keel_conn *c = GOT(keel_open(keeld.uri, 0, &error));
	uint64_t start;

	OK(keel_set_keepalive(c, 1, 1, &error));
	assert_true(keel_timeout(c) > 0 && keel_timeout(c) <= 1000);
	kill(keeld.pid, SIGSTOP);
	start = monotonic_ns();
	assert_null(keel_uri(c, &error));
	kill(keeld.pid, SIGCONT);
	assert_int_equal(error.domain, KEEL_FROM_RPC);
	assert_true(monotonic_ns() - start < UINT64_C(5000000000));
	assert_int_equal(keel_is_alive(c), 0);
	assert_int_equal(keel_dispatch(c, &error), -1);
	keel_close(c);
}

struct reader {
	struct keel_stream *st;
	ssize_t got;
};

static void *read_forever(void *arg)
{
	struct reader *r = arg;
	char text[10];

	/* The firmware may have something to say first. */
	do
		r->got = keel_stream_recv(r->st, text, sizeof(text), 0, NULL);
	while (r->got > 0);
	return NULL;
}

/* The last: the daemon dies under a reader; its guest, though, stays. */
static void test_dead_daemon(void **state)
{
	struct keel_domain *dom = define("orphan");
	struct pollfd pfd = { .fd = keel_fd(conn), .events = POLLIN };
	struct reader r = { 0 };
	struct keel_domain *again;
	struct keel_conn *c;
	pthread_t thread;

	OK(keel_domain_start(dom, 0, &error));
	r.st = GOT(keel_domain_console(dom, NULL, 0, &error));
	pthread_create(&thread, NULL, read_forever, &r);
	usleep(20000);
	kill(keeld.pid, SIGKILL);
	waitpid(keeld.pid, NULL, 0);
	pthread_join(thread, NULL);
	assert_int_equal(r.got, -1);
	assert_int_equal(poll(&pfd, 1, LIMIT_MS), 1);
	assert_int_equal(keel_domain_state(dom, NULL, &error), -1);
	assert_int_equal(error.domain, KEEL_FROM_RPC);
	assert_int_equal(keel_is_alive(conn), 0);
	keel_stream_free(r.st);

	keeld.pid = fork();
	if (!keeld.pid) {
		char path[96], root[96];

		snprintf(path, sizeof(path), "%s/bin/keeld", keeld.dir);
		snprintf(root, sizeof(root), "%s/root", keeld.dir);
		execl(path, "keeld", "--root", root, NULL);
		_exit(127);
	}
	for (unsigned n = 0; !(c = keel_open(keeld.uri, 0, NULL)); n++) {
		assert_true(n < 1000);
		usleep(20000);
	}
	again = GOT(keel_domain_by_uuid(c, keel_domain_uuid(dom), &error));
	assert_int_equal(keel_domain_state(again, NULL, &error), KEEL_STATE_RUNNING);
	OK(keel_domain_destroy(again, 0, &error));
	keel_domain_free(again);
	keel_close(c);
	keel_domain_free(dom);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_connection), cmocka_unit_test(test_open_failures), cmocka_unit_test(test_definitions),
		cmocka_unit_test(test_readonly),   cmocka_unit_test(test_life),		 cmocka_unit_test(test_console),
		cmocka_unit_test(test_threads),	   cmocka_unit_test(test_silent_daemon), cmocka_unit_test(test_dead_daemon),
	};

	if (argc != 3)
		return 2;
	keeld_path = argv[1];
	vmm_path = argv[2];
	return cmocka_run_group_tests(tests, setup, teardown);
}
