/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What Keel can't honour is refused by name (DESIGN, management plane 3). The
 * tables have refused what is unknown; here is what depends on the value and
 * on what this build and host can do.
 *
 * Accepted although the machine always does the same, because every client
 * writes them: timers' tick policies and hpet present='no', <acpi/>, <apic/>
 * and <pae/> whether given or not, a disk's io=, USB and SATA controllers with
 * nothing on them, PS/2 inputs, <audio type='none'/>.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "model/device_tables.h"
#include "model/fill.h"

#define VCPU_MAX 255
#define PARTITION_CHARS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-/"

void domain_caps_init(struct domain_caps *caps)
{
	*caps = (struct domain_caps){ .soft = true };
	caps->devices = 1ull << DOM_CAN_VIRTIO_BLK | 1ull << DOM_CAN_NET_USER | 1ull << DOM_CAN_VIRTIO_CONSOLE |
			1ull << DOM_CAN_VIRTIO_SERIAL_PORTS | 1ull << DOM_CAN_RNG | 1ull << DOM_CAN_BALLOON |
			1ull << DOM_CAN_PIN;
}

static bool given(const char *text, const char *value)
{
	return text && !strcmp(text, value);
}

static int refuse(struct err *err, const char *what)
{
	return err_set(err, ENOTSUP, "%s is not supported by Keel", what);
}

static int refuse_value(struct err *err, const char *what, const char *value)
{
	return err_set(err, ENOTSUP, "%s '%.100s' is not supported by Keel", what, value);
}

/* One line a rule: `bad` is whether the definition asks for it. */
struct rule {
	bool bad;
	const char *what;
};

static int apply(const struct rule *rules, size_t n, struct err *err)
{
	for (size_t i = 0; i < n; i++)
		if (rules[i].bad)
			return refuse(err, rules[i].what);
	return 0;
}
#define APPLY(rules, err) apply(rules, sizeof(rules) / sizeof(rules[0]), err)

/* ---- <domain> ------------------------------------------------------------- */

static int check_type(const struct domain *def, const struct domain_caps *caps, struct err *err)
{
	const char *emulator = def->devices->emulator ? def->devices->emulator : caps->emulator;

	if (def->devices->emulator && caps->emulator && strcmp(def->devices->emulator, caps->emulator))
		return err_set(err, ENOTSUP, "emulator '%.200s' is not supported by Keel, whose own is '%.200s'",
			       def->devices->emulator, caps->emulator);
	if (def->type == DOM_VIRT_KVM ? !caps->kvm : !caps->soft)
		return err_set(err, ENOTSUP, "Emulator '%.200s' does not support virt type '%s'",
			       emulator ? emulator : "keel-vmm", domain_virt_name(def->type));
	return 0;
}

static int check_machine(const struct domain *def, const struct domain_caps *caps, struct err *err)
{
	const struct dom_os_type *t = def->os->type;
	const char *m = t->machine;

	if (strcmp(t->text, "hvm"))
		return err_set(err, ENOTSUP, "unknown OS type '%.100s'", t->text);
	if (strcmp(t->arch, "x86_64"))
		return err_set(err, ENOTSUP, "No emulator found for arch '%.100s'", t->arch);
	if (!m || !strcmp(m, "q35") ||
	    (!strncmp(m, "pc-q35-", 7) && m[7] && strspn(m + 7, "0123456789.") == strlen(m + 7)))
		return 0;
	if (!strcmp(m, "microvm") && DOM_CAN(caps, MICROVM))
		return 0;
	return err_set(err, ENOTSUP, "machine type '%.100s' is not supported by Keel; use q35", m);
}

static bool asks_boot(const struct dom_os *os, enum dom_boot_dev dev)
{
	for (unsigned i = 0; i < os->boot.n; i++)
		if (os->boot.v[i]->dev == dev)
			return true;
	return false;
}

static int check_os(const struct domain *def, const struct domain_caps *caps, struct err *err)
{
	const struct dom_os *os = def->os;
	const struct dom_loader *l = os->loader;
	const struct rule rules[] = {
		{ l && l->secure == TRI_YES, "loader secure='yes'" },
		{ os->nvram && os->nvram->path && !l && !os->firmware_auto, "nvram without loader" },
		{ os->firmware_auto == DOM_FIRMWARE_EFI && !caps->firmware_efi,
		  "firmware='efi' without an installed OVMF" },
		{ os->firmware_auto == DOM_FIRMWARE_BIOS && !caps->firmware_bios,
		  "firmware='bios' without an installed SeaBIOS" },
		{ os->firmware && os->firmware->feature.n, "element <feature> in <firmware>" },
		{ asks_boot(os, DOM_BOOT_FD), "boot dev='fd'" },
		{ os->bootmenu && os->bootmenu->enable == TRI_YES && !DOM_CAN(caps, BOOTMENU),
		  "bootmenu enable='yes'" },
		{ os->bios && os->bios->useserial == TRI_YES, "bios useserial='yes'" },
		{ os->bios && os->bios->reboot_timeout.set, "bios rebootTimeout" },
		{ os->smbios == DOM_SMBIOS_HOST, "smbios mode='host'" },
		{ os->smbios == DOM_SMBIOS_SYSINFO && !DOM_CAN(caps, SYSINFO), "smbios mode='sysinfo'" },
		{ def->sysinfo.n && !DOM_CAN(caps, SYSINFO), "element <sysinfo>" },
		{ os->initrd && !os->kernel, "initrd without kernel" },
		{ os->cmdline && !os->kernel, "cmdline without kernel" },
	};

	return APPLY(rules, err);
}

static int check_features(const struct domain *def, struct err *err)
{
	const struct dom_features *f = def->features;

	if (!f)
		return 0;
	const struct rule rules[] = {
		{ f->viridian, "feature viridian" },
		{ f->privnet, "feature privnet" },
		{ f->hap == TRI_NO, "feature hap state='off'" },
		{ f->pmu == TRI_YES, "feature pmu state='on'" },
		{ f->pvspinlock == TRI_YES, "feature pvspinlock state='on'" },
		{ f->vmport == TRI_YES, "feature vmport state='on'" },
		{ f->smm == TRI_YES, "feature smm state='on'" },
		{ f->apic && f->apic->eoi == TRI_NO, "feature apic eoi='off'" },
		{ f->kvm && f->kvm->hint_dedicated == TRI_YES, "feature hint-dedicated state='on'" },
		{ f->kvm && f->kvm->poll_control == TRI_YES, "feature poll-control state='on'" },
		{ f->kvm && f->kvm->pv_ipi == TRI_YES, "feature pv-ipi state='on'" },
	};

	return APPLY(rules, err);
}

static int check_cpu(const struct domain *def, const struct domain_caps *caps, struct err *err)
{
	const struct dom_cpu *c = def->cpu;

	if (!c)
		return 0;
	const struct dom_topology *t = c->topology;
	const struct rule rules[] = {
		{ c->mode == DOM_CPU_CUSTOM && c->model && c->model->name,
		  "a CPU model other than the host's (use cpu mode='host-passthrough')" },
		{ c->vendor, "element <vendor> in <cpu>" },
		{ c->model && c->model->vendor_id, "attribute vendor_id of element <model>" },
		{ t && (t->sockets > 1 || t->dies > 1 || t->threads > 1) && !DOM_CAN(caps, TOPOLOGY),
		  "a CPU topology other than one socket of cores with one thread each" },
		{ c->cache && c->cache->mode != DOM_CACHE_PASSTHROUGH, "cpu cache mode other than 'passthrough'" },
		{ c->maxphysaddr && !given(c->maxphysaddr->mode, "passthrough"),
		  "cpu maxphysaddr mode other than 'passthrough'" },
		{ c->numa && !DOM_CAN(caps, NUMA), "element <numa> in <cpu>" },
	};
	int ret = APPLY(rules, err);

	for (unsigned i = 0; i < c->feature.n && !ret; i++)
		if (c->feature.v[i]->policy != DOM_CPU_OPTIONAL)
			ret = refuse_value(err, "a policy for CPU feature", c->feature.v[i]->name);
	return ret;
}

static int check_time(const struct domain *def, const struct domain_caps *caps, struct err *err)
{
	const struct dom_clock_def *c = def->clock;

	if (c->offset > DOM_CLOCK_LOCALTIME && !DOM_CAN(caps, CLOCK))
		return refuse(err, "a clock offset other than 'utc' and 'localtime'");
	if (c->adjustment && strcmp(c->adjustment, "reset") && !DOM_CAN(caps, CLOCK))
		return refuse(err, "attribute adjustment of element <clock>");
	for (unsigned i = 0; i < c->timer.n; i++) {
		const struct dom_timer *t = c->timer.v[i];
		const struct rule rules[] = {
			{ t->name == DOM_TIMER_PLATFORM, "timer name='platform'" },
			{ t->name == DOM_TIMER_ARMVTIMER, "timer name='armvtimer'" },
			{ t->name == DOM_TIMER_HYPERVCLOCK && t->present != TRI_NO, "timer name='hypervclock'" },
			{ t->frequency.set, "attribute frequency of element <timer>" },
			{ t->mode, "attribute mode of element <timer>" },
			{ t->catchup, "element <catchup> in <timer>" },
			{ t->name == DOM_TIMER_KVMCLOCK && t->present == TRI_NO, "timer name='kvmclock' present='no'" },
		};
		int ret = APPLY(rules, err);

		if (ret)
			return ret;
	}
	return 0;
}

/* Linux' limits for cpu.max and its v1 counterparts, as libvirt names them. */
static int check_bandwidth(const char *what, const struct opt64 *period, const struct optint *quota, struct err *err)
{
	if (period->set && (period->value < 1000 || period->value > 1000000))
		return err_set(err, EINVAL, "Value of cputune '%speriod' must be in range [1000, 1000000]", what);
	if (quota->set && quota->value >= 0 && (quota->value < 1000 || quota->value > 17592186044415))
		return err_set(err, EINVAL, "Value of cputune '%squota' must be in range [1000, 17592186044415]", what);
	return 0;
}

static int check_cputune(const struct dom_cputune *t, struct err *err)
{
	int ret = t ? check_bandwidth("", &t->period, &t->quota, err) : 0;

	if (t && !ret)
		ret = check_bandwidth("global_", &t->global_period, &t->global_quota, err);
	if (t && !ret)
		ret = check_bandwidth("emulator_", &t->emulator_period, &t->emulator_quota, err);
	if (t && !ret)
		ret = check_bandwidth("iothread_", &t->iothread_period, &t->iothread_quota, err);
	return ret;
}

static int check_weight(const struct opt32 *weight, struct err *err)
{
	if (!weight->set || (weight->value >= 100 && weight->value <= 1000))
		return 0;
	return err_set(err, EINVAL, "weight %u is out of range [100, 1000]", weight->value);
}

static int check_blkiotune(const struct dom_blkiotune *t, struct err *err)
{
	int ret = t ? check_weight(&t->weight, err) : 0;

	for (unsigned i = 0; t && i < t->devices.n && !ret; i++)
		ret = check_weight(&t->devices.v[i]->weight, err);
	return ret;
}

static int check_resources(const struct domain *def, const struct domain_caps *caps, struct err *err)
{
	const struct dom_membacking *b = def->memory_backing;
	const struct dom_cputune *t = def->cputune;
	const struct dom_vcpu *v = def->vcpu;
	const bool tune = DOM_CAN(caps, TUNE), pin = DOM_CAN(caps, PIN);
	const struct rule rules[] = {
		{ def->genid && !DOM_CAN(caps, GENID), "element <genid>" },
		{ def->max_memory && !DOM_CAN(caps, MEMORY_HOTPLUG), "element <maxMemory>" },
		{ b && b->hugepages && !DOM_CAN(caps, HUGEPAGES), "element <hugepages>" },
		{ b && b->locked, "element <locked> in <memoryBacking>" },
		{ b && b->source == DOM_MEM_FILE, "memoryBacking source type='file'" },
		{ b && b->allocation && b->allocation->mode == DOM_MEM_IMMEDIATE, "allocation mode='immediate'" },
		{ b && b->discard, "element <discard> in <memoryBacking>" },
		{ v->placement == DOM_PLACEMENT_AUTO, "vcpu placement='auto'" },
		{ v->cpuset && !pin, "attribute cpuset of element <vcpu>" },
		{ (v->current.set || def->vcpus) && !DOM_CAN(caps, VCPU_HOTPLUG),
		  "a number of current vCPUs below the maximum" },
		{ (def->iothreads || def->iothreadids) && !DOM_CAN(caps, IOTHREADS), "element <iothreads>" },
		{ t && (t->vcpupin.n || t->emulatorpin) && !pin, "pinning in <cputune>" },
		{ t && (t->iothreadpin.n || t->iothreadsched.n) && !DOM_CAN(caps, IOTHREADS),
		  "iothreads in <cputune>" },
		{ t &&
			  (t->shares.set || t->period.set || t->quota.set || t->global_period.set ||
			   t->global_quota.set || t->emulator_period.set || t->emulator_quota.set ||
			   t->iothread_period.set || t->iothread_quota.set) &&
			  !tune,
		  "shares, periods and quotas in <cputune>" },
		{ t && (t->vcpusched.n || t->emulatorsched) && !tune, "schedulers in <cputune>" },
		{ def->memtune && !tune, "element <memtune>" },
		{ def->blkiotune && !tune, "element <blkiotune>" },
		{ def->numatune && !DOM_CAN(caps, NUMA), "element <numatune>" },
		{ def->resource && !tune, "element <resource>" },
		{ def->on_crash >= DOM_ACTION_COREDUMP_DESTROY, "on_crash with a core dump" },
		{ def->on_poweroff == DOM_ACTION_RENAME_RESTART || def->on_reboot == DOM_ACTION_RENAME_RESTART ||
			  def->on_crash == DOM_ACTION_RENAME_RESTART,
		  "the action 'rename-restart'" },
		{ def->on_lockfailure, "element <on_lockfailure>" },
		{ def->pm && def->pm->suspend_to_mem == TRI_YES, "suspend-to-mem enabled='yes'" },
		{ def->pm && def->pm->suspend_to_disk == TRI_YES, "suspend-to-disk enabled='yes'" },
	};
	int ret = APPLY(rules, err);

	if (!ret && def->resource && def->resource->partition &&
	    strspn(def->resource->partition, PARTITION_CHARS) != strlen(def->resource->partition))
		ret = err_set(err, EINVAL, "resource partition '%.100s' is no path of a cgroup", def->resource->partition);
	if (!ret)
		ret = check_cputune(t, err);
	if (!ret)
		ret = check_blkiotune(def->blkiotune, err);
	if (!ret && v->max > VCPU_MAX)
		ret = err_set(err, ENOTSUP, "Maximum CPUs greater than specified machine type limit %u", VCPU_MAX);
	for (unsigned i = 0; def->perf && i < def->perf->event.n && !ret; i++)
		if (def->perf->event.v[i]->enabled == TRI_YES)
			ret = refuse_value(err, "perf event", def->perf->event.v[i]->name);
	for (unsigned i = 0; i < def->seclabel.n && !ret; i++)
		if (given(def->seclabel.v[i]->type, "static"))
			ret = refuse(err, "seclabel type='static'");
	return ret;
}

/* ---- Devices -------------------------------------------------------------- */

static int check_virtio(const struct dom_virtio *v, const char *what, struct err *err)
{
	if (v->iommu == TRI_YES || v->ats == TRI_YES || v->page_per_vq == TRI_YES)
		return err_set(err, ENOTSUP, "iommu, ats and page_per_vq of %s are not supported by Keel", what);
	return 0;
}

static int check_disk_driver(const struct dom_disk *d, const struct domain_caps *caps, struct err *err)
{
	const struct dom_disk_driver *drv = d->driver;
	const struct rule rules[] = {
		{ drv->iothread.set && !DOM_CAN(caps, IOTHREADS), "attribute iothread of a disk" },
		{ drv->detect_zeroes > DOM_ZEROES_OFF, "detect_zeroes other than 'off'" },
		{ (drv->error_policy && drv->error_policy != DOM_ERROR_REPORT) && !DOM_CAN(caps, DISK_ERRORS),
		  "error_policy other than 'report'" },
		{ (drv->rerror_policy && drv->rerror_policy != DOM_ERROR_REPORT) && !DOM_CAN(caps, DISK_ERRORS),
		  "rerror_policy other than 'report'" },
		{ drv->ioeventfd == TRI_NO || drv->event_idx == TRI_NO,
		  "ioeventfd='off' or event_idx='off' of a disk" },
		{ drv->queue_size.set, "attribute queue_size of a disk" },
		{ drv->metadata_cache, "element <metadata_cache>" },
		{ d->iotune && !DOM_CAN(caps, IOTUNE), "element <iotune>" },
	};

	if (check_virtio(&drv->virtio, "a disk", err))
		return -err->code;
	return APPLY(rules, err);
}

static int check_disk(const struct dom_disk *d, const struct domain_caps *caps, struct err *err)
{
	const bool cdrom = d->device == DOM_DISK_CDROM;
	const struct dom_disk_source *s = d->source;
	const struct rule rules[] = {
		{ d->device == DOM_DISK_FLOPPY, "disk device='floppy'" },
		{ d->device == DOM_DISK_LUN, "disk device='lun'" },
		{ cdrom && !DOM_CAN(caps, CDROM), "disk device='cdrom'" },
		{ d->type == DOM_DISK_DIR, "disk type='dir'" },
		{ d->type == DOM_DISK_VOLUME, "disk type='volume'" },
		{ d->type == DOM_DISK_NETWORK && !DOM_CAN(caps, REMOTE_DISK), "disk type='network'" },
		{ d->transient, "element <transient> of a disk" },
		{ d->blockio && !DOM_CAN(caps, VIRTIO_BLK), "element <blockio>" },
		{ d->target->rotation_rate.set, "attribute rotation_rate of a disk" },
		{ s && s->startup_policy && s->startup_policy != DOM_STARTUP_MANDATORY && !cdrom,
		  "startupPolicy of a disk" },
		{ s && s->tls == TRI_YES, "tls of a disk" },
		{ s && s->seclabel.n && !given(s->seclabel.v[0]->type, "none") && s->seclabel.v[0]->relabel != TRI_NO,
		  "element <seclabel> of a disk" },
	};
	int ret = APPLY(rules, err);

	if (ret)
		return ret;
	switch (d->target->bus) {
	case DOM_BUS_VIRTIO:
		if (cdrom)
			return err_set(err, ENOTSUP, "disk type 'virtio' of '%.50s' does not support ejectable media",
				       d->target->dev);
		break;
	case DOM_BUS_SCSI:
		if (!DOM_CAN(caps, VIRTIO_SCSI))
			return refuse_value(err, "disk bus", "scsi");
		break;
	case DOM_BUS_SATA:
		if (!DOM_CAN(caps, SATA))
			return refuse_value(err, "disk bus", "sata");
		break;
	default:
		return refuse_value(err, "disk bus", dom_disk_bus_names[d->target->bus]);
	}
	if (d->target->bus == DOM_BUS_VIRTIO && (d->wwn || d->vendor || d->product))
		return err_set(err, ENOTSUP, "Only ide and scsi disk support wwn");
	return check_disk_driver(d, caps, err);
}

static int check_interface(const struct dom_interface *n, const struct domain_caps *caps, struct err *err)
{
	static const struct {
		enum dom_interface_type type;
		enum dom_feature needs;
	} types[] = {
		{ DOM_NET_USER, DOM_CAN_NET_USER },	{ DOM_NET_ETHERNET, DOM_CAN_NET_TAP },
		{ DOM_NET_BRIDGE, DOM_CAN_NET_TAP },	{ DOM_NET_NETWORK, DOM_CAN_NET_TAP },
		{ DOM_NET_DIRECT, DOM_CAN_NET_DIRECT }, { DOM_NET_VHOSTUSER, DOM_CAN_VHOST_USER },
		{ DOM_NET_HOSTDEV, DOM_CAN_HOSTDEV },
	};
	const struct dom_interface_driver *d = n->driver;
	const struct rule rules[] = {
		{ n->virtualport, "element <virtualport>" },
		{ n->isolated == TRI_YES, "port isolated='yes'" },
		{ n->script, "element <script> of an interface" },
		{ n->route.n, "element <route> of an interface" },
		{ n->ip.n, "element <ip> of an interface" },
		{ n->guest_dev, "element <guest> of an interface" },
		{ n->trust_guest_rx_filters == TRI_YES, "trustGuestRxFilters='yes'" },
		{ n->bandwidth && !DOM_CAN(caps, BANDWIDTH), "element <bandwidth>" },
		{ n->port_forward.n && n->type != DOM_NET_USER, "element <portForward> outside type='user'" },
		{ n->backend && n->backend->type && n->type != DOM_NET_USER,
		  "backend type='passt' outside type='user'" },
		{ n->backend && (n->backend->tap || n->backend->vhost || n->backend->log_file),
		  "tap, vhost and logFile of an interface's <backend>" },
		{ d && d->txmode && strcmp(d->txmode, "iothread"), "driver txmode other than 'iothread'" },
		{ d && (d->ioeventfd == TRI_NO || d->event_idx == TRI_NO),
		  "ioeventfd='off' or event_idx='off' of an interface" },
		{ d && (d->rx_queue_size.set || d->tx_queue_size.set), "queue sizes of an interface" },
		{ d && (d->host || d->guest), "offloads in an interface's <driver>" },
		{ d && d->name && !strcmp(d->name, "vhost") && n->type == DOM_NET_USER,
		  "driver name='vhost' of type='user'" },
		{ n->mac && n->mac->check == TRI_YES, "mac check='yes'" },
	};
	int ret;

	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (n->type == types[i].type && !(caps->devices >> types[i].needs & 1))
			return refuse_value(err, "interface type", dom_net_type_names[n->type]);
	ret = d ? check_virtio(&d->virtio, "an interface", err) : 0;
	return ret ? ret : APPLY(rules, err);
}

static int check_chr(const struct dom_chr *c, enum dom_device_kind kind, const struct domain_caps *caps,
		     struct err *err)
{
	const char *type = c->target->type;

	switch (c->type) {
	case DOM_CHR_NULL:
	case DOM_CHR_PTY:
	case DOM_CHR_FILE:
	case DOM_CHR_UNIX:
		break;
	default:
		return err_set(err, ENOTSUP, "%s type='%s' is not supported by Keel", dom_device_name(kind),
			       dom_chr_type_names[c->type]);
	}
	if (kind != DOM_DEV_CHANNEL && c->target->name)
		return refuse_value(err, "target name", c->target->name);
	if (kind == DOM_DEV_PARALLEL)
		return refuse(err, "element <parallel>");
	if ((c->type == DOM_CHR_FILE || (c->type == DOM_CHR_UNIX && kind != DOM_DEV_CHANNEL)) &&
	    (!c->source.n || !c->source.v[0]->path))
		return err_set(err, EINVAL, "Missing source path attribute for char device");
	if (c->source.n > 1)
		return err_set(err, ENOTSUP, "more than one <source> of a %s is not supported by Keel",
			       dom_device_name(kind));
	if (c->type == DOM_CHR_UNIX && c->source.n && given(c->source.v[0]->mode, "connect"))
		return refuse_value(err, "source mode", "connect");
	if (c->source.n && (c->source.v[0]->reconnect || c->source.v[0]->tls == TRI_YES))
		return refuse(err, "reconnect and tls of a character device");
	if (c->protocol && strcmp(c->protocol, "raw"))
		return refuse_value(err, "protocol type", c->protocol);
	if (c->log)
		return refuse(err, "element <log> of a character device");
	if (kind == DOM_DEV_CONSOLE ? !given(type, "serial") && !given(type, "virtio")
				    : !given(type, kind == DOM_DEV_SERIAL ? "isa-serial" : "virtio"))
		return err_set(err, ENOTSUP, "%s target type '%.100s' is not supported by Keel", dom_device_name(kind),
			       type ? type : "none");
	if (kind == DOM_DEV_SERIAL && c->target->port.value > 3)
		return err_set(err, ENOTSUP, "Maximum supported number of ISA serial ports is '4'");
	if (kind == DOM_DEV_CHANNEL && !DOM_CAN(caps, VIRTIO_SERIAL_PORTS))
		return refuse(err, "element <channel>");
	if (kind == DOM_DEV_CONSOLE && given(type, "virtio") && !DOM_CAN(caps, VIRTIO_CONSOLE))
		return refuse(err, "console target type='virtio'");
	return 0;
}

static int check_controller(const struct dom_controller *c, const struct domain_caps *caps, struct err *err)
{
	static const char *const usb_models[] = { "none",	"qemu-xhci",  "nec-xhci",	"piix3-uhci",
						  "piix4-uhci", "ehci",	      "ich9-ehci1",	"ich9-uhci1",
						  "ich9-uhci2", "ich9-uhci3", "vt82c686b-uhci", "pci-ohci" };
	const struct rule rules[] = {
		{ c->pcihole64.set, "element <pcihole64>" },
		{ c->type != DOM_CONTROLLER_PCI && (c->model_name || c->target),
		  "element <model> or <target> of a controller other than type='pci'" },
		{ c->master_startport.set && !DOM_CAN(caps, USB), "element <master> of a USB controller" },
		{ c->driver && c->driver->iothread.set && !DOM_CAN(caps, IOTHREADS),
		  "attribute iothread of a controller" },
		{ c->target && (c->target->chassis.value > 255 || c->target->port.value > 255),
		  "a chassis or port above 255 of a controller" },
		{ c->target && (c->target->chassis_nr.set || c->target->busnr.set),
		  "chassisNr and busNr of a controller" },
	};

	switch (c->type) {
	case DOM_CONTROLLER_PCI:
		if (!c->model || (strcmp(c->model, "pcie-root") && strcmp(c->model, "pcie-root-port")))
			return refuse_value(err, "PCI controller model", c->model ? c->model : "none");
		if (c->model_name && strcmp(c->model_name, "pcie-root-port"))
			return refuse_value(err, "PCI controller model name", c->model_name);
		if (!strcmp(c->model, "pcie-root") && (c->model_name || (c->target && !c->target->hotplug)))
			return err_set(err, ENOTSUP,
				       "model name, chassis and port of pcie-root are not supported by Keel");
		if (!strcmp(c->model, "pcie-root") && c->index.value)
			return err_set(err, EINVAL, "pci-root and pcie-root controllers should have index 0");
		if (!strcmp(c->model, "pcie-root-port") && !c->index.value)
			return err_set(
				err, EINVAL,
				"The PCI controller with index='0' must be model='pcie-root' for this machine type, "
				"but model='pcie-root-port' was found instead");
		if (c->index.value > 255)
			return err_set(err, EINVAL, "PCI controller index %u is too high, maximum is 255",
				       c->index.value);
		break;
	case DOM_CONTROLLER_SCSI:
		if (!DOM_CAN(caps, VIRTIO_SCSI))
			return refuse_value(err, "controller type", "scsi");
		if (c->model && strcmp(c->model, "virtio-scsi") && strcmp(c->model, "auto"))
			return refuse_value(err, "SCSI controller model", c->model);
		break;
	case DOM_CONTROLLER_USB: /* harmless with nothing on it */
		for (unsigned i = 0; c->model; i++) {
			if (i == sizeof(usb_models) / sizeof(usb_models[0]))
				return err_set(err, EINVAL, "Unknown model type '%.100s'", c->model);
			if (!strcmp(c->model, usb_models[i]))
				break;
		}
		break;
	case DOM_CONTROLLER_VIRTIO_SERIAL:
	case DOM_CONTROLLER_SATA:
		if (c->model)
			return err_set(err, EINVAL, "Unknown model type '%.100s'", c->model);
		break;
	default:
		return refuse_value(err, "controller type", dom_controller_type_names[c->type]);
	}
	return APPLY(rules, err);
}

static int check_filesystem(const struct dom_filesystem *f, struct err *err)
{
	if (!f->target)
		return err_set(err, EINVAL, "missing 'target' directory for filesystem");
	if (!f->driver || !f->driver->type)
		return refuse(err, "a filesystem without driver type='virtiofs'");
	if (!f->source || !f->source->dir == !f->source->socket)
		return err_set(err, EINVAL, "missing 'source' information for filesystem with target '%.100s'",
			       f->target);
	return 0;
}

static int check_input(const struct dom_input *i, const struct domain_caps *caps, struct err *err)
{
	if (i->bus == DOM_INPUT_PS2 && (i->type == DOM_INPUT_MOUSE || i->type == DOM_INPUT_KEYBOARD))
		return 0;
	if (i->bus == DOM_INPUT_VIRTIO && i->type <= DOM_INPUT_KEYBOARD && DOM_CAN(caps, VIRTIO_INPUT))
		return 0;
	if (i->bus == DOM_INPUT_USB && DOM_CAN(caps, USB))
		return 0;
	return refuse_value(err, "input bus",
			    i->bus == DOM_INPUT_PS2   ? "ps2"
			    : i->bus == DOM_INPUT_USB ? "usb"
						      : "virtio");
}

static int check_rng(const struct dom_rng *r, const struct domain_caps *caps, struct err *err)
{
	if (!DOM_CAN(caps, RNG))
		return refuse(err, "element <rng>");
	/* Keel's entropy is getrandom(): what these two files give. */
	if (r->backend->path && strcmp(r->backend->path, "/dev/urandom") && strcmp(r->backend->path, "/dev/random"))
		return refuse_value(err, "rng backend", r->backend->path);
	return r->driver ? check_virtio(&r->driver->virtio, "an rng", err) : 0;
}

static int check_balloon(const struct dom_memballoon *b, const struct domain_caps *caps, struct err *err)
{
	if (given(b->model, "none"))
		return 0;
	if (!DOM_CAN(caps, BALLOON))
		return refuse(err, "memballoon model='virtio'");
	return b->driver ? check_virtio(&b->driver->virtio, "a memballoon", err) : 0;
}

int device_check(const struct domain_device *dev, const struct domain_caps *caps, struct err *err)
{
	static const struct {
		enum dom_device_kind kind;
		enum dom_feature needs;
	} needs[] = {
		{ DOM_DEV_FILESYSTEM, DOM_CAN_VIRTIO_FS },  { DOM_DEV_TPM, DOM_CAN_TPM },
		{ DOM_DEV_HOSTDEV, DOM_CAN_HOSTDEV },	    { DOM_DEV_WATCHDOG, DOM_CAN_WATCHDOG },
		{ DOM_DEV_MEMORY, DOM_CAN_MEMORY_HOTPLUG }, { DOM_DEV_IOMMU, DOM_CAN_IOMMU },
		{ DOM_DEV_VSOCK, DOM_CAN_VSOCK },
	};
	char what[40];

	for (unsigned i = 0; i < sizeof(needs) / sizeof(needs[0]); i++)
		if (dev->kind == needs[i].kind && !(caps->devices >> needs[i].needs & 1)) {
			snprintf(what, sizeof(what), "element <%s> in <devices>", dom_device_name(dev->kind));
			return refuse(err, what);
		}
	switch (dev->kind) {
	case DOM_DEV_DISK:
		return check_disk(dev->dev, caps, err);
	case DOM_DEV_CONTROLLER:
		return check_controller(dev->dev, caps, err);
	case DOM_DEV_INTERFACE:
		return check_interface(dev->dev, caps, err);
	case DOM_DEV_SERIAL:
	case DOM_DEV_PARALLEL:
	case DOM_DEV_CONSOLE:
	case DOM_DEV_CHANNEL:
		return check_chr(dev->dev, dev->kind, caps, err);
	case DOM_DEV_FILESYSTEM:
		return check_filesystem(dev->dev, err);
	case DOM_DEV_INPUT:
		return check_input(dev->dev, caps, err);
	case DOM_DEV_MEMBALLOON:
		return check_balloon(dev->dev, caps, err);
	case DOM_DEV_RNG:
		return check_rng(dev->dev, caps, err);
	default:
		return 0;
	}
}

struct checking {
	const struct domain_caps *caps;
	struct err *err;
};

static int check_one(const struct domain_device *dev, void *opaque)
{
	const struct checking *c = opaque;

	return device_check(dev, c->caps, c->err);
}

int domain_check(const struct domain *def, const struct domain_caps *caps, struct err *err)
{
	struct checking c = { caps, err };
	int ret = check_type(def, caps, err);

	if (!ret)
		ret = check_machine(def, caps, err);
	if (!ret)
		ret = check_os(def, caps, err);
	if (!ret)
		ret = check_features(def, err);
	if (!ret)
		ret = check_cpu(def, caps, err);
	if (!ret)
		ret = check_time(def, caps, err);
	if (!ret)
		ret = check_resources(def, caps, err);
	if (!ret && (def->devices->audio.n > 1 || (def->devices->audio.n && def->devices->audio.v[0]->id.value != 1)))
		ret = refuse(err, "an element <audio> other than id='1'");
	return ret ? ret : domain_device_each(def, check_one, &c);
}
