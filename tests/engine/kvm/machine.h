/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The smallest machine on the engine contract: RAM, a port to leave by, a PIC
 * of one line, one echoing device register. Runs a payload of tests/guests on
 * either engine.
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>

#include "engine/engine.h"
#include "guest.h"

#define MACHINE_MAX_CPUS 4

struct machine {
	struct engine *engine;
	struct vcpu *vcpus[MACHINE_MAX_CPUS];
	unsigned cpus;
	uint8_t *ram, *rom;
	bool own_ram;
	_Atomic uint32_t exit_code;
	_Atomic bool exited;
	bool stop_at_markers;     /* PORT_MARKER kicks the vCPU */
	_Atomic unsigned markers; /* writes to PORT_MARKER */
	_Atomic unsigned rom_writes;
	_Atomic int intr_vector;  /* what the PIC answers, -1: nothing */
	_Atomic unsigned eois;    /* ioapic_eoi() calls */
	_Atomic uint64_t reg;     /* the register at DEVICE */
	_Atomic unsigned doorbells; /* writes to DOORBELL that no descriptor took */
	int irqfd;                /* what PORT_IRQFD signals, -1: a plain message instead */
	char serial[256];
	unsigned serial_len;
	enum vcpu_exit ends[MACHINE_MAX_CPUS];
	struct err err;
};

/* Engine, RAM (`ram` or, if NULL, RAM of its own) and vCPUs. False: m->err. */
bool machine_init(struct machine *m, enum engine_kind kind, unsigned cpus, uint8_t *ram);
void machine_free(struct machine *m);
/* Put the payload into RAM and vCPU 0 at its start. */
bool machine_load(struct machine *m, const char *payload);
/* Run all vCPUs, each in a thread, until the payload leaves or one of them stops by itself. */
void machine_run(struct machine *m);
/* A payload: its path in the build directory. */
const char *machine_payload(const char *name);
