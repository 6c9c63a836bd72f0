/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an engine implements. engine.c forwards each call of engine.h here;
 * `struct engine` and `struct vcpu` are the first member of the engine's own
 * structs.
 */
#pragma once
#include "engine/engine.h"

struct engine_ops {
	enum engine_kind kind;
	const char *name;
	struct engine *(*create)(const struct engine_config *config, struct err *err);
	void (*destroy)(struct engine *e);
	int (*map)(struct engine *e, uint64_t gpa, uint64_t size, void *hva, bool readonly, struct err *err);
	int (*map_file)(struct engine *e, uint64_t gpa, int fd, uint64_t offset, struct err *err); /* may be NULL */
	int (*unmap)(struct engine *e, uint64_t gpa, uint64_t size, struct err *err);
	int (*dirty_start)(struct engine *e, struct err *err);
	int (*dirty_stop)(struct engine *e, struct err *err);
	int (*dirty_fetch)(struct engine *e, uint64_t gpa, uint64_t size, uint8_t *bitmap, struct err *err);
	void (*written)(struct engine *e, uint64_t gpa, uint64_t len);
	void (*msi)(struct engine *e, uint64_t address, uint32_t data);
	void (*set_extint)(struct engine *e, bool level);
	void (*ioapic_routes)(struct engine *e, const struct engine_route *routes, unsigned n);
	int (*ioeventfd)(struct engine *e, uint64_t gpa, unsigned size, int eventfd, bool add, struct err *err);
	int (*irqfd)(struct engine *e, int eventfd, uint64_t address, uint32_t data, bool add, struct err *err);
	bool (*cpuid)(struct engine *e, unsigned index, uint32_t leaf, uint32_t subleaf, uint32_t regs[4]);
	uint32_t (*tsc_khz)(struct engine *e);
	void (*clock)(struct engine *e, bool run); /* may be NULL */
	void (*get_stats)(struct engine *e, struct engine_stats *stats);
	struct vcpu *(*vcpu_create)(struct engine *e, unsigned index, struct err *err);
	void (*vcpu_destroy)(struct vcpu *v);
	enum vcpu_exit (*run)(struct vcpu *v, struct err *err);
	void (*kick)(struct vcpu *v);
	void (*nmi)(struct vcpu *v);
	int (*get_state)(struct vcpu *v, struct cpu_state *s, struct err *err);
	int (*set_state)(struct vcpu *v, const struct cpu_state *s, struct err *err);
	int (*step)(struct vcpu *v, unsigned n, enum vcpu_exit *exit, struct err *err);
	bool (*translate)(struct vcpu *v, uint64_t linear, uint64_t *gpa);
};

struct engine {
	const struct engine_ops *ops;
	struct engine_config config;
};

struct vcpu {
	struct engine *engine;
	unsigned index;
};

extern const struct engine_ops engine_soft_ops, engine_kvm_ops;
