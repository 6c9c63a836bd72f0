/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "model/xbuf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(struct xbuf *b, size_t more)
{
	size_t room = b->room ? b->room : 256;
	char *s;

	if (b->failed)
		return false;
	if (b->s && b->room - b->len > more)
		return true;
	while (room - b->len <= more)
		room *= 2;
	s = realloc(b->s, room);
	if (!s) {
		b->failed = true;
		return false;
	}
	b->s = s;
	b->room = room;
	return true;
}

void xbuf_add(struct xbuf *b, const char *text, size_t len)
{
	if (!reserve(b, len))
		return;
	memcpy(b->s + b->len, text, len);
	b->len += len;
	b->s[b->len] = '\0';
}

void xbuf_puts(struct xbuf *b, const char *text)
{
	xbuf_add(b, text, strlen(text));
}

static void add_formatted(struct xbuf *b, const char *fmt, va_list args)
{
	va_list again;
	size_t room;
	int n;

	if (!reserve(b, 128)) /* enough, mostly */
		return;
	room = b->room - b->len;
	va_copy(again, args);
	n = vsnprintf(b->s + b->len, room, fmt, again);
	va_end(again);
	if (n >= 0 && (size_t)n >= room && reserve(b, n))
		n = vsnprintf(b->s + b->len, n + 1, fmt, args);
	if (n < 0)
		b->failed = true;
	if (!b->failed)
		b->len += n;
}

void xbuf_printf(struct xbuf *b, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	add_formatted(b, fmt, args);
	va_end(args);
}

void xbuf_pad(struct xbuf *b)
{
	static const char spaces[] = "                                ";

	for (unsigned left = b->indent, n; left; left -= n) {
		n = left < sizeof(spaces) - 1 ? left : sizeof(spaces) - 1;
		xbuf_add(b, spaces, n);
	}
}

void xbuf_line(struct xbuf *b, const char *fmt, ...)
{
	va_list args;

	xbuf_pad(b);
	va_start(args, fmt);
	add_formatted(b, fmt, args);
	va_end(args);
	xbuf_add(b, "\n", 1);
}

void xbuf_escape(struct xbuf *b, const char *text)
{
	for (const char *from = text;; text++) {
		const char *as;

		switch (*text) {
		case '<': as = "&lt;"; break;
		case '>': as = "&gt;"; break;
		case '&': as = "&amp;"; break;
		case '\'': as = "&apos;"; break;
		case '"': as = "&quot;"; break;
		case '\t':
		case '\n':
		case '\r': continue;
		default:
			if ((unsigned char)*text >= 0x20)
				continue;
			as = "";
		}
		xbuf_add(b, from, text - from);
		xbuf_puts(b, as);
		if (!*text)
			return;
		from = text + 1;
	}
}

void xbuf_attr(struct xbuf *b, const char *name, const char *value)
{
	if (!value)
		return;
	xbuf_add(b, " ", 1);
	xbuf_puts(b, name);
	xbuf_add(b, "='", 2);
	xbuf_escape(b, value);
	xbuf_add(b, "'", 1);
}

char *xbuf_take(struct xbuf *b)
{
	char *s;

	xbuf_add(b, "", 0); /* an empty text is one, too */
	s = b->s;
	if (b->failed) {
		free(s);
		s = NULL;
	}
	*b = (struct xbuf){ 0 };
	return s;
}

void xbuf_free(struct xbuf *b)
{
	free(b->s);
	*b = (struct xbuf){ 0 };
}
