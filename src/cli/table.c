/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

#include "cli/verb.h"

struct table {
	unsigned columns, rows, room;
	char **cells; /* the titles are the first row */
};

/* What a terminal can show of it: bytes that are no text become \xNN. Malloced. */
static char *shown(const char *s)
{
	size_t len = strlen(s);
	char *out = malloc(4 * len + 1), *to = out;
	mbstate_t state = { 0 };

	for (const char *end = s + len; out && s < end;) {
		wchar_t wc;
		size_t n = mbrtowc(&wc, s, (size_t)(end - s), &state);

		if (n != (size_t)-1 && n != (size_t)-2 && n && iswprint((wint_t)wc)) {
			memcpy(to, s, n);
			to += n;
			s += n;
			continue;
		}
		memset(&state, 0, sizeof(state));
		to += sprintf(to, "\\x%02x", (unsigned char)*s++);
	}
	if (out)
		*to = 0;
	return out;
}

static size_t width(const char *s)
{
	mbstate_t state = { 0 };
	size_t total = 0, n;
	wchar_t wc;

	for (; *s; s += n) {
		n = mbrtowc(&wc, s, MB_CUR_MAX, &state);
		if (!n || n == (size_t)-1 || n == (size_t)-2)
			return total + strlen(s);
		total += wcwidth(wc) > 0 ? (size_t)wcwidth(wc) : 0;
	}
	return total;
}

struct table *table_new(unsigned columns, const char *const *titles)
{
	struct table *t = calloc(1, sizeof(*t));

	if (!t)
		abort(); /* a table of a few lines */
	t->columns = columns;
	table_row(t, titles);
	return t;
}

void table_row(struct table *t, const char *const *cells)
{
	if (t->rows == t->room) {
		t->room = t->room ? 2 * t->room : 16;
		t->cells = realloc(t->cells, (size_t)t->room * t->columns * sizeof(char *));
		if (!t->cells)
			abort();
	}
	for (unsigned n = 0; n < t->columns; n++)
		t->cells[t->rows * t->columns + n] = shown(cells[n] ? cells[n] : "-");
	t->rows++;
}

static void table_free(struct table *t)
{
	for (unsigned n = 0; n < t->rows * t->columns; n++)
		free(t->cells[n]);
	free(t->cells);
	free(t);
}

void table_end(struct table *t)
{
	size_t *widths = calloc(t->columns, sizeof(*widths)), line = 0;

	for (unsigned n = 0; widths && n < t->rows * t->columns; n++)
		if (width(t->cells[n]) > widths[n % t->columns])
			widths[n % t->columns] = width(t->cells[n]);
	for (unsigned row = 0; widths && row < t->rows; row++) {
		for (unsigned n = 0; n < t->columns; n++) {
			const char *cell = t->cells[row * t->columns + n];

			printf(" %s", cell);
			if (n + 1 < t->columns)
				printf("%*s", (int)(widths[n] - width(cell) + 2), "");
		}
		putchar('\n');
		if (row)
			continue;
		for (unsigned n = 0; n < t->columns; n++)
			line += widths[n] + 3;
		while (line--)
			putchar('-');
		putchar('\n');
	}
	free(widths);
	table_free(t);
}

json_t *table_json(struct table *t)
{
	json_t *list = json_array();

	for (unsigned row = 1; row < t->rows; row++) {
		json_t *o = json_object();

		for (unsigned n = 0; n < t->columns; n++) {
			const char *cell = t->cells[row * t->columns + n];
			char name[64];
			size_t i;

			for (i = 0; t->cells[n][i] && i < sizeof(name) - 1; i++)
				name[i] = t->cells[n][i] == ' ' ? '-' : (char)tolower((unsigned char)t->cells[n][i]);
			name[i] = 0;
			json_object_set_new(o, name, strcmp(cell, "-") ? json_string(cell) : json_null());
		}
		json_array_append_new(list, o);
	}
	table_free(t);
	return list;
}
