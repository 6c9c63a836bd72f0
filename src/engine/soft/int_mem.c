/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The general way to an instruction's memory operand: any mode, any segment, any page. */
#include "engine/soft/int.h"

uint64_t load_operand(struct soft_vcpu *v, const struct insn *i, unsigned size)
{
	uint64_t linear = insn_linear(v, i, size, ACC_READ);

	/* ld() wants a constant size to be fast. */
	switch (size) {
	case 1: return ld(v, linear, 1, i->stack);
	case 2: return ld(v, linear, 2, i->stack);
	case 4: return ld(v, linear, 4, i->stack);
	default: return ld(v, linear, 8, i->stack);
	}
}

void store_operand(struct soft_vcpu *v, const struct insn *i, uint64_t value, unsigned size)
{
	uint64_t linear = insn_linear(v, i, size, ACC_WRITE);

	switch (size) {
	case 1: st(v, linear, value, 1, i->stack); break;
	case 2: st(v, linear, value, 2, i->stack); break;
	case 4: st(v, linear, value, 4, i->stack); break;
	default: st(v, linear, value, 8, i->stack); break;
	}
}

void rmw_open_at(struct soft_vcpu *v, const struct insn *i, struct rmw *m, uint64_t linear, unsigned size, bool lock)
{
	m->p = rmw_ptr(v, linear, size, i->stack, &m->gpa);
	if (likely(m->p))
		return;
	/* Both pages must be writable before anything happens; a fault reports a write. */
	if (lock)
		soft_lock_slow(v);
	mmu_probe_write(v, linear, size, i->stack);
	m->linear = linear;
	m->p = m->copy;
	mmu_read(v, linear, m->copy, size, i->stack);
}

void rmw_open(struct soft_vcpu *v, const struct insn *i, struct rmw *m, unsigned size, bool lock)
{
	rmw_open_at(v, i, m, insn_linear(v, i, size, ACC_RMW), size, lock);
}

void rmw_close(struct soft_vcpu *v, const struct insn *i, struct rmw *m, unsigned size, bool lock)
{
	if (likely(m->p != m->copy)) {
		mmu_written(v, m->gpa, size);
		return;
	}
	mmu_write(v, m->linear, m->copy, size, i->stack);
	if (lock)
		soft_unlock_slow(v);
}
