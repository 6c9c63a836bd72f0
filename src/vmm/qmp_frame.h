/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Finds the JSON values in a QMP byte stream, whatever the white space between them. Pure: it takes bytes and keeps a little state. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#define QMP_MESSAGE_MAX (1u << 20) /* bytes of one command */
#define QMP_DEPTH_MAX 64u

struct qmp_frame {
	char *data; /* of the value being collected, malloced */
	size_t len, room;
	unsigned depth;
	bool in_string, escaped;
};

enum qmp_frame_result {
	QMP_FRAME_MORE,    /* all bytes were consumed, no value is complete */
	QMP_FRAME_VALUE,   /* frame->data[0..len) is a value; call qmp_frame_reset() before going on */
	QMP_FRAME_GARBAGE, /* a value that is no object: skipped to the end of its line */
	QMP_FRAME_TOO_BIG, /* longer or deeper than allowed, or out of memory: close the connection */
};

/* Feed bytes from *data; *used tells how many were taken. */
enum qmp_frame_result qmp_frame_feed(struct qmp_frame *f, const char *data, size_t len, size_t *used);
void qmp_frame_reset(struct qmp_frame *f);
void qmp_frame_free(struct qmp_frame *f);
