/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A struct into its element, by the table, in libvirt's layout. */
#include <string.h>

#include "model/table.h"

static bool hidden(const struct xml_field *f, const void *member, unsigned flags)
{
	if (f->place >= XML_IGNORED_ATTR)
		return true;
	if (flags & XML_FORMAT_LIVE)
		return false;
	if (f->value == XML_ALIAS && f->place <= XML_ELEM_ATTR)
		return *(char *const *)member && strncmp(*(char *const *)member, "ua-", 3);
	return f->flags & XML_LIVE;
}

static void format_attrs(struct xbuf *b, const struct xml_type *type, const void *obj, unsigned flags)
{
	char tmp[64];

	for (unsigned i = 0; i < type->n; i++) {
		const struct xml_field *f = &type->fields[i];
		const char *member = (const char *)obj + f->offset;

		if (f->place > XML_TEXT || hidden(f, member, flags) || !xml_value_set(f, member))
			continue;
		if (f->place == XML_ATTR)
			xbuf_attr(b, f->name, xml_value_text(f, member, tmp));
		xbuf_attr(b, "unit", xml_value_unit(f));
	}
}

static void close_tag(struct xbuf *b, const char *name)
{
	xbuf_add(b, "</", 2);
	xbuf_puts(b, name);
	xbuf_add(b, ">\n", 2);
}

static void format_value(struct xbuf *b, const struct xml_field *f, const void *member)
{
	char tmp[64];
	const char *text = xml_value_text(f, member, tmp);

	xbuf_pad(b);
	xbuf_add(b, "<", 1);
	xbuf_puts(b, f->name);
	if (f->place == XML_ELEM_ATTR)
		xbuf_attr(b, f->attr, text);
	xbuf_attr(b, "unit", xml_value_unit(f));
	if (f->place == XML_ELEM_ATTR || f->value == XML_BOOL) {
		xbuf_puts(b, "/>\n");
		return;
	}
	xbuf_puts(b, ">");
	xbuf_escape(b, text);
	close_tag(b, f->name);
}

static void format_children(struct xbuf *b, const struct xml_type *type, const void *obj, unsigned flags)
{
	for (unsigned i = 0; i < type->n; i++) {
		const struct xml_field *f = &type->fields[i];
		const char *member = (const char *)obj + f->offset;
		const struct xml_list *list = (const void *)member;

		if (hidden(f, member, flags))
			continue;
		switch ((enum xml_place)f->place) {
		case XML_ELEM:
		case XML_ELEM_ATTR:
			if (xml_value_set(f, member))
				format_value(b, f, member);
			break;
		case XML_RAW:
			if (*(char *const *)member) {
				xbuf_pad(b);
				xbuf_puts(b, *(char *const *)member);
				xbuf_puts(b, "\n");
			}
			break;
		case XML_CHILD:
			if (*(void *const *)member)
				xml_format_object(b, f->type, f->name, *(void *const *)member, flags,
						  f->flags & XML_KEEP_EMPTY);
			break;
		case XML_LIST:
			for (unsigned k = 0; k < list->n; k++)
				xml_format_object(b, f->type, f->name, list->v[k], flags, f->flags & XML_KEEP_EMPTY);
			break;
		default:
			break;
		}
	}
}

static void format_text(struct xbuf *b, const struct xml_type *type, const void *obj)
{
	char tmp[64];

	for (unsigned i = 0; i < type->n; i++) {
		const struct xml_field *f = &type->fields[i];
		const char *member = (const char *)obj + f->offset;

		if (f->place == XML_TEXT && xml_value_set(f, member))
			xbuf_escape(b, xml_value_text(f, member, tmp));
	}
}

static void cut(struct xbuf *b, size_t len)
{
	if (b->s && !b->failed) {
		b->len = len;
		b->s[len] = '\0';
	}
}

void xml_format_object(struct xbuf *b, const struct xml_type *type, const char *name, const void *obj, unsigned flags,
		       bool keep_empty)
{
	size_t start = b->len, head, attrs, body;

	xbuf_pad(b);
	xbuf_add(b, "<", 1);
	xbuf_puts(b, name);
	head = b->len;
	if (type->format)
		type->format(b, obj, flags);
	else
		format_attrs(b, type, obj, flags);
	attrs = b->len;
	xbuf_puts(b, ">");
	body = b->len;
	format_text(b, type, obj);
	if (b->len > body) {
		close_tag(b, name);
		return;
	}
	xbuf_puts(b, "\n");
	body = b->len;
	b->indent += 2;
	if (!type->format)
		format_children(b, type, obj, flags);
	b->indent -= 2;
	if (b->len > body) {
		xbuf_pad(b);
		close_tag(b, name);
	} else if (attrs > head || keep_empty) {
		cut(b, attrs);
		xbuf_puts(b, "/>\n");
	} else {
		cut(b, start);
	}
}
