/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The devices but disks and interfaces: their elements in libvirt's order. */
#include "model/device_tables.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/table_macros.h"

/* ---- Words ---------------------------------------------------------------- */

/* First what Keel knows, then what only libvirt does. */
static const char *const virtio_models[] = {
	"", "virtio", "virtio-non-transitional", NULL, "virtio-transitional", NULL
};
static const char *const chr_modes[] = { "", "bind", "connect", NULL, NULL };
static const char *const protocols[] = { "", "raw", "telnet", NULL, "telnets", "tls", NULL };
static const char *const chr_target_types[] = { "",
						"isa-serial",
						"serial",
						"virtio",
						NULL,
						"usb-serial",
						"pci-serial",
						"spapr-vio-serial",
						"system-serial",
						"sclp-serial",
						"isa-debug",
						"xen",
						"uml",
						"virtio",
						"lxc",
						"openvz",
						"sclp",
						"sclplm",
						"guestfwd",
						"none",
						NULL };
static const char *const chr_target_models[] = { "",	       "isa-serial",   NULL,
						 "usb-serial", "pci-serial",   "spapr-vty",
						 "pl011",      "sclpconsole",  "sclplmconsole",
						 "16550a",     "isa-debugcon", NULL };
static const char *const chr_states[] = { "", "connected", "disconnected", NULL, NULL };
static const char *const tpm_types[] = { "", "emulator", NULL, "passthrough", "external", NULL };
static const char *const tpm_versions[] = { "", "1.2", "2.0", NULL, NULL };
static const char *const tpm_models[] = { "", "tpm-tis", "tpm-crb", NULL, "tpm-spapr", "spapr-tpm-proxy", NULL };
static const char *const audio_types[] = { "",	   "none", NULL,	 "alsa", "coreaudio", "dbus", "file",
					   "jack", "oss",  "pulseaudio", "sdl",	 "spice",     NULL };
static const char *const fs_types[] = { "", "mount", NULL, "block", "file", "template", "ram", "bind", "volume", NULL };
static const char *const fs_access[] = { "", "passthrough", "mapped", "squash", NULL, NULL };
static const char *const fs_drivers[] = { "", "virtiofs", NULL, "path", "handle", "loop", "nbd", "ploop", "mtp", NULL };
static const char *const fs_caches[] = { "", "none", "always", NULL, NULL };
static const char *const hostdev_modes[] = { "", "subsystem", NULL, "capabilities", NULL };
static const char *const hostdev_types[] = { "",     "pci",	NULL,	"usb", "scsi", "scsi_host",
					     "mdev", "storage", "misc", "net", NULL };
static const char *const hostdev_drivers[] = { "", "vfio", NULL, "kvm", "xen", NULL };
static const char *const watchdog_models[] = { "", "i6300esb", "itco", NULL, "ib700", "diag288", NULL };
static const char *const watchdog_actions[] = { "",	"reset", "shutdown",   "poweroff", "pause",
						"none", "dump",	 "inject-nmi", NULL,	   NULL };
static const char *const balloon_models[] = { "",   "virtio", "virtio-non-transitional", "none",
					      NULL, "xen",    "virtio-transitional",	 NULL };
static const char *const rng_backends[] = { "", "random", "builtin", NULL, "egd", NULL };
static const char *const panic_models[] = { "", "isa", NULL, "pseries", "hyperv", "s390", "pvpanic", NULL };
static const char *const memdev_models[] = { "", "dimm", "virtio-mem", NULL, "nvdimm", "virtio-pmem", "sgx-epc", NULL };
static const char *const iommu_models[] = { "", "intel", "virtio", NULL, "smmuv3", NULL };
static const char *const controller_models[] = { "",
						 "pcie-root",
						 "pcie-root-port",
						 "auto",
						 "virtio-scsi",
						 "none",
						 "qemu-xhci",
						 "nec-xhci",
						 "piix3-uhci",
						 "piix4-uhci",
						 "ehci",
						 "ich9-ehci1",
						 "ich9-uhci1",
						 "ich9-uhci2",
						 "ich9-uhci3",
						 "vt82c686b-uhci",
						 "pci-ohci",
						 NULL,
						 "pci-root",
						 "pci-bridge",
						 "dmi-to-pci-bridge",
						 "pcie-switch-upstream-port",
						 "pcie-switch-downstream-port",
						 "pci-expander-bus",
						 "pcie-expander-bus",
						 "pcie-to-pci-bridge",
						 "buslogic",
						 "lsilogic",
						 "lsisas1068",
						 "vmpvscsi",
						 "ibmvscsi",
						 "lsisas1078",
						 "am53c974",
						 "dc390",
						 "virtio-transitional",
						 "virtio-non-transitional",
						 "piix3",
						 "piix4",
						 "ich6",
						 NULL };
static const char *const port_models[] = { "",		 "pcie-root-port",   NULL,
					   "ioh3420",	 "x3130-upstream",   "xio3130-downstream",
					   "pci-bridge", "i82801b11-bridge", "pxb",
					   "pxb-pcie",	 "pcie-pci-bridge",  "spapr-pci-host-bridge",
					   NULL };

/* ---- Controllers ---------------------------------------------------------- */

const char *const dom_controller_type_names[] = { "",	  "ide", "fdc", "scsi", "sata",	  "virtio-serial",
						  "ccid", "usb", "pci", NULL,	"xenbus", "isa",
						  NULL };
#define S dom_controller_target
static const struct xml_field controller_target_fields[] = {
	ATTR("chassisNr", chassis_nr, OPT32, ABI), ATTR("chassis", chassis, OPT32, ABI), ATTR("port", port, HEX32, ABI),
	ATTR("busNr", busnr, OPT32, ABI),	   ATTR("hotplug", hotplug, ONOFF, ABI),
};
#undef S
static XML_TYPE(controller_target_xml, "target", struct dom_controller_target, controller_target_fields);
#define S dom_controller_driver
static const struct xml_field controller_driver_fields[] = {
	ATTR("queues", queues, OPT32),		 ATTR("cmd_per_lun", cmd_per_lun, OPT32),
	ATTR("max_sectors", max_sectors, OPT32), ATTR("ioeventfd", ioeventfd, ONOFF),
	ATTR("iothread", iothread, OPT32),	 VIRTIO_ATTRS,
};
#undef S
static XML_TYPE(controller_driver_xml, "driver", struct dom_controller_driver, controller_driver_fields);
#define S dom_controller
static const struct xml_field controller_fields[] = {
	ATTR_ENUM("type", type, dom_controller_type_names, .flags = XML_ABI | XML_REQUIRED),
	ATTR("index", index, OPT32, ABI),
	ATTR_WORD("model", model, controller_models, ABI),
	ATTR("ports", ports, OPT32, ABI),
	ATTR("vectors", vectors, OPT32, ABI),
	ELEM_ATTR_WORD("model", "name", model_name, port_models, ABI),
	CHILD("target", target, controller_target_xml, ABI),
	ELEM("pcihole64", pcihole64, OPTKIB, ABI),
	CHILD("driver", driver, controller_driver_xml, ABI),
	ELEM_ATTR("alias", "name", info.alias, ALIAS),
	ELEM_ATTR("master", "startport", master_startport, OPT32, ABI),
	ELEM_ATTR("acpi", "index", info.acpi_index, OPT32, ABI),
	CHILD("address", info.address, dom_address_xml, ABI),
};
#undef S
XML_TYPE(dom_controller_xml, "controller", struct dom_controller, controller_fields);

/* ---- Characters ----------------------------------------------------------- */

const char *const dom_chr_type_names[] = { "",		"null",	 "vc",	"pty",		"dev",	"file",
					   "pipe",	"stdio", "udp", "tcp",		"unix", "spicevmc",
					   "spiceport", "nmdm",	 NULL,	"qemu-vdagent", "dbus", NULL };
#define S dom_reconnect
static const struct xml_field reconnect_fields[] = {
	ATTR("enabled", enabled, YESNO, REQUIRED),
	ATTR("timeout", timeout, OPT32),
};
#undef S
static XML_TYPE(reconnect_xml, "reconnect", struct dom_reconnect, reconnect_fields);
#define S dom_chr_source
static const struct xml_field chr_source_fields[] = {
	ATTR_WORD("mode", mode, chr_modes),
	ATTR("host", host, NAME),
	ATTR("service", service, NAME),
	ATTR("path", path, PATH),
	ATTR("append", append, ONOFF),
	ATTR("tls", tls, YESNO),
	CHILDREN("seclabel", seclabel, dom_seclabel_xml),
	CHILD("reconnect", reconnect, reconnect_xml),
};
#undef S
static XML_TYPE(chr_source_xml, "source", struct dom_chr_source, chr_source_fields);
#define S dom_chr_log
static const struct xml_field log_fields[] = { ATTR("file", file, PATH, REQUIRED), ATTR("append", append, ONOFF) };
#undef S
static XML_TYPE(log_xml, "log", struct dom_chr_log, log_fields);
#define S dom_chr_target
static const struct xml_field chr_target_fields[] = {
	ATTR_WORD("type", type, chr_target_types, ABI),
	ATTR("name", name, NAME, ABI),
	ATTR_WORD("state", state, chr_states, LIVE),
	ATTR("port", port, OPT32, ABI),
	ELEM_ATTR_WORD("model", "name", model, chr_target_models, ABI),
};
#undef S
static XML_TYPE(chr_target_xml, "target", struct dom_chr_target, chr_target_fields);

static int chr_parsed(void *obj, const struct xml_parse *p, struct err *err)
{
	struct dom_chr *c = obj;

	(void)err;
	if (!c->type)
		c->type = DOM_CHR_PTY;
	/* A pseudo-terminal has its name from the kernel, each time another. */
	if (c->type == DOM_CHR_PTY && !(p->flags & XML_PARSE_LIVE))
		for (unsigned i = 0; i < c->source.n; i++) {
			free(c->source.v[i]->path);
			c->source.v[i]->path = NULL;
		}
	return 0;
}

#define S dom_chr
static const struct xml_field chr_fields[] = {
	ATTR_ENUM("type", type, dom_chr_type_names),
	ATTR("tty", tty, STR, LIVE),
	CHILDREN("source", source, chr_source_xml),
	ELEM_ATTR_WORD("protocol", "type", protocol, protocols),
	CHILD("log", log, log_xml),
	CHILD("target", target, chr_target_xml, ABI),
	INFO,
};
#undef S
XML_TYPE(dom_serial_xml, "serial", struct dom_chr, chr_fields, .parsed = chr_parsed);
XML_TYPE(dom_parallel_xml, "parallel", struct dom_chr, chr_fields, .parsed = chr_parsed);
XML_TYPE(dom_console_xml, "console", struct dom_chr, chr_fields, .parsed = chr_parsed);
XML_TYPE(dom_channel_xml, "channel", struct dom_chr, chr_fields, .parsed = chr_parsed);

/* ---- Input, TPM, audio ---------------------------------------------------- */

#define S dom_virtio_driver
static const struct xml_field virtio_driver_fields[] = { VIRTIO_ATTRS };
#undef S
static XML_TYPE(virtio_driver_xml, "driver", struct dom_virtio_driver, virtio_driver_fields);

static const char *const input_type_names[] = { "", "mouse", "tablet", "keyboard", "passthrough", "evdev", NULL, NULL };
static const char *const input_bus_names[] = { "", "ps2", "usb", "virtio", NULL, "xen", "parallels", "none", NULL };
#define S dom_input
static const struct xml_field input_fields[] = {
	ATTR_ENUM("type", type, input_type_names, .flags = XML_ABI | XML_REQUIRED),
	ATTR_ENUM("bus", bus, input_bus_names, ABI),
	ATTR_WORD("model", model, virtio_models, ABI),
	CHILD("driver", driver, virtio_driver_xml, ABI),
	INFO,
};
#undef S
XML_TYPE(dom_input_xml, "input", struct dom_input, input_fields);

#define S dom_tpm_backend
static const struct xml_field tpm_backend_fields[] = {
	ATTR_WORD("type", type, tpm_types, .flags = XML_ABI | XML_REQUIRED),
	ATTR_WORD("version", version, tpm_versions, ABI),
	ATTR("persistent_state", persistent_state, YESNO),
};
#undef S
static XML_TYPE(tpm_backend_xml, "backend", struct dom_tpm_backend, tpm_backend_fields);
#define S dom_tpm
static const struct xml_field tpm_fields[] = {
	ATTR_WORD("model", model, tpm_models, ABI),
	CHILD("backend", backend, tpm_backend_xml, .flags = XML_ABI | XML_REQUIRED),
	INFO,
};
#undef S
XML_TYPE(dom_tpm_xml, "tpm", struct dom_tpm, tpm_fields);

#define S dom_audio
static const struct xml_field audio_fields[] = { ATTR("id", id, OPT32, REQUIRED),
						 ATTR_WORD("type", type, audio_types, REQUIRED) };
#undef S
XML_TYPE(dom_audio_xml, "audio", struct dom_audio, audio_fields);

/* ---- File systems, host devices ------------------------------------------- */

#define S dom_filesystem_driver
static const struct xml_field fs_driver_fields[] = {
	ATTR_WORD("type", type, fs_drivers),
	ATTR("queue", queue, OPT32),
	VIRTIO_ATTRS,
};
#undef S
static XML_TYPE(fs_driver_xml, "driver", struct dom_filesystem_driver, fs_driver_fields);
#define S dom_fs_binary
static const struct xml_field fs_binary_fields[] = {
	ATTR("path", path, PATH),
	ATTR("xattr", xattr, ONOFF),
	ELEM_ATTR_WORD("cache", "mode", cache, fs_caches),
};
#undef S
static XML_TYPE(fs_binary_xml, "binary", struct dom_fs_binary, fs_binary_fields);
#define S dom_fs_source
static const struct xml_field fs_source_fields[] = { ATTR("dir", dir, PATH), ATTR("socket", socket, PATH) };
#undef S
static XML_TYPE(fs_source_xml, "source", struct dom_fs_source, fs_source_fields);
#define S dom_filesystem
static const struct xml_field filesystem_fields[] = {
	ATTR_WORD("type", type, fs_types),
	ATTR_WORD("accessmode", accessmode, fs_access),
	ATTR_WORD("model", model, virtio_models, ABI),
	CHILD("driver", driver, fs_driver_xml),
	CHILD("binary", binary, fs_binary_xml),
	CHILD("source", source, fs_source_xml),
	ELEM_ATTR("target", "dir", target, STR, ABI),
	ELEM("readonly", readonly, BOOL),
	INFO,
};
#undef S
XML_TYPE(dom_filesystem_xml, "filesystem", struct dom_filesystem, filesystem_fields);

#define S dom_hostdev_address
static const struct xml_field host_address_fields[] = {
	ATTR("domain", domain, HEXDIGIT, .width = 4, .flags = XML_REQUIRED),
	ATTR("bus", bus, HEXDIGIT, .width = 2, .flags = XML_REQUIRED),
	ATTR("slot", slot, HEXDIGIT, .width = 2, .flags = XML_REQUIRED),
	ATTR("function", function, HEXDIGIT, .width = 1, .flags = XML_REQUIRED),
};
#undef S
static XML_TYPE(host_address_xml, "address", struct dom_hostdev_address, host_address_fields);
#define S dom_hostdev_source
static const struct xml_field hostdev_source_fields[] = { CHILD("address", address, host_address_xml, REQUIRED) };
#undef S
static XML_TYPE(hostdev_source_xml, "source", struct dom_hostdev_source, hostdev_source_fields);
#define S dom_hostdev
static const struct xml_field hostdev_fields[] = {
	ATTR_WORD("mode", mode, hostdev_modes, .flags = XML_ABI | XML_REQUIRED),
	ATTR_WORD("type", type, hostdev_types, .flags = XML_ABI | XML_REQUIRED),
	ATTR("managed", managed, YESNO),
	ELEM_ATTR_WORD("driver", "name", driver, hostdev_drivers),
	CHILD("source", source, hostdev_source_xml, REQUIRED),
	BOOT,
	INFO,
};
#undef S
XML_TYPE(dom_hostdev_xml, "hostdev", struct dom_hostdev, hostdev_fields);

/* ---- Watchdog, balloon, entropy, panic ------------------------------------ */

#define S dom_watchdog
static const struct xml_field watchdog_fields[] = {
	ATTR_WORD("model", model, watchdog_models, .flags = XML_ABI | XML_REQUIRED),
	ATTR_WORD("action", action, watchdog_actions, ABI),
	INFO,
};
#undef S
XML_TYPE(dom_watchdog_xml, "watchdog", struct dom_watchdog, watchdog_fields);

#define S dom_memballoon
static const struct xml_field memballoon_fields[] = {
	ATTR_WORD("model", model, balloon_models, .flags = XML_ABI | XML_REQUIRED),
	ATTR("autodeflate", autodeflate, ONOFF, ABI),
	ATTR("freePageReporting", free_page_reporting, ONOFF, ABI),
	ELEM_ATTR("stats", "period", stats_period, OPT32),
	INFO,
	CHILD("driver", driver, virtio_driver_xml, ABI),
};
#undef S
XML_TYPE(dom_memballoon_xml, "memballoon", struct dom_memballoon, memballoon_fields);

#define S dom_rng_rate
static const struct xml_field rate_fields[] = {
	ATTR("bytes", bytes, U32, .flags = XML_REQUIRED | XML_NONZERO),
	ATTR("period", period, OPT32),
};
#undef S
static XML_TYPE(rate_xml, "rate", struct dom_rng_rate, rate_fields);
#define S dom_rng_backend
static const struct xml_field rng_backend_fields[] = { ATTR_WORD("model", model, rng_backends, REQUIRED),
						       TEXT(path, PATH) };
#undef S
static XML_TYPE(rng_backend_xml, "backend", struct dom_rng_backend, rng_backend_fields);
#define S dom_rng
static const struct xml_field rng_fields[] = {
	ATTR_WORD("model", model, virtio_models, .flags = XML_ABI | XML_REQUIRED),
	CHILD("rate", rate, rate_xml),
	CHILD("backend", backend, rng_backend_xml, REQUIRED),
	CHILD("driver", driver, virtio_driver_xml, ABI),
	INFO,
};
#undef S
XML_TYPE(dom_rng_xml, "rng", struct dom_rng, rng_fields);

#define S dom_panic
static const struct xml_field panic_fields[] = { ATTR_WORD("model", model, panic_models, ABI), INFO };
#undef S
XML_TYPE(dom_panic_xml, "panic", struct dom_panic, panic_fields);

/* ---- Memory, IOMMU, vsock ------------------------------------------------- */

static const char *const memdev_access_names[] = { "", "shared", "private", NULL, NULL };
#define S dom_memdev_source
static const struct xml_field memdev_source_fields[] = {
	ELEM("path", path, PATH),
	ELEM("nodemask", nodemask, STR),
	ELEM("pagesize", pagesize, KIB),
};
#undef S
static XML_TYPE(memdev_source_xml, "source", struct dom_memdev_source, memdev_source_fields);
#define S dom_memdev_target
static const struct xml_field memdev_target_fields[] = {
	ELEM("size", size, KIB, .flags = XML_ABI | XML_REQUIRED),
	ELEM("node", node, OPT32, ABI),
	ELEM("block", block, KIB, ABI),
	ELEM("requested", requested, KIB),
	ELEM("current", current, KIB, LIVE),
};
#undef S
static XML_TYPE(memdev_target_xml, "target", struct dom_memdev_target, memdev_target_fields);
#define S dom_memdev
static const struct xml_field memdev_fields[] = {
	ATTR_WORD("model", model, memdev_models, .flags = XML_ABI | XML_REQUIRED),
	ATTR_ENUM("access", access, memdev_access_names),
	ATTR("discard", discard, YESNO),
	CHILD("source", source, memdev_source_xml),
	CHILD("target", target, memdev_target_xml, .flags = XML_ABI | XML_REQUIRED),
	INFO,
};
#undef S
XML_TYPE(dom_memdev_xml, "memory", struct dom_memdev, memdev_fields);

#define S dom_iommu_driver
static const struct xml_field iommu_driver_fields[] = {
	ATTR("intremap", intremap, ONOFF, ABI), ATTR("caching_mode", caching_mode, ONOFF, ABI),
	ATTR("eim", eim, ONOFF, ABI),		ATTR("iotlb", iotlb, ONOFF, ABI),
	ATTR("aw_bits", aw_bits, OPT32, ABI),
};
#undef S
static XML_TYPE(iommu_driver_xml, "driver", struct dom_iommu_driver, iommu_driver_fields);
#define S dom_iommu
static const struct xml_field iommu_fields[] = {
	ATTR_WORD("model", model, iommu_models, .flags = XML_ABI | XML_REQUIRED),
	CHILD("driver", driver, iommu_driver_xml, ABI),
	INFO,
};
#undef S
XML_TYPE(dom_iommu_xml, "iommu", struct dom_iommu, iommu_fields);

#define S dom_cid
static const struct xml_field cid_fields[] = { ATTR("auto", auto_assign, YESNO), ATTR("address", address, OPT32) };
#undef S
static XML_TYPE(cid_xml, "cid", struct dom_cid, cid_fields);
#define S dom_vsock
static const struct xml_field vsock_fields[] = {
	ATTR_WORD("model", model, virtio_models, ABI),
	CHILD("cid", cid, cid_xml),
	INFO,
	CHILD("driver", driver, virtio_driver_xml, ABI),
};
#undef S
XML_TYPE(dom_vsock_xml, "vsock", struct dom_vsock, vsock_fields);

/* ---- All kinds ------------------------------------------------------------ */

#define CLASS(kind, text, xml, member, alone, c_type)                                                                  \
	[DOM_DEV_##kind] = { text, &xml, offsetof(struct dom_devices, member), alone, offsetof(struct c_type, info) }
const struct dom_device_class dom_device_classes[] = {
	CLASS(DISK, "disk", dom_disk_xml, disk, false, dom_disk),
	CLASS(CONTROLLER, "controller", dom_controller_xml, controller, false, dom_controller),
	CLASS(FILESYSTEM, "filesystem", dom_filesystem_xml, filesystem, false, dom_filesystem),
	CLASS(INTERFACE, "interface", dom_interface_xml, interface, false, dom_interface),
	CLASS(SERIAL, "serial", dom_serial_xml, serial, false, dom_chr),
	CLASS(PARALLEL, "parallel", dom_parallel_xml, parallel, false, dom_chr),
	CLASS(CONSOLE, "console", dom_console_xml, console, false, dom_chr),
	CLASS(CHANNEL, "channel", dom_channel_xml, channel, false, dom_chr),
	CLASS(INPUT, "input", dom_input_xml, input, false, dom_input),
	CLASS(TPM, "tpm", dom_tpm_xml, tpm, false, dom_tpm),
	CLASS(HOSTDEV, "hostdev", dom_hostdev_xml, hostdev, false, dom_hostdev),
	CLASS(WATCHDOG, "watchdog", dom_watchdog_xml, watchdog, false, dom_watchdog),
	CLASS(MEMBALLOON, "memballoon", dom_memballoon_xml, memballoon, true, dom_memballoon),
	CLASS(RNG, "rng", dom_rng_xml, rng, false, dom_rng),
	CLASS(PANIC, "panic", dom_panic_xml, panic, false, dom_panic),
	CLASS(MEMORY, "memory", dom_memdev_xml, memory, false, dom_memdev),
	CLASS(IOMMU, "iommu", dom_iommu_xml, iommu, true, dom_iommu),
	CLASS(VSOCK, "vsock", dom_vsock_xml, vsock, true, dom_vsock),
};

const char *dom_device_name(enum dom_device_kind kind)
{
	return dom_device_classes[kind].name;
}
