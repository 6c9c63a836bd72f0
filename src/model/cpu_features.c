/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * CPUID's feature bits by the names that libvirt gives them (SDM vol. 2,
 * CPUID; AMD APM vol. 3, appendix E). A dash is a bit without a name there,
 * reserved, or a fact of the machine and not of the CPU's instruction set.
 */
#include <cpuid.h>
#include <stdlib.h>
#include <string.h>

#include "model/caps.h"

enum { EAX, EBX, ECX, EDX };
/* Names of the bits from 0 up. */
static const struct word {
	uint32_t leaf, subleaf;
	unsigned reg;
	const char *names;
} words[] = {
	{ 1, 0, EDX,
	  "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - ds acpi mmx fxsr sse "
	  "sse2 "
	  "ss ht tm ia64 pbe" },
	{ 1, 0, ECX,
	  "pni pclmuldq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid - fma cx16 xtpr pdcm - pcid dca sse4.1 sse4.2 "
	  "x2apic "
	  "movbe popcnt tsc-deadline aes xsave osxsave avx f16c rdrand hypervisor" },
	{ 6, 0, EAX, "- - arat" },
	{ 7, 0, EBX,
	  "fsgsbase tsc_adjust - bmi1 hle avx2 - smep bmi2 erms invpcid rtm cmt - mpx - avx512f avx512dq rdseed adx "
	  "smap "
	  "avx512ifma pcommit clflushopt clwb intel-pt avx512pf avx512er avx512cd sha-ni avx512bw avx512vl" },
	{ 7, 0, ECX,
	  "- avx512vbmi umip pku ospke waitpkg avx512vbmi2 - gfni vaes vpclmulqdq avx512vnni avx512bitalg - "
	  "avx512-vpopcntdq - "
	  "la57 - - - - - rdpid - bus-lock-detect cldemote - movdiri movdir64b - - pks" },
	{ 7, 0, EDX,
	  "- - avx512-4vnniw avx512-4fmaps fsrm - - - avx512-vp2intersect - md-clear - - - serialize - tsx-ldtrk - "
	  "pconfig "
	  "arch-lbr - - amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl stibp - arch-capabilities core-capability "
	  "ssbd" },
	{ 7, 1, EAX, "- - - - avx-vnni avx512-bf16 - - - - fzrm fsrs fsrc" },
	{ 0xd, 1, EAX, "xsaveopt xsavec xgetbv1 xsaves - -" },
	{ 0x80000001, 0, EDX,
	  "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm 3dnowext "
	  "3dnow" },
	{ 0x80000001, 0, ECX,
	  "lahf_lm cmp_legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp "
	  "fma4 "
	  "tce - - - tbm topoext perfctr_core perfctr_nb" },
	{ 0x80000007, 0, EDX, "- - - - - - - - invtsc" },
	{ 0x80000008, 0, EBX,
	  "clzero - xsaveerptr - - - - - - wbnoinvd - - ibpb - ibrs amd-stibp - - - - - - - - amd-ssbd virt-ssbd "
	  "amd-no-ssb" },
};
#define N_WORDS (sizeof(words) / sizeof(words[0]))
#define NAMES_MAX 320

/* Where each named bit is, made of the text above once. */
static struct named_bit {
	char name[24];
	uint8_t word, bit;
} named[NAMES_MAX];
static unsigned n_named;

__attribute__((constructor)) static void index_names(void)
{
	for (unsigned w = 0; w < N_WORDS; w++) {
		const char *p = words[w].names;

		for (unsigned bit = 0; *p; bit++) {
			size_t n = strcspn(p, " ");

			if (*p != '-' && n_named < NAMES_MAX && n < sizeof(named[0].name)) {
				memcpy(named[n_named].name, p, n);
				named[n_named].word = w;
				named[n_named++].bit = bit;
			}
			p += n + strspn(p + n, " ");
		}
	}
}

unsigned cpu_feature_count(void)
{
	return n_named;
}

const char *cpu_feature_name(unsigned i)
{
	return i < n_named ? named[i].name : NULL;
}

int cpu_feature_find(const char *name)
{
	for (unsigned i = 0; i < n_named; i++)
		if (!strcmp(named[i].name, name))
			return i;
	return -1;
}

const char *cpu_vendor_name(const char *cpuid_vendor)
{
	return !strcmp(cpuid_vendor, "AuthenticAMD") ? "AMD" : !strcmp(cpuid_vendor, "GenuineIntel") ? "Intel" : NULL;
}

static void read_leaf(uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
	uint32_t max = __get_cpuid_max(leaf & 0x80000000, NULL);

	memset(regs, 0, 4 * sizeof(regs[0]));
	if (max >= leaf)
		__cpuid_count(leaf, subleaf, regs[EAX], regs[EBX], regs[ECX], regs[EDX]);
}

void cpu_host_read(struct cpu_host *cpu)
{
	uint32_t regs[4], base;

	memset(cpu, 0, sizeof(*cpu));
	read_leaf(0, 0, regs);
	memcpy(cpu->vendor, &regs[EBX], 4);
	memcpy(cpu->vendor + 4, &regs[EDX], 4);
	memcpy(cpu->vendor + 8, &regs[ECX], 4);
	read_leaf(1, 0, regs);
	cpu->signature = regs[EAX];
	base = regs[EAX] >> 8 & 0xf;
	cpu->family = base == 0xf ? base + (regs[EAX] >> 20 & 0xff) : base;
	cpu->model = regs[EAX] >> 4 & 0xf;
	if (base == 6 || base == 0xf)
		cpu->model |= (regs[EAX] >> 16 & 0xf) << 4;
	cpu->stepping = regs[EAX] & 0xf;
	read_leaf(0x80000008, 0, regs);
	cpu->phys_bits = regs[EAX] & 0xff;
	for (unsigned i = 0; i < n_named; i++) {
		const struct word *w = &words[named[i].word];

		read_leaf(w->leaf, w->subleaf, regs);
		if (regs[w->reg] >> named[i].bit & 1)
			cpu->features.bits[i / 64] |= 1ull << i % 64;
	}
}

/* ---- Models --------------------------------------------------------------- */

/* System V ABI, AMD64 supplement, 3.1.1: what each level adds to the one before it. */
static const struct {
	const char *name, *adds;
} levels[] = {
	{ "x86-64-v1", "lm cmov cx8 fpu fxsr mmx syscall sse sse2" },
	{ "x86-64-v2", "cx16 lahf_lm popcnt pni sse4.1 sse4.2 ssse3" },
	{ "x86-64-v3", "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave" },
	{ "x86-64-v4", "avx512f avx512bw avx512cd avx512dq avx512vl" },
};
#define N_LEVELS (sizeof(levels) / sizeof(levels[0]))

unsigned cpu_model_count(void)
{
	return N_LEVELS;
}

const char *cpu_model_name(unsigned i)
{
	return i < N_LEVELS ? levels[i].name : NULL;
}

bool cpu_model_set(const char *name, struct cpu_set *set)
{
	memset(set, 0, sizeof(*set));
	for (unsigned i = 0; i < N_LEVELS; i++) {
		for (const char *p = levels[i].adds; *p;) {
			size_t n = strcspn(p, " ");
			char one[24];
			int f;

			memcpy(one, p, n);
			one[n] = '\0';
			f = cpu_feature_find(one);
			if (f >= 0)
				set->bits[f / 64] |= 1ull << f % 64;
			p += n + strspn(p + n, " ");
		}
		if (!strcmp(levels[i].name, name))
			return true;
	}
	return false;
}

unsigned cpu_model_best(const struct cpu_set *set)
{
	unsigned best = 0;

	for (unsigned i = 0; i < N_LEVELS; i++) {
		struct cpu_set want;

		cpu_model_set(levels[i].name, &want);
		for (unsigned k = 0; k < CPU_FEATURES_MAX / 64; k++)
			if (want.bits[k] & ~set->bits[k])
				return best;
		best = i;
	}
	return best;
}
