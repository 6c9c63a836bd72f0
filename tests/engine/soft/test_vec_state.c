/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of the vector unit: FXSAVE and the XSAVE family against the host,
 * MXCSR, what the engine hands out and takes in; and who may use the unit:
 * control bits, legal encodings.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "vec_harness.h"

static unsigned rounds = 300;

/* All registers that the images hold. */
static void random_state(struct machine *m)
{
	machine_random(m);
	random_x87(m, rnd() & 1);
	put16(m->fx + FX_FOP, rnd() & 0x7ff);
	put64(m->fx + FX_FIP, rnd64() & 0x7fffffffffff);
	put64(m->fx + FX_FDP, rnd64() & 0x7fffffffffff);
	for (unsigned n = 0; n < 16; n++)
		random_bytes(m->ymm[n], host_avx ? 32 : 16);
}

static void print_bytes(const uint8_t *host, const uint8_t *soft, unsigned n)
{
	for (unsigned k = 0; k < n; k++)
		if (host[k] != soft[k])
			printf("  byte %u: host %02x soft %02x\n", k, host[k], soft[k]);
}

struct image_insn {
	const char *name;
	uint8_t code[4];
	unsigned len;
	bool xsave, compact;
};
static const struct image_insn savers[] = {
	{ "fxsave", { 0x0f, 0xae, 0x06 }, 3, false, false },
	{ "fxsave64", { 0x48, 0x0f, 0xae, 0x06 }, 4, false, false },
	{ "xsave", { 0x0f, 0xae, 0x26 }, 3, true, false },
	{ "xsave64", { 0x48, 0x0f, 0xae, 0x26 }, 4, true, false },
	{ "xsaveopt", { 0x0f, 0xae, 0x36 }, 3, true, false },
	{ "xsaveopt64", { 0x48, 0x0f, 0xae, 0x36 }, 4, true, false },
	{ "xsavec", { 0x0f, 0xc7, 0x26 }, 3, true, true },
	{ "xsavec64", { 0x48, 0x0f, 0xc7, 0x26 }, 4, true, true },
};

/* Everything in use: the images must be equal byte for byte, untouched bytes included. */
static void test_save_images(void **state)
{
	static uint8_t before[MEM_SIZE], native_mem[MEM_SIZE];

	harness_arm();
	for (unsigned n = 0; n < sizeof(savers) / sizeof(savers[0]); n++) {
		const struct image_insn *s = &savers[n];

		for (unsigned k = 0; k < rounds; k++) {
			struct machine start, native, soft;
			unsigned at = s->xsave ? 64 * (rnd() % 100) : 16 * (rnd() % 500);

			if (s->xsave && !host_avx)
				continue;
			random_state(&start);
			start.gpr[R_AX] = k & 7;
			start.gpr[R_DX] = 0;
			start.gpr[R_SI] = (uintptr_t)mem + at;
			random_bytes(mem, MEM_SIZE);
			if (s->xsave && rnd() & 1)
				memset(mem + at + 512, 0, 64);
			memcpy(before, mem, MEM_SIZE);
			native = soft = start;
			native_run(&native, s->code, s->len);
			memcpy(native_mem, mem, MEM_SIZE);
			memcpy(mem, before, MEM_SIZE);
			soft_run_one(&soft, s->code, s->len, MODE_64, rnd() & 1);
			/* The host's own mask has bits that are not offered. */
			if (native.fault < 0 && memcmp(native_mem + at + FX_MXCSR_MASK, before + at + FX_MXCSR_MASK, 4))
				put32(native_mem + at + FX_MXCSR_MASK, MXCSR_VALID);
			/* AMD saves the pointers only beside a pending exception; test_supervisor() follows ours. */
			memcpy(native_mem + at + FX_FOP, mem + at + FX_FOP, FX_MXCSR - FX_FOP);
			if (memcmp(native_mem, mem, MEM_SIZE) || native.fault != soft.fault) {
				printf("%s, mask %u, FSW %x:\n", s->name, k & 7, get16(start.fx + FX_FSW));
				print_bytes(native_mem + at, mem + at, 1024);
				fail();
			}
			assert_memory_equal(soft.ymm, start.ymm, sizeof(soft.ymm));
			assert_memory_equal(soft.fx, start.fx, FX_MXCSR_MASK);
			assert_memory_equal(soft.fx + FX_ST, start.fx + FX_ST, 128);
		}
	}
}

static const struct image_insn loaders[] = {
	{ "fxrstor", { 0x0f, 0xae, 0x0e }, 3, false, false },
	{ "fxrstor64", { 0x48, 0x0f, 0xae, 0x0e }, 4, false, false },
	{ "xrstor", { 0x0f, 0xae, 0x2e }, 3, true, false },
	{ "xrstor64", { 0x48, 0x0f, 0xae, 0x2e }, 4, true, false },
	{ "xrstor", { 0x0f, 0xae, 0x2e }, 3, true, true },
	{ "xrstor64", { 0x48, 0x0f, 0xae, 0x2e }, 4, true, true },
};

static void test_load_images(void **state)
{
	harness_arm();
	for (unsigned n = 0; n < sizeof(loaders) / sizeof(loaders[0]); n++) {
		const struct image_insn *s = &loaders[n];

		for (unsigned k = 0; k < 3 * rounds; k++) {
			struct machine start, other, native, soft;
			unsigned at = s->xsave ? 64 * (rnd() % 100) : 16 * (rnd() % 400);
			uint8_t *image = mem + at;

			if (s->xsave && !host_avx)
				continue;
			random_state(&start);
			random_state(&other);
			start.gpr[R_AX] = rnd() & 7;
			start.gpr[R_DX] = 0;
			start.gpr[R_SI] = (uintptr_t)image;
			random_bytes(mem, MEM_SIZE);
			memcpy(image, other.fx, FX_XMM);
			for (unsigned r = 0; r < 8; r++)
				random_bytes(image + FX_ST + 16 * r + 10, 6);
			put16(image + FX_FCW, (uint16_t)rnd());
			if (rnd() & 1)
				put16(image + FX_FSW, (uint16_t)rnd());
			put32(image + FX_MXCSR, rnd() % 8 ? rnd() & MXCSR_VALID : 1u << (18 + rnd() % 14));
			memset(image + 512, 0, 64);
			image[512] = rnd() & 7;
			if (s->compact) {
				image[520] = rnd() & 1 ? 7 : (rnd() & 7) | image[512];
				image[527] = 0x80;
			}
			/* Now and then a header that is not one. */
			switch (rnd() % 20) {
			case 0: image[513 + rnd() % 6] = 0x10; break;
			case 1: image[521 + rnd() % 5] = 0x10; break;
			case 2: image[528 + rnd() % 48] = 1; break;
			case 3: image[512] = 7; image[520] = rnd() & 7; break;
			default: break;
			}
			native = soft = start;
			native_run(&native, s->code, s->len);
			soft_run_one(&soft, s->code, s->len, MODE_64, rnd() & 1);
			if (!machine_same(&native, &soft, 0)) {
				printf("%s, mask %lu, header %lx %lx:\n", s->name, start.gpr[R_AX], get64(image + 512),
				       get64(image + 520));
				machine_print(&start, &native, &soft);
				print_bytes(native.fx, soft.fx, FX_XMM);
				fail();
			}
		}
	}
}

/* Initial components: what XSAVE marks, what XSAVEOPT and XSAVEC leave out (SDM vol. 1 §13.6 to 13.10). */
static void test_init_optimization(void **state)
{
	uint8_t in_use[] = { 0, 1, 2, 4, 3, 5, 6, 7 };

	for (unsigned n = 0; n < sizeof(in_use); n++) {
		for (unsigned s = 2; s < 8; s++) {
			unsigned use = in_use[n];
			struct machine m;
			struct insn i;

			if (use & 4 && !host_avx)
				continue;
			memset(&m, 0, sizeof(m));
			put16(m.fx, FCW_RESET);
			put32(m.fx + FX_MXCSR, MXCSR_RESET);
			if (use & 1)
				put64(m.fx + FX_FDP, 5);
			if (use & 2)
				m.ymm[15][3] = 1;
			if (use & 4)
				m.ymm[15][30] = 1;
			m.gpr[R_AX] = 7;
			m.gpr[R_SI] = (uintptr_t)mem;
			memset(mem, 0xcc, 1024);
			memset(mem + 512, 0, 64);
			mem[512] = 7;
			mem[517] = 0x40; /* beyond the mask: stays, where the header is merged */
			cpu_from_machine(&m);
			tlb_fill(true);
			assert_int_equal(vec_xinuse(cpu), use);
			assert_true(bind(&i, savers[s].code, savers[s].len, MODE_64));
			assert_int_equal(run_bound(&i), -1);
			assert_int_equal(get64(mem + 512), savers[s].compact ? use : use | 1ull << 46);
			if (savers[s].compact)
				assert_int_equal(get64(mem + 520), 1ull << 63 | vec_xcr0_mask());
			if (s >= 4) {
				assert_int_equal(mem[FX_FCW] == 0xcc, !(use & 1));
				assert_int_equal(mem[FX_XMM] == 0xcc, !(use & 2));
				assert_int_equal(mem[XSAVE_AVX] == 0xcc, !(use & 4));
			} else {
				assert_int_equal(mem[FX_FCW], 0x7f);
			}
			/* MXCSR alone keeps SSE in use for XSAVEC. */
			put32(cpu->fx + FX_MXCSR, 0x1fa0);
			assert_int_equal(run_bound(&i), -1);
			assert_int_equal(mem[512], savers[s].compact ? use | 2 : use);
		}
	}
}

/* Outside 64-bit mode registers 8 to 15 are neither saved nor loaded nor zeroed. */
static void test_eight_registers(void **state)
{
	static const uint8_t codes[][3] = {
		{ 0x0f, 0xae, 0x06 }, { 0x0f, 0xae, 0x26 }, { 0x0f, 0xae, 0x0e }, { 0x0f, 0xae, 0x2e }
	};
	struct machine m, end;
	struct insn i;

	for (unsigned n = 0; n < 4; n++) {
		random_state(&m);
		m.gpr[R_AX] = 7;
		m.gpr[R_DX] = 0;
		m.gpr[R_SI] = (uintptr_t)mem;
		memset(mem, n < 2 ? 0xcc : 0, 1024);
		if (n < 2)
			memset(mem + 512, 0, 64);
		put32(mem + FX_MXCSR, 0x1f80);
		cpu_from_machine(&m);
		tlb_fill(true);
		assert_true(bind(&i, codes[n], 3, MODE_32));
		assert_int_equal(run_bound(&i), -1);
		cpu_to_machine(&end);
		assert_memory_equal(end.ymm[8], m.ymm[8], 8 * 32);
		if (n < 2) {
			assert_memory_equal(mem + FX_XMM, m.ymm[0], 16);
			assert_int_equal(mem[FX_XMM + 128], 0xcc);
			assert_int_equal(mem[XSAVE_AVX + 128], 0xcc);
		} else {
			assert_int_equal(get64(end.ymm[7]), 0);
		}
	}
	if (!host_avx)
		return;
	random_state(&m);
	cpu_from_machine(&m);
	assert_true(bind(&i, (const uint8_t *)"\xc5\xfc\x77", 3, MODE_32));
	assert_int_equal(run_bound(&i), -1);
	assert_int_equal(get64(cpu->ymm[7]), 0);
	assert_memory_equal(cpu->ymm[8], m.ymm[8], 8 * 32);
}

/* XSAVES and XRSTORS: CPL 0, compacted form only. */
static void test_supervisor(void **state)
{
	static const uint8_t xsaves[] = { 0x48, 0x0f, 0xc7, 0x2e }, xrstors[] = { 0x48, 0x0f, 0xc7, 0x1e };
	struct machine m, end;
	struct insn save, restore;

	assert_true(bind(&save, xsaves, 4, MODE_64));
	assert_true(bind(&restore, xrstors, 4, MODE_64));
	random_state(&m);
	m.gpr[R_AX] = 7;
	m.gpr[R_DX] = 0;
	m.gpr[R_SI] = (uintptr_t)mem;
	memset(mem, 0, 1024);
	cpu_from_machine(&m);
	tlb_fill(true);
	cpu->cpl = 3;
	assert_int_equal(run_bound(&save), EXC_GP);
	assert_int_equal(run_bound(&restore), EXC_GP);
	cpu->cpl = 0;
	assert_int_equal(run_bound(&restore), EXC_GP); /* standard form */
	assert_int_equal(run_bound(&save), -1);
	memset(cpu->ymm, 0x77, sizeof(cpu->ymm));
	memset(cpu->fx, 0x77, 24);
	assert_int_equal(run_bound(&restore), -1);
	cpu_to_machine(&end);
	assert_memory_equal(end.ymm, m.ymm, sizeof(m.ymm));
	assert_memory_equal(end.fx, m.fx, FX_MXCSR_MASK);
	assert_memory_equal(end.fx + FX_ST, m.fx + FX_ST, 128);
}

static void test_mxcsr(void **state)
{
	static const uint8_t ld[] = { 0x0f, 0xae, 0x16 }, st[] = { 0x0f, 0xae, 0x1e }, addps[] = { 0x0f, 0x58, 0xc1 };
	uint32_t host = host_mxcsr_get();
	struct insn load, store, add;
	struct machine m;

	assert_true(bind(&load, ld, 3, MODE_64));
	assert_true(bind(&store, st, 3, MODE_64));
	assert_true(bind(&add, addps, 3, MODE_64));
	machine_random(&m);
	for (unsigned k = 0; k < 4; k++) {
		put32(m.ymm[0] + 4 * k, 0x3f800000);
		put32(m.ymm[1] + 4 * k, 0x33000000); /* 1 + 2^-25 is inexact */
	}
	m.gpr[R_SI] = (uintptr_t)mem;
	cpu_from_machine(&m);
	tlb_fill(true);
	for (unsigned bit = 16; bit < 32; bit++) {
		put32(mem, 0x1f80 | 1u << bit);
		assert_int_equal(run_bound(&load), EXC_GP);
	}
	/* The value comes back, is in force, and collects flags, whether it was live or not. */
	for (unsigned rc = 0; rc < 4; rc++) {
		put32(mem, 0x1f80 | rc << 13);
		assert_int_equal(run_bound(&load), -1);
		put32(mem, 0);
		assert_int_equal(run_bound(&store), -1);
		assert_int_equal(get32(mem), 0x1f80 | rc << 13);
		memcpy(cpu->ymm[0], m.ymm[0], 16);
		assert_int_equal(run_bound(&add), -1);
		assert_int_equal(get32(cpu->ymm[0]), rc == 2 ? 0x3f800001 : 0x3f800000);
		assert_int_equal(run_bound(&store), -1);
		assert_int_equal(get32(mem), 0x1fa0 | rc << 13);
		assert_int_not_equal(cpu->vec_live, 0);
	}
	vec_sync(cpu);
	assert_int_equal(host_mxcsr_get(), host);
	assert_int_equal(get32(cpu->fx + FX_MXCSR), 0x1fa0 | 3 << 13);
	/* #UD instead of #XM where the system does not know #XM; the flag is set, the register is not. */
	put32(mem, 0x0f80);
	assert_int_equal(run_bound(&load), -1);
	memcpy(cpu->ymm[0], m.ymm[0], 16);
	assert_int_equal(run_bound(&add), EXC_XM);
	cpu->cr4 &= ~(uint64_t)CR4_OSXMMEXCPT;
	assert_int_equal(run_bound(&add), EXC_UD);
	assert_memory_equal(cpu->ymm[0], m.ymm[0], 16);
	assert_int_equal(vec_mxcsr(cpu), 0x0fa0);
}

/* vec_set() honours XSTATE_BV and takes any bytes; vec_area_valid() tells which are proper. */
static void test_state_exchange(void **state)
{
	uint8_t area[CPU_XSAVE_SIZE], back[CPU_XSAVE_SIZE];

	for (unsigned n = 0; n < rounds; n++) {
		random_bytes(area, sizeof(area));
		vec_set(cpu, area);
		vec_get(cpu, back);
		assert_true(vec_area_valid(back));
		assert_int_equal(get32(back + FX_MXCSR) >> 16, 0);
		vec_set(cpu, back);
		vec_get(cpu, area);
		assert_memory_equal(area, back, sizeof(area));
	}
	for (unsigned bv = 0; bv < 8; bv++) {
		random_bytes(area, sizeof(area));
		memset(area + 512, 0, 64);
		area[512] = (uint8_t)bv;
		put32(area + FX_MXCSR, 0x1fbf);
		assert_int_equal(vec_area_valid(area), host_avx || bv < 4);
		vec_set(cpu, area);
		assert_int_equal(get16(cpu->fx) == FCW_RESET && get64(cpu->fx + FX_ST) == 0, !(bv & 1));
		assert_int_equal(get64(cpu->ymm[3]) == 0, !(bv & 2));
		assert_int_equal(get64(cpu->ymm[3] + 16) == 0, !(bv & 4) || !host_avx);
		assert_int_equal(vec_mxcsr(cpu), 0x1fbf);
	}
	area[512] = 3;
	put32(area + FX_MXCSR, 0x11f80);
	assert_false(vec_area_valid(area));
	put32(area + FX_MXCSR, 0x1f80);
	area[513] = 1;
	assert_false(vec_area_valid(area));
	area[513] = 0;
	area[527] = 0x80;
	assert_false(vec_area_valid(area));
}

/* ---- Who may ---------------------------------------------------------------- */

enum class { X87, WAIT, MMX, SSE, SSE_MMX, FX, XS, AVX };
static const struct {
	const char *code;
	unsigned len;
	enum class class;
} members[] = {
	{ "\xd9\xe8", 2, X87 },             /* fld1 */
	{ "\xdf\xe0", 2, X87 },             /* fnstsw ax */
	{ "\xdb\xe3", 2, X87 },             /* fninit */
	{ "\xd9\x2e", 2, X87 },             /* fldcw */
	{ "\x9b", 1, WAIT },                /* fwait */
	{ "\x0f\xfc\xc1", 3, MMX },         /* paddb */
	{ "\x0f\x6f\x06", 3, MMX },         /* movq */
	{ "\x0f\x77", 2, MMX },             /* emms */
	{ "\x0f\x70\xc1\x00", 4, MMX },     /* pshufw */
	{ "\x0f\x38\x00\xc1", 4, MMX },     /* pshufb */
	{ "\x0f\x58\xc1", 3, SSE },         /* addps */
	{ "\x0f\x28\xc1", 3, SSE },         /* movaps */
	{ "\x66\x0f\xef\xc0", 4, SSE },     /* pxor */
	{ "\x66\x0f\x71\xd1\x01", 5, SSE }, /* psrlw */
	{ "\x66\x0f\x38\x17\xc1", 5, SSE }, /* ptest */
	{ "\xf2\x0f\x2d\xc1", 4, SSE },     /* cvtsd2si */
	{ "\x66\x0f\x7e\xc0", 4, SSE },     /* movd */
	{ "\x0f\xae\x16", 3, SSE },         /* ldmxcsr */
	{ "\x0f\xae\x1e", 3, SSE },         /* stmxcsr */
	{ "\x0f\x2a\xc1", 3, SSE_MMX },     /* cvtpi2ps */
	{ "\xf3\x0f\xd6\xc1", 4, SSE_MMX }, /* movq2dq */
	{ "\xf2\x0f\xd6\xc1", 4, SSE_MMX }, /* movdq2q */
	{ "\x0f\x2d\xc1", 3, SSE_MMX },     /* cvtps2pi */
	{ "\x0f\xae\x06", 3, FX },          /* fxsave */
	{ "\x0f\xae\x0e", 3, FX },          /* fxrstor */
	{ "\x0f\xae\x26", 3, XS },          /* xsave */
	{ "\x0f\xae\x2e", 3, XS },          /* xrstor */
	{ "\x0f\xc7\x26", 3, XS },          /* xsavec */
	{ "\xc5\xf4\x58\xc1", 4, AVX },     /* vaddps */
	{ "\xc5\xfc\x28\xc1", 4, AVX },     /* vmovaps */
	{ "\xc5\xf8\x77", 3, AVX },         /* vzeroupper */
	{ "\xc5\xf1\xef\xc1", 4, AVX },     /* vpxor */
	{ "\xc5\xf8\xae\x1e", 4, AVX },     /* vstmxcsr */
	{ "\xc5\xf9\x6e\xc0", 4, AVX },     /* vmovd */
	{ "\xc4\xe2\x75\x2c\x06", 5, AVX }, /* vmaskmovps */
};

/* SDM vol. 2 §2.4 and vol. 3 §2.5, §13.1; -1 where the instruction runs. */
static int expected(enum class c, uint64_t cr0, uint64_t cr4, uint64_t xcr0, bool vm, bool pending)
{
	bool em = cr0 & CR0_EM, ts = cr0 & CR0_TS;

	switch (c) {
	case X87: return em || ts ? EXC_NM : -2;
	case WAIT: return ts && cr0 & CR0_MP ? EXC_NM : pending ? EXC_MF : -1;
	case MMX: return em ? EXC_UD : ts ? EXC_NM : pending ? EXC_MF : -1;
	case SSE: return em || !(cr4 & CR4_OSFXSR) ? EXC_UD : ts ? EXC_NM : -1;
	case SSE_MMX: return em || !(cr4 & CR4_OSFXSR) ? EXC_UD : ts ? EXC_NM : pending ? EXC_MF : -1;
	case FX: return em || ts ? EXC_NM : -1;
	case XS: return !(cr4 & CR4_OSXSAVE) ? EXC_UD : ts ? EXC_NM : -1;
	case AVX:
		if (!(cr0 & CR0_PE) || vm || !(cr4 & CR4_OSXSAVE) || (xcr0 & 6) != 6)
			return EXC_UD;
		return ts ? EXC_NM : -1;
	}
	return -1;
}

static void test_availability(void **state)
{
	for (unsigned n = 0; n < sizeof(members) / sizeof(members[0]); n++) {
		if (members[n].class == AVX && !host_avx)
			continue;
		for (unsigned k = 0; k < 1024; k++) {
			uint64_t cr0 = (k & 1 ? CR0_PE : 0) | (k & 2 ? CR0_MP : 0) | (k & 4 ? CR0_EM : 0) |
				       (k & 8 ? CR0_TS : 0) | 0x20;
			uint64_t cr4 = (k & 16 ? CR4_OSFXSR : 0) | (k & 32 ? CR4_OSXSAVE : 0);
			uint64_t xcr0 = k & 64 ? 7 : k & 128 ? 3 : 1;
			bool vm = k & 256, pending = k & 512;
			int want = expected(members[n].class, cr0, cr4, xcr0, vm, pending);
			struct machine m, end;
			struct insn i;
			int got;

			machine_random(&m);
			m.gpr[R_SI] = (uintptr_t)mem;
			memset(mem, 0, 1024);
			put32(mem, 0x1f80); /* for LDMXCSR and as FCW */
			put32(mem + FX_MXCSR, 0x1f80);
			if (pending) {
				put16(m.fx, 0x340);
				put16(m.fx + 2, 0x8081);
			}
			cpu_from_machine(&m);
			tlb_fill(true);
			cpu->cr0 = cr0;
			cpu->cr4 = cr4;
			cpu->xcr0 = xcr0;
			if (vm)
				cpu->rflags |= FL_VM;
			assert_true(bind(&i, (const uint8_t *)members[n].code, members[n].len, MODE_64));
			got = run_bound(&i);
			cpu->rflags &= ~(uint64_t)FL_VM;
			if (want == -2) /* x87: waiting instructions see what is pending */
				want = pending && members[n].code[0] != '\xdf' && members[n].code[0] != '\xdb' ? EXC_MF
													       : -1;
			if (got != want)
				printf("%02x %02x: cr0 %lx cr4 %lx xcr0 %lx vm %d pending %d\n",
				       members[n].code[0] & 0xff, members[n].code[1] & 0xff, cr0, cr4, xcr0, vm,
				       pending);
			assert_int_equal(got, want);
			if (got >= 0) {
				cpu_to_machine(&end);
				assert_memory_equal(end.ymm, m.ymm, sizeof(m.ymm));
				assert_memory_equal(end.fx, m.fx, FX_FOP);
			}
		}
	}
}

static void test_alignment(void **state)
{
	static const struct {
		const char *code;
		unsigned len, align;
	} list[] = {
		{ "\x0f\xae\x06", 3, 16 },     { "\x0f\xae\x0e", 3, 16 },	  { "\x0f\xae\x26", 3, 64 },
		{ "\x0f\xae\x2e", 3, 64 },     { "\x0f\x28\x06", 3, 16 },	  { "\x0f\x29\x06", 3, 16 },
		{ "\x0f\x10\x06", 3, 1 },      { "\x66\x0f\xfe\x06", 4, 16 },	  { "\xf3\x0f\x58\x06", 4, 1 },
		{ "\xc5\xfc\x28\x06", 4, 32 }, { "\xc5\xf8\x28\x06", 4, 16 },	  { "\xc5\xfc\x58\x06", 4, 1 },
		{ "\xc5\xfd\xe7\x06", 4, 32 }, { "\x66\x0f\x38\x2a\x06", 5, 16 }, { "\x66\x0f\x3a\x63\x06\x00", 6, 1 },
		{ "\xf2\x0f\xf0\x06", 4, 1 },  { "\x0f\x5a\x06", 3, 1 },
	};

	for (unsigned n = 0; n < sizeof(list) / sizeof(list[0]); n++) {
		for (unsigned off = 0; off < 64; off++) {
			struct machine m;
			struct insn i;

			if ((uint8_t)list[n].code[0] == 0xc5 && !host_avx)
				continue;
			machine_random(&m);
			memset(mem, 0, 2048);
			put32(mem + FX_MXCSR, 0x1f80);
			m.gpr[R_SI] = (uintptr_t)mem + off;
			cpu_from_machine(&m);
			tlb_fill(rnd() & 1);
			assert_true(bind(&i, (const uint8_t *)list[n].code, list[n].len, MODE_64));
			assert_int_equal(run_bound(&i), off % list[n].align ? EXC_GP : -1);
		}
	}
}

/* Alignment checks (EFLAGS.AC) as AMD's CPUs make them: natural, at most 16; none for gathers and masked moves. */
static void test_alignment_checks(void **state)
{
	static const struct {
		const char *code;
		unsigned len, align;
	} list[] = {
		{ "\x0f\x10\x06", 3, 16 },	{ "\x0f\x11\x06", 3, 16 },	  { "\xc5\xfc\x10\x06", 4, 16 },
		{ "\xc5\xfc\x11\x06", 4, 16 }, { "\xc5\xf4\x58\x06", 4, 16 },    { "\xf2\x0f\x10\x06", 4, 8 },
		{ "\xf3\x0f\x10\x06", 4, 4 },  { "\x66\x0f\x38\x32\x06", 5, 2 }, { "\x0f\x5a\x06", 3, 8 },
		{ "\xdb\x2e", 2, 8 },	{ "\xdb\x3e", 2, 8 },	  { "\xd9\x26", 2, 4 },
		{ "\x66\xd9\x36", 3, 2 },	{ "\xdd\x26", 2, 4 },	  { "\xdd\x36", 2, 4 },
		{ "\xd9\x2e", 2, 2 },	{ "\x0f\xae\x16", 3, 4 },	  { "\x66\x0f\xf7\xca", 4, 8 },
		{ "\x0f\x60\x06", 3, 4 },	{ "\xc4\xe2\x65\x2c\x0e", 5, 1 }, { "\xc4\xe2\x65\x2e\x0e", 5, 1 },
		{ "\xc4\xe2\x61\x92\x0c\x16", 6, 1 }, { "\xc4\xe3\x7d\x19\x0e\x00", 6, 16 },
	};

	for (unsigned n = 0; n < sizeof(list) / sizeof(list[0]); n++) {
		for (unsigned off = 0; off < 33; off++) {
			struct machine m;
			struct insn i;

			if ((uint8_t)list[n].code[0] >= 0xc4 && (uint8_t)list[n].code[0] <= 0xc5 && !host_avx2)
				continue;
			machine_random(&m);
			memset(mem, 0, 2048);
			memset(m.ymm[2], 0, 32);
			memset(m.ymm[3], 0xff, 32);
			m.gpr[R_SI] = m.gpr[R_DI] = (uintptr_t)mem + off;
			cpu_from_machine(&m);
			tlb_fill(false);
			cpu->ac_check = 1;
			assert_true(bind(&i, (const uint8_t *)list[n].code, list[n].len, MODE_64));
			assert_int_equal(run_bound(&i), off % list[n].align ? EXC_AC : -1);
			cpu->ac_check = 0;
		}
	}
}

/* What the host has and the unit must not offer, or where CPUs differ. */
static bool legal_exception(unsigned map, unsigned op, unsigned pp, bool vex, bool l, bool w)
{
	if (vex && l && map == MAP_0F38 && op >= 0xdc && op <= 0xdf)
		return true; /* VAES */
	if (vex && l && map == MAP_0F3A && op == 0x44)
		return true; /* VPCLMULQDQ */
	if (vex && !w && map == MAP_0F3A && op <= 1)
		return true; /* VPERMQ, VPERMPD: AMD ignores W */
	return !vex && map == MAP_0F && op == 0x2b && pp >= 2; /* SSE4A */
}

/* Every opcode of the tables with every prefix, L, W and vvvv: #UD exactly where the host has it. */
static void test_legal_forms(void **state)
{
	unsigned wrong = 0;

	harness_arm();
	for (unsigned op = 0; op < 0x300; op++) {
		unsigned map = MAP_0F + (op >> 8);
		bool known = false;

		for (unsigned n = 0; n < vec_rows_count; n++)
			known |= vec_rows[n].map == map && vec_rows[n].opcode == (op & 0xff);
		if (!known)
			continue;
		for (unsigned k = 0; k < 4 * 2 * 2 * 2 * 2 * 2 * 8; k++) {
			struct encoding e = { .map = (uint8_t)map,
					      .opcode = (uint8_t)op,
					      .pp = k & 3,
					      .vex = k >> 2 & 1,
					      .l = k >> 3 & 1,
					      .w = k >> 4 & 1,
					      .vvvv = k >> 5 & 1 ? 5 : 0,
					      .mem = k >> 6 & 1,
					      .reg = k >> 7,
					      .rm = R_SI,
					      .index = -1,
					      .imm = -1 };
			struct machine m;
			struct insn i;
			uint8_t code[16];
			unsigned len;
			bool bound;

			if ((!e.vex && (e.l || e.vvvv)) || (e.vex && !host_avx))
				continue;
			if (map == MAP_0F3A ||
			    (map == MAP_0F && ((op >= 0x70 && op <= 0x73) || op == 0xc2 || (op >= 0xc4 && op <= 0xc6))))
				e.imm = 0;
			len = encode(code, &e);
			if (map == MAP_0F && op == 0x77)
				len -= e.mem ? 5 : 1;
			bound = bind(&i, code, len, MODE_64);
			machine_random(&m);
			for (unsigned n = 0; n < 16; n++)
				m.gpr[n] = (uintptr_t)mem + 1024;
			native_run(&m, code, len);
			if (bound == (m.fault != EXC_UD) || legal_exception(map, op & 0xff, e.pp, e.vex, e.l, e.w))
				continue;
			for (unsigned n = 0; n < len; n++)
				printf("%02x ", code[n]);
			printf(": host %s, unit %s\n", m.fault == EXC_UD ? "#UD" : "runs", bound ? "runs" : "#UD");
			if (++wrong > 40)
				fail();
		}
	}
	assert_int_equal(wrong, 0);
}

/* VEX.vvvv of what has no such operand must be 1111b, in its high bit too where eight registers need none. */
static void test_vvvv_unused(void **state)
{
	struct insn i;

	if (!host_avx2)
		skip();
	for (unsigned mode = MODE_32; mode <= MODE_64; mode++) {
		for (unsigned vvvv = 0; vvvv < 16; vvvv++) {
			uint8_t vpmovsxbd[] = { 0xc4, 0xe2, (uint8_t)(0x05 | vvvv << 3), 0x21, 0xc1 };
			uint8_t vpaddd[] = { 0xc4, 0xe1, (uint8_t)(0x05 | vvvv << 3), 0xfe, 0xc1 };

			assert_int_equal(bind(&i, vpmovsxbd, 5, mode), vvvv == 15);
			assert_true(bind(&i, vpaddd, 5, mode));
		}
	}
}

static void test_lock(void **state)
{
	static const char *const codes[] = { "\xf0\xd8\xc1", "\xf0\x0f\xfc\xc1", "\xf0\x0f\x58\xc1", "\xf0\x0f\xae\x06",
					     "\xf0\x9b\x90" };
	struct insn i;

	for (unsigned n = 0; n < 5; n++) {
		unsigned len = n == 0 ? 3 : n == 4 ? 2 : 4;

		assert_int_equal(insn_decode(&i, (const uint8_t *)codes[n], len, MODE_64), DECODE_OK);
		assert_false(vec_bind(&engine, &i));
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
		cmocka_unit_test(test_save_images),
		cmocka_unit_test(test_load_images),
		cmocka_unit_test(test_init_optimization),
		cmocka_unit_test(test_eight_registers),
		cmocka_unit_test(test_supervisor),
		cmocka_unit_test(test_mxcsr),
		cmocka_unit_test(test_state_exchange),
		cmocka_unit_test(test_availability),
		cmocka_unit_test(test_alignment),
		cmocka_unit_test(test_alignment_checks),
		cmocka_unit_test(test_legal_forms),
		cmocka_unit_test(test_vvvv_unused),
		cmocka_unit_test(test_lock),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
