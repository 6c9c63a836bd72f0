/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Integer handlers one by one: each instruction with random operands on the
 * handlers and natively on the host CPU (int_native.h), then registers, flags,
 * memory and faults compared. The MMU is a stub whose linear addresses are host
 * addresses; it answers as RAM in the TLB, as RAM that missed, or as device
 * memory, so that every form of a handler runs. KEEL_INT_CASES: cases a
 * template (default 1000). KEEL_INT_STRICT: compare undefined flags too.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine/soft/access.h"
#include "int_native.h"

/* ---- The machine around the handlers ------------------------------------- */

#define ARENA_SIZE 0x8000u /* RAM */
#define GUARD 0x20000u     /* on either side, mapped for nobody */

static struct soft_vcpu *cpu;
static uint8_t *arena;
static uint8_t page_flags[64];
static jmp_buf fault_jmp;
static struct {
	int vector;
	uint64_t error, cr2;
} fault;
static enum { RAM_HIT, RAM_MISS, DEVICE, BACKINGS } backing;
static int slow_locks;
static unsigned writes_reported;

_Noreturn void soft_raise(struct soft_vcpu *v, int vector, uint32_t error)
{
	fault.vector = vector;
	fault.error = error;
	slow_locks = 0; /* as the loop does */
	longjmp(fault_jmp, 1);
}

static bool in_arena(uint64_t linear)
{
	return linear - (uint64_t)arena < ARENA_SIZE;
}

static void check(struct soft_vcpu *v, uint64_t linear, unsigned size, bool stack, bool write)
{
	uint64_t last = linear + size - 1;

	if ((uint64_t)((int64_t)(linear << 16) >> 16) != linear || (uint64_t)((int64_t)(last << 16) >> 16) != last)
		soft_raise(v, stack ? EXC_SS : EXC_GP, 0);
	if (in_arena(linear) && in_arena(last))
		return;
	fault.cr2 = in_arena(linear) ? last & ~0xfffull : linear;
	soft_raise(v, EXC_PF, write ? 2 : 0);
}

void mmu_read(struct soft_vcpu *v, uint64_t linear, void *data, unsigned size, bool stack)
{
	check(v, linear, size, stack, false);
	memcpy(data, (void *)linear, size);
}

void mmu_write(struct soft_vcpu *v, uint64_t linear, const void *data, unsigned size, bool stack)
{
	check(v, linear, size, stack, true);
	memcpy((void *)linear, data, size);
	mmu_written(v, linear - (uint64_t)arena, size);
}

void mmu_probe_write(struct soft_vcpu *v, uint64_t linear, unsigned size, bool stack)
{
	check(v, linear, size, stack, true);
}

void mmu_probe_read(struct soft_vcpu *v, uint64_t linear, unsigned size, bool stack)
{
	check(v, linear, size, stack, false);
}

static void tlb_fill(struct soft_vcpu *v, uint64_t linear)
{
	struct tlb_entry *t = &v->tlb_now[(linear >> 12) & (TLB_SIZE - 1)];

	t->rtag = t->wtag = linear & ~0xfffull;
	t->addend = 0;
	t->gpa = (linear & ~0xfffull) - (uint64_t)arena;
}

void *mmu_ptr(struct soft_vcpu *v, uint64_t linear, unsigned size, enum mmu_access acc, bool stack, uint64_t *gpa)
{
	if (backing == DEVICE || (linear & 4095) + size > 4096)
		return NULL;
	check(v, linear, size, stack, acc == ACC_WRITE || acc == ACC_RMW);
	tlb_fill(v, linear);
	*gpa = linear - (uint64_t)arena;
	return (void *)linear;
}

uint64_t seg_linear_slow(struct soft_vcpu *v, unsigned seg, uint64_t off, unsigned size, enum mmu_access acc)
{
	const struct cpu_segment *s = &v->seg[seg];

	if (seg == SEG_CS && acc != ACC_READ)
		soft_raise(v, EXC_GP, 0);
	if (off > s->limit || s->limit - off < size - 1)
		soft_raise(v, seg == SEG_SS ? EXC_SS : EXC_GP, 0);
	return (uint32_t)(s->base + off);
}

void page_written(struct soft_engine *e, uint64_t gpa, unsigned size)
{
	assert_true(gpa < ARENA_SIZE && gpa + size <= ARENA_SIZE);
	writes_reported++;
}

void soft_lock_slow(struct soft_vcpu *v)
{
	assert_int_equal(slow_locks++, 0);
}

void soft_unlock_slow(struct soft_vcpu *v)
{
	assert_int_equal(--slow_locks, 0);
}

static void machine_reset(unsigned mode)
{
	struct cpu_segment flat = {.base = 0, .limit = UINT32_MAX, .attr = 0xc093};

	memset(cpu, 0, offsetof(struct soft_vcpu, tlb));
	cpu->mode = mode;
	cpu->stack_size = mode == MODE_64 ? 8 : mode == MODE_32 ? 4 : 2;
	cpu->cr0 = 1;
	cpu->cpl = 3;
	cpu->tlb_now = cpu->tlb[0];
	cpu->page_flags = page_flags;
	for (unsigned k = 0; k < SEG_COUNT; k++)
		cpu->seg[k] = flat;
	cpu->seg_flat = 0x3f & ~(1 << SEG_CS);
	for (unsigned k = 0; k < TLB_SIZE; k++)
		cpu->tlb_now[k].rtag = cpu->tlb_now[k].wtag = TLB_NONE;
	if (backing == RAM_HIT) {
		for (unsigned at = 0; at < ARENA_SIZE; at += 4096)
			tlb_fill(cpu, (uint64_t)arena + at);
	}
}

static int setup(void **state)
{
	native_init();
	cpu = aligned_alloc(64, (sizeof(*cpu) + 63) & ~63ul);
	/* Low, so that 32-bit addresses reach it; around it is nobody's. */
	arena = mmap(NULL, ARENA_SIZE + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	assert_true(cpu && arena != MAP_FAILED);
	arena += GUARD;
	mprotect(arena, ARENA_SIZE, PROT_READ | PROT_WRITE);
	(void)state;
	return 0;
}

/* ---- Random states ------------------------------------------------------- */

static uint64_t seed = 0x9e3779b97f4a7c15;
static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1d;
}

static uint64_t rnd_value(void)
{
	static const uint64_t special[] = {0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, INT32_MAX, 0x80000000, UINT32_MAX,
					   INT64_MAX, 1ull << 63, UINT64_MAX, 9, 10, 0x99, 31, 32, 63, 64};

	switch (rnd() % 4) {
	case 0: return special[rnd() % (sizeof(special) / sizeof(*special))];
	case 1: return rnd() % 100;
	case 2: return rnd() & UINT32_MAX;
	default: return rnd();
	}
}

/* ---- What is run --------------------------------------------------------- */

#define UND_LOGIC FL_AF
#define UND_SHIFT (FL_AF | FL_OF | FL_CF) /* OF and CF only for some counts */
#define UND_MUL (FL_SF | FL_ZF | FL_AF | FL_PF)
#define UND_BT (FL_OF | FL_SF | FL_AF | FL_PF)
#define UND_SCAN (FL_OF | FL_SF | FL_AF | FL_PF | FL_CF)

enum { PLAIN, STRING = 1, STACK = 2, BITOFF = 4, VEX = 8, NO_PREFIX = 16, DIVIDE = 32, CASE_C7 = 64, BY_BX = 128,
       REG_FORM = 256, MEM_FORM = 1024, TORN = 512 /* the host changes registers before it faults */ };
struct template {
	const char *name;
	const char *opcode;  /* hex; for VEX: map, pp, opcode */
	int8_t digit;        /* ModRM.reg, or -1 */
	uint32_t undefined;
	unsigned flags;
};

#define ALU_TEMPLATES(n, base, und) \
	{n " 0", base "0", -1, und, 0}, {n " 1", base "1", -1, und, 0}, {n " 2", base "2", -1, und, 0}, \
	{n " 3", base "3", -1, und, 0}, {n " 4", base "4", -1, und, 0}, {n " 5", base "5", -1, und, 0}
#define ALU_TEMPLATES_HIGH(n, base, und) \
	{n " 8", base "8", -1, und, 0}, {n " 9", base "9", -1, und, 0}, {n " a", base "a", -1, und, 0}, \
	{n " b", base "b", -1, und, 0}, {n " c", base "c", -1, und, 0}, {n " d", base "d", -1, und, 0}

static const struct template templates[] = {
	ALU_TEMPLATES("add", "0", 0), ALU_TEMPLATES_HIGH("or", "0", UND_LOGIC),
	ALU_TEMPLATES("adc", "1", 0), ALU_TEMPLATES_HIGH("sbb", "1", 0),
	ALU_TEMPLATES("and", "2", UND_LOGIC), ALU_TEMPLATES_HIGH("sub", "2", 0),
	ALU_TEMPLATES("xor", "3", UND_LOGIC), ALU_TEMPLATES_HIGH("cmp", "3", 0),
	{"grp1 80", "80", -1, UND_LOGIC, 0}, {"grp1 81", "81", -1, UND_LOGIC, 0}, {"grp1 83", "83", -1, UND_LOGIC, 0},
	{"test", "84", -1, UND_LOGIC, 0}, {"test", "85", -1, UND_LOGIC, 0}, {"test", "a8", -1, UND_LOGIC, 0},
	{"test", "a9", -1, UND_LOGIC, 0},
	{"test", "f6", 0, UND_LOGIC, 0}, {"test", "f7", 1, UND_LOGIC, 0}, {"not", "f6", 2, 0, 0}, {"not", "f7", 2, 0, 0},
	{"neg", "f6", 3, 0, 0}, {"neg", "f7", 3, 0, 0}, {"mul", "f6", 4, UND_MUL, 0}, {"mul", "f7", 4, UND_MUL, 0},
	{"imul", "f6", 5, UND_MUL, 0}, {"imul", "f7", 5, UND_MUL, 0},
	{"div", "f6", 6, FLAGS_ARITH, DIVIDE}, {"div", "f7", 6, FLAGS_ARITH, DIVIDE},
	{"idiv", "f6", 7, FLAGS_ARITH, DIVIDE}, {"idiv", "f7", 7, FLAGS_ARITH, DIVIDE},
	{"imul", "0faf", -1, UND_MUL, 0}, {"imul", "69", -1, UND_MUL, 0}, {"imul", "6b", -1, UND_MUL, 0},
	{"inc", "fe", 0, 0, 0}, {"inc", "ff", 0, 0, 0}, {"dec", "fe", 1, 0, 0}, {"dec", "ff", 1, 0, 0},
	{"shift", "c0", -1, UND_SHIFT, 0}, {"shift", "c1", -1, UND_SHIFT, 0}, {"shift", "d0", -1, UND_SHIFT, 0},
	{"shift", "d1", -1, UND_SHIFT, 0}, {"shift", "d2", -1, UND_SHIFT, 0}, {"shift", "d3", -1, UND_SHIFT, 0},
	{"shld", "0fa4", -1, FLAGS_ARITH, 0}, {"shld", "0fa5", -1, FLAGS_ARITH, 0},
	{"shrd", "0fac", -1, FLAGS_ARITH, 0}, {"shrd", "0fad", -1, FLAGS_ARITH, 0},
	{"mov", "88", -1, 0, 0}, {"mov", "89", -1, 0, 0}, {"mov", "8a", -1, 0, 0}, {"mov", "8b", -1, 0, 0},
	{"mov", "b3", -1, 0, 0}, {"mov", "b4", -1, 0, 0}, {"mov", "bf", -1, 0, 0},
	{"mov", "c6", 0, 0, 0}, {"mov", "c7", 0, 0, 0}, {"mov c6/1", "c6", 1, 0, 0},
	{"movzx", "0fb6", -1, 0, 0}, {"movzx", "0fb7", -1, 0, 0}, {"movsx", "0fbe", -1, 0, 0}, {"movsx", "0fbf", -1, 0, 0},
	{"movsxd", "63", -1, 0, 0}, {"lea", "8d", -1, 0, 0}, {"movbe", "0f38f0", -1, 0, 0}, {"movbe", "0f38f1", -1, 0, 0},
	{"movnti", "0fc3", -1, 0, 0}, {"xlat", "d7", -1, 0, BY_BX},
	{"bswap", "0fc8", -1, 0, 0}, {"bswap", "0fcd", -1, 0, 0}, {"cbw", "98", -1, 0, 0}, {"cwd", "99", -1, 0, 0},
	{"cmc", "f5", -1, 0, 0}, {"clc", "f8", -1, 0, 0}, {"stc", "f9", -1, 0, 0}, {"cld", "fc", -1, 0, 0},
	{"std", "fd", -1, 0, 0}, {"sahf", "9e", -1, 0, 0}, {"lahf", "9f", -1, 0, 0},
	{"xchg", "86", -1, 0, 0}, {"xchg", "87", -1, 0, 0}, {"xchg", "90", -1, 0, 0}, {"xchg", "92", -1, 0, 0},
	{"xadd", "0fc0", -1, 0, 0}, {"xadd", "0fc1", -1, 0, 0}, {"cmpxchg", "0fb0", -1, 0, 0}, {"cmpxchg", "0fb1", -1, 0, 0},
	{"cmpxchg8b", "0fc7", 1, 0, CASE_C7}, {"cmpxchg8b", "0fc7", 1, 0, CASE_C7},
	{"bt", "0fa3", -1, UND_BT, BITOFF}, {"bts", "0fab", -1, UND_BT, BITOFF}, {"btr", "0fb3", -1, UND_BT, BITOFF},
	{"btc", "0fbb", -1, UND_BT, BITOFF}, {"bt imm", "0fba", -1, UND_BT, 0},
	{"bsf", "0fbc", -1, UND_SCAN, 0}, {"bsr", "0fbd", -1, UND_SCAN, 0},
	{"tzcnt", "f30fbc", -1, UND_SCAN & ~FL_CF, 0}, {"lzcnt", "f30fbd", -1, UND_SCAN & ~FL_CF, 0},
	{"popcnt", "f30fb8", -1, 0, 0}, {"crc32", "f20f38f0", -1, 0, 0}, {"crc32", "f20f38f1", -1, 0, 0},
	{"adcx", "660f38f6", -1, 0, NO_PREFIX}, {"adox", "f30f38f6", -1, 0, NO_PREFIX},
	{"andn", "020f2", -1, FL_AF | FL_PF, VEX}, {"bls", "020f3", -1, FL_AF | FL_PF, VEX},
	{"bzhi", "020f5", -1, FL_AF | FL_PF, VEX}, {"pext", "022f5", -1, 0, VEX}, {"pdep", "023f5", -1, 0, VEX},
	{"mulx", "023f6", -1, 0, VEX}, {"bextr", "020f7", -1, FL_AF | FL_SF | FL_PF, VEX}, {"shlx", "021f7", -1, 0, VEX},
	{"sarx", "022f7", -1, 0, VEX}, {"shrx", "023f7", -1, 0, VEX}, {"rorx", "033f0", -1, 0, VEX},
	{"nop", "0f1f", -1, 0, 0}, {"hint", "0f18", -1, 0, 0}, {"endbr", "f30f1e", -1, 0, 0}, {"prefetch", "0f0d", -1, 0, 0},
	{"pause", "f390", -1, 0, 0}, {"lfence", "0fae", 5, 0, NO_PREFIX | REG_FORM}, {"clflush", "0fae", 7, 0, 0},
	{"clwb", "660fae", 6, 0, NO_PREFIX}, {"ud2", "0f0b", -1, 0, 0}, {"ud1", "0fb9", -1, 0, 0},
	{"movs", "a4", -1, 0, STRING}, {"movs", "a5", -1, 0, STRING}, {"cmps", "a6", -1, 0, STRING}, {"cmps", "a7", -1, 0, STRING},
	{"stos", "aa", -1, 0, STRING}, {"stos", "ab", -1, 0, STRING}, {"lods", "ac", -1, 0, STRING}, {"lods", "ad", -1, 0, STRING},
	{"scas", "ae", -1, 0, STRING}, {"scas", "af", -1, 0, STRING},
	{"rep movs", "f3a4", -1, 0, STRING}, {"rep movs", "f3a5", -1, 0, STRING}, {"repe cmps", "f3a6", -1, 0, STRING},
	{"repe cmps", "f3a7", -1, 0, STRING}, {"repne cmps", "f2a6", -1, 0, STRING}, {"rep stos", "f3aa", -1, 0, STRING},
	{"rep stos", "f3ab", -1, 0, STRING}, {"rep lods", "f3ad", -1, 0, STRING}, {"repne scas", "f2ae", -1, 0, STRING},
	{"repe scas", "f3af", -1, 0, STRING},
	{"push", "50", -1, 0, STACK}, {"push", "54", -1, 0, STACK}, {"pop", "58", -1, 0, STACK}, {"pop", "5c", -1, 0, STACK},
	{"push", "68", -1, 0, STACK}, {"push", "6a", -1, 0, STACK}, {"push", "ff", 6, 0, STACK}, {"pop", "8f", 0, 0, STACK},
	{"enter", "c80800", -1, 0, STACK}, {"enter", "c8f00f", -1, 0, STACK}, {"leave", "c9", -1, 0, STACK},
#define CC_TEMPLATES(n) \
	{"cmov", "0f4" n, -1, 0, 0}, {"setcc", "0f9" n, -1, 0, 0}
	CC_TEMPLATES("0"), CC_TEMPLATES("1"), CC_TEMPLATES("2"), CC_TEMPLATES("3"), CC_TEMPLATES("4"), CC_TEMPLATES("5"),
	CC_TEMPLATES("6"), CC_TEMPLATES("7"), CC_TEMPLATES("8"), CC_TEMPLATES("9"), CC_TEMPLATES("a"), CC_TEMPLATES("b"),
	CC_TEMPLATES("c"), CC_TEMPLATES("d"), CC_TEMPLATES("e"), CC_TEMPLATES("f"),
};

/* In compatibility mode on the host, handlers in MODE_32: what 64-bit mode can't show. */
static const struct template templates32[] = {
	{"daa", "27", -1, FL_OF, 0}, {"das", "2f", -1, FL_OF, 0}, {"aaa", "37", -1, FL_OF | FL_SF | FL_ZF | FL_PF, 0},
	{"aas", "3f", -1, FL_OF | FL_SF | FL_ZF | FL_PF, 0}, {"aam", "d4", -1, FL_OF | FL_AF | FL_CF, 0},
	{"aad", "d5", -1, FL_OF | FL_AF | FL_CF, 0}, {"salc", "d6", -1, 0, 0},
	{"inc", "41", -1, 0, 0}, {"dec", "4b", -1, 0, 0}, {"pusha", "60", -1, 0, STACK}, {"popa", "61", -1, 0, STACK | TORN},
	{"bound", "62", -1, 0, MEM_FORM}, {"alu 82", "82", -1, UND_LOGIC, 0},
	{"add", "01", -1, 0, 0}, {"add", "03", -1, 0, 0}, {"add", "83", -1, UND_LOGIC, 0}, {"mov", "8b", -1, 0, 0},
	{"mov", "88", -1, 0, 0}, {"lea", "8d", -1, 0, 0}, {"cmov", "0f44", -1, 0, 0}, {"shift", "d3", -1, UND_SHIFT, 0},
	{"bts", "0fab", -1, UND_BT, BITOFF}, {"xadd", "0fc1", -1, 0, 0}, {"cmpxchg", "0fb1", -1, 0, 0},
	{"push", "50", -1, 0, STACK}, {"pop", "58", -1, 0, STACK}, {"push", "ff", 6, 0, STACK}, {"pop", "8f", 0, 0, STACK},
	{"enter", "c80800", -1, 0, STACK}, {"leave", "c9", -1, 0, STACK}, {"rep movs", "f3a4", -1, 0, STRING},
	{"rep stos", "f3ab", -1, 0, STRING}, {"repe cmps", "f3a6", -1, 0, STRING}, {"lods", "ad", -1, 0, STRING},
	{"cmpxchg8b", "0fc7", 1, 0, CASE_C7}, {"andn", "020f2", -1, FL_AF | FL_PF, VEX}, {"mulx", "023f6", -1, 0, VEX},
	{"shlx", "021f7", -1, 0, VEX}, {"div", "f7", 6, FLAGS_ARITH, DIVIDE}, {"xlat", "d7", -1, 0, BY_BX},
};

static unsigned unhex(const char *s)
{
	unsigned value;

	sscanf((char[]){s[0], s[1], 0}, "%x", &value);
	return value;
}

/* Prefixes, opcode, then random bytes: ModRM, SIB, displacement, immediate as they come. */
static unsigned make_bytes(const struct template *t, unsigned mode, uint8_t *b)
{
	static const uint8_t segments[] = {0x26, 0x2e, 0x36, 0x3e};
	unsigned n = 0;
	const char *op = t->opcode;

	if (t->flags & VEX) {
		if (rnd() % 8 == 0)
			b[n++] = 0x67;
		b[n++] = 0xc4;
		b[n++] = (mode == MODE_64 ? (rnd() & 0xe0) : 0xe0) | (op[1] - '0');
		b[n++] = (rnd() & 0xf8) | (op[2] - '0');
		if (rnd() % 16)
			b[n - 1] &= ~4;
		if (op[1] == '3' && rnd() % 16)
			b[n - 1] |= 0x78;
		b[n++] = unhex(op + 3);
	} else {
		if (!(t->flags & NO_PREFIX)) {
			if (rnd() % 4 == 0)
				b[n++] = 0x66;
			if (rnd() % 8 == 0)
				b[n++] = 0x67;
			if (rnd() % 12 == 0)
				b[n++] = segments[rnd() % 4];
			if (rnd() % 8 == 0)
				b[n++] = 0xf0;
		}
		while (!strncmp(op, "f2", 2) || (!strncmp(op, "f3", 2) && op[2]) || !strncmp(op, "660", 3)) {
			b[n++] = unhex(op);
			op += 2;
		}
		if (mode == MODE_64 && rnd() % 4)
			b[n++] = 0x40 | (rnd() & 15);
		for (; *op; op += 2)
			b[n++] = unhex(op);
	}
	for (unsigned k = 0; k < 12; k++)
		b[n + k] = rnd();
	if (t->digit >= 0)
		b[n] = (b[n] & 0xc7) | t->digit << 3;
	if (t->flags & REG_FORM)
		b[n] |= 0xc0;
	if (t->flags & MEM_FORM && b[n] >= 0xc0)
		b[n] -= 0x40;
	return n + 12;
}

/* ---- One case ------------------------------------------------------------ */

static uint8_t before[ARENA_SIZE], after[ARENA_SIZE];

static uint64_t operand_address(const struct insn *i, const uint64_t *gpr, uint64_t next)
{
	uint64_t base = i->base == REG_RIP ? next : i->base == REG_ZERO ? 0 : gpr[i->base];
	uint64_t a = base + ((i->index == REG_ZERO ? 0 : gpr[i->index]) << i->scale) + (int64_t)i->disp;

	return i->addrsize == 8 ? a : i->addrsize == 4 ? (uint32_t)a : (uint16_t)a;
}

/* An address in the arena, often at the end of a page or of everything. */
static uint64_t rnd_target(void)
{
	unsigned r = rnd() % 8;

	if (r == 0)
		return (uint64_t)arena + ARENA_SIZE - rnd() % 16;
	if (r == 1)
		return (uint64_t)arena + (1 + rnd() % 7) * 4096 - rnd() % 16;
	return (uint64_t)arena + 512 + rnd() % (ARENA_SIZE - 1024);
}

/* A dividend whose quotient is at the edge of what fits. */
static void edge_dividend(const struct insn *i, uint64_t *gpr)
{
	unsigned bits = i->opcode & 1 ? i->opsize * 8 : 8;
	bool is_signed = i->modrm & 8;
	__int128 divisor, edge;
	unsigned __int128 n;

	if (i->is_mem || i->rm == R_AX || i->rm == R_DX || (bits == 8 && i->rm >= 4))
		return;
	divisor = (unsigned __int128)gpr[i->rm] << (128 - bits);
	divisor = is_signed ? divisor >> (128 - bits) : (__int128)((unsigned __int128)divisor >> (128 - bits));
	edge = (__int128)1 << (is_signed ? bits - 1 : bits);
	if (is_signed && rnd() % 2)
		edge = -edge;
	n = (unsigned __int128)(edge + (int)(rnd() % 3) - 1) * (unsigned __int128)divisor + rnd() % 3 - 1;
	if (bits == 8) {
		gpr[R_AX] = (gpr[R_AX] & ~0xffffull) | (uint16_t)n;
	} else {
		gpr[R_AX] = (uint64_t)n;
		gpr[R_DX] = (uint64_t)(n >> bits);
	}
}

/* Registers of the case, such that memory operands lie in the arena; false if that can't be had. */
static bool make_state(const struct template *t, struct insn *i, unsigned mode, uint64_t *gpr, uint64_t next)
{
	bool wide = mode == MODE_64;

	for (int k = 0; k < 16; k++)
		gpr[k] = rnd_value();
	if (t->flags & STRING) {
		gpr[R_SI] = rnd_target();
		gpr[R_DI] = rnd() % 3 ? rnd_target() : gpr[R_SI] + rnd() % 64 - 32;
		gpr[R_CX] = rnd() % 4 ? rnd() % 40 : rnd() % 6000;
		if (i->addrsize == 2)
			return false;
	}
	if (t->flags & BY_BX) {
		gpr[R_BX] = rnd_target();
		if (i->addrsize == 2)
			return false;
	}
	if (t->flags & STACK) {
		gpr[R_SP] = rnd_target();
		gpr[R_BP] = rnd_target();
	}
	if (t->flags & DIVIDE && rnd() % 4) {
		gpr[R_DX] = rnd() % 3 ? 0 : -(rnd() % 2);
		if (rnd() % 2)
			gpr[R_AX] &= 0xfff;
	}
	if (t->flags & DIVIDE && rnd() % 2)
		edge_dividend(i, gpr);
	if (t->flags & BITOFF && i->is_mem)
		gpr[i->reg] = rnd() % 4000 - 2000 + (rnd() & 0xffffffff00000000 & (i->opsize == 8 ? 0 : -1ull));
	if (!i->is_mem)
		return true;
	if (i->addrsize == 2)
		return false;
	if (i->index != REG_ZERO && i->index != R_SP)
		gpr[i->index] = rnd() % 256;
	if (i->base != REG_ZERO && i->base != REG_RIP && i->base != i->index) {
		uint64_t target = rnd_target();

		if (t->flags & CASE_C7 && rnd() % 16)
			target &= rnd() % 4 ? ~15ull : ~7ull;
		gpr[i->base] = target - (operand_address(i, gpr, next) - gpr[i->base]);
		if (i->base != R_SP && rnd() % 32 == 0 && wide)
			gpr[i->base] = rnd() | 1ull << 62; /* mostly non-canonical */
		if (!wide)
			gpr[i->base] = (uint32_t)gpr[i->base];
	}
	return true;
}

static void fail_case(const struct template *t, const struct insn *i, const char *what, uint64_t got, uint64_t want)
{
	char text[64] = "";

	for (unsigned k = 0; k < i->len; k++)
		sprintf(text + 3 * k, "%02x ", i->bytes[k]);
	fail_msg("%s: %s(backing %d): %s is %llx, natively %llx", t->name, text, backing, what, (unsigned long long)got,
		 (unsigned long long)want);
}

/* Run `i` to its end on the machine as set up; the result is in cpu and fault. */
static void emulate(struct insn *i)
{
	/* Requests are there all the time, or never: each step of a REP must be good for itself. */
	uint32_t nudge = rnd() % 2;

	cpu->rip = (uint64_t)native.insn;
	fault.vector = -1;
	if (!int_bind(NULL, i)) {
		fault.vector = EXC_UD;
		return;
	}
	if (setjmp(fault_jmp))
		return;
	do {
		cpu->next_rip = cpu->rip + i->len;
		atomic_store(&cpu->request, nudge);
		i->fn(cpu, i);
	} while (cpu->next_rip == cpu->rip);
	assert_int_equal(slow_locks, 0);
}

static unsigned cases_run, faults_seen;

static void run_case(const struct template *t, unsigned mode, bool strict)
{
	uint8_t b[32];
	unsigned n;
	struct insn i;
	struct native_regs *in = &native.data->in, *out = &native.data->out;
	enum decode_result r;
	uint64_t mask = mode == MODE_64 ? UINT64_MAX : UINT32_MAX, address, undefined = strict ? 0 : t->undefined;
	unsigned regs = mode == MODE_64 ? 16 : 8;

	n = make_bytes(t, mode, b);
	r = insn_decode(&i, b, n, mode | insn_decode_flags());
	if (r == DECODE_TOO_LONG)
		return;
	assert_int_equal(r, DECODE_OK);
	mode == MODE_64 ? native_build(b, i.len) : native_build32(b, i.len);
	if (!make_state(t, &i, mode, in->gpr, (uint64_t)native.insn + i.len))
		return;
	if (t->flags & STACK && in->gpr[R_SP] - ((uint64_t)arena - GUARD / 2) > ARENA_SIZE + GUARD)
		return; /* its own operand moved it away */
	if (i.is_mem && strcmp(t->name, "lea")) {
		/* Outside the arena the host may have something mapped: only addresses that surely fault. */
		address = operand_address(&i, in->gpr, (uint64_t)native.insn + i.len);
		if (!(address - ((uint64_t)arena + 512) < ARENA_SIZE - 512) &&
		    (uint64_t)((int64_t)(address << 16) >> 16) == address)
			return;
	}
	in->rflags = 0x202 | (rnd() & (FLAGS_ARITH | (t->flags & STRING && rnd() % 4 ? 0 : FL_DF)));
	backing = rnd() % BACKINGS;
	if (t->flags & STRING) {
		/* Mostly equal, so that comparisons run on. */
		memset(arena, 0x20, ARENA_SIZE);
		for (unsigned k = rnd() % 64; k; k--)
			arena[rnd() % ARENA_SIZE] = rnd();
	} else {
		for (unsigned k = 0; k < 512; k++)
			*(uint64_t *)(arena + rnd() % (ARENA_SIZE / 8) * 8) = rnd_value();
	}
	if (t->flags & CASE_C7 && rnd() % 2 && i.base < 16) {
		/* Make the comparison succeed now and then. */
		address = operand_address(&i, in->gpr, 0);
		if (address - (uint64_t)arena < ARENA_SIZE - 16 && i.base != R_AX && i.base != R_DX && i.index != R_AX &&
		    i.index != R_DX) {
			if (i.rex & 8) {
				memcpy(&in->gpr[R_AX], (void *)address, 8);
				memcpy(&in->gpr[R_DX], (void *)(address + 8), 8);
			} else {
				memcpy(&in->gpr[R_AX], (void *)address, 4);
				memcpy(&in->gpr[R_DX], (void *)(address + 4), 4);
			}
		}
	}
	memcpy(before, arena, ARENA_SIZE);

	machine_reset(mode);
	memset(page_flags, rnd() % 2 ? PAGE_HAS_CODE : 0, sizeof(page_flags));
	for (unsigned k = 0; k < 16; k++)
		cpu->gpr[k] = k < regs ? in->gpr[k] & mask : 0;
	cpu->rflags = in->rflags;
	emulate(&i);
	memcpy(after, arena, ARENA_SIZE);
	memcpy(arena, before, ARENA_SIZE);

	native_run();
	cases_run++;
	faults_seen += out->vector >= 0;
	if (fault.vector != out->vector)
		fail_case(t, &i, "vector", fault.vector, out->vector);
	if (fault.vector == EXC_PF && fault.cr2 != out->cr2)
		fail_case(t, &i, "CR2", fault.cr2, out->cr2);
	if (fault.vector == EXC_PF && (fault.error & 2) != (out->error & 2))
		fail_case(t, &i, "#PF error code's W", fault.error, out->error);
	for (unsigned k = 0; k < regs && !(fault.vector >= 0 && t->flags & TORN); k++) {
		char name[8];

		sprintf(name, "r%u", k);
		if ((cpu->gpr[k] ^ out->gpr[k]) & mask)
			fail_case(t, &i, name, cpu->gpr[k], out->gpr[k]);
	}
	undefined = ~undefined & (FLAGS_ARITH | FL_DF);
	if ((cpu->rflags ^ out->rflags) & undefined)
		fail_case(t, &i, "RFLAGS", cpu->rflags & undefined, out->rflags & undefined);
	/* Where a fault hits in the middle of ENTER or PUSHA, what is below the stack pointer differs between CPUs. */
	if (!(fault.vector >= 0 && t->flags & STACK) && memcmp(after, arena, ARENA_SIZE)) {
		for (unsigned k = 0; k < ARENA_SIZE; k++) {
			if (after[k] != arena[k])
				fail_case(t, &i, "memory", after[k], arena[k]);
		}
	}
	memcpy(arena, before, ARENA_SIZE);
}

static void run_templates(const struct template *t, size_t n, unsigned mode)
{
	const char *cases = getenv("KEEL_INT_CASES");
	unsigned count = cases ? (unsigned)atoi(cases) : 1000;
	bool strict = getenv("KEEL_INT_STRICT");

	native_catch();
	cases_run = faults_seen = 0;
	for (size_t k = 0; k < n; k++) {
		for (unsigned c = 0; c < count; c++)
			run_case(&t[k], mode, strict);
	}
	print_message("%u cases against the host, %u of them faults\n", cases_run, faults_seen);
	assert_true(cases_run > count * n / 2);
	assert_true(faults_seen > cases_run / 100);
}

static void test_native_64(void **state)
{
	run_templates(templates, sizeof(templates) / sizeof(*templates), MODE_64);
	(void)state;
}

static void test_native_32(void **state)
{
	struct native_regs *out = &native.data->out;

	native_catch();
	/* Is there a 32-bit code segment at all? */
	native_build32((const uint8_t[]){0xb8, 0x78, 0x56, 0x34, 0x12}, 5);
	memset(&native.data->in, 0, sizeof(native.data->in));
	native.data->in.rflags = 0x202;
	native.data->in.gpr[R_SP] = (uint64_t)arena + 4096;
	native_run();
	if (out->vector >= 0 || (uint32_t)out->gpr[R_AX] != 0x12345678)
		skip();
	run_templates(templates32, sizeof(templates32) / sizeof(*templates32), MODE_32);
	(void)state;
}

/* ---- Directed: what can't run natively here ------------------------------ */

/* Run one instruction at `rip` over the machine as set up; the vector or -1. */
static int step(unsigned mode, const void *bytes, unsigned n, struct insn *i)
{
	assert_int_equal(insn_decode(i, bytes, n, mode), DECODE_OK);
	fault.vector = -1;
	if (!int_bind(NULL, i))
		return EXC_UD;
	cpu->next_rip = cpu->rip + i->len;
	if (!setjmp(fault_jmp))
		i->fn(cpu, i);
	return fault.vector;
}
#define STEP(mode, ...) step(mode, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), &insn)

static void test_branches(void **state)
{
	struct insn insn;
	uint64_t sp;

	backing = RAM_HIT;
	machine_reset(MODE_64);
	/* Conditions against SETcc, which was compared with the host. */
	for (unsigned cc = 0; cc < 16; cc++) {
		for (unsigned f = 0; f < 0x1000; f = (f | ~FLAGS_ARITH) + 1) {
			cpu->rflags = 2 | (f & FLAGS_ARITH);
			cpu->rip = 0x1000;
			STEP(MODE_64, 0x0f, 0x90 | cc, 0xc0);
			STEP(MODE_64, 0x70 | cc, 0xf0);
			assert_int_equal(cpu->next_rip, cpu->gpr[R_AX] & 1 ? 0xff2 : 0x1002);
			assert_int_equal(insn.aux & 0xe0, INSN_ENDS_BLOCK | INSN_DIRECT_BRANCH | INSN_COND);
			cpu->next_rip = 0;
			STEP(MODE_64, 0x0f, 0x80 | cc, 0, 1, 0, 0);
			assert_int_equal(cpu->next_rip, cpu->gpr[R_AX] & 1 ? 0x1106 : 0x1006);
		}
	}
	/* A target in the canonical hole faults, in 64-bit mode only, and changes nothing. */
	cpu->rip = 0x7ffffffffff0;
	cpu->gpr[R_SP] = sp = (uint64_t)arena + 4096;
	assert_int_equal(STEP(MODE_64, 0xeb, 0x7f), EXC_GP);
	assert_int_equal(STEP(MODE_64, 0xe8, 0, 1, 0, 0), EXC_GP);
	cpu->gpr[R_AX] = 1ull << 63;
	assert_int_equal(STEP(MODE_64, 0xff, 0xd0), EXC_GP);
	assert_int_equal(STEP(MODE_64, 0xff, 0xe0), EXC_GP);
	memcpy((void *)sp, &cpu->gpr[R_AX], 8);
	assert_int_equal(STEP(MODE_64, 0xc3), EXC_GP);
	assert_int_equal(cpu->gpr[R_SP], sp);
	/* CALL, RET n; indirect through memory based on rSP. */
	cpu->rip = 0x400000;
	assert_int_equal(STEP(MODE_64, 0xe8, 0xfb, 0xff, 0xff, 0xff), -1);
	assert_int_equal(insn.aux & 0xe0, INSN_ENDS_BLOCK | INSN_DIRECT_BRANCH);
	assert_int_equal(cpu->next_rip, 0x400000);
	assert_int_equal(cpu->gpr[R_SP], sp - 8);
	assert_int_equal(*(uint64_t *)(sp - 8), 0x400005);
	assert_int_equal(STEP(MODE_64, 0xc2, 0x10, 0), -1);
	assert_int_equal(insn.aux & 0xe0, INSN_ENDS_BLOCK);
	assert_int_equal(cpu->next_rip, 0x400005);
	assert_int_equal(cpu->gpr[R_SP], sp + 16);
	*(uint64_t *)(sp + 16) = 0x123456;
	assert_int_equal(STEP(MODE_64, 0xff, 0x14, 0x24), -1);
	assert_int_equal(cpu->next_rip, 0x123456);
	assert_int_equal(*(uint64_t *)(sp + 8), 0x400003);
	/* A CALL whose push faults leaves the pointer alone. */
	cpu->gpr[R_SP] = (uint64_t)arena + ARENA_SIZE + 8;
	assert_int_equal(STEP(MODE_64, 0xe8, 0, 0, 0, 0), EXC_PF);
	assert_int_equal(cpu->gpr[R_SP], (uint64_t)arena + ARENA_SIZE + 8);
	/* 16-bit near branches of 64-bit mode, where decoding asked for them. */
	cpu->rip = 0x401234;
	assert_int_equal(insn_decode(&insn, (const uint8_t[]){0x66, 0xe9, 0x10, 0x00}, 4, MODE_64 | MODE_AMD_BRANCH16),
			 DECODE_OK);
	assert_true(int_bind(NULL, &insn));
	cpu->next_rip = cpu->rip + 4;
	insn.fn(cpu, &insn);
	assert_int_equal(cpu->next_rip, 0x1248);
	/* LOOP by address size, and its ZF forms. */
	cpu->rip = 0x1000;
	cpu->gpr[R_CX] = 0xffffffff00000001;
	STEP(MODE_64, 0x67, 0xe2, 0x10);
	assert_int_equal(cpu->next_rip, 0x1003);
	assert_int_equal(cpu->gpr[R_CX], 0);
	STEP(MODE_64, 0xe2, 0x10);
	assert_int_equal(cpu->next_rip, 0x1012);
	assert_int_equal(cpu->gpr[R_CX], UINT64_MAX);
	cpu->rflags = 2;
	STEP(MODE_64, 0xe1, 0x10);
	assert_int_equal(cpu->next_rip, 0x1002);
	STEP(MODE_64, 0xe0, 0x10);
	assert_int_equal(cpu->next_rip, 0x1012);
	cpu->gpr[R_CX] = 0xffffffff00000000;
	STEP(MODE_64, 0xe3, 0x10);
	assert_int_equal(cpu->next_rip, 0x1002);
	STEP(MODE_64, 0x67, 0xe3, 0x10);
	assert_int_equal(cpu->next_rip, 0x1013);
	(void)state;
}

static void test_16bit(void **state)
{
	struct insn insn;

	backing = RAM_MISS;
	machine_reset(MODE_16);
	/* Segments with a base and a 64 KiB limit, as in real mode. */
	for (unsigned k = 0; k < SEG_COUNT; k++) {
		cpu->seg[k].base = (uint64_t)arena + 0x100 * k;
		cpu->seg[k].limit = 0x1fff;
	}
	cpu->seg_flat = 0;
	cpu->seg[SEG_CS].limit = 0xffff;
	cpu->rip = 0xfff0;
	/* IP wraps at 16 bits. */
	assert_int_equal(STEP(MODE_16, 0xeb, 0x20), -1);
	assert_int_equal(cpu->next_rip, 0x12);
	/* With a 32-bit operand it does not, and the CS limit stops it. */
	assert_int_equal(STEP(MODE_16, 0x66, 0xe9, 0x20, 0, 0, 0), EXC_GP);
	/* BP-based addresses use SS, others DS; the offset wraps at 64 KiB. */
	cpu->gpr[R_BP] = 0xabcd1000;
	cpu->gpr[R_SI] = 0xf010;
	*(uint16_t *)(arena + 0x200 + 0x12) = 0x1111;
	*(uint16_t *)(arena + 0x300 + 0x12) = 0x2222;
	assert_int_equal(STEP(MODE_16, 0x8b, 0x42, 0x02), -1); /* mov ax, [bp+si+2] */
	assert_int_equal((uint16_t)cpu->gpr[R_AX], 0x1111);
	cpu->gpr[R_BX] = 0x1000;
	assert_int_equal(STEP(MODE_16, 0x8b, 0x40, 0x02), -1); /* mov ax, [bx+si+2] */
	assert_int_equal((uint16_t)cpu->gpr[R_AX], 0x2222);
	/* Beyond the limit: #SS for SS, #GP for the others. */
	cpu->gpr[R_BP] = 0x1fff;
	assert_int_equal(STEP(MODE_16, 0x8b, 0x46, 0x00), EXC_SS);
	assert_int_equal(STEP(MODE_16, 0x3e, 0x8b, 0x46, 0x00), EXC_GP);
	assert_int_equal(STEP(MODE_16, 0x8a, 0x5e, 0x00), -1);
	/* A 16-bit stack: only SP moves. */
	cpu->gpr[R_SP] = 0x77770002;
	assert_int_equal(STEP(MODE_16, 0x66, 0x50), EXC_SS); /* wraps to fffe: beyond the limit */
	assert_int_equal(STEP(MODE_16, 0x50), -1);
	assert_int_equal(cpu->gpr[R_SP], 0x77770000);
	assert_int_equal(*(uint16_t *)(arena + 0x200), 0x2222);
	assert_int_equal(STEP(MODE_16, 0x5b), -1);
	assert_int_equal(cpu->gpr[R_SP], 0x77770002);
	/* Near CALL and RET n. */
	cpu->gpr[R_SP] = 0x77771000;
	cpu->rip = 0x2000;
	assert_int_equal(STEP(MODE_16, 0xe8, 0xfd, 0x0f), -1);
	assert_int_equal(cpu->next_rip, 0x3000);
	assert_int_equal(cpu->gpr[R_SP], 0x77770ffe);
	assert_int_equal(*(uint16_t *)(arena + 0x200 + 0xffe), 0x2003);
	assert_int_equal(STEP(MODE_16, 0xc2, 0x04, 0x00), -1);
	assert_int_equal(cpu->next_rip, 0x2003);
	assert_int_equal(cpu->gpr[R_SP], 0x77771004);
	/* REP MOVSB with 16-bit registers, destination in ES. */
	cpu->gpr[R_SI] = 0x55550000;
	cpu->gpr[R_DI] = 0x66661000;
	cpu->gpr[R_CX] = 0x88880010;
	memset(arena + 0x300, 0xa5, 16);
	assert_int_equal(STEP(MODE_16, 0xf3, 0xa4), -1);
	assert_int_equal(cpu->gpr[R_SI], 0x55550010);
	assert_int_equal(cpu->gpr[R_DI], 0x66661010);
	assert_int_equal(cpu->gpr[R_CX], 0x88880000);
	assert_memory_equal(arena + 0x1000, arena + 0x300, 16);
	/* VEX is unknown in real and virtual-8086 mode. */
	assert_int_equal(STEP(MODE_16, 0xc4, 0xe2, 0x78, 0xf3, 0xc9), -1);
	cpu->rflags |= FL_VM;
	assert_int_equal(STEP(MODE_16, 0xc4, 0xe2, 0x78, 0xf3, 0xc9), EXC_UD);
	cpu->rflags &= ~(uint64_t)FL_VM;
	cpu->cr0 = 0;
	assert_int_equal(STEP(MODE_16, 0xc4, 0xe2, 0x78, 0xf3, 0xc9), EXC_UD);
	(void)state;
}

/* FS and GS bases, RIP-relative operands, MOV with an absolute offset. */
static void test_addresses(void **state)
{
	struct insn insn;
	int32_t disp;
	uint64_t at = (uint64_t)arena + 0x1230, value;
	uint8_t moffs[10] = {0x48, 0xa1};

	for (backing = RAM_HIT; backing < BACKINGS; backing++) {
		machine_reset(MODE_64);
		*(uint64_t *)at = 0x1122334455667788;
		cpu->seg[SEG_GS].base = at - 0x30;
		cpu->seg[SEG_FS].base = at - 0x28;
		cpu->seg[SEG_DS].base = 0x5000;
		assert_int_equal(STEP(MODE_64, 0x65, 0x48, 0x8b, 0x04, 0x25, 0x30, 0, 0, 0), -1);
		assert_int_equal(cpu->gpr[R_AX], 0x1122334455667788);
		assert_int_equal(STEP(MODE_64, 0x64, 0x83, 0x04, 0x25, 0x28, 0, 0, 0, 1), -1);
		assert_int_equal(*(uint64_t *)at, 0x1122334455667789);
		/* A data segment's base is ignored, and its prefix does not undo GS. */
		assert_int_equal(STEP(MODE_64, 0x65, 0x3e, 0x8a, 0x1c, 0x25, 0x30, 0, 0, 0), -1);
		assert_int_equal(cpu->gpr[R_BX], 0x89);
		cpu->rip = at + 0x1000;
		disp = -0x1000 - 10;
		assert_int_equal(STEP(MODE_64, 0x81, 0x05, disp & 0xff, disp >> 8 & 0xff, 0xff, 0xff, 1, 0, 0, 0), -1);
		assert_int_equal(*(uint64_t *)at, 0x112233445566778a);
		memcpy(moffs + 2, &at, 8);
		assert_int_equal(step(MODE_64, moffs, 10, &insn), -1);
		assert_int_equal(cpu->gpr[R_AX], 0x112233445566778a);
		moffs[1] = 0xa3;
		value = cpu->gpr[R_AX] = 0xfedcba9876543210;
		assert_int_equal(step(MODE_64, moffs, 10, &insn), -1);
		assert_memory_equal((void *)at, &value, 8);
		moffs[1] = 0xa1;
	}
	(void)state;
}

/* Every store says so where the page is watched, and only there. */
static void test_written(void **state)
{
	static const uint8_t stores[][8] = {
		{0x48, 0x89, 0x03}, {0x88, 0x03}, {0xc6, 0x03, 1}, {0x48, 0x01, 0x03}, {0x83, 0x03, 1}, {0xff, 0x03},
		{0xf0, 0x01, 0x03}, {0xf7, 0x13}, {0xd1, 0x23}, {0x87, 0x03}, {0x0f, 0xc1, 0x03}, {0x0f, 0xb1, 0x03},
		{0x0f, 0xab, 0x0b}, {0x0f, 0x94, 0x03}, {0x0f, 0x38, 0xf1, 0x03}, {0x0f, 0xc3, 0x03}, {0x0f, 0xa5, 0x03},
		{0x50}, {0x68, 0, 0, 0, 0}, {0x8f, 0x03}, {0xff, 0x33}, {0xaa}, {0xf3, 0xaa}, {0xf3, 0xa4}, {0x48, 0xa5},
		{0xe8, 0, 0, 0, 0}, {0xff, 0xd0}, {0x0f, 0xc7, 0x0b},
	};
	struct insn insn;

	for (backing = RAM_HIT; backing <= RAM_MISS; backing++) {
		for (unsigned k = 0; k < sizeof(stores) / sizeof(*stores); k++) {
			for (int watched = 0; watched < 2; watched++) {
				machine_reset(MODE_64);
				for (int r = 0; r < 16; r++)
					cpu->gpr[r] = (uint64_t)arena + 0x2400;
				cpu->gpr[R_CX] = 3;
				memset(page_flags, 0, sizeof(page_flags));
				page_flags[2] = watched ? PAGE_LOG_DIRTY : 0;
				writes_reported = 0;
				assert_int_equal(step(MODE_64, stores[k], 8, &insn), -1);
				if (watched ? !writes_reported : writes_reported)
					fail_msg("store %u (backing %d): %u reports", k, backing, writes_reported);
			}
		}
	}
	memset(page_flags, 0, sizeof(page_flags));
	(void)state;
}

/* LOCK where it is not allowed, and forms that do not exist. */
static void test_undefined(void **state)
{
	static const struct {
		uint8_t n, bytes[8];
	} bad[] = {
		{3, {0xf0, 0x01, 0xc0}}, {3, {0xf0, 0x39, 0x03}}, {3, {0xf0, 0x03, 0x03}}, {3, {0xf0, 0x89, 0x03}},
		{2, {0xf0, 0x90}}, {4, {0xf0, 0x83, 0x3b, 0}}, {3, {0xf0, 0x87, 0xc0}}, {4, {0xf0, 0x0f, 0xa3, 0x03}},
		{5, {0xf0, 0x0f, 0xba, 0x23, 1}}, {3, {0xf0, 0xff, 0x33}}, {3, {0xf0, 0xc3}}, {3, {0xf0, 0xf6, 0x23}},
		{2, {0xff, 0xf8}}, {2, {0xfe, 0xd0}}, {3, {0xc6, 0x0b, 0}}, {2, {0x8f, 0x23}}, {2, {0x8d, 0xc0}},
		{3, {0x0f, 0xc3, 0xc0}}, {4, {0x0f, 0xba, 0x03, 0}}, {3, {0x0f, 0xb8, 0xc0}}, {2, {0x0f, 0x0b}},
		{4, {0x0f, 0x38, 0xf0, 0xc0}}, {5, {0xf3, 0x0f, 0x38, 0xf0, 0x03}}, {3, {0x0f, 0xc7, 0xc8}},
		{5, {0xc4, 0xe2, 0x7c, 0xf3, 0xc9}}, {5, {0xc4, 0xe2, 0x78, 0xf3, 0xc1}},
	};
	struct insn insn;

	backing = RAM_HIT;
	machine_reset(MODE_64);
	cpu->gpr[R_BX] = (uint64_t)arena;
	for (unsigned k = 0; k < sizeof(bad) / sizeof(*bad); k++) {
		if (step(MODE_64, bad[k].bytes, bad[k].n, &insn) != EXC_UD)
			fail_msg("form %u is not refused", k);
	}
	(void)state;
}

/* A request stops REP after one step and leaves it at itself; the next call goes on. */
static void test_rep_request(void **state)
{
	struct insn insn;

	backing = DEVICE;
	machine_reset(MODE_64);
	cpu->rip = 0x1000;
	cpu->gpr[R_CX] = 5;
	cpu->gpr[R_DI] = (uint64_t)arena + 64;
	cpu->gpr[R_AX] = 0x77;
	memset(arena, 0, 128);
	atomic_store(&cpu->request, REQ_IRQ);
	assert_int_equal(STEP(MODE_64, 0xf3, 0xaa), -1);
	assert_true(insn_ends_block(&insn));
	assert_int_equal(cpu->next_rip, 0x1000);
	assert_int_equal(cpu->gpr[R_CX], 4);
	assert_int_equal(cpu->gpr[R_DI], (uint64_t)arena + 65);
	atomic_store(&cpu->request, 0);
	assert_int_equal(STEP(MODE_64, 0xf3, 0xaa), -1);
	assert_int_equal(cpu->next_rip, 0x1002);
	assert_int_equal(cpu->gpr[R_CX], 0);
	assert_int_equal(arena[63] | arena[69] << 8, 0);
	assert_memory_equal(arena + 64, "\x77\x77\x77\x77\x77", 5);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_branches), cmocka_unit_test(test_16bit), cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_written), cmocka_unit_test(test_undefined), cmocka_unit_test(test_rep_request),
		cmocka_unit_test(test_native_64), cmocka_unit_test(test_native_32),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
