/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices attached, detached and changed, in the definition and in the running
 * machine. A change of both happens in the machine first: what the machine
 * refuses changes nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/confine.h"
#include "daemon/guest.h"
#include "daemon/guest_agent.h"
#include "daemon/guest_devices.h"

enum { DEVICE_FORCE = 4 }; /* virDomainDeviceModifyFlags */

#define UNPLUG_NS 5000000000u /* how long a call waits for the guest's consent */

/* ---- Finding --------------------------------------------------------------- */

struct dom_disk *disk_by_alias(const struct domain *def, const char *alias)
{
	for (unsigned n = 0; n < def->devices->disk.n; n++)
		if (def->devices->disk.v[n]->info.alias && !strcmp(def->devices->disk.v[n]->info.alias, alias))
			return def->devices->disk.v[n];
	return NULL;
}

struct dom_disk *disk_by_target(const struct domain *def, const char *target)
{
	for (unsigned n = 0; n < def->devices->disk.n; n++) {
		struct dom_disk *disk = def->devices->disk.v[n];
		const char *path = disk->source ? disk->source->file ? disk->source->file : disk->source->dev : NULL;

		if (!strcmp(disk->target->dev, target) || (path && !strcmp(path, target)))
			return disk;
	}
	return NULL;
}

static bool mac_matches(const struct dom_interface *nic, const char *text)
{
	const uint8_t *m = nic->mac->address.bytes;
	char mac[18];

	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
	return !strcasecmp(mac, text);
}

struct dom_interface *interface_by_device(const struct domain *def, const char *dev)
{
	for (unsigned n = 0; n < def->devices->interface.n; n++) {
		struct dom_interface *nic = def->devices->interface.v[n];

		if (mac_matches(nic, dev) || (nic->target && nic->target->dev && !strcmp(nic->target->dev, dev)))
			return nic;
	}
	return NULL;
}

/* ---- A change under way ---------------------------------------------------- */

struct change {
	struct rpc_call *call;
	struct guest *guest;
	struct domain *config, *live; /* as they will be; or NULL */
	struct domain_device dev;     /* in live, or of it */
	char *alias;
	char node[80]; /* of a disk */
	struct timer *timer;
	struct change *next;
};

static struct change *unplugs; /* that wait for the guest */

static void change_free(struct change *c)
{
	timer_free(c->timer);
	domain_free(c->config);
	domain_free(c->live);
	free(c->alias);
	guest_put(c->guest);
	free(c);
}

/* Make the new definitions the guest's. */
static int commit(struct change *c)
{
	struct guest *g = c->guest;
	struct domain *before;

	if (c->config) {
		before = g->config;
		g->config = c->config;
		c->config = NULL;
		if (guest_config_commit(c->call, g, before))
			return -1;
	}
	if (c->live && g->live) {
		/* The balloon may have moved meanwhile. */
		if (c->live->current_memory && g->live->current_memory)
			c->live->current_memory->kib = g->live->current_memory->kib;
		domain_free(g->live);
		g->live = c->live;
		c->live = NULL;
		store_save_live(g);
	}
	return 0;
}

static void finish(struct change *c, int ret)
{
	struct guest *g = guest_get(c->guest);
	struct rpc_call *call = c->call;

	change_free(c);
	guest_finish(call, g, ret);
	guest_put(g);
}

static int fail_command(struct change *c, const char *command, const char *error)
{
	return rpc_call_fail(c->call, VIR_FROM_QEMU, VIR_ERR_INTERNAL_ERROR, "unable to execute QEMU command '%s': %s", command,
			     error);
}

static struct change *change_new(struct rpc_call *call, struct guest *g, bool live, bool config)
{
	struct change *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->call = call;
	c->guest = guest_get(g);
	if (config)
		c->config = domain_copy(g->config);
	if (live)
		c->live = domain_copy(g->live);
	if ((config && !c->config) || (live && !c->live)) {
		change_free(c);
		return NULL;
	}
	return c;
}

/* ---- In -------------------------------------------------------------------- */

static void plugged(void *opaque, json_t *ret, const char *error)
{
	struct change *c = opaque;
	struct qmp *q = guest_monitor(c->guest);
	int result;

	if (ret) {
		const struct dom_disk *disk = c->dev.kind == DOM_DEV_DISK ? c->dev.dev : NULL;

		if (disk && disk->iotune && q)
			qmp_send(q, "block_set_io_throttle", iotune_arguments(c->alias, disk->iotune), NULL, NULL);
		result = commit(c);
		if (!result)
			event_device_added(c->guest, c->alias);
	} else {
		if (q && c->node[0])
			qmp_send(q, c->dev.kind == DOM_DEV_DISK ? "blockdev-del" : "netdev_del",
				 json_pack("{s:s}", c->dev.kind == DOM_DEV_DISK ? "node-name" : "id", c->node), NULL, NULL);
		result = fail_command(c, "device_add", error);
	}
	finish(c, result);
}

static json_t *device_arguments(const struct change *c)
{
	const struct dom_info *info = domain_device_info(&c->dev);
	const struct dom_disk *disk = c->dev.dev;
	const struct dom_interface *nic = c->dev.dev;
	char text[18];
	json_t *args;

	if (c->dev.kind == DOM_DEV_DISK) {
		args = json_pack("{s:s,s:s,s:s}", "driver", "virtio-blk-pci", "id", c->alias, "drive", c->node);
		if (disk->serial)
			json_object_set_new(args, "serial", json_string(disk->serial));
	} else {
		const uint8_t *m = nic->mac->address.bytes;

		snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
		args = json_pack("{s:s,s:s,s:s,s:s}", "driver", "virtio-net-pci", "id", c->alias, "netdev", c->node, "mac", text);
	}
	if (info->address && info->address->type == DOM_ADDRESS_PCI) {
		snprintf(text, sizeof(text), info->address->bus ? "pci.%u" : "pcie.%u", info->address->bus);
		json_object_set_new(args, "bus", json_string(text));
		snprintf(text, sizeof(text), "%x.%x", info->address->slot, info->address->function);
		json_object_set_new(args, "addr", json_string(text));
	}
	return args;
}

/* Its back end is there. */
static void backed(void *opaque, json_t *ret, const char *error)
{
	struct change *c = opaque;
	struct qmp *q = guest_monitor(c->guest);

	if (!ret)
		finish(c, fail_command(c, c->dev.kind == DOM_DEV_DISK ? "blockdev-add" : "netdev_add", error));
	else if (!q || !qmp_send(q, "device_add", device_arguments(c), plugged, c))
		finish(c, rpc_call_fail(c->call, VIR_FROM_QEMU, VIR_ERR_OPERATION_FAILED, "domain is no longer running"));
}

static json_t *disk_arguments(const struct change *c, const struct dom_disk *disk)
{
	const char *format = disk->driver && disk->driver->type ? disk->driver->type : "raw";
	const char *path = disk->source->file ? disk->source->file : disk->source->dev;
	bool direct = disk->driver && (disk->driver->cache == DOM_DISK_CACHE_NONE || disk->driver->cache == DOM_DISK_CACHE_DIRECTSYNC);
	bool unsafe = disk->driver && disk->driver->cache == DOM_DISK_CACHE_UNSAFE;

	return json_pack("{s:s,s:s,s:b,s:{s:b,s:b},s:{s:s,s:s}}", "node-name", c->node, "driver", format, "read-only", disk->readonly,
			 "cache", "direct", direct, "no-flush", unsafe, "file", "driver",
			 disk->source->file ? "file" : "host_device", "filename", path);
}

static int plug(struct change *c)
{
	struct qmp *q = guest_monitor(c->guest);
	struct rpc_call *call = c->call;
	const struct dom_disk *disk = c->dev.dev;
	const struct dom_interface *nic = c->dev.dev;
	struct confine_files files = { 0 };
	struct err err = ERR_INIT;
	json_t *args;
	int ret, fd;

	if (c->dev.kind == DOM_DEV_DISK && disk->target->bus == DOM_BUS_VIRTIO && disk->source &&
	    (disk->source->file || disk->source->dev)) {
		snprintf(c->node, sizeof(c->node), "%.60s-node", c->alias);
		if (confine_disk_open(&files, c->guest, disk, &err)) {
			confine_files_close(&files);
			ret = call_fail_model(call, &err);
			change_free(c);
			return ret;
		}
		args = disk_arguments(c, disk);
	} else if (c->dev.kind == DOM_DEV_INTERFACE && nic->type == DOM_NET_USER) {
		snprintf(c->node, sizeof(c->node), "host%.60s", c->alias);
		fd = confine_passt_start(c->guest, &err);
		if (fd < 0 || confine_file_add(&files, c->node, fd, &err)) {
			ret = call_fail_model(call, &err);
			change_free(c);
			return ret;
		}
		args = json_pack("{s:s,s:s,s:{s:s,s:s}}", "type", "stream", "id", c->node, "addr", "type", "unix", "path", c->node);
	} else {
		ret = rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_UNSUPPORTED, "live attach of device '%s' is not supported",
				    dom_device_name(c->dev.kind));
		change_free(c);
		return ret;
	}
	/* The machine opens nothing: it gets what the command names before the command. */
	if (!q || !confine_files_send(&files, q))
		json_decref(args);
	else if (qmp_send(q, c->dev.kind == DOM_DEV_DISK ? "blockdev-add" : "netdev_add", args, backed, c))
		return RPC_LATER;
	confine_files_close(&files);
	change_free(c);
	return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_FAILED, "domain is no longer running");
}

/* Put `dev` into `def`, which takes it. */
static int put(struct change *c, struct domain *def, struct domain_device *dev)
{
	struct err err = ERR_INIT;

	if (!domain_device_attach(def, dev, &c->guest->daemon->caps, &err))
		return 0;
	return call_fail_model(c->call, &err);
}

static int attach(struct rpc_call *call, struct guest *g, const char *xml, uint32_t flags)
{
	const struct domain_caps *caps = &g->daemon->caps;
	struct domain_device dev = { 0 }, copy = { 0 };
	struct err err = ERR_INIT;
	struct dom_info *info;
	struct change *c;
	bool live, config;
	int ret = 0;

	if (call_check_flags(call, flags, AFFECT_LIVE | AFFECT_CONFIG) || call_affect(call, g, flags, &live, &config))
		return -1;
	c = change_new(call, g, live, config);
	if (!c)
		return call_fail_memory(call);
	if (domain_device_parse(xml, 0, config ? g->config : g->live, caps, &dev, &err)) {
		change_free(c);
		return call_fail_model(call, &err);
	}
	if (config && live && domain_device_copy(&dev, &copy))
		ret = call_fail_memory(call);
	if (!ret && config)
		ret = put(c, c->config, live ? &copy : &dev);
	if (!ret && live) {
		c->dev = dev; /* the pointer stays good: live takes the struct itself */
		ret = put(c, c->live, &dev);
		if (!ret && domain_fill_aliases(c->live, &err))
			ret = call_fail_model(call, &err);
		info = ret ? NULL : domain_device_info(&c->dev);
		if (!ret && (!info || !info->alias || !(c->alias = strdup(info->alias))))
			ret = call_fail_memory(call);
	}
	domain_device_free(&dev);
	domain_device_free(&copy);
	if (!ret && live)
		return plug(c);
	if (!ret)
		ret = commit(c);
	change_free(c);
	return ret;
}

/* ---- Out ------------------------------------------------------------------- */

static void forget_unplug(struct change *c)
{
	struct change **p = &unplugs;

	while (*p && *p != c)
		p = &(*p)->next;
	if (*p)
		*p = c->next;
}

/* The guest has not answered: the device may still go, or stay. The call has done its part. */
static void unplug_late(void *opaque)
{
	struct change *c = opaque;

	forget_unplug(c);
	finish(c, 0);
}

static void unplug_sent(void *opaque, json_t *ret, const char *error)
{
	struct change *c = opaque;

	if (!c->call) { /* it went before the answer came */
		change_free(c);
		return;
	}
	if (!ret) {
		forget_unplug(c);
		finish(c, fail_command(c, "device_del", error));
		return;
	}
	c->timer = timer_new(c->guest->daemon->loop, unplug_late, c);
	if (c->timer)
		timer_arm(c->timer, monotonic_ns() + UNPLUG_NS);
	else
		unplug_late(c);
}

/* Take the device with that alias out of the live definition. */
static bool take_out(struct guest *g, const char *alias, char node[80], enum dom_device_kind *kind)
{
	struct domain_device found;

	if (!g->live || domain_device_find_alias(g->live, alias, &found, NULL) || domain_device_detach(g->live, &found, NULL))
		return false;
	*kind = found.kind;
	snprintf(node, 80, found.kind == DOM_DEV_DISK ? "%.60s-node" : "host%.60s", alias);
	domain_device_free(&found);
	return true;
}

void devices_deleted(struct guest *g, const char *alias)
{
	struct qmp *q = guest_monitor(g);
	enum dom_device_kind kind;
	struct change *c = unplugs;
	char node[80];

	/* The name is the machine's word; the second message, by path, has none. */
	if (!alias || !take_out(g, alias, node, &kind))
		return;
	if (q && kind == DOM_DEV_DISK)
		qmp_send(q, "blockdev-del", json_pack("{s:s}", "node-name", node), NULL, NULL);
	if (q && kind == DOM_DEV_INTERFACE)
		qmp_send(q, "netdev_del", json_pack("{s:s}", "id", node), NULL, NULL);
	store_save_live(g);
	event_device_removed(g, alias);
	while (c && (c->guest != g || strcmp(c->alias, alias)))
		c = c->next;
	if (!c)
		return;
	forget_unplug(c);
	if (c->timer) {
		finish(c, commit(c));
	} else {
		struct rpc_call *call = c->call;
		int ret = commit(c);

		c->call = NULL;
		guest_finish(call, g, ret);
	}
}

void devices_unplug_failed(struct guest *g, const char *alias)
{
	struct change *c = unplugs;

	if (!alias)
		return;
	event_device_removal_failed(g, alias);
	while (c && (c->guest != g || strcmp(c->alias, alias)))
		c = c->next;
	if (!c || !c->timer)
		return;
	forget_unplug(c);
	finish(c, rpc_call_fail(c->call, VIR_FROM_QEMU, VIR_ERR_OPERATION_FAILED,
				"unable to execute QEMU command 'device_del': the guest refuses to let the device '%s' go", alias));
}

static struct dom_chr *channel_by_alias(const struct domain *def, const char *alias)
{
	for (unsigned n = 0; n < def->devices->channel.n; n++)
		if (def->devices->channel.v[n]->info.alias && !strcmp(def->devices->channel.v[n]->info.alias, alias))
			return def->devices->channel.v[n];
	return NULL;
}

/* virConnectDomainEventAgentLifecycleState, ...Reason */
enum { AGENT_CONNECTED = 1, AGENT_DISCONNECTED = 2, AGENT_REASON_CHANNEL = 2 };

void devices_port_change(struct guest *g, const char *alias, bool open)
{
	struct dom_chr *chr = alias ? channel_by_alias(g->live, alias) : NULL;
	char *state = chr && chr->target ? strdup(open ? "connected" : "disconnected") : NULL;

	if (!state)
		return;
	free(chr->target->state);
	chr->target->state = state;
	store_save_live(g);
	if (chr->target->name && !strcmp(chr->target->name, AGENT_CHANNEL)) {
		if (!open)
			guest_agent_gone(g);
		event_agent(g, open ? AGENT_CONNECTED : AGENT_DISCONNECTED, AGENT_REASON_CHANNEL);
	}
}

void devices_tray_moved(struct guest *g, const char *alias, bool open)
{
	struct dom_disk *disk = alias ? disk_by_alias(g->live, alias) : NULL;
	char *tray = disk ? strdup(open ? "open" : "closed") : NULL;

	if (!tray)
		return;
	free(disk->target->tray);
	disk->target->tray = tray;
	store_save_live(g);
	event_tray_change(g, alias, open);
}

/* What `dev` means in `def`, taken out of it. */
static int remove_from(struct rpc_call *call, struct domain *def, const struct domain_device *dev, const char *alias)
{
	struct domain_device found;
	struct err err = ERR_INIT;
	int ret = alias ? domain_device_find_alias(def, alias, &found, &err) : domain_device_find(def, dev, &found, &err);

	if (!ret)
		ret = domain_device_detach(def, &found, &err);
	if (ret)
		return call_fail_model(call, &err);
	domain_device_free(&found);
	return 0;
}

/* By description, or by alias if that isn't NULL. */
static int detach(struct rpc_call *call, struct guest *g, const struct domain_device *dev, const char *alias, uint32_t flags)
{
	struct domain_device found = { 0 };
	struct err err = ERR_INIT;
	struct dom_info *info;
	bool live, config;
	struct change *c;
	struct qmp *q = guest_monitor(g);
	int ret = 0;

	if (call_affect(call, g, flags, &live, &config))
		return -1;
	c = change_new(call, g, false, config);
	if (!c)
		return call_fail_memory(call);
	if (config)
		ret = remove_from(call, c->config, dev, alias);
	if (!ret && live)
		ret = alias ? domain_device_find_alias(g->live, alias, &found, &err) : domain_device_find(g->live, dev, &found, &err);
	if (err.code)
		ret = call_fail_model(call, &err);
	if (!ret && live) {
		info = domain_device_info(&found);
		if ((found.kind != DOM_DEV_DISK && found.kind != DOM_DEV_INTERFACE) || !info || !info->alias)
			ret = rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_UNSUPPORTED,
					    "live detach of device '%s' is not supported", dom_device_name(found.kind));
		else if (!(c->alias = strdup(info->alias)))
			ret = call_fail_memory(call);
	}
	if (!ret && live) {
		c->next = unplugs;
		unplugs = c;
		if (q && qmp_send(q, "device_del", json_pack("{s:s}", "id", c->alias), unplug_sent, c))
			return RPC_LATER;
		forget_unplug(c);
		ret = rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_FAILED, "domain is no longer running");
	}
	if (!ret)
		ret = commit(c);
	change_free(c);
	return ret;
}

static int detach_xml(struct rpc_call *call, struct guest *g, const char *xml, uint32_t flags)
{
	struct domain_device dev = { 0 };
	struct err err = ERR_INIT;
	bool live, config;
	int ret;

	if (call_check_flags(call, flags, AFFECT_LIVE | AFFECT_CONFIG) || call_affect(call, g, flags, &live, &config))
		return -1;
	if (domain_device_parse(xml, DOMAIN_PARSE_SKIP_CHECK, config ? g->config : g->live, &g->daemon->caps, &dev, &err))
		return call_fail_model(call, &err);
	ret = detach(call, g, &dev, NULL, flags);
	domain_device_free(&dev);
	return ret;
}

/* ---- Changed --------------------------------------------------------------- */

static int update_in(struct rpc_call *call, struct guest *g, struct domain *def, struct domain_device *dev)
{
	struct domain_device old;
	struct err err = ERR_INIT;

	if (domain_device_find(def, dev, &old, &err) || domain_device_update(def, &old, dev, &g->daemon->caps, &err))
		return call_fail_model(call, &err);
	return 0;
}

static void updated(void *opaque, json_t *ret, const char *error)
{
	struct change *c = opaque;

	finish(c, ret ? commit(c) : fail_command(c, "set_link", error));
}

/* Of what runs, only a card's link can change. */
static int update_live(struct change *c, const struct domain_device *dev)
{
	const struct dom_interface *new = dev->dev, *old;
	struct qmp *q = guest_monitor(c->guest);
	struct domain_device found;
	struct err err = ERR_INIT;
	bool up;

	if (domain_device_find(c->guest->live, dev, &found, &err))
		return call_fail_model(c->call, &err);
	old = found.dev;
	if (dev->kind != DOM_DEV_INTERFACE || new->type != old->type)
		return rpc_call_fail(c->call, VIR_FROM_QEMU, VIR_ERR_OPERATION_UNSUPPORTED, "live update of device '%s' is not supported",
				     dom_device_name(dev->kind));
	up = !new->link || strcmp(new->link, "down");
	if (q && qmp_send(q, "set_link", json_pack("{s:s,s:b}", "name", old->info.alias, "up", up), updated, c))
		return RPC_LATER;
	return rpc_call_fail(c->call, VIR_FROM_QEMU, VIR_ERR_OPERATION_FAILED, "domain is no longer running");
}

static int update_flags(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_update_device_flags_args *args = call->args;
	struct domain_device dev = { 0 }, copy = { 0 }, probe = { 0 };
	struct err err = ERR_INIT;
	bool live, config;
	struct change *c;
	int ret = 0;

	if (call_check_flags(call, args->flags, AFFECT_LIVE | AFFECT_CONFIG | DEVICE_FORCE) ||
	    call_affect(call, g, args->flags, &live, &config))
		return -1;
	if (domain_device_parse(args->xml, 0, config ? g->config : g->live, &g->daemon->caps, &dev, &err))
		return call_fail_model(call, &err);
	c = change_new(call, g, live, config);
	if (!c || domain_device_copy(&dev, &copy) || domain_device_copy(&dev, &probe))
		ret = call_fail_memory(call);
	if (!ret && config)
		ret = update_in(call, g, c->config, &dev);
	if (!ret && live)
		ret = update_in(call, g, c->live, &copy);
	if (!ret && live)
		ret = update_live(c, &probe);
	domain_device_free(&dev);
	domain_device_free(&copy);
	domain_device_free(&probe);
	if (ret == RPC_LATER)
		return ret;
	if (!ret)
		ret = commit(c);
	if (c)
		change_free(c);
	return ret;
}

/* ---- Calls ----------------------------------------------------------------- */

static int attach_plain(struct rpc_call *call, struct guest *g)
{
	return attach(call, g, ((struct remote_domain_attach_device_args *)call->args)->xml, AFFECT_LIVE);
}

static int attach_flags(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_attach_device_flags_args *args = call->args;

	return attach(call, g, args->xml, args->flags);
}

static int detach_plain(struct rpc_call *call, struct guest *g)
{
	return detach_xml(call, g, ((struct remote_domain_detach_device_args *)call->args)->xml, AFFECT_LIVE);
}

static int detach_flags(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_detach_device_flags_args *args = call->args;

	return detach_xml(call, g, args->xml, args->flags);
}

static int detach_alias(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_detach_device_alias_args *args = call->args;

	if (call_check_flags(call, args->flags, AFFECT_LIVE | AFFECT_CONFIG))
		return -1;
	return detach(call, g, NULL, args->alias, args->flags);
}

static int block_resize(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_block_resize_args *args = call->args;
	const struct dom_disk *disk = disk_by_target(g->live, args->disk);
	uint64_t size = args->size;

	if (call_check_flags(call, args->flags, 3)) /* BYTES, CAPACITY */
		return -1;
	if (!disk)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "invalid path: %s", args->disk);
	if (!(args->flags & 1)) {
		if (size > UINT64_MAX / 1024)
			return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OVERFLOW, "size must be less than %llu", UINT64_MAX / 1024ull);
		size *= 1024;
	}
	return guest_qmp(call, g, "block_resize",
			 json_pack("{s:s,s:I}", "device", disk->info.alias ? disk->info.alias : "", "size", (json_int_t)size), NULL);
}

const struct guest_binding device_bindings[] = {
	{ NULL, REMOTE_PROC_DOMAIN_ATTACH_DEVICE, attach_plain, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_ATTACH_DEVICE_FLAGS, attach_flags, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_DETACH_DEVICE, detach_plain, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_DETACH_DEVICE_FLAGS, detach_flags, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_DETACH_DEVICE_ALIAS, detach_alias, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_UPDATE_DEVICE_FLAGS, update_flags, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_BLOCK_RESIZE, block_resize, GUEST_JOB | GUEST_ACTIVE },
	{ 0 },
};
