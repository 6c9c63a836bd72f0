/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Block jobs: long work on open blocks, in a thread of its own, with QEMU's
 * life cycle. Functions are called in the owner's loop's thread; that is also
 * where callbacks come.
 *
 * A job ends by itself or is cancelled. Up to then nothing about the blocks has
 * changed but for what was copied; then, in one step while the block is paused,
 * it takes effect (a pivot, a shorter chain). Killed at any moment, each image
 * is whole and the source has all that was acknowledged.
 */
#pragma once
#include "image/block_graph.h"

enum job_type { JOB_STREAM, JOB_COMMIT, JOB_MIRROR, JOB_BACKUP };
enum job_status {
	JOB_CREATED,
	JOB_RUNNING,
	JOB_PAUSED,
	JOB_READY,
	JOB_STANDBY,
	JOB_WAITING,
	JOB_PENDING,
	JOB_ABORTING,
	JOB_CONCLUDED
};
enum job_sync { JOB_SYNC_FULL, JOB_SYNC_TOP, JOB_SYNC_NONE, JOB_SYNC_BITMAP };
enum job_on_error { JOB_REPORT, JOB_IGNORE, JOB_STOP, JOB_ENOSPC };
enum job_bitmap_mode { JOB_BITMAP_ON_SUCCESS, JOB_BITMAP_NEVER, JOB_BITMAP_ALWAYS };

struct job;

enum job_event_kind { JOB_EVENT_STATUS, JOB_EVENT_READY, JOB_EVENT_ERROR };
struct job_event {
	enum job_event_kind kind;
	enum job_status status;	  /* STATUS */
	bool write;		  /* ERROR: which side */
	enum job_on_error action; /* ERROR: what was done: REPORT, IGNORE or STOP */
};

struct job_options {
	struct block *block;  /* what it works on; stays open until the job is freed */
	struct block *target; /* MIRROR, BACKUP */
	struct loop *loop;    /* the owner's */
	uint64_t speed;	      /* bytes a second; 0: as fast as it goes */
	enum job_sync sync;   /* MIRROR, BACKUP */
	enum job_on_error on_source_error, on_target_error;
	unsigned granularity; /* MIRROR, BACKUP: 0: 64 KiB */
	bool write_blocking;  /* MIRROR: guests' writes wait for the target, too */
	bool target_zeroed;   /* MIRROR: it reads as zeroes */
	const char *bitmap;   /* BACKUP: of `block`; SYNC_BITMAP copies what it has */
	enum job_bitmap_mode bitmap_mode;
	unsigned top, base; /* COMMIT: depths in the chain; STREAM: base only, 0: all of it */
	const char *backing_name,
		*backing_format; /* COMMIT, STREAM: what is written into the image above; NULL: the base's own */
	bool manual_finalize;	 /* it waits in PENDING for job_finalize() */
	void (*event)(void *opaque, const struct job_event *e);
	void *opaque;
};

/* Checks the options, and begins to watch the block at once; job_run() lets it work. NULL and err. */
struct job *job_new(enum job_type type, const struct job_options *o, struct err *err);
void job_run(struct job *j);
/* Concluded, or it is cancelled and waited for. */
void job_free(struct job *j);

struct job_info {
	enum job_type type;
	enum job_status status;
	uint64_t offset, len, speed;
	bool ready, busy, paused, failed_io, cancelled;
	int ret;	   /* of one that concluded */
	const char *error; /* or NULL */
};
void job_get(struct job *j, struct job_info *info);
const char *job_type_name(enum job_type t);
const char *job_status_name(enum job_status s);

/* force: also a mirror that is ready ends without a point in time. */
int job_cancel(struct job *j, bool force, struct err *err);
int job_pause(struct job *j, struct err *err);
int job_resume(struct job *j, struct err *err);
int job_complete(struct job *j, struct err *err); /* MIRROR, COMMIT of the active image: pivot */
int job_finalize(struct job *j, struct err *err);
int job_set_speed(struct job *j, uint64_t speed, struct err *err);

/* After CONCLUDED: images that are out of the chain now, the uppermost first, each naming the next; the caller's. */
struct image *job_take_dropped(struct job *j);
/* After a COMMIT of the active image: what that had, as a block of its own; the caller's. NULL: nothing. */
struct block *job_take_left(struct job *j);
/* True: `target` has the old contents of `block` now, and `block` those of the target, or of the base. */
bool job_pivoted(const struct job *j);
