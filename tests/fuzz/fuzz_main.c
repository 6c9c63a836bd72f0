/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A driver for fuzz targets where there is no libFuzzer: random and mutated
 * inputs for a while.
 *
 *   fuzz_NAME [--seconds N] [--seed S] [--max-len N] [FILE...]
 *
 * Files start the pool that mutations draw from; with --seconds 0 they are only
 * run. There is no coverage to steer by, so the pool keeps a random sample. The
 * input that kills the target is left in crash-SEED in the working directory.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define POOL 64u
#define MAX_FILE (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

struct input {
	uint8_t *data;
	size_t len;
};

static struct input pool[POOL];
static unsigned pool_len;
static uint64_t state;
static size_t max_len = 4096;
static const uint8_t *current;
static size_t current_len;
static char crash_path[64];

/* ---- Randomness ---------------------------------------------------------- */

/* splitmix64 */
static uint64_t rnd(void)
{
	uint64_t z = (state += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static size_t below(size_t n)
{
	return n ? rnd() % n : 0;
}

/* Short ones more often than long ones. */
static size_t some_len(size_t max)
{
	return below(2) ? below((max < 64 ? max : 64) + 1) : below(max + 1);
}

static void random_bytes(uint8_t *p, size_t n)
{
	unsigned kind = (unsigned)below(4);

	for (size_t i = 0; i < n; i++)
		p[i] = kind == 0 ? (uint8_t)below(8) : kind == 1 && below(2) ? 0 : (uint8_t)rnd();
}

/* ---- Mutations, each within buf[0..max_len) ------------------------------- */

static size_t mutate(uint8_t *buf, size_t len)
{
	static const uint64_t edges[] = {
		0,
		1,
		2,
		0x7f,
		0x80,
		0xff,
		0x100,
		0xfff,
		0x1000,
		0x7fff,
		0x8000,
		0xffff,
		0x10000,
		0x7fffffff,
		0x80000000,
		0xffffffff,
		0x100000000,
		0x7fffffffffffffff,
		0x8000000000000000,
		UINT64_MAX,
		UINT64_MAX - 1,
	};
	uint64_t value = edges[below(sizeof(edges) / sizeof(edges[0]))];
	size_t at = below(len), n = some_len(len - at), width = (size_t)1 << below(4);

	switch (below(8)) {
	case 0:
		if (len)
			buf[at] ^= 1u << below(8);
		return len;
	case 1:
		if (len)
			buf[at] = (uint8_t)rnd();
		return len;
	case 2:
		if (len >= width) {
			at = below(len - width + 1);
			if (below(2))
				value = __builtin_bswap64(value) >> (64 - 8 * width);
			memcpy(buf + at, &value, width);
		}
		return len;
	case 3: /* cut */
		memmove(buf + at, buf + at + n, len - at - n);
		return len - n;
	case 4: /* insert */
		n = some_len(max_len - len);
		memmove(buf + at + n, buf + at, len - at);
		random_bytes(buf + at, n);
		return len + n;
	case 5: /* double a piece */
		if (n > max_len - len)
			n = max_len - len;
		memmove(buf + at + n, buf + at, len - at);
		return len + n;
	case 6: { /* a piece of another input */
		const struct input *other = &pool[below(pool_len)];
		size_t from;

		if (!pool_len || !other->len)
			return len;
		from = below(other->len);
		n = some_len(other->len - from);
		if (n > len - at)
			n = len - at;
		memcpy(buf + at, other->data + from, n);
		return len;
	}
	default:
		return n && below(4) == 0 ? at : len; /* truncate */
	}
}

static void keep(const uint8_t *data, size_t len)
{
	struct input *slot = &pool[pool_len < POOL ? pool_len++ : below(POOL)];
	uint8_t *copy = malloc(len ? len : 1);

	if (!copy)
		abort();
	memcpy(copy, data, len);
	free(slot->data);
	*slot = (struct input){ copy, len };
}

static size_t make_input(uint8_t *buf)
{
	size_t len;

	if (!pool_len || below(4) == 0) {
		len = some_len(max_len);
		random_bytes(buf, len);
		return len;
	}
	len = below(pool_len);
	memcpy(buf, pool[len].data, pool[len].len);
	len = pool[len].len;
	for (size_t n = 1 + below(6); n; n--)
		len = mutate(buf, len);
	return len;
}

/* ---- Running ------------------------------------------------------------- */

/* In a signal handler or from a sanitizer: only system calls. */
static void save_crash(void)
{
	int fd;

	if (!current)
		return;
	fd = open(crash_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, current, current_len) < 0)
		return;
	close(fd);
	if (write(STDERR_FILENO, "the input is in ", 16) < 0 ||
	    write(STDERR_FILENO, crash_path, strlen(crash_path)) < 0 || write(STDERR_FILENO, "\n", 1) < 0)
		return;
	current = NULL;
}

static void on_signal(int sig)
{
	save_crash();
	signal(sig, SIG_DFL);
	raise(sig);
}

/* From an exact heap copy, so that the address sanitizer sees a byte too much. */
static void run(const uint8_t *data, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);

	if (!copy)
		abort();
	memcpy(copy, data, len);
	current = copy;
	current_len = len;
	LLVMFuzzerTestOneInput(copy, len);
	current = NULL;
	free(copy);
}

static int run_file(const char *path)
{
	static uint8_t data[MAX_FILE];
	FILE *f = fopen(path, "rb");
	size_t len;

	if (!f) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return -1;
	}
	len = fread(data, 1, sizeof(data), f);
	fclose(f);
	run(data, len);
	if (len <= max_len)
		keep(data, len);
	return 0;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seconds", required_argument, NULL, 't' },
		{ "seed", required_argument, NULL, 's' },
		{ "max-len", required_argument, NULL, 'l' },
		{ 0 },
	};
	static const int fatal[] = { SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP };
	uint64_t seed = 1, inputs = 0;
	double seconds = 2, end;
	uint8_t *buf;
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 't':
			seconds = strtod(optarg, NULL);
			break;
		case 's':
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'l':
			max_len = strtoul(optarg, NULL, 0);
			break;
		default:
			return 2;
		}
	}
	state = seed;
	snprintf(crash_path, sizeof(crash_path), "crash-%" PRIu64, seed);
	for (unsigned n = 0; n < sizeof(fatal) / sizeof(fatal[0]); n++)
		signal(fatal[n], on_signal);
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(save_crash);
	if (LLVMFuzzerInitialize)
		LLVMFuzzerInitialize(&argc, &argv);
	for (; optind < argc; optind++)
		if (run_file(argv[optind]))
			return 1;
	buf = malloc(max_len + 1);
	if (!buf)
		abort();
	end = now() + seconds;
	while (now() < end) {
		size_t len = make_input(buf);

		run(buf, len);
		if (inputs++ < POOL || below(32) == 0)
			keep(buf, len);
	}
	for (unsigned n = 0; n < pool_len; n++)
		free(pool[n].data);
	free(buf);
	printf("%" PRIu64 " inputs, seed %" PRIu64 "\n", inputs, seed);
	return 0;
}
