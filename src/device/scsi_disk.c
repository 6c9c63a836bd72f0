/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Disks and CD-ROM drives on a virtio-scsi controller. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/virtio_scsi.h"

#define UNSET UINT32_MAX

static struct scsi_disk *disk_of(struct device *d)
{
	return (struct scsi_disk *)d;
}

static int parse_wwn(struct scsi_disk *s, struct err *err)
{
	char *end;

	if (!s->wwn)
		return 0;
	errno = 0;
	s->lun.wwn = strtoull(s->wwn, &end, 16);
	if (errno || *end || end == s->wwn)
		return err_set(err, EINVAL, "wwn '%.40s' is no hexadecimal number of 64 bits", s->wwn);
	return 0;
}

/* Text as the guest is shown it: printable ASCII of at most `room - 1` characters. */
static int copy_text(char *to, size_t room, const char *name, const char *text, struct err *err)
{
	for (const char *c = text; *c; c++)
		if (!isprint((unsigned char)*c))
			return err_set(err, EINVAL, "%s has a character that is not printable ASCII", name);
	if (strlen(text) >= room)
		return err_set(err, EINVAL, "%s '%.40s' has more than %zu characters", name, text, room - 1);
	strcpy(to, text);
	return 0;
}

static int check_props(struct scsi_disk *s, bool cd, struct err *err)
{
	int ret;

	s->lun.cd = cd;
	s->lun.block_size = cd ? 2048 : 512;
	if (!cd && !s->lun.block)
		return err_set(err, EINVAL, "property drive is missing: a disk needs an image");
	if (s->lun.block && block_size(s->lun.block) < s->lun.block_size)
		return err_set(err, EINVAL, "%s is shorter than one block", block_path(s->lun.block));
	ret = copy_text(s->lun.serial, sizeof(s->lun.serial), "serial", s->serial ? s->serial : s->dev.id, err);
	if (!ret)
		ret = copy_text(s->lun.product, sizeof(s->lun.product), "product",
				s->product ? s->product : cd ? "CD-ROM" : "HARDDISK", err);
	return ret ? ret : parse_wwn(s, err);
}

static int disk_realize(struct device *d, struct err *err)
{
	struct scsi_disk *s = disk_of(d);
	bool cd = !strcmp(d->cls->name, "scsi-cd");
	int ret = check_props(s, cd, err);
	struct virtio_scsi *hba = ret ? NULL : virtio_scsi_find(d->machine, s->bus);

	if (ret)
		return ret;
	if (!hba)
		return err_set(err, ENOENT, "there is no SCSI controller '%s': add a virtio-scsi-pci first", s->bus ? s->bus : "");
	ret = disk_errors_init(&s->errors, d, s->rerror, s->werror, err);
	if (ret)
		return ret;
	s->lun.wce = true;
	s->lun.attention = SENSE_POWER_ON;
	ret = virtio_scsi_attach(hba, s, err);
	if (ret)
		disk_errors_exit(&s->errors);
	return ret;
}

static void disk_unrealize(struct device *d)
{
	struct scsi_disk *s = disk_of(d);

	virtio_scsi_detach(s);
	disk_errors_exit(&s->errors);
}

static void disk_reset(struct device *d)
{
	struct scsi_disk *s = disk_of(d);

	pthread_mutex_lock(virtio_scsi_lock(s->hba));
	scsi_lun_reset(&s->lun);
	pthread_mutex_unlock(virtio_scsi_lock(s->hba));
}

struct device *scsi_disk_controller(struct device *d)
{
	if (strcmp(d->cls->name, "scsi-hd") && strcmp(d->cls->name, "scsi-cd"))
		return NULL;
	/* The controller begins with its struct device. */
	return (struct device *)disk_of(d)->hba;
}

/* ---- The owner's side --------------------------------------------------------- */

static struct block *disk_block(struct device *d)
{
	return disk_of(d)->lun.block;
}

static void disk_resized(struct device *d)
{
	struct scsi_disk *s = disk_of(d);

	pthread_mutex_lock(virtio_scsi_lock(s->hba));
	virtio_scsi_changed(s, s->lun.cd ? SENSE_MEDIUM_CHANGED : SENSE_CAPACITY_CHANGED);
	pthread_mutex_unlock(virtio_scsi_lock(s->hba));
}

static struct disk_errors *errors_of(struct device *d)
{
	return &disk_of(d)->errors;
}

static bool is_removable(struct device *d)
{
	return disk_of(d)->lun.cd;
}

static bool locked_read(struct device *d, const bool *value)
{
	bool v;

	pthread_mutex_lock(virtio_scsi_lock(disk_of(d)->hba));
	v = *value;
	pthread_mutex_unlock(virtio_scsi_lock(disk_of(d)->hba));
	return v;
}

static bool is_locked(struct device *d)
{
	return locked_read(d, &disk_of(d)->lun.prevented);
}

static bool is_open(struct device *d)
{
	return locked_read(d, &disk_of(d)->lun.tray_open);
}

static int set_tray(struct device *d, bool open, bool force, struct err *err)
{
	struct scsi_disk *s = disk_of(d);
	int ret = 0;

	pthread_mutex_lock(virtio_scsi_lock(s->hba));
	if (open && s->lun.prevented && !s->lun.tray_open && !force) {
		virtio_scsi_changed(s, SENSE_EJECT_REQUEST);
		ret = err_set(err, EBUSY, "Device '%s' is locked and force was not specified, wait for tray to open and try again", d->id);
	} else if (s->lun.tray_open != open) {
		s->lun.tray_open = open;
		virtio_scsi_changed(s, SENSE_MEDIUM_CHANGED);
	}
	pthread_mutex_unlock(virtio_scsi_lock(s->hba));
	return ret;
}

static void set_medium(struct device *d, struct block *b)
{
	virtio_scsi_set_medium(disk_of(d), b);
}

const struct disk_ops scsi_hd_disk = { .cls = "scsi-hd", .block = disk_block, .resized = disk_resized, .errors = errors_of };
const struct disk_ops scsi_cd_disk = {
	.cls = "scsi-cd", .block = disk_block, .resized = disk_resized, .errors = errors_of, .removable = is_removable,
	.locked = is_locked, .tray_open = is_open, .set_tray = set_tray, .set_medium = set_medium,
};

/* ---- Classes --------------------------------------------------------------------- */

#define DISK_PROPS                                                                                                      \
	PROP_DEF_PTR(struct scsi_disk, lun.block, "drive", "the image (struct block); stays the owner's"),              \
		PROP_DEF_STRING(struct scsi_disk, bus, "bus", NULL, "the controller: its id, or ID.0; the only one"),    \
		PROP_DEF_U32(struct scsi_disk, channel, "channel", "0", 0, 0, "always 0"),                               \
		PROP_DEF_U32(struct scsi_disk, target, "scsi-id", "4294967295", 0, 0, "target, 0 to 255; the next free one"), \
		PROP_DEF_U32(struct scsi_disk, number, "lun", "0", 0, SCSI_LUNS - 1, "number of the unit on its target"), \
		PROP_DEF_STRING(struct scsi_disk, serial, "serial", NULL, "serial number, at most 36 characters; the id"), \
		PROP_DEF_STRING(struct scsi_disk, product, "product", NULL, "what INQUIRY calls it, at most 16 characters"), \
		PROP_DEF_STRING(struct scsi_disk, wwn, "wwn", NULL, "worldwide name, 64 bits in hexadecimal"),           \
		PROP_DEF_BOOL(struct scsi_disk, lun.discard, "discard", "on", "give unused blocks back to the host"),    \
		DISK_ERROR_PROPS(struct scsi_disk, rerror, werror), { 0 }

static const struct property disk_props[] = { DISK_PROPS };

static const struct state_field disk_fields[] = {
	STATE_FIELD_STRUCT(struct scsi_disk, lun, &scsi_lun_state),
	STATE_END,
};
static const struct state_desc hd_state = { .name = "scsi-hd", .version = 1, .fields = disk_fields };
static const struct state_desc cd_state = { .name = "scsi-cd", .version = 1, .fields = disk_fields };

const struct device_class scsi_hd_class = {
	.name = "scsi-hd",
	.description = "disk on a virtio-scsi controller",
	.size = sizeof(struct scsi_disk),
	.props = disk_props,
	.realize = disk_realize,
	.unrealize = disk_unrealize,
	.reset = disk_reset,
	.state = &hd_state,
};

const struct device_class scsi_cd_class = {
	.name = "scsi-cd",
	.description = "CD-ROM drive on a virtio-scsi controller",
	.size = sizeof(struct scsi_disk),
	.props = disk_props,
	.realize = disk_realize,
	.unrealize = disk_unrealize,
	.reset = disk_reset,
	.state = &cd_state,
};
