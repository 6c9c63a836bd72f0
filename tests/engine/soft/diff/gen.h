/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What gen*.c share: chance, values, bytes. */
#pragma once
#include "diff.h"

struct rng {
	uint64_t s;
};

/* splitmix64 */
static inline uint64_t rnd(struct rng *r)
{
	uint64_t z = (r->s += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static inline unsigned below(struct rng *r, unsigned n)
{
	return (unsigned)(((rnd(r) >> 32) * n) >> 32);
}

static inline bool chance(struct rng *r, unsigned percent)
{
	return below(r, 100) < percent;
}

/* gen_values.c */
uint64_t gen_edge_int(struct rng *r);
/* An address for an access of about `size` bytes; `wide`: any of 64 bits. */
uint64_t gen_address(struct rng *r, unsigned size, bool wide);
uint64_t gen_value(struct rng *r, bool wide);
uint32_t gen_float32(struct rng *r);
uint64_t gen_float64(struct rng *r);
void gen_float80(struct rng *r, uint8_t *p);
/* `bytes` of elements of one kind. */
void gen_lanes(struct rng *r, uint8_t *p, unsigned bytes);

/* gen_insn.c */
struct bytes {
	uint8_t b[32];
	unsigned n;
};
/* All of b->b: an instruction of one of the classes and what follows. */
void gen_bytes(struct rng *r, struct bytes *b, unsigned classes, unsigned mode);
