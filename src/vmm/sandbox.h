/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What keel-vmm takes from itself, so that a guest that has taken it over gets
 * next to nothing. In two steps: sandbox_confine() before anything is read that
 * somebody else may have written, where whoever started us has opened all files;
 * sandbox_seal() before the guest runs. docs/sandbox.md says what confines what.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "util/err.h"
#include "util/threads.h"

enum sandbox_mode {
	SANDBOX_AUTO,  /* on; paths where a QMP socket was named by its path */
	SANDBOX_OFF,
	SANDBOX_PATHS, /* the main thread still opens paths and starts programs, on QMP's orders */
	SANDBOX_ON,
};
struct sandbox {
	enum sandbox_mode mode;
	bool passed;	 /* every file came as a descriptor: nothing is opened by its path from the first line on */
	bool root;	 /* an empty root directory, in the mount namespace that whoever started us made */
	bool native;	 /* the engine runs guest code in processes that it traces */
	bool has_uid;
	uid_t uid;	 /* becomes ours; so does the group of the same number */
};

/* --sandbox's text. 0, or -EINVAL with a sentence. */
int sandbox_parse(struct sandbox *s, const char *text, struct err *err);

/* The first step. Only for `passed`; while there is one thread. */
int sandbox_confine(const struct sandbox *s, struct err *err);

/* What the machine at hand needs beside what all need. */
struct sandbox_needs {
	bool native;	      /* processes that are traced, in the vCPUs' threads */
	bool network;	      /* disks on servers: connections are made again */
	bool connect;	      /* vsock connects to sockets of the host */
	const char *const *own; /* paths of sockets that are removed at the end; NULL ends it */
};
/* Found in the options; `own` holds what needs->own points to. */
#define SANDBOX_OWN_MAX 63
struct sandbox_own {
	const char *path[SANDBOX_OWN_MAX + 1];
	unsigned n;
};
struct vmm_options;
void sandbox_find_needs(const struct vmm_options *o, struct sandbox_needs *needs, struct sandbox_own *own);
void sandbox_own_free(struct sandbox_own *own);
/* The second step, in the main thread. Threads that have not begun yet get their filters when they do. */
int sandbox_seal(const struct sandbox *s, const struct sandbox_needs *needs, struct err *err);
/* From here on new threads are filtered. Before the first of them. */
int sandbox_prepare(const struct sandbox *s, const struct sandbox_needs *needs, struct err *err);

/* ---- The calls (sandbox_calls.c), and filters made of them (sandbox_filter.c) ---- */

enum sandbox_kind {
	KIND_VCPU = THREAD_VCPU,
	KIND_IO = THREAD_IO,
	KIND_TIMER = THREAD_TIMER,
	KIND_MAIN = THREAD_KINDS, /* after sandbox_seal() */
	KIND_START,		  /* between the two steps */
	SANDBOX_KINDS,
};
enum { /* who may call: 1 << kind, and the needs that add it */
	FOR_VCPU = 1 << KIND_VCPU,
	FOR_IO = 1 << KIND_IO,
	FOR_TIMER = 1 << KIND_TIMER,
	FOR_MAIN = 1 << KIND_MAIN,
	FOR_START = 1 << KIND_START,
	FOR_OWN = FOR_MAIN | FOR_START,
	FOR_WORK = FOR_OWN | FOR_VCPU | FOR_IO,
	FOR_ALL = FOR_WORK | FOR_TIMER,
	IF_NATIVE = 1 << 8, /* only with that need */
	IF_NETWORK = 1 << 9,
	IF_CONNECT = 1 << 10,
	IF_ALONE = 1 << 11, /* only without `passed`: sockets of its own are removed at the end */
};
struct sandbox_rule { /* a call with an argument of this value; the argument is masked first */
	unsigned arg;
	unsigned long mask, value;
};
struct sandbox_call {
	int nr;
	unsigned who;
	const struct sandbox_rule *rules; /* any of these; NULL: all. Ends with mask == 0 */
	const char *why;
};
extern const struct sandbox_call sandbox_calls[]; /* ends with nr < 0 */
extern const int sandbox_deadly[];		  /* ends with -1: no code of ours makes these, so whoever does is ended */

/* How many calls a kind may make. */
unsigned sandbox_count(enum sandbox_kind kind, unsigned ifs);

struct sandbox_filter {
	unsigned short len;
	void *code; /* struct sock_filter */
};
/* `ifs`: the IF_* that hold. */
int sandbox_filter_make(struct sandbox_filter *f, enum sandbox_kind kind, unsigned ifs, struct err *err);
int sandbox_filter_load(const struct sandbox_filter *f); /* for this thread; -errno */
void sandbox_filter_free(struct sandbox_filter *f);
