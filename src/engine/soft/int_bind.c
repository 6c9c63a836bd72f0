/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Opcodes to the binders of the int_*.c files; LOCK; what the host can do. */
#include <cpuid.h>
#include <pthread.h>

#include "engine/soft/int.h"

static struct int_host host;

static void host_detect(void)
{
	uint32_t a, b, c, d;

	if (__get_cpuid(0, &a, &b, &c, &d))
		host.amd = b == signature_AMD_ebx || b == 0x6f677948; /* AuthenticAMD, HygonGenuine */
	if (__get_cpuid(1, &a, &b, &c, &d)) {
		host.crc32 = c & 1u << 20;
		host.popcnt = c & 1u << 23;
	}
	if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
		host.bmi1 = b & 1u << 3;
		host.bmi2 = b & 1u << 8;
		host.adx = b & 1u << 19;
	}
	if (__get_cpuid(0x80000001, &a, &b, &c, &d))
		host.lzcnt = c & 1u << 5;
}

const struct int_host *int_host(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, host_detect);
	return &host;
}

unsigned insn_decode_flags(void)
{
	return int_host()->amd ? MODE_AMD_BRANCH16 : 0;
}

static bool bind_group5(struct insn *i)
{
	switch (i->modrm >> 3 & 7) {
	case 0: case 1: return int_bind_incdec(i);
	case 2: case 4: return int_bind_branch(i);
	case 6: return int_bind_stack(i);
	default: return false; /* far transfers */
	}
}

#define ALU_ROW int_bind_alu, int_bind_alu, int_bind_alu, int_bind_alu, int_bind_alu, int_bind_alu
static int_binder *const map_1b[256] = {
	ALU_ROW, NULL, NULL, ALU_ROW, NULL, NULL,
	ALU_ROW, NULL, NULL, ALU_ROW, NULL, NULL,
	ALU_ROW, NULL, int_bind_bcd, ALU_ROW, NULL, int_bind_bcd,
	ALU_ROW, NULL, int_bind_bcd, ALU_ROW, NULL, int_bind_bcd,
	[0x40 ... 0x4f] = int_bind_incdec,
	[0x50 ... 0x61] = int_bind_stack,
	[0x62] = int_bind_bound, [0x63] = int_bind_movx,
	[0x68] = int_bind_stack, [0x69] = int_bind_imul, [0x6a] = int_bind_stack, [0x6b] = int_bind_imul,
	[0x70 ... 0x7f] = int_bind_branch,
	[0x80 ... 0x83] = int_bind_group1, [0x84 ... 0x85] = int_bind_test, [0x86 ... 0x87] = int_bind_xchg,
	[0x88 ... 0x8b] = int_bind_mov, [0x8d] = int_bind_lea, [0x8f] = int_bind_stack,
	[0x90 ... 0x97] = int_bind_xchg, [0x98 ... 0x99] = int_bind_convert, [0x9e ... 0x9f] = int_bind_flags,
	[0xa0 ... 0xa3] = int_bind_mov, [0xa4 ... 0xa7] = int_bind_string, [0xa8 ... 0xa9] = int_bind_test,
	[0xaa ... 0xaf] = int_bind_string, [0xb0 ... 0xbf] = int_bind_mov,
	[0xc0 ... 0xc1] = int_bind_shift, [0xc2 ... 0xc3] = int_bind_branch, [0xc6 ... 0xc7] = int_bind_mov,
	[0xc8 ... 0xc9] = int_bind_stack,
	[0xd0 ... 0xd3] = int_bind_shift, [0xd4 ... 0xd6] = int_bind_bcd, [0xd7] = int_bind_xlat,
	[0xe0 ... 0xe3] = int_bind_branch, [0xe8 ... 0xe9] = int_bind_branch, [0xeb] = int_bind_branch,
	[0xf5] = int_bind_flags, [0xf6 ... 0xf7] = int_bind_group3, [0xf8 ... 0xf9] = int_bind_flags,
	[0xfc ... 0xfd] = int_bind_flags, [0xfe] = int_bind_incdec, [0xff] = bind_group5,
};

static int_binder *const map_0f[256] = {
	[0x0b] = int_bind_ud, [0x0d] = int_bind_hint, [0x18 ... 0x1f] = int_bind_hint,
	[0x40 ... 0x4f] = int_bind_cond, [0x80 ... 0x8f] = int_bind_branch, [0x90 ... 0x9f] = int_bind_cond,
	[0xa3] = int_bind_bt, [0xa4 ... 0xa5] = int_bind_shiftd, [0xab] = int_bind_bt,
	[0xac ... 0xad] = int_bind_shiftd, [0xae] = int_bind_fence, [0xaf] = int_bind_imul,
	[0xb0 ... 0xb1] = int_bind_cmpxchg, [0xb3] = int_bind_bt, [0xb6 ... 0xb7] = int_bind_movx,
	[0xb8] = int_bind_popcnt, [0xb9] = int_bind_ud, [0xba ... 0xbb] = int_bind_bt, [0xbc ... 0xbd] = int_bind_scan,
	[0xbe ... 0xbf] = int_bind_movx, [0xc0 ... 0xc1] = int_bind_xadd, [0xc3] = int_bind_movnti,
	[0xc7] = int_bind_group9, [0xc8 ... 0xcf] = int_bind_bswap, [0xff] = int_bind_ud,
};

static int_binder *const map_0f38[256] = {
	[0xf0 ... 0xf1] = int_bind_movbe, [0xf6] = int_bind_adx,
};

static int_binder *const map_vex_0f38[256] = {
	[0xf2 ... 0xf3] = int_bind_bmi, [0xf5] = int_bind_bmi, [0xf6] = int_bind_mulx, [0xf7] = int_bind_bmi,
};

static int_binder *find_binder(const struct insn *i)
{
	if (i->prefixes & PFX_VEX) {
		if (i->map == MAP_0F3A)
			return i->opcode == 0xf0 ? int_bind_shiftx : NULL;
		return i->map == MAP_0F38 ? map_vex_0f38[i->opcode] : NULL;
	}
	switch (i->map) {
	case MAP_1B: return map_1b[i->opcode];
	case MAP_0F: return map_0f[i->opcode];
	case MAP_0F38: return map_0f38[i->opcode];
	default: return NULL;
	}
}

/* SDM vol. 2, LOCK: a memory destination of these instructions only. */
static bool lockable(const struct insn *i)
{
	unsigned group = i->modrm >> 3 & 7;

	if (!i->is_mem)
		return false;
	if (i->map == MAP_1B) {
		switch (i->opcode) {
		case 0x00 ... 0x37: return (i->opcode & 7) < 2;
		case 0x80 ... 0x83: return group != 7;
		case 0x86: case 0x87: return true;
		case 0xf6: case 0xf7: return group == 2 || group == 3;
		case 0xfe: case 0xff: return group < 2;
		default: return false;
		}
	}
	if (i->map != MAP_0F)
		return false;
	switch (i->opcode) {
	case 0xab: case 0xb3: case 0xbb: case 0xb0: case 0xb1: case 0xc0: case 0xc1: return true;
	case 0xba: return group > 4;
	case 0xc7: return group == 1;
	default: return false;
	}
}

/* VEX exists only in protected mode; the decoder can't tell 16-bit protected mode from real and virtual-8086 mode. */
static void vex_checked(struct soft_vcpu *v, const struct insn *i)
{
	insn_fn *fn;

	if (!(v->cr0 & 1) || v->rflags & FL_VM)
		soft_raise(v, EXC_UD, 0);
	fn = (insn_fn *)i->priv;
	fn(v, i);
}

bool int_bind(struct soft_engine *e, struct insn *i)
{
	int_binder *bind = find_binder(i);

	(void)e;
	if (!bind)
		return false;
	i->aux = 0;
	if (i->is_mem && i->mode == MODE_64 && i->addrsize == 8)
		i->aux = i->seg == SEG_NONE ? INT_PLAIN : INT_SEG64;
	if (!bind(i)) {
		i->aux = 0;
		return false;
	}
	if (i->prefixes & PFX_LOCK && !lockable(i))
		return int_bind_ud(i);
	if (i->prefixes & PFX_VEX && i->mode != MODE_64) {
		i->priv = (void *)i->fn;
		i->fn = vex_checked;
	}
	return true;
}
