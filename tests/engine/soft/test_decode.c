/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The decoder: a table of encodings written from the SDM, lengths against
 * binutils' disassembler over random code, and the fuzzer's properties over
 * random bytes. KEEL_DECODE_BYTES: bytes of random code a mode and kind
 * (default 500000).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../fuzz/fuzz_decode.c"

/*
 * What was decoded, as text: length, map:opcode, operand size, address size;
 * then what there is of: prefixes p.., reg and rm (r./m.) or the memory operand
 * seg:[base+index*scale+disp] (with ! if it belongs to the stack), the
 * immediate #value/bytes and the second one, and VEX's fields.
 */
static void describe(const struct insn *i, char *out)
{
	static const char *const maps[] = {"1", "0f", "0f38", "0f3a"}, *const segs[] = {"es", "cs", "ss", "ds", "fs", "gs", "-"};

	out += sprintf(out, "%u %s:%02x o%u a%u", i->len, maps[i->map], i->opcode, i->opsize, i->addrsize);
	if (i->prefixes)
		out += sprintf(out, " p%x", i->prefixes);
	if (i->has_modrm)
		out += sprintf(out, " r%u", i->reg);
	if (i->is_mem) {
		out += sprintf(out, " %s:[", segs[i->seg]);
		if (i->base == REG_RIP)
			out += sprintf(out, "ip");
		else if (i->base != REG_ZERO)
			out += sprintf(out, "%u", i->base);
		if (i->index != REG_ZERO)
			out += sprintf(out, "+%u*%u", i->index, 1u << i->scale);
		out += sprintf(out, "%+d]%s", i->disp, i->stack ? "!" : "");
	} else if (i->has_modrm || i->rm) {
		out += sprintf(out, " m%u", i->rm);
	}
	if (i->has_imm)
		out += sprintf(out, " #%llx/%u", (unsigned long long)i->imm, i->has_imm);
	if (i->imm2)
		out += sprintf(out, ",%x", i->imm2);
	if (i->prefixes & PFX_VEX)
		out += sprintf(out, " v%u l%u pp%u w%u", i->vvvv, i->vl, i->pp, i->rex >> 3);
}

#define UD "#UD"
#define MORE "more"
#define LONG "long"
#define M16 MODE_16
#define M32 MODE_32
#define M64 MODE_64
#define AMD (MODE_64 | MODE_AMD_BRANCH16)

static const struct {
	unsigned mode;
	const char *hex, *want;
} table[] = {
	/* ModRM and SIB, 64-bit (SDM vol. 2 tables 2-2, 2-3, §2.2.1) */
	{M64, "01c8", "2 1:01 o4 a8 r1 m0"},
	{M64, "4801c8", "3 1:01 o8 a8 p20 r1 m0"},
	{M64, "4d01c8", "3 1:01 o8 a8 p20 r9 m8"},
	{M64, "6601c8", "3 1:01 o2 a8 p1 r1 m0"},
	{M64, "664801c8", "4 1:01 o8 a8 p21 r1 m0"},
	{M64, "486601c8", "4 1:01 o2 a8 p1 r1 m0"}, /* REX not right before the opcode */
	{M64, "484401c8", "4 1:01 o4 a8 p20 r9 m0"},
	{M64, "0108", "2 1:01 o4 a8 r1 -:[0+0]"},
	{M64, "014810", "3 1:01 o4 a8 r1 -:[0+16]"},
	{M64, "0148f0", "3 1:01 o4 a8 r1 -:[0-16]"},
	{M64, "018800010000", "6 1:01 o4 a8 r1 -:[0+256]"},
	{M64, "010d00010000", "6 1:01 o4 a8 r1 -:[ip+256]"},
	{M64, "67010d00010000", "7 1:01 o4 a4 p10 r1 -:[ip+256]"},
	{M64, "010c24", "3 1:01 o4 a8 r1 -:[4+0]!"},
	{M64, "010c98", "3 1:01 o4 a8 r1 -:[0+3*4+0]"},
	{M64, "42010ca0", "4 1:01 o4 a8 p20 r1 -:[0+12*4+0]"}, /* index 12 exists, index 4 does not */
	{M64, "010ca0", "3 1:01 o4 a8 r1 -:[0+0]"},
	{M64, "010c2500010000", "7 1:01 o4 a8 r1 -:[+256]"},
	{M64, "41010c2500010000", "8 1:01 o4 a8 p20 r1 -:[+256]"},
	{M64, "41014d00", "4 1:01 o4 a8 p20 r1 -:[13+0]"},
	{M64, "41010c24", "4 1:01 o4 a8 p20 r1 -:[12+0]"},
	{M64, "41010d00010000", "7 1:01 o4 a8 p20 r1 -:[ip+256]"}, /* REX.B does not make it r13 */
	{M64, "014d08", "3 1:01 o4 a8 r1 -:[5+8]!"},
	{M64, "64014d08", "4 1:01 o4 a8 p80 r1 fs:[5+8]"},
	{M64, "3e014d08", "4 1:01 o4 a8 r1 -:[5+8]!"}, /* null prefix */
	{M64, "652e0108", "4 1:01 o4 a8 p80 r1 gs:[0+0]"},
	{M64, "64650108", "4 1:01 o4 a8 p80 r1 gs:[0+0]"},
	/* 32-bit */
	{M32, "01c8", "2 1:01 o4 a4 r1 m0"},
	{M32, "6601c8", "3 1:01 o2 a4 p1 r1 m0"},
	{M32, "010d00010000", "6 1:01 o4 a4 r1 ds:[+256]"},
	{M32, "014d08", "3 1:01 o4 a4 r1 ss:[5+8]!"},
	{M32, "010c24", "3 1:01 o4 a4 r1 ss:[4+0]!"},
	{M32, "3e010c24", "4 1:01 o4 a4 p80 r1 ds:[4+0]"},
	{M32, "360108", "3 1:01 o4 a4 p80 r1 ss:[0+0]!"},
	{M32, "26640108", "4 1:01 o4 a4 p80 r1 fs:[0+0]"},
	/* 16-bit addressing (SDM vol. 2 table 2-1) */
	{M16, "0100", "2 1:01 o2 a2 r0 ds:[3+6*1+0]"},
	{M16, "0101", "2 1:01 o2 a2 r0 ds:[3+7*1+0]"},
	{M16, "0102", "2 1:01 o2 a2 r0 ss:[5+6*1+0]!"},
	{M16, "0103", "2 1:01 o2 a2 r0 ss:[5+7*1+0]!"},
	{M16, "0104", "2 1:01 o2 a2 r0 ds:[6+0]"},
	{M16, "0105", "2 1:01 o2 a2 r0 ds:[7+0]"},
	{M16, "01063412", "4 1:01 o2 a2 r0 ds:[+4660]"},
	{M16, "0107", "2 1:01 o2 a2 r0 ds:[3+0]"},
	{M16, "0146fe", "3 1:01 o2 a2 r0 ss:[5-2]!"},
	{M16, "01863412", "4 1:01 o2 a2 r0 ss:[5+4660]!"},
	{M16, "6766010c24", "5 1:01 o4 a4 p11 r1 ss:[4+0]!"},
	{M32, "67014204", "4 1:01 o4 a2 p10 r0 ss:[5+6*1+4]!"},
	/* Immediates */
	{M64, "83c0ff", "3 1:83 o4 a8 r0 m0 #ffffffffffffffff/1"},
	{M64, "80c0ff", "3 1:80 o4 a8 r0 m0 #ff/1"},
	{M64, "81c0000000ff", "6 1:81 o4 a8 r0 m0 #ffffffffff000000/4"},
	{M64, "6681c000ff", "5 1:81 o2 a8 p1 r0 m0 #ffffffffffffff00/2"},
	{M64, "4881c0000000ff", "7 1:81 o8 a8 p20 r0 m0 #ffffffffff000000/4"},
	{M64, "05000000ff", "5 1:05 o4 a8 #ffffffffff000000/4"},
	{M64, "48b8f0debc9a78563412", "10 1:b8 o8 a8 p20 #123456789abcdef0/8"},
	{M64, "49bff0debc9a78563412", "10 1:bf o8 a8 p20 m15 #123456789abcdef0/8"},
	{M64, "b8785634ff", "5 1:b8 o4 a8 #ff345678/4"},
	{M64, "66b834ff", "4 1:b8 o2 a8 p1 #ff34/2"},
	{M64, "b412", "2 1:b4 o4 a8 m4 #12/1"},
	{M64, "f6c012", "3 1:f6 o4 a8 r0 m0 #12/1"},
	{M64, "f6d0", "2 1:f6 o4 a8 r2 m0"},
	{M64, "f7c8000000ff", "6 1:f7 o4 a8 r1 m0 #ffffffffff000000/4"},
	{M64, "f7f8", "2 1:f7 o4 a8 r7 m0"},
	{M64, "a1f0debc9a78563412", "9 1:a1 o4 a8 #123456789abcdef0/8"},
	{M64, "67a1785634ff", "6 1:a1 o4 a4 p10 #ff345678/4"},
	{M32, "a1785634ff", "5 1:a1 o4 a4 #ff345678/4"},
	{M32, "67a134ff", "4 1:a1 o4 a2 p10 #ff34/2"},
	{M64, "c8341207", "4 1:c8 o8 a8 #1234/3,7"},
	{M64, "c234ff", "3 1:c2 o8 a8 #ff34/2"},
	{M64, "6aff", "2 1:6a o8 a8 #ffffffffffffffff/1"},
	{M64, "68000000ff", "5 1:68 o8 a8 #ffffffffff000000/4"},
	{M64, "666800ff", "4 1:68 o2 a8 p1 #ffffffffffffff00/2"},
	{M64, "6bc8ff", "3 1:6b o4 a8 r1 m0 #ffffffffffffffff/1"},
	{M64, "c1e0ff", "3 1:c1 o4 a8 r4 m0 #ff/1"},
	{M64, "cd80", "2 1:cd o4 a8 #80/1"},
	{M32, "9a785634120800", "7 1:9a o4 a4 #12345678/6,8"},
	{M16, "ea34120800", "5 1:ea o2 a2 #1234/4,8"},
	{M16, "66ea785634120800", "8 1:ea o4 a2 p1 #12345678/6,8"},
	{M64, "480fa4c805", "5 0f:a4 o8 a8 p20 r1 m0 #5/1"},
	{M64, "0fbae0ff", "4 0f:ba o4 a8 r4 m0 #ff/1"},
	{M64, "660f3a0fc108", "6 0f3a:0f o2 a8 p1 r0 m1 #8/1"},
	{M64, "660f3800c1", "5 0f38:00 o2 a8 p1 r0 m1"},
	/* Registers in the opcode; widths of stack operations and branches */
	{M64, "4157", "2 1:57 o8 a8 p20 m15"},
	{M64, "6650", "2 1:50 o2 a8 p1"},
	{M64, "664850", "3 1:50 o8 a8 p21"},
	{M32, "50", "1 1:50 o4 a4"},
	{M16, "6657", "2 1:57 o4 a2 p1 m7"},
	{M32, "47", "1 1:47 o4 a4 m7"},
	{M64, "410fcf", "3 0f:cf o4 a8 p20 m15"},
	{M64, "ff30", "2 1:ff o8 a8 r6 -:[0+0]"},
	{M64, "8f00", "2 1:8f o8 a8 r0 -:[0+0]"},
	{M64, "ff10", "2 1:ff o8 a8 r2 -:[0+0]"},
	{M64, "ff18", "2 1:ff o4 a8 r3 -:[0+0]"}, /* far: 32-bit unless REX.W */
	{M64, "ff00", "2 1:ff o4 a8 r0 -:[0+0]"},
	{M64, "ebfe", "2 1:eb o8 a8 #fffffffffffffffe/1"},
	{M64, "e8000000ff", "5 1:e8 o8 a8 #ffffffffff000000/4"},
	{M64, "66e8000000ff", "6 1:e8 o8 a8 p1 #ffffffffff000000/4"},
	{AMD, "66e800ff", "4 1:e8 o2 a8 p1 #ffffffffffffff00/2"},
	{M64, "660f84000000ff", "7 0f:84 o8 a8 p1 #ffffffffff000000/4"},
	{AMD, "660f8400ff", "5 0f:84 o2 a8 p1 #ffffffffffffff00/2"},
	{AMD, "66480f84000000ff", "8 0f:84 o8 a8 p21 #ffffffffff000000/4"},
	{M64, "66ff10", "3 1:ff o8 a8 p1 r2 -:[0+0]"},
	{AMD, "66ff10", "3 1:ff o2 a8 p1 r2 -:[0+0]"},
	{AMD, "66c3", "2 1:c3 o2 a8 p1"},
	{M32, "66e80010", "4 1:e8 o2 a4 p1 #1000/2"},
	{M16, "e8feff", "3 1:e8 o2 a2 #fffffffffffffffe/2"},
	{M64, "9c", "1 1:9c o8 a8"},
	{M64, "c9", "1 1:c9 o8 a8"},
	{M64, "cf", "1 1:cf o4 a8"},
	{M64, "0fa0", "2 0f:a0 o8 a8"},
	/* Control registers: no memory form, full width */
	{M64, "0f2000", "3 0f:20 o8 a8 r0 m0"},
	{M64, "440f22c0", "4 0f:22 o8 a8 p20 r8 m0"},
	{M32, "0f2245", "3 0f:22 o4 a4 r0 m5"},
	{M16, "0f20c0", "3 0f:20 o4 a2 r0 m0"},
	/* Prefixes: any order, the last of F2 and F3 */
	{M64, "f2f3a4", "3 1:a4 o4 a8 p4"},
	{M64, "f3f2a4", "3 1:a4 o4 a8 p2"},
	{M64, "f0f26667480fb108", "8 0f:b1 o8 a4 p3b r1 -:[0+0]"},
	{M64, "f390", "2 1:90 o4 a8 p4"},
	{M64, "4190", "2 1:90 o4 a8 p20 m8"},
	{M64, "63c8", "2 1:63 o4 a8 r1 m0"},
	{M32, "63c8", "2 1:63 o4 a4 r1 m0"},
	/* VEX (SDM vol. 2 §2.3.5) */
	{M64, "c5f877", "3 0f:77 o4 a8 p40 v0 l0 pp0 w0"},
	{M64, "c5fc77", "3 0f:77 o4 a8 p40 v0 l1 pp0 w0"},
	{M64, "c5e858d1", "4 0f:58 o4 a8 p40 r2 m1 v2 l0 pp0 w0"},
	{M64, "c57058d1", "4 0f:58 o4 a8 p40 r10 m1 v1 l0 pp0 w0"},
	{M64, "c4c16958d1", "5 0f:58 o4 a8 p40 r2 m9 v2 l0 pp1 w0"},
	{M64, "c4e2f8f7c1", "5 0f38:f7 o8 a8 p40 r0 m1 v0 l0 pp0 w1"},
	{M64, "c4e2b8f7c1", "5 0f38:f7 o8 a8 p40 r0 m1 v8 l0 pp0 w1"},
	{M64, "c4e37d18c101", "6 0f3a:18 o4 a8 p40 r0 m1 #1/1 v0 l1 pp1 w0"},
	{M64, "c4a1781000", "5 0f:10 o4 a8 p40 r0 -:[0+0] v0 l0 pp0 w0"},
	{M64, "c4a178100420", "6 0f:10 o4 a8 p40 r0 -:[0+12*1+0] v0 l0 pp0 w0"},
	{M64, "c4e26990440c08", "7 0f38:90 o4 a8 p40 r0 -:[4+1*1+8]! v2 l0 pp1 w0"},
	{M64, "c4e269900460", "6 0f38:90 o4 a8 p40 r0 -:[0+4*2+0] v2 l0 pp1 w0"}, /* VSIB: register 4 is one */
	{M64, "c5f870c11b", "5 0f:70 o4 a8 p40 r0 m1 #1b/1 v0 l0 pp0 w0"},
	{M64, "64c5f81000", "5 0f:10 o4 a8 pc0 r0 fs:[0+0] v0 l0 pp0 w0"},
	{M64, "66c5f877", UD}, {M64, "f3c5f877", UD}, {M64, "f0c5f877", UD}, {M64, "48c5f877", UD},
	{M64, "c4e0f877c0", UD}, {M64, "c4e4f877c0", UD}, {M64, "c4fff877c0", UD},
	/* LES, LDS, BOUND or VEX, EVEX */
	{M32, "c400", "2 1:c4 o4 a4 r0 ds:[0+0]"},
	{M32, "c545f8", "3 1:c5 o4 a4 r0 ss:[5-8]!"},
	{M16, "c407", "2 1:c4 o2 a2 r0 ds:[3+0]"},
	{M16, "c446fe", "3 1:c4 o2 a2 r0 ss:[5-2]!"},
	{M32, "6200", "2 1:62 o4 a4 r0 ds:[0+0]"},
	{M32, "c5f877", "3 0f:77 o4 a4 p40 v0 l0 pp0 w0"},
	{M32, "c4e2f8f7c1", "5 0f38:f7 o4 a4 p40 r0 m1 v0 l0 pp0 w1"},
	{M32, "c4e2b8f7c1", "5 0f38:f7 o4 a4 p40 r0 m1 v0 l0 pp0 w1"}, /* vvvv's top bit does not count */
	{M16, "c5f877", "3 0f:77 o4 a2 p40 v0 l0 pp0 w0"},
	{M64, "62f17c4858c0", UD}, {M32, "62f17c4858c0", UD}, {M64, "6200", MORE},
	/* XOP, 3DNow! */
	{M64, "8fe878c0c001", UD}, {M64, "8fc0", "2 1:8f o8 a8 r0 m0"}, {M64, "0f0fc09e", UD},
	/* Not in 64-bit mode */
	{M64, "06", UD}, {M64, "0e", UD}, {M64, "1f", UD}, {M64, "27", UD}, {M64, "37", UD}, {M64, "60", UD}, {M64, "61", UD},
	{M64, "82c001", UD}, {M64, "9a785634120800", UD}, {M64, "ce", UD}, {M64, "d40a", UD}, {M64, "d6", UD},
	{M64, "ea785634120800", UD},
	{M32, "06", "1 1:06 o4 a4"}, {M32, "27", "1 1:27 o4 a4"}, {M32, "60", "1 1:60 o4 a4"}, {M32, "ce", "1 1:ce o4 a4"},
	{M32, "82c001", "3 1:82 o4 a4 r0 m0 #1/1"}, {M32, "d40a", "2 1:d4 o4 a4 #a/1"},
	/* In no mode */
	{M64, "0f04", UD}, {M64, "0f0a", UD}, {M32, "0f36", UD}, {M32, "0fa6c0", UD}, {M32, "0f24c0", UD},
	/* Length */
	{M64, "", MORE}, {M64, "66", MORE}, {M64, "48", MORE}, {M64, "0f", MORE}, {M64, "0f38", MORE}, {M64, "01", MORE},
	{M64, "010c", MORE}, {M64, "0148", MORE}, {M64, "b8000000", MORE}, {M64, "c5", MORE}, {M64, "c4e2f8", MORE},
	{M32, "c4", MORE}, {M64, "8f", MORE},
	{M64, "666666666666666666666666666690", "15 1:90 o2 a8 p1"},
	{M64, "66666666666666666666666666666690", LONG}, {M64, "666666666666666666666666666666", LONG},
	{M64, "6666666666666666666681c00000", "14 1:81 o2 a8 p1 r0 m0 #0/2"},
	{M64, "66666666666666666681048500000000", LONG}, {M64, "2e2e2e2e2e2e2e2e2e2e81c00000", LONG},
	/* A VEX opcode that doesn't exist is as long as the one without VEX, and one behind REX is LDS (lengths by #GP, Zen 5). */
	{M64, "672e662e2ef22e26f2c5a7875b457d01", LONG}, {M64, "672e662e2ef22ec5a7875b457d01", UD},
	{M64, "c5f887000000", MORE}, {M64, "c5f878c000", MORE}, {M64, "c5f804", "3 0f:04 o4 a8 p40 v0 l0 pp0 w0"},
	{M64, "2e2e2e2e2e2e2e2e2e2e2e2e48c5c0", UD}, {M64, "2e2e2e2e2e2e2e2e2e48c50500000000", LONG},
};

static void test_table(void **state)
{
	for (unsigned k = 0; k < sizeof(table) / sizeof(*table); k++) {
		uint8_t bytes[32];
		unsigned n = 0;
		char got[256];
		struct insn i;

		for (const char *h = table[k].hex; *h; h += 2) {
			unsigned b;

			assert_int_equal(sscanf(h, "%2x", &b), 1);
			bytes[n++] = b;
		}
		switch (insn_decode(&i, bytes, n, table[k].mode)) {
		case DECODE_OK: describe(&i, got); break;
		case DECODE_MORE: strcpy(got, MORE); break;
		case DECODE_TOO_LONG: strcpy(got, LONG); break;
		default: strcpy(got, UD); break;
		}
		if (strcmp(got, table[k].want))
			fail_msg("mode %x, %s: \"%s\", not \"%s\"", table[k].mode, table[k].hex, got, table[k].want);
	}
	(void)state;
}

/* ---- Random code --------------------------------------------------------- */

static uint64_t seed = 88172645463325252u;
static uint8_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed >> 32;
}

/* Random bytes; with `shaped` in the likeness of instructions, so that rare maps come often. */
static void fill(uint8_t *code, size_t n, bool shaped)
{
	static const uint8_t prefixes[] = {0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65, 0xf0};
	size_t at = 0;

	while (at + 24 < n && shaped) {
		unsigned r = rnd() % 4, kind = rnd() % 20;

		for (r = r == 3 ? rnd() % 4 : 0; r; r--)
			code[at++] = prefixes[rnd() % sizeof(prefixes)];
		if (rnd() % 5 < 2)
			code[at++] = 0x40 | rnd() % 16;
		if (kind < 8) {
			code[at++] = rnd();
		} else if (kind < 15) {
			code[at++] = 0x0f;
			if (kind >= 13)
				code[at++] = rnd() & 1 ? 0x38 : 0x3a;
			code[at++] = rnd();
		} else if (kind < 17) {
			code[at++] = 0xc4;
			code[at++] = (rnd() & 0xe0) | (1 + rnd() % 3);
			code[at++] = rnd();
			code[at++] = rnd();
		} else if (kind < 19) {
			code[at++] = 0xc5;
			code[at++] = rnd();
			code[at++] = rnd();
		} else {
			code[at++] = rnd() & 1 ? 0x62 : 0x8f;
		}
		for (r = 1 + rnd() % 9; r; r--)
			code[at++] = rnd();
	}
	while (at < n)
		code[at++] = rnd();
}

/* binutils prints stray prefixes as instructions of their own. */
static bool only_prefixes(const char *text)
{
	static const char *const names[] = {"rex", "cs", "ds", "es", "fs", "gs", "ss", "data16", "data32", "addr16", "addr32",
					    "repz", "repnz", "lock", "fwait"};
	char copy[256], *word, *rest = copy;

	snprintf(copy, sizeof(copy), "%s", text);
	while ((word = strtok_r(rest, " \t\n", &rest))) {
		unsigned k;

		for (k = 0; k < sizeof(names) / sizeof(*names); k++) {
			if (!strcmp(word, names[k]) || (k == 0 && !strncmp(word, "rex.", 4)))
				break;
		}
		if (k == sizeof(names) / sizeof(*names))
			return false;
	}
	return true;
}

/*
 * Known to binutils, but not to be had here: EVEX, XOP, 3DNow! and FEMMS, test
 * registers, VIA's; and VEX behind a prefix that it excludes.
 */
static bool may_refuse(const struct insn *i)
{
	const uint8_t *op = i->bytes + i->raw_opcode_at;

	if (i->prefixes & PFX_VEX)
		return i->prefixes & (PFX_66 | PFX_F2 | PFX_F3 | PFX_LOCK);
	if (i->prefixes & PFX_REX && i->map == MAP_1B && (*op == 0xc4 || *op == 0xc5 || *op == 0x62))
		return true;
	if (i->map == MAP_0F)
		return *op == 0x0e || *op == 0x0f || (*op >= 0x24 && *op <= 0x27) || *op == 0xa6 || *op == 0xa7;
	return (i->raw_opcode_at >= 4 && op[-4] == 0x62) || (i->raw_opcode_at >= 3 && op[-3] == 0x8f);
}

struct tally {
	unsigned long compared, refused;
};

/* Lengths of everything that both take for an instruction. */
static void compare(const uint8_t *code, size_t size, unsigned mode, const char *options, struct tally *tally)
{
	char path[] = "/tmp/keel-decode-XXXXXX", command[256], line[512];
	int fd = mkstemp(path);
	FILE *listing;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, code, size), size);
	close(fd);
	snprintf(command, sizeof(command), "objdump -D -b binary %s -w --insn-width=16 %s", options, path);
	listing = popen(command, "r");
	assert_non_null(listing);
	while (fgets(line, sizeof(line), listing)) {
		char *colon = strchr(line, ':'), *text;
		unsigned long at;
		unsigned len = 0;
		struct insn i;
		enum decode_result r;

		if (!colon || colon[1] != '\t')
			continue;
		at = strtoul(line, NULL, 16);
		for (text = colon + 2; text[0] > ' ' && text[1] > ' ' && text[2] == ' '; text += 3)
			len++;
		text = strchr(text, '\t');
		if (!text || at + 20 > size || strstr(text, "(bad)") || only_prefixes(text))
			continue;
		r = insn_decode(&i, code + at, 20, mode);
		if (i.map == MAP_1B && i.opcode == 0x9b)
			continue; /* FWAIT is shown as a prefix of x87 instructions */
		if (r == DECODE_UD) {
			if (!may_refuse(&i))
				fail_msg("refused: %s", line);
			tally->refused++;
			continue;
		}
		if (i.map == MAP_0F && i.opcode == 0x78 && i.prefixes & (PFX_66 | PFX_F2))
			continue; /* SSE4a's two immediates; not offered */
		if (r != DECODE_OK || i.len != len)
			fail_msg("mode %x: result %d, length %u, by binutils %u: %s", mode, r, i.len, len, line);
		tally->compared++;
	}
	pclose(listing);
	unlink(path);
}

static void test_against_binutils(void **state)
{
	static const struct {
		unsigned mode;
		const char *options;
	} runs[] = {
		{M64, "-m i386:x86-64 -M intel64"}, {AMD, "-m i386:x86-64 -M amd64"}, {M32, "-m i386"}, {M16, "-m i8086"},
	};
	const char *env = getenv("KEEL_DECODE_BYTES");
	size_t size = env ? strtoul(env, NULL, 0) : 500000;
	uint8_t *code = malloc(size);
	struct tally tally = {0};

	if (system("objdump --version >/dev/null 2>&1")) {
		free(code);
		skip();
	}
	assert_non_null(code);
	for (unsigned k = 0; k < sizeof(runs) / sizeof(*runs); k++) {
		for (int shaped = 0; shaped < 2; shaped++) {
			fill(code, size, shaped);
			compare(code, size, runs[k].mode, runs[k].options, &tally);
		}
	}
	free(code);
	print_message("%lu lengths compared, %lu instructions not offered\n", tally.compared, tally.refused);
	assert_true(tally.compared > size);
	(void)state;
}

static void test_properties(void **state)
{
	uint8_t code[48];

	for (unsigned k = 0; k < 100000; k++) {
		fill(code, sizeof(code), k & 1);
		LLVMFuzzerTestOneInput(code, 1 + rnd() % 20);
	}
	/* Shaped code with the mode byte before it. */
	for (unsigned k = 0; k < 200000; k++) {
		fill(code + 1, sizeof(code) - 1, true);
		code[0] = rnd();
		LLVMFuzzerTestOneInput(code, 21);
	}
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table), cmocka_unit_test(test_properties), cmocka_unit_test(test_against_binutils),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
