/* SPDX-License-Identifier: GPL-2.0-or-later */
/* INTx: pins of functions, shared PIRQ lines, GSIs and the LPC bridge's routing. */
#include "machine/pci_int.h"

/* The PIRQ (0..7) that a function's pin ends at: swizzled at each bridge on the way up. */
static unsigned pin_to_pirq(const struct pci_device *pdev)
{
	unsigned pin = pdev->config[PCI_INT_PIN] - 1;

	for (; pdev->bus->port; pdev = pdev->bus->port)
		pin = (pin + (pdev->devfn >> 3)) & 3;
	return ((pdev->devfn >> 3) + pin) & 7;
}

/* Interrupt lock held. Wired OR of all functions on a PIRQ. */
static void drive(struct pci_device *pdev, bool level)
{
	struct pci_host *host = pdev->bus->host;
	unsigned pirq = pin_to_pirq(pdev);
	bool before, after;

	if (pdev->intx_out == level)
		return;
	pdev->intx_out = level;
	before = host->pirq[pirq];
	host->pirq[pirq] += level ? 1 : -1;
	after = host->pirq[pirq];
	if (before != after) {
		struct irq irq = machine_irq(host->machine, 16 + pirq);

		irq_set(&irq, after);
		if (host->route)
			host->route(host->route_opaque, pirq, after);
	}
}

static void update(struct pci_device *pdev)
{
	uint8_t *status = &pdev->config[PCI_STATUS];
	bool off = pci_get16(pdev->config + PCI_COMMAND) & PCI_CMD_INTX_OFF;

	if (!pdev->config[PCI_INT_PIN])
		return;
	/* Interrupt Status shows the wish, Interrupt Disable only cuts the pin (PCI 3.0 §6.2.3). */
	if (pdev->intx)
		__atomic_or_fetch(status, PCI_STATUS_INTX, __ATOMIC_RELAXED);
	else
		__atomic_and_fetch(status, ~PCI_STATUS_INTX, __ATOMIC_RELAXED);
	drive(pdev, pdev->intx && !off);
}

void pci_set_intx(struct pci_device *pdev, bool level)
{
	struct pci_host *host = pdev->bus->host;

	pthread_mutex_lock(&host->intx_lock);
	pdev->intx = level;
	update(pdev);
	pthread_mutex_unlock(&host->intx_lock);
}

void pci_intx_update(struct pci_device *pdev)
{
	struct pci_host *host = pdev->bus->host;

	pthread_mutex_lock(&host->intx_lock);
	update(pdev);
	pthread_mutex_unlock(&host->intx_lock);
}

void pci_intx_reset(struct pci_device *pdev)
{
	pci_set_intx(pdev, false);
}

void pci_host_set_route(struct machine *m, void (*route)(void *opaque, unsigned pirq, bool level), void *opaque)
{
	struct pci_host *host = m->pci;

	pthread_mutex_lock(&host->intx_lock);
	host->route = route;
	host->route_opaque = opaque;
	for (unsigned i = 0; route && i < 8; i++)
		route(opaque, i, host->pirq[i]);
	pthread_mutex_unlock(&host->intx_lock);
}
