/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Cases from numbers. The bytes come from gen_insn.c; the decoder then tells
 * where the memory operand is, and registers or the displacement are chosen so
 * that it mostly falls into a window, at its edges more often than chance would.
 */
#include "gen.h"

bool diff_segments_usable;

/* ---- Operands ------------------------------------------------------------ */

static bool is_1b(const struct insn *i, unsigned lo, unsigned hi)
{
	return i->map == MAP_1B && i->opcode >= lo && i->opcode <= hi;
}

static bool is_vector(const struct insn *i)
{
	if (i->prefixes & PFX_VEX)
		return !(i->map == MAP_0F38 && i->opcode >= 0xf2 && i->opcode <= 0xf7) &&
		       !(i->map == MAP_0F3A && i->opcode == 0xf0);
	if (i->map == MAP_0F)
		return (i->opcode >= 0x10 && i->opcode <= 0x17) || (i->opcode >= 0x28 && i->opcode <= 0x2f) ||
		       (i->opcode >= 0x50 && i->opcode <= 0x7f) || (i->opcode >= 0xc2 && i->opcode <= 0xc6) ||
		       i->opcode >= 0xd0;
	return i->map == MAP_0F3A || (i->map == MAP_0F38 && i->opcode < 0xf0);
}

static bool is_x87(const struct insn *i)
{
	return is_1b(i, 0xd8, 0xdf);
}

static unsigned operand_size(const struct insn *i)
{
	if (diff_is_area(i))
		return 64;
	if (is_x87(i))
		return 8;
	if (is_vector(i))
		return i->prefixes & PFX_VEX && i->vl ? 32 : 16;
	return i->opsize;
}

static void patch_at(struct diff_case *c, uint64_t addr, const void *data, unsigned len)
{
	struct diff_patch *p = &c->patch[c->npatches];

	if (c->npatches == 3 || addr < DATA_BASE || addr > DATA_RO_BASE - len)
		return;
	p->addr = (uint32_t)addr;
	p->len = (uint8_t)len;
	memcpy(p->data, data, len);
	c->npatches++;
}

static uint16_t random_fcw(struct rng *r)
{
	return chance(r, 40) ? 0x37f : (uint16_t)(0x40 | (rnd(r) & 0xf00) | (chance(r, 70) ? 0x3f : rnd(r) & 0x3f));
}

static uint32_t random_mxcsr(struct rng *r)
{
	uint32_t m = chance(r, 40) ? 0x1f80
				   : (uint32_t)(rnd(r) & 0xe07f) | (chance(r, 75) ? 0x1f80 : (uint32_t)rnd(r) & 0x1f80);

	return chance(r, 70) ? m & ~0x8040u : m; /* FTZ and DAZ hide much */
}

/* An image that FXRSTOR and XRSTOR mostly take. */
static void patch_area(struct rng *r, struct diff_case *c, uint64_t addr)
{
	uint8_t head[64] = { 0 }, image[32] = { 0 };
	uint16_t fcw = random_fcw(r), fsw = (uint16_t)(rnd(r) & 0x7f00);
	uint32_t mxcsr = random_mxcsr(r);

	memcpy(image, &fcw, 2);
	memcpy(image + 2, &fsw, 2);
	image[4] = (uint8_t)rnd(r);
	if (chance(r, 10))
		mxcsr = (uint32_t)rnd(r) & ~0x20000u; /* bit 17 is AMD's */
	memcpy(image + 24, &mxcsr, 4);
	head[0] = below(r, 8);
	if (chance(r, 10))
		head[below(r, 64)] = (uint8_t)rnd(r);
	patch_at(c, addr, image, 32);
	patch_at(c, addr + 512, head, 64);
}

static void patch_operand(struct rng *r, struct diff_case *c, uint64_t addr)
{
	uint8_t data[64];

	if (diff_is_area(&c->insn[0])) {
		patch_area(r, c, addr);
		return;
	}
	if (is_x87(&c->insn[0])) {
		unsigned form = c->insn[0].opcode & 7, reg = c->insn[0].modrm >> 3 & 7;

		if ((form == 3 && reg == 5)) {
			gen_float80(r, data);
			patch_at(c, addr, data, 10);
		} else if (form == 0 || form == 1) {
			uint32_t v = gen_float32(r);

			patch_at(c, addr, &v, 4);
		} else if (form == 4 || form == 5) {
			uint64_t v = gen_float64(r);

			patch_at(c, addr, &v, 8);
		} else if (form == 7 && reg == 4) { /* FBLD */
			for (unsigned n = 0; n < 9; n++)
				data[n] = (uint8_t)(below(r, 10) << 4 | below(r, chance(r, 95) ? 10 : 16));
			data[9] = (uint8_t)rnd(r);
			patch_at(c, addr, data, 10);
		} else {
			uint64_t v = gen_edge_int(r);

			patch_at(c, addr, &v, 8);
		}
		return;
	}
	if (is_vector(&c->insn[0])) {
		gen_lanes(r, data, 32);
		patch_at(c, addr, data, 32);
		return;
	}
	if (chance(r, 60)) {
		uint64_t v[2] = { gen_value(r, true), gen_value(r, true) };

		patch_at(c, addr, v, 16);
		/* CMPXCHG: sometimes equal */
		if (chance(r, 50))
			c->in.gpr[R_AX] = v[0];
		if (chance(r, 50))
			c->in.gpr[R_DX] = c->insn[0].opsize == 8 ? v[1] : v[0] >> 32;
	}
}

static void set_reg(struct rng *r, struct diff_case *c, unsigned n, uint64_t v)
{
	if (n >= 16)
		return;
	/* What an address of 32 bits ignores. */
	if (c->mode == MODE_64 && c->insn[0].addrsize == 4 && chance(r, 40))
		v = (uint32_t)v | rnd(r) << 32;
	c->in.gpr[n] = v;
}

/* 16-bit addresses: BX, BP, SI, DI and their sums, or an offset alone. */
static void steer_16(struct rng *r, struct diff_case *c, uint16_t ea)
{
	struct insn *i = &c->insn[0];
	uint16_t index = i->index < 16 ? (uint16_t)c->in.gpr[i->index] : 0;

	if (i->base >= 16)
		memcpy(c->bytes + i->raw_opcode_at + 2, &ea, 2);
	else if (i->index == i->base)
		return;
	else
		c->in.gpr[i->base] = (c->in.gpr[i->base] & ~0xffffull) | (uint16_t)(ea - (uint16_t)i->disp - index);
	if (chance(r, 50))
		patch_operand(r, c, (uint32_t)(diff_segment_base(c, i->seg) + ea));
}

static void steer_modrm(struct rng *r, struct diff_case *c)
{
	struct insn *i = &c->insn[0];
	struct diff_state *in = &c->in;
	bool wide = c->mode == MODE_64 && i->addrsize == 8, vsib;
	uint64_t target = gen_address(r, operand_size(i), wide), ea = target;
	unsigned disp_at;

	if (i->raw_opcode_at + 2u > 13)
		return;
	if (c->mode != MODE_64)
		ea = (uint32_t)(target - diff_segment_base(c, i->seg));
	if (i->addrsize == 2) {
		steer_16(r, c, (uint16_t)ea);
		return;
	}
	vsib = i->prefixes & PFX_VEX && i->map == MAP_0F38 && i->opcode >= 0x90 && i->opcode <= 0x93;
	if (c->mode == MODE_64 && (i->seg == SEG_FS || i->seg == SEG_GS)) {
		uint64_t base = i->seg == SEG_FS ? in->fs_base : in->gs_base;

		if (i->addrsize == 4 && base > target)
			base = target & 0xfff000;
		if (i->seg == SEG_FS)
			in->fs_base = base;
		else
			in->gs_base = base;
		ea = target - base;
	}
	disp_at = i->raw_opcode_at + 2u; /* behind opcode and ModRM: raw_opcode_at is of the last opcode byte */
	if (i->base == REG_RIP) {
		uint32_t disp = (uint32_t)(ea - (in->rip + i->len));

		memcpy(c->bytes + disp_at, &disp, 4);
	} else if (i->base == REG_ZERO && (i->index == REG_ZERO || vsib)) {
		uint32_t disp = (uint32_t)ea;

		memcpy(c->bytes + disp_at + ((i->modrm & 7) == 4), &disp, 4);
	} else if (i->base == REG_ZERO) {
		set_reg(r, c, i->index, (ea - (int64_t)i->disp) >> i->scale);
	} else if (i->index == i->base && !vsib) {
		set_reg(r, c, i->base, (ea - (int64_t)i->disp) / (1 + (1u << i->scale)));
	} else {
		uint64_t index = 0;

		if (i->index < 16 && !vsib) {
			if (chance(r, 60))
				in->gpr[i->index] = below(r, 256) - 64;
			index = in->gpr[i->index] << i->scale;
		}
		set_reg(r, c, i->base, ea - (int64_t)i->disp - index);
	}
	if (vsib && i->index < 16) {
		for (unsigned n = 0; n < 8; n++) {
			int32_t v = (int)below(r, 512) - 128;

			if (chance(r, 3))
				v = (int32_t)rnd(r);
			if (i->opcode & 1) { /* qword indices */
				int64_t q = v;

				if (n < 4)
					memcpy(in->ymm[i->index] + n * 8, &q, 8);
			} else {
				memcpy(in->ymm[i->index] + n * 4, &v, 4);
			}
		}
	}
	if (chance(r, 70))
		patch_operand(r, c, target);
}

/* The offset of a linear address; only outside 64-bit mode do segments matter to what is steered with this. */
static uint64_t offset_in(const struct diff_case *c, unsigned seg, uint64_t linear)
{
	return c->mode == MODE_64 ? linear : (uint32_t)(linear - diff_segment_base(c, seg));
}

static void steer(struct rng *r, struct diff_case *c)
{
	struct insn *i = &c->insn[0];
	bool wide = c->mode == MODE_64;

	if (i->is_mem) {
		steer_modrm(r, c);
		/* Bit strings: BT, BTS, BTR, BTC with a register reach far. */
		if (i->map == MAP_0F &&
		    (i->opcode == 0xa3 || i->opcode == 0xab || i->opcode == 0xb3 || i->opcode == 0xbb) &&
		    i->reg != i->base && chance(r, 90))
			c->in.gpr[i->reg & 15] = (uint64_t)(int64_t)((int)below(r, 2048) - 1024);
	}
	if (diff_is_string(i)) {
		c->in.gpr[R_SI] = offset_in(c, i->seg, gen_address(r, i->opsize, wide));
		c->in.gpr[R_DI] = offset_in(c, SEG_ES, gen_address(r, i->opsize, wide));
		if (i->prefixes & (PFX_F2 | PFX_F3)) {
			if (chance(r, 97))
				c->in.gpr[R_CX] = below(r, 24);
			/* Equal elements, so that REPE goes on for a while. */
			if (chance(r, 50))
				c->in.gpr[R_DI] = c->in.gpr[R_SI] + i->opsize;
		}
		if (chance(r, 30)) {
			uint8_t same[64];

			memset(same, (int)below(r, 256), sizeof(same));
			if (chance(r, 70))
				same[below(r, 64)] ^= 0x10;
			patch_at(c, diff_segment_base(c, SEG_ES) + c->in.gpr[R_DI] - (c->in.rflags & FL_DF ? 64 : 0),
				 same, 64);
			if (chance(r, 50))
				memset(&c->in.gpr[R_AX], same[0], 8);
		}
	}
	/* The host's XCR0 has components that the guest's has not. */
	if (diff_is_area(i)) {
		c->in.gpr[R_AX] &= 7;
		c->in.gpr[R_DX] = 0;
	}
	if (i->map == MAP_0F && i->opcode == 1 && i->modrm == 0xd0)
		c->in.gpr[R_CX] |= 4;
	if (is_1b(i, 0xd7, 0xd7))
		c->in.gpr[R_BX] = offset_in(c, i->seg, gen_address(r, 1, wide));
	if (is_1b(i, 0xa0, 0xa3) && c->mode == MODE_64 && i->addrsize == 8 && chance(r, 80)) {
		uint64_t target = gen_address(r, i->opsize, true);

		memcpy(c->bytes + i->raw_opcode_at + 1, &target, 8);
	} else if (is_1b(i, 0xa0, 0xa3) && i->addrsize == 4) {
		uint32_t target = (uint32_t)offset_in(c, i->seg, gen_address(r, i->opsize, false));

		memcpy(c->bytes + i->raw_opcode_at + 1, &target, 4);
	}
	/* MASKMOVQ, MASKMOVDQU */
	if (i->map == MAP_0F && i->opcode == 0xf7)
		c->in.gpr[R_DI] = offset_in(c, i->seg, gen_address(r, 16, wide));
	/* DIV, IDIV: quotients that fit */
	if (is_1b(i, 0xf6, 0xf7) && (i->modrm >> 3 & 7) >= 6 && chance(r, 70)) {
		c->in.gpr[R_DX] = chance(r, 50) ? 0 : (uint64_t)((int64_t)c->in.gpr[R_AX] >> 63);
		if (!(i->opcode & 1))
			c->in.gpr[R_AX] = (uint64_t)(int64_t)(int16_t)((int)below(r, 512) - 256);
	}
	/* CMPXCHG with a register: sometimes equal */
	if (i->map == MAP_0F && (i->opcode == 0xb0 || i->opcode == 0xb1) && !i->is_mem && chance(r, 50))
		c->in.gpr[R_AX] = c->in.gpr[i->rm & 15];
	/* A locked access over a cache line can cost a host millions of cycles. */
}

static void gen_state(struct rng *r, struct diff_case *c)
{
	struct diff_state *s = &c->in;
	bool wide = c->mode == MODE_64;

	for (int n = 0; n < 16; n++)
		s->gpr[n] = gen_value(r, wide);
	switch (below(r, 10)) {
	case 0:
		s->gpr[R_SP] = STACK_BASE + below(r, PAGE);
		break;
	case 1:
		s->gpr[R_SP] = chance(r, 50) ? STACK_BASE + below(r, 17) : STACK_BASE + PAGE - below(r, 17);
		break;
	case 2:
		s->gpr[R_SP] = gen_address(r, 8, wide);
		break;
	default:
		s->gpr[R_SP] = STACK_BASE + 512 + below(r, PAGE - 1024) / 8 * 8;
		break;
	}
	if (!wide)
		s->gpr[R_SP] = (uint32_t)(s->gpr[R_SP] - diff_segment_base(c, SEG_SS));
	if (chance(r, 50))
		s->gpr[R_BP] = chance(r, 50) ? s->gpr[R_SP] + below(r, 64) : gen_address(r, 8, wide);
	s->rflags = (rnd(r) & FLAGS_ARITH) | 2 | FL_IF | (chance(r, 12) ? FL_DF : 0) | (chance(r, 5) ? FL_ID : 0);
	switch (below(r, 4)) {
	case 0:
		s->fs_base = 0;
		break;
	case 1:
		s->fs_base = below(r, 0x20000) << 12;
		break;
	case 2:
		s->fs_base = rnd(r) & 0x7fffffff;
		break;
	default:
		s->fs_base = (uint64_t)((int64_t)(rnd(r) << 16) >> 16);
		break;
	}
	s->gs_base = chance(r, 50) ? below(r, 0x10000) : (uint64_t)((int64_t)(rnd(r) << 16) >> 16);
	for (int n = 0; n < 16; n++)
		gen_lanes(r, s->ymm[n], 32);
	s->mxcsr = random_mxcsr(r);
	s->fcw = random_fcw(r);
	s->fsw = (uint16_t)(rnd(r) & 0x7f40); /* TOP, C0..C3, stack fault */
	if (chance(r, 50))
		s->fsw &= ~0x40;
	s->fsw |= rnd(r) & 0x3f & (chance(r, 92) ? s->fcw : 0x3f);
	if ((s->fsw & 0x40 && !(s->fsw & 1)))
		s->fsw &= ~0x40;
	if (s->fsw & ~s->fcw & 0x3f)
		s->fsw |= 0x8080;
	s->ftw = chance(r, 40) ? 0xff : chance(r, 25) ? 0 : (uint8_t)rnd(r);
	for (int n = 0; n < 8; n++)
		gen_float80(r, s->st[n]);
	if (!wide) {
		for (int n = 0; n < 16; n++)
			s->gpr[n] = n < 8 ? (uint32_t)s->gpr[n] : 0;
		s->fs_base = s->gs_base = 0;
	}
}

uint64_t diff_operand(const struct diff_case *c)
{
	const struct insn *i = &c->insn[0];
	uint64_t ea = (int64_t)i->disp;

	if (i->base < 16)
		ea += c->in.gpr[i->base];
	else if (i->base == REG_RIP)
		ea += c->in.rip + i->len;
	if (i->index < 16)
		ea += c->in.gpr[i->index] << i->scale;
	ea = i->addrsize == 8 ? ea : i->addrsize == 4 ? (uint32_t)ea : (uint16_t)ea;
	ea += diff_segment_base(c, i->seg);
	return c->mode == MODE_64 ? ea : (uint32_t)ea;
}

/* LOCK over a cache line: on some hosts a trap, on all a stall of everybody. */
static bool split_lock(const struct diff_case *c)
{
	const struct insn *i = &c->insn[0];

	return i->is_mem && (i->prefixes & PFX_LOCK || is_1b(i, 0x86, 0x87)) && (diff_operand(c) & 63) > 64 - 16;
}

/* Straight-line instructions on registers behind the first. */
static void append(struct rng *r, struct diff_case *c, unsigned classes)
{
	unsigned want = 2 + below(r, DIFF_MAX_INSNS - 1);

	for (int attempt = 0; attempt < 40 && c->count < want; attempt++) {
		struct insn *i = &c->insn[c->count];
		struct diff_case one = { .mode = c->mode, .in = c->in }; /* segments do not matter to flags */
		struct bytes b;
		bool control_flow;

		/* What the one before leaves undefined may not be read. */
		one.insn[0] = c->insn[c->count - 1];
		if (diff_undefined_flags(&one))
			return;
		gen_bytes(r, &b, classes, c->mode);
		if (insn_decode(i, b.b, 15, c->mode | insn_decode_flags()) != DECODE_OK)
			continue;
		if (i->has_modrm && i->is_mem) {
			/* ModRM comes behind the opcode, as do no other bytes of importance. */
			b.b[i->raw_opcode_at + 1] |= 0xc0;
			if (insn_decode(i, b.b, 15, c->mode | insn_decode_flags()) != DECODE_OK || i->is_mem)
				continue;
		}
		if (diff_may_run(b.b, 15, c->mode, &control_flow) == RULE_SKIP || control_flow || diff_is_string(i) ||
		    is_1b(i, 0x9d, 0x9d) || is_1b(i, 0xcd, 0xcd) || is_1b(i, 0xa0, 0xa3) || is_1b(i, 0xd7, 0xd7) ||
		    (i->map == MAP_0F && i->opcode == 0xf7) || (i->map == MAP_0F && i->opcode == 1) ||
		    !softside_knows(i) || diff_not_offered(i))
			continue;
		memcpy(c->bytes + c->len, b.b, i->len);
		c->len += i->len;
		c->count++;
	}
}

static void choose_segments(struct rng *r, struct diff_case *c)
{
	static const uint8_t code[] = { DIFF_FLAT_CODE, DIFF_CODE16, DIFF_CODE16, DIFF_CODE32, DIFF_EXEC32 };
	static const uint8_t stack[] = { DIFF_FLAT_DATA, DIFF_STACK, DIFF_STACK16, DIFF_STACK16,
					 DIFF_RW,	 DIFF_DOWN,  DIFF_DOWN16 };
	static const uint8_t thread[] = { DIFF_BASE, DIFF_BASE, DIFF_BASE, DIFF_FLAT_CODE, DIFF_RW, DIFF_RO, DIFF_DOWN, DIFF_NULL };
	static const uint8_t data[] = { DIFF_FLAT_DATA, DIFF_RW,     DIFF_RW,	 DIFF_RW16,   DIFF_RO,
					DIFF_DOWN,	DIFF_DOWN16, DIFF_STACK, DIFF_CODE32, DIFF_NULL };

	memset(c->seg, DIFF_FLAT_DATA, sizeof(c->seg));
	c->seg[SEG_CS] = DIFF_FLAT_CODE;
	if (c->mode == MODE_64 || !diff_segments_usable || chance(r, 50))
		return;
	/* Flat but for what is named by a prefix. */
	if (chance(r, 20)) {
		c->seg[SEG_FS] = thread[below(r, sizeof(thread))];
		c->seg[SEG_GS] = thread[below(r, sizeof(thread))];
		return;
	}
	for (unsigned n = 0; n < SEG_COUNT; n++)
		c->seg[n] = data[below(r, sizeof(data))];
	c->seg[SEG_CS] = code[below(r, sizeof(code))];
	c->seg[SEG_SS] = stack[below(r, sizeof(stack))];
	if (c->seg[SEG_CS] == DIFF_CODE16)
		c->mode = MODE_16;
}

bool diff_generate(struct diff_case *c, uint64_t seed, uint64_t number, unsigned classes)
{
	struct rng r = { seed ^ (number + 1) * 0xd1342543de82ef95 };
	enum decode_result d = DECODE_UD;
	bool control_flow;
	struct bytes b;

	rnd(&r);
	c->number = number;
	c->npatches = 0;
	c->count = 1;
	c->mode = chance(&r, 72) ? MODE_64 : MODE_32;
	choose_segments(&r, c);
	for (int attempt = 0; attempt < 12; attempt++) {
		gen_bytes(&r, &b, classes, c->mode);
		d = insn_decode(&c->insn[0], b.b, 15, c->mode | insn_decode_flags());
		if (d == DECODE_OK ? softside_knows(&c->insn[0]) || chance(&r, 25)
				   : chance(&r, d == DECODE_TOO_LONG ? 50 : 12))
			break;
	}
	memcpy(c->bytes, b.b, 15);
	c->valid = d == DECODE_OK;
	c->len = c->valid ? c->insn[0].len : 15;
	c->in.rip = CODE_BASE + below(&r, CODE_PAGES * PAGE / 64 - 2) * 64 + below(&r, 32);
	if (c->seg[SEG_CS] <= DIFF_FLAT_CODE &&
	    chance(&r, 2)) /* at a limit of CS hosts are not the same from run to run */
		c->in.rip = CODE_END - 1 - below(&r, 16);
	c->room = CODE_END - c->in.rip < 15 ? (unsigned)(CODE_END - c->in.rip) : 15;
	c->in.rip -= diff_segment_base(c, SEG_CS);
	gen_state(&r, c);
	if (c->valid) {
		steer(&r, c);
		/* The bytes may have changed behind the opcode. */
		if (insn_decode(&c->insn[0], c->bytes, 15, c->mode | insn_decode_flags()) != DECODE_OK ||
		    c->insn[0].len != c->len)
			return false;
		if (split_lock(c))
			return false;
	}
	if (c->mode != MODE_64)
		for (int n = 0; n < 8; n++)
			c->in.gpr[n] = (uint32_t)c->in.gpr[n];
	if (c->mode != MODE_64 && !(diff_segments[c->seg[SEG_SS]].attr & SEG_ATTR_DB)) /* see native_init() */
		c->in.gpr[R_SP] = (STACK_BASE & 0xffff0000) | (uint16_t)c->in.gpr[R_SP];
	/* Alignment checks. 16 bytes and more are checked on AMD, not on Intel. */
	if (c->valid && !is_vector(&c->insn[0]) && !is_x87(&c->insn[0]) && !diff_is_area(&c->insn[0]) && chance(&r, 3))
		c->in.rflags |= FL_AC;
	if (diff_may_run(c->bytes, 15, c->mode, &control_flow) == RULE_SKIP)
		return false;
	/* Bytes that decode to nothing may be something to the host; a jump into itself would meet no INT3. */
	c->single_step = !c->valid || (control_flow && c->insn[0].has_imm && c->insn[0].imm + c->len < c->len);
	c->way = chance(&r, 94) ? DIFF_DIRECT : chance(&r, 50) ? DIFF_STEP : DIFF_RUN;
	if (c->valid && !control_flow && CODE_END - diff_code_at(c) > DIFF_MAX_INSNS * 15 &&
	    !is_1b(&c->insn[0], 0x9d, 0x9d) && !diff_not_offered(&c->insn[0]) && !diff_is_area(&c->insn[0]) &&
	    chance(&r, 20)) { /* an area has the CPU's MXCSR_MASK, which another instruction might take from there */
		append(&r, c, classes);
		c->room = c->len > 15 ? c->len : 15;
		c->way = chance(&r, 80) ? DIFF_DIRECT : DIFF_RUN;
	}
	/* The fetch decides, or the gate of INT n. */
	if (c->way == DIFF_DIRECT && (c->room < c->len || (c->valid && is_1b(&c->insn[0], 0xcd, 0xcd))))
		c->way = DIFF_STEP;
	/* Only what runs is translated. */
	if (softside_translate && chance(&r, 60))
		c->way = DIFF_RUN;
	if (c->single_step && c->way == DIFF_RUN)
		c->way = DIFF_STEP;
	return true;
}
