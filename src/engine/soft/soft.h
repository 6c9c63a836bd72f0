/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The soft engine's inside: one vCPU's live state, the decoded form of an
 * instruction, and what its parts promise each other.
 *
 *   decode.c   bytes -> struct insn (no guest state but the mode)
 *   bind*.c    struct insn -> handler: integer (int*.c), system (sys*.c), vector and x87 (vec*.c)
 *   build.c block.c   from an address to a decoded block; the cache of blocks, code-page tracking
 *   run.c stop.c      the loop: look up a block, run it, take requests; safe point and sleep
 *   access.h   the fast side of every memory access, for handlers
 *   mmu.c tlb.c walk.c   the slow side of every memory access, software TLB, page walks
 *   seg.c excp.c sys*.c   descriptors, far transfers, exceptions and interrupts, control registers
 *   lapic.c timer.c msr.c cpuid.c   local APIC, clocks, MSRs, CPUID
 *   soft.c state.c memory.c tsc.c   engine_ops: making engines and vCPUs, state in and out, memory slots and dirty log
 */
#pragma once
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/ops.h"

struct soft_vcpu;
struct soft_engine;
struct insn;
struct native_vcpu;
struct native_engine;

/* ---- Decoded form -------------------------------------------------------- */

/*
 * Between instructions v->rip == v->next_rip. excp_deliver(), soft_cpu_init()
 * and soft_cpu_sipi() leave the new address in next_rip and the loop copies it.
 *
 * A handler runs one instruction. On entry v->rip is the address of the
 * instruction itself and v->next_rip (a name for gpr[REG_RIP]) the one after it
 * (both already truncated to the code size). A handler that branches writes
 * next_rip. The loop copies next_rip to rip when the handler returns. A handler
 * that faults calls soft_raise() and must have changed no architectural state
 * that the fault would make visible (stores come first, or are probed with
 * mmu_probe_write()).
 */
typedef void insn_fn(struct soft_vcpu *v, const struct insn *i);

#undef REG_RIP /* of <sys/ucontext.h>, which <signal.h> includes */
#define REG_RIP 17
enum { REG_ZERO = 16 }; /* base, index: REG_ZERO where there is none */
#define SEG_NONE 6 /* insn.seg in 64-bit mode for everything but FS and GS: base 0, no limit */
enum { MAP_1B, MAP_0F, MAP_0F38, MAP_0F3A, MAP_COUNT };
enum {
	PFX_66 = 1, PFX_F2 = 2, PFX_F3 = 4, /* F2, F3: the last of the two only */
	PFX_LOCK = 8, PFX_67 = 16, PFX_REX = 32, PFX_VEX = 64, PFX_SEG = 128, /* a segment override is effective */
};

/* Code mode: what decoding depends on besides the bytes. */
enum { MODE_16, MODE_32, MODE_64 };
/*
 * Or'ed to the mode given to insn_decode(): in 64-bit mode an operand-size
 * prefix makes near branches 16 bits wide (AMD); Intel ignores it there.
 * insn_decode_flags() (int_bind.c) says what this host does.
 */
#define MODE_AMD_BRANCH16 0x80u
unsigned insn_decode_flags(void);

/* One cache line; what handlers read at run time comes first. */
struct insn {
	insn_fn *fn;       /* set by soft_bind(); overwritten by block.c with the leave-block handler */
	uint64_t imm;      /* sign-extended to 64 bits as the instruction defines; far pointers: offset */
	void *priv;        /* free for the binder: a host stub, a table row */
	int32_t disp;      /* sign-extended displacement */
	uint8_t base, index, scale; /* 0..15, REG_RIP (base), REG_ZERO; scale as shift */
	uint8_t reg, rm;   /* ModRM fields extended by REX.R / REX.B; opcode-embedded register in rm */
	uint8_t seg;       /* effective segment of the memory operand, SEG_* or SEG_NONE */
	uint8_t len;       /* 1..15 */
	uint8_t aux;       /* free for the binder but for INSN_ENDS_BLOCK */
	uint8_t opsize;    /* effective operand size in bytes: 2, 4, 8 (byte operations by opcode) */
	uint8_t addrsize;  /* 2, 4, 8 */
	uint8_t prefixes;  /* PFX_* */
	uint8_t rex;       /* WRXB in bits 3..0, from REX or VEX */
	uint8_t map, opcode;
	uint8_t modrm;     /* raw; valid if has_modrm */
	uint8_t has_imm;   /* bytes of immediate, 0..8 */
	uint16_t imm2;     /* second immediate: ENTER's level, the far pointer's selector */
	uint8_t is_mem : 1; /* ModRM names memory */
	uint8_t stack : 1; /* default segment is SS (base rSP/rBP): non-canonical is #SS, not #GP */
	uint8_t has_modrm : 1;
	uint8_t vl : 1, pp : 2; /* VEX: L, implied prefix 0..3 (none, 66, F3, F2) */
	uint8_t mode : 2;  /* MODE_* */
	uint8_t vvvv;      /* VEX register (already inverted) */
	uint8_t raw_opcode_at; /* offset of the opcode byte in bytes[]: the instruction can be re-encoded from there */
	uint8_t bytes[15];
};
_Static_assert(sizeof(struct insn) == 64, "one cache line an instruction");

enum decode_result {
	DECODE_OK,
	DECODE_MORE,     /* the bytes end inside the instruction */
	DECODE_TOO_LONG, /* over 15 bytes: #GP(0) */
	DECODE_UD,       /* no instruction has this form: #UD. len is valid */
};
/*
 * Decode the instruction at bytes[0..n). Pure: no globals, any input. EVEX,
 * XOP and 3DNow are DECODE_UD. LOCK is checked by the binders.
 */
enum decode_result insn_decode(struct insn *i, const uint8_t *bytes, unsigned n, unsigned mode);

/* Give i->fn. Tries the three binders below in turn and falls back to a handler that raises #UD. */
void soft_bind(struct soft_engine *e, struct insn *i);
/* Each returns false if the instruction is not its own. */
bool int_bind(struct soft_engine *e, struct insn *i); /* general-purpose instructions, BMI1/2, MOVBE, ADX, CMPXCHG*, strings, near branches */
bool sys_bind(struct soft_engine *e, struct insn *i); /* far transfers, INT, IRET, segments, control/debug registers, I/O, system instructions, CPUID, RDTSC*, MSRs, HLT, XGETBV/XSETBV */
bool vec_bind(struct soft_engine *e, struct insn *i); /* x87, MMX, SSE*, AVX*, FMA, F16C, AES, PCLMUL, SHA, XSAVE family, FXSAVE, LDMXCSR, MOVNTI, PREFETCH excluded (integer) */
/* True if the instruction must be the last of its block (changes control flow, mode, mappings, or needs requests polled). Set per binder through i->aux bit 7. */
#define INSN_ENDS_BLOCK 0x80
static inline bool insn_ends_block(const struct insn *i) { return i->aux & INSN_ENDS_BLOCK; }
/*
 * Near branches whose target is next address + imm, truncated to opsize
 * (JMP, CALL, Jcc, JCXZ, LOOP with a displacement). With INSN_COND they may
 * fall through instead. Both come with INSN_ENDS_BLOCK.
 */
#define INSN_DIRECT_BRANCH 0x40
#define INSN_COND 0x20

/* ---- Software TLB -------------------------------------------------------- */

/*
 * Direct-mapped, one set for each privilege view. An access of `size` bytes
 * hits when tag == ((linear + size - 1) & ~0xfff): an access that crosses a
 * page then misses by itself, as does a non-canonical address (never filled).
 * Device pages are never filled. host = linear + addend. A write tag is set
 * only where the guest's dirty bit is set and the slot is writable.
 *
 * TLB_SLOW is never filled: it is the view while alignment checks (CR0.AM and
 * EFLAGS.AC at CPL 3) or data breakpoints are on, so that every access takes
 * the slow side, which checks.
 */
#define TLB_BITS 9
#define TLB_SIZE (1u << TLB_BITS)
/*
 * Translated code takes linear ^ tag for the offset in the page: an empty
 * entry's tag is of a page that never looks into that entry, and no page's
 * address as a whole.
 */
#define TLB_NONE UINT64_MAX
#define TLB_NONE_LAST 0xfffull /* in the last entry */
static inline uint64_t tlb_none(unsigned index)
{
	return index == TLB_SIZE - 1 ? TLB_NONE_LAST : TLB_NONE;
}
struct tlb_entry {
	uint64_t rtag, wtag; /* linear address of the page or TLB_NONE */
	uintptr_t addend;    /* host address = linear + addend */
	uint64_t gpa;        /* physical address of the page; low 12 bits are mmu.c's own */
};
enum {
	TLB_USER,      /* CPL 3 */
	TLB_KERNEL,    /* CPL 0..2, SMAP in force or CR4.SMAP clear */
	TLB_KERNEL_AC, /* CPL 0..2 with CR4.SMAP and EFLAGS.AC: user pages allowed */
	TLB_SLOW,
	TLB_VIEWS
};

/* ---- vCPU ---------------------------------------------------------------- */

/* Why the loop must leave its fast path; checked at block ends (v->request != 0). */
enum {
	REQ_KICK = 1,      /* vcpu_kick() */
	REQ_IRQ = 2,       /* the local APIC or INTR may have an interrupt */
	REQ_NMI = 4,
	REQ_INIT = 8, REQ_SIPI = 16,
	REQ_TLB_FLUSH = 32,/* memory slots changed, dirty log started */
	REQ_STOP = 64,     /* wait at the safe point: block cache is being emptied */
	REQ_TRAP = 128,    /* single-step or data breakpoint is due after this instruction */
	REQ_LOCKSTEP = 512, /* always set in lock-step: translated code leaves at the end of each block */
	REQ_STATE = 256,   /* mode, CPL or EFLAGS.IF changed: recompute what the loop caches */
};

/* Arithmetic flags in EFLAGS positions: CF 0, PF 2, AF 4, ZF 6, SF 7, OF 11. */
#define FLAGS_ARITH 0x8d5u
#define FL_CF 0x1u
#define FL_PF 0x4u
#define FL_AF 0x10u
#define FL_ZF 0x40u
#define FL_SF 0x80u
#define FL_TF 0x100u
#define FL_IF 0x200u
#define FL_DF 0x400u
#define FL_OF 0x800u
#define FL_IOPL 0x3000u
#define FL_NT 0x4000u
#define FL_RF 0x10000u
#define FL_VM 0x20000u
#define FL_AC 0x40000u
#define FL_VIF 0x80000u
#define FL_VIP 0x100000u
#define FL_ID 0x200000u

/* ---- Translated code (trans*.c) ------------------------------------------- */

#define TRANS_JUMP_BITS 13
#define TRANS_HASH 0x9e3779b1u
struct trans_jump {
	uint64_t linear;
	uint32_t ctx;  /* trans_ctx(); 0: empty */
	uint32_t code; /* offset in the code's memory */
};
/* The guest's vector registers are in the host's, and */
#define XL_VEC_SSE 1u   /* SSE may be used */
#define XL_VEC_MXCSR 2u /* the host's MXCSR is the guest's */
#define XL_VEC_AVX 4u
#define TRANS_SPANS 24u
struct trans_vcpu {
	uint64_t page;          /* linear address of the page that runs */
	uint64_t rax, tmp[4], ret; /* scratch of the code */
	uint64_t miss[2];       /* scratch registers across a TLB refill */
	uint64_t host_sp;
	uint64_t code;          /* where the code's memory is executable */
	uint32_t ctx, global_ctx;
	uint32_t salt;          /* user code of several processes lies at the same addresses */
	uint16_t flags;         /* AL: OF, AH: as LAHF */
	uint16_t threshold;
	uint8_t vec;            /* XL_VEC_*; 0: the vector registers are in ymm[] */
	uint32_t unit;          /* number of the block that the unit at work starts with, where it is asked for */
	uint8_t vec_was;        /* vec before C was called */
	struct { uint64_t host, flags; } span[TRANS_SPANS + 1]; /* found by the unit at work */
	struct trans *scratch;
	struct trans_jump jump[1u << TRANS_JUMP_BITS]; /* of indirect branches */
};

struct soft_vcpu {
	struct vcpu vcpu; /* first */
	struct soft_engine *engine;

	/* Hot */
	/*
	 * gpr[REG_ZERO] is always 0 and gpr[REG_RIP] is the next instruction's
	 * address (next_rip): an effective address needs no branches.
	 */
	uint64_t gpr[18];
	uint64_t rip; /* of the instruction at work */
	/*
	 * All of RFLAGS, always valid between instructions: handlers compute the
	 * arithmetic flags eagerly on the host (lahf/seto or equivalent).
	 */
	uint64_t rflags;
	_Atomic uint32_t request;
	uint8_t cpl, mode; /* mode: MODE_* of CS */
	uint8_t stack_size; /* bytes of SP: 2, 4, 8 */
	uint8_t tlb_view;   /* TLB_* of ordinary data accesses now */
	uint8_t long_mode;  /* EFER.LMA */
	uint8_t shadow;     /* interrupt shadow as in cpu_state, valid until the next instruction ends */
	uint8_t seg_flat;   /* bit per SEG_*: base 0, limit 4 GiB - 1, writable data (or code in 64-bit mode): no checks needed */
	uint8_t ac_check;   /* CR0.AM && EFLAGS.AC && CPL 3: alignment checks are on */
	uint8_t vec_live;   /* VEC_LIVE_*: vec_sync() */
	uint8_t vec_away;   /* all of the vector state is in a process of native.c: vec_home() */
	uint64_t insns;     /* instructions retired */

	struct cpu_segment seg[SEG_COUNT], ldtr, tr;
	struct cpu_table gdtr, idtr;
	uint64_t cr0, cr2, cr3, cr4, xcr0, efer;
	uint64_t dr[8];

	struct tlb_entry *tlb_now; /* tlb[tlb_view] */
	uint8_t *page_flags;       /* engine->page_flags */
	struct tlb_entry tlb[TLB_VIEWS][TLB_SIZE];

	/* Vector state, live: YMM whole and contiguous; x87/MMX, MXCSR and the rest of the legacy image in FXSAVE form. */
	uint8_t ymm[16][32] __attribute__((aligned(64)));
	uint8_t fx[512] __attribute__((aligned(64))); /* XMM part unused: ymm[] holds it */

	/* MSRs */
	uint64_t tsc_offset; /* guest TSC = host TSC + tsc_offset */
	uint64_t tsc_adjust, tsc_aux;
	uint64_t pat, misc_enable, feature_control, spec_ctrl, xss;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
	uint64_t mtrr_def_type, mtrr_phys[CPU_MTRR_VAR][2], mtrr_fix[11];
	uint64_t mcg_status, mcg_ctl;
	uint64_t kvm_system_time, kvm_wall_clock, kvm_pv_eoi, kvm_steal_time;

	/* Event delivery */
	struct {
		uint8_t active, vector, has_error, kind; /* as cpu_state.event_* */
		uint32_t error, insn_len;
		uint64_t payload;
	} event;
	uint8_t nmi_masked, nmi_pending;
	uint8_t mp_state;    /* enum cpu_mp_state */
	_Atomic uint8_t sipi_vector;
	/*
	 * borrowed: cpl and tlb_view are those of an instruction that changes
	 * privilege and has not committed. irq_held: an interrupt may be pending
	 * behind IF; setting IF asks for it. step: TF was set when the instruction
	 * at work began, so that it ends in a trap. (sys.h, excp.c)
	 */
	uint8_t borrowed, irq_held, step;
	_Atomic uint8_t unhalted; /* KVM_HC_KICK_CPU came */
	uint64_t dr6_pending; /* debug traps collected by the instruction at work */

	void *fault_jmp[5]; /* __builtin_setjmp() of the loop: soft_raise() lands there */
	int fault_depth; /* what is being delivered (excp.c); 0 otherwise */

	struct lapic *lapic;   /* lapic.c */
	struct vec_state *vec; /* vec.c: its own scratch; may be NULL */
	struct mmu_state *mmu; /* mmu.c: its own caches; may be NULL */
	struct block_state *blocks; /* block.c: the jump cache */

	/* Sleeping in HLT or waiting for INIT/SIPI */
	pthread_mutex_t sleep_lock;
	pthread_cond_t sleep_cond; /* CLOCK_MONOTONIC */
	struct engine_stats stats;
	struct soft_park *park; /* stop.c */
	struct native_vcpu *native; /* native.c; NULL: none */
	_Atomic int native_pid;     /* the process that runs for this vCPU right now, or 0 */
	bool native_wanted;         /* every return to user mode must come by the loop: soft_update_mode() asks for it */
	struct lockstep *lockstep;  /* lockstep.c; NULL: off */
	bool lockstep_touched;      /* something was done that can't be done twice */
	struct trans_vcpu xl;
};

struct soft_slot {
	uint64_t gpa, size;
	uint8_t *hva;
	bool readonly;
	int fd;             /* the file behind it, or -1 */
	uint64_t file_offset;
	_Atomic uint8_t *dirty;   /* a byte a page while the dirty log runs, else NULL */
};

/*
 * One byte for each guest-physical page below SOFT_PHYS_BITS, in one sparse
 * mapping: nonzero sends a store to page_written() after it has stored.
 */
#define SOFT_MAXPHYADDR 40 /* as CPUID 8000_0008h tells the guest; bits above are reserved in paging entries */
#define SOFT_PHYS_BITS SOFT_MAXPHYADDR
#define PAGE_HAS_CODE 1  /* decoded code lies in the page */
#define PAGE_LOG_DIRTY 2 /* the dirty log runs and this page is still clean */
#define PAGE_NATIVE_CODE 4 /* looked through for what must not run natively, ... */
#define PAGE_NATIVE_FIT 8  /* ... and fit */

#define SOFT_MAX_SLOTS 64
struct soft_engine {
	struct engine engine; /* first */
	struct soft_vcpu *vcpus[ENGINE_MAX_CPUS + 1]; /* set under slots_lock, read with acquire */
	struct soft_slot slots[SOFT_MAX_SLOTS]; /* changed only while all vCPUs are at a safe point */
	unsigned nslots;
	pthread_mutex_t slots_lock;
	struct block_cache *blocks; /* block.c */
	struct vec_engine *vec;     /* vec.c: the stub arena */
	struct trans_engine *trans; /* trans_cache.c; NULL: everything is interpreted */
	struct timers *timers;      /* timer.c: one thread for all APIC timers */
	uint8_t *page_flags;        /* PAGE_*, by physical page number */
	_Atomic bool frozen;        /* engine_clock(): since these moments of the host's clocks */
	_Atomic bool tsc_fresh;     /* nobody has run since power-on, to read the TSC */
	uint64_t frozen_tsc, frozen_ns;
	_Atomic bool extint;
	struct soft_stop *stop; /* stop.c: the safe point */
	struct native_engine *native; /* native.c; NULL: no guest code runs natively */
	bool probing; /* made by the kvm engine to step single instructions: no threads */
};

#define next_rip gpr[REG_RIP]
static inline struct soft_vcpu *soft_vcpu(struct vcpu *v) { return (struct soft_vcpu *)v; }
static inline struct soft_engine *soft_engine(struct engine *e) { return (struct soft_engine *)e; }

/* ---- Faults (excp.c) ----------------------------------------------------- */

enum {
	EXC_DE, EXC_DB, EXC_NMI, EXC_BP, EXC_OF, EXC_BR, EXC_UD, EXC_NM, EXC_DF, EXC_TS = 10, EXC_NP, EXC_SS, EXC_GP,
	EXC_PF, EXC_MF = 16, EXC_AC, EXC_MC, EXC_XM, EXC_CP = 21,
};
/* Raise a fault of the instruction at v->rip: longjmp to the loop, which delivers it. The error code is used by those vectors that have one. */
_Noreturn void soft_raise(struct soft_vcpu *v, int vector, uint32_t error);
_Noreturn void soft_raise_pf(struct soft_vcpu *v, uint64_t linear, uint32_t error);
/*
 * Deliver v->event through IVT or IDT in the current mode. Faults on the way
 * are landed inside and combined to #DF (SDM vol. 3 table 6-5). Sets rip and
 * next_rip. Returns false on a triple fault, with the state before it.
 */
bool excp_deliver(struct soft_vcpu *v);
/*
 * Before the next instruction: INIT, SIPI, traps, NMI, external interrupts,
 * code breakpoints in priority order (SDM vol. 3 §6.9). Called by the loop when
 * request != 0 or shadow != 0, and only right before it runs an instruction.
 * Returns true if the loop must call excp_deliver(). Takes REQ_INIT, REQ_SIPI,
 * REQ_NMI and REQ_IRQ back but for what the shadow withholds; REQ_TRAP stays
 * while instructions must be run one by one. The loop clears shadow just
 * before the one instruction that it covers.
 */
bool excp_poll(struct soft_vcpu *v);

/*
 * MOV to CR0, CR4, and WRMSR of EFER with all side effects: false is #GP(0) and
 * nothing changed. The masks are the bits that this guest's CPU has, for
 * vcpu_set_state(). (sys_ctl.c)
 */
bool soft_set_cr0(struct soft_vcpu *v, uint64_t value);
bool soft_set_cr4(struct soft_vcpu *v, uint64_t value);
bool soft_set_efer(struct soft_vcpu *v, uint64_t value);
uint64_t soft_cr4_mask(struct soft_vcpu *v);
uint64_t soft_efer_mask(struct soft_vcpu *v);

/* Recompute cpl-, mode- and segment-derived fields (mode, stack_size, tlb_view, seg_flat, ac_check, long_mode) after any change of CS, SS, CR0, CR4, EFER, EFLAGS.AC. (seg.c) */
void soft_update_mode(struct soft_vcpu *v);
/* Write RFLAGS bits in `mask`; handles TF/IF/AC side effects (sets REQ_IRQ/REQ_TRAP, recomputes ac_check). (excp.c) */
void soft_set_rflags(struct soft_vcpu *v, uint64_t value, uint64_t mask);

/* The process that runs for the vCPU stops. */
static inline void native_kick(struct soft_vcpu *v)
{
	int pid = atomic_load(&v->native_pid);

	if (pid)
		syscall(SYS_tgkill, pid, pid, SIGUSR1);
}
static inline void soft_request(struct soft_vcpu *v, uint32_t bits)
{
	atomic_fetch_or_explicit(&v->request, bits, memory_order_seq_cst);
	if (__builtin_expect(atomic_load_explicit(&v->native_pid, memory_order_seq_cst), 0))
		native_kick(v);
}
/* As soft_request(), and out of HLT. Any thread. (run.c) */
void soft_wake(struct soft_vcpu *v, uint32_t bits);

/* ---- Memory (mmu.c) ------------------------------------------------------ */

enum mmu_access { ACC_READ, ACC_WRITE, ACC_FETCH, ACC_RMW }; /* RMW: a read whose fault reports a write */

/*
 * Slow side: `linear` is complete (segment base added), size 1..64; it may
 * cross a page (both pages are checked before anything is written), be
 * non-canonical (#GP(0), or #SS(0) if `stack`) or be device memory. The view is
 * v->tlb_view, alignment checks and data breakpoints are made here; _sys
 * variants are implicit supervisor accesses (descriptor tables, TSS) that
 * ignore CPL and SMAP's AC override.
 */
void mmu_read(struct soft_vcpu *v, uint64_t linear, void *data, unsigned size, bool stack);
void mmu_write(struct soft_vcpu *v, uint64_t linear, const void *data, unsigned size, bool stack);
void mmu_read_sys(struct soft_vcpu *v, uint64_t linear, void *data, unsigned size);
void mmu_write_sys(struct soft_vcpu *v, uint64_t linear, const void *data, unsigned size);
/* Fault as an access of `size` bytes would, but change nothing (A/D bits excepted). */
void mmu_probe_write(struct soft_vcpu *v, uint64_t linear, unsigned size, bool stack);
void mmu_probe_read(struct soft_vcpu *v, uint64_t linear, unsigned size, bool stack);
/*
 * A host pointer for [linear, linear+size) within one page, filled into the
 * TLB (in a view that has one), or NULL if it is device memory or crosses a
 * page. Raises the faults of `acc`. After writing through it call
 * mmu_written(v, gpa, size) with the *gpa it gave.
 */
void *mmu_ptr(struct soft_vcpu *v, uint64_t linear, unsigned size, enum mmu_access acc, bool stack, uint64_t *gpa);
/*
 * Translate for a fetch at `linear` by the current view: physical address, host
 * pointer (NULL for device memory: instructions there are fetched byte by byte
 * through the host's mmio_read and not cached). Raises #PF.
 */
uint8_t *mmu_fetch_ptr(struct soft_vcpu *v, uint64_t linear, uint64_t *gpa);
/* As vcpu_translate(): no fault, no A/D update. */
bool mmu_peek(struct soft_vcpu *v, uint64_t linear, uint64_t *gpa);
void mmu_flush_all(struct soft_vcpu *v);          /* every entry, global too */
void mmu_flush_nonglobal(struct soft_vcpu *v);    /* CR3 write, the current PCID */
void mmu_flush_page(struct soft_vcpu *v, uint64_t linear); /* INVLPG */
void mmu_invpcid(struct soft_vcpu *v, unsigned type, uint64_t pcid, uint64_t linear); /* operands already checked */
void mmu_set_cr3(struct soft_vcpu *v, uint64_t value); /* MOV to CR3: checks (#GP), PCID, bit 63, PDPTRs under PAE */
/* The tables' own bits: called when CR0.PG/WP, CR4, EFER change. Flushes what must be flushed; loads PDPTRs when PAE paging goes on. */
void mmu_mode_changed(struct soft_vcpu *v);
int mmu_vcpu_init(struct soft_vcpu *v);
void mmu_vcpu_free(struct soft_vcpu *v);

/* Slot of a physical page, NULL for device memory. Lock-free. (soft.c) */
struct soft_slot *soft_slot_find(struct soft_engine *e, uint64_t gpa);
static inline uint8_t *soft_gpa_ptr(struct soft_engine *e, uint64_t gpa, struct soft_slot **slot)
{
	struct soft_slot *s = soft_slot_find(e, gpa);

	if (slot)
		*slot = s;
	return s ? s->hva + (gpa - s->gpa) : NULL;
}

/*
 * Code tracking and dirty log. The writer stores first and looks at the page's
 * flag byte after; the decoder sets the byte, runs membarrier(PRIVATE_EXPEDITED)
 * and reads the bytes after. One of the two always sees the other, with no
 * fence in the store path. page_written() records the dirty page, drops the
 * blocks that overlap [gpa, gpa+size) and makes a running one (this vCPU's own
 * block too) leave after its current instruction. (block.c)
 */
void page_written(struct soft_engine *e, uint64_t gpa, unsigned size);
static inline void mmu_written(struct soft_vcpu *v, uint64_t gpa, unsigned size)
{
	if (__builtin_expect(__atomic_load_n(&v->page_flags[gpa >> 12], __ATOMIC_RELAXED), 0))
		page_written(v->engine, gpa, size);
}

/* ---- User code that runs natively (native.c, native.h) -------------------- */

enum native_result {
	NATIVE_NOT_HERE, /* not this code, not now */
	NATIVE_RAN,      /* the state is that of where it stopped */
	NATIVE_LOST,     /* the process died with the state */
};
/* Run from v->rip if v->native_wanted and it pays. */
enum native_result native_try(struct soft_vcpu *v);
/* An interrupt has come: a sample of what the vCPU does. */
void native_tick(struct soft_vcpu *v);
/* The vCPU's thread does something else for a while. */
void native_unpin(struct soft_vcpu *v);
/* Fetch the vector state; own thread. */
void native_vec_home(struct soft_vcpu *v);
/* A TLB entry has gone; all of an address-space id have (0: of every id). */
void native_page_flushed(struct soft_vcpu *v, uint32_t id, uint64_t linear);
void native_id_flushed(struct soft_vcpu *v, uint32_t id);
/* A page of PAGE_NATIVE_CODE was written. Any thread. */
void native_code_written(struct soft_engine *e, uint64_t gpa);
/* May a native process write the page now? */
bool native_may_write(struct soft_engine *e, uint64_t gpa);
/* As native_may_write(), and none does any more. Between soft_enter() and soft_leave(); pointers and TLB entries are void if true. */
bool native_code_wanted(struct soft_vcpu *v, uint64_t gpa);
void native_slots_changed(struct soft_engine *e);
/* The guest's TSC is no longer the host's: RDTSC must not run natively any more. Own thread's or while all stand still. */
void native_tsc_moved(struct soft_engine *e);

void native_get_stats(struct soft_engine *e, struct engine_stats *stats);
void native_engine_init(struct soft_engine *e);
void native_engine_free(struct soft_engine *e);
int native_vcpu_init(struct soft_vcpu *v);
void native_vcpu_free(struct soft_vcpu *v);

/* ---- Segments (seg.c) ---------------------------------------------------- */

/* Linear address of offset `off` in segment `seg` for an access of `size` bytes: limit, type and canonical checks; #GP or #SS. */
uint64_t seg_linear_slow(struct soft_vcpu *v, unsigned seg, uint64_t off, unsigned size, enum mmu_access acc); /* not for SEG_NONE */
/* Load a segment register as MOV/POP do (not CS). (seg.c) */
void seg_load(struct soft_vcpu *v, unsigned seg, uint16_t selector);

/* The fast inline accessors that handlers use are in access.h. */

/* ---- Local APIC, MSRs, CPUID --------------------------------------------- */

int lapic_vcpu_init(struct soft_vcpu *v);
void lapic_vcpu_free(struct soft_vcpu *v);
void lapic_get(struct soft_vcpu *v, struct cpu_state *s);       /* registers, apic_base, tsc_deadline */
void lapic_set(struct soft_vcpu *v, const struct cpu_state *s);
bool lapic_claims(struct soft_vcpu *v, uint64_t gpa);           /* the xAPIC page, if enabled */
uint64_t lapic_mmio_read(struct soft_vcpu *v, uint64_t gpa, unsigned size);
void lapic_mmio_write(struct soft_vcpu *v, uint64_t gpa, uint64_t value, unsigned size);
/* Highest deliverable vector above PPR, or ExtINT through LVT0; -1 for none. Does not acknowledge. */
int lapic_pending(struct soft_vcpu *v);
int lapic_ack(struct soft_vcpu *v);           /* moves IRR to ISR (or pic_ack()); the vector or -1 */
uint64_t lapic_get_cr8(struct soft_vcpu *v);
void lapic_set_cr8(struct soft_vcpu *v, uint64_t value);
void lapic_init_signal(struct soft_vcpu *v);  /* INIT: reset but for the ID and APIC base */
void soft_msi(struct engine *e, uint64_t address, uint32_t data);
void soft_set_extint(struct engine *e, bool level);
/* RDMSR/WRMSR by index; false: #GP(0). */
bool msr_read(struct soft_vcpu *v, uint32_t index, uint64_t *value);
bool msr_write(struct soft_vcpu *v, uint32_t index, uint64_t value);
bool soft_cpuid(struct soft_vcpu *v, uint32_t leaf, uint32_t subleaf, uint32_t regs[4]); /* includes OSXSAVE, APIC ID and XCR0-dependent sizes */
uint64_t soft_tsc(struct soft_vcpu *v);
/* kHz of the host's time-stamp counter, which is the guest's: found at the first call, 5 ms after soft_tsc_begin() at the earliest. (tsc.c) */
uint32_t soft_host_tsc_khz(void);
void soft_tsc_begin(void);
void soft_clock(struct engine *e, bool run); /* engine_clock() (timer.c) */
/*
 * After a load of state, as its last step (tsc_adjust, the KVM MSRs, lapic_set() and memory slots come before): the
 * guest's TSC is `tsc`, in step with the other vCPUs' if that is within a second. Sets v->tsc_offset. (kvmclock.c)
 */
void soft_tsc_restore(struct soft_vcpu *v, uint64_t tsc);
/* IA32_APIC_BASE as it is now: CPUID.1:EDX.APIC follows its EN bit. (lapic.c) */
uint64_t lapic_base_get(struct soft_vcpu *v);
/* INIT as delivered to a running CPU, then wait for SIPI; and SIPI (sets CS:IP). (soft.c) */
void soft_cpu_init(struct soft_vcpu *v);
void soft_cpu_sipi(struct soft_vcpu *v, uint8_t vector);

/* ---- Vector unit (vec*.c) ------------------------------------------------ */

/*
 * What the vector unit executes on this host: cpuid.c offers exactly this, and
 * vec_bind() leaves everything else to #UD. Always true: FPU, MMX, FXSR, SSE,
 * SSE2. The XSAVE family is done in C, so it is always offered, XSAVES with
 * IA32_XSS = 0 only. FCS and FDS are always saved as 0: CPUID.(7,0).EBX[13]
 * must be set, EBX[6] (FDP on exceptions only) clear. MISALIGNSSE, SSE4A,
 * VAES, VPCLMULQDQ, GFNI and AVX-512 are never offered.
 */
enum vec_feature {
	VEC_SSE3, VEC_SSSE3, VEC_SSE41, VEC_SSE42, VEC_AES, VEC_PCLMUL, VEC_SHA,
	VEC_AVX, VEC_F16C, VEC_FMA, VEC_AVX2, VEC_XSAVE, VEC_XSAVEOPT, VEC_XSAVEC, VEC_XGETBV1, VEC_XSAVES,
};
bool vec_offers(enum vec_feature f); /* any thread, any time */
/* Bits that XSETBV may set: x87, SSE, and AVX where offered. The standard area is 576 bytes, 832 with AVX (at 576, size 256). */
uint64_t vec_xcr0_mask(void);

int vec_engine_init(struct soft_engine *e, struct err *err);
void vec_engine_free(struct soft_engine *e);
int vec_vcpu_init(struct soft_vcpu *v);
void vec_vcpu_free(struct soft_vcpu *v);
/* XINUSE for XGETBV with ECX = 1 (AND it with XCR0). */
uint64_t vec_xinuse(struct soft_vcpu *v);
/*
 * While the guest runs, its x87 registers and MXCSR may be live in the host's
 * units. vec_sync() writes them back and restores the host's own: call it on
 * the vCPU's thread when soft_run() or soft_step() returns and before foreign
 * code (the callbacks of struct engine_host) runs on that thread. Engine code
 * on a vCPU thread uses no floating point itself.
 */
#define VEC_LIVE_X87 1   /* the host's x87 unit holds the guest's registers, FCW and FSW */
#define VEC_LIVE_MXCSR 2 /* the host's MXCSR is the guest's (all exceptions masked) */
#define VEC_LIVE_MMX 4   /* the host's x87 tags are not clean */
/* Before any use of ymm[] and fx[]. */
static inline void vec_home(struct soft_vcpu *v)
{
	if (__builtin_expect(v->vec_away, 0))
		native_vec_home(v);
}
void vec_sync_slow(struct soft_vcpu *v);
static inline void vec_sync(struct soft_vcpu *v)
{
	if (__builtin_expect(v->vec_live, 0))
		vec_sync_slow(v);
}
void vec_get(struct soft_vcpu *v, uint8_t *xsave);        /* live state -> 4096-byte standard area with header; after vec_sync() */
void vec_set(struct soft_vcpu *v, const uint8_t *xsave);  /* the reverse; any bytes are safe, impossible bits are dropped */
/* Whether the area is one that vec_set() takes as it is: standard form, no unknown components, no reserved MXCSR bits. */
bool vec_area_valid(const uint8_t *xsave);

/* ---- Blocks and the loop ------------------------------------------------- */
int block_engine_init(struct soft_engine *e);
void block_engine_free(struct soft_engine *e);
int block_vcpu_init(struct soft_vcpu *v);
void block_vcpu_free(struct soft_vcpu *v);
void block_flush_all(struct soft_engine *e);  /* everything, at a safe point */
enum vcpu_exit soft_run(struct soft_vcpu *v, struct err *err);
int soft_step(struct soft_vcpu *v, unsigned n, enum vcpu_exit *exit, struct err *err);
/* HLT: returns when something may be pending (excp_poll() decides). (run.c) */
void soft_sleep(struct soft_vcpu *v);
/*
 * Bring all other vCPUs of the engine to the safe point between instructions,
 * and let them go. Not nested. `self` is NULL outside vCPU threads. A caller
 * that waits for another's stop to end counts as stopped itself. (stop.c)
 */
void soft_stop_others(struct soft_engine *e, struct soft_vcpu *self);
void soft_resume_others(struct soft_engine *e, struct soft_vcpu *self);
/*
 * Around mmu_read() + mmu_write() of a LOCKed instruction or XCHG for which
 * rmw_ptr() gave NULL (it crosses a page, or is device memory): no other vCPU
 * runs in between. A fault raised in between releases it (the loop's landing),
 * and so does a call of the host (device memory is not atomic). Nothing that
 * was translated before soft_lock_slow() may be used after it. (stop.c)
 */
void soft_lock_slow(struct soft_vcpu *v);
void soft_unlock_slow(struct soft_vcpu *v);
/*
 * Around every call of an engine_host callback on a vCPU's thread: in between
 * the vCPU counts as stopped, so that a device that holds its lock and changes
 * memory slots does not wait for a vCPU that waits for that lock. Host pointers
 * and TLB entries got before soft_leave() are void after soft_enter(). (stop.c)
 */
void soft_leave(struct soft_vcpu *v);
void soft_enter(struct soft_vcpu *v);
static inline uint32_t soft_pio_read(struct soft_vcpu *v, uint16_t port, unsigned size)
{
	const struct engine_host *h = &v->engine->engine.config.host;
	uint32_t value;

	soft_leave(v);
	value = h->pio_read(h->opaque, port, size);
	soft_enter(v);
	return value;
}
static inline void soft_pio_write(struct soft_vcpu *v, uint16_t port, uint32_t value, unsigned size)
{
	const struct engine_host *h = &v->engine->engine.config.host;

	soft_leave(v);
	h->pio_write(h->opaque, port, value, size);
	soft_enter(v);
}
