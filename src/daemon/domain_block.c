/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Block jobs: pull, commit, what is known of them, their ends. */
#include "daemon/domain_block.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/confine.h"
#include "daemon/image_links.h"
#include "util/log.h"

enum { ABORT_ASYNC = 1, ABORT_PIVOT = 2 }; /* virDomainBlockJobAbortFlags */
enum { INFO_BYTES = 1, SPEED_BYTES = 1 };
enum { PULL_BYTES = 64 };
enum { REBASE_SHALLOW = 1, REBASE_REUSE = 2, REBASE_RAW = 4, REBASE_COPY = 8, REBASE_DEV = 32, REBASE_BYTES = 64 };
enum { COMMIT_SHALLOW = 1, COMMIT_ACTIVE = 4, COMMIT_BYTES = 16 };
#define DEPTH_MAX 200u

static struct block_job *jobs;

const char *disk_image(const struct dom_disk *disk)
{
	return disk->source ? disk->source->file ? disk->source->file : disk->source->dev : NULL;
}

void block_job_free(struct block_job *j)
{
	struct block_job **at = &jobs;

	while (*at && *at != j)
		at = &(*at)->next;
	if (*at)
		*at = j->next;
	free(j->dst);
	free(j->alias);
	free(j->path);
	free(j->new_path);
	free(j->new_format);
	free(j->changed);
	free(j->old_format);
	free(j);
}

void block_jobs_forget(struct guest *g)
{
	/* Those that do not run yet are ended by the command that fails. */
	for (struct block_job *j = jobs, *next; j; j = next) {
		next = j->next;
		if (j->guest != g || !j->running)
			continue;
		if (j->call)
			guest_finish(j->call, g,
				     rpc_call_fail(j->call, VIR_FROM_QEMU, VIR_ERR_OPERATION_FAILED,
						   "domain is no longer running"));
		block_job_free(j);
	}
}

static struct block_job *job_of_disk(const struct guest *g, const char *alias)
{
	for (struct block_job *j = jobs; j; j = j->next)
		if (j->guest == g && !strcmp(j->alias, alias))
			return j;
	return NULL;
}

struct block_job *block_job_of_call(const struct rpc_call *call)
{
	for (struct block_job *j = jobs; j; j = j->next)
		if (j->call == call)
			return j;
	return NULL;
}

static struct dom_disk *find_disk(struct rpc_call *call, struct guest *g, const char *name)
{
	struct dom_disk *disk = disk_by_target(g->live, name);

	if (!disk)
		rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "disk '%s' not found in domain", name);
	else if (!disk_image(disk) || !disk->info.alias)
		rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID,
			      "disk '%s' has no source file to be managed", name);
	else
		return disk;
	return NULL;
}

struct block_job *block_job_new(struct rpc_call *call, struct guest *g, const char *name, int type)
{
	static const char *const kinds[] = {
		[BLOCK_JOB_SNAPSHOT] = "snapshot",
		[BLOCK_JOB_PULL] = "pull",
		[BLOCK_JOB_COPY] = "copy",
		[BLOCK_JOB_COMMIT] = "commit",
		[BLOCK_JOB_ACTIVE_COMMIT] = "commit",
	};
	struct dom_disk *disk = find_disk(call, g, name);
	struct block_job *j;

	if (!disk)
		return NULL;
	if (job_of_disk(g, disk->info.alias)) {
		rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_UNSUPPORTED,
			      "disk '%s' already in active block job", disk->target->dev);
		return NULL;
	}
	j = calloc(1, sizeof(*j));
	if (j) {
		j->guest = g;
		j->call = call;
		j->type = type;
		j->dst = strdup(disk->target->dev);
		j->alias = strdup(disk->info.alias);
		j->path = strdup(disk_image(disk));
		snprintf(j->id, sizeof(j->id), "%s-%.60s", kinds[type], disk->info.alias);
		j->next = jobs;
		jobs = j;
	}
	if (j && j->dst && j->alias && j->path)
		return j;
	if (j)
		block_job_free(j);
	call_fail_memory(call);
	return NULL;
}

/* A speed in bytes a second, of one in MiB unless `bytes`. */
static int take_speed(struct rpc_call *call, uint64_t n, bool bytes, uint64_t *speed)
{
	const uint64_t most = INT64_MAX;

	*speed = bytes ? n : n << 20;
	if (n > (bytes ? most : most >> 20))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OVERFLOW, "bandwidth must be less than %llu",
				     (unsigned long long)(bytes ? most : most >> 20));
	return 0;
}

static int begun(struct rpc_call *call, struct guest *g, json_t *ret)
{
	struct block_job *j = block_job_of_call(call);

	if (!j)
		return ret ? 0 : -1;
	j->call = NULL;
	j->running = true;
	if (ret)
		return 0;
	block_job_free(j);
	return -1;
}

/* ---- Chains -------------------------------------------------------------------------- */

/* The image below, as keeld reads the header itself. malloced, or NULL: there is none. */
static char *below(const char *path)
{
	uint8_t *head = malloc(IMAGE_LINKS_BYTES);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	ssize_t n = head && fd >= 0 ? pread(fd, head, IMAGE_LINKS_BYTES, 0) : -1;
	struct image_links links;
	char *next = NULL;

	if (n > 0 && image_links_parse(head, (size_t)n, &links) && links.qcow2 && links.backing[0])
		next = image_links_path(path, links.backing);
	if (fd >= 0)
		close(fd);
	free(head);
	return next;
}

struct chain {
	char *path[DEPTH_MAX]; /* the first is the disk's own image */
	unsigned n;
};

static void chain_free(struct chain *c)
{
	while (c->n)
		free(c->path[--c->n]);
}

static void chain_read(struct chain *c, const char *path)
{
	char *next = strdup(path);

	for (c->n = 0; next && c->n < DEPTH_MAX; next = below(c->path[c->n - 1]))
		c->path[c->n++] = next;
	if (c->n == DEPTH_MAX)
		free(next);
}

/* A path, or "vda[2]"; -1 and the call has failed. */
static int chain_find(struct rpc_call *call, const struct chain *c, const char *dst, const char *name)
{
	size_t len = strlen(dst);
	char *end;

	for (unsigned i = 0; i < c->n; i++)
		if (!strcmp(c->path[i], name))
			return (int)i;
	if (!strncmp(name, dst, len) && name[len] == '[') {
		unsigned long i = strtoul(name + len + 1, &end, 10);

		if (!strcmp(end, "]") && i < c->n)
			return (int)i;
	}
	rpc_call_fail(call, VIR_FROM_STORAGE, VIR_ERR_INVALID_ARG, "could not find image '%s' in chain for '%s'", name,
		      c->path[0]);
	return -1;
}

/* ---- Pull ------------------------------------------------------------------------------- */

static int pull(struct rpc_call *call, struct guest *g, const char *path, const char *base, uint64_t bandwidth,
		bool bytes)
{
	struct block_job *j = block_job_new(call, g, path, BLOCK_JOB_PULL);
	struct chain chain = { .n = 0 };
	int at = 0, ret = -1;
	json_t *args;

	if (!j)
		return -1;
	chain_read(&chain, j->path);
	if (!take_speed(call, bandwidth, bytes, &j->speed))
		ret = !base || (at = chain_find(call, &chain, j->dst, base)) >= 0 ? 0 : -1;
	if (!ret && base && !at)
		ret = rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG,
				    "the base '%s' must lie below the disk's image", base);
	if (!ret) {
		j->changed = strdup(j->path);
		args = json_pack("{s:s,s:s,s:I}", "job-id", j->id, "device", j->alias, "speed", (json_int_t)j->speed);
		if (base)
			json_object_set_new(args, "base", json_string(chain.path[at]));
		ret = guest_qmp_try(call, g, "block-stream", args, begun);
	}
	chain_free(&chain);
	if (ret != RPC_LATER)
		block_job_free(j);
	return ret;
}

static int block_pull(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_block_pull_args *args = call->args;

	if (call_check_flags(call, args->flags, PULL_BYTES))
		return -1;
	return pull(call, g, args->path, NULL, args->bandwidth, args->flags & PULL_BYTES);
}

/* The old call for two things. */
static int block_rebase(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_block_rebase_args *args = call->args;
	struct block_dest dest = { .path = args->base, .format = args->flags & REBASE_RAW ? "raw" : NULL };
	uint64_t speed;

	if (call_check_flags(call, args->flags,
			     REBASE_SHALLOW | REBASE_REUSE | REBASE_RAW | REBASE_COPY | REBASE_DEV | REBASE_BYTES))
		return -1;
	if (!(args->flags & REBASE_COPY))
		return pull(call, g, args->path, args->base, args->bandwidth, args->flags & REBASE_BYTES);
	if (!dest.path)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG,
				     "base in virDomainBlockRebase must not be NULL for a copy");
	if (take_speed(call, args->bandwidth, args->flags & REBASE_BYTES, &speed))
		return -1;
	dest.is_device = args->flags & REBASE_DEV;
	return block_copy_begin(call, g, args->path, &dest, speed, 0, args->flags & (REBASE_SHALLOW | REBASE_REUSE));
}

/* ---- Commit ------------------------------------------------------------------------------- */

/* The machine writes images that it only read so far: it gets them open for that. */
static int send_writable(struct rpc_call *call, struct guest *g, const struct chain *c, int top, int base)
{
	struct confine_files files = { 0 };
	struct err err = ERR_INIT;
	struct qmp *q = guest_monitor(g);
	int ret = confine_file_open(&files, c->path[base], O_RDWR, &err);

	if (!ret && top > 1)
		ret = confine_file_open(&files, c->path[top - 1], O_RDWR, &err);
	if (!ret && q && confine_files_send(&files, q))
		return 0;
	confine_files_close(&files);
	return ret ? call_fail_model(call, &err)
		   : rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_FAILED, "domain is no longer running");
}

static int commit(struct rpc_call *call, struct guest *g, struct block_job *j, const struct chain *c,
		  const struct remote_domain_block_commit_args *args)
{
	int top = args->top ? chain_find(call, c, j->dst, args->top) : 0, base;
	json_t *q;

	if (top < 0)
		return -1;
	base = args->base		      ? chain_find(call, c, j->dst, args->base)
	       : args->flags & COMMIT_SHALLOW ? top + 1
					      : (int)c->n - 1;
	if (base < 0)
		return -1;
	if (!top && !(args->flags & COMMIT_ACTIVE))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG,
				     "commit of '%s' active layer requires active flag", j->dst);
	if (top && args->flags & COMMIT_ACTIVE)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG,
				     "active commit requested but '%s' is not active", args->top);
	if (base <= top || base >= (int)c->n)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG,
				     "top '%s' in chain for '%s' has no backing file", c->path[top], j->path);
	j->type = top ? BLOCK_JOB_COMMIT : BLOCK_JOB_ACTIVE_COMMIT;
	j->new_path = top ? NULL : strdup(c->path[base]);
	j->changed = top ? strdup(c->path[top - 1]) : NULL;
	if (send_writable(call, g, c, top, base))
		return -1;
	q = json_pack("{s:s,s:s,s:s,s:I}", "job-id", j->id, "device", j->alias, "base", c->path[base], "speed",
		      (json_int_t)j->speed);
	if (top)
		json_object_set_new(q, "top", json_string(c->path[top]));
	return guest_qmp_try(call, g, "block-commit", q, begun);
}

static int block_commit(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_block_commit_args *args = call->args;
	struct chain chain = { .n = 0 };
	struct block_job *j;
	int ret;

	/* DELETE and RELATIVE are not there. */
	if (call_check_flags(call, args->flags, COMMIT_SHALLOW | COMMIT_ACTIVE | COMMIT_BYTES))
		return -1;
	j = block_job_new(call, g, args->disk, BLOCK_JOB_COMMIT);
	if (!j)
		return -1;
	chain_read(&chain, j->path);
	ret = take_speed(call, args->bandwidth, args->flags & COMMIT_BYTES, &j->speed);
	if (!ret)
		ret = commit(call, g, j, &chain, args);
	chain_free(&chain);
	if (ret != RPC_LATER)
		block_job_free(j);
	return ret;
}

/* ---- Control --------------------------------------------------------------------------------- */

static int found_jobs(struct rpc_call *call, struct guest *g, json_t *list)
{
	const struct remote_domain_get_block_job_info_args *args = call->args;
	struct remote_domain_get_block_job_info_ret *ret = call->ret;
	const struct dom_disk *disk = g->live ? disk_by_target(g->live, args->path) : NULL;
	const struct block_job *j = disk && disk->info.alias ? job_of_disk(g, disk->info.alias) : NULL;
	json_t *one;
	size_t i;

	json_array_foreach(list, i, one)
	{
		const char *id = json_string_value(json_object_get(one, "device"));

		if (!j || !j->running || !id || strcmp(id, j->id))
			continue;
		ret->found = 1;
		ret->type = j->type;
		ret->bandwidth = (uint64_t)json_integer_value(json_object_get(one, "speed"));
		ret->cur = (uint64_t)json_integer_value(json_object_get(one, "offset"));
		ret->end = (uint64_t)json_integer_value(json_object_get(one, "len"));
		if (!(args->flags & INFO_BYTES))
			ret->bandwidth = (ret->bandwidth + (1 << 20) - 1) >> 20;
		/* Both 0, or equal, would mean that it is ready. */
		if (!ret->end)
			ret->end = 1;
		else if (ret->cur == ret->end && !j->ready && ret->cur &&
			 (j->type == BLOCK_JOB_COPY || j->type == BLOCK_JOB_ACTIVE_COMMIT))
			ret->cur--;
	}
	return 0;
}

static int job_info(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_get_block_job_info_args *args = call->args;

	if (call_check_flags(call, args->flags, INFO_BYTES) || !find_disk(call, g, args->path))
		return -1;
	return guest_qmp(call, g, "query-block-jobs", NULL, found_jobs);
}

static struct block_job *running_job(struct rpc_call *call, struct guest *g, const char *path)
{
	struct dom_disk *disk = find_disk(call, g, path);
	struct block_job *j = disk ? job_of_disk(g, disk->info.alias) : NULL;

	if (disk && !j)
		rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "disk '%s' does not have an active block job",
			      path);
	return j;
}

static int job_set_speed(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_block_job_set_speed_args *args = call->args;
	struct block_job *j;
	uint64_t speed;

	if (call_check_flags(call, args->flags, SPEED_BYTES) ||
	    take_speed(call, args->bandwidth, args->flags & SPEED_BYTES, &speed))
		return -1;
	j = running_job(call, g, args->path);
	return !j ? -1
		  : guest_qmp(call, g, "block-job-set-speed",
			      json_pack("{s:s,s:I}", "device", j->id, "speed", (json_int_t)speed), NULL);
}

/* The machine has been told; the call waits for the job's end unless it does not want to. */
static int abort_sent(struct rpc_call *call, struct guest *g, json_t *ret)
{
	const struct remote_domain_block_job_abort_args *args = call->args;
	const struct dom_disk *disk = g->live ? disk_by_target(g->live, args->path) : NULL;
	struct block_job *j = disk && disk->info.alias ? job_of_disk(g, disk->info.alias) : NULL;

	if (!ret && j)
		j->pivot = j->abort = false;
	if (!ret || !j || args->flags & ABORT_ASYNC) /* no record: it has ended already */
		return ret ? 0 : -1;
	j->call = call;
	return RPC_LATER;
}

static int job_abort(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_block_job_abort_args *args = call->args;
	bool pivot = args->flags & ABORT_PIVOT;
	struct block_job *j;

	if (call_check_flags(call, args->flags, ABORT_ASYNC | ABORT_PIVOT))
		return -1;
	j = running_job(call, g, args->path);
	if (!j)
		return -1;
	if (pivot && j->type != BLOCK_JOB_COPY && j->type != BLOCK_JOB_ACTIVE_COMMIT)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID,
				     "job type '%s' does not support pivot",
				     j->type == BLOCK_JOB_PULL ? "pull" : "commit");
	if (pivot && !j->ready)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_BLOCK_COPY_ACTIVE,
				     "block copy still active: disk '%s' not ready for pivot yet", j->dst);
	if (j->pivot || j->abort || j->call)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID,
				     "block job on disk '%s' is still being ended", j->dst);
	j->pivot = pivot;
	j->abort = !pivot;
	return guest_qmp_try(call, g, pivot ? "job-complete" : "block-job-cancel",
			     json_pack("{s:s}", pivot ? "id" : "device", j->id), abort_sent);
}

/* ---- What the machine says --------------------------------------------------------------------- */

/* The disk of a definition has another image now. */
bool block_job_replace(struct domain *def, const struct block_job *j)
{
	struct dom_disk *disk = def ? disk_by_target(def, j->dst) : NULL;
	char *path = strdup(j->new_path), *format = j->new_format ? strdup(j->new_format) : NULL;
	struct stat st;
	bool device = !stat(j->new_path, &st) && S_ISBLK(st.st_mode);

	if (!disk || !path || !disk_image(disk) || strcmp(disk_image(disk), j->path)) {
		free(path);
		free(format);
		return false;
	}
	free(disk->source->file);
	free(disk->source->dev);
	disk->source->file = device ? NULL : path;
	disk->source->dev = device ? path : NULL;
	disk->type = device ? DOM_DISK_BLOCK : DOM_DISK_FILE;
	if (format && disk->driver) {
		free(disk->driver->type);
		disk->driver->type = format;
	} else {
		free(format);
	}
	return true;
}

static void pivoted(struct guest *g, struct block_job *j)
{
	struct qmp *q = guest_monitor(g);
	struct err err = ERR_INIT;
	char node[96];

	if (block_job_replace(g->live, j))
		store_save_live(g);
	if (guest_is_persistent(g) && !guest_unpack(g) && block_job_replace(g->config, j) &&
	    store_save_config(g, g->config, &err))
		log_line(LOG_ERROR, "%s: %s", g->name, err_msg(&err));
	/* The node of a disk that was attached later; of others there is none left. */
	snprintf(node, sizeof(node), "%.60s-node", j->alias);
	if (q)
		qmp_send(q, "blockdev-del", json_pack("{s:s}", "node-name", node), NULL, NULL);
}

static void finished(struct guest *g, struct block_job *j, int status)
{
	struct rpc_call *call = j->call;
	struct qmp *q = guest_monitor(g);

	if (status == BLOCK_COMPLETED && j->pivot && j->new_path)
		pivoted(g, j);
	else if (q && j->node[0])
		qmp_send(q, "blockdev-del", json_pack("{s:s}", "node-name", j->node), NULL, NULL);
	if (status == BLOCK_COMPLETED && j->changed)
		confine_image_changed(j->changed);
	event_block_job(g, j->pivot && status == BLOCK_COMPLETED ? j->new_path : j->path, j->dst, j->type, status);
	block_job_free(j);
	if (call)
		guest_finish(call, g,
			     status == BLOCK_FAILED ? rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_FAILED,
								    "the block job failed")
						    : 0);
}

void block_jobs_event(struct guest *g, const char *name, json_t *data)
{
	const char *id = json_string_value(json_object_get(data, "device"));
	const char *error = json_string_value(json_object_get(data, "error"));
	struct block_job *j = jobs;

	while (j && (j->guest != g || !id || strcmp(j->id, id)))
		j = j->next;
	if (!j)
		return;
	j->running = true;
	if (!strcmp(name, "BLOCK_JOB_READY")) {
		j->ready = true;
		event_block_job(g, j->path, j->dst, j->type, BLOCK_READY);
	} else if (error) {
		log_line(LOG_WARN, "%s: the block job of disk '%s' failed: %.200s", g->name, j->dst, error);
		finished(g, j, BLOCK_FAILED);
	} else {
		finished(g, j, j->abort || !strcmp(name, "BLOCK_JOB_CANCELLED") ? BLOCK_CANCELED : BLOCK_COMPLETED);
	}
}

const struct guest_binding block_bindings[] = {
	{ NULL, REMOTE_PROC_DOMAIN_BLOCK_PULL, block_pull, GUEST_JOB | GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_BLOCK_REBASE, block_rebase, GUEST_JOB | GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_BLOCK_COMMIT, block_commit, GUEST_JOB | GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_BLOCK_COPY, block_copy, GUEST_JOB | GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_GET_BLOCK_JOB_INFO, job_info, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_BLOCK_JOB_SET_SPEED, job_set_speed, GUEST_JOB | GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_BLOCK_JOB_ABORT, job_abort, GUEST_JOB | GUEST_ACTIVE },
	{ 0 },
};
