/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside block jobs:
 *
 *   job.c         life cycle, thread, events, speed
 *   job_copy.c    from one place to another, piece by piece, while guests write
 *   job_mirror.c  mirror, and commit of the image that is written
 *   job_backup.c  a point in time
 *   job_chain.c   stream, and commit of images below
 */
#pragma once
#include <pthread.h>

#include "image/dirty.h"
#include "image/job.h"

struct job_ops {
	int (*open)(struct job *j, struct err *err);   /* the owner's thread */
	int (*run)(struct job *j, struct err *err);    /* the job's thread; 0: it may take effect */
	int (*settle)(struct job *j, struct err *err); /* the same: takes effect, and lets go of the blocks */
	void (*abort)(struct job *j);		       /* lets go of them after a failure of any of these, or unrun */
	bool completes;				       /* job_complete() is wanted */
};
extern const struct job_ops job_mirror_ops, job_commit_active_ops, job_backup_ops, job_stream_ops, job_commit_ops;

struct copy;

struct job {
	enum job_type type;
	const struct job_ops *ops;
	struct job_options o;
	char *bitmap, *backing_name, *backing_format;
	struct copy *copy; /* or NULL */
	struct image *dropped;
	struct block *left;
	bool pivoted, cut;
	struct dirty rest; /* BACKUP: what the bitmap had, minus what was copied */

	pthread_t thread;
	bool started;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t wake;
	enum job_status status;
	uint64_t offset, len, speed;
	uint64_t next; /* when more may be copied */
	bool user_paused, error_paused;
	bool woken; /* by job_wake(), since the last job_wait() */
	bool cancel, force, complete, finalize, ready, failed_io;
	struct err err;
	int ret;
	struct pending *events, **events_end;
	bool posted;
};

/* In the job's thread. */
bool job_cancelled(struct job *j);
/* Between pieces: waits while paused, and for as long as `bytes` more would be too fast. False: it is cancelled. */
bool job_breathe(struct job *j, uint64_t bytes);
void job_progress(struct job *j, uint64_t done, uint64_t left); /* so much more is done, and so much left */
void job_set_ready(struct job *j);
uint64_t job_slice(struct job *j, uint64_t most); /* how much to do at a time */
/* What to do about an error: 0: again (after a pause), 1: go on without, or the error itself. */
int job_error(struct job *j, bool write, int ret, struct err *err);
/* Until something changes or, unless 0, so much time went by. */
void job_wait(struct job *j, uint64_t ns);
bool job_wants_end(struct job *j); /* a ready one: it was told to complete, or cancelled softly */
/* Somebody waits on `wake` for what has changed. */
void job_wake(struct job *j);

/* ---- job_copy.c ----------------------------------------------------------------- */

enum copy_mode {
	COPY_AFTER,    /* writes make parts dirty again */
	COPY_BLOCKING, /* writes of parts that are clean go to the target, too, before they end */
	COPY_BEFORE,   /* writes wait until what was there is copied */
};
struct copy;
/*
 * Between `from` and either a block or an image, of which the job has the
 * second to itself. Everything is clean at first. The block is paused, and
 * watched from then on.
 */
struct copy *copy_new(struct job *j, enum copy_mode mode, struct block *from, struct block *to, struct image *to_image,
		      unsigned granularity, struct err *err);
void copy_free(struct copy *c); /* NULL is allowed; the block is not watched any more */
void copy_mark(struct copy *c, uint64_t offset, uint64_t len);
void copy_unmark(struct copy *c, uint64_t offset, uint64_t len); /* only parts that lie in it as a whole */
/* What the first `levels` images have; the job's thread. */
int copy_mark_allocated(struct copy *c, unsigned levels, struct err *err);
uint64_t copy_left(struct copy *c);   /* dirty bytes */
uint64_t copy_charge(struct copy *c); /* bytes of data written since it was asked last */
/* Copy some of what is dirty, beginning at *at; *n bytes were. *at comes to the end once all was looked at. The job's
 * thread. first: the target reads as zeroes where nothing was copied yet. */
int copy_some(struct copy *c, uint64_t *at, bool first, uint64_t *n, struct err *err);
/* All that is left, at once, while the block is paused; then the target is flushed and the block not watched any more.
 */
int copy_finish(struct copy *c, bool rest, struct err *err);
int copy_failed(struct copy *c, struct err *err);     /* a write that waited could not be copied */
const struct dirty *copy_dirty(const struct copy *c); /* after the end */
