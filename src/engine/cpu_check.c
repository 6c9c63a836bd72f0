/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "engine/cpu_check.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define CR0_PE (1ull << 0)
#define CR0_NW (1ull << 29)
#define CR0_CD (1ull << 30)
#define CR0_PG (1ull << 31)
#define CR0_DEFINED (0x3full | 1ull << 16 | 1ull << 18 | CR0_NW | CR0_CD | CR0_PG)
#define CR4_PAE (1ull << 5)
#define CR4_PCIDE (1ull << 17)
#define CR4_DEFINED 0x1f77fffull /* VME to LASS but for bits 15 and 19: SDM vol. 3 §2.5 */
#define EFER_LME (1ull << 8)
#define EFER_LMA (1ull << 10)
#define EFER_DEFINED 0x20fd01ull /* with AMD's SVME, LMSLE, FFXSR, TCE, AutoIBRS */
#define XCR0_HELD 7ull           /* what fits struct cpu_state: x87, SSE, AVX */
#define RFLAGS_DEFINED 0x3f7fd7ull
#define XSAVE_MXCSR 24
#define XSAVE_XSTATE_BV 512
#define XSAVE_XCOMP_BV 520

static bool canonical(uint64_t linear)
{
	return (uint64_t)((int64_t)(linear << 16) >> 16) == linear;
}

static int refuse(struct err *err, const char *what, uint64_t value)
{
	return err_set(err, EINVAL, "no CPU can have %s 0x%llx", what, (unsigned long long)value);
}

static int check_control(const struct cpu_state *s, struct err *err)
{
	bool paging = s->cr0 & CR0_PG;
	bool long_mode = s->efer & EFER_LMA;

	if (s->cr0 & ~CR0_DEFINED || (paging && !(s->cr0 & CR0_PE)) || (s->cr0 & CR0_NW && !(s->cr0 & CR0_CD)))
		return refuse(err, "CR0", s->cr0);
	if (s->cr4 & ~CR4_DEFINED || (s->cr4 & CR4_PCIDE && !long_mode) || (long_mode && !(s->cr4 & CR4_PAE)))
		return refuse(err, "CR4", s->cr4);
	if (s->efer & ~EFER_DEFINED || long_mode != (paging && s->efer & EFER_LME))
		return refuse(err, "EFER", s->efer);
	if (s->cr3 >> 52 || (!long_mode && s->cr3 >> 32))
		return refuse(err, "CR3", s->cr3);
	if (s->cr8 & ~15ull)
		return refuse(err, "CR8", s->cr8);
	if (!(s->xcr0 & 1) || s->xcr0 & ~XCR0_HELD || (s->xcr0 & 6) == 4)
		return refuse(err, "XCR0", s->xcr0);
	if (s->rflags & ~RFLAGS_DEFINED || !(s->rflags & 2))
		return refuse(err, "RFLAGS", s->rflags);
	if (s->dr[6] >> 32 || s->dr[7] >> 32)
		return refuse(err, "DR6 or DR7", s->dr[6] >> 32 ? s->dr[6] : s->dr[7]);
	return 0;
}

static int check_addresses(const struct cpu_state *s, struct err *err)
{
	const struct {
		const char *name;
		uint64_t linear;
	} addresses[] = {
		{ "the base of FS", s->seg[SEG_FS].base },
		{ "the base of GS", s->seg[SEG_GS].base },
		{ "the base of LDTR", s->ldtr.base },
		{ "the base of TR", s->tr.base },
		{ "the base of GDTR", s->gdtr.base },
		{ "the base of IDTR", s->idtr.base },
		{ "KERNEL_GS_BASE", s->kernel_gs_base },
		{ "LSTAR", s->lstar },
		{ "CSTAR", s->cstar },
		{ "SYSENTER_ESP", s->sysenter_esp },
		{ "SYSENTER_EIP", s->sysenter_eip },
	};

	for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++)
		if (!canonical(addresses[i].linear))
			return refuse(err, addresses[i].name, addresses[i].linear);
	for (unsigned i = 0; i <= SEG_DS; i++)
		if (s->seg[i].base >> 32)
			return refuse(err, "the base of ES, CS, SS or DS", s->seg[i].base);
	return 0;
}

static int check_vector_unit(const struct cpu_state *s, struct err *err)
{
	uint32_t mxcsr;
	uint64_t bv, comp;

	memcpy(&mxcsr, s->xsave + XSAVE_MXCSR, sizeof(mxcsr));
	memcpy(&bv, s->xsave + XSAVE_XSTATE_BV, sizeof(bv));
	memcpy(&comp, s->xsave + XSAVE_XCOMP_BV, sizeof(comp));
	if (mxcsr & ~0xffffu)
		return refuse(err, "MXCSR", mxcsr);
	if (bv & ~XCR0_HELD)
		return refuse(err, "XSTATE_BV", bv);
	if (comp)
		return refuse(err, "XCOMP_BV (the area is in standard format)", comp);
	return 0;
}

int cpu_state_check(const struct cpu_state *s, struct err *err)
{
	int r = check_control(s, err);

	if (!r)
		r = check_addresses(s, err);
	if (!r)
		r = check_vector_unit(s, err);
	if (r)
		return r;
	if (s->mp_state > CPU_MP_WAIT_SIPI)
		return refuse(err, "run state", s->mp_state);
	if (s->interrupt_shadow & ~3)
		return refuse(err, "interrupt shadow", s->interrupt_shadow);
	if (s->event_pending && (s->event_kind == 1 || s->event_kind > CPU_EVENT_SOFTWARE))
		return refuse(err, "pending event of kind", s->event_kind);
	return 0;
}
