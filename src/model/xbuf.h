/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Text that grows, with XML's indentation and escapes. A failed allocation is remembered and shows at the end. */
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct xbuf {
	char *s; /* malloced, NUL-terminated; NULL while empty */
	size_t len, room;
	bool failed;
	unsigned indent; /* spaces */
};

void xbuf_add(struct xbuf *b, const char *text, size_t len);
void xbuf_puts(struct xbuf *b, const char *text);
void xbuf_printf(struct xbuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void xbuf_pad(struct xbuf *b); /* the indentation */
/* As libvirt: the five entities; control characters that XML 1.0 can't hold are left out. */
void xbuf_escape(struct xbuf *b, const char *text);
/* A line: indentation, text, newline. */
void xbuf_line(struct xbuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void xbuf_attr(struct xbuf *b, const char *name, const char *value); /* " name='value'"; nothing for NULL */
/* The text, which the caller frees; NULL without memory. */
char *xbuf_take(struct xbuf *b);
void xbuf_free(struct xbuf *b);
