/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Questions and orders that the agent in the guest answers. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/guest_agent.h"
#include "daemon/guest_devices.h"

/* Nothing that a guest lists is longer. */
#define LIST_MAX 1024u

static int64_t number(json_t *object, const char *name)
{
	return json_integer_value(json_object_get(object, name));
}

static const char *text(json_t *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}

static unsigned length(json_t *list)
{
	size_t n = json_array_size(list);

	return n < LIST_MAX ? (unsigned)n : LIST_MAX;
}

/* An agent that answers something else than its schema says. */
static int malformed(struct rpc_call *call, const char *command)
{
	return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INTERNAL_ERROR, "malformed return value of %s", command);
}

static char *base64(struct arena *arena, const char *from)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t len = strlen(from);
	char *out = arena_alloc(arena, (len + 2) / 3 * 4 + 1), *o = out;

	for (size_t at = 0; out && at < len; at += 3) {
		size_t left = len - at;
		uint32_t v = (uint32_t)(uint8_t)from[at] << 16;

		v |= left > 1 ? (uint32_t)(uint8_t)from[at + 1] << 8 : 0;
		v |= left > 2 ? (uint8_t)from[at + 2] : 0;
		*o++ = digits[v >> 18];
		*o++ = digits[v >> 12 & 63];
		*o++ = left > 1 ? digits[v >> 6 & 63] : '=';
		*o++ = left > 2 ? digits[v & 63] : '=';
	}
	if (out)
		*o = 0;
	return out;
}

/* ---- Any command ----------------------------------------------------------- */

static int command_done(struct rpc_call *call, struct guest *g, json_t *message)
{
	struct qemu_domain_agent_command_ret *ret = call->ret;
	char *json = json_dumps(message, JSON_COMPACT);

	ret->result = json ? arena_strdup(&call->arena, json) : NULL;
	free(json);
	return ret->result ? 0 : call_fail_memory(call);
}

static int agent_command(struct rpc_call *call, struct guest *g)
{
	const struct qemu_domain_agent_command_args *args = call->args;
	json_error_t why;
	json_t *message;
	char *line;
	int ret;

	if (call_check_flags(call, args->flags, 0))
		return -1;
	if (args->timeout < AGENT_BLOCK)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "timeout (%d) in virDomainQemuAgentCommand is below %d",
				     args->timeout, AGENT_BLOCK);
	message = json_loads(args->cmd, JSON_REJECT_DUPLICATES, &why);
	if (!json_is_object(message)) {
		json_decref(message);
		/* The agent itself would say no more, but a line feed in it would be a second command. */
		if (strpbrk(args->cmd, "\r\n"))
			return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "the command is not a JSON object");
		return guest_agent_text(call, g, args->cmd, args->timeout == AGENT_DEFAULT ? 5 : args->timeout, command_done);
	}
	line = json_dumps(message, JSON_COMPACT);
	json_decref(message);
	if (!line)
		return call_fail_memory(call);
	ret = guest_agent_text(call, g, line, args->timeout == AGENT_DEFAULT ? 5 : args->timeout, command_done);
	free(line);
	return ret;
}

static int set_response_timeout(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_agent_set_response_timeout_args *args = call->args;

	if (call_check_flags(call, args->flags, 0))
		return -1;
	if (args->timeout < AGENT_BLOCK)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG,
				     "guest agent timeout '%d' is less than the minimum '%d'", args->timeout, AGENT_BLOCK);
	g->agent_timeout = args->timeout == AGENT_DEFAULT ? 5 : args->timeout;
	return 0;
}

/* ---- Time, name, password, suspend ------------------------------------------ */

static int have_time(struct rpc_call *call, struct guest *g, json_t *value)
{
	struct remote_domain_get_time_ret *ret = call->ret;

	if (!json_is_integer(value))
		return malformed(call, "guest-get-time");
	ret->seconds = json_integer_value(value) / 1000000000;
	ret->nseconds = (uint32_t)(json_integer_value(value) % 1000000000);
	return 0;
}

static int get_time(struct rpc_call *call, struct guest *g)
{
	if (call_check_flags(call, ((struct remote_domain_get_time_args *)call->args)->flags, 0))
		return -1;
	return guest_agent(call, g, "guest-get-time", NULL, 0, have_time);
}

static int set_time(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_set_time_args *args = call->args;
	enum { TIME_SYNC = 1 };

	if (call_check_flags(call, args->flags, TIME_SYNC))
		return -1;
	if (args->flags & TIME_SYNC)
		return guest_agent(call, g, "guest-set-time", NULL, 0, NULL);
	if (args->seconds > (INT64_MAX - args->nseconds) / 1000000000 || args->seconds < INT64_MIN / 1000000000)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "Time '%lld' is too big for guest agent",
				     (long long)args->seconds);
	return guest_agent(call, g, "guest-set-time",
			   json_pack("{s:I}", "time", (json_int_t)(args->seconds * 1000000000 + args->nseconds)), 0, NULL);
}

static int have_name(struct rpc_call *call, struct guest *g, json_t *value)
{
	const char *name = text(value, "host-name");
	struct remote_domain_get_hostname_ret *ret = call->ret;

	if (!name)
		return malformed(call, "guest-get-host-name");
	ret->hostname = arena_strdup(&call->arena, name);
	return ret->hostname ? 0 : call_fail_memory(call);
}

static int get_hostname(struct rpc_call *call, struct guest *g)
{
	enum { NAME_LEASE = 1, NAME_AGENT = 2 };
	uint32_t flags = ((struct remote_domain_get_hostname_args *)call->args)->flags;

	if (call_check_flags(call, flags, NAME_LEASE | NAME_AGENT))
		return -1;
	if (flags & NAME_LEASE)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_UNSUPPORTED,
				     "there are no leases to look a name up in: ask the agent");
	return guest_agent(call, g, "guest-get-host-name", NULL, 0, have_name);
}

static int set_user_password(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_set_user_password_args *args = call->args;
	char *password;

	enum { PASSWORD_ENCRYPTED = 1 };
	if (call_check_flags(call, args->flags, PASSWORD_ENCRYPTED))
		return -1;
	password = base64(&call->arena, args->password ? args->password : "");
	if (!password)
		return call_fail_memory(call);
	return guest_agent(call, g, "guest-set-user-password",
			   json_pack("{s:b,s:s,s:s}", "crypted", args->flags & PASSWORD_ENCRYPTED, "username",
				     args->user ? args->user : "", "password", password),
			   0, NULL);
}

static int pm_suspend(struct rpc_call *call, struct guest *g)
{
	static const char *const commands[] = { "guest-suspend-ram", "guest-suspend-disk", "guest-suspend-hybrid" };
	const struct remote_domain_pm_suspend_for_duration_args *args = call->args;

	if (call_check_flags(call, args->flags, 0))
		return -1;
	if (args->duration)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_ARGUMENT_UNSUPPORTED, "Duration not supported. Use 0 for now");
	if (args->target >= sizeof(commands) / sizeof(commands[0]))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_ARGUMENT_UNSUPPORTED, "Unknown suspend target: %u", args->target);
	return guest_agent(call, g, commands[args->target], NULL, 0, NULL);
}

/* ---- Keys ------------------------------------------------------------------ */

static int have_keys(struct rpc_call *call, struct guest *g, json_t *value)
{
	struct remote_domain_authorized_ssh_keys_get_ret *ret = call->ret;
	json_t *keys = json_object_get(value, "keys");

	if (!json_is_array(keys))
		return malformed(call, "guest-ssh-get-authorized-keys");
	ret->keys = arena_alloc(&call->arena, (length(keys) + 1) * sizeof(*ret->keys));
	for (unsigned n = 0; ret->keys && n < length(keys); n++) {
		const char *key = json_string_value(json_array_get(keys, n));

		ret->keys[n] = arena_strdup(&call->arena, key ? key : "");
		if (!ret->keys[n])
			return call_fail_memory(call);
		ret->keys_len++;
	}
	return ret->keys ? 0 : call_fail_memory(call);
}

static int get_keys(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_authorized_ssh_keys_get_args *args = call->args;

	if (call_check_flags(call, args->flags, 0))
		return -1;
	return guest_agent(call, g, "guest-ssh-get-authorized-keys", json_pack("{s:s}", "username", args->user), 0, have_keys);
}

static int set_keys(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_authorized_ssh_keys_set_args *args = call->args;
	json_t *keys = json_array(), *all;

	enum { KEYS_APPEND = 1, KEYS_REMOVE = 2 };
	if (call_check_flags(call, args->flags, KEYS_APPEND | KEYS_REMOVE)) {
		json_decref(keys);
		return -1;
	}
	for (unsigned n = 0; n < args->keys_len; n++)
		json_array_append_new(keys, json_string(args->keys[n]));
	all = json_pack("{s:s,s:o}", "username", args->user, "keys", keys);
	if (args->flags & KEYS_REMOVE)
		return guest_agent(call, g, "guest-ssh-remove-authorized-keys", all, 0, NULL);
	json_object_set_new(all, "reset", json_boolean(!(args->flags & KEYS_APPEND)));
	return guest_agent(call, g, "guest-ssh-add-authorized-keys", all, 0, NULL);
}

/* ---- File systems ---------------------------------------------------------- */

static int have_count(struct rpc_call *call, struct guest *g, json_t *value)
{
	if (!json_is_integer(value))
		return malformed(call, "guest-fsfreeze");
	((struct remote_domain_fsfreeze_ret *)call->ret)->filesystems = (int32_t)json_integer_value(value);
	return 0;
}

static int freeze(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_fsfreeze_args *args = call->args;
	json_t *list;

	if (call_check_flags(call, args->flags, 0))
		return -1;
	if (!args->mountpoints_len)
		return guest_agent(call, g, "guest-fsfreeze-freeze", NULL, 0, have_count);
	list = json_array();
	for (unsigned n = 0; n < args->mountpoints_len; n++)
		json_array_append_new(list, json_string(args->mountpoints[n]));
	return guest_agent(call, g, "guest-fsfreeze-freeze-list", json_pack("{s:o}", "mountpoints", list), 0, have_count);
}

static int thaw(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_fsthaw_args *args = call->args;

	if (call_check_flags(call, args->flags, 0))
		return -1;
	if (args->mountpoints_len)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_ARGUMENT_UNSUPPORTED, "specifying mountpoints is not supported");
	return guest_agent(call, g, "guest-fsfreeze-thaw", NULL, 0, have_count);
}

static int trim(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_fstrim_args *args = call->args;

	if (call_check_flags(call, args->flags, 0))
		return -1;
	if (args->mountPoint)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_ARGUMENT_UNSUPPORTED, "Specifying mount point is not supported for now");
	return guest_agent(call, g, "guest-fstrim", json_pack("{s:I}", "minimum", (json_int_t)args->minimum), 0, NULL);
}

/* The disk that the agent means, by its place on the bus or by its serial number. NULL: none of ours. */
static const char *target_of(const struct guest *g, json_t *disk)
{
	json_t *pci = json_object_get(disk, "pci-controller");
	const struct dom_devices *dev = g->live->devices;
	const char *serial = text(disk, "serial");

	for (unsigned n = 0; n < dev->disk.n; n++) {
		const struct dom_disk *d = dev->disk.v[n];
		const struct dom_address *a = d->info.address;

		if (d->serial && serial && !strcmp(d->serial, serial))
			return d->target->dev;
		if (a && a->type == DOM_ADDRESS_PCI && a->bus == number(pci, "bus") && a->slot == number(pci, "slot") &&
		    a->function == number(pci, "function"))
			return d->target->dev;
		if (a && a->type == DOM_ADDRESS_DRIVE && text(disk, "bus-type") && !strcmp(text(disk, "bus-type"), "scsi") &&
		    a->bus == number(disk, "bus") && a->target == number(disk, "target") && a->unit == number(disk, "unit"))
			return d->target->dev;
	}
	return NULL;
}

static int have_filesystems(struct rpc_call *call, struct guest *g, json_t *list)
{
	struct remote_domain_get_fsinfo_ret *ret = call->ret;
	struct arena *arena = &call->arena;

	if (!json_is_array(list) || !g->live)
		return malformed(call, "guest-get-fsinfo");
	ret->info = arena_alloc(arena, (length(list) + 1) * sizeof(*ret->info));
	for (unsigned n = 0; ret->info && n < length(list) && n < 256; n++) {
		json_t *one = json_array_get(list, n), *disks = json_object_get(one, "disk");
		struct remote_domain_fsinfo *f = &ret->info[n];
		const char *name = text(one, "name"), *mountpoint = text(one, "mountpoint"), *type = text(one, "type");

		*f = (struct remote_domain_fsinfo){ .name = arena_strdup(arena, name ? name : ""),
						    .mountpoint = arena_strdup(arena, mountpoint ? mountpoint : ""),
						    .fstype = arena_strdup(arena, type ? type : "") };
		f->dev_aliases = arena_alloc(arena, (length(disks) + 1) * sizeof(*f->dev_aliases));
		if (!f->name || !f->mountpoint || !f->fstype || !f->dev_aliases)
			return call_fail_memory(call);
		for (unsigned i = 0; i < length(disks) && i < 256; i++) {
			const char *target = target_of(g, json_array_get(disks, i));

			if (target && (f->dev_aliases[f->dev_aliases_len] = arena_strdup(arena, target)))
				f->dev_aliases_len++;
		}
		ret->ret = ++ret->info_len;
	}
	return ret->info ? 0 : call_fail_memory(call);
}

static int get_fsinfo(struct rpc_call *call, struct guest *g)
{
	if (call_check_flags(call, ((struct remote_domain_get_fsinfo_args *)call->args)->flags, 0))
		return -1;
	return guest_agent(call, g, "guest-get-fsinfo", NULL, 0, have_filesystems);
}

/* ---- Addresses ------------------------------------------------------------- */

enum { IP_V4, IP_V6 }; /* virIPAddrType */

static int have_interfaces(struct rpc_call *call, struct guest *g, json_t *list)
{
	struct remote_domain_interface_addresses_ret *ret = call->ret;
	struct arena *arena = &call->arena;

	if (!json_is_array(list))
		return malformed(call, "guest-network-get-interfaces");
	ret->ifaces = arena_alloc(arena, (length(list) + 1) * sizeof(*ret->ifaces));
	for (unsigned n = 0; ret->ifaces && n < length(list); n++) {
		json_t *one = json_array_get(list, n), *addresses = json_object_get(one, "ip-addresses");
		const char *name = text(one, "name"), *hardware = text(one, "hardware-address");
		struct remote_domain_interface *i = &ret->ifaces[ret->ifaces_len];

		if (!name)
			return malformed(call, "guest-network-get-interfaces");
		*i = (struct remote_domain_interface){ .name = arena_strdup(arena, name),
						       .hwaddr = hardware ? arena_strdup(arena, hardware) : NULL };
		i->addrs = arena_alloc(arena, (length(addresses) + 1) * sizeof(*i->addrs));
		if (!i->name || !i->addrs || (hardware && !i->hwaddr))
			return call_fail_memory(call);
		for (unsigned k = 0; k < length(addresses); k++) {
			json_t *a = json_array_get(addresses, k);
			const char *type = text(a, "ip-address-type"), *address = text(a, "ip-address");

			if (!type || !address)
				continue;
			i->addrs[i->addrs_len] = (struct remote_domain_ip_addr){ .type = strcmp(type, "ipv6") ? IP_V4 : IP_V6,
										 .addr = arena_strdup(arena, address),
										 .prefix = (uint32_t)number(a, "prefix") };
			if (!i->addrs[i->addrs_len].addr)
				return call_fail_memory(call);
			i->addrs_len++;
		}
		ret->ifaces_len++;
	}
	return ret->ifaces ? 0 : call_fail_memory(call);
}

static int interface_addresses(struct rpc_call *call, struct guest *g)
{
	enum { FROM_LEASE, FROM_AGENT, FROM_ARP };
	const struct remote_domain_interface_addresses_args *args = call->args;

	if (call_check_flags(call, args->flags, 0))
		return -1;
	if (args->source > FROM_ARP)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_ARGUMENT_UNSUPPORTED, "Unknown IP address data source %u", args->source);
	if (args->source != FROM_AGENT)
		return 0; /* nobody here gives leases or sees the guest's ARP */
	return guest_agent(call, g, "guest-network-get-interfaces", NULL, 0, have_interfaces);
}

/* ---- vCPUs, as the guest uses them ------------------------------------------ */

#define GUEST_VCPUS 256u

struct guest_vcpus {
	unsigned n, online;
	bool present[GUEST_VCPUS], is_online[GUEST_VCPUS], offlinable[GUEST_VCPUS];
};

static bool read_vcpus(json_t *list, struct guest_vcpus *v)
{
	*v = (struct guest_vcpus){ 0 };
	for (size_t n = 0; n < json_array_size(list); n++) {
		json_t *one = json_array_get(list, n), *can = json_object_get(one, "can-offline");
		int64_t id = number(one, "logical-id");

		if (!json_is_integer(json_object_get(one, "logical-id")) || id < 0 || id >= GUEST_VCPUS)
			return false;
		v->n += !v->present[id];
		v->present[id] = true;
		v->is_online[id] = json_is_true(json_object_get(one, "online"));
		v->online += v->is_online[id];
		v->offlinable[id] = json_is_true(can);
	}
	return json_is_array(list);
}

static void add_map(struct params *p, const char *name, const bool *in)
{
	char map[GUEST_VCPUS * 4] = "", *to = map;

	for (unsigned n = 0; n < GUEST_VCPUS; n++) {
		unsigned last = n;

		if (!in[n])
			continue;
		while (last + 1 < GUEST_VCPUS && in[last + 1])
			last++;
		to += sprintf(to, "%s%u", to > map ? "," : "", n);
		if (last > n)
			to += sprintf(to, "-%u", last);
		n = last;
	}
	params_string(p, name, map);
}

static int have_vcpus(struct rpc_call *call, struct guest *g, json_t *list)
{
	struct remote_domain_get_guest_vcpus_ret *ret = call->ret;
	struct params p = { .arena = &call->arena };
	struct guest_vcpus v;

	if (!read_vcpus(list, &v))
		return malformed(call, "guest-get-vcpus");
	add_map(&p, "vcpus", v.present);
	add_map(&p, "online", v.is_online);
	add_map(&p, "offlinable", v.offlinable);
	ret->params = p.list;
	ret->params_len = p.n;
	return p.failed ? call_fail_memory(call) : 0;
}

static int get_guest_vcpus(struct rpc_call *call, struct guest *g)
{
	if (call_check_flags(call, ((struct remote_domain_get_guest_vcpus_args *)call->args)->flags, 0))
		return -1;
	return guest_agent(call, g, "guest-get-vcpus", NULL, 0, have_vcpus);
}

static int vcpus_set(struct rpc_call *call, struct guest *g, json_t *done)
{
	/* The agent says how many it has changed; the first that can't be is its error. */
	return json_is_integer(done) ? 0 : malformed(call, "guest-set-vcpus");
}

static int set_guest_vcpus(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_set_guest_vcpus_args *args = call->args;
	json_t *list = json_array();
	const char *at = args->cpumap;
	bool bad = !*at;

	if (call_check_flags(call, args->flags, 0) || args->state < 0 || args->state > 1) {
		json_decref(list);
		return args->flags ? -1 : rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "unsupported state value");
	}
	while (*at && !bad) {
		char *end;
		unsigned long from = strtoul(at, &end, 10), to = from;

		bad = end == at;
		if (*end == '-')
			to = strtoul(end + 1, &end, 10);
		bad = bad || from > to || to >= GUEST_VCPUS || (*end && *end != ',');
		for (unsigned long n = from; n <= to && !bad; n++)
			json_array_append_new(list, json_pack("{s:I,s:b}", "logical-id", (json_int_t)n, "online", args->state));
		at = *end == ',' ? end + 1 : end;
	}
	if (bad) {
		json_decref(list);
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "Failed to parse bitmap '%s'", args->cpumap);
	}
	return guest_agent(call, g, "guest-set-vcpus", json_pack("{s:o}", "vcpus", list), 0, vcpus_set);
}

static int count_vcpus(struct rpc_call *call, struct guest *g, json_t *list)
{
	struct guest_vcpus v;

	if (!read_vcpus(list, &v))
		return malformed(call, "guest-get-vcpus");
	((struct remote_domain_get_vcpus_flags_ret *)call->ret)->num = (int32_t)v.online;
	return 0;
}

int agent_get_vcpus(struct rpc_call *call, struct guest *g)
{
	if (!guest_is_active(g))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "vCPU count provided by the guest agent can only be requested for live domains");
	return guest_agent(call, g, "guest-get-vcpus", NULL, 0, count_vcpus);
}

static int change_vcpus(struct rpc_call *call, struct guest *g, json_t *list)
{
	unsigned wanted = ((struct remote_domain_set_vcpus_flags_args *)call->args)->nvcpus;
	struct guest_vcpus v;
	json_t *change;

	if (!read_vcpus(list, &v))
		return malformed(call, "guest-get-vcpus");
	if (wanted > v.n)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "requested vcpu count is greater than the count of enabled vcpus in the domain: %u > %u", wanted, v.n);
	change = json_array();
	for (unsigned i = 0; i < GUEST_VCPUS && v.online != wanted; i++) {
		unsigned id = v.online < wanted ? i : GUEST_VCPUS - 1 - i; /* the last ones go first */
		bool on = v.online < wanted;

		if (!v.present[id] || v.is_online[id] == on || (!on && !v.offlinable[id]))
			continue;
		json_array_append_new(change, json_pack("{s:I,s:b}", "logical-id", (json_int_t)id, "online", on));
		v.online += on ? 1 : -1;
	}
	if (v.online != wanted) {
		json_decref(change);
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INTERNAL_ERROR, "cannot offline enough vCPUs of the guest");
	}
	if (!json_array_size(change)) {
		json_decref(change);
		return 0;
	}
	return guest_agent(call, g, "guest-set-vcpus", json_pack("{s:o}", "vcpus", change), 0, vcpus_set);
}

int agent_set_vcpus(struct rpc_call *call, struct guest *g, unsigned n)
{
	if (!guest_is_active(g))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "setting vcpus via guest agent isn't supported for offline domain");
	if (!n)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "0 vCPUs are not possible");
	return guest_agent(call, g, "guest-get-vcpus", NULL, 0, change_vcpus);
}

const struct guest_binding agent_bindings[] = {
	{ &qemu_program, QEMU_PROC_DOMAIN_AGENT_COMMAND, agent_command, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_AGENT_SET_RESPONSE_TIMEOUT, set_response_timeout, GUEST_PACKED },
	{ NULL, REMOTE_PROC_DOMAIN_GET_TIME, get_time, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_SET_TIME, set_time, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_GET_HOSTNAME, get_hostname, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_SET_USER_PASSWORD, set_user_password, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_PM_SUSPEND_FOR_DURATION, pm_suspend, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_AUTHORIZED_SSH_KEYS_GET, get_keys, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_AUTHORIZED_SSH_KEYS_SET, set_keys, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_FSFREEZE, freeze, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_FSTHAW, thaw, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_FSTRIM, trim, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_GET_FSINFO, get_fsinfo, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_INTERFACE_ADDRESSES, interface_addresses, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_GET_GUEST_VCPUS, get_guest_vcpus, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_SET_GUEST_VCPUS, set_guest_vcpus, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_GET_GUEST_INFO, guest_info, GUEST_ACTIVE },
	{ 0 },
};
