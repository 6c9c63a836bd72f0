/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Instructions on segment registers and selectors: MOV, PUSH, POP, LDS to LGS, LAR, LSL, VERR, VERW, ARPL. */
#include "engine/soft/sys.h"

static uint16_t read_selector(struct soft_vcpu *v, const struct insn *i)
{
	return i->is_mem ? ld(v, insn_linear(v, i, 2, ACC_READ), 2, i->stack) : v->gpr[i->rm];
}

static void sys_mov_from_sreg(struct soft_vcpu *v, const struct insn *i)
{
	uint16_t selector = v->seg[i->reg & 7].selector;

	if (i->is_mem)
		st(v, insn_linear(v, i, 2, ACC_WRITE), selector, 2, i->stack);
	else
		reg_set(v, i->rm, selector, i->opsize);
}

static void sys_mov_to_sreg(struct soft_vcpu *v, const struct insn *i)
{
	unsigned seg = i->reg & 7;

	seg_load(v, seg, read_selector(v, i));
	if (seg == SEG_SS)
		v->shadow = 2;
}

/* The register is in bits 5..3 of the opcode (ES, CS, SS, DS; FS and GS in map 0F). */
static unsigned opcode_sreg(const struct insn *i)
{
	return i->opcode >> 3 & 7;
}

static void sys_push_sreg(struct soft_vcpu *v, const struct insn *i)
{
	push(v, v->seg[opcode_sreg(i)].selector, opsize_default64(i));
}

/* Intel's CPUs write only the selector into a doubleword slot (SDM vol. 2, PUSH). */
static void sys_push_sreg_narrow(struct soft_vcpu *v, const struct insn *i)
{
	uint64_t sp = (v->gpr[R_SP] - 4) & stack_mask(v);

	st(v, stack_linear(v, sp, 2, ACC_WRITE), v->seg[opcode_sreg(i)].selector, 2, true);
	set_sp(v, sp);
}

static void sys_pop_sreg(struct soft_vcpu *v, const struct insn *i)
{
	unsigned seg = opcode_sreg(i);
	struct sys_stack stack = sys_stack_current(v);
	uint16_t selector = sys_pop(v, &stack, opsize_default64(i));

	seg_load(v, seg, selector);
	v->gpr[R_SP] = stack.sp;
	if (seg == SEG_SS)
		v->shadow = 2;
}

static void load_far(struct soft_vcpu *v, const struct insn *i, unsigned seg)
{
	/* AMD's CPUs have no 64-bit form: REX.W zero-extends a 32-bit offset. */
	unsigned size = i->opsize == 8 && sys_is_amd() ? 4 : i->opsize;
	uint64_t linear = insn_linear(v, i, size + 2, ACC_READ), off;
	uint8_t pointer[10];

	mmu_read(v, linear, pointer, size + 2, i->stack);
	off = 0;
	memcpy(&off, pointer, size);
	seg_load(v, seg, pointer[size] | pointer[size + 1] << 8);
	reg_set(v, i->reg, off, i->opsize);
}

static void sys_lds(struct soft_vcpu *v, const struct insn *i) { load_far(v, i, SEG_DS); }
static void sys_les(struct soft_vcpu *v, const struct insn *i) { load_far(v, i, SEG_ES); }
static void sys_lss(struct soft_vcpu *v, const struct insn *i) { load_far(v, i, SEG_SS); }
static void sys_lfs(struct soft_vcpu *v, const struct insn *i) { load_far(v, i, SEG_FS); }
static void sys_lgs(struct soft_vcpu *v, const struct insn *i) { load_far(v, i, SEG_GS); }

static void need_selectors(struct soft_vcpu *v)
{
	if (in_paragraphs(v))
		soft_raise(v, EXC_UD, 0);
}

/* The descriptor, if it exists and DPL lets CPL and RPL see it. */
static bool visible(struct soft_vcpu *v, uint16_t selector, uint64_t *d)
{
	uint64_t linear;

	if (selector_null(selector) || !desc_find(v, selector, 8, &linear))
		return false;
	*d = sys_ld(v, linear, 8);
	return desc_is_conforming(*d) || (desc_dpl(*d) >= v->cpl && desc_dpl(*d) >= (selector & 3u));
}

static void set_zf(struct soft_vcpu *v, bool zf)
{
	v->rflags = zf ? v->rflags | FL_ZF : v->rflags & ~(uint64_t)FL_ZF;
}

/* System descriptor types that LAR and LSL accept, one bit each (SDM vol. 2, tables 3-53 and 3-65). */
#define BIT(n) (1u << (n))
#define LSL_LONG (BIT(SYS_LDT) | BIT(SYS_TSS) | BIT(SYS_TSS_BUSY))
#define LSL_LEGACY (LSL_LONG | BIT(SYS_TSS16) | BIT(SYS_TSS16_BUSY))
#define LAR_LONG (LSL_LONG | BIT(SYS_CALL))
#define LAR_LEGACY (LSL_LEGACY | BIT(SYS_CALL) | BIT(SYS_CALL16) | BIT(SYS_TASK))

static void sys_lar(struct soft_vcpu *v, const struct insn *i)
{
	uint16_t selector;
	uint64_t d;
	bool ok;

	need_selectors(v);
	selector = read_selector(v, i);
	ok = visible(v, selector, &d) &&
	     (desc_s(d) || (v->long_mode ? LAR_LONG : LAR_LEGACY) >> desc_type(d) & 1);
	if (ok)
		reg_set(v, i->reg, d >> 32 & 0xffff00, i->opsize);
	set_zf(v, ok);
}

static void sys_lsl(struct soft_vcpu *v, const struct insn *i)
{
	uint16_t selector;
	uint64_t d;
	bool ok;

	need_selectors(v);
	selector = read_selector(v, i);
	ok = visible(v, selector, &d) &&
	     (desc_s(d) || (v->long_mode ? LSL_LONG : LSL_LEGACY) >> desc_type(d) & 1);
	if (ok)
		reg_set(v, i->reg, desc_limit(d), i->opsize);
	set_zf(v, ok);
}

static void sys_verr(struct soft_vcpu *v, const struct insn *i)
{
	uint16_t selector;
	uint64_t d;

	need_selectors(v);
	selector = read_selector(v, i);
	set_zf(v, visible(v, selector, &d) && desc_is_readable(d));
}

static void sys_verw(struct soft_vcpu *v, const struct insn *i)
{
	uint16_t selector;
	uint64_t d;

	need_selectors(v);
	selector = read_selector(v, i);
	set_zf(v, visible(v, selector, &d) && desc_is_writable_data(d));
}

static void sys_arpl(struct soft_vcpu *v, const struct insn *i)
{
	unsigned rpl = v->gpr[i->reg] & 3;
	uint64_t linear = 0;
	uint16_t dest;

	need_selectors(v);
	if (i->is_mem) {
		linear = insn_linear(v, i, 2, ACC_RMW);
		dest = ld(v, linear, 2, i->stack);
	} else {
		dest = v->gpr[i->rm];
	}
	if ((dest & 3u) < rpl) {
		dest = (dest & ~3) | rpl;
		if (i->is_mem)
			st(v, linear, dest, 2, i->stack);
		else
			reg_set(v, i->rm, dest, 2);
		set_zf(v, true);
	} else {
		set_zf(v, false);
	}
}

static insn_fn *push_fn(const struct insn *i)
{
	return opsize_default64(i) == 4 && !sys_is_amd() ? sys_push_sreg_narrow : sys_push_sreg;
}

static insn_fn *bind_0f(const struct insn *i, bool *ends)
{
	switch (i->opcode) {
	case 0x00:
		return modrm_reg(i) == 4 ? sys_verr : modrm_reg(i) == 5 ? sys_verw : NULL;
	case 0x02:
		return sys_lar;
	case 0x03:
		return sys_lsl;
	case 0xa0:
	case 0xa8:
		return push_fn(i);
	case 0xa1:
	case 0xa9:
		return sys_pop_sreg;
	case 0xb2:
		*ends = true;
		return i->is_mem ? sys_lss : sys_undefined;
	case 0xb4:
		return i->is_mem ? sys_lfs : sys_undefined;
	case 0xb5:
		return i->is_mem ? sys_lgs : sys_undefined;
	default:
		return NULL;
	}
}

insn_fn *sys_seg_bind(const struct insn *i, bool *ends)
{
	if (i->map == MAP_0F)
		return bind_0f(i, ends);
	if (i->map != MAP_1B)
		return NULL;
	switch (i->opcode) {
	case 0x8c:
		return modrm_reg(i) < SEG_COUNT ? sys_mov_from_sreg : sys_undefined;
	case 0x8e:
		if (modrm_reg(i) >= SEG_COUNT || modrm_reg(i) == SEG_CS)
			return sys_undefined;
		*ends = modrm_reg(i) == SEG_SS;
		return sys_mov_to_sreg;
	}
	if (i->mode == MODE_64)
		return NULL;
	switch (i->opcode) {
	case 0x06:
	case 0x0e:
	case 0x16:
	case 0x1e:
		return push_fn(i);
	case 0x17:
		*ends = true;
		return sys_pop_sreg;
	case 0x07:
	case 0x1f:
		return sys_pop_sreg;
	case 0x63:
		return sys_arpl;
	case 0xc4:
		return i->is_mem ? sys_les : sys_undefined;
	case 0xc5:
		return i->is_mem ? sys_lds : sys_undefined;
	default:
		return NULL;
	}
}
