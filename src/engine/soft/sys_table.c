/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Instructions on descriptor-table registers: LGDT, LIDT, SGDT, SIDT, LLDT, LTR, SLDT, STR. */
#include "engine/soft/sys.h"

/* User-mode instruction prevention (SDM vol. 3 §2.5, CR4.UMIP) */
static void check_umip(struct soft_vcpu *v)
{
	if (v->cpl && v->cr4 & CR4_UMIP)
		soft_raise(v, EXC_GP, 0);
}

static void load_table(struct soft_vcpu *v, const struct insn *i, struct cpu_table *table)
{
	unsigned size = i->mode == MODE_64 ? 10 : 6;
	uint8_t raw[10];
	uint64_t base = 0;

	soft_need_cpl0(v);
	mmu_read(v, insn_linear(v, i, size, ACC_READ), raw, size, i->stack);
	memcpy(&base, raw + 2, size - 2);
	if (size == 10) {
		if (!canonical(base))
			soft_raise(v, EXC_GP, 0);
	} else if (i->opsize == 2) {
		base &= 0xffffff;
	}
	table->limit = raw[0] | raw[1] << 8;
	table->base = base;
}

static void store_table(struct soft_vcpu *v, const struct insn *i, const struct cpu_table *table)
{
	unsigned size = i->mode == MODE_64 ? 10 : 6;
	uint8_t raw[10];

	check_umip(v);
	memcpy(raw, &table->limit, 2);
	memcpy(raw + 2, &table->base, 8);
	mmu_write(v, insn_linear(v, i, size, ACC_WRITE), raw, size, i->stack);
}

static void sys_lgdt(struct soft_vcpu *v, const struct insn *i) { load_table(v, i, &v->gdtr); }
static void sys_lidt(struct soft_vcpu *v, const struct insn *i) { load_table(v, i, &v->idtr); }
static void sys_sgdt(struct soft_vcpu *v, const struct insn *i) { store_table(v, i, &v->gdtr); }
static void sys_sidt(struct soft_vcpu *v, const struct insn *i) { store_table(v, i, &v->idtr); }

static void store_selector(struct soft_vcpu *v, const struct insn *i, uint16_t selector)
{
	if (in_paragraphs(v))
		soft_raise(v, EXC_UD, 0);
	check_umip(v);
	if (i->is_mem)
		st(v, insn_linear(v, i, 2, ACC_WRITE), selector, 2, i->stack);
	else
		reg_set(v, i->rm, selector, i->opsize);
}

static void sys_sldt(struct soft_vcpu *v, const struct insn *i) { store_selector(v, i, v->ldtr.selector); }
static void sys_str(struct soft_vcpu *v, const struct insn *i) { store_selector(v, i, v->tr.selector); }

static uint16_t load_selector(struct soft_vcpu *v, const struct insn *i)
{
	if (in_paragraphs(v))
		soft_raise(v, EXC_UD, 0);
	soft_need_cpl0(v);
	return i->is_mem ? ld(v, insn_linear(v, i, 2, ACC_READ), 2, i->stack) : v->gpr[i->rm];
}

/* A system descriptor of the GDT; 16 bytes in 64-bit mode (SDM vol. 3 §7.2.3). Types allowed: one bit each. */
static uint64_t load_system(struct soft_vcpu *v, uint16_t selector, uint32_t types, struct cpu_segment *s)
{
	uint32_t error = selector_error(selector);
	uint64_t linear, d, high = 0;

	if (selector & 4 || !desc_find(v, selector, v->mode == MODE_64 ? 16 : 8, &linear))
		soft_raise(v, EXC_GP, error);
	d = sys_ld(v, linear, 8);
	if (v->mode == MODE_64)
		high = sys_ld(v, linear + 8, 8);
	if (desc_s(d) || !(types >> desc_type(d) & 1))
		soft_raise(v, EXC_GP, error);
	if (!desc_p(d))
		soft_raise(v, EXC_NP, error);
	*s = desc_segment(d, selector);
	s->base |= high << 32;
	if (high >> 40 & 0x1f || !canonical(s->base))
		soft_raise(v, EXC_GP, error);
	return linear;
}

static void sys_lldt(struct soft_vcpu *v, const struct insn *i)
{
	uint16_t selector = load_selector(v, i);
	struct cpu_segment s;

	if (selector_null(selector)) {
		v->ldtr = segment_null(selector, 0);
		return;
	}
	load_system(v, selector, 1u << SYS_LDT, &s);
	v->ldtr = s;
}

static void sys_ltr(struct soft_vcpu *v, const struct insn *i)
{
	uint16_t selector = load_selector(v, i);
	struct cpu_segment s;
	uint64_t linear;

	if (selector_null(selector))
		soft_raise(v, EXC_GP, 0);
	linear = load_system(v, selector, 1u << SYS_TSS | (v->long_mode ? 0 : 1u << SYS_TSS16), &s);
	sys_or8(v, linear + 5, 2); /* busy */
	s.attr |= 2;
	v->tr = s;
}

insn_fn *sys_table_bind(const struct insn *i, bool *ends)
{
	static insn_fn *const selectors[] = { sys_sldt, sys_str, sys_lldt, sys_ltr, NULL, NULL, sys_undefined, sys_undefined };
	static insn_fn *const tables[] = { sys_sgdt, sys_sidt, sys_lgdt, sys_lidt };

	if (insn_is(i, MAP_0F, 0x00))
		return selectors[modrm_reg(i)];
	if (insn_is(i, MAP_0F, 0x01) && i->is_mem && modrm_reg(i) < 4)
		return tables[modrm_reg(i)];
	return NULL;
}
