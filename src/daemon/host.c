/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What this host and this build can do, found out once. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/guest.h"
#include "engine/engine.h"
#include "model/caps.h"

static const char *const bios_paths[] = { "/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin", NULL };
static const char *const efi_paths[] = { "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd", NULL };

static const char *first_readable(const char *const *paths)
{
	while (*paths && access(*paths, R_OK))
		paths++;
	return *paths;
}

/* Beside this program, as in a build directory, or where it is installed. */
static char *find_vmm(void)
{
	char path[PATH_MAX + 16];
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 1);
	char *slash;

	if (n > 0) {
		path[n] = 0;
		slash = strrchr(path, '/');
		strcpy(slash + 1, "keel-vmm");
		if (!access(path, X_OK))
			return strdup(path);
	}
	return strdup(KEEL_LIBEXECDIR "/keel-vmm");
}

int host_init(struct daemon *d, struct err *err)
{
	struct engine_probe probe;

	d->vmm = find_vmm();
	if (!d->vmm)
		return err_set(err, ENOMEM, "no memory for a path");
	domain_caps_init(&d->caps);
	d->caps.devices |= 1ull << DOM_CAN_VIRTIO_SCSI | 1ull << DOM_CAN_CDROM | 1ull << DOM_CAN_IOTUNE |
			  1ull << DOM_CAN_DISK_ERRORS;
	if (d->cgroups.dir[CG_CPU] && d->cgroups.dir[CG_MEMORY] && d->cgroups.dir[CG_BLKIO])
		d->caps.devices |= 1ull << DOM_CAN_TUNE;
	if (d->privileged)
		d->caps.devices |= 1ull << DOM_CAN_NET_TAP;
	engine_probe_kvm(&probe);
	d->caps.kvm = probe.usable;
	d->caps.soft = true;
	d->caps.emulator = d->vmm;
	d->caps.firmware_bios = first_readable(bios_paths);
	d->caps.firmware_efi = first_readable(efi_paths);
	d->caps.privileged = d->privileged;
	return 0;
}

void host_free(struct daemon *d)
{
	if (d->host)
		host_caps_clear(d->host);
	free(d->host);
	free(d->vmm);
}

/* The machine's own number, if it has one: /etc/machine-id, 32 hexadecimal digits (machine-id(5)). */
static void host_uuid(uint8_t uuid[16])
{
	FILE *f = fopen("/etc/machine-id", "re");

	memset(uuid, 0, 16);
	for (unsigned n = 0; f && n < 16; n++)
		if (fscanf(f, "%2hhx", &uuid[n]) != 1)
			break;
	if (f)
		fclose(f);
}

/* Read when somebody asks first: it takes longer than a start may. */
static const struct host_caps *host_of(struct rpc_call *call)
{
	struct daemon *d = call_daemon(call);
	struct err err = ERR_INIT;

	if (d->host)
		return d->host;
	d->host = calloc(1, sizeof(*d->host));
	if (!d->host) {
		call_fail_memory(call);
		return NULL;
	}
	if (host_caps_read(d->host, "/sys", "/proc", &err)) {
		free(d->host);
		d->host = NULL;
		rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INTERNAL_ERROR, "%s", err_msg(&err));
		return NULL;
	}
	host_uuid(d->host->uuid);
	return d->host;
}

/* ---- Calls ----------------------------------------------------------------- */

/* Takes the text. */
static int give(struct rpc_call *call, char **to, char *text, const struct err *err)
{
	if (text)
		*to = arena_strdup(&call->arena, text);
	else if (err && err->code)
		return rpc_call_fail(call, VIR_FROM_CPU, model_vir_code(err), "%s", err_msg(err));
	free(text);
	return *to ? 0 : call_fail_memory(call);
}

static int get_capabilities(struct rpc_call *call)
{
	struct remote_connect_get_capabilities_ret *ret = call->ret;
	const struct host_caps *host = host_of(call);

	return host ? give(call, &ret->capabilities, capabilities_format(host, &call_daemon(call)->caps), NULL) : -1;
}

static int get_domain_capabilities(struct rpc_call *call)
{
	const struct remote_connect_get_domain_capabilities_args *args = call->args;
	struct remote_connect_get_domain_capabilities_ret *ret = call->ret;
	const struct host_caps *host = host_of(call);
	struct err err = ERR_INIT;
	char *text;

	if (call_check_flags(call, args->flags, 0) || !host)
		return -1;
	text = domain_capabilities_format(host, &call_daemon(call)->caps, args->emulatorbin, args->arch, args->machine,
					  args->virttype, &err);
	if (!text && err.code)
		return rpc_call_fail(call, VIR_FROM_QEMU, model_vir_code(&err), "%s", err_msg(&err));
	return give(call, &ret->capabilities, text, NULL);
}

static int get_cpu_model_names(struct rpc_call *call)
{
	const struct remote_connect_get_cpu_model_names_args *args = call->args;
	struct remote_connect_get_cpu_model_names_ret *ret = call->ret;
	unsigned n = cpu_model_count();

	if (call_check_flags(call, args->flags, 0))
		return -1;
	if (strcmp(args->arch, "x86_64") && strcmp(args->arch, "i686"))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "cannot find architecture %s", args->arch);
	ret->ret = (int32_t)n;
	if (!args->need_results)
		return 0;
	ret->models = arena_alloc(&call->arena, (n + 1) * sizeof(*ret->models));
	if (!ret->models)
		return call_fail_memory(call);
	for (unsigned i = 0; i < n; i++)
		ret->models[i] = (char *)cpu_model_name(i);
	ret->models_len = n;
	return 0;
}

enum { COMPARE_FAIL_INCOMPATIBLE = 1, COMPARE_VALIDATE = 2 }; /* virConnectCompareCPUFlags */
enum { BASELINE_EXPAND = 1, BASELINE_MIGRATABLE = 2 };	       /* virConnectBaselineCPUFlags */

static int compare(struct rpc_call *call, const char *xml, uint32_t flags, int32_t *result)
{
	const struct host_caps *host = host_of(call);
	struct err err = ERR_INIT;
	int ret;

	if (!host || call_check_flags(call, flags, COMPARE_FAIL_INCOMPATIBLE | COMPARE_VALIDATE))
		return -1;
	ret = cpu_compare_xml(&host->cpu, xml, &err);
	if (ret < 0)
		return rpc_call_fail(call, VIR_FROM_CPU, model_vir_code(&err), "%s", err_msg(&err));
	if (ret == CPU_COMPARE_INCOMPATIBLE && (flags & COMPARE_FAIL_INCOMPATIBLE))
		return rpc_call_fail(call, VIR_FROM_CPU, VIR_ERR_CPU_INCOMPATIBLE, "the host lacks features of it");
	*result = ret;
	return 0;
}

static int compare_cpu(struct rpc_call *call)
{
	const struct remote_connect_compare_cpu_args *args = call->args;

	return compare(call, args->xml, args->flags, &((struct remote_connect_compare_cpu_ret *)call->ret)->result);
}

/* Guests get the host's CPU. */
static int compare_hypervisor_cpu(struct rpc_call *call)
{
	const struct remote_connect_compare_hypervisor_cpu_args *args = call->args;

	return compare(call, args->xmlCPU, args->flags, &((struct remote_connect_compare_hypervisor_cpu_ret *)call->ret)->result);
}

static int baseline(struct rpc_call *call, char **xml, unsigned n, uint32_t flags, char **to)
{
	struct err err = ERR_INIT;

	if (call_check_flags(call, flags, BASELINE_EXPAND | BASELINE_MIGRATABLE))
		return -1;
	return give(call, to, cpu_baseline_xml((const char *const *)xml, n, flags & BASELINE_EXPAND, &err), &err);
}

static int baseline_cpu(struct rpc_call *call)
{
	const struct remote_connect_baseline_cpu_args *args = call->args;

	return baseline(call, args->xmlCPUs, args->xmlCPUs_len, args->flags,
			&((struct remote_connect_baseline_cpu_ret *)call->ret)->cpu);
}

static int baseline_hypervisor_cpu(struct rpc_call *call)
{
	const struct remote_connect_baseline_hypervisor_cpu_args *args = call->args;

	return baseline(call, args->xmlCPUs, args->xmlCPUs_len, args->flags,
			&((struct remote_connect_baseline_hypervisor_cpu_ret *)call->ret)->cpu);
}

const struct binding host_bindings[] = {
	{ REMOTE_PROC_CONNECT_GET_CAPABILITIES, get_capabilities },
	{ REMOTE_PROC_CONNECT_GET_DOMAIN_CAPABILITIES, get_domain_capabilities },
	{ REMOTE_PROC_CONNECT_GET_CPU_MODEL_NAMES, get_cpu_model_names },
	{ REMOTE_PROC_CONNECT_COMPARE_CPU, compare_cpu },
	{ REMOTE_PROC_CONNECT_COMPARE_HYPERVISOR_CPU, compare_hypervisor_cpu },
	{ REMOTE_PROC_CONNECT_BASELINE_CPU, baseline_cpu },
	{ REMOTE_PROC_CONNECT_BASELINE_HYPERVISOR_CPU, baseline_hypervisor_cpu },
	{ 0 },
};
