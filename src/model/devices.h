/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The devices of a definition. Conventions: model/domain.h. */
#pragma once
#include "model/types.h"

/* In the order in which libvirt prints them. */
enum dom_device_kind {
	DOM_DEV_DISK = 1,
	DOM_DEV_CONTROLLER,
	DOM_DEV_FILESYSTEM,
	DOM_DEV_INTERFACE,
	DOM_DEV_SERIAL,
	DOM_DEV_PARALLEL,
	DOM_DEV_CONSOLE,
	DOM_DEV_CHANNEL,
	DOM_DEV_INPUT,
	DOM_DEV_TPM,
	DOM_DEV_HOSTDEV,
	DOM_DEV_WATCHDOG,
	DOM_DEV_MEMBALLOON,
	DOM_DEV_RNG,
	DOM_DEV_PANIC,
	DOM_DEV_MEMORY,
	DOM_DEV_IOMMU,
	DOM_DEV_VSOCK,
};
const char *dom_device_name(enum dom_device_kind kind); /* "disk", ... */

/* ---- What all have -------------------------------------------------------- */

enum dom_address_type {
	DOM_ADDRESS_PCI = 1,
	DOM_ADDRESS_DRIVE,
	DOM_ADDRESS_VIRTIO_SERIAL,
	DOM_ADDRESS_USB,
	DOM_ADDRESS_ISA,
	DOM_ADDRESS_VIRTIO_MMIO,
	DOM_ADDRESS_DIMM,
	DOM_ADDRESS_UNASSIGNED,
};
struct dom_address {
	enum dom_address_type type;
	/* pci */
	uint32_t domain, bus, slot, function; /* bus also: drive, virtio-serial, usb */
	enum tristate multifunction;          /* on|off */
	bool pci_set; /* false: type='pci' alone, domain_fill() finds the place */
	/* drive: controller, bus, target, unit; virtio-serial: controller, bus, port */
	uint32_t controller, target, unit, port;
	char *usb_port; /* "1.2" */
	uint64_t base;  /* dimm */
	uint32_t dimm_slot, iobase, irq;
};
struct dom_info {
	struct opt32 boot_order; /* <boot order='1'/> */
	char *alias;
	struct opt32 acpi_index;
	struct dom_address *address;
};

/* <driver> attributes that every virtio device has. */
struct dom_virtio {
	enum tristate iommu, ats, packed, page_per_vq; /* on|off */
};

/* ---- Disks ---------------------------------------------------------------- */

enum dom_disk_type { DOM_DISK_FILE = 1, DOM_DISK_BLOCK, DOM_DISK_DIR, DOM_DISK_NETWORK, DOM_DISK_VOLUME };
enum dom_disk_device { DOM_DISK_DISK = 1, DOM_DISK_CDROM, DOM_DISK_FLOPPY, DOM_DISK_LUN };
enum dom_disk_bus { DOM_BUS_IDE = 1, DOM_BUS_FDC, DOM_BUS_SCSI, DOM_BUS_VIRTIO, DOM_BUS_USB, DOM_BUS_SATA, DOM_BUS_SD };
enum dom_disk_cache {
	DOM_DISK_CACHE_DEFAULT = 1,
	DOM_DISK_CACHE_NONE,
	DOM_DISK_CACHE_WRITETHROUGH,
	DOM_DISK_CACHE_WRITEBACK,
	DOM_DISK_CACHE_DIRECTSYNC,
	DOM_DISK_CACHE_UNSAFE,
};
enum dom_disk_io { DOM_IO_NATIVE = 1, DOM_IO_THREADS, DOM_IO_URING };
enum dom_disk_error { DOM_ERROR_STOP = 1, DOM_ERROR_REPORT, DOM_ERROR_IGNORE, DOM_ERROR_ENOSPACE };
enum dom_discard { DOM_DISCARD_UNMAP = 1, DOM_DISCARD_IGNORE };
enum dom_zeroes { DOM_ZEROES_OFF = 1, DOM_ZEROES_ON, DOM_ZEROES_UNMAP };
enum dom_snapshot { DOM_SNAPSHOT_NO = 1, DOM_SNAPSHOT_INTERNAL, DOM_SNAPSHOT_EXTERNAL };
enum dom_startup { DOM_STARTUP_MANDATORY = 1, DOM_STARTUP_REQUISITE, DOM_STARTUP_OPTIONAL };
enum dom_protocol { DOM_PROTOCOL_NBD = 1, DOM_PROTOCOL_RBD, DOM_PROTOCOL_ISCSI };

struct dom_metadata_cache {
	struct opt64 max_size; /* bytes */
};
struct dom_disk_driver {
	char *name; /* "qemu" */
	char *type; /* "raw", "qcow2" */
	enum dom_disk_cache cache;
	enum dom_disk_error error_policy, rerror_policy;
	enum dom_disk_io io;
	enum tristate ioeventfd, event_idx; /* on|off */
	enum dom_discard discard;
	struct opt32 iothread;
	enum dom_zeroes detect_zeroes;
	struct opt32 queues, queue_size;
	struct dom_virtio virtio;
	struct dom_metadata_cache *metadata_cache;
};
struct dom_host { /* of network disks */
	char *transport, *name, *port, *socket;
};
struct dom_secret {
	char *type, *usage;
	struct opt_uuid uuid;
};
struct dom_disk_auth {
	char *username;
	struct dom_secret *secret;
};
struct dom_initiator {
	char *iqn; /* <iqn name=.../> */
};
struct dom_disk_source {
	char *file, *dev, *dir;
	enum dom_protocol protocol;
	char *name, *pool, *volume, *mode;
	enum tristate tls; /* yes|no */
	char *tls_hostname;
	enum dom_startup startup_policy;
	struct opt32 index;
	LIST(struct dom_host) host;
	char *snapshot, *config; /* RBD: <snapshot name=.../>, <config file=.../> */
	struct dom_disk_auth *auth;
	struct dom_initiator *initiator;
	LIST(struct dom_seclabel) seclabel;
};
struct dom_disk_format {
	char *type;
	struct dom_metadata_cache *metadata_cache;
};
struct dom_backing_store {
	enum dom_disk_type type; /* 0: <backingStore/>, the end of the chain */
	struct opt32 index;
	struct dom_disk_format *format;
	struct dom_disk_source *source;
	struct dom_backing_store *backing;
};
struct dom_disk_target {
	char *dev;
	enum dom_disk_bus bus;
	char *tray; /* "open", "closed" */
	enum tristate removable; /* on|off */
	struct opt32 rotation_rate;
};
struct dom_iotune { /* each 0 or absent: no limit */
	struct opt64 total_bytes_sec, read_bytes_sec, write_bytes_sec;
	struct opt64 total_iops_sec, read_iops_sec, write_iops_sec;
	struct opt64 total_bytes_sec_max, read_bytes_sec_max, write_bytes_sec_max;
	struct opt64 total_iops_sec_max, read_iops_sec_max, write_iops_sec_max;
	struct opt64 size_iops_sec;
	char *group_name;
	struct opt64 total_bytes_sec_max_length, read_bytes_sec_max_length, write_bytes_sec_max_length;
	struct opt64 total_iops_sec_max_length, read_iops_sec_max_length, write_iops_sec_max_length;
};
struct dom_blockio {
	struct opt32 logical_block_size, physical_block_size, discard_granularity;
};
struct dom_disk {
	enum dom_disk_type type;
	enum dom_disk_device device;
	char *model; /* "virtio", "virtio-non-transitional", ... */
	enum dom_snapshot snapshot;
	struct dom_disk_driver *driver;
	struct dom_disk_auth *auth;
	struct dom_disk_source *source; /* NULL: an empty drive */
	struct dom_backing_store *backing;
	struct dom_blockio *blockio;
	struct dom_disk_target *target; /* always there after parsing */
	struct dom_iotune *iotune;
	bool readonly, shareable, transient;
	char *serial, *wwn, *vendor, *product;
	struct dom_info info;
};

/* ---- Controllers ---------------------------------------------------------- */

enum dom_controller_type {
	DOM_CONTROLLER_IDE = 1,
	DOM_CONTROLLER_FDC,
	DOM_CONTROLLER_SCSI,
	DOM_CONTROLLER_SATA,
	DOM_CONTROLLER_VIRTIO_SERIAL,
	DOM_CONTROLLER_CCID,
	DOM_CONTROLLER_USB,
	DOM_CONTROLLER_PCI,
};
struct dom_controller_driver {
	struct opt32 queues, cmd_per_lun, max_sectors;
	enum tristate ioeventfd; /* on|off */
	struct opt32 iothread;
	struct dom_virtio virtio;
};
struct dom_controller_target { /* PCI: <target chassis='1' port='0x10'/> */
	struct opt32 chassis_nr, chassis, port, busnr;
	enum tristate hotplug; /* on|off */
};
struct dom_controller {
	enum dom_controller_type type;
	struct opt32 index;
	char *model; /* "pcie-root", "pcie-root-port", "virtio-scsi", "qemu-xhci", ... */
	struct opt32 ports, vectors;
	char *model_name; /* PCI: <model name='pcie-root-port'/> */
	struct dom_controller_target *target;
	struct opt64 pcihole64; /* KiB */
	struct dom_controller_driver *driver;
	struct opt32 master_startport; /* USB companions */
	struct dom_info info;
};

/* ---- Network -------------------------------------------------------------- */

enum dom_interface_type {
	DOM_NET_USER = 1,
	DOM_NET_ETHERNET,
	DOM_NET_BRIDGE,
	DOM_NET_NETWORK,
	DOM_NET_DIRECT,
	DOM_NET_VHOSTUSER,
	DOM_NET_HOSTDEV,
};
struct dom_ip {
	char *family, *address;
	struct opt32 prefix;
	char *peer;
};
struct dom_route {
	char *family, *address, *netmask;
	struct opt32 prefix;
	char *gateway;
	struct opt32 metric;
};
struct dom_interface_source {
	char *network, *portgroup, *bridge, *dev, *mode, *portid;
	char *type, *path; /* vhostuser: "unix", socket */
};
struct dom_virtualport_params {
	char *interfaceid, *profileid;
};
struct dom_virtualport {
	char *type; /* "openvswitch" */
	struct dom_virtualport_params *parameters;
};
struct dom_offloads {
	enum tristate csum, gso, tso4, tso6, ecn, ufo, mrg_rxbuf; /* on|off; mrg_rxbuf: host only */
};
struct dom_interface_driver {
	char *name; /* "vhost", "qemu" */
	char *txmode;
	enum tristate ioeventfd, event_idx; /* on|off */
	struct opt32 queues, rx_queue_size, tx_queue_size;
	enum tristate rss, rss_hash_report;
	struct dom_virtio virtio;
	struct dom_offloads *host, *guest;
};
struct dom_bandwidth_limits {
	struct opt32 average, peak, burst, floor; /* KiB/s; burst KiB */
};
struct dom_bandwidth {
	struct dom_bandwidth_limits *inbound, *outbound;
};
struct dom_port_forward_range {
	struct opt32 start, end, to;
	enum tristate exclude;
};
struct dom_port_forward {
	char *proto, *address, *dev;
	LIST(struct dom_port_forward_range) range;
};
struct dom_interface_backend {
	char *type; /* "passt" */
	char *tap, *vhost, *log_file;
};
struct dom_interface_target {
	char *dev;
	enum tristate managed; /* yes|no */
};
struct dom_mac_address {
	struct opt_mac address;
	char *type; /* "generated", "static" */
	enum tristate check;
};
struct dom_interface {
	enum dom_interface_type type;
	enum tristate managed, trust_guest_rx_filters; /* yes|no */
	struct dom_mac_address *mac; /* always there after filling */
	struct dom_interface_source *source;
	LIST(struct dom_ip) ip;
	LIST(struct dom_route) route;
	struct dom_virtualport *virtualport;
	char *script;
	LIST(struct dom_port_forward) port_forward;
	struct dom_interface_backend *backend;
	struct dom_interface_target *target;
	char *guest_dev;
	char *model; /* <model type='virtio'/> */
	struct dom_interface_driver *driver;
	struct dom_bandwidth *bandwidth;
	enum tristate isolated; /* <port isolated='yes'/> */
	struct opt32 mtu;       /* <mtu size='1500'/> */
	char *link;             /* <link state='up'/>: "up", "down" */
	struct dom_info info;
};

/* ---- Characters: serial, parallel, console, channel; rng's and watchdogs' back ends ---------- */

enum dom_chr_type {
	DOM_CHR_NULL = 1,
	DOM_CHR_VC,
	DOM_CHR_PTY,
	DOM_CHR_DEV,
	DOM_CHR_FILE,
	DOM_CHR_PIPE,
	DOM_CHR_STDIO,
	DOM_CHR_UDP,
	DOM_CHR_TCP,
	DOM_CHR_UNIX,
	DOM_CHR_SPICEVMC,
	DOM_CHR_SPICEPORT,
	DOM_CHR_NMDM,
};
struct dom_reconnect {
	enum tristate enabled; /* yes|no */
	struct opt32 timeout;
};
struct dom_chr_source {
	char *mode; /* "bind", "connect" */
	char *path, *host, *service;
	enum tristate append, tls; /* on|off; yes|no */
	struct dom_reconnect *reconnect;
	LIST(struct dom_seclabel) seclabel;
};
struct dom_chr_log {
	char *file;
	enum tristate append; /* on|off */
};
struct dom_chr_target {
	char *type; /* "isa-serial"; console: "serial", "virtio"; channel: "virtio" */
	char *name; /* channel: "org.qemu.guest_agent.0" */
	char *state; /* channel, live only: "connected", "disconnected" */
	struct opt32 port;
	char *model; /* <model name=.../>: "isa-serial" */
};
struct dom_chr {
	enum dom_chr_type type;
	char *tty; /* console, live: <console type='pty' tty='/dev/pts/1'> */
	LIST(struct dom_chr_source) source;
	char *protocol; /* <protocol type=.../>: "raw", "telnet" */
	struct dom_chr_log *log;
	struct dom_chr_target *target; /* always there after filling */
	struct dom_info info;
};

/* ---- The others ----------------------------------------------------------- */

enum dom_input_type { DOM_INPUT_MOUSE = 1, DOM_INPUT_TABLET, DOM_INPUT_KEYBOARD, DOM_INPUT_PASSTHROUGH, DOM_INPUT_EVDEV };
enum dom_input_bus { DOM_INPUT_PS2 = 1, DOM_INPUT_USB, DOM_INPUT_VIRTIO };
struct dom_virtio_driver {
	struct dom_virtio virtio;
};
struct dom_input {
	enum dom_input_type type;
	enum dom_input_bus bus;
	char *model;
	struct dom_virtio_driver *driver;
	struct dom_info info;
};

struct dom_filesystem_driver {
	char *type; /* "virtiofs" */
	struct opt32 queue;
	struct dom_virtio virtio;
};
struct dom_fs_binary {
	char *path;
	enum tristate xattr; /* on|off */
	char *cache; /* <cache mode=.../> */
};
struct dom_fs_source {
	char *dir, *socket;
};
struct dom_filesystem {
	char *type;       /* "mount" */
	char *accessmode; /* "passthrough" */
	char *model;
	struct dom_filesystem_driver *driver;
	struct dom_fs_binary *binary;
	struct dom_fs_source *source;
	char *target; /* <target dir=.../>: the mount tag */
	bool readonly;
	struct dom_info info;
};

struct dom_tpm_backend {
	char *type, *version;
	enum tristate persistent_state;
};
struct dom_tpm {
	char *model;
	struct dom_tpm_backend *backend;
	struct dom_info info;
};

struct dom_audio {
	struct opt32 id;
	char *type; /* "none" */
};

struct dom_hostdev_address {
	struct opt32 domain, bus, slot, function;
};
struct dom_hostdev_source {
	struct dom_hostdev_address *address;
};
struct dom_hostdev {
	char *mode;           /* "subsystem" */
	char *type;           /* "pci" */
	enum tristate managed; /* yes|no */
	char *driver; /* <driver name=.../>: "vfio" */
	struct dom_hostdev_source *source;
	struct dom_info info;
};

struct dom_watchdog {
	char *model;  /* "itco", "i6300esb" */
	char *action; /* "reset", "shutdown", "poweroff", "pause", "none", "dump", "inject-nmi" */
	struct dom_info info;
};

struct dom_memballoon {
	char *model; /* "virtio", "none" */
	enum tristate autodeflate, free_page_reporting; /* on|off */
	struct opt32 stats_period; /* seconds */
	struct dom_virtio_driver *driver;
	struct dom_info info;
};

struct dom_rng_rate {
	uint32_t bytes;
	struct opt32 period; /* ms */
};
struct dom_rng_backend {
	char *model; /* "random", "builtin" */
	char *path;  /* "/dev/urandom" */
};
struct dom_rng {
	char *model; /* "virtio" */
	struct dom_rng_rate *rate;
	struct dom_rng_backend *backend;
	struct dom_virtio_driver *driver;
	struct dom_info info;
};

struct dom_panic {
	char *model; /* "isa", "pvpanic" */
	struct dom_info info;
};

struct dom_memdev_source {
	char *path, *nodemask;
	uint64_t pagesize; /* KiB */
};
struct dom_memdev_target {
	uint64_t size; /* KiB */
	struct opt32 node;
	uint64_t block, requested, current; /* KiB; virtio-mem */
};
struct dom_memdev {
	char *model; /* "dimm", "virtio-mem" */
	enum dom_memdev_access { DOM_MEMDEV_SHARED = 1, DOM_MEMDEV_PRIVATE } access;
	enum tristate discard; /* yes|no */
	struct dom_memdev_source *source;
	struct dom_memdev_target *target;
	struct dom_info info;
};

struct dom_iommu_driver {
	enum tristate intremap, caching_mode, eim, iotlb; /* on|off */
	struct opt32 aw_bits;
};
struct dom_iommu {
	char *model; /* "intel", "virtio" */
	struct dom_iommu_driver *driver;
	struct dom_info info;
};

struct dom_cid {
	enum tristate auto_assign; /* yes|no */
	struct opt32 address;
};
struct dom_vsock {
	char *model; /* "virtio" */
	struct dom_cid *cid;
	struct dom_virtio_driver *driver;
	struct dom_info info;
};
