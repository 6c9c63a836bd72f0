/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which MSRs are part of the state, and which are kept from guests because they are not. */
#include "engine/kvm/kvm.h"

#include <cpuid.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

/* ---- State --------------------------------------------------------------- */

#define FIELD(msr, name) { msr, offsetof(struct cpu_state, name) }
static const struct msr_row {
	uint32_t index;
	uint32_t offset;
} rows[] = {
	FIELD(0x0000003b, tsc_adjust),
	FIELD(0x0000003a, feature_control),
	FIELD(0x00000048, spec_ctrl),
	FIELD(0x00000174, sysenter_cs),
	FIELD(0x00000175, sysenter_esp),
	FIELD(0x00000176, sysenter_eip),
	FIELD(0x0000017a, mcg_status),
	FIELD(0x0000017b, mcg_ctl),
	FIELD(0x000001a0, misc_enable),
	FIELD(0x00000200, mtrr_phys[0][0]),
	FIELD(0x00000201, mtrr_phys[0][1]),
	FIELD(0x00000202, mtrr_phys[1][0]),
	FIELD(0x00000203, mtrr_phys[1][1]),
	FIELD(0x00000204, mtrr_phys[2][0]),
	FIELD(0x00000205, mtrr_phys[2][1]),
	FIELD(0x00000206, mtrr_phys[3][0]),
	FIELD(0x00000207, mtrr_phys[3][1]),
	FIELD(0x00000208, mtrr_phys[4][0]),
	FIELD(0x00000209, mtrr_phys[4][1]),
	FIELD(0x0000020a, mtrr_phys[5][0]),
	FIELD(0x0000020b, mtrr_phys[5][1]),
	FIELD(0x0000020c, mtrr_phys[6][0]),
	FIELD(0x0000020d, mtrr_phys[6][1]),
	FIELD(0x0000020e, mtrr_phys[7][0]),
	FIELD(0x0000020f, mtrr_phys[7][1]),
	FIELD(0x00000250, mtrr_fix[0]),
	FIELD(0x00000258, mtrr_fix[1]),
	FIELD(0x00000259, mtrr_fix[2]),
	FIELD(0x00000268, mtrr_fix[3]),
	FIELD(0x00000269, mtrr_fix[4]),
	FIELD(0x0000026a, mtrr_fix[5]),
	FIELD(0x0000026b, mtrr_fix[6]),
	FIELD(0x0000026c, mtrr_fix[7]),
	FIELD(0x0000026d, mtrr_fix[8]),
	FIELD(0x0000026e, mtrr_fix[9]),
	FIELD(0x0000026f, mtrr_fix[10]),
	FIELD(0x00000277, pat),
	FIELD(0x000002ff, mtrr_def_type),
	FIELD(0x00000da0, xss),
	FIELD(0xc0000081, star),
	FIELD(0xc0000082, lstar),
	FIELD(0xc0000083, cstar),
	FIELD(0xc0000084, sfmask),
	FIELD(0xc0000102, kernel_gs_base),
	FIELD(0xc0000103, tsc_aux),
	FIELD(0x00000010, tsc), /* behind tsc_adjust: the kernel takes both as they are from us */
	FIELD(0x4b564d00, kvm_wall_clock),
	FIELD(0x4b564d01, kvm_system_time), /* behind the TSC: the kernel fills the guest's time page from it */
	FIELD(0x4b564d03, kvm_steal_time),
	FIELD(0x4b564d04, kvm_pv_eoi),
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))
#define MSR_PLATFORM_INFO 0xceu
#define MSR_TSC 0x10u
#define MSR_TSC_DEADLINE 0x6e0u

/* struct kvm_msrs with room. */
struct msr_list {
	uint32_t nmsrs, pad;
	struct kvm_msr_entry entry[ROWS + 1];
};

static uint64_t *field(struct cpu_state *s, const struct msr_row *row)
{
	return (uint64_t *)((char *)s + row->offset);
}

/*
 * ARCH_CAPABILITIES announces MSRs which would be state: MISC_PACKAGE_CTLS,
 * ENERGY_FILTERING, DOITM, TSX_CTRL, FB_CLEAR_CTRL, XAPIC_DISABLE.
 */
#define MSR_ARCH_CAPABILITIES 0x10au
#define ARCH_CAPABILITIES_WITH_STATE (1u << 7 | 1u << 10 | 1u << 11 | 1u << 12 | 1u << 18 | 1u << 21)
/* Machine check: ten banks and MCG_CTL, as soft has. */
#define MCG_CAP (10u | 0x100u)

void kvm_msr_limit(int fd)
{
	struct msr_list list = { .nmsrs = 1, .entry[0].index = MSR_ARCH_CAPABILITIES };
	uint64_t mcg_cap = MCG_CAP;

	if (kvm_ioctl(fd, KVM_GET_MSRS, &list) == 1) {
		list.entry[0].data &= ~(uint64_t)ARCH_CAPABILITIES_WITH_STATE;
		kvm_ioctl(fd, KVM_SET_MSRS, &list);
	}
	kvm_ioctl(fd, KVM_X86_SETUP_MCE, &mcg_cap);
}

/* The MSRs depend on the host, on CPUID and on the kernel's version: try each. Some can be read but not be set. */
int kvm_msr_init(struct kvm_engine *e, struct err *err)
{
	e->msr_rows = calloc(ROWS, sizeof(*e->msr_rows));
	if (!e->msr_rows)
		return err_set(err, ENOMEM, "out of memory");
	for (unsigned i = 0; i < ROWS; i++) {
		struct msr_list list = { .nmsrs = 1, .entry[0].index = rows[i].index };

		if (kvm_ioctl(e->boot_fd, KVM_GET_MSRS, &list) == 1 &&
		    kvm_ioctl(e->boot_fd, KVM_SET_MSRS, &list) == 1)
			e->msr_rows[e->msr_count++] = i;
	}
	return 0;
}

int kvm_msr_get(struct kvm_vcpu *v, struct cpu_state *s, struct err *err)
{
	struct kvm_engine *e = kvm_vcpu_engine(v);
	struct msr_list list = { .nmsrs = e->msr_count + 1 };
	unsigned i;
	int r;

	for (i = 0; i < e->msr_count; i++)
		list.entry[i].index = rows[e->msr_rows[i]].index;
	list.entry[i].index = MSR_TSC_DEADLINE;
	r = kvm_ioctl(v->fd, KVM_GET_MSRS, &list);
	if (r < 0)
		return err_set_errno(err, -r, "vCPU %u: KVM does not give its MSRs", v->vcpu.index);
	if ((unsigned)r < e->msr_count)
		return err_set(err, EIO, "vCPU %u: KVM does not give MSR 0x%x", v->vcpu.index, list.entry[r].index);
	for (i = 0; i < e->msr_count; i++)
		*field(s, &rows[e->msr_rows[i]]) = list.entry[i].data;
	s->tsc_deadline = (unsigned)r > e->msr_count ? list.entry[i].data : 0;
	s->kvm_clock = kvm_clock_get(e);
	if (e->frozen) {
		s->tsc = v->frozen_tsc;
		s->tsc_deadline = v->frozen_deadline;
	}
	return 0;
}

/* kvmclock runs in step with the TSC on soft, so a state from there says nothing more about it. */
static uint64_t clock_of(struct kvm_engine *e, const struct cpu_state *s)
{
	if (s->kvm_clock)
		return s->kvm_clock;
	return (uint64_t)((unsigned __int128)(s->tsc - s->tsc_adjust) * 1000000 / e->tsc_khz);
}

int kvm_msr_set(struct kvm_vcpu *v, const struct cpu_state *s, struct err *err)
{
	struct kvm_engine *e = kvm_vcpu_engine(v);
	struct msr_list list = { .nmsrs = e->msr_count };
	int r;

	for (unsigned i = 0; i < e->msr_count; i++) {
		const struct msr_row *row = &rows[e->msr_rows[i]];

		list.entry[i].index = row->index;
		list.entry[i].data = *field((struct cpu_state *)s, row);
	}
	v->frozen_tsc = s->tsc;
	if (v->vcpu.index == 0)
		kvm_clock_set(e, clock_of(e, s));
	r = kvm_ioctl(v->fd, KVM_SET_MSRS, &list);
	if (r < 0)
		return err_set_errno(err, -r, "vCPU %u: KVM does not take MSRs", v->vcpu.index);
	if ((unsigned)r < e->msr_count)
		return err_set(err, EINVAL, "vCPU %u: KVM refuses 0x%llx in MSR 0x%x", v->vcpu.index,
			       (unsigned long long)list.entry[r].data, list.entry[r].index);
	return 0;
}

/* Without the TSC: putting back an older one would turn the guest's time back. */
int kvm_msr_set_changed(struct kvm_vcpu *v, const struct cpu_state *from, const struct cpu_state *to, struct err *err)
{
	struct kvm_engine *e = kvm_vcpu_engine(v);
	struct msr_list list = { .nmsrs = 0 };
	int r;

	for (unsigned i = 0; i < e->msr_count; i++) {
		const struct msr_row *row = &rows[e->msr_rows[i]];
		uint64_t value = *field((struct cpu_state *)to, row);

		if (row->index != MSR_TSC && value != *field((struct cpu_state *)from, row))
			list.entry[list.nmsrs++] = (struct kvm_msr_entry){ .index = row->index, .data = value };
	}
	if (!list.nmsrs)
		return 0;
	r = kvm_ioctl(v->fd, KVM_SET_MSRS, &list);
	if (r == (int)list.nmsrs)
		return 0;
	return err_set(err, EIO, "vCPU %u: KVM does not take MSRs", v->vcpu.index);
}

int kvm_msr_set_deadline(struct kvm_vcpu *v, const struct cpu_state *s, struct err *err)
{
	struct msr_list list = { .nmsrs = 1, .entry[0] = { .index = MSR_TSC_DEADLINE, .data = s->tsc_deadline } };
	int r;

	v->frozen_deadline = s->tsc_deadline;
	if (kvm_vcpu_engine(v)->frozen)
		list.entry[0].data = 0;
	r = kvm_ioctl(v->fd, KVM_SET_MSRS, &list);
	if (r != 1 && s->tsc_deadline)
		return err_set(err, EINVAL, "vCPU %u: KVM refuses the TSC deadline", v->vcpu.index);
	return 0;
}

/* ---- Filter -------------------------------------------------------------- */

/*
 * MSRs that the kernel lets guests change although struct cpu_state does not
 * hold them, or that tell about the host. All are at once denied in the kernel
 * and answered here: as constants where guests use them without asking CPUID,
 * else with #GP.
 */
static const struct denied {
	uint32_t first, count;
	bool constant; /* reads as 0, takes writes and forgets them */
} denied[] = {
	{ 0x000000ce, 1, false },  /* PLATFORM_INFO: would offer CPUID faulting; see platform_info() */
	{ 0x00000140, 1, false },  /* MISC_FEATURES_ENABLES: CPUID faulting */
	{ 0x000001d9, 1, true },   /* DEBUGCTL: last branches, single-stepping of branches */
	{ 0x000001db, 4, true },   /* last branch and exception addresses */
	{ 0x000001fc, 1, true },   /* POWER_CTL */
	{ 0x00000480, 20, false }, /* VMX capabilities */
	{ 0xc001011f, 1, false },  /* VIRT_SPEC_CTRL */
};
#define DENIED (sizeof(denied) / sizeof(denied[0]))
_Static_assert(DENIED <= KVM_MSR_FILTER_MAX_RANGES, "the kernel takes no more ranges");

int kvm_msr_filter(struct kvm_engine *e, struct err *err)
{
	static uint64_t nothing; /* a clear bit denies; the kernel reads whole words */
	struct kvm_msr_filter filter = { .flags = KVM_MSR_FILTER_DEFAULT_ALLOW };
	struct kvm_enable_cap cap = { .cap = KVM_CAP_X86_USER_SPACE_MSR, .args = { KVM_MSR_EXIT_REASON_FILTER } };
	int r;

	for (unsigned i = 0; i < DENIED; i++)
		filter.ranges[i] = (struct kvm_msr_filter_range){
			.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
			.base = denied[i].first,
			.nmsrs = denied[i].count,
			.bitmap = (uint8_t *)&nothing,
		};
	r = kvm_ioctl(e->vm, KVM_ENABLE_CAP, &cap);
	if (!r)
		r = kvm_ioctl(e->vm, KVM_X86_SET_MSR_FILTER, &filter);
	return r < 0 ? err_set_errno(err, -r, "KVM takes no MSR filter") : 0;
}

/* Intel: bits 15..8 are the base frequency in units of 100 MHz. */
static bool platform_info(struct kvm_engine *e, uint64_t *value)
{
	uint32_t regs[4];
	uint64_t ratio = (e->tsc_khz + 50000) / 100000;

	*value = (ratio > 255 ? 255 : ratio) << 8;
	return kvm_cpuid(&e->engine, 0, 0, 0, regs) && regs[1] == signature_INTEL_ebx;
}

void kvm_msr_exit(struct kvm_vcpu *v, bool write)
{
	struct kvm_run *run = v->run;
	bool constant = false;
	uint64_t value = 0;

	for (unsigned i = 0; i < DENIED; i++)
		if (run->msr.index - denied[i].first < denied[i].count)
			constant = denied[i].constant;
	if (run->msr.index == MSR_PLATFORM_INFO && !write)
		constant = platform_info(kvm_vcpu_engine(v), &value);
	run->msr.error = !constant;
	if (!write)
		run->msr.data = value;
}
