/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * CPUID of the soft engine: exactly what is implemented, x86-64-v3 where the
 * host's vector unit has it. The vendor is the host's (Hygon counts as AMD,
 * all others as Intel), since vendors differ in corners that the host's own
 * units decide; family and model are ones whose guests' kernels need no costly
 * workaround.
 */
#include <cpuid.h>

#include "engine/cpu_leaves.h"
#include "engine/soft/lapic.h"
#include "engine/soft/soft.h"

#define B(n) (1u << (n))
#define CR4_OSXSAVE 0x40000u

#define LAST_BASIC 0x16u
#define LAST_EXTENDED_INTEL 0x80000008u
#define LAST_EXTENDED_AMD 0x80000021u
#define SIGNATURE_INTEL 0x000606a6u /* family 6, model 6ah: Ice Lake server */
#define SIGNATURE_AMD 0x00a00f11u   /* family 19h, model 1: Zen 3 server; also in cpu_state_reset() */
#define LINEAR_BITS 48u

enum { INTEL = 1, AMD = 2, BOTH = 3 };

/* ---- Features ------------------------------------------------------------ */

/* Bits that the engine implements by itself. */
static const struct {
	uint32_t leaf, subleaf;
	uint8_t reg, vendor;
	uint32_t bits;
} features[] = {
	{ 0x1, 0, CPUID_EDX, BOTH,
	  B(0) /* FPU */ | B(2) /* DE */ | B(3) /* PSE */ | B(4) /* TSC */ | B(5) /* MSR */ | B(6) /* PAE */ |
	  B(7) /* MCE */ | B(8) /* CX8 */ | B(11) /* SEP */ | B(12) /* MTRR */ | B(13) /* PGE */ | B(14) /* MCA */ |
	  B(15) /* CMOV */ | B(16) /* PAT */ | B(17) /* PSE-36 */ | B(19) /* CLFLUSH */ | B(23) /* MMX */ |
	  B(24) /* FXSR */ | B(25) /* SSE */ | B(26) /* SSE2 */ },
	{ 0x1, 0, CPUID_ECX, BOTH,
	  B(13) /* CX16 */ | B(17) /* PCID */ | B(21) /* x2APIC */ | B(22) /* MOVBE */ | B(23) /* POPCNT */ |
	  B(24) /* TSC deadline */ | B(31) /* hypervisor */ },
	{ 0x6, 0, CPUID_EAX, BOTH, B(2) /* ARAT: the APIC timer never stops */ },
	{ 0x7, 0, CPUID_EBX, BOTH,
	  B(0) /* FSGSBASE */ | B(1) /* TSC_ADJUST */ | B(3) /* BMI1 */ | B(7) /* SMEP */ | B(8) /* BMI2 */ |
	  B(9) /* ERMS */ | B(10) /* INVPCID */ | B(13) /* FCS and FDS are zero */ | B(19) /* ADX */ |
	  B(20) /* SMAP */ | B(23) /* CLFLUSHOPT */ | B(24) /* CLWB */ },
	{ 0x7, 0, CPUID_ECX, BOTH, B(2) /* UMIP */ | B(22) /* RDPID */ },
	{ 0x7, 0, CPUID_EDX, BOTH, B(4) /* FSRM */ | B(29) /* ARCH_CAPABILITIES */ },
	{ 0x7, 0, CPUID_EDX, INTEL, B(26) /* IBRS */ },
	{ 0x80000001, 0, CPUID_ECX, BOTH, B(0) /* LAHF */ | B(5) /* LZCNT */ | B(8) /* PREFETCHW */ },
	{ 0x80000001, 0, CPUID_ECX, AMD, B(22) /* leaves 8000001Dh and 8000001Eh */ },
	{ 0x80000001, 0, CPUID_EDX, BOTH,
	  B(11) /* SYSCALL */ | B(20) /* NX */ | B(26) /* 1 GiB pages */ | B(27) /* RDTSCP */ | B(29) /* long mode */ },
	{ 0x80000001, 0, CPUID_EDX, AMD, /* as leaf 1 */
	  B(0) | B(2) | B(3) | B(4) | B(5) | B(6) | B(7) | B(8) | B(12) | B(13) | B(14) | B(15) | B(16) | B(17) |
	  B(23) | B(24) },
	{ 0x80000007, 0, CPUID_EDX, BOTH, B(8) /* invariant TSC */ },
	/* So that no kernel works around what this CPU does not suffer from */
	{ 0x80000008, 0, CPUID_EBX, AMD,
	  B(2) /* error pointers are always restored */ | B(14) /* IBRS */ | B(26) /* SSB_NO */ | B(29) /* BTC_NO */ },
	{ 0x80000021, 0, CPUID_EAX, AMD,
	  B(2) /* LFENCE serialises */ | B(6) /* null selectors clear the base */ | B(29) /* SRSO_NO */ },
	{ 0x80000021, 0, CPUID_ECX, AMD, B(1) /* TSA_SQ_NO */ | B(2) /* TSA_L1_NO */ },
	{ CPUID_KVM_FEATURES, 0, CPUID_EAX, BOTH,
	  KVM_PV_NOP_IO_DELAY | KVM_PV_CLOCKSOURCE2 | KVM_PV_EOI | KVM_PV_UNHALT | KVM_PV_CLOCKSOURCE_STABLE },
};

/* Bits that depend on the host's vector unit. */
static const struct {
	enum vec_feature needs;
	uint32_t leaf, subleaf;
	uint8_t reg, bit;
} vector_features[] = {
	{ VEC_SSE3, 0x1, 0, CPUID_ECX, 0 },      { VEC_PCLMUL, 0x1, 0, CPUID_ECX, 1 },
	{ VEC_SSSE3, 0x1, 0, CPUID_ECX, 9 },     { VEC_FMA, 0x1, 0, CPUID_ECX, 12 },
	{ VEC_SSE41, 0x1, 0, CPUID_ECX, 19 },    { VEC_SSE42, 0x1, 0, CPUID_ECX, 20 },
	{ VEC_AES, 0x1, 0, CPUID_ECX, 25 },      { VEC_XSAVE, 0x1, 0, CPUID_ECX, 26 },
	{ VEC_AVX, 0x1, 0, CPUID_ECX, 28 },      { VEC_F16C, 0x1, 0, CPUID_ECX, 29 },
	{ VEC_AVX2, 0x7, 0, CPUID_EBX, 5 },      { VEC_SHA, 0x7, 0, CPUID_EBX, 29 },
	{ VEC_XSAVEOPT, 0xd, 1, CPUID_EAX, 0 },  { VEC_XSAVEC, 0xd, 1, CPUID_EAX, 1 },
	{ VEC_XGETBV1, 0xd, 1, CPUID_EAX, 2 },   { VEC_XSAVES, 0xd, 1, CPUID_EAX, 3 },
};

/* Bits that the host's own instruction is behind; asked once, since inside a VM CPUID costs microseconds. */
static struct host {
	bool amd;
	uint32_t rdrand, rdseed; /* leaf 1 ecx, leaf 7 ebx */
} host;
#define HYGON_EBX 0x6f677948u /* "Hygo" */

static void host_ask(void)
{
	uint32_t a, b = 0, c = 0, d;

	__cpuid(0, a, b, c, d);
	host.amd = b == signature_AMD_ebx || b == HYGON_EBX;
	__cpuid(1, a, b, c, d);
	host.rdrand = c & B(30);
	if (__get_cpuid_count(7, 0, &a, &b, &c, &d))
		host.rdseed = b & B(18);
}

static const struct host *host_get(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, host_ask);
	return &host;
}

static void put_features(uint32_t leaf, uint32_t subleaf, bool amd, uint32_t regs[4])
{
	for (unsigned i = 0; i < sizeof(features) / sizeof(features[0]); i++)
		if (features[i].leaf == leaf && features[i].subleaf == subleaf &&
		    features[i].vendor & (amd ? AMD : INTEL))
			regs[features[i].reg] |= features[i].bits;
	for (unsigned i = 0; i < sizeof(vector_features) / sizeof(vector_features[0]); i++)
		if (vector_features[i].leaf == leaf && vector_features[i].subleaf == subleaf &&
		    vec_offers(vector_features[i].needs))
			regs[vector_features[i].reg] |= B(vector_features[i].bit);
	if (leaf == 1)
		regs[CPUID_ECX] |= host_get()->rdrand;
	if (leaf == 7 && subleaf == 0)
		regs[CPUID_EBX] |= host_get()->rdseed;
}

/* ---- Caches -------------------------------------------------------------- */

#define LINE 64u
static const struct cache {
	uint8_t type, level; /* 1 data, 2 instructions, 3 both */
	uint16_t ways, sets;
} caches[] = {
	{ 1, 1, 8, 64 },     /* 32 KiB */
	{ 2, 1, 8, 64 },
	{ 3, 2, 16, 1024 },  /* 1 MiB */
	{ 3, 3, 16, 16384 }, /* 16 MiB, shared by all */
};
#define CACHES (sizeof(caches) / sizeof(caches[0]))

static uint32_t cache_kib(unsigned n)
{
	return caches[n].ways * caches[n].sets * LINE / 1024;
}

/* Leaf 4 and 0x8000001d; who shares it is put in by cpuid_place(). */
static void put_cache(uint32_t subleaf, uint32_t regs[4])
{
	const struct cache *c;

	if (subleaf >= CACHES)
		return;
	c = &caches[subleaf];
	regs[CPUID_EAX] = c->type | c->level << 5 | B(8); /* needs no initialization */
	regs[CPUID_EBX] = (LINE - 1) | (c->ways - 1u) << 22;
	regs[CPUID_ECX] = c->sets - 1;
}

/* APM vol. 3 appendix E.4.3, E.4.4: 40h entries everywhere, fully associative (ffh, or code 0fh). */
static void put_old_caches(uint32_t leaf, bool amd, uint32_t regs[4])
{
	if (leaf == 0x80000005 && amd) {
		regs[CPUID_EAX] = regs[CPUID_EBX] = 0xff40ff40;
		regs[CPUID_ECX] = cache_kib(0) << 24 | caches[0].ways << 16 | 1 << 8 | LINE;
		regs[CPUID_EDX] = cache_kib(1) << 24 | caches[1].ways << 16 | 1 << 8 | LINE;
	} else if (leaf == 0x80000006) {
		regs[CPUID_ECX] = cache_kib(2) << 16 | 8 << 12 /* 16 ways */ | (amd ? 1 << 8 : 0) | LINE;
		if (amd)
			regs[CPUID_EDX] = (cache_kib(3) / 512) << 18 | 8 << 12 | 1 << 8 | LINE;
	}
}

/* ---- Leaves -------------------------------------------------------------- */

/* The order of the registers is that of the text: ebx, edx, ecx. */
static void put_vendor(bool amd, uint32_t regs[4])
{
	regs[CPUID_EBX] = amd ? signature_AMD_ebx : signature_INTEL_ebx;
	regs[CPUID_ECX] = amd ? signature_AMD_ecx : signature_INTEL_ecx;
	regs[CPUID_EDX] = amd ? signature_AMD_edx : signature_INTEL_edx;
}

static void put_name(uint32_t leaf, uint32_t regs[4])
{
	static const char name[48] = "Keel soft CPU";

	memcpy(regs, name + (leaf - 0x80000002) * 16, 16);
}

/* SDM vol. 1 §13.2: sizes of the standard format now and at most, of the compacted one now. */
static void put_xsave(struct soft_vcpu *v, uint32_t subleaf, uint32_t regs[4])
{
	enum { LEGACY_AND_HEADER = 576, AVX_SIZE = 256, AVX_BIT = 4 };
	uint64_t all = vec_xcr0_mask();
	uint32_t now = LEGACY_AND_HEADER + (v->xcr0 & AVX_BIT ? AVX_SIZE : 0);

	switch (subleaf) {
	case 0:
		regs[CPUID_EAX] = all;
		regs[CPUID_EBX] = now;
		regs[CPUID_ECX] = LEGACY_AND_HEADER + (all & AVX_BIT ? AVX_SIZE : 0);
		break;
	case 1:
		regs[CPUID_EBX] = vec_offers(VEC_XSAVEC) ? now : 0;
		break;
	case 2:
		if (all & AVX_BIT) {
			regs[CPUID_EAX] = AVX_SIZE;
			regs[CPUID_EBX] = LEGACY_AND_HEADER;
		}
		break;
	}
}

static void put_leaf1(struct soft_vcpu *v, bool amd, uint32_t regs[4])
{
	regs[CPUID_EAX] = amd ? SIGNATURE_AMD : SIGNATURE_INTEL;
	regs[CPUID_EBX] = LINE / 8 << 8;
	if (lapic_base_get(v) & APIC_BASE_EN)
		regs[CPUID_EDX] |= B(9);
	if (v->cr4 & CR4_OSXSAVE)
		regs[CPUID_ECX] |= B(27);
}

static void put_extended1(struct soft_vcpu *v, bool amd, uint32_t regs[4])
{
	if (!amd)
		return;
	regs[CPUID_EAX] = SIGNATURE_AMD;
	if (lapic_base_get(v) & APIC_BASE_EN)
		regs[CPUID_EDX] |= B(9);
	if (v->engine->engine.config.cpus > 1)
		regs[CPUID_ECX] |= B(1); /* CmpLegacy: the count in leaf 1 is of cores, not threads */
}

static bool exists(const struct soft_vcpu *v, uint32_t leaf, bool amd)
{
	if (leaf >= 0x80000000)
		return leaf <= (amd ? LAST_EXTENDED_AMD : LAST_EXTENDED_INTEL);
	if (leaf >= CPUID_KVM_SIGNATURE)
		return !v->engine->engine.config.hide_pv && leaf <= CPUID_KVM_TIMING;
	return leaf <= LAST_BASIC;
}

bool soft_cpuid(struct soft_vcpu *v, uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
	const bool amd = host_get()->amd;

	memset(regs, 0, 4 * sizeof(regs[0]));
	if (!exists(v, leaf, amd))
		return false;
	if (cpuid_is_timing(leaf)) /* asked first: to know the frequency may take 5 ms */
		return cpuid_timing(leaf, soft_host_tsc_khz(), regs);
	/* Leaves without subleaves ignore ECX. */
	put_features(leaf, leaf == 7 || leaf == 0xd ? subleaf : 0, amd, regs);
	switch (leaf) {
	case 0:
		regs[CPUID_EAX] = LAST_BASIC;
		put_vendor(amd, regs);
		break;
	case 1:
		put_leaf1(v, amd, regs);
		break;
	case 2: /* SDM vol. 2 table 3-12: "see leaf 4", 64-byte prefetch */
		regs[CPUID_EAX] = amd ? 0 : 0x00ff0001 | 0xf0 << 8;
		break;
	case 4:
		if (!amd)
			put_cache(subleaf, regs);
		break;
	case 0xd:
		put_xsave(v, subleaf, regs);
		break;
	case CPUID_KVM_SIGNATURE:
		cpuid_kvm_signature(regs);
		break;
	case 0x80000000:
		regs[CPUID_EAX] = amd ? LAST_EXTENDED_AMD : LAST_EXTENDED_INTEL;
		if (amd)
			put_vendor(amd, regs);
		break;
	case 0x80000001:
		put_extended1(v, amd, regs);
		break;
	case 0x80000002: case 0x80000003: case 0x80000004:
		put_name(leaf, regs);
		break;
	case 0x80000005: case 0x80000006:
		put_old_caches(leaf, amd, regs);
		break;
	case 0x80000008:
		regs[CPUID_EAX] = SOFT_MAXPHYADDR | LINEAR_BITS << 8;
		break;
	case 0x8000001d:
		put_cache(subleaf, regs);
		break;
	}
	/* It goes on to work, but Linux's vDSO takes RDTSC, which runs natively. */
	if (leaf == 0x80000001 && v->engine->native)
		regs[CPUID_EDX] &= ~(uint32_t)B(27);
	cpuid_place(leaf, subleaf, v->vcpu.index, v->engine->engine.config.cpus, regs);
	return true;
}
