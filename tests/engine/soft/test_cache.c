/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest that fills the caches of code as fast as it can: the process stays within engine_config.cache. */
#include <stdio.h>

#include "soft_rig.h"

#define CODE_FROM 0x400000u
#define CODE_TO 0x1c00000u
#define PIECE 16u

/* Bytes that the process has for itself: a page that is mapped twice counts once. */
static uint64_t process_bytes(void)
{
	FILE *f = fopen("/proc/self/smaps_rollup", "r");
	char line[256];
	unsigned long kib = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "Pss: %lu kB", &kib) == 1)
			break;
	fclose(f);
	assert_true(kib > 0);
	return kib << 10;
}

/* Twice through 24 MiB of blocks that go from one to the next, each with a store; all translated at once. */
static void fill(struct rig *r)
{
	/* inc rbx; mov [rsp], rbx; test rbx, rbx; jnz to the next piece */
	static const uint8_t piece[PIECE] = { 0x48, 0xff, 0xc3, 0x48, 0x89, 0x1c, 0x24, 0x48, 0x85, 0xdb, 0x75, 0x04 };
	uint64_t n = (CODE_TO - CODE_FROM) / PIECE;

	memset(r->ram, 0xcc, RIG_RAM);
	r->on_pio = rig_kick_self;
	rig_start(r, 0);
	for (uint64_t at = CODE_FROM; at < CODE_TO; at += PIECE)
		memcpy(r->ram + at, piece, PIECE);
	memcpy(r->ram + CODE_TO, "\xe6\xf4", 2);
	engine_written(r->engine, 0, RIG_RAM);
	for (unsigned round = 1; round <= 2; round++) {
		r->v->rip = r->v->next_rip = CODE_FROM;
		assert_int_equal(vcpu_run(r->vcpu[0], NULL), VCPU_EXIT_KICK);
		assert_int_equal(r->v->gpr[R_BX], round * n);
	}
}

/* What the address sanitizer keeps beside each allocation is not the engine's. */
#ifdef __SANITIZE_ADDRESS__
#define SANITIZER_BYTES (4u << 20)
#else
#define SANITIZER_BYTES 0u
#endif

static void stays_within(uint64_t cache, uint64_t bound)
{
	uint64_t before = process_bytes(), grown;
	struct engine_stats stats;
	struct rig *r;

	rig_cache = cache;
	r = rig_new(1);
	fill(r);
	grown = process_bytes() - before - RIG_RAM;
	engine_get_stats(r->engine, &stats);
	print_message("%llu of %llu KiB, emptied %llu times\n", (unsigned long long)grown >> 10,
		      (unsigned long long)bound >> 10, (unsigned long long)stats.cache_flushes);
	assert_int_equal(stats.cache_limit, bound);
	assert_true(stats.cache_used <= bound);
	assert_true(stats.cache_flushes >= 4); /* the bound was met, not only not reached */
	assert_true(grown <= bound + SANITIZER_BYTES);
	assert_true(grown >= bound / 2);
	rig_free(r);
}

static void smallest(void **state)
{
	stays_within(ENGINE_CACHE_MIN, ENGINE_CACHE_MIN);
}

static void by_default(void **state)
{
	stays_within(0, 40u << 20);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(smallest),
		cmocka_unit_test(by_default),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
