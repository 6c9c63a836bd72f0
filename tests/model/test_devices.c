/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Attaching, detaching and updating devices of a definition. */
#include "model_test.h"

#define DISK(source, dev) "<disk type='file'><source file='" source "'/><target dev='" dev "'/></disk>"
#define NET(mac) "<interface type='user'><mac address='" mac "'/></interface>"

static struct domain_device parse_device(const char *xml)
{
	struct domain_caps caps = everything();
	struct domain_device dev;
	struct err err = ERR_INIT;

	if (domain_device_parse(xml, 0, NULL, &caps, &dev, &err))
		fail_msg("%s: %s", xml, err_msg(&err));
	return dev;
}

static void attach(struct domain *def, const char *xml)
{
	struct domain_caps caps = everything();
	struct domain_device dev = parse_device(xml);
	struct err err = ERR_INIT;

	if (domain_device_attach(def, &dev, &caps, &err))
		fail_msg("%s: %s", xml, err_msg(&err));
	assert_null(dev.dev);
}

static int attach_code(struct domain *def, const char *xml, const char *message)
{
	struct domain_caps caps = everything();
	struct domain_device dev = parse_device(xml);
	struct err err = ERR_INIT;

	assert_true(domain_device_attach(def, &dev, &caps, &err) < 0);
	assert_non_null(dev.dev);
	domain_device_free(&dev);
	assert_non_null(strstr(err_msg(&err), message));
	return model_vir_code(&err);
}

static int detach(struct domain *def, const char *xml)
{
	struct domain_device dev = parse_device(xml), found;
	struct err err = ERR_INIT;
	int ret = domain_device_find(def, &dev, &found, &err);

	domain_device_free(&dev);
	if (ret)
		return model_vir_code(&err);
	assert_int_equal(domain_device_detach(def, &found, &err), 0);
	domain_device_free(&found);
	return 0;
}

/* Issue 5: an attach followed by a detach leaves the XML byte for byte as it was. */
static void test_round_trip(void **state)
{
	static const char *const devices[] = {
		DISK("/b", "vdb"),
		DISK("/b", "vdz"),
		NET("52:54:00:00:00:09"),
		"<rng model='virtio'><rate bytes='5'/><backend model='random'>/dev/urandom</backend></rng>",
		"<filesystem><driver type='virtiofs'/><source dir='/a'/><target dir='t'/></filesystem>",
		"<input type='tablet' bus='virtio'/>",
		"<vsock model='virtio'><cid auto='yes'/></vsock>",
		"<watchdog model='itco' action='reset'/>",
		"<controller type='scsi' model='virtio-scsi'/>",
	};
	struct domain *def = must_parse(DEVICES(DISK("/a", "vda") NET("52:54:00:00:00:01")), 0);
	char *before = domain_format(def, 0), *after;

	(void)state;
	for (unsigned i = 0; i < sizeof(devices) / sizeof(devices[0]); i++) {
		attach(def, devices[i]);
		after = domain_format(def, 0);
		assert_string_not_equal(before, after);
		free(after);
		if (detach(def, devices[i]))
			fail_msg("not found again: %s", devices[i]);
		after = domain_format(def, 0);
		assert_string_equal(before, after);
		free(after);
	}
	free(before);
	domain_free(def);
}

static void test_conflicts(void **state)
{
	struct domain *def = must_parse(DEVICES(DISK("/a", "vda") "<vsock model='virtio'><cid auto='yes'/></vsock>"), 0);
	char *before = domain_format(def, 0), *after;

	(void)state;
	assert_int_equal(attach_code(def, DISK("/b", "vda"), "target vda already exists"), 55);
	assert_int_equal(attach_code(def, "<vsock model='virtio'/>", "already has a vsock"), 55);
	assert_int_equal(attach_code(def, "<memballoon model='virtio'/>", "persistent attach of device"), 84);
	assert_int_equal(attach_code(def,
				     "<disk><source file='/q'/><target dev='vdq'/>"
				     "<address type='pci' domain='0' bus='2' slot='0' function='0'/></disk>",
				     "Attempted double use of PCI Address 0000:02:00.0"),
			 27);
	after = domain_format(def, 0);
	assert_string_equal(before, after);
	free(before);
	free(after);
	domain_free(def);
}

static void test_not_there(void **state)
{
	struct domain *def = must_parse(DEVICES(DISK("/a", "vda") NET("52:54:00:00:00:01")), 0);

	(void)state;
	assert_int_equal(detach(def, DISK("/a", "vdb")), 99);
	assert_int_equal(detach(def, NET("52:54:00:00:00:02")), 99);
	assert_int_equal(detach(def, "<rng model='virtio'><backend model='random'/></rng>"), 99);
	assert_int_equal(detach(def, "<controller type='scsi' index='4'/>"), 99);
	assert_int_equal(detach(def, "<vsock model='virtio'/>"), 9);
	assert_int_equal(detach(def, "<channel type='unix'><target type='virtio' name='x'/></channel>"), 8);
	/* as libvirt: the target alone says which disk, the MAC which interface */
	assert_int_equal(detach(def, DISK("/other", "vda")), 0);
	assert_int_equal(detach(def, NET("52:54:00:00:00:01")), 0);
	assert_int_equal(def->devices->disk.n, 0);
	domain_free(def);
}

static void test_order(void **state)
{
	struct domain *def = must_parse(DEVICES(DISK("/c", "vdc")), 0);
	const struct dom_devices *d = def->devices;

	(void)state;
	attach(def, DISK("/d", "vdd"));
	attach(def, DISK("/a", "vda"));
	attach(def, DISK("/aa", "vdaa"));
	attach(def, DISK("/b", "vdb"));
	assert_int_equal(d->disk.n, 5);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(d->disk.v[i]->target->dev[2], 'a' + i);
	assert_string_equal(d->disk.v[4]->target->dev, "vdaa");
	domain_free(def);
}

/* A running machine has the ports that it was started with. */
static void test_running(void **state)
{
	struct domain *def = must_parse(DEVICES(DISK("/a", "vda")), 0);

	(void)state;
	def->id = (struct opt32){ 3, true };
	attach(def, DISK("/b", "vdb"));
	assert_int_equal(def->devices->disk.v[1]->info.address->bus, 4);
	assert_int_equal(attach_code(def, DISK("/c", "vdc"), "No more available PCI slots"), 1);
	assert_int_equal(detach(def, DISK("/b", "vdb")), 0);
	attach(def, DISK("/c", "vdc"));
	domain_free(def);
}

static void test_update(void **state)
{
	struct domain *def = must_parse(DEVICES(DISK("/a", "vda") NET("52:54:00:00:00:01")), 0);
	struct domain_caps caps = everything();
	struct domain_device dev = parse_device("<interface type='user'><mac address='52:54:00:00:00:01'/>"
						"<link state='down'/></interface>"),
			     old;
	uint32_t bus = def->devices->interface.v[0]->info.address->bus;

	(void)state;
	assert_int_equal(domain_device_find(def, &dev, &old, NULL), 0);
	assert_int_equal(domain_device_update(def, &old, &dev, &caps, NULL), 0);
	assert_null(dev.dev);
	assert_int_equal(def->devices->interface.n, 1);
	assert_string_equal(def->devices->interface.v[0]->link, "down");
	assert_int_equal(def->devices->interface.v[0]->info.address->bus, bus);
	domain_free(def);
}

static void test_alone(void **state)
{
	struct domain_device dev = parse_device("<disk type='file'><source file='/a'/><target dev='vda'/></disk>"), copy;
	struct domain_caps caps = everything();
	struct err err = ERR_INIT;
	char *text = domain_device_format(&dev, 0);

	(void)state;
	assert_string_equal(text, "<disk type='file' device='disk'>\n  <driver name='qemu' type='raw'/>\n"
				  "  <source file='/a'/>\n  <target dev='vda' bus='virtio'/>\n</disk>\n");
	assert_int_equal(domain_device_copy(&dev, &copy), 0);
	free(text);
	text = domain_device_format(&copy, 0);
	assert_non_null(strstr(text, "/a"));
	free(text);
	domain_device_free(&copy);
	domain_device_free(&dev);
	assert_true(domain_device_parse("<frob/>", 0, NULL, &caps, &dev, &err) < 0);
	assert_string_equal(err_msg(&err), "unknown device type 'frob'");
	err = ERR_INIT;
	assert_true(domain_device_parse("<disk", 0, NULL, &caps, &dev, &err) < 0);
	assert_int_equal(model_vir_code(&err), 35);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip), cmocka_unit_test(test_conflicts), cmocka_unit_test(test_not_there),
		cmocka_unit_test(test_order),	   cmocka_unit_test(test_running),   cmocka_unit_test(test_update),
		cmocka_unit_test(test_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
