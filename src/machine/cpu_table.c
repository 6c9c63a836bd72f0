/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The state table of a vCPU: struct cpu_state field by field, the same for every engine. */
#include "machine/machine.h"

static const struct state_field segment_fields[] = {
	STATE_FIELD_U64(struct cpu_segment, base),
	STATE_FIELD_U32(struct cpu_segment, limit),
	STATE_FIELD_U32(struct cpu_segment, attr),
	STATE_FIELD_U16(struct cpu_segment, selector),
	STATE_END,
};
static const struct state_desc segment_desc = { .name = "segment", .version = 1, .fields = segment_fields };

static const struct state_field table_fields[] = {
	STATE_FIELD_U64(struct cpu_table, base),
	STATE_FIELD_U16(struct cpu_table, limit),
	STATE_END,
};
static const struct state_desc table_desc = { .name = "table", .version = 1, .fields = table_fields };

#define F8(f) STATE_FIELD_U8(struct cpu_state, f)
#define F32(f) STATE_FIELD_U32(struct cpu_state, f)
#define F64(f) STATE_FIELD_U64(struct cpu_state, f)

static const struct state_field cpu_fields[] = {
	STATE_ARRAY_U64(struct cpu_state, gpr),
	F64(rip),
	F64(rflags),
	STATE_ARRAY_STRUCT(struct cpu_state, seg, &segment_desc),
	STATE_FIELD_STRUCT(struct cpu_state, ldtr, &segment_desc),
	STATE_FIELD_STRUCT(struct cpu_state, tr, &segment_desc),
	STATE_FIELD_STRUCT(struct cpu_state, gdtr, &table_desc),
	STATE_FIELD_STRUCT(struct cpu_state, idtr, &table_desc),
	F64(cr0),
	F64(cr2),
	F64(cr3),
	F64(cr4),
	F64(cr8),
	F64(xcr0),
	F64(efer),
	STATE_ARRAY_U64(struct cpu_state, dr),
	F64(tsc),
	F64(tsc_adjust),
	F64(tsc_aux),
	F64(tsc_deadline),
	F64(apic_base),
	F64(pat),
	F64(misc_enable),
	F64(feature_control),
	F64(spec_ctrl),
	F64(xss),
	F64(sysenter_cs),
	F64(sysenter_esp),
	F64(sysenter_eip),
	F64(star),
	F64(lstar),
	F64(cstar),
	F64(sfmask),
	F64(kernel_gs_base),
	F64(mtrr_def_type),
	{ .name = "mtrr_phys", .type = STATE_U64, .since = 1, .offset = offsetof(struct cpu_state, mtrr_phys),
	  .count = 2 * CPU_MTRR_VAR, .size = 8 },
	STATE_ARRAY_U64(struct cpu_state, mtrr_fix),
	F64(mcg_status),
	F64(mcg_ctl),
	F64(kvm_system_time),
	F64(kvm_wall_clock),
	F64(kvm_pv_eoi),
	F64(kvm_steal_time),
	F8(mp_state),
	F8(interrupt_shadow),
	F8(nmi_masked),
	F8(nmi_pending),
	F8(smi_pending),
	F8(event_pending),
	F8(event_vector),
	F8(event_has_error),
	F8(event_kind),
	F8(sipi_vector),
	F32(event_error),
	F32(event_insn_len),
	F64(event_payload),
	STATE_FIELD_BYTES(struct cpu_state, lapic),
	STATE_FIELD_BYTES(struct cpu_state, xsave),
	STATE_END,
};

const struct state_desc cpu_state_desc = { .name = "x86-cpu", .version = 1, .fields = cpu_fields };
