/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The instruction decoder over any bytes in any mode. Properties: it never
 * reads past the bytes given (an exact heap copy, for the address sanitizer);
 * bytes that it did not ask for change nothing; with one byte less than the
 * instruction's length it asks for more.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/soft/soft.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum decode_result decode_exact(struct insn *i, const uint8_t *bytes, unsigned n, unsigned mode)
{
	uint8_t *copy = malloc(n ? n : 1);
	enum decode_result r;

	if (!copy)
		abort();
	memcpy(copy, bytes, n);
	r = insn_decode(i, copy, n, mode);
	free(copy);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const unsigned modes[] = {MODE_16, MODE_32, MODE_64, MODE_64 | MODE_AMD_BRANCH16};
	enum decode_result last = DECODE_MORE;
	struct insn first, i;
	unsigned mode, n, max;

	if (size < 1)
		return 0;
	mode = modes[data[0] & 3];
	data++;
	max = size - 1 < 20 ? (unsigned)size - 1 : 20;
	for (n = 0; n <= max; n++) {
		enum decode_result r = decode_exact(&i, data, n, mode);

		if (last == DECODE_MORE) {
			if (r == DECODE_MORE) {
				if (n >= 15)
					abort(); /* that would be too long */
				continue;
			}
			if ((r == DECODE_OK || r == DECODE_UD) && (i.len != n || i.len > 15 || memcmp(i.bytes, data, i.len)))
				abort();
			first = i;
			last = r;
		} else if (r != last || ((r == DECODE_OK || r == DECODE_UD) && memcmp(&i, &first, sizeof(i)))) {
			abort();
		}
	}
	if (last == DECODE_OK) {
		if (first.map >= MAP_COUNT || first.base > REG_RIP || first.index > REG_ZERO || first.scale > 3 || first.reg > 15 ||
		    first.rm > 15 || first.vvvv > 15 || first.seg > SEG_NONE || first.raw_opcode_at >= first.len ||
		    first.bytes[first.raw_opcode_at] != first.opcode || first.has_imm > 8 ||
		    (first.opsize != 2 && first.opsize != 4 && first.opsize != 8) ||
		    (first.addrsize != 2 && first.addrsize != 4 && first.addrsize != 8))
			abort();
		if (first.mode != MODE_64 && (first.reg > 7 || first.rm > 7 || first.vvvv > 7 || first.opsize == 8))
			abort();
	}
	return 0;
}
