/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a machine taken over by its guest may say to keeld over QMP. */
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/qmp_client.h"

struct run {
	struct loop *loop;
	struct qmp *q;
};

static void answered(void *opaque, json_t *ret, const char *error)
{
	if (!ret == !error)
		__builtin_trap();
}

static void ready(void *opaque)
{
	struct run *r = opaque;

	for (int n = 0; n < 3; n++)
		qmp_send(r->q, "query-status", NULL, answered, r);
}

static void event(void *opaque, const char *name, json_t *data, int64_t seconds, uint32_t micros)
{
	if (!name || (data && !json_is_object(data)))
		__builtin_trap();
}

static void closed(void *opaque, const char *why)
{
	struct run *r = opaque;

	qmp_free_client(r->q);
	r->q = NULL;
	loop_quit(r->loop, 0);
}

static const struct qmp_ops ops = { ready, event, closed };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const char greeting[] = "{\"QMP\":{}}\n";
	struct run r = { .loop = loop_new(NULL) };
	int fds[2];

	if (!r.loop || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds))
		abort();
	r.q = qmp_new_client(r.loop, fds[0], &ops, &r, NULL);
	if (!r.q)
		abort();
	/* The first bit decides whether the machine is polite. More than the socket holds is left out. */
	if (len && *data & 1 && write(fds[1], greeting, sizeof(greeting) - 1) < 0)
		abort();
	if (len > 1 && write(fds[1], data + 1, len - 1) < 0)
		len = 0;
	close(fds[1]);
	loop_run(r.loop);
	qmp_free_client(r.q);
	loop_free(r.loop);
	return 0;
}
