/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The devices of a definition one at a time: attach, detach, update. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/device_tables.h"
#include "model/fill.h"

#define N_KINDS (sizeof(dom_device_classes) / sizeof(dom_device_classes[0]))

static void *member(const struct domain *def, const struct dom_device_class *c)
{
	return (char *)def->devices + c->offset;
}

struct dom_info *domain_device_info(const struct domain_device *dev)
{
	return (struct dom_info *)((char *)dev->dev + dom_device_classes[dev->kind].info_offset);
}

int domain_device_each(const struct domain *def, int (*fn)(const struct domain_device *dev, void *opaque), void *opaque)
{
	for (unsigned kind = 1; kind < N_KINDS; kind++) {
		const struct dom_device_class *c = &dom_device_classes[kind];
		const struct xml_list *list = member(def, c);
		struct domain_device dev = { .kind = kind };

		/* fn may append to the list */
		for (unsigned i = 0; i < (c->single ? *(void **)list != NULL : list->n); i++) {
			int ret;

			dev.dev = c->single ? *(void **)list : list->v[i];
			ret = fn(&dev, opaque);
			if (ret)
				return ret;
		}
	}
	return 0;
}

/* ---- By themselves -------------------------------------------------------- */

static enum dom_device_kind kind_by_name(const char *name)
{
	for (unsigned kind = 1; kind < N_KINDS; kind++)
		if (!strcmp(dom_device_classes[kind].name, name))
			return kind;
	return 0;
}

static int parse_device_root(xmlNode *root, unsigned flags, const struct domain *def, const struct domain_caps *caps,
			     struct domain_device *dev, struct err *err)
{
	struct xml_parse p = { .flags = flags & DOMAIN_PARSE_STATUS ? XML_PARSE_LIVE : 0 };
	int ret;

	dev->kind = root->ns ? 0 : kind_by_name((const char *)root->name);
	if (!dev->kind)
		return err_set(err, ENOTSUP, "unknown device type '%.100s'", (const char *)root->name);
	dev->dev = xml_parse_object(dom_device_classes[dev->kind].type, root, &p, err);
	if (!dev->dev)
		return -err->code;
	ret = device_normalize(dev, def, err);
	if (!ret && !(flags & DOMAIN_PARSE_SKIP_CHECK))
		ret = device_check(dev, caps, err);
	if (ret)
		domain_device_free(dev);
	return ret;
}

int domain_device_parse(const char *xml, unsigned flags, const struct domain *def, const struct domain_caps *caps,
			struct domain_device *dev, struct err *err)
{
	struct err local = ERR_INIT;
	xmlDoc *doc;
	int ret;

	err = err ? err : &local;
	*dev = (struct domain_device){ 0 };
	doc = xml_doc_parse(xml, "device_definition", err);
	if (!doc)
		return -err->code;
	ret = parse_device_root(xmlDocGetRootElement(doc), flags, def, caps, dev, err);
	xmlFreeDoc(doc);
	return ret;
}

char *domain_device_format(const struct domain_device *dev, unsigned flags)
{
	const struct dom_device_class *c = &dom_device_classes[dev->kind];
	struct xbuf b = { 0 };

	xml_format_object(&b, c->type, c->name, dev->dev,
			  flags & DOMAIN_FORMAT_LIVE ? XML_FORMAT_LIVE : 0, true);
	return xbuf_take(&b);
}

void domain_device_free(struct domain_device *dev)
{
	if (dev->dev)
		xml_free_object(dom_device_classes[dev->kind].type, dev->dev);
	*dev = (struct domain_device){ 0 };
}

int domain_device_copy(const struct domain_device *dev, struct domain_device *copy)
{
	*copy = (struct domain_device){ .kind = dev->kind };
	copy->dev = xml_copy_object(dom_device_classes[dev->kind].type, dev->dev);
	return copy->dev ? 0 : -ENOMEM;
}

/* ---- In a definition ------------------------------------------------------ */

struct search {
	const struct domain_device *want;
	struct domain_device found;
	unsigned matches;
};

static bool same_address(const struct dom_address *a, const struct dom_address *b)
{
	return xml_equal_object(&dom_address_xml, a, b, 0);
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static bool interface_matches(const struct dom_interface *have, const struct dom_interface *want)
{
	if (want->mac && (!have->mac || memcmp(have->mac->address.bytes, want->mac->address.bytes, 6)))
		return false;
	if (want->info.address && !same_address(have->info.address, want->info.address))
		return false;
	return !want->info.alias || same_text(have->info.alias, want->info.alias);
}

/* Alike in everything that the wanted one says: its address and alias may be missing. */
static bool alike(const struct domain_device *have, const struct domain_device *want)
{
	const struct xml_type *type = dom_device_classes[want->kind].type;
	struct dom_info *hi = domain_device_info(have), *wi = domain_device_info(want);
	struct domain_device copy;
	struct dom_info *ci;
	bool same;

	if (wi->alias && hi->alias && strcmp(wi->alias, hi->alias))
		return false;
	if (wi->address && hi->address && !same_address(wi->address, hi->address))
		return false;
	if (domain_device_copy(want, &copy))
		return false;
	ci = domain_device_info(&copy);
	/* lend it the other's place and name */
	xml_free_object(&dom_address_xml, ci->address);
	free(ci->alias);
	ci->address = hi->address;
	ci->alias = hi->alias;
	if (want->kind >= DOM_DEV_SERIAL && want->kind <= DOM_DEV_CHANNEL) {
		const struct dom_chr *h = have->dev;
		struct dom_chr *c = copy.dev;

		if (c->target && !c->target->port.set && h->target)
			c->target->port = h->target->port;
	}
	if (want->kind == DOM_DEV_CONTROLLER && !((struct dom_controller *)copy.dev)->index.set)
		((struct dom_controller *)copy.dev)->index = ((const struct dom_controller *)have->dev)->index;
	same = xml_equal_object(type, have->dev, copy.dev, want->kind == DOM_DEV_CONTROLLER ? 0 : XML_ABI);
	ci->address = NULL;
	ci->alias = NULL;
	domain_device_free(&copy);
	return same;
}

static bool matches(const struct domain_device *have, const struct domain_device *want)
{
	if (have->kind != want->kind)
		return false;
	switch (want->kind) {
	case DOM_DEV_DISK:
		return !strcmp(((struct dom_disk *)have->dev)->target->dev, ((struct dom_disk *)want->dev)->target->dev);
	case DOM_DEV_INTERFACE:
		return interface_matches(have->dev, want->dev);
	case DOM_DEV_CONTROLLER:
		return ((struct dom_controller *)have->dev)->type == ((struct dom_controller *)want->dev)->type &&
		       (!((struct dom_controller *)want->dev)->index.set ||
			((struct dom_controller *)have->dev)->index.value ==
				((struct dom_controller *)want->dev)->index.value);
	case DOM_DEV_MEMBALLOON:
	case DOM_DEV_VSOCK:
	case DOM_DEV_IOMMU:
		return true;
	default:
		return alike(have, want);
	}
}

static int look(const struct domain_device *dev, void *opaque)
{
	struct search *s = opaque;

	if (!matches(dev, s->want))
		return 0;
	if (!s->matches++)
		s->found = *dev;
	return 0;
}

/* libvirt has a code and a sentence of its own for each kind. */
static int not_found(const struct domain_device *dev, struct err *err)
{
	static const struct xml_field mac = { .value = XML_MAC };
	const struct dom_interface *n = dev->dev;
	const struct dom_disk *d = dev->dev;
	const struct dom_address *a = domain_device_info(dev)->address;
	char tmp[64], place[32] = "(<null>)";

	switch (dev->kind) {
	case DOM_DEV_DISK:
		return err_set(err, ENODEV, "no target device %.100s", d->target->dev);
	case DOM_DEV_INTERFACE:
		if (a && a->type == DOM_ADDRESS_PCI)
			snprintf(place, sizeof(place), "%04x:%02x:%02x.%x", a->domain, a->bus, a->slot, a->function);
		return err_set(err, ENODEV, "no device found at address '%s' matching MAC address '%s' and alias '%.100s'", place,
			       n->mac ? xml_value_text(&mac, &n->mac->address, tmp) : "(<null>)",
			       n->info.alias ? n->info.alias : "(<null>)");
	case DOM_DEV_CONTROLLER:
	case DOM_DEV_HOSTDEV:
		return err_set(err, ENODEV, "device not present in domain configuration");
	case DOM_DEV_SERIAL:
	case DOM_DEV_PARALLEL:
	case DOM_DEV_CONSOLE:
	case DOM_DEV_CHANNEL:
		return err_set(err, ENOENT, "device not present in domain configuration");
	case DOM_DEV_RNG:
		return err_set(err, ENODEV, "no matching RNG device was found");
	case DOM_DEV_FILESYSTEM:
		return err_set(err, ENODEV, "no matching filesystem device was found");
	case DOM_DEV_WATCHDOG:
		return err_set(err, ENODEV, "domain has no watchdog");
	case DOM_DEV_VSOCK:
		return err_set(err, ESRCH, "matching vsock device not found");
	default:
		return err_set(err, ENODEV, "matching %s device not found", dom_device_name(dev->kind));
	}
}

int domain_device_find(const struct domain *def, const struct domain_device *dev, struct domain_device *found,
		       struct err *err)
{
	struct search s = { .want = dev };

	domain_device_each(def, look, &s);
	if (!s.matches)
		return not_found(dev, err);
	if (s.matches > 1 && dev->kind == DOM_DEV_INTERFACE)
		return err_set(err, ESRCH, "multiple devices match the interface; give its address");
	*found = s.found;
	return 0;
}

struct alias_search {
	const char *alias;
	struct domain_device *found;
};

static int look_alias(const struct domain_device *dev, void *opaque)
{
	struct alias_search *s = opaque;
	const struct dom_info *info = domain_device_info(dev);

	if (!info->alias || strcmp(info->alias, s->alias))
		return 0;
	*s->found = *dev;
	return 1;
}

int domain_device_find_alias(const struct domain *def, const char *alias, struct domain_device *found, struct err *err)
{
	struct alias_search s = { alias, found };

	return domain_device_each(def, look_alias, &s) ? 0 :
							 err_set(err, ENODEV, "no device found with alias %.200s", alias);
}

static int check_place(const struct domain *def, const struct domain_device *dev, struct err *err)
{
	struct domain_device found;
	struct err ignored = ERR_INIT;
	const struct dom_disk *d = dev->dev;
	const struct dom_controller *c = dev->dev;
	const struct dom_info *info = domain_device_info(dev);

	if (info->alias && !domain_device_find_alias(def, info->alias, &found, &ignored))
		return err_set(err, EEXIST, "non unique alias detected: %.100s", info->alias);
	switch (dev->kind) {
	case DOM_DEV_DISK:
		if (!domain_device_find(def, dev, &found, &ignored))
			return err_set(err, EEXIST, "target %.100s already exists", d->target->dev);
		return 0;
	case DOM_DEV_CONTROLLER:
		if (c->index.set && !domain_device_find(def, dev, &found, &ignored))
			return err_set(err, EEXIST, "controller index='%u' already exists", c->index.value);
		return 0;
	case DOM_DEV_MEMBALLOON:
	case DOM_DEV_VSOCK:
	case DOM_DEV_IOMMU:
		if (*(void **)member(def, &dom_device_classes[dev->kind]))
			return err_set(err, EEXIST, "domain already has a %s device", dom_device_name(dev->kind));
		return 0;
	default:
		return 0;
	}
}

/* Numbers that the definition as a whole gives. */
static void number(struct domain *def, const struct domain_device *dev)
{
	struct dom_controller *c = dev->dev;
	struct dom_chr *chr = dev->dev;
	const struct dom_devices *d = def->devices;

	if (dev->kind == DOM_DEV_CONTROLLER && !c->index.set) {
		c->index.set = true;
		for (unsigned i = 0; i < d->controller.n; i++)
			if (d->controller.v[i] != c && d->controller.v[i]->type == c->type &&
			    d->controller.v[i]->index.value >= c->index.value)
				c->index.value = d->controller.v[i]->index.value + 1;
	}
	if (dev->kind == DOM_DEV_SERIAL && !chr->target->port.set)
		chr->target->port = (struct opt32){ d->serial.n - 1, true };
	if (dev->kind == DOM_DEV_CONSOLE && !chr->target->port.set)
		chr->target->port = (struct opt32){ d->console.n - 1, true };
}

/* libvirt puts a disk after the last of its bus whose name comes before it. */
static unsigned disk_position(const struct dom_devices *d, const struct dom_disk *disk)
{
	unsigned at = d->disk.n;

	for (unsigned i = d->disk.n; i-- > 0;) {
		const struct dom_disk *o = d->disk.v[i];
		size_t lo = strlen(o->target->dev), ld = strlen(disk->target->dev);

		if (o->target->bus != disk->target->bus)
			continue;
		if (lo < ld || (lo == ld && strcmp(o->target->dev, disk->target->dev) < 0))
			return i + 1;
		at = i;
	}
	return at;
}

static bool put(struct domain *def, const struct domain_device *dev)
{
	const struct dom_device_class *c = &dom_device_classes[dev->kind];
	struct xml_list *list = member(def, c);

	if (c->single) {
		*(void **)list = dev->dev;
		return true;
	}
	return xml_list_insert(list, dev->kind == DOM_DEV_DISK ? disk_position(def->devices, dev->dev) : list->n, dev->dev);
}

int domain_device_attach(struct domain *def, struct domain_device *dev, const struct domain_caps *caps, struct err *err)
{
	int ret = dev->kind == DOM_DEV_MEMBALLOON ?
			  err_set(err, EPERM, "persistent attach of device 'memballoon' is not supported") :
			  check_place(def, dev, err);

	if (ret)
		return ret;
	if (!put(def, dev))
		return xml_no_memory(err);
	number(def, dev);
	ret = domain_fill(def, caps, err);
	if (ret) {
		domain_device_detach(def, dev, NULL);
		return ret;
	}
	dev->dev = NULL;
	return 0;
}

int domain_device_detach(struct domain *def, const struct domain_device *dev, struct err *err)
{
	const struct dom_device_class *c = &dom_device_classes[dev->kind];
	struct xml_list *list = member(def, c);

	if (c->single) {
		if (*(void **)list != dev->dev)
			return not_found(dev, err);
		*(void **)list = NULL;
		return 0;
	}
	for (unsigned i = 0; i < list->n; i++)
		if (list->v[i] == dev->dev) {
			xml_list_remove(list, i);
			return 0;
		}
	return not_found(dev, err);
}

int domain_device_update(struct domain *def, const struct domain_device *old, struct domain_device *dev,
			 const struct domain_caps *caps, struct err *err)
{
	const struct dom_device_class *c = &dom_device_classes[dev->kind];
	struct dom_info *oi = domain_device_info(old), *ni = domain_device_info(dev);
	struct xml_list *list = member(def, c);
	void **slot = NULL, *kept = old->dev;
	int ret;

	if (old->kind != dev->kind)
		return err_set(err, EINVAL, "a %s cannot become a %s", dom_device_name(old->kind), dom_device_name(dev->kind));
	if (c->single && *(void **)list == kept)
		slot = (void **)list;
	for (unsigned i = 0; !c->single && i < list->n; i++)
		if (list->v[i] == kept)
			slot = &list->v[i];
	if (!slot)
		return not_found(dev, err);
	/* what the new one leaves open stays as it was */
	if (!ni->address && oi->address)
		ni->address = xml_copy_object(&dom_address_xml, oi->address);
	if (!ni->alias && oi->alias)
		ni->alias = strdup(oi->alias);
	*slot = dev->dev;
	ret = domain_fill(def, caps, err);
	if (ret) {
		/* filling may have grown other lists, not this one */
		*slot = kept;
		return ret;
	}
	xml_free_object(c->type, kept);
	dev->dev = NULL;
	return 0;
}
