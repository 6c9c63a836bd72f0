/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP bytes through the framer and the JSON parser behind it. */
#include <jansson.h>
#include <stdint.h>

#include "vmm/qmp_frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct qmp_frame f = { 0 };

	while (len) {
		size_t used = 0;
		enum qmp_frame_result r = qmp_frame_feed(&f, (const char *)data, len, &used);

		if (!used || used > len)
			__builtin_trap();
		if (r == QMP_FRAME_VALUE) {
			json_error_t why;

			json_decref(json_loadb(f.data, f.len, JSON_REJECT_DUPLICATES, &why));
			qmp_frame_reset(&f);
		} else if (r == QMP_FRAME_GARBAGE) {
			qmp_frame_reset(&f);
		} else if (r == QMP_FRAME_TOO_BIG) {
			break;
		}
		data += used;
		len -= used;
	}
	qmp_frame_free(&f);
	return 0;
}
