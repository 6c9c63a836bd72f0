/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtio-scsi's two halves: the controller (virtio_scsi.c) and the disks on its bus (scsi_disk.c). */
#pragma once
#include "device/disk.h"
#include "device/scsi.h"
#include "device/virtio_pci.h"

#define SCSI_TARGETS 256   /* 0..255 */
#define SCSI_LUNS 16384    /* per target */
#define SCSI_DISKS 256     /* on one controller */

struct virtio_scsi;

struct scsi_disk {
	struct device dev; /* first */
	struct scsi_lun lun; /* under the controller's lock, as is everything below the properties */

	/* Properties */
	char *bus, *serial, *product, *rerror, *werror, *wwn;
	uint32_t channel, target, number;

	struct disk_errors errors;
	struct virtio_scsi *hba;
	struct block_queue *queue; /* made by the I/O thread when it is needed first */
	unsigned inflight;
	bool closing;   /* the I/O thread is to free the queue */
};

/* The controller of this name ("ID" or "ID.0"); NULL: there is none. */
struct virtio_scsi *virtio_scsi_find(struct machine *m, const char *bus);
/* Put a disk on the bus, or take it off: its requests have ended then. Main loop's thread. */
int virtio_scsi_attach(struct virtio_scsi *s, struct scsi_disk *d, struct err *err);
void virtio_scsi_detach(struct scsi_disk *d);
/* Let go of the image, and take another (NULL: none). Main loop's thread, without the lock. */
void virtio_scsi_set_medium(struct scsi_disk *d, struct block *b);
pthread_mutex_t *virtio_scsi_lock(struct virtio_scsi *s);
/* Tell the driver that a unit's parameters changed; the lock is held. */
void virtio_scsi_changed(struct scsi_disk *d, uint32_t sense);

/* The controller that a disk is on; NULL: it is no SCSI disk. */
struct device *scsi_disk_controller(struct device *d);
