/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Definitions as a whole: XML to struct domain and back. */
#include "model/domain.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/device_tables.h"
#include "model/fill.h"

#define SCHEMA "/usr/share/libvirt/schemas/domain.rng"
#define QEMU_NAMESPACE "http://libvirt.org/schemas/domain/qemu/1.0"

int model_vir_code(const struct err *err)
{
	static const struct {
		int code, vir;
	} codes[] = {
		{ EBADMSG, 35 },   { EINVAL, 27 },	 { ENOTSUP, 67 }, { EEXIST, 55 }, { ENODEV, 99 }, { ENODATA, 80 }, { ENOENT, 8 },
		{ ENOMEM, 2 },	   { EOVERFLOW, 82 },	 { EILSEQ, 92 },  { EDOM, 21 },	  { ENOLINK, 19 }, { ENOEXEC, 91 },
		{ EADDRNOTAVAIL, 20 }, { ESRCH, 9 }, { EPERM, 84 },
	};

	for (unsigned i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (err->code == codes[i].code)
			return codes[i].vir;
	return 1;
}

const char *model_vir_message(const struct err *err, char text[640])
{
	static const struct {
		int vir;
		const char *fmt; /* libvirt's text for the code */
	} forms[] = {
		{ 1, "internal error: " },
		{ 2, "out of memory: " },
		{ 8, "invalid argument: " },
		{ 9, "operation failed: " },
		{ 19, "missing source information for device " },
		{ 20, "missing target information for device " },
		{ 27, "XML error: " },
		{ 55, "Requested operation is not valid: " },
		{ 67, "unsupported configuration: " },
		{ 80, "metadata not found: " },
		{ 82, "numerical overflow: " },
		{ 84, "Operation not supported: " },
		{ 91, "the CPU is incompatible with host CPU: " },
		{ 99, "device not found: " },
	};
	const char *prefix = "";

	for (unsigned i = 0; i < sizeof(forms) / sizeof(forms[0]); i++)
		if (forms[i].vir == model_vir_code(err))
			prefix = forms[i].fmt;
	snprintf(text, 640, "%s%s", prefix, err_msg(err));
	return text;
}

const char *domain_virt_name(enum dom_virt type)
{
	return dom_virt_names[type];
}

unsigned domain_vcpus_current(const struct domain *def)
{
	return def->vcpu->current.set ? def->vcpu->current.value : def->vcpu->max;
}

uint64_t domain_memory_current(const struct domain *def)
{
	return def->current_memory ? def->current_memory->kib : def->memory->kib;
}

/* <qemu:commandline/> and the like say nothing while they are empty. */
static void drop_empty_passthrough(xmlNode *root)
{
	xmlNode *next;

	for (xmlNode *n = root->children; n; n = next) {
		next = n->next;
		if (n->type != XML_ELEMENT_NODE || !n->ns || strcmp((const char *)n->ns->href, QEMU_NAMESPACE))
			continue;
		if (xmlFirstElementChild(n) || n->properties)
			continue;
		xmlUnlinkNode(n);
		xmlFreeNode(n);
	}
}

/* libvirt drops what has no namespace in <metadata>; here it is refused. */
static int check_metadata(xmlNode *root, struct err *err)
{
	for (xmlNode *m = xmlFirstElementChild(root); m; m = xmlNextElementSibling(m)) {
		if (m->ns || strcmp((const char *)m->name, "metadata"))
			continue;
		for (xmlNode *n = m->children; n; n = n->next) {
			if (n->type == XML_ELEMENT_NODE && !n->ns)
				return err_set(err, ENOTSUP, "element <%.100s> without a namespace in <metadata> is not supported by Keel",
					       (const char *)n->name);
			if (n->type == XML_CDATA_SECTION_NODE || (n->type == XML_TEXT_NODE && !xmlIsBlankNode(n)))
				return err_set(err, ENOTSUP, "text in element <metadata> is not supported by Keel");
		}
	}
	return 0;
}

static struct domain *parse_root(xmlNode *root, unsigned flags, const struct domain_caps *caps, struct err *err)
{
	struct xml_parse p = { .flags = flags & DOMAIN_PARSE_STATUS ? XML_PARSE_LIVE : 0 };
	struct domain *def;
	int ret;

	if (!root || root->ns || strcmp((const char *)root->name, "domain")) {
		err_set(err, EINVAL, "expecting root element of 'domain', not '%.100s'", root ? (const char *)root->name : "");
		return NULL;
	}
	drop_empty_passthrough(root);
	if (check_metadata(root, err))
		return NULL;
	def = xml_parse_object(&domain_xml, root, &p, err);
	if (!def)
		return NULL;
	ret = domain_normalize(def, flags, err);
	if (!ret && !(flags & DOMAIN_PARSE_SKIP_CHECK))
		ret = domain_check(def, caps, err);
	if (!ret && !(flags & DOMAIN_PARSE_NO_FILL))
		ret = domain_fill(def, caps, err);
	if (!ret)
		return def;
	domain_free(def);
	return NULL;
}

struct domain *domain_parse(const char *xml, unsigned flags, const struct domain_caps *caps, struct err *err)
{
	struct err local = ERR_INIT;
	struct domain *def = NULL;
	xmlDoc *doc;

	err = err ? err : &local;
	doc = xml_doc_parse(xml, "domain_definition", err);
	if (!doc)
		return NULL;
	if (!(flags & DOMAIN_PARSE_VALIDATE) || !xml_doc_validate(doc, SCHEMA, err))
		def = parse_root(xmlDocGetRootElement(doc), flags, caps, err);
	xmlFreeDoc(doc);
	return def;
}

static void forget_ptys(struct dom_chr *const *chrs, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		for (unsigned k = 0; k < chrs[i]->source.n && chrs[i]->type == DOM_CHR_PTY; k++) {
			free(chrs[i]->source.v[k]->path);
			chrs[i]->source.v[k]->path = NULL;
		}
}

/* What the start of a guest made up is no part of its definition. */
static void forget_live(struct dom_devices *d)
{
	forget_ptys(d->serial.v, d->serial.n);
	forget_ptys(d->parallel.v, d->parallel.n);
	forget_ptys(d->console.v, d->console.n);
	forget_ptys(d->channel.v, d->channel.n);
	for (unsigned i = 0; i < d->interface.n; i++)
		interface_forget_target(d->interface.v[i]);
}

char *domain_format(const struct domain *def, unsigned flags)
{
	const bool live = flags & DOMAIN_FORMAT_LIVE;
	struct domain *inactive = !live && def->id.set ? domain_copy(def) : NULL;
	struct xbuf b = { 0 };

	if (!live && def->id.set) {
		if (!inactive)
			return NULL;
		forget_live(inactive->devices);
	}
	xml_format_object(&b, &domain_xml, "domain", inactive ? inactive : def, live ? XML_FORMAT_LIVE : 0, true);
	domain_free(inactive);
	return xbuf_take(&b);
}

struct domain *domain_copy(const struct domain *def)
{
	return xml_copy_object(&domain_xml, def);
}

void domain_free(struct domain *def)
{
	xml_free_object(&domain_xml, def);
}

int domain_abi_check(const struct domain *src, const struct domain *dst, struct err *err)
{
	return xml_abi_object(&domain_xml, "domain", src, dst, err);
}
