/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the host is and what guests can have on it: libvirt's capabilities and
 * domain capabilities, and comparing CPUs.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "model/domain.h"

/* ---- CPU ------------------------------------------------------------------ */

#define CPU_FEATURES_MAX 512

/* A CPU as a set of features; see cpu_feature_name(). */
struct cpu_set {
	uint64_t bits[CPU_FEATURES_MAX / 64];
};
struct cpu_host {
	char vendor[13]; /* as CPUID gives it: "AuthenticAMD" */
	uint32_t family, model, stepping, signature;
	uint32_t phys_bits;
	struct cpu_set features;
};

/* Of the CPU that this runs on. */
void cpu_host_read(struct cpu_host *cpu);
const char *cpu_vendor_name(const char *cpuid_vendor); /* libvirt's: "AMD", "Intel"; NULL: another */
unsigned cpu_feature_count(void);
const char *cpu_feature_name(unsigned i); /* libvirt's names; NULL past the last */
int cpu_feature_find(const char *name);   /* its number or -1 */
static inline bool cpu_set_has(const struct cpu_set *s, unsigned feature)
{
	return s->bits[feature / 64] >> feature % 64 & 1;
}

/*
 * CPU models: the levels of the x86-64 psABI, "x86-64-v1" to "x86-64-v4".
 * Keel's guests get the host's CPU, so these only describe and compare.
 */
unsigned cpu_model_count(void);
const char *cpu_model_name(unsigned i);
/* What a level has; false if there is no such level. */
bool cpu_model_set(const char *name, struct cpu_set *set);
/* The best level of which the set has everything. */
unsigned cpu_model_best(const struct cpu_set *set);

enum cpu_compare { CPU_COMPARE_INCOMPATIBLE = 0, CPU_COMPARE_IDENTICAL = 1, CPU_COMPARE_SUPERSET = 2 }; /* virCPUCompareResult */
/* The host against <cpu> (host's or guest's form) or a document that has one. A negative errno and err on failure. */
int cpu_compare_xml(const struct cpu_host *host, const char *xml, struct err *err);
/* What all have in common: <cpu> as virConnectBaselineCPU gives it. `expand`: with the model's own features. */
char *cpu_baseline_xml(const char *const *xml, unsigned n, bool expand, struct err *err);

/* ---- Host ----------------------------------------------------------------- */

struct host_cpu_place { /* one logical CPU */
	unsigned id, node, socket, die, core;
	char *siblings; /* "0-1" */
	bool online;
};
struct host_node {
	unsigned id;
	uint64_t memory_kib;
	uint32_t *distances; /* one for each node, or NULL */
};
struct host_caps {
	uint8_t uuid[16];
	struct cpu_host cpu;
	uint64_t memory_kib;
	unsigned sockets, dies, cores, threads; /* a node's sockets as libvirt counts: the product is the CPUs of the host */
	struct host_cpu_place *cpus;
	unsigned n_cpus;
	struct host_node *nodes;
	unsigned n_nodes;
	bool hugepages_1g, hugepages_2m;
};
/* Read `sysfs` ("/sys") and `proc` ("/proc"). What can't be read is as on a host with one node and one socket. */
int host_caps_read(struct host_caps *host, const char *sysfs, const char *proc, struct err *err);
void host_caps_clear(struct host_caps *host);

/* <capabilities>: malloced; NULL only without memory. */
char *capabilities_format(const struct host_caps *host, const struct domain_caps *caps);

/*
 * <domainCapabilities> for what the client asked for; each may be NULL for the
 * default. NULL and err (ENOENT, EINVAL as libvirt) if there is no such thing.
 */
char *domain_capabilities_format(const struct host_caps *host, const struct domain_caps *caps, const char *emulator,
				 const char *arch, const char *machine, const char *virttype, struct err *err);
