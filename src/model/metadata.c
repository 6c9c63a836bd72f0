/* SPDX-License-Identifier: GPL-2.0-or-later */
/* <metadata>: elements of applications, each with a namespace of its own. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/device_tables.h"

static xmlNode *find_child(xmlNode *root, const char *uri)
{
	for (xmlNode *n = xmlFirstElementChild(root); n; n = xmlNextElementSibling(n))
		if (n->ns && !strcmp((const char *)n->ns->href, uri))
			return n;
	return NULL;
}

/* Text between elements that is only layout goes; what is inside an element without children stays. */
static void drop_layout(xmlNode *node)
{
	xmlNode *next;

	if (!xmlFirstElementChild(node))
		return;
	for (xmlNode *n = node->children; n; n = n->next)
		if ((n->type == XML_TEXT_NODE && !xmlIsBlankNode(n)) || n->type == XML_CDATA_SECTION_NODE)
			return;
	for (xmlNode *n = node->children; n; n = next) {
		next = n->next;
		if (n->type == XML_ELEMENT_NODE) {
			drop_layout(n);
		} else if (n->type == XML_TEXT_NODE) {
			xmlUnlinkNode(n);
			xmlFreeNode(n);
		}
	}
}

/* An element as libxml2 lays it out from column `level` * 2 on. */
static char *dump(xmlNode *node, int level)
{
	xmlBuffer *buf = xmlBufferCreate();
	xmlNode *copy = xmlDocCopyNode(node, node->doc, 1);
	char *text = NULL;

	if (copy)
		drop_layout(copy);
	if (buf && copy && xmlNodeDump(buf, node->doc, copy, level, 1) >= 0)
		text = strdup((const char *)xmlBufferContent(buf));
	xmlFreeNode(copy);
	xmlBufferFree(buf);
	return text;
}

static int absent(struct err *err)
{
	return err_set(err, ENODATA, "Requested metadata element is not present");
}

char *domain_metadata_get(const struct domain *def, const char *uri, struct err *err)
{
	char *text = NULL;
	xmlDoc *doc;
	xmlNode *n;

	if (!def->metadata) {
		absent(err);
		return NULL;
	}
	doc = xml_doc_parse(def->metadata, "metadata", err);
	if (!doc)
		return NULL;
	n = find_child(xmlDocGetRootElement(doc), uri);
	if (!n)
		absent(err);
	else if (!(text = dump(n, 0)))
		xml_no_memory(err);
	xmlFreeDoc(doc);
	return text;
}

/* The new element, in the namespace, under the root of doc. */
static int add_child(xmlDoc *doc, const char *xml, const char *key, const char *uri, struct err *err)
{
	xmlDoc *from = xml_doc_parse(xml, "metadata_xml", err);
	xmlNode *n;
	xmlNs *ns;

	if (!from)
		return -err->code;
	n = xmlDocCopyNode(xmlDocGetRootElement(from), doc, 1);
	xmlFreeDoc(from);
	if (!n)
		return xml_no_memory(err);
	ns = n->ns && !strcmp((const char *)n->ns->href, uri) ? n->ns :
								 xmlNewNs(n, (const xmlChar *)uri, (const xmlChar *)key);
	if (!ns) {
		xmlFreeNode(n);
		return err_set(err, EINVAL, "failed to create a new XML namespace");
	}
	xmlSetNs(n, ns);
	xmlAddChild(xmlDocGetRootElement(doc), n);
	return 0;
}

static char *set_in(xmlDoc *doc, const char *xml, const char *key, const char *uri, struct err *err)
{
	xmlNode *root = xmlDocGetRootElement(doc), *old = find_child(root, uri);
	char *text;

	if (old) {
		xmlUnlinkNode(old);
		xmlFreeNode(old);
	} else if (!xml) {
		absent(err);
		return NULL;
	}
	if (xml && add_child(doc, xml, key, uri, err))
		return NULL;
	if (!xmlFirstElementChild(root))
		return strdup("");
	text = dump(root, 1);
	if (!text)
		xml_no_memory(err);
	return text;
}

int domain_metadata_set(struct domain *def, const char *xml, const char *key, const char *uri, struct err *err)
{
	struct err local = ERR_INIT;
	char *text = NULL;
	xmlDoc *doc;

	err = err ? err : &local;
	if (!uri || !*uri || (xml && (!key || !*key)))
		return err_set(err, ENOENT, "metadata needs a namespace URI and a key");
	doc = xml_doc_parse(def->metadata ? def->metadata : "<metadata/>", "metadata", err);
	if (!doc)
		return -err->code;
	text = set_in(doc, xml, key, uri, err);
	xmlFreeDoc(doc);
	if (!text)
		return err->code ? -err->code : xml_no_memory(err);
	free(def->metadata);
	def->metadata = *text ? text : NULL;
	if (!*text)
		free(text);
	return 0;
}
