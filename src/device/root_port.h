/* SPDX-License-Identifier: GPL-2.0-or-later */
/* PCI Express root port: what the owner of hot-plug needs beside adding and freeing devices on its bus. */
#pragma once
#include "machine/device.h"

/* Press the slot's attention button: asks the guest to power the slot down, or up. Any thread. */
void root_port_attention(struct device *port);
