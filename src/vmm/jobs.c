/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: block jobs by name, and what their ends mean for nodes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/dirty.h"
#include "image/job.h"
#include "image/qcow2.h"
#include "vmm/vmm.h"

struct vmm_job {
	struct vmm *v;
	char *id;
	enum job_type type;
	struct job *job;
	struct vmm_node *node, *target; /* each used by it; target or NULL */
	unsigned top, base;		/* depths, as in struct job_options */
	struct vmm_node *upper, *lower; /* what a shorter chain is cut between, or NULL: they have no nodes */
	bool auto_finalize, auto_dismiss, dismissed;
	const char *io_status;
	bool create; /* blockdev-create, which has ended: there is no `job` */
	struct err err;
	struct vmm_job *next;
};

static void look(struct vmm_job *j, struct job_info *info)
{
	if (j->job)
		job_get(j->job, info);
	else
		*info = (struct job_info){
			.status = JOB_CONCLUDED,
			.offset = 1,
			.len = 1,
			.ret = -j->err.code,
			.error = j->err.code ? j->err.msg : NULL,
		};
}

static const char *type_of(const struct vmm_job *j)
{
	return j->create ? "create" : job_type_name(j->type);
}

static struct vmm_job *find(struct vmm *v, const char *id)
{
	struct vmm_job *j = v->jobs;

	while (j && strcmp(j->id, id))
		j = j->next;
	return j;
}

bool vmm_node_has_job(struct vmm *v, const struct vmm_node *n)
{
	struct job_info info;

	for (struct vmm_job *j = v->jobs; j; j = j->next) {
		look(j, &info);
		if (info.status != JOB_CONCLUDED && (j->node == n || j->target == n))
			return true;
	}
	return false;
}

static void put_nodes(struct vmm_job *j)
{
	if (j->target)
		vmm_node_put(j->v, j->target);
	if (j->node)
		vmm_node_put(j->v, j->node);
	j->node = j->target = NULL;
}

static void job_end(struct vmm_job *j)
{
	struct vmm_job **at = &j->v->jobs;

	while (*at && *at != j)
		at = &(*at)->next;
	if (*at)
		*at = j->next;
	job_free(j->job);
	put_nodes(j);
	free(j->id);
	free(j);
}

void vmm_jobs_free(struct vmm *v)
{
	while (v->jobs)
		job_end(v->jobs);
}

/* ---- Events ------------------------------------------------------------------------ */

static void tell_status(struct vmm_job *j, const char *status)
{
	qmp_event(j->v->qmp, "JOB_STATUS_CHANGE", json_pack("{s:s,s:s}", "id", j->id, "status", status));
}

static void tell(struct vmm_job *j, const char *event, const char *error)
{
	struct job_info info;
	json_t *data;

	job_get(j->job, &info);
	data = json_pack("{s:s,s:s,s:I,s:I,s:I}", "type", job_type_name(j->type), "device", j->id, "len",
			 (json_int_t)info.len, "offset", (json_int_t)info.offset, "speed", (json_int_t)info.speed);
	if (error)
		json_object_set_new(data, "error", json_string(error));
	qmp_event(j->v->qmp, event, data);
}

static const char *error_text(const struct job_info *info)
{
	return !info->ret ? NULL : info->error && info->error[0] ? info->error : strerror(-info->ret);
}

/* ---- What it changed ------------------------------------------------------------------- */

/* The device goes on with the target, and the source has what the target had. */
static void mirrored(struct vmm_job *j)
{
	struct block *front = j->node->block;

	j->node->block = j->target->block;
	j->target->block = front;
	vmm_node_move_user(j->v, j->node, j->target);
}

/* The device goes on with the base; the node has what it had, with less below it. */
static void committed(struct vmm_job *j)
{
	struct block *front = j->node->block;
	struct vmm_node *base = j->lower, *above = j->upper;

	j->node->block = job_take_left(j->job);
	if (base) {
		above->backing = NULL;
		base->block = front;
	} else {
		base = vmm_node_new(j->v, block_format(front), block_path(front), front);
		if (!base) { /* the device has it, whatever it is called */
			block_close(j->node->block);
			j->node->block = front;
			return;
		}
	}
	base->users++;
	vmm_node_move_user(j->v, j->node, base);
	if (j->lower) /* from above it */
		vmm_node_put(j->v, base);
	vmm_node_put(j->v, base);
}

/* Between two images of the chain there are none any more. */
static void cut(struct vmm_job *j)
{
	struct image *dropped = job_take_dropped(j->job);
	struct vmm_node *first, *last;

	if (!dropped)
		return;
	first = j->upper ? j->upper->backing : NULL;
	if (!first) { /* opened by what headers say: nobody knows them by name */
		image_close(dropped, NULL);
		return;
	}
	for (last = first; last->backing && last->backing != j->lower;)
		last = last->backing;
	first->block = block_from_image(dropped, NULL);
	j->upper->backing = j->lower;
	last->backing = NULL; /* its use of `lower` is now upper's */
	vmm_node_put(j->v, first);
}

static void took_effect(struct vmm_job *j)
{
	if (j->type == JOB_MIRROR && job_pivoted(j->job))
		mirrored(j);
	else if (j->type == JOB_COMMIT && job_pivoted(j->job))
		committed(j);
	else if (j->type == JOB_STREAM || (j->type == JOB_COMMIT && j->top))
		cut(j);
}

static void concluded(struct vmm_job *j)
{
	struct job_info info;

	job_get(j->job, &info);
	if (!info.ret)
		took_effect(j);
	put_nodes(j);
	/* As QEMU has it: the end as a block job, then as a job. */
	if (info.ret == -ECANCELED)
		tell(j, "BLOCK_JOB_CANCELLED", NULL);
	else
		tell(j, "BLOCK_JOB_COMPLETED", error_text(&info));
	tell_status(j, "concluded");
	if (!j->auto_dismiss)
		return;
	tell_status(j, "null");
	job_end(j);
}

static void on_error(struct vmm_job *j, const struct job_event *e)
{
	static const char *const actions[] = { [JOB_REPORT] = "report", [JOB_IGNORE] = "ignore", [JOB_STOP] = "stop" };

	if (e->action == JOB_STOP)
		j->io_status = "failed";
	qmp_event(j->v->qmp, "BLOCK_JOB_ERROR",
		  json_pack("{s:s,s:s,s:s}", "device", j->id, "operation", e->write ? "write" : "read", "action",
			    actions[e->action]));
}

static void on_event(void *opaque, const struct job_event *e)
{
	struct vmm_job *j = opaque;

	if (e->kind == JOB_EVENT_READY) {
		tell(j, "BLOCK_JOB_READY", NULL);
	} else if (e->kind == JOB_EVENT_ERROR) {
		on_error(j, e);
	} else if (e->status == JOB_CONCLUDED) {
		concluded(j);
	} else {
		tell_status(j, job_status_name(e->status));
		if (e->status == JOB_PENDING && !j->auto_finalize)
			qmp_event(j->v->qmp, "BLOCK_JOB_PENDING",
				  json_pack("{s:s,s:s}", "type", job_type_name(j->type), "id", j->id));
	}
}

/* ---- Arguments ------------------------------------------------------------------------- */

static const char *text_of(json_t *args, const char *name)
{
	return json_string_value(json_object_get(args, name));
}

static int take_word(json_t *args, const char *name, const char *const *words, unsigned n, unsigned *value,
		     struct err *err)
{
	json_t *given = json_object_get(args, name);
	const char *text = json_string_value(given);

	if (!given)
		return 0;
	for (unsigned i = 0; text && i < n; i++) {
		if (words[i] && !strcmp(words[i], text)) {
			*value = i;
			return 0;
		}
	}
	return err_set(err, EINVAL, "Parameter '%s' does not accept value '%.80s'", name, text ? text : "?");
}

static int take_number(json_t *args, const char *name, uint64_t most, uint64_t *value, struct err *err)
{
	json_t *given = json_object_get(args, name);

	if (!given)
		return 0;
	if (!json_is_integer(given) || json_integer_value(given) < 0 || (uint64_t)json_integer_value(given) > most)
		return err_set(err, EINVAL, "Parameter '%s' expects a number from 0 to %llu", name,
			       (unsigned long long)most);
	*value = json_integer_value(given);
	return 0;
}

static int take_flag(json_t *args, const char *name, bool *value, struct err *err)
{
	json_t *given = json_object_get(args, name);

	if (given && !json_is_boolean(given))
		return err_set(err, EINVAL, "Invalid parameter type for '%s', expected: boolean", name);
	if (given)
		*value = json_is_true(given);
	return 0;
}

static const char *const syncs[] = {
	[JOB_SYNC_FULL] = "full",
	[JOB_SYNC_TOP] = "top",
	[JOB_SYNC_NONE] = "none",
	[JOB_SYNC_BITMAP] = "incremental",
};
static const char *const errors[] = {
	[JOB_REPORT] = "report",
	[JOB_IGNORE] = "ignore",
	[JOB_STOP] = "stop",
	[JOB_ENOSPC] = "enospc",
};
static const char *const bitmap_modes[] = {
	[JOB_BITMAP_ON_SUCCESS] = "on-success",
	[JOB_BITMAP_NEVER] = "never",
	[JOB_BITMAP_ALWAYS] = "always",
};

/* What all kinds of jobs have. */
static int take_common(struct vmm_job *j, json_t *args, struct job_options *o, struct err *err)
{
	unsigned source = JOB_REPORT, target = JOB_REPORT;
	int ret = take_number(args, "speed", INT64_MAX, &o->speed, err);

	if (!ret)
		ret = take_word(args, "on-source-error", errors, 4, &source, err);
	if (!ret)
		ret = take_word(args, "on-target-error", errors, 4, &target, err);
	if (!ret && json_object_get(args, "on-error")) {
		ret = take_word(args, "on-error", errors, 4, &source, err);
		target = source;
	}
	if (!ret)
		ret = take_flag(args, "auto-finalize", &j->auto_finalize, err);
	if (!ret)
		ret = take_flag(args, "auto-dismiss", &j->auto_dismiss, err);
	o->on_source_error = source;
	o->on_target_error = target;
	o->manual_finalize = !j->auto_finalize;
	return ret;
}

/* A record for a job on the node that "device" means. NULL and err. */
static struct vmm_job *job_begin(struct vmm *v, json_t *args, enum job_type type, struct job_options *o,
				 struct err *err)
{
	const char *device = qmp_need_text(args, "device", err), *id = text_of(args, "job-id");
	struct vmm_node *n = device ? vmm_node_named(v, device, err) : NULL;
	struct vmm_job *j;

	if (!n)
		return NULL;
	id = id ? id : device;
	if (!id[0] || strlen(id) > 255 || find(v, id)) {
		err_set(err, EINVAL, find(v, id) ? "Job ID '%.80s' already in use" : "Invalid job ID '%.80s'", id);
		return NULL;
	}
	if (!n->block || vmm_node_has_job(v, n)) {
		err_set(err, EBUSY, "Node '%s' is busy: it is %s", n->name ? n->name : n->path,
			n->block ? "in use by a block job" : "not open, or a backing file");
		return NULL;
	}
	if (vmm_node_is_exported(v, n) && type != JOB_BACKUP && type != JOB_STREAM) {
		err_set(err, EBUSY, "Node '%s' is busy: it is in use by an export", n->name ? n->name : n->path);
		return NULL;
	}
	j = calloc(1, sizeof(*j));
	if (!j || !(j->id = strdup(id))) {
		free(j);
		err_set(err, ENOMEM, "no memory for a job");
		return NULL;
	}
	j->v = v;
	j->type = type;
	j->node = n;
	n->users++;
	j->auto_finalize = j->auto_dismiss = true;
	j->io_status = "ok";
	*o = (struct job_options){ .block = n->block, .loop = v->loop, .event = on_event, .opaque = j };
	if (take_common(j, args, o, err)) {
		job_end(j);
		return NULL;
	}
	return j;
}

static int take_target(struct vmm_job *j, json_t *args, struct job_options *o, struct err *err)
{
	const char *name = qmp_need_text(args, "target", err);
	struct vmm_node *t = name ? vmm_node_named(j->v, name, err) : NULL;

	if (!t)
		return -err->code;
	if (t == j->node)
		return err_set(err, EINVAL, "Source and target cannot be the same");
	if (vmm_node_get(j->v, t, err))
		return -err->code;
	j->target = t;
	o->target = t->block;
	return 0;
}

/* With its options complete. Takes the record; NULL and err. */
static struct vmm_job *job_make(struct vmm_job *j, struct job_options *o, struct err *err)
{
	j->job = job_new(j->type, o, err);
	if (!j->job) {
		job_end(j);
		return NULL;
	}
	j->next = j->v->jobs;
	j->v->jobs = j;
	return j;
}

void vmm_job_start(struct vmm_job *j)
{
	tell_status(j, "created");
	job_run(j->job);
}

void vmm_job_undo(struct vmm_job *j)
{
	job_end(j);
}

static json_t *job_go(struct vmm_job *j, struct job_options *o, int ret, struct err *err)
{
	if (ret) {
		job_end(j);
		return NULL;
	}
	j = job_make(j, o, err);
	if (j)
		vmm_job_start(j);
	return j ? json_object() : NULL;
}

/* ---- Mirror and backup -------------------------------------------------------------------- */

static json_t *cmd_mirror(struct vmm *v, json_t *args, struct err *err)
{
	static const char *const modes[] = { "background", "write-blocking" };
	unsigned sync = JOB_SYNC_FULL, mode = 0;
	uint64_t granularity = 0;
	struct job_options o;
	struct vmm_job *j;
	int ret;

	if (!qmp_need_text(args, "sync", err))
		return NULL;
	j = job_begin(v, args, JOB_MIRROR, &o, err);
	if (!j)
		return NULL;
	ret = take_word(args, "sync", syncs, 3, &sync, err);
	if (!ret)
		ret = take_word(args, "copy-mode", modes, 2, &mode, err);
	if (!ret)
		ret = take_number(args, "granularity", 64u << 20, &granularity, err);
	if (!ret)
		ret = take_target(j, args, &o, err);
	o.sync = sync;
	o.write_blocking = mode;
	o.granularity = granularity;
	return job_go(j, &o, ret, err);
}

struct vmm_job *vmm_job_backup(struct vmm *v, json_t *args, struct err *err)
{
	const char *text = qmp_need_text(args, "sync", err);
	bool old_name = text && !strcmp(text, "bitmap");
	unsigned sync = JOB_SYNC_FULL, mode = JOB_BITMAP_ON_SUCCESS;
	struct job_options o;
	struct vmm_job *j = text ? job_begin(v, args, JOB_BACKUP, &o, err) : NULL;
	int ret;

	if (!j)
		return NULL;
	ret = old_name ? 0 : take_word(args, "sync", syncs, 4, &sync, err);
	if (old_name)
		sync = JOB_SYNC_BITMAP;
	if (!ret)
		ret = take_word(args, "bitmap-mode", bitmap_modes, 3, &mode, err);
	o.bitmap = text_of(args, "bitmap");
	o.sync = sync;
	o.bitmap_mode = mode;
	if (!ret && (o.sync == JOB_SYNC_BITMAP) != !!o.bitmap)
		ret = err_set(err, EINVAL,
			      o.bitmap ? "bitmap given, but sync mode is '%s'" : "sync mode '%s' needs a bitmap", text);
	if (!ret)
		ret = take_target(j, args, &o, err);
	if (ret) {
		job_end(j);
		return NULL;
	}
	return job_make(j, &o, err);
}

static json_t *cmd_backup(struct vmm *v, json_t *args, struct err *err)
{
	struct vmm_job *j = vmm_job_backup(v, args, err);

	if (j)
		vmm_job_start(j);
	return j ? json_object() : NULL;
}

/* ---- Commit and stream ---------------------------------------------------------------------- */

/* A depth by "WHAT-node" or "WHAT", or as it was. */
static int take_depth(struct vmm_job *j, json_t *args, const char *what, const char *node, unsigned *depth,
		      struct err *err)
{
	const char *name = text_of(args, node), *file = text_of(args, what);
	int ret;

	if (name && file)
		return err_set(err, EINVAL, "'%s' and '%s' are mutually exclusive", node, what);
	if (!name && !file)
		return 0;
	ret = vmm_node_depth(j->node, name, file, err);
	if (ret < 0)
		return ret;
	*depth = ret;
	return 0;
}

static json_t *cmd_commit(struct vmm *v, json_t *args, struct err *err)
{
	struct job_options o;
	struct vmm_job *j = job_begin(v, args, JOB_COMMIT, &o, err);
	int ret;

	if (!j)
		return NULL;
	o.base = block_depth(j->node->block);
	ret = take_depth(j, args, "top", "top-node", &o.top, err);
	if (!ret)
		ret = take_depth(j, args, "base", "base-node", &o.base, err);
	if (!ret && o.base <= o.top)
		ret = err_set(err, EINVAL, "'%s' has nothing to commit to: the base must lie below the top", j->id);
	o.backing_name = text_of(args, "backing-file");
	if (!ret && o.backing_name && !o.top)
		ret = err_set(err, EINVAL, "Top image is the active layer: 'backing-file' makes no sense");
	j->top = o.top;
	j->base = o.base;
	j->upper = vmm_node_below(j->node, o.top ? o.top - 1 : o.base - 1);
	j->lower = vmm_node_below(j->node, o.base);
	return job_go(j, &o, ret, err);
}

static json_t *cmd_stream(struct vmm *v, json_t *args, struct err *err)
{
	struct job_options o;
	struct vmm_job *j = job_begin(v, args, JOB_STREAM, &o, err);
	int ret;

	if (!j)
		return NULL;
	ret = take_depth(j, args, "base", "base-node", &o.base, err);
	if (!ret && !o.base && (text_of(args, "base") || text_of(args, "base-node")))
		ret = err_set(err, EINVAL, "the base must lie below '%s'", j->id);
	o.backing_name = text_of(args, "backing-file");
	j->base = o.base;
	j->upper = j->node;
	j->lower = o.base ? vmm_node_below(j->node, o.base) : NULL;
	return job_go(j, &o, ret, err);
}

/* ---- New images ------------------------------------------------------------------------------- */

/* It is over as soon as it is asked for: there are a few tables to write. */
static json_t *cmd_create(struct vmm *v, json_t *args, struct err *err)
{
	const char *id = qmp_need_text(args, "job-id", err);
	json_t *options = json_object_get(args, "options");
	const char *driver = id ? text_of(options, "driver") : NULL;
	struct vmm_job *j;

	if (!id)
		return NULL;
	if (find(v, id) || !id[0] || strlen(id) > 255) {
		err_set(err, EINVAL, "Job ID '%.80s' already in use, or none", id);
		return NULL;
	}
	if (!driver || strcmp(driver, "qcow2")) {
		err_set(err, ENOTSUP, "Parameter 'options.driver' does not accept value '%.40s': Keel knows: qcow2",
			driver ? driver : "?");
		return NULL;
	}
	j = calloc(1, sizeof(*j));
	if (!j || !(j->id = strdup(id))) {
		free(j);
		err_set(err, ENOMEM, "no memory for a job");
		return NULL;
	}
	j->v = v;
	j->create = true;
	j->next = v->jobs;
	v->jobs = j;
	tell_status(j, "created");
	tell_status(j, "running");
	if (vmm_node_create(v, options, &j->err)) {
		tell_status(j, "aborting");
	} else {
		tell_status(j, "waiting");
		tell_status(j, "pending");
	}
	tell_status(j, "concluded");
	return json_object();
}

/* ---- Control --------------------------------------------------------------------------------- */

static struct vmm_job *named(struct vmm *v, json_t *args, const char *arg, struct err *err)
{
	const char *id = qmp_need_text(args, arg, err);
	struct vmm_job *j = id ? find(v, id) : NULL;

	if (j && j->create) {
		err_set(err, EBUSY, "Job '%s' in state 'concluded' cannot accept this command", j->id);
		j = NULL;
	} else if (id && !j)
		err_set(err, strcmp(arg, "device") ? ENOENT : ENXIO,
			strcmp(arg, "device") ? "Job not found: %.80s" : "Block job '%.80s' not found", id);
	return j;
}

static const char *key_of(json_t *args)
{
	return json_object_get(args, "id") ? "id" : "device";
}

static json_t *cmd_pause(struct vmm *v, json_t *args, struct err *err)
{
	struct vmm_job *j = named(v, args, key_of(args), err);

	return j ? qmp_done(job_pause(j->job, err)) : NULL;
}

static json_t *cmd_resume(struct vmm *v, json_t *args, struct err *err)
{
	struct vmm_job *j = named(v, args, key_of(args), err);

	if (j)
		j->io_status = "ok";
	return j ? qmp_done(job_resume(j->job, err)) : NULL;
}

static json_t *cmd_cancel(struct vmm *v, json_t *args, struct err *err)
{
	struct vmm_job *j = named(v, args, "device", err);
	bool force = false;

	if (!j || take_flag(args, "force", &force, err))
		return NULL;
	return qmp_done(job_cancel(j->job, force, err));
}

static json_t *cmd_job_cancel(struct vmm *v, json_t *args, struct err *err)
{
	struct vmm_job *j = named(v, args, "id", err);

	return j ? qmp_done(job_cancel(j->job, true, err)) : NULL;
}

static json_t *cmd_complete(struct vmm *v, json_t *args, struct err *err)
{
	struct vmm_job *j = named(v, args, key_of(args), err);

	return j ? qmp_done(job_complete(j->job, err)) : NULL;
}

static json_t *cmd_finalize(struct vmm *v, json_t *args, struct err *err)
{
	struct vmm_job *j = named(v, args, "id", err);

	return j ? qmp_done(job_finalize(j->job, err)) : NULL;
}

static json_t *cmd_dismiss(struct vmm *v, json_t *args, struct err *err)
{
	const char *id = qmp_need_text(args, "id", err);
	struct vmm_job *j = id ? find(v, id) : NULL;
	struct job_info info;

	if (!j) {
		err_set(err, ENOENT, "Job not found: %.80s", id ? id : "");
		return NULL;
	}
	look(j, &info);
	if (info.status != JOB_CONCLUDED) {
		err_set(err, EBUSY, "Job '%s' in state '%s' cannot accept command verb 'dismiss'", j->id,
			job_status_name(info.status));
		return NULL;
	}
	tell_status(j, "null");
	job_end(j);
	return json_object();
}

static json_t *cmd_speed(struct vmm *v, json_t *args, struct err *err)
{
	struct vmm_job *j = named(v, args, "device", err);
	uint64_t speed = 0;

	if (j && !json_object_get(args, "speed"))
		err_set(err, EINVAL, "Parameter 'speed' is missing");
	else if (j && !take_number(args, "speed", INT64_MAX, &speed, err))
		return qmp_done(job_set_speed(j->job, speed, err));
	return NULL;
}

/* ---- Queries ------------------------------------------------------------------------------------ */

static json_t *cmd_query_block_jobs(struct vmm *v, json_t *args, struct err *err)
{
	json_t *list = json_array();

	for (struct vmm_job *j = v->jobs; j; j = j->next) {
		struct job_info i;
		json_t *one;

		if (j->create)
			continue;
		look(j, &i);
		one = json_pack("{s:s,s:s,s:I,s:I,s:b,s:b,s:I,s:s,s:b,s:s,s:b,s:b}", "type", job_type_name(j->type),
				"device", j->id, "len", (json_int_t)i.len, "offset", (json_int_t)i.offset, "busy",
				i.busy && !i.paused, "paused", i.paused, "speed", (json_int_t)i.speed, "io-status",
				j->io_status, "ready", i.ready, "status", job_status_name(i.status), "auto-finalize",
				j->auto_finalize, "auto-dismiss", j->auto_dismiss);
		if (i.ret)
			json_object_set_new(one, "error", json_string(error_text(&i)));
		json_array_append_new(list, one);
	}
	return list;
}

static json_t *cmd_query_jobs(struct vmm *v, json_t *args, struct err *err)
{
	json_t *list = json_array();

	for (struct vmm_job *j = v->jobs; j; j = j->next) {
		struct job_info i;
		json_t *one;

		look(j, &i);
		one = json_pack("{s:s,s:s,s:s,s:I,s:I}", "id", j->id, "type", type_of(j), "status",
				job_status_name(i.status), "current-progress", (json_int_t)i.offset, "total-progress",
				(json_int_t)i.len);
		if (i.ret)
			json_object_set_new(one, "error", json_string(error_text(&i)));
		json_array_append_new(list, one);
	}
	return list;
}

#define COMMON "job-id device speed auto-finalize auto-dismiss "

const struct qmp_command qmp_job_commands[] = {
	{ "block-commit", COMMON "base base-node top top-node backing-file on-error", cmd_commit },
	{ "block-job-cancel", "device force", cmd_cancel },
	{ "block-job-complete", "device", cmd_complete },
	{ "block-job-dismiss", "id", cmd_dismiss },
	{ "block-job-finalize", "id", cmd_finalize },
	{ "block-job-pause", "device", cmd_pause },
	{ "block-job-resume", "device", cmd_resume },
	{ "block-job-set-speed", "device speed", cmd_speed },
	{ "block-stream", COMMON "base base-node backing-file on-error", cmd_stream },
	{ "blockdev-backup", COMMON "target sync bitmap bitmap-mode on-source-error on-target-error", cmd_backup },
	{ "blockdev-create", "job-id options", cmd_create },
	{ "blockdev-mirror", COMMON "target sync granularity copy-mode on-source-error on-target-error", cmd_mirror },
	{ "job-cancel", "id", cmd_job_cancel },
	{ "job-complete", "id", cmd_complete },
	{ "job-dismiss", "id", cmd_dismiss },
	{ "job-finalize", "id", cmd_finalize },
	{ "job-pause", "id", cmd_pause },
	{ "job-resume", "id", cmd_resume },
	{ "query-block-jobs", "", cmd_query_block_jobs },
	{ "query-jobs", "", cmd_query_jobs },
	{ NULL, NULL, NULL },
};
