/* SPDX-License-Identifier: GPL-2.0-or-later */
/* <capabilities>: the host, and what kinds of guests it can run. */
#include "model/caps.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "model/table.h"

#define VCPU_MAX 255 /* of a machine */

static void format_cpu(struct xbuf *b, const struct host_caps *host)
{
	const struct cpu_host *c = &host->cpu;
	const char *vendor = cpu_vendor_name(c->vendor);
	unsigned model = cpu_model_best(&c->features);
	struct cpu_set of_model;

	cpu_model_set(cpu_model_name(model), &of_model);
	xbuf_line(b, "<cpu>");
	b->indent += 2;
	xbuf_line(b, "<arch>x86_64</arch>");
	xbuf_line(b, "<model>%s</model>", cpu_model_name(model));
	if (vendor)
		xbuf_line(b, "<vendor>%s</vendor>", vendor);
	xbuf_line(b, "<signature family='%u' model='%u' stepping='%u'/>", c->family, c->model, c->stepping);
	xbuf_line(b, "<topology sockets='%u' dies='%u' cores='%u' threads='%u'/>", host->sockets, host->dies,
		  host->cores, host->threads);
	if (c->phys_bits)
		xbuf_line(b, "<maxphysaddr mode='emulate' bits='%u'/>", c->phys_bits);
	for (unsigned f = 0; f < cpu_feature_count(); f++)
		if (cpu_set_has(&c->features, f) && !cpu_set_has(&of_model, f))
			xbuf_line(b, "<feature name='%s'/>", cpu_feature_name(f));
	xbuf_line(b, "<pages unit='KiB' size='4'/>");
	if (host->hugepages_2m)
		xbuf_line(b, "<pages unit='KiB' size='2048'/>");
	if (host->hugepages_1g)
		xbuf_line(b, "<pages unit='KiB' size='1048576'/>");
	b->indent -= 2;
	xbuf_line(b, "</cpu>");
}

static void format_cell_cpus(struct xbuf *b, const struct host_caps *host, unsigned node)
{
	unsigned n = 0;

	for (unsigned i = 0; i < host->n_cpus; i++)
		n += host->cpus[i].node == node;
	xbuf_line(b, "<cpus num='%u'>", n);
	b->indent += 2;
	for (unsigned i = 0; i < host->n_cpus; i++) {
		const struct host_cpu_place *c = &host->cpus[i];

		if (c->node != node)
			continue;
		if (c->online)
			xbuf_line(b, "<cpu id='%u' socket_id='%u' die_id='%u' core_id='%u' siblings='%s'/>", c->id,
				  c->socket, c->die, c->core, c->siblings);
		else
			xbuf_line(b, "<cpu id='%u'/>", c->id);
	}
	b->indent -= 2;
	xbuf_line(b, "</cpus>");
}

static void format_cells(struct xbuf *b, const struct host_caps *host)
{
	xbuf_line(b, "<topology>");
	xbuf_line(b, "  <cells num='%u'>", host->n_nodes);
	b->indent += 4;
	for (unsigned i = 0; i < host->n_nodes; i++) {
		const struct host_node *n = &host->nodes[i];

		xbuf_line(b, "<cell id='%u'>", n->id);
		b->indent += 2;
		xbuf_line(b, "<memory unit='KiB'>%" PRIu64 "</memory>", n->memory_kib);
		xbuf_line(b, "<pages unit='KiB' size='4'>%" PRIu64 "</pages>", n->memory_kib / 4);
		if (n->distances) {
			xbuf_line(b, "<distances>");
			for (unsigned k = 0; k < host->n_nodes; k++)
				xbuf_line(b, "  <sibling id='%u' value='%u'/>", host->nodes[k].id, n->distances[k]);
			xbuf_line(b, "</distances>");
		}
		format_cell_cpus(b, host, n->id);
		b->indent -= 2;
		xbuf_line(b, "</cell>");
	}
	b->indent -= 4;
	xbuf_line(b, "  </cells>");
	xbuf_line(b, "</topology>");
}

static void format_host(struct xbuf *b, const struct host_caps *host)
{
	char uuid[37];

	xml_uuid_text(host->uuid, uuid);
	xbuf_line(b, "<host>");
	b->indent += 2;
	xbuf_line(b, "<uuid>%s</uuid>", uuid);
	format_cpu(b, host);
	xbuf_line(b, "<power_management/>");
	xbuf_line(b, "<iommu support='no'/>");
	format_cells(b, host);
	b->indent -= 2;
	xbuf_line(b, "</host>");
}

static void format_guest(struct xbuf *b, const struct domain_caps *caps)
{
	xbuf_line(b, "<guest>");
	b->indent += 2;
	xbuf_line(b, "<os_type>hvm</os_type>");
	xbuf_line(b, "<arch name='x86_64'>");
	b->indent += 2;
	xbuf_line(b, "<wordsize>64</wordsize>");
	if (caps->emulator) {
		xbuf_pad(b);
		xbuf_puts(b, "<emulator>");
		xbuf_escape(b, caps->emulator);
		xbuf_puts(b, "</emulator>\n");
	}
	xbuf_line(b, "<machine maxCpus='%u'>" DOMAIN_Q35 "</machine>", VCPU_MAX);
	xbuf_line(b, "<machine canonical='" DOMAIN_Q35 "' maxCpus='%u'>q35</machine>", VCPU_MAX);
	if (DOM_CAN(caps, MICROVM))
		xbuf_line(b, "<machine maxCpus='%u'>microvm</machine>", VCPU_MAX);
	if (caps->soft)
		xbuf_line(b, "<domain type='qemu'/>");
	if (caps->kvm)
		xbuf_line(b, "<domain type='kvm'/>");
	b->indent -= 2;
	xbuf_line(b, "</arch>");
	xbuf_line(b, "<features>");
	xbuf_line(b, "  <acpi default='on' toggle='no'/>");
	xbuf_line(b, "  <apic default='on' toggle='no'/>");
	xbuf_line(b, "  <cpuselection/>");
	xbuf_line(b, "  <deviceboot/>");
	xbuf_line(b, "  <disksnapshot default='off' toggle='no'/>");
	xbuf_line(b, "</features>");
	b->indent -= 2;
	xbuf_line(b, "</guest>");
}

char *capabilities_format(const struct host_caps *host, const struct domain_caps *caps)
{
	struct xbuf b = { 0 };

	xbuf_puts(&b, "<capabilities>\n\n");
	b.indent = 2;
	format_host(&b, host);
	if (caps->kvm || caps->soft) {
		xbuf_puts(&b, "\n");
		format_guest(&b, caps);
	}
	xbuf_puts(&b, "\n</capabilities>\n");
	return xbuf_take(&b);
}

/* ---- <domainCapabilities> ------------------------------------------------- */

/* Names in one text, so that what is offered reads as one line; "if" says whether each is. */
struct offer {
	const char *name;
	bool yes;
};

static void format_enum(struct xbuf *b, const char *name, const struct offer *offers, unsigned n)
{
	bool any = false;

	for (unsigned i = 0; i < n; i++)
		any |= offers[i].yes;
	xbuf_line(b, any ? "<enum name='%s'>" : "<enum name='%s'/>", name);
	if (!any)
		return;
	for (unsigned i = 0; i < n; i++)
		if (offers[i].yes)
			xbuf_line(b, "  <value>%s</value>", offers[i].name);
	xbuf_line(b, "</enum>");
}
#define ENUM(b, name, ...)                                                                                             \
	format_enum(b, name, (const struct offer[]){ __VA_ARGS__ },                                                    \
		    sizeof((const struct offer[]){ __VA_ARGS__ }) / sizeof(struct offer))

static bool open_element(struct xbuf *b, const char *name, bool supported)
{
	xbuf_line(b, "<%s supported='%s'%s>", name, supported ? "yes" : "no", supported ? "" : "/");
	if (supported)
		b->indent += 2;
	return supported;
}

static void close_element(struct xbuf *b, const char *name)
{
	b->indent -= 2;
	xbuf_line(b, "</%s>", name);
}

static void format_path(struct xbuf *b, const char *path)
{
	if (!path)
		return;
	xbuf_pad(b);
	xbuf_puts(b, "<value>");
	xbuf_escape(b, path);
	xbuf_puts(b, "</value>\n");
}

static void format_os(struct xbuf *b, const struct domain_caps *caps)
{
	open_element(b, "os", true);
	ENUM(b, "firmware", { "efi", caps->firmware_efi }, { "bios", caps->firmware_bios });
	if (open_element(b, "loader", caps->firmware_efi || caps->firmware_bios)) {
		format_path(b, caps->firmware_efi);
		format_path(b, caps->firmware_bios);
		ENUM(b, "type", { "rom", true }, { "pflash", true });
		ENUM(b, "readonly", { "yes", true }, { "no", false });
		ENUM(b, "secure", { "no", true });
		close_element(b, "loader");
	}
	close_element(b, "os");
}

static void format_guest_cpu(struct xbuf *b)
{
	xbuf_line(b, "<cpu>");
	b->indent += 2;
	xbuf_line(b, "<mode name='host-passthrough' supported='yes'>");
	b->indent += 2;
	ENUM(b, "hostPassthroughMigratable", { "on", true }, { "off", true });
	b->indent -= 2;
	xbuf_line(b, "</mode>");
	xbuf_line(b, "<mode name='maximum' supported='yes'>");
	b->indent += 2;
	ENUM(b, "maximumMigratable", { "on", true }, { "off", true });
	b->indent -= 2;
	xbuf_line(b, "</mode>");
	xbuf_line(b, "<mode name='host-model' supported='no'/>");
	xbuf_line(b, "<mode name='custom' supported='no'/>");
	b->indent -= 2;
	xbuf_line(b, "</cpu>");
}

static void format_devices(struct xbuf *b, const struct domain_caps *caps)
{
	xbuf_line(b, "<devices>");
	b->indent += 2;
	open_element(b, "disk", true);
	ENUM(b, "diskDevice", { "disk", true }, { "cdrom", DOM_CAN(caps, CDROM) });
	ENUM(b, "bus", { "scsi", DOM_CAN(caps, VIRTIO_SCSI) }, { "virtio", DOM_CAN(caps, VIRTIO_BLK) },
	     { "sata", DOM_CAN(caps, SATA) });
	ENUM(b, "model", { "virtio", true }, { "virtio-non-transitional", true });
	close_element(b, "disk");
	open_element(b, "graphics", false);
	open_element(b, "video", false);
	if (open_element(b, "hostdev", DOM_CAN(caps, HOSTDEV))) {
		ENUM(b, "mode", { "subsystem", true });
		ENUM(b, "startupPolicy", { "default", false });
		ENUM(b, "subsysType", { "pci", true });
		ENUM(b, "capsType", { "storage", false });
		ENUM(b, "pciBackend", { "vfio", true });
		close_element(b, "hostdev");
	}
	if (open_element(b, "rng", DOM_CAN(caps, RNG))) {
		ENUM(b, "model", { "virtio", true }, { "virtio-non-transitional", true });
		ENUM(b, "backendModel", { "random", true }, { "builtin", true });
		close_element(b, "rng");
	}
	if (open_element(b, "filesystem", DOM_CAN(caps, VIRTIO_FS))) {
		ENUM(b, "driverType", { "virtiofs", true });
		close_element(b, "filesystem");
	}
	if (open_element(b, "tpm", DOM_CAN(caps, TPM))) {
		ENUM(b, "model", { "tpm-tis", true }, { "tpm-crb", true });
		ENUM(b, "backendModel", { "emulator", true });
		ENUM(b, "backendVersion", { "2.0", true });
		close_element(b, "tpm");
	}
	open_element(b, "redirdev", false);
	if (open_element(b, "channel", DOM_CAN(caps, VIRTIO_SERIAL_PORTS))) {
		ENUM(b, "type", { "pty", true }, { "unix", true });
		close_element(b, "channel");
	}
	b->indent -= 2;
	xbuf_line(b, "</devices>");
}

static void format_features(struct xbuf *b, const struct domain_caps *caps)
{
	xbuf_line(b, "<features>");
	b->indent += 2;
	xbuf_line(b, "<gic supported='no'/>");
	xbuf_line(b, "<vmcoreinfo supported='no'/>");
	xbuf_line(b, "<genid supported='%s'/>", DOM_CAN(caps, GENID) ? "yes" : "no");
	xbuf_line(b, "<backingStoreInput supported='yes'/>");
	xbuf_line(b, "<backup supported='no'/>");
	xbuf_line(b, "<sev supported='no'/>");
	xbuf_line(b, "<sgx supported='no'/>");
	b->indent -= 2;
	xbuf_line(b, "</features>");
}

static const char *canonical_machine(const struct domain_caps *caps, const char *machine)
{
	if (!machine || !strcmp(machine, "q35"))
		return DOMAIN_Q35;
	if (!strncmp(machine, "pc-q35-", 7) && machine[7] && strspn(machine + 7, "0123456789.") == strlen(machine + 7))
		return machine;
	return !strcmp(machine, "microvm") && DOM_CAN(caps, MICROVM) ? machine : NULL;
}

static int check_question(const struct domain_caps *caps, const char *emulator, const char *arch, const char *virttype,
			  struct err *err)
{
	bool kvm = virttype && !strcmp(virttype, "kvm");

	if (virttype && !kvm && strcmp(virttype, "qemu"))
		return err_set(err, ENOENT, "unknown virttype: %.100s", virttype);
	if (arch && strcmp(arch, "x86_64"))
		return err_set(err, ENOENT, "unable to find any emulator to serve '%.100s' architecture", arch);
	if (emulator && (!caps->emulator || strcmp(emulator, caps->emulator)))
		return err_set(err, ENOENT, "unable to find any emulator '%.200s'", emulator);
	if (kvm && !caps->kvm)
		return err_set(err, ENOENT, "KVM is not supported by '%.200s' on this host",
			       caps->emulator ? caps->emulator : "keel-vmm");
	if (!kvm && virttype && !caps->soft)
		return err_set(err, ENOENT, "virttype 'qemu' is not supported on this host");
	return 0;
}

char *domain_capabilities_format(const struct host_caps *host, const struct domain_caps *caps, const char *emulator,
				 const char *arch, const char *machine, const char *virttype, struct err *err)
{
	const char *canonical = canonical_machine(caps, machine);
	struct xbuf b = { 0 };

	(void)host;
	if (check_question(caps, emulator, arch, virttype, err))
		return NULL;
	if (!canonical) {
		err_set(err, ENOENT, "the machine '%.100s' is not supported by emulator '%.200s'", machine,
			caps->emulator ? caps->emulator : "keel-vmm");
		return NULL;
	}
	xbuf_puts(&b, "<domainCapabilities>\n");
	b.indent = 2;
	xbuf_pad(&b);
	xbuf_puts(&b, "<path>");
	xbuf_escape(&b, caps->emulator ? caps->emulator : "");
	xbuf_puts(&b, "</path>\n");
	xbuf_line(&b, "<domain>%s</domain>", virttype ? virttype : caps->kvm ? "kvm" : "qemu");
	xbuf_line(&b, "<machine>%s</machine>", canonical);
	xbuf_line(&b, "<arch>x86_64</arch>");
	xbuf_line(&b, "<vcpu max='%u'/>", VCPU_MAX);
	xbuf_line(&b, "<iothreads supported='%s'/>", DOM_CAN(caps, IOTHREADS) ? "yes" : "no");
	format_os(&b, caps);
	format_guest_cpu(&b);
	if (open_element(&b, "memoryBacking", true)) {
		ENUM(&b, "sourceType", { "anonymous", true }, { "memfd", true });
		close_element(&b, "memoryBacking");
	}
	format_devices(&b, caps);
	format_features(&b, caps);
	xbuf_puts(&b, "</domainCapabilities>\n");
	return xbuf_take(&b);
}
