/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every row of vec_tables.c, in every form that is offered, with random
 * registers, operands, memory and MXCSR: the vector unit against the host CPU.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "vec_harness.h"

static unsigned rounds = 60; /* per form; KEEL_TEST_ROUNDS multiplies */
static unsigned long cases;
static unsigned failures; /* forms */

struct form {
	const struct vec_row *row;
	bool vex, l, w;
};

static const char *form_name(const struct form *f, const struct encoding *e, const uint8_t *code, unsigned len)
{
	static char name[160];
	int n = snprintf(name, sizeof(name), "map %u opcode %02x pp %u %s L%u W%u %s:", f->row->map, f->row->opcode,
			 f->row->pp, f->vex ? "VEX" : "legacy", f->l, f->w, e->mem ? "mem" : "reg");

	for (unsigned k = 0; k < len && n < 150; k++)
		n += snprintf(name + n, sizeof(name) - (size_t)n, " %02x", code[k]);
	return name;
}

static bool is_store(const struct vec_row *r)
{
	switch (r->shape) {
	case SHAPE_STORE: case SHAPE_STORE_SCALAR: case SHAPE_STORE_LOW: case SHAPE_STORE_HIGH: case SHAPE_STORE_G:
	case SHAPE_STORE_Q: case SHAPE_EXTRACT: case SHAPE_EXTRACT_128: case SHAPE_HALF:
		return true;
	default:
		return false;
	}
}

static unsigned pick(unsigned mask, unsigned no1, unsigned no2)
{
	unsigned r;

	do
		r = rnd() & mask;
	while (r == no1 || r == no2);
	return r;
}

/* Random operands for the form; sets what the memory operand needs in `m`. *size: bytes accessed, 0 without memory. */
static void operands(const struct form *f, struct encoding *e, struct machine *m, bool low, uint64_t *address,
		     unsigned *size)
{
	const struct vec_row *r = f->row;
	unsigned mask = low ? 7 : 15, vl = r->flags & ROW_MMX ? 8 : f->vex && f->l && !(r->flags & ROW_LIG) ? 32 : 16;

	*e = (struct encoding){ .vex = f->vex, .w = f->w, .l = f->l, .map = r->map, .opcode = r->opcode, .pp = r->pp,
				.index = -1, .imm = -1 };
	/* General registers: not rSP, which the native stub keeps. */
	e->reg = r->shape == SHAPE_GPR ? pick(mask, R_SP, R_SP) : rnd() & mask;
	if (r->ext)
		e->reg = r->ext - 1u;
	e->rm = r->flags & ROW_RMGPR ? pick(mask, R_SP, R_SP) : rnd() & mask;
	if (f->vex && r->flags & ROW_NDS)
		e->vvvv = rnd() & mask;
	if (r->flags & (ROW_IMM | ROW_IS4))
		e->imm = rnd() & (low && r->flags & ROW_IS4 ? 0x7f : 0xff);
	e->mem = r->flags & ROW_MEM ? true : r->flags & ROW_REG ? false : rnd() & 1;
	*size = e->mem ? vec_row_mem(r, vl, f->w) : 0;
	*address = 0;
	if (r->shape == SHAPE_MASKED_BYTES) {
		*address = (uintptr_t)mem + (rnd() & 1 ? rnd() % MEM_SIZE : MEM_SIZE - 16 + rnd() % 16);
		m->gpr[R_DI] = *address;
	}
	if (!e->mem)
		return;

	/* At the ends of the mapping, across its middle, anywhere; aligned or not. */
	switch (rnd() % 4) {
	case 0: *address = MEM_SIZE - *size; break;
	case 1: *address = 4096 - rnd() % *size; break;
	default: *address = rnd() % (MEM_SIZE - *size + 1); break;
	}
	if (rnd() % 4)
		*address &= ~(uint64_t)(vl - 1);
	if (*address > MEM_SIZE - *size)
		*address = 0;
	if (rnd() % 16 == 0) /* partly or wholly beyond the end */
		*address = (MEM_SIZE - rnd() % *size) & (rnd() & 1 ? ~(uint64_t)(vl - 1) : ~0ull);
	*address += (uintptr_t)mem;
	e->disp = low ? (int32_t)(rnd() % 1000) : (int32_t)(rnd() % 100000) - 50000;
	e->rm = pick(mask, R_SP, R_SP);
	if (r->shape == SHAPE_STRING)
		e->rm = pick(mask & 7, R_SP, R_AX) == R_DX ? R_SI : R_DI; /* lengths are in rAX and rDX */
	m->gpr[e->rm] = *address - (uint64_t)(int64_t)e->disp;
	if (r->shape != SHAPE_GATHER && rnd() % 4 == 0) {
		e->index = (int)pick(mask, R_SP, e->rm);
		if (r->shape == SHAPE_STRING)
			e->index = R_BX;
		e->scale = rnd() & 3;
		m->gpr[e->index] = low ? rnd() % 100 : rnd64() % 0x10000;
		m->gpr[e->rm] -= m->gpr[e->index] << e->scale;
	}
}

/* Gathers: indices that stay in memory, or some that fault. */
static void gather_operands(const struct form *f, struct encoding *e, struct machine *m, bool low)
{
	unsigned mask = low ? 7 : 15, q = e->opcode & 1;

	e->index = (int)pick(mask, e->reg, e->reg);
	e->vvvv = (uint8_t)pick(mask, e->reg, (unsigned)e->index);
	e->scale = rnd() & 3;
	m->gpr[e->rm] = (uintptr_t)mem + 4096 - (uint64_t)(int64_t)e->disp;
	for (unsigned n = 0; n < 8; n++) {
		int32_t x = (int32_t)(rnd() % (4096u >> e->scale)) - (2048 >> e->scale);

		if (rnd() % 64 == 0) /* into the unmapped page after memory */
			x = (4096 + (int32_t)(rnd() % 4000)) / (1 << e->scale) + 1;
		if (q && n < 4)
			put64(m->ymm[e->index] + 8 * n, (uint64_t)(int64_t)x);
		else if (!q)
			put32(m->ymm[e->index] + 4 * n, (uint32_t)x);
		if (rnd() & 1)
			put32(m->ymm[e->vvvv] + 4 * n, rnd());
	}
	if (rnd() & 1)
		memset(m->ymm[e->vvvv], 0xff, 32);
}

static void run_form(const struct form *f, bool unmasked)
{
	static uint8_t before[MEM_SIZE], native_mem[MEM_SIZE];
	const struct vec_row *r = f->row;
	unsigned n = rounds, size;
	uint64_t address;

	if (r->flags & (ROW_IMM | ROW_FP))
		n *= 3;
	while (n--) {
		struct machine start, native, soft;
		/* The same bytes in 32-bit mode: eight registers, no REX; memory is below 4 GiB. */
		bool low = !f->w && rnd() % 4 == 0, tlb = rnd() & 1;
		uint32_t ignore = 0;
		struct encoding e;
		uint8_t code[16];
		unsigned len;

		machine_random(&start);
		operands(f, &e, &start, low, &address, &size);
		if (r->shape == SHAPE_GATHER)
			gather_operands(f, &e, &start, low);
		if (r->flags & ROW_MMX || r->shape == SHAPE_CVT_M)
			random_x87(&start, rnd() % 8 == 0);
		if (unmasked)
			put32(start.fx + FX_MXCSR, get32(start.fx + FX_MXCSR) & ~(rnd() & MXCSR_MASKS));
		if (r->shape == SHAPE_EMPTY) {
			e = (struct encoding){ .index = -1, .imm = -1 };
			len = f->vex ? 3 : 2;
			memcpy(code, f->vex ? f->l ? "\xc5\xfc\x77" : "\xc5\xf8\x77" : "\x0f\x77", len);
			low = false;
		} else {
			len = encode(code, &e);
		}
		random_vector(mem, MEM_SIZE);
		if (e.mem && r->shape != SHAPE_GATHER && !is_store(r))
			for (unsigned k = 0; size >= 8 && k < size && address + size <= (uintptr_t)mem + MEM_SIZE;
			     k += 8)
				random_vector((uint8_t *)address + k, 8);
		memcpy(before, mem, MEM_SIZE);

		native = soft = start;
		native_run(&native, code, len);
		memcpy(native_mem, mem, MEM_SIZE);
		memcpy(mem, before, MEM_SIZE);
		written_calls = 0;
		soft_run_one(&soft, code, len, low ? MODE_32 : MODE_64, tlb);
		cases++;

		/* An unmasked overflow or underflow sets PE by the result before it is squeezed: vec_unmasked_run(). */
		if (native.fault == EXC_XM &&
		    get32(native.fx + FX_MXCSR) & ~(get32(start.fx + FX_MXCSR) >> 7) & (XF_OE | XF_UE))
			ignore = XF_PE;
		/* DPPS, DPPD: the host stops between multiplying and adding; we do not know where a flag came from. */
		if (native.fault == EXC_XM && r->map == MAP_0F3A && (r->opcode == 0x40 || r->opcode == 0x41))
			ignore = MXCSR_FLAGS;
		/* How far a faulting gather got is between the CPU and itself (SDM), but not beyond the fault. */
		if (r->shape == SHAPE_GATHER && native.fault == EXC_PF && soft.fault == EXC_PF)
			continue;
		if (!machine_same(&native, &soft, ignore) || memcmp(mem, native_mem, MEM_SIZE)) {
			printf("%s (mode %s, tlb %d, address %lx)\n", form_name(f, &e, code, len), low ? "32" : "64",
			       tlb, address - (uintptr_t)mem);
			for (unsigned k = 0; k < MEM_SIZE; k++)
				if (mem[k] != native_mem[k])
					printf("  mem %u: native %02x soft %02x before %02x\n", k, native_mem[k],
					       mem[k], before[k]);
			machine_print(&start, &native, &soft);
			failures++;
			return;
		}
		/* A store through the TLB tells the dirty log, exactly. */
		if (is_store(r) && e.mem && tlb && soft.fault < 0 && (address & 4095) + size <= 4096) {
			assert_int_equal(written_calls, 1);
			assert_int_equal(written_gpa, (address & ~4095ull) | (address & 4095));
			assert_int_equal(written_size, size);
		}
	}
}

static void each_form(const struct vec_row *r, void (*fn)(const struct form *f, bool arg), bool arg)
{
	for (unsigned k = 0; k < 5; k++) {
		struct form f = { r, k > 0, k > 0 && (k - 1) & 1, false };
		bool w = k > 0 && (k - 1) & 2;

		if (k == 0 && !vec_need_offered(r->legacy))
			continue;
		if (k > 0 && (!host_avx || !vec_need_offered(f.l ? r->v256 : r->v128)))
			continue;
		if (w && !(r->flags & ROW_W1) && r->flags & ROW_W0)
			continue;
		if (k > 0 && !w && r->flags & ROW_W1)
			continue;
		f.w = w;
		fn(&f, arg);
		if (k == 0 && r->flags & ROW_W) {
			f.w = true;
			fn(&f, arg);
		}
	}
}

static void test_every_row(void **state)
{
	harness_arm();
	failures = 0;
	for (unsigned n = 0; n < vec_rows_count; n++)
		each_form(&vec_rows[n], run_form, false);
	print_message("%lu cases\n", cases);
	assert_int_equal(failures, 0);
}

static void test_unmasked(void **state)
{
	harness_arm();
	failures = 0;
	for (unsigned n = 0; n < vec_rows_count; n++)
		if (vec_rows[n].flags & ROW_FP)
			each_form(&vec_rows[n], run_form, true);
	assert_int_equal(failures, 0);
}

/* A gather that faults in the middle goes on where it was when run again. */
static void test_gather_restart(void **state)
{
	/* vgatherdps ymm1, [rsi + ymm2 * 4], ymm3 */
	static const uint8_t code[] = { 0xc4, 0xe2, 0x65, 0x92, 0x0c, 0x96 };
	struct machine m;
	struct insn i;

	if (!host_avx2)
		skip();
	machine_random(&m);
	memset(m.ymm[3], 0xff, 32);
	m.gpr[R_SI] = (uintptr_t)mem;
	for (unsigned n = 0; n < 8; n++)
		put32(m.ymm[2] + 4 * n, 100 * n);
	random_bytes(mem, MEM_SIZE);
	cpu_from_machine(&m);
	tlb_fill(false);
	assert_true(bind(&i, code, sizeof(code), MODE_64));
	mmu_fail_after = 3;
	assert_int_equal(run_bound(&i), EXC_PF);
	mmu_fail_after = -1;
	for (unsigned n = 0; n < 8; n++) {
		assert_int_equal(get32(cpu->ymm[3] + 4 * n), n < 3 ? 0 : ~0u);
		assert_int_equal(get32(cpu->ymm[1] + 4 * n), n < 3 ? get32(mem + 400 * n) : get32(m.ymm[1] + 4 * n));
	}
	/* Another element's source changes meanwhile: done ones are not read again. */
	put32(mem, 0);
	put32(mem + 400 * 3, 0x12345678);
	assert_int_equal(run_bound(&i), -1);
	assert_int_not_equal(get32(cpu->ymm[1]), 0);
	assert_int_equal(get32(cpu->ymm[1] + 12), 0x12345678);
	for (unsigned n = 0; n < 4; n++)
		assert_int_equal(get64(cpu->ymm[3] + 8 * n), 0);
}

/* Masked stores touch neither memory that is not theirs nor pages they do not need. */
static void test_masked_edges(void **state)
{
	static const uint8_t store[] = { 0xc4, 0xe2, 0x6d, 0x2e, 0x0e }; /* vmaskmovps [rsi], ymm2, ymm1 */
	static const uint8_t load[] = { 0xc4, 0xe2, 0x6d, 0x2c, 0x0e };
	struct machine m;
	struct insn i;

	if (!host_avx)
		skip();
	for (unsigned on = 0; on < 256; on++) {
		/* Four elements lie in memory, four beyond its end. */
		for (unsigned tlb = 0; tlb < 2; tlb++) {
			machine_random(&m);
			m.gpr[R_SI] = (uintptr_t)mem + MEM_SIZE - 16;
			for (unsigned n = 0; n < 8; n++)
				put32(m.ymm[2] + 4 * n, on >> n & 1 ? 0x80000000 : 0x7fffffff);
			memset(mem, 0x5a, MEM_SIZE);
			cpu_from_machine(&m);
			tlb_fill(tlb);
			assert_true(bind(&i, store, sizeof(store), MODE_64));
			assert_int_equal(run_bound(&i), on >> 4 ? EXC_PF : -1);
			for (unsigned n = 0; n < 4; n++)
				assert_int_equal(get32(mem + MEM_SIZE - 16 + 4 * n),
						 on >> n & 1 && on < 16 ? get32(m.ymm[1] + 4 * n) : 0x5a5a5a5a);
			assert_true(bind(&i, load, sizeof(load), MODE_64));
			assert_int_equal(run_bound(&i), on >> 4 ? EXC_PF : -1);
		}
	}
}

/* Every stub that a guest can make the unit emit, and the arena holds them all. */
static void test_arena_bound(void **state)
{
	struct err err = ERR_INIT;
	struct vec_engine *ve = vec_stub_new(&err);

	assert_non_null(ve);
	for (unsigned n = 0; n < vec_rows_count; n++) {
		const struct vec_row *r = &vec_rows[n];

		if (r->shape >= SHAPE_LOAD)
			continue;
		for (unsigned k = 0; k < 16 * 256; k++) {
			struct vec_form f = { .vex = k >> 8 & 1,
					      .l = k >> 9 & 1,
					      .w = k >> 10 & 1,
					      .mem = k >> 11 & 1,
					      .imm = (uint8_t)k };

			if (!f.vex && (f.l || r->legacy == NEED_NONE))
				continue;
			if (f.vex && (f.l ? r->v256 : r->v128) == NEED_NONE)
				continue;
			vec_stub_get(ve, r, &f);
		}
	}
	for (unsigned op = 0xd8; op <= 0xdf; op++)
		for (unsigned modrm = 0; modrm < 256; modrm++)
			vec_stub_x87(ve, (uint8_t)op, (uint8_t)modrm);
	print_message("%zu KiB of %u\n", vec_stub_used(ve) >> 10, VEC_ARENA_SIZE >> 10);
	assert_true(vec_stub_used(ve) < VEC_ARENA_SIZE * 3 / 4);
	vec_stub_free(ve);
}

static int setup(void **state)
{
	const char *more = getenv("KEEL_TEST_ROUNDS");

	if (more)
		rounds *= (unsigned)atoi(more);
	harness_init();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_row),
		cmocka_unit_test(test_unmasked),
		cmocka_unit_test(test_gather_restart),
		cmocka_unit_test(test_masked_edges),
		cmocka_unit_test(test_arena_bound),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
