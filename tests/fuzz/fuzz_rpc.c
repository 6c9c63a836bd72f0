/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * RPC bytes. The first byte chooses: the framer, the error record, or the decoder of a type; what a decoder accepts
 * has to come out of the encoder as it went in (a char has two spellings: its second encoding decides).
 */
#include <stdlib.h>
#include <string.h>

#include "rpc/frame.h"
#include "rpc/wire.h"

static void decode(const struct wire_type *t, const uint8_t *data, size_t len)
{
	struct arena arena = { .max = 8u << 20 };
	struct xdr_writer w = xdr_writer(64u << 20), again = xdr_writer(64u << 20);
	struct xdr_reader r = xdr_reader(data, len);
	void *a = arena_alloc(&arena, t->size), *b = arena_alloc(&arena, t->size);

	if (a && b && wire_decode(t, &r, a, &arena)) {
		if (!wire_encode(t, &w, a) || w.len != len)
			__builtin_trap();
		r = xdr_reader(w.data, w.len);
		if (arena.used < 4u << 20) {
			if (!wire_decode(t, &r, b, &arena) || !wire_encode(t, &again, b) || again.len != w.len ||
			    memcmp(again.data, w.data, w.len))
				__builtin_trap();
		}
	}
	xdr_writer_free(&w);
	xdr_writer_free(&again);
	arena_free(&arena);
}

static void payload(const struct rpc_frame *f)
{
	const struct rpc_program *program = rpc_program_find(f->header.program);
	const struct rpc_proc *proc = program ? rpc_proc_find(program, f->header.procedure) : NULL;

	if (proc && proc->args)
		decode(proc->args, f->payload, f->payload_len);
	if (proc && proc->ret)
		decode(proc->ret, f->payload, f->payload_len);
}

static void frames(const uint8_t *data, size_t len)
{
	struct rpc_frame f = { 0 };

	while (len) {
		size_t used;
		enum rpc_frame_result r = rpc_frame_feed(&f, data, len, &used);

		if (used > len || (!used && r == RPC_FRAME_MORE))
			__builtin_trap();
		if (r == RPC_FRAME_BAD || r == RPC_FRAME_NO_MEMORY)
			break;
		if (r == RPC_FRAME_PACKET) {
			payload(&f);
			rpc_frame_next(&f);
		}
		data += used;
		len -= used;
	}
	rpc_frame_free(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static unsigned types;

	while (!types || wire_types[types])
		types++;
	if (len < 2)
		return 0;
	if (data[0] & 0x80)
		frames(data + 2, len - 2);
	else
		decode(wire_types[(data[0] << 8 | data[1]) % types], data + 2, len - 2);
	return 0;
}
