/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Structs to XDR and back, driven by the tables that schema.py makes.
 *
 * Strings are UTF-8 or whatever the peer sends, without NUL inside; a string
 * that is not optional is never NULL after decoding. An array is a pointer and
 * a member NAME_len before it. Absent optionals are NULL.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/arena.h"
#include "rpc/xdr.h"

enum wire_kind {
	WIRE_INT,
	WIRE_UINT,
	WIRE_HYPER,
	WIRE_UHYPER,
	WIRE_SHORT,
	WIRE_USHORT,
	WIRE_CHAR,
	WIRE_UCHAR,
	WIRE_DOUBLE,
	WIRE_STRING,
	WIRE_UUID,
	WIRE_OPAQUE,
	WIRE_STRUCT,
};

enum wire_shape { WIRE_ONE, WIRE_OPTIONAL, WIRE_ARRAY, WIRE_FIXED };

struct wire_type;

struct wire_field {
	const char *name;
	const struct wire_type *type; /* of WIRE_STRUCT */
	uint8_t kind, shape;
	uint16_t offset, len_offset;
	uint32_t count; /* elements: at most of an array, exactly of a fixed one */
	int32_t union_case;
};

struct wire_type {
	const char *name;
	size_t size;
	size_t wire_min; /* fewest bytes on the wire */
	bool is_union;	 /* int32_t type, then one of the fields */
	unsigned nfields;
	const struct wire_field *fields;
};

/* An access rule; when it applies is said by a field of the arguments. */
enum rpc_when { RPC_WHEN_ALWAYS, RPC_WHEN_ANY, RPC_WHEN_NONE, RPC_WHEN_EQUAL };

struct rpc_rule {
	const char *object, *permission;
	enum rpc_when when;
	uint16_t offset;
	uint32_t value;
};

enum rpc_stream_kind { RPC_STREAM_NONE, RPC_STREAM_READ, RPC_STREAM_WRITE };

struct rpc_program;

struct rpc_proc {
	const char *name;     /* NULL: no such number */
	const char *function; /* the public function it serves, as messages name it */
	uint32_t number;
	const struct rpc_program *program;
	bool is_event, high_priority;
	enum rpc_stream_kind stream;
	const struct wire_type *args, *ret; /* NULL for nothing */
	const struct rpc_rule *rules;
	unsigned nrules;
	const char *filter_object, *filter_permission; /* what each item of a list needs; or NULL */
};

struct rpc_program {
	const char *name;
	uint32_t number, version;
	const struct rpc_proc *procs; /* by number */
	uint32_t nprocs;
};

/* NULL if there is none. */
const struct rpc_program *rpc_program_find(uint32_t number);
const struct rpc_proc *rpc_proc_find(const struct rpc_program *program, uint32_t number);

/*
 * Decode all of `r` into `obj`, which is t->size zeroed bytes; parts go to the
 * arena. A NULL type is an empty record. False: malformed, out of a bound,
 * bytes left over, or no memory.
 */
bool wire_decode(const struct wire_type *t, struct xdr_reader *r, void *obj, struct arena *arena);
/* As wire_decode(), for a record that others follow. */
bool wire_decode_part(const struct wire_type *t, struct xdr_reader *r, void *obj, struct arena *arena);
/* Append. False (and w->failed) if something is out of its bound or there is no room. */
bool wire_encode(const struct wire_type *t, struct xdr_writer *w, const void *obj);
