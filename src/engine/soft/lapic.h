/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What lapic.c, timer.c and msr.c share. The rest of the engine uses the
 * functions of soft.h.
 *
 * Who writes what: registers that other threads look at (to find the target of
 * a message) are atomics written by the vCPU's own thread; IRR, TMR and the
 * pending errors are written by any thread; everything else is the own
 * thread's. The timer has a lock of its own, contended only by the timer
 * thread.
 */
#pragma once
#include "engine/soft/soft.h"

enum { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };
#define LVT_MASKED 0x10000u
#define LVT_LEVEL 0x8000u
#define LVT_TIMER_MODE 0x60000u
#define LVT_TIMER_ONESHOT 0x00000u
#define LVT_TIMER_PERIODIC 0x20000u
#define LVT_TIMER_DEADLINE 0x40000u

#define APIC_BASE_BSP 0x100u
#define APIC_BASE_EXTD 0x400u
#define APIC_BASE_EN 0x800u

#define APIC_TIMER_NEVER UINT64_MAX

struct apic_timer {
	pthread_mutex_t lock;
	_Atomic uint64_t deadline; /* CLOCK_MONOTONIC ns when it expires next, or APIC_TIMER_NEVER */
	uint64_t start;            /* ns at which the count was `initial`, where counting */
	uint64_t tsc_deadline;     /* IA32_TSC_DEADLINE */
	uint32_t initial;
	uint8_t shift;             /* divide configuration as a power of two */
	bool counting;             /* initial count runs (one-shot not yet expired, or periodic) */
	bool stalled;              /* periodic: the last tick is still in IRR; the next is armed when it is accepted */
};

struct lapic {
	struct soft_vcpu *v;
	_Atomic uint64_t base;
	_Atomic uint32_t irr[8], tmr[8];
	uint32_t isr[8];
	_Atomic uint32_t tpr, ppr, ldr, dfr, svr, lvt[LVT_COUNT];
	_Atomic uint32_t errors; /* collected since the last write of ESR */
	uint32_t esr, divide;
	uint64_t icr;
	_Atomic bool extint;     /* a message in ExtINT mode arrived */
	bool pv_eoi_set;         /* the guest's PV EOI bit is set for the highest vector in service */
	bool pv_eoi_check;       /* state was loaded: guest memory tells whether the bit is set */
	struct apic_timer timer;
};

/* ---- lapic.c ---- */

/* Write IA32_APIC_BASE: checks reserved bits and mode transitions; false: #GP(0). */
bool lapic_base_set(struct soft_vcpu *v, uint64_t value);
/* MSRs 800h-8FFh; false: #GP(0). */
bool lapic_msr_read(struct soft_vcpu *v, uint32_t index, uint64_t *value);
bool lapic_msr_write(struct soft_vcpu *v, uint32_t index, uint64_t value);
/* The timer expired: deliver through LVT timer. True if the vector was in IRR already. Any thread. */
bool lapic_timer_fire(struct lapic *l);
/* Settle what the guest did with its PV EOI bit; call before the MSR changes. Own thread. */
void lapic_pv_eoi_sync(struct soft_vcpu *v);

/* ---- lapic_msg.c ---- */

#define APIC_SVR_ENABLE 0x100u
#define LVT_REMOTE_IRR 0x4000u
#define ICR_BUSY 0x1000u
#define ICR_RESERVED 0xfff32000u /* of the x2APIC ICR (SDM vol. 3 figure 10-28) */
#define ESR_SEND_VECTOR 0x20u
#define ESR_RECEIVE_VECTOR 0x40u
#define ESR_REGISTER 0x80u
#define LAPIC_EXTINT 256 /* lapic_pending(): the vector comes from the PIC */

static inline uint32_t lapic_id(const struct lapic *l) { return l->v->vcpu.index; }
uint32_t lapic_ldr(struct lapic *l);
/* Record ESR bits; a new one raises LVT error. Any thread. (lapic.c) */
void lapic_error(struct lapic *l, uint32_t bits);
/* Deliver through an LVT entry, if it is not masked. Any thread. */
void lapic_lvt_deliver(struct lapic *l, unsigned n);
/* Do what l->icr says. */
void lapic_send_ipi(struct lapic *l, bool x2apic);
void lapic_send_self(struct lapic *l, uint8_t vector);
/* The INTR line at LINT0: LVT LINT0 was written; is it for the PIC to give the vector; `vector` ended. */
void lapic_lint0_changed(struct lapic *l);
bool lapic_lint0_extint(struct lapic *l);
void lapic_lint0_eoi(struct lapic *l, uint8_t vector);

/* ---- timer.c ---- */

uint64_t soft_now(void); /* CLOCK_MONOTONIC, ns */
/* The engine's clock thread is made with the first timer and ended with the last. 0 or -errno. */
int apic_timer_init(struct lapic *l);
void apic_timer_destroy(struct lapic *l);
/* Power-up state: disarmed. */
void apic_timer_reset(struct lapic *l);
/* After a change of LVT timer from `old`. */
void apic_timer_lvt_changed(struct lapic *l, uint32_t old);
void apic_timer_set_initial(struct lapic *l, uint32_t count);
uint32_t apic_timer_current(struct lapic *l);
void apic_timer_set_divide(struct lapic *l, uint32_t divide);
uint64_t apic_timer_tsc_deadline(struct lapic *l);
void apic_timer_set_tsc_deadline(struct lapic *l, uint64_t value);
/* The guest's TSC jumped. */
void apic_timer_tsc_changed(struct lapic *l);
/* The timer's vector left IRR. */
void apic_timer_accepted(struct lapic *l);
/* Take over initial count, current count, divide and deadline of a saved APIC; LVT is already in place. */
void apic_timer_restore(struct lapic *l, uint32_t initial, uint32_t current, uint32_t divide, uint64_t tsc_deadline);

/*
 * Offset that the vCPUs' TSCs share, less what the guest added itself
 * (IA32_TSC_ADJUST). Gives back the common offset if `offset` is within a
 * second of it, else makes `offset` the common one: vCPUs whose state is set
 * one after the other stay in step. See soft_tsc_restore().
 */
uint64_t timers_tsc_offset(struct soft_engine *e, uint64_t offset);

/* Copy to guest memory, with dirty log and code tracking. False if it is not writable RAM. */
bool soft_guest_write(struct soft_engine *e, uint64_t gpa, const void *data, unsigned size);

/* ---- kvmclock.c ---- */

void kvmclock_scale(uint32_t tsc_khz, uint32_t *mul, int8_t *shift);
uint64_t kvmclock_now(struct soft_vcpu *v); /* ns */
/* Write the guest's time page, if it has one, and the wall clock. */
void kvmclock_update(struct soft_vcpu *v);
void kvmclock_write_wall(struct soft_vcpu *v);
/* The guest's TSC is now host TSC + offset: timers and the time page follow. */
void soft_tsc_moved(struct soft_vcpu *v, uint64_t offset);
