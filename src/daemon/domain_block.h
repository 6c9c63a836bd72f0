/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Block jobs of a running guest: domain_block.c, and domain_block_copy.c for copies, which need a new image first. */
#pragma once
#include "daemon/guest.h"
#include "daemon/guest_devices.h"

/* virDomainBlockJobType, virConnectDomainEventBlockJobStatus */
enum { BLOCK_JOB_SNAPSHOT /* ours */, BLOCK_JOB_PULL, BLOCK_JOB_COPY, BLOCK_JOB_COMMIT, BLOCK_JOB_ACTIVE_COMMIT };
enum { BLOCK_COMPLETED, BLOCK_FAILED, BLOCK_CANCELED, BLOCK_READY };

struct block_job {
	struct guest *guest;   /* not counted: it goes with the guest's process */
	struct rpc_call *call; /* that begins it, or waits for its end; or NULL */
	int type;
	char id[80], node[80];	     /* the machine's names: of the job, of the copy's node */
	char *dst, *alias, *path;    /* of the disk: "vda", "virtio-disk0", its image now */
	char *new_path, *new_format; /* what the disk has after a pivot */
	char *changed;		     /* whose header names another backing file afterwards, or NULL */
	bool new_is_device;
	bool ready, pivot, abort, running;
	/* COPY, before it runs */
	bool create, made, shallow, sync_writes;
	unsigned step;
	uint64_t size, speed, granularity;
	char *old_format;	 /* SNAPSHOT: the disk's */
	struct block_job *first; /* SNAPSHOT: the first disk's, or NULL: it is that */
	struct block_job *also;	 /* SNAPSHOT: the next disk's, which has its turn when this one's image is ready */
	struct block_job *next;
};

/* A record for a job on that disk; NULL, and the call has failed. block_job_free() unless it runs. */
struct block_job *block_job_new(struct rpc_call *call, struct guest *g, const char *disk, int type);
void block_job_free(struct block_job *j);
struct block_job *block_job_of_call(const struct rpc_call *call);
const char *disk_image(const struct dom_disk *disk); /* its path, or NULL */

/* Copies: what `dest` says, and how. Answers the call. */
struct block_dest {
	const char *path, *format; /* format NULL: the disk's */
	bool is_device;
};
int block_copy_begin(struct rpc_call *call, struct guest *g, const char *disk, const struct block_dest *dest,
		     uint64_t speed, uint64_t granularity, uint32_t flags);
int block_copy(struct rpc_call *call, struct guest *g); /* DOMAIN_BLOCK_COPY */
/* The images of a snapshot, one after the other; then snapshot_ready(), or block_job_free() for all of them. */
int block_images_begin(struct rpc_call *call, struct guest *g, struct block_job *first);
int snapshot_ready(struct rpc_call *call, struct guest *g, struct block_job *first);
/* The disk of a definition has its new image; false: it is another disk now. */
bool block_job_replace(struct domain *def, const struct block_job *j);
