/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Control and debug registers, EFER, XCR0, TLB invalidation (SDM vol. 3 §2.5,
 * §2.6, §4.1, §4.10.4, §9.8.5, chapter 17).
 */
#include "engine/soft/sys.h"

/* ---- Which bits there are ------------------------------------------------ */

enum { EAX, EBX, ECX, EDX };

struct feature_bit {
	uint32_t leaf;
	uint8_t reg, bit;
	uint32_t control; /* bit of CR4 or EFER that the feature brings */
};

static uint64_t offered_bits(struct soft_vcpu *v, const struct feature_bit *features, unsigned n)
{
	uint64_t mask = 0;
	uint32_t leaf = 0, regs[4] = { 0 };
	bool have = false;

	for (unsigned k = 0; k < n; k++) {
		if (!have || features[k].leaf != leaf) {
			leaf = features[k].leaf;
			have = true;
			if (!soft_cpuid(v, leaf, 0, regs))
				memset(regs, 0, sizeof(regs));
		}
		if (regs[features[k].reg] >> features[k].bit & 1)
			mask |= features[k].control;
	}
	return mask;
}

uint64_t soft_cr4_mask(struct soft_vcpu *v)
{
	static const struct feature_bit features[] = {
		{ 1, EDX, 4, CR4_TSD },        { 1, EDX, 2, CR4_DE },	      { 1, EDX, 3, CR4_PSE },
		{ 1, EDX, 6, CR4_PAE },        { 1, EDX, 7, CR4_MCE },	      { 1, EDX, 13, CR4_PGE },
		{ 1, EDX, 24, CR4_OSFXSR },    { 1, EDX, 25, CR4_OSXMMEXCPT }, { 1, ECX, 17, CR4_PCIDE },
		{ 1, ECX, 26, CR4_OSXSAVE },   { 7, EBX, 0, CR4_FSGSBASE },   { 7, EBX, 7, CR4_SMEP },
		{ 7, EBX, 20, CR4_SMAP },      { 7, ECX, 2, CR4_UMIP },
	};

	return CR4_PCE | offered_bits(v, features, sizeof(features) / sizeof(features[0]));
}

uint64_t soft_efer_mask(struct soft_vcpu *v)
{
	static const struct feature_bit features[] = {
		{ 0x80000001, EDX, 11, EFER_SCE },
		{ 0x80000001, EDX, 20, EFER_NXE },
		{ 0x80000001, EDX, 25, EFER_FFXSR },
		{ 0x80000001, EDX, 29, EFER_LME | EFER_LMA },
		{ 0x80000001, ECX, 17, EFER_TCE },
		{ 0x80000021, EAX, 8, EFER_AUTO_IBRS },
	};

	return EFER_SCE | offered_bits(v, features, sizeof(features) / sizeof(features[0]));
}

/* ---- Writes -------------------------------------------------------------- */

/*
 * CR0, CR4 and EFER are written first, then mmu_mode_changed() may refuse with
 * #GP(0), as PDPTEs with reserved bits make it: the registers must be old again
 * by then. It is called through here, with a landing of its own.
 */
struct control {
	uint64_t cr0, cr4, efer;
};

static __attribute__((noinline)) bool commit_landing(struct soft_vcpu *v)
{
	if (__builtin_setjmp(v->fault_jmp))
		return false;
	mmu_mode_changed(v);
	return true;
}

static bool commit(struct soft_vcpu *v, const struct control *c)
{
	struct control old = { v->cr0, v->cr4, v->efer };
	void *outer[5];
	bool ok;

	v->cr0 = c->cr0;
	v->cr4 = c->cr4;
	v->efer = c->efer;
	soft_update_mode(v);
	memcpy(outer, v->fault_jmp, sizeof(outer));
	ok = commit_landing(v);
	memcpy(v->fault_jmp, outer, sizeof(outer));
	if (!ok) {
		v->event.active = 0;
		v->cr0 = old.cr0;
		v->cr4 = old.cr4;
		v->efer = old.efer;
		soft_update_mode(v);
	}
	return ok;
}

bool soft_set_cr0(struct soft_vcpu *v, uint64_t value)
{
	const uint64_t known = CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG;
	struct control c = { 0, v->cr4, v->efer };
	unsigned tr_type = v->tr.attr & SEG_ATTR_TYPE;

	if (value >> 32 || (value & CR0_PG && !(value & CR0_PE)) || (value & CR0_NW && !(value & CR0_CD)))
		return false;
	c.cr0 = (value & known) | CR0_ET;
	if (c.cr0 & ~v->cr0 & CR0_PG && v->efer & EFER_LME) {
		if (!(v->cr4 & CR4_PAE) || v->seg[SEG_CS].attr & SEG_ATTR_L || tr_type == SYS_TSS16 ||
		    tr_type == SYS_TSS16_BUSY)
			return false;
		c.efer |= EFER_LMA;
	}
	if (v->cr0 & ~c.cr0 & CR0_PG) {
		if (v->cr4 & CR4_PCIDE || v->mode == MODE_64)
			return false;
		c.efer &= ~(uint64_t)EFER_LMA;
	}
	if ((c.cr0 ^ v->cr0) & (CR0_PG | CR0_WP | CR0_PE | CR0_CD | CR0_NW))
		return commit(v, &c);
	v->cr0 = c.cr0;
	soft_update_mode(v);
	return true;
}

bool soft_set_cr4(struct soft_vcpu *v, uint64_t value)
{
	const uint64_t paging = CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP;
	struct control c = { v->cr0, value, v->efer };

	if (value & ~soft_cr4_mask(v))
		return false;
	if (v->long_mode && !(value & CR4_PAE))
		return false;
	if (value & ~v->cr4 & CR4_PCIDE && (!v->long_mode || v->cr3 & 0xfff))
		return false;
	if ((value ^ v->cr4) & paging)
		return commit(v, &c);
	v->cr4 = value;
	return true;
}

bool soft_set_efer(struct soft_vcpu *v, uint64_t value)
{
	struct control c = { v->cr0, v->cr4, 0 };

	if (value & ~soft_efer_mask(v))
		return false;
	if ((value ^ v->efer) & EFER_LME && v->cr0 & CR0_PG)
		return false;
	c.efer = (value & ~(uint64_t)EFER_LMA) | (v->efer & EFER_LMA);
	if ((c.efer ^ v->efer) & EFER_NXE)
		return commit(v, &c);
	v->efer = c.efer;
	return true;
}

/* ---- MOV to and from control registers ----------------------------------- */

static unsigned cr_size(const struct insn *i) { return i->mode == MODE_64 ? 8 : 4; }

static void sys_mov_from_cr(struct soft_vcpu *v, const struct insn *i)
{
	uint64_t value = 0;

	soft_need_cpl0(v);
	switch (i->reg) {
	case 0: value = v->cr0; break;
	case 2: value = v->cr2; break;
	case 3: value = v->cr3; break;
	case 4: value = v->cr4; break;
	case 8: value = lapic_get_cr8(v); break;
	}
	reg_set(v, i->rm, value, cr_size(i));
}

static void sys_mov_to_cr(struct soft_vcpu *v, const struct insn *i)
{
	uint64_t value = reg_get(v, i->rm, cr_size(i));
	bool ok = true;

	soft_need_cpl0(v);
	switch (i->reg) {
	case 0:
		ok = soft_set_cr0(v, value);
		break;
	case 2:
		v->cr2 = value;
		break;
	case 3:
		mmu_set_cr3(v, value);
		break;
	case 4:
		ok = soft_set_cr4(v, value);
		break;
	case 8:
		ok = !(value >> 4);
		if (ok)
			lapic_set_cr8(v, value);
		break;
	}
	if (!ok)
		soft_raise(v, EXC_GP, 0);
}

static void sys_clts(struct soft_vcpu *v, const struct insn *i)
{
	soft_need_cpl0(v);
	v->cr0 &= ~(uint64_t)CR0_TS;
}

static void sys_smsw(struct soft_vcpu *v, const struct insn *i)
{
	if (v->cpl && v->cr4 & CR4_UMIP)
		soft_raise(v, EXC_GP, 0);
	if (i->is_mem)
		st(v, insn_linear(v, i, 2, ACC_WRITE), (uint16_t)v->cr0, 2, i->stack);
	else
		reg_set(v, i->rm, v->cr0, i->opsize);
}

static void sys_lmsw(struct soft_vcpu *v, const struct insn *i)
{
	uint64_t value;

	soft_need_cpl0(v);
	value = i->is_mem ? ld(v, insn_linear(v, i, 2, ACC_READ), 2, i->stack) : v->gpr[i->rm];
	/* PE can be set, not cleared. */
	if (!soft_set_cr0(v, (v->cr0 & ~(uint64_t)(CR0_MP | CR0_EM | CR0_TS)) | (value & 0xf)))
		soft_raise(v, EXC_GP, 0);
}

/* ---- Debug registers ----------------------------------------------------- */

static unsigned debug_register(struct soft_vcpu *v, const struct insn *i)
{
	unsigned n = i->reg;

	soft_need_cpl0(v);
	if (n == 4 || n == 5) {
		if (v->cr4 & CR4_DE)
			soft_raise(v, EXC_UD, 0);
		n += 2;
	}
	if (v->dr[7] & DR7_GD)
		soft_raise_db(v, DR6_BD);
	return n;
}

static void sys_mov_from_dr(struct soft_vcpu *v, const struct insn *i)
{
	unsigned n = debug_register(v, i);

	reg_set(v, i->rm, v->dr[n], cr_size(i));
}

static void sys_mov_to_dr(struct soft_vcpu *v, const struct insn *i)
{
	unsigned n = debug_register(v, i);
	uint64_t value = reg_get(v, i->rm, cr_size(i));

	if (n >= 6 && value >> 32)
		soft_raise(v, EXC_GP, 0);
	if (n == 6)
		value = (value & DR6_WRITABLE) | DR6_FIXED;
	else if (n == 7)
		value = (value & DR7_WRITABLE) | DR7_FIXED;
	v->dr[n] = value;
	if (n == 7) {
		soft_update_mode(v);
		v->rflags &= ~(uint64_t)FL_RF;
		/* The loop takes single steps while a breakpoint is armed. */
		soft_request(v, dr7_has_code(v) ? REQ_TRAP : REQ_STATE);
	}
}

/* ---- Invalidation -------------------------------------------------------- */

/* The operand is an address that is not accessed: no limit and no type checks. */
static uint64_t plain_linear(const struct soft_vcpu *v, const struct insn *i)
{
	uint64_t off = insn_offset(v, i);

	if (i->seg == SEG_NONE)
		return off;
	off += v->seg[i->seg].base;
	return i->mode == MODE_64 ? off : (uint32_t)off;
}

static void sys_invlpg(struct soft_vcpu *v, const struct insn *i)
{
	uint64_t linear;

	soft_need_cpl0(v);
	linear = plain_linear(v, i);
	if (canonical(linear))
		mmu_flush_page(v, linear);
}

static void sys_invpcid(struct soft_vcpu *v, const struct insn *i)
{
	uint64_t type = reg_get(v, i->reg, cr_size(i)), operand[2];

	soft_need_cpl0(v);
	mmu_read(v, insn_linear(v, i, 16, ACC_READ), operand, 16, i->stack);
	if (type > 3)
		soft_raise(v, EXC_GP, 0);
	if (type < 2) {
		if (operand[0] >> 12 || (operand[0] && !(v->cr4 & CR4_PCIDE)))
			soft_raise(v, EXC_GP, 0);
		if (type == 0 && !canonical(operand[1]))
			soft_raise(v, EXC_GP, 0);
	}
	mmu_invpcid(v, type, operand[0], operand[1]);
}

static void sys_wbinvd(struct soft_vcpu *v, const struct insn *i)
{
	soft_need_cpl0(v);
}

/* ---- XCR0 ---------------------------------------------------------------- */

static void sys_xgetbv(struct soft_vcpu *v, const struct insn *i)
{
	uint32_t index = v->gpr[R_CX];
	uint64_t value;

	if (!(v->cr4 & CR4_OSXSAVE))
		soft_raise(v, EXC_UD, 0);
	if (index > 1 || (index == 1 && !vec_offers(VEC_XGETBV1)))
		soft_raise(v, EXC_GP, 0);
	value = index == 0 ? v->xcr0 : v->xcr0 & vec_xinuse(v);
	v->gpr[R_AX] = (uint32_t)value;
	v->gpr[R_DX] = value >> 32;
}

static void sys_xsetbv(struct soft_vcpu *v, const struct insn *i)
{
	uint64_t value = (uint32_t)v->gpr[R_AX] | v->gpr[R_DX] << 32;

	if (!(v->cr4 & CR4_OSXSAVE))
		soft_raise(v, EXC_UD, 0);
	soft_need_cpl0(v);
	/* x87 always; AVX only with SSE (SDM vol. 3 §2.6). */
	if ((uint32_t)v->gpr[R_CX] || !(value & 1) || (value & 6) == 4 || value & ~vec_xcr0_mask())
		soft_raise(v, EXC_GP, 0);
	v->xcr0 = value;
}

/* ---- Binding ------------------------------------------------------------- */

static insn_fn *bind_01(const struct insn *i, bool *ends)
{
	if (!i->is_mem) {
		if (i->modrm == 0xd0)
			return insn_has_prefix(i) ? sys_undefined : sys_xgetbv;
		if (i->modrm == 0xd1) {
			*ends = true;
			return insn_has_prefix(i) ? sys_undefined : sys_xsetbv;
		}
	}
	switch (modrm_reg(i)) {
	case 4:
		return sys_smsw;
	case 6:
		*ends = true;
		return sys_lmsw;
	case 7:
		if (!i->is_mem)
			return NULL;
		*ends = true;
		return sys_invlpg;
	default:
		return NULL;
	}
}

insn_fn *sys_ctl_bind(const struct insn *i, bool *ends)
{
	bool cr_exists = i->reg == 0 || (i->reg >= 2 && i->reg <= 4) || (i->reg == 8 && i->mode == MODE_64);

	if (insn_is(i, MAP_0F38, 0x82)) {
		*ends = true;
		return i->is_mem && i->prefixes & PFX_66 && !(i->prefixes & (PFX_F2 | PFX_F3)) ? sys_invpcid : sys_undefined;
	}
	if (i->map != MAP_0F)
		return NULL;
	switch (i->opcode) {
	case 0x01:
		return bind_01(i, ends);
	case 0x06:
		*ends = true;
		return sys_clts;
	case 0x08:
	case 0x09:
		return sys_wbinvd;
	case 0x20:
		return cr_exists ? sys_mov_from_cr : sys_undefined;
	case 0x22:
		*ends = true;
		return cr_exists ? sys_mov_to_cr : sys_undefined;
	case 0x21:
		return i->reg < 8 ? sys_mov_from_dr : sys_undefined;
	case 0x23:
		*ends = true;
		return i->reg < 8 ? sys_mov_to_dr : sys_undefined;
	default:
		return NULL;
	}
}
