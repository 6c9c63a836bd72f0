/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Character back ends by name, as QMP's chardev-add makes them, and the virtio-serial controller whose ports they are. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/virtio_console.h"
#include "vmm/chardev.h"
#include "vmm/vmm.h"

struct vmm_chardev *vmm_chardev_find(struct vmm *v, const char *id)
{
	for (struct vmm_chardev *c = v->chardevs; c; c = c->next)
		if (!strcmp(c->id, id))
			return c;
	return NULL;
}

struct vmm_chardev *vmm_chardev_new(struct vmm *v, const char *id, const char *backend, const char *option, struct err *err)
{
	struct vmm_chardev *c, **end = &v->chardevs;

	if (!*id || strlen(id) > 63 || vmm_chardev_find(v, id)) {
		err_set(err, EEXIST, *id ? "Chardev with id '%.80s' already exists" : "a character back end needs a name%s", id);
		return NULL;
	}
	c = calloc(1, sizeof(*c));
	if (c) {
		c->id = strdup(id);
		c->backend = strdup(backend);
	}
	if (!c || !c->id || !c->backend)
		err_set(err, ENOMEM, "no memory for a character back end");
	else
		c->chardev = chardev_open(v->loop, option, backend, vmm_escape, v, err);
	if (!c || !c->chardev) {
		if (c) {
			free(c->id);
			free(c->backend);
		}
		free(c);
		return NULL;
	}
	while (*end)
		end = &(*end)->next;
	*end = c;
	return c;
}

static void chardev_drop(struct vmm *v, struct vmm_chardev *c)
{
	struct vmm_chardev **p = &v->chardevs;

	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	chardev_free(c->chardev);
	free(c->id);
	free(c->backend);
	free(c);
}

void vmm_chardevs_free(struct vmm *v)
{
	while (v->chardevs)
		chardev_drop(v, v->chardevs);
}

/* ---- Ports ------------------------------------------------------------------------ */

static void port_changed(void *opaque, unsigned port, bool open)
{
	struct vmm *v = opaque;

	for (struct vmm_chardev *c = v->chardevs; c; c = c->next)
		if (c->is_channel && c->port == port)
			qmp_event(v->qmp, "VSERPORT_CHANGE", json_pack("{s:s,s:b}", "id", c->id, "open", open));
}

static int channel_setting(const struct option_pair *p, const char **backend, const char **name, const char **id, struct err *err)
{
	if (!strcmp(p->key, "backend"))
		*backend = p->value;
	else if (!strcmp(p->key, "name"))
		*name = p->value;
	else if (!strcmp(p->key, "id"))
		*id = p->value;
	else
		return err_set(err, EINVAL, "--channel: there is no setting '%s'; use name or id", p->key);
	return 0;
}

/* One --channel: its back end, and two properties of the controller. The texts of `property` are freed by the caller. */
static int add_channel(struct vmm *v, const char *text, unsigned port, struct option_pair property[2], struct err *err)
{
	struct option_pair pairs[4];
	const char *backend = NULL, *name = NULL, *id = NULL;
	char own[24], key[2][24];
	int n = options_split("--channel", text, "backend", pairs, 4, err), ret = 0;
	struct vmm_chardev *c = NULL;

	if (n < 0)
		return n;
	for (int i = 0; i < n && !ret; i++)
		ret = channel_setting(&pairs[i], &backend, &name, &id, err);
	if (!ret && (!backend || !name))
		ret = err_set(err, EINVAL, "--channel: '%s' is not of the form BACKEND,name=NAME", text);
	snprintf(own, sizeof(own), "channel%u", port - 1);
	if (!ret) {
		c = vmm_chardev_new(v, id ? id : own, backend, "--channel", err);
		ret = c ? 0 : -err->code;
	}
	if (!ret) {
		c->is_channel = true;
		c->port = port;
		snprintf(key[0], sizeof(key[0]), "chardev%u", port);
		snprintf(key[1], sizeof(key[1]), "name%u", port);
		property[0] = (struct option_pair){ strdup(key[0]), strdup(c->id) };
		property[1] = (struct option_pair){ strdup(key[1]), strdup(name) };
	}
	options_split_free(pairs, n);
	return ret;
}

int vmm_console_options(struct vmm *v, struct err *err)
{
	const struct vmm_options *o = v->options;
	struct option_pair pairs[2 + 2 * VIRTIO_CONSOLE_PORTS] = { { strdup("id"), strdup("console0") } };
	int n = 1, ret = 0;

	if (o->console) {
		if (!vmm_chardev_new(v, "console", o->console, "--console", err))
			ret = -err->code;
		pairs[n++] = (struct option_pair){ strdup("chardev"), strdup("console") };
	} else {
		pairs[n++] = (struct option_pair){ strdup("console"), strdup("off") };
	}
	for (unsigned i = 0; i < o->channels && !ret; i++) {
		ret = add_channel(v, o->channel[i], i + 1, pairs + n, err);
		if (!ret)
			n += 2;
	}
	if (!ret && (o->console || o->channels))
		ret = vmm_plug(v, "virtio-serial-pci", pairs, n, err);
	if (!ret && o->channels)
		virtio_console_set_callback(machine_find(v->machine, "console0"), port_changed, v);
	options_split_free(pairs, n);
	return ret;
}

/* ---- Commands ------------------------------------------------------------------------ */

/* The text form of chardev-add's "backend"; NULL and err where there is none. */
static const char *backend_text(json_t *backend, char *text, size_t room, struct err *err)
{
	const char *type = json_string_value(json_object_get(backend, "type"));
	json_t *data = json_object_get(backend, "data"), *addr = json_object_get(data, "addr");
	const char *path = json_string_value(json_object_get(json_object_get(addr, "data"), "path"));
	const char *out = json_string_value(json_object_get(data, "out"));

	if (type && !strcmp(type, "null"))
		return "null";
	if (type && !strcmp(type, "file") && out) {
		snprintf(text, room, "file:%s", out);
		return text;
	}
	if (type && !strcmp(type, "socket") && path && !json_is_false(json_object_get(data, "server"))) {
		snprintf(text, room, "unix:%s", path);
		return text;
	}
	err_set(err, ENOTSUP, "Parameter 'backend' must be of type null, file, or socket with a Unix path and 'server' on");
	return NULL;
}

static json_t *cmd_add(struct vmm *v, json_t *args, struct err *err)
{
	const char *id = qmp_need_text(args, "id", err), *backend;
	char text[512];

	if (!id)
		return NULL;
	backend = backend_text(json_object_get(args, "backend"), text, sizeof(text), err);
	return backend && vmm_chardev_new(v, id, backend, "chardev-add", err) ? json_object() : NULL;
}

static json_t *cmd_remove(struct vmm *v, json_t *args, struct err *err)
{
	const char *id = json_string_value(json_object_get(args, "id"));
	struct vmm_chardev *c = id ? vmm_chardev_find(v, id) : NULL;

	if (!c) {
		err_set(err, ENXIO, "Chardev '%.80s' not found", id ? id : "");
		return NULL;
	}
	if (c->chardev->front) {
		err_set(err, EBUSY, "Chardev '%s' is busy", id);
		return NULL;
	}
	chardev_drop(v, c);
	return json_object();
}

static json_t *cmd_query(struct vmm *v, json_t *args, struct err *err)
{
	json_t *list = json_array();

	for (struct vmm_chardev *c = v->chardevs; c; c = c->next)
		json_array_append_new(list, json_pack("{s:s,s:s,s:b}", "label", c->id, "filename", c->backend, "frontend-open",
						      c->chardev->front != NULL));
	return list;
}

const struct qmp_command qmp_chardev_commands[] = {
	{ "chardev-add", "id backend", cmd_add },
	{ "chardev-remove", "id", cmd_remove },
	{ "query-chardev", "", cmd_query },
	{ NULL, NULL, NULL },
};
