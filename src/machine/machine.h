/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The virtual PC: RAM, buses, interrupt lines, devices and vCPU threads under
 * one main loop. It knows no chip by name: the board (src/device/q35.c) adds
 * them.
 *
 * Life: machine_new() -> board and devices -> a loader prepares `boot` ->
 * machine_reset() -> machine_start() ... machine_pause()/machine_resume() ->
 * machine_free(). Functions are for the main loop's thread unless they say
 * "any thread".
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/engine.h"
#include "machine/bus.h"
#include "machine/clock.h"
#include "machine/device.h"
#include "machine/irq.h"
#include "machine/memory.h"

/* The physical memory map of q35. */
#define Q35_LOW_MAX 0x80000000ull     /* RAM below 4 GiB ends here at the latest; the rest is at 4 GiB */
#define Q35_ECAM_BASE 0xb0000000ull   /* 256 MiB: buses 0..255 */
#define Q35_ECAM_SIZE 0x10000000ull
#define Q35_MMIO32_BASE 0xc0000000ull /* PCI memory window below 4 GiB */
#define Q35_MMIO32_END 0xfe000000ull
#define Q35_IOAPIC_BASE 0xfec00000ull
#define Q35_HPET_BASE 0xfed00000ull
#define Q35_MMIO64_BASE 0x8000000000ull /* 512 GiB: PCI memory window above 4 GiB */
#define Q35_MMIO64_END 0x10000000000ull /* 1 TiB = 40 physical bits */
#define Q35_RAM_MAX (Q35_MMIO64_BASE - (4ull << 30))
#define Q35_PM_BASE 0x600 /* ACPI PM I/O block, 128 ports */
#define Q35_GSIS 24

enum machine_stop { /* why the machine ended or stopped */
	MACHINE_SHUTDOWN_GUEST,  /* ACPI S5 */
	MACHINE_RESET_GUEST,     /* 0xcf9, keyboard controller, ACPI reset register */
	MACHINE_TRIPLE_FAULT,    /* a vCPU shut down */
	MACHINE_PANICKED,        /* pvpanic */
	MACHINE_DEBUG_EXIT,      /* isa-debug-exit; code in `arg` */
	MACHINE_ENGINE_ERROR,    /* text in `why` */
	MACHINE_POWERDOWN,       /* the power button was pressed: an announcement only */
};

/* What a machine tells its owner; called in the main loop's thread. For all but PANICKED and POWERDOWN the vCPUs are paused and the owner decides (machine_reset() + machine_resume(), or quit). */
struct machine_owner {
	void (*event)(void *opaque, enum machine_stop what, uint32_t arg, const char *why);
	void *opaque;
};

struct machine_config {
	const char *name;
	uint64_t memory;      /* bytes, page multiple, 1 MiB..Q35_RAM_MAX */
	unsigned cpus;        /* 1..ENGINE_MAX_CPUS */
	enum engine_kind engine; /* resolved: not AUTO */
	bool hide_pv, no_translate, native, native_always, lockstep;
	uint64_t engine_cache; /* engine_config.cache */
	struct loop *loop;    /* main loop; the caller's */
	struct machine_owner owner;
};

/* Register values of the boot processor that a loader wants at each reset; the others wait for SIPI. */
struct machine_boot {
	bool set;              /* false: reset vector (firmware) */
	struct cpu_state cpu;
	/* Called at each reset before the vCPUs start: put kernel, tables, … into RAM again. */
	int (*load)(void *opaque, struct machine *m, struct err *err);
	void *opaque;
	void (*free)(void *opaque);
};

enum machine_run_state { MACHINE_PRELAUNCH, MACHINE_RUNNING, MACHINE_PAUSED, MACHINE_ENDED };

struct machine_vcpu {
	struct machine *machine;
	unsigned index;
	struct vcpu *vcpu;
	pthread_t thread;
	bool has_thread;
	_Atomic int tid;
	bool ended; /* shut down or failed: waits for a reset; under run_lock */
};
struct machine {
	struct machine_config config;
	struct engine *engine;
	struct loop *loop;
	struct vclock *clock;
	struct guest_mem mem;
	uint8_t *ram; /* all of it; the low part ends at Q35_LOW_MAX */
	int ram_fd;
	struct bus *pio, *mmio;
	struct device *devices, **devices_end;
	struct machine_boot boot;
	struct machine_vcpu *vcpus; /* config.cpus of them */
	enum machine_run_state state;
	/* vCPU threads: they run while `go`; all of it under run_lock (vcpu.c). */
	pthread_mutex_t run_lock;
	pthread_cond_t run_cond;
	bool go, quit;
	unsigned inside; /* threads in vcpu_run() */

	/* Interrupt lines: ISA 0..15 fan out to PIC and IOAPIC, GSI 16..23 to the IOAPIC. Chips connect themselves. */
	struct irq pic_in[16];
	struct irq ioapic_in[Q35_GSIS];
	/* Set by the chips */
	int (*pic_ack)(void *opaque);
	void *pic_opaque;
	void (*ioapic_eoi)(void *opaque, uint8_t vector);
	void *ioapic_opaque;

	struct pci_host *pci;      /* set by the host bridge (machine/pci.h) */
	struct fw_cfg *fw_cfg;     /* set by the fw_cfg device (device/fw_cfg.h) */
	/* Press the power button; set by the PM device. Any thread. */
	void (*power_button)(void *opaque);
	void *power_opaque;
};

struct machine *machine_new(const struct machine_config *config, struct err *err);
void machine_free(struct machine *m); /* stops the vCPUs, frees devices in reverse order; NULL is allowed */

/* Reset every device in order, load the boot image, set vCPU states. The vCPUs must not run. */
int machine_reset(struct machine *m, struct err *err);
int machine_start(struct machine *m, struct err *err); /* make vCPU threads and run */
/* Bring all vCPUs out of the engine, stop the clock, tell devices. Returns when nothing of the guest runs. No-op if paused. */
void machine_pause(struct machine *m);
void machine_resume(struct machine *m);
/*
 * Keep the vCPUs out of the guest while the board changes: a device is plugged in or freed. Clock and devices go on.
 * In pairs that do not nest, in the main loop's thread; no-op unless the machine runs.
 */
void machine_hold(struct machine *m);
void machine_release(struct machine *m);

/* Something happened in the guest (from a device or a vCPU, any thread, device locks may be held): pauses where due and calls the owner from the main loop. */
void machine_signal(struct machine *m, enum machine_stop what, uint32_t arg);

/* Line of ISA interrupt 0..15, or GSI 16..23, for a device to keep. IRQ 0 goes to IOAPIC pin 2 (ACPI override). */
struct irq machine_irq(struct machine *m, unsigned n);
/* Message-signalled interrupt. Any thread. */
static inline void machine_msi(struct machine *m, uint64_t address, uint32_t data)
{
	engine_msi(m->engine, address, data);
}

/* Architectural state while the machine is paused (asserted). */
int machine_get_cpu(struct machine *m, unsigned index, struct cpu_state *s, struct err *err);
int machine_set_cpu(struct machine *m, unsigned index, const struct cpu_state *s, struct err *err);
/* Host thread id of a vCPU (gettid), 0 before machine_start(). */
int machine_cpu_tid(struct machine *m, unsigned index);

/* Save all devices and vCPUs into `b`, load them from a stream of the same board. While paused. RAM is not in it. */
int machine_save(struct machine *m, struct state_buf *b, struct err *err);
int machine_load(struct machine *m, const uint8_t *data, size_t len, struct err *err);

/* Table of one vCPU's struct cpu_state (cpu_table.c). */
extern const struct state_desc cpu_state_desc;

/* vcpu.c, for machine.c: make the threads; let them run; bring them out and wait; end them. */
int vcpus_create(struct machine *m, struct err *err);
void vcpus_go(struct machine *m);
void vcpus_halt(struct machine *m);
void vcpus_destroy(struct machine *m);

struct device *machine_find(struct machine *m, const char *id); /* NULL if there is none */
