/* SPDX-License-Identifier: GPL-2.0-or-later */
/* XCHG, XADD, CMPXCHG, CMPXCHG8B and 16B: guest atomics are host atomics on the same memory. */
#include "engine/soft/int.h"

#define XCHG(size) \
	HANDLER(xchg_r##size) \
	{ \
		val##size a = REG##size(i->reg), b = REG##size(i->rm); \
		WRITE##size(i->reg, b); \
		WRITE##size(i->rm, a); \
	} \
	RMW_HANDLER_GENERAL(xchg_m##size, size, true, val##size d = REG##size(i->reg), \
			    __asm__ volatile("xchg" SFX##size " " MOD##size "[reg], " MOD##size "[mem]" \
					     : [reg] "+r"(d), [mem] "+m"(*p)), \
			    PUT##size(i->reg, d))
FOR_SIZES(XCHG)

#define XCHG_ACC(size) \
	HANDLER(xchg_acc##size) \
	{ \
		uint64_t a = v->gpr[R_AX], b = v->gpr[i->rm]; \
		WRITE##size(R_AX, b); \
		WRITE##size(i->rm, a); \
	}
FOR_WIDE_SIZES(XCHG_ACC)

/* 86, 87, 91..97; 90 with REX.B */
bool int_bind_xchg(struct insn *i)
{
	static insn_fn *const xchg[2][4] = {TABLE4(xchg_r), TABLE4(xchg_m)};
	static insn_fn *const acc[3] = TABLE3(xchg_acc);

	if (i->opcode >= 0x90)
		i->fn = i->rm == R_AX ? NULL : acc[size_log2(i->opsize) - 1];
	else
		i->fn = xchg[i->is_mem][size_log2(insn_width(i))];
	return i->fn || int_bind_hint(i);
}

#define XADD_ASM(size, op, constraint, d, s, flags) \
	__asm__ volatile(op SFX##size " " MOD##size "[src], " MOD##size "[dst]" FLAGS_OUT \
			 : [dst] constraint(d), [src] "+r"(s), "=&a"(flags) \
			 : \
			 : "cc")
/* The source is written first: with one register for both, the sum stays. */
#define XADD(size) \
	HANDLER(xadd_r##size) \
	{ \
		val##size d = REG##size(i->rm), s = REG##size(i->reg); \
		uint16_t flags; \
		XADD_ASM(size, "xadd", "+r", d, s, flags); \
		PUT##size(i->reg, s); \
		PUT##size(i->rm, d); \
		flags_put(v, flags); \
	} \
	RMW_HANDLER_GENERAL(xadd_m##size, size, false, val##size s = REG##size(i->reg); uint16_t flags, \
			    XADD_ASM(size, "xadd", "+m", *p, s, flags), PUT##size(i->reg, s); flags_put(v, flags)) \
	RMW_HANDLER_GENERAL(xadd_lock_m##size, size, true, val##size s = REG##size(i->reg); uint16_t flags, \
			    XADD_ASM(size, "lock xadd", "+m", *p, s, flags), PUT##size(i->reg, s); flags_put(v, flags))
FOR_SIZES(XADD)

/* 0f c0, c1 */
bool int_bind_xadd(struct insn *i)
{
	static insn_fn *const xadd[3][4] = {TABLE4(xadd_r), TABLE4(xadd_m), TABLE4(xadd_lock_m)};

	i->fn = xadd[!i->is_mem ? 0 : i->prefixes & PFX_LOCK ? 2 : 1][size_log2(insn_width(i))];
	return true;
}

#define CMPXCHG_ASM(size, op, constraint, d, rax, s, flags) \
	__asm__ volatile("movq %[acc], %%rax\n\t" op SFX##size " " MOD##size "[src], " MOD##size "[dst]\n\t" \
			 "movq %%rax, %[acc]" FLAGS_OUT \
			 : [dst] constraint(d), [acc] "+&r"(rax), "=&a"(flags) \
			 : [src] "r"(s) \
			 : "cc")
#define CMPXCHG_FINISH \
	v->gpr[R_AX] = acc; \
	flags_put(v, flags)
#define CMPXCHG(size) \
	HANDLER(cmpxchg_r##size) \
	{ \
		uint64_t acc = v->gpr[R_AX]; \
		val##size d = REG##size(i->rm), s = REG##size(i->reg); \
		uint16_t flags; \
		CMPXCHG_ASM(size, "cmpxchg", "+&r", d, acc, s, flags); \
		CMPXCHG_FINISH; \
		PUT##size(i->rm, d); \
	} \
	RMW_HANDLER_GENERAL(cmpxchg_m##size, size, false, uint64_t acc = v->gpr[R_AX]; uint16_t flags, \
			    CMPXCHG_ASM(size, "cmpxchg", "+m", *p, acc, REG##size(i->reg), flags), CMPXCHG_FINISH) \
	RMW_HANDLER_GENERAL(cmpxchg_lock_m##size, size, true, uint64_t acc = v->gpr[R_AX]; uint16_t flags, \
			    CMPXCHG_ASM(size, "lock cmpxchg", "+m", *p, acc, REG##size(i->reg), flags), CMPXCHG_FINISH)
FOR_SIZES(CMPXCHG)

/* 0f b0, b1 */
bool int_bind_cmpxchg(struct insn *i)
{
	static insn_fn *const cmpxchg[3][4] = {TABLE4(cmpxchg_r), TABLE4(cmpxchg_m), TABLE4(cmpxchg_lock_m)};

	i->fn = cmpxchg[!i->is_mem ? 0 : i->prefixes & PFX_LOCK ? 2 : 1][size_log2(insn_width(i))];
	return true;
}

/* Only ZF changes. Without LOCK it may be atomic all the same. */
static void set_zf(struct soft_vcpu *v, bool zf)
{
	v->rflags = (v->rflags & ~(uint64_t)FL_ZF) | (zf ? FL_ZF : 0);
}

HANDLER(cmpxchg8b)
{
	struct rmw m;
	uint32_t ax = v->gpr[R_AX], dx = v->gpr[R_DX];
	bool equal;

	rmw_open(v, i, &m, 8, i->prefixes & PFX_LOCK);
	__asm__ volatile("lock cmpxchg8b %[mem]"
			 : [mem] "+m"(*(mem8 *)m.p), "+a"(ax), "+d"(dx), "=@ccz"(equal)
			 : "b"((uint32_t)v->gpr[R_BX]), "c"((uint32_t)v->gpr[R_CX]));
	rmw_close(v, i, &m, 8, i->prefixes & PFX_LOCK);
	if (!equal) {
		v->gpr[R_AX] = ax;
		v->gpr[R_DX] = dx;
	}
	set_zf(v, equal);
}

HANDLER(cmpxchg16b)
{
	struct rmw m;
	uint64_t linear = insn_linear(v, i, 16, ACC_RMW), ax = v->gpr[R_AX], dx = v->gpr[R_DX];
	bool equal;

	if (linear & 15)
		soft_raise(v, EXC_GP, 0);
	rmw_open_at(v, i, &m, linear, 16, i->prefixes & PFX_LOCK);
	__asm__ volatile("lock cmpxchg16b %[mem]"
			 : [mem] "+m"(*(unsigned __int128 *)m.p), "+a"(ax), "+d"(dx), "=@ccz"(equal)
			 : "b"(v->gpr[R_BX]), "c"(v->gpr[R_CX]));
	rmw_close(v, i, &m, 16, i->prefixes & PFX_LOCK);
	if (!equal) {
		v->gpr[R_AX] = ax;
		v->gpr[R_DX] = dx;
	}
	set_zf(v, equal);
}

/* 0f c7 /1 */
bool int_bind_group9(struct insn *i)
{
	if (!i->is_mem || (i->modrm & 0x38) != 0x08)
		return false;
	i->fn = i->rex & 8 ? cmpxchg16b : cmpxchg8b;
	return true;
}
