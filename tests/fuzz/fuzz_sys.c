/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * System instructions and event delivery with any tables, registers and
 * faulting pages. Properties: an instruction that faults leaves every register
 * as it was; whatever happens, the derived state (mode, CPL, TLB view) is what
 * the registers say, and no register holds what no CPU could hold.
 */
#include "../engine/soft/sys_stubs.h"

struct input {
	const uint8_t *data;
	size_t len;
};

static uint8_t take8(struct input *in)
{
	if (!in->len)
		return 0;
	in->len--;
	return *in->data++;
}

static uint64_t take64(struct input *in)
{
	uint64_t x = 0;

	for (int n = 0; n < 8; n++)
		x = x << 8 | take8(in);
	return x;
}

static uint64_t take_value(struct input *in)
{
	static const uint64_t values[] = {
		0, 1, 2, 3, 7, 0x10, 0x200, 0xfff, 0x1000, 0xffff, 0x10000, 0x7fffffff, 0xffffffff, 0x100000000, 0x7fffffffffff,
		0x800000000000, 0xffff800000000000, 0xffff7fffffffffff, UINT64_MAX, STACK, KSTACK, CODE, TARGET, GDT, TSS, 0x6000,
		0xc0000080, 0xc0000082, 0x80000011, 0x180000000, 0x100, 0x900, 0x80050033, 0x20, 0x3f8, 5, 0x3202,
	};
	uint8_t how = take8(in);

	if (how < 0x60)
		return values[how % (sizeof(values) / sizeof(values[0]))];
	if (how < 0xc0)
		return (take8(in) % (GDT_END / 8 + 2)) * 8 | (take8(in) & 3); /* a selector */
	return take64(in);
}

static uint16_t take_selector(struct input *in)
{
	uint8_t how = take8(in);

	return how < 0x60 ? GATE | (how & 3) : take_value(in);
}

/* Everything that a fault must leave alone. */
struct registers {
	uint64_t gpr[16], rflags, cr0, cr2, cr3, cr4, xcr0, efer, dr[8], kernel_gs_base, rip;
	struct cpu_segment seg[SEG_COUNT], ldtr, tr;
	struct cpu_table gdtr, idtr;
	uint8_t cpl, mode, stack_size, view, long_mode, ac_check, mp_state, nmi_masked;
};

static struct registers registers(void)
{
	struct registers r;

	memset(&r, 0, sizeof(r));
	memcpy(r.gpr, v->gpr, sizeof(r.gpr));
	memcpy(r.seg, v->seg, sizeof(r.seg));
	memcpy(r.dr, v->dr, sizeof(r.dr));
	r.rflags = v->rflags;
	r.cr0 = v->cr0;
	r.cr2 = v->cr2;
	r.cr3 = v->cr3;
	r.cr4 = v->cr4;
	r.xcr0 = v->xcr0;
	r.efer = v->efer;
	r.kernel_gs_base = v->kernel_gs_base;
	r.rip = v->rip;
	r.ldtr = v->ldtr;
	r.tr = v->tr;
	r.gdtr = v->gdtr;
	r.idtr = v->idtr;
	r.cpl = v->cpl;
	r.mode = v->mode;
	r.stack_size = v->stack_size;
	r.view = v->tlb_view;
	r.long_mode = v->long_mode;
	r.ac_check = v->ac_check;
	r.mp_state = v->mp_state;
	r.nmi_masked = v->nmi_masked;
	return r;
}

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "fuzz_sys: %s, after", what);
	for (unsigned n = 0; n < insn.len; n++)
		fprintf(stderr, " %02x", insn.bytes[n]);
	fprintf(stderr, " in mode %u at CPL %u, rip %lx\n", v->mode, v->cpl, (long)v->rip);
	__builtin_trap();
}

static void check_consistent(void)
{
	uint8_t flat = v->seg_flat;
	struct registers before = registers(), after;

	must(!v->borrowed && !v->fault_depth, "a borrowed level");
	must(v->tlb_now == v->tlb[v->tlb_view], "a wrong TLB");
	soft_update_mode(v);
	after = registers();
	must(!memcmp(&before, &after, sizeof(before)), "derived state is stale");
	must(v->mode == MODE_64 || flat == v->seg_flat, "seg_flat is stale");
	must((v->rflags & ~(uint64_t)0x277fd7) == 0 && v->rflags & 2, "impossible RFLAGS");
	must(!(v->cr0 & CR0_PG) || v->cr0 & CR0_PE, "paging without protection");
	must(v->long_mode == (v->efer & EFER_LME && v->cr0 & CR0_PG), "LMA is not LME and PG");
	must(!v->long_mode || v->cr4 & CR4_PAE, "long mode without PAE");
	must(!(v->cr4 & ~soft_cr4_mask(v)), "impossible CR4");
	must(!(v->rflags & FL_VM) || (in_protected(v) && !v->long_mode), "VM86 in the wrong mode");
	must(v->mode == MODE_64 || !(v->rip >> 32), "a wide rIP");
	must(canonical(v->gdtr.base) && canonical(v->idtr.base) && canonical(v->ldtr.base) && canonical(v->tr.base),
	     "a table that is not canonical");
	must(v->gpr[REG_ZERO] == 0, "the zero register");
}

/* Opcodes of sys_bind.c; those of map 0F with bit 8. */
static const uint16_t opcodes[] = {
	0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x63, 0x6c, 0x6d, 0x6e, 0x6f, 0x8c, 0x8e, 0x9a, 0x9c, 0x9d, 0xc4, 0xc5, 0xca, 0xcb,
	0xcc, 0xcd, 0xce, 0xcf, 0xcf, 0xcf, 0xe4, 0xe5, 0xe6, 0xe7, 0xea, 0xec, 0xed, 0xee, 0xef, 0xf1, 0xf4, 0xfa, 0xfb, 0xff,
	0x100, 0x101, 0x102, 0x103, 0x105, 0x106, 0x107, 0x108, 0x109, 0x120, 0x121, 0x122, 0x123, 0x130, 0x131, 0x132, 0x133, 0x134,
	0x135, 0x138, 0x101, 0x122, 0x9a, 0xff, 0xff, 0xea, 0x1a0, 0x1a1, 0x1a2, 0x1a8, 0x1a9, 0x1b2, 0x1b4, 0x1b5, 0x1ae, 0x1c7,
};

static unsigned take_instruction(struct input *in, uint8_t *bytes)
{
	uint8_t prefixes = take8(in);
	uint16_t op = opcodes[take8(in) % (sizeof(opcodes) / sizeof(opcodes[0]))];
	unsigned n = 0;

	if ((prefixes & 7) == 7)
		bytes[n++] = 0x66;
	if ((prefixes & 0x18) == 0x18)
		bytes[n++] = prefixes & 0x80 ? 0xf3 : 0x65;
	if (v->mode == MODE_64 && prefixes & 0x20)
		bytes[n++] = 0x48 | (prefixes >> 6 & 1) << 2;
	if (op & 0x100)
		bytes[n++] = 0x0f;
	bytes[n++] = op;
	if (op == 0x138) {
		bytes[0] = 0x66;
		bytes[1] = 0x0f;
		bytes[2] = 0x38;
		bytes[3] = 0x82;
		n = 4;
	}
	if (op == 0xff && prefixes & 1) {
		/* A pointer in memory that leads somewhere */
		uint16_t selector = take_selector(in);

		bytes[n++] = prefixes & 2 ? 0x1b : 0x2b;
		v->gpr[R_BX] = 0x6000;
		poke(0x6000, TARGET, 8);
		poke(0x6004, selector, 2);
		poke(0x6008, selector, 2);
	} else if (op == 0xff || op == 0x9a || op == 0xea) {
		uint16_t selector = take_selector(in);

		memcpy(bytes + n, &(uint32_t){ TARGET }, 4);
		memcpy(bytes + n + 4, &selector, 2);
		n += 6;
	}
	while (n < 15)
		bytes[n++] = take8(in);
	return n;
}

static void deliver_event(void)
{
	struct registers before = registers();

	if (!excp_deliver(v)) {
		/* Shutdown: as before, but that CR2, DR6, DR7 and NMI masking belong to the attempts. */
		struct registers after = registers();

		after.cr2 = before.cr2;
		after.nmi_masked = before.nmi_masked;
		memcpy(after.dr, before.dr, sizeof(after.dr));
		must(!memcmp(&before, &after, sizeof(before)), "a shutdown that changed registers");
	}
	check_consistent();
}

static void one_instruction(struct input *in)
{
	uint8_t bytes[15];
	unsigned n = take_instruction(in, bytes);
	struct registers before = registers();
	bool repeats;

	if (insn_decode(&insn, bytes, n, v->mode) != DECODE_OK || !sys_bind(&engine, &insn))
		return;
	port_count = 0;
	/* Each element of a repeated instruction is complete by itself. */
	repeats = insn.map == MAP_1B && insn.opcode >= 0x6c && insn.opcode <= 0x6f;
	if (repeats)
		soft_request(v, REQ_STATE);
	v->next_rip = v->rip + insn.len;
	if (v->mode != MODE_64)
		v->next_rip = v->mode == MODE_32 ? (uint32_t)v->next_rip : (uint16_t)v->next_rip;
	v->shadow = 0;
	if (call_handler()) {
		v->rip = v->next_rip;
		check_consistent();
		return;
	}
	must(v->event.active, "a fault without an event");
	if (!repeats) {
		struct registers after = registers();

		must(!memcmp(&before, &after, sizeof(before)), "a fault that changed registers");
	}
	check_consistent();
	deliver_event();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const uint8_t writable[] = { 0x10, 0x10, 0x20, 0x30, 0x40, 0x41, 0x42, 0x80, 0x60, 0x90, 0xa0, 0xb0 };
	struct input in = { data, len };
	enum mode mode = take8(&in) % 5;
	static const uint8_t levels[] = { 0, 3, 0, 1 };
	unsigned level = levels[take8(&in) & 3], pokes;

	if (!v)
		stub_setup(NULL);
	cpu(mode, mode == REAL ? 0 : mode == VM86 ? 3 : level);
	for (unsigned n = 0; n < 256; n++) {
		if (mode >= COMPAT)
			poke(IDT + n * 16, make_gate(CODE64, TARGET + n, 0xee, n & 1), 8);
		else
			poke(IDT + n * 8, make_gate(CODE32, TARGET + n, 0xee, 0), 8);
	}
	amd = take8(&in) & 1;
	poke(GDT + GATE, make_gate(take8(&in) & 1 ? (mode >= COMPAT ? CODE64 : CODE32) : take_value(&in), TARGET, (take8(&in) & 0x68) | 0x84, take8(&in) & 31), 8);
	if (take8(&in) & 3)
		poke(GDT + GATE + 8, 0, 8);
	pokes = take8(&in) % 24;
	for (unsigned n = 0; n < pokes; n++) {
		uint64_t at = writable[take8(&in) % sizeof(writable)] * 0x100u + take8(&in) * 4u;

		poke(at, take_value(&in), take8(&in) & 1 ? 8 : 4);
	}
	for (unsigned n = 0; n < 8; n++)
		if (n != R_SP)
			v->gpr[n] = v->mode == MODE_64 ? take_value(&in) : (uint32_t)take_value(&in);
	v->rflags |= take_value(&in) & (FLAGS_ARITH | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_AC | FL_ID);
	if (take8(&in) < 0x40)
		v->cr4 |= take_value(&in) & (CR4_SMAP | CR4_UMIP | CR4_FSGSBASE | CR4_TSD | CR4_DE | CR4_OSXSAVE);
	v->cr0 |= take8(&in) & 1 ? CR0_AM : 0;
	v->efer |= EFER_SCE;
	v->star = take_value(&in) << 48 | take_value(&in) << 32 | (uint32_t)take_value(&in);
	v->lstar = 0xffffffff80000000;
	v->cstar = 0xffffffff80001000;
	v->sfmask = take_value(&in) & 0xffffffff;
	v->sysenter_cs = take_value(&in);
	v->sysenter_eip = v->sysenter_esp = 0xffffffff80002000;
	if (take8(&in) < 0x40) {
		absent_at = take_value(&in);
		absent_size = take8(&in) * 4;
	}
	if (take8(&in) < 0x40) {
		readonly_at = take_value(&in);
		readonly_size = take8(&in) * 16;
	}
	bad_pdptes = take8(&in) < 0x20;
	if (mode == PROT && take8(&in) & 1) {
		v->cr4 |= CR4_PAE;
		v->efer |= take8(&in) & 1 ? EFER_LME : 0;
	}
	fill_tlb = !absent_size && !readonly_size && take8(&in) & 1;
	soft_update_mode(v);
	while (in.len) {
		uint8_t what = take8(&in);

		if (what < 0x10) {
			pending = 0x20 + (what & 7);
			soft_request(v, what & 8 ? REQ_NMI : REQ_IRQ);
		}
		if (excp_poll(v)) {
			deliver_event();
			continue;
		}
		if (v->mp_state != CPU_MP_RUNNABLE)
			v->mp_state = CPU_MP_RUNNABLE;
		one_instruction(&in);
	}
	return 0;
}
