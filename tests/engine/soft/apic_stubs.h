/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What lapic*.c, timer.c, msr.c and kvmclock.c need from the rest of the
 * engine, small enough to look into from a test. One page of RAM at RAM_GPA.
 */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engine/soft/lapic.h"

#define STUB_CPUS 4
#define RAM_GPA 0x10000u

static struct soft_engine *engine;
static struct soft_vcpu *cpus[STUB_CPUS];
static struct soft_slot ram_slot = { .gpa = RAM_GPA, .size = 8192 };
static uint8_t ram[8192] __attribute__((aligned(4096)));
static _Atomic unsigned wakes[STUB_CPUS];
static int eoi_vector, eoi_count, pic_vector;
static unsigned page_writes, mode_changes;
/* CPUID: an AMD part with what the tests turn on. */
static uint32_t cpuid_1_ecx = 1u << 21 | 1u << 24, cpuid_7_edx, cpuid_ext_ebx;
static bool cpuid_intel;

static uint32_t host_khz;

uint32_t soft_host_tsc_khz(void)
{
	return host_khz;
}

void soft_wake(struct soft_vcpu *v, uint32_t bits)
{
	soft_request(v, bits);
	wakes[v->vcpu.index]++;
}

void soft_leave(struct soft_vcpu *v)
{
}

void soft_enter(struct soft_vcpu *v)
{
}

struct soft_slot *soft_slot_find(struct soft_engine *e, uint64_t gpa)
{
	return gpa - ram_slot.gpa < ram_slot.size ? &ram_slot : NULL;
}

void page_written(struct soft_engine *e, uint64_t gpa, unsigned size)
{
	page_writes++;
}

void native_tsc_moved(struct soft_engine *e)
{
}

void mmu_mode_changed(struct soft_vcpu *v)
{
	mode_changes++;
}

void soft_update_mode(struct soft_vcpu *v)
{
}

bool soft_cpuid(struct soft_vcpu *v, uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
	memset(regs, 0, 16);
	switch (leaf) {
	case 0:
		regs[2] = cpuid_intel ? 0x6c65746e : 0x444d4163;
		return true;
	case 1:
		regs[2] = cpuid_1_ecx;
		return true;
	case 7:
		regs[3] = cpuid_7_edx;
		return true;
	case 0x80000001:
		regs[3] = 1u << 20 | 1u << 27 | 1u << 29;
		return true;
	case 0x80000008:
		regs[0] = 40;
		regs[1] = cpuid_ext_ebx;
		return true;
	default:
		return false;
	}
}

static int stub_pic_ack(void *opaque)
{
	return pic_vector;
}

static void stub_eoi(void *opaque, uint8_t vector)
{
	eoi_vector = vector;
	eoi_count++;
}

static int stub_setup(bool probing)
{
	engine = calloc(1, sizeof(*engine));
	engine->engine.config.cpus = STUB_CPUS;
	engine->engine.config.host.pic_ack = stub_pic_ack;
	engine->engine.config.host.ioapic_eoi = stub_eoi;
	host_khz = 2000000;
	engine->probing = probing;
	engine->page_flags = calloc(1, 64);
	ram_slot.hva = ram;
	ram_slot.readonly = false;
	memset(ram, 0, sizeof(ram));
	eoi_count = 0;
	eoi_vector = pic_vector = -1;
	page_writes = mode_changes = 0;
	cpuid_intel = false;
	cpuid_7_edx = cpuid_ext_ebx = 0;
	for (unsigned n = 0; n < STUB_CPUS; n++) {
		struct soft_vcpu *v = aligned_alloc(64, (sizeof(*v) + 63) & ~63ul);

		memset(v, 0, sizeof(*v));
		v->vcpu.engine = &engine->engine;
		v->vcpu.index = n;
		v->engine = engine;
		v->page_flags = engine->page_flags;
		v->mode = MODE_64;
		assert_int_equal(lapic_vcpu_init(v), 0);
		engine->vcpus[n] = cpus[n] = v;
		wakes[n] = 0;
	}
	return 0;
}

static int stub_teardown(void **state)
{
	for (unsigned n = 0; n < STUB_CPUS; n++) {
		engine->vcpus[n] = NULL;
		lapic_vcpu_free(cpus[n]);
		free(cpus[n]);
	}
	free(engine->page_flags);
	free(engine);
	return 0;
}
