/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where the access rules are, and the true names of what calls are about. */
#include <libxml/parser.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "daemon/guest.h"
#include "rpc/access.h"

static const char *true_name(struct rpc_call *call, const char *object, const void *wire)
{
	const struct guest *g;

	/* Calls find guests and pools by UUID, volumes by the name. */
	if (!strcmp(object, "storage_pool"))
		return pools_name(call_daemon(call), ((const struct remote_storage_pool *)wire)->uuid);
	if (strcmp(object, "domain"))
		return NULL;
	g = guest_by_uuid(call_daemon(call), ((const struct remote_domain *)wire)->uuid);
	return g ? g->name : NULL;
}

/* The name in a definition. Without exactly one there is none: the definition is refused later, too. */
static const char *xml_name(struct rpc_call *call, const char *object, const char *xml)
{
	xmlDoc *doc = strlen(xml) < INT_MAX ? xmlReadMemory(xml, (int)strlen(xml), NULL, NULL,
							   XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING) : NULL;
	xmlNode *root = doc ? xmlDocGetRootElement(doc) : NULL;
	const char *name = NULL;
	unsigned found = 0;

	for (xmlNode *n = root ? root->children : NULL; n; n = n->next) {
		xmlChar *text;

		if (n->type != XML_ELEMENT_NODE || strcmp((const char *)n->name, "name"))
			continue;
		found++;
		text = xmlNodeGetContent(n);
		name = text ? arena_strdup(&call->arena, (const char *)text) : NULL;
		xmlFree(text);
	}
	xmlFreeDoc(doc);
	return found == 1 ? name : NULL;
}

int access_load(struct daemon *d, struct err *err)
{
	static const struct rpc_access_names names = { .name = true_name, .xml_name = xml_name };
	const char *path = d->options->access;
	struct rpc_access *rules;
	char own[PATH_MAX];

	if (!path) {
		snprintf(own, sizeof(own), "%s/etc/access.conf", d->root);
		path = own;
		if (access(path, F_OK)) {
			rpc_server_set_access(d->server, NULL, NULL);
			return 0;
		}
	}
	rules = rpc_access_load(path, err);
	if (!rules)
		return -err->code;
	rpc_server_set_access(d->server, rules, &names);
	return 0;
}
