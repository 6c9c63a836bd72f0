/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a definition says without saying it, and what contradicts itself: needs nothing of the host. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/cpuset.h"
#include "model/device_tables.h"
#include "model/fill.h"

static int set_text(char **member, const char *text, struct err *err)
{
	if (*member)
		return 0;
	*member = strdup(text);
	return *member ? 0 : xml_no_memory(err);
}

static void *make(void *member, size_t size)
{
	void **m = member;

	if (!*m)
		*m = calloc(1, size);
	return *m;
}

/* ---- <domain> ------------------------------------------------------------- */

static int normalize_name(struct domain *def, struct err *err)
{
	if (!def->name || !*def->name)
		return err_set(err, EDOM, "missing name information");
	if (strchr(def->name, '/'))
		return err_set(err, EINVAL, "name %.200s cannot contain '/'", def->name);
	if (strchr(def->name, '\n'))
		return err_set(err, EINVAL, "name %.200s cannot contain '\\n'", def->name);
	if (!strcmp(def->name, ".") || !strcmp(def->name, "..") || strlen(def->name) > 200)
		return err_set(err, EINVAL, "name %.200s cannot be a file's", def->name);
	if (def->title && strchr(def->title, '\n'))
		return err_set(err, EINVAL, "Domain title can't contain newlines");
	return 0;
}

static int normalize_memory(struct domain *def, struct err *err)
{
	uint64_t cells = 0;

	if (def->cpu && def->cpu->numa)
		for (unsigned i = 0; i < def->cpu->numa->cell.n; i++)
			cells += def->cpu->numa->cell.v[i]->kib;
	if (!make(&def->memory, sizeof(*def->memory)) || !make(&def->current_memory, sizeof(*def->current_memory)))
		return xml_no_memory(err);
	if (cells)
		def->memory->kib = cells;
	if (!def->memory->kib)
		return err_set(err, EINVAL, "Memory size must be specified via <memory> or in the <numa> configuration");
	if (!def->current_memory->kib || def->current_memory->kib > def->memory->kib)
		def->current_memory->kib = def->memory->kib;
	if (def->max_memory && def->max_memory->kib < def->memory->kib)
		return err_set(err, EINVAL, "maximum memory size must be equal or greater than the actual memory size");
	return 0;
}

static int normalize_vcpu(struct domain *def, struct err *err)
{
	struct dom_vcpu *v = make(&def->vcpu, sizeof(*v));

	if (!v)
		return xml_no_memory(err);
	if (!v->max)
		v->max = 1;
	if (v->current.set && v->current.value > v->max)
		return err_set(err, ENOTSUP, "maximum vCPU count must not be less than current vCPU count");
	if (v->current.set && !v->current.value)
		return err_set(err, EINVAL, "current vcpus count must be an integer greater than 0");
	if (v->current.set && v->current.value == v->max)
		v->current = (struct opt32){ 0 };
	if (!v->placement)
		v->placement = DOM_PLACEMENT_STATIC;
	return cpuset_normalize(&v->cpuset, err);
}

static int by_vcpu(const void *a, const void *b)
{
	const struct dom_pin *x = *(struct dom_pin *const *)a, *y = *(struct dom_pin *const *)b;

	return x->vcpu.value < y->vcpu.value ? -1 : x->vcpu.value > y->vcpu.value;
}

static int normalize_cputune(struct domain *def, struct err *err)
{
	struct dom_cputune *t = def->cputune;
	int ret = 0;

	if (!t)
		return 0;
	for (unsigned i = 0; i < t->vcpupin.n && !ret; i++)
		ret = cpuset_normalize(&t->vcpupin.v[i]->cpuset, err);
	for (unsigned i = 0; i < t->iothreadpin.n && !ret; i++)
		ret = cpuset_normalize(&t->iothreadpin.v[i]->cpuset, err);
	if (!ret && t->emulatorpin)
		ret = cpuset_normalize(&t->emulatorpin->cpuset, err);
	if (ret)
		return ret;
	if (t->vcpupin.n)
		qsort(t->vcpupin.v, t->vcpupin.n, sizeof(t->vcpupin.v[0]), by_vcpu);
	for (unsigned i = 0; i < t->vcpupin.n; i++)
		if (t->vcpupin.v[i]->vcpu.value > UINT16_MAX)
			return err_set(err, EINVAL, "vcpu '%u' of vcpupin is too high", t->vcpupin.v[i]->vcpu.value);
	for (unsigned i = 1; i < t->vcpupin.n; i++)
		if (t->vcpupin.v[i]->vcpu.value == t->vcpupin.v[i - 1]->vcpu.value)
			return err_set(err, EIO, "duplicate vcpupin for vcpu '%u'", t->vcpupin.v[i]->vcpu.value);
	return 0;
}

static bool any_boot_order(const struct domain *def)
{
	for (unsigned i = 0; i < def->devices->disk.n; i++)
		if (def->devices->disk.v[i]->info.boot_order.set)
			return true;
	for (unsigned i = 0; i < def->devices->interface.n; i++)
		if (def->devices->interface.v[i]->info.boot_order.set)
			return true;
	for (unsigned i = 0; i < def->devices->hostdev.n; i++)
		if (def->devices->hostdev.v[i]->info.boot_order.set)
			return true;
	return false;
}

static int normalize_os(struct domain *def, struct err *err)
{
	struct dom_os *os = def->os;
	struct dom_bootdev *hd;

	if (!os->type->text)
		return err_set(err, EINVAL, "an os <type> must be specified");
	if (set_text(&os->type->arch, "x86_64", err))
		return -err->code;
	if (any_boot_order(def)) {
		if (os->boot.n)
			return err_set(err, ENOTSUP,
				       "per-device boot elements cannot be used together with os/boot elements");
		return 0;
	}
	if (os->boot.n)
		return 0;
	hd = calloc(1, sizeof(*hd));
	if (!hd || !LIST_ADD(&os->boot, hd)) {
		free(hd);
		return xml_no_memory(err);
	}
	hd->dev = DOM_BOOT_HD;
	return 0;
}

static int normalize_cpu(struct domain *def, struct err *err)
{
	struct dom_cpu *c = def->cpu;
	unsigned long long n;

	if (!c)
		return 0;
	if (!c->mode)
		c->mode = DOM_CPU_CUSTOM;
	if (c->mode == DOM_CPU_HOST_PASSTHROUGH || c->mode == DOM_CPU_MAXIMUM) {
		if (!c->check)
			c->check = DOM_CPU_CHECK_NONE;
		if (!c->migratable && c->mode == DOM_CPU_HOST_PASSTHROUGH)
			c->migratable = TRI_YES;
	} else if (c->migratable) {
		return err_set(err, EINVAL,
			       "Attribute migratable is only allowed for 'host-passthrough' / 'maximum' CPU mode");
	}
	for (unsigned i = 0; i < c->feature.n; i++)
		if (!c->feature.v[i]->policy)
			c->feature.v[i]->policy = DOM_CPU_REQUIRE;
	if (!c->topology)
		return 0;
	if (!c->topology->dies)
		c->topology->dies = 1;
	n = (unsigned long long)c->topology->sockets * c->topology->dies;
	n = n > UINT32_MAX ? n : n * c->topology->cores;
	n = n > UINT32_MAX ? n : n * c->topology->threads;
	if (n != def->vcpu->max)
		return err_set(err, ENOTSUP, "CPU topology doesn't match maximum vcpu count");
	return 0;
}

static int normalize_clock(struct domain *def, struct err *err)
{
	struct dom_clock_def *c = make(&def->clock, sizeof(*c));
	char *end;

	if (!c)
		return xml_no_memory(err);
	if (!c->offset)
		c->offset = DOM_CLOCK_UTC;
	if (c->adjustment && strcmp(c->adjustment, "reset")) {
		errno = 0;
		(void)strtoll(c->adjustment, &end, 10);
		if (errno || end == c->adjustment || *end)
			return err_set(err, EINVAL, "unknown clock adjustment '%.100s'", c->adjustment);
	}
	if (c->offset == DOM_CLOCK_TIMEZONE && !c->timezone)
		return err_set(err, EINVAL, "missing 'timezone' attribute for clock with offset='timezone'");
	if (c->offset == DOM_CLOCK_ABSOLUTE && !c->start.set)
		return err_set(err, EINVAL, "missing 'start' attribute for clock with offset='absolute'");
	if (c->offset == DOM_CLOCK_VARIABLE) {
		if (!c->basis)
			c->basis = DOM_BASIS_UTC;
		return set_text(&c->adjustment, "0", err);
	}
	return 0;
}

/* ---- Devices -------------------------------------------------------------- */

static int disk_bus(struct dom_disk *d, struct err *err)
{
	static const struct {
		const char *prefix;
		enum dom_disk_bus bus;
	} buses[] = { { "hd", DOM_BUS_IDE }, { "sd", DOM_BUS_SCSI }, { "vd", DOM_BUS_VIRTIO }, { "fd", DOM_BUS_FDC } };

	if (d->target->bus)
		return 0;
	if (d->device == DOM_DISK_FLOPPY) {
		d->target->bus = DOM_BUS_FDC;
		return 0;
	}
	for (unsigned i = 0; i < sizeof(buses) / sizeof(buses[0]); i++)
		if (!strncmp(d->target->dev, buses[i].prefix, 2)) {
			d->target->bus = buses[i].bus;
			return 0;
		}
	return err_set(err, EINVAL, "Unknown disk name '%.100s' and no address specified", d->target->dev);
}

/* "vda" is 0, "vdz" 25, "vdaa" 26; -1: no such name. A partition's number may follow. */
static int disk_index(const char *name)
{
	unsigned n = 0;
	const char *p;

	if (strlen(name) < 3)
		return -1;
	p = name[0] == 'x' ? name + 3 : name + 2;
	if (*p < 'a' || *p > 'z')
		return -1;
	for (; *p >= 'a' && *p <= 'z'; p++) {
		n = n * 26 + (*p - 'a' + 1);
		if (n > 100000)
			return -1;
	}
	return *p && strspn(p, "0123456789") != strlen(p) ? -1 : (int)n - 1;
}

/* Where a disk is on its bus follows from its name. */
static int disk_address(struct dom_disk *d, struct err *err)
{
	int index = disk_index(d->target->dev);
	unsigned units;

	switch (d->target->bus) {
	case DOM_BUS_SCSI: units = 7; break;
	case DOM_BUS_SATA: units = 6; break;
	default: return 0;
	}
	if (d->info.address)
		return 0;
	if (index < 0)
		return err_set(err, EINVAL, "Unknown disk name '%.100s' and no address specified", d->target->dev);
	d->info.address = calloc(1, sizeof(*d->info.address));
	if (!d->info.address)
		return xml_no_memory(err);
	d->info.address->type = DOM_ADDRESS_DRIVE;
	d->info.address->controller = index / units;
	d->info.address->unit = index % units;
	return 0;
}

static int normalize_disk(struct dom_disk *d, struct err *err)
{
	struct dom_disk_driver *drv = make(&d->driver, sizeof(*drv));
	int ret;

	if (!drv)
		return xml_no_memory(err);
	ret = disk_bus(d, err);
	if (!ret && d->device == DOM_DISK_DISK && !d->source)
		ret = err_set(err, ENOLINK, "%.100s", d->target->dev);
	if (!ret)
		ret = set_text(&drv->name, "qemu", err);
	if (!ret)
		ret = set_text(&drv->type, "raw", err);
	if (ret)
		return ret;
	if (d->device == DOM_DISK_CDROM) {
		d->readonly = true;
		if (!d->source && d->type == DOM_DISK_BLOCK)
			d->type = DOM_DISK_FILE;
	}
	if (d->device == DOM_DISK_DISK && ((d->type == DOM_DISK_FILE && !d->source->file) ||
					   (d->type == DOM_DISK_BLOCK && !d->source->dev) ||
					   (d->type == DOM_DISK_DIR && !d->source->dir)))
		return err_set(err, ENOLINK, "%.100s", d->target->dev);
	return disk_address(d, err);
}

static int normalize_interface(struct dom_interface *n, struct err *err)
{
	if (n->target && !n->target->dev && !n->target->managed) {
		free(n->target);
		n->target = NULL;
	}
	return set_text(&n->model, "virtio", err);
}

static int normalize_chr(struct dom_chr *c, enum dom_device_kind kind, struct err *err)
{
	struct dom_chr_target *t = make(&c->target, sizeof(*t));
	int ret = 0;

	if (!t)
		return xml_no_memory(err);
	/* <source mode='bind'/> of an agent's channel: the path is made up at each start. */
	if (kind == DOM_DEV_CHANNEL && c->type == DOM_CHR_UNIX && c->source.n == 1 && !c->source.v[0]->path &&
	    !c->source.v[0]->seclabel.n && !c->source.v[0]->reconnect) {
		free(c->source.v[0]->mode);
		c->source.v[0]->mode = NULL;
	}
	switch (kind) {
	case DOM_DEV_SERIAL:
		ret = set_text(&t->type, "isa-serial", err);
		if (!ret && !strcmp(t->type, "isa-serial"))
			ret = set_text(&t->model, "isa-serial", err);
		break;
	case DOM_DEV_CONSOLE:
		ret = set_text(&t->type, "serial", err);
		break;
	case DOM_DEV_CHANNEL:
		if (!t->type)
			ret = err_set(err, EINVAL, "target type must be specified for channel device");
		break;
	default:
		break;
	}
	return ret;
}

int device_normalize(struct domain_device *dev, const struct domain *def, struct err *err)
{
	struct dom_rng *rng = dev->dev;
	struct dom_input *input = dev->dev;

	(void)def;
	switch (dev->kind) {
	case DOM_DEV_DISK:
		return normalize_disk(dev->dev, err);
	case DOM_DEV_INTERFACE:
		return normalize_interface(dev->dev, err);
	case DOM_DEV_SERIAL:
	case DOM_DEV_PARALLEL:
	case DOM_DEV_CONSOLE:
	case DOM_DEV_CHANNEL:
		return normalize_chr(dev->dev, dev->kind, err);
	case DOM_DEV_RNG:
		if (rng->backend->model && !strcmp(rng->backend->model, "random"))
			return set_text(&rng->backend->path, "/dev/random", err);
		return 0;
	case DOM_DEV_INPUT:
		if (!input->bus)
			input->bus = input->type == DOM_INPUT_TABLET ? DOM_INPUT_USB : DOM_INPUT_PS2;
		return 0;
	case DOM_DEV_PANIC:
		return set_text(&((struct dom_panic *)dev->dev)->model, "isa", err);
	case DOM_DEV_FILESYSTEM:
		return set_text(&((struct dom_filesystem *)dev->dev)->type, "mount", err);
	case DOM_DEV_VSOCK:
		return set_text(&((struct dom_vsock *)dev->dev)->model, "virtio", err);
	case DOM_DEV_WATCHDOG:
		return set_text(&((struct dom_watchdog *)dev->dev)->action, "reset", err);
	default:
		return 0;
	}
}

static int normalize_one(const struct domain_device *dev, void *opaque)
{
	struct domain_device d = *dev;

	return device_normalize(&d, NULL, opaque);
}

static const char *disk_source_name(const struct dom_disk *d)
{
	const struct dom_disk_source *s = d->source;
	const char *name = !s ? NULL : s->file ? s->file : s->dev ? s->dev : s->dir ? s->dir : s->name ? s->name : s->volume;

	return name ? name : "none";
}

static int check_duplicates(const struct domain *def, struct err *err)
{
	const struct dom_devices *d = def->devices;

	for (unsigned i = 0; i < d->disk.n; i++)
		for (unsigned k = 0; k < i; k++)
			if (!strcmp(d->disk.v[i]->target->dev, d->disk.v[k]->target->dev))
				return err_set(err, EINVAL, "target '%.50s' duplicated for disk sources '%.150s' and '%.150s'",
					       d->disk.v[i]->target->dev, disk_source_name(d->disk.v[k]),
					       disk_source_name(d->disk.v[i]));
	return 0;
}

struct boot_seen {
	struct err *err;
	uint32_t order[256];
	unsigned n;
};

static int check_boot_order(const struct domain_device *dev, void *opaque)
{
	struct boot_seen *s = opaque;
	const struct opt32 *order = &domain_device_info(dev)->boot_order;

	if (!order->set)
		return 0;
	for (unsigned i = 0; i < s->n; i++)
		if (s->order[i] == order->value)
			return err_set(s->err, ENOTSUP, "boot order '%u' used for more than one device", order->value);
	if (s->n == 256)
		return err_set(s->err, ENOTSUP, "more than 256 devices have a boot order");
	s->order[s->n++] = order->value;
	return 0;
}

/* Together with those of the same type, in the order of their indexes, where they have one. */
static void sort_controllers(struct dom_devices *d)
{
	for (unsigned i = 1; i < d->controller.n; i++) {
		struct dom_controller *c = d->controller.v[i];
		unsigned at = i;

		if (!c->index.set)
			continue;
		for (unsigned k = i; k-- > 0;) {
			const struct dom_controller *o = d->controller.v[k];

			if (o->type != c->type || !o->index.set)
				continue;
			if (o->index.value <= c->index.value) {
				at = k + 1;
				break;
			}
			at = k;
		}
		memmove(&d->controller.v[at + 1], &d->controller.v[at], (i - at) * sizeof(c));
		d->controller.v[at] = c;
	}
}

static bool index_taken(const struct dom_devices *d, enum dom_controller_type type, uint32_t index)
{
	for (unsigned i = 0; i < d->controller.n; i++)
		if (d->controller.v[i]->type == type && d->controller.v[i]->index.set &&
		    d->controller.v[i]->index.value == index)
			return true;
	return false;
}

static void number_controllers(struct dom_devices *d)
{
	for (unsigned i = 0; i < d->controller.n; i++) {
		struct dom_controller *c = d->controller.v[i];
		uint32_t index = 0;

		if (c->index.set)
			continue;
		while (index_taken(d, c->type, index))
			index++;
		c->index = (struct opt32){ index, true };
	}
}

static int check_controllers(const struct dom_devices *d, struct err *err)
{
	for (unsigned i = 0; i < d->controller.n; i++)
		for (unsigned k = 0; k < i; k++) {
			const struct dom_controller *a = d->controller.v[i], *b = d->controller.v[k];

			/* USB 2 companions share an index on purpose. */
			if (a->type == b->type && a->type != DOM_CONTROLLER_USB && a->index.value == b->index.value)
				return err_set(err, EINVAL, "Multiple '%s' controllers with index '%u'",
					       dom_controller_type_names[a->type], a->index.value);
		}
	return 0;
}

static void number_chrs(struct dom_devices *d)
{
	uint32_t port = 0;

	for (unsigned i = 0; i < d->serial.n; i++, port++)
		if (!d->serial.v[i]->target->port.set)
			d->serial.v[i]->target->port = (struct opt32){ port, true };
	for (unsigned i = 0; i < d->parallel.n; i++)
		if (!d->parallel.v[i]->target->port.set)
			d->parallel.v[i]->target->port = (struct opt32){ i, true };
	for (unsigned i = 0; i < d->console.n; i++)
		if (!d->console.v[i]->target->port.set)
			d->console.v[i]->target->port = (struct opt32){ i, true };
}

/* libvirt keeps the first <console> and the first <serial> of a PC as two views of one port. */
static int pair_console(struct dom_devices *d, struct err *err)
{
	struct dom_chr *serial, *console;

	if (d->console.n && !strcmp(d->console.v[0]->target->type, "serial")) {
		if (!d->serial.n) {
			serial = xml_copy_object(&dom_serial_xml, d->console.v[0]);
			if (!serial || !LIST_ADD(&d->serial, serial)) {
				xml_free_object(&dom_serial_xml, serial);
				return xml_no_memory(err);
			}
			free(serial->target->type);
			serial->target->type = NULL;
			free(serial->tty);
			serial->tty = NULL;
			return normalize_chr(serial, DOM_DEV_SERIAL, err);
		}
		xml_free_object(&dom_console_xml, d->console.v[0]);
		xml_list_remove((struct xml_list *)&d->console, 0);
	} else if (!d->serial.n || d->console.n) {
		return 0;
	}
	console = xml_copy_object(&dom_console_xml, d->serial.v[0]);
	if (!console || !xml_list_insert((struct xml_list *)&d->console, 0, console)) {
		xml_free_object(&dom_console_xml, console);
		return xml_no_memory(err);
	}
	free(console->target->model);
	console->target->model = NULL;
	free(console->target->type);
	console->target->type = strdup("serial");
	if (!console->target->type)
		return xml_no_memory(err);
	console->target->port = (struct opt32){ 0 };
	xml_free_object(&dom_address_xml, console->info.address);
	console->info.address = NULL;
	if (console->type == DOM_CHR_PTY && d->serial.v[0]->source.n && d->serial.v[0]->source.v[0]->path && !console->tty)
		console->tty = strdup(d->serial.v[0]->source.v[0]->path);
	return 0;
}

int domain_normalize(struct domain *def, unsigned flags, struct err *err)
{
	struct boot_seen seen = { .err = err };
	int ret = normalize_name(def, err);

	if (!ret && !make(&def->devices, sizeof(*def->devices)))
		ret = xml_no_memory(err);
	if (!ret)
		ret = normalize_memory(def, err);
	if (!ret)
		ret = normalize_vcpu(def, err);
	if (!ret)
		ret = normalize_cputune(def, err);
	if (!ret)
		ret = normalize_os(def, err);
	if (!ret)
		ret = normalize_cpu(def, err);
	if (!ret)
		ret = normalize_clock(def, err);
	if (!ret)
		ret = domain_device_each(def, normalize_one, err);
	if (!ret)
		ret = check_duplicates(def, err);
	if (!ret)
		ret = domain_device_each(def, check_boot_order, &seen);
	if (ret)
		return ret;
	if (!def->on_poweroff)
		def->on_poweroff = DOM_ACTION_DESTROY;
	if (!def->on_reboot)
		def->on_reboot = DOM_ACTION_RESTART;
	if (!def->on_crash)
		def->on_crash = DOM_ACTION_DESTROY;
	/* A file of our own keeps the order that clients have seen. */
	if (!(flags & (DOMAIN_PARSE_STATUS | DOMAIN_PARSE_SKIP_CHECK)))
		sort_controllers(def->devices);
	number_controllers(def->devices);
	ret = check_controllers(def->devices, err);
	if (!ret)
		ret = pair_console(def->devices, err);
	if (!ret)
		number_chrs(def->devices);
	for (unsigned i = 0; i < def->seclabel.n && !ret; i++)
		if (def->seclabel.v[i]->type && !strcmp(def->seclabel.v[i]->type, "none"))
			ret = set_text(&def->seclabel.v[i]->model, "none", err);
	return ret;
}
