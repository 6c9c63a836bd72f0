/* SPDX-License-Identifier: GPL-2.0-or-later */
/* --disk: an image as a block node, and a disk of some kind on it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/virtio_scsi.h"
#include "image/remote.h"
#include "vmm/vmm.h"

#define SETTINGS 16

struct disk_option {
	struct block_options image;
	const char *id, *bus, *media;
	struct option_pair device[SETTINGS + 4]; /* properties, texts as in the option */
	int n;
};

static int parse_switch(const struct option_pair *p, bool *value, struct err *err)
{
	*value = !strcmp(p->value, "on");
	if (!*value && strcmp(p->value, "off"))
		return err_set(err, EINVAL, "--disk: %s must be on or off, not '%s'", p->key, p->value);
	return 0;
}

static int parse_cache(const char *text, enum block_cache *cache, struct err *err)
{
	static const char *const names[] = {
		[BLOCK_CACHE_WRITEBACK] = "writeback", [BLOCK_CACHE_NONE] = "none", [BLOCK_CACHE_WRITETHROUGH] = "writethrough",
		[BLOCK_CACHE_DIRECTSYNC] = "directsync", [BLOCK_CACHE_UNSAFE] = "unsafe",
	};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!strcmp(names[i], text)) {
			*cache = i;
			return 0;
		}
	}
	return err_set(err, EINVAL, "--disk: there is no cache mode '%s'; use writeback, none, writethrough, directsync or unsafe",
		       text);
}

static int one_of(const struct option_pair *p, const char **value, const char *a, const char *b, struct err *err)
{
	*value = p->value;
	if (!strcmp(p->value, a) || !strcmp(p->value, b))
		return 0;
	return err_set(err, EINVAL, "--disk: %s must be %s or %s, not '%s'", p->key, a, b, p->value);
}

/* What goes to the device under a name of its own. */
static const struct {
	const char *setting, *property;
} to_device[] = {
	{ "serial", "serial" }, { "werror", "werror" }, { "rerror", "rerror" }, { "queues", "num-queues" },
	{ "discard", "discard" }, { "iothread", "iothread" },
};

static int disk_setting(struct disk_option *o, const struct option_pair *p, struct err *err)
{
	for (unsigned i = 0; i < sizeof(to_device) / sizeof(to_device[0]); i++) {
		if (!strcmp(p->key, to_device[i].setting)) {
			o->device[o->n++] = (struct option_pair){ (char *)to_device[i].property, p->value };
			return 0;
		}
	}
	if (!strcmp(p->key, "file"))
		o->image.path = p->value;
	else if (!strcmp(p->key, "format"))
		o->image.format = p->value;
	else if (!strcmp(p->key, "key-secret") || !strcmp(p->key, "encrypt.key-secret"))
		o->image.key_secret = p->value;
	else if (!strcmp(p->key, "id"))
		o->id = p->value;
	else if (!strcmp(p->key, "readonly"))
		return parse_switch(p, &o->image.readonly, err);
	else if (!strcmp(p->key, "cache"))
		return parse_cache(p->value, &o->image.cache, err);
	else if (!strcmp(p->key, "bus"))
		return one_of(p, &o->bus, "virtio", "scsi", err);
	else if (!strcmp(p->key, "media"))
		return one_of(p, &o->media, "disk", "cdrom", err);
	else
		return err_set(err, EINVAL,
			       "--disk: there is no setting '%s'; use format, key-secret, readonly, cache, id, serial, bus, media, werror, rerror, queues, iothread or discard",
			       p->key);
	return 0;
}

static int add_disk(struct vmm *v, struct disk_option *o, struct err *err)
{
	struct option_pair controller = { "id", "scsi0" };
	bool cd = o->media && !strcmp(o->media, "cdrom"), scsi = o->bus ? !strcmp(o->bus, "scsi") : cd;
	char id[64];
	struct vmm_node *n;

	if (cd && !scsi)
		return err_set(err, EINVAL, "a CD-ROM drive needs bus=scsi");
	o->image.readonly |= cd;
	if (o->id)
		snprintf(id, sizeof(id), "%s", o->id);
	else
		snprintf(id, sizeof(id), "disk%u", v->disks++);
	n = vmm_node_open(v, id, &o->image, err);
	if (!n)
		return -err->code;
	n->own = true;
	o->device[o->n++] = (struct option_pair){ "id", id };
	o->device[o->n++] = (struct option_pair){ "drive", id };
	if (!scsi)
		return vmm_plug(v, "virtio-blk-pci", o->device, o->n, err);
	if (!virtio_scsi_find(v->machine, NULL) && vmm_plug(v, "virtio-scsi-pci", &controller, 1, err))
		return -err->code;
	return vmm_plug(v, cd ? "scsi-cd" : "scsi-hd", o->device, o->n, err);
}

int vmm_disk_option(struct vmm *v, const char *text, struct err *err)
{
	struct disk_option o = { .image.fd = -1 };
	struct option_pair pairs[SETTINGS];
	char *with_key = NULL;
	int n, ret = 0;

	/* A server's name may have a '=' in it. */
	if (remote_is_uri(text) && asprintf(&with_key, "file=%s", text) < 0)
		return err_set(err, ENOMEM, "--disk: no memory");
	n = options_split("--disk", with_key ? with_key : text, "file", pairs, SETTINGS, err);
	free(with_key);
	if (n < 0)
		return n;
	for (int i = 0; i < n && !ret; i++)
		ret = disk_setting(&o, &pairs[i], err);
	if (!ret && !o.image.path)
		ret = err_set(err, EINVAL, "--disk: no file is named in '%s'", text);
	if (!ret)
		ret = add_disk(v, &o, err);
	options_split_free(pairs, n);
	return ret && strncmp(err->msg, "--disk", 6) ? err_prefix(err, "--disk") : ret;
}
