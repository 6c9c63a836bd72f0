/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * System instructions in line, and the way from block to block without the
 * dispatcher for those that change privilege, mode or mappings on the way. What
 * is not plain (another privilege level, a feature that is off) the interpreter
 * does: it knows the faults.
 */
#include "engine/soft/trans_emit.h"

/* ---- From block to block --------------------------------------------------- */

uintptr_t trans_next(struct soft_vcpu *v)
{
	struct trans_vcpu *xl = &v->xl;
	const struct trans_jump *j;
	struct block *b;
	uint64_t rip;
	uint32_t code;

	if (unlikely(atomic_load_explicit(&v->request, memory_order_relaxed) | v->shadow) ||
	    (v->mode != MODE_64 && !trans_flat(v)) || v->tlb_view == TLB_SLOW)
		return CALL_LEAVE;
	rip = v->mode == MODE_64 ? v->next_rip : (uint32_t)v->next_rip;
	trans_context(v);
	j = trans_jump_at(v, rip);
	if (likely(j->linear == rip && (j->ctx == xl->ctx || j->ctx == xl->global_ctx))) {
		code = j->code;
	} else {
		b = jump_find(v, rip);
		if (!b) {
			/* No code of the block that ended is needed any more: a fetch may fault, the cache may be emptied. */
			trans_flags_out(v);
			v->rip = rip;
			b = block_get(v, rip, v->mode);
		}
		if (!b || !trans_ready(v, b))
			return CALL_LEAVE;
		trans_remember(v, rip, b, jump_is_global(v, rip));
		code = __atomic_load_n(&b->trans, __ATOMIC_ACQUIRE);
		if (unlikely(code <= TRANS_NEVER))
			return CALL_LEAVE;
	}
	xl->page = rip & ~PAGE_MASK;
	return xl->code + code;
}

/* ---- Which instructions ---------------------------------------------------- */

enum sys_op {
	SYS_NONE, SYS_NOTHING, SYS_FENCE, SYS_PUSH_MEM, SYS_PUSHF, SYS_CLI, SYS_STI, SYS_STAC, SYS_CLAC, SYS_SWAPGS, SYS_RDTSC,
	SYS_RDTSCP, SYS_RDPID, SYS_FROM_CR, SYS_FROM_SREG, SYS_READ_BASE, SYS_WRITE_BASE,
};

static enum sys_op group_01(const struct insn *i)
{
	switch (i->is_mem ? 0 : i->modrm) {
	case 0xca: return SYS_CLAC;
	case 0xcb: return SYS_STAC;
	case 0xf8: return SYS_SWAPGS;
	case 0xf9: return SYS_RDTSCP;
	default: return SYS_NONE;
	}
}

static enum sys_op group_ae(const struct insn *i)
{
	unsigned op = i->modrm >> 3 & 7;

	if (i->is_mem)
		return SYS_NONE;
	if (op >= 5 && !(i->prefixes & (PFX_66 | PFX_F2 | PFX_F3)))
		return SYS_FENCE;
	if (op >= 4 || !(i->prefixes & PFX_F3) || i->opsize == 2)
		return SYS_NONE;
	return op < 2 ? SYS_READ_BASE : SYS_WRITE_BASE;
}

static enum sys_op sys_op_of(const struct insn *i)
{
	if (i->mode != MODE_64 || i->fn == sys_undefined || i->prefixes & (PFX_VEX | PFX_LOCK))
		return SYS_NONE;
	if (i->map == MAP_1B) {
		switch (i->opcode) {
		case 0x8c: return !i->is_mem && i->opsize >= 4 ? SYS_FROM_SREG : SYS_NONE;
		case 0x9c: return i->opsize == 2 ? SYS_NONE : SYS_PUSHF;
		case 0xfa: return SYS_CLI;
		case 0xfb: return insn_ends_block(i) ? SYS_NONE : SYS_STI; /* at the end of its block it may need its shadow */
		case 0xff:
			return i->is_mem && (i->modrm >> 3 & 7) == 6 && opsize_default64(i) == 8 && i->addrsize == 8 ? SYS_PUSH_MEM :
														     SYS_NONE;
		}
	} else if (i->map == MAP_0F) {
		switch (i->opcode) {
		case 0x01: return group_01(i);
		case 0x0d: return i->is_mem ? SYS_NOTHING : SYS_NONE; /* PREFETCH, PREFETCHW */
		case 0x20: return i->reg == 0 || (i->reg >= 2 && i->reg <= 4) ? SYS_FROM_CR : SYS_NONE;
		case 0x31: return SYS_RDTSC;
		case 0xae: return group_ae(i);
		case 0xc7:
			return !i->is_mem && (i->modrm >> 3 & 7) == 7 && i->prefixes & PFX_F3 ? SYS_RDPID : SYS_NONE;
		}
	}
	return SYS_NONE;
}

bool trans_sys_form(const struct insn *i, struct trans_form *f)
{
	enum sys_op op = sys_op_of(i);

	if (op == SYS_NONE)
		return false;
	f->kind = K_SYS;
	f->size = 8;
	f->reads = op == SYS_PUSHF ? FLAGS_ARITH : 0;
	return true;
}

/* ---- Pieces ---------------------------------------------------------------- */

#define CPL_FIELD offsetof(struct soft_vcpu, cpl)

/* To the interpreter on condition `cc` of the host's flags. */
static void handler_if(struct trans *t, unsigned cc)
{
	trans_stub_add(t, STUB_HANDLER, op_jump(t, cc));
}

/* The host's flags are kept by now. */
static void need_cpl0(struct trans *t)
{
	op_v(t, 0x80, 7, (int32_t)CPL_FIELD);
	e8(t, 0);
	handler_if(t, 5);
}

/* Bits of a 32-bit field: AND (4), OR (1), TEST (0xf7 /0). */
static void field_bits(struct trans *t, unsigned op, int32_t field, uint32_t bits)
{
	if (op)
		op_v(t, 0x81, op, field);
	else
		op_v(t, 0xf7, 0, field);
	e32(t, bits);
}
enum { BITS_TEST = 0, BITS_OR = 1, BITS_AND = 4 };

/* A guest register is given the value of T1. */
static void reg_from_t1(struct trans *t, unsigned n, bool wide)
{
	unsigned h = host_reg(n);

	if (h != H_NONE) {
		op_rr(t, 0x8b | (wide ? OP_W : 0), h, T1);
		return;
	}
	if (!wide)
		op_rr(t, 0x8b, T1, T1);
	op_v(t, 0x89 | OP_W, T1, gpr_disp(n));
}

/* Push xl.tmp[0]. */
static void push_tmp(struct trans *t)
{
	op_mem(t, 0x8d | OP_W, T1, H_GUEST_SP, H_NONE, 0, -8);
	trans_lookup(t, 8, true);
	op_v(t, 0x89 | OP_W, T2, TMEM(xl.tmp[1]));
	op_v(t, 0x8b | OP_W, T2, TMEM(xl.tmp[0]));
	op_mem(t, 0x89 | OP_W, T2, T1, H_NONE, 0, 0);
	op_v(t, 0x8b | OP_W, T2, TMEM(xl.tmp[1]));
	op_mem(t, 0x8d | OP_W, H_GUEST_SP, H_GUEST_SP, H_NONE, 0, -8);
	trans_written_check(t, 0);
}

/* ---- Instructions ---------------------------------------------------------- */

static void pushf_emit(struct trans *t)
{
	if (!t->in_host)
		trans_flags_load(t);
	/* The interpreter wants them, too, if the store goes to it. */
	if (!t->in_mem)
		trans_flags_save(t);
	e8(t, 0x9c); /* the stack is the vCPU, and below it there is room */
	op_head(t, 0x58 | (T1 & 7), 0, 0, T1);
	t->in_host = false;
	op_rr(t, 0x81, 4, T1);
	e32(t, FLAGS_ARITH);
	op_v(t, 0x8b, T2, TMEM(rflags));
	op_rr(t, 0x81, 4, T2);
	e32(t, ~(FLAGS_ARITH | FL_RF | FL_VM));
	op_rr(t, 0x0b, T1, T2);
	op_v(t, 0x89 | OP_W, T1, TMEM(xl.tmp[0]));
	push_tmp(t);
}

static void push_mem_emit(struct trans *t)
{
	trans_linear(t);
	trans_lookup(t, 8, false);
	op_mem(t, 0x8b | OP_W, T1, T1, H_NONE, 0, 0);
	op_v(t, 0x89 | OP_W, T1, TMEM(xl.tmp[0]));
	push_tmp(t);
}

/*
 * The shadow is the instruction that follows in this block: requests are looked
 * at in the next one.
 */
static void sti_emit(struct trans *t)
{
	need_cpl0(t);
	op_v(t, 0x80, 7, (int32_t)offsetof(struct soft_vcpu, irq_held));
	e8(t, 0);
	handler_if(t, 5);
	field_bits(t, BITS_OR, TMEM(rflags), FL_IF);
}

/* With CR4.SMAP the flag is the view; what follows in the block uses the new one. */
static void smap_emit(struct trans *t, bool set)
{
	unsigned view = set ? TLB_KERNEL_AC : TLB_KERNEL;

	need_cpl0(t);
	field_bits(t, BITS_TEST, TMEM(cr4), CR4_SMAP);
	handler_if(t, 4);
	field_bits(t, set ? BITS_OR : BITS_AND, TMEM(rflags), set ? FL_AC : ~FL_AC);
	if (t->view == view)
		return;
	op_v(t, 0xc6, 0, (int32_t)offsetof(struct soft_vcpu, tlb_view));
	e8(t, view);
	op_v(t, 0x8d | OP_W, T1, TMEM(tlb) + (int32_t)(view * TLB_SIZE * sizeof(struct tlb_entry)));
	op_v(t, 0x89 | OP_W, T1, TMEM(tlb_now));
	_Static_assert((TLB_KERNEL ^ TLB_KERNEL_AC) == 3, "one changes into the other");
	op_v(t, 0x83, 6, TMEM(xl.ctx));
	e8(t, 3);
	op_v(t, 0x83, 6, TMEM(xl.global_ctx));
	e8(t, 3);
	t->view = view;
}

static void swapgs_emit(struct trans *t)
{
	int32_t base = TMEM(seg) + (int32_t)(SEG_GS * sizeof(struct cpu_segment) + offsetof(struct cpu_segment, base));

	need_cpl0(t);
	op_v(t, 0x8b | OP_W, T1, base);
	op_v(t, 0x8b | OP_W, T2, TMEM(kernel_gs_base));
	op_v(t, 0x89 | OP_W, T1, TMEM(kernel_gs_base));
	op_v(t, 0x89 | OP_W, T2, base);
}

static void rdtsc_emit(struct trans *t, bool p)
{
	if (t->view == TLB_USER) {
		field_bits(t, BITS_TEST, TMEM(cr4), CR4_TSD);
		handler_if(t, 5);
	} else {
		need_cpl0(t);
	}
	mov_imm64(t, T1, (uint64_t)(uintptr_t)&t->e->frozen);
	op_mem(t, 0x80, 7, T1, H_NONE, 0, 0);
	e8(t, 0);
	handler_if(t, 5);
	e8(t, 0x0f);
	e8(t, 0x31);
	op_rr(t, 0xc1 | OP_W, 4, H_DX);
	e8(t, 32);
	op_rr(t, 0x0b | OP_W, H_AX, H_DX);
	op_v(t, 0x03 | OP_W, H_AX, TMEM(tsc_offset));
	op_rr(t, 0x8b | OP_W, H_DX, H_AX);
	op_rr(t, 0xc1 | OP_W, 5, H_DX);
	e8(t, 32);
	op_rr(t, 0x8b, H_AX, H_AX);
	if (p)
		op_v(t, 0x8b, H_CX, TMEM(tsc_aux));
}

static void from_cr_emit(struct trans *t)
{
	static const int32_t field[5] = {TMEM(cr0), 0, TMEM(cr2), TMEM(cr3), TMEM(cr4)};

	need_cpl0(t);
	op_v(t, 0x8b | OP_W, T1, field[t->insn->reg]);
	reg_from_t1(t, t->insn->rm, true);
}

static void segment_base_emit(struct trans *t, bool write)
{
	const struct insn *i = t->insn;
	bool wide = i->opsize == 8;
	int32_t base = TMEM(seg) + (int32_t)((SEG_FS + (i->modrm >> 3 & 1)) * sizeof(struct cpu_segment) +
					     offsetof(struct cpu_segment, base));

	field_bits(t, BITS_TEST, TMEM(cr4), CR4_FSGSBASE);
	handler_if(t, 4);
	if (!write) {
		op_v(t, 0x8b | OP_W, T1, base);
		reg_from_t1(t, i->rm, wide);
		return;
	}
	if (host_reg(i->rm) == H_NONE)
		op_v(t, 0x8b | (wide ? OP_W : 0), T1, gpr_disp(i->rm));
	else
		op_rr(t, 0x8b | (wide ? OP_W : 0), T1, host_reg(i->rm));
	if (wide)
		trans_canonical(t);
	op_v(t, 0x89 | OP_W, T1, base);
}

void trans_sys_emit(struct trans *t)
{
	const struct insn *i = t->insn;
	enum sys_op op = sys_op_of(i);

	if (op != SYS_NOTHING && op != SYS_FENCE && op != SYS_PUSHF)
		trans_flags_keep(t, t->live_in);
	switch (op) {
	case SYS_NONE:
	case SYS_NOTHING: break;
	case SYS_FENCE:
		e8(t, 0x0f);
		e8(t, 0xae);
		e8(t, 0xc0 | (i->modrm & 0x38));
		break;
	case SYS_PUSH_MEM: push_mem_emit(t); break;
	case SYS_PUSHF: pushf_emit(t); break;
	case SYS_CLI:
		need_cpl0(t);
		field_bits(t, BITS_AND, TMEM(rflags), ~FL_IF);
		break;
	case SYS_STI: sti_emit(t); break;
	case SYS_STAC: smap_emit(t, true); break;
	case SYS_CLAC: smap_emit(t, false); break;
	case SYS_SWAPGS: swapgs_emit(t); break;
	case SYS_RDTSC: rdtsc_emit(t, false); break;
	case SYS_RDTSCP: rdtsc_emit(t, true); break;
	case SYS_RDPID:
		op_v(t, 0x8b, T1, TMEM(tsc_aux));
		reg_from_t1(t, i->rm, false);
		break;
	case SYS_FROM_CR: from_cr_emit(t); break;
	case SYS_FROM_SREG:
		op_v(t, 0xb7 | OP_0F, T1, TMEM(seg) + (int32_t)((i->reg & 7) * sizeof(struct cpu_segment) +
								 offsetof(struct cpu_segment, selector)));
		reg_from_t1(t, i->rm, false);
		break;
	case SYS_READ_BASE: segment_base_emit(t, false); break;
	case SYS_WRITE_BASE: segment_base_emit(t, true); break;
	}
}
