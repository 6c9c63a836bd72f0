/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Moves, masked moves and gathers: they compute nothing, so they are plain C.
 * A legacy write changes the low 16 bytes of a register only; a VEX write
 * zeroes whatever is above the vector length.
 */
#include "engine/soft/vec.h"

enum unit { SSE, AVX, AVX256, MMX };

soft_inline void unit_check(struct soft_vcpu *v, enum unit u)
{
	if (u == SSE)
		vec_check_sse(v);
	else if (u == MMX)
		vec_mmx_check(v);
	else
		vec_check_avx(v);
}

/* Nothing faults from here. */
soft_inline void unit_enter(struct soft_vcpu *v, enum unit u)
{
	if (u == MMX)
		vec_mmx_enter(v);
}

soft_inline unsigned unit_size(enum unit u)
{
	return u == AVX256 ? 32 : u == MMX ? 8 : 16;
}

soft_inline uint8_t *unit_reg(struct soft_vcpu *v, enum unit u, unsigned n)
{
	return u == MMX ? vec_mm(v, n) : v->ymm[n];
}

/* As a source of a store, before unit_enter(). */
soft_inline uint8_t *unit_reg_before(struct soft_vcpu *v, enum unit u, unsigned n)
{
	return u == MMX ? vec_mm_before(v, n) : v->ymm[n];
}

/* Write a whole register of the unit. `src` may be the register itself. */
soft_inline void unit_write(struct soft_vcpu *v, enum unit u, unsigned n, const void *src)
{
	uint8_t *dst = unit_reg(v, u, n);

	memmove(dst, src, unit_size(u));
	if (u == AVX)
		memset(dst + 16, 0, 16);
	else if (u == MMX)
		vec_mm_written(dst);
}

/* ---- Whole vectors -------------------------------------------------------- */

soft_inline void op_load(struct soft_vcpu *v, const struct insn *i, enum unit u, bool mem)
{
	const void *src = NULL;

	unit_check(v, u);
	if (mem)
		src = vec_mem(v, i, unit_size(u), i->aux & AUX_ALIGNED);
	unit_enter(v, u);
	unit_write(v, u, i->reg, mem ? src : unit_reg(v, u, i->rm));
}

soft_inline void op_store(struct soft_vcpu *v, const struct insn *i, enum unit u, bool mem)
{
	unsigned size = unit_size(u);
	uint64_t linear;

	unit_check(v, u);
	if (!mem) {
		unit_enter(v, u);
		unit_write(v, u, i->rm, unit_reg(v, u, i->reg));
		return;
	}
	linear = insn_linear(v, i, size, ACC_WRITE);
	if (unlikely(i->aux & AUX_ALIGNED && linear & (size - 1)))
		soft_raise(v, EXC_GP, 0);
	vec_mem_store(v, linear, unit_reg_before(v, u, i->reg), size, i->stack);
	unit_enter(v, u);
}

/* ---- Parts of vectors ----------------------------------------------------- */

/* MOVSS, MOVSD: size 4 or 8. */
soft_inline void op_load_scalar(struct soft_vcpu *v, const struct insn *i, enum unit u, unsigned size)
{
	uint64_t value;

	unit_check(v, u);
	value = ld(v, insn_linear(v, i, size, ACC_READ), size, i->stack);
	put64(v->ymm[i->reg], value);
	memset(v->ymm[i->reg] + 8, 0, u == SSE ? 8 : 24);
}

soft_inline void op_store_scalar(struct soft_vcpu *v, const struct insn *i, enum unit u, unsigned size)
{
	unit_check(v, u);
	st(v, insn_linear(v, i, size, ACC_WRITE), get64(v->ymm[i->reg]), size, i->stack);
}

/* Register forms: the low element of `from` over the rest of vvvv (VEX) or of the destination itself. */
soft_inline void op_merge_scalar(struct soft_vcpu *v, const struct insn *i, enum unit u, unsigned size, bool store)
{
	unsigned to = store ? i->rm : i->reg, from = store ? i->reg : i->rm;
	uint8_t low[8];

	unit_check(v, u);
	memcpy(low, v->ymm[from], 8);
	if (u == AVX)
		unit_write(v, AVX, to, v->ymm[i->vvvv]);
	memcpy(v->ymm[to], low, size);
}

/* MOVLPS, MOVHPS and their pd forms; the register forms are MOVHLPS and MOVLHPS. */
soft_inline void op_load_half(struct soft_vcpu *v, const struct insn *i, enum unit u, unsigned half)
{
	uint64_t value;

	unit_check(v, u);
	value = i->is_mem ? ld(v, insn_linear(v, i, 8, ACC_READ), 8, i->stack) : get64(v->ymm[i->rm] + (half ? 0 : 8));
	if (u == AVX)
		unit_write(v, AVX, i->reg, v->ymm[i->vvvv]);
	put64(v->ymm[i->reg] + 8 * half, value);
}

soft_inline void op_store_half(struct soft_vcpu *v, const struct insn *i, enum unit u, unsigned half)
{
	unit_check(v, u);
	st(v, insn_linear(v, i, 8, ACC_WRITE), get64(v->ymm[i->reg] + 8 * half), 8, i->stack);
}

/* MOVD, MOVQ between vector and general registers or memory. */
soft_inline void op_load_g(struct soft_vcpu *v, const struct insn *i, enum unit u)
{
	unsigned size = 1u << (i->aux & AUX_SIZE);
	uint64_t value;

	unit_check(v, u);
	if (i->is_mem)
		value = size == 8 ? ld(v, insn_linear(v, i, 8, ACC_READ), 8, i->stack)
				  : ld(v, insn_linear(v, i, 4, ACC_READ), 4, i->stack);
	else
		value = reg_get(v, i->rm, size);
	unit_enter(v, u);
	put64(unit_reg(v, u, i->reg), value);
	if (u == MMX)
		vec_mm_written(vec_mm(v, i->reg));
	else
		memset(v->ymm[i->reg] + 8, 0, u == SSE ? 8 : 24);
}

soft_inline void op_store_g(struct soft_vcpu *v, const struct insn *i, enum unit u)
{
	unsigned size = 1u << (i->aux & AUX_SIZE);
	uint64_t value;

	unit_check(v, u);
	value = get64(unit_reg_before(v, u, i->reg));
	if (!i->is_mem)
		reg_set(v, i->rm, value, size);
	else if (size == 8)
		st(v, insn_linear(v, i, 8, ACC_WRITE), value, 8, i->stack);
	else
		st(v, insn_linear(v, i, 4, ACC_WRITE), value, 4, i->stack);
	unit_enter(v, u);
}

/* MOVQ of vector registers (F3 0F 7E, 66 0F D6). */
soft_inline void op_load_q(struct soft_vcpu *v, const struct insn *i, enum unit u)
{
	uint64_t value;

	unit_check(v, u);
	value = i->is_mem ? ld(v, insn_linear(v, i, 8, ACC_READ), 8, i->stack) : get64(v->ymm[i->rm]);
	put64(v->ymm[i->reg], value);
	memset(v->ymm[i->reg] + 8, 0, u == SSE ? 8 : 24);
}

soft_inline void op_store_q(struct soft_vcpu *v, const struct insn *i, enum unit u)
{
	uint64_t value;

	unit_check(v, u);
	value = get64(v->ymm[i->reg]);
	if (i->is_mem) {
		st(v, insn_linear(v, i, 8, ACC_WRITE), value, 8, i->stack);
	} else {
		put64(v->ymm[i->rm], value);
		memset(v->ymm[i->rm] + 8, 0, u == SSE ? 8 : 24);
	}
}

#define HANDLER(name, call) \
	static void name(struct soft_vcpu *v, const struct insn *i) \
	{ \
		call; \
	}
#define HANDLERS2(name, op, ...) \
	HANDLER(name##_sse, op(v, i, SSE, ##__VA_ARGS__)) \
	HANDLER(name##_avx, op(v, i, AVX, ##__VA_ARGS__))
#define HANDLERS4(name, op, ...) \
	HANDLERS2(name, op, ##__VA_ARGS__) \
	HANDLER(name##_avx256, op(v, i, AVX256, ##__VA_ARGS__)) \
	HANDLER(name##_mmx, op(v, i, MMX, ##__VA_ARGS__))
#define PICK2(name) (u == SSE ? name##_sse : name##_avx)
#define PICK4(name) (u == SSE ? name##_sse : u == AVX ? name##_avx : u == AVX256 ? name##_avx256 : name##_mmx)

HANDLERS4(load_reg, op_load, false)
HANDLERS4(load_mem, op_load, true)
HANDLERS4(store_reg, op_store, false)
HANDLERS4(store_mem, op_store, true)
HANDLERS2(load_ss, op_load_scalar, 4)
HANDLERS2(load_sd, op_load_scalar, 8)
HANDLERS2(store_ss, op_store_scalar, 4)
HANDLERS2(store_sd, op_store_scalar, 8)
HANDLERS2(merge_ss, op_merge_scalar, 4, false)
HANDLERS2(merge_sd, op_merge_scalar, 8, false)
HANDLERS2(merge_store_ss, op_merge_scalar, 4, true)
HANDLERS2(merge_store_sd, op_merge_scalar, 8, true)
HANDLERS2(load_low, op_load_half, 0)
HANDLERS2(load_high, op_load_half, 1)
HANDLERS2(store_low, op_store_half, 0)
HANDLERS2(store_high, op_store_half, 1)
HANDLERS2(load_g, op_load_g)
HANDLERS2(store_g, op_store_g)
HANDLER(load_g_mmx, op_load_g(v, i, MMX))
HANDLER(store_g_mmx, op_store_g(v, i, MMX))
HANDLERS2(load_q, op_load_q)
HANDLERS2(store_q, op_store_q)

static void m_to_x(struct soft_vcpu *v, const struct insn *i)
{
	vec_check_sse(v);
	vec_mmx_check(v);
	vec_mmx_enter(v);
	memcpy(v->ymm[i->reg], vec_mm(v, i->rm), 8);
	memset(v->ymm[i->reg] + 8, 0, 8);
}

static void x_to_m(struct soft_vcpu *v, const struct insn *i)
{
	vec_check_sse(v);
	vec_mmx_check(v);
	vec_mmx_enter(v);
	memcpy(vec_mm(v, i->reg), v->ymm[i->rm], 8);
	vec_mm_written(vec_mm(v, i->reg));
}

static void extract_128(struct soft_vcpu *v, const struct insn *i)
{
	const uint8_t *src;

	vec_check_avx(v);
	src = v->ymm[i->reg] + (i->imm & 1 ? 16 : 0);
	if (i->is_mem)
		vec_mem_store(v, insn_linear(v, i, 16, ACC_WRITE), src, 16, i->stack);
	else
		unit_write(v, AVX, i->rm, src);
}

static void emms(struct soft_vcpu *v, const struct insn *i)
{
	vec_mmx_check(v);
	vec_mmx_enter(v);
	v->fx[FX_FTW] = 0;
}

soft_inline void op_vzero(struct soft_vcpu *v, const struct insn *i, unsigned from)
{
	vec_check_avx(v);
	for (unsigned n = 0; n < 8; n++)
		memset(v->ymm[n] + from, 0, 32 - from);
	if (unlikely(i->mode != MODE_64))
		return;
	for (unsigned n = 8; n < 16; n++)
		memset(v->ymm[n] + from, 0, 32 - from);
}
HANDLER(vzeroupper, op_vzero(v, i, 16))
HANDLER(vzeroall, op_vzero(v, i, 0))

/* ---- Masked moves --------------------------------------------------------- */

/*
 * Only elements whose mask bit is set are accessed, and only they fault. The
 * access is one run from the first to the last of them: a page between two
 * would need elements larger than a page.
 */
struct run {
	unsigned first, end; /* bytes */
};

static struct run mask_run(const uint8_t *mask, unsigned element, unsigned size)
{
	struct run r = { size, 0 };

	for (unsigned n = 0; n < size; n += element) {
		if (mask[n + element - 1] & 0x80) {
			if (r.first == size)
				r.first = n;
			r.end = n + element;
		}
	}
	return r;
}

/* Linear address of byte `from` of an operand at `off` in the instruction's segment. */
static uint64_t part_linear(struct soft_vcpu *v, const struct insn *i, uint64_t off, struct run r, enum mmu_access acc)
{
	off += r.first;
	if (i->addrsize != 8)
		off = i->addrsize == 4 ? (uint32_t)off : (uint16_t)off;
	return seg_linear(v, i->seg, off, r.end - r.first, acc);
}

static unsigned masked_element(const struct insn *i)
{
	/* VMASKMOVPS 2c 2e, VMASKMOVPD 2d 2f, VPMASKMOV 8c 8e by W. */
	if (i->opcode < 0x80)
		return i->opcode & 1 ? 8 : 4;
	return i->rex & 8 ? 8 : 4;
}

static void masked_load(struct soft_vcpu *v, const struct insn *i)
{
	unsigned size = i->vl ? 32 : 16, element = masked_element(i);
	uint8_t out[32] = { 0 }, in[32];
	const uint8_t *mask;
	struct run r;

	vec_check_avx(v);
	mask = v->ymm[i->vvvv];
	r = mask_run(mask, element, size);
	if (r.first < r.end) {
		uint64_t linear = part_linear(v, i, insn_offset(v, i), r, ACC_READ),
			 last = linear + r.end - r.first - 1;
		struct tlb_entry *t = tlb_at(v, linear);

		if (likely(t->rtag == (last & ~0xfffull)))
			memcpy(in + r.first, (const void *)(linear + t->addend), r.end - r.first);
		else
			vec_read_unaligned(v, linear, in + r.first, r.end - r.first, i->stack);
	}
	for (unsigned n = r.first; n < r.end; n += element)
		if (mask[n + element - 1] & 0x80)
			memcpy(out + n, in + n, element);
	memcpy(v->ymm[i->reg], out, 32);
}

/*
 * Store the elements of `src` that `mask` selects; nothing else in memory is
 * touched, not even with what it holds. Faults are those of writing the run
 * `r` of the operand at offset `off`.
 */
static void masked_write(struct soft_vcpu *v, const struct insn *i, uint64_t off, struct run r, const uint8_t *src,
			 const uint8_t *mask, unsigned element)
{
	uint64_t linear, gpa;
	uint8_t *p;

	if (r.first >= r.end)
		return;
	linear = part_linear(v, i, off, r, ACC_WRITE);
	if (element == 1)
		vec_check_alignment(v, linear, 8);
	p = vec_mem_write(v, linear, r.end - r.first, &gpa);
	/* The ends are enough: there is at most one page boundary between them. */
	if (unlikely(!p)) {
		mmu_probe_write(v, linear, 1, i->stack);
		mmu_probe_write(v, linear + (r.end - r.first - 1), 1, i->stack);
	}
	for (unsigned n = r.first; n < r.end; n += element) {
		if (!(mask[n + element - 1] & 0x80))
			continue;
		if (likely(p)) {
			memcpy(p + (n - r.first), src + n, element);
			/* What is not selected is not written: code there lives on. */
			mmu_written(v, gpa + (n - r.first), element);
		} else {
			vec_write_unaligned(v, linear + (n - r.first), src + n, element, i->stack);
		}
	}
}

static void masked_store(struct soft_vcpu *v, const struct insn *i)
{
	unsigned element = masked_element(i);
	const uint8_t *mask = v->ymm[i->vvvv];

	vec_check_avx(v);
	masked_write(v, i, insn_offset(v, i), mask_run(mask, element, i->vl ? 32 : 16), v->ymm[i->reg], mask, element);
}

/*
 * MASKMOVDQU, MASKMOVQ: bytes, to DS:rDI. As on AMD's CPUs the whole operand
 * must be writable, whatever the mask, and a fault leaves MMX state behind.
 */
soft_inline void op_masked_bytes(struct soft_vcpu *v, const struct insn *i, enum unit u)
{
	struct run whole = { 0, unit_size(u) };
	uint64_t off;

	unit_check(v, u);
	unit_enter(v, u);
	off = v->gpr[R_DI];
	if (i->addrsize != 8)
		off = i->addrsize == 4 ? (uint32_t)off : (uint16_t)off;
	masked_write(v, i, off, whole, unit_reg(v, u, i->reg), unit_reg(v, u, i->rm), 1);
}
HANDLERS2(masked_bytes, op_masked_bytes)
HANDLER(masked_bytes_mmx, op_masked_bytes(v, i, MMX))

/* ---- Gathers -------------------------------------------------------------- */

soft_inline uint64_t gather_offset(const struct soft_vcpu *v, const struct insn *i, const uint8_t *index, unsigned n)
{
	uint64_t off = i->opcode & 1 ? get64(index + 8 * n) : (uint64_t)(int64_t)(int32_t)get32(index + 4 * n);

	off = (off << i->scale) + v->gpr[i->base] + (uint64_t)(int64_t)i->disp;
	return i->addrsize == 4 ? (uint32_t)off : off;
}

/*
 * Element by element; each one passed clears its mask element at once, so that
 * a fault leaves what the instruction needs to go on where it was (SDM vol. 2,
 * VGATHERDPS; the order is that of AMD's CPUs).
 */
static void gather(struct soft_vcpu *v, const struct insn *i)
{
	unsigned element = i->rex & 8 ? 8 : 4, size = i->vl ? 32 : 16;
	unsigned count = size / (i->opcode & 1 || element == 8 ? 8 : 4);
	uint8_t *dst = v->ymm[i->reg], *mask = v->ymm[i->vvvv];
	const uint8_t *index = v->ymm[i->index];

	vec_check_avx(v);
	for (unsigned n = 0; n < count; n++) {
		uint8_t *m = mask + n * element;

		if (m[element - 1] & 0x80) {
			uint64_t linear = seg_linear(v, i->seg, gather_offset(v, i, index, n), element, ACC_READ);

			if (unlikely(v->ac_check))
				vec_read_unaligned(v, linear, dst + n * element, element, i->stack);
			else if (element == 4)
				put32(dst + 4 * n, (uint32_t)ld(v, linear, 4, i->stack));
			else
				put64(dst + 8 * n, ld(v, linear, 8, i->stack));
		}
		memset(m, 0, element);
	}
	memset(mask, 0, 32);
	memset(dst + count * element, 0, 32 - count * element);
}

static bool gather_legal(const struct insn *i)
{
	/* VSIB needs a SIB byte; destination, index and mask must differ. */
	return i->addrsize != 2 && (i->modrm & 7) == 4 && i->reg != i->vvvv && i->reg != i->index &&
	       i->index != i->vvvv;
}

/* ---- Choice --------------------------------------------------------------- */

insn_fn *vec_mov_handler(const struct vec_row *r, const struct insn *i)
{
	bool vex = i->prefixes & PFX_VEX, single = r->mem == MEM_4;
	enum unit u = r->flags & ROW_MMX ? MMX : !vex ? SSE : i->vl ? AVX256 : AVX;

	switch ((enum vec_shape)r->shape) {
	case SHAPE_LOAD: return i->is_mem ? PICK4(load_mem) : PICK4(load_reg);
	case SHAPE_STORE: return i->is_mem ? PICK4(store_mem) : PICK4(store_reg);
	case SHAPE_LOAD_SCALAR:
		if (i->is_mem)
			return single ? PICK2(load_ss) : PICK2(load_sd);
		return single ? PICK2(merge_ss) : PICK2(merge_sd);
	case SHAPE_STORE_SCALAR:
		if (i->is_mem)
			return single ? PICK2(store_ss) : PICK2(store_sd);
		return single ? PICK2(merge_store_ss) : PICK2(merge_store_sd);
	case SHAPE_LOAD_LOW: return PICK2(load_low);
	case SHAPE_LOAD_HIGH: return PICK2(load_high);
	case SHAPE_STORE_LOW: return PICK2(store_low);
	case SHAPE_STORE_HIGH: return PICK2(store_high);
	case SHAPE_LOAD_G: return u == MMX ? load_g_mmx : PICK2(load_g);
	case SHAPE_STORE_G: return u == MMX ? store_g_mmx : PICK2(store_g);
	case SHAPE_LOAD_Q: return PICK2(load_q);
	case SHAPE_STORE_Q: return PICK2(store_q);
	case SHAPE_M_TO_X: return m_to_x;
	case SHAPE_X_TO_M: return x_to_m;
	case SHAPE_MASKED_LOAD: return masked_load;
	case SHAPE_MASKED_STORE: return masked_store;
	case SHAPE_MASKED_BYTES: return u == MMX ? masked_bytes_mmx : PICK2(masked_bytes);
	case SHAPE_GATHER: return gather_legal(i) ? gather : NULL;
	case SHAPE_EXTRACT_128: return extract_128;
	case SHAPE_EMPTY: return !vex ? emms : i->vl ? vzeroall : vzeroupper;
	default: return NULL;
	}
}
