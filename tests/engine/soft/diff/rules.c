/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What must not run on the host, and where two CPUs may differ: undefined
 * flags, and instructions that the host has but the guest is not offered.
 *
 * diff_may_run() looks at the bytes with its own few lines, not with the
 * decoder under test: a wrong decoder must not let a SYSCALL through.
 */
#include <cpuid.h>

#include "diff.h"

bool diff_host_amd;
static bool host_rtm, host_xop, host_apx;

void diff_rules_init(void)
{
	unsigned a, b, c, d;

	if (__get_cpuid_count(7, 0, &a, &b, &c, &d))
		host_rtm = b >> 11 & 1;
	if (__get_cpuid_count(7, 1, &a, &b, &c, &d))
		host_apx = d >> 21 & 1;
	if (__get_cpuid(0x80000001, &a, &b, &c, &d))
		host_xop = c >> 11 & 1;
	diff_host_amd = __get_cpuid(0, &a, &b, &c, &d) && c == 0x444d4163;
}

/* ---- What may run -------------------------------------------------------- */

static enum diff_rule rule_1b(uint8_t op, uint8_t next, unsigned mode, bool rep, bool *control_flow)
{
	unsigned reg = next >> 3 & 7;
	bool is_reg = next >> 6 == 3;

	switch (op) {
	case 0x07: case 0x17: case 0x1f:             /* POP of a segment */
	case 0x8e:                                   /* MOV to a segment */
	case 0x9a: case 0xea: case 0xca: case 0xcb: case 0xcf: /* far transfers */
	case 0xf1:                                   /* #DB as of a single step */
		return RULE_SKIP;
	case 0xc4: case 0xc5:                        /* LES, LDS; VEX is looked at elsewhere */
		return mode != MODE_64 && !is_reg ? RULE_SKIP : RULE_RUN;
	case 0x62:                                   /* EVEX */
		return mode == MODE_64 || is_reg ? RULE_SKIP : RULE_RUN;
	case 0xd5:                                   /* REX2 */
		return mode == MODE_64 && host_apx ? RULE_SKIP : RULE_RUN;
	case 0x8f:
		return reg && host_xop ? RULE_SKIP : RULE_RUN;
	case 0xc6: case 0xc7:                        /* XABORT, XBEGIN */
		return next == 0xf8 && host_rtm ? RULE_SKIP : RULE_RUN;
	case 0xcd:                                   /* gates that programs may use */
		return next == 3 || next == 4 || next == 0x80 ? RULE_SKIP : RULE_RUN;
	case 0xff:
		if (reg == 2 || reg == 4)
			*control_flow = true;
		return reg == 3 || reg == 5 ? RULE_SKIP : RULE_RUN;
	case 0xe0: case 0xe1:                        /* LOOPNE, LOOPE: on AMD F2 and F3 decide, not the opcode */
		if (rep && diff_host_amd)
			return RULE_SKIP;
		/* fall through */
	case 0x70 ... 0x7f: case 0xe2: case 0xe3: case 0xe8: case 0xe9: case 0xeb: case 0xc2: case 0xc3:
		*control_flow = true;
		return RULE_RUN;
	default:
		return RULE_RUN;
	}
}

static enum diff_rule rule_0f(uint8_t op, uint8_t next, bool f3, bool f2, bool p66, bool lock)
{
	unsigned reg = next >> 3 & 7;
	bool is_reg = next >> 6 == 3;

	switch (op) {
	case 0x00:                                   /* SLDT, STR: Linux emulates them; VERR, VERW see its GDT */
		return reg == 2 || reg == 3 ? RULE_RUN : RULE_SKIP;
	case 0x01:
		if (!is_reg)
			return reg == 2 || reg == 3 || reg >= 6 ? RULE_RUN : RULE_SKIP;
		/* XGETBV, XSETBV, SWAPGS; the rest is virtualization, monitoring, PKRU, SMSW under UMIP, ... */
		return next == 0xd0 || next == 0xd1 || next == 0xf8 ? RULE_RUN : RULE_SKIP;
	case 0x02: case 0x03:                        /* LAR, LSL see Linux's GDT */
	case 0x05: case 0x34:                        /* SYSCALL, SYSENTER */
	case 0x31: case 0x33: case 0xa2:             /* RDTSC, RDPMC, CPUID: differ by nature */
	case 0x37:                                   /* GETSEC */
	case 0xa1: case 0xa9:                        /* POP FS, GS */
	case 0xa6: case 0xa7:                        /* PadLock */
	case 0xb2: case 0xb4: case 0xb5:             /* LSS, LFS, LGS */
	case 0x0e: case 0x0f:                        /* 3DNow! */
	case 0x78: case 0x79:                        /* VMREAD, VMWRITE, EXTRQ, INSERTQ */
		return RULE_SKIP;
	case 0x20: case 0x22:                        /* CR8 by LOCK on AMD */
		return lock && diff_host_amd ? RULE_SKIP : RULE_RUN;
	case 0x35:                                   /* SYSEXIT: #GP, on AMD #UD in long mode */
		return diff_host_amd ? RULE_SKIP : RULE_RUN;
	case 0x1e: case 0x1c:                        /* RDSSP, CLDEMOTE */
		return f3 && is_reg && reg == 1 ? RULE_SKIP : RULE_RUN;
	case 0xae:
		if (is_reg && reg == 6 && (f3 || f2 || p66)) /* UMONITOR, UMWAIT, TPAUSE */
			return RULE_SKIP;
		if (f3 && (reg == 4 || (reg == 5 && is_reg) || (reg == 6 && !is_reg))) /* PTWRITE, INCSSP, CLRSSBSY */
			return RULE_SKIP;
		return RULE_RUN;
	case 0xc7:
		if (is_reg)                          /* RDRAND, RDSEED, RDPID, SENDUIPI */
			return reg == 6 || reg == 7 ? RULE_SKIP : RULE_RUN;
		return reg == 3 || reg == 5 || reg >= 6 ? RULE_SKIP : RULE_RUN; /* XRSTORS, XSAVES, VMX */
	default:
		return RULE_RUN;
	}
}

static enum diff_rule rule_0f38(uint8_t op, bool f3)
{
	switch (op) {
	case 0xf5: case 0xf6:                        /* WRUSS, WRSS; ADCX and ADOX are f6 */
	case 0xf8: case 0xf9:                        /* MOVDIR64B, ENQCMD, MOVDIRI */
	case 0xfa: case 0xfb: case 0xfc:             /* Key Locker, RAO-INT */
		return op == 0xf6 ? RULE_RUN : RULE_SKIP;
	case 0xd8: case 0xdc: case 0xdd: case 0xde: case 0xdf: /* Key Locker with F3 */
		return f3 ? RULE_SKIP : RULE_RUN;
	case 0x8a: case 0x8b:                        /* MOVRS */
		return RULE_SKIP;
	default:
		return RULE_RUN;
	}
}

enum diff_rule diff_may_run(const uint8_t *bytes, unsigned n, unsigned mode, bool *control_flow)
{
	bool f3 = false, f2 = false, p66 = false, lock = false;
	uint8_t padded[20] = { 0 };
	unsigned at = 0;
	uint8_t op;

	*control_flow = false;
	memcpy(padded, bytes, n < 15 ? n : 15);
	bytes = padded;
	for (; at < 15; at++) {
		uint8_t b = bytes[at];

		if (b == 0xf3)
			f3 = true;
		else if (b == 0xf2)
			f2 = true;
		else if (b == 0x66)
			p66 = true;
		else if (b == 0xf0)
			lock = true;
		else if (b != 0x26 && b != 0x2e && b != 0x36 && b != 0x3e && b != 0x64 && b != 0x65 && b != 0x67 &&
			 !(mode == MODE_64 && (b & 0xf0) == 0x40))
			break;
	}
	if (at >= 15)
		return RULE_RUN; /* nothing but prefixes: too long to be anything */
	op = bytes[at];
	/* VPEXTRQ, VPINSRQ outside 64-bit mode: the doubleword forms, on AMD #UD. */
	if (op == 0xc4 && mode != MODE_64 && diff_host_amd && (bytes[at + 1] & 31) == 3 && bytes[at + 2] & 0x80 &&
	    (bytes[at + 3] == 0x16 || bytes[at + 3] == 0x22))
		return RULE_SKIP;
	if (op != 0x0f)
		return rule_1b(op, bytes[at + 1], mode, f2 || f3, control_flow);
	op = bytes[at + 1];
	if (op == 0x38)
		return rule_0f38(bytes[at + 2], f3);
	if (op == 0x3a)
		return bytes[at + 2] == 0xf0 ? RULE_SKIP : RULE_RUN; /* HRESET */
	if ((op & 0xf0) == 0x80)
		*control_flow = true;
	return rule_0f(op, bytes[at + 2], f3, f2, p66, lock);
}

/* ---- Undefined flags (SDM vol. 2, "Flags Affected") ---------------------- */

static unsigned shift_count(const struct diff_case *c)
{
	const struct insn *i = &c->insn[0];
	unsigned count;

	if (i->map == MAP_1B && (i->opcode == 0xd0 || i->opcode == 0xd1))
		count = 1;
	else if (i->has_imm)
		count = (unsigned)i->imm;
	else
		count = (unsigned)c->in.gpr[R_CX];
	return count & (i->rex & 8 && c->mode == MODE_64 ? 63 : 31);
}

static uint64_t undefined_1b(const struct diff_case *c)
{
	const struct insn *i = &c->insn[0];
	unsigned reg = i->modrm >> 3 & 7, size = i->opcode & 1 ? i->opsize * 8 : 8, count;

	switch (i->opcode) {
	case 0x08 ... 0x0d: case 0x20 ... 0x25: case 0x30 ... 0x35: case 0x84: case 0x85: case 0xa8: case 0xa9:
		return FL_AF;
	case 0x80 ... 0x83:
		return reg == 1 || reg == 4 || reg == 6 ? FL_AF : 0;
	case 0x69: case 0x6b:
		return FL_SF | FL_ZF | FL_AF | FL_PF;
	case 0xf6: case 0xf7:
		if (reg <= 1)
			return FL_AF;
		if (reg == 4 || reg == 5)
			return FL_SF | FL_ZF | FL_AF | FL_PF;
		return reg >= 6 ? FLAGS_ARITH : 0;
	case 0xc0: case 0xc1: case 0xd0 ... 0xd3:
		count = shift_count(c);
		if (!count)
			return 0;
		if (reg < 4) /* rotates: OF for counts other than 1 */
			return count == 1 ? 0 : FL_OF;
		return FL_AF | (count == 1 ? 0 : FL_OF) | (reg != 7 && count >= size ? FL_CF : 0);
	case 0x27: case 0x2f: /* DAA, DAS */
		return FL_OF;
	case 0x37: case 0x3f: /* AAA, AAS */
		return FL_OF | FL_SF | FL_ZF | FL_PF;
	case 0xd4: case 0xd5: /* AAM, AAD */
		return FL_OF | FL_AF | FL_CF;
	default:
		return 0;
	}
}

static uint64_t undefined_0f(const struct diff_case *c)
{
	const struct insn *i = &c->insn[0];
	unsigned count;

	switch (i->opcode) {
	case 0xa3: case 0xab: case 0xb3: case 0xbb: case 0xba: /* BT* */
		return FL_OF | FL_SF | FL_AF | FL_PF;
	case 0xa4: case 0xa5: case 0xac: case 0xad: /* SHLD, SHRD */
		count = shift_count(c);
		if (!count)
			return 0;
		return count > i->opsize * 8u ? FLAGS_ARITH : FL_AF | (count == 1 ? 0 : FL_OF);
	case 0xaf:
		return FL_SF | FL_ZF | FL_AF | FL_PF;
	case 0xbc: case 0xbd:
		if (i->prefixes & PFX_F3) /* TZCNT, LZCNT */
			return FL_OF | FL_SF | FL_AF | FL_PF;
		return FL_CF | FL_OF | FL_SF | FL_AF | FL_PF;
	default:
		return 0;
	}
}

uint64_t diff_undefined_flags(const struct diff_case *c)
{
	const struct insn *i = &c->insn[0];
	uint64_t undefined = 0;

	if (i->map == MAP_1B)
		undefined = undefined_1b(c);
	else if (i->map == MAP_0F && !(i->prefixes & PFX_VEX))
		undefined = undefined_0f(c);
	else if (i->map == MAP_0F38 && i->opcode == 0xf2) /* ANDN */
		undefined = FL_AF | FL_PF;
	else if (i->map == MAP_0F38 && i->opcode == 0xf3) /* BLSR, BLSMSK, BLSI */
		undefined = FL_AF | FL_PF;
	else if (i->map == MAP_0F38 && i->opcode == 0xf5 && i->prefixes & PFX_VEX && !i->pp) /* BZHI */
		undefined = FL_AF | FL_PF;
	else if (i->map == MAP_0F38 && i->opcode == 0xf7 && i->prefixes & PFX_VEX && !i->pp) /* BEXTR */
		undefined = FL_AF | FL_SF | FL_PF;
	return undefined;
}

/* ---- On the host, not offered -------------------------------------------- */

static bool not_offered_vex(const struct insn *i)
{
	unsigned op = i->opcode;

	switch (i->map) {
	case MAP_0F: /* AVX-512 mask registers */
		return (op >= 0x41 && op <= 0x4b) || (op >= 0x90 && op <= 0x93) || op == 0x98 || op == 0x99;
	case MAP_0F38:
		return (op >= 0x50 && op <= 0x53) ||               /* AVX-VNNI */
		       op == 0xb4 || op == 0xb5 ||                 /* AVX-IFMA */
		       op == 0xb0 || op == 0xb1 || op == 0x72 ||   /* AVX-NE-CONVERT */
		       op == 0xd2 || op == 0xd3 ||                 /* AVX-VNNI-INT16 */
		       op == 0xcb || op == 0xcc || op == 0xcd || op == 0xda || /* SHA512, SM3, SM4 */
		       op == 0xcf ||                               /* GFNI */
		       op == 0x49 || op == 0x4b || (op >= 0x5c && op <= 0x5e) || op == 0x6c || /* AMX */
		       (op >= 0xe0 && op <= 0xef) ||               /* CMPccXADD */
		       (i->vl && op >= 0xdc && op <= 0xdf);        /* VAES */
	case MAP_0F3A:
		return (op >= 0x30 && op <= 0x33) ||               /* mask shifts */
		       op == 0xce || op == 0xcf || op == 0xde ||   /* GFNI, SM3 */
		       (i->vl && op == 0x44) ||                    /* VPCLMULQDQ */
		       (op >= 0x5c && op <= 0x5f) ||               /* FMA4 */
		       (op >= 0x68 && op <= 0x6f) || (op >= 0x78 && op <= 0x7f) ||
		       op == 0x48 || op == 0x49;                   /* XOP's VPERMIL2 */
	default:
		return false;
	}
}

bool diff_not_offered(const struct insn *i)
{
	if (i->prefixes & PFX_VEX)
		return not_offered_vex(i) ||
		       /* AMD does not look at W of VPERMQ and VPERMPD. */
		       (diff_host_amd && i->map == MAP_0F3A && i->opcode <= 1 && !(i->rex & 8));
	switch (i->map) {
	case MAP_0F:
		/* MOVNTSS, MOVNTSD of SSE4a; CLWB; XSAVES and kin; WBNOINVD is a WBINVD elsewhere */
		if (i->opcode == 0x2b && i->prefixes & (PFX_F2 | PFX_F3))
			return true;
		return i->opcode == 0xae && i->prefixes & PFX_66 && (i->modrm >> 3 & 7) == 6;
	case MAP_0F38:
		return i->opcode == 0xcf; /* GFNI */
	case MAP_0F3A:
		return i->opcode == 0xce || i->opcode == 0xcf;
	default:
		return false;
	}
}
