/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an image is, for those who make one of something else. */
#pragma once
#include "image/image.h"

struct remote;

struct image {
	char *path;
	int fd;
	unsigned flags;
	bool no_punch;
	uint64_t size;		/* raw */
	const char *key_secret; /* or NULL; while it is being opened */
	struct qcow2 *q;	/* which owns the descriptor then */
	struct remote *remote;	/* or NULL; there is no descriptor then */
};

/* The open file becomes writable, or reading is all that is done to it: its descriptor's mode and its locks. */
int image_reopen_fd(int fd, const char *path, bool write, struct err *err);
