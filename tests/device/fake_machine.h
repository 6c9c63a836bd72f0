/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A machine for device tests: 16 MiB of RAM, the real buses and interrupt
 * lines, but an engine that only writes down what reaches it and a clock that
 * moves when the test says so. fake_machine.c and fake_clock.c define the
 * symbols engine_soft_ops, engine_kvm_ops, vclock_* and vtimer_* themselves, so
 * the linker takes neither engine nor machine/clock.c from the libraries, and
 * clock_gettime(CLOCK_REALTIME) follows the same clock.
 */
#pragma once
#include "engine/ops.h"
#include "machine/backend.h"
#include "machine/machine.h"

#define FAKE_RAM (16ull << 20)
#define FAKE_LOG 4096

struct fake_msi {
	uint64_t address;
	uint32_t data;
};

struct fake_engine {
	struct engine engine;
	pthread_mutex_t lock;
	struct fake_msi msi[FAKE_LOG]; /* the last FAKE_LOG, msi[i % FAKE_LOG] */
	unsigned msis;                 /* since the start */
	unsigned taken;                /* by fake_msi_take() */
	bool extint;                   /* level of INTR */
	unsigned extint_rises;
	struct engine_route route[Q35_GSIS];
	unsigned routes, route_calls;
	uint64_t written_bytes; /* engine_written() */
	bool fast_doorbells;    /* engine_ioeventfd() and engine_irqfd() succeed; default -ENOTSUP */
};

struct fake_event {
	enum machine_stop what;
	uint32_t arg;
};

struct fake_machine {
	struct machine *m;
	struct loop *loop;
	struct fake_engine *engine;
	struct fake_event event[64]; /* what the owner was told */
	unsigned events;
	/* The test's own; freed after the machine, before the loop. */
	void *user;
	void (*user_free)(void *user);
};

/* Aborts if there is no memory. One vCPU, which never runs. State PRELAUNCH; machine_resume() makes it RUNNING. */
struct fake_machine *fake_machine_new(void);
void fake_machine_free(struct fake_machine *f); /* the machine, its devices and the loop */

/* Let `ns` pass: due timers fire in order, each at its own time, in this thread, be the clock started or not. */
void fake_machine_advance(struct fake_machine *f, uint64_t ns);
/* Run what was posted to the loop until now (signals, events of descriptors that are ready). */
void fake_machine_loop(struct fake_machine *f);

/* The next message-signalled interrupt that was not taken yet, in order. False: there is none. */
bool fake_msi_take(struct fake_machine *f, struct fake_msi *msi);
void fake_msi_clear(struct fake_machine *f);

/* CLOCK_REALTIME of the test program: begins at 2026-01-01 00:00:00 UTC in fake_machine_new(). */
#define FAKE_EPOCH_NS 1767225600000000000ull
extern uint64_t fake_realtime_ns;
extern unsigned fake_clock_fired; /* how often a timer fired, all clocks together */
void fake_clock_advance(struct vclock *c, uint64_t ns);

/* Accesses as a vCPU makes them. */
static inline uint32_t fake_in(struct fake_machine *f, uint16_t port, unsigned size)
{
	return bus_read(f->m->pio, port, size);
}
static inline void fake_out(struct fake_machine *f, uint16_t port, uint32_t value, unsigned size)
{
	bus_write(f->m->pio, port, value, size);
}
static inline uint64_t fake_read(struct fake_machine *f, uint64_t gpa, unsigned size)
{
	return bus_read(f->m->mmio, gpa, size);
}
static inline void fake_write(struct fake_machine *f, uint64_t gpa, uint64_t value, unsigned size)
{
	bus_write(f->m->mmio, gpa, value, size);
}

/* Add a device with default properties (id NULL: its class name); aborts on failure. */
struct device *fake_device(struct fake_machine *f, const char *cls, const char *id);

/* A character back end that keeps what the device wrote and takes only as much as it is told to. */
struct fake_chardev {
	struct chardev chardev;
	uint8_t out[65536];
	size_t len;      /* bytes in `out` */
	size_t room;     /* how many more it takes; SIZE_MAX: all */
	unsigned writes, accepts;
};
void fake_chardev_init(struct fake_chardev *c);
/* A peer types: gives as much as the device takes now, returns how much that was. */
size_t fake_chardev_type(struct fake_chardev *c, const void *data, size_t len);
