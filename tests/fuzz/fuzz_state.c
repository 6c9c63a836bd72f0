/* SPDX-License-Identifier: GPL-2.0-or-later */
/* State streams: the vCPU's table is the largest of all. */
#include <stdint.h>

#include "machine/machine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct cpu_state s;
	struct state_reader r = { .data = data, .len = len };

	while (state_next(&r, NULL) == 1)
		state_load(&r, &cpu_state_desc, &s, NULL);
	return 0;
}
