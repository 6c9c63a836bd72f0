/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "lib/conn.h"

static bool copy_one(struct arena *arena, struct keel_param *to, const struct remote_typed_param *from)
{
	const char *s = NULL;

	to->name = arena_strdup(arena, from->field);
	to->type = (enum keel_param_type)from->value.type;
	switch (to->type) {
	case KEEL_PARAM_INT:
		to->value.i = from->value.u.i;
		break;
	case KEEL_PARAM_UINT:
		to->value.u = from->value.u.ui;
		break;
	case KEEL_PARAM_INT64:
		to->value.l = from->value.u.l;
		break;
	case KEEL_PARAM_UINT64:
		to->value.ul = from->value.u.ul;
		break;
	case KEEL_PARAM_DOUBLE:
		to->value.d = from->value.u.d;
		break;
	case KEEL_PARAM_BOOL:
		to->value.b = from->value.u.b;
		break;
	case KEEL_PARAM_STRING:
		s = arena_strdup(arena, from->value.u.s);
		to->value.s = s;
		return to->name && s;
	}
	return to->name;
}

struct keel_param *params_copy(struct arena *arena, const struct remote_typed_param *list, unsigned n)
{
	struct keel_param *p = arena_alloc(arena, (n + 1) * sizeof(*p));

	for (unsigned i = 0; p && i < n; i++)
		if (!copy_one(arena, &p[i], &list[i]))
			return NULL;
	return p;
}

double keel_param_number(const struct keel_param *params, unsigned n, const char *name, int *found)
{
	int ignored;

	if (!found)
		found = &ignored;
	*found = 1;
	for (unsigned i = 0; i < n; i++) {
		const struct keel_param *p = &params[i];

		if (strcmp(p->name, name))
			continue;
		switch (p->type) {
		case KEEL_PARAM_INT:
			return p->value.i;
		case KEEL_PARAM_UINT:
			return p->value.u;
		case KEEL_PARAM_INT64:
			return (double)p->value.l;
		case KEEL_PARAM_UINT64:
			return (double)p->value.ul;
		case KEEL_PARAM_DOUBLE:
			return p->value.d;
		case KEEL_PARAM_BOOL:
			return p->value.b;
		case KEEL_PARAM_STRING:
			break;
		}
		break;
	}
	*found = 0;
	return 0;
}
