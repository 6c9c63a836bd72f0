/* SPDX-License-Identifier: GPL-2.0-or-later */
/* keel run: a machine without a daemon. The options are keel-vmm's own; they are checked here so that mistakes carry this command's name. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "vmm/options.h"

int builtin_run(int argc, char **argv)
{
	const char *program = cli_program("keel-vmm");
	struct vmm_options o;
	struct err err = ERR_INIT;
	int ret = options_parse(&o, argc, argv, &err);

	options_free(&o);
	if (ret) {
		fprintf(stderr, "keel run: %s\n", err_msg(&err));
		return 2;
	}
	if (o.help) {
		options_help(stdout, "keel run");
		return 0;
	}
	argv[0] = (char *)"keel-vmm";
	execv(program, argv);
	fprintf(stderr, "keel run: cannot start %s: %s\n", program, strerror(errno));
	return 1;
}
