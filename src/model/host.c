/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host's CPUs, NUMA nodes and memory from sysfs and procfs. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/caps.h"
#include "model/cpuset.h"
#include "model/table.h"

/* A small file's text without the newline, or NULL; the caller frees it. */
static char *read_line(const char *dir, const char *fmt, unsigned n)
{
	char path[512], name[128], *text = NULL;
	size_t room = 0;
	ssize_t len;
	FILE *f;

	snprintf(name, sizeof(name), fmt, n);
	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
		return NULL;
	f = fopen(path, "re");
	if (!f)
		return NULL;
	len = getline(&text, &room, f);
	fclose(f);
	if (len <= 0) {
		free(text);
		return NULL;
	}
	text[strcspn(text, "\n")] = '\0';
	return text;
}

static unsigned read_number(const char *dir, const char *fmt, unsigned n, unsigned otherwise)
{
	char *text = read_line(dir, fmt, n);
	uint64_t value;
	unsigned ret = text && !xml_number(text, &value) && value < UINT32_MAX ? value : otherwise;

	free(text);
	return ret;
}

static bool read_set(const char *dir, const char *fmt, unsigned n, struct cpuset *set)
{
	char *text = read_line(dir, fmt, n);
	bool ok = text && !cpuset_parse(text, set, NULL);

	free(text);
	return ok;
}

static int add_cpu(struct host_caps *h, const char *sysfs, unsigned id, bool online, struct err *err)
{
	struct host_cpu_place *grown = realloc(h->cpus, (h->n_cpus + 1) * sizeof(*grown)), *c;
	struct cpuset siblings;
	char alone[16];

	if (!grown)
		return xml_no_memory(err);
	h->cpus = grown;
	c = &h->cpus[h->n_cpus];
	*c = (struct host_cpu_place){ .id = id, .online = online };
	c->socket = read_number(sysfs, "devices/system/cpu/cpu%u/topology/physical_package_id", id, 0);
	c->die = read_number(sysfs, "devices/system/cpu/cpu%u/topology/die_id", id, 0);
	c->core = read_number(sysfs, "devices/system/cpu/cpu%u/topology/core_id", id, id);
	snprintf(alone, sizeof(alone), "%u", id);
	c->siblings = read_set(sysfs, "devices/system/cpu/cpu%u/topology/thread_siblings_list", id, &siblings)
			      ? cpuset_format(&siblings)
			      : strdup(alone);
	if (!c->siblings)
		return xml_no_memory(err);
	h->n_cpus++;
	return 0;
}

static int read_cpus(struct host_caps *h, const char *sysfs, struct err *err)
{
	struct cpuset present, online;
	int ret = 0;

	if (!read_set(sysfs, "devices/system/cpu/present", 0, &present)) {
		long n = sysconf(_SC_NPROCESSORS_CONF);

		memset(&present, 0, sizeof(present));
		for (long i = 0; i < n && i < CPUSET_MAX; i++)
			present.bits[i / 64] |= 1ull << i % 64;
	}
	if (!read_set(sysfs, "devices/system/cpu/online", 0, &online))
		online = present;
	for (unsigned id = 0; id < CPUSET_MAX && !ret; id++)
		if (cpuset_has(&present, id))
			ret = add_cpu(h, sysfs, id, cpuset_has(&online, id), err);
	return ret;
}

/* "Node 0 MemTotal: 123 kB" and "MemTotal: 123 kB" */
static uint64_t mem_total(const char *dir, const char *fmt, unsigned n)
{
	char *text = read_line(dir, fmt, n), *at = text ? strstr(text, "MemTotal:") : NULL;
	uint64_t kib = at ? strtoull(at + 9, NULL, 10) : 0;

	free(text);
	return kib;
}

static int read_distances(struct host_caps *h, const char *sysfs, struct host_node *n, struct err *err)
{
	char *text = read_line(sysfs, "devices/system/node/node%u/distance", n->id), *p = text;

	if (!text)
		return 0;
	n->distances = calloc(h->n_nodes, sizeof(*n->distances));
	for (unsigned k = 0; n->distances && k < h->n_nodes; k++)
		n->distances[k] = strtoul(p, &p, 10);
	free(text);
	return n->distances ? 0 : xml_no_memory(err);
}

static int read_nodes(struct host_caps *h, const char *sysfs, struct err *err)
{
	struct cpuset nodes, cpus;
	unsigned n = 0;
	int ret = 0;

	if (!read_set(sysfs, "devices/system/node/online", 0, &nodes))
		nodes = (struct cpuset){ { 1 } };
	for (unsigned i = 0; i < CPUSET_MAX; i++)
		n += cpuset_has(&nodes, i);
	h->nodes = calloc(n, sizeof(*h->nodes));
	if (!h->nodes)
		return xml_no_memory(err);
	for (unsigned i = 0; i < CPUSET_MAX; i++)
		if (cpuset_has(&nodes, i))
			h->nodes[h->n_nodes++].id = i;
	for (unsigned i = 0; i < h->n_nodes && !ret; i++) {
		struct host_node *node = &h->nodes[i];

		node->memory_kib = mem_total(sysfs, "devices/system/node/node%u/meminfo", node->id);
		if (!node->memory_kib && h->n_nodes == 1)
			node->memory_kib = h->memory_kib;
		ret = read_distances(h, sysfs, node, err);
		if (!read_set(sysfs, "devices/system/node/node%u/cpulist", node->id, &cpus))
			continue;
		for (unsigned k = 0; k < h->n_cpus; k++)
			if (cpuset_has(&cpus, h->cpus[k].id))
				h->cpus[k].node = node->id;
	}
	return ret;
}

/* libvirt's counts are of one node; where they don't multiply to the CPUs there are, one socket of so many cores. */
static void count_topology(struct host_caps *h)
{
	unsigned sockets = 0, dies = 0, cores = 0;
	struct cpuset siblings;

	h->threads = 1;
	for (unsigned i = 0; i < h->n_cpus; i++) {
		const struct host_cpu_place *c = &h->cpus[i];
		bool new_socket = true, new_die = true, new_core = true;
		unsigned threads = 0;

		for (unsigned k = 0; k < i; k++) {
			const struct host_cpu_place *o = &h->cpus[k];

			new_socket &= o->socket != c->socket;
			new_die &= o->socket != c->socket || o->die != c->die;
			new_core &= o->socket != c->socket || o->die != c->die || o->core != c->core;
		}
		sockets += new_socket;
		dies += new_die;
		cores += new_core;
		if (!cpuset_parse(c->siblings, &siblings, NULL))
			for (unsigned k = 0; k < CPUSET_MAX; k++)
				threads += cpuset_has(&siblings, k);
		if (threads > h->threads)
			h->threads = threads;
	}
	h->sockets = sockets > h->n_nodes ? sockets / h->n_nodes : 1;
	h->dies = sockets ? dies / sockets : 1;
	h->cores = dies ? cores / dies : 1;
	if ((uint64_t)h->n_nodes * h->sockets * h->dies * h->cores * h->threads != h->n_cpus) {
		h->sockets = h->dies = h->threads = 1;
		h->cores = h->n_cpus;
	}
}

static void read_uuid(struct host_caps *h, const char *sysfs)
{
	char *text = read_line(sysfs, "class/dmi/id/product_uuid", 0);

	if (!text || xml_uuid_parse(text, h->uuid)) {
		free(text);
		text = read_line("/etc", "machine-id", 0);
		if (text && xml_uuid_parse(text, h->uuid))
			memset(h->uuid, 0, sizeof(h->uuid));
	}
	free(text);
}

static bool exists(const char *sysfs, const char *name)
{
	char path[512];

	return snprintf(path, sizeof(path), "%s/%s", sysfs, name) < (int)sizeof(path) && !access(path, F_OK);
}

int host_caps_read(struct host_caps *h, const char *sysfs, const char *proc, struct err *err)
{
	int ret;

	memset(h, 0, sizeof(*h));
	cpu_host_read(&h->cpu);
	read_uuid(h, sysfs);
	h->memory_kib = mem_total(proc, "meminfo", 0);
	h->hugepages_2m = exists(sysfs, "kernel/mm/hugepages/hugepages-2048kB");
	h->hugepages_1g = exists(sysfs, "kernel/mm/hugepages/hugepages-1048576kB");
	ret = read_cpus(h, sysfs, err);
	if (!ret)
		ret = read_nodes(h, sysfs, err);
	if (ret)
		host_caps_clear(h);
	else
		count_topology(h);
	return ret;
}

void host_caps_clear(struct host_caps *h)
{
	for (unsigned i = 0; i < h->n_cpus; i++)
		free(h->cpus[i].siblings);
	for (unsigned i = 0; i < h->n_nodes; i++)
		free(h->nodes[i].distances);
	free(h->cpus);
	free(h->nodes);
	memset(h, 0, sizeof(*h));
}
