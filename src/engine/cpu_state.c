/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "engine/cpu_state.h"

#include <stdlib.h>
#include <string.h>

static void put32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, sizeof(v));
}

static void reset_lapic(uint8_t *apic, unsigned index)
{
	/* SDM vol. 3 §10.4.7.1; x2APIC keeps the ID in the same place after the reset to xAPIC mode. */
	put32(apic + 0x20, index << 24);
	put32(apic + 0x30, 0x00050014); /* version 14h, six LVT entries */
	put32(apic + 0xe0, 0xffffffff); /* DFR: flat */
	put32(apic + 0xf0, 0x000000ff); /* SVR: software-disabled */
	for (unsigned lvt = 0x320; lvt <= 0x370; lvt += 0x10)
		put32(apic + lvt, 0x00010000);
}

void cpu_state_reset(struct cpu_state *s, unsigned index)
{
	memset(s, 0, sizeof(*s));
	s->rip = 0xfff0;
	s->rflags = 0x2;
	s->gpr[R_DX] = 0x00a00f11;
	for (int i = 0; i < SEG_COUNT; i++)
		s->seg[i] = (struct cpu_segment){ .limit = 0xffff, .attr = 0x93 };
	s->seg[SEG_CS] = (struct cpu_segment){ .base = 0xffff0000, .limit = 0xffff, .attr = 0x9b, .selector = 0xf000 };
	s->ldtr = (struct cpu_segment){ .limit = 0xffff, .attr = 0x82 };
	s->tr = (struct cpu_segment){ .limit = 0xffff, .attr = 0x8b };
	s->gdtr.limit = s->idtr.limit = 0xffff;
	s->cr0 = 0x60000010;
	s->xcr0 = 1;
	s->dr[6] = 0xffff0ff0;
	s->dr[7] = 0x400;
	s->apic_base = 0xfee00000 | 0x800 | (index == 0 ? 0x100 : 0);
	s->pat = 0x0007040600070406;
	s->misc_enable = 1;
	s->mtrr_def_type = 0xc06; /* as firmware leaves it: enabled, write-back */
	s->mp_state = index == 0 ? CPU_MP_RUNNABLE : CPU_MP_WAIT_INIT;
	reset_lapic(s->lapic, index);
	s->xsave[0] = 0x7f; /* FCW 037Fh as Linux expects of FNINIT; SDM says 0040h after reset, KVM 037Fh */
	s->xsave[1] = 0x03;
	put32(s->xsave + 24, 0x1f80); /* MXCSR */
	put32(s->xsave + 28, 0xffff);
	s->xsave[512] = 3; /* XSTATE_BV: x87 and SSE */
}

struct cpu_state *cpu_state_new(void)
{
	/* The size that aligned_alloc() takes is a multiple of the alignment, as that of an aligned struct is. */
	return aligned_alloc(_Alignof(struct cpu_state), sizeof(struct cpu_state));
}
