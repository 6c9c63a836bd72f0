/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Comparing CPUs: <cpu> of a host (arch, model, vendor, features) or of a guest (mode, match, model, feature policies).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/caps.h"
#include "model/table.h"

struct described {
	struct cpu_set have;	  /* model and features that must be there */
	struct cpu_set forbidden; /* feature policy='forbid' */
	char vendor[16];
	bool strict, host_mode; /* match='strict'; a mode that is the host's own */
};

static char *child_text(xmlNode *node, const char *name)
{
	for (xmlNode *n = xmlFirstElementChild(node); n; n = xmlNextElementSibling(n))
		if (!strcmp((const char *)n->name, name))
			return (char *)xmlNodeGetContent(n);
	return NULL;
}

static xmlNode *find_cpu(xmlNode *node, unsigned depth)
{
	if (!strcmp((const char *)node->name, "cpu") && depth < 3)
		return node;
	for (xmlNode *n = xmlFirstElementChild(node); n && depth < 3; n = xmlNextElementSibling(n)) {
		xmlNode *found = find_cpu(n, depth + 1);

		if (found)
			return found;
	}
	return NULL;
}

static void put(struct cpu_set *set, int feature)
{
	set->bits[feature / 64] |= 1ull << feature % 64;
}

static void take(struct cpu_set *set, int feature)
{
	set->bits[feature / 64] &= ~(1ull << feature % 64);
}

static int read_feature(xmlNode *n, struct described *d, struct err *err)
{
	char *name = (char *)xmlGetNoNsProp(n, (const xmlChar *)"name");
	char *policy = (char *)xmlGetNoNsProp(n, (const xmlChar *)"policy");
	int f = name ? cpu_feature_find(name) : -1, ret = 0;

	if (!name)
		ret = err_set(err, EINVAL, "Invalid CPU feature name");
	else if (f < 0)
		ret = err_set(err, EIO, "Unknown CPU feature %.100s", name);
	else if (!policy || !strcmp(policy, "require") || !strcmp(policy, "force"))
		put(&d->have, f);
	else if (!strcmp(policy, "disable"))
		take(&d->have, f);
	else if (!strcmp(policy, "forbid"))
		put(&d->forbidden, f);
	else if (strcmp(policy, "optional"))
		ret = err_set(err, EINVAL, "Invalid value for attribute 'policy' in element 'feature': '%.100s'.",
			      policy);
	xmlFree(name);
	xmlFree(policy);
	return ret;
}

static int read_model(xmlNode *node, struct described *d, struct err *err)
{
	char *model = child_text(node, "model"), *vendor = child_text(node, "vendor");
	int ret = 0;

	if (vendor)
		strncpy(d->vendor, vendor, sizeof(d->vendor) - 1);
	if (model && *model && !cpu_model_set(model, &d->have))
		ret = err_set(err, EIO, "Unknown CPU model %.100s", model);
	else if (!model && !d->host_mode)
		ret = err_set(err, EINVAL, "Missing CPU model name");
	xmlFree(model);
	xmlFree(vendor);
	return ret;
}

static int read_attributes(xmlNode *node, struct described *d)
{
	char *mode = (char *)xmlGetNoNsProp(node, (const xmlChar *)"mode");
	char *match = (char *)xmlGetNoNsProp(node, (const xmlChar *)"match");

	d->strict = match && !strcmp(match, "strict");
	d->host_mode = mode && strcmp(mode, "custom");
	xmlFree(mode);
	xmlFree(match);
	return 0;
}

static int read_cpu(const char *xml, struct described *d, struct err *err)
{
	xmlDoc *doc = xml_doc_parse(xml, "CPU_definition", err);
	xmlNode *node;
	char *arch;
	int ret;

	memset(d, 0, sizeof(*d));
	if (!doc)
		return -err->code;
	node = find_cpu(xmlDocGetRootElement(doc), 0);
	if (!node) {
		xmlFreeDoc(doc);
		return err_set(err, EINVAL, "XML does not contain expected 'cpu' element");
	}
	read_attributes(node, d);
	arch = child_text(node, "arch");
	ret = arch && strcmp(arch, "x86_64")
		      ? err_set(err, ENOEXEC, "CPU arch %.50s does not match host arch x86_64", arch)
		      : 0;
	xmlFree(arch);
	if (!ret)
		ret = read_model(node, d, err);
	for (xmlNode *n = xmlFirstElementChild(node); n && !ret; n = xmlNextElementSibling(n))
		if (!strcmp((const char *)n->name, "feature"))
			ret = read_feature(n, d, err);
	xmlFreeDoc(doc);
	return ret;
}

int cpu_compare_xml(const struct cpu_host *host, const char *xml, struct err *err)
{
	struct err local = ERR_INIT;
	struct described d;
	const char *vendor = cpu_vendor_name(host->vendor);
	bool more = false;
	int ret;

	err = err ? err : &local;
	ret = read_cpu(xml, &d, err);
	if (ret == -ENOEXEC)
		return CPU_COMPARE_INCOMPATIBLE;
	if (ret)
		return ret;
	if (d.host_mode)
		return CPU_COMPARE_IDENTICAL;
	if (d.vendor[0] && (!vendor || strcmp(vendor, d.vendor)))
		return CPU_COMPARE_INCOMPATIBLE;
	for (unsigned i = 0; i < CPU_FEATURES_MAX / 64; i++) {
		if (d.have.bits[i] & ~host->features.bits[i] || d.forbidden.bits[i] & host->features.bits[i])
			return CPU_COMPARE_INCOMPATIBLE;
		more |= host->features.bits[i] & ~d.have.bits[i];
	}
	if (more && d.strict)
		return CPU_COMPARE_INCOMPATIBLE;
	return more ? CPU_COMPARE_SUPERSET : CPU_COMPARE_IDENTICAL;
}

char *cpu_baseline_xml(const char *const *xml, unsigned n, bool expand, struct err *err)
{
	struct cpu_set common, of_model;
	struct xbuf b = { 0 };
	struct err local = ERR_INIT;
	char vendor[16] = "";
	unsigned model;

	err = err ? err : &local;
	if (!n) {
		err_set(err, ENOENT, "no CPUs given");
		return NULL;
	}
	memset(&common, 0xff, sizeof(common));
	for (unsigned i = 0; i < n; i++) {
		struct described d;

		if (read_cpu(xml[i], &d, err))
			return NULL;
		if (d.host_mode) {
			err_set(err, ENOTSUP, "a CPU without a model has no baseline");
			return NULL;
		}
		for (unsigned k = 0; k < CPU_FEATURES_MAX / 64; k++)
			common.bits[k] &= d.have.bits[k];
		if (d.vendor[0] && vendor[0] && strcmp(d.vendor, vendor)) {
			err_set(err, EIO, "CPU vendors do not match");
			return NULL;
		}
		if (d.vendor[0])
			memcpy(vendor, d.vendor, sizeof(vendor));
	}
	model = cpu_model_best(&common);
	cpu_model_set(cpu_model_name(model), &of_model);
	xbuf_puts(&b, "<cpu mode='custom' match='exact'>\n");
	b.indent = 2;
	xbuf_line(&b, "<model fallback='forbid'>%s</model>", cpu_model_name(model));
	if (vendor[0]) {
		xbuf_pad(&b);
		xbuf_puts(&b, "<vendor>");
		xbuf_escape(&b, vendor);
		xbuf_puts(&b, "</vendor>\n");
	}
	for (unsigned f = 0; f < cpu_feature_count(); f++) {
		if (cpu_set_has(&common, f) && (expand || !cpu_set_has(&of_model, f)))
			xbuf_line(&b, "<feature policy='require' name='%s'/>", cpu_feature_name(f));
		else if (!cpu_set_has(&common, f) && cpu_set_has(&of_model, f))
			xbuf_line(&b, "<feature policy='disable' name='%s'/>", cpu_feature_name(f));
	}
	b.indent = 0;
	xbuf_puts(&b, "</cpu>\n");
	return xbuf_take(&b);
}
