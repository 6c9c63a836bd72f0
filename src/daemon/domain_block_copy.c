/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copies of a running guest's disk. The machine opens nothing: keeld makes the
 * file and passes it; the machine writes the new image's tables, takes it as a
 * node and mirrors onto it. One step after the other, each when the one before
 * was answered.
 */
#include "daemon/domain_block.h"

#include <errno.h>
#include <fcntl.h>
#include <libxml/parser.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/confine.h"
#include "daemon/image_links.h"

enum { COPY_SHALLOW = 1, COPY_REUSE = 2, COPY_TRANSIENT = 4, COPY_SYNC = 8 }; /* virDomainBlockCopyFlags */

static int gone(struct rpc_call *call)
{
	return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_FAILED, "domain is no longer running");
}

/* The disk as the definition would have it with the copy. */
static int pass_copy(struct rpc_call *call, struct guest *g, struct block_job *j)
{
	const struct dom_disk *old = disk_by_alias(g->live, j->alias);
	struct dom_disk_source source = { .file = j->new_is_device ? NULL : j->new_path,
					  .dev = j->new_is_device ? j->new_path : NULL };
	struct dom_disk_driver driver = { .type = j->new_format };
	struct dom_disk disk = { .type = j->new_is_device ? DOM_DISK_BLOCK : DOM_DISK_FILE,
				 .device = DOM_DISK_DISK,
				 .source = &source,
				 .driver = &driver };
	struct confine_files files = { 0 };
	struct qmp *q = guest_monitor(g);
	struct err err = ERR_INIT;
	int ret;

	if (!old || !q)
		return gone(call);
	driver.cache = old->driver ? old->driver->cache : 0;
	ret = confine_disk_open(&files, g, &disk, &err);
	if (!ret && confine_files_send(&files, q))
		return 0;
	confine_files_close(&files);
	return ret ? call_fail_model(call, &err) : gone(call);
}

static int pass_plain(struct rpc_call *call, struct guest *g, struct block_job *j)
{
	struct confine_files files = { 0 };
	struct qmp *q = guest_monitor(g);
	struct err err = ERR_INIT;
	int ret = q ? confine_file_open(&files, j->new_path, O_RDWR, &err) : -EIO;

	if (!ret && confine_files_send(&files, q))
		return 0;
	confine_files_close(&files);
	return err.code ? call_fail_model(call, &err) : gone(call);
}

static json_t *node_arguments(const struct guest *g, const struct block_job *j)
{
	const struct dom_disk *disk = disk_by_alias(g->live, j->alias);
	bool direct = disk && disk->driver &&
		      (disk->driver->cache == DOM_DISK_CACHE_NONE || disk->driver->cache == DOM_DISK_CACHE_DIRECTSYNC);
	bool unsafe = disk && disk->driver && disk->driver->cache == DOM_DISK_CACHE_UNSAFE;
	json_t *args = json_pack("{s:s,s:s,s:{s:b,s:b},s:s,s:{s:s,s:s}}", "node-name", j->node, "driver", j->new_format,
				 "cache", "direct", direct, "no-flush", unsafe, "discard", "unmap", "file", "driver",
				 j->new_is_device ? "host_device" : "file", "filename", j->new_path);

	if (!strcmp(j->new_format, "qcow2") && (!j->shallow || j->type == BLOCK_JOB_SNAPSHOT))
		json_object_set_new(args, "backing", json_null());
	return args;
}

/* What the disk's own image has below it goes below the copy, too. */
static void add_backing(json_t *options, const struct block_job *j)
{
	uint8_t *head = malloc(IMAGE_LINKS_BYTES);
	int fd = open(j->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	ssize_t n = head && fd >= 0 ? pread(fd, head, IMAGE_LINKS_BYTES, 0) : -1;
	struct image_links links;

	if (n > 0 && image_links_parse(head, (size_t)n, &links) && links.backing[0]) {
		char *path = image_links_path(j->path, links.backing);

		if (path)
			json_object_set_new(options, "backing-file", json_string(path));
		if (path && links.backing_format[0])
			json_object_set_new(options, "backing-fmt", json_string(links.backing_format));
		free(path);
	}
	if (fd >= 0)
		close(fd);
	free(head);
}

static json_t *create_arguments(const struct block_job *j)
{
	char file[96];
	json_t *options;

	snprintf(file, sizeof(file), "%.70s-new", j->node);
	options = json_pack("{s:s,s:s,s:I}", "driver", "qcow2", "file", file, "size", (json_int_t)j->size);
	if (j->type == BLOCK_JOB_SNAPSHOT) {
		json_object_set_new(options, "backing-file", json_string(j->path));
		json_object_set_new(options, "backing-fmt", json_string(j->old_format));
	} else if (j->shallow) {
		add_backing(options, j);
	}
	return json_pack("{s:s,s:o}", "job-id", j->node, "options", options);
}

/* A new, empty file, or what is there if it is empty. */
static int make_file(struct rpc_call *call, struct block_job *j)
{
	struct stat st;
	int fd = open(j->new_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);

	if (fd < 0 || fstat(fd, &st)) {
		if (fd >= 0)
			close(fd);
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_SYSTEM_ERROR, "unable to create file '%s': %s",
				     j->new_path, strerror(errno));
	}
	if (S_ISREG(st.st_mode) && st.st_size) {
		close(fd);
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_CONFIG_UNSUPPORTED,
				     "external destination file %s already exists and is not a block device",
				     j->new_path);
	}
	j->made = S_ISREG(st.st_mode);
	if (j->made && !strcmp(j->new_format, "raw") && ftruncate(fd, (off_t)j->size)) {
		close(fd);
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_SYSTEM_ERROR, "cannot give '%s' its size: %s",
				     j->new_path, strerror(errno));
	}
	close(fd);
	return 0;
}

static int step(struct rpc_call *call, struct guest *g, json_t *ret);

static int give_up(struct rpc_call *call, struct guest *g, struct block_job *j)
{
	struct qmp *q = guest_monitor(g);
	char file[96];

	if (j->also)
		give_up(call, g, j->also);
	snprintf(file, sizeof(file), "%.70s-new", j->node);
	if (q && j->step) {
		qmp_send(q, "blockdev-del", json_pack("{s:s}", "node-name", j->node), NULL, NULL);
		qmp_send(q, "blockdev-del", json_pack("{s:s}", "node-name", file), NULL, NULL);
		qmp_send(q, "job-dismiss", json_pack("{s:s}", "id", j->node), NULL, NULL);
	}
	if (j->made)
		unlink(j->new_path);
	block_job_free(j);
	return -1;
}

enum { SIZE, FILE_NODE, CREATE, CREATED, DISMISS, NODE, MIRROR, DONE };

/* The size that the guest sees. */
static uint64_t size_of(json_t *list, const char *alias)
{
	json_t *one;
	size_t i;

	json_array_foreach(list, i, one)
	{
		const char *qdev = json_string_value(json_object_get(one, "qdev"));
		json_t *image = json_object_get(json_object_get(one, "inserted"), "image");

		if (qdev && !strcmp(qdev, alias))
			return (uint64_t)json_integer_value(json_object_get(image, "virtual-size"));
	}
	return 0;
}

/* blockdev-create has ended: well? */
static int created(struct rpc_call *call, const struct block_job *j, json_t *list)
{
	json_t *one;
	size_t i;

	json_array_foreach(list, i, one)
	{
		const char *id = json_string_value(json_object_get(one, "id")),
			   *error = json_string_value(json_object_get(one, "error"));

		if (id && error && !strcmp(id, j->node))
			return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INTERNAL_ERROR,
					     "unable to create '%s': %.200s", j->new_path, error);
	}
	return 0;
}

/* One image of a snapshot is there: the next disk's, or the snapshot. */
static int image_ready(struct rpc_call *call, struct guest *g, struct block_job *j)
{
	struct block_job *first = j->first ? j->first : j;

	if (!j->also)
		return snapshot_ready(call, g, first);
	j->call = NULL;
	j->also->first = first;
	return block_images_begin(call, g, j->also);
}

static int next_step(struct rpc_call *call, struct guest *g, struct block_job *j, json_t *ret)
{
	bool tables = j->create && !strcmp(j->new_format, "qcow2");
	char file[96];

	snprintf(file, sizeof(file), "%.70s-new", j->node);
	if (j->step == SIZE) {
		j->size = size_of(ret, j->alias);
		if (!j->size)
			return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "disk '%s' has no medium",
					     j->dst);
		if (j->create && make_file(call, j))
			return -1;
		j->step = tables ? FILE_NODE : NODE;
	}
	switch (j->step++) {
	case FILE_NODE:
		if (pass_plain(call, g, j))
			return -1;
		return guest_qmp_try(call, g, "blockdev-add",
				     json_pack("{s:s,s:s,s:s}", "node-name", file, "driver",
					       j->new_is_device ? "host_device" : "file", "filename", j->new_path),
				     step);
	case CREATE:
		return guest_qmp_try(call, g, "blockdev-create", create_arguments(j), step);
	case CREATED:
		return guest_qmp_try(call, g, "query-jobs", NULL, step);
	case DISMISS:
		if (created(call, j, ret))
			return -1;
		if (guest_monitor(g))
			qmp_send(guest_monitor(g), "blockdev-del", json_pack("{s:s}", "node-name", file), NULL, NULL);
		return guest_qmp_try(call, g, "job-dismiss", json_pack("{s:s}", "id", j->node), step);
	case NODE:
		if (pass_copy(call, g, j))
			return -1;
		return guest_qmp_try(call, g, "blockdev-add", node_arguments(g, j), step);
	case MIRROR: {
		if (j->type == BLOCK_JOB_SNAPSHOT)
			return image_ready(call, g, j);
		json_t *args = json_pack("{s:s,s:s,s:s,s:s,s:I,s:s}", "job-id", j->id, "device", j->alias, "target",
					 j->node, "sync", j->shallow ? "top" : "full", "speed", (json_int_t)j->speed,
					 "copy-mode", j->sync_writes ? "write-blocking" : "background");

		if (j->granularity)
			json_object_set_new(args, "granularity", json_integer((json_int_t)j->granularity));
		return guest_qmp_try(call, g, "blockdev-mirror", args, step);
	}
	default:
		j->call = NULL;
		j->running = true;
		return 0;
	}
}

static int step(struct rpc_call *call, struct guest *g, json_t *ret)
{
	struct block_job *j = block_job_of_call(call);
	int result;

	if (!j)
		return -1;
	result = ret ? next_step(call, g, j, ret) : -1;
	return result < 0 ? give_up(call, g, j->first ? j->first : j) : result;
}

int block_images_begin(struct rpc_call *call, struct guest *g, struct block_job *j)
{
	j->call = call;
	return guest_qmp_try(call, g, "query-block", NULL, step);
}

int block_copy_begin(struct rpc_call *call, struct guest *g, const char *name, const struct block_dest *dest,
		     uint64_t speed, uint64_t granularity, uint32_t flags)
{
	static unsigned number;
	struct block_job *j = block_job_new(call, g, name, BLOCK_JOB_COPY);
	const struct dom_disk *disk = j ? disk_by_alias(g->live, j->alias) : NULL;
	int ret = 0;

	if (!disk)
		return -1;
	j->new_path = strdup(dest->path);
	j->new_format = strdup(dest->format			    ? dest->format
			       : disk->driver && disk->driver->type ? disk->driver->type
								    : "raw");
	j->new_is_device = dest->is_device;
	j->create = !(flags & COPY_REUSE) && !dest->is_device;
	j->shallow = flags & COPY_SHALLOW;
	j->sync_writes = flags & COPY_SYNC;
	j->speed = speed;
	j->granularity = granularity;
	snprintf(j->node, sizeof(j->node), "copy%u-%.60s", number++, j->alias);
	if (!j->new_path || !j->new_format)
		ret = call_fail_memory(call);
	else if (dest->path[0] != '/')
		ret = rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "the copy's path '%s' is not absolute",
				    dest->path);
	else if (strcmp(j->new_format, "raw") && strcmp(j->new_format, "qcow2"))
		ret = rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_CONFIG_UNSUPPORTED,
				    "a copy has format raw or qcow2, not '%s'", j->new_format);
	else if (j->shallow && strcmp(j->new_format, "qcow2"))
		ret = rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG,
				    "shallow copy of disk '%s' into a raw file is not possible", j->dst);
	if (!ret)
		ret = guest_qmp_try(call, g, "query-block", NULL, step);
	if (ret != RPC_LATER)
		block_job_free(j);
	return ret;
}

/* ---- A destination as XML ---------------------------------------------------------------------- */

static char *attribute(xmlNode *n, const char *name)
{
	return (char *)xmlGetProp(n, (const xmlChar *)name);
}

static xmlNode *child(xmlNode *n, const char *name)
{
	for (n = n->children; n; n = n->next)
		if (n->type == XML_ELEMENT_NODE && !strcmp((const char *)n->name, name))
			return n;
	return NULL;
}

static int copy_with(struct rpc_call *call, struct guest *g, xmlNode *disk, uint64_t speed, uint64_t granularity)
{
	const struct remote_domain_block_copy_args *args = call->args;
	xmlNode *source = child(disk, "source"), *driver = child(disk, "driver");
	char *type = attribute(disk, "type"), *format = driver ? attribute(driver, "type") : NULL;
	struct block_dest dest = { .format = format, .is_device = type && !strcmp(type, "block") };
	char *path = source ? attribute(source, dest.is_device ? "dev" : "file") : NULL;
	int ret;

	dest.path = path;
	if (!type || (!dest.is_device && strcmp(type, "file")))
		ret = rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_CONFIG_UNSUPPORTED,
				    "a copy goes to a file or a block device, not to type '%s'", type ? type : "");
	else if (!path)
		ret = rpc_call_fail(call, VIR_FROM_DOMAIN, VIR_ERR_XML_ERROR, "the copy's <source> is missing");
	else
		ret = block_copy_begin(call, g, args->path, &dest, speed, granularity, args->flags);
	xmlFree(type);
	xmlFree(format);
	xmlFree(path);
	return ret;
}

int block_copy(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_block_copy_args *args = call->args;
	uint64_t speed = 0, granularity = 0;
	xmlDoc *doc;
	xmlNode *root;
	int ret;

	if (call_check_flags(call, args->flags, COPY_SHALLOW | COPY_REUSE | COPY_TRANSIENT | COPY_SYNC))
		return -1;
	for (uint32_t i = 0; i < args->params_len; i++) {
		const struct remote_typed_param *p = &args->params[i];

		if (!strcmp(p->field, "bandwidth") && p->value.type == PARAM_ULLONG && p->value.u.ul <= INT64_MAX)
			speed = p->value.u.ul;
		else if (!strcmp(p->field, "granularity") && p->value.type == PARAM_UINT)
			granularity = p->value.u.ui;
		else
			return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_ARGUMENT_UNSUPPORTED,
					     "parameter '%s' is not supported, or has a wrong value", p->field);
	}
	doc = xmlReadMemory(args->destxml, (int)strlen(args->destxml), "disk", NULL,
			    XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
	root = doc ? xmlDocGetRootElement(doc) : NULL;
	if (!root || strcmp((const char *)root->name, "disk"))
		ret = rpc_call_fail(call, VIR_FROM_DOMAIN, VIR_ERR_XML_ERROR, "the copy's destination is no <disk>");
	else
		ret = copy_with(call, g, root, speed, granularity);
	xmlFreeDoc(doc);
	return ret;
}
