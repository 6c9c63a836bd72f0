/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CPUID of the soft engine is honest: an instruction of each feature runs if the bit is set, else it is #UD. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "engine/engine.h"

#define RAM_SIZE 0x200000u
#define CODE 0x10000u
#define DATA 0x20000u

enum { EAX, EBX, ECX, EDX };

static const struct sample {
	const char *name;
	uint32_t leaf, subleaf, reg, bit;
	const char *code; /* rbx and rsi point to data, ecx is 0 */
	unsigned len;
} samples[] = {
#define I(name, leaf, subleaf, reg, bit, code) { name, leaf, subleaf, reg, bit, code, sizeof(code) - 1 }
	I("FPU", 1, 0, EDX, 0, "\xd9\xe8"),                         /* fld1 */
	I("TSC", 1, 0, EDX, 4, "\x0f\x31"),                         /* rdtsc */
	I("CX8", 1, 0, EDX, 8, "\x0f\xc7\x0b"),                     /* cmpxchg8b (%rbx) */
	I("CMOV", 1, 0, EDX, 15, "\x0f\x40\xc1"),                   /* cmovo %ecx, %eax */
	I("CLFLUSH", 1, 0, EDX, 19, "\x0f\xae\x3b"),
	I("MMX", 1, 0, EDX, 23, "\x0f\xef\xc0"),                    /* pxor %mm0, %mm0 */
	I("FXSR", 1, 0, EDX, 24, "\x0f\xae\x03"),                   /* fxsave (%rbx) */
	I("SSE", 1, 0, EDX, 25, "\x0f\x57\xc0"),                    /* xorps */
	I("SSE2", 1, 0, EDX, 26, "\x66\x0f\xef\xc0"),               /* pxor %xmm0, %xmm0 */
	I("SSE3", 1, 0, ECX, 0, "\xf2\x0f\x7c\xc0"),                /* haddps */
	I("PCLMULQDQ", 1, 0, ECX, 1, "\x66\x0f\x3a\x44\xc0\x00"),
	I("SSSE3", 1, 0, ECX, 9, "\x66\x0f\x38\x00\xc0"),           /* pshufb */
	I("FMA", 1, 0, ECX, 12, "\xc4\xe2\xf1\x98\xc2"),            /* vfmadd132pd */
	I("CX16", 1, 0, ECX, 13, "\x48\x0f\xc7\x0b"),
	I("SSE4.1", 1, 0, ECX, 19, "\x66\x0f\x38\x17\xc0"),         /* ptest */
	I("SSE4.2", 1, 0, ECX, 20, "\x66\x0f\x38\x37\xc0"),         /* pcmpgtq */
	I("CRC32", 1, 0, ECX, 20, "\xf2\x0f\x38\xf1\xc1"),
	I("MOVBE", 1, 0, ECX, 22, "\x0f\x38\xf0\x03"),
	I("POPCNT", 1, 0, ECX, 23, "\xf3\x0f\xb8\xc1"),
	I("AES", 1, 0, ECX, 25, "\x66\x0f\x38\xdc\xc0"),            /* aesenc */
	I("XSAVE", 1, 0, ECX, 26, "\x0f\xae\x23"),
	I("XGETBV", 1, 0, ECX, 26, "\x0f\x01\xd0"),
	I("AVX", 1, 0, ECX, 28, "\xc5\xfc\x57\xc0"),                /* vxorps %ymm */
	I("F16C", 1, 0, ECX, 29, "\xc4\xe2\x79\x13\xc0"),           /* vcvtph2ps */
	I("RDRAND", 1, 0, ECX, 30, "\x0f\xc7\xf0"),
	I("FSGSBASE", 7, 0, EBX, 0, "\xf3\x48\x0f\xae\xc0"),        /* rdfsbase %rax */
	I("BMI1", 7, 0, EBX, 3, "\xc4\xe2\x78\xf2\xc1"),            /* andn */
	I("AVX2", 7, 0, EBX, 5, "\xc5\xfd\xd4\xc0"),                /* vpaddq %ymm */
	I("BMI2", 7, 0, EBX, 8, "\xc4\xe2\x7b\xf5\xc1"),            /* pdep */
	I("INVPCID", 7, 0, EBX, 10, "\x66\x0f\x38\x82\x0b"),
	I("RDSEED", 7, 0, EBX, 18, "\x0f\xc7\xf8"),
	I("ADX", 7, 0, EBX, 19, "\x66\x0f\x38\xf6\xc1"),            /* adcx */
	I("SMAP", 7, 0, EBX, 20, "\x0f\x01\xca"),                   /* clac */
	I("CLFLUSHOPT", 7, 0, EBX, 23, "\x66\x0f\xae\x3b"),
	I("CLWB", 7, 0, EBX, 24, "\x66\x0f\xae\x33"),
	I("SHA", 7, 0, EBX, 29, "\x0f\x38\xc8\xc0"),                /* sha1nexte */
	I("RDPID", 7, 0, ECX, 22, "\xf3\x0f\xc7\xf8"),
	I("PKU", 7, 0, ECX, 3, "\x0f\x01\xee"),                     /* rdpkru */
	I("MOVDIRI", 7, 0, ECX, 27, "\x0f\x38\xf9\x03"),
	I("SERIALIZE", 7, 0, EDX, 14, "\x0f\x01\xe8"),
	I("XSAVEOPT", 0xd, 1, EAX, 0, "\x0f\xae\x33"),
	I("XSAVEC", 0xd, 1, EAX, 1, "\x0f\xc7\x23"),
	I("XSAVES", 0xd, 1, EAX, 3, "\x0f\xc7\x2b"),
	I("LAHF", 0x80000001, 0, ECX, 0, "\x9f"),
	I("SSE4A", 0x80000001, 0, ECX, 6, "\x66\x0f\x79\xc0"),      /* extrq */
	I("XOP", 0x80000001, 0, ECX, 11, "\x8f\xe9\x78\x01\xc9"),   /* blcfill */
	I("RDTSCP", 0x80000001, 0, EDX, 27, "\x0f\x01\xf9"),
	I("MONITOR", 1, 0, ECX, 3, "\x0f\x01\xc8"),
	I("VMX", 1, 0, ECX, 5, "\x0f\xc7\x33"),                     /* vmptrld */
	I("SVM", 0x80000001, 0, ECX, 2, "\x0f\x01\xd8"),            /* vmrun */
	I("AVX-512", 7, 0, EBX, 16, "\x62\xf1\xfd\x48\xd4\xc0"),
	I("RTM", 7, 0, EBX, 11, "\x0f\x01\xd6"),                    /* xtest */
#undef I
};

static struct engine *engine;
static struct vcpu *vcpu;
static uint8_t *ram;
static struct cpu_state start;

static uint32_t unused_port(void *opaque, uint16_t port, unsigned size)
{
	return UINT32_MAX;
}

static void no_port(void *opaque, uint16_t port, uint32_t value, unsigned size)
{
}

static uint64_t unused_address(void *opaque, uint64_t gpa, unsigned size)
{
	return UINT64_MAX;
}

static void no_address(void *opaque, uint64_t gpa, uint64_t value, unsigned size)
{
}

static int no_interrupt(void *opaque)
{
	return -1;
}

static void no_eoi(void *opaque, uint8_t vector)
{
}

static void put64(uint32_t gpa, uint64_t value)
{
	memcpy(ram + gpa, &value, sizeof(value));
}

static bool bit_of(uint32_t leaf, uint32_t subleaf, uint32_t reg, uint32_t bit)
{
	uint32_t regs[4];

	engine_cpuid(engine, 0, leaf, subleaf, regs);
	return regs[reg] >> bit & 1;
}

/* 64-bit, ring 0, everything that needs to be enabled enabled; no IDT, so that any exception is a shutdown. */
static int setup(void **state)
{
	struct engine_config config = {
		.kind = ENGINE_SOFT,
		.cpus = 1,
		.host = { NULL, unused_port, no_port, unused_address, no_address, no_interrupt, no_eoi },
	};
	struct err err = ERR_INIT;

	ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	engine = engine_new(&config, &err);
	if (!engine || engine_map(engine, 0, RAM_SIZE, ram, false, &err) < 0)
		return -1;
	vcpu = vcpu_new(engine, 0, &err);
	if (!vcpu)
		return -1;
	put64(0x1000, 0x2003);
	put64(0x2000, 0x3003);
	put64(0x3000, 0x83);
	cpu_state_reset(&start, 0);
	for (unsigned i = 0; i < SEG_COUNT; i++)
		start.seg[i] = (struct cpu_segment){ .limit = UINT32_MAX, .attr = 0xc093, .selector = 0x10 };
	start.seg[SEG_CS] = (struct cpu_segment){ .limit = UINT32_MAX, .attr = 0xa09b, .selector = 8 };
	start.idtr.limit = 0;
	start.cr0 = 0x80010033;
	start.cr3 = 0x1000;
	start.cr4 = 0x620 | 1u << 16; /* PAE, SSE, FSGSBASE */
	start.efer = 0x501;
	if (bit_of(1, 0, ECX, 26)) {
		start.cr4 |= 1u << 18;
		start.xcr0 = bit_of(1, 0, ECX, 28) ? 7 : 3;
	}
	start.rip = CODE;
	start.gpr[R_BX] = start.gpr[R_SI] = DATA;
	return 0;
}

static int teardown(void **state)
{
	vcpu_free(vcpu);
	engine_free(engine);
	munmap(ram, RAM_SIZE);
	return 0;
}

/* True if the instruction ran, false if it raised an exception. */
static bool executes(const struct sample *s)
{
	static struct cpu_state after;
	struct err err = ERR_INIT;
	enum vcpu_exit exit = VCPU_EXIT_KICK;

	memset(ram + DATA, 0, 4096);
	memcpy(ram + CODE, s->code, s->len);
	engine_written(engine, CODE, s->len);
	if (vcpu_set_state(vcpu, &start, &err) < 0 || vcpu_step(vcpu, 1, &exit, &err) < 0)
		fail_msg("%s: %s", s->name, err_msg(&err));
	if (exit == VCPU_EXIT_SHUTDOWN)
		return false;
	if (vcpu_get_state(vcpu, &after, &err) < 0)
		fail_msg("%s: %s", s->name, err_msg(&err));
	assert_int_equal(after.rip, CODE + s->len);
	return true;
}

static void offered_means_implemented(void **state)
{
	unsigned wrong = 0;

	for (unsigned i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
		const struct sample *s = &samples[i];
		bool offered = bit_of(s->leaf, s->subleaf, s->reg, s->bit);

		if (executes(s) == offered)
			continue;
		print_error("%s is %s, but %s\n", s->name, offered ? "offered" : "not offered",
			    offered ? "raises an exception" : "executes");
		wrong++;
	}
	assert_int_equal(wrong, 0);
}

/* x86-64-v2 always; v3 where the host is at least that. */
static void levels(void **state)
{
	static const uint8_t v2[] = { 0, 9, 13, 19, 20, 23 }, v3[] = { 12, 22, 26, 28, 29 };

	for (unsigned i = 0; i < sizeof(v2); i++)
		assert_true(bit_of(1, 0, ECX, v2[i]));
	assert_true(bit_of(0x80000001, 0, ECX, 0));
	if (!__builtin_cpu_supports("x86-64-v3")) {
		print_message("SKIP: the host is not x86-64-v3\n");
		skip();
	}
	for (unsigned i = 0; i < sizeof(v3); i++)
		assert_true(bit_of(1, 0, ECX, v3[i]));
	assert_true(bit_of(7, 0, EBX, 3));
	assert_true(bit_of(7, 0, EBX, 5));
	assert_true(bit_of(7, 0, EBX, 8));
	assert_true(bit_of(0x80000001, 0, ECX, 5));
}

static void follows_control_registers(void **state)
{
	struct cpu_state s = start;
	struct err err = ERR_INIT;
	uint32_t regs[4];

	assert_int_equal(vcpu_set_state(vcpu, &s, &err), 0);
	assert_true(bit_of(1, 0, ECX, 27));
	engine_cpuid(engine, 0, 0xd, 0, regs);
	assert_int_equal(regs[EBX], start.xcr0 & 4 ? 832 : 576);
	assert_int_equal(regs[ECX], start.xcr0 & 4 ? 832 : 576);
	s.xcr0 = 3;
	assert_int_equal(vcpu_set_state(vcpu, &s, &err), 0);
	engine_cpuid(engine, 0, 0xd, 0, regs);
	assert_int_equal(regs[EBX], 576);
	s.cr4 &= ~(1ull << 18);
	assert_int_equal(vcpu_set_state(vcpu, &s, &err), 0);
	assert_false(bit_of(1, 0, ECX, 27));
	assert_true(bit_of(1, 0, EDX, 9));
	s.apic_base &= ~0x800ull;
	assert_int_equal(vcpu_set_state(vcpu, &s, &err), 0);
	assert_false(bit_of(1, 0, EDX, 9));
}

static void leaves_end(void **state)
{
	uint32_t regs[4];

	assert_false(engine_cpuid(engine, 0, 0x17, 0, regs));
	assert_int_equal(regs[0] | regs[1] | regs[2] | regs[3], 0);
	assert_false(engine_cpuid(engine, 0, 0x40000011, 0, regs));
	assert_false(engine_cpuid(engine, 0, 0x80000022, 0, regs));
	assert_false(engine_cpuid(engine, 0, 0xffffffff, 0, regs));
	assert_true(engine_cpuid(engine, 0, 0x16, 0, regs));
	assert_true(engine_cpuid(engine, 0, 7, 5, regs));
	assert_int_equal(regs[0] | regs[1] | regs[2] | regs[3], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(offered_means_implemented),
		cmocka_unit_test(levels),
		cmocka_unit_test(follows_control_registers),
		cmocka_unit_test(leaves_end),
	};

	return cmocka_run_group_tests_name("soft cpuid", tests, setup, teardown);
}
