/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest's definition: libvirt's domain XML as C structs.
 *
 * The structs have the shape of the XML: an element is a struct, an attribute
 * or a plain text element is a member. What is absent is NULL, 0 (enums start
 * at 1, tristates at TRI_NO) or has `set` false. Strings, child structs and
 * list members are malloced one by one and belong to what points to them, so
 * members may be replaced (free the old one, strdup the new one). The tables
 * in domain_*.c describe all of it; parsing, formatting, copying, comparing
 * and freeing walk these tables.
 *
 * Errors: struct err, whose code says which of libvirt's errors it is, see
 * model_vir_code(). Messages are libvirt's, without the prefix that libvirt
 * puts before them by code ("XML error: ", "unsupported configuration: ").
 *
 * Thread safety: none of its own; a definition may be read by many threads
 * while nobody changes it.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/devices.h"
#include "util/err.h"

/* ---- Errors --------------------------------------------------------------- */

/*
 * virErrorNumber for a failure reported by this folder:
 *   EBADMSG  35 VIR_ERR_XML_DETAIL           not well-formed; the message is complete, no prefix
 *   EINVAL   27 VIR_ERR_XML_ERROR            "XML error: %s"
 *   ENOTSUP  67 VIR_ERR_CONFIG_UNSUPPORTED   "unsupported configuration: %s"
 *   EEXIST   55 VIR_ERR_OPERATION_INVALID    "Requested operation is not valid: %s"
 *   ENODEV   99 VIR_ERR_DEVICE_MISSING       "device not found: %s"
 *   ENODATA  80 VIR_ERR_NO_DOMAIN_METADATA   "metadata not found: %s"
 *   ENOENT    8 VIR_ERR_INVALID_ARG          "invalid argument: %s"
 *   ESRCH     9 VIR_ERR_OPERATION_FAILED     "operation failed: %s"
 *   EPERM    84 VIR_ERR_OPERATION_UNSUPPORTED "Operation not supported: %s"
 *   ENOMEM    2 VIR_ERR_NO_MEMORY            "out of memory: %s"
 *   EOVERFLOW 82 VIR_ERR_OVERFLOW            "numerical overflow: %s"
 *   EILSEQ   92 VIR_ERR_XML_INVALID_SCHEMA   the message is complete
 *   EDOM     21 VIR_ERR_NO_NAME              "missing name information"
 *   ENOLINK  19 VIR_ERR_NO_SOURCE            "missing source information for device %s"
 *   EADDRNOTAVAIL 20 VIR_ERR_NO_TARGET       "missing target information for device %s"
 *   ENOEXEC  91 VIR_ERR_CPU_INCOMPATIBLE     "the CPU is incompatible with host CPU: %s"
 *   else      1 VIR_ERR_INTERNAL_ERROR       "internal error: %s"
 */
int model_vir_code(const struct err *err);
/* The message with libvirt's prefix for its code, in `text`. */
const char *model_vir_message(const struct err *err, char text[640]);

/* ---- Enums ---------------------------------------------------------------- */

enum dom_virt { DOM_VIRT_KVM = 1, DOM_VIRT_QEMU };
enum dom_action {
	DOM_ACTION_DESTROY = 1,
	DOM_ACTION_RESTART,
	DOM_ACTION_RENAME_RESTART,
	DOM_ACTION_PRESERVE,
	DOM_ACTION_COREDUMP_DESTROY, /* on_crash only */
	DOM_ACTION_COREDUMP_RESTART, /* on_crash only */
};
enum dom_boot_dev { DOM_BOOT_FD = 1, DOM_BOOT_HD, DOM_BOOT_CDROM, DOM_BOOT_NETWORK };
enum dom_firmware { DOM_FIRMWARE_BIOS = 1, DOM_FIRMWARE_EFI };
enum dom_placement { DOM_PLACEMENT_STATIC = 1, DOM_PLACEMENT_AUTO };
enum dom_cpu_mode { DOM_CPU_CUSTOM = 1, DOM_CPU_HOST_MODEL, DOM_CPU_HOST_PASSTHROUGH, DOM_CPU_MAXIMUM };
enum dom_cpu_match { DOM_CPU_MINIMUM = 1, DOM_CPU_EXACT, DOM_CPU_STRICT };
enum dom_cpu_check { DOM_CPU_CHECK_NONE = 1, DOM_CPU_CHECK_PARTIAL, DOM_CPU_CHECK_FULL };
enum dom_cpu_fallback { DOM_CPU_ALLOW = 1, DOM_CPU_FORBID };
enum dom_cpu_policy { DOM_CPU_FORCE = 1, DOM_CPU_REQUIRE, DOM_CPU_OPTIONAL, DOM_CPU_DISABLE, DOM_CPU_POLICY_FORBID };
enum dom_cache_mode { DOM_CACHE_EMULATE = 1, DOM_CACHE_PASSTHROUGH, DOM_CACHE_DISABLE };
enum dom_clock { DOM_CLOCK_UTC = 1, DOM_CLOCK_LOCALTIME, DOM_CLOCK_VARIABLE, DOM_CLOCK_TIMEZONE, DOM_CLOCK_ABSOLUTE };
enum dom_clock_basis { DOM_BASIS_UTC = 1, DOM_BASIS_LOCALTIME };
enum dom_timer_name {
	DOM_TIMER_PLATFORM = 1,
	DOM_TIMER_PIT,
	DOM_TIMER_RTC,
	DOM_TIMER_HPET,
	DOM_TIMER_TSC,
	DOM_TIMER_KVMCLOCK,
	DOM_TIMER_HYPERVCLOCK,
	DOM_TIMER_ARMVTIMER,
};
enum dom_tick_policy { DOM_TICK_DELAY = 1, DOM_TICK_CATCHUP, DOM_TICK_MERGE, DOM_TICK_DISCARD };
enum dom_numa_mode { DOM_NUMA_STRICT = 1, DOM_NUMA_PREFERRED, DOM_NUMA_INTERLEAVE, DOM_NUMA_RESTRICTIVE };
enum dom_smbios { DOM_SMBIOS_EMULATE = 1, DOM_SMBIOS_HOST, DOM_SMBIOS_SYSINFO };
enum dom_mem_source { DOM_MEM_FILE = 1, DOM_MEM_ANONYMOUS, DOM_MEM_MEMFD };
enum dom_mem_access { DOM_MEM_SHARED = 1, DOM_MEM_PRIVATE };
enum dom_mem_alloc { DOM_MEM_IMMEDIATE = 1, DOM_MEM_ONDEMAND };
enum dom_sched { DOM_SCHED_BATCH = 1, DOM_SCHED_IDLE, DOM_SCHED_FIFO, DOM_SCHED_RR };
enum dom_lock_failure { DOM_LOCK_POWEROFF = 1, DOM_LOCK_RESTART, DOM_LOCK_PAUSE, DOM_LOCK_IGNORE };

/* ---- Parts of <domain> ---------------------------------------------------- */

struct dom_memory { /* <memory>, <currentMemory>, <maxMemory>: any unit comes in, KiB goes out */
	uint64_t kib;
	enum tristate dump_core; /* on|off; <memory> only */
	struct opt32 slots;      /* <maxMemory> only */
};

struct dom_hugepage {
	uint64_t size; /* KiB */
	char *nodeset;
};
struct dom_hugepages {
	LIST(struct dom_hugepage) pages;
};
struct dom_mem_allocation {
	enum dom_mem_alloc mode;
	struct opt32 threads;
};
struct dom_membacking {
	struct dom_hugepages *hugepages;
	bool nosharepages, locked, discard;
	enum dom_mem_source source; /* <source type=.../> */
	enum dom_mem_access access; /* <access mode=.../> */
	struct dom_mem_allocation *allocation;
};

struct dom_memtune {
	struct opt64 hard_limit, soft_limit, min_guarantee, swap_hard_limit; /* KiB */
};

struct dom_blkio_device {
	char *path;
	struct opt32 weight, read_iops_sec, write_iops_sec;
	struct opt64 read_bytes_sec, write_bytes_sec;
};
struct dom_blkiotune {
	struct opt32 weight;
	LIST(struct dom_blkio_device) devices;
};

struct dom_vcpu { /* <vcpu> */
	uint32_t max;
	struct opt32 current;
	enum dom_placement placement;
	char *cpuset;
};
struct dom_vcpu_one { /* <vcpus><vcpu> */
	struct opt32 id, order;
	enum tristate enabled, hotpluggable;
};
struct dom_vcpus {
	LIST(struct dom_vcpu_one) vcpu;
};

struct dom_iothread {
	uint32_t id;
	struct opt32 thread_pool_min, thread_pool_max;
};
struct dom_iothreadids {
	LIST(struct dom_iothread) iothread;
};

struct dom_pin { /* vcpupin, iothreadpin: which thread; emulatorpin: no number */
	struct opt32 vcpu, iothread;
	char *cpuset;
};
struct dom_thread_sched {
	char *vcpus, *iothreads;
	enum dom_sched scheduler;
	struct opt32 priority;
};
struct dom_cputune {
	struct opt64 shares;
	struct opt64 period, global_period, emulator_period, iothread_period;
	struct optint quota, global_quota, emulator_quota, iothread_quota;
	LIST(struct dom_pin) vcpupin;
	struct dom_pin *emulatorpin;
	LIST(struct dom_pin) iothreadpin;
	LIST(struct dom_thread_sched) vcpusched, iothreadsched;
	struct dom_thread_sched *emulatorsched;
};

struct dom_numa_memory {
	enum dom_numa_mode mode;
	char *nodeset;
	enum dom_placement placement;
};
struct dom_memnode {
	struct opt32 cellid;
	enum dom_numa_mode mode;
	char *nodeset;
};
struct dom_numatune {
	struct dom_numa_memory *memory;
	LIST(struct dom_memnode) memnode;
};

struct dom_resource {
	char *partition;
};

struct dom_sysinfo_entry {
	char *name, *file, *value;
};
struct dom_sysinfo_block { /* bios, system, baseBoard, chassis, oemStrings */
	LIST(struct dom_sysinfo_entry) entry;
};
struct dom_sysinfo {
	char *type; /* "smbios", "fwcfg" */
	struct dom_sysinfo_block *bios, *system;
	LIST(struct dom_sysinfo_block) baseboard;
	struct dom_sysinfo_block *chassis, *oem_strings;
	LIST(struct dom_sysinfo_entry) fwcfg;
};

struct dom_os_type { /* <type>: always "hvm" */
	char *arch;    /* "x86_64" */
	char *machine; /* canonical after domain_fill(): "pc-q35-7.2", "microvm" */
	char *text;    /* "hvm" */
};
struct dom_loader {
	enum tristate readonly; /* yes|no */
	char *type;             /* "rom", "pflash" */
	enum tristate secure, stateless;
	char *path;
};
struct dom_nvram {
	char *template_path;
	char *path;
};
struct dom_bootdev {
	enum dom_boot_dev dev;
};
struct dom_bootmenu {
	enum tristate enable;
	struct opt32 timeout; /* ms */
};
struct dom_bios {
	enum tristate useserial;
	struct optint reboot_timeout; /* ms; -1: never */
};
struct dom_fw_feature {
	enum tristate enabled;
	char *name;
};
struct dom_fw {
	LIST(struct dom_fw_feature) feature;
};
struct dom_os {
	enum dom_firmware firmware_auto; /* <os firmware=...> */
	struct dom_os_type *type;
	struct dom_fw *firmware;
	struct dom_loader *loader;
	struct dom_nvram *nvram;
	char *kernel, *initrd, *cmdline;
	LIST(struct dom_bootdev) boot;
	struct dom_bootmenu *bootmenu;
	enum dom_smbios smbios; /* <smbios mode=.../> */
	struct dom_bios *bios;
};

struct dom_apic {
	enum tristate eoi; /* on|off */
};
struct dom_features_kvm { /* each <X state='on|off'/> */
	enum tristate hidden, hint_dedicated, poll_control, pv_ipi;
};
struct dom_features {
	bool pae, acpi, viridian, privnet;
	struct dom_apic *apic; /* NULL: none */
	struct dom_features_kvm *kvm;
	enum tristate hap, pvspinlock, pmu, vmport, smm; /* each <X state='on|off'/> */
};

struct dom_topology {
	uint32_t sockets, dies, cores, threads; /* dies 0: not given */
};
struct dom_cpu_feature {
	enum dom_cpu_policy policy;
	char *name;
};
struct dom_cpu_model {
	enum dom_cpu_fallback fallback;
	char *vendor_id;
	char *name;
};
struct dom_cpu_cache {
	struct opt32 level;
	enum dom_cache_mode mode;
};
struct dom_maxphysaddr {
	char *mode; /* "passthrough", "emulate" */
	struct opt32 bits;
};
struct dom_numa_sibling {
	struct opt32 id, value;
};
struct dom_numa_distances {
	LIST(struct dom_numa_sibling) sibling;
};
struct dom_numa_cell {
	struct opt32 id;
	char *cpus;
	uint64_t kib; /* memory=, unit= */
	enum dom_mem_access mem_access;
	enum tristate discard;
	struct dom_numa_distances *distances;
};
struct dom_cpu_numa {
	LIST(struct dom_numa_cell) cell;
};
struct dom_cpu {
	enum dom_cpu_mode mode;
	enum dom_cpu_match match;
	enum dom_cpu_check check;
	enum tristate migratable; /* on|off */
	struct dom_cpu_model *model;
	char *vendor;
	struct dom_topology *topology;
	struct dom_cpu_cache *cache;
	struct dom_maxphysaddr *maxphysaddr;
	LIST(struct dom_cpu_feature) feature;
	struct dom_cpu_numa *numa;
};

struct dom_catchup {
	struct opt32 threshold, slew, limit;
};
struct dom_timer {
	enum dom_timer_name name;
	char *track; /* "guest", "wall" */
	enum dom_tick_policy tickpolicy;
	enum tristate present; /* yes|no */
	struct opt64 frequency;
	char *mode;
	struct dom_catchup *catchup;
};
struct dom_clock_def {
	enum dom_clock offset;
	char *adjustment; /* seconds; "reset" for utc and localtime */
	enum dom_clock_basis basis;
	char *timezone;
	struct opt64 start; /* absolute: Unix seconds */
	LIST(struct dom_timer) timer;
};

struct dom_pm { /* each <X enabled='yes|no'/> */
	enum tristate suspend_to_mem, suspend_to_disk;
};
struct dom_perf_event {
	char *name;
	enum tristate enabled;
};
struct dom_perf {
	LIST(struct dom_perf_event) event;
};

struct dom_seclabel {
	char *type; /* "dynamic", "static", "none" */
	char *model;
	enum tristate relabel; /* yes|no */
	char *label, *imagelabel, *baselabel;
};

struct dom_devices {
	char *emulator;
	LIST(struct dom_disk) disk;
	LIST(struct dom_controller) controller;
	LIST(struct dom_filesystem) filesystem;
	LIST(struct dom_interface) interface;
	LIST(struct dom_chr) serial, parallel, console, channel;
	LIST(struct dom_input) input;
	LIST(struct dom_tpm) tpm;
	LIST(struct dom_audio) audio; /* nothing but type='none', id 1 */
	LIST(struct dom_hostdev) hostdev;
	LIST(struct dom_watchdog) watchdog;
	struct dom_memballoon *memballoon;
	LIST(struct dom_rng) rng;
	LIST(struct dom_panic) panic;
	LIST(struct dom_memdev) memory;
	struct dom_iommu *iommu;
	struct dom_vsock *vsock;
};

struct domain {
	enum dom_virt type;
	struct opt32 id; /* of a running guest: set by who starts it, never parsed unless DOMAIN_PARSE_STATUS */
	char *name;
	struct opt_uuid uuid;
	struct dom_genid *genid;
	char *title, *description;
	char *metadata; /* <metadata>...</metadata> byte for byte; see domain_metadata_get() */
	struct dom_memory *max_memory, *memory, *current_memory;
	struct dom_blkiotune *blkiotune;
	struct dom_memtune *memtune;
	struct dom_membacking *memory_backing;
	struct dom_vcpu *vcpu;
	struct dom_vcpus *vcpus;
	uint32_t iothreads; /* count; 0: none */
	struct dom_iothreadids *iothreadids;
	struct dom_cputune *cputune;
	struct dom_numatune *numatune;
	struct dom_resource *resource;
	LIST(struct dom_sysinfo) sysinfo;
	struct dom_os *os;
	struct dom_features *features;
	struct dom_cpu *cpu;
	struct dom_clock_def *clock;
	enum dom_action on_poweroff, on_reboot, on_crash;
	enum dom_lock_failure on_lockfailure;
	struct dom_pm *pm;
	struct dom_perf *perf;
	struct dom_devices *devices;
	LIST(struct dom_seclabel) seclabel;
};
struct dom_genid {
	struct opt_uuid uuid; /* unset: to be made when the guest starts */
};

/* ---- What this host and this machine can do ------------------------------- */

/*
 * Told by the daemon; what isn't here is refused by name. domain_caps_init()
 * sets what keel-vmm of this build has.
 */
struct domain_caps {
	bool kvm, soft;       /* type 'kvm' and type 'qemu' can run here */
	const char *emulator; /* path of keel-vmm, the default <emulator>; stays the caller's */
	const char *firmware_bios, *firmware_efi; /* for loader and firmware='efi'; NULL: none */
	const char *nvram_dir;                    /* where generated NVRAM files are */
	bool privileged;
	uint64_t devices; /* 1 << enum dom_feature */
};
enum dom_feature {
	DOM_CAN_VIRTIO_BLK,
	DOM_CAN_VIRTIO_SCSI,
	DOM_CAN_SATA,
	DOM_CAN_CDROM,
	DOM_CAN_REMOTE_DISK, /* NBD, RBD, iSCSI */
	DOM_CAN_NET_USER,
	DOM_CAN_NET_TAP, /* bridge, network, ethernet */
	DOM_CAN_NET_DIRECT,
	DOM_CAN_VHOST_USER,
	DOM_CAN_VIRTIO_CONSOLE,
	DOM_CAN_VIRTIO_SERIAL_PORTS, /* channels, named ports */
	DOM_CAN_RNG,
	DOM_CAN_BALLOON,
	DOM_CAN_VSOCK,
	DOM_CAN_VIRTIO_FS,
	DOM_CAN_VIRTIO_INPUT,
	DOM_CAN_USB,
	DOM_CAN_GRAPHICS,
	DOM_CAN_WATCHDOG,
	DOM_CAN_TPM,
	DOM_CAN_HOSTDEV,
	DOM_CAN_MEMORY_HOTPLUG,
	DOM_CAN_IOMMU,
	DOM_CAN_MICROVM,
	DOM_CAN_NUMA,
	/* Not devices: */
	DOM_CAN_PIN,       /* cpuset, vcpupin, emulatorpin */
	DOM_CAN_TUNE,      /* cputune's shares and quotas, memtune, blkiotune, resource: cgroups */
	DOM_CAN_IOTHREADS,
	DOM_CAN_IOTUNE,    /* limits of disks */
	DOM_CAN_BANDWIDTH, /* limits of interfaces */
	DOM_CAN_SYSINFO,
	DOM_CAN_CLOCK,     /* offsets other than utc and localtime */
	DOM_CAN_TOPOLOGY,  /* other than one socket of single-threaded cores */
	DOM_CAN_HUGEPAGES,
	DOM_CAN_DISK_ERRORS, /* error_policy other than report */
	DOM_CAN_BOOTMENU,
	DOM_CAN_VCPU_HOTPLUG, /* fewer vCPUs than the maximum */
	DOM_CAN_GENID,
};
#define DOM_CAN(caps, what) ((caps)->devices >> DOM_CAN_##what & 1)
void domain_caps_init(struct domain_caps *caps);
/* The canonical name of the machine q35: that of the QEMU whose version keeld gives as its own. */
#define DOMAIN_Q35 "pc-q35-7.2"

/* ---- Definitions ---------------------------------------------------------- */

enum {
	DOMAIN_PARSE_STATUS = 1 << 0,     /* take <domain id=...> and aliases: our own live state file */
	DOMAIN_PARSE_SKIP_CHECK = 1 << 1, /* our own file: don't ask what the machine can do (but do fill) */
	DOMAIN_PARSE_VALIDATE = 1 << 2,   /* against libvirt's schema, if the host has it (virsh define --validate) */
	DOMAIN_PARSE_NO_FILL = 1 << 3,    /* no domain_fill() */
};
/*
 * Parse, check and fill. `xml` need not be trusted; 32 MiB at most. The result
 * is freed with domain_free(); NULL and err on failure.
 */
struct domain *domain_parse(const char *xml, unsigned flags, const struct domain_caps *caps, struct err *err);

enum {
	DOMAIN_FORMAT_LIVE = 1 << 0,     /* with id, aliases, ttys: the running guest */
	/* VIR_DOMAIN_XML_SECURE and _MIGRATABLE change nothing: no element that Keel takes holds a password. */
	DOMAIN_FORMAT_SECURE = 1 << 1,
	DOMAIN_FORMAT_MIGRATABLE = 1 << 2,
};
/*
 * The XML that libvirt would print, malloced; NULL only without memory. Without
 * DOMAIN_FORMAT_LIVE a running guest's names of ptys and of generated interfaces are left out, too.
 */
char *domain_format(const struct domain *def, unsigned flags);
struct domain *domain_copy(const struct domain *def); /* NULL only without memory */
void domain_free(struct domain *def);                 /* NULL is allowed */

/*
 * What libvirt fills in: UUID, canonical machine, PCI topology and addresses,
 * controllers, target names, MACs, memory balloon, console. Idempotent. Called
 * by domain_parse() and after every device change; 0 or a negative errno.
 */
int domain_fill(struct domain *def, const struct domain_caps *caps, struct err *err);
/* Aliases for every device that has none ("virtio-disk0", "net0", "ua-..."), as libvirt names them at start. */
int domain_fill_aliases(struct domain *def, struct err *err);
void domain_clear_aliases(struct domain *def); /* all but the user's own ("ua-...") */
/* What can't be honoured here, named: -ENOTSUP. Called by domain_parse(). */
int domain_check(const struct domain *def, const struct domain_caps *caps, struct err *err);
/* May a guest that was started (or saved) as `src` go on as `dst`? -ENOTSUP and libvirt's sentence if not. */
int domain_abi_check(const struct domain *src, const struct domain *dst, struct err *err);

const char *domain_virt_name(enum dom_virt type);
unsigned domain_vcpus_current(const struct domain *def);
uint64_t domain_memory_current(const struct domain *def); /* KiB */

/* ---- Devices of a definition, one at a time ------------------------------- */

/* A device by itself: <disk>...</disk>, as attach, detach and update give it. */
struct domain_device {
	enum dom_device_kind kind;
	void *dev; /* struct dom_disk *, struct dom_interface *, ... by kind */
};
/* `def` gives defaults (a disk's bus from its target, ...) and may be NULL. */
int domain_device_parse(const char *xml, unsigned flags, const struct domain *def, const struct domain_caps *caps,
			struct domain_device *dev, struct err *err);
char *domain_device_format(const struct domain_device *dev, unsigned flags);
void domain_device_free(struct domain_device *dev);
int domain_device_copy(const struct domain_device *dev, struct domain_device *copy);
/* The common part of a device; NULL for kinds without one. */
struct dom_info *domain_device_info(const struct domain_device *dev);

/*
 * The device of `def` that `dev` (from a client's XML) means, by libvirt's
 * rules: disks by target, interfaces by MAC and address, others by equality.
 * -ENODEV if there is none. `found` points into def.
 */
int domain_device_find(const struct domain *def, const struct domain_device *dev, struct domain_device *found,
		       struct err *err);
int domain_device_find_alias(const struct domain *def, const char *alias, struct domain_device *found,
			     struct err *err);
/* Put dev into def, which takes it (dev->dev becomes NULL); fills defaults. -EEXIST if the place is taken. */
int domain_device_attach(struct domain *def, struct domain_device *dev, const struct domain_caps *caps,
			 struct err *err);
/* Take dev->dev, which is in def, out of it; the caller has it then. Does not free it. */
int domain_device_detach(struct domain *def, const struct domain_device *dev, struct err *err);
/* Replace `old`, which is in def, by `dev`, which def takes. */
int domain_device_update(struct domain *def, const struct domain_device *old, struct domain_device *dev,
			 const struct domain_caps *caps, struct err *err);
/* Call fn for every device that has a dom_info, in the order of the XML; stops at and returns non-zero. */
int domain_device_each(const struct domain *def, int (*fn)(const struct domain_device *dev, void *opaque),
		       void *opaque);

/* ---- Metadata (virDomainGetMetadata, virDomainSetMetadata) ---------------- */

/* The child of <metadata> with this namespace, malloced, or NULL and -ENODATA in err. */
char *domain_metadata_get(const struct domain *def, const char *uri, struct err *err);
/* Replace it by `xml` (NULL: remove). `key` becomes the namespace prefix. */
int domain_metadata_set(struct domain *def, const char *xml, const char *key, const char *uri, struct err *err);
