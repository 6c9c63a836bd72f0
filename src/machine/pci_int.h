/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of PCI share: pci.c (topology, configuration space), pci_bar, pci_intx, pci_msix, pci_assign. */
#pragma once
#include "machine/pci.h"

/* Configuration space of both header types (PCI 3.0 §6.1, PCI-to-PCI Bridge 1.2 §3.2). */
enum {
	PCI_VENDOR = 0x00,
	PCI_COMMAND = 0x04,
	PCI_STATUS = 0x06,
	PCI_CLASS_REV = 0x08,
	PCI_HEADER = 0x0e,
	PCI_BAR0 = 0x10,
	PCI_SUBSYSTEM = 0x2c,
	PCI_ROM = 0x30,
	PCI_CAPS = 0x34,
	PCI_INT_LINE = 0x3c,
	PCI_INT_PIN = 0x3d,
	PCI_PRIMARY = 0x18,
	PCI_SECONDARY = 0x19,
	PCI_SUBORDINATE = 0x1a,
	PCI_IO_WINDOW = 0x1c,
	PCI_SECONDARY_STATUS = 0x1e,
	PCI_MEM_WINDOW = 0x20,
	PCI_PREF_WINDOW = 0x24,
	PCI_PREF_HIGH = 0x28,
	PCI_IO_HIGH = 0x30,
	PCI_ROM1 = 0x38,
	PCI_BRIDGE_CONTROL = 0x3e,
};
#define PCI_CMD_IO 0x0001
#define PCI_CMD_MEM 0x0002
#define PCI_CMD_MASTER 0x0004
#define PCI_CMD_INTX_OFF 0x0400
#define PCI_STATUS_INTX 0x0008
#define PCI_STATUS_CAPS 0x0010
#define PCI_HEADER_MULTI 0x80

struct pci_window {
	uint64_t size, align;
};

struct pci_bus {
	struct pci_host *host;
	struct pci_device *port; /* NULL: bus 0 */
	struct pci_bus *next;    /* all buses but the root, in order of creation */
	void (*hotplug)(struct pci_device *port, struct pci_device *child, bool present);
	struct pci_window window[3]; /* pci_assign.c: what the bridge must forward */
	unsigned slots;          /* size of dev: a link below a port has one device number */
	struct pci_device *dev[];
};

struct pci_host {
	struct machine *machine;
	struct pci_bus *root, *buses;
	pthread_mutex_t lock; /* topology and configuration accesses; outermost */
	uint32_t address;     /* CONFIG_ADDRESS */
	struct io_range ecam, ports;
	const struct io_ops *cf9;
	void *cf9_opaque;
	pthread_mutex_t *cf9_lock;
	unsigned clashes; /* BARs that wait for another to go */
	bool retry;       /* one went */

	pthread_mutex_t intx_lock; /* the rest, and intx of the devices */
	unsigned pirq[8];          /* how many devices drive it */
	void (*route)(void *opaque, unsigned pirq, bool level);
	void *route_opaque;
};

static inline bool pci_is_bridge(const struct pci_device *pdev)
{
	return (pdev->config[PCI_HEADER] & 0x7f) == 1;
}
static inline unsigned pci_bar_offset(const struct pci_device *pdev, unsigned n)
{
	return n == 6 ? (pci_is_bridge(pdev) ? PCI_ROM1 : PCI_ROM) : PCI_BAR0 + 4 * n;
}
/* Bus behind a bridge, NULL if it has none. */
struct pci_bus *pci_bus_behind(struct pci_device *port);

/* Access to a device that exists; host lock held, the device's is taken. Little-endian bytes. */
void pci_config_read(struct pci_device *pdev, unsigned offset, void *data, unsigned size);
void pci_config_write(struct pci_device *pdev, unsigned offset, const void *data, unsigned size);

/* Host and device lock held, or nothing runs. Map or unmap BARs as the registers say. */
void pci_bars_update(struct pci_device *pdev);
void pci_bars_unmap(struct pci_device *pdev);
/* Host lock held: as pci_bars_update() for everything behind `bus`, and for those that clashed. */
void pci_bars_update_below(struct pci_bus *bus);
void pci_bars_retry(struct pci_host *host);

/* Interrupt Disable or `intx` changed by other means than pci_set_intx(). */
void pci_intx_update(struct pci_device *pdev);
void pci_intx_reset(struct pci_device *pdev);

int pci_msix_alloc(struct pci_device *pdev, struct err *err);
void pci_msix_free(struct pci_device *pdev);
void pci_msix_update(struct pci_device *pdev); /* Message Control or Bus Master changed */
void pci_msix_reset(struct pci_device *pdev);
int pci_msix_loaded(struct pci_device *pdev, struct err *err);
extern const struct state_desc pci_msix_state;
