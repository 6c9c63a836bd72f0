/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The same instruction on the soft engine: a vCPU in ring 3 of long mode whose
 * page tables show the windows of diff.h.
 *
 * Directly: decode, bind and call the handler, as the loop would; faults land
 * here with the event not yet delivered. Otherwise vcpu_set_state(), and
 * vcpu_step() or vcpu_run() into an INT3: the bytes are fetched through the
 * page tables, and faults are delivered through an IDT, whose handlers tell the
 * vector and whose stack frame tells the rest.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "diff.h"
#include "engine/soft/trans.h"
#include "engine/soft/vec.h"

#define KERNEL_BASE 0xffffa00000000000ull
enum { /* physical pages */
       P_KERNEL,
       P_KSTACK,
       P_PML4,
       P_TABLES,
       P_TABLES_END = P_TABLES + 10,
       P_IMAGE = P_TABLES_END,
       P_CODE = P_IMAGE + IMAGE_PAGES,
       P_END = P_CODE + CODE_PAGES,
};
enum { K_IDT = 0, K_GDT = 0x400, K_TSS = 0x500, K_HANDLERS = 0x800, HANDLER_SIZE = 16 };

uint8_t *soft_image;
bool softside_translate;
static uint8_t *ram;
static struct soft_vcpu *v;
static struct cpu_state *base_state;
static unsigned next_table = P_TABLES;

static uint64_t *table(unsigned page)
{
	return (uint64_t *)(ram + page * PAGE);
}

static void map_page(uint64_t linear, unsigned page, uint64_t bits)
{
	uint64_t *t = table(P_PML4);

	for (int shift = 39; shift > 12; shift -= 9) {
		uint64_t *e = &t[linear >> shift & 511];

		if (!*e)
			*e = (uint64_t)next_table++ * PAGE | 0x27; /* P, W, U, A */
		t = table((unsigned)(*e / PAGE));
	}
	t[linear >> 12 & 511] = (uint64_t)page * PAGE | bits | 0x61; /* P, A, D */
}

#define PTE_W 2u
#define PTE_U 4u
#define PTE_NX (1ull << 63)

static void build_memory(void)
{
	uint64_t *gdt = (uint64_t *)(ram + K_GDT), tss = KERNEL_BASE + K_TSS, rsp0 = KERNEL_BASE + 2 * PAGE;

	for (unsigned n = 0; n < DATA_RW_PAGES; n++)
		map_page(DATA_BASE + n * PAGE, P_IMAGE + n, PTE_W | PTE_U | PTE_NX);
	map_page(DATA_RO_BASE, P_IMAGE + IMAGE_DATA_RO, PTE_U | PTE_NX);
	map_page(STACK_BASE, P_IMAGE + IMAGE_STACK, PTE_W | PTE_U | PTE_NX);
	for (unsigned n = 0; n < CODE_PAGES; n++)
		map_page(CODE_BASE + n * PAGE, P_CODE + n, PTE_U);
	map_page(KERNEL_BASE, P_KERNEL, 0);
	map_page(KERNEL_BASE + PAGE, P_KSTACK, PTE_W | PTE_NX);
	for (unsigned n = 0; n < 32; n++) {
		uint64_t handler = KERNEL_BASE + K_HANDLERS + n * HANDLER_SIZE;
		uint64_t gate[2] = { (handler & 0xffff) | 8 << 16 | 0x8e00ull << 32 | (handler >> 16 & 0xffff) << 48,
				     handler >> 32 };

		if (n == EXC_BP || n == EXC_OF)
			gate[0] |= 3ull << 45;
		memcpy(ram + K_IDT + n * 16, gate, 16);
		memcpy(ram + K_HANDLERS + n * HANDLER_SIZE, "\xe6\xf4\xeb\xfe", 4); /* out %al, $0xf4; jmp . */
	}
	gdt[1] = 0x00af9b000000ffff;
	gdt[2] = 0x00cf93000000ffff;
	gdt[4] = 0x00cffb000000ffff; /* 23h: ring 3, 32-bit code */
	gdt[5] = 0x00cff3000000ffff; /* 2Bh */
	gdt[6] = 0x00affb000000ffff; /* 33h: ring 3, 64-bit code */
	gdt[8] = 0x67 | (tss & 0xffffff) << 16 | 0x8bull << 40 | (tss >> 24 & 0xff) << 56;
	gdt[9] = tss >> 32;
	memcpy(ram + K_TSS + 4, &rsp0, 8);
	ram[K_TSS + 0x66] = 0x68; /* I/O map beyond the limit: no port is open */
}

/* As the kernel leaves FS and GS in 64-bit mode: a null selector, a base. */
static struct cpu_segment null_segment(uint64_t base)
{
	return (struct cpu_segment){ .base = base, .attr = SEG_ATTR_UNUSABLE };
}

static struct cpu_segment segment(unsigned n)
{
	const struct diff_segment *s = &diff_segments[n];

	return (struct cpu_segment){ .base = s->base, .limit = s->limit, .attr = s->attr, .selector = s->selector };
}

static void set_segments(const struct diff_case *c, struct cpu_segment seg[SEG_COUNT])
{
	if (c->mode != MODE_64) {
		for (unsigned n = 0; n < SEG_COUNT; n++)
			seg[n] = segment(c->seg[n]);
		return;
	}
	seg[SEG_CS] = (struct cpu_segment){ .limit = UINT32_MAX, .attr = 0xa0fb, .selector = 0x33 };
	seg[SEG_SS] = seg[SEG_DS] = seg[SEG_ES] = segment(DIFF_FLAT_DATA);
	seg[SEG_FS] = null_segment(c->in.fs_base);
	seg[SEG_GS] = null_segment(c->in.gs_base);
}

static uint64_t no_device(void *opaque, uint64_t gpa, unsigned size)
{
	return UINT64_MAX;
}

static void no_device_write(void *opaque, uint64_t gpa, uint64_t value, unsigned size)
{
}

static uint32_t no_port(void *opaque, uint16_t port, unsigned size)
{
	return UINT32_MAX;
}

/* The exception handlers end in an OUT. */
static void no_port_write(void *opaque, uint16_t port, uint32_t value, unsigned size)
{
	vcpu_kick(&v->vcpu);
}

/* The handler of what nobody binds. */
static insn_fn *unknown;

bool softside_knows(const struct insn *insn)
{
	struct insn i = *insn;

	soft_bind(v->engine, &i);
	return i.fn != unknown;
}

bool softside_init(const uint8_t *image, const char **why)
{
	static struct err err;
	struct engine_config config = {
		.kind = ENGINE_SOFT,
		.cpus = 1,
		.host = { .mmio_read = no_device,
			  .mmio_write = no_device_write,
			  .pio_read = no_port,
			  .pio_write = no_port_write },
	};
	struct cpu_state *s = base_state = aligned_alloc(64, sizeof(*s));
	static const struct diff_case c = { .mode = MODE_64 };
	struct insn insn;
	struct engine *e;

	ram = mmap(NULL, P_END * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ram == MAP_FAILED) {
		*why = "no memory";
		return false;
	}
	soft_image = ram + P_IMAGE * PAGE;
	memcpy(soft_image, image, IMAGE_PAGES * PAGE);
	build_memory();
	memset(ram + P_CODE * PAGE, 0xcc, CODE_PAGES * PAGE);
	e = engine_new(&config, &err);
	if (e && softside_translate)
		trans_set_test(soft_engine(e), 0, true);
	if (!e || engine_map(e, 0, P_END * PAGE, ram, false, &err) || !(v = soft_vcpu(vcpu_new(e, 0, &err)))) {
		*why = err_msg(&err);
		return false;
	}
	cpu_state_reset(s, 0);
	s->cr0 = 0x80050033; /* PG, AM, WP, NE, ET, MP, PE */
	s->cr3 = P_PML4 * PAGE;
	s->cr4 = 0x50668; /* DE, PAE, MCE, OSFXSR, OSXMMEXCPT, FSGSBASE, OSXSAVE */
	s->xcr0 = 7;
	s->efer = 0xd01; /* SCE, LME, LMA, NXE */
	set_segments(&c, s->seg);
	s->ldtr = (struct cpu_segment){ .attr = SEG_ATTR_UNUSABLE };
	s->tr = (struct cpu_segment){ .base = KERNEL_BASE + K_TSS, .limit = 0x67, .attr = 0x8b, .selector = 0x40 };
	s->gdtr = (struct cpu_table){ .base = KERNEL_BASE + K_GDT, .limit = 0x4f };
	s->idtr = (struct cpu_table){ .base = KERNEL_BASE + K_IDT, .limit = 32 * 16 - 1 };
	s->rip = CODE_BASE;
	if (vcpu_set_state(&v->vcpu, s, &err)) {
		*why = err_msg(&err);
		return false;
	}
	insn_decode(&insn, (const uint8_t *)"\x0f\x0b\x90\x90", 4, MODE_64);
	insn.opcode = 0x04; /* nothing has ever been there */
	soft_bind(soft_engine(e), &insn);
	unknown = insn.fn;
	return true;
}

/* ---- Registers ----------------------------------------------------------- */

static void fx_put(uint8_t *fx, const struct diff_state *in)
{
	memset(fx, 0, FX_XMM);
	put16(fx + FX_FCW, in->fcw);
	put16(fx + FX_FSW, in->fsw);
	fx[FX_FTW] = in->ftw;
	put32(fx + FX_MXCSR, in->mxcsr);
	put32(fx + FX_MXCSR_MASK, MXCSR_VALID);
	for (int n = 0; n < 8; n++)
		memcpy(fx + FX_ST + n * 16, in->st[n], 10);
}

static void take_state(struct diff_result *r)
{
	struct diff_state *s = &r->out;

	vec_sync(v);
	memcpy(s->gpr, v->gpr, sizeof(s->gpr));
	s->rflags = v->rflags;
	s->fs_base = v->seg[SEG_FS].base;
	s->gs_base = v->seg[SEG_GS].base;
	memcpy(s->ymm, v->ymm, sizeof(s->ymm));
	s->fcw = get16(v->fx + FX_FCW);
	s->fsw = get16(v->fx + FX_FSW);
	s->ftw = v->fx[FX_FTW];
	s->mxcsr = get32(v->fx + FX_MXCSR);
	for (int n = 0; n < 8; n++)
		memcpy(s->st[n], v->fx + FX_ST + n * 16, 10);
}

/* ---- Directly ------------------------------------------------------------ */

/* True if the instruction ended, false if it raised v->event. In a function of its own, as run_landing() is. */
static __attribute__((noinline)) bool call_handler(struct soft_vcpu *v, const struct insn *i)
{
	if (__builtin_setjmp(v->fault_jmp)) {
		if (v->park->slow_locked)
			soft_unlock_slow(v);
		return false;
	}
	do {
		v->next_rip = v->rip + i->len;
		i->fn(v, i);
	} while (v->next_rip == v->rip && diff_is_string(i) &&
		 i->prefixes & (PFX_F2 | PFX_F3)); /* stopped between iterations */
	__asm__ volatile("" : : : "memory");
	return true;
}

static void run_direct(const struct diff_case *c, struct diff_result *r)
{
	struct insn insn;
	enum decode_result d;

	v->rflags = c->in.rflags;
	if (c->mode == MODE_64 && v->mode == MODE_64) {
		v->seg[SEG_FS] = null_segment(c->in.fs_base);
		v->seg[SEG_GS] = null_segment(c->in.gs_base);
	}
	if (c->mode != MODE_64 || v->mode != c->mode || v->cpl != 3 || v->borrowed || v->tlb_view != TLB_USER ||
	    v->ac_check || v->rflags & FL_AC) {
		set_segments(c, v->seg);
		soft_update_mode(v);
	}
	memcpy(v->gpr, c->in.gpr, sizeof(c->in.gpr));
	v->gpr[REG_ZERO] = 0;
	v->rip = c->in.rip;
	memcpy(v->ymm, c->in.ymm, sizeof(v->ymm));
	fx_put(v->fx, &c->in);
	v->event.active = 0;
	v->shadow = 0;
	atomic_store(&v->request, 0);
	r->vector = -1;
	r->error = 0;
	r->cr2 = 0;
	for (unsigned n = 0, at = 0; n < c->count && r->vector < 0; n++, at += insn.len) {
		d = insn_decode(&insn, c->bytes + at, 15, c->mode | insn_decode_flags());
		if (d != DECODE_OK) {
			r->vector = d == DECODE_UD ? EXC_UD : EXC_GP;
			break;
		}
		soft_bind(v->engine, &insn);
		if (!call_handler(v, &insn)) {
			r->vector = v->event.vector;
			r->error = v->event.has_error ? v->event.error : 0;
			r->cr2 = r->vector == EXC_PF ? v->event.payload : 0;
			v->rip = v->event.kind == EVENT_EXCEPTION ? v->rip : v->next_rip;
			break;
		}
		v->rip = c->mode == MODE_64 ? v->next_rip : (uint32_t)v->next_rip;
	}
	r->out.rip = v->rip;
	take_state(r);
}

/* ---- As a machine does ---------------------------------------------------- */

static uint64_t kernel_stack(uint64_t at)
{
	return get64(ram + P_KSTACK * PAGE + (at - KERNEL_BASE - PAGE));
}

/* Translated code does itself what it finds in the TLB, which is empty after vcpu_set_state(). */
static void fill_tlb(void)
{
	uint64_t gpa;

	for (unsigned n = 0; n < DATA_RW_PAGES; n++)
		mmu_ptr(v, DATA_BASE + n * PAGE, 1, ACC_RMW, false, &gpa);
	mmu_ptr(v, DATA_RO_BASE, 1, ACC_READ, false, &gpa);
	mmu_ptr(v, STACK_BASE, 1, ACC_RMW, false, &gpa);
}

static void run_whole(const struct diff_case *c, struct diff_result *r)
{
	static struct err err;
	struct cpu_state *s = base_state;
	uint64_t code = diff_code_at(c) - CODE_BASE, sp;
	enum vcpu_exit exit;

	engine_written(&v->engine->engine, P_CODE * PAGE + code, c->len < c->room ? c->room : c->len);
	memcpy(s->gpr, c->in.gpr, sizeof(s->gpr));
	s->rip = c->in.rip;
	s->rflags = c->in.rflags;
	set_segments(c, s->seg);
	fx_put(s->xsave, &c->in);
	for (int n = 0; n < 16; n++) {
		memcpy(s->xsave + FX_XMM + n * 16, c->in.ymm[n], 16);
		memcpy(s->xsave + XSAVE_AVX + n * 16, c->in.ymm[n] + 16, 16);
	}
	put64(s->xsave + XSAVE_HEADER, 7);
	r->vector = -1;
	r->error = 0;
	r->cr2 = 0;
	if (vcpu_set_state(&v->vcpu, s, &err) || (c->way == DIFF_STEP && vcpu_step(&v->vcpu, 1, &exit, &err))) {
		r->vector = 1000;
		return;
	}
	if (c->way == DIFF_RUN && softside_translate)
		fill_tlb();
	if (c->way == DIFF_RUN)
		exit = vcpu_run(&v->vcpu, &err);
	if (exit != VCPU_EXIT_KICK) {
		r->vector = 1001 + (int)exit;
		return;
	}
	take_state(r);
	r->out.rip = v->rip;
	if (v->cpl == 3)
		return;
	sp = v->gpr[R_SP];
	r->vector = (int)((v->rip - KERNEL_BASE - K_HANDLERS) / HANDLER_SIZE);
	if (r->vector == EXC_DF || (r->vector >= EXC_TS && r->vector <= EXC_PF) || r->vector == EXC_AC) {
		r->error = (uint32_t)kernel_stack(sp);
		sp += 8;
	}
	r->cr2 = r->vector == EXC_PF ? v->cr2 : 0;
	r->out.rip = kernel_stack(sp);
	r->out.rflags = kernel_stack(sp + 16);
	r->out.gpr[R_SP] = kernel_stack(sp + 24);
	if (c->way == DIFF_RUN)
		diff_settle(c, r);
}

void softside_run(const struct diff_case *c, struct diff_result *r)
{
	uint8_t *code = ram + P_CODE * PAGE + (diff_code_at(c) - CODE_BASE);
	unsigned n = c->len < c->room ? c->len : c->room;

	memcpy(code, c->bytes, n);
	if (c->way == DIFF_DIRECT)
		run_direct(c, r);
	else
		run_whole(c, r);
	memset(code, 0xcc, n);
	if (c->way != DIFF_DIRECT)
		engine_written(&v->engine->engine, P_CODE * PAGE + (diff_code_at(c) - CODE_BASE), n);
}
