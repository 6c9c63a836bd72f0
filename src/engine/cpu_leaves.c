/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "engine/cpu_leaves.h"

#include <string.h>

#define APIC_BUS_KHZ 1000000u /* 1 GHz, as KVM's local APIC counts */

/* Bits of the APIC ID that number the cores of a package. */
static unsigned core_bits(unsigned cpus)
{
	unsigned bits = 0;

	while ((1u << bits) < cpus)
		bits++;
	return bits;
}

static unsigned at_most(unsigned value, unsigned max)
{
	return value < max ? value : max;
}

static void put_field(uint32_t *reg, unsigned low, unsigned width, uint32_t value)
{
	uint32_t mask = ((1u << width) - 1) << low;

	*reg = (*reg & ~mask) | (value << low & mask);
}

/* SDM vol. 2, CPUID leaf 0BH: level 0 is the thread, level 1 the core. */
static void place_extended_topology(uint32_t subleaf, unsigned index, unsigned cpus, uint32_t regs[4])
{
	regs[CPUID_EAX] = subleaf == 1 ? core_bits(cpus) : 0;
	regs[CPUID_EBX] = subleaf == 0 ? 1 : subleaf == 1 ? cpus : 0;
	regs[CPUID_ECX] = (subleaf & 0xff) | (subleaf < 2 ? (subleaf + 1) << 8 : 0);
	regs[CPUID_EDX] = index;
}

/* Leaves 4 (Intel) and 0x8000001d (AMD) agree on these fields: 5-7 level, 14-25 how many threads share it, less one. */
static void place_cache(uint32_t leaf, unsigned cpus, uint32_t regs[4])
{
	unsigned level = regs[CPUID_EAX] >> 5 & 7;
	unsigned ids = 1u << core_bits(cpus);

	if (!(regs[CPUID_EAX] & 0x1f))
		return;
	put_field(&regs[CPUID_EAX], 14, 12, level >= 3 ? ids - 1 : 0);
	if (leaf == 4)
		put_field(&regs[CPUID_EAX], 26, 6, at_most(ids - 1, 63));
}

void cpuid_place(uint32_t leaf, uint32_t subleaf, unsigned index, unsigned cpus, uint32_t regs[4])
{
	switch (leaf) {
	case 1:
		put_field(&regs[CPUID_EBX], 24, 8, index);
		put_field(&regs[CPUID_EBX], 16, 8, at_most(1u << core_bits(cpus), 255));
		put_field(&regs[CPUID_EDX], 28, 1, cpus > 1);
		break;
	case 4:
	case 0x8000001d:
		place_cache(leaf, cpus, regs);
		break;
	case 0xb:
	case 0x1f:
		place_extended_topology(subleaf, index, cpus, regs);
		break;
	case 0x80000008: /* AMD: count of cores less one, bits of the ID that number them; reserved on Intel */
		put_field(&regs[CPUID_ECX], 0, 8, cpus - 1);
		put_field(&regs[CPUID_ECX], 12, 4, core_bits(cpus));
		break;
	case 0x8000001e: /* AMD: extended APIC ID, core ID with one thread a core, node 0 of 1 */
		regs[CPUID_EAX] = index;
		regs[CPUID_EBX] = at_most(index, 255);
		regs[CPUID_ECX] = regs[CPUID_EDX] = 0;
		break;
	}
}

/*
 * TSC = crystal * num / den. The crystal must be the clock of the APIC timer,
 * since Linux takes one for the other (native_calibrate_tsc()), where it also
 * computes crystal_khz * num in 32 bits. The best fraction within that bound
 * is off by less than 1 ppm.
 */
static void tsc_ratio(uint32_t tsc_khz, uint32_t *num, uint32_t *den)
{
	const uint64_t max = UINT32_MAX / APIC_BUS_KHZ;
	uint64_t best = UINT64_MAX;

	for (uint64_t d = 1; d <= max; d++) {
		uint64_t n = (tsc_khz * d + APIC_BUS_KHZ / 2) / APIC_BUS_KHZ;
		uint64_t got, off;

		if (n < 1 || n > max)
			continue;
		got = n * APIC_BUS_KHZ / d;
		off = got > tsc_khz ? got - tsc_khz : tsc_khz - got;
		if (off < best) {
			best = off;
			*num = n;
			*den = d;
		}
	}
}

bool cpuid_timing(uint32_t leaf, uint32_t tsc_khz, uint32_t regs[4])
{
	memset(regs, 0, 4 * sizeof(regs[0]));
	switch (leaf) {
	case 0x15:
		tsc_ratio(tsc_khz, &regs[CPUID_EBX], &regs[CPUID_EAX]);
		regs[CPUID_ECX] = regs[CPUID_EAX] ? APIC_BUS_KHZ * 1000 : 0;
		return true;
	case 0x16: /* base, maximum, bus in MHz */
		regs[CPUID_EAX] = regs[CPUID_EBX] = (tsc_khz + 500) / 1000;
		regs[CPUID_ECX] = 100;
		return true;
	case CPUID_KVM_TIMING:
		regs[CPUID_EAX] = tsc_khz;
		regs[CPUID_EBX] = APIC_BUS_KHZ;
		return true;
	}
	return false;
}

void cpuid_kvm_signature(uint32_t regs[4])
{
	static const char name[12] = "KVMKVMKVM";

	regs[CPUID_EAX] = CPUID_KVM_TIMING;
	memcpy(&regs[CPUID_EBX], name, sizeof(name));
}
