/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The rules as they are kept. */
#pragma once
#include <stdbool.h>

enum access_who { ACCESS_ANYBODY, ACCESS_UID, ACCESS_GID, ACCESS_SASL, ACCESS_DN, ACCESS_TRANSPORT };

struct access_permission {
	const char *object, *permission; /* "*": any */
};

struct access_line {
	bool allow;
	enum access_who who;
	unsigned id; /* of a user, a group or a transport */
	const char *pattern; /* of SASL names and certificates' */
	struct access_permission *what;
	unsigned nwhat;
	const char *name; /* pattern, or NULL: whatever it is called */
};

struct rpc_access {
	char *text; /* what the strings are parts of */
	struct access_line *lines;
	unsigned nlines;
};
