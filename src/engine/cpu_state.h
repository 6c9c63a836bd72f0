/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The architectural state of one vCPU: what engines exchange, what a save
 * file holds. Nothing here belongs to an engine. Names and encodings follow
 * the Intel SDM; where KVM has a layout (XSAVE area, LAPIC page) it is KVM's.
 */
#pragma once
#include <stdint.h>

enum { R_AX, R_CX, R_DX, R_BX, R_SP, R_BP, R_SI, R_DI, R_8, R_9, R_10, R_11, R_12, R_13, R_14, R_15 };
enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_COUNT };

/*
 * A segment register with its descriptor cache. `attr` is bits 8..15 and
 * 20..23 of the descriptor's upper word, shifted down by 8 (SDM vol. 3 §3.4.5):
 * 0-3 type, 4 S, 5-6 DPL, 7 P, 12 AVL, 13 L, 14 D/B, 15 G, and bit 16 of
 * ours: unusable (a null selector). `limit` is in bytes, already scaled.
 */
struct cpu_segment {
	uint64_t base;
	uint32_t limit;
	uint32_t attr;
	uint16_t selector;
	uint16_t pad[3];
};
#define SEG_ATTR_TYPE 0x000fu
#define SEG_ATTR_S 0x0010u
#define SEG_ATTR_DPL_SHIFT 5
#define SEG_ATTR_P 0x0080u
#define SEG_ATTR_AVL 0x1000u
#define SEG_ATTR_L 0x2000u
#define SEG_ATTR_DB 0x4000u
#define SEG_ATTR_G 0x8000u
#define SEG_ATTR_UNUSABLE 0x10000u

struct cpu_table {
	uint64_t base;
	uint16_t limit;
	uint16_t pad[3];
};

enum cpu_mp_state {
	CPU_MP_RUNNABLE,
	CPU_MP_HALTED,
	CPU_MP_WAIT_INIT, /* an application processor after reset: waits for INIT (KVM: UNINITIALIZED) */
	CPU_MP_WAIT_SIPI, /* after INIT */
};

/* cpu_state.event_kind (SDM vol. 3 §24.8.3) */
enum cpu_event_kind {
	CPU_EVENT_INTERRUPT = 0,
	CPU_EVENT_NMI = 2,
	CPU_EVENT_EXCEPTION = 3,
	CPU_EVENT_SOFTWARE = 4, /* INT n */
};

#define CPU_XSAVE_SIZE 4096 /* standard format, legacy region and header included */
#define CPU_LAPIC_SIZE 1024 /* registers at their xAPIC offsets, as KVM_GET_LAPIC */
#define CPU_MTRR_VAR 8

struct cpu_state {
	uint64_t gpr[16]; /* R_* */
	uint64_t rip, rflags;
	struct cpu_segment seg[SEG_COUNT], ldtr, tr;
	struct cpu_table gdtr, idtr;
	uint64_t cr0, cr2, cr3, cr4, cr8, xcr0, efer;
	uint64_t dr[8]; /* 4 and 5 unused */

	/* MSRs */
	uint64_t tsc; /* guest's TSC at the moment of the get or set; 0 to set: power-on, the engine chooses (soft: the host's) */
	uint64_t tsc_adjust, tsc_aux, tsc_deadline;
	uint64_t apic_base, pat, misc_enable, feature_control, spec_ctrl, xss;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t star, lstar, cstar, sfmask, kernel_gs_base; /* FS/GS base: seg[] */
	uint64_t mtrr_def_type, mtrr_phys[CPU_MTRR_VAR][2], mtrr_fix[11];
	uint64_t mcg_status, mcg_ctl;
	/* kvmclock in ns at the moment of `tsc`; 0: it is the TSC less tsc_adjust, as soft keeps it. vCPU 0's counts. */
	uint64_t kvm_clock;
	uint64_t kvm_system_time, kvm_wall_clock, kvm_pv_eoi, kvm_steal_time; /* MSR_KVM_*_NEW */

	/* Events between instructions */
	uint8_t mp_state; /* enum cpu_mp_state */
	uint8_t interrupt_shadow; /* 1: STI, 2: MOV SS blocks the next interrupt */
	uint8_t nmi_masked, nmi_pending, smi_pending;
	uint8_t event_pending; /* an exception or interrupt that is delivered before the next instruction */
	uint8_t event_vector, event_has_error;
	uint8_t event_kind; /* enum cpu_event_kind */
	uint8_t sipi_vector;
	uint8_t pad[6];
	uint32_t event_error, event_insn_len;
	uint64_t event_payload; /* CR2 or DR6 of a pending exception */

	uint8_t lapic[CPU_LAPIC_SIZE];
	uint8_t xsave[CPU_XSAVE_SIZE] __attribute__((aligned(64)));
};

/* The state after power-on (SDM vol. 3 §9.1.1). `index` 0 is the boot processor. Writes the whole struct. */
void cpu_state_reset(struct cpu_state *s, unsigned index);
/* Uninitialized memory for one, aligned as it wants; free() it. NULL: no memory. Large for a stack. */
struct cpu_state *cpu_state_new(void);
