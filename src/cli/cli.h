/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The keel command: one builtin a verb, each in its own file. A builtin gets argv with its own name first and returns the exit status. */
#pragma once

struct builtin {
	const char *name, *args, *help;
	int (*run)(int argc, char **argv);
};

int builtin_run(int argc, char **argv);
int builtin_host(int argc, char **argv);
int builtin_image(int argc, char **argv);

/* Path of a program of Keel's: beside this one, else where it is installed. Static buffer. */
const char *cli_program(const char *name);
