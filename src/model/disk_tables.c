/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Disks and interfaces: their elements in libvirt's order. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/device_tables.h"
#include "model/table_macros.h"

/* ---- Disks ---------------------------------------------------------------- */

const char *const dom_disk_type_names[] = { "",	      "file", "block", "dir",	    "network",
					    "volume", NULL,   "nvme",  "vhostuser", NULL };
const char *const dom_disk_device_names[] = { "", "disk", "cdrom", "floppy", "lun", NULL, NULL };
const char *const dom_disk_bus_names[] = { "",	   "ide", "fdc", "scsi", "virtio", "usb",
					   "sata", "sd",  NULL,	 "xen",	 "uml",	   NULL };
static const char *const cache_names[] = { "",	     "default", "none", "writethrough", "writeback", "directsync",
					   "unsafe", NULL,	NULL };
static const char *const io_names[] = { "", "native", "threads", "io_uring", NULL, NULL };
static const char *const error_names[] = { "", "stop", "report", "ignore", "enospace", NULL, NULL };
static const char *const discard_names[] = { "", "unmap", "ignore", NULL, NULL };
static const char *const zeroes_names[] = { "", "off", "on", "unmap", NULL, NULL };
static const char *const snapshot_names[] = { "", "no", "internal", "external", NULL, "manual", NULL };
static const char *const startup_names[] = { "", "mandatory", "requisite", "optional", NULL, NULL };
static const char *const protocol_names[] = { "",      "nbd", "rbd",  "iscsi", NULL,   "sheepdog", "gluster", "http",
					      "https", "ftp", "ftps", "tftp",  "vxhs", "nfs",	   "ssh",     NULL };

/* Words: first what Keel knows, then what only libvirt does. */
static const char *const driver_names[] = { "", "qemu", NULL, "phy", "tap", "tap2", "file", NULL };
static const char *const formats[] = { "",    "raw", "qcow2", NULL,  "bochs", "cloop", "dmg",  "iso", "vpc",  "vdi",
				       "fat", "vhd", "ploop", "cow", "qcow",  "qed",   "vmdk", "dir", "luks", NULL };
static const char *const disk_models[] = { "", "virtio", "virtio-non-transitional", NULL, "virtio-transitional", NULL };
static const char *const trays[] = { "", "open", "closed", NULL, NULL };
static const char *const transports[] = { "", "tcp", "unix", NULL, "rdma", NULL };
static const char *const secret_types[] = { "", "ceph", "iscsi", "volume", NULL, NULL };
static const char *const volume_modes[] = { "", "host", "direct", NULL, NULL };
static const char *const mac_types[] = { "", "generated", "static", NULL, NULL };
static const char *const source_types[] = { "", "unix", NULL, NULL };
static const char *const source_modes[] = { "",	      "vepa",	"bridge", "private", "passthrough",
					    "server", "client", NULL,	  NULL };
static const char *const families[] = { "", "ipv4", "ipv6", NULL, NULL };
static const char *const protos[] = { "", "tcp", "udp", NULL, NULL };
static const char *const backends[] = { "", "passt", NULL, "default", NULL };
static const char *const net_models[] = { "",
					  "virtio",
					  "virtio-non-transitional",
					  NULL,
					  "virtio-transitional",
					  "e1000",
					  "e1000e",
					  "rtl8139",
					  "ne2k_pci",
					  "pcnet",
					  "netfront",
					  "vmxnet3",
					  "vmxnet2",
					  "vmxnet",
					  "Am79C970A",
					  "Am79C973",
					  "82540EM",
					  "82545EM",
					  "82543GC",
					  "usb-net",
					  "spapr-vlan",
					  "lan9118",
					  "scm91c111",
					  "vlance",
					  "i82551",
					  "i82557b",
					  "i82559er",
					  "igb",
					  NULL };
static const char *const net_drivers[] = { "", "qemu", "vhost", NULL, "kvm", "vfio", "xen", NULL };
static const char *const txmodes[] = { "", "iothread", "timer", NULL, NULL };
static const char *const links[] = { "", "up", "down", NULL, NULL };
static const char *const virtualports[] = { "", "openvswitch", NULL, "802.1Qbg", "802.1Qbh", "midonet", "none", NULL };

#define S dom_metadata_cache
static const struct xml_field metadata_cache_fields[] = { ELEM("max_size", max_size, OPTBYTES) };
#undef S
static XML_TYPE(metadata_cache_xml, "metadata_cache", struct dom_metadata_cache, metadata_cache_fields);
#define S dom_disk_driver
static const struct xml_field disk_driver_fields[] = {
	ATTR_WORD("name", name, driver_names),
	ATTR_WORD("type", type, formats),
	ATTR_ENUM("cache", cache, cache_names),
	ATTR_ENUM("error_policy", error_policy, error_names),
	ATTR_ENUM("rerror_policy", rerror_policy, error_names),
	ATTR_ENUM("io", io, io_names),
	ATTR("ioeventfd", ioeventfd, ONOFF),
	ATTR("event_idx", event_idx, ONOFF),
	ATTR_ENUM("discard", discard, discard_names),
	ATTR("iothread", iothread, OPT32),
	ATTR_ENUM("detect_zeroes", detect_zeroes, zeroes_names),
	ATTR("queues", queues, OPT32, .flags = XML_NONZERO),
	ATTR("queue_size", queue_size, OPT32),
	VIRTIO_ATTRS,
	CHILD("metadata_cache", metadata_cache, metadata_cache_xml),
};
#undef S
static XML_TYPE(disk_driver_xml, "driver", struct dom_disk_driver, disk_driver_fields);
#define S dom_host
static const struct xml_field host_fields[] = {
	ATTR("name", name, NAME),
	ATTR("port", port, NAME),
	ATTR_WORD("transport", transport, transports),
	ATTR("socket", socket, PATH),
};
#undef S
static XML_TYPE(host_xml, "host", struct dom_host, host_fields);
#define S dom_secret
static const struct xml_field secret_fields[] = {
	ATTR_WORD("type", type, secret_types),
	ATTR("usage", usage, NAME),
	ATTR("uuid", uuid, UUID),
};
#undef S
static XML_TYPE(secret_xml, "secret", struct dom_secret, secret_fields);
#define S dom_disk_auth
static const struct xml_field auth_fields[] = {
	ATTR("username", username, NAME, REQUIRED),
	CHILD("secret", secret, secret_xml),
};
#undef S
static XML_TYPE(auth_xml, "auth", struct dom_disk_auth, auth_fields);
#define S dom_initiator
static const struct xml_field initiator_fields[] = { ELEM_ATTR("iqn", "name", iqn, STR) };
#undef S
static XML_TYPE(initiator_xml, "initiator", struct dom_initiator, initiator_fields);
#define S dom_disk_source
static const struct xml_field disk_source_fields[] = {
	ATTR("file", file, PATH),
	ATTR("dev", dev, PATH),
	ATTR("dir", dir, PATH),
	ATTR_ENUM("protocol", protocol, protocol_names),
	ATTR("name", name, STR),
	ATTR("tls", tls, YESNO),
	ATTR("tlsHostname", tls_hostname, NAME),
	ATTR("pool", pool, STR),
	ATTR("volume", volume, STR),
	ATTR_WORD("mode", mode, volume_modes),
	ATTR_ENUM("startupPolicy", startup_policy, startup_names),
	ATTR("index", index, OPT32, LIVE),
	CHILDREN("host", host, host_xml),
	ELEM_ATTR("snapshot", "name", snapshot, NAME),
	ELEM_ATTR("config", "file", config, PATH),
	CHILD("initiator", initiator, initiator_xml),
	CHILDREN("seclabel", seclabel, dom_seclabel_xml),
	CHILD("auth", auth, auth_xml),
};
#undef S
static XML_TYPE(disk_source_xml, "source", struct dom_disk_source, disk_source_fields);
#define S dom_disk_format
static const struct xml_field disk_format_fields[] = {
	ATTR_WORD("type", type, formats, REQUIRED),
	CHILD("metadata_cache", metadata_cache, metadata_cache_xml),
};
#undef S
static XML_TYPE(disk_format_xml, "format", struct dom_disk_format, disk_format_fields);

static const struct xml_type backing_xml;
#define S dom_backing_store
static const struct xml_field backing_fields[] = {
	ATTR_ENUM("type", type, dom_disk_type_names),
	ATTR("index", index, OPT32, LIVE),
	CHILD("format", format, disk_format_xml),
	CHILD("source", source, disk_source_xml),
	CHILD("backingStore", backing, backing_xml, .flags = XML_KEEP_EMPTY),
};
#undef S
static XML_TYPE(backing_xml, "backingStore", struct dom_backing_store, backing_fields);
#define S dom_disk_target
static const struct xml_field disk_target_fields[] = {
	ATTR("dev", dev, STR, .flags = XML_ABI | XML_REQUIRED),
	ATTR_ENUM("bus", bus, dom_disk_bus_names, ABI),
	ATTR_WORD("tray", tray, trays),
	ATTR("removable", removable, ONOFF, ABI),
	ATTR("rotation_rate", rotation_rate, OPT32, ABI),
};
#undef S
static XML_TYPE(disk_target_xml, "target", struct dom_disk_target, disk_target_fields);
#define S dom_iotune
static const struct xml_field iotune_fields[] = {
#define LIMIT(what) ELEM(#what, what, OPT64)
	LIMIT(total_bytes_sec),
	LIMIT(read_bytes_sec),
	LIMIT(write_bytes_sec),
	LIMIT(total_iops_sec),
	LIMIT(read_iops_sec),
	LIMIT(write_iops_sec),
	LIMIT(total_bytes_sec_max),
	LIMIT(read_bytes_sec_max),
	LIMIT(write_bytes_sec_max),
	LIMIT(total_iops_sec_max),
	LIMIT(read_iops_sec_max),
	LIMIT(write_iops_sec_max),
	LIMIT(size_iops_sec),
	ELEM("group_name", group_name, STR),
	LIMIT(total_bytes_sec_max_length),
	LIMIT(read_bytes_sec_max_length),
	LIMIT(write_bytes_sec_max_length),
	LIMIT(total_iops_sec_max_length),
	LIMIT(read_iops_sec_max_length),
	LIMIT(write_iops_sec_max_length),
#undef LIMIT
};
#undef S
static XML_TYPE(iotune_xml, "iotune", struct dom_iotune, iotune_fields);
#define S dom_blockio
static const struct xml_field blockio_fields[] = {
	ATTR("logical_block_size", logical_block_size, OPT32, ABI),
	ATTR("physical_block_size", physical_block_size, OPT32, ABI),
	ATTR("discard_granularity", discard_granularity, OPT32, ABI),
};
#undef S
static XML_TYPE(blockio_xml, "blockio", struct dom_blockio, blockio_fields);

static int disk_parsed(void *obj, const struct xml_parse *p, struct err *err);
#define S dom_disk
static const struct xml_field disk_fields[] = {
	ATTR_ENUM("type", type, dom_disk_type_names),
	ATTR_ENUM("device", device, dom_disk_device_names, ABI),
	ATTR_WORD("model", model, disk_models, ABI),
	ATTR_ENUM("snapshot", snapshot, snapshot_names),
	CHILD("driver", driver, disk_driver_xml),
	CHILD("auth", auth, auth_xml),
	CHILD("source", source, disk_source_xml),
	CHILD("backingStore", backing, backing_xml, .flags = XML_KEEP_EMPTY),
	CHILD("blockio", blockio, blockio_xml, ABI),
	CHILD("target", target, disk_target_xml, .flags = XML_ABI),
	CHILD("iotune", iotune, iotune_xml),
	ELEM("readonly", readonly, BOOL, ABI),
	ELEM("shareable", shareable, BOOL),
	ELEM("transient", transient, BOOL),
	ELEM("serial", serial, STR, ABI),
	ELEM("wwn", wwn, STR, ABI),
	ELEM("vendor", vendor, STR, ABI),
	ELEM("product", product, STR, ABI),
	BOOT,
	INFO,
};
#undef S
XML_TYPE(dom_disk_xml, "disk", struct dom_disk, disk_fields, .parsed = disk_parsed);

static bool known_name(const char *dev)
{
	static const char *const stems[] = { "fd", "hd", "sd", "vd", "xvd", "ubd" };

	for (unsigned i = 0; i < sizeof(stems) / sizeof(stems[0]); i++) {
		size_t n = strlen(stems[i]);

		if (!strncmp(dev, stems[i], n) && dev[n] >= 'a' && dev[n] <= 'z' &&
		    strspn(dev + n, "abcdefghijklmnopqrstuvwxyz0123456789") == strlen(dev + n))
			return strlen(dev) < 16;
	}
	return false;
}

#define HOST_CHARS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.:-"

static int check_network(const struct dom_disk *d, struct err *err)
{
	const struct dom_disk_source *s = d->source;
	const struct dom_disk_auth *auth = d->auth ? d->auth : s->auth;

	if (!s->protocol)
		return err_set(err, EINVAL, "missing network source protocol type");
	if (s->protocol != DOM_PROTOCOL_NBD && !s->name)
		return err_set(err, EINVAL, "missing name for disk source");
	if (s->protocol != DOM_PROTOCOL_RBD && s->host.n != 1)
		return err_set(err, EINVAL, "protocol '%s' accepts only one host", protocol_names[s->protocol]);
	for (unsigned i = 0; i < s->host.n; i++) {
		const struct dom_host *h = s->host.v[i];
		bool is_unix = h->transport && !strcmp(h->transport, "unix");

		if (is_unix && !h->socket)
			return err_set(err, EINVAL, "missing socket for unix transport");
		if (!is_unix && !h->name)
			return err_set(err, EINVAL, "missing name for host");
		if (h->name && strspn(h->name, HOST_CHARS) != strlen(h->name))
			return err_set(err, EINVAL, "'%.100s' in element 'host' is no host's name", h->name);
		if (!is_unix && h->socket)
			return err_set(err, EINVAL, "transport 'tcp' does not support socket attribute");
		if (h->port && (strspn(h->port, "0123456789") != strlen(h->port) || strlen(h->port) > 5))
			return err_set(err, EINVAL, "failed to parse port number '%.100s'", h->port);
	}
	if (!auth)
		return 0;
	if (auth->secret && auth->secret->usage && strchr(auth->secret->usage, '/'))
		return err_set(err, EINVAL, "secret usage '%.100s' in auth of a disk is no name", auth->secret->usage);
	if (strchr(auth->username, '/'))
		return err_set(err, EINVAL, "username '%.100s' in auth of a disk is no name", auth->username);
	if (!auth->secret || !auth->secret->type)
		return err_set(err, EINVAL, "missing secret type in auth of a disk");
	if (!auth->secret->usage == !auth->secret->uuid.set)
		return err_set(err, EINVAL, "either auth secret uuid or usage expected");
	return 0;
}

static bool source_empty(const struct dom_disk_source *s)
{
	return !s->file && !s->dev && !s->dir && !s->protocol && !s->name && !s->pool && !s->volume && !s->host.n;
}

static int check_source(const struct dom_disk *d, struct err *err)
{
	const struct dom_disk_source *s = d->source;

	switch (d->type) {
	case DOM_DISK_NETWORK:
		if (check_network(d, err))
			return -err->code;
		break;
	case DOM_DISK_VOLUME:
		if (!s->pool || !s->volume)
			return err_set(err, EINVAL,
				       "'pool' and 'volume' must be specified together for 'pool' type source");
		break;
	default:
		break;
	}
	if ((d->type != DOM_DISK_FILE && s->file) || (d->type != DOM_DISK_BLOCK && s->dev) ||
	    (d->type != DOM_DISK_DIR && s->dir) || (d->type != DOM_DISK_NETWORK && s->protocol) ||
	    (d->type != DOM_DISK_VOLUME && (s->pool || s->volume)))
		return err_set(err, ENOTSUP, "the source of disk '%.100s' does not go with its type '%s'",
			       d->target->dev, dom_disk_type_names[d->type]);
	return 0;
}

static int check_backing(const struct dom_backing_store *b, struct err *err)
{
	for (; b; b = b->backing) {
		if (!b->type)
			return b->format || b->source || b->backing ?
				       err_set(err, EINVAL, "missing disk backing store type") :
				       0;
		if (!b->format)
			return err_set(err, EINVAL, "missing disk backing store format");
		if (!b->source)
			return err_set(err, EINVAL, "missing disk backing store source");
		if ((b->type != DOM_DISK_FILE || !b->source->file) && (b->type != DOM_DISK_BLOCK || !b->source->dev))
			return err_set(err, ENOTSUP, "backing store type '%s' is not supported by Keel",
				       dom_disk_type_names[b->type]);
	}
	return 0;
}

#define DISK_SERIAL_CHARS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.+- "

static bool printable(const char *text, size_t max)
{
	if (strlen(text) > max)
		return false;
	while (*text >= 0x20 && *text <= 0x7e)
		text++;
	return !*text;
}

static int disk_parsed(void *obj, const struct xml_parse *p, struct err *err)
{
	struct dom_disk *d = obj;

	(void)p;
	if (!d->type)
		d->type = DOM_DISK_FILE;
	if (!d->device)
		d->device = DOM_DISK_DISK;
	if (!d->target || !d->target->dev || !*d->target->dev)
		return err_set(err, EADDRNOTAVAIL, "%.300s", d->source && d->source->file ? d->source->file : "disk");
	if (d->source && source_empty(d->source) && d->device != DOM_DISK_DISK) {
		if (!d->source->startup_policy && !d->source->seclabel.n) {
			xml_free_object(&disk_source_xml, d->source);
			d->source = NULL;
		}
	}
	if (!known_name(d->target->dev))
		return err_set(err, EINVAL, "Unknown disk name '%.100s' and no address specified", d->target->dev);
	if (check_backing(d->backing, err))
		return -err->code;
	if (d->serial && strspn(d->serial, DISK_SERIAL_CHARS) != strlen(d->serial))
		return err_set(err, EINVAL, "driver serial '%.100s' contains unsafe characters", d->serial);
	if (d->wwn && (strlen(d->wwn) != 16 || strspn(d->wwn, "0123456789abcdefABCDEF") != 16))
		return err_set(err, EINVAL, "malformed wwn: %.100s", d->wwn);
	if ((d->vendor && !printable(d->vendor, 8)) || (d->product && !printable(d->product, 16)))
		return err_set(err, EINVAL, "disk vendor and product are printable texts of up to 8 and 16 characters");
	return d->source ? check_source(d, err) : 0;
}

/* ---- Interfaces ----------------------------------------------------------- */

const char *const dom_net_type_names[] = { "",		"user",	   "ethernet", "bridge", "network", "direct",
					   "vhostuser", "hostdev", NULL,       "server", "client",  "mcast",
					   "internal",	"udp",	   "vdpa",     "null",	 "vds",	    NULL };
#define S dom_mac_address
static const struct xml_field mac_fields[] = {
	ATTR("address", address, MAC, .flags = XML_ABI | XML_REQUIRED),
	ATTR_WORD("type", type, mac_types),
	ATTR("check", check, YESNO),
};
#undef S
static XML_TYPE(mac_xml, "mac", struct dom_mac_address, mac_fields);
#define S dom_interface_source
static const struct xml_field net_source_fields[] = {
	ATTR("network", network, STR), ATTR("portgroup", portgroup, STR),     ATTR("portid", portid, NAME, LIVE),
	ATTR("bridge", bridge, NAME),  ATTR_WORD("type", type, source_types), ATTR("path", path, PATH),
	ATTR("dev", dev, NAME),	       ATTR_WORD("mode", mode, source_modes),
};
#undef S
static XML_TYPE(net_source_xml, "source", struct dom_interface_source, net_source_fields);
#define S dom_ip
static const struct xml_field ip_fields[] = {
	ATTR("address", address, NAME, REQUIRED),
	ATTR_WORD("family", family, families),
	ATTR("prefix", prefix, OPT32),
	ATTR("peer", peer, STR),
};
#undef S
static XML_TYPE(ip_xml, "ip", struct dom_ip, ip_fields);
#define S dom_route
static const struct xml_field route_fields[] = {
	ATTR_WORD("family", family, families), ATTR("address", address, NAME), ATTR("netmask", netmask, STR),
	ATTR("prefix", prefix, OPT32),	       ATTR("gateway", gateway, STR),  ATTR("metric", metric, OPT32),
};
#undef S
static XML_TYPE(route_xml, "route", struct dom_route, route_fields);
#define S dom_virtualport_params
static const struct xml_field virtualport_params_fields[] = {
	ATTR("interfaceid", interfaceid, STR),
	ATTR("profileid", profileid, STR),
};
#undef S
static XML_TYPE(virtualport_params_xml, "parameters", struct dom_virtualport_params, virtualport_params_fields);
#define S dom_virtualport
static const struct xml_field virtualport_fields[] = {
	ATTR_WORD("type", type, virtualports),
	CHILD("parameters", parameters, virtualport_params_xml),
};
#undef S
static XML_TYPE(virtualport_xml, "virtualport", struct dom_virtualport, virtualport_fields);
#define S dom_port_forward_range
static const struct xml_field range_fields[] = {
	ATTR("start", start, OPT32, REQUIRED),
	ATTR("end", end, OPT32),
	ATTR("to", to, OPT32),
	ATTR("exclude", exclude, YESNO),
};
#undef S
static XML_TYPE(range_xml, "range", struct dom_port_forward_range, range_fields);
#define S dom_port_forward
static const struct xml_field port_forward_fields[] = {
	ATTR_WORD("proto", proto, protos, REQUIRED),
	ATTR("address", address, NAME),
	ATTR("dev", dev, NAME),
	CHILDREN("range", range, range_xml),
};
#undef S
static XML_TYPE(port_forward_xml, "portForward", struct dom_port_forward, port_forward_fields);
#define S dom_interface_backend
static const struct xml_field net_backend_fields[] = {
	ATTR_WORD("type", type, backends),
	ATTR("tap", tap, PATH),
	ATTR("vhost", vhost, PATH),
	ATTR("logFile", log_file, PATH),
};
#undef S
static XML_TYPE(net_backend_xml, "backend", struct dom_interface_backend, net_backend_fields);
#define S dom_interface_target
static const struct xml_field net_target_fields[] = { ATTR("dev", dev, NAME, REQUIRED), ATTR("managed", managed, YESNO) };
#undef S
static XML_TYPE(net_target_xml, "target", struct dom_interface_target, net_target_fields);
#define S dom_offloads
static const struct xml_field offload_host_fields[] = {
	ATTR("csum", csum, ONOFF, ABI),		  ATTR("gso", gso, ONOFF, ABI), ATTR("tso4", tso4, ONOFF, ABI),
	ATTR("tso6", tso6, ONOFF, ABI),		  ATTR("ecn", ecn, ONOFF, ABI), ATTR("ufo", ufo, ONOFF, ABI),
	ATTR("mrg_rxbuf", mrg_rxbuf, ONOFF, ABI),
};
static const struct xml_field offload_guest_fields[] = {
	ATTR("csum", csum, ONOFF, ABI), ATTR("tso4", tso4, ONOFF, ABI), ATTR("tso6", tso6, ONOFF, ABI),
	ATTR("ecn", ecn, ONOFF, ABI),	ATTR("ufo", ufo, ONOFF, ABI),
};
#undef S
static XML_TYPE(offload_host_xml, "host", struct dom_offloads, offload_host_fields);
static XML_TYPE(offload_guest_xml, "guest", struct dom_offloads, offload_guest_fields);
#define S dom_interface_driver
static const struct xml_field net_driver_fields[] = {
	ATTR_WORD("name", name, net_drivers),
	ATTR_WORD("txmode", txmode, txmodes),
	ATTR("ioeventfd", ioeventfd, ONOFF),
	ATTR("event_idx", event_idx, ONOFF),
	ATTR("queues", queues, OPT32, .flags = XML_NONZERO),
	ATTR("rx_queue_size", rx_queue_size, OPT32),
	ATTR("tx_queue_size", tx_queue_size, OPT32),
	ATTR("rss", rss, ONOFF),
	ATTR("rss_hash_report", rss_hash_report, ONOFF),
	VIRTIO_ATTRS,
	CHILD("host", host, offload_host_xml, ABI),
	CHILD("guest", guest, offload_guest_xml, ABI),
};
#undef S
static XML_TYPE(net_driver_xml, "driver", struct dom_interface_driver, net_driver_fields);
#define S dom_bandwidth_limits
static const struct xml_field limits_fields[] = {
	ATTR("average", average, OPT32),
	ATTR("peak", peak, OPT32),
	ATTR("floor", floor, OPT32),
	ATTR("burst", burst, OPT32),
};
#undef S
static XML_TYPE(limits_xml, "bandwidth", struct dom_bandwidth_limits, limits_fields);
#define S dom_bandwidth
static const struct xml_field bandwidth_fields[] = {
	CHILD("inbound", inbound, limits_xml),
	CHILD("outbound", outbound, limits_xml),
};
#undef S
static XML_TYPE(bandwidth_xml, "bandwidth", struct dom_bandwidth, bandwidth_fields);

static int interface_parsed(void *obj, const struct xml_parse *p, struct err *err);
#define S dom_interface
static const struct xml_field interface_fields[] = {
	ATTR_ENUM("type", type, dom_net_type_names, .flags = XML_REQUIRED),
	ATTR("managed", managed, YESNO),
	ATTR("trustGuestRxFilters", trust_guest_rx_filters, YESNO),
	CHILD("mac", mac, mac_xml, ABI),
	CHILD("source", source, net_source_xml),
	CHILDREN("ip", ip, ip_xml),
	CHILDREN("route", route, route_xml),
	CHILD("virtualport", virtualport, virtualport_xml),
	ELEM_ATTR("port", "isolated", isolated, YESNO),
	ELEM_ATTR("script", "path", script, STR),
	CHILDREN("portForward", port_forward, port_forward_xml),
	CHILD("bandwidth", bandwidth, bandwidth_xml),
	CHILD("target", target, net_target_xml),
	ELEM_ATTR("guest", "dev", guest_dev, NAME),
	ELEM_ATTR_WORD("model", "type", model, net_models, ABI),
	CHILD("driver", driver, net_driver_xml),
	CHILD("backend", backend, net_backend_xml),
	ELEM_ATTR_WORD("link", "state", link, links),
	ELEM_ATTR("mtu", "size", mtu, OPT32, ABI),
	BOOT,
	INFO,
};
#undef S
XML_TYPE(dom_interface_xml, "interface", struct dom_interface, interface_fields, .parsed = interface_parsed);

/* A name that libvirt made up for a running guest; the next start makes up another. */
static bool generated_name(const char *dev)
{
	static const char *const prefixes[] = { "vnet", "vif", "macvtap", "macvlan" };

	for (unsigned i = 0; dev && i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
		if (!strncmp(dev, prefixes[i], strlen(prefixes[i])))
			return true;
	return false;
}

void interface_forget_target(struct dom_interface *n)
{
	if (!n->target || n->target->managed == TRI_NO || !generated_name(n->target->dev))
		return;
	xml_free_object(&net_target_xml, n->target);
	n->target = NULL;
}

/* Does it say what another type's would? */
static bool source_strange(const struct dom_interface *n)
{
	const struct dom_interface_source *s = n->source;
	const bool live_network = n->type == DOM_NET_NETWORK; /* has the bridge besides, once it runs */

	return ((s->network || s->portgroup || s->portid) && n->type != DOM_NET_NETWORK) ||
	       (s->bridge && n->type != DOM_NET_BRIDGE && !live_network) ||
	       ((s->type || s->path) && n->type != DOM_NET_VHOSTUSER) ||
	       (s->dev && n->type != DOM_NET_DIRECT && n->type != DOM_NET_USER && !live_network) ||
	       (s->mode && n->type != DOM_NET_DIRECT && n->type != DOM_NET_VHOSTUSER && !live_network) ||
	       (s->mode && (n->type == DOM_NET_VHOSTUSER) != (!strcmp(s->mode, "server") || !strcmp(s->mode, "client")));
}

static int interface_parsed(void *obj, const struct xml_parse *p, struct err *err)
{
	struct dom_interface *n = obj;

	if (!(p->flags & XML_PARSE_LIVE))
		interface_forget_target(n);
	if (n->source && source_strange(n))
		return err_set(err, EINVAL, "the <source> of an interface does not go with its type '%s'",
			       dom_net_type_names[n->type]);
	if (n->mtu.value > 65535)
		return err_set(err, EINVAL, "MTU value %u is too high, maximum is 65535", n->mtu.value);
	if (!n->source && n->type != DOM_NET_USER && n->type != DOM_NET_ETHERNET)
		return err_set(err, EINVAL, "interface type='%s' requires a 'source' element",
			       dom_net_type_names[n->type]);
	if (n->type == DOM_NET_BRIDGE && (!n->source || !n->source->bridge))
		return err_set(err, EINVAL, "No <source> 'bridge' attribute specified with <interface type='bridge'/>");
	if (n->type == DOM_NET_NETWORK && (!n->source || !n->source->network))
		return err_set(err, EINVAL,
			       "No <source> 'network' attribute specified with <interface type='network'/>");
	if (n->type == DOM_NET_DIRECT && (!n->source || !n->source->dev))
		return err_set(err, EINVAL, "No <source> 'dev' attribute specified with <interface type='direct'/>");
	if (n->type == DOM_NET_VHOSTUSER && (!n->source || !n->source->type || !n->source->path || !n->source->mode))
		return err_set(
			err, EINVAL,
			"Missing <source> 'type', 'path' or 'mode' attribute with <interface type='vhostuser'/>");
	return 0;
}
