/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a decoded instruction reads and writes: registers, memory, flags. Whatever is not here the interpreter does. */
#include "engine/soft/int.h"
#include "engine/soft/trans.h"

#define ALL FLAGS_ARITH
/* CPUs differ in whether the flags that a product leaves undefined change at all. */
#define PRODUCT (FL_CF | FL_OF)
#define RW (ROLE_R | ROLE_W)

static uint16_t condition_reads(unsigned cc)
{
	static const uint16_t reads[8] = {FL_OF, FL_CF, FL_ZF, FL_CF | FL_ZF, FL_SF, FL_PF, FL_SF | FL_OF,
					  FL_SF | FL_OF | FL_ZF};

	return reads[cc >> 1 & 7];
}

static void rm_form(struct trans_form *f, unsigned reg, unsigned rm, unsigned size)
{
	f->kind = K_RM;
	f->reg = (uint8_t)reg;
	f->rm = (uint8_t)rm;
	f->size = f->reg_size = (uint8_t)size;
}

static void flags_form(struct trans_form *f, unsigned reads, unsigned kills)
{
	f->reads = (uint16_t)reads;
	f->kills = (uint16_t)kills;
	f->sets = true;
}

/* 0 ADD, 1 OR, 2 ADC, 3 SBB, 4 AND, 5 SUB, 6 XOR, 7 CMP */
static void alu_flags(struct trans_form *f, unsigned op)
{
	flags_form(f, op == 2 || op == 3 ? FL_CF : 0, ALL);
}

/* `count`: the immediate, or -1 for CL. A count of 0 leaves all flags. */
static void shift_flags(struct trans_form *f, const struct insn *i, int count, unsigned size)
{
	unsigned op = i->modrm >> 3 & 7, mask = size == 8 ? 63 : 31;

	if (count > 0)
		count &= (int)mask;
	if (op < 4) /* rotates: CF and OF alone */
		flags_form(f, op >= 2 ? FL_CF : 0, count > 0 && op < 2 ? FL_CF : 0);
	else
		flags_form(f, 0, count > 0 ? ALL : 0);
}

static void form_group3(const struct insn *i, struct trans_form *f, unsigned size)
{
	switch (i->modrm >> 3 & 7) {
	case 0: case 1:
		rm_form(f, 0, ROLE_R, size);
		flags_form(f, 0, ALL);
		break;
	case 2:
		rm_form(f, 0, RW, size);
		break;
	case 3:
		rm_form(f, 0, RW, size);
		flags_form(f, 0, ALL);
		break;
	case 4: case 5:
		rm_form(f, 0, ROLE_R, size);
		flags_form(f, 0, PRODUCT);
		break;
	default:
		if (size < 4)
			break;
		rm_form(f, 0, ROLE_R, size);
		flags_form(f, 0, 0);
		f->kind = K_DIV;
		break;
	}
}

static void form_group5(const struct insn *i, struct trans_form *f, unsigned size)
{
	switch (i->modrm >> 3 & 7) {
	case 0: case 1:
		rm_form(f, 0, RW, size);
		flags_form(f, 0, ALL & ~FL_CF);
		break;
	case 2: case 4:
		if (i->opcode == 0xff && i->opsize == trans_width(i))
			f->kind = (i->modrm >> 3 & 7) == 2 ? K_CALL_IND : K_JMP_IND;
		break;
	}
}

static void form_1b(const struct insn *i, struct trans_form *f)
{
	unsigned op = i->opcode, size = insn_width(i), width = trans_width(i);

	switch (op) {
	case 0x00 ... 0x3f:
		if ((op & 7) < 4) {
			unsigned dst = op >> 3 == 7 ? ROLE_R : RW;

			rm_form(f, op & 2 ? dst : ROLE_R, op & 2 ? ROLE_R : dst, size);
			alu_flags(f, op >> 3);
		} else if ((op & 7) < 6) {
			f->kind = K_PLAIN;
			alu_flags(f, op >> 3);
		}
		break;
	case 0x40 ... 0x4f:
		f->kind = K_INC_REG;
		f->size = i->opsize;
		flags_form(f, 0, ALL & ~FL_CF);
		break;
	case 0x50 ... 0x57:
		if (i->opsize == width)
			f->kind = K_PUSH_REG;
		break;
	case 0x58 ... 0x5f:
		if (i->opsize == width)
			f->kind = K_POP_REG;
		break;
	case 0x63:
		if (i->opsize == 8) {
			rm_form(f, ROLE_W, ROLE_R, 4);
			f->reg_size = 8;
		}
		break;
	case 0x68: case 0x6a:
		if (i->opsize == width)
			f->kind = K_PUSH_IMM;
		break;
	case 0x69: case 0x6b:
		rm_form(f, ROLE_W, ROLE_R, i->opsize);
		flags_form(f, 0, PRODUCT);
		break;
	case 0x70 ... 0x7f:
		if (i->opsize == width) {
			f->kind = K_JCC;
			f->reads = condition_reads(op & 15);
		}
		break;
	case 0x80: case 0x81: case 0x83:
		rm_form(f, 0, (i->modrm >> 3 & 7) == 7 ? ROLE_R : RW, size);
		alu_flags(f, i->modrm >> 3 & 7);
		break;
	case 0x84: case 0x85:
		rm_form(f, ROLE_R, ROLE_R, size);
		flags_form(f, 0, ALL);
		break;
	case 0x86: case 0x87: rm_form(f, RW, RW, size); break;
	case 0x88: case 0x89: rm_form(f, ROLE_R, ROLE_W, size); break;
	case 0x8a: case 0x8b: rm_form(f, ROLE_W, ROLE_R, size); break;
	case 0x8d:
		if (i->opsize >= 4 && i->addrsize == width)
			f->kind = K_LEA;
		break;
	case 0x90 ... 0x97:
		if (i->prefixes & (PFX_F3 | PFX_F2))
			break;
		f->kind = op == 0x90 && i->rm == R_AX ? K_NOP : K_XCHG_A;
		break;
	case 0x98: case 0x99: f->kind = K_PLAIN; break;
	case 0xa0 ... 0xa3:
		if (width == 4 && i->addrsize == 4) {
			f->kind = K_MOFFS;
			f->size = (uint8_t)size;
		}
		break;
	case 0xa8: case 0xa9:
		f->kind = K_PLAIN;
		flags_form(f, 0, ALL);
		break;
	case 0xb0 ... 0xb7:
		f->kind = K_MOV_IMM;
		f->size = 1;
		break;
	case 0xb8 ... 0xbf:
		f->kind = K_MOV_IMM;
		f->size = i->opsize;
		break;
	case 0xc0: case 0xc1:
		rm_form(f, 0, RW, size);
		shift_flags(f, i, (uint8_t)i->imm, size);
		break;
	case 0xd0: case 0xd1:
		rm_form(f, 0, RW, size);
		shift_flags(f, i, 1, size);
		break;
	case 0xd2: case 0xd3:
		rm_form(f, 0, RW, size);
		shift_flags(f, i, -1, size);
		break;
	case 0xc2: case 0xc3:
		if (i->opsize == width)
			f->kind = K_RET;
		break;
	case 0xc6: case 0xc7: rm_form(f, 0, ROLE_W, size); break;
	case 0xc9:
		if (i->opsize == width)
			f->kind = K_LEAVE;
		break;
	case 0xe8:
		if (i->opsize == width)
			f->kind = K_CALL;
		break;
	case 0xe9: case 0xeb:
		if (i->opsize == width)
			f->kind = K_JMP;
		break;
	case 0xf5:
		f->kind = K_PLAIN;
		flags_form(f, FL_CF, FL_CF);
		break;
	case 0xf6: case 0xf7: form_group3(i, f, size); break;
	case 0xf8: case 0xf9:
		f->kind = K_PLAIN;
		flags_form(f, 0, FL_CF);
		break;
	case 0xfe: case 0xff: form_group5(i, f, size); break;
	}
}

static void form_0f(const struct insn *i, struct trans_form *f)
{
	unsigned op = i->opcode;

	switch (op) {
	case 0x18 ... 0x1f: f->kind = K_NOP; break;
	case 0x40 ... 0x4f:
		/* Not taken, it still clears the upper half of a 32-bit destination. */
		rm_form(f, RW, ROLE_R, i->opsize);
		f->reads = condition_reads(op & 15);
		break;
	case 0x80 ... 0x8f:
		if (i->opsize == trans_width(i)) {
			f->kind = K_JCC;
			f->reads = condition_reads(op & 15);
		}
		break;
	case 0x90 ... 0x9f:
		rm_form(f, 0, ROLE_W, 1);
		f->reads = condition_reads(op & 15);
		break;
	case 0xa3: case 0xab: case 0xb3: case 0xbb:
		if (!i->is_mem) {
			rm_form(f, ROLE_R, op == 0xa3 ? ROLE_R : RW, i->opsize);
			flags_form(f, 0, FL_CF);
		}
		break;
	case 0xa4: case 0xac:
		rm_form(f, ROLE_R, RW, i->opsize);
		flags_form(f, 0, (uint8_t)i->imm & (i->opsize == 8 ? 63 : 31) && i->opsize > 2 ? FL_CF | FL_PF | FL_ZF | FL_SF : 0);
		break;
	case 0xa5: case 0xad:
		rm_form(f, ROLE_R, RW, i->opsize);
		flags_form(f, 0, 0);
		break;
	case 0xaf:
		rm_form(f, RW, ROLE_R, i->opsize);
		flags_form(f, 0, PRODUCT);
		break;
	case 0xb0: case 0xb1:
		rm_form(f, ROLE_R, RW, insn_width(i));
		flags_form(f, 0, ALL);
		break;
	case 0xb6: case 0xb7: case 0xbe: case 0xbf:
		rm_form(f, ROLE_W, ROLE_R, op & 1 ? 2 : 1);
		f->reg_size = i->opsize;
		break;
	case 0xba:
		if ((i->modrm >> 3 & 7) >= 4) {
			rm_form(f, 0, (i->modrm >> 3 & 7) == 4 ? ROLE_R : RW, i->opsize);
			flags_form(f, 0, FL_CF);
		}
		break;
	case 0xbc: case 0xbd:
		rm_form(f, RW, ROLE_R, i->opsize);
		flags_form(f, 0, FL_ZF);
		break;
	case 0xb8:
		if (i->prefixes & PFX_F3) {
			rm_form(f, ROLE_W, ROLE_R, i->opsize);
			flags_form(f, 0, ALL);
		}
		break;
	case 0xc0: case 0xc1:
		rm_form(f, RW, RW, insn_width(i));
		flags_form(f, 0, ALL);
		break;
	case 0xc8 ... 0xcf:
		if (i->opsize >= 4) {
			f->kind = K_BSWAP;
			f->size = i->opsize;
		}
		break;
	}
}

static void form_0f38(const struct insn *i, struct trans_form *f)
{
	if (i->opcode == 0xf6) { /* ADCX, ADOX */
		unsigned flag = i->prefixes & PFX_F3 ? FL_OF : FL_CF;

		rm_form(f, RW, ROLE_R, i->rex & 8 ? 8 : 4);
		flags_form(f, flag, flag);
	} else if ((i->opcode & ~1u) == 0xf0 && i->is_mem && !(i->prefixes & (PFX_F2 | PFX_F3))) { /* MOVBE */
		rm_form(f, i->opcode & 1 ? ROLE_R : ROLE_W, i->opcode & 1 ? ROLE_W : ROLE_R, i->opsize);
	}
}

/* BMI1, BMI2 */
static void form_vex(const struct insn *i, struct trans_form *f)
{
	if (i->map == MAP_1B || i->map == MAP_0F || (i->map == MAP_0F38 ? i->opcode < 0xf2 || i->opcode > 0xf7 : i->opcode != 0xf0))
		return;
	f->kind = K_BMI;
	f->rm = ROLE_R;
	f->size = i->opsize;
	if (i->map == MAP_0F3A || i->pp || i->opcode == 0xf6)
		return;
	flags_form(f, 0, i->opcode == 0xf7 ? FL_ZF | FL_CF | FL_OF : FL_ZF | FL_SF | FL_CF | FL_OF);
}

/*
 * What 32-bit code has of its own: segments that may be anything, 16-bit
 * addresses, and bits that name nothing there but something in the host's mode
 * (VEX.W, the upper register number in an immediate).
 */
static bool narrow_oddity(const struct insn *i)
{
	bool memory = i->is_mem || (i->map == MAP_1B && i->opcode >= 0xa0 && i->opcode <= 0xa3);

	if (i->mode != MODE_32)
		return i->mode != MODE_64;
	if (memory && (i->addrsize != 4 || i->seg == SEG_CS))
		return true;
	return i->prefixes & PFX_VEX && (i->rex & 8 || (i->map == MAP_0F3A && i->opcode >= 0x4a && i->opcode <= 0x4c));
}

void trans_form(const struct insn *i, struct trans_form *f)
{
	memset(f, 0, sizeof(*f));
	f->kind = K_HANDLER;
	if (!narrow_oddity(i) && i->fn != int_ud && i->fn != insn_undefined && i->fn != insn_protection && !trans_sys_form(i, f) &&
	    !trans_vec_form(i, f)) {
		if (i->prefixes & PFX_VEX)
			form_vex(i, f);
		else if (i->map == MAP_1B)
			form_1b(i, f);
		else if (i->map == MAP_0F)
			form_0f(i, f);
		else if (i->map == MAP_0F38)
			form_0f38(i, f);
	}
	if (f->kind == K_RM) {
		bool reg_high = f->reg && trans_high_byte(i, i->reg, f->reg_size);
		bool rm_high = !i->is_mem && trans_high_byte(i, i->rm, f->size);

		/* AH..BH exclude every register that needs a REX prefix, and the scratch ones do. */
		if ((reg_high && (i->is_mem || i->rm == R_SP)) || (rm_high && f->reg && !reg_high && i->reg == R_SP))
			f->kind = K_HANDLER;
	}
	/* The target's offset from the page must fit into 32 bits. */
	if ((f->kind == K_JCC || f->kind == K_JMP || f->kind == K_CALL) &&
	    (int64_t)i->imm != (int64_t)(int32_t)((int64_t)i->imm + ((int64_t)i->imm < 0 ? 0 : 2 * PAGE_BYTES)) -
				       ((int64_t)i->imm < 0 ? 0 : 2 * PAGE_BYTES))
		f->kind = K_HANDLER;
	if (f->kind == K_HANDLER) {
		f->reads = ALL;
		f->kills = 0;
		f->sets = true;
	}
	if (i->is_mem && i->addrsize != trans_width(i) && f->kind != K_SYS && (i->base == REG_RIP || (f->kind != K_RM && f->kind != K_VEC)) && f->kind != K_NOP) {
		memset(f, 0, sizeof(*f));
		f->reads = ALL;
		f->sets = true;
	}
}
