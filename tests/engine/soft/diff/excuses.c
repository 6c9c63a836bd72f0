/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where one CPU may differ from another and both are right: the order of
 * faults, what a partial access has done before one, AMD's ways and Intel's.
 * Each rule names an instruction or a class of them and both outcomes, as
 * narrowly as it can.
 */
#include "diff.h"

/* FXSAVE, FXRSTOR, XSAVE, XRSTOR, XSAVEOPT, XSAVEC */
bool diff_is_area(const struct insn *i)
{
	unsigned reg = i->modrm >> 3 & 7;

	return i->map == MAP_0F && i->is_mem && !(i->prefixes & PFX_VEX) &&
	       ((i->opcode == 0xae && (reg < 2 || (reg >= 4 && reg < 7))) ||
		(i->opcode == 0xc7 && reg >= 3 && reg <= 5));
}

static bool is_1b(const struct insn *i, unsigned opcode)
{
	return i->map == MAP_1B && i->opcode == opcode;
}

/* FLDENV, FNSTENV, FRSTOR, FNSAVE */
static bool is_environment(const struct insn *i)
{
	unsigned reg = i->modrm >> 3 & 7;

	return i->map == MAP_1B && i->is_mem &&
	       ((i->opcode == 0xd9 && (reg == 4 || reg == 6)) || (i->opcode == 0xdd && (reg == 4 || reg == 6)));
}

/* VMASKMOVPS, VMASKMOVPD, VPMASKMOV */
static bool is_masked_move(const struct insn *i)
{
	return i->map == MAP_0F38 && i->prefixes & PFX_VEX &&
	       ((i->opcode >= 0x2c && i->opcode <= 0x2f) || i->opcode == 0x8c || i->opcode == 0x8e);
}

static bool is_gather(const struct insn *i)
{
	return i->map == MAP_0F38 && i->prefixes & PFX_VEX && i->opcode >= 0x90 && i->opcode <= 0x93;
}

static bool canonical(uint64_t a)
{
	return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

static bool canonical_offset(const struct diff_case *c)
{
	const struct insn *i = &c->insn[0];
	uint64_t off;

	if (i->is_mem && i->map == MAP_0F && (i->opcode & 0xe7) == 0xa3) /* bit strings */
		off = diff_operand(c) - diff_segment_base(c, i->seg) +
		      (i->opsize == 8	? (int64_t)c->in.gpr[i->reg]
		       : i->opsize == 4 ? (int32_t)c->in.gpr[i->reg]
					: (int16_t)c->in.gpr[i->reg]) /
			      8;
	else if (i->is_mem)
		off = diff_operand(c) - diff_segment_base(c, i->seg);
	else if (i->map == MAP_1B && i->opcode >= 0xa0 && i->opcode <= 0xa3)
		off = i->imm;
	else if (is_1b(i, 0xd7))
		off = c->in.gpr[R_BX] + (uint8_t)c->in.gpr[R_AX];
	else
		off = c->in.gpr[R_SI];
	return canonical(off) && canonical(off + 31);
}

/* The operand, if it is as long as FNSAVE's, goes on behind the last offset of 32 bits. */
static bool wraps_round(const struct diff_case *c)
{
	return c->insn[0].is_mem && (uint32_t)(diff_operand(c) - diff_segment_base(c, c->insn[0].seg)) > UINT32_MAX - 107;
}

static bool memory_fault(const struct diff_result *r)
{
	return r->vector == EXC_GP || r->vector == EXC_SS || r->vector == EXC_PF;
}

static bool fetch_fault(const struct diff_result *r)
{
	return r->vector == EXC_UD || r->vector == EXC_GP || (r->vector == EXC_PF && r->error & 16);
}

static bool same_but_mxcsr(const struct diff_result *a, const struct diff_result *b)
{
	struct diff_state s = a->out;

	s.mxcsr = b->out.mxcsr;
	return !memcmp(&s, &b->out, sizeof(s));
}

/* Bytes that are no instruction, or may be none: what is found first. */
static bool excused_fetch(const struct diff_case *c, const struct diff_result *host, const struct diff_result *soft)
{
	if (!fetch_fault(host) || !fetch_fault(soft))
		return false;
	return c->room < 15 || (!c->valid && (host->vector == EXC_UD || c->insn[0].raw_opcode_at >= 12));
}

/* What AMD does otherwise than the SDM says. */
static bool excused_amd(const struct diff_case *c, const struct diff_result *host, const struct diff_result *soft)
{
	const struct insn *i = &c->insn[0];

	if (!diff_host_amd)
		return false;
	/* MXCSR.MM, which the guest is not offered. */
	if (host->out.mxcsr & 0x20000 && soft->vector == EXC_GP)
		return true;
	/* The offset in FS and GS must be canonical itself. */
	if (host->vector == EXC_GP && c->mode == MODE_64 && (i->seg == SEG_FS || i->seg == SEG_GS) &&
	    !canonical_offset(c))
		return true;
	/* MOVSXD of 16 bits reads 32. */
	return is_1b(i, 0x63) && c->mode == MODE_64 && i->opsize == 2 && memory_fault(host);
}

/*
 * Unmasked SIMD exceptions. Which of the operations of DPPS and DPPD have left
 * their flags is not defined. An unmasked overflow or underflow whose rebiased
 * result is exact does not set PE; the engine, which lets the host compute with
 * everything masked, can't know.
 */
static bool excused_simd(const struct insn *i, const struct diff_result *host, const struct diff_result *soft)
{
	uint32_t flags = host->out.mxcsr, unmasked = ~(flags >> 7);

	if (host->vector != EXC_XM || soft->vector != EXC_XM)
		return false;
	if (i->map == MAP_0F3A && (i->opcode == 0x40 || i->opcode == 0x41))
		return true;
	return (flags ^ soft->out.mxcsr) == 0x20 && flags & unmasked & 0x18 && same_but_mxcsr(host, soft);
}

/*
 * Instructions that access memory in parts: which part faults first, by what
 * rule, and what the parts before it have done.
 */
static bool excused_parts(const struct diff_case *c, const struct diff_result *host, const struct diff_result *soft)
{
	const struct insn *i = &c->insn[0];
	bool masked = is_masked_move(i), environment = is_environment(i), gather = is_gather(i);
	bool parts = masked || environment || gather || (i->is_mem && (is_1b(i, 0xdb) || is_1b(i, 0xdf)));
	bool same = memory_fault(host) && host->vector == soft->vector;

	/* FXSAVE, XSAVE and their kin: alignment, limits, pages, and which components are looked at. */
	if (diff_is_area(i))
		return memory_fault(host) && (memory_fault(soft) || host->vector == EXC_PF);
	/* MASKMOVQ, MASKMOVDQU: bytes that are not selected may fault or not. */
	if (i->map == MAP_0F && i->opcode == 0xf7)
		return memory_fault(host);
	/* PUSHA, POPA: registers, or stack, of the parts before the fault. */
	if (is_1b(i, 0x60) || is_1b(i, 0x61))
		return same;
	/* A gather's mask: the SDM normalises what is left of it, AMD leaves it alone. */
	if (gather && same && host->cr2 == soft->cr2)
		return true;
	/* The fault's address within the page. */
	if ((environment || masked) && same && host->vector == EXC_PF && host->cr2 >> 12 == soft->cr2 >> 12)
		return true;
	/* Just below the hole of non-canonical addresses: the first part faults by its page, or all by where it ends.
	 */
	if (parts && (host->cr2 | soft->cr2) - 0x7fffffffff80 < 0x80 &&
	    (host->vector == EXC_PF || soft->vector == EXC_PF))
		return true;
	/* Over the limit of its segment, part by part or as a whole; the parts wrap round at 64 KiB or 4 GiB. */
	if (parts && c->mode != MODE_64 && (soft->vector == EXC_GP || soft->vector == EXC_SS))
		return memory_fault(host) || (host->vector < 0 && (i->addrsize == 2 || wraps_round(c)));
	return masked && c->mode != MODE_64 && (host->vector == EXC_GP || host->vector == EXC_SS) &&
	       (soft->vector < 0 || memory_fault(soft));
}

/*
 * XRSTOR of an area whose XSTATE_BV names a component that the host's XCR0 has
 * and the guest's has not (AVX-512): #GP for the guest alone (SDM vol. 1
 * §13.8.1). Such an area comes from a patch of the case's memory.
 */
static bool excused_components(const struct diff_case *c, const struct diff_result *host, const struct diff_result *soft)
{
	const struct insn *i = &c->insn[0];

	if (i->map != MAP_0F || i->opcode != 0xae || (i->modrm >> 3 & 7) != 5 || !i->is_mem || host->vector >= 0 ||
	    soft->vector != EXC_GP)
		return false;
	for (unsigned n = 0; n < c->npatches; n++)
		if (c->patch[n].addr == diff_operand(c) + 512 && c->patch[n].data[0] & ~7)
			return true;
	return false;
}

/* Two faults at once. */
static bool excused_order(const struct diff_case *c, const struct diff_result *host, const struct diff_result *soft)
{
	const struct insn *i = &c->insn[0];

	/* ARPL reads before it looks whether the segment may be written, and may have nothing to write. */
	if (is_1b(i, 0x63) && c->mode != MODE_64)
		return soft->vector == EXC_GP;
	/* BOUND: two accesses. */
	if (is_1b(i, 0x62))
		return (memory_fault(host) || host->vector == EXC_AC) && (memory_fault(soft) || soft->vector == EXC_AC);
	/* CALL: the target's check or the push. */
	if (is_1b(i, 0xe8) || (is_1b(i, 0xff) && (i->modrm >> 3 & 7) == 2))
		return (memory_fault(host) || host->vector == EXC_AC) && soft->vector == EXC_GP;
	/* Group 1A but /0 shares its opcode with XOP. */
	if (is_1b(i, 0x8f) && i->modrm & 0x38)
		return host->vector == EXC_GP && soft->vector == EXC_UD;
	/* A vector over the limit of the stack segment and not aligned. */
	return i->stack && i->map != MAP_1B && host->vector + soft->vector == EXC_GP + EXC_SS;
}

/* PUSH of a segment: Intel writes 16 bits and leaves what is above in memory, AMD writes zeros. */
bool diff_memory_excused(const struct diff_case *c)
{
	const struct insn *i = &c->insn[0];

	return !diff_host_amd && c->count == 1 && c->valid && i->opsize > 2 &&
	       (is_1b(i, 0x06) || is_1b(i, 0x0e) || is_1b(i, 0x16) || is_1b(i, 0x1e) ||
		(i->map == MAP_0F && (i->opcode == 0xa0 || i->opcode == 0xa8)));
}

bool diff_fault_excused(const struct diff_case *c, const struct diff_result *host, const struct diff_result *soft)
{
	if (excused_fetch(c, host, soft))
		return true;
	/* Linux's vsyscall page: a jump there ends in the kernel's emulation. */
	if (host->out.rip >> 12 == 0xffffffffff600 && soft->out.rip >> 12 == 0xffffffffff600)
		return true;
	return c->valid && (excused_amd(c, host, soft) || excused_simd(&c->insn[0], host, soft) ||
			    excused_parts(c, host, soft) || excused_components(c, host, soft) ||
			    excused_order(c, host, soft));
}
