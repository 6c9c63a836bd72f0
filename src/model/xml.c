/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading documents, with libvirt's words for what is wrong with them. */
#include <errno.h>
#include <libxml/parser.h>
#include <libxml/relaxng.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/table.h"

#define DOCUMENT_MAX (32u << 20)
#define CONTEXT_MAX 80

static void ignore(void *opaque, const char *fmt, ...)
{
	(void)opaque;
	(void)fmt;
}

/* The line with the mistake, and a caret under it. */
static void describe(const xmlParserCtxt *ctxt, const char *where, struct err *err)
{
	const xmlError *e = xmlCtxtGetLastError((void *)ctxt);
	const xmlChar *base, *cur, *line, *end;
	char context[CONTEXT_MAX + 1], pointer[CONTEXT_MAX + 1];
	int n, column;

	if (!e || !e->message || !ctxt->input) {
		err_set(err, EBADMSG, "(%s): failed to parse xml document", where);
		return;
	}
	base = ctxt->input->base;
	cur = ctxt->input->cur;
	while (cur > base && (*cur == '\n' || *cur == '\r'))
		cur--;
	for (line = cur; line > base && cur - line < CONTEXT_MAX && line[-1] != '\n' && line[-1] != '\r';)
		line--;
	for (end = line; *end && *end != '\n' && *end != '\r' && end - line < CONTEXT_MAX;)
		end++;
	n = end - line;
	memcpy(context, line, n);
	context[n] = '\0';
	column = cur - line;
	memset(pointer, '-', column);
	pointer[column < CONTEXT_MAX ? column : CONTEXT_MAX - 1] = '^';
	pointer[(column < CONTEXT_MAX ? column : CONTEXT_MAX - 1) + 1] = '\0';
	err_set(err, EBADMSG, "(%s):%d: %s%s\n%s", where, e->line, e->message, context, pointer);
}

xmlDoc *xml_doc_parse(const char *xml, const char *where, struct err *err)
{
	size_t len = strnlen(xml, DOCUMENT_MAX + 1);
	xmlParserCtxt *ctxt;
	xmlDoc *doc;

	if (len > DOCUMENT_MAX) {
		err_set(err, EINVAL, "the document is longer than %u MiB", DOCUMENT_MAX >> 20);
		return NULL;
	}
	ctxt = xmlNewParserCtxt();
	if (!ctxt) {
		xml_no_memory(err);
		return NULL;
	}
	ctxt->sax->error = ignore;
	ctxt->sax->warning = ignore;
	doc = xmlCtxtReadMemory(ctxt, xml, len, NULL, NULL, XML_PARSE_NONET | XML_PARSE_NOWARNING | XML_PARSE_NOERROR);
	if (!doc)
		describe(ctxt, where, err);
	/* Entities would let a short text stand for a giant one; nobody's definition has them. */
	if (doc && (doc->intSubset || doc->extSubset)) {
		err_set(err, EINVAL, "a document type declaration can't be in a definition");
		xmlFreeDoc(doc);
		doc = NULL;
	}
	xmlFreeParserCtxt(ctxt);
	return doc;
}

static void keep_first(void *opaque, xmlErrorPtr e)
{
	struct err *err = opaque;

	if (e->message)
		err_set(err, EILSEQ, "XML document failed to validate against schema: %s", e->message);
}

int xml_doc_validate(xmlDoc *doc, const char *schema, struct err *err)
{
	struct err found = ERR_INIT;
	xmlRelaxNGParserCtxt *parser;
	xmlRelaxNGValidCtxt *valid;
	xmlRelaxNG *rng = NULL;
	int ret = 0;

	if (access(schema, R_OK))
		return 0;
	parser = xmlRelaxNGNewParserCtxt(schema);
	if (parser) {
		xmlRelaxNGSetParserErrors(parser, ignore, ignore, NULL);
		rng = xmlRelaxNGParse(parser);
	}
	valid = rng ? xmlRelaxNGNewValidCtxt(rng) : NULL;
	if (!valid) {
		ret = err_set(err, EIO, "cannot load the schema %s", schema);
	} else {
		xmlRelaxNGSetValidStructuredErrors(valid, keep_first, &found);
		if (xmlRelaxNGValidateDoc(valid, doc))
			ret = err_set(err, EILSEQ, "%s", err_msg(&found));
	}
	xmlRelaxNGFreeValidCtxt(valid);
	xmlRelaxNGFree(rng);
	xmlRelaxNGFreeParserCtxt(parser);
	return ret;
}

char *xml_node_raw(xmlNode *node)
{
	xmlBuffer *buf = xmlBufferCreate();
	xmlNode *copy = xmlDocCopyNode(node, node->doc, 1); /* with the namespaces that ancestors declare */
	char *text = NULL;

	if (buf && copy && xmlNodeDump(buf, node->doc, copy, 0, 0) >= 0)
		text = strdup((const char *)xmlBufferContent(buf));
	xmlFreeNode(copy);
	xmlBufferFree(buf);
	return text;
}
