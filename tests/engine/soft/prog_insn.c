/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "prog.h"

/* Registers that memory operands are given as base; the others come as they are. */
#define POINTERS (1u << R_BX | 1u << R_BP | 1u << R_SI | 1u << R_DI | 0xfeu << 8)

void prog_byte(struct prog *p, unsigned b)
{
	if (p->at < p->limit)
		p->image[p->at++] = (uint8_t)b;
}

void prog_bytes(struct prog *p, const void *bytes, unsigned n)
{
	for (unsigned k = 0; k < n; k++)
		prog_byte(p, ((const uint8_t *)bytes)[k]);
}

void prog_le(struct prog *p, uint64_t x, unsigned n)
{
	prog_bytes(p, &x, n);
}

/* ---- Addresses ------------------------------------------------------------ */

uint64_t prog_address(struct prog *p)
{
	static const uint8_t plain[] = {0, 1, 2, 3, 6, 7, 12, 13, 14, 15};
	struct rng *r = &p->rng;
	unsigned page = chance(r, 85) ? plain[below(r, sizeof(plain))] : below(r, PROG_DATA_PAGES);
	uint64_t at = PROG_DATA + page * 4096ull + below(r, 4096);

	if (chance(r, 25))
		at = PROG_DATA + page * 4096ull + 4096 - below(r, 40);
	if (chance(r, 60))
		at &= ~15ull;
	if (chance(r, 6))
		at += PROG_ALIAS;
	if (chance(r, 5))
		at += PROG_HIGH;
	return at;
}

static void mov_imm(struct prog *p, unsigned reg, uint64_t x)
{
	bool wide = x > UINT32_MAX;

	if (reg >= 8 || wide)
		prog_byte(p, 0x40 | wide << 3 | reg >> 3);
	prog_byte(p, 0xb8 | (reg & 7));
	if (p->npatchable < 64 && chance(&p->rng, 20))
		p->patchable[p->npatchable++] = p->at;
	prog_le(p, x, wide ? 8 : 4);
}

unsigned prog_pointer(struct prog *p)
{
	unsigned reg;

	do
		reg = below(&p->rng, 16);
	while (!(POINTERS >> reg & 1));
	mov_imm(p, reg, prog_address(p));
	p->pointers |= 1u << reg;
	return reg;
}

/* ---- Choosing ------------------------------------------------------------- */

static bool in(unsigned x, const char *list, unsigned n)
{
	return memchr(list, (int)x, n) != NULL;
}
#define IN(x, s) in(x, s, sizeof(s) - 1)

/* Not here: clocks, random numbers, ports, system tables, the machine's state. Some of them are gadgets of prog_gen.c. */
static bool is_system(const struct insn *i)
{
	if (i->prefixes & PFX_VEX)
		return false;
	if (i->map == MAP_1B)
		return IN(i->opcode, "\x8e\x9d\xcc\xcd\xce\xcf\xf1\xf4\xfa\xfb\xe4\xe5\xe6\xe7\xec\xed\xee\xef\x6c\x6d\x6e\x6f");
	if (i->map != MAP_0F)
		return false;
	if (i->opcode == 0xc7)
		return (i->modrm >> 3 & 7) >= 6;
	return IN(i->opcode, "\x01\x05\x06\x07\x08\x09\x20\x21\x22\x23\x30\x31\x32\x33\x34\x35\xa1\xa2\xa9\xb2\xb4\xb5") || !i->opcode;
}

static bool is_vector(const struct insn *i)
{
	struct trans_form f;

	trans_form(i, &f);
	return f.kind == K_VEC;
}

/* General registers that it may write. */
static uint32_t may_write(const struct insn *i)
{
	uint32_t w = 0;

	if (i->has_modrm) {
		w = 1u << i->reg;
		if (!i->is_mem)
			w |= 1u << i->rm;
		if (i->prefixes & PFX_VEX)
			w |= 1u << i->vvvv;
	} else {
		w = 1u << i->rm;
	}
	if (trans_is_string(i))
		w |= 1u << R_SI | 1u << R_DI;
	if (i->map == MAP_1B && (i->opcode == 0xc9 || i->opcode == 0xc8))
		w |= 1u << R_BP | 1u << R_SP;
	return w;
}

static bool draw(struct prog *p, struct insn *i)
{
	static const unsigned classes[] = {CLASS_INT, CLASS_INT, CLASS_INT, CLASS_INT, CLASS_VEC, CLASS_VEC, CLASS_X87};
	struct bytes b;

	gen_bytes(&p->rng, &b, classes[below(&p->rng, 7)], MODE_64);
	memset(i, 0, sizeof(*i));
	if (insn_decode(i, b.b, 15, MODE_64 | insn_decode_flags()) != DECODE_OK)
		return false;
	i->mode = MODE_64;
	soft_bind(p->e, i);
	if (is_system(i))
		return false;
	if (insn_ends_block(i) && !(trans_is_string(i) && chance(&p->rng, 50)))
		return false;
	if (may_write(i) & 1u << R_SP && !is_vector(i) && chance(&p->rng, 95))
		return false;
	return true;
}

/* ---- Operands ------------------------------------------------------------- */

/* ModRM, SIB and displacement of a memory operand of the instruction, whose REX or VEX prefix stays as it is. */
static unsigned operand(struct prog *p, const struct insn *i, uint8_t out[6], unsigned before, unsigned after)
{
	struct rng *r = &p->rng;
	unsigned reg = i->modrm & 0x38, high = (i->rex & 1) << 3, low, mod, n = 0;
	uint32_t good = p->pointers >> high & 0xff;
	int32_t disp;

	if (chance(r, 10)) { /* relative to RIP */
		disp = (int32_t)(prog_address(p) % PROG_HIGH) - (int32_t)(p->at + before + 5 + after);
		out[n++] = reg | 5;
		memcpy(out + n, &disp, 4);
		return n + 4;
	}
	if (!good || chance(r, 10)) {
		if (chance(r, 30) && !(i->rex & 2)) { /* absolute */
			disp = (int32_t)(prog_address(p) & 0xfffff);
			out[n++] = reg | 4;
			out[n++] = 0x25;
			memcpy(out + n, &disp, 4);
			return n + 4;
		}
		low = high ? 1 + below(r, 7) : (unsigned)"\3\5\6\7"[below(r, 4)];
		mov_imm(p, low | high, prog_address(p));
		p->pointers |= 1u << (low | high);
	} else {
		do
			low = below(r, 8);
		while (!(good >> low & 1));
	}
	mod = below(r, 100);
	mod = mod < 15 && low != 5 ? 0 : mod < 65 ? 1 : 2;
	disp = mod == 1 ? (int8_t)rnd(r) : chance(r, 97) ? (int32_t)below(r, 0x1000) - 0x800 : (int32_t)rnd(r);
	if (chance(r, 50))
		disp &= ~15;
	if (low == 4 || chance(r, 12)) {
		unsigned index = 4;

		if (i->rex & 2 || chance(r, 40)) {
			do
				index = below(r, 8);
			while ((index | (i->rex & 2) << 2) == R_SP || (index | (i->rex & 2) << 2) == (low | high));
			mov_imm(p, index | (i->rex & 2) << 2, below(r, 100));
			p->pointers &= ~(1u << (index | (i->rex & 2) << 2));
		}
		out[n++] = mod << 6 | reg | 4;
		out[n++] = below(r, 4) << 6 | index << 3 | low;
	} else {
		out[n++] = mod << 6 | reg | low;
	}
	memcpy(out + n, &disp, 4);
	return n + (mod == 1 ? 1 : mod == 2 ? 4 : 0);
}

/* String instructions: somewhere, and not for ever. */
static void string_operands(struct prog *p, const struct insn *i)
{
	if (chance(&p->rng, 90))
		mov_imm(p, R_DI, prog_address(p));
	if (chance(&p->rng, 90))
		mov_imm(p, R_SI, prog_address(p));
	if (i->prefixes & (PFX_F2 | PFX_F3))
		mov_imm(p, R_CX, chance(&p->rng, 90) ? below(&p->rng, 70) : below(&p->rng, 6000));
}

void prog_insn(struct prog *p)
{
	uint8_t mem[6];
	struct insn i;
	unsigned head, n;

	while (!draw(p, &i))
		;
	if (trans_is_string(&i))
		string_operands(p, &i);
	if (i.is_mem && i.has_modrm) {
		head = i.raw_opcode_at + 1u;
		n = operand(p, &i, mem, head, i.has_imm);
		prog_bytes(p, i.bytes, head);
		prog_bytes(p, mem, n);
		prog_bytes(p, i.bytes + i.len - i.has_imm, i.has_imm);
	} else {
		prog_bytes(p, i.bytes, i.len);
	}
	if (i.has_imm && p->npatchable < 64 && chance(&p->rng, 10))
		p->patchable[p->npatchable++] = p->at - i.has_imm;
	p->pointers &= ~may_write(&i);
}

/* ---- Flags ---------------------------------------------------------------- */

static void reg_reg(struct prog *p, unsigned op)
{
	struct rng *r = &p->rng;
	unsigned a = below(r, 16), b = below(r, 16);

	if (b == R_SP)
		b = R_AX;
	if (op & 1 && chance(r, 15))
		prog_byte(p, 0x66);
	prog_byte(p, 0x40 | below(r, 2) << 3 | a >> 3 << 2 | b >> 3);
	if (op >= 0x100)
		prog_byte(p, 0x0f);
	prog_byte(p, op);
	prog_byte(p, 0xc0 | (a & 7) << 3 | (b & 7));
	p->pointers &= ~(1u << a | 1u << b);
}

static void makes_flags(struct prog *p)
{
	struct rng *r = &p->rng;
	unsigned b = below(r, 16);

	if (b == R_SP)
		b = R_DX;
	p->pointers &= ~(1u << b);
	switch (below(r, 6)) {
	case 0: reg_reg(p, below(r, 8) << 3 | 1); return;
	case 1: /* INC, DEC, NEG, NOT */
		prog_byte(p, 0x48 | b >> 3);
		if (chance(r, 50)) {
			prog_byte(p, 0xff);
			prog_byte(p, 0xc0 | below(r, 2) << 3 | (b & 7));
		} else {
			prog_byte(p, 0xf7);
			prog_byte(p, 0xd0 | below(r, 2) << 3 | (b & 7));
		}
		return;
	case 2: /* shifts and rotates by CL or a number, 0 among them */
		prog_byte(p, 0x40 | below(r, 2) << 3 | b >> 3);
		if (chance(r, 60)) {
			prog_byte(p, 0xc1);
			prog_byte(p, 0xc0 | below(r, 8) << 3 | (b & 7));
			prog_byte(p, chance(r, 30) ? 0 : below(r, 256));
		} else {
			prog_byte(p, 0xd3);
			prog_byte(p, 0xc0 | below(r, 8) << 3 | (b & 7));
		}
		return;
	case 3: prog_byte(p, "\xf5\xf8\xf9\x9e"[below(r, 4)]); return; /* CMC, CLC, STC, SAHF */
	case 4: /* ALU $imm8, r64 */
		prog_byte(p, 0x48 | b >> 3);
		prog_byte(p, 0x83);
		prog_byte(p, 0xc0 | below(r, 8) << 3 | (b & 7));
		if (p->npatchable < 64)
			p->patchable[p->npatchable++] = p->at;
		prog_byte(p, (unsigned)rnd(r));
		return;
	default: reg_reg(p, chance(r, 50) ? 0x85 : 0x39); return; /* TEST, CMP */
	}
}

static void reads_flags(struct prog *p)
{
	struct rng *r = &p->rng;
	unsigned b = below(r, 16);

	if (b == R_SP)
		b = R_CX;
	p->pointers &= ~(1u << b);
	switch (below(r, 5)) {
	case 0: /* SETcc */
		prog_byte(p, 0x40 | b >> 3);
		prog_byte(p, 0x0f);
		prog_byte(p, 0x90 | below(r, 16));
		prog_byte(p, 0xc0 | (b & 7));
		return;
	case 1: /* CMOVcc */
		reg_reg(p, 0x140 | below(r, 16));
		return;
	case 2: reg_reg(p, chance(r, 50) ? 0x11 : 0x19); return; /* ADC, SBB */
	case 3: prog_byte(p, 0x9f); return; /* LAHF */
	default: /* PUSHF, POP */
		prog_byte(p, 0x9c);
		if (b >= 8)
			prog_byte(p, 0x41);
		prog_byte(p, 0x58 | (b & 7));
		return;
	}
}

/* MOV, LEA, PUSH and POP leave flags as they are. */
static void keeps_flags(struct prog *p)
{
	struct rng *r = &p->rng;
	unsigned b = below(r, 8);

	switch (below(r, 4)) {
	case 0: prog_byte(p, 0x50 | b); return;
	case 1:
		prog_byte(p, 0x58 | (b == R_SP ? R_AX : b));
		p->pointers &= ~(1u << b);
		return;
	case 2: reg_reg(p, 0x89); return;
	default: /* MOV to or from absolute memory */
		prog_byte(p, 0x48 | below(r, 2) << 2);
		prog_byte(p, chance(r, 50) ? 0x89 : 0x8b);
		prog_byte(p, b << 3 | 4);
		prog_byte(p, 0x25);
		prog_le(p, prog_address(p) & 0xfffff, 4);
		p->pointers &= ~(0x101u << b);
		return;
	}
}

void prog_flags(struct prog *p)
{
	makes_flags(p);
	for (unsigned n = below(&p->rng, 3); n; n--)
		keeps_flags(p);
	reads_flags(p);
}
