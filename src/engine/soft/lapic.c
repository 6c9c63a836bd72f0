/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The local APIC (SDM vol. 3 ch. 10): registers, priorities, state. How a
 * message finds its APIC is in lapic_msg.c.
 *
 * Any thread may set bits in IRR and TMR and then calls soft_wake(); the own
 * thread moves them to ISR. There is no lock.
 */
#include <errno.h>
#include <stdlib.h>

#include "engine/soft/access.h"
#include "engine/soft/lapic.h"

#define BASE_RESET 0xfee00000u
#define VERSION 0x00050014u /* integrated APIC, six LVT entries, no EOI broadcast suppression */
#define SVR_RESET 0xffu
#define SVR_BITS 0x3ffu

enum { /* offsets in the xAPIC page; MSR 800h + offset / 16 in x2APIC mode */
	A_ID = 0x20, A_VERSION = 0x30, A_TPR = 0x80, A_APR = 0x90, A_PPR = 0xa0, A_EOI = 0xb0, A_LDR = 0xd0,
	A_DFR = 0xe0, A_SVR = 0xf0, A_ISR = 0x100, A_TMR = 0x180, A_IRR = 0x200, A_ESR = 0x280, A_ICR = 0x300, A_ICR2 = 0x310,
	A_LVT = 0x320, A_LVT_END = 0x370, A_INITIAL = 0x380, A_CURRENT = 0x390, A_DIVIDE = 0x3e0, A_SELF_IPI = 0x3f0,
};

/* Bits that can be written, and bits that are read-only but may appear in a write. */
static const uint32_t lvt_bits[LVT_COUNT] = {
	[LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff,
	[LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff, [LVT_ERROR] = 0x100ff,
};
#define LVT_READ_ONLY 0x5000u /* delivery status, remote IRR */

static inline uint32_t get(_Atomic uint32_t *reg)
{
	return atomic_load_explicit(reg, memory_order_relaxed);
}

static inline void put(_Atomic uint32_t *reg, uint32_t value)
{
	atomic_store_explicit(reg, value, memory_order_relaxed);
}

static int highest(uint32_t word, unsigned n)
{
	return (int)(n * 32 + 31 - __builtin_clz(word));
}

static int highest_isr(const struct lapic *l)
{
	for (int n = 7; n >= 0; n--)
		if (l->isr[n])
			return highest(l->isr[n], n);
	return -1;
}

static int highest_irr(struct lapic *l)
{
	for (int n = 7; n >= 0; n--) {
		uint32_t word = atomic_load(&l->irr[n]);

		if (word)
			return highest(word, n);
	}
	return -1;
}

static void update_ppr(struct lapic *l)
{
	uint32_t tpr = get(&l->tpr);
	int isr = highest_isr(l);
	uint32_t serving = isr < 0 ? 0 : (uint32_t)isr & 0xf0;

	put(&l->ppr, (tpr & 0xf0) >= serving ? tpr : serving);
}

/* Something that held an interrupt back is gone. */
static void recheck(struct lapic *l)
{
	if (highest_irr(l) >= 0)
		soft_request(l->v, REQ_IRQ);
}

/* ---- Errors, LVT --------------------------------------------------------- */

void lapic_error(struct lapic *l, uint32_t error)
{
	if (atomic_fetch_or(&l->errors, error) & error)
		return;
	lapic_lvt_deliver(l, LVT_ERROR);
}

bool lapic_timer_fire(struct lapic *l)
{
	uint32_t lvt = get(&l->lvt[LVT_TIMER]), vector = lvt & 0xff;
	bool was_set;

	if (lvt & LVT_MASKED || !(atomic_load(&l->base) & APIC_BASE_EN))
		return false;
	was_set = atomic_load(&l->irr[vector / 32]) >> (vector % 32) & 1;
	lapic_lvt_deliver(l, LVT_TIMER);
	return was_set;
}

static void lvt_write(struct lapic *l, unsigned n, uint32_t value)
{
	uint32_t old = get(&l->lvt[n]);

	value &= lvt_bits[n];
	if (!(get(&l->svr) & APIC_SVR_ENABLE))
		value |= LVT_MASKED;
	if (n == LVT_LINT0 || n == LVT_LINT1)
		value |= old & LVT_REMOTE_IRR & (value & LVT_LEVEL ? ~0u : 0);
	put(&l->lvt[n], value);
	if (n == LVT_TIMER)
		apic_timer_lvt_changed(l, old);
	else if (n == LVT_LINT0)
		lapic_lint0_changed(l);
}

static void svr_write(struct lapic *l, uint32_t value)
{
	put(&l->svr, value & SVR_BITS);
	if (value & APIC_SVR_ENABLE)
		return;
	/* SDM vol. 3 §10.4.7.2: every LVT entry is masked and stays so. */
	for (unsigned n = 0; n < LVT_COUNT; n++)
		lvt_write(l, n, get(&l->lvt[n]));
}

/* ---- PV EOI (Linux Documentation/virt/kvm/x86/msr.rst) ------------------- */

static uint8_t *pv_eoi_byte(struct soft_vcpu *v, uint64_t *gpa)
{
	struct soft_slot *slot;
	uint8_t *p;

	if (!(v->kvm_pv_eoi & 1))
		return NULL;
	*gpa = v->kvm_pv_eoi & ~3ull;
	p = soft_gpa_ptr(v->engine, *gpa, &slot);
	return p && !slot->readonly ? p : NULL;
}

static void pv_eoi_put(struct soft_vcpu *v, uint8_t *p, uint64_t gpa, bool set)
{
	uint8_t old = __atomic_load_n(p, __ATOMIC_RELAXED);

	__atomic_store_n(p, set ? old | 1 : old & ~1, __ATOMIC_RELAXED);
	mmu_written(v, gpa, 1);
}

static void eoi(struct lapic *l)
{
	int vector = highest_isr(l);

	if (vector < 0)
		return;
	l->isr[vector / 32] &= ~(1u << (vector % 32));
	update_ppr(l);
	if (atomic_load(&l->tmr[vector / 32]) >> (vector % 32) & 1) {
		const struct engine_host *host = &l->v->engine->engine.config.host;

		lapic_lint0_eoi(l, vector);
		if (host->ioapic_eoi) {
			soft_leave(l->v);
			host->ioapic_eoi(host->opaque, vector);
			soft_enter(l->v);
		}
	}
	recheck(l);
}

void lapic_pv_eoi_sync(struct soft_vcpu *v)
{
	struct lapic *l = v->lapic;
	uint64_t gpa;
	uint8_t *p = pv_eoi_byte(v, &gpa);

	if (l->pv_eoi_check) {
		l->pv_eoi_check = false;
		l->pv_eoi_set = p && *p & 1 && highest_isr(l) >= 0;
	}
	if (!l->pv_eoi_set)
		return;
	l->pv_eoi_set = false;
	if (!p)
		return;
	if (__atomic_load_n(p, __ATOMIC_RELAXED) & 1)
		pv_eoi_put(v, p, gpa, false); /* not ended yet: it will have to be by a write */
	else
		eoi(l);
}

/* After `vector` went into service: the guest may end it by clearing the bit if nothing waits behind it. */
static void pv_eoi_offer(struct soft_vcpu *v, int vector)
{
	struct lapic *l = v->lapic;
	uint64_t gpa;
	uint8_t *p;

	if (highest_irr(l) >= 0 || atomic_load(&l->tmr[vector / 32]) >> (vector % 32) & 1)
		return;
	p = pv_eoi_byte(v, &gpa);
	if (!p)
		return;
	pv_eoi_put(v, p, gpa, true);
	l->pv_eoi_set = true;
}

/* The bit may stay as it is unless somebody must know the truth or an interrupt waits. */
static inline void pv_eoi_look(struct soft_vcpu *v)
{
	if (unlikely(v->lapic->pv_eoi_set || v->lapic->pv_eoi_check))
		lapic_pv_eoi_sync(v);
}

/* ---- What the CPU asks --------------------------------------------------- */

static bool extint_waits(struct soft_vcpu *v)
{
	struct lapic *l = v->lapic;

	if (atomic_load(&l->extint))
		return true;
	return v->vcpu.index == 0 && atomic_load(&v->engine->extint) && lapic_lint0_extint(l);
}

int lapic_pending(struct soft_vcpu *v)
{
	struct lapic *l = v->lapic;
	int vector;

	if (extint_waits(v))
		return LAPIC_EXTINT;
	vector = highest_irr(l);
	if (vector < 0 || !(atomic_load(&l->base) & APIC_BASE_EN))
		return -1;
	pv_eoi_look(v);
	update_ppr(l);
	return (vector & 0xf0) > (int)(get(&l->ppr) & 0xf0) ? vector : -1;
}

int lapic_ack(struct soft_vcpu *v)
{
	struct lapic *l = v->lapic;
	const struct engine_host *host = &v->engine->engine.config.host;
	int vector = lapic_pending(v);

	if (vector == LAPIC_EXTINT) {
		atomic_store(&l->extint, false);
		vector = -1;
		if (host->pic_ack) {
			soft_leave(v);
			vector = host->pic_ack(host->opaque);
			soft_enter(v);
		}
		if (vector >= 0)
			return vector;
		/* The PIC withdrew it. */
		vector = highest_irr(l);
		pv_eoi_look(v);
		update_ppr(l);
		if (vector < 0 || !(atomic_load(&l->base) & APIC_BASE_EN) ||
		    (vector & 0xf0) <= (int)(get(&l->ppr) & 0xf0))
			return -1;
	}
	if (vector < 0)
		return -1;
	atomic_fetch_and(&l->irr[vector / 32], ~(1u << (vector % 32)));
	l->isr[vector / 32] |= 1u << (vector % 32);
	update_ppr(l);
	if (vector == (int)(get(&l->lvt[LVT_TIMER]) & 0xff))
		apic_timer_accepted(l);
	if (v->kvm_pv_eoi & 1)
		pv_eoi_offer(v, vector);
	return vector;
}

uint64_t lapic_get_cr8(struct soft_vcpu *v)
{
	return get(&v->lapic->tpr) >> 4;
}

static void tpr_write(struct lapic *l, uint32_t value)
{
	bool lower = value < get(&l->tpr);

	put(&l->tpr, value);
	update_ppr(l);
	if (lower)
		recheck(l);
}

void lapic_set_cr8(struct soft_vcpu *v, uint64_t value)
{
	v->lockstep_touched = true;
	tpr_write(v->lapic, (value & 15) << 4);
}

/* ---- Registers ----------------------------------------------------------- */

/* False where no register is. `x2`: by MSR. */
static bool reg_read(struct lapic *l, unsigned off, bool x2, uint64_t *value)
{
	*value = 0;
	switch (off) {
	case A_ID:
		*value = x2 ? lapic_id(l) : lapic_id(l) << 24;
		return true;
	case A_VERSION:
		*value = VERSION;
		return true;
	case A_TPR:
		*value = get(&l->tpr);
		return true;
	case A_PPR:
		pv_eoi_look(l->v);
		update_ppr(l);
		*value = get(&l->ppr);
		return true;
	case A_APR:
	case A_ICR2:
		*value = off == A_ICR2 ? l->icr >> 32 : 0;
		return !x2;
	case A_EOI:
		return !x2; /* write-only: xAPIC reads give 0 */
	case A_LDR:
		*value = lapic_ldr(l);
		return true;
	case A_DFR:
		*value = get(&l->dfr);
		return !x2;
	case A_SVR:
		*value = get(&l->svr);
		return true;
	case A_ISR ... A_ISR + 0x7f:
		pv_eoi_look(l->v);
		*value = l->isr[(off - A_ISR) >> 4];
		return true;
	case A_TMR ... A_TMR + 0x7f:
		*value = atomic_load(&l->tmr[(off - A_TMR) >> 4]);
		return true;
	case A_IRR ... A_IRR + 0x7f:
		*value = atomic_load(&l->irr[(off - A_IRR) >> 4]);
		return true;
	case A_ESR:
		*value = l->esr;
		return true;
	case A_ICR:
		*value = x2 ? l->icr : (uint32_t)l->icr;
		return true;
	case A_LVT ... A_LVT_END:
		*value = get(&l->lvt[(off - A_LVT) >> 4]);
		return true;
	case A_INITIAL:
		pthread_mutex_lock(&l->timer.lock);
		*value = l->timer.initial;
		pthread_mutex_unlock(&l->timer.lock);
		return true;
	case A_CURRENT:
		*value = apic_timer_current(l);
		return true;
	case A_DIVIDE:
		*value = l->divide;
		return true;
	default:
		return false;
	}
}

static bool reg_write(struct lapic *l, unsigned off, bool x2, uint64_t value)
{
	unsigned n;

	switch (off) {
	case A_ID: /* fixed; a write is no error in xAPIC mode */
		return !x2;
	case A_TPR:
		if (x2 && value & ~0xffull)
			return false;
		tpr_write(l, value & 0xff);
		return true;
	case A_EOI:
		if (x2 && value)
			return false;
		pv_eoi_look(l->v);
		eoi(l);
		return true;
	case A_LDR:
		if (x2)
			return false;
		put(&l->ldr, value & 0xff000000);
		return true;
	case A_DFR:
		if (x2)
			return false;
		put(&l->dfr, value | 0x0fffffff);
		return true;
	case A_SVR:
		if (x2 && value & ~(uint64_t)SVR_BITS)
			return false;
		svr_write(l, value);
		return true;
	case A_ESR:
		if (x2 && value)
			return false;
		l->esr = atomic_exchange(&l->errors, 0);
		return true;
	case A_ICR:
		if (x2) {
			if (value & ICR_RESERVED)
				return false;
			l->icr = value & ~(uint64_t)ICR_BUSY;
		} else {
			l->icr = (l->icr & ~0xffffffffull) | (value & 0xccfff & ~ICR_BUSY);
		}
		lapic_send_ipi(l, x2);
		return true;
	case A_ICR2:
		if (x2)
			return false;
		l->icr = (uint32_t)l->icr | (value & 0xff000000) << 32;
		return true;
	case A_LVT ... A_LVT_END:
		n = (off - A_LVT) >> 4;
		if (x2 && value & ~(uint64_t)(lvt_bits[n] | LVT_READ_ONLY))
			return false;
		lvt_write(l, n, value);
		return true;
	case A_INITIAL:
		if (x2 && value >> 32)
			return false;
		apic_timer_set_initial(l, value);
		return true;
	case A_DIVIDE:
		if (x2 && value & ~0xbull)
			return false;
		l->divide = value & 0xb;
		apic_timer_set_divide(l, l->divide);
		return true;
	case A_SELF_IPI:
		if (!x2 || value & ~0xffull)
			return false;
		lapic_send_self(l, value);
		return true;
	default:
		return false;
	}
}

bool lapic_msr_read(struct soft_vcpu *v, uint32_t index, uint64_t *value)
{
	return atomic_load(&v->lapic->base) & APIC_BASE_EXTD && reg_read(v->lapic, (index - 0x800) << 4, true, value);
}

bool lapic_msr_write(struct soft_vcpu *v, uint32_t index, uint64_t value)
{
	return atomic_load(&v->lapic->base) & APIC_BASE_EXTD && reg_write(v->lapic, (index - 0x800) << 4, true, value);
}

bool lapic_claims(struct soft_vcpu *v, uint64_t gpa)
{
	uint64_t base = atomic_load_explicit(&v->lapic->base, memory_order_relaxed);

	return (base & (APIC_BASE_EN | APIC_BASE_EXTD)) == APIC_BASE_EN && (gpa & ~0xfffull) == (base & ~0xfffull);
}

/*
 * SDM vol. 3 §10.4.1: 32-bit accesses to 16-byte aligned registers. Anything
 * else is undefined: it reads 0 and writes nothing.
 */
uint64_t lapic_mmio_read(struct soft_vcpu *v, uint64_t gpa, unsigned size)
{
	unsigned off = gpa & 0xfff, byte = off & 15;
	uint64_t value;

	if (byte + size > 4)
		return 0;
	if (!reg_read(v->lapic, off & ~15u, false, &value)) {
		lapic_error(v->lapic, ESR_REGISTER);
		return 0;
	}
	value >>= byte * 8;
	return size == 4 ? (uint32_t)value : value & ((1u << size * 8) - 1);
}

void lapic_mmio_write(struct soft_vcpu *v, uint64_t gpa, uint64_t value, unsigned size)
{
	unsigned off = gpa & 0xfff;

	if (size != 4 || off & 15)
		return;
	if (!reg_write(v->lapic, off, false, (uint32_t)value))
		lapic_error(v->lapic, ESR_REGISTER);
}

/* ---- IA32_APIC_BASE ------------------------------------------------------ */

static void reset(struct lapic *l)
{
	for (unsigned n = 0; n < 8; n++) {
		put(&l->irr[n], 0);
		put(&l->tmr[n], 0);
		l->isr[n] = 0;
	}
	put(&l->tpr, 0);
	put(&l->ldr, 0);
	put(&l->dfr, UINT32_MAX);
	put(&l->svr, SVR_RESET);
	for (unsigned n = 0; n < LVT_COUNT; n++)
		put(&l->lvt[n], LVT_MASKED);
	put(&l->errors, 0);
	l->esr = 0;
	l->icr = 0;
	l->divide = 0;
	l->pv_eoi_set = l->pv_eoi_check = false;
	atomic_store(&l->extint, false);
	apic_timer_reset(l);
	update_ppr(l);
}

uint64_t lapic_base_get(struct soft_vcpu *v)
{
	return atomic_load_explicit(&v->lapic->base, memory_order_relaxed);
}

static uint64_t base_reserved(struct soft_vcpu *v)
{
	uint32_t regs[4];
	unsigned phys_bits = 36;
	uint64_t reserved = 0x2ff;

	if (soft_cpuid(v, 0x80000008, 0, regs) && (regs[0] & 0xff) >= 32)
		phys_bits = regs[0] & 0xff;
	soft_cpuid(v, 1, 0, regs);
	if (!(regs[2] >> 21 & 1))
		reserved |= APIC_BASE_EXTD;
	return reserved | ~((1ull << phys_bits) - 1);
}

bool lapic_base_set(struct soft_vcpu *v, uint64_t value)
{
	struct lapic *l = v->lapic;
	uint64_t old = atomic_load(&l->base), mode = value & (APIC_BASE_EN | APIC_BASE_EXTD);
	uint64_t old_mode = old & (APIC_BASE_EN | APIC_BASE_EXTD);

	if (value & base_reserved(v))
		return false;
	/* SDM vol. 3 §10.12.5, figure 10-27: disabled -> xAPIC -> x2APIC -> disabled, and xAPIC -> disabled. */
	if (mode == APIC_BASE_EXTD || (mode == (APIC_BASE_EN | APIC_BASE_EXTD) && !old_mode) ||
	    (mode == APIC_BASE_EN && old_mode == (APIC_BASE_EN | APIC_BASE_EXTD)))
		return false;
	if (value == old)
		return true;
	atomic_store(&l->base, value);
	if (old_mode && !mode) {
		lapic_pv_eoi_sync(v);
		reset(l);
	}
	/* Translations to the page are not cached, but where it moves to there may have been memory. */
	soft_request(v, REQ_IRQ | REQ_TLB_FLUSH);
	return true;
}

/* ---- Life and state ------------------------------------------------------ */

int lapic_vcpu_init(struct soft_vcpu *v)
{
	struct lapic *l = calloc(1, sizeof(*l));
	int rc;

	if (!l)
		return -ENOMEM;
	l->v = v;
	rc = apic_timer_init(l);
	if (rc) {
		free(l);
		return rc;
	}
	reset(l);
	atomic_store(&l->base, BASE_RESET | APIC_BASE_EN | (v->vcpu.index == 0 ? APIC_BASE_BSP : 0));
	__atomic_store_n(&v->lapic, l, __ATOMIC_RELEASE);
	return 0;
}

void lapic_vcpu_free(struct soft_vcpu *v)
{
	if (!v->lapic)
		return;
	apic_timer_destroy(v->lapic);
	free(v->lapic);
	v->lapic = NULL;
}

void lapic_init_signal(struct soft_vcpu *v)
{
	lapic_pv_eoi_sync(v);
	reset(v->lapic);
}

static void page_put(struct cpu_state *s, unsigned off, uint32_t value)
{
	memcpy(s->lapic + off, &value, sizeof(value));
}

static uint32_t page_get(const struct cpu_state *s, unsigned off)
{
	uint32_t value;

	memcpy(&value, s->lapic + off, sizeof(value));
	return value;
}

void lapic_get(struct soft_vcpu *v, struct cpu_state *s)
{
	static const uint16_t plain[] = {
		A_VERSION, A_TPR, A_PPR, A_SVR, A_ESR, A_INITIAL, A_CURRENT, A_DIVIDE, A_LDR,
	};
	struct lapic *l = v->lapic;
	uint64_t value;

	lapic_pv_eoi_sync(v);
	memset(s->lapic, 0, sizeof(s->lapic));
	s->apic_base = lapic_base_get(v);
	s->tsc_deadline = apic_timer_tsc_deadline(l);
	page_put(s, A_ID, lapic_id(l) << 24);
	page_put(s, A_DFR, get(&l->dfr));
	page_put(s, A_ICR, (uint32_t)l->icr);
	page_put(s, A_ICR2, l->icr >> 32);
	for (unsigned n = 0; n < sizeof(plain) / sizeof(plain[0]); n++) {
		reg_read(l, plain[n], false, &value);
		page_put(s, plain[n], value);
	}
	for (unsigned n = 0; n < 8; n++) {
		page_put(s, A_ISR + n * 16, l->isr[n]);
		page_put(s, A_TMR + n * 16, atomic_load(&l->tmr[n]));
		page_put(s, A_IRR + n * 16, atomic_load(&l->irr[n]));
	}
	for (unsigned n = 0; n < LVT_COUNT; n++)
		page_put(s, A_LVT + n * 16, get(&l->lvt[n]));
}

void lapic_set(struct soft_vcpu *v, const struct cpu_state *s)
{
	struct lapic *l = v->lapic;

	apic_timer_reset(l);
	atomic_store(&l->base, s->apic_base);
	put(&l->tpr, page_get(s, A_TPR) & 0xff);
	put(&l->ldr, page_get(s, A_LDR) & 0xff000000);
	put(&l->dfr, page_get(s, A_DFR) | 0x0fffffff);
	put(&l->svr, page_get(s, A_SVR) & SVR_BITS);
	put(&l->errors, 0);
	l->esr = page_get(s, A_ESR) & 0xff;
	l->icr = (page_get(s, A_ICR) & ~(ICR_RESERVED | ICR_BUSY)) | (uint64_t)page_get(s, A_ICR2) << 32;
	for (unsigned n = 0; n < 8; n++) {
		l->isr[n] = page_get(s, A_ISR + n * 16);
		put(&l->tmr[n], page_get(s, A_TMR + n * 16));
		put(&l->irr[n], page_get(s, A_IRR + n * 16));
	}
	for (unsigned n = 0; n < LVT_COUNT; n++)
		put(&l->lvt[n], page_get(s, A_LVT + n * 16) & (lvt_bits[n] | LVT_REMOTE_IRR));
	l->divide = page_get(s, A_DIVIDE) & 0xb;
	l->pv_eoi_set = false;
	l->pv_eoi_check = true;
	atomic_store(&l->extint, false);
	apic_timer_restore(l, page_get(s, A_INITIAL), page_get(s, A_CURRENT), l->divide, s->tsc_deadline);
	update_ppr(l);
	soft_request(v, REQ_IRQ);
}
