/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A virtio-serial controller's other side. Main loop's thread, "virtio-serial-pci" devices only. */
#pragma once
#include "machine/device.h"

#define VIRTIO_CONSOLE_PORTS 8

/* Called when a program in the guest opened or closed a port. */
void virtio_console_set_callback(struct device *d, void (*fn)(void *opaque, unsigned port, bool open), void *opaque);
