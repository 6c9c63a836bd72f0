/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The engine contract: how guest instructions execute.
 *
 * An engine runs vCPUs over guest memory and reaches the rest of the machine
 * only through `struct engine_host`. Both engines (kvm, soft) read and write
 * the same architectural state, so a vCPU can move from one to the other
 * between two instructions. The local APIC is the engine's; PIC, IOAPIC and
 * timers are the machine's (KVM's "split irqchip").
 *
 * Thread safety: vcpu_run() and the functions marked "own thread" are called
 * only by the vCPU's thread (or while no thread runs it). Everything else may
 * be called from any thread unless it says otherwise. Callbacks of
 * engine_host arrive on vCPU threads, several at once.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "engine/cpu_state.h"
#include "util/err.h"

enum engine_kind { ENGINE_AUTO, ENGINE_KVM, ENGINE_SOFT };

struct engine;
struct vcpu;

struct engine_host {
	void *opaque;
	/* Port access; size 1, 2 or 4. `value` is zero-extended. Unclaimed ports read all ones. */
	uint32_t (*pio_read)(void *opaque, uint16_t port, unsigned size);
	void (*pio_write)(void *opaque, uint16_t port, uint32_t value, unsigned size);
	/* Access outside RAM slots; size 1, 2, 4 or 8. Unclaimed addresses read all ones. */
	uint64_t (*mmio_read)(void *opaque, uint64_t gpa, unsigned size);
	void (*mmio_write)(void *opaque, uint64_t gpa, uint64_t value, unsigned size);
	/* INTA cycle of the PIC: the vector (0..255) of the interrupt that engine_set_extint() announced, or -1 for none. */
	int (*pic_ack)(void *opaque);
	/* A local APIC ended a level-triggered interrupt of this vector. */
	void (*ioapic_eoi)(void *opaque, uint8_t vector);
};

struct engine_config {
	enum engine_kind kind; /* ENGINE_AUTO is resolved with engine_probe() before */
	unsigned cpus;         /* 1..ENGINE_MAX_CPUS */
	struct engine_host host;
	bool hide_pv;          /* do not offer the KVM CPUID leaves */
	bool no_translate;     /* soft: interpret everything */
	bool native;           /* soft: long stretches of guest user code in processes of their own */
	bool native_always;    /* soft, with native: all of it, whether it pays or not (a test) */
	bool lockstep;         /* soft: compare all translated code with the interpreter */
	uint64_t cache;        /* soft: bytes for decoded and translated code and TLBs; 0: the default */
};
#define ENGINE_MAX_CPUS 255u
#define ENGINE_CACHE_MIN (8ull << 20)  /* of engine_config.cache */
#define ENGINE_CACHE_MAX (1ull << 30)

/* What stopped vcpu_run(). */
enum vcpu_exit {
	VCPU_EXIT_KICK,     /* vcpu_kick() was called */
	VCPU_EXIT_SHUTDOWN, /* triple fault; the state is that before the third fault */
	VCPU_EXIT_ERROR,    /* the engine cannot go on; see err */
};

struct engine_stats {
	uint64_t instructions;  /* soft: guest instructions run, all vCPUs, approximately up to date; kvm: 0 */
	uint64_t handovers;     /* kvm: instructions given to soft */
	uint64_t blocks_decoded, tlb_misses, exits;
	uint64_t cache_limit, cache_used, cache_flushes; /* soft: bytes of engine_config.cache; times that it was emptied */
	uint64_t native_stretches, native_us; /* soft: times that user code ran natively, and for how long in all */
};

/*
 * Result of engine_probe_kvm(). `usable` decides ENGINE_AUTO; `reason` is one
 * sentence for people in either case.
 */
struct engine_probe {
	bool present;         /* /dev/kvm opens and is API version 12 */
	bool usable;          /* ring 0 at hardware speed and the everyday instructions execute */
	unsigned ring0_ns;    /* median time of a ring-0 instruction, nanoseconds x 1 */
	unsigned max_vcpus;
	char refused[128];    /* everyday instructions that did not execute, space-separated */
	char reason[256];
};

/* Takes a few milliseconds. Never fails: what went wrong is the reason. */
void engine_probe_kvm(struct engine_probe *probe);

/* NULL and err if the host cannot run this engine. */
struct engine *engine_new(const struct engine_config *config, struct err *err);
/* All vCPUs must have been freed. NULL is allowed. */
void engine_free(struct engine *e);
enum engine_kind engine_kind(const struct engine *e);

/*
 * RAM. A slot maps [gpa, gpa+size) to host memory; both page aligned. Slots
 * must not overlap. Read-only slots send writes to mmio_write. The memory
 * stays the caller's and must outlive the slot. Any thread; running vCPUs see
 * the change before the call returns. -EEXIST, -ENOSPC (too many slots), -ENOENT.
 */
int engine_map(struct engine *e, uint64_t gpa, uint64_t size, void *hva, bool readonly, struct err *err);
/*
 * The slot at `gpa` is backed by `fd` from `offset` on: an engine that runs guest code in a process of its own maps it
 * there. The descriptor stays the caller's and must outlive the slot. Engines that have no use for it do nothing.
 */
int engine_map_file(struct engine *e, uint64_t gpa, int fd, uint64_t offset, struct err *err);
int engine_unmap(struct engine *e, uint64_t gpa, uint64_t size, struct err *err);

/*
 * Dirty log. After engine_dirty_start() writes by vCPUs and engine_written()
 * are recorded per 4 KiB page. engine_dirty_fetch() writes one bit a page for
 * [gpa, gpa+size) (bit 0 of byte 0 first; size/4096 bits, rounded up to 8
 * bytes) and clears them. The range must lie in one slot.
 */
int engine_dirty_start(struct engine *e, struct err *err);
int engine_dirty_stop(struct engine *e, struct err *err);
int engine_dirty_fetch(struct engine *e, uint64_t gpa, uint64_t size, uint8_t *bitmap, struct err *err);

/*
 * The caller wrote guest RAM behind the vCPUs' back (DMA, loaders, monitors):
 * dirty log, and decoded code of soft is dropped. Cheap where no code is.
 */
void engine_written(struct engine *e, uint64_t gpa, uint64_t len);

/* Deliver a message-signalled interrupt (SDM vol. 3 §10.11). Any thread. */
void engine_msi(struct engine *e, uint64_t address, uint32_t data);
/* Level of the PIC's INTR line; it reaches vCPU 0 through LVT0 in ExtINT mode. */
void engine_set_extint(struct engine *e, bool level);
/*
 * Tell which vectors of IOAPIC pin routes are level-triggered, so that their
 * EOIs come back: `n` messages, masked pins given as address 0. Called at each
 * change of a redirection entry.
 */
struct engine_route {
	uint64_t address;
	uint32_t data;
};
void engine_ioapic_routes(struct engine *e, const struct engine_route *routes, unsigned n);

/*
 * A doorbell: a guest write of `size` bytes (0: any, 1, 2, 4, 8) at `gpa`
 * (or port) signals `eventfd` instead of calling mmio_write. The descriptor
 * stays the caller's. -ENOTSUP where the engine has no faster way: then the
 * machine's dispatch does it.
 */
int engine_ioeventfd(struct engine *e, uint64_t gpa, unsigned size, int eventfd, bool add, struct err *err);
/* Each signal of `eventfd` sends the message; remove with add=false. -ENOTSUP as above. */
int engine_irqfd(struct engine *e, int eventfd, uint64_t address, uint32_t data, bool add, struct err *err);

/*
 * CPUID leaf as the guest sees it on vCPU `index`. regs[4]: eax, ebx, ecx, edx.
 * Returns false for a leaf that does not exist (regs zeroed).
 */
bool engine_cpuid(struct engine *e, unsigned index, uint32_t leaf, uint32_t subleaf, uint32_t regs[4]);
/*
 * Freeze (run = false) and thaw the guest's own clocks: TSC, kvmclock and APIC
 * timers stand still in between. While no vCPU is inside vcpu_run(). Engines
 * start thawed; a repeated call changes nothing.
 */
void engine_clock(struct engine *e, bool run);
/* TSC frequency of the guest in kHz. */
uint32_t engine_tsc_khz(struct engine *e);
void engine_get_stats(struct engine *e, struct engine_stats *stats);

/* vCPUs, index 0..cpus-1, each made once. The state is that of cpu_state_reset(). */
struct vcpu *vcpu_new(struct engine *e, unsigned index, struct err *err);
void vcpu_free(struct vcpu *v);

/*
 * Run until an exit. HLT, INIT/SIPI waits and timers are handled inside and
 * cost no CPU. Own thread. On VCPU_EXIT_ERROR err is set.
 */
enum vcpu_exit vcpu_run(struct vcpu *v, struct err *err);
/* Make the current, or else the next, vcpu_run() return VCPU_EXIT_KICK soon (microseconds; also out of HLT). */
void vcpu_kick(struct vcpu *v);
/* Post a non-maskable interrupt. Any thread. */
void vcpu_nmi(struct vcpu *v);

/*
 * Architectural state. Own thread, or while the vCPU is outside vcpu_run().
 * vcpu_set_state() refuses (-EINVAL) what no CPU could be in: reserved bits of
 * CR0/CR4/EFER/XCR0, non-canonical bases. It flushes every cached translation.
 */
int vcpu_get_state(struct vcpu *v, struct cpu_state *s, struct err *err);
int vcpu_set_state(struct vcpu *v, const struct cpu_state *s, struct err *err);

/*
 * Execute exactly `n` instructions (fewer on an exit other than KICK, or if vcpu_kick() comes between two elements of a
 * string instruction: it is not complete then). Own thread. soft only: -ENOTSUP on kvm.
 */
int vcpu_step(struct vcpu *v, unsigned n, enum vcpu_exit *exit, struct err *err);

/* Guest-linear to guest-physical by the vCPU's current paging; false if not mapped. While the vCPU is outside vcpu_run(). */
bool vcpu_translate(struct vcpu *v, uint64_t linear, uint64_t *gpa);
