/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside src/model: the steps of domain_fill(). */
#pragma once
#include "model/domain.h"

/* What every definition must have, and the defaults that need no host. Before domain_check(). */
int domain_normalize(struct domain *def, unsigned flags, struct err *err);
int device_normalize(struct domain_device *dev, const struct domain *def, struct err *err);
/* One device that is about to be used in def: target, MAC, model, driver. */
int device_fill(struct domain_device *dev, const struct domain_caps *caps, struct err *err);
int device_check(const struct domain_device *dev, const struct domain_caps *caps, struct err *err);
/* Controllers and addresses. */
int domain_fill_pci(struct domain *def, const struct domain_caps *caps, struct err *err);

/* A random MAC with libvirt's prefix for QEMU guests. */
void mac_generate(uint8_t mac[6]);
bool random_bytes(void *buf, size_t len);
