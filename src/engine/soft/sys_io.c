/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Port I/O: IN, OUT, INS, OUTS (SDM vol. 1 chapter 19). */
#include "engine/soft/sys.h"

/* IOPL, then the I/O permission bitmap of the TSS. */
static void check_ports(struct soft_vcpu *v, uint16_t port, unsigned size)
{
	uint64_t at;
	unsigned bits;

	if (likely(v->cpl <= iopl(v) && !in_vm86(v)))
		return;
	if (!segment_usable(&v->tr) || !(v->tr.attr & 8) || v->tr.limit < 103)
		soft_raise(v, EXC_GP, 0);
	at = sys_ld(v, v->tr.base + 102, 2) + port / 8;
	if (at + 1 > v->tr.limit)
		soft_raise(v, EXC_GP, 0);
	bits = sys_ld(v, v->tr.base + at, 2) >> (port & 7);
	if (bits & ((1u << size) - 1))
		soft_raise(v, EXC_GP, 0);
}

/* Breakpoints on ports (SDM vol. 3 §17.2.4): R/W = 10b with CR4.DE. */
static void check_breakpoints(struct soft_vcpu *v, uint16_t port, unsigned size)
{
	static const uint8_t lengths[] = { 1, 2, 8, 4 };

	if (likely(!(v->dr[7] & 0xff) || !(v->cr4 & CR4_DE)))
		return;
	for (unsigned n = 0; n < 4; n++) {
		unsigned len = lengths[v->dr[7] >> (18 + 4 * n) & 3];
		uint64_t from = v->dr[n] & ~(uint64_t)(len - 1);

		if (v->dr[7] >> (2 * n) & 3 && (v->dr[7] >> (16 + 4 * n) & 3) == 2 && port < from + len &&
		    from < (uint64_t)port + size) {
			v->dr6_pending |= 1u << n;
			soft_request(v, REQ_TRAP);
		}
	}
}

static uint32_t port_read(struct soft_vcpu *v, uint16_t port, unsigned size)
{
	uint32_t value;

	v->stats.exits++;
	value = soft_pio_read(v, port, size);
	check_breakpoints(v, port, size);
	return value;
}

static void port_write(struct soft_vcpu *v, uint16_t port, uint32_t value, unsigned size)
{
	v->stats.exits++;
	soft_pio_write(v, port, value, size);
	check_breakpoints(v, port, size);
}

/* Bit 0 of the opcode: byte, or operand size up to 4. Bit 3: port in DX. */
static unsigned port_size(const struct insn *i)
{
	return !(i->opcode & 1) ? 1 : i->opsize == 2 ? 2 : 4;
}

static uint16_t port_number(const struct soft_vcpu *v, const struct insn *i)
{
	return i->opcode & 8 ? v->gpr[R_DX] : (uint8_t)i->imm;
}

static void sys_in(struct soft_vcpu *v, const struct insn *i)
{
	unsigned size = port_size(i);
	uint16_t port = port_number(v, i);
	uint32_t value;

	check_ports(v, port, size);
	value = port_read(v, port, size);
	if (size == 1)
		*reg8(v, R_AX, true) = value;
	else
		reg_set(v, R_AX, value, size);
}

static void sys_out(struct soft_vcpu *v, const struct insn *i)
{
	unsigned size = port_size(i);
	uint16_t port = port_number(v, i);

	check_ports(v, port, size);
	port_write(v, port, size == 4 ? v->gpr[R_AX] : size == 2 ? (uint16_t)v->gpr[R_AX] : (uint8_t)v->gpr[R_AX], size);
}

static void step_index(struct soft_vcpu *v, unsigned reg, unsigned size, unsigned addrsize)
{
	reg_set(v, reg, v->gpr[reg] + (v->rflags & FL_DF ? -(uint64_t)size : size), addrsize);
}

/*
 * Between two elements of a repeated instruction: false if it is over. When a
 * request waits, the instruction is left to be restarted, with RF set as SDM
 * vol. 3 §17.3.1.1 wants it.
 */
static bool next_element(struct soft_vcpu *v, const struct insn *i)
{
	if (!(i->prefixes & (PFX_F2 | PFX_F3)))
		return false;
	reg_set(v, R_CX, v->gpr[R_CX] - 1, i->addrsize);
	if (!reg_get(v, R_CX, i->addrsize))
		return false;
	if (atomic_load_explicit(&v->request, memory_order_relaxed)) {
		v->next_rip = v->rip;
		if (dr7_has_code(v))
			v->rflags |= FL_RF;
		return false;
	}
	return true;
}

static bool no_elements(struct soft_vcpu *v, const struct insn *i)
{
	return i->prefixes & (PFX_F2 | PFX_F3) && !reg_get(v, R_CX, i->addrsize);
}

static void sys_ins(struct soft_vcpu *v, const struct insn *i)
{
	unsigned size = port_size(i);
	uint16_t port = v->gpr[R_DX];

	check_ports(v, port, size);
	if (no_elements(v, i))
		return;
	do {
		uint64_t linear = seg_linear(v, i->mode == MODE_64 ? SEG_NONE : SEG_ES, reg_get(v, R_DI, i->addrsize), size,
					     ACC_WRITE);

		/* The port may have side effects: nothing may fail behind it. */
		mmu_probe_write(v, linear, size, false);
		st(v, linear, port_read(v, port, size), size, false);
		step_index(v, R_DI, size, i->addrsize);
	} while (next_element(v, i));
}

static void sys_outs(struct soft_vcpu *v, const struct insn *i)
{
	unsigned size = port_size(i);
	uint16_t port = v->gpr[R_DX];

	check_ports(v, port, size);
	if (no_elements(v, i))
		return;
	do {
		uint64_t linear = seg_linear(v, i->seg, reg_get(v, R_SI, i->addrsize), size, ACC_READ);

		port_write(v, port, ld(v, linear, size, false), size);
		step_index(v, R_SI, size, i->addrsize);
	} while (next_element(v, i));
}

insn_fn *sys_io_bind(const struct insn *i, bool *ends)
{
	if (i->map != MAP_1B)
		return NULL;
	*ends = true;
	switch (i->opcode) {
	case 0x6c:
	case 0x6d:
		return sys_ins;
	case 0x6e:
	case 0x6f:
		return sys_outs;
	case 0xe4:
	case 0xe5:
	case 0xec:
	case 0xed:
		return sys_in;
	case 0xe6:
	case 0xe7:
	case 0xee:
	case 0xef:
		return sys_out;
	}
	*ends = false;
	return NULL;
}
