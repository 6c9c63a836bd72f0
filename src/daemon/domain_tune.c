/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a guest's threads run: pinning, by the definition and while it runs. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/confine_cgroup.h"
#include "daemon/guest.h"
#include "daemon/guest_tune.h"
#include "daemon/proc_stat.h"
#include "model/cpuset.h"
#include "util/log.h"

/* ---- CPU sets -------------------------------------------------------------- */

unsigned host_cpus(void)
{
	static long n;

	if (!n)
		n = sysconf(_SC_NPROCESSORS_CONF);
	return n > 0 ? (unsigned)n : 1;
}

static bool map_has(const uint8_t *map, unsigned bytes, unsigned cpu)
{
	return cpu / 8 < bytes && map[cpu / 8] & 1u << cpu % 8;
}

bool cpumap_parse(const char *text, uint8_t *map, unsigned bytes)
{
	struct cpuset set;
	bool any = false;

	memset(map, 0, bytes);
	if (cpuset_parse(text, &set, NULL))
		return false;
	for (unsigned cpu = 0; cpu < 8 * bytes; cpu++) { /* CPUs that this host doesn't have are left out */
		if (!cpuset_has(&set, cpu))
			continue;
		map[cpu / 8] |= (uint8_t)(1u << cpu % 8);
		any = true;
	}
	return any;
}

static char *cpumap_format(const uint8_t *map, unsigned bytes)
{
	struct cpuset set = { 0 };

	for (unsigned cpu = 0; cpu < 8 * bytes && cpu < CPUSET_MAX; cpu++)
		if (map_has(map, bytes, cpu))
			set.bits[cpu / 64] |= 1ull << cpu % 64;
	return cpuset_format(&set);
}

static void map_all(uint8_t *map, unsigned bytes)
{
	memset(map, 0, bytes);
	for (unsigned cpu = 0; cpu < host_cpus() && cpu < 8 * bytes; cpu++)
		map[cpu / 8] |= (uint8_t)(1u << cpu % 8);
}

/* ---- Threads --------------------------------------------------------------- */

static int pin_thread(pid_t tid, const uint8_t *map, unsigned bytes)
{
	unsigned cpus = 8 * bytes;
	cpu_set_t *set = CPU_ALLOC(cpus);
	size_t size = CPU_ALLOC_SIZE(cpus);
	int ret = 0;

	if (!set)
		return -ENOMEM;
	CPU_ZERO_S(size, set);
	for (unsigned cpu = 0; cpu < cpus; cpu++)
		if (map_has(map, bytes, cpu))
			CPU_SET_S(cpu, size, set);
	if (sched_setaffinity(tid, size, set))
		ret = -errno;
	CPU_FREE(set);
	return ret;
}

static void thread_map(pid_t tid, uint8_t *map, unsigned bytes)
{
	cpu_set_t set;

	memset(map, 0, bytes);
	if (!tid || sched_getaffinity(tid, sizeof(set), &set))
		return;
	for (unsigned cpu = 0; cpu < 8 * bytes && cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &set))
			map[cpu / 8] |= (uint8_t)(1u << cpu % 8);
}

/* The set of a vCPU, or of the emulator's threads (vcpu < 0), by the definition; NULL: any CPU. */
static const char *cpuset_of(const struct domain *def, int vcpu)
{
	const struct dom_cputune *t = def->cputune;

	for (unsigned n = 0; t && vcpu >= 0 && n < t->vcpupin.n; n++)
		if (t->vcpupin.v[n]->vcpu.value == (unsigned)vcpu)
			return t->vcpupin.v[n]->cpuset;
	if (t && vcpu < 0 && t->emulatorpin)
		return t->emulatorpin->cpuset;
	return def->vcpu->cpuset;
}

void tune_apply(struct guest *g)
{
	unsigned bytes = cpumap_bytes();
	uint8_t map[1024];

	confine_cgroup_apply(g);
	if (bytes > sizeof(map))
		return;
	for (int n = -1; n < (int)domain_vcpus_current(g->live); n++) {
		const char *set = cpuset_of(g->live, n);
		pid_t tid = n < 0 ? guest_pid(g) : guest_vcpu_tid(g, (unsigned)n);
		int ret;

		if (!set || !tid)
			continue;
		ret = cpumap_parse(set, map, bytes) ? pin_thread(tid, map, bytes) : -EINVAL;
		if (ret)
			log_line(LOG_WARN, "the guest '%s' is not pinned to the CPUs %s: %s", g->name, set, strerror(-ret));
	}
}

/* ---- Calls ----------------------------------------------------------------- */

static struct dom_pin *pin_slot(struct domain *def, int vcpu)
{
	struct dom_cputune *t = def->cputune;
	struct dom_pin **v;

	if (!t && !(t = def->cputune = calloc(1, sizeof(*t))))
		return NULL;
	if (vcpu < 0)
		return t->emulatorpin ? t->emulatorpin : (t->emulatorpin = calloc(1, sizeof(struct dom_pin)));
	for (unsigned n = 0; n < t->vcpupin.n; n++)
		if (t->vcpupin.v[n]->vcpu.value == (unsigned)vcpu)
			return t->vcpupin.v[n];
	v = realloc(t->vcpupin.v, (t->vcpupin.n + 1) * sizeof(struct dom_pin *));
	if (!v)
		return NULL;
	t->vcpupin.v = v;
	v[t->vcpupin.n] = calloc(1, sizeof(struct dom_pin));
	if (!v[t->vcpupin.n])
		return NULL;
	v[t->vcpupin.n]->vcpu = (struct opt32){ .value = (unsigned)vcpu, .set = true };
	return v[t->vcpupin.n++];
}

static int put_pin(struct domain *def, int vcpu, const char *set)
{
	char *copy = strdup(set);
	struct dom_pin *pin = copy ? pin_slot(def, vcpu) : NULL;

	if (!pin) {
		free(copy);
		return -ENOMEM;
	}
	free(pin->cpuset);
	pin->cpuset = copy;
	return 0;
}

static void tell_pin(struct rpc_call *call, struct guest *g, int vcpu, const char *set)
{
	struct params p = { .arena = &call->arena };
	char name[40] = "cputune.emulatorpin";

	if (vcpu >= 0)
		snprintf(name, sizeof(name), "cputune.vcpupin%d", vcpu);
	params_string(&p, name, set);
	event_tunable(g, p.list, p.n);
}

/* vcpu < 0: the emulator's threads. */
static int pin(struct rpc_call *call, struct guest *g, int vcpu, const uint8_t *map, uint32_t bytes, uint32_t flags)
{
	struct domain *before;
	bool live, config;
	char *set;
	int ret;

	if (call_check_flags(call, flags, AFFECT_LIVE | AFFECT_CONFIG) || call_affect(call, g, flags, &live, &config))
		return -1;
	if (vcpu >= 0 && ((live && (unsigned)vcpu >= domain_vcpus_current(g->live)) ||
			  (config && (unsigned)vcpu >= g->config->vcpu->max)))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "vcpu %d is out of range of live cpu count %u", vcpu,
				     domain_vcpus_current(guest_def(g)));
	set = cpumap_format(map, bytes);
	if (!set)
		return call_fail_memory(call);
	if (!*set) {
		free(set);
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "Empty cpu list for pinning");
	}
	if (live) {
		pid_t tid = vcpu < 0 ? guest_pid(g) : guest_vcpu_tid(g, (unsigned)vcpu);

		ret = tid ? pin_thread(tid, map, bytes) : 0;
		if (!ret)
			ret = put_pin(g->live, vcpu, set);
		if (ret) {
			free(set);
			return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_SYSTEM_ERROR, "cannot set CPU affinity on process %d: %s", tid,
					     strerror(-ret));
		}
		store_save_live(g);
		tell_pin(call, g, vcpu, set);
	}
	if (config) {
		before = domain_copy(g->config);
		if (!before || put_pin(g->config, vcpu, set)) {
			free(set);
			domain_free(before);
			return call_fail_memory(call);
		}
		if (guest_config_commit(call, g, before)) {
			free(set);
			return -1;
		}
	}
	free(set);
	return 0;
}

static int pin_vcpu(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_pin_vcpu_args *args = call->args;

	return pin(call, g, args->vcpu > INT16_MAX ? INT16_MAX : (int)args->vcpu, args->cpumap, args->cpumap_len, AFFECT_LIVE);
}

static int pin_vcpu_flags(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_pin_vcpu_flags_args *args = call->args;

	return pin(call, g, args->vcpu > INT16_MAX ? INT16_MAX : (int)args->vcpu, args->cpumap, args->cpumap_len, args->flags);
}

static int pin_emulator(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_pin_emulator_args *args = call->args;

	return pin(call, g, -1, args->cpumap, args->cpumap_len, args->flags);
}

static void definition_map(const struct domain *def, int vcpu, uint8_t *map, unsigned bytes)
{
	const char *set = cpuset_of(def, vcpu);

	if (!set || !cpumap_parse(set, map, bytes))
		map_all(map, bytes);
}

#define MAPS_MAX (1u << 20)

static int get_vcpu_pin_info(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_get_vcpu_pin_info_args *args = call->args;
	struct remote_domain_get_vcpu_pin_info_ret *ret = call->ret;
	const struct domain *def;
	unsigned n;

	if (call_check_flags(call, args->flags, AFFECT_LIVE | AFFECT_CONFIG))
		return -1;
	def = call_affect_one(call, g, args->flags);
	if (!def)
		return -1;
	if (args->ncpumaps < 0 || args->maplen < 0 || (uint64_t)args->ncpumaps * (unsigned)args->maplen > MAPS_MAX)
		return rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_INTERNAL_ERROR, "maxinfo * maplen > REMOTE_CPUMAPS_MAX");
	n = (unsigned)args->ncpumaps < def->vcpu->max ? (unsigned)args->ncpumaps : def->vcpu->max;
	ret->cpumaps = arena_alloc(&call->arena, (size_t)n * (unsigned)args->maplen + 1);
	if (!ret->cpumaps)
		return call_fail_memory(call);
	for (unsigned i = 0; i < n; i++)
		definition_map(def, (int)i, ret->cpumaps + (size_t)i * (unsigned)args->maplen, (unsigned)args->maplen);
	ret->cpumaps_len = n * (unsigned)args->maplen;
	ret->num = (int32_t)n;
	return 0;
}

static int get_emulator_pin_info(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_get_emulator_pin_info_args *args = call->args;
	struct remote_domain_get_emulator_pin_info_ret *ret = call->ret;
	const struct domain *def;

	if (call_check_flags(call, args->flags, AFFECT_LIVE | AFFECT_CONFIG))
		return -1;
	def = call_affect_one(call, g, args->flags);
	if (!def)
		return -1;
	if (args->maplen < 0 || (unsigned)args->maplen > MAPS_MAX)
		return rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_INTERNAL_ERROR, "maplen is too large");
	ret->cpumaps = arena_alloc(&call->arena, (unsigned)args->maplen + 1u);
	if (!ret->cpumaps)
		return call_fail_memory(call);
	definition_map(def, -1, ret->cpumaps, (unsigned)args->maplen);
	ret->cpumaps_len = (unsigned)args->maplen;
	ret->ret = 1;
	return 0;
}

/* virVcpuState */
enum { VCPU_OFFLINE, VCPU_RUNNING };

static int get_vcpus(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_get_vcpus_args *args = call->args;
	struct remote_domain_get_vcpus_ret *ret = call->ret;
	unsigned n, maplen = (unsigned)args->maplen;
	struct proc_stat s;

	if (!guest_is_active(g))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID,
				     "cannot retrieve vcpu information on inactive domain");
	if (args->maxinfo < 0 || args->maplen < 0 || (uint64_t)args->maxinfo * maplen > MAPS_MAX)
		return rpc_call_fail(call, VIR_FROM_RPC, VIR_ERR_INTERNAL_ERROR, "maxinfo * maplen > REMOTE_CPUMAPS_MAX");
	n = domain_vcpus_current(g->live);
	if (n > (unsigned)args->maxinfo)
		n = (unsigned)args->maxinfo;
	ret->info = arena_alloc(&call->arena, (n + 1) * sizeof(*ret->info));
	ret->cpumaps = arena_alloc(&call->arena, (size_t)n * maplen + 1);
	if (!ret->info || !ret->cpumaps)
		return call_fail_memory(call);
	for (unsigned i = 0; i < n; i++) {
		pid_t tid = guest_vcpu_tid(g, i);

		ret->info[i] = (struct remote_vcpu_info){ .number = i, .state = VCPU_RUNNING, .cpu = -1 };
		if (tid && proc_stat_read(guest_pid(g), tid, &s)) {
			ret->info[i].cpu_time = s.user_ns + s.system_ns;
			ret->info[i].cpu = s.cpu;
		}
		if (tid)
			thread_map(tid, ret->cpumaps + (size_t)i * maplen, maplen);
		else
			definition_map(g->live, (int)i, ret->cpumaps + (size_t)i * maplen, maplen);
	}
	ret->info_len = n;
	ret->cpumaps_len = n * maplen;
	return 0;
}

const struct guest_binding tune_bindings[] = {
	{ NULL, REMOTE_PROC_DOMAIN_PIN_VCPU, pin_vcpu, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_PIN_VCPU_FLAGS, pin_vcpu_flags, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_PIN_EMULATOR, pin_emulator, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_GET_VCPU_PIN_INFO, get_vcpu_pin_info, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_GET_EMULATOR_PIN_INFO, get_emulator_pin_info, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_GET_VCPUS, get_vcpus, 0 },
	{ 0 },
};
