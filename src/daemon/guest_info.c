/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virDomainGetGuestInfo: several questions to the agent in one answer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/guest_agent.h"

#define LIST_MAX 128u /* of each kind: an answer has at most 2048 parameters */

struct info {
	struct params p;
	uint32_t types; /* asked for; 0: whatever there is */
	unsigned next;
};

static const char *text(json_t *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}

static unsigned length(json_t *list)
{
	size_t n = json_array_size(list);

	return n < LIST_MAX ? (unsigned)n : LIST_MAX;
}

static void add_text(struct params *p, const char *value, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void add_text(struct params *p, const char *value, const char *fmt, ...)
{
	char name[80];
	va_list ap;

	if (!value)
		return;
	va_start(ap, fmt);
	vsnprintf(name, sizeof(name), fmt, ap);
	va_end(ap);
	params_string(p, name, value);
}

/* ---- Each kind's answer ---------------------------------------------------- */

static void users(struct params *p, json_t *list)
{
	char name[40];

	params_uint(p, "user.count", length(list));
	for (unsigned n = 0; n < length(list); n++) {
		json_t *one = json_array_get(list, n);

		add_text(p, text(one, "user"), "user.%u.name", n);
		add_text(p, text(one, "domain"), "user.%u.domain", n);
		snprintf(name, sizeof(name), "user.%u.login-time", n);
		params_ullong(p, name, (uint64_t)(json_real_value(json_object_get(one, "login-time")) * 1000));
	}
}

static void os(struct params *p, json_t *ret)
{
	static const char *const names[] = { "id", "name", "pretty-name", "version", "version-id", "machine", "variant", "variant-id",
					     "kernel-release", "kernel-version" };

	for (unsigned n = 0; n < sizeof(names) / sizeof(names[0]); n++)
		add_text(p, text(ret, names[n]), "os.%s", names[n]);
}

static void timezone_of(struct params *p, json_t *ret)
{
	add_text(p, text(ret, "zone"), "timezone.name");
	params_int(p, "timezone.offset", (int32_t)json_integer_value(json_object_get(ret, "offset")));
}

static void hostname(struct params *p, json_t *ret)
{
	add_text(p, text(ret, "host-name"), "hostname");
}

static void filesystems(struct params *p, json_t *list)
{
	static const struct {
		const char *agent, *name;
	} bytes[] = { { "total-bytes", "total-bytes" }, { "used-bytes", "used-bytes" } };
	char name[48];

	params_uint(p, "fs.count", length(list));
	for (unsigned n = 0; n < length(list); n++) {
		json_t *one = json_array_get(list, n), *disks = json_object_get(one, "disk");

		add_text(p, text(one, "name"), "fs.%u.name", n);
		add_text(p, text(one, "mountpoint"), "fs.%u.mountpoint", n);
		add_text(p, text(one, "type"), "fs.%u.fstype", n);
		for (unsigned i = 0; i < 2; i++) {
			json_t *v = json_object_get(one, bytes[i].agent);

			snprintf(name, sizeof(name), "fs.%u.%s", n, bytes[i].name);
			if (json_is_integer(v))
				params_ullong(p, name, (uint64_t)json_integer_value(v));
		}
		snprintf(name, sizeof(name), "fs.%u.disk.count", n);
		params_uint(p, name, length(disks) < 8 ? length(disks) : 8);
		for (unsigned i = 0; i < length(disks) && i < 8; i++) {
			add_text(p, text(json_array_get(disks, i), "serial"), "fs.%u.disk.%u.serial", n, i);
			add_text(p, text(json_array_get(disks, i), "dev"), "fs.%u.disk.%u.device", n, i);
		}
	}
}

static void disks(struct params *p, json_t *list)
{
	char name[40];

	params_uint(p, "disk.count", length(list));
	for (unsigned n = 0; n < length(list); n++) {
		json_t *one = json_array_get(list, n), *parts = json_object_get(one, "dependencies");

		add_text(p, text(one, "name"), "disk.%u.name", n);
		snprintf(name, sizeof(name), "disk.%u.partition", n);
		params_bool(p, name, json_is_true(json_object_get(one, "partition")));
		if (length(parts)) {
			snprintf(name, sizeof(name), "disk.%u.dependency.count", n);
			params_uint(p, name, length(parts) < 4 ? length(parts) : 4);
		}
		for (unsigned i = 0; i < length(parts) && i < 4; i++)
			add_text(p, json_string_value(json_array_get(parts, i)), "disk.%u.dependency.%u.name", n, i);
		add_text(p, text(json_object_get(one, "address"), "serial"), "disk.%u.serial", n);
		add_text(p, text(one, "alias"), "disk.%u.guest_alias", n);
	}
}

static void interfaces(struct params *p, json_t *list)
{
	char name[48];

	params_uint(p, "if.count", length(list));
	for (unsigned n = 0; n < length(list); n++) {
		json_t *one = json_array_get(list, n), *addresses = json_object_get(one, "ip-addresses");
		unsigned count = length(addresses) < 4 ? length(addresses) : 4;

		add_text(p, text(one, "name"), "if.%u.name", n);
		add_text(p, text(one, "hardware-address"), "if.%u.hwaddr", n);
		if (!count)
			continue;
		snprintf(name, sizeof(name), "if.%u.addr.count", n);
		params_uint(p, name, count);
		for (unsigned i = 0; i < count; i++) {
			json_t *a = json_array_get(addresses, i);

			add_text(p, text(a, "ip-address-type"), "if.%u.addr.%u.type", n, i);
			add_text(p, text(a, "ip-address"), "if.%u.addr.%u.addr", n, i);
			snprintf(name, sizeof(name), "if.%u.addr.%u.prefix", n, i);
			params_uint(p, name, (uint32_t)json_integer_value(json_object_get(a, "prefix")));
		}
	}
}

/* virDomainGuestInfoTypes, bit by bit. */
static const struct {
	const char *command;
	void (*add)(struct params *p, json_t *ret);
} kinds[] = {
	{ "guest-get-users", users },
	{ "guest-get-osinfo", os },
	{ "guest-get-timezone", timezone_of },
	{ "guest-get-host-name", hostname },
	{ "guest-get-fsinfo", filesystems },
	{ "guest-get-disks", disks },
	{ "guest-network-get-interfaces", interfaces },
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* ---- One after the other --------------------------------------------------- */

static int ask_next(struct rpc_call *call, struct guest *g, struct info *i);

static int have(struct rpc_call *call, struct guest *g, json_t *ret)
{
	struct info *i = call->opaque;

	if (!ret && i->types)
		return -1;
	if (!ret)
		call->error = (struct rpc_error){ 0 }; /* an agent without it: what there is was asked for */
	else
		kinds[i->next - 1].add(&i->p, ret);
	return ask_next(call, g, i);
}

static int ask_next(struct rpc_call *call, struct guest *g, struct info *i)
{
	struct remote_domain_get_guest_info_ret *ret = call->ret;

	while (i->next < KINDS && i->types && !(i->types & 1u << i->next))
		i->next++;
	if (i->next < KINDS)
		return guest_agent(call, g, kinds[i->next++].command, NULL, AGENT_TRY, have);
	ret->params = i->p.list;
	ret->params_len = i->p.n < 2048 ? i->p.n : 2048;
	return i->p.failed ? call_fail_memory(call) : 0;
}

int guest_info(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_get_guest_info_args *args = call->args;
	struct info *i;

	if (call_check_flags(call, args->flags, 0))
		return -1;
	if (args->types >> KINDS)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "unsupported guest information types '0x%x'",
				     args->types & ~((1u << KINDS) - 1));
	i = arena_alloc(&call->arena, sizeof(*i));
	if (!i)
		return call_fail_memory(call);
	*i = (struct info){ .p.arena = &call->arena, .types = args->types };
	call->opaque = i;
	return ask_next(call, g, i);
}
