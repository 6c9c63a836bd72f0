// SPDX-License-Identifier: GPL-2.0-or-later
// run LIST [AFTER]: run the programs of bench/engine one after another and print how long each took. Statically linked, so that
// the same file runs in a guest and on the host. With AFTER the list begins behind the program of that name.
//
// A line of LIST is NAME <tab> COMMAND <tab> WARM-UP [<tab> figure]. The warm-up is the command with little to do; it
// brings files into the page cache. For each program:
//   BENCH warm NAME
//   BENCH start NAME
//   BENCH end NAME MICROSECONDS STATUS OUTPUT-HASH USER-MICROSECONDS SYSTEM-MICROSECONDS FIGURE
// With "figure" the command measures itself: FIGURE is the number that it prints, and there is no hash.
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OUTPUT "/tmp/output"

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int64_t microseconds(struct timeval t)
{
	return (int64_t)t.tv_sec * 1000000 + t.tv_usec;
}

static int run(const char *command, struct rusage *use)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return -1;
	if (!pid) {
		int null = open("/dev/null", O_RDWR), out = open(OUTPUT, O_WRONLY | O_CREAT | O_TRUNC, 0600);

		dup2(null, 0);
		dup2(out, 1);
		dup2(null, 2);
		execl("/bin/busybox", "sh", "-e", "-o", "pipefail", "-c", command, (char *)NULL);
		_exit(127);
	}
	if (wait4(pid, &status, 0, use) < 0)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// FNV-1a, 64 bits: any difference in what a program prints shows.
static uint64_t output_hash(char *first, size_t size)
{
	uint64_t h = 0xcbf29ce484222325;
	FILE *f = fopen(OUTPUT, "r");
	size_t n = 0;
	int c;

	while (f && (c = getc(f)) != EOF) {
		h = (h ^ (uint64_t)c) * 0x100000001b3;
		if (n + 1 < size)
			first[n++] = (char)c;
	}
	first[n] = 0;
	if (f)
		fclose(f);
	return h;
}

int main(int argc, char **argv)
{
	char line[4096], first[64];
	const char *after = argc == 3 ? argv[2] : NULL;
	FILE *list = argc == 2 || after ? fopen(argv[1], "r") : NULL;

	if (!list) {
		fprintf(stderr, "usage: run LIST [AFTER]\n");
		return 2;
	}
	setlinebuf(stdout);
	while (fgets(line, sizeof(line), list)) {
		char *rest = line, *name, *command, *warm, *figure;
		struct rusage use;
		int64_t start, taken, value = 0;
		uint64_t hash;
		int status;

		line[strcspn(line, "\n")] = 0;
		name = strsep(&rest, "\t");
		command = strsep(&rest, "\t");
		warm = strsep(&rest, "\t");
		figure = strsep(&rest, "\t");
		if (!warm)
			continue;
		if (after) {
			if (!strcmp(after, name))
				after = NULL;
			continue;
		}
		printf("BENCH warm %s\n", name);
		run(warm, &use);
		printf("BENCH start %s\n", name);
		start = now();
		status = run(command, &use);
		taken = now() - start;
		hash = output_hash(first, sizeof(first));
		if (figure) {
			value = strtoll(first, NULL, 10);
			hash = 0;
		}
		printf("BENCH end %s %lld %d %016llx %lld %lld %lld\n", name, (long long)taken, status, (unsigned long long)hash,
		       (long long)microseconds(use.ru_utime), (long long)microseconds(use.ru_stime), (long long)value);
	}
	printf("BENCH done\n");
	return 0;
}
