/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Member types of definitions. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum tristate { TRI_YES = 1, TRI_NO }; /* also "on" and "off" */

/* Numbers for which 0 is a value and absence is another. */
struct opt32 {
	uint32_t value;
	bool set;
};
struct opt64 {
	uint64_t value;
	bool set;
};
struct optint {
	int64_t value;
	bool set;
};
struct opt_uuid {
	uint8_t bytes[16];
	bool set;
};
struct opt_mac {
	uint8_t bytes[6];
	bool set;
};

/* v[0..n): each malloced. */
#define LIST(type)                                                                                                     \
	struct {                                                                                                       \
		type **v;                                                                                              \
		unsigned n;                                                                                            \
	}
