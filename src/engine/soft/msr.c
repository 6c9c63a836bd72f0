/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Model-specific registers (SDM vol. 4, APM vol. 2 appendix A): those that
 * Linux, the BSDs and Windows read or write. A table says where each lives;
 * what needs checks or has effects is a function.
 */
#include <stddef.h>

#include "engine/soft/lapic.h"
#include "util/log.h"

#define MCE_BANKS 10

struct msr;
typedef bool msr_fn(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write);

enum { ANY, INTEL, AMD, PV }; /* who has it */

struct msr {
	uint32_t first;
	uint16_t count;
	uint8_t who;
	msr_fn *fn;
	uint32_t offset; /* of the field in struct soft_vcpu */
	uint64_t bits;   /* that a write may set; others are #GP(0) */
	uint64_t value;  /* constants: what is read */
};

/* ---- What the CPU is ----------------------------------------------------- */

static bool has(struct soft_vcpu *v, uint32_t leaf, uint32_t subleaf, unsigned reg, unsigned bit)
{
	uint32_t regs[4];

	return soft_cpuid(v, leaf, subleaf, regs) && regs[reg] >> bit & 1;
}

static bool is_amd(struct soft_vcpu *v)
{
	uint32_t regs[4];

	soft_cpuid(v, 0, 0, regs);
	return regs[2] == 0x444d4163; /* "cAMD" */
}

static bool canonical(uint64_t value)
{
	return (uint64_t)((int64_t)(value << 16) >> 16) == value;
}

static uint64_t phys_reserved(struct soft_vcpu *v)
{
	uint32_t regs[4];

	return soft_cpuid(v, 0x80000008, 0, regs) && (regs[0] & 0xff) >= 32 ? ~((1ull << (regs[0] & 0xff)) - 1) :
									      ~((1ull << 36) - 1);
}

/* SDM vol. 3 table 11-8 */
static bool mtrr_type(uint8_t type)
{
	return type < 7 && 0x73 >> type & 1;
}

/* ---- The plain kinds ----------------------------------------------------- */

static bool msr_field(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	uint64_t *field = (uint64_t *)((uint8_t *)v + m->offset) + (index - m->first);

	if (!write)
		*value = *field;
	else if (*value & ~m->bits)
		return false;
	else
		*field = *value;
	return true;
}

static bool msr_address(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	return (!write || canonical(*value)) && msr_field(v, m, index, value, write);
}

/* Always reads the same; writes are taken and forgotten. */
static bool msr_constant(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	if (!write)
		*value = m->value;
	return !write || !(*value & ~m->bits);
}

static bool msr_readonly(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	*value = m->value;
	return !write;
}

/* ---- Clocks -------------------------------------------------------------- */

static bool msr_tsc(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	uint64_t now = soft_tsc(v);

	if (!write) {
		*value = now;
		return true;
	}
	v->tsc_adjust += *value - now; /* SDM vol. 3 §17.17.3 */
	soft_tsc_moved(v, v->tsc_offset + (*value - now));
	return true;
}

static bool msr_tsc_adjust(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	uint64_t delta = *value - v->tsc_adjust;

	if (!write) {
		*value = v->tsc_adjust;
		return true;
	}
	v->tsc_adjust = *value;
	soft_tsc_moved(v, v->tsc_offset + delta);
	return true;
}

static bool msr_tsc_deadline(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	if (write)
		apic_timer_set_tsc_deadline(v->lapic, *value);
	else
		*value = apic_timer_tsc_deadline(v->lapic);
	return true;
}

/* Bits 15..8: the base frequency in units of 100 MHz. */
static bool msr_platform_info(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	uint64_t ratio = (soft_host_tsc_khz() + 50000) / 100000;

	*value = (ratio > 255 ? 255 : ratio) << 8;
	return !write;
}

/* ---- Control ------------------------------------------------------------- */

static bool msr_apic_base(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	if (write)
		return lapic_base_set(v, *value);
	*value = lapic_base_get(v);
	return true;
}

static bool msr_efer(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	enum { SCE = 1, LME = 1 << 8, LMA = 1 << 10, NXE = 1 << 11, FFXSR = 1 << 14, TCE = 1 << 15, AUTO_IBRS = 1 << 21 };
	uint64_t allowed = SCE | LME | LMA;

	if (!write) {
		*value = v->efer;
		return true;
	}
	allowed |= has(v, 0x80000001, 0, 3, 20) ? NXE : 0;
	allowed |= has(v, 0x80000001, 0, 3, 25) ? FFXSR : 0;
	allowed |= has(v, 0x80000001, 0, 2, 17) ? TCE : 0;
	allowed |= has(v, 0x80000021, 0, 0, 8) ? AUTO_IBRS : 0;
	if (*value & ~allowed || (v->cr0 >> 31 && (*value ^ v->efer) & LME))
		return false;
	v->efer = (*value & ~(uint64_t)LMA) | (v->efer & LMA);
	mmu_mode_changed(v);
	soft_update_mode(v);
	return true;
}

static bool msr_segment_base(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	struct cpu_segment *s = &v->seg[index & 1 ? SEG_GS : SEG_FS];

	if (!write) {
		*value = s->base;
		return true;
	}
	if (!canonical(*value))
		return false;
	s->base = *value;
	if (v->mode != MODE_64)
		soft_update_mode(v); /* the segment may be flat no more */
	return true;
}

/* The selector mask is 32 bits; what a guest puts above is lost. */
static bool msr_sfmask(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	if (write)
		v->sfmask = (uint32_t)*value;
	else
		*value = v->sfmask;
	return true;
}

static bool msr_tsc_aux(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	if (!has(v, 0x80000001, 0, 3, 27) && !has(v, 7, 0, 2, 22))
		return false;
	return msr_field(v, m, index, value, write);
}

static bool msr_xss(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	uint32_t regs[4];

	if (!soft_cpuid(v, 0xd, 1, regs) || !(regs[0] >> 3 & 1))
		return false;
	if (write && *value & ~((uint64_t)regs[3] << 32 | regs[2]))
		return false;
	return msr_field(v, m, index, value, write);
}

static bool msr_feature_control(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	return !(write && v->feature_control & 1) && msr_field(v, m, index, value, write);
}

/* ---- Speculation --------------------------------------------------------- */

static bool msr_spec_ctrl(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	uint64_t allowed = 0;

	allowed |= has(v, 7, 0, 3, 26) || has(v, 0x80000008, 0, 1, 14) ? 1 : 0; /* IBRS */
	allowed |= has(v, 7, 0, 3, 27) || has(v, 0x80000008, 0, 1, 15) ? 2 : 0; /* STIBP */
	allowed |= has(v, 7, 0, 3, 31) || has(v, 0x80000008, 0, 1, 24) ? 4 : 0; /* SSBD */
	allowed |= has(v, 0x80000008, 0, 1, 28) ? 0x80 : 0;                     /* PSFD */
	if (!allowed || (write && *value & ~allowed))
		return false;
	return msr_field(v, m, index, value, write);
}

/* Commands: nothing is predicted across guests here. */
static bool msr_pred_cmd(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	return write && (has(v, 7, 0, 3, 26) || has(v, 0x80000008, 0, 1, 12)) && !(*value & ~1ull);
}

static bool msr_flush_cmd(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	return write && has(v, 7, 0, 3, 28) && !(*value & ~1ull);
}

/*
 * The guest has nothing to mitigate: RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY,
 * SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO,
 * BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO (Linux, Documentation/admin-guide/hw-vuln).
 */
static bool msr_arch_capabilities(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	*value = 0x400000000d10e17b;
	return !write && has(v, 7, 0, 3, 29);
}

static bool msr_microcode(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	if (!write)
		*value = is_amd(v) ? 0x01000065 : 1ull << 32;
	return !write || !*value;
}

/* ---- MTRRs, PAT ---------------------------------------------------------- */

static bool msr_mtrr_phys(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	uint64_t *field = &v->mtrr_phys[(index - m->first) / 2][index & 1];

	if (!write) {
		*value = *field;
		return true;
	}
	if (*value & phys_reserved(v) || (index & 1 ? *value & 0x7ff : *value & 0xf00 || !mtrr_type(*value & 0xff)))
		return false;
	*field = *value;
	return true;
}

static bool msr_mtrr_fix(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	uint64_t *field = &v->mtrr_fix[m->value + (index - m->first)];

	if (!write) {
		*value = *field;
		return true;
	}
	for (unsigned n = 0; n < 64; n += 8)
		if (!mtrr_type(*value >> n & 0xff))
			return false;
	*field = *value;
	return true;
}

static bool msr_mtrr_def_type(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	return !(write && !mtrr_type(*value & 0xff)) && msr_field(v, m, index, value, write);
}

static bool msr_pat(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	for (unsigned n = 0; write && n < 64; n += 8) {
		uint8_t type = *value >> n & 0xff;

		if (!mtrr_type(type) && type != 7) /* 7: UC- */
			return false;
	}
	return msr_field(v, m, index, value, write);
}

/* ---- Machine check banks ------------------------------------------------- */

/* No bank ever reports anything. STATUS, ADDR and MISC take zeros only (SDM vol. 3 §15.3.2.2). */
static bool msr_mce_bank(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	if (write)
		return !(index & 3) || !*value;
	*value = 0;
	return true;
}

/* ---- KVM's --------------------------------------------------------------- */

static bool msr_kvm_system_time(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	if (write && *value & 2)
		return false;
	msr_field(v, m, m->first, value, write);
	if (write)
		kvmclock_update(v);
	return true;
}

static bool msr_kvm_wall_clock(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	if (write && *value & 3)
		return false;
	msr_field(v, m, m->first, value, write);
	if (write)
		kvmclock_write_wall(v);
	return true;
}

static bool msr_kvm_pv_eoi(struct soft_vcpu *v, const struct msr *m, uint32_t index, uint64_t *value, bool write)
{
	if (write && *value & 2)
		return false;
	if (write)
		lapic_pv_eoi_sync(v);
	return msr_field(v, m, index, value, write);
}

/* ---- The table, in order of index ---------------------------------------- */

#define FIELD(name) .fn = msr_field, .offset = offsetof(struct soft_vcpu, name)
#define ADDRESS(name) .fn = msr_address, .offset = offsetof(struct soft_vcpu, name)
#define WITH(fn_, name) .fn = fn_, .offset = offsetof(struct soft_vcpu, name)
#define ALL UINT64_MAX

static const struct msr table[] = {
	{ 0x00000000, 2, ANY, msr_constant },                                    /* P5_MC_ADDR, P5_MC_TYPE */
	{ 0x00000010, 1, ANY, msr_tsc },
	{ 0x00000011, 1, PV, WITH(msr_kvm_wall_clock, kvm_wall_clock), .bits = ALL }, /* KVM's first numbers of these */
	{ 0x00000012, 1, PV, WITH(msr_kvm_system_time, kvm_system_time), .bits = ALL },
	{ 0x00000017, 1, INTEL, msr_readonly },                                  /* PLATFORM_ID */
	{ 0x0000001b, 1, ANY, msr_apic_base },
	{ 0x0000002a, 1, INTEL, msr_constant, .bits = ALL },                     /* EBL_CR_POWERON */
	{ 0x0000002c, 1, INTEL, msr_readonly, .value = 1 << 24 },                /* EBC_FREQUENCY_ID */
	{ 0x00000034, 1, INTEL, msr_readonly },                                  /* SMI_COUNT */
	{ 0x0000003a, 1, INTEL, WITH(msr_feature_control, feature_control), .bits = 1 },
	{ 0x0000003b, 1, ANY, msr_tsc_adjust },
	{ 0x00000048, 1, ANY, WITH(msr_spec_ctrl, spec_ctrl), .bits = ALL },
	{ 0x00000049, 1, ANY, msr_pred_cmd },
	{ 0x00000079, 1, ANY, msr_constant, .bits = ALL },                       /* BIOS_UPDT_TRIG */
	{ 0x0000008b, 1, ANY, msr_microcode },
	{ 0x000000c1, 8, INTEL, msr_constant, .bits = ALL },                     /* PMC0..7 */
	{ 0x000000ce, 1, INTEL, msr_platform_info },
	{ 0x000000fe, 1, ANY, msr_readonly, .value = 0x500 | CPU_MTRR_VAR },     /* MTRRCAP: WC, fixed */
	{ 0x0000010a, 1, ANY, msr_arch_capabilities },
	{ 0x0000010b, 1, ANY, msr_flush_cmd },
	{ 0x0000011e, 1, INTEL, msr_constant, .bits = ALL, .value = 0xbe702111 },/* BBL_CR_CTL3: L2 configured */
	{ 0x00000140, 1, INTEL, msr_constant },                                  /* MISC_FEATURES_ENABLES */
	{ 0x00000174, 1, ANY, FIELD(sysenter_cs), .bits = UINT32_MAX },
	{ 0x00000175, 1, ANY, ADDRESS(sysenter_esp), .bits = ALL },
	{ 0x00000176, 1, ANY, ADDRESS(sysenter_eip), .bits = ALL },
	{ 0x00000179, 1, ANY, msr_readonly, .value = 0x100 | MCE_BANKS },        /* MCG_CAP: MCG_CTL_P */
	{ 0x0000017a, 1, ANY, FIELD(mcg_status), .bits = 7 },
	{ 0x0000017b, 1, ANY, FIELD(mcg_ctl), .bits = ALL },
	{ 0x00000186, 8, INTEL, msr_constant, .bits = ALL },                     /* PERFEVTSEL0..7 */
	{ 0x00000198, 1, INTEL, msr_readonly, .value = 1000 | 4ull << 40 },      /* PERF_STATUS */
	{ 0x00000199, 4, INTEL, msr_constant, .bits = ALL },                     /* PERF_CTL, clock, thermal */
	{ 0x000001a0, 1, ANY, FIELD(misc_enable), .bits = UINT32_MAX },           /* no XD disable or above */
	{ 0x000001a2, 1, INTEL, msr_constant, .bits = ALL },                     /* TEMPERATURE_TARGET */
	{ 0x000001d9, 1, ANY, msr_constant, .bits = 3 },                         /* DEBUGCTL: LBR, BTF */
	{ 0x000001db, 4, ANY, msr_constant, .bits = ALL },                       /* last branch, exception */
	{ 0x000001fc, 1, INTEL, msr_constant, .bits = ALL },                     /* POWER_CTL */
	{ 0x00000200, 2 * CPU_MTRR_VAR, ANY, msr_mtrr_phys },
	{ 0x00000250, 1, ANY, msr_mtrr_fix, .value = 0 },                        /* 64K_00000 */
	{ 0x00000258, 2, ANY, msr_mtrr_fix, .value = 1 },                        /* 16K_80000, 16K_A0000 */
	{ 0x00000268, 8, ANY, msr_mtrr_fix, .value = 3 },                        /* 4K_C0000..F8000 */
	{ 0x00000277, 1, ANY, WITH(msr_pat, pat), .bits = ALL },
	{ 0x000002ff, 1, ANY, WITH(msr_mtrr_def_type, mtrr_def_type), .bits = 0xcff },
	{ 0x00000309, 3, INTEL, msr_constant, .bits = ALL },                     /* FIXED_CTR0..2 */
	{ 0x0000038d, 4, INTEL, msr_constant, .bits = ALL },                     /* FIXED_CTR_CTRL, PERF_GLOBAL_* */
	{ 0x00000400, 4 * MCE_BANKS, ANY, msr_mce_bank },
	{ 0x00000606, 1, INTEL, msr_readonly },                                  /* RAPL_POWER_UNIT */
	{ 0x00000611, 1, INTEL, msr_readonly },                                  /* PKG_ENERGY_STATUS */
	{ 0x00000619, 1, INTEL, msr_readonly },                                  /* DRAM_ENERGY_STATUS */
	{ 0x00000639, 1, INTEL, msr_readonly },                                  /* PP0_ENERGY_STATUS */
	{ 0x00000641, 1, INTEL, msr_readonly },                                  /* PP1_ENERGY_STATUS */
	{ 0x000006e0, 1, ANY, msr_tsc_deadline },
	{ 0x00000da0, 1, ANY, WITH(msr_xss, xss), .bits = ALL },
	{ 0x4b564d00, 1, PV, WITH(msr_kvm_wall_clock, kvm_wall_clock), .bits = ALL },
	{ 0x4b564d01, 1, PV, WITH(msr_kvm_system_time, kvm_system_time), .bits = ALL },
	{ 0x4b564d04, 1, PV, WITH(msr_kvm_pv_eoi, kvm_pv_eoi), .bits = ALL },
	{ 0xc0000080, 1, ANY, msr_efer },
	{ 0xc0000081, 1, ANY, FIELD(star), .bits = ALL },
	{ 0xc0000082, 1, ANY, ADDRESS(lstar), .bits = ALL },
	{ 0xc0000083, 1, ANY, ADDRESS(cstar), .bits = ALL },
	{ 0xc0000084, 1, ANY, msr_sfmask },
	{ 0xc0000100, 2, ANY, msr_segment_base },
	{ 0xc0000102, 1, ANY, ADDRESS(kernel_gs_base), .bits = ALL },
	{ 0xc0000103, 1, ANY, WITH(msr_tsc_aux, tsc_aux), .bits = UINT32_MAX },
	{ 0xc0010000, 8, AMD, msr_constant, .bits = ALL },                       /* PERF_EVT_SEL0..3, PERF_CTR0..3 */
	{ 0xc0010010, 1, AMD, msr_constant, .bits = ALL },                       /* SYSCFG: no SME */
	{ 0xc0010015, 1, AMD, msr_constant, .bits = ALL, .value = 1 << 24 },     /* HWCR: TSC counts at P0 */
	{ 0xc0010016, 4, AMD, msr_constant, .bits = ALL },                       /* IORR */
	{ 0xc001001a, 1, AMD, msr_constant, .bits = ALL },                       /* TOP_MEM */
	{ 0xc001001d, 1, AMD, msr_constant, .bits = ALL },                       /* TOP_MEM2 */
	{ 0xc001001f, 2, AMD, msr_constant, .bits = ALL },                       /* NB_CFG, PATCH_LOADER */
	{ 0xc0010030, 6, AMD, msr_constant, .bits = ALL },                       /* processor name */
	{ 0xc0010044, 6, AMD, msr_constant, .bits = ALL },                       /* MCi_CTL_MASK */
	{ 0xc0010055, 1, AMD, msr_constant, .bits = ALL },                       /* INT_PENDING_MSG */
	{ 0xc0010058, 1, AMD, msr_constant, .bits = ALL },                       /* MMIO_CFG_BASE: not in use */
	{ 0xc0010061, 11, AMD, msr_constant, .bits = ALL },                      /* P-states */
	{ 0xc0010071, 1, AMD, msr_constant, .bits = ALL },                       /* COFVID_STATUS */
	{ 0xc0010112, 2, AMD, msr_constant, .bits = ALL },                       /* TSEG */
	{ 0xc0010114, 1, AMD, msr_constant, .bits = ALL, .value = 0x18 },        /* VM_CR: SVM disabled and locked */
	{ 0xc0010140, 1, AMD, msr_constant, .bits = ALL, .value = 4 },           /* OSVW_ID_LENGTH */
	{ 0xc0010141, 1, AMD, msr_constant, .bits = ALL },                       /* OSVW_STATUS: no erratum */
	{ 0xc0010200, 12, AMD, msr_constant, .bits = ALL },                      /* PERF_CTL, PERF_CTR 0..5 */
	{ 0xc0011020, 9, AMD, msr_constant, .bits = ALL },                       /* LS_CFG .. FP_CFG */
	{ 0xc0011029, 1, AMD, msr_constant, .bits = ALL, .value = 2 },           /* DE_CFG: LFENCE serialises */
	{ 0xc001102a, 5, AMD, msr_constant, .bits = ALL },                       /* BU_CFG2 .. */
};
#define TABLE_LEN (sizeof(table) / sizeof(table[0]))

static bool owned(struct soft_vcpu *v, const struct msr *m)
{
	switch (m->who) {
	case INTEL:
		return !is_amd(v);
	case AMD:
		return is_amd(v);
	case PV:
		return !v->engine->engine.config.hide_pv;
	default:
		return true;
	}
}

static const struct msr *find(struct soft_vcpu *v, uint32_t index)
{
	size_t lo = 0, hi = TABLE_LEN;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (table[mid].first + table[mid].count <= index)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < TABLE_LEN && table[lo].first <= index && owned(v, &table[lo]) ? &table[lo] : NULL;
}

bool msr_read(struct soft_vcpu *v, uint32_t index, uint64_t *value)
{
	const struct msr *m;

	*value = 0;
	if (index >= 0x800 && index <= 0x8ff)
		return lapic_msr_read(v, index, value);
	m = find(v, index);
	if (!m) {
		log_guest("cpu", "vCPU %u reads MSR %#x, which does not exist: #GP", v->vcpu.index, index);
		return false;
	}
	return m->fn(v, m, index, value, false);
}

bool msr_write(struct soft_vcpu *v, uint32_t index, uint64_t value)
{
	const struct msr *m;

	v->lockstep_touched = true;
	if (index >= 0x800 && index <= 0x8ff)
		return lapic_msr_write(v, index, value);
	m = find(v, index);
	if (!m) {
		log_guest("cpu", "vCPU %u writes %#llx to MSR %#x, which does not exist: #GP", v->vcpu.index,
			  (unsigned long long)value, index);
		return false;
	}
	return m->fn(v, m, index, &value, true);
}
