/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What libvirt adds to a definition: identity, the devices every PC has, controllers, aliases. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "model/device_tables.h"
#include "model/fill.h"

bool random_bytes(void *buf, size_t len)
{
	return getrandom(buf, len, 0) == (ssize_t)len;
}

void mac_generate(uint8_t mac[6])
{
	static const uint8_t prefix[3] = { 0x52, 0x54, 0x00 };

	memcpy(mac, prefix, sizeof(prefix));
	if (!random_bytes(mac + 3, 3))
		mac[3] = mac[4] = mac[5] = 0;
}

/* RFC 4122, version 4. */
static int uuid_generate(struct opt_uuid *u, struct err *err)
{
	if (u->set)
		return 0;
	if (!random_bytes(u->bytes, sizeof(u->bytes)))
		return err_set_errno(err, errno, "cannot make a UUID");
	u->bytes[6] = (u->bytes[6] & 0x0f) | 0x40;
	u->bytes[8] = (u->bytes[8] & 0x3f) | 0x80;
	u->set = true;
	return 0;
}

static int replace(char **member, const char *text, struct err *err)
{
	char *copy = strdup(text);

	if (!copy)
		return xml_no_memory(err);
	free(*member);
	*member = copy;
	return 0;
}

static int fill_host(struct domain *def, const struct domain_caps *caps, struct err *err)
{
	char **machine = &def->os->type->machine;
	int ret = uuid_generate(&def->uuid, err);

	if (!ret && def->genid)
		ret = uuid_generate(&def->genid->uuid, err);
	if (!ret && (!*machine || !strcmp(*machine, "q35")))
		ret = replace(machine, DOMAIN_Q35, err);
	if (!ret && !def->devices->emulator && caps->emulator)
		ret = replace(&def->devices->emulator, caps->emulator, err);
	if (ret || def->cpu)
		return ret;
	def->cpu = calloc(1, sizeof(*def->cpu));
	if (!def->cpu)
		return xml_no_memory(err);
	def->cpu->mode = DOM_CPU_HOST_PASSTHROUGH;
	def->cpu->check = DOM_CPU_CHECK_NONE;
	def->cpu->migratable = TRI_YES;
	return 0;
}

static void *add_device(void *list, size_t size, struct err *err)
{
	void *dev = calloc(1, size);

	if (dev && xml_list_add(list, dev))
		return dev;
	free(dev);
	xml_no_memory(err);
	return NULL;
}

static int add_input(struct dom_devices *d, enum dom_input_type type, struct err *err)
{
	struct dom_input *in;

	for (unsigned i = 0; i < d->input.n; i++)
		if (d->input.v[i]->type == type && d->input.v[i]->bus == DOM_INPUT_PS2)
			return 0;
	in = add_device(&d->input, sizeof(*in), err);
	if (!in)
		return -err->code;
	in->type = type;
	in->bus = DOM_INPUT_PS2;
	return 0;
}

/* A PC has a keyboard controller, and libvirt's guests have a balloon unless they say "none". */
static int fill_implicit(struct domain *def, const struct domain_caps *caps, struct err *err)
{
	struct dom_devices *d = def->devices;
	struct dom_audio *audio;

	if (add_input(d, DOM_INPUT_MOUSE, err) || add_input(d, DOM_INPUT_KEYBOARD, err))
		return -err->code;
	if (!d->audio.n) {
		audio = add_device(&d->audio, sizeof(*audio), err);
		if (!audio)
			return -err->code;
		audio->id = (struct opt32){ 1, true };
		if (replace(&audio->type, "none", err))
			return -err->code;
	}
	if (d->memballoon)
		return 0;
	d->memballoon = calloc(1, sizeof(*d->memballoon));
	if (!d->memballoon)
		return xml_no_memory(err);
	return replace(&d->memballoon->model, DOM_CAN(caps, BALLOON) ? "virtio" : "none", err);
}

static int fill_macs(struct domain *def, struct err *err)
{
	for (unsigned i = 0; i < def->devices->interface.n; i++) {
		struct dom_interface *n = def->devices->interface.v[i];

		if (n->mac)
			continue;
		n->mac = calloc(1, sizeof(*n->mac));
		if (!n->mac)
			return xml_no_memory(err);
		mac_generate(n->mac->address.bytes);
		n->mac->address.set = true;
	}
	return 0;
}

/* ---- Controllers that follow from devices --------------------------------- */

static bool has_controller(const struct dom_devices *d, enum dom_controller_type type, uint32_t index)
{
	for (unsigned i = 0; i < d->controller.n; i++)
		if (d->controller.v[i]->type == type && d->controller.v[i]->index.value == index)
			return true;
	return false;
}

static int add_controller(struct domain *def, enum dom_controller_type type, uint32_t index, const char *model,
			  struct err *err)
{
	struct dom_controller *c;

	if (has_controller(def->devices, type, index))
		return 0;
	c = add_device(&def->devices->controller, sizeof(*c), err);
	if (!c)
		return -err->code;
	c->type = type;
	c->index = (struct opt32){ index, true };
	return model ? replace(&c->model, model, err) : 0;
}

static int fill_drive_controllers(struct domain *def, struct err *err)
{
	struct dom_devices *d = def->devices;

	for (unsigned i = 0; i < d->disk.n; i++) {
		const struct dom_disk *disk = d->disk.v[i];
		bool scsi = disk->target->bus == DOM_BUS_SCSI;
		enum dom_controller_type type = scsi ? DOM_CONTROLLER_SCSI : DOM_CONTROLLER_SATA;

		if ((!scsi && disk->target->bus != DOM_BUS_SATA) || !disk->info.address)
			continue;
		if (disk->info.address->controller > 255)
			return err_set(err, EINVAL, "controller %u of disk '%.50s' is too high, maximum is 255",
				       disk->info.address->controller, disk->target->dev);
		for (uint32_t k = 0; k <= disk->info.address->controller; k++)
			if (add_controller(def, type, k, scsi ? "virtio-scsi" : NULL, err))
				return -err->code;
	}
	for (unsigned i = 0; i < d->controller.n; i++)
		if (d->controller.v[i]->type == DOM_CONTROLLER_SCSI && !d->controller.v[i]->model &&
		    replace(&d->controller.v[i]->model, "virtio-scsi", err))
			return -err->code;
	return 0;
}

static bool port_taken(const struct dom_devices *d, uint32_t controller, uint32_t port)
{
	for (unsigned i = 0; i < d->channel.n; i++) {
		const struct dom_address *a = d->channel.v[i]->info.address;

		if (a && a->type == DOM_ADDRESS_VIRTIO_SERIAL && a->controller == controller && a->port == port)
			return true;
	}
	return false;
}

/* Port 0 is the console's; channels count from 1 (31 ports a controller, as QEMU's). */
static int fill_channel_address(struct dom_devices *d, struct dom_chr *c, struct err *err)
{
	uint32_t controller = 0, port = 1;

	if (c->info.address && c->info.address->type != DOM_ADDRESS_VIRTIO_SERIAL)
		return err_set(err, EINVAL, "virtio serial device has invalid address type");
	if (c->info.address && c->info.address->port)
		return 0;
	if (c->info.address)
		controller = c->info.address->controller;
	while (port_taken(d, controller, port))
		if (++port == 31) {
			controller++;
			port = 1;
		}
	if (!c->info.address)
		c->info.address = calloc(1, sizeof(*c->info.address));
	if (!c->info.address)
		return xml_no_memory(err);
	c->info.address->type = DOM_ADDRESS_VIRTIO_SERIAL;
	c->info.address->controller = controller;
	c->info.address->port = port;
	return 0;
}

static int fill_serial_controllers(struct domain *def, struct err *err)
{
	struct dom_devices *d = def->devices;
	int ret = 0;

	for (unsigned i = 0; i < d->channel.n && !ret; i++) {
		struct dom_chr *c = d->channel.v[i];

		ret = fill_channel_address(d, c, err);
		if (!ret && c->info.address->controller > 255)
			ret = err_set(err, EINVAL, "virtio serial controller %u is too high, maximum is 255",
				      c->info.address->controller);
		for (uint32_t k = 0; !ret && k <= c->info.address->controller; k++)
			ret = add_controller(def, DOM_CONTROLLER_VIRTIO_SERIAL, k, NULL, err);
	}
	for (unsigned i = 0; i < d->console.n && !ret; i++)
		if (!strcmp(d->console.v[i]->target->type, "virtio"))
			ret = add_controller(def, DOM_CONTROLLER_VIRTIO_SERIAL, 0, NULL, err);
	return ret;
}

static int fill_controllers(struct domain *def, const struct domain_caps *caps, struct err *err)
{
	struct dom_devices *d = def->devices;
	int ret = 0;

	if (DOM_CAN(caps, USB))
		ret = add_controller(def, DOM_CONTROLLER_USB, 0, "qemu-xhci", err);
	for (unsigned i = 0; i < d->controller.n && !ret; i++)
		if (d->controller.v[i]->type == DOM_CONTROLLER_USB && !d->controller.v[i]->model)
			ret = replace(&d->controller.v[i]->model, "qemu-xhci", err);
	if (!ret && DOM_CAN(caps, SATA))
		ret = add_controller(def, DOM_CONTROLLER_SATA, 0, NULL, err);
	if (!ret)
		ret = add_controller(def, DOM_CONTROLLER_PCI, 0, "pcie-root", err);
	if (!ret)
		ret = fill_drive_controllers(def, err);
	return ret ? ret : fill_serial_controllers(def, err);
}

int domain_fill(struct domain *def, const struct domain_caps *caps, struct err *err)
{
	int ret = fill_host(def, caps, err);

	if (!ret)
		ret = fill_implicit(def, caps, err);
	if (!ret)
		ret = fill_macs(def, err);
	if (!ret)
		ret = fill_controllers(def, caps, err);
	return ret ? ret : domain_fill_pci(def, caps, err);
}

/* ---- Aliases -------------------------------------------------------------- */

static int disk_alias(const struct dom_disk *d, char *text, size_t room)
{
	const struct dom_address *a = d->info.address;
	int n = 0;

	if (d->target->bus == DOM_BUS_SCSI)
		return snprintf(text, room, "scsi%u-%u-%u-%u", a ? a->controller : 0, a ? a->bus : 0, a ? a->target : 0,
				a ? a->unit : 0);
	if (d->target->bus != DOM_BUS_VIRTIO)
		return snprintf(text, room, "%s%u-%u-%u", dom_disk_bus_names[d->target->bus], a ? a->controller : 0,
				a ? a->bus : 0, a ? a->unit : 0);
	for (const char *p = d->target->dev + 2; *p >= 'a' && *p <= 'z' && n < 100000; p++)
		n = n * 26 + (*p - 'a' + 1);
	return snprintf(text, room, "virtio-disk%d", n - 1);
}

static int controller_alias(const struct dom_controller *c, char *text, size_t room)
{
	if (c->type == DOM_CONTROLLER_PCI)
		return c->index.value ? snprintf(text, room, "pci.%u", c->index.value) : snprintf(text, room, "pcie.0");
	if (c->type == DOM_CONTROLLER_USB && !c->index.value)
		return snprintf(text, room, "usb");
	if (c->type == DOM_CONTROLLER_SATA && !c->index.value)
		return snprintf(text, room, "ide");
	return snprintf(text, room, "%s%u", dom_controller_type_names[c->type], c->index.value);
}

struct naming {
	const struct domain *def;
	struct err *err;
};

static bool alias_taken(const struct domain *def, const char *alias)
{
	struct domain_device found;
	struct err ignored = ERR_INIT;

	return !domain_device_find_alias(def, alias, &found, &ignored);
}

static int name_one(const struct domain_device *dev, void *opaque)
{
	static const char *const stems[DOM_DEV_VSOCK + 1] = {
		[DOM_DEV_FILESYSTEM] = "fs",	   [DOM_DEV_INTERFACE] = "net",	 [DOM_DEV_SERIAL] = "serial",
		[DOM_DEV_PARALLEL] = "parallel",   [DOM_DEV_CONSOLE] = "console", [DOM_DEV_CHANNEL] = "channel",
		[DOM_DEV_INPUT] = "input",	   [DOM_DEV_TPM] = "tpm",	 [DOM_DEV_HOSTDEV] = "hostdev",
		[DOM_DEV_WATCHDOG] = "watchdog",   [DOM_DEV_MEMBALLOON] = "balloon", [DOM_DEV_RNG] = "rng",
		[DOM_DEV_MEMORY] = "dimm",	 [DOM_DEV_IOMMU] = "iommu",
		[DOM_DEV_VSOCK] = "vsock",
	};
	struct naming *n = opaque;
	struct dom_info *info = domain_device_info(dev);
	const struct dom_devices *d = n->def->devices;
	char text[64];

	if (info->alias || dev->kind == DOM_DEV_PANIC)
		return 0;
	if (dev->kind == DOM_DEV_DISK) {
		disk_alias(dev->dev, text, sizeof(text));
	} else if (dev->kind == DOM_DEV_CONTROLLER) {
		controller_alias(dev->dev, text, sizeof(text));
	} else if (dev->kind == DOM_DEV_CONSOLE && d->serial.n && dev->dev == d->console.v[0] &&
		   !strcmp(d->console.v[0]->target->type, "serial")) {
		snprintf(text, sizeof(text), "serial0"); /* the same port */
	} else {
		unsigned i = 0;

		/* a console's number is its place, shared or not */
		while (dev->kind == DOM_DEV_CONSOLE && i < d->console.n && d->console.v[i] != dev->dev)
			i++;
		do
			snprintf(text, sizeof(text), "%s%u", stems[dev->kind], i++);
		while (alias_taken(n->def, text));
	}
	info->alias = strdup(text);
	return info->alias ? 0 : xml_no_memory(n->err);
}

int domain_fill_aliases(struct domain *def, struct err *err)
{
	struct naming n = { def, err };

	return domain_device_each(def, name_one, &n);
}

static int clear_one(const struct domain_device *dev, void *opaque)
{
	struct dom_info *info = domain_device_info(dev);

	(void)opaque;
	if (info->alias && strncmp(info->alias, "ua-", 3)) {
		free(info->alias);
		info->alias = NULL;
	}
	return 0;
}

void domain_clear_aliases(struct domain *def)
{
	domain_device_each(def, clear_one, NULL);
}
