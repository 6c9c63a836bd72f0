/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Plugging devices in and out: from the command line, and from QMP while the
 * guest runs. A PCI device goes behind a root port; taking it out presses the
 * slot's attention button, and the device goes when the guest has cut the
 * slot's power (PCI Express 4.0 §6.7.1), or with the next reset.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/classes.h"
#include "device/disk.h"
#include "device/root_port.h"
#include "device/virtio_scsi.h"
#include "machine/pci.h"
#include "util/log.h"
#include "vmm/iothread.h"
#include "vmm/objects.h"
#include "vmm/vmm.h"

struct vmm_plug *vmm_plug_find(struct vmm *v, const char *device_id)
{
	for (struct vmm_plug *p = v->plugs; p; p = p->next)
		if (!strcmp(p->dev->id, device_id))
			return p;
	return NULL;
}

/* ---- Where devices are ------------------------------------------------------ */

struct pci_search {
	struct device *dev;
	struct pci_device *found;
};

static void compare_pci(struct pci_device *pdev, unsigned bus, void *opaque)
{
	struct pci_search *s = opaque;

	if (&pdev->dev == s->dev)
		s->found = pdev;
}

/* NULL: it is none. */
static struct pci_device *as_pci(struct device *d)
{
	struct pci_search s = { .dev = d };

	pci_for_each(d->machine, compare_pci, &s);
	return s.found;
}

static bool has_prop(const struct device_class *cls, const char *name, enum prop_type type)
{
	for (const struct property *p = cls->props; p && p->name; p++)
		if (p->type == type && !strcmp(p->name, name))
			return true;
	return false;
}

static struct device *free_port(struct vmm *v)
{
	for (struct device *d = v->machine->devices; d; d = d->next)
		if (!strcmp(d->cls->name, ROOT_PORT_CLASS) && !root_port_child(d))
			return d;
	return NULL;
}

/* Before the guest has run, or when only a reset lets it run again, a device may go anywhere. */
static bool is_cold(const struct vmm *v)
{
	return v->machine->state == MACHINE_PRELAUNCH || v->machine->state == MACHINE_ENDED;
}

/* ---- Properties -------------------------------------------------------------- */

static int parse_part(const char **p, unsigned max, unsigned *value)
{
	char *end;
	unsigned long n = strtoul(*p, &end, 16);

	if (end == *p || **p == '-' || **p == '+' || n > max)
		return -EINVAL;
	*value = n;
	*p = end;
	return 0;
}

/* "SLOT[.FUNCTION]", hexadecimal as QEMU's, to a device number * 8 + function. */
static int set_addr(struct device *d, const char *text, struct err *err)
{
	const char *p = text;
	unsigned slot, function = 0;
	char number[16];
	int ret = parse_part(&p, 31, &slot);

	if (!ret && *p == '.') {
		p++;
		ret = parse_part(&p, 7, &function);
	}
	if (ret || *p)
		return err_set(err, EINVAL, "addr '%.40s' is not of the form SLOT[.FUNCTION]", text);
	snprintf(number, sizeof(number), "%u", slot << 3 | function);
	return device_set(d, "addr", number, err);
}

static int set_drive(struct vmm *v, struct vmm_plug *p, const char *name, struct err *err)
{
	struct vmm_node *n = vmm_node_find(v, name);
	int ret;

	if (!n)
		return err_set(err, ENOENT, "Property '%s.drive' can't find value '%.80s'", p->dev->cls->name, name);
	if (p->node)
		return err_set(err, EINVAL, "property drive is given twice");
	ret = vmm_node_get(v, n, err);
	if (ret)
		return ret;
	p->node = n;
	device_set_ptr(p->dev, "drive", n->block);
	if (n->ignore_discard && has_prop(p->dev->cls, "discard", PROP_BOOL))
		return device_set(p->dev, "discard", "off", err);
	return 0;
}

static int set_netdev(struct vmm *v, struct vmm_plug *p, const char *name, struct err *err)
{
	struct vmm_net *n = vmm_net_find(v, name);

	if (!n)
		return err_set(err, ENOENT, "Property '%s.netdev' can't find value '%.80s'", p->dev->cls->name, name);
	if (n->user || p->net)
		return err_set(err, EBUSY, "Property '%s.netdev' can't take value '%.80s', it's in use", p->dev->cls->name, name);
	p->net = n;
	device_set_ptr(p->dev, "netdev", n->netdev);
	return 0;
}

static int set_chardev(struct vmm *v, struct vmm_plug *p, const char *key, const char *name, struct err *err)
{
	struct vmm_chardev *c = vmm_chardev_find(v, name);

	if (!c)
		return err_set(err, ENOENT, "Property '%s.%s' can't find value '%.80s'", p->dev->cls->name, key, name);
	device_set_ptr(p->dev, key, c->chardev); /* a device refuses one that has a front end */
	return 0;
}

/* ---- Threads of disks --------------------------------------------------------- */

static int take_iothread(struct vmm *v, struct vmm_plug *p, const char *id, unsigned *lane, struct err *err)
{
	struct vmm_object *o = vmm_object_find(v, id, OBJECT_IOTHREAD, err);

	if (!o)
		return -ENOENT;
	if (!p->loops && !(p->loops = calloc(1, sizeof(*p->loops))))
		return err_set(err, ENOMEM, "no memory for a device");
	for (*lane = 0; *lane < p->loops->n; ++*lane)
		if (p->iothread[*lane] == o)
			return 0;
	if (*lane == DISK_QUEUES)
		return err_set(err, EINVAL, "more than %u iothreads can't serve one disk", DISK_QUEUES);
	o->users++;
	p->iothread[*lane] = o;
	p->loops->loop[*lane] = iothread_loop(o->iothread);
	p->loops->n++;
	device_set_ptr(p->dev, "loops", p->loops);
	return 0;
}

/* "ID[:ID]...": the queues go round them. */
static int set_iothreads(struct vmm *v, struct vmm_plug *p, const char *text, struct err *err)
{
	unsigned lane, queue = 0;

	for (const char *at = text; *at;) {
		size_t len = strcspn(at, ":");
		char id[64];
		int ret;

		snprintf(id, sizeof(id), "%.*s", (int)len, at);
		ret = take_iothread(v, p, id, &lane, err);
		if (ret)
			return ret;
		at += len + (at[len] == ':');
	}
	while (p->loops && queue < DISK_QUEUES) {
		p->loops->lane[queue] = queue % p->loops->n;
		queue++;
	}
	return p->loops ? 0 : err_set(err, EINVAL, "property iothread names none");
}

/* QEMU's iothread-vq-mapping: [{"iothread": ID, "vqs": [QUEUE...]}...], with "vqs" in all or in none. */
static int set_mapping(struct vmm *v, struct vmm_plug *p, const char *text, struct err *err)
{
	json_t *list = json_loads(text, 0, NULL), *item, *number;
	size_t i, j, listed = 0;
	bool seen[DISK_QUEUES] = { 0 };
	unsigned lane;
	int ret = json_array_size(list) ? 0 : err_set(err, EINVAL, "iothread-vq-mapping is not a list with iothreads");

	json_array_foreach(list, i, item) {
		const char *id = json_string_value(json_object_get(item, "iothread"));
		json_t *vqs = json_object_get(item, "vqs");

		if (!ret && !id)
			ret = err_set(err, EINVAL, "iothread-vq-mapping: 'iothread' is missing");
		if (!ret)
			ret = take_iothread(v, p, id, &lane, err);
		listed += vqs != NULL;
		json_array_foreach(vqs, j, number) {
			json_int_t n = json_is_integer(number) ? json_integer_value(number) : -1;

			if (!ret && (n < 0 || n >= DISK_QUEUES || seen[n]))
				ret = err_set(err, EINVAL, "iothread-vq-mapping: queue %lld is none, or is listed twice", (long long)n);
			if (ret)
				break;
			seen[n] = true;
			p->loops->lane[n] = lane;
		}
	}
	if (!ret && listed && listed != json_array_size(list))
		ret = err_set(err, EINVAL, "iothread-vq-mapping: 'vqs' must be given for all iothreads or for none");
	for (unsigned q = 0; !ret && !listed && q < DISK_QUEUES; q++)
		p->loops->lane[q] = q % p->loops->n;
	json_decref(list);
	return ret;
}

static void drop_iothreads(struct vmm_plug *p)
{
	for (unsigned i = 0; p->loops && i < p->loops->n; i++)
		p->iothread[i]->users--;
	free(p->loops);
}

static int set_prop(struct vmm *v, struct vmm_plug *p, const char *key, const char *value, bool *placed, struct err *err)
{
	const struct device_class *cls = p->dev->cls;
	bool pci = has_prop(cls, "addr", PROP_U32);

	if (!strcmp(key, "drive") && has_prop(cls, key, PROP_PTR))
		return set_drive(v, p, value, err);
	if (!strcmp(key, "iothread") && has_prop(cls, "loops", PROP_PTR))
		return p->loops ? err_set(err, EINVAL, "property iothread is given twice") : set_iothreads(v, p, value, err);
	if (!strcmp(key, "iothread-vq-mapping") && has_prop(cls, "loops", PROP_PTR))
		return p->loops ? err_set(err, EINVAL, "iothread and iothread-vq-mapping exclude each other") : set_mapping(v, p, value, err);
	if (!strcmp(key, "netdev") && has_prop(cls, key, PROP_PTR))
		return set_netdev(v, p, value, err);
	if (!strncmp(key, "chardev", 7) && has_prop(cls, key, PROP_PTR))
		return set_chardev(v, p, key, value, err);
	if (!strcmp(key, "addr") && pci)
		return set_addr(p->dev, value, err);
	if (!strcmp(key, "bus") && pci) {
		*placed = true;
		return strcmp(value, "pcie.0") ? device_set(p->dev, key, value, err) : 0;
	}
	if (!strcmp(key, "host_mtu") && has_prop(cls, "mtu", PROP_U32))
		key = "mtu";
	return device_set(p->dev, key, value, err);
}

/* A running guest looks for newcomers in its slots only. */
static int place(struct vmm *v, struct vmm_plug *p, bool placed, struct err *err)
{
	struct pci_device *pdev = (struct pci_device *)p->dev;
	struct device *port;

	if (is_cold(v) || !has_prop(p->dev->cls, "addr", PROP_U32))
		return 0;
	if (placed && pdev->bus_id) {
		if (pdev->slot != PCI_AUTO && pdev->slot)
			return err_set(err, EINVAL, "a root port has one slot: addr must be 0");
		return device_set(p->dev, "addr", "0", err);
	}
	if (placed)
		return err_set(err, EINVAL, "Bus 'pcie.0' does not support hotplugging: use a root port");
	port = free_port(v);
	if (!port)
		return err_set(err, ENOSPC, "no PCIe slot is free: start the machine with more --root-ports");
	return device_set(p->dev, "bus", port->id, err);
}

/* QMP's IoOperationType and BlockErrorAction. */
static void disk_told(void *opaque, struct device *d, const struct disk_news *news)
{
	static const char *const actions[] = { [DISK_REPORT] = "report", [DISK_IGNORE] = "ignore", [DISK_STOP] = "stop" };
	struct vmm *v = opaque;
	struct vmm_plug *p = vmm_plug_find(v, d->id);
	const struct vmm_node *n = p ? p->node : NULL;

	if (!news->code) {
		vmm_tray_event(v, d);
		return;
	}

	if (!n || !n->name)
		return;
	qmp_event(v->qmp, "BLOCK_IO_ERROR",
		  json_pack("{s:s,s:s,s:s,s:s,s:b,s:s}", "device", n->own ? n->name : "", "node-name", n->name, "operation",
			    news->write ? "write" : "read", "action", actions[news->action], "nospace", news->code == ENOSPC,
			    "reason", strerror(news->code)));
	if (news->action == DISK_STOP && v->machine->state == MACHINE_RUNNING) {
		v->io_error = true;
		log_line(LOG_ERROR, "%s: stopped, since %s of %s failed: %s; it can be continued when that is repaired",
			 v->options->name, news->write ? "a write" : "a read", n->path, strerror(news->code));
		vmm_stop(v);
	}
}

/* ---- In ------------------------------------------------------------------------ */

static void plug_free(struct vmm *v, struct vmm_plug *p)
{
	if (p->node)
		vmm_node_put(v, p->node);
	if (p->net) {
		p->net->user = NULL;
		if (p->net->own)
			vmm_net_del(v, p->net->id, NULL);
	}
	drop_iothreads(p);
	free(p);
}

/* --place: for a device that another option makes. */
static int set_place(struct vmm *v, struct vmm_plug *p, bool *placed, struct err *err)
{
	const struct vmm_options *o = v->options;
	const char *id = p->dev->id;
	size_t len = strlen(id);
	char bus[64];

	for (unsigned i = 0; i < o->places; i++) {
		const char *colon = strrchr(o->place[i], ':'), *from = o->place[i] + len + 1;

		if (strncmp(o->place[i], id, len) || o->place[i][len] != '=')
			continue;
		if (!colon || colon <= from || colon - from >= (int)sizeof(bus) || !has_prop(p->dev->cls, "addr", PROP_U32))
			return err_set(err, EINVAL, "--place: '%s' is not of the form ID=BUS:SLOT[.FUNCTION] with the id of a PCI device",
				       o->place[i]);
		snprintf(bus, sizeof(bus), "%.*s", (int)(colon - from), from);
		if (set_prop(v, p, "bus", bus, placed, err) || set_prop(v, p, "addr", colon + 1, placed, err))
			return -err->code;
	}
	return 0;
}

static int fill(struct vmm *v, struct vmm_plug *p, const struct option_pair *pairs, int n, struct err *err)
{
	bool placed = false;
	int ret = is_cold(v) ? set_place(v, p, &placed, err) : 0;

	for (int i = 0; i < n && !ret; i++)
		if (strcmp(pairs[i].key, "driver") && strcmp(pairs[i].key, "id"))
			ret = set_prop(v, p, pairs[i].key, pairs[i].value, &placed, err);
	return ret ? ret : place(v, p, placed, err);
}

int vmm_plug(struct vmm *v, const char *driver, const struct option_pair *pairs, int n, struct err *err)
{
	const struct device_class *cls = device_class_find(driver);
	struct vmm_plug *p, **end = &v->plugs;
	const char *id = NULL;
	int ret;

	if (!cls)
		return err_set(err, ENOENT, "'%.80s' is not a valid device model name", driver);
	if (!is_cold(v) && !has_prop(cls, "addr", PROP_U32) && !has_prop(cls, "scsi-id", PROP_U32))
		return err_set(err, ENOTSUP, "Device '%s' does not support hotplugging", driver);
	for (int i = 0; i < n; i++)
		if (!strcmp(pairs[i].key, "id"))
			id = pairs[i].value;
	p = calloc(1, sizeof(*p));
	if (!p)
		return err_set(err, ENOMEM, "no memory for a device");
	p->dev = device_new(v->machine, cls, id, err);
	if (!p->dev) {
		free(p);
		return -err->code;
	}
	ret = fill(v, p, pairs, n, err);
	if (ret) {
		device_free(p->dev);
	} else {
		machine_hold(v->machine);
		ret = device_realize(p->dev, err); /* which frees it on failure */
		machine_release(v->machine);
	}
	if (ret) {
		plug_free(v, p);
		return ret;
	}
	if (p->net)
		p->net->user = p;
	disk_set_owner(p->dev, disk_told, v);
	/* Tables and resources are made at the first reset: if that was done already, again. */
	if (is_cold(v))
		v->prepared = false;
	while (*end)
		end = &(*end)->next;
	*end = p;
	return 0;
}

/* ---- Out ------------------------------------------------------------------------ */

static void take_out(struct vmm *v, struct device *d)
{
	struct vmm_plug *p, **at = &v->plugs;
	char path[96];
	json_t *data;

	/* What hangs on it goes first. */
	for (struct device *c = v->machine->devices, *next; c; c = next) {
		next = c->next;
		if (scsi_disk_controller(c) == d)
			take_out(v, c);
	}
	while (*at && (*at)->dev != d)
		at = &(*at)->next;
	p = *at;
	if (p)
		*at = p->next;
	if (d == v->balloon) {
		v->balloon = NULL;
		timer_cancel(v->balloon_timer);
	}
	snprintf(path, sizeof(path), "/machine/peripheral/%s", d->id);
	data = json_pack("{s:s,s:s}", "device", d->id, "path", path);
	machine_hold(v->machine);
	device_free(d);
	machine_release(v->machine);
	if (p)
		plug_free(v, p);
	qmp_event(v->qmp, "DEVICE_DELETED", data);
}

static void slot_news(void *opaque, struct device *port, unsigned news)
{
	struct vmm *v = opaque;
	struct device *child = root_port_child(port);
	struct vmm_plug *p = child ? vmm_plug_find(v, child->id) : NULL;
	char path[96];

	if (!child)
		return;
	if (news & ROOT_PORT_OFF && p && p->leaving) {
		take_out(v, child);
	} else if (news & ROOT_PORT_OFF) {
		/* The guest did it for reasons of its own; it finds the device as after power-on. */
		machine_hold(v->machine);
		device_reset(child);
		machine_release(v->machine);
	} else if (p && p->leaving) {
		p->leaving = false;
		log_line(LOG_INFO, "%s: the guest keeps device %s", v->options->name, child->id);
		snprintf(path, sizeof(path), "/machine/peripheral/%s", child->id);
		qmp_event(v->qmp, "DEVICE_UNPLUG_GUEST_ERROR", json_pack("{s:s,s:s}", "device", child->id, "path", path));
	}
}

void vmm_plug_init(struct vmm *v)
{
	for (struct device *d = v->machine->devices; d; d = d->next)
		if (!strcmp(d->cls->name, ROOT_PORT_CLASS))
			root_port_set_owner(d, slot_news, v);
}

/* Everything that has an entry can be asked for; what came with the board's options gets one now. */
static struct vmm_plug *entry(struct vmm *v, struct device *d, struct err *err)
{
	struct vmm_plug *p = vmm_plug_find(v, d->id);

	if (p)
		return p;
	p = calloc(1, sizeof(*p));
	if (!p) {
		err_set(err, ENOMEM, "no memory to unplug device %s", d->id);
		return NULL;
	}
	p->dev = d;
	p->next = v->plugs;
	v->plugs = p;
	return p;
}

int vmm_unplug(struct vmm *v, const char *id, struct err *err)
{
	struct device *d = machine_find(v->machine, id), *port;
	struct pci_device *pdev = d ? as_pci(d) : NULL;
	struct vmm_plug *p;

	if (!d)
		return err_set(err, ENXIO, "Device '%.80s' not found", id);
	/* A SCSI bus has no slots to ask about: the driver is told. */
	if (scsi_disk_controller(d)) {
		take_out(v, d);
		return 0;
	}
	if (!pdev || !strcmp(d->cls->name, ROOT_PORT_CLASS) || strncmp(d->cls->name, "virtio", 6))
		return err_set(err, ENOTSUP, "Device '%s' does not support hotplugging", id);
	if (is_cold(v)) {
		take_out(v, d);
		v->prepared = false;
		return 0;
	}
	if (pci_bus_is_root(pdev->bus))
		return err_set(err, ENOTSUP, "Bus 'pcie.0' does not support hotplugging: only devices behind a root port can be unplugged");
	p = entry(v, d, err);
	if (!p)
		return -err->code;
	if (p->leaving)
		return err_set(err, EINPROGRESS, "Device %s is already in the process of unplug", id);
	port = machine_find(v->machine, pdev->bus_id);
	/* Nobody uses a slot without power. */
	if (!root_port_powered(port)) {
		take_out(v, d);
		return 0;
	}
	p->leaving = true;
	root_port_attention(port);
	return 0;
}

void vmm_plug_reset(struct vmm *v)
{
	struct vmm_plug *next;

	for (struct vmm_plug *p = v->plugs; p; p = next) {
		next = p->next;
		if (p->leaving)
			take_out(v, p->dev);
	}
}

void vmm_plugs_free(struct vmm *v)
{
	while (v->plugs) {
		struct vmm_plug *p = v->plugs;

		v->plugs = p->next;
		plug_free(v, p);
	}
}
