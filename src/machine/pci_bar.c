/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Base address registers: what they say, whether the bridges above let it through, and the ranges on the buses. */
#include <assert.h>
#include <errno.h>

#include "machine/pci_int.h"
#include "util/log.h"

void pci_add_bar(struct pci_device *pdev, unsigned n, uint64_t size, bool io, bool mem64, bool prefetch,
		 const struct io_ops *ops, void *opaque, pthread_mutex_t *lock)
{
	struct pci_bar *bar = &pdev->bar[n];
	unsigned at = pci_bar_offset(pdev, n);
	uint64_t mask = ~(size - 1);

	assert(n < 7 && !pdev->ready && size && !(size & (size - 1)) && !bar->size);
	assert(size >= (io ? 4 : 16) && (mem64 || size <= 1u << 31) && (n < 6 || (!io && !mem64 && size >= 2048)));
	*bar = (struct pci_bar){ .size = size, .io = io, .mem64 = mem64, .prefetch = prefetch, .moved = bar->moved };
	/* Chips have priority 0: a BAR never hides one. */
	bar->range = (struct io_range){ .name = pdev->dev.id, .size = size, .ops = ops, .opaque = opaque, .lock = lock,
					.priority = -1 };
	pci_set32(pdev->wmask + at, mask);
	if (n == 6)
		pdev->wmask[at] |= 1; /* enable */
	else
		pdev->config[at] = io ? 1 : (mem64 ? 4 : 0) | (prefetch ? 8 : 0);
	if (mem64)
		pci_set32(pdev->wmask + at + 4, mask >> 32);
}

/* ---- Bridge windows (PCI-to-PCI Bridge 1.2 §3.2.5) ------------------------ */

static bool inside(uint64_t base, uint64_t last, uint64_t lo, uint64_t hi)
{
	return lo <= hi && base >= lo && last <= hi;
}

static bool port_forwards(const struct pci_device *port, bool io, uint64_t base, uint64_t last)
{
	const uint8_t *c = port->config;
	uint64_t lo, hi;

	if (!(c[PCI_COMMAND] & (io ? PCI_CMD_IO : PCI_CMD_MEM)))
		return false;
	if (io) {
		lo = (c[PCI_IO_WINDOW] & 0xf0) << 8;
		hi = (c[PCI_IO_WINDOW + 1] & 0xf0) << 8 | 0xfff;
		return inside(base, last, lo, hi);
	}
	lo = (uint64_t)(pci_get16(c + PCI_MEM_WINDOW) & 0xfff0) << 16;
	hi = (uint64_t)(pci_get16(c + PCI_MEM_WINDOW + 2) & 0xfff0) << 16 | 0xfffff;
	if (inside(base, last, lo, hi))
		return true;
	lo = (uint64_t)(pci_get16(c + PCI_PREF_WINDOW) & 0xfff0) << 16 | (uint64_t)pci_get32(c + PCI_PREF_HIGH) << 32;
	hi = (uint64_t)(pci_get16(c + PCI_PREF_WINDOW + 2) & 0xfff0) << 16 | 0xfffff |
	     (uint64_t)pci_get32(c + PCI_PREF_HIGH + 4) << 32;
	return inside(base, last, lo, hi);
}

/* ---- Mapping ------------------------------------------------------------- */

static bool decode_bar(const struct pci_device *pdev, unsigned n, uint64_t *base)
{
	const struct pci_bar *bar = &pdev->bar[n];
	const uint8_t *c = pdev->config + pci_bar_offset(pdev, n);
	uint64_t last;

	if (!bar->size || !(pdev->config[PCI_COMMAND] & (bar->io ? PCI_CMD_IO : PCI_CMD_MEM)) ||
	    (n == 6 && !(c[0] & 1)))
		return false;
	*base = pci_get32(c) & ~(bar->size - 1) & (bar->io ? ~3u : ~15u);
	if (bar->mem64)
		*base = ((uint64_t)pci_get32(c + 4) << 32 | pci_get32(c)) & ~(bar->size - 1) & ~15ull;
	last = *base + bar->size - 1;
	/* 0 and all ones are what sizing writes, and reach past the space that there is. */
	if (!*base || last < *base || last >= (bar->io ? 0x10000ull : bar->mem64 ? Q35_MMIO64_END : 0xffffffffull))
		return false;
	for (const struct pci_bus *bus = pdev->bus; bus->port; bus = bus->port->bus)
		if (!port_forwards(bus->port, bar->io, *base, last))
			return false;
	return true;
}

static struct bus *space(const struct pci_device *pdev, const struct pci_bar *bar)
{
	return bar->io ? pdev->dev.machine->pio : pdev->dev.machine->mmio;
}

static void set_clash(struct pci_host *host, struct pci_bar *bar, bool clash)
{
	host->clashes += clash - bar->clash;
	bar->clash = clash;
}

static void unmap(struct pci_device *pdev, unsigned n)
{
	struct pci_bar *bar = &pdev->bar[n];
	struct pci_host *host = pdev->bus->host;

	set_clash(host, bar, false);
	if (!bar->mapped)
		return;
	bus_del(space(pdev, bar), &bar->range);
	bar->mapped = false;
	host->retry = host->clashes;
	if (bar->moved)
		bar->moved(pdev, n);
}

static void update(struct pci_device *pdev, unsigned n)
{
	struct pci_bar *bar = &pdev->bar[n];
	uint64_t base = 0;
	bool want = decode_bar(pdev, n, &base);

	if (bar->mapped && want && bar->range.base == base)
		return;
	unmap(pdev, n);
	if (!want)
		return;
	bar->range.base = base;
	if (bus_add(space(pdev, bar), &bar->range, NULL)) {
		set_clash(pdev->bus->host, bar, true);
		return;
	}
	bar->mapped = true;
	if (bar->moved)
		bar->moved(pdev, n);
}

void pci_bars_update(struct pci_device *pdev)
{
	for (unsigned n = 0; n < 7; n++)
		update(pdev, n);
}

void pci_bars_unmap(struct pci_device *pdev)
{
	for (unsigned n = 0; n < 7; n++)
		unmap(pdev, n);
}

void pci_bars_update_below(struct pci_bus *bus)
{
	for (unsigned i = 0; i < bus->slots; i++) {
		struct pci_device *pdev = bus->dev[i];
		struct pci_bus *below;

		if (!pdev || !pdev->ready)
			continue;
		pthread_mutex_lock(&pdev->dev.lock);
		pci_bars_update(pdev);
		pthread_mutex_unlock(&pdev->dev.lock);
		below = pci_is_bridge(pdev) ? pci_bus_behind(pdev) : NULL;
		if (below)
			pci_bars_update_below(below);
	}
}

void pci_bars_retry(struct pci_host *host)
{
	/* An update may free a place once more; each round maps at least one BAR that clashed, or is the last. */
	for (unsigned before = UINT32_MAX; host->retry && host->clashes < before;) {
		before = host->clashes;
		host->retry = false;
		pci_bars_update_below(host->root);
	}
	host->retry = false;
	if (host->clashes)
		log_guest("pci", "%u BARs lie over other devices and are not mapped", host->clashes);
}
