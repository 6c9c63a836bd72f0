/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

static int builtin_help(int argc, char **argv);
static int builtin_version(int argc, char **argv);

static const struct builtin builtins[] = {
	{ "run", "[OPTION]...", "run a virtual machine in the foreground", builtin_run },
	{ "host", "[--json]", "tell what this host can do for virtual machines", builtin_host },
	{ "image", "VERB [ARGUMENT]...", "make, check, convert and compare disk images", builtin_image },
	{ "list", "[--socket PATH] [--all | --inactive] [--json | --name]", "list keeld's guests", builtin_domain },
	{ "define", "[--socket PATH] FILE", "define a guest from its XML, or define it anew", builtin_domain },
	{ "undefine", "[--socket PATH] NAME", "forget a guest's definition", builtin_domain },
	{ "start", "[--socket PATH] NAME", "start a defined guest", builtin_domain },
	{ "shutdown", "[--socket PATH] NAME", "press a guest's power button", builtin_domain },
	{ "destroy", "[--socket PATH] NAME", "stop a guest at once", builtin_domain },
	{ "suspend", "[--socket PATH] NAME", "pause a guest", builtin_domain },
	{ "resume", "[--socket PATH] NAME", "let a paused guest go on", builtin_domain },
	{ "domstate", "[--socket PATH] NAME", "print a guest's state", builtin_domain },
	{ "dumpxml", "[--socket PATH] NAME", "print a guest's XML", builtin_domain },
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
	fprintf(f, "Usage: keel COMMAND [ARGUMENT]...\n\nCommands:\n");
	for (unsigned i = 0; i < N_BUILTINS; i++)
		fprintf(f, "  %-10s %s\n", builtins[i].name, builtins[i].help);
	fprintf(f, "\n'keel help COMMAND' tells more.\n");
}

static int builtin_help(int argc, char **argv)
{
	const struct builtin *b = argc > 1 ? find(argv[1]) : NULL;
	char help[] = "--help", *args[] = { argc > 1 ? argv[1] : NULL, help, NULL };

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

int main(int argc, char **argv)
{
	const struct builtin *b;

	if (argc < 2) {
		usage(stderr);
		return 2;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return builtin_help(1, argv);
	if (!strcmp(argv[1], "--version"))
		return builtin_version(1, argv);
	b = find(argv[1]);
	if (!b) {
		fprintf(stderr, "keel: there is no command '%s'; see 'keel help'\n", argv[1]);
		return 2;
	}
	return b->run(argc - 1, argv + 1);
}
