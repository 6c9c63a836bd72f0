/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is plugged into the machine and what stands behind it: block nodes
 * (nodes.c), networks (nets.c), objects (objects.c) and the devices on them,
 * from the command line and from QMP (plug.c). Main loop's thread.
 */
#pragma once
#include <jansson.h>

#include "image/block.h"
#include "machine/backend.h"
#include "machine/device.h"
#include "vmm/options.h"

struct vmm;

/* ---- Descriptors that clients passed (QMP getfd, add-fd) ------------------ */

struct vmm_fd {
	char *name; /* getfd; NULL: member of a set */
	int64_t set;
	int fd;
	struct vmm_fd *next;
};
/* A descriptor by getfd's name, or by number as it was inherited; the caller's from then on. -errno and err. */
int vmm_fd_take(struct vmm *v, const char *name, struct err *err);
/* A duplicate of a set's descriptor that is open for writing, or at least reading. -errno and err. */
int vmm_fdset_dup(struct vmm *v, int64_t set, bool write, struct err *err);
void vmm_fds_free(struct vmm *v);

/* ---- Block nodes ---------------------------------------------------------- */

struct vmm_node {
	char *name, *path, *driver; /* driver as in blockdev-add: raw, qcow2, luks, file, host_device, nbd, iscsi, rbd */
	char *key_secret;           /* or NULL: of what is encrypted */
	struct block *block;        /* NULL: a file that nothing has opened yet */
	struct vmm_node *file;      /* the node below, or NULL */
	struct vmm_node *backing;   /* a node whose contents are this one's backing file, or NULL; it has no block then */
	bool no_backing;            /* what the header says of a backing file does not count */
	bool readonly, direct, no_flush, auto_readonly, ignore_discard;
	bool own;                   /* goes with its user: made by --disk, or inside of its parent's blockdev-add */
	unsigned users;             /* devices and nodes above */
	struct vmm_node *next;
};
struct vmm_node *vmm_node_find(struct vmm *v, const char *name);
/* Open an image as node `name`. NULL and err on failure. */
struct vmm_node *vmm_node_open(struct vmm *v, const char *name, const struct block_options *o, struct err *err);
/* --disk's text: a node and a disk on it. */
int vmm_disk_option(struct vmm *v, const char *text, struct err *err);
/* blockdev-add's arguments. */
int vmm_node_add(struct vmm *v, json_t *args, struct err *err);
int vmm_node_del(struct vmm *v, const char *name, struct err *err);
/* For a device: opens it if need be; -EBUSY if it has a user. vmm_node_put() ends it. */
int vmm_node_get(struct vmm *v, struct vmm_node *n, struct err *err);
void vmm_node_put(struct vmm *v, struct vmm_node *n);
void vmm_nodes_free(struct vmm *v);
void vmm_node_free(struct vmm *v, struct vmm_node *n); /* one that nobody uses */
/* A node for contents that have none yet. NULL: no memory. */
struct vmm_node *vmm_node_new(struct vmm *v, const char *driver, const char *path, struct block *block);

/* node_graph.c: what lies over what */
/* `below` becomes the backing file of `over`, and has no block of its own until vmm_node_detach(). */
int vmm_node_attach(struct vmm *v, struct vmm_node *over, struct vmm_node *below, struct err *err);
void vmm_node_detach(struct vmm *v, struct vmm_node *over);
/* The device goes on with `overlay`, whose backing file the node becomes. */
int vmm_node_snapshot(struct vmm *v, struct vmm_node *n, struct vmm_node *overlay, struct err *err);
int vmm_node_snapshot_undo(struct vmm *v, struct vmm_node *n, struct vmm_node *overlay, struct err *err);
/* The device that has `from` has `to` from now on; the block of that is the device's. */
void vmm_node_move_user(struct vmm *v, struct vmm_node *from, struct vmm_node *to);
struct vmm_plug *vmm_node_user(struct vmm *v, const struct vmm_node *n); /* or NULL */
/* The node that a drive's, a device's or a node's name means. NULL and err (ENXIO). */
struct vmm_node *vmm_node_named(struct vmm *v, const char *name, struct err *err);
/* The image of that name, a node's or a file's, in the chain below an open node: its depth. -errno. */
int vmm_node_depth(const struct vmm_node *n, const char *node, const char *file, struct err *err);
struct vmm_node *vmm_node_below(struct vmm_node *n, unsigned depth); /* or NULL: it has no node */

/* nbd_export.c */
struct vmm_nbd;
bool vmm_node_is_exported(struct vmm *v, const struct vmm_node *n);
void vmm_nbd_free(struct vmm *v);

/* node_create.c: blockdev-create's options */
int vmm_node_create(struct vmm *v, json_t *options, struct err *err);

/* ---- Block jobs (jobs.c) ---------------------------------------------------- */

struct vmm_job;
void vmm_jobs_free(struct vmm *v);
/* For a transaction: a backup that does not run yet. */
struct vmm_job *vmm_job_backup(struct vmm *v, json_t *args, struct err *err);
void vmm_job_start(struct vmm_job *j);
void vmm_job_undo(struct vmm_job *j);
/* Is the node in a job's hands? */
bool vmm_node_has_job(struct vmm *v, const struct vmm_node *n);

/* ---- Networks ------------------------------------------------------------- */

struct vmm_net {
	char *id;
	const char *type; /* as in netdev_add */
	struct netdev *netdev;
	struct vmm_plug *user;
	bool own; /* goes with its device: made by --net */
	struct vmm_net *next;
};
struct vmm_net *vmm_net_find(struct vmm *v, const char *id);
/* Take a back end in. Frees it on failure. */
struct vmm_net *vmm_net_new(struct vmm *v, const char *id, const char *type, struct netdev *nd, struct err *err);
/* netdev_add's arguments. */
int vmm_net_add(struct vmm *v, json_t *args, struct err *err);
/* --net's text: a network and a card on it. */
int vmm_net_option(struct vmm *v, const char *text, struct err *err);
int vmm_net_del(struct vmm *v, const char *id, struct err *err);
void vmm_nets_free(struct vmm *v);

/* ---- Character back ends --------------------------------------------------- */

struct vmm_chardev {
	char *id, *backend; /* backend as --serial's */
	struct chardev *chardev;
	bool is_channel;    /* of --channel: this port of the controller */
	unsigned port;
	struct vmm_chardev *next;
};
struct vmm_chardev *vmm_chardev_find(struct vmm *v, const char *id);
struct vmm_chardev *vmm_chardev_new(struct vmm *v, const char *id, const char *backend, const char *option, struct err *err);
/* The virtio-serial controller of --console and --channel. */
int vmm_console_options(struct vmm *v, struct err *err);
void vmm_chardevs_free(struct vmm *v);

/* --share's text: virtiofsd and a device before it. */
int vmm_share_option(struct vmm *v, const char *text, struct err *err);

/* ---- Devices -------------------------------------------------------------- */

/* A device that has a back end, or came by device_add or --device. */
struct vmm_plug {
	struct device *dev;
	struct vmm_node *node;
	struct vmm_net *net;
	struct disk_loops *loops;   /* or NULL; of the iothreads with these indices */
	struct vmm_object *iothread[16];
	bool leaving; /* the guest was asked to let go of it */
	struct vmm_plug *next;
};

struct vmm_plug *vmm_plug_find(struct vmm *v, const char *device_id);
/*
 * Make a device of class `driver` with these properties and plug it in; "id",
 * "bus", "addr", and the names of back ends ("drive", "netdev", "chardev") are
 * taken as QEMU does. While the guest runs, a PCI device without "bus" goes to
 * the first free root port.
 */
int vmm_plug(struct vmm *v, const char *driver, const struct option_pair *pairs, int n, struct err *err);
void vmm_tray_event(struct vmm *v, struct device *d); /* DEVICE_TRAY_MOVED */
/* As device_del: 0 when it is gone or the guest has been asked. -ENXIO: no such device. */
int vmm_unplug(struct vmm *v, const char *id, struct err *err);
/* The machine is reset: whatever the guest was asked to let go of goes now. While it is paused. */
void vmm_plug_reset(struct vmm *v);
/* After the machine is gone. */
void vmm_plugs_free(struct vmm *v);
void vmm_plug_init(struct vmm *v); /* after the board: watch its slots */
