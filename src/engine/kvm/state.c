/* SPDX-License-Identifier: GPL-2.0-or-later */
/* struct cpu_state to and from the kernel's structs. */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/cpu_check.h"

/* x87, SSE, header, AVX: all that guests have */
#define XSAVE_XSTATE_BV 512
#define XSAVE_HELD 832

/* ---- Registers ----------------------------------------------------------- */

void kvm_regs_to_state(const struct kvm_regs *r, struct cpu_state *s)
{
	const uint64_t gpr[16] = {
		[R_AX] = r->rax, [R_CX] = r->rcx, [R_DX] = r->rdx, [R_BX] = r->rbx,
		[R_SP] = r->rsp, [R_BP] = r->rbp, [R_SI] = r->rsi, [R_DI] = r->rdi,
		[R_8] = r->r8,   [R_9] = r->r9,   [R_10] = r->r10, [R_11] = r->r11,
		[R_12] = r->r12, [R_13] = r->r13, [R_14] = r->r14, [R_15] = r->r15,
	};

	memcpy(s->gpr, gpr, sizeof(gpr));
	s->rip = r->rip;
	s->rflags = r->rflags;
}

void kvm_regs_from_state(struct kvm_regs *r, const struct cpu_state *s)
{
	*r = (struct kvm_regs){
		.rax = s->gpr[R_AX], .rcx = s->gpr[R_CX], .rdx = s->gpr[R_DX], .rbx = s->gpr[R_BX],
		.rsp = s->gpr[R_SP], .rbp = s->gpr[R_BP], .rsi = s->gpr[R_SI], .rdi = s->gpr[R_DI],
		.r8 = s->gpr[R_8],   .r9 = s->gpr[R_9],   .r10 = s->gpr[R_10], .r11 = s->gpr[R_11],
		.r12 = s->gpr[R_12], .r13 = s->gpr[R_13], .r14 = s->gpr[R_14], .r15 = s->gpr[R_15],
		.rip = s->rip,       .rflags = s->rflags,
	};
}

static struct cpu_segment segment_to_state(const struct kvm_segment *k)
{
	return (struct cpu_segment){
		.base = k->base,
		.limit = k->limit,
		.selector = k->selector,
		.attr = (k->type & SEG_ATTR_TYPE) | (k->s ? SEG_ATTR_S : 0) | (k->dpl & 3u) << SEG_ATTR_DPL_SHIFT |
			(k->present ? SEG_ATTR_P : 0) | (k->avl ? SEG_ATTR_AVL : 0) | (k->l ? SEG_ATTR_L : 0) |
			(k->db ? SEG_ATTR_DB : 0) | (k->g ? SEG_ATTR_G : 0) | (k->unusable ? SEG_ATTR_UNUSABLE : 0),
	};
}

static struct kvm_segment segment_from_state(const struct cpu_segment *c)
{
	bool unusable = c->attr & SEG_ATTR_UNUSABLE;

	return (struct kvm_segment){
		.base = c->base,
		.limit = c->limit,
		.selector = c->selector,
		.type = c->attr & SEG_ATTR_TYPE,
		.s = !!(c->attr & SEG_ATTR_S),
		.dpl = c->attr >> SEG_ATTR_DPL_SHIFT & 3,
		.present = (c->attr & SEG_ATTR_P) && !unusable,
		.avl = !!(c->attr & SEG_ATTR_AVL),
		.l = !!(c->attr & SEG_ATTR_L),
		.db = !!(c->attr & SEG_ATTR_DB),
		.g = !!(c->attr & SEG_ATTR_G),
		.unusable = unusable,
	};
}

static struct cpu_table table_to_state(const struct kvm_dtable *k)
{
	return (struct cpu_table){ .base = k->base, .limit = k->limit };
}

static struct kvm_dtable table_from_state(const struct cpu_table *c)
{
	return (struct kvm_dtable){ .base = c->base, .limit = c->limit };
}

void kvm_sregs_to_state(const struct kvm_sregs *r, struct cpu_state *s)
{
	s->seg[SEG_ES] = segment_to_state(&r->es);
	s->seg[SEG_CS] = segment_to_state(&r->cs);
	s->seg[SEG_SS] = segment_to_state(&r->ss);
	s->seg[SEG_DS] = segment_to_state(&r->ds);
	s->seg[SEG_FS] = segment_to_state(&r->fs);
	s->seg[SEG_GS] = segment_to_state(&r->gs);
	s->ldtr = segment_to_state(&r->ldt);
	s->tr = segment_to_state(&r->tr);
	s->gdtr = table_to_state(&r->gdt);
	s->idtr = table_to_state(&r->idt);
	s->cr0 = r->cr0;
	s->cr2 = r->cr2;
	s->cr3 = r->cr3;
	s->cr4 = r->cr4;
	s->cr8 = r->cr8;
	s->efer = r->efer;
	s->apic_base = r->apic_base;
}

/* PAE's four PDPTEs are read from memory again, as at a write to CR3. */
void kvm_sregs_from_state(struct kvm_sregs *r, const struct cpu_state *s)
{
	*r = (struct kvm_sregs){
		.es = segment_from_state(&s->seg[SEG_ES]),
		.cs = segment_from_state(&s->seg[SEG_CS]),
		.ss = segment_from_state(&s->seg[SEG_SS]),
		.ds = segment_from_state(&s->seg[SEG_DS]),
		.fs = segment_from_state(&s->seg[SEG_FS]),
		.gs = segment_from_state(&s->seg[SEG_GS]),
		.ldt = segment_from_state(&s->ldtr),
		.tr = segment_from_state(&s->tr),
		.gdt = table_from_state(&s->gdtr),
		.idt = table_from_state(&s->idtr),
		.cr0 = s->cr0,
		.cr2 = s->cr2,
		.cr3 = s->cr3,
		.cr4 = s->cr4,
		.cr8 = s->cr8,
		.efer = s->efer,
		.apic_base = s->apic_base,
	};
	if (s->event_pending && s->event_kind == CPU_EVENT_INTERRUPT)
		r->interrupt_bitmap[s->event_vector / 64] |= 1ull << (s->event_vector % 64);
	if (s->event_pending && s->event_kind == CPU_EVENT_EXCEPTION && s->event_vector == 14)
		r->cr2 = s->event_payload;
}

/* ---- Events -------------------------------------------------------------- */

/*
 * Software interrupts and exceptions (INT n, INT3, INTO) that were stopped in
 * their delivery are not taken over: RIP still points to the instruction,
 * which runs again.
 */
static bool is_software(const struct kvm_vcpu_events *r)
{
	if (r->interrupt.injected)
		return r->interrupt.soft;
	return r->exception.injected && (r->exception.nr == 3 || r->exception.nr == 4);
}

/*
 * A payload that the kernel still holds back is the event's. Once an exception
 * is "injected" its payload is in CR2 or DR6 already; then it is repeated here,
 * so that whoever delivers it needs not care.
 */
static uint64_t exception_payload(const struct kvm_vcpu_events *r, const struct cpu_state *s)
{
	if (r->exception_has_payload)
		return r->exception_payload;
	return r->exception.nr == 14 ? s->cr2 : r->exception.nr == 1 ? s->dr[6] : 0;
}

void kvm_events_to_state(const struct kvm_vcpu_events *r, struct cpu_state *s)
{
	s->interrupt_shadow = (r->interrupt.shadow & KVM_X86_SHADOW_INT_STI ? 1 : 0) |
			      (r->interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? 2 : 0);
	s->nmi_masked = !!r->nmi.masked;
	s->nmi_pending = !!r->nmi.pending;
	s->smi_pending = 0;
	s->sipi_vector = r->sipi_vector;
	s->event_pending = 0;
	s->event_kind = s->event_vector = s->event_has_error = 0;
	s->event_error = s->event_insn_len = 0;
	s->event_payload = 0;
	if (is_software(r))
		return;
	if (r->exception.injected || r->exception.pending) {
		s->event_pending = 1;
		s->event_kind = CPU_EVENT_EXCEPTION;
		s->event_vector = r->exception.nr;
		s->event_has_error = !!r->exception.has_error_code;
		s->event_error = r->exception.error_code;
		s->event_payload = exception_payload(r, s);
	} else if (r->nmi.injected) {
		s->event_pending = 1;
		s->event_kind = CPU_EVENT_NMI;
		s->event_vector = 2;
	} else if (r->interrupt.injected) {
		s->event_pending = 1;
		s->event_kind = CPU_EVENT_INTERRUPT;
		s->event_vector = r->interrupt.nr;
	}
}

/* An exception is handed over as "injected": CR2 and DR6 are set by kvm_sregs_from_state() and kvm_debug_set(). */
void kvm_events_from_state(struct kvm_vcpu_events *r, const struct cpu_state *s)
{
	*r = (struct kvm_vcpu_events){
		.interrupt.shadow = (s->interrupt_shadow & 1 ? KVM_X86_SHADOW_INT_STI : 0) |
				    (s->interrupt_shadow & 2 ? KVM_X86_SHADOW_INT_MOV_SS : 0),
		.nmi.masked = s->nmi_masked,
		.nmi.pending = s->nmi_pending,
		.sipi_vector = s->sipi_vector,
		.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
			 KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_PAYLOAD,
	};
	if (!s->event_pending)
		return;
	switch (s->event_kind) {
	case CPU_EVENT_INTERRUPT:
		r->interrupt.injected = 1;
		r->interrupt.nr = s->event_vector;
		break;
	case CPU_EVENT_NMI:
		r->nmi.injected = 1;
		break;
	case CPU_EVENT_EXCEPTION:
		r->exception.injected = 1;
		r->exception.nr = s->event_vector;
		r->exception.has_error_code = s->event_has_error;
		r->exception.error_code = s->event_error;
		break;
	}
}

/* ---- Parts with a system call of their own ------------------------------- */

static int part(int r, const struct kvm_vcpu *v, const char *what, struct err *err)
{
	return r < 0 ? err_set_errno(err, -r, "vCPU %u: KVM refuses %s", v->vcpu.index, what) : 0;
}

int kvm_fpu_get(struct kvm_vcpu *v, struct cpu_state *s, struct err *err)
{
	struct kvm_engine *e = kvm_vcpu_engine(v);
	struct kvm_xcrs xcrs = { 0 };
	uint8_t *area = malloc(e->caps.xsave_size);
	int r;

	if (!area)
		return err_set(err, ENOMEM, "out of memory");
	r = kvm_ioctl(v->fd, e->caps.xsave_size > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, area);
	/* The host may have more components in use (PKRU); guests do not know them (cpuid.c). */
	if (!r) {
		memcpy(s->xsave, area, XSAVE_HELD);
		memset(s->xsave + XSAVE_XSTATE_BV + 1, 0, 63);
		s->xsave[XSAVE_XSTATE_BV] &= 7;
	}
	free(area);
	if (r < 0)
		return part(r, v, "to give the XSAVE area", err);
	/* Fails where the guest has no XSAVE; then XCR0 is what it is after reset. */
	kvm_ioctl(v->fd, KVM_GET_XCRS, &xcrs);
	s->xcr0 = 1;
	for (unsigned i = 0; i < xcrs.nr_xcrs && i < KVM_MAX_XCRS; i++)
		if (xcrs.xcrs[i].xcr == 0)
			s->xcr0 = xcrs.xcrs[i].value;
	return 0;
}

int kvm_fpu_set(struct kvm_vcpu *v, const struct cpu_state *s, struct err *err)
{
	struct kvm_engine *e = kvm_vcpu_engine(v);
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0] = { .xcr = 0, .value = s->xcr0 } };
	uint8_t *area;
	int r;

	if (s->xcr0 != 1) {
		r = kvm_ioctl(v->fd, KVM_SET_XCRS, &xcrs);
		if (r < 0)
			return err_set_errno(err, -r, "vCPU %u: KVM refuses XCR0 0x%llx", v->vcpu.index,
					     (unsigned long long)s->xcr0);
	} else {
		kvm_ioctl(v->fd, KVM_SET_XCRS, &xcrs);
	}
	area = calloc(1, e->caps.xsave_size);
	if (!area)
		return err_set(err, ENOMEM, "out of memory");
	memcpy(area, s->xsave, CPU_XSAVE_SIZE);
	r = kvm_ioctl(v->fd, KVM_SET_XSAVE, area);
	free(area);
	return part(r, v, "the XSAVE area", err);
}

int kvm_debug_get(struct kvm_vcpu *v, struct cpu_state *s, struct err *err)
{
	struct kvm_debugregs d;
	int r = kvm_ioctl(v->fd, KVM_GET_DEBUGREGS, &d);

	if (r < 0)
		return part(r, v, "to give the debug registers", err);
	memcpy(s->dr, d.db, sizeof(d.db));
	s->dr[4] = s->dr[5] = 0;
	s->dr[6] = d.dr6;
	s->dr[7] = d.dr7;
	return 0;
}

int kvm_debug_set(struct kvm_vcpu *v, const struct cpu_state *s, struct err *err)
{
	struct kvm_debugregs d = { .dr6 = s->dr[6], .dr7 = s->dr[7] };

	memcpy(d.db, s->dr, sizeof(d.db));
	if (s->event_pending && s->event_kind == CPU_EVENT_EXCEPTION && s->event_vector == 1)
		d.dr6 |= s->event_payload & 0xe00f;
	return part(kvm_ioctl(v->fd, KVM_SET_DEBUGREGS, &d), v, "the debug registers", err);
}

static const uint8_t mp_to_kvm[] = {
	[CPU_MP_RUNNABLE] = KVM_MP_STATE_RUNNABLE,
	[CPU_MP_HALTED] = KVM_MP_STATE_HALTED,
	[CPU_MP_WAIT_INIT] = KVM_MP_STATE_UNINITIALIZED,
	[CPU_MP_WAIT_SIPI] = KVM_MP_STATE_INIT_RECEIVED,
};

static uint8_t mp_from_kvm(uint32_t mp_state)
{
	for (unsigned i = 0; i < sizeof(mp_to_kvm); i++)
		if (mp_to_kvm[i] == mp_state)
			return i;
	return CPU_MP_RUNNABLE;
}

/* ---- The whole ----------------------------------------------------------- */

static int get_all(struct kvm_vcpu *v, struct cpu_state *s, struct err *err)
{
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_vcpu_events events;
	struct kvm_lapic_state lapic;
	struct kvm_mp_state mp;
	int r;

	/* First: the kernel takes a waiting INIT or SIPI now, which changes the rest. */
	r = part(kvm_ioctl(v->fd, KVM_GET_MP_STATE, &mp), v, "to give the run state", err);
	if (!r)
		r = part(kvm_ioctl(v->fd, KVM_GET_REGS, &regs), v, "to give the registers", err);
	if (!r)
		r = part(kvm_ioctl(v->fd, KVM_GET_SREGS, &sregs), v, "to give the control registers", err);
	if (!r)
		r = part(kvm_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &events), v, "to give pending events", err);
	if (!r)
		r = part(kvm_ioctl(v->fd, KVM_GET_LAPIC, &lapic), v, "to give the local APIC", err);
	if (!r)
		r = kvm_fpu_get(v, s, err);
	if (!r)
		r = kvm_debug_get(v, s, err);
	if (!r)
		r = kvm_msr_get(v, s, err);
	if (r < 0)
		return r;
	s->mp_state = mp_from_kvm(mp.mp_state);
	kvm_regs_to_state(&regs, s);
	kvm_sregs_to_state(&sregs, s);
	kvm_events_to_state(&events, s);
	memcpy(s->lapic, lapic.regs, CPU_LAPIC_SIZE);
	return 0;
}

int kvm_get_state(struct vcpu *vcpu, struct cpu_state *s, struct err *err)
{
	struct kvm_vcpu *v = kvm_vcpu(vcpu);
	int r = kvm_settle(v, err);

	if (r < 0)
		return r;
	memset(s, 0, sizeof(*s));
	return get_all(v, s, err);
}

/* In this order: control registers, what depends on them, the APIC (its base came with the former), its deadline. */
static int set_all(struct kvm_vcpu *v, const struct cpu_state *s, struct err *err)
{
	struct kvm_mp_state mp = { .mp_state = mp_to_kvm[s->mp_state] };
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_vcpu_events events;
	struct kvm_lapic_state lapic;
	int r;

	kvm_regs_from_state(&regs, s);
	kvm_sregs_from_state(&sregs, s);
	kvm_events_from_state(&events, s);
	memcpy(lapic.regs, s->lapic, CPU_LAPIC_SIZE);
	r = kvm_ioctl(v->fd, KVM_SET_SREGS, &sregs);
	if (r < 0)
		return err_set_errno(err, -r,
				     "vCPU %u: KVM refuses the control registers (CR0 0x%llx, CR4 0x%llx, EFER 0x%llx)",
				     v->vcpu.index, (unsigned long long)s->cr0, (unsigned long long)s->cr4,
				     (unsigned long long)s->efer);
	r = kvm_fpu_set(v, s, err);
	if (!r)
		r = part(kvm_ioctl(v->fd, KVM_SET_REGS, &regs), v, "the registers", err);
	if (!r)
		r = kvm_debug_set(v, s, err);
	if (!r)
		r = kvm_msr_set(v, s, err);
	if (!r)
		r = part(kvm_ioctl(v->fd, KVM_SET_LAPIC, &lapic), v, "the local APIC", err);
	if (!r)
		r = kvm_msr_set_deadline(v, s, err);
	if (!r)
		r = part(kvm_ioctl(v->fd, KVM_SET_MP_STATE, &mp), v, "the run state", err);
	if (!r)
		r = part(kvm_ioctl(v->fd, KVM_SET_VCPU_EVENTS, &events), v, "pending events", err);
	return r;
}

int kvm_set_state(struct vcpu *vcpu, const struct cpu_state *s, struct err *err)
{
	struct kvm_vcpu *v = kvm_vcpu(vcpu);
	int r = cpu_state_check(s, err);

	if (!r)
		r = kvm_settle(v, err);
	if (r < 0)
		return r;
	v->run->ready_for_interrupt_injection = 0;
	return set_all(v, s, err);
}

bool kvm_translate(struct vcpu *vcpu, uint64_t linear, uint64_t *gpa)
{
	struct kvm_translation t = { .linear_address = linear };

	if (kvm_ioctl(kvm_vcpu(vcpu)->fd, KVM_TRANSLATE, &t) < 0 || !t.valid)
		return false;
	*gpa = t.physical_address;
	return true;
}
