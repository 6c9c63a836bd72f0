/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Devices of a running guest. */
#pragma once
#include "daemon/guest.h"

/* NULL if there is none. */
struct dom_disk *disk_by_alias(const struct domain *def, const char *alias);
/* By target name ("vda") or path of its image. */
struct dom_disk *disk_by_target(const struct domain *def, const char *target);
struct dom_interface *interface_by_device(const struct domain *def, const char *dev);

/* What an image holds, occupies and is long (domain_stats.c). Its format, "raw" or "qcow2"; NULL if it can't be looked at. */
const char *image_sizes(const char *path, uint64_t *capacity, uint64_t *allocation, uint64_t *physical);

/* Arguments of block_set_io_throttle for the disk with this alias (domain_iotune.c). */
json_t *iotune_arguments(const char *alias, const struct dom_iotune *t);

/* Block jobs (domain_block.c): what the machine says of them; and it is gone. */
void block_jobs_event(struct guest *g, const char *name, json_t *data);
void block_jobs_forget(struct guest *g);

/* What the machine says about its devices; the names are the guest's word and may be NULL. */
void devices_deleted(struct guest *g, const char *alias);
void devices_unplug_failed(struct guest *g, const char *alias);
void devices_tray_moved(struct guest *g, const char *alias, bool open);
void devices_port_change(struct guest *g, const char *alias, bool open);
