/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The instruction set differential test: a case runs one instruction on the
 * host CPU in ring 3 (native.c) and on the soft engine (softside.c), and what
 * a program can see of the two must be the same (test_diff.c).
 *
 *   gen*.c      make a case from a number: bytes, registers, memory
 *   segments.c  segments outside 64-bit mode
 *   rules.c     what must not run natively, flags that are not defined, instructions that are not offered
 *   excuses.c   outcomes that may differ from CPU to CPU
 *   native.c    the instruction on the host, caught by a signal
 *   softside.c  the same on struct soft_vcpu
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "engine/soft/soft.h"

/*
 * The address space that an instruction sees: windows below 2 GiB, at the same
 * addresses on both sides, everything else unmapped. Nothing of the test
 * program itself lies below 4 GiB, and the windows reach each other with a
 * 32-bit displacement.
 *
 *   DATA   unmapped | RW RW | RO | unmapped
 *   STACK  unmapped | RW | unmapped
 *   CODE   unmapped | CODE_PAGES x read and execute | unmapped
 */
#define PAGE 4096u
#define DATA_BASE 0x20001000u
#define DATA_RW_PAGES 2u
#define DATA_RO_BASE (DATA_BASE + DATA_RW_PAGES * PAGE)
#define STACK_BASE 0x30001000u
#define CODE_BASE 0x40001000u
#define CODE_PAGES 16u
#define CODE_END (CODE_BASE + CODE_PAGES * PAGE)

/* Pages of the memory image, in this order: DATA RW, DATA RO, STACK; then CODE, which is not compared. */
#define IMAGE_RW_PAGES 4u
enum { IMAGE_DATA, IMAGE_DATA_RO = IMAGE_DATA + DATA_RW_PAGES, IMAGE_STACK, IMAGE_PAGES };

/* What ring 3 can see. */
struct diff_state {
	uint64_t gpr[16], rip, rflags;
	uint64_t fs_base, gs_base;
	uint8_t ymm[16][32];
	uint32_t mxcsr;
	uint16_t fcw, fsw;
	uint8_t ftw;	   /* abridged: a bit a register, 1 for in use */
	uint8_t st[8][10]; /* ST(0) first */
};

/* Segments (segments.c). */
enum {
	DIFF_NULL,
	DIFF_FLAT_DATA,
	DIFF_FLAT_CODE,
	DIFF_RW,
	DIFF_RW16,
	DIFF_RO,
	DIFF_DOWN,
	DIFF_DOWN16,
	DIFF_STACK,
	DIFF_STACK16,
	DIFF_CODE16,
	DIFF_CODE32,
	DIFF_EXEC32,
	DIFF_BASE, /* all of the address space, from the middle of a page on */
	DIFF_SEGMENTS
};
struct diff_segment {
	uint32_t base, limit, attr; /* as in struct cpu_segment */
	uint16_t selector;
};
extern const struct diff_segment diff_segments[DIFF_SEGMENTS];
/* False if the host's kernel has no LDTs. */
bool diff_segments_init(void);

struct diff_patch {
	uint32_t addr;
	uint8_t len, data[64];
};

enum { CLASS_INT = 1, CLASS_VEC = 2, CLASS_X87 = 4, CLASS_SYS = 8, CLASS_RAW = 16, CLASS_ALL = 31 };

#define DIFF_MAX_INSNS 5
struct diff_case {
	uint64_t number;
	unsigned mode;			    /* MODE_* */
	uint8_t seg[SEG_COUNT];		    /* DIFF_*; not in 64-bit mode */
	uint8_t bytes[DIFF_MAX_INSNS * 15]; /* the instructions; of the first at least 15 bytes, whatever its length */
	unsigned len;			    /* of all of them; 15 if the first is none */
	unsigned room;			    /* bytes of code memory from rip on, 15 or len if more */
	bool valid;			    /* insn[0] decodes */
	bool single_step;		    /* the host runs it with TF: where it ends is not known */
	enum { DIFF_DIRECT, DIFF_STEP, DIFF_RUN } way; /* soft: the handler alone, vcpu_step(), vcpu_run() */
	unsigned count; /* mostly 1; more are straight-line code on registers, so that state is carried along */
	struct insn insn[DIFF_MAX_INSNS];
	struct diff_state in; /* rip: offset in CS */
	struct diff_patch patch[3];
	unsigned npatches;
};

struct diff_result {
	struct diff_state out;
	int vector; /* -1: none */
	uint32_t error;
	uint64_t cr2;
};

static inline uint64_t diff_segment_base(const struct diff_case *c, unsigned seg)
{
	if (c->mode != MODE_64)
		return seg < SEG_COUNT ? diff_segments[c->seg[seg]].base : 0;
	return seg == SEG_FS ? c->in.fs_base : seg == SEG_GS ? c->in.gs_base : 0;
}

/* Linear address of the instructions. */
static inline uint64_t diff_code_at(const struct diff_case *c)
{
	return diff_segment_base(c, SEG_CS) + c->in.rip;
}

static inline bool diff_is_string(const struct insn *i)
{
	return i->map == MAP_1B &&
	       ((i->opcode >= 0xa4 && i->opcode <= 0xaf && i->opcode != 0xa8 && i->opcode != 0xa9) ||
		(i->opcode >= 0x6c && i->opcode <= 0x6f));
}

/* gen.c. False if the case is not to be run. */
bool diff_generate(struct diff_case *c, uint64_t seed, uint64_t number, unsigned classes);
extern bool diff_segments_usable;
/* Linear address of the ModRM operand. */
uint64_t diff_operand(const struct diff_case *c);
void diff_template(uint64_t seed, uint8_t *image);

/* rules.c */
enum diff_rule { RULE_RUN, RULE_SKIP };
enum diff_rule diff_may_run(const uint8_t *bytes, unsigned n, unsigned mode, bool *control_flow);
/* Flags that insn[0] leaves undefined. */
uint64_t diff_undefined_flags(const struct diff_case *c);
/* The host has it and the guest is not offered it: #UD on soft alone is right. */
bool diff_not_offered(const struct insn *i);
/* excuses.c: outcomes of insn[0] that may differ. */
bool diff_fault_excused(const struct diff_case *c, const struct diff_result *host, const struct diff_result *soft);
/* What it stored may differ. */
bool diff_memory_excused(const struct diff_case *c);
bool diff_is_area(const struct insn *i);
void diff_rules_init(void);
extern bool diff_host_amd;

/* native.c */
bool native_init(const uint8_t *image, const char **why);
/* Windows as memory of ours: the image of IMAGE_PAGES pages, writable; and the code. */
extern uint8_t *native_image, *native_code;
/* The vector is NATIVE_BY_TIMER if the timer came: try again, it can be chance. */
void native_case_run(const struct diff_case *c, struct diff_result *r);
#define NATIVE_BY_TIMER 1001
/* A signal (or an exception of the soft vCPU that ran into INT3) as the outcome of the instructions. */
void diff_settle(const struct diff_case *c, struct diff_result *r);
bool native_has_fsgsbase(void);

/* softside.c */
bool softside_init(const uint8_t *image, const char **why);
extern bool softside_translate; /* before softside_init(): translate everything */
extern uint8_t *soft_image;
/* The engine has a handler for the instruction. */
bool softside_knows(const struct insn *insn);
void softside_run(const struct diff_case *c, struct diff_result *r);
