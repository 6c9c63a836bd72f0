/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * External snapshots of a running guest's disks, all at one moment: new images
 * over those that are there. Nothing is remembered about them
 * (VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA): the definition names the new images.
 */
#include <libxml/parser.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/domain_block.h"
#include "util/log.h"

enum {
	CREATE_NO_METADATA = 4,
	CREATE_DISK_ONLY = 16,
	CREATE_REUSE = 32,
	CREATE_ATOMIC = 128
}; /* virDomainSnapshotCreateFlags */

static xmlNode *child(xmlNode *n, const char *name)
{
	for (n = n ? n->children : NULL; n; n = n->next)
		if (n->type == XML_ELEMENT_NODE && !strcmp((const char *)n->name, name))
			return n;
	return NULL;
}

/* What <disks> says of a disk, by its target's or its image's name, or NULL. */
static xmlNode *disk_element(xmlNode *disks, const struct dom_disk *disk)
{
	for (xmlNode *n = disks ? disks->children : NULL; n; n = n->next) {
		char *name = n->type == XML_ELEMENT_NODE ? (char *)xmlGetProp(n, (const xmlChar *)"name") : NULL;
		bool found = name && (!strcmp(name, disk->target->dev) || !strcmp(name, disk_image(disk)));

		xmlFree(name);
		if (found)
			return n;
	}
	return NULL;
}

/* "/x/disk.qcow2" and "one": "/x/disk.one" */
static char *generated(const char *image, const char *snapshot)
{
	const char *slash = strrchr(image, '/'), *dot = strrchr(slash ? slash : image, '.');
	size_t n = dot ? (size_t)(dot - image) : strlen(image);
	char *path = malloc(n + strlen(snapshot) + 2);

	if (path)
		sprintf(path, "%.*s.%s", (int)n, image, snapshot);
	return path;
}

static int fill(struct rpc_call *call, struct block_job *j, xmlNode *n, const struct dom_disk *disk,
		const char *snapshot, uint32_t flags)
{
	xmlNode *source = child(n, "source"), *driver = child(n, "driver");
	char *file = source ? (char *)xmlGetProp(source, (const xmlChar *)"file") : NULL;
	char *format = driver ? (char *)xmlGetProp(driver, (const xmlChar *)"type") : NULL;
	static unsigned number;
	int ret = 0;

	j->create = !(flags & CREATE_REUSE);
	j->new_path = file ? strdup(file) : generated(j->path, snapshot);
	j->new_format = strdup("qcow2");
	j->old_format = strdup(disk->driver && disk->driver->type ? disk->driver->type : "raw");
	snprintf(j->node, sizeof(j->node), "snap%u-%.60s", number++, j->alias);
	if (!j->new_path || !j->new_format || !j->old_format)
		ret = call_fail_memory(call);
	else if (format && strcmp(format, "qcow2"))
		ret = rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_CONFIG_UNSUPPORTED,
				    "external snapshot format for disk %s is unsupported: %s", j->dst, format);
	else if (source && !file)
		ret = rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_CONFIG_UNSUPPORTED,
				    "external snapshots of disk %s go to a file only", j->dst);
	else if (j->new_path[0] != '/')
		ret = rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_CONFIG_UNSUPPORTED,
				    "disk %s: the path '%s' is not absolute", j->dst, j->new_path);
	else if (!strcmp(j->new_path, j->path))
		ret = rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_CONFIG_UNSUPPORTED,
				    "disk %s would be its own backing file", j->dst);
	xmlFree(file);
	xmlFree(format);
	return ret;
}

/* One for each disk that takes part, the first in *first. */
static int plan(struct rpc_call *call, struct guest *g, xmlNode *disks, const char *snapshot, uint32_t flags,
		struct block_job **first)
{
	struct block_job **at = first;

	for (unsigned i = 0; i < g->live->devices->disk.n; i++) {
		const struct dom_disk *disk = g->live->devices->disk.v[i];
		xmlNode *n = disk_image(disk) ? disk_element(disks, disk) : NULL;
		char *mode = n ? (char *)xmlGetProp(n, (const xmlChar *)"snapshot") : NULL;
		bool no = mode && !strcmp(mode, "no"), wrong = mode && !no && strcmp(mode, "external");

		xmlFree(mode);
		if (wrong)
			return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_CONFIG_UNSUPPORTED,
					     "disk '%s' can only have an external snapshot", disk->target->dev);
		if (no || !disk_image(disk) || disk->readonly || disk->device == DOM_DISK_CDROM ||
		    disk->device == DOM_DISK_FLOPPY)
			continue;
		*at = block_job_new(call, g, disk->target->dev, BLOCK_JOB_SNAPSHOT);
		if (!*at)
			return -1;
		(*at)->call = NULL;
		if (fill(call, *at, n, disk, snapshot, flags))
			return -1;
		at = &(*at)->also;
	}
	return *first ? 0
		      : rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_CONFIG_UNSUPPORTED,
				      "no disks selected for snapshot");
}

static void free_all(struct block_job *first)
{
	for (struct block_job *also; first; first = also) {
		also = first->also;
		block_job_free(first);
	}
}

/* ---- The moment itself ------------------------------------------------------------------ */

static int taken(struct rpc_call *call, struct guest *g, json_t *ret)
{
	struct block_job *first = block_job_of_call(call);
	struct err err = ERR_INIT;
	struct qmp *q = guest_monitor(g);
	bool config = false;

	if (!first)
		return -1;
	first->call = NULL;
	for (struct block_job *j = first; j; j = j->also) {
		if (!ret && q)
			qmp_send(q, "blockdev-del", json_pack("{s:s}", "node-name", j->node), NULL, NULL);
		if (!ret && j->made)
			remove(j->new_path);
		if (!ret)
			continue;
		block_job_replace(g->live, j);
		if (guest_is_persistent(g) && !guest_unpack(g))
			config |= block_job_replace(g->config, j);
	}
	free_all(first);
	if (!ret)
		return -1;
	store_save_live(g);
	if (config && store_save_config(g, g->config, &err))
		log_line(LOG_ERROR, "%s: %s", g->name, err_msg(&err));
	return 0;
}

int snapshot_ready(struct rpc_call *call, struct guest *g, struct block_job *first)
{
	json_t *actions = json_array();

	for (struct block_job *j = first; j; j = j->also) {
		j->call = NULL;
		json_array_append_new(actions, json_pack("{s:s,s:{s:s,s:s}}", "type", "blockdev-snapshot", "data",
							 "node", j->alias, "overlay", j->node));
	}
	first->call = call;
	return guest_qmp_try(call, g, "transaction", json_pack("{s:o}", "actions", actions), taken);
}

static int create_with(struct rpc_call *call, struct guest *g, xmlNode *root, uint32_t flags)
{
	struct remote_domain_snapshot_create_xml_ret *ret = call->ret;
	xmlNode *name_element = child(root, "name"), *memory = child(root, "memory");
	char *name = name_element ? (char *)xmlNodeGetContent(name_element) : NULL;
	char *mode = memory ? (char *)xmlGetProp(memory, (const xmlChar *)"snapshot") : NULL;
	struct block_job *first = NULL;
	char number[24];
	int result = 0;

	snprintf(number, sizeof(number), "%lld", (long long)time(NULL));
	ret->snap.name = arena_strdup(&call->arena, name && name[0] ? name : number);
	ret->snap.dom = guest_wire(g);
	if (!ret->snap.name)
		result = call_fail_memory(call);
	else if (strchr(ret->snap.name, '/') || ret->snap.name[0] == '.')
		result = rpc_call_fail(call, VIR_FROM_DOMAIN_SNAPSHOT, VIR_ERR_XML_DETAIL, "invalid snapshot name '%s'",
				       ret->snap.name);
	else if (mode && strcmp(mode, "no"))
		result = rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_CONFIG_UNSUPPORTED,
				       "a disk-only snapshot has no memory");
	if (!result)
		result = plan(call, g, child(root, "disks"), ret->snap.name, flags, &first);
	if (!result) {
		result = block_images_begin(call, g, first);
		if (result == RPC_LATER)
			first = NULL;
	}
	free_all(first);
	xmlFree(name);
	xmlFree(mode);
	return result;
}

static int create_xml(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_snapshot_create_xml_args *args = call->args;
	const uint32_t needed = CREATE_NO_METADATA | CREATE_DISK_ONLY;
	xmlDoc *doc;
	xmlNode *root;
	int ret;

	if (call_check_flags(call, args->flags, needed | CREATE_REUSE | CREATE_ATOMIC))
		return -1;
	if ((args->flags & needed) != needed)
		return rpc_call_fail(
			call, VIR_FROM_QEMU, VIR_ERR_OPERATION_UNSUPPORTED,
			"only external snapshots of disks are made, and not remembered: use --disk-only --no-metadata");
	doc = xmlReadMemory(args->xml_desc, (int)strlen(args->xml_desc), "snapshot", NULL,
			    XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
	root = doc ? xmlDocGetRootElement(doc) : NULL;
	if (!root || strcmp((const char *)root->name, "domainsnapshot"))
		ret = rpc_call_fail(call, VIR_FROM_DOMAIN_SNAPSHOT, VIR_ERR_XML_ERROR,
				    "the description is no <domainsnapshot>");
	else
		ret = create_with(call, g, root, args->flags);
	xmlFreeDoc(doc);
	return ret;
}

const struct guest_binding snapshot_bindings[] = {
	{ NULL, REMOTE_PROC_DOMAIN_SNAPSHOT_CREATE_XML, create_xml, GUEST_JOB | GUEST_ACTIVE },
	{ 0 },
};
