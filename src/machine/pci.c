/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/pci.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine/pci_int.h"

/* ---- Topology ------------------------------------------------------------ */

static struct pci_bus *bus_alloc(struct pci_host *host, struct pci_device *port, unsigned slots, struct err *err)
{
	struct pci_bus *bus = calloc(1, sizeof(*bus) + slots * sizeof(bus->dev[0]));

	if (!bus) {
		err_set(err, ENOMEM, "no memory for a PCI bus");
		return NULL;
	}
	bus->host = host;
	bus->port = port;
	bus->slots = slots;
	return bus;
}

struct pci_bus *pci_root_bus(struct machine *m)
{
	return m->pci->root;
}

struct pci_bus *pci_bus_new(struct pci_device *port, struct err *err)
{
	struct pci_host *host = port->bus->host;
	struct pci_bus *bus = bus_alloc(host, port, 8, err), **p;

	if (!bus)
		return NULL;
	pthread_mutex_lock(&host->lock);
	for (p = &host->buses; *p; p = &(*p)->next)
		;
	*p = bus;
	pthread_mutex_unlock(&host->lock);
	return bus;
}

void pci_bus_free(struct pci_bus *bus)
{
	struct pci_bus **p;

	if (!bus)
		return;
	pthread_mutex_lock(&bus->host->lock);
	for (p = &bus->host->buses; *p != bus; p = &(*p)->next)
		;
	*p = bus->next;
	pthread_mutex_unlock(&bus->host->lock);
	free(bus);
}

bool pci_bus_is_root(const struct pci_bus *bus)
{
	return !bus->port;
}

struct pci_device *pci_bus_child(const struct pci_bus *bus, unsigned devfn)
{
	return devfn < bus->slots ? bus->dev[devfn] : NULL;
}

void pci_bus_set_hotplug(struct pci_bus *bus,
			 void (*fn)(struct pci_device *port, struct pci_device *child, bool present))
{
	bus->hotplug = fn;
}

struct pci_bus *pci_bus_behind(struct pci_device *port)
{
	for (struct pci_bus *b = port->bus->host->buses; b; b = b->next)
		if (b->port == port)
			return b;
	return NULL;
}

/* The bus that number `nr` reaches from `bus`, which is not its own: down one bridge at a time. */
static struct pci_bus *route_bus(struct pci_bus *bus, unsigned nr)
{
	for (struct pci_bus *b = bus->host->buses; b; b = b->next) {
		const uint8_t *c = b->port->config;

		if (b->port->bus != bus || !b->port->ready || !c[PCI_SECONDARY] || nr < c[PCI_SECONDARY] ||
		    nr > c[PCI_SUBORDINATE])
			continue;
		return nr == c[PCI_SECONDARY] ? b : route_bus(b, nr);
	}
	return NULL;
}

static struct pci_device *find_device(struct pci_host *host, unsigned nr, unsigned devfn)
{
	struct pci_bus *bus = nr ? route_bus(host->root, nr) : host->root;
	struct pci_device *pdev = bus && devfn < bus->slots ? bus->dev[devfn] : NULL;

	return pdev && pdev->ready ? pdev : NULL;
}

static void for_each(struct pci_bus *bus, unsigned nr, void (*fn)(struct pci_device *, unsigned, void *), void *opaque)
{
	for (unsigned i = 0; i < bus->slots; i++) {
		struct pci_device *pdev = bus->dev[i];
		struct pci_bus *below;

		if (!pdev || !pdev->ready)
			continue;
		fn(pdev, nr, opaque);
		below = pci_is_bridge(pdev) ? pci_bus_behind(pdev) : NULL;
		if (below)
			for_each(below, pdev->config[PCI_SECONDARY], fn, opaque);
	}
}

void pci_for_each(struct machine *m, void (*fn)(struct pci_device *pdev, unsigned bus_nr, void *opaque), void *opaque)
{
	if (m->pci)
		for_each(m->pci->root, 0, fn, opaque);
}

/* ---- Configuration accesses ---------------------------------------------- */

static bool touches(unsigned offset, unsigned size, unsigned first, unsigned last)
{
	return offset <= last && offset + size > first;
}

void pci_config_read(struct pci_device *pdev, unsigned offset, void *data, unsigned size)
{
	pthread_mutex_lock(&pdev->dev.lock);
	if (pdev->config_reading)
		pdev->config_reading(pdev, offset, size);
	memcpy(data, pdev->config + offset, size);
	pthread_mutex_unlock(&pdev->dev.lock);
}

void pci_config_write(struct pci_device *pdev, unsigned offset, const void *data, unsigned size)
{
	struct pci_host *host = pdev->bus->host;
	bool bridge = pci_is_bridge(pdev), command = touches(offset, size, PCI_COMMAND, PCI_COMMAND + 1);
	const uint8_t *bytes = data;
	struct pci_bus *below = NULL;

	pthread_mutex_lock(&pdev->dev.lock);
	for (unsigned i = 0; i < size; i++) {
		unsigned at = offset + i;
		uint8_t w = pdev->wmask[at], clear = pdev->w1c[at] & bytes[i];

		/* Bytes without writable bits may belong to other threads (Interrupt Status). */
		if (w | clear)
			pdev->config[at] = (((pdev->config[at] & ~w) | (bytes[i] & w))) & ~clear;
	}
	if (command || touches(offset, size, PCI_BAR0, PCI_BAR0 + 23) ||
	    touches(offset, size, pci_bar_offset(pdev, 6), pci_bar_offset(pdev, 6) + 3))
		pci_bars_update(pdev);
	if (command)
		pci_intx_update(pdev);
	if (pdev->msix.n && (command || touches(offset, size, pdev->msix.cap + 2, pdev->msix.cap + 3)))
		pci_msix_update(pdev);
	if (bridge && (command || touches(offset, size, PCI_PRIMARY, PCI_IO_HIGH + 3)))
		below = pci_bus_behind(pdev);
	if (pdev->config_written)
		pdev->config_written(pdev, offset, size);
	pthread_mutex_unlock(&pdev->dev.lock);
	if (below)
		pci_bars_update_below(below);
	if (host->retry)
		pci_bars_retry(host);
}

/* One access of 1..4 bytes inside a function's configuration space. */
static uint32_t host_read(struct pci_host *host, unsigned nr, unsigned devfn, unsigned offset, unsigned size)
{
	uint32_t value = UINT32_MAX;
	struct pci_device *pdev;

	if (offset + size > PCI_CONFIG_SIZE)
		return value;
	pthread_mutex_lock(&host->lock);
	pdev = find_device(host, nr, devfn);
	if (pdev)
		pci_config_read(pdev, offset, &value, size);
	pthread_mutex_unlock(&host->lock);
	return value;
}

static void host_write(struct pci_host *host, unsigned nr, unsigned devfn, unsigned offset, uint32_t value,
		       unsigned size)
{
	struct pci_device *pdev;

	if (offset + size > PCI_CONFIG_SIZE)
		return;
	pthread_mutex_lock(&host->lock);
	pdev = find_device(host, nr, devfn);
	if (pdev)
		pci_config_write(pdev, offset, &value, size);
	pthread_mutex_unlock(&host->lock);
}

static uint64_t ecam_read(void *opaque, uint64_t off, unsigned size)
{
	return host_read(opaque, off >> 20, off >> 12 & 0xff, off & 0xfff, size);
}

static void ecam_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	host_write(opaque, off >> 20, off >> 12 & 0xff, off & 0xfff, value, size);
}

static const struct io_ops ecam_ops = { .read = ecam_read, .write = ecam_write, .max = 4 };

/* Configuration mechanism #1 (PCI 3.0 §3.2.2.3.2): CONFIG_ADDRESS takes dwords only, CONFIG_DATA any part of one. */
static uint64_t ports_read(void *opaque, uint64_t off, unsigned size)
{
	struct pci_host *host = opaque;
	uint32_t address = __atomic_load_n(&host->address, __ATOMIC_RELAXED);

	if (off == 0 && size == 4)
		return address;
	if (off == 1 && size == 1 && host->cf9 && host->cf9->read) {
		uint64_t value;

		if (host->cf9_lock)
			pthread_mutex_lock(host->cf9_lock);
		value = host->cf9->read(host->cf9_opaque, 0, 1);
		if (host->cf9_lock)
			pthread_mutex_unlock(host->cf9_lock);
		return value;
	}
	if (off < 4 || off + size > 8 || !(address >> 31))
		return UINT32_MAX;
	return host_read(host, address >> 16 & 0xff, address >> 8 & 0xff, (address & 0xfc) + (off - 4), size);
}

static void ports_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct pci_host *host = opaque;
	uint32_t address = __atomic_load_n(&host->address, __ATOMIC_RELAXED);

	if (off == 0 && size == 4) {
		pci_host_set_address(host->machine, value);
	} else if (off == 1 && size == 1 && host->cf9 && host->cf9->write) {
		if (host->cf9_lock)
			pthread_mutex_lock(host->cf9_lock);
		host->cf9->write(host->cf9_opaque, 0, value, 1);
		if (host->cf9_lock)
			pthread_mutex_unlock(host->cf9_lock);
	} else if (off >= 4 && off + size <= 8 && address >> 31) {
		host_write(host, address >> 16 & 0xff, address >> 8 & 0xff, (address & 0xfc) + (off - 4), value, size);
	}
}

static const struct io_ops ports_ops = { .read = ports_read, .write = ports_write, .max = 4 };

/* ---- Host bridge --------------------------------------------------------- */

int pci_host_init(struct machine *m, struct err *err)
{
	struct pci_host *host = calloc(1, sizeof(*host));
	int ret;

	assert(!m->pci);
	if (!host)
		return err_set(err, ENOMEM, "no memory for the PCI host");
	host->machine = m;
	host->root = bus_alloc(host, NULL, 256, err);
	if (!host->root) {
		free(host);
		return -ENOMEM;
	}
	pthread_mutex_init(&host->lock, NULL);
	pthread_mutex_init(&host->intx_lock, NULL);
	host->ecam = (struct io_range){ .name = "ECAM", .ops = &ecam_ops, .opaque = host };
	host->ports =
		(struct io_range){ .name = "PCI config", .base = 0xcf8, .size = 8, .ops = &ports_ops, .opaque = host };
	m->pci = host;
	ret = bus_add(m->pio, &host->ports, err);
	if (ret)
		pci_host_exit(m);
	return ret;
}

void pci_host_exit(struct machine *m)
{
	struct pci_host *host = m->pci;

	if (!host)
		return;
	assert(!host->buses);
	bus_del(m->pio, &host->ports);
	bus_del(m->mmio, &host->ecam);
	pthread_mutex_destroy(&host->lock);
	pthread_mutex_destroy(&host->intx_lock);
	free(host->root);
	free(host);
	m->pci = NULL;
}

void pci_host_set_ecam(struct machine *m, uint64_t base, uint64_t size)
{
	struct io_range *r = &m->pci->ecam;

	if (r->base == base && r->size == size)
		return;
	bus_del(m->mmio, r);
	r->base = base;
	r->size = size;
	/* Over a BAR or a chip: the guest's doing, the register is then without effect. */
	if (size)
		bus_add(m->mmio, r, NULL);
}

uint32_t pci_host_address(const struct machine *m)
{
	return __atomic_load_n(&m->pci->address, __ATOMIC_RELAXED);
}

void pci_host_set_address(struct machine *m, uint32_t address)
{
	__atomic_store_n(&m->pci->address, address & 0x80fffffcu, __ATOMIC_RELAXED);
}

void pci_host_set_cf9(struct machine *m, const struct io_ops *ops, void *opaque, pthread_mutex_t *lock)
{
	m->pci->cf9_opaque = opaque;
	m->pci->cf9_lock = lock;
	m->pci->cf9 = ops;
}

/* ---- Devices ------------------------------------------------------------- */

static bool slot_free(const struct pci_bus *bus, unsigned devfn)
{
	return devfn < bus->slots && !bus->dev[devfn];
}

/* All functions of one device number are free. */
static bool number_free(const struct pci_bus *bus, unsigned number)
{
	for (unsigned fn = 0; fn < 8; fn++)
		if (!slot_free(bus, number << 3 | fn))
			return false;
	return true;
}

static int choose_slot(struct pci_device *pdev, struct err *err)
{
	struct pci_bus *bus = pdev->bus;
	const char *where = pdev->bus_id ? pdev->bus_id : "PCI bus 0";

	if (pdev->slot != PCI_AUTO) {
		if (pdev->slot >= bus->slots)
			return err_set(err, EINVAL, "%s has no slot %u.%u, its last is %u.7", where, pdev->slot >> 3,
				       pdev->slot & 7, (bus->slots - 1) >> 3);
		if (bus->dev[pdev->slot])
			return err_set(err, EBUSY, "slot %u.%u of %s is taken by %s", pdev->slot >> 3, pdev->slot & 7,
				       where, bus->dev[pdev->slot]->dev.id);
		return 0;
	}
	/* Device 0 of bus 0 is the host bridge's. */
	for (unsigned number = bus->port ? 0 : 1; number < bus->slots >> 3; number++) {
		if (number_free(bus, number)) {
			pdev->slot = number << 3;
			return 0;
		}
	}
	return err_set(err, ENOSPC, "%s has no free slot: plug the device into a root port (bus=)", where);
}

static int find_bus(struct pci_device *pdev, struct err *err)
{
	struct pci_host *host = pdev->dev.machine->pci;

	if (!host)
		return err_set(err, ENODEV, "the machine has no PCI host bridge");
	pdev->bus = pdev->bus_id ? NULL : host->root;
	for (struct pci_bus *b = host->buses; b && !pdev->bus; b = b->next)
		if (!strcmp(b->port->dev.id, pdev->bus_id))
			pdev->bus = b;
	if (!pdev->bus)
		return err_set(err, ENOENT, "there is no root port '%s' to plug it into", pdev->bus_id);
	return 0;
}

int pci_device_init(struct pci_device *pdev, const struct pci_ids *ids, struct err *err)
{
	int ret = find_bus(pdev, err);
	uint8_t *c = pdev->config;

	if (!ret)
		ret = choose_slot(pdev, err);
	if (!ret)
		ret = pci_msix_alloc(pdev, err);
	if (ret)
		return ret;
	pdev->devfn = pdev->slot;
	pdev->cap_end = 0x40;
	pdev->ext_end = 0x100;
	pci_set16(c + PCI_VENDOR, ids->vendor);
	pci_set16(c + PCI_VENDOR + 2, ids->device);
	pci_set32(c + PCI_CLASS_REV, ids->class_rev);
	if (!pci_is_bridge(pdev)) { /* a bridge's realize sets its header type before this call */
		pci_set16(c + PCI_SUBSYSTEM, ids->subvendor);
		pci_set16(c + PCI_SUBSYSTEM + 2, ids->subdevice);
	}
	pci_set16(pdev->wmask + PCI_COMMAND, PCI_CMD_IO | PCI_CMD_MEM | PCI_CMD_MASTER | PCI_CMD_INTX_OFF | 0x140);
	pci_set16(pdev->w1c + PCI_STATUS, 0xf900);
	pdev->wmask[0x0c] = 0xff; /* cache line size */
	pdev->wmask[PCI_INT_LINE] = 0xff;
	pthread_mutex_lock(&pdev->bus->host->lock);
	pdev->bus->dev[pdev->devfn] = pdev;
	pthread_mutex_unlock(&pdev->bus->host->lock);
	return 0;
}

/* Function 0 says whether there are others (PCI 3.0 §6.2.1). */
static void update_multifunction(struct pci_bus *bus, unsigned number)
{
	struct pci_device *first = bus->dev[number << 3];
	bool multi = false;

	for (unsigned fn = 1; fn < 8; fn++)
		multi |= bus->dev[number << 3 | fn] && bus->dev[number << 3 | fn]->ready;
	if (first && multi) {
		first->config[PCI_HEADER] |= PCI_HEADER_MULTI;
		first->config_reset[PCI_HEADER] |= PCI_HEADER_MULTI;
	}
}

void pci_device_ready(struct pci_device *pdev)
{
	struct pci_bus *bus = pdev->bus;

	if (pdev->ready)
		return;
	pthread_mutex_lock(&bus->host->lock);
	memcpy(pdev->config_reset, pdev->config, PCI_CONFIG_SIZE);
	pdev->ready = true;
	update_multifunction(bus, pdev->devfn >> 3);
	pthread_mutex_unlock(&bus->host->lock);
	if (bus->hotplug)
		bus->hotplug(bus->port, pdev, true);
}

void pci_device_exit(struct pci_device *pdev)
{
	struct pci_bus *bus = pdev->bus;

	if (!bus || bus->dev[pdev->devfn] != pdev)
		return; /* init failed */
	if (bus->hotplug && pdev->ready)
		bus->hotplug(bus->port, pdev, false);
	pthread_mutex_lock(&bus->host->lock);
	pdev->ready = false;
	bus->dev[pdev->devfn] = NULL;
	pci_bars_unmap(pdev);
	pci_intx_reset(pdev);
	if (bus->host->retry)
		pci_bars_retry(bus->host);
	pthread_mutex_unlock(&bus->host->lock);
	pci_msix_free(pdev);
}

void pci_device_reset(struct pci_device *pdev)
{
	pci_device_ready(pdev);
	pci_bars_unmap(pdev);
	pci_intx_reset(pdev);
	memcpy(pdev->config, pdev->config_reset, PCI_CONFIG_SIZE);
	pci_msix_reset(pdev);
}

bool pci_bus_master(const struct pci_device *pdev)
{
	return __atomic_load_n(&pdev->config[PCI_COMMAND], __ATOMIC_RELAXED) & PCI_CMD_MASTER;
}

/* ---- Capabilities -------------------------------------------------------- */

unsigned pci_add_cap(struct pci_device *pdev, uint8_t id, unsigned len)
{
	unsigned at = pdev->cap_end;

	assert(!(len & 3) && at + len <= 0x100 && !pdev->ready);
	memset(pdev->config + at, 0, len);
	pdev->config[at] = id;
	/* First in the list: the order means nothing. */
	pdev->config[at + 1] = pdev->config[PCI_CAPS];
	pdev->config[PCI_CAPS] = at;
	pdev->config[PCI_STATUS] |= PCI_STATUS_CAPS;
	pdev->cap_end = at + len;
	return at;
}

unsigned pci_add_ext_cap(struct pci_device *pdev, uint16_t id, uint8_t version, unsigned len)
{
	unsigned at = pdev->ext_end, prev = 0x100;

	assert(!(len & 3) && at + len <= PCI_CONFIG_SIZE && !pdev->ready);
	memset(pdev->config + at, 0, len);
	pci_set32(pdev->config + at, id | version << 16);
	/* The list begins at 0x100: append. */
	while (at != 0x100 && pci_get32(pdev->config + prev) >> 20)
		prev = pci_get32(pdev->config + prev) >> 20;
	if (at != 0x100)
		pci_set32(pdev->config + prev, (pci_get32(pdev->config + prev) & 0xfffff) | (uint32_t)at << 20);
	pdev->ext_end = at + len;
	return at;
}

/* PCI Express capability (PCIe 4.0 §7.5.3), version 2. */
enum {
	EXP_FLAGS = 2,
	EXP_DEVCAP = 4,
	EXP_DEVCTL = 8,
	EXP_DEVSTA = 10,
	EXP_LNKCAP = 12,
	EXP_LNKCTL = 16,
	EXP_LNKSTA = 18,
	EXP_DEVCTL2 = 40,
	EXP_LNKCAP2 = 44,
	EXP_LNKCTL2 = 48,
	EXP_SIZE = 60
};
#define EXP_ROOT_PORT 4
#define EXP_INTEGRATED 9

unsigned pci_add_express(struct pci_device *pdev, unsigned port_type)
{
	unsigned at = pci_add_cap(pdev, 0x10, EXP_SIZE);
	uint8_t *c = pdev->config + at, *w = pdev->wmask + at;

	pci_set16(c + EXP_FLAGS, 2 | port_type << 4);
	pci_set32(c + EXP_DEVCAP, 1u << 15); /* role-based error reporting, payload of 128 bytes */
	pci_set16(w + EXP_DEVCTL, 0x781f);   /* error reporting, relaxed ordering, no snoop, read request size */
	pci_set16(c + EXP_DEVCTL, 0x2810);   /* the defaults of §7.5.3.4 */
	pci_set16(pdev->w1c + at + EXP_DEVSTA, 0x000f);
	if (port_type != EXP_INTEGRATED) {
		/* 16 GT/s, 16 lanes: nobody waits for this link. */
		pci_set32(c + EXP_LNKCAP, 4 | 16 << 4 | (port_type == EXP_ROOT_PORT ? 1u << 20 : 0));
		pci_set16(w + EXP_LNKCTL, 0x00c0 | (port_type == EXP_ROOT_PORT ? 0x0010 : 0));
		pci_set16(c + EXP_LNKSTA, 4 | 16 << 4);
		pci_set32(c + EXP_LNKCAP2, 0x1e);
		pci_set16(c + EXP_LNKCTL2, 4);
		pci_set16(w + EXP_LNKCTL2, 0x000f);
	}
	return at;
}

/* ---- State --------------------------------------------------------------- */

/* The guest's bits come from the stream, everything else is what this device is. */
static int pci_loaded(void *obj, struct err *err)
{
	struct pci_device *pdev = obj;
	static const uint8_t identity[] = { 0, 1, 2, 3, 9, 10, 11, PCI_HEADER };
	bool same = true;

	for (unsigned i = 0; i < sizeof(identity); i++)
		same &= pdev->config[identity[i]] == pdev->config_reset[identity[i]];
	if (!same) {
		memcpy(pdev->config, pdev->config_reset, PCI_CONFIG_SIZE);
		pci_bars_unmap(pdev);
		return err_set(err, EINVAL, "it is that of another PCI device than %04x:%04x",
			       pci_get16(pdev->config_reset), pci_get16(pdev->config_reset + 2));
	}
	for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
		uint8_t guest = pdev->wmask[i] | pdev->w1c[i];

		pdev->config[i] = (pdev->config[i] & guest) | (pdev->config_reset[i] & ~guest);
	}
	pci_bars_update(pdev);
	pci_intx_update(pdev);
	return pci_msix_loaded(pdev, err);
}

static const struct state_field pci_fields[] = {
	STATE_FIELD_BYTES(struct pci_device, config),
	STATE_FIELD_BOOL(struct pci_device, intx),
	STATE_FIELD_STRUCT(struct pci_device, msix, &pci_msix_state),
	STATE_END,
};
const struct state_desc pci_device_state = {
	.name = "pci", .version = 1, .fields = pci_fields, .post_load = pci_loaded
};
