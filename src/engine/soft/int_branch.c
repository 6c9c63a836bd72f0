/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Near branches: Jcc, JMP, CALL, RET, LOOP, JCXZ. */
#include "engine/soft/int.h"

uint64_t branch_target_narrow(struct soft_vcpu *v, const struct insn *i, uint64_t target)
{
	target = i->opsize == 2 ? (uint16_t)target : (uint32_t)target;
	if (i->mode != MODE_64 && target > v->seg[SEG_CS].limit)
		soft_raise(v, EXC_GP, 0);
	return target;
}

/*
 * With the displacement masked instead of a branch on the guest's condition,
 * the host mispredicts at most once: where the loop follows next_rip.
 */
#define JCC(cc) \
	HANDLER(jcc64_##cc) \
	{ \
		uint64_t taken = -(uint64_t)condition(v, cc); \
		v->next_rip = branch_target64(v, v->next_rip + (i->imm & taken)); \
	} \
	HANDLER(jcc_##cc) \
	{ \
		if (condition(v, cc)) \
			v->next_rip = branch_target(v, i, v->next_rip + i->imm); \
	}
FOR_CONDITIONS(JCC)

HANDLER(jmp_rel) { v->next_rip = branch_target(v, i, v->next_rip + i->imm); }

/* The target is checked before the push, and nothing is committed until the push is done. */
static void call_near(struct soft_vcpu *v, const struct insn *i, uint64_t target)
{
	target = branch_target(v, i, target);
	push(v, v->next_rip, i->opsize);
	v->next_rip = target;
}

HANDLER(call_rel) { call_near(v, i, v->next_rip + i->imm); }
HANDLER(call_reg) { call_near(v, i, v->gpr[i->rm]); }
HANDLER(call_mem) { call_near(v, i, load_operand(v, i, i->opsize)); }
HANDLER(jmp_reg) { v->next_rip = branch_target(v, i, v->gpr[i->rm]); }
HANDLER(jmp_mem) { v->next_rip = branch_target(v, i, load_operand(v, i, i->opsize)); }

HANDLER(ret_near)
{
	uint64_t target = branch_target(v, i, stack_peek(v, 0, i->opsize));

	set_sp(v, v->gpr[R_SP] + i->opsize + i->imm);
	v->next_rip = target;
}

/* 64-bit mode, 64-bit operand. */
#define CALL64(name, target_expr) \
	HANDLER(name##64) \
	{ \
		uint64_t target = (target_expr), sp = v->gpr[R_SP] - 8, gpa; \
		void *host; \
		if (unlikely((uint64_t)((int64_t)(target << 16) >> 16) != target || \
			     !fast_store_at(v, sp, 8, false, &host, &gpa))) { \
			name(v, i); \
			return; \
		} \
		*(volatile mem8 *)host = v->next_rip; \
		v->gpr[R_SP] = sp; \
		v->next_rip = target; \
		fast_written(v, gpa, 8); \
	}
CALL64(call_rel, v->next_rip + i->imm)
CALL64(call_reg, v->gpr[i->rm])
HANDLER(ret_near64)
{
	uint64_t sp = v->gpr[R_SP], target;
	const struct tlb_entry *t = tlb_at(v, sp);

	if (unlikely(t->rtag != ((sp + 7) & ~0xfffull))) {
		ret_near(v, i);
		return;
	}
	target = *(const mem8 *)(sp + t->addend);
	if (unlikely((uint64_t)((int64_t)(target << 16) >> 16) != target)) {
		ret_near(v, i);
		return;
	}
	v->gpr[R_SP] = sp + 8 + i->imm;
	v->next_rip = target;
}

/* e0..e2: the count register is as wide as the address size. */
HANDLER(loop)
{
	uint64_t count = reg_get(v, R_CX, i->addrsize) - 1;
	bool zf = v->rflags & FL_ZF;
	bool again = (i->addrsize == 8 ? count : i->addrsize == 4 ? (uint32_t)count : (uint16_t)count) != 0;

	if (i->opcode == 0xe0)
		again &= !zf;
	else if (i->opcode == 0xe1)
		again &= zf;
	if (again)
		v->next_rip = branch_target(v, i, v->next_rip + i->imm);
	reg_set(v, R_CX, count, i->addrsize);
}

HANDLER(jcxz)
{
	if (!reg_get(v, R_CX, i->addrsize))
		v->next_rip = branch_target(v, i, v->next_rip + i->imm);
}

/* 70..7f, 0f 80..8f, c2, c3, e0..e3, e8, e9, eb, ff /2, /4 */
bool int_bind_branch(struct insn *i)
{
	static insn_fn *const jcc64[16] = TABLE16(jcc64_), *const jcc[16] = TABLE16(jcc_);
	bool wide = i->opsize == 8;

	i->aux |= INSN_ENDS_BLOCK;
	if (i->map == MAP_0F || (i->opcode & 0xf0) == 0x70) {
		i->fn = (wide ? jcc64 : jcc)[i->opcode & 15];
		i->aux |= INSN_DIRECT_BRANCH | INSN_COND;
		return true;
	}
	switch (i->opcode) {
	case 0xc2: case 0xc3: i->fn = wide ? ret_near64 : ret_near; break;
	case 0xe0 ... 0xe2:
		i->fn = loop;
		i->aux |= INSN_DIRECT_BRANCH | INSN_COND;
		break;
	case 0xe3:
		i->fn = jcxz;
		i->aux |= INSN_DIRECT_BRANCH | INSN_COND;
		break;
	case 0xe8:
		i->fn = wide ? call_rel64 : call_rel;
		i->aux |= INSN_DIRECT_BRANCH;
		break;
	case 0xe9: case 0xeb:
		i->fn = jmp_rel;
		i->aux |= INSN_DIRECT_BRANCH;
		break;
	default:
		if ((i->modrm & 0x38) == 0x10)
			i->fn = i->is_mem ? call_mem : wide ? call_reg64 : call_reg;
		else
			i->fn = i->is_mem ? jmp_mem : jmp_reg;
		break;
	}
	return true;
}
