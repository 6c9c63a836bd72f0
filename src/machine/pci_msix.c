/* SPDX-License-Identifier: GPL-2.0-or-later */
/* MSI-X (PCI 3.0 §6.8.2): capability, table, pending bits. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine/pci_int.h"

#define CTRL_ENABLE 0x8000
#define CTRL_MASK 0x4000
#define ENTRY_MASKED 1u

/* Table first, pending bits in the upper half of the BAR. */
static uint64_t bar_size(unsigned n)
{
	return n <= 128 ? 4096 : 8192;
}

int pci_msix_alloc(struct pci_device *pdev, struct err *err)
{
	struct pci_msix *x = &pdev->msix;

	/* The full size whatever n is: a state stream's length can't overrun it. */
	x->table = calloc(PCI_MAX_MSIX, sizeof(x->table[0]));
	x->pending = calloc(PCI_MAX_MSIX / 64, sizeof(x->pending[0]));
	if (!x->table || !x->pending) {
		free(x->table);
		free(x->pending);
		return err_set(err, ENOMEM, "no memory for a PCI device");
	}
	pthread_mutex_init(&x->lock, NULL);
	return 0;
}

void pci_msix_free(struct pci_device *pdev)
{
	free(pdev->msix.table);
	free(pdev->msix.pending);
	pthread_mutex_destroy(&pdev->msix.lock);
}

static bool ready(const struct pci_msix *x, unsigned vector)
{
	return x->enabled && !x->masked && !(x->table[vector].control & ENTRY_MASKED);
}

void pci_msix_notify(struct pci_device *pdev, unsigned vector)
{
	struct pci_msix *x = &pdev->msix;
	struct pci_msix_entry e;
	bool send = false;

	pthread_mutex_lock(&x->lock);
	if (vector < x->n && x->enabled) {
		send = ready(x, vector);
		e = x->table[vector];
		if (!send)
			x->pending[vector / 64] |= 1ull << (vector % 64);
	}
	pthread_mutex_unlock(&x->lock);
	if (send)
		machine_msi(pdev->dev.machine, e.address, e.data);
}

/* Lock held: send what waited for `vector` to be unmasked. */
static void deliver_pending(struct pci_device *pdev, unsigned vector)
{
	struct pci_msix *x = &pdev->msix;
	uint64_t bit = 1ull << (vector % 64);

	if (!(x->pending[vector / 64] & bit) || !ready(x, vector))
		return;
	x->pending[vector / 64] &= ~bit;
	machine_msi(pdev->dev.machine, x->table[vector].address, x->table[vector].data);
}

static uint64_t msix_read(void *opaque, uint64_t off, unsigned size)
{
	struct pci_device *pdev = opaque;
	struct pci_msix *x = &pdev->msix;
	uint64_t pba = bar_size(x->n) / 2;
	uint32_t value = 0;

	pthread_mutex_lock(&x->lock);
	if (off < x->n * 16)
		memcpy(&value, (uint8_t *)x->table + (off & ~3ull), 4);
	else if (off >= pba && off < pba + (x->n + 63) / 64 * 8)
		memcpy(&value, (uint8_t *)x->pending + ((off - pba) & ~3ull), 4);
	pthread_mutex_unlock(&x->lock);
	return value;
}

static void msix_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct pci_device *pdev = opaque;
	struct pci_msix *x = &pdev->msix;
	uint32_t dword = value;
	unsigned vector = off / 16;

	if (off & 3 || vector >= x->n)
		return;
	if ((off & 15) == 0)
		dword &= ~3u;
	if ((off & 15) == 12)
		dword &= ENTRY_MASKED;
	pthread_mutex_lock(&x->lock);
	memcpy((uint8_t *)x->table + off, &dword, 4);
	deliver_pending(pdev, vector);
	pthread_mutex_unlock(&x->lock);
	if (x->changed)
		x->changed(pdev, vector);
}

static const struct io_ops msix_ops = { .read = msix_read, .write = msix_write, .min = 4, .max = 4 };

int pci_msix_init(struct pci_device *pdev, unsigned n, unsigned bar, struct err *err)
{
	struct pci_msix *x = &pdev->msix;
	unsigned cap;

	assert(n && n <= PCI_MAX_MSIX && !x->n);
	cap = pci_add_cap(pdev, 0x11, 12);
	x->n = n;
	x->cap = cap;
	x->table_bytes = n * sizeof(x->table[0]);
	x->pending_bytes = (n + 63) / 64 * 8;
	pci_set16(pdev->config + cap + 2, n - 1);
	pci_set16(pdev->wmask + cap + 2, CTRL_ENABLE | CTRL_MASK);
	pci_set32(pdev->config + cap + 4, bar);
	pci_set32(pdev->config + cap + 8, bar_size(n) / 2 | bar);
	pci_add_bar(pdev, bar, bar_size(n), false, false, false, &msix_ops, pdev, NULL);
	pci_msix_reset(pdev);
	return 0;
}

bool pci_msix_enabled(const struct pci_device *pdev)
{
	return __atomic_load_n(&pdev->msix.enabled, __ATOMIC_RELAXED);
}

void pci_msix_update(struct pci_device *pdev)
{
	struct pci_msix *x = &pdev->msix;
	uint16_t ctrl;

	if (!x->n)
		return;
	ctrl = pci_get16(pdev->config + x->cap + 2);
	pthread_mutex_lock(&x->lock);
	__atomic_store_n(&x->enabled, ctrl & CTRL_ENABLE, __ATOMIC_RELAXED);
	/* A message is a write by the function: it waits for Bus Master Enable. */
	x->masked = ctrl & CTRL_MASK || !pci_bus_master(pdev);
	for (unsigned i = 0; i < x->n; i++)
		deliver_pending(pdev, i);
	pthread_mutex_unlock(&x->lock);
	for (unsigned i = 0; x->changed && i < x->n; i++)
		x->changed(pdev, i);
}

void pci_msix_reset(struct pci_device *pdev)
{
	struct pci_msix *x = &pdev->msix;

	pthread_mutex_lock(&x->lock);
	/* A state that was refused may have left other lengths. */
	x->table_bytes = x->n * sizeof(x->table[0]);
	x->pending_bytes = (x->n + 63) / 64 * 8;
	memset(x->table, 0, x->table_bytes);
	memset(x->pending, 0, x->pending_bytes);
	for (unsigned i = 0; i < x->n; i++)
		x->table[i].control = ENTRY_MASKED;
	pthread_mutex_unlock(&x->lock);
	pci_msix_update(pdev);
}

int pci_msix_loaded(struct pci_device *pdev, struct err *err)
{
	struct pci_msix *x = &pdev->msix;
	uint32_t table = x->n * sizeof(x->table[0]), pending = (x->n + 63) / 64 * 8;
	bool fits = x->table_bytes == table && x->pending_bytes == pending;

	x->table_bytes = table;
	x->pending_bytes = pending;
	if (!fits) {
		pci_msix_reset(pdev);
		return err_set(err, EINVAL, "it has another number of MSI-X vectors than %u", x->n);
	}
	for (unsigned i = 0; i < x->n; i++) {
		x->table[i].address &= ~3ull;
		x->table[i].control &= ENTRY_MASKED;
	}
	pci_msix_update(pdev);
	return 0;
}

static const struct state_field msix_fields[] = {
	{ .name = "table", .type = STATE_VAR_U8, .since = 1, .offset = offsetof(struct pci_msix, table),
	  .size = PCI_MAX_MSIX * sizeof(struct pci_msix_entry), .len_offset = offsetof(struct pci_msix, table_bytes) },
	{ .name = "pending", .type = STATE_VAR_U8, .since = 1, .offset = offsetof(struct pci_msix, pending),
	  .size = PCI_MAX_MSIX / 8, .len_offset = offsetof(struct pci_msix, pending_bytes) },
	STATE_END,
};
const struct state_desc pci_msix_state = { .name = "msix", .version = 1, .fields = msix_fields };
