/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/codec.h"

#include <string.h>

#include "rpc/wire.h"

const struct rpc_program *rpc_program_find(uint32_t number)
{
	for (const struct rpc_program *const *p = rpc_programs; *p; p++)
		if ((*p)->number == number)
			return *p;
	return NULL;
}

const struct rpc_proc *rpc_proc_find(const struct rpc_program *program, uint32_t number)
{
	if (number >= program->nprocs || !program->procs[number].name)
		return NULL;
	return &program->procs[number];
}

/* Bytes of one element in memory, and the fewest it has on the wire. */
static size_t element_size(const struct wire_field *f)
{
	static const uint8_t sizes[] = {
		[WIRE_INT] = 4,	   [WIRE_UINT] = 4,
		[WIRE_HYPER] = 8,  [WIRE_UHYPER] = 8,
		[WIRE_SHORT] = 2,  [WIRE_USHORT] = 2,
		[WIRE_CHAR] = 1,   [WIRE_UCHAR] = 1,
		[WIRE_DOUBLE] = 8, [WIRE_STRING] = sizeof(char *),
		[WIRE_UUID] = 16,  [WIRE_OPAQUE] = 1,
	};

	return f->kind == WIRE_STRUCT ? f->type->size : sizes[f->kind];
}

static size_t element_wire_min(const struct wire_field *f)
{
	switch (f->kind) {
	case WIRE_HYPER:
	case WIRE_UHYPER:
	case WIRE_DOUBLE:
		return 8;
	case WIRE_UUID:
		return 16;
	case WIRE_STRUCT:
		return f->type->wire_min;
	default:
		return 4;
	}
}

static bool decode_string(struct xdr_reader *r, char **out, struct arena *arena)
{
	size_t len;
	const uint8_t *p = xdr_get_opaque(r, WIRE_STRING_MAX, &len);

	if (!p || memchr(p, 0, len))
		return false;
	*out = arena_alloc(arena, len + 1);
	if (!*out)
		return false;
	memcpy(*out, p, len);
	return true;
}

/* Small integers travel as four bytes; what does not fit back is malformed. */
static bool decode_small(struct xdr_reader *r, int32_t min, int32_t max, int32_t *out)
{
	*out = (int32_t)xdr_get_u32(r);
	return !r->failed && *out >= min && *out <= max;
}

static bool decode_one(const struct wire_field *f, struct xdr_reader *r, void *at, struct arena *arena)
{
	const uint8_t *p;
	uint64_t u64;
	uint32_t u32;
	int32_t small;

	switch (f->kind) {
	case WIRE_INT:
	case WIRE_UINT:
		u32 = xdr_get_u32(r);
		memcpy(at, &u32, 4);
		return !r->failed;
	case WIRE_HYPER:
	case WIRE_UHYPER:
	case WIRE_DOUBLE:
		u64 = xdr_get_u64(r);
		memcpy(at, &u64, 8);
		return !r->failed;
	case WIRE_SHORT:
		if (!decode_small(r, INT16_MIN, INT16_MAX, &small))
			return false;
		*(int16_t *)at = (int16_t)small;
		return true;
	case WIRE_USHORT:
		if (!decode_small(r, 0, UINT16_MAX, &small))
			return false;
		*(uint16_t *)at = (uint16_t)small;
		return true;
	case WIRE_CHAR:
		/* Peers differ in whether a char has a sign. */
		if (!decode_small(r, INT8_MIN, UINT8_MAX, &small))
			return false;
		*(int8_t *)at = (int8_t)small;
		return true;
	case WIRE_UCHAR:
		if (!decode_small(r, 0, UINT8_MAX, &small))
			return false;
		*(uint8_t *)at = (uint8_t)small;
		return true;
	case WIRE_STRING:
		return decode_string(r, at, arena);
	case WIRE_UUID:
		p = xdr_get_fixed(r, 16);
		if (p)
			memcpy(at, p, 16);
		return p;
	default:
		return wire_decode_part(f->type, r, at, arena);
	}
}

static bool decode_array(const struct wire_field *f, struct xdr_reader *r, uint8_t *obj, struct arena *arena)
{
	size_t size = element_size(f);
	const uint8_t *p = NULL;
	uint32_t count;
	uint8_t *at;
	size_t len;

	if (f->kind == WIRE_OPAQUE) {
		p = xdr_get_opaque(r, f->count, &len);
		if (!p)
			return false;
		count = (uint32_t)len;
	} else {
		count = xdr_get_u32(r);
		/* So many elements have that many bytes at least: no memory for a mere promise. */
		if (r->failed || count > f->count || count > xdr_left(r) / element_wire_min(f))
			return false;
	}
	at = arena_alloc(arena, count * size);
	if (!at)
		return false;
	memcpy(obj + f->len_offset, &count, sizeof(count));
	memcpy(obj + f->offset, &at, sizeof(at));
	if (f->kind == WIRE_OPAQUE) {
		memcpy(at, p, count);
		return true;
	}
	for (; count; count--, at += size)
		if (!decode_one(f, r, at, arena))
			return false;
	return true;
}

static bool decode_field(const struct wire_field *f, struct xdr_reader *r, uint8_t *obj, struct arena *arena)
{
	uint8_t *at = obj + f->offset;
	size_t size = element_size(f);

	switch (f->shape) {
	case WIRE_ONE:
		return decode_one(f, r, at, arena);
	case WIRE_OPTIONAL:
		if (!xdr_get_bool(r))
			return !r->failed;
		if (f->kind == WIRE_STRUCT) {
			void *part = arena_alloc(arena, size);

			memcpy(at, &part, sizeof(part));
			return part && decode_one(f, r, part, arena);
		}
		return decode_one(f, r, at, arena);
	case WIRE_ARRAY:
		return decode_array(f, r, obj, arena);
	default:
		for (uint32_t n = 0; n < f->count; n++)
			if (!decode_one(f, r, at + n * size, arena))
				return false;
		return true;
	}
}

static const struct wire_field *union_field(const struct wire_type *t, int32_t which)
{
	for (unsigned n = 0; n < t->nfields; n++)
		if (t->fields[n].union_case == which)
			return &t->fields[n];
	return NULL;
}

bool wire_decode_part(const struct wire_type *t, struct xdr_reader *r, void *obj, struct arena *arena)
{
	if (!t)
		return true;
	if (t->is_union) {
		int32_t which = (int32_t)xdr_get_u32(r);
		const struct wire_field *f = r->failed ? NULL : union_field(t, which);

		memcpy(obj, &which, sizeof(which));
		return f && decode_field(f, r, obj, arena);
	}
	for (unsigned n = 0; n < t->nfields; n++)
		if (!decode_field(&t->fields[n], r, obj, arena))
			return false;
	return true;
}

bool wire_decode(const struct wire_type *t, struct xdr_reader *r, void *obj, struct arena *arena)
{
	return wire_decode_part(t, r, obj, arena) && !xdr_left(r);
}

static void encode_one(const struct wire_field *f, struct xdr_writer *w, const void *at)
{
	uint64_t u64;
	uint32_t u32;
	int32_t small;
	const char *s;
	size_t len;

	switch (f->kind) {
	case WIRE_INT:
	case WIRE_UINT:
		memcpy(&u32, at, 4);
		xdr_put_u32(w, u32);
		break;
	case WIRE_HYPER:
	case WIRE_UHYPER:
	case WIRE_DOUBLE:
		memcpy(&u64, at, 8);
		xdr_put_u64(w, u64);
		break;
	case WIRE_SHORT:
		small = *(const int16_t *)at;
		xdr_put_u32(w, (uint32_t)small);
		break;
	case WIRE_USHORT:
		xdr_put_u32(w, *(const uint16_t *)at);
		break;
	case WIRE_CHAR:
		small = *(const int8_t *)at;
		xdr_put_u32(w, (uint32_t)small);
		break;
	case WIRE_UCHAR:
		xdr_put_u32(w, *(const uint8_t *)at);
		break;
	case WIRE_STRING:
		memcpy(&s, at, sizeof(s));
		len = s ? strlen(s) : 0;
		if (!s || len > WIRE_STRING_MAX)
			w->failed = true;
		else
			xdr_put_opaque(w, s, len);
		break;
	case WIRE_UUID:
		xdr_put_fixed(w, at, 16);
		break;
	default:
		wire_encode(f->type, w, at);
	}
}

static void encode_field(const struct wire_field *f, struct xdr_writer *w, const uint8_t *obj)
{
	const uint8_t *at = obj + f->offset, *part;
	size_t size = element_size(f);
	uint32_t count;

	switch (f->shape) {
	case WIRE_ONE:
		encode_one(f, w, at);
		break;
	case WIRE_OPTIONAL:
		memcpy(&part, at, sizeof(part));
		xdr_put_u32(w, part != NULL);
		if (part)
			encode_one(f, w, f->kind == WIRE_STRUCT ? part : at);
		break;
	case WIRE_ARRAY:
		memcpy(&count, obj + f->len_offset, sizeof(count));
		memcpy(&part, at, sizeof(part));
		if (count > f->count) {
			w->failed = true;
		} else if (f->kind == WIRE_OPAQUE) {
			xdr_put_opaque(w, part, count);
		} else {
			xdr_put_u32(w, count);
			for (; count && !w->failed; count--, part += size)
				encode_one(f, w, part);
		}
		break;
	default:
		for (uint32_t n = 0; n < f->count; n++)
			encode_one(f, w, at + n * size);
	}
}

bool wire_encode(const struct wire_type *t, struct xdr_writer *w, const void *obj)
{
	if (!t)
		return !w->failed;
	if (t->is_union) {
		const struct wire_field *f;
		int32_t which;

		memcpy(&which, obj, sizeof(which));
		f = union_field(t, which);
		if (!f) {
			w->failed = true;
			return false;
		}
		xdr_put_u32(w, (uint32_t)which);
		encode_field(f, w, obj);
		return !w->failed;
	}
	for (unsigned n = 0; n < t->nfields && !w->failed; n++)
		encode_field(&t->fields[n], w, obj);
	return !w->failed;
}
