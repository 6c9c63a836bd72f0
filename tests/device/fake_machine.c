/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fake_machine.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- The engine that only writes down ------------------------------------ */

static struct fake_engine *fake_of(struct engine *e)
{
	return (struct fake_engine *)e;
}

static struct engine *fake_create(const struct engine_config *config, struct err *err)
{
	struct fake_engine *f = calloc(1, sizeof(*f));

	if (!f) {
		err_set(err, ENOMEM, "no memory for the fake engine");
		return NULL;
	}
	pthread_mutex_init(&f->lock, NULL);
	return &f->engine;
}

static void fake_destroy(struct engine *e)
{
	pthread_mutex_destroy(&fake_of(e)->lock);
	free(e);
}

static int fake_map(struct engine *e, uint64_t gpa, uint64_t size, void *hva, bool readonly, struct err *err)
{
	return 0;
}

static int fake_unmap(struct engine *e, uint64_t gpa, uint64_t size, struct err *err)
{
	return 0;
}

static int fake_dirty(struct engine *e, struct err *err)
{
	return 0;
}

static int fake_dirty_fetch(struct engine *e, uint64_t gpa, uint64_t size, uint8_t *bitmap, struct err *err)
{
	memset(bitmap, 0, (size / 4096 + 63) / 64 * 8);
	return 0;
}

static void fake_written(struct engine *e, uint64_t gpa, uint64_t len)
{
	__atomic_fetch_add(&fake_of(e)->written_bytes, len, __ATOMIC_RELAXED);
}

static void fake_msi(struct engine *e, uint64_t address, uint32_t data)
{
	struct fake_engine *f = fake_of(e);

	pthread_mutex_lock(&f->lock);
	f->msi[f->msis++ % FAKE_LOG] = (struct fake_msi){ address, data };
	pthread_mutex_unlock(&f->lock);
}

static void fake_extint(struct engine *e, bool level)
{
	struct fake_engine *f = fake_of(e);

	pthread_mutex_lock(&f->lock);
	if (level && !f->extint)
		f->extint_rises++;
	f->extint = level;
	pthread_mutex_unlock(&f->lock);
}

static void fake_routes(struct engine *e, const struct engine_route *routes, unsigned n)
{
	struct fake_engine *f = fake_of(e);

	assert(n <= Q35_GSIS);
	pthread_mutex_lock(&f->lock);
	memcpy(f->route, routes, n * sizeof(*routes));
	f->routes = n;
	f->route_calls++;
	pthread_mutex_unlock(&f->lock);
}

static int fake_ioeventfd(struct engine *e, uint64_t gpa, unsigned size, int eventfd, bool add, struct err *err)
{
	return fake_of(e)->fast_doorbells ? 0 : -ENOTSUP;
}

static int fake_irqfd(struct engine *e, int eventfd, uint64_t address, uint32_t data, bool add, struct err *err)
{
	return fake_of(e)->fast_doorbells ? 0 : -ENOTSUP;
}

static bool fake_cpuid(struct engine *e, unsigned index, uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
	memset(regs, 0, 4 * sizeof(regs[0]));
	return false;
}

static uint32_t fake_tsc_khz(struct engine *e)
{
	return 1000000;
}

static void fake_get_stats(struct engine *e, struct engine_stats *stats)
{
}

struct fake_vcpu {
	struct vcpu vcpu;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool kicked;
	struct cpu_state state;
};

static struct vcpu *fake_vcpu_create(struct engine *e, unsigned index, struct err *err)
{
	struct fake_vcpu *v = aligned_alloc(64, (sizeof(*v) + 63) & ~63ul);

	if (!v) {
		err_set(err, ENOMEM, "no memory for a fake vCPU");
		return NULL;
	}
	memset(v, 0, sizeof(*v));
	v->vcpu.engine = e;
	v->vcpu.index = index;
	pthread_mutex_init(&v->lock, NULL);
	pthread_cond_init(&v->cond, NULL);
	cpu_state_reset(&v->state, index);
	return &v->vcpu;
}

static void fake_vcpu_destroy(struct vcpu *vcpu)
{
	struct fake_vcpu *v = (struct fake_vcpu *)vcpu;

	pthread_mutex_destroy(&v->lock);
	pthread_cond_destroy(&v->cond);
	free(v);
}

static enum vcpu_exit fake_run(struct vcpu *vcpu, struct err *err)
{
	struct fake_vcpu *v = (struct fake_vcpu *)vcpu;

	pthread_mutex_lock(&v->lock);
	while (!v->kicked)
		pthread_cond_wait(&v->cond, &v->lock);
	v->kicked = false;
	pthread_mutex_unlock(&v->lock);
	return VCPU_EXIT_KICK;
}

static void fake_kick(struct vcpu *vcpu)
{
	struct fake_vcpu *v = (struct fake_vcpu *)vcpu;

	pthread_mutex_lock(&v->lock);
	v->kicked = true;
	pthread_cond_signal(&v->cond);
	pthread_mutex_unlock(&v->lock);
}

static void fake_nmi(struct vcpu *v)
{
}

static int fake_get_state(struct vcpu *vcpu, struct cpu_state *s, struct err *err)
{
	*s = ((struct fake_vcpu *)vcpu)->state;
	return 0;
}

static int fake_set_state(struct vcpu *vcpu, const struct cpu_state *s, struct err *err)
{
	((struct fake_vcpu *)vcpu)->state = *s;
	return 0;
}

static bool fake_translate(struct vcpu *v, uint64_t linear, uint64_t *gpa)
{
	*gpa = linear;
	return true;
}

#define FAKE_OPS(k) { \
	.kind = k, .name = "fake", .create = fake_create, .destroy = fake_destroy, \
	.map = fake_map, .unmap = fake_unmap, \
	.dirty_start = fake_dirty, .dirty_stop = fake_dirty, .dirty_fetch = fake_dirty_fetch, .written = fake_written, \
	.msi = fake_msi, .set_extint = fake_extint, .ioapic_routes = fake_routes, .ioeventfd = fake_ioeventfd, \
	.irqfd = fake_irqfd, .cpuid = fake_cpuid, .tsc_khz = fake_tsc_khz, .get_stats = fake_get_stats, \
	.vcpu_create = fake_vcpu_create, .vcpu_destroy = fake_vcpu_destroy, .run = fake_run, .kick = fake_kick, \
	.nmi = fake_nmi, .get_state = fake_get_state, .set_state = fake_set_state, .translate = fake_translate }
const struct engine_ops engine_soft_ops = FAKE_OPS(ENGINE_SOFT);
const struct engine_ops engine_kvm_ops = FAKE_OPS(ENGINE_KVM);

/* ---- The machine --------------------------------------------------------- */

static void die(const char *what, const struct err *err)
{
	fprintf(stderr, "fake machine: %s: %s\n", what, err_msg(err));
	abort();
}

static void owner_event(void *opaque, enum machine_stop what, uint32_t arg, const char *why)
{
	struct fake_machine *f = opaque;

	if (f->events < sizeof(f->event) / sizeof(f->event[0]))
		f->event[f->events++] = (struct fake_event){ what, arg };
}

struct fake_machine *fake_machine_new(void)
{
	struct fake_machine *f = calloc(1, sizeof(*f));
	struct machine_config config = { .name = "fake", .memory = FAKE_RAM, .cpus = 1, .engine = ENGINE_SOFT };
	struct err err = ERR_INIT;

	if (!f)
		abort();
	fake_realtime_ns = FAKE_EPOCH_NS;
	f->loop = loop_new(&err);
	if (!f->loop)
		die("loop", &err);
	config.loop = f->loop;
	config.owner = (struct machine_owner){ .event = owner_event, .opaque = f };
	f->m = machine_new(&config, &err);
	if (!f->m)
		die("machine", &err);
	f->engine = fake_of(f->m->engine);
	return f;
}

void fake_machine_free(struct fake_machine *f)
{
	fake_machine_loop(f);
	machine_free(f->m);
	if (f->user_free)
		f->user_free(f->user);
	loop_free(f->loop);
	free(f);
}

void fake_machine_advance(struct fake_machine *f, uint64_t ns)
{
	fake_clock_advance(f->m->clock, ns);
}

static void quit(void *arg)
{
	loop_quit(arg, 0);
}

void fake_machine_loop(struct fake_machine *f)
{
	/* Descriptors that are ready come in the same batch as the post or the one after it. */
	for (int i = 0; i < 2; i++) {
		if (loop_post(f->loop, quit, f->loop))
			abort();
		loop_run(f->loop);
	}
}

bool fake_msi_take(struct fake_machine *f, struct fake_msi *msi)
{
	struct fake_engine *e = f->engine;
	bool found;

	pthread_mutex_lock(&e->lock);
	if (e->msis - e->taken > FAKE_LOG)
		e->taken = e->msis - FAKE_LOG;
	found = e->taken != e->msis;
	if (found)
		*msi = e->msi[e->taken++ % FAKE_LOG];
	pthread_mutex_unlock(&e->lock);
	return found;
}

void fake_msi_clear(struct fake_machine *f)
{
	pthread_mutex_lock(&f->engine->lock);
	f->engine->taken = f->engine->msis;
	pthread_mutex_unlock(&f->engine->lock);
}
