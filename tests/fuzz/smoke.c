/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs a fuzz target without a fuzzer: `smoke COUNT MAXLEN [SEED]` feeds random
 * inputs, `smoke FILE...` those of files, such as a fuzzer's findings.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t state;

static uint64_t next(void)
{
	uint64_t x = state += 0x9e3779b97f4a7c15;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static int run_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = malloc(1 << 24);
	size_t n;

	if (!f || !data) {
		perror(path);
		return 1;
	}
	n = fread(data, 1, 1 << 24, f);
	fclose(f);
	LLVMFuzzerTestOneInput(data, n);
	free(data);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned long count, max;
	char *end;

	if (argc < 2)
		return 2;
	count = strtoul(argv[1], &end, 0);
	if (*end) {
		for (int i = 1; i < argc; i++)
			if (run_file(argv[i]))
				return 1;
		return 0;
	}
	max = argc > 2 ? strtoul(argv[2], NULL, 0) : 4096;
	state = argc > 3 ? strtoull(argv[3], NULL, 0) : 1;
	for (unsigned long i = 0; i < count; i++) {
		uint64_t seed = state;
		size_t n = next() % (max + 1);
		uint8_t *data = malloc(n ? n : 1);

		if (!data)
			abort();
		for (size_t j = 0; j < n; j++)
			data[j] = next();
		if (getenv("KEEL_FUZZ_VERBOSE"))
			fprintf(stderr, "input %lu: seed %" PRIu64 "\n", i, seed);
		LLVMFuzzerTestOneInput(data, n);
		free(data);
	}
	printf("%lu inputs\n", count);
	return 0;
}
