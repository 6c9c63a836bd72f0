/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The QMP commands, with QEMU 7.2's names and shapes wherever the meaning is the same. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/balloon.h"
#include "machine/pci.h"
#include "vmm/vmm.h"

static json_t *done(void)
{
	return json_object();
}

static json_t *cmd_capabilities(struct vmm *v, json_t *args, struct err *err)
{
	json_t *enable = json_object_get(args, "enable");

	if (enable && (!json_is_array(enable) || json_array_size(enable))) {
		err_set(err, EINVAL, "Keel offers no QMP capability: 'enable' must be an empty array");
		return NULL;
	}
	return done();
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

static json_t *cmd_block(struct vmm *v, json_t *args, struct err *err)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < v->disks; i++) {
		struct vmm_disk *d = &v->disk[i];
		json_t *image = json_pack("{s:s,s:s,s:I,s:I}", "filename", d->path, "format", block_format(d->block),
					  "virtual-size", (json_int_t)block_size(d->block), "actual-size",
					  (json_int_t)block_size(d->block));
		json_t *inserted = json_pack("{s:s,s:s,s:s,s:b,s:b,s:o}", "node-name", d->device_id, "file", d->path, "drv",
					     block_format(d->block), "ro", block_readonly(d->block), "encrypted", 0, "image",
					     image);

		json_array_append_new(list, json_pack("{s:s,s:s,s:b,s:b,s:s,s:s,s:o}", "device", d->device_id, "qdev",
						      d->device_id, "locked", 0, "removable", 0, "type", "unknown", "io-status",
						      "ok", "inserted", inserted));
	}
	return list;
}

static json_t *cmd_blockstats(struct vmm *v, json_t *args, struct err *err)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < v->disks; i++) {
		struct block_stats s;

		block_get_stats(v->disk[i].block, &s);
		json_array_append_new(
			list, json_pack("{s:s,s:{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}}", "device", v->disk[i].device_id, "stats",
					"rd_bytes", (json_int_t)s.rd_bytes, "wr_bytes", (json_int_t)s.wr_bytes, "rd_operations",
					(json_int_t)s.rd_ops, "wr_operations", (json_int_t)s.wr_ops, "flush_operations",
					(json_int_t)s.flush_ops, "rd_total_time_ns", (json_int_t)s.rd_ns, "wr_total_time_ns",
					(json_int_t)s.wr_ns, "flush_total_time_ns", (json_int_t)s.flush_ns,
					"failed_operations", (json_int_t)s.failed));
	}
	return list;
}

struct pci_list {
	json_t *list;
};

static json_t *pci_regions(struct pci_device *p)
{
	json_t *regions = json_array();

	for (int i = 0; i < 6; i++) {
		struct pci_bar *b = &p->bar[i];

		if (!b->size)
			continue;
		json_array_append_new(regions, json_pack("{s:i,s:s,s:I,s:I,s:b,s:b}", "bar", i, "type", b->io ? "io" : "memory",
							 "size", (json_int_t)b->size, "address",
							 (json_int_t)(b->mapped ? b->range.base : (uint64_t)-1), "prefetch",
							 b->prefetch, "mem_type_64", b->mem64));
	}
	return regions;
}

static void pci_one(struct pci_device *p, unsigned bus, void *opaque)
{
	struct pci_list *l = opaque;
	uint16_t class = pci_get16(p->config + 0x0a);

	json_array_append_new(l->list,
			      json_pack("{s:i,s:i,s:i,s:{s:i,s:s},s:{s:i,s:i},s:i,s:i,s:s,s:o}", "bus", bus, "slot", p->devfn >> 3,
					"function", p->devfn & 7, "class_info", "class", class, "desc", p->dev.cls->name, "id",
					"vendor", pci_get16(p->config), "device", pci_get16(p->config + 2), "irq",
					p->config[0x3c], "irq_pin", p->config[0x3d], "qdev_id", p->dev.id, "regions",
					pci_regions(p)));
}

static json_t *cmd_pci(struct vmm *v, json_t *args, struct err *err)
{
	struct pci_list l = { json_array() };

	pci_for_each(v->machine, pci_one, &l);
	return json_pack("[{s:i,s:o}]", "bus", 0, "devices", l.list);
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
	return json_pack("{s:s,s:I,s:I,s:I,s:I,s:I}", "engine", v->engine == ENGINE_KVM ? "kvm" : "soft", "instructions",
			 (json_int_t)s.instructions, "handovers", (json_int_t)s.handovers, "blocks-decoded",
			 (json_int_t)s.blocks_decoded, "tlb-misses", (json_int_t)s.tlb_misses, "exits", (json_int_t)s.exits);
}

static json_t *cmd_commands(struct vmm *v, json_t *args, struct err *err)
{
	json_t *list = json_array();

	for (const struct qmp_command *c = qmp_commands; c->name; c++)
		json_array_append_new(list, json_pack("{s:s}", "name", c->name));
	return list;
}

static json_t *cmd_stop(struct vmm *v, json_t *args, struct err *err)
{
	vmm_stop(v);
	return done();
}

static json_t *cmd_cont(struct vmm *v, json_t *args, struct err *err)
{
	return vmm_cont(v, err) ? NULL : done();
}

static json_t *cmd_reset(struct vmm *v, json_t *args, struct err *err)
{
	return vmm_reset(v, false, err) ? NULL : done();
}

static json_t *cmd_powerdown(struct vmm *v, json_t *args, struct err *err)
{
	vmm_powerdown(v);
	return done();
}

static json_t *cmd_quit(struct vmm *v, json_t *args, struct err *err)
{
	vmm_quit(v, VMM_OFF, false, "host-qmp-quit");
	return done();
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
	return done();
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
	json_t *line = json_object_get(args, "command-line"), *text;
	char *out;

	if (!json_is_string(line)) {
		err_set(err, EINVAL, "Parameter 'command-line' is missing or no string");
		return NULL;
	}
	out = hmp_run(v, json_string_value(line), err);
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
	{ "query-block", "", cmd_block },
	{ "query-blockstats", "query-nodes", cmd_blockstats },
	{ "query-commands", "", cmd_commands },
	{ "query-cpus-fast", "", cmd_cpus },
	{ "query-engine", "", cmd_engine },
	{ "query-kvm", "", cmd_kvm },
	{ "query-name", "", cmd_name },
	{ "query-pci", "", cmd_pci },
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
	for (const struct qmp_command *c = qmp_commands; c->name; c++)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}
