/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * KVM's paravirtual clock (Linux Documentation/virt/kvm/x86/msr.rst) and what
 * keeps the vCPUs' TSCs together.
 *
 * The clock is the TSC less IA32_TSC_ADJUST, in nanoseconds: whatever the guest
 * writes to its TSC leaves that difference alone, and it is part of the saved
 * state. So the clock needs no state of its own, is the same on all vCPUs, and
 * goes on where it was after a load.
 */
#include <time.h>

#include "engine/soft/lapic.h"

struct pvclock_time {
	uint32_t version; /* odd while it is being written */
	uint32_t pad0;
	uint64_t tsc_timestamp;
	uint64_t system_time;
	uint32_t tsc_to_system_mul;
	int8_t tsc_shift;
	uint8_t flags;
	uint8_t pad[2];
};
_Static_assert(sizeof(struct pvclock_time) == 32, "guest layout");
#define PVCLOCK_TSC_STABLE 1 /* readings of different vCPUs never go backwards */

struct pvclock_wall {
	uint32_t version, sec, nsec;
};

/* The guest computes ((delta << shift, or >> -shift) * mul) >> 32: the largest 32-bit multiplier keeps most bits. */
void kvmclock_scale(uint32_t tsc_khz, uint32_t *mul, int8_t *shift)
{
	uint64_t hz = tsc_khz * 1000ull;
	int s = 0;

	/* mul = 10^9 * 2^32 / (hz * 2^s) must be in [2^31, 2^32): hz * 2^s in (10^9, 2 * 10^9]. */
	while (hz <= 1000000000) {
		hz <<= 1;
		s++;
	}
	while ((hz >> (s < 0 ? -s : 0)) > 2000000000)
		s--;
	*mul = (uint32_t)((((unsigned __int128)1000000000 << 32) << (s < 0 ? -s : 0)) / hz);
	*shift = (int8_t)s;
}

static uint64_t scale(uint32_t mul, int8_t shift, uint64_t tsc)
{
	unsigned __int128 t = tsc;

	t = shift < 0 ? t >> -shift : t << shift;
	return (uint64_t)((t * mul) >> 32);
}

bool soft_guest_write(struct soft_engine *e, uint64_t gpa, const void *data, unsigned size)
{
	const uint8_t *from = data;

	while (size) {
		unsigned n = 4096 - (gpa & 4095) < size ? 4096 - (unsigned)(gpa & 4095) : size;
		struct soft_slot *slot;
		uint8_t *p = soft_gpa_ptr(e, gpa, &slot);

		if (!p || slot->readonly)
			return false;
		memcpy(p, from, n);
		if (__atomic_load_n(&e->page_flags[gpa >> 12], __ATOMIC_RELAXED))
			page_written(e, gpa, n);
		gpa += n;
		from += n;
		size -= n;
	}
	return true;
}

static bool guest_read32(struct soft_engine *e, uint64_t gpa, uint32_t *value)
{
	uint8_t *p = soft_gpa_ptr(e, gpa, NULL);

	if (p)
		memcpy(value, p, sizeof(*value)); /* 4-byte aligned: within one page */
	return p;
}

/* Version, contents, version: the guest reads again if it saw an odd or a changed version. */
static void write_versioned(struct soft_engine *e, uint64_t gpa, void *data, unsigned size)
{
	uint32_t *version = data, old;

	if (!guest_read32(e, gpa, &old))
		return;
	*version = (old + 1) | 1;
	if (!soft_guest_write(e, gpa, version, sizeof(*version)))
		return;
	atomic_thread_fence(memory_order_release);
	soft_guest_write(e, gpa + sizeof(*version), version + 1, size - sizeof(*version));
	atomic_thread_fence(memory_order_release);
	++*version;
	soft_guest_write(e, gpa, version, sizeof(*version));
}

uint64_t kvmclock_now(struct soft_vcpu *v)
{
	uint32_t mul;
	int8_t shift;

	kvmclock_scale(soft_host_tsc_khz(), &mul, &shift);
	return scale(mul, shift, soft_tsc(v) - v->tsc_adjust);
}

void kvmclock_update(struct soft_vcpu *v)
{
	struct pvclock_time t = { .flags = PVCLOCK_TSC_STABLE };

	if (!(v->kvm_system_time & 1))
		return;
	kvmclock_scale(soft_host_tsc_khz(), &t.tsc_to_system_mul, &t.tsc_shift);
	t.tsc_timestamp = soft_tsc(v);
	t.system_time = scale(t.tsc_to_system_mul, t.tsc_shift, t.tsc_timestamp - v->tsc_adjust);
	write_versioned(v->engine, v->kvm_system_time & ~1ull, &t, sizeof(t));
}

void kvmclock_write_wall(struct soft_vcpu *v)
{
	struct pvclock_wall w = { 0 };
	struct timespec ts;
	uint64_t boot;

	if (!v->kvm_wall_clock)
		return;
	clock_gettime(CLOCK_REALTIME, &ts);
	boot = ts.tv_sec * 1000000000ull + ts.tv_nsec - kvmclock_now(v);
	w.sec = (uint32_t)(boot / 1000000000);
	w.nsec = (uint32_t)(boot % 1000000000);
	write_versioned(v->engine, v->kvm_wall_clock, &w, sizeof(w));
}

void soft_tsc_moved(struct soft_vcpu *v, uint64_t offset)
{
	__atomic_store_n(&v->tsc_offset, offset, __ATOMIC_RELAXED);
	if (offset)
		native_tsc_moved(v->engine);
	apic_timer_tsc_changed(v->lapic);
	kvmclock_update(v);
}

void soft_tsc_restore(struct soft_vcpu *v, uint64_t tsc)
{
	uint64_t offset = v->tsc_offset + tsc - soft_tsc(v);

	/*
	 * Power-on: nothing says that it begins with 0 (SDM vol. 3 §17.17: after RESET, but firmware has run since), and
	 * the host's own is the one that RDTSC can read natively.
	 */
	if (!tsc)
		offset = v->tsc_adjust;
	atomic_store(&v->engine->tsc_fresh, !tsc);
	soft_tsc_moved(v, timers_tsc_offset(v->engine, offset - v->tsc_adjust) + v->tsc_adjust);
}
