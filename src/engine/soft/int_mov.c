/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Moving and converting: MOV, MOVZX, MOVSX, MOVSXD, LEA, MOVBE, MOVNTI, XLAT, BSWAP, CBW and its family. */
#include "engine/soft/int.h"

#define MOV_FAMILY(size) \
	HANDLER(mov_rr##size) { WRITE##size(i->rm, REG##size(i->reg)); } \
	HANDLER(mov_rr_rev##size) { WRITE##size(i->reg, REG##size(i->rm)); } \
	HANDLER(mov_ri##size) { WRITE##size(i->rm, i->imm); } \
	LOAD_HANDLER(mov_rm##size, size, WRITE##size(i->reg, s)) \
	STORE_HANDLER(mov_mr##size, size, REG##size(i->reg)) \
	STORE_HANDLER(mov_mi##size, size, i->imm) \
	HANDLER(mov_moffs_load##size) \
	{ \
		uint64_t s = ld(v, seg_linear(v, i->seg, i->imm, size, ACC_READ), size, false); \
		WRITE##size(R_AX, s); \
	} \
	HANDLER(mov_moffs_store##size) \
	{ \
		st(v, seg_linear(v, i->seg, i->imm, size, ACC_WRITE), v->gpr[R_AX], size, false); \
	}
FOR_SIZES(MOV_FAMILY)

enum { MOV_RR, MOV_RR_REV, MOV_RI, MOV_RM, MOV_MR, MOV_MI, MOV_MOFFS_LOAD, MOV_MOFFS_STORE };
static insn_fn *const mov[][4] = {
	[MOV_RR] = TABLE4(mov_rr), [MOV_RR_REV] = TABLE4(mov_rr_rev), [MOV_RI] = TABLE4(mov_ri),
	[MOV_RM] = TABLE4(mov_rm), [MOV_MR] = TABLE4(mov_mr), [MOV_MI] = TABLE4(mov_mi),
	[MOV_MOFFS_LOAD] = TABLE4(mov_moffs_load), [MOV_MOFFS_STORE] = TABLE4(mov_moffs_store),
};

/* 88..8b, a0..a3, b0..bf, c6, c7 */
bool int_bind_mov(struct insn *i)
{
	unsigned form, size = insn_width(i);

	if (i->opcode < 0x8a) {
		form = i->is_mem ? MOV_MR : MOV_RR;
	} else if (i->opcode < 0x8c) {
		form = i->is_mem ? MOV_RM : MOV_RR_REV;
	} else if (i->opcode < 0xb0) {
		form = i->opcode < 0xa2 ? MOV_MOFFS_LOAD : MOV_MOFFS_STORE;
	} else if (i->opcode < 0xc0) {
		form = MOV_RI;
		size = i->opcode < 0xb8 ? 1 : i->opsize;
	} else {
		if (i->modrm & 0x38)
			return false;
		form = i->is_mem ? MOV_MI : MOV_RI;
	}
	i->fn = mov[form][size_log2(size)];
	return true;
}

/* MOVZX, MOVSX: `from` bytes of r/m, extended to the operand size. A zero extension to 32 bits is one to 64. */
#define EXTEND(to, name, from, cast) \
	HANDLER(name##_r##to) { WRITE##to(i->reg, (cast)REG##from(i->rm)); } \
	LOAD_HANDLER(name##_m##to, from, WRITE##to(i->reg, (cast)s))
FOR_WIDE_SIZES(EXTEND, movzx1, 1, uint8_t)
FOR_WIDE_SIZES(EXTEND, movzx2, 2, uint16_t)
FOR_WIDE_SIZES(EXTEND, movsx1, 1, int8_t)
FOR_WIDE_SIZES(EXTEND, movsx2, 2, int16_t)
EXTEND(8, movsxd, 4, int32_t)
/* With a 16-bit operand AMD reads 32 bits of memory all the same (the manuals differ: r/m16 and r/m32). */
LOAD_HANDLER_GENERAL(movsxd_amd_m2, 4, WRITE2(i->reg, s))

#define EXTEND_FORMS(f) {TABLE3(f##_r), TABLE3(f##_m)}
static insn_fn *const extend[2][2][2][3] = {
	{EXTEND_FORMS(movzx1), EXTEND_FORMS(movzx2)},
	{EXTEND_FORMS(movsx1), EXTEND_FORMS(movsx2)},
};

/* 0f b6, b7, be, bf; 63 in 64-bit mode */
bool int_bind_movx(struct insn *i)
{
	if (i->map == MAP_1B) {
		if (i->mode != MODE_64)
			return false; /* ARPL */
		if (i->opsize == 8)
			i->fn = i->is_mem ? movsxd_m8 : movsxd_r8;
		else if (i->opsize == 2 && i->is_mem && int_host()->amd)
			i->fn = movsxd_amd_m2;
		else
			i->fn = mov[i->is_mem ? MOV_RM : MOV_RR_REV][size_log2(i->opsize)];
		return true;
	}
	i->fn = extend[i->opcode >> 3 & 1][i->opcode & 1][i->is_mem][size_log2(i->opsize) - 1];
	return true;
}

#define LEA(size) HANDLER(lea##size) { WRITE##size(i->reg, insn_offset(v, i)); }
FOR_WIDE_SIZES(LEA)
HANDLER(lea_plain)
{
	v->gpr[i->reg] = v->gpr[i->base] + (v->gpr[i->index] << i->scale) + (int64_t)i->disp;
}
HANDLER(lea_no_index)
{
	v->gpr[i->reg] = v->gpr[i->base] + (int64_t)i->disp;
}

/* 8d */
bool int_bind_lea(struct insn *i)
{
	static insn_fn *const lea[3] = TABLE3(lea);

	if (!i->is_mem)
		return false;
	if (i->opsize == 8 && i->addrsize == 8)
		i->fn = i->index == REG_ZERO ? lea_no_index : lea_plain;
	else
		i->fn = lea[size_log2(i->opsize) - 1];
	return true;
}

#define swap2 __builtin_bswap16
#define swap4 __builtin_bswap32
#define swap8 __builtin_bswap64
#define MOVBE(size) \
	HANDLER(movbe_load##size) { WRITE##size(i->reg, swap##size(load_operand(v, i, size))); } \
	HANDLER(movbe_store##size) { store_operand(v, i, swap##size(v->gpr[i->reg]), size); }
FOR_WIDE_SIZES(MOVBE)

/* 0f 38 f0, f1 without f2 (CRC32) and f3 */
bool int_bind_movbe(struct insn *i)
{
	static insn_fn *const movbe[2][3] = {TABLE3(movbe_load), TABLE3(movbe_store)};

	if (i->prefixes & PFX_F2)
		return int_bind_crc32(i);
	if (!i->is_mem || i->prefixes & (PFX_F3 | PFX_VEX))
		return false;
	i->fn = movbe[i->opcode & 1][size_log2(i->opsize) - 1];
	return true;
}

/* 0f c3: the operand is 32 bits wide in 16-bit code too. */
bool int_bind_movnti(struct insn *i)
{
	if (!i->is_mem || i->prefixes & (PFX_66 | PFX_F2 | PFX_F3))
		return false;
	i->fn = i->rex & 8 ? mov_mr8 : mov_mr4;
	return true;
}

/* d7 */
HANDLER(xlat)
{
	uint64_t off = v->gpr[R_BX] + (uint8_t)v->gpr[R_AX], s;

	if (i->addrsize != 8)
		off = i->addrsize == 4 ? (uint32_t)off : (uint16_t)off;
	s = ld(v, seg_linear(v, i->seg, off, 1, ACC_READ), 1, false);
	v->gpr[R_AX] = (v->gpr[R_AX] & ~0xffull) | s;
}

bool int_bind_xlat(struct insn *i)
{
	i->fn = xlat;
	return true;
}

/* BSWAP of 16 bits is undefined; CPUs clear the register's low word. */
HANDLER(bswap2) { WRITE2(i->rm, 0); }
HANDLER(bswap4) { v->gpr[i->rm] = __builtin_bswap32(v->gpr[i->rm]); }
HANDLER(bswap8) { v->gpr[i->rm] = __builtin_bswap64(v->gpr[i->rm]); }

/* 0f c8..cf */
bool int_bind_bswap(struct insn *i)
{
	i->fn = i->opsize == 8 ? bswap8 : i->opsize == 4 ? bswap4 : bswap2;
	return true;
}

HANDLER(cbw) { WRITE2(R_AX, (int8_t)v->gpr[R_AX]); }
HANDLER(cwde) { WRITE4(R_AX, (int16_t)v->gpr[R_AX]); }
HANDLER(cdqe) { WRITE8(R_AX, (uint64_t)(int32_t)v->gpr[R_AX]); }
HANDLER(cwd) { WRITE2(R_DX, (int16_t)v->gpr[R_AX] >> 15); }
HANDLER(cdq) { WRITE4(R_DX, (int32_t)v->gpr[R_AX] >> 31); }
HANDLER(cqo) { WRITE8(R_DX, (uint64_t)((int64_t)v->gpr[R_AX] >> 63)); }

/* 98, 99 */
bool int_bind_convert(struct insn *i)
{
	static insn_fn *const convert[2][3] = {{cbw, cwde, cdqe}, {cwd, cdq, cqo}};

	i->fn = convert[i->opcode & 1][size_log2(i->opsize) - 1];
	return true;
}
