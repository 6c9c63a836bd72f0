/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Decimal adjustment and SALC. The host can't run these in 64-bit mode, so
 * they are written out (SDM vol. 2, the operation of each). Undefined flags
 * are those of the addition or subtraction inside, as CPUs leave them.
 */
#include "engine/soft/int.h"

static void set_al(struct soft_vcpu *v, uint8_t al)
{
	v->gpr[R_AX] = (v->gpr[R_AX] & ~0xffull) | al;
}

static void set_ax(struct soft_vcpu *v, uint16_t ax)
{
	v->gpr[R_AX] = (v->gpr[R_AX] & ~0xffffull) | ax;
}

#define ARITHMETIC(name, op, size) \
	static uint16_t name(val##size *d, val##size s) \
	{ \
		uint16_t flags; \
		__asm__(op SFX##size " " MOD##size "2, " MOD##size "0" FLAGS_OUT \
			: "+r"(*d), "=&a"(flags) \
			: "r"(s) \
			: "cc"); \
		return flags; \
	}
ARITHMETIC(add8, "add", 1)
ARITHMETIC(sub8, "sub", 1)
ARITHMETIC(add16, "add", 2)
ARITHMETIC(sub16, "sub", 2)

/* The adjustments say what CF and AF are, whatever the arithmetic gave. */
static void put_adjusted(struct soft_vcpu *v, uint16_t flags, bool af, bool cf)
{
	flags_put(v, (flags & ~(FL_AF | FL_CF)) | (af ? FL_AF : 0) | (cf ? FL_CF : 0));
}

HANDLER(daa)
{
	uint8_t al = v->gpr[R_AX];
	bool low = (al & 15) > 9 || v->rflags & FL_AF, high = al > 0x99 || v->rflags & FL_CF;
	uint16_t flags = add8(&al, (low ? 6 : 0) + (high ? 0x60 : 0));

	set_al(v, al);
	put_adjusted(v, flags, low, high);
}

HANDLER(das)
{
	uint8_t al = v->gpr[R_AX];
	bool low = (al & 15) > 9 || v->rflags & FL_AF, high = al > 0x99 || v->rflags & FL_CF;
	bool borrow = high || (low && al < 6);
	uint16_t flags = sub8(&al, (low ? 6 : 0) + (high ? 0x60 : 0));

	set_al(v, al);
	put_adjusted(v, flags, low, borrow);
}

HANDLER(aaa)
{
	uint64_t ax = v->gpr[R_AX];
	bool adjust = (ax & 15) > 9 || v->rflags & FL_AF;
	uint16_t flags = add16(&ax, adjust ? 0x106 : 0);

	set_ax(v, ax & 0xff0f);
	put_adjusted(v, flags, adjust, adjust);
}

HANDLER(aas)
{
	uint64_t ax = v->gpr[R_AX];
	bool adjust = (ax & 15) > 9 || v->rflags & FL_AF;
	uint16_t flags = sub16(&ax, adjust ? 0x106 : 0);

	set_ax(v, ax & 0xff0f);
	put_adjusted(v, flags, adjust, adjust);
}

HANDLER(aam)
{
	uint8_t al = v->gpr[R_AX], base = i->imm, rest;
	uint16_t flags;

	if (!base)
		soft_raise(v, EXC_DE, 0);
	rest = al % base;
	flags = add8(&rest, 0);
	set_ax(v, (uint16_t)(al / base) << 8 | rest);
	flags_put(v, flags);
}

HANDLER(aad)
{
	uint16_t ax = v->gpr[R_AX], flags;
	uint8_t al = ax;

	flags = add8(&al, (ax >> 8) * (uint8_t)i->imm);
	set_ax(v, al);
	flags_put(v, flags);
}

/* Undocumented, but in every CPU: AL is CF's value in all bits. */
HANDLER(salc)
{
	set_al(v, v->rflags & FL_CF ? 0xff : 0);
}

/* 27, 2f, 37, 3f, d4, d5, d6 */
bool int_bind_bcd(struct insn *i)
{
	switch (i->opcode) {
	case 0x27: i->fn = daa; break;
	case 0x2f: i->fn = das; break;
	case 0x37: i->fn = aaa; break;
	case 0x3f: i->fn = aas; break;
	case 0xd4: i->fn = aam; break;
	case 0xd5: i->fn = aad; break;
	default: i->fn = salc; break;
	}
	return true;
}
