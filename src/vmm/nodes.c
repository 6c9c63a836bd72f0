/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Block nodes: open images by name, as QMP's blockdev-add makes them. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/files.h"
#include "vmm/node_remote.h"
#include "vmm/vmm.h"

#define NODE_NAME_MAX 31

struct vmm_node *vmm_node_find(struct vmm *v, const char *name)
{
	for (struct vmm_node *n = v->nodes; n; n = n->next)
		if (n->name && !strcmp(n->name, name))
			return n;
	return NULL;
}

static bool good_name(const char *name)
{
	size_t len = strlen(name);

	return len && len <= NODE_NAME_MAX && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
							   "0123456789-._") == len;
}

static void node_free(struct vmm *v, struct vmm_node *n)
{
	if (n->backing)
		vmm_node_detach(v, n);
	block_close(n->block);
	if (n->file)
		vmm_node_put(v, n->file);
	free(n->name);
	free(n->path);
	free(n->key_secret);
	free(n->driver);
	free(n);
}

static struct vmm_node *node_new(struct vmm *v, const char *name, const char *driver, const char *path, struct err *err)
{
	struct vmm_node *n;

	if (name && !good_name(name)) {
		err_set(err, EINVAL, "Invalid node-name: '%.80s'", name);
		return NULL;
	}
	if (name && vmm_node_find(v, name)) {
		err_set(err, EEXIST, "Duplicate nodes with node-name='%s'", name);
		return NULL;
	}
	n = calloc(1, sizeof(*n));
	if (n) {
		n->name = name ? strdup(name) : NULL;
		n->driver = strdup(driver);
		n->path = strdup(path);
	}
	if (!n || (name && !n->name) || !n->driver || !n->path) {
		if (n)
			node_free(v, n);
		err_set(err, ENOMEM, "no memory for a block node");
		return NULL;
	}
	return n;
}

static void enlist(struct vmm *v, struct vmm_node *n)
{
	struct vmm_node **p = &v->nodes;

	while (*p)
		p = &(*p)->next;
	*p = n;
}

static void delist(struct vmm *v, struct vmm_node *n)
{
	struct vmm_node **p = &v->nodes;

	while (*p && *p != n)
		p = &(*p)->next;
	if (*p)
		*p = n->next;
}

struct vmm_node *vmm_node_open(struct vmm *v, const char *name, const struct block_options *o, struct err *err)
{
	struct vmm_node *n = node_new(v, name, o->format ? o->format : "raw", o->path, err);

	if (!n) {
		if (o->fd >= 0)
			close(o->fd);
		return NULL;
	}
	n->readonly = o->readonly;
	n->block = block_open(o, err);
	if (!n->block) {
		node_free(v, n);
		return NULL;
	}
	n->direct = o->cache == BLOCK_CACHE_NONE || o->cache == BLOCK_CACHE_DIRECTSYNC;
	n->no_flush = o->cache == BLOCK_CACHE_UNSAFE;
	enlist(v, n);
	return n;
}

/* ---- Opening --------------------------------------------------------------- */

/* Where the bytes are: the node itself, or the one below. */
static struct vmm_node *bottom(struct vmm_node *n)
{
	return n->file ? n->file : n;
}

static int open_once(struct vmm *v, struct vmm_node *n, bool readonly, struct err *err)
{
	struct vmm_node *at = bottom(n);
	bool direct = n->direct || at->direct, no_flush = n->no_flush || at->no_flush;
	struct block_options o = {
		.path = at->path, .fd = -1, .format = n->file ? n->driver : "raw", .readonly = readonly,
		.key_secret = n->key_secret, .no_backing = n->no_backing,
		.cache = no_flush ? BLOCK_CACHE_UNSAFE : direct ? BLOCK_CACHE_NONE : BLOCK_CACHE_WRITEBACK,
	};

	if (!strncmp(at->path, "/dev/fdset/", 11)) {
		char *end;
		int64_t set = strtoll(at->path + 11, &end, 10);

		if (*end || end == at->path + 11)
			return err_set(err, EINVAL, "'%s' names no descriptor set", at->path);
		o.fd = vmm_fdset_dup(v, set, !readonly, err);
		if (o.fd < 0)
			return o.fd;
	}
	n->block = block_open(&o, err);
	return n->block ? 0 : -err->code;
}

static int open_node(struct vmm *v, struct vmm_node *n, struct err *err)
{
	bool readonly = n->readonly || bottom(n)->readonly;
	int ret = open_once(v, n, readonly, err);

	/* auto-read-only: better than nothing, where writing is not allowed. */
	if (ret && !readonly && (n->auto_readonly || bottom(n)->auto_readonly) &&
	    (ret == -EACCES || ret == -EROFS || ret == -EPERM)) {
		*err = ERR_INIT;
		ret = open_once(v, n, true, err);
	}
	return ret;
}

int vmm_node_get(struct vmm *v, struct vmm_node *n, struct err *err)
{
	int ret;

	if (n->users)
		return err_set(err, EBUSY, "Node '%s' is already in use", n->name);
	ret = n->block ? 0 : open_node(v, n, err);
	if (!ret)
		n->users++;
	return ret;
}

static bool is_protocol(const char *driver)
{
	return !strcmp(driver, "file") || !strcmp(driver, "host_device") || node_remote_driver(driver);
}

void vmm_node_put(struct vmm *v, struct vmm_node *n)
{
	n->users--;
	/* A file node may serve another way next time. */
	if (!n->users && !n->file && is_protocol(n->driver)) {
		block_close(n->block);
		n->block = NULL;
	}
	if (!n->users && n->own) {
		delist(v, n);
		node_free(v, n);
	}
}

/* ---- blockdev-add ----------------------------------------------------------- */

static int take_bool(json_t *value, const char *key, bool *to, struct err *err)
{
	if (!json_is_boolean(value))
		return err_set(err, EINVAL, "Invalid parameter type for '%s', expected: boolean", key);
	*to = json_is_true(value);
	return 0;
}

static int take_cache(struct vmm_node *n, json_t *cache, struct err *err)
{
	const char *key;
	json_t *value;
	int ret = 0;

	if (!json_is_object(cache))
		return err_set(err, EINVAL, "Invalid parameter type for 'cache', expected: object");
	json_object_foreach(cache, key, value) {
		if (!strcmp(key, "direct"))
			ret = take_bool(value, "cache.direct", &n->direct, err);
		else if (!strcmp(key, "no-flush"))
			ret = take_bool(value, "cache.no-flush", &n->no_flush, err);
		else
			ret = err_set(err, EINVAL, "Parameter 'cache.%.80s' is unexpected", key);
		if (ret)
			return ret;
	}
	return 0;
}

/* An option of which only some values mean something here. */
static int one_of(const char *key, json_t *value, const char *words, struct err *err)
{
	const char *text = json_string_value(value);
	size_t len = text ? strlen(text) : 0;

	for (const char *p = words; len && *p; p += strcspn(p, " "), p += strspn(p, " "))
		if (strcspn(p, " ") == len && !strncmp(p, text, len))
			return 0;
	return err_set(err, ENOTSUP, "Parameter '%s' does not accept value '%.80s': Keel knows: %s", key, text ? text : "?",
		       words);
}

static int take_secret(struct vmm_node *n, const char *key, json_t *value, struct err *err)
{
	const char *id = json_string_value(value);

	if (!id)
		return err_set(err, EINVAL, "Invalid parameter type for '%s', expected: string", key);
	free(n->key_secret);
	n->key_secret = strdup(id);
	return n->key_secret ? 0 : err_set(err, ENOMEM, "no memory for a block node");
}

/* qcow2's encryption, as libvirt asks for it. */
static int take_encrypt(struct vmm_node *n, json_t *encrypt, struct err *err)
{
	const char *format = json_string_value(json_object_get(encrypt, "format"));

	if (!format || strcmp(format, "luks"))
		return err_set(err, ENOTSUP, "Parameter 'encrypt.format' does not accept value '%.40s': Keel knows: luks",
			       format ? format : "?");
	return take_secret(n, "encrypt.key-secret", json_object_get(encrypt, "key-secret"), err);
}

static int take_option(struct vmm_node *n, bool format, const char *key, json_t *value, struct err *err)
{
	if (format && !strcmp(key, "key-secret") && !strcmp(n->driver, "luks"))
		return take_secret(n, key, value, err);
	if (format && !strcmp(key, "encrypt") && !strcmp(n->driver, "qcow2"))
		return take_encrypt(n, value, err);
	if (!strcmp(key, "read-only"))
		return take_bool(value, key, &n->readonly, err);
	if (!strcmp(key, "auto-read-only"))
		return take_bool(value, key, &n->auto_readonly, err);
	if (!strcmp(key, "cache"))
		return take_cache(n, value, err);
	if (!strcmp(key, "discard")) {
		n->ignore_discard = json_is_string(value) && !strcmp(json_string_value(value), "ignore");
		return one_of(key, value, "ignore unmap", err);
	}
	if (!strcmp(key, "detect-zeroes"))
		return one_of(key, value, "off", err);
	/* Every node's I/O goes through io_uring, whatever is asked. */
	if (!format && !strcmp(key, "aio"))
		return one_of(key, value, "io_uring native threads", err);
	if (!format && !strcmp(key, "locking"))
		return one_of(key, value, "auto on", err);
	return err_set(err, EINVAL, "Parameter '%.80s' is unexpected", key);
}

static struct vmm_node *make_node(struct vmm *v, json_t *args, bool inner, struct err *err);

/* The node that a format lies over: by name, or described in place. */
static struct vmm_node *take_file(struct vmm *v, json_t *file, struct err *err)
{
	struct vmm_node *n;

	if (json_is_object(file)) {
		n = make_node(v, file, true, err);
		if (n && n->file) {
			err_set(err, ENOTSUP, "Parameter 'file' does not accept a format over a format");
			delist(v, n);
			node_free(v, n);
			n = NULL;
		}
		return n;
	}
	if (!json_is_string(file)) {
		err_set(err, EINVAL, "Parameter 'file' is missing");
		return NULL;
	}
	n = vmm_node_find(v, json_string_value(file));
	if (!n)
		err_set(err, ENOENT, "Cannot find device='' nor node-name='%.80s'", json_string_value(file));
	else if (n->file || !is_protocol(n->driver))
		err_set(err, ENOTSUP, "Node '%s' is no file: a format lies over a node of driver file, host_device, nbd, iscsi or rbd",
			n->name);
	else if (n->users)
		err_set(err, EBUSY, "Node '%s' is already in use", n->name);
	else
		return n;
	return NULL;
}

static int fill_node(struct vmm_node *n, json_t *args, bool format, struct err *err)
{
	const char *key;
	json_t *value;

	json_object_foreach(args, key, value) {
		int ret;

		if (!strcmp(key, "driver") || !strcmp(key, "node-name") || !strcmp(key, format ? "file" : "filename") ||
		    (!strcmp(key, "backing") && !strcmp(n->driver, "qcow2")) ||
		    (!format && node_remote_option(n->driver, key)))
			continue;
		ret = take_option(n, format, key, value, err);
		if (ret)
			return ret;
	}
	return 0;
}

static int take_backing(struct vmm *v, struct vmm_node *n, json_t *backing, struct err *err)
{
	const char *name = json_string_value(backing);
	struct vmm_node *below;
	int ret;

	if (json_is_null(backing) || (name && !name[0]))
		return 0;
	if (!name && !json_is_object(backing))
		return err_set(err, EINVAL, "Invalid parameter type for 'backing', expected: string, object or null");
	below = name ? vmm_node_find(v, name) : make_node(v, backing, true, err);
	if (!below)
		return err_set(err, ENOENT, "Cannot find device='' nor node-name='%.80s'", name ? name : "");
	ret = vmm_node_attach(v, n, below, err);
	if (ret && !name) {
		delist(v, below);
		node_free(v, below);
	}
	return ret;
}

/* A node with all of its options; `inner` ones are a part of their parent and may have no name. NULL and err on failure. */
static struct vmm_node *make_node(struct vmm *v, json_t *args, bool inner, struct err *err)
{
	const char *driver = json_string_value(json_object_get(args, "driver"));
	const char *name = json_string_value(json_object_get(args, "node-name"));
	const char *filename = json_string_value(json_object_get(args, "filename"));
	struct vmm_node *n, *file = NULL;
	char *remote = NULL;
	bool format;

	if (!driver || (!name && !inner)) {
		err_set(err, EINVAL, "%s", driver ? "'node-name' must be specified for the root node" : "Parameter 'driver' is missing");
		return NULL;
	}
	format = !strcmp(driver, "raw") || !strcmp(driver, "qcow2") || !strcmp(driver, "luks");
	if (!format && !is_protocol(driver)) {
		err_set(err, ENOTSUP,
			"Parameter 'driver' does not accept value '%.80s': raw, qcow2 and luks over file, host_device, nbd, iscsi and "
			"rbd are supported",
			driver);
		return NULL;
	}
	if (!format && !node_remote_driver(driver) && !filename) {
		err_set(err, EINVAL, "Parameter 'filename' is missing");
		return NULL;
	}
	if (!format && node_remote_driver(driver)) {
		remote = node_remote_name(driver, args, err);
		if (!remote)
			return NULL;
		filename = remote;
	}
	if (format) {
		file = take_file(v, json_object_get(args, "file"), err);
		if (!file)
			return NULL;
		file->users++;
	}
	n = node_new(v, name, driver, file ? file->path : filename, err);
	free(remote);
	if (!n) {
		if (file)
			vmm_node_put(v, file);
		return NULL;
	}
	n->file = file;
	n->own = inner;
	n->no_backing = !strcmp(driver, "qcow2") && json_object_get(args, "backing");
	if (fill_node(n, args, format, err) || (format && open_node(v, n, err)) ||
	    (n->no_backing && take_backing(v, n, json_object_get(args, "backing"), err))) {
		node_free(v, n);
		return NULL;
	}
	if (!format && !node_remote_driver(driver) && strncmp(n->path, "/dev/fdset/", 11) && !file_passed(n->path) &&
	    access(n->path, R_OK)) {
		err_set(err, errno, "Could not open '%s': %s", n->path, strerror(errno));
		node_free(v, n);
		return NULL;
	}
	enlist(v, n);
	return n;
}

int vmm_node_add(struct vmm *v, json_t *args, struct err *err)
{
	return make_node(v, args, false, err) ? 0 : -err->code;
}

int vmm_node_del(struct vmm *v, const char *name, struct err *err)
{
	struct vmm_node *n = vmm_node_find(v, name);

	if (!n)
		return err_set(err, ENOENT, "Failed to find node with node-name='%.80s'", name);
	if (n->users)
		return err_set(err, EBUSY, "Node %s is in use", name);
	delist(v, n);
	node_free(v, n);
	return 0;
}

void vmm_node_free(struct vmm *v, struct vmm_node *n)
{
	delist(v, n);
	node_free(v, n);
}

struct vmm_node *vmm_node_new(struct vmm *v, const char *driver, const char *path, struct block *block)
{
	struct vmm_node *n = node_new(v, NULL, driver, path, NULL);

	if (!n)
		return NULL;
	n->block = block;
	n->own = true;
	enlist(v, n);
	return n;
}

static bool is_below(struct vmm *v, const struct vmm_node *n)
{
	for (struct vmm_node *over = v->nodes; over; over = over->next)
		if (over->file == n || over->backing == n)
			return true;
	return false;
}

void vmm_nodes_free(struct vmm *v)
{
	/* From the top down. */
	while (v->nodes) {
		struct vmm_node *n = v->nodes;

		while (is_below(v, n))
			n = n->next;
		n->own = false;
		delist(v, n);
		node_free(v, n);
	}
}
