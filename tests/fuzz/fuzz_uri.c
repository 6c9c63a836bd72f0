/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Connection URIs: what is taken has all that a connection needs. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/uri.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	struct err err = ERR_INIT;
	struct uri u;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	if (!uri_parse(&u, text, &err)) {
		assert(u.path && u.remote && !u.host == (u.transport == URI_UNIX) && u.port <= 65535);
		assert(!strcmp(u.path, "system") || !strcmp(u.path, "session"));
	} else {
		assert(err.code);
	}
	uri_free(&u);
	free(text);
	return 0;
}
