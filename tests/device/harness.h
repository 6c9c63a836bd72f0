/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the conformance test and the fuzz target share: a fake machine around
 * one device, and accesses to whatever registers it has at the moment. Link
 * with device_harness_args, which lets harness.c see bus_add() and bus_del().
 */
#pragma once
#include "device/classes.h"
#include "fake_machine.h"

/*
 * A PCI host bridge and one device of the class with default properties (the
 * class is the bridge: that alone). It gets the back ends that it has
 * properties for: a disk of 1 MiB, character streams, a
 * network. NULL and err: it did not
 * realize. The machine runs.
 */
struct fake_machine *harness_new(const struct device_class *cls, struct err *err);
/* For harness_new(): the whole q35 board, with four serial ports and all that is optional. */
extern const struct device_class harness_board;
/* The device under test; NULL for the board. */
struct device *harness_device(struct fake_machine *f);
/* The other ends of the character streams do something, chosen by `random`. Main thread. */
void harness_peers(struct fake_machine *f, uint64_t random);

/* Register ranges of the machine, sorted by address. Any thread. */
struct harness_range {
	struct bus *bus;
	bool mmio;
	uint64_t base, size;
	const char *name;
};
unsigned harness_ranges(struct fake_machine *f, struct harness_range *out, unsigned max);

/*
 * One access, chosen by `random`: which range and where in it, what size, read
 * or write, which value. Returns what a read gave, 0 for a write.
 */
uint64_t harness_access(struct fake_machine *f, uint64_t (*random)(void *opaque), void *opaque);

/* Enable memory, I/O and bus mastering of all PCI functions and give them addresses, as firmware does. */
void harness_firmware(struct fake_machine *f);

/* Say on standard error where two states of the same machine differ. */
void harness_describe(const struct state_buf *a, const struct state_buf *b);
