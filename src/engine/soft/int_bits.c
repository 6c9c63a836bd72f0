/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Single bits, bit scans and counts, BMI1, BMI2's bit fields, CRC32. */
#include "engine/soft/int.h"

/* BT and its kin change only CF. */
soft_inline void set_carry(struct soft_vcpu *v, bool carry)
{
	v->rflags = (v->rflags & ~(uint64_t)FL_CF) | carry;
}

/*
 * A bit offset in a register reaches outside the operand: the address moves by
 * whole operands, rounding down (SDM vol. 2 §3.1.1.9, Bit(BitBase, BitOffset)).
 */
static uint64_t bit_linear(struct soft_vcpu *v, const struct insn *i, unsigned size, enum mmu_access acc)
{
	unsigned shift = size_log2(size) + 3;
	int64_t bit = size == 8 ? (int64_t)v->gpr[i->reg] : size == 4 ? (int32_t)v->gpr[i->reg] : (int16_t)v->gpr[i->reg];
	uint64_t off = insn_offset(v, i) + (uint64_t)((bit >> shift) * (int64_t)size);

	if (i->addrsize != 8)
		off = i->addrsize == 4 ? (uint32_t)off : (uint16_t)off;
	return seg_linear(v, i->seg, off, size, acc);
}

#define BT(size, suffix, bit_expr, linear) \
	HANDLER(bt_r##suffix##size) \
	{ \
		set_carry(v, v->gpr[i->rm] >> ((bit_expr) & (size * 8 - 1)) & 1); \
	} \
	HANDLER(bt_m##suffix##size) \
	{ \
		uint64_t s = ld(v, linear(v, i, size, ACC_READ), size, i->stack); \
		set_carry(v, s >> ((bit_expr) & (size * 8 - 1)) & 1); \
	}
#define BT_ASM(size, op, constraint, d, number) \
	__asm__ volatile(op SFX##size " " MOD##size "[bit], " MOD##size "[dst]" \
			 : [dst] constraint(d), "=@ccc"(carry) \
			 : [bit] "r"((uint64_t)(number) & (size * 8 - 1)))
#define BT_MODIFY(size, name, suffix, bit_expr, linear) \
	HANDLER(name##_r##suffix##size) \
	{ \
		uint64_t d = v->gpr[i->rm]; \
		bool carry; \
		BT_ASM(size, #name, "+r", d, bit_expr); \
		v->gpr[i->rm] = d; \
		set_carry(v, carry); \
	} \
	BT_MODIFY_MEM(size, name##_m##suffix##size, #name, bit_expr, linear, false) \
	BT_MODIFY_MEM(size, name##_lock_m##suffix##size, "lock " #name, bit_expr, linear, true)
#define BT_MODIFY_MEM(size, handler, op, bit_expr, linear, lock) \
	HANDLER(handler) \
	{ \
		struct rmw m; \
		bool carry; \
		rmw_open_at(v, i, &m, linear(v, i, size, ACC_RMW), size, lock); \
		BT_ASM(size, op, "+m", *(mem##size *)m.p, bit_expr); \
		rmw_close(v, i, &m, size, lock); \
		set_carry(v, carry); \
	}
#define BT_FAMILY(size) \
	BT(size, r, v->gpr[i->reg], bit_linear) \
	BT(size, i, i->imm, insn_linear) \
	BT_MODIFY(size, bts, r, v->gpr[i->reg], bit_linear) \
	BT_MODIFY(size, bts, i, i->imm, insn_linear) \
	BT_MODIFY(size, btr, r, v->gpr[i->reg], bit_linear) \
	BT_MODIFY(size, btr, i, i->imm, insn_linear) \
	BT_MODIFY(size, btc, r, v->gpr[i->reg], bit_linear) \
	BT_MODIFY(size, btc, i, i->imm, insn_linear)
FOR_WIDE_SIZES(BT_FAMILY)

/* 0f a3, ab, b3, bb; ba /4../7 */
bool int_bind_bt(struct insn *i)
{
	/* operation, immediate?, register / memory / LOCK, size */
	static insn_fn *const bt[4][2][3][3] = {
		{{TABLE3(bt_rr), TABLE3(bt_mr)}, {TABLE3(bt_ri), TABLE3(bt_mi)}},
		{{TABLE3(bts_rr), TABLE3(bts_mr), TABLE3(bts_lock_mr)},
		 {TABLE3(bts_ri), TABLE3(bts_mi), TABLE3(bts_lock_mi)}},
		{{TABLE3(btr_rr), TABLE3(btr_mr), TABLE3(btr_lock_mr)},
		 {TABLE3(btr_ri), TABLE3(btr_mi), TABLE3(btr_lock_mi)}},
		{{TABLE3(btc_rr), TABLE3(btc_mr), TABLE3(btc_lock_mr)},
		 {TABLE3(btc_ri), TABLE3(btc_mi), TABLE3(btc_lock_mi)}},
	};
	bool imm = i->opcode == 0xba;

	if (imm && (i->modrm & 0x20) == 0)
		return false;
	i->fn = bt[(imm ? i->modrm : i->opcode) >> 3 & 3][imm][!i->is_mem ? 0 : i->prefixes & PFX_LOCK ? 2 : 1]
		  [size_log2(i->opsize) - 1];
	return true;
}

/* One source, one destination that may keep its old value (BSF, BSR of zero), all flags. */
#define SCAN(size, op, before) \
	HANDLER(op##_handler##size) \
	{ \
		uint64_t s = i->is_mem ? load_operand(v, i, size) : v->gpr[i->rm], d = v->gpr[i->reg]; \
		uint16_t flags; \
		__asm__ volatile(before #op SFX##size " " MOD##size "[src], " MOD##size "[dst]" FLAGS_OUT \
				 : [dst] "+&r"(d), "=&a"(flags) \
				 : [src] "r"(s), [f] "m"(v->rflags) \
				 : "cc"); \
		v->gpr[i->reg] = d; \
		flags_put(v, flags); \
	}
FOR_WIDE_SIZES(SCAN, bsf, NO_FLAGS_IN)
FOR_WIDE_SIZES(SCAN, bsr, NO_FLAGS_IN)
FOR_WIDE_SIZES(SCAN, tzcnt, FLAGS_IN)
FOR_WIDE_SIZES(SCAN, lzcnt, FLAGS_IN)
FOR_WIDE_SIZES(SCAN, popcnt, FLAGS_IN)

/* 0f bc, bd */
bool int_bind_scan(struct insn *i)
{
	static insn_fn *const scan[2][2][3] = {
		{TABLE3(bsf_handler), TABLE3(bsr_handler)},
		{TABLE3(tzcnt_handler), TABLE3(lzcnt_handler)},
	};
	bool back = i->opcode & 1;
	bool count = i->prefixes & PFX_F3 && (back ? int_host()->lzcnt : int_host()->bmi1);

	i->fn = scan[count][back][size_log2(i->opsize) - 1];
	return true;
}

/* f3 0f b8 */
bool int_bind_popcnt(struct insn *i)
{
	static insn_fn *const popcnt[3] = TABLE3(popcnt_handler);

	if (!(i->prefixes & PFX_F3) || !int_host()->popcnt)
		return false;
	i->fn = popcnt[size_log2(i->opsize) - 1];
	return true;
}

/* VEX with three operands: `a` then `b` in assembler order (AT&T), the result into `dst`. */
#define BMI3(size, op, a, b) \
	HANDLER(op##_handler##size) \
	{ \
		uint64_t s = i->is_mem ? load_operand(v, i, size) : v->gpr[i->rm], w = v->gpr[i->vvvv], d; \
		uint16_t flags; \
		__asm__ volatile(FLAGS_IN #op SFX##size " " MOD##size a ", " MOD##size b ", " MOD##size "[dst]" FLAGS_OUT \
				 : [dst] "=&r"(d), "=&a"(flags) \
				 : [s] "r"(s), [w] "r"(w), [f] "m"(v->rflags) \
				 : "cc"); \
		v->gpr[i->reg] = d; \
		flags_put(v, flags); \
	}
#define BMI2(size, op) \
	HANDLER(op##_handler##size) \
	{ \
		uint64_t s = i->is_mem ? load_operand(v, i, size) : v->gpr[i->rm], d; \
		uint16_t flags; \
		__asm__ volatile(FLAGS_IN #op SFX##size " " MOD##size "[s], " MOD##size "[dst]" FLAGS_OUT \
				 : [dst] "=&r"(d), "=&a"(flags) \
				 : [s] "r"(s), [f] "m"(v->rflags) \
				 : "cc"); \
		v->gpr[i->vvvv] = d; \
		flags_put(v, flags); \
	}
#define BMI_FAMILY(size) \
	BMI3(size, andn, "[s]", "[w]") \
	BMI3(size, bextr, "[w]", "[s]") \
	BMI3(size, bzhi, "[w]", "[s]") \
	BMI3(size, pdep, "[s]", "[w]") \
	BMI3(size, pext, "[s]", "[w]") \
	BMI2(size, blsr) \
	BMI2(size, blsmsk) \
	BMI2(size, blsi)
BMI_FAMILY(4)
BMI_FAMILY(8)

/* VEX 0f 38 f2, f3, f5, f7 */
bool int_bind_bmi(struct insn *i)
{
	enum { ANDN, BEXTR, BZHI, PDEP, PEXT, BLSR, BLSMSK, BLSI, COUNT };
	static insn_fn *const bmi[COUNT][2] = {
		{andn_handler4, andn_handler8}, {bextr_handler4, bextr_handler8}, {bzhi_handler4, bzhi_handler8},
		{pdep_handler4, pdep_handler8}, {pext_handler4, pext_handler8}, {blsr_handler4, blsr_handler8},
		{blsmsk_handler4, blsmsk_handler8}, {blsi_handler4, blsi_handler8},
	};
	bool have = int_host()->bmi1;
	int op = -1;

	switch (i->opcode) {
	case 0xf2: op = i->pp == 0 ? ANDN : -1; break;
	case 0xf3:
		if (i->pp == 0 && (i->modrm >> 3 & 7) >= 1 && (i->modrm >> 3 & 7) <= 3)
			op = BLSR + (i->modrm >> 3 & 7) - 1;
		break;
	case 0xf5:
		have = int_host()->bmi2;
		op = i->pp == 0 ? BZHI : i->pp == 2 ? PEXT : i->pp == 3 ? PDEP : -1;
		break;
	default:
		if (i->pp)
			return int_bind_shiftx(i);
		op = BEXTR;
		break;
	}
	if (op < 0 || !have || i->vl)
		return false;
	i->fn = bmi[op][i->opsize == 8];
	return true;
}

/* f2 0f 38 f0, f1: the destination is 32 bits, or 64 with REX.W. */
#define CRC32(size, to) \
	HANDLER(crc32_handler##size##_##to) \
	{ \
		val##size s = (val##size)(i->is_mem ? load_operand(v, i, size) : REG##size(i->rm)); \
		uint64_t d = v->gpr[i->reg]; \
		__asm__("crc32" SFX##size " " MOD##size "[src], " MOD##to "[dst]" : [dst] "+r"(d) : [src] "r"(s)); \
		v->gpr[i->reg] = d; \
	}
CRC32(1, 4) CRC32(1, 8) CRC32(2, 4) CRC32(4, 4) CRC32(8, 8)

bool int_bind_crc32(struct insn *i)
{
	bool wide = i->rex & 8;

	if (!int_host()->crc32 || i->prefixes & PFX_VEX)
		return false;
	if (i->opcode == 0xf0)
		i->fn = wide ? crc32_handler1_8 : crc32_handler1_4;
	else if (wide)
		i->fn = crc32_handler8_8;
	else
		i->fn = i->opsize == 2 ? crc32_handler2_4 : crc32_handler4_4;
	return true;
}
