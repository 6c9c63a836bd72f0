/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The program qemu: commands to the machine as their user wrote them. */
#include <stdlib.h>
#include <string.h>

#include "daemon/guest.h"

enum { MONITOR_HMP = 1 }; /* virDomainQemuMonitorCommandFlags */

struct passed {
	struct rpc_call *call;
	struct guest *guest;
	bool hmp;
};

static int take_answer(struct rpc_call *call, json_t *answer, bool hmp)
{
	struct qemu_domain_monitor_command_ret *ret = call->ret;
	json_t *value = json_object_get(answer, "return"), *error = json_object_get(answer, "error");
	char *text;

	if (hmp && error)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INTERNAL_ERROR, "unable to execute QEMU command 'human-monitor-command': %s",
				     json_string_value(json_object_get(error, "desc")));
	if (hmp) {
		ret->result = arena_strdup(&call->arena, json_is_string(value) ? json_string_value(value) : "");
	} else {
		text = json_dumps(answer, JSON_COMPACT);
		ret->result = text ? arena_strdup(&call->arena, text) : NULL;
		free(text);
	}
	return ret->result ? 0 : call_fail_memory(call);
}

static void answered(void *opaque, json_t *answer, const char *error)
{
	struct passed *p = opaque;
	int ret = answer ? take_answer(p->call, answer, p->hmp)
			 : rpc_call_fail(p->call, VIR_FROM_QEMU, VIR_ERR_OPERATION_FAILED, "domain is no longer running");

	guest_finish(p->call, p->guest, ret);
	guest_put(p->guest);
	free(p);
}

static int monitor_command(struct rpc_call *call, struct guest *g)
{
	const struct qemu_domain_monitor_command_args *args = call->args;
	struct qmp *q = guest_monitor(g);
	bool hmp = args->flags & MONITOR_HMP, sent = false;
	struct passed *p;
	json_error_t why;
	json_t *message;

	if (call_check_flags(call, args->flags, MONITOR_HMP))
		return -1;
	if (!q)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "domain is not running");
	message = hmp ? json_pack("{s:s,s:{s:s}}", "execute", "human-monitor-command", "arguments", "command-line", args->cmd)
		      : json_loads(args->cmd, JSON_REJECT_DUPLICATES, &why);
	if (!json_is_object(message)) {
		json_decref(message);
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INTERNAL_ERROR, "cannot parse json %s: %s", args->cmd,
				     hmp ? "it is not UTF-8" : why.text);
	}
	p = calloc(1, sizeof(*p));
	if (p) {
		*p = (struct passed){ call, guest_get(g), hmp };
		sent = qmp_send_raw(q, message, answered, p);
	}
	json_decref(message);
	if (sent)
		return RPC_LATER;
	if (p)
		guest_put(g);
	free(p);
	return call_fail_memory(call);
}

const struct guest_binding qemu_guest_bindings[] = {
	{ &qemu_program, QEMU_PROC_DOMAIN_MONITOR_COMMAND, monitor_command, GUEST_JOB | GUEST_ACTIVE },
	{ 0 },
};
