/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The soft engine as an implementation of the engine contract: making, freeing, forwarding. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/soft/lockstep.h"

/* ---- Engines ------------------------------------------------------------- */

static void soft_destroy(struct engine *engine)
{
	struct soft_engine *e = soft_engine(engine);

	native_engine_free(e);
	vec_engine_free(e);
	trans_engine_free(e);
	block_engine_free(e);
	memory_engine_free(e);
	stop_engine_free(e);
	free(e);
}

static struct engine *soft_create(const struct engine_config *config, struct err *err)
{
	struct soft_engine *e = calloc(1, sizeof(*e));

	if (!e) {
		err_set(err, ENOMEM, "no memory for engine soft");
		return NULL;
	}
	e->engine.ops = &engine_soft_ops;
	e->engine.config = *config;
	/* What runs natively can't be compared. */
	e->engine.config.native &= !config->lockstep;
	if (config->lockstep && config->no_translate) {
		err_set(err, EINVAL, "engine soft: lockstep=on compares translated code: leave translate=off out");
		free(e);
		return NULL;
	}
	soft_tsc_begin();
	if (stop_engine_init(e) < 0 || block_engine_init(e) < 0) {
		err_set(err, ENOMEM, "no memory for the decoded code of engine soft");
		goto fail;
	}
	if (memory_engine_init(e, err) < 0 || vec_engine_init(e, err) < 0)
		goto fail;
	if (!config->no_translate)
		trans_engine_init(e);
	if (e->engine.config.native)
		native_engine_init(e);
	return &e->engine;
fail:
	soft_destroy(&e->engine);
	return NULL;
}

static int soft_ioeventfd(struct engine *e, uint64_t gpa, unsigned size, int fd, bool add, struct err *err)
{
	return -ENOTSUP;
}

static int soft_irqfd(struct engine *e, int fd, uint64_t address, uint32_t data, bool add, struct err *err)
{
	return -ENOTSUP;
}

/* The local APIC's TMR tells which vectors are level-triggered. */
static void soft_ioapic_routes(struct engine *e, const struct engine_route *routes, unsigned n)
{
}

static bool soft_cpuid_at(struct engine *engine, unsigned index, uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
	struct soft_vcpu *v = __atomic_load_n(&soft_engine(engine)->vcpus[index], __ATOMIC_ACQUIRE);

	memset(regs, 0, 4 * sizeof(regs[0]));
	return v && soft_cpuid(v, leaf, subleaf, regs);
}

static uint32_t soft_tsc_khz(struct engine *e)
{
	return soft_host_tsc_khz();
}

static void soft_get_stats(struct engine *engine, struct engine_stats *stats)
{
	struct soft_engine *e = soft_engine(engine);

	for (unsigned i = 0; i < ENGINE_MAX_CPUS; i++) {
		struct soft_vcpu *v = __atomic_load_n(&e->vcpus[i], __ATOMIC_ACQUIRE);

		if (!v)
			continue;
		stats->instructions += __atomic_load_n(&v->insns, __ATOMIC_RELAXED);
		stats->blocks_decoded += __atomic_load_n(&v->stats.blocks_decoded, __ATOMIC_RELAXED);
		stats->tlb_misses += __atomic_load_n(&v->stats.tlb_misses, __ATOMIC_RELAXED);
		stats->exits += __atomic_load_n(&v->stats.exits, __ATOMIC_RELAXED);
	}
	stats->cache_limit = cache_limit(e);
	stats->cache_used = cache_used(e);
	stats->cache_flushes = block_epoch(e);
	native_get_stats(e, stats);
}

/* ---- vCPUs --------------------------------------------------------------- */

/* The stack pointer is at the vCPU while translated code runs: this much below it takes the frames of signals. */
#define SIGNAL_ROOM (64u << 10)

static struct soft_vcpu *vcpu_map(void)
{
	uint8_t *p = mmap(NULL, SIGNAL_ROOM + sizeof(struct soft_vcpu), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : (struct soft_vcpu *)(p + SIGNAL_ROOM);
}

static void vcpu_unmap(struct soft_vcpu *v)
{
	munmap((uint8_t *)v - SIGNAL_ROOM, SIGNAL_ROOM + sizeof(*v));
}

static void soft_vcpu_destroy(struct vcpu *vcpu)
{
	struct soft_vcpu *v = soft_vcpu(vcpu);
	struct soft_engine *e = v->engine;

	/* Nobody else may be walking over the vCPUs. */
	if (e->vcpus[vcpu->index] == v) {
		pthread_mutex_lock(&e->slots_lock);
		soft_stop_others(e, NULL);
		__atomic_store_n(&e->vcpus[vcpu->index], NULL, __ATOMIC_RELEASE);
		soft_resume_others(e, NULL);
		pthread_mutex_unlock(&e->slots_lock);
	}
	native_vcpu_free(v);
	lockstep_vcpu_free(v);
	lapic_vcpu_free(v);
	vec_vcpu_free(v);
	block_vcpu_free(v);
	trans_vcpu_free(v);
	mmu_vcpu_free(v);
	stop_vcpu_free(v);
	vcpu_unmap(v);
}

static struct vcpu *soft_vcpu_create(struct engine *engine, unsigned index, struct err *err)
{
	struct soft_engine *e = soft_engine(engine);
	struct soft_vcpu *v = vcpu_map();
	struct cpu_state *reset = malloc(sizeof(*reset));
	int ret;

	if (!v || !reset) {
		err_set(err, ENOMEM, "no memory for vCPU %u", index);
		if (v)
			vcpu_unmap(v);
		free(reset);
		return NULL;
	}
	v->vcpu = (struct vcpu){ .engine = engine, .index = index };
	v->engine = e;
	v->page_flags = e->page_flags;
	trans_vcpu_init(v);
	if (stop_vcpu_init(v) < 0 || block_vcpu_init(v) < 0 || mmu_vcpu_init(v) < 0 || vec_vcpu_init(v) < 0 ||
	    lapic_vcpu_init(v) < 0 || native_vcpu_init(v) < 0 || lockstep_vcpu_init(v) < 0) {
		err_set(err, ENOMEM, "no memory or no thread for vCPU %u", index);
		goto fail;
	}
	cpu_state_reset(reset, index);
	ret = state_set(&v->vcpu, reset, err);
	if (ret < 0)
		goto fail;
	free(reset);
	pthread_mutex_lock(&e->slots_lock);
	__atomic_store_n(&e->vcpus[index], v, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&e->slots_lock);
	return &v->vcpu;
fail:
	free(reset);
	soft_vcpu_destroy(&v->vcpu);
	return NULL;
}

static void soft_kick(struct vcpu *v)
{
	soft_wake(soft_vcpu(v), REQ_KICK);
}

static void soft_nmi(struct vcpu *v)
{
	soft_wake(soft_vcpu(v), REQ_NMI);
}

static enum vcpu_exit soft_vcpu_run(struct vcpu *v, struct err *err)
{
	return soft_run(soft_vcpu(v), err);
}

static int soft_vcpu_step(struct vcpu *v, unsigned n, enum vcpu_exit *exit, struct err *err)
{
	return soft_step(soft_vcpu(v), n, exit, err);
}

static bool soft_translate(struct vcpu *v, uint64_t linear, uint64_t *gpa)
{
	struct soft_engine *e = soft_vcpu(v)->engine;
	bool found;

	/* Outside vcpu_run() nothing else keeps the slots as they are. */
	pthread_mutex_lock(&e->slots_lock);
	found = mmu_peek(soft_vcpu(v), linear, gpa);
	pthread_mutex_unlock(&e->slots_lock);
	return found;
}

const struct engine_ops engine_soft_ops = {
	.kind = ENGINE_SOFT,
	.name = "soft",
	.create = soft_create,
	.destroy = soft_destroy,
	.map = memory_map,
	.map_file = memory_map_file,
	.unmap = memory_unmap,
	.dirty_start = memory_dirty_start,
	.dirty_stop = memory_dirty_stop,
	.dirty_fetch = memory_dirty_fetch,
	.written = memory_written,
	.msi = soft_msi,
	.set_extint = soft_set_extint,
	.ioapic_routes = soft_ioapic_routes,
	.ioeventfd = soft_ioeventfd,
	.irqfd = soft_irqfd,
	.cpuid = soft_cpuid_at,
	.clock = soft_clock,
	.tsc_khz = soft_tsc_khz,
	.get_stats = soft_get_stats,
	.vcpu_create = soft_vcpu_create,
	.vcpu_destroy = soft_vcpu_destroy,
	.run = soft_vcpu_run,
	.kick = soft_kick,
	.nmi = soft_nmi,
	.get_state = state_get,
	.set_state = state_set,
	.step = soft_vcpu_step,
	.translate = soft_translate,
};
