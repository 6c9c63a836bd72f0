/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "image/job_int.h"

#define SECOND 1000000000ull

/* ---- Events ------------------------------------------------------------------------ */

struct pending {
	struct job_event e;
	struct pending *next;
};

static void deliver(void *opaque)
{
	struct job *j = opaque;
	struct pending *list, *next;

	pthread_mutex_lock(&j->lock);
	list = j->events;
	j->events = NULL;
	j->events_end = &j->events;
	j->posted = false;
	pthread_mutex_unlock(&j->lock);
	for (; list; list = next) {
		struct job_event e = list->e;

		next = list->next;
		free(list);
		/* The last event may free the job: nothing follows it. */
		j->o.event(j->o.opaque, &e);
	}
}

/* With the lock held. */
static void tell(struct job *j, const struct job_event *e)
{
	struct pending *p = calloc(1, sizeof(*p));

	if (!p)
		return;
	p->e = *e;
	*j->events_end = p;
	j->events_end = &p->next;
	if (!j->posted)
		j->posted = !loop_post(j->o.loop, deliver, j);
}

static void set_status(struct job *j, enum job_status s)
{
	struct job_event e = { .kind = JOB_EVENT_STATUS, .status = s };

	if (j->status == s)
		return;
	j->status = s;
	tell(j, &e);
}

/* ---- The job's thread ----------------------------------------------------------------- */

static bool ends(const struct job *j)
{
	return j->cancel && (j->force || !j->ready);
}

bool job_cancelled(struct job *j)
{
	bool yes;

	pthread_mutex_lock(&j->lock);
	yes = ends(j);
	pthread_mutex_unlock(&j->lock);
	return yes;
}

static void wait_until(struct job *j, uint64_t when)
{
	struct timespec ts = { .tv_sec = when / SECOND, .tv_nsec = when % SECOND };

	pthread_cond_timedwait(&j->wake, &j->lock, &ts);
}

bool job_breathe(struct job *j, uint64_t bytes)
{
	bool goes_on;

	pthread_mutex_lock(&j->lock);
	if (j->speed && bytes) {
		uint64_t now = monotonic_ns(), from = j->next > now ? j->next : now;

		j->next = from + (uint64_t)((double)bytes * SECOND / j->speed);
	}
	while (!ends(j)) {
		if (j->user_paused || j->error_paused) {
			set_status(j, j->ready ? JOB_STANDBY : JOB_PAUSED);
			pthread_cond_wait(&j->wake, &j->lock);
			continue;
		}
		set_status(j, j->ready ? JOB_READY : JOB_RUNNING);
		if (!j->speed || j->complete || j->next <= monotonic_ns())
			break;
		wait_until(j, j->next);
	}
	goes_on = !ends(j);
	pthread_mutex_unlock(&j->lock);
	return goes_on;
}

uint64_t job_slice(struct job *j, uint64_t most)
{
	uint64_t n;

	pthread_mutex_lock(&j->lock);
	n = j->speed && j->speed / 10 < most ? j->speed / 10 : most;
	pthread_mutex_unlock(&j->lock);
	return n;
}

void job_progress(struct job *j, uint64_t done, uint64_t left)
{
	pthread_mutex_lock(&j->lock);
	j->offset += done;
	j->len = j->offset + left;
	pthread_mutex_unlock(&j->lock);
}

void job_wait(struct job *j, uint64_t ns)
{
	pthread_mutex_lock(&j->lock);
	if (!j->woken && !j->cancel && !j->complete) {
		if (ns)
			wait_until(j, monotonic_ns() + ns);
		else
			pthread_cond_wait(&j->wake, &j->lock);
	}
	j->woken = false;
	pthread_mutex_unlock(&j->lock);
}

bool job_wants_end(struct job *j)
{
	bool yes;

	pthread_mutex_lock(&j->lock);
	yes = j->complete || j->cancel;
	pthread_mutex_unlock(&j->lock);
	return yes;
}

void job_set_ready(struct job *j)
{
	struct job_event e = { .kind = JOB_EVENT_READY };

	pthread_mutex_lock(&j->lock);
	if (!j->ready) {
		j->ready = true;
		set_status(j, JOB_READY);
		tell(j, &e);
	}
	pthread_mutex_unlock(&j->lock);
}

int job_error(struct job *j, bool write, int ret, struct err *err)
{
	enum job_on_error policy = write ? j->o.on_target_error : j->o.on_source_error;
	struct job_event e = { .kind = JOB_EVENT_ERROR, .write = write };

	if (policy == JOB_ENOSPC)
		policy = ret == -ENOSPC ? JOB_STOP : JOB_REPORT;
	e.action = policy;
	pthread_mutex_lock(&j->lock);
	tell(j, &e);
	if (policy == JOB_STOP)
		j->failed_io = j->error_paused = true;
	pthread_mutex_unlock(&j->lock);
	if (policy == JOB_REPORT)
		return ret;
	if (err)
		*err = ERR_INIT;
	if (policy == JOB_IGNORE)
		return 1;
	return job_breathe(j, 0) ? 0 : -ECANCELED;
}

void job_wake(struct job *j)
{
	pthread_mutex_lock(&j->lock);
	j->woken = true;
	pthread_cond_broadcast(&j->wake);
	pthread_mutex_unlock(&j->lock);
}

/* All is copied: may it take effect? */
static int may_settle(struct job *j, struct err *err)
{
	int ret = 0;

	pthread_mutex_lock(&j->lock);
	set_status(j, JOB_WAITING);
	set_status(j, JOB_PENDING);
	while (j->o.manual_finalize && !j->finalize && !(j->cancel && (j->force || !j->ready || !j->complete)))
		pthread_cond_wait(&j->wake, &j->lock);
	if (j->o.manual_finalize && !j->finalize)
		ret = err_set(err, ECANCELED, "the job was cancelled");
	pthread_mutex_unlock(&j->lock);
	return ret;
}

static void *run(void *opaque)
{
	struct job *j = opaque;
	struct err err = ERR_INIT;
	int ret = 0;

	pthread_mutex_lock(&j->lock);
	set_status(j, JOB_RUNNING);
	pthread_mutex_unlock(&j->lock);
	if (job_breathe(j, 0))
		ret = j->ops->run(j, &err);
	if (!ret && job_cancelled(j))
		ret = err_set(&err, ECANCELED, "the job was cancelled");
	if (!ret)
		ret = may_settle(j, &err);
	if (!ret)
		ret = j->ops->settle(j, &err);
	if (ret)
		err_set(&err, -ret, "%s", ret == -ECANCELED ? "the job was cancelled" : strerror(-ret));
	if (ret) {
		pthread_mutex_lock(&j->lock);
		set_status(j, JOB_ABORTING);
		pthread_mutex_unlock(&j->lock);
		j->ops->abort(j);
	}
	pthread_mutex_lock(&j->lock);
	j->ret = ret;
	j->err = err;
	set_status(j, JOB_CONCLUDED);
	pthread_mutex_unlock(&j->lock);
	return NULL;
}

/* ---- For the owner -------------------------------------------------------------------- */

static const struct job_ops *ops_of(enum job_type type, const struct job_options *o)
{
	switch (type) {
	case JOB_STREAM:
		return &job_stream_ops;
	case JOB_COMMIT:
		return o->top ? &job_commit_ops : &job_commit_active_ops;
	case JOB_MIRROR:
		return &job_mirror_ops;
	case JOB_BACKUP:
		break;
	}
	return &job_backup_ops;
}

static char *copy_of(const char *text, bool *failed)
{
	char *copy = text ? strdup(text) : NULL;

	*failed |= text && !copy;
	return copy;
}

static void destroy(struct job *j)
{
	while (j->events) {
		struct pending *p = j->events;

		j->events = p->next;
		free(p);
	}
	pthread_cond_destroy(&j->wake);
	pthread_mutex_destroy(&j->lock);
	dirty_free(&j->rest);
	free(j->bitmap);
	free(j->backing_name);
	free(j->backing_format);
	free(j);
}

struct job *job_new(enum job_type type, const struct job_options *o, struct err *err)
{
	struct job *j = calloc(1, sizeof(*j));
	pthread_condattr_t attr;
	bool failed = !j;

	if (j) {
		j->bitmap = copy_of(o->bitmap, &failed);
		j->backing_name = copy_of(o->backing_name, &failed);
		j->backing_format = copy_of(o->backing_format, &failed);
		j->type = type;
		j->o = *o;
		j->o.bitmap = j->bitmap;
		j->o.backing_name = j->backing_name;
		j->o.backing_format = j->backing_format;
		j->ops = ops_of(type, o);
		j->speed = o->speed;
		j->events_end = &j->events;
		pthread_mutex_init(&j->lock, NULL);
		pthread_condattr_init(&attr);
		pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
		pthread_cond_init(&j->wake, &attr);
		pthread_condattr_destroy(&attr);
	}
	if (failed) {
		if (j)
			destroy(j);
		err_set(err, ENOMEM, "no memory for a job");
		return NULL;
	}
	if (j->ops->open(j, err)) {
		j->ops->abort(j);
		destroy(j);
		return NULL;
	}
	return j;
}

void job_run(struct job *j)
{
	int ret = pthread_create(&j->thread, NULL, run, j);

	if (!ret) {
		j->started = true;
		return;
	}
	j->ops->abort(j);
	pthread_mutex_lock(&j->lock);
	j->ret = err_set_errno(&j->err, ret, "cannot make a job's thread");
	set_status(j, JOB_CONCLUDED);
	pthread_mutex_unlock(&j->lock);
}

void job_free(struct job *j)
{
	if (!j)
		return;
	pthread_mutex_lock(&j->lock);
	j->cancel = j->force = true;
	pthread_cond_broadcast(&j->wake);
	pthread_mutex_unlock(&j->lock);
	if (j->started)
		pthread_join(j->thread, NULL);
	else if (j->status != JOB_CONCLUDED)
		j->ops->abort(j);
	loop_unpost(j->o.loop, deliver, j);
	image_close(j->dropped, NULL);
	block_close(j->left);
	destroy(j);
}

void job_get(struct job *j, struct job_info *info)
{
	pthread_mutex_lock(&j->lock);
	*info = (struct job_info){
		.type = j->type,
		.status = j->status,
		.offset = j->offset,
		.len = j->len,
		.speed = j->speed,
		.ready = j->ready,
		.busy = j->status == JOB_RUNNING || j->status == JOB_READY,
		.paused = j->user_paused || j->error_paused,
		.failed_io = j->failed_io,
		.cancelled = j->cancel && (j->force || !j->ready),
		.ret = j->ret,
		.error = j->ret ? j->err.msg : NULL,
	};
	pthread_mutex_unlock(&j->lock);
}

const char *job_type_name(enum job_type t)
{
	static const char *const names[] = {
		[JOB_STREAM] = "stream",
		[JOB_COMMIT] = "commit",
		[JOB_MIRROR] = "mirror",
		[JOB_BACKUP] = "backup",
	};

	return names[t];
}

const char *job_status_name(enum job_status s)
{
	static const char *const names[] = {
		[JOB_CREATED] = "created", [JOB_RUNNING] = "running",	[JOB_PAUSED] = "paused",
		[JOB_READY] = "ready",	   [JOB_STANDBY] = "standby",	[JOB_WAITING] = "waiting",
		[JOB_PENDING] = "pending", [JOB_ABORTING] = "aborting", [JOB_CONCLUDED] = "concluded",
	};

	return names[s];
}

/* Lock; refuse what the state does not allow. */
static int begin(struct job *j, bool allowed, const char *verb, struct err *err)
{
	int ret = 0;

	if (!allowed)
		ret = err_set(err, EBUSY, "a job in state '%s' cannot be %s", job_status_name(j->status), verb);
	return ret;
}

static bool is_live(const struct job *j)
{
	return j->status < JOB_WAITING;
}

int job_cancel(struct job *j, bool force, struct err *err)
{
	int ret;

	pthread_mutex_lock(&j->lock);
	ret = begin(j, j->status < JOB_ABORTING, "cancelled", err);
	if (!ret) {
		j->cancel = true;
		j->force |= force;
		pthread_cond_broadcast(&j->wake);
	}
	pthread_mutex_unlock(&j->lock);
	return ret;
}

int job_pause(struct job *j, struct err *err)
{
	int ret;

	pthread_mutex_lock(&j->lock);
	ret = begin(j, is_live(j) && !j->user_paused, "paused", err);
	if (!ret) {
		j->user_paused = true;
		pthread_cond_broadcast(&j->wake);
	}
	pthread_mutex_unlock(&j->lock);
	return ret;
}

int job_resume(struct job *j, struct err *err)
{
	int ret;

	pthread_mutex_lock(&j->lock);
	ret = begin(j, is_live(j) && (j->user_paused || j->error_paused), "resumed", err);
	if (!ret) {
		j->user_paused = j->error_paused = j->failed_io = false;
		pthread_cond_broadcast(&j->wake);
	}
	pthread_mutex_unlock(&j->lock);
	return ret;
}

int job_complete(struct job *j, struct err *err)
{
	int ret;

	pthread_mutex_lock(&j->lock);
	ret = begin(j, j->ops->completes && j->status == JOB_READY && !j->cancel, "completed", err);
	if (!ret) {
		j->complete = true;
		pthread_cond_broadcast(&j->wake);
	}
	pthread_mutex_unlock(&j->lock);
	return ret;
}

int job_finalize(struct job *j, struct err *err)
{
	int ret;

	pthread_mutex_lock(&j->lock);
	ret = begin(j, j->status == JOB_PENDING, "finalized", err);
	if (!ret) {
		j->finalize = true;
		pthread_cond_broadcast(&j->wake);
	}
	pthread_mutex_unlock(&j->lock);
	return ret;
}

int job_set_speed(struct job *j, uint64_t speed, struct err *err)
{
	int ret;

	pthread_mutex_lock(&j->lock);
	ret = begin(j, j->status < JOB_ABORTING, "given another speed", err);
	if (!ret) {
		j->speed = speed;
		j->next = 0;
		pthread_cond_broadcast(&j->wake);
	}
	pthread_mutex_unlock(&j->lock);
	return ret;
}

struct image *job_take_dropped(struct job *j)
{
	struct image *img = j->dropped;

	j->dropped = NULL;
	return img;
}

struct block *job_take_left(struct job *j)
{
	struct block *b = j->left;

	j->left = NULL;
	return b;
}

bool job_pivoted(const struct job *j)
{
	return j->pivoted;
}
