/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The other system instructions: CPUID, time stamps, MSRs, HLT, STAC and CLAC,
 * random numbers, hypercalls, and those that are not offered.
 */
#include "engine/soft/sys.h"

#define MSR_EFER 0xc0000080u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u

void sys_undefined(struct soft_vcpu *v, const struct insn *i)
{
	soft_raise(v, EXC_UD, 0);
}

static void set_edx_eax(struct soft_vcpu *v, uint64_t value)
{
	v->gpr[R_AX] = (uint32_t)value;
	v->gpr[R_DX] = value >> 32;
}

static void sys_cpuid(struct soft_vcpu *v, const struct insn *i)
{
	uint32_t regs[4];

	soft_cpuid(v, v->gpr[R_AX], v->gpr[R_CX], regs);
	v->gpr[R_AX] = regs[0];
	v->gpr[R_BX] = regs[1];
	v->gpr[R_CX] = regs[2];
	v->gpr[R_DX] = regs[3];
}

/* ---- Time stamps and counters -------------------------------------------- */

static void check_tsd(struct soft_vcpu *v)
{
	if (unlikely(v->cpl && v->cr4 & CR4_TSD))
		soft_raise(v, EXC_GP, 0);
}

static void sys_rdtsc(struct soft_vcpu *v, const struct insn *i)
{
	check_tsd(v);
	set_edx_eax(v, soft_tsc(v));
}

static void sys_rdtscp(struct soft_vcpu *v, const struct insn *i)
{
	check_tsd(v);
	set_edx_eax(v, soft_tsc(v));
	v->gpr[R_CX] = (uint32_t)v->tsc_aux;
}

static void sys_rdpid(struct soft_vcpu *v, const struct insn *i)
{
	reg_set(v, i->rm, (uint32_t)v->tsc_aux, 8);
}

/* No counters exist, so that every index is wrong. */
static void sys_rdpmc(struct soft_vcpu *v, const struct insn *i)
{
	soft_raise(v, EXC_GP, 0);
}

/* ---- MSRs ---------------------------------------------------------------- */

static void sys_rdmsr(struct soft_vcpu *v, const struct insn *i)
{
	uint64_t value;

	soft_need_cpl0(v);
	if (!msr_read(v, v->gpr[R_CX], &value))
		soft_raise(v, EXC_GP, 0);
	set_edx_eax(v, value);
}

static void sys_wrmsr(struct soft_vcpu *v, const struct insn *i)
{
	uint32_t index = v->gpr[R_CX];
	uint64_t value = (uint32_t)v->gpr[R_AX] | v->gpr[R_DX] << 32;

	soft_need_cpl0(v);
	if (!(index == MSR_EFER ? soft_set_efer(v, value) : msr_write(v, index, value)))
		soft_raise(v, EXC_GP, 0);
	if (unlikely(v->mode != MODE_64) && (index == MSR_FS_BASE || index == MSR_GS_BASE))
		soft_update_mode(v);
}

/* ---- Others -------------------------------------------------------------- */

static void sys_hlt(struct soft_vcpu *v, const struct insn *i)
{
	soft_need_cpl0(v);
	if (atomic_load(&v->unhalted) && atomic_exchange(&v->unhalted, 0))
		return;
	v->mp_state = CPU_MP_HALTED;
	soft_request(v, REQ_STATE);
}

/* STAC and CLAC change which TLB view is used, nothing that blocks depend on. */
static void sys_stac(struct soft_vcpu *v, const struct insn *i)
{
	if (unlikely(v->cpl))
		soft_raise(v, EXC_UD, 0);
	v->rflags |= FL_AC;
	soft_use_view(v, soft_view(v, 0));
}

static void sys_clac(struct soft_vcpu *v, const struct insn *i)
{
	if (unlikely(v->cpl))
		soft_raise(v, EXC_UD, 0);
	v->rflags &= ~(uint64_t)FL_AC;
	soft_use_view(v, soft_view(v, 0));
}

static void set_random(struct soft_vcpu *v, const struct insn *i, uint64_t value, bool ok)
{
	reg_set(v, i->rm, ok ? value : 0, i->opsize);
	v->rflags = (v->rflags & ~(uint64_t)FLAGS_ARITH) | (ok ? FL_CF : 0);
}

static void sys_rdrand(struct soft_vcpu *v, const struct insn *i)
{
	uint64_t value;
	bool ok;

	asm volatile("rdrand %0" : "=r"(value), "=@ccc"(ok));
	set_random(v, i, value, ok);
}

static void sys_rdseed(struct soft_vcpu *v, const struct insn *i)
{
	uint64_t value;
	bool ok;

	asm volatile("rdseed %0" : "=r"(value), "=@ccc"(ok));
	set_random(v, i, value, ok);
}

/* ---- Hypercalls, as KVM answers them (Documentation/virt/kvm/x86/hypercalls.rst) */

#define KVM_HC_VAPIC_POLL_IRQ 1
#define KVM_HC_KICK_CPU 5
#define KVM_ENOSYS 1000
#define KVM_EPERM 1

/* Wake the vCPU with this APIC ID, which is its index, out of HLT. */
static void kick_cpu(struct soft_vcpu *v, uint64_t apic_id)
{
	struct soft_vcpu *other = NULL;

	if (apic_id < ENGINE_MAX_CPUS)
		other = __atomic_load_n(&v->engine->vcpus[apic_id], __ATOMIC_ACQUIRE);
	if (!other)
		return;
	atomic_store(&other->unhalted, 1);
	soft_wake(other, REQ_IRQ);
}

static void sys_vmcall(struct soft_vcpu *v, const struct insn *i)
{
	unsigned size = i->mode == MODE_64 ? 8 : 4;
	int64_t result = 0;

	if (v->cpl) {
		result = -KVM_EPERM;
	} else {
		switch (reg_get(v, R_AX, size)) {
		case KVM_HC_VAPIC_POLL_IRQ:
			break;
		case KVM_HC_KICK_CPU:
			kick_cpu(v, reg_get(v, R_CX, size));
			break;
		default:
			result = -KVM_ENOSYS;
		}
	}
	reg_set(v, R_AX, result, size);
}

/* ---- Binding ------------------------------------------------------------- */

static insn_fn *bind_01(const struct insn *i, bool *ends)
{
	switch (i->modrm) {
	case 0xc1:
	case 0xd9:
		*ends = true;
		return sys_vmcall;
	case 0xca:
		return insn_has_prefix(i) ? sys_undefined : sys_clac;
	case 0xcb:
		return insn_has_prefix(i) ? sys_undefined : sys_stac;
	case 0xf9:
		return sys_rdtscp;
	default:
		return sys_undefined; /* VMX, SVM, SGX, MONITOR, MWAIT, PKU, CLZERO */
	}
}

static insn_fn *bind_c7(const struct insn *i)
{
	switch (modrm_reg(i)) {
	case 6:
		return i->prefixes & (PFX_F2 | PFX_F3) ? sys_undefined : sys_rdrand;
	case 7:
		return i->prefixes & PFX_F3 ? sys_rdpid : i->prefixes & PFX_F2 ? sys_undefined : sys_rdseed;
	default:
		return NULL;
	}
}

insn_fn *sys_misc_bind(const struct insn *i, bool *ends)
{
	if (insn_is(i, MAP_1B, 0xf4)) {
		*ends = true;
		return sys_hlt;
	}
	if (i->map != MAP_0F)
		return NULL;
	switch (i->opcode) {
	case 0x01:
		return i->is_mem ? NULL : bind_01(i, ends);
	case 0x0b:
	case 0xb9:
	case 0xff:
		return sys_undefined; /* UD2, UD1, UD0 */
	case 0x30:
		*ends = true;
		return sys_wrmsr;
	case 0x31:
		return sys_rdtsc;
	case 0x32:
		return sys_rdmsr;
	case 0x33:
		return sys_rdpmc;
	case 0xa2:
		return sys_cpuid;
	case 0xaa:
		return sys_undefined; /* RSM outside SMM */
	case 0xc7:
		return i->is_mem ? NULL : bind_c7(i);
	default:
		return NULL;
	}
}
