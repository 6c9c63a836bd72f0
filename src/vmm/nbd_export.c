/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: the NBD server and what it exports. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/nbd_server.h"
#include "util/sockets.h"
#include "vmm/objects.h"
#include "vmm/vmm.h"

#define MAX_BITMAPS 64

struct vmm_export {
	char *id, *name;
	struct vmm_node *node; /* used by it */
	struct vmm_export *next;
};

struct vmm_nbd {
	struct nbd_server *server;
	char *path; /* of its Unix socket, or NULL */
	struct vmm_export *exports;
};

static struct vmm_export *find(struct vmm *v, const char *id)
{
	struct vmm_export *e = v->nbd ? v->nbd->exports : NULL;

	while (e && strcmp(e->id, id))
		e = e->next;
	return e;
}

bool vmm_node_is_exported(struct vmm *v, const struct vmm_node *n)
{
	for (struct vmm_export *e = v->nbd ? v->nbd->exports : NULL; e; e = e->next)
		if (e->node == n)
			return true;
	return false;
}

/* Its export is gone from the server. */
static void export_free(struct vmm *v, struct vmm_export *e)
{
	struct vmm_export **at = &v->nbd->exports;

	while (*at && *at != e)
		at = &(*at)->next;
	if (*at)
		*at = e->next;
	vmm_node_put(v, e->node);
	free(e->id);
	free(e->name);
	free(e);
}

void vmm_nbd_free(struct vmm *v)
{
	struct vmm_nbd *n = v->nbd;

	if (!n)
		return;
	nbd_server_free(n->server); /* clients let go of the blocks */
	while (n->exports)
		export_free(v, n->exports);
	if (n->path)
		unlink(n->path);
	free(n->path);
	free(n);
	v->nbd = NULL;
}

/* ---- The server ------------------------------------------------------------------------ */

static int listen_on(struct vmm *v, json_t *addr, char **path, struct err *err)
{
	const char *type = json_string_value(json_object_get(addr, "type"));
	json_t *data = json_object_get(addr, "data");

	if (!type || !json_is_object(data))
		return err_set(err, EINVAL, "Parameter 'addr' expects a type and its data");
	if (!strcmp(type, "unix")) {
		const char *name = qmp_need_text(data, "path", err);

		*path = name ? strdup(name) : NULL;
		return name ? unix_listen(name, "nbd-server-start", err) : -EINVAL;
	}
	if (!strcmp(type, "inet")) {
		const char *host = qmp_need_text(data, "host", err),
			   *port = host ? qmp_need_text(data, "port", err) : NULL;

		return port ? nbd_listen_inet(host[0] ? host : NULL, port, err) : -EINVAL;
	}
	if (!strcmp(type, "fd")) {
		const char *name = qmp_need_text(data, "str", err);

		return name ? vmm_fd_take(v, name, err) : -EINVAL;
	}
	return err_set(err, ENOTSUP, "Parameter 'addr.type' does not accept value '%.40s': Keel knows: unix, inet, fd",
		       type);
}

static json_t *cmd_start(struct vmm *v, json_t *args, struct err *err)
{
	json_t *most = json_object_get(args, "max-connections");
	struct nbd_server_options o = { .loop = v->loop, .max_clients = 100 };
	const char *tls = json_string_value(json_object_get(args, "tls-creds"));
	struct vmm_object *creds = NULL;
	struct vmm_nbd *n;
	int fd;

	if (v->nbd) {
		err_set(err, EBUSY, "NBD server already running");
		return NULL;
	}
	if (most && (!json_is_integer(most) || json_integer_value(most) < 0 || json_integer_value(most) > 1024)) {
		err_set(err, EINVAL, "Parameter 'max-connections' expects a number from 0 (any) to 1024");
		return NULL;
	}
	if (most)
		o.max_clients = json_integer_value(most);
	if (tls && !(creds = vmm_object_find(v, tls, OBJECT_TLS, err)))
		return NULL;
	if (creds && !creds->server) {
		err_set(err, EINVAL, "Expecting TLS credentials with a server endpoint");
		return NULL;
	}
	o.tls = creds ? creds->dir : NULL;
	o.tls_verify = creds && creds->verify_peer;
	n = calloc(1, sizeof(*n));
	if (!n) {
		err_set(err, ENOMEM, "no memory for an NBD server");
		return NULL;
	}
	v->nbd = n;
	fd = listen_on(v, json_object_get(args, "addr"), &n->path, err);
	if (fd < 0) {
		free(n->path); /* not ours to remove */
		n->path = NULL;
	} else {
		n->server = nbd_server_new(&o, err);
		if (!n->server)
			close(fd);
	}
	if (!n->server || nbd_server_listen(n->server, fd, err)) {
		vmm_nbd_free(v);
		return NULL;
	}
	return json_object();
}

static void tell_gone(struct vmm *v, const char *id)
{
	qmp_event(v->qmp, "BLOCK_EXPORT_DELETED", json_pack("{s:s}", "id", id));
}

static json_t *cmd_stop(struct vmm *v, json_t *args, struct err *err)
{
	if (!v->nbd) {
		err_set(err, EINVAL, "NBD server not running");
		return NULL;
	}
	for (struct vmm_export *e = v->nbd->exports; e; e = e->next)
		tell_gone(v, e->id);
	vmm_nbd_free(v);
	return json_object();
}

/* ---- Exports ----------------------------------------------------------------------------- */

/* Names, or objects of node and name; of the exported node. */
static int take_bitmaps(json_t *list, const char *node, struct nbd_export_options *o, const char **names,
			struct err *err)
{
	json_t *one;
	size_t i;

	if (list && !json_is_array(list))
		return err_set(err, EINVAL, "Invalid parameter type for 'bitmaps', expected: array");
	json_array_foreach(list, i, one)
	{
		const char *name =
			json_is_object(one) ? json_string_value(json_object_get(one, "name")) : json_string_value(one);
		const char *of = json_is_object(one) ? json_string_value(json_object_get(one, "node")) : node;

		if (!name || !of || i == MAX_BITMAPS)
			return err_set(err, EINVAL, "Parameter 'bitmaps' expects at most %d names", MAX_BITMAPS);
		if (strcmp(of, node))
			return err_set(err, ENOTSUP, "bitmap '%.80s' is of node '%.80s', not of the exported one", name,
				       of);
		names[o->nbitmaps++] = name;
	}
	return 0;
}

static int add(struct vmm *v, const char *id, struct vmm_node *n, struct nbd_export_options *o, struct err *err)
{
	struct vmm_export *e;
	int ret;

	if (!v->nbd)
		return err_set(err, EINVAL, "NBD server not running");
	if (find(v, id))
		return err_set(err, EEXIST, "Block export id '%.80s' is already in use", id);
	if (vmm_node_has_job(v, n) || (!n->block && n->users))
		return err_set(err, EBUSY, "Node '%s' is busy: it is in use by a block job, or a backing file",
			       n->name ? n->name : n->path);
	/* A device may have it, too. */
	if (n->block)
		n->users++;
	else if (vmm_node_get(v, n, err))
		return -err->code;
	o->block = n->block;
	e = calloc(1, sizeof(*e));
	if (e) {
		e->id = strdup(id);
		e->name = strdup(o->name);
		e->node = n;
	}
	ret = !e || !e->id || !e->name ? err_set(err, ENOMEM, "no memory for an export")
				       : nbd_export_add(v->nbd->server, o, err);
	if (!e) {
		vmm_node_put(v, n);
	} else if (ret) {
		export_free(v, e);
	} else {
		e->next = v->nbd->exports;
		v->nbd->exports = e;
	}
	return ret;
}

static json_t *cmd_export_add(struct vmm *v, json_t *args, struct err *err)
{
	const char *type = qmp_need_text(args, "type", err), *id = type ? qmp_need_text(args, "id", err) : NULL;
	const char *node = id ? qmp_need_text(args, "node-name", err) : NULL;
	struct vmm_node *n = node ? vmm_node_find(v, node) : NULL;
	const char *names[MAX_BITMAPS];
	struct nbd_export_options o = { .bitmaps = names };

	if (!node)
		return NULL;
	if (strcmp(type, "nbd")) {
		err_set(err, ENOTSUP, "Parameter 'type' does not accept value '%.40s': Keel knows: nbd", type);
		return NULL;
	}
	if (!n) {
		err_set(err, ENXIO, "Cannot find device='' nor node-name='%.80s'", node);
		return NULL;
	}
	o.name = json_string_value(json_object_get(args, "name"));
	o.name = o.name ? o.name : node;
	o.description = json_string_value(json_object_get(args, "description"));
	o.writable = json_is_true(json_object_get(args, "writable"));
	if (take_bitmaps(json_object_get(args, "bitmaps"), node, &o, names, err))
		return NULL;
	return qmp_done(add(v, id, n, &o, err));
}

/* The command of before block-export-add. */
static json_t *cmd_server_add(struct vmm *v, json_t *args, struct err *err)
{
	const char *device = qmp_need_text(args, "device", err),
		   *bitmap = json_string_value(json_object_get(args, "bitmap"));
	struct vmm_node *n = device ? vmm_node_named(v, device, err) : NULL;
	struct nbd_export_options o = { .bitmaps = &bitmap, .nbitmaps = !!bitmap };

	if (!n)
		return NULL;
	o.name = json_string_value(json_object_get(args, "name"));
	o.name = o.name ? o.name : device;
	o.description = json_string_value(json_object_get(args, "description"));
	o.writable = json_is_true(json_object_get(args, "writable"));
	return qmp_done(add(v, o.name, n, &o, err));
}

static json_t *del(struct vmm *v, json_t *args, const char *key, struct err *err)
{
	const char *id = qmp_need_text(args, key, err), *mode = json_string_value(json_object_get(args, "mode"));
	struct vmm_export *e = id ? find(v, id) : NULL;

	if (!id)
		return NULL;
	if (mode && strcmp(mode, "safe") && strcmp(mode, "hard")) {
		err_set(err, EINVAL, "Parameter 'mode' does not accept value '%.40s'", mode);
		return NULL;
	}
	if (!e) {
		err_set(err, ENOENT, "Export '%.80s' is not found", id);
		return NULL;
	}
	if (nbd_export_del(v->nbd->server, e->name, mode && !strcmp(mode, "hard"), err))
		return NULL;
	tell_gone(v, id);
	export_free(v, e);
	return json_object();
}

static json_t *cmd_export_del(struct vmm *v, json_t *args, struct err *err)
{
	return del(v, args, "id", err);
}

static json_t *cmd_server_remove(struct vmm *v, json_t *args, struct err *err)
{
	return del(v, args, "name", err);
}

static json_t *cmd_query(struct vmm *v, json_t *args, struct err *err)
{
	json_t *list = json_array();

	for (struct vmm_export *e = v->nbd ? v->nbd->exports : NULL; e; e = e->next)
		json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:b}", "id", e->id, "type", "nbd", "node-name",
						      e->node->name ? e->node->name : "", "shutting-down", 0));
	return list;
}

const struct qmp_command qmp_export_commands[] = {
	{ "block-export-add", "type id node-name name description writable bitmaps", cmd_export_add },
	{ "block-export-del", "id mode", cmd_export_del },
	{ "nbd-server-add", "device name description writable bitmap", cmd_server_add },
	{ "nbd-server-remove", "name mode", cmd_server_remove },
	{ "nbd-server-start", "addr max-connections tls-creds", cmd_start },
	{ "nbd-server-stop", "", cmd_stop },
	{ "query-block-exports", "", cmd_query },
	{ NULL, NULL, NULL },
};
