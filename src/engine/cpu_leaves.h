/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What CPUID says alike on both engines: where a vCPU sits, at which rate its
 * clocks run, what the paravirtual leaves are called. The feature bits are
 * each engine's own.
 *
 * Topology: one package, one core for each vCPU, one thread for each core;
 * the x2APIC ID is the vCPU's index.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };

/* Hypervisor leaves (Linux, Documentation/virt/kvm/x86/cpuid.rst) */
#define CPUID_KVM_SIGNATURE 0x40000000u
#define CPUID_KVM_FEATURES 0x40000001u
#define CPUID_KVM_TIMING 0x40000010u
#define KVM_PV_NOP_IO_DELAY (1u << 1)
#define KVM_PV_CLOCKSOURCE2 (1u << 3)
#define KVM_PV_STEAL_TIME (1u << 5)
#define KVM_PV_EOI (1u << 6)
#define KVM_PV_UNHALT (1u << 7)
#define KVM_PV_TLB_FLUSH (1u << 9)
#define KVM_PV_SEND_IPI (1u << 11)
#define KVM_PV_SCHED_YIELD (1u << 13)
#define KVM_PV_CLOCKSOURCE_STABLE (1u << 24)

/*
 * Correct the parts of a leaf that depend on the vCPU's place: APIC IDs,
 * counts of cores, caches shared by how many. A no-op for all other leaves.
 */
void cpuid_place(uint32_t leaf, uint32_t subleaf, unsigned index, unsigned cpus, uint32_t regs[4]);

/*
 * Leaves 0x15, 0x16 and 0x40000010, from the frequency of the TSC in kHz.
 * False for every other leaf.
 */
bool cpuid_timing(uint32_t leaf, uint32_t tsc_khz, uint32_t regs[4]);
static inline bool cpuid_is_timing(uint32_t leaf)
{
	return leaf == 0x15 || leaf == 0x16 || leaf == CPUID_KVM_TIMING;
}

/* The signature leaf "KVMKVMKVM"; leaves up to CPUID_KVM_TIMING exist. */
void cpuid_kvm_signature(uint32_t regs[4]);
