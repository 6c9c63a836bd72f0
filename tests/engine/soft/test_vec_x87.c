/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * x87 against the host: every encoding with random register stacks, control
 * words and pending exceptions; sequences, in which state stays live between
 * instructions; stores that fault; environments in their four formats.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "vec_harness.h"

static unsigned rounds = 150;
static unsigned failures;

/* Bytes that the memory form accesses, negative for writes, 0 if there is none. From the SDM, not the unit's table. */
static int operand(unsigned opcode, unsigned reg)
{
	switch (opcode << 4 | reg) {
	case 0xd90: return 4;
	case 0xd92: case 0xd93: return -4;
	case 0xd94: return 28;
	case 0xd95: return 2;
	case 0xd96: return -28;
	case 0xd97: return -2;
	case 0xdb0: return 4;
	case 0xdb1: case 0xdb2: case 0xdb3: return -4;
	case 0xdb5: return 10;
	case 0xdb7: return -10;
	case 0xdd0: return 8;
	case 0xdd1: case 0xdd2: case 0xdd3: return -8;
	case 0xdd4: return 108;
	case 0xdd6: return -108;
	case 0xdd7: return -2;
	case 0xdf0: return 2;
	case 0xdf1: case 0xdf2: case 0xdf3: return -2;
	case 0xdf4: return 10;
	case 0xdf5: return 8;
	case 0xdf6: return -10;
	case 0xdf7: return -8;
	}
	switch (opcode) {
	case 0xd8: case 0xda: return 4;
	case 0xdc: return 8;
	case 0xde: return 2;
	}
	return 0;
}

static void random_number(uint8_t *p, int size)
{
	random_vector(p, 16);
	if (size == 10 && rnd() & 1) {
		/* BCD with an occasional bad digit, or a number of sensible size. */
		for (unsigned n = 0; n < 9; n++)
			p[n] = rnd() % 16 ? (uint8_t)((rnd() % 10) << 4 | rnd() % 10) : (uint8_t)rnd();
		p[9] = rnd() & 1 ? 0x80 : 0;
	} else if (size == 10) {
		put16(p + 8, (uint16_t)(rnd() << 15 | (0x3fff + rnd() % 100 - 50)));
		if (rnd() % 4)
			p[7] |= 0x80;
	}
}

/* An environment or a whole state as a program might load it. */
static void random_env(uint8_t *p, bool unmasked)
{
	struct machine m;

	memset(&m, 0, sizeof(m));
	random_x87(&m, unmasked);
	put32(p, get16(m.fx + FX_FCW) | rnd() << 16);
	put32(p + 4, get16(m.fx + FX_FSW) | rnd() << 16);
	put32(p + 8, rnd());
	for (unsigned n = 12; n < 28; n += 4)
		put32(p + n, rnd());
	for (unsigned n = 0; n < 8; n++)
		memcpy(p + 28 + 10 * n, m.fx + FX_ST + 16 * n, 10);
}

/* Where the host's FIP, FDP, FOP and selectors are; they are not the guest's. */
static void forget_pointers(uint8_t *image)
{
	memset(image + 12, 0, 16);
}

struct program {
	uint8_t code[160];
	unsigned len, n;
	uint8_t start[17];
};

static void add(struct program *p, const uint8_t *code, unsigned len)
{
	memcpy(p->code + p->len, code, len);
	p->len += len;
	p->start[++p->n] = (uint8_t)p->len;
}

/* Both run the program over the same memory; true if they end alike. `env`: address of an environment written, or 0. */
static bool compare(const struct program *p, const struct machine *start, bool tlb, uint64_t env)
{
	static uint8_t before[MEM_SIZE], native_mem[MEM_SIZE];
	struct machine native = *start, soft = *start;

	memcpy(before, mem, MEM_SIZE);
	native_run(&native, p->code, p->len);
	memcpy(native_mem, mem, MEM_SIZE);
	memcpy(mem, before, MEM_SIZE);
	cpu_from_machine(&soft);
	tlb_fill(tlb);
	for (unsigned n = 0; n < p->n; n++) {
		struct insn i;

		soft.fault = EXC_UD;
		if (bind(&i, p->code + p->start[n], p->start[n + 1] - p->start[n], MODE_64))
			soft.fault = run_bound(&i);
		if (soft.fault >= 0)
			break;
	}
	cpu_to_machine(&soft);
	if (env) {
		forget_pointers(mem + (env - (uintptr_t)mem));
		forget_pointers(native_mem + (env - (uintptr_t)mem));
	}
	if (machine_same(&native, &soft, 0) && !memcmp(mem, native_mem, MEM_SIZE))
		return true;
	for (unsigned n = 0; n < p->n; n++) {
		for (unsigned k = p->start[n]; k < p->start[n + 1]; k++)
			printf("%02x ", p->code[k]);
		printf("; ");
	}
	printf("tlb %d\n", tlb);
	for (unsigned k = 0; k < MEM_SIZE; k++)
		if (mem[k] != native_mem[k])
			printf("  mem %u: host %02x soft %02x before %02x\n", k, native_mem[k], mem[k], before[k]);
	machine_print(start, &native, &soft);
	return false;
}

static void test_register_forms(void **state)
{
	harness_arm();
	failures = 0;
	for (unsigned op = 0xd8; op <= 0xdf; op++) {
		for (unsigned modrm = 0xc0; modrm < 0x100; modrm++) {
			for (unsigned n = 0; n < rounds; n++) {
				struct program p = { .n = 0 };
				struct machine m;

				machine_random(&m);
				random_x87(&m, n & 1);
				add(&p, (uint8_t[]){ (uint8_t)op, (uint8_t)modrm }, 2);
				if (!compare(&p, &m, true, 0)) {
					failures++;
					break;
				}
			}
		}
	}
	assert_int_equal(failures, 0);
}

static void test_memory_forms(void **state)
{
	harness_arm();
	failures = 0;
	for (unsigned op = 0xd8; op <= 0xdf; op++) {
		for (unsigned reg = 0; reg < 8; reg++) {
			int size = operand(op, reg);
			unsigned bytes = size ? (unsigned)abs(size) : 2;

			for (unsigned n = 0; n < 3 * rounds; n++) {
				struct program p = { .n = 0 };
				uint64_t at = rnd() % 3 == 0 ? MEM_SIZE - bytes
					      : rnd() & 1    ? 4096 - rnd() % bytes
							     : rnd() % 4000;
				uint8_t data[108];
				struct machine m;

				machine_random(&m);
				random_x87(&m, n & 1);
				random_bytes(data, sizeof(data));
				if (size == 28 || size == 108)
					random_env(data, n & 2);
				else if (size > 2)
					random_number(data, size);
				memcpy(mem + at, data, bytes);
				m.gpr[R_SI] = (uintptr_t)mem + at;
				add(&p, (uint8_t[]){ (uint8_t)op, (uint8_t)(reg << 3 | R_SI) }, 2);
				if (!compare(&p, &m, rnd() & 1, size == -28 || size == -108 ? m.gpr[R_SI] : 0)) {
					failures++;
					break;
				}
			}
		}
	}
	assert_int_equal(failures, 0);
}

/* Programs of up to twelve instructions, with MMX among them now and then. */
static void test_sequences(void **state)
{
	harness_arm();
	failures = 0;
	for (unsigned n = 0; n < 200 * rounds && failures < 5; n++) {
		struct program p = { .n = 0 };
		unsigned count = 1 + rnd() % 12;
		struct machine m;

		machine_random(&m);
		random_x87(&m, n % 4 == 0);
		m.gpr[R_SI] = (uintptr_t)mem + (rnd() & 1 ? 4096 - 40 : 64);
		for (unsigned k = 0; k < 8; k++)
			random_number(mem + (m.gpr[R_SI] - (uintptr_t)mem) + 16 * k, rnd() & 1 ? 10 : 8);
		for (unsigned k = 0; k < count; k++) {
			uint8_t op = 0xd8 | (rnd() & 7), reg = rnd() & 7;
			int size = operand(op, reg);
			uint8_t code[4] = { op, (uint8_t)(0x40 | reg << 3 | R_SI), (uint8_t)(16 * (rnd() & 7)) };

			switch (rnd() % 16) {
			case 0:
				add(&p, (uint8_t[]){ 0x0f, 0xfc, (uint8_t)(0xc0 | (rnd() & 0x3f)) }, 3);
				break;					      /* paddb */
			case 1: add(&p, (uint8_t[]){ 0x0f, 0x77 }, 2); break; /* emms */
			case 2:
				add(&p, (uint8_t[]){ 0x0f, 0x6f, (uint8_t)(0xc0 | (rnd() & 0x3f)) }, 3);
				break; /* movq */
			case 3: add(&p, (uint8_t[]){ 0x9b }, 1); break;
			case 4: add(&p, (uint8_t[]){ 0x0f, 0x58, 0xc1 }, 3); break; /* addps xmm0, xmm1 */
			case 5: add(&p, (uint8_t[]){ 0x0f, 0xae, 0x5e, code[2] }, 4); break; /* stmxcsr */
			case 6: case 7: case 8: case 9:
				/* Environments hold the host's pointers. */
				if (size && abs(size) < 20) {
					add(&p, code, 3);
					break;
				}
				/* fall through */
			default:
				code[1] = (uint8_t)(0xc0 | (rnd() & 0x3f));
				add(&p, code, 2);
			}
		}
		if (!compare(&p, &m, rnd() % 4, 0))
			failures++;
	}
	assert_int_equal(failures, 0);
}

/* A store that faults changes neither stack nor flags, whatever way it took. */
static void test_store_faults(void **state)
{
	static const uint8_t stores[][2] = { { 0xd9, 0x1e }, { 0xdd, 0x1e }, { 0xdb, 0x3e }, { 0xdf, 0x36 },
					     { 0xdf, 0x3e }, { 0xdb, 0x0e }, { 0xd9, 0x36 }, { 0xdd, 0x36 } };

	for (unsigned n = 0; n < sizeof(stores) / sizeof(stores[0]); n++) {
		/* The probe fails, or the write itself after a probe that passed. */
		for (int after = 0; after < 4; after++) {
			struct machine m, end;
			struct insn i;
			int fault;

			machine_random(&m);
			random_x87(&m, false);
			m.fx[FX_FTW] = 0xff;
			m.gpr[R_SI] = (uintptr_t)mem + (after < 2 ? 4093 : 100);
			cpu_from_machine(&m);
			tlb_fill(false);
			assert_true(bind(&i, stores[n], 2, MODE_64));
			mmu_fail_after = after & 1;
			fault = run_bound(&i);
			mmu_fail_after = -1;
			assert_int_equal(fault, EXC_PF);
			cpu_to_machine(&end);
			assert_memory_equal(end.fx, m.fx, FX_FOP);
			assert_memory_equal(end.fx + FX_ST, m.fx + FX_ST, 128);
		}
	}
}

/* FOP, FIP and FDP are the guest's: set by arithmetic, not by control instructions. */
static void test_pointers(void **state)
{
	static const uint8_t fadd_mem[] = { 0xd8, 0x46, 0x10 }, fsin[] = { 0xd9, 0xfe }, fldcw[] = { 0xd9, 0x2e };
	struct machine m;
	struct insn i;

	machine_random(&m);
	random_x87(&m, false);
	m.gpr[R_SI] = (uintptr_t)mem + 32;
	put16(mem + 32, 0x37f);
	cpu_from_machine(&m);
	tlb_fill(true);
	assert_true(bind(&i, fadd_mem, sizeof(fadd_mem), MODE_64));
	assert_int_equal(run_bound(&i), -1);
	assert_int_equal(get16(cpu->fx + FX_FOP), 0x046);
	assert_int_equal(get64(cpu->fx + FX_FIP), 0x1234567);
	assert_int_equal(get64(cpu->fx + FX_FDP), (uintptr_t)mem + 48);
	assert_true(bind(&i, fsin, sizeof(fsin), MODE_64));
	assert_int_equal(run_bound(&i), -1);
	assert_int_equal(get16(cpu->fx + FX_FOP), 0x1fe);
	assert_int_equal(get64(cpu->fx + FX_FDP), (uintptr_t)mem + 48);
	assert_true(bind(&i, fldcw, sizeof(fldcw), MODE_64));
	assert_int_equal(run_bound(&i), -1);
	assert_int_equal(get16(cpu->fx + FX_FOP), 0x1fe);
	vec_sync(cpu);
	assert_int_equal(get16(cpu->fx + FX_FOP), 0x1fe);
}

/* FNSAVE and FRSTOR in each of the four formats give the state back (SDM vol. 1 figures 8-9 to 8-12). */
static void test_environment_formats(void **state)
{
	static const uint8_t fnsave[] = { 0x66, 0xdd, 0x36 }, frstor[] = { 0x66, 0xdd, 0x26 };

	for (unsigned n = 0; n < 400; n++) {
		bool small = n & 1, real = n & 2;
		struct machine m, end;
		uint32_t fip = rnd(), fdp = rnd();
		uint16_t fop = rnd() & 0x7ff;
		unsigned size = small ? 94 : 108;
		struct insn save, restore;

		machine_random(&m);
		random_x87(&m, n & 4);
		m.gpr[R_SI] = (uintptr_t)mem + (rnd() & 1 ? 4096 - 50 : MEM_SIZE - size);
		cpu_from_machine(&m);
		tlb_fill(rnd() & 1);
		if (real)
			cpu->rflags |= FL_VM;
		put64(cpu->fx + FX_FIP, fip);
		put64(cpu->fx + FX_FDP, fdp);
		put16(cpu->fx + FX_FOP, fop);
		assert_true(bind(&save, fnsave + !small, 2 + small, MODE_32));
		assert_true(bind(&restore, frstor + !small, 2 + small, MODE_32));
		assert_int_equal(save.opsize, small ? 2 : 4);
		assert_int_equal(run_bound(&save), -1);
		assert_int_equal(get16(cpu->fx + FX_FCW), 0x37f);
		assert_int_equal(get16(cpu->fx + FX_FSW), 0);
		assert_int_equal(cpu->fx[FX_FTW], 0);
		assert_int_equal(get64(cpu->fx + FX_FIP), 0);
		assert_int_equal(run_bound(&restore), -1);
		/* 16-bit formats keep 16 bits of a pointer, 20 in real mode. */
		assert_int_equal(get64(cpu->fx + FX_FIP), !small ? fip : real ? fip & 0xfffff : fip & 0xffff);
		assert_int_equal(get64(cpu->fx + FX_FDP), !small ? fdp : real ? fdp & 0xfffff : fdp & 0xffff);
		assert_int_equal(get16(cpu->fx + FX_FOP), small && !real ? 0 : fop);
		cpu->rflags &= ~(uint64_t)FL_VM;
		cpu_to_machine(&end);
		assert_memory_equal(end.fx, m.fx, FX_FOP);
		assert_memory_equal(end.fx + FX_ST, m.fx + FX_ST, 128);
	}
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
		cmocka_unit_test(test_register_forms),
		cmocka_unit_test(test_memory_forms),
		cmocka_unit_test(test_sequences),
		cmocka_unit_test(test_store_faults),
		cmocka_unit_test(test_pointers),
		cmocka_unit_test(test_environment_formats),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
