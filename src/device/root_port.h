/* SPDX-License-Identifier: GPL-2.0-or-later */
/* PCI Express root port: what the owner of hot-plug needs beside adding and freeing devices on its bus. */
#pragma once
#include "machine/device.h"

#define ROOT_PORT_CLASS "pcie-root-port"

/* Press the slot's attention button: asks the guest to power the slot down, or up. Any thread. */
void root_port_attention(struct device *port);
/* What the guest did to the slot, told in the main loop's thread without locks. */
enum {
	ROOT_PORT_OFF = 1,  /* it cut the power and says so: what is plugged in may go */
	ROOT_PORT_KEPT = 2, /* the power indicator went from blinking back to on: what is plugged in stays */
};
void root_port_set_owner(struct device *port, void (*told)(void *opaque, struct device *port, unsigned news), void *opaque);
bool root_port_powered(struct device *port);
struct device *root_port_child(struct device *port); /* NULL: empty */
