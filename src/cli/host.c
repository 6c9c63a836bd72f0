/* SPDX-License-Identifier: GPL-2.0-or-later */
/* keel host: what this machine can do for guests, and why. */
#include <jansson.h>
#include <linux/landlock.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cli/cli.h"
#include "engine/engine.h"
#include "machine/machine.h"

/* The kernel tells the version of Landlock's interface, if it has it. */
static bool has_landlock(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) > 0;
}

static const struct fact {
	const char *name, *path, *means;
	bool (*test)(void); /* instead of the path */
} facts[] = {
	{ "tun", "/dev/net/tun", "tap network cards", NULL },
	{ "vhost-net", "/dev/vhost-net", "network rings in the kernel", NULL },
	{ "vfio", "/dev/vfio/vfio", "host devices handed to guests", NULL },
	{ "userfaultfd", "/proc/sys/vm/unprivileged_userfaultfd", "post-copy migration", NULL },
	{ "landlock", NULL, "file sandbox", has_landlock },
	{ "cgroup2", "/sys/fs/cgroup/cgroup.controllers", "limits by cgroup v2", NULL },
};
#define N_FACTS (sizeof(facts) / sizeof(facts[0]))

static bool holds(const struct fact *f)
{
	return f->test ? f->test() : !access(f->path, F_OK);
}

static bool in_path(const char *program)
{
	char *path = getenv("PATH") ? strdup(getenv("PATH")) : NULL, *save = NULL;
	bool found = false;

	for (char *dir = path ? strtok_r(path, ":", &save) : NULL; dir && !found; dir = strtok_r(NULL, ":", &save)) {
		char file[4096];

		snprintf(file, sizeof(file), "%s/%s", dir, program);
		found = !access(file, X_OK);
	}
	free(path);
	return found;
}

static void cpu_model(char *text, size_t room)
{
	FILE *f = fopen("/proc/cpuinfo", "re");
	char line[512];

	snprintf(text, room, "unknown");
	while (f && fgets(line, sizeof(line), f)) {
		char *colon = strchr(line, ':');

		if (strncmp(line, "model name", 10) || !colon)
			continue;
		line[strcspn(line, "\n")] = 0;
		snprintf(text, room, "%s", colon + 2);
		break;
	}
	if (f)
		fclose(f);
}

static void print_text(const struct engine_probe *p, const char *model, long cpus, unsigned long long mib)
{
	printf("CPU:             %s, %ld online\n", model, cpus);
	printf("Memory:          %llu MiB\n", mib);
	printf("KVM:             %s\n", !p->present ? "absent" : p->usable ? "usable" : "present, but not usable");
	printf("                 %s\n", p->reason);
	printf("Engine (auto):   %s\n", p->usable ? "kvm" : "soft");
	printf("Limits:          %u vCPUs (kvm: %u), %llu GiB of memory a guest\n", ENGINE_MAX_CPUS, p->max_vcpus,
	       (unsigned long long)(Q35_RAM_MAX >> 30));
	printf("User network:    %s\n", in_path("passt") ? "passt" : "none; install the package passt");
	for (unsigned i = 0; i < N_FACTS; i++)
		printf("%-16s %s (%s)\n", facts[i].name, holds(&facts[i]) ? "yes" : "no", facts[i].means);
}

static int print_json(const struct engine_probe *p, const char *model, long cpus, unsigned long long mib)
{
	json_t *features = json_object(), *host;
	int ret;

	for (unsigned i = 0; i < N_FACTS; i++)
		json_object_set_new(features, facts[i].name, json_boolean(holds(&facts[i])));
	host = json_pack("{s:s,s:I,s:I,s:{s:b,s:b,s:s,s:i,s:s,s:i},s:s,s:i,s:I,s:b,s:o}", "cpu-model", model, "cpus",
			 (json_int_t)cpus, "memory-mib", (json_int_t)mib, "kvm", "present", p->present, "usable", p->usable,
			 "reason", p->reason, "ring0-ns", (int)p->ring0_ns, "refused", p->refused, "max-vcpus",
			 (int)p->max_vcpus, "engine", p->usable ? "kvm" : "soft", "max-vcpus", (int)ENGINE_MAX_CPUS,
			 "max-memory-mib", (json_int_t)(Q35_RAM_MAX >> 20), "passt", in_path("passt"), "features", features);
	ret = host ? json_dumpf(host, stdout, JSON_INDENT(2)) : -1;
	putchar('\n');
	json_decref(host);
	return ret ? 1 : 0;
}

int builtin_host(int argc, char **argv)
{
	bool json = argc == 2 && !strcmp(argv[1], "--json");
	unsigned long long mib = (unsigned long long)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE) >> 20;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct engine_probe probe;
	char model[128];

	if (argc == 2 && !strcmp(argv[1], "--help")) {
		printf("Usage: keel host [--json]\nTell what this host can do for virtual machines: CPU, KVM and why it is used or not,\n"
		       "limits and features.\n");
		return 0;
	}
	if (argc > 1 && !json) {
		fprintf(stderr, "keel host: unknown argument '%s'; see 'keel help host'\n", argv[1]);
		return 2;
	}
	engine_probe_kvm(&probe);
	cpu_model(model, sizeof(model));
	if (json)
		return print_json(&probe, model, cpus, mib);
	print_text(&probe, model, cpus, mib);
	return 0;
}
