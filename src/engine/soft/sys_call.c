/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS and the FS/GS base instructions.
 * Where Intel's and AMD's CPUs differ, the guest gets what the host's vendor
 * does, as CPUID names that vendor (SDM vol. 2; AMD APM vol. 2 §6.1, vol. 3).
 */
#include "engine/soft/sys.h"

#define TYPE_CODE 0xbu
#define TYPE_DATA 0x3u

/* CS and SS as the fast system calls set them; `bits` is SEG_ATTR_L or SEG_ATTR_DB. */
static void set_segments(struct soft_vcpu *v, uint16_t cs, uint32_t bits, uint16_t ss, unsigned cpl)
{
	uint32_t attr = SEG_ATTR_G | SEG_ATTR_P | SEG_ATTR_S | cpl << SEG_ATTR_DPL_SHIFT;

	segment_set(&v->seg[SEG_CS], 0, UINT32_MAX, attr | TYPE_CODE | bits, cs);
	segment_set(&v->seg[SEG_SS], 0, UINT32_MAX, attr | TYPE_DATA | SEG_ATTR_DB, ss);
}

static void need_sce(struct soft_vcpu *v)
{
	if (unlikely(!(v->efer & EFER_SCE)))
		soft_raise(v, EXC_UD, 0);
}

/* ---- SYSCALL, SYSRET ----------------------------------------------------- */

static void set_syscall_segments(struct soft_vcpu *v, uint32_t bits)
{
	uint16_t cs = v->star >> 32 & ~3u;

	set_segments(v, cs, bits, cs + 8, 0);
}

static void sys_syscall64(struct soft_vcpu *v, const struct insn *i)
{
	need_sce(v);
	v->gpr[R_CX] = v->next_rip;
	v->gpr[R_11] = v->rflags & ~(uint64_t)FL_RF;
	v->next_rip = v->lstar;
	v->rflags = (v->rflags & ~(v->sfmask | FL_RF)) | 2;
	if (unlikely(v->step) && !(v->rflags & FL_TF))
		v->step = 0;
	set_syscall_segments(v, SEG_ATTR_L);
	soft_set_cpl64(v, 0);
}

/* Compatibility mode and legacy protected mode: AMD only. */
static void sys_syscall_legacy(struct soft_vcpu *v, const struct insn *i)
{
	need_sce(v);
	if (!sys_is_amd() || in_paragraphs(v))
		soft_raise(v, EXC_UD, 0);
	v->gpr[R_CX] = v->next_rip;
	if (v->long_mode) {
		v->gpr[R_11] = v->rflags & ~(uint64_t)FL_RF;
		v->next_rip = v->cstar;
		v->rflags = (v->rflags & ~(v->sfmask | FL_RF)) | 2;
		set_syscall_segments(v, SEG_ATTR_L);
	} else {
		v->next_rip = (uint32_t)v->star;
		v->rflags &= ~(uint64_t)(FL_IF | FL_VM | FL_RF);
		set_syscall_segments(v, SEG_ATTR_DB);
	}
	if (v->step && !(v->rflags & FL_TF))
		v->step = 0;
	soft_update_mode(v);
}

#define SYSRET_FLAGS (FLAGS_ARITH | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_AC | FL_ID)

static void sysret_flags(struct soft_vcpu *v, uint64_t flags)
{
	soft_set_rflags(v, flags, SYSRET_FLAGS | FL_RF);
	v->rflags &= ~(uint64_t)FL_RF;
	/* Unlike IRET and POPF, a TF that is set here traps at once. */
	if (unlikely(v->rflags & FL_TF))
		v->step = 1;
}

static void sys_sysret64(struct soft_vcpu *v, const struct insn *i)
{
	uint16_t base = v->star >> 48;

	need_sce(v);
	soft_need_cpl0(v);
	if (i->opsize == 8) {
		/* AMD's CPUs meet a non-canonical address only at the fetch. */
		if (unlikely(!canonical(v->gpr[R_CX])) && !sys_is_amd())
			soft_raise(v, EXC_GP, 0);
		v->next_rip = v->gpr[R_CX];
		set_segments(v, (base + 16) | 3, SEG_ATTR_L, (base + 8) | 3, 3);
		soft_set_cpl64(v, 3);
	} else {
		v->next_rip = (uint32_t)v->gpr[R_CX];
		set_segments(v, base | 3, SEG_ATTR_DB, (base + 8) | 3, 3);
		soft_update_mode(v);
	}
	sysret_flags(v, v->gpr[R_11]);
}

static void sys_sysret_legacy(struct soft_vcpu *v, const struct insn *i)
{
	uint16_t base = v->star >> 48;

	need_sce(v);
	if (!sys_is_amd())
		soft_raise(v, EXC_UD, 0);
	if (!in_protected(v) || v->cpl)
		soft_raise(v, EXC_GP, 0);
	v->next_rip = (uint32_t)v->gpr[R_CX];
	set_segments(v, base | 3, SEG_ATTR_DB, (base + 8) | 3, 3);
	soft_update_mode(v);
	soft_set_rflags(v, FL_IF, FL_IF);
}

/* ---- SYSENTER, SYSEXIT --------------------------------------------------- */

static void sys_sysenter(struct soft_vcpu *v, const struct insn *i)
{
	uint16_t cs = v->sysenter_cs & ~3u;

	if (v->long_mode && sys_is_amd())
		soft_raise(v, EXC_UD, 0);
	if (!in_protected(v) || !cs)
		soft_raise(v, EXC_GP, 0);
	v->rflags &= ~(uint64_t)(FL_VM | FL_IF | FL_RF);
	v->gpr[R_SP] = v->long_mode ? v->sysenter_esp : (uint32_t)v->sysenter_esp;
	v->next_rip = v->long_mode ? v->sysenter_eip : (uint32_t)v->sysenter_eip;
	set_segments(v, cs, v->long_mode ? SEG_ATTR_L : SEG_ATTR_DB, cs + 8, 0);
	soft_update_mode(v);
}

static void sys_sysexit(struct soft_vcpu *v, const struct insn *i)
{
	uint16_t cs = v->sysenter_cs & ~3u;
	uint64_t rip = v->gpr[R_DX], rsp = v->gpr[R_CX];

	if (v->long_mode && sys_is_amd())
		soft_raise(v, EXC_UD, 0);
	if (!in_protected(v) || v->cpl || !cs)
		soft_raise(v, EXC_GP, 0);
	if (i->opsize == 8) {
		if (!canonical(rip) || !canonical(rsp))
			soft_raise(v, EXC_GP, 0);
		set_segments(v, (cs + 32) | 3, SEG_ATTR_L, (cs + 40) | 3, 3);
		v->gpr[R_SP] = rsp;
		v->next_rip = rip;
	} else {
		set_segments(v, (cs + 16) | 3, SEG_ATTR_DB, (cs + 24) | 3, 3);
		v->gpr[R_SP] = (uint32_t)rsp;
		v->next_rip = (uint32_t)rip;
	}
	soft_update_mode(v);
}

/* ---- FS and GS base ------------------------------------------------------ */

static void sys_swapgs(struct soft_vcpu *v, const struct insn *i)
{
	uint64_t base = v->seg[SEG_GS].base;

	soft_need_cpl0(v);
	v->seg[SEG_GS].base = v->kernel_gs_base;
	v->kernel_gs_base = base;
}

/* Bit 0 of the opcode extension chooses GS, bit 1 the write. */
static void sys_fsgsbase(struct soft_vcpu *v, const struct insn *i)
{
	struct cpu_segment *s = &v->seg[SEG_FS + (i->modrm >> 3 & 1)];

	if (unlikely(!(v->cr4 & CR4_FSGSBASE)))
		soft_raise(v, EXC_UD, 0);
	if (i->modrm & 0x10) {
		uint64_t base = reg_get(v, i->rm, i->opsize == 8 ? 8 : 4);

		if (!canonical(base))
			soft_raise(v, EXC_GP, 0);
		s->base = base;
	} else {
		reg_set(v, i->rm, s->base, i->opsize == 8 ? 8 : 4);
	}
}

insn_fn *sys_call_bind(const struct insn *i, bool *ends)
{
	if (i->map != MAP_0F)
		return NULL;
	*ends = true;
	switch (i->opcode) {
	case 0x05:
		return i->mode == MODE_64 ? sys_syscall64 : sys_syscall_legacy;
	case 0x07:
		return i->mode == MODE_64 ? sys_sysret64 : sys_sysret_legacy;
	case 0x34:
		return sys_sysenter;
	case 0x35:
		return sys_sysexit;
	}
	*ends = false;
	if (i->opcode == 0x01 && i->modrm == 0xf8)
		return i->mode == MODE_64 ? sys_swapgs : sys_undefined;
	if (i->opcode == 0xae && !i->is_mem && modrm_reg(i) < 4)
		return i->mode == MODE_64 && i->prefixes & PFX_F3 ? sys_fsgsbase : sys_undefined;
	return NULL;
}
