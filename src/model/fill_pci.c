/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where devices sit on PCI, by libvirt's habits for q35: chips of the board on
 * pcie-root; everything else alone behind a root port; root ports eight to a
 * slot; one port free for hot-plug where the user gave none.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/device_tables.h"
#include "model/fill.h"

#define BUSES 256
#define SLOTS 32
#define FUNCTIONS 8
#define LPC_SLOT 31

struct pci_map {
	struct domain *def;
	const struct domain_caps *caps;
	uint8_t used[BUSES][SLOTS]; /* a bit a function */
	bool ports_only[SLOTS];     /* of bus 0 */
	bool bus[BUSES];
	bool user_ports;            /* the definition brought root ports of its own */
};

static bool is_root_port(const struct dom_controller *c)
{
	return c->type == DOM_CONTROLLER_PCI && c->index.value;
}

static bool has_pci_address(const struct dom_info *info)
{
	return info->address && info->address->type == DOM_ADDRESS_PCI && info->address->pci_set;
}

static int reserve(struct pci_map *m, const struct dom_address *a, bool root_port, struct err *err)
{
	uint8_t bit = 1u << a->function, *slot;

	if (a->domain)
		return err_set(err, EINVAL, "Invalid PCI address %04x:%02x:%02x.%x. Only PCI domain 0 is available", a->domain,
			       a->bus, a->slot, a->function);
	if (a->bus >= BUSES || !m->bus[a->bus])
		return err_set(err, EINVAL, "Invalid PCI address %04x:%02x:%02x.%x. there is no bus %u", a->domain, a->bus,
			       a->slot, a->function, a->bus);
	if (a->bus && a->slot)
		return err_set(err, EINVAL, "Invalid PCI address %04x:%02x:%02x.%x. slot must be <= 0", a->domain, a->bus,
			       a->slot, a->function);
	if (!a->bus && !a->slot)
		return err_set(err, EINVAL, "Invalid PCI address %04x:%02x:%02x.%x. slot must be >= 1", a->domain, a->bus,
			       a->slot, a->function);
	slot = &m->used[a->bus][a->slot];
	if (*slot & bit)
		return err_set(err, EINVAL, "Attempted double use of PCI Address %04x:%02x:%02x.%x", a->domain, a->bus,
			       a->slot, a->function);
	if (!a->bus && !root_port)
		m->ports_only[a->slot] = false;
	*slot |= bit;
	return 0;
}

static struct dom_address *set_address(struct dom_info *info, uint32_t bus, uint32_t slot, uint32_t function)
{
	struct dom_address *a = info->address;

	if (!a) {
		a = info->address = calloc(1, sizeof(*a));
		if (!a)
			return NULL;
	}
	a->type = DOM_ADDRESS_PCI;
	a->domain = 0;
	a->bus = bus;
	a->slot = slot;
	a->function = function;
	a->pci_set = true;
	return a;
}

/* The first slot of pcie-root that holds nothing but root ports and has a function left. */
static int place_port(struct pci_map *m, struct dom_controller *c, struct err *err)
{
	for (unsigned slot = 1; slot < LPC_SLOT; slot++) {
		unsigned fn = 0;

		if (m->used[0][slot] && !m->ports_only[slot])
			continue;
		while (fn < FUNCTIONS && m->used[0][slot] >> fn & 1)
			fn++;
		if (fn == FUNCTIONS)
			continue;
		if (!set_address(&c->info, 0, slot, fn))
			return xml_no_memory(err);
		return reserve(m, c->info.address, true, err);
	}
	return err_set(err, EIO, "No more available PCI slots");
}

static int describe_port(struct pci_map *m, struct dom_controller *c, struct err *err)
{
	int ret = has_pci_address(&c->info) ? 0 : place_port(m, c, err);

	if (ret)
		return ret;
	if (!c->model_name)
		c->model_name = strdup("pcie-root-port");
	if (!c->target)
		c->target = calloc(1, sizeof(*c->target));
	if (!c->model_name || !c->target)
		return xml_no_memory(err);
	if (!c->target->chassis.set)
		c->target->chassis = (struct opt32){ c->index.value, true };
	if (!c->target->port.set)
		c->target->port = (struct opt32){ c->info.address->slot << 3 | c->info.address->function, true };
	return 0;
}

static int add_port(struct pci_map *m, unsigned index, struct err *err)
{
	struct dom_controller *c;

	/* A running machine has the ports that it was started with. */
	if (m->def->id.set)
		return err_set(err, EIO, "No more available PCI slots");
	c = calloc(1, sizeof(*c));
	if (!c || !LIST_ADD(&m->def->devices->controller, c)) {
		free(c);
		return xml_no_memory(err);
	}
	c->type = DOM_CONTROLLER_PCI;
	c->index = (struct opt32){ index, true };
	c->model = strdup("pcie-root-port");
	if (!c->model)
		return xml_no_memory(err);
	m->bus[index] = true;
	return describe_port(m, c, err);
}

static unsigned free_bus(const struct pci_map *m)
{
	unsigned bus = 1;

	while (bus < BUSES && m->bus[bus] && m->used[bus][0])
		bus++;
	return bus;
}

static int place_device(struct pci_map *m, struct dom_info *info, struct err *err)
{
	unsigned bus;
	int ret = 0;

	if (has_pci_address(info))
		return 0;
	if (info->address && info->address->type != DOM_ADDRESS_PCI)
		return err_set(err, EINVAL, "a PCI device needs an address of type 'pci', not '%s'",
			       dom_address_type_names[info->address->type]);
	bus = free_bus(m);
	if (bus == BUSES)
		return err_set(err, EIO, "No more available PCI slots");
	if (!m->bus[bus])
		ret = add_port(m, bus, err);
	if (ret)
		return ret;
	if (!set_address(info, bus, 0, 0))
		return xml_no_memory(err);
	return reserve(m, info->address, false, err);
}

/* ---- Which devices are on PCI, in the order in which libvirt places them --- */

static bool on_pci(const struct domain_device *dev)
{
	const struct dom_controller *c = dev->dev;
	const struct dom_disk *disk = dev->dev;
	const struct dom_input *input = dev->dev;
	const struct dom_memballoon *balloon = dev->dev;
	const struct dom_watchdog *watchdog = dev->dev;
	const struct dom_iommu *iommu = dev->dev;

	switch (dev->kind) {
	case DOM_DEV_FILESYSTEM:
	case DOM_DEV_INTERFACE:
	case DOM_DEV_HOSTDEV:
	case DOM_DEV_RNG:
	case DOM_DEV_VSOCK:
		return true;
	case DOM_DEV_CONTROLLER:
		return c->type == DOM_CONTROLLER_SCSI || c->type == DOM_CONTROLLER_VIRTIO_SERIAL ||
		       (c->type == DOM_CONTROLLER_SATA && c->index.value) ||
		       (c->type == DOM_CONTROLLER_USB && (!c->model || strcmp(c->model, "none")));
	case DOM_DEV_DISK:
		return disk->target->bus == DOM_BUS_VIRTIO;
	case DOM_DEV_MEMBALLOON:
		return !strncmp(balloon->model, "virtio", 6);
	case DOM_DEV_INPUT:
		return input->bus == DOM_INPUT_VIRTIO;
	case DOM_DEV_WATCHDOG:
		return !strcmp(watchdog->model, "i6300esb");
	case DOM_DEV_IOMMU:
		return !strcmp(iommu->model, "virtio");
	default:
		return false;
	}
}

static const enum dom_device_kind placing_order[] = {
	DOM_DEV_FILESYSTEM, DOM_DEV_INTERFACE, DOM_DEV_CONTROLLER, DOM_DEV_DISK,  DOM_DEV_HOSTDEV, DOM_DEV_MEMBALLOON,
	DOM_DEV_RNG,	    DOM_DEV_WATCHDOG,  DOM_DEV_IOMMU,	   DOM_DEV_INPUT, DOM_DEV_VSOCK,
};

struct pass {
	struct pci_map *m;
	enum dom_device_kind kind;
	struct err *err;
};

static int reserve_one(const struct domain_device *dev, void *opaque)
{
	struct pass *p = opaque;
	const struct dom_info *info = domain_device_info(dev);

	if (!has_pci_address(info))
		return 0;
	return reserve(p->m, info->address, dev->kind == DOM_DEV_CONTROLLER && is_root_port(dev->dev), p->err);
}

static int place_one(const struct domain_device *dev, void *opaque)
{
	struct pass *p = opaque;

	return dev->kind == p->kind && on_pci(dev) ? place_device(p->m, domain_device_info(dev), p->err) : 0;
}

static int highest_bus(const struct domain_device *dev, void *opaque)
{
	const struct dom_info *info = domain_device_info(dev);
	unsigned *max = opaque;

	if (has_pci_address(info) && info->address->bus > *max && info->address->bus < BUSES)
		*max = info->address->bus;
	return 0;
}

static int place_sata(struct pci_map *m, struct err *err)
{
	const struct dom_devices *d = m->def->devices;

	for (unsigned i = 0; i < d->controller.n; i++) {
		struct dom_controller *c = d->controller.v[i];

		if (c->type != DOM_CONTROLLER_SATA || c->index.value || has_pci_address(&c->info))
			continue;
		if (!set_address(&c->info, 0, LPC_SLOT, 2))
			return xml_no_memory(err);
		return reserve(m, c->info.address, false, err);
	}
	return 0;
}

static int place_ports(struct pci_map *m, struct err *err)
{
	struct dom_devices *d = m->def->devices;
	unsigned max = 0;
	int ret = 0;

	for (unsigned i = 0; i < d->controller.n && !ret; i++)
		if (is_root_port(d->controller.v[i]))
			ret = describe_port(m, d->controller.v[i], err);
	domain_device_each(m->def, highest_bus, &max);
	for (unsigned i = 0; i < d->controller.n; i++)
		if (is_root_port(d->controller.v[i]) && d->controller.v[i]->index.value > max)
			max = d->controller.v[i]->index.value;
	for (unsigned bus = 1; bus <= max && !ret; bus++)
		if (!m->bus[bus])
			ret = add_port(m, bus, err);
	return ret;
}

/* Function 0 of a slot with more functions says so. */
static int mark_multifunction(const struct domain_device *dev, void *opaque)
{
	const struct pci_map *m = opaque;
	const struct dom_info *info = domain_device_info(dev);
	struct dom_address *a = info->address;

	if (has_pci_address(info) && !a->function && !a->multifunction && m->used[a->bus][a->slot] != 1)
		a->multifunction = TRI_YES;
	return 0;
}

static int scan(struct pci_map *m, struct err *err)
{
	struct dom_devices *d = m->def->devices;
	struct pass reserving = { .m = m, .err = err };
	unsigned max = 0;

	m->bus[0] = true;
	m->used[0][LPC_SLOT] = 1 << 0 | 1 << 3; /* the bridge and the SMBus */
	for (unsigned slot = 0; slot < SLOTS; slot++)
		m->ports_only[slot] = slot > 0 && slot < LPC_SLOT;
	for (unsigned i = 0; i < d->controller.n; i++)
		if (is_root_port(d->controller.v[i])) {
			m->bus[d->controller.v[i]->index.value] = true;
			m->user_ports = true;
		}
	/* Buses that addresses name but nobody made yet are made by place_ports(). */
	domain_device_each(m->def, highest_bus, &max);
	if (!m->def->id.set)
		for (unsigned bus = 1; bus <= max; bus++)
			m->bus[bus] = true;
	return domain_device_each(m->def, reserve_one, &reserving);
}

static void forget_missing_buses(struct pci_map *m)
{
	const struct dom_devices *d = m->def->devices;

	memset(m->bus + 1, 0, sizeof(m->bus) - sizeof(m->bus[0]));
	for (unsigned i = 0; i < d->controller.n; i++)
		if (is_root_port(d->controller.v[i]))
			m->bus[d->controller.v[i]->index.value] = true;
}

int domain_fill_pci(struct domain *def, const struct domain_caps *caps, struct err *err)
{
	struct pci_map *m = calloc(1, sizeof(*m));
	int ret;

	if (!m)
		return xml_no_memory(err);
	m->def = def;
	m->caps = caps;
	ret = scan(m, err);
	if (!ret)
		ret = place_sata(m, err);
	forget_missing_buses(m);
	if (!ret)
		ret = place_ports(m, err);
	for (unsigned i = 0; i < sizeof(placing_order) / sizeof(placing_order[0]) && !ret; i++)
		ret = domain_device_each(def, place_one, &(struct pass){ m, placing_order[i], err });
	if (!ret && !m->user_ports && !def->id.set) {
		unsigned bus = free_bus(m);

		if (bus < BUSES && !m->bus[bus])
			ret = add_port(m, bus, err);
	}
	if (!ret)
		domain_device_each(def, mark_multifunction, m);
	free(m);
	return ret;
}
