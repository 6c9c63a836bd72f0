/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What guests see of the host's CPUID: what the kernel supports, less what
 * struct cpu_state cannot hold (AVX-512, AMX, protection keys, CET, counters,
 * TSX, nested virtualization, five-level paging …), with a topology of ours.
 *
 * The table lists what may pass, so that a feature which is unknown here stays
 * hidden until somebody has asked whether it has state.
 */
#include "engine/kvm/kvm.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "engine/cpu_leaves.h"

#define MAX_ENTRIES 256u /* KVM_MAX_CPUID_ENTRIES of the kernel */
#define LAST_BASIC 0x1fu
#define LAST_EXTENDED 0x80000021u
#define ANY UINT32_MAX /* subleaf */
#define ALL UINT32_MAX /* bits */
#define B(n) (1u << (n))

#define LEAF1_ECX (B(0) /* SSE3 */ | B(1) /* PCLMULQDQ */ | B(9) /* SSSE3 */ | B(12) /* FMA */ | B(13) /* CX16 */ | \
		   B(17) /* PCID */ | B(19) /* SSE4.1 */ | B(20) /* SSE4.2 */ | B(21) /* x2APIC */ | \
		   B(22) /* MOVBE */ | B(23) /* POPCNT */ | B(24) /* TSC deadline */ | B(25) /* AES */ | B(26) /* XSAVE */ | \
		   B(28) /* AVX */ | B(29) /* F16C */ | B(30) /* RDRAND */ | B(31) /* hypervisor */)
/* All but PSN (18), DS (21), ACPI (22), TM (29), PBE (31) and the reserved ones. */
#define LEAF1_EDX (0x0f8bfbffu & ~B(27))
#define LEAF7_EBX (B(0) /* FSGSBASE */ | B(1) /* TSC_ADJUST */ | B(3) /* BMI1 */ | B(5) /* AVX2 */ | \
		   B(6) /* FDP on exceptions only */ | B(7) /* SMEP */ | B(8) /* BMI2 */ | B(9) /* ERMS */ | \
		   B(10) /* INVPCID */ | B(13) /* FCS and FDS zero */ | B(18) /* RDSEED */ | B(19) /* ADX */ | \
		   B(20) /* SMAP */ | B(23) /* CLFLUSHOPT */ | B(24) /* CLWB */ | B(29) /* SHA */)
#define LEAF7_ECX (B(2) /* UMIP */ | B(8) /* GFNI */ | B(9) /* VAES */ | B(10) /* VPCLMULQDQ */ | B(22) /* RDPID */ | \
		   B(25) /* CLDEMOTE */ | B(27) /* MOVDIRI */ | B(28) /* MOVDIR64B */)
#define LEAF7_EDX (B(4) /* FSRM */ | B(10) /* MD_CLEAR */ | B(14) /* SERIALIZE */ | B(26) /* IBRS and IBPB */ | \
		   B(27) /* STIBP */ | B(28) /* L1D_FLUSH */ | B(29) /* ARCH_CAPABILITIES */ | B(31) /* SSBD */)
#define LEAF7_1_EAX (B(0) /* SHA512 */ | B(1) /* SM3 */ | B(2) /* SM4 */ | B(4) /* AVX-VNNI */ | B(10) /* FZRM */ | \
		     B(11) /* FSRS */ | B(12) /* FSRC */ | B(23) /* AVX-IFMA */)
#define LEAF7_1_EDX (B(4) /* AVX-VNNI-INT8 */ | B(5) /* AVX-NE-CONVERT */ | B(10) /* AVX-VNNI-INT16 */ | \
		     B(14) /* PREFETCHI */)
#define LEAF7_2_EDX 0x3fu /* PSFD, IPRED, RRSBA, DDPD, BHI: bits of SPEC_CTRL; MCDT_NO */
#define LEAF8_1_ECX (B(0) /* LAHF */ | B(1) /* CmpLegacy */ | B(4) /* CR8 by MOV */ | B(5) /* LZCNT */ | \
		     B(6) /* SSE4A */ | B(7) /* misaligned SSE */ | B(8) /* PREFETCHW */ | B(11) /* XOP */ | \
		     B(16) /* FMA4 */ | B(17) /* TCE */ | B(21) /* TBM */ | B(22) /* topology leaves */)
#define LEAF8_1_EDX (0x0183f3ffu /* as leaf 1 */ | B(11) /* SYSCALL */ | B(20) /* NX */ | B(22) /* MMX+ */ | \
		     B(25) /* FFXSR */ | B(26) /* 1 GiB pages */ | B(27) /* RDTSCP */ | B(29) /* long mode */ | \
		     B(30) | B(31) /* 3DNow */)
#define LEAF8_8_EBX (B(0) /* CLZERO */ | B(2) /* error pointers */ | B(9) /* WBNOINVD */ | B(12) /* IBPB */ | \
		     B(14) /* IBRS */ | B(15) /* STIBP */ | B(16) | B(17) | B(18) | B(19) /* how to use them */ | \
		     B(24) /* SSBD */ | B(26) /* SSB_NO */ | B(28) /* PSFD */ | B(29) /* BTC_NO */ | \
		     B(30) /* IBPB_RET */)
#define LEAF8_21_EAX (B(0) | B(1) | B(2) /* LFENCE serialises */ | B(5) /* VERW clears */ | \
		      B(6) /* null selectors clear */ | B(8) /* AutoIBRS */ | B(9) | B(10) /* FSRS */ | B(11) /* FSRC */ | B(20) /* PREFETCHI */ | \
		      B(27) /* SBPB */ | B(28) /* IBPB_BRTYPE */ | B(29) | B(30) | B(31) /* SRSO */)
#define PV_FEATURES (KVM_PV_NOP_IO_DELAY | KVM_PV_CLOCKSOURCE2 | KVM_PV_STEAL_TIME | KVM_PV_EOI | KVM_PV_UNHALT | \
		     KVM_PV_TLB_FLUSH | KVM_PV_SEND_IPI | KVM_PV_SCHED_YIELD | KVM_PV_CLOCKSOURCE_STABLE)

/* A leaf that is not here is hidden. */
static const struct rule {
	uint32_t leaf, subleaf;
	uint32_t bits[4];
} rules[] = {
	{ 0x00, ANY, { ALL, ALL, ALL, ALL } },
	{ 0x01, ANY, { ALL, ALL, LEAF1_ECX, LEAF1_EDX } },
	{ 0x02, ANY, { ALL, ALL, ALL, ALL } }, /* caches */
	{ 0x04, ANY, { ALL, ALL, ALL, ALL } }, /* caches */
	{ 0x06, ANY, { B(2), 0, 0, 0 } },      /* ARAT: the APIC timer never stops */
	{ 0x07, 0, { ALL, LEAF7_EBX, LEAF7_ECX, LEAF7_EDX } },
	{ 0x07, 1, { LEAF7_1_EAX, 0, 0, LEAF7_1_EDX } },
	{ 0x07, 2, { 0, 0, 0, LEAF7_2_EDX } },
	{ 0x0d, 0, { 7, ALL, ALL, 0 } },
	{ 0x0d, 1, { 0xf, ALL, 0, 0 } },
	{ 0x0d, 2, { ALL, ALL, ALL, ALL } },
	{ 0x80000000, ANY, { ALL, ALL, ALL, ALL } },
	{ 0x80000001, ANY, { ALL, ALL, LEAF8_1_ECX, LEAF8_1_EDX } },
	{ 0x80000002, ANY, { ALL, ALL, ALL, ALL } }, /* name */
	{ 0x80000003, ANY, { ALL, ALL, ALL, ALL } },
	{ 0x80000004, ANY, { ALL, ALL, ALL, ALL } },
	{ 0x80000005, ANY, { ALL, ALL, ALL, ALL } }, /* caches */
	{ 0x80000006, ANY, { ALL, ALL, ALL, ALL } },
	{ 0x80000007, ANY, { 0, 0, 0, B(8) } }, /* invariant TSC */
	{ 0x80000008, ANY, { ALL, LEAF8_8_EBX, ALL, 0 } },
	{ 0x8000001d, ANY, { ALL, ALL, ALL, ALL } }, /* caches */
	{ 0x8000001e, ANY, { ALL, ALL, ALL, ALL } }, /* topology */
	{ 0x80000021, ANY, { LEAF8_21_EAX, 0, B(1) | B(2) /* TSA_*_NO */, 0 } },
	{ CPUID_KVM_FEATURES, ANY, { PV_FEATURES, 0, 0, 0 } },
};

struct kvm_cpuid2 *kvm_cpuid_supported(int sys, struct err *err)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + MAX_ENTRIES * sizeof(c->entries[0]));
	int r;

	if (!c) {
		err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	c->nent = MAX_ENTRIES;
	r = kvm_ioctl(sys, KVM_GET_SUPPORTED_CPUID, c);
	if (r < 0) {
		err_set_errno(err, -r, "KVM does not tell which CPUID it supports");
		free(c);
		return NULL;
	}
	return c;
}

static void entry_get(const struct kvm_cpuid_entry2 *entry, uint32_t regs[4])
{
	regs[CPUID_EAX] = entry->eax;
	regs[CPUID_EBX] = entry->ebx;
	regs[CPUID_ECX] = entry->ecx;
	regs[CPUID_EDX] = entry->edx;
}

static void entry_put(struct kvm_cpuid_entry2 *entry, const uint32_t regs[4])
{
	entry->eax = regs[CPUID_EAX];
	entry->ebx = regs[CPUID_EBX];
	entry->ecx = regs[CPUID_ECX];
	entry->edx = regs[CPUID_EDX];
}

static bool entry_is(const struct kvm_cpuid_entry2 *entry, uint32_t leaf, uint32_t subleaf)
{
	return entry->function == leaf &&
	       (!(entry->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || entry->index == subleaf);
}

static struct kvm_cpuid_entry2 *find(struct kvm_cpuid2 *c, uint32_t leaf, uint32_t subleaf)
{
	for (unsigned i = 0; i < c->nent; i++)
		if (entry_is(&c->entries[i], leaf, subleaf))
			return &c->entries[i];
	return NULL;
}

static void add(struct kvm_cpuid2 *c, uint32_t leaf, uint32_t subleaf, uint32_t flags, const uint32_t regs[4])
{
	struct kvm_cpuid_entry2 *entry;

	if (c->nent >= MAX_ENTRIES)
		return;
	entry = &c->entries[c->nent++];
	*entry = (struct kvm_cpuid_entry2){ .function = leaf, .index = subleaf, .flags = flags };
	entry_put(entry, regs);
}

static void filter(struct kvm_cpuid2 *out, const struct kvm_cpuid2 *in)
{
	for (unsigned i = 0; i < in->nent; i++) {
		const struct kvm_cpuid_entry2 *entry = &in->entries[i];
		uint32_t regs[4];

		entry_get(entry, regs);
		for (unsigned n = 0; n < sizeof(rules) / sizeof(rules[0]); n++) {
			const struct rule *rule = &rules[n];

			if (rule->leaf != entry->function || (rule->subleaf != ANY && rule->subleaf != entry->index))
				continue;
			for (unsigned reg = 0; reg < 4; reg++)
				regs[reg] &= rule->bits[reg];
			add(out, entry->function, entry->index, entry->flags, regs);
			break;
		}
	}
}

/* Some kernels leave the processor's name out. */
static void correct_name(struct kvm_cpuid2 *c)
{
	for (uint32_t leaf = 0x80000002; leaf <= 0x80000004; leaf++) {
		struct kvm_cpuid_entry2 *entry = find(c, leaf, 0);
		uint32_t regs[4];

		if (!entry || entry->eax || entry->ebx)
			continue;
		if (__get_cpuid(leaf, &regs[0], &regs[1], &regs[2], &regs[3]))
			entry_put(entry, regs);
	}
}

/* Sizes of the XSAVE area for x87, SSE and AVX: what the kernel said counts features that are hidden now. */
static void correct_xsave(struct kvm_cpuid2 *c)
{
	struct kvm_cpuid_entry2 *leaf1 = find(c, 1, 0);
	struct kvm_cpuid_entry2 *sizes = find(c, 0xd, 0);
	struct kvm_cpuid_entry2 *kinds = find(c, 0xd, 1);
	struct kvm_cpuid_entry2 *avx = find(c, 0xd, 2);

	if (!sizes)
		return;
	if (!leaf1 || !(leaf1->ecx & B(26))) {
		*sizes = (struct kvm_cpuid_entry2){ .function = 0xd, .flags = sizes->flags };
		if (kinds)
			*kinds = (struct kvm_cpuid_entry2){ .function = 0xd, .index = 1, .flags = kinds->flags };
		if (avx)
			*avx = (struct kvm_cpuid_entry2){ .function = 0xd, .index = 2, .flags = avx->flags };
		return;
	}
	sizes->ecx = sizes->eax & 4 && avx ? avx->ebx + avx->eax : 576;
	sizes->ebx = 576; /* the kernel keeps this and leaf 0xd.1 at what XCR0 asks for */
	if (kinds)
		kinds->ebx = 0;
}

static void add_topology(struct kvm_cpuid2 *c, uint32_t leaf)
{
	for (uint32_t subleaf = 0; subleaf < 2; subleaf++)
		add(c, leaf, subleaf, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, (const uint32_t[4]){ 0 });
}

static void correct_limits(struct kvm_engine *e, struct kvm_cpuid2 *c)
{
	struct kvm_cpuid_entry2 *basic = find(c, 0, 0);
	struct kvm_cpuid_entry2 *extended = find(c, 0x80000000, 0);
	struct kvm_cpuid_entry2 *leaf1 = find(c, 1, 0);
	struct kvm_cpuid_entry2 *leaf7 = find(c, 7, 0);
	uint32_t regs[4];

	if (basic) {
		if (basic->eax > LAST_BASIC)
			basic->eax = LAST_BASIC;
		if (basic->eax < 0x16)
			basic->eax = 0x16;
	}
	if (extended && extended->eax > LAST_EXTENDED)
		extended->eax = LAST_EXTENDED;
	if (leaf7 && leaf7->eax > 2)
		leaf7->eax = 2;
	if (leaf1) {
		leaf1->ecx |= B(31);
		if (ioctl(e->sys, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0)
			leaf1->ecx |= B(24);
	}
	add_topology(c, 0xb);
	if (basic && basic->eax >= 0x1f)
		add_topology(c, 0x1f);
	for (uint32_t leaf = 0x15; leaf <= 0x16; leaf++)
		if (cpuid_timing(leaf, e->tsc_khz, regs))
			add(c, leaf, 0, 0, regs);
}

static void correct_pv(struct kvm_engine *e, struct kvm_cpuid2 *c)
{
	uint32_t regs[4];

	if (e->engine.config.hide_pv) {
		struct kvm_cpuid_entry2 *features = find(c, CPUID_KVM_FEATURES, 0);

		if (features)
			*features = c->entries[--c->nent];
		return;
	}
	cpuid_kvm_signature(regs);
	add(c, CPUID_KVM_SIGNATURE, 0, 0, regs);
	if (cpuid_timing(CPUID_KVM_TIMING, e->tsc_khz, regs))
		add(c, CPUID_KVM_TIMING, 0, 0, regs);
}

int kvm_cpuid_init(struct kvm_engine *e, struct err *err)
{
	struct kvm_cpuid2 *supported = kvm_cpuid_supported(e->sys, err);

	if (!supported)
		return -EIO;
	e->cpuid = calloc(1, sizeof(*e->cpuid) + MAX_ENTRIES * sizeof(e->cpuid->entries[0]));
	if (!e->cpuid) {
		free(supported);
		return err_set(err, ENOMEM, "out of memory");
	}
	filter(e->cpuid, supported);
	free(supported);
	correct_name(e->cpuid);
	correct_xsave(e->cpuid);
	correct_limits(e, e->cpuid);
	correct_pv(e, e->cpuid);
	return 0;
}

int kvm_cpuid_apply(struct kvm_engine *e, int fd, unsigned index, struct err *err)
{
	size_t size = sizeof(*e->cpuid) + e->cpuid->nent * sizeof(e->cpuid->entries[0]);
	struct kvm_cpuid2 *c = malloc(size);
	struct kvm_enable_cap enforce = { .cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .args = { 1 } };
	int r;

	if (!c)
		return err_set(err, ENOMEM, "out of memory");
	memcpy(c, e->cpuid, size);
	for (unsigned i = 0; i < c->nent; i++) {
		uint32_t regs[4];

		entry_get(&c->entries[i], regs);
		cpuid_place(c->entries[i].function, c->entries[i].index, index, e->engine.config.cpus, regs);
		entry_put(&c->entries[i], regs);
	}
	r = kvm_ioctl(fd, KVM_SET_CPUID2, c);
	free(c);
	if (r < 0)
		return err_set_errno(err, -r, "vCPU %u: KVM refuses its CPUID", index);
	if (e->caps.enforce_pv)
		kvm_ioctl(fd, KVM_ENABLE_CAP, &enforce);
	return 0;
}

bool kvm_cpuid(struct engine *engine, unsigned index, uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
	struct kvm_engine *e = kvm_engine(engine);
	struct kvm_cpuid_entry2 *entry = find(e->cpuid, leaf, subleaf);

	memset(regs, 0, 4 * sizeof(regs[0]));
	if (!entry)
		return false;
	entry_get(entry, regs);
	cpuid_place(leaf, subleaf, index, e->engine.config.cpus, regs);
	return true;
}
