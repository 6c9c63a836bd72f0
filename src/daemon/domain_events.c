/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Events of guests, to whoever asked. A client asks in one of three ways: by
 * the kind's number (one registration a kind, the event comes without a
 * callback number), with a callback of its own (perhaps for one guest only), or,
 * through the program qemu, for the machine's own events.
 */
#include <regex.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/guest.h"

/* virDomainEventID */
enum event_id {
	ID_LIFECYCLE, ID_REBOOT, ID_RTC_CHANGE, ID_WATCHDOG, ID_IO_ERROR, ID_GRAPHICS, ID_IO_ERROR_REASON, ID_CONTROL_ERROR,
	ID_BLOCK_JOB, ID_DISK_CHANGE, ID_TRAY_CHANGE, ID_PMWAKEUP, ID_PMSUSPEND, ID_BALLOON_CHANGE, ID_PMSUSPEND_DISK,
	ID_DEVICE_REMOVED, ID_BLOCK_JOB_2, ID_TUNABLE, ID_AGENT_LIFECYCLE, ID_DEVICE_ADDED, ID_MIGRATION_ITERATION,
	ID_JOB_COMPLETED, ID_DEVICE_REMOVAL_FAILED, ID_METADATA_CHANGE, ID_BLOCK_THRESHOLD, ID_MEMORY_FAILURE,
	ID_MEMORY_DEVICE_SIZE_CHANGE, ID_LAST,
	ID_MONITOR = ID_LAST, /* ours: the program qemu's */
};

#define CALLBACKS_MAX 1024 /* of one client */

/* virConnectDomainQemuMonitorEventRegisterFlags */
#define MONITOR_REGEX 1u
#define MONITOR_NOCASE 2u

struct event_callback {
	int id;
	enum event_id event;
	bool one_guest;
	uint8_t uuid[16];
	bool any_name, is_regex, nocase; /* ID_MONITOR */
	char *name;
	regex_t regex;
	struct event_callback *next;
};

static void callback_free(struct event_callback *cb)
{
	if (cb->is_regex)
		regfree(&cb->regex);
	free(cb->name);
	free(cb);
}

void events_forget(struct session *s)
{
	while (s->callbacks) {
		struct event_callback *cb = s->callbacks;

		s->callbacks = cb->next;
		callback_free(cb);
	}
}

/* ---- Sending --------------------------------------------------------------- */

/*
 * `msg` is the record of `number`, which begins with the callback's number. The
 * record of the older `plain` (0: there is none) is `body`, a part of it.
 */
static void emit(struct guest *g, enum event_id event, uint32_t number, void *msg, uint32_t plain, const void *body)
{
	const struct rpc_proc *proc = rpc_proc_find(&remote_program, number);

	for (struct session *s = g->daemon->sessions, *next; s; s = next) {
		next = s->next;
		if (plain && s->events & 1ull << event)
			rpc_client_event(s->client, rpc_proc_find(&remote_program, plain), body);
		for (struct event_callback *cb = s->callbacks; cb; cb = cb->next) {
			if (cb->event != event || (cb->one_guest && memcmp(cb->uuid, g->uuid, 16)))
				continue;
			*(int32_t *)msg = cb->id;
			rpc_client_event(s->client, proc, msg);
		}
	}
}

#define EMIT_BOTH(g, id, m) \
	emit(g, ID_##id, REMOTE_PROC_DOMAIN_EVENT_CALLBACK_##id, &(m), REMOTE_PROC_DOMAIN_EVENT_##id, &(m).msg)
#define EMIT_NEW(g, id, m) emit(g, ID_##id, REMOTE_PROC_DOMAIN_EVENT_CALLBACK_##id, &(m), 0, NULL)

void event_lifecycle(struct guest *g, int event, int detail)
{
	struct remote_domain_event_callback_lifecycle_msg m = { .msg = { guest_wire(g), event, detail } };

	EMIT_BOTH(g, LIFECYCLE, m);
}

void event_reboot(struct guest *g)
{
	struct remote_domain_event_callback_reboot_msg m = { .msg = { guest_wire(g) } };

	EMIT_BOTH(g, REBOOT, m);
}

void event_control_error(struct guest *g)
{
	struct remote_domain_event_callback_control_error_msg m = { .msg = { guest_wire(g) } };

	EMIT_BOTH(g, CONTROL_ERROR, m);
}

void event_rtc_change(struct guest *g, int64_t offset)
{
	struct remote_domain_event_callback_rtc_change_msg m = { .msg = { guest_wire(g), offset } };

	EMIT_BOTH(g, RTC_CHANGE, m);
}

void event_watchdog(struct guest *g, int action)
{
	struct remote_domain_event_callback_watchdog_msg m = { .msg = { guest_wire(g), action } };

	EMIT_BOTH(g, WATCHDOG, m);
}

void event_io_error(struct guest *g, const char *path, const char *alias, int action, const char *reason)
{
	struct remote_domain_event_callback_io_error_msg m = {
		.msg = { guest_wire(g), (char *)path, (char *)alias, action },
	};
	struct remote_domain_event_callback_io_error_reason_msg why = {
		.msg = { guest_wire(g), (char *)path, (char *)alias, action, (char *)reason },
	};

	EMIT_BOTH(g, IO_ERROR, m);
	EMIT_BOTH(g, IO_ERROR_REASON, why);
}

void event_balloon_change(struct guest *g, uint64_t kib)
{
	struct remote_domain_event_callback_balloon_change_msg m = { .msg = { guest_wire(g), kib } };

	EMIT_BOTH(g, BALLOON_CHANGE, m);
}

void event_device_removed(struct guest *g, const char *alias)
{
	struct remote_domain_event_callback_device_removed_msg m = { .msg = { guest_wire(g), (char *)alias } };

	EMIT_BOTH(g, DEVICE_REMOVED, m);
}

void event_tray_change(struct guest *g, const char *alias, bool open)
{
	/* virConnectDomainEventTrayChangeReason */
	struct remote_domain_event_callback_tray_change_msg m = { .msg = { guest_wire(g), (char *)alias, open ? 0 : 1 } };

	EMIT_BOTH(g, TRAY_CHANGE, m);
}

void event_device_added(struct guest *g, const char *alias)
{
	struct remote_domain_event_callback_device_added_msg m = { .dom = guest_wire(g), .devAlias = (char *)alias };

	EMIT_NEW(g, DEVICE_ADDED, m);
}

void event_device_removal_failed(struct guest *g, const char *alias)
{
	struct remote_domain_event_callback_device_removal_failed_msg m = { .dom = guest_wire(g), .devAlias = (char *)alias };

	EMIT_NEW(g, DEVICE_REMOVAL_FAILED, m);
}

void event_agent(struct guest *g, int state, int reason)
{
	struct remote_domain_event_callback_agent_lifecycle_msg m = { .dom = guest_wire(g), .state = state, .reason = reason };

	EMIT_NEW(g, AGENT_LIFECYCLE, m);
}

void event_metadata_change(struct guest *g, int type, const char *uri)
{
	struct remote_domain_event_callback_metadata_change_msg m = { .dom = guest_wire(g), .type = type, .nsuri = (char *)uri };

	EMIT_NEW(g, METADATA_CHANGE, m);
}

void event_tunable(struct guest *g, struct remote_typed_param *params, unsigned n)
{
	struct remote_domain_event_callback_tunable_msg m = { .dom = guest_wire(g), .params = params, .params_len = n };

	EMIT_NEW(g, TUNABLE, m);
}

void event_block_job(struct guest *g, const char *path, const char *dst, int type, int status)
{
	struct remote_domain_event_callback_block_job_msg m = { .msg = { guest_wire(g), (char *)path, type, status } };
	struct remote_domain_event_block_job_2_msg two = { .dom = guest_wire(g), .dst = (char *)dst, .type = type, .status = status };

	EMIT_BOTH(g, BLOCK_JOB, m);
	emit(g, ID_BLOCK_JOB_2, REMOTE_PROC_DOMAIN_EVENT_BLOCK_JOB_2, &two, 0, NULL);
}

void event_block_threshold(struct guest *g, const char *dev, const char *path, uint64_t threshold, uint64_t excess)
{
	struct remote_domain_event_block_threshold_msg m = { .dom = guest_wire(g), .dev = (char *)dev, .path = (char *)path,
							     .threshold = threshold, .excess = excess };

	emit(g, ID_BLOCK_THRESHOLD, REMOTE_PROC_DOMAIN_EVENT_BLOCK_THRESHOLD, &m, 0, NULL);
}

static bool name_matches(const struct event_callback *cb, const char *name)
{
	if (cb->any_name)
		return true;
	if (cb->is_regex)
		return !regexec(&cb->regex, name, 0, NULL, 0);
	return cb->nocase ? !strcasecmp(cb->name, name) : !strcmp(cb->name, name);
}

void event_monitor(struct guest *g, const char *name, int64_t seconds, uint32_t micros, json_t *data)
{
	char *details = data ? json_dumps(data, JSON_COMPACT) : NULL;
	struct qemu_domain_monitor_event_msg m = { .dom = guest_wire(g), .event = (char *)name, .seconds = seconds,
						   .micros = micros, .details = details };
	const struct rpc_proc *proc = rpc_proc_find(&qemu_program, QEMU_PROC_DOMAIN_MONITOR_EVENT);

	for (struct session *s = g->daemon->sessions, *next; s; s = next) {
		next = s->next;
		for (struct event_callback *cb = s->callbacks; cb; cb = cb->next) {
			if (cb->event != ID_MONITOR || (cb->one_guest && memcmp(cb->uuid, g->uuid, 16)) || !name_matches(cb, name))
				continue;
			m.callbackID = cb->id;
			rpc_client_event(s->client, proc, &m);
		}
	}
	free(details);
}

/* ---- Registration ---------------------------------------------------------- */

static int register_plain(struct rpc_call *call, int event)
{
	struct session *s = rpc_client_data(call->client);

	/* Kinds after DEVICE_REMOVED have no event without a callback number. */
	if (event < 0 || event > ID_DEVICE_REMOVED)
		return rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_INTERNAL_ERROR, "unsupported event ID %d", event);
	if (s->events & 1ull << event)
		return rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_INTERNAL_ERROR, "domain event %d already registered", event);
	s->events |= 1ull << event;
	return 0;
}

static int deregister_plain(struct rpc_call *call, int event)
{
	struct session *s = rpc_client_data(call->client);

	if (event < 0 || event >= ID_LAST || !(s->events & 1ull << event))
		return rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_INTERNAL_ERROR, "domain event %d not registered", event);
	s->events &= ~(1ull << event);
	return 0;
}

static int do_register(struct rpc_call *call)
{
	((struct remote_connect_domain_event_register_ret *)call->ret)->cb_registered = 1;
	return register_plain(call, ID_LIFECYCLE);
}

static int do_deregister(struct rpc_call *call)
{
	return deregister_plain(call, ID_LIFECYCLE);
}

static int register_any(struct rpc_call *call)
{
	return register_plain(call, ((struct remote_connect_domain_event_register_any_args *)call->args)->eventID);
}

static int deregister_any(struct rpc_call *call)
{
	return deregister_plain(call, ((struct remote_connect_domain_event_deregister_any_args *)call->args)->eventID);
}

/* A new callback of the client, for one guest if `dom` is given. NULL with the error set. */
static struct event_callback *add_callback(struct rpc_call *call, enum event_id event, const struct remote_domain *dom)
{
	struct daemon *d = call_daemon(call);
	struct session *s = rpc_client_data(call->client);
	struct event_callback *cb, **end = &s->callbacks;
	unsigned n = 0;
	char uuid[37];

	for (; *end; end = &(*end)->next)
		n++;
	if (n >= CALLBACKS_MAX) {
		rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_OPERATION_FAILED, "a client has at most %d event callbacks", CALLBACKS_MAX);
		return NULL;
	}
	if (dom && !guest_by_uuid(d, dom->uuid)) {
		uuid_text(dom->uuid, uuid);
		rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_NO_DOMAIN, "no domain with matching uuid '%s' (%s)", uuid, dom->name);
		return NULL;
	}
	cb = calloc(1, sizeof(*cb));
	if (!cb) {
		call_fail_memory(call);
		return NULL;
	}
	cb->event = event;
	cb->id = d->last_callback++;
	if (dom) {
		cb->one_guest = true;
		memcpy(cb->uuid, dom->uuid, sizeof(cb->uuid));
	}
	*end = cb; /* callbacks of one client are called in the order they were made */
	return cb;
}

static int remove_callback(struct rpc_call *call, int id, bool monitor)
{
	struct session *s = rpc_client_data(call->client);

	for (struct event_callback **p = &s->callbacks, *cb; (cb = *p); p = &cb->next) {
		if (cb->id != id || (cb->event == ID_MONITOR) != monitor)
			continue;
		*p = cb->next;
		callback_free(cb);
		return 0;
	}
	if (monitor)
		return rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_INTERNAL_ERROR, "qemu monitor event callback %d not registered", id);
	return rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_INTERNAL_ERROR, "domain event callback %d not registered", id);
}

static int callback_register_any(struct rpc_call *call)
{
	const struct remote_connect_domain_event_callback_register_any_args *args = call->args;
	struct remote_connect_domain_event_callback_register_any_ret *ret = call->ret;
	struct event_callback *cb;

	if (args->eventID < 0 || args->eventID >= ID_LAST)
		return rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_INTERNAL_ERROR, "unsupported event ID %d", args->eventID);
	cb = add_callback(call, args->eventID, args->dom);
	if (!cb)
		return -1;
	ret->callbackID = cb->id;
	return 0;
}

static int callback_deregister_any(struct rpc_call *call)
{
	return remove_callback(call, ((struct remote_connect_domain_event_callback_deregister_any_args *)call->args)->callbackID,
			       false);
}

static int monitor_register(struct rpc_call *call)
{
	const struct qemu_connect_domain_monitor_event_register_args *args = call->args;
	struct qemu_connect_domain_monitor_event_register_ret *ret = call->ret;
	bool is_regex = args->flags & MONITOR_REGEX, nocase = args->flags & MONITOR_NOCASE;
	struct event_callback *cb;
	regex_t regex;

	if (call_check_flags(call, args->flags, MONITOR_REGEX | MONITOR_NOCASE))
		return -1;
	if (args->event && is_regex && regcomp(&regex, args->event, REG_EXTENDED | REG_NOSUB | (nocase ? REG_ICASE : 0)))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "failed to compile regex '%s'", args->event);
	cb = add_callback(call, ID_MONITOR, args->dom);
	if (!cb) {
		if (args->event && is_regex)
			regfree(&regex);
		return -1;
	}
	cb->any_name = !args->event;
	cb->nocase = nocase;
	if (args->event && is_regex) {
		cb->is_regex = true;
		cb->regex = regex;
	} else if (args->event && !(cb->name = strdup(args->event))) {
		remove_callback(call, cb->id, true);
		return call_fail_memory(call);
	}
	ret->callbackID = cb->id;
	return 0;
}

static int monitor_deregister(struct rpc_call *call)
{
	return remove_callback(call, ((struct qemu_connect_domain_monitor_event_deregister_args *)call->args)->callbackID, true);
}

const struct binding event_bindings[] = {
	{ REMOTE_PROC_CONNECT_DOMAIN_EVENT_REGISTER, do_register },
	{ REMOTE_PROC_CONNECT_DOMAIN_EVENT_DEREGISTER, do_deregister },
	{ REMOTE_PROC_CONNECT_DOMAIN_EVENT_REGISTER_ANY, register_any },
	{ REMOTE_PROC_CONNECT_DOMAIN_EVENT_DEREGISTER_ANY, deregister_any },
	{ REMOTE_PROC_CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY, callback_register_any },
	{ REMOTE_PROC_CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY, callback_deregister_any },
	{ 0 },
};

void events_bind(struct rpc_server *s)
{
	rpc_server_handle(s, &qemu_program, QEMU_PROC_CONNECT_DOMAIN_MONITOR_EVENT_REGISTER, monitor_register);
	rpc_server_handle(s, &qemu_program, QEMU_PROC_CONNECT_DOMAIN_MONITOR_EVENT_DEREGISTER, monitor_deregister);
}
