/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guests come, run, stop and go. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/guest.h"
#include "daemon/guest_agent.h"
#include "daemon/guest_save.h"
#include "util/log.h"

enum { CREATE_PAUSED = 1, CREATE_AUTODESTROY = 2, CREATE_BYPASS_CACHE = 4, CREATE_FORCE_BOOT = 8, CREATE_VALIDATE = 16,
       CREATE_RESET_NVRAM = 32 }; /* virDomainCreateFlags */
enum { DEFINE_VALIDATE = 1 };
enum { UNDEFINE_MANAGED_SAVE = 1, UNDEFINE_NVRAM = 4, UNDEFINE_KEEP_NVRAM = 8, UNDEFINE_ALL = 127 };
enum { DESTROY_GRACEFUL = 1, DESTROY_REMOVE_LOGS = 2 };
enum { POWER_ACPI = 1, POWER_AGENT = 2 }; /* virDomainShutdownFlagValues, virDomainRebootFlagValues */

/* ---- Definitions ----------------------------------------------------------- */

static struct domain *parse(struct rpc_call *call, const char *xml, bool validate)
{
	struct err err = ERR_INIT;
	struct domain *def = domain_parse(xml, validate ? DOMAIN_PARSE_VALIDATE : 0, &call_daemon(call)->caps, &err);

	if (!def)
		call_fail_model(call, &err);
	return def;
}

/* The guest that a definition is for: one of the same name and UUID, or none. -1 if either belongs to another. */
static int match(struct rpc_call *call, const struct domain *def, struct guest **found)
{
	struct daemon *d = call_daemon(call);
	struct guest *g = guest_by_uuid(d, def->uuid.bytes);
	char uuid[37];

	*found = g;
	if (g && strcmp(g->name, def->name)) {
		uuid_text(g->uuid, uuid);
		return rpc_call_fail(call, VIR_FROM_DOMAIN, VIR_ERR_OPERATION_FAILED, "domain '%s' is already defined with uuid %s",
				     g->name, uuid);
	}
	if (!g && (g = guest_by_name(d, def->name))) {
		uuid_text(g->uuid, uuid);
		return rpc_call_fail(call, VIR_FROM_DOMAIN, VIR_ERR_OPERATION_FAILED, "domain '%s' already exists with uuid %s",
				     g->name, uuid);
	}
	return 0;
}

/* Takes def. */
static int define(struct rpc_call *call, struct domain *def, struct remote_domain *out)
{
	struct err err = ERR_INIT;
	struct guest *g;
	bool added;

	if (match(call, def, &g))
		goto fail;
	if (!g) {
		g = guest_new(call_daemon(call), def->name, def->uuid.bytes);
		if (!g || guest_add(g)) {
			guest_put(g);
			call_fail_memory(call);
			goto fail;
		}
		guest_put(g); /* the table has it */
	}
	if (store_save_config(g, def, &err)) {
		if (!guest_is_persistent(g) && !guest_is_active(g))
			guest_remove(g);
		rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_SYSTEM_ERROR, "%s", err_msg(&err));
		goto fail;
	}
	added = !guest_is_persistent(g);
	guest_set_config(g, def);
	event_lifecycle(g, EVENT_DEFINED, added ? DEFINED_ADDED : DEFINED_UPDATED);
	*out = guest_wire(g);
	return 0;
fail:
	domain_free(def);
	return -1;
}

static int define_xml(struct rpc_call *call)
{
	struct domain *def = parse(call, ((struct remote_domain_define_xml_args *)call->args)->xml, false);

	return def ? define(call, def, &((struct remote_domain_define_xml_ret *)call->ret)->dom) : -1;
}

static int define_xml_flags(struct rpc_call *call)
{
	const struct remote_domain_define_xml_flags_args *args = call->args;
	struct domain *def;

	if (call_check_flags(call, args->flags, DEFINE_VALIDATE))
		return -1;
	def = parse(call, args->xml, args->flags & DEFINE_VALIDATE);
	return def ? define(call, def, &((struct remote_domain_define_xml_flags_ret *)call->ret)->dom) : -1;
}

static int undefine(struct rpc_call *call, struct guest *g, uint32_t flags)
{
	const char *nvram = g->config && g->config->os->nvram ? g->config->os->nvram->path : NULL;
	struct err err = ERR_INIT;

	if (call_check_flags(call, flags, UNDEFINE_ALL))
		return -1;
	if (!g->config)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "cannot undefine transient domain");
	if (save_is_managed(g) && !(flags & UNDEFINE_MANAGED_SAVE))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID,
				     "Refusing to undefine while domain managed save image exists");
	if (nvram && !access(nvram, F_OK) && !(flags & UNDEFINE_KEEP_NVRAM)) {
		if (!(flags & UNDEFINE_NVRAM))
			return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "cannot undefine domain with nvram");
		if (unlink(nvram))
			return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_SYSTEM_ERROR, "failed to remove nvram: %s: %s", nvram,
					     strerror(errno));
	}
	if (store_delete_config(g->daemon, g->name, &err))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_SYSTEM_ERROR, "%s", err_msg(&err));
	g->autostart = false;
	save_forget_managed(g);
	guest_set_config(g, NULL);
	guest_get(g);
	if (!guest_is_active(g))
		guest_remove(g);
	event_lifecycle(g, EVENT_UNDEFINED, UNDEFINED_REMOVED);
	guest_put(g);
	return 0;
}

static int undefine_plain(struct rpc_call *call, struct guest *g)
{
	return undefine(call, g, 0);
}

static int undefine_flags(struct rpc_call *call, struct guest *g)
{
	return undefine(call, g, ((struct remote_domain_undefine_flags_args *)call->args)->flags);
}

static int rename_guest(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_rename_args *args = call->args;
	const char *name = args->new_name;
	struct err err = ERR_INIT;
	char *old, *copy;

	if (call_check_flags(call, args->flags, 0))
		return -1;
	if (!name || !*name || strchr(name, '/') || strchr(name, '\n'))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "name %s cannot be empty or contain '/' or a line feed",
				     name ? name : "");
	if (guest_is_active(g))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "cannot rename active domain");
	if (!g->config)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "cannot rename a transient domain");
	if (save_is_managed(g))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "domain with a managed saved state can't be renamed");
	if (guest_by_name(g->daemon, name))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "domain with name '%s' already exists", name);
	old = strdup(g->name);
	copy = strdup(name);
	if (!old || !copy || guest_set_name(g, name)) {
		free(old);
		free(copy);
		return call_fail_memory(call);
	}
	free(g->config->name);
	g->config->name = copy;
	/* First the new file, then the old one goes: at no moment there is none. */
	if (store_save_config(g, g->config, &err) || (g->autostart && store_set_autostart(g, true, &err))) {
		store_delete_config(g->daemon, name, NULL);
		guest_set_name(g, old);
		free(g->config->name);
		g->config->name = old;
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_SYSTEM_ERROR, "%s", err_msg(&err));
	}
	if (store_delete_config(g->daemon, old, &err))
		log_line(LOG_ERROR, "the old definition of '%s' stays: %s", name, err_msg(&err));
	copy = g->name;
	g->name = old; /* the first of the two events has the old name */
	event_lifecycle(g, EVENT_UNDEFINED, UNDEFINED_RENAMED);
	g->name = copy;
	event_lifecycle(g, EVENT_DEFINED, DEFINED_RENAMED);
	free(old);
	return 0;
}

/* ---- Starting -------------------------------------------------------------- */

struct start {
	struct rpc_call *call;
	struct remote_domain *out; /* in call->ret; or NULL */
	uint32_t flags;
};

static int fail_start(struct rpc_call *call, const struct err *err)
{
	int code = model_vir_code(err);

	if (err->code == EREMOTEIO)
		return rpc_call_fail(call, VIR_FROM_HOOK, VIR_ERR_HOOK_SCRIPT_FAILED, "%s", err_msg(err));
	if (err->code == ENOTSUP)
		return rpc_call_fail(call, VIR_FROM_QEMU, code, "%s", err_msg(err));
	return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INTERNAL_ERROR, "%s", err_msg(err));
}

static void started(struct guest *g, void *opaque, const struct err *err)
{
	struct start *s = opaque;
	struct rpc_call *call = s->call;
	int ret = 0;

	guest_get(g);
	if (err) {
		if (!guest_is_persistent(g) && !guest_is_active(g))
			guest_remove(g);
		ret = fail_start(call, err);
	} else {
		event_lifecycle(g, EVENT_STARTED, STARTED_BOOTED);
		if (s->flags & CREATE_PAUSED)
			event_lifecycle(g, EVENT_SUSPENDED, SUSPENDED_PAUSED);
		if (s->flags & CREATE_AUTODESTROY)
			g->autodestroy = call->client;
		if (s->out)
			*s->out = guest_wire(g);
	}
	free(s);
	guest_finish(call, g, ret);
	guest_put(g);
}

static int start(struct rpc_call *call, struct guest *g, struct domain *def, uint32_t flags, struct remote_domain *out)
{
	struct start *s = calloc(1, sizeof(*s));

	if (!s) {
		domain_free(def);
		return call_fail_memory(call);
	}
	*s = (struct start){ .call = call, .out = out, .flags = flags };
	guest_start(g, def, flags & CREATE_PAUSED ? START_PAUSED : 0, started, s);
	return RPC_LATER;
}

static int create_with(struct rpc_call *call, struct guest *g, uint32_t flags, struct remote_domain *out)
{
	int ret;

	if (call_check_flags(call, flags, CREATE_PAUSED | CREATE_AUTODESTROY | CREATE_BYPASS_CACHE | CREATE_FORCE_BOOT))
		return -1;
	if (guest_is_active(g))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "domain is already running");
	ret = save_start_managed(call, g, flags, out);
	return ret ? ret : start(call, g, NULL, flags, out);
}

static int create(struct rpc_call *call, struct guest *g)
{
	return create_with(call, g, 0, NULL);
}

static int create_flags(struct rpc_call *call, struct guest *g)
{
	return create_with(call, g, ((struct remote_domain_create_with_flags_args *)call->args)->flags,
			   &((struct remote_domain_create_with_flags_ret *)call->ret)->dom);
}

static int create_xml(struct rpc_call *call)
{
	const struct remote_domain_create_xml_args *args = call->args;
	struct domain *def;
	struct guest *g;

	if (call_check_flags(call, args->flags, CREATE_PAUSED | CREATE_AUTODESTROY | CREATE_VALIDATE))
		return -1;
	def = parse(call, args->xml_desc, args->flags & CREATE_VALIDATE);
	if (!def)
		return -1;
	if (match(call, def, &g)) {
		domain_free(def);
		return -1;
	}
	if (g && (guest_is_active(g) || g->busy)) {
		domain_free(def);
		return rpc_call_fail(call, VIR_FROM_DOMAIN, VIR_ERR_OPERATION_INVALID, "domain is already active as '%s'", g->name);
	}
	if (!g) {
		g = guest_new(call_daemon(call), def->name, def->uuid.bytes);
		if (!g || guest_add(g)) {
			guest_put(g);
			domain_free(def);
			return call_fail_memory(call);
		}
		guest_put(g);
	}
	g->busy = true;
	g->job = call;
	return start(call, g, def, args->flags, &((struct remote_domain_create_xml_ret *)call->ret)->dom);
}

/* ---- Stopping -------------------------------------------------------------- */

static void killed(struct guest *g, void *opaque, const struct err *err)
{
	struct rpc_call *call = opaque;

	guest_finish(call, g, err ? rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_FAILED, "%s", err_msg(err)) : 0);
}

/* No job: what hangs can be destroyed, too. */
static int destroy(struct rpc_call *call, struct guest *g, uint32_t flags)
{
	if (call_check_flags(call, flags, DESTROY_GRACEFUL | DESTROY_REMOVE_LOGS))
		return -1;
	if (!g->run)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "domain is not running");
	guest_kill(g, flags & DESTROY_GRACEFUL, killed, call);
	return RPC_LATER;
}

static int destroy_plain(struct rpc_call *call, struct guest *g)
{
	return destroy(call, g, 0);
}

static int destroy_flags(struct rpc_call *call, struct guest *g)
{
	return destroy(call, g, ((struct remote_domain_destroy_flags_args *)call->args)->flags);
}

static int press_button(struct rpc_call *call, struct guest *g, uint32_t flags, bool reboot)
{
	if (call_check_flags(call, flags, POWER_ACPI | POWER_AGENT))
		return -1;
	if ((flags & POWER_AGENT) && !(flags & POWER_ACPI)) {
		guest_set_fake_reboot(g, false);
		return guest_agent(call, g, "guest-shutdown", json_pack("{s:s}", "mode", reboot ? "reboot" : "powerdown"), AGENT_ENDS, NULL);
	}
	guest_set_fake_reboot(g, reboot);
	return guest_qmp(call, g, "system_powerdown", NULL, NULL);
}

static int shut_down(struct rpc_call *call, struct guest *g)
{
	return press_button(call, g, 0, false);
}

static int shut_down_flags(struct rpc_call *call, struct guest *g)
{
	return press_button(call, g, ((struct remote_domain_shutdown_flags_args *)call->args)->flags, false);
}

static int reboot(struct rpc_call *call, struct guest *g)
{
	return press_button(call, g, ((struct remote_domain_reboot_args *)call->args)->flags, true);
}

static int reset(struct rpc_call *call, struct guest *g)
{
	if (call_check_flags(call, ((struct remote_domain_reset_args *)call->args)->flags, 0))
		return -1;
	guest_set_fake_reboot(g, false);
	return guest_qmp(call, g, "system_reset", NULL, NULL);
}

static int suspend(struct rpc_call *call, struct guest *g)
{
	if (g->state == STATE_PAUSED)
		return 0;
	if (g->state == STATE_PMSUSPENDED)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "domain is pmsuspended");
	return guest_qmp(call, g, "stop", NULL, NULL);
}

static int resume(struct rpc_call *call, struct guest *g)
{
	if (g->state == STATE_PMSUSPENDED)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "domain is pmsuspended");
	if (g->state == STATE_RUNNING)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "domain is already running");
	return guest_qmp(call, g, "cont", NULL, NULL);
}

static int inject_nmi(struct rpc_call *call, struct guest *g)
{
	if (call_check_flags(call, ((struct remote_domain_inject_nmi_args *)call->args)->flags, 0))
		return -1;
	return guest_qmp(call, g, "inject-nmi", NULL, NULL);
}

/* ---- Autostart ------------------------------------------------------------- */

static int get_autostart(struct rpc_call *call, struct guest *g)
{
	((struct remote_domain_get_autostart_ret *)call->ret)->autostart = g->autostart;
	return 0;
}

static int set_autostart(struct rpc_call *call, struct guest *g)
{
	bool on = ((struct remote_domain_set_autostart_args *)call->args)->autostart;
	struct err err = ERR_INIT;

	if (!g->config)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "cannot set autostart for transient domain");
	if (on != g->autostart && store_set_autostart(g, on, &err))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_SYSTEM_ERROR, "%s", err_msg(&err));
	g->autostart = on;
	return 0;
}

static void autostarted(struct guest *g, void *opaque, const struct err *err)
{
	if (err)
		log_line(LOG_ERROR, "the guest '%s' is not autostarted: %s", g->name, err_msg(err));
	else
		event_lifecycle(g, EVENT_STARTED, STARTED_BOOTED);
	guest_job_end(g);
}

static int autostart_one(struct guest *g, void *opaque)
{
	if (!g->autostart || guest_is_active(g) || guest_unpack(g))
		return 0;
	g->busy = true;
	guest_start(g, NULL, 0, autostarted, NULL);
	return 0;
}

void lifecycle_autostart(struct daemon *d)
{
	guest_each(d, autostart_one, NULL);
}

static int autodestroy_one(struct guest *g, void *client)
{
	if (g->autodestroy == client && g->run)
		guest_kill(g, false, NULL, NULL);
	return 0;
}

void lifecycle_client_gone(struct daemon *d, struct rpc_client *client)
{
	guest_each(d, autodestroy_one, client);
}

const struct binding lifecycle_bindings[] = {
	{ REMOTE_PROC_DOMAIN_DEFINE_XML, define_xml },
	{ REMOTE_PROC_DOMAIN_DEFINE_XML_FLAGS, define_xml_flags },
	{ REMOTE_PROC_DOMAIN_CREATE_XML, create_xml },
	{ 0 },
};

const struct guest_binding lifecycle_guest_bindings[] = {
	{ NULL, REMOTE_PROC_DOMAIN_UNDEFINE, undefine_plain, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_UNDEFINE_FLAGS, undefine_flags, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_RENAME, rename_guest, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_CREATE, create, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_CREATE_WITH_FLAGS, create_flags, GUEST_JOB },
	{ NULL, REMOTE_PROC_DOMAIN_DESTROY, destroy_plain, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_DESTROY_FLAGS, destroy_flags, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_SHUTDOWN, shut_down, GUEST_JOB | GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_SHUTDOWN_FLAGS, shut_down_flags, GUEST_JOB | GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_REBOOT, reboot, GUEST_JOB | GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_RESET, reset, GUEST_JOB | GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_SUSPEND, suspend, GUEST_JOB | GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_RESUME, resume, GUEST_JOB | GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_INJECT_NMI, inject_nmi, GUEST_JOB | GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_GET_AUTOSTART, get_autostart, GUEST_PACKED },
	{ NULL, REMOTE_PROC_DOMAIN_SET_AUTOSTART, set_autostart, GUEST_JOB },
	{ 0 },
};
