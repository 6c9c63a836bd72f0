/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The elements of <domain> outside <devices>, in libvirt's order. */
#include <errno.h>
#include <string.h>

#include "model/device_tables.h"
#include "model/table_macros.h"

/* ---- Names ---------------------------------------------------------------- */

const char *const dom_virt_names[] = { "",	 "kvm",	  "qemu", NULL,	       "xen",	 "lxc",	   "hvf",
				       "vmware", "bhyve", "vz",	  "test",      "openvz", "hyperv", "vbox",
				       "kqemu",	 "uml",	  "phyp", "parallels", NULL };
static const char *const action_names[] = { "", "destroy", "restart", "rename-restart", "preserve", NULL, NULL };
static const char *const crash_names[] = { "",	       "destroy",	   "restart",	       "rename-restart",
					   "preserve", "coredump-destroy", "coredump-restart", NULL,
					   NULL };
static const char *const lockfailure_names[] = { "", "poweroff", "restart", "pause", "ignore", NULL, NULL };
static const char *const boot_names[] = { "", "fd", "hd", "cdrom", "network", NULL, NULL };
static const char *const firmware_names[] = { "", "bios", "efi", NULL, NULL };
static const char *const placement_names[] = { "", "static", "auto", NULL, NULL };
static const char *const cpu_mode_names[] = { "", "custom", "host-model", "host-passthrough", "maximum", NULL, NULL };
static const char *const cpu_match_names[] = { "", "minimum", "exact", "strict", NULL, NULL };
static const char *const cpu_check_names[] = { "", "none", "partial", "full", NULL, NULL };
static const char *const cpu_fallback_names[] = { "", "allow", "forbid", NULL, NULL };
static const char *const cpu_policy_names[] = { "", "force", "require", "optional", "disable", "forbid", NULL, NULL };
static const char *const cache_mode_names[] = { "", "emulate", "passthrough", "disable", NULL, NULL };
static const char *const clock_names[] = { "", "utc", "localtime", "variable", "timezone", "absolute", NULL, NULL };
static const char *const basis_names[] = { "", "utc", "localtime", NULL, NULL };
static const char *const timer_names[] = { "",	       "platform",    "pit",	   "rtc", "hpet", "tsc",
					   "kvmclock", "hypervclock", "armvtimer", NULL,  NULL };
static const char *const tick_names[] = { "", "delay", "catchup", "merge", "discard", NULL, NULL };
static const char *const numa_mode_names[] = { "", "strict", "preferred", "interleave", "restrictive", NULL, NULL };
static const char *const smbios_names[] = { "", "emulate", "host", "sysinfo", NULL, NULL };
static const char *const mem_source_names[] = { "", "file", "anonymous", "memfd", NULL, NULL };
static const char *const mem_access_names[] = { "", "shared", "private", NULL, NULL };
static const char *const mem_alloc_names[] = { "", "immediate", "ondemand", NULL, NULL };
static const char *const sched_names[] = { "", "batch", "idle", "fifo", "rr", NULL, NULL };

/* Words: first what Keel knows, then what only libvirt does. */
static const char *const sysinfo_types[] = { "", "smbios", "fwcfg", NULL, NULL };
static const char *const loader_types[] = { "", "rom", "pflash", NULL, NULL };
static const char *const physaddr_modes[] = { "", "passthrough", "emulate", NULL, NULL };
static const char *const tracks[] = { "", "guest", "wall", NULL, "boot", "realtime", NULL };
static const char *const timer_modes[] = { "", "auto", "native", "emulate", "paravirt", "smpsafe", NULL, NULL };
static const char *const seclabel_types[] = { "", "none", "dynamic", "static", NULL, NULL };
static const char *const events[] = { "",
				      "cmt",
				      "mbmt",
				      "mbml",
				      "cpu_cycles",
				      "instructions",
				      "cache_references",
				      "cache_misses",
				      "branch_instructions",
				      "branch_misses",
				      "bus_cycles",
				      "stalled_cycles_frontend",
				      "stalled_cycles_backend",
				      "ref_cpu_cycles",
				      "cpu_clock",
				      "task_clock",
				      "page_faults",
				      "context_switches",
				      "cpu_migrations",
				      "page_faults_min",
				      "page_faults_maj",
				      "alignment_faults",
				      "emulation_faults",
				      NULL,
				      NULL };

/* ---- Memory --------------------------------------------------------------- */

#define S dom_memory
static const struct xml_field memory_fields[] = {
	ATTR("dumpCore", dump_core, ONOFF),
	TEXT(kib, KIB, .flags = XML_ABI | XML_REQUIRED),
};
static const struct xml_field current_memory_fields[] = { TEXT(kib, KIB, REQUIRED) };
static const struct xml_field max_memory_fields[] = {
	ATTR("slots", slots, OPT32, .flags = XML_ABI | XML_REQUIRED),
	TEXT(kib, KIB, .flags = XML_ABI | XML_REQUIRED),
};
#undef S
static XML_TYPE(memory_xml, "memory", struct dom_memory, memory_fields);
static XML_TYPE(current_memory_xml, "currentMemory", struct dom_memory, current_memory_fields);
static XML_TYPE(max_memory_xml, "maxMemory", struct dom_memory, max_memory_fields);

#define S dom_hugepage
static const struct xml_field page_fields[] = { ATTR("size", size, KIB, REQUIRED), ATTR("nodeset", nodeset, STR) };
#undef S
static XML_TYPE(page_xml, "page", struct dom_hugepage, page_fields);
#define S dom_hugepages
static const struct xml_field hugepages_fields[] = { CHILDREN("page", pages, page_xml) };
#undef S
static XML_TYPE(hugepages_xml, "hugepages", struct dom_hugepages, hugepages_fields);
#define S dom_mem_allocation
static const struct xml_field allocation_fields[] = {
	ATTR_ENUM("mode", mode, mem_alloc_names),
	ATTR("threads", threads, OPT32),
};
#undef S
static XML_TYPE(allocation_xml, "allocation", struct dom_mem_allocation, allocation_fields);
#define S dom_membacking
static const struct xml_field membacking_fields[] = {
	CHILD("hugepages", hugepages, hugepages_xml, .flags = XML_KEEP_EMPTY),
	ELEM("nosharepages", nosharepages, BOOL),
	ELEM("locked", locked, BOOL),
	ELEM_ATTR_ENUM("source", "type", source, mem_source_names),
	ELEM_ATTR_ENUM("access", "mode", access, mem_access_names),
	CHILD("allocation", allocation, allocation_xml),
	ELEM("discard", discard, BOOL),
};
#undef S
static XML_TYPE(membacking_xml, "memoryBacking", struct dom_membacking, membacking_fields);

#define S dom_memtune
static const struct xml_field memtune_fields[] = {
	ELEM("hard_limit", hard_limit, OPTKIB),
	ELEM("soft_limit", soft_limit, OPTKIB),
	ELEM("min_guarantee", min_guarantee, OPTKIB),
	ELEM("swap_hard_limit", swap_hard_limit, OPTKIB),
};
#undef S
static XML_TYPE(memtune_xml, "memtune", struct dom_memtune, memtune_fields);

#define S dom_blkio_device
static const struct xml_field blkio_device_fields[] = {
	ELEM("path", path, STR, REQUIRED),
	ELEM("weight", weight, OPT32),
	ELEM("read_iops_sec", read_iops_sec, OPT32),
	ELEM("write_iops_sec", write_iops_sec, OPT32),
	ELEM("read_bytes_sec", read_bytes_sec, OPT64),
	ELEM("write_bytes_sec", write_bytes_sec, OPT64),
};
#undef S
static XML_TYPE(blkio_device_xml, "device", struct dom_blkio_device, blkio_device_fields);
#define S dom_blkiotune
static const struct xml_field blkiotune_fields[] = {
	ELEM("weight", weight, OPT32),
	CHILDREN("device", devices, blkio_device_xml),
};
#undef S
static XML_TYPE(blkiotune_xml, "blkiotune", struct dom_blkiotune, blkiotune_fields);

/* ---- vCPUs and threads ---------------------------------------------------- */

#define S dom_vcpu
static const struct xml_field vcpu_fields[] = {
	ATTR_ENUM("placement", placement, placement_names),
	ATTR("cpuset", cpuset, STR),
	ATTR("current", current, OPT32),
	TEXT(max, U32, .flags = XML_ABI | XML_REQUIRED | XML_NONZERO),
};
#undef S
static XML_TYPE(vcpu_xml, "vcpu", struct dom_vcpu, vcpu_fields);
#define S dom_vcpu_one
static const struct xml_field vcpu_one_fields[] = {
	ATTR("id", id, OPT32, REQUIRED),
	ATTR("enabled", enabled, YESNO),
	ATTR("hotpluggable", hotpluggable, YESNO),
	ATTR("order", order, OPT32),
};
#undef S
static XML_TYPE(vcpu_one_xml, "vcpu", struct dom_vcpu_one, vcpu_one_fields);
#define S dom_vcpus
static const struct xml_field vcpus_fields[] = { CHILDREN("vcpu", vcpu, vcpu_one_xml) };
#undef S
static XML_TYPE(vcpus_xml, "vcpus", struct dom_vcpus, vcpus_fields);

#define S dom_iothread
static const struct xml_field iothread_fields[] = {
	ATTR("id", id, U32, .flags = XML_REQUIRED | XML_NONZERO),
	ATTR("thread_pool_min", thread_pool_min, OPT32),
	ATTR("thread_pool_max", thread_pool_max, OPT32),
};
#undef S
static XML_TYPE(iothread_xml, "iothread", struct dom_iothread, iothread_fields);
#define S dom_iothreadids
static const struct xml_field iothreadids_fields[] = { CHILDREN("iothread", iothread, iothread_xml) };
#undef S
static XML_TYPE(iothreadids_xml, "iothreadids", struct dom_iothreadids, iothreadids_fields);

#define S dom_pin
static const struct xml_field vcpupin_fields[] = {
	ATTR("vcpu", vcpu, OPT32, REQUIRED),
	ATTR("cpuset", cpuset, STR, REQUIRED),
};
static const struct xml_field emulatorpin_fields[] = { ATTR("cpuset", cpuset, STR, REQUIRED) };
static const struct xml_field iothreadpin_fields[] = {
	ATTR("iothread", iothread, OPT32, REQUIRED),
	ATTR("cpuset", cpuset, STR, REQUIRED),
};
#undef S
static XML_TYPE(vcpupin_xml, "vcpupin", struct dom_pin, vcpupin_fields);
static XML_TYPE(emulatorpin_xml, "emulatorpin", struct dom_pin, emulatorpin_fields);
static XML_TYPE(iothreadpin_xml, "iothreadpin", struct dom_pin, iothreadpin_fields);
#define S dom_thread_sched
static const struct xml_field sched_fields[] = {
	ATTR("vcpus", vcpus, STR),
	ATTR("iothreads", iothreads, STR),
	ATTR_ENUM("scheduler", scheduler, sched_names, REQUIRED),
	ATTR("priority", priority, OPT32),
};
#undef S
static XML_TYPE(sched_xml, "sched", struct dom_thread_sched, sched_fields);
#define S dom_cputune
static const struct xml_field cputune_fields[] = {
	ELEM("shares", shares, OPT64),
	ELEM("period", period, OPT64),
	ELEM("quota", quota, OPTINT),
	ELEM("global_period", global_period, OPT64),
	ELEM("global_quota", global_quota, OPTINT),
	ELEM("emulator_period", emulator_period, OPT64),
	ELEM("emulator_quota", emulator_quota, OPTINT),
	ELEM("iothread_period", iothread_period, OPT64),
	ELEM("iothread_quota", iothread_quota, OPTINT),
	CHILDREN("vcpupin", vcpupin, vcpupin_xml),
	CHILD("emulatorpin", emulatorpin, emulatorpin_xml),
	CHILDREN("iothreadpin", iothreadpin, iothreadpin_xml),
	CHILD("emulatorsched", emulatorsched, sched_xml),
	CHILDREN("vcpusched", vcpusched, sched_xml),
	CHILDREN("iothreadsched", iothreadsched, sched_xml),
};
#undef S
static XML_TYPE(cputune_xml, "cputune", struct dom_cputune, cputune_fields);

#define S dom_numa_memory
static const struct xml_field numa_memory_fields[] = {
	ATTR_ENUM("mode", mode, numa_mode_names),
	ATTR("nodeset", nodeset, STR),
	ATTR_ENUM("placement", placement, placement_names),
};
#undef S
static XML_TYPE(numa_memory_xml, "memory", struct dom_numa_memory, numa_memory_fields);
#define S dom_memnode
static const struct xml_field memnode_fields[] = {
	ATTR("cellid", cellid, OPT32, REQUIRED),
	ATTR_ENUM("mode", mode, numa_mode_names),
	ATTR("nodeset", nodeset, STR, REQUIRED),
};
#undef S
static XML_TYPE(memnode_xml, "memnode", struct dom_memnode, memnode_fields);
#define S dom_numatune
static const struct xml_field numatune_fields[] = {
	CHILD("memory", memory, numa_memory_xml),
	CHILDREN("memnode", memnode, memnode_xml),
};
#undef S
static XML_TYPE(numatune_xml, "numatune", struct dom_numatune, numatune_fields);

#define S dom_resource
static const struct xml_field resource_fields[] = { ELEM("partition", partition, PATH) };
#undef S
static XML_TYPE(resource_xml, "resource", struct dom_resource, resource_fields);

/* ---- SMBIOS, boot --------------------------------------------------------- */

#define S dom_sysinfo_entry
static const struct xml_field entry_fields[] = {
	ATTR("name", name, STR, ABI),
	ATTR("file", file, STR, ABI),
	TEXT(value, STR, ABI),
};
#undef S
static XML_TYPE(entry_xml, "entry", struct dom_sysinfo_entry, entry_fields);
#define S dom_sysinfo_block
static const struct xml_field block_fields[] = { CHILDREN("entry", entry, entry_xml, ABI) };
#undef S
static XML_TYPE(block_xml, "sysinfo", struct dom_sysinfo_block, block_fields);
#define S dom_sysinfo
static const struct xml_field sysinfo_fields[] = {
	ATTR_WORD("type", type, sysinfo_types, .flags = XML_ABI | XML_REQUIRED),
	CHILD("bios", bios, block_xml, ABI),
	CHILD("system", system, block_xml, ABI),
	CHILDREN("baseBoard", baseboard, block_xml, ABI),
	CHILD("chassis", chassis, block_xml, ABI),
	CHILD("oemStrings", oem_strings, block_xml, ABI),
	CHILDREN("entry", fwcfg, entry_xml, ABI),
};
#undef S
static XML_TYPE(sysinfo_xml, "sysinfo", struct dom_sysinfo, sysinfo_fields);

#define S dom_os_type
static const struct xml_field os_type_fields[] = {
	ATTR("arch", arch, STR, ABI),
	ATTR("machine", machine, NAME, ABI),
	TEXT(text, STR, ABI),
};
#undef S
static XML_TYPE(os_type_xml, "type", struct dom_os_type, os_type_fields);
#define S dom_loader
static const struct xml_field loader_fields[] = {
	ATTR("readonly", readonly, YESNO),
	ATTR("secure", secure, YESNO),
	ATTR_WORD("type", type, loader_types),
	ATTR("stateless", stateless, YESNO),
	TEXT(path, PATH),
};
#undef S
static XML_TYPE(loader_xml, "loader", struct dom_loader, loader_fields);
#define S dom_nvram
static const struct xml_field nvram_fields[] = { ATTR("template", template_path, PATH), TEXT(path, PATH) };
#undef S
static XML_TYPE(nvram_xml, "nvram", struct dom_nvram, nvram_fields);
#define S dom_bootdev
static const struct xml_field bootdev_fields[] = { ATTR_ENUM("dev", dev, boot_names, REQUIRED) };
#undef S
static XML_TYPE(bootdev_xml, "boot", struct dom_bootdev, bootdev_fields);
#define S dom_bootmenu
static const struct xml_field bootmenu_fields[] = {
	ATTR("enable", enable, YESNO),
	ATTR("timeout", timeout, OPT32),
};
#undef S
static XML_TYPE(bootmenu_xml, "bootmenu", struct dom_bootmenu, bootmenu_fields);
#define S dom_bios
static const struct xml_field bios_fields[] = {
	ATTR("useserial", useserial, YESNO),
	ATTR("rebootTimeout", reboot_timeout, OPTINT),
};
#undef S
static XML_TYPE(bios_xml, "bios", struct dom_bios, bios_fields);
#define S dom_fw_feature
static const struct xml_field fw_feature_fields[] = {
	ATTR("enabled", enabled, YESNO, REQUIRED),
	ATTR("name", name, STR, REQUIRED),
};
#undef S
static XML_TYPE(fw_feature_xml, "feature", struct dom_fw_feature, fw_feature_fields);
#define S dom_fw
static const struct xml_field fw_fields[] = { CHILDREN("feature", feature, fw_feature_xml) };
#undef S
static XML_TYPE(fw_xml, "firmware", struct dom_fw, fw_fields);
#define S dom_os
static const struct xml_field os_fields[] = {
	ATTR_ENUM("firmware", firmware_auto, firmware_names),
	CHILD("type", type, os_type_xml, .flags = XML_ABI | XML_REQUIRED),
	CHILD("firmware", firmware, fw_xml),
	CHILD("loader", loader, loader_xml),
	CHILD("nvram", nvram, nvram_xml),
	ELEM("kernel", kernel, PATH),
	ELEM("initrd", initrd, PATH),
	ELEM("cmdline", cmdline, STR),
	CHILDREN("boot", boot, bootdev_xml),
	CHILD("bootmenu", bootmenu, bootmenu_xml),
	ELEM_ATTR_ENUM("smbios", "mode", smbios, smbios_names, ABI),
	CHILD("bios", bios, bios_xml),
};
#undef S
static XML_TYPE(os_xml, "os", struct dom_os, os_fields);

/* ---- Features, CPU -------------------------------------------------------- */

#define S dom_apic
static const struct xml_field apic_fields[] = { ATTR("eoi", eoi, ONOFF, ABI) };
#undef S
static XML_TYPE(apic_xml, "apic", struct dom_apic, apic_fields);
#define S dom_features_kvm
static const struct xml_field kvm_fields[] = {
	ELEM_ATTR("hidden", "state", hidden, ONOFF, ABI),
	ELEM_ATTR("hint-dedicated", "state", hint_dedicated, ONOFF, ABI),
	ELEM_ATTR("poll-control", "state", poll_control, ONOFF, ABI),
	ELEM_ATTR("pv-ipi", "state", pv_ipi, ONOFF, ABI),
};
#undef S
static XML_TYPE(kvm_xml, "kvm", struct dom_features_kvm, kvm_fields);
#define S dom_features
static const struct xml_field features_fields[] = {
	ELEM("acpi", acpi, BOOL, ABI),
	CHILD("apic", apic, apic_xml, .flags = XML_ABI | XML_KEEP_EMPTY),
	ELEM("pae", pae, BOOL, ABI),
	ELEM_ATTR("hap", "state", hap, ONOFF, ABI),
	ELEM("viridian", viridian, BOOL, ABI),
	ELEM("privnet", privnet, BOOL, ABI),
	CHILD("kvm", kvm, kvm_xml, ABI),
	ELEM_ATTR("pvspinlock", "state", pvspinlock, ONOFF, ABI),
	ELEM_ATTR("pmu", "state", pmu, ONOFF, ABI),
	ELEM_ATTR("vmport", "state", vmport, ONOFF, ABI),
	ELEM_ATTR("smm", "state", smm, ONOFF, ABI),
};
#undef S
static XML_TYPE(features_xml, "features", struct dom_features, features_fields);

#define S dom_topology
static const struct xml_field topology_fields[] = {
	ATTR("sockets", sockets, U32, .flags = XML_ABI | XML_REQUIRED | XML_NONZERO),
	ATTR("dies", dies, U32, .flags = XML_ABI | XML_NONZERO),
	ATTR("cores", cores, U32, .flags = XML_ABI | XML_REQUIRED | XML_NONZERO),
	ATTR("threads", threads, U32, .flags = XML_ABI | XML_REQUIRED | XML_NONZERO),
};
#undef S
static XML_TYPE(topology_xml, "topology", struct dom_topology, topology_fields);
#define S dom_cpu_feature
static const struct xml_field cpu_feature_fields[] = {
	ATTR_ENUM("policy", policy, cpu_policy_names, ABI),
	ATTR("name", name, STR, .flags = XML_ABI | XML_REQUIRED),
};
#undef S
static XML_TYPE(cpu_feature_xml, "feature", struct dom_cpu_feature, cpu_feature_fields);
#define S dom_cpu_model
static const struct xml_field cpu_model_fields[] = {
	ATTR_ENUM("fallback", fallback, cpu_fallback_names),
	ATTR("vendor_id", vendor_id, STR, ABI),
	TEXT(name, STR, ABI),
};
#undef S
static XML_TYPE(cpu_model_xml, "model", struct dom_cpu_model, cpu_model_fields);
#define S dom_cpu_cache
static const struct xml_field cpu_cache_fields[] = {
	ATTR("level", level, OPT32, ABI),
	ATTR_ENUM("mode", mode, cache_mode_names, .flags = XML_ABI | XML_REQUIRED),
};
#undef S
static XML_TYPE(cpu_cache_xml, "cache", struct dom_cpu_cache, cpu_cache_fields);
#define S dom_maxphysaddr
static const struct xml_field maxphysaddr_fields[] = {
	ATTR_WORD("mode", mode, physaddr_modes, .flags = XML_ABI | XML_REQUIRED),
	ATTR("bits", bits, OPT32, ABI),
};
#undef S
static XML_TYPE(maxphysaddr_xml, "maxphysaddr", struct dom_maxphysaddr, maxphysaddr_fields);
#define S dom_numa_sibling
static const struct xml_field sibling_fields[] = { ATTR("id", id, OPT32, ABI), ATTR("value", value, OPT32, ABI) };
#undef S
static XML_TYPE(sibling_xml, "sibling", struct dom_numa_sibling, sibling_fields);
#define S dom_numa_distances
static const struct xml_field distances_fields[] = { CHILDREN("sibling", sibling, sibling_xml, ABI) };
#undef S
static XML_TYPE(distances_xml, "distances", struct dom_numa_distances, distances_fields);
#define S dom_numa_cell
static const struct xml_field cell_fields[] = {
	ATTR("id", id, OPT32, ABI),
	ATTR("cpus", cpus, STR, ABI),
	ATTR("memory", kib, KIB, .flags = XML_ABI | XML_REQUIRED),
	ATTR_ENUM("memAccess", mem_access, mem_access_names),
	ATTR("discard", discard, YESNO),
	CHILD("distances", distances, distances_xml, ABI),
};
#undef S
static XML_TYPE(cell_xml, "cell", struct dom_numa_cell, cell_fields);
#define S dom_cpu_numa
static const struct xml_field numa_fields[] = { CHILDREN("cell", cell, cell_xml, ABI) };
#undef S
static XML_TYPE(numa_xml, "numa", struct dom_cpu_numa, numa_fields);
#define S dom_cpu
static const struct xml_field cpu_fields[] = {
	ATTR_ENUM("mode", mode, cpu_mode_names, ABI),
	ATTR_ENUM("match", match, cpu_match_names),
	ATTR_ENUM("check", check, cpu_check_names),
	ATTR("migratable", migratable, ONOFF, ABI),
	CHILD("model", model, cpu_model_xml, ABI),
	ELEM("vendor", vendor, STR, ABI),
	CHILD("topology", topology, topology_xml, ABI),
	CHILD("cache", cache, cpu_cache_xml, ABI),
	CHILD("maxphysaddr", maxphysaddr, maxphysaddr_xml, ABI),
	CHILDREN("feature", feature, cpu_feature_xml, ABI),
	CHILD("numa", numa, numa_xml, ABI),
};
#undef S
XML_TYPE(dom_cpu_xml, "cpu", struct dom_cpu, cpu_fields);

/* ---- Time, power ---------------------------------------------------------- */

#define S dom_catchup
static const struct xml_field catchup_fields[] = {
	ATTR("threshold", threshold, OPT32),
	ATTR("slew", slew, OPT32),
	ATTR("limit", limit, OPT32),
};
#undef S
static XML_TYPE(catchup_xml, "catchup", struct dom_catchup, catchup_fields);
#define S dom_timer
static const struct xml_field timer_fields[] = {
	ATTR_ENUM("name", name, timer_names, .flags = XML_ABI | XML_REQUIRED),
	ATTR("present", present, YESNO, ABI),
	ATTR_ENUM("tickpolicy", tickpolicy, tick_names),
	ATTR_WORD("track", track, tracks),
	ATTR("frequency", frequency, OPT64, ABI),
	ATTR_WORD("mode", mode, timer_modes, ABI),
	CHILD("catchup", catchup, catchup_xml),
};
#undef S
static XML_TYPE(timer_xml, "timer", struct dom_timer, timer_fields);
#define S dom_clock_def
static const struct xml_field clock_fields[] = {
	ATTR_ENUM("offset", offset, clock_names),
	ATTR("adjustment", adjustment, STR),
	ATTR_ENUM("basis", basis, basis_names),
	ATTR("timezone", timezone, STR),
	ATTR("start", start, OPT64),
	CHILDREN("timer", timer, timer_xml, ABI),
};
#undef S
static XML_TYPE(clock_xml, "clock", struct dom_clock_def, clock_fields);
#define S dom_pm
static const struct xml_field pm_fields[] = {
	ELEM_ATTR("suspend-to-mem", "enabled", suspend_to_mem, YESNO),
	ELEM_ATTR("suspend-to-disk", "enabled", suspend_to_disk, YESNO),
};
#undef S
static XML_TYPE(pm_xml, "pm", struct dom_pm, pm_fields);
#define S dom_perf_event
static const struct xml_field event_fields[] = {
	ATTR_WORD("name", name, events, REQUIRED),
	ATTR("enabled", enabled, YESNO, REQUIRED),
};
#undef S
static XML_TYPE(event_xml, "event", struct dom_perf_event, event_fields);
#define S dom_perf
static const struct xml_field perf_fields[] = { CHILDREN("event", event, event_xml) };
#undef S
static XML_TYPE(perf_xml, "perf", struct dom_perf, perf_fields);

#define S dom_seclabel
static const struct xml_field seclabel_fields[] = {
	ATTR_WORD("type", type, seclabel_types),   ATTR("model", model, NAME),
	ATTR("relabel", relabel, YESNO),	   ELEM("label", label, STR),
	ELEM("imagelabel", imagelabel, STR, LIVE), ELEM("baselabel", baselabel, STR),
};
#undef S
XML_TYPE(dom_seclabel_xml, "seclabel", struct dom_seclabel, seclabel_fields);

/* ---- The whole ------------------------------------------------------------ */

#define S dom_devices
static const struct xml_field devices_fields[] = {
	ELEM("emulator", emulator, PATH),
	CHILDREN("disk", disk, dom_disk_xml, ABI),
	CHILDREN("controller", controller, dom_controller_xml, ABI),
	CHILDREN("filesystem", filesystem, dom_filesystem_xml, ABI),
	CHILDREN("interface", interface, dom_interface_xml, ABI),
	CHILDREN("serial", serial, dom_serial_xml, ABI),
	CHILDREN("parallel", parallel, dom_parallel_xml, ABI),
	CHILDREN("console", console, dom_console_xml, ABI),
	CHILDREN("channel", channel, dom_channel_xml, ABI),
	CHILDREN("input", input, dom_input_xml, ABI),
	CHILDREN("tpm", tpm, dom_tpm_xml, ABI),
	CHILDREN("audio", audio, dom_audio_xml),
	CHILDREN("hostdev", hostdev, dom_hostdev_xml, ABI),
	CHILDREN("watchdog", watchdog, dom_watchdog_xml, ABI),
	CHILD("memballoon", memballoon, dom_memballoon_xml, ABI),
	CHILDREN("rng", rng, dom_rng_xml, ABI),
	CHILDREN("panic", panic, dom_panic_xml, ABI),
	CHILDREN("memory", memory, dom_memdev_xml, ABI),
	CHILD("iommu", iommu, dom_iommu_xml, ABI),
	CHILD("vsock", vsock, dom_vsock_xml, ABI),
};
#undef S
XML_TYPE(dom_devices_xml, "devices", struct dom_devices, devices_fields);

#define S dom_genid
static const struct xml_field genid_fields[] = { TEXT(uuid, UUID, ABI) };
#undef S
static XML_TYPE(genid_xml, "genid", struct dom_genid, genid_fields);

#define S domain
static const struct xml_field domain_fields[] = {
	ATTR_ENUM("type", type, dom_virt_names, .flags = XML_ABI | XML_REQUIRED),
	ATTR("id", id, OPT32, LIVE),
	ELEM("name", name, STR, ABI),
	ELEM("uuid", uuid, UUID, ABI),
	CHILD("genid", genid, genid_xml, .flags = XML_ABI | XML_KEEP_EMPTY),
	ELEM("title", title, STR),
	ELEM("description", description, STR),
	{ .name = "metadata", .offset = XML_AT(domain, metadata), .place = XML_RAW },
	CHILD("maxMemory", max_memory, max_memory_xml, ABI),
	CHILD("memory", memory, memory_xml, ABI),
	CHILD("currentMemory", current_memory, current_memory_xml),
	CHILD("blkiotune", blkiotune, blkiotune_xml),
	CHILD("memtune", memtune, memtune_xml),
	CHILD("memoryBacking", memory_backing, membacking_xml),
	CHILD("vcpu", vcpu, vcpu_xml, ABI),
	CHILD("vcpus", vcpus, vcpus_xml),
	ELEM("iothreads", iothreads, U32),
	CHILD("iothreadids", iothreadids, iothreadids_xml),
	CHILD("cputune", cputune, cputune_xml),
	CHILD("numatune", numatune, numatune_xml),
	CHILD("resource", resource, resource_xml),
	CHILDREN("sysinfo", sysinfo, sysinfo_xml, ABI),
	CHILD("os", os, os_xml, .flags = XML_ABI | XML_REQUIRED),
	CHILD("features", features, features_xml, ABI),
	CHILD("cpu", cpu, dom_cpu_xml, ABI),
	CHILD("clock", clock, clock_xml, ABI),
	ELEM_ENUM("on_poweroff", on_poweroff, action_names),
	ELEM_ENUM("on_reboot", on_reboot, action_names),
	ELEM_ENUM("on_crash", on_crash, crash_names),
	ELEM_ENUM("on_lockfailure", on_lockfailure, lockfailure_names),
	CHILD("pm", pm, pm_xml),
	CHILD("perf", perf, perf_xml),
	CHILD("devices", devices, dom_devices_xml, .flags = XML_ABI | XML_KEEP_EMPTY),
	CHILDREN("seclabel", seclabel, dom_seclabel_xml),
};
#undef S
XML_TYPE(domain_xml, "domain", struct domain, domain_fields);
