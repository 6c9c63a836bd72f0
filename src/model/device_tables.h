/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside src/model: the tables of devices, by kind. */
#pragma once
#include "model/devices.h"
#include "model/domain.h"
#include "model/table.h"

extern const struct xml_type dom_disk_xml, dom_controller_xml, dom_filesystem_xml, dom_interface_xml, dom_serial_xml,
	dom_parallel_xml, dom_console_xml, dom_channel_xml, dom_input_xml, dom_tpm_xml, dom_audio_xml, dom_hostdev_xml,
	dom_watchdog_xml, dom_memballoon_xml, dom_rng_xml, dom_panic_xml, dom_memdev_xml, dom_iommu_xml, dom_vsock_xml;
extern const struct xml_type dom_address_xml, dom_seclabel_xml, dom_devices_xml, domain_xml, dom_cpu_xml;
extern const char *const dom_disk_bus_names[], *const dom_controller_type_names[], *const dom_net_type_names[],
	*const dom_chr_type_names[], *const dom_disk_type_names[], *const dom_disk_device_names[],
	*const dom_virt_names[], *const dom_address_type_names[];

/* Drop <target dev=.../> if libvirt or keeld made the name up ("vnet0"). */
void interface_forget_target(struct dom_interface *n);

/* A kind's place in struct dom_devices; info_offset SIZE_MAX: has none. */
struct dom_device_class {
	const char *name;
	const struct xml_type *type;
	size_t offset; /* in struct dom_devices */
	bool single;   /* a pointer, not a list */
	size_t info_offset;
};
extern const struct dom_device_class dom_device_classes[DOM_DEV_VSOCK + 1];
