/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/login.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

/*
 * libvirt's auth.conf: [auth-libvirt-HOST] or [auth-libvirt-default] names
 * [credentials-NAME], which has authname and password. Here the first set of
 * credentials that a section auth-libvirt-* refers to is taken.
 */
static char *from_file(const char *path, const char *wanted)
{
	FILE *f = fopen(path, "re");
	char line[1024], section[256] = "", name[256] = "", *found = NULL;

	/* Twice: a section may refer to one before it. */
	for (int pass = 0; f && pass < 2; pass++) {
		rewind(f);
		while (fgets(line, sizeof(line), f)) {
			char *s = line + strspn(line, " \t"), *value = strchr(s, '=');

			s[strcspn(s, "\r\n")] = 0;
			if (sscanf(s, "[%255[^]]]", section) == 1 || !value)
				continue;
			*value++ = 0;
			value += strspn(value, " \t");
			s[strcspn(s, " \t")] = 0;
			if (!pass && !*name && !strncmp(section, "auth-libvirt-", 13) && !strcmp(s, "credentials"))
				snprintf(name, sizeof(name), "credentials-%.200s", value);
			if (pass && !found && !strcmp(section, name) && !strcmp(s, wanted))
				found = strdup(value);
		}
	}
	if (f)
		fclose(f);
	return found;
}

static char *ask_terminal(const char *prompt, bool secret)
{
	struct termios old, quiet;
	char *line = NULL;
	size_t room = 0;
	ssize_t n;

	if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &old))
		return NULL;
	fprintf(stderr, "%s: ", prompt);
	quiet = old;
	quiet.c_lflag &= ~(tcflag_t)ECHO;
	if (secret)
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
	n = getline(&line, &room, stdin);
	if (secret) {
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &old);
		fputc('\n', stderr);
	}
	if (n <= 0) {
		free(line);
		return NULL;
	}
	line[strcspn(line, "\n")] = 0;
	return line;
}

char *login_ask(void *opaque, enum keel_credential what, const char *prompt)
{
	const char *file = getenv("LIBVIRT_AUTH_FILE"), *home = getenv("HOME"), *word = what == KEEL_CRED_USER ? "authname" : "password";
	char path[1024], *found = file ? from_file(file, word) : NULL;

	if (!found && !file && home) {
		snprintf(path, sizeof(path), "%s/.config/libvirt/auth.conf", home);
		found = from_file(path, word);
	}
	if (!found && !file)
		found = from_file("/etc/libvirt/auth.conf", word);
	return found ? found : ask_terminal(prompt, what == KEEL_CRED_PASSWORD);
}
