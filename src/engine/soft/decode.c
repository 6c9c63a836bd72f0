/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bytes to struct insn (Intel SDM vol. 2 chapter 2 and appendix A). Two tables
 * say for each opcode of the one-byte and the 0F map what follows it and how
 * wide its operands are; the 0F 38 and 0F 3A maps are uniform.
 */
#include "engine/soft/soft.h"

#define INSN_MAX 15u

/* What follows the opcode: ModRM, and one kind of immediate. */
enum {
	IMM_NONE,
	IMM_U8,    /* one byte, zero-extended (or a byte operation, where it does not matter) */
	IMM_S8,    /* one byte, sign-extended; also an 8-bit branch displacement */
	IMM_U16,   /* RET n */
	IMM_Z,     /* 2 or 4 bytes by operand size, sign-extended; also a branch displacement */
	IMM_V,     /* 2, 4 or 8 bytes */
	IMM_MOFFS, /* an offset as wide as the address size */
	IMM_FAR,   /* offset by operand size, then a selector */
	IMM_ENTER, /* 16 bits, then 8 */
	IMM_KIND = 15,
};
enum {
	M = 16,         /* ModRM */
	D64 = 32,       /* 64-bit mode: operand size 64, or 16 with a prefix; 32 can't be had */
	NEAR = 64,      /* near branch: as D64, and Intel ignores the operand-size prefix in 64-bit mode */
	NO64 = 128,     /* no instruction in 64-bit mode */
	BAD = 256,      /* no instruction at all */
	TEST3 = 512,    /* group 3: only /0 and /1 have the immediate */
	GRP5 = 1024,    /* group 5: /2, /4 are near branches, /6 pushes */
	CTLREG = 2048,  /* MOV to and from CR, DR: ModRM always names registers; full width */
};

#define ALU_ROW M, M, M, M, IMM_U8, IMM_Z
static const uint16_t map_1b[256] = {
	/* 00 */ ALU_ROW, NO64, NO64, ALU_ROW, NO64, 0,
	/* 10 */ ALU_ROW, NO64, NO64, ALU_ROW, NO64, NO64,
	/* 20 */ ALU_ROW, 0, NO64, ALU_ROW, 0, NO64,
	/* 30 */ ALU_ROW, 0, NO64, ALU_ROW, 0, NO64,
	/* 40: INC, DEC; REX in 64-bit mode never gets here */
	[0x50 ... 0x5f] = D64,
	[0x60] = NO64, [0x61] = NO64, [0x62] = M | NO64, [0x63] = M,
	[0x68] = IMM_Z | D64, [0x69] = M | IMM_Z, [0x6a] = IMM_S8 | D64, [0x6b] = M | IMM_S8,
	[0x70 ... 0x7f] = IMM_S8 | NEAR,
	[0x80] = M | IMM_U8, [0x81] = M | IMM_Z, [0x82] = M | IMM_U8 | NO64, [0x83] = M | IMM_S8,
	[0x84 ... 0x8e] = M, [0x8f] = M | D64,
	[0x9a] = IMM_FAR | NO64, [0x9c] = D64, [0x9d] = D64,
	[0xa0 ... 0xa3] = IMM_MOFFS, [0xa8] = IMM_U8, [0xa9] = IMM_Z,
	[0xb0 ... 0xb7] = IMM_U8, [0xb8 ... 0xbf] = IMM_V,
	[0xc0] = M | IMM_U8, [0xc1] = M | IMM_U8, [0xc2] = IMM_U16 | NEAR, [0xc3] = NEAR,
	[0xc4] = M | NO64, [0xc5] = M | NO64, [0xc6] = M | IMM_U8, [0xc7] = M | IMM_Z,
	[0xc8] = IMM_ENTER | D64, [0xc9] = D64, [0xca] = IMM_U16, [0xcd] = IMM_U8, [0xce] = NO64,
	[0xd0 ... 0xd3] = M, [0xd4] = IMM_U8 | NO64, [0xd5] = IMM_U8 | NO64, [0xd6] = NO64,
	[0xd8 ... 0xdf] = M,
	[0xe0 ... 0xe3] = IMM_S8 | NEAR, [0xe4 ... 0xe7] = IMM_U8,
	[0xe8] = IMM_Z | NEAR, [0xe9] = IMM_Z | NEAR, [0xea] = IMM_FAR | NO64, [0xeb] = IMM_S8 | NEAR,
	[0xf6] = M | IMM_U8 | TEST3, [0xf7] = M | IMM_Z | TEST3, [0xfe] = M, [0xff] = M | GRP5,
};

static const uint16_t map_0f[256] = {
	[0x00 ... 0x03] = M, [0x04] = BAD, [0x0a] = BAD, [0x0c] = BAD,
	[0x0d] = M, [0x0e] = BAD, [0x0f] = M | IMM_U8 | BAD,
	[0x10 ... 0x1f] = M, [0x20 ... 0x23] = M | CTLREG,
	[0x24 ... 0x27] = M | CTLREG | BAD, [0x28 ... 0x2f] = M,
	[0x36] = BAD, [0x38 ... 0x3f] = BAD,
	[0x40 ... 0x6f] = M, [0x70 ... 0x73] = M | IMM_U8, [0x74 ... 0x76] = M,
	[0x78] = M, [0x79] = M, [0x7a] = M | BAD, [0x7b] = M | BAD, [0x7c ... 0x7f] = M,
	[0x80 ... 0x8f] = IMM_Z | NEAR, [0x90 ... 0x9f] = M,
	[0xa0] = D64, [0xa1] = D64, [0xa3] = M, [0xa4] = M | IMM_U8, [0xa5] = M, [0xa6] = M | BAD, [0xa7] = M | BAD,
	[0xa8] = D64, [0xa9] = D64, [0xab] = M, [0xac] = M | IMM_U8, [0xad ... 0xb9] = M, [0xba] = M | IMM_U8,
	[0xbb ... 0xc1] = M, [0xc2] = M | IMM_U8, [0xc3] = M, [0xc4 ... 0xc6] = M | IMM_U8, [0xc7] = M,
	[0xd0 ... 0xff] = M,
};

/* Immediate bytes of the vector instructions of the 0F map, whose EVEX forms all have ModRM. */
static bool evex_0f_has_imm(uint8_t op)
{
	return (op >= 0x70 && op <= 0x73) || op == 0xc2 || (op >= 0xc4 && op <= 0xc6);
}

/*
 * What follows a VEX opcode of the 0F map. AMD's processors walk the ones that do
 * not exist like those without VEX, and being longer than 15 bytes comes first:
 * #GP, not #UD. (0F 78 is EXTRQ and INSERTQ there.)
 */
static unsigned vex_0f_attr(uint8_t op)
{
	switch (op) {
	case 0x24 ... 0x27: case 0x7a: case 0x7b: case 0xa6: case 0xa7: case 0xb9: case 0xff: return IMM_NONE;
	case 0x78: return M | IMM_U16;
	default: return map_0f[op] & (M | IMM_KIND);
	}
}

struct cursor {
	const uint8_t *p;
	unsigned at, n;
	enum decode_result stop; /* why need() said no */
};

static bool need(struct cursor *c, unsigned bytes)
{
	if (c->at + bytes > INSN_MAX)
		c->stop = DECODE_TOO_LONG;
	else if (c->at + bytes > c->n)
		c->stop = DECODE_MORE;
	else
		return true;
	return false;
}

static uint64_t take(struct cursor *c, unsigned bytes)
{
	uint64_t value = 0;

	memcpy(&value, c->p + c->at, bytes);
	c->at += bytes;
	return value;
}

static int64_t sign_extend(uint64_t value, unsigned bytes)
{
	unsigned shift = 64 - 8 * bytes;

	return (int64_t)(value << shift) >> shift;
}

static bool take_prefixes(struct cursor *c, struct insn *i, unsigned *seg)
{
	for (;; c->at++) {
		uint8_t b;

		if (!need(c, 1))
			return false;
		b = c->p[c->at];
		switch (b) {
		case 0x26: case 0x2e: case 0x36: case 0x3e:
			/* Null prefixes in 64-bit mode: an FS or GS before them stays in force. */
			if (i->mode != MODE_64)
				*seg = (b >> 3) & 3;
			break;
		case 0x64: *seg = SEG_FS; break;
		case 0x65: *seg = SEG_GS; break;
		case 0x66: i->prefixes |= PFX_66; break;
		case 0x67: i->prefixes |= PFX_67; break;
		case 0xf0: i->prefixes |= PFX_LOCK; break;
		case 0xf2: i->prefixes = (i->prefixes & ~PFX_F3) | PFX_F2; break;
		case 0xf3: i->prefixes = (i->prefixes & ~PFX_F2) | PFX_F3; break;
		default:
			if (i->mode != MODE_64 || (b & 0xf0) != 0x40)
				return true;
			/* REX counts only right before the opcode. */
			c->at++;
			if (!need(c, 1))
				return false;
			b = c->p[c->at];
			c->at--;
			switch (b) {
			case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65: case 0x66: case 0x67:
			case 0xf0: case 0xf2: case 0xf3:
				continue;
			}
			if ((b & 0xf0) == 0x40)
				continue;
			i->rex = c->p[c->at++] & 15;
			i->prefixes |= PFX_REX;
			return true;
		}
	}
}

/* 16-bit addressing: base and index by ModRM.rm (SDM vol. 2 table 2-1). */
static const uint8_t base16[8] = {R_BX, R_BX, R_BP, R_BP, R_SI, R_DI, R_BP, R_BX};
static const uint8_t index16[8] = {R_SI, R_DI, R_SI, R_DI, REG_ZERO, REG_ZERO, REG_ZERO, REG_ZERO};

static bool take_displacement(struct cursor *c, struct insn *i, unsigned bytes)
{
	if (!need(c, bytes))
		return false;
	if (bytes)
		i->disp = (int32_t)sign_extend(take(c, bytes), bytes);
	return true;
}

/* The address bytes after ModRM. `vsib`: the index is a vector register. */
static bool take_address(struct cursor *c, struct insn *i, bool vsib)
{
	unsigned mod = i->modrm >> 6, rm = i->modrm & 7;
	unsigned bytes = mod == 1 ? 1 : mod == 2 ? (i->addrsize == 2 ? 2 : 4) : 0;

	if (i->addrsize == 2) {
		if (mod == 0 && rm == 6) {
			bytes = 2;
		} else {
			i->base = base16[rm];
			i->index = index16[rm];
		}
		return take_displacement(c, i, bytes);
	}
	if (rm == 4) {
		uint8_t sib;

		if (!need(c, 1))
			return false;
		sib = take(c, 1);
		i->scale = sib >> 6;
		i->index = ((sib >> 3) & 7) | (i->rex & 2) << 2;
		if (i->index == R_SP && !vsib) {
			i->index = REG_ZERO;
			i->scale = 0;
		}
		if (mod == 0 && (sib & 7) == 5)
			bytes = 4;
		else
			i->base = (sib & 7) | (i->rex & 1) << 3;
	} else if (mod == 0 && rm == 5) {
		bytes = 4;
		if (i->mode == MODE_64)
			i->base = REG_RIP;
	} else {
		i->base = rm | (i->rex & 1) << 3;
	}
	return take_displacement(c, i, bytes);
}

static bool take_modrm(struct cursor *c, struct insn *i, bool registers_only)
{
	if (!need(c, 1))
		return false;
	i->has_modrm = 1;
	i->modrm = take(c, 1);
	i->reg = ((i->modrm >> 3) & 7) | (i->rex & 4) << 1;
	i->rm = (i->modrm & 7) | (i->rex & 1) << 3;
	i->is_mem = i->modrm < 0xc0 && !registers_only;
	if (!i->is_mem)
		return true;
	return take_address(c, i, i->prefixes & PFX_VEX && i->map == MAP_0F38 && (i->opcode & 0xfc) == 0x90);
}

static bool take_immediate(struct cursor *c, struct insn *i, unsigned kind)
{
	unsigned z = i->opsize == 2 ? 2 : 4, first = 0, second = 0;
	bool is_signed = false;

	switch (kind) {
	case IMM_U8: first = 1; break;
	case IMM_S8: first = 1; is_signed = true; break;
	case IMM_U16: first = 2; break;
	case IMM_Z: first = z; is_signed = true; break;
	case IMM_V: first = i->opsize; break;
	case IMM_MOFFS: first = i->addrsize; break;
	case IMM_FAR: first = z; second = 2; break;
	case IMM_ENTER: first = 2; second = 1; break;
	default: return true;
	}
	if (!need(c, first + second))
		return false;
	i->has_imm = first + second;
	i->imm = take(c, first);
	if (is_signed)
		i->imm = (uint64_t)sign_extend(i->imm, first);
	i->imm2 = (uint16_t)take(c, second);
	return true;
}

/* INC, DEC, PUSH, POP, XCHG, MOV with immediate; BSWAP. */
static bool opcode_names_register(const struct insn *i)
{
	uint8_t op = i->opcode;

	if (i->map == MAP_1B)
		return (op >= 0x40 && op <= 0x5f) || (op >= 0x90 && op <= 0x97) || (op >= 0xb0 && op <= 0xbf);
	return i->map == MAP_0F && op >= 0xc8 && op <= 0xcf;
}

static unsigned operand_size(const struct insn *i, unsigned attr, bool amd_branch16)
{
	bool p66 = i->prefixes & PFX_66;

	if (i->mode == MODE_64) {
		if (i->rex & 8 || attr & CTLREG)
			return 8;
		if (attr & NEAR)
			return p66 && amd_branch16 ? 2 : 8;
		if (attr & D64)
			return p66 ? 2 : 8;
		return p66 ? 2 : 4;
	}
	if (attr & CTLREG)
		return 4;
	return (i->mode == MODE_32) != p66 ? 4 : 2;
}

static unsigned address_size(const struct insn *i)
{
	bool p67 = i->prefixes & PFX_67;

	if (i->mode == MODE_64)
		return p67 ? 4 : 8;
	return (i->mode == MODE_32) != p67 ? 4 : 2;
}

static void set_segment(struct insn *i, unsigned override)
{
	bool stack = i->is_mem && (i->base == R_SP || i->base == R_BP);

	if (i->mode == MODE_64) {
		i->seg = override;
		i->stack = stack && override == SEG_NONE;
	} else {
		i->seg = override != SEG_NONE ? override : stack ? SEG_SS : SEG_DS;
		i->stack = i->seg == SEG_SS;
	}
	if (override != SEG_NONE)
		i->prefixes |= PFX_SEG;
}

/* After the escape byte c4 or c5 (SDM vol. 2 §2.3.5). False: no more bytes. *bad: #UD. */
static bool take_vex(struct cursor *c, struct insn *i, bool three, bool *bad)
{
	uint8_t b1, b2;

	*bad = i->prefixes & (PFX_66 | PFX_F2 | PFX_F3 | PFX_LOCK);
	if (!need(c, three ? 2 : 1))
		return false;
	b1 = take(c, 1);
	b2 = three ? take(c, 1) : b1 & 0x7f;
	i->prefixes |= PFX_VEX;
	if (three) {
		i->rex = (~b1 >> 5 & 7) | (b2 >> 4 & 8);
		i->map = b1 & 31;
		if (i->map < MAP_0F || i->map > MAP_0F3A) {
			*bad = true;
			i->map = MAP_0F38;
		}
	} else {
		i->rex = ~b1 >> 5 & 4;
		i->map = MAP_0F;
	}
	i->vvvv = ~b2 >> 3 & 15;
	i->vl = b2 >> 2 & 1;
	i->pp = b2 & 3;
	if (i->mode != MODE_64) {
		/* Eight registers: the extension bits tell VEX from LES and LDS or are ignored. */
		i->rex &= 8;
		i->vvvv &= 7;
	}
	return true;
}

/*
 * EVEX (62) and XOP (8f): always #UD here; the walk only finds the length.
 * `prefix` is the number of bytes between the escape and the opcode.
 */
static bool take_foreign(struct cursor *c, struct insn *i, bool evex)
{
	unsigned prefix = evex ? 3 : 2, map, imm = 0;

	if (!need(c, prefix + 1))
		return false;
	map = c->p[c->at] & (evex ? 7 : 31);
	c->at += prefix;
	i->raw_opcode_at = c->at;
	i->opcode = take(c, 1);
	if (evex)
		imm = map == 3 || (map == 1 && evex_0f_has_imm(i->opcode)) ? 1 : 0;
	else
		imm = map == 8 ? 1 : map == 10 ? 4 : 0;
	if (!take_modrm(c, i, false) || !need(c, imm))
		return false;
	c->at += imm;
	return true;
}

enum decode_result insn_decode(struct insn *i, const uint8_t *bytes, unsigned n, unsigned mode)
{
	struct cursor c = {.p = bytes, .n = n, .stop = DECODE_OK};
	unsigned seg = SEG_NONE, attr, kind;
	bool bad = false, foreign = false;
	uint8_t op;

	memset(i, 0, sizeof(*i));
	i->mode = mode & ~MODE_AMD_BRANCH16;
	i->base = i->index = REG_ZERO;
	if (!take_prefixes(&c, i, &seg) || !need(&c, 1))
		return c.stop;
	i->addrsize = address_size(i);
	op = take(&c, 1);

	if (op == 0xc4 || op == 0xc5 || op == 0x62) {
		/* LES, LDS and BOUND need a memory operand: with mod 3 outside 64-bit mode these are VEX and EVEX too. */
		if (i->mode != MODE_64 && !need(&c, 1))
			return c.stop;
		/* Behind REX they are LES, LDS and BOUND, which 64-bit mode doesn't have. */
		if (i->mode == MODE_64 ? !(i->prefixes & PFX_REX) : c.p[c.at] >= 0xc0) {
			if (op == 0x62)
				foreign = true;
			else if (!take_vex(&c, i, op == 0xc4, &bad) || !need(&c, 1))
				return c.stop;
			else
				op = take(&c, 1);
		}
	} else if (op == 0x8f) {
		/* POP is 8f /0; the other values of these five bits are XOP's maps. */
		if (!need(&c, 1))
			return c.stop;
		foreign = (c.p[c.at] & 31) >= 8;
	} else if (op == 0x0f) {
		if (!need(&c, 1))
			return c.stop;
		op = take(&c, 1);
		i->map = MAP_0F;
		if (op == 0x38 || op == 0x3a) {
			i->map = op == 0x38 ? MAP_0F38 : MAP_0F3A;
			if (!need(&c, 1))
				return c.stop;
			op = take(&c, 1);
		}
	}

	i->opcode = op;
	i->raw_opcode_at = c.at - 1;
	if (foreign) {
		if (!take_foreign(&c, i, op == 0x62))
			return c.stop;
		bad = true;
		goto done;
	}

	switch (i->map) {
	case MAP_1B: attr = map_1b[op]; break;
	case MAP_0F:
		attr = i->prefixes & PFX_VEX ? vex_0f_attr(op) : map_0f[op];
		break;
	case MAP_0F38: attr = M; break;
	default: attr = M | IMM_U8; break;
	}
	if (attr & BAD || (attr & NO64 && i->mode == MODE_64))
		bad = true;
	if (bad && !(attr & M) && attr & NO64)
		goto done; /* nothing follows what does not exist */

	if (attr & M) {
		if (!take_modrm(&c, i, attr & CTLREG))
			return c.stop;
	} else if (opcode_names_register(i)) {
		i->rm = (op & 7) | (i->rex & 1) << 3;
	}
	kind = attr & IMM_KIND;
	if (attr & TEST3 && (i->modrm & 0x30))
		kind = IMM_NONE;
	if (attr & GRP5) {
		unsigned r = i->reg & 7;

		attr |= r == 2 || r == 4 ? NEAR : r == 6 ? D64 : 0;
	}
	i->opsize = i->prefixes & PFX_VEX ? (i->mode == MODE_64 && i->rex & 8 ? 8 : 4)
					  : operand_size(i, attr, mode & MODE_AMD_BRANCH16);
	if (!take_immediate(&c, i, kind))
		return c.stop;
done:
	i->len = c.at;
	memcpy(i->bytes, bytes, i->len);
	set_segment(i, seg);
	return bad ? DECODE_UD : DECODE_OK;
}
