/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An element into its struct, by the table. Every attribute, child and text is either taken or refused. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/table.h"

/* Backing chains nest; libxml2 itself stops at 256. */
#define DEPTH_MAX 100

static const struct xml_field *find_field(const struct xml_type *type, const char *name, bool attribute)
{
	for (unsigned i = 0; i < type->n; i++) {
		const struct xml_field *f = &type->fields[i];
		bool is_attribute = f->place == XML_ATTR || f->place == XML_IGNORED_ATTR;

		if (f->place != XML_TEXT && is_attribute == attribute && !strcmp(f->name, name))
			return f;
	}
	return NULL;
}

/* The attribute `unit` goes with the one value of the element that has a unit. */
static bool has_unit(const struct xml_type *type)
{
	for (unsigned i = 0; i < type->n; i++)
		if (type->fields[i].place <= XML_TEXT && xml_value_unit(&type->fields[i]))
			return true;
	return false;
}

static bool skipped(const struct xml_field *f, const char *text, const struct xml_parse *p)
{
	if (p->flags & XML_PARSE_LIVE)
		return false;
	if (f->value == XML_ALIAS)
		return strncmp(text, "ua-", 3);
	return f->flags & XML_LIVE;
}

static int parse_attr(const struct xml_type *type, void *obj, xmlNode *node, xmlAttr *a, const struct xml_parse *p,
		      struct err *err)
{
	const char *element = (const char *)node->name, *name = (const char *)a->name;
	const struct xml_field *f = a->ns ? NULL : find_field(type, name, true);
	char *text, *unit = NULL;
	int ret = 0;

	if (!f) {
		if (!a->ns && !strcmp(name, "unit") && has_unit(type))
			return 0;
		return err_set(err, ENOTSUP, "attribute '%.100s' of element <%s> is not supported by Keel", name, element);
	}
	if (f->place == XML_IGNORED_ATTR)
		return 0;
	text = (char *)xmlGetNoNsProp(node, a->name);
	if (xml_value_unit(f))
		unit = (char *)xmlGetNoNsProp(node, (const xmlChar *)"unit");
	if (!text)
		ret = xml_no_memory(err);
	else if (!skipped(f, text, p) && (*text || !xml_value_is_text(f)))
		ret = xml_value_parse(f, (char *)obj + f->offset, text, unit, name, element, err);
	xmlFree(text);
	xmlFree(unit);
	return ret;
}

/* No attributes but `attr`, `attr2`; no child elements. */
static int check_plain(xmlNode *node, const char *attr, const char *attr2, struct err *err)
{
	for (xmlAttr *a = node->properties; a; a = a->next) {
		const char *name = (const char *)a->name;

		if (a->ns || ((!attr || strcmp(name, attr)) && (!attr2 || strcmp(name, attr2))))
			return err_set(err, ENOTSUP, "attribute '%.100s' of element <%s> is not supported by Keel", name,
				       (const char *)node->name);
	}
	for (xmlNode *c = node->children; c; c = c->next)
		if (c->type == XML_ELEMENT_NODE)
			return err_set(err, ENOTSUP, "element <%.100s> in <%s> is not supported by Keel",
				       (const char *)c->name, (const char *)node->name);
	return 0;
}

static int parse_elem(const struct xml_field *f, void *member, xmlNode *node, const struct xml_parse *p, struct err *err)
{
	const char *element = (const char *)node->name;
	const char *attr = f->place == XML_ELEM_ATTR ? f->attr : NULL;
	char *text, *unit = NULL;
	int ret = check_plain(node, attr, xml_value_unit(f) ? "unit" : NULL, err);

	if (ret)
		return ret;
	if (attr) {
		text = (char *)xmlGetNoNsProp(node, (const xmlChar *)attr);
		if (!text)
			return f->flags & XML_REQUIRED || !xml_value_is_text(f) ?
				       err_set(err, EINVAL, "Missing required attribute '%s' in element '%s'", attr, element) :
				       0;
	} else {
		text = (char *)xmlNodeGetContent(node);
		if (!text)
			return xml_no_memory(err);
	}
	if (xml_value_unit(f))
		unit = (char *)xmlGetNoNsProp(node, (const xmlChar *)"unit");
	if (!skipped(f, text, p) && (*text || !xml_value_is_text(f)))
		ret = xml_value_parse(f, member, text, unit, attr, element, err);
	xmlFree(text);
	xmlFree(unit);
	return ret;
}

static int parse_child(const struct xml_field *f, void *obj, xmlNode *node,
		       const struct xml_parse *p, struct err *err)
{
	char *member = (char *)obj + f->offset;
	void *child;

	switch ((enum xml_place)f->place) {
	case XML_ELEM:
	case XML_ELEM_ATTR:
		return parse_elem(f, member, node, p, err);
	case XML_RAW:
		*(char **)member = xml_node_raw(node);
		return *(char **)member ? 0 : xml_no_memory(err);
	case XML_CHILD:
	case XML_LIST:
		if (f->flags & XML_LIVE && !(p->flags & XML_PARSE_LIVE))
			return 0;
		child = xml_parse_object(f->type, node, &(struct xml_parse){ p->flags, p->depth + 1 }, err);
		if (!child)
			return -err->code;
		if (f->place == XML_CHILD) {
			*(void **)member = child;
		} else if (!xml_list_add((struct xml_list *)member, child)) {
			xml_free_object(f->type, child);
			return xml_no_memory(err);
		}
		return 0;
	default:
		return 0;
	}
}

static bool blank(const xmlChar *text)
{
	while (text && isspace(*text))
		text++;
	return !text || !*text;
}

static const struct xml_field *text_field(const struct xml_type *type)
{
	for (unsigned i = 0; i < type->n; i++)
		if (type->fields[i].place == XML_TEXT)
			return &type->fields[i];
	return NULL;
}

static int parse_children(const struct xml_type *type, void *obj, xmlNode *node, const struct xml_parse *p, struct err *err)
{
	const char *element = (const char *)node->name;
	uint64_t seen[4] = { 0 };

	for (xmlNode *c = node->children; c; c = c->next) {
		const struct xml_field *f;
		unsigned at;
		int ret;

		switch (c->type) {
		case XML_COMMENT_NODE:
		case XML_PI_NODE:
			continue;
		case XML_TEXT_NODE:
		case XML_CDATA_SECTION_NODE:
			if (!blank(c->content) && !text_field(type))
				return err_set(err, ENOTSUP, "text in element <%s> is not supported by Keel", element);
			continue;
		case XML_ELEMENT_NODE:
			break;
		default:
			return err_set(err, EINVAL, "only elements and text can be in element '%s'", element);
		}
		f = c->ns ? NULL : find_field(type, (const char *)c->name, false);
		if (!f)
			return err_set(err, ENOTSUP, "element <%s%s%.100s> in <%s> is not supported by Keel",
				       c->ns && c->ns->prefix ? (const char *)c->ns->prefix : "",
				       c->ns && c->ns->prefix ? ":" : "", (const char *)c->name, element);
		at = f - type->fields;
		if (f->place != XML_LIST && seen[at / 64] & 1ull << at % 64)
			return err_set(err, EINVAL, "element '%s' in '%s' may be given only once", (const char *)c->name,
				       element);
		seen[at / 64] |= 1ull << at % 64;
		ret = parse_child(f, obj, c, p, err);
		if (ret)
			return ret;
	}
	return 0;
}

static int parse_own_text(const struct xml_type *type, void *obj, xmlNode *node, struct err *err)
{
	const struct xml_field *f = text_field(type);
	char *text, *unit = NULL;
	int ret = 0;

	if (!f)
		return 0;
	text = (char *)xmlNodeGetContent(node);
	if (!text)
		return xml_no_memory(err);
	if (xml_value_unit(f))
		unit = (char *)xmlGetNoNsProp(node, (const xmlChar *)"unit");
	if (!blank((xmlChar *)text) || f->flags & XML_REQUIRED)
		ret = xml_value_parse(f, (char *)obj + f->offset, text, unit, NULL, (const char *)node->name, err);
	xmlFree(text);
	xmlFree(unit);
	return ret;
}

static int check_required(const struct xml_type *type, const void *obj, xmlNode *node, struct err *err)
{
	const char *element = (const char *)node->name;

	for (unsigned i = 0; i < type->n; i++) {
		const struct xml_field *f = &type->fields[i];
		const char *member = (const char *)obj + f->offset;

		if (!(f->flags & XML_REQUIRED) || f->place == XML_TEXT)
			continue;
		if (f->place == XML_ATTR &&
		    !(xml_value_is_text(f) ? xml_value_set(f, member) : !!xmlHasProp(node, (const xmlChar *)f->name)))
			return err_set(err, EINVAL, "Missing required attribute '%s' in element '%s'", f->name, element);
		if (f->place == XML_CHILD && !*(void *const *)member)
			return err_set(err, EINVAL, "Missing required element '%s' in element '%s'", f->name, element);
		if (f->place == XML_ELEM && !xml_value_set(f, member))
			return err_set(err, EINVAL, "Missing required element '%s' in element '%s'", f->name, element);
	}
	return 0;
}

static int parse_by_table(const struct xml_type *type, void *obj, xmlNode *node, const struct xml_parse *p, struct err *err)
{
	int ret = 0;

	for (xmlAttr *a = node->properties; a && !ret; a = a->next)
		ret = parse_attr(type, obj, node, a, p, err);
	if (!ret)
		ret = parse_children(type, obj, node, p, err);
	if (!ret)
		ret = parse_own_text(type, obj, node, err);
	return ret ? ret : check_required(type, obj, node, err);
}

void *xml_parse_object(const struct xml_type *type, xmlNode *node, const struct xml_parse *p, struct err *err)
{
	void *obj = calloc(1, type->size);
	int ret;

	if (!obj) {
		xml_no_memory(err);
		return NULL;
	}
	if (p->depth > DEPTH_MAX)
		ret = err_set(err, EINVAL, "element '%s' is nested too deep", (const char *)node->name);
	else if (type->parse)
		ret = type->parse(obj, node, p, err);
	else
		ret = parse_by_table(type, obj, node, p, err);
	if (!ret && type->parsed)
		ret = type->parsed(obj, p, err);
	if (!ret)
		return obj;
	xml_free_object(type, obj);
	return NULL;
}
