/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The architectural state in and out; INIT and SIPI. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "engine/cpu_check.h"
#include "engine/soft/core.h"

/* Fields of the same name, type and meaning in struct cpu_state and struct soft_vcpu. */
#define SAME_FIELDS(X)                                                                                              \
	X(rip) X(rflags) X(ldtr) X(tr) X(gdtr) X(idtr) X(cr0) X(cr2) X(cr3) X(cr4) X(xcr0) X(efer)                   \
	X(tsc_adjust) X(tsc_aux) X(pat) X(misc_enable) X(feature_control) X(spec_ctrl) X(xss)                        \
	X(sysenter_cs) X(sysenter_esp) X(sysenter_eip) X(star) X(lstar) X(cstar) X(sfmask) X(kernel_gs_base)         \
	X(mtrr_def_type) X(mcg_status) X(mcg_ctl)                                                                    \
	X(kvm_system_time) X(kvm_wall_clock) X(kvm_pv_eoi) X(kvm_steal_time) X(mp_state) X(nmi_masked)

int state_get(struct vcpu *vcpu, struct cpu_state *s, struct err *err)
{
	struct soft_vcpu *v = soft_vcpu(vcpu);

	memset(s, 0, sizeof(*s));
#define GET(field) s->field = v->field;
	SAME_FIELDS(GET)
#undef GET
	memcpy(s->gpr, v->gpr, sizeof(s->gpr));
	memcpy(s->seg, v->seg, sizeof(s->seg));
	memcpy(s->dr, v->dr, sizeof(s->dr));
	memcpy(s->mtrr_phys, v->mtrr_phys, sizeof(s->mtrr_phys));
	memcpy(s->mtrr_fix, v->mtrr_fix, sizeof(s->mtrr_fix));
	s->interrupt_shadow = v->shadow;
	s->nmi_pending = v->nmi_pending || v->request & REQ_NMI;
	s->sipi_vector = v->sipi_vector;
	if (v->event.active) {
		s->event_pending = 1;
		s->event_vector = v->event.vector;
		s->event_kind = v->event.kind;
		s->event_has_error = v->event.has_error;
		s->event_error = v->event.error;
		s->event_insn_len = v->event.insn_len;
		s->event_payload = v->event.payload;
	}
	vec_sync(v);
	vec_get(v, s->xsave);
	lapic_get(v, s);
	s->cr8 = lapic_get_cr8(v);
	s->tsc = soft_tsc(v);
	return 0;
}

/* cpu_state_check() knows what no CPU can be in; this is what this one can't. */
static int check(struct soft_vcpu *v, const struct cpu_state *s, struct err *err)
{
	uint64_t cr4 = soft_cr4_mask(v), efer = soft_efer_mask(v), xcr0 = vec_xcr0_mask();
	int ret = cpu_state_check(s, err);

	if (ret)
		return ret;
	/* A guest of KVM may use more of the host; handed over here, it needs one instruction run. */
	if (v->engine->probing)
		return 0;
	if (s->cr4 & ~cr4)
		return err_set(err, EINVAL, "CR4 0x%" PRIx64 " has bits that the CPU of engine soft lacks (it has 0x%" PRIx64
			       ")", s->cr4, cr4);
	if (s->efer & ~efer)
		return err_set(err, EINVAL, "EFER 0x%" PRIx64 " has bits that the CPU of engine soft lacks (it has 0x%" PRIx64
			       ")", s->efer, efer);
	if (s->xcr0 & ~xcr0)
		return err_set(err, EINVAL, "XCR0 0x%" PRIx64 " has bits that the CPU of engine soft lacks (it has 0x%" PRIx64
			       ")", s->xcr0, xcr0);
	if (s->cr3 >> SOFT_MAXPHYADDR || !vec_area_valid(s->xsave))
		return err_set(err, EINVAL, s->cr3 >> SOFT_MAXPHYADDR ?
			       "CR3 lies beyond the physical addresses of engine soft" :
			       "the XSAVE area has components that engine soft lacks");
	return 0;
}

/* What follows from everything else, after registers were set by anybody but the guest. */
static void settle(struct soft_vcpu *v)
{
	v->next_rip = v->rip;
	v->gpr[REG_ZERO] = 0;
	v->borrowed = v->step = 0;
	v->dr6_pending = 0;
	v->fault_depth = 0;
	v->irq_held = 1;
	soft_update_mode(v);
	if (v->mode != MODE_64)
		v->rip = v->next_rip = (uint32_t)v->rip;
	mmu_state_loaded(v);
	soft_request(v, REQ_STATE | REQ_IRQ | (v->nmi_pending ? REQ_NMI : 0) |
			(v->rflags & FL_TF || dr7_has_code(v) ? REQ_TRAP : 0));
}

int state_set(struct vcpu *vcpu, const struct cpu_state *s, struct err *err)
{
	struct soft_vcpu *v = soft_vcpu(vcpu);
	int ret = check(v, s, err);

	if (ret)
		return ret;
#define SET(field) v->field = s->field;
	SAME_FIELDS(SET)
#undef SET
	memcpy(v->gpr, s->gpr, sizeof(s->gpr));
	memcpy(v->seg, s->seg, sizeof(v->seg));
	memcpy(v->dr, s->dr, sizeof(v->dr));
	memcpy(v->mtrr_phys, s->mtrr_phys, sizeof(v->mtrr_phys));
	memcpy(v->mtrr_fix, s->mtrr_fix, sizeof(v->mtrr_fix));
	v->cr0 |= CR0_ET;
	v->dr[6] = (v->dr[6] & DR6_WRITABLE) | DR6_FIXED;
	v->dr[7] = (v->dr[7] & DR7_WRITABLE) | DR7_FIXED;
	v->shadow = s->interrupt_shadow;
	v->nmi_pending = !!s->nmi_pending;
	atomic_fetch_and(&v->request, ~(uint32_t)(REQ_NMI | REQ_INIT | REQ_SIPI | REQ_TRAP));
	v->sipi_vector = s->sipi_vector;
	v->unhalted = 0;
	memset(&v->event, 0, sizeof(v->event));
	if (s->event_pending) {
		v->event.active = 1;
		v->event.vector = s->event_vector;
		v->event.kind = s->event_kind;
		v->event.has_error = s->event_has_error;
		v->event.error = s->event_error;
		v->event.insn_len = s->event_insn_len & 15;
		v->event.payload = s->event_payload;
	}
	settle(v);
	vec_set(v, s->xsave);
	lapic_set(v, s);
	if (lapic_get_cr8(v) != s->cr8)
		lapic_set_cr8(v, s->cr8);
	soft_tsc_restore(v, s->tsc);
	return 0;
}

/* ---- INIT and SIPI ------------------------------------------------------- */

/* SDM vol. 3 table 9-1, column INIT; what is not named here stays. */
void soft_cpu_init(struct soft_vcpu *v)
{
	struct cpu_state reset;
	uint32_t id[4];

	cpu_state_reset(&reset, v->vcpu.index);
	soft_cpuid(v, 1, 0, id);
	memset(v->gpr, 0, sizeof(v->gpr));
	v->gpr[R_DX] = id[0];
	v->rip = reset.rip;
	v->rflags = reset.rflags;
	memcpy(v->seg, reset.seg, sizeof(v->seg));
	v->ldtr = reset.ldtr;
	v->tr = reset.tr;
	v->gdtr = reset.gdtr;
	v->idtr = reset.idtr;
	v->cr0 = (reset.cr0 & ~(uint64_t)(CR0_CD | CR0_NW)) | (v->cr0 & (CR0_CD | CR0_NW));
	v->cr2 = v->cr3 = v->cr4 = v->efer = 0;
	memcpy(v->dr, reset.dr, sizeof(v->dr));
	v->shadow = 0;
	v->nmi_masked = v->nmi_pending = 0;
	v->unhalted = 0;
	memset(&v->event, 0, sizeof(v->event));
	lapic_init_signal(v);
	v->mp_state = lapic_base_get(v) & 0x100 ? CPU_MP_RUNNABLE : CPU_MP_WAIT_SIPI;
	settle(v);
}

/* SDM vol. 3 §8.4.3 */
void soft_cpu_sipi(struct soft_vcpu *v, uint8_t vector)
{
	v->seg[SEG_CS].selector = vector << 8;
	v->seg[SEG_CS].base = vector << 12;
	v->rip = v->next_rip = 0;
	v->mp_state = CPU_MP_RUNNABLE;
	soft_update_mode(v);
	soft_request(v, REQ_STATE);
}
