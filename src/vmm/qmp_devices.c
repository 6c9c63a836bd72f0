/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: devices and networks that come and go. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/virtio_net.h"
#include "machine/pci.h"
#include "vmm/vmm.h"

#define PAIRS 64

/* Properties arrive as JSON values, and are text as on the command line. */
static int pair_from(const char *key, json_t *value, struct option_pair *pair, struct err *err)
{
	char number[32];
	const char *text = json_string_value(value);

	if (json_is_boolean(value))
		text = json_is_true(value) ? "on" : "off";
	if (json_is_integer(value)) {
		snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(value));
		text = number;
	}
	if (!text && !json_is_array(value))
		return err_set(err, EINVAL, "Invalid parameter type for '%.80s', expected: string, integer or boolean", key);
	pair->key = strdup(key);
	pair->value = text ? strdup(text) : json_dumps(value, JSON_COMPACT); /* of lists properties have the text */
	return pair->key && pair->value ? 0 : err_set(err, ENOMEM, "no memory for a device");
}

static json_t *cmd_device_add(struct vmm *v, json_t *args, struct err *err)
{
	const char *driver = qmp_need_text(args, "driver", err), *key;
	struct option_pair pairs[PAIRS] = { 0 };
	int n = 0, ret = 0;
	json_t *value;

	if (!driver)
		return NULL;
	if (v->ended) {
		err_set(err, EPERM, "the machine has ended");
		return NULL;
	}
	json_object_foreach(args, key, value) {
		ret = n == PAIRS ? err_set(err, EINVAL, "a device has at most %d properties", PAIRS)
				 : pair_from(key, value, &pairs[n], err);
		if (ret)
			break;
		n++;
	}
	if (!ret)
		ret = vmm_plug(v, driver, pairs, n, err);
	options_split_free(pairs, n < PAIRS ? n + 1 : n);
	return qmp_done(ret);
}

static json_t *cmd_device_del(struct vmm *v, json_t *args, struct err *err)
{
	const char *id = qmp_need_text(args, "id", err);
	const char *base = id && !strncmp(id, "/machine/peripheral/", 20) ? id + 20 : id;

	return id ? qmp_done(vmm_unplug(v, base, err)) : NULL;
}

static json_t *cmd_netdev_add(struct vmm *v, json_t *args, struct err *err)
{
	return qmp_done(vmm_net_add(v, args, err));
}

static json_t *cmd_netdev_del(struct vmm *v, json_t *args, struct err *err)
{
	const char *id = qmp_need_text(args, "id", err);

	return id ? qmp_done(vmm_net_del(v, id, err)) : NULL;
}

/* By the name of the network or of its card, as QEMU's. */
static json_t *cmd_set_link(struct vmm *v, json_t *args, struct err *err)
{
	const char *name = qmp_need_text(args, "name", err);
	struct vmm_net *net = name ? vmm_net_find(v, name) : NULL;
	struct vmm_plug *p = net ? net->user : name ? vmm_plug_find(v, name) : NULL;

	if (!name)
		return NULL;
	if (!json_is_boolean(json_object_get(args, "up"))) {
		err_set(err, EINVAL, "Parameter 'up' is missing or no boolean");
		return NULL;
	}
	if (!p || !p->net) {
		err_set(err, ENXIO, "Device '%.80s' not found", name);
		return NULL;
	}
	virtio_net_set_link(p->dev, json_is_true(json_object_get(args, "up")));
	return json_object();
}

/* ---- query-pci ------------------------------------------------------------------ */

static json_t *regions_of(struct pci_device *p)
{
	json_t *regions = json_array();

	for (int i = 0; i < 6; i++) {
		struct pci_bar *b = &p->bar[i];
		json_t *r;

		if (!b->size)
			continue;
		r = json_pack("{s:i,s:s,s:I,s:I}", "bar", i, "type", b->io ? "io" : "memory", "size", (json_int_t)b->size, "address",
			      (json_int_t)(b->mapped ? b->range.base : (uint64_t)-1));
		if (!b->io) {
			json_object_set_new(r, "prefetch", json_boolean(b->prefetch));
			json_object_set_new(r, "mem_type_64", json_boolean(b->mem64));
		}
		json_array_append_new(regions, r);
	}
	return regions;
}

static const char *class_name(uint16_t class)
{
	static const struct {
		uint16_t class;
		const char *name;
	} names[] = {
		{ 0x0100, "SCSI controller" }, { 0x0180, "Storage controller" }, { 0x0200, "Ethernet controller" },
		{ 0x0600, "Host bridge" },     { 0x0601, "ISA bridge" },         { 0x0604, "PCI bridge" },
		{ 0x0780, "Class 0780" },
	};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].class == class)
			return names[i].name;
	return "Device";
}

struct pci_walk {
	json_t *devices[256]; /* by bus number */
	json_t *top;
};

static json_t *range(uint64_t base, uint64_t limit)
{
	return json_pack("{s:I,s:I}", "base", (json_int_t)base, "limit", (json_int_t)limit);
}

/* What a bridge says of itself (PCI-to-PCI Bridge 1.2 §3.2.5), and the list its devices go to. */
static json_t *bridge_info(struct pci_device *p, struct pci_walk *w)
{
	const uint8_t *c = p->config;
	json_t *behind = json_array();
	uint64_t pref = (uint64_t)(pci_get16(c + 0x24) & 0xfff0) << 16 | (uint64_t)pci_get32(c + 0x28) << 32;
	uint64_t pref_end = (uint64_t)(pci_get16(c + 0x26) & 0xfff0) << 16 | (uint64_t)pci_get32(c + 0x2c) << 32 | 0xfffff;
	json_t *bus = json_pack("{s:i,s:i,s:i,s:o,s:o,s:o}", "number", c[0x18], "secondary", c[0x19], "subordinate", c[0x1a],
				"io_range", range((c[0x1c] & 0xf0) << 8, (c[0x1d] & 0xf0) << 8 | 0xfff), "memory_range",
				range((uint64_t)(pci_get16(c + 0x20) & 0xfff0) << 16,
				      (uint64_t)(pci_get16(c + 0x22) & 0xfff0) << 16 | 0xfffff),
				"prefetchable_range", range(pref, pref_end));

	if (c[0x19])
		w->devices[c[0x19]] = behind;
	return json_pack("{s:o,s:o}", "bus", bus, "devices", behind);
}

static void pci_one(struct pci_device *p, unsigned bus, void *opaque)
{
	struct pci_walk *w = opaque;
	uint16_t class = pci_get16(p->config + 0x0a);
	bool bridge = (p->config[0x0e] & 0x7f) == 1;
	json_t *id = json_pack("{s:i,s:i}", "vendor", pci_get16(p->config), "device", pci_get16(p->config + 2));
	json_t *d = json_pack("{s:i,s:i,s:i,s:{s:i,s:s},s:o,s:i,s:s,s:o}", "bus", bus, "slot", p->devfn >> 3, "function",
			      p->devfn & 7, "class_info", "class", class, "desc", class_name(class), "id", id, "irq_pin",
			      p->config[0x3d], "qdev_id", p->dev.id, "regions", regions_of(p));

	if (p->config[0x3d])
		json_object_set_new(d, "irq", json_integer(p->config[0x3c]));
	if (bridge)
		json_object_set_new(d, "pci_bridge", bridge_info(p, w));
	else if (pci_get16(p->config + 0x2c) || pci_get16(p->config + 0x2e)) {
		json_object_set_new(id, "subsystem-vendor", json_integer(pci_get16(p->config + 0x2c)));
		json_object_set_new(id, "subsystem", json_integer(pci_get16(p->config + 0x2e)));
	}
	/* A bus that no bridge numbers yet: with those of bus 0, so that it is seen. */
	json_array_append_new(bus < 256 && w->devices[bus] ? w->devices[bus] : w->top, d);
}

static json_t *cmd_pci(struct vmm *v, json_t *args, struct err *err)
{
	struct pci_walk w = { .top = json_array() };

	w.devices[0] = w.top;
	pci_for_each(v->machine, pci_one, &w);
	return json_pack("[{s:i,s:o}]", "bus", 0, "devices", w.top);
}

const struct qmp_command qmp_device_commands[] = {
	{ "device_add", "*", cmd_device_add },
	{ "device_del", "id", cmd_device_del },
	{ "netdev_add", "*", cmd_netdev_add },
	{ "netdev_del", "id", cmd_netdev_del },
	{ "query-pci", "", cmd_pci },
	{ "set_link", "name up", cmd_set_link },
	{ NULL, NULL, NULL },
};
