/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random guest programs: blocks of code that branch, loop, fault, change rings
 * and rewrite themselves, over memory of every kind. A program is a function of
 * its number; it ends by itself mostly (fuel), else somebody must kick it.
 *
 *   prog_image.c  the machine around the code: tables, handlers, first state
 *   prog_insn.c   one instruction with operands that mostly work
 *   prog_gen.c    blocks and what leads from one to another
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "diff/gen.h"
#include "engine/soft/trans.h"

/* Physical memory, mapped at the same linear addresses; PROG_ALIAS above it once more; the whole again in the upper half. */
#define PROG_RAM 0x80000u
#define PROG_ALIAS 0x80000u
#define PROG_HIGH 0xffff800000000000ull
#define PROG_ROM 0xc0000u /* physical: a read-only slot of one page */
#define PROG_DEVICE 0x100000u /* physical */
enum {
	PROG_PML4 = 0x1000, PROG_PDPT = 0x2000, PROG_PD = 0x3000, PROG_PT = 0x4000,
	PROG_GDT = 0x5000, PROG_IDT = 0x6000, PROG_TSS = 0x7000, PROG_HANDLERS = 0x8000,
	PROG_VARS = 0x9000, /* for all rings */
	PROG_IST = 0xb000, PROG_LOG = 0xb000, PROG_LOG_END = 0xf000,
	PROG_CODE = 0x10000, PROG_CODE_END = 0x18000,
	PROG_DATA = 0x20000, PROG_DATA_PAGES = 16,
	PROG_USER_STACK = 0x30000, PROG_USER_STACK_END = 0x32000,
	PROG_KERNEL_STACK = 0x38000, PROG_KERNEL_STACK_END = 0x3a000,
};
/* In PROG_VARS. */
enum {
	VAR_FUEL = 0x9000, VAR_LOG = 0x9008, VAR_FLAGS_MASK = 0x9010, VAR_RECOVERY_AT = 0x9018, VAR_USER_RSP = 0x9020,
	VAR_COUNTERS = 0x9080, VAR_TARGETS = 0x9200, VAR_RECOVERY = 0x9800, /* 32 entries: RIP, CS and SS, RFLAGS, RSP */
};
enum { PROG_TARGETS = 64, PROG_RECOVERIES = 32, PROG_COUNTERS = 40 };
/* Interrupts for all rings. */
enum { PROG_INT_NOP = 0x80, PROG_INT_RING = 0x81, PROG_INT_END = 0x82 };
#define PROG_END_PORT 0xf4
enum { SEL_KERNEL = 0x08, SEL_KERNEL_DATA = 0x10, SEL_COMPAT = 0x23, SEL_USER_DATA = 0x2b, SEL_USER = 0x33 };

struct prog {
	struct rng rng;
	struct soft_engine *e;  /* binds instructions */
	uint8_t *image;         /* PROG_RAM bytes */
	struct cpu_state *state;
	bool exact;             /* faults show all flags */
	bool user;
	/* The generator's own */
	uint64_t at, limit;
	uint32_t pointers;      /* registers that point to data now */
	uint64_t patchable[64]; /* bytes that may be overwritten: immediates */
	unsigned npatchable;
};

/* Program `number` of `seed`: writes all of p->image and p->state. */
void prog_make(struct prog *p, uint64_t seed, uint64_t number);

/* prog_image.c */
void prog_image(struct prog *p);

/* prog_insn.c */
void prog_byte(struct prog *p, unsigned b);
void prog_bytes(struct prog *p, const void *bytes, unsigned n);
void prog_le(struct prog *p, uint64_t x, unsigned n);
/* Something from the whole instruction set that does not branch. */
void prog_insn(struct prog *p);
/* Flags made and read, with memory accesses between them. */
void prog_flags(struct prog *p);
/* MOV of an address of data into a register. Returns it. */
unsigned prog_pointer(struct prog *p);
uint64_t prog_address(struct prog *p);
