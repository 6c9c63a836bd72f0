/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The same instruction on the soft engine: a vCPU in ring 3 of long mode whose
 * page tables show the windows of diff.h.
 *
 * Two ways. Directly: decode, bind and call the handler, as the loop would;
 * faults land here with the event not yet delivered. By step: vcpu_set_state()
 * and vcpu_step(), the bytes fetched through the page tables and faults
 * delivered through an IDT, whose handlers tell the vector and whose stack
 * frame tells the rest.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "diff.h"
#include "engine/soft/core.h"
#include "engine/soft/vec.h"

#define KERNEL_BASE 0xffffa00000000000ull
enum { /* physical pages */
	P_KERNEL, P_KSTACK, P_PML4, P_TABLES, P_TABLES_END = P_TABLES + 10, P_IMAGE = P_TABLES_END,
	P_CODE = P_IMAGE + IMAGE_PAGES, P_END = P_CODE + CODE_PAGES,
};
enum { K_IDT = 0, K_GDT = 0x400, K_TSS = 0x500, K_HANDLERS = 0x800, HANDLER_SIZE = 16 };

uint8_t *soft_image;
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
		uint64_t gate[2] = { (handler & 0xffff) | 8 << 16 | 0x8e00ull << 32 | (handler >> 16 & 0xffff) << 48, handler >> 32 };

		if (n == EXC_BP || n == EXC_OF)
			gate[0] |= 3ull << 45;
		memcpy(ram + K_IDT + n * 16, gate, 16);
		memcpy(ram + K_HANDLERS + n * HANDLER_SIZE, "\xeb\xfe", 2);
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

static struct cpu_segment code_segment(unsigned mode)
{
	return mode == MODE_64 ? (struct cpu_segment){ .limit = UINT32_MAX, .attr = 0xa0fb, .selector = 0x33 } :
				 (struct cpu_segment){ .limit = UINT32_MAX, .attr = 0xc0fb, .selector = 0x23 };
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

static void no_port_write(void *opaque, uint16_t port, uint32_t value, unsigned size)
{
}

bool softside_init(const uint8_t *image, const char **why)
{
	static struct err err;
	struct engine_config config = {
		.kind = ENGINE_SOFT,
		.cpus = 1,
		.host = { .mmio_read = no_device, .mmio_write = no_device_write, .pio_read = no_port, .pio_write = no_port_write },
	};
	struct cpu_state *s = base_state = aligned_alloc(64, sizeof(*s));
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
	if (!e || engine_map(e, 0, P_END * PAGE, ram, false, &err) || !(v = soft_vcpu(vcpu_new(e, 0, &err)))) {
		*why = err_msg(&err);
		return false;
	}
	cpu_state_reset(s, 0);
	s->cr0 = 0x80050033; /* PG, AM, WP, NE, ET, MP, PE */
	s->cr3 = P_PML4 * PAGE;
	s->cr4 = 0x50668;    /* DE, PAE, MCE, OSFXSR, OSXMMEXCPT, FSGSBASE, OSXSAVE */
	s->xcr0 = 7;
	s->efer = 0xd01;     /* SCE, LME, LMA, NXE */
	s->seg[SEG_CS] = code_segment(MODE_64);
	s->seg[SEG_SS] = s->seg[SEG_DS] = s->seg[SEG_ES] =
		(struct cpu_segment){ .limit = UINT32_MAX, .attr = 0xc0f3, .selector = 0x2b };
	s->seg[SEG_FS] = s->seg[SEG_GS] = (struct cpu_segment){ .attr = SEG_ATTR_UNUSABLE };
	s->ldtr = (struct cpu_segment){ .attr = SEG_ATTR_UNUSABLE };
	s->tr = (struct cpu_segment){ .base = KERNEL_BASE + K_TSS, .limit = 0x67, .attr = 0x8b, .selector = 0x40 };
	s->gdtr = (struct cpu_table){ .base = KERNEL_BASE + K_GDT, .limit = 0x4f };
	s->idtr = (struct cpu_table){ .base = KERNEL_BASE + K_IDT, .limit = 32 * 16 - 1 };
	s->rip = CODE_BASE;
	if (vcpu_set_state(&v->vcpu, s, &err)) {
		*why = err_msg(&err);
		return false;
	}
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

static struct cpu_segment fs_gs_segment(unsigned mode, uint64_t base)
{
	return mode == MODE_64 ? (struct cpu_segment){ .base = base, .attr = SEG_ATTR_UNUSABLE } : base_state->seg[SEG_DS];
}

/* ---- Directly ------------------------------------------------------------ */

static bool repeats(const struct insn *i)
{
	return i->map == MAP_1B && i->prefixes & (PFX_F2 | PFX_F3) &&
	       ((i->opcode >= 0xa4 && i->opcode <= 0xaf) || (i->opcode >= 0x6c && i->opcode <= 0x6f));
}

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
	} while (v->next_rip == v->rip && repeats(i)); /* stopped between iterations */
	__asm__ volatile("" : : : "memory");
	return true;
}

static void run_direct(const struct diff_case *c, struct diff_result *r)
{
	struct insn insn;
	enum decode_result d;

	v->seg[SEG_FS] = fs_gs_segment(c->mode, c->in.fs_base);
	v->seg[SEG_GS] = fs_gs_segment(c->mode, c->in.gs_base);
	v->rflags = c->in.rflags;
	if (v->mode != c->mode || v->cpl != 3 || v->borrowed || v->tlb_view != TLB_USER || v->ac_check) {
		v->seg[SEG_CS] = code_segment(c->mode);
		v->seg[SEG_SS] = base_state->seg[SEG_SS];
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
	d = insn_decode(&insn, c->bytes, 15, c->mode);
	r->vector = -1;
	r->error = 0;
	r->cr2 = 0;
	if (d == DECODE_OK) {
		soft_bind(v->engine, &insn);
		if (call_handler(v, &insn)) {
			r->out.rip = c->mode == MODE_64 ? v->next_rip : (uint32_t)v->next_rip;
		} else {
			r->vector = v->event.vector;
			r->error = v->event.has_error ? v->event.error : 0;
			r->cr2 = r->vector == EXC_PF ? v->event.payload : 0;
			r->out.rip = v->event.kind == EVENT_EXCEPTION ? v->rip : v->next_rip;
		}
	} else {
		r->vector = d == DECODE_UD ? EXC_UD : EXC_GP;
		r->out.rip = v->rip;
	}
	take_state(r);
}

/* ---- By step ------------------------------------------------------------- */

static uint64_t kernel_stack(uint64_t at)
{
	return get64(ram + P_KSTACK * PAGE + (at - KERNEL_BASE - PAGE));
}

static void run_step(const struct diff_case *c, struct diff_result *r)
{
	static struct err err;
	struct cpu_state *s = base_state;
	uint64_t code = c->in.rip - CODE_BASE, sp;
	enum vcpu_exit exit;

	engine_written(&v->engine->engine, P_CODE * PAGE + code, c->room < 16 ? c->room : 16);
	memcpy(s->gpr, c->in.gpr, sizeof(s->gpr));
	s->rip = c->in.rip;
	s->rflags = c->in.rflags;
	s->seg[SEG_CS] = code_segment(c->mode);
	s->seg[SEG_FS] = fs_gs_segment(c->mode, c->in.fs_base);
	s->seg[SEG_GS] = fs_gs_segment(c->mode, c->in.gs_base);
	fx_put(s->xsave, &c->in);
	for (int n = 0; n < 16; n++) {
		memcpy(s->xsave + FX_XMM + n * 16, c->in.ymm[n], 16);
		memcpy(s->xsave + XSAVE_AVX + n * 16, c->in.ymm[n] + 16, 16);
	}
	put64(s->xsave + XSAVE_HEADER, 7);
	r->vector = -1;
	r->error = 0;
	r->cr2 = 0;
	if (vcpu_set_state(&v->vcpu, s, &err) || vcpu_step(&v->vcpu, 1, &exit, &err) || exit != VCPU_EXIT_KICK) {
		r->vector = 1000;
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
}

void softside_run(const struct diff_case *c, struct diff_result *r)
{
	uint8_t *code = ram + P_CODE * PAGE + (c->in.rip - CODE_BASE);
	unsigned n = c->len < c->room ? c->len : c->room;

	memcpy(code, c->bytes, n);
	if (c->by_step)
		run_step(c, r);
	else
		run_direct(c, r);
	memset(code, 0xcc, n);
}
