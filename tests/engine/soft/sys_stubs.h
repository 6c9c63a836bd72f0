/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A CPU without paging for the tests of seg.c, excp.c and sys*.c: linear
 * addresses are offsets into `ram` (those above 4 GiB wrap there too). One
 * range can be made absent or supervisor-only. Everything else that the
 * handlers call is a stub that records.
 */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engine/soft/sys.h"

/* sys_bind.c with its choice of vendor under the test's control. */
#define sys_is_amd host_is_amd
#include "../../../src/engine/soft/sys_bind.c"
#undef sys_is_amd

static bool amd;
bool sys_is_amd(void) { return amd; }

#define RAM_SIZE 0x200000u
static uint8_t ram[RAM_SIZE] __attribute__((aligned(4096)));
static uint8_t page_flags[RAM_SIZE >> 12];
static struct soft_engine engine;
static struct soft_vcpu *v;

/* ---- Memory -------------------------------------------------------------- */

static uint64_t absent_at, absent_size;   /* #PF for everybody */
static uint64_t kernel_at, kernel_size;   /* #PF at CPL 3 */
static uint64_t readonly_at, readonly_size;
static bool fill_tlb;                     /* let accesses fill the TLB, as the MMU does */
static unsigned written;

static bool overlaps(uint64_t at, uint64_t size, uint64_t from, uint64_t len)
{
	return len && at < from + len && from < at + size;
}

static void stub_check(uint64_t linear, unsigned size, bool write, bool stack, bool sys)
{
	uint32_t error = (write ? 2 : 0) | (v->cpl == 3 && !sys ? 4 : 0);

	if (v->long_mode ? !canonical(linear) : linear >> 32)
		soft_raise(v, stack ? EXC_SS : EXC_GP, 0);
	if (overlaps(linear, size, absent_at, absent_size))
		soft_raise_pf(v, linear, error);
	if (error & 4 && overlaps(linear, size, kernel_at, kernel_size))
		soft_raise_pf(v, linear, error | 1);
	if (write && overlaps(linear, size, readonly_at, readonly_size))
		soft_raise_pf(v, linear, error | 1);
}

static void stub_fill(uint64_t linear)
{
	struct tlb_entry *t = tlb_at(v, linear);

	if (!fill_tlb || v->tlb_view == TLB_SLOW)
		return;
	t->rtag = t->wtag = linear & ~0xfffull;
	t->addend = (uintptr_t)ram + ((linear & ~0xfffull) % RAM_SIZE) - (linear & ~0xfffull);
	t->gpa = (linear & ~0xfffull) % RAM_SIZE;
}

static void copy_in(uint64_t linear, void *data, unsigned size)
{
	for (unsigned n = 0; n < size; n++)
		((uint8_t *)data)[n] = ram[(linear + n) % RAM_SIZE];
}

static void copy_out(uint64_t linear, const void *data, unsigned size)
{
	for (unsigned n = 0; n < size; n++)
		ram[(linear + n) % RAM_SIZE] = ((const uint8_t *)data)[n];
}

void mmu_read(struct soft_vcpu *cpu, uint64_t linear, void *data, unsigned size, bool stack)
{
	stub_check(linear, size, false, stack, false);
	copy_in(linear, data, size);
	stub_fill(linear);
}

void mmu_write(struct soft_vcpu *cpu, uint64_t linear, const void *data, unsigned size, bool stack)
{
	stub_check(linear, size, true, stack, false);
	copy_out(linear, data, size);
	written += size;
	stub_fill(linear);
}

void mmu_read_sys(struct soft_vcpu *cpu, uint64_t linear, void *data, unsigned size)
{
	stub_check(linear, size, false, false, true);
	copy_in(linear, data, size);
}

void mmu_write_sys(struct soft_vcpu *cpu, uint64_t linear, const void *data, unsigned size)
{
	stub_check(linear, size, true, false, true);
	copy_out(linear, data, size);
}

void mmu_probe_write(struct soft_vcpu *cpu, uint64_t linear, unsigned size, bool stack)
{
	stub_check(linear, size, true, stack, false);
}

void *mmu_ptr(struct soft_vcpu *cpu, uint64_t linear, unsigned size, enum mmu_access acc, bool stack, uint64_t *gpa)
{
	stub_check(linear, size, acc != ACC_READ, stack, false);
	*gpa = linear % RAM_SIZE;
	return ram + *gpa;
}

void page_written(struct soft_engine *e, uint64_t gpa, unsigned size) { }

static uint64_t flushed = 1;
static unsigned mode_changes, invpcid_type;
static bool bad_pdptes;
void mmu_flush_page(struct soft_vcpu *cpu, uint64_t linear) { flushed = linear; }
void mmu_invpcid(struct soft_vcpu *cpu, unsigned type, uint64_t pcid, uint64_t linear) { invpcid_type = type; }
void mmu_set_cr3(struct soft_vcpu *cpu, uint64_t value) { v->cr3 = value; }
void mmu_mode_changed(struct soft_vcpu *cpu)
{
	mode_changes++;
	if (bad_pdptes && v->cr0 & CR0_PG && v->cr4 & CR4_PAE && !v->long_mode)
		soft_raise(v, EXC_GP, 0);
}

/* ---- The rest of the engine ---------------------------------------------- */

static int pending = -1, acked;
static uint64_t cr8;
int lapic_pending(struct soft_vcpu *cpu) { return pending; }
void native_tick(struct soft_vcpu *cpu)
{
}

int lapic_ack(struct soft_vcpu *cpu)
{
	int vector = pending;

	pending = -1;
	acked++;
	return vector;
}
uint64_t lapic_get_cr8(struct soft_vcpu *cpu) { return cr8; }
void lapic_set_cr8(struct soft_vcpu *cpu, uint64_t value) { cr8 = value; }

static uint32_t msr_last;
static uint64_t msr_value;
static bool msr_ok = true;
bool msr_read(struct soft_vcpu *cpu, uint32_t index, uint64_t *value)
{
	msr_last = index;
	*value = msr_value;
	return msr_ok;
}
bool msr_write(struct soft_vcpu *cpu, uint32_t index, uint64_t value)
{
	msr_last = index;
	msr_value = value;
	return msr_ok;
}

/* Everything is offered that the handlers ask for, but for what a test takes away. */
static uint32_t cpuid_1[4] = { 0, 0, ~0u & ~(1u << 3), ~0u & ~(1u << 1) }, cpuid_7[4] = { 0, ~0u, 1u << 2 | 1u << 22, 0 };
bool soft_cpuid(struct soft_vcpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
	memset(regs, 0, 16);
	switch (leaf) {
	case 1: memcpy(regs, cpuid_1, 16); return true;
	case 7: memcpy(regs, cpuid_7, 16); return true;
	case 0x80000001: regs[3] = 1u << 11 | 1u << 20 | 1u << 27 | 1u << 29; return true;
	case 0x1234: regs[0] = leaf; regs[1] = subleaf; regs[2] = 3; regs[3] = 4; return true;
	default: return false;
	}
}

static uint64_t tsc = 0x1122334455667788;
uint64_t soft_tsc(struct soft_vcpu *cpu) { return tsc; }
bool vec_offers(enum vec_feature f) { return true; }
uint64_t vec_xcr0_mask(void) { return 7; }
uint64_t vec_xinuse(struct soft_vcpu *cpu) { return 5; }
void vec_sync_slow(struct soft_vcpu *cpu) { }
static struct soft_vcpu *woken;
void soft_wake(struct soft_vcpu *cpu, uint32_t bits) { woken = cpu; soft_request(cpu, bits); }
void soft_leave(struct soft_vcpu *cpu) { }
void soft_enter(struct soft_vcpu *cpu) { }
static int inits, sipi = -1;
void soft_cpu_init(struct soft_vcpu *cpu) { inits++; v->mp_state = CPU_MP_WAIT_SIPI; }
void soft_cpu_sipi(struct soft_vcpu *cpu, uint8_t vector) { sipi = vector; v->mp_state = CPU_MP_RUNNABLE; }

/* Ports: what was written, and what is read next. */
static struct { uint16_t port; uint32_t value; unsigned size; } port_log[64];
static unsigned port_count;
static uint32_t port_next;
static uint32_t pio_read(void *opaque, uint16_t port, unsigned size)
{
	port_log[port_count].port = port;
	port_log[port_count++].size = size;
	return port_next++;
}
static void pio_write(void *opaque, uint16_t port, uint32_t value, unsigned size)
{
	port_log[port_count].port = port;
	port_log[port_count].value = value;
	port_log[port_count++].size = size;
}

/* ---- Tables in memory ---------------------------------------------------- */

#define GDT 0x1000u
#define LDT 0x2000u
#define TSS 0x3000u
#define IDT 0x4000u
#define KSTACK 0x9000u  /* RSP0, ESP0 */
#define ISTACK 0xa000u  /* IST1 */
#define STACK 0x8000u
#define CODE 0x10000u
#define TARGET 0x20000u

/* Selectors with RPL 0 */
enum {
	CODE32 = 0x08, DATA32 = 0x10, UCODE32 = 0x18, UDATA32 = 0x20, CODE64 = 0x28, UCODE64 = 0x30, XONLY = 0x38, CONF = 0x40,
	RODATA = 0x48, ABSENT = 0x50, TSSSEL = 0x58, LDTSEL = 0x68, FRESH = 0x78, DOWN = 0x80, GATE = 0x88, /* 16 bytes */
	UCONF = 0x98, CODE1 = 0xa0, DATA1 = 0xa8, CODE16 = 0xb0, DATA16 = 0xb8, LD = 0xc0, ABSENTCODE = 0xc8, TASKGATE = 0xd0,
	UABSENT = 0xd8, UFRESH = 0xe0, OTHERTSS = 0xe8, /* 16 bytes */ BUSYTSS = 0xf8, TSS286 = 0x100, GDT_END = 0x108,
};

static uint64_t make_desc(uint32_t base, uint32_t limit, unsigned access, unsigned flags)
{
	return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
	       (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)flags << 52 | (uint64_t)(base >> 24) << 56;
}

static void poke(uint64_t at, uint64_t value, unsigned size) { memcpy(ram + at, &value, size); }
static uint64_t peek(uint64_t at, unsigned size)
{
	uint64_t value = 0;

	memcpy(&value, ram + at, size);
	return value;
}

static uint64_t make_gate(uint16_t selector, uint32_t offset, unsigned access, unsigned low)
{
	return (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)low << 32 | (uint64_t)access << 40 |
	       (uint64_t)(offset >> 16) << 48;
}

static void make_tables(void)
{
	static const struct { uint16_t selector; uint32_t base, limit; uint8_t access, flags; } descs[] = {
		{ CODE32, 0, 0xfffff, 0x9b, 0xc }, { DATA32, 0, 0xfffff, 0x93, 0xc }, { UCODE32, 0, 0xfffff, 0xfb, 0xc },
		{ UDATA32, 0, 0xfffff, 0xf3, 0xc }, { CODE64, 0, 0xfffff, 0x9b, 0xa }, { UCODE64, 0, 0xfffff, 0xfb, 0xa },
		{ XONLY, 0, 0xfffff, 0x99, 0xc }, { CONF, 0, 0xfffff, 0x9f, 0xc }, { RODATA, 0, 0xfffff, 0x91, 0xc },
		{ ABSENT, 0, 0xfffff, 0x13, 0xc }, { TSSSEL, TSS, 0x1fff, 0x89, 0 }, { LDTSEL, LDT, 0x1f, 0x82, 0 },
		{ FRESH, 0x5000, 0xfff, 0x92, 4 }, { DOWN, 0, 0xfff, 0x97, 4 }, { UCONF, 0, 0xfffff, 0xff, 0xc },
		{ CODE1, 0, 0xfffff, 0xbb, 0xc }, { DATA1, 0, 0xfffff, 0xb3, 0xc }, { CODE16, 0, 0xffff, 0x9b, 0 },
		{ DATA16, 0, 0xffff, 0x93, 0 }, { LD, 0, 0xfffff, 0x9b, 0xe }, { ABSENTCODE, 0, 0xfffff, 0x1b, 0xc },
		{ TASKGATE, OTHERTSS, 0, 0xe5, 0 }, { UABSENT, 0, 0xfffff, 0x73, 0xc }, { UFRESH, 0, 0xfffff, 0xf2, 0xc },
		{ OTHERTSS, TSS, 0x67, 0xe9, 0 }, { BUSYTSS, TSS, 0x67, 0xeb, 0 }, { TSS286, TSS, 0x67, 0x81, 0 },
	};

	for (unsigned n = 0; n < sizeof(descs) / sizeof(descs[0]); n++)
		poke(GDT + descs[n].selector, make_desc(descs[n].base, descs[n].limit, descs[n].access, descs[n].flags), 8);
	poke(LDT + 0x08, make_desc(0, 0xfffff, 0xf3, 0xc), 8);
	poke(LDT + 0x10, make_desc(0x7000, 0xfff, 0xf3, 4), 8);
}

/* ---- The CPU ------------------------------------------------------------- */

enum mode { REAL, VM86, PROT, COMPAT, LONG };

/* A CPU in `mode` at `cpl`, flat segments, all tables as above, interrupts off. */
static void cpu(enum mode mode, unsigned cpl)
{
	bool lng = mode == LONG || mode == COMPAT;
	uint16_t cs, ss;

	memset(v, 0, sizeof(*v));
	memset(ram, 0, sizeof(ram));
	make_tables();
	for (unsigned view = 0; view < TLB_VIEWS; view++)
		for (unsigned n = 0; n < TLB_SIZE; n++)
			v->tlb[view][n].rtag = v->tlb[view][n].wtag = TLB_NONE;
	absent_size = kernel_size = readonly_size = 0;
	fill_tlb = false;
	bad_pdptes = false;
	pending = -1;
	port_count = 0;
	amd = false;
	v->vcpu.engine = &engine.engine;
	v->engine = &engine;
	v->page_flags = page_flags;
	engine.vcpus[0] = v;
	engine.engine.config.host = (struct engine_host){ .pio_read = pio_read, .pio_write = pio_write };
	v->rflags = 2;
	v->rip = v->next_rip = CODE;
	v->gpr[R_SP] = STACK;
	v->cr0 = CR0_ET | CR0_NE;
	v->dr[6] = DR6_FIXED;
	v->dr[7] = DR7_FIXED;
	v->xcr0 = 1;
	v->idtr = (struct cpu_table){ .base = IDT, .limit = 0xfff };
	v->gdtr = (struct cpu_table){ .base = GDT, .limit = GDT_END - 1 };
	v->ldtr = desc_segment(peek(GDT + LDTSEL, 8), LDTSEL);
	v->tr = desc_segment(peek(GDT + TSSSEL, 8) | 2ull << 40, TSSSEL);
	if (mode == REAL || mode == VM86) {
		for (unsigned n = 0; n < SEG_COUNT; n++)
			v->seg[n] = (struct cpu_segment){ .limit = 0xffff, .attr = mode == VM86 ? 0xf3 : 0x93 };
		v->seg[SEG_CS] = (struct cpu_segment){ .base = CODE, .limit = 0xffff, .selector = CODE >> 4,
						       .attr = mode == VM86 ? 0xf3 : 0x9b };
		v->rip = v->next_rip = 0x100;
		if (mode == REAL)
			v->idtr.limit = 0x3ff;
	}
	if (mode == VM86) {
		v->cr0 |= CR0_PE;
		v->rflags |= FL_VM;
	}
	if (mode >= PROT) {
		v->cr0 |= CR0_PE;
		if (cpl == 1) {
			cs = CODE1 | 1;
			ss = DATA1 | 1;
		} else if (mode == LONG) {
			cs = cpl ? UCODE64 | 3 : CODE64;
			ss = cpl ? UDATA32 | 3 : DATA32;
		} else {
			cs = cpl ? UCODE32 | 3 : CODE32;
			ss = cpl ? UDATA32 | 3 : DATA32;
		}
		v->seg[SEG_CS] = desc_segment(peek(GDT + (cs & ~7), 8), cs);
		for (unsigned n = 0; n < SEG_COUNT; n++)
			if (n != SEG_CS)
				v->seg[n] = desc_segment(peek(GDT + (ss & ~7), 8), ss);
	}
	if (lng) {
		v->cr0 |= CR0_PG;
		v->cr4 = CR4_PAE;
		v->efer = EFER_LME | EFER_LMA | EFER_SCE;
		poke(TSS + 4, KSTACK, 8);
		poke(TSS + 12, 0xb000, 8);
		poke(TSS + 0x24, ISTACK, 8);
	} else {
		poke(TSS + 4, KSTACK, 4);
		poke(TSS + 8, DATA32, 4);
		poke(TSS + 12, 0xb000, 4);
		poke(TSS + 16, DATA1 | 1, 4);
	}
	poke(TSS + 102, 0x200, 2); /* I/O bitmap */
	memset(ram + TSS + 0x200, 0xff, 0x1e00);
	soft_update_mode(v);
	if (mode >= PROT)
		assert_int_equal(v->cpl, cpl);
	atomic_store(&v->request, 0);
}

/* What became of an instruction: vector -1 if it completed. */
struct outcome {
	int vector, kind;
	bool has_error;
	uint32_t error;
	uint64_t payload;
};

static struct insn insn;

static __attribute__((noinline)) bool call_handler(void)
{
	if (__builtin_setjmp(v->fault_jmp))
		return false;
	insn.fn(v, &insn);
	return true;
}

/* Run one instruction as the loop does. A fault is left in v->event, undelivered. */
static struct outcome run_bytes(const uint8_t *bytes, unsigned n)
{
	uint64_t mask = v->mode == MODE_64 ? UINT64_MAX : v->mode == MODE_32 ? UINT32_MAX : UINT16_MAX;
	enum decode_result r = insn_decode(&insn, bytes, n, v->mode);

	if (r != DECODE_OK)
		return (struct outcome){ EXC_UD, EVENT_EXCEPTION };
	assert_true(sys_bind(&engine, &insn));
	assert_int_equal(insn.len, n);
	v->next_rip = (v->rip + insn.len) & mask;
	v->shadow = 0;
	v->event.active = 0;
	if (!call_handler()) {
		assert_true(v->event.active);
		assert_int_equal(v->borrowed, 0);
		return (struct outcome){ v->event.vector, v->event.kind, v->event.has_error, v->event.error, v->event.payload };
	}
	assert_int_equal(v->borrowed, 0);
	v->rip = v->next_rip;
	return (struct outcome){ -1 };
}

#define RUN(...) run_bytes((const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

/* An exception with this vector, and error code where it has one. */
#define assert_fault(o, vec, err)                                                                                              \
	do {                                                                                                                   \
		struct outcome o_ = (o);                                                                                       \
		assert_int_equal(o_.vector, vec);                                                                              \
		assert_int_equal(o_.kind, EVENT_EXCEPTION);                                                                    \
		assert_int_equal(o_.error, err);                                                                               \
	} while (0)
#define assert_done(o) assert_int_equal((o).vector, -1)

static int stub_setup(void **state)
{
	v = aligned_alloc(64, (sizeof(*v) + 63) & ~63ul);
	return v ? 0 : -1;
}

static int stub_teardown(void **state)
{
	free(v);
	return 0;
}
