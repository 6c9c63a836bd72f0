/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Numbers, addresses and vectors: plain ones, and more often than chance those where something changes. */
#include "gen.h"

uint64_t gen_edge_int(struct rng *r)
{
	static const uint64_t edges[] = {
		0,
		1,
		2,
		UINT64_MAX,
		0x7f,
		0x80,
		0xff,
		0x100,
		0x7fff,
		0x8000,
		0xffff,
		0x10000,
		0x7fffffff,
		0x80000000,
		0xffffffff,
		0x100000000,
		0xffffffff80000000,
		0x7fffffffffffffff,
		0x8000000000000000,
		0x5555555555555555,
		0xaaaaaaaaaaaaaaaa,
		0x99,
		0x9999,
		0x0f,
		0xf0,
	};
	uint64_t v = edges[below(r, sizeof(edges) / sizeof(edges[0]))];

	return chance(r, 20) ? v + below(r, 3) - 1 : v;
}

/* An address for an access of about `size` bytes. */
uint64_t gen_address(struct rng *r, unsigned size, bool wide)
{
	unsigned pick = below(r, 100);
	uint64_t a;

	if (pick < 76) {
		a = DATA_BASE + below(r, DATA_RW_PAGES * PAGE - 64);
		return chance(r, 65) ? a & ~(uint64_t)(size - 1) : a;
	}
	if (pick < 81)
		return DATA_BASE + PAGE - below(r, size + 2); /* page crossing, both writable */
	if (pick < 85)
		return DATA_BASE - below(r, size + 2); /* the first byte may be unmapped */
	if (pick < 89)
		return DATA_RO_BASE - below(r, size + 2); /* into read-only */
	if (pick < 92) {
		a = DATA_RO_BASE + below(r, PAGE - 64);
		return chance(r, 65) ? a & ~(uint64_t)(size - 1) : a;
	}
	if (pick < 94)
		return DATA_RO_BASE + PAGE - below(r, size + 2); /* out of read-only */
	if (pick < 95)
		return CODE_BASE + below(r, CODE_PAGES * PAGE);
	if (pick < 96)
		return STACK_BASE + PAGE - below(r, size + 2);
	if (pick < 97 || !wide)
		return 0x10000 + below(r, 0x10000000); /* unmapped */
	switch (below(r, 5)) {
	case 0:
		return 0x0000800000000000 - below(r, size + 2); /* edge of the hole */
	case 1:
		return 0xffff800000000000 - below(r, size + 2);
	case 2:
		return 0xffffffffffffff80 + below(r, 128); /* wraps */
	case 3:
		return 0xffff888000000000 | (rnd(r) & 0xfffffffff); /* the kernel's */
	default:
		return rnd(r) | 1ull << 50; /* mostly in the hole */
	}
}

uint64_t gen_value(struct rng *r, bool wide)
{
	switch (below(r, 10)) {
	case 0:
	case 1:
		return gen_edge_int(r);
	case 2:
		return below(r, 65);
	case 3:
		return 1ull << below(r, 64);
	case 4:
		return (uint64_t)(int64_t)(int32_t)rnd(r);
	case 5:
	case 6:
		return gen_address(r, 8, wide);
	default:
		return rnd(r);
	}
}

uint32_t gen_float32(struct rng *r)
{
	static const uint32_t edges[] = {
		0,	    0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000,
		0x7f800001, 0xff812345, 0x00000001, 0x80000001, 0x007fffff, 0x00800000, 0x7f7fffff, 0xff7fffff,
		0x4f000000, 0xcf000000, 0x5f000000, 0x3f000000, 0x4b000000, 0x3fc00000, 0x34000000,
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

uint64_t gen_float64(struct rng *r)
{
	static const uint64_t edges[] = {
		0,
		0x8000000000000000,
		0x3ff0000000000000,
		0xbff0000000000000,
		0x7ff0000000000000,
		0xfff0000000000000,
		0x7ff8000000000000,
		0xfff8000000000000,
		0x7ff0000000000001,
		0xfff0000012345678,
		1,
		0x8000000000000001,
		0x000fffffffffffff,
		0x0010000000000000,
		0x7fefffffffffffff,
		0xffefffffffffffff,
		0x41dfffffffc00000,
		0x41e0000000000000,
		0xc1e0000000000000,
		0x43e0000000000000,
		0xc3e0000000000000,
		0x3fe0000000000000,
		0x36a0000000000000,
		0x47efffffe0000000,
		0x3810000000000000,
		0x47f0000000000000,
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
void gen_float80(struct rng *r, uint8_t *p)
{
	static const struct {
		uint16_t exp;
		uint64_t mant;
	} edges[] = {
		{ 0, 0 },
		{ 0, 1 },
		{ 0, 0x8000000000000000 },
		{ 0, 0x7fffffffffffffff },
		{ 1, 0x8000000000000000 },
		{ 0x3fff, 0x8000000000000000 },
		{ 0x4000, 0xc90fdaa22168c235 },
		{ 0x3ffe, 0x8000000000000000 },
		{ 0x7ffe, UINT64_MAX },
		{ 0x7fff, 0x8000000000000000 },
		{ 0x7fff, 0xc000000000000000 },
		{ 0x7fff, 0x8000000000000001 },
		{ 0x7fff, 0xdeadbeefdeadbeef },
		{ 0x7fff, 0 },
		{ 0x7fff, 1 },
		{ 0x3fff, 0x4000000000000000 },
		{ 0x403e, 0x8000000000000000 },
		{ 0x401e, 0xfffffffe00000000 },
		{ 0x403a, 0xde0b6b3a763fffff },
		{ 0x3c01, 0x8000000000000000 },
		{ 0x43fe, 0xfffffffffffff800 },
		{ 0x3f81, 0x8000000000000000 },
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
void gen_lanes(struct rng *r, uint8_t *p, unsigned bytes)
{
	unsigned kind = below(r, 8);

	for (unsigned at = 0; at < bytes; at += 8) {
		uint64_t v;

		switch (kind) {
		case 0:
		case 1:
			v = rnd(r);
			break;
		case 2:
		case 3:
			v = gen_float32(r) | (uint64_t)gen_float32(r) << 32;
			break;
		case 4:
		case 5:
			v = gen_float64(r);
			break;
		case 6:
			v = gen_edge_int(r);
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
			gen_lanes(&r, image + at, 64);
	}
}
