/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the owner of a machine does with its disks, of whatever class. Main loop's thread. */
#pragma once
#include "image/block.h"
#include "machine/device.h"

enum disk_status { DISK_OK, DISK_FAILED, DISK_NOSPACE };
enum disk_action { DISK_REPORT, DISK_IGNORE, DISK_STOP };

#define DISK_QUEUES 16u

/* The threads that serve a disk's queues: loops that run, of which others may make use, too. */
struct disk_loops {
	struct loop *loop[DISK_QUEUES];
	unsigned n;		   /* of them; 1 or more */
	uint8_t lane[DISK_QUEUES]; /* which of them serves the i-th queue */
};

/* An image's error, as its owner learns of it. */
struct disk_news {
	enum disk_action action; /* STOP: the owner stops the machine; the request is tried again when it goes on */
	bool write;
	int code;                /* positive errno; 0: no error, the guest opened or closed the tray */
};

/*
 * What becomes of I/O errors: a disk's two policies (properties rerror and
 * werror) and the way to its owner. Any thread, but for init and exit.
 */
struct disk_errors {
	struct device *dev;
	enum disk_action policy[2]; /* reads, writes */
	bool nospace[2];            /* the policy is for ENOSPC only; other errors are reported */
	pthread_mutex_t lock;       /* the rest; innermost */
	enum disk_status status;
	struct disk_news news;   /* code 0: none */
	bool tray_moved;
	bool telling;
	void (*told)(void *opaque, struct device *d, const struct disk_news *news);
	void *opaque;
};
#define DISK_ERROR_PROPS(T, R, W)                                                                                      \
	PROP_DEF_STRING(T, R, "rerror", "report", "on errors of reads: report, ignore, stop or enospc"),               \
		PROP_DEF_STRING(T, W, "werror", "enospc", "on errors of writes: report, ignore, stop or enospc")
int disk_errors_init(struct disk_errors *e, struct device *d, const char *rerror, const char *werror, struct err *err);
void disk_errors_exit(struct disk_errors *e); /* main loop's thread; the disk does no I/O any more */
/* A request failed: what to do with it. The owner is told. */
enum disk_action disk_error(struct disk_errors *e, bool write, int code);
void disk_tray_moved(struct disk_errors *e); /* by the guest. Any thread */
void disk_errors_resume(struct disk_errors *e); /* the machine goes on: OK until the next one */

/* What a class of disks can do; found by the class's name (disk.c). */
struct disk_ops {
	const char *cls;
	struct block *(*block)(struct device *d);  /* NULL: an empty tray */
	void (*resized)(struct device *d);         /* the image has another size now: tell the guest */
	bool (*removable)(struct device *d);       /* this and the next two: NULL is false */
	bool (*locked)(struct device *d);
	bool (*tray_open)(struct device *d);
	struct disk_errors *(*errors)(struct device *d);
	/* Of removable ones. A tray that the guest locked opens by force only; -EBUSY, and the guest is asked. */
	int (*set_tray)(struct device *d, bool open, bool force, struct err *err);
	void (*set_medium)(struct device *d, struct block *b); /* NULL: none; the old one is not used any more */
};
extern const struct disk_ops virtio_blk_disk, scsi_hd_disk, scsi_cd_disk;

const struct disk_ops *disk_ops_of(const struct device *d); /* NULL: no disk */
bool disk_removable(struct device *d);
bool disk_locked(struct device *d);
bool disk_tray_open(struct device *d);
const char *disk_io_status(struct device *d); /* QMP's BlockDeviceIoStatus */
/* Give its image another size, and tell the guest. */
/* Be told, in the main loop's thread without locks, of I/O errors. No-op for what is no disk. */
void disk_set_owner(struct device *d, void (*told)(void *opaque, struct device *d, const struct disk_news *news), void *opaque);
int disk_resize(struct device *d, uint64_t size, struct err *err);
