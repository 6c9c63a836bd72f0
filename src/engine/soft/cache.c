/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How the memory that engine_config.cache allows is divided: what each vCPU has
 * of its own (TLBs, jump tables), the stubs of vector instructions, what the
 * native tier keeps of its processes' mappings, and the rest for decoded blocks
 * and translated code.
 *
 * Measured in boots and in fork and exec: 16 bytes of decoded blocks bring 6 to
 * 16 bytes of code.
 */
#include "engine/soft/native.h"
#include "engine/soft/trans.h"
#include "engine/soft/vec.h"

#define CACHE_DEFAULT (40ull << 20)
/* However many vCPUs there are: below this code is thrown away faster than it is made. */
#define CACHE_SHARED_MIN (4ull << 20)
#define CODE_PERCENT 45u
#define SPACES_PERCENT 10u

uint64_t cache_limit(const struct soft_engine *e)
{
	return e->engine.config.cache ? e->engine.config.cache : CACHE_DEFAULT;
}

static uint64_t vcpu_bytes(void)
{
	return sizeof(struct soft_vcpu) + sizeof(struct mmu_state) + sizeof(struct block_state) + sizeof(struct trans);
}

uint64_t cache_native_spaces(const struct soft_engine *e)
{
	return cache_limit(e) / 100 * SPACES_PERCENT;
}

static uint64_t native_bytes(const struct soft_engine *e)
{
	if (!e->engine.config.native)
		return 0;
	return cache_native_spaces(e) + NATIVE_CODE_PAGES * PAGE_BYTES;
}

void cache_divide(const struct soft_engine *e, size_t *blocks, size_t *code)
{
	uint64_t own = e->engine.config.cpus * vcpu_bytes() + VEC_ARENA_SIZE + native_bytes(e), limit = cache_limit(e);
	uint64_t shared = limit > own + CACHE_SHARED_MIN ? limit - own : CACHE_SHARED_MIN;

	*code = e->engine.config.no_translate ? 0 : shared / 100 * CODE_PERCENT & ~PAGE_MASK;
	*blocks = (shared - *code) & ~PAGE_MASK;
}

uint64_t cache_used(const struct soft_engine *e)
{
	uint64_t used = e->engine.config.cpus * vcpu_bytes() + block_cache_used(e);

	if (e->trans)
		used += e->trans->used;
	if (e->native)
		used += atomic_load(&e->native->table_bytes);
	return used;
}
