/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the integer handlers share.
 *
 * A handler is made for one operand size and one operand form, so that nothing
 * is left to decide at run time; macros generate the families and the binders
 * pick from tables. Arithmetic is done by the host's own instruction, flags
 * included: also the undefined ones come out as the host leaves them.
 */
#pragma once
#include "engine/soft/access.h"

/* insn.aux, this binder's own bits: the address is base + index + disp and no more (64 bits wide, segment base 0). */
#define INT_PLAIN 1
/* The same, plus the base of FS or GS. */
#define INT_SEG64 2

#define HANDLER(name) static void name(struct soft_vcpu *v, const struct insn *i)

/* ---- Binding (int_bind.c) ------------------------------------------------ */

/*
 * A binder of one opcode group gives i->fn and adds to i->aux. False: the
 * instruction belongs to another part or doesn't exist.
 */
typedef bool int_binder(struct insn *i);
int_binder int_bind_alu, int_bind_test, int_bind_group1, int_bind_group3, int_bind_incdec, int_bind_adx;
int_binder int_bind_shift, int_bind_shiftd, int_bind_shiftx;
int_binder int_bind_imul, int_bind_mulx, int_bind_bcd;
int_binder int_bind_mov, int_bind_movx, int_bind_lea, int_bind_movbe, int_bind_movnti, int_bind_xlat;
int_binder int_bind_cond, int_bind_convert, int_bind_flags, int_bind_bswap;
int_binder int_bind_stack, int_bind_branch;
int_binder int_bind_string, int_bind_xchg, int_bind_cmpxchg, int_bind_xadd, int_bind_group9;
int_binder int_bind_bt, int_bind_scan, int_bind_popcnt, int_bind_bmi, int_bind_crc32;
int_binder int_bind_hint, int_bind_fence, int_bind_bound, int_bind_ud;

bool int_bind_muldiv(struct insn *i, unsigned op); /* group 3, /4../7 */
insn_fn int_ud; /* raises #UD */

/* What the host's CPU has, and how it differs from others where the SDM and the APM do. */
struct int_host {
	bool amd;
	bool bmi1, bmi2, lzcnt, popcnt, adx, crc32;
};
const struct int_host *int_host(void);

/* 1 with byte operations (opcode bit 0 clear), else the operand size. */
static inline unsigned insn_width(const struct insn *i)
{
	return i->opcode & 1 ? i->opsize : 1;
}
/* 0..3 for sizes 1, 2, 4, 8: the index into tables of handlers. */
static inline unsigned size_log2(unsigned size)
{
	return (unsigned)__builtin_ctz(size);
}

/* ---- Sizes --------------------------------------------------------------- */

typedef uint8_t mem1;
typedef uint16_t __attribute__((may_alias, aligned(1))) mem2;
typedef uint32_t __attribute__((may_alias, aligned(1))) mem4;
typedef uint64_t __attribute__((may_alias, aligned(1))) mem8;

/*
 * A register as the host's instruction takes it: a byte by itself, everything
 * else as the whole 64 bits, of which a 16-bit operation keeps the upper part
 * and a 32-bit one clears it.
 */
typedef uint8_t val1;
typedef uint64_t val2, val4, val8;
#define REG1(n) (*reg8(v, (n), i->prefixes & PFX_REX))
#define REG2(n) (v->gpr[n])
#define REG4(n) (v->gpr[n])
#define REG8(n) (v->gpr[n])
/* Give a register such a value back. The whole register is stored, so that a wider read after it does not stall. */
#define PUT1(n, d) put_reg8(v, i, (n), (d))
#define PUT2(n, d) ((void)(v->gpr[n] = (d)))
#define PUT4(n, d) ((void)(v->gpr[n] = (d)))
#define PUT8(n, d) ((void)(v->gpr[n] = (d)))
/* Write the low bits of a plain value as an instruction of this size does. */
#define WRITE1(n, x) put_reg8(v, i, (n), (uint8_t)(x))
#define WRITE2(n, x) ((void)(v->gpr[n] = (v->gpr[n] & ~0xffffull) | (uint16_t)(x)))
#define WRITE4(n, x) ((void)(v->gpr[n] = (uint32_t)(x)))
#define WRITE8(n, x) ((void)(v->gpr[n] = (x)))
soft_inline void put_reg8(struct soft_vcpu *v, const struct insn *i, unsigned n, uint8_t value)
{
	bool high = !(i->prefixes & PFX_REX) && n >= 4 && n < 8;
	unsigned shift = high ? 8 : 0;
	uint64_t *r = &v->gpr[high ? n - 4 : n];

	*r = (*r & ~(0xffull << shift)) | (uint64_t)value << shift;
}
/* Assembler suffix and operand modifier. */
#define SFX1 "b"
#define SFX2 "w"
#define SFX4 "l"
#define SFX8 "q"
#define MOD1 "%b"
#define MOD2 "%w"
#define MOD4 "%k"
#define MOD8 "%q"

#define FOR_SIZES(X, ...) X(1, ##__VA_ARGS__) X(2, ##__VA_ARGS__) X(4, ##__VA_ARGS__) X(8, ##__VA_ARGS__)
#define FOR_WIDE_SIZES(X, ...) X(2, ##__VA_ARGS__) X(4, ##__VA_ARGS__) X(8, ##__VA_ARGS__)
#define TABLE4(f) {f##1, f##2, f##4, f##8}
#define TABLE3(f) {f##2, f##4, f##8}

/* ---- Flags --------------------------------------------------------------- */

/*
 * After the operation: AX becomes the arithmetic flags in EFLAGS positions, and
 * nothing else (LAHF's bit 1 is always set, as in EFLAGS). The new RFLAGS is
 * always stored whole: a narrower store would stall every wider load after it.
 */
#define FLAGS_OUT "\n\tlahf\n\tseto %%al\n\tshlb $3, %%al\n\trolw $8, %%ax"
/* Before it: the guest's arithmetic flags into the host's, through AX; or only its carry. [f] is v->rflags. */
#define FLAGS_IN "movl %[f], %%eax\n\trolw $8, %%ax\n\tandb $8, %%al\n\taddb $0x78, %%al\n\tsahf\n\t"
#define CARRY_IN "btl $0, %[f]\n\t"
#define NO_FLAGS_IN ""

soft_inline void flags_put(struct soft_vcpu *v, uint16_t flags)
{
	v->rflags = ((uint32_t)v->rflags & ~0x8ffu) | flags;
}

/* One of the sixteen conditions (SDM vol. 2 appendix B.1.4), a constant: 0 or 1. */
soft_inline unsigned condition(const struct soft_vcpu *v, unsigned cc)
{
	uint32_t f = (uint32_t)v->rflags, r;

	switch (cc >> 1) {
	case 0: r = f >> 11; break;
	case 1: r = f; break;
	case 2: r = f >> 6; break;
	case 3: r = f | f >> 6; break;
	case 4: r = f >> 7; break;
	case 5: r = f >> 2; break;
	case 6: r = f >> 7 ^ f >> 11; break;
	default: r = (f >> 7 ^ f >> 11) | f >> 6; break;
	}
	return (r ^ cc) & 1;
}

#define FOR_CONDITIONS(X, ...) \
	X(0, ##__VA_ARGS__) X(1, ##__VA_ARGS__) X(2, ##__VA_ARGS__) X(3, ##__VA_ARGS__) \
	X(4, ##__VA_ARGS__) X(5, ##__VA_ARGS__) X(6, ##__VA_ARGS__) X(7, ##__VA_ARGS__) \
	X(8, ##__VA_ARGS__) X(9, ##__VA_ARGS__) X(10, ##__VA_ARGS__) X(11, ##__VA_ARGS__) \
	X(12, ##__VA_ARGS__) X(13, ##__VA_ARGS__) X(14, ##__VA_ARGS__) X(15, ##__VA_ARGS__)
#define TABLE16(f) {f##0, f##1, f##2, f##3, f##4, f##5, f##6, f##7, f##8, f##9, f##10, f##11, f##12, f##13, f##14, f##15}

/* ---- Memory -------------------------------------------------------------- */

/*
 * Two ways to the memory operand. The fast one is for 64-bit addresses that hit
 * the TLB: it makes no call, so that the handler stays a leaf without a frame.
 * When it says no, the handler ends in a tail call of its general form, which
 * works everywhere through the functions of int_mem.c.
 */
soft_inline bool fast_linear(const struct soft_vcpu *v, const struct insn *i, uint64_t *linear)
{
	uint64_t a = v->gpr[i->base] + (v->gpr[i->index] << i->scale) + (int64_t)i->disp;

	if (unlikely(!(i->aux & INT_PLAIN))) {
		if (!(i->aux & INT_SEG64))
			return false;
		a += v->seg[i->seg].base;
	}
	*linear = a;
	return true;
}

soft_inline bool fast_load(struct soft_vcpu *v, const struct insn *i, unsigned size, const void **p)
{
	const struct tlb_entry *t;
	uint64_t linear;

	if (!fast_linear(v, i, &linear))
		return false;
	t = tlb_at(v, linear);
	if (unlikely(t->rtag != ((linear + size - 1) & ~0xfffull)))
		return false;
	*p = (const void *)(linear + t->addend);
	return true;
}

/* For a store, or with `read` for a read-modify-write. fast_written() comes after it, last of all. */
soft_inline bool fast_store_at(struct soft_vcpu *v, uint64_t linear, unsigned size, bool read, void **p, uint64_t *gpa)
{
	const struct tlb_entry *t = tlb_at(v, linear);
	uint64_t tag = (linear + size - 1) & ~0xfffull;

	if (unlikely(t->wtag != tag) || (read && unlikely(t->rtag != tag)))
		return false;
	*p = (void *)(linear + t->addend);
	*gpa = (t->gpa & ~0xfffull) | (linear & 0xfff);
	return true;
}

soft_inline bool fast_store(struct soft_vcpu *v, const struct insn *i, unsigned size, bool read, void **p, uint64_t *gpa)
{
	uint64_t linear;

	return fast_linear(v, i, &linear) && fast_store_at(v, linear, size, read, p, gpa);
}

soft_inline void fast_written(struct soft_vcpu *v, uint64_t gpa, unsigned size)
{
	mmu_written(v, gpa, size);
}

/* The general way. Values are zero-extended. */
uint64_t load_operand(struct soft_vcpu *v, const struct insn *i, unsigned size);
void store_operand(struct soft_vcpu *v, const struct insn *i, uint64_t value, unsigned size);

/*
 * Read-modify-write in general: work on m.p with one host instruction between
 * the two calls. Where there is no host memory to point to it is a copy, which
 * rmw_close() stores; `lock` makes that pair atomic too. Registers and flags
 * are written after rmw_close(), which may still fault.
 */
struct rmw {
	void *p;
	uint64_t linear, gpa;
	uint64_t copy[2] __attribute__((aligned(16)));
};
void rmw_open(struct soft_vcpu *v, const struct insn *i, struct rmw *m, unsigned size, bool lock);
void rmw_open_at(struct soft_vcpu *v, const struct insn *i, struct rmw *m, uint64_t linear, unsigned size, bool lock);
void rmw_close(struct soft_vcpu *v, const struct insn *i, struct rmw *m, unsigned size, bool lock);

/*
 * A read-modify-write handler in both forms. `work` uses `p` (a pointer of the
 * right size) and leaves what is due after the store to `finish`; both are
 * statements and may share variables that `declare` declares.
 */
#define RMW_HANDLER(name, size, declare, work, finish) \
	static __attribute__((noinline)) void name##_general(struct soft_vcpu *v, const struct insn *i) \
	{ \
		struct rmw m; \
		mem##size *p; \
		declare; \
		rmw_open(v, i, &m, size, false); \
		p = m.p; \
		work; \
		rmw_close(v, i, &m, size, false); \
		finish; \
	} \
	HANDLER(name) \
	{ \
		void *host; \
		uint64_t gpa; \
		mem##size *p; \
		declare; \
		if (!fast_store(v, i, size, true, &host, &gpa)) { \
			name##_general(v, i); \
			return; \
		} \
		p = host; \
		work; \
		finish; \
		fast_written(v, gpa, size); \
	}
/* The general form alone: LOCKed and rare ones. */
#define RMW_HANDLER_GENERAL(name, size, lock, declare, work, finish) \
	HANDLER(name) \
	{ \
		struct rmw m; \
		mem##size *p; \
		declare; \
		rmw_open(v, i, &m, size, lock); \
		p = m.p; \
		work; \
		rmw_close(v, i, &m, size, lock); \
		finish; \
	}

/* A handler that stores `value`. */
#define STORE_HANDLER(name, size, value) \
	static __attribute__((noinline)) void name##_general(struct soft_vcpu *v, const struct insn *i) \
	{ \
		store_operand(v, i, value, size); \
	} \
	HANDLER(name) \
	{ \
		void *host; \
		uint64_t gpa; \
		if (!fast_store(v, i, size, false, &host, &gpa)) { \
			name##_general(v, i); \
			return; \
		} \
		*(volatile mem##size *)host = (mem##size)(value); \
		fast_written(v, gpa, size); \
	}

/* A handler that reads memory: `work` uses `s`, the value. */
#define LOAD_HANDLER(name, size, work) \
	static __attribute__((noinline)) void name##_general(struct soft_vcpu *v, const struct insn *i) \
	{ \
		val##size s = (val##size)load_operand(v, i, size); \
		work; \
	} \
	HANDLER(name) \
	{ \
		const void *host; \
		val##size s; \
		if (!fast_load(v, i, size, &host)) { \
			name##_general(v, i); \
			return; \
		} \
		s = *(const mem##size *)host; \
		work; \
	}
#define LOAD_HANDLER_GENERAL(name, size, work) \
	HANDLER(name) \
	{ \
		val##size s = (val##size)load_operand(v, i, size); \
		work; \
	}

/* ---- Branches ------------------------------------------------------------ */

uint64_t branch_target_narrow(struct soft_vcpu *v, const struct insn *i, uint64_t target);

/* The address that a near branch to `target` goes to: checked (#GP), truncated to the operand size. */
soft_inline uint64_t branch_target64(struct soft_vcpu *v, uint64_t target)
{
	if (unlikely((uint64_t)((int64_t)(target << 16) >> 16) != target))
		soft_raise(v, EXC_GP, 0);
	return target;
}

soft_inline uint64_t branch_target(struct soft_vcpu *v, const struct insn *i, uint64_t target)
{
	return likely(i->opsize == 8) ? branch_target64(v, target) : branch_target_narrow(v, i, target);
}
