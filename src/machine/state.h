/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * State tables: what of an object's fields makes its state. One table drives
 * save, load and inspection.
 *
 * A stream is a list of sections; a section is an object's id, its table's
 * name and version, a length and the fields in table order, little-endian.
 * Loading checks every length and range and names section and field in its
 * error; the object is then in an undefined but safe state and must be reset.
 *
 * Rules: fields are only ever appended, with `since` = the raised version. A
 * field from a version newer than the stream keeps its reset value.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/err.h"

enum state_type {
	STATE_U8, STATE_U16, STATE_U32, STATE_U64, STATE_BOOL, /* `count` of them in an array */
	STATE_BYTES,  /* `size` bytes as they are */
	STATE_STRUCT, /* `count` structs of `size` bytes described by `sub` */
	STATE_TIMER,  /* struct vtimer *: its deadline */
	STATE_VAR_U8, /* bytes: uint8_t *, length in the uint32_t at `len_offset`, at most `size` (buffer's room) */
};

struct state_field {
	const char *name;
	uint8_t type; /* enum state_type */
	uint16_t since;
	uint32_t offset, count, size, len_offset;
	const struct state_desc *sub;
	uint64_t max; /* integers: largest value that load accepts, 0: any */
};

struct state_desc {
	const char *name;
	uint16_t version;
	const struct state_field *fields; /* ends with name == NULL */
	/* Make derived fields ready for saving; check and rebuild after loading: -EINVAL and err if the values contradict. Either may be NULL. */
	void (*pre_save)(void *obj);
	int (*post_load)(void *obj, struct err *err);
};

#define STATE_COUNT(T, F) (sizeof(((T *)0)->F) / sizeof(((T *)0)->F[0]))
#define STATE_INT_(t, stype, T, F) { .name = #F, .type = stype, .since = 1, .offset = offsetof(T, F), \
	.count = 1, .size = sizeof(t) + 0 * sizeof((t *)0 == &((T *)0)->F) }
#define STATE_FIELD_U8(T, F) STATE_INT_(uint8_t, STATE_U8, T, F)
#define STATE_FIELD_U16(T, F) STATE_INT_(uint16_t, STATE_U16, T, F)
#define STATE_FIELD_U32(T, F) STATE_INT_(uint32_t, STATE_U32, T, F)
#define STATE_FIELD_U64(T, F) STATE_INT_(uint64_t, STATE_U64, T, F)
#define STATE_FIELD_BOOL(T, F) STATE_INT_(bool, STATE_BOOL, T, F)
#define STATE_ARRAY_(t, stype, T, F) { .name = #F, .type = stype, .since = 1, .offset = offsetof(T, F), \
	.count = STATE_COUNT(T, F), .size = sizeof(t) + 0 * sizeof((t *)0 == &((T *)0)->F[0]) }
#define STATE_ARRAY_U8(T, F) STATE_ARRAY_(uint8_t, STATE_U8, T, F)
#define STATE_ARRAY_U16(T, F) STATE_ARRAY_(uint16_t, STATE_U16, T, F)
#define STATE_ARRAY_U32(T, F) STATE_ARRAY_(uint32_t, STATE_U32, T, F)
#define STATE_ARRAY_U64(T, F) STATE_ARRAY_(uint64_t, STATE_U64, T, F)
#define STATE_ARRAY_BOOL(T, F) STATE_ARRAY_(bool, STATE_BOOL, T, F)
#define STATE_FIELD_BYTES(T, F) { .name = #F, .type = STATE_BYTES, .since = 1, .offset = offsetof(T, F), \
	.count = 1, .size = sizeof(((T *)0)->F) }
#define STATE_FIELD_STRUCT(T, F, desc) { .name = #F, .type = STATE_STRUCT, .since = 1, .offset = offsetof(T, F), \
	.count = 1, .size = sizeof(((T *)0)->F), .sub = desc }
#define STATE_ARRAY_STRUCT(T, F, desc) { .name = #F, .type = STATE_STRUCT, .since = 1, .offset = offsetof(T, F), \
	.count = STATE_COUNT(T, F), .size = sizeof(((T *)0)->F[0]), .sub = desc }
#define STATE_FIELD_TIMER(T, F) { .name = #F, .type = STATE_TIMER, .since = 1, .offset = offsetof(T, F), .count = 1 }
/* An integer of which load refuses values above `m`; m 0, for fields of signed types: any. */
#define STATE_FIELD_LIMITED(stype, T, F, m) { .name = #F, .type = stype, .since = 1, .offset = offsetof(T, F), \
	.count = 1, .size = sizeof(((T *)0)->F), .max = m }
#define STATE_END { .name = NULL }

/* A growing byte buffer for saving. Zero-initialize; state_buf_free() releases. */
struct state_buf {
	uint8_t *data;
	size_t len, room;
	bool failed; /* out of memory: everything after it was dropped */
};
void state_buf_free(struct state_buf *b);
void state_buf_put(struct state_buf *b, const void *data, size_t len);

/* Append the section of `obj`. 0 or -ENOMEM. The caller holds the object's lock. */
int state_save(struct state_buf *b, const char *id, const struct state_desc *desc, void *obj, struct err *err);

/*
 * Sections of a stream: state_next() steps to the next one and gives its id and
 * table name (pointers into the reader, valid until the next call), 1; 0 at
 * the end; -EINVAL on garbage. state_load() fills `obj` from the current section.
 */
struct state_reader {
	const uint8_t *data;
	size_t len, pos;
	char id[64], name[64];
	uint16_t version;
	const uint8_t *body;
	size_t body_len;
};
int state_next(struct state_reader *r, struct err *err);
int state_load(struct state_reader *r, const struct state_desc *desc, void *obj, struct err *err);

/* Largest nesting of STATE_STRUCT; deeper tables are a bug. */
#define STATE_MAX_DEPTH 4
