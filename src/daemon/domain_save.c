/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guests put away into files, and brought back: save, restore and managed save. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/guest_save.h"
#include "util/log.h"

enum { SAVE_BYPASS_CACHE = 1, SAVE_RUNNING = 2, SAVE_PAUSED = 4, SAVE_RESET_NVRAM = 8 }; /* virDomainSaveRestoreFlags */
enum { EVENT_STARTED_RESTORED = 2, EVENT_SUSPENDED_RESTORED = 3 };

/* What guest_save.c says of a file. */
static int fail(struct rpc_call *call, const struct err *err)
{
	int code = err->code == ESRCH || err->code == ENODATA ? VIR_ERR_OPERATION_FAILED
		   : err->code == ENOMEM		      ? VIR_ERR_NO_MEMORY
							      : VIR_ERR_SYSTEM_ERROR;

	return rpc_call_fail(call, VIR_FROM_QEMU, code, "%s", err_msg(err));
}

static int check_running_flags(struct rpc_call *call, uint32_t flags, uint32_t known)
{
	if (call_check_flags(call, flags, known))
		return -1;
	if ((flags & SAVE_RUNNING) && (flags & SAVE_PAUSED))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "flags 'VIR_DOMAIN_SAVE_RUNNING' and 'VIR_DOMAIN_SAVE_PAUSED' are mutually exclusive");
	return 0;
}

/* ---- Away ------------------------------------------------------------------- */

struct save {
	const char *path;
	char *own_path; /* freed with it */
	int fd;
	bool was_running;
};

static void save_end(struct save *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	free(s->own_path);
	s->own_path = NULL;
}

static void gone(struct guest *g, void *opaque, const struct err *err)
{
	(void)err;
	guest_finish(opaque, g, 0);
}

/* The call has failed already: its error stays. */
static int goes_on(struct rpc_call *call, struct guest *g, json_t *value)
{
	(void)call;
	(void)g;
	(void)value;
	return -1;
}

static int undo(struct rpc_call *call, struct guest *g)
{
	struct save *s = call->opaque;

	if (s->path)
		unlink(s->path);
	save_end(s);
	if (!s->was_running || !g->run)
		return -1;
	return guest_qmp_try(call, g, "cont", NULL, goes_on);
}

static int saved(struct rpc_call *call, struct guest *g, json_t *value)
{
	struct save *s = call->opaque;
	struct err err = ERR_INIT;

	if (value && save_complete(s->fd, &err)) {
		fail(call, &err);
		value = NULL;
	}
	if (!value || !g->run)
		return undo(call, g);
	save_end(s);
	guest_end_as(g, SHUTOFF_SAVED, STOPPED_SAVED, gone, call);
	return RPC_LATER;
}

static int stopped(struct rpc_call *call, struct guest *g, json_t *value)
{
	struct save *s = call->opaque;
	struct qmp *q = guest_monitor(g);
	int ret;

	if (s->was_running && g->state == STATE_PAUSED)
		guest_set_state(g, STATE_PAUSED, PAUSED_SAVE);
	if (!value || !q || !qmp_send_fd(q, "getfd", json_pack("{s:s}", "fdname", "save"), s->fd, NULL, NULL))
		return undo(call, g);
	ret = guest_qmp_try(call, g, "save-state", json_pack("{s:s}", "protocol", "fd:save"), saved);
	return ret < 0 ? undo(call, g) : ret;
}

/* Takes own_path, which may be `path`. */
static int save(struct rpc_call *call, struct guest *g, const char *path, char *own_path, const char *dxml, uint32_t flags)
{
	struct save *s = arena_alloc(&call->arena, sizeof(*s));
	bool running = flags & SAVE_RUNNING || (!(flags & SAVE_PAUSED) && g->state == STATE_RUNNING);
	char *xml = domain_format(g->live, DOMAIN_FORMAT_SECURE);
	struct err err = ERR_INIT;
	struct domain *other;
	int ret = 0;

	if (!s || !xml) {
		free(own_path);
		free(xml);
		return call_fail_memory(call);
	}
	*s = (struct save){ .own_path = own_path, .fd = -1, .was_running = g->state == STATE_RUNNING };
	call->opaque = s;
	if (g->state != STATE_RUNNING && g->state != STATE_PAUSED)
		ret = rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "domain is neither running nor paused");
	else if (!path || *path != '/')
		ret = rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "the path of a saved state must be absolute, not '%s'", path ? path : "");
	if (!ret && dxml) {
		other = domain_parse(dxml, 0, &g->daemon->caps, &err);
		if (!other || domain_abi_check(g->live, other, &err)) {
			ret = call_fail_model(call, &err);
		} else {
			free(xml);
			xml = domain_format(other, DOMAIN_FORMAT_SECURE);
			ret = xml ? 0 : call_fail_memory(call);
		}
		domain_free(other);
	}
	if (!ret) {
		s->fd = save_create(path, xml, running, &err);
		ret = s->fd < 0 ? fail(call, &err) : 0;
		s->path = ret ? NULL : path;
	}
	free(xml);
	if (!ret)
		ret = guest_qmp_try(call, g, s->was_running ? "stop" : "query-status", NULL, stopped);
	if (ret >= 0)
		return ret;
	s->was_running = false; /* it has not been stopped */
	return undo(call, g);
}

static int save_plain(struct rpc_call *call, struct guest *g)
{
	return save(call, g, ((struct remote_domain_save_args *)call->args)->to, NULL, NULL, 0);
}

static int save_flags(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_save_flags_args *args = call->args;

	if (check_running_flags(call, args->flags, SAVE_BYPASS_CACHE | SAVE_RUNNING | SAVE_PAUSED))
		return -1;
	return save(call, g, args->to, NULL, args->dxml, args->flags);
}

static int managed_save(struct rpc_call *call, struct guest *g)
{
	uint32_t flags = ((struct remote_domain_managed_save_args *)call->args)->flags;
	char *dir = NULL, *path;

	if (check_running_flags(call, flags, SAVE_BYPASS_CACHE | SAVE_RUNNING | SAVE_PAUSED))
		return -1;
	if (!guest_is_persistent(g))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "cannot do managed save for transient domain");
	path = save_managed_path(g);
	dir = path ? strndup(path, strrchr(path, '/') - path) : NULL;
	if (!dir) {
		free(path);
		return call_fail_memory(call);
	}
	mkdir(dir, 0700); /* what keeps it from being there is told of the file in it */
	free(dir);
	return save(call, g, path, path, NULL, flags);
}

/* ---- Back ------------------------------------------------------------------- */

struct restore {
	struct rpc_call *call;
	struct remote_domain *out;
	bool paused;
	char *remove;
};

static void restored(struct guest *g, void *opaque, const struct err *err)
{
	struct restore *r = opaque;
	struct rpc_call *call = r->call;
	int ret = 0;

	guest_get(g);
	if (err) {
		if (!guest_is_persistent(g) && !guest_is_active(g))
			guest_remove(g);
		ret = rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INTERNAL_ERROR, "%s", err_msg(err));
	} else {
		event_lifecycle(g, EVENT_STARTED, EVENT_STARTED_RESTORED);
		if (r->paused)
			event_lifecycle(g, EVENT_SUSPENDED, EVENT_SUSPENDED_RESTORED);
		if (r->out)
			*r->out = guest_wire(g);
		if (r->remove)
			unlink(r->remove);
	}
	free(r->remove);
	free(r);
	guest_finish(call, g, ret);
	guest_put(g);
}

int save_start(struct rpc_call *call, struct guest *g, struct domain *def, int fd, uint32_t flags, const char *remove,
	       struct remote_domain *out)
{
	struct restore *r = calloc(1, sizeof(*r));

	if (r && remove)
		r->remove = strdup(remove);
	if (!r || (remove && !r->remove)) {
		free(r);
		close(fd);
		domain_free(def);
		return call_fail_memory(call);
	}
	r->call = call;
	r->out = out;
	r->paused = flags & START_PAUSED;
	g->restore_fd = fd;
	guest_start(g, def, flags, restored, r);
	return RPC_LATER;
}

int save_start_managed(struct rpc_call *call, struct guest *g, uint32_t create_flags, struct remote_domain *out)
{
	enum { START_IS_PAUSED = 1, FORCE_BOOT = 8 }; /* virDomainCreateFlags */
	struct err err = ERR_INIT;
	struct domain *def;
	bool running;
	char *path, *xml;
	int fd, ret;

	if (!save_is_managed(g))
		return 0;
	if (create_flags & FORCE_BOOT) {
		save_forget_managed(g);
		return 0;
	}
	path = save_managed_path(g);
	fd = path ? save_open(path, &xml, &running, &err) : err_set(&err, ENOMEM, "no memory for a path");
	if (fd == -ENODATA) { /* keeld ended while it was written: the guest went on, or was gone anyway */
		log_line(LOG_WARN, "the saved state of '%s' is not whole and is forgotten", g->name);
		save_forget_managed(g);
		free(path);
		return 0;
	}
	if (fd < 0) {
		free(path);
		return fail(call, &err);
	}
	def = domain_parse(xml, DOMAIN_PARSE_SKIP_CHECK, &g->daemon->caps, &err);
	free(xml);
	if (!def) {
		close(fd);
		free(path);
		return call_fail_model(call, &err);
	}
	ret = save_start(call, g, def, fd, running && !(create_flags & START_IS_PAUSED) ? 0 : START_PAUSED, path, out);
	free(path);
	return ret;
}

static int restore(struct rpc_call *call, const char *from, const char *dxml, uint32_t flags)
{
	struct daemon *d = call_daemon(call);
	struct domain *def, *other = NULL;
	struct err err = ERR_INIT;
	struct guest *g;
	bool running;
	char *xml, uuid[37];
	int fd, ret = 0;

	if (check_running_flags(call, flags, SAVE_BYPASS_CACHE | SAVE_RUNNING | SAVE_PAUSED | SAVE_RESET_NVRAM))
		return -1;
	fd = save_open(from ? from : "", &xml, &running, &err);
	if (fd < 0)
		return fail(call, &err);
	def = domain_parse(xml, DOMAIN_PARSE_SKIP_CHECK, &d->caps, &err);
	free(xml);
	if (def && dxml) {
		other = domain_parse(dxml, DOMAIN_PARSE_SKIP_CHECK, &d->caps, &err);
		if (!other || domain_abi_check(def, other, &err))
			ret = call_fail_model(call, &err);
	} else if (!def) {
		ret = call_fail_model(call, &err);
	}
	if (!ret && other) {
		domain_free(def);
		def = other;
		other = NULL;
	}
	g = ret ? NULL : guest_by_uuid(d, def->uuid.bytes);
	if (g && strcmp(g->name, def->name)) {
		uuid_text(g->uuid, uuid);
		ret = rpc_call_fail(call, VIR_FROM_DOMAIN, VIR_ERR_OPERATION_FAILED, "domain '%s' is already defined with uuid %s", g->name, uuid);
	} else if (g && (guest_is_active(g) || g->busy)) {
		ret = rpc_call_fail(call, VIR_FROM_DOMAIN, VIR_ERR_OPERATION_INVALID, "domain is already active as '%s'", g->name);
	} else if (!ret && !g && guest_by_name(d, def->name)) {
		ret = rpc_call_fail(call, VIR_FROM_DOMAIN, VIR_ERR_OPERATION_FAILED, "domain '%s' already exists", def->name);
	}
	if (!ret && !g) {
		g = guest_new(d, def->name, def->uuid.bytes);
		if (!g || guest_add(g))
			ret = call_fail_memory(call);
		guest_put(g);
	}
	if (!ret && guest_unpack(g))
		ret = call_fail_memory(call);
	domain_free(other);
	if (ret) {
		domain_free(def);
		close(fd);
		return ret;
	}
	if (flags & (SAVE_RUNNING | SAVE_PAUSED))
		running = flags & SAVE_RUNNING;
	g->busy = true;
	g->job = call;
	return save_start(call, g, def, fd, running ? 0 : START_PAUSED, NULL, NULL);
}

static int restore_plain(struct rpc_call *call)
{
	return restore(call, ((struct remote_domain_restore_args *)call->args)->from, NULL, 0);
}

static int restore_flags(struct rpc_call *call)
{
	const struct remote_domain_restore_flags_args *args = call->args;

	return restore(call, args->from, args->dxml, args->flags);
}

/* ---- Images ----------------------------------------------------------------- */

static int image_xml(struct rpc_call *call, const char *path, uint32_t flags, char **out)
{
	struct err err = ERR_INIT;
	bool running;
	char *xml;
	int fd;

	if (call_check_flags(call, flags, 1))
		return -1;
	fd = save_open(path, &xml, &running, &err);
	if (fd < 0)
		return fail(call, &err);
	close(fd);
	*out = arena_strdup(&call->arena, xml);
	free(xml);
	return *out ? 0 : call_fail_memory(call);
}

static int image_define(struct rpc_call *call, const char *path, const char *dxml, uint32_t flags)
{
	struct daemon *d = call_daemon(call);
	struct domain *was = NULL, *is = NULL;
	struct err err = ERR_INIT;
	char *xml, *text = NULL;
	bool running;
	int fd, ret;

	if (check_running_flags(call, flags, SAVE_RUNNING | SAVE_PAUSED))
		return -1;
	fd = save_open(path, &xml, &running, &err);
	if (fd < 0)
		return fail(call, &err);
	close(fd);
	was = domain_parse(xml, DOMAIN_PARSE_SKIP_CHECK, &d->caps, &err);
	is = was ? domain_parse(dxml ? dxml : xml, DOMAIN_PARSE_SKIP_CHECK, &d->caps, &err) : NULL;
	free(xml);
	ret = !is || domain_abi_check(was, is, &err) ? call_fail_model(call, &err) : 0;
	text = ret ? NULL : domain_format(is, DOMAIN_FORMAT_SECURE);
	if (!ret && !text)
		ret = call_fail_memory(call);
	if (!ret && save_redefine(path, text, flags & SAVE_RUNNING ? 1 : flags & SAVE_PAUSED ? 0 : -1, &err))
		ret = fail(call, &err);
	free(text);
	domain_free(was);
	domain_free(is);
	return ret;
}

static int save_image_xml(struct rpc_call *call)
{
	const struct remote_domain_save_image_get_xml_desc_args *args = call->args;

	return image_xml(call, args->file, args->flags, &((struct remote_domain_save_image_get_xml_desc_ret *)call->ret)->xml);
}

static int save_image_define(struct rpc_call *call)
{
	const struct remote_domain_save_image_define_xml_args *args = call->args;

	return image_define(call, args->file, args->dxml, args->flags);
}

static int no_image(struct rpc_call *call)
{
	return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "domain does not have managed save image");
}

static int managed_xml(struct rpc_call *call, struct guest *g)
{
	char *path = save_managed_path(g);
	int ret = !path ? call_fail_memory(call)
		  : access(path, F_OK)
			  ? no_image(call)
			  : image_xml(call, path, ((struct remote_domain_managed_save_get_xml_desc_args *)call->args)->flags,
				      &((struct remote_domain_managed_save_get_xml_desc_ret *)call->ret)->xml);

	free(path);
	return ret;
}

static int managed_define(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_managed_save_define_xml_args *args = call->args;
	char *path = save_managed_path(g);
	int ret = !path ? call_fail_memory(call) : access(path, F_OK) ? no_image(call) : image_define(call, path, args->dxml, args->flags);

	free(path);
	return ret;
}

static int has_managed(struct rpc_call *call, struct guest *g)
{
	if (call_check_flags(call, ((struct remote_domain_has_managed_save_image_args *)call->args)->flags, 0))
		return -1;
	((struct remote_domain_has_managed_save_image_ret *)call->ret)->result = save_is_managed(g);
	return 0;
}

static int remove_managed(struct rpc_call *call, struct guest *g)
{
	if (call_check_flags(call, ((struct remote_domain_managed_save_remove_args *)call->args)->flags, 0))
		return -1;
	save_forget_managed(g);
	return 0;
}

const struct binding save_bindings[] = {
	{ REMOTE_PROC_DOMAIN_RESTORE, restore_plain },
	{ REMOTE_PROC_DOMAIN_RESTORE_FLAGS, restore_flags },
	{ REMOTE_PROC_DOMAIN_SAVE_IMAGE_GET_XML_DESC, save_image_xml },
	{ REMOTE_PROC_DOMAIN_SAVE_IMAGE_DEFINE_XML, save_image_define },
	{ 0 },
};

const struct guest_binding save_guest_bindings[] = {
	{ NULL, REMOTE_PROC_DOMAIN_SAVE, save_plain, GUEST_JOB | GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_SAVE_FLAGS, save_flags, GUEST_JOB | GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_MANAGED_SAVE, managed_save, GUEST_JOB | GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_HAS_MANAGED_SAVE_IMAGE, has_managed, GUEST_PACKED },
	{ NULL, REMOTE_PROC_DOMAIN_MANAGED_SAVE_REMOVE, remove_managed, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_MANAGED_SAVE_GET_XML_DESC, managed_xml, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_MANAGED_SAVE_DEFINE_XML, managed_define, GUEST_JOB },
	{ 0 },
};
