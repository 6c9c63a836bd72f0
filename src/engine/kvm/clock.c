/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's own clocks standing still while the machine is paused.
 *
 * The kernel's go on; so their values are kept at the freeze and put back at
 * the thaw, and kvm_msr_get() reports the kept ones meanwhile. A TSC-deadline
 * timer is disarmed in between. One that counts is not (a change of the local
 * APIC from outside could lose interrupts that arrive at that moment): it may
 * tick early once.
 */
#include "engine/kvm/kvm.h"

#define MSR_TSC 0x10u
#define MSR_TSC_DEADLINE 0x6e0u

/* struct kvm_msrs with one entry. */
struct one_msr {
	uint32_t nmsrs, pad;
	struct kvm_msr_entry entry;
};

static uint64_t read_msr(struct kvm_vcpu *v, uint32_t index)
{
	struct one_msr m = { .nmsrs = 1, .entry.index = index };

	return kvm_ioctl(v->fd, KVM_GET_MSRS, &m) == 1 ? m.entry.data : 0;
}

static void write_msr(struct kvm_vcpu *v, uint32_t index, uint64_t value)
{
	struct one_msr m = { .nmsrs = 1, .entry = { .index = index, .data = value } };

	kvm_ioctl(v->fd, KVM_SET_MSRS, &m);
}

uint64_t kvm_clock_get(struct kvm_engine *e)
{
	struct kvm_clock_data data = { 0 };

	if (e->frozen)
		return e->frozen_clock;
	return kvm_ioctl(e->vm, KVM_GET_CLOCK, &data) < 0 ? 0 : data.clock;
}

void kvm_clock_set(struct kvm_engine *e, uint64_t ns)
{
	struct kvm_clock_data data = { .clock = ns };

	e->frozen_clock = ns;
	if (!e->frozen)
		kvm_ioctl(e->vm, KVM_SET_CLOCK, &data);
}

/*
 * The distance of the guest's TSC from the host's. Setting that, rather than
 * the MSR, is exact and the same for all vCPUs: the kernel takes a value of the
 * MSR that is less than a second off for an attempt to put vCPUs in step, and
 * changes nothing. Linux 5.16.
 */
static int tsc_offset(struct kvm_vcpu *v, uint64_t *offset, bool write)
{
	struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uintptr_t)offset,
	};

	return kvm_ioctl(v->fd, write ? KVM_SET_DEVICE_ATTR : KVM_GET_DEVICE_ATTR, &attr);
}

static void freeze(struct kvm_engine *e)
{
	uint64_t host = __builtin_ia32_rdtsc();

	e->frozen_clock = kvm_clock_get(e);
	for (unsigned i = 0; i < e->engine.config.cpus; i++) {
		struct kvm_vcpu *v = e->vcpus[i];
		uint64_t offset;

		if (!v)
			continue;
		v->frozen_tsc = tsc_offset(v, &offset, false) < 0 ? read_msr(v, MSR_TSC) : host + offset;
		v->frozen_deadline = read_msr(v, MSR_TSC_DEADLINE);
		if (v->frozen_deadline)
			write_msr(v, MSR_TSC_DEADLINE, 0);
	}
}

static void thaw(struct kvm_engine *e)
{
	uint64_t host = __builtin_ia32_rdtsc();

	kvm_clock_set(e, e->frozen_clock);
	for (unsigned i = 0; i < e->engine.config.cpus; i++) {
		struct kvm_vcpu *v = e->vcpus[i];
		uint64_t offset;

		if (!v)
			continue;
		offset = v->frozen_tsc - host;
		if (tsc_offset(v, &offset, true) < 0)
			write_msr(v, MSR_TSC, v->frozen_tsc);
	}
	for (unsigned i = 0; i < e->engine.config.cpus; i++) {
		struct kvm_vcpu *v = e->vcpus[i];

		if (!v)
			continue;
		if (v->frozen_deadline)
			write_msr(v, MSR_TSC_DEADLINE, v->frozen_deadline);
		/* Spares the guest its soft-lockup alarm; fails where it has no kvmclock. */
		kvm_ioctl(v->fd, KVM_KVMCLOCK_CTRL, NULL);
	}
}

void kvm_clock(struct engine *engine, bool run)
{
	struct kvm_engine *e = kvm_engine(engine);

	if (e->frozen == !run)
		return;
	if (run) {
		e->frozen = false;
		thaw(e);
	} else {
		freeze(e);
		e->frozen = true;
	}
}
