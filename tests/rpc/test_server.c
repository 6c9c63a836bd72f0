/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A server in a thread of its own, and sessions that talk to it over socket pairs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/client.h"
#include "rpc/conn.h"
#include "rpc/server.h"
#include "rpc/tcp.h"
#include "rpc/wire.h"

#define DOWNLOAD (8u << 20)

struct fixture {
	struct loop *loop;
	struct rpc_server *server;
	pthread_t thread;
	struct rpc_limits limits;
	/* The loop's thread writes these; a test reads them after an answer or after stop(). */
	struct rpc_call *later[64];
	unsigned nlater, closed, admitted;
	uint64_t uploaded, holes, checksum;
	unsigned stalls;
	struct rpc_stream *stalled;
	bool upload_finished, stream_closed, take_nothing;
	size_t downloaded;
};

static struct fixture *fixture;

#define PROC(name) rpc_proc_find(&remote_program, REMOTE_PROC_##name)

/* ---- Handlers ------------------------------------------------------------- */

static int get_version(struct rpc_call *call)
{
	((struct remote_connect_get_version_ret *)call->ret)->hv_ver = 7002000;
	return 0;
}

static int define_xml(struct rpc_call *call)
{
	const struct remote_domain_define_xml_args *args = call->args;
	struct remote_domain_define_xml_ret *ret = call->ret;

	ret->dom.name = args->xml;
	ret->dom.id = (int32_t)strlen(args->xml);
	return 0;
}

static int fails(struct rpc_call *call)
{
	return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_NO_DOMAIN, "no domain with matching id %d",
			     ((struct remote_domain_lookup_by_id_args *)call->args)->id);
}

/* Puts calls off; a shutdown of the domain "go" answers them, the last first. */
static int suspend(struct rpc_call *call)
{
	fixture->later[fixture->nlater++] = call;
	return RPC_LATER;
}

static int shut_down(struct rpc_call *call)
{
	while (fixture->nlater)
		rpc_call_finish(fixture->later[--fixture->nlater]);
	return 0;
}

/* What is in the file that was passed comes back as an error's text. */
static int fd_associate(struct rpc_call *call)
{
	char text[100] = "";

	if (call->nfds != 2)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "%u descriptors", call->nfds);
	if (pread(call->fds[1], text, sizeof(text) - 1, 0) < 0)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "not a file");
	return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_FAILED, "%s", text);
}

static int open_graphics_fd(struct rpc_call *call)
{
	int fd = memfd_create("reply", MFD_CLOEXEC);

	if (fd < 0 || write(fd, "from the server", 15) != 15)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INTERNAL_ERROR, "memfd");
	call->reply_fds[call->reply_nfds++] = fd;
	return 0;
}

static size_t upload_data(struct rpc_stream *st, const void *data, size_t len)
{
	const uint8_t *p = data;

	if (fixture->take_nothing)
		return 0;
	/* Takes nothing at every third time, until it is resumed. */
	if (++fixture->stalls % 3 == 0) {
		fixture->stalled = st;
		return 0;
	}
	if (len > 100000)
		len = 100000;
	for (size_t n = 0; n < len; n++)
		fixture->checksum = fixture->checksum * 31 + p[n];
	fixture->uploaded += len;
	if (fixture->stalls % 3 == 1) /* a short take: resumed as well */
		fixture->stalled = st;
	return len;
}

static void resume_timer(void *opaque)
{
	struct rpc_stream *st = fixture->stalled;

	fixture->stalled = NULL;
	if (st)
		rpc_stream_resume(st);
	timer_arm(*(struct timer **)opaque, monotonic_ns() + 1000000);
}

static void upload_hole(struct rpc_stream *st, uint64_t length)
{
	fixture->holes += length;
}

static int upload_finish(struct rpc_stream *st, struct rpc_error *error)
{
	fixture->upload_finished = true;
	return 0;
}

static void stream_closed(struct rpc_stream *st)
{
	fixture->stream_closed = true;
	if (fixture->stalled == st)
		fixture->stalled = NULL;
}

static const struct rpc_stream_ops upload_ops = {
	.data = upload_data,
	.hole = upload_hole,
	.finish = upload_finish,
	.closed = stream_closed,
};

static int vol_upload(struct rpc_call *call)
{
	return rpc_stream_new(call, &upload_ops, NULL) ? 0 : -1;
}

static uint8_t byte_at(size_t at)
{
	return (uint8_t)(at * 2654435761u >> 13);
}

static void download_ready(struct rpc_stream *st)
{
	while (fixture->downloaded < DOWNLOAD) {
		uint8_t data[30000];
		size_t n, want = DOWNLOAD - fixture->downloaded;

		if (want > sizeof(data))
			want = sizeof(data);
		for (n = 0; n < want; n++)
			data[n] = byte_at(fixture->downloaded + n);
		n = rpc_stream_send(st, data, want);
		fixture->downloaded += n;
		if (n < want)
			return;
	}
	if (rpc_stream_send_hole(st, 12345))
		rpc_stream_end(st);
}

static const struct rpc_stream_ops download_ops = { .ready = download_ready, .closed = stream_closed };

/* The answer goes before the data: they begin when the loop comes round. */
static void begin_download(void *arg)
{
	download_ready(arg);
}

static int vol_download(struct rpc_call *call)
{
	struct rpc_stream *st = rpc_stream_new(call, &download_ops, NULL);

	return st ? loop_post(fixture->loop, begin_download, st) : -1;
}

static int auth_list(struct rpc_call *call)
{
	rpc_client_keepalive(call->client);
	return 0;
}

/* Sends the caller an event, then closes. */
static int close_me(struct rpc_call *call)
{
	struct remote_domain_event_lifecycle_msg msg = { .dom = { .name = "d" }, .event = 2, .detail = 3 };

	rpc_client_event(call->client, PROC(DOMAIN_EVENT_LIFECYCLE), &msg);
	rpc_client_close(call->client);
	return 0;
}

static void on_closed(struct rpc_client *c)
{
	fixture->closed++;
}

static int admit(struct rpc_call *call)
{
	fixture->admitted++;
	return 0;
}

/* ---- Fixture -------------------------------------------------------------- */

static void *run(void *arg)
{
	loop_run(arg);
	return NULL;
}

static struct timer *resume;

static void start(const struct rpc_limits *limits)
{
	static const struct rpc_server_ops ops = { .closed = on_closed, .admit = admit };
	static struct fixture f;

	f = (struct fixture){ 0 };
	fixture = &f;
	f.loop = loop_new(NULL);
	f.server = rpc_server_new(f.loop, &ops, NULL, limits, NULL);
	assert_non_null(f.server);
	rpc_server_handle(f.server, &remote_program, REMOTE_PROC_CONNECT_GET_VERSION, get_version);
	rpc_server_handle(f.server, &remote_program, REMOTE_PROC_DOMAIN_DEFINE_XML, define_xml);
	rpc_server_handle(f.server, &remote_program, REMOTE_PROC_DOMAIN_LOOKUP_BY_ID, fails);
	rpc_server_handle(f.server, &remote_program, REMOTE_PROC_DOMAIN_SUSPEND, suspend);
	rpc_server_handle(f.server, &remote_program, REMOTE_PROC_DOMAIN_SHUTDOWN, shut_down);
	rpc_server_handle(f.server, &remote_program, REMOTE_PROC_DOMAIN_FD_ASSOCIATE, fd_associate);
	rpc_server_handle(f.server, &remote_program, REMOTE_PROC_DOMAIN_OPEN_GRAPHICS_FD, open_graphics_fd);
	rpc_server_handle(f.server, &remote_program, REMOTE_PROC_STORAGE_VOL_UPLOAD, vol_upload);
	rpc_server_handle(f.server, &remote_program, REMOTE_PROC_STORAGE_VOL_DOWNLOAD, vol_download);
	rpc_server_handle(f.server, &remote_program, REMOTE_PROC_AUTH_LIST, auth_list);
	rpc_server_handle(f.server, &remote_program, REMOTE_PROC_CONNECT_CLOSE, close_me);
	resume = timer_new(f.loop, resume_timer, &resume);
	timer_arm(resume, 1);
}

static void go(void)
{
	pthread_create(&fixture->thread, NULL, run, fixture->loop);
}

static void stop(void)
{
	loop_quit(fixture->loop, 0);
	pthread_join(fixture->thread, NULL);
	rpc_server_free(fixture->server);
	while (fixture->nlater)
		rpc_call_finish(fixture->later[--fixture->nlater]);
	loop_free(fixture->loop);
}

/* Before go(): a socket whose other end is a client of the server. */
static int raw(bool readonly)
{
	struct timeval limit = { .tv_sec = 20 };
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	assert_non_null(rpc_server_add(fixture->server, fds[1], readonly, NULL));
	return fds[0];
}

static struct rpc_session *session(const struct rpc_session_ops *ops, void *opaque)
{
	return rpc_session_new(raw(false), ops, opaque, NULL);
}

static void expect_version(struct rpc_session *s)
{
	struct remote_connect_get_version_ret ret = { 0 };
	struct arena arena = { 0 };
	struct rpc_error e = { 0 };

	if (rpc_session_call(s, PROC(CONNECT_GET_VERSION), NULL, &ret, &arena, &e))
		fail_msg("%s", e.message);
	assert_true(ret.hv_ver == 7002000);
	arena_free(&arena);
}

/* ---- Tests ---------------------------------------------------------------- */

static void calls_are_answered(void **state)
{
	struct remote_domain_define_xml_args args = { .xml = "some XML" };
	struct remote_domain_define_xml_ret ret = { 0 };
	struct remote_domain_lookup_by_id_args id = { .id = 7 };
	struct arena arena = { 0 };
	struct rpc_error e = { 0 };
	struct rpc_session *s;

	start(NULL);
	s = session(NULL, NULL);
	go();
	expect_version(s);
	assert_int_equal(rpc_session_call(s, PROC(DOMAIN_DEFINE_XML), &args, &ret, &arena, &e), 0);
	assert_string_equal(ret.dom.name, "some XML");
	assert_int_equal(ret.dom.id, 8);
	assert_int_equal(rpc_session_call(s, PROC(DOMAIN_LOOKUP_BY_ID), &id, NULL, &arena, &e), -1);
	assert_int_equal(e.code, 42);
	assert_int_equal(e.domain, 10);
	assert_string_equal(e.message, "Domain not found: no domain with matching id 7");
	expect_version(s);
	arena_free(&arena);
	rpc_session_free(s);
	stop();
	assert_int_equal(fixture->closed, 1);
	assert_int_equal(fixture->admitted, 4);
}

static void everything_else_is_not_supported(void **state)
{
	struct rpc_session *s;
	unsigned refused = 0;

	start(NULL);
	s = session(NULL, NULL);
	go();
	for (unsigned p = 0; rpc_programs[p]; p++)
		for (uint32_t n = 0; n < rpc_programs[p]->nprocs; n++) {
			const struct rpc_proc *proc = rpc_proc_find(rpc_programs[p], n);
			struct rpc_error e = { 0 };
			uint32_t serial;
			uint8_t *zeros;

			if (!proc || proc->is_event || rpc_server_has(fixture->server, rpc_programs[p], n))
				continue;
			/* Arguments that are all zeros: empty strings and lists, absent options. */
			zeros = calloc(1, proc->args ? proc->args->wire_min : 1);
			if (proc->args) {
				struct xdr_reader r = xdr_reader(zeros, proc->args->wire_min);
				struct arena arena = { 0 };
				void *args = arena_alloc(&arena, proc->args->size);

				assert_true(wire_decode(proc->args, &r, args, &arena));
				serial = rpc_session_send(s, proc, args, NULL, 0, &e);
				arena_free(&arena);
			} else {
				serial = rpc_session_send(s, proc, NULL, NULL, 0, &e);
			}
			free(zeros);
			assert_true(serial);
			assert_int_equal(rpc_session_wait(s, serial, proc, NULL, NULL, NULL, NULL, &e), -1);
			if (e.code != VIR_ERR_NO_SUPPORT || strcmp(e.detail, proc->function))
				fail_msg("%s: %s", proc->name, e.message);
			refused++;
		}
	assert_int_equal(refused, 399 - 11);
	rpc_session_free(s);
	stop();
}

static void unknown_things_are_refused(void **state)
{
	static const struct rpc_program other = { .number = 0x12345678, .version = 1 };
	static const struct rpc_program newer = { .number = REMOTE_PROGRAM, .version = 2 };
	static const struct rpc_proc no_program = { .name = "X", .number = 1, .program = &other };
	static const struct rpc_proc no_version = { .name = "X", .number = 1, .program = &newer };
	static const struct rpc_proc no_proc = { .name = "X", .number = 9999, .program = &remote_program };
	static const struct rpc_proc no_args = { .name = "X",
						 .number = REMOTE_PROC_DOMAIN_DESTROY,
						 .program = &remote_program };
	struct rpc_error e = { 0 };
	struct rpc_session *s;

	start(NULL);
	s = session(NULL, NULL);
	go();
	assert_int_equal(rpc_session_call(s, &no_program, NULL, NULL, NULL, &e), -1);
	assert_int_equal(e.code, VIR_ERR_RPC);
	assert_string_equal(e.message, "Cannot find program 305419896 version 1");
	assert_int_equal(rpc_session_call(s, &no_version, NULL, NULL, NULL, &e), -1);
	assert_string_equal(e.message, "Cannot find program 536903814 version 2");
	assert_int_equal(rpc_session_call(s, &no_proc, NULL, NULL, NULL, &e), -1);
	assert_string_equal(e.message, "unknown procedure: 9999");
	assert_int_equal(rpc_session_call(s, PROC(DOMAIN_EVENT_LIFECYCLE),
					  &(struct remote_domain_event_lifecycle_msg){ .dom.name = "" }, NULL, NULL,
					  &e),
			 -1);
	assert_string_equal(e.message, "unknown procedure: 107");
	assert_int_equal(rpc_session_call(s, &no_args, NULL, NULL, NULL, &e), -1);
	assert_string_equal(e.message, "Unable to decode message payload");
	expect_version(s);
	rpc_session_free(s);
	stop();
}

static void calls_overlap(void **state)
{
	struct remote_domain_suspend_args args = { .dom.name = "a" };
	struct rpc_error e = { 0 };
	uint32_t serials[10];
	struct rpc_session *s;

	start(NULL);
	s = session(NULL, NULL);
	go();
	for (int n = 0; n < 10; n++)
		assert_true(serials[n] = rpc_session_send(s, PROC(DOMAIN_SUSPEND), &args, NULL, 0, &e));
	expect_version(s); /* while ten are unanswered */
	assert_int_equal(rpc_session_call(s, PROC(DOMAIN_SHUTDOWN), &args, NULL, NULL, &e), 0);
	for (int n = 0; n < 10; n++)
		assert_int_equal(rpc_session_wait(s, serials[n], PROC(DOMAIN_SUSPEND), NULL, NULL, NULL, NULL, &e), 0);
	rpc_session_free(s);
	stop();
}

/* A client with too many calls is not read until one is answered: what it sent meanwhile is not lost. */
static void calls_are_limited(void **state)
{
	struct rpc_limits limits = rpc_limits_default;
	struct remote_domain_suspend_args args = { .dom.name = "a" };
	struct rpc_session *s, *other;
	uint32_t serials[8], version;
	struct rpc_error e = { 0 };

	limits.calls = 5;
	start(&limits);
	s = session(NULL, NULL);
	other = session(NULL, NULL);
	go();
	for (int n = 0; n < 8; n++)
		assert_true(serials[n] = rpc_session_send(s, PROC(DOMAIN_SUSPEND), &args, NULL, 0, &e));
	version = rpc_session_send(s, PROC(CONNECT_GET_VERSION), NULL, NULL, 0, &e);
	rpc_session_set_timeout(s, 200);
	assert_int_equal(rpc_session_wait(s, version, PROC(CONNECT_GET_VERSION), NULL, NULL, NULL, NULL, &e), -1);
	rpc_session_set_timeout(s, 20000);
	/* Another client is not hindered; it lets the first five go, then the rest. */
	assert_int_equal(rpc_session_call(other, PROC(DOMAIN_SHUTDOWN), &args, NULL, NULL, &e), 0);
	for (int n = 0; n < 5; n++)
		assert_int_equal(rpc_session_wait(s, serials[n], PROC(DOMAIN_SUSPEND), NULL, NULL, NULL, NULL, &e), 0);
	assert_int_equal(rpc_session_wait(s, version, PROC(CONNECT_GET_VERSION), NULL, NULL, NULL, NULL, &e), 0);
	assert_int_equal(rpc_session_call(other, PROC(DOMAIN_SHUTDOWN), &args, NULL, NULL, &e), 0);
	for (int n = 5; n < 8; n++)
		assert_int_equal(rpc_session_wait(s, serials[n], PROC(DOMAIN_SUSPEND), NULL, NULL, NULL, NULL, &e), 0);
	rpc_session_free(s);
	rpc_session_free(other);
	stop();
}

/* Calls outlive their client, and the server. */
static void a_client_leaves_calls_behind(void **state)
{
	struct remote_domain_suspend_args args = { .dom.name = "a" };
	struct rpc_session *s, *other;
	struct rpc_error e = { 0 };

	start(NULL);
	s = session(NULL, NULL);
	other = session(NULL, NULL);
	go();
	assert_true(rpc_session_send(s, PROC(DOMAIN_SUSPEND), &args, NULL, 0, &e));
	expect_version(s);
	rpc_session_free(s);
	expect_version(other);
	assert_int_equal(rpc_session_call(other, PROC(DOMAIN_SHUTDOWN), &args, NULL, NULL, &e), 0);
	assert_true(rpc_session_send(other, PROC(DOMAIN_SUSPEND), &args, NULL, 0, &e));
	expect_version(other);
	stop(); /* with one call put off */
	rpc_session_free(other);
}

static void descriptors_pass_both_ways(void **state)
{
	struct remote_domain_fd_associate_args args = { .dom.name = "a", .name = "disk" };
	struct remote_domain_open_graphics_fd_args graphics = { .dom.name = "a" };
	int fd = memfd_create("args", MFD_CLOEXEC), both[2], got[RPC_FDS_MAX];
	struct rpc_error e = { 0 };
	struct rpc_session *s;
	char text[16] = "";
	uint32_t serial;
	unsigned n = 0;

	assert_int_equal(write(fd, "passed", 6), 6);
	both[0] = STDERR_FILENO;
	both[1] = fd;
	start(NULL);
	s = session(NULL, NULL);
	go();
	serial = rpc_session_send(s, PROC(DOMAIN_FD_ASSOCIATE), &args, both, 2, &e);
	assert_int_equal(rpc_session_wait(s, serial, PROC(DOMAIN_FD_ASSOCIATE), NULL, NULL, NULL, NULL, &e), -1);
	assert_string_equal(e.message, "operation failed: passed");
	serial = rpc_session_send(s, PROC(DOMAIN_OPEN_GRAPHICS_FD), &graphics, NULL, 0, &e);
	assert_int_equal(rpc_session_wait(s, serial, PROC(DOMAIN_OPEN_GRAPHICS_FD), NULL, NULL, got, &n, &e), 0);
	assert_int_equal(n, 1);
	assert_int_equal(pread(got[0], text, 15, 0), 15);
	assert_string_equal(text, "from the server");
	close(got[0]);
	close(fd);
	rpc_session_free(s);
	stop();
}

struct seen {
	size_t bytes;
	uint64_t holes;
	bool wrong, end, confirmed, failed;
};

static void on_stream(void *opaque, const struct rpc_header *h, const void *payload, size_t len)
{
	struct seen *seen = opaque;
	const uint8_t *p = payload;
	struct xdr_reader r = xdr_reader(payload, len);

	if (h->type == RPC_STREAM_HOLE) {
		seen->holes += xdr_get_u64(&r);
	} else if (h->status == RPC_OK) {
		seen->confirmed = true;
	} else if (h->status == RPC_ERROR) {
		seen->failed = true;
	} else if (!len) {
		seen->end = true;
	} else {
		for (size_t n = 0; n < len; n++)
			if (p[n] != byte_at(seen->bytes + n))
				seen->wrong = true;
		seen->bytes += len;
	}
}

static const struct rpc_session_ops stream_ops = { .stream = on_stream };

static void a_stream_up(void **state)
{
	struct remote_storage_vol_upload_args args = { .vol = { "p", "v", "k" } };
	struct rpc_error e = { 0 };
	struct seen seen = { 0 };
	struct rpc_session *s;
	uint8_t data[200000];
	uint64_t sum = 0;
	uint32_t serial;

	start(NULL);
	s = session(&stream_ops, &seen);
	go();
	serial = rpc_session_send(s, PROC(STORAGE_VOL_UPLOAD), &args, NULL, 0, &e);
	assert_int_equal(rpc_session_wait(s, serial, PROC(STORAGE_VOL_UPLOAD), NULL, NULL, NULL, NULL, &e), 0);
	for (unsigned round = 0; round < 40; round++) {
		for (size_t n = 0; n < sizeof(data); n++) {
			data[n] = byte_at(n + round * 7);
			sum = sum * 31 + data[n];
		}
		assert_int_equal(rpc_session_stream_send(s, PROC(STORAGE_VOL_UPLOAD), serial, RPC_CONTINUE, data,
							 sizeof(data), &e),
				 0);
		assert_int_equal(rpc_session_stream_hole(s, PROC(STORAGE_VOL_UPLOAD), serial, 1000, &e), 0);
	}
	assert_int_equal(rpc_session_stream_send(s, PROC(STORAGE_VOL_UPLOAD), serial, RPC_OK, NULL, 0, &e), 0);
	while (!seen.confirmed)
		assert_int_equal(rpc_session_step(s, &e), 0);
	rpc_session_free(s);
	stop();
	assert_true(fixture->uploaded == 40 * sizeof(data));
	assert_true(fixture->checksum == sum);
	assert_true(fixture->holes == 40 * 1000);
	assert_true(fixture->upload_finished && fixture->stream_closed);
}

static void a_stream_down(void **state)
{
	struct remote_storage_vol_download_args args = { .vol = { "p", "v", "k" } };
	struct rpc_error e = { 0 };
	struct seen seen = { 0 };
	struct rpc_session *s;
	uint32_t serial;

	start(NULL);
	s = session(&stream_ops, &seen);
	go();
	serial = rpc_session_send(s, PROC(STORAGE_VOL_DOWNLOAD), &args, NULL, 0, &e);
	assert_int_equal(rpc_session_wait(s, serial, PROC(STORAGE_VOL_DOWNLOAD), NULL, NULL, NULL, NULL, &e), 0);
	/* A reader that is late: the server waits for room. (A version's answer comes after what was sent so far.) */
	usleep(100000);
	expect_version(s);
	assert_true(seen.bytes < DOWNLOAD / 2);
	while (!seen.end)
		assert_int_equal(rpc_session_step(s, &e), 0);
	assert_int_equal(rpc_session_stream_send(s, PROC(STORAGE_VOL_DOWNLOAD), serial, RPC_OK, NULL, 0, &e), 0);
	while (!seen.confirmed)
		assert_int_equal(rpc_session_step(s, &e), 0);
	assert_false(seen.wrong);
	assert_int_equal(seen.bytes, DOWNLOAD);
	assert_int_equal(seen.holes, 12345);
	rpc_session_free(s);
	stop();
	assert_true(fixture->stream_closed);
}

static void streams_abort_and_die(void **state)
{
	struct remote_storage_vol_upload_args args = { .vol = { "p", "v", "k" } };
	const struct rpc_proc *proc = PROC(STORAGE_VOL_UPLOAD);
	struct rpc_limits limits = rpc_limits_default;
	struct rpc_error e = { 0 };
	struct seen seen = { 0 };
	struct rpc_session *s;
	uint32_t serial;

	limits.streams = 2;
	start(&limits);
	s = session(&stream_ops, &seen);
	go();
	serial = rpc_session_send(s, proc, &args, NULL, 0, &e);
	assert_int_equal(rpc_session_wait(s, serial, proc, NULL, NULL, NULL, NULL, &e), 0);
	/* An abort is confirmed; what was on its way to the stream is ignored. */
	assert_int_equal(rpc_session_stream_send(s, proc, serial, RPC_ERROR, NULL, 0, &e), 0);
	assert_int_equal(rpc_session_stream_send(s, proc, serial, RPC_CONTINUE, "late", 4, &e), 0);
	while (!seen.confirmed)
		assert_int_equal(rpc_session_step(s, &e), 0);
	/* A bad hole ends the stream with an error. */
	serial = rpc_session_send(s, proc, &args, NULL, 0, &e);
	assert_int_equal(rpc_session_wait(s, serial, proc, NULL, NULL, NULL, NULL, &e), 0);
	assert_int_equal(rpc_session_stream_hole(s, proc, serial, UINT64_MAX, &e), 0);
	while (!seen.failed)
		assert_int_equal(rpc_session_step(s, &e), 0);
	expect_version(s);
	/* So does data after the end, here while the data before are still waiting. */
	seen.failed = false;
	fixture->take_nothing = true;
	serial = rpc_session_send(s, proc, &args, NULL, 0, &e);
	assert_int_equal(rpc_session_wait(s, serial, proc, NULL, NULL, NULL, NULL, &e), 0);
	assert_int_equal(rpc_session_stream_send(s, proc, serial, RPC_CONTINUE, "data", 4, &e), 0);
	assert_int_equal(rpc_session_stream_send(s, proc, serial, RPC_OK, NULL, 0, &e), 0);
	assert_int_equal(rpc_session_stream_send(s, proc, serial, RPC_CONTINUE, "more", 4, &e), 0);
	while (!seen.failed)
		assert_int_equal(rpc_session_step(s, &e), 0);
	/* Two may be open, not three. */
	for (int n = 0; n < 2; n++)
		assert_int_equal(rpc_session_call(s, proc, &args, NULL, NULL, &e), 0);
	assert_int_equal(rpc_session_call(s, proc, &args, NULL, NULL, &e), -1);
	assert_int_equal(e.domain, VIR_FROM_STREAMS);
	fixture->stream_closed = false;
	rpc_session_free(s); /* with two open */
	stop();
	assert_true(fixture->stream_closed);
}

static void on_event(void *opaque, const struct rpc_proc *proc, const void *msg)
{
	const struct remote_domain_event_lifecycle_msg *m = msg;

	if (proc == PROC(DOMAIN_EVENT_LIFECYCLE) && !strcmp(m->dom.name, "d") && m->event == 2 && m->detail == 3)
		*(bool *)opaque = true;
}

static void an_event_then_the_end(void **state)
{
	static const struct rpc_session_ops ops = { .event = on_event };
	struct rpc_error e = { 0 };
	struct rpc_session *s;
	bool seen = false;

	start(NULL);
	s = session(&ops, &seen);
	go();
	assert_int_equal(rpc_session_call(s, PROC(CONNECT_CLOSE), NULL, NULL, NULL, &e), 0);
	assert_true(seen);
	assert_int_equal(rpc_session_step(s, &e), -1); /* the end */
	rpc_session_free(s);
	stop();
	assert_int_equal(fixture->closed, 1);
}

static void keepalive(void **state)
{
	static const struct rpc_header ping = { KEEPALIVE_PROGRAM, 1, KEEPALIVE_PING, RPC_MESSAGE, 0, RPC_OK };
	struct xdr_writer w = rpc_frame_writer();
	struct rpc_session *s;
	struct rpc_error e = { 0 };
	uint8_t pong[28], silent_end;
	int fd, silent;

	start(NULL);
	fd = raw(false);
	silent = raw(false);
	s = session(NULL, NULL);
	assert_int_equal(rpc_server_set_keepalive(fixture->server, 1, 1), 0);
	go();
	/* The server answers a ping. */
	rpc_frame_begin(&w, &ping, 0);
	rpc_frame_end(&w);
	assert_int_equal(write(fd, w.data, w.len), 28);
	assert_int_equal(read(fd, pong, 28), 28);
	assert_int_equal(be32_load(pong + 4), KEEPALIVE_PROGRAM);
	assert_int_equal(be32_load(pong + 12), KEEPALIVE_PONG);
	xdr_writer_free(&w);
	/* Whoever asks for keepalive (here: by AUTH_LIST) and answers lives; whoever doesn't answer ends. */
	w = rpc_frame_writer();
	rpc_frame_begin(&w, &(struct rpc_header){ REMOTE_PROGRAM, 1, REMOTE_PROC_AUTH_LIST, RPC_CALL, 1, RPC_OK }, 0);
	rpc_frame_end(&w);
	assert_int_equal(write(silent, w.data, w.len), 28);
	xdr_writer_free(&w);
	assert_int_equal(rpc_session_call(s, PROC(AUTH_LIST), NULL, NULL, NULL, &e), 0);
	for (int n = 0; n < 3; n++)
		assert_int_equal(rpc_session_step(s, &e), 0);
	for (int n = 0; n < 1000 && read(silent, &silent_end, 1) == 1; n++)
		;
	assert_int_equal(read(silent, &silent_end, 1), 0);
	expect_version(s);
	close(fd);
	close(silent);
	rpc_session_free(s);
	stop();
}

static void read_only_clients_only_look(void **state)
{
	struct remote_domain_suspend_args args = { .dom.name = "a" };
	struct rpc_error e = { 0 };
	struct rpc_session *s;

	start(NULL);
	s = rpc_session_new(raw(true), NULL, NULL, NULL);
	go();
	expect_version(s);
	assert_int_equal(rpc_session_call(s, PROC(DOMAIN_SUSPEND), &args, NULL, NULL, &e), -1);
	assert_int_equal(e.code, VIR_ERR_OPERATION_DENIED);
	assert_string_equal(e.message, "operation forbidden: read only access prevents virDomainSuspend");
	rpc_session_free(s);
	stop();
}

static void expect_end(int fd)
{
	uint8_t byte;
	ssize_t n = read(fd, &byte, 1);

	/* A reset is an end as well: the server did not read all. */
	assert_true(n == 0 || (n < 0 && errno == ECONNRESET));
	close(fd);
}

/* What is no packet, or not a client's to send, ends that connection and no other. */
static void garbage_ends_the_connection(void **state)
{
	static const struct rpc_header not_mine[] = {
		{ REMOTE_PROGRAM, 1, REMOTE_PROC_AUTH_LIST, RPC_REPLY, 1, RPC_OK },
		{ REMOTE_PROGRAM, 1, REMOTE_PROC_DOMAIN_EVENT_LIFECYCLE, RPC_MESSAGE, 1, RPC_OK },
		{ KEEPALIVE_PROGRAM, 1, 3, RPC_MESSAGE, 0, RPC_OK },
		{ KEEPALIVE_PROGRAM, 2, KEEPALIVE_PING, RPC_MESSAGE, 0, RPC_OK },
	};
	int garbage, giant, cut, stray, foreign[4], devnull = STDERR_FILENO;
	struct rpc_session *s;
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { .space = { 0 } };
	struct iovec iov = { .iov_base = "\0\0\0\x1c", .iov_len = 4 };
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};
	struct cmsghdr *cm = CMSG_FIRSTHDR(&m);

	start(NULL);
	garbage = raw(false);
	giant = raw(false);
	cut = raw(false);
	stray = raw(false);
	for (int n = 0; n < 4; n++)
		foreign[n] = raw(false);
	s = session(NULL, NULL);
	go();
	assert_int_equal(write(garbage, "GET / HTTP/1.1\r\n\r\n", 18), 18);
	expect_end(garbage);
	assert_int_equal(write(giant, "\x02\0\0\x05", 4), 4);
	expect_end(giant);
	assert_int_equal(write(cut, "\0\0\0\x1c\x20\0\x80", 7), 7); /* half a packet, then silence, then gone */
	/* A descriptor with bytes that announce none. */
	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cm), &devnull, sizeof(int));
	assert_int_equal(sendmsg(stray, &m, 0), 4);
	expect_end(stray);
	for (int n = 0; n < 4; n++) {
		struct xdr_writer w = rpc_frame_writer();

		rpc_frame_begin(&w, &not_mine[n], 0);
		rpc_frame_end(&w);
		assert_int_equal(write(foreign[n], w.data, w.len), 28);
		xdr_writer_free(&w);
		expect_end(foreign[n]);
	}
	expect_version(s);
	close(cut);
	rpc_session_free(s);
	stop();
	assert_int_equal(fixture->closed, 9);
}

/* A client that sends calls and never reads is paused: the server's memory stays bounded. */
static void a_client_that_does_not_read(void **state)
{
	struct remote_domain_define_xml_args args;
	struct rpc_limits limits = rpc_limits_default;
	struct xdr_writer w = rpc_frame_writer();
	struct rpc_session *other;
	size_t sent = 0;
	char *big = malloc(100001);
	int fd;

	memset(big, 'x', 100000);
	big[100000] = 0;
	args.xml = big;
	limits.out_pause = 300000;
	start(&limits);
	fd = raw(false);
	other = session(NULL, NULL);
	go();
	rpc_frame_begin(
		&w, &(struct rpc_header){ REMOTE_PROGRAM, 1, REMOTE_PROC_DOMAIN_DEFINE_XML, RPC_CALL, 1, RPC_OK }, 0);
	wire_encode(&wire_remote_domain_define_xml_args, &w, &args);
	rpc_frame_end(&w);
	/* At some point nothing more is taken. */
	for (int idle = 0; idle < 20 && sent < 200u << 20;) {
		ssize_t n = send(fd, w.data + sent % w.len, w.len - sent % w.len, MSG_DONTWAIT);

		if (n > 0) {
			sent += (size_t)n;
			idle = 0;
		} else {
			idle++;
			usleep(10000);
		}
	}
	assert_true(sent < 20u << 20);
	expect_version(other);
	close(fd);
	xdr_writer_free(&w);
	free(big);
	rpc_session_free(other);
	stop();
}

/* A client from afar that does not log in. */
static int stranger(const char *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct timeval limit = { .tv_sec = 20 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

/* Strangers have a second; there may be forty of them at a time, and whoever is known is served meanwhile. */
static void strangers_have_a_time_limit(void **state)
{
	struct rpc_limits limits = rpc_limits_default;
	struct rpc_session *s;
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	int listener, fds[80];
	char port[16], c;

	limits.login_seconds = 1;
	limits.logins = 40;
	start(&limits);
	listener = rpc_tcp_listen("127.0.0.1:0", 0, "--test", NULL);
	assert_true(listener >= 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
	snprintf(port, sizeof(port), "%u", ntohs(a.sin_port));
	assert_int_equal(rpc_server_listen_remote(fixture->server, listener, NULL, NULL), 0);
	s = session(NULL, NULL);
	go();
	/* So close after each other that their limits end while others' ends are under way. */
	for (unsigned n = 0; n < 80; n++)
		fds[n] = stranger(port);
	expect_version(s);
	/* Forty are accepted and cut off, then the others. */
	for (unsigned n = 0; n < 80; n++) {
		ssize_t got = read(fds[n], &c, 1);

		assert_true(!got || (got < 0 && errno == ECONNRESET));
	}
	expect_version(s);
	for (unsigned n = 0; n < 80; n++)
		close(fds[n]);
	rpc_session_free(s);
	stop();
	assert_int_equal(fixture->closed, 81);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(calls_are_answered),
		cmocka_unit_test(everything_else_is_not_supported),
		cmocka_unit_test(unknown_things_are_refused),
		cmocka_unit_test(calls_overlap),
		cmocka_unit_test(calls_are_limited),
		cmocka_unit_test(a_client_leaves_calls_behind),
		cmocka_unit_test(descriptors_pass_both_ways),
		cmocka_unit_test(a_stream_up),
		cmocka_unit_test(a_stream_down),
		cmocka_unit_test(streams_abort_and_die),
		cmocka_unit_test(an_event_then_the_end),
		cmocka_unit_test(keepalive),
		cmocka_unit_test(read_only_clients_only_look),
		cmocka_unit_test(garbage_ends_the_connection),
		cmocka_unit_test(a_client_that_does_not_read),
		cmocka_unit_test(strangers_have_a_time_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
