/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Questions about a guest that its definitions and /proc answer. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/guest.h"
#include "daemon/guest_devices.h"
#include "daemon/proc_stat.h"

enum { XML_SECURE = 1, XML_INACTIVE = 2, XML_UPDATE_CPU = 4, XML_MIGRATABLE = 8 }; /* virDomainXMLFlags */

static int get_xml_desc(struct rpc_call *call, struct guest *g)
{
	uint32_t flags = ((struct remote_domain_get_xml_desc_args *)call->args)->flags;
	struct remote_domain_get_xml_desc_ret *ret = call->ret;
	const struct domain *def;
	unsigned how = 0;
	char *xml;

	if (call_check_flags(call, flags, XML_SECURE | XML_INACTIVE | XML_UPDATE_CPU | XML_MIGRATABLE))
		return -1;
	if (g->packed && !guest_is_active(g)) { /* then it's off, and there is only one form */
		ret->xml = arena_strdup(&call->arena, g->packed);
		return ret->xml ? 0 : call_fail_memory(call);
	}
	if (guest_unpack(g))
		return call_fail_memory(call);
	def = guest_def(g);
	if ((flags & (XML_INACTIVE | XML_MIGRATABLE)) && g->config)
		def = g->config;
	if (def == g->live && !(flags & (XML_INACTIVE | XML_MIGRATABLE)))
		how |= DOMAIN_FORMAT_LIVE;
	if (flags & XML_SECURE)
		how |= DOMAIN_FORMAT_SECURE;
	if (flags & XML_MIGRATABLE)
		how |= DOMAIN_FORMAT_MIGRATABLE | DOMAIN_FORMAT_SECURE;
	xml = domain_format(def, how);
	ret->xml = xml ? arena_strdup(&call->arena, xml) : NULL;
	free(xml);
	return ret->xml ? 0 : call_fail_memory(call);
}

static int get_info(struct rpc_call *call, struct guest *g)
{
	struct remote_domain_get_info_ret *ret = call->ret;
	const struct domain *def = guest_def(g);
	struct proc_stat s;

	ret->state = (uint8_t)g->state;
	ret->maxMem = def->memory->kib;
	ret->memory = domain_memory_current(def);
	ret->nrVirtCpu = (uint16_t)domain_vcpus_current(def);
	if (guest_is_active(g) && proc_stat_read(guest_pid(g), 0, &s))
		ret->cpuTime = s.user_ns + s.system_ns;
	return 0;
}

static int get_state(struct rpc_call *call, struct guest *g)
{
	struct remote_domain_get_state_ret *ret = call->ret;

	if (call_check_flags(call, ((struct remote_domain_get_state_args *)call->args)->flags, 0))
		return -1;
	ret->state = g->state;
	ret->reason = g->reason;
	return 0;
}

static int get_max_memory(struct rpc_call *call, struct guest *g)
{
	((struct remote_domain_get_max_memory_ret *)call->ret)->memory = guest_def(g)->memory->kib;
	return 0;
}

static int get_os_type(struct rpc_call *call, struct guest *g)
{
	((struct remote_domain_get_os_type_ret *)call->ret)->type = "hvm";
	return 0;
}

static int is_active(struct rpc_call *call, struct guest *g)
{
	((struct remote_domain_is_active_ret *)call->ret)->active = guest_is_active(g);
	return 0;
}

static int is_persistent(struct rpc_call *call, struct guest *g)
{
	((struct remote_domain_is_persistent_ret *)call->ret)->persistent = guest_is_persistent(g);
	return 0;
}

static int is_updated(struct rpc_call *call, struct guest *g)
{
	((struct remote_domain_is_updated_ret *)call->ret)->updated = g->updated;
	return 0;
}

/* virDomainControlState: ok, a job runs, occupied by a command, or in error. */
static int get_control_info(struct rpc_call *call, struct guest *g)
{
	struct remote_domain_get_control_info_ret *ret = call->ret;

	if (call_check_flags(call, ((struct remote_domain_get_control_info_args *)call->args)->flags, 0))
		return -1;
	ret->state = g->busy ? 1 : 0;
	return 0;
}

/* There are no long jobs yet: virDomainJobType NONE. */
static int get_job_info(struct rpc_call *call, struct guest *g)
{
	return 0;
}

static int get_job_stats(struct rpc_call *call, struct guest *g)
{
	return call_check_flags(call, ((struct remote_domain_get_job_stats_args *)call->args)->flags, 3);
}

static int abort_job(struct rpc_call *call, struct guest *g)
{
	return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "no job is active on the domain");
}

/* No guest has snapshots or checkpoints: the zeroed result says so. */
static int none(struct rpc_call *call, struct guest *g)
{
	return 0;
}

static int no_snapshot(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_snapshot_lookup_by_name_args *args = call->args;

	return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_NO_DOMAIN_SNAPSHOT, "no domain snapshot with matching name '%s'",
			     args->name);
}

static int no_current_snapshot(struct rpc_call *call, struct guest *g)
{
	return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_NO_DOMAIN_SNAPSHOT, "the domain does not have a current snapshot");
}

static int no_checkpoint(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_checkpoint_lookup_by_name_args *args = call->args;

	return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_NO_DOMAIN_CHECKPOINT, "no domain checkpoint with matching name '%s'",
			     args->name);
}

static int no_screenshot(struct rpc_call *call, struct guest *g)
{
	return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_UNSUPPORTED, "the guest has no display to take a picture of");
}

static int no_keyboard(struct rpc_call *call, struct guest *g)
{
	return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_UNSUPPORTED, "the guest has no keyboard: it has only its serial console");
}

static int get_disk_errors(struct rpc_call *call, struct guest *g)
{
	return call_check_flags(call, ((struct remote_domain_get_disk_errors_args *)call->args)->flags, 0);
}

/* The process is confined, but by no security driver with labels. */
static int get_security_label(struct rpc_call *call, struct guest *g)
{
	struct remote_domain_get_security_label_ret *ret = call->ret;

	ret->label = "";
	ret->label_len = 1;
	return 0;
}

static int get_messages(struct rpc_call *call, struct guest *g)
{
	return call_check_flags(call, ((struct remote_domain_get_messages_args *)call->args)->flags, 3);
}

const struct guest_binding query_bindings[] = {
	{ NULL, REMOTE_PROC_DOMAIN_GET_XML_DESC, get_xml_desc, GUEST_PACKED },
	{ NULL, REMOTE_PROC_DOMAIN_GET_INFO, get_info, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_GET_STATE, get_state, GUEST_PACKED },
	{ NULL, REMOTE_PROC_DOMAIN_GET_MAX_MEMORY, get_max_memory, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_GET_OS_TYPE, get_os_type, GUEST_PACKED },
	{ NULL, REMOTE_PROC_DOMAIN_IS_ACTIVE, is_active, GUEST_PACKED },
	{ NULL, REMOTE_PROC_DOMAIN_IS_PERSISTENT, is_persistent, GUEST_PACKED },
	{ NULL, REMOTE_PROC_DOMAIN_IS_UPDATED, is_updated, GUEST_PACKED },
	{ NULL, REMOTE_PROC_DOMAIN_GET_CONTROL_INFO, get_control_info, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_GET_JOB_INFO, get_job_info, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_GET_JOB_STATS, get_job_stats, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_ABORT_JOB, abort_job, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_ABORT_JOB_FLAGS, abort_job, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_SNAPSHOT_NUM, none, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_SNAPSHOT_LIST_NAMES, none, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_LIST_ALL_SNAPSHOTS, none, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_HAS_CURRENT_SNAPSHOT, none, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_SNAPSHOT_CURRENT, no_current_snapshot, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_SNAPSHOT_LOOKUP_BY_NAME, no_snapshot, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_LIST_ALL_CHECKPOINTS, none, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_CHECKPOINT_LOOKUP_BY_NAME, no_checkpoint, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_SCREENSHOT, no_screenshot, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_SEND_KEY, no_keyboard, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_GET_DISK_ERRORS, get_disk_errors, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_GET_SECURITY_LABEL, get_security_label, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_GET_MESSAGES, get_messages, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_GET_IOTHREAD_INFO, none, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_GET_LAUNCH_SECURITY_INFO, none, 0 },
	{ 0 },
};
