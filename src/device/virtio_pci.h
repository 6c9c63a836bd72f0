/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtio over PCI, modern only (Virtio 1.2 §4.1). A class "virtio-X-pci" is an
 * object that begins with struct virtio_pci and holds the device:
 *
 *	struct virtio_rng_pci { struct virtio_pci proxy; struct virtio_rng rng; };
 *
 * Its realize sets up the device with virtio_init() and calls
 * virtio_pci_realize(); unrealize, reset and stopped are the functions below
 * (after, or around, what the device does itself).
 */
#pragma once
#include "device/virtio.h"
#include "machine/pci.h"

struct virtio_pci {
	struct pci_device pdev; /* first */
	struct virtio_device *v;

	/* Properties */
	bool packed, event_idx, indirect;
	uint32_t vectors;       /* PCI_AUTO: one per queue and one for the configuration */

	/* Selectors and vectors that the driver wrote */
	uint32_t feature_select, driver_feature_select;
	uint16_t queue_select, config_vector;

	pthread_mutex_t isr_lock; /* isr together with the level of INTx */
	uint8_t isr;
	unsigned window;        /* offset of the PCI configuration access capability */
	uint64_t *bell;         /* address at which each queue's event is registered with the engine; 0: none */
};

#define VIRTIO_PCI_PROPS(T)                                                                                            \
	PCI_PROPS(T, proxy.pdev), PROP_DEF_BOOL(T, proxy.packed, "packed", "on", "offer packed rings"),                \
		PROP_DEF_BOOL(T, proxy.event_idx, "event-idx", "on", "offer event indices"),                           \
		PROP_DEF_BOOL(T, proxy.indirect, "indirect-desc", "on", "offer indirect descriptors"),                 \
		PROP_DEF_U32(T, proxy.vectors, "vectors", "4294967295", 0, 0,                                          \
			     "MSI-X vectors; one per queue and one more unless given, 0: INTx only")

int virtio_pci_realize(struct virtio_pci *p, struct virtio_device *v, uint32_t class_code, struct err *err);
void virtio_pci_unrealize(struct device *d);
void virtio_pci_reset(struct device *d);
void virtio_pci_stopped(struct device *d, bool stopped);
extern const struct state_desc virtio_pci_state;
