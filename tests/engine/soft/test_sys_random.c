/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A short run of fuzz_sys.c over pseudo-random bytes; the first argument is the number of inputs, the second the seed. */
#include "../../fuzz/fuzz_sys.c"

#include "util/log.h"

int main(int argc, char **argv)
{
	unsigned long inputs = argc > 1 ? strtoul(argv[1], NULL, 0) : 20000;
	uint64_t x = argc > 2 ? strtoull(argv[2], NULL, 0) : 0x9e3779b97f4a7c15;
	static uint8_t data[512];

	log_set_level(LOG_ERROR);
	for (unsigned long n = 0; n < inputs; n++) {
		size_t len;

		for (unsigned k = 0; k < sizeof(data); k++) {
			/* xorshift64 (Marsaglia) */
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			data[k] = x >> 32;
		}
		len = 128 + x % (sizeof(data) - 128);
		LLVMFuzzerTestOneInput(data, len);
	}
	printf("%lu inputs\n", inputs);
	return 0;
}
