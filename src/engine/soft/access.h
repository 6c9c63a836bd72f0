/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The fast side of every memory access: effective addresses, loads and stores
 * through the software TLB, the stack. Everything here may leave by
 * soft_raise(); nothing is changed then (but A/D bits).
 *
 * Sizes are bytes: 1, 2, 4 or 8, and compile-time constants wherever speed
 * counts. Values are zero-extended.
 */
#pragma once
#include "engine/soft/soft.h"

#define soft_inline static inline __attribute__((always_inline))
#define unlikely(x) __builtin_expect(!!(x), 0)
#define likely(x) __builtin_expect(!!(x), 1)

/* Guest memory: any alignment, any type. */
typedef uint16_t mem16 __attribute__((may_alias, aligned(1)));
typedef uint32_t mem32 __attribute__((may_alias, aligned(1)));
typedef uint64_t mem64 __attribute__((may_alias, aligned(1)));

/* Offset of the instruction's memory operand in its segment, truncated to the address size. */
soft_inline uint64_t insn_offset(const struct soft_vcpu *v, const struct insn *i)
{
	uint64_t off = v->gpr[i->base] + (v->gpr[i->index] << i->scale) + (int64_t)i->disp;

	if (unlikely(i->addrsize != 8))
		off = i->addrsize == 4 ? (uint32_t)off : (uint16_t)off;
	return off;
}

/* Linear address of offset `off` in `seg` (SEG_* or SEG_NONE) for an access of `size` bytes; checks limit and type. */
soft_inline uint64_t seg_linear(struct soft_vcpu *v, unsigned seg, uint64_t off, unsigned size, enum mmu_access acc)
{
	if (likely(seg == SEG_NONE))
		return off;
	if (v->mode == MODE_64)
		return v->seg[seg].base + off;
	if (likely(v->seg_flat & (1u << seg) && off + size - 1 <= UINT32_MAX))
		return (uint32_t)off;
	return seg_linear_slow(v, seg, off, size, acc);
}

/* Linear address of the instruction's memory operand. */
soft_inline uint64_t insn_linear(struct soft_vcpu *v, const struct insn *i, unsigned size, enum mmu_access acc)
{
	return seg_linear(v, i->seg, insn_offset(v, i), size, acc);
}

soft_inline struct tlb_entry *tlb_at(struct soft_vcpu *v, uint64_t linear)
{
	return &v->tlb_now[(linear >> 12) & (TLB_SIZE - 1)];
}

soft_inline uint64_t ld(struct soft_vcpu *v, uint64_t linear, unsigned size, bool stack)
{
	struct tlb_entry *t = tlb_at(v, linear);
	uint64_t value = 0;

	if (likely(t->rtag == ((linear + size - 1) & ~0xfffull))) {
		const void *p = (const void *)(linear + t->addend);

		switch (size) {
		case 1: return *(const uint8_t *)p;
		case 2: return *(const mem16 *)p;
		case 4: return *(const mem32 *)p;
		default: return *(const mem64 *)p;
		}
	}
	mmu_read(v, linear, &value, size, stack);
	return value;
}

soft_inline void st(struct soft_vcpu *v, uint64_t linear, uint64_t value, unsigned size, bool stack)
{
	struct tlb_entry *t = tlb_at(v, linear);

	if (likely(t->wtag == ((linear + size - 1) & ~0xfffull))) {
		void *p = (void *)(linear + t->addend);

		switch (size) {
		case 1: *(volatile uint8_t *)p = value; break;
		case 2: *(volatile mem16 *)p = value; break;
		case 4: *(volatile mem32 *)p = value; break;
		default: *(volatile mem64 *)p = value; break;
		}
		mmu_written(v, (t->gpa & ~0xfffull) | (linear & 0xfff), size);
		return;
	}
	mmu_write(v, linear, &value, size, stack);
}

/*
 * A host pointer for a read-modify-write of `size` bytes at `linear`, or NULL
 * if it must be done with mmu_read() and mmu_write() (device memory, page
 * crossing). Faults report a write. Call mmu_written(v, *gpa, size) after it.
 */
soft_inline void *rmw_ptr(struct soft_vcpu *v, uint64_t linear, unsigned size, bool stack, uint64_t *gpa)
{
	struct tlb_entry *t = tlb_at(v, linear);

	if (likely(t->wtag == ((linear + size - 1) & ~0xfffull) && t->rtag == t->wtag)) {
		*gpa = (t->gpa & ~0xfffull) | (linear & 0xfff);
		return (void *)(linear + t->addend);
	}
	return mmu_ptr(v, linear, size, ACC_RMW, stack, gpa);
}

/* Linear address of stack offset `off` (already truncated to the stack size). */
soft_inline uint64_t stack_linear(struct soft_vcpu *v, uint64_t off, unsigned size, enum mmu_access acc)
{
	if (likely(v->mode == MODE_64))
		return off;
	return seg_linear(v, SEG_SS, off, size, acc);
}

soft_inline uint64_t stack_mask(const struct soft_vcpu *v)
{
	return v->stack_size == 8 ? UINT64_MAX : v->stack_size == 4 ? UINT32_MAX : UINT16_MAX;
}

/* Write rSP with the stack's width: the upper bits of a 16-bit SP stay, a 32-bit one clears them. */
soft_inline void set_sp(struct soft_vcpu *v, uint64_t sp)
{
	if (likely(v->stack_size == 8))
		v->gpr[R_SP] = sp;
	else if (v->stack_size == 4)
		v->gpr[R_SP] = (uint32_t)sp;
	else
		v->gpr[R_SP] = (v->gpr[R_SP] & ~0xffffull) | (uint16_t)sp;
}

/* Push: the store comes first, so that a fault leaves rSP as it was. */
soft_inline void push(struct soft_vcpu *v, uint64_t value, unsigned size)
{
	uint64_t sp = (v->gpr[R_SP] - size) & stack_mask(v);

	st(v, stack_linear(v, sp, size, ACC_WRITE), value, size, true);
	set_sp(v, sp);
}

/* Top of the stack without popping; `skip` bytes above it. */
soft_inline uint64_t stack_peek(struct soft_vcpu *v, unsigned skip, unsigned size)
{
	uint64_t sp = (v->gpr[R_SP] + skip) & stack_mask(v);

	return ld(v, stack_linear(v, sp, size, ACC_READ), size, true);
}

soft_inline uint64_t pop(struct soft_vcpu *v, unsigned size)
{
	uint64_t value = stack_peek(v, 0, size);

	set_sp(v, v->gpr[R_SP] + size);
	return value;
}

/*
 * Registers. reg8() knows AH..BH: `rex` says whether the instruction has a REX
 * or VEX prefix. A 32-bit write clears the upper half.
 */
soft_inline uint8_t *reg8(struct soft_vcpu *v, unsigned n, bool rex)
{
	return !rex && n >= 4 && n < 8 ? (uint8_t *)&v->gpr[n - 4] + 1 : (uint8_t *)&v->gpr[n];
}

soft_inline uint64_t reg_get(struct soft_vcpu *v, unsigned n, unsigned size)
{
	return size == 8 ? v->gpr[n] : size == 4 ? (uint32_t)v->gpr[n] : (uint16_t)v->gpr[n];
}

soft_inline void reg_set(struct soft_vcpu *v, unsigned n, uint64_t value, unsigned size)
{
	if (size == 8)
		v->gpr[n] = value;
	else if (size == 4)
		v->gpr[n] = (uint32_t)value;
	else
		v->gpr[n] = (v->gpr[n] & ~0xffffull) | (uint16_t)value;
}
