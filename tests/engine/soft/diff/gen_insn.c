/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Instructions, drawn by encoding: prefixes, an opcode of a weighted map, ModRM
 * and the rest at random.
 */
#include "gen.h"

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
			emit(b, below(r, 2) << 7 | (mode == MODE_64 ? below(r, 16) : 15) << 3 | (chance(r, 5) << 2) |
					(chance(r, 90) ? 3 : below(r, 4)));
			emit(b, 0xf0);
		} else {
			emit(b, rxb | 2);
			emit(b, below(r, 2) << 7 | (mode == MODE_64 ? below(r, 16) : 8 + below(r, 8)) << 3 |
					(chance(r, 5) << 2) | below(r, 4));
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
			op = ONE_OF(r,
				    "\xc0\xc1\xd0\xd1\xd2\xd3\xf6\xf7\xa4\xa5\xa6\xa7\xaa\xab\xac\xad\xae\xaf\x87\x86");
		emit(b, op);
	} else if (map < 95) {
		emit(b, 0x0f);
		switch (below(r, 4)) {
		case 0:
			emit(b, ONE_OF(r, "\xa3\xa4\xa5\xab\xac\xad\xaf\xb0\xb1\xb3\xb6\xb7\xb8\xba\xbb\xbc\xbd\xbe\xbf"
					  "\xc0\xc1\xc3\xc7\xc7"));
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
	static const char ops_38[] = "\x90\x91\x92\x93\x8c\x8e\x45\x46\x47\x58\x59\x5a\x78\x79\x18\x19\x1a\x36\x16\x0c"
				     "\x0d\x0e\x0f\x13\x2c\x2d\x2e\x2f\x96\xf7";

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
		emit(b, chance(r, 35)	? 0x10 + below(r, 32)
			: chance(r, 50) ? 0x50 + below(r, 48)
					: 0xc0 + below(r, 64));
		break;
	case 2:
		emit(b, chance(r, 45)	? below(r, 0x42)
			: chance(r, 50) ? 0x96 + below(r, 42)
			: chance(r, 60) ? ONE_OF(r, ops_38)
					: 0xc8 + below(r, 24));
		break;
	default:
		emit(b, chance(r, 80) ? ONE_OF(r, "\x00\x01\x02\x04\x05\x06\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x14\x15\x16"
						  "\x17\x18\x19\x1d\x20\x21\x22"
						  "\x38\x39\x40\x41\x42\x44\x46\x4a\x4b\x4c\x60\x61\x62\x63\xdf")
				      : below(r, 256));
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
		case 0:
		case 1:
			emit(b, 0x10 + below(r, 8));
			break;
		case 2:
		case 3:
			emit(b, 0x28 + below(r, 8));
			break;
		case 4:
		case 5:
		case 6:
			emit(b, 0x50 + below(r, 48));
			break;
		case 7:
		case 8:
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
		emit(b, ONE_OF(r, "\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x14\x15\x16\x17\x20\x21\x22\x40\x41\x42\x44\x60\x61"
				  "\x62\x63\xcc\xdf"));
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
		emit(b, ONE_OF(r, "\xf4\xfa\xfb\xe4\xe5\xe6\xe7\xec\xed\xee\xef\x6c\x6d\x6e\x6f\xcd\xcc\xce\x62\x63\x8c"
				  "\x8c\x8c\x06\x0e\x16\x1e\x9c\x9d"
				  "\x9c\x9d\xc8\xc9\xd6\xd7\x9b\xf5\xf8\xf9\xfc\xfd\x9e\x9f"));
		modrm_and_rest(r, b);
		return;
	}
	emit(b, 0x0f);
	emit(b, ONE_OF(r, "\x00\x01\x01\x01\x06\x07\x08\x09\x0b\x20\x21\x22\x23\x24\x30\x32\x35\xa0\xa8\xaa\xae\xae\xc7"
			  "\x77\x04\x0a\x0c\x25\x26\x27\x3b"));
	if (b->b[b->n - 1] == 0x01 && chance(r, 50))
		emit(b, ONE_OF(r, "\xd0\xd0\xd1\xf8"));
	modrm_and_rest(r, b);
}

static const struct {
	unsigned class, weight;
	void (*gen)(struct rng *, struct bytes *, unsigned);
} kinds[] = {
	{ CLASS_INT, 42, gen_int }, { CLASS_VEC, 33, gen_vec }, { CLASS_X87, 13, gen_x87 }, { CLASS_SYS, 5, gen_sys }
};

void gen_bytes(struct rng *r, struct bytes *b, unsigned classes, unsigned mode)
{
	unsigned total = classes & CLASS_RAW ? 7 : 0, pick;

	b->n = 0;
	for (unsigned n = 0; n < 4; n++)
		total += classes & kinds[n].class ? kinds[n].weight : 0;
	pick = below(r, total);
	for (unsigned n = 0; n < 4; n++) {
		unsigned weight = classes & kinds[n].class ? kinds[n].weight : 0;

		if (pick < weight) {
			kinds[n].gen(r, b, mode);
			break;
		}
		pick -= weight;
	}
	while (b->n < sizeof(b->b))
		emit(b, (unsigned)rnd(r));
}
