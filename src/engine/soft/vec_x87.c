/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * x87. While all its exceptions are masked, the guest's registers, FCW and FSW
 * live in the host's x87 unit, and an instruction is a stub that runs on them.
 * They go back to v->fx when something wants to see them, when foreign code
 * runs (vec_sync()), and before what must be undone if it faults.
 *
 * With an exception unmasked each instruction is a transaction: load v->fx,
 * run, store into a copy, reset the host's unit. The next waiting host
 * instruction would raise the pending exception; there is none, for FXSAVE and
 * FNINIT do not wait. The guest's pending exception is FSW.ES in v->fx.
 *
 * FIP, FDP and FOP are kept here, the host's would be those of the stubs.
 */
#include "engine/soft/vec.h"
#include "util/log.h"

/* ---- Host unit ------------------------------------------------------------ */

static void host_load(uint8_t *fx)
{
	/* FXRSTOR loads MXCSR and the XMM registers too: keep the one, declare the others lost. */
	uint32_t keep = get32(fx + FX_MXCSR);

	put32(fx + FX_MXCSR, host_mxcsr_get());
	asm volatile("fxrstor64 %0" : : "m"(*(uint8_t(*)[FX_SIZE])fx) : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",
		     "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	put32(fx + FX_MXCSR, keep);
}

/* Store and reset the host's unit; FOP, FIP, FDP and MXCSR of the image stay. */
static void host_store(uint8_t *fx)
{
	uint8_t keep[FX_ST - FX_FOP];

	memcpy(keep, fx + FX_FOP, sizeof(keep));
	asm volatile("fxsave64 %0\n\tfninit" : "+m"(*(uint8_t(*)[FX_SIZE])fx));
	memcpy(fx + FX_FOP, keep, sizeof(keep));
}

void vec_x87_sync(struct soft_vcpu *v)
{
	host_store(v->fx);
	v->vec_live &= (uint8_t)~(VEC_LIVE_X87 | VEC_LIVE_MMX);
}

static void status_recompute(uint8_t *fx)
{
	uint16_t sw = get16(fx + FX_FSW) & (uint16_t)~(FSW_ES | FSW_B);

	if (sw & FCW_MASKS & ~get16(fx + FX_FCW))
		sw |= FSW_ES | FSW_B;
	put16(fx + FX_FSW, sw);
}

static void control_write(uint8_t *fx, uint16_t value)
{
	/* Bit 6 reads as 1, 7 and 13 to 15 as 0. */
	put16(fx + FX_FCW, (value & 0x1f7f) | 0x40);
}

void vec_x87_normalize(uint8_t *fx)
{
	control_write(fx, get16(fx + FX_FCW));
	put16(fx + FX_FOP, get16(fx + FX_FOP) & 0x7ff);
	fx[FX_FTW + 1] = 0;
	status_recompute(fx);
}

static unsigned top_get(const uint8_t *fx)
{
	return get16(fx + FX_FSW) >> 11 & 7;
}

/* Move TOP over registers that stay where they are: the image has them from ST(0) up. */
static void top_set(uint8_t *fx, unsigned top)
{
	unsigned turn = (top - top_get(fx)) & 7;
	uint8_t st[8][16];

	put16(fx + FX_FSW, (uint16_t)((get16(fx + FX_FSW) & ~0x3800u) | top << 11));
	if (turn == 0)
		return;
	memcpy(st, fx + FX_ST, sizeof(st));
	for (unsigned n = 0; n < 8; n++)
		memcpy(fx + FX_ST + 16 * n, st[(n + turn) & 7], 16);
}

/* ---- Entry ---------------------------------------------------------------- */

_Noreturn static void raise_pending(struct soft_vcpu *v)
{
	if (!(v->cr0 & 0x20))
		log_guest("cpu", "x87 exception with CR0.NE clear: #MF instead of IRQ 13");
	soft_raise(v, EXC_MF, 0);
}

soft_inline void x87_check(struct soft_vcpu *v)
{
	vec_home(v);
	if (unlikely(v->cr0 & (CR0_EM | CR0_TS)))
		soft_raise(v, EXC_NM, 0);
}

/* For a waiting instruction: true if the state is live now, false if it must be a transaction. */
static bool x87_load(struct soft_vcpu *v)
{
	if (get16(v->fx + FX_FSW) & FSW_ES)
		raise_pending(v);
	if ((get16(v->fx + FX_FCW) & FCW_MASKS) != FCW_MASKS)
		return false;
	host_load(v->fx);
	v->vec_live |= VEC_LIVE_X87;
	return true;
}

soft_inline bool x87_enter(struct soft_vcpu *v)
{
	x87_check(v);
	return likely(v->vec_live & VEC_LIVE_X87) || x87_load(v);
}

/* For what works on v->fx. */
static void x87_enter_memory(struct soft_vcpu *v, bool waiting)
{
	x87_check(v);
	if (v->vec_live & VEC_LIVE_X87)
		vec_x87_sync(v);
	if (waiting && get16(v->fx + FX_FSW) & FSW_ES)
		raise_pending(v);
}

void vec_mmx_check_slow(struct soft_vcpu *v)
{
	if (v->cr0 & (CR0_EM | CR0_TS))
		vec_deny_mmx(v);
	if (v->vec_live & VEC_LIVE_X87)
		vec_x87_sync(v);
	if (get16(v->fx + FX_FSW) & FSW_ES)
		raise_pending(v);
}

void vec_mmx_enter_slow(struct soft_vcpu *v)
{
	top_set(v->fx, 0);
	v->fx[FX_FTW] = 0xff;
}

/* ---- Arithmetic ----------------------------------------------------------- */

/* insn.imm2: FOP, insn.aux: bytes of the memory operand. */
soft_inline void track(struct soft_vcpu *v, const struct insn *i)
{
	put16(v->fx + FX_FOP, i->imm2);
	put64(v->fx + FX_FIP, v->rip);
}

soft_inline void track_mem(struct soft_vcpu *v, const struct insn *i, uint64_t off)
{
	track(v, i);
	put64(v->fx + FX_FDP, off);
}

/* Run on a copy of the state; `copy` is the state after it. */
static uint64_t transaction(struct soft_vcpu *v, const struct insn *i, void *mem, uint8_t *copy)
{
	uint64_t result;

	memcpy(copy, v->fx, FX_XMM);
	host_load(v->fx);
	result = ((vec_x87_fn *)i->priv)(mem, v->rflags);
	host_store(copy);
	return result;
}

/* MXCSR is not x87's: it may have been written back meanwhile. */
static void commit(struct soft_vcpu *v, const uint8_t *copy)
{
	memcpy(v->fx, copy, FX_MXCSR);
	memcpy(v->fx + FX_ST, copy + FX_ST, FX_XMM - FX_ST);
}

static void x87_reg(struct soft_vcpu *v, const struct insn *i)
{
	if (likely(x87_enter(v))) {
		((vec_x87_fn *)i->priv)(NULL, v->rflags);
	} else {
		transaction(v, i, NULL, v->vec->area);
		commit(v, v->vec->area);
	}
	track(v, i);
}

/* FCOMI and its kin. */
static void x87_comi(struct soft_vcpu *v, const struct insn *i)
{
	uint64_t result;

	if (likely(x87_enter(v))) {
		result = ((vec_x87_fn *)i->priv)(NULL, v->rflags);
	} else {
		result = transaction(v, i, NULL, v->vec->area);
		commit(v, v->vec->area);
	}
	track(v, i);
	v->rflags = (v->rflags & ~(uint64_t)FLAGS_ARITH) | vec_stub_flags(result);
}

static void x87_load_mem(struct soft_vcpu *v, const struct insn *i)
{
	void *src;

	x87_enter(v);
	src = (void *)vec_mem(v, i, i->aux, false);
	/* Device memory is foreign code: the state may have been written back. */
	if (likely(x87_enter(v))) {
		((vec_x87_fn *)i->priv)(src, 0);
	} else {
		transaction(v, i, src, v->vec->area);
		commit(v, v->vec->area);
	}
	track_mem(v, i, insn_offset(v, i));
}

/*
 * A store as a transaction: the register stack must be as it was if the write
 * faults. An unmasked exception may keep the instruction from storing at all;
 * two runs over different memory show whether it did.
 */
static void store_carefully(struct soft_vcpu *v, const struct insn *i, uint64_t linear, unsigned size)
{
	uint8_t *copy = v->vec->area, *first = v->vec->bounce, *second = v->vec->result;

	mmu_probe_write(v, linear, size, i->stack);
	memset(first, 0, size);
	memset(second, 0xff, size);
	transaction(v, i, first, copy);
	transaction(v, i, second, copy);
	if (memcmp(first, second, size) == 0)
		mmu_write(v, linear, first, size, i->stack);
	commit(v, copy);
}

static void x87_store_mem(struct soft_vcpu *v, const struct insn *i)
{
	bool live = x87_enter(v);
	unsigned size = i->aux;
	uint64_t linear = insn_linear(v, i, size, ACC_WRITE), off = insn_offset(v, i), gpa;
	void *dst = vec_mem_write(v, linear, size, &gpa);

	if (likely(live && dst)) {
		((vec_x87_fn *)i->priv)(dst, 0);
		mmu_written(v, gpa, size);
	} else {
		if (live)
			vec_x87_sync(v);
		store_carefully(v, i, linear, size);
	}
	track_mem(v, i, off);
}

/* ---- Control -------------------------------------------------------------- */

static void fwait(struct soft_vcpu *v, const struct insn *i)
{
	vec_home(v);
	if ((v->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
		soft_raise(v, EXC_NM, 0);
	if (!(v->vec_live & VEC_LIVE_X87) && get16(v->fx + FX_FSW) & FSW_ES)
		raise_pending(v);
}

/* FENI, FDISI, FSETPM: nothing since the 80387, not even a wait. */
static void x87_nop(struct soft_vcpu *v, const struct insn *i)
{
	x87_check(v);
}

static void state_init(uint8_t *fx)
{
	top_set(fx, 0);
	put64(fx, FCW_RESET); /* FSW, FTW, FOP: 0 */
	put64(fx + FX_FIP, 0);
	put64(fx + FX_FDP, 0);
}

static void fninit(struct soft_vcpu *v, const struct insn *i)
{
	x87_enter_memory(v, false);
	state_init(v->fx);
}

static void fnclex(struct soft_vcpu *v, const struct insn *i)
{
	x87_check(v);
	if (v->vec_live & VEC_LIVE_X87)
		asm volatile("fnclex");
	else
		put16(v->fx + FX_FSW, get16(v->fx + FX_FSW) & 0x7f00);
}

static uint16_t status_word(struct soft_vcpu *v)
{
	uint16_t sw;

	if (!(v->vec_live & VEC_LIVE_X87))
		return get16(v->fx + FX_FSW);
	asm volatile("fnstsw %0" : "=a"(sw));
	return sw;
}

static void fnstsw_ax(struct soft_vcpu *v, const struct insn *i)
{
	x87_check(v);
	reg_set(v, R_AX, status_word(v), 2);
}

static void fnstsw(struct soft_vcpu *v, const struct insn *i)
{
	x87_check(v);
	st(v, insn_linear(v, i, 2, ACC_WRITE), status_word(v), 2, i->stack);
}

static void fnstcw(struct soft_vcpu *v, const struct insn *i)
{
	uint16_t cw;

	x87_check(v);
	if (v->vec_live & VEC_LIVE_X87)
		asm volatile("fnstcw %0" : "=m"(cw));
	else
		cw = get16(v->fx + FX_FCW);
	st(v, insn_linear(v, i, 2, ACC_WRITE), cw, 2, i->stack);
}

static void fldcw(struct soft_vcpu *v, const struct insn *i)
{
	uint16_t cw;

	x87_check(v);
	if (!(v->vec_live & VEC_LIVE_X87) && get16(v->fx + FX_FSW) & FSW_ES)
		raise_pending(v);
	cw = (uint16_t)ld(v, insn_linear(v, i, 2, ACC_READ), 2, i->stack);
	if (v->vec_live & VEC_LIVE_X87) {
		if ((cw & FCW_MASKS) == FCW_MASKS) {
			asm volatile("fldcw %0" : : "m"(cw));
			return;
		}
		vec_x87_sync(v);
	}
	control_write(v->fx, cw);
	status_recompute(v->fx);
}

/* ---- Environment and whole state ------------------------------------------ */

/* Two bits a register, by physical number (SDM vol. 1 §8.1.7). */
static uint16_t tag_word(const uint8_t *fx)
{
	unsigned top = top_get(fx), tags = 0;

	for (unsigned phys = 0; phys < 8; phys++) {
		const uint8_t *st = fx + FX_ST + 16 * ((phys - top) & 7);
		uint16_t exponent = get16(st + 8) & 0x7fff;
		uint64_t mantissa = get64(st);
		unsigned tag = 0;

		if (!(fx[FX_FTW] & 1u << phys))
			tag = 3;
		else if (exponent == 0 && mantissa == 0)
			tag = 1;
		else if (exponent == 0 || exponent == 0x7fff || !(mantissa >> 63))
			tag = 2;
		tags |= tag << 2 * phys;
	}
	return (uint16_t)tags;
}

static uint8_t tag_abridge(uint16_t tags)
{
	uint8_t valid = 0;

	for (unsigned phys = 0; phys < 8; phys++)
		if ((tags >> 2 * phys & 3) != 3)
			valid |= (uint8_t)(1u << phys);
	return valid;
}

/* Real-address and virtual-8086 mode keep linear pointers (SDM vol. 1 figures 8-9 to 8-12). */
static bool env_is_real(const struct soft_vcpu *v)
{
	return !(v->cr0 & CR0_PE) || v->rflags & FL_VM;
}

static unsigned env_size(const struct insn *i)
{
	return i->opsize == 2 ? 14 : 28;
}

static void env_write(const struct soft_vcpu *v, const struct insn *i, uint8_t *env)
{
	const uint8_t *fx = v->fx;
	uint32_t fip = get32(fx + FX_FIP), fdp = get32(fx + FX_FDP), fop = get16(fx + FX_FOP);
	bool real = env_is_real(v);

	if (i->opsize == 2) {
		put16(env, get16(fx + FX_FCW));
		put16(env + 2, get16(fx + FX_FSW));
		put16(env + 4, tag_word(fx));
		put16(env + 6, (uint16_t)fip);
		put16(env + 8, real ? (uint16_t)(fop | (fip >> 4 & 0xf000)) : 0);
		put16(env + 10, (uint16_t)fdp);
		put16(env + 12, real ? (uint16_t)(fdp >> 4 & 0xf000) : 0);
		return;
	}
	put32(env, 0xffff0000u | get16(fx + FX_FCW));
	put32(env + 4, 0xffff0000u | get16(fx + FX_FSW));
	put32(env + 8, 0xffff0000u | tag_word(fx));
	if (real) {
		put32(env + 12, 0xffff0000u | (fip & 0xffff));
		put32(env + 16, (fip >> 16 & 0xffff) << 12 | fop);
		put32(env + 20, 0xffff0000u | (fdp & 0xffff));
		put32(env + 24, (fdp >> 16 & 0xffff) << 12);
	} else {
		put32(env + 12, fip);
		put32(env + 16, fop << 16);
		put32(env + 20, fdp);
		put32(env + 24, 0xffff0000u);
	}
}

static void env_read(struct soft_vcpu *v, const struct insn *i, const uint8_t *env)
{
	bool real = env_is_real(v), small = i->opsize == 2;
	unsigned step = small ? 2 : 4;
	uint32_t fip, fdp, fop = 0;
	uint16_t sw = get16(env + step);

	if (small) {
		fip = get16(env + 6);
		fdp = get16(env + 10);
		if (real) {
			fip |= (get16(env + 8) & 0xf000u) << 4;
			fdp |= (get16(env + 12) & 0xf000u) << 4;
			fop = get16(env + 8) & 0x7ff;
		}
	} else if (real) {
		fip = get16(env + 12) | (get32(env + 16) >> 12 & 0xffff) << 16;
		fdp = get16(env + 20) | (get32(env + 24) >> 12 & 0xffff) << 16;
		fop = get32(env + 16) & 0x7ff;
	} else {
		fip = get32(env + 12);
		fop = get32(env + 16) >> 16 & 0x7ff;
		fdp = get32(env + 20);
	}
	top_set(v->fx, sw >> 11 & 7);
	control_write(v->fx, get16(env));
	put16(v->fx + FX_FSW, sw);
	put16(v->fx + FX_FTW, tag_abridge(get16(env + 2 * step)));
	put16(v->fx + FX_FOP, (uint16_t)fop);
	put64(v->fx + FX_FIP, fip);
	put64(v->fx + FX_FDP, fdp);
	status_recompute(v->fx);
}

/* Images of up to 108 bytes go in pieces that mmu_read() and mmu_write() take. */
static void image_write(struct soft_vcpu *v, const struct insn *i, uint64_t linear, const uint8_t *image, unsigned size)
{
	vec_check_alignment(v, linear, i->opsize == 2 ? 2 : 4);
	mmu_probe_write(v, linear, 64 < size ? 64 : size, i->stack);
	if (size > 64)
		mmu_probe_write(v, linear + 64, size - 64, i->stack);
	for (unsigned n; size; size -= n, linear += n, image += n) {
		n = size > 64 ? 64 : size;
		mmu_write(v, linear, image, n, i->stack);
	}
}

static void image_read(struct soft_vcpu *v, const struct insn *i, uint64_t linear, uint8_t *image, unsigned size)
{
	vec_check_alignment(v, linear, i->opsize == 2 ? 2 : 4);
	for (unsigned n; size; size -= n, linear += n, image += n) {
		n = size > 64 ? 64 : size;
		mmu_read(v, linear, image, n, i->stack);
	}
}

static void fnstenv(struct soft_vcpu *v, const struct insn *i)
{
	uint8_t env[28];

	x87_enter_memory(v, false);
	env_write(v, i, env);
	image_write(v, i, insn_linear(v, i, env_size(i), ACC_WRITE), env, env_size(i));
	put16(v->fx + FX_FCW, get16(v->fx + FX_FCW) | FCW_MASKS);
	status_recompute(v->fx);
}

static void fldenv(struct soft_vcpu *v, const struct insn *i)
{
	uint8_t env[28];

	x87_enter_memory(v, true);
	image_read(v, i, insn_linear(v, i, env_size(i), ACC_READ), env, env_size(i));
	env_read(v, i, env);
}

static void fnsave(struct soft_vcpu *v, const struct insn *i)
{
	unsigned env = env_size(i);
	uint8_t image[108];

	x87_enter_memory(v, false);
	env_write(v, i, image);
	for (unsigned n = 0; n < 8; n++)
		memcpy(image + env + 10 * n, v->fx + FX_ST + 16 * n, 10);
	image_write(v, i, insn_linear(v, i, env + 80, ACC_WRITE), image, env + 80);
	state_init(v->fx);
}

static void frstor(struct soft_vcpu *v, const struct insn *i)
{
	unsigned env = env_size(i);
	uint8_t image[108];

	x87_enter_memory(v, true);
	image_read(v, i, insn_linear(v, i, env + 80, ACC_READ), image, env + 80);
	env_read(v, i, image);
	for (unsigned n = 0; n < 8; n++)
		memcpy(v->fx + FX_ST + 16 * n, image + env + 10 * n, 10);
}

/* ---- Binding -------------------------------------------------------------- */

/* Memory forms by opcode and ModRM.reg: bytes, negative for a store; 0 for control instructions and holes. */
static const int8_t mem_size[8][8] = {
	{ 4, 4, 4, 4, 4, 4, 4, 4 },         /* d8 */
	{ 4, 0, -4, -4, 0, 0, 0, 0 },       /* d9 */
	{ 4, 4, 4, 4, 4, 4, 4, 4 },         /* da */
	{ 4, -4, -4, -4, 0, 10, 0, -10 },   /* db */
	{ 8, 8, 8, 8, 8, 8, 8, 8 },         /* dc */
	{ 8, -8, -8, -8, 0, 0, 0, 0 },      /* dd */
	{ 2, 2, 2, 2, 2, 2, 2, 2 },         /* de */
	{ 2, -2, -2, -2, 10, 8, -10, -8 },  /* df */
};

static const struct {
	uint8_t opcode, reg;
	insn_fn *fn;
} mem_control[] = {
	{ 0xd9, 4, fldenv }, { 0xd9, 5, fldcw }, { 0xd9, 6, fnstenv }, { 0xd9, 7, fnstcw },
	{ 0xdd, 4, frstor }, { 0xdd, 6, fnsave }, { 0xdd, 7, fnstsw },
};

static const struct {
	uint8_t opcode, modrm;
	insn_fn *fn;
} reg_control[] = {
	{ 0xdb, 0xe0, x87_nop }, { 0xdb, 0xe1, x87_nop }, { 0xdb, 0xe4, x87_nop },
	{ 0xdb, 0xe2, fnclex }, { 0xdb, 0xe3, fninit }, { 0xdf, 0xe0, fnstsw_ax },
};

/* Register forms that exist: bit n of [opcode][reg] for ModRM C0 + 8 * reg + n (SDM vol. 2 tables ). */
static const uint8_t reg_forms[8][8] = {
	{ 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff }, /* d8 */
	{ 0xff, 0xff, 0x01, 0xff, 0x33, 0x7f, 0xff, 0xff }, /* d9 */
	{ 0xff, 0xff, 0xff, 0xff, 0x00, 0x02, 0x00, 0x00 }, /* da */
	{ 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0x00 }, /* db */
	{ 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff }, /* dc */
	{ 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00 }, /* dd */
	{ 0xff, 0xff, 0xff, 0x02, 0xff, 0xff, 0xff, 0xff }, /* de */
	{ 0xff, 0xff, 0xff, 0xff, 0x01, 0xff, 0xff, 0x00 }, /* df */
};

static bool bind_mem(struct soft_engine *e, struct insn *i)
{
	unsigned reg = i->modrm >> 3 & 7;
	int size = mem_size[i->opcode - 0xd8][reg];

	for (unsigned n = 0; n < sizeof(mem_control) / sizeof(mem_control[0]); n++) {
		if (mem_control[n].opcode == i->opcode && mem_control[n].reg == reg) {
			i->fn = mem_control[n].fn;
			return true;
		}
	}
	/* FISTTP came with SSE3. */
	if (size == 0 || (size < 0 && reg == 1 && !vec_offers(VEC_SSE3)))
		return false;
	i->aux = (uint8_t)(size < 0 ? -size : size);
	i->fn = size < 0 ? x87_store_mem : x87_load_mem;
	i->priv = (void *)vec_stub_x87(e->vec, i->opcode, i->modrm);
	return true;
}

static bool bind_reg(struct soft_engine *e, struct insn *i)
{
	if (!(reg_forms[i->opcode - 0xd8][i->modrm >> 3 & 7] & 1u << (i->modrm & 7)))
		return false;
	for (unsigned n = 0; n < sizeof(reg_control) / sizeof(reg_control[0]); n++) {
		if (reg_control[n].opcode == i->opcode && reg_control[n].modrm == i->modrm) {
			i->fn = reg_control[n].fn;
			return true;
		}
	}
	i->priv = (void *)vec_stub_x87(e->vec, i->opcode, i->modrm);
	i->fn = (i->opcode == 0xdb || i->opcode == 0xdf) && i->modrm >= 0xe8 ? x87_comi : x87_reg;
	return true;
}

bool vec_x87_bind(struct soft_engine *e, struct insn *i)
{
	if (i->prefixes & (PFX_LOCK | PFX_VEX))
		return false;
	i->aux = 0;
	if (i->opcode == 0x9b) {
		i->fn = fwait;
		return true;
	}
	if (i->opcode < 0xd8 || i->opcode > 0xdf)
		return false;
	i->imm2 = (uint16_t)((i->opcode & 7u) << 8 | i->modrm);
	return i->is_mem ? bind_mem(e, i) : bind_reg(e, i);
}
