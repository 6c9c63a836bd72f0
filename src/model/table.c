/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copying, comparing and freeing by the table. */
#include "model/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool is_string(const struct xml_field *f)
{
	return f->place == XML_RAW || (f->place <= XML_ELEM_ATTR && xml_value_is_text(f));
}

bool xml_list_insert(struct xml_list *list, unsigned at, void *obj)
{
	void **v = realloc(list->v, (list->n + 1) * sizeof(*v));

	if (!v)
		return false;
	list->v = v;
	memmove(v + at + 1, v + at, (list->n - at) * sizeof(*v));
	v[at] = obj;
	list->n++;
	return true;
}

bool xml_list_add(struct xml_list *list, void *obj)
{
	return xml_list_insert(list, list->n, obj);
}

void xml_list_remove(struct xml_list *list, unsigned at)
{
	memmove(list->v + at, list->v + at + 1, (list->n - at - 1) * sizeof(*list->v));
	if (--list->n)
		return;
	free(list->v);
	list->v = NULL;
}

void xml_free_object(const struct xml_type *type, void *obj)
{
	if (!obj)
		return;
	for (unsigned i = 0; i < type->n; i++) {
		const struct xml_field *f = &type->fields[i];
		char *member = (char *)obj + f->offset;
		struct xml_list *list = (struct xml_list *)member;

		if (is_string(f)) {
			free(*(char **)member);
		} else if (f->place == XML_CHILD) {
			xml_free_object(f->type, *(void **)member);
		} else if (f->place == XML_LIST) {
			for (unsigned k = 0; k < list->n; k++)
				xml_free_object(f->type, list->v[k]);
			free(list->v);
		}
	}
	free(obj);
}

static bool copy_list(const struct xml_type *type, struct xml_list *to, const struct xml_list *from)
{
	*to = (struct xml_list){ 0 };
	if (!from->n)
		return true;
	to->v = malloc(from->n * sizeof(*to->v));
	if (!to->v)
		return false;
	for (; to->n < from->n; to->n++) {
		to->v[to->n] = xml_copy_object(type, from->v[to->n]);
		if (!to->v[to->n])
			return false;
	}
	return true;
}

void *xml_copy_object(const struct xml_type *type, const void *obj)
{
	char *copy = malloc(type->size);
	bool ok = true;

	if (!copy)
		return NULL;
	memcpy(copy, obj, type->size);
	/* All pointers are replaced, also after a failure, so that the copy can be freed. */
	for (unsigned i = 0; i < type->n; i++) {
		const struct xml_field *f = &type->fields[i];
		const char *from = (const char *)obj + f->offset;
		char *to = copy + f->offset;

		if (is_string(f)) {
			char *s = *(char *const *)from;

			*(char **)to = s && ok ? strdup(s) : NULL;
			ok = ok && (!s || *(char **)to);
		} else if (f->place == XML_CHILD) {
			void *child = *(void *const *)from;

			*(void **)to = child && ok ? xml_copy_object(f->type, child) : NULL;
			ok = ok && (!child || *(void **)to);
		} else if (f->place == XML_LIST) {
			if (ok)
				ok = copy_list(f->type, (struct xml_list *)to, (const struct xml_list *)from);
			else
				*(struct xml_list *)to = (struct xml_list){ 0 };
		}
	}
	if (ok)
		return copy;
	xml_free_object(type, copy);
	return NULL;
}

static bool equal_value(const struct xml_field *f, const void *a, const void *b)
{
	char ta[64], tb[64];

	if (!xml_value_set(f, a) || !xml_value_set(f, b))
		return xml_value_set(f, a) == xml_value_set(f, b);
	return !strcmp(xml_value_text(f, a, ta), xml_value_text(f, b, tb));
}

static bool equal_raw(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static bool equal_formatted(const struct xml_type *type, const void *a, const void *b)
{
	struct xbuf ba = { 0 }, bb = { 0 };
	bool same;

	type->format(&ba, a, XML_FORMAT_LIVE);
	type->format(&bb, b, XML_FORMAT_LIVE);
	same = !ba.failed && !bb.failed && ba.len == bb.len && (!ba.len || !memcmp(ba.s, bb.s, ba.len));
	xbuf_free(&ba);
	xbuf_free(&bb);
	return same;
}

static bool equal_list(const struct xml_type *type, const struct xml_list *a, const struct xml_list *b, unsigned only)
{
	if (a->n != b->n)
		return false;
	for (unsigned i = 0; i < a->n; i++)
		if (!xml_equal_object(type, a->v[i], b->v[i], only))
			return false;
	return true;
}

bool xml_equal_object(const struct xml_type *type, const void *a, const void *b, unsigned only)
{
	if (!a || !b)
		return a == b;
	if (type->format)
		return equal_formatted(type, a, b);
	for (unsigned i = 0; i < type->n; i++) {
		const struct xml_field *f = &type->fields[i];
		const char *ma = (const char *)a + f->offset, *mb = (const char *)b + f->offset;
		bool same = true;

		if (only && !(f->flags & only))
			continue;
		if (f->place <= XML_ELEM_ATTR)
			same = equal_value(f, ma, mb);
		else if (f->place == XML_RAW)
			same = equal_raw(*(char *const *)ma, *(char *const *)mb);
		else if (f->place == XML_CHILD)
			same = xml_equal_object(f->type, *(void *const *)ma, *(void *const *)mb, only);
		else if (f->place == XML_LIST)
			same = equal_list(f->type, (const struct xml_list *)ma, (const struct xml_list *)mb, only);
		if (!same)
			return false;
	}
	return true;
}

static int abi_value(const struct xml_field *f, const char *what, const void *src, const void *dst, struct err *err)
{
	char ts[64], td[64];

	if (equal_value(f, src, dst))
		return 0;
	return err_set(err, ENOTSUP, "Target %s %s %.100s does not match source %.100s", what, f->name,
		       xml_value_set(f, dst) ? xml_value_text(f, dst, td) : "none",
		       xml_value_set(f, src) ? xml_value_text(f, src, ts) : "none");
}

static int abi_list(const struct xml_field *f, const struct xml_list *src, const struct xml_list *dst, struct err *err)
{
	if (src->n != dst->n)
		return err_set(err, ENOTSUP, "Target domain %s count %u does not match source %u", f->name, dst->n, src->n);
	for (unsigned i = 0; i < src->n; i++) {
		int ret = xml_abi_object(f->type, f->name, src->v[i], dst->v[i], err);

		if (ret)
			return ret;
	}
	return 0;
}

int xml_abi_object(const struct xml_type *type, const char *what, const void *src, const void *dst, struct err *err)
{
	if (!src || !dst)
		return src == dst ? 0 :
				    err_set(err, ENOTSUP, "Target domain has %s %s where the source has %s", src ? "no" : "a",
					    what, src ? "one" : "none");
	if (type->format && !equal_formatted(type, src, dst))
		return err_set(err, ENOTSUP, "Target device %s does not match source", what);
	for (unsigned i = 0; i < type->n; i++) {
		const struct xml_field *f = &type->fields[i];
		const char *ms = (const char *)src + f->offset, *md = (const char *)dst + f->offset;
		int ret = 0;

		if (!(f->flags & XML_ABI) || type->format)
			continue;
		if (f->place <= XML_ELEM_ATTR)
			ret = abi_value(f, what, ms, md, err);
		else if (f->place == XML_CHILD)
			ret = xml_abi_object(f->type, f->name, *(void *const *)ms, *(void *const *)md, err);
		else if (f->place == XML_LIST)
			ret = abi_list(f, (const struct xml_list *)ms, (const struct xml_list *)md, err);
		if (ret)
			return ret;
	}
	return 0;
}
