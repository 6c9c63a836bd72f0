/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For the tests of the vector unit: a vCPU over a stand-in MMU that maps guest
 * to host addresses one to one, and the host CPU itself as the reference. Both
 * take a struct machine, run the same bytes and give one back.
 */
#pragma once
#include "engine/soft/vec.h"

struct machine {
	uint64_t gpr[16]; /* [R_SP] is not used */
	uint64_t rflags;
	uint8_t ymm[16][32];
	uint8_t fx[512] __attribute__((aligned(64))); /* x87 part and MXCSR */
	/* After a run */
	int fault; /* EXC_* or -1 */
};

/* Two pages with nothing mapped before and after, below 4 GiB. */
#define MEM_SIZE 8192u
extern uint8_t *mem;
extern bool host_avx, host_avx2;

void harness_init(void);
/* At the start of each test that uses native_run(): cmocka takes the signals for itself. */
void harness_arm(void);
/* Fresh random state: vectors from a mix of integers and awkward floats, everything masked, FNINIT-like x87. */
void machine_random(struct machine *m);
uint32_t rnd(void);
uint64_t rnd64(void);
void random_bytes(void *p, size_t n);
void random_vector(uint8_t *p, unsigned n);
/* ST, tags, TOP, control and status word. */
void random_x87(struct machine *m, bool unmasked);

/* Equal but for rSP and the given bits of MXCSR. */
bool machine_same(const struct machine *a, const struct machine *b, uint32_t mxcsr_ignored);
/* What differs. */
void machine_print(const struct machine *start, const struct machine *native, const struct machine *soft);

/* Run on the host. */
void native_run(struct machine *m, const uint8_t *code, unsigned len);
/* Run on the vector unit. `tlb`: memory operands hit; otherwise all go the slow way. */
void soft_run_one(struct machine *m, const uint8_t *code, unsigned len, unsigned mode, bool tlb);
/* The vCPU of soft_run_one(), for tests that set more than struct machine has. */
extern struct soft_vcpu *cpu;
extern struct soft_engine engine;
/* Decode and bind; NULL-handler instructions give false. */
bool bind(struct insn *i, const uint8_t *code, unsigned len, unsigned mode);
/* Run a bound instruction on `cpu` as it is; the fault or -1. */
int run_bound(const struct insn *i);
void cpu_from_machine(const struct machine *m);
void cpu_to_machine(struct machine *m);
void tlb_fill(bool on);
/* Writes that the unit announced with mmu_written(), and a hook that makes the n-th access from now fault. */
extern unsigned written_calls;
extern uint64_t written_gpa;
extern unsigned written_size;
extern int mmu_fail_after;

/* Encoding helper: legacy or VEX with the given fields. */
struct encoding {
	bool vex, w, l;
	uint8_t map, opcode, pp;
	uint8_t reg, rm, vvvv; /* rm: register, or base register if mem */
	bool mem;
	int index; /* -1 none */
	uint8_t scale;
	int32_t disp;
	int imm; /* -1 none */
};
unsigned encode(uint8_t *out, const struct encoding *e);
