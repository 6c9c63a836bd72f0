/* SPDX-License-Identifier: GPL-2.0-or-later */
/* <address>: which attributes it has depends on its type. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "model/device_tables.h"

const char *const dom_address_type_names[] = { "", "pci", "drive", "virtio-serial", "usb", "isa", "virtio-mmio", "dimm",
					       "unassigned", NULL, "ccid", "spapr-vio", "ccw", "mdev", NULL };

enum { DEC, HEX, HEX_SET, WIDE_HEX, USB_PORT, ON_OFF }; /* HEX_SET: only if not 0 */
/* In libvirt's order within a type. */
static const struct part {
	enum dom_address_type type;
	const char *name;
	uint8_t form, digits;
	uint16_t offset;
	uint32_t max;
} parts[] = {
#define PART(t, n, f, d, m, max) { DOM_ADDRESS_##t, n, f, d, offsetof(struct dom_address, m), max }
	PART(PCI, "domain", HEX, 4, domain, 0xffff),
	PART(PCI, "bus", HEX, 2, bus, 0xff),
	PART(PCI, "slot", HEX, 2, slot, 0x1f),
	PART(PCI, "function", HEX, 1, function, 7),
	PART(PCI, "multifunction", ON_OFF, 0, multifunction, 0),
	PART(DRIVE, "controller", DEC, 0, controller, UINT32_MAX),
	PART(DRIVE, "bus", DEC, 0, bus, UINT32_MAX),
	PART(DRIVE, "target", DEC, 0, target, 255),
	PART(DRIVE, "unit", DEC, 0, unit, UINT32_MAX),
	PART(VIRTIO_SERIAL, "controller", DEC, 0, controller, UINT32_MAX),
	PART(VIRTIO_SERIAL, "bus", DEC, 0, bus, 255),
	PART(VIRTIO_SERIAL, "port", DEC, 0, port, 255),
	PART(USB, "bus", DEC, 0, bus, UINT32_MAX),
	PART(USB, "port", USB_PORT, 0, usb_port, 0),
	PART(ISA, "iobase", HEX_SET, 1, iobase, UINT32_MAX),
	PART(ISA, "irq", HEX_SET, 1, irq, UINT32_MAX),
	PART(DIMM, "slot", DEC, 0, dimm_slot, UINT32_MAX),
	PART(DIMM, "base", WIDE_HEX, 0, base, 0),
#undef PART
};
#define N_PARTS (sizeof(parts) / sizeof(parts[0]))

static int parse_part(const struct part *p, struct dom_address *a, const char *text, struct err *err)
{
	char *member = (char *)a + p->offset;
	uint64_t n;

	switch (p->form) {
	case USB_PORT:
		if (!*text || strspn(text, "0123456789.") != strlen(text))
			return err_set(err, EINVAL, "Cannot parse <address> 'port' attribute");
		a->usb_port = strdup(text);
		return a->usb_port ? 0 : xml_no_memory(err);
	case ON_OFF:
		if (strcmp(text, "on") && strcmp(text, "off"))
			return err_set(err, EINVAL, "Invalid value for attribute 'multifunction' in element 'address': '%.100s'.",
				       text);
		a->multifunction = strcmp(text, "on") ? TRI_NO : TRI_YES;
		return 0;
	}
	if (xml_number(text, &n) || (p->form != WIDE_HEX && n > UINT32_MAX))
		return err_set(err, EINVAL,
			       "Invalid value for attribute '%s' in element 'address': '%.100s'. Expected non-negative integer value",
			       p->name, text);
	if (p->form == WIDE_HEX) {
		*(uint64_t *)member = n;
		return 0;
	}
	if (n > p->max && p->type != DOM_ADDRESS_PCI)
		return err_set(err, EINVAL, "Invalid value for attribute '%s' in element 'address': %" PRIu64 ", must be <= %u",
			       p->name, n, p->max);
	if (n > p->max)
		return err_set(err, EINVAL, "Invalid PCI address %s='0x%" PRIx64 "', must be <= 0x%X", p->name, n, p->max);
	*(uint32_t *)member = n;
	return 0;
}

static int parse_type(struct dom_address *a, xmlNode *node, struct err *err)
{
	char *text = (char *)xmlGetNoNsProp(node, (const xmlChar *)"type");
	const struct xml_field f = { .value = XML_ENUM, .names = dom_address_type_names };
	int ret;

	if (!text)
		return err_set(err, EINVAL, "Missing required attribute 'type' in element 'address'");
	ret = xml_value_parse(&f, &a->type, text, NULL, "type", "address", err);
	xmlFree(text);
	return ret;
}

static int parse_address(void *obj, xmlNode *node, const struct xml_parse *p, struct err *err)
{
	struct dom_address *a = obj;
	int ret = parse_type(a, node, err);

	(void)p;
	for (xmlAttr *at = node->properties; at && !ret; at = at->next) {
		const char *name = (const char *)at->name;
		char *text;
		unsigned i;

		if (!at->ns && !strcmp(name, "type"))
			continue;
		for (i = 0; i < N_PARTS && (parts[i].type != a->type || strcmp(parts[i].name, name)); i++)
			;
		if (i == N_PARTS || at->ns)
			return err_set(err, ENOTSUP, "attribute '%.100s' of element <address> with type='%s' is not supported by Keel",
				       name, dom_address_type_names[a->type]);
		text = (char *)xmlGetNoNsProp(node, at->name);
		ret = text ? parse_part(&parts[i], a, text, err) : xml_no_memory(err);
		xmlFree(text);
		a->pci_set |= parts[i].form == HEX;
	}
	for (xmlNode *c = node->children; c && !ret; c = c->next)
		if (c->type == XML_ELEMENT_NODE)
			return err_set(err, ENOTSUP, "element <%.100s> in <address> is not supported by Keel",
				       (const char *)c->name);
	if (!ret && a->type == DOM_ADDRESS_PCI && a->pci_set && !a->domain && !a->bus && !a->slot && !a->function)
		a->pci_set = false; /* 0000:00:00.0 is the host bridge: nobody's address */
	return ret;
}

static void format_address(struct xbuf *b, const void *obj, unsigned flags)
{
	const struct dom_address *a = obj;

	(void)flags;
	xbuf_attr(b, "type", dom_address_type_names[a->type]);
	for (unsigned i = 0; i < N_PARTS; i++) {
		const struct part *p = &parts[i];
		const char *member = (const char *)a + p->offset;

		if (p->type != a->type || (a->type == DOM_ADDRESS_PCI && !a->pci_set))
			continue;
		switch (p->form) {
		case DEC:
			xbuf_printf(b, " %s='%" PRIu32 "'", p->name, *(const uint32_t *)member);
			break;
		case HEX:
			xbuf_printf(b, " %s='0x%0*" PRIx32 "'", p->name, p->digits, *(const uint32_t *)member);
			break;
		case HEX_SET:
			if (*(const uint32_t *)member)
				xbuf_printf(b, " %s='0x%" PRIx32 "'", p->name, *(const uint32_t *)member);
			break;
		case WIDE_HEX:
			if (*(const uint64_t *)member)
				xbuf_printf(b, " %s='0x%" PRIx64 "'", p->name, *(const uint64_t *)member);
			break;
		case USB_PORT:
			xbuf_attr(b, p->name, a->usb_port);
			break;
		case ON_OFF:
			if (a->multifunction)
				xbuf_attr(b, p->name, a->multifunction == TRI_YES ? "on" : "off");
			break;
		}
	}
}

/* For copying and freeing. */
static const struct xml_field address_fields[] = {
	{ .name = "port", .offset = offsetof(struct dom_address, usb_port), .place = XML_ATTR, .value = XML_STR },
};
XML_TYPE(dom_address_xml, "address", struct dom_address, address_fields, .parse = parse_address, .format = format_address);
