/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Interrupt messages (SDM vol. 3 §10.6, §10.11): from devices, from other
 * APICs, from an APIC's own LVT, and which APICs accept them.
 */
#include "engine/soft/lapic.h"

enum { DM_FIXED, DM_LOWEST, DM_SMI, DM_REMOTE_READ, DM_NMI, DM_INIT, DM_SIPI, DM_EXTINT };
#define BROADCAST UINT32_MAX

struct message {
	uint32_t dest; /* BROADCAST, or as the mode of the target defines */
	uint8_t mode, vector;
	bool logical, level;
};

static inline uint32_t get(_Atomic uint32_t *reg)
{
	return atomic_load_explicit(reg, memory_order_relaxed);
}

static bool enabled(struct lapic *l)
{
	return atomic_load(&l->base) & APIC_BASE_EN;
}

static bool x2apic(struct lapic *l)
{
	return atomic_load(&l->base) & APIC_BASE_EXTD;
}

uint32_t lapic_ldr(struct lapic *l)
{
	uint32_t id = lapic_id(l);

	return x2apic(l) ? (id >> 4) << 16 | 1u << (id & 15) : get(&l->ldr);
}

/* ---- Acceptance ---------------------------------------------------------- */

static void wake(struct lapic *l, struct lapic *from, uint32_t request)
{
	if (l == from)
		soft_request(l->v, request);
	else
		soft_wake(l->v, request);
}

static void accept_vector(struct lapic *l, struct lapic *from, uint8_t vector, bool level)
{
	uint32_t bit = 1u << (vector % 32);

	if (!(get(&l->svr) & APIC_SVR_ENABLE))
		return;
	if (vector < 16) {
		lapic_error(l, ESR_RECEIVE_VECTOR);
		return;
	}
	if (level)
		atomic_fetch_or(&l->tmr[vector / 32], bit);
	else if (atomic_load(&l->tmr[vector / 32]) & bit)
		atomic_fetch_and(&l->tmr[vector / 32], ~bit);
	/* Set already: who set it has woken the vCPU or is about to. */
	if (!(atomic_fetch_or(&l->irr[vector / 32], bit) & bit))
		wake(l, from, REQ_IRQ);
}

static void accept(struct lapic *l, struct lapic *from, unsigned mode, uint8_t vector, bool level)
{
	if (!enabled(l))
		return;
	switch (mode) {
	case DM_FIXED:
	case DM_LOWEST:
		accept_vector(l, from, vector, level);
		break;
	case DM_NMI:
		wake(l, from, REQ_NMI);
		break;
	case DM_INIT:
		wake(l, from, REQ_INIT);
		break;
	case DM_SIPI:
		atomic_store(&l->v->sipi_vector, vector);
		wake(l, from, REQ_SIPI);
		break;
	case DM_EXTINT:
		atomic_store(&l->extint, true);
		wake(l, from, REQ_IRQ);
		break;
	default: /* there is no SMM; remote read is gone since Pentium 4 */
		break;
	}
}

/* ---- Destinations -------------------------------------------------------- */

static struct lapic *apic_at(struct soft_engine *e, unsigned n)
{
	struct soft_vcpu *v = __atomic_load_n(&e->vcpus[n], __ATOMIC_ACQUIRE);

	return v ? __atomic_load_n(&v->lapic, __ATOMIC_ACQUIRE) : NULL;
}

static bool matches(struct lapic *l, const struct message *m)
{
	uint32_t ldr;

	if (m->dest == BROADCAST)
		return true;
	if (!m->logical)
		return m->dest == lapic_id(l);
	ldr = lapic_ldr(l);
	if (x2apic(l))
		return ldr >> 16 == m->dest >> 16 && ldr & m->dest & 0xffff;
	ldr >>= 24;
	if (get(&l->dfr) >> 28 == 0xf) /* flat */
		return ldr & m->dest & 0xff;
	return (m->dest >> 4 == 0xf || ldr >> 4 == m->dest >> 4) && ldr & m->dest & 0xf; /* cluster */
}

/* The target at the lowest priority; among equals the vector chooses. */
static struct lapic *arbitrate(struct soft_engine *e, const struct message *m)
{
	unsigned cpus = e->engine.config.cpus, start = m->vector % cpus;
	struct lapic *best = NULL;

	for (unsigned n = 0; n < cpus; n++) {
		struct lapic *l = apic_at(e, (start + n) % cpus);

		if (l && enabled(l) && get(&l->svr) & APIC_SVR_ENABLE && matches(l, m) &&
		    (!best || get(&l->ppr) < get(&best->ppr)))
			best = l;
	}
	return best;
}

static void deliver(struct soft_engine *e, const struct message *m, struct lapic *from, bool not_self)
{
	unsigned cpus = e->engine.config.cpus;
	struct lapic *l;

	if (m->mode == DM_LOWEST) {
		l = arbitrate(e, m);
		if (l)
			accept(l, from, m->mode, m->vector, m->level);
		return;
	}
	if (!m->logical && m->dest != BROADCAST) {
		l = m->dest < cpus ? apic_at(e, m->dest) : NULL;
		if (l)
			accept(l, from, m->mode, m->vector, m->level);
		return;
	}
	for (unsigned n = 0; n < cpus; n++) {
		l = apic_at(e, n);
		if (l && !(not_self && l == from) && matches(l, m))
			accept(l, from, m->mode, m->vector, m->level);
	}
}

/* SDM vol. 3 §10.11.1, §10.11.2. */
void soft_msi(struct engine *engine, uint64_t address, uint32_t data)
{
	struct message m = {
		.dest = address >> 12 & 0xff,
		.logical = address >> 2 & 1,
		.mode = data >> 8 & 7,
		.vector = data,
		.level = data >> 15 & 1,
	};

	if (address >> 20 != 0xfee)
		return;
	if (m.dest == 0xff)
		m.dest = BROADCAST;
	/* Redirection hint: one of the logical set. */
	if (address >> 3 & 1 && m.logical && m.mode == DM_FIXED)
		m.mode = DM_LOWEST;
	deliver(soft_engine(engine), &m, NULL, false);
}

/* ---- From an APIC -------------------------------------------------------- */

void lapic_send_self(struct lapic *l, uint8_t vector)
{
	if (vector < 16)
		lapic_error(l, ESR_SEND_VECTOR);
	else
		accept(l, l, DM_FIXED, vector, false);
}

void lapic_send_ipi(struct lapic *l, bool x2)
{
	struct soft_engine *e = l->v->engine;
	uint32_t icr = l->icr;
	unsigned shorthand = icr >> 18 & 3;
	struct message m = {
		.dest = x2 ? l->icr >> 32 : l->icr >> 56,
		.logical = icr >> 11 & 1,
		.mode = icr >> 8 & 7,
		.vector = icr,
	};

	if (m.mode <= DM_LOWEST && m.vector < 16) {
		lapic_error(l, ESR_SEND_VECTOR);
		return;
	}
	/* INIT level de-assert only reset arbitration IDs, on processors that had them. */
	if (m.mode == DM_INIT && (icr & 0xc000) == 0x8000)
		return;
	if (shorthand == 1) {
		accept(l, l, m.mode, m.vector, false);
		return;
	}
	if (shorthand || (!x2 && m.dest == 0xff))
		m.dest = BROADCAST;
	if (shorthand && m.mode == DM_LOWEST)
		m.mode = DM_FIXED; /* not a valid combination on current processors */
	deliver(e, &m, l, shorthand == 3);
}

/* ---- Local vector table -------------------------------------------------- */

void lapic_lvt_deliver(struct lapic *l, unsigned n)
{
	uint32_t lvt = get(&l->lvt[n]);
	unsigned mode = n == LVT_TIMER || n == LVT_ERROR ? DM_FIXED : lvt >> 8 & 7;
	bool level = n == LVT_LINT0 && mode == DM_FIXED && lvt & LVT_LEVEL;

	if (lvt & LVT_MASKED)
		return;
	if (level && atomic_fetch_or(&l->lvt[n], LVT_REMOTE_IRR) & LVT_REMOTE_IRR)
		return;
	accept(l, NULL, mode, lvt, level);
}

bool lapic_lint0_extint(struct lapic *l)
{
	uint32_t lvt = get(&l->lvt[LVT_LINT0]);

	/* A disabled APIC is not there: the pin is INTR (SDM vol. 3 §10.4.3). */
	return !enabled(l) || (!(lvt & LVT_MASKED) && (lvt >> 8 & 7) == DM_EXTINT);
}

void lapic_lint0_changed(struct lapic *l)
{
	if (l->v->vcpu.index || !atomic_load(&l->v->engine->extint))
		return;
	if (lapic_lint0_extint(l))
		soft_request(l->v, REQ_IRQ);
	else if (get(&l->lvt[LVT_LINT0]) & LVT_LEVEL)
		lapic_lvt_deliver(l, LVT_LINT0);
}

void lapic_lint0_eoi(struct lapic *l, uint8_t vector)
{
	uint32_t lvt = get(&l->lvt[LVT_LINT0]);

	if (!(lvt & LVT_REMOTE_IRR) || (lvt & 0xff) != vector)
		return;
	atomic_fetch_and(&l->lvt[LVT_LINT0], ~LVT_REMOTE_IRR);
	lapic_lint0_changed(l);
}

void soft_set_extint(struct engine *engine, bool level)
{
	struct soft_engine *e = soft_engine(engine);
	bool rises = !atomic_exchange(&e->extint, level) && level;
	struct lapic *l = apic_at(e, 0);

	if (!rises || !l)
		return;
	if (lapic_lint0_extint(l))
		soft_wake(l->v, REQ_IRQ);
	else
		lapic_lvt_deliver(l, LVT_LINT0);
}
