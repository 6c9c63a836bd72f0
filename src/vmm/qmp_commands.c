/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The QMP commands, with QEMU 7.2's names and shapes wherever the meaning is the same. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/balloon.h"
#include "vmm/vmm.h"

static const struct qmp_command *const tables[] = { qmp_commands, qmp_block_commands, qmp_chardev_commands, qmp_tray_commands, qmp_device_commands, qmp_fd_commands, qmp_object_commands, qmp_memory_commands, qmp_state_commands, qmp_job_commands, qmp_graph_commands, qmp_export_commands };

const char *qmp_need_text(json_t *args, const char *name, struct err *err)
{
	const char *text = json_string_value(json_object_get(args, name));

	if (!text)
		err_set(err, EINVAL, "Parameter '%s' is missing or no string", name);
	return text;
}

json_t *qmp_done(int ret)
{
	return ret ? NULL : json_object();
}

static json_t *cmd_capabilities(struct vmm *v, json_t *args, struct err *err)
{
	json_t *enable = json_object_get(args, "enable");

	if (enable && (!json_is_array(enable) || json_array_size(enable))) {
		err_set(err, EINVAL, "Keel offers no QMP capability: 'enable' must be an empty array");
		return NULL;
	}
	return qmp_done(0);
}

static json_t *cmd_version(struct vmm *v, json_t *args, struct err *err)
{
	return json_pack("{s:{s:i,s:i,s:i},s:s}", "qemu", "micro", 0, "minor", 2, "major", 7, "package", "keel-" KEEL_VERSION);
}

static json_t *cmd_status(struct vmm *v, json_t *args, struct err *err)
{
	return json_pack("{s:b,s:b,s:s}", "running", v->machine->state == MACHINE_RUNNING, "singlestep", 0, "status",
			 vmm_status(v));
}

static json_t *cmd_name(struct vmm *v, json_t *args, struct err *err)
{
	return json_pack("{s:s}", "name", v->options->name);
}

static json_t *cmd_uuid(struct vmm *v, json_t *args, struct err *err)
{
	const uint8_t *u = v->options->uuid;
	char text[37];

	snprintf(text, sizeof(text), "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2],
		 u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
	return json_pack("{s:s}", "UUID", text);
}

static json_t *cmd_cpus(struct vmm *v, json_t *args, struct err *err)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < v->machine->config.cpus; i++) {
		char path[64];

		snprintf(path, sizeof(path), "/machine/unattached/device[%u]", i);
		json_array_append_new(list, json_pack("{s:i,s:s,s:i,s:s,s:{s:i,s:i,s:i}}", "cpu-index", i, "qom-path", path,
						      "thread-id", machine_cpu_tid(v->machine, i), "target", "x86_64", "props",
						      "socket-id", i, "core-id", 0, "thread-id", 0));
	}
	return list;
}

static json_t *cmd_kvm(struct vmm *v, json_t *args, struct err *err)
{
	struct engine_stats s;

	engine_get_stats(v->machine->engine, &s);
	/* "handovers" is Keel's own: instructions that KVM refused and the soft engine ran. */
	return json_pack("{s:b,s:b,s:I}", "enabled", v->engine == ENGINE_KVM, "present", v->engine == ENGINE_KVM, "handovers",
			 (json_int_t)s.handovers);
}

static json_t *cmd_engine(struct vmm *v, json_t *args, struct err *err)
{
	struct engine_stats s;

	engine_get_stats(v->machine->engine, &s);
	return json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "engine", v->engine == ENGINE_KVM ? "kvm" : "soft", "instructions",
			 (json_int_t)s.instructions, "handovers", (json_int_t)s.handovers, "blocks-decoded",
			 (json_int_t)s.blocks_decoded, "tlb-misses", (json_int_t)s.tlb_misses, "exits", (json_int_t)s.exits,
			 "cache-limit", (json_int_t)s.cache_limit, "cache-used", (json_int_t)s.cache_used, "cache-flushes",
			 (json_int_t)s.cache_flushes, "native-stretches", (json_int_t)s.native_stretches, "native-us", (json_int_t)s.native_us);
}

static json_t *cmd_commands(struct vmm *v, json_t *args, struct err *err)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
		for (const struct qmp_command *c = tables[i]; c->name; c++)
			json_array_append_new(list, json_pack("{s:s}", "name", c->name));
	return list;
}

static json_t *cmd_stop(struct vmm *v, json_t *args, struct err *err)
{
	vmm_stop(v);
	return qmp_done(0);
}

static json_t *cmd_cont(struct vmm *v, json_t *args, struct err *err)
{
	return qmp_done(vmm_cont(v, err));
}

static json_t *cmd_reset(struct vmm *v, json_t *args, struct err *err)
{
	return qmp_done(vmm_reset(v, false, err));
}

static json_t *cmd_powerdown(struct vmm *v, json_t *args, struct err *err)
{
	vmm_powerdown(v);
	return qmp_done(0);
}

static json_t *cmd_quit(struct vmm *v, json_t *args, struct err *err)
{
	vmm_quit(v, VMM_OFF, false, "host-qmp-quit");
	return qmp_done(0);
}

static json_t *cmd_balloon(struct vmm *v, json_t *args, struct err *err)
{
	json_t *value = json_object_get(args, "value");

	if (!v->balloon) {
		err_set(err, ENODEV, "No balloon device has been activated");
		return NULL;
	}
	if (!json_is_integer(value) || json_integer_value(value) <= 0) {
		err_set(err, EINVAL, "Parameter 'value' expects a size in bytes");
		return NULL;
	}
	virtio_balloon_set(v->balloon, json_integer_value(value));
	return qmp_done(0);
}

static json_t *cmd_query_balloon(struct vmm *v, json_t *args, struct err *err)
{
	if (!v->balloon) {
		err_set(err, ENODEV, "No balloon device has been activated");
		return NULL;
	}
	return json_pack("{s:I}", "actual", (json_int_t)virtio_balloon_actual(v->balloon));
}

static json_t *cmd_hmp(struct vmm *v, json_t *args, struct err *err)
{
	const char *line = qmp_need_text(args, "command-line", err);
	json_t *text;
	char *out;

	if (!line)
		return NULL;
	out = hmp_run(v, line, err);
	text = out ? json_string(out) : NULL;
	free(out);
	return text;
}

const struct qmp_command qmp_commands[] = {
	{ "balloon", "value", cmd_balloon },
	{ "cont", "", cmd_cont },
	{ "human-monitor-command", "command-line cpu-index", cmd_hmp },
	{ "qmp_capabilities", "enable", cmd_capabilities },
	{ "query-balloon", "", cmd_query_balloon },
	{ "query-commands", "", cmd_commands },
	{ "query-cpus-fast", "", cmd_cpus },
	{ "query-engine", "", cmd_engine },
	{ "query-kvm", "", cmd_kvm },
	{ "query-name", "", cmd_name },
	{ "query-status", "", cmd_status },
	{ "query-uuid", "", cmd_uuid },
	{ "query-version", "", cmd_version },
	{ "quit", "", cmd_quit },
	{ "stop", "", cmd_stop },
	{ "system_powerdown", "", cmd_powerdown },
	{ "system_reset", "", cmd_reset },
	{ NULL, NULL, NULL },
};

const struct qmp_command *qmp_command_find(const char *name)
{
	for (unsigned i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
		for (const struct qmp_command *c = tables[i]; c->name; c++)
			if (!strcmp(c->name, name))
				return c;
	return NULL;
}
