/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/classes.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

/* Chips of the board */
extern const struct device_class mch_class, lpc_class, pic_class, ioapic_class, pit_class, hpet_class, rtc_class,
	dma_class, i8042_class, uart_class, fw_cfg_class, debugcon_class, debug_exit_class, pvpanic_class;
/* PCI */
extern const struct device_class root_port_class;
/* Virtio over PCI */
extern const struct device_class virtio_balloon_class, virtio_blk_class, virtio_console_class, virtio_net_class,
	virtio_rng_class, virtio_scsi_class, virtio_vsock_class,
	vhost_user_blk_class, vhost_user_fs_class;
/* On SCSI buses */
extern const struct device_class scsi_hd_class, scsi_cd_class;

static const struct device_class *const classes[] = {
	&mch_class,
	&lpc_class,
	&pic_class,
	&ioapic_class,
	&pit_class,
	&hpet_class,
	&rtc_class,
	&dma_class,
	&i8042_class,
	&uart_class,
	&fw_cfg_class,
	&debugcon_class,
	&debug_exit_class,
	&pvpanic_class,
	&root_port_class,
	&virtio_balloon_class,
	&virtio_blk_class,
	&virtio_console_class,
	&virtio_net_class,
	&virtio_rng_class,
	&virtio_scsi_class,
	&virtio_vsock_class,
	&vhost_user_blk_class,
	&vhost_user_fs_class,
	&scsi_hd_class,
	&scsi_cd_class,
};

const struct device_class *device_class_at(unsigned i)
{
	return i < sizeof(classes) / sizeof(classes[0]) ? classes[i] : NULL;
}

const struct device_class *device_class_find(const char *name)
{
	for (unsigned i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
		if (!strcmp(classes[i]->name, name))
			return classes[i];
	return NULL;
}

struct device *device_add(struct machine *m, const char *cls, const char *id, struct err *err, ...)
{
	const struct device_class *c = device_class_find(cls);
	struct device *d;
	const char *name;
	va_list ap;
	int ret = 0;

	if (!c) {
		err_set(err, ENOENT, "there is no device class '%s'", cls);
		return NULL;
	}
	d = device_new(m, c, id, err);
	if (!d)
		return NULL;
	va_start(ap, err);
	while (!ret && (name = va_arg(ap, const char *)))
		ret = device_set(d, name, va_arg(ap, const char *), err);
	va_end(ap);
	if (ret) {
		device_free(d);
		return NULL;
	}
	return device_realize(d, err) ? NULL : d;
}
