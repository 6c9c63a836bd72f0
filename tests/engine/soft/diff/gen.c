/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Cases from numbers. Instructions are drawn by encoding, not from a list of
 * mnemonics: prefixes, an opcode of a weighted map, ModRM and the rest at
 * random. The decoder then tells where the memory operand is, and registers or
 * the displacement are chosen so that it mostly falls into a window, at its
 * edges more often than chance would.
 */
#include "diff.h"

struct rng {
	uint64_t s;
};

/* splitmix64 */
static uint64_t rnd(struct rng *r)
{
	uint64_t z = (r->s += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static unsigned below(struct rng *r, unsigned n)
{
	return (unsigned)(((rnd(r) >> 32) * n) >> 32);
}

static bool chance(struct rng *r, unsigned percent)
{
	return below(r, 100) < percent;
}

/* ---- Values -------------------------------------------------------------- */

static uint64_t edge_int(struct rng *r)
{
	static const uint64_t edges[] = {
		0, 1, 2, UINT64_MAX, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff,
		0x100000000, 0xffffffff80000000, 0x7fffffffffffffff, 0x8000000000000000, 0x5555555555555555, 0xaaaaaaaaaaaaaaaa,
		0x99, 0x9999, 0x0f, 0xf0,
	};
	uint64_t v = edges[below(r, sizeof(edges) / sizeof(edges[0]))];

	return chance(r, 20) ? v + below(r, 3) - 1 : v;
}

/* An address for an access of about `size` bytes. */
static uint64_t address(struct rng *r, unsigned size, bool wide)
{
	unsigned pick = below(r, 100);
	uint64_t a;

	if (pick < 76) {
		a = DATA_BASE + below(r, DATA_RW_PAGES * PAGE - 64);
		return chance(r, 65) ? a & ~(uint64_t)(size - 1) : a;
	}
	if (pick < 81)
		return DATA_BASE + PAGE - below(r, size + 2);            /* page crossing, both writable */
	if (pick < 85)
		return DATA_BASE - below(r, size + 2);                   /* the first byte may be unmapped */
	if (pick < 89)
		return DATA_RO_BASE - below(r, size + 2);                /* into read-only */
	if (pick < 92) {
		a = DATA_RO_BASE + below(r, PAGE - 64);
		return chance(r, 65) ? a & ~(uint64_t)(size - 1) : a;
	}
	if (pick < 94)
		return DATA_RO_BASE + PAGE - below(r, size + 2);         /* out of read-only */
	if (pick < 95)
		return CODE_BASE + below(r, CODE_PAGES * PAGE);
	if (pick < 96)
		return STACK_BASE + PAGE - below(r, size + 2);
	if (pick < 97 || !wide)
		return 0x10000 + below(r, 0x10000000);                   /* unmapped */
	switch (below(r, 5)) {
	case 0:
		return 0x0000800000000000 - below(r, size + 2);          /* edge of the hole */
	case 1:
		return 0xffff800000000000 - below(r, size + 2);
	case 2:
		return 0xffffffffffffff80 + below(r, 128);               /* wraps */
	case 3:
		return 0xffff888000000000 | (rnd(r) & 0xfffffffff);      /* the kernel's */
	default:
		return rnd(r) | 1ull << 50;                              /* mostly in the hole */
	}
}

static uint64_t value(struct rng *r, bool wide)
{
	switch (below(r, 10)) {
	case 0: case 1:
		return edge_int(r);
	case 2:
		return below(r, 65);
	case 3:
		return 1ull << below(r, 64);
	case 4:
		return (uint64_t)(int64_t)(int32_t)rnd(r);
	case 5: case 6:
		return address(r, 8, wide);
	default:
		return rnd(r);
	}
}

static uint32_t float32(struct rng *r)
{
	static const uint32_t edges[] = {
		0, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000, 0x7f800001, 0xff812345,
		0x00000001, 0x80000001, 0x007fffff, 0x00800000, 0x7f7fffff, 0xff7fffff, 0x4f000000, 0xcf000000, 0x5f000000, 0x3f000000,
		0x4b000000, 0x3fc00000, 0x34000000,
	};

	switch (below(r, 4)) {
	case 0:
		return edges[below(r, sizeof(edges) / sizeof(edges[0]))];
	case 1:
		return (uint32_t)rnd(r);
	case 2: /* near one another: sums cancel, products stay finite */
		return 0x3f000000 + below(r, 0x03000000) + (below(r, 2) << 31);
	default: {
		float f = (float)((int)below(r, 2000) - 1000);
		uint32_t bits;

		memcpy(&bits, &f, 4);
		return bits;
	}
	}
}

static uint64_t float64(struct rng *r)
{
	static const uint64_t edges[] = {
		0, 0x8000000000000000, 0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000, 0xfff0000000000000,
		0x7ff8000000000000, 0xfff8000000000000, 0x7ff0000000000001, 0xfff0000012345678, 1, 0x8000000000000001,
		0x000fffffffffffff, 0x0010000000000000, 0x7fefffffffffffff, 0xffefffffffffffff, 0x41dfffffffc00000, 0x41e0000000000000,
		0xc1e0000000000000, 0x43e0000000000000, 0xc3e0000000000000, 0x3fe0000000000000, 0x36a0000000000000, 0x47efffffe0000000,
		0x3810000000000000, 0x47f0000000000000,
	};

	switch (below(r, 4)) {
	case 0:
		return edges[below(r, sizeof(edges) / sizeof(edges[0]))];
	case 1:
		return rnd(r);
	case 2:
		return 0x3fe0000000000000 + (rnd(r) & 0x007fffffffffffff) + ((uint64_t)below(r, 2) << 63);
	default: {
		double f = (double)((int)below(r, 200000) - 100000) / (1 << below(r, 8));
		uint64_t bits;

		memcpy(&bits, &f, 8);
		return bits;
	}
	}
}

/* Also the encodings that no operation produces: unnormals, pseudo-denormals, pseudo-infinities, pseudo-NaNs. */
static void float80(struct rng *r, uint8_t *p)
{
	static const struct {
		uint16_t exp;
		uint64_t mant;
	} edges[] = {
		{ 0, 0 }, { 0, 1 }, { 0, 0x8000000000000000 }, { 0, 0x7fffffffffffffff }, { 1, 0x8000000000000000 },
		{ 0x3fff, 0x8000000000000000 }, { 0x4000, 0xc90fdaa22168c235 }, { 0x3ffe, 0x8000000000000000 }, { 0x7ffe, UINT64_MAX },
		{ 0x7fff, 0x8000000000000000 }, { 0x7fff, 0xc000000000000000 }, { 0x7fff, 0x8000000000000001 }, { 0x7fff, 0xdeadbeefdeadbeef },
		{ 0x7fff, 0 }, { 0x7fff, 1 }, { 0x3fff, 0x4000000000000000 }, { 0x403e, 0x8000000000000000 }, { 0x401e, 0xfffffffe00000000 },
		{ 0x403a, 0xde0b6b3a763fffff }, { 0x3c01, 0x8000000000000000 }, { 0x43fe, 0xfffffffffffff800 }, { 0x3f81, 0x8000000000000000 },
	};
	uint16_t exp;
	uint64_t mant;

	switch (below(r, 4)) {
	case 0: {
		unsigned n = below(r, sizeof(edges) / sizeof(edges[0]));

		exp = edges[n].exp;
		mant = edges[n].mant;
		break;
	}
	case 1:
		exp = (uint16_t)rnd(r);
		mant = rnd(r) | (chance(r, 90) ? 1ull << 63 : 0);
		break;
	case 2: {
		long double f = (long double)((int)below(r, 200000) - 100000) / (1 << below(r, 8));

		memcpy(p, &f, 10);
		return;
	}
	default:
		exp = 0x3fff - 40 + below(r, 110);
		mant = rnd(r) | 1ull << 63;
		break;
	}
	exp = (exp & 0x7fff) | (uint16_t)(below(r, 2) << 15);
	memcpy(p, &mant, 8);
	memcpy(p + 8, &exp, 2);
}

/* 64 bytes of one kind. */
static void lanes(struct rng *r, uint8_t *p, unsigned bytes)
{
	unsigned kind = below(r, 8);

	for (unsigned at = 0; at < bytes; at += 8) {
		uint64_t v;

		switch (kind) {
		case 0: case 1:
			v = rnd(r);
			break;
		case 2: case 3:
			v = float32(r) | (uint64_t)float32(r) << 32;
			break;
		case 4: case 5:
			v = float64(r);
			break;
		case 6:
			v = edge_int(r);
			break;
		default:
			v = rnd(r) & rnd(r) & rnd(r) & 0x1f1f1f1f1f1f1f1f;
			break;
		}
		memcpy(p + at, &v, bytes - at < 8 ? bytes - at : 8);
	}
}

void diff_template(uint64_t seed, uint8_t *image)
{
	struct rng r = { seed * 0x2545f4914f6cdd1d + 1 };

	for (unsigned at = 0; at < IMAGE_PAGES * PAGE; at += 64) {
		if (chance(&r, 15))
			memset(image + at, below(&r, 2) ? 0xff : 0, 64);
		else
			lanes(&r, image + at, 64);
	}
}

/* ---- Instructions -------------------------------------------------------- */

struct bytes {
	uint8_t b[32];
	unsigned n;
};

static void emit(struct bytes *b, unsigned byte)
{
	if (b->n < sizeof(b->b))
		b->b[b->n++] = (uint8_t)byte;
}

static unsigned one_of(struct rng *r, const char *list, unsigned n)
{
	return (uint8_t)list[below(r, n)];
}
#define ONE_OF(r, s) one_of(r, s, sizeof(s) - 1)

static void legacy_prefixes(struct rng *r, struct bytes *b, unsigned mandatory_percent)
{
	if (chance(r, 1))
		for (unsigned n = below(r, 14); n; n--)
			emit(b, chance(r, 50) ? 0x2e : ONE_OF(r, "\x66\x67\xf2\xf3\x26\x3e"));
	if (chance(r, 8))
		emit(b, ONE_OF(r, "\x64\x65\x64\x65\x64\x65\x26\x2e\x36\x3e"));
	if (chance(r, 6))
		emit(b, 0x67);
	if (chance(r, 3))
		emit(b, 0xf0);
	if (chance(r, mandatory_percent))
		emit(b, ONE_OF(r, "\x66\x66\xf2\xf3"));
	if (chance(r, 2))
		emit(b, ONE_OF(r, "\x66\x66\xf2\xf3"));
}

static void modrm_and_rest(struct rng *r, struct bytes *b)
{
	unsigned mod = chance(r, 40) ? 3 : below(r, 3);

	emit(b, mod << 6 | below(r, 64));
	/* What follows may be SIB, displacement, immediate: small bytes are as likely as any. */
	while (b->n < sizeof(b->b))
		emit(b, chance(r, 30) ? below(r, 72) : (unsigned)rnd(r));
}

static void gen_int(struct rng *r, struct bytes *b, unsigned mode)
{
	unsigned map = below(r, 100);

	if (map < 8) { /* VEX: BMI */
		unsigned rxb = mode == MODE_64 ? below(r, 8) << 5 : 0xe0;

		emit(b, 0xc4);
		if (chance(r, 30)) {
			emit(b, rxb | 3);
			emit(b, below(r, 2) << 7 | (mode == MODE_64 ? below(r, 16) : 15) << 3 | (chance(r, 5) << 2) | (chance(r, 90) ? 3 : below(r, 4)));
			emit(b, 0xf0);
		} else {
			emit(b, rxb | 2);
			emit(b, below(r, 2) << 7 | (mode == MODE_64 ? below(r, 16) : 8 + below(r, 8)) << 3 | (chance(r, 5) << 2) | below(r, 4));
			emit(b, ONE_OF(r, "\xf2\xf3\xf3\xf5\xf6\xf7\xf5\xf7"));
		}
		modrm_and_rest(r, b);
		return;
	}
	legacy_prefixes(r, b, 14);
	if (mode == MODE_64 && chance(r, 55))
		emit(b, 0x40 | below(r, 16));
	if (map < 68) {
		unsigned op = (unsigned)rnd(r) & 0xff;

		if (op >= 0xd8 && op <= 0xdf)
			op = ONE_OF(r, "\xc0\xc1\xd0\xd1\xd2\xd3\xf6\xf7\xa4\xa5\xa6\xa7\xaa\xab\xac\xad\xae\xaf\x87\x86");
		emit(b, op);
	} else if (map < 95) {
		emit(b, 0x0f);
		switch (below(r, 4)) {
		case 0:
			emit(b, ONE_OF(r, "\xa3\xa4\xa5\xab\xac\xad\xaf\xb0\xb1\xb3\xb6\xb7\xb8\xba\xbb\xbc\xbd\xbe\xbf\xc0\xc1\xc3\xc7\xc7"));
			break;
		case 1:
			emit(b, 0x40 + below(r, 16));
			break;
		case 2:
			emit(b, 0x80 + below(r, 80));
			break;
		default:
			emit(b, ONE_OF(r, "\x0d\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x0b\xb9\xff\xa0\xa8\x90\x9f\xc8\xcf"));
			break;
		}
	} else {
		emit(b, 0x0f);
		emit(b, 0x38);
		emit(b, ONE_OF(r, "\xf0\xf1\xf6\xf6\xf0\xf1"));
	}
	modrm_and_rest(r, b);
}

static void gen_vex(struct rng *r, struct bytes *b, unsigned mode)
{
	unsigned pp = below(r, 100), map, vvvv, l = chance(r, 50), high = mode == MODE_64 ? 0 : 8;
	static const char ops_38[] = "\x90\x91\x92\x93\x8c\x8e\x45\x46\x47\x58\x59\x5a\x78\x79\x18\x19\x1a\x36\x16\x0c\x0d\x0e\x0f\x13\x2c\x2d\x2e\x2f\x96\xf7";

	pp = pp < 25 ? 0 : pp < 75 ? 1 : pp < 87 ? 2 : 3;
	if (chance(r, 2)) /* before VEX: #UD */
		emit(b, ONE_OF(r, "\x66\xf2\xf3\xf0\x48"));
	else if (chance(r, 6))
		emit(b, ONE_OF(r, "\x64\x65\x67\x67"));
	map = below(r, 100);
	map = map < 50 ? 1 : map < 82 ? 2 : 3;
	vvvv = chance(r, 35) ? 15 : high | below(r, 16);
	if (map == 1 && chance(r, 60)) {
		emit(b, 0xc5);
		emit(b, (mode == MODE_64 ? below(r, 2) : 1) << 7 | vvvv << 3 | l << 2 | pp);
	} else {
		emit(b, 0xc4);
		emit(b, (mode == MODE_64 ? below(r, 8) : 7) << 5 | (chance(r, 1) ? below(r, 32) : map));
		emit(b, chance(r, 30) << 7 | vvvv << 3 | l << 2 | pp);
	}
	switch (map) {
	case 1:
		emit(b, chance(r, 35) ? 0x10 + below(r, 32) : chance(r, 50) ? 0x50 + below(r, 48) : 0xc0 + below(r, 64));
		break;
	case 2:
		emit(b, chance(r, 45) ? below(r, 0x42) : chance(r, 50) ? 0x96 + below(r, 42) : chance(r, 60) ? ONE_OF(r, ops_38) :
											   0xc8 + below(r, 24));
		break;
	default:
		emit(b, chance(r, 80) ? ONE_OF(r, "\x00\x01\x02\x04\x05\x06\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x14\x15\x16\x17\x18\x19\x1d\x20\x21\x22"
						  "\x38\x39\x40\x41\x42\x44\x46\x4a\x4b\x4c\x60\x61\x62\x63\xdf") :
					below(r, 256));
		break;
	}
	modrm_and_rest(r, b);
}

static void gen_vec(struct rng *r, struct bytes *b, unsigned mode)
{
	unsigned map = below(r, 100);

	if (map < 48) {
		gen_vex(r, b, mode);
		return;
	}
	legacy_prefixes(r, b, 72);
	if (mode == MODE_64 && chance(r, 45))
		emit(b, 0x40 | below(r, 16));
	emit(b, 0x0f);
	if (map < 84) {
		switch (below(r, 10)) {
		case 0: case 1:
			emit(b, 0x10 + below(r, 8));
			break;
		case 2: case 3:
			emit(b, 0x28 + below(r, 8));
			break;
		case 4: case 5: case 6:
			emit(b, 0x50 + below(r, 48));
			break;
		case 7: case 8:
			emit(b, 0xd0 + below(r, 48));
			break;
		default:
			emit(b, ONE_OF(r, "\xae\xae\xae\xae\xc2\xc2\xc4\xc5\xc6\xc3\x77\xc7"));
			break;
		}
	} else if (map < 94) {
		emit(b, 0x38);
		emit(b, chance(r, 75) ? below(r, 0x42) : 0xc8 + below(r, 24));
	} else {
		emit(b, 0x3a);
		emit(b, ONE_OF(r, "\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x14\x15\x16\x17\x20\x21\x22\x40\x41\x42\x44\x60\x61\x62\x63\xcc\xdf"));
	}
	modrm_and_rest(r, b);
}

static void gen_x87(struct rng *r, struct bytes *b, unsigned mode)
{
	if (chance(r, 30))
		legacy_prefixes(r, b, 10);
	if (mode == MODE_64 && chance(r, 20))
		emit(b, 0x40 | below(r, 16));
	if (chance(r, 2))
		emit(b, 0x9b);
	else
		emit(b, 0xd8 + below(r, 8));
	modrm_and_rest(r, b);
}

/* Mostly faults in ring 3: which, and before or after what, is the question. */
static void gen_sys(struct rng *r, struct bytes *b, unsigned mode)
{
	legacy_prefixes(r, b, 12);
	if (mode == MODE_64 && chance(r, 40))
		emit(b, 0x40 | below(r, 16));
	if (chance(r, 60)) {
		emit(b, ONE_OF(r, "\xf4\xfa\xfb\xe4\xe5\xe6\xe7\xec\xed\xee\xef\x6c\x6d\x6e\x6f\xcd\xcc\xce\x62\x63\x8c\x8c\x8c\x06\x0e\x16\x1e\x9c\x9d"
				  "\x9c\x9d\xc8\xc9\xd6\xd7\x9b\xf5\xf8\xf9\xfc\xfd\x9e\x9f"));
		modrm_and_rest(r, b);
		return;
	}
	emit(b, 0x0f);
	emit(b, ONE_OF(r, "\x00\x01\x01\x01\x06\x07\x08\x09\x0b\x20\x21\x22\x23\x24\x30\x32\x35\xa0\xa8\xaa\xae\xae\xc7\x77\x04\x0a\x0c\x25\x26\x27\x3b"));
	if (b->b[b->n - 1] == 0x01 && chance(r, 50))
		emit(b, ONE_OF(r, "\xd0\xd0\xd1\xf8"));
	modrm_and_rest(r, b);
}

/* ---- Operands ------------------------------------------------------------ */

static bool is_1b(const struct insn *i, unsigned lo, unsigned hi)
{
	return i->map == MAP_1B && i->opcode >= lo && i->opcode <= hi;
}

static bool is_vector(const struct insn *i)
{
	if (i->prefixes & PFX_VEX)
		return !(i->map == MAP_0F38 && i->opcode >= 0xf2 && i->opcode <= 0xf7) && !(i->map == MAP_0F3A && i->opcode == 0xf0);
	if (i->map == MAP_0F)
		return (i->opcode >= 0x10 && i->opcode <= 0x17) || (i->opcode >= 0x28 && i->opcode <= 0x2f) ||
		       (i->opcode >= 0x50 && i->opcode <= 0x7f) || (i->opcode >= 0xc2 && i->opcode <= 0xc6) || i->opcode >= 0xd0;
	return i->map == MAP_0F3A || (i->map == MAP_0F38 && i->opcode < 0xf0);
}

static bool is_x87(const struct insn *i)
{
	return is_1b(i, 0xd8, 0xdf);
}

static bool is_string(const struct insn *i)
{
	return is_1b(i, 0xa4, 0xa7) || is_1b(i, 0xaa, 0xaf) || is_1b(i, 0x6c, 0x6f);
}

static unsigned operand_size(const struct insn *i)
{
	if (diff_is_area(i))
		return 64;
	if (is_x87(i))
		return 8;
	if (is_vector(i))
		return i->prefixes & PFX_VEX && i->vl ? 32 : 16;
	return i->opsize;
}

static void patch_at(struct diff_case *c, uint64_t addr, const void *data, unsigned len)
{
	struct diff_patch *p = &c->patch[c->npatches];

	if (c->npatches == 3 || addr < DATA_BASE || addr > DATA_RO_BASE - len)
		return;
	p->addr = (uint32_t)addr;
	p->len = (uint8_t)len;
	memcpy(p->data, data, len);
	c->npatches++;
}

static uint16_t random_fcw(struct rng *r)
{
	return chance(r, 40) ? 0x37f : (uint16_t)(0x40 | (rnd(r) & 0xf00) | (chance(r, 70) ? 0x3f : rnd(r) & 0x3f));
}

static uint32_t random_mxcsr(struct rng *r)
{
	uint32_t m = chance(r, 40) ? 0x1f80 : (uint32_t)(rnd(r) & 0xe07f) | (chance(r, 75) ? 0x1f80 : (uint32_t)rnd(r) & 0x1f80);

	return chance(r, 70) ? m & ~0x8040u : m; /* FTZ and DAZ hide much */
}

/* An image that FXRSTOR and XRSTOR mostly take. */
static void patch_area(struct rng *r, struct diff_case *c, uint64_t addr)
{
	uint8_t head[64] = { 0 }, image[32] = { 0 };
	uint16_t fcw = random_fcw(r), fsw = (uint16_t)(rnd(r) & 0x7f00);
	uint32_t mxcsr = random_mxcsr(r);

	memcpy(image, &fcw, 2);
	memcpy(image + 2, &fsw, 2);
	image[4] = (uint8_t)rnd(r);
	if (chance(r, 10))
		mxcsr = (uint32_t)rnd(r) & ~0x20000u; /* bit 17 is AMD's */
	memcpy(image + 24, &mxcsr, 4);
	head[0] = below(r, 8);
	if (chance(r, 10))
		head[below(r, 64)] = (uint8_t)rnd(r);
	patch_at(c, addr, image, 32);
	patch_at(c, addr + 512, head, 64);
}

static void patch_operand(struct rng *r, struct diff_case *c, uint64_t addr)
{
	uint8_t data[64];

	if (diff_is_area(&c->insn)) {
		patch_area(r, c, addr);
		return;
	}
	if (is_x87(&c->insn)) {
		unsigned form = c->insn.opcode & 7, reg = c->insn.modrm >> 3 & 7;

		if ((form == 3 && reg == 5)) {
			float80(r, data);
			patch_at(c, addr, data, 10);
		} else if (form == 0 || form == 1) {
			uint32_t v = float32(r);

			patch_at(c, addr, &v, 4);
		} else if (form == 4 || form == 5) {
			uint64_t v = float64(r);

			patch_at(c, addr, &v, 8);
		} else if (form == 7 && reg == 4) { /* FBLD */
			for (unsigned n = 0; n < 9; n++)
				data[n] = (uint8_t)(below(r, 10) << 4 | below(r, chance(r, 95) ? 10 : 16));
			data[9] = (uint8_t)rnd(r);
			patch_at(c, addr, data, 10);
		} else {
			uint64_t v = edge_int(r);

			patch_at(c, addr, &v, 8);
		}
		return;
	}
	if (is_vector(&c->insn)) {
		lanes(r, data, 32);
		patch_at(c, addr, data, 32);
		return;
	}
	if (chance(r, 60)) {
		uint64_t v[2] = { value(r, true), value(r, true) };

		patch_at(c, addr, v, 16);
		/* CMPXCHG: sometimes equal */
		if (chance(r, 50))
			c->in.gpr[R_AX] = v[0];
		if (chance(r, 50))
			c->in.gpr[R_DX] = c->insn.opsize == 8 ? v[1] : v[0] >> 32;
	}
}

static void set_reg(struct rng *r, struct diff_case *c, unsigned n, uint64_t v)
{
	if (n >= 16)
		return;
	/* What an address of 32 bits ignores. */
	if (c->mode == MODE_64 && c->insn.addrsize == 4 && chance(r, 40))
		v = (uint32_t)v | rnd(r) << 32;
	c->in.gpr[n] = v;
}

static void steer_modrm(struct rng *r, struct diff_case *c)
{
	struct insn *i = &c->insn;
	struct diff_state *in = &c->in;
	bool wide = c->mode == MODE_64 && i->addrsize == 8, vsib;
	uint64_t target = address(r, operand_size(i), wide), ea = target;
	unsigned disp_at;

	if (i->addrsize == 2 || i->raw_opcode_at + 2u > 13)
		return;
	vsib = i->prefixes & PFX_VEX && i->map == MAP_0F38 && i->opcode >= 0x90 && i->opcode <= 0x93;
	if (c->mode == MODE_64 && (i->seg == SEG_FS || i->seg == SEG_GS)) {
		uint64_t base = i->seg == SEG_FS ? in->fs_base : in->gs_base;

		if (i->addrsize == 4 && base > target)
			base = target & 0xfff000;
		if (i->seg == SEG_FS)
			in->fs_base = base;
		else
			in->gs_base = base;
		ea = target - base;
	}
	disp_at = i->raw_opcode_at + 2u; /* behind opcode and ModRM: raw_opcode_at is of the last opcode byte */
	if (i->base == REG_RIP) {
		uint32_t disp = (uint32_t)(ea - (in->rip + i->len));

		memcpy(c->bytes + disp_at, &disp, 4);
	} else if (i->base == REG_ZERO && (i->index == REG_ZERO || vsib)) {
		uint32_t disp = (uint32_t)ea;

		memcpy(c->bytes + disp_at + ((i->modrm & 7) == 4), &disp, 4);
	} else if (i->base == REG_ZERO) {
		set_reg(r, c, i->index, (ea - (int64_t)i->disp) >> i->scale);
	} else if (i->index == i->base && !vsib) {
		set_reg(r, c, i->base, (ea - (int64_t)i->disp) / (1 + (1u << i->scale)));
	} else {
		uint64_t index = 0;

		if (i->index < 16 && !vsib) {
			if (chance(r, 60))
				in->gpr[i->index] = below(r, 256) - 64;
			index = in->gpr[i->index] << i->scale;
		}
		set_reg(r, c, i->base, ea - (int64_t)i->disp - index);
	}
	if (vsib && i->index < 16) {
		for (unsigned n = 0; n < 8; n++) {
			int32_t v = (int)below(r, 512) - 128;

			if (chance(r, 3))
				v = (int32_t)rnd(r);
			if (i->opcode & 1) { /* qword indices */
				int64_t q = v;

				if (n < 4)
					memcpy(in->ymm[i->index] + n * 8, &q, 8);
			} else {
				memcpy(in->ymm[i->index] + n * 4, &v, 4);
			}
		}
	}
	if (chance(r, 70))
		patch_operand(r, c, target);
}

static void steer(struct rng *r, struct diff_case *c)
{
	struct insn *i = &c->insn;
	bool wide = c->mode == MODE_64;

	if (i->is_mem) {
		steer_modrm(r, c);
		/* Bit strings: BT, BTS, BTR, BTC with a register reach far. */
		if (i->map == MAP_0F && (i->opcode == 0xa3 || i->opcode == 0xab || i->opcode == 0xb3 || i->opcode == 0xbb) && i->reg != i->base &&
		    chance(r, 90))
			c->in.gpr[i->reg & 15] = (uint64_t)(int64_t)((int)below(r, 2048) - 1024);
	}
	if (is_string(i)) {
		c->in.gpr[R_SI] = address(r, i->opsize, wide);
		c->in.gpr[R_DI] = address(r, i->opsize, wide);
		if (i->prefixes & (PFX_F2 | PFX_F3)) {
			if (chance(r, 97))
				c->in.gpr[R_CX] = below(r, 24);
			/* Equal elements, so that REPE goes on for a while. */
			if (chance(r, 50))
				c->in.gpr[R_DI] = c->in.gpr[R_SI] + i->opsize;
		}
		if (chance(r, 30)) {
			uint8_t same[64];

			memset(same, (int)below(r, 256), sizeof(same));
			if (chance(r, 70))
				same[below(r, 64)] ^= 0x10;
			patch_at(c, c->in.gpr[R_DI] - (c->in.rflags & FL_DF ? 64 : 0), same, 64);
			if (chance(r, 50))
				memset(&c->in.gpr[R_AX], same[0], 8);
		}
	}
	/* The host's XCR0 has components that the guest's has not. */
	if (diff_is_area(i)) {
		c->in.gpr[R_AX] &= 7;
		c->in.gpr[R_DX] = 0;
	}
	if (i->map == MAP_0F && i->opcode == 1 && i->modrm == 0xd0)
		c->in.gpr[R_CX] |= 4;
	if (is_1b(i, 0xd7, 0xd7))
		c->in.gpr[R_BX] = address(r, 1, wide);
	if (is_1b(i, 0xa0, 0xa3) && c->mode == MODE_64 && i->addrsize == 8 && chance(r, 80)) {
		uint64_t target = address(r, i->opsize, true);

		memcpy(c->bytes + i->raw_opcode_at + 1, &target, 8);
	} else if (is_1b(i, 0xa0, 0xa3) && i->addrsize == 4) {
		uint32_t target = (uint32_t)address(r, i->opsize, false);

		memcpy(c->bytes + i->raw_opcode_at + 1, &target, 4);
	}
	/* MASKMOVQ, MASKMOVDQU */
	if (i->map == MAP_0F && i->opcode == 0xf7)
		c->in.gpr[R_DI] = address(r, 16, wide);
	/* DIV, IDIV: quotients that fit */
	if (is_1b(i, 0xf6, 0xf7) && (i->modrm >> 3 & 7) >= 6 && chance(r, 70)) {
		c->in.gpr[R_DX] = chance(r, 50) ? 0 : (uint64_t)((int64_t)c->in.gpr[R_AX] >> 63);
		if (!(i->opcode & 1))
			c->in.gpr[R_AX] = (uint64_t)(int64_t)(int16_t)((int)below(r, 512) - 256);
	}
	/* CMPXCHG with a register: sometimes equal */
	if (i->map == MAP_0F && (i->opcode == 0xb0 || i->opcode == 0xb1) && !i->is_mem && chance(r, 50))
		c->in.gpr[R_AX] = c->in.gpr[i->rm & 15];
	/* A locked access over a cache line can cost a host millions of cycles. */
}

static void gen_state(struct rng *r, struct diff_case *c)
{
	struct diff_state *s = &c->in;
	bool wide = c->mode == MODE_64;

	for (int n = 0; n < 16; n++)
		s->gpr[n] = value(r, wide);
	switch (below(r, 10)) {
	case 0:
		s->gpr[R_SP] = STACK_BASE + below(r, PAGE);
		break;
	case 1:
		s->gpr[R_SP] = chance(r, 50) ? STACK_BASE + below(r, 17) : STACK_BASE + PAGE - below(r, 17);
		break;
	case 2:
		s->gpr[R_SP] = address(r, 8, wide);
		break;
	default:
		s->gpr[R_SP] = STACK_BASE + 512 + below(r, PAGE - 1024) / 8 * 8;
		break;
	}
	if (chance(r, 50))
		s->gpr[R_BP] = chance(r, 50) ? s->gpr[R_SP] + below(r, 64) : address(r, 8, wide);
	s->rflags = (rnd(r) & FLAGS_ARITH) | 2 | FL_IF | (chance(r, 12) ? FL_DF : 0) | (chance(r, 5) ? FL_ID : 0);
	switch (below(r, 4)) {
	case 0:
		s->fs_base = 0;
		break;
	case 1:
		s->fs_base = below(r, 0x20000) << 12;
		break;
	case 2:
		s->fs_base = rnd(r) & 0x7fffffff;
		break;
	default:
		s->fs_base = (uint64_t)((int64_t)(rnd(r) << 16) >> 16);
		break;
	}
	s->gs_base = chance(r, 50) ? below(r, 0x10000) : (uint64_t)((int64_t)(rnd(r) << 16) >> 16);
	for (int n = 0; n < 16; n++)
		lanes(r, s->ymm[n], 32);
	s->mxcsr = random_mxcsr(r);
	s->fcw = random_fcw(r);
	s->fsw = (uint16_t)(rnd(r) & 0x7f40); /* TOP, C0..C3, stack fault */
	if (chance(r, 50))
		s->fsw &= ~0x40;
	s->fsw |= rnd(r) & 0x3f & (chance(r, 92) ? s->fcw : 0x3f);
	if ((s->fsw & 0x40 && !(s->fsw & 1)))
		s->fsw &= ~0x40;
	if (s->fsw & ~s->fcw & 0x3f)
		s->fsw |= 0x8080;
	s->ftw = chance(r, 40) ? 0xff : chance(r, 25) ? 0 : (uint8_t)rnd(r);
	for (int n = 0; n < 8; n++)
		float80(r, s->st[n]);
	if (!wide) {
		for (int n = 0; n < 16; n++)
			s->gpr[n] = n < 8 ? (uint32_t)s->gpr[n] : 0;
		s->fs_base = s->gs_base = 0;
	}
}

uint64_t diff_operand(const struct diff_case *c)
{
	const struct insn *i = &c->insn;
	uint64_t ea = (int64_t)i->disp;

	if (i->base < 16)
		ea += c->in.gpr[i->base];
	else if (i->base == REG_RIP)
		ea += c->in.rip + c->len;
	if (i->index < 16)
		ea += c->in.gpr[i->index] << i->scale;
	ea = i->addrsize == 8 ? ea : i->addrsize == 4 ? (uint32_t)ea : (uint16_t)ea;
	if (c->mode != MODE_64)
		return (uint32_t)ea;
	return ea + (i->seg == SEG_FS ? c->in.fs_base : i->seg == SEG_GS ? c->in.gs_base : 0);
}

/* LOCK over a cache line: on some hosts a trap, on all a stall of everybody. */
static bool split_lock(const struct diff_case *c)
{
	const struct insn *i = &c->insn;

	return i->is_mem && (i->prefixes & PFX_LOCK || is_1b(i, 0x86, 0x87)) && (diff_operand(c) & 63) > 64 - 16;
}

bool diff_generate(struct diff_case *c, uint64_t seed, uint64_t number, unsigned classes)
{
	struct rng r = { seed ^ (number + 1) * 0xd1342543de82ef95 };
	enum decode_result d = DECODE_UD;
	bool control_flow;

	rnd(&r);
	c->number = number;
	c->npatches = 0;
	c->mode = chance(&r, 72) ? MODE_64 : MODE_32;
	for (int attempt = 0; attempt < 12; attempt++) {
		static const struct {
			unsigned class, weight;
			void (*gen)(struct rng *, struct bytes *, unsigned);
		} kinds[] = { { CLASS_INT, 42, gen_int }, { CLASS_VEC, 33, gen_vec }, { CLASS_X87, 13, gen_x87 }, { CLASS_SYS, 5, gen_sys } };
		struct bytes b = { .n = 0 };
		unsigned total = classes & CLASS_RAW ? 7 : 0, pick;

		for (unsigned n = 0; n < 4; n++)
			total += classes & kinds[n].class ? kinds[n].weight : 0;
		pick = below(&r, total);
		for (unsigned n = 0; n < 4; n++) {
			unsigned weight = classes & kinds[n].class ? kinds[n].weight : 0;

			if (pick < weight) {
				kinds[n].gen(&r, &b, c->mode);
				pick = 0;
				break;
			}
			pick -= weight;
		}
		while (b.n < 16)
			emit(&b, (unsigned)rnd(&r));
		memcpy(c->bytes, b.b, 16);
		d = insn_decode(&c->insn, c->bytes, 15, c->mode);
		if (d == DECODE_OK || (d == DECODE_TOO_LONG && chance(&r, 50)) || chance(&r, 12))
			break;
	}
	c->valid = d == DECODE_OK;
	c->len = c->valid ? c->insn.len : 15;
	c->in.rip = CODE_BASE + below(&r, CODE_PAGES * PAGE / 64 - 2) * 64 + below(&r, 32);
	if (chance(&r, 2))
		c->in.rip = CODE_END - 1 - below(&r, 16);
	c->room = CODE_END - c->in.rip < 15 ? (unsigned)(CODE_END - c->in.rip) : 15;
	gen_state(&r, c);
	if (c->valid) {
		steer(&r, c);
		/* The bytes may have changed behind the opcode. */
		if (insn_decode(&c->insn, c->bytes, 15, c->mode) != DECODE_OK || c->insn.len != c->len)
			return false;
		if (split_lock(c))
			return false;
	}
	if (c->mode == MODE_32)
		for (int n = 0; n < 8; n++)
			c->in.gpr[n] = (uint32_t)c->in.gpr[n];
	if (diff_may_run(c->bytes, 15, c->mode, &control_flow) == RULE_SKIP)
		return false;
	/* Bytes that decode to nothing may be something to the host; a jump into itself would meet no INT3. */
	c->single_step = !c->valid || (control_flow && c->insn.has_imm && c->insn.imm + c->len < c->len);
	c->by_step = c->room < c->len || (chance(&r, 3) && !c->single_step) || (c->valid && is_1b(&c->insn, 0xcd, 0xcd)); /* INT n: the gate decides */
	return true;
}
