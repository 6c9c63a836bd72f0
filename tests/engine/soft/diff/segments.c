/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Segments for code outside 64-bit mode: flat ones as programs have them, and
 * an LDT of small ones over the windows, so that limits, expand-down, read-only
 * and 16-bit segments are seen to work.
 */
#include <asm/ldt.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "diff.h"

#define LDT(n) ((n) << 3 | 7)
#define DATA(type) (0xf0 | (type)) /* present, ring 3, not a system segment */
#define WINDOW (3 * PAGE)

const struct diff_segment diff_segments[DIFF_SEGMENTS] = {
	[DIFF_NULL] = { 0, 0, SEG_ATTR_UNUSABLE, 0 },
	[DIFF_FLAT_DATA] = { 0, UINT32_MAX, DATA(3) | SEG_ATTR_DB | SEG_ATTR_G, 0x2b },
	[DIFF_FLAT_CODE] = { 0, UINT32_MAX, DATA(0xb) | SEG_ATTR_DB | SEG_ATTR_G, 0x23 },
	[DIFF_RW] = { DATA_BASE, WINDOW - 1, DATA(3) | SEG_ATTR_DB, LDT(DIFF_RW) },
	[DIFF_RW16] = { DATA_BASE, WINDOW - 1, DATA(3), LDT(DIFF_RW16) },
	[DIFF_RO] = { DATA_BASE, WINDOW - 1, DATA(1) | SEG_ATTR_DB, LDT(DIFF_RO) },
	[DIFF_DOWN] = { DATA_BASE - 0x10000, 0xffff, DATA(7) | SEG_ATTR_DB, LDT(DIFF_DOWN) },
	[DIFF_DOWN16] = { DATA_BASE - 0x8000, 0x7fff, DATA(7), LDT(DIFF_DOWN16) },
	[DIFF_STACK] = { STACK_BASE, PAGE - 1, DATA(3) | SEG_ATTR_DB, LDT(DIFF_STACK) },
	[DIFF_STACK16] = { STACK_BASE, PAGE - 1, DATA(3), LDT(DIFF_STACK16) },
	[DIFF_CODE16] = { CODE_BASE, 0xffff, DATA(0xb), LDT(DIFF_CODE16) },
	[DIFF_CODE32] = { CODE_BASE, 0xffff, DATA(0xb) | SEG_ATTR_DB, LDT(DIFF_CODE32) },
	[DIFF_BASE] = { DATA_BASE + PAGE + 1, UINT32_MAX, DATA(3) | SEG_ATTR_DB | SEG_ATTR_G, LDT(DIFF_BASE) },
	[DIFF_EXEC32] = { CODE_BASE, 0xffff, DATA(9) | SEG_ATTR_DB, LDT(DIFF_EXEC32) },
};

bool diff_segments_init(void)
{
	for (unsigned n = 0; n < DIFF_SEGMENTS; n++) {
		const struct diff_segment *s = &diff_segments[n];
		unsigned type = s->attr & SEG_ATTR_TYPE;
		struct user_desc d = {
			.entry_number = n,
			.base_addr = s->base,
			.limit = s->attr & SEG_ATTR_G ? s->limit >> 12 : s->limit,
			.limit_in_pages = !!(s->attr & SEG_ATTR_G),
			.seg_32bit = !!(s->attr & SEG_ATTR_DB),
			.contents = type >> 2,
			.read_exec_only = !(type & 2),
			.useable = 1,
		};

		if (s->selector == LDT(n) && syscall(SYS_modify_ldt, 0x11, &d, sizeof(d)))
			return false;
	}
	return true;
}
