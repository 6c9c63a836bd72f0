/* SPDX-License-Identifier: GPL-2.0-or-later */
/* All device classes, by name: the one table that a new device is added to (classes.c). The conformance test runs over it. */
#pragma once
#include "machine/device.h"

const struct device_class *device_class_find(const char *name); /* NULL if there is none */
const struct device_class *device_class_at(unsigned i);         /* the i-th, NULL past the end */

/*
 * device_new, device_set (pairs of name and value strings, ended by NULL) and
 * device_realize in one. NULL and err on failure, an unknown class included.
 */
struct device *device_add(struct machine *m, const char *cls, const char *id, struct err *err, ...) __attribute__((sentinel));

/* The q35 board: chipset, interrupt controllers, timers, clock, ports. Before any other device. */
struct q35_options {
	bool debugcon;     /* a port that prints to `debug_out` */
	uint16_t debug_port; /* which, 0: 0xe9 */
	bool debug_exit;   /* isa-debug-exit at 0xf4 */
	bool pvpanic;
	unsigned root_ports; /* PCIe root ports, 0..16 */
	struct chardev *serial[4]; /* COM1..4, NULL: absent */
	struct chardev *debug_out;
};
int q35_init(struct machine *m, const struct q35_options *o, struct err *err);
