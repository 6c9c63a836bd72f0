/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <limits.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/verb.h"

static int builtin_help(int argc, char **argv);
static int builtin_version(int argc, char **argv);

static const struct builtin builtins[] = {
	{ "run", "[OPTION]...", "run a virtual machine in the foreground", builtin_run },
	{ "host", "[--json]", "tell what this host can do for virtual machines", builtin_host },
	{ "image", "VERB [ARGUMENT]...", "make, check, convert and compare disk images", builtin_image },
	{ "version", "", "print the version", builtin_version },
	{ "help", "[COMMAND]", "this text, or a command's", builtin_help },
};
#define N_BUILTINS (sizeof(builtins) / sizeof(builtins[0]))

const char *cli_program(const char *name)
{
	static char path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	char *slash;

	if (n > 0) {
		path[n] = 0;
		slash = strrchr(path, '/');
		snprintf(slash + 1, sizeof(path) - (slash + 1 - path), "%s", name);
		if (!access(path, X_OK))
			return path;
	}
	snprintf(path, sizeof(path), "%s/%s", KEEL_LIBEXECDIR, name);
	return path;
}

static const struct builtin *find(const char *name)
{
	for (unsigned i = 0; i < N_BUILTINS; i++)
		if (!strcmp(builtins[i].name, name))
			return &builtins[i];
	return NULL;
}

static void usage(FILE *f)
{
	fprintf(f, "Usage: keel [-c URI] [-r] [-q] COMMAND [ARGUMENT]...\n\n"
		   "  -c, --connect URI   the daemon of the commands about guests; else KEEL_URI\n"
		   "  -r, --readonly      look only\n"
		   "  -q, --quiet         say only what was asked for\n"
		   "\nHere:\n");
	for (unsigned i = 0; i < N_BUILTINS; i++)
		fprintf(f, "  %-20s %s\n", builtins[i].name, builtins[i].help);
	verbs_help(f);
	fprintf(f, "\n'keel help COMMAND' tells more.\n");
}

static int builtin_help(int argc, char **argv)
{
	const struct builtin *b = argc > 1 ? find(argv[1]) : NULL;
	char help[] = "--help", *args[] = { argc > 1 ? argv[1] : NULL, help, NULL };

	if (argc > 1 && !b && verbs_help_one(argv[1], stdout))
		return 0;
	if (argc > 1 && !b) {
		fprintf(stderr, "keel: there is no command '%s'; see 'keel help'\n", argv[1]);
		return 2;
	}
	if (b && b->run != builtin_help)
		return b->run(2, args);
	usage(stdout);
	return 0;
}

static int builtin_version(int argc, char **argv)
{
	printf("keel %s\n", KEEL_VERSION);
	return 0;
}

/* Words of the completion's: what could stand for the last one. */
static int complete(int argc, char **argv)
{
	int n = 0;

	/* The command itself: none of the words before is one. */
	for (; n < argc - 1; n++)
		if (*argv[n] != '-' && (n == 0 || (strcmp(argv[n - 1], "-c") && strcmp(argv[n - 1], "--connect"))))
			return verbs_complete(argc, argv);
	for (unsigned i = 0; i < N_BUILTINS; i++)
		printf("%s\n", builtins[i].name);
	verbs_names(stdout);
	return 0;
}

struct global {
	const char *uri;
	bool readonly, quiet;
};

/* Options before the command. How many words they are, or -1. */
static int parse_global(int argc, char **argv, struct global *g)
{
	int n = 1;

	for (; n < argc && *argv[n] == '-'; n++) {
		const char *word = argv[n];

		if (!strcmp(word, "-r") || !strcmp(word, "--readonly"))
			g->readonly = true;
		else if (!strcmp(word, "-q") || !strcmp(word, "--quiet"))
			g->quiet = true;
		else if (!strncmp(word, "--connect=", 10))
			g->uri = word + 10;
		else if ((!strcmp(word, "-c") || !strcmp(word, "--connect")) && n + 1 < argc)
			g->uri = argv[++n];
		else
			break;
	}
	return n;
}

int main(int argc, char **argv)
{
	struct global g = { 0 };
	const struct builtin *b;
	int n = parse_global(argc, argv, &g), status;

	setlocale(LC_CTYPE, "");
	if (n >= argc) {
		usage(stderr);
		return 2;
	}
	if (!strcmp(argv[n], "--help") || !strcmp(argv[n], "-h"))
		return builtin_help(1, argv);
	if (!strcmp(argv[n], "--version"))
		return builtin_version(1, argv);
	if (!strcmp(argv[n], "--complete"))
		return complete(argc - n - 1, argv + n + 1);
	b = find(argv[n]);
	if (b)
		return b->run(argc - n, argv + n);
	status = verbs_run(argc - n, argv + n, g.uri, g.readonly, g.quiet);
	if (status >= 0)
		return status;
	fprintf(stderr, *argv[n] == '-' ? "keel: there is no option '%s'; see 'keel help'\n" :
					  "keel: there is no command '%s'; see 'keel help'\n", argv[n]);
	return 2;
}
