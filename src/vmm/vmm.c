/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/vmm.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device/balloon.h"
#include "device/classes.h"
#include "device/fw_cfg.h"
#include "device/root_port.h"
#include "util/files.h"
#include "util/log.h"
#include "vmm/chardev.h"
#include "vmm/objects.h"

/* ---- Events of the machine ----------------------------------------------- */

const char *vmm_status(const struct vmm *v)
{
	switch (v->machine->state) {
	case MACHINE_PRELAUNCH:
		return "prelaunch";
	case MACHINE_RUNNING:
		return "running";
	case MACHINE_PAUSED:
		return v->io_error ? "io-error" : "paused";
	default:
		return v->panicked ? "guest-panicked" : "shutdown";
	}
}

void vmm_quit(struct vmm *v, int status, bool by_guest, const char *reason)
{
	if (v->ended)
		return;
	v->ended = true;
	machine_pause(v->machine);
	qmp_event(v->qmp, "SHUTDOWN", json_pack("{s:b,s:s}", "guest", by_guest, "reason", reason));
	loop_quit(v->loop, status);
}

/* The guest has ended by itself. */
static void guest_ended(struct vmm *v, int status, const char *reason)
{
	if (!v->options->no_shutdown) {
		vmm_quit(v, status, true, reason);
		return;
	}
	machine_pause(v->machine);
	v->machine->state = MACHINE_ENDED;
	qmp_event(v->qmp, "SHUTDOWN", json_pack("{s:b,s:s}", "guest", true, "reason", reason));
	qmp_event(v->qmp, "STOP", NULL);
}

void vmm_stop(struct vmm *v)
{
	if (v->machine->state != MACHINE_RUNNING)
		return;
	machine_pause(v->machine);
	qmp_event(v->qmp, "STOP", NULL);
}

int vmm_prepare(struct vmm *v, struct err *err)
{
	int ret = v->prepared ? 0 : machine_reset(v->machine, err);

	v->prepared = !ret;
	return ret;
}

int vmm_cont(struct vmm *v, struct err *err)
{
	if (v->machine->state == MACHINE_RUNNING)
		return 0;
	if (v->machine->state == MACHINE_ENDED)
		return err_set(err, EPERM, "Resetting the Virtual Machine is required");
	if (vmm_prepare(v, err) || machine_start(v->machine, err))
		return -err->code;
	v->io_error = false;
	qmp_event(v->qmp, "RESUME", NULL);
	return 0;
}

int vmm_reset(struct vmm *v, bool by_guest, struct err *err)
{
	bool run = v->machine->state == MACHINE_RUNNING || by_guest;
	int ret;

	machine_pause(v->machine);
	vmm_plug_reset(v);
	ret = machine_reset(v->machine, err);
	if (ret)
		return ret;
	v->prepared = true;
	v->panicked = v->io_error = false;
	qmp_event(v->qmp, "RESET", json_pack("{s:b,s:s}", "guest", by_guest, "reason",
					     by_guest ? "guest-reset" : "host-qmp-system-reset"));
	return run ? machine_start(v->machine, err) : 0;
}

void vmm_powerdown(struct vmm *v)
{
	if (v->machine->power_button)
		v->machine->power_button(v->machine->power_opaque);
}

static void guest_reset(struct vmm *v)
{
	struct err err = ERR_INIT;

	if (v->options->no_reboot) {
		guest_ended(v, v->panicked ? VMM_CRASHED : VMM_OFF, "guest-reset");
	} else if (vmm_reset(v, true, &err)) {
		log_line(LOG_ERROR, "cannot reset the machine: %s", err_msg(&err));
		vmm_quit(v, VMM_FAILED, true, "guest-reset");
	}
}

/* pvpanic's bits: 0 panicked, 1 crashed but a crash kernel takes over (QEMU docs/specs/pvpanic). */
static void guest_panicked(struct vmm *v, uint32_t bits)
{
	if (!(bits & 1)) {
		qmp_event(v->qmp, "GUEST_CRASHLOADED", json_pack("{s:s}", "action", "run"));
		return;
	}
	log_line(LOG_ERROR, "%s: the guest's kernel panicked", v->options->name);
	v->panicked = true;
	qmp_event(v->qmp, "GUEST_PANICKED", json_pack("{s:s}", "action", "poweroff"));
	guest_ended(v, VMM_CRASHED, "guest-panic");
}

static void machine_event(void *opaque, enum machine_stop what, uint32_t arg, const char *why)
{
	struct vmm *v = opaque;

	switch (what) {
	case MACHINE_SHUTDOWN_GUEST:
		guest_ended(v, VMM_OFF, "guest-shutdown");
		break;
	case MACHINE_RESET_GUEST:
		guest_reset(v);
		break;
	case MACHINE_TRIPLE_FAULT:
		log_line(LOG_ERROR, "%s: the guest crashed: vCPU %u shut down after a triple fault", v->options->name, arg);
		v->panicked = true;
		guest_ended(v, VMM_CRASHED, "guest-panic");
		break;
	case MACHINE_PANICKED:
		guest_panicked(v, arg);
		break;
	case MACHINE_DEBUG_EXIT:
		vmm_quit(v, (arg << 1 | 1) & 0xff, true, "guest-shutdown");
		break;
	case MACHINE_ENGINE_ERROR:
		vmm_quit(v, VMM_FAILED, false, "host-error");
		break;
	case MACHINE_POWERDOWN:
		qmp_event(v->qmp, "POWERDOWN", NULL);
		break;
	}
}

#define BALLOON_EVENT_NS 1000000000u

static void balloon_tell(void *opaque)
{
	struct vmm *v = opaque;

	v->balloon_told = monotonic_ns();
	qmp_event(v->qmp, "BALLOON_CHANGE", json_pack("{s:I}", "actual", (json_int_t)virtio_balloon_actual(v->balloon)));
}

/* A guest inflates in hundreds of small steps: one event a second, the last state always told. */
static void balloon_changed(void *opaque, uint64_t actual)
{
	struct vmm *v = opaque;

	timer_arm(v->balloon_timer, v->balloon_told + BALLOON_EVENT_NS);
}

/* ---- Building ------------------------------------------------------------ */

void vmm_escape(void *opaque)
{
	vmm_quit(opaque, VMM_OFF, false, "host-ui");
}

static int choose_engine(struct vmm *v, struct err *err)
{
	struct engine_probe probe;

	v->engine = v->options->engine;
	if (v->engine == ENGINE_SOFT)
		return 0;
	engine_probe_kvm(&probe);
	if (v->engine == ENGINE_AUTO)
		v->engine = probe.usable ? ENGINE_KVM : ENGINE_SOFT;
	else if (!probe.present)
		return err_set(err, ENOTSUP, "--engine kvm: %s; use --engine soft", probe.reason);
	else if (v->options->cpus > probe.max_vcpus)
		return err_set(err, EINVAL, "--cpus: KVM takes at most %u vCPUs here, not %u", probe.max_vcpus, v->options->cpus);
	return 0;
}

/* A machine cannot have more memory than the host has, free or not. */
static int check_memory(const struct vmm_options *o, struct err *err)
{
	uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);

	if (o->memory > host)
		return err_set(err, ENOMEM, "--memory: %llu MiB are more than this host has, %llu MiB",
			       (unsigned long long)(o->memory >> 20), (unsigned long long)(host >> 20));
	return 0;
}

static int open_chardevs(struct vmm *v, struct err *err)
{
	const struct vmm_options *o = v->options;
	const char *const first = "stdio";
	const char *const *serial = o->serials ? o->serial : &first;
	unsigned n = o->serials ? o->serials : 1;

	/* Without --serial the first port is the terminal, unless somebody else wants that. */
	if (!o->serials && ((o->console && !strcmp(o->console, first)) || (o->debugcon && !strcmp(o->debugcon, first))))
		n = 0;
	for (unsigned i = 0; i < n; i++) {
		v->serial[i] = chardev_open(v->loop, "--serial", serial[i], vmm_escape, v, err);
		if (!v->serial[i])
			return -err->code;
	}
	if (o->debugcon) {
		v->debugcon = chardev_open(v->loop, "--debugcon", o->debugcon, vmm_escape, v, err);
		if (!v->debugcon)
			return -err->code;
	}
	return 0;
}

static int open_device(struct vmm *v, const char *text, struct err *err)
{
	struct option_pair pairs[16];
	const char *driver = NULL;
	int n = options_split("--device", text, "driver", pairs, 16, err), ret;

	if (n < 0)
		return n;
	for (int i = 0; i < n; i++)
		if (!strcmp(pairs[i].key, "driver"))
			driver = pairs[i].value;
	ret = driver ? vmm_plug(v, driver, pairs, n, err) : err_set(err, EINVAL, "no device class is named in '%s'", text);
	options_split_free(pairs, n);
	return ret ? err_prefix(err, "--device") : 0;
}

static int open_vsock(struct vmm *v, const char *text, struct err *err)
{
	struct option_pair pairs[16];
	int n = options_split("--vsock", text, NULL, pairs, 16, err), ret;

	if (n < 0)
		return n;
	ret = vmm_plug(v, "virtio-vsock-pci", pairs, n, err);
	options_split_free(pairs, n);
	return ret ? err_prefix(err, "--vsock") : 0;
}

static bool is_port(const char *device)
{
	return !strncmp(device, ROOT_PORT_CLASS ",", strlen(ROOT_PORT_CLASS) + 1);
}

static int add_devices(struct vmm *v, struct err *err)
{
	const struct vmm_options *o = v->options;
	struct q35_options q = { .debugcon = o->debugcon, .debug_exit = o->debug_exit, .pvpanic = !o->no_pvpanic,
				 .root_ports = o->root_ports, .debug_out = v->debugcon };
	const struct option_pair rng = { "id", "rng0" }, balloon = { "id", "balloon0" };
	int ret;

	memcpy(q.serial, v->serial, sizeof(q.serial));
	if (o->firmware)
		q.debug_port = 0x402; /* where SeaBIOS and OVMF print */
	ret = q35_init(v->machine, &q, err);
	for (unsigned i = 0; i < o->devices && !ret; i++)
		if (is_port(o->device[i])) /* what others go behind */
			ret = open_device(v, o->device[i], err);
	if (!ret)
		vmm_plug_init(v);
	for (unsigned i = 0; i < o->objects && !ret; i++)
		ret = vmm_object_option(v, o->object[i], err);
	for (unsigned i = 0; i < o->disks && !ret; i++)
		ret = vmm_disk_option(v, o->disk[i], err);
	for (unsigned i = 0; i < o->nets && !ret; i++)
		ret = vmm_net_option(v, o->net[i], err);
	if (!ret)
		ret = vmm_console_options(v, err);
	if (!ret && o->vsock)
		ret = open_vsock(v, o->vsock, err);
	for (unsigned i = 0; i < o->shares && !ret; i++)
		ret = vmm_share_option(v, o->share[i], err);
	if (!ret && !o->no_rng)
		ret = vmm_plug(v, "virtio-rng-pci", &rng, 1, err);
	if (!ret && !o->no_balloon) {
		if (vmm_plug(v, "virtio-balloon-pci", &balloon, 1, err))
			return -err->code;
		v->balloon = machine_find(v->machine, "balloon0");
		v->balloon_timer = timer_new(v->loop, balloon_tell, v);
		if (!v->balloon_timer)
			return err_set(err, ENOMEM, "no memory for the balloon's timer");
		virtio_balloon_set_callback(v->balloon, balloon_changed, v);
	}
	for (unsigned i = 0; i < o->devices && !ret; i++)
		if (!is_port(o->device[i]))
			ret = open_device(v, o->device[i], err);
	return ret;
}

/* ---- Boot files ---------------------------------------------------------- */

static int open_boot_file(struct boot_file *f, const char *option, const char *path, struct err *err)
{
	struct stat st;

	*f = (struct boot_file){ .option = option, .path = path, .fd = file_open(path, O_RDONLY) };
	if (f->fd < 0)
		return err_set_errno(err, errno, "%s: cannot open %s", option, path);
	if (fstat(f->fd, &st))
		return err_set_errno(err, errno, "%s: cannot look at %s", option, path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "%s: %s is not a regular file", option, path);
	if (!st.st_size)
		return err_set(err, EINVAL, "%s: %s is empty", option, path);
	f->size = st.st_size;
	return 0;
}

/* "FILE[ ARGS][,FILE[ ARGS]]...": cuts the text up in place. A comma or blank that is part of an existing file's name stays. */
static int open_modules(struct boot_spec *spec, char *text, struct err *err)
{
	int ret = 0;

	if (file_passed(text) || !access(text, F_OK))
		return open_boot_file(&spec->module[spec->modules++], "--initrd", text, err);
	while (text && !ret) {
		char *comma = strchr(text, ','), *blank;

		if (comma)
			*comma = 0;
		blank = strchr(text, ' ');
		if (blank)
			*blank = 0;
		if (spec->modules == BOOT_MODULES)
			return err_set(err, EINVAL, "--initrd: at most %d modules are possible", BOOT_MODULES);
		ret = open_boot_file(&spec->module[spec->modules], "--initrd", text, err);
		spec->module[spec->modules++].args = blank ? blank + 1 : NULL;
		text = comma ? comma + 1 : NULL;
	}
	return ret;
}

/* Firmware finds the tables in fw_cfg. */
static int publish_tables(struct vmm *v, const struct boot_spec *spec, struct err *err)
{
	struct fw_cfg *f = v->machine->fw_cfg;
	struct boot_e820 map[BOOT_E820_MAX];
	struct acpi_tables acpi;
	struct smbios_tables smbios = { 0 };
	int ret = acpi_build(v->machine, &spec->acpi, &acpi, err);

	if (!ret)
		ret = smbios_build(v->machine, spec->uuid, &smbios, err);
	if (!ret)
		ret = fw_cfg_add_file(f, "etc/acpi/tables", acpi.tables.data, acpi.tables.len, err);
	if (!ret)
		ret = fw_cfg_add_file(f, "etc/acpi/rsdp", acpi.rsdp, sizeof(acpi.rsdp), err);
	if (!ret)
		ret = fw_cfg_add_file(f, "etc/table-loader", acpi.loader.data, acpi.loader.len, err);
	if (!ret)
		ret = fw_cfg_add_file(f, "etc/smbios/smbios-tables", smbios.tables.data, smbios.tables.len, err);
	if (!ret)
		ret = fw_cfg_add_file(f, "etc/smbios/smbios-anchor", smbios.anchor, sizeof(smbios.anchor), err);
	if (!ret)
		ret = fw_cfg_add_file(f, "etc/e820", map, boot_e820(v->machine, map) * sizeof(map[0]), err);
	acpi_free(&acpi);
	smbios_free(&smbios);
	return ret;
}

static int setup_boot(struct vmm *v, struct err *err)
{
	const struct vmm_options *o = v->options;
	struct boot_spec spec = { .kernel.fd = -1, .firmware.fd = -1, .append = o->append,
				  .uuid = o->has_uuid ? o->uuid : NULL, .acpi.pvpanic = !o->no_pvpanic };
	char *modules = NULL;
	int ret;

	for (unsigned i = 0; i < MAX_SERIALS; i++)
		spec.acpi.serial[i] = v->serial[i];
	ret = o->kernel ? open_boot_file(&spec.kernel, "--kernel", o->kernel, err)
			: open_boot_file(&spec.firmware, "--firmware", o->firmware, err);
	if (!ret && o->initrd) {
		modules = strdup(o->initrd);
		ret = modules ? open_modules(&spec, modules, err) : err_set(err, ENOMEM, "--initrd: no memory");
	}
	if (!ret && o->firmware)
		ret = publish_tables(v, &spec, err);
	if (!ret)
		ret = boot_setup(v->machine, &spec, err);
	if (ret) {
		if (spec.kernel.fd >= 0)
			close(spec.kernel.fd);
		if (spec.firmware.fd >= 0)
			close(spec.firmware.fd);
		for (unsigned i = 0; i < spec.modules; i++)
			if (spec.module[i].fd >= 0)
				close(spec.module[i].fd);
	}
	free(modules);
	return ret;
}

/* "N=PATH": a file that whoever started us has opened. */
static int take_files(const struct vmm_options *o, struct err *err)
{
	for (unsigned i = 0; i < o->files; i++) {
		char *end;
		long fd = strtol(o->file[i], &end, 10);

		if (end == o->file[i] || *end != '=' || !end[1] || fd < 3 || fd > 65535 || fcntl((int)fd, F_GETFD) < 0)
			return err_set(err, EINVAL, "--fd: '%s' is not of the form N=PATH with the number of an open descriptor",
				       o->file[i]);
		if (file_pass(end + 1, (int)fd))
			return err_set(err, ENOMEM, "--fd: no memory");
	}
	return 0;
}

/* ---- Life ---------------------------------------------------------------- */

int vmm_init(struct vmm *v, const struct vmm_options *o, struct loop *loop, struct err *err)
{
	struct machine_config mc = { .name = o->name, .memory = o->memory, .cpus = o->cpus, .hide_pv = o->hide_pv,
				    .no_translate = o->no_translate, .native = options_native(o), .native_always = o->native_always,
				    .lockstep = o->lockstep, .engine_cache = o->engine_cache, .loop = loop,
				     .owner = { machine_event, v } };
	int ret;

	memset(v, 0, sizeof(*v));
	v->options = o;
	v->loop = loop;
	ret = take_files(o, err);
	if (!ret)
		ret = check_memory(o, err);
	if (!ret)
		ret = choose_engine(v, err);
	if (ret)
		return ret;
	mc.engine = v->engine;
	v->machine = machine_new(&mc, err);
	v->qmp = v->machine ? qmp_new(v, err) : NULL;
	if (!v->qmp)
		return -err->code;
	ret = open_chardevs(v, err);
	if (!ret)
		ret = add_devices(v, err);
	if (!ret)
		ret = setup_boot(v, err);
	/* Last, so that whoever finds the socket finds a machine behind it. */
	for (unsigned i = 0; i < o->qmps && !ret; i++)
		ret = qmp_listen(v->qmp, o->qmp[i], err);
	return ret;
}

void vmm_free(struct vmm *v)
{
	vmm_jobs_free(v);
	vmm_nbd_free(v);
	qmp_free(v->qmp);
	machine_free(v->machine);
	vmm_plugs_free(v);
	vmm_nodes_free(v);
	vmm_objects_free(v);
	vmm_nets_free(v);
	vmm_fds_free(v);
	for (unsigned i = 0; i < MAX_SERIALS; i++)
		chardev_free(v->serial[i]);
	vmm_chardevs_free(v);
	chardev_free(v->debugcon);
}

int vmm_run(struct vmm *v, struct err *err)
{
	if (!v->options->paused && (vmm_prepare(v, err) || machine_start(v->machine, err)))
		return VMM_FAILED;
	return loop_run(v->loop);
}
