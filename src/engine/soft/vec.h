/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The vector unit's inside. A guest instruction is bound once to
 *
 *   - a handler in C (vec_mov.c, vec_x87.c, vec_xsave.c), or
 *   - a handler of vec_op.c and a stub: the same instruction, re-encoded by
 *     vec_stub.c on fixed host registers, which it loads and stores through
 *     pointers. So a stub depends on the opcode, VEX.L/W and the immediate,
 *     not on guest registers, and all vCPUs of an engine share it.
 *
 * vec_tables.c says which instructions exist and what their operands are.
 */
#pragma once
#include "engine/soft/access.h"

#define CR0_PE 0x1u
#define CR0_MP 0x2u
#define CR0_EM 0x4u
#define CR0_TS 0x8u
#define CR4_OSFXSR 0x200u
#define CR4_OSXMMEXCPT 0x400u
#define CR4_OSXSAVE 0x40000u

#define XFEATURE_X87 1u
#define XFEATURE_SSE 2u
#define XFEATURE_AVX 4u

/* The legacy image (SDM vol. 1 table 10-2) as soft_vcpu.fx has it: 64-bit FIP and FDP, x87 registers from ST(0) up. */
enum {
	FX_FCW = 0, FX_FSW = 2, FX_FTW = 4, FX_FOP = 6, FX_FIP = 8, FX_FDP = 16, FX_MXCSR = 24, FX_MXCSR_MASK = 28,
	FX_ST = 32, FX_XMM = 160, FX_XMM_END = 416, FX_SIZE = 512,
};
#define XSAVE_HEADER 512
#define XSAVE_AVX 576
#define XSAVE_END 832

#define MXCSR_FLAGS 0x3fu
#define MXCSR_MASKS 0x1f80u
#define MXCSR_FZ 0x8000u
#define MXCSR_VALID 0xffffu
#define MXCSR_RESET 0x1f80u
enum { XF_IE = 1, XF_DE = 2, XF_ZE = 4, XF_OE = 8, XF_UE = 16, XF_PE = 32 };

#define FSW_ES 0x80u
#define FSW_B 0x8000u
#define FCW_MASKS 0x3fu
#define FCW_RESET 0x37fu

struct vec_state {
	uint8_t bounce[64] __attribute__((aligned(64))); /* memory operands that no host pointer reaches */
	uint8_t result[64] __attribute__((aligned(64))); /* results on their way to memory */
	uint8_t area[1024] __attribute__((aligned(64))); /* FXSAVE and XSAVE images */
	uint32_t host_mxcsr;                             /* to restore when VEC_LIVE_MXCSR ends */
};

static inline uint16_t get16(const void *p) { uint16_t x; memcpy(&x, p, 2); return x; }
static inline uint32_t get32(const void *p) { uint32_t x; memcpy(&x, p, 4); return x; }
static inline uint64_t get64(const void *p) { uint64_t x; memcpy(&x, p, 8); return x; }
static inline void put16(void *p, uint16_t x) { memcpy(p, &x, 2); }
static inline void put32(void *p, uint32_t x) { memcpy(p, &x, 4); }
static inline void put64(void *p, uint64_t x) { memcpy(p, &x, 8); }

/* ---- Tables (vec_tables.c) ------------------------------------------------ */

/* What an instruction does with its operands; decides stub and handler. */
enum vec_shape {
	SHAPE_RM,      /* reg = op([reg,] [vvvv,] rm) */
	SHAPE_GPR,     /* general register reg = op(rm) */
	SHAPE_FLAGS,   /* EFLAGS = op(reg, rm) */
	SHAPE_EXTRACT, /* general register or memory rm = element of reg */
	SHAPE_HALF,    /* VCVTPS2PH: rm = op(reg) */
	SHAPE_SHIFT,   /* by immediate: rm op= imm; VEX: vvvv = rm op imm */
	SHAPE_STRING,  /* PCMPxSTRx */
	SHAPE_CVT_M,   /* reg = op(rm) with rm in MMX or memory */
	SHAPE_CVT_TO_M,/* MMX reg = op(rm) */
	/* In C from here */
	SHAPE_LOAD,    /* reg = rm, whole vector */
	SHAPE_STORE,
	SHAPE_LOAD_SCALAR, /* MOVSS, MOVSD: from memory zeroes, from a register merges */
	SHAPE_STORE_SCALAR,
	SHAPE_LOAD_LOW, /* MOVLPS, MOVHLPS, MOVLPD */
	SHAPE_LOAD_HIGH,
	SHAPE_STORE_LOW,
	SHAPE_STORE_HIGH,
	SHAPE_LOAD_G,   /* MOVD, MOVQ from a general register or memory */
	SHAPE_STORE_G,
	SHAPE_LOAD_Q,   /* MOVQ between vector registers or memory */
	SHAPE_STORE_Q,
	SHAPE_M_TO_X,   /* MOVQ2DQ */
	SHAPE_X_TO_M,   /* MOVDQ2Q */
	SHAPE_MASKED_LOAD,
	SHAPE_MASKED_STORE,
	SHAPE_MASKED_BYTES, /* MASKMOVQ, MASKMOVDQU */
	SHAPE_GATHER,
	SHAPE_EXTRACT_128,
	SHAPE_EMPTY,    /* EMMS, VZEROUPPER, VZEROALL */
};

/* What must be offered for a form; from NEED_SSE3 on, enum vec_feature in order. */
enum vec_need {
	NEED_NONE, /* the form does not exist */
	NEED_BASE,
	NEED_SSE3, NEED_SSSE3, NEED_SSE41, NEED_SSE42, NEED_AES, NEED_PCLMUL, NEED_SHA,
	NEED_AVX, NEED_F16C, NEED_FMA, NEED_AVX2,
};

/* Size of the memory operand; the codes from MEM_VL on depend on the vector length (8 for MMX). */
enum vec_mem { MEM_1, MEM_2, MEM_4, MEM_8, MEM_16, MEM_VL, MEM_VL2, MEM_VL4, MEM_VL8, MEM_W, MEM_DUP, MEM_MMX4 };

enum {
	ROW_NDS = 1,      /* VEX.vvvv is a source; otherwise it must be 1111b */
	ROW_RW = 2,       /* reg is a source in the VEX form too */
	ROW_FP = 4,       /* obeys and changes MXCSR */
	ROW_UNALIGNED = 8,/* the legacy form takes any address */
	ROW_ALIGNED = 16, /* the VEX form needs alignment too */
	ROW_W0 = 32,      /* VEX.W must be 0 */
	ROW_W1 = 64,
	ROW_W = 128,      /* W selects the operation, REX.W too; ignored outside 64-bit mode if ROW_WGPR */
	ROW_WGPR = 256,
	ROW_LIG = 512,    /* VEX.L is ignored */
	ROW_IMM = 1024,
	ROW_MEM = 2048,   /* memory form only */
	ROW_REG = 4096,   /* register form only */
	ROW_REGFORM = 8192, /* the register form does something else than the memory form */
	ROW_XMM0 = 16384, /* implicit XMM0 source */
	ROW_IS4 = 32768,  /* register in imm[7:4] */
	ROW_MMX = 65536,  /* reg (and rm, unless ROW_RMGPR) are MMX registers */
	ROW_RMGPR = 131072, /* register rm is a general one */
};

struct vec_row {
	uint8_t map, opcode, pp, ext; /* ext: ModRM.reg + 1 of a group, 0: none */
	uint8_t shape, legacy, v128, v256; /* enum vec_need of each form */
	uint8_t mem;
	uint32_t flags;
};

/* The row of the instruction, or NULL. `pp` as in VEX: 0 none, 1 66, 2 F3, 3 F2. */
const struct vec_row *vec_row_find(unsigned map, unsigned opcode, unsigned pp, unsigned modrm_reg);
extern const struct vec_row vec_rows[];
extern const unsigned vec_rows_count;
/* Whether the features of `need` are offered. */
bool vec_need_offered(enum vec_need need);
/* Bytes of the memory operand of a form; `vl` is 8, 16 or 32. */
unsigned vec_row_mem(const struct vec_row *r, unsigned vl, bool w);

/* ---- Stubs (vec_stub.c) --------------------------------------------------- */

/*
 * `dst`: the reg operand (source and destination), `src`: rm, `src2`: vvvv (the
 * gpr[] array for SHAPE_STRING), `extra`: XMM0 or the is4 register. The result
 * is a general register, or SHAPE_FLAGS's AH and OF (vec_stub_flags()).
 */
typedef uint64_t vec_stub_fn(void *dst, const void *src, const void *src2, void *extra);
/* x87: one memory operand; `flags` in and out as AH and OF for FCMOVcc and FCOMI. */
typedef uint64_t vec_x87_fn(void *mem, uint64_t flags);

struct vec_form {
	bool vex, l, w, mem;
	uint8_t imm;
};
/* Never NULL for a row and form that bind: the arena holds all that exist. Any thread. */
vec_stub_fn *vec_stub_get(struct vec_engine *ve, const struct vec_row *r, const struct vec_form *f);
vec_x87_fn *vec_stub_x87(struct vec_engine *ve, uint8_t opcode, uint8_t modrm);
struct vec_engine *vec_stub_new(struct err *err);
void vec_stub_free(struct vec_engine *ve);
/* Bytes of code so far. */
size_t vec_stub_used(struct vec_engine *ve);
#define VEC_ARENA_SIZE (2u << 20)

static inline uint64_t vec_stub_flags(uint64_t r)
{
	return ((r >> 8) & 0xd5) | (r & 1) << 11;
}

/* ---- Availability --------------------------------------------------------- */

/* Raise what an unavailable unit raises: #UD or #NM. */
_Noreturn void vec_deny_sse(struct soft_vcpu *v);
_Noreturn void vec_deny_avx(struct soft_vcpu *v);
_Noreturn void vec_deny_mmx(struct soft_vcpu *v);

soft_inline void vec_check_sse(struct soft_vcpu *v)
{
	vec_home(v);
	if (unlikely((v->cr0 & (CR0_EM | CR0_TS)) || !(v->cr4 & CR4_OSFXSR)))
		vec_deny_sse(v);
}

soft_inline void vec_check_avx(struct soft_vcpu *v)
{
	vec_home(v);
	if (unlikely((v->cr0 & (CR0_TS | CR0_PE)) != CR0_PE || !(v->cr4 & CR4_OSXSAVE) || (v->xcr0 & 6) != 6 ||
		     (v->rflags & FL_VM)))
		vec_deny_avx(v);
}

/*
 * MMX in two steps: vec_mmx_check() raises #UD, #NM, #MF and puts the x87
 * registers into memory; vec_mmx_enter() passes to MMX state (TOP 0, all tags
 * valid) once nothing can fault any more. (vec_x87.c)
 */
void vec_mmx_check_slow(struct soft_vcpu *v);
void vec_mmx_enter_slow(struct soft_vcpu *v);

/* One look at FSW and FTW: ES clear, TOP 0, FTW all valid. */
soft_inline bool vec_mmx_entered(const struct soft_vcpu *v)
{
	return (get32(v->fx + FX_FSW) & 0xff3880) == 0xff0000;
}

soft_inline void vec_mmx_check(struct soft_vcpu *v)
{
	vec_home(v);
	if (unlikely((v->cr0 & (CR0_EM | CR0_TS)) || (v->vec_live & VEC_LIVE_X87) || !vec_mmx_entered(v)))
		vec_mmx_check_slow(v);
}

soft_inline void vec_mmx_enter(struct soft_vcpu *v)
{
	if (unlikely(!vec_mmx_entered(v)))
		vec_mmx_enter_slow(v);
}

/* An MMX register; after vec_mmx_enter(). */
soft_inline uint8_t *vec_mm(struct soft_vcpu *v, unsigned n)
{
	return v->fx + FX_ST + 16 * (n & 7);
}

/* The same between vec_mmx_check() and vec_mmx_enter(): the image has ST(0) first. */
soft_inline uint8_t *vec_mm_before(struct soft_vcpu *v, unsigned n)
{
	return v->fx + FX_ST + 16 * ((n - (get16(v->fx + FX_FSW) >> 11)) & 7);
}

/* A write to an MMX register fills the rest of the x87 register with ones. */
soft_inline void vec_mm_written(uint8_t *mm)
{
	put16(mm + 8, 0xffff);
}

/* ---- MXCSR ---------------------------------------------------------------- */

soft_inline uint32_t host_mxcsr_get(void)
{
	uint32_t x;

	asm volatile("stmxcsr %0" : "=m"(x));
	return x;
}

soft_inline void host_mxcsr_set(uint32_t x)
{
	asm volatile("ldmxcsr %0" : : "m"(x));
}

/* Make the host's MXCSR the guest's; false if an exception is unmasked: then vec_unmasked_run(). */
bool vec_mxcsr_load(struct soft_vcpu *v);
uint32_t vec_mxcsr(struct soft_vcpu *v);
/* `value` has no reserved bits. */
void vec_mxcsr_write(struct soft_vcpu *v, uint32_t value);
/*
 * Run a stub with unmasked exceptions and see which of them occurred; settle
 * adds them to MXCSR and, if one was unmasked, puts `dst_size` bytes at `dst`
 * back and raises #XM (or #UD).
 */
struct vec_call {
	vec_stub_fn *stub;
	void *dst;
	const void *src, *src2;
	void *extra;
	unsigned dst_size; /* up to 32 */
	uint8_t saved[32];
};
uint64_t vec_unmasked_run(struct soft_vcpu *v, struct vec_call *c, uint32_t *flags);
void vec_unmasked_settle(struct soft_vcpu *v, struct vec_call *c, uint32_t flags);
uint32_t vec_unmasked(struct soft_vcpu *v); /* XF_* that are unmasked */

soft_inline bool vec_fp_ready(struct soft_vcpu *v)
{
	return likely(v->vec_live & VEC_LIVE_MXCSR) || vec_mxcsr_load(v);
}

/* ---- Memory operands ------------------------------------------------------ */

/* insn.aux of a bound instruction: log2 of the memory operand's size, and whether it must be aligned to that. */
#define AUX_SIZE 7
#define AUX_ALIGNED 8

/*
 * Alignment checks (v->ac_check: then nothing hits the TLB). Vector operands
 * must be aligned to their size, at most 16 bytes; up to 8 bytes mmu_read() and
 * mmu_write() see to it. Gathers and masked moves are exempt.
 */
soft_inline void vec_check_alignment(struct soft_vcpu *v, uint64_t linear, unsigned align)
{
	if (unlikely(v->ac_check) && linear & (align - 1))
		soft_raise(v, EXC_AC, 0);
}

/* As mmu_read() without alignment check. */
void vec_read_unaligned(struct soft_vcpu *v, uint64_t linear, void *data, unsigned size, bool stack);
void vec_write_unaligned(struct soft_vcpu *v, uint64_t linear, const void *data, unsigned size, bool stack);

const void *vec_mem_slow(struct soft_vcpu *v, uint64_t linear, unsigned size, bool stack);
void vec_mem_store_slow(struct soft_vcpu *v, uint64_t linear, const void *data, unsigned size, bool stack);

/* A host pointer to read `size` bytes of the memory operand from: guest memory itself or a copy. */
soft_inline const void *vec_mem(struct soft_vcpu *v, const struct insn *i, unsigned size, bool aligned)
{
	uint64_t linear = insn_linear(v, i, size, ACC_READ);
	struct tlb_entry *t = tlb_at(v, linear);

	if (aligned && unlikely(linear & (size - 1)))
		soft_raise(v, EXC_GP, 0);
	if (likely(t->rtag == ((linear + size - 1) & ~0xfffull)))
		return (const void *)(linear + t->addend);
	return vec_mem_slow(v, linear, size, i->stack);
}

soft_inline const void *vec_mem_aux(struct soft_vcpu *v, const struct insn *i)
{
	return vec_mem(v, i, 1u << (i->aux & AUX_SIZE), i->aux & AUX_ALIGNED);
}

/* Host pointer for a write that hits the TLB, else NULL: then mmu_write(). */
soft_inline void *vec_mem_write(struct soft_vcpu *v, uint64_t linear, unsigned size, uint64_t *gpa)
{
	struct tlb_entry *t = tlb_at(v, linear);

	if (unlikely(t->wtag != ((linear + size - 1) & ~0xfffull)))
		return NULL;
	*gpa = (t->gpa & ~0xfffull) | (linear & 0xfff);
	return (void *)(linear + t->addend);
}

/* Store `size` (any constant or not) bytes. */
soft_inline void vec_mem_store(struct soft_vcpu *v, uint64_t linear, const void *data, unsigned size, bool stack)
{
	uint64_t gpa;
	void *p = vec_mem_write(v, linear, size, &gpa);

	if (likely(p)) {
		memcpy(p, data, size);
		mmu_written(v, gpa, size);
	} else {
		vec_mem_store_slow(v, linear, data, size, stack);
	}
}

/* VEX.vvvv names no register. Outside 64-bit mode its high bit does not select one, but must be set all the same. */
static inline bool vec_vvvv_unused(const struct insn *i)
{
	return (i->bytes[i->raw_opcode_at - 1] & 0x78) == 0x78;
}

/* ---- Binders of the parts ------------------------------------------------- */

insn_fn *vec_op_handler(const struct vec_row *r, const struct insn *i);   /* stub shapes */
insn_fn *vec_mov_handler(const struct vec_row *r, const struct insn *i);  /* C shapes */
bool vec_x87_bind(struct soft_engine *e, struct insn *i);                 /* D8..DF, FWAIT */
bool vec_xsave_bind(struct soft_engine *e, struct insn *i);               /* 0F AE, 0F C7 */

/* ---- x87 (vec_x87.c) ------------------------------------------------------ */
void vec_x87_sync(struct soft_vcpu *v); /* the live x87 state to v->fx; it is no longer live */
/* Put into a form that FXRSTOR takes without surprises: reserved FCW bits, ES and B from the flags. */
void vec_x87_normalize(uint8_t *fx);
