/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/objects.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/secret.h"
#include "vmm/iothread.h"
#include "vmm/vmm.h"

#define SETTINGS 16

/* What was said of an object: by QMP, or as a text on a command line. */
struct wish {
	json_t *args;
	bool visible; /* everybody on the host can read it */
	struct vmm *v; /* or NULL: there are no descriptor sets */
};

static const char *text_of(const struct wish *w, const char *key)
{
	return json_string_value(json_object_get(w->args, key));
}

/* JSON's true, or "on" as options have it. */
static int switch_of(const struct wish *w, const char *key, bool *on, struct err *err)
{
	json_t *value = json_object_get(w->args, key);
	const char *text = json_string_value(value);

	if (!value)
		return 0;
	*on = json_is_true(value) || (text && (!strcmp(text, "on") || !strcmp(text, "yes")));
	if (*on || json_is_false(value) || (text && (!strcmp(text, "off") || !strcmp(text, "no"))))
		return 0;
	return err_set(err, EINVAL, "Invalid parameter type for '%s', expected: boolean", key);
}

static int known(const struct wish *w, const char *type, const char *keys, struct err *err)
{
	const char *key;
	json_t *value;

	json_object_foreach(w->args, key, value) {
		size_t len = strlen(key);
		const char *p = keys;

		while (*p && (strcspn(p, " ") != len || strncmp(p, key, len))) {
			p += strcspn(p, " ");
			p += strspn(p, " ");
		}
		if (!*p && strcmp(key, "qom-type") && strcmp(key, "id"))
			return err_set(err, EINVAL, "Property '%s.%.80s' not found", type, key);
	}
	return 0;
}

/* ---- secret ----------------------------------------------------------------- */

static int secret_from_file(const struct wish *w, const char *id, const char *file, bool base64, struct err *err)
{
	char *end;
	int64_t set;
	int fd, ret;

	if (!w->v || strncmp(file, "/dev/fdset/", 11))
		return secret_add_file(id, file, base64, err);
	set = strtoll(file + 11, &end, 10);
	if (*end || end == file + 11)
		return err_set(err, EINVAL, "'%s' names no descriptor set", file);
	fd = vmm_fdset_dup(w->v, set, false, err);
	if (fd < 0)
		return fd;
	ret = secret_add_fd(id, fd, file, base64, err);
	close(fd);
	return ret;
}

static int make_secret(const struct wish *w, const char *id, struct err *err)
{
	const char *data = text_of(w, "data"), *file = text_of(w, "file"), *format = text_of(w, "format");
	bool base64 = format && !strcmp(format, "base64");
	int ret = known(w, "secret", "data file format", err);

	if (json_object_get(w->args, "keyid") || json_object_get(w->args, "iv")) {
		*err = ERR_INIT;
		return err_set(err, ENOTSUP, "secret '%s': secrets that are ciphered with another one (keyid, iv) are not supported", id);
	}
	if (ret)
		return ret;
	if (format && !base64 && strcmp(format, "raw"))
		return err_set(err, EINVAL, "secret '%s': format is raw or base64, not '%.40s'", id, format);
	if (!data == !file)
		return err_set(err, EINVAL, "secret '%s' needs one of 'file' and 'data'", id);
	if (data && w->visible)
		return err_set(err, EINVAL,
			       "secret '%s': what stands on a command line is no secret: put it into a file that nobody else "
			       "can read, and give file=FILE",
			       id);
	return file ? secret_from_file(w, id, file, base64, err) : secret_add(id, data, strlen(data), base64, err);
}

static int add_secret(const struct wish *w, struct vmm_object *o, struct err *err)
{
	return make_secret(w, o->id, err);
}

static void free_secret(struct vmm_object *o)
{
	(void)secret_del(o->id, NULL);
}

/* ---- tls-creds-x509 ------------------------------------------------------------ */

static int add_tls(const struct wish *w, struct vmm_object *o, struct err *err)
{
	const char *dir = text_of(w, "dir"), *endpoint = text_of(w, "endpoint");
	int ret = known(w, "tls-creds-x509", "dir endpoint verify-peer", err);

	o->verify_peer = true;
	if (!ret)
		ret = switch_of(w, "verify-peer", &o->verify_peer, err);
	if (ret)
		return ret;
	if (!dir || !*dir)
		return err_set(err, EINVAL, "tls-creds-x509 '%s': 'dir' is missing: the directory with ca-cert.pem and the others", o->id);
	o->server = endpoint && !strcmp(endpoint, "server");
	if (endpoint && !o->server && strcmp(endpoint, "client"))
		return err_set(err, EINVAL, "tls-creds-x509 '%s': endpoint is client or server, not '%.40s'", o->id, endpoint);
	o->dir = strdup(dir);
	return o->dir ? 0 : err_set(err, ENOMEM, "no memory for '%s'", o->id);
}

static void free_tls(struct vmm_object *o)
{
	free(o->dir);
}

/* ---- iothread ------------------------------------------------------------------ */

static int add_iothread(const struct wish *w, struct vmm_object *o, struct err *err)
{
	int ret = known(w, "iothread", "", err);

	if (!ret)
		o->iothread = iothread_new(o->id, err);
	return ret ? ret : o->iothread ? 0 : -ENOMEM;
}

static void free_iothread(struct vmm_object *o)
{
	iothread_free(o->iothread);
}

/* ---- All of them ------------------------------------------------------------------ */

static const struct {
	const char *name;
	int (*add)(const struct wish *w, struct vmm_object *o, struct err *err);
	void (*free)(struct vmm_object *o);
} types[] = {
	[OBJECT_SECRET] = { "secret", add_secret, free_secret },
	[OBJECT_TLS] = { "tls-creds-x509", add_tls, free_tls },
	[OBJECT_IOTHREAD] = { "iothread", add_iothread, free_iothread },
};
#define N_TYPES (sizeof(types) / sizeof(types[0]))

static struct vmm_object **find(struct vmm *v, const char *id)
{
	struct vmm_object **at = &v->objects;

	while (*at && strcmp((*at)->id, id))
		at = &(*at)->next;
	return at;
}

struct vmm_object *vmm_object_find(struct vmm *v, const char *id, enum object_type type, struct err *err)
{
	struct vmm_object *o = *find(v, id);

	if (!o)
		err_set(err, ENOENT, "there is no object '%.80s': make it with --object %s,id=ID,... or object-add", id,
			types[type].name);
	else if (o->type != type)
		err_set(err, EINVAL, "object '%s' is of type %s, and a %s is needed", id, types[o->type].name, types[type].name);
	return o && o->type == type ? o : NULL;
}

static bool good_id(const char *id)
{
	size_t len = strlen(id);

	/* As QEMU's ids: they begin with a letter. */
	return len && len <= 63 && ((id[0] | 32) >= 'a' && (id[0] | 32) <= 'z') &&
	       strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") == len;
}

static int make(const struct wish *w, struct err *err)
{
	const char *type = text_of(w, "qom-type"), *id = text_of(w, "id");
	struct vmm_object *o, **at;
	unsigned t = 0;
	int ret;

	if (!type || !id)
		return err_set(err, EINVAL, "Parameter '%s' is missing", type ? "id" : "qom-type");
	while (t < N_TYPES && strcmp(types[t].name, type))
		t++;
	if (t == N_TYPES)
		return err_set(err, EINVAL, "invalid object type: %.80s: secret, tls-creds-x509 and iothread are possible", type);
	if (!good_id(id))
		return err_set(err, EINVAL, "Parameter 'id' expects an identifier, not '%.80s'", id);
	at = find(w->v, id);
	if (*at)
		return err_set(err, EEXIST, "attempt to add duplicate property '%s' to object (type 'container')", id);
	o = calloc(1, sizeof(*o));
	if (!o || !(o->id = strdup(id))) {
		free(o);
		return err_set(err, ENOMEM, "no memory for object '%s'", id);
	}
	o->type = t;
	ret = types[t].add(w, o, err);
	if (ret) {
		free(o->dir);
		free(o->id);
		free(o);
		return ret;
	}
	*at = o;
	return 0;
}

int vmm_object_add(struct vmm *v, json_t *args, struct err *err)
{
	return make(&(struct wish){ .args = args, .v = v }, err);
}

/* "TYPE,id=ID,KEY=VALUE...", or JSON as object-add has it. */
static json_t *parse_option(const char *text, struct err *err)
{
	struct option_pair pairs[SETTINGS];
	json_t *args;
	int n;

	if (text[0] == '{') {
		args = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
		if (!args)
			err_set(err, EINVAL, "--object: '%.80s' is no JSON object", text);
		return args;
	}
	n = options_split("--object", text, "qom-type", pairs, SETTINGS, err);
	if (n < 0)
		return NULL;
	args = json_object();
	for (int i = 0; i < n; i++)
		json_object_set_new(args, pairs[i].key, json_string(pairs[i].value));
	options_split_free(pairs, n);
	return args;
}

int vmm_object_option(struct vmm *v, const char *text, struct err *err)
{
	json_t *args = parse_option(text, err);
	int ret = args ? make(&(struct wish){ .args = args, .v = v, .visible = true }, err) : -EINVAL;

	json_decref(args);
	return ret && strncmp(err->msg, "--object", 8) ? err_prefix(err, "--object") : ret;
}

int object_secret_option(const char *text, struct err *err)
{
	json_t *args = parse_option(text, err);
	struct wish w = { .args = args, .visible = true };
	const char *type = args ? text_of(&w, "qom-type") : NULL, *id = args ? text_of(&w, "id") : NULL;
	int ret = args ? 0 : -EINVAL;

	if (!ret && (!type || strcmp(type, "secret")))
		ret = err_set(err, ENOTSUP, "--object: only secrets are of use here, not '%.80s'", type ? type : "?");
	if (!ret && (!id || !good_id(id)))
		ret = err_set(err, EINVAL, "--object: a secret needs an id, which begins with a letter");
	if (!ret)
		ret = make_secret(&w, id, err);
	json_decref(args);
	return ret;
}

static void object_free(struct vmm_object *o)
{
	types[o->type].free(o);
	free(o->id);
	free(o);
}

int vmm_object_del(struct vmm *v, const char *id, struct err *err)
{
	struct vmm_object **at = find(v, id), *o = *at;

	if (!o)
		return err_set(err, ENOENT, "object '%.80s' not found", id);
	if (o->users)
		return err_set(err, EBUSY, "object '%s' is in use, can not be deleted", id);
	*at = o->next;
	object_free(o);
	return 0;
}

void vmm_objects_free(struct vmm *v)
{
	while (v->objects) {
		struct vmm_object *o = v->objects;

		v->objects = o->next;
		object_free(o);
	}
}

/* ---- QMP ---------------------------------------------------------------------------- */

static json_t *qmp_object_add(struct vmm *v, json_t *args, struct err *err)
{
	return qmp_done(vmm_object_add(v, args, err));
}

static json_t *qmp_object_del(struct vmm *v, json_t *args, struct err *err)
{
	const char *id = qmp_need_text(args, "id", err);

	return id ? qmp_done(vmm_object_del(v, id, err)) : NULL;
}

static json_t *qmp_query_iothreads(struct vmm *v, json_t *args, struct err *err)
{
	json_t *list = json_array();

	for (const struct vmm_object *o = v->objects; o; o = o->next)
		if (o->type == OBJECT_IOTHREAD)
			json_array_append_new(list, json_pack("{s:s,s:i,s:i,s:i,s:i,s:i}", "id", o->id, "thread-id",
							      iothread_tid(o->iothread), "poll-max-ns", 0, "poll-grow", 0,
							      "poll-shrink", 0, "aio-max-batch", 0));
	return list;
}

const struct qmp_command qmp_object_commands[] = {
	{ "object-add", "*", qmp_object_add },
	{ "object-del", "id", qmp_object_del },
	{ "query-iothreads", "", qmp_query_iothreads },
	{ 0 },
};
