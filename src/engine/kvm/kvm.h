/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kvm engine's inside.
 *
 *   kvm.c      the descriptor, what the kernel must offer, engine_ops
 *   memory.c   slots and the dirty log
 *   irq.c      MSIs, IOAPIC routes, irqfd, ioeventfd
 *   vcpu.c     the run loop: exits, kicks, the PIC's interrupts
 *   state.c    struct cpu_state to and from the kernel
 *   msr.c      which MSRs are state, which are refused to guests
 *   clock.c    the guest's clocks while it is paused
 *   cpuid.c    what guests see of the host's CPUID
 *   handover.c instructions that the kernel cannot emulate, given to soft
 *   probe.c    is this KVM worth using?
 *
 * Locks: slots_lock guards the slots (shared: lookups; exclusive: changes),
 * dirty_lock the harvest of dirty rings, irq_lock the routing table. None is
 * taken on the way from an exit to a device and back.
 */
#pragma once
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "engine/ops.h"

/* Pins of the machine's IOAPIC: the GSIs 0..23, whose EOIs come back. */
#define KVM_PINS 24u
/* Interrupts KVM_RUN; its handler does nothing. Needs to be unblocked in vCPU threads only. */
#define KVM_KICK_SIGNAL SIGUSR1
#define KVM_PAGE 4096u

struct kvm_caps {
	unsigned xsave_size;   /* bytes of KVM_GET_XSAVE2 */
	unsigned ring_entries; /* of a dirty ring; 0: use the dirty bitmap */
	unsigned max_slots, max_vcpus, max_routes;
	bool sync_regs;
	bool any_length; /* ioeventfd without a size */
	bool enforce_pv;
};

struct kvm_slot {
	uint64_t gpa, size; /* size 0: free */
	uint8_t *hva;
	bool readonly;
	_Atomic uint64_t *dirty; /* a bit a page while the dirty log runs */
};

/* An eventfd and its message, behind GSI KVM_PINS + its index. */
struct kvm_route {
	int fd; /* -1: free */
	struct engine_route route;
};

/* KVM_EXIT reasons that the kernel finishes at the next KVM_RUN set `unfinished`. */
struct kvm_vcpu {
	struct vcpu vcpu; /* first */
	int fd;
	struct kvm_run *run;
	struct kvm_dirty_gfn *ring;
	uint32_t ring_next;
	_Atomic uint32_t requests; /* KVM_REQ_* of vcpu.c */
	_Atomic int tid;           /* of the thread inside vcpu_run(), else 0 */
	bool unfinished;
	struct kvm_handover *handover; /* handover.c; NULL until the first one */
	uint64_t frozen_tsc, frozen_deadline; /* while engine.frozen */
	_Atomic uint64_t exits, handovers;
};

struct kvm_engine {
	struct engine engine; /* first */
	int sys, vm;
	int boot_fd; /* vCPU 0 until kvm_vcpu_create() takes it: some questions only a vCPU answers */
	struct kvm_caps caps;
	uint32_t tsc_khz;
	size_t run_size;
	struct kvm_cpuid2 *cpuid; /* as vCPU 0 sees it */
	unsigned *msr_rows;       /* rows of the MSR table that this host has (msr.c) */
	unsigned msr_count;
	_Atomic(struct kvm_vcpu *) vcpus[ENGINE_MAX_CPUS];
	bool frozen; /* clock.c */
	uint64_t frozen_clock;

	pthread_rwlock_t slots_lock;
	struct kvm_slot *slots;
	unsigned nslots;
	_Atomic bool logging;
	pthread_mutex_t dirty_lock;

	pthread_mutex_t irq_lock;
	struct engine_route pins[KVM_PINS];
	struct kvm_route *routes;
	unsigned nroutes;
	_Atomic bool extint;

	pthread_mutex_t soft_lock; /* the making of `soft` */
	_Atomic(struct engine *) soft;
};

static inline struct kvm_engine *kvm_engine(struct engine *e) { return (struct kvm_engine *)e; }
static inline struct kvm_vcpu *kvm_vcpu(struct vcpu *v) { return (struct kvm_vcpu *)v; }
static inline struct kvm_engine *kvm_vcpu_engine(struct kvm_vcpu *v) { return (struct kvm_engine *)v->vcpu.engine; }

/* kvm.c */
int kvm_open(struct err *err); /* descriptor of /dev/kvm of the right version, or a negative errno */
int kvm_ioctl(int fd, unsigned long request, void *arg); /* result or negative errno; repeats after EINTR */

/* memory.c */
int kvm_memory_init(struct kvm_engine *e);
void kvm_memory_free(struct kvm_engine *e);
int kvm_map(struct engine *e, uint64_t gpa, uint64_t size, void *hva, bool readonly, struct err *err);
int kvm_unmap(struct engine *e, uint64_t gpa, uint64_t size, struct err *err);
int kvm_dirty_start(struct engine *e, struct err *err);
int kvm_dirty_stop(struct engine *e, struct err *err);
int kvm_dirty_fetch(struct engine *e, uint64_t gpa, uint64_t size, uint8_t *bitmap, struct err *err);
void kvm_written(struct engine *e, uint64_t gpa, uint64_t len);
/* Move what the rings hold into the slots' bitmaps. Any thread. */
void kvm_dirty_harvest(struct kvm_engine *e);

/* irq.c */
int kvm_irq_init(struct kvm_engine *e);
void kvm_irq_free(struct kvm_engine *e);
void kvm_msi(struct engine *e, uint64_t address, uint32_t data);
void kvm_ioapic_routes(struct engine *e, const struct engine_route *routes, unsigned n);
int kvm_ioeventfd(struct engine *e, uint64_t gpa, unsigned size, int eventfd, bool add, struct err *err);
int kvm_irqfd(struct engine *e, int eventfd, uint64_t address, uint32_t data, bool add, struct err *err);

/* cpuid.c */
int kvm_cpuid_init(struct kvm_engine *e, struct err *err);
bool kvm_cpuid(struct engine *e, unsigned index, uint32_t leaf, uint32_t subleaf, uint32_t regs[4]);
int kvm_cpuid_apply(struct kvm_engine *e, int fd, unsigned index, struct err *err);
struct kvm_cpuid2 *kvm_cpuid_supported(int sys, struct err *err); /* free() it */

/* msr.c */
int kvm_msr_filter(struct kvm_engine *e, struct err *err);
int kvm_msr_init(struct kvm_engine *e, struct err *err); /* finds which MSRs exist, by boot_fd */
void kvm_msr_limit(int fd); /* take from a new vCPU what it could not give to a saved state */
int kvm_msr_get(struct kvm_vcpu *v, struct cpu_state *s, struct err *err);
int kvm_msr_set(struct kvm_vcpu *v, const struct cpu_state *s, struct err *err); /* all but the TSC deadline */
int kvm_msr_set_changed(struct kvm_vcpu *v, const struct cpu_state *from, const struct cpu_state *to, struct err *err);
int kvm_msr_set_deadline(struct kvm_vcpu *v, const struct cpu_state *s, struct err *err);
void kvm_msr_exit(struct kvm_vcpu *v, bool write); /* an access that the filter caught */

/* clock.c */
void kvm_clock(struct engine *e, bool run);
uint64_t kvm_clock_get(struct kvm_engine *e); /* kvmclock, ns */
void kvm_clock_set(struct kvm_engine *e, uint64_t ns);

/* vcpu.c */
struct vcpu *kvm_vcpu_create(struct engine *e, unsigned index, struct err *err);
void kvm_vcpu_destroy(struct vcpu *v);
enum vcpu_exit kvm_run(struct vcpu *v, struct err *err);
void kvm_kick(struct vcpu *v);
void kvm_nmi(struct vcpu *v);
void kvm_set_extint(struct engine *e, bool level);
int kvm_kick_init(struct err *err);
/* Let the kernel finish the access that stopped the vCPU, without running the guest. */
int kvm_settle(struct kvm_vcpu *v, struct err *err);

/* state.c */
int kvm_get_state(struct vcpu *v, struct cpu_state *s, struct err *err);
int kvm_set_state(struct vcpu *v, const struct cpu_state *s, struct err *err);
bool kvm_translate(struct vcpu *v, uint64_t linear, uint64_t *gpa);
/* Parts of it, without system calls, for the hand-over. */
void kvm_regs_to_state(const struct kvm_regs *r, struct cpu_state *s);
void kvm_regs_from_state(struct kvm_regs *r, const struct cpu_state *s);
void kvm_sregs_to_state(const struct kvm_sregs *r, struct cpu_state *s);
void kvm_sregs_from_state(struct kvm_sregs *r, const struct cpu_state *s);
void kvm_events_to_state(const struct kvm_vcpu_events *r, struct cpu_state *s);
void kvm_events_from_state(struct kvm_vcpu_events *r, const struct cpu_state *s);
int kvm_fpu_get(struct kvm_vcpu *v, struct cpu_state *s, struct err *err); /* XSAVE area and XCR0 */
int kvm_fpu_set(struct kvm_vcpu *v, const struct cpu_state *s, struct err *err);
int kvm_debug_get(struct kvm_vcpu *v, struct cpu_state *s, struct err *err);
int kvm_debug_set(struct kvm_vcpu *v, const struct cpu_state *s, struct err *err);

/* handover.c */
/* The kernel could not emulate the instruction at RIP: soft executes it. True if the vCPU can go on, else see *exit. */
bool kvm_handover(struct kvm_vcpu *v, enum vcpu_exit *exit, struct err *err);
/* After each exit: the kernel brings registers along only while hand-overs are frequent. */
void kvm_handover_idle(struct kvm_vcpu *v);
void kvm_handover_vcpu_free(struct kvm_vcpu *v);
void kvm_handover_free(struct kvm_engine *e);
void kvm_handover_map(struct kvm_engine *e, uint64_t gpa, uint64_t size, void *hva, bool readonly, bool add);
