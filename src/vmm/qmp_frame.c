/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/qmp_frame.h"

#include <stdlib.h>
#include <string.h>

void qmp_frame_reset(struct qmp_frame *f)
{
	f->len = 0;
	f->depth = 0;
	f->in_string = f->escaped = false;
}

void qmp_frame_free(struct qmp_frame *f)
{
	free(f->data);
	memset(f, 0, sizeof(*f));
}

static bool keep(struct qmp_frame *f, char c)
{
	if (f->len == QMP_MESSAGE_MAX)
		return false;
	if (f->len == f->room) {
		size_t room = f->room ? 2 * f->room : 512;
		char *p = realloc(f->data, room);

		if (!p)
			return false;
		f->data = p;
		f->room = room;
	}
	f->data[f->len++] = c;
	return true;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

enum qmp_frame_result qmp_frame_feed(struct qmp_frame *f, const char *data, size_t len, size_t *used)
{
	for (size_t i = 0; i < len; i++) {
		char c = data[i];

		*used = i + 1;
		if (!f->len && is_space(c))
			continue;
		if (!keep(f, c))
			return QMP_FRAME_TOO_BIG;
		if (f->data[0] != '{') {
			if (c == '\n')
				return QMP_FRAME_GARBAGE;
			continue;
		}
		if (f->in_string) {
			if (f->escaped)
				f->escaped = false;
			else if (c == '\\')
				f->escaped = true;
			else if (c == '"')
				f->in_string = false;
		} else if (c == '"') {
			f->in_string = true;
		} else if (c == '{' || c == '[') {
			if (++f->depth > QMP_DEPTH_MAX)
				return QMP_FRAME_TOO_BIG;
		} else if (c == '}' || c == ']') {
			if (--f->depth == 0)
				return QMP_FRAME_VALUE;
		}
	}
	*used = len;
	return QMP_FRAME_MORE;
}
