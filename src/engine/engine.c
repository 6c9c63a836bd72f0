/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The public calls of the engine contract, forwarded to the engine at hand. */
#include "engine/engine.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "engine/ops.h"

struct engine *engine_new(const struct engine_config *config, struct err *err)
{
	const struct engine_ops *ops = config->kind == ENGINE_KVM ? &engine_kvm_ops : &engine_soft_ops;
	struct engine *e;

	assert(config->kind != ENGINE_AUTO);
	if (config->cpus < 1 || config->cpus > ENGINE_MAX_CPUS) {
		err_set(err, EINVAL, "%u vCPUs: engine %s takes 1 to %u", config->cpus, ops->name, ENGINE_MAX_CPUS);
		return NULL;
	}
	e = ops->create(config, err);
	if (e) {
		e->ops = ops;
		e->config = *config;
	}
	return e;
}

void engine_free(struct engine *e)
{
	if (e)
		e->ops->destroy(e);
}

enum engine_kind engine_kind(const struct engine *e)
{
	return e->ops->kind;
}

int engine_map(struct engine *e, uint64_t gpa, uint64_t size, void *hva, bool readonly, struct err *err)
{
	assert(!((gpa | size | (uintptr_t)hva) & 4095) && size);
	return e->ops->map(e, gpa, size, hva, readonly, err);
}

int engine_map_file(struct engine *e, uint64_t gpa, int fd, uint64_t offset, struct err *err)
{
	return e->ops->map_file ? e->ops->map_file(e, gpa, fd, offset, err) : 0;
}

int engine_unmap(struct engine *e, uint64_t gpa, uint64_t size, struct err *err)
{
	return e->ops->unmap(e, gpa, size, err);
}

int engine_dirty_start(struct engine *e, struct err *err)
{
	return e->ops->dirty_start(e, err);
}

int engine_dirty_stop(struct engine *e, struct err *err)
{
	return e->ops->dirty_stop(e, err);
}

int engine_dirty_fetch(struct engine *e, uint64_t gpa, uint64_t size, uint8_t *bitmap, struct err *err)
{
	return e->ops->dirty_fetch(e, gpa, size, bitmap, err);
}

void engine_written(struct engine *e, uint64_t gpa, uint64_t len)
{
	if (len)
		e->ops->written(e, gpa, len);
}

void engine_msi(struct engine *e, uint64_t address, uint32_t data)
{
	e->ops->msi(e, address, data);
}

void engine_set_extint(struct engine *e, bool level)
{
	e->ops->set_extint(e, level);
}

void engine_ioapic_routes(struct engine *e, const struct engine_route *routes, unsigned n)
{
	e->ops->ioapic_routes(e, routes, n);
}

int engine_ioeventfd(struct engine *e, uint64_t gpa, unsigned size, int eventfd, bool add, struct err *err)
{
	return e->ops->ioeventfd ? e->ops->ioeventfd(e, gpa, size, eventfd, add, err) : -ENOTSUP;
}

int engine_irqfd(struct engine *e, int eventfd, uint64_t address, uint32_t data, bool add, struct err *err)
{
	return e->ops->irqfd ? e->ops->irqfd(e, eventfd, address, data, add, err) : -ENOTSUP;
}

bool engine_cpuid(struct engine *e, unsigned index, uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
	return e->ops->cpuid(e, index, leaf, subleaf, regs);
}

void engine_clock(struct engine *e, bool run)
{
	if (e->ops->clock)
		e->ops->clock(e, run);
}

uint32_t engine_tsc_khz(struct engine *e)
{
	return e->ops->tsc_khz(e);
}

void engine_get_stats(struct engine *e, struct engine_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	e->ops->get_stats(e, stats);
}

struct vcpu *vcpu_new(struct engine *e, unsigned index, struct err *err)
{
	struct vcpu *v;

	assert(index < e->config.cpus);
	v = e->ops->vcpu_create(e, index, err);
	return v;
}

void vcpu_free(struct vcpu *v)
{
	if (v)
		v->engine->ops->vcpu_destroy(v);
}

enum vcpu_exit vcpu_run(struct vcpu *v, struct err *err)
{
	return v->engine->ops->run(v, err);
}

void vcpu_kick(struct vcpu *v)
{
	v->engine->ops->kick(v);
}

void vcpu_nmi(struct vcpu *v)
{
	v->engine->ops->nmi(v);
}

int vcpu_get_state(struct vcpu *v, struct cpu_state *s, struct err *err)
{
	return v->engine->ops->get_state(v, s, err);
}

int vcpu_set_state(struct vcpu *v, const struct cpu_state *s, struct err *err)
{
	return v->engine->ops->set_state(v, s, err);
}

int vcpu_step(struct vcpu *v, unsigned n, enum vcpu_exit *exit, struct err *err)
{
	if (!v->engine->ops->step)
		return err_set(err, ENOTSUP, "engine %s cannot step single instructions", v->engine->ops->name);
	return v->engine->ops->step(v, n, exit, err);
}

bool vcpu_translate(struct vcpu *v, uint64_t linear, uint64_t *gpa)
{
	return v->engine->ops->translate(v, linear, gpa);
}
