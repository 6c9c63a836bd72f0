/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One instruction of the guest as host code: itself with its registers renamed, around it what memory and flags need. */
#include "engine/soft/int.h"
#include "engine/soft/trans_emit.h"

/* ---- Flags ---------------------------------------------------------------- */

/* v->xl.flags is AX after SETO AL, LAHF. */
void trans_flags_save(struct trans *t)
{
	op_v(t, 0x89 | OP_W, H_AX, TMEM(xl.rax));
	op_rr(t, 0x90 | OP_0F, 0, H_AX); /* seto al */
	e8(t, 0x9f);
	op_v(t, 0x89 | OP_66, H_AX, TMEM(xl.flags));
	op_v(t, 0x8b | OP_W, H_AX, TMEM(xl.rax));
	t->in_mem = true;
}

void trans_flags_load(struct trans *t)
{
	op_v(t, 0x89 | OP_W, H_AX, TMEM(xl.rax));
	op_v(t, 0xb7 | OP_0F, H_AX, TMEM(xl.flags));
	e8(t, 0x04); /* add al, 127: OF */
	e8(t, 0x7f);
	e8(t, 0x9e);
	op_v(t, 0x8b | OP_W, H_AX, TMEM(xl.rax));
	t->in_host = true;
}

/* The host's flags are about to be lost: keep what is needed from here on. Clobbers T2. */
void trans_flags_keep(struct trans *t, uint16_t live)
{
	if (live && !t->in_mem) {
		op_rr(t, 0x8b | OP_W, T2, H_AX);
		op_rr(t, 0x90 | OP_0F, 0, H_AX); /* seto al */
		e8(t, 0x9f);
		op_v(t, 0x89 | OP_66, H_AX, TMEM(xl.flags));
		op_rr(t, 0x8b | OP_W, H_AX, T2);
		t->in_mem = true;
		t->in_t2 = 0;
	}
	t->in_host = false;
}

/* Before an instruction that reads flags, or leaves some of them as they are. */
static void flags_ready(struct trans *t, const struct trans_form *f)
{
	uint16_t through = f->sets ? t->live_out & (uint16_t)~f->kills : 0;

	if ((f->reads | through) && !t->in_host)
		trans_flags_load(t);
}

static void flags_done(struct trans *t, const struct trans_form *f)
{
	if (f->sets) {
		t->in_host = true;
		t->in_mem = false;
	}
}

/* ---- Memory --------------------------------------------------------------- */

struct trans_stub *trans_stub_add(struct trans *t, unsigned kind, uint8_t *from)
{
	struct trans_stub *s = &t->stub[t->stubs++];

	*s = (struct trans_stub){
		.from = from, .insn = t->insn, .kind = (uint8_t)kind, .view = (uint8_t)t->view, .off = (uint16_t)t->off,
		.rest = t->now->rest,
	};
	return s;
}

void trans_canonical(struct trans *t)
{
	op_rr(t, 0x8b | OP_W, T2, T1);
	op_rr(t, 0xc1 | OP_W, 4, T2);
	e8(t, 16);
	op_rr(t, 0xc1 | OP_W, 7, T2);
	e8(t, 16);
	op_rr(t, 0x3b | OP_W, T2, T1);
	trans_stub_add(t, STUB_HANDLER, op_jump(t, 5));
}

/* A narrow write keeps the rest of the register. */
static unsigned operand_in(struct trans *t, unsigned n, unsigned role, unsigned size, unsigned temp)
{
	unsigned h = trans_high_byte(t->insn, n, size) ? n : host_reg(n);

	if (h != H_NONE)
		return h;
	if (temp == T1)
		t->in_t1 = 0;
	else
		t->in_t2 = 0;
	if (role & ROLE_R || size < 4)
		op_v(t, 0x8b | OP_W, temp, gpr_disp(n));
	return temp;
}

/* The register itself, or `temp` with its value. */
static unsigned reg_in(struct trans *t, unsigned n, unsigned temp)
{
	return operand_in(t, n, ROLE_R, 8, temp);
}

/* The memory operand's address plus `more` (0, or an operand near its base). Clobbers T1 and T2. */
static void address(struct trans *t, unsigned op, unsigned dst, int32_t more)
{
	const struct insn *i = t->insn;
	unsigned base, index = H_NONE;
	int32_t disp = i->disp + more, next;

	t->in_t1 = t->in_t2 = 0;
	if (i->base == REG_RIP) {
		op_v(t, 0x8b | OP_W, T1, TMEM(xl.page));
		if (!__builtin_add_overflow(disp, (int32_t)(t->off + i->len), &next)) {
			op_mem(t, op, dst, T1, H_NONE, 0, next);
			return;
		}
		op_mem(t, 0x8d | OP_W, T1, T1, H_NONE, 0, disp);
		op_mem(t, op, dst, T1, H_NONE, 0, (int32_t)(t->off + i->len));
		return;
	}
	if (i->index != REG_ZERO)
		index = reg_in(t, i->index, T2);
	if (i->base != REG_ZERO) {
		base = reg_in(t, i->base, T1);
		op_mem(t, op, dst, base, index, i->scale, disp);
		return;
	}
	/* No base: [index * scale + disp32] */
	op_head(t, op, dst, index == H_NONE ? 0 : index, 0);
	e8(t, (dst & 7) << 3 | 4);
	e8(t, i->scale << 6 | (index == H_NONE ? 4 : index & 7) << 3 | 5);
	e32(t, (uint32_t)disp);
}

static void linear(struct trans *t, int32_t more)
{
	const struct insn *i = t->insn;

	address(t, 0x8d | (i->addrsize == 8 ? OP_W : 0), T1, more);
	if (i->seg != SEG_NONE && !t->narrow)
		op_v(t, 0x03 | OP_W, T1, TMEM(seg) + (int32_t)(i->seg * sizeof(struct cpu_segment) +
							       offsetof(struct cpu_segment, base)));
}

void trans_linear(struct trans *t)
{
	linear(t, 0);
}

static int32_t tlb_disp(const struct trans *t, size_t field)
{
	return TMEM(tlb) + (int32_t)(t->view * TLB_SIZE * sizeof(struct tlb_entry) + field);
}

static void tlb_op(struct trans *t, unsigned op, unsigned reg, size_t field)
{
	op_mem(t, op, reg, H_SP, T2, 0, tlb_disp(t, field));
}

void trans_lookup(struct trans *t, unsigned size, bool write)
{
	size_t tag = write ? offsetof(struct tlb_entry, wtag) : offsetof(struct tlb_entry, rtag);
	struct trans_stub *s;
	uint8_t *retry;

	_Static_assert(sizeof(struct tlb_entry) == 32, "entries are found by a shift");
	trans_flags_keep(t, t->live_in);
	t->in_t1 = t->in_t2 = 0;
	if (int_host()->bmi2) {
		static const uint8_t rorx[] = {0xc4, 0x43, 0x7b, 0xf0, 0xda}; /* r11d, r10d; the rest is masked out */

		for (unsigned k = 0; k < sizeof(rorx); k++)
			e8(t, rorx[k]);
	} else {
		op_rr(t, 0x8b, T2, T1);
		op_rr(t, 0xc1, 5, T2); /* shr */
	}
	e8(t, 12 - 5);
	op_rr(t, 0x81, 4, T2);
	e32(t, (TLB_SIZE - 1) << 5);
	retry = t->w;
	/* The offset in the page remains if the tag is the page's. */
	tlb_op(t, 0x33 | OP_W, T1, tag);
	op_rr(t, 0x81 | OP_W, 7, T1);
	e32(t, 4096 - size);
	s = trans_stub_add(t, STUB_MISS, op_jump(t, 7)); /* ja */
	s->retry = retry;
	s->write = write;
	tlb_op(t, 0x33 | OP_W, T1, tag);
	tlb_op(t, 0x03 | OP_W, T1, offsetof(struct tlb_entry, addend));
}

static int32_t span_disp(unsigned group, size_t field)
{
	return TMEM(xl.span) + (int32_t)(group * sizeof(((struct soft_vcpu *)0)->xl.span[0]) + field);
}
#define SPAN(g, field) span_disp(g, offsetof(__typeof__(((struct soft_vcpu *)0)->xl.span[0]), field))

/* T2 is a TLB entry's offset: make it the address of its page's flags. */
static void page_flags_address(struct trans *t)
{
	tlb_op(t, 0x8b | OP_W, T2, offsetof(struct tlb_entry, gpa));
	op_rr(t, 0xc1 | OP_W, 5, T2);
	e8(t, 12);
	op_v(t, 0x03 | OP_W, T2, TMEM(page_flags));
}

/* The first operand of a group: all of the span must be in one page, else the handler does this instruction and the unit is left. */
static int32_t span_look(struct trans *t, const struct trans_item *it, unsigned base, int32_t disp)
{
	unsigned first = t->stubs;

	trans_flags_keep(t, t->live_in);
	if (base == H_NONE)
		linear(t, -it->at);
	else
		op_mem(t, 0x8d | OP_A(t), T1, base, H_NONE, 0, disp - it->at);
	trans_lookup(t, t->group[it->group].size, t->group[it->group].write);
	t->stub[first].apart = true;
	t->stub[first].rest = (uint8_t)(&t->item[t->items - 1] - it);
	op_v(t, 0x89 | OP_W, T1, SPAN(it->group, host));
	if (t->group[it->group].write) {
		page_flags_address(t);
		op_v(t, 0x89 | OP_W, T2, SPAN(it->group, flags));
		t->in_t2 = it->group;
	}
	t->in_t1 = it->group;
	return it->at;
}

/*
 * FS and GS in 32-bit code, where threads have their data: T1 is an offset. In
 * line if the segment can be written and has no end, and the operand does not wrap.
 */
static void narrow_segment(struct trans *t, unsigned size)
{
	const struct insn *i = t->insn;
	int32_t at = TMEM(seg) + (int32_t)(i->seg * sizeof(struct cpu_segment));

	if (!t->narrow || (i->seg != SEG_FS && i->seg != SEG_GS))
		return;
	op_rr(t, 0x83, 7, T1);
	e8(t, -size & 0xff);
	trans_stub_add(t, STUB_HANDLER, op_jump(t, 7)); /* ja */
	op_v(t, 0x83, 7, at + (int32_t)offsetof(struct cpu_segment, limit));
	e8(t, 0xff);
	trans_stub_add(t, STUB_HANDLER, op_jump(t, 5));
	op_v(t, 0x8b, T2, at + (int32_t)offsetof(struct cpu_segment, attr));
	op_rr(t, 0x81, 4, T2);
	e32(t, SEG_ATTR_UNUSABLE | SEG_ATTR_S | 0xe);
	op_rr(t, 0x83, 7, T2);
	e8(t, SEG_ATTR_S | 2);
	trans_stub_add(t, STUB_HANDLER, op_jump(t, 5));
	op_v(t, 0x03, T1, at + (int32_t)offsetof(struct cpu_segment, base));
}

int32_t trans_access(struct trans *t, unsigned base, int32_t disp, unsigned size, bool write)
{
	const struct trans_item *it = t->now;

	if (it->group) {
		if (it->leads)
			return span_look(t, it, base, disp);
		if (t->in_t1 != it->group)
			op_v(t, 0x8b | OP_W, T1, SPAN(it->group, host));
		t->in_t1 = it->group;
		return it->at;
	}
	trans_flags_keep(t, t->live_in);
	if (base == H_NONE) {
		trans_linear(t);
		narrow_segment(t, size);
	} else {
		op_mem(t, 0x8d | OP_A(t), T1, base, H_NONE, 0, disp);
	}
	trans_lookup(t, size, write);
	return 0;
}

int32_t trans_operand(struct trans *t, unsigned size, bool write, unsigned align)
{
	int32_t disp = trans_access(t, H_NONE, 0, size, write);

	if (align > 1) {
		trans_flags_keep(t, t->live_in);
		if (disp & (int32_t)(align - 1)) {
			op_mem(t, 0x8d | OP_W, T1, T1, H_NONE, 0, disp);
			t->in_t1 = 0;
			disp = 0;
		}
		op_rr(t, 0xf6, 0, T1); /* test r10b, align - 1 */
		e8(t, align - 1);
		trans_stub_add(t, STUB_HANDLER, op_jump(t, 5));
	}
	return disp;
}

/* Alone, T2 is still the TLB entry's offset. */
void trans_written_check(struct trans *t, int32_t disp)
{
	unsigned group = t->now->group;
	struct trans_stub *s;

	if (t->live_out && !t->in_mem)
		trans_flags_save(t);
	t->in_host = false;
	if (!group)
		page_flags_address(t);
	else if (t->in_t2 != group)
		op_v(t, 0x8b | OP_W, T2, SPAN(group, flags));
	t->in_t2 = (uint8_t)group;
	op_mem(t, 0x80, 7, T2, H_NONE, 0, 0);
	e8(t, 0);
	s = trans_stub_add(t, STUB_WRITTEN, op_jump(t, 5));
	s->back = t->w;
	s->group = (uint8_t)group;
	s->disp = disp;
}

/* ---- Instructions --------------------------------------------------------- */

static unsigned op_of(const struct insn *i)
{
	unsigned op = i->opcode;

	if (i->rex & 8)
		op |= OP_W;
	else if (i->prefixes & PFX_66)
		op |= OP_66;
	if (i->prefixes & PFX_REX)
		op |= OP_REX;
	if (i->prefixes & PFX_LOCK)
		op |= OP_LOCK;
	if (i->map == MAP_0F38) {
		op |= OP_0F | OP_38;
		if (i->opcode == 0xf6)
			op |= i->prefixes & PFX_F3 ? OP_F3 : OP_66;
	} else if (i->map == MAP_0F) {
		op |= OP_0F;
		/* TZCNT, LZCNT, POPCNT; elsewhere the prefix means nothing. */
		if (i->prefixes & PFX_F3 && (i->opcode == 0xb8 || i->opcode == 0xbc || i->opcode == 0xbd))
			op |= OP_F3;
	}
	return op;
}

static void immediate(struct trans *t)
{
	const struct insn *i = t->insn;

	for (unsigned n = 0; n < i->has_imm; n++)
		e8(t, i->bytes[i->len - i->has_imm + n]);
}

static void operand_out(struct trans *t, unsigned n, unsigned role, unsigned temp)
{
	if (role & ROLE_W && host_reg(n) == H_NONE)
		op_v(t, 0x89 | OP_W, temp, gpr_disp(n));
}

/*
 * Can a register that lives in v->gpr[] be operated on there? Not where a write
 * must clear the upper half, or memory would mean something else (a lock, bits
 * beyond the operand).
 */
static bool in_place(const struct insn *i, const struct trans_form *f)
{
	if (i->is_mem || host_reg(i->rm) != H_NONE || (f->reg && host_reg(i->reg) == H_NONE) || (f->rm & ROLE_W && f->size == 4))
		return false;
	if (i->map == MAP_0F)
		return (i->opcode & 0xf0) == 0x40 || i->opcode == 0xaf || (i->opcode & ~0x09u) == 0xb6 || i->opcode >> 4 == 9;
	return i->map == MAP_1B && (i->opcode & ~1u) != 0x86;
}

static void rm_emit(struct trans *t, const struct trans_form *f)
{
	const struct insn *i = t->insn;
	bool store = i->is_mem && f->rm & ROLE_W, hold;
	unsigned reg, rm = T1;
	int32_t disp = 0;

	if (in_place(i, f)) {
		flags_ready(t, f);
		reg = f->reg ? operand_in(t, i->reg, f->reg, f->reg_size, T2) : i->modrm >> 3 & 7;
		op_v(t, op_of(i), reg, gpr_disp(i->rm));
		immediate(t);
		flags_done(t, f);
		return;
	}
	if (i->is_mem) {
		disp = trans_operand(t, f->size, f->rm & ROLE_W, 1);
	} else {
		rm = operand_in(t, i->rm, f->rm, f->size, T1);
	}
	flags_ready(t, f);
	hold = store && f->reg && host_reg(i->reg) == H_NONE && !t->now->group;
	if (hold)
		op_v(t, 0x89 | OP_W, T2, TMEM(xl.tmp[1]));
	reg = f->reg ? operand_in(t, i->reg, f->reg, f->reg_size, T2) : i->modrm >> 3 & 7;
	if (i->is_mem)
		op_mem(t, op_of(i), reg, T1, H_NONE, 0, disp);
	else
		op_rr(t, op_of(i), reg, rm);
	immediate(t);
	flags_done(t, f);
	if (f->reg)
		operand_out(t, i->reg, f->reg, T2);
	if (!i->is_mem)
		operand_out(t, i->rm, f->rm, T1);
	if (hold)
		op_v(t, 0x8b | OP_W, T2, TMEM(xl.tmp[1]));
	if (store)
		trans_written_check(t, disp);
}

/*
 * DIV, IDIV: the host must not trap, so the handler does what may. Unsigned, the
 * upper half must be below the divisor; signed, it must be no more than the
 * lower one's sign, and the divisor neither 0 nor -1.
 */
static void div_emit(struct trans *t, const struct trans_form *f)
{
	const struct insn *i = t->insn;
	unsigned w = f->size == 8 ? OP_W : 0, s = T1;

	if (i->is_mem) {
		int32_t disp = trans_operand(t, f->size, false, 1);

		op_mem(t, 0x8b | w, T1, T1, H_NONE, 0, disp);
	} else {
		s = reg_in(t, i->rm, T1);
	}
	trans_flags_keep(t, t->live_in);
	t->in_t1 = t->in_t2 = 0;
	if ((i->modrm >> 3 & 7) == 6) {
		op_rr(t, 0x3b | w, H_DX, s);
		trans_stub_add(t, STUB_HANDLER, op_jump(t, 3)); /* jae */
	} else {
		op_rr(t, 0x8b | w, T2, H_AX);
		op_rr(t, 0xc1 | w, 7, T2);
		e8(t, f->size * 8 - 1u);
		op_rr(t, 0x3b | w, T2, H_DX);
		trans_stub_add(t, STUB_HANDLER, op_jump(t, 5));
		op_mem(t, 0x8d | w, T2, s, H_NONE, 0, 1);
		op_rr(t, 0x83 | w, 7, T2);
		e8(t, 1);
		trans_stub_add(t, STUB_HANDLER, op_jump(t, 6)); /* jbe */
	}
	flags_ready(t, f);
	op_rr(t, 0xf7 | w, i->modrm >> 3 & 7, s);
	flags_done(t, f);
}

/* The general-purpose instructions with a VEX prefix: ModRM.reg (or an opcode there), VEX.vvvv, r/m. */
static void bmi_emit(struct trans *t, const struct trans_form *f)
{
	const struct insn *i = t->insn;
	bool group = i->opcode == 0xf3, mulx = i->opcode == 0xf6 && i->pp == 3, third = i->map == MAP_0F38;
	unsigned reg = group ? i->modrm >> 3 & 7 : host_reg(i->reg), vvvv = third ? host_reg(i->vvvv) : 0, rm = T1;
	unsigned b;
	int32_t disp = 0;

	if (i->is_mem)
		disp = trans_operand(t, f->size, false, 1);
	else
		rm = reg_in(t, i->rm, T1);
	flags_ready(t, f);
	if (vvvv == H_NONE) {
		vvvv = T2;
		t->in_t2 = 0;
		if (!group && !mulx)
			op_v(t, 0x8b | OP_W, T2, gpr_disp(i->vvvv));
	}
	if (reg == H_NONE) {
		reg = T1;
		t->in_t1 = 0;
	}
	b = i->is_mem ? T1 : rm;
	e8(t, 0xc4);
	e8(t, (reg & 8 ? 0 : 0x80) | 0x40 | (b & 8 ? 0 : 0x20) | i->map);
	e8(t, (i->rex & 8) << 4 | (~vvvv & 15) << 3 | i->pp);
	e8(t, i->opcode);
	if (i->is_mem)
		modrm_disp(t, reg, T1, disp);
	else
		e8(t, 0xc0 | (reg & 7) << 3 | (rm & 7));
	immediate(t);
	flags_done(t, f);
	/* MULX: with both the same the high half, in reg, wins. */
	if (third && (group || mulx) && host_reg(i->vvvv) == H_NONE)
		op_v(t, 0x89 | OP_W, T2, gpr_disp(i->vvvv));
	if (!group && host_reg(i->reg) == H_NONE)
		op_v(t, 0x89 | OP_W, T1, gpr_disp(i->reg));
}

static void plain_emit(struct trans *t, const struct trans_form *f)
{
	flags_ready(t, f);
	op_head(t, op_of(t->insn), 0, 0, 0);
	immediate(t);
	flags_done(t, f);
}

/* The register is in the opcode. */
static void opcode_reg_emit(struct trans *t, const struct trans_form *f)
{
	const struct insn *i = t->insn;
	unsigned role = f->kind == K_BSWAP ? ROLE_R | ROLE_W : ROLE_W;
	unsigned h = operand_in(t, i->rm, role, f->size, T1);

	op_head(t, (op_of(i) & ~7u) | (h & 7), 0, 0, h);
	immediate(t);
	operand_out(t, i->rm, role, T1);
}

/* INC and DEC of 32-bit code: their bytes are REX prefixes here. */
static void inc_emit(struct trans *t, const struct trans_form *f)
{
	const struct insn *i = t->insn;

	flags_ready(t, f);
	op_rr(t, 0xff | (i->opsize == 2 ? OP_66 : 0), i->opcode >> 3 & 1, host_reg(i->rm));
	flags_done(t, f);
}

/* MOV between AL, AX or EAX and an address in the instruction, in 32-bit code. */
static void moffs_emit(struct trans *t, const struct trans_form *f)
{
	const struct insn *i = t->insn;
	bool store = i->opcode & 2;

	trans_flags_keep(t, t->live_in);
	mov_imm64(t, T1, (uint32_t)i->imm);
	narrow_segment(t, f->size);
	trans_lookup(t, f->size, store);
	op_mem(t, (f->size == 1 ? 0x88 : 0x89) | (f->size == 2 ? OP_66 : 0) | (store ? 0 : 2), H_AX, T1, H_NONE, 0, 0);
	if (store)
		trans_written_check(t, 0);
}

static void xchg_emit(struct trans *t)
{
	const struct insn *i = t->insn;
	unsigned h = reg_in(t, i->rm, T1);

	op_rr(t, (op_of(i) & ~0xffu) | 0x87, H_AX, h);
	operand_out(t, i->rm, ROLE_W, T1);
}

static void lea_emit(struct trans *t)
{
	const struct insn *i = t->insn;
	unsigned dst = host_reg(i->reg);

	address(t, 0x8d | (i->opsize == 8 ? OP_W : 0), dst == H_NONE ? T1 : dst, 0);
	operand_out(t, i->reg, ROLE_W, T1);
}

static void sp_add(struct trans *t, int32_t n)
{
	op_mem(t, 0x8d | OP_A(t), H_GUEST_SP, H_GUEST_SP, H_NONE, 0, n);
}

static void push_emit(struct trans *t, bool imm)
{
	const struct insn *i = t->insn;
	bool alone = !t->now->group;
	unsigned width = trans_width(i);
	int32_t disp = trans_access(t, H_GUEST_SP, -(int32_t)width, width, true);

	if (imm) {
		op_mem(t, 0xc7 | OP_A(t), 0, T1, H_NONE, 0, disp);
		e32(t, (uint32_t)i->imm);
	} else if (host_reg(i->rm) != H_NONE) {
		op_mem(t, 0x89 | OP_A(t), host_reg(i->rm), T1, H_NONE, 0, disp);
	} else {
		if (alone)
			op_v(t, 0x89 | OP_W, T2, TMEM(xl.tmp[1]));
		op_v(t, 0x8b | OP_W, T2, gpr_disp(i->rm));
		op_mem(t, 0x89 | OP_W, T2, T1, H_NONE, 0, disp);
		if (alone)
			op_v(t, 0x8b | OP_W, T2, TMEM(xl.tmp[1]));
		t->in_t2 = 0;
	}
	sp_add(t, -(int32_t)width);
	trans_written_check(t, disp);
}

static void pop_emit(struct trans *t)
{
	unsigned n = t->insn->rm, h = host_reg(n);
	int32_t disp = trans_access(t, H_GUEST_SP, 0, trans_width(t->insn), false);

	op_mem(t, 0x8b | OP_A(t), h == H_NONE ? T2 : h, T1, H_NONE, 0, disp);
	if (h == H_NONE)
		t->in_t2 = 0;
	operand_out(t, n, ROLE_W, T2);
	if (n != R_SP)
		sp_add(t, (int32_t)trans_width(t->insn));
}

static void leave_emit(struct trans *t)
{
	unsigned width = trans_width(t->insn);
	int32_t disp = trans_access(t, H_BP, 0, width, false);

	op_mem(t, 0x8d | OP_A(t), H_GUEST_SP, H_BP, H_NONE, 0, (int32_t)width);
	op_mem(t, 0x8b | OP_A(t), H_BP, T1, H_NONE, 0, disp);
}

/* Its flags are in memory before and after. */
void trans_handler_emit(struct trans *t)
{
	trans_flags_keep(t, t->live_in);
	mov_imm64(t, T2, (uint64_t)(uintptr_t)t->insn | (uint64_t)t->now->rest << TRANS_REST_SHIFT);
	mov_imm64(t, T1, t->off);
	jump_set(op_jump(t, 17), t->te->write + t->te->call_handler);
	t->in_mem = true;
	t->vec_checked = 0;
	t->in_t1 = t->in_t2 = 0;
}

void trans_insn_emit(struct trans *t, const struct trans_form *f)
{
	switch (f->kind) {
	case K_NOP: break;
	case K_RM: rm_emit(t, f); break;
	case K_PLAIN: plain_emit(t, f); break;
	case K_MOV_IMM: case K_BSWAP: opcode_reg_emit(t, f); break;
	case K_INC_REG: inc_emit(t, f); break;
	case K_XCHG_A: xchg_emit(t); break;
	case K_LEA: lea_emit(t); break;
	case K_VEC: trans_vec_emit(t, f); break;
	case K_DIV: div_emit(t, f); break;
	case K_MOFFS: moffs_emit(t, f); break;
	case K_BMI: bmi_emit(t, f); break;
	case K_SYS:
		t->in_t1 = t->in_t2 = 0;
		trans_sys_emit(t);
		t->in_t1 = t->in_t2 = 0;
		break;
	case K_PUSH_REG: push_emit(t, false); break;
	case K_PUSH_IMM: push_emit(t, true); break;
	case K_POP_REG: pop_emit(t); break;
	case K_LEAVE: leave_emit(t); break;
	default: trans_handler_emit(t); break;
	}
}
