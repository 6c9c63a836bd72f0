/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A soft engine with RAM and vCPUs, for tests that look inside. */
#pragma once
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "engine/soft/trans.h"

#define RIG_RAM (32u << 20)

struct rig {
	struct engine *engine;
	struct soft_engine *e;
	struct vcpu *vcpu[4];
	struct soft_vcpu *v; /* vCPU 0 */
	uint8_t *ram;
	/* Device memory: the last access, and what a read gives */
	uint64_t mmio_gpa, mmio_value, mmio_answer;
	unsigned mmio_size, mmio_reads, mmio_writes;
	uint8_t (*mmio_byte)(uint64_t gpa); /* instead of mmio_answer */
	void (*on_pio)(struct rig *r, uint16_t port, uint32_t value);
};

static uint32_t rig_pio_read(void *opaque, uint16_t port, unsigned size)
{
	return 0xffffffff >> (32 - 8 * size);
}

static void rig_pio_write(void *opaque, uint16_t port, uint32_t value, unsigned size)
{
	struct rig *r = opaque;

	if (r->on_pio)
		r->on_pio(r, port, value);
}

static uint64_t rig_mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
	struct rig *r = opaque;

	r->mmio_gpa = gpa;
	r->mmio_size = size;
	r->mmio_reads++;
	if (r->mmio_byte)
		return r->mmio_byte(gpa);
	return size == 8 ? r->mmio_answer : r->mmio_answer & ((1ull << 8 * size) - 1);
}

static void rig_mmio_write(void *opaque, uint64_t gpa, uint64_t value, unsigned size)
{
	struct rig *r = opaque;

	r->mmio_gpa = gpa;
	r->mmio_size = size;
	r->mmio_value = value;
	r->mmio_writes++;
}

static int rig_pic_ack(void *opaque)
{
	return -1;
}

static void rig_ioapic_eoi(void *opaque, uint8_t vector)
{
}

static uint64_t rig_cache; /* engine_config.cache of what rig_new() makes */

static inline struct rig *rig_new(unsigned cpus)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct engine_config config = {
		.kind = ENGINE_SOFT,
		.cpus = cpus,
		.cache = rig_cache,
#ifdef RIG_LOCKSTEP
		.lockstep = true,
#endif
		.host = { r, rig_pio_read, rig_pio_write, rig_mmio_read, rig_mmio_write, rig_pic_ack, rig_ioapic_eoi },
	};
	struct err err = ERR_INIT;

	r->engine = engine_new(&config, &err);
	if (!r->engine)
		fail_msg("%s", err_msg(&err));
	r->e = soft_engine(r->engine);
#ifdef RIG_TRANSLATE /* the same test on translated code from the first instruction on */
	trans_set_test(r->e, 0, true);
#endif
	r->ram = mmap(NULL, RIG_RAM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(r->ram, MAP_FAILED);
	assert_int_equal(engine_map(r->engine, 0, RIG_RAM, r->ram, false, &err), 0);
	for (unsigned i = 0; i < cpus; i++) {
		r->vcpu[i] = vcpu_new(r->engine, i, &err);
		if (!r->vcpu[i])
			fail_msg("%s", err_msg(&err));
	}
	r->v = soft_vcpu(r->vcpu[0]);
	return r;
}

static inline void rig_free(struct rig *r)
{
	for (unsigned i = 0; i < 4; i++)
		vcpu_free(r->vcpu[i]);
	engine_free(r->engine);
	munmap(r->ram, RIG_RAM);
	free(r);
}

/* ---- Calls that may fault ------------------------------------------------ */

struct rig_fault {
	int vector; /* -1: none */
	uint32_t error;
	uint64_t address;
};

/* Run fn(v, arg) as the loop would run a handler. */
static __attribute__((noinline, unused)) bool rig_try(struct soft_vcpu *v, void (*fn)(struct soft_vcpu *, void *), void *arg)
{
	if (__builtin_setjmp(v->fault_jmp))
		return false;
	fn(v, arg);
	return true;
}

static inline struct rig_fault rig_call(struct soft_vcpu *v, void (*fn)(struct soft_vcpu *, void *), void *arg)
{
	struct rig_fault f = { -1, 0, 0 };

	v->event.active = 0;
	soft_enter(v);
	if (!rig_try(v, fn, arg)) {
		f.vector = v->event.vector;
		f.error = v->event.error;
		f.address = v->event.payload;
		v->event.active = 0;
	}
	soft_leave(v);
	return f;
}

struct rig_access {
	uint64_t linear;
	void *data;
	unsigned size;
	enum mmu_access acc;
	bool stack, sys;
};

static inline void rig_do_access(struct soft_vcpu *v, void *arg)
{
	struct rig_access *a = arg;
	uint64_t gpa;
	uint8_t *p;

	switch (a->acc) {
	case ACC_READ:
		if (a->sys)
			mmu_read_sys(v, a->linear, a->data, a->size);
		else
			mmu_read(v, a->linear, a->data, a->size, a->stack);
		break;
	case ACC_WRITE:
		if (a->sys)
			mmu_write_sys(v, a->linear, a->data, a->size);
		else
			mmu_write(v, a->linear, a->data, a->size, a->stack);
		break;
	case ACC_FETCH:
		p = mmu_fetch_ptr(v, a->linear, &gpa);
		memcpy(a->data, p, a->size);
		break;
	case ACC_RMW:
		p = mmu_ptr(v, a->linear, a->size, ACC_RMW, a->stack, &gpa);
		if (p)
			memcpy(a->data, p, a->size);
		break;
	}
}

static inline struct rig_fault rig_access(struct soft_vcpu *v, enum mmu_access acc, uint64_t linear, void *data, unsigned size)
{
	struct rig_access a = { .linear = linear, .data = data, .size = size, .acc = acc };

	return rig_call(v, rig_do_access, &a);
}

/* A read through the fast path, which must not fault. */
static inline uint64_t rig_ld(struct soft_vcpu *v, uint64_t linear, unsigned size)
{
	struct rig_fault f;
	uint64_t value = 0;

	if (tlb_at(v, linear)->rtag == ((linear + size - 1) & ~0xfffull))
		return ld(v, linear, size, false);
	f = rig_access(v, ACC_READ, linear, &value, size);
	assert_int_equal(f.vector, -1);
	return value;
}

/* ---- Modes --------------------------------------------------------------- */

enum rig_paging { RIG_NONE, RIG_32, RIG_PAE, RIG_LONG };

static inline void rig_cpl(struct soft_vcpu *v, unsigned cpl)
{
	v->seg[SEG_SS].attr = (v->seg[SEG_SS].attr & ~0x60u) | cpl << SEG_ATTR_DPL_SHIFT;
	v->seg[SEG_CS].attr = (v->seg[SEG_CS].attr & ~0x60u) | cpl << SEG_ATTR_DPL_SHIFT;
	soft_update_mode(v);
}

/* Flat segments at CPL 0 and the paging mode, as a state set from outside; `cr4` and `efer` besides what it needs. */
static inline void rig_mode(struct soft_vcpu *v, enum rig_paging paging, uint64_t cr3, uint64_t cr4, uint64_t efer)
{
	v->cr0 = CR0_PE | CR0_ET | CR0_WP | (paging ? CR0_PG : 0);
	v->cr3 = cr3;
	v->cr4 = cr4 | (paging >= RIG_PAE ? CR4_PAE : 0);
	v->efer = efer | (paging == RIG_LONG ? EFER_LME | EFER_LMA : 0);
	v->rflags = 2;
	for (unsigned s = 0; s < SEG_COUNT; s++)
		v->seg[s] = (struct cpu_segment){ .limit = UINT32_MAX, .attr = 0xc093, .selector = 0x10 };
	v->seg[SEG_CS].attr = paging == RIG_LONG ? 0xa09b : 0xc09b;
	v->seg[SEG_CS].selector = 8;
	soft_update_mode(v);
	mmu_state_loaded(v);
}

static inline void rig_put(struct rig *r, uint64_t gpa, const void *data, size_t size)
{
	assert_true(gpa + size <= RIG_RAM);
	memcpy(r->ram + gpa, data, size);
	engine_written(r->engine, gpa, size);
}

static inline uint64_t *rig_q(struct rig *r, uint64_t gpa)
{
	return (uint64_t *)(r->ram + gpa);
}

static inline uint32_t *rig_d(struct rig *r, uint64_t gpa)
{
	return (uint32_t *)(r->ram + gpa);
}

/* Identity-map the RAM with 2 MiB pages in long mode; tables at 0x1000..0x3fff. Returns CR3. */
static inline uint64_t rig_identity_long(struct rig *r, uint64_t flags)
{
	*rig_q(r, 0x1000) = 0x2000 | 7;
	*rig_q(r, 0x2000) = 0x3000 | 7;
	for (unsigned i = 0; i < RIG_RAM >> 21; i++)
		*rig_q(r, 0x3000 + 8 * i) = (uint64_t)i << 21 | 0x80 | flags;
	return 0x1000;
}

/* ---- Guest code ---------------------------------------------------------- */

#define RIG_CODE 0x10000ull
#define RIG_STACK 0x20000ull
#define RIG_GDT 0x4800ull
#define RIG_IDT 0x5000ull
#define RIG_DATA 0x300000ull

/*
 * Code in the test's own text, assembled by the compiler: position-independent
 * 64-bit code, copied into the guest. RIG_BLOB(name, "instructions") declares
 * it; `name` and `name_end` bound it.
 */
#define RIG_BLOB(name, text)                                                                                        \
	asm(".pushsection .rodata\n" #name ":\n" text "\n" #name "_end:\n.popsection\n");                           \
	extern const uint8_t name[], name##_end[]
#define rig_load(r, gpa, name) rig_put(r, gpa, name, name##_end - name)

static inline void rig_gate(struct rig *r, unsigned vector, uint64_t handler)
{
	uint64_t gate[2] = { (handler & 0xffff) | 8 << 16 | 0x8e0000000000ull | (handler & 0xffff0000) << 32, handler >> 32 };

	rig_put(r, RIG_IDT + 16 * vector, gate, 16);
}

/* 64-bit code at RIG_CODE, CPL 0, identity-mapped, with a GDT and an empty IDT. */
static inline void rig_start(struct rig *r, unsigned cpu)
{
	static const uint64_t gdt[] = { 0, 0x00af9b000000ffff, 0x00cf93000000ffff };
	struct soft_vcpu *v = soft_vcpu(r->vcpu[cpu]);

	rig_identity_long(r, 3);
	memcpy(r->ram + RIG_GDT, gdt, sizeof(gdt));
	rig_mode(v, RIG_LONG, 0x1000, 0, 0);
	v->gdtr = (struct cpu_table){ .base = RIG_GDT, .limit = sizeof(gdt) - 1 };
	v->idtr = (struct cpu_table){ .base = RIG_IDT, .limit = 0xfff };
	memset(v->gpr, 0, 16 * 8);
	v->gpr[R_SP] = RIG_STACK - 0x1000 * cpu;
	v->rip = v->next_rip = RIG_CODE;
	v->mp_state = CPU_MP_RUNNABLE;
	v->shadow = v->step = 0;
	v->dr6_pending = 0;
	memset(v->dr, 0, sizeof(v->dr));
	v->dr[6] = 0xffff0ff0;
	v->dr[7] = 0x400;
	soft_request(v, REQ_STATE | REQ_IRQ);
}

/* Guest code says that it is done with OUT to 0xf4: its vCPU leaves vcpu_run(). */
static inline void rig_kick_self(struct rig *r, uint16_t port, uint32_t value)
{
	if (port == 0xf4)
		vcpu_kick(&soft_current->vcpu);
}

/* A test's fixture: `cpus` vCPUs whose guest code ends by OUT to 0xf4. */
static inline int rig_setup(void **state, unsigned cpus)
{
	struct rig *r = rig_new(cpus);

	r->on_pio = rig_kick_self;
	*state = r;
	return 0;
}

static inline int rig_teardown(void **state)
{
	rig_free(*state);
	return 0;
}

static inline void rig_run_one(struct rig *r)
{
	struct err err = ERR_INIT;

	if (vcpu_run(r->vcpu[0], &err) != VCPU_EXIT_KICK)
		fail_msg("%s", err_msg(&err));
}
