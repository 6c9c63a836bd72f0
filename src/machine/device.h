/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device is a class record (what it is called, its properties, what it does
 * at power-on, reset and removal, its state table) and an object whose first
 * member is struct device (or a struct that begins with it).
 *
 * Life: device_new() -> properties -> device_realize() -> reset ... -> device_free().
 * Callbacks of the class run in the main loop's thread; reset also only while
 * no vCPU runs. `lock` guards the device's registers and state: give it to the
 * device's io_ranges, and take it in timers, I/O completions and irq inputs.
 * Lock order: device -> interrupt controller (pic, ioapic) -> engine. A device
 * never calls into another device but through irq lines and backends.
 */
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "machine/state.h"
#include "util/err.h"

struct machine;
struct device;

enum prop_type { PROP_U32, PROP_U64, PROP_BOOL, PROP_STRING, PROP_PTR }; /* U64 takes K, M, G, T suffixes; PTR: a back end, by device_set_ptr() */
struct property {
	const char *name; /* NULL ends the table */
	enum prop_type type;
	size_t offset;
	const char *def;  /* default as text, or NULL: 0, false, NULL */
	const char *help;
	uint64_t min, max; /* integers; both 0: any */
};
#define PROP_DEF_(t, ptype, ctype, field, n, d, h, lo, hi) { .name = n, .type = ptype, \
	.offset = offsetof(ctype, field) + 0 * sizeof((t *)0 == &((ctype *)0)->field), .def = d, .help = h, .min = lo, .max = hi }
#define PROP_DEF_U32(ctype, field, name, def, lo, hi, help) PROP_DEF_(uint32_t, PROP_U32, ctype, field, name, def, help, lo, hi)
#define PROP_DEF_U64(ctype, field, name, def, lo, hi, help) PROP_DEF_(uint64_t, PROP_U64, ctype, field, name, def, help, lo, hi)
#define PROP_DEF_BOOL(ctype, field, name, def, help) PROP_DEF_(bool, PROP_BOOL, ctype, field, name, def, help, 0, 0)
#define PROP_DEF_STRING(ctype, field, name, def, help) PROP_DEF_(char *, PROP_STRING, ctype, field, name, def, help, 0, 0)
#define PROP_DEF_PTR(ctype, field, n, h) { .name = n, .type = PROP_PTR, .offset = offsetof(ctype, field), .help = h }

struct device_class {
	const char *name;        /* as in -device: "virtio-rng-pci", "hpet" */
	const char *description; /* one line for help */
	size_t size;             /* of the object */
	const struct property *props; /* or NULL */
	int (*realize)(struct device *d, struct err *err);
	void (*unrealize)(struct device *d); /* undo realize: ranges, timers, descriptors; may be NULL */
	void (*reset)(struct device *d);     /* power-on state; may be NULL */
	const struct state_desc *state;      /* complete; NULL only for a device that holds nothing a guest can change */
	/* Ask the guest to let go of it (PCIe hotplug); NULL: cannot be unplugged. */
	int (*unplug)(struct device *d, struct err *err);
	/* The machine stops or goes on: flush and hold, or resume, I/O. May be NULL. */
	void (*stopped)(struct device *d, bool stopped);
};

struct device {
	const struct device_class *cls;
	struct machine *machine;
	char id[64];   /* unique in its machine */
	pthread_mutex_t lock; /* recursive: no */
	bool realized;
	struct device *next; /* in the machine, in order of realization */
};

/* Object with defaults set, not yet in the machine. `id` NULL: CLASS or CLASS.N. NULL and err: no memory, id taken. */
struct device *device_new(struct machine *m, const struct device_class *cls, const char *id, struct err *err);
/* Set a property from text before realize. -ENOENT names the properties there are, -EINVAL the form wanted, -ERANGE the range. */
int device_set(struct device *d, const char *name, const char *value, struct err *err);
void device_set_ptr(struct device *d, const char *name, void *ptr); /* asserts that name is a PROP_PTR */
/* Put it into its machine. On failure the object is freed. */
int device_realize(struct device *d, struct err *err);
/* Take it out (unrealize) and free it; NULL is allowed. */
void device_free(struct device *d);
void device_reset(struct device *d);
