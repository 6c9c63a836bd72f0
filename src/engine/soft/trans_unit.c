/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is translated at a time: a block and those that usually follow it in the
 * same page, as one run of instructions with ways out on the side. And what is
 * known of the run as a whole: which flags live where, and which memory
 * operands lie so near to each other that one look into the TLB does for all.
 */
#include "engine/soft/int.h"
#include "engine/soft/trans.h"

/* ---- Blocks in a row ------------------------------------------------------- */

static void add_block(struct trans *t, struct block *b)
{
	unsigned off = b->gpa & PAGE_MASK;

	t->block[t->blocks++] = b;
	for (unsigned k = 0; k < b->count; k++) {
		struct trans_item *it = &t->item[t->items++];

		memset(it, 0, sizeof(*it));
		it->insn = &b->insn[k];
		it->off = (uint16_t)off;
		trans_form(it->insn, &it->f);
		off += it->insn->len;
	}
}

static bool has_block(const struct trans *t, const struct block *b)
{
	for (unsigned k = 0; k < t->blocks; k++)
		if (t->block[k] == b)
			return true;
	return false;
}

/* The decoded block at this offset in the page, or NULL. */
static struct block *at(const struct trans *t, int64_t off)
{
	if (off < 0 || off >= (int64_t)PAGE_BYTES)
		return NULL;
	return block_find(t->e, (t->b->gpa & ~PAGE_MASK) + (uint64_t)off, BLOCK_ONE_PAGE, t->b->key);
}

static unsigned hot(const struct block *b)
{
	uint32_t code = __atomic_load_n(&b->trans, __ATOMIC_RELAXED);

	return code > TRANS_NEVER ? UINT16_MAX : b->heat;
}

/* Interrupts must be looked at when they are on: between blocks that is. */
static bool lets_interrupts_in(const struct block *b)
{
	for (unsigned k = 0; k < b->count; k++)
		if (b->insn[k].map == MAP_1B && b->insn[k].opcode == 0xfb)
			return true;
	return false;
}

/* What the run goes on with after its last instruction, or NULL. */
static struct block *follower(const struct trans *t, enum trans_go *go)
{
	const struct trans_item *last = &t->item[t->items - 1];
	int64_t next = last->off + last->insn->len;
	struct block *on = at(t, next), *taken;

	*go = GO_NEXT;
	switch (last->f.kind) {
	case K_JCC:
		taken = at(t, next + (int64_t)last->insn->imm);
		if (taken && has_block(t, taken))
			return NULL;
		if (taken && (!on || hot(taken) > hot(on))) {
			*go = GO_TAKEN;
			on = taken;
		}
		break;
	case K_JMP: case K_CALL:
		*go = GO_TAKEN;
		on = at(t, next + (int64_t)last->insn->imm);
		break;
	case K_RET: case K_JMP_IND: case K_CALL_IND:
		return NULL;
	default:
		if (insn_ends_block(last->insn) && !trans_is_string(last->insn))
			return NULL;
	}
	return on && hot(on) >= t->te->threshold / 2 ? on : NULL;
}

static void run_build(struct trans *t)
{
	struct block *b = t->b;
	enum trans_go go;

	t->items = t->blocks = 0;
	add_block(t, b);
	while (t->blocks < TRANS_UNIT_BLOCKS && b->gpa2 == BLOCK_ONE_PAGE && !lets_interrupts_in(b)) {
		b = follower(t, &go);
		if (!b || has_block(t, b) || t->items + b->count > TRANS_UNIT)
			break;
		t->item[t->items - 1].go = go;
		add_block(t, b);
	}
	for (unsigned n = 0, k = 0, end = 0; n < t->blocks; n++)
		for (end += t->block[n]->count; k < end; k++)
			t->item[k].rest = (uint8_t)(t->items - end);
}

/* ---- Flags ----------------------------------------------------------------- */

/*
 * Whatever may fault counts as a reader of all flags, and so does what follows
 * it: a store into the unit ends it, and other code goes on with the flags.
 */
static void exact_faults(struct trans *t)
{
	for (unsigned k = 0; k < t->items; k++) {
		struct trans_item *it = &t->item[k];

		if (!(it->f.kind != K_RM ? it->f.kind >= K_VEC : it->insn->is_mem))
			continue;
		it->f.reads = FLAGS_ARITH;
		if (k + 1 < t->items)
			it[1].f.reads = FLAGS_ARITH;
	}
}

/* Arithmetic flags that are needed before each instruction; whatever follows the run may need all. */
static void liveness(struct trans *t)
{
	uint16_t live = FLAGS_ARITH;

	for (unsigned k = t->items; k--;) {
		struct trans_item *it = &t->item[k];

		it->live_out = live;
		if (it->f.kind == K_JCC)
			live = FLAGS_ARITH;
		live = (uint16_t)((live & ~it->f.kills) | it->f.reads);
		it->live_in = live;
	}
}

/* ---- Memory operands ------------------------------------------------------- */

/* What an address is relative to: a register, or one of these. */
enum { BASE_PAGE = 16, BASE_FS, BASE_GS, BASE_COUNT, BASE_OTHER = BASE_COUNT };

struct near {
	uint8_t group[BASE_COUNT]; /* number of the group whose origin is known by this base; 0: none */
	int32_t delta[BASE_COUNT]; /* base - origin */
	struct { int32_t lo, hi; uint8_t members; } span[TRANS_GROUPS + 1];
	unsigned groups;
};
#define NEAR_BYTES 512
#define FAR (1 << 20)

static unsigned base_of(const struct trans_item *it, int32_t *disp)
{
	const struct insn *i = it->insn;

	*disp = i->disp;
	if (i->index != REG_ZERO || i->addrsize != trans_width(i) || i->disp > FAR || i->disp < -FAR)
		return BASE_OTHER;
	if (i->base == REG_RIP) {
		*disp += it->off + i->len;
		return i->seg == SEG_NONE ? BASE_PAGE : BASE_OTHER;
	}
	if (i->mode == MODE_32)
		return i->base == REG_ZERO || i->seg == SEG_FS || i->seg == SEG_GS ? BASE_OTHER : i->base;
	if (i->base == REG_ZERO)
		return i->seg == SEG_FS ? BASE_FS : i->seg == SEG_GS ? BASE_GS : BASE_OTHER;
	return i->seg == SEG_NONE ? i->base : BASE_OTHER;
}

static void use(struct trans *t, struct near *n, struct trans_item *it, unsigned base, int32_t disp, unsigned size, bool write)
{
	unsigned g = base < BASE_COUNT ? n->group[base] : 0;
	int32_t pos, lo, hi;

	if (base >= BASE_COUNT)
		return;
	pos = g ? disp + n->delta[base] : disp;
	lo = g && n->span[g].lo < pos ? n->span[g].lo : pos;
	hi = g && n->span[g].hi > pos + (int32_t)size ? n->span[g].hi : pos + (int32_t)size;
	if (!g || hi - lo > NEAR_BYTES) {
		n->group[base] = 0;
		if (n->groups == TRANS_GROUPS)
			return;
		g = ++n->groups;
		n->group[base] = (uint8_t)g;
		n->delta[base] = 0;
		n->span[g].members = 0;
		t->group[g].write = false;
		it->leads = true;
		pos = lo = disp;
		hi = disp + (int32_t)size;
	}
	n->span[g].lo = lo;
	n->span[g].hi = hi;
	n->span[g].members += n->span[g].members < UINT8_MAX;
	t->group[g].write |= write;
	it->group = (uint8_t)g;
	it->at = pos;
}

static void shift(struct near *n, unsigned base, int64_t by)
{
	int64_t d = n->delta[base] + by;

	n->delta[base] = (int32_t)d;
	if (d > FAR || d < -FAR)
		n->group[base] = 0;
}

static void alias(struct near *n, unsigned dst, unsigned src, int64_t by)
{
	n->group[dst] = n->group[src];
	n->delta[dst] = n->delta[src];
	shift(n, dst, by);
}

static unsigned bit(const struct insn *i, unsigned n, unsigned size)
{
	return 1u << (trans_high_byte(i, n, size) ? n - 4 : n);
}

/* General registers that the instruction may change. */
static unsigned writes(const struct insn *i, const struct trans_form *f)
{
	unsigned mask = 0;

	switch (f->kind) {
	case K_RM:
		if (f->reg & ROLE_W)
			mask |= bit(i, i->reg, f->reg_size);
		if (f->rm & ROLE_W && !i->is_mem)
			mask |= bit(i, i->rm, f->size);
		if (i->map == MAP_1B ? i->opcode == 0xf6 || i->opcode == 0xf7 : i->opcode == 0xb0 || i->opcode == 0xb1)
			mask |= 1u << R_AX | 1u << R_DX;
		return mask;
	case K_BMI: return 1u << i->reg | 1u << i->vvvv;
	case K_PLAIN: case K_DIV: return 1u << R_AX | 1u << R_DX;
	case K_MOV_IMM: case K_BSWAP: case K_INC_REG: return bit(i, i->rm, f->size);
	case K_MOFFS: return i->opcode & 2 ? 0 : 1u << R_AX;
	case K_XCHG_A: return 1u << R_AX | 1u << i->rm;
	case K_LEA: return 1u << i->reg;
	case K_VEC: return trans_vec_writes(i);
	case K_POP_REG: return 1u << i->rm;
	default: return 0;
	}
}

/* A 64-bit register becomes another one, or itself, plus a constant. */
static bool moves(const struct insn *i, const struct trans_form *f, unsigned *dst, unsigned *src, int64_t *by)
{
	unsigned op = i->modrm >> 3 & 7, width = trans_width(i);

	*by = 0;
	if (f->kind == K_LEA && i->opsize == width && i->index == REG_ZERO && i->base < 16 && i->addrsize == width) {
		*dst = i->reg;
		*src = i->base;
		*by = i->disp;
		return true;
	}
	if (f->kind != K_RM || i->is_mem || i->map != MAP_1B || i->opsize != width)
		return false;
	switch (i->opcode) {
	case 0x89: *dst = i->rm; *src = i->reg; return true;
	case 0x8b: *dst = i->reg; *src = i->rm; return true;
	case 0x81: case 0x83:
		*dst = *src = i->rm;
		*by = op ? -(int64_t)i->imm : (int64_t)i->imm;
		return op == 0 || op == 5;
	default: return false;
	}
}

static void follow(struct trans *t, struct near *n, struct trans_item *it)
{
	const struct insn *i = it->insn;
	unsigned base, dst, src, mask, width = trans_width(i);
	int32_t disp;
	int64_t by;

	switch (it->f.kind) {
	case K_HANDLER: case K_SYS: case K_CALL_IND: /* anything may have changed */
		memset(n->group, 0, sizeof(n->group));
		return;
	case K_PUSH_REG: case K_PUSH_IMM: case K_CALL:
		use(t, n, it, R_SP, -(int32_t)width, width, true);
		shift(n, R_SP, -(int64_t)width);
		return;
	case K_POP_REG: case K_RET:
		use(t, n, it, R_SP, 0, width, false);
		shift(n, R_SP, width);
		break;
	case K_LEAVE:
		use(t, n, it, R_BP, 0, width, false);
		alias(n, R_SP, R_BP, width);
		n->group[R_BP] = 0;
		return;
	case K_RM: case K_VEC: case K_DIV: case K_BMI: case K_JMP_IND:
		if (!i->is_mem)
			break;
		base = base_of(it, &disp);
		use(t, n, it, base, disp, it->f.kind == K_JMP_IND ? width : it->f.size, it->f.rm & ROLE_W);
		break;
	}
	if (moves(i, &it->f, &dst, &src, &by)) {
		alias(n, dst, src, by);
		return;
	}
	mask = writes(i, &it->f);
	for (unsigned k = 0; k < 16; k++)
		if (mask >> k & 1)
			n->group[k] = 0;
}

static void groups_find(struct trans *t)
{
	struct near n = {0};

	for (unsigned k = 0; k < t->items; k++)
		follow(t, &n, &t->item[k]);
	for (unsigned k = 0; k < t->items; k++) {
		struct trans_item *it = &t->item[k];

		if (it->group && n.span[it->group].members < 2)
			it->group = 0;
		if (!it->group) {
			it->leads = false;
			continue;
		}
		it->at -= n.span[it->group].lo;
		t->group[it->group].size = (uint16_t)(n.span[it->group].hi - n.span[it->group].lo);
	}
}

void trans_unit(struct trans *t)
{
	run_build(t);
	if (t->te->exact)
		exact_faults(t);
	liveness(t);
	if (t->b->trans_apart < TRANS_APART)
		groups_find(t);
}
