/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What firmware does to PCI before it boots a kernel: bus numbers, BARs, bridge windows, interrupt lines. */
#include "machine/pci_int.h"
#include "util/log.h"

enum kind { KIND_IO, KIND_MEM, KIND_PREF, KINDS };

#define IO_BASE 0x1000ull
#define IO_END 0x10000ull

/* Room below an empty port, for a device that is plugged in later. */
static const uint64_t reserve[KINDS] = { [KIND_MEM] = 2ull << 20, [KIND_PREF] = 256ull << 20 };
/* Granularity of bridge windows. */
static const uint64_t grain[KINDS] = { [KIND_IO] = 4096, [KIND_MEM] = 1 << 20, [KIND_PREF] = 1 << 20 };

static enum kind bar_kind(const struct pci_bar *bar)
{
	return bar->io ? KIND_IO : bar->mem64 && bar->prefetch ? KIND_PREF : KIND_MEM;
}

static uint64_t round_up(uint64_t n, uint64_t align)
{
	return (n + align - 1) & ~(align - 1);
}

static void write_config(struct pci_device *pdev, unsigned at, uint32_t value, unsigned size)
{
	pci_config_write(pdev, at, &value, size);
}

static void place_bar(struct pci_device *pdev, unsigned n, uint64_t addr)
{
	unsigned at = pci_bar_offset(pdev, n);

	write_config(pdev, at, addr, 4);
	if (pdev->bar[n].mem64)
		write_config(pdev, at + 4, addr >> 32, 4);
}

static void place_window(struct pci_device *port, enum kind kind, uint64_t base, uint64_t size)
{
	uint64_t last = base + size - 1;

	if (kind == KIND_IO) {
		write_config(port, PCI_IO_WINDOW, (base >> 8 & 0xf0) | (last & 0xf000), 2);
	} else if (kind == KIND_MEM) {
		write_config(port, PCI_MEM_WINDOW, (base >> 16 & 0xfff0) | (last & 0xfff00000), 4);
	} else {
		write_config(port, PCI_PREF_WINDOW, (base >> 16 & 0xfff0) | (last & 0xfff00000), 4);
		write_config(port, PCI_PREF_HIGH, base >> 32, 4);
		write_config(port, PCI_PREF_HIGH + 4, last >> 32, 4);
	}
}

static struct pci_bus *bus_below(struct pci_device *pdev)
{
	return pdev && pdev->ready && pci_is_bridge(pdev) ? pci_bus_behind(pdev) : NULL;
}

/* All alignments (powers of two) that resources of this kind on `bus` ask for. Windows are measured. */
static uint64_t alignments(struct pci_bus *bus, enum kind kind)
{
	uint64_t set = 0;

	for (unsigned i = 0; i < bus->slots; i++) {
		struct pci_device *pdev = bus->dev[i];
		struct pci_bus *below = bus_below(pdev);

		if (!pdev || !pdev->ready)
			continue;
		for (unsigned n = 0; n < 7; n++)
			if (bar_kind(&pdev->bar[n]) == kind)
				set |= pdev->bar[n].size;
		if (below && below->window[kind].size)
			set |= below->window[kind].align;
	}
	return set;
}

/* Lay out the resources of one kind on `bus` from `base` on, largest alignment first; `place` false: only measure. */
static struct pci_window layout(struct pci_bus *bus, enum kind kind, uint64_t base, bool place)
{
	uint64_t set = alignments(bus, kind), at = base;
	struct pci_window total = { .align = set ? 1ull << (63 - __builtin_clzll(set)) : 1 };

	for (uint64_t align = total.align; set; align >>= 1) {
		if (!(set & align))
			continue;
		set &= ~align;
		at = round_up(at, align);
		for (unsigned i = 0; i < bus->slots; i++) {
			struct pci_device *pdev = bus->dev[i];
			struct pci_bus *below = bus_below(pdev);

			for (unsigned n = 0; pdev && pdev->ready && n < 7; n++) {
				if (pdev->bar[n].size != align || bar_kind(&pdev->bar[n]) != kind)
					continue;
				if (place)
					place_bar(pdev, n, at);
				at += align;
			}
			if (!below || !below->window[kind].size || below->window[kind].align != align)
				continue;
			if (place) {
				place_window(pdev, kind, at, below->window[kind].size);
				layout(below, kind, at, true);
			}
			at = round_up(at + below->window[kind].size, align);
		}
	}
	total.size = at - base;
	return total;
}

/* The windows of all bridges below `bus`, then what `bus` itself needs. */
static struct pci_window measure(struct pci_bus *bus, enum kind kind)
{
	for (unsigned i = 0; i < bus->slots; i++) {
		struct pci_bus *below = bus_below(bus->dev[i]);
		struct pci_window w;
		bool empty = true;

		if (!below)
			continue;
		w = measure(below, kind);
		for (unsigned k = 0; k < below->slots; k++)
			empty &= !below->dev[k];
		if (empty && below->hotplug)
			w.size = reserve[kind];
		w.align = w.align > grain[kind] ? w.align : grain[kind];
		w.size = round_up(w.size, grain[kind]);
		below->window[kind] = w;
	}
	return layout(bus, kind, 0, false);
}

/* Numbers for the buses below `bus`, depth first; the highest number used so far goes in and out. */
static unsigned number_buses(struct pci_bus *bus, unsigned nr, unsigned highest)
{
	for (unsigned i = 0; i < bus->slots; i++) {
		struct pci_device *pdev = bus->dev[i];
		struct pci_bus *below = pdev && pdev->ready && pci_is_bridge(pdev) ? pci_bus_behind(pdev) : NULL;
		unsigned secondary;

		if (!below || highest == 0xff)
			continue;
		secondary = ++highest;
		write_config(pdev, PCI_PRIMARY, nr | secondary << 8 | 0xff << 16, 3);
		highest = number_buses(below, secondary, highest);
		write_config(pdev, PCI_SUBORDINATE, highest, 1);
	}
	return highest;
}

/* The same interrupts that SeaBIOS gives to PIRQ A..H. */
static const uint8_t pirq_isa[8] = { 10, 10, 11, 11, 10, 10, 11, 11 };

/* Decode everything; closed windows first, as a bridge may hold what an earlier boot wrote. */
static void close_windows(struct pci_device *pdev, unsigned nr, void *opaque)
{
	if (!pci_is_bridge(pdev))
		return;
	write_config(pdev, PCI_IO_WINDOW, 0x00f0, 2);
	write_config(pdev, PCI_MEM_WINDOW, 0x0000fff0, 4);
	write_config(pdev, PCI_PREF_WINDOW, 0x0000fff0, 4);
	write_config(pdev, PCI_PREF_HIGH, 0, 4);
	write_config(pdev, PCI_PREF_HIGH + 4, 0, 4);
}

static void enable(struct pci_device *pdev, unsigned nr, void *opaque)
{
	uint16_t command = pci_get16(pdev->config + PCI_COMMAND) | PCI_CMD_IO | PCI_CMD_MEM;
	unsigned pin = pdev->config[PCI_INT_PIN];
	const struct pci_device *at = pdev;

	if (pci_is_bridge(pdev))
		command |= PCI_CMD_MASTER;
	write_config(pdev, PCI_COMMAND, command, 2);
	if (!pin)
		return;
	for (; at->bus->port; at = at->bus->port)
		pin = 1 + ((pin - 1 + (at->devfn >> 3)) & 3);
	write_config(pdev, PCI_INT_LINE, pirq_isa[((at->devfn >> 3) + pin - 1) & 7], 1);
}

/* PIRQ routing of the ICH9's LPC bridge (ICH9 datasheet §13.1.13), and ELCR: 10 and 11 by level. */
static void route_pirqs(struct machine *m)
{
	struct pci_device *lpc = m->pci->root->dev[0x1f << 3];

	if (!lpc || !lpc->ready || pci_get16(lpc->config) != 0x8086 || lpc->config[0x0b] != 6 || lpc->config[0x0a] != 1)
		return;
	for (unsigned i = 0; i < 8; i++)
		write_config(lpc, (i < 4 ? 0x60 : 0x68 - 4) + i, pirq_isa[i], 1);
	bus_write(m->pio, 0x4d1, 0x0c, 1);
}

void pci_assign_resources(struct machine *m)
{
	static const struct {
		uint64_t base, end;
		const char *name;
	} window[KINDS] = {
		[KIND_IO] = { IO_BASE, IO_END, "I/O" },
		[KIND_MEM] = { Q35_MMIO32_BASE, Q35_MMIO32_END, "32-bit memory" },
		[KIND_PREF] = { Q35_MMIO64_BASE, Q35_MMIO64_END, "64-bit memory" },
	};
	struct pci_host *host = m->pci;

	if (!host)
		return;
	pthread_mutex_lock(&host->lock);
	number_buses(host->root, 0, 0);
	pci_for_each(m, close_windows, NULL);
	for (enum kind k = 0; k < KINDS; k++) {
		struct pci_window d = measure(host->root, k);

		if (d.size <= window[k].end - window[k].base)
			layout(host->root, k, window[k].base, true);
		else
			log_line(LOG_WARN, "PCI devices want %llu bytes of %s space, there are %llu: left to the guest",
				 (unsigned long long)d.size, window[k].name,
				 (unsigned long long)(window[k].end - window[k].base));
	}
	pci_for_each(m, enable, NULL);
	route_pirqs(m);
	pthread_mutex_unlock(&host->lock);
}
