/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/access.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/access_int.h"
#include "rpc/wire.h"

/* ---- A procedure's rules ---------------------------------------------------- */

static bool applies(const struct rpc_rule *r, const void *args)
{
	uint32_t v;

	if (r->when == RPC_WHEN_ALWAYS)
		return true;
	memcpy(&v, (const uint8_t *)args + r->offset, sizeof(v));
	switch (r->when) {
	case RPC_WHEN_ANY:
		return v & r->value;
	case RPC_WHEN_NONE:
		return !(v & r->value);
	default:
		return v == r->value;
	}
}

static bool only_looks(const char *permission)
{
	return !strcmp(permission, "getattr") || !strcmp(permission, "read") || !strncmp(permission, "search_", 7);
}

bool rpc_access_readonly(const struct rpc_proc *proc, const void *args)
{
	/* libvirt's rules ask only domain:read for it, but its library refuses it on a read-only connection. */
	if (proc->program == &remote_program && proc->number == REMOTE_PROC_DOMAIN_SET_SCHEDULER_PARAMETERS)
		return false;
	for (unsigned n = 0; n < proc->nrules; n++)
		if (applies(&proc->rules[n], args) && !only_looks(proc->rules[n].permission))
			return false;
	return true;
}

/* ---- The file's rules -------------------------------------------------------- */

static bool is_member(const struct rpc_who *who, gid_t gid)
{
	if (who->uid == (uid_t)-1)
		return false;
	if (who->gid == gid)
		return true;
	for (unsigned n = 0; n < who->ngroups; n++)
		if (who->groups[n] == gid)
			return true;
	return false;
}

static bool is_meant(const struct access_line *l, const struct rpc_who *who)
{
	switch (l->who) {
	case ACCESS_ANYBODY:
		return true;
	case ACCESS_UID:
		return who->uid != (uid_t)-1 && who->uid == l->id;
	case ACCESS_GID:
		return is_member(who, l->id);
	case ACCESS_SASL:
		return who->sasl && !fnmatch(l->pattern, who->sasl, 0);
	case ACCESS_DN:
		return who->dn && *who->dn && !fnmatch(l->pattern, who->dn, 0);
	case ACCESS_TRANSPORT:
		return who->transport == l->id;
	}
	return false;
}

static bool same_word(const char *rule, const char *word)
{
	return !strcmp(rule, "*") || !strcmp(rule, word);
}

static bool has_permission(const struct access_line *l, const char *object, const char *permission)
{
	for (unsigned n = 0; n < l->nwhat; n++)
		if (same_word(l->what[n].object, object) && same_word(l->what[n].permission, permission))
			return true;
	return false;
}

bool rpc_access_may(const struct rpc_access *a, const struct rpc_who *who, const char *object, const char *permission,
		    const char *name)
{
	if (!a)
		return true;
	for (unsigned n = 0; n < a->nlines; n++) {
		const struct access_line *l = &a->lines[n];

		if (!is_meant(l, who) || !has_permission(l, object, permission))
			continue;
		if (l->name && (name ? fnmatch(l->name, name, 0) : l->allow))
			continue;
		return l->allow;
	}
	return false;
}

/* ---- What a call is about ---------------------------------------------------- */

/* Objects as records have them; the name is the member of that name, the first string else. */
static const struct {
	const char *object;
	const struct wire_type *type;
} objects[] = {
	{ "domain", &wire_remote_domain },
	{ "network", &wire_remote_network },
	{ "storage_vol", &wire_remote_storage_vol },
	{ "storage_pool", &wire_remote_storage_pool },
	{ "nwfilter", &wire_remote_nwfilter },
	{ "nwfilter_binding", &wire_remote_nwfilter_binding },
	{ "interface", &wire_remote_interface },
	{ "node_device", &wire_remote_node_device },
	{ "secret", &wire_remote_secret },
};

static const struct wire_type *type_of(const char *object)
{
	for (unsigned n = 0; n < sizeof(objects) / sizeof(objects[0]); n++)
		if (!strcmp(objects[n].object, object))
			return objects[n].type;
	return NULL;
}

/* The first record of that type, also inside others; not in arrays. */
static const void *find_record(const struct wire_type *t, const void *base, const struct wire_type *wanted)
{
	for (unsigned n = 0; t && wanted && n < t->nfields; n++) {
		const struct wire_field *f = &t->fields[n];
		const void *at = (const uint8_t *)base + f->offset, *found;

		if (f->kind != WIRE_STRUCT || f->type->is_union || (f->shape != WIRE_ONE && f->shape != WIRE_OPTIONAL))
			continue;
		if (f->shape == WIRE_OPTIONAL)
			memcpy(&at, at, sizeof(at));
		if (!at)
			continue;
		if (f->type == wanted)
			return at;
		found = find_record(f->type, at, wanted);
		if (found)
			return found;
	}
	return NULL;
}

/* The string of that name, or, without one, the first. */
static const char *find_string(const struct wire_type *t, const void *base, const char *name)
{
	const char *s;

	for (unsigned n = 0; t && n < t->nfields; n++) {
		const struct wire_field *f = &t->fields[n];

		if (f->kind != WIRE_STRING || (f->shape != WIRE_ONE && f->shape != WIRE_OPTIONAL) || (name && strcmp(f->name, name)))
			continue;
		memcpy(&s, (const uint8_t *)base + f->offset, sizeof(s));
		return s;
	}
	return NULL;
}

static const char *record_name(const struct wire_type *t, const void *record)
{
	const char *name = find_string(t, record, "name");

	return name ? name : find_string(t, record, NULL);
}

/* How the arguments say what it is. */
enum subject { SUBJECT_NAMED, SUBJECT_LATER /* the result will tell */ };

static enum subject subject_of(const struct rpc_access_names *names, struct rpc_call *call, const char *object, const char **name)
{
	static const char *const xml_fields[] = { "xml", "xml_desc" };
	const struct wire_type *t = call->proc->args, *type = type_of(object);
	const void *record = type ? find_record(t, call->args, type) : NULL;
	const char *xml;

	*name = NULL;
	if (!strcmp(object, "connect"))
		return SUBJECT_NAMED; /* it has none */
	if (record) {
		/* What the client calls it is a claim; where the server knows better, that counts. */
		*name = names && names->name ? names->name(call, object, record) : NULL;
		if (!*name)
			*name = record_name(type, record);
		return SUBJECT_NAMED;
	}
	*name = find_string(t, call->args, "name");
	if (*name)
		return SUBJECT_NAMED;
	for (unsigned n = 0; n < sizeof(xml_fields) / sizeof(xml_fields[0]); n++) {
		xml = find_string(t, call->args, xml_fields[n]);
		if (xml) {
			*name = names && names->xml_name ? names->xml_name(call, object, xml) : NULL;
			return SUBJECT_NAMED;
		}
	}
	return call->proc->ret && type && find_record(call->proc->ret, call->ret, type) ? SUBJECT_LATER : SUBJECT_NAMED;
}

/* In libvirt's words. */
static int refuse(struct rpc_call *call)
{
	return rpc_call_fail(call, VIR_FROM_ACCESS, VIR_ERR_ACCESS_DENIED, "'QEMU' denied access");
}

int rpc_access_check(const struct rpc_access *a, const struct rpc_who *who, const struct rpc_access_names *names,
		     struct rpc_call *call)
{
	const struct rpc_proc *proc = call->proc;
	const char *name, *renamed;

	for (unsigned n = 0; n < proc->nrules; n++) {
		const struct rpc_rule *r = &proc->rules[n];

		if (!applies(r, call->args))
			continue;
		if (subject_of(names, call, r->object, &name) == SUBJECT_LATER)
			continue;
		if (!rpc_access_may(a, who, r->object, r->permission, name))
			return refuse(call);
		/* A new name must not lead to where it could not have been made. */
		renamed = find_string(proc->args, call->args, "new_name");
		if (renamed && !rpc_access_may(a, who, r->object, r->permission, renamed))
			return refuse(call);
	}
	return 0;
}

int rpc_access_check_result(const struct rpc_access *a, const struct rpc_who *who, struct rpc_call *call)
{
	const struct rpc_proc *proc = call->proc;
	const char *name;

	for (unsigned n = 0; n < proc->nrules; n++) {
		const struct rpc_rule *r = &proc->rules[n];
		const struct wire_type *type = type_of(r->object);
		const void *record;

		if (!applies(r, call->args) || subject_of(NULL, call, r->object, &name) != SUBJECT_LATER)
			continue;
		record = find_record(proc->ret, call->ret, type);
		if (record && !rpc_access_may(a, who, r->object, r->permission, record_name(type, record)))
			return refuse(call);
	}
	return 0;
}

bool rpc_access_event(const struct rpc_access *a, const struct rpc_who *who, const struct rpc_proc *proc, const void *msg)
{
	for (unsigned n = 0; n < sizeof(objects) / sizeof(objects[0]); n++) {
		const void *record = find_record(proc->args, msg, objects[n].type);

		if (record && !rpc_access_may(a, who, objects[n].object, "getattr", record_name(objects[n].type, record)))
			return false;
	}
	return true;
}
