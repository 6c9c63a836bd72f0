/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory that lives as long as one message: taken in small pieces, given back
 * all at once. Pieces are zeroed and aligned for any type. Not thread-safe.
 */
#pragma once
#include <stddef.h>

struct arena_chunk;

struct arena {
	struct arena_chunk *chunks;
	size_t used; /* bytes taken so far */
	size_t max;  /* arena_alloc() fails beyond; 0: no limit */
};

/* NULL if there is no memory or the limit is reached. */
void *arena_alloc(struct arena *a, size_t size);
char *arena_strdup(struct arena *a, const char *s);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Give everything back; the arena is empty and may be used again. */
void arena_free(struct arena *a);
