/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Storage pools of type dir: directories whose files are volumes. They are what
 * virt-install, virt-clone and virt-manager look disks up in; nothing is made
 * or deleted here. A volume is its path: nothing is kept about it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "daemon/guest.h"
#include "daemon/guest_devices.h"
#include "util/log.h"

#define VOLUMES_MAX 16384u /* that one answer may have */

struct pool {
	char *name, *path;
	uint8_t uuid[16];
	bool persistent, active, autostart;
	struct pool *next; /* in the order of the names */
};

/* virConnectListAllStoragePoolsFlags; the higher ones are the types. */
enum { POOLS_INACTIVE = 1, POOLS_ACTIVE = 2, POOLS_PERSISTENT = 4, POOLS_TRANSIENT = 8, POOLS_AUTOSTART = 16,
       POOLS_NO_AUTOSTART = 32, POOLS_DIR = 64, POOLS_ALL = 0x7ffff };
enum { POOL_INACTIVE, POOL_RUNNING = 2 }; /* virStoragePoolState */

static void pool_free(struct pool *p)
{
	free(p->name);
	free(p->path);
	free(p);
}

void pools_free(struct daemon *d)
{
	while (d->pools) {
		struct pool *p = d->pools;

		d->pools = p->next;
		pool_free(p);
	}
	if (d->storage_dir >= 0)
		close(d->storage_dir);
}

static struct pool *by_name(const struct daemon *d, const char *name)
{
	struct pool *p = d->pools;

	while (p && strcmp(p->name, name))
		p = p->next;
	return p;
}

static void insert(struct daemon *d, struct pool *p)
{
	struct pool **at = &d->pools;

	while (*at && strcmp((*at)->name, p->name) < 0)
		at = &(*at)->next;
	p->next = *at;
	*at = p;
}

static void take_out(struct daemon *d, struct pool *p)
{
	struct pool **at = &d->pools;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	pool_free(p);
}

/* ---- XML ------------------------------------------------------------------- */

static xmlNode *child(xmlNode *n, const char *name)
{
	for (n = n ? n->children : NULL; n; n = n->next)
		if (n->type == XML_ELEMENT_NODE && !strcmp((const char *)n->name, name))
			return n;
	return NULL;
}

/* Malloced; NULL if there is none. */
static char *text_of(xmlNode *n)
{
	xmlChar *t = n ? xmlNodeGetContent(n) : NULL;
	char *copy = t && *t ? strdup((char *)t) : NULL;

	xmlFree(t);
	return copy;
}

static bool parse_uuid(const char *text, uint8_t uuid[16])
{
	unsigned n = 0;

	for (; *text && n < 16; text += 2) {
		if (*text == '-')
			text++;
		if (sscanf(text, "%2hhx", &uuid[n]) != 1 || !text[1])
			return false;
		n++;
	}
	return n == 16 && !*text;
}

static struct pool *parse_root(xmlNode *root, struct err *err)
{
	xmlChar *type = root ? xmlGetProp(root, BAD_CAST "type") : NULL;
	struct pool *p = calloc(1, sizeof(*p));
	char *uuid = text_of(child(root, "uuid"));
	size_t len;

	if (p) {
		p->name = text_of(child(root, "name"));
		p->path = text_of(child(child(root, "target"), "path"));
	}
	if (!p)
		err_set(err, ENOMEM, "a storage pool");
	else if (!root || strcmp((const char *)root->name, "pool") || !type)
		err_set(err, EINVAL, "unknown root element for storage pool");
	else if (strcmp((char *)type, "dir"))
		err_set(err, ENOTSUP, "storage pool type '%.40s' is not supported by Keel; use 'dir'", (char *)type);
	else if (!p->name || strchr(p->name, '/') || strchr(p->name, '\n') || *p->name == '.')
		err_set(err, EINVAL, "missing pool source name element, or one with '/' or a line feed");
	else if (!p->path || *p->path != '/')
		err_set(err, EINVAL, "missing storage pool target path");
	else if (uuid && !parse_uuid(uuid, p->uuid))
		err_set(err, EINVAL, "malformed uuid element");
	else if (!uuid && getrandom(p->uuid, 16, 0) != 16)
		err_set(err, EIO, "unable to generate uuid");
	if (p && !uuid) { /* RFC 4122 §4.4 */
		p->uuid[6] = (p->uuid[6] & 0x0f) | 0x40;
		p->uuid[8] = (p->uuid[8] & 0x3f) | 0x80;
	}
	free(uuid);
	xmlFree(type);
	if (!err->code) {
		for (len = strlen(p->path); len > 1 && p->path[len - 1] == '/'; len--)
			p->path[len - 1] = 0;
		return p;
	}
	if (p)
		pool_free(p);
	return NULL;
}

static struct pool *parse(const char *xml, struct err *err)
{
	xmlDoc *doc = xmlReadMemory(xml, (int)strlen(xml), "pool", NULL, XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
	struct pool *p = NULL;

	if (doc)
		p = parse_root(xmlDocGetRootElement(doc), err);
	else
		err_set(err, EBADMSG, "(storage_pool_definition): the document is not well-formed");
	xmlFreeDoc(doc);
	return p;
}

static void space_of(const struct pool *p, uint64_t *capacity, uint64_t *allocation, uint64_t *available)
{
	struct statvfs v;

	*capacity = *allocation = *available = 0;
	if (!p->active || statvfs(p->path, &v))
		return;
	*capacity = (uint64_t)v.f_blocks * v.f_frsize;
	*available = (uint64_t)v.f_bavail * v.f_frsize;
	*allocation = *capacity - (uint64_t)v.f_bfree * v.f_frsize;
}

static char *escaped(const char *text)
{
	xmlChar *t = xmlEncodeSpecialChars(NULL, BAD_CAST text);
	char *copy = t ? strdup((char *)t) : NULL;

	xmlFree(t);
	return copy;
}

/* Malloced; NULL without memory. */
static char *format(const struct pool *p)
{
	char uuid[37], *xml = NULL, *name = escaped(p->name), *path = escaped(p->path);
	uint64_t capacity, allocation, available;
	struct stat st = { .st_mode = 0711 };

	uuid_text(p->uuid, uuid);
	space_of(p, &capacity, &allocation, &available);
	if (p->active)
		stat(p->path, &st);
	if (name && path &&
	    asprintf(&xml,
		     "<pool type='dir'>\n  <name>%s</name>\n  <uuid>%s</uuid>\n  <capacity unit='bytes'>%llu</capacity>\n"
		     "  <allocation unit='bytes'>%llu</allocation>\n  <available unit='bytes'>%llu</available>\n  <source>\n  </source>\n"
		     "  <target>\n    <path>%s</path>\n    <permissions>\n      <mode>0%o</mode>\n      <owner>%u</owner>\n"
		     "      <group>%u</group>\n    </permissions>\n  </target>\n</pool>\n",
		     name, uuid, (unsigned long long)capacity, (unsigned long long)allocation, (unsigned long long)available, path,
		     st.st_mode & 07777, st.st_uid, st.st_gid) < 0)
		xml = NULL;
	free(name);
	free(path);
	return xml;
}

/* ---- Files ----------------------------------------------------------------- */

/* A pool that starts with keeld has a second, empty file beside its own. */
static int save(const struct daemon *d, const struct pool *p, struct err *err)
{
	char name[NAME_MAX + 1], *xml = format(p);
	int ret = -1;

	if (!xml)
		err_set(err, ENOMEM, "no memory for a storage pool");
	else if (snprintf(name, sizeof(name), "%s.autostart", p->name) >= NAME_MAX - 4)
		err_set(err, ENAMETOOLONG, "the name '%s' is too long for a file", p->name);
	else if (p->autostart ? store_write_file(d->storage_dir, name, "", 0, true, err)
			      : unlinkat(d->storage_dir, name, 0) && errno != ENOENT)
		err_set(err, errno, "cannot change %s", name);
	else {
		snprintf(name, sizeof(name), "%s.xml", p->name);
		ret = store_write_file(d->storage_dir, name, xml, strlen(xml), true, err);
	}
	free(xml);
	return ret;
}

static void forget(const struct daemon *d, const struct pool *p)
{
	char name[NAME_MAX + 1];

	snprintf(name, sizeof(name), "%s.xml", p->name);
	unlinkat(d->storage_dir, name, 0);
	snprintf(name, sizeof(name), "%s.autostart", p->name);
	unlinkat(d->storage_dir, name, 0);
}

static void load_one(struct daemon *d, const char *file)
{
	struct err err = ERR_INIT;
	char mark[NAME_MAX + 16];
	int fd = openat(d->storage_dir, file, O_RDONLY | O_CLOEXEC);
	xmlDoc *doc = fd >= 0 ? xmlReadFd(fd, file, NULL, XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING) : NULL;
	struct pool *p = doc ? parse_root(xmlDocGetRootElement(doc), &err) : NULL;

	if (!p) {
		log_line(LOG_ERROR, "the storage pool '%s' is skipped: %s", file, doc ? err_msg(&err) : "it is no XML");
	} else if (by_name(d, p->name)) {
		pool_free(p);
	} else {
		snprintf(mark, sizeof(mark), "%s.autostart", p->name);
		p->persistent = true;
		p->autostart = !faccessat(d->storage_dir, mark, F_OK, 0);
		p->active = p->autostart && !access(p->path, R_OK | X_OK);
		insert(d, p);
	}
	xmlFreeDoc(doc);
	if (fd >= 0)
		close(fd);
}

int pools_load(struct daemon *d, struct err *err)
{
	int fd = openat(d->storage_dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *e;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return err_set_errno(err, errno, "cannot list the storage pools");
	}
	while ((e = readdir(dir))) {
		size_t len = strlen(e->d_name);

		if (len > 4 && *e->d_name != '.' && !strcmp(e->d_name + len - 4, ".xml"))
			load_one(d, e->d_name);
	}
	closedir(dir);
	return 0;
}

/* ---- Pools ----------------------------------------------------------------- */

static struct remote_storage_pool wire(const struct pool *p)
{
	struct remote_storage_pool w = { .name = p->name };

	memcpy(w.uuid, p->uuid, sizeof(w.uuid));
	return w;
}

/* The pool that the call is about: the first of its arguments. NULL with the error set. */
static struct pool *pool_of(struct rpc_call *call)
{
	const struct remote_storage_pool *w = call->args;
	char uuid[37];

	for (struct pool *p = call_daemon(call)->pools; p; p = p->next)
		if (!memcmp(p->uuid, w->uuid, 16))
			return p;
	uuid_text(w->uuid, uuid);
	rpc_call_fail(call, VIR_FROM_STORAGE, VIR_ERR_NO_STORAGE_POOL, "no storage pool with matching uuid '%s' (%s)", uuid, w->name);
	return NULL;
}

const char *pools_name(const struct daemon *d, const uint8_t uuid[16])
{
	for (const struct pool *p = d->pools; p; p = p->next)
		if (!memcmp(p->uuid, uuid, 16))
			return p->name;
	return NULL;
}

static struct pool *active_pool(struct rpc_call *call)
{
	struct pool *p = pool_of(call);

	if (!p || p->active)
		return p;
	rpc_call_fail(call, VIR_FROM_STORAGE, VIR_ERR_OPERATION_INVALID, "storage pool '%s' is not active", p->name);
	return NULL;
}

static int start(struct rpc_call *call, struct pool *p)
{
	struct stat st;

	if (stat(p->path, &st) || !S_ISDIR(st.st_mode))
		return rpc_call_fail(call, VIR_FROM_STORAGE, VIR_ERR_SYSTEM_ERROR, "cannot open path '%s': %s", p->path,
				     strerror(stat(p->path, &st) ? errno : ENOTDIR));
	p->active = true;
	return 0;
}

static int define(struct rpc_call *call, const char *xml, bool persistent, struct remote_storage_pool *out)
{
	struct daemon *d = call_daemon(call);
	struct err err = ERR_INIT;
	struct pool *new = parse(xml, &err), *old;

	if (!new)
		return rpc_call_fail(call, VIR_FROM_STORAGE, model_vir_code(&err), "%s", err_msg(&err));
	old = by_name(d, new->name);
	if (old && (!persistent || memcmp(old->uuid, new->uuid, 16))) {
		rpc_call_fail(call, VIR_FROM_STORAGE, VIR_ERR_OPERATION_FAILED, "pool '%s' already exists", new->name);
		pool_free(new);
		return -1;
	}
	new->persistent = persistent;
	if (old) {
		new->active = old->active;
		new->autostart = old->autostart;
	}
	if (persistent ? save(d, new, &err) : start(call, new)) {
		pool_free(new);
		return err.code ? rpc_call_fail(call, VIR_FROM_STORAGE, VIR_ERR_SYSTEM_ERROR, "%s", err_msg(&err)) : -1;
	}
	if (old)
		take_out(d, old);
	insert(d, new);
	*out = wire(new);
	return 0;
}

static int define_xml(struct rpc_call *call)
{
	return define(call, ((struct remote_storage_pool_define_xml_args *)call->args)->xml, true,
		      &((struct remote_storage_pool_define_xml_ret *)call->ret)->pool);
}

static int create_xml(struct rpc_call *call)
{
	return define(call, ((struct remote_storage_pool_create_xml_args *)call->args)->xml, false,
		      &((struct remote_storage_pool_create_xml_ret *)call->ret)->pool);
}

static int build(struct rpc_call *call)
{
	struct pool *p = pool_of(call);

	if (!p)
		return -1;
	if (mkdir(p->path, 0711) && errno != EEXIST)
		return rpc_call_fail(call, VIR_FROM_STORAGE, VIR_ERR_SYSTEM_ERROR, "failed to create directory '%s': %s", p->path,
				     strerror(errno));
	return 0;
}

static int create(struct rpc_call *call)
{
	struct pool *p = pool_of(call);

	if (!p)
		return -1;
	if (p->active)
		return rpc_call_fail(call, VIR_FROM_STORAGE, VIR_ERR_OPERATION_INVALID, "storage pool '%s' is already active", p->name);
	return start(call, p);
}

static int destroy(struct rpc_call *call)
{
	struct pool *p = active_pool(call);

	if (!p)
		return -1;
	p->active = false;
	if (!p->persistent)
		take_out(call_daemon(call), p);
	return 0;
}

static int undefine(struct rpc_call *call)
{
	struct pool *p = pool_of(call);

	if (!p)
		return -1;
	if (p->active)
		return rpc_call_fail(call, VIR_FROM_STORAGE, VIR_ERR_OPERATION_INVALID, "storage pool '%s' is still active", p->name);
	forget(call_daemon(call), p);
	take_out(call_daemon(call), p);
	return 0;
}

/* A directory is read whenever somebody asks. */
static int refresh(struct rpc_call *call)
{
	return active_pool(call) ? 0 : -1;
}

static int get_info(struct rpc_call *call)
{
	struct remote_storage_pool_get_info_ret *ret = call->ret;
	struct pool *p = pool_of(call);

	if (!p)
		return -1;
	ret->state = p->active ? POOL_RUNNING : POOL_INACTIVE;
	space_of(p, &ret->capacity, &ret->allocation, &ret->available);
	return 0;
}

static int give(struct rpc_call *call, char **to, char *text)
{
	*to = text ? arena_strdup(&call->arena, text) : NULL;
	free(text);
	return *to ? 0 : call_fail_memory(call);
}

static int get_xml_desc(struct rpc_call *call)
{
	struct pool *p = pool_of(call);

	return p ? give(call, &((struct remote_storage_pool_get_xml_desc_ret *)call->ret)->xml, format(p)) : -1;
}

static int get_autostart(struct rpc_call *call)
{
	struct pool *p = pool_of(call);

	if (p)
		((struct remote_storage_pool_get_autostart_ret *)call->ret)->autostart = p->autostart;
	return p ? 0 : -1;
}

static int set_autostart(struct rpc_call *call)
{
	struct pool *p = pool_of(call);
	struct err err = ERR_INIT;

	if (!p)
		return -1;
	if (!p->persistent)
		return rpc_call_fail(call, VIR_FROM_STORAGE, VIR_ERR_INVALID_ARG, "pool has no config file");
	p->autostart = ((struct remote_storage_pool_set_autostart_args *)call->args)->autostart;
	return save(call_daemon(call), p, &err) ? rpc_call_fail(call, VIR_FROM_STORAGE, VIR_ERR_SYSTEM_ERROR, "%s", err_msg(&err)) : 0;
}

static int is_active(struct rpc_call *call)
{
	struct pool *p = pool_of(call);

	if (p)
		((struct remote_storage_pool_is_active_ret *)call->ret)->active = p->active;
	return p ? 0 : -1;
}

static int is_persistent(struct rpc_call *call)
{
	struct pool *p = pool_of(call);

	if (p)
		((struct remote_storage_pool_is_persistent_ret *)call->ret)->persistent = p->persistent;
	return p ? 0 : -1;
}

static bool matches(const struct pool *p, uint32_t flags)
{
	const uint32_t is = (p->active ? POOLS_ACTIVE : POOLS_INACTIVE) | (p->persistent ? POOLS_PERSISTENT : POOLS_TRANSIENT) |
			    (p->autostart ? POOLS_AUTOSTART : POOLS_NO_AUTOSTART) | POOLS_DIR;
	static const uint32_t groups[] = { 3, 12, 48, POOLS_ALL & ~63u };

	for (unsigned n = 0; n < 4; n++)
		if ((flags & groups[n]) && !(flags & groups[n] & is))
			return false;
	return true;
}

static int list_all(struct rpc_call *call)
{
	const struct remote_connect_list_all_storage_pools_args *args = call->args;
	struct remote_connect_list_all_storage_pools_ret *ret = call->ret;
	unsigned n = 0;

	if (call_check_flags(call, args->flags, POOLS_ALL))
		return -1;
	for (struct pool *p = call_daemon(call)->pools; p; p = p->next)
		n += matches(p, args->flags) && rpc_call_shows(call, p->name);
	ret->ret = n;
	if (!args->need_results)
		return 0;
	ret->pools = arena_alloc(&call->arena, (n + 1) * sizeof(*ret->pools));
	if (!ret->pools)
		return call_fail_memory(call);
	for (struct pool *p = call_daemon(call)->pools; p; p = p->next)
		if (matches(p, args->flags) && rpc_call_shows(call, p->name))
			ret->pools[ret->pools_len++] = wire(p);
	return 0;
}

static int num_of(struct rpc_call *call, bool active)
{
	unsigned n = 0;

	for (struct pool *p = call_daemon(call)->pools; p; p = p->next)
		n += p->active == active && rpc_call_shows(call, p->name);
	((struct remote_connect_num_of_storage_pools_ret *)call->ret)->num = (int32_t)n;
	return 0;
}

static int num_of_active(struct rpc_call *call)
{
	return num_of(call, true);
}

static int num_of_defined(struct rpc_call *call)
{
	return num_of(call, false);
}

/* Both lists of names have the same arguments and results. */
static int list_names(struct rpc_call *call, bool active)
{
	int32_t most = ((struct remote_connect_list_storage_pools_args *)call->args)->maxnames;
	struct remote_connect_list_storage_pools_ret *ret = call->ret;
	unsigned n = 0;

	for (struct pool *p = call_daemon(call)->pools; p; p = p->next)
		n++;
	ret->names = arena_alloc(&call->arena, (n + 1) * sizeof(*ret->names));
	if (!ret->names)
		return call_fail_memory(call);
	for (struct pool *p = call_daemon(call)->pools; p && (int32_t)ret->names_len < most; p = p->next)
		if (p->active == active && rpc_call_shows(call, p->name))
			ret->names[ret->names_len++] = p->name;
	return 0;
}

static int list_active(struct rpc_call *call)
{
	return list_names(call, true);
}

static int list_defined(struct rpc_call *call)
{
	return list_names(call, false);
}

static int lookup_by_name(struct rpc_call *call)
{
	const char *name = ((struct remote_storage_pool_lookup_by_name_args *)call->args)->name;
	struct pool *p = by_name(call_daemon(call), name);

	if (!p)
		return rpc_call_fail(call, VIR_FROM_STORAGE, VIR_ERR_NO_STORAGE_POOL, "no storage pool with matching name '%s'", name);
	((struct remote_storage_pool_lookup_by_name_ret *)call->ret)->pool = wire(p);
	return 0;
}

static int lookup_by_uuid(struct rpc_call *call)
{
	const uint8_t *u = ((struct remote_storage_pool_lookup_by_uuid_args *)call->args)->uuid;
	char uuid[37];

	for (struct pool *p = call_daemon(call)->pools; p; p = p->next) {
		if (memcmp(p->uuid, u, 16))
			continue;
		((struct remote_storage_pool_lookup_by_uuid_ret *)call->ret)->pool = wire(p);
		return 0;
	}
	uuid_text(u, uuid);
	return rpc_call_fail(call, VIR_FROM_STORAGE, VIR_ERR_NO_STORAGE_POOL, "no storage pool with matching uuid '%s'", uuid);
}

static int lookup_by_target_path(struct rpc_call *call)
{
	const char *path = ((struct remote_storage_pool_lookup_by_target_path_args *)call->args)->path;

	for (struct pool *p = call_daemon(call)->pools; p; p = p->next) {
		if (!p->active || strcmp(p->path, path))
			continue;
		((struct remote_storage_pool_lookup_by_target_path_ret *)call->ret)->pool = wire(p);
		return 0;
	}
	return rpc_call_fail(call, VIR_FROM_STORAGE, VIR_ERR_NO_STORAGE_POOL, "no storage pool with matching target path '%s'", path);
}

/* ---- Volumes --------------------------------------------------------------- */

static int fill_volume(struct rpc_call *call, struct remote_storage_vol *v, const struct pool *p, const char *name)
{
	v->pool = p->name;
	v->name = arena_strdup(&call->arena, name);
	v->key = arena_printf(&call->arena, "%s/%s", p->path, name);
	return v->name && v->key ? 0 : call_fail_memory(call);
}

/* Regular files; libvirt's own files begin with a dot. */
static bool is_volume(const struct pool *p, const char *name)
{
	char path[PATH_MAX];
	struct stat st;

	return *name && *name != '.' && !strchr(name, '/') &&
	       snprintf(path, sizeof(path), "%s/%s", p->path, name) < (int)sizeof(path) && !stat(path, &st) && S_ISREG(st.st_mode);
}

static int list_volumes(struct rpc_call *call, const struct pool *p, struct remote_storage_vol **list, unsigned *n)
{
	struct remote_storage_vol *v = arena_alloc(&call->arena, VOLUMES_MAX * sizeof(*v));
	DIR *dir = v ? opendir(p->path) : NULL;
	struct dirent *e;
	int ret = 0;

	if (!dir)
		return v ? rpc_call_fail(call, VIR_FROM_STORAGE, VIR_ERR_SYSTEM_ERROR, "cannot open path '%s': %s", p->path, strerror(errno))
			 : call_fail_memory(call);
	for (*n = 0; !ret && *n < VOLUMES_MAX && (e = readdir(dir));)
		if (is_volume(p, e->d_name) && rpc_call_shows(call, e->d_name))
			ret = fill_volume(call, &v[(*n)++], p, e->d_name);
	closedir(dir);
	*list = v;
	return ret;
}

static int list_all_volumes(struct rpc_call *call)
{
	const struct remote_storage_pool_list_all_volumes_args *args = call->args;
	struct remote_storage_pool_list_all_volumes_ret *ret = call->ret;
	struct remote_storage_vol *list = NULL;
	struct pool *p = active_pool(call);
	unsigned n = 0;

	if (call_check_flags(call, args->flags, 0) || !p || list_volumes(call, p, &list, &n))
		return -1;
	ret->ret = n;
	ret->vols = list;
	ret->vols_len = args->need_results ? n : 0;
	return 0;
}

static int num_of_volumes(struct rpc_call *call)
{
	struct remote_storage_vol *list = NULL;
	struct pool *p = active_pool(call);
	unsigned n = 0;

	if (!p || list_volumes(call, p, &list, &n))
		return -1;
	((struct remote_storage_pool_num_of_volumes_ret *)call->ret)->num = (int32_t)n;
	return 0;
}

static int list_volume_names(struct rpc_call *call)
{
	struct remote_storage_pool_list_volumes_ret *ret = call->ret;
	int32_t most = ((struct remote_storage_pool_list_volumes_args *)call->args)->maxnames;
	struct remote_storage_vol *list = NULL;
	struct pool *p = active_pool(call);
	unsigned n = 0;

	if (!p || list_volumes(call, p, &list, &n))
		return -1;
	if (most < 0 || n > (unsigned)most)
		n = most < 0 ? 0 : (unsigned)most;
	ret->names = arena_alloc(&call->arena, (n + 1) * sizeof(*ret->names));
	if (!ret->names)
		return call_fail_memory(call);
	for (unsigned i = 0; i < n; i++)
		ret->names[i] = list[i].name;
	ret->names_len = n;
	return 0;
}

static int volume_by_name(struct rpc_call *call)
{
	const char *name = ((struct remote_storage_vol_lookup_by_name_args *)call->args)->name;
	struct pool *p = active_pool(call);

	if (!p)
		return -1;
	if (!is_volume(p, name))
		return rpc_call_fail(call, VIR_FROM_STORAGE, VIR_ERR_NO_STORAGE_VOL, "no storage vol with matching name '%s'", name);
	return fill_volume(call, &((struct remote_storage_vol_lookup_by_name_ret *)call->ret)->vol, p, name);
}

/* The active pool that has this path, and the name in it. */
static const struct pool *pool_with(const struct daemon *d, const char *path, const char **name)
{
	for (const struct pool *p = d->pools; p; p = p->next) {
		size_t len = strlen(p->path);

		*name = path + len + 1;
		if (p->active && !strncmp(path, p->path, len) && path[len] == '/' && is_volume(p, *name))
			return p;
	}
	return NULL;
}

static int volume_by_path(struct rpc_call *call)
{
	/* The arguments of both look-ups are one string, their results one volume. */
	const char *path = ((struct remote_storage_vol_lookup_by_path_args *)call->args)->path, *name;
	const struct pool *p = pool_with(call_daemon(call), path, &name);

	if (!p)
		return rpc_call_fail(call, VIR_FROM_STORAGE, VIR_ERR_NO_STORAGE_VOL, "no storage vol with matching path '%s'", path);
	return fill_volume(call, &((struct remote_storage_vol_lookup_by_path_ret *)call->ret)->vol, p, name);
}

/* The volume that the call is about: its key is its path. NULL with the error set. */
static const char *volume_of(struct rpc_call *call, const struct pool **pool)
{
	const struct remote_storage_vol *v = call->args;
	const char *name;

	*pool = pool_with(call_daemon(call), v->key, &name);
	if (*pool)
		return v->key;
	rpc_call_fail(call, VIR_FROM_STORAGE, VIR_ERR_NO_STORAGE_VOL, "no storage vol with matching name '%s'", v->name);
	return NULL;
}

static int volume_info(struct rpc_call *call)
{
	struct remote_storage_vol_get_info_ret *ret = call->ret;
	const struct pool *p;
	const char *path = volume_of(call, &p);
	uint64_t physical;

	return path && image_sizes(path, &ret->capacity, &ret->allocation, &physical) ? 0 : -1;
}

static int volume_xml(struct rpc_call *call)
{
	const struct pool *p;
	const char *path = volume_of(call, &p);
	uint64_t capacity = 0, allocation = 0, physical = 0;
	char *xml = NULL, *name, *target;
	const char *kind;
	struct stat st;

	if (!path)
		return -1;
	kind = image_sizes(path, &capacity, &allocation, &physical);
	name = escaped(path + strlen(p->path) + 1);
	target = escaped(path);
	if (name && target && !stat(path, &st) &&
	    asprintf(&xml,
		     "<volume type='file'>\n  <name>%s</name>\n  <key>%s</key>\n  <capacity unit='bytes'>%llu</capacity>\n"
		     "  <allocation unit='bytes'>%llu</allocation>\n  <physical unit='bytes'>%llu</physical>\n  <target>\n"
		     "    <path>%s</path>\n    <format type='%s'/>\n    <permissions>\n      <mode>0%o</mode>\n      <owner>%u</owner>\n"
		     "      <group>%u</group>\n    </permissions>\n  </target>\n</volume>\n",
		     name, target, (unsigned long long)capacity, (unsigned long long)allocation, (unsigned long long)physical, target,
		     kind ? kind : "raw", st.st_mode & 07777, st.st_uid, st.st_gid) < 0)
		xml = NULL;
	free(name);
	free(target);
	return give(call, &((struct remote_storage_vol_get_xml_desc_ret *)call->ret)->xml, xml);
}

static int volume_path(struct rpc_call *call)
{
	const struct pool *p;
	const char *path = volume_of(call, &p);

	if (path)
		((struct remote_storage_vol_get_path_ret *)call->ret)->name = (char *)path;
	return path ? 0 : -1;
}

static int pool_by_volume(struct rpc_call *call)
{
	const struct pool *p;

	if (!volume_of(call, &p))
		return -1;
	((struct remote_storage_pool_lookup_by_volume_ret *)call->ret)->pool = wire(p);
	return 0;
}

const struct binding pool_bindings[] = {
	{ REMOTE_PROC_STORAGE_POOL_DEFINE_XML, define_xml },
	{ REMOTE_PROC_STORAGE_POOL_CREATE_XML, create_xml },
	{ REMOTE_PROC_STORAGE_POOL_BUILD, build },
	{ REMOTE_PROC_STORAGE_POOL_CREATE, create },
	{ REMOTE_PROC_STORAGE_POOL_DESTROY, destroy },
	{ REMOTE_PROC_STORAGE_POOL_UNDEFINE, undefine },
	{ REMOTE_PROC_STORAGE_POOL_REFRESH, refresh },
	{ REMOTE_PROC_STORAGE_POOL_GET_INFO, get_info },
	{ REMOTE_PROC_STORAGE_POOL_GET_XML_DESC, get_xml_desc },
	{ REMOTE_PROC_STORAGE_POOL_GET_AUTOSTART, get_autostart },
	{ REMOTE_PROC_STORAGE_POOL_SET_AUTOSTART, set_autostart },
	{ REMOTE_PROC_STORAGE_POOL_IS_ACTIVE, is_active },
	{ REMOTE_PROC_STORAGE_POOL_IS_PERSISTENT, is_persistent },
	{ REMOTE_PROC_CONNECT_LIST_ALL_STORAGE_POOLS, list_all },
	{ REMOTE_PROC_CONNECT_NUM_OF_STORAGE_POOLS, num_of_active },
	{ REMOTE_PROC_CONNECT_LIST_STORAGE_POOLS, list_active },
	{ REMOTE_PROC_CONNECT_NUM_OF_DEFINED_STORAGE_POOLS, num_of_defined },
	{ REMOTE_PROC_CONNECT_LIST_DEFINED_STORAGE_POOLS, list_defined },
	{ REMOTE_PROC_STORAGE_POOL_LIST_VOLUMES, list_volume_names },
	{ REMOTE_PROC_STORAGE_POOL_LOOKUP_BY_NAME, lookup_by_name },
	{ REMOTE_PROC_STORAGE_POOL_LOOKUP_BY_UUID, lookup_by_uuid },
	{ REMOTE_PROC_STORAGE_POOL_LOOKUP_BY_TARGET_PATH, lookup_by_target_path },
	{ REMOTE_PROC_STORAGE_POOL_LIST_ALL_VOLUMES, list_all_volumes },
	{ REMOTE_PROC_STORAGE_POOL_NUM_OF_VOLUMES, num_of_volumes },
	{ REMOTE_PROC_STORAGE_VOL_LOOKUP_BY_NAME, volume_by_name },
	{ REMOTE_PROC_STORAGE_VOL_LOOKUP_BY_PATH, volume_by_path },
	{ REMOTE_PROC_STORAGE_VOL_LOOKUP_BY_KEY, volume_by_path },
	{ REMOTE_PROC_STORAGE_VOL_GET_INFO, volume_info },
	{ REMOTE_PROC_STORAGE_VOL_GET_XML_DESC, volume_xml },
	{ REMOTE_PROC_STORAGE_VOL_GET_PATH, volume_path },
	{ REMOTE_PROC_STORAGE_POOL_LOOKUP_BY_VOLUME, pool_by_volume },
	{ 0 },
};
