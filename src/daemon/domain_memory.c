/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guest's memory: pieces of it, and all of it as a core file. The machine gets descriptors, no names. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/guest.h"

#define PEEK_MAX (4u << 20) /* what one answer may carry */

static bool send_file(struct guest *g, const char *name, int fd)
{
	struct qmp *q = guest_monitor(g);

	return q && qmp_send_fd(q, "getfd", json_pack("{s:s}", "fdname", name), fd, NULL, NULL);
}

/* ---- A piece --------------------------------------------------------------- */

struct peek {
	int fd;
	uint32_t size;
};

static int have_piece(struct rpc_call *call, struct guest *g, json_t *value)
{
	struct remote_domain_memory_peek_ret *ret = call->ret;
	struct peek *p = call->opaque;
	ssize_t n = -1;

	if (value) {
		ret->buffer = arena_alloc(&call->arena, p->size + 1);
		n = ret->buffer ? pread(p->fd, ret->buffer, p->size, 0) : -1;
		ret->buffer_len = p->size;
	}
	close(p->fd);
	if (value && n != (ssize_t)p->size)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_SYSTEM_ERROR, "failed to read what the machine saved of its memory");
	return value ? 0 : -1;
}

static int memory_peek(struct rpc_call *call, struct guest *g)
{
	enum { PEEK_VIRTUAL = 1, PEEK_PHYSICAL = 2 };
	const struct remote_domain_memory_peek_args *args = call->args;
	struct peek *p;
	json_t *what;
	int ret;

	if (call_check_flags(call, args->flags, PEEK_VIRTUAL | PEEK_PHYSICAL))
		return -1;
	if (args->flags != PEEK_VIRTUAL && args->flags != PEEK_PHYSICAL)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "flags parameter must be VIR_MEMORY_VIRTUAL or VIR_MEMORY_PHYSICAL");
	if (args->size > PEEK_MAX)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "size must be at most %u", PEEK_MAX);
	p = arena_alloc(&call->arena, sizeof(*p));
	if (!p)
		return call_fail_memory(call);
	*p = (struct peek){ .fd = memfd_create("keel-peek", MFD_CLOEXEC), .size = args->size };
	if (p->fd < 0 || !send_file(g, "peek", p->fd)) {
		if (p->fd >= 0)
			close(p->fd);
		return call_fail_memory(call);
	}
	call->opaque = p;
	what = json_pack("{s:I,s:I,s:s}", "val", (json_int_t)args->offset, "size", (json_int_t)args->size, "filename", "fd:peek");
	ret = guest_qmp_try(call, g, args->flags == PEEK_VIRTUAL ? "memsave" : "pmemsave", what, have_piece);
	if (ret < 0)
		close(p->fd);
	return ret;
}

/* ---- All of it -------------------------------------------------------------- */

enum { DUMP_CRASH = 1, DUMP_LIVE = 2, DUMP_BYPASS_CACHE = 4, DUMP_RESET = 8, DUMP_MEMORY_ONLY = 16 };

struct dump {
	const char *to;
	uint32_t flags;
	int fd;
	bool was_running, failed;
};

/* A dump that isn't whole is none; a device it went to stays. */
static void discard(const struct dump *d)
{
	struct stat st;

	if (!fstat(d->fd, &st) && S_ISREG(st.st_mode))
		unlink(d->to);
	close(d->fd);
}

static void dumped_away(struct guest *g, void *opaque, const struct err *err)
{
	guest_finish(opaque, g, 0);
}

static int resumed(struct rpc_call *call, struct guest *g, json_t *value)
{
	const struct dump *d = call->opaque;

	return d->failed || !value ? -1 : 0;
}

static int was_reset(struct rpc_call *call, struct guest *g, json_t *value)
{
	const struct dump *d = call->opaque;

	return value && d->was_running ? guest_qmp_try(call, g, "cont", NULL, resumed) : value ? 0 : -1;
}

/* The error of the dump itself, if there was one, stays the call's. */
static int dumped(struct rpc_call *call, struct guest *g, json_t *value)
{
	struct dump *d = call->opaque;

	d->failed = !value;
	if (d->failed)
		discard(d);
	else
		close(d->fd);
	if (!g->run)
		return d->failed ? -1 : 0;
	if (!d->failed && (d->flags & DUMP_CRASH)) {
		guest_end_as(g, SHUTOFF_CRASHED, STOPPED_CRASHED, dumped_away, call);
		return RPC_LATER;
	}
	if (!d->failed && (d->flags & DUMP_RESET))
		return guest_qmp_try(call, g, "system_reset", NULL, was_reset);
	if (!d->was_running || (d->flags & DUMP_LIVE))
		return d->failed ? -1 : 0;
	return guest_qmp_try(call, g, "cont", NULL, resumed);
}

static int write_dump(struct rpc_call *call, struct guest *g, json_t *value)
{
	struct dump *d = call->opaque;
	int ret = -1;

	if (d->was_running && !(d->flags & DUMP_LIVE) && g->state == STATE_PAUSED)
		guest_set_state(g, STATE_PAUSED, PAUSED_DUMP);
	if (value && send_file(g, "dump", d->fd))
		ret = guest_qmp_try(call, g, "dump-guest-memory", json_pack("{s:b,s:s}", "paging", 0, "protocol", "fd:dump"), dumped);
	if (ret < 0)
		discard(d);
	return ret;
}

static int core_dump(struct rpc_call *call, struct guest *g, const char *to, uint32_t format, uint32_t flags)
{
	struct dump *d;

	if (call_check_flags(call, flags, DUMP_CRASH | DUMP_LIVE | DUMP_BYPASS_CACHE | DUMP_RESET | DUMP_MEMORY_ONLY))
		return -1;
	if (__builtin_popcount(flags & (DUMP_CRASH | DUMP_LIVE | DUMP_RESET)) > 1)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "crash, live and reset of a core dump are mutually exclusive");
	if (!(flags & DUMP_MEMORY_ONLY))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_UNSUPPORTED,
				     "a core dump has the memory and vCPUs only: ask for it with VIR_DUMP_MEMORY_ONLY (virsh dump --memory-only)");
	if (format)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_UNSUPPORTED, "core dumps have the format elf only");
	if (!to || *to != '/')
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "the path of a core dump must be absolute, not '%s'", to ? to : "");
	d = arena_alloc(&call->arena, sizeof(*d));
	if (!d)
		return call_fail_memory(call);
	*d = (struct dump){ .to = to, .flags = flags, .was_running = g->state == STATE_RUNNING };
	d->fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0600);
	if (d->fd < 0)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_SYSTEM_ERROR, "failed to create file '%s': %s", to, strerror(errno));
	call->opaque = d;
	return guest_qmp_try(call, g, d->was_running && !(flags & DUMP_LIVE) ? "stop" : "query-status", NULL, write_dump);
}

static int core_dump_plain(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_core_dump_args *args = call->args;

	return core_dump(call, g, args->to, 0, args->flags);
}

static int core_dump_format(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_core_dump_with_format_args *args = call->args;

	return core_dump(call, g, args->to, args->dumpformat, args->flags);
}

const struct guest_binding memory_bindings[] = {
	{ NULL, REMOTE_PROC_DOMAIN_MEMORY_PEEK, memory_peek, GUEST_JOB | GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_CORE_DUMP, core_dump_plain, GUEST_JOB | GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_CORE_DUMP_WITH_FORMAT, core_dump_format, GUEST_JOB | GUEST_ACTIVE },
	{ 0 },
};
