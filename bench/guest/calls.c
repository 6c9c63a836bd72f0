// SPDX-License-Identifier: GPL-2.0-or-later
// calls WHAT N: what a kernel does all day, N times. Statically linked; prints what it counted.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static long getppids(long n)
{
	long sum = 0;

	for (long i = 0; i < n; i++)
		sum += syscall(SYS_getppid) > 0;
	return sum;
}

// A byte there and back between two processes.
static long pingpong(long n)
{
	int there[2], back[2];
	char byte = 0;
	long count = 0;

	if (pipe(there) || pipe(back))
		return -1;
	if (!fork()) {
		close(there[1]);
		while (read(there[0], &byte, 1) == 1 && write(back[1], &byte, 1) == 1)
			;
		_exit(0);
	}
	for (long i = 0; i < n; i++)
		count += write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1;
	close(there[1]);
	wait(NULL);
	return count;
}

// Touch each page of 16 MiB that are fresh each time.
static long faults(long n)
{
	const size_t size = 16 << 20, page = 4096;
	long count = 0;

	for (long i = 0; i < n; i++) {
		char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED)
			return -1;
		madvise(p, size, MADV_NOHUGEPAGE);
		for (size_t at = 0; at < size; at += page) {
			p[at] = 1;
			count++;
		}
		munmap(p, size);
	}
	return count;
}

// Children that end at once: copy-on-write page tables and no exec.
static long forks(long n)
{
	long count = 0;

	for (long i = 0; i < n; i++) {
		int status;

		if (!fork())
			_exit(0);
		count += wait(&status) > 0 && !status;
	}
	return count;
}

static const struct {
	const char *name;
	long (*run)(long n);
} table[] = {
	{ "getppid", getppids },
	{ "pingpong", pingpong },
	{ "faults", faults },
	{ "forks", forks },
};

int main(int argc, char **argv)
{
	if (argc == 3)
		for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++)
			if (!strcmp(argv[1], table[i].name)) {
				printf("%ld\n", table[i].run(atol(argv[2])));
				return 0;
			}
	fprintf(stderr, "usage: calls getppid|pingpong|faults|forks N\n");
	return 2;
}
