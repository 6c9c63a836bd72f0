/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading definitions: libvirt's errors, what is refused by name, what is kept. */
#include "model_test.h"

/* ---- Errors --------------------------------------------------------------- */

/* Codes and texts are stock libvirtd 9.0's for the same XML, but for those about Keel. */
static const struct {
	const char *xml;
	int code;
	const char *message; /* NULL: any */
} bad[] = {
	{ "", 35, "(domain_definition):1: Document is empty\n" },
	{ "foo", 35, "(domain_definition):1: Start tag expected, '<' not found\nfoo\n^" },
	{ "<domain", 35, "(domain_definition):1: Couldn't find end of Start Tag domain line 1\n<domain\n-------^" },
	{ "<a/>", 27, "XML error: expecting root element of 'domain', not 'a'" },
	{ "<domain type='kvm'><os><type>hvm</type></os></domain>", 21, "missing name information" },
	{ "<domain type='kvm'><name/><os><type>hvm</type></os></domain>", 21, NULL },
	{ "<domain type='kvm'><name>e</name><memory>1</memory><os><type/></os></domain>", 27,
	  "XML error: an os <type> must be specified" },
	{ "<domain type='kvm'><name>e</name><os><type>hvm</type></os></domain>", 27,
	  "XML error: Memory size must be specified via <memory> or in the <numa> configuration" },
	{ "<domain type='kvm'><name>a/b</name><memory>1</memory><os><type>hvm</type></os></domain>", 27,
	  "XML error: name a/b cannot contain '/'" },
	{ "<domain type='kvm'><name>e</name><memory unit='zz'>1</memory><os><type>hvm</type></os></domain>", 8,
	  "invalid argument: unknown suffix 'zz'" },
	{ "<domain type='kvm'><name>e</name><memory>abc</memory><os><type>hvm</type></os></domain>", 27,
	  "XML error: Invalid value 'abc' for element or attribute './memory[1]'" },
	{ "<domain type='kvm'><name>e</name><memory unit='EiB'>99</memory><os><type>hvm</type></os></domain>", 82, NULL },
	{ "<domain type='kvm'><name>e</name><memory>100</memory><os><type>foo</type></os></domain>", 67,
	  "unsupported configuration: unknown OS type 'foo'" },
	{ DOMAIN("<vcpu current='3'>2</vcpu>"), 67,
	  "unsupported configuration: maximum vCPU count must not be less than current vCPU count" },
	{ DOMAIN("<vcpu>100000</vcpu>"), 67, NULL },
	{ DOMAIN("<cpu mode='host-passthrough'><topology sockets='1' cores='3' threads='1'/></cpu>"), 67,
	  "unsupported configuration: CPU topology doesn't match maximum vcpu count" },
	{ DOMAIN("<cpu mode='host-passthrough'><topology sockets='0' cores='3' threads='1'/></cpu>"), 27,
	  "XML error: Invalid value for attribute 'sockets' in element 'topology': Zero is not permitted" },
	{ DOMAIN("<vcpu cpuset='x'>1</vcpu>"), 8, "invalid argument: Failed to parse bitmap 'x'" },
	{ DEVICES("<disk type='file'><source file='/a'/></disk>"), 20, "missing target information for device /a" },
	{ DEVICES("<disk type='file'><source file='/a'/><target dev='vda' bus='zz'/></disk>"), 27,
	  "XML error: Invalid value for attribute 'bus' in element 'target': 'zz'." },
	{ DEVICES("<disk type='file'><source file='/a'/><target dev='zz'/></disk>"), 27,
	  "XML error: Unknown disk name 'zz' and no address specified" },
	{ DEVICES("<disk type='file'><source file='/a'/><target dev='vda'/></disk>"
		  "<disk type='file'><source file='/b'/><target dev='vda'/></disk>"),
	  27, "XML error: target 'vda' duplicated for disk sources '/a' and '/b'" },
	{ DEVICES("<disk type='file'><target dev='vda' bus='virtio'/></disk>"), 19,
	  "missing source information for device vda" },
	{ DEVICES("<disk type='file'><driver name='qemu' type='raw' cache='zz'/><source file='/a'/><target dev='vda'/></disk>"),
	  27, "XML error: Invalid value for attribute 'cache' in element 'driver': 'zz'." },
	{ DEVICES("<disk type='zz'/>"), 27, "XML error: Invalid value for attribute 'type' in element 'disk': 'zz'." },
	{ DEVICES("<interface type='zz'/>"), 27,
	  "XML error: Invalid value for attribute 'type' in element 'interface': 'zz'." },
	{ DEVICES("<interface type='bridge'/>"), 27, "XML error: interface type='bridge' requires a 'source' element" },
	{ DEVICES("<interface type='user'><mac address='zz'/></interface>"), 27,
	  "XML error: unable to parse mac address 'zz'" },
	{ DEVICES("<interface type='user'><mac address='01:00:00:00:00:00'/></interface>"), 27,
	  "XML error: expected unicast mac address, found multicast '01:00:00:00:00:00'" },
	{ DEVICES("<controller type='zz'/>"), 27,
	  "XML error: Invalid value for attribute 'type' in element 'controller': 'zz'." },
	{ DEVICES("<memballoon model='zz'/>"), 27,
	  "XML error: Invalid value for attribute 'model' in element 'memballoon': 'zz'." },
	{ DEVICES("<disk><source file='/a'/><target dev='vda'/>"
		  "<address type='pci' domain='0' bus='0' slot='99' function='0'/></disk>"),
	  27, "XML error: Invalid PCI address slot='0x63', must be <= 0x1F" },
	{ DEVICES("<disk><source file='/a'/><target dev='vda'/>"
		  "<address type='pci' domain='0' bus='1' slot='1' function='0'/></disk>"),
	  27, "XML error: Invalid PCI address 0000:01:01.0. slot must be <= 0" },
	{ DEVICES("<disk><source file='/a'/><target dev='vda'/><boot order='0'/></disk>"), 27,
	  "XML error: Invalid value for attribute 'order' in element 'boot': Zero is not permitted" },
	{ DEVICES("<disk><source file='/a'/><target dev='vda'/><boot order='1'/></disk>"
		  "<disk><source file='/b'/><target dev='vdb'/><boot order='1'/></disk>"),
	  67, "unsupported configuration: boot order '1' used for more than one device" },
	{ DEVICES("<disk><source file='/a'/><target dev='vda'/><address type='pci' bus='1'/></disk>"
		  "<disk><source file='/b'/><target dev='vdb'/><address type='pci' bus='1'/></disk>"),
	  27, "XML error: Attempted double use of PCI Address 0000:01:00.0" },
	/* Keel's own */
	{ DOMAIN("<frobnicate/>"), 67, "unsupported configuration: element <frobnicate> in <domain> is not supported by Keel" },
	{ DEVICES("<graphics type='vnc'/>"), 67,
	  "unsupported configuration: element <graphics> in <devices> is not supported by Keel" },
	{ DEVICES("<video><model type='qxl'/></video>"), 67, NULL },
	{ DEVICES("<interface type='user'><filterref filter='x'/></interface>"), 67,
	  "unsupported configuration: element <filterref> in <interface> is not supported by Keel" },
	{ DEVICES("<disk><source file='/a'/><target dev='vda' frob='1'/></disk>"), 67,
	  "unsupported configuration: attribute 'frob' of element <target> is not supported by Keel" },
	{ DEVICES("<disk type='nvme'><target dev='vda'/></disk>"), 67,
	  "unsupported configuration: element 'disk' with type='nvme' is not supported by Keel" },
	{ DOMAIN("<launchSecurity type='sev'/>"), 67, NULL },
	{ DOMAIN("text"), 67, "unsupported configuration: text in element <domain> is not supported by Keel" },
	{ DOMAIN("<vcpu>1</vcpu><vcpu>2</vcpu>"), 27, NULL },
	{ DOMAIN("<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><q:arg value='-s'/></q:commandline>"),
	  67, "unsupported configuration: element <q:commandline> in <domain> is not supported by Keel" },
	{ "<!DOCTYPE domain [<!ENTITY a 'b'>]>" DOMAIN("<title>&a;</title>"), 27, NULL },
	{ DOMAIN("<cpu mode='custom'><model>Haswell</model></cpu>"), 67, NULL },
	{ DEVICES("<emulator>/usr/bin/other</emulator>"), 67, NULL },
	{ DOMAIN("<features><viridian/></features>"), 67, "unsupported configuration: feature viridian is not supported by Keel" },
};

static void test_errors(void **state)
{
	struct domain_caps caps = everything();

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct err err = ERR_INIT;
		struct domain *def = domain_parse(bad[i].xml, 0, &caps, &err);
		char text[640];

		if (def)
			fail_msg("accepted: %s", bad[i].xml);
		model_vir_message(&err, text);
		if (model_vir_code(&err) != bad[i].code)
			fail_msg("code %d, not %d, \"%s\" for %s", model_vir_code(&err), bad[i].code, text, bad[i].xml);
		if (bad[i].message && strncmp(text, bad[i].message, strlen(bad[i].message)))
			fail_msg("\"%s\", not \"%s\"", text, bad[i].message);
	}
}

/* What a host without them refuses, and one with them takes. */
static void test_refused_here(void **state)
{
	static const struct {
		enum dom_feature needs;
		const char *xml, *named;
	} cases[] = {
		{ DOM_CAN_SATA, DEVICES("<disk><source file='/a'/><target dev='sda' bus='sata'/></disk>"), "'sata'" },
		{ DOM_CAN_VIRTIO_SCSI, DEVICES("<disk><source file='/a'/><target dev='sda' bus='scsi'/></disk>"), "'scsi'" },
		{ DOM_CAN_REMOTE_DISK,
		  DEVICES("<disk type='network'><source protocol='nbd'><host name='h'/></source><target dev='vda'/></disk>"),
		  "disk type='network'" },
		{ DOM_CAN_NET_TAP, DEVICES("<interface type='bridge'><source bridge='b'/></interface>"), "'bridge'" },
		{ DOM_CAN_NET_DIRECT, DEVICES("<interface type='direct'><source dev='b'/></interface>"), "'direct'" },
		{ DOM_CAN_USB, DEVICES("<input type='tablet' bus='usb'/>"), "'usb'" },
		{ DOM_CAN_VSOCK, DEVICES("<vsock model='virtio'/>"), "<vsock>" },
		{ DOM_CAN_TPM, DEVICES("<tpm model='tpm-crb'><backend type='emulator'/></tpm>"), "<tpm>" },
		{ DOM_CAN_WATCHDOG, DEVICES("<watchdog model='itco'/>"), "<watchdog>" },
		{ DOM_CAN_VIRTIO_FS,
		  DEVICES("<filesystem><driver type='virtiofs'/><source dir='/a'/><target dir='t'/></filesystem>"),
		  "<filesystem>" },
		{ DOM_CAN_IOTUNE,
		  DEVICES("<disk><source file='/a'/><target dev='vda'/><iotune><total_iops_sec>5</total_iops_sec></iotune></disk>"),
		  "<iotune>" },
		{ DOM_CAN_TUNE, DOMAIN("<memtune><hard_limit>500000</hard_limit></memtune>"), "<memtune>" },
		{ DOM_CAN_TUNE, DOMAIN("<cputune><shares>10</shares></cputune>"), "<cputune>" },
		{ DOM_CAN_PIN, DOMAIN("<vcpu cpuset='0'>1</vcpu>"), "cpuset" },
		{ DOM_CAN_CLOCK, DOMAIN("<clock offset='variable'/>"), "clock offset" },
		{ DOM_CAN_TOPOLOGY,
		  DOMAIN("<vcpu>2</vcpu><cpu mode='host-passthrough'><topology sockets='2' cores='1' threads='1'/></cpu>"),
		  "topology" },
		{ DOM_CAN_HUGEPAGES, DOMAIN("<memoryBacking><hugepages/></memoryBacking>"), "<hugepages>" },
		{ DOM_CAN_VCPU_HOTPLUG, DOMAIN("<vcpu current='1'>2</vcpu>"), "current vCPUs" },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct domain_caps caps = everything();
		struct err err = ERR_INIT;
		struct domain *def = domain_parse(cases[i].xml, 0, &caps, &err);

		if (!def)
			fail_msg("%s: %s", cases[i].xml, err_msg(&err));
		domain_free(def);
		caps.devices &= ~(1ull << cases[i].needs);
		def = domain_parse(cases[i].xml, 0, &caps, &err);
		assert_null(def);
		assert_int_equal(model_vir_code(&err), 67);
		assert_non_null(strstr(err_msg(&err), cases[i].named));
		/* our own files are read whatever the host has now */
		def = domain_parse(cases[i].xml, DOMAIN_PARSE_SKIP_CHECK, &caps, NULL);
		assert_non_null(def);
		domain_free(def);
	}
}

static void test_virt_type(void **state)
{
	struct domain_caps caps = everything();
	struct err err = ERR_INIT;

	(void)state;
	caps.kvm = false;
	assert_null(domain_parse(DOMAIN(""), 0, &caps, &err));
	assert_string_equal(err_msg(&err), "Emulator '/usr/bin/qemu-system-x86_64' does not support virt type 'kvm'");
}

/* ---- What is kept, dropped, filled in ------------------------------------- */

static void test_metadata_kept(void **state)
{
	static const char meta[] = "<metadata><a:x xmlns:a=\"urn:a\"><a:y> </a:y>  <a:z q=\"&lt;&amp;\">t<!-- c --></a:z>"
				   "</a:x></metadata>";
	struct domain *def;

	(void)state;
	def = must_parse(DOMAIN("<metadata><a:x xmlns:a='urn:a'><a:y> </a:y>  <a:z q='&lt;&amp;'>t<!-- c --></a:z>"
				"</a:x></metadata>"),
			 0);
	assert_string_equal(def->metadata, meta);
	domain_free(def);
	/* a namespace that the root declares goes with it */
	def = must_parse("<domain type='kvm' xmlns:a='urn:a'><name>t</name><memory>1000</memory><metadata><a:x/></metadata>"
			 "<os><type>hvm</type></os></domain>",
			 0);
	assert_string_equal(def->metadata, "<metadata xmlns:a=\"urn:a\"><a:x/></metadata>");
	domain_free(def);
}

static void test_metadata_changes(void **state)
{
	struct domain *def = must_parse(DOMAIN(""), 0);
	struct err err = ERR_INIT;
	char *text;

	(void)state;
	assert_null(domain_metadata_get(def, "urn:a", &err));
	assert_int_equal(model_vir_code(&err), 80);
	assert_int_equal(domain_metadata_set(def, "<x q='1'><y/></x>", "a", "urn:a", NULL), 0);
	assert_int_equal(domain_metadata_set(def, "<x/>", "b", "urn:b", NULL), 0);
	text = domain_metadata_get(def, "urn:a", NULL);
	assert_string_equal(text, "<a:x xmlns:a=\"urn:a\" q=\"1\">\n  <y/>\n</a:x>");
	free(text);
	assert_string_equal(def->metadata, "<metadata>\n    <a:x xmlns:a=\"urn:a\" q=\"1\">\n      <y/>\n    </a:x>\n"
					   "    <b:x xmlns:b=\"urn:b\"/>\n  </metadata>");
	assert_int_equal(domain_metadata_set(def, "<z/>", "a", "urn:a", NULL), 0);
	text = domain_metadata_get(def, "urn:a", NULL);
	assert_string_equal(text, "<a:z xmlns:a=\"urn:a\"/>");
	free(text);
	assert_int_equal(domain_metadata_set(def, NULL, NULL, "urn:a", NULL), 0);
	assert_int_equal(domain_metadata_set(def, NULL, NULL, "urn:b", NULL), 0);
	assert_null(def->metadata);
	err = ERR_INIT;
	assert_true(domain_metadata_set(def, NULL, NULL, "urn:b", &err) < 0);
	assert_int_equal(model_vir_code(&err), 80);
	err = ERR_INIT;
	assert_true(domain_metadata_set(def, "<x", "k", "urn:b", &err) < 0);
	assert_int_equal(model_vir_code(&err), 35);
	domain_free(def);
}

/* What a running guest's XML has and its definition hasn't. */
static void test_live_parts(void **state)
{
	static const char xml[] =
		"<domain type='kvm' id='7'><name>t</name><memory>100000</memory><os><type>hvm</type></os><devices>"
		"<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='b'/><target dev='vnet5'/>"
		"<alias name='net0'/></interface>"
		"<serial type='pty'><source path='/dev/pts/3'/><target port='0'/><alias name='serial0'/></serial>"
		"<rng model='virtio'><backend model='random'>/dev/urandom</backend><alias name='ua-mine'/></rng>"
		"</devices></domain>";
	struct domain *def = must_parse(xml, 0), *live = must_parse(xml, DOMAIN_PARSE_STATUS | DOMAIN_PARSE_NO_FILL);
	char *text;

	(void)state;
	assert_false(def->id.set);
	assert_null(def->devices->interface.v[0]->target);
	assert_null(def->devices->interface.v[0]->info.alias);
	assert_string_equal(def->devices->rng.v[0]->info.alias, "ua-mine");
	text = domain_format(def, 0);
	assert_null(strstr(text, "pts"));
	assert_null(strstr(text, "id='7'"));
	free(text);
	assert_int_equal(live->id.value, 7);
	assert_string_equal(live->devices->interface.v[0]->target->dev, "vnet5");
	text = domain_format(live, DOMAIN_FORMAT_LIVE);
	assert_non_null(strstr(text, "<domain type='kvm' id='7'>"));
	assert_non_null(strstr(text, "<console type='pty' tty='/dev/pts/3'>\n      <source path='/dev/pts/3'/>\n"));
	assert_non_null(strstr(text, "<alias name='net0'/>"));
	free(text);
	text = domain_format(live, 0);
	assert_null(strstr(text, "pts"));
	assert_null(strstr(text, "vnet5"));
	assert_null(strstr(text, "id='7'"));
	assert_null(strstr(text, "<alias name='net0'/>"));
	free(text);
	domain_free(def);
	domain_free(live);
}

static void test_aliases(void **state)
{
	struct domain *def = must_parse(
		DEVICES("<disk><source file='/a'/><target dev='vdc'/></disk>"
			"<disk><source file='/b'/><target dev='sdb' bus='scsi'/></disk>"
			"<interface type='user'/><interface type='user'><alias name='ua-n'/></interface><interface type='user'/>"
			"<console type='pty'/><channel type='unix'><target type='virtio' name='a'/></channel>"),
		0);
	const struct dom_devices *d = def->devices;

	(void)state;
	assert_int_equal(domain_fill_aliases(def, NULL), 0);
	assert_string_equal(d->disk.v[0]->info.alias, "virtio-disk2");
	assert_string_equal(d->disk.v[1]->info.alias, "scsi0-0-0-1");
	assert_string_equal(d->interface.v[0]->info.alias, "net0");
	assert_string_equal(d->interface.v[1]->info.alias, "ua-n");
	assert_string_equal(d->interface.v[2]->info.alias, "net1");
	assert_string_equal(d->serial.v[0]->info.alias, "serial0");
	assert_string_equal(d->console.v[0]->info.alias, "serial0");
	assert_string_equal(d->channel.v[0]->info.alias, "channel0");
	assert_string_equal(d->memballoon->info.alias, "balloon0");
	assert_string_equal(d->controller.v[0]->info.alias, "usb");
	domain_clear_aliases(def);
	assert_null(d->disk.v[0]->info.alias);
	assert_string_equal(d->interface.v[1]->info.alias, "ua-n");
	domain_free(def);
}

static void test_generated(void **state)
{
	static const char xml[] = "<domain type='kvm'><name>t</name><memory>1000</memory><os><type>hvm</type></os><genid/>"
				  "<devices><interface type='user'/></devices></domain>";
	struct domain *a = must_parse(xml, 0), *b = must_parse(xml, 0);
	const uint8_t *mac = a->devices->interface.v[0]->mac->address.bytes;

	(void)state;
	assert_true(a->uuid.set && b->uuid.set && a->genid->uuid.set);
	assert_memory_not_equal(a->uuid.bytes, b->uuid.bytes, 16);
	assert_memory_not_equal(a->genid->uuid.bytes, b->genid->uuid.bytes, 16);
	assert_int_equal(a->uuid.bytes[6] >> 4, 4);
	assert_memory_equal(mac, "\x52\x54\x00", 3);
	assert_memory_not_equal(mac, b->devices->interface.v[0]->mac->address.bytes, 6);
	assert_string_equal(a->os->type->machine, "pc-q35-7.2");
	assert_string_equal(a->os->type->arch, "x86_64");
	assert_string_equal(a->devices->emulator, "/usr/bin/qemu-system-x86_64");
	assert_int_equal(a->cpu->mode, DOM_CPU_HOST_PASSTHROUGH);
	domain_free(a);
	domain_free(b);
}

/* virScaleInteger(): binary and decimal units, rounded up to KiB. */
static void test_units(void **state)
{
	static const struct {
		const char *memory;
		uint64_t kib;
	} cases[] = {
		{ "<memory>1500</memory>", 1500 },
		{ "<memory unit='bytes'>1500000</memory>", 1465 },
		{ "<memory unit='b'>1024000</memory>", 1000 },
		{ "<memory unit='KB'>2000</memory>", 1954 },
		{ "<memory unit='k'>2000</memory>", 2000 },
		{ "<memory unit='M'>3</memory>", 3072 },
		{ "<memory unit='MB'>3</memory>", 2930 },
		{ "<memory unit='GiB'>2</memory>", 2097152 },
		{ "<memory unit='T'> 1 </memory>", 1073741824 },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char xml[512];
		struct domain *def;

		snprintf(xml, sizeof(xml), "<domain type='kvm'><name>t</name>%s<os><type>hvm</type></os></domain>",
			 cases[i].memory);
		def = must_parse(xml, 0);
		assert_int_equal(def->memory->kib, cases[i].kib);
		assert_int_equal(def->current_memory->kib, cases[i].kib);
		domain_free(def);
	}
}

static void test_abi(void **state)
{
	static const struct {
		const char *other, *message;
	} cases[] = {
		{ DOMAIN("<title>another title</title>"), NULL },
		{ DOMAIN("<vcpu>2</vcpu>"), "Target vcpu" },
		{ DEVICES("<disk><source file='/a'/><target dev='vda'/></disk>"), "Target domain disk count 1 does not match source 0" },
		{ DOMAIN("<clock><timer name='hpet' present='no'/></clock>"),
		  "Target domain timer count 1 does not match source 0" },
		{ "<domain type='kvm'><name>t</name><uuid>6695eb01-f6a4-8304-79aa-97f2502e193e</uuid><memory>100000</memory>"
		  "<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>",
		  "Target domain uuid 6695eb01-f6a4-8304-79aa-97f2502e193e does not match source "
		  "6695eb01-f6a4-8304-79aa-97f2502e193f" },
	};
	struct domain *src = must_parse(DOMAIN(""), 0);

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct domain *dst = must_parse(cases[i].other, 0);
		struct err err = ERR_INIT;
		int ret = domain_abi_check(src, dst, &err);

		if (!cases[i].message) {
			assert_int_equal(ret, 0);
		} else {
			assert_int_equal(model_vir_code(&err), 67);
			if (strncmp(err_msg(&err), cases[i].message, strlen(cases[i].message)))
				fail_msg("\"%s\", not \"%s\"", err_msg(&err), cases[i].message);
		}
		domain_free(dst);
	}
	domain_free(src);
}

static void test_validate(void **state)
{
	struct domain_caps caps = everything();
	struct err err = ERR_INIT;
	struct domain *def;

	(void)state;
	if (access("/usr/share/libvirt/schemas/domain.rng", R_OK)) {
		print_message("SKIP: no schemas of libvirt's on this host\n");
		skip();
	}
	def = domain_parse(DOMAIN(""), DOMAIN_PARSE_VALIDATE, &caps, NULL);
	assert_non_null(def);
	domain_free(def);
	assert_null(domain_parse(DOMAIN("<vcpu placement='zz'>1</vcpu>"), DOMAIN_PARSE_VALIDATE, &caps, &err));
	assert_int_equal(model_vir_code(&err), 92);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_errors),		 cmocka_unit_test(test_refused_here),
		cmocka_unit_test(test_virt_type),	 cmocka_unit_test(test_metadata_kept),
		cmocka_unit_test(test_metadata_changes), cmocka_unit_test(test_live_parts),
		cmocka_unit_test(test_aliases),		 cmocka_unit_test(test_generated),
		cmocka_unit_test(test_abi),		 cmocka_unit_test(test_validate),
		cmocka_unit_test(test_units),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
