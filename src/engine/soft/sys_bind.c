/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which handler runs a system instruction. Forms that CPUID does not offer are bound to #UD. */
#include "engine/soft/sys.h"

#include <cpuid.h>

bool sys_is_amd(void)
{
	static _Atomic int8_t known = -1;
	int8_t amd = atomic_load_explicit(&known, memory_order_relaxed);

	if (amd < 0) {
		uint32_t a, b, c, d;

		__cpuid(0, a, b, c, d);
		amd = b == signature_AMD_ebx || b == 0x6f677948; /* "Auth", "Hygo" */
		atomic_store_explicit(&known, amd, memory_order_relaxed);
	}
	return amd;
}

/* Any vCPU: they all offer the same. While there is none, everything is offered. */
static bool offers(struct soft_engine *e, uint32_t leaf, unsigned reg, unsigned bit)
{
	uint32_t regs[4];

	for (unsigned n = 0; n < ENGINE_MAX_CPUS; n++) {
		struct soft_vcpu *v = __atomic_load_n(&e->vcpus[n], __ATOMIC_ACQUIRE);

		if (v)
			return soft_cpuid(v, leaf, 0, regs) && regs[reg] >> bit & 1;
	}
	return true;
}

/* The CPUID bit of those instructions that have one and no bit in CR4. */
static bool is_offered(struct soft_engine *e, const struct insn *i)
{
	bool reg0f = i->map == MAP_0F && !i->is_mem;

	if (insn_is(i, MAP_0F38, 0x82))
		return offers(e, 7, 1, 10); /* INVPCID */
	if (reg0f && i->opcode == 0x01 && i->modrm == 0xf9)
		return offers(e, 0x80000001, 3, 27); /* RDTSCP */
	if (reg0f && i->opcode == 0x01 && (i->modrm == 0xca || i->modrm == 0xcb))
		return offers(e, 7, 1, 20); /* SMAP */
	if (reg0f && i->opcode == 0xc7 && modrm_reg(i) == 6)
		return offers(e, 1, 2, 30); /* RDRAND */
	if (reg0f && i->opcode == 0xc7 && modrm_reg(i) == 7)
		return i->prefixes & PFX_F3 ? offers(e, 7, 2, 22) : offers(e, 7, 1, 18); /* RDPID, RDSEED */
	return true;
}

bool sys_bind(struct soft_engine *e, struct insn *i)
{
	static insn_fn *(*const binders[])(const struct insn *, bool *) = {
		sys_far_bind, sys_int_bind, sys_seg_bind, sys_table_bind, sys_ctl_bind, sys_call_bind, sys_io_bind, sys_misc_bind,
	};

	if (i->prefixes & PFX_VEX)
		return false;
	for (unsigned n = 0; n < sizeof(binders) / sizeof(binders[0]); n++) {
		bool ends = false;
		insn_fn *fn = binders[n](i, &ends);

		if (!fn)
			continue;
		/* None of them can be locked. */
		if (i->prefixes & PFX_LOCK || !is_offered(e, i))
			fn = sys_undefined;
		i->fn = fn;
		i->aux = ends ? INSN_ENDS_BLOCK : 0;
		return true;
	}
	return false;
}
