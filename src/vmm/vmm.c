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
#include "util/log.h"
#include "vmm/chardev.h"
#include "vmm/passt.h"

/* ---- Events of the machine ----------------------------------------------- */

const char *vmm_status(const struct vmm *v)
{
	switch (v->machine->state) {
	case MACHINE_PRELAUNCH:
		return "prelaunch";
	case MACHINE_RUNNING:
		return "running";
	case MACHINE_PAUSED:
		return "paused";
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
	qmp_event(v->qmp, "RESUME", NULL);
	return 0;
}

int vmm_reset(struct vmm *v, bool by_guest, struct err *err)
{
	bool run = v->machine->state == MACHINE_RUNNING || by_guest;
	int ret;

	machine_pause(v->machine);
	ret = machine_reset(v->machine, err);
	if (ret)
		return ret;
	v->prepared = true;
	v->panicked = false;
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
		vmm_quit(v, v->panicked ? VMM_CRASHED : VMM_OFF, true, "guest-reset");
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
	vmm_quit(v, VMM_CRASHED, true, "guest-panic");
}

static void machine_event(void *opaque, enum machine_stop what, uint32_t arg, const char *why)
{
	struct vmm *v = opaque;

	switch (what) {
	case MACHINE_SHUTDOWN_GUEST:
		vmm_quit(v, VMM_OFF, true, "guest-shutdown");
		break;
	case MACHINE_RESET_GUEST:
		guest_reset(v);
		break;
	case MACHINE_TRIPLE_FAULT:
		log_line(LOG_ERROR, "%s: the guest crashed: vCPU %u shut down after a triple fault", v->options->name, arg);
		vmm_quit(v, VMM_CRASHED, true, "guest-panic");
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

static void escape_typed(void *opaque)
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
		v->serial[i] = chardev_open(v->loop, "--serial", serial[i], escape_typed, v, err);
		if (!v->serial[i])
			return -err->code;
	}
	if (o->console) {
		v->console = chardev_open(v->loop, "--console", o->console, escape_typed, v, err);
		if (!v->console)
			return -err->code;
	}
	if (o->debugcon) {
		v->debugcon = chardev_open(v->loop, "--debugcon", o->debugcon, escape_typed, v, err);
		if (!v->debugcon)
			return -err->code;
	}
	return 0;
}

/* "on" and "off" of an option's setting. */
static int parse_switch(const char *option, const struct option_pair *p, bool *value, struct err *err)
{
	*value = !strcmp(p->value, "on");
	if (!*value && strcmp(p->value, "off"))
		return err_set(err, EINVAL, "%s: %s must be on or off, not '%s'", option, p->key, p->value);
	return 0;
}

static int parse_cache(const char *text, enum block_cache *cache, struct err *err)
{
	static const char *const names[] = {
		[BLOCK_CACHE_WRITEBACK] = "writeback", [BLOCK_CACHE_NONE] = "none", [BLOCK_CACHE_WRITETHROUGH] = "writethrough",
		[BLOCK_CACHE_DIRECTSYNC] = "directsync", [BLOCK_CACHE_UNSAFE] = "unsafe",
	};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!strcmp(names[i], text)) {
			*cache = i;
			return 0;
		}
	}
	return err_set(err, EINVAL, "--disk: there is no cache mode '%s'; use writeback, none, writethrough, directsync or unsafe",
		       text);
}

static int disk_setting(const struct option_pair *p, struct block_options *b, const char **serial, struct err *err)
{
	if (!strcmp(p->key, "file"))
		b->path = p->value;
	else if (!strcmp(p->key, "format"))
		b->format = p->value;
	else if (!strcmp(p->key, "serial"))
		*serial = p->value;
	else if (!strcmp(p->key, "readonly"))
		return parse_switch("--disk", p, &b->readonly, err);
	else if (!strcmp(p->key, "cache"))
		return parse_cache(p->value, &b->cache, err);
	else
		return err_set(err, EINVAL, "--disk: there is no setting '%s'; use format, readonly, cache or serial", p->key);
	return 0;
}

static int add_disk(struct vmm *v, const struct block_options *b, const char *serial, struct err *err)
{
	struct vmm_disk *disk = &v->disk[v->disks];
	struct device *d;
	char id[16];
	int ret = 0;

	disk->block = block_open(b, err);
	if (!disk->block)
		return err_prefix(err, "--disk");
	snprintf(id, sizeof(id), "disk%u", v->disks++);
	disk->device_id = strdup(id);
	disk->path = strdup(b->path);
	d = device_new(v->machine, device_class_find("virtio-blk-pci"), id, err);
	if (!disk->device_id || !disk->path || !d)
		return err_set(err, ENOMEM, "--disk: no memory");
	device_set_ptr(d, "drive", disk->block);
	if (serial)
		ret = device_set(d, "serial", serial, err);
	if (ret) {
		device_free(d);
		return ret;
	}
	return device_realize(d, err);
}

static int open_disk(struct vmm *v, const char *text, struct err *err)
{
	struct option_pair pairs[8];
	struct block_options b = { .fd = -1 };
	const char *serial = NULL;
	int n = options_split("--disk", text, "file", pairs, 8, err), ret = 0;

	if (n < 0)
		return n;
	for (int i = 0; i < n && !ret; i++)
		ret = disk_setting(&pairs[i], &b, &serial, err);
	if (!ret && !b.path)
		ret = err_set(err, EINVAL, "--disk: no file is named in '%s'", text);
	if (!ret)
		ret = add_disk(v, &b, serial, err);
	options_split_free(pairs, n);
	return ret;
}

static int add_net(struct vmm *v, const struct passt_options *p, const char *mac, struct err *err)
{
	struct device *d;
	char id[16];
	int ret = 0;

	snprintf(id, sizeof(id), "net%u", v->nets);
	v->net[v->nets] = passt_open(v->loop, p, err);
	if (!v->net[v->nets])
		return -err->code;
	d = device_new(v->machine, device_class_find("virtio-net-pci"), id, err);
	if (!d)
		return -err->code;
	device_set_ptr(d, "netdev", v->net[v->nets++]);
	if (mac)
		ret = device_set(d, "mac", mac, err);
	if (ret) {
		device_free(d);
		return ret;
	}
	return device_realize(d, err);
}

static int open_net(struct vmm *v, const char *text, struct err *err)
{
	struct option_pair pairs[PASST_FORWARDS + 4];
	struct passt_options p = { 0 };
	const char *mac = NULL, *kind = NULL;
	int n = options_split("--net", text, "kind", pairs, PASST_FORWARDS + 4, err), ret = 0;

	if (n < 0)
		return n;
	for (int i = 0; i < n && !ret; i++) {
		if (!strcmp(pairs[i].key, "kind"))
			kind = pairs[i].value;
		else if (!strcmp(pairs[i].key, "mac"))
			mac = pairs[i].value;
		else if (strcmp(pairs[i].key, "hostfwd"))
			ret = err_set(err, EINVAL, "--net: there is no setting '%s'; use mac or hostfwd", pairs[i].key);
		else if (p.forwards == PASST_FORWARDS)
			ret = err_set(err, EINVAL, "--net: at most %d port forwards are possible", PASST_FORWARDS);
		else
			p.forward[p.forwards++] = pairs[i].value;
	}
	if (!ret && (!kind || (strcmp(kind, "user") && strcmp(kind, "none"))))
		ret = err_set(err, EINVAL, "--net: '%s' is neither none nor user", kind ? kind : text);
	if (!ret && strcmp(kind, "none"))
		ret = add_net(v, &p, mac, err);
	options_split_free(pairs, n);
	return ret;
}

static int open_device(struct vmm *v, const char *text, struct err *err)
{
	struct option_pair pairs[16];
	const struct device_class *cls = NULL;
	const char *id = NULL;
	struct device *d;
	int n = options_split("--device", text, "driver", pairs, 16, err), ret = 0;

	if (n < 0)
		return n;
	for (int i = 0; i < n; i++) {
		if (!strcmp(pairs[i].key, "driver"))
			cls = device_class_find(pairs[i].value);
		if (!strcmp(pairs[i].key, "id"))
			id = pairs[i].value;
	}
	if (!cls) {
		ret = err_set(err, ENOENT, "--device: there is no device class '%s'", pairs[0].value);
		options_split_free(pairs, n);
		return ret;
	}
	d = device_new(v->machine, cls, id, err);
	ret = d ? 0 : -err->code;
	for (int i = 0; i < n && !ret; i++)
		if (strcmp(pairs[i].key, "driver") && strcmp(pairs[i].key, "id"))
			ret = device_set(d, pairs[i].key, pairs[i].value, err);
	if (ret && d)
		device_free(d);
	if (!ret)
		ret = device_realize(d, err);
	options_split_free(pairs, n);
	return ret ? err_prefix(err, "--device") : 0;
}

static int add_devices(struct vmm *v, struct err *err)
{
	const struct vmm_options *o = v->options;
	struct q35_options q = { .debugcon = o->debugcon, .debug_exit = o->debug_exit, .pvpanic = !o->no_pvpanic,
				 .root_ports = o->root_ports, .debug_out = v->debugcon };
	int ret;

	memcpy(q.serial, v->serial, sizeof(q.serial));
	if (o->firmware)
		q.debug_port = 0x402; /* where SeaBIOS and OVMF print */
	ret = q35_init(v->machine, &q, err);
	for (unsigned i = 0; i < o->disks && !ret; i++)
		ret = open_disk(v, o->disk[i], err);
	for (unsigned i = 0; i < o->nets && !ret; i++)
		ret = open_net(v, o->net[i], err);
	if (!ret && v->console) {
		struct device *d = device_new(v->machine, device_class_find("virtio-serial-pci"), "console0", err);

		if (!d)
			return -err->code;
		device_set_ptr(d, "chardev", v->console);
		ret = device_realize(d, err);
	}
	if (!ret && !o->no_rng && !device_add(v->machine, "virtio-rng-pci", "rng0", err, NULL))
		ret = -err->code;
	if (!ret && !o->no_balloon) {
		v->balloon = device_add(v->machine, "virtio-balloon-pci", "balloon0", err, NULL);
		if (!v->balloon)
			return -err->code;
		v->balloon_timer = timer_new(v->loop, balloon_tell, v);
		if (!v->balloon_timer)
			return err_set(err, ENOMEM, "no memory for the balloon's timer");
		virtio_balloon_set_callback(v->balloon, balloon_changed, v);
	}
	for (unsigned i = 0; i < o->devices && !ret; i++)
		ret = open_device(v, o->device[i], err);
	return ret;
}

/* ---- Boot files ---------------------------------------------------------- */

static int open_boot_file(struct boot_file *f, const char *option, const char *path, struct err *err)
{
	struct stat st;

	*f = (struct boot_file){ .option = option, .path = path, .fd = open(path, O_RDONLY | O_CLOEXEC) };
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

	if (!access(text, F_OK))
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

/* ---- Life ---------------------------------------------------------------- */

int vmm_init(struct vmm *v, const struct vmm_options *o, struct loop *loop, struct err *err)
{
	struct machine_config mc = { .name = o->name, .memory = o->memory, .cpus = o->cpus, .hide_pv = o->hide_pv,
				    .no_translate = o->no_translate, .loop = loop,
				     .owner = { machine_event, v } };
	int ret;

	memset(v, 0, sizeof(*v));
	v->options = o;
	v->loop = loop;
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
	qmp_free(v->qmp);
	machine_free(v->machine);
	for (unsigned i = 0; i < v->disks; i++) {
		block_close(v->disk[i].block);
		free(v->disk[i].device_id);
		free(v->disk[i].path);
	}
	for (unsigned i = 0; i < MAX_NETS; i++)
		netdev_free(v->net[i]);
	for (unsigned i = 0; i < MAX_SERIALS; i++)
		chardev_free(v->serial[i]);
	chardev_free(v->console);
	chardev_free(v->debugcon);
}

int vmm_run(struct vmm *v, struct err *err)
{
	if (!v->options->paused && (vmm_prepare(v, err) || machine_start(v->machine, err)))
		return VMM_FAILED;
	return loop_run(v->loop);
}
