/* SPDX-License-Identifier: GPL-2.0-or-later */
/* PUSH, POP, PUSHA, POPA, ENTER, LEAVE. */
#include "engine/soft/int.h"

HANDLER(push_reg) { push(v, reg_get(v, i->rm, i->opsize), i->opsize); }
HANDLER(push_imm) { push(v, i->imm, i->opsize); }
HANDLER(push_mem) { push(v, load_operand(v, i, i->opsize), i->opsize); }
HANDLER(pop_reg)
{
	uint64_t value = pop(v, i->opsize);

	/* POP rSP: what was popped wins over the increment. */
	reg_set(v, i->rm, value, i->opsize);
}

/* 64-bit mode, 64-bit operand. */
#define PUSH64(name, value) \
	HANDLER(name##64) \
	{ \
		uint64_t sp = v->gpr[R_SP] - 8, gpa; \
		void *host; \
		if (unlikely(!fast_store_at(v, sp, 8, false, &host, &gpa))) { \
			name(v, i); \
			return; \
		} \
		*(volatile mem8 *)host = (value); \
		v->gpr[R_SP] = sp; \
		fast_written(v, gpa, 8); \
	}
PUSH64(push_reg, v->gpr[i->rm])
PUSH64(push_imm, i->imm)
HANDLER(pop_reg64)
{
	uint64_t sp = v->gpr[R_SP];
	const struct tlb_entry *t = tlb_at(v, sp);

	if (unlikely(t->rtag != ((sp + 7) & ~0xfffull))) {
		pop_reg(v, i);
		return;
	}
	v->gpr[R_SP] = sp + 8;
	v->gpr[i->rm] = *(const mem8 *)(sp + t->addend);
}

/* The address of POP's memory operand is computed with rSP already incremented. */
HANDLER(pop_mem)
{
	uint64_t value = stack_peek(v, 0, i->opsize), old = v->gpr[R_SP], off, linear;

	set_sp(v, old + i->opsize);
	off = insn_offset(v, i);
	v->gpr[R_SP] = old;
	linear = seg_linear(v, i->seg, off, i->opsize, ACC_WRITE);
	st(v, linear, value, i->opsize, i->stack);
	set_sp(v, old + i->opsize);
}

HANDLER(pusha)
{
	unsigned size = i->opsize;
	uint64_t old = v->gpr[R_SP];

	for (unsigned k = 0; k < 8; k++) {
		uint64_t sp = (old - (k + 1) * size) & stack_mask(v);

		st(v, stack_linear(v, sp, size, ACC_WRITE), reg_get(v, R_AX + k, size), size, true);
	}
	set_sp(v, old - 8 * size);
}

HANDLER(popa)
{
	unsigned size = i->opsize;
	uint64_t values[8];

	for (unsigned k = 0; k < 8; k++)
		values[k] = stack_peek(v, k * size, size);
	for (unsigned k = 0; k < 8; k++) {
		if (7 - k != R_SP)
			reg_set(v, 7 - k, values[k], size);
	}
	set_sp(v, v->gpr[R_SP] + 8 * size);
}

/* SDM vol. 2, ENTER: nothing is committed before the write at the final rSP is known to be possible. */
HANDLER(enter)
{
	unsigned size = i->opsize, level = i->imm2 & 31;
	uint64_t mask = stack_mask(v), sp = (v->gpr[R_SP] - size) & mask, bp = v->gpr[R_BP], frame;

	st(v, stack_linear(v, sp, size, ACC_WRITE), bp, size, true);
	frame = (v->gpr[R_SP] & ~mask) | sp; /* all of ESP, also where only SP moves */
	for (unsigned k = 1; k < level; k++) {
		uint64_t link;

		bp -= size;
		link = ld(v, stack_linear(v, bp & mask, size, ACC_READ), size, true);
		sp = (sp - size) & mask;
		st(v, stack_linear(v, sp, size, ACC_WRITE), link, size, true);
	}
	if (level) {
		sp = (sp - size) & mask;
		st(v, stack_linear(v, sp, size, ACC_WRITE), frame, size, true);
	}
	sp = (sp - i->imm) & mask;
	mmu_probe_write(v, stack_linear(v, sp, size, ACC_WRITE), size, true);
	reg_set(v, R_BP, frame, size);
	set_sp(v, sp);
}

HANDLER(leave)
{
	uint64_t bp = v->gpr[R_BP] & stack_mask(v);
	uint64_t value = ld(v, stack_linear(v, bp, i->opsize, ACC_READ), i->opsize, true);

	set_sp(v, bp + i->opsize);
	reg_set(v, R_BP, value, i->opsize);
}

/* 50..5f, 60, 61, 68, 6a, 8f, c8, c9, ff /6 */
bool int_bind_stack(struct insn *i)
{
	bool fast = i->mode == MODE_64 && i->opsize == 8;

	switch (i->opcode) {
	case 0x50 ... 0x57: i->fn = fast ? push_reg64 : push_reg; break;
	case 0x58 ... 0x5f: i->fn = fast ? pop_reg64 : pop_reg; break;
	case 0x60: i->fn = pusha; break;
	case 0x61: i->fn = popa; break;
	case 0x68: case 0x6a: i->fn = fast ? push_imm64 : push_imm; break;
	case 0x8f:
		if (i->modrm & 0x38)
			return false;
		i->fn = i->is_mem ? pop_mem : fast ? pop_reg64 : pop_reg;
		break;
	case 0xc8: i->fn = enter; break;
	case 0xc9: i->fn = leave; break;
	default: i->fn = i->is_mem ? push_mem : fast ? push_reg64 : push_reg; break;
	}
	return true;
}
