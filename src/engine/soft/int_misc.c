/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What does next to nothing: NOP, hints, PAUSE, prefetches, fences, cache line flushes; BOUND; #UD on purpose. */
#include <sched.h>

#include "engine/soft/int.h"

void int_ud(struct soft_vcpu *v, const struct insn *i)
{
	(void)i;
	soft_raise(v, EXC_UD, 0);
}

/* 0f 0b, b9, ff */
bool int_bind_ud(struct insn *i)
{
	i->fn = int_ud;
	i->aux |= INSN_ENDS_BLOCK;
	return true;
}

HANDLER(nop) { }

/*
 * A guest that waits for another vCPU pauses. With fewer host CPUs than vCPUs
 * the other may not be running at all, so a long wait gives the CPU away.
 */
HANDLER(pause_hint)
{
	static _Thread_local unsigned pauses;

	if (++pauses % 64 == 0)
		sched_yield();
	else
		__builtin_ia32_pause();
}

/* 90 (also as f3 90, PAUSE), 0f 0d, 0f 18..1f (with ENDBR, RDSSP and the like among them) */
bool int_bind_hint(struct insn *i)
{
	if (i->map == MAP_0F && i->opcode == 0x0d && !i->is_mem && int_host()->amd)
		return false; /* APM vol. 3, PREFETCHW: a register operand is invalid; reserved NOPs on Intel */
	i->fn = i->map == MAP_1B && i->prefixes & PFX_F3 ? pause_hint : nop;
	return true;
}

HANDLER(lfence) { __builtin_ia32_lfence(); }
HANDLER(mfence) { __builtin_ia32_mfence(); }
HANDLER(sfence) { __builtin_ia32_sfence(); }

/*
 * Guest memory is coherent; what is left is the fault of a byte read, but that
 * execute-only segments are allowed (SDM vol. 2, CLFLUSH).
 */
HANDLER(cache_line)
{
	bool code = i->seg != SEG_NONE && v->mode != MODE_64 && v->seg[i->seg].attr & 8;

	mmu_probe_read(v, insn_linear(v, i, 1, code ? ACC_FETCH : ACC_READ), 1, i->stack);
}

/* 0f ae: LFENCE, MFENCE, SFENCE, CLFLUSH, CLFLUSHOPT, CLWB; the rest is others' */
bool int_bind_fence(struct insn *i)
{
	unsigned op = i->modrm >> 3 & 7;
	bool p66 = i->prefixes & PFX_66;

	if (i->prefixes & (PFX_F2 | PFX_F3 | PFX_VEX))
		return false;
	if (i->is_mem) {
		if (op != 7 && !(op == 6 && p66))
			return false;
		i->fn = cache_line;
		return true;
	}
	if (p66 || op < 5)
		return false;
	i->fn = op == 5 ? lfence : op == 6 ? mfence : sfence;
	return true;
}

/* Two reads: the second one's offset wraps at the address size. */
#define BOUND(size, type) \
	HANDLER(bound##size) \
	{ \
		uint64_t off = insn_offset(v, i); \
		uint64_t next = i->addrsize == 4 ? (uint32_t)(off + size) : (uint16_t)(off + size); \
		type low = (type)ld(v, seg_linear(v, i->seg, off, size, ACC_READ), size, i->stack); \
		type high = (type)ld(v, seg_linear(v, i->seg, next, size, ACC_READ), size, i->stack); \
		type index = (type)v->gpr[i->reg]; \
		if (index < low || index > high) \
			soft_raise(v, EXC_BR, 0); \
	}
BOUND(2, int16_t)
BOUND(4, int32_t)

/* 62 outside 64-bit mode */
bool int_bind_bound(struct insn *i)
{
	i->fn = i->opsize == 4 ? bound4 : bound2;
	return true;
}
