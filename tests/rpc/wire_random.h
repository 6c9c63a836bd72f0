/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random records of any wire type, and their comparison. */
#pragma once
#include <stdlib.h>
#include <string.h>

#include "rpc/wire.h"

static uint64_t wire_seed = 1;

static uint64_t wire_random(void)
{
	wire_seed ^= wire_seed << 13;
	wire_seed ^= wire_seed >> 7;
	wire_seed ^= wire_seed << 17;
	return wire_seed * UINT64_C(0x2545f4914f6cdd1d);
}

static size_t wire_sizeof(const struct wire_field *f)
{
	switch (f->kind) {
	case WIRE_INT:
	case WIRE_UINT:
		return 4;
	case WIRE_HYPER:
	case WIRE_UHYPER:
	case WIRE_DOUBLE:
		return 8;
	case WIRE_SHORT:
	case WIRE_USHORT:
		return 2;
	case WIRE_STRING:
		return sizeof(char *);
	case WIRE_UUID:
		return 16;
	case WIRE_STRUCT:
		return f->type->size;
	default:
		return 1;
	}
}

static void wire_randomize(const struct wire_type *t, void *obj, struct arena *a, unsigned many);

static void wire_randomize_one(const struct wire_field *f, uint8_t *at, struct arena *a, unsigned many)
{
	if (f->kind == WIRE_STRUCT) {
		wire_randomize(f->type, at, a, many);
	} else if (f->kind == WIRE_STRING) {
		size_t len = wire_random() % (many + 1);
		char *s = arena_alloc(a, len + 1);

		for (size_t n = 0; n < len; n++)
			s[n] = (char)(1 + wire_random() % 255);
		memcpy(at, &s, sizeof(s));
	} else {
		for (size_t n = 0; n < wire_sizeof(f); n++)
			at[n] = (uint8_t)wire_random();
		if (f->kind == WIRE_CHAR)
			*at &= 0x7f;
	}
}

static void wire_randomize_field(const struct wire_field *f, uint8_t *obj, struct arena *a, unsigned many)
{
	uint8_t *at = obj + f->offset, *part;
	size_t size = wire_sizeof(f);
	uint32_t count = f->count;

	if (f->shape == WIRE_OPTIONAL) {
		if (wire_random() & 1)
			return;
		if (f->kind == WIRE_STRUCT) {
			part = arena_alloc(a, size);
			memcpy(at, &part, sizeof(part));
			at = part;
		}
		count = 1;
	} else if (f->shape == WIRE_ARRAY) {
		count = (uint32_t)(wire_random() % (many < count ? many + 1 : count + 1));
		part = arena_alloc(a, count * size);
		memcpy(obj + f->len_offset, &count, sizeof(count));
		memcpy(at, &part, sizeof(part));
		at = part;
	} else if (f->shape == WIRE_ONE) {
		count = 1;
	}
	for (; count; count--, at += size)
		wire_randomize_one(f, at, a, many);
}

static void wire_randomize(const struct wire_type *t, void *obj, struct arena *a, unsigned many)
{
	if (t->is_union) {
		const struct wire_field *f = &t->fields[wire_random() % t->nfields];

		memcpy(obj, &f->union_case, sizeof(f->union_case));
		wire_randomize_field(f, obj, a, many);
		return;
	}
	for (unsigned n = 0; n < t->nfields; n++)
		wire_randomize_field(&t->fields[n], obj, a, many);
}

static bool wire_equal(const struct wire_type *t, const void *a, const void *b);

static bool wire_equal_ones(const struct wire_field *f, const uint8_t *a, const uint8_t *b, uint32_t count)
{
	size_t size = wire_sizeof(f);

	for (; count; count--, a += size, b += size) {
		if (f->kind == WIRE_STRUCT) {
			if (!wire_equal(f->type, a, b))
				return false;
		} else if (f->kind == WIRE_STRING) {
			const char *s, *u;

			memcpy(&s, a, sizeof(s));
			memcpy(&u, b, sizeof(u));
			if (!s != !u || (s && strcmp(s, u)))
				return false;
		} else if (memcmp(a, b, size)) {
			return false;
		}
	}
	return true;
}

static bool wire_equal_field(const struct wire_field *f, const uint8_t *a, const uint8_t *b)
{
	const uint8_t *pa = a + f->offset, *pb = b + f->offset, *to;
	uint32_t na = 1, nb = 1;

	if (f->shape == WIRE_ARRAY || (f->shape == WIRE_OPTIONAL && f->kind == WIRE_STRUCT)) {
		memcpy(&to, pa, sizeof(to));
		pa = to;
		memcpy(&to, pb, sizeof(to));
		pb = to;
	}
	if (f->shape == WIRE_ARRAY) {
		memcpy(&na, a + f->len_offset, sizeof(na));
		memcpy(&nb, b + f->len_offset, sizeof(nb));
	} else if (f->shape == WIRE_FIXED) {
		na = nb = f->count;
	} else if (!pa != !pb) {
		return false;
	} else if (!pa) {
		return true;
	}
	return na == nb && wire_equal_ones(f, pa, pb, na);
}

static bool wire_equal(const struct wire_type *t, const void *a, const void *b)
{
	if (t->is_union) {
		int32_t ca, cb;

		memcpy(&ca, a, sizeof(ca));
		memcpy(&cb, b, sizeof(cb));
		for (unsigned n = 0; n < t->nfields; n++)
			if (t->fields[n].union_case == ca)
				return ca == cb && wire_equal_field(&t->fields[n], a, b);
		return false;
	}
	for (unsigned n = 0; n < t->nfields; n++)
		if (!wire_equal_field(&t->fields[n], a, b))
			return false;
	return true;
}
