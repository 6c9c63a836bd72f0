/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PCI and PCI Express: configuration space, BARs, capabilities, MSI-X, INTx.
 * PCI Local Bus 3.0, PCI Express Base 4.0.
 *
 * A PCI device begins with struct pci_device and calls pci_device_init() first
 * and pci_device_exit() last in its realize and unrealize. Configuration
 * accesses hold pdev->dev.lock; BAR accesses hold the lock of the io_range.
 * Lock order: PCI host (topology) -> device -> MSI-X, PCI interrupts -> chips.
 */
#pragma once
#include "machine/machine.h"

#define PCI_CONFIG_SIZE 4096
#define PCI_MAX_MSIX 256

struct pci_bus;
struct pci_host;
struct pci_device;

struct pci_bar {
	uint64_t size;        /* power of two, 0: no BAR */
	bool io, mem64, prefetch;
	struct io_range range; /* ops and opaque are the device's; base follows the BAR */
	bool mapped;
	bool clash; /* something else lies there: tried again when that goes */
	/* It appeared, moved or went (see `mapped`, range.base); the device's lock is held; may be NULL. */
	void (*moved)(struct pci_device *pdev, unsigned n);
};

struct pci_msix_entry {
	uint64_t address;
	uint32_t data, control; /* control bit 0: masked */
};
struct pci_msix {
	unsigned n;             /* vectors, 0: no MSI-X */
	uint16_t cap;           /* offset of the capability */
	struct pci_msix_entry *table;
	uint64_t *pending;      /* bitmap */
	uint32_t table_bytes, pending_bytes;
	bool enabled, masked;   /* MSI-X Enable; Function Mask, or no Bus Master */
	pthread_mutex_t lock;   /* innermost: table, pending, the two above */
	/* Told when a vector's message changes or is (un)masked; may be NULL. */
	void (*changed)(struct pci_device *pdev, unsigned vector);
};

struct pci_device {
	struct device dev; /* first */
	struct pci_bus *bus;
	char *bus_id;      /* property "bus": id of the root port above; NULL: bus 0 */
	uint32_t slot;     /* property "addr" as device number << 3 | function; PCI_AUTO: the next free */
	uint8_t devfn;
	uint8_t config[PCI_CONFIG_SIZE];
	uint8_t wmask[PCI_CONFIG_SIZE]; /* bits the guest may write */
	uint8_t w1c[PCI_CONFIG_SIZE];   /* bits cleared by writing one */
	struct pci_bar bar[7];          /* 6: expansion ROM */
	struct pci_msix msix;
	uint16_t cap_end;               /* next free byte for pci_add_cap() */
	uint16_t ext_end;
	bool intx, intx_out;            /* level driven; level that reached the host's PIRQ */
	bool ready;                     /* config_reset is taken */
	/* A configuration read comes: bring config[] up to date; lock held; may be NULL. */
	void (*config_reading)(struct pci_device *pdev, unsigned offset, unsigned size);
	/* A configuration write happened (after it took effect); lock held; may be NULL. */
	void (*config_written)(struct pci_device *pdev, unsigned offset, unsigned size);
	uint8_t config_reset[PCI_CONFIG_SIZE]; /* image restored by pci_device_reset(), taken by pci_device_ready() */
};
#define PCI_AUTO UINT32_MAX
/* Properties of every PCI device whose struct pci_device is member F of T. */
#define PCI_PROPS(T, F) \
	PROP_DEF_STRING(T, F.bus_id, "bus", NULL, "id of the root port it is plugged into; none: bus 0"), \
	PROP_DEF_U32(T, F.slot, "addr", "4294967295", 0, 0, "device number * 8 + function; the next free one unless given")

struct pci_ids {
	uint16_t vendor, device, subvendor, subdevice;
	uint32_t class_rev; /* class code << 8 | revision */
};

/* Host side: made by the host bridge device. */
int pci_host_init(struct machine *m, struct err *err); /* sets m->pci: ECAM, 0xcf8/0xcfc, bus 0 */
void pci_host_exit(struct machine *m);
struct pci_bus *pci_root_bus(struct machine *m);
/* A bus behind a root port; `port`'s secondary bus number register names it. */
struct pci_bus *pci_bus_new(struct pci_device *port, struct err *err);
void pci_bus_free(struct pci_bus *bus);
bool pci_bus_is_root(const struct pci_bus *bus);
struct pci_device *pci_bus_child(const struct pci_bus *bus, unsigned devfn); /* NULL: empty */
/* Told after a device came to, or before it leaves, the bus behind a port. Main loop's thread. */
void pci_bus_set_hotplug(struct pci_bus *bus, void (*fn)(struct pci_device *port, struct pci_device *child, bool present));
/*
 * INTx pin (0..3) of device number `slot` on bus 0 drives PIRQ (slot + pin) & 7,
 * 0..7 for A..H; behind a port the pin is swizzled (PCI-to-PCI Bridge 1.2
 * §9.1). PIRQ n is wired to GSI 16 + n and, if `route` is set, to the LPC
 * bridge, which sends it to an ISA interrupt. route() is called with the level
 * at each change, under the PCI interrupt lock: it must not call pci_set_intx().
 */
void pci_host_set_route(struct machine *m, void (*route)(void *opaque, unsigned pirq, bool level), void *opaque);
/* Move ECAM (PCIEXBAR); size 64, 128 or 256 MiB, 0: off. From the host bridge's realize, reset or config_written(). */
void pci_host_set_ecam(struct machine *m, uint64_t base, uint64_t size);
/* CONFIG_ADDRESS, for the host bridge's state. */
uint32_t pci_host_address(const struct machine *m);
void pci_host_set_address(struct machine *m, uint32_t address);
/*
 * Port 0xcf9 (reset control) lies inside CONFIG_ADDRESS: byte accesses to it
 * go to ops->read/write with offset 0 under `lock` (may be NULL). A range of
 * its own on the bus would tear dword accesses to 0xcf8 apart.
 */
void pci_host_set_cf9(struct machine *m, const struct io_ops *ops, void *opaque, pthread_mutex_t *lock);

int pci_device_init(struct pci_device *pdev, const struct pci_ids *ids, struct err *err); /* takes the slot: -EBUSY, -ENOSPC */
void pci_device_ready(struct pci_device *pdev); /* at the end of realize: what config[] holds now is what reset restores */
void pci_device_exit(struct pci_device *pdev);
void pci_device_reset(struct pci_device *pdev); /* config space, BARs unmapped, MSI-X cleared; without the device's lock */
extern const struct state_desc pci_device_state; /* for STATE_FIELD_STRUCT(type, pdev, &pci_device_state) */

/* Offset of a new capability of `len` bytes (multiple of 4), config zeroed; asserts that it fits. */
unsigned pci_add_cap(struct pci_device *pdev, uint8_t id, unsigned len);
unsigned pci_add_ext_cap(struct pci_device *pdev, uint16_t id, uint8_t version, unsigned len);
/* PCI Express capability: port type 0 endpoint, 4 root port, 9 root-complex integrated endpoint. */
unsigned pci_add_express(struct pci_device *pdev, unsigned port_type);
void pci_add_bar(struct pci_device *pdev, unsigned n, uint64_t size, bool io, bool mem64, bool prefetch,
		 const struct io_ops *ops, void *opaque, pthread_mutex_t *lock);
/* n vectors, table and PBA in memory BAR `bar` of their own. 0 or -ENOMEM. */
int pci_msix_init(struct pci_device *pdev, unsigned n, unsigned bar, struct err *err);
bool pci_msix_enabled(const struct pci_device *pdev);
/* Send a vector: now, or when it is unmasked. Any thread, without the device's lock. */
void pci_msix_notify(struct pci_device *pdev, unsigned vector);
/* Drive INTx (with the Interrupt Disable bit and Interrupt Status honoured). Any thread, with or without the lock. */
void pci_set_intx(struct pci_device *pdev, bool level);
/* DMA allowed: Bus Master Enable. Any thread. */
bool pci_bus_master(const struct pci_device *pdev);

/* Walk all devices, for query-pci and the ACPI tables. Main loop's thread. */
void pci_for_each(struct machine *m, void (*fn)(struct pci_device *pdev, unsigned bus_nr, void *opaque), void *opaque);

/* Assign BARs, bridge windows and interrupt lines as firmware would, for direct kernel boot; at each reset. */
void pci_assign_resources(struct machine *m);

static inline void pci_set16(uint8_t *p, uint16_t v) { p[0] = v; p[1] = v >> 8; }
static inline void pci_set32(uint8_t *p, uint32_t v) { pci_set16(p, v); pci_set16(p + 2, v >> 16); }
static inline uint16_t pci_get16(const uint8_t *p) { return p[0] | p[1] << 8; }
static inline uint32_t pci_get32(const uint8_t *p) { return pci_get16(p) | (uint32_t)pci_get16(p + 2) << 16; }
