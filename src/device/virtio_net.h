/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A network card's other side. Main loop's thread, "virtio-net-pci" devices only. */
#pragma once
#include "machine/device.h"

/* Pull the cable, or plug it in again. The guest sees a link when this and the back end say so. */
void virtio_net_set_link(struct device *d, bool up);
