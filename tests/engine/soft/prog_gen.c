/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "prog.h"

#define BLOCKS_MAX 40u
#define FIXUPS 512u

struct fixup {
	uint64_t at;     /* of a rel32 */
	unsigned target; /* block */
	bool thunk;      /* to the block's entry that takes fuel */
};

struct gen {
	struct prog *p;
	uint64_t block[BLOCKS_MAX], thunk[BLOCKS_MAX];
	unsigned blocks, now;
	struct fixup fixup[FIXUPS];
	unsigned fixups;
	unsigned counters;
};

static void rel32(struct gen *g, unsigned target)
{
	if (g->fixups == FIXUPS)
		target = 0; /* to the next instruction */
	else
		g->fixup[g->fixups++] = (struct fixup){g->p->at, target, target <= g->now || chance(&g->p->rng, 30)};
	prog_le(g->p, 0, 4);
}

static unsigned any_block(struct gen *g)
{
	return below(&g->p->rng, g->blocks);
}

/* op m64 of an absolute address below 2 GiB: ModRM is /`ext`. */
static void absolute(struct prog *p, unsigned rex, unsigned op, unsigned ext, uint64_t at)
{
	if (rex)
		prog_byte(p, rex);
	prog_byte(p, op);
	prog_byte(p, ext << 3 | 4);
	prog_byte(p, 0x25);
	prog_le(p, at, 4);
}

/* ---- Gadgets -------------------------------------------------------------- */

/* A store into code: an immediate, now or at the next time around. */
static void patch(struct gen *g)
{
	struct prog *p = g->p;
	struct rng *r = &p->rng;
	uint64_t alias = chance(r, 30) ? PROG_ALIAS : 0, field, at;

	if (!p->exact)
		return; /* a store into its own block leaves flags that only the old code overwrites (docs/translator.md) */

	if (p->npatchable && chance(r, 50)) {
		absolute(p, 0, 0xc6, 0, p->patchable[below(r, p->npatchable)] + alias);
		prog_byte(p, (unsigned)rnd(r));
		return;
	}
	/* Of an instruction right behind, in this block or, after a jump, the next. */
	absolute(p, 0, 0xc6, 0, 0);
	field = p->at - 4;
	prog_byte(p, (unsigned)rnd(r));
	if (chance(r, 30))
		prog_flags(p);
	if (chance(r, 30)) {
		prog_byte(p, 0xeb);
		prog_byte(p, 0);
	}
	prog_byte(p, 0xb8 | (chance(r, 50) ? R_AX : R_DX));
	at = p->at + alias;
	memcpy(p->image + field, &at, 4);
	prog_le(p, rnd(r), 4);
}

/* Eight bytes of code become other ones of the same length. */
static void replace(struct gen *g)
{
	static const uint8_t forms[][8] = {
		{0x48, 0xff, 0xc0, 0x0f, 0x1f, 0x44, 0x00, 0x00}, /* inc rax; nop */
		{0x48, 0xff, 0xc8, 0x90, 0x90, 0x48, 0xff, 0xc2}, /* dec rax; nop; nop; inc rdx */
		{0xeb, 0x06, 0x0f, 0x0b, 0x0f, 0x0b, 0x0f, 0x0b}, /* jmp +6; ud2; ud2; ud2 */
		{0x48, 0x01, 0xd0, 0x48, 0x19, 0xca, 0x90, 0xf5}, /* add; sbb; nop; cmc */
		{0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00},
		{0xcc, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90}, /* int3 */
	};
	struct prog *p = g->p;
	struct rng *r = &p->rng;
	uint64_t x, at, field;

	if (!p->exact)
		return;
	while (p->at % 8 != 3)
		prog_byte(p, 0x90);
	prog_byte(p, 0x48); /* mov $x, %rcx */
	prog_byte(p, 0xb9);
	memcpy(&x, forms[below(r, 6)], 8);
	prog_le(p, x, 8);
	absolute(p, 0x48, 0x89, R_CX, 0);
	field = p->at - 4;
	while (p->at % 8)
		prog_byte(p, 0x90);
	at = p->at + (chance(r, 30) ? PROG_ALIAS : 0);
	memcpy(p->image + field, &at, 4);
	prog_bytes(p, forms[below(r, 6)], 8);
}

/* A loop of its own: a body, and a counter in memory. */
static void loop(struct gen *g)
{
	struct prog *p = g->p;
	struct rng *r = &p->rng;
	uint64_t counter, start;
	int32_t rel;

	if (g->counters == PROG_COUNTERS)
		return;
	counter = VAR_COUNTERS + 8 * g->counters++;
	absolute(p, 0, 0xc7, 0, counter); /* movl $n, counter */
	prog_le(p, below(r, 12), 4);
	start = p->at;
	p->pointers = 0;
	for (unsigned n = 1 + below(r, 5); n; n--)
		chance(r, 60) ? prog_insn(p) : prog_flags(p);
	if (chance(r, 20))
		patch(g);
	absolute(p, 0, 0xff, 1, counter); /* decl counter; jns */
	rel = (int32_t)(start - (p->at + 2));
	if (rel >= -128) {
		prog_byte(p, 0x79);
		prog_byte(p, (uint8_t)rel);
	} else {
		prog_byte(p, 0x0f);
		prog_byte(p, 0x89);
		prog_le(p, (uint32_t)(rel - 4), 4);
	}
}

/* A short way forward over a few instructions. */
static void skip(struct gen *g)
{
	struct prog *p = g->p;
	struct rng *r = &p->rng;
	uint64_t field;

	if (chance(r, 10))
		prog_byte(p, chance(r, 50) ? 0xe3 : 0xe0 + below(r, 3)); /* JRCXZ, LOOPcc */
	else
		prog_byte(p, 0x70 | below(r, 16));
	field = p->at;
	prog_byte(p, 0);
	for (unsigned n = 1 + below(r, 3); n; n--)
		chance(r, 50) ? prog_insn(p) : prog_flags(p);
	if (p->at - field - 1 < 128 && p->at < p->limit)
		p->image[field] = (uint8_t)(p->at - field - 1);
	p->pointers = 0;
}

static void ring(struct gen *g)
{
	struct prog *p = g->p;
	struct rng *r = &p->rng;
	bool user = chance(r, 50);

	switch (below(r, 4)) {
	case 0: prog_bytes(p, "\x0f\x05", 2); break; /* SYSCALL */
	case 1:
		prog_byte(p, 0xcd);
		prog_byte(p, chance(r, 50) ? PROG_INT_RING : PROG_INT_NOP);
		break;
	default: /* IRETQ, to any ring from ring 0 and to ring 3 from ring 3 */
		prog_byte(p, 0x6a);
		prog_byte(p, user ? SEL_USER_DATA : SEL_KERNEL_DATA);
		prog_byte(p, 0x68);
		prog_le(p, (user ? PROG_USER_STACK_END : PROG_KERNEL_STACK_END) - 8 * below(r, 300), 4);
		prog_byte(p, 0x68);
		prog_le(p, 2 | (rnd(r) & FLAGS_ARITH) | (chance(r, 5) ? FL_AC : 0) | (chance(r, 2) ? FL_TF : 0), 4);
		prog_byte(p, 0x6a);
		prog_byte(p, user ? SEL_USER : SEL_KERNEL);
		prog_byte(p, 0x68);
		prog_le(p, p->at + 4 + 2, 4);
		prog_bytes(p, "\x48\xcf", 2);
		break;
	}
	p->pointers = 0;
}

/* Ring 0's; #GP or #UD in ring 3. */
static void system_insn(struct gen *g)
{
	static const struct {
		uint8_t n, b[12];
	} plain[] = {
		{6, {0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8}}, /* mov %cr3, %rax; mov %rax, %cr3 */
		{3, {0x0f, 0x01, 0xf8}},                   /* swapgs */
		{1, {0xfa}}, {1, {0xfb}},                  /* cli, sti */
		{2, {0x0f, 0x06}},                         /* clts */
		{5, {0x31, 0xc9, 0x0f, 0x01, 0xd0}},       /* xgetbv */
		{7, {0x31, 0xc0, 0x31, 0xc9, 0x0f, 0xa2, 0x90}}, /* cpuid */
		{4, {0x8c, 0xd8, 0x8e, 0xd8}},             /* mov %ds, %eax; mov %eax, %ds */
		{4, {0x8c, 0xd0, 0x8e, 0xd0}},             /* and SS: a shadow */
		{8, {0x9c, 0x80, 0x34, 0x24, 0xd5, 0x9d, 0x0f, 0x92}}, /* pushf; xorb $0xd5, (%rsp); popf; setb .. */
		{5, {0xf3, 0x48, 0x0f, 0xae, 0xc0}},       /* rdfsbase %rax */
		{3, {0x0f, 0x20, 0xc0}},                   /* mov %cr0, %rax */
		{3, {0x0f, 0xae, 0xf0}},                   /* mfence */
		{4, {0x48, 0x0f, 0xc7, 0x0c}},             /* cmpxchg16b (%rdi,%rax,..): whatever */
	};
	struct prog *p = g->p;
	struct rng *r = &p->rng;
	unsigned n = below(r, sizeof(plain) / sizeof(plain[0]) + 3);
	unsigned page = PROG_DATA / 4096 + below(r, PROG_DATA_PAGES);

	p->pointers = 0;
	if (n < sizeof(plain) / sizeof(plain[0])) {
		prog_bytes(p, plain[n].b, plain[n].n);
		if (n == 9)
			prog_byte(p, 0xc0); /* the rest of setb %al */
		return;
	}
	/* Another page, other rights: at once with INVLPG, or who knows when. */
	absolute(p, 0, 0xc7, 0, PROG_PT + 8 * page);
	prog_le(p, (chance(r, 80) ? page : PROG_DATA / 4096 + below(r, PROG_DATA_PAGES)) * 4096 |
		   (chance(r, 80) ? 7 : below(r, 8)), 4);
	if (!p->exact) { /* NX stays */
		absolute(p, 0, 0xc7, 0, PROG_PT + 8 * page + 4);
		prog_le(p, 1u << 31, 4);
	}
	prog_bytes(p, "\x0f\x01\x3c\x25", 4); /* invlpg */
	prog_le(p, page * 4096, 4);
}

static void fault(struct gen *g)
{
	static const struct {
		uint8_t n, b[16];
	} bad[] = {
		{2, {0x0f, 0x0b}}, {1, {0xcc}}, {1, {0x06}}, {1, {0xf4 - 0xf4 + 0xf1}},
		{4, {0x31, 0xc9, 0xf7, 0xf1}},             /* div by 0 */
		{15, {0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90}},
		{16, {0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90}},
		{3, {0xf0, 0x89, 0xc0}},                   /* lock mov */
		{3, {0x0f, 0xff, 0xc0}},
		{2, {0xe6, 0x10}},                         /* out */
	};
	unsigned n = below(&g->p->rng, sizeof(bad) / sizeof(bad[0]));

	prog_bytes(g->p, bad[n].b, bad[n].n);
}

/* Take fuel without touching flags, then go there. */
static void take_fuel(struct prog *p, uint64_t to)
{
	absolute(p, 0x48, 0x87, R_CX, VAR_FUEL);             /* xchg %rcx, fuel */
	prog_bytes(p, "\x48\x8d\x49\xff\xe3\x0d", 6);         /* lea -1(%rcx), %rcx; jrcxz 1f */
	absolute(p, 0x48, 0x87, R_CX, VAR_FUEL);
	prog_byte(p, 0xe9);
	prog_le(p, (uint32_t)(to - (p->at + 4)), 4);
	prog_byte(p, 0xcd); /* 1: */
	prog_byte(p, PROG_INT_END);
}

/* ---- Blocks and their ends ------------------------------------------------ */

static void body(struct gen *g)
{
	struct rng *r = &g->p->rng;
	unsigned n = chance(r, 80) ? 1 + below(r, 8) : 1 + below(r, 30);

	while (n--) {
		unsigned pick = below(r, 1000);

		if (pick < 560)
			prog_insn(g->p);
		else if (pick < 830)
			prog_flags(g->p);
		else if (pick < 880)
			skip(g);
		else if (pick < 920)
			loop(g);
		else if (pick < 940)
			patch(g);
		else if (pick < 950)
			replace(g);
		else if (pick < 970)
			ring(g);
		else if (pick < 992)
			system_insn(g);
		else
			fault(g);
	}
}

static void to_register(struct gen *g, unsigned reg)
{
	struct prog *p = g->p;

	/* mov targets(,reg,8), reg with a reg of 0..63 */
	prog_byte(p, 0x40 | reg >> 3);
	prog_byte(p, 0xb8 | (reg & 7));
	prog_le(p, below(&p->rng, PROG_TARGETS), 4);
	prog_byte(p, 0x48 | (reg >> 3) * 6);
	prog_byte(p, 0x8b);
	prog_byte(p, (reg & 7) << 3 | 4);
	prog_byte(p, 3 << 6 | (reg & 7) << 3 | 5);
	prog_le(p, VAR_TARGETS, 4);
}

static void end_block(struct gen *g)
{
	struct prog *p = g->p;
	struct rng *r = &p->rng;
	unsigned pick = below(r, 100), reg = below(r, 2) ? below(r, 4) : 8 + below(r, 8);

	if (pick < 40) {
		prog_byte(p, 0x0f);
		prog_byte(p, 0x80 | below(r, 16));
		rel32(g, any_block(g));
	} else if (pick < 50) {
		prog_byte(p, 0xe9);
		rel32(g, any_block(g));
	} else if (pick < 62) {
		prog_byte(p, 0xe8);
		rel32(g, any_block(g));
	} else if (pick < 72) {
		prog_byte(p, 0xc3);
	} else if (pick < 73) {
		prog_byte(p, 0xc2);
		prog_le(p, 8 * below(r, 3), 2);
	} else if (pick < 83) { /* JMP, CALL of a register */
		to_register(g, reg);
		if (reg >= 8)
			prog_byte(p, 0x41);
		prog_byte(p, 0xff);
		prog_byte(p, (chance(r, 50) ? 0xe0 : 0xd0) | (reg & 7));
	} else if (pick < 90) { /* and of memory */
		absolute(p, 0, 0xff, chance(r, 50) ? 4 : 2, VAR_TARGETS + 8 * below(r, PROG_TARGETS));
	} else if (pick < 92) { /* into the middle of something */
		take_fuel(p, g->block[below(r, g->now + 1)] + below(r, 24));
	}
	p->pointers = 0;
}

static void thunk(struct gen *g, unsigned n)
{
	g->thunk[n] = g->p->at;
	take_fuel(g->p, g->block[n]);
}

static void resolve(struct gen *g)
{
	struct prog *p = g->p;
	struct rng *r = &p->rng;

	for (unsigned n = 0; n < g->fixups; n++) {
		struct fixup *f = &g->fixup[n];
		uint32_t rel = (uint32_t)((f->thunk ? g->thunk : g->block)[f->target] - (f->at + 4));

		memcpy(p->image + f->at, &rel, 4);
	}
	for (unsigned n = 0; n < PROG_TARGETS; n++) {
		uint64_t to = g->thunk[below(r, g->blocks)] + (chance(r, 5) ? PROG_ALIAS : 0);

		if (chance(r, 2))
			to ^= 1ull << 50; /* not canonical */
		memcpy(p->image + VAR_TARGETS + 8 * n, &to, 8);
	}
	for (unsigned n = 0; n < PROG_RECOVERIES; n++) {
		bool user = chance(r, 80) ? p->user : chance(r, 50);
		uint64_t entry[4] = {g->thunk[below(r, g->blocks)],
				     user ? SEL_USER | (uint64_t)SEL_USER_DATA << 32 : SEL_KERNEL | (uint64_t)SEL_KERNEL_DATA << 32,
				     2 | (rnd(r) & FLAGS_ARITH),
				     (user ? PROG_USER_STACK_END : PROG_KERNEL_STACK_END) - 0x400 + 8 * below(r, 120)};

		memcpy(p->image + VAR_RECOVERY + 32 * n, entry, 32);
	}
	for (uint64_t at = PROG_USER_STACK; at < PROG_USER_STACK_END; at += 8) {
		uint64_t to = g->thunk[below(r, g->blocks)];

		memcpy(p->image + at, &to, 8);
		memcpy(p->image + at + (PROG_KERNEL_STACK - PROG_USER_STACK), &to, 8);
	}
}

static void to_page_end(struct prog *p)
{
	uint64_t to = (p->at | 4095) - below(&p->rng, 40);

	if (to < p->at + 8 || to > p->limit - 8192)
		return;
	prog_byte(p, 0xe9);
	prog_le(p, (uint32_t)(to - (p->at + 4)), 4);
	p->at = to;
}

void prog_make(struct prog *p, uint64_t seed, uint64_t number)
{
	static struct gen g;
	struct rng *r = &p->rng;

	/* Twice through the mill: the streams of neighbours must not be one another's, shifted. */
	p->rng.s = number;
	p->rng.s = rnd(r) ^ seed * 0x2545f4914f6cdd1d;
	p->rng.s = rnd(r);
	p->exact = chance(r, 50);
	p->user = chance(r, 60);
	p->pointers = 0;
	p->npatchable = 0;
	prog_image(p);
	memset(&g, 0, sizeof(g));
	g.p = p;
	g.blocks = 6 + below(r, BLOCKS_MAX - 6);
	p->at = PROG_CODE;
	p->limit = PROG_CODE_END - BLOCKS_MAX * 40 - 64;
	for (g.now = 0; g.now < g.blocks; g.now++) {
		/* Some begin at the end of a page. */
		if (chance(r, 15))
			to_page_end(p);
		g.block[g.now] = p->at;
		body(&g);
		end_block(&g);
	}
	prog_byte(p, 0xcd);
	prog_byte(p, PROG_INT_END);
	if (p->at > p->limit - 2)
		p->at = p->limit;
	p->limit = PROG_CODE_END;
	for (unsigned n = 0; n < g.blocks; n++)
		thunk(&g, n);
	resolve(&g);
}
