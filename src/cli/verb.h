/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Verbs about a daemon's guests, in virsh's words: a table says which options
 * each takes, and parsing, help and completion walk it.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "keel/keel.h"
#include "lib/conn.h"

enum opt_kind { OPT_FLAG, OPT_TEXT, OPT_NUMBER };
enum {
	OPT_DATA = 1 << 0,     /* may stand without its name */
	OPT_REQUIRED = 1 << 1, /* and has to be there */
	OPT_DOMAIN = 1 << 2,   /* completed by the guests' names */
	OPT_FILE = 1 << 3,     /* completed by files */
	OPT_MANY = 1 << 4,     /* all words that are left */
};
struct opt {
	const char *name;
	enum opt_kind kind;
	unsigned flags;
	const char *help;
};
#define OPT_THE_DOMAIN { "domain", OPT_TEXT, OPT_DATA | OPT_REQUIRED | OPT_DOMAIN, "domain name, id or uuid" }

enum { OPTS_MAX = 40 };

struct cmd;
struct verb {
	const char *name, *help;
	const struct opt *opts; /* ends with a NULL name; or NULL */
	int (*run)(struct cmd *c); /* the exit status */
	bool offline;		   /* needs no daemon, or connects by itself */
};

/* A verb with its options, being run. */
struct cmd {
	const struct verb *verb;
	const char *values[OPTS_MAX]; /* by option; "" for a flag that is set */
	const char *const *many;      /* words of OPT_MANY */
	unsigned nmany;
	const char *uri;
	bool readonly, quiet;
	bool no_blank; /* print no blank line at the end: virsh does not, either */
	struct keel_conn *conn;
	struct keel_error error;
	struct arena arena; /* what answers brought */
};

/* Each ends with a NULL name. */
extern const struct verb list_verbs[], life_verbs[], query_verbs[], vcpu_verbs[], device_verbs[], text_verbs[], host_verbs[],
	console_verbs[], event_verbs[], top_verbs[], create_verbs[];

/* Run a verb of these; -1 if there is none of that name. Global options are before it. */
int verbs_run(int argc, char **argv, const char *uri, bool readonly, bool quiet);
bool verbs_know(const char *name);
void verbs_help(FILE *f);
/* Their names, one a line. */
void verbs_names(FILE *f);
/* One verb's own help. False if there is none. */
bool verbs_help_one(const char *name, FILE *f);
/* Candidates for the last of the words, one a line. */
int verbs_complete(int argc, char **argv);

bool cmd_has(const struct cmd *c, const char *option);
/* NULL: not given. */
const char *cmd_text(const struct cmd *c, const char *option);
/* 0, or -1 with the message printed; *value stays if it is not given. */
int cmd_number(const struct cmd *c, const char *option, long long *value);

/* Connect if that has not been done. 0, or 1 with the message printed. */
int cmd_connect(struct cmd *c);
/* The domain that the option of that name names. NULL, and the message is printed. */
struct keel_domain *cmd_domain_of(struct cmd *c, const char *option);
static inline struct keel_domain *cmd_domain(struct cmd *c)
{
	return cmd_domain_of(c, "domain");
}
/* A call of program remote. 0, or -1 with c->error set. */
int cmd_call(struct cmd *c, uint32_t number, const void *args, void *ret);
/* "error: ..." and, if there is one, the daemon's own. Returns 1. `fmt` may be NULL. */
int cmd_fail(struct cmd *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* VIR_DOMAIN_AFFECT_* of --current, --live, --config and --persistent. -1, and the message is printed, for those that exclude each other. */
int cmd_affect(const struct cmd *c, unsigned *flags);
/* A whole file, malloced; NULL, and the message is printed. */
char *cmd_read_file(const char *path);
/* Print and free. Returns 0. */
int cmd_json(json_t *j);

/* A table as virsh's: columns as wide as need be, in what a terminal shows. */
struct table;
struct table *table_new(unsigned columns, const char *const *titles);
/* Copies; NULL is "-". */
void table_row(struct table *t, const char *const *cells);
/* Print and free. */
void table_end(struct table *t);
/* One with lower-case titles for names, each row an object; "-" is null. */
json_t *table_json(struct table *t);
