/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What seg.c, excp.c and sys*.c share: descriptors, accesses to descriptor
 * tables and the TSS, stacks that are not the current one, privilege checks.
 * The rest of the engine uses the functions of soft.h.
 *
 * An instruction that changes privilege checks and stores first, and commits
 * registers last. While it stores at the new privilege level, the level is
 * borrowed (soft_borrow_cpl()); soft_raise() gives it back.
 */
#pragma once
#include "engine/soft/access.h"

/* ---- Descriptors (SDM vol. 3 §3.4.5, §3.5, §5.8.3, §6.11) ---------------- */

/* Fields of the eight bytes of a descriptor or gate. */
static inline unsigned desc_type(uint64_t d) { return d >> 40 & 0xf; }
static inline bool desc_s(uint64_t d) { return d >> 44 & 1; }
static inline unsigned desc_dpl(uint64_t d) { return d >> 45 & 3; }
static inline bool desc_p(uint64_t d) { return d >> 47 & 1; }
static inline bool desc_l(uint64_t d) { return d >> 53 & 1; }
static inline bool desc_db(uint64_t d) { return d >> 54 & 1; }
static inline bool desc_is_code(uint64_t d) { return (d >> 43 & 3) == 3; }
static inline bool desc_is_data(uint64_t d) { return (d >> 43 & 3) == 2; }
static inline bool desc_is_conforming(uint64_t d) { return (d >> 42 & 7) == 7; }
static inline bool desc_is_writable_data(uint64_t d) { return desc_is_data(d) && d >> 41 & 1; }
static inline bool desc_is_readable(uint64_t d) { return desc_is_data(d) || (desc_is_code(d) && d >> 41 & 1); }
static inline uint16_t gate_selector(uint64_t d) { return d >> 16; }
static inline uint32_t gate_offset(uint64_t d) { return (d & 0xffff) | (d >> 32 & 0xffff0000); }

/* Types of system descriptors; bit 3 is clear in the 286 forms. */
enum {
	SYS_TSS16 = 1, SYS_LDT = 2, SYS_TSS16_BUSY = 3, SYS_CALL16 = 4, SYS_TASK = 5, SYS_INT16 = 6, SYS_TRAP16 = 7,
	SYS_TSS = 9, SYS_TSS_BUSY = 11, SYS_CALL = 12, SYS_INT = 14, SYS_TRAP = 15,
};

static inline uint32_t desc_limit(uint64_t d)
{
	uint32_t limit = (d & 0xffff) | (d >> 32 & 0xf0000);

	return d >> 55 & 1 ? limit << 12 | 0xfff : limit;
}

/*
 * Field by field, in place: a struct that is built and then copied stalls on
 * its own stores, which counts on the way in and out of a kernel.
 */
static inline void segment_set(struct cpu_segment *s, uint64_t base, uint32_t limit, uint32_t attr, uint16_t selector)
{
	s->base = base;
	s->limit = limit;
	s->attr = attr;
	s->selector = selector;
}

static inline void segment_load(struct cpu_segment *s, uint64_t d, uint16_t selector)
{
	segment_set(s, (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000), desc_limit(d), d >> 40 & 0xf0ff, selector);
}

static inline void segment_set_null(struct cpu_segment *s, uint16_t selector, unsigned dpl)
{
	segment_set(s, 0, 0, SEG_ATTR_UNUSABLE | dpl << SEG_ATTR_DPL_SHIFT, selector);
}

static inline struct cpu_segment desc_segment(uint64_t d, uint16_t selector)
{
	struct cpu_segment s = { 0 };

	segment_load(&s, d, selector);
	return s;
}

static inline struct cpu_segment segment_null(uint16_t selector, unsigned dpl)
{
	return (struct cpu_segment){ .attr = SEG_ATTR_UNUSABLE | dpl << SEG_ATTR_DPL_SHIFT, .selector = selector };
}

static inline bool segment_usable(const struct cpu_segment *s) { return !(s->attr & SEG_ATTR_UNUSABLE); }
static inline unsigned segment_dpl(const struct cpu_segment *s) { return s->attr >> SEG_ATTR_DPL_SHIFT & 3; }
static inline bool selector_null(uint16_t selector) { return !(selector & ~3); }
static inline uint32_t selector_error(uint16_t selector) { return selector & ~3u; }

static inline bool canonical(uint64_t linear)
{
	return (uint64_t)((int64_t)(linear << 16) >> 16) == linear;
}

typedef uint64_t any_u64 __attribute__((may_alias, aligned(1)));

/* ---- Modes --------------------------------------------------------------- */

#define CR0_PE 0x1u
#define CR0_MP 0x2u
#define CR0_EM 0x4u
#define CR0_TS 0x8u
#define CR0_ET 0x10u
#define CR0_NE 0x20u
#define CR0_WP 0x10000u
#define CR0_AM 0x40000u
#define CR0_NW 0x20000000u
#define CR0_CD 0x40000000u
#define CR0_PG 0x80000000u

#define CR4_TSD 0x4u
#define CR4_DE 0x8u
#define CR4_PSE 0x10u
#define CR4_PAE 0x20u
#define CR4_MCE 0x40u
#define CR4_PGE 0x80u
#define CR4_PCE 0x100u
#define CR4_OSFXSR 0x200u
#define CR4_OSXMMEXCPT 0x400u
#define CR4_UMIP 0x800u
#define CR4_FSGSBASE 0x10000u
#define CR4_PCIDE 0x20000u
#define CR4_OSXSAVE 0x40000u
#define CR4_SMEP 0x100000u
#define CR4_SMAP 0x200000u

#define EFER_SCE 0x1u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u
#define EFER_NXE 0x800u
#define EFER_FFXSR 0x4000u
#define EFER_TCE 0x8000u
#define EFER_AUTO_IBRS 0x200000u

#define DR6_FIXED 0xffff0ff0u
#define DR6_BD 0x2000u
#define DR6_BS 0x4000u
#define DR6_BT 0x8000u
#define DR6_WRITABLE (0xfu | DR6_BD | DR6_BS | DR6_BT)
#define DR7_FIXED 0x400u
#define DR7_GD 0x2000u
#define DR7_WRITABLE 0xffff23ffu

static inline bool in_protected(const struct soft_vcpu *v) { return v->cr0 & CR0_PE; }
static inline bool in_vm86(const struct soft_vcpu *v) { return v->rflags & FL_VM; }
/* Segments are paragraphs: real-address or virtual-8086 mode. */
static inline bool in_paragraphs(const struct soft_vcpu *v) { return !in_protected(v) || in_vm86(v); }
static inline unsigned iopl(const struct soft_vcpu *v) { return v->rflags >> 12 & 3; }

static inline void soft_need_cpl0(struct soft_vcpu *v)
{
	if (unlikely(v->cpl))
		soft_raise(v, EXC_GP, 0);
}

/* Operand size of instructions whose default in 64-bit mode is 64 bits (SDM vol. 1 §3.6.1). */
static inline unsigned opsize_default64(const struct insn *i)
{
	if (i->mode != MODE_64)
		return i->opsize;
	return i->prefixes & PFX_66 && !(i->rex & 8) ? 2 : 8;
}

/* ---- Privilege and views (seg.c) ----------------------------------------- */

/* TLB_* of data accesses at `cpl` as things are now. */
unsigned soft_view(const struct soft_vcpu *v, unsigned cpl);
static inline void soft_use_view(struct soft_vcpu *v, unsigned view)
{
	v->tlb_view = view;
	v->tlb_now = v->tlb[view];
}
/* Let the accesses that follow be made at `cpl`, until soft_update_mode() or soft_raise(). */
static inline void soft_borrow_cpl(struct soft_vcpu *v, unsigned cpl)
{
	if (cpl == v->cpl)
		return;
	v->borrowed = 1;
	v->cpl = cpl;
	soft_use_view(v, soft_view(v, cpl));
}
/* The current privilege level changes while the code stays 64-bit. */
static inline void soft_set_cpl64(struct soft_vcpu *v, unsigned cpl)
{
	v->borrowed = 0;
	v->cpl = cpl;
	v->ac_check = cpl == 3 && v->cr0 & CR0_AM && v->rflags & FL_AC;
	soft_use_view(v, soft_view(v, cpl));
	if (unlikely(v->native_wanted) && cpl == 3)
		soft_request(v, REQ_STATE); /* the loop decides how it goes on */
}
/* Bits of DR7 that make data accesses, or instruction fetches, go the slow way. */
bool dr7_has_data(const struct soft_vcpu *v);
bool dr7_has_code(const struct soft_vcpu *v);

/* ---- Descriptor tables and the TSS --------------------------------------- */

/* A load as implicit supervisor access; size 2, 4 or 8. */
soft_inline uint64_t sys_ld(struct soft_vcpu *v, uint64_t linear, unsigned size)
{
	const struct tlb_entry *t = &v->tlb[TLB_KERNEL][(linear >> 12) & (TLB_SIZE - 1)];
	uint64_t value = 0;

	if (likely(t->rtag == ((linear + size - 1) & ~0xfffull)))
		memcpy(&value, (const void *)(linear + t->addend), size);
	else
		mmu_read_sys(v, linear, &value, size);
	return value;
}

/* Linear address of a table entry, of which `size` bytes must lie within the limit. */
static inline bool desc_find(const struct soft_vcpu *v, uint16_t selector, unsigned size, uint64_t *linear)
{
	uint32_t at = selector & 0xfff8, limit = v->gdtr.limit;
	uint64_t base = v->gdtr.base;

	if (selector & 4) {
		if (!segment_usable(&v->ldtr))
			return false;
		limit = v->ldtr.limit;
		base = v->ldtr.base;
	}
	if (at + size - 1 > limit)
		return false;
	*linear = v->long_mode ? base + at : (uint32_t)(base + at);
	return true;
}

/* The descriptor, or #vector(selector) if it lies outside its table. */
static inline uint64_t desc_load(struct soft_vcpu *v, uint16_t selector, int vector, uint64_t *linear)
{
	if (unlikely(!desc_find(v, selector, 8, linear)))
		soft_raise(v, vector, selector_error(selector));
	return sys_ld(v, *linear, 8);
}

/* Set bits of one byte of a table, locked, as implicit supervisor access. */
void sys_or8(struct soft_vcpu *v, uint64_t linear, uint8_t bits);

static inline void desc_set_accessed(struct soft_vcpu *v, uint64_t linear, uint64_t d)
{
	if (unlikely(!(d >> 40 & 1)))
		sys_or8(v, linear + 5, 1);
}

#define DESC_ACCESSED (1ull << 40)

/* ---- Stacks -------------------------------------------------------------- */

/* A stack that an instruction fills or empties before it commits rSP. */
struct sys_stack {
	const struct cpu_segment *seg; /* not looked at when width is 8 */
	uint64_t sp;
	uint32_t error;                /* of the #SS when the segment's limit is passed */
	uint8_t width;                 /* 2, 4, 8: SP, ESP, RSP */
};

static inline struct sys_stack sys_stack_current(struct soft_vcpu *v)
{
	return (struct sys_stack){ &v->seg[SEG_SS], v->gpr[R_SP], 0, v->stack_size };
}

/* Size of the stack pointer of a stack segment, outside 64-bit mode. */
static inline unsigned segment_width(const struct cpu_segment *ss) { return ss->attr & SEG_ATTR_DB ? 4 : 2; }

/* [off, off+size) lies within the segment: limit, expansion direction, usable. */
bool segment_holds(const struct cpu_segment *s, uint64_t off, unsigned size);

void sys_push(struct soft_vcpu *v, struct sys_stack *s, uint64_t value, unsigned size);
uint64_t sys_pop(struct soft_vcpu *v, struct sys_stack *s, unsigned size);
/* Move the pointer without an access. */
void sys_stack_skip(struct sys_stack *s, uint64_t bytes);

/* ---- Segment loads (seg.c) ----------------------------------------------- */

/*
 * Check a stack selector that comes with privilege level `cpl` (from a TSS:
 * vector #TS; from a far return or IRET: #GP). Not null, present, writable,
 * RPL = DPL = cpl. Absent is #SS. Gives the descriptor; accessed is set by
 * the caller.
 */
uint64_t seg_check_stack(struct soft_vcpu *v, uint16_t selector, unsigned cpl, int vector, uint64_t *linear);
/* Load CS and SS without checks, in paragraphs. */
void seg_load_paragraph(struct soft_vcpu *v, unsigned seg, uint16_t selector);
/* After a return to an outer level: data segments that it may not use become null (SDM vol. 3 §5.8.6). */
void seg_drop_inner(struct soft_vcpu *v);
/* Recompute the bit of seg_flat. */
void seg_update_flat(struct soft_vcpu *v, unsigned seg);

/*
 * rSP and SS of privilege level `cpl` from the TSS; outside long mode. #TS if
 * the TSS is too short.
 */
void tss_stack(struct soft_vcpu *v, unsigned cpl, uint16_t *ss, uint64_t *sp);
/* RSPn (n 0..2) or ISTn (given as 3 + n) of a 64-bit TSS. */
uint64_t tss_stack64(struct soft_vcpu *v, unsigned n);
#define TSS64_IST(n) (3 + (n))

/* Refuse a task switch: one line in the log, #GP(selector). */
_Noreturn void sys_refuse_task(struct soft_vcpu *v, uint16_t selector, const char *what);

/* ---- Events (excp.c) ----------------------------------------------------- */

/* event.kind, SDM vol. 3 table 25-17 */
enum { EVENT_EXTERNAL = 0, EVENT_NMI = 2, EVENT_EXCEPTION = 3, EVENT_INT = 4, EVENT_INT1 = 5, EVENT_INT3 = 6 };
/* Deliver a software event of the instruction at work; kind EVENT_INT, EVENT_INT1, EVENT_INT3 (INTO too). */
_Noreturn void soft_raise_int(struct soft_vcpu *v, unsigned kind, int vector);
/* #DB with bits for DR6. */
_Noreturn void soft_raise_db(struct soft_vcpu *v, uint64_t dr6);

/* ---- Binding ------------------------------------------------------------- */

/* What of the host's vendor decides how the guest's CPU behaves. */
bool sys_is_amd(void);
void sys_undefined(struct soft_vcpu *v, const struct insn *i);
/* Each of the sys_*.c files binds its own; the handler, or NULL if the instruction is not its own. `ends` is set for INSN_ENDS_BLOCK. */
insn_fn *sys_far_bind(const struct insn *i, bool *ends);
insn_fn *sys_int_bind(const struct insn *i, bool *ends);
insn_fn *sys_seg_bind(const struct insn *i, bool *ends);
insn_fn *sys_table_bind(const struct insn *i, bool *ends);
insn_fn *sys_ctl_bind(const struct insn *i, bool *ends);
insn_fn *sys_call_bind(const struct insn *i, bool *ends);
insn_fn *sys_io_bind(const struct insn *i, bool *ends);
insn_fn *sys_misc_bind(const struct insn *i, bool *ends);

/* True for the memory or register form of opcode `op` in `map`, without VEX. */
static inline bool insn_is(const struct insn *i, unsigned map, unsigned op) { return i->map == map && i->opcode == op; }
static inline unsigned modrm_reg(const struct insn *i) { return i->modrm >> 3 & 7; } /* opcode extension */
/* The opcodes that the SDM marks NP are others with 66, F2 or F3. */
static inline bool insn_has_prefix(const struct insn *i) { return i->prefixes & (PFX_66 | PFX_F2 | PFX_F3); }
